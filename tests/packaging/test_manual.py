"""Man pages and completion, as those programs see them that read them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import pytest

from pyminuteman.cli.root import root
from pyminuteman.daemon.config_changes import takes_restart
from pyminuteman.daemon.config_document import KEYS
from tests.support.tools import tool

ROOT = Path(__file__).parents[2]
PAGES = {"minuteman.1", "minuteman-ipvs.1", "minuteman-keys.1", "minuteman-members.1", "minuteman-vips.1"}
BY_HAND = {"minuteman.8", "minuteman.toml.5"}


@pytest.fixture(scope="module")
def manual(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Written as for a wheel, but by the tool itself."""
    directory = tmp_path_factory.mktemp("manual")
    subprocess.run(
        [sys.executable, ROOT / "tools/make_manual.py", directory],
        check=True,
        env=os.environ | {"SOURCE_DATE_EPOCH": "1700000000"},
    )
    return directory / "share"


def pages(manual: Path) -> list[Path]:
    return sorted(manual.glob("man/man?/*"))


def shown(page: Path) -> str:
    """As a reader sees it, without the emphasis."""
    done = subprocess.run(
        [tool("man", "man-db"), "-l", page],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"MANWIDTH": "78", "MANPAGER": "cat"},
    )
    assert done.stderr == ""
    return subprocess.run(
        [tool("col", "bsdextrautils"), "-b"], input=done.stdout, capture_output=True, text=True, check=True
    ).stdout


def test_every_page_is_there(manual: Path) -> None:
    names = {page.name for page in pages(manual)}
    assert names >= PAGES | BY_HAND
    assert all(page.parent.name == f"man{page.suffix[1:]}" for page in pages(manual))


def test_the_page_of_the_configuration_has_its_keys_and_no_others() -> None:
    found: dict[str, set[str]] = {}
    section = ""
    previous = ""
    for line in (ROOT / "docs/man/minuteman.toml.5").read_text().splitlines():
        if line.startswith(".SH"):
            match = re.fullmatch(r'\.SH "\[+([\w.]+)\]+"', line)
            section = match[1] if match else line
            found.setdefault(section, set())
        elif section in KEYS and line.startswith((".B ", ".BR ")) and previous == ".TP":
            found[section] |= set(re.findall(r"[a-z_0-9.]+", line.partition(" ")[2]))
        previous = line
    for name in ("node", "cluster", "names", "ipvs", "health", "host", "namespaces", "api", "log"):
        assert found[name] == set(KEYS[name]), name
    assert found["store"] == {*KEYS["store"], "etcd", "limits"}
    assert found["source"] == {*KEYS["source"], "health"}
    assert found["policy"] == {*KEYS["policy"], "policy.rule"}


def test_the_page_of_the_configuration_says_what_a_reload_takes(manual: Path) -> None:
    text = " ".join(shown(manual / "man/man5/minuteman.toml.5").split())
    said = text.partition("These sections count at once: ")[2].partition(" So do ")[0]
    keys = [f"{section}.{key}" for section, readers in KEYS.items() for key in readers]
    whole = [
        section
        for section in KEYS
        if "." not in section and not any(takes_restart(key) for key in keys if key.split(".")[0] == section)
    ]
    partly = [key for key in keys if key.split(".")[0] not in whole and not takes_restart(key)]
    assert set(re.findall(r"\[+(\w+)\]+", said)) == {*whole, *(key.split(".")[0] for key in partly)}
    assert {key for key in partly if key.startswith("api.")} == {"api.hosts", "api.metrics_labels"}
    assert "hosts and metrics_labels of [api]" in said
    assert [key for key in keys if key.startswith("health.") and takes_restart(key)] == ["health.concurrency"]
    assert "[health] but for concurrency" in said


def test_no_page_makes_its_readers_complain(manual: Path) -> None:
    for page in pages(manual):
        lint = subprocess.run([tool("mandoc"), "-Tlint", "-W", "warning", page], capture_output=True, text=True, check=False)
        assert (lint.returncode, lint.stdout) == (0, ""), lint.stdout
        groff = subprocess.run(
            [tool("groff", "groff-base"), "-ww", "-man", "-Tutf8", page], capture_output=True, text=True, check=True
        )
        assert groff.stderr == ""
        assert shown(page)


def test_a_mistake_would_be_complained_of(tmp_path: Path) -> None:
    page = tmp_path / "wrong.1"
    page.write_text(".TH WRONG 1\n.SH NAME\nwrong \\- is\n.XX\n")
    assert subprocess.run([tool("mandoc"), "-Tlint", "-W", "warning", page], capture_output=True, check=False).returncode != 0


def test_every_verb_and_every_option_is_in_a_page(manual: Path) -> None:
    text = {
        page.name: " ".join(page.read_text().split()).replace("\\-", "-").replace("\\fB", "").replace("\\fR", "")
        for page in pages(manual)
    }

    def check(command: click.Command, context: click.Context, page: str) -> int:
        for parameter in command.get_params(context):
            if isinstance(parameter, click.Option) and not parameter.hidden:
                assert all(name in text[page] for name in parameter.opts), (page, parameter.opts)
        if not isinstance(command, click.Group):
            return 1
        count = 0
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            assert below is not None
            own = click.Context(below, info_name=name, parent=context)
            group = command is root and isinstance(below, click.Group)
            if not below.hidden:
                assert group or f".B {own.command_path}" in text[page], own.command_path
                count += check(below, own, f"minuteman-{name}.1" if group else page)
        return count

    assert check(root, click.Context(root, info_name="minuteman", **root.context_settings), "minuteman.1") >= 20


def test_the_same_sources_make_the_same_pages(manual: Path, tmp_path: Path) -> None:
    environment = os.environ | {"SOURCE_DATE_EPOCH": "1700000000", "COLUMNS": "40", "LC_ALL": "C"}
    subprocess.run([sys.executable, ROOT / "tools/make_manual.py", tmp_path], check=True, env=environment)
    for path in manual.rglob("*"):
        if path.is_file():
            assert (tmp_path / "share" / path.relative_to(manual)).read_bytes() == path.read_bytes()
    assert "2023-11-14" in shown(manual / "man/man1/minuteman.1")


def test_what_begins_with_a_dot_is_no_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    import make_manual  # noqa: PLC0415

    lines = make_manual._prose(".so /etc/passwd\n\n'tis \\fBnot\\fR\n\n\b\n.kept\n  as-it is")
    assert lines == ["\\&.so /etc/passwd", ".PP", "\\&'tis \\efBnot\\efR", ".PP", ".nf", "\\&.kept", "  as\\-it is", ".fi"]


def completions(shell: list[str], script: str) -> list[str]:
    """The lines that a shell prints; the command beside this interpreter is the one that it asks."""
    assert (Path(sys.executable).parent / "minuteman").exists()
    with tempfile.TemporaryDirectory() as home:  # shells write there
        own = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": home,
            "XDG_CONFIG_HOME": home,
            "XDG_DATA_HOME": home,
        }
        done = subprocess.run([*shell, "-c", script], capture_output=True, text=True, check=False, env=os.environ | own)
    assert (done.returncode, done.stderr) == (0, ""), done
    return sorted(line for line in done.stdout.splitlines() if line)


def test_bash_completes(manual: Path) -> None:
    script = manual / "bash-completion/completions/minuteman"
    ask = f"source {script}; COMP_WORDS=(minuteman ipvs im); COMP_CWORD=2; _minuteman_completion minuteman"
    assert completions([tool("bash"), "--norc"], f'{ask}; printf "%s\\n" "${{COMPREPLY[@]}}"') == ["import"]
    assert "minuteman" in completions([tool("bash"), "--norc"], f"source {script}; complete -p minuteman")[0]


def test_zsh_completes(manual: Path) -> None:
    """Its completion system is replaced by two functions that say what they are told."""
    script = manual / "zsh/site-functions/_minuteman"
    assert script.read_text().startswith("#compdef minuteman\n")
    stubs = 'compdef() { print "compdef $@"; }; _describe() { print -l -- ${(P)3}; }; compadd() { print -l -- "$@"; }'
    ask = f"{stubs}; source {script}; words=(minuteman ipvs im); CURRENT=3; _minuteman_completion"
    found = completions([tool("zsh"), "-f"], ask)
    assert "compdef _minuteman_completion minuteman" in found
    assert any(line.startswith("import:") for line in found)
    assert not any(line.startswith("export") for line in found)


def test_zsh_finds_it_where_it_is_installed(manual: Path) -> None:
    ask = f"fpath=({manual}/zsh/site-functions $fpath); autoload -Uz compinit; compinit -D; print $_comps[minuteman]"
    assert completions([tool("zsh"), "-f"], ask) == ["_minuteman"]


def test_fish_completes(manual: Path) -> None:
    script = manual / "fish/vendor_completions.d/minuteman.fish"
    found = completions([tool("fish"), "--no-config"], f"source {script}; complete -C 'minuteman ipvs im'")
    assert [line.split("\t")[0] for line in found] == ["import"]
