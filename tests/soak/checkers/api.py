"""The API of a node that is not disturbed answers, and soon."""

from __future__ import annotations

from tests.soak.checkers import Finding


class ApiAnswers:
    """Args: bound_seconds: For an answer."""

    def __init__(self, bound_seconds: float) -> None:
        self.bound_seconds = bound_seconds
        self.asked = 0
        self.worst_seconds = 0.0

    def answered(self, node: int, path: str, seconds: float, error: str = "") -> list[Finding]:
        """A node that was not disturbed meanwhile answered, or did not."""
        self.asked += 1
        self.worst_seconds = max(self.worst_seconds, seconds)
        if error:
            return [Finding("api", node, f"{path} failed after {seconds:.2f} s: {error}")]
        if seconds > self.bound_seconds:
            return [Finding("api", node, f"{path} took {seconds:.2f} s; {self.bound_seconds:g} are allowed")]
        return []
