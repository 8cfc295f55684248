"""The play: seven steps, each of which asserts what it shows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from demo.network import BACKEND_PORT, BACKENDS, VIP_PORT, VIPS
from demo.processes import now, run
from demo.record import expected_shares, percentages, shares, worst_deviation
from demo.stage import BACKEND_NAMES, SERVICE_NAMES, Stage
from pyminuteman.ipvs import Destination, DrainPolicy, Service, parse_table

RULES: Final = Path(__file__).parent / "three_vips.rules"
TOLERANCE: Final = 0.05
"""How far a share may be from its weight's part: five percentage points."""
DRAIN: Final = DrainPolicy(timeout_seconds=60)
_SLOW_SECONDS: Final = 14.0
_SLOW_REQUESTS: Final = 8
_DELETED_SECONDS: Final = 1.0
"""How long deleted rows stay deleted. A request under way on one is retransmitted when it is back, so it is late, not lost."""
_FOREIGN: Final = "12.0.0.1:443"
_FOREIGN_RULES: Final = f"-A -t {_FOREIGN} -s sh\n-a -t {_FOREIGN} -r 12.9.9.9:443 -g -w 7\n"


class Scenario:
    """The steps, in their order."""

    def __init__(self, stage: Stage, seconds: float) -> None:
        """Each step plays for so many seconds, some a little longer."""
        self.stage: Final = stage
        self.seconds: Final = seconds
        self._drain_began = 0.0
        self._drained_at = 0.0
        self._foreign = ""

    def play(self) -> None:
        """All of it.

        Raises:
            ClaimFailed: Something is not as claimed.
        """
        steps: list[tuple[str, Callable[[], None]]] = [
            (f"load {RULES.name}, and balance", self._balance),
            ("add web3 and web4", self._add),
            ("drain web1", self._drain),
            ("change weights", self._weights),
            ("a foreign service appears", self._stranger),
            ("web1 is removed when its connections have ended", self._drained),
            ("somebody deletes rows behind our back", self._repair),
        ]
        for title, step in steps:
            self.stage.begin(title, len(steps))
            step()
        self._stop()
        self.stage.end()

    # The steps

    def _balance(self) -> None:
        desired = parse_table(RULES.read_text(encoding="utf-8"), path=RULES.name)
        self.stage.change(f"load {len(desired)} services", desired)
        self.stage.client.channel.send(start=True)
        self._watch_shares(*VIPS)

    def _add(self) -> None:
        added = [Destination(BACKENDS[name], BACKEND_PORT) for name in ("web3", "web4")]
        self.stage.change("add two destinations to web", self._with("web", [*self._of("web"), *added]))
        self._watch_shares("web")

    def _drain(self) -> None:
        stage = self.stage
        stage.note(f"{_SLOW_REQUESTS} slow requests of {_SLOW_SECONDS:g} s each start on web")
        stage.client.channel.send(slow=_SLOW_REQUESTS, service="web", seconds=_SLOW_SECONDS)
        stage.play(0.5)
        web = self._service("web")
        leaving = next(destination for destination in self._of("web") if BACKEND_NAMES[destination.address] == "web1")
        stage.on_drained = self._check_drained
        self._drain_began = stage.change("web1 is no longer desired", self._with("web", set(self._of("web")) - {leaving}))
        found = stage.table.statistics(web.key)[web.key].destinations
        row, numbers = next((row, numbers) for row, numbers in found.items() if row.key == leaving.key)
        open_now = numbers.connections.active
        stage.claim(
            row.weight == 0 and open_now > 0,
            f"web1 has weight 0 and keeps its {open_now} open connections",
            f"{row!r}, {open_now} open",
        )
        self._watch_shares("web")

    def _weights(self) -> None:
        weights = {"web2": 1, "web3": 3, "web4": 6}
        heavier = [replace(one, weight=weights[BACKEND_NAMES[one.address]]) for one in self._of("web")]
        self.stage.change("web2 : web3 : web4 = 1 : 3 : 6", self._with("web", heavier))
        self._watch_shares("web")

    def _stranger(self) -> None:
        run("ipvsadm", "-R", text=_FOREIGN_RULES)
        self.stage.note(f"somebody adds service {_FOREIGN} with ipvsadm; our scope is 11.0.0.0/8")
        self._foreign = self._foreign_rows()
        self.stage.claim(self._foreign == _FOREIGN_RULES, "the foreign rows are in the kernel", repr(self._foreign))
        first, *others = self._of("shop")
        self.stage.change("shop1 : shop2 = 3 : 1", self._with("shop", [replace(first, weight=3), *others]))
        self._watch_shares("shop")
        self._check_foreign()

    def _drained(self) -> None:
        self.stage.play(DRAIN.timeout_seconds, until=lambda: self._drained_at > 0)
        self.stage.claim(self._drained_at > 0, "web1 is removed within the drain timeout")
        late = [one for one in self.stage.record.since(self._drain_began) if one.backend == "web1"]
        self.stage.claim(not late, "web1 got no request after it began to drain", f"it got {len(late)}")

    def _repair(self) -> None:
        stage, before = self.stage, self.stage.table.export()
        deleted = {"web": "web3", "api": "api2"}
        for service, backend in deleted.items():
            run("ipvsadm", "-d", "-t", f"{VIPS[service]}:{VIP_PORT}", "-r", f"{BACKENDS[backend]}:{BACKEND_PORT}")
        stage.note(f"somebody deletes {' and '.join(deleted.values())} with ipvsadm -d")
        missing = sorted(set(before.splitlines()) - set(stage.table.export().splitlines()))
        stage.claim(len(missing) == len(deleted), f"{len(deleted)} rows are gone", repr(missing))
        stage.play(_DELETED_SECONDS)
        stage.change("what was desired all along")
        after = stage.table.export()
        stage.claim(after == before, "the table is as before, byte for byte as ipvsadm -Sn prints it", f"it is\n{after}")
        self._watch_shares(*VIPS)
        self._check_foreign()

    def _stop(self) -> None:
        """Every request that was sent has ended, and the backends counted as many as the client."""
        stage = self.stage
        stage.client.channel.send(stop=True)
        stage.play(15, until=lambda: stage.sent is not None)
        stage.claim(
            stage.sent == len(stage.record.requests), "every request that was sent has ended", f"{stage.sent} were sent"
        )
        stage.no_failures()
        counts, answered = stage.ask_backends(), stage.record.answered
        seen = {name: sum(number for (_, by), number in answered.items() if by == name) for name in counts}
        stage.claim(counts == seen, "the backends' own counts agree with the client's", f"{counts} is not {seen}")

    # What they check

    def _watch_shares(self, *services: str) -> None:
        """Play on, and assert that what followed went by weight."""
        began = now()
        self.stage.play(self.seconds)
        requests = self.stage.record.since(began)
        for service in services:
            seen = shares(requests, service)
            expected = expected_shares({BACKEND_NAMES[one.address]: one.weight for one in self._of(service)})
            self.stage.step.shares[service] = {name: round(part, 4) for name, part in seen.items()}
            self.stage.claim(
                worst_deviation(seen, expected) <= TOLERANCE,
                f"{service} is shared by weight, within {TOLERANCE * 100:g} points: {percentages(seen)}",
                f"by weight it were {percentages(expected)}",
            )

    def _check_drained(self) -> None:
        """Right after the removal. A connection cut short would still be in the kernel's list, which outlives the row."""
        stage = self.stage
        self._drained_at = now()
        after = f"{self._drained_at - self._drain_began:.1f} s after the drain began"
        stage.step.remarks.append(f"web1: removed {after}")
        left = [one for one in stage.table.connections() if one.destination == BACKENDS["web1"] and not one.has_ended]
        stage.claim(not left, "no connection to web1 is open when it is removed", f"{len(left)} are, such as {left[:1]}")
        slow = [one for one in stage.record.requests if one.backend == "web1" and one.seconds >= _SLOW_SECONDS]
        ended = max((one.started + one.seconds for one in slow), default=self._drained_at)
        stage.claim(
            bool(slow) and ended < self._drained_at,
            f"web1 finished its {len(slow)} slow requests first; it was removed {after}",
        )

    def _check_foreign(self) -> None:
        rows = self._foreign_rows()
        self.stage.claim(rows == self._foreign, f"the foreign service {_FOREIGN} is untouched", f"it is now {rows!r}")

    # Small helpers

    def _foreign_rows(self) -> str:
        lines = self.stage.table.export().splitlines(keepends=True)
        return "".join(line for line in lines if f" {_FOREIGN} " in line)

    def _service(self, name: str) -> Service:
        return next(service for service in self.stage.desired if SERVICE_NAMES[service.key.address] == name)

    def _of(self, name: str) -> tuple[Destination, ...]:
        return self.stage.desired[self._service(name)]

    def _with(self, name: str, destinations: Iterable[Destination]) -> Mapping[Service, tuple[Destination, ...]]:
        """The desired table, with other destinations behind one service."""
        return {**self.stage.desired, self._service(name): tuple(sorted(destinations))}
