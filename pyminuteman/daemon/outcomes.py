"""What became of TCP connections, by service and backend, from one reading of the kernel's connection table to the next. Pure.

Invariants:

1. A connection is counted once: as opened, failed or reset. A port that a client uses again is another connection, as far as the
   table shows it: its state has gone back.
2. Until it is known what becomes of a half-open one it is undecided, and in no counter.
3. What is remembered is bounded; what did not fit is counted as such, and nowhere else.

The rules, and what they miss, are in docs/connection-outcomes.md.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from pyminuteman.ipvs.connections import Connection
from pyminuteman.ipvs.service import Protocol, ServiceKey
from pyminuteman.ipvs.tcp_metrics import TCPMetric
from pyminuteman.vips.model import BackendKey

__all__ = ["LATENCY_BOUNDS_SECONDS", "Latency", "Outcome", "Outcomes", "OutcomesReading"]

LATENCY_BOUNDS_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the buckets of a histogram of latencies; a last one is for what is above them."""

_HALF_OPEN, _OPEN, _CLOSING, _ENDED = range(4)
_STAGES: Final = {
    "SYN_SENT": _HALF_OPEN,
    "SYN_RECV": _HALF_OPEN,
    "SYNACK": _HALF_OPEN,  # of secure_tcp; Minuteman took it for an open one
    "ESTABLISHED": _OPEN,
    "LISTEN": _OPEN,
    "FIN_WAIT": _CLOSING,
    "CLOSE_WAIT": _CLOSING,
    "LAST_ACK": _CLOSING,
    "TIME_WAIT": _ENDED,
    "CLOSE": _ENDED,
}
"""States of ip_vs_proto_tcp.c in the order in which a connection goes through them. It never goes back, but by a new SYN."""
_RESET: Final = "CLOSE"
"""What a RST leads to from every state, for the ten seconds that the kernel keeps it then."""


@dataclass(frozen=True, slots=True)
class Latency:
    """A histogram of latencies, one for each connection opened while something was known of its address. Seconds."""

    counts: tuple[int, ...]
    """Estimates (:attr:`TCPMetric.estimate_seconds`) at or below each of ``bounds``, not cumulated; the last count is of those above."""
    sum: float
    """Of these estimates."""
    rtt_sum_seconds: float
    """Of the smoothed round trips they were made from."""
    latest_seconds: float
    """The estimate counted last."""
    bounds: tuple[float, ...] = LATENCY_BOUNDS_SECONDS

    @property
    def count(self) -> int:
        """How many; at least 1."""
        return sum(self.counts)

    @property
    def mean_rtt_seconds(self) -> float:
        """The plain mean of the round trips."""
        return self.rtt_sum_seconds / self.count


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of the connections to one backend of one service, since counting began."""

    opened: int = 0
    """Both ends were seen to be connected, or to have been."""
    failed: int = 0
    """The handshake was never completed: half-open and about to die, or gone when its time was up. As a rule nobody answered at the
    backend's; a client that never answered, as in a flood of SYNs, looks the same."""
    reset: int = 0
    """First seen ended by a RST, or gone before its time: refused, or opened and cut off between two readings. Neither of the others."""
    undecided: int = 0
    """Half-open just now. No counter: it goes up and down."""
    latency: Latency | None = None
    """None: nothing is known of the backend's address."""

    @property
    def latency_seconds(self) -> float | None:
        """The latest estimate: the smoothed round trip and three of its deviations."""
        return None if self.latency is None else self.latency.latest_seconds


@dataclass(frozen=True, slots=True)
class OutcomesReading:
    """What is counted after a reading. Nothing in it changes any more, so that threads may share it."""

    backends: Mapping[tuple[ServiceKey, BackendKey], Outcome] = field(default_factory=dict)
    """By the address and port that clients connected to, and where the connection went. Of a service by firewall mark the kernel's
    table tells the address that the packets had, and not the mark."""
    services: Mapping[ServiceKey, Latency] = field(default_factory=dict)
    """Latencies as clients on this host see them: what the kernel knows of the virtual address itself, all of its backends together."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """What the tracker holds, and has had to leave out (``_total``)."""


class _Histogram:
    """A :class:`Latency` in the making."""

    __slots__ = ("counts", "latest", "rtt_sum", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(LATENCY_BOUNDS_SECONDS) + 1)
        self.sum = self.rtt_sum = self.latest = 0.0

    def add(self, metric: TCPMetric) -> None:
        self.latest = metric.estimate_seconds
        self.counts[bisect_left(LATENCY_BOUNDS_SECONDS, self.latest)] += 1
        self.sum += self.latest
        self.rtt_sum += metric.rtt_seconds

    def latency(self) -> Latency:
        return Latency(tuple(self.counts), self.sum, self.rtt_sum, self.latest)


class _Row:
    """An :class:`Outcome` in the making."""

    __slots__ = ("backend", "failed", "histogram", "opened", "reset", "service", "touched_at")

    def __init__(self, one: Connection) -> None:
        self.service = ServiceKey(Protocol.TCP, one.virtual, one.virtual_port)
        self.backend = BackendKey(one.destination, one.destination_port)
        self.opened = self.failed = self.reset = 0
        self.histogram: _Histogram | None = None
        self.touched_at = 0.0

    def count_gone(self, now: float, *, has_died: bool) -> None:
        """Count one that was half-open at the last reading and is not there any more."""
        self.touched_at = now
        self.failed += has_died
        self.reset += not has_died

    def outcome(self, undecided: int) -> Outcome:
        latency = None if self.histogram is None else self.histogram.latency()
        return Outcome(self.opened, self.failed, self.reset, undecided, latency)


def _of_tcp(connections: Iterable[Connection]) -> Iterator[tuple[int, int, Connection]]:
    """Those that have a handshake, with their key and stage.

    A key is a hash of what tells connections apart. Among 100,000 of them two are the same once in a thousand million readings.
    """
    stage_of = _STAGES.get
    for one in connections:
        stage = stage_of(one.state)
        if stage is not None and one.client_port and one.protocol == "TCP":
            ends = one.client, one.client_port, one.virtual, one.virtual_port, one.destination, one.destination_port
            yield hash(ends), stage, one


def _is_news(known: int, stage: int) -> bool:
    """Whether one that was decided in an earlier stage is to be looked at again: it began anew, or had failed and goes on after all."""
    return stage < known or known == _HALF_OPEN < stage


class Outcomes:
    """Counts outcomes. Used by one thread at a time.

    Args:
        interval_seconds: From one reading to the next.
        jitter_seconds: How much later a reading may come. A half-open connection that the kernel will have forgotten by then, unless
            another SYN comes, has failed.
        connections_max: Most connections remembered from one reading to the next; 90 bytes each, a half-open one 170.
        backends_max: Most pairs of service and backend that are counted; about 1 KB each. When it is reached, those that nothing was
            counted for during ``idle_seconds`` make room.
        idle_seconds: See there.

    Raises:
        ValueError: A number is negative, or the interval or a limit is 0.
    """

    def __init__(
        self,
        *,
        interval_seconds: float = 20.0,
        jitter_seconds: float = 2.0,
        connections_max: int = 100_000,
        backends_max: int = 16_384,
        idle_seconds: float = 3600.0,
    ) -> None:
        if not (
            interval_seconds > 0 and jitter_seconds >= 0 and idle_seconds >= 0 and connections_max > 0 and backends_max > 0
        ):
            raise ValueError("the interval and the limits have to be more than 0, and no number negative")
        self.window_seconds: Final = interval_seconds + jitter_seconds
        self._connections_max = connections_max
        self._backends_max = backends_max
        self._idle_seconds = idle_seconds
        self._rows: dict[tuple[str, int, str, int], _Row] = {}
        self._services: dict[ServiceKey, _Histogram] = {}
        self._decided: dict[int, int] = {}
        """To the stage that each was in."""
        self._undecided: dict[int, tuple[_Row, float]] = {}
        """To when the kernel will have forgotten it."""
        self._readings = self._unremembered = self._uncounted = 0

    def observe(self, connections: Iterable[Connection], metrics: Mapping[str, TCPMetric], now: float) -> OutcomesReading:
        """Take in one whole reading of the connection table.

        Args:
            connections: All there are: half a table would look as if the other half had ended. Templates are passed over, and so are
                protocols other than TCP, which have no handshake that could fail.
            metrics: Of tcp_metrics, by address; may be empty.
            now: Seconds of a clock that does not jump.
        """
        before, half_open = self._decided, self._undecided
        decided: dict[int, int] = {}
        undecided: dict[int, tuple[_Row, float]] = {}
        if len(self._rows) >= self._backends_max:
            self._make_room(now)
        free = self._connections_max - len(before) - len(half_open)
        for key, stage, one in _of_tcp(connections):
            if key in decided or key in undecided:  # listed twice, because the table changed meanwhile
                continue
            known, held = before.get(key), half_open.get(key)
            if known is None and held is None:
                if free <= 0:
                    self._unremembered += 1
                    continue
                free -= 1
            if known is not None and not _is_news(known, stage):
                decided[key] = stage
                continue
            row = held[0] if held is not None else self._row(one)
            if row is not None and stage == _HALF_OPEN and one.expires_seconds >= self.window_seconds:
                undecided[key] = (row, now + one.expires_seconds)
                continue
            decided[key] = stage
            if row is not None:
                self._count(row, one, metrics, now, has_failed=known == _HALF_OPEN)
        gone = half_open.keys() - decided.keys() - undecided.keys()
        for row, dead_at in map(half_open.__getitem__, gone):
            row.count_gone(now, has_died=now >= dead_at)
        self._decided, self._undecided = decided, undecided
        self._readings += 1
        return self.reading()

    def _count(self, row: _Row, one: Connection, metrics: Mapping[str, TCPMetric], now: float, *, has_failed: bool) -> None:
        """Count one that is decided now."""
        row.touched_at = now
        if _STAGES[one.state] == _HALF_OPEN:
            row.failed += 1
            return
        if one.state == _RESET:
            row.reset += not has_failed
            return
        row.opened += 1
        metric = metrics.get(one.destination)
        if metric is not None:
            if row.histogram is None:
                row.histogram = _Histogram()
            row.histogram.add(metric)
        metric = metrics.get(one.virtual)
        if metric is not None:
            self._services.setdefault(row.service, _Histogram()).add(metric)

    def _row(self, one: Connection) -> _Row | None:
        key = (one.virtual, one.virtual_port, one.destination, one.destination_port)
        row = self._rows.get(key)
        if row is None:
            if len(self._rows) >= self._backends_max:
                self._uncounted += 1
                return None
            row = self._rows[key] = _Row(one)
        return row

    def _make_room(self, now: float) -> None:
        held = {id(row) for row, _ in self._undecided.values()}
        idle = now - self._idle_seconds
        self._rows = {key: row for key, row in self._rows.items() if row.touched_at > idle or id(row) in held}
        self._forget_services()

    def _forget_services(self) -> None:
        left = {row.service for row in self._rows.values()}
        self._services = {key: one for key, one in self._services.items() if key in left}

    def keep_only(self, services: Collection[ServiceKey]) -> None:
        """Forget what was counted for other services: for when these have gone. Their connections are remembered."""
        self._rows = {key: row for key, row in self._rows.items() if row.service in services}
        self._forget_services()

    def reading(self) -> OutcomesReading:
        """What is counted so far, in the order of services and backends."""
        rows = sorted(self._rows.values(), key=lambda row: (row.service, row.backend))
        undecided = Counter(id(row) for row, _ in self._undecided.values())
        return OutcomesReading(
            {(row.service, row.backend): row.outcome(undecided[id(row)]) for row in rows},
            {key: one.latency() for key, one in sorted(self._services.items(), key=lambda pair: pair[0])},
            {
                "connections": len(self._decided) + len(self._undecided),
                "connections_undecided": len(self._undecided),
                "backends": len(self._rows),
                "readings_total": self._readings,
                "connections_unremembered_total": self._unremembered,
                "connections_uncounted_total": self._uncounted,
            },
        )
