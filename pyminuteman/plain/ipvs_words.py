"""The words for settings of IPVS that every document of ours has: protocols, ways of forwarding, flags, persistence. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from pyminuteman.ipvs.destination import ForwardingMethod
from pyminuteman.ipvs.service import Persistence, Protocol, ServiceFlags
from pyminuteman.plain.fields import Invalid, Place, as_table, get, number, short

__all__ = [
    "FORWARDS",
    "PERSISTENCE_KEYS",
    "PROTOCOLS",
    "flag_names",
    "flags_of",
    "plain_persistence",
    "read_flags",
    "read_persistence",
]

PROTOCOLS: Final[Mapping[str, Protocol]] = {kind.name.lower(): kind for kind in Protocol}
FORWARDS: Final[Mapping[str, ForwardingMethod]] = {method.name.lower(): method for method in ForwardingMethod}
PERSISTENCE_KEYS: Final = frozenset({"timeout", "netmask"})
_ONE_PACKET: Final = "ops"
_TIMEOUTS: Final = (1, 31 * 86400)  # seconds; ipvsadm's MAX_TIMEOUT
_NETMASK_MAX: Final = 15  # of 255.255.255.255


def flags_of(scheduler: str) -> dict[str, ServiceFlags]:
    """The flags that a service of that scheduler may have, by name."""
    first, second = ("flag-1", "flag-2")
    if scheduler in {"sh", "mh"}:
        first, second = f"{scheduler}-fallback", f"{scheduler}-port"
    return {
        _ONE_PACKET: ServiceFlags.ONE_PACKET,
        first: ServiceFlags.SCHEDULER_1,
        second: ServiceFlags.SCHEDULER_2,
        "flag-3": ServiceFlags.SCHEDULER_3,
    }


def flag_names(scheduler: str, flags: ServiceFlags) -> list[str]:
    """``["ops", "mh-port"]``: every flag, unlike ipvsadm's listing, which leaves out a third one of ``sh`` and ``mh``."""
    return [name for name, flag in flags_of(scheduler).items() if flags & flag]


def read_flags(row: Mapping[str, Any], place: Place, scheduler: str) -> ServiceFlags:
    """The ``flags`` of a row.

    Raises:
        Invalid: One that the scheduler does not have.
    """
    flags = ServiceFlags.NONE
    known = flags_of(scheduler)
    for at, name in enumerate(get(row, "flags", place, list, [])):
        if not isinstance(name, str) or name not in known:
            raise Invalid((*place, "flags", at), f"flag {name!r} is none of those of scheduler {scheduler}: {', '.join(known)}")
        flags |= known[name]
    return flags


def read_persistence(row: Mapping[str, Any], place: Place) -> Persistence | None:
    """The ``persistence`` of a row; None without one.

    Raises:
        Invalid: It is no table of a timeout and a netmask. Whether the netmask is one is for the service to say.
    """
    if row.get("persistence") is None:
        return None
    inner: Place = (*place, "persistence")
    rest = as_table(row["persistence"], inner, PERSISTENCE_KEYS)
    netmask = rest.get("netmask")
    if isinstance(netmask, int) and not isinstance(netmask, bool):
        netmask = str(netmask)  # a prefix length needs no quotes
    netmask = get({"netmask": netmask}, "netmask", inner, str, "")
    if len(netmask) > _NETMASK_MAX:
        raise Invalid((*inner, "netmask"), f"netmask {short(netmask)} is neither a mask nor a prefix length")
    return Persistence(number(rest, "timeout", inner, _TIMEOUTS, 360), netmask)


def plain_persistence(persistence: Persistence | None) -> dict[str, Any] | None:
    """What :func:`read_persistence` reads."""
    return {"timeout": persistence.timeout_seconds, "netmask": persistence.netmask or None} if persistence else None
