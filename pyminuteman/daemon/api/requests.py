"""What the bodies of requests say, checked; every error says what is accepted."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.requests import Request

from pyminuteman.addresses import NodeId, parse_endpoint
from pyminuteman.daemon.api.answers import ApiError
from pyminuteman.daemon.observed import MarkTarget, Observation
from pyminuteman.daemon.traffic_views import service_text
from pyminuteman.errors import ConfigurationError
from pyminuteman.plain.fields import Invalid, as_table, get, number, place_text
from pyminuteman.plain.text import parse
from pyminuteman.vips.model import WEIGHT_MAX, BackendKey, InvalidVIPError, VIPKey
from pyminuteman.vips.resolution import Target

__all__ = ["MarkRequest", "WeightRequest", "read_body", "read_confirm", "read_mark", "read_nothing", "read_weight"]

_REASON_MAX: Final = 500
_TEXT_MAX: Final = 500
_UNSEEN: Final = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
"""What no reason holds: it is shown to all, on terminals too."""
_HELD: Final = re.compile("[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class MarkRequest:
    """What is to be drained, or not any more, and why."""

    target: MarkTarget
    reason: str


@dataclass(frozen=True, slots=True)
class WeightRequest:
    """Which weight a backend is to have; None leaves it to its source."""

    target: Target
    weight: int | None
    reason: str


def _bad(message: str, hint: str = "see /v1/openapi.json") -> ApiError:
    return ApiError(400, "bad_request", message, hint)


async def read_body(request: Request) -> Any:
    """The body as plain data.

    Raises:
        ApiError: It is no JSON.
    """
    raw = await request.body()
    try:
        return parse("json", raw.decode(), "")
    except UnicodeDecodeError:
        raise _bad("the body is not UTF-8") from None
    except ConfigurationError as error:
        raise _bad(f"the body is no JSON: {error}") from None


async def _row(request: Request, keys: Collection[str]) -> Mapping[str, Any]:
    body = await read_body(request)
    try:
        return as_table(body, (), keys)
    except Invalid as error:
        raise _bad(error.reason) from None


def _checked(read: Any) -> Any:
    try:
        return read()
    except Invalid as error:
        raise _bad(error.reason, f"at {place_text(error.place)}" if error.place else "see /v1/openapi.json") from None


def _reason(row: Mapping[str, Any]) -> str:
    reason: str = _checked(lambda: get(row, "reason", (), str, ""))
    if len(reason) > _REASON_MAX or _UNSEEN.search(reason):
        raise _bad(f"reason is longer than {_REASON_MAX} characters, or has control characters or line breaks")
    return reason


async def read_mark(request: Request, seen: Observation) -> MarkRequest:
    """Of ``/v1/drain`` and ``/v1/undrain``.

    Raises:
        ApiError: It does not say what it must, or what it is about is not there.
    """
    row = await _row(request, {"node", "backend", "vip", "reason"})
    node = _checked(lambda: get(row, "node", (), str, ""))
    if bool(node) == bool(row.get("backend")):
        raise _bad("say either node or backend", 'as {"node": "web1"} or {"backend": "10.0.0.5:8080"}')
    if not node:
        return MarkRequest(_target(row, seen), _reason(row))
    if row.get("vip") is not None:
        raise _bad("vip goes with backend, not with node")
    return MarkRequest(find_node(node, seen), _reason(row))


async def read_weight(request: Request, seen: Observation) -> WeightRequest:
    """Of ``/v1/weight``.

    Raises:
        ApiError: As for :func:`read_mark`.
    """
    row = await _row(request, {"backend", "vip", "weight", "reason"})
    if "weight" not in row:
        raise _bad("weight is missing", "give a number, or null to leave it to the source")
    weight = None if row["weight"] is None else _checked(lambda: number(row, "weight", (), (0, WEIGHT_MAX)))
    return WeightRequest(_target(row, seen), weight, _reason(row))


async def read_confirm(request: Request) -> tuple[str, str]:
    """Of ``/v1/confirm``: the namespace, empty for the host's own, and the id of what is held back.

    Raises:
        ApiError: As for :func:`read_mark`.
    """
    row = await _row(request, {"namespace", "id"})
    namespace: str = _checked(lambda: get(row, "namespace", (), str, ""))
    identity: str = _checked(lambda: get(row, "id", (), str, ""))
    if not _HELD.fullmatch(identity):
        what = "is missing" if not identity else "is not 16 hexadecimal digits"
        raise _bad(f"id {what}: say what you confirm", "it is held_back.id of the namespace in /v1/status")
    return namespace, identity


async def read_nothing(request: Request) -> None:
    """Of requests that say all by being made: no body, or an empty object.

    Raises:
        ApiError: There is something in it.
    """
    if await request.body():
        await _row(request, ())


def find_node(text: str, seen: Observation) -> NodeId:
    """The node of that name, label or id.

    Raises:
        ApiError: There is none, or more than one.
    """
    records = [seen.me, *(member.record for member in seen.members.values())]
    # An id beats a name: a node may call itself as it likes. One that is marked and forgotten since can still be set free.
    by_id = [node for node in (*(record.id for record in records), *seen.node_drains) if text.lower() == str(node)]
    label = seen.names()
    by_name = [record.id for record in records if text in {record.name, label(record.id)}]
    if not by_id and len(by_name) > 1:
        raise ApiError(409, "ambiguous", f"{len(by_name)} nodes are called {_short(text)}", "say which by its id")
    found = by_id or by_name
    if not found:
        raise ApiError(404, "no_such_node", f"there is no node {_short(text)}", "see /v1/members")
    return found[0]


def _target(row: Mapping[str, Any], seen: Observation) -> Target:
    text = _checked(lambda: get(row, "backend", (), str))
    try:
        address, port = parse_endpoint(text)
    except ValueError as error:
        raise _bad(str(error), "as 10.0.0.5:8080 or [fd00::5]:8080") from None
    if not port:
        raise _bad(f"{_short(text)} has no port", "as 10.0.0.5:8080 or [fd00::5]:8080")
    backend = BackendKey(address, port)
    asked = _checked(lambda: get(row, "vip", (), str, ""))
    vip = find_vip(asked, seen) if asked else None
    behind = [
        key for key, resolution in seen.desired.resolutions.items() if any(b.key == backend for b in resolution.vip.backends)
    ]
    missing = vip not in behind if vip is not None else not behind
    # What is marked may have gone; then its mark can still be taken back.
    if missing and (vip, backend) not in (seen.backend_drains.keys() | seen.weights.keys()):
        where = "any VIP" if vip is None else str(vip)
        raise ApiError(404, "no_such_backend", f"there is no backend {backend} behind {where}", "see /v1/backends")
    return vip, backend


def find_vip(text: str, seen: Observation) -> VIPKey:
    """The VIP of that key, as ``/v1/backends`` writes it; or the one that has that address and port.

    Raises:
        ApiError: There is none.
    """
    try:
        named = VIPKey.parse(text)
    except InvalidVIPError:
        named = None
    if named is not None and (
        named in seen.desired.resolutions or any(named == key for key, _ in (*seen.backend_drains, *seen.weights))
    ):
        return named
    for key, resolution in seen.desired.resolutions.items():
        if any(text == service_text(service.key) for service, _ in resolution.services):
            return key
    raise ApiError(404, "no_such_vip", f"there is no VIP {_short(text)}", "see /v1/backends; as tcp://11.0.0.1:80")


def _short(text: str) -> str:
    return json.dumps(text[:_TEXT_MAX])
