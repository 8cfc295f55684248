"""The OpenAPI document against the server: schemathesis makes requests that it allows, and others that it does not."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest
import schemathesis
import trio
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from pyminuteman.addresses import Endpoint
from pyminuteman.daemon.api import ApiOptions, open_api
from pyminuteman.daemon.api.openapi import document
from tests.daemon.api.double import Double, unix_api

TOKEN = "schemathesis-is-in-here"  # noqa: S105
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    unsupported_method,
]


def test_every_route_is_documented(tmp_path: Path) -> None:
    told = {(path, method.upper()) for path, operations in document()["paths"].items() for method in operations}
    found: set[tuple[str, str]] = set()

    async def look() -> None:
        async with unix_api(tmp_path, Double()) as (_, api):
            found.update((route.path, method) for route in api.routes for method in route.methods - {"HEAD"})

    trio.run(look)
    assert {row for row in found if not row[0].startswith("/web") and row[0] != "/"} == told


def test_every_operation_has_a_name_and_says_what_it_is_for() -> None:
    operations = [operation for row in document()["paths"].values() for operation in row.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] and "200" in operation["responses"] for operation in operations)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server on loopback, in a thread of its own: schemathesis does not know trio."""
    token_file = tmp_path_factory.mktemp("api") / "tokens"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    answers: Queue[Any] = Queue()

    async def serve() -> None:
        double = Double()
        double.events.add("member_up", "somebody")
        options = ApiOptions(socket=None, tcp=Endpoint("127.0.0.1", 0), token_file=token_file)
        async with open_api(double, options) as api:
            end = trio.Event()
            answers.put((api.tcp, trio.lowlevel.current_trio_token(), end))
            await end.wait()

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    at, token, end = answers.get(timeout=10)
    yield f"http://{at}"
    token.run_sync_soon(end.set)
    thread.join(timeout=10)
    assert not thread.is_alive()


schema = schemathesis.openapi.from_dict(document()).exclude(path="/v1/events")


@schema.parametrize()
@settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.generate], suppress_health_check=list(HealthCheck))
def test_the_server_does_as_the_document_says(case: schemathesis.Case, served: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}", "X-Minuteman": "1"}
    case.call_and_validate(base_url=served, headers=headers, checks=CHECKS, timeout=5)


@pytest.mark.parametrize("query", [{"format": "json"}, {"format": "json", "since": 0}, {"format": "json", "since": 2**63 - 1}])
def test_the_list_of_events_is_as_the_document_says(query: dict[str, object], served: str) -> None:
    """The stream has no end, so that schemathesis would wait for one."""
    case = schemathesis.openapi.from_dict(document())["/v1/events"]["GET"].Case(query=query)
    case.call_and_validate(base_url=served, headers={"Authorization": f"Bearer {TOKEN}"}, checks=CHECKS[:-2], timeout=5)
