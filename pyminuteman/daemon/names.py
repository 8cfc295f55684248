"""DNS names of VIPs, answered for as long as the daemon runs, and published when the kernel has what they lead to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import trio

from pyminuteman.daemon.config import NamesConfig
from pyminuteman.vips.desired import DesiredState

__all__ = ["open_names"]


@asynccontextmanager
async def open_names(config: NamesConfig) -> AsyncIterator[Callable[[DesiredState], object] | None]:
    """Answer for names where the configuration says; what is yielded publishes those of a state, and is None where none are asked for.

    Raises:
        ConfigurationError: The zone is none, or the port cannot be had.
    """
    if config.dns_bind is None:
        yield None
        return
    from pyminuteman.vips.dns import Responder, ZoneConfig  # noqa: PLC0415 - needs dnspython, and only here
    from pyminuteman.vips.dns_server import DNSServer  # noqa: PLC0415

    responder = Responder(ZoneConfig(zone=config.zone, nameserver_addresses=(config.dns_bind.address,)))
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        await nursery.start(DNSServer(responder, [config.dns_bind]).run)
        try:
            yield lambda state: responder.publish(state.names)
        except Exception as error:  # noqa: BLE001 - it is raised below, and not in a group of errors
            failure = error
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
