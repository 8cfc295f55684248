"""``minuteman vips``: real files, a fake kernel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pyminuteman.cli.application import Application
from pyminuteman.ipvs import Destination, ServiceKey
from pyminuteman.sources.document import parse_document

EXAMPLES = Path(__file__).parents[2] / "examples" / "vips.d"
WEB = """
[[vip]]
listen = "tcp://11.0.0.1:80"
  [[vip.backend]]
  address = "10.0.0.5"
  port = 8080
  weight = 2
  [[vip.backend]]
  address = "10.0.0.6"
  port = 8080
"""
SIX = '  [[vip.backend]]\n  address = "10.0.0.6"\n  port = 8080\n'
WEB_RULES = [
    "-A -t 11.0.0.1:80 -s wlc",
    "-a -t 11.0.0.1:80 -r 10.0.0.5:8080 -m -w 2",
    "-a -t 11.0.0.1:80 -r 10.0.0.6:8080 -m -w 1",
]
NAMED = '[[vip]]\nname = "/web"\nport = 80\n[[vip.backend]]\naddress = "10.0.0.5"\n[[vip.backend]]\naddress = "fd00::5"\n'
OLD = "-A -t 11.0.0.9:80 -s rr\n-a -t 11.0.0.9:80 -r 10.0.0.9:80 -m -w 1\n"
OLD_RULES = OLD.splitlines()


class Vips:
    """The verbs on files in a directory of the test's."""

    def __init__(self, cli: Any) -> None:
        self.cli = cli

    def __call__(self, verb: str, *words: str, expect: int = 0, **files: str) -> Any:
        sources = [f"--source=file:{self.cli.file(f'{name}.toml', text)}" for name, text in files.items()]
        return self.cli(verb, *sources, *words, group="vips", expect=expect)


@pytest.fixture
def vips(cli: Any) -> Vips:
    return Vips(cli)


# -- show --------------------------------------------------------------------------------------------------------------


def test_show_lists_vips_with_their_backends(vips: Vips) -> None:
    shown = vips("show", web=WEB.replace("weight = 2", "weight = 0") + "[[vip]]\nlisten = 'udp://[fd00::1]:53'\ndrain = 9\n")
    assert shown.stdout.splitlines() == [
        "tcp://11.0.0.1:80  wlc masquerade",
        "  -> 10.0.0.5:8080                0      its source gives it weight 0",
        "  -> 10.0.0.6:8080                1",
        "udp://[fd00::1]:53  wlc masquerade drain 9 s",
        "  (no backends)",
    ]
    assert shown.stderr == ""


def test_show_as_ipvsadm_lines_is_what_the_kernel_would_have(vips: Vips) -> None:
    assert vips("show", "-o", "ipvsadm", web=WEB).stdout.splitlines() == WEB_RULES
    assert vips.cli.rules == []


def test_a_name_is_shown_with_its_addresses(vips: Vips) -> None:
    shown = vips("show", web=NAMED).stdout.splitlines()
    assert shown[0].startswith("tcp:///web@minuteman:80 at 11.")
    assert ", [fd01:c::" in shown[0]
    rules = vips("show", "-o", "ipvsadm", web=NAMED).stdout.splitlines()
    assert [line.split()[0] for line in rules] == ["-A", "-a", "-A", "-a"]


def test_show_as_json_holds_the_documents_the_services_and_the_remarks(vips: Vips) -> None:
    text = WEB.replace("weight = 2", "weight = 0") + NAMED + "[[vip]]\nlisten = 'tcp://nowhere:80'\n"
    data = json.loads(vips("show", "-o", "json", web=text).stdout)
    assert data["version"] == 1
    state = parse_document({"version": 1, "vip": data["vip"]}, "again")
    assert [str(vip.key) for vip in state.vips] == ["tcp://11.0.0.1:80", "tcp:///web@minuteman:80"]
    assert [row["port"] for row in data["service"]] == [80, 80, 80]
    assert [name["name"] for name in data["name"]] == ["web.minuteman"]
    assert data["excluded"] == [
        {"vip": "tcp://11.0.0.1:80", "backend": "10.0.0.5:8080", "held": True, "reason": "source", "detail": ""}
    ]
    assert "nowhere" in data["problem"][0]["reason"]
    assert (data["failed_open"], data["conflict"]) == ([], [])


def test_what_is_wrong_is_left_out_and_said_with_its_line(vips: Vips) -> None:
    shown = vips("show", "-o", "ipvsadm", web=WEB + '[[vip]]\nlisten = "tcp://11.0.0.2:0"\n')
    assert shown.stdout.splitlines() == WEB_RULES
    assert "left out: " in shown.stderr
    assert "line 12" in shown.stderr


def test_sources_that_disagree_are_joined_and_that_is_said(vips: Vips) -> None:
    shown = vips("show", "-o", "ipvsadm", one=WEB, two=WEB.replace("weight = 2", "weight = 9"))
    assert shown.stdout.splitlines() == WEB_RULES
    assert "tcp://11.0.0.1:80: backend 10.0.0.5:8080: " in shown.stderr


def test_a_backend_of_this_host_is_reached_past_its_port_mapping(vips: Vips) -> None:
    text = '[[vip]]\nlisten = "tcp://11.0.0.1:80"\n[[vip.backend]]\naddress = "10.0.0.5"\nagent = "10.0.0.5"\nlocal = "172.17.0.2:80"\n'
    assert "-r 10.0.0.5:80" in vips("show", "-o", "ipvsadm", web=text).stdout
    assert "-r 172.17.0.2:80" in vips("show", "-o", "ipvsadm", "--address", "10.0.0.5", web=text).stdout
    assert "10.0.0" in vips("show", "--address", "10.0.0", web=text, expect=2).stderr


def test_without_a_complete_state_it_says_of_each_source_why(vips: Vips, tmp_path: Path) -> None:
    missing = tmp_path / "missing.toml"
    refused = vips("show", "--timeout", "0.6", f"--source=file:{missing}", expect=1, web=WEB, broken="[[vip\n")
    assert refused.stdout == ""
    *_, head, first, second = refused.stderr.splitlines()
    assert head == "minuteman: no complete state within 0.6 s, so nothing was done:"
    assert f"{tmp_path / 'broken.toml'}: " in first
    assert "line 1" in first
    assert f"{missing}: there is no such file" in second


def test_a_source_that_is_none_is_a_usage_error_that_names_the_kinds(vips: Vips) -> None:
    assert "file, " in vips("show", "--source", "/etc/vips", expect=2).stderr
    assert "nonsense" in vips("show", "--source", "nonsense:x", expect=2).stderr
    assert "--source" in vips("show", expect=2).stderr


def test_examples(cli: Any) -> None:
    shown = cli("show", f"--source=file:{EXAMPLES}", "-o", "ipvsadm", group="vips")
    assert shown.stderr == ""
    lines = shown.stdout.splitlines()
    assert lines[:4] == [
        "-A -t 11.0.0.1:443 -s mh -b mh-fallback,mh-port",
        "-a -t 11.0.0.1:443 -r 10.0.0.5:8443 -m -w 2",
        "-a -t 11.0.0.1:443 -r 10.0.0.6:8443 -m -w 1",
        "-a -t 11.0.0.1:443 -r 10.0.0.7:8443 -m -w 0",
    ]
    assert len([line for line in lines if line.startswith("-A")]) == 4
    scope = ["--scope", "11.0.0.0/8", "--scope", "fd01:c::/64"]
    cli("apply", f"--source=file:{EXAMPLES}", *scope, group="vips")
    assert cli.rules == lines
    titles = [line for line in cli("show", f"--source=file:{EXAMPLES}", group="vips").stdout.splitlines() if line[0] != " "]
    assert titles[0] == "tcp://11.0.0.1:443  mh (mh-fallback,mh-port) masquerade drain 60 s"
    assert titles[1] == "tcp://[fd01:c::443]:443  wlc persistent 300 masquerade"


# -- apply -------------------------------------------------------------------------------------------------------------


def test_apply_carries_out_what_is_missing_and_then_nothing(vips: Vips) -> None:
    vips.cli.load(OLD)
    applied = vips("apply", web=WEB)
    assert applied.stdout.splitlines() == WEB_RULES
    assert "scope: just the services that the sources name: no other can be removed" in applied.stderr
    assert "3 of 3 operations done in " in applied.stderr
    assert vips.cli.rules == [*WEB_RULES, *OLD_RULES]
    before = vips.cli.fake.operations
    again = vips("apply", web=WEB)
    assert (again.stdout, again.stderr.splitlines()[-1]) == ("", "nothing to do")
    assert vips.cli.fake.operations == before


def test_apply_as_json_says_what_became_of_it(vips: Vips) -> None:
    plain = json.loads(vips("apply", "-o", "json", web=WEB).stdout)
    assert (plain["operations"], plain["done"], plain["failed"]) == (3, 3, [])


def test_a_dry_run_changes_nothing(vips: Vips) -> None:
    vips.cli.load(OLD)
    shown = vips("apply", "--dry-run", "--scope", "11.0.0.0/8", web=WEB)
    assert shown.stdout.splitlines() == [*WEB_RULES, "-D -t 11.0.0.9:80"]
    assert "held back: 1 of 1 destination (100 %) would be lost" in shown.stderr
    assert vips.cli.rules == OLD_RULES
    plain = json.loads(vips("apply", "--dry-run", "-o", "json", web=WEB).stdout)
    assert plain["summary"] == {"add_service": 1, "add_destination": 2}


def test_what_would_lose_too_much_wants_a_yes(vips: Vips) -> None:
    vips("apply", web=WEB)
    vips.cli.load(OLD)
    one = WEB.replace(SIX, "")
    scope = ("--scope", "11.0.0.0/8")
    refused = vips("apply", *scope, web=one, expect=2)
    assert "lose 2 of 3 destinations (67 %)?" in refused.stderr
    assert "tcp 11.0.0.9:80, with 1 fewer" in refused.stderr
    assert vips.cli.rules == [*WEB_RULES, *OLD_RULES]
    vips("apply", *scope, "--max-loss", "70", web=one)
    assert vips.cli.rules == WEB_RULES[:2]
    vips("apply", *scope, web="", expect=2)
    vips("apply", *scope, "--yes", web="")
    assert vips.cli.rules == []


def test_on_a_terminal_it_asks(cli: Any) -> None:
    cli.interactive = True
    cli.load(OLD)
    words = ("apply", f"--source=file:{cli.file('none.toml', '')}", "--scope", "11.0.0.0/8")
    assert "not confirmed" in cli(*words, group="vips", stdin="n\n", expect=2).stderr
    assert cli.rules == OLD_RULES
    cli(*words, group="vips", stdin="y\n")
    assert cli.rules == []


def test_apply_waits_until_what_goes_has_drained(vips: Vips) -> None:
    drain = WEB.replace(':80"\n', ':80"\ndrain = 30\n', 1)
    vips("apply", web=drain)
    fake = vips.cli.fake
    fake.connect(ServiceKey.tcp("11.0.0.1", 80), Destination("10.0.0.6", 8080), 1)
    seen: list[list[str]] = []

    def ends() -> None:
        seen.append(vips.cli.rules)
        fake.connect(ServiceKey.tcp("11.0.0.1", 80), Destination("10.0.0.6", 8080), 0)

    vips.cli.at_sleep.append(ends)
    applied = vips("apply", web=drain.replace(SIX, ""))
    assert seen == [[*WEB_RULES[:2], WEB_RULES[2].replace("-w 1", "-w 0")]]
    assert applied.stderr.endswith("drained\n")
    assert vips.cli.rules == WEB_RULES[:2]


def test_services_that_no_source_names_drain_as_the_option_says(vips: Vips) -> None:
    vips.cli.load(OLD)
    fake = vips.cli.fake
    fake.connect(ServiceKey.tcp("11.0.0.9", 80), Destination("10.0.0.9", 80), 1)
    seen: list[str] = []
    vips.cli.at_sleep += [lambda: seen.extend(vips.cli.rules)]
    vips("apply", "--scope", "11.0.0.9/32", "--yes", "--drain", "2", web="")
    assert seen == [OLD_RULES[0], OLD_RULES[1].replace("-w 1", "-w 0")]
    assert vips.cli.rules == []


def test_what_is_outside_the_scope_is_left_out_and_the_exit_code_says_so(vips: Vips) -> None:
    text = WEB + '[[vip]]\nlisten = "tcp://12.0.0.1:80"\n'
    applied = vips("apply", "--scope", "11.0.0.0/8", web=text, expect=4)
    assert "left out: tcp 12.0.0.1:80 is not in scope (11.0.0.0/8)" in applied.stderr
    assert vips.cli.rules == WEB_RULES


def test_what_the_kernel_refuses_is_told_and_the_rest_is_done(vips: Vips) -> None:
    applied = vips("apply", web=WEB + '[[vip]]\nlisten = "tcp://11.0.0.2:80"\nscheduler = "nonesuch"\n', expect=4)
    assert "failed: -A -t 11.0.0.2:80 -s nonesuch: No such file or directory" in applied.stderr
    assert vips.cli.rules == WEB_RULES


def test_the_network_namespace_goes_before_the_verb(vips: Vips) -> None:
    source = f"--source=file:{vips.cli.file('web.toml', WEB)}"
    vips.cli("--netns", "/run/netns/blue", "apply", source, group="vips")
    assert set(vips.cli.netns) == {"/run/netns/blue"}


@pytest.mark.parametrize(
    "words",
    [
        ["--watch", "--dry-run"],
        ["--audit", "5"],
        ["--check", "tcp"],
        ["--watch", "--check-interval", "1"],
        ["--watch", "--check", "icmp"],
        ["--max-loss", "101"],
        ["--scope", "nowhere"],
    ],
)
def test_options_that_do_not_go_together_are_refused(vips: Vips, words: list[str]) -> None:
    vips("apply", *words, expect=2, web=WEB)


def test_the_help_says_what_signals_do(cli: Any) -> None:
    shown = cli("apply", "--help", group="vips").stdout
    assert "\n    USR1        do what is held back after all\n" in shown
    assert "\n    78  a file does not say" in shown


def test_watching_is_handed_what_the_options_say(vips: Vips, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it does is in test_vips_keeper and tests/kernel/test_vips_apply."""
    seen: list[Any] = []

    async def run(keeper: Any) -> int:
        seen.append(keeper)
        return 0

    monkeypatch.setattr("pyminuteman.cli.vips_keeper.Keeper.run", run)
    options = (
        "--scope",
        "11.0.0.0/8",
        "--audit",
        "5",
        "--max-loss",
        "10",
        "--drain",
        "7",
        "-o",
        "json",
        "--yes",
        "--check",
        "tcp",
    )
    vips("apply", "--watch", *options, web=WEB)
    vips("apply", "--watch", web=WEB)
    vips("apply", "--watch", "--check=http:/x", "--check-interval=0.1", web=WEB)
    one, two, _ = seen
    assert [keeper.check is None for keeper in seen] == [False, True, False]
    assert [keeper.check_policy.interval_seconds for keeper in seen] == [2, 2, 0.1]
    assert [keeper.check_policy.undecided_interval_seconds for keeper in seen] == [0.5, 0.5, 0.1]
    assert isinstance(one.application, Application)
    assert str(one.scope) == "11.0.0.0/8"
    assert (one.audit_seconds, one.most_loss_percent, one.drain_seconds, one.as_json, one.yes) == (5, 10, 7, True, True)
    assert (two.scope, two.audit_seconds, two.most_loss_percent, two.as_json, two.yes) == (None, 60, 50, False, False)
