"""Options of ``minuteman vips show`` and ``apply``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

from pyminuteman.addresses import format_address, parse_address
from pyminuteman.cli.options import Verb
from pyminuteman.errors import MinutemanError
from pyminuteman.health.backends import MakeCheck, parse_check
from pyminuteman.health.hysteresis import InvalidCheckError
from pyminuteman.sources.base import Source
from pyminuteman.sources.options import parse_source

__all__ = ["check", "check_interval", "own_addresses", "source", "timeout"]


class SourceType(click.ParamType[Callable[[], Source]]):
    """``KIND:WHERE``, as :func:`pyminuteman.sources.options.parse_source` takes it; what comes out makes the source."""

    name = "SOURCE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Callable[[], Source]:
        """Parse it, or say what is accepted."""
        try:
            parse_source(str(value))
            return partial(parse_source, str(value))
        except MinutemanError as error:
            self.fail(str(error), param, ctx)


class AddressType(click.ParamType[str]):
    """An address; comes out in its canonical form."""

    name = "ADDRESS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Parse it, or say what is accepted."""
        try:
            return format_address(parse_address(str(value))[1])
        except ValueError as error:
            self.fail(str(error), param, ctx)


class CheckType(click.ParamType[MakeCheck]):
    """``tcp``, ``http:/PATH`` or ``exec:/PROGRAM``; comes out as what makes the check of a backend."""

    name = "CHECK"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> MakeCheck:
        """Parse it, or say what is accepted."""
        try:
            return parse_check(str(value))
        except InvalidCheckError as error:
            self.fail(str(error), param, ctx)


def source(verb: Verb) -> Verb:
    """``--source``, several times; the verb gets ``factories``."""
    return click.option(
        "--source",
        "factories",
        type=SourceType(),
        multiple=True,
        required=True,
        help="Where VIPs are said, as in file:/etc/minuteman/vips.d; several are joined.",
    )(verb)


def timeout(verb: Verb) -> Verb:
    """``--timeout``; the verb gets ``timeout``."""
    return click.option(
        "--timeout",
        type=click.FloatRange(0, 3600, min_open=True),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait until every source has said all of its VIPs; with --watch, for as long as it takes.",
    )(verb)


def own_addresses(verb: Verb) -> Verb:
    """``--address``, several times; the verb gets ``addresses``."""
    return click.option(
        "--address",
        "addresses",
        type=AddressType(),
        multiple=True,
        help="An address of this host: backends whose agent it is are reached past the host's port mapping.",
    )(verb)


def check(verb: Verb) -> Verb:
    """``--check``; the verb gets ``check``."""
    return click.option(
        "--check",
        type=CheckType(),
        help="With --watch: ask backends of TCP VIPs whether they would serve, by tcp, http:/PATH or exec:/PROGRAM (given address and "
        "port). One that fails gets weight 0 until it passes; where all of a VIP fail, none does.",
    )(verb)


def check_interval(verb: Verb) -> Verb:
    """``--check-interval``; the verb gets ``check_interval``."""
    return click.option(
        "--check-interval",
        type=click.FloatRange(0.05, 3600),
        metavar="SECONDS",
        help="With --check: between two checks of a backend. 2 by default.",
    )(verb)
