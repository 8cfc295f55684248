"""The web page: one document, rendered from what the API tells, and the files that it asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from pyminuteman.daemon.api.answers import ApiError, response_with_tag
from pyminuteman.daemon.api.rendered import Rendered
from pyminuteman.daemon.api.subject import Subject
from pyminuteman.daemon.observed import Happening, Observation
from pyminuteman.daemon.views import events_view, members_view, status_view, topology_view
from pyminuteman.daemon.vip_views import backends_view

__all__ = ["Page", "PageFile", "page_routes"]

_EVENTS_SHOWN: Final = 100
_FRESH_SECONDS: Final = 0.25


class PageFile(Protocol):
    """A file of the page."""

    @property
    def content(self) -> bytes:
        """What it holds."""

    @property
    def media_type(self) -> str:
        """For ``Content-Type``."""

    @property
    def etag(self) -> str:
        """Of the content; strong, and quoted."""


class Page(Protocol):
    """A web page."""

    @property
    def files(self) -> Mapping[str, PageFile]:
        """By their names under ``/web/``. No others are ever looked for."""

    def render(
        self,
        *,
        status: Mapping[str, Any],
        members: Mapping[str, Any],
        backends: Mapping[str, Any],
        topology: Mapping[str, Any],
        events: Mapping[str, Any],
        at: datetime,
    ) -> str:
        """The document, from what the routes of these names tell. Pure: it is called in a thread."""


_Look = tuple[Observation, Sequence[Happening], int, int]


def page_routes(subject: Subject, page: Page) -> list[Route]:
    """``/`` and ``/web/NAME``."""

    async def look() -> _Look:
        seen = await subject.observe(statistics=True)
        events = subject.events
        return seen, events.since(max(0, events.newest - _EVENTS_SHOWN)), events.oldest, events.newest

    def render(look: _Look) -> bytes:
        seen, events, oldest, newest = look
        return page.render(
            status=status_view(seen),
            members=members_view(seen),
            backends=backends_view(seen),
            topology=topology_view(seen),
            events=events_view(events, life=subject.events.life, oldest=oldest, newest=newest),
            at=datetime.fromtimestamp(seen.moment.wall, UTC),
        ).encode(errors="replace")

    rendered = Rendered(look, render, fresh_seconds=_FRESH_SECONDS, version=lambda: subject.events.newest)

    async def document(request: Request) -> Response:
        body, tag = await rendered.get()
        return response_with_tag(request, body, "text/html; charset=utf-8", tag)

    return [Route("/", document), Route("/web/{name:path}", _files(page.files))]


def _files(files: Mapping[str, PageFile]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        found = files.get(request.path_params["name"])
        if found is None:
            raise ApiError(404, "not_found", "the page has no such file", "load the page again")
        return response_with_tag(request, found.content, found.media_type, found.etag)

    return answer
