"""Mesos as a source, over real HTTP: what is published, what is not, and what the status says meanwhile."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from pathlib import Path
from time import sleep
from typing import Any

import pytest
import trio

from pyminuteman.http_client import HttpOptions
from pyminuteman.sources.base import SourceState
from pyminuteman.sources.mesos import MesosMode, MesosOptions, MesosSource
from pyminuteman.sources.mesos_state import MesosState
from pyminuteman.testing.mesos_double import Fault, MesosDouble, open_mesos_double
from pyminuteman.vips.model import VIPKey, VIPName
from tests.sources.support import SOON, comes_about, states_of

DATA = Path(__file__).parents[1] / "data"
NAMED = json.loads((DATA / "minuteman" / "named-base-vips.json").read_text())
OVERLAY = json.loads((DATA / "minuteman" / "overlay.json").read_text())
AGENT_STATE = json.loads((DATA / "dcos-net-master" / "vip-labels.json").read_text())
RECOVERY = [json.loads(line) for line in (DATA / "dcos-net-master" / "recovered-agents.json").read_text().splitlines() if line]
PODS = [json.loads(line) for line in (DATA / "dcos-net-master" / "pod-tasks.json").read_text().splitlines() if line]
MERP = VIPKey.tcp(VIPName("merp", "marathon"), 5000)
WEB = VIPKey.tcp(VIPName("/web", "marathon"), 10080)
pytestmark = pytest.mark.trio


def options(*urls: str, **changes: Any) -> MesosOptions:
    return MesosOptions(**{"urls": urls, "poll_seconds": 0.02, "retry_most_seconds": 0.1, "deadline_seconds": 5.0} | changes)


def keys(state: SourceState) -> list[str]:
    return [str(vip.key) for vip in state.vips]


def running(name: str, **changes: Any) -> dict[str, Any]:
    """``/state`` of an agent with one task."""
    state = copy.deepcopy(NAMED)
    task = state["frameworks"][0]["executors"][0]["tasks"][0]
    task["discovery"]["ports"]["ports"][0]["labels"]["labels"][0]["value"] = name
    task.update(changes)
    return state


# -- polling -----------------------------------------------------------------------------------------------------------


async def test_the_state_of_the_local_agent_is_polled_and_told_when_it_changes() -> None:
    double = MesosDouble()
    double.state = NAMED
    async with open_mesos_double(double):
        source = MesosSource(options(double.url))
        assert source.name == f"mesos:{double.url}"
        async with states_of(source) as following:
            assert keys(await following()) == ["tcp://merp@marathon:5000"]
            asked = len(double.requests)
            await comes_about(lambda: len(double.requests) > asked + 3, "three more polls")
            double.state = running("other:5001")
            assert keys(await following()) == ["tcp://other@marathon:5001"]
            double.state = running("other:5001", state="TASK_KILLING")
            (vip,) = (await following()).vips
            assert [backend.weight for backend in vip.backends] == [0]
            double.state = running("other:5001", state="TASK_KILLED")
            assert (await following()).vips == ()
        assert {(request.method, request.target) for request in double.requests} == {("GET", "/state")}
        assert source.status.counters["states"] == 4
        assert source.status.reason == ""


async def test_a_bad_label_is_a_problem_of_the_state_and_the_rest_counts() -> None:
    double = MesosDouble()
    double.state = running("merp")
    double.state["frameworks"] += OVERLAY["frameworks"]
    double.state["slaves"] = OVERLAY["slaves"]
    async with open_mesos_double(double), states_of(MesosSource(options(double.url))) as following:
        state = await following()
        assert keys(state) == ["tcp://1.2.3.4:5000"]
        (problem,) = state.problems
        assert "VIP_0" in problem.where
        assert "'merp' is not HOST:PORT" in problem.reason


async def test_the_operator_api_of_an_agent_takes_two_calls_and_of_a_master_one() -> None:
    agent, master = MesosDouble(), MesosDouble()
    master.get_state = AGENT_STATE
    agent.get_state = copy.deepcopy(AGENT_STATE)
    agent.get_agent = {"type": "GET_AGENT", "get_agent": agent.get_state["get_state"].pop("get_agents")["agents"][0]}
    found = []
    for double, calls in ((agent, ["GET_STATE", "GET_AGENT"]), (master, ["GET_STATE"])):
        async with open_mesos_double(double):
            async with states_of(MesosSource(options(double.url, mode=MesosMode.OPERATOR))) as following:
                found.append(await following())
            assert [request.json["type"] for request in double.requests[: len(calls)]] == calls
    assert len(found[0].vips) == 5
    assert found[0] == found[1]


async def test_an_agent_that_no_master_has_taken_in_says_nothing_yet() -> None:
    double = MesosDouble()
    double.state = running("merp:5000")
    async with open_mesos_double(double):
        source = MesosSource(options(double.url))
        async with states_of(source) as following:
            assert keys(await following()) == ["tcp://merp@marathon:5000"]
            double.state = running("merp:5000") | {"id": "", "frameworks": []}
            await comes_about(lambda: source.status.counters.get("unregistered", 0) > 2, "an agent without id")
            double.state = running("other:1")
            assert keys(await following()) == ["tcp://other@marathon:1"]


async def test_only_tasks_of_the_agent_asked_for_count() -> None:
    double = MesosDouble()
    double.state = OVERLAY
    async with open_mesos_double(double):
        async with states_of(MesosSource(options(double.url, agent="10.0.1.248"))) as following:
            assert len((await following()).vips) == 1
        async with states_of(MesosSource(options(double.url, agent="10.0.1.1"))) as following:
            assert await following() == SourceState()


async def test_the_name_of_an_agent_is_looked_up() -> None:
    double = MesosDouble()
    double.state = running("merp:5000") | {"hostname": "localhost", "pid": "slave(1)@localhost:5051"}
    async with open_mesos_double(double), states_of(MesosSource(options(double.url))) as following:
        (vip,) = (await following()).vips
        assert [backend.agent for backend in vip.backends] == ["127.0.0.1"]


async def test_the_token_is_read_from_its_file_at_each_request(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    double = MesosDouble()
    double.state, double.token = NAMED, "token=first"
    async with open_mesos_double(double):
        source = MesosSource(options(double.url, http=HttpOptions(token_file=token, token_scheme="token=")))  # noqa: S106 - no secret
        async with states_of(source) as following:
            assert keys(await following()) == [str(MERP)]
            double.token, double.state = "token=second", running("other:1")
            await comes_about(lambda: source.status.failures, "a refusal")
            assert "answered 401" in source.status.reason
            assert "first" not in source.status.reason
            token.write_text("second\n")
            assert keys(await following()) == ["tcp://other@marathon:1"]


# -- what goes wrong ---------------------------------------------------------------------------------------------------

WHOLE = json.dumps(NAMED).encode()


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=500, body=b"Failed to\n validate"), "answered 500: Failed to validate"),
        (Fault(status=503), "answered 503"),
        (Fault(cut_after=1000), "RemoteProtocolError"),
        (Fault(end_after=1000, piece=7), "is no JSON"),
        (Fault(end_after=0), "is no JSON"),
        (Fault(hang=True), "no complete answer within 1 s"),
        (Fault(piece=1, pause_seconds=0.02), "no complete answer within 1 s"),
        (Fault(status=200, body=b"{}"), "is no /state of a Mesos agent or master"),
        (Fault(status=200, body=b"[" * 100_000), "is no JSON"),
        (Fault(status=200, body=b'{"frameworks": [], "pid": 1}'), "is no /state"),
        (
            Fault(status=307, headers={"location": "//10.9.9.9:5050/state"}),
            "says that 10.9.9.9:5050 leads, which is none of the configured",
        ),
        (Fault(status=307), "answered 307"),
    ],
)
async def test_what_goes_wrong_is_told_and_the_last_state_stands(fault: Fault, reason: str) -> None:
    double = MesosDouble()
    double.state = NAMED
    async with open_mesos_double(double):
        source = MesosSource(options(double.url, deadline_seconds=1.0))
        async with states_of(source) as following:
            assert keys(await following()) == [str(MERP)]
            double.faults.extend([fault, fault])
            await comes_about(lambda: source.status.failures >= 2, "two failures in a row")
            assert reason in source.status.reason
            assert source.status.failing_since is not None
            await comes_about(lambda: not source.status.failures, "a good answer")
            assert source.status.reason == ""
            double.state = running("other:1")
            assert keys(await following()) == ["tcp://other@marathon:1"]  # nothing was told in between


async def test_a_body_that_comes_in_pieces_slowly_enough_is_still_an_answer() -> None:
    double = MesosDouble()
    double.state = NAMED
    double.faults.append(Fault(piece=500, pause_seconds=0.001))
    async with open_mesos_double(double), states_of(MesosSource(options(double.url))) as following:
        assert keys(await following()) == [str(MERP)]


async def test_a_server_that_is_not_there_is_told_and_found_once_it_is() -> None:
    double = MesosDouble()
    double.state = NAMED
    async with open_mesos_double(double):
        port = double.server.port
    source = MesosSource(options(double.url))
    async with states_of(source) as following:
        await comes_about(lambda: source.status.failures > 1, "two failures")
        assert "ConnectError" in source.status.reason
        assert f"127.0.0.1:{port}" in source.status.reason
        async with open_mesos_double(double, port=port):
            assert keys(await following()) == [str(MERP)]


async def test_waits_after_failures_grow_and_end_with_the_first_good_answer() -> None:
    double = MesosDouble()
    double.state = NAMED
    async with open_mesos_double(double):
        source = MesosSource(options(double.url, poll_seconds=0.05, retry_most_seconds=0.4))
        double.faults.extend([Fault(status=500)] * 6)
        async with states_of(source) as following:
            assert keys(await following()) == [str(MERP)]
        assert (source.status.failures, source.status.counters["failures"]) == (0, 6)
        times = [request.at for request in double.requests[:7]]
    waits = [later - earlier for earlier, later in pairwise(times)]
    for wait, most in zip(waits, (0.05, 0.1, 0.2, 0.4, 0.4, 0.4), strict=True):
        assert wait >= most / 2


# -- outages -----------------------------------------------------------------------------------------------------------


async def test_an_outage_keeps_everything_unless_told_otherwise() -> None:
    double = MesosDouble()
    double.state = NAMED
    async with open_mesos_double(double):
        source = MesosSource(options(double.url))
        async with source.states() as states:
            assert keys(await anext(states)) == [str(MERP)]
            double.faults.extend([Fault(status=500)] * 1000)
            with trio.move_on_after(0.5):
                pytest.fail(f"{await anext(states)} was told during an outage")
            assert source.status.failures > 2


@pytest.mark.parametrize("fault", [Fault(status=500), Fault(hang=True)])
async def test_an_outage_withdraws_everything_after_the_time_that_was_set(fault: Fault) -> None:
    double = MesosDouble()
    double.state = NAMED
    async with open_mesos_double(double):
        source = MesosSource(options(double.url, withdraw_after_seconds=0.4, deadline_seconds=0.3))
        async with states_of(source) as following:
            assert keys(await following()) == [str(MERP)]
            double.faults.extend([fault] * 1000)
            good_at = source.status.last_good_at
            assert await following() == SourceState()
            assert good_at is not None
            assert source.status.last_good_at is not None
            assert trio.current_time() - source.status.last_good_at >= 0.4
            assert source.status.reason.startswith("all VIPs are withdrawn, for nothing good was heard for 0.4 s; ")
            await comes_about(lambda: source.status.failures > 1, "another failure")
            assert source.status.reason.startswith("all VIPs are withdrawn")
            assert source.status.counters["withdrawals"] == 1
            double.faults.clear()
            assert keys(await following()) == [str(MERP)]
            assert source.status.reason == ""


async def test_what_never_answered_is_withdrawn_too() -> None:
    double = MesosDouble()
    double.faults.extend([Fault(hang=True)] * 100)
    async with open_mesos_double(double), states_of(MesosSource(options(double.url, withdraw_after_seconds=0.2))) as following:
        assert await following() == SourceState()


# -- masters -----------------------------------------------------------------------------------------------------------


async def test_a_redirect_to_a_configured_master_is_followed() -> None:
    follower, leader = MesosDouble(), MesosDouble()
    leader.state = OVERLAY
    async with open_mesos_double(leader), open_mesos_double(follower):
        follower.leader = leader.url.removeprefix("http:")  # as Mesos writes it: //127.0.0.1:5050/state
        async with states_of(MesosSource(options(follower.url, leader.url))) as following:
            assert len((await following()).vips) == 1
            await comes_about(lambda: len(leader.requests) > 3, "polls of the leader")
        assert len(follower.requests) == 1


async def test_redirects_in_a_circle_end_with_a_reason() -> None:
    one, other = MesosDouble(), MesosDouble()
    async with open_mesos_double(one), open_mesos_double(other):
        one.leader, other.leader = other.url, one.url
        source = MesosSource(options(one.url, other.url))
        async with source.states():
            await comes_about(lambda: source.status.failures > 1, "failures")
            assert source.status.reason == "each of the 2 servers says that another one leads"


async def test_a_master_that_fails_gives_way_to_the_next() -> None:
    dead, leader = MesosDouble(), MesosDouble()
    leader.state = OVERLAY
    async with open_mesos_double(leader):
        async with open_mesos_double(dead):
            pass
        async with states_of(MesosSource(options(dead.url, leader.url))) as following:
            assert len((await following()).vips) == 1


@pytest.mark.parametrize("mode", [MesosMode.STATE, MesosMode.OPERATOR])
async def test_a_master_that_is_polled_is_not_believed_before_its_agents_are_back_either(mode: MesosMode) -> None:
    double = MesosDouble()
    double.state, double.get_state = OVERLAY, AGENT_STATE
    async with open_mesos_double(double):
        source = MesosSource(options(double.url, mode=mode, agents_seconds=SOON, tasks_seconds=0.05))
        async with source.states() as states:
            with trio.fail_after(SOON):
                told = len((await anext(states)).vips)
            assert told in {1, 5}
            remembered = {"id": {"value": "S9"}, "hostname": "10.0.0.9"}
            double.state = OVERLAY | {"frameworks": [], "slaves": [], "recovered_slaves": [{"id": "S9"}]}
            double.get_state = {"type": "GET_STATE", "get_state": {"get_agents": {"recovered_agents": [remembered]}}}
            await comes_about(lambda: source.status.counters.get("recovering", 0) > 5, "polls of a new leader")
            double.state = OVERLAY | {"frameworks": []}
            double.get_state = {"type": "GET_STATE", "get_state": {"get_agents": {}}}
            with trio.fail_after(SOON):
                assert await anext(states) == SourceState()  # that is what it knows, now that all are back
            assert source.status.failures == 0


async def test_a_master_that_is_polled_waits_for_its_agents_no_longer_than_their_time() -> None:
    double = MesosDouble()
    double.state = OVERLAY | {"recovered_slaves": [{"id": "S9"}]}
    async with open_mesos_double(double):
        source = MesosSource(options(double.url, agents_seconds=0.1, tasks_seconds=0.05))
        async with states_of(source) as following:
            assert len((await following()).vips) == 1
            assert source.status.counters["recovering"] > 0
            double.state = OVERLAY | {"recovered_slaves": [{"id": "S9"}], "frameworks": []}
            assert await following() == SourceState()


# -- the stream --------------------------------------------------------------------------------------------------------


def subscribe(*urls: str, **changes: Any) -> MesosOptions:
    return options(*urls, mode=MesosMode.SUBSCRIBE, **{"agents_seconds": SOON, "tasks_seconds": 0.05} | changes)


def subscribed(heartbeat_seconds: float = 15.0) -> list[Any]:
    """The events of a stream without a recovery: all that the recorded one came to."""
    first, _, agent, framework, *tasks = copy.deepcopy(RECOVERY)
    state = first["subscribed"]["get_state"]
    state["get_agents"] = {"agents": [agent["agent_added"]["agent"]]}
    state["get_frameworks"] = {"frameworks": [framework["framework_added"]["framework"]]}
    first["subscribed"]["heartbeat_interval_seconds"] = heartbeat_seconds
    return [first, *tasks]


@pytest.mark.parametrize("piece", [0, 1000, 7])
async def test_a_stream_tells_what_its_events_come_to_however_it_is_cut(piece: int) -> None:
    double = MesosDouble.master(subscribed())
    double.piece = piece
    async with open_mesos_double(double):
        source = MesosSource(subscribe(double.url))
        async with states_of(source) as following:
            state = await following()
            while not state.vips:
                state = await following()
            assert keys(state) == [str(WEB)]
            (backend,) = state.vips[0].backends
            assert (str(backend.key), backend.agent, str(backend.local)) == (
                "172.17.0.4:16424",
                "172.17.0.4",
                "172.31.254.10:10080",
            )
            ended = copy.deepcopy(RECOVERY[-1])
            ended["task_updated"]["state"] = "TASK_KILLED"
            await double.tell({"type": "HEARTBEAT"}, {"type": "SOMETHING_NEW", "something_new": {}}, ended)
            assert (await following()).vips == ()
        assert source.status.counters["streams"] == 1
        assert source.status.counters["odd"] == 1
    (request,) = double.requests
    assert (request.method, request.target, request.json) == ("POST", "/api/v1", {"type": "SUBSCRIBE"})
    assert request.headers["accept"] == "application/json"


async def test_nothing_is_told_before_the_agents_of_a_new_leader_are_back() -> None:
    double = MesosDouble.master(RECOVERY[:2])
    async with open_mesos_double(double):
        source = MesosSource(subscribe(double.url))
        async with source.states() as states:
            with trio.move_on_after(0.3):
                pytest.fail(f"{await anext(states)} was told too early")
            assert source.status.reason == "waiting for agents to come back"
            await double.tell(*RECOVERY[2:])
            with trio.fail_after(SOON):
                assert keys(await anext(states)) == [str(WEB)]
            assert source.status.reason == ""


async def test_a_leader_that_waits_for_its_agents_is_not_silent() -> None:
    double = MesosDouble.master(subscribed())
    double.heartbeat_seconds = 0.05
    async with open_mesos_double(double):
        source = MesosSource(subscribe(double.url, withdraw_after_seconds=1.0))
        async with source.states() as states:
            with trio.fail_after(SOON):
                while not (await anext(states)).vips:
                    pass
            double.history = RECOVERY[:2]  # another leader
            await double.tell_bytes(None)
            await comes_about(lambda: source.status.counters["streams"] == 2, "another stream")
            with trio.move_on_after(1.8):
                pytest.fail(f"{await anext(states)} was told while the leader waits for its agents")
            double.heartbeat_seconds = None
            double.faults.extend([Fault(hang=True)] * 100)
            await double.tell_bytes(None)
            with trio.fail_after(SOON):
                assert await anext(states) == SourceState()


async def test_agents_that_do_not_come_back_are_waited_for_no_longer_than_their_time() -> None:
    double = MesosDouble.master(RECOVERY[:2])
    async with open_mesos_double(double), states_of(MesosSource(subscribe(double.url, agents_seconds=0.1))) as following:
        assert await following() == SourceState()


async def test_a_stream_without_heartbeats_is_opened_again_and_the_state_stands() -> None:
    double = MesosDouble.master(subscribed(heartbeat_seconds=0.1))
    async with open_mesos_double(double):
        source = MesosSource(subscribe(double.url))
        async with source.states() as states:
            with trio.fail_after(SOON):
                while not (state := await anext(states)).vips:
                    pass
            await comes_about(lambda: source.status.counters["streams"] > 2, "a third stream")
            assert source.status.counters["failures"] > 1
            assert keys(state) == [str(WEB)]
            with trio.move_on_after(0.2):
                pytest.fail(f"{await anext(states)} was told although nothing changed")


async def test_heartbeats_keep_a_stream_open() -> None:
    double = MesosDouble.master(subscribed(heartbeat_seconds=0.5))
    double.heartbeat_seconds = 0.05
    async with open_mesos_double(double):
        source = MesosSource(subscribe(double.url))
        async with source.states():
            await comes_about(
                lambda: source.status.counters.get("records", 0) > 40,
                "forty records, which take longer than the watchdog has patience",
            )
            assert source.status.counters["streams"] == 1
            assert source.status.failures == 0
            double.heartbeat_seconds = None
            await double.tell({"type": "HEARTBEAT"})  # the one under way may still come; then silence
            await comes_about(lambda: source.status.counters["streams"] > 1, "the watchdog")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (None, "the stream has ended"),
        (b"17\n{", "the stream has ended, within a record"),
        (b"hello\n", "no RecordIO: b'hello'"),
        (b"HTTP/1.1 502 Bad Gateway", "12 digits at most"),
        (b"999999999999\n", "is longer than"),
        (b"3\n{a}", "is no JSON"),
        (b"2\n[]", ""),
    ],
)
async def test_a_stream_that_breaks_is_opened_again_with_a_reason(data: bytes | None, reason: str) -> None:
    double = MesosDouble.master(subscribed())
    async with open_mesos_double(double):
        source = MesosSource(subscribe(double.url))
        reasons: set[str] = set()
        async with source.states():
            await comes_about(lambda: source.status.counters.get("states"), "a state")
            if data is not None:
                await double.tell_bytes(data)
            if not reason:  # odd, but no reason to hang up
                await comes_about(lambda: source.status.counters["records"] > len(double.history), "the odd record")
                assert source.status.counters["streams"] == 1
                return
            if reason.startswith("the stream has ended"):
                await double.tell_bytes(None)
            await comes_about(lambda: source.status.failures, "the end of the stream")
            reasons.add(source.status.reason)
            await comes_about(lambda: source.status.counters["streams"] > 1, "another stream")
        assert all(reason in found for found in reasons)


async def test_a_second_beginning_within_a_stream_is_refused() -> None:
    double = MesosDouble.master(subscribed())
    async with open_mesos_double(double):
        source = MesosSource(subscribe(double.url))
        async with source.states():
            await comes_about(lambda: source.status.counters.get("states"), "a state")
            await double.tell(subscribed()[0])
            await comes_about(lambda: source.status.failures, "a refusal")
            assert "begins a second time" in source.status.reason


@pytest.mark.parametrize("first", [{"type": "HEARTBEAT"}, {"type": "SUBSCRIBED"}, {"type": "SUBSCRIBED", "subscribed": {}}, []])
async def test_a_stream_that_does_not_begin_with_a_state_is_none(first: Any) -> None:
    double = MesosDouble.master([first])
    async with open_mesos_double(double):
        source = MesosSource(subscribe(double.url))
        async with source.states() as states:
            await comes_about(lambda: source.status.failures > 1, "failures")
            assert "is no SUBSCRIBED" in source.status.reason or "begins without a state" in source.status.reason
            with trio.move_on_after(0.1):
                pytest.fail(f"{await anext(states)} came of it")


async def test_the_next_master_is_asked_when_the_leader_dies_and_its_redirects_are_followed() -> None:
    one, other = MesosDouble.master(subscribed()), MesosDouble.master(PODS)
    async with open_mesos_double(other), open_mesos_double(one):
        other.leader = one.url.removeprefix("http:")
        source = MesosSource(subscribe(one.url, other.url))
        async with source.states() as states:
            with trio.fail_after(SOON):
                while not (await anext(states)).vips:
                    pass
            one.leader, other.leader = other.url.removeprefix("http:"), ""
            await one.tell_bytes(None)
            with trio.fail_after(SOON):
                assert (await anext(states)).vips == ()
            assert other.subscribers == 1


async def test_an_agent_has_no_stream_of_events() -> None:
    double = MesosDouble()
    async with open_mesos_double(double):
        source = MesosSource(subscribe(double.url))
        async with source.states():
            await comes_about(lambda: source.status.failures, "a refusal")
            assert "answered 501" in source.status.reason


async def test_leaving_the_block_closes_the_stream() -> None:
    double = MesosDouble.master(subscribed())
    double.heartbeat_seconds = 0.02
    async with open_mesos_double(double):
        async with MesosSource(subscribe(double.url)).states():
            await comes_about(lambda: double.subscribers == 1, "a subscriber")
        await comes_about(lambda: double.subscribers == 0, "its end")


async def test_an_error_of_the_reader_comes_out_as_it_is() -> None:
    double = MesosDouble()
    double.state = NAMED
    async with open_mesos_double(double):
        with pytest.raises(ZeroDivisionError):
            async with MesosSource(options(double.url)).states():
                raise ZeroDivisionError


async def test_a_label_that_should_be_written_otherwise_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    double = MesosDouble()
    double.state = json.loads((DATA / "dcos-net-1.11.x" / "state2_ipv6.json").read_text())
    async with open_mesos_double(double):
        source = MesosSource(options(double.url))
        async with states_of(source) as following:
            assert keys(await following()) == ["tcp://[fd01:d::1]:80"]
            await comes_about(lambda: source.status.counters["fetches"] > 3, "three more polls")
        assert source.status.counters["warnings"] == 1
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "'fd01:d::1:80' is taken for [fd01:d::1]:80; write it with brackets" in record.message


async def test_a_stream_finds_agents_by_name_too() -> None:
    events = subscribed()
    agent = events[0]["subscribed"]["get_state"]["get_agents"]["agents"][0]
    agent["agent_info"]["hostname"], agent["pid"] = "localhost", "slave(1)@localhost:5051"
    double = MesosDouble.master(events)
    async with open_mesos_double(double), states_of(MesosSource(subscribe(double.url))) as following:
        while not (state := await following()).vips:
            pass
        assert [backend.agent for vip in state.vips for backend in vip.backends] == ["127.0.0.1"]


async def test_a_state_that_takes_long_to_read_is_no_silence_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    read = MesosState.of_stream

    def slowly(*args: Any, **kwargs: Any) -> MesosState:
        sleep(0.6)  # in a thread, as a state of a hundred thousand tasks takes
        return read(*args, **kwargs)

    monkeypatch.setattr(MesosState, "of_stream", slowly)
    double = MesosDouble.master(subscribed(heartbeat_seconds=0.1))
    double.heartbeat_seconds = 0.02
    async with open_mesos_double(double):
        source = MesosSource(subscribe(double.url, deadline_seconds=0.3))
        async with states_of(source) as following:
            while not (state := await following()).vips:
                pass
            assert keys(state) == [str(WEB)]
        assert source.status.counters["streams"] == 1
