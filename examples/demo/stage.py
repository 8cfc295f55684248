"""Where the scenario plays: the cluster, the client and the tasks, the clock that ticks meanwhile, and what came of it."""

from __future__ import annotations

import math
import selectors
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final, Self

from demo.load import DEADLINE_SECONDS, REPORT_SECONDS, VIP
from demo.processes import Child, now
from demo.record import Record, Request, percentile, shares
from demo.tasks import PORT, Tasks
from pyminuteman.daemon.client_errors import DaemonError
from pyminuteman.ipvs import IPVSTable
from pyminuteman.testing.daemon_cluster import DaemonCluster

SIZE: Final = 5
NAMES: Final = tuple(f"n{node}" for node in range(SIZE))
CLIENT: Final = 0
"""The node that the client is on, and that is asked what there is to see. Nothing happens to it."""
TICK_SECONDS: Final = 0.5
POLL_SECONDS: Final = 0.02
RECENT_SECONDS: Final = 2.0
_UNTOLD: Final = frozenset({"sync", "source_good", "host", "vip_added", "vip_removed", "member_updated"})
"""Kinds of events that say again what the demo says itself."""
Emit = Callable[..., None]


class ClaimFailed(Exception):
    """What the demo says of itself turned out not to be so. The text says what was claimed and what was seen."""


@dataclass
class Step:
    """One step of the scenario, and what it came to."""

    number: int
    title: str
    began: float = field(default_factory=now)
    ended: float = 0.0
    claims: list[str] = field(default_factory=list)
    seen: list[str] = field(default_factory=list)
    """What the summary is to say of it."""


@dataclass(frozen=True)
class Repair:
    """A panic, in the time of :func:`now`, and how many seconds later all other kernels had done what."""

    began: float
    zero_seconds: float
    gone_seconds: float

    @property
    def over(self) -> float:
        """When the client has told of the last request that is excused."""
        return self.began + self.zero_seconds + DEADLINE_SECONDS + 2 * REPORT_SECONDS

    def excuses(self, request: Request) -> bool:
        """Whether it was sent, or under way, when a kernel might still choose the node that had died."""
        return request.started <= self.began + self.zero_seconds and request.started + request.seconds >= self.began


class Stage:
    """The state of the show. ``play`` lets time pass; everything else is done at once. Close it, or use ``with``."""

    def __init__(self, cluster: DaemonCluster, client: Child, tasks: Tasks, emit: Emit) -> None:
        """Take what :mod:`demo.inside` set up."""
        self.cluster: Final = cluster
        self.client: Final = client
        self.tasks: Final = tasks
        self.record: Final = Record()
        self.steps: Final[list[Step]] = []
        self.desired: dict[str, int] = {}
        """What every kernel is to have behind the VIP: weights by node."""
        self.silent: Final[set[int]] = set()
        """Nodes that have died."""
        self.repair: Repair | None = None
        self.sent: int | None = None
        """Requests the client started since it was last told to; known once it has stopped."""
        self._emit: Final = emit
        self._began: Final = now()
        self._states: dict[str, str] = {}
        self._event: int = cluster.ask(CLIENT, "/v1/events?format=json&since=0")["newest"]
        self._selector: Final = selectors.DefaultSelector()
        self._selector.register(client.channel, selectors.EVENT_READ)
        self._stack: Final = ExitStack()
        self._tables: Final[list[IPVSTable]] = [self._stack.enter_context(cluster.table(node)) for node in range(SIZE)]
        self._names: Final = {cluster.address(node): name for node, name in enumerate(NAMES)}

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the tables."""
        self._stack.close()

    # Steps and what they claim

    @property
    def step(self) -> Step:
        """The present one."""
        return self.steps[-1]

    @property
    def alive(self) -> list[int]:
        """The nodes that have not died."""
        return [node for node in range(SIZE) if node not in self.silent]

    def begin(self, title: str, total: int) -> None:
        """The next step."""
        self.end()
        self.steps.append(Step(len(self.steps) + 1, title))
        self._emit("step", number=self.step.number, total=total, title=title)

    def end(self) -> None:
        """End the present step, if there is one."""
        if self.steps and not self.step.ended:
            self.no_failures()
            self.step.ended = now()
            self._emit("step_end", **self._so_far(), **self.describe(self.step))

    def note(self, text: str) -> None:
        """Say what is done."""
        self._emit("note", text=text)

    def claim(self, holds: bool, text: str, otherwise: str = "") -> None:
        """Assert something.

        Raises:
            ClaimFailed: It is not so.
        """
        if not holds:
            but = f"; but {otherwise}" if otherwise else ""
            raise ClaimFailed(f"step {self.step.number} ({self.step.title}): claimed that {text}{but}")
        self.step.claims.append(text)
        self._emit("claim", text=text)

    def no_failures(self) -> None:
        """Assert that no request failed so far but for those of the repair."""
        bad = [one for one in self.record.failures if self.repair is None or not self.repair.excuses(one)]
        first = "; ".join(f"{one.error} after {one.seconds:.2f} s, {one.started - self.step.began:+.2f} s" for one in bad[:3])
        if bad:
            self.claim(False, "no request fails outside the repair", f"{len(bad)} did (from the step's beginning: {first})")

    # What there is

    def rows(self, node: int) -> dict[str, int]:
        """What that node's kernel has behind the VIP: weights by node."""
        snapshot = self._tables[node].snapshot()
        return {
            self._names.get(str(row.address), str(row)): row.weight
            for service in snapshot
            if (service.key.address, service.key.port) == VIP
            for row in snapshot.destinations(service.key)
        }

    def say(self, node: int, weight: int = 1) -> None:
        """Have a node's source say that its task is there, after the task is."""
        address = self.cluster.address(node)
        self.tasks.start(NAMES[node], self.cluster.netns(node), address)
        row = f'[[vip.backend]]\naddress = "{address}"\nport = {PORT}\nweight = {weight}\n'
        self.cluster.say(node, f'[[vip]]\nlisten = "tcp://{VIP[0]}:{VIP[1]}"\nscheduler = "wrr"\n{row}')

    # The clock

    def play(self, seconds: float, *, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass: take in what the client reports, and draw. Whether what was waited for has come.

        Raises:
            EOFError: The client has ended.
            DaemonEndedError: A daemon has, that nobody had killed.
        """
        end = now() + seconds
        tick_at = now()
        while not (done := until is not None and until()) and now() < end:
            wait = max(min(end, tick_at) - now(), 0.0)
            for _ in self._selector.select(wait if until is None else min(wait, POLL_SECONDS)):
                for message in self.client.channel.receive():
                    self.record.add(message.get("finished", ()))
                    self.sent = message.get("started", self.sent)
            if now() >= tick_at:
                self.tick()
                tick_at = now() + TICK_SECONDS
        return done

    def wait(self, what: str, true: Callable[[], bool], bound_seconds: float, *, since: float | None = None) -> float:
        """Play until something is so, and assert that it becomes so within the bound; the seconds it took.

        Args:
            what: "all kernels have it", say.
            true: Whether it is.
            bound_seconds: Generous: on a machine that is busy with other things nothing is quick.
            since: From when the seconds count; None: from now.
        """
        began = now() if since is None else since
        done = self.play(began + bound_seconds - now(), until=true)
        took = now() - began
        self.tick()  # what the daemons say of it comes first
        tables = "; ".join(f"{NAMES[node]} has {self.rows(node)}" for node in self.alive)
        self.claim(done, f"{what} after {took:.2f} s" if done else f"{what} within {bound_seconds:g} s", tables)
        return took

    def tick(self) -> None:
        """Send a picture of the present to the screen, and what the daemons have said since the last one."""
        self._ask()
        at = now()
        recent = [request for request in self.record.recent if request.started >= at - RECENT_SECONDS]
        latencies = [request.seconds * 1000 for request in recent if not request.error]
        parts = shares(recent)
        self._emit(
            "tick",
            seconds=at - self._began,
            nodes=[
                {
                    "name": name,
                    "state": self._states.get(name, ""),
                    "table": self.rows(node) if node in self.alive else None,
                    "requests": self.record.answered[name],
                    "share": parts.get(name, 0.0),
                }
                for node, name in enumerate(NAMES)
            ],
            rate=len(recent) / RECENT_SECONDS,
            p50=percentile(latencies, 50),
            p99=percentile(latencies, 99),
            **self._so_far(),
        )

    def _ask(self) -> None:
        """What the client's node sees. One that is too busy to answer is asked again at the next tick."""
        try:
            members = self.cluster.ask(CLIENT, "/v1/members")["members"]
            events = self.cluster.ask(CLIENT, f"/v1/events?format=json&since={self._event}")["events"]
        except DaemonError:
            return
        self._states = {member["name"]: member["status"] for member in members}
        for event in events:
            self._event = event["id"]
            if event["kind"] not in _UNTOLD:
                self._emit("said", node=NAMES[CLIENT], kind=event["kind"], text=event["text"])

    def _so_far(self) -> dict[str, int]:
        record = self.record
        return {"requests_so_far": len(record.requests), "failed_so_far": len(record.failures), "late_so_far": record.late}

    # The end

    def describe(self, step: Step) -> dict[str, Any]:
        """A step for the summary; its numbers are final once every request has ended."""
        requests = self.record.since(step.began, step.ended or math.inf)
        return {
            "number": step.number,
            "title": step.title,
            "seconds": round((step.ended or now()) - step.began, 2),
            "requests": len(requests),
            "failed": sum(bool(request.error) for request in requests),
            "seen": step.seen,
            "claims": step.claims,
        }

    def summary(self) -> dict[str, Any]:
        """Everything, for people and for ``--json``."""
        latencies = [request.seconds * 1000 for request in self.record.requests if not request.error]
        repair = self.repair
        return {
            "seconds": round(now() - self._began, 1),
            "requests": len(self.record.requests),
            "failed": len(self.record.failures),
            "harm": None if repair is None else self.harm(repair),
            "weight_zero_seconds": None if repair is None else round(repair.zero_seconds, 2),
            "gone_seconds": None if repair is None else round(repair.gone_seconds, 2),
            "p50_ms": round(percentile(latencies, 50), 2),
            "p99_ms": round(percentile(latencies, 99), 2),
            "steps": [self.describe(step) for step in self.steps],
        }

    def harm(self, repair: Repair) -> dict[str, float]:
        """What the panic did to requests, as the client saw it.

        Of those that a kernel might still send to the node that had died: how many failed; how many were late, for TCP had to try
        again; the longest of these; and how long after the panic the last of both began.
        """
        hit = [one for one in self.record.requests if repair.excuses(one) and (one.error or one.late)]
        late = [one.seconds for one in hit if not one.error]
        last = max((one.started for one in hit), default=repair.began) - repair.began
        return {
            "failed": len(hit) - len(late),
            "late": len(late),
            "longest_seconds": round(max(late, default=0.0), 2),
            "begun_within_seconds": round(max(last, 0.0), 2),
        }


def realtime(at_ns: int) -> float:
    """A time of CLOCK_REALTIME as :func:`now` would have told it."""
    return now() - (time.time_ns() - at_ns) / 1e9


def as_equal_shares(names: Iterable[str]) -> Mapping[str, float]:
    """What each gets when all get the same."""
    listed = list(names)
    return {name: 1 / len(listed) for name in listed}
