"""pytest plugin: tests marked `kernel` run where the kernel has IPVS, each in an empty netns.

That is this machine if it can, else one user-mode-linux guest for the whole run, or one in QEMU if
that is asked for. In each case an inner pytest runs them (see `pytest_kernel_inner`), and each report appears here as its own.

0. So do, where --kernel names a guest, tests marked `any_kernel`: they need no IPVS, but kernels differ in what they check.
1. The outer run asks for one test at a time, so order, -x, --lf and xdist mean what they always do.
2. A test that overruns its deadline, or takes its kernel along, fails; the next one gets a new
   inner pytest, in a new guest, but at most `_MAX_RESTARTS` times a run.
3. Without any IPVS kernel tests are skipped, or fail where they are required (see `is_required`).
"""

from __future__ import annotations

import builtins
import json
import os
import pathlib
import queue
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from pyminuteman.testing import kernel_guest, qemu_guest
from pyminuteman.testing.network_namespace import fresh_network_namespace as fresh_network_namespace
from pyminuteman.testing.network_namespace import why_no_host_ipvs
from pyminuteman.testing.pytest_kernel_conversation import PLAN, Carrier, Conversation, HostProcess, in_guest
from pyminuteman.testing.pytest_kernel_inner import InnerRun

_MAX_RESTARTS = 3
_START_SECONDS = 120.0  # boot and collection; two or three are usual
_GRACE_SECONDS = 1.0  # between a test's deadline and its end: its stack arrives meanwhile
_GUESTS = ("uml", "qemu")
_PLACES = {"host": "on this kernel", "uml": "in a user-mode-linux guest", "qemu": "in a guest in QEMU"}


def is_required(config: pytest.Config | None = None) -> bool:
    """Whether a missing kernel is a failure: --kernel-required, or CI set and not "false"."""
    asked = bool(config is not None and config.getoption("--kernel-required", default=False))
    return asked or os.environ.get("CI", "").lower() not in ("", "false")


def require_guest(config: pytest.Config | None = None) -> None:
    """Skip the calling test if no guest can be booted here; fail it where one is required."""
    if reason := kernel_guest.available():
        if is_required(config):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the --kernel options."""
    group = parser.getgroup("kernel", "tests marked `kernel`")
    group.addoption("--kernel", choices=("auto", *_PLACES), default="auto",
                    help="where to run them; auto: the host if it has IPVS, else user-mode-linux")  # fmt: skip
    group.addoption("--kernel-timeout", type=float, default=1200.0, metavar="SECONDS",
                    help="for all of them together, boots included (default 1200)")  # fmt: skip
    group.addoption("--kernel-test-timeout", type=float, default=120.0, metavar="SECONDS",
                    help="for each, unless its mark says kernel(timeout=...) (default 120)")  # fmt: skip
    group.addoption("--kernel-mem", default="1G", help="memory of the guest (default 1G)")
    group.addoption("--kernel-rw", action="append", default=[], metavar="DIR",
                    help="another directory, beside the rootdir, that the guest may write")  # fmt: skip
    group.addoption("--kernel-required", action="store_true",
                    help="fail instead of skip when there is none (so it is if CI is set)")  # fmt: skip


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Be the outer or the inner side."""
    config.addinivalue_line(
        "markers",
        "kernel(timeout=seconds): needs the kernel's IPVS; runs as root in an empty network"
        " namespace, on this kernel or on a guest's",
    )
    config.addinivalue_line(
        "markers", "any_kernel: needs no IPVS, but runs where those marked `kernel` do if --kernel names a guest"
    )
    # Taken out of the environment: a test that starts a pytest of its own starts an outer one.
    plan = os.environ.pop(PLAN, None)
    if plan is None:
        config.pluginmanager.register(_OuterRun(config), "kernel-outer")
    else:
        with pathlib.Path(plan).open(encoding="ascii") as file:
            config.pluginmanager.register(InnerRun(config, json.load(file)), "kernel-inner")


class _OuterRun:
    """Logs the kernel tests' reports in the run that the user started."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._is_xdist = hasattr(config, "workerinput")
        self._items: list[pytest.Item] = []
        self._indexes: dict[str, int] = {}
        self._inner: Conversation | None = None
        self._place: str | None = None  # of _PLACES, once known
        self._starts, self._start_seconds, self._spent_seconds = 0, 0.0, 0.0
        self._refusal: str | None = None  # why no more inner pytest will be started

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> object:
        """Have a kernel test run by the inner pytest."""
        if not self._is_ours(item):
            return None
        if not self._items:
            self._items = [i for i in item.session.items if self._is_ours(i)]
            self._indexes = {i.nodeid: index for index, i in enumerate(self._items)}
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        start = _now()
        for report in self._reports(item, self._next_index(item, nextitem)):
            item.ihook.pytest_runtest_logreport(report=report)
        self._spent_seconds += _now() - start
        # Ordinary tests before this one may have left fixtures of a module that ends here.
        call = pytest.CallInfo.from_call(
            lambda: item.session._setupstate.teardown_exact(nextitem),  # noqa: SLF001 (no public way)
            when="teardown",
        )
        if call.excinfo is not None:
            report = item.ihook.pytest_runtest_makereport(item=item, call=call)
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        """Let nothing stay behind."""
        self._end(at_once=exitstatus == pytest.ExitCode.INTERRUPTED)
        if signal.getsignal(signal.SIGTERM) == self._on_sigterm:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say where the kernel tests ran."""
        if self._starts:
            where = _PLACES[self._place or "host"]
            again = f", {self._starts} times" if self._starts > 1 else ""
            seconds = f"{self._start_seconds:.1f} s to start, {self._spent_seconds:.1f} s in all"
            terminalreporter.write_line(f"kernel tests ran {where}{again} ({seconds})")

    def _is_ours(self, item: pytest.Item) -> bool:
        """Whether the inner pytest is to run it."""
        elsewhere = self._config.getoption("--kernel") in _GUESTS
        return bool(item.get_closest_marker("kernel") or (elsewhere and item.get_closest_marker("any_kernel")))

    def _reports(self, item: pytest.Item, next_index: int | None) -> Iterator[pytest.TestReport]:
        """The reports of one test, as they come."""
        if self._place is None and (reason := self._choose_place()):
            yield self._unavailable(item, reason)
            return
        option = self._config.getoption
        end = _now() + option("--kernel-timeout") - self._spent_seconds
        inner = self._running_inner(end - _now())
        if inner is None:
            yield _failure(item, "call", f"not run: {self._refusal}")
            return
        mark = item.get_closest_marker("kernel")
        limit = option("--kernel-test-timeout")
        limit = max(0.01, min(end - _now(), mark.kwargs.get("timeout", limit) if mark else limit))
        inner.remarks = ""
        inner.send(run=self._indexes[item.nodeid], next=next_index, seconds=limit)
        phase = "call"
        try:
            for report in self._answers(inner, item, _now() + limit + _GRACE_SECONDS):
                phase = "teardown" if report.when == "call" else phase
                yield report
        except queue.Empty:
            self._end(at_once=True)
            why = f"did not finish within {limit:g} s; it was ended with its {self._place}"
            yield _failure(item, phase, f"{item.nodeid} {why}\n{inner.remarks}\n{inner.last_words()}")
        except EOFError:
            self._inner = None
            yield _failure(item, phase, f"{item.nodeid} did not finish: {inner.ended}\n{inner.remarks}")
        if next_index is None and not self._is_xdist:
            self._end(at_once=False)

    def _answers(self, inner: Conversation, item: pytest.Item, deadline: float) -> Iterator[pytest.TestReport]:
        """What comes until the test is done; raises queue.Empty when late and EOFError when ended."""
        while True:
            message = inner.receive(deadline - _now())
            if message is None:
                raise EOFError
            if "report" in message:
                yield self._from_data(message["report"])
            elif "warning" in message:
                self._warn(message)
            elif "missing" in message:
                yield _failure(item, "call", f"the inner pytest did not collect {item.nodeid}")
                return
            else:
                return

    def _running_inner(self, budget: float) -> Conversation | None:
        """The inner pytest, started if need be; None, and a refusal, if there is no more."""
        if budget <= 0:
            self._end(at_once=True)
            self._refusal = "the time for all kernel tests is over (--kernel-timeout)"
        if self._inner is not None and self._inner.ended is not None:
            self._inner = None  # between two tests, so neither is to blame
        if self._refusal is not None or self._inner is not None:
            return self._inner
        if self._starts > _MAX_RESTARTS:
            self._refusal = f"kernel tests ended their {self._place} {self._starts} times; it was not started again"
            return None
        self._starts += 1
        self._catch_sigterm()
        show = self._config.getoption("capture") == "no"
        self._inner = inner = Conversation(self._carrier(), show=show)
        start, seconds = _now(), min(budget, _START_SECONDS)
        try:
            message = inner.receive(seconds)
        except queue.Empty:
            self._end(at_once=True)
            self._refusal = f"the inner pytest was not ready after {seconds:g} s:\n{inner.last_words()}"
            return None
        if message is None:
            self._inner, self._refusal = None, f"the inner pytest did not start: {inner.ended}"
        self._start_seconds = _now() - start
        return self._inner

    def _choose_place(self) -> str | None:
        """Settle on one of _PLACES, or say why it can be none."""
        wanted = self._config.getoption("--kernel")
        checks = {"host": why_no_host_ipvs, "uml": kernel_guest.available, "qemu": qemu_guest.available}
        reasons = []
        for place in ("host", "uml") if wanted == "auto" else (wanted,):
            reason = checks[place]()
            if reason is None:
                self._place = place
                return None
            reasons.append(f"not on this machine: {reason}" if place == "host" else reason)
        return "kernel test: " + "; ".join(reasons)

    def _carrier(self) -> Carrier:
        config, has = self._config, self._config.pluginmanager.hasplugin
        own = ["-p", "pyminuteman.testing.pytest_kernel", "--color=no"]  # colours are put on here
        own += ["--no-cov"] if has("_cov") else []
        own += ["-n0"] if has("xdist") else []
        args = [str(arg) for arg in config.invocation_params.args]
        end = args.index("--") if "--" in args else len(args)  # of the options
        plan: dict[str, Any] = {
            "path": sys.path,
            "args": [*args[:end], *own, *args[end:]],
            "nodeids": [item.nodeid for item in self._items],
            "paths": list(dict.fromkeys(str(item.path) for item in self._items)),
        }
        cwd = str(config.invocation_params.dir)
        if self._place == "host":
            return HostProcess(plan, cwd)
        seen = [*plan["path"], *map(os.path.dirname, plan["paths"])]
        writable = [d for d in (str(config.rootpath), *config.getoption("--kernel-rw")) if d != "/"]
        ro = [d for d in dict.fromkeys(seen) if d and pathlib.Path(d).is_dir()]
        guest = qemu_guest if self._place == "qemu" else kernel_guest
        return in_guest(guest, plan, cwd=cwd, mem=config.getoption("--kernel-mem"), rw=writable, ro=ro)

    def _next_index(self, item: pytest.Item, nextitem: pytest.Item | None) -> int | None:
        """Which kernel test comes next: what its fixtures share with this one's stays set up."""
        if self._is_xdist:  # this process does not get them all
            return self._indexes.get(nextitem.nodeid) if nextitem else None
        index = self._indexes[item.nodeid] + 1
        return index if index < len(self._items) else None

    def _from_data(self, data: dict[str, Any]) -> pytest.TestReport:
        # JSON has no tuples.
        data["location"] = tuple(data["location"])
        data["sections"] = [tuple(section) for section in data["sections"]]
        data["user_properties"] = [tuple(each) for each in data["user_properties"]]
        if isinstance(data["longrepr"], list):  # a skip's path, line and reason
            data["longrepr"] = tuple(data["longrepr"])
        report: pytest.TestReport = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
        return report

    def _warn(self, message: dict[str, Any]) -> None:
        what, name = message["warning"], message["warning"]["category"]
        category: type[Warning] = getattr(builtins, name, getattr(pytest, name, UserWarning))
        text = what["text"] if category is not UserWarning else f"{name}: {what['text']}"
        warning = warnings.WarningMessage(category(text), category, what["filename"], what["lineno"])
        location = tuple(message["location"]) if message["location"] else None
        recorded = self._config.hook.pytest_warning_recorded
        recorded.call_historic(
            kwargs={
                "warning_message": warning,
                "when": "runtest",
                "nodeid": message["nodeid"],
                "location": location,
            }
        )

    def _unavailable(self, item: pytest.Item, reason: str) -> pytest.TestReport:
        if is_required(self._config):
            return _failure(item, "call", reason)
        path, line, _ = item.location
        return pytest.TestReport(
            item.nodeid, item.location, dict.fromkeys(item.keywords, 1), "skipped",
            (path, (line or 0) + 1, f"Skipped: {reason}"), "setup",
        )  # fmt: skip

    def _catch_sigterm(self) -> None:
        """Have SIGTERM end the guest too, unless somebody else handles it."""
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
            signal.signal(signal.SIGTERM, self._on_sigterm)

    def _on_sigterm(self, number: int, _: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        self._end(at_once=True)
        os.kill(os.getpid(), number)

    def _end(self, *, at_once: bool) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.quit(at_once=at_once)


def _failure(item: pytest.Item, when: Any, why: str) -> pytest.TestReport:
    return pytest.TestReport(
        item.nodeid, item.location, dict.fromkeys(item.keywords, 1), "failed", why, when
    )  # fmt: skip


def _now() -> float:
    return time.monotonic()  # noqa: TID251 (a driver: it times tests)
