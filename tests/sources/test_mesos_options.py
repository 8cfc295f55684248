"""Options of the Mesos source: what cannot be is refused before anything runs, and nothing shows a secret."""

from __future__ import annotations

from typing import Any

import pytest

from pyminuteman.errors import ConfigurationError
from pyminuteman.http_client import HttpOptions
from pyminuteman.sources.mesos import MesosMode, MesosOptions, MesosSource
from pyminuteman.sources.options import parse_source


def options(*urls: str, **changes: Any) -> MesosOptions:
    return MesosOptions(**{"urls": urls, "poll_seconds": 0.02, "retry_most_seconds": 0.1, "deadline_seconds": 5.0} | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"urls": ()}, "at least one URL"),
        ({"urls": ("10.0.0.1:5051",)}, "is not a URL"),
        ({"urls": ("http://a:5050", "http://a:5050/")}, "names one server twice"),
        ({"poll_seconds": 0.0}, "poll_seconds: 0.0 is not a time"),
        ({"deadline_seconds": float("nan")}, "deadline_seconds: nan is not a time"),
        ({"retry_most_seconds": 1.0, "poll_seconds": 2.0}, "is less than the 2 s between polls"),
        ({"agent": "agent.example"}, "'agent.example' is not an IP address"),
        ({"withdraw_after_seconds": 3.0, "poll_seconds": 2.0, "retry_most_seconds": 60.0}, "from two polls, 4"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_runs(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=r".+") as caught:
        MesosSource(options(*changes.pop("urls", ("http://127.0.0.1:5051",)), **changes))
    assert reason in str(caught.value)


def test_the_name_of_a_source_has_no_secrets() -> None:
    assert MesosSource(options("http://user:secret@h:5051/x?token=t")).name == "mesos:http://h:5051/x"


def test_what_people_write_comes_to_the_options_it_names() -> None:
    source = parse_source("mesos:http://127.0.0.1:5051")
    assert isinstance(source, MesosSource)
    assert source.options == MesosOptions(urls=("http://127.0.0.1:5051",), http=HttpOptions(token_scheme="token="))  # noqa: S106
    source = parse_source(
        "mesos:http://a:5050,http://b:5050?mode=subscribe&poll=1&retry-most=9&deadline=5&withdraw-after=60&agent=10.0.0.1&legacy=yes&ipv6=no"
    )
    assert isinstance(source, MesosSource)
    assert source.name == "mesos:http://a:5050,http://b:5050"
    assert source.options == MesosOptions(
        urls=("http://a:5050", "http://b:5050"),
        mode=MesosMode.SUBSCRIBE,
        http=HttpOptions(token_scheme="token="),  # noqa: S106 - no secret
        poll_seconds=1.0,
        retry_most_seconds=9.0,
        deadline_seconds=5.0,
        withdraw_after_seconds=60.0,
        agent="10.0.0.1",
        legacy=True,
        ipv6=False,
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("mesos:http://a:5050?mode=push", "is none of state, operator, subscribe"),
        ("mesos:http://a:5050,", "is not a URL"),
        ("mesos:http://a:5050?pol=1", "did you mean 'poll'?"),
        ("mesos:http://a:5050?poll=4&withdraw-after=5", "from two polls, 8"),
    ],
)
def test_what_people_may_mistype_is_refused_with_what_is_accepted(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_source(text)
    assert reason in str(caught.value)
