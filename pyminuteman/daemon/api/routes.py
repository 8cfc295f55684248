"""The routes: what is asked for, put together from the views; and what is to be done, handed on to the node."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pyminuteman.daemon import metrics
from pyminuteman.daemon.api.answers import ApiError, dump, json_response, response_with_tag
from pyminuteman.daemon.api.event_stream import EventStreams
from pyminuteman.daemon.api.guard import Access
from pyminuteman.daemon.api.openapi import document
from pyminuteman.daemon.api.peers import user_name
from pyminuteman.daemon.api.rendered import Rendered
from pyminuteman.daemon.api.requests import read_body, read_confirm, read_mark, read_nothing, read_weight
from pyminuteman.daemon.api.subject import NoSuchThing, NotNow, Reloaded, Subject
from pyminuteman.daemon.observed import Observation
from pyminuteman.daemon.process import process_numbers
from pyminuteman.daemon.traffic_views import statistics_view
from pyminuteman.daemon.views import VERSION, members_view, status_view, topology_view
from pyminuteman.daemon.vip_views import backends_view, legacy_vips_view
from pyminuteman.errors import MinutemanError
from pyminuteman.sources.base import SourceError, SourceState
from pyminuteman.sources.document import parse_document

__all__ = ["Routes"]

_FRESH_SECONDS: Final = 0.25
"""Views are made anew when anything has happened, and else so often."""
_METRICS_SECONDS: Final = 1.0
_PLACES_MAX: Final = 20
"""Places of a pushed document that an answer names."""
_JSON: Final = "application/json"


class Routes:
    """The routes of one node's API.

    Args:
        subject: The node.
        streams: Its streams of events.
        labels: Of the rows of backends in ``/metrics``.

    Attributes:
        labels: May be replaced at any time.
    """

    def __init__(self, subject: Subject, streams: EventStreams, labels: tuple[str, ...]) -> None:
        self._subject, self._streams, self.labels = subject, streams, labels
        with_statistics = partial(subject.observe, statistics=True)
        changed = self._happened
        self._backends = Rendered(with_statistics, _dumping(backends_view), fresh_seconds=_FRESH_SECONDS, version=changed)
        self._members = Rendered(subject.observe, _dumping(members_view), fresh_seconds=_FRESH_SECONDS, version=changed)
        self._topology = Rendered(subject.observe, _dumping(topology_view), fresh_seconds=_FRESH_SECONDS, version=changed)
        self._statistics = Rendered(with_statistics, _dumping(statistics_view), fresh_seconds=_FRESH_SECONDS)
        self._legacy = Rendered(subject.observe, _dumping(legacy_vips_view), fresh_seconds=_FRESH_SECONDS, version=changed)

        def write(seen: Observation) -> bytes:
            return metrics.exposition(seen, process_numbers(), self.labels)

        self._metrics = Rendered(with_statistics, write, fresh_seconds=_METRICS_SECONDS)
        self._document = dump(document())
        self._writes = 0

    def _happened(self) -> object:
        """Differs when anything may be otherwise than it was."""
        return self._subject.events.newest, self._writes

    def routes(self) -> list[Route]:
        """For starlette."""
        return [
            Route("/healthz", self._healthz),
            Route("/metrics", self._get_metrics),
            Route("/v1/status", self._status),
            Route("/v1/members", _rendered(self._members)),
            Route("/v1/topology", _rendered(self._topology)),
            Route("/v1/backends", _rendered(self._backends)),
            Route("/v1/vips", _rendered(self._legacy)),
            Route("/v1/statistics", _rendered(self._statistics)),
            Route("/v1/events", self._streams.answer),
            Route("/v1/config", self._config),
            Route("/v1/openapi.json", self._openapi),
            Route("/v1/drain", self._drain, methods=["POST"]),
            Route("/v1/undrain", self._undrain, methods=["POST"]),
            Route("/v1/weight", self._weight, methods=["POST"]),
            Route("/v1/reload", self._reload, methods=["POST"]),
            Route("/v1/confirm", self._confirm, methods=["POST"]),
            Route("/v1/sources/{name}", self._push, methods=["PUT"]),
        ]

    # Reading

    async def _status(self, request: Request) -> Response:
        return json_response(request, status_view(await self._subject.observe()))

    async def _healthz(self, _request: Request) -> Response:
        """This loop runs, and answers; how the node is besides, ``/v1/status`` tells."""
        return Response(b"ok\n", media_type="text/plain; charset=utf-8")

    async def _get_metrics(self, request: Request) -> Response:
        body, _ = await self._metrics.get()
        asked = request.headers.get("accept", "")
        if metrics.OPEN_METRICS in asked:
            return Response(metrics.as_open_metrics(body), media_type=f"{metrics.OPEN_METRICS}; version=1.0.0; charset=utf-8")
        return Response(body, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def _config(self, request: Request) -> Response:
        return json_response(request, {"version": VERSION, "config": dict(self._subject.plain_config())})

    async def _openapi(self, request: Request) -> Response:
        return response_with_tag(request, self._document, _JSON)

    # Writing

    async def _drain(self, request: Request) -> Response:
        asked = await read_mark(request, await self._subject.observe())
        await self._carry_out(self._subject.drain(asked.target, by=await _who(request), reason=asked.reason))
        return _done()

    async def _undrain(self, request: Request) -> Response:
        asked = await read_mark(request, await self._subject.observe())
        await self._carry_out(self._subject.undrain(asked.target, by=await _who(request), reason=asked.reason))
        return _done()

    async def _weight(self, request: Request) -> Response:
        asked, who = await read_weight(request, await self._subject.observe()), await _who(request)
        if asked.weight is None:
            await self._carry_out(self._subject.clear_weight(asked.target, by=who, reason=asked.reason))
        else:
            await self._carry_out(self._subject.set_weight(asked.target, asked.weight, by=who, reason=asked.reason))
        return _done()

    async def _reload(self, request: Request) -> Response:
        await read_nothing(request)
        try:
            reloaded: Reloaded = await self._carry_out(self._subject.reload())
        except MinutemanError as error:
            hint = "nothing was changed; 'minuteman check-config' says whether it is good"
            raise ApiError(422, "bad_configuration", str(error), hint) from None
        return _done(changes=list(reloaded.changes), restart=list(reloaded.restart), remarks=list(reloaded.remarks))

    async def _confirm(self, request: Request) -> Response:
        await self._carry_out(self._subject.confirm(*await read_confirm(request)))
        return _done()

    async def _push(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in self._subject.pushed_sources:
            there = ", ".join(self._subject.pushed_sources) or "none"
            hint = f"there are: {there}; one is made with place = 'push:' in the configuration"
            raise ApiError(404, "no_such_source", f"there is no source {name[:100]!r} that takes what is pushed", hint)
        body = await read_body(request)
        try:
            state = await trio.to_thread.run_sync(partial(parse_document, body, ""), abandon_on_cancel=True)
        except SourceError as error:
            raise ApiError(422, "no_vips", str(error), "see docs/sources/file.md for the document") from None
        problems = [{"where": problem.where.removeprefix(": "), "reason": problem.reason} for problem in state.problems]
        if problems:  # whoever pushes can put it right at once; a file cannot be answered
            places = "; ".join(f"{problem['where']}: {problem['reason']}" for problem in problems[:_PLACES_MAX])
            more = f"; and {len(problems) - _PLACES_MAX} more" if len(problems) > _PLACES_MAX else ""
            text = f"{len(problems)} {'is' if len(problems) == 1 else 'are'} wrong: {places}{more}"
            raise ApiError(422, "no_vips", text, "nothing was changed; put all of it right")
        return _done(changed=self._push_now(name, state), vips=len(state.vips))

    def _push_now(self, name: str, state: SourceState) -> bool:
        self._writes += 1
        return self._subject.push(name, state)

    async def _carry_out(self, doing: Awaitable[Any]) -> Any:
        """Wait for it, and say what is wrong in the words of the API.

        Raises:
            ApiError: It is not there, or cannot be done.
        """
        try:
            return await doing
        except NoSuchThing as error:
            raise ApiError(404, "no_such_thing", str(error), "nothing was changed") from None
        except NotNow as error:
            raise ApiError(409, "not_now", str(error), "nothing was changed") from None
        finally:
            self._writes += 1


def _dumping(view: Callable[[Observation], object]) -> Callable[[Observation], bytes]:
    return lambda seen: dump(view(seen))


def _rendered(rendered: Rendered[Observation]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        body, tag = await rendered.get()
        return response_with_tag(request, body, _JSON, tag)

    return answer


def _done(**besides: object) -> Response:
    return Response(dump({"version": VERSION, "done": True, **besides}), media_type=_JSON)


async def _who(request: Request) -> str:
    """Who asks, for the record."""
    access: Access = request.state.access
    if access.who or access.peer.uid is None:
        return access.who
    name: str = await trio.to_thread.run_sync(user_name, access.peer.uid, abandon_on_cancel=True)
    return name
