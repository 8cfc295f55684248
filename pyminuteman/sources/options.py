"""Sources as people name them on a command line and in the daemon's configuration: ``file:/etc/minuteman/vips.d``.

A source is written ``KIND:PLACE?OPTION=VALUE&OPTION=VALUE``. Values may be percent-encoded. The query of an ``http:`` or ``https:`` URL
is the server's: there, options follow ``#``. Each kind is registered with the dotted name of its factory, and its module is imported
when one is asked for: whoever reads files needs no HTTP client.

A factory is a function of one :class:`SourceSpec`. It takes the options it knows, which checks them; one that nobody has taken is an
error that names those that were.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from pyminuteman.errors import ConfigurationError
from pyminuteman.plain.fields import closest, short
from pyminuteman.sources.base import Source

if TYPE_CHECKING:
    from pyminuteman.http_client import HttpOptions

__all__ = ["KINDS", "SourceFactory", "SourceSpec", "parse_source", "register"]

SourceFactory = Callable[["SourceSpec"], Source]

KINDS: Final[dict[str, str]] = {
    "file": "pyminuteman.sources.options:_file",
    "ipvsadm": "pyminuteman.sources.options:_ipvsadm",
    "http": "pyminuteman.sources.options:_http",
    "https": "pyminuteman.sources.options:_http",
    "push": "pyminuteman.sources.options:_push",
    "etcd": "pyminuteman.sources.etcd:from_spec",
    "consul": "pyminuteman.sources.consul:from_spec",
    "mesos": "pyminuteman.sources.mesos:from_spec",
    "marathon": "pyminuteman.sources.marathon:from_spec",
}
"""What there is: the kind, and ``MODULE:FACTORY``."""

_EXTRAS: Final = {"httpx2": "sources", "h11": "sources", "dns": "dns"}
_SECONDS_MAX: Final = 86400.0
_SWITCHES: Final = {"yes": True, "true": True, "1": True, "no": False, "false": False, "0": False}


def register(kind: str, factory: str) -> None:
    """Add a kind of source of your own.

    Args:
        kind: What stands before the colon: lower-case letters.
        factory: ``MODULE:FUNCTION``, imported when it is needed.

    Raises:
        ConfigurationError: The kind is there already, or is no word.
    """
    if kind in KINDS or not (kind.isascii() and kind.isalpha() and kind.islower()):
        raise ConfigurationError(
            None, kind, "is no new kind of source (lower-case letters, and none of " + ", ".join(KINDS) + ")"
        )
    KINDS[kind] = factory


@dataclass(slots=True)
class SourceSpec:
    """A source as it was written. Taking an option checks it; each raises ConfigurationError when it does not say what it must.

    Attributes:
        kind: ``file``.
        place: What is between the kind and the options, as it was written; of an ``http`` source the whole URL.
        options: By name, decoded.
    """

    kind: str
    place: str
    options: Mapping[str, str]
    _taken: dict[str, None] = field(default_factory=dict)

    def fail(self, what: str, reason: str) -> ConfigurationError:
        """An error about this source, to be raised."""
        return ConfigurationError(None, f"source {self.kind}: {what}", reason)

    def text(self, name: str, default: str = "") -> str:
        """Any text."""
        self._taken[name] = None
        value = self.options.get(name, default)
        if not value.isprintable():
            raise self.fail(name, f"{short(value)} is not printable text")
        return value

    def seconds(self, name: str, default: float, least: float = 0.0, most: float = _SECONDS_MAX) -> float:
        """A time in seconds."""
        value = self.text(name)
        try:
            number = float(value) if value else default
        except ValueError:
            number = math.nan
        if not least <= number <= most:
            raise self.fail(name, f"{short(value)} is not a number of seconds from {least:g} to {most:g}")
        return number

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number."""
        value = self.text(name)
        if not value:
            return default
        if not (value.isascii() and value.isdigit() and len(value) <= len(str(most)) and least <= int(value) <= most):
            raise self.fail(name, f"{short(value)} is not a whole number from {least} to {most}")
        return int(value)

    def switch(self, name: str, *, default: bool = False) -> bool:
        """``yes`` or ``no``."""
        value = self.text(name)
        if value and value not in _SWITCHES:
            raise self.fail(name, f"{short(value)} is neither yes nor no")
        return _SWITCHES[value] if value else default

    def choice(self, name: str, choices: tuple[str, ...]) -> str:
        """One of some words, of which the first is the default."""
        value = self.text(name) or choices[0]
        if value not in choices:
            raise self.fail(name, f"{short(value)} is none of {', '.join(filter(None, choices))}")
        return value

    def path(self, name: str) -> Path | None:
        """A file or directory; None when it is not given."""
        value = self.text(name)
        return Path(value) if value else None

    def http(self, *, token_scheme: str = "Bearer") -> HttpOptions:  # noqa: S107 - no secret
        """The options of everything that talks HTTP: ``ca``, ``cert``, ``key``, ``insecure``, ``token-file``, ``timeout``, ``socket``."""
        from pyminuteman.http_client import HttpOptions  # noqa: PLC0415 - needs httpx2

        return HttpOptions(
            ca_file=self.path("ca"),
            certificate_file=self.path("cert"),
            key_file=self.path("key"),
            insecure=self.switch("insecure"),
            token_file=self.path("token-file"),
            token_scheme=self.text("token-scheme", token_scheme),
            timeout_seconds=self.seconds("timeout", 10.0, 0.1, 600),
            unix_socket=self.path("socket"),
        )

    def check_all_taken(self) -> None:
        """For :func:`parse_source`: an option that nobody took is one that does not exist."""
        for name in self.options:
            if name not in self._taken:
                close = closest(name, self._taken)
                known = f"there are {', '.join(sorted(self._taken))}" if self._taken else "there are none"
                raise self.fail(f"option {short(name)}", f"did you mean {close!r}?" if close else known)


def parse_source(text: str) -> Source:
    """The source that is written so. Nothing is read or connected to before its states are asked for.

    Raises:
        ConfigurationError: The kind is unknown, an option or its value is, or the extra that it needs is not installed.
    """
    kind, colon, rest = text.partition(":")
    if not colon or kind not in KINDS:
        raise ConfigurationError(None, "source", _unknown(text, kind))
    place, _, options = (text if kind in {"http", "https"} else rest).partition("#" if kind in {"http", "https"} else "?")
    spec = SourceSpec(kind, place, _options(kind, options))
    if not rest or not place:
        raise spec.fail("place", f"it says nothing after {kind}:")
    if not place.isprintable():
        raise spec.fail("place", f"{short(place)} is not printable text")
    source = _made(spec)
    spec.check_all_taken()
    return source


def _unknown(text: str, kind: str) -> str:
    known = f"a source is KIND:PLACE, and the kinds are {', '.join(sorted(KINDS))}"
    if text.startswith(("/", ".", "~")) or not text.partition(":")[1]:
        return f"{short(text)} has no kind; {known}. For files: {short('file:' + text)}"
    close = closest(kind, KINDS)
    return f"kind {short(kind)} is not known{f' (did you mean {close!r}?)' if close else ''}; {known}"


def _options(kind: str, text: str) -> dict[str, str]:
    options: dict[str, str] = {}
    for pair in filter(None, text.split("&")):
        name, equals, value = pair.partition("=")
        if not equals or not name:
            raise ConfigurationError(None, f"source {kind}: option {short(pair)}", "is not written NAME=VALUE")
        if name in options:
            raise ConfigurationError(None, f"source {kind}: option {short(name)}", "is given twice")
        options[name] = unquote(value)
    return options


def _made(spec: SourceSpec) -> Source:
    module, _, name = KINDS[spec.kind].partition(":")
    try:
        factory: SourceFactory = getattr(import_module(module), name)
        return factory(spec)
    except ModuleNotFoundError as error:
        raise ConfigurationError(None, f"source {spec.kind}", _missing(module, error)) from None


def _missing(module: str, error: ModuleNotFoundError) -> str:
    extra = _EXTRAS.get((error.name or "").partition(".")[0])
    if extra is None:
        return f"{error.name} is not installed" if error.name != module else "this version has no such source"
    return f"it needs {error.name}, which is not installed: pip install 'pyminuteman[{extra}]'"


def _file(spec: SourceSpec) -> Source:
    from pyminuteman.sources.file import FORMATS, FileSource  # noqa: PLC0415 - needs threads, trio and a parser

    return FileSource(_path(spec), kind=spec.choice("format", ("", *FORMATS)))


def _ipvsadm(spec: SourceSpec) -> Source:
    from pyminuteman.sources.ipvsadm_rules import ipvsadm_rules_source  # noqa: PLC0415

    return ipvsadm_rules_source(_path(spec))


def _path(spec: SourceSpec) -> Path:
    """``file:/x``, ``file:x``, and ``file:///x`` as in URLs."""
    place = spec.place
    return Path(place.removeprefix("//") if place.startswith("///") else place)


def _http(spec: SourceSpec) -> Source:
    from pyminuteman.sources.http import HttpSource  # noqa: PLC0415 - needs httpx2

    return HttpSource(
        spec.place,
        spec.http(),
        interval_seconds=spec.seconds("interval", 10.0, 0.1),
        deadline_seconds=spec.seconds("deadline", 60.0, 0.1, 3600),
    )


def _push(spec: SourceSpec) -> Source:
    from pyminuteman.sources.push_server import PushServer  # noqa: PLC0415 - needs h11

    return PushServer(spec.place, spec.path("token-file"))
