"""Network namespaces besides the host's own: each that is in the directory gets the table, kept by a reconciler of its own.

1. The directory is looked at whenever something happens in it, and at least every 5 seconds: no kernel tells of a mount in it, of what a
   path in a file leads to, or of files behind some file systems.
2. What is wrong with an entry is told once, when it is still so at a second look, and tried again at every look. A namespace whose entry has
   become wrong is served until then; one that is served is never given up because the directory cannot be read.
3. A namespace is its inode: another one of the same name starts anew, when the last one has ended.
4. When an entry is gone its reconciler ends, and leaves the table as it is: the namespace is not ours to tidy. Its ledger is removed a
   minute later; until then who comes back finds what is its own.
5. None waits for another, and the host's own waits for none: they have threads of their own, few, and each failure stays with its namespace.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, Protocol

import trio

from pyminuteman.daemon.reconciler import Reconciler
from pyminuteman.errors import MinutemanError
from pyminuteman.host.errors import HostSetupError
from pyminuteman.host.findings import Severity
from pyminuteman.host.namespace_directory import DIRECTORY, NAMESPACES_MAX, Entry, Look, look
from pyminuteman.host.setup import HostSetup, StepStatus
from pyminuteman.sources.backoff import Backoff
from pyminuteman.sources.base import SourceError
from pyminuteman.sources.inotify import DirectoryWatch

__all__ = ["Namespaces", "Place", "Serving"]

_LOOK_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 1.0
"""Until the second look at what is wrong: a file is written by then, a namespace mounted."""
_FORGET_SECONDS: Final = 60.0
_THREADS: Final = 8
_NUDGES: Final = 12
"""How often at least a namespace that could not be set up is tried at every look (its addresses come after itself); then audits do."""
_TOLD_MOST: Final = 10
_RETRY: Final = Backoff(first_seconds=0.5, most_seconds=60.0)

_log = logging.getLogger("pyminuteman.daemon")


@dataclass(frozen=True, slots=True)
class Serving:
    """What keeps one namespace: its reconciler, and its set-up where it has one."""

    reconciler: Reconciler
    setup: HostSetup | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """One namespace, for whoever makes what keeps it.

    Attributes:
        name: Of its entry.
        path: Of the namespace itself, good while it is served.
        ledger: The file of its ledger.
        limiter: Whose threads to use.
    """

    name: str
    path: str
    ledger: Path
    limiter: trio.CapacityLimiter


class Admitting(Protocol):
    """Who knows what is desired, and shows how reconcilers are; :class:`~pyminuteman.daemon.node.Node` is one."""

    def admit(self, reconciler: Reconciler) -> None:
        """Have it want what is desired, now and from now on."""

    def dismiss(self, reconciler: Reconciler) -> None:
        """It has ended."""


@dataclass(slots=True)
class _Served:
    identity: int
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    serving: Serving | None = None
    nudges: int = 0


class Namespaces:
    """The namespaces of one directory. Of one trio loop.

    Args:
        directory: Where they are.
        make: Makes what keeps one; may block.
        ledgers: The directory of their ledgers; made if it is missing, and nobody else's.
        tell: Where events are told: kind, text, data.
        most: How many there may be.
        look_seconds: Between two looks at the directory, if nothing happens in it.
        again_seconds: Until the second look at what is wrong.
        forget_seconds: How long a ledger is kept that is nobody's.
        dice: For the jitter.
    """

    def __init__(
        self,
        directory: Path,
        *,
        make: Callable[[Place], Serving],
        ledgers: Path,
        tell: Callable[[str, str, Mapping[str, Any]], object],
        most: int = NAMESPACES_MAX,
        look_seconds: float = _LOOK_SECONDS,
        again_seconds: float = _AGAIN_SECONDS,
        forget_seconds: float = _FORGET_SECONDS,
        dice: Random | None = None,
    ) -> None:
        self._directory = directory
        self._make = make
        self._ledgers = ledgers
        self._tell = tell
        self._most = most
        self._look_seconds, self._again_seconds, self._forget_seconds = look_seconds, again_seconds, forget_seconds
        self._dice = Random() if dice is None else dice  # noqa: S311 - jitter, no secret
        self._limiter, self._looker = trio.CapacityLimiter(_THREADS), trio.CapacityLimiter(1)
        self._served: dict[str, _Served] = {}
        self._problems: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._unused: dict[str, float] = {}

    def status(self) -> tuple[StepStatus, ...]:
        """What is wrong with entries, as a step of the host's set-up."""
        wrong = [_of(name, text) for name, text in sorted(self._problems.items())]
        more = f"; and {len(wrong) - _TOLD_MOST} more" if len(wrong) > _TOLD_MOST else ""
        return (StepStatus("namespaces", not wrong, "; ".join(wrong[:_TOLD_MOST]) + more),)

    async def run(self, node: Admitting) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            with DirectoryWatch(self._directory) as watch:
                while True:
                    problem = ""
                    try:
                        watch.renew()
                    except SourceError as error:
                        problem = str(error)
                    known = {name: served.identity for name, served in self._served.items()}
                    found = await trio.to_thread.run_sync(
                        self._look, problem, known, trio.current_time(), limiter=self._looker, abandon_on_cancel=True
                    )
                    again = self._take_in(found, nursery, node)
                    self._nudge()
                    await watch.wait(self._again_seconds if again else self._look_seconds)

    # In a thread

    def _look(self, problem: str, known: Mapping[str, int], now: float) -> Look:
        if problem:
            return Look(problems={DIRECTORY: problem})
        found = look(self._directory, known, self._most)
        try:
            self._ledgers.mkdir(mode=0o700, exist_ok=True)
            self._forget({*known.values(), *(entry.identity for entry in found.entries.values())}, now)
        except OSError as error:
            _log.warning("%s cannot be tidied: %s", self._ledgers, error.strerror)
        return found

    def _forget(self, used: set[int], now: float) -> None:
        """Remove ledgers that have been nobody's for a while."""
        names = {path.name for path in self._ledgers.iterdir()} - {f"{identity}.json" for identity in used}
        self._unused = {name: self._unused.get(name, now) for name in names}
        for name, since in self._unused.items():
            if now - since >= self._forget_seconds:
                (self._ledgers / name).unlink(missing_ok=True)

    # What is made of it

    def _take_in(self, found: Look, nursery: trio.Nursery, node: Admitting) -> bool:
        """Begin to serve what is new, end what has gone, tell what is wrong; whether to look again soon."""
        certain = {name: text for name, text in found.problems.items() if name in self._problems}
        again = certain.keys() != found.problems.keys()
        self._problems = found.problems
        self._tell_of(certain)
        unread = DIRECTORY in found.problems and not found.entries
        for name, served in self._served.items():
            entry = found.entries.get(name)
            if (entry is None and (unread or (name in found.problems and name not in certain))) or served.scope.cancel_called:
                continue
            if entry is None or entry.identity != served.identity:
                if served.serving is not None:
                    served.serving.reconciler.let_go()
                served.scope.cancel()
                self._tell("namespace", f"{name}: it has gone, and its table is left as it is", {"namespace": name})
        for name, entry in found.entries.items():
            if entry.descriptor is None:
                again |= (
                    name not in self._served or self._served[name].scope.cancel_called
                )  # it came back when its reconciler was ending
            elif name in self._served or entry.identity in {one.identity for one in self._served.values()}:
                os.close(entry.descriptor)
                again = True  # the last one of this name, or the last name of this one, has yet to end
            else:
                self._served[name] = _Served(entry.identity)
                nursery.start_soon(self._serve, name, entry, self._served[name], node)
        return again

    def _tell_of(self, certain: Mapping[str, str]) -> None:
        new = [(name, text) for name, text in certain.items() if self._told.get(name) != text]
        self._told = dict(certain)
        for name, text in new[:_TOLD_MOST]:
            self._tell("namespace", _of(name, text), {"namespace": name, "error": text})
        if len(new) > _TOLD_MOST:
            rest = len(new) - _TOLD_MOST
            self._tell("namespace", f"{rest} more entries of {self._directory} are of no use", {"namespace": DIRECTORY})

    def _nudge(self) -> None:
        """Try again what could not be set up."""
        for served in self._served.values():
            setup = None if served.serving is None else served.serving.setup
            if served.serving is None or setup is None or all(step.ok for step in setup.status()):
                served.nudges = 0
            elif served.nudges < _NUDGES:
                served.nudges += 1
                served.serving.reconciler.wake(audit=True)

    # One of them

    async def _serve(self, name: str, entry: Entry, served: _Served, node: Admitting) -> None:
        try:
            with served.scope:
                place = Place(name, entry.path, self._ledgers / f"{entry.identity}.json", self._limiter)
                served.serving = await trio.to_thread.run_sync(self._make, place, limiter=self._limiter)
                node.admit(served.serving.reconciler)
                self._tell("namespace", f"{name}: it gets the table from now on", {"namespace": name})
                await self._keep(served.serving)
        except (MinutemanError, OSError) as error:  # it could not even be made; the next look tries again
            self._tell("sync_failed", f"{name}: {error}", {"namespace": name})
        finally:
            if served.serving is not None:
                node.dismiss(served.serving.reconciler)
                if served.serving.setup is not None:
                    served.serving.setup.close()
            if entry.descriptor is not None:
                os.close(entry.descriptor)
            del self._served[name]

    async def _keep(self, serving: Serving) -> None:
        reconciler, failures, told = serving.reconciler, 0, ""
        while True:
            try:
                if serving.setup is not None:
                    await self._set_up(reconciler.name, serving.setup)
                await reconciler.run()
            except (MinutemanError, OSError) as error:
                failures += 1
                reconciler.status.error = str(error)
                if told != (told := str(error)):
                    self._tell("sync_failed", f"{reconciler.name}: {error}", {"namespace": reconciler.name})
                await trio.sleep(_RETRY.wait_seconds(failures, self._dice))

    async def _set_up(self, name: str, setup: HostSetup) -> None:
        """What cannot be is told; IPVS does not depend on it, and audits try again."""
        try:
            findings = await trio.to_thread.run_sync(setup.set_up, limiter=self._limiter)
            wrong = [finding.what for finding in findings if not finding.ok and finding.severity > Severity.INFO]
        except HostSetupError as error:
            wrong = [str(error)]
        for text in wrong:
            self._tell("host", f"{name}: {text}", {"namespace": name})


def _of(name: str, text: str) -> str:
    return f"{name}: {text}" if name != DIRECTORY else text
