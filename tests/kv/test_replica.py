"""Replicas that talk over a network that the test holds in its hands: what is told, what is compared, what goes and what comes back."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from pyminuteman.kv.codec import decode, encode
from pyminuteman.kv.entries import Log
from pyminuteman.kv.errors import InvalidKeyError, InvalidOperationError, TooManyKeys, ValueTooLarge
from pyminuteman.kv.lives import Presence
from pyminuteman.kv.messages import Buckets, Change, LogPart, LogWant, Message, Row, Rows, Same, States, Summary, Want
from pyminuteman.kv.operations import Add, AddElement, Enable, Remove, SharedKey
from pyminuteman.kv.replica import Replica
from pyminuteman.kv.replication import Cast, Output, Tell
from pyminuteman.kv.store import Entry, StoreLimits
from tests.kv.support import EPOCH, actor, node

START = 1000.0
WALL_OFFSET = 1_699_999_000.0
FLAG = SharedKey.flag("drain")


@dataclass
class Cluster:
    """Replicas that know each other; what they say goes through the codec, unless the test loses it."""

    count: int
    limits: StoreLimits = field(default_factory=StoreLimits)
    now: float = START
    replicas: dict[int, Replica] = field(default_factory=dict)
    told: list[tuple[int, Message]] = field(default_factory=list)
    cut_off: set[int] = field(default_factory=set)
    bytes: int = 0
    settled_for: float = 10.0

    def __post_init__(self) -> None:
        for number in range(1, self.count + 1):
            self.add(number)
        self.run(self.settled_for)
        self.told.clear()
        self.bytes = 0
        for replica in self.replicas.values():
            replica.counters.clear()

    def add(self, number: int, *, epoch: int = EPOCH, entries: dict[str, bytes] | None = None) -> Replica:
        me = actor(number, epoch)
        replica = Replica(me, limits=self.limits, random=random.Random(number), wall_offset=WALL_OFFSET)  # noqa: S311
        self.replicas[number] = replica
        for other in self.replicas.values():
            other.notice(me.node, epoch, Presence.ALIVE, self.now)
            replica.notice(other.me.node, other.me.epoch, Presence.ALIVE, self.now)
        self.link()
        self.carry(number, replica.start(self.now, entries))
        return replica

    def link(self) -> None:
        for number, replica in self.replicas.items():
            others = (
                () if number in self.cut_off else [node(one) for one in self.replicas if one not in (number, *self.cut_off)]
            )
            replica.neighbours(others, self.now)

    def carry(self, source: int, outputs: Iterable[Output]) -> None:
        waiting = [(source, output) for output in outputs]
        while waiting:
            sender, output = waiting.pop(0)
            me = self.replicas[sender].me
            origin = me if isinstance(output, Cast) else None
            payload = encode(output.message, origin=origin)
            self.bytes += len(payload)
            for number, replica in self.replicas.items():
                told = isinstance(output, Cast) or output.to == node(number)
                if number == sender or not told or {number, sender} & self.cut_off:
                    continue
                message = decode(payload, origin=origin)
                assert message is not None
                self.told.append((number, message))
                waiting += [(number, more) for more in replica.handle(message, me.node, self.now)]

    def run(self, seconds: float) -> None:
        until = self.now + seconds
        while (due := min(replica.next_wake for replica in self.replicas.values())) <= until:
            self.now = max(self.now, due)
            for number, replica in list(self.replicas.items()):
                if replica.next_wake <= self.now:
                    self.carry(number, replica.wake(self.now))
        self.now = until

    def says(self, number: int, **changes: bytes | None) -> None:
        self.carry(number, self.replicas[number].change_own(changes))

    def updates(self, number: int, key: SharedKey, *operations: Any) -> None:
        self.carry(number, self.replicas[number].update(key, operations, self.now))

    def everywhere(self, *entries: Entry) -> bool:
        return all(replica.owners.entries("") == sorted(entries) for replica in self.replicas.values())

    @property
    def agreed(self) -> bool:
        return len({(one.owners.hashes.root, one.shared.hashes.root) for one in self.replicas.values()}) == 1

    def counter(self, name: str) -> int:
        return sum(replica.counters[name] for replica in self.replicas.values())


def lost(cluster: Cluster, number: int, **changes: bytes | None) -> None:
    """A write whose delta reaches nobody."""
    cluster.replicas[number].change_own(changes)


# -- telling and comparing ---------------------------------------------------------------------------------------------


def test_what_one_says_all_have_at_once() -> None:
    cluster = Cluster(4)
    cluster.says(1, x=b"1", y=b"1")
    cluster.says(2, x=b"2")
    cluster.updates(3, FLAG, Enable())
    assert cluster.everywhere(Entry("x", node(1), b"1"), Entry("y", node(1), b"1"), Entry("x", node(2), b"2"))
    assert all(replica.read(FLAG) is True for replica in cluster.replicas.values())
    cluster.says(1, x=None)
    assert cluster.everywhere(Entry("y", node(1), b"1"), Entry("x", node(2), b"2"))
    assert cluster.replicas[1].own() == {"y": b"1"}
    assert cluster.replicas[1].change_own({"x": None}) == []
    assert cluster.replicas[1].update(FLAG, [], cluster.now) == []


def test_equal_replicas_compare_two_hashes_and_no_more() -> None:
    cluster = Cluster(3)
    cluster.run(30)
    cluster.told.clear()
    cluster.run(60)
    assert {type(message) for _, message in cluster.told} == {Summary, Same}
    assert 20 <= len(cluster.told) <= 100
    assert cluster.counter("comparisons_differing") == 0


def test_what_was_lost_is_found_by_comparing() -> None:
    cluster = Cluster(4)
    cluster.says(1, x=b"1", y=b"1")
    lost(cluster, 1, x=None, z=b"2")
    cluster.replicas[2].update(FLAG, [Enable()], cluster.now)
    assert not cluster.agreed
    cluster.run(30)
    assert cluster.agreed
    assert cluster.everywhere(Entry("y", node(1), b"1"), Entry("z", node(1), b"2"))
    assert all(replica.read(FLAG) is True for replica in cluster.replicas.values())


def test_a_gap_is_closed_within_a_second() -> None:
    cluster = Cluster(3)
    cluster.run(10)
    lost(cluster, 1, x=b"1")
    cluster.says(1, y=b"1")
    cluster.run(1.5)
    assert cluster.everywhere(Entry("x", node(1), b"1"), Entry("y", node(1), b"1"))


def test_both_sides_of_a_comparison_get_what_they_lack() -> None:
    cluster = Cluster(2)
    cluster.run(10)
    for number in (1, 2):
        lost(cluster, number, **{f"k{number}": b"1"})
        cluster.replicas[number].update(SharedKey.counter("both"), [Add(number)], cluster.now)
        cluster.replicas[number].update(SharedKey.counter(f"c{number}"), [Add(1)], cluster.now)
    cluster.run(12)
    assert cluster.agreed
    assert cluster.replicas[1].read(SharedKey.counter("both")) == 3
    assert {type(message) for _, message in cluster.told} == {Summary, Same, Buckets, Rows, Want, LogPart, States}


def test_a_newcomer_gets_everything_and_then_is_ready() -> None:
    cluster = Cluster(3)
    big = {f"vips/{number:05}": bytes(100) for number in range(2000)}
    cluster.carry(1, cluster.replicas[1].change_own(big))
    for number in range(1500):
        cluster.updates(2, SharedKey.set(f"s{number}"), AddElement(bytes(60)))
    late = cluster.add(4)
    assert not late.is_ready
    cluster.run(3)
    assert late.is_ready
    assert cluster.agreed
    assert late.owners.count == 2000
    assert len([message for number, message in cluster.told if number == 4 and isinstance(message, LogPart | States)]) > 6


def test_a_node_alone_is_ready_before_long() -> None:
    cluster = Cluster(1, settled_for=0.0)
    cluster.run(1.5)
    assert not cluster.replicas[1].is_ready
    cluster.run(1.5)
    assert cluster.replicas[1].is_ready


def test_replicas_that_always_differ_are_ready_all_the_same() -> None:
    cluster = Cluster(2)
    one, other = cluster.replicas.values()
    same = Buckets(one.owners.hashes.summary, one.shared.hashes.summary)
    assert one.handle(same, other.me.node, cluster.now) == [], "it has come meanwhile"
    for _ in range(2):
        differing = one.handle(Buckets(bytes(256), b"\xff" * 256), other.me.node, cluster.now)
        assert isinstance(differing[0], Tell)
        assert isinstance(differing[0].message, Rows)
    assert one.is_ready


def test_answers_are_bounded_and_the_rest_comes_later() -> None:
    cluster = Cluster(2, limits=StoreLimits(value_max_bytes=65_536))
    one = cluster.replicas[1]
    one.change_own({f"k{number}": bytes(65_536) for number in range(300)})
    one.update(SharedKey.set("s"), [AddElement(b"x")], cluster.now)
    (row,) = one.owners.rows(range(64))[-1:]
    want = Want((LogWant(node(1), row.epoch, 1),), tuple(row.key for row in one.shared.rows(range(64))))
    answers = one.handle(want, node(2), cluster.now)
    assert 250 <= len(answers) < 300
    assert one.counters["answers_cut"] == 301 - len(answers)
    cluster.run(40)
    assert cluster.agreed


def test_nobody_is_told_its_own_log_nor_asks_for_it() -> None:
    cluster = Cluster(2)
    cluster.says(1, x=b"1")
    one, other = cluster.replicas.values()
    assert other.handle(Want((LogWant(node(1), EPOCH, 0),)), node(1), cluster.now) == []
    part = LogPart(node(1), EPOCH, 1, 2, 9, 9, (Change(9, "forged", b""),))
    one.handle(part, node(2), cluster.now)
    assert one.own() == {"x": b"1"}
    bucket = node(1)[0] * 64 >> 8
    rows = Rows((bucket,), (Row(node(1), EPOCH, 99),), (), ())
    assert one.handle(rows, node(2), cluster.now) == []


def test_one_neighbour_at_a_time_is_asked_for_a_log() -> None:
    cluster = Cluster(3)
    bucket = node(2)[0] * 64 >> 8
    rows = Rows((bucket,), (Row(node(2), EPOCH, 99),), (), ())
    one = cluster.replicas[1]

    def asked() -> bool:
        return any(isinstance(output.message, Want) for output in one.handle(rows, node(3), cluster.now))

    assert asked()
    assert not asked()
    one.wake(cluster.now + 3)
    assert asked()
    part = LogPart(node(2), EPOCH, 1, 1, 99, 99, ())
    one.handle(part, node(3), cluster.now)
    assert not asked(), "it is here now"


# -- lives and leases --------------------------------------------------------------------------------------------------


def test_entries_go_at_once_with_an_owner_that_leaves_and_a_lease_after_one_that_is_down() -> None:
    cluster = Cluster(3)
    cluster.says(1, x=b"1")
    cluster.says(2, x=b"2")
    three = cluster.replicas[3]
    three.notice(node(1), EPOCH, Presence.LEFT, cluster.now)
    assert three.owners.get_all("x") == {node(2): b"2"}
    three.notice(node(2), EPOCH, Presence.AWAY, cluster.now)
    cluster.cut_off = {3}
    cluster.run(59)
    assert three.owners.get_all("x") == {node(2): b"2"}
    cluster.run(2.5)
    assert three.owners.get_all("x") == {}
    assert three.counters["owners_lapsed"] == 2


def test_an_owner_that_comes_back_brings_what_it_says_now() -> None:
    cluster = Cluster(3)
    cluster.run(10)
    cluster.says(1, x=b"1", y=b"1")
    cluster.cut_off = {1}
    cluster.link()
    for number in (2, 3):
        cluster.replicas[number].notice(node(1), EPOCH, Presence.AWAY, cluster.now)
    cluster.says(1, y=None)
    cluster.run(70)
    assert cluster.replicas[2].owners.entries("") == []
    cluster.cut_off = set()
    for number in (2, 3):
        cluster.replicas[number].notice(node(1), EPOCH, Presence.ALIVE, cluster.now)
    cluster.link()
    cluster.run(2)
    assert cluster.everywhere(Entry("x", node(1), b"1"))


def test_a_restart_that_says_the_same_is_seen_by_nobody() -> None:
    cluster = Cluster(3)
    cluster.says(1, x=b"1", y=b"1")
    for replica in cluster.replicas.values():
        replica.owners.changed.clear()
    del cluster.replicas[1]
    cluster.add(1, epoch=EPOCH + 1, entries={"x": b"1", "y": b"1"})
    assert cluster.everywhere(Entry("x", node(1), b"1"), Entry("y", node(1), b"1"))
    assert cluster.replicas[2].owners.changed == set()
    cluster.run(20)
    assert cluster.agreed


def test_a_restart_without_disk_ends_what_was_said_before() -> None:
    cluster = Cluster(3)
    cluster.says(1, x=b"1")
    del cluster.replicas[1]
    cluster.add(1, epoch=EPOCH + 1)
    assert cluster.everywhere()


def test_a_delta_of_a_life_that_the_membership_has_not_told_of_yet_is_found_later() -> None:
    cluster = Cluster(2)
    cluster.run(10)
    two = cluster.replicas[2]
    two.forget({node(2)})
    cluster.says(1, x=b"1")
    assert two.owners.get(node(1), "x") is None
    assert two.counters["parts_of_unknown_lives"] == 1
    two.notice(node(1), EPOCH, Presence.ALIVE, cluster.now)
    cluster.run(2)
    assert two.owners.get(node(1), "x") == b"1"


def test_our_own_notices_change_nothing_and_a_new_epoch_says_all_again() -> None:
    cluster = Cluster(2)
    cluster.says(1, x=b"1")
    one, two = cluster.replicas.values()
    one.notice(node(1), EPOCH, Presence.LEFT, cluster.now)
    assert one.own() == {"x": b"1"}
    two.notice(node(1), EPOCH + 5, Presence.ALIVE, cluster.now)
    cluster.carry(1, one.reborn(EPOCH + 5))
    assert cluster.everywhere(Entry("x", node(1), b"1"))
    assert [row.epoch for row in two.owners.rows(range(64)) if row.owner == node(1)] == [EPOCH + 5]
    cluster.updates(1, FLAG, Enable())
    assert two.read(FLAG) is True


def test_what_was_on_the_disk_is_there_at_once_and_held_for_a_lease() -> None:
    before = Cluster(2)
    before.says(1, x=b"1")
    before.says(2, y=b"2")
    before.updates(2, FLAG, Enable())
    source = before.replicas[1]
    logs = [log for number in (1, 2) if (log := source.owners.log(node(number)))]
    restored = [
        Log.restored(log.owner, log.epoch, log.base, log.version, log.entries) for log in logs
    ]  # fmt: skip
    state = source.shared.state(FLAG)
    assert state is not None
    again = Replica(actor(1, EPOCH + 1), limits=StoreLimits(), random=random.Random(1), wall_offset=WALL_OFFSET)  # noqa: S311
    mine = again.restore(restored, [(FLAG, state)], START)
    assert mine == {"x": b"1"}
    again.start(START, mine)
    assert again.owners.entries("") == [Entry("x", node(1), b"1"), Entry("y", node(2), b"2")]
    assert again.read(FLAG) is True
    again.wake(START + 30)
    assert again.owners.get(node(2), "y") == b"2"
    again.wake(START + 95)
    assert again.owners.entries("") == [Entry("x", node(1), b"1")]


# -- limits ------------------------------------------------------------------------------------------------------------


def test_the_writer_is_told_of_every_limit_and_nothing_changes() -> None:
    limits = StoreLimits(value_max_bytes=10, own_keys_max=3, entries_max=4, shared_keys_max=1)
    cluster = Cluster(2, limits=limits)
    cluster.says(2, a=b"", b=b"")
    cluster.says(1, x=b"")
    one = cluster.replicas[1]
    refused: list[tuple[dict[Any, Any], type[Exception], str]] = [
        ({"y": bytes(11)}, ValueTooLarge, "y: 11 bytes; the limit is 10"),
        ({"y": b"", "": b""}, InvalidKeyError, "is not a key"),
        ({"y": "text"}, InvalidOperationError, "the value of y is bytes, not str"),
        ({"p": b"", "q": b"", "r": b""}, TooManyKeys, "this node would say 4 keys; the limit is 3"),
        ({"p": b"", "q": b""}, TooManyKeys, "there would be 5 entries in all; the limit is 4"),
    ]
    for changes, error, text in refused:
        with pytest.raises(error, match=text):
            one.change_own(changes)
    assert one.own() == {"x": b""}
    cluster.says(1, x=None, p=b"", q=b"")
    with pytest.raises(InvalidOperationError, match="Add cannot be done to a flag"):
        one.update(FLAG, [Add(1)], cluster.now)
    with pytest.raises(InvalidKeyError):
        one.update(SharedKey.flag(""), [Enable()], cluster.now)
    one.update(FLAG, [Enable(), Remove()], cluster.now)
    with pytest.raises(TooManyKeys, match="1 of them removed ones"):
        one.update(SharedKey.flag("more"), [Enable()], cluster.now)


def test_what_others_say_beyond_a_limit_is_refused_and_counted() -> None:
    cluster = Cluster(2)
    small = Replica(actor(2), limits=StoreLimits(own_keys_max=1), random=random.Random(2), wall_offset=WALL_OFFSET)  # noqa: S311
    small.notice(node(1), EPOCH, Presence.ALIVE, cluster.now)
    cluster.replicas[2] = small
    cluster.says(1, x=b"", y=b"")
    assert small.metrics()["store_parts_refused_total"] == 1
    assert small.owners.entries("") == []


def test_metrics_are_plain_numbers() -> None:
    cluster = Cluster(2)
    cluster.says(1, x=b"1", y=b"1")
    cluster.says(1, x=None)
    cluster.updates(1, FLAG, Enable())
    cluster.updates(1, FLAG, Remove())
    cluster.run(10)
    metrics = cluster.replicas[2].metrics()
    assert metrics["store_entries"] == 1
    assert metrics["store_tombstones"] == 1
    assert metrics["store_shared_values"] == 0
    assert metrics["store_shared_tombstones"] == 1
    assert metrics["store_comparisons_total"] > 0
    assert all(isinstance(value, int | float) for value in metrics.values())


# -- what it costs -----------------------------------------------------------------------------------------------------


def test_one_backend_changed_among_a_hundred_thousand_costs_tens_of_bytes() -> None:
    cluster = Cluster(2)
    for part in range(10):
        cluster.replicas[1].change_own(
            {f"vips/tcp:11.{part}.{number >> 8}.{number & 255}:80": b"10.0.0.5:8080 w=1" for number in range(1000)}
        )
    cluster.bytes = 0
    cluster.says(1, **{"vips/tcp:11.5.0.1:80": b"10.0.0.5:8080 w=2"})
    assert cluster.bytes <= 60
