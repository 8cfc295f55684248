"""The command itself: groups loaded on demand, errors turned into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import click

from pyminuteman.cli import GROUPS, exit_codes, version_text
from pyminuteman.cli.application import Application
from pyminuteman.cli.terminal import say
from pyminuteman.errors import MinutemanError

__all__ = ["LazyGroup", "root"]


class LazyGroup(click.Group):
    """A group whose commands live in modules that are imported when they are called.

    Args:
        table: Name to the module, and to the line of help that is shown without importing it. The command is the module's
            ``group``, or its attribute of the command's name (dashes as underscores, ``_command`` behind it).
    """

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str]], **extra: Any) -> None:
        """Keep the table."""
        super().__init__(*args, **extra)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Names, in the table's order."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        """Import it."""
        if cmd_name not in self._table:
            return None
        module = import_module(self._table[cmd_name][0])
        found = getattr(module, f"{cmd_name.replace('-', '_')}_command", None) or module.group
        return found if isinstance(found, click.Command) else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """From the table, without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._table.items()])


class _Root(LazyGroup):
    """Where errors end."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """As click's, but that what a verb returns is the exit code, and usage errors are 2 in both modes."""
        for stream in (sys.stdout, sys.stderr):
            # Whatever the locale: an odd character in a name is shown as an escape, not as a traceback.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="backslashreplace")
        try:
            code = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.ClickException as error:
            error.show()
            code = error.exit_code
        except click.Abort:
            code = exit_codes.INTERRUPTED
        code = code if isinstance(code, int) else exit_codes.OK
        if standalone_mode:
            sys.exit(code)
        return code

    def invoke(self, ctx: click.Context) -> Any:
        """Run the verb; here and not in :meth:`main`, which has a mind of its own about broken pipes and interrupts."""
        try:
            code = super().invoke(ctx)
            sys.stdout.flush()
        except KeyboardInterrupt:
            code = exit_codes.INTERRUPTED
        except BrokenPipeError:
            # Nobody reads any more (| head). The interpreter must not find that out once again when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            code = exit_codes.BROKEN_PIPE
        except (MinutemanError, OSError) as error:
            _explain(error, verbose=isinstance(ctx.obj, Application) and ctx.obj.verbose)
            code = exit_codes.code_for(error)
        return code


def _explain(error: BaseException, *, verbose: bool) -> None:
    say(f"minuteman: {error}")
    seen: set[int] = {id(error)}
    cause = error.__cause__ or error.__context__
    while verbose and cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        say(f"  because of {type(cause).__name__}: {cause}")
        cause = cause.__cause__ or cause.__context__


def _version(ctx: click.Context, _parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        click.echo(version_text())
        ctx.exit()


@click.group(
    cls=_Root,
    table=GROUPS,
    epilog=exit_codes.HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say the version.")
@click.option("-v", "--verbose", is_flag=True, help="Show what an error came from.")
@click.option("--no-color", is_flag=True, help="No colour, nor does NO_COLOR=1 or TERM=dumb give any.")
@click.pass_context
def root(ctx: click.Context, *, verbose: bool, no_color: bool) -> None:
    """Load balancing without a load balancer.

    Data goes to standard output, talk to standard error.
    """
    application = ctx.ensure_object(Application)
    application.verbose, application.no_color = verbose, no_color
