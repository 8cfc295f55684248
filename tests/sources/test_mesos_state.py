"""The state of a master or agent: what is no state raises, what is not known yet is parked, and events change what they are about."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.errors import MinutemanError
from pyminuteman.sources import mesos_state
from pyminuteman.sources.base import SourceError
from pyminuteman.sources.mesos_state import MesosState, Readiness
from pyminuteman.sources.mesos_tasks import TaskPhase
from pyminuteman.sources.mesos_vips import vips_of

DATA = Path(__file__).parents[1] / "data"
NAMED = json.loads((DATA / "minuteman" / "named-base-vips.json").read_text())
OVERLAY = json.loads((DATA / "minuteman" / "overlay.json").read_text())
LABELS = json.loads((DATA / "dcos-net-master" / "vip-labels.json").read_text())
RECOVERY = [json.loads(line) for line in (DATA / "dcos-net-master" / "recovered-agents.json").read_text().splitlines() if line]


def agent(number: int = 0, hostname: str = "10.0.0.1", **changes: Any) -> dict[str, Any]:
    return {"agent_info": {"id": {"value": f"S{number}"}, "hostname": hostname}} | changes


def framework(number: int = 0, name: str = "marathon") -> dict[str, Any]:
    return {"framework_info": {"id": {"value": f"F{number}"}, "name": name}}


def task(name: str = "t", **changes: Any) -> dict[str, Any]:
    return {
        "task_id": {"value": name},
        "framework_id": {"value": "F0"},
        "agent_id": {"value": "S0"},
        "name": name,
        "state": "TASK_RUNNING",
    } | changes


def event(kind: str, **body: Any) -> dict[str, Any]:
    return {"type": kind, kind.lower(): body}


def update(name: str = "t", state: str | None = "TASK_RUNNING", **status: Any) -> dict[str, Any]:
    return event("TASK_UPDATED", framework_id={"value": "F0"}, state=state, status={"task_id": {"value": name}} | status)


def stream(*events: Any, **get_state: Any) -> MesosState:
    whole = {"get_agents": {"agents": [agent()]}, "get_frameworks": {"frameworks": [framework()]}} | get_state
    state = MesosState.of_stream(event("SUBSCRIBED", get_state=whole))
    for row in events:
        state.apply(row)
    return state


def names(state: MesosState) -> list[str]:
    return [found.name for found in state.tasks()]


# -- documents ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "document", [None, [], {}, "x", {"frameworks": []}, {"pid": "slave(1)@10.0.0.1:5051"}, {"frameworks": {}, "pid": "x"}]
)
def test_what_is_no_state_raises_and_is_never_an_empty_one(document: Any) -> None:
    with pytest.raises(SourceError, match="is no /state of a Mesos agent or master"):
        MesosState.of_state(document)
    with pytest.raises(SourceError, match="is no GET_STATE"):
        MesosState.of_operator_api(document)
    with pytest.raises(SourceError, match="is no GET_AGENT"):
        MesosState.of_operator_api(LABELS, document or 0)
    with pytest.raises(SourceError, match="is no SUBSCRIBED"):
        MesosState.of_stream(document)


def test_a_stream_without_a_state_is_none() -> None:
    with pytest.raises(SourceError, match="begins without a state"):
        MesosState.of_stream(event("SUBSCRIBED", get_state=[]))


@pytest.mark.parametrize(
    ("said", "seconds"), [(15.0, 15.0), (2, 2.0), (0, 15.0), (-1, 15.0), (1e9, 15.0), (None, 15.0), ("5", 15.0)]
)
def test_the_heartbeat_is_what_the_stream_says_within_reason(said: Any, seconds: float) -> None:
    assert MesosState.of_stream(event("SUBSCRIBED", get_state={}, heartbeat_interval_seconds=said)).heartbeat_seconds == seconds


def test_an_agent_without_an_id_has_not_been_taken_in() -> None:
    assert MesosState.of_state(NAMED).registered
    assert not MesosState.of_state(NAMED | {"id": ""}).registered
    assert MesosState.of_state(OVERLAY | {"id": ""}).registered  # a master
    assert not MesosState.of_operator_api(LABELS, event("GET_AGENT", agent_info={})).registered
    assert MesosState.of_operator_api(LABELS, {"type": "GET_AGENT", "get_agent": agent()}).registered


def test_tasks_of_every_list_count_and_those_that_have_ended_or_have_no_id_do_not() -> None:
    whole = {
        "get_tasks": {
            "tasks": [task("a"), task("b", state="TASK_FINISHED")],
            "launched_tasks": [task("c"), task("")],
            "orphan_tasks": [task("d")],
            "unreachable_tasks": [task("e")],
            "completed_tasks": [task("f")],
        }
    }
    state = stream(**whole)
    assert names(state) == ["a", "c", "d"]
    assert state.odd == {"task without id": 1}


def test_there_is_a_limit_to_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesos_state, "TASKS_MAX", 2)
    state = stream(event("TASK_ADDED", task=task("a")), event("TASK_ADDED", task=task("b")))
    with pytest.raises(SourceError, match="more than 2 tasks"):
        state.apply(event("TASK_ADDED", task=task("c")))


# -- parking -----------------------------------------------------------------------------------------------------------


def test_a_task_is_parked_until_its_framework_and_its_agent_are_known() -> None:
    state = MesosState.of_stream(event("SUBSCRIBED", get_state={"get_tasks": {"tasks": [task()]}}))
    assert (names(state), state.waiting) == ([], 1)
    state.apply(event("AGENT_ADDED", agent=agent()))
    assert (names(state), state.waiting) == ([], 1)
    state.apply(event("FRAMEWORK_ADDED", framework=framework()))
    assert (names(state), state.waiting) == (["t"], 0)


def test_a_framework_that_was_recovered_is_known_by_name() -> None:
    state = stream(get_frameworks={"recovered_frameworks": [framework()["framework_info"]]}, get_tasks={"tasks": [task()]})
    assert [found.framework for found in state.tasks()] == ["marathon"]


def test_an_agent_with_a_name_is_parked_until_it_is_looked_up_and_stays_known() -> None:
    state = stream(get_agents={"agents": [agent(hostname="a.example")]}, get_tasks={"tasks": [task()]})
    assert (state.unresolved, state.waiting) == ({"a.example"}, 1)
    state.resolve({"b.example": "10.0.0.2"})
    assert state.waiting == 1
    state.resolve({"a.example": "10.0.0.1"})
    assert (state.unresolved, [found.agent for found in state.tasks()]) == (set(), ["10.0.0.1"])
    state.apply(event("AGENT_ADDED", agent=agent(hostname="a.example")))  # it comes back
    assert (state.unresolved, state.waiting) == (set(), 0)
    state.resolve({"a.example": "10.0.0.9"})
    assert [found.agent for found in state.tasks()] == ["10.0.0.1"]


def test_agents_and_frameworks_without_an_id_are_none() -> None:
    state = stream(event("AGENT_ADDED", agent={}), event("FRAMEWORK_ADDED", framework={}))
    assert (names(state), state.unresolved) == ([], set())


# -- events ------------------------------------------------------------------------------------------------------------


def test_a_task_comes_runs_and_ends_by_events() -> None:
    state = stream()
    assert state.apply(event("TASK_ADDED", task=task(state="TASK_STAGING")))
    assert [found.phase for found in state.tasks()] == [TaskPhase.PREPARING]
    assert state.apply(update(timestamp=1.0, healthy=True))
    assert [(found.phase, found.healthy) for found in state.tasks()] == [(TaskPhase.RUNNING, True)]
    assert state.apply(update(timestamp=0.5, healthy=False))  # late
    assert [found.healthy for found in state.tasks()] == [True]
    assert state.apply(update(state="TASK_KILLED"))
    assert names(state) == []
    assert not state.apply(update(state="TASK_KILLED"))
    assert state.odd == {"update of an unknown task": 1}


def test_the_state_of_an_event_is_newer_than_that_of_its_status() -> None:
    state = stream(get_tasks={"tasks": [task()]})
    state.apply(update(state="TASK_KILLING", status={}, timestamp=1.0))
    assert [found.phase for found in state.tasks()] == [TaskPhase.KILLING]
    body = update(state=None, timestamp=2.0)
    body["task_updated"]["status"]["state"] = "TASK_RUNNING"
    state.apply(body)
    assert [found.phase for found in state.tasks()] == [TaskPhase.RUNNING]


def test_a_task_that_is_told_again_after_it_ended_is_gone() -> None:
    state = stream(event("TASK_ADDED", task=task(state="TASK_LOST")), get_tasks={"tasks": [task()]})
    assert names(state) == []


def test_a_framework_that_goes_takes_its_tasks_along_and_an_agent_parks_them() -> None:
    other = task("u", framework_id={"value": "F1"})
    state = stream(event("FRAMEWORK_ADDED", framework=framework(1, "other")), get_tasks={"tasks": [task(), other]})
    state.apply(event("FRAMEWORK_REMOVED", framework_info=framework(1)["framework_info"]))
    assert (names(state), state.waiting) == (["t"], 0)
    state.apply(event("AGENT_REMOVED", agent_id={"value": "S0"}))
    assert (names(state), state.waiting) == ([], 1)
    state.apply(event("AGENT_ADDED", agent=agent(hostname="10.0.0.2")))
    assert [found.agent for found in state.tasks()] == ["10.0.0.2"]


def test_a_framework_that_is_renamed_renames_what_its_tasks_say() -> None:
    state = stream(get_tasks={"tasks": [task()]})
    assert [found.framework for found in state.tasks()] == ["marathon"]
    state.apply(event("FRAMEWORK_UPDATED", framework=framework(0, "other")))
    assert [found.framework for found in state.tasks()] == ["other"]


def test_heartbeats_and_what_is_not_known_change_nothing() -> None:
    state = stream(get_tasks={"tasks": [task()]})
    assert not state.apply({"type": "HEARTBEAT"})
    for odd in ({"type": "NEW_KIND", "new_kind": {}}, {}, [], None, {"type": 7}):
        assert not state.apply(odd)
    assert state.odd == {"unknown event": 5}
    assert names(state) == ["t"]
    with pytest.raises(SourceError, match="a second time"):
        state.apply(event("SUBSCRIBED", get_state={}))


def test_agents_that_a_master_remembers_are_waited_for_until_they_come_or_are_given_up() -> None:
    remembered = [{"id": {"value": f"S{number}"}, "hostname": "10.0.0.1"} for number in range(2)]
    state = stream(get_agents={"recovered_agents": remembered})
    assert state.recovering == {"S0", "S1"}
    state.apply(event("AGENT_ADDED", agent=agent(0)))
    assert state.recovering == {"S1"}
    state.apply(event("AGENT_REMOVED", agent_id={"value": "S1"}))
    assert state.recovering == set()


# -- when it is enough -------------------------------------------------------------------------------------------------


def readiness(*, recovering: bool) -> Readiness:
    return Readiness(100.0, recovering=recovering, agents_seconds=600.0, tasks_seconds=10.0)


def test_a_leader_of_long_standing_is_believed_at_once() -> None:
    ready = readiness(recovering=False)
    assert ready.check(100.0, recovering=False, waiting=False)
    assert (ready.due, str(ready)) == (float("inf"), "ready")
    assert ready.check(101.0, recovering=True, waiting=True)  # it stays so


def test_parked_tasks_are_waited_for_ten_seconds() -> None:
    ready = readiness(recovering=False)
    assert not ready.check(100.0, recovering=False, waiting=True)
    assert (ready.due, str(ready)) == (110.0, "waiting for tasks")
    assert ready.check(105.0, recovering=False, waiting=False)
    assert readiness(recovering=False).check(110.0, recovering=False, waiting=True)


def test_after_a_recovery_tasks_have_ten_seconds_from_the_last_agent() -> None:
    ready = readiness(recovering=True)
    assert not ready.check(100.0, recovering=True, waiting=False)
    assert (ready.due, str(ready)) == (700.0, "waiting for agents to come back")
    assert not ready.check(300.0, recovering=False, waiting=False)
    assert ready.due == 310.0
    assert not ready.check(309.0, recovering=False, waiting=False)
    assert ready.check(310.0, recovering=False, waiting=True)


def test_agents_that_stay_away_are_waited_for_ten_minutes() -> None:
    ready = readiness(recovering=True)
    assert not ready.check(699.0, recovering=True, waiting=False)
    assert not ready.check(700.0, recovering=True, waiting=False)
    assert ready.check(710.0, recovering=True, waiting=False)


# -- anything ----------------------------------------------------------------------------------------------------------

JUNK = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.just([])
    | st.just({})
    | st.just([{}])
    | st.just({"labels": 1})
    | st.just("\ud800")
)


def spots(document: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a document."""
    if isinstance(document, dict):
        inner = list(document.items())
    elif isinstance(document, list):
        inner = list(enumerate(document))
    else:
        return [path]
    return [path, *(spot for key, value in inner for spot in spots(value, (*path, key)))]


def spoilt(document: Any, path: tuple[Any, ...], junk: Any) -> Any:
    if not path:
        return junk
    found = copy.copy(document)
    found[path[0]] = spoilt(document[path[0]], path[1:], junk)
    return found


READERS: list[tuple[Any, Callable[[Any], MesosState]]] = [
    (NAMED, MesosState.of_state),
    (OVERLAY, partial(MesosState.of_state, legacy=True)),
    (LABELS, MesosState.of_operator_api),
    (RECOVERY[0], MesosState.of_stream),
]


@pytest.mark.parametrize("which", range(len(READERS)))
@given(data=st.data())
def test_whatever_is_wrong_with_a_document_it_is_a_clear_error_or_costs_a_part(which: int, data: st.DataObject) -> None:
    document, read = READERS[which]
    found = document
    for _ in range(data.draw(st.integers(1, 3))):
        found = spoilt(found, data.draw(st.sampled_from(spots(found))), data.draw(JUNK))
    try:
        state = read(found)
    except MinutemanError as error:
        assert str(error)  # noqa: PT017 - most do no harm
    else:
        state.resolve({"localhost": "127.0.0.1"})
        vips_of(state.tasks())
        assert state.waiting >= 0


@given(data=st.data())
def test_whatever_is_wrong_with_events_they_cost_themselves_alone(data: st.DataObject) -> None:
    state = MesosState.of_stream(RECOVERY[0])
    for row in RECOVERY[1:]:
        found = spoilt(row, data.draw(st.sampled_from(spots(row))), data.draw(JUNK)) if data.draw(st.booleans()) else row
        try:
            state.apply(found)
        except MinutemanError as error:
            assert str(error)  # noqa: PT017 - most do no harm
    vips_of(state.tasks())
