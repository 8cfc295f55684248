"""What is taken out of documents, and what counts as the answer that they show."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.documents import Step, answers_as_shown, steps

TEXT = """## What to do
```console
web1# cat > x <<'END'
web2# no prompt
END
web1# ls \\
    -l
total 0
...
web2# true
```

```sh
rm -rf /
```
"""


def test_commands_are_taken_with_their_machines_and_answers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(TEXT)
    assert steps(page) == [
        Step(3, "What to do", "web1", "cat > x <<'END'\nweb2# no prompt\nEND", ()),
        Step(6, "What to do", "web1", "ls \\\n    -l", ("total 0", "...")),
        Step(10, "What to do", "web2", "true", ()),
    ]


@pytest.mark.parametrize("text", ["```console\nls\n```\n", "```console\nweb1# ls\n"])
def test_what_cannot_be_carried_out_is_a_mistake(text: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    with pytest.raises(AssertionError, match=r"page\.md"):
        steps(page)


@pytest.mark.parametrize(
    ("shown", "answer", "fits"),
    [
        ((), "", True),
        ((), "anything\n", False),
        (("a  b",), "a b\n", True),
        (("a  b",), "a b", True),
        (("a b",), "ab\n", False),
        (("a ...",), "a 1 2\n", True),
        (("a ... c",), "a 1\nc\n", False),
        (("...",), "1\n2\n", True),
        (("...", "b"), "1\n2\nb\n", True),
        (("...", "b"), "1\n2\nb\nc\n", False),
        (("a.c",), "abc\n", False),
        (("  2 x",), "      2 x  \n", True),
    ],
)
def test_an_answer_is_compared_with_what_is_shown(shown: tuple[str, ...], answer: str, fits: bool) -> None:
    assert answers_as_shown(shown, answer) == fits
