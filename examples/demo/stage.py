"""Where the scenario plays: the table, the client and the backends, the clock that ticks meanwhile, and what came of it."""

from __future__ import annotations

import math
import selectors
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from demo.network import BACKENDS, VIPS
from demo.processes import Child, now
from demo.record import Record, percentages, percentile, shares
from pyminuteman.ipvs import ApplyReport, Destination, IPVSTable, Service, ServiceKey

TICK_SECONDS: Final = 0.25
_DRAIN_LOOK_SECONDS: Final = 0.5
_RECENT_SECONDS: Final = 2.0

BACKEND_NAMES: Final = {address: name for name, address in BACKENDS.items()}
SERVICE_NAMES: Final = {address: name for name, address in VIPS.items()}
Emit = Callable[..., None]


class ClaimFailed(Exception):
    """What the demo says of itself turned out not to be so. The text says what was claimed and what was seen."""


@dataclass
class Change:
    """One call of ``converge``."""

    what: str
    milliseconds: float
    """The whole call: reading the table, comparing, writing."""
    operations: list[str]


@dataclass
class Step:
    """One step of the scenario, and what it came to."""

    number: int
    title: str
    began: float = field(default_factory=now)
    ended: float = 0.0
    changes: list[Change] = field(default_factory=list)
    claims: list[str] = field(default_factory=list)
    shares: dict[str, dict[str, float]] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    """What else the summary is to say of it."""


class Stage:
    """The state of the show. ``play`` lets time pass; everything else is done at once."""

    def __init__(self, table: IPVSTable, client: Child, backends: Mapping[str, Child], emit: Emit) -> None:
        """Take what :mod:`demo.inside` set up."""
        self.table: Final = table
        self.client: Final = client
        self.backends: Final = backends
        self.desired: dict[Service, tuple[Destination, ...]] = {}
        self.record: Final = Record()
        self.steps: Final[list[Step]] = []
        self.draining: ApplyReport | None = None
        self.on_drained: Callable[[], None] | None = None
        """Called once, right after the last draining destination was removed."""
        self.sent: int | None = None
        """Requests the client started; known once it has stopped."""
        self._emit: Final = emit
        self._began: Final = now()
        self._look_at = 0.0
        self._selector: Final = selectors.DefaultSelector()
        for child in (client, *backends.values()):
            self._selector.register(child.channel, selectors.EVENT_READ, child)

    @property
    def step(self) -> Step:
        """The present one."""
        return self.steps[-1]

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
            self._emit("step_end", so_far=len(self.record.requests), **self.describe(self.step))

    def note(self, text: str) -> None:
        """Say what somebody other than ``converge`` did."""
        self._emit("note", text=text)

    def claim(self, holds: bool, text: str, otherwise: str = "") -> None:
        """Assert something.

        Raises:
            ClaimFailed: It is not so.
        """
        if not holds:
            but = f"; but {otherwise}" if otherwise else ""
            msg = f"step {self.step.number} ({self.step.title}): claimed that {text}{but}"
            raise ClaimFailed(msg)
        self.step.claims.append(text)
        self._emit("claim", text=text)

    def no_failures(self) -> None:
        """Assert that no request failed so far."""
        failures = self.record.failures
        first = "; ".join(f"{one.service}: {one.error} after {one.seconds:.2f} s" for one in failures[:3])
        if failures:
            self.claim(False, "no request fails", f"{len(failures)} did: {first}")

    def change(self, what: str, desired: Mapping[Service, Iterable[Destination]] | None = None) -> float:
        """Converge to ``desired`` (None: what was desired already), and return the time when that was done."""
        if desired is not None:
            self.desired = {service: tuple(destinations) for service, destinations in desired.items()}
        self._converge(what)
        self.tick()
        return now()

    def _converge(self, what: str) -> None:
        began = now()
        report = self.table.converge(self.desired)
        took = (now() - began) * 1000
        drained = self.draining is not None and not report.draining
        self.draining = report if report.draining else None
        self._look_at = now() + _DRAIN_LOOK_SECONDS
        if report.plan:
            change = Change(what, round(took, 2), [str(operation) for operation in report.applied])
            self.step.changes.append(change)
            self._emit("change", summary=report.plan.summary(), **asdict(change))
        if drained and self.on_drained:
            self.on_drained()
            self.on_drained = None

    def play(self, seconds: float, *, until: Callable[[], bool] = lambda: False) -> None:
        """Let time pass: take in what the client reports, draw, and look after what drains.

        Raises:
            ClaimFailed: A process of the demo ended.
        """
        end = now() + seconds
        tick_at = now()
        while now() < end and not until():
            for ready, _ in self._selector.select(max(min(end, tick_at) - now(), 0.0)):
                self._hear(ready.data)
            if self.draining and now() >= self._look_at:
                self._converge("the last connection has ended: the drained row is removed")
            if now() >= tick_at:
                self.tick()
                tick_at = now() + TICK_SECONDS

    def _hear(self, child: Child) -> None:
        try:
            for message in child.channel.receive():
                self.record.add(message.get("finished", ()))
                self.sent = message.get("started", self.sent)
        except EOFError:
            self._selector.unregister(child.channel)
            if child is not self.client or self.sent is None:
                msg = f"{child.name} (process {child.pid}) ended unexpectedly"
                raise ClaimFailed(msg) from None

    def ask_backends(self) -> dict[str, int]:
        """How many requests each backend has served, by its own count."""
        counts = {}
        for name, child in self.backends.items():
            child.channel.send(count=True)
            counts[name] = int(child.channel.wait()["served"])
        return counts

    def tick(self) -> None:
        """Send a picture of the present to the screen."""
        at = now()
        recent = [request for request in self.record.recent if request.started >= at - _RECENT_SECONDS]
        latencies = [request.seconds * 1000 for request in recent if not request.error and request.seconds < 1]
        self._emit(
            "tick",
            seconds=at - self._began,
            services=self._rows({service: shares(recent, service) for service in VIPS}),
            requests=len(self.record.requests),
            failed=len(self.record.failures),
            rate=len(recent) / _RECENT_SECONDS,
            p50=percentile(latencies, 50),
            p99=percentile(latencies, 99),
        )

    def _rows(self, parts: Mapping[str, Mapping[str, float]]) -> list[dict[str, Any]]:
        """The kernel's table, whoever's it is, and what is desired but not in it."""
        picture = []
        for key, found in self.table.statistics().items():
            wanted = self.wanted(key)
            service = SERVICE_NAMES.get(key.address, "")
            present = {destination.key for destination in found.destinations}
            rows = []
            for destination in sorted([*found.destinations, *(one for one in wanted if one.key not in present)]):
                numbers = found.destinations.get(destination)
                backend = BACKEND_NAMES.get(destination.address, "")
                rows.append(
                    {
                        "name": backend,
                        "address": str(destination),
                        "weight": destination.weight,
                        "state": self._state(service, destination, wanted, missing=numbers is None),
                        "requests": self.record.answered[service, backend],
                        "share": parts.get(service, {}).get(backend, 0.0),
                        "active": numbers.connections.active if numbers else 0,
                    }
                )
            picture.append({"name": service, "address": f"{key.address}:{key.port}", "ours": bool(service), "rows": rows})
        return picture

    @staticmethod
    def _state(service: str, destination: Destination, wanted: Iterable[Destination], *, missing: bool) -> str:
        if not service:
            return "foreign"
        if missing:
            return "deleted"
        return "" if any(destination.key == one.key for one in wanted) else "draining"

    def wanted(self, key: ServiceKey) -> tuple[Destination, ...]:
        """What is desired behind this service."""
        return next((destinations for service, destinations in self.desired.items() if service.key == key), ())

    def describe(self, step: Step) -> dict[str, Any]:
        """A step for the summary; its numbers are final once every request has ended."""
        requests = self.record.since(step.began, step.ended or math.inf)
        return {
            "number": step.number,
            "title": step.title,
            "seconds": round((step.ended or now()) - step.began, 2),
            "changes": [asdict(change) for change in step.changes],
            "requests": len(requests),
            "failed": sum(bool(request.error) for request in requests),
            "shares": step.shares,
            "seen": [*(f"{service}: {percentages(part)}" for service, part in step.shares.items()), *step.remarks],
            "claims": step.claims,
        }

    def summary(self) -> dict[str, Any]:
        """Everything, for people and for ``--json``."""
        latencies = [request.seconds * 1000 for request in self.record.requests if not request.error and request.seconds < 1]
        return {
            "seconds": round(now() - self._began, 1),
            "requests": len(self.record.requests),
            "failed": len(self.record.failures),
            "p50_ms": round(percentile(latencies, 50), 2),
            "p99_ms": round(percentile(latencies, 99), 2),
            "steps": [self.describe(step) for step in self.steps],
        }
