"""A cluster on this machine: watch nodes find each other, die and come back.

    python examples/cluster.py                    # twelve nodes; keys kill and revive them
    python examples/cluster.py --nodes 30
    python examples/cluster.py --script "kill 3, wait 2, revive 3, settle"

Every node is a process of its own (``minuteman members run``) on a port of the loopback. On a terminal the picture shows what the
others hold each node to be, its links, and what has just happened; without one, a line is printed for every change.

Keys: digits choose a node, then k kills it (as a crash would), f freezes or thaws it, l has it leave, r revives it; q quits.
Steps of a script, apart by commas: kill N, freeze N, thaw N, leave N, revive N, wait SECONDS, and settle,
which waits until all that run see all that run. It ends when they are done.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import termios
import time
import tty
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

ASK_SECONDS: Final = 1.0
DRAW_SECONDS: Final = 0.1
FORM_SECONDS: Final = 60.0
NODES_MIN, NODES_MAX = 2, 200
VERBS: Final = ("kill", "freeze", "thaw", "leave", "revive")
WORDS: Final = {"alive": "alive", "suspect": "suspect", "down": "down", "left": "gone for good"}
COLORS: Final = {"alive": "green", "suspect": "yellow", "down": "red", "left": "blue", "starting": "dim", "unknown": "dim"}


@dataclass
class Node:
    """A process and what it has told."""

    number: int
    process: subprocess.Popen[bytes] | None = None
    frozen: bool = False
    ready: bool = False
    rest: bytes = b""
    ids: set[str] = field(default_factory=set)
    statuses: dict[str, str] = field(default_factory=dict)
    links: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """As in the picture."""
        return f"n{self.number}"

    @property
    def runs(self) -> bool:
        """Whether there is a process, be it frozen."""
        return self.process is not None and self.process.poll() is None


class Cluster:
    """The processes, and what the living among them say of each other."""

    def __init__(self, size: int, port: int) -> None:
        self.port = port
        self.nodes = [Node(number) for number in range(size)]
        self.names: dict[str, str] = {}
        self.news: deque[str] = deque(maxlen=200)
        self.poll = select.poll()
        self.outputs: dict[int, Node] = {}
        self.asked_at = 0.0
        self.agreed: dict[str, str] = {}

    def start(self, node: Node) -> None:
        """Have it run."""
        if node.runs:
            return
        # Any node may be asked to let us in; two are enough unless both are dead.
        contacts = [other.number for other in self.nodes if other is not node and other.runs][:3] or [0]
        command = [sys.executable, "-m", "pyminuteman", "members", "run", "-o", "json", "--profile", "local"]
        command += ["--name", node.name, "--bind", f"127.0.0.1:{self.port + node.number}"]
        for contact in contacts:
            command += ["--contact", f"127.0.0.1:{self.port + contact}"]
        node.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, start_new_session=True)
        assert node.process.stdout is not None
        node.frozen, node.ready, node.rest, node.statuses, node.links = False, False, b"", {}, []
        descriptor = node.process.stdout.fileno()
        os.set_blocking(descriptor, False)
        self.outputs[descriptor] = node
        self.poll.register(descriptor, select.POLLIN)

    def signal(self, node: Node, number: int) -> None:
        """Send its process a signal, if there is one."""
        if node.runs:
            assert node.process is not None
            node.process.send_signal(number)
            node.frozen = number == signal.SIGSTOP

    def act(self, verb: str, number: int) -> str:
        """Do something to a node; what was done, in words."""
        node = self.nodes[number]
        match verb:
            case "kill":
                self.signal(node, signal.SIGKILL)
            case "freeze":
                self.signal(node, signal.SIGSTOP)
            case "thaw":
                self.signal(node, signal.SIGCONT)
            case "leave":
                self.signal(node, signal.SIGTERM)
            case "revive":
                self.start(node)
        return f"{verb} {node.name}"

    def listen(self, seconds: float) -> list[str]:
        """Take what nodes print, for so long at most; news, in words."""
        news: list[str] = []
        for descriptor, _ in self.poll.poll(seconds * 1000):
            if descriptor not in self.outputs:
                continue
            node = self.outputs[descriptor]
            data = os.read(descriptor, 1 << 16)
            if not data:
                self.poll.unregister(descriptor)
                del self.outputs[descriptor]
                assert node.process is not None
                assert node.process.stdout is not None
                node.process.stdout.close()
                node.process.wait()
                continue
            *lines, node.rest = (node.rest + data).split(b"\n")
            for line in lines:
                news += self.take(node, json.loads(line))
        now = time.perf_counter()
        if now - self.asked_at > ASK_SECONDS:
            self.asked_at = now
            for node in self.nodes:
                if node.ready and not node.frozen:  # before it is, the signal would end it
                    self.signal(node, signal.SIGUSR1)
        return news

    def take(self, node: Node, event: dict[str, object]) -> Iterator[str]:
        """Note what a node has printed; news, in words."""
        if event["event"] == "state":
            members = event["members"]
            assert isinstance(members, dict)
            node.statuses = {about: member["status"] for about, member in members.items()}
            self.names |= {about: member["name"] for about, member in members.items()}
            node.links = list(event["active_view"])  # type: ignore[call-overload]
            return
        about, name, kind = str(event["node"]), str(event["name"]), str(event["event"])
        self.names[about] = name
        if name == node.name:
            node.ids, node.ready = {about}, True
            yield f"{name} runs"
        elif kind in {"up", "suspect", "down", "left"}:
            status = node.statuses[about] = "alive" if kind == "up" else kind
            subject = self.nodes[int(name[1:])]
            before = self.agreed.get(name)
            opinion = self.opinion(subject)
            if status == "suspect" and before != status and opinion[status] == 1:
                yield f"{name} is suspect: {node.name} is the first to say so"
            if set(opinion) == {status} and before != status:
                self.agreed[name] = status
                yield f"{name} is {WORDS[status]}: all {opinion[status]} others say so"

    def opinion(self, about: Node) -> Counter[str]:
        """What the others that run hold a node to be."""
        found: Counter[str] = Counter()
        for other in self.nodes:
            if other is not about and other.runs and not other.frozen:
                known = [other.statuses[id_] for id_ in about.ids if id_ in other.statuses]
                found[known[0] if known else "unknown"] += 1
        return found

    def complete(self) -> bool:
        """Whether all that run hold all that run to be alive."""
        running = [node for node in self.nodes if node.runs and not node.frozen]
        return all(node.ready and set(self.opinion(node)) <= {"alive"} for node in running)

    def close(self) -> None:
        """End all processes."""
        for node in self.nodes:
            if node.frozen:
                self.signal(node, signal.SIGCONT)
            self.signal(node, signal.SIGTERM)
        deadline = time.perf_counter() + 5
        for node in self.nodes:
            if node.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    node.process.wait(max(0.1, deadline - time.perf_counter()))
                if node.process.poll() is None:
                    node.process.kill()
                    node.process.wait()
                if node.process.stdout is not None:
                    node.process.stdout.close()


class Lines:
    """For no terminal: a line for all that happens."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Tell what has happened."""
        print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)

    def draw(self, cluster: Cluster, chosen: str) -> None:
        """Nothing to draw on."""

    def key(self) -> str:
        """The key that was pressed, if any."""
        return ""


class Screen:
    """For a terminal: the nodes in a table, the news below."""

    def __init__(self) -> None:
        self.console = Console()
        self.live = Live(console=self.console, auto_refresh=False, screen=True)
        self.news: deque[str] = deque(maxlen=100)
        self.drawn = 0.0

    def __enter__(self) -> Self:
        self.before = termios.tcgetattr(sys.stdin)
        tty.setcbreak(sys.stdin)
        self.live.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self.live.__exit__(None, None, None)
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, self.before)

    def say(self, text: str) -> None:
        """Tell what has happened."""
        self.news.append(f"{time.strftime('%H:%M:%S')}  {text}")

    def key(self) -> str:
        """The key that was pressed, if any."""
        return os.read(0, 1).decode(errors="replace") if select.select([0], [], [], 0)[0] else ""

    def draw(self, cluster: Cluster, chosen: str) -> None:
        """Draw, if it is time."""
        if time.perf_counter() - self.drawn < DRAW_SECONDS:
            return
        self.drawn = time.perf_counter()
        table = Table("node", "process", "the others say", "links", box=None, padding=(0, 2))
        for node in cluster.nodes:
            process = "frozen" if node.frozen else "runs" if node.runs else "is gone"
            opinion = Text("  ").join(
                Text(f"{count} {status}", style=COLORS[status]) for status, count in sorted(cluster.opinion(node).items())
            )
            links = " ".join(sorted((cluster.names.get(link, "?") for link in node.links), key=lambda name: (len(name), name)))
            style = "reverse" if node.number == (int(chosen) if chosen else -1) else ""
            table.add_row(Text(node.name, style=style), process, opinion, links if node.runs else "")
        room = max(3, self.console.size.height - len(cluster.nodes) - 5)
        keys = Text(f"node {chosen or '-'}   k kill  f freeze or thaw  l leave  r revive  q quit", style="bold")
        self.live.update(Group(table, keys, Text("\n".join(list(self.news)[-room:]))), refresh=True)


@dataclass
class Step:
    """One of a script's."""

    verb: str
    number: float


def parse_script(text: str, size: int) -> list[Step]:
    """Read steps.

    Raises:
        ValueError: One that is none; the text says what is accepted.
    """
    steps = []
    for words in filter(None, (part.split() for part in text.split(","))):
        match words:
            case ["settle"]:
                steps.append(Step("settle", 0))
            case ["wait", number] if number.replace(".", "", 1).isdecimal():
                steps.append(Step("wait", float(number)))
            case [verb, number] if verb in VERBS and number.isdecimal() and int(number) < size:
                steps.append(Step(verb, int(number)))
            case _:
                accepted = f"{', '.join(VERBS)} with a node from 0 to {size - 1}; wait with seconds; settle"
                raise ValueError(f"{' '.join(words)!r} is no step: {accepted}")
    return steps


def obey_keys(cluster: Cluster, screen: Screen | Lines, chosen: str) -> str | None:
    """Act on a key; the node chosen now, or None for the end."""
    key = screen.key()
    if key == "q":
        return None
    if key.isdigit():
        chosen = chosen + key if chosen and int(chosen + key) < len(cluster.nodes) else key
        return chosen if int(chosen) < len(cluster.nodes) else ""
    if chosen and key in "kflr" and key:
        node = cluster.nodes[int(chosen)]
        verbs = {"k": "kill", "f": "thaw" if node.frozen else "freeze", "l": "leave", "r": "revive"}
        screen.say(cluster.act(verbs[key], int(chosen)))
    return chosen


def run(cluster: Cluster, screen: Screen | Lines, script: list[Step] | None) -> int:
    """Until the script is done, or somebody presses q; the exit code."""
    chosen: str | None = ""
    steps = iter([Step("settle", 0), *(script or ())])
    step = next(steps, None)
    began = time.perf_counter()
    while chosen is not None:
        for news in cluster.listen(0.05):
            screen.say(news)
        screen.draw(cluster, chosen)
        chosen = obey_keys(cluster, screen, chosen)
        passed = time.perf_counter() - began
        if step is None:
            if script is None:
                continue
            return 0
        if step.verb == "wait" and passed < step.number:
            continue
        if step.verb == "settle":
            if not cluster.complete() and passed < FORM_SECONDS:
                continue
            running = sum(node.runs and not node.frozen for node in cluster.nodes)
            screen.say(f"{'all' if cluster.complete() else 'not all'} {running} see all, after {passed:.1f} s")
            if script is not None and not cluster.complete():
                return 1
        elif step.verb != "wait":
            screen.say(cluster.act(step.verb, int(step.number)))
        step, began = next(steps, None), time.perf_counter()
    return 0


def main() -> int:
    """Read options and run; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nodes", type=int, default=12, metavar="N", help="how many, 2 to 200")
    parser.add_argument("--port", type=int, default=21420, help="of the first node; the others follow")
    parser.add_argument("--script", metavar="STEPS", help="do this, then end")
    options = parser.parse_args()
    if not NODES_MIN <= options.nodes <= NODES_MAX:
        parser.error(f"--nodes {options.nodes} is not from {NODES_MIN} to {NODES_MAX}")
    if not 1 <= options.port <= 65535 - options.nodes:
        parser.error(f"--port {options.port} leaves no room for {options.nodes} ports")
    try:
        script = None if options.script is None else parse_script(options.script, options.nodes)
    except ValueError as error:
        parser.error(str(error))
    watched = sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "") != "dumb"
    if script is None and not watched:
        parser.error("without a terminal there is nobody to press keys: give --script")
    cluster = Cluster(options.nodes, options.port)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with Screen() if watched else Lines() as screen:
            for node in cluster.nodes:
                cluster.start(node)
            return run(cluster, screen, script)
    except KeyboardInterrupt:
        return 130
    finally:
        cluster.close()


if __name__ == "__main__":
    sys.exit(main())
