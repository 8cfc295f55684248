"""Keys, rings and replay windows: what is sealed opens once where it should, and nowhere else."""

from __future__ import annotations

import base64
import copy
import os
from collections.abc import Callable
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyminuteman.errors import ConfigurationError
from pyminuteman.membership import keyring as keyring_module
from pyminuteman.membership import sealing
from pyminuteman.membership.errors import KeyringError
from pyminuteman.membership.keyring import KEYS_MAX, REASONS, Key, Keyring, Opened, PlainRing
from pyminuteman.membership.keys import parse_key_id
from pyminuteman.membership.replay import ReplayWindow, ReplayWindows
from pyminuteman.membership.sealing import COUNTER_MAX

A, B, C = (Key(bytes((number,)) * 32) for number in (1, 2, 3))
BOOT = b"boot of them"


def sealed_ring(*keys: Key, cluster: str = "test", **settings: object) -> Keyring:
    return Keyring(keys or (A,), cluster=cluster, **settings)  # type: ignore[arg-type]


def plain_ring(cluster: str = "test", **settings: object) -> PlainRing:
    return PlainRing(cluster=cluster, **settings)  # type: ignore[arg-type]


both = pytest.mark.parametrize("ring", [sealed_ring, plain_ring])
Make = Callable[..., Keyring | PlainRing]


def with_id_of(key: Key, other: Key) -> Key:
    """The other one, which has this one's id: no key that is made has."""
    made = copy.copy(other)
    object.__setattr__(made, "id", key.id)
    return made


def refused(ring: Keyring | PlainRing, data: bytes | bytearray | memoryview) -> str:
    """Why a datagram is refused: the one counter that moved."""
    before = dict(ring.counters)
    assert ring.open(data) is None
    moved = {name: count - before[name] for name, count in ring.counters.items() if count != before[name]}
    assert list(moved.values()) == [1]
    return next(iter(moved))


@both
def test_what_was_opened_outlives_the_buffer_that_it_came_in(ring: Make) -> None:
    """The next datagram is received into the same one."""
    sealed = ring(boot=BOOT).seal(b"content")
    buffer = bytearray(sealed)
    opened = ring().open(memoryview(buffer))
    assert opened is not None
    buffer[:] = bytes(len(buffer))
    assert (opened.boot, opened.counter, opened.plain) == (BOOT, 1, b"content")


# -- keys --------------------------------------------------------------------------------------------------------------


def test_a_key_survives_its_text() -> None:
    key = Key.generate()
    assert Key.parse(f" {key.text}\n") == key
    assert len(key.text) == 44
    assert len(key.id) == 4
    assert parse_key_id(str(key)) == key.id


def test_a_key_is_made_of_the_entropy_it_is_given() -> None:
    assert Key.generate(lambda size: b"\1" * size) == A


def test_keys_are_equal_when_their_secrets_are() -> None:
    assert Key(b"\1" * 32) == A
    assert A != B
    assert A != b"\1" * 32
    assert len({A, Key(b"\1" * 32), B}) == 2


def test_the_secret_is_not_shown() -> None:
    for text in (str(A), repr(A), f"{A}", repr([A]), repr(sealed_ring(A))):
        assert A.text not in text
        assert "\\x01" not in text
        assert "0101" not in text
    assert repr(A) == f"Key({A.id.hex()})"


def test_the_id_of_a_key_stays_what_it_is() -> None:
    assert A.id.hex() == "703f8c30"


@pytest.mark.parametrize("text", ["", "secret", "A" * 44, base64.b64encode(bytes(31)).decode(), "é" * 44, "A A" * 20])
def test_what_is_no_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(KeyringError) as caught:
        Key.parse(text)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize("text", ["", "1234567", "123456789a", "wxyzwxyz"])
def test_what_is_no_key_id_is_refused(text: str) -> None:
    with pytest.raises(KeyringError, match="is not a key id"):
        parse_key_id(text)


# -- rings -------------------------------------------------------------------------------------------------------------


@both
@given(st.binary(max_size=1159))
def test_what_is_sealed_opens_once(ring: Make, plain: bytes) -> None:
    ours, theirs = ring(), ring()
    sealed = theirs.seal(plain)
    assert len(sealed) == len(plain) + theirs.overhead
    assert ours.open(sealed) == Opened(theirs.boot, 1, plain, theirs.key_ids[0] if theirs.key_ids else bytes(4))
    assert refused(ours, sealed) == "replayed"
    assert ours.counters["opened"] == 1


def test_sealing_adds_41_bytes() -> None:
    assert sealed_ring().overhead == 41
    assert plain_ring().overhead < 41


@both
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_is_opened(ring: Make, kind: Callable[[bytes], bytes]) -> None:
    opened = ring().open(kind(ring().seal(b"plain")))
    assert opened is not None
    assert opened.plain == b"plain"
    assert type(opened.plain) is bytes


def test_the_bytes_of_a_datagram_stay_what_they_are() -> None:
    header = f"{BOOT.hex()} 0000000000000001"
    sealed = f"a1 703f8c30 {header} 0e81102b6c a891695b902f6c31ae11833a4fb06bd7"
    unsealed = f"b1 b13badf7bf780001 {header} {b'plain'.hex()}"
    assert sealed_ring(boot=BOOT).seal(b"plain").hex() == sealed.replace(" ", "")
    assert plain_ring(boot=BOOT).seal(b"plain").hex() == unsealed.replace(" ", "")


def test_any_key_of_the_ring_opens_and_the_first_seals() -> None:
    ours = sealed_ring(A, B)
    for key in (A, B):
        opened = ours.open(sealed_ring(key).seal(b"plain"))
        assert opened is not None
        assert opened.key_id == key.id
    assert refused(ours, sealed_ring(C).seal(b"plain")) == "unknown_key"
    assert refused(sealed_ring(B), ours.seal(b"plain")) == "unknown_key"


@both
def test_each_process_has_a_boot_id_of_its_own(ring: Make) -> None:
    assert len(ring().boot) == 12
    assert ring().boot != ring().boot
    assert ring(boot=BOOT).boot == BOOT
    assert ring(entropy=lambda size: b"e" * size).boot == b"e" * 12
    with pytest.raises(KeyringError, match="a boot id has 12 bytes, not 3"):
        ring(boot=b"abc")


def test_a_subkey_belongs_to_one_process_so_that_no_nonce_is_used_twice_under_it() -> None:
    one, other = sealed_ring(boot=b"a" * 12), sealed_ring(boot=b"b" * 12)
    assert one.seal(b"plain")[25:] != other.seal(b"plain")[25:]
    numbers = {one.seal(b"plain")[17:25] for _ in range(50)}
    assert len(numbers) == 50


@both
@pytest.mark.parametrize("cluster", ["", "c" * 65, "é" * 33])
def test_a_cluster_has_a_name(ring: Make, cluster: str) -> None:
    with pytest.raises(ConfigurationError, match=r"cluster: .* is not a name of 1 to 64 bytes"):
        ring(cluster=cluster)


@both
def test_a_ring_holds_no_more_senders_than_it_may(ring: Make) -> None:
    ours = ring(senders_max=3)
    first = ring()
    old = first.seal(b"1")
    assert ours.open(old)
    for _ in range(3):
        assert ours.open(ring().seal(b"x"))
    assert ours.counters["senders_forgotten"] == 1
    assert ours.open(old), "who was forgotten is not known to have said it"


def test_no_more_subkeys_are_kept_than_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "_CIPHERS_MAX", 2)
    ours, others = sealed_ring(), [sealed_ring() for _ in range(3)]
    for _ in range(2):
        for other in others:
            assert ours.open(other.seal(b"x"))
    assert len(ours._datagrams._ciphers) == 2  # type: ignore[attr-defined]


@both
def test_the_counter_runs_out_long_before_it_repeats(ring: Make) -> None:
    theirs = ring(next_counter=COUNTER_MAX)
    assert ring().open(theirs.seal(b"the last"))
    for _ in range(2):
        with pytest.raises(
            KeyringError, match=f"this process has sealed {COUNTER_MAX} messages, which is all that it may: restart"
        ):
            theirs.seal(b"one too many")
    assert theirs.seal_hello(b"streams have a counter of their own")


def test_counters_are_all_there_from_the_start() -> None:
    assert set(sealed_ring().counters) == {"opened", "senders_forgotten", *REASONS}
    assert not any(sealed_ring().counters.values())


@both
def test_hellos_are_not_datagrams(ring: Make) -> None:
    ours, theirs = ring(), ring()
    key_id, hello = theirs.seal_hello(b"hello")
    assert key_id == (theirs.key_ids[0] if theirs.key_ids else bytes(4))
    assert len(hello) == 5 + theirs.hello_overhead
    assert refused(ours, hello) == "format"
    assert ours.open_hello(theirs.seal(b"datagram")) is None
    opened = ours.open_hello(hello)
    assert opened is not None
    assert (opened.plain, opened.boot) == (b"hello", theirs.boot)
    assert ours.open_hello(hello) is None


def test_a_hello_is_not_opened_as_a_datagram_even_when_its_first_byte_says_so() -> None:
    ours, theirs = sealed_ring(), sealed_ring()
    assert refused(ours, b"\xa1" + theirs.seal_hello(b"hello")[1][1:]) == "forged"


# -- rotation ----------------------------------------------------------------------------------------------------------


def test_a_rotation_loses_nothing() -> None:
    rings = [sealed_ring(A) for _ in range(3)]

    def all_hear_each_other() -> bool:
        return all(other.open(ring.seal(b"x")) for ring in rings for other in rings if other is not ring)

    assert all_hear_each_other()
    for step in (lambda r: r.install(B), lambda r: r.use(B.id), lambda r: r.remove(A.id)):
        for ring in rings:
            step(ring)
            assert all_hear_each_other()
    assert [ring.key_ids for ring in rings] == [(B.id,)] * 3


def test_the_ids_tell_which_key_seals() -> None:
    ring = sealed_ring(A, B)
    ring.install(C)
    assert ring.key_ids == (A.id, B.id, C.id)
    ring.use(C.id)
    assert ring.key_ids == (C.id, A.id, B.id)
    ring.use(C.id)
    assert ring.key_ids == (C.id, A.id, B.id)
    ring.remove(A.id)
    assert ring.key_ids == (C.id, B.id)


def test_a_key_that_is_held_may_be_installed_again() -> None:
    ring = sealed_ring(A, B)
    ring.install(Key(b"\1" * 32))
    assert ring.key_ids == (A.id, B.id)


def test_a_key_that_is_removed_opens_nothing_any_more() -> None:
    ours, theirs = sealed_ring(A, B), sealed_ring(B)
    assert ours.open(theirs.seal(b"x"))
    ours.remove(B.id)
    assert refused(ours, theirs.seal(b"x")) == "unknown_key"
    assert not ours._datagrams._ciphers  # type: ignore[attr-defined]
    theirs.install(A)
    theirs.use(A.id)
    assert ours.open(theirs.seal(b"x")), "the counter goes on under the other key"


def test_a_step_of_a_rotation_that_would_deafen_somebody_is_refused() -> None:
    ring = sealed_ring(A, B)
    for step, reason in (
        (lambda: ring.use(C.id), f"no key {C} in this keyring"),
        (lambda: ring.remove(C.id), f"no key {C} in this keyring"),
        (lambda: ring.remove(A.id), f"the key {A} seals: use another one first"),
        (lambda: ring.remove(B.id, used_elsewhere={B.id}), f"other nodes still seal with the key {B}"),
        (lambda: ring.stream_ciphers(C.id, b"salt"), f"no key {C} in this keyring"),
    ):
        with pytest.raises(KeyringError, match=reason):
            step()
        assert ring.key_ids == (A.id, B.id)
    ring.remove(B.id, used_elsewhere=[A.id])


def test_a_ring_holds_no_more_keys_than_a_record_has_room_for() -> None:
    keys = [Key(bytes((number,)) * 32) for number in range(KEYS_MAX + 1)]
    ring = sealed_ring(*keys[:KEYS_MAX])
    with pytest.raises(KeyringError, match="a keyring holds 16 keys"):
        ring.install(keys[KEYS_MAX])
    with pytest.raises(KeyringError, match="a keyring holds 16 keys"):
        sealed_ring(*keys)


def test_a_ring_has_a_key_and_none_twice() -> None:
    with pytest.raises(KeyringError, match="needs a key: `minuteman keys generate`"):
        Keyring([], cluster="test")
    with pytest.raises(KeyringError, match=f"the key {A} is there twice"):
        sealed_ring(A, B, A)


def test_other_keys_take_the_place_of_those_held_but_of_those_that_others_seal_with() -> None:
    ring = sealed_ring(A, B)
    said_before = sealed_ring(A).seal(b"x")
    assert ring.replace([C, B], used_elsewhere={A.id}) == (A.id,)
    assert (ring.key_ids[0], set(ring.key_ids)) == (C.id, {A.id, B.id, C.id})
    assert ring.open(said_before) is not None
    assert ring.replace([C]) == ()
    assert ring.key_ids == (C.id,)
    assert refused(ring, sealed_ring(A).seal(b"x")) == "unknown_key"


def test_keys_that_make_no_ring_change_nothing() -> None:
    many = [Key(bytes((number,)) * 32) for number in range(10, 10 + KEYS_MAX)]
    ring = sealed_ring(A, B)
    for keys, used, match in (
        ([], (), "needs a key"),
        ([*many, C], (), "holds 16"),
        (many, {B.id}, "holds 16"),
        ([C, with_id_of(A, B)], (), "another key has the id"),
    ):
        with pytest.raises(KeyringError, match=match):
            ring.replace(keys, used_elsewhere=used)  # type: ignore[arg-type]
        assert ring.key_ids == (A.id, B.id)
    assert ring.replace(many) == ()
    assert ring.key_ids == tuple(key.id for key in many)


def test_two_keys_with_one_id_are_refused() -> None:
    with pytest.raises(KeyringError, match=f"another key has the id {A}: make a new one"):
        sealed_ring(A).install(with_id_of(A, B))


def test_a_ring_without_keys_takes_none() -> None:
    ring = plain_ring()
    assert ring.key_ids == ()
    with pytest.raises(KeyringError, match="start it with a key file"):
        ring.install(A)
    for step in (ring.use, ring.remove):
        with pytest.raises(KeyringError, match="runs without keys"):
            step(A.id)


def test_key_files_are_to_be_had_here_too() -> None:
    assert keyring_module.load_key_file.__module__ == "pyminuteman.membership.key_file"


# -- the window, beside a model that remembers everything --------------------------------------------------------------


class WindowMachine(RuleBasedStateMachine):
    """Counters near the highest, far ahead and far behind."""

    kind: ClassVar[type[ReplayWindow]] = ReplayWindow

    def __init__(self) -> None:
        super().__init__()
        self.window = self.kind()
        self.span = self.kind.span
        self.seen: set[int] = set()

    @property
    def highest(self) -> int:
        return max(self.seen, default=-1)

    def take(self, counter: int) -> None:
        if counter in self.seen and counter > self.highest - self.span:
            expected = "replayed"
        else:
            expected = "stale" if counter <= self.highest - self.span else None
        assert self.window.refusal(counter) == expected
        if expected is None:
            self.window.add(counter)
            self.seen.add(counter)

    @rule(ahead=st.integers(1, 3) | st.integers(1, 2**40))
    def newer(self, ahead: int) -> None:
        self.take(self.highest + ahead)

    @rule(about=st.integers(-2, 2))
    def newer_by_about_the_span(self, about: int) -> None:
        self.take(self.highest + self.span + about)

    @rule(behind=st.integers(0, 5), far=st.booleans())
    def older(self, behind: int, *, far: bool) -> None:
        behind += far * (self.span - 3)
        if self.highest >= behind:
            self.take(self.highest - behind)

    @rule(data=st.data())
    def again(self, data: st.DataObject) -> None:
        if self.seen:
            self.take(data.draw(st.sampled_from(sorted(self.seen))))

    @invariant()
    def it_is_bounded(self) -> None:
        assert self.window._seen.bit_length() <= self.span


class SmallWindow(ReplayWindow):
    span = 8


class SmallWindowMachine(WindowMachine):
    kind = SmallWindow


TestWindow = WindowMachine.TestCase
TestSmallWindow = SmallWindowMachine.TestCase


def test_the_sender_not_heard_for_longest_is_forgotten() -> None:
    windows = ReplayWindows(2)
    for sender, counter in ((b"a", 5), (b"b", 1), (b"a", 6), (b"c", 1)):
        windows.add(sender, counter)
    assert len(windows) == 2
    assert windows.forgotten == 1
    assert windows.refusal(b"a", 5) == "replayed"
    assert windows.refusal(b"b", 1) is None


def test_entropy_is_the_systems_own() -> None:
    assert Keyring.__init__.__kwdefaults__["entropy"] is os.urandom  # type: ignore[index]
    assert PlainRing.__init__.__kwdefaults__["entropy"] is os.urandom  # type: ignore[index]
