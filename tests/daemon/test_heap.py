"""The C library's heap, in a process of its own: what it is told stays."""

from __future__ import annotations

import json
import subprocess
import sys

_PROGRAM = r"""
import ctypes, json, sys, threading
from pyminuteman.daemon.heap import LARGE_BYTES, keep_heap_dense
from pyminuteman.libc import libc

class Mallinfo(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]

c = libc()
c.mallinfo2.restype = Mallinfo
c.malloc.restype, c.malloc.argtypes, c.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
c.open_memstream.restype, c.open_memstream.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_void_p]
c.malloc_info.argtypes, c.fclose.argtypes = [ctypes.c_int, ctypes.c_void_p], [ctypes.c_void_p]

def mapped(size):
    before = c.mallinfo2().hblks
    block = c.malloc(size)
    more = c.mallinfo2().hblks - before
    c.free(block)
    return more

def heaps():
    text, size = ctypes.c_char_p(), ctypes.c_size_t()
    stream = c.open_memstream(ctypes.byref(text), ctypes.byref(size))
    c.malloc_info(0, stream)
    c.fclose(stream)
    return text.value.count(b"<heap nr=")

if sys.argv[1] == "dense": keep_heap_dense()
for _ in range(3):
    last = mapped(4 * LARGE_BYTES)
all_there = threading.Barrier(4)
def allocate():
    block = c.malloc(1000)
    all_there.wait(10)
    c.free(block)
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps([last, heaps()]))
"""


def _run(how: str) -> list[int]:
    done = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True, timeout=60)
    found: list[int] = json.loads(done.stdout)
    return found


def test_large_blocks_are_mapped_however_many_were_freed_and_threads_share_one_heap() -> None:
    assert _run("dense") == [1, 1]


def test_the_librarys_defaults_are_otherwise() -> None:
    mapped, heaps = _run("default")
    assert mapped == 0, "a block that was freed raises the limit"
    assert heaps > 1
