"""What each sender has sent before: a sliding window of counters, and a bounded number of windows.

Pure. The window is that of RFC 6479 (the anti-replay of IPsec and WireGuard): a number that is newer moves it, one within is
accepted once, one behind it never. Python's integers are the bitmap.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import ClassVar, Final

__all__ = ["WINDOW", "ReplayWindow", "ReplayWindows"]

WINDOW: Final = 1024
"""Counters a window spans. UDP reorders by a few; a burst to others in between may be hundreds."""


class ReplayWindow:
    """The counters seen from one sender, of the newest :attr:`span`. Bit ``n`` of the bitmap stands for the highest less ``n``."""

    __slots__ = ("_highest", "_seen")
    span: ClassVar[int] = WINDOW
    _mask: ClassVar[int] = (1 << WINDOW) - 1

    def __init_subclass__(cls) -> None:
        """A subclass may have another span."""
        cls._mask = (1 << cls.span) - 1

    def __init__(self) -> None:
        self._highest = -1
        self._seen = 0

    def refusal(self, counter: int) -> str | None:
        """Why a counter is refused: ``"replayed"``, ``"stale"`` (too far behind to tell), or None when it is new."""
        behind = self._highest - counter
        if behind < 0:
            return None
        if behind >= self.span:
            return "stale"
        return "replayed" if self._seen >> behind & 1 else None

    def add(self, counter: int) -> None:
        """Note that a counter which is not refused has been seen. Only once what it came with has been authenticated."""
        ahead = counter - self._highest
        if ahead > 0:
            self._seen = (self._seen << ahead | 1) & self._mask if ahead < self.span else 1
            self._highest = counter
        else:
            self._seen |= 1 << -ahead


class ReplayWindows:
    """Windows by sender; beyond ``most`` of them, that of the sender not heard for longest is forgotten.

    Only authenticated senders get one, so nobody without the key can have one forgotten.
    """

    __slots__ = ("_most", "_windows", "forgotten")

    def __init__(self, most: int) -> None:
        self._most = most
        self._windows: OrderedDict[bytes, ReplayWindow] = OrderedDict()
        self.forgotten = 0
        """How many windows went. What their senders had sent until then could be replayed once."""

    def __len__(self) -> int:
        return len(self._windows)

    def refusal(self, sender: bytes, counter: int) -> str | None:
        """As :meth:`ReplayWindow.refusal`; changes nothing."""
        window = self._windows.get(sender)
        return None if window is None else window.refusal(counter)

    def add(self, sender: bytes, counter: int) -> None:
        """As :meth:`ReplayWindow.add`."""
        window = self._windows.get(sender)
        if window is None:
            window = self._windows[sender] = ReplayWindow()
            if len(self._windows) > self._most:
                self._windows.popitem(last=False)
                self.forgotten += 1
        else:
            self._windows.move_to_end(sender)
        window.add(counter)
