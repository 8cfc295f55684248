"""HTTP to the systems that tell us what is desired: careful about whom it talks to, how long, and how much it reads.

TLS is verified unless told otherwise in so many words; redirects are not followed but handed to the caller, for a leader that has moved
is news to the source; every wait has a deadline, and every body a limit. What goes wrong is one error, :class:`HttpError`, whose text
says what and where, and never a secret: neither tokens nor the password of a URL.

Needs httpx2, from the extras ``etcd`` and ``sources``.
"""

from __future__ import annotations

import json
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import unquote, urlsplit, urlunsplit

import httpx2
import trio

from pyminuteman.errors import ConfigurationError, MinutemanError

__all__ = ["HttpClient", "HttpError", "HttpOptions", "HttpResponse", "without_secrets"]

BODY_MAX_BYTES: Final = 256 << 20
"""Largest body read whole: the state of a Mesos master with 100,000 tasks is a third of it."""
_ERROR_TEXT_MAX: Final = 200
_REFUSAL_MAX_BYTES: Final = 1 << 16
_TOKEN_MAX_BYTES: Final = 16384
"""Larger ones than any server takes in a header."""
_RETRY_DIGITS_MAX: Final = 9


class HttpError(MinutemanError):
    """A server did not answer as it should. Nothing was changed here; whether the server took it in is not known.

    Attributes:
        status: The HTTP status, or None when there was no answer.
        location: Where a redirect leads to; empty without one.
        retry_after_seconds: What the server asks for, or None.
        body: The beginning of what came with the status (64 KiB), for APIs that say in it what is wrong. Not for the log.
    """

    def __init__(
        self,
        reason: str,
        *,
        status: int | None = None,
        location: str = "",
        retry_after_seconds: float | None = None,
        body: str = "",
    ) -> None:
        """Say what is wrong."""
        super().__init__(reason)
        self.status = status
        self.location = location
        self.retry_after_seconds = retry_after_seconds
        self.body = body


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
        try:
            cafile = None if self.ca_file is None else str(self.ca_file)
            context = ssl.create_default_context(cafile=cafile)
        except (OSError, ssl.SSLError) as error:
            raise ConfigurationError(self.ca_file, "TLS", f"no certificates to trust can be read: {_said(error)}") from None
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_file is not None:
            try:
                # A password, though there is none: OpenSSL would ask for it on the terminal, and wait.
                context.load_cert_chain(self.certificate_file, self.key_file, password=b"")
            except (OSError, ssl.SSLError) as error:
                at = f"{self.certificate_file}" + (f" and {self.key_file}" if self.key_file else "")
                said = f"no certificate with its key, which has no password, can be read: {_said(error)}"
                raise ConfigurationError(at, "TLS", said) from None
        return context


def _said(error: OSError) -> str:
    return error.strerror or str(error)


def without_secrets(url: str) -> str:
    """The URL without user, password, query and fragment, which may hold tokens; and with nothing that cannot be printed."""
    try:
        parts = urlsplit(url)
        host, number = parts.hostname or "", parts.port
    except ValueError:
        return "(no URL)"
    port = f":{number}" if number is not None else ""
    return _printable(urlunsplit((parts.scheme, (f"[{host}]" if ":" in host else host) + port, parts.path, "", "")))


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


class HttpResponse:
    """An answer whose body is still to come."""

    def __init__(self, response: httpx2.Response, url: str, secrets: tuple[str, ...] = ()) -> None:
        self._response = response
        self._pieces = response.aiter_raw()
        self._url = url
        self._secrets = secrets

    @property
    def status(self) -> int:
        """Below 300: the others are raised."""
        return self._response.status_code

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in any case."""
        return self._response.headers

    def chunks(self) -> Self:
        """The body as it arrives; it is for the caller to bound. A second call goes on where the first one stopped.

        Raises:
            HttpError: It breaks off, or nothing comes for as long as the timeout.
        """
        return self

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except httpx2.HTTPError as error:
            raise HttpError(f"{self._url}: {_reason(error)}") from None

    async def aclose(self) -> None:
        """Read no more; :meth:`HttpClient.stream` does this at its end.

        httpx2 reads through a chain of generators, and one of them does not close the next (httpx2 2.16): it would be left to the
        garbage collector, and trio warns of that. So they are run on, without waiting for anything, which ends them all.
        """
        with trio.CancelScope(shield=True) as scope, suppress(httpx2.HTTPError, httpx2.StreamError):
            scope.cancel()
            async for _ in self._pieces:
                pass
        await self._response.aclose()

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
        try:
            parts = urlsplit(base_url)
            fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            fine = False
        if not fine or not base_url.isprintable():
            raise ConfigurationError(None, without_secrets(base_url), "is not a URL such as https://host:1234")
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        basic = b64encode(f"{user}:{password}".encode()).decode()  # as it goes over the wire
        self._secrets = (password, basic) if password else ()
        self.base_url = base_url.rstrip("/")
        verify: ssl.SSLContext | bool = self.options.ssl_context() if parts.scheme == "https" else False
        socket = self.options.unix_socket
        self._client = httpx2.AsyncClient(
            # Whoever asks knows how often: a limit here would let the hundred and first blocking query wait for the others.
            transport=httpx2.AsyncHTTPTransport(
                verify=verify,
                uds=None if socket is None else str(socket),
                limits=httpx2.Limits(max_connections=None, max_keepalive_connections=20),
            ),
            timeout=self.options.timeout_seconds,
            # Not compressed: a kilobyte that unfolds to a gigabyte is none of our worries then.
            headers={"user-agent": "pyminuteman", "accept-encoding": "identity", **self.options.headers},
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
        token = self._token()
        sent = {**(headers or {}), **self._authorization(token)}
        content = None if body is None else json.dumps(body).encode()
        if content is not None:
            sent.setdefault("content-type", "application/json")
        wait = httpx2.USE_CLIENT_DEFAULT if timeout_seconds is None else timeout_seconds
        try:
            request = self._client.build_request(
                method, url, content=content, params=dict(query) if query else None, headers=sent, timeout=wait
            )
            response = await self._client.send(request, stream=True)
        except httpx2.HTTPError as error:
            raise HttpError(f"{shown}: {_reason(error)}") from None
        except (httpx2.InvalidURL, UnicodeEncodeError):  # the latter of headers
            raise HttpError(f"{shown}: the URL, or a header, is none that can be sent") from None
        answer = HttpResponse(response, shown, (*self._secrets, *filter(None, [token])))
        try:
            if not response.is_success:
                raise await _refusal(answer)
            encoding = answer.headers.get("content-encoding", "identity")
            if encoding != "identity":
                raise HttpError(f"{shown}: the answer is in encoding {_printable(encoding)[:20]!r}, which was not asked for")
            yield answer
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 1):
                await answer.aclose()

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

    def _token(self) -> str:
        path = self.options.token_file
        if path is None:
            return ""
        try:
            with path.open("rb") as file:
                token = file.read(_TOKEN_MAX_BYTES + 1).strip().decode("ascii")
        except OSError as error:
            raise HttpError(f"the token in {path} cannot be read: {_said(error)}") from None
        except UnicodeDecodeError:
            token = ""
        if not token.isprintable() or not 0 < len(token) <= _TOKEN_MAX_BYTES:
            raise HttpError(f"the token in {path} is none: expected one line of up to {_TOKEN_MAX_BYTES} ASCII characters")
        return token

    def _authorization(self, token: str) -> dict[str, str]:
        if not token:
            return {}
        scheme = self.options.token_scheme
        return {"authorization": f"{scheme}{token}" if scheme.endswith("=") else f"{scheme} {token}"}


def _reason(error: httpx2.HTTPError) -> str:
    """The kind of error, and the first thing that any of its causes says: a certificate is refused far down."""
    text, cause = str(error), error.__cause__ or error.__context__
    while not text and cause is not None and not isinstance(error, httpx2.TimeoutException):
        text, cause = str(cause), cause.__cause__ or cause.__context__
    kind = type(error).__name__
    return _printable(f"{kind}: {text}" if text else kind)


async def _refusal(answer: HttpResponse) -> HttpError:
    text = ""
    with suppress(HttpError), trio.move_on_after(1):
        text = (await answer.read(_REFUSAL_MAX_BYTES)).decode(errors="replace").strip()
    for secret in answer._secrets:  # noqa: SLF001 - of this module
        text = text.replace(secret, "***")  # servers do say whom they do not let in
    shown = _printable(" ".join(text.split()))[:_ERROR_TEXT_MAX]
    return HttpError(
        f"{answer._url}: answered {answer.status}{': ' if shown else ''}{shown}",  # noqa: SLF001
        status=answer.status,
        location=answer.headers.get("location", ""),
        retry_after_seconds=_retry_after(answer.headers),
        body=text,
    )


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds, or a date (RFC 9110, section 10.2.3), which counts from the server's own: its clock may not be ours."""
    text = headers.get("retry-after", "")
    if text.isascii() and text.isdigit():
        return float(text[:_RETRY_DIGITS_MAX])
    try:
        return max(0.0, (parsedate_to_datetime(text) - parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (TypeError, ValueError):  # one of them is none, or is not of any zone
        return None
