"""Starts daemons by forking a process that has imported all they need: 0.15 s each in a guest kernel, where an interpreter takes 0.8 s.

A program, `python -m pyminuteman.testing.warm_starter`, told what to do by lines of JSON on standard input and answering on standard
output; :class:`pyminuteman.testing.daemon_cluster.DaemonCluster` is who talks to it. It has one thread, so forking it is safe, and it is
the parent of what it starts, so a process id that it signals is never somebody else's. When its standard input ends it kills them all.

    {"start": "n0", "netns": "/run/netns/x", "log": "/tmp/n0/log", "words": ["run", "--config", "/tmp/n0/config.toml"]}
    {"signal": "n0", "number": 9}

    {"started": "n0", "pid": 4711}      {"ended": "n0", "code": -9}
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import sys
from typing import Any, Final, NoReturn

from pyminuteman.host.namespaces import enter
from pyminuteman.testing.processes import die_with_parent

__all__ = ["main"]

_READ_BYTES: Final = 1 << 16


def main() -> int:
    """Until standard input ends."""
    _import_all()
    gc.freeze()  # a collection in a child would write to, and so copy, every page of what was imported
    return _Starter().run()


def _import_all() -> None:
    import pyminuteman.cli.run  # noqa: PLC0415 - what a daemon needs is to be there before the first fork
    import pyminuteman.daemon.app  # noqa: PLC0415
    import pyminuteman.daemon.config_file  # noqa: PLC0415
    import pyminuteman.daemon.logs  # noqa: PLC0415
    import pyminuteman.daemon.privileges  # noqa: PLC0415, F401


class _Starter:
    def __init__(self) -> None:
        self._pids: dict[str, int] = {}
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._waker)

    def run(self) -> int:
        self._say(ready=True)
        partial = b""
        with selectors.DefaultSelector() as selector:
            selector.register(0, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fd == self._woken:
                        os.read(self._woken, _READ_BYTES)
                        self._reap()
                        continue
                    data = os.read(0, _READ_BYTES)
                    if not data:
                        self._end()
                        return 0
                    *lines, partial = (partial + data).split(b"\n")
                    for line in lines:
                        self._obey(json.loads(line))

    def _obey(self, order: dict[str, Any]) -> None:
        if "start" in order:
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                _be_daemon(parent, order)
            self._pids[order["start"]] = pid
            self._say(started=order["start"], pid=pid)
        elif order["signal"] in self._pids:
            os.kill(self._pids[order["signal"]], order["number"])  # not reaped yet, so the number is still its own

    def _reap(self) -> None:
        for name, pid in list(self._pids.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._pids[name]
                self._say(ended=name, code=os.waitstatus_to_exitcode(status))

    def _end(self) -> None:
        for pid in self._pids.values():
            os.kill(pid, signal.SIGKILL)
        for pid in self._pids.values():
            os.waitpid(pid, 0)

    def _say(self, **words: object) -> None:
        sys.stdout.write(json.dumps(words) + "\n")
        sys.stdout.flush()


def _be_daemon(parent: int, order: dict[str, Any]) -> NoReturn:
    """The life of a child, in the namespace it was told, with nothing of its parent's left."""
    code = 1
    try:
        die_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for number, descriptor in enumerate((nothing, log, log)):
            os.dup2(descriptor, number)
        os.closerange(3, 64)
        os.setsid()
        enter(order["netns"])
        from pyminuteman.cli import main as minuteman  # noqa: PLC0415 - the child's own

        code = minuteman(order["words"])
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - whatever it is, it must not run on as a second starter
        import traceback  # noqa: PLC0415 - the rare case

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
