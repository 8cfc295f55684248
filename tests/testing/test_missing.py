"""What a test needs and is not there: a skip with its reason, and under CI a failure, so that no test is lost there without a word."""

from __future__ import annotations

import pytest

from tests.support.tools import missing, needs, tool


@pytest.mark.parametrize(("ci", "skipped"), [("", True), ("false", True), ("true", False), ("1", False)])
def test_ci_says_whether_it_is_a_skip(monkeypatch: pytest.MonkeyPatch, ci: str, *, skipped: bool) -> None:
    monkeypatch.setenv("CI", ci)
    mark = needs("no such thing").mark
    assert (mark.name, mark.args, mark.kwargs) == ("skipif", (skipped,), {"reason": "no such thing"})
    assert needs(None).mark.args == (False,)
    outcome = pytest.skip.Exception if skipped else pytest.fail.Exception
    with pytest.raises(outcome, match="missing: the moon"):
        missing("the moon")
    with pytest.raises(outcome, match=r"missing: nonesuch \(apt-get install a-package\)"):
        tool("nonesuch", "a-package")
