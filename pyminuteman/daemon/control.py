"""What the daemon does when it is told something from outside: signals, a changed configuration, a host that is not set up yet."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import AsyncIterator, Callable

import trio

from pyminuteman.daemon.composition import policy_of
from pyminuteman.daemon.config import DaemonConfig
from pyminuteman.daemon.config_changes import restart_needed
from pyminuteman.daemon.events import EventLog
from pyminuteman.daemon.node import Node
from pyminuteman.daemon.notify import Notifier
from pyminuteman.errors import MinutemanError
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.setup import HostSetup
from pyminuteman.vips.policy import Policy

__all__ = ["obey", "reloaded", "set_up"]

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
    signals: AsyncIterator[int], node: Node, end: trio.CancelScope, at_once: trio.CancelScope, notifier: Notifier
) -> None:
    """Do what signals say: HUP reads anew, USR1 logs how things stand, TERM and INT end it; the second time at once."""
    async for number in signals:
        match number:
            case signal.SIGHUP:
                notifier.reloading()
                try:
                    await node.reload()
                except MinutemanError as error:
                    node.events.tell("reload", f"nothing was changed: {error}", {"error": str(error)})
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


def reloaded(old: DaemonConfig, load: Callable[[], DaemonConfig], set_policy: Callable[[Policy], object]) -> list[str]:
    """Read the configuration anew, and have what can count at once count: the policy. What has changed, in words.

    Raises:
        ConfigurationError: It is no good; nothing was changed.
    """
    new = load()
    lines: list[str] = []
    if policy_of(new) != policy_of(old):
        set_policy(policy_of(new))
        lines.append("the policy has changed")
    waiting = [*restart_needed(old, new)]
    waiting += [section for section in ("sources", "ipvs", "health", "log") if getattr(old, section) != getattr(new, section)]
    if waiting:
        lines.append(f"these have changed, and count after a restart: {', '.join(waiting)}")
    return lines
