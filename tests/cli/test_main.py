"""The command as a process: what is missing, what is closed, and how it starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from pyminuteman.cli import GROUPS, main
from pyminuteman.cli.ipvs import VERBS, group
from pyminuteman.cli.root import root

COMMAND = [sys.executable, "-m", "pyminuteman"]


def run(*words: str, **extra: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60, check=False, **extra)


def test_version_imports_neither_rich_nor_the_verbs() -> None:
    script = "import sys; from pyminuteman.cli import main; main(['--version']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    version, modules = done.stdout.splitlines()
    assert version.startswith("minuteman ")
    assert not {"click", "rich", "pyminuteman.cli.root", "pyminuteman.ipvs._native"} & set(modules.split())
    script = script.replace("['--version']", "['ipvs', 'plan', '/nonexistent']").replace("print(", "print(0, ")
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "click" in done.stdout.split()
    assert not {"rich", "pyminuteman.cli.ipvs_watch", "pyminuteman.ipvs._native"} & set(done.stdout.split())
    assert run("--no-color", "--version").stdout == f"{version}\n"


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_the_extra(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], missing: str) -> None:
    monkeypatch.setattr("pyminuteman.cli.find_spec", lambda name: None if name == missing else object())
    assert main(["--version"]) == 1
    assert capsys.readouterr().err == f"minuteman: the command line needs {missing}: pip install 'pyminuteman[cli]'\n"


def test_without_the_extra_as_a_process(tmp_path: Path) -> None:
    """Only the standard library, and this package."""
    link = tmp_path / "pyminuteman"
    link.symlink_to(Path(__file__).parents[2] / "pyminuteman")
    done = subprocess.run(
        [sys.executable, "-S", "-m", "pyminuteman", "--version"],
        capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr == "minuteman: the command line needs click and rich: pip install 'pyminuteman[cli]'\n"


def test_main_returns_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "Exit codes:" in capsys.readouterr().out
    assert main(["ipvs", "nonsense"]) == 2
    assert main(["ipvs", "plan", "/nonexistent"]) == 78
    assert "minuteman: /nonexistent: cannot be read: No such file or directory" in capsys.readouterr().err


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Any:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None, name
            yield from commands(found, (*path, name))


@pytest.mark.parametrize("path", list(commands(root)), ids=" ".join)
def test_every_command_has_help(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path, "--help"]) == 0
    assert "Usage: minuteman" in capsys.readouterr().out


def test_table_of_verbs() -> None:
    assert root.list_commands(click.Context(root)) == list(GROUPS)
    assert group.list_commands(click.Context(group)) == list(VERBS)
    assert group.get_command(click.Context(group), "nonsense") is None


@pytest.mark.parametrize("unbuffered", ["-u", "-q"])
def test_broken_pipe_is_silent(tmp_path: Path, unbuffered: str) -> None:
    rules = "-A -f 1\n" + "".join(f"-a -f 1 -r 10.{n // 250}.{n % 250}.1\n" for n in range(20000))
    script = """
from pyminuteman.cli.application import Application
from pyminuteman.cli.root import root
from pyminuteman.testing.fake_kernel import FakeKernel
root.main(["ipvs", "plan", "-"], obj=Application(open_backend=lambda _: FakeKernel()))
"""
    path = tmp_path / "rules"
    path.write_text(rules)
    words = ["bash", "-c", 'set -o pipefail; "$0" $3 -c "$1" < "$2" | head -1', sys.executable, script, str(path), unbuffered]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=env)
    scope = "scope: just the service in standard input: no other can be removed\n"
    assert (done.stdout, done.stderr, done.returncode) == ("-A -f 1 -s wlc\n", scope, 141)


def test_closed_and_narrow_output() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    done = run("ipvs", "plan", "/nonexistent/\udce9é", env=env)
    assert done.returncode == 78
    assert "Traceback" not in done.stderr
    for words, code in ((["--version"], 0), (["--help"], 0), (["ipvs", "plan", "-"], 78)):
        closed = subprocess.run(
            ["bash", "-c", '"$@" >&- <&-', "x", *COMMAND, *words], capture_output=True, text=True, check=False
        )
        assert closed.returncode == code
        assert "Traceback" not in closed.stderr


def test_causes_are_shown_when_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("a =")
    assert "because of" not in run("ipvs", "plan", str(path)).stderr
    assert "  because of TOMLDecodeError: Invalid value (at end of document)" in run("-v", "ipvs", "plan", str(path)).stderr


def test_completion() -> None:
    env = {**os.environ, "_MINUTEMAN_COMPLETE": "bash_complete", "COMP_WORDS": "minuteman ipvs ti", "COMP_CWORD": "2"}
    assert run(env=env).stdout == "plain,timeouts\n"
    env["_MINUTEMAN_COMPLETE"] = "bash_source"
    assert "complete -o nosort -F" in run(env=env).stdout
