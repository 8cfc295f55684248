"""The inner side of `pytest_kernel`: a pytest that runs the tests it is asked for, one by one.

It is started with the outer run's own arguments, so that ini file, plugins and conftests are the
same, and then forgets what only concerns the outer run: the selection and the files of results.

The conversation, one JSON object a line (text that is no JSON object is a hung test's stack):
    inner: {"ready": true}
    outer: {"run": N, "next": M or null, "seconds": S}      indexes into the plan's node ids
    inner: {"report": ...} or {"warning": ...} any number of times, then {"done": true},
           or {"missing": true} when it did not collect that test
    outer: {"quit": true}, or the end of the stream
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from pyminuteman.testing.network_namespace import bring_idle_threads, fresh_network_namespace

# Options of pytest and common plugins that belong to the outer run alone. Every item asked for
# is wanted, nobody is at the terminal, and result files have one writer.
_OUTER_OPTIONS: dict[str, object] = {
    "keyword": "",
    "markexpr": "",
    "deselect": None,
    "lf": False,
    "failedfirst": False,
    "newfirst": False,
    "stepwise": False,
    "stepwise_skip": False,
    "maxfail": 0,
    "usepdb": False,
    "trace": False,
    "pyargs": False,
    "xmlpath": None,
    "durations": None,
    "pastebin": None,
    "basetemp": None,
    "htmlpath": None,
    "report_log": None,
}


class InnerRun:
    """Registered in the inner pytest instead of the outer plugin."""

    def __init__(self, config: pytest.Config, plan: dict[str, Any]) -> None:
        """Take the outer run's plan; the channel is opened but nothing is sent yet."""
        self._config = config
        self._nodeids: list[str] = plan["nodeids"]
        channel = plan["channel"]
        if isinstance(channel, str):
            self._reader = self._writer = os.open(channel, os.O_RDWR | os.O_NOCTTY)
        else:
            self._reader, self._writer = channel
            for descriptor in channel:  # the tests' own subprocesses have no business with it
                os.set_inheritable(descriptor, False)
        for name, value in _OUTER_OPTIONS.items():
            if hasattr(config.option, name):
                setattr(config.option, name, value)
        config.args[:] = plan["paths"]

    def pytest_sessionstart(self) -> None:
        """Leave it to the outer run to remember what failed."""
        for name in ("lfplugin", "nfplugin", "stepwiseplugin", "stepwise"):
            if self._config.pluginmanager.hasplugin(name):
                self._config.pluginmanager.unregister(name=name)

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Keep the kernel tests."""
        wanted = set(self._nodeids)
        items[:] = [item for item in items if item.nodeid in wanted]

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> object:
        """Serve the outer run until it quits."""
        if session.testsfailed:
            return None  # let pytest report what it could not collect
        # From here on, standard output belongs to the tests (it is shown under -s).
        self._config.pluginmanager.unregister(name="terminalreporter")
        items = {item.nodeid: item for item in session.items}
        self._send({"ready": True})
        for request in self._requests():
            if "run" not in request:
                break
            item = items.get(self._nodeids[request["run"]])
            after = None if request["next"] is None else items.get(self._nodeids[request["next"]])
            if item is None:
                self._send({"missing": True})
                continue
            fresh_network_namespace()
            bring_idle_threads()
            with self._stack_after(request["seconds"]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
            self._send({"done": True})
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Pass a report on."""
        hook = self._config.hook
        self._send({"report": hook.pytest_report_to_serializable(config=self._config, report=report)})

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """Say what ends the run: `pytest.exit`, too, comes here."""
        self._remark(excinfo.exconly())

    def pytest_internalerror(self, excrepr: object) -> None:
        """Say what ends the run."""
        self._remark(str(excrepr))

    def pytest_warning_recorded(self, warning_message: Any, when: str, nodeid: str, location: Any) -> None:
        """Pass a warning on, by the name of its category."""
        if when == "runtest":
            what = {
                "text": str(warning_message.message),
                "category": warning_message.category.__name__,
                "filename": warning_message.filename,
                "lineno": warning_message.lineno,
            }
            self._send({"warning": what, "nodeid": nodeid, "location": location})

    @contextlib.contextmanager
    def _stack_after(self, seconds: float) -> Iterator[None]:
        """If the block still runs after `seconds`, write where its threads are.

        By a signal and not by a thread: a second thread would make tests that fork warn.
        """
        faulthandler.register(signal.SIGALRM, file=self._writer, all_threads=True)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            faulthandler.unregister(signal.SIGALRM)

    def _send(self, message: dict[str, object]) -> None:
        self._write(json.dumps(message, default=str).encode("ascii") + b"\n")

    def _remark(self, text: str) -> None:
        """Send text for people; indented, so that no line of it begins a message."""
        self._write("".join(f"  {line}\n" for line in text.splitlines()).encode(errors="replace"))

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._writer, data) :]

    def _requests(self) -> Iterator[dict[str, Any]]:
        buffer = b""
        while data := os.read(self._reader, 4096):
            *lines, buffer = (buffer + data).split(b"\n")
            yield from map(json.loads, lines)
