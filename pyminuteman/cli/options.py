"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import click

from pyminuteman.addresses import IPV4, IPV6, parse_endpoint
from pyminuteman.cli.files import FORMATS
from pyminuteman.cli.scopes import parse_scope
from pyminuteman.ipvs import IPVSError, Protocol, ServiceKey

__all__ = ["Verb", "dry_run", "file_argument", "file_format", "output", "scope", "service_key", "with_service", "yes"]

Verb = TypeVar("Verb", bound=Callable[..., Any])
_PROTOCOLS = {"tcp": Protocol.TCP, "udp": Protocol.UDP, "sctp": Protocol.SCTP}

dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
yes = click.option("--yes", is_flag=True, help="Do not ask.")
file_argument = click.argument("path", metavar="FILE|-", type=click.Path(allow_dash=True))
file_format = click.option(
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    help="The file's format; by default its extension tells (.toml, .json; .rules, .ipvsadm, .txt), or else its text.",
)


def output(*choices: str) -> Callable[[Verb], Verb]:
    """``-o``, the first choice being the default."""
    return click.option(
        "-o", "--output", "form", type=click.Choice(choices), default=choices[0], show_default=True, help="In which form."
    )


def _check_scope(_context: click.Context, _parameter: click.Parameter, words: tuple[str, ...]) -> tuple[str, ...]:
    if words:
        try:
            parse_scope(words)
        except ValueError as error:
            raise click.BadParameter(str(error)) from error
    return words


def scope(*, required: bool = False) -> Callable[[Verb], Verb]:
    """``--scope``, as words that are known to be good."""
    return click.option(
        "--scope",
        "scope_words",
        metavar="SCOPE",
        multiple=True,
        required=required,
        callback=_check_scope,
        help="What is ours: services in it that are not desired are removed. NETWORK, fwmark:N, fwmark:A-B or everything; "
        "may be given several times.",
    )


def service_key(tcp: str | None, udp: str | None, sctp: str | None, mark: str | None, *, ipv6: bool) -> ServiceKey | None:
    """The service that ``-t``, ``-u``, ``--sctp-service``, or ``-f`` and ``-6`` mean; None when none of them was given.

    Raises:
        click.UsageError: Several were given, or one that is none.
    """
    given = [(name, text) for name, text in (("tcp", tcp), ("udp", udp), ("sctp", sctp), ("fwmark", mark)) if text is not None]
    if ipv6 and mark is None:
        msg = "-6 goes with -f; the address tells that of other services"
        raise click.UsageError(msg)
    if len(given) > 1:
        msg = "give only one of -t, -u, --sctp-service and -f"
        raise click.UsageError(msg)
    for name, text in given:
        try:
            if name == "fwmark":
                if not (text.isascii() and text.isdigit()):
                    msg = f"firewall mark {text!r} is not a number"
                    raise ValueError(msg)
                return ServiceKey.fwmark(int(text), IPV6 if ipv6 else IPV4)
            address, port = parse_endpoint(text)
            if port is None:
                msg = f"{text!r} has no port"
                raise ValueError(msg)
            return ServiceKey(_PROTOCOLS[name], address, port)
        except (ValueError, IPVSError) as error:
            raise click.UsageError(str(error)) from error
    return None


def with_service(*, required: bool) -> Callable[[Verb], Verb]:
    """Options for a service, as ipvsadm has them; the verb gets it as ``service``."""

    def decorate(verb: Verb) -> Verb:
        @click.option("-t", "--tcp-service", "tcp", metavar="ADDRESS:PORT", help="The TCP service.")
        @click.option("-u", "--udp-service", "udp", metavar="ADDRESS:PORT", help="The UDP service.")
        @click.option("--sctp-service", "sctp", metavar="ADDRESS:PORT", help="The SCTP service.")
        @click.option("-f", "--fwmark-service", "mark", metavar="N", help="The service of this firewall mark.")
        @click.option("-6", "--ipv6", "ipv6", is_flag=True, help="With -f: that of IPv6.")
        @wraps(verb)
        def wrapped(
            *args: Any, tcp: str | None, udp: str | None, sctp: str | None, mark: str | None, ipv6: bool, **extra: Any
        ) -> Any:
            service = service_key(tcp, udp, sctp, mark, ipv6=ipv6)
            if service is None and required:
                msg = "say which service: -t, -u, --sctp-service or -f"
                raise click.UsageError(msg)
            return verb(*args, service=service, **extra)

        return wrapped  # type: ignore[return-value]

    return decorate
