"""DNS names of VIPs, answered for as long as the daemon runs, and published when the kernel has what they lead to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import trio

from pyminuteman.daemon.config import NamesConfig
from pyminuteman.vips.desired import DesiredState

__all__ = ["open_names"]

_TOLD_MAX: Final = 20


@asynccontextmanager
async def open_names(
    config: NamesConfig, tell: Callable[[str, str, Mapping[str, Any]], object]
) -> AsyncIterator[Callable[[DesiredState], object] | None]:
    """Answer for names where the configuration says; what is yielded publishes those of a state, and is None where none are asked for.

    Args:
        config: Where, and in which zone.
        tell: Where events are told: a name that is too long for the zone keeps no other back, and is told of once.

    Raises:
        ConfigurationError: The zone is none, or the port cannot be had.
    """
    if config.dns_bind is None:
        yield None
        return
    from pyminuteman.vips.dns import Responder, ZoneConfig  # noqa: PLC0415 - needs dnspython, and only here
    from pyminuteman.vips.dns_server import DNSServer  # noqa: PLC0415

    responder = Responder(ZoneConfig(zone=config.zone, nameserver_addresses=(config.dns_bind.address,)))
    too_long: set[str] = set()

    def publish(state: DesiredState) -> None:
        now = set(responder.publish(state.names))
        for name in sorted(now - too_long)[:_TOLD_MAX]:
            text = f"{name}.{config.zone} is longer than a DNS name may be: it cannot be asked for"
            tell("refused", text, {"name": name, "reason": "too long"})
        too_long.clear()
        too_long.update(now)

    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(DNSServer(responder, [config.dns_bind]).run)
        try:
            yield publish
        except Exception as error:  # noqa: BLE001 - it is raised below, and not in a group of errors
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
