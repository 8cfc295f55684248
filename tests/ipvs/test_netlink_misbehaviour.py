"""What the C module makes of a kernel that answers badly: an error each time, never a wrong table, a crash or a hang.

Run again under AddressSanitizer and UndefinedBehaviorSanitizer by tests/csrc.
"""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Iterator
from errno import EBADMSG, EBUSY, ECANCELED, ECONNRESET, EEXIST, EMSGSIZE, ENOBUFS, ENODATA, EOPNOTSUPP, ETIMEDOUT

import pytest

from pyminuteman.ipvs import (
    AddDestination,
    AddService,
    Destination,
    IPVSUnavailableError,
    KernelError,
    NetlinkBackend,
    Plan,
    Service,
    Snapshot,
    SnapshotUnstable,
    SyncDaemon,
    SyncRole,
)
from pyminuteman.testing.fake_kernel import FakeKernel
from tests.support import netlink_messages as netlink
from tests.support.netlink_messages import HEADER, Request
from tests.support.puppet import GET_DAEMON, GET_DEST, GET_INFO, GET_SERVICE, PuppetKernel

WEB = Service.tcp("11.0.0.1", 80)
ROWS = [Destination(f"10.0.0.{n}", 8080) for n in range(1, 31)]
TABLE = {WEB: ROWS, Service.udp("fd00::1", 53): [Destination("fd00::5", 53)], Service.fwmark(7): []}
Make = Callable[..., tuple[PuppetKernel, NetlinkBackend]]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[tuple[PuppetKernel, NetlinkBackend]] = []

    def build(*, filled: bool = True, timeout_seconds: float = 5.0, **options: object) -> tuple[PuppetKernel, NetlinkBackend]:
        puppet = PuppetKernel(**options)  # type: ignore[arg-type]
        if filled:
            puppet.fake.execute(puppet.fake.diff(Snapshot(), Snapshot.of(TABLE)))
        made.append((puppet, puppet.backend(timeout_seconds)))
        return made[-1]

    yield build
    for puppet, backend in made:
        backend.close()
        puppet.close()


def only(command: int, change: Callable[[Request, list[bytes]], list[bytes] | None]) -> object:
    """Misbehave for one command."""
    return lambda request, answer: change(request, answer) if request.command == command else answer


def mangle(rows: Callable[[bytes], bytes]) -> object:
    """Change every datagram that carries services."""
    return only(GET_SERVICE, lambda _, answer: [rows(datagram) for datagram in answer])


def fails(backend: NetlinkBackend, errno: int) -> None:
    with pytest.raises(KernelError) as caught:
        backend.read()
    assert caught.value.errno == errno


def service_of(*parts: bytes) -> Callable[[Request, list[bytes]], list[bytes]]:
    """One service of these attributes."""
    return lambda request, _: [netlink.row(request.sequence, 1, netlink.nest(1, *parts)) + netlink.done(request.sequence)]


FULL = {
    1: netlink.u16(1, 2),
    2: netlink.u16(2, 6),
    3: netlink.attribute(3, bytes(16)),
    4: netlink.u16(4, 80),
    6: netlink.text(6, b"rr"),
    7: netlink.attribute(7, bytes(8)),
    8: netlink.u32(8, 0),
    9: netlink.u32(9, 0),
}
ROW = {
    1: netlink.attribute(1, bytes(16)),
    2: netlink.u16(2, 80),
    3: netlink.u32(3, 0),
    4: netlink.u32(4, 1),
    11: netlink.u16(11, 2),
}


# Attributes


@pytest.mark.parametrize("missing", FULL)
def test_a_service_without_a_needed_attribute_is_no_service(make: Make, missing: int) -> None:
    parts = [part for kind, part in FULL.items() if kind != missing]
    _, backend = make(misbehave=only(GET_SERVICE, service_of(*parts)))
    fails(backend, EBADMSG)


@pytest.mark.parametrize("wrong", [1, 2, 3, 4, 7, 8, 9])
def test_a_service_attribute_that_is_too_short_is_an_error(make: Make, wrong: int) -> None:
    parts = [netlink.attribute(kind, b"\1") if kind == wrong else part for kind, part in FULL.items()]
    _, backend = make(misbehave=only(GET_SERVICE, service_of(*parts)))
    fails(backend, EBADMSG)


@pytest.mark.parametrize("family", [0, 1, 3, 7, 255])
def test_a_family_that_is_none_is_an_error(make: Make, family: int) -> None:
    parts = [netlink.u16(1, family) if kind == 1 else part for kind, part in FULL.items()]
    _, backend = make(misbehave=only(GET_SERVICE, service_of(*parts)))
    fails(backend, EBADMSG)


def test_a_message_without_the_nest_is_an_error(make: Make) -> None:
    _, backend = make(misbehave=only(GET_SERVICE, lambda request, _: [netlink.row(request.sequence, 1)]))
    fails(backend, EBADMSG)


def test_names_that_are_too_long_or_not_ended_are_cut_and_empty_ones_are_empty(make: Make) -> None:
    names = {6: netlink.attribute(6, b"x" * 500), 11: netlink.attribute(11, b"")}
    _, backend = make(misbehave=only(GET_SERVICE, service_of(*(FULL | names).values())))
    (service,) = backend.read()
    assert (service.scheduler, service.persistence_engine) == ("x" * 15, "")


def test_attributes_longer_than_needed_and_unknown_ones_are_taken(make: Make) -> None:
    longer = {3: netlink.attribute(3, bytes([11, 0, 0, 1]) + bytes(60)), 7: netlink.attribute(7, bytes(64))}
    new = [netlink.attribute(kind, b"whatever") for kind in (13, 99, 0x3FFF)]
    _, backend = make(misbehave=only(GET_SERVICE, service_of(*(FULL | longer).values(), *new)))
    assert [service.key.address for service in backend.read()] == ["11.0.0.1"]


def test_a_short_ipv4_address_is_taken(make: Make) -> None:
    short = {3: netlink.attribute(3, bytes([11, 0, 0, 1]))}
    _, backend = make(misbehave=only(GET_SERVICE, service_of(*(FULL | short).values())))
    assert [service.key.address for service in backend.read()] == ["11.0.0.1"]


def test_counters_of_an_odd_size_count_as_nothing(make: Make) -> None:
    odd = netlink.nest(12, netlink.attribute(1, b"abc"), netlink.attribute(2, bytes(16)), netlink.u64(3, 5))
    _, backend = make(misbehave=only(GET_SERVICE, service_of(*FULL.values(), odd)))
    (one,) = backend.statistics().values()
    assert (one.counters.connections, one.counters.in_packets, one.counters.out_packets) == (0, 0, 5)


@pytest.mark.parametrize("nested", [10, 12])
def test_a_nest_of_counters_that_is_torn_is_passed_over_or_refused(make: Make, nested: int) -> None:
    torn = netlink.attribute(nested, struct.pack("=HH", 400, 1) + b"ab")
    _, backend = make(misbehave=only(GET_SERVICE, service_of(*FULL.values(), torn)))
    (one,) = backend.statistics().values()
    assert one.counters.connections == 0


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_a_destination_without_a_needed_attribute_is_no_destination(make: Make, missing: int) -> None:
    parts = [part for kind, part in ROW.items() if kind != missing]
    change = only(GET_DEST, lambda request, _: [netlink.row(request.sequence, 5, netlink.nest(2, *parts))])
    _, backend = make(misbehave=change)
    fails(backend, EBADMSG)


@pytest.mark.parametrize("kind", [1, 2, 3, 4, 5, 6, 11, 13, 14, 15])
def test_a_destination_attribute_of_no_length_is_an_error(make: Make, kind: int) -> None:
    parts = (ROW | {kind: netlink.attribute(kind, b"")}).values()
    change = only(GET_DEST, lambda request, _: [netlink.row(request.sequence, 5, netlink.nest(2, *parts))])
    _, backend = make(misbehave=change)
    fails(backend, EBADMSG)


def test_a_destination_of_no_family_is_an_error(make: Make) -> None:
    parts = (ROW | {11: netlink.u16(11, 5)}).values()
    _, backend = make(misbehave=only(GET_DEST, lambda request, _: [netlink.row(request.sequence, 5, netlink.nest(2, *parts))]))
    fails(backend, EBADMSG)


def test_a_third_daemon_is_an_error(make: Make) -> None:
    one = netlink.nest(3, *netlink.daemon_attributes(SyncDaemon(SyncRole.MASTER, "eth0", 1, 2, "224.0.0.1", 3, 4), bytes(4)))

    def change(request: Request, _: list[bytes]) -> list[bytes]:
        return [netlink.row(request.sequence, 9, one) * 3 + netlink.done(request.sequence)]

    _, backend = make(misbehave=only(GET_DAEMON, change))
    with pytest.raises(KernelError) as caught:
        backend.sync_daemons()
    assert caught.value.errno == EBADMSG


def test_a_daemon_without_a_state_is_an_error(make: Make) -> None:
    _, backend = make(misbehave=only(GET_DAEMON, lambda request, _: [netlink.row(request.sequence, 9, netlink.nest(3))]))
    with pytest.raises(KernelError) as caught:
        backend.sync_daemons()
    assert caught.value.errno == EBADMSG


def test_an_interface_of_any_bytes_can_be_told(make: Make) -> None:
    daemon = SyncDaemon(SyncRole.BACKUP, b"\xffeth\xfe".decode("utf-8", "surrogateescape"), 1, 1100, "ff02::1", 3, 4)
    puppet, backend = make()
    puppet.fake.interfaces.add(daemon.interface)
    backend.start_sync_daemon(daemon)
    assert backend.sync_daemons() == (daemon,)


def test_settings_of_the_wrong_size_are_an_error(make: Make) -> None:
    _, backend = make(misbehave=only(GET_INFO, lambda request, _: [netlink.row(request.sequence, 14, netlink.u16(1, 1))]))
    with pytest.raises(KernelError) as caught:
        backend.information()
    assert caught.value.errno == EBADMSG


# Messages and datagrams


@pytest.mark.parametrize("length", [0, 1, 15, 17, 40, 0xFFFFFFFF])
def test_a_message_of_a_wrong_length_is_an_error(make: Make, length: int) -> None:
    _, backend = make(misbehave=mangle(lambda datagram: struct.pack("=I", length) + datagram[4:]))
    fails(backend, EBADMSG)


@pytest.mark.parametrize("length", [1, 15, 17, 19, 30, 100])
def test_a_datagram_that_is_cut_off_is_an_error(make: Make, length: int) -> None:
    _, backend = make(misbehave=mangle(lambda datagram: datagram[:length]))
    fails(backend, EBADMSG)


def test_a_datagram_longer_than_any_dumps_is_an_error(make: Make) -> None:
    _, backend = make(misbehave=only(GET_SERVICE, lambda request, _: [netlink.done(request.sequence) + bytes(33 * 1024)]))
    fails(backend, EBADMSG)


@pytest.mark.parametrize("sizes", [(1,), (1, 2, 3), (30,), (1000,)])
def test_a_dump_may_be_cut_into_datagrams_anywhere(make: Make, sizes: tuple[int, ...]) -> None:
    puppet, backend = make()
    puppet.rows_per_datagram = sizes
    assert backend.read() == Snapshot.of(TABLE)


def test_the_end_may_come_in_a_datagram_of_its_own(make: Make) -> None:
    end = len(netlink.done(0))
    _, backend = make(misbehave=mangle_last(lambda datagram: [datagram[:-end], datagram[-end:]]))
    assert backend.read() == Snapshot.of(TABLE)


def mangle_last(change: Callable[[bytes], list[bytes]]) -> object:
    return only(GET_SERVICE, lambda _, answer: [*answer[:-1], *change(answer[-1])])


def test_an_end_with_an_error_is_that_error(make: Make) -> None:
    _, backend = make(misbehave=only(GET_DEST, lambda request, _: [netlink.done(request.sequence, -EBUSY)]))
    fails(backend, EBUSY)


@pytest.mark.parametrize("number", [1, 2**31 - 1, -(2**31), -4096])
def test_an_error_number_that_is_none_is_nonsense(make: Make, number: int) -> None:
    _, backend = make(misbehave=only(GET_SERVICE, lambda request, _: [netlink.done(request.sequence, number)]))
    fails(backend, EBADMSG)


def test_an_error_message_without_room_for_its_number_is_nonsense(make: Make) -> None:
    short = only(GET_SERVICE, lambda request, _: [netlink.message(netlink.NLMSG_ERROR, 0, request.sequence, b"ab")])
    _, backend = make(misbehave=short)
    fails(backend, EBADMSG)


def test_an_end_without_a_number_is_an_end(make: Make) -> None:
    bare = only(GET_DEST, lambda request, _: [netlink.message(netlink.NLMSG_DONE, 2, request.sequence, b"")])
    _, backend = make(misbehave=bare)
    assert backend.read().destination_count == 0


def test_a_row_without_its_generic_header_is_nonsense(make: Make) -> None:
    bare = only(GET_SERVICE, lambda request, _: [netlink.message(netlink.FAMILY, 2, request.sequence, b"")])
    _, backend = make(misbehave=bare)
    fails(backend, EBADMSG)


def test_messages_of_other_families_are_passed_over(make: Make) -> None:
    def change(request: Request, answer: list[bytes]) -> list[bytes]:
        return [netlink.message(77, 2, request.sequence, b"hello") + answer[0], *answer[1:]]

    _, backend = make(misbehave=change)
    assert backend.read() == Snapshot.of(TABLE)


def test_answers_to_other_requests_are_passed_over(make: Make) -> None:
    """Stale ones, of a request that was given up, and some that were never asked for."""

    def change(request: Request, answer: list[bytes]) -> list[bytes]:
        strays = [netlink.done(request.sequence + by, -5) for by in (-1, 1, -1000, 1000)]
        return [*strays, *answer]

    _, backend = make(misbehave=change)
    assert backend.read() == Snapshot.of(TABLE)
    assert backend.execute(Plan.of([AddService(WEB)])) == {0: (EEXIST, "")}


def test_an_endless_flood_of_strays_is_an_error(make: Make) -> None:
    flood = only(GET_SERVICE, lambda request, _: [netlink.done(request.sequence - 1) * 1000] * 100)
    _, backend = make(misbehave=flood)
    fails(backend, EBADMSG)


def test_the_same_answer_twice_does_no_harm(make: Make) -> None:
    puppet, backend = make(misbehave=lambda _, answer: answer * 2)
    plan = Plan.of([AddDestination(WEB, ROWS[0]), AddDestination(WEB, Destination("10.9.9.9", 1))])
    assert backend.execute(plan) == {0: (EEXIST, "")}
    assert backend.timeouts().tcp == 900
    assert puppet.opened == 1


def test_an_endless_dump_is_an_error(make: Make) -> None:
    """The same service again and again, until there are more than any table has."""
    row = netlink.nest(1, *FULL.values())

    def change(request: Request, _: list[bytes]) -> list[bytes]:
        datagram = netlink.row(request.sequence, 1, row) * 250
        return [datagram] * (2**20 // 250 + 2)

    _, backend = make(misbehave=only(GET_SERVICE, change))
    fails(backend, EMSGSIZE)


# Interrupted, late and lost


@pytest.mark.parametrize("times", [1, 4])
def test_a_dump_that_was_interrupted_is_made_again(make: Make, times: int) -> None:
    puppet, backend = make()
    puppet.interrupts = times
    assert backend.read() == Snapshot.of(TABLE)
    assert puppet.opened == 1


def test_a_dump_that_is_interrupted_five_times_is_unstable(make: Make) -> None:
    puppet, backend = make()
    puppet.interrupts = 5
    with pytest.raises(SnapshotUnstable, match="read the table"):
        backend.read()
    assert backend.read() == Snapshot.of(TABLE)


def test_an_answer_that_never_comes_is_a_timeout_and_the_next_call_has_a_new_socket(make: Make) -> None:
    puppet, backend = make(timeout_seconds=0.2, misbehave=only(GET_SERVICE, lambda *_: []))
    began = time.perf_counter()
    fails(backend, ETIMEDOUT)
    assert 0.1 < time.perf_counter() - began < 2
    puppet.misbehave = None
    assert backend.read() == Snapshot.of(TABLE)
    assert (puppet.opened, backend.system_calls > 4) == (2, True)


def test_an_acknowledgement_that_never_comes_leaves_the_outcome_unknown(make: Make) -> None:
    puppet, backend = make(filled=False, timeout_seconds=0.2, misbehave=lambda *_: [])
    plan = Plan.of([AddService(WEB), AddService(WEB), AddDestination(WEB, ROWS[0])])
    assert backend.execute(plan) == {0: (ENODATA, ""), 1: (ENODATA, ""), 2: (ENODATA, "")}
    assert puppet.fake.read() == Snapshot.of({WEB: [ROWS[0]]})
    puppet.misbehave = None
    assert backend.execute(plan)[0] == (EEXIST, "")


def test_what_was_answered_before_the_silence_is_known(make: Make) -> None:
    puppet, backend = make(filled=False, timeout_seconds=0.2)
    puppet.misbehave = lambda request, answer: [] if request.flags & netlink.F_ACK else answer
    assert backend.execute(Plan.of([AddService(WEB)] * 3)) == {0: (ENODATA, ""), 1: (EEXIST, ""), 2: (ENODATA, "")}


def test_after_a_silence_the_rest_of_a_long_plan_is_not_tried(make: Make) -> None:
    puppet, backend = make(filled=False, timeout_seconds=0.2, misbehave=lambda *_: [])
    rows = [AddDestination(WEB, Destination(f"10.1.{n // 250}.{n % 250 + 1}", 80)) for n in range(1000)]
    errors = [errno for errno, _ in backend.execute(Plan.of([AddService(WEB), *rows])).values()]
    known = errors.index(ECANCELED)
    puppet.close()  # when it has done what it got
    assert errors == [ENODATA] * known + [ECANCELED] * (1001 - known)
    assert puppet.fake.operations == known


@pytest.mark.parametrize("command", [GET_SERVICE, GET_DEST])
def test_a_socket_closed_in_the_middle_is_an_error_and_opened_again(make: Make, command: int) -> None:
    puppet, backend = make(misbehave=only(command, lambda *_: None))
    fails(backend, ECONNRESET)
    puppet.misbehave = None
    assert backend.read() == Snapshot.of(TABLE)


def test_a_socket_closed_among_changes_leaves_them_unknown(make: Make) -> None:
    _, backend = make(filled=False, misbehave=lambda *_: None)
    assert backend.execute(Plan.of([AddService(WEB)])) == {0: (ENODATA, "")}


# Words, and what cannot be sent


@pytest.mark.parametrize("capped", [True, False])
@pytest.mark.parametrize("words", ["no", "", "x" * 500, "ümlaut"])
def test_the_kernels_words_are_passed_on(make: Make, words: str, capped: bool) -> None:
    puppet, backend = make(capped=capped)
    puppet.fake.fail(1, 22, words)
    plan = Plan.of([AddDestination(WEB, Destination("10.9.9.9", port)) for port in (1, 2, 3)])
    assert backend.execute(plan) == {1: (22, words[:127])}


def test_words_of_a_refused_call_are_in_its_error(make: Make) -> None:
    def refuse(request: Request, _: list[bytes]) -> list[bytes]:
        return [netlink.error(request, 5, "disk full of eels")]

    puppet, backend = make(misbehave=refuse)
    for call in (backend.read, backend.timeouts, backend.sync_daemons):
        with pytest.raises(KernelError, match='the kernel says "disk full of eels"'):
            call()
    puppet.misbehave = None
    assert backend.timeouts().tcp == 900


def test_words_whose_place_is_wrong_are_left_out(make: Make) -> None:
    def refuse(request: Request, _: list[bytes]) -> list[bytes]:
        body = struct.pack("=i", -5) + HEADER.pack(5, 0, 0, 0, 0)
        flags = netlink.F_ACK_TLVS
        return [netlink.message(netlink.NLMSG_ERROR, flags, request.sequence, body + netlink.attribute(1, b""))]

    _, backend = make(misbehave=refuse)
    with pytest.raises(KernelError) as caught:
        backend.timeouts()
    assert (caught.value.errno, caught.value.text) == (5, "")


def test_more_words_than_are_kept_are_dropped_and_the_errors_are_not(make: Make) -> None:
    puppet, backend = make(filled=False)
    for nth in range(1200):
        puppet.fake.fail(nth, 22, "w" * 127)
    failed = backend.execute(Plan.of([AddService(Service.fwmark(n)) for n in range(1, 1201)]))
    assert [errno for errno, _ in failed.values()] == [22] * 1200
    assert {text for _, text in failed.values()} == {"", "w" * 127}


def test_a_command_that_is_none_and_a_service_that_is_not_there_are_not_sent(make: Make) -> None:
    _, backend = make(filled=False)
    good = Plan.of([AddService(WEB), AddDestination(WEB, ROWS[0]), AddDestination(WEB, ROWS[1])])
    operations = bytearray(good.operations)
    operations[48] = 99
    operations[100] = 7  # index of the service
    assert backend.execute(Plan(good.services, bytes(operations))) == {1: (EOPNOTSUPP, ""), 2: (22, "")}


def test_requests_are_packed_and_none_is_longer_than_a_socket_takes(make: Make) -> None:
    puppet, backend = make(filled=False)
    rows = [AddDestination(WEB, Destination(f"10.1.{n // 250}.{n % 250 + 1}", 80)) for n in range(1000)]
    assert backend.execute(Plan.of([AddService(WEB), *rows])) == {}
    assert len(puppet.datagrams) <= 4
    assert max(puppet.datagrams) <= 64 * 1024


def test_an_opener_that_fails_is_told_of() -> None:
    with pytest.raises(IPVSUnavailableError, match="modprobe ip_vs"):
        NetlinkBackend(opener=lambda *_: -93)
    with pytest.raises(KernelError) as caught:
        NetlinkBackend(opener=lambda *_: -ENOBUFS)
    assert caught.value.errno == ENOBUFS


def test_bytes_changed_at_random_give_an_error_or_a_table(make: Make) -> None:
    """The seed is printed by the assertion."""
    for seed in range(150):
        dice = random.Random(seed)  # noqa: S311 - to be replayed

        def change(_: Request, answer: list[bytes], dice: random.Random = dice) -> list[bytes]:
            spoilt = [bytearray(datagram) for datagram in answer]
            for datagram in spoilt:
                for _ in range(dice.choice([0, 1, 1, 5])):
                    datagram[dice.randrange(len(datagram))] = dice.randrange(256)
            return [bytes(datagram) for datagram in spoilt]

        fake = FakeKernel()
        _, backend = make(fake=fake, misbehave=change, timeout_seconds=0.01)
        try:
            backend.statistics()
            backend.sync_daemons()
        except (KernelError, SnapshotUnstable, ValueError) as error:
            assert str(error), seed  # noqa: PT017 - either way is right
