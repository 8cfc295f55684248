"""Everything about a host that VIPs need, looked at once: what ``minuteman doctor`` shows.

1. A look changes nothing, but for what a tool or a scheduler is tried with, which is removed at once.
2. A look that fails is a finding, and hides no other.
3. ``fix`` does what findings call fixable, and ``undo`` takes back what ``fix`` and the daemon did to the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pyminuteman.addresses import Endpoint
from pyminuteman.errors import MinutemanError
from pyminuteman.host.clock import ClockWatch, check_synchronised
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.files import check_api_socket, check_key_file, check_state_directory
from pyminuteman.host.findings import Finding, Severity
from pyminuteman.host.journal import Journal
from pyminuteman.host.kernel_modules import check_schedulers
from pyminuteman.host.limits import all_limits
from pyminuteman.host.managers import check_managers
from pyminuteman.host.namespace_directory import check_namespaces
from pyminuteman.host.network_settings import check_bridge, check_connection_reuse, check_reverse_path, check_uplink_mtu
from pyminuteman.host.reach import check_api_port, check_contact, check_dns_port, check_gossip_port
from pyminuteman.host.rights import check_rights
from pyminuteman.host.setup import HostSettings, HostSetup
from pyminuteman.membership.errors import MembershipError
from pyminuteman.membership.key_file import load_key_file
from pyminuteman.membership.keyring import Keyring, PlainRing, Ring

__all__ = ["Patient", "examine", "fix", "undo"]

_STATE_MODE = 0o700


@dataclass(frozen=True, slots=True)
class Patient:
    """What to look at. Everything that is not given is not looked at, or as it usually is.

    Attributes:
        host: What is wanted of the host.
        netns: Path of the network namespace; None for ours.
        schedulers: Those that VIPs use.
        bind: Where the gossip port is, or is to be.
        contacts: Members to try to reach.
        cluster: The cluster's name.
        key_file: Its key; None for none.
        insecure: The cluster is run without a key.
        state_directory: The daemon's; None to remember nothing.
        api_socket: The daemon's.
        api_tcp: Where the API listens by TCP.
        dns_bind: Where names are answered for.
        nodes: How many the cluster has; 0 when that is not known.
        routed: Whether any VIP is forwarded by route or tunnel.
        namespaces: The directory of other network namespaces that are served; None for none.
        timeout_seconds: For each attempt to reach somebody.
    """

    host: HostSettings = field(default_factory=HostSettings)
    netns: str | None = None
    schedulers: Sequence[str] = ("rr", "wlc")
    bind: Endpoint | None = None
    contacts: Sequence[Endpoint] = ()
    cluster: str = "minuteman"
    key_file: Path | None = None
    insecure: bool = False
    state_directory: Path | None = None
    api_socket: Path | None = None
    api_tcp: Endpoint | None = None
    dns_bind: Endpoint | None = None
    nodes: int = 0
    routed: bool = False
    namespaces: Path | None = None
    timeout_seconds: float = 1.0

    def journal(self) -> Journal:
        """What is remembered of this host.

        Raises:
            HostSetupError: It cannot be read.
        """
        directory = self.state_directory
        return Journal(directory if directory is not None and directory.is_dir() else None)

    def ring(self) -> Ring | None:
        """What members are asked with; None when that cannot be had."""
        if self.key_file is not None:
            try:
                return Keyring(load_key_file(self.key_file), cluster=self.cluster)
            except MembershipError:
                return None  # its own finding says why
        return PlainRing(cluster=self.cluster) if self.insecure else None


def examine(patient: Patient) -> Iterator[Finding]:
    """Look at everything, in the order in which one would put things right."""
    clock = ClockWatch()
    for name, look in _looks(patient):
        try:
            yield from look()
        except (MinutemanError, OSError) as error:
            yield Finding(name, Severity.WARNING, f"this could not be looked at: {error}", "what is not known may be wrong")
    yield clock.check()


def _looks(patient: Patient) -> Iterable[tuple[str, Callable[[], Iterable[Finding]]]]:
    """What each look is called when it fails, and the look."""
    netns = patient.netns
    uses_iptables = patient.host.masquerade == "iptables"
    ports = [one.port for one in (patient.bind, patient.api_tcp, patient.dns_bind) if one is not None]
    enters = patient.namespaces is not None or netns is not None
    yield "rights", lambda: check_rights(iptables=uses_iptables, namespaces=enters, ports=ports)
    yield "host", lambda: HostSetup(patient.host, netns=netns, journal=patient.journal()).check()
    yield "kernel.scheduler", lambda: check_schedulers(patient.schedulers, netns)
    yield "network.conn_reuse_mode", lambda: filter(None, [check_connection_reuse(netns)])
    yield "network.bridge", lambda: [check_bridge()]
    yield "network.rp_filter", lambda: [check_reverse_path(routed=patient.routed, netns=netns)]
    yield "network.mtu", lambda: check_uplink_mtu(netns)
    yield "limits", lambda: all_limits(patient.nodes, netns)
    if patient.namespaces is not None:
        namespaces = patient.namespaces
        yield "namespaces", lambda: check_namespaces(namespaces)
    yield "managers", check_managers
    if patient.state_directory is not None:
        directory = patient.state_directory
        yield "files.state_directory", lambda: check_state_directory(directory)
    if patient.key_file is not None:
        key_file = patient.key_file
        yield "files.key", lambda: [check_key_file(key_file)]
    if patient.api_socket is not None:
        api_socket = patient.api_socket
        yield "files.api_socket", lambda: [check_api_socket(api_socket)]
    if patient.bind is not None:
        bind = patient.bind
        yield "gossip.port", lambda: [check_gossip_port(bind)]
    if patient.api_tcp is not None:
        api_tcp = patient.api_tcp
        yield "api.port", lambda: [check_api_port(api_tcp)]
    if patient.dns_bind is not None:
        dns_bind = patient.dns_bind
        yield "dns.port", lambda: [check_dns_port(dns_bind)]
    yield "gossip", lambda: _contacts(patient)
    yield "clock.synchronised", lambda: [check_synchronised()]


def _contacts(patient: Patient) -> Iterator[Finding]:
    ring = patient.ring()
    for contact in patient.contacts:
        yield from check_contact(contact, ring, patient.timeout_seconds)


def fix(patient: Patient) -> list[str]:
    """Do what can be done about what is not well; what was done, a sentence each.

    Raises:
        HostSetupError: Something failed. Of the host, what this call had done is taken back.
    """
    done: list[str] = []
    before = {found.id for found in examine_files(patient) if not found.ok and found.fixable}
    _fix_files(patient, before)
    done += [f"{identity}: put right" for identity in sorted(before)]
    with HostSetup(patient.host, netns=patient.netns, journal=patient.journal()) as setup:
        wrong = [found for found in setup.check() if not found.ok and found.fixable]
        after = {found.id: found for found in setup.set_up()}
    return done + [f"{found.id}: {after[found.id].what}" for found in wrong]


def examine_files(patient: Patient) -> Iterator[Finding]:
    """The part of :func:`examine` that is about files."""
    if patient.state_directory is not None:
        yield from check_state_directory(patient.state_directory)
    if patient.key_file is not None:
        yield check_key_file(patient.key_file)
    if patient.api_socket is not None:
        yield check_api_socket(patient.api_socket)


def _fix_files(patient: Patient, wrong: set[str]) -> None:
    try:
        if "files.state_directory" in wrong and patient.state_directory is not None:
            if patient.state_directory.exists():
                _take_from_others(patient.state_directory, 0o022)
            else:
                patient.state_directory.mkdir(mode=_STATE_MODE, parents=True)
        if "files.key" in wrong and patient.key_file is not None:
            _take_from_others(patient.key_file, 0o077)
        if "files.api_socket" in wrong and patient.api_socket is not None:
            _take_from_others(patient.api_socket, 0o007)
    except OSError as error:
        raise HostSetupError("files", f"{error.filename}: {error.strerror}", "do it as the file's owner, or as root") from error


def _take_from_others(path: Path, rights: int) -> None:
    path.chmod(path.stat().st_mode & 0o7777 & ~rights)


def undo(patient: Patient) -> list[str]:
    """Take back what :func:`fix`, and set-up by the daemon, have done to the host: the names of the steps that were taken back.

    Rights of files stay as they were put right.

    Raises:
        HostSetupError: Something could not be taken back; the rest is.
    """
    with HostSetup(patient.host, netns=patient.netns, journal=patient.journal()) as setup:
        return setup.undo()
