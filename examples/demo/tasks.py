"""The tasks that answer: sockets in the nodes' namespaces, all in one process (:mod:`pyminuteman.testing.answerers`)."""

from __future__ import annotations

import json
import subprocess
import sys
from types import TracebackType
from typing import IO, Any, Final, Self, cast

PORT: Final = 8000


class Tasks:
    """None runs yet. Leaving the context ends them all."""

    def __init__(self) -> None:
        """Start the process."""
        command = [sys.executable, "-m", "pyminuteman.testing.answerers"]
        self._process: Final = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._orders, self._answers = cast("IO[bytes]", self._process.stdin), cast("IO[bytes]", self._process.stdout)

    def __enter__(self) -> Self:
        """Nothing more to do."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Its input ends, and so does it."""
        self._orders.close()
        self._process.wait(10)
        self._answers.close()

    def start(self, name: str, netns: str, address: str) -> None:
        """One more, that answers each request with its name."""
        self._ask(listen=name, netns=netns, at=[[address, PORT]])

    def end(self, name: str) -> int:
        """Kill it; how many requests it has answered, in all its lives."""
        return int(self._ask(close=name)["answered"])

    def _ask(self, **order: Any) -> dict[str, Any]:
        self._orders.write(json.dumps(order).encode() + b"\n")
        self._orders.flush()
        answer = self._answers.readline()
        if not answer:
            raise EOFError("the process of the tasks has ended")
        return cast("dict[str, Any]", json.loads(answer))
