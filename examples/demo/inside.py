"""The half of the demo that runs where IPVS is, in namespaces of its own; each event is a line of JSON on standard output."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from demo import load
from demo.processes import Channel, Children, now
from demo.relay import Relay
from demo.scenario import Scenario
from demo.stage import CLIENT, NAMES, SIZE, ClaimFailed, Stage
from demo.tasks import Tasks
from pyminuteman.daemon.client_errors import DaemonError
from pyminuteman.errors import MinutemanError
from pyminuteman.testing.cluster_namespaces import ClusterUnavailableError
from pyminuteman.testing.daemon_cluster import DaemonCluster, DaemonEndedError
from pyminuteman.testing.processes import die_with_parent

_UP_SECONDS: Final = 120.0


def emit(event: str, **fields: Any) -> None:
    """Tell the outside."""
    line = json.dumps({"event": event, **fields}) + "\n"
    sys.stdout.write(line)
    sys.stdout.flush()


def _terminate(number: int, _: object) -> None:
    sys.exit(128 + number)


def play(seconds_per_step: float, rate: float, channel: str, *, stay: bool) -> int:
    """Set up, play, clear up; returns the exit code.

    Args:
        seconds_per_step: As the option says.
        rate: Likewise.
        channel: To the web pages' server: a terminal's path, or the number of a descriptor.
        stay: Whether to go on until somebody ends it, once all is said.
    """
    die_with_parent(os.getppid())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _terminate)
    emit("hello")
    stage = None
    reason = ""
    with ExitStack() as stack:
        try:
            stage = _set_up(stack, rate, int(channel) if channel.isdigit() else os.open(channel, os.O_RDWR | os.O_NOCTTY))
            scenario = Scenario(stage, seconds_per_step)
            scenario.play()
        except ClaimFailed as error:
            reason = str(error)
        except (MinutemanError, ClusterUnavailableError, DaemonEndedError, OSError, EOFError) as error:
            reason = f"{type(error).__name__}: {error}"
        if stage is None or not stage.steps:
            emit("broken", reason=reason)
            return 1
        emit("summary", ok=not reason, reason=reason, **stage.summary())
        if stay and not reason:
            scenario.go_on()
    return 1 if reason else 0


def _set_up(stack: ExitStack, rate: float, descriptor: int) -> Stage:
    """Five nodes that see each other, and nothing to balance yet."""
    began = now()
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="demo-")))
    sockets = {name: directory / name / "api.sock" for name in NAMES}

    def relay(_: Channel) -> None:
        Relay(descriptor, sockets).run()

    children = stack.enter_context(Children())
    client = children.fork("client", partial(load.generate, rate=rate))
    children.fork("page", relay)
    tasks = stack.enter_context(Tasks())
    cluster = stack.enter_context(DaemonCluster(SIZE, directory))
    client.channel.send(netns=cluster.netns(CLIENT))
    cluster.start(range(SIZE))
    for node in range(SIZE):
        cluster.wait_until(partial(_is_up, cluster, node), f"{NAMES[node]} sees all", _UP_SECONDS)
    stage = stack.enter_context(Stage(cluster, client, tasks, emit))
    emit("ready", seconds=round(now() - began, 2), kernel=platform.release(), nodes=SIZE, rate=rate)
    return stage


def _is_up(cluster: DaemonCluster, node: int) -> bool:
    """Whether a node sees all others, and has heard what they say."""
    try:
        status = cluster.ask(node, "/v1/status")
    except DaemonError:  # not yet
        return False
    return bool(status["members"]["alive"] == SIZE and status["store"]["ready"])
