"""HTTP to the systems that tell us what is desired: careful about whom it talks to, how long, and how much it reads.

TLS is verified unless told otherwise in so many words; redirects are not followed but handed to the caller, for a leader that has moved
is news to the source; every wait has a deadline, and every body a limit. What goes wrong is one error, :class:`HttpError`, whose text
says what and where, and never a secret: neither tokens nor the password of a URL.

Needs httpx2, from the extras ``etcd`` and ``sources``.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import httpx2
import trio

from pyminuteman.errors import ConfigurationError, MinutemanError

__all__ = ["HttpClient", "HttpError", "HttpOptions", "HttpResponse", "without_secrets"]

BODY_MAX_BYTES: Final = 256 << 20
"""Largest body read whole: the state of a Mesos master with 100,000 tasks is a third of it."""
_ERROR_TEXT_MAX: Final = 200


class HttpError(MinutemanError):
    """A server did not answer as it should. Nothing was changed here; whether the server took it in is not known.

    Attributes:
        status: The HTTP status, or None when there was no answer.
        location: Where a redirect leads to; empty without one.
        retry_after_seconds: What the server asks for, or None.
    """

    def __init__(
        self, reason: str, *, status: int | None = None, location: str = "", retry_after_seconds: float | None = None
    ) -> None:
        """Say what is wrong."""
        super().__init__(reason)
        self.status = status
        self.location = location
        self.retry_after_seconds = retry_after_seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpOptions:
    """How to reach a server.

    Attributes:
        ca_file: Certificates of the authorities to trust instead of the system's.
        certificate_file: Our certificate in PEM, for servers that ask for one.
        key_file: Its key; None when it is in the same file.
        insecure: Do not verify who the server is. For tests, and for those who know.
        token_file: Read at each request, so that it can be renewed; sent as ``Authorization: <token_scheme> <token>``.
        token_scheme: ``Bearer``; Mesos takes ``token=``, which is joined without a space.
        headers: Sent with every request.
        timeout_seconds: For each wait: to connect, for the answer to begin, for its next bytes.
        unix_socket: Connect to this socket instead; the URL's host is then only a name.
    """

    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None
    insecure: bool = False
    token_file: Path | None = None
    token_scheme: str = "Bearer"  # noqa: S105 - no secret
    headers: Mapping[str, str] = field(default_factory=dict)
    timeout_seconds: float = 10.0
    unix_socket: Path | None = None

    def ssl_context(self) -> ssl.SSLContext:
        """The TLS side of it.

        Raises:
            ConfigurationError: A file cannot be read, or is no certificate or key.
        """
        context = ssl.create_default_context()
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            if self.ca_file is not None:
                context = context if self.insecure else ssl.create_default_context(cafile=str(self.ca_file))
            if self.certificate_file is not None:
                context.load_cert_chain(self.certificate_file, self.key_file)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(self.certificate_file or self.ca_file, "TLS", str(error)) from None
        return context


def without_secrets(url: str) -> str:
    """The URL without user, password and query, which may hold tokens."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit((parts.scheme, (f"[{host}]" if ":" in host else host) + port, parts.path, "", ""))


class HttpResponse:
    """An answer whose body is still to come."""

    def __init__(self, response: httpx2.Response, url: str) -> None:
        self._response = response
        self._url = url

    @property
    def status(self) -> int:
        """Below 300: the others are raised."""
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in any case."""
        return self._response.headers

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives; it is for the caller to bound.

        Raises:
            HttpError: It breaks off, or nothing comes for as long as the timeout.
        """
        try:
            async for chunk in self._response.aiter_bytes():
                yield chunk
        except httpx2.HTTPError as error:
            raise HttpError(f"{self._url}: {_reason(error)}") from None

    async def read(self, most: int = BODY_MAX_BYTES) -> bytes:
        """The whole body.

        Raises:
            HttpError: It breaks off, or has more than ``most`` bytes.
        """
        found = bytearray()
        async for chunk in self.chunks():
            found += chunk
            if len(found) > most:
                raise HttpError(f"{self._url}: the answer has more than {most} bytes")
        return bytes(found)


class HttpClient:
    """Requests to one server, over connections that are kept. An async context manager."""

    def __init__(self, base_url: str, options: HttpOptions | None = None) -> None:
        """Take the URL that all paths are relative to.

        Raises:
            ConfigurationError: The URL is none of http or https, or a file of the options is no good.
        """
        self.options = HttpOptions() if options is None else options
        parts = urlsplit(base_url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ConfigurationError(None, without_secrets(base_url), "is not a URL such as https://host:1234")
        self.base_url = base_url.rstrip("/")
        verify: ssl.SSLContext | bool = self.options.ssl_context() if parts.scheme == "https" else False
        socket = self.options.unix_socket
        self._client = httpx2.AsyncClient(
            transport=httpx2.AsyncHTTPTransport(verify=verify, uds=None if socket is None else str(socket)),
            timeout=self.options.timeout_seconds,
            headers={"user-agent": "pyminuteman", **self.options.headers},
            follow_redirects=False,
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(self, *_error: object) -> None:
        with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
            await self._client.aclose()

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        path: str,
        *,
        body: object = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> AsyncIterator[HttpResponse]:
        """Send a request, with ``body`` as JSON unless it is None, and give the answer once its head is there.

        Raises:
            HttpError: It cannot be reached in time, or answers with another status than 2xx.
        """
        url = self.base_url + path
        shown = without_secrets(url)
        sent = {**(headers or {}), **self._authorization()}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            sent.setdefault("content-type", "application/json")
        wait = httpx2.USE_CLIENT_DEFAULT if timeout_seconds is None else timeout_seconds
        request = self._client.build_request(
            method, url, content=content, params=dict(query) if query else None, headers=sent, timeout=wait
        )
        try:
            response = await self._client.send(request, stream=True)
        except httpx2.HTTPError as error:
            raise HttpError(f"{shown}: {_reason(error)}") from None
        try:
            answer = HttpResponse(response, shown)
            if not response.is_success:
                raise await _refusal(answer)
            yield answer
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await response.aclose()

    async def json(self, method: str, path: str, *, most: int = BODY_MAX_BYTES, **request: Any) -> Any:
        """Send a request as :meth:`stream` does, and read the answer as JSON.

        Raises:
            HttpError: As for :meth:`stream`; or the answer is too long, or no JSON.
        """
        async with self.stream(method, path, **request) as response:
            body = await response.read(most)
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise HttpError(f"{without_secrets(self.base_url + path)}: the answer is no JSON: {error}") from None

    def _authorization(self) -> dict[str, str]:
        path = self.options.token_file
        if path is None:
            return {}
        try:
            token = path.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise HttpError(f"the token in {path} cannot be read: {error}") from None
        scheme = self.options.token_scheme
        return {"authorization": f"{scheme}{token}" if scheme.endswith("=") else f"{scheme} {token}"}


def _reason(error: httpx2.HTTPError) -> str:
    kind = type(error).__name__
    text = str(error) or (error.__cause__ and str(error.__cause__)) or ""
    return f"{kind}: {text}" if text else kind


async def _refusal(answer: HttpResponse) -> HttpError:
    try:
        with trio.move_on_after(1):
            text = (await answer.read(1 << 16)).decode(errors="replace").strip()
    except HttpError:
        text = ""
    shown = " ".join(text.split())[:_ERROR_TEXT_MAX]
    after = answer.headers.get("retry-after", "")
    return HttpError(
        f"{answer._url}: answered {answer.status}{': ' if shown else ''}{shown}",  # noqa: SLF001 - of this module
        status=answer.status,
        location=answer.headers.get("location", ""),
        retry_after_seconds=float(after) if after.isdigit() else None,
    )
