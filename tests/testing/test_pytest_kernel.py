"""The pytest plugin, seen from outside: pytest runs on small projects, in processes of their own.

A run that boots a guest takes two to three seconds, so each checks much.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
import xml.etree.ElementTree as ET
from collections.abc import Iterator

import pytest

from pyminuteman.testing import kernel_guest
from pyminuteman.testing.pytest_kernel import is_required, require_guest

PACKAGE_ROOT = pathlib.Path(kernel_guest.__file__).parents[2]
COMMAND = [sys.executable, "-m", "pytest", "-p", "pyminuteman.testing.pytest_kernel", "--color=no"]
IN_GUEST = [*COMMAND, "--kernel=uml"]
MISSING = {"PMM_UML": "/nonexistent/linux.uml"}


@pytest.fixture
def guest(request: pytest.FixtureRequest) -> None:
    require_guest(request.config)


class Project:
    """A directory with tests, and pytest runs in it."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.temporary = pathlib.Path(tempfile.mkdtemp(prefix="pmm-test-", dir="/tmp"))
        self.write("pytest.ini", "[pytest]\naddopts = -ra --strict-markers")

    def write(self, name: str, text: str) -> None:
        (self.path / name).parent.mkdir(exist_ok=True)
        (self.path / name).write_text(textwrap.dedent(text))

    def options(self, env: dict[str, str]) -> dict[str, object]:
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "COV")) and k != "CI"}
        fixed = {"PYTHONPATH": str(PACKAGE_ROOT), "TMPDIR": str(self.temporary), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        return {"cwd": self.path, "env": clean | fixed | env, "text": True}

    def pytest(self, command: list[str], *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], **self.options(env), capture_output=True, timeout=120, check=False)  # type: ignore[call-overload,no-any-return]

    @contextlib.contextmanager
    def running(self, command: list[str], until: str) -> Iterator[subprocess.Popen[str]]:
        """A pytest that has made the file `until`."""
        with subprocess.Popen(command, **self.options({}), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:  # type: ignore[call-overload]
            try:
                deadline = time.perf_counter() + 30
                while not (self.path / until).exists():
                    assert process.poll() is None, process.stdout.read()
                    assert time.perf_counter() < deadline
                    time.sleep(0.02)
                yield process
            finally:
                process.kill()

    def left(self) -> list[str]:
        """Run directories and processes of guests and inner runs."""
        found = [p.name for p in self.temporary.iterdir() if not p.name.startswith("pytest-of-")]
        for entry in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if str(self.temporary).encode() in (entry / "cmdline").read_bytes():
                    found.append((entry / "cmdline").read_text())
        return found


@pytest.fixture
def project(tmp_path: pathlib.Path) -> Iterator[Project]:
    project = Project(tmp_path)
    yield project
    assert project.left() == []
    shutil.rmtree(project.temporary)


def outcomes(done: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """The words that -v prints, by node id: without a guest's help, from the text users see."""
    found: dict[str, list[str]] = {}
    for nodeid, word in re.findall(r"^(\S+::.*?) (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b", done.stdout, re.MULTILINE):
        found.setdefault(nodeid.split("::", 1)[1], []).append(word)
    return found


def junit_cases(xml: pathlib.Path) -> list[ET.Element]:
    return list(ET.parse(xml).getroot().iter("testcase"))  # noqa: S314 (pytest wrote it)


MANY = """
    import os, pathlib, socket, subprocess, warnings
    import pytest, trio

    kernel = pytest.mark.kernel
    HERE = pathlib.Path(__file__).parent

    @pytest.fixture(scope="module")
    def shared():
        with open(HERE / f"shared-{os.uname().release}", "a") as log:
            log.write("up\\n")
            yield "shared"
            log.write("down\\n")

    @pytest.fixture
    def broken():
        yield
        raise ValueError("teardown trouble")

    def services():
        return subprocess.check_output(["ipvsadm", "-S"])

    def test_host(shared): assert HOST
    @kernel
    def test_pass(shared): assert GUEST and from_conftest == 5
    def test_host_between(shared): assert HOST
    @kernel
    def test_fail(shared, tmp_path):
        print("said before")
        assert str(tmp_path) == "elsewhere"
    @kernel
    def test_skip(): pytest.skip("because of this")
    @pytest.mark.skipif(GUEST, reason="seen in the guest")
    @kernel
    def test_skipif(): pass
    @kernel
    @pytest.mark.xfail(strict=True)
    def test_xfail(): assert 0
    @kernel
    @pytest.mark.parametrize("x", ["a b", "c::d", "e[f]", "\\u00fc'\\"$(id)", "z/y", ""])
    def test_param(x): pass
    @kernel
    async def test_trio(nursery, autojump_clock):
        await trio.sleep(1000)
        assert trio.current_time() > 999
    @kernel
    def test_warn(): warnings.warn("careful", DeprecationWarning)
    @kernel
    def test_broken_teardown(broken): pass
    @kernel
    @pytest.mark.parametrize("n", [1, 2])
    def test_namespace_is_empty(n):
        assert services() == b""
        subprocess.check_call(["ipvsadm", "-A", "-f", "1"])
        socket.create_server(("127.0.0.1", 80)).close()
    @kernel
    def test_properties(record_property): record_property("measured", 12)
    @kernel
    def test_environment():
        assert os.environ["PMM_SEED"] == "77"
        assert "PMM_KERNEL_PLAN" not in os.environ
        assert "/usr/sbin" in os.environ["PATH"].split(":")
    def test_host_last(): assert HOST
"""
PREFACE = """
    import os
    HOST = os.uname().release == {release!r}
    GUEST = not HOST
    from_conftest = None
"""


def write_many(project: Project) -> None:
    release = os.uname().release
    project.write("test_many.py", textwrap.dedent(PREFACE.format(release=release)) + textwrap.dedent(MANY))
    project.write(
        "conftest.py",
        "def pytest_collection_modifyitems(items):\n    for item in items: item.module.from_conftest = 5\n",
    )


EXPECTED = {
    "test_host": ["PASSED"],
    "test_pass": ["PASSED"],
    "test_host_between": ["PASSED"],
    "test_fail": ["FAILED"],
    "test_skip": ["SKIPPED"],
    "test_skipif": ["SKIPPED"],
    "test_xfail": ["XFAIL"],
    "test_param[a b]": ["PASSED"],
    "test_param[c::d]": ["PASSED"],
    "test_param[e[f]]": ["PASSED"],
    "test_param[\\xfc'\"$(id)]": ["PASSED"],
    "test_param[z/y]": ["PASSED"],
    "test_param[]": ["PASSED"],
    "test_trio": ["PASSED"],
    "test_warn": ["PASSED"],
    "test_broken_teardown": ["PASSED", "ERROR"],
    "test_namespace_is_empty[1]": ["PASSED"],
    "test_namespace_is_empty[2]": ["PASSED"],
    "test_properties": ["PASSED"],
    "test_environment": ["PASSED"],
    "test_host_last": ["PASSED"],
}


@pytest.mark.usefixtures("guest")
def test_each_test_is_reported_as_its_own(project: Project) -> None:
    write_many(project)
    xml = project.temporary / "pytest-of-xml"
    options = ("-v", f"--junitxml={xml}", "--durations=3", "--durations-min=0")
    done = project.pytest([*IN_GUEST, "-p", "pytest_trio.plugin", "-o", "trio_mode=true"], *options, PMM_SEED="77")
    assert outcomes(done) == EXPECTED, done.stdout + done.stderr
    assert done.returncode == 1
    for text in (
        "- elsewhere",
        "Captured stdout call",
        "said before",
        "because of this",
        "seen in the guest",
        "ValueError: teardown trouble",
        "DeprecationWarning: careful",
        "slowest 3 durations",
        "kernel tests ran in a user-mode-linux guest (",
    ):
        assert text in done.stdout
    # One guest: the module's fixture went up once in it although host tests came in between.
    logs = [p.read_text() for p in project.path.glob("shared-*")]
    assert logs == ["up\ndown\n"] * 2
    cases = {case.get("name"): case for case in junit_cases(xml)}
    assert len(cases) == len(EXPECTED)
    failure = cases["test_fail"].find("failure")
    assert failure is not None
    assert "assert str(tmp_path)" in (failure.text or "")
    assert [p.get("value") for p in cases["test_properties"].iter("property")] == ["12"]
    assert 0 < float(cases["test_namespace_is_empty[1]"].get("time", "0")) < 30
    # What failed last is the outer run's to remember, and another import mode makes no difference.
    done = project.pytest(IN_GUEST, "-v", "--lf", "--import-mode=importlib")
    assert outcomes(done) == {"test_fail": ["FAILED"], "test_broken_teardown": ["PASSED", "ERROR"]}


@pytest.mark.usefixtures("guest")
def test_selection(project: Project) -> None:
    project.write(
        "test_choice.py",
        """
        import os, pytest
        @pytest.mark.kernel
        def test_more(): print("shown at once")
        if os.uname().release == "RELEASE":
            @pytest.mark.kernel
            def test_no_more(): pass
        @pytest.mark.kernel
        def test_less(): assert 0
        def test_host(): pass
        """.replace("RELEASE", os.uname().release),
    )
    done = project.pytest(IN_GUEST, "-v", "-m", "not kernel")
    assert outcomes(done) == {"test_host": ["PASSED"]}
    assert "kernel tests ran" not in done.stdout
    done = project.pytest(
        IN_GUEST, "-q", "-s", "-k", "more", "-m", "kernel", "test_choice.py", "--deselect", "test_choice.py::no"
    )
    assert "shown at once" in done.stdout
    assert "1 failed, 1 passed, 2 deselected" in done.stdout
    assert "the inner pytest did not collect test_choice.py::test_no_more" in done.stdout


@pytest.mark.usefixtures("guest")
def test_exitfirst_stops_the_run_and_tears_down(project: Project) -> None:
    project.write(
        "test_x.py",
        """
        import pathlib, pytest
        HERE = pathlib.Path(__file__).parent
        @pytest.fixture(scope="session", autouse=True)
        def whole_run():
            yield
            (HERE / "torn-down").touch()
        @pytest.mark.kernel
        def test_one(): pass
        @pytest.mark.kernel
        def test_two(): assert 0
        @pytest.mark.kernel
        def test_three(): (HERE / "ran").touch()
        """,
    )
    done = project.pytest(IN_GUEST, "-v", "-x")
    assert outcomes(done) == {"test_one": ["PASSED"], "test_two": ["FAILED"]}
    assert "stopping after 1 failures" in done.stdout
    assert (project.path / "torn-down").exists()
    assert not (project.path / "ran").exists()


@pytest.mark.usefixtures("guest")
def test_panics_and_hangs_cost_only_themselves(project: Project) -> None:
    project.write(
        "test_hard.py",
        """
        import time, pytest
        pytestmark = pytest.mark.kernel
        def panic():
            with open("/proc/sysrq-trigger", "w") as trigger: trigger.write("c")
            time.sleep(60)
        def test_before(): pass
        def test_panic(): panic()
        def test_after_panic(): pass
        @pytest.mark.kernel(timeout=0.3)
        def test_hang(): time.sleep(60)
        @pytest.fixture
        def deadly():
            yield
            panic()
        def test_after_hang(deadly): pass
        def test_exit(): pytest.exit("enough")
        def test_refused(): pass
        """,
    )
    xml = project.temporary / "pytest-of-xml"
    done = project.pytest(IN_GUEST, "-v", f"--junitxml={xml}")
    assert outcomes(done) == {
        "test_before": ["PASSED"],
        "test_panic": ["FAILED"],
        "test_after_panic": ["PASSED"],
        "test_hang": ["FAILED"],
        "test_after_hang": ["PASSED", "ERROR"],
        "test_exit": ["FAILED"],
        "test_refused": ["FAILED"],
    }
    said = {case.get("name"): "".join(e.text or "" for e in case) for case in junit_cases(xml)}
    assert "the guest kernel died" in said["test_panic"]
    assert "Kernel panic - not syncing: sysrq triggered crash" in said["test_panic"]
    assert "test_hard.py::test_hang did not finish within 0.3 s" in said["test_hang"]
    assert re.search(r'test_hard.py", line \d+ in test_hang', said["test_hang"])
    assert "sysrq triggered crash" in said["test_after_hang"]
    assert "inner pytest ended with exit code" in said["test_exit"]
    assert "enough" in said["test_exit"]
    assert "it was not started again" in said["test_refused"]
    assert "guest, 4 times" in done.stdout


@pytest.mark.usefixtures("guest")
def test_any_kernel_is_the_one_that_was_named(project: Project) -> None:
    project.write(
        "test_any.py",
        """
        import os, pytest
        @pytest.mark.any_kernel
        def test_where(): open("seen", "a").write(os.uname().release + "\\n")
        """,
    )
    for command in (COMMAND, IN_GUEST):
        done = project.pytest(command, "-v")
        assert outcomes(done) == {"test_where": ["PASSED"]}, done.stdout
    here, there = (project.path / "seen").read_text().split()
    assert here == os.uname().release != there


def test_a_kernel_that_was_named_and_is_missing_is_named_with_its_cure(project: Project) -> None:
    project.write("test_one.py", "import pytest\n@pytest.mark.kernel\ndef test_1(): pass\n")
    for options, outcome in (([], "SKIPPED"), (["--kernel-required"], "FAILED")):
        done = project.pytest([*COMMAND, "--kernel=qemu", *options], "-v", PMM_QEMU_KERNEL=str(project.path))
        assert outcomes(done) == {"test_1": [outcome]}
        assert "tools/install.sh qemu" in done.stdout


@pytest.mark.usefixtures("guest")
def test_time_for_all(project: Project) -> None:
    project.write("test_two.py", "import pytest\npytestmark = pytest.mark.kernel\ndef test_1(): pass\ndef test_2(): pass\n")
    done = project.pytest(IN_GUEST, "-v", "--kernel-timeout=0.05")  # too short for a boot
    assert outcomes(done) == {"test_1": ["FAILED"], "test_2": ["FAILED"]}
    assert "not ready after 0.0" in done.stdout
    assert "the time for all kernel tests is over" in done.stdout


@pytest.mark.usefixtures("guest")
def test_what_the_inner_run_cannot_collect(project: Project) -> None:
    project.write(
        "test_here.py",
        """
        import os, pytest
        if os.uname().release != "RELEASE": raise RuntimeError("not here")
        @pytest.mark.kernel
        def test_only_on_the_host(): pass
        """.replace("RELEASE", os.uname().release),
    )
    done = project.pytest(IN_GUEST, "-v")
    assert outcomes(done) == {"test_only_on_the_host": ["FAILED"]}
    assert "did not start: the inner pytest ended with exit code 2" in done.stdout
    assert "RuntimeError: not here" in done.stdout


@pytest.mark.usefixtures("guest")
def test_this_kernel_is_used_if_it_has_ipvs(project: Project) -> None:
    """In a guest that plays the host: pytest there finds IPVS and needs no guest of its own."""
    project.write(
        "test_life.py",
        """
        import subprocess, time, pytest
        pytestmark = pytest.mark.kernel
        @pytest.mark.parametrize("n", [1, 2])
        def test_life(n):
            assert subprocess.check_output(["ipvsadm", "-S"]) == b""
            subprocess.check_call(["ipvsadm", "-A", "-f", "1"])
        @pytest.mark.kernel(timeout=0.3)
        def test_hang(): time.sleep(60)
        """,
    )
    env = kernel_guest.forwarded_environment(
        PYTHONPATH=str(PACKAGE_ROOT), PMM_SEED="77", PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", **MISSING
    )
    left = 'echo "left: $(ls /tmp | grep ^pmm) $(ps -eo args | grep "[p]lan\\.json")."'
    done = kernel_guest.run_in_guest(
        ["sh", "-c", f'"$@"; {left}', "sh", *COMMAND, "-v"], env=env, cwd=str(project.path), ro=[str(PACKAGE_ROOT)]
    )
    text = done.stdout.decode()
    assert outcomes(subprocess.CompletedProcess([], 0, text)) == {
        "test_life[1]": ["PASSED"],
        "test_life[2]": ["PASSED"],
        "test_hang": ["FAILED"],
    }, text
    assert re.search(r'test_life.py", line \d+ in test_hang', text)
    assert "kernel tests ran on this kernel (" in text
    assert text.endswith("\nleft:  .\n")


class TestMissingGuest:
    @pytest.fixture
    def project(self, project: Project) -> Project:
        project.write("test_k.py", "import pytest\n@pytest.mark.kernel\ndef test_k(): pass\ndef test_host(): pass\n")
        return project

    def test_is_a_skip_with_its_reason(self, project: Project) -> None:
        done = project.pytest(IN_GUEST, "-v", **MISSING)
        assert outcomes(done) == {"test_k": ["SKIPPED"], "test_host": ["PASSED"]}
        assert done.returncode == 0
        assert "no /nonexistent/linux.uml (try: apt-get install" in done.stdout

    @pytest.mark.parametrize(("options", "ci"), [(["--kernel-required"], ""), ([], "true"), ([], "1")])
    def test_is_a_failure_where_it_is_required(self, project: Project, options: list[str], ci: str) -> None:
        done = project.pytest(IN_GUEST, "-v", *options, CI=ci, **MISSING)
        assert outcomes(done) == {"test_k": ["FAILED"], "test_host": ["PASSED"]}
        assert "apt-get install --no-install-recommends user-mode-linux" in done.stdout

    @pytest.mark.parametrize(("ci", "required"), [("", False), ("false", False), ("False", False), ("1", True)])
    def test_ci_says_whether_it_is_required(self, monkeypatch: pytest.MonkeyPatch, ci: str, *, required: bool) -> None:
        monkeypatch.setenv("CI", ci)
        assert is_required() is required

    def test_helper_skips_or_fails_the_caller(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PMM_UML", "/nonexistent/linux.uml")
        monkeypatch.setenv("CI", "")
        with pytest.raises(pytest.skip.Exception, match="/nonexistent"):
            require_guest()
        monkeypatch.setenv("CI", "true")
        with pytest.raises(pytest.fail.Exception, match="apt-get"):
            require_guest()


class TestEndOfTheOuterRun:
    @pytest.fixture
    def project(self, project: Project) -> Project:
        project.write(
            "test_long.py",
            """
            import pathlib, time, pytest
            @pytest.mark.kernel
            def test_long():
                pathlib.Path(__file__).with_name("begun").touch()
                time.sleep(60)
            """,
        )
        return project

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.usefixtures("guest")
    def test_by_a_signal_ends_the_guest(self, project: Project, number: int) -> None:
        with project.running(IN_GUEST, until="begun") as process:
            assert project.left() != []
            process.send_signal(number)
            code = process.wait(15)
            assert code == (-signal.SIGTERM if number == signal.SIGTERM else pytest.ExitCode.INTERRUPTED)
