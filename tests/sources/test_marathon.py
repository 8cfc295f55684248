"""Marathon as a source, over real HTTP: events say when to read, polls stand in for them, and failures keep the last state."""

from __future__ import annotations

from typing import Any

import pytest
import trio

from pyminuteman.sources.base import SourceState
from pyminuteman.sources.marathon import MarathonOptions, MarathonSource
from pyminuteman.testing.marathon_double import MarathonDouble, open_marathon_double
from pyminuteman.testing.mesos_double import Fault
from pyminuteman.vips.model import VIPName
from tests.sources.support import SOON, comes_about, states_of

pytestmark = pytest.mark.trio

NO_EVENTS = [Fault(status=404)] * 10_000


def options(*doubles: MarathonDouble, **changes: Any) -> MarathonOptions:
    """Polls that are far apart while there are events, and quick without."""
    fast = {"poll_seconds": 3600.0, "unattached_poll_seconds": 0.02, "retry_most_seconds": 0.1, "deadline_seconds": 5.0}
    return MarathonOptions(**{"urls": tuple(double.server.url for double in doubles)} | fast | changes)


def app(label: str, **changes: Any) -> dict[str, Any]:
    task = {"id": "web.1", "appId": "/web", "host": "10.0.0.1", "ports": [31000], "state": "TASK_RUNNING"} | changes
    return {"id": "/web", "portDefinitions": [{"port": 10000, "protocol": "tcp", "labels": {"VIP_0": label}}], "tasks": [task]}


def keys(state: SourceState) -> list[str]:
    return [str(vip.key) for vip in state.vips]


async def test_an_event_brings_what_has_changed_and_nothing_is_read_without_one() -> None:
    double = MarathonDouble(app("/a:80"))
    async with open_marathon_double(double):
        source = MarathonSource(options(double))
        assert source.name == f"marathon:{double.server.url}"
        async with states_of(source) as following:
            assert keys(await following()) == ["tcp:///a@marathon:80"]
            await comes_about(lambda: double.listeners == 1 and source.status.counters["events"], "a stream of events")
            double.apps = {"apps": [app("/b:80")]}
            await double.tell("status_update_event", taskStatus="TASK_RUNNING")
            assert keys(await following()) == ["tcp:///b@marathon:80"]
            read = source.status.counters["fetches"]
            await double.tell_bytes(b": nothing\r\n\r\nevent: half\r\ndata: a")
            with trio.move_on_after(0.5):
                await following()
            assert source.status.counters["fetches"] <= read + 1  # the attachment itself may have asked for one more
        asked = {(request.target, request.headers["accept"]) for request in double.server.requests}
        assert asked == {("/v2/apps?embed=apps.tasks", "*/*"), ("/v2/events", "text/event-stream")}


async def test_a_storm_of_events_is_read_five_times_a_second_at_most() -> None:
    double = MarathonDouble(app("/a:80"))
    async with open_marathon_double(double):
        source = MarathonSource(options(double))
        async with states_of(source) as following:
            await following()
            await comes_about(lambda: source.status.counters["events"], "a stream of events")
            read, begun = source.status.counters["fetches"], trio.current_time()
            double.apps = {"apps": [app("/b:80")]}
            for number in range(200):
                await double.tell("status_update_event", number=number)
            assert keys(await following()) == ["tcp:///b@marathon:80"]
            await comes_about(lambda: source.status.counters["events"] > 200, "all events")
            assert source.status.counters["fetches"] <= read + 3 + (trio.current_time() - begun) / 0.2


async def test_without_events_it_is_polled() -> None:
    double = MarathonDouble(app("/a:80"))
    double.events_faults.extend(NO_EVENTS)
    async with open_marathon_double(double), states_of(MarathonSource(options(double))) as following:
        assert keys(await following()) == ["tcp:///a@marathon:80"]
        double.apps = {"apps": [app("/b:80")]}
        assert keys(await following()) == ["tcp:///b@marathon:80"]


async def test_a_stream_that_ends_is_opened_again_and_what_happened_meanwhile_is_read() -> None:
    double = MarathonDouble(app("/a:80"))
    async with open_marathon_double(double):
        source = MarathonSource(options(double))
        async with states_of(source) as following:
            await following()
            await comes_about(lambda: double.listeners == 1, "a stream of events")
            double.apps = {"apps": [app("/b:80")]}
            await double.tell_bytes(None)
            assert keys(await following()) == ["tcp:///b@marathon:80"]
            await comes_about(lambda: source.status.counters["streams"] == 2, "another stream")
            assert source.status.counters["stream_failures"] == 1
            assert source.status.failures == 0


async def test_what_is_no_stream_of_events_is_none() -> None:
    double = MarathonDouble(app("/a:80"))
    double.events_faults.extend([Fault(status=200, body=b"data: a\n\n", headers={"content-type": "text/html"})] * 3)
    async with open_marathon_double(double):
        source = MarathonSource(options(double))
        async with states_of(source) as following:
            await following()
            await comes_about(lambda: source.status.counters["stream_failures"] >= 3, "failures")
            await comes_about(lambda: source.status.counters["streams"] == 1, "a stream at last")


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault(status=503, body=b'{"message":"Could not determine the current leader"}'), "answered 503: "),
        (Fault(end_after=20), "is no JSON"),
        (Fault(cut_after=20), "RemoteProtocolError"),
        (Fault(status=200, body=b'{"message":"x"}'), "is no list of apps of Marathon"),
        (Fault(piece=1, pause_seconds=0.02), "no complete answer within 1 s"),
        (Fault(status=307, headers={"location": "http://10.9.9.9:8080/v2/apps"}), "says that 10.9.9.9:8080 leads"),
    ],
)
async def test_what_goes_wrong_is_told_and_the_last_state_stands(fault: Fault, reason: str) -> None:
    double = MarathonDouble(app("/a:80"))
    double.events_faults.extend(NO_EVENTS)
    async with open_marathon_double(double):
        source = MarathonSource(options(double, deadline_seconds=1.0))
        async with states_of(source) as following:
            assert keys(await following()) == ["tcp:///a@marathon:80"]
            double.faults.extend([fault, fault])
            await comes_about(lambda: source.status.failures >= 2, "two failures in a row")
            assert reason in source.status.reason
            await comes_about(lambda: not source.status.failures, "a good answer")
            double.apps = {"apps": [app("/b:80")]}
            assert keys(await following()) == ["tcp:///b@marathon:80"]


async def test_events_do_not_hurry_a_server_that_fails() -> None:
    double = MarathonDouble(app("/a:80"))
    async with open_marathon_double(double):
        source = MarathonSource(options(double, unattached_poll_seconds=4.0, retry_most_seconds=4.0))
        async with states_of(source) as following:
            await following()
            await comes_about(lambda: source.status.counters["events"], "a stream of events")
            double.faults.extend([Fault(status=500)] * 100)
            await double.tell("status_update_event")
            await comes_about(lambda: source.status.failures == 1, "a failure")
            begun = trio.current_time()
            while trio.current_time() < begun + 0.5:
                await double.tell("status_update_event")
                await trio.sleep(0.01)
            assert source.status.failures == 1


async def test_an_outage_withdraws_everything_after_the_time_that_was_set() -> None:
    double = MarathonDouble(app("/a:80"))
    double.events_faults.extend(NO_EVENTS)
    async with open_marathon_double(double):
        source = MarathonSource(options(double, poll_seconds=0.02, withdraw_after_seconds=0.3))
        async with states_of(source) as following:
            assert keys(await following()) == ["tcp:///a@marathon:80"]
            double.faults.extend([Fault(status=500)] * 1000)
            with trio.fail_after(SOON):  # where the machine stalls, it may be withdrawn, and back, once more in between
                while await following() != SourceState():
                    pass
            assert source.status.reason.startswith("all VIPs are withdrawn, for nothing good was heard for 0.3 s; ")
            double.faults.clear()
            with trio.fail_after(SOON):
                while keys(await following()) != ["tcp:///a@marathon:80"]:
                    pass


async def test_the_leader_is_followed_among_the_instances_that_were_named() -> None:
    follower, leader = MarathonDouble(), MarathonDouble(app("/a:80"))
    async with open_marathon_double(follower), open_marathon_double(leader):
        follower.leader = leader.server.url
        async with states_of(MarathonSource(options(follower, leader))) as following:
            assert keys(await following()) == ["tcp:///a@marathon:80"]
            await comes_about(lambda: leader.listeners == 1, "a stream of the leader's events")


async def test_names_are_those_of_its_framework_and_agents_may_be_chosen(caplog: pytest.LogCaptureFixture) -> None:
    local, other = app("/a:80", host="localhost"), app("fd00::1:80", id="web.2", ipAddresses=[{"ipAddress": "fd00::7"}])
    double = MarathonDouble(
        local,
        other
        | {
            "networks": [{"mode": "container"}],
            "container": {"portMappings": [{"containerPort": 80, "labels": {"VIP_0": "fd00::1:80"}}]},
        },
    )
    double.events_faults.extend(NO_EVENTS)
    async with open_marathon_double(double):
        async with states_of(MarathonSource(options(double, framework="mom"))) as following:
            state = await following()
            assert keys(state) == ["tcp://[fd00::1]:80", "tcp:///a@mom:80"]
            assert [backend.agent for vip in state.vips for backend in vip.backends] == ["10.0.0.1", "127.0.0.1"]
        async with states_of(MarathonSource(options(double, agent="127.0.0.1"))) as following:
            (vip,) = (await following()).vips
            assert vip.key.host == VIPName("/a", "marathon")
    assert [record.message.partition(": task")[2] for record in caplog.records if record.levelname == "WARNING"] == [
        " mom/web.2: VIP_0: 'fd00::1:80' is taken for [fd00::1]:80; write it with brackets"
    ]
