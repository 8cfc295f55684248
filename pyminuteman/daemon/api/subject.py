"""What the API is about: a node, as far as the API needs to know one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pyminuteman.daemon.observed import Happening, MarkTarget, Observation
from pyminuteman.errors import MinutemanError
from pyminuteman.sources.base import SourceState
from pyminuteman.vips.resolution import Target

__all__ = ["Happenings", "NoSuchThing", "NotNow", "Reloaded", "Subject", "Verbs"]


class NoSuchThing(MinutemanError):
    """There is no such source, namespace, node or backend. Nothing was changed; the text says what there is."""


class NotNow(MinutemanError):
    """It cannot be done as things are: the store cannot be written to, nothing is held back. Nothing was changed."""


class Happenings(Protocol):
    """The event log."""

    @property
    def life(self) -> str:
        """16 hexadecimal digits, other ones after each start of the daemon: numbers are of one life."""

    @property
    def oldest(self) -> int:
        """Number of the oldest event that is kept; 0 when there is none."""

    @property
    def newest(self) -> int:
        """Number of the newest one; 0 when there was none yet."""

    def since(self, number: int) -> Sequence[Happening]:
        """Those that are kept with a higher number, the oldest first."""

    async def wait_beyond(self, number: int) -> None:
        """Return as soon as there is one with a higher number."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What the configuration that was read anew has changed, in lines for people.

    Attributes:
        changes: What counts now.
        restart: What differs as well, and counts after a restart.
        remarks: What is odd in it, and yet no error.
    """

    changes: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class Verbs(Protocol):
    """What operators may have done. Each returns when it is on its way to all nodes.

    Raises:
        NoSuchThing: What it is about is not there.
        NotNow: It cannot be done.
    """

    async def drain(self, target: MarkTarget, *, by: str, reason: str) -> None:
        """Take it out of service, and let it keep its connections."""

    async def undrain(self, target: MarkTarget, *, by: str, reason: str) -> None:
        """Undo that."""

    async def set_weight(self, target: Target, weight: int, *, by: str, reason: str) -> None:
        """Give a backend this weight (0 to 65535) in place of its source's."""

    async def clear_weight(self, target: Target, *, by: str, reason: str) -> None:
        """Leave its weight to its source again."""

    async def reload(self) -> Reloaded:
        """Read the configuration anew.

        Raises:
            MinutemanError: It is no good, or a file that it names; nothing was changed.
        """

    async def confirm(self, namespace: str, identity: str) -> None:
        """Carry out what is held back there, if it is that."""

    def push(self, source: str, state: SourceState) -> bool:
        """From now on all of this is what that source wants; whether that is anything new."""


class Subject(Verbs, Protocol):
    """A node."""

    @property
    def events(self) -> Happenings:
        """What has happened."""

    @property
    def pushed_sources(self) -> Sequence[str]:
        """Names of the sources that states can be pushed to."""

    async def observe(self, *, statistics: bool = False) -> Observation:
        """How it is now; ``statistics`` asks the kernel as well."""

    def plain_config(self) -> Mapping[str, Any]:
        """The configuration, without secrets."""
