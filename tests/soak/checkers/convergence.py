"""Within a deadline after the last disturbance, every undisturbed node's kernel is as it should be."""

from __future__ import annotations

from collections.abc import Mapping

from tests.soak.checkers import Finding


class Convergence:
    """Args: deadline_seconds: After the last disturbance."""

    def __init__(self, deadline_seconds: float) -> None:
        self.deadline_seconds = deadline_seconds
        self.times: list[float] = []

    def look(self, seconds: float, differences: Mapping[int, str]) -> tuple[bool, list[Finding]]:
        """Whether that is over, and what there is to find.

        Args:
            seconds: Since the last disturbance.
            differences: In what way each node's kernel is not as it should be; empty where it is.
        """
        wrong = {node: text for node, text in differences.items() if text}
        if not wrong:
            self.times.append(seconds)
            return True, []
        if seconds <= self.deadline_seconds:
            return False, []
        late = f"after {seconds:.1f} s, and {self.deadline_seconds:g} s are allowed"
        return True, [Finding("convergence", node, f"{late}: {text}") for node, text in wrong.items()]

    @property
    def worst_seconds(self) -> float:
        """The longest that it took."""
        return max(self.times, default=0.0)
