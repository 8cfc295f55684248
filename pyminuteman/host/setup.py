"""Host set-up of one network namespace, put together: what the daemon and ``minuteman doctor`` use.

The order on a host, and why: addresses that are gone are withdrawn first, so that nobody reaches a port of this host by one that IPVS no
longer serves; then the packet filter learns what is new, so that it lets it pass; then comes IPVS; then new addresses are announced, so that
nobody reaches one that IPVS does not serve yet; then the packet filter forgets what is gone; and last, names are published.

    setup = HostSetup(HostSettings(), netns=None, journal=Journal("/var/lib/minuteman"))
    setup.set_up()                                  # once, in a worker thread
    setup.before_ipvs(addresses, services)          # with each change
    table.converge(...)
    setup.after_ipvs(addresses, services)
    setup.audit(addresses, services)                # now and then
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Literal, Self

from pyminuteman.host.announcements import DEVICE, VIPAddresses
from pyminuteman.host.device import AnnouncementStep, DummyDevice
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.filtering import Listed, Parts
from pyminuteman.host.findings import Finding
from pyminuteman.host.firewall import EngineName
from pyminuteman.host.firewall_step import FirewallStep
from pyminuteman.host.journal import Journal
from pyminuteman.host.kernel_modules import IPVSStep
from pyminuteman.host.links import Announce
from pyminuteman.host.steps import HostStep, run_steps, undo_steps
from pyminuteman.host.sysctls import SysctlStep, settings
from pyminuteman.ipvs import ServiceKey

__all__ = ["HostSettings", "HostSetup", "StepStatus"]


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What of the host is to be set up; ``[host]`` of the configuration.

    Attributes:
        device: The device for VIP addresses; made if it is missing.
        announce: VIPs as ``address`` on it, by local ``route``, ``inside`` (in a container, see
            :attr:`~pyminuteman.host.links.Announce.INSIDE`), or ``none``: somebody else sees to it.
        masquerade: By which tool; ``none`` where backends find the way back by themselves, or connections are routed or tunnelled.
        guard: Reject what is sent to a VIP address and is no VIP service.
        portmap_bypass: Keep host-port rules of others from VIP addresses.
        sysctls: Write what VIPs need of the kernel's settings.
        forward: This host serves other machines or containers: ip_forward is written, too.
        persistent: Some VIP is persistent, or may become so.
        ipv6: Some VIP is IPv6, or may become so.
    """

    device: str = DEVICE
    announce: Literal["address", "route", "inside", "none"] = "address"
    masquerade: EngineName | Literal["none"] = "auto"
    guard: bool = True
    portmap_bypass: bool = True
    sysctls: bool = True
    forward: bool = False
    persistent: bool = True
    ipv6: bool = False

    @property
    def parts(self) -> Parts:
        """Which rules are wanted of the packet filter."""
        return Parts(masquerade=self.masquerade != "none", guard=self.guard, bypass=self.portmap_bypass)


@dataclass(frozen=True, slots=True)
class StepStatus:
    """How one step was the last time; for the API and ``minuteman status``."""

    step: str
    ok: bool
    reason: str
    """Empty when all is well."""


@dataclass
class _Known:
    """What was told the kernel, so that nothing is told twice."""

    addresses: frozenset[str] | None = None
    problems: dict[str, str] = field(default_factory=dict)


class HostSetup:
    """Host set-up of one network namespace. All calls block, and one is made at a time: make them in a worker thread.

    Args:
        settings: What is wanted.
        netns: Path of the namespace; None for ours.
        journal: What was before us; one for the whole host.
    """

    def __init__(self, settings: HostSettings, *, netns: str | None = None, journal: Journal | None = None) -> None:
        self.settings = settings
        self.netns = netns
        self._journal = Journal() if journal is None else journal
        self._lock = threading.Lock()
        self._known = _Known()
        self.addresses: VIPAddresses | None = None
        if settings.announce != "none":
            self.addresses = VIPAddresses(netns, settings.device, Announce.parse(settings.announce))
        self._announcements = None if self.addresses is None else AnnouncementStep(self._journal, self.addresses)
        self._filter: FirewallStep | None = None
        if settings.parts:
            engine: EngineName = "auto" if settings.masquerade == "none" else settings.masquerade
            self._filter = FirewallStep(self._journal, engine, settings.parts, netns)

    def __enter__(self) -> Self:
        """Nothing to do: sockets are opened when they are needed."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Close; see :meth:`close`."""
        self.close()

    def close(self) -> None:
        """Close sockets; the host stays as it is."""
        if self.addresses is not None:
            self.addresses.close()

    def steps(self) -> list[HostStep]:
        """What there is to do, in order."""
        steps: list[HostStep] = [IPVSStep(self.netns)]
        if self.settings.sysctls:
            wanted = settings(
                conntrack=self.settings.parts.masquerade or self.settings.announce == "inside",
                persistent=self.settings.persistent,
                forward=self.settings.forward,
                ipv6=self.settings.ipv6,
            )
            steps += [SysctlStep(self._journal, setting, self.netns) for setting in wanted]
        if self._announcements is not None:
            steps.append(DummyDevice(self._journal, self.netns, self.settings.device))
        if self._filter is not None:
            steps.append(self._filter)
        if self._announcements is not None:
            steps.append(self._announcements)
        return steps

    def check(self) -> list[Finding]:
        """How each step is; changes nothing but for what a tool is tried with.

        Raises:
            HostSetupError: It could not be looked at.
        """
        with self._lock:
            return [step.check() for step in self.steps()]

    def set_up(self) -> list[Finding]:
        """Do what is needed; a second time does nothing.

        Returns:
            A finding a step. Those that are not ``ok`` are beyond set-up: a kernel without IPVS, no tool that works.

        Raises:
            HostSetupError: A step failed; what this call had done is taken back.
        """
        with self._lock:
            self._known.problems.clear()
            try:
                findings = run_steps(self.steps())
                if self._announcements is not None:
                    self._announcements.remember()
            except HostSetupError as error:
                self._known.problems[error.step] = str(error)
                raise
            for step, finding in zip(self.steps(), findings, strict=True):
                if not finding.ok:
                    self._known.problems[step.name] = finding.what
            return findings

    def undo(self) -> list[str]:
        """Take everything back that set-up, and the changes since, have done to this namespace; the names of what was.

        IPVS's table is not host set-up: empty it first.

        Raises:
            HostSetupError: Something could not be taken back; the rest is.
        """
        with self._lock:
            self._known = _Known()
            undone, failed = undo_steps(self.steps())
            if failed:
                raise HostSetupError("undo", "; ".join(failed))
            return undone

    def before_ipvs(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> None:
        """Before IPVS is changed: withdraw addresses that are gone, and have the packet filter let pass what is new.

        Args:
            addresses: The VIP addresses that are to be this host's own. Those of services that drain belong to them until IPVS has let
                go of the last one.
            services: The IPVS services there are to be, those that drain among them.

        Raises:
            HostSetupError: Something was refused. The rest is done; going on with IPVS is right, it does not depend on this.
        """
        wanted = frozenset(addresses)
        content = Listed.of(wanted, services)
        with self._lock:
            self._all(
                ("addresses", lambda: self._withdraw(wanted)),
                ("firewall", lambda: self._filter and self._filter.firewall.admit(content)),
            )

    def after_ipvs(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> None:
        """After IPVS was changed: announce addresses that are new, and have the packet filter forget what is gone. Then publish names.

        Raises:
            HostSetupError: Something was refused; the rest is done.
        """
        wanted = frozenset(addresses)
        content = Listed.of(wanted, services)
        with self._lock:
            self._all(
                ("addresses", lambda: self._announce(wanted)),
                ("firewall", lambda: self._filter and self._filter.firewall.set_to(content)),
            )

    def audit(self, addresses: Iterable[str], services: Iterable[ServiceKey]) -> bool:
        """Look at what the kernel has of all this, and put right what somebody else has changed.

        Returns:
            Whether anything had to be done.

        Raises:
            HostSetupError: Something was refused; the rest is done.
        """
        wanted = frozenset(addresses)
        content = Listed.of(wanted, services)
        changed: list[bool] = []
        with self._lock:
            self._all(
                ("steps", lambda: changed.append(self._redo())),
                ("firewall", lambda: changed.append(self._filter is not None and self._filter.firewall.audit(content))),
                ("addresses", lambda: changed.append(self._reannounce(wanted))),
            )
        return any(changed)

    def status(self) -> tuple[StepStatus, ...]:
        """How each step was the last time."""
        problems = dict(self._known.problems)
        names = list(dict.fromkeys([*(step.name for step in self.steps()), *problems]))
        return tuple(StepStatus(name, name not in problems, problems.get(name, "")) for name in names)

    def _all(self, *works: tuple[str, Callable[[], object]]) -> None:
        """Carry out all of them, whatever becomes of each."""
        errors: list[HostSetupError] = []
        for name, work in works:
            try:
                work()
                self._known.problems.pop(name, None)
            except HostSetupError as error:
                errors.append(error)
                self._known.problems[name] = str(error)
        if len(errors) == 1:
            raise errors[0]
        if errors:
            raise HostSetupError("host", "; ".join(map(str, errors)))

    def _withdraw(self, wanted: frozenset[str]) -> None:
        if self.addresses is None:
            return
        known = self._present()
        if gone := known - wanted:
            self._known.addresses = None
            self.addresses.withdraw(gone)
            self._known.addresses = known - gone

    def _announce(self, wanted: frozenset[str]) -> None:
        if self.addresses is None:
            return
        known = self._present()
        if new := wanted - known:
            if self._announcements is not None:
                self._announcements.remember()
            self._known.addresses = None
            self.addresses.announce(new)
            self._known.addresses = known | new

    def _reannounce(self, wanted: frozenset[str]) -> bool:
        self._known.addresses = None
        if self.addresses is None:
            return False
        self.addresses.withdraw_stale()
        before = self._present()
        self._withdraw(wanted)
        self._announce(wanted)
        return self._known.addresses != before

    def _redo(self) -> bool:
        """Put right sysctls and the device."""
        steps = [step for step in self.steps() if isinstance(step, SysctlStep | DummyDevice)]
        wrong = [step for step in steps if not (found := step.check()).ok and found.fixable]
        for step in wrong:
            step.apply()
        return bool(wrong)

    def _present(self) -> frozenset[str]:
        if self._known.addresses is None:
            assert self.addresses is not None  # noqa: S101 - the callers have looked
            self._known.addresses = self.addresses.present()
        return self._known.addresses
