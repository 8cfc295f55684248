"""plan, apply, flush, export and import, on a fake kernel."""

from __future__ import annotations

import json
from errno import EINVAL, ENOENT
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from pyminuteman.ipvs import (
    AddService,
    Destination,
    IPVSTable,
    Plan,
    Scope,
    Service,
    ServiceKey,
)
from tests.support.strategies import tables

WEB = """
[[service]]
protocol = "tcp"
address = "11.0.0.1"
port = 80
  [[service.destination]]
  address = "10.0.0.5"
  weight = 2
"""
WEB_RULES = ["-A -t 11.0.0.1:80 -s wlc", "-a -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 2"]
OLD = "-A -t 11.0.0.9:80 -s rr\n-a -t 11.0.0.9:80 -r 10.0.0.9:80 -m -w 1\n"
OLD_RULES = OLD.splitlines()
KEY = ServiceKey.tcp("11.0.0.1", 80)


def test_plan_says_3_and_then_0(cli: Any) -> None:
    web = cli.file("web.toml", WEB)
    planned = cli("plan", web, expect=3)
    assert planned.stdout.splitlines() == WEB_RULES
    assert planned.stderr == (f"scope: just the service in {web}: no other can be removed\nadd 1 service, add 1 destination\n")
    assert cli.rules == []
    applied = cli("apply", web)
    assert applied.stdout.splitlines() == WEB_RULES
    assert "2 of 2 operations done in " in applied.stderr
    assert cli.rules == WEB_RULES
    again = cli("plan", web)
    assert (again.stdout, again.stderr.splitlines()[-1]) == ("", "nothing to do")
    assert cli("apply", web).stdout == ""


def test_plan_as_json(cli: Any) -> None:
    data = json.loads(cli("plan", cli.file("web.toml", WEB), "-o", "json", expect=3).stdout)
    assert data["changes"] is True
    assert data["summary"] == {"add_service": 1, "add_destination": 1}
    assert [row["operation"] for row in data["operations"]] == ["add_service", "add_destination"]
    assert [row["line"] for row in data["operations"]] == WEB_RULES
    assert data["operations"][1]["destination"]["weight"] == 2
    assert "destination" not in data["operations"][0]


def test_without_a_scope_nothing_else_is_removed(cli: Any) -> None:
    cli.load(OLD)
    cli("apply", cli.file("web.toml", WEB))
    assert cli.rules == WEB_RULES + OLD_RULES


def test_removing_services_takes_a_yes(cli: Any) -> None:
    cli.load(OLD)
    web = cli.file("web.toml", WEB)
    scope = ("--scope", "11.0.0.0/24")
    refused = cli("apply", web, *scope, expect=2)
    assert "--yes" in refused.stderr
    assert "tcp 11.0.0.9:80, with 1 destination\n" in refused.stderr
    assert cli.rules == OLD_RULES
    dry = cli("apply", web, *scope, "--dry-run")
    assert dry.stdout.splitlines() == [*WEB_RULES, "-D -t 11.0.0.9:80"]
    cli.interactive = True
    assert "not confirmed" in cli("apply", web, *scope, stdin="n\n", expect=2).stderr
    assert "not confirmed" in cli("apply", web, *scope, stdin="", expect=2).stderr
    assert cli.rules == OLD_RULES
    cli("apply", web, *scope, stdin="y\n")
    assert cli.rules == WEB_RULES
    cli.interactive = False
    cli.load(OLD)
    cli("apply", web, *scope, "--yes")
    assert cli.rules == WEB_RULES


def test_what_was_not_confirmed_is_not_removed(cli: Any) -> None:
    """Somebody adds a service in scope between the question and the change."""
    cli.load(OLD)
    cli.fake.before_execute.append(lambda: IPVSTable(scope=Scope.everything(), backend=cli.fake).converge(
        {Service.tcp("11.0.0.77", 80): [], Service.tcp("11.0.0.9", 80): []}
    ))  # fmt: skip
    cli("apply", cli.file("web.toml", WEB), "--scope", "11.0.0.0/8", "--yes")
    assert "-A -t 11.0.0.77:80 -s wlc" in cli.rules
    assert not set(OLD_RULES) & set(cli.rules)


def test_scope_of_the_file(cli: Any) -> None:
    cli.load(OLD)
    web = cli.file("web.toml", 'scope.networks = ["11.0.0.0/24"]\n' + WEB)
    planned = cli("plan", web, expect=3)
    assert "-D -t 11.0.0.9:80" in planned.stdout
    assert f"scope: 11.0.0.0/24 (from {web})" in planned.stderr
    assert "-D" not in cli("plan", web, "--scope", "11.0.0.1", expect=3).stdout
    outside = cli("plan", web, "--scope", "12.0.0.0/8", expect=78)
    assert "web.toml: line 3: tcp 11.0.0.1:80 is outside the scope (12.0.0.0/8)" in outside.stderr
    assert "is no network" in cli("plan", web, "--scope", "x", expect=2).stderr


def test_empty_files_are_refused(cli: Any) -> None:
    cli.load(OLD)
    for name in ("empty.toml", "empty.rules"):
        empty = cli.file(name, "")
        assert "--allow-empty" in cli("apply", empty, "--scope", "everything", "--yes", expect=78).stderr
        assert "--allow-empty" in cli("plan", empty, "--scope", "everything", expect=78).stderr
        assert "--allow-empty" in cli("import", empty, "--replace", "--yes", expect=78).stderr
        assert "nothing to do" in cli("import", empty).stderr
    assert cli.rules == OLD_RULES
    cli("apply", empty, "--scope", "everything", "--yes", "--allow-empty")
    assert cli.rules == []


def test_partial_failure_is_4_and_names_the_line(cli: Any) -> None:
    web = cli.file("web.toml", WEB + '  [[service.destination]]\n  address = "10.0.0.6"\n')
    cli.fake.fail(2, EINVAL, "words of the kernel")
    failed = cli("apply", web, expect=4)
    assert f"failed: {web}: line 9: -a -t 11.0.0.1:80 -r 10.0.0.6:80 -m -w 1: Invalid argument" in failed.stderr
    assert 'the kernel says "words of the kernel"' in failed.stderr
    assert "2 of 3 operations done" in failed.stderr
    assert "; 1 failed" in failed.stderr
    assert cli.rules == WEB_RULES
    cli.fake.fail(0, EINVAL)
    data = json.loads(cli("apply", web, "-o", "json", expect=4).stdout)
    assert (data["operations"], data["done"]) == (1, 0)
    assert data["failed"][0]["where"] == f"{web}: line 9"
    assert data["failed"][0]["errno"] == EINVAL
    assert json.loads(cli("apply", web, "-o", "json").stdout)["done"] == 1
    assert json.loads(cli("apply", web, "-o", "json").stdout)["operations"] == 0


def test_unknown_scheduler_has_a_hint(cli: Any) -> None:
    failed = cli("apply", cli.file("web.toml", WEB.replace("port", 'scheduler = "nope"\nport')), expect=4)
    assert "modprobe ip_vs_nope" in failed.stderr


def test_stop_on_error(cli: Any) -> None:
    web = cli.file("web.toml", WEB)
    cli.fake.fail(0, ENOENT)
    failed = cli("apply", web, "--stop-on-error", expect=4)
    assert "not tried, after an earlier failure" in failed.stderr
    assert cli.rules == []
    cli("apply", web, "--stop-on-error", "--drain", "5", expect=2)
    cli("apply", web, "--drain-udp", expect=2)


def test_not_permitted(cli: Any) -> None:
    cli.fake.denied = True
    for words in (["list"], ["apply", cli.file("web.toml", WEB)], ["export"], ["timeouts"], ["zero"]):
        assert "CAP_NET_ADMIN" in cli(*words, expect=77).stderr


def test_apply_drains(cli: Any) -> None:
    cli.load(OLD + "-A -t 11.0.0.1:80 -s wlc\n-a -t 11.0.0.1:80 -r 10.0.0.6:80 -m -w 1")
    gone, six = ServiceKey.tcp("11.0.0.9", 80), Destination("10.0.0.6", 80)
    cli.fake.connect(gone, Destination("10.0.0.9", 80), 2)
    cli.fake.connect(KEY, six, 1, 1)
    cli.at_sleep = [lambda: cli.fake.connect(KEY, six, 0), lambda: None, lambda: None]
    web = cli.file("web.toml", WEB)
    done = cli("apply", web, "--scope", "11.0.0.0/8", "--yes", "--drain", "3.5")
    assert done.stderr.splitlines()[-4:] == [
        "3 of 3 operations done in 0.00 s",
        "draining: 2 destinations, 4 connections, at most 4 s to go",
        "draining: 1 destination, 2 connections, at most 2 s to go",
        "drained",
    ]
    assert cli.slept == [1.0, 1.0, 1.0, 0.5]
    assert cli.rules == WEB_RULES
    assert cli("apply", web, "--scope", "11.0.0.0/8", "--drain", "3").stderr.endswith("nothing to do\n")


def test_draining_is_interrupted(cli: Any) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    cli.load(OLD)
    cli.fake.connect(ServiceKey.tcp("11.0.0.9", 80), Destination("10.0.0.9", 80), 2)
    cli.at_sleep = [interrupt]
    web = cli.file("web.toml", WEB)
    left = cli("apply", web, "--scope", "11.0.0.0/8", "--yes", "--drain", "30", expect=130)
    assert "  tcp 11.0.0.9:80 -> 10.0.0.9:80" in left.stderr
    assert "-a -t 11.0.0.9:80 -r 10.0.0.9:80 -m -w 0" in cli.rules
    cli("apply", web, "--scope", "11.0.0.0/8", "--yes", "--drain", "2")
    assert cli.rules == WEB_RULES


def test_draining_fails(cli: Any) -> None:
    cli.load(OLD)
    cli.fake.connect(ServiceKey.tcp("11.0.0.9", 80), Destination("10.0.0.9", 80), 2)
    cli.at_sleep = [lambda: setattr(cli.fake, "denied", True)]
    web = cli.file("web.toml", WEB)
    left = cli("apply", web, "--scope", "11.0.0.0/8", "--yes", "--drain", "30", expect=77)
    assert "still there with weight 0:\n  tcp 11.0.0.9:80 -> 10.0.0.9:80\n" in left.stderr


def test_a_table_that_does_not_settle(cli: Any) -> None:
    """Somebody removes the service before each of our attempts to add a destination to it."""
    cli.load(WEB_RULES[0])
    execute = cli.fake.execute

    def racing(plan: Plan, *, stop_on_error: bool = False) -> Any:
        cli.fake.services.clear()
        rest = Plan.of(operation for operation in plan if not isinstance(operation, AddService))
        failed = execute(rest, stop_on_error=stop_on_error)
        return {at + len(plan) - len(rest): failure for at, failure in failed.items()}

    cli.fake.execute = racing
    failed = cli("apply", cli.file("web.toml", WEB), expect=4)
    assert "after 3 attempts 1 operations are still needed" in failed.stderr
    assert f"failed: {cli.directory}/web.toml: line 6: -a -t 11.0.0.1:80" in failed.stderr


def test_flush(cli: Any) -> None:
    cli.load(OLD + WEB_RULES[0])
    cli("flush", expect=2)
    assert "with 1 destination" in cli("flush", "--scope", "11.0.0.9", expect=2).stderr
    assert cli("flush", "--scope", "11.0.0.9", "--dry-run").stdout == "-D -t 11.0.0.9:80\n"
    cli("flush", "--scope", "11.0.0.9", "--yes")
    assert cli.rules == WEB_RULES[:1]
    cli("flush", "--scope", "everything", "--yes")
    assert cli.rules == []
    assert "nothing to do" in cli("flush", "--scope", "everything").stderr


def test_export_and_import(cli: Any) -> None:
    cli.load("-A -t 11.0.0.1:80 -s rr\n-a -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 1 -x 20 -y 10")
    assert cli("export").stdout == "-A -t 11.0.0.1:80 -s rr\n-a -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 1\n"
    assert "-x 20 -y 10" in cli("export", "--with-thresholds").stdout
    saved = {form: cli("export", "-o", form).stdout for form in ("json", "toml")}
    cli("flush", "--scope", "everything", "--yes")
    for form, text in saved.items():
        cli("import", "-", "--format", form, stdin=text)
        cli("import", "-", stdin=text)
        assert cli.rules == ["-A -t 11.0.0.1:80 -s rr", "-a -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 1 -x 20 -y 10"]
        cli("flush", "--scope", "everything", "--yes")


def test_import_edits_and_removes_nothing(cli: Any) -> None:
    cli.load(OLD + "\n".join(WEB_RULES) + "\n-a -t 11.0.0.1:80 -r 10.0.0.6:80 -m -w 1")
    text = "-A -t 11.0.0.1:80 -s rr\n-a -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 9\n"
    dry = cli("import", "-", "--dry-run", stdin=text)
    assert dry.stdout.splitlines() == ["-E -t 11.0.0.1:80 -s rr", "-e -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 9"]
    assert cli("import", "-", stdin=text).stdout == ""
    assert cli.rules == [
        *text.splitlines(),
        "-a -t 11.0.0.1:80 -r 10.0.0.6:80 -m -w 1",
        *OLD_RULES,
    ]
    assert "tcp 11.0.0.9:80" in cli("import", "-", "--replace", stdin=text, expect=2).stderr
    cli("import", "-", "--replace", "--yes", stdin=text)
    assert cli.rules == text.splitlines()


def test_import_does_not_remove_what_appears_meanwhile(cli: Any) -> None:
    cli.load("\n".join(WEB_RULES))
    read, reads = cli.fake.read, []

    def racing(*args: Any, **extra: Any) -> Any:
        found = read(*args, **extra)
        if not reads:
            reads.append(1)
            table = IPVSTable(scope=Scope.everything(), backend=cli.fake)
            table.converge({Service(KEY): [Destination("10.0.0.5", 80, 2), Destination("10.0.0.8", 80)]})
        return found

    cli.fake.read = racing
    cli("import", "-", stdin="-A -t 11.0.0.1:80 -s rr\n-a -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 7\n")
    assert "-a -t 11.0.0.1:80 -r 10.0.0.8:80 -m -w 1" in cli.rules
    assert "-a -t 11.0.0.1:80 -r 10.0.0.5:80 -m -w 7" in cli.rules


def test_import_is_all_or_nothing(cli: Any) -> None:
    failed = cli("import", "-", stdin=OLD + "-a -t 11.0.0.9:80 -r 10.0.0.300:80\n", expect=78)
    assert failed.stderr.startswith("minuteman: standard input: line 3: ")
    assert cli.rules == []


def test_import_reports_failures_by_line(cli: Any) -> None:
    cli.fake.fail(1, EINVAL)
    failed = cli("import", "-", stdin=f"# x\n{OLD}", expect=4)
    assert "failed: standard input: line 3: -a -t 11.0.0.9:80 -r 10.0.0.9:80 -m -w 1: Invalid argument" in failed.stderr


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(table=tables())
def test_every_table_survives(cli: Any, table: dict[Service, tuple[Destination, ...]]) -> None:
    """list -o json, export -o toml: applying either to the table it came from changes nothing."""
    cli.fake.services.clear()
    IPVSTable(scope=Scope.everything(), backend=cli.fake).converge(table)
    for words in (["list", "-o", "json"], ["export", "-o", "json"], ["export", "-o", "toml"]):
        text = cli(*words).stdout
        planned = cli("plan", "-", "--format", words[-1], "--scope", "everything", "--allow-empty", stdin=text)
        assert "nothing to do" in planned.stderr


@pytest.mark.parametrize("name", ["web.toml", "everything.toml", "web.json", "web.rules"])
def test_examples(cli: Any, examples: Path, name: str) -> None:
    path = str(examples / name)
    cli("plan", path, expect=3)
    cli("apply", path)
    cli("plan", path)


def test_examples_agree(cli: Any, examples: Path) -> None:
    cli("apply", str(examples / "web.json"))
    cli("plan", str(examples / "web.rules"))
