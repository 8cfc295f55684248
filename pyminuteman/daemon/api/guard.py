"""Who may ask what: before a request reaches its route, and around it.

1. Over the unix socket whoever can connect may read; root, the daemon's own user and the members of the socket's group may write.
2. Over TCP a token or a verified certificate is needed for everything but ``/healthz``, and the name that the client calls us by has to
   be an address, ``localhost`` or one of ours: the page of another site that has its own name lead here is turned away.
3. What a browser sends on behalf of another site is turned away (``Origin``, ``Sec-Fetch-Site``), and there is no CORS. Writes have to be
   JSON, and over TCP to come from the page itself or to carry the header ``X-Minuteman``: no form and no image can send that.
4. Each request has a deadline, its body a limit, and every answer the headers that keep a browser careful.
"""

from __future__ import annotations

import binascii
import logging
from base64 import b64decode
from collections import Counter
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

import trio
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect

from pyminuteman.addresses import parse_endpoint
from pyminuteman.daemon.api.answers import ApiError, error_response
from pyminuteman.daemon.api.http_server import ASGIApplication, Message, PeerGone
from pyminuteman.daemon.api.options import Tokens
from pyminuteman.daemon.api.peers import Peer

__all__ = ["CONTENT_SECURITY_POLICY", "UNLIMITED_PATHS", "Access", "Guard", "GuardLimits"]

_log = logging.getLogger(__name__)

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS: Final = {
    "content-security-policy": CONTENT_SECURITY_POLICY,
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_OPEN_PATHS: Final = frozenset({"/healthz"})
UNLIMITED_PATHS: Final = frozenset({"/v1/events"})
"""Routes that see to their deadlines themselves."""
_SENT_BY_US: Final = "x-minuteman"


@dataclass(frozen=True, slots=True)
class Access:
    """What a peer may do.

    Attributes:
        peer: Who.
        write: Whether it may change anything.
        who: What it is called where that does not take asking anybody: ``token``, a certificate's name; empty for a user.
    """

    peer: Peer
    write: bool
    who: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardLimits:
    """What a request may take.

    Attributes:
        seconds: For the whole of it.
        body_bytes: Of its body; a pushed source's has a limit of its own.
        pushed_bytes: Of the body of a pushed source.
        at_once: Requests under way at a time.
    """

    seconds: float = 10.0
    body_bytes: int = 65536
    pushed_bytes: int = 32 << 20
    at_once: int = 32


class Guard:
    """Around the routes.

    Args:
        app: What is guarded.
        group: Id of the socket's group, whose members may write; None for none.
        owner: The daemon's own user.
        tokens: What clients over TCP have to know; None: no token is good.
        hosts: Names that we go by, in lower case, besides ``localhost``.
        limits: What a request may take.

    Attributes:
        tokens: May be replaced at any time.
        hosts: And so may these.
        answers: How many there were of each status.
        refused: What was turned away, by the code of the error.
    """

    def __init__(
        self,
        app: ASGIApplication,
        *,
        group: int | None,
        owner: int,
        tokens: Tokens | None,
        hosts: frozenset[str] = frozenset(),
        limits: GuardLimits | None = None,
    ) -> None:
        self._app = app
        self._group, self._owner, self.tokens = group, owner, tokens
        self.hosts = hosts
        self._limits = GuardLimits() if limits is None else limits
        self._running = 0
        self.answers: Counter[int] = Counter()
        self.refused: Counter[str] = Counter()

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """One request."""
        started = False

        async def tell(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                self._complete(message)
            await send(message)

        failure = await self._attempt(scope, receive, tell)
        if failure is None:
            return
        self.refused[failure.code] += failure.code in _COUNTED
        if started:  # nothing sensible can be said any more; the connection is closed in the middle
            raise PeerGone
        await error_response(failure)(scope, receive, tell)

    def _complete(self, message: Message) -> None:
        """Add the headers that every answer has."""
        self.answers[message["status"]] += 1
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("cache-control", "no-store")

    async def _attempt(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> ApiError | None:
        """Have it answered; or say why it is not.

        Raises:
            PeerGone: Nobody is there to be answered.
        """
        try:
            scope["state"]["access"] = self._admit(scope)
            scope["app"] = self  # without one, starlette's router says no in plain text, and does not raise
            if scope["path"] in UNLIMITED_PATHS:
                await self._app(scope, receive, send)
            else:
                await self._within_limits(scope, receive, send)
        except ApiError as error:
            return error
        except (PeerGone, ClientDisconnect):
            raise PeerGone from None
        except Exception:  # noqa: BLE001 - whoever asks gets an answer, and the log the traceback
            _log.exception("the API could not answer %s %s", scope["method"], scope["path"])
            return ApiError(500, "internal", "an error of ours; it is in the log", "report it, with the log")
        return None

    async def _within_limits(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        if self._running >= self._limits.at_once:
            text = f"{self._running} requests are under way already"
            raise ApiError(503, "busy", text, "ask again in a second", {"retry-after": "1"})
        most = self._limits.pushed_bytes if scope["path"].startswith("/v1/sources/") else self._limits.body_bytes
        large = ApiError(413, "too_large", f"the body has more than {most} bytes", "send less")
        announced = Headers(scope=scope).get("content-length", "0")
        if announced.isdigit() and int(announced) > most:
            raise large
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise large
            return message

        self._running += 1
        try:
            with trio.move_on_after(self._limits.seconds) as deadline:
                await self._app(scope, limited, send)
        finally:
            self._running -= 1
        if deadline.cancelled_caught:
            text = f"this took longer than {self._limits.seconds:g} s, and was given up"
            raise ApiError(503, "too_long", text, "ask again; if it was a change, look first whether it was made")

    def _admit(self, scope: MutableMapping[str, Any]) -> Access:
        """Who asks, and whether that is in order.

        Raises:
            ApiError: It is not.
        """
        headers, peer = Headers(scope=scope), scope["state"]["peer"]
        over_tcp = peer.uid is None
        writes = scope["method"] not in _SAFE
        if over_tcp:
            self._check_host(headers.get("host", ""))
        same_origin = _check_origin(headers, scope["scheme"], writes=writes)
        access = self._access(peer, headers)
        if access is None:
            if scope["path"] in _OPEN_PATHS and not writes:
                return Access(peer, write=False, who="anybody")
            hint = "send Authorization: Bearer TOKEN, with a token of api.token_file"
            challenge = {"www-authenticate": 'Basic realm="minuteman", charset="UTF-8"'}
            raise ApiError(401, "unauthorized", "a token or a certificate is needed", hint, challenge)
        if writes:
            if not access.write:
                hint = "ask as root, as a member of the socket's group, or with a token that may write"
                raise ApiError(403, "forbidden", "you may read, and not change anything", hint)
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            empty = "transfer-encoding" not in headers and headers.get("content-length", "0") == "0"
            if kind != "application/json" and not (empty and not kind):
                raise ApiError(415, "not_json", "the body has to be JSON", "send Content-Type: application/json")
            if over_tcp and not same_origin and _SENT_BY_US not in headers:
                raise ApiError(403, "no_header", "a change has to carry the header X-Minuteman", "send X-Minuteman: 1")
        return access

    def _check_host(self, host: str) -> None:
        name = host.lower().rsplit(":", 1)[0] if not host.endswith("]") else host.lower()
        try:
            parse_endpoint(host)
        except ValueError:
            if name not in {"localhost", *self.hosts}:
                text = f"this host does not go by the name {host[:100]!r}"
                raise ApiError(421, "wrong_host", text, "ask by address, or add the name to api.hosts") from None

    def _access(self, peer: Peer, headers: Headers) -> Access | None:
        if peer.uid is not None:
            write = peer.uid in {0, self._owner} or (self._group is not None and self._group in peer.groups)
            return Access(peer, write)
        if peer.verified:
            return Access(peer, write=True, who=f"certificate {peer.certificate}")
        token = _token(headers.get("authorization", ""))
        write_allowed = self.tokens.allows(token) if self.tokens is not None and token else None
        if write_allowed is None:
            return None
        return Access(peer, write_allowed, who=f"token from {peer.address}")


_COUNTED: Final = frozenset(
    {"unauthorized", "forbidden", "wrong_host", "wrong_origin", "no_header", "too_large", "busy", "too_long"}
)


def _check_origin(headers: Headers, scheme: str, *, writes: bool) -> bool:
    """Whether a page of ours asks; refuses what a page of another site does.

    Raises:
        ApiError: One does.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    ours = origin is not None and origin.lower() == f"{scheme}://{headers.get('host', '').lower()}"
    foreign = (origin is not None and not ours) or (writes and site not in {None, "same-origin", "none"})
    if foreign:
        raise ApiError(403, "wrong_origin", "this was sent by the page of another site", "open the page of this daemon")
    return ours or site == "same-origin"


def _token(authorization: str) -> str:
    """Of ``Bearer TOKEN``; or the password of ``Basic``, which is what a browser asks its user for."""
    scheme, _, value = authorization.partition(" ")
    match scheme.lower():
        case "bearer":
            return value.strip()
        case "basic":
            try:
                return b64decode(value, validate=True).decode().partition(":")[2]
            except (binascii.Error, UnicodeDecodeError):
                return ""
        case _:
            return ""
