"""Messages are written without the blocks of 256 KiB that tear a heap to pieces."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgpack
import pytest

import pyminuteman
from pyminuteman.packing import packb


def peak_bytes(write: Callable[[object], bytes]) -> int:
    tracemalloc.start()
    try:
        write([1, 2, 3])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_message_takes_a_small_buffer() -> None:
    assert peak_bytes(packb) < 16 * 1024
    assert peak_bytes(msgpack.packb) > 128 * 1024, "else this is no longer needed"


@pytest.mark.parametrize("size", [0, 4000, 5000, 1_000_000])
def test_what_is_larger_is_written_all_the_same(size: int) -> None:
    plain = [size, b"x" * size, "y" * size]
    assert packb(plain) == msgpack.packb(plain)


def test_nothing_is_written_past_it() -> None:
    package = Path(pyminuteman.__file__).parent
    writers = {str(path.relative_to(package)) for path in package.rglob("*.py") if "msgpack.pack" in path.read_text()}
    assert writers == {"packing.py"}
