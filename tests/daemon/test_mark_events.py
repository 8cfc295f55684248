"""What is told of operators' marks, and what is old."""

from __future__ import annotations

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.mark_events import mark_events
from pyminuteman.daemon.marks import Marks
from pyminuteman.daemon.observed import Mark
from pyminuteman.vips.model import BackendKey, VIPKey

NODE = NodeId(b"n" * 16)
BACKEND = BackendKey("10.0.0.1", 8080)
WEB = VIPKey.tcp("11.0.0.1", 80)
ANN = Mark("ann", 5.0, "disk")
BOB = Mark("bob", 6.0)
LAID = Marks({NODE: ANN}, {(WEB, BACKEND): BOB}, {(None, BACKEND): (7, ANN)})
UNDONE = Marks(
    undone={
        f"drain/node/{NODE}": (NODE, BOB),
        "drain/backend/10.0.0.1/8080/tcp://11.0.0.1:80": ((WEB, BACKEND), ANN),
        "weight/10.0.0.1/8080/*": ((None, BACKEND), BOB),
    }
)


def told(before: Marks, after: Marks, since: float = 0.0) -> list[tuple[str, str]]:
    return [(kind, text) for kind, text, _ in mark_events(before, after, since=since)]


def test_marks_are_told_with_who_and_why() -> None:
    assert list(mark_events(Marks(), LAID, since=5.0)) == [
        (
            "drained",
            f"node {NODE.short} is drained by ann: disk",
            {"target": f"node {NODE.short}", "by": "ann", "reason": "disk"},
        ),
        (
            "drained",
            "10.0.0.1:8080 of tcp://11.0.0.1:80 is drained by bob",
            {"target": "10.0.0.1:8080 of tcp://11.0.0.1:80", "by": "bob", "reason": ""},
        ),
        (
            "weight",
            "10.0.0.1:8080 is given weight 7 by ann: disk",
            {"target": "10.0.0.1:8080", "weight": 7, "by": "ann", "reason": "disk"},
        ),
    ]


def test_what_is_undone_is_told_with_who_and_why() -> None:
    expected = [
        ("undrained", f"node {NODE.short} is put back by bob"),
        ("undrained", "10.0.0.1:8080 of tcp://11.0.0.1:80 is put back by ann: disk"),
        ("weight", "10.0.0.1:8080 has its source's weight again by bob"),
    ]
    assert told(LAID, UNDONE) == expected
    assert told(Marks(), UNDONE) == expected  # as much is heard of one that came and went in between
    assert [data.get("weight", "none") for *_, data in mark_events(LAID, UNDONE, since=0.0)] == ["none", "none", None]


def test_each_is_told_once_and_again_when_it_is_laid_down_anew() -> None:
    assert told(LAID, LAID) == told(UNDONE, UNDONE) == []
    assert told(UNDONE, Marks()) == []  # what is left of it is forgotten
    later = Marks({NODE: Mark("ann", 9.0, "disk")}, LAID.backend_drains, LAID.weights)
    assert told(LAID, later) == [("drained", f"node {NODE.short} is drained by ann: disk")]
    heavier = Marks(LAID.node_drains, LAID.backend_drains, {(None, BACKEND): (8, ANN)})
    assert told(LAID, heavier) == [("weight", "10.0.0.1:8080 is given weight 8 by ann: disk")]


def test_what_is_older_than_the_process_is_not_told() -> None:
    assert told(Marks(), LAID, since=5.5) == [("drained", "10.0.0.1:8080 of tcp://11.0.0.1:80 is drained by bob")]
    assert told(Marks(), LAID, since=7.0) == told(Marks(), UNDONE, since=7.0) == []


def test_of_what_has_just_gone_nobody_is_named() -> None:
    assert told(LAID, Marks(), since=7.0) == [
        ("undrained", f"node {NODE.short} is put back"),
        ("undrained", "10.0.0.1:8080 of tcp://11.0.0.1:80 is put back"),
        ("weight", "10.0.0.1:8080 has its source's weight again"),
    ]
