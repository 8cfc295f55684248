"""Options of the Mesos source: what cannot be is refused before anything runs, and nothing shows a secret."""

from __future__ import annotations

from typing import Any

import pytest

from pyminuteman.errors import ConfigurationError
from pyminuteman.sources.mesos import MesosOptions, MesosSource


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
        ({"withdraw_after_seconds": 3.0, "poll_seconds": 2.0, "retry_most_seconds": 60.0}, "from two polls, 4"),
    ],
)
def test_options_that_cannot_be_are_refused_before_anything_runs(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigurationError, match=r".+") as caught:
        MesosSource(options(*changes.pop("urls", ("http://127.0.0.1:5051",)), **changes))
    assert reason in str(caught.value)


def test_the_name_of_a_source_has_no_secrets() -> None:
    assert MesosSource(options("http://user:secret@h:5051/x?token=t")).name == "mesos:http://h:5051/x"
