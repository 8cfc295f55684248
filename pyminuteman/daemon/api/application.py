"""The API: its routes behind its guard, on its sockets, for as long as it is open."""

from __future__ import annotations

import os
import ssl
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace

import trio
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from pyminuteman.addresses import Endpoint
from pyminuteman.daemon.api.answers import ApiError, error_response
from pyminuteman.daemon.api.event_stream import EventStreams
from pyminuteman.daemon.api.guard import Guard, GuardLimits
from pyminuteman.daemon.api.http_server import ASGIApplication, HttpServer, ServerLimits
from pyminuteman.daemon.api.options import ApiOptions, load_tokens, tls_context
from pyminuteman.daemon.api.page_routes import Page, page_routes
from pyminuteman.daemon.api.routes import Routes
from pyminuteman.daemon.api.sockets import listening_tcp, listening_unix
from pyminuteman.daemon.api.subject import Subject

__all__ = ["Api", "open_api"]


class Api:
    """The API, open.

    Attributes:
        tcp: Where it listens besides the unix socket; None when it does not.
        tls: What connections by TCP get from now on; None for no TLS.
        routes: What can be asked for.
    """

    def __init__(
        self,
        server: HttpServer,
        guard: Guard,
        streams: EventStreams,
        *,
        options: ApiOptions,
        tls: ssl.SSLContext | None,
        own_routes: Routes,
        routes: tuple[Route, ...],
        tcp: Endpoint | None,
    ) -> None:
        """For :func:`open_api`."""
        self._options, self._own_routes = options, own_routes
        self._server, self._guard, self._streams = server, guard, streams
        self.routes, self.tcp, self.tls = routes, tcp, tls

    def metrics(self) -> Mapping[str, float]:
        """Plain numbers by name; counters end in ``_total``."""
        counters = self._server.counters
        return {
            "connections_open": self._server.open_connections,
            "streams_open": self._streams.open,
            **{f"{name}_total": counters[name] for name in sorted(counters)},
            **{f"answers_{status}_total": count for status, count in sorted(self._guard.answers.items())},
            "streams_refused_total": self._streams.refused,
            "events_missed_total": self._streams.missed,
            "refused_requests_total": self._guard.refused.total(),
        }

    def renewal(self, options: ApiOptions) -> Callable[[], None]:
        """Read tokens and certificates anew. Blocks; may be called in a thread.

        Args:
            options: Of these, the names that it goes by and the labels of metrics are taken, too. Where it listens stays.

        Returns:
            What makes it count; it neither waits nor fails. Connections that are open keep their certificates; a token that is gone is
            good for nothing from then on.

        Raises:
            ConfigurationError: A file is no good.
        """
        asked = replace(self._options, hosts=options.hosts, metrics_labels=options.metrics_labels)
        tokens = None if asked.token_file is None else load_tokens(asked.token_file)
        tls = tls_context(asked)

        def take() -> None:
            self._options, self.tls = asked, tls
            self._guard.tokens, self._guard.hosts = tokens, _names(asked)
            self._own_routes.labels = asked.metrics_labels

        return take

    def close(self) -> None:
        """Say goodbye to the streams, finish what is under way, and take nothing more."""
        self._server.closing.set()


@asynccontextmanager
async def open_api(
    subject: Subject,
    options: ApiOptions,
    *,
    page: Page | None = None,
    server_limits: ServerLimits | None = None,
    guard_limits: GuardLimits | None = None,
) -> AsyncIterator[Api]:
    """Serve the API of a node for as long as the block lasts.

    Args:
        subject: The node.
        options: How it is reached.
        page: What is at ``/``; None for nothing.
        server_limits: Of connections.
        guard_limits: Of requests.

    Raises:
        ConfigurationError: A socket cannot be made, or a file of tokens or certificates is no good. Nothing is open.
    """
    with ExitStack() as stack:
        tokens = None if options.token_file is None else load_tokens(options.token_file)
        tls = tls_context(options)
        server = HttpServer(_unready, server_limits)
        listeners: list[tuple[trio.SocketListener, Callable[[], ssl.SSLContext | None]]] = []
        group, tcp = None, None
        if options.socket is not None:
            listener = stack.enter_context(listening_unix(options.socket, options.group))
            group = options.socket.stat().st_gid
            listeners.append((trio.SocketListener(trio.socket.from_stdlib_socket(listener)), lambda: None))
        if options.tcp is not None:
            listener = stack.enter_context(listening_tcp(options.tcp))
            tcp = Endpoint(*listener.getsockname()[:2])
            listeners.append((trio.SocketListener(trio.socket.from_stdlib_socket(listener)), lambda: api.tls))
        streams = EventStreams(subject.events, server.closing, options.streams)
        own_routes = Routes(subject, streams, options.metrics_labels)
        routes = own_routes.routes()
        if page is not None:
            routes += page_routes(subject, page)
        application = _application(routes)
        guard = Guard(application, group=group, owner=os.geteuid(), tokens=tokens, hosts=_names(options), limits=guard_limits)
        server.app = guard
        failure: Exception | None = None
        api = Api(server, guard, streams, options=options, tls=tls, own_routes=own_routes, routes=tuple(routes), tcp=tcp)
        async with trio.open_nursery() as nursery:
            await nursery.start(lambda *, task_status: server.serve(listeners, task_status=task_status))
            try:
                yield api
            except Exception as error:  # noqa: BLE001 - it is raised below, and not in a group of errors
                failure = error
            api.close()
        if failure is not None:
            raise failure


def _names(options: ApiOptions) -> frozenset[str]:
    return frozenset(map(str.lower, options.hosts))


async def _unready(*_message: object) -> None:
    raise RuntimeError("nothing is served yet")


def _application(routes: Iterable[Route]) -> ASGIApplication:
    async def not_routed(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        path = request.url.path[:200]
        headers = dict(error.headers or {})
        if "Allow" in headers:  # a set, to starlette
            headers["Allow"] = ", ".join(sorted(headers["Allow"].split(", ")))
        texts = {
            404: ("not_found", f"there is nothing at {path}", "see /v1/openapi.json"),
            405: ("wrong_method", f"{request.method[:20]} is not for {path}", f"use {headers.get('Allow', '')}"),
        }
        code, text, hint = texts.get(error.status_code, ("bad_request", str(error.detail), ""))
        return error_response(ApiError(error.status_code, code, text, hint, headers))

    async def refused(_request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)  # noqa: S101
        return error_response(error)

    # Without starlette's own answer to errors of ours, which is no JSON: the guard sees to these.
    router = Router(routes=list(routes), redirect_slashes=False)
    return ExceptionMiddleware(router, handlers={HTTPException: not_routed, ApiError: refused})
