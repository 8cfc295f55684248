"""The testing node's clients: requests at set times, each on a connection of its own.

``python -m benchmarks.headline.client EXPERIMENT`` (JSON) waits until the VIP answers, prints ``ready``, and begins when it reads a line.
At the end it prints one line of JSON: when it began (CLOCK_REALTIME) and a row for each request.

One thread and one selector stand for all schedules. A request begins when its time has come, whatever became of those before it (an open
loop): one that hangs holds up nobody, so none is left out where they are slowest. Times are counted from when a request was meant to begin;
when it really did is in the row, too.
"""

from __future__ import annotations

import errno
import heapq
import json
import selectors
import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from benchmarks.headline.experiment import PORT, VIP, Experiment

WARM_UP_SECONDS = 60.0
REQUEST = b"GET / HTTP/1.0\r\n\r\n"
OUTCOMES = {errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset", errno.EHOSTUNREACH: "unreachable"}


@dataclass(slots=True)
class Request:
    """One of them. Times are seconds after the beginning; `connected` and `ended` are None until they are."""

    schedule: int
    meant: float
    begun: float
    connected: float | None = None
    ended: float | None = None
    outcome: str = ""
    by: str = ""
    answer: bytes = b""

    def row(self) -> list[Any]:
        """As the results have it."""

        def rounded(seconds: float | None) -> float | None:
            return None if seconds is None else round(seconds, 4)

        return [*map(rounded, (self.meant, self.begun, self.connected, self.ended)), self.outcome, self.by]


class Clients:
    """All of them."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment
        self._selector = selectors.DefaultSelector()
        self._open: dict[int, socket.socket] = {}
        self._deadlines: list[tuple[float, int]] = []
        self._requests: list[Request] = []
        self._began = 0.0

    def run(self) -> dict[str, Any]:
        """Until the last request has ended."""
        begins = self._experiment.begins()
        began_ns = time.time_ns()
        self._began = time.perf_counter()
        at = 0
        while at < len(begins) or self._open:
            now = self._now()
            while at < len(begins) and begins[at][0] <= now:
                meant, schedule = begins[at]
                self._begin(Request(schedule, meant, now))
                at += 1
                now = self._now()
            while self._deadlines and self._deadlines[0][0] <= now:
                number = heapq.heappop(self._deadlines)[1]
                if number in self._open:
                    self._end(number, "timeout")
            waits = [begins[at][0]] if at < len(begins) else []
            waits += [self._deadlines[0][0]] if self._deadlines else []
            for key, _ in self._selector.select(max(0.0, min(waits) - self._now()) if waits else 0.0):
                self._go_on(key.data)
        return {"began_ns": began_ns, "requests": [request.row() for request in self._requests]}

    def _now(self) -> float:
        return time.perf_counter() - self._began

    def _begin(self, request: Request) -> None:
        number = len(self._requests)
        self._requests.append(request)
        connection = self._open[number] = socket.socket()
        connection.setblocking(False)
        code = connection.connect_ex((VIP, PORT))
        if code not in {0, errno.EINPROGRESS}:
            self._end(number, outcome_of(code))
            return
        self._selector.register(connection, selectors.EVENT_WRITE, number)
        heapq.heappush(self._deadlines, (request.begun + self._experiment.patience_seconds, number))

    def _go_on(self, number: int) -> None:
        request, connection = self._requests[number], self._open[number]
        try:
            if request.connected is None:
                code = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                if code:
                    self._end(number, outcome_of(code))
                    return
                request.connected = self._now()
                connection.send(REQUEST)
                self._selector.modify(connection, selectors.EVENT_READ, number)
                return
            data = connection.recv(4096)
        except OSError as error:
            self._end(number, outcome_of(error.errno))
            return
        request.answer += data
        if not data:
            self._end(number, "ok" if request.answer.startswith(b"HTTP/1.0 200 ") else "cut off")

    def _end(self, number: int, outcome: str) -> None:
        request = self._requests[number]
        request.ended, request.outcome = self._now(), outcome
        request.by = request.answer.rpartition(b"\n")[2].decode() if outcome == "ok" else ""
        connection = self._open.pop(number)
        if connection in self._selector.get_map():
            self._selector.unregister(connection)
        connection.close()


def outcome_of(code: int | None) -> str:
    """In a word."""
    return OUTCOMES.get(code or 0, errno.errorcode.get(code or 0, "error"))


def wait_until_answered() -> None:
    """What the host needs for a VIP comes a moment behind its table."""
    end = time.perf_counter() + WARM_UP_SECONDS
    while True:
        try:
            with socket.create_connection((VIP, PORT), timeout=1.0) as connection:
                connection.sendall(REQUEST)
                if connection.recv(4096):
                    return
        except OSError as error:
            if time.perf_counter() > end:
                raise TimeoutError(f"the VIP does not answer: {error}") from None
            time.sleep(0.05)


def main(text: str) -> None:
    clients = Clients(Experiment.of(json.loads(text)))
    wait_until_answered()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps(clients.run(), separators=(",", ":")), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
