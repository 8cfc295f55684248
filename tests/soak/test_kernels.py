from __future__ import annotations

from tests.soak.kernels import local_addresses, parse_rules
from tests.soak.world import Held

RULES = """\
-A -t 11.0.0.1:80 -s wlc
-a -t 11.0.0.1:80 -r 10.61.0.1:8000 -m -w 1
-a -t 11.0.0.1:80 -r 10.61.0.2:8001 -m -w 0
-A -t 12.9.0.1:80 -s rr
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
    assert parse_rules(RULES.splitlines(), {"10.61.0.1": "n0"}) == {
        "11.0.0.1:80": Held("wlc", frozenset({("n0:8000", 1), ("10.61.0.2:8001", 0)})),
        "12.9.0.1:80": Held("rr", frozenset()),
    }


def test_only_addresses_of_the_host_itself_are_read() -> None:
    assert list(local_addresses(ROUTES.splitlines())) == ["11.0.0.1"]
