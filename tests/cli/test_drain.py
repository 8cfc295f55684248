"""drain, on a fake kernel."""

from __future__ import annotations

from typing import Any

import pytest

from pyminuteman.ipvs import (
    Connections,
    Counters,
    Destination,
    DestinationStatistics,
    IPVSTable,
    Rates,
    Scope,
    Service,
    ServiceKey,
)

WEB_RULES = ["-A -t 11.0.0.1:80 -s wlc", "-a -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 2"]
KEY = ServiceKey.tcp("11.0.0.1", 80)


def test_drain(cli: Any) -> None:
    cli.load("\n".join(WEB_RULES) + " -x 20 -y 10")
    five = Destination("10.0.0.5", 80)
    words = ("drain", "-t", "11.0.0.1:80", "-r", "10.0.0.5")
    assert cli(*words, "--dry-run").stderr.splitlines() == [
        "-e -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 0 -x 20 -y 10",
        "-d -t 11.0.0.1:80 -r 10.0.0.5:80",
    ]
    cli.fake.connect(KEY, five, 2, 1)
    cli.at_sleep = [lambda: cli.fake.connect(KEY, five, 0, 1), lambda: cli.fake.connect(KEY, five, 0)]
    done = cli(*words, "--keep")
    assert done.stderr.splitlines() == [
        "draining tcp 11.0.0.1:80 -> 10.0.0.5:80: 2 active and 1 inactive connections left, at most 60 s to go",
        "draining tcp 11.0.0.1:80 -> 10.0.0.5:80: 0 active and 1 inactive connections left, at most 60 s to go",
        "tcp 11.0.0.1:80 -> 10.0.0.5:80: no connections left; it stays at weight 0",
    ]
    assert cli.rules[1] == "-a -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 0 -x 20 -y 10"
    cli(*words, "--undo", "--weight", "7")
    assert cli.rules[1] == "-a -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 7 -x 20 -y 10"
    cli.fake.connect(KEY, five, 0, 3)
    closing = cli(*words, "--timeout", "1", "--keep")
    assert "the time was up with 0 active and 3 inactive" in closing.stderr
    cli.fake.connect(KEY, five, 1, 3)
    assert "removed" in cli(*words, "--timeout", "1", expect=5).stderr
    assert cli.rules == WEB_RULES[:1]
    missing = cli(*words, expect=1)
    assert "tcp 11.0.0.1:80 has no destination 10.0.0.5; there are: none" in missing.stderr
    cli("drain", "-t", "11.0.0.2:80", "-r", "10.0.0.5", expect=1)


@pytest.mark.parametrize(
    ("act", "code", "said"),
    [
        ("interrupt", 130, "stays at weight 0: drain it again to go on, or with --undo --weight 2 to put it back"),
        ("remove", 0, "is gone: somebody else removed it"),
        ("flush", 0, "is gone: somebody else removed it"),
        ("raise", 1, "somebody else gave tcp 11.0.0.1:80 -> 10.0.0.5:80 weight 9 while it was draining"),
    ],
)
def test_drain_is_disturbed(cli: Any, act: str, code: int, said: str) -> None:
    cli.load("\n".join(WEB_RULES))
    cli.fake.connect(KEY, Destination("10.0.0.5", 80), 1)

    def disturb() -> None:
        if act == "interrupt":
            raise KeyboardInterrupt
        service = Service(KEY)
        desired = {"remove": {service: []}, "flush": {}, "raise": {service: [Destination("10.0.0.5", 80, 9)]}}[act]
        IPVSTable(scope=Scope.everything(), backend=cli.fake).converge(desired)

    cli.at_sleep = [disturb]
    assert said in cli("drain", "-t", "11.0.0.1:80", "-r", "10.0.0.5:80", expect=code).stderr


def test_drain_of_udp_counts_the_inactive(cli: Any) -> None:
    cli.load("-A -u 11.0.0.1:53 -s rr\n-a -u 11.0.0.1:53 -r 10.0.0.5:53 -m")
    cli.fake.connect(ServiceKey.udp("11.0.0.1", 53), Destination("10.0.0.5", 53), 0, 3)
    cli("drain", "-u", "11.0.0.1:53", "-r", "10.0.0.5", "--timeout", "1", expect=5)


@pytest.mark.parametrize(
    "words",
    [
        ["-r", "10.0.0.5"],
        ["-t", "11.0.0.1:80"],
        ["-t", "11.0.0.1", "-r", "10.0.0.5"],
        ["-t", "11.0.0.1:80", "-u", "11.0.0.1:80", "-r", "10.0.0.5"],
        ["-t", "11.0.0.1:80", "-6", "-r", "10.0.0.5"],
        ["-f", "x", "-r", "10.0.0.5"],
        ["-f", "0", "-r", "10.0.0.5"],
        ["-t", "11.0.0.1:80", "-r", "host"],
        ["-t", "11.0.0.1:80", "-r", "10.0.0.5", "--undo"],
        ["-t", "11.0.0.1:80", "-r", "10.0.0.5", "--weight", "5"],
        ["-t", "11.0.0.1:80", "-r", "10.0.0.5", "--undo", "--weight", "5", "--keep"],
    ],
)
def test_drain_usage(cli: Any, words: list[str]) -> None:
    cli.load(WEB_RULES[0])
    assert cli("drain", *words, expect=2).stderr.startswith("Usage: ")


def test_drain_tells_of_persistence(cli: Any) -> None:
    cli.load("\n".join(WEB_RULES))
    numbers = DestinationStatistics(Counters(), Rates(), Connections(1, 0, 4))
    cli.fake.count(KEY, numbers, Destination("10.0.0.5", 80))
    told = cli("drain", "-t", "11.0.0.1:80", "-r", "10.0.0.5:80", "--timeout", "3", expect=5).stderr
    assert told.count("4 persistence templates keep sending their clients there; sysctl") == 1
