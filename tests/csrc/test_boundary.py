"""Both sides of the boundary mean the same: records.py and the compiled module, the header and what is in it."""

from __future__ import annotations

import re
from pathlib import Path
from struct import Struct

import pytest

from pyminuteman.ipvs import Features, records
from pyminuteman.ipvs._native import ffi, lib
from pyminuteman.ipvs.tcp_metrics import METRIC
from tests.conftest import ROOT

HEADER = re.sub(r"/\*.*?\*/", "", (ROOT / "csrc/pmm_ipvs.h").read_text(), flags=re.DOTALL)
FUNCTIONS = re.findall(r"^[a-z][\w ]*?[ *](pmm_\w+)\(", HEADER, re.MULTILINE)
LAYOUTS = {
    "struct pmm_service": (
        Struct("=" + records.SERVICE_KEY.format[1:] + "16s16sII4sI"),
        "by_mark family protocol address port scheduler engine flags timeout netmask destinations",
    ),
    "struct pmm_destination": (
        records.DESTINATION,
        "family address port weight upper_threshold lower_threshold forwarding tunnel_type tunnel_port tunnel_flags",
    ),
    "struct pmm_metric": (METRIC, "family address age_ms rtt deviation"),
    "struct pmm_operation": (records.OPERATION, "command service destination"),
    "struct pmm_counters": (
        records.COUNTERS,
        (
            "connections in_packets out_packets in_bytes out_bytes connection_rate in_packet_rate out_packet_rate in_byte_rate "
            "out_byte_rate active inactive persistent"
        ),
    ),
}


def test_every_function_of_the_header_is_in_the_module() -> None:
    assert len(FUNCTIONS) >= 14
    assert [name for name in FUNCTIONS if not callable(getattr(lib, name, None))] == []


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_field_stands_where_the_other_side_looks_for_it(name: str) -> None:
    layout, fields = LAYOUTS[name]
    assert layout.size == ffi.sizeof(name)
    values: list[object] = []
    for number, field in enumerate(fields.split(), 1):
        size = ffi.sizeof(dict(ffi.typeof(name).fields)[field].type)
        values.append(bytes([number]) * size if is_bytes(name, field) else number)
    record = ffi.new(f"{name} *")
    ffi.memmove(record, layout.pack(*values), layout.size)
    for field, value in zip(fields.split(), values, strict=True):
        found = getattr(record, field)
        assert (bytes(ffi.buffer(ffi.addressof(record, field))) if is_bytes(name, field) else found) == value, field


def is_bytes(name: str, field: str) -> bool:
    kind = dict(ffi.typeof(name).fields)[field].type.kind
    return kind in {"array", "struct"}


def test_sizes_and_numbers_are_the_same_on_both_sides() -> None:
    assert records.SERVICE_SIZE + records.SERVICE_COUNT.size == ffi.sizeof("struct pmm_service")
    keys = [int(lib.PMM_SERVICE_KEY_SIZE), int(lib.PMM_DESTINATION_KEY_SIZE)]
    assert keys == [records.SERVICE_KEY_SIZE, records.DESTINATION_KEY_SIZE]
    assert keys == [ffi.offsetof("struct pmm_service", "scheduler"), ffi.offsetof("struct pmm_destination", "weight")]
    features = {
        name: int(getattr(lib, f"PMM_FEATURE_{name}")) for name in ("STATS64", "ADDRESS_FAMILY", "TUNNEL", "TUNNEL_FLAGS")
    }
    assert features == {name: int(Features[name]) for name in features}
    assert sum(features.values()) == Features.ALL


def test_commands_are_the_kernels() -> None:
    header = Path("/usr/include/linux/ip_vs.h").read_text()
    names = re.findall(r"^\s+(IPVS_CMD_(?!ATTR)\w+)\b", header, re.MULTILINE)  # UNSPEC, which is 0, first
    ours = {
        "NEW_SERVICE": "ADD_SERVICE",
        "SET_SERVICE": "EDIT_SERVICE",
        "DEL_SERVICE": "REMOVE_SERVICE",
        "NEW_DEST": "ADD_DESTINATION",
        "SET_DEST": "EDIT_DESTINATION",
        "DEL_DEST": "REMOVE_DESTINATION",
        "ZERO": "ZERO",
        "FLUSH": "FLUSH",
    }
    assert {name: names.index(f"IPVS_CMD_{theirs}") for theirs, name in ours.items()} == {
        one.name: one for one in records.Command
    }


def test_a_diff_that_does_not_fit_writes_nothing() -> None:
    service = ffi.new("struct pmm_service[2]")
    service[1].by_mark = 1
    out = ffi.new("struct pmm_operation[2]")
    none, null = ffi.NULL, ffi.NULL
    assert lib.pmm_diff(none, 0, null, service, 2, null, out, 1) == -28
    assert bytes(ffi.buffer(out)) == bytes(ffi.sizeof(out))
    assert lib.pmm_diff(none, 0, null, service, 2, null, out, 2) == 2


def test_closing_nothing_is_no_error() -> None:
    lib.pmm_close(ffi.NULL)


def test_a_descriptor_that_is_no_socket_is_refused() -> None:
    out = ffi.new("struct pmm_socket **")
    assert lib.pmm_attach(out, -1, 1, 1000) == -9
    assert out[0] == ffi.NULL


def test_a_file_that_is_not_there_is_an_errno() -> None:
    assert lib.pmm_open_file(-1, b"/no/such/file") == -2
    assert lib.pmm_open_file(0x7FFFFFFF, b"/dev/null") == -9
