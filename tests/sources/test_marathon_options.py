"""Options of the Marathon source: what cannot be is refused before anything runs, and nothing shows a secret."""

from __future__ import annotations

from typing import Any

import pytest

from pyminuteman.errors import ConfigurationError
from pyminuteman.http_client import HttpOptions
from pyminuteman.sources.marathon import MarathonOptions, MarathonSource
from pyminuteman.sources.options import parse_source


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"urls": ()}, "at least one URL"),
        ({"urls": ("ftp://a",)}, "is not a URL"),
        ({"agent": "agent.example"}, "'agent.example' is not an IP address"),
        ({"framework": ""}, "framework: is empty"),
        ({"poll_seconds": -1.0}, "poll_seconds: -1.0 is not a time"),
        ({"retry_most_seconds": 1.0}, "is less than the 2 s between polls"),
        ({"withdraw_after_seconds": 59.0}, "from two polls, 60"),
        ({"withdraw_after_seconds": 1e6}, "up to 86400 seconds"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_runs(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=r".+") as caught:
        MarathonSource(MarathonOptions(**{"urls": ("http://127.0.0.1:8080",)} | changes))
    assert reason in str(caught.value)


def test_the_name_of_a_source_has_no_secrets() -> None:
    assert MarathonSource(MarathonOptions(urls=("http://user:secret@h:8080",))).name == "marathon:http://h:8080"


def test_what_people_write_comes_to_the_options_it_names() -> None:
    source = parse_source(
        "marathon:http://a:8080,http://b:8080?framework=mom&poll=9&unattached-poll=1&deadline=5&withdraw-after=60&legacy=yes&ipv6=no&agent=fd00::0:1"
    )
    assert isinstance(source, MarathonSource)
    assert source.options == MarathonOptions(
        urls=("http://a:8080", "http://b:8080"),
        framework="mom",
        http=HttpOptions(token_scheme="token="),  # noqa: S106 - no secret
        poll_seconds=9.0,
        unattached_poll_seconds=1.0,
        deadline_seconds=5.0,
        withdraw_after_seconds=60.0,
        agent="fd00::1",
        legacy=True,
        ipv6=False,
    )
