"""The root of the errors."""

from __future__ import annotations

import pytest

from pyminuteman.errors import ConfigurationError, MinutemanError


@pytest.mark.parametrize(
    ("path", "key", "text"),
    [("a.rules", "line 3", "a.rules: line 3: wrong"), (None, "line 3", "line 3: wrong"), (None, "", "wrong")],
)
def test_an_error_of_configuration_says_where_and_what(path: str | None, key: str, text: str) -> None:
    error = ConfigurationError(path, key, "wrong")
    assert str(error) == text
    assert (error.path, error.key, error.reason) == (path, key, "wrong")
    assert isinstance(error, MinutemanError)
    assert isinstance(error, ValueError)
