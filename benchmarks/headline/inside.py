"""One run of the experiment, on the kernel whose IPVS is measured.

``python -m benchmarks.headline.inside EXPERIMENT`` (JSON) prints a line of JSON at its end, and says on standard error what it is doing.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.headline import costs
from benchmarks.headline.costs import Processor
from benchmarks.headline.experiment import FIRST_TASK_PORT, PORT, VIP, Experiment
from benchmarks.headline.kernels import Casualties, Condition, KernelTable, Tail, count_of, watch
from benchmarks.headline.logs import Line, carried_out, what_was_told
from pyminuteman.testing.daemon_cluster import DaemonCluster

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 5
"""In which tasks come."""
START_SECONDS = 300.0
SETTLE_SECONDS = 15.0
"""After the last kernel has all: what comes once, when a cluster begins, is over."""
CALM_SECONDS = 10.0
"""After the changes: daemons allow for round trips as they were in the last six seconds."""
WATCH_SECONDS = 15.0
CHANGE_SECONDS = 10.0
AFTERMATH_SECONDS = 3.0
"""What the repair costs is measured for so long."""
ELSEWHERE_NICE = -10
"""Clients and backends stand for machines with processors of their own: they go before all that has no real-time priority."""
CONNECTIONS_TRACKED = Path("/proc/sys/net/netfilter/nf_conntrack_max")
EXTRA_PORT = 9000


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Bench:
    """The cluster, its backends, and who watches them."""

    def __init__(self, experiment: Experiment, directory: Path, stack: ExitStack) -> None:
        self.experiment = experiment
        self.realtime = experiment.has_realtime(os.cpu_count() or 1)
        self.settings = {"node.realtime": str(self.realtime).lower()}
        self.cluster = stack.enter_context(DaemonCluster(experiment.nodes + 1, directory, settings=self.settings))
        self.everybody = range(experiment.nodes + 1)
        self._stack = stack
        self.tables = {node: KernelTable(self.cluster.netns(node)) for node in self.everybody}
        for table in self.tables.values():
            stack.callback(table.close)
        self.answerers = self._program("pyminuteman.testing.answerers", None)
        for node in range(experiment.nodes):
            at = [[self.cluster.address(node), port] for port in self.ports()]
            self.tell(self.answerers, json.dumps({"listen": f"n{node}", "netns": self.cluster.netns(node), "at": at}))
        self.alone: subprocess.Popen[Any] | None = None

    # Who is there

    def ports(self) -> range:
        """Of a node's tasks."""
        return range(FIRST_TASK_PORT, FIRST_TASK_PORT + self.experiment.tasks_per_node)

    def document(
        self, node: int, *, tasks: int | None = None, extra_port: int | None = None, extra_vip: str | None = None
    ) -> str:
        """What a node's source says: all of its tasks, or so many; with one task more, or one VIP more."""
        address = self.cluster.address(node)

        def vip(listen: str, ports: Any) -> str:
            rows = "".join(f'[[vip.backend]]\naddress = "{address}"\nport = {port}\n' for port in ports)
            return f'[[vip]]\nlisten = "tcp://{listen}:{PORT}"\nscheduler = "{self.experiment.scheduler}"\n{rows}'

        ports = [*self.ports()[:tasks], *([] if extra_port is None else [extra_port])]
        return vip(VIP, ports) + ("" if extra_vip is None else vip(extra_vip, [FIRST_TASK_PORT]))

    def _program(self, name: str, node: int | None, *words: str) -> subprocess.Popen[str]:
        """Start a program of Python's that is told and tells lines, elsewhere as far as priority goes."""
        options: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1, "cwd": ROOT}
        command = [sys.executable, "-m", name, *words]
        process = (
            subprocess.Popen(command, **options) if node is None else self.cluster.namespaces.start(node, command, **options)
        )
        self._stack.enter_context(process)  # which waits for it
        self._stack.callback(process.kill)
        os.setpriority(os.PRIO_PROCESS, process.pid, ELSEWHERE_NICE)
        return process

    def tell(self, process: subprocess.Popen[str], line: str = "") -> str:
        """Tell a program something and wait for its answer; empty: it was told nothing.

        Raises:
            RuntimeError: It has ended.
        """
        assert process.stdin is not None
        assert process.stdout is not None
        if line:
            process.stdin.write(line + "\n")
        answer = process.stdout.readline()
        if not answer:
            raise RuntimeError(f"{process.args} ended with status {process.wait()}")
        return answer

    # The cluster

    def start(self) -> float:
        """Start every daemon and wait until every kernel has every task; how long that took.

        Tasks come in rounds, as those come that a cluster's scheduler deals out: so neighbours in a kernel's list of destinations, which is
        in the order of their coming, are on different nodes. Whoever asks the list in turn meets some of the dead at any moment.
        """
        began = time.perf_counter()
        tester = self.experiment.tester
        command = [sys.executable, "-m", "pyminuteman", "run", "--config", str(self.cluster.directory(tester) / "config.toml")]
        for name, value in self.settings.items():
            command += ["--set", f"{name}={value}"]
        log = self._stack.enter_context((self.cluster.directory(tester) / "log").open("w"))
        self.alone = self.cluster.namespaces.start(tester, command, stdout=log, stderr=log)
        each = self.experiment.tasks_per_node
        for number in range(1, ROUNDS + 1):
            tasks = each * number // ROUNDS
            for node in range(self.experiment.nodes):
                self.cluster.say(node, self.document(node, tasks=tasks))
            if number == 1:
                self.cluster.start(range(self.experiment.nodes))
            for node in self.everybody:
                self._wait_for(node, tasks * self.experiment.nodes)
        return time.perf_counter() - began

    def _wait_for(self, node: int, destinations: int) -> None:
        table = self.tables[node]
        try:
            self.cluster.wait_until(
                lambda: count_of(table.text()) == destinations, f"n{node} has {destinations} destinations", START_SECONDS
            )
        except TimeoutError as error:
            counts = {node: count_of(table.text()) for node, table in self.tables.items()}
            raise TimeoutError(f"{error}; there are {counts}; n{node} says: {self.cluster.log(node)[-2000:]}") from None

    def pids(self) -> dict[int, int]:
        """Of the daemons that run, by node."""
        found = {node: self.cluster.pid(node) for node in sorted(self.cluster.running)}
        if self.alone is not None and self.alone.poll() is None:
            found[self.experiment.tester] = self.alone.pid
        return found

    def kill_all(self) -> None:
        """Every daemon, at once and without a last word: their kernels keep what they have."""
        for node in range(self.experiment.nodes):
            self.cluster.signal(node, signal.SIGKILL)
        for node in range(self.experiment.nodes):
            self.cluster.wait_ended(node)
        assert self.alone is not None
        self.alone.kill()
        self.alone.wait()

    # What is measured

    def rest(self) -> dict[str, Any]:
        """What all of it costs while nothing happens."""
        pids = self.pids()
        processor, began = Processor.now(), time.perf_counter()
        used = {node: -costs.processor_seconds(pid) for node, pid in pids.items()}
        time.sleep(self.experiment.rest_seconds)
        seconds = time.perf_counter() - began
        used = {node: before + costs.processor_seconds(pids[node]) for node, before in used.items()}
        busy = processor.percent_until(Processor.now())
        sizes = {node: costs.memory(pid) for node, pid in pids.items()}
        tester = self.experiment.tester
        alone = {"cpu_percent": round(100 * used.pop(tester) / seconds, 3), **sizes.pop(tester)}
        found = {"seconds": round(seconds, 2), "busy_percent": round(busy, 2), "alone": alone}
        return found | {"daemons": costs.summary(used, seconds, sizes)}

    def changes(self) -> dict[str, list[float | None]]:
        """How soon the last kernel has a task, and a VIP, that is new in a node's source: seconds from before its file was replaced.

        None where that did not come about within :data:`CHANGE_SECONDS`.
        """
        chance = random.Random(self.experiment.seed + 2)
        times: dict[str, list[float | None]] = {"task": [], "vip": []}
        for count in range(self.experiment.changes):
            for what, found in times.items():
                time.sleep(chance.uniform(0.5, 1.0))  # any phase of what daemons do regularly
                node = chance.randrange(self.experiment.nodes)
                port, vip = (EXTRA_PORT + count, None) if what == "task" else (None, f"11.0.1.{count + 1}")
                wanted = self.experiment.tasks + 1
                found.append(self._change(node, self.document(node, extra_port=port, extra_vip=vip), wanted, "add"))
                self._change(node, self.document(node), self.experiment.tasks, "remove")
        return times

    def _change(self, node: int, document: str, wanted: int, what: str) -> float | None:
        conditions = {
            one: Condition(one, lambda lines: carried_out(lines, what, 1), lambda text: count_of(text) == wanted)
            for one in self.everybody
        }
        with self._tails(self.everybody) as tails:
            began = time.time_ns() / 1e9
            self.cluster.say(node, document)
            found = watch(conditions, self.tables, tails, CHANGE_SECONDS)
        if missing := conditions.keys() - found.keys():
            say(f"a change of n{node} has not come to n{', n'.join(map(str, sorted(missing)))} within {CHANGE_SECONDS:g} s")
            return None
        return round(max(found.values()) - began, 4)

    @contextmanager
    def _tails(self, nodes: Iterable[int]) -> Iterator[dict[int, Tail]]:
        """What these daemons log from now on."""
        tails = {node: Tail(self.cluster.directory(node) / "log") for node in nodes}
        try:
            yield tails
        finally:
            for tail in tails.values():
                tail.close()

    def panic(self) -> dict[str, Any]:
        """The requests, and in their midst the panic."""
        experiment = self.experiment
        dead = experiment.dead()
        client = self._program("benchmarks.headline.client", experiment.tester, json.dumps(experiment.as_data()))
        self.tell(client)
        survivors = {node: table for node, table in self.tables.items() if node not in dead}
        lost = len(dead) * experiment.tasks_per_node
        casualties = Casualties(map(self.cluster.address, dead), experiment.tasks - lost)
        stages: dict[str, tuple[Callable[[list[Line]], float | None], Callable[[bytes], bool]]] = {
            "weightless": (lambda lines: carried_out(lines, "edit", lost), lambda text: casualties(text)[0] == 0),
            "gone": (lambda lines: carried_out(lines, "remove", lost), lambda text: casualties(text)[1] == 0),
        }
        conditions = {(stage, node): Condition(node, *stages[stage]) for stage in stages for node in survivors}
        assert client.stdin is not None
        client.stdin.write("begin\n")
        begin = self._moment()
        time.sleep(experiment.panic_seconds)
        before = self._moment()
        with self._tails(survivors if experiment.form == "daemons" else ()) as tails:
            panic_ns = self.cluster.panic(dead)
            took = (time.time_ns() - panic_ns) / 1e9
            own = time.thread_time()
            seen = watch(conditions, survivors, tails, WATCH_SECONDS) if tails else {}
            own = time.thread_time() - own
            wrongly_out = max(casualties(table.text())[2] for table in survivors.values())
            time.sleep(max(0.0, AFTERMATH_SECONDS - (time.time_ns() - panic_ns) / 1e9))
            aftermath = self._moment()
            said = json.loads(self.tell(client))
            for tail in tails.values():
                tail.read()
            told = what_was_told(
                {node: tail.lines for node, tail in tails.items()}, {f"n{node}" for node in dead}, panic_ns / 1e9
            )
        for table in survivors.values():
            wrongly_out = max(wrongly_out, casualties(table.text())[2])
        return {
            "dead": dead,
            "survivors": len(survivors),
            **told,
            "panic_seconds": round((panic_ns - said["began_ns"]) / 1e9, 5),
            "panic_took_seconds": round(took, 4),
            "requests": said["requests"],
            "weightless_seconds": {
                str(node): round(at - panic_ns / 1e9, 4) for (stage, node), at in seen.items() if stage == "weightless"
            },
            "gone_seconds": {str(node): round(at - panic_ns / 1e9, 4) for (stage, node), at in seen.items() if stage == "gone"},
            "wrongly_out": wrongly_out,
            "load": between(begin, before, 0.0),
            "aftermath": between(before, aftermath, own),
        }

    def _moment(self) -> tuple[float, Processor, dict[int, float]]:
        used = {}
        for node, pid in self.pids().items():
            used[node] = costs.processor_seconds(pid)
        return time.perf_counter(), Processor.now(), used


def between(
    before: tuple[float, Processor, dict[int, float]], after: tuple[float, Processor, dict[int, float]], own: float
) -> Any:
    """How busy the kernel was, but for `own` seconds of whoever watches, and what each daemon used, as percents of a core."""
    seconds = after[0] - before[0]
    used = [100 * (after[2][node] - before[2][node]) / seconds for node in after[2].keys() & before[2].keys()]
    busy = before[1].percent_until(after[1]) - 100 * own / seconds / (os.cpu_count() or 1)
    found: dict[str, Any] = {"seconds": round(seconds, 2), "busy_percent": round(busy, 2)}
    return found | ({"daemon_cpu_percent": costs.mean_and_most(used)} if used else {})


def allow_connections(tracked: int) -> None:
    """Let this kernel track that many: each request is two, one at each end, and they are kept for minutes."""
    if CONNECTIONS_TRACKED.exists() and int(CONNECTIONS_TRACKED.read_text()) < tracked:
        CONNECTIONS_TRACKED.write_text(f"{tracked}\n")


def measure(experiment: Experiment) -> dict[str, Any]:
    """All of the run."""
    allow_connections(1 << 18)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="minuteman-bench-")))
        say(f"{experiment.nodes} nodes and the testing node: namespaces, {experiment.tasks:,} backends")
        bench = Bench(experiment, directory, stack)
        say("daemons start")
        found: dict[str, Any] = {
            "release": os.uname().release,
            "cpus": os.cpu_count(),
            "realtime": bench.realtime,
            "start_seconds": round(bench.start(), 2),
        }
        say(f"every kernel has every task, {found['start_seconds']:.1f} s")
        time.sleep(SETTLE_SECONDS)
        if experiment.form == "daemons":
            say(f"at rest for {experiment.rest_seconds:g} s")
            found["rest"] = bench.rest()
            if experiment.changes:
                say("new tasks and VIPs")
                found["changes"] = bench.changes()
                time.sleep(CALM_SECONDS)
        else:
            bench.kill_all()
        say("requests, and the panic")
        found |= bench.panic()
        return found


def main(text: str) -> None:
    print(json.dumps(measure(Experiment.of(json.loads(text))), separators=(",", ":")), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
