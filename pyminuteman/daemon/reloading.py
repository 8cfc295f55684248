"""The configuration that counts, and how another one takes its place while the daemon runs.

1. All or nothing: what can fail or has to wait (reading, checking, opening files) comes first. Then all of it is taken in one turn of the
   loop, which neither waits nor fails.
2. A new configuration is compared to the one that counts, not to the one that was read last: setting a key back counts, and what takes a
   restart is said again until it is so.
3. What has not changed is not touched: a reload that changes nothing writes nothing to the kernel, and tells the others nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import trio

from pyminuteman.daemon import composition as make
from pyminuteman.daemon.api.options import ApiOptions
from pyminuteman.daemon.api.subject import Reloaded
from pyminuteman.daemon.config import DaemonConfig
from pyminuteman.daemon.config_changes import in_force, told
from pyminuteman.daemon.config_checks import Remark
from pyminuteman.daemon.config_file import all_remarks
from pyminuteman.daemon.feeds import Feed
from pyminuteman.daemon.logs import log_remarks, start_log
from pyminuteman.daemon.node import Node
from pyminuteman.errors import MinutemanError
from pyminuteman.membership import Key, load_key_file
from pyminuteman.sources.base import Source
from pyminuteman.vips.policy import Policy

__all__ = ["Reloading"]


class _Renewable(Protocol):
    def renewal(self, options: ApiOptions) -> Callable[[], None]:
        """Read its files; what is returned makes them count."""


@dataclass(frozen=True, slots=True)
class _Read:
    """What was read, and is good."""

    config: DaemonConfig
    said: DaemonConfig
    remarks: tuple[Remark, ...]
    readers: dict[str, Source]
    keys: tuple[Key, ...]
    take_api: Callable[[], None]


@dataclass(kw_only=True)
class Reloading:
    """What of a running daemon can be changed by its configuration.

    Attributes:
        config: What counts.
        load: Reads the configuration; blocks.
        node: Which daemon.
        set_policy: Where a policy is handed to.
        api: Its API, when it is open.
    """

    config: DaemonConfig
    load: Callable[[], DaemonConfig]
    node: Node
    set_policy: Callable[[Policy], object]
    api: _Renewable | None = None
    _turn: trio.Lock = field(default_factory=trio.Lock)

    def begin(self) -> None:
        """Have the node read its sources.

        Raises:
            ConfigurationError: One cannot be.
        """
        readers = {source.name: make.reader_of(source) for source in self.config.sources}
        self.node.set_sources(make.sources(self.config, readers, before={}, make_feed=self._feed))

    async def reload(self) -> Reloaded:
        """Read the configuration, and the files that it names, and have them count.

        Raises:
            MinutemanError: Something is no good. It was told, and nothing was changed.
        """
        async with self._turn:
            try:
                read = await trio.to_thread.run_sync(self._read)
                keys = self._change_keys(read.keys)
            except MinutemanError as error:
                self.node.events.tell("reload", f"nothing was changed: {error}", {"error": str(error)})
                raise
            return self._take(read, keys)

    def _read(self) -> _Read:
        """Everything that can fail; in a thread.

        Raises:
            MinutemanError: It did.
        """
        said = self.load()
        config = in_force(self.config, said)
        places = {source.name: source.place for source in self.config.sources}
        moved = [source for source in config.sources if places.get(source.name) != source.place]
        key_file = config.cluster.key_file
        return _Read(
            config,
            said,
            all_remarks(said),
            readers={source.name: make.reader_of(source) for source in moved},
            keys=() if key_file is None else tuple(load_key_file(key_file)),
            take_api=(lambda: None) if self.api is None else self.api.renewal(make.api_options(config)),
        )

    def _change_keys(self, keys: tuple[Key, ...]) -> list[str]:
        """What has changed by it, in words."""
        if not keys:
            return []
        membership = self.node.membership
        before = membership.me.keys
        kept = membership.change_keys(keys)
        after = membership.me.keys
        lines = (
            [] if after == before else [f"cluster.key_file: holding {', '.join(key.hex() for key in after)}; the first seals"]
        )
        return lines + [
            f"cluster.key_file: {key.hex()} is not in it, but others still seal with it: reload when they do not"
            for key in kept
        ]

    def _take(self, read: _Read, keys: list[str]) -> Reloaded:
        """Have it count."""
        node, config = self.node, read.config
        lines, restart = told(self.config, read.said)
        lines += keys
        self.config = config
        start_log(config.log)
        log_remarks(read.remarks)
        read.take_api()
        self.set_policy(make.policy_of(config))
        before = {feed.name: feed for feed in node.feeds}
        node.set_sources(make.sources(config, read.readers, before=before, make_feed=self._feed))
        options = make.reconciler_options(config)
        for reconciler in node.reconcilers.values():
            reconciler.set_options(options)
        node.look_again()
        text = "; ".join([*lines, *(f"{line} (takes a restart)" for line in restart)])
        node.events.tell("reload", text or "read again: nothing has changed", {"changes": lines, "restart": restart})
        return Reloaded(tuple(lines), tuple(restart), tuple(map(str, read.remarks)))

    def _feed(self, name: str, source: Source) -> Feed:
        return Feed(name, source, events=self.node.events, changed=self.node.publish)
