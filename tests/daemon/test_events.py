import pytest
import trio

from pyminuteman.daemon.events import EventLog


def test_events_are_numbered_and_the_oldest_makes_room() -> None:
    log = EventLog(3, clock=lambda: 7.0)
    assert (log.oldest, log.newest, log.since(0)) == (0, 0, [])
    for number in range(5):
        event = log.tell("sync", f"number {number}", {"number": number})
    assert event.id == log.newest == 5
    assert log.oldest == 3
    assert [one.id for one in log.since(0)] == [3, 4, 5]
    assert [one.id for one in log.since(4)] == [5]
    assert log.since(5) == log.since(99) == []
    assert log.counts["sync"] == 5
    assert log.since(4)[0].data == {"number": 4}
    assert log.since(4)[0].time == 7.0


def test_each_log_is_of_a_life_of_its_own() -> None:
    assert EventLog(life="0123456789abcdef").life == "0123456789abcdef"
    lives = {EventLog().life for _ in range(3)}
    assert len(lives) == 3
    assert all(len(life) == 16 and int(life, 16) >= 0 for life in lives)


def test_a_kind_that_nobody_listens_for_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="no kind of event"):
        EventLog().tell("backend_gone", "")


@pytest.mark.trio
@pytest.mark.usefixtures("autojump_clock")
async def test_who_waits_is_woken_by_a_later_event_only() -> None:
    log = EventLog()
    log.tell("sync", "before")
    woken: list[float] = []

    async def wait(number: int) -> None:
        await log.wait_beyond(number)
        woken.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        began = trio.current_time()
        nursery.start_soon(wait, 0)
        nursery.start_soon(wait, 1)
        nursery.start_soon(wait, 2)
        await trio.sleep(1)
        log.tell("sync", "second")
        await trio.sleep(1)
        log.tell("sync", "third")
    assert [round(at - began) for at in woken] == [0, 1, 2]
