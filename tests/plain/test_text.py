"""Texts to plain data: what is wrong is named by its line."""

from __future__ import annotations

import pytest

from pyminuteman.errors import ConfigurationError
from pyminuteman.plain.text import decode, key_with_line, lines_of, parse


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("toml", "a = 1\nx = ", "F: line 2: Invalid value"),
        ("toml", "a = 1\n[[service]", "F: line 2"),
        ("toml", 'a = """', "F: line 1"),
        ("toml", "a = " + "[" * 50_000, "F: it is nested too deeply"),
        ("toml", "a = " + "1" * 5_000, "F: Exceeds the limit"),
        ("toml", "a = 2000-02-30", "F: line 1, column 5: Invalid date or datetime"),
        ("toml", "a = 1\na = 2", "F: line 2"),
        ("json", '{"a":\n[}', "F: line 2, column 2: Expecting value"),
        ("json", "", "F: line 1, column 1: Expecting value"),
        ("json", '{"a": 1, "b": 2, "a": 3}', "F: the key 'a' is there twice in one object"),
        ("json", "[" * 200_000, "F: it is nested too deeply"),
        ("json", "1" * 5_000, "F: Exceeds the limit"),
    ],
)
def test_what_cannot_be_read(kind: str, text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse(kind, text, "F")
    assert str(caught.value).startswith(said)


def test_what_can() -> None:
    assert parse("toml", "a = 1", "F") == parse("json", '{"a": 1}', "F") == {"a": 1}
    assert decode(b"\xef\xbb\xbfa", "F") == "a"


@pytest.mark.parametrize(
    ("raw", "said"), [(b"a\n\xff", "F: line 2: this is not UTF-8"), (b"a\n\n\0", "F: line 3: this is not text")]
)
def test_what_is_no_text(raw: bytes, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        decode(raw, "F")
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(("kind", "text"), [("toml", "\n[[a]]\nb = 1\n"), ("json", '{\n"a": [\n{"b": 1}]}')])
def test_lines_of_places(kind: str, text: str) -> None:
    lines = lines_of(kind, text)
    assert key_with_line(lines, ("a", 0, "b")) == "line 3 (a[0].b)"
    assert key_with_line(lines, ("zz",)) == "zz"
    assert key_with_line(lines, ()) == ""
