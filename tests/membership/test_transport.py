"""The contract of transports: one suite, on the network in memory and on real sockets of both families."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pytest
import trio

from pyminuteman.addresses import Endpoint
from pyminuteman.membership.transport import NetworkTransport, Transport
from pyminuteman.testing.memory_transport import MemoryNetwork

pytestmark = pytest.mark.trio

Open = Callable[..., Transport]
OTHER_FAMILY = {"127.0.0.1": "::1", "::1": "127.0.0.1"}


@pytest.fixture(params=["memory", "memory6", "udp", "udp6"])
def where(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def address(where: str) -> str:
    return "::1" if where.endswith("6") else "127.0.0.1"


@pytest.fixture
def open_transport(where: str, address: str) -> Iterator[Open]:
    opened: list[Transport] = []
    network = MemoryNetwork()

    def make(port: int = 0) -> Transport:
        endpoint = Endpoint(address, port)
        made: Transport = network.transport(endpoint) if where.startswith("memory") else NetworkTransport(endpoint)
        opened.append(made)
        return made

    yield make
    for transport in opened:
        transport.close()


async def receive(transport: Transport, seconds: float = 2.0) -> bytes:
    until = trio.current_time() + seconds
    while trio.current_time() < until:
        await transport.wait(until)
        if (datagram := transport.receive()) is not None:
            return bytes(datagram)
    raise TimeoutError


async def test_datagrams_arrive_whole(open_transport: Open) -> None:
    one, two = open_transport(), open_transport()
    for datagram in (b"hello", bytes(range(256)) * 4, b""):
        assert one.send(datagram, two.advertised)
        assert await receive(two) == datagram
    assert two.receive() is None
    assert two.send(b"back", one.advertised)
    assert await receive(one) == b"back"


async def test_what_has_arrived_is_taken_in_one_go_and_in_order(open_transport: Open) -> None:
    one, two = open_transport(), open_transport()
    sent = [b"%d" % number for number in range(100)]
    for datagram in sent:
        one.send(datagram, two.advertised)
    taken: list[bytes] = [await receive(two)]
    while (datagram := two.receive()) is not None:
        taken.append(bytes(datagram))
    assert taken == sent


async def test_they_are_counted(open_transport: Open) -> None:
    one, two = open_transport(), open_transport()
    one.send(b"123", two.advertised)
    one.send(b"45", two.advertised)
    await receive(two)
    await receive(two)
    assert (one.counters.datagrams_sent, one.counters.bytes_sent) == (2, 5)
    assert (two.counters.datagrams_received, two.counters.bytes_received) == (2, 5)
    assert one.counters.unsent == {}


async def test_a_wait_ends_at_its_time(open_transport: Open) -> None:
    one = open_transport()
    before = trio.current_time()
    await one.wait(before + 0.03)
    assert trio.current_time() >= before + 0.03
    await one.wait(before)  # long past
    await one.wait(-math.inf)
    assert one.receive() is None


async def test_a_wait_of_the_same_time_again_ends_at_once(open_transport: Open) -> None:
    one = open_transport()
    until = trio.current_time() + 0.01
    with trio.fail_after(2):
        await one.wait(until)
        await one.wait(until)
        await one.wait(until)


async def test_a_wait_without_end_ends_with_a_datagram(open_transport: Open) -> None:
    one, two = open_transport(), open_transport()
    await two.wait(trio.current_time() + 0.01)
    with trio.move_on_after(0.05) as scope:
        await two.wait(math.inf)
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        nursery.start_soon(two.wait, math.inf)
        await trio.testing.wait_all_tasks_blocked()
        one.send(b"x", two.advertised)
    assert two.receive() == b"x"
    with trio.move_on_after(0.05) as scope:
        await two.wait(math.inf)
    assert scope.cancelled_caught


async def test_a_wait_can_be_hurried(open_transport: Open) -> None:
    one = open_transport()
    before = trio.current_time()
    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.wait, before + 60)
            await trio.testing.wait_all_tasks_blocked()
            one.hurry(before + 70)  # which is later
            one.hurry(before + 0.03)
    assert trio.current_time() >= before + 0.03


async def test_too_large_a_datagram_is_dropped(open_transport: Open) -> None:
    one, two = open_transport(), open_transport()
    assert not one.send(bytes(70_000), two.advertised)
    assert one.counters.unsent == {"EMSGSIZE": 1}
    assert one.counters.datagrams_sent == 0


async def test_another_family_is_not_reached(open_transport: Open, address: str) -> None:
    one = open_transport()
    elsewhere = Endpoint(OTHER_FAMILY[address], 9)
    assert not one.send(b"x", elsewhere)
    assert one.counters.unsent == {"EAFNOSUPPORT": 1}
    with pytest.raises(OSError, match="reached"):
        await one.connect(elsewhere)


async def test_that_nobody_is_there_is_no_error(open_transport: Open) -> None:
    one, two, gone = open_transport(), open_transport(), open_transport()
    gone.close()
    for _ in range(3):
        one.send(b"x", gone.advertised)
        await one.wait(trio.current_time() + 0.01)
        assert one.receive() is None
    two.send(b"still here", one.advertised)
    assert await receive(one) == b"still here"


async def test_the_port_advertised_is_real_and_its_own(open_transport: Open, address: str) -> None:
    one, two = open_transport(), open_transport()
    assert one.advertised.address == address
    assert one.advertised.port > 0
    assert one.advertised != two.advertised
    assert one.is_private
    with pytest.raises(OSError, match="cannot listen on"):
        open_transport(one.advertised.port)


async def test_streams(open_transport: Open, address: str) -> None:
    one, two = open_transport(), open_transport()
    async with trio.open_nursery() as nursery:
        accepted: list[tuple[trio.abc.Stream, str]] = []

        async def accept() -> None:
            accepted.append(await two.accept())

        nursery.start_soon(accept)
        ours = await one.connect(two.advertised)
    theirs, source = accepted[0]
    assert source == address
    await ours.send_all(b"hello")
    assert await theirs.receive_some(100) == b"hello"
    await theirs.send_all(b"well")
    assert await ours.receive_some(100) == b"well"
    await ours.aclose()
    assert await theirs.receive_some(100) == b""
    await theirs.aclose()


async def test_a_stream_to_nobody_is_refused(open_transport: Open) -> None:
    one, gone = open_transport(), open_transport()
    gone.close()
    with trio.fail_after(2), pytest.raises(OSError):  # noqa: PT011 - the system's words
        await one.connect(gone.advertised)


async def test_closing_ends_those_who_wait(open_transport: Open) -> None:
    one, two = open_transport(), open_transport()
    ended = []

    async def waits(what: Callable[[], object]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await what()  # type: ignore[misc]
        ended.append(what)

    with trio.fail_after(2):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waits, lambda: one.wait(math.inf))
            nursery.start_soon(waits, one.accept)
            await trio.testing.wait_all_tasks_blocked()
            one.close()
            one.close()
    assert len(ended) == 2
    assert not one.send(b"x", two.advertised)
    assert one.receive() is None
