"""What the API answers with: JSON with an ETag, and errors that all look alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from pyminuteman.errors import MinutemanError

__all__ = ["JSON", "ApiError", "entity_tag", "error_body", "error_response", "is_known", "json_response", "response_with_tag"]

JSON: Final = "application/json"


class ApiError(MinutemanError):
    """A request that is not carried out. Nothing was changed.

    Attributes:
        status: The HTTP status.
        code: A word for programs.
        hint: What to do; may be empty.
        headers: To be sent with it.
    """

    def __init__(self, status: int, code: str, message: str, hint: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.message, self.hint = status, code, message, hint
        self.headers = dict(headers or {})


def error_body(code: str, message: str, hint: str = "") -> bytes:
    """The body of an error."""
    return dump({"error": {"code": code, "message": message, "hint": hint}})


def error_response(error: ApiError) -> Response:
    """The answer that an error is."""
    body = error_body(error.code, error.message, error.hint)
    return Response(body, error.status, headers=error.headers, media_type=JSON)


def dump(plain: object) -> bytes:
    """Compact JSON, in UTF-8. Text that is none (half of a surrogate pair) is escaped rather than refused."""
    try:
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode() + b"\n"
    except UnicodeEncodeError:
        return json.dumps(plain, separators=(",", ":"), allow_nan=False).encode() + b"\n"


def entity_tag(body: bytes) -> str:
    """A strong ETag: equal for equal bodies."""
    return f'"{blake2b(body, digest_size=16).hexdigest()}"'


def is_known(request: Request, tag: str) -> bool:
    """Whether the client has it already (RFC 9110, section 13.1.2: weak comparison)."""
    asked = request.headers.get("if-none-match", "")
    return asked.strip() == "*" or tag in [one.strip().removeprefix("W/") for one in asked.split(",")]


def response_with_tag(request: Request, body: bytes, media_type: str, tag: str = "") -> Response:
    """The body with its ETag, or 304 where the client has it."""
    tag = tag or entity_tag(body)
    headers = {"etag": tag, "cache-control": "no-cache"}
    if is_known(request, tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type=media_type)


def json_response(request: Request, plain: object) -> Response:
    """Plain data as JSON, with an ETag."""
    return response_with_tag(request, dump(plain), JSON)
