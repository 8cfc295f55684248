"""What the daemon does when it is told something from outside: signals, and a host that is not set up yet."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import suppress

import trio

from pyminuteman.daemon.events import EventLog
from pyminuteman.daemon.notify import Notifier
from pyminuteman.daemon.reloading import Reloading
from pyminuteman.errors import MinutemanError
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.setup import HostSetup

__all__ = ["obey", "set_up"]

_log = logging.getLogger("pyminuteman.daemon")


async def set_up(setup: HostSetup, events: EventLog) -> None:
    """Set the host up. What cannot be is told, and the daemon goes on: IPVS does not depend on it, and audits try again."""
    try:
        findings = await trio.to_thread.run_sync(setup.set_up)
    except HostSetupError as error:
        events.tell("host", str(error))
        return
    for finding in findings:
        if not finding.ok:
            events.tell("host", finding.what)


async def obey(
    signals: AsyncIterator[int],
    reloading: Reloading,
    end: trio.CancelScope,
    at_once: trio.CancelScope,
    notifier: Notifier,
) -> None:
    """Do what signals say: HUP reads anew, USR1 logs how things stand, TERM and INT end it; the second time at once."""
    node = reloading.node
    async for number in signals:
        match number:
            case signal.SIGHUP:
                notifier.reloading()
                with suppress(MinutemanError):  # which was told
                    await reloading.reload()
                notifier.ready()
            case signal.SIGUSR1:
                kernels = {name: one.status for name, one in node.reconcilers.items()}
                state = {name or "host": [one.services, one.destinations, one.error] for name, one in kernels.items()}
                _log.warning("state: %s", json.dumps({"vips": len(node.state.resolutions), "kernel": state}))
            case _ if end.cancel_called:
                at_once.cancel()
            case _:
                notifier.stopping()
                end.cancel()
