"""The demo's cluster of real daemons, while it runs: what it says, line by line, and where its web page is."""

from __future__ import annotations

import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["RunningDemo", "running_demo"]

_ROOT = Path(__file__).resolve().parents[2]
_SECONDS = 180.0


class RunningDemo:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.lines: list[str] = []
        self._process = process
        self._new: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def wait(self, words: str, seconds: float = _SECONDS) -> str:
        """The rest of the next line that has these words, what was before them left out."""
        deadline = time.perf_counter() + seconds
        while True:
            try:
                line = self._new.get(timeout=max(deadline - time.perf_counter(), 0.001))
            except queue.Empty:
                line = None
            assert line is not None, f"the demo did not say {words!r}: {self.lines}"
            self.lines.append(line)
            if words in line:
                return line.partition(words)[2].strip()

    def end(self) -> int:
        """As Ctrl-C does; its exit status."""
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(30)
        self._reader.join()
        return code

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._new.put(line.rstrip("\n"))
        self._new.put(None)


@contextmanager
def running_demo(*options: str) -> Iterator[RunningDemo]:
    command = [sys.executable, str(_ROOT / "examples/demo"), "--plain", *options]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield RunningDemo(process)
        finally:
            process.terminate()  # it takes all of its own along
