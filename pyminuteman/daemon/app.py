"""The composition root: opens the parts of a node one in the other, and closes them in turn."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import trio

from pyminuteman.daemon import composition as make
from pyminuteman.daemon.api import open_api
from pyminuteman.daemon.config import DaemonConfig
from pyminuteman.daemon.connection_watch import ConnectionWatch
from pyminuteman.daemon.control import obey, set_up
from pyminuteman.daemon.events import EventLog
from pyminuteman.daemon.names import open_names
from pyminuteman.daemon.node import Node, NodeParts
from pyminuteman.daemon.node_subject import NodeSubject
from pyminuteman.daemon.notify import Notifier
from pyminuteman.daemon.reloading import Reloading
from pyminuteman.daemon.web_page import WebPage
from pyminuteman.health.monitor import open_monitor
from pyminuteman.host.journal import Journal
from pyminuteman.host.setup import HostSetup
from pyminuteman.ipvs import NetlinkBackend

__all__ = ["run"]

_JOIN_SECONDS: Final = 5.0
"""How long to wait for a contact before going on alone: whoever answers later is joined then."""


async def run(config: DaemonConfig, load: Callable[[], DaemonConfig], plain: Callable[[DaemonConfig], dict[str, Any]]) -> None:
    """Be a node until SIGTERM or SIGINT; a second one ends it without a goodbye.

    Args:
        config: What it is told.
        load: Reads the configuration anew, for SIGHUP.
        plain: The configuration without secrets, for the API.

    Raises:
        MinutemanError: It could not be had; the text says why.
    """
    notifier, events = Notifier.from_environment(), EventLog()
    setup = HostSetup(make.host_settings(config), journal=Journal(config.node.state_directory)) if config.host.setup else None
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)
    with trio.open_signal_receiver(*numbers) as signals:
        async with trio.open_nursery() as outer, AsyncExitStack() as stack:
            if setup is not None:
                await set_up(setup, events)
            membership = await stack.enter_async_context(make.membership_of(config))
            if config.cluster.contacts:
                with trio.move_on_after(_JOIN_SECONDS):
                    await membership.wait_joined()
            own = make.own_addresses(config, membership)
            reader = NetlinkBackend()
            stack.callback(reader.close)
            watch = ConnectionWatch(reader)
            names = await stack.enter_async_context(open_names(config.names, events.tell))
            node = Node(
                NodeParts(
                    membership=membership,
                    store=await stack.enter_async_context(make.store_of(config, membership)),
                    outlook=(view := make.outlook(config, own)),
                    monitor=await stack.enter_async_context(open_monitor(concurrency=config.health.concurrency)),
                    reconcilers={"": make.reconciler(config, tell=events.tell, host=setup, synced=names)},
                    events=events,
                    own_addresses=own,
                    host_status=setup.status if setup is not None else tuple,
                    namespaces=make.namespaces(config, events.tell),
                )
            )
            reloading = Reloading(config=config, load=load, node=node, set_policy=view.set_policy)
            reloading.begin()
            subject = NodeSubject(
                node=node,
                cluster=config.cluster.name,
                engine=config.store.engine,
                zone=config.names.zone,
                plain=lambda: plain(reloading.config),
                reloading=reloading.reload,
                outcomes=lambda: make.outcomes_of(watch.reading),
                event_counts=lambda: dict(events.counts),
            )
            api = await stack.enter_async_context(open_api(subject, make.api_options(config), page=WebPage()))
            subject.api_metrics, reloading.api = api.metrics, api
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.run)
                nursery.start_soon(watch.run)
                nursery.start_soon(notifier.keep)
                nursery.start_soon(obey, signals, reloading, nursery.cancel_scope, outer.cancel_scope, notifier)
                await node.ready.wait()
                notifier.ready(f"{membership.me.name} in {config.cluster.name}")
            notifier.stopping()
