"""The command line on a fake kernel, with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from pyminuteman.cli.application import Application
from pyminuteman.cli.root import root
from pyminuteman.ipvs import IPVSTable, Scope, TableBackend
from pyminuteman.testing.fake_kernel import FakeKernel

ROOT = Path(__file__).parents[2]


class Console:
    """Runs commands; ``at_sleep`` are called one by one when something waits."""

    def __init__(self, directory: Path) -> None:
        self.fake = FakeKernel()
        self.fake.close = lambda: None  # type: ignore[method-assign]  # commands within commands share it
        self.directory = directory
        self.now = 1000.0
        self.at_sleep: list[Callable[[], Any]] = []
        self.slept: list[float] = []
        self.interactive = False
        self.netns: list[str | None] = []

    def _open(self, netns: str | None) -> TableBackend:
        self.netns.append(netns)
        return self.fake

    def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if self.at_sleep:
            self.at_sleep.pop(0)()

    def __call__(self, *arguments: str, stdin: str | bytes = "", expect: int = 0, group: str = "ipvs") -> Result:
        application = Application(
            open_backend=self._open, sleep=self._sleep, clock=lambda: self.now, interactive=self.interactive
        )
        words = [*filter(None, [group]), *arguments]
        result = CliRunner().invoke(root, words, obj=application, input=stdin)
        assert result.exit_code == expect, (result.output, result.exception)
        assert result.exception is None or isinstance(result.exception, SystemExit)
        return result

    def file(self, name: str, text: str | bytes) -> str:
        path = self.directory / name
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return str(path)

    def load(self, rules: str) -> None:
        """Put these in the fake kernel, beside what is there."""
        self("import", "-", "--format", "ipvsadm", stdin=rules)

    @property
    def rules(self) -> list[str]:
        return IPVSTable(scope=Scope.everything(), backend=self.fake).export(thresholds=True).splitlines()


@pytest.fixture
def cli(tmp_path: Path) -> Console:
    return Console(tmp_path)


@pytest.fixture
def examples() -> Path:
    return ROOT / "examples" / "tables"
