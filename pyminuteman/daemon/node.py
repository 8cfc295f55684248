"""One node of the cluster at work: from sources to the store, and from the store to the kernel.

    sources -> own claims -> store -> all claims x policy x reach x health x marks -> desired state -> reconcilers, names

1. Whatever changes only wakes the one task that looks at the whole (:meth:`Node._keep_looking`), which takes all that has changed until
   then at once: a burst costs one look, and a member that falls silent is acted on in the same turn of the loop.
2. Nothing is handed to the kernel before the store was compared with a neighbour (or there is none), and every source has said what it
   wants, or was seen to fail: what such a source said in this node's last life stands until then.
3. What this node says is withdrawn when a source no longer says it, or is no longer configured; never because a source fails. What is
   for this node alone (``publish = "none"``) is said to its own outlook and not to the store, which else has no part in it: after a
   start it is not known before its source is read.
4. A node checks the health of the backends on its own host, and tells the others; each of them weighs that for itself, so that a VIP
   whose backends are all unhealthy fails open everywhere. What a node says of backends on other hosts does not count.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import trio

from pyminuteman.daemon import health_words as words
from pyminuteman.daemon import marks as marking
from pyminuteman.daemon.api.subject import NotNow
from pyminuteman.daemon.entries import PREFIX
from pyminuteman.daemon.events import EventLog
from pyminuteman.daemon.faults import gather
from pyminuteman.daemon.feeds import Feed
from pyminuteman.daemon.hearing import Hearing
from pyminuteman.daemon.mark_events import mark_events
from pyminuteman.daemon.marks import Marks
from pyminuteman.daemon.member_events import is_of_member, telling
from pyminuteman.daemon.namespaces import Namespaces
from pyminuteman.daemon.news import News
from pyminuteman.daemon.observed import Faults, MarkTarget
from pyminuteman.daemon.outlook import Outlook
from pyminuteman.daemon.publisher import claims_of
from pyminuteman.daemon.reach import addresses_of, reach_table
from pyminuteman.daemon.reconciler import Reconciler
from pyminuteman.daemon.sources import Sources
from pyminuteman.daemon.voice import Voice, saying
from pyminuteman.health.monitor import Monitor
from pyminuteman.kv.errors import StoreError
from pyminuteman.kv.store import Changes, Store
from pyminuteman.membership import Membership, MemberUp, MemberUpdated
from pyminuteman.vips.claims import Claim
from pyminuteman.vips.desired import DesiredState
from pyminuteman.vips.model import BackendKey
from pyminuteman.vips.policy import Judgement
from pyminuteman.vips.resolution import Target as WeightTarget

__all__ = ["Node", "NodeParts"]

_SETTLE_SECONDS: Final = 10.0
"""How long the store and the sources may take to say what there is before the kernel is brought up to what is known by then."""
_UNDONE_SECONDS: Final = 3600.0
"""How long the store has who undid a mark: for nodes that learn of it late."""


class _Step(Protocol):
    @property
    def step(self) -> str: ...
    @property
    def ok(self) -> bool: ...
    @property
    def reason(self) -> str: ...


@dataclass(kw_only=True)
class NodeParts:
    """What a node is made of; all of it open, and closed by whoever opened it."""

    membership: Membership
    store: Store
    outlook: Outlook
    monitor: Monitor[BackendKey]
    reconcilers: dict[str, Reconciler]
    events: EventLog
    own_addresses: frozenset[str]
    sources: Sources = field(default_factory=Sources)
    """Those to begin with: see :meth:`Node.set_sources`."""
    host_status: Callable[[], Sequence[_Step]] = field(default=tuple)
    namespaces: Namespaces | None = None
    """Those that get the table besides the host's own."""
    clock: Callable[[], float] = time.time  # noqa: TID251 - shown to people


class Node:
    """The node. :meth:`run` does the work; everything else is how it stands, and what operators want. Of one trio loop."""

    def __init__(self, parts: NodeParts) -> None:
        """Nothing is done yet."""
        self._parts = parts
        self.membership = parts.membership
        self.store = parts.store
        self.monitor = parts.monitor
        self.reconcilers = parts.reconcilers
        self.events = parts.events
        self.started_at = parts.clock()
        self.marks = Marks()
        self.words = words.HealthWords()
        """What nodes say of the health of backends."""
        self.ready = trio.Event()
        """Set when the kernel has been told for the first time what is desired."""
        self._outlook = parts.outlook
        self._hearing = Hearing(parts.store, parts.outlook.claims)
        self.voice = Voice(parts.store, parts.events.tell, (PREFIX, words.PREFIX))
        """What this node says to the others."""
        self._own_reconcilers = tuple(parts.reconcilers.values())
        self._news = News(parts.events.tell, lambda: self._own_reconcilers, parts.clock)
        self._has_looked = False
        self._wake = trio.Event()
        self._woken_at: float | None = None
        self._publish = trio.Event()
        self._sources = parts.sources
        self._feeding: trio.Nursery | None = None

    # How it stands

    @property
    def feeds(self) -> Sequence[Feed]:
        """The sources."""
        return self._sources.feeds

    @property
    def state(self) -> DesiredState:
        """What is desired, as of the last look."""
        return self._outlook.state

    @property
    def judgement(self) -> Judgement:
        """Which claims count."""
        return self._outlook.judgement

    @property
    def faults(self) -> Faults:
        """What does not count of what nodes say, and what could not be said."""
        return gather(self._outlook.claims, self.marks, self.words, self.voice.untold)

    @property
    def host(self) -> Sequence[_Step]:
        """The host's set-up, and what is wrong with other namespaces."""
        namespaces = self._parts.namespaces
        return [*self._parts.host_status(), *(() if namespaces is None else namespaces.status())]

    # What operators want

    async def drain(self, target: MarkTarget, *, by: str, reason: str) -> None:
        """Take a node or a backend out of service, and let it keep its connections."""
        await self._mark(marking.drain(self.store, target, by=by, reason=reason, at=self._parts.clock()))

    async def undrain(self, target: MarkTarget, *, by: str, reason: str) -> None:
        """Undo that."""
        await self._mark(marking.undrain(self.store, target, by=by, reason=reason, at=self._parts.clock()))

    async def set_weight(self, target: WeightTarget, weight: int, *, by: str, reason: str) -> None:
        """Give a backend this weight in place of its source's."""
        await self._mark(marking.set_weight(self.store, target, weight, by=by, reason=reason, at=self._parts.clock()))

    async def clear_weight(self, target: WeightTarget, *, by: str, reason: str) -> None:
        """Leave its weight to its source again."""
        await self._mark(marking.clear_weight(self.store, target, by=by, reason=reason, at=self._parts.clock()))

    def set_sources(self, sources: Sources) -> None:
        """These count from now on. Feeds that are not among them are read no more, and what they said is withdrawn; new ones are begun."""
        before, self._sources = self.feeds, sources
        for feed in before:
            if feed not in sources.feeds:
                feed.end()
        if self._feeding is not None:  # else they are begun with the others
            for feed in sources.feeds:
                if feed not in before:
                    self._feeding.start_soon(feed.run)
        self.publish()

    def look_again(self) -> None:
        """Try sources that fail, and compare with all that is in the kernel."""
        for feed in self.feeds:
            feed.retry()
        for reconciler in self.reconcilers.values():
            reconciler.wake(audit=True)
        self.wake()

    async def confirm(self, namespace: str, identity: str) -> None:
        """Carry out what is held back there.

        Raises:
            NotNow: Nothing is, or something else than what is named.
        """
        reconciler, where = self.reconcilers.get(namespace), namespace or "the host"
        held = None if reconciler is None else reconciler.status.held
        if reconciler is None or held is None:
            raise NotNow(f"nothing is held back in {where}")
        if not reconciler.confirm(identity):
            raise NotNow(f"what is held back in {where} is {held.identity} now, and would take away {held}: look at it again")
        await trio.lowlevel.checkpoint()

    async def _mark(self, write: Any) -> None:
        try:
            await write
        except StoreError as error:
            raise NotNow(str(error)) from error
        with suppress(StoreError):  # the next one tries again
            await marking.forget(self.store, before=self._parts.clock() - _UNDONE_SECONDS)

    # Other namespaces

    def admit(self, reconciler: Reconciler) -> None:
        """Have another namespace's reconciler want what is desired, now (if that is known) and from now on. It is run by whoever has it."""
        self.reconcilers[reconciler.name] = reconciler
        for own in self._own_reconcilers:
            reconciler.set_options(own.options)  # as they are since the last reload
        if self._has_looked:
            reconciler.want(self.state)

    def dismiss(self, reconciler: Reconciler) -> None:
        """It has ended."""
        if self.reconcilers.get(reconciler.name) is reconciler:
            del self.reconcilers[reconciler.name]

    # The work

    def wake(self) -> None:
        """Something has changed that bears on what is desired."""
        if self._woken_at is None:
            self._woken_at = trio.current_time()
        self._wake.set()

    def publish(self) -> None:
        """Something has changed of what this node says."""
        self._publish.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch_members)
            self._feeding = nursery
            for feed in self.feeds:
                nursery.start_soon(feed.run)
            for reconciler in self._own_reconcilers:
                nursery.start_soon(reconciler.run)
            if self._parts.namespaces is not None:
                nursery.start_soon(self._parts.namespaces.run, self)
            nursery.start_soon(self._news.run)
            nursery.start_soon(self._watch_health)
            with trio.move_on_after(_SETTLE_SECONDS):
                await self.store.wait_ready()
            nursery.start_soon(self._watch_store)
            with trio.move_on_after(_SETTLE_SECONDS):
                while not all(feed.is_settled for feed in self.feeds):  # noqa: ASYNC110 - sources do not tell that they fail
                    await trio.sleep(0.02)
            await self._say()
            self._hear(Changes(everything=True))  # so that the first look sees what was just said
            nursery.start_soon(self._keep_publishing)
            nursery.start_soon(self._keep_looking)
            self.wake()

    # What this node says

    async def _keep_publishing(self) -> None:
        while True:
            await self._publish.wait()
            self._publish = trio.Event()
            seconds = await self._say()
            if seconds is not None:
                with trio.move_on_after(seconds):
                    await self._publish.wait()
                self._publish.set()

    async def _say(self) -> float | None:
        """Tell the others, and this node's own outlook, what this node has to say now; when to try again."""
        told, local = self._own_claims()
        here, said = saying(local), saying(told)
        if self._hearing.say_here(here.entries, said.entries):
            self.wake()
        return await self.voice.say(said._replace(wrong=said.wrong | here.wrong), self._unhealthy())

    def _own_claims(self) -> tuple[list[Claim], list[Claim]]:
        """What this node has to say to all, and what to itself.

        Of sources that have spoken, it is what they want; of the others, what it said of them before.
        """
        me = str(self.store.me)
        told: list[Claim] = []
        local: list[Claim] = []
        hosts = {address for member in self.membership.members().values() for address in addresses_of(member.record)}
        own = [claim for claim in self._outlook.claims.all() if claim.node == me]
        for feed in self.feeds:
            options = self._sources.options[feed.name]
            found = local if options.publish == "none" else told
            if feed.state is None:
                found += [claim for claim in own if claim.source == feed.name]
                continue
            found += claims_of(
                feed.name,
                feed.state.vips,
                node=me,
                own_addresses=self._parts.own_addresses,
                hosts=hosts,
                publish=options.publish,
                vouch=options.vouch,
                standing=self._outlook.claims.claims,
            )
        return told, local

    def _unhealthy(self) -> dict[str, bytes]:
        """What is to be said of backends of this host that fail their checks."""
        self.monitor.watch(self._sources.targets(self._parts.own_addresses))
        known = self.monitor.known().items()
        return {words.word_key(key): health.reason.encode()[:200] for key, health in known if not health.healthy}

    async def _watch_health(self) -> None:
        with self.monitor.changes() as found:
            async for _ in found:
                self.publish()

    # What is heard

    async def _watch_store(self) -> None:
        async with self.store.watch() as watch:
            async for found in watch:
                self._hear(found)
                self.wake()
                await trio.lowlevel.checkpoint()

    def _hear(self, found: Changes) -> None:
        """Take in what has changed in the store."""
        self._hearing.hear(found)
        if found.everything or any(key.name.startswith((marking.DRAIN, marking.WEIGHT)) for key in found.shared):
            before = self.marks
            self.marks = marking.read_marks({**self.store.shared(marking.DRAIN), **self.store.shared(marking.WEIGHT)})
            for told in mark_events(before, self.marks, since=self.started_at):
                self.events.tell(*told)

    async def _watch_members(self) -> None:
        with self.membership.notifications() as notifications:
            async for notification in notifications:
                if (told := telling(notification)) is not None:
                    self.events.tell(*told)
                if is_of_member(notification):
                    self.wake()
                if isinstance(notification, MemberUp | MemberUpdated):
                    self.publish()  # a backend at one of its addresses is on its host, as is known from now on

    # What is done about it

    async def _keep_looking(self) -> None:
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            since, self._woken_at = self._woken_at, None
            self._look(since)
            for reconciler in () if self.ready.is_set() else self._own_reconcilers:
                await reconciler.settled.wait()
            self.ready.set()
            await trio.lowlevel.checkpoint()

    def _look(self, since: float | None) -> None:
        members = self.membership.members()
        agents = {node: addresses_of(member.record) for node, member in members.items()}
        agents[self.membership.me.id] = tuple(self._parts.own_addresses)
        self._outlook.set_hosts(address for addresses in agents.values() for address in addresses)
        self._outlook.hear()
        self.words = words.read_words(self.store.entries(words.PREFIX), lambda node: agents.get(node, ()), self._outlook.placed)
        self._outlook.adjust(self.marks.adjustments(lambda node: agents.get(node, ()), self.words.unhealthy))
        before = self._outlook.state
        state = self._outlook.refresh(reach_table(members))
        for reconciler in self.reconcilers.values():
            reconciler.want(state, since=since)
        self._news.note(before, state, self._outlook.take_refusals())
        self._has_looked = True
