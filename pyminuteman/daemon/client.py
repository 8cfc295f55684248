"""The daemon's API for the command line: over its unix socket, with no more than the standard library, so that a verb starts at once.

Calls block. From trio make them in a thread; a stream of events has a file descriptor of its own, and ends when the client is closed.
"""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import quote, urlencode

from pyminuteman.daemon.client_errors import DaemonError, DaemonForbidden, DaemonRefused, DaemonUnreachable

__all__ = ["DEFAULT_SOCKET", "DaemonClient"]

DEFAULT_SOCKET: Final = Path("/run/minuteman/api.sock")
_BODY_MOST_BYTES: Final = 256 << 20
_LINE_MOST_BYTES: Final = 1 << 20
_EVENT_SILENCE_SECONDS: Final = 60.0
"""The daemon says something every 15 s, if only that it is there."""
_FORBIDDEN: Final = frozenset({401, 403})
_PRINTED_MAX: Final = 300


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_seconds: float) -> None:
        super().__init__("minuteman", timeout=timeout_seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class DaemonClient:
    """Asks one daemon. A context manager; one request at a time.

    Args:
        path: Of its socket.
        timeout_seconds: For each wait: to connect, for the answer to begin, for its next bytes.
    """

    def __init__(self, path: Path = DEFAULT_SOCKET, *, timeout_seconds: float = 15.0) -> None:
        self._path = path
        self._connection = _UnixConnection(path, timeout_seconds)
        self._response: http.client.HTTPResponse | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """End it; a stream of events ends too."""
        if self._response is not None:  # it has the descriptor as well
            self._response.close()
            self._response = None
        self._connection.close()

    # What is asked

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """What a read route tells: ``get("/v1/status")``.

        Raises:
            DaemonUnreachable: Nobody answers.
            DaemonForbidden: This user may not ask.
            DaemonRefused: The daemon says no.
        """
        return self._json("GET", path + ("?" + urlencode(query) if query else ""))

    def text(self, path: str) -> str:
        """What a route tells that is no JSON: ``/metrics``.

        Raises:
            DaemonError: As for :meth:`get`.
        """
        return self._body("GET", path).decode(errors="replace")

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Have something done: ``post("/v1/drain", {"node": "web1", "reason": "disk"})``.

        Raises:
            DaemonUnreachable: Nobody answers; whether it was done is not known when the text says so.
            DaemonForbidden: This user may change nothing.
            DaemonRefused: The daemon says no. Nothing was changed.
        """
        return self._json("POST", path, {} if body is None else body)

    def push(self, source: str, document: Mapping[str, Any]) -> Any:
        """Say all that a pushed source wants.

        Raises:
            DaemonError: As for :meth:`post`.
        """
        return self._json("PUT", f"/v1/sources/{quote(source, safe='')}", document)

    def events(self, since: int | None = None, *, life: str = "") -> Iterator[dict[str, Any]]:
        """Events from now on, or after that number, as ``/v1/events`` has them; ends when the daemon says goodbye.

        The first has the ``kind`` ``hello``: it says which ``life`` of the daemon it is, and after which number (``id``) it begins. Of
        numbers that are not kept any more there is one with ``kind`` ``missed``.

        Args:
            since: After which number.
            life: Of which life that number is; if the daemon has been started since, all that it keeps is told.

        Raises:
            DaemonUnreachable: It breaks off, or there is no sign of life for a minute.
            DaemonForbidden: This user may not ask.
            DaemonRefused: There are too many streams already.
        """
        place = {} if since is None else {"since": str(since), **({"life": life} if life else {})}
        response = self._send("GET", "/v1/events" + ("?" + urlencode(place) if place else ""), None)
        if self._connection.sock is not None:
            self._connection.sock.settimeout(_EVENT_SILENCE_SECONDS)
        kind = ""
        while True:
            try:
                line = response.readline(_LINE_MOST_BYTES)
            except (OSError, http.client.HTTPException) as error:
                raise self._broken_off(error, "GET") from None
            if not line:
                raise DaemonUnreachable("the daemon has ended without a word; see its log")
            name, _, value = line.decode(errors="replace").rstrip("\r\n").partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind == "bye":
                return
            elif name == "data":
                data = self._parsed(value.encode())
                yield {"kind": kind, **data}

    # How

    def _json(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._parsed(self._body(method, path, body))

    def _body(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> bytes:
        response = self._send(method, path, body)
        if response.length is None or response.length > _BODY_MOST_BYTES:
            self._connection.close()
            raise DaemonUnreachable(
                f"what answers at {self._path} is no minuteman: it does not say how long its answer is, or too much"
            )
        try:
            return response.read()
        except (OSError, http.client.HTTPException) as error:
            self.close()
            raise self._broken_off(error, method) from None

    def _send(self, method: str, path: str, body: Mapping[str, Any] | None) -> http.client.HTTPResponse:
        content = None if body is None else json.dumps(body).encode()
        headers = {} if content is None else {"content-type": "application/json"}
        kept = self._connection.sock is not None
        try:
            response = self._exchange(method, path, content, headers)
        except (OSError, http.client.HTTPException) as error:
            self.close()
            if not kept or method != "GET":
                raise self._broken_off(error, method) from None
            # One that was kept may have been closed meanwhile: a question is asked once more, but a change is not made twice.
            try:
                response = self._exchange(method, path, content, headers)
            except (OSError, http.client.HTTPException) as again:
                self.close()
                raise self._broken_off(again, method) from None
        if response.status >= http.client.BAD_REQUEST:
            raise self._refusal(response)
        return response

    def _exchange(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> http.client.HTTPResponse:
        if self._connection.sock is None:
            try:
                self._connection.connect()
            except OSError as error:
                self._connection.close()
                raise self._no_way(error) from None
        self._connection.request(method, path, body=body, headers=headers)
        self._response = self._connection.getresponse()
        return self._response

    def _parsed(self, body: bytes) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError):
            raise DaemonUnreachable(f"what answers at {self._path} is no minuteman: its answer is no JSON") from None

    def _refusal(self, response: http.client.HTTPResponse) -> DaemonError:
        said: Any = {}
        with suppress(OSError, http.client.HTTPException, ValueError):
            said = json.loads(response.read(65536))
        error = said.get("error") if isinstance(said, dict) else None
        row = error if isinstance(error, dict) else {}
        code, message, hint = (str(row.get(key, ""))[:_PRINTED_MAX] for key in ("code", "message", "hint"))
        message = message or f"it answered {response.status}"
        if response.status in _FORBIDDEN:
            return DaemonForbidden(
                f"{message}; {hint or 'run this as root, or as a member of the group of ' + str(self._path)}"
            )
        return DaemonRefused(response.status, code, message, hint)

    def _no_way(self, error: OSError) -> DaemonError:
        """Why there is no connection."""
        path = self._path
        if isinstance(error, PermissionError):
            return DaemonForbidden(f"{path} is not for this user: run this as root, or as a member of the socket's group")
        if isinstance(error, FileNotFoundError):
            return DaemonUnreachable(
                f"no daemon runs here: there is no {path}; start it (systemctl start minuteman), or name its socket"
            )
        if isinstance(error, ConnectionRefusedError):
            return DaemonUnreachable(f"no daemon listens at {path}: start it (systemctl start minuteman)")
        return DaemonUnreachable(f"{path} cannot be reached: {error}")

    def _broken_off(self, error: Exception, method: str) -> DaemonError:
        what = "it may have been done all the same; look first" if method != "GET" else "ask again, and look at its log"
        why = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        return DaemonUnreachable(f"the daemon at {self._path} broke off ({why}): {what}")
