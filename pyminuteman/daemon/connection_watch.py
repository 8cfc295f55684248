"""Reads the kernel's connection table now and then, and keeps what became of the connections.

The kernel makes reading dear: each 4 KiB of ``/proc/net/ip_vs_conn`` it finds again from the start, so that twice the connections cost
four times as much (docs/connection-outcomes.md has figures). So a table longer than ``lines_max`` is left alone: the reading ends there,
counts nothing, and is counted as skipped.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Final, NoReturn, Protocol

import trio

from pyminuteman.daemon.outcomes import Outcomes, OutcomesReading
from pyminuteman.ipvs.connections import parse_connections
from pyminuteman.ipvs.errors import IPVSError
from pyminuteman.ipvs.service import ServiceKey
from pyminuteman.ipvs.tcp_metrics import TCPMetric

__all__ = ["ConnectionReader", "ConnectionWatch", "WatchStatus"]

_log = logging.getLogger("pyminuteman.daemon")

_LINES_PER_CHECK: Final = 1000
"""How often a thread that reads asks whether it is still wanted: every few milliseconds."""


class ConnectionReader(Protocol):
    """Where tables are read; :class:`pyminuteman.ipvs.netlink.NetlinkBackend` is one. Used by one thread at a time."""

    def connection_lines(self) -> Iterable[str]:
        """The lines of ``/proc/net/ip_vs_conn``."""
        ...

    def tcp_metrics(self) -> Mapping[str, TCPMetric]:
        """What the kernel remembers of TCP connections, by the address at the other end."""
        ...


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """How the last reading went."""

    read_at: float | None = None
    """When the table was last read to its end, in seconds of trio's clock; None for never."""
    took_seconds: float = 0.0
    """How long the last reading took, of whatever end."""
    reason: str = ""
    """Why outcomes are not counted; empty when they are."""
    latency_reason: str = ""
    """Why they come without latencies; empty when they come with them."""


@dataclass(frozen=True, slots=True)
class _Tables:
    """What one reading brought."""

    lines: list[str] | None
    """None: too many."""
    metrics: Mapping[str, TCPMetric]
    latency_reason: str


class ConnectionWatch:
    """Counts the outcomes of the connections of one network namespace.

    Args:
        reader: Of that namespace, and for this alone: a long reading must not hold up who programs the table. Stays its owner's to close,
            after :meth:`run` has ended.
        interval_seconds: From the start of one reading to that of the next.
        jitter_seconds: A random time of up to this much is added, so that many hosts do not read at once.
        lines_max: Most connections, of all protocols, that are read. Time and memory of a reading are bounded by it alone.
        dice: For the jitter.

    Raises:
        ValueError: A number is negative, or the interval or the limit is 0.
    """

    def __init__(
        self,
        reader: ConnectionReader,
        *,
        interval_seconds: float = 20.0,
        jitter_seconds: float = 2.0,
        lines_max: int = 50_000,
        dice: Random | None = None,
    ) -> None:
        self._outcomes = Outcomes(interval_seconds=interval_seconds, jitter_seconds=jitter_seconds, connections_max=lines_max)
        self._reader = reader
        self._interval_seconds = interval_seconds
        self._jitter_seconds = jitter_seconds
        self._lines_max = lines_max
        self._dice = Random() if dice is None else dice  # noqa: S311 - jitter, no secret
        self._alone = trio.Lock()
        self._threads = trio.CapacityLimiter(1)
        self._keep: Collection[ServiceKey] | None = None
        self._reading = OutcomesReading()
        self._status = WatchStatus()
        self._skipped = self._failed = 0

    @property
    def reading(self) -> OutcomesReading:
        """What is counted, as of the last reading that counted."""
        return self._reading

    @property
    def status(self) -> WatchStatus:
        """How the last reading went."""
        return self._status

    def metrics(self) -> dict[str, float]:
        """What is held, and what has happened since the start (``_total``)."""
        own = {"readings_skipped_total": self._skipped, "readings_failed_total": self._failed}
        return {**self._reading.metrics, **own, "reading_seconds": self._status.took_seconds}

    def keep_only(self, services: Collection[ServiceKey]) -> None:
        """Forget, before the next reading, what was counted for other services."""
        self._keep = frozenset(services)

    async def run(self) -> NoReturn:
        """Read, now and from then on, until cancelled. A reading under way is cut short then, within some milliseconds or the counting."""
        while True:
            began = trio.current_time()
            await self.look()
            await trio.sleep_until(began + self._interval_seconds + self._jitter_seconds * self._dice.random())

    async def look(self) -> OutcomesReading:
        """Read once, at once. What goes wrong is in :attr:`status`, and logged when it is new."""
        async with self._alone:
            began = trio.current_time()
            reason, latency_reason, read_at = "", self._status.latency_reason, self._status.read_at
            try:
                tables = await trio.to_thread.run_sync(self._read, limiter=self._threads)
            except (IPVSError, OSError) as error:
                self._failed += 1
                reason = str(error)
            else:
                latency_reason = tables.latency_reason
                if tables.lines is None:
                    self._skipped += 1
                    reason = f"more than {self._lines_max} connections: reading them would cost too much"
                else:
                    keep, self._keep = self._keep, None
                    lines, metrics = tables.lines, tables.metrics
                    with trio.CancelScope(shield=True):  # what is counted is to be shown
                        self._reading = await trio.to_thread.run_sync(
                            self._count, lines, metrics, began, keep, limiter=self._threads
                        )
                    read_at = began
            self._note(WatchStatus(read_at, trio.current_time() - began, reason, latency_reason))
            return self._reading

    def _read(self) -> _Tables:
        """In a thread."""
        lines: list[str] = []
        for line in self._reader.connection_lines():
            lines.append(line)
            if len(lines) > self._lines_max + 1:  # the heading is no connection
                return _Tables(None, {}, self._status.latency_reason)
            if len(lines) % _LINES_PER_CHECK == 0:
                trio.from_thread.check_cancelled()
        try:
            return _Tables(lines, self._reader.tcp_metrics(), "")
        except IPVSError as error:
            return _Tables(lines, {}, str(error))

    def _count(
        self, lines: list[str], metrics: Mapping[str, TCPMetric], now: float, keep: Collection[ServiceKey] | None
    ) -> OutcomesReading:
        """In a thread."""
        if keep is not None:
            self._outcomes.keep_only(keep)
        return self._outcomes.observe(parse_connections(lines), metrics, now)

    def _note(self, status: WatchStatus) -> None:
        before, self._status = self._status, status
        if status.reason and status.reason != before.reason:
            _log.warning("outcomes of connections are not counted: %s", status.reason)
        if status.latency_reason and status.latency_reason != before.latency_reason:
            _log.warning("outcomes of connections come without latencies: %s", status.latency_reason)
