"""Who of the neighbours is silent, and whether that is their fault or ours.

Pure. One :class:`Watch` a link. The rules:

- Each end sends heartbeats at its own period and echoes the last one it got, so one datagram each way serves both ends and
  measures the round trip: the asynchronous mode of BFD (RFC 5880) with the echo folded in.
- A neighbour is **overdue** when it has not been heard for its period, jitter included, and one timeout. The timeout follows a
  window of round trips (:func:`answer_timeout`); one fast answer does not make the next slow one a failure.
- An overdue neighbour is **confirmed**: probed directly, twice, and by others on our behalf. What is heard of it in any way
  clears it. Only silence on all paths for a further timeout is a failure.
- What others hear and we do not, for long, is a bad path and no dead node: the link goes, without an accusation.
- News that somebody else cut a neighbour of ours starts the confirmation at once (the cascade), so a dead node loses all its
  links within one timeout of the first, and not after each neighbour's own wait.
- Local trouble stretches our timeouts (:class:`LocalHealth`): a timer that fired late, or most neighbours overdue together.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import sqrt
from random import Random
from typing import Final

from pyminuteman.addresses import NodeId
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Send
from pyminuteman.membership.messages import DisconnectReason, Heartbeat, IndirectProbe, Peer, Probe
from pyminuteman.membership.steps import DeadlineDue, HeartbeatDue, LinkSilent, SetTimer, Step

__all__ = ["FailureDetector", "LocalHealth", "RoundTripEstimator", "Watch", "answer_timeout"]

_NUMBERS: Final = 1 << 16
_HELD_MAX: Final = 65535
_HELD_UNIT_SECONDS: Final = 1e-4
_HEALTH_RECOVERS_SECONDS: Final = 1.0
_SENT_REMEMBERED: Final = 8
_DOUBT_LEAST: Final = 3
"""Fewer neighbours than this overdue at once say nothing about ourselves."""


def answer_timeout(samples: Sequence[float], least: float, most: float) -> float:
    """Seconds that an answer may take: mean and four deviations of the round trips seen, bounded (as RFC 6298 does for TCP).

    Without samples the geometric mean of the bounds: neither hasty nor blind.
    """
    if not samples:
        return sqrt(least * most)
    mean = sum(samples) / len(samples)
    deviation = sqrt(sum((sample - mean) ** 2 for sample in samples) / len(samples))
    return min(most, max(least, mean + 4 * deviation))


class RoundTripEstimator:
    """A window of round trips and the timeout that follows from it."""

    __slots__ = ("_least", "_most", "_samples", "_timeout")

    def __init__(self, window: int, least: float, most: float) -> None:
        self._samples: deque[float] = deque(maxlen=window)
        self._least = least
        self._most = most
        self._timeout: float | None = None

    def add(self, seconds: float) -> None:
        """Note a round trip."""
        self._samples.append(seconds)
        self._timeout = None

    @property
    def last(self) -> float | None:
        """The latest round trip in seconds; None before the first."""
        return self._samples[-1] if self._samples else None

    @property
    def timeout(self) -> float:
        """:func:`answer_timeout` of the window; computed when asked for, since most samples are never asked about."""
        if self._timeout is None:
            self._timeout = answer_timeout(self._samples, self._least, self._most)
        return self._timeout


class LocalHealth:
    """How far to trust our own clockwork: 0 is well. Each trouble adds one, each quiet second takes one away.

    The local health multiplier of Lifeguard (arXiv 1707.00788), fed by our own lateness and not only by lost probes.
    """

    __slots__ = ("_at", "_most", "_score")

    def __init__(self, most: int) -> None:
        self._most = most
        self._score = 0
        self._at = 0.0

    def score(self, now: float) -> int:
        """From 0 (well) to the configured most."""
        return max(0, self._score - int((now - self._at) / _HEALTH_RECOVERS_SECONDS))

    def trouble(self, now: float) -> None:
        """Something was late or lost that was likely our own doing."""
        self._score = min(self._most, self.score(now) + 1)
        self._at = now


class Watch:
    """What is known of one neighbour's liveness."""

    __slots__ = (
        "_sent",
        "cleared",
        "confirming_until",
        "extended",
        "heard_at",
        "heard_directly_at",
        "interval",
        "number",
        "peer",
        "probe",
        "reprobe",
        "round_trips",
        "serial",
        "their_number",
        "their_number_at",
        "unsure",
    )

    def __init__(self, peer: Peer, interval: float, serial: int, now: float, config: MembershipConfig) -> None:
        self.peer = peer
        self.interval = interval
        self.serial = serial
        self.heard_at = now
        """When last heard of, directly or by a helper."""
        self.heard_directly_at = now
        self.round_trips = RoundTripEstimator(config.round_trip_window, config.timeout_min_seconds, config.timeout_max_seconds)
        self.number = 0
        self.their_number = 0
        self.their_number_at = now
        self.confirming_until = 0.0
        """End of the confirmation; 0 when none is under way."""
        self.reprobe = False
        """Whether the second direct probe of this confirmation is still to be sent."""
        self.extended = False
        self.cleared = 0
        """Confirmations that ended well: false alarms caught."""
        self.probe = 0
        self.unsure = True
        """Whether the peer may not hold us for a neighbour: until a heartbeat of it comes, ours say who we are."""
        self._sent: deque[tuple[int, float]] = deque(maxlen=_SENT_REMEMBERED)

    def next_heartbeat(self, now: float, table_hash: int) -> Heartbeat:
        """The next one to send, with the echo of the last one heard."""
        self.number = self.number % (_NUMBERS - 1) + 1
        self._sent.append((self.number, now))
        held = min(_HELD_MAX, int((now - self.their_number_at) / _HELD_UNIT_SECONDS))
        return Heartbeat(self.number, self.their_number, max(0, held), table_hash)

    def forget_sent(self) -> None:
        """What was sent before a stall of ours measures the stall, not the path."""
        self._sent.clear()

    def echo(self, number: int, held_100us: int, now: float) -> None:
        """Measure the round trip, if the echo is of a heartbeat that we remember: nothing a peer invents gets in."""
        if held_100us < _HELD_MAX:
            for sent, at in self._sent:
                if sent == number:
                    self.round_trips.add(max(0.0, now - at - held_100us * _HELD_UNIT_SECONDS))
                    self._sent.remove((sent, at))
                    return


class FailureDetector:
    """The watches of one node.

    Args:
        config: Its constants.
        random: Where jitter comes from.
        helpers: Given a neighbour, others who can probe it for us, the likeliest first.
    """

    def __init__(self, config: MembershipConfig, random: Random, helpers: Callable[[NodeId], Sequence[Peer]]) -> None:
        self._config = config
        self._random = random
        self._helpers = helpers
        self._serial = 0
        self._probe = 0
        self.watches: dict[NodeId, Watch] = {}
        self.health = LocalHealth(config.local_health_max)
        self.confirmations = 0
        self.false_alarms = 0

    # -- links come and go ---------------------------------------------------------------------------------------------

    def watch(self, peer: Peer, interval: float, now: float) -> list[Step]:
        """Begin to watch a new neighbour; the first heartbeat goes at once."""
        self._serial += 1
        watch = Watch(peer, interval, self._serial, now, self._config)
        self.watches[peer.id] = watch
        return [
            SetTimer(HeartbeatDue(peer.id, watch.serial), now),
            SetTimer(DeadlineDue(peer.id, watch.serial), self._overdue_at(watch, now)),
        ]

    def unwatch(self, node: NodeId) -> None:
        """Watch it no longer."""
        self.watches.pop(node, None)

    # -- what is heard -------------------------------------------------------------------------------------------------

    def heard(self, watch: Watch, now: float) -> None:
        """Anything authentic from the neighbour itself shows that it lives."""
        watch.heard_at = watch.heard_directly_at = now
        if watch.confirming_until:
            self._clear(watch)

    def heartbeat(self, watch: Watch, message: Heartbeat, now: float) -> None:
        """A heartbeat has come."""
        self.heard(watch, now)
        watch.unsure = False
        watch.their_number = message.number
        watch.their_number_at = now
        watch.echo(message.echo, message.held_100us, now)

    def heard_indirectly(self, node: NodeId, number: int, now: float) -> None:
        """A helper says that the neighbour answered it, to the probe of that number."""
        watch = self.watches.get(node)
        if watch is not None and watch.confirming_until and watch.probe == number:
            watch.heard_at = now
            self._clear(watch)

    def _clear(self, watch: Watch) -> None:
        watch.confirming_until = 0.0
        watch.cleared += 1
        self.false_alarms += 1

    def is_doubtful(self, node: NodeId) -> bool:
        """Whether the neighbour is overdue, and the first probe of its confirmation went unanswered."""
        watch = self.watches.get(node)
        return watch is not None and watch.confirming_until > 0 and not watch.reprobe

    def introduce(self) -> None:
        """We go under another epoch: the next heartbeats say so."""
        for watch in self.watches.values():
            watch.unsure = True

    def is_unsure(self, node: NodeId) -> bool:
        """Whether the neighbour may not know us by our boot."""
        watch = self.watches.get(node)
        return watch is None or watch.unsure

    # -- timers --------------------------------------------------------------------------------------------------------

    def heartbeat_due(self, timer: HeartbeatDue, due: float, now: float, table_hash: int) -> list[Step]:
        """Send a heartbeat and plan the next. Planned from when this one was due, or the period would drift."""
        watch = self.watches.get(timer.node)
        if watch is None or watch.serial != timer.serial:
            return []
        interval = self._config.heartbeat_interval_seconds
        jitter = self._config.heartbeat_jitter
        planned = max(due, now - interval) + interval * (1 + jitter * (2 * self._random.random() - 1))
        return [
            Send(watch.peer.endpoint, (watch.next_heartbeat(now, table_hash),), identify=watch.unsure),
            SetTimer(timer, planned),
        ]

    def fresh_deadline(self, timer: DeadlineDue, now: float) -> float | None:
        """When the timer would have something to do; None when it is stale. Asked before waking up for nothing."""
        watch = self.watches.get(timer.node)
        if watch is None or watch.serial != timer.serial:
            return None
        if watch.confirming_until:
            return self._confirmation_step_at(watch)
        return self._overdue_at(watch, now)

    def deadline_due(self, timer: DeadlineDue, now: float) -> list[Step]:
        """Judge: not yet, overdue, or silent on all paths."""
        watch = self.watches.get(timer.node)
        if watch is None or watch.serial != timer.serial:
            return []
        if watch.confirming_until:
            return self._confirm(watch, timer, now)
        overdue_at = self._overdue_at(watch, now)
        if now < overdue_at:
            return [SetTimer(timer, overdue_at)]
        if now - watch.heard_directly_at > max(self._config.direct_failure_seconds, 2 * watch.interval):
            return [LinkSilent(timer.node, DisconnectReason.PATH)]
        return self._begin(watch, timer, now, self._helpers(timer.node)[: self._config.indirect_probes])

    def suspect(self, node: NodeId, now: float) -> list[Step]:
        """Somebody else doubts a neighbour of ours: confirm it now, unless it was heard a moment ago."""
        watch = self.watches.get(node)
        if watch is None or watch.confirming_until or now - watch.heard_directly_at < self._config.timeout_min_seconds:
            return []
        return self._begin(watch, DeadlineDue(node, watch.serial), now, ())

    def forgive(self, seconds: float, now: float) -> None:
        """We did not run for so long: nobody could be heard, so nobody is later than before, and all shall be told who we are."""
        self.health.trouble(now)
        for watch in self.watches.values():
            watch.heard_at = min(now, watch.heard_at + seconds)
            watch.heard_directly_at = min(now, watch.heard_directly_at + seconds)
            if watch.confirming_until:
                watch.confirming_until += seconds
            watch.unsure = watch.unsure or seconds > watch.interval
            watch.forget_sent()

    # -- inside --------------------------------------------------------------------------------------------------------

    def timeout(self, watch: Watch, now: float) -> float:
        """What an answer may take now, in seconds, stretched by our own health."""
        return min(self._config.timeout_stretched_max_seconds, watch.round_trips.timeout * (1 + self.health.score(now)))

    def _overdue_at(self, watch: Watch, now: float) -> float:
        return watch.heard_at + watch.interval * (1 + self._config.heartbeat_jitter) + self.timeout(watch, now)

    def _confirmation_step_at(self, watch: Watch) -> float:
        if watch.reprobe:
            return watch.confirming_until - self.timeout(watch, watch.confirming_until) / 2
        return watch.confirming_until

    def _begin(self, watch: Watch, timer: DeadlineDue, now: float, helpers: Sequence[Peer]) -> list[Step]:
        self._probe += 1
        self.confirmations += 1
        watch.probe = self._probe
        watch.confirming_until = now + self.timeout(watch, now)
        watch.reprobe = True
        watch.extended = False
        # It may live and not be our neighbour: it answers probes then, but only a heartbeat that it can name makes it say so.
        watch.unsure = True
        asked = IndirectProbe(self._probe, timer.node)
        return [
            Send(watch.peer.endpoint, (Probe(self._probe),)),
            *(Send(helper.endpoint, (asked,)) for helper in helpers),
            SetTimer(timer, self._confirmation_step_at(watch)),
        ]

    def _confirm(self, watch: Watch, timer: DeadlineDue, now: float) -> list[Step]:
        if watch.reprobe:
            watch.reprobe = False
            return [Send(watch.peer.endpoint, (Probe(watch.probe),)), SetTimer(timer, watch.confirming_until)]
        if now < watch.confirming_until:
            return [SetTimer(timer, watch.confirming_until)]
        if not watch.extended and self.doubts_itself:
            # Most neighbours silent at once is more likely our own trouble: once more, with patience.
            self.health.trouble(now)
            watch.extended = True
            watch.reprobe = True
            watch.confirming_until = now + 2 * self.timeout(watch, now)
            return [SetTimer(timer, now)]
        return [LinkSilent(timer.node, DisconnectReason.FAILED)]

    @property
    def doubts_itself(self) -> bool:
        """Whether more than half of the neighbours, and at least three, are overdue at once."""
        doubtful = sum(1 for watch in self.watches.values() if watch.confirming_until)
        return doubtful >= _DOUBT_LEAST and 2 * doubtful > len(self.watches)
