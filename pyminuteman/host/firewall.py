"""The packet filter's part of VIPs in one network namespace: masquerade, guard and bypass, by nftables or by iptables.

1. Which of the two works is found out by adding rules, and taking them away again.
2. Between two audits what is there is known from memory; a change that fails because it is not so any more (``nft flush ruleset``, a
   restart of nftables.service) is answered by writing all of it anew, in one transaction.
3. Nothing is written when nothing is to be changed.
"""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Final, Literal, Protocol

from pyminuteman.host import iptables_rules, nft_table
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.filtering import NOTHING, Listed, Parts, family_of
from pyminuteman.host.tools import Answer, find, run

__all__ = ["Engine", "EngineName", "IPTablesEngine", "NftEngine", "VIPFirewall", "choose", "takes_raw_sockets"]

EngineName = Literal["auto", "nft", "iptables"]
STEP: Final = "firewall"
_VARIANTS: Final = ("", "-legacy", "-nft")
_NFT_PLACE: Final = re.compile(r"internal:0:0(?:-0:)?")
_XTABLES_LOCK: Final = "/run/xtables.lock"


class Engine(Protocol):
    """One way to have rules in the kernel. Every method may raise HostSetupError, and then changed nothing or a table as a whole."""

    name: str
    place: str
    """Where its rules are, in words."""

    def probe(self, parts: Parts) -> str:
        """Empty when it works, else why not."""
        ...

    def install(self, content: Listed, parts: Parts) -> None:
        """All of it anew."""
        ...

    def update(self, more: Listed, less: Listed, parts: Parts) -> None:
        """Change what is listed."""
        ...

    def read(self, parts: Parts) -> Listed | None:
        """What is listed; None when the rules are not all there, or are others than ours."""
        ...

    def remove(self) -> bool:
        """Take away all that is ours; whether there was any."""
        ...


class NftEngine:
    """The table ``inet minuteman``, through ``nft``."""

    name = "nft"
    place = "the table inet minuteman"

    def __init__(self, netns: str | None = None) -> None:
        self._netns = netns

    def probe(self, parts: Parts) -> str:
        """See :meth:`Engine.probe`."""
        if find("nft") is None:
            return "there is no nft on this machine (apt-get install nftables)"
        answer = self._say(nft_table.probe(parts))
        return "" if answer is None else answer

    def install(self, content: Listed, parts: Parts) -> None:
        """See :meth:`Engine.install`."""
        self._must(nft_table.install(content, parts))

    def update(self, more: Listed, less: Listed, parts: Parts) -> None:  # noqa: ARG002 - the sets are there whatever the parts
        """See :meth:`Engine.update`."""
        if commands := nft_table.update(more, less):
            self._must(commands)

    def read(self, parts: Parts) -> Listed | None:
        """See :meth:`Engine.read`."""
        answer = run(["nft", "-j", "-n", "list", "table", nft_table.FAMILY, nft_table.TABLE], netns=self._netns)
        if not answer.ok:
            if "No such file" in answer.error:
                return None
            raise _failed("nft cannot list our table", answer.error)
        try:
            listing = json.loads(answer.output)
            return nft_table.listed(listing) if nft_table.is_whole(listing, parts) else None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise HostSetupError(STEP, f"nft's listing of our table is not as it should be: {error}") from error

    def remove(self) -> bool:
        """See :meth:`Engine.remove`."""
        there = run(["nft", "list", "table", nft_table.FAMILY, nft_table.TABLE], netns=self._netns)
        if not there.ok:
            return False
        self._must(nft_table.remove())
        return True

    def _must(self, commands: list[nft_table.Command]) -> None:
        error = self._say(commands)
        if error is not None:
            raise _failed("nft refused our rules", error)

    def _say(self, commands: list[nft_table.Command]) -> str | None:
        # nft opens /dev/stdin for "-", which is missing in some containers.
        answer = run(["nft", "-j", "-f", "/proc/self/fd/0"], stdin=json.dumps({"nftables": commands}), netns=self._netns)
        if answer.ok:
            return None
        # One complaint for each command, with a place in JSON that nobody has seen.
        said = [text.strip() for text in _NFT_PLACE.split(answer.error.replace("Error: ", ""))]
        return "; ".join(dict.fromkeys(filter(None, said))) or f"it ended with {answer.code}"


class IPTablesEngine:
    """Chains ``MINUTEMAN-*``, through iptables-restore: for IPv4, and for IPv6 where that works too."""

    name = "iptables"
    place = "chains called MINUTEMAN-*"

    def __init__(self, netns: str | None = None) -> None:
        self._netns = netns
        self._variant: str | None = None
        self._versions: tuple[int, ...] = ()

    def probe(self, parts: Parts) -> str:
        """See :meth:`Engine.probe`."""
        if self._variant is not None:
            return ""
        reasons = []
        for variant in _VARIANTS:
            reason = self._try(variant, 4, parts)
            if not reason:
                self._variant = variant
                self._versions = (4,) if self._try(variant, 6, parts) else (4, 6)
                return ""
            reasons.append(f"iptables{variant}: {reason}")
        return "; ".join(reasons)

    def install(self, content: Listed, parts: Parts) -> None:
        """See :meth:`Engine.install`."""
        self._check_versions(content, parts)
        for version in self._versions:
            self._restore(version, iptables_rules.install(version, content, parts, self._saved(version)))

    def update(self, more: Listed, less: Listed, parts: Parts) -> None:
        """See :meth:`Engine.update`."""
        self._check_versions(more, parts)
        for version in self._versions:
            self._restore(version, iptables_rules.update(version, more, less, parts))

    def read(self, parts: Parts) -> Listed | None:
        """See :meth:`Engine.read`."""
        self._need(parts)
        found = NOTHING
        for version in self._versions:
            saved = self._saved(version)
            if not iptables_rules.is_whole(version, saved, parts):
                return None
            found |= iptables_rules.listed(saved)
        return found

    def remove(self) -> bool:
        """See :meth:`Engine.remove`."""
        self._need(Parts(masquerade=False))
        removed = False
        for version in self._versions:
            if text := iptables_rules.remove(self._saved(version)):
                self._restore(version, text)
                removed = True
        return removed

    def _need(self, parts: Parts) -> None:
        reason = self.probe(parts)
        if reason:
            raise _failed("iptables does not work here", reason)

    def _check_versions(self, content: Listed, parts: Parts) -> None:
        self._need(parts)
        if 6 not in self._versions and any(family_of(address) == 6 for address in content.addresses):  # noqa: PLR2004 - IPv6
            raise HostSetupError(
                STEP,
                f"there are IPv6 VIPs, and ip6tables{self._variant} does not work here",
                "load its modules: modprobe -a ip6table_filter ip6table_nat; or install nftables",
            )

    def _try(self, variant: str, version: int, parts: Parts) -> str:
        add, remove = iptables_rules.probe(version, parts)
        answer = self._run(variant, version, add)
        self._run(variant, version, remove)
        return "" if answer.ok else answer.error or f"it ended with {answer.code}"

    def _run(self, variant: str, version: int, text: str) -> Answer:
        name = f"ip{'6' if version == 6 else ''}tables{variant}-restore"  # noqa: PLR2004 - IPv6
        return run([name, "--noflush", "-w", "5"], stdin=text, netns=self._netns, extra=_lock())

    def _restore(self, version: int, text: str) -> None:
        if text:
            answer = self._run(self._variant or "", version, text)
            if not answer.ok:
                raise _failed(f"iptables refused our rules (IPv{version})", answer.error)

    def _saved(self, version: int) -> iptables_rules.SavedRules:
        name = f"ip{'6' if version == 6 else ''}tables{self._variant}-save"  # noqa: PLR2004 - IPv6
        tables: dict[str, dict[str, list[str]]] = {}
        for table in ("nat", "filter"):
            answer = run([name, "-t", table], netns=self._netns, extra=_lock())
            if not answer.ok:
                raise _failed(f"{name} cannot list the table {table}", answer.error)
            tables |= {name: dict(chains) for name, chains in iptables_rules.parse_saved(answer.output).items()}
        return tables


class VIPFirewall:
    """The rules for the VIPs of one network namespace. Calls block for as long as the tool does: make them in a worker thread.

    Args:
        engine: How; see :func:`choose`.
        parts: Which rules.
    """

    def __init__(self, engine: Engine, parts: Parts) -> None:
        self.engine = engine
        self.parts = parts
        self._lock = threading.Lock()
        self._known: Listed | None = None
        """What the kernel has, as far as we know; None before the first look."""

    @property
    def listed(self) -> Listed | None:
        """What was there after the last call, as far as we know."""
        return self._known

    def audit(self, wanted: Listed | None = None) -> bool:
        """Look at the kernel's rules, and put right what is not as it was left, or not as ``wanted``.

        Returns:
            Whether anything had to be written.

        Raises:
            HostSetupError: The tool refused, or there is none.
        """
        with self._lock:
            before = self._known
            found = self.engine.read(self.parts)
            target = wanted if wanted is not None else before or found or NOTHING
            self._known = found
            return self._bring(target)

    def set_to(self, wanted: Listed) -> bool:
        """Have just these listed; whether anything had to be written. The first call looks at the kernel's rules.

        Raises:
            HostSetupError: The tool refused, or there is none.
        """
        with self._lock:
            self._look()
            return self._bring(wanted)

    def admit(self, more: Listed) -> bool:
        """Have these listed besides what is: before IPVS and the addresses know of them."""
        with self._lock:
            self._look()
            return self._bring((self._known or NOTHING) | more)

    def remove(self) -> bool:
        """Take all of it away; whether there was anything."""
        with self._lock:
            self._known = None
            return self.engine.remove()

    def _look(self) -> None:
        if self._known is None:
            self._known = self.engine.read(self.parts)

    def _bring(self, wanted: Listed) -> bool:
        known = self._known
        if known == wanted:
            return False
        if known is not None:
            self._known = None  # until it is known again
            try:
                self.engine.update(wanted - known, known - wanted, self.parts)
            except HostSetupError:
                known = None  # somebody else changed it: all anew, which tells whether it was that
        if known is None:
            self.engine.install(wanted, self.parts)
        self._known = wanted
        return True


def takes_raw_sockets(name: EngineName) -> bool:
    """Whether this comes to ``iptables-legacy``, which opens a raw socket (CAP_NET_RAW).

    Nothing is tried: where there is ``nft``, ``auto`` is held to come to that.
    """
    if name == "nft" or (name == "auto" and find("nft") is not None):
        return False
    paths = (find(f"iptables{variant}-restore") for variant in _VARIANTS)
    first = next((path for path in paths if path is not None), None)
    return (
        first is not None and "nft" not in Path(first).resolve().name
    )  # xtables-nft-multi; before 1.8 all there was is legacy


def choose(name: EngineName, netns: str | None = None, parts: Parts | None = None) -> Engine:
    """The engine of this name; for ``auto`` the first that works, nftables before iptables.

    Args:
        name: Which.
        netns: Path of the network namespace; None for ours.
        parts: What it must be able to do; everything unless told otherwise.

    Raises:
        HostSetupError: None of them works; the text says why, of each.
    """
    engines: list[Engine] = []
    if name in {"auto", "nft"}:
        engines.append(NftEngine(netns))
    if name in {"auto", "iptables"}:
        engines.append(IPTablesEngine(netns))
    reasons = []
    for engine in engines:
        reason = engine.probe(parts or Parts())
        if not reason:
            return engine
        reasons.append(f"{engine.name}: {reason}")
    raise _failed("rules cannot be added here", "; ".join(reasons))


def _failed(what: str, error: str) -> HostSetupError:
    hints = {
        "Permission denied": "it takes CAP_NET_ADMIN, and iptables-legacy CAP_NET_RAW as well",
        "Operation not permitted": "it takes CAP_NET_ADMIN, and iptables-legacy CAP_NET_RAW as well",
        "must be root": "it takes CAP_NET_ADMIN, and iptables-legacy CAP_NET_RAW as well",
        "there is no": "apt-get install nftables",
    }
    return HostSetupError(STEP, f"{what}: {error}", next((hint for sign, hint in hints.items() if sign in error), ""))


def _lock() -> dict[str, str]:
    """Where iptables-legacy may not write the lock that all share, one of our own: better than none at all."""
    try:
        with open(_XTABLES_LOCK, "ab"):  # noqa: PTH123 - as iptables opens it
            return {}
    except OSError:
        return {"XTABLES_LOCKFILE": "/tmp/minuteman-xtables.lock"}  # noqa: S108 - a lock, not data
