"""What the tests of the store share: actors, limits, states drawn by what was done, and replicas that talk."""

from __future__ import annotations

from hypothesis import strategies as st

from pyminuteman.addresses import NodeId
from pyminuteman.kv.crdt import State, change
from pyminuteman.kv.operations import (
    Add,
    AddElement,
    Assign,
    Disable,
    Enable,
    InMap,
    Kind,
    Operation,
    Remove,
    RemoveElement,
    SharedKey,
)
from pyminuteman.kv.versions import Actor

EPOCH = 1_700_000_000


def node(number: int) -> NodeId:
    """Small numbers as ids, spread over the buckets."""
    return NodeId(bytes((number * 37 & 255,)) + number.to_bytes(15, "big"))


def actor(number: int, epoch: int = EPOCH) -> Actor:
    """The life of a node."""
    return Actor(node(number), epoch)


values = st.sampled_from([b"", b"a", b"b", b"long" * 5])
OPERATIONS: dict[Kind, st.SearchStrategy[Operation]] = {
    Kind.REGISTER: st.builds(Assign, values) | st.just(Remove()),
    Kind.COUNTER: st.builds(Add, st.integers(-5, 5)) | st.just(Remove()),
    Kind.FLAG: st.sampled_from([Enable(), Disable(), Remove()]),
    Kind.SET: st.builds(AddElement, values) | st.builds(RemoveElement, values) | st.just(Remove()),
}
OPERATIONS[Kind.MAP] = st.one_of(
    *(
        st.builds(InMap, st.just(SharedKey(kind, name)), operations)
        for kind, operations in list(OPERATIONS.items())
        for name in ("x", "y")
    ),
    st.just(Remove()),
)
kinds = st.sampled_from(sorted(OPERATIONS))


@st.composite
def histories(draw: st.DrawFn, *, replicas: int = 3) -> tuple[Kind, list[State], list[State]]:
    """A kind, the states of some replicas that changed a value and now and then told another, and every delta in order."""
    kind = draw(kinds)
    states = [State() for _ in range(replicas)]
    deltas = []
    for _ in range(draw(st.integers(0, 8))):
        who = draw(st.integers(0, replicas - 1))
        if draw(st.booleans()):
            other = draw(st.integers(0, replicas - 1))
            states[who] = states[who].join(states[other])
        now = draw(st.sampled_from([1000.0, 1000.5, 2000.0]))
        some = draw(st.lists(OPERATIONS[kind], min_size=1, max_size=2))
        delta = change(states[who], some, actor=actor(who), floor=0, now=now)
        states[who] = states[who].join(delta)
        deltas.append(delta)
    return kind, states, deltas
