"""Whether the kernel has what VIPs need. Found out by asking the kernel for it, which loads its modules; never by running modprobe.

``/proc/modules`` is no proof: what is built in is not listed there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.findings import Finding, Severity
from pyminuteman.ipvs import (
    IPVSError,
    IPVSTable,
    IPVSUnavailableError,
    KernelError,
    NoSuchScheduler,
    NotPermitted,
    Scope,
    Service,
)

__all__ = ["IPVSStep", "check_schedulers"]

_WHY: Final = "IPVS is what balances: without it nothing of a VIP works"
_WHY_SCHEDULER: Final = "a VIP whose scheduler the kernel does not have is not made"
_PROBE: Final = ("192.0.2.255", 1)
"""TEST-NET-1 (RFC 5737): no VIP of anybody's. Its service is there for a moment, and has no destination."""


class IPVSStep:
    """The kernel's IPVS. There is nothing to apply: asking for it has the kernel load it."""

    name = "ipvs"

    def __init__(self, netns: str | None = None) -> None:
        self._netns = netns

    def check(self) -> Finding:
        """See :class:`~pyminuteman.host.steps.HostStep`."""
        try:
            with IPVSTable(scope=Scope.services(()), netns=self._netns) as table:
                table.timeouts()
        except IPVSUnavailableError as error:
            fix = "modprobe ip_vs, and for every boot: echo ip_vs > /etc/modules-load.d/minuteman.conf"
            return Finding("kernel.ipvs", Severity.ERROR, str(error), _WHY, fix)
        except NotPermitted as error:
            return Finding(
                "kernel.ipvs", Severity.ERROR, f"the kernel's IPVS may not be used: {error}", _WHY, "run with CAP_NET_ADMIN"
            )
        except IPVSError as error:
            return Finding("kernel.ipvs", Severity.ERROR, f"the kernel's IPVS cannot be used: {error}", _WHY)
        return Finding("kernel.ipvs", Severity.OK, "the kernel has IPVS, and we may use it", _WHY)

    def apply(self) -> None:
        """See :class:`~pyminuteman.host.steps.HostStep`."""
        found = self.check()
        if not found.ok:
            raise HostSetupError(self.name, found.what, found.fix)

    def undo(self) -> bool:
        """See :class:`~pyminuteman.host.steps.HostStep`."""
        return False


def check_schedulers(names: Sequence[str], netns: str | None = None) -> list[Finding]:
    """Whether the kernel has these schedulers: each is tried with a service that is removed at once."""
    findings = []
    for name in names:
        identity = f"kernel.scheduler.{name}"
        try:
            service = Service.tcp(*_PROBE, scheduler=name)
            with IPVSTable(scope=Scope.services([service.key]), netns=netns) as table:
                if service.key.packed in table.snapshot().entries:  # somebody's after all
                    findings.append(
                        Finding(identity, Severity.INFO, f"{name} was not tried: {service.key} is there", _WHY_SCHEDULER)
                    )
                    continue
                try:
                    table.converge({service: []})
                finally:
                    with contextlib.suppress(IPVSError):
                        table.converge({})
        except NoSuchScheduler as error:
            findings.append(_missing(identity, name, str(error)))
        except IPVSError as error:
            failures = getattr(getattr(error, "report", None), "failed", ())
            if any(isinstance(failure, NoSuchScheduler) for failure in failures):
                findings.append(_missing(identity, name, f"the kernel has no scheduler {name}"))
            elif isinstance(error, KernelError | IPVSUnavailableError) or failures:
                findings.append(Finding(identity, Severity.INFO, f"{name} could not be tried: {error}", _WHY_SCHEDULER))
            else:
                findings.append(Finding(identity, Severity.ERROR, str(error), _WHY_SCHEDULER))
        else:
            findings.append(Finding(identity, Severity.OK, f"the kernel has the scheduler {name}", _WHY_SCHEDULER))
    return findings


def _missing(identity: str, name: str, what: str) -> Finding:
    fix = f"modprobe ip_vs_{name}, and for every boot: echo ip_vs_{name} >> /etc/modules-load.d/minuteman.conf"
    return Finding(identity, Severity.ERROR, what, _WHY_SCHEDULER, fix)
