"""The world keeps its rules: who gets what, when, and what a pause, a death and a restart leave."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from pyminuteman.membership.codec import pack
from pyminuteman.membership.config import MembershipConfig
from pyminuteman.membership.effects import Effect, EpochTaken, MemberUp, Notification, Notify, Received, Send
from pyminuteman.membership.messages import Multicast, PacketId, Probe
from pyminuteman.testing.simulation import Faults, Process, Simulation, SimulationFailed
from pyminuteman.testing.simulation.__main__ import main, seeds_in
from pyminuteman.testing.simulation.bounds import Bounds
from pyminuteman.testing.simulation.faults import CLEAN
from pyminuteman.testing.simulation.sealed_wire import SealedWire, key_of
from pyminuteman.testing.simulation.wire import FRAME_BYTES, LATER_MESSAGE, SEALING_BYTES, ObjectWire, WireFault
from tests.simulation.toy import INTERVAL, ToyCore


class Recorder(ToyCore):
    """Notes when it was called; says nothing by itself but what it is told to."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]
        self.woken: list[float] = []
        self.heard: list[tuple[float, Received]] = []

    def wake(self, now: float) -> list[Effect]:
        self.woken.append(now)
        self.next_wake = now + 0.1
        return []

    def handle(self, event: Received, now: float) -> list[Effect]:
        self.heard.append((now, event))
        return []

    def say(self, *effects: Effect) -> list[Effect]:
        return list(effects)


def world_of(nodes: int, **arguments: object) -> Simulation:
    made = Simulation(1, nodes=nodes, core=Recorder, start_within_seconds=0.0, **arguments)  # type: ignore[arg-type]
    made.run(seconds=0.001)
    return made


def core(world: Simulation, host: int) -> Recorder:
    process = world.hosts[host].process
    assert process is not None
    assert isinstance(process.node, Recorder)
    return process.node


def say(world: Simulation, host: int, *effects: Effect) -> None:
    assert world.ask(world.hosts[host], lambda _core, _now: list(effects))


def to(world: Simulation, host: int, size: int = 1) -> Send:
    message = Multicast(PacketId(core(world, 0).me.id, 1, 1), "topic", 1, b"." * size) if size > 1 else Probe(1)
    return Send(world.hosts[host].endpoint, (message,))


def test_timers_fire_in_the_time_of_their_host_and_a_little_late() -> None:
    world = world_of(2, faults=Faults(clock_drift=0.01))
    world.run(seconds=10.0)
    for host in world.hosts:
        woken = core(world, host.index).woken
        gaps = [later - earlier for earlier, later in pairwise(woken)]
        assert all(0.1 <= gap <= 0.1 + 1.01 * CLEAN.wake_late_max_seconds + 1e-9 for gap in gaps)
        assert woken[0] == pytest.approx(host.clock.local(0.0), abs=0.01)


def test_a_paused_process_gets_what_the_buffer_holds_when_it_thaws() -> None:
    world = world_of(2, faults=Faults(receive_buffer_datagrams=3))
    world.pause(world.hosts[1], 5.0)
    world.pause(world.hosts[1], 9.0)  # it is already
    for _ in range(5):
        say(world, 0, to(world, 1))
    woken = len(core(world, 1).woken)
    world.run(seconds=4.9)
    assert core(world, 1).heard == []
    assert len(core(world, 1).woken) == woken
    assert not world.ask(world.hosts[1], lambda _core, _now: [])
    world.run(seconds=0.2)
    assert len(core(world, 1).heard) == 3
    assert {time for time, _ in core(world, 1).heard} == {core(world, 1).heard[0][0]}
    assert len(core(world, 1).woken) > woken


def test_who_dies_while_paused_does_not_thaw() -> None:
    world = world_of(2)
    process = world.hosts[1].process
    world.pause(world.hosts[1], 1.0)
    world.kill(world.hosts[1])
    world.kill(world.hosts[1])
    world.run(seconds=2.0)
    assert process is not None
    assert process.ended_at == pytest.approx(0.001)


def test_a_restart_with_the_disk_is_the_same_node_in_a_later_life_and_without_it_somebody_new() -> None:
    world = world_of(2)
    host = world.hosts[1]
    world.kill(host)
    world.start(host)
    world.start(host)  # one runs already
    world.kill(host)
    world.lose_disk(host)
    world.start(host)
    first, second, third = host.lives
    assert first.id == second.id != third.id
    assert first.epoch < second.epoch
    assert (first.name, second.name, third.name) == ("n02", "n02", "n02'")
    assert len({life.boot for life in host.lives}) == 3
    assert world.truth.life_of(first.id, first.epoch) is first
    assert world.truth.life_of(first.id, second.epoch) is second


def test_an_epoch_that_was_taken_is_on_the_disk() -> None:
    world = world_of(1)
    say(world, 0, Notify(EpochTaken(2_000_000_000)))
    world.kill(world.hosts[0])
    world.start(world.hosts[0])
    assert world.hosts[0].lives[-1].epoch == 2_000_000_001


def test_datagrams_go_to_whoever_has_the_address_and_streams_to_one_process() -> None:
    world = world_of(2)
    say(world, 0, to(world, 1), to(world, 1, size=20_000))
    world.kill(world.hosts[1])
    world.start(world.hosts[1])
    world.run(seconds=0.1)
    kinds = [type(received.messages[0]) for _, received in core(world, 1).heard]
    assert kinds == [Probe]
    world.kill(world.hosts[1])
    say(world, 0, to(world, 1, size=20_000), Send(world.hosts[1].endpoint._replace(port=1), (Probe(1),)))
    world.run(seconds=0.1)


def test_streams_arrive_in_order_and_are_counted_apart() -> None:
    world = world_of(2, faults=Faults(delay_max_seconds=1.0, delay_mean_seconds=0.3))
    for size in range(10_000, 10_020):
        say(world, 0, to(world, 1, size=size))
    world.run(seconds=5.0)
    sizes = [received.size for _, received in core(world, 1).heard]
    assert sizes == sorted(sizes)
    process = world.hosts[0].process
    assert process is not None
    assert (process.streams_sent, process.datagrams_sent) == (20, 0)
    assert process.bytes_sent == sum(sizes)


def test_what_travels_went_through_the_codec_and_is_counted_as_on_the_wire() -> None:
    world = world_of(2)
    say(world, 0, to(world, 1))
    world.run(seconds=0.1)
    (_, received), process = core(world, 1).heard[0], world.hosts[0].process
    assert process is not None
    sent = Probe(1)
    assert received.messages == (sent,)
    assert received.messages[0] is not sent
    payload = pack((sent,), received.sender, limit=1000)[0][0]
    assert received.size == process.bytes_sent == len(payload) + SEALING_BYTES + FRAME_BYTES
    assert received.sender is not None
    assert received.sender.id == process.id
    assert received.boot == process.boot


def test_a_mute_world_carries_nothing() -> None:
    world = world_of(2)
    world.is_mute = True
    say(world, 0, to(world, 1))
    world.run(seconds=0.1)
    assert core(world, 1).heard == []


def test_without_the_codec_messages_are_handed_over_and_their_sizes_are_near() -> None:
    config = MembershipConfig.lan()
    sizes = []
    for wire in (None, ObjectWire(config)):
        world = Simulation(1, nodes=4, core=ToyCore, wire=wire, config=config)
        world.multicast(world.hosts[0], 1, 100)
        world.run(seconds=2.0)
        world.multicast(world.hosts[0], 1, 100)
        say(world, 0, Send(world.hosts[1].endpoint, (Probe(1),)))
        world.run(seconds=2.0)
        assert all(len(process.node.members()) == 3 for process in world.processes)
        sizes.append(sum(process.bytes_sent for process in world.processes))
    assert sizes[0] == pytest.approx(sizes[1], rel=0.1)


def test_a_core_that_raises_stops_the_world() -> None:
    class Broken(Recorder):
        def handle(self, event: Received, now: float) -> list[Effect]:
            raise ZeroDivisionError(f"{event} {now}")

    world = Simulation(1, nodes=2, core=Broken, start_within_seconds=0.0)
    world.run(seconds=0.001)
    say(world, 0, to(world, 1))
    with pytest.raises(SimulationFailed, match=r"n02 raised ZeroDivisionError") as raised:
        world.run(seconds=1.0)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)


def test_a_datagram_that_is_too_large_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    world = world_of(2)
    monkeypatch.setattr("pyminuteman.testing.simulation.wire.pack", lambda *_args, **_named: ([bytes(5000)], []))
    with pytest.raises(WireFault, match="5000 bytes"):
        say(world, 0, to(world, 1))


def test_a_later_version_is_spoken_only_to_those_who_know_it() -> None:
    world = Simulation(1, nodes=3, core=ToyCore)
    world.hosts[0].protocol = world.hosts[1].protocol = (1, 2)
    seen: dict[tuple[str, str], set[bytes]] = {}
    arrive = world._arrive

    def spy(target: object, parcel: object) -> None:
        sender = next(life.name for host in world.hosts for life in host.lives if life.boot == parcel.boot)  # type: ignore[attr-defined]
        kinds = seen.setdefault((sender, target.name), set())  # type: ignore[attr-defined]
        kinds.add(parcel.payload[:1] + parcel.payload[-len(LATER_MESSAGE) :])  # type: ignore[attr-defined]
        arrive(target, parcel)  # type: ignore[arg-type]

    world._arrive = spy  # type: ignore[method-assign,assignment]
    world.run(seconds=3.0)
    later = {pair for pair, kinds in seen.items() if any(kind == b"\2" + LATER_MESSAGE for kind in kinds)}
    assert later == {("n01", "n02"), ("n02", "n01")}
    assert all(len(process.node.members()) == 2 for process in world.processes)


def test_sealed_worlds_hear_only_whose_key_they_hold() -> None:
    world = Simulation(1, core=Recorder, wire=SealedWire(MembershipConfig.lan()))
    for keys in ((1,), (2, 1), (2,)):
        world.add_host().keys = keys
    for host in world.hosts:
        world.start(host)
    say(world, 0, to(world, 1), to(world, 2), to(world, 1, size=20_000), to(world, 2, size=20_000))
    world.run(seconds=0.5)
    assert len(core(world, 1).heard) == 2
    assert core(world, 2).heard == []
    refusing = world.hosts[2].process
    assert refusing is not None
    assert refusing.ring is not None
    assert refusing.ring.counters["unknown_key"] == 2
    world.change_keys(world.hosts[0], (2,))
    assert core(world, 0).me.version == 2
    say(world, 0, to(world, 2))
    world.run(seconds=0.5)
    assert len(core(world, 2).heard) == 1
    world.kill(world.hosts[0])
    world.change_keys(world.hosts[0], (3,))
    world.start(world.hosts[0])
    process = world.hosts[0].process
    assert process is not None
    assert process.ring is not None
    assert process.ring.key_ids == (key_of(3).id,)


def test_observers_hear_everything_and_truth_knows_who_could_talk() -> None:
    told: list[tuple[float, str, Notification]] = []

    class Listener:
        def notified(self, time: float, process: Process, notification: Notification) -> None:
            told.append((time, process.name, notification))

    world = Simulation(1, nodes=4, core=ToyCore, start_within_seconds=0.0)
    world.observers.append(Listener())
    world.run(seconds=1.0)
    assert sum(isinstance(notification, MemberUp) for _, _, notification in told) == 12
    world.partition(world.hosts[:2], world.hosts[2:])
    assert [[process.name for process in group] for group in world.truth.communities()] == [["n01", "n02"], ["n03", "n04"]]
    world.cut(world.hosts[:1], world.hosts[1:2])
    assert len(world.truth.communities()) == 3
    assert world.truth.any_cut(0.5, 2.0)
    assert not world.truth.any_cut(0.0, 0.5)
    assert world.truth.torn_at == []  # the network fell apart, not the links within its parts
    world.run(seconds=1.0)
    world.heal()
    world.run(seconds=INTERVAL * 4)
    assert len(world.truth.communities()) == 1
    assert world.truth.any_cut(0.5, 2.5)
    world.leave(world.hosts[3])
    world.leave(world.hosts[3])
    world.run(seconds=1.0)
    assert [process.name for process in world.processes] == ["n01", "n02", "n03"]
    world.leave(world.hosts[3])
    assert world.truth.torn(-math.inf, math.inf) is False


def test_the_bounds_follow_from_the_constants() -> None:
    lan = Bounds(MembershipConfig.lan(), CLEAN, 40)
    assert 0.25 < lan.suspected() < 0.6
    assert lan.down() > lan.suspected() + 0.7
    assert lan.suspected(dead=5) > lan.suspected(dead=2) == lan.suspected()
    assert lan.suspected(fresh=True) > lan.suspected()
    assert Bounds(MembershipConfig.lan(), Faults(loss=0.1), 40).suspected() > lan.suspected()
    assert Bounds(MembershipConfig.wan(), CLEAN, 40).suspected() > lan.suspected()
    assert lan.forgiven_pause < lan.config.down_after_seconds + lan.shortest_suspicion
    assert Bounds(MembershipConfig.lan(), CLEAN, 3).hops < lan.hops < Bounds(MembershipConfig.lan(), CLEAN, 10_000).hops


def test_the_command_runs_one_seed_and_tells_its_story(capsys: pytest.CaptureFixture[str], tmp_path: object) -> None:
    file = f"{tmp_path}/story.txt"
    assert main(["--seed", "2"]) == 0
    assert "replay:  make simulate SEEDS=2" in capsys.readouterr().out
    assert main(["--seed", "2", "--story", file]) == 0
    with open(file) as story:  # noqa: PTH123
        assert "starts as" in story.read()


def test_seeds_are_read_as_numbers_and_ranges() -> None:
    assert seeds_in("7") == [7]
    assert seeds_in("3,5 8-10") == [3, 5, 8, 9, 10]
    with pytest.raises(ValueError, match="no seeds"):
        seeds_in(" ")


class Chatterbox(Recorder):
    """Answers each message with two."""

    def handle(self, event: Received, now: float) -> list[Effect]:
        del now
        return [Send(event.sender.endpoint, event.messages)] * 2 if event.sender is not None else []


def test_nodes_that_keep_each_other_busy_for_nothing_end_the_run() -> None:
    world = Simulation(1, nodes=2, core=Chatterbox, start_within_seconds=0.0)  # type: ignore[arg-type]
    world.run(seconds=0.001)
    say(world, 0, to(world, 1))
    with pytest.raises(SimulationFailed, match="there is a storm: 10000 events within"):
        world.run(seconds=1)


def test_a_busy_world_that_goes_on_is_no_storm() -> None:
    world = world_of(2)
    for number in range(30):
        say(world, 0, *[to(world, 1)] * 900)
        world.run(seconds=0.2)
        assert len(core(world, 1).heard) == 900 * (number + 1)
