"""The documents of the command line, beside the commands themselves."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

import click
import pytest

from pyminuteman.cli.root import root
from tests.conftest import ROOT

CLI = (ROOT / "docs/cli.md").read_text()


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool that writes it."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("cli_reference")


def test_the_reference_is_what_the_commands_say(reference: ModuleType) -> None:
    assert (ROOT / "docs/reference/command-line.md").read_text() == reference.page(), (
        f"write it anew: {sys.executable} tools/cli_reference.py > docs/reference/command-line.md"
    )


def test_how_every_verb_behaves_is_told(reference: ModuleType) -> None:
    """By its whole name, or in its group's section."""
    sections = CLI.split("\n## ")
    top = click.Context(root, info_name="minuteman", **root.context_settings)
    found = [context.command_path for command, context in reference.verbs(root, top) if not isinstance(command, click.Group)]
    assert len(found) > 35
    for leaf in (path.removeprefix("minuteman ") for path in found):
        group, *verbs = leaf.split()
        within = [section for section in sections if section.startswith(f"`minuteman {group}`")] if verbs else []
        told = f"`minuteman {leaf}`" in CLI or f"| `{leaf}" in CLI or f"`{leaf} " in CLI
        assert told or any(all(f"`{verb}" in section for verb in verbs) for section in within), leaf
