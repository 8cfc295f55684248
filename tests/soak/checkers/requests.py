"""No request of the steady client fails, but to a node that went out of reach, and within the time in which that is found out."""

from __future__ import annotations

from dataclasses import dataclass

from tests.soak.checkers import Finding


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was not answered.

    Attributes:
        started: When, in seconds of the soak's clock.
        ended: When it was given up.
        node: Which node's backend the kernel had chosen; None when that could not be found out.
        text: What went wrong.
    """

    started: float
    ended: float
    node: int | None
    text: str


@dataclass(frozen=True, slots=True)
class _Window:
    node: int
    begins: float
    ends: float


class RequestsServed:
    """Args: detection_seconds: From a link's end until no node sends anybody there any more."""

    def __init__(self, detection_seconds: float) -> None:
        self.detection_seconds = detection_seconds
        self.excused = 0
        self._windows: list[_Window] = []

    def out_of_reach(self, node: int, now: float) -> None:
        """Its link goes now."""
        self._windows.append(_Window(node, now, now + self.detection_seconds))

    def judge(self, failure: Failure) -> list[Finding]:
        """Whether it may be."""
        for window in self._windows:
            its_own = failure.node is None or failure.node == window.node
            if its_own and failure.started <= window.ends and failure.ended >= window.begins:
                self.excused += 1
                return []
        where = "whose backend is not known" if failure.node is None else f"to n{failure.node}"
        return [Finding("requests", failure.node, f"{failure.started:.1f} s: a request {where} failed: {failure.text}")]
