"""The half of the demo that the user starts: it finds a kernel with IPVS, starts the inside there, and shows what that says."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from demo.page import PageServer
from demo.plain import Event, PlainScreen, Screen, summary_lines
from pyminuteman.testing.kernel_guest import CHANNEL, Guest, GuestUnavailableError, forwarded_environment
from pyminuteman.testing.network_namespace import why_no_host_ipvs

_HERE: Final = Path(__file__).resolve().parent
_REPOSITORY: Final = _HERE.parent.parent
_BROKEN, _NOWHERE = 1, 69  # 69: EX_UNAVAILABLE of sysexits.h
_LIMIT_SECONDS: Final = 300.0
_FEWEST: Final = 200
_NODES: Final = ("n0", "n1", "n2", "n3", "n4")


class Nowhere(Exception):
    """The demo cannot run here. The text says what to install."""


class Show:
    """Passes the inside's lines on to a screen, and remembers how it ended."""

    def __init__(self, screen: Screen, *, stays: bool = False) -> None:
        """On this screen; ``stays``: the inside does not end by itself."""
        self.screen: Final = screen
        self.stays: Final = stays
        self.summary: Event | None = None
        self.reason = ""
        self.page_url = ""
        self.stderr: Final = bytearray()
        self._partial = b""
        self._asked_at = 0.0

    def place(self, text: str) -> None:
        """Say where the demo runs; from here on the time to the first sign of life is counted."""
        self._asked_at = _now()
        self.screen.show({"event": "place", "text": text})

    def feed(self, data: bytes) -> None:
        """Take what the inside printed."""
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            event = json.loads(line)
            if event["event"] == "hello":
                self.screen.show({"event": "place", "text": f"it runs, after {_now() - self._asked_at:.1f} s"})
            elif event["event"] == "summary":
                self.reason = event["reason"]
                self.summary = {key: value for key, value in event.items() if key != "event"}
                if self.stays and not self.reason:
                    self.screen.show({"event": "place", "text": "all is said; it goes on until Ctrl-C"})
            elif event["event"] == "broken":
                self.reason = event["reason"]
            else:
                self.screen.show(event)
                if event["event"] == "ready":
                    self.screen.show({"event": "page", "url": self.page_url})


def _now() -> float:
    return time.monotonic()  # noqa: TID251 - the demo is a driver


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.seconds_per_step * options.rate < _FEWEST:
        parser.error(f"fewer than {_FEWEST} requests a step are too few to tell shares by: raise --rate or --seconds-per-step")
    if options.inside:
        from demo import inside  # noqa: PLC0415 - the outside does without its imports, and the inside without this one's

        return inside.play(options.seconds_per_step, options.rate, options.channel, stay=options.stay)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _terminate)
    show = Show(_screen(plain=options.plain), stays=options.stay)
    try:
        code = _run(options, show)
    except KeyboardInterrupt:
        show.screen.close()
        if show.summary:  # all has been said, and that was how to end it
            return _report(show, 0, options.json)
        print("demo: interrupted; nothing is left running", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # else Python complains once more when it flushes at its end
        return _BROKEN
    except Nowhere as error:
        show.screen.close()
        print(f"demo: {error}", file=sys.stderr)
        return _NOWHERE
    finally:
        show.screen.close()
    return _report(show, code, options.json)


def _terminate(number: int, _: object) -> None:
    sys.exit(128 + number)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="demo",
        description="Five daemons, each with an IPVS table of its own, balance real HTTP traffic, and one of them dies meanwhile.",
    )
    parser.add_argument("--plain", action="store_true", help="plain lines, also on a terminal")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the summary there as JSON")
    parser.add_argument("--seconds-per-step", type=_positive, default=4.0, metavar="N", help="default %(default)s")
    parser.add_argument("--rate", type=_positive, default=100, metavar="N", help="requests a second (default %(default)s)")
    parser.add_argument(
        "--kernel",
        choices=("auto", "host", "guest"),
        default="auto",
        help="this machine's kernel, or a user-mode-linux guest; auto: this one if it has IPVS and we may use it",
    )
    parser.add_argument(
        "--page-port", type=int, default=0, metavar="N", help="port of the web page on loopback (default: a free one)"
    )
    parser.add_argument("--stay", action="store_true", help="go on after the last step, until Ctrl-C")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--channel", default="", help=argparse.SUPPRESS)
    return parser


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1000:  # noqa: PLR2004 - beyond that it is surely a mistake, and infinity is
        msg = "not a number between 0 and 1000"
        raise argparse.ArgumentTypeError(msg)
    return number


def _screen(*, plain: bool) -> Screen:
    if plain or not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return PlainScreen()
    try:
        from rich.console import Console  # noqa: PLC0415

        from demo.live import LiveScreen  # noqa: PLC0415 - rich is an extra
    except ImportError:
        print("demo: rich is not installed (pip install rich), so in plain lines:", file=sys.stderr)
        return PlainScreen()
    return LiveScreen(Console())


def _run(options: argparse.Namespace, show: Show) -> int:
    command = [sys.executable, str(_HERE), "--inside"]
    command += ["--seconds-per-step", str(options.seconds_per_step), "--rate", str(options.rate)]
    command += ["--stay"] if options.stay else []
    reason = None
    if options.kernel != "guest":
        reason = why_no_host_ipvs()
        if reason is None:
            show.place("this kernel has IPVS: running on it, in network namespaces of the demo's own")
            return _on_host(command, options.page_port, show)
        if options.kernel == "host":
            msg = f"this machine's kernel cannot be used: {reason} (as root: modprobe ip_vs; or leave --kernel host out)"
            raise Nowhere(msg)
    show.place((f"not on this machine's kernel: {reason}; " if reason else "") + "booting a user-mode-linux guest")
    return _in_guest(command, options.page_port, show)


@contextlib.contextmanager
def _page(show: Show, port: int, send: Callable[[bytes], object]) -> Iterator[PageServer]:
    """The web page, on loopback, of daemons that are where `send` reaches."""
    try:
        server = PageServer(send, _NODES, port)
    except OSError as error:
        raise Nowhere(f"port {port} cannot be had for the web page: {error.strerror}") from None
    show.page_url = server.url
    try:
        yield server
    finally:
        server.close()


def _in_guest(command: list[str], port: int, show: Show) -> int:
    # In a guest nothing needs to be written but what is in memory anyway.
    environment = forwarded_environment(PYTHONDONTWRITEBYTECODE="1")
    limit = None if "--stay" in command else _LIMIT_SECONDS
    guest = Guest([*command, "--channel", CHANNEL], rw=[], cwd=str(_REPOSITORY), env=environment, timeout=limit)
    try:
        with _page(show, port, guest.send) as server:
            code = guest.run(show.feed, show.stderr.extend, server.feed)
    except GuestUnavailableError as error:
        raise Nowhere(str(error)) from None
    if guest.timed_out:
        show.reason = f"it was not over after {_LIMIT_SECONDS:g} s"
    elif not show.summary and not show.reason and not show.stderr:
        show.stderr.extend(b"the guest's console said:\n" + bytes(guest.console)[-4000:])
    return code


def _on_host(command: list[str], port: int, show: Show) -> int:
    ours, theirs = socket.socketpair()
    # A session of its own: Ctrl-C on the terminal reaches us alone, and we end the inside in an orderly way.
    with (
        ours,
        theirs,
        tempfile.TemporaryFile() as stderr,
        _page(show, port, ours.sendall) as server,
        subprocess.Popen(
            [*command, "--channel", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            env=os.environ | {"PATH": forwarded_environment()["PATH"]},
            pass_fds=[theirs.fileno()],
            start_new_session=True,
        ) as inside,
    ):
        theirs.close()
        threading.Thread(target=_hand_on, args=(ours, server), daemon=True).start()
        assert inside.stdout is not None  # for the type checker
        try:
            while data := os.read(inside.stdout.fileno(), 1 << 16):
                show.feed(data)
            return inside.wait()
        finally:
            _end(inside)
            stderr.seek(0)
            show.stderr.extend(stderr.read())


def _hand_on(channel: socket.socket, server: PageServer) -> None:
    with contextlib.suppress(OSError):  # closed while we read
        while data := channel.recv(1 << 16):
            server.feed(data)


def _end(inside: subprocess.Popen[bytes]) -> None:
    if inside.poll() is None:
        inside.terminate()
        try:
            inside.wait(5)
        except subprocess.TimeoutExpired:
            inside.kill()  # its children die with it
            inside.wait()


def _report(show: Show, code: int, path: Path | None) -> int:
    """Print the summary, and say what went wrong."""
    if show.summary:
        if path:
            path.write_text(json.dumps(show.summary, indent=2) + "\n", encoding="utf-8")
        _print_summary(show)
    if show.stderr:
        sys.stderr.write(show.stderr.decode(errors="replace"))
    if show.reason:
        print(f"demo: FAILED: {show.reason}", file=sys.stderr)
    elif code:
        print(f"demo: FAILED: the inside ended with exit code {code}", file=sys.stderr)
    elif not show.summary:
        print("demo: FAILED: the inside ended without a summary", file=sys.stderr)
        return _BROKEN
    return _BROKEN if show.reason else code


def _print_summary(show: Show) -> None:
    summary: Any = show.summary
    lines = summary_lines(summary)
    if isinstance(show.screen, PlainScreen):
        print("", *lines, sep="\n")
        return
    from rich.console import Console  # noqa: PLC0415

    from demo.live import rich_summary  # noqa: PLC0415 - rich is an extra

    console = Console()
    console.print(rich_summary(summary))
    console.print(*lines[-2:], sep="\n", highlight=False)
