"""The OpenAPI 3.1 document of the API, written by hand as data: what is promised, and not what the code happens to do."""

from __future__ import annotations

from typing import Any, Final

from pyminuteman.daemon.api.openapi_schemas import SCHEMAS

__all__ = ["document"]

Plain = dict[str, Any]

_ERRORS: Final = {
    "400": "It does not say what it must.",
    "401": "Over TCP: a token or a certificate is needed.",
    "403": "Not for you to change, or not from where it was sent.",
    "404": "It is about something that is not there.",
    "405": "The method is not for this path.",
    "408": "The body came too slowly.",
    "409": "It cannot be done as things are.",
    "413": "The body is too large.",
    "415": "The body has to be JSON.",
    "421": "Over TCP: this host does not go by that name.",
    "422": "The document, or the configuration, is none that counts.",
    "431": "The headers are too large.",
    "500": "An error of ours.",
    "503": "Too much at a time, or it took too long.",
}
_READ_ERRORS: Final = ("400", "401", "403", "405", "421", "500", "503")
_WRITE_ERRORS: Final = ("400", "401", "403", "404", "405", "408", "409", "413", "415", "421", "500", "503")


def _errors(codes: tuple[str, ...]) -> Plain:
    body = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {code: {"description": _ERRORS[code], "content": body} for code in codes}


def _json(schema: str, description: str) -> Plain:
    return {"description": description, "content": {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}}


def _get(name: str, summary: str, schema: str) -> Plain:
    """A read route that has an ETag."""
    answer = _json(schema, "As it is now.")
    answer["headers"] = {"ETag": {"schema": {"type": "string"}, "description": "Send it back as If-None-Match."}}
    unchanged = {"description": "You have it already.", "headers": answer["headers"]}
    parameter = {"name": "If-None-Match", "in": "header", "required": False, "schema": {"type": "string"}}
    return {
        "get": {
            "operationId": name,
            "summary": summary,
            "parameters": [parameter],
            "responses": {"200": answer, "304": unchanged, **_errors(_READ_ERRORS)},
        }
    }


def _plain(name: str, summary: str, media_type: str, *, errors: tuple[str, ...] = _READ_ERRORS) -> Plain:
    answer = {"description": "As it is now.", "content": {media_type: {"schema": {"type": "string"}}}}
    return {"get": {"operationId": name, "summary": summary, "responses": {"200": answer, **_errors(errors)}}}


def _post(name: str, summary: str, request: str, answer: str = "Done", *, required: bool = True) -> Plain:
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{request}"}}}
    return {
        "post": {
            "operationId": name,
            "summary": summary,
            "requestBody": {"required": required, "content": content},
            "responses": {"200": _json(answer, "Done."), **_errors(_WRITE_ERRORS)},
        }
    }


def _events() -> Plain:
    number = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
    life = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
    place = {"type": "string", "pattern": "^([0-9a-f]{16}-)?[0-9]{1,18}$"}
    answer = {
        "description": "A stream that goes on, or with format=json a list.",
        "content": {
            "text/event-stream": {"schema": {"type": "string"}},
            "application/json": {"schema": {"$ref": "#/components/schemas/Events"}},
        },
    }
    return {
        "get": {
            "operationId": "events",
            "summary": "What happens, as it happens",
            "description": (
                "Each event has id (life and number, as Last-Event-ID takes it), event (its kind) and data (JSON as in the schema "
                "Event). The first, `hello`, says {life, id, oldest, newest}: which life of the daemon it is, and after which number the "
                "stream begins. With Last-Event-ID or since that is the number given, and 0 if it is of another life; without, the "
                "newest. An event `missed` has data {from, to}: numbers that are not kept any more; `bye` says that the daemon ends. "
                "Every 15 s a comment shows that the other end is there."
            ),
            "parameters": [
                {
                    "name": "format",
                    "in": "query",
                    "schema": {"type": "string", "enum": ["stream", "json"], "default": "stream"},
                },
                {"name": "since", "in": "query", "schema": number, "description": "Only events with a higher id."},
                {"name": "life", "in": "query", "schema": life, "description": "Of which life of the daemon since is."},
                {"name": "Last-Event-ID", "in": "header", "schema": place, "description": "As browsers send it."},
            ],
            "responses": {
                "200": answer,
                "304": {"description": "You have it already (format=json, If-None-Match)."},
                **_errors(_READ_ERRORS),
            },
        }
    }


def _push() -> Plain:
    path = _post("push", "Say all that a pushed source wants", "Document", "Pushed")
    operation = path.pop("post")
    operation["responses"].update(_errors(("422",)))
    operation["parameters"] = [
        {
            "name": "name",
            "in": "path",
            "required": True,
            "schema": {"type": "string", "minLength": 1, "pattern": "^[A-Za-z0-9_.-]+$"},
        }
    ]
    return {"put": operation}


def _reload() -> Plain:
    path = _post("reload", "Read the configuration anew", "Nothing", "Reloaded", required=False)
    path["post"]["responses"].update(_errors(("422",)))
    return path


def document() -> Plain:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "minuteman",
            "version": "1",
            "description": "The daemon of pyminuteman: the cluster and this node's part in it. See docs/reference/api.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": {
            "/healthz": _plain(
                "healthz", "Whether the daemon answers", "text/plain", errors=("403", "405", "421", "500", "503")
            ),
            "/metrics": _plain("metrics", "For Prometheus", "text/plain"),
            "/v1/status": _get("status", "The node, its sources, its kernel tables, its problems", "Status"),
            "/v1/members": _get("members", "All members", "Members"),
            "/v1/topology": _get("topology", "Nodes and links", "Topology"),
            "/v1/backends": _get("backends", "VIPs with their backends, and why one is out", "Backends"),
            "/v1/vips": _get("vips", "VIPs in the shape of dcos-net", "LegacyVIPs"),
            "/v1/statistics": _get("statistics", "Connections, packets and bytes", "Statistics"),
            "/v1/events": _events(),
            "/v1/config": _get("config", "The configuration, without secrets", "Config"),
            "/v1/openapi.json": _get("openapi", "This document", "OpenAPI"),
            "/v1/drain": _post("drain", "Take a node or a backend out of service, on all nodes", "DrainRequest"),
            "/v1/undrain": _post("undrain", "Put it back", "DrainRequest"),
            "/v1/weight": _post("weight", "Set a backend's weight, or leave it to its source", "WeightRequest"),
            "/v1/reload": _reload(),
            "/v1/confirm": _post("confirm", "Carry out what is held back", "ConfirmRequest"),
            "/v1/sources/{name}": _push(),
        },
        "components": {
            "schemas": {**SCHEMAS, "OpenAPI": {"type": "object", "required": ["openapi", "paths"]}},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Over TCP; a unix socket knows who asks."}
            },
        },
    }
