"""`make soak`: boots a kernel that has IPVS, runs the soak in it, and shows what it says. See docs/soak.md."""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import threading
from pathlib import Path
from typing import Any, Final, TextIO

ROOT: Final = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from pyminuteman.testing.kernel_guest import CHANNEL, Guest, GuestUnavailableError, forwarded_environment  # noqa: E402
from tests.soak.report import summary_lines  # noqa: E402

_CHANNEL: Final = "PMM_SOAK_CHANNEL"
_FOUND, _UNAVAILABLE, _INTERRUPTED = 1, 69, 130  # 69: EX_UNAVAILABLE of sysexits.h
_MEMORY: Final = "3G"
_LEAST_NODES: Final = 5


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code: 0, 1 for findings, 69 where there is no kernel for it, 130 when it was interrupted."""
    parser = argparse.ArgumentParser(
        prog="soak", description="An hour of churn on a cluster of real daemons, with checkers on."
    )
    parser.add_argument("--minutes", type=float, default=60.0, help="of churn (default %(default)s)")
    parser.add_argument("--nodes", type=int, default=10, help="%(default)s by default; 5 or more")
    parser.add_argument("--seed", type=int, help="of the schedule; any, and printed, unless said")
    parser.add_argument(
        "--patience", type=float, default=1.0, help="all deadlines are so many times longer, on a machine that is busy"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there as JSON")
    parser.add_argument("--here", action="store_true", help="on this kernel, as root, which must have IPVS")
    options = parser.parse_args(arguments)
    if options.nodes < _LEAST_NODES:
        parser.error(f"a minority of fewer than {_LEAST_NODES} nodes is none")
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    if options.here:
        return _inside(options)
    return _outside(options)


def _outside(options: argparse.Namespace) -> int:
    inside = _Inside(options.json)
    command = [sys.executable, "-m", "tests.soak", "--here", "--seed", str(options.seed)]
    command += ["--minutes", str(options.minutes), "--nodes", str(options.nodes), "--patience", str(options.patience)]
    environment = forwarded_environment(PYTHONDONTWRITEBYTECODE="1", PYTHONUNBUFFERED="1", **{_CHANNEL: CHANNEL})
    limit = 900 * options.patience + 90 * options.minutes
    guest = Guest(command, mem=_MEMORY, rw=[], cwd=str(ROOT), env=environment, timeout=limit)

    def stop(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the second time at once
        _say("soak: stopping; once more for at once", to=sys.stderr)
        guest.send(b"stop\n")

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    _say(f"soak: {options.minutes:g} minutes on {options.nodes} daemons, seed {options.seed}; booting a guest kernel")
    try:
        code = guest.run(inside.feed)
    except GuestUnavailableError as error:
        _say(f"soak: {error}", to=sys.stderr)
        return _UNAVAILABLE
    except KeyboardInterrupt:
        return _INTERRUPTED
    if not inside.has_ended:
        why = f"it was not over after {limit:g} s" if guest.timed_out else f"the guest ended with {code}"
        _say(f"soak: FAILED: {why}, without a summary; seed {options.seed}", to=sys.stderr)
        _say(bytes(guest.console)[-4000:].decode(errors="replace"), to=sys.stderr)
        return _FOUND
    return code


class _Inside:
    """What the inside prints: lines for people, and at the end one of JSON, which is for `--json`."""

    def __init__(self, path: Path | None) -> None:
        self.has_ended = False
        self._path = path
        self._partial = b""

    def feed(self, data: bytes) -> None:
        """Take some of it."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            if not line.startswith(b"{"):
                _say(line.decode(errors="replace"))
                continue
            self.has_ended = True
            if self._path is not None:
                self._path.write_bytes(line + b"\n")


def _inside(options: argparse.Namespace) -> int:
    from tests.soak.soak import Options, Soak  # noqa: PLC0415 - the outside does without

    stop, interrupted = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        interrupted.set()
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    if channel := os.environ.get(_CHANNEL):
        threading.Thread(target=_listen, args=(channel, end), daemon=True).start()
    soak = Soak(Options(options.minutes, options.nodes, options.seed, options.patience), _say, stop)
    soak.run()
    summary: dict[str, Any] = soak.summary()
    _say("\n".join(summary_lines(summary)))
    if channel:
        _say(json.dumps(summary))
    elif options.json:
        options.json.write_text(json.dumps(summary) + "\n")
    if summary["findings"]:
        return _FOUND
    return _INTERRUPTED if interrupted.is_set() else 0


def _say(text: str, to: TextIO = sys.stdout) -> None:
    to.write(f"{text}\n")
    to.flush()


def _listen(channel: str, end: Any) -> None:
    with open(channel, "r+b", buffering=0) as stream:  # noqa: PTH123 - a terminal
        stream.write(b"here\n")
        if stream.readline():
            end()


if __name__ == "__main__":
    sys.exit(main())
