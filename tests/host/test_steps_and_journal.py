"""Steps are carried out in order and taken back in the other, and what was before is remembered on disk."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.findings import Finding, Severity
from pyminuteman.host.journal import FILE_NAME, Journal, namespace_id
from pyminuteman.host.steps import run_steps, undo_steps


@dataclass
class Toy:
    name: str
    log: list[str]
    state: str = "wrong"
    fails: str = ""
    fixable: bool = True
    before: list[str] = field(default_factory=list)

    def check(self) -> Finding:
        severity = Severity.OK if self.state == "right" else Severity.ERROR
        return Finding(self.name, severity, f"it is {self.state}", "because", "turn it", self.fixable)

    def apply(self) -> None:
        self.log.append(f"+{self.name}")
        if self.fails == "apply":
            raise HostSetupError(self.name, "no", "try harder")
        self.before.append(self.state)
        if self.fails != "silently":
            self.state = "right"

    def undo(self) -> bool:
        self.log.append(f"-{self.name}")
        if self.fails == "undo":
            raise HostSetupError(self.name, "stuck")
        if not self.before:
            return False
        self.state = self.before.pop()
        return True


def test_only_what_is_needed_is_done() -> None:
    log: list[str] = []
    steps = [Toy("a", log), Toy("b", log, "right"), Toy("c", log, fixable=False), Toy("d", log)]
    assert [found.severity for found in run_steps(steps)] == ["ok", "ok", "error", "ok"]
    assert log == ["+a", "+d"]
    run_steps(steps)
    assert log == ["+a", "+d"]
    assert undo_steps(steps) == (["d", "a"], [])
    assert [step.state for step in steps] == ["wrong", "right", "wrong", "wrong"]


@pytest.mark.parametrize("how", ["apply", "silently"])
def test_a_step_that_fails_takes_back_those_before_it_and_no_others(how: str) -> None:
    log: list[str] = []
    steps = [Toy("a", log, "right"), Toy("b", log), Toy("c", log, fails=how), Toy("d", log)]
    with pytest.raises(HostSetupError) as caught:
        run_steps(steps)
    assert caught.value.step == "c"
    assert str(caught.value) == (
        "c: no; try harder" if how == "apply" else "c: it was put right, and still: it is wrong; turn it"
    )
    assert log == ["+b", "+c", "-c", "-b"]
    assert [step.state for step in steps] == ["right", "wrong", "wrong", "wrong"]


def test_what_could_not_be_taken_back_is_told() -> None:
    log: list[str] = []
    steps = [Toy("a", log), Toy("b", log, fails="undo"), Toy("c", log, fails="apply")]
    with pytest.raises(HostSetupError, match="no; taking back what was done failed, too: b: stuck; try harder"):
        run_steps(steps)
    assert log[-3:] == ["-c", "-b", "-a"]


def test_the_first_value_stands(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.remember("1", "sysctl x", {"value": "0"})
    journal.remember("1", "sysctl x", {"value": "1", "more": "2"})
    journal.remember("2", "device", {})
    assert Journal(tmp_path).recall("1", "sysctl x") == {"value": "0", "more": "2"}
    assert (Journal(tmp_path).steps("1"), Journal(tmp_path).steps("2")) == (["sysctl x"], [])
    journal.forget("1", "sysctl x")
    journal.forget("1", "sysctl x")
    assert Journal(tmp_path).recall("1", "sysctl x") == {}
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]


def test_an_earlier_boot_is_forgotten(tmp_path: Path) -> None:
    Journal(tmp_path).remember("1", "device", {"minuteman": "absent"})
    document = json.loads((tmp_path / FILE_NAME).read_text())
    (tmp_path / FILE_NAME).write_text(json.dumps(document | {"boot": "another"}))
    assert Journal(tmp_path).recall("1", "device") == {}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "boot": "%s", "changes": [1]}'])
def test_a_journal_that_is_none_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / FILE_NAME
    text = text.replace("%s", Path("/proc/sys/kernel/random/boot_id").read_text().strip())
    path.write_text(text)
    with pytest.raises(HostSetupError, match="is not as it should be"):
        Journal(tmp_path)
    assert path.read_text() == text


def test_what_cannot_be_remembered_is_not_to_be_done(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "missing")
    with pytest.raises(HostSetupError, match=r"cannot be written: No such file.*make the state directory"):
        journal.remember("1", "device", {"minuteman": "absent"})
    assert journal.recall("1", "device") == {}


def test_without_a_directory_it_is_remembered_for_a_while() -> None:
    journal = Journal()
    journal.remember("1", "device", {"minuteman": "absent"})
    assert journal.recall("1", "device") == {"minuteman": "absent"}


def test_a_namespace_is_known_by_what_it_is() -> None:
    assert namespace_id(None) == namespace_id("/proc/self/ns/net")
    with pytest.raises(HostSetupError, match="network namespace /no/such cannot be opened: No such file"):
        namespace_id("/no/such")


def test_findings_as_plain_data() -> None:
    found = Finding("a.b", Severity.WARNING, "what", "why", "fix", fixable=True)
    assert found.plain() == {"id": "a.b", "severity": "warning", "what": "what", "why": "why", "fix": "fix", "fixable": True}
    assert [Finding("a", severity, "", "").ok for severity in Severity] == [True, True, False, False]
    assert str(HostSetupError("device", "no")) == "device: no"
