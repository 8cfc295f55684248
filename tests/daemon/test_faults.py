"""What does not count, gathered from those who noticed."""

from __future__ import annotations

from pyminuteman.addresses import NodeId
from pyminuteman.daemon.entries import FAULTS_KEPT, ClaimTable
from pyminuteman.daemon.faults import gather
from pyminuteman.daemon.health_words import HealthWords
from pyminuteman.daemon.marks import read_marks
from pyminuteman.daemon.observed import FaultObserved
from pyminuteman.kv.operations import SharedKey

ONE = NodeId(b"1" * 16)


def test_of_each_kind_all_are_counted_and_some_are_shown() -> None:
    claims = ClaimTable()
    claims.update(ONE, "vip/1", b"")
    claims.update(ONE, "vip/2", b"")
    claims.update(ONE, "vip/2", None)
    marks = read_marks({SharedKey.register("drain/node/x"): 5})
    words = HealthWords(faults=((ONE, "unhealthy/x", "it names no backend"),) * (FAULTS_KEPT + 1))
    found = gather(claims, marks, words, {"tcp://11.0.0.1:80": "no room"})
    assert found.counts == {"claim": 1, "mark": 1, "health": FAULTS_KEPT + 1}
    assert (found.claims_total, found.untold) == (2, {"tcp://11.0.0.1:80": "no room"})
    kinds = [one.kind for one in found.shown]
    assert (kinds[:2], kinds.count("health")) == (["claim", "mark"], FAULTS_KEPT)
    assert found.shown[1:3] == (
        FaultObserved("mark", "", "drain/node/x", "no register"),
        FaultObserved("health", str(ONE), "unhealthy/x", "it names no backend"),
    )
    assert (found.shown[0].node, found.shown[0].key) == (str(ONE), "vip/1")
