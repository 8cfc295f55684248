"""One soak: rounds of disturbances, each followed by a wait until all kernels are as they should be, with the checkers on throughout."""

from __future__ import annotations

import platform
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from pyminuteman.testing.daemon_cluster import DaemonEndedError
from tests.soak.api_watch import ApiWatch
from tests.soak.checkers import Finding
from tests.soak.checkers.api import ApiAnswers
from tests.soak.checkers.convergence import Convergence
from tests.soak.checkers.foreign import foreign_untouched
from tests.soak.checkers.leftovers import nothing_left
from tests.soak.checkers.logs import Logs
from tests.soak.checkers.memory import Memory
from tests.soak.checkers.requests import RequestsServed
from tests.soak.checkers.rest import AtRest, nothing_written
from tests.soak.checkers.state_files import StateFiles
from tests.soak.schedule import Planner, first_document
from tests.soak.stage import Stage
from tests.soak.steps import Kind, Step
from tests.soak.world import World, difference

__all__ = ["Options", "Soak"]

CONVERGENCE_SECONDS: Final = 60.0
"""An audit (12 s), a drain (2 s) and detection take twenty, as much as a retry after a full disk; the rest is for a busy machine."""
DETECTION_SECONDS: Final = 5.0
API_SECONDS: Final = 10.0
REST_SECONDS: Final = 14.0
"""An audit of every daemon is within it."""
QUIET_SECONDS: Final = 3.0
"""A daemon that has changed its kernel sees to the host, and says so: for so long nobody has to have said so before a rest begins."""
REST_EVERY_ROUNDS: Final = 8
START_SECONDS: Final = 300.0
REQUESTS_PER_SECOND: Final = 10.0
_LOOK_SECONDS: Final = 0.25
_MEMORY_SECONDS: Final = 10.0
_LATE_SECONDS: Final = 8.0
_COMPARISONS: Final = 5
_FULL_DISK_SECONDS: Final = 60.0
"""For so long after there is room again a daemon may still speak of a full disk: it tries again with back-off."""
_OF_THE_KERNEL: Final = frozenset({"bpfilter_umh"})
"""Programs that the kernel starts by itself: that of iptables' filter, at its first use."""
_MOST_FINDINGS: Final = 20
_LOG_TAIL_CHARACTERS: Final = 6000

_now = time.perf_counter


@dataclass(frozen=True, slots=True)
class Options:
    """What is wanted: minutes of churn, nodes, the seed of the schedule, and by how much deadlines are longer on a busy machine."""

    minutes: float
    nodes: int
    seed: int
    patience: float


class Soak:
    """Args: options: What is wanted. say: Called with each line of progress. stop: When set, it ends in an orderly way."""

    def __init__(self, options: Options, say: Callable[[str], object], stop: threading.Event) -> None:
        self.options, self.say, self.stop = options, say, stop
        self.findings: list[Finding] = []
        self.steps: Counter[Kind] = Counter()
        self.rounds = 0
        self.convergence = Convergence(CONVERGENCE_SECONDS * options.patience)
        self.requests = RequestsServed(DETECTION_SECONDS * options.patience)
        self.failed = 0
        self.logs, self.memory, self.files, self.api = (
            Logs(),
            Memory(),
            StateFiles(),
            ApiAnswers(API_SECONDS * options.patience),
        )
        self.rests = 0
        self.answers: Counter[str] = Counter()
        self.worst_request_seconds = 0.0
        self.tails: dict[int, str] = {}
        self.churn_seconds = 0.0
        self._began = _now()
        self._world = World(options.nodes)
        self._touched = [0] * options.nodes
        self._full_until = [0.0] * options.nodes
        self._read = [0] * options.nodes
        self._disturbed_at = 0.0
        self._memory_at = 0.0
        self._said_late_at = 0.0
        self._rested_in_round = 0

    def run(self) -> None:
        """All of it; what is wrong is in `findings` afterwards."""
        before = _what_is_there()
        try:
            with ExitStack() as stack:
                directory = Path(stack.enter_context(TemporaryDirectory(prefix="minuteman-soak-")))
                self._stage = stack.enter_context(closing(Stage(self.options.nodes, directory)))
                self._kernels = self._stage.kernels
                try:
                    self._churn()
                except DaemonEndedError as error:
                    self._find([Finding("endings", None, str(error))])
                except (TimeoutError, RuntimeError, OSError) as error:
                    self._find([Finding("soak", None, f"{type(error).__name__}: {error}")])
                finally:
                    self._keep_tails()
        except Exception as error:  # noqa: BLE001 - the summary is to be seen in any case
            self._find([Finding("soak", None, f"{type(error).__name__}: {error}")])
        self._find(nothing_left(before, _what_is_there()))
        self._find(self.memory.findings())

    # Rounds

    def _churn(self) -> None:
        self._start()
        planner = Planner(self.options.seed, self.options.nodes)
        began = _now()
        end = began + 60 * self.options.minutes
        with ExitStack() as stack:
            stack.callback(self._note, began)
            self._client = stack.enter_context(closing(self._stage.client(REQUESTS_PER_SECOND)))
            self._watch = stack.enter_context(closing(ApiWatch(self._stage.cluster, self.api, self._life_of)))
            rounds = planner.rounds()
            while self._may_go_on() and _now() < end:
                self._round(next(rounds))
            if self._may_go_on():
                self.say(f"{self._clock()}  all that is still to be taken back")
                self._round(planner.last())
                self._rest()
            self._client.close()
            self._look()

    def _note(self, began: float) -> None:
        """However it ended."""
        self.churn_seconds = _now() - began
        self.answers, self.worst_request_seconds = self._client.answers, self._client.worst_seconds

    def _start(self) -> None:
        nodes = range(self.options.nodes)
        for node in nodes:
            self._world.nodes[node].document = first_document(node)
        self._world.apply(Step(0, Kind.JOIN, tuple(nodes)), _now())
        self._stage.cluster.start(nodes)
        self._stage.cluster.wait_until(
            lambda: not any(self._differences().values()), "all nodes have all backends", START_SECONDS * self.options.patience
        )
        self.say(f"{self._clock()}  {len(nodes)} daemons, and every kernel has every backend")

    def _round(self, steps: list[Step]) -> None:
        self.rounds += 1
        began = self._disturbed_at = _now()
        for step in steps:
            while (left := began + step.at - _now()) > 0 and self._may_go_on():
                time.sleep(min(left, _LOOK_SECONDS))
                self._look()
            if not self._may_go_on():
                return
            self._do(step)
        self._settle()
        if self.rounds >= self._rested_in_round + REST_EVERY_ROUNDS and not self._world.is_open(_now()):
            self._rest()

    def _do(self, step: Step) -> None:
        self.say(f"{self._clock()}  {step}")
        self.steps[step.kind] += 1
        for node in step.nodes:
            self._touched[node] += 1
            if step.kind in {Kind.PANIC, Kind.CUT}:
                self.requests.out_of_reach(node, _now())
            if step.kind in {Kind.FILL_DISK, Kind.FREE_DISK}:
                self._full_until[node] = _now() + _FULL_DISK_SECONDS
        self._world.apply(step, _now())
        self._stage.do(step)
        for node in step.nodes:
            self._touched[node] += 1
        self._disturbed_at = _now()
        self._look()

    def _settle(self) -> None:
        over = False
        while not over and self._may_go_on():
            self._look()
            differences = self._differences()
            over, found = self.convergence.look(_now() - self._disturbed_at, differences)
            self._find(found)
            self._say_what_is_late(differences)
            if found:
                self.stop.set()  # nothing that follows would tell more
            if not over:
                time.sleep(_LOOK_SECONDS)
        if over and not self.stop.is_set():
            self._compare_with_ipvsadm()
            answered = sum(self._client.answers.values())
            self.say(
                f"{self._clock()}  round {self.rounds} has settled {self.convergence.times[-1]:.1f} s after its last disturbance; "
                f"{answered} requests answered, {self.failed} failed, {len(self.findings)} findings"
            )

    def _compare_with_ipvsadm(self) -> None:
        """Of one node, each round of another, that what is read here is what others read."""
        node = self._world.connected[self.rounds % len(self._world.connected)]
        found = ""
        for _ in range(_COMPARISONS):
            ours, theirs = self._kernels.read(node), self._kernels.read_by_ipvsadm(node)
            if ours == theirs:
                return
            found = f"ipvsadm reads {theirs}, and we {ours}"  # or it has changed in between: while a lease runs out, say
        self._find([Finding("convergence", node, found)])

    def _differences(self) -> dict[int, str]:
        now = _now()
        found: dict[int, str] = {}
        for node in self._world.connected:
            seen = self._kernels.read(node)
            self._find(foreign_untouched(node, self._world.nodes[node].foreign, seen))
            foreign = self._world.nodes[node].foreign
            announced, ours = self._kernels.announced(node), {vip.partition(":")[0] for vip in seen if vip not in foreign}
            text = difference(self._world.expected(now, node), seen)
            found[node] = (
                text if announced == ours else f"announced are {sorted(announced)}, and should be {sorted(ours)}; {text}"
            )
        return found

    def _say_what_is_late(self, differences: Mapping[int, str]) -> None:
        """Now and then, for who watches."""
        if _now() - max(self._disturbed_at, self._said_late_at) > _LATE_SECONDS:
            self._said_late_at = _now()
            wrong = {node: text for node, text in differences.items() if text}
            for node, text in list(wrong.items())[:1]:
                self.say(f"{self._clock()}  {len(wrong)} kernels are not as they should be; n{node}: {text:.300}")

    def _rest(self) -> None:
        """See that nothing is written while nothing changes."""
        self._wait_for_quiet()
        before = {node: self._at_rest(node) for node in self._world.connected}
        end = _now() + REST_SECONDS
        while _now() < end and self._may_go_on():
            time.sleep(_LOOK_SECONDS)
            self._look()
        for node, then in before.items():
            self._find(nothing_written(node, then, self._at_rest(node)))
        self.rests += 1
        self._rested_in_round = self.rounds

    def _wait_for_quiet(self) -> None:
        quiet, most = QUIET_SECONDS * self.options.patience, CONVERGENCE_SECONDS * self.options.patience
        began = since = _now()
        writes = self.logs.writes.total()
        while _now() - since < quiet and self._may_go_on():
            time.sleep(_LOOK_SECONDS)
            self._look()
            if self.logs.writes.total() != writes:
                since, writes = _now(), self.logs.writes.total()
            if _now() - began > most:
                self._find(
                    [Finding("rest", None, f"kernels are changed again and again, {most:g} s after all were as they should be")]
                )
                return

    def _at_rest(self, node: int) -> AtRest:
        ledger = self._stage.state_directory(node) / "ledger.json"
        return AtRest(self._kernels.read(node), self.logs.writes[node], ledger.stat().st_mtime_ns if ledger.exists() else 0)

    # All the time

    def _may_go_on(self) -> bool:
        return not self.stop.is_set() and len(self.findings) < _MOST_FINDINGS

    def _find(self, found: list[Finding]) -> None:
        for finding in found:
            self.findings.append(finding)
            self.say(f"{self._clock()}  FOUND  {finding}")

    def _look(self) -> None:
        """What is looked at all the time, and costs little."""
        running = self._stage.cluster.running
        failures = self._client.take_failures()
        self.failed += len(failures)
        self._find([finding for failure in failures for finding in self.requests.judge(failure)])
        self._find(self._watch.take_findings())
        now = _now()
        for node in range(self.options.nodes):
            done = frozenset({"full disk"} if now < self._full_until[node] else ())
            self._find(self.logs.read(node, self._log_since(node), done))
        if now - self._memory_at > _MEMORY_SECONDS:
            self._memory_at = now
            for node in sorted(running):
                pid = self._stage.cluster.pid(node)
                with suppress(FileNotFoundError, ProcessLookupError, StopIteration):  # it has just ended
                    self.memory.add(node, pid, now, *_memory_of(pid))
                self._find(self.files.look(node, self._stage.state_sizes(node)))

    def _log_since(self, node: int) -> str:
        path = self._stage.cluster.directory(node) / "log"
        if not path.exists() or path.stat().st_size == self._read[node]:
            return ""
        with path.open("rb") as file:
            file.seek(self._read[node])
            data = file.read()
        self._read[node] += len(data)
        return data.decode(errors="replace")

    def _life_of(self, node: int) -> int | None:
        return self._touched[node] if self._world.nodes[node].is_undisturbed else None

    def _keep_tails(self) -> None:
        for node in {finding.node for finding in self.findings} - {None}:
            assert node is not None
            self.tails[node] = self._stage.cluster.log(node)[-_LOG_TAIL_CHARACTERS:]

    def _clock(self) -> str:
        return f"{_now() - self._began:7.1f} s"

    def summary(self) -> dict[str, Any]:
        """All that is known in the end, as plain data."""
        return {
            "seed": self.options.seed,
            "minutes": self.options.minutes,
            "nodes": self.options.nodes,
            "kernel": platform.release(),
            "churn_seconds": round(self.churn_seconds, 1),
            "rounds": self.rounds,
            "disturbances": {str(kind): count for kind, count in self.steps.most_common()},
            "requests": {
                "answered": dict(sorted(self.answers.items())),
                "failed": self.failed,
                "failed_while_a_node_was_being_found_out": self.requests.excused,
                "worst_seconds": round(self.worst_request_seconds, 3),
            },
            "convergence": {
                "times": [round(one, 2) for one in self.convergence.times],
                "worst_seconds": round(self.convergence.worst_seconds, 2),
                "allowed_seconds": self.convergence.deadline_seconds,
            },
            "rests": self.rests,
            "api": {"asked": self.api.asked, "worst_seconds": round(self.api.worst_seconds, 3)},
            "events": dict(self.logs.events.most_common()),
            "warnings": dict(self.logs.warnings.most_common()),
            "failures_with_a_cause": dict(self.logs.allowed),
            "state_files": dict(sorted(self.files.largest.items())),
            "memory": [
                {
                    "node": life.node,
                    "minutes": round(life.lasted_seconds / 60, 1),
                    "first_kib": life.anonymous_kib[0],
                    "last_kib": life.anonymous_kib[-1],
                    "kib_per_minute": None if life.slope_kib_per_minute is None else round(life.slope_kib_per_minute, 1),
                    "descriptors": life.descriptors[-1],
                    "samples_kib": life.anonymous_kib[::6],
                }
                for life in self.memory.longest
            ],
            "findings": [{"checker": one.checker, "node": one.node, "text": one.text} for one in self.findings],
            "logs": {f"n{node}": tail for node, tail in sorted(self.tails.items())},
        }


def _memory_of(pid: int) -> tuple[int, int]:
    """KiB of a process's memory that is of no file, and how many descriptors it has.

    What it still shares with the process that it was forked from is counted too: that becomes its own page by page, and is no growth.
    """
    kib = next(
        int(line.split()[1]) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("RssAnon:")
    )
    return kib, sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def _what_is_there() -> dict[str, set[str]]:
    """Processes (kernel threads aside), namespaces and mounts."""
    processes = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if words and words not in _OF_THE_KERNEL:
            processes.add(f"{path.name} {words[:120]}")
    netns = Path("/run/netns")
    return {
        "processes": processes,
        "namespaces": {path.name for path in netns.iterdir()} if netns.exists() else set(),
        "mounts": {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()} - {"/run/netns"},
    }
