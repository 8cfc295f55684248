from __future__ import annotations

from tests.soak.kernels import local_addresses, parse_table
from tests.soak.world import Held

TABLE = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  0B000001:0050 wlc
  -> 0A3D0001:1F40      Masq    1      0          2
  -> 0A3D0002:1F41      Masq    0      0          0
TCP  0C090001:0050 rr
"""
ROUTES = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 10.61.0.0
        /16 link UNICAST
Local:
  +-- 0.0.0.0/0 3 0 5
     |-- 11.0.0.1
        /32 host LOCAL
     |-- 10.61.255.255
        /32 link BROADCAST
"""


def test_a_table_is_read_with_the_names_of_nodes() -> None:
    assert parse_table(TABLE.splitlines(), {"10.61.0.1": "n0"}) == {
        "11.0.0.1:80": Held("wlc", frozenset({("n0:8000", 1), ("10.61.0.2:8001", 0)})),
        "12.9.0.1:80": Held("rr", frozenset()),
    }


def test_only_addresses_of_the_host_itself_are_read() -> None:
    assert list(local_addresses(ROUTES.splitlines())) == ["11.0.0.1"]
