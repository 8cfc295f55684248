"""Which check a backend of a VIP gets, as operators write it: ``tcp``, ``http:/PATH``, ``exec:/PROGRAM``."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyminuteman.health.checks import Check, CommandCheck, HTTPCheck, TCPCheck
from pyminuteman.health.hysteresis import CheckPolicy, InvalidCheckError
from pyminuteman.health.monitor import Monitor, Target
from pyminuteman.ipvs import Protocol
from pyminuteman.vips.model import VIP, Backend, BackendKey, VIPKey

__all__ = ["MakeCheck", "failing", "parse_check", "targets"]

MakeCheck = Callable[[Backend], Check]

_KINDS = "tcp, http, http:/PATH or exec:/PROGRAM"


def parse_check(text: str) -> MakeCheck:
    """What makes the check of a backend: ``tcp``, ``http:/health``, ``exec:/usr/local/bin/check`` (given address and port).

    Raises:
        InvalidCheckError: It is none of these.
    """
    kind, _, rest = text.partition(":")
    makers: dict[str, MakeCheck] = {
        "tcp": lambda backend: TCPCheck(backend.address, backend.port),
        "http": lambda backend: HTTPCheck(address=backend.address, port=backend.port, path=rest or "/"),
        "exec": lambda backend: CommandCheck((rest, backend.address, str(backend.port))),
    }
    if kind not in makers or (kind == "tcp" and text != "tcp"):
        raise InvalidCheckError(f"{text!r} is no check: {_KINDS}")
    makers[kind](Backend("192.0.2.1", 1))  # what is wrong with it is said now, and not with the first backend
    return makers[kind]


def targets(vips: Iterable[VIP], make: MakeCheck, policy: CheckPolicy) -> dict[BackendKey, Target]:
    """What to check: each backend of a TCP VIP, once. UDP has no answer that all servers give."""
    backends = {backend.key: backend for vip in vips if vip.key.protocol == Protocol.TCP for backend in vip.backends}
    return {key: Target(make(backend), policy) for key, backend in backends.items()}


def failing(vips: Iterable[VIP], monitor: Monitor[BackendKey]) -> frozenset[tuple[VIPKey, BackendKey]]:
    """The backends of TCP VIPs that are unhealthy."""
    return frozenset(
        (vip.key, backend.key)
        for vip in vips
        if vip.key.protocol == Protocol.TCP
        for backend in vip.backends
        if (health := monitor.health(backend.key)) is not None and not health.healthy
    )
