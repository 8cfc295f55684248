"""Others change the table behind our back, or we die in the middle: in the end it is as desired all the same."""

# ruff: noqa: S311 - dice that a seed replays
from __future__ import annotations

import os
import random
import signal
import threading
import time

import pytest

from pyminuteman.ipvs import Destination, IPVSTable, NetlinkBackend, NotConverged, Plan, Scope, Service, Snapshot
from pyminuteman.ipvs.plan import select
from pyminuteman.testing.network_namespace import fresh_network_namespace
from tests.support.kernel import ipvsadm, meddle

pytestmark = pytest.mark.kernel

OURS = Scope.networks("11.0.0.0/8")
FOREIGN = "-A -t 12.0.0.1:80 -s rr\n-a -t 12.0.0.1:80 -r 10.9.9.9:80 -m -w 1\n-A -f 7 -s lc\n"


def desired_by(dice: random.Random) -> dict[Service, tuple[Destination, ...]]:
    """A few of a few services, each with a few of a few destinations."""
    return {
        Service.tcp(f"11.0.0.{n}", 80, scheduler=dice.choice(["rr", "wlc", "sh"])): tuple(
            Destination(f"10.0.0.{m}", 8080, dice.randrange(4)) for m in range(1, 8) if dice.random() < 0.6
        )
        for n in range(1, 6)
        if dice.random() < 0.7
    }


def mischief(dice: random.Random, count: int) -> str:
    """Lines for ipvsadm -R: half of them cannot be carried out, and are complained about."""
    lines = []
    for _ in range(count):
        service = f"-t 11.0.0.{dice.randrange(1, 6)}:80"
        row = f"{service} -r 10.0.0.{dice.randrange(1, 8)}:8080"
        lines.append(
            dice.choice(
                [
                    f"-A {service} -s lc",
                    f"-E {service} -s mh -b mh-port",
                    f"-D {service}",
                    f"-a {row} -m -w 9",
                    f"-e {row} -m -w {dice.randrange(9)}",
                    f"-d {row}",
                ]
            )
        )
    return "\n".join(lines) + "\n"


def in_scope(table: IPVSTable) -> Snapshot:
    snapshot = table.snapshot()
    return snapshot.restricted([service.key.packed for service in snapshot if service.key in OURS])


@pytest.mark.parametrize("seed", range(4))
def test_between_two_calls_others_may_do_what_they_like(seed: int) -> None:
    dice = random.Random(seed)
    ipvsadm("-R", stdin=FOREIGN)
    with IPVSTable(scope=OURS) as table:
        for _ in range(12):
            meddle(mischief(dice, 12))
            desired = desired_by(dice)
            assert not table.converge(desired).errors, seed
            assert in_scope(table) == Snapshot.of(desired), seed
            assert not table.plan(desired), seed
        table.flush()
        assert ipvsadm("-Sn") == FOREIGN


@pytest.mark.parametrize("seed", range(2))
def test_while_we_converge_others_may_do_what_they_like(seed: int) -> None:
    """As long as they stop some time: the first call after that makes it right."""
    dice = random.Random(seed)
    over = threading.Event()
    ipvsadm("-R", stdin=FOREIGN)

    def opponent(theirs: random.Random) -> None:
        while not over.is_set():
            meddle(mischief(theirs, 40))

    thread = threading.Thread(target=opponent, args=(random.Random(seed + 1000),))
    thread.start()
    beaten = calls = 0
    try:
        with IPVSTable(scope=OURS) as table:
            end = time.perf_counter() + 2.5
            while time.perf_counter() < end:
                calls += 1
                try:
                    table.converge(desired_by(dice))
                except NotConverged:  # an ApplyError, which says that trying again is no use, would be wrong
                    beaten += 1
    finally:
        over.set()
        thread.join()
    assert beaten < calls, seed
    with IPVSTable(scope=OURS) as table:
        desired = desired_by(dice)
        table.converge(desired)
        assert in_scope(table) == Snapshot.of(desired), seed
        table.flush()
    assert ipvsadm("-Sn") == FOREIGN


def large(generation: int) -> dict[Service, tuple[Destination, ...]]:
    return {
        Service.tcp(f"11.0.{n}.1", 80, scheduler="rr"): tuple(
            Destination(f"10.0.{n}.{m}", 80, generation + 1) for m in range(1, 41) if (m + generation) % 3
        )
        for n in range(1, 101)
        if (n + generation) % 5
    }


def test_killed_in_the_middle_the_next_call_finishes() -> None:
    """After a share of the plan that the seed says; the kernel finishes a datagram that it got, so no finer cut is possible."""
    for seed in range(10):
        dice = random.Random(seed)
        fresh_network_namespace()
        with IPVSTable(scope=OURS) as table:
            table.converge(large(seed))
            child = os.fork()
            if child == 0:
                die_half_way(large(seed + 1), dice)
            _, status = os.waitpid(child, 0)
            assert os.WTERMSIG(status) == signal.SIGKILL, seed
            assert table.snapshot() not in (Snapshot.of(large(seed)), Snapshot.of(large(seed + 1))), seed
            assert not table.converge(large(seed + 1)).errors, seed
            assert table.snapshot() == Snapshot.of(large(seed + 1)), seed


def die_half_way(desired: dict[Service, tuple[Destination, ...]], dice: random.Random) -> None:
    """Converge, and be killed with part of the plan carried out."""
    try:
        backend = NetlinkBackend()
        whole = backend.execute

        def part(plan: Plan, *, stop_on_error: bool = False) -> dict[int, tuple[int, str]]:
            whole(select(plan, range(dice.randrange(1, len(plan)))), stop_on_error=stop_on_error)
            os.kill(os.getpid(), signal.SIGKILL)
            return {}

        backend.execute = part  # type: ignore[method-assign]
        IPVSTable(scope=OURS, backend=backend).converge(desired)
    finally:
        os._exit(0)
