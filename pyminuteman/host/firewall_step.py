"""The packet filter as a step of set-up; see :mod:`pyminuteman.host.firewall` for what it does."""

from __future__ import annotations

from typing import Final

from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.filtering import NOTHING, Parts
from pyminuteman.host.findings import Finding, Severity
from pyminuteman.host.firewall import EngineName, VIPFirewall, choose
from pyminuteman.host.journal import Journal, namespace_id

__all__ = ["FirewallStep"]

_WHY: Final = {
    "masquerade": "without masquerade backends answer clients directly, who do not know them: connections time out",
    "guard": "without the guard ports of this host (ssh, databases) answer on VIP addresses, to whoever reaches those",
    "bypass": "without the bypass a host port of Docker or CNI portmap with a VIP's port number captures the VIP's connections on this host",
}


class FirewallStep:
    """Masquerade, guard and bypass.

    Args:
        journal: Where it is remembered that we made them.
        engine: With which tool.
        parts: Which of them.
        netns: Path of the network namespace; None for ours.
    """

    name = "firewall"

    def __init__(self, journal: Journal, engine: EngineName, parts: Parts, netns: str | None = None) -> None:
        self._journal, self._name, self._netns = journal, engine, netns
        self.parts = parts
        self._firewall: VIPFirewall | None = None

    @property
    def firewall(self) -> VIPFirewall:
        """The rules themselves; the tool is chosen at the first call.

        Raises:
            HostSetupError: No tool works here.
        """
        if self._firewall is None:
            self._firewall = VIPFirewall(choose(self._name, self._netns, self.parts), self.parts)
        return self._firewall

    def check(self) -> Finding:
        """See :class:`~pyminuteman.host.steps.HostStep`."""
        why = "; ".join(text for part, text in _WHY.items() if getattr(self.parts, part))
        wanted = ", ".join(part for part in _WHY if getattr(self.parts, part))
        try:
            engine = self.firewall.engine
            content = engine.read(self.parts)
        except HostSetupError as error:
            fix = (
                error.hint
                or "apt-get install nftables; or load the modules: modprobe -a iptable_nat iptable_filter xt_ipvs xt_MASQUERADE"
            )
            return Finding("host.firewall", Severity.ERROR, error.reason, why, fix)
        if content is None:
            what = f"the rules are not there, or not all of them: {wanted}"
            fix = f"minuteman doctor --fix adds them through {engine.name}, in {engine.place}"
            return Finding("host.firewall", Severity.ERROR, what, why, fix, fixable=True)
        what = f"{wanted} through {engine.name}: {len(content.addresses)} addresses, {len(content.ports)} ports"
        return Finding("host.firewall", Severity.OK, what, why)

    def apply(self) -> None:
        """See :class:`~pyminuteman.host.steps.HostStep`. What was listed stays so."""
        self._journal.remember(namespace_id(self._netns), self.name, {"engine": self.firewall.engine.name})
        self.firewall.audit(self.firewall.listed or NOTHING)

    def undo(self) -> bool:
        """See :class:`~pyminuteman.host.steps.HostStep`. Removes what bears our name, and nothing else."""
        namespace = namespace_id(self._netns)
        if not self._journal.recall(namespace, self.name):
            return False
        removed = self.firewall.remove()
        self._journal.forget(namespace, self.name)
        return removed
