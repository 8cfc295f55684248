"""What every verb is handed: how to reach the table, and how to talk to the user."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import click

from pyminuteman.cli.exit_codes import Refused
from pyminuteman.cli.terminal import clean
from pyminuteman.ipvs import IPVSTable, NetlinkBackend, Scope, TableBackend

__all__ = ["Application", "pass_application"]

_SHOWN = 20


def _kernel(netns: str | None) -> TableBackend:
    return NetlinkBackend(netns=netns)


@dataclass
class Application:
    """The outside world, as the verbs see it. Tests hand in one of their own as click's ``obj``."""

    open_backend: Callable[[str | None], TableBackend] = _kernel
    """Opens the table of a network namespace (None: this one)."""
    sleep: Callable[[float], object] = time.sleep
    clock: Callable[[], float] = time.monotonic  # noqa: TID251 - this is the driver
    interactive: bool | None = None
    """Whether questions can be asked; None: when standard input and error are terminals."""
    netns: str | None = None
    verbose: bool = False
    no_color: bool = False

    @contextmanager
    def backend(self) -> Iterator[TableBackend]:
        """The table's holder, closed at the end; several :class:`IPVSTable` may use it one after the other."""
        backend = self.open_backend(self.netns)
        try:
            yield backend
        finally:
            backend.close()

    @contextmanager
    def table(self) -> Iterator[IPVSTable]:
        """The table, for reading it and for changes that name their rows: nothing is in scope."""
        with self.backend() as backend:
            yield IPVSTable(scope=Scope.services(()), backend=backend)

    def confirm(self, what: Sequence[str], question: str, *, yes: bool) -> None:
        """Ask, unless ``yes`` was said already or there is nothing to ask about.

        Args:
            what: What is about to go, a line each.
            question: Without its question mark.
            yes: ``--yes``.

        Raises:
            Refused: Nobody to ask, or the answer was no.
        """
        if yes or not what:
            return
        interactive = self.interactive
        if interactive is None:
            interactive = sys.stdin.isatty() and sys.stderr.isatty()
        shown = [f"  {line}" for line in what[:_SHOWN]]
        if len(what) > _SHOWN:
            shown.append(f"  and {len(what) - _SHOWN} more")
        listed = "\n".join(map(clean, shown))
        if not interactive:
            msg = f"{question}?\n{listed}\nNobody is here to answer: say --yes if that is meant. Nothing was changed."
            raise Refused(msg)
        click.echo(f"{clean(question)}?\n{listed}\n[y/N] ", err=True, nl=False)
        if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
            msg = "not confirmed; nothing was changed"
            raise Refused(msg)


pass_application = click.make_pass_decorator(Application, ensure=True)
"""Hands a verb its :class:`Application`."""
