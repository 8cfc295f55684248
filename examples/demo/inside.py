"""The half of the demo that runs where IPVS is, in namespaces of its own; each event is a line of JSON on standard output."""

from __future__ import annotations

import json
import os
import platform
import signal
import sys
from functools import partial
from typing import Any

from demo import backend, load, network
from demo.processes import Children, now
from demo.scenario import DRAIN, Scenario
from demo.stage import ClaimFailed, Stage
from pyminuteman.errors import MinutemanError
from pyminuteman.ipvs import IPVSTable, Scope
from pyminuteman.testing.processes import die_with_parent


def emit(event: str, **fields: Any) -> None:
    """Tell the outside."""
    line = json.dumps({"event": event, **fields}) + "\n"
    sys.stdout.write(line)
    sys.stdout.flush()


def _terminate(number: int, _: object) -> None:
    sys.exit(128 + number)


def play(seconds_per_step: float, rate: float) -> int:
    """Set up, play, clear up; returns the exit code."""
    die_with_parent(os.getppid())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _terminate)
    emit("hello")
    began = now()
    stage = None
    reason = ""
    with Children() as children:
        try:
            network.leave_host()
            client = children.fork("client", partial(load.generate, rate=rate))
            backends = {name: children.fork(name, partial(backend.serve, name)) for name in network.BACKENDS}
            tool = network.build(client, backends)
            with IPVSTable(scope=Scope.networks(network.VIP_NETWORK), drain=DRAIN) as table:
                emit(
                    "ready",
                    seconds=round(now() - began, 2),
                    kernel=platform.release(),
                    backends=len(backends),
                    rate=rate,
                    masquerade=tool,
                )
                stage = Stage(table, client, backends, emit)
                Scenario(stage, seconds_per_step).play()
        except ClaimFailed as error:
            reason = str(error)
        except (MinutemanError, OSError, RuntimeError, EOFError) as error:
            reason = f"{type(error).__name__}: {error}"
    if stage:
        emit("summary", ok=not reason, reason=reason, **stage.summary())
    else:
        emit("broken", reason=reason)
    return 1 if reason else 0
