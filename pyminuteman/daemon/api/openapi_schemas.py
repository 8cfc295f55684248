"""The shapes of the API, as JSON Schema: one for each object that an answer or a request is made of. Data, written by hand.

Objects may gain properties, so ``additionalProperties`` is left open for answers and closed for requests.
"""

from __future__ import annotations

from typing import Any, Final

__all__ = ["SCHEMAS"]

Schema = dict[str, Any]

_TEXT: Final[Schema] = {"type": "string"}
_COUNT: Final[Schema] = {"type": "integer", "minimum": 0}
_SECONDS: Final[Schema] = {"type": "number", "minimum": 0}
_TIME: Final[Schema] = {"type": "string", "format": "date-time"}
_BOOL: Final[Schema] = {"type": "boolean"}
_PORT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 65535}
_ID: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_DIGEST: Final[Schema] = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
_LABEL: Final[Schema] = {
    **_TEXT,
    "description": "What other answers call a node: its name, and where several have it the first digits of its id as well.",
}
_WEIGHT: Final[Schema] = {"type": "integer", "minimum": 0, "maximum": 65535}


def _or_null(schema: Schema) -> Schema:
    return {"oneOf": [schema, {"type": "null"}]}


def _list(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(description: str, /, **properties: Schema) -> Schema:
    """An answer's object: all of these are always there."""
    return {"type": "object", "description": description, "required": list(properties), "properties": properties}


def _versioned(description: str, /, **properties: Schema) -> Schema:
    return _object(description, version={"type": "integer", "const": 1}, **properties)


def _request(description: str, required: tuple[str, ...], /, **properties: Schema) -> Schema:
    return {
        "type": "object",
        "description": description,
        "required": list(required),
        "properties": properties,
        "additionalProperties": False,
    }


_RATES: Final = _object(
    "The kernel's own estimates, a second: smoothed over some eight seconds.",
    connections=_COUNT,
    in_bytes=_COUNT,
    out_bytes=_COUNT,
    in_packets=_COUNT,
    out_packets=_COUNT,
)
_TOTALS: Final[dict[str, Schema]] = dict.fromkeys(
    ("connections_total", "in_bytes_total", "out_bytes_total", "in_packets_total", "out_packets_total"), _COUNT
)
_MEMBER_STATUS: Final[Schema] = {"type": "string", "enum": ["alive", "suspect", "down", "left"]}
_REASON: Final[Schema] = {
    "type": "string",
    "maxLength": 500,
    "description": "Why; shown to everybody. On one line.",
    "pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$",
}
_BACKEND_TEXT: Final[Schema] = {
    "type": "string",
    "description": "Address and port.",
    "examples": ["10.0.0.5:8080", "[fd00::5]:8080"],
}
_VIP_TEXT: Final[Schema] = _or_null(
    {"type": "string", "description": "Behind this VIP only; null for all.", "examples": ["tcp://11.0.0.1:80"]}
)

SCHEMAS: Final[dict[str, Schema]] = {
    "Error": _object(
        "Why a request was not carried out.",
        error=_object("What is wrong.", code={**_TEXT, "description": "For programs."}, message=_TEXT, hint=_TEXT),
    ),
    "Mark": _object("What an operator laid down.", by=_TEXT, at=_TIME, reason=_TEXT),
    "Status": _versioned(
        "The node.",
        software=_TEXT,
        time=_TIME,
        node=_object(
            "This node.",
            id=_ID,
            name=_TEXT,
            endpoint=_TEXT,
            addresses=_list(_TEXT),
            epoch=_COUNT,
            started_at=_TIME,
        ),
        cluster=_TEXT,
        state={
            "type": "string",
            "enum": ["waiting", "running", "held", "degraded"],
            "description": "waiting for the first sync; held: a plan is held back that would take away too much; degraded: see problems",
        },
        problems=_list(_object("What to look at.", kind=_TEXT, text=_TEXT)),
        sources=_list(_ref("Source")),
        store=_object("The replicated store.", engine=_TEXT, ready=_BOOL, problem=_TEXT, entries=_COUNT),
        members=_object("How many, this node among the alive.", alive=_COUNT, suspect=_COUNT, down=_COUNT, left=_COUNT),
        kernel=_list(_ref("Kernel")),
        host=_list(_object("A step of the host's set-up.", step=_TEXT, ok=_BOOL, reason=_TEXT)),
        faults=_object(
            "What nodes say that cannot be read, or does not count.",
            counts={"type": "object", "additionalProperties": _COUNT, "description": "By kind: claim, mark, health."},
            shown=_list(_object("One of them, 100 of a kind at most.", kind=_TEXT, node=_TEXT, key=_TEXT, reason=_TEXT)),
        ),
        untold=_list(_object("A VIP of this node of which the store does not take all; 100 at most.", vip=_TEXT, reason=_TEXT)),
    ),
    "Source": _object(
        "Where VIPs come from.",
        name=_TEXT,
        place=_TEXT,
        state={"type": "string", "enum": ["waiting", "good", "stale", "failing"]},
        age_seconds=_or_null(_SECONDS),
        reason=_TEXT,
        vips=_COUNT,
        problems=_list(_object("Something that was left out.", where=_TEXT, reason=_TEXT)),
    ),
    "Kernel": _object(
        "The IPVS table of one network namespace.",
        namespace={**_TEXT, "description": "Empty for the host's own."},
        services=_COUNT,
        destinations=_COUNT,
        last_sync_at=_or_null(_TIME),
        last_sync_seconds=_or_null(_SECONDS),
        syncs=_COUNT,
        draining=_COUNT,
        held_back=_or_null(
            _object("What is held back, and which services would lose it.", id=_DIGEST, text=_TEXT, services=_list(_TEXT))
        ),
        foreign=_list(_TEXT),
        error=_TEXT,
    ),
    "Members": _versioned("All members, this node first.", members=_list(_ref("Member"))),
    "Member": _object(
        "A member.",
        id=_ID,
        name={**_TEXT, "description": "As it calls itself; several may have one name."},
        label=_LABEL,
        status=_MEMBER_STATUS,
        since=_TIME,
        endpoint=_TEXT,
        addresses=_list(_TEXT),
        tags={"type": "object", "additionalProperties": _TEXT},
        keys=_list(_TEXT),
        epoch=_COUNT,
        neighbours=_list(_ID),
        drained=_BOOL,
        drain=_or_null(_ref("Mark")),
        backends=_COUNT,
        me=_BOOL,
    ),
    "Topology": _versioned(
        "The graph of the cluster.",
        me=_ID,
        nodes=_list(
            _object("A node.", id=_ID, name=_TEXT, label=_LABEL, status=_MEMBER_STATUS, backends=_COUNT, drained=_BOOL)
        ),
        links=_list({"type": "array", "items": _ID, "minItems": 2, "maxItems": 2}),
    ),
    "Backends": _versioned(
        "All VIPs with their backends.", vips=_list(_ref("VIP")), refused=_list(_ref("Refusal")), conflicts=_list(_TEXT)
    ),
    "VIP": _object(
        "A VIP.",
        vip={**_TEXT, "description": "What requests name it by: tcp://11.0.0.1:80, or tcp:///foo@marathon:80 of a named one."},
        name={**_TEXT, "description": "The DNS name of a named VIP, without its zone."},
        addresses=_list(_TEXT),
        port=_PORT,
        protocol=_TEXT,
        scheduler=_TEXT,
        principal=_TEXT,
        sources=_list(_TEXT),
        claimed_by=_list(_LABEL),
        failed_open=_list(_TEXT),
        backends=_list(_ref("Backend")),
    ),
    "Backend": _object(
        "A backend of a VIP.",
        address=_TEXT,
        port=_PORT,
        agent={**_TEXT, "description": "Address of the host that it runs on."},
        node=_LABEL,
        weight={**_WEIGHT, "description": "As the source has it."},
        effective_weight={**_COUNT, "description": "In the kernel."},
        state={
            "type": "string",
            "enum": ["in", "held", "out"],
            "description": "in: it takes connections; held: it keeps those it has; out: it is not in the kernel",
        },
        reason={**_TEXT, "description": "Why it is not in."},
        detail=_TEXT,
        health=_or_null(_object("What checks say.", healthy=_BOOL, reason=_TEXT, checked_at=_or_null(_TIME))),
        drain=_or_null(_ref("Mark")),
        weight_set=_or_null(_object("A weight that an operator set.", weight=_WEIGHT, by=_TEXT, at=_TIME, reason=_TEXT)),
        connections=_or_null(_object("In the kernel.", active=_COUNT, inactive=_COUNT)),
        outcomes=_or_null(
            _object("How connections from this host ended.", opened=_COUNT, failed=_COUNT, latency_ms=_or_null(_SECONDS))
        ),
    ),
    "Refusal": _object(
        "A claim, or a backend of one, that does not count.",
        vip=_TEXT,
        claimant=_object("On whose behalf.", source=_TEXT, principal=_TEXT),
        node=_LABEL,
        reason=_TEXT,
        detail=_TEXT,
        backend=_or_null(_TEXT),
    ),
    "LegacyVIPs": _list(
        _object(
            "As dcos-net told them.",
            vip={**_TEXT, "description": "Full name or address, and port. An IPv6 address has no brackets."},
            protocol=_TEXT,
            backend=_list(_object("Where it leads.", ip=_TEXT, port=_PORT)),
        )
    ),
    "Statistics": _versioned(
        "What goes through the kernel's services.",
        time=_TIME,
        services=_list(
            _object(
                "A service.",
                service={**_TEXT, "examples": ["tcp://11.0.0.1:80", "fwmark://7"]},
                vip={**_TEXT, "description": "Which VIP it is for; empty for none."},
                **_TOTALS,
                rates=_RATES,
                backends=_list(
                    _object(
                        "A destination of it.",
                        address=_TEXT,
                        port=_PORT,
                        weight=_COUNT,
                        active=_COUNT,
                        inactive=_COUNT,
                        **_TOTALS,
                        rates=_RATES,
                    )
                ),
            )
        ),
    ),
    "Events": _versioned(
        "Events, the oldest first.",
        life={**_DIGEST, "description": "Another one after each start."},
        events=_list(_ref("Event")),
        oldest=_COUNT,
        newest=_COUNT,
    ),
    "Event": _object("What happened.", id=_COUNT, time=_TIME, kind=_TEXT, text=_TEXT, data={"type": "object"}),
    "Config": _versioned("The configuration, without secrets.", config={"type": "object"}),
    "Done": _versioned("It is on its way.", done={"type": "boolean", "const": True}),
    "Reloaded": _versioned(
        "The configuration was read anew.",
        done={"type": "boolean", "const": True},
        changes=_list({**_TEXT, "description": "What counts now."}),
        restart=_list({**_TEXT, "description": "What differs as well, and counts after a restart."}),
        remarks=_list({**_TEXT, "description": "What is odd, and yet no error."}),
    ),
    "Pushed": _versioned("The source says this now.", done={"type": "boolean", "const": True}, changed=_BOOL, vips=_COUNT),
    "DrainRequest": {
        "oneOf": [
            _request(
                "All backends of a node.",
                ("node",),
                node={**_TEXT, "minLength": 1, "description": "Name, label or id."},
                reason=_REASON,
            ),
            _request("One backend.", ("backend",), backend=_BACKEND_TEXT, vip=_VIP_TEXT, reason=_REASON),
        ]
    },
    "WeightRequest": _request(
        "The weight of a backend.",
        ("backend", "weight"),
        backend=_BACKEND_TEXT,
        vip=_VIP_TEXT,
        weight=_or_null({**_WEIGHT, "description": "null leaves it to the source."}),
        reason=_REASON,
    ),
    "ConfirmRequest": _request(
        "What, and where.",
        ("id",),
        id={
            **_DIGEST,
            "description": "held_back.id of the namespace in /v1/status. If something else is held back by now: 409.",
        },
        namespace={**_TEXT, "description": "Empty, the default, is the host's own."},
    ),
    "Nothing": _request("Nothing.", ()),
    "Document": {
        "type": "object",
        "description": "VIPs as a file has them: see docs/sources/file.md. All of it is checked, and all of it counts or none.",
        "properties": {
            "version": {"type": "integer", "const": 1},
            "vip": {"type": "array", "items": {"type": "object"}, "maxItems": 100000},
        },
        "additionalProperties": False,
    },
}
"""By name."""
