"""Options of the Marathon source: what cannot be is refused before anything runs, and nothing shows a secret."""

from __future__ import annotations

from typing import Any

import pytest

from pyminuteman.errors import ConfigurationError
from pyminuteman.sources.marathon import MarathonOptions, MarathonSource


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"urls": ()}, "at least one URL"),
        ({"urls": ("ftp://a",)}, "is not a URL"),
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
