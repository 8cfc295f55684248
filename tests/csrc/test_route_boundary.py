"""Both sides of the boundary for routes: the header and the compiled module, and what links.py takes for granted of it."""

from __future__ import annotations

import re

from pyminuteman.host._native import ffi, lib
from pyminuteman.host.links import Announce
from tests.conftest import ROOT

HEADER = re.sub(r"/\*.*?\*/", "", (ROOT / "csrc/pmm_route.h").read_text(), flags=re.DOTALL)


def test_every_function_of_the_header_is_in_the_module() -> None:
    functions = re.findall(r"^[a-z][\w ]*?[ *](pmm_\w+)\(", HEADER, re.MULTILINE)
    assert len(functions) == 8
    assert [name for name in functions if not callable(getattr(lib, name, None))] == []


def test_a_record_is_a_family_and_an_address() -> None:
    assert ffi.sizeof("struct pmm_vip") == 20
    assert (ffi.offsetof("struct pmm_vip", "family"), ffi.offsetof("struct pmm_vip", "address")) == (0, 4)


def test_modes_have_the_same_numbers_on_both_sides() -> None:
    assert (int(lib.PMM_VIP_ADDRESS), int(lib.PMM_VIP_ROUTE)) == (Announce.ADDRESS, Announce.ROUTE)
