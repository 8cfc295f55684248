"""Timers of one node: set, moved by being set again, fired in order.

Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from math import inf

from pyminuteman.membership.steps import Timer

__all__ = ["TimerHeap"]


class TimerHeap:
    """What is due when. Setting a timer that is set already moves it, earlier or later."""

    __slots__ = ("_counter", "_due", "_heap")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._due: dict[Timer, float] = {}
        self._counter = 0

    def __len__(self) -> int:
        return len(self._due)

    def set(self, timer: Timer, due: float) -> None:
        """Fire ``timer`` at ``due``."""
        self._due[timer] = due
        self._counter += 1
        heappush(self._heap, (due, self._counter, timer))

    @property
    def earliest(self) -> float:
        """A time before which surely nothing is due; cheaper than :meth:`first`, which is exact."""
        return self._heap[0][0] if self._heap else inf

    def first(self, fresh: Callable[[Timer, float], float | None]) -> float:
        """When the next timer is due that has something to do; infinity when none.

        Args:
            fresh: Given a timer and when it is due, when it will really have something to do: later, or never (None). So nobody
                wakes up just to find that a heartbeat came.
        """
        heap = self._heap
        while heap:
            due, _, timer = heap[0]
            if self._due.get(timer) != due:
                heappop(heap)
                continue
            later = fresh(timer, due)
            if later is None:
                heappop(heap)
                del self._due[timer]
            elif later > due:
                self._due[timer] = later
                self._counter += 1
                heapreplace(heap, (later, self._counter, timer))
            else:
                return due
        return inf

    def pop(self, upto: Callable[[Timer], float]) -> Iterator[tuple[Timer, float]]:
        """Take out, in order, what is due by ``upto(timer)``; timers set meanwhile are seen too."""
        heap = self._heap
        while heap:
            due, _, timer = heap[0]
            if self._due.get(timer) != due:
                heappop(heap)
                continue
            if due > upto(timer):
                return
            heappop(heap)
            del self._due[timer]
            yield timer, due

    def postpone(self, chosen: Callable[[Timer], bool], seconds: float) -> None:
        """Move the chosen timers later."""
        for timer, due in self._due.items():
            if chosen(timer):
                self._due[timer] = due + seconds
        order = {timer: counter for _, counter, timer in self._heap}
        self._heap[:] = [(due, order[timer], timer) for timer, due in self._due.items()]
        heapify(self._heap)
