"""Machines for documents to be tried on: each has namespaces of network, mounts and host name of its own, and a shell of root.

``/etc``, ``/srv`` and ``/var`` are those of the machine that runs the tests, and what is written there stays in memory; ``/run`` is empty.
So documents can name the places that they mean. What a namespace cannot have is stood in for by the programs in ``stand_ins``, which
come first in the ``PATH``: ``systemctl`` and ``journalctl`` for the daemon's unit, ``ssh`` and ``scp``.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from pyminuteman.testing.cluster_namespaces import ClusterNamespaces
from tests.conftest import ROOT
from tests.support.documents import Step, answers_as_shown

__all__ = ["Machines"]

COMMAND_SECONDS: Final = 90.0
"""For one command: a matter of one or two, but for those that wait for something."""
PATIENCE_SECONDS: Final = 90.0
"""Until what a document shows has come to be; usually it has already."""
_STAND_INS: Final = Path(__file__).parent / "stand_ins"
_PANIC: Final = "echo c > /proc/sysrq-trigger"
"""Would end the machine that the tests run on. What others see of it is that nothing comes any more."""
# A command that only looks may look again, until it sees what the document shows.
_LOOKS: Final = (
    *("minuteman status", "minuteman backends", "minuteman vips list", "minuteman members list", "minuteman ipvs list"),
    *("curl", "for ", "ipvsadm -Sn", "journalctl", "held"),
)
_SET_UP: Final = """
set -e
mount -t tmpfs none {base}
for place in etc srv var; do
    mkdir -p {base}/$place/upper {base}/$place/work
    mount -t overlay overlay -o lowerdir=/$place,upperdir={base}/$place/upper,workdir={base}/$place/work /$place
done
mount -t tmpfs none /run
mkdir -p /run/minuteman /var/lib/minuteman /etc/minuteman
hostname {name}
grep -qs ^minuteman: /etc/group || echo minuteman:x:62000: >> /etc/group
grep -qs ^minuteman: /etc/passwd || echo minuteman:x:62000:62000::/var/lib/minuteman:/usr/sbin/nologin >> /etc/passwd
cp -r {root}/contrib /srv/contrib
cp -r {root}/examples /srv/examples
cd /srv
set +e
exec bash --noprofile --norc
"""


class Machines(contextlib.AbstractContextManager["Machines"]):
    """Machines on one segment, by name; `words` are put in the place of others in all that documents say of them."""

    def __init__(self, names: Sequence[str], directory: Path, words: dict[str, str] | None = None) -> None:
        self._numbers = {name: number for number, name in enumerate(names)}
        self._words = words or {}
        self._cluster = ClusterNamespaces(len(names))
        try:
            self._shells = {name: _Shell(self._cluster, number, name, directory) for name, number in self._numbers.items()}
        except BaseException:
            self._cluster.close()
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        for name, shell in self._shells.items():
            if kind is not None:  # before the processes are ended
                sys.stderr.write(f"--- the log of {name}\n{shell.run('tail -qn 40 /run/*.log 2> /dev/null')[0]}")
        self._cluster.close()
        for shell in self._shells.values():
            shell.close()

    def carry_out(self, step: Step) -> None:
        """Give a command of a document, and compare what it answers with what is shown there.

        Raises:
            AssertionError: it answers otherwise, or failed.
        """
        shown = tuple(map(self._translated, step.shown))
        command = self._translated(step.command)
        if command == _PANIC:
            self._cluster.take_down([self._numbers[step.machine]])
            return
        deadline = time.perf_counter() + PATIENCE_SECONDS
        while True:
            answer, code = self._shells[step.machine].run(command)
            fits = answers_as_shown(shown, answer)
            if fits or not command.startswith(_LOOKS) or time.perf_counter() > deadline:
                break
            time.sleep(0.1)
        told = f"line {step.line}: {step.machine}# {step.command}\n--- answered, with exit code {code}\n{answer}"
        assert fits, told + "--- and not\n" + "\n".join(shown)
        assert code == 0, told

    def prepare(self, machine: str, script: str) -> None:
        """Have something on a machine that its document finds there; it is translated as that is.

        Raises:
            AssertionError: it failed.
        """
        answer, code = self._shells[machine].run(self._translated(f"(\n{script})"))
        assert code == 0, answer

    def _translated(self, text: str) -> str:
        for word, other in self._words.items():
            text = text.replace(word, other)
        return text


class _Shell:
    def __init__(self, cluster: ClusterNamespaces, number: int, name: str, directory: Path) -> None:
        self._file, self._answer = directory / f"{name}.command", directory / f"{name}.answer"
        base = directory / name
        base.mkdir()
        script = _SET_UP.format(base=shlex.quote(str(base)), name=name, root=shlex.quote(str(ROOT)))
        own = {
            "PATH": f"{_STAND_INS}:{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin:/sbin",
            "MACHINES": str(directory),
            "MACHINE": name,
            "NO_COLOR": "1",
            "PYTHONPATH": str(ROOT),
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("MINUTEMAN_")}
        self._process = cluster.start(
            number,
            ["unshare", "--mount", "--uts", "bash", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=inherited | own,
            start_new_session=True,
        )
        (directory / f"{name}.pid").write_text(str(self._process.pid))
        assert self.run("true") == ("", 0), f"the machine {name} could not be set up"

    def run(self, command: str) -> tuple[str, int]:
        """What a command prints, and its exit code; what it starts in the background goes on."""
        self._file.write_text(command + "\n")
        line = f". {shlex.quote(str(self._file))} < /dev/null > {shlex.quote(str(self._answer))} 2>&1; echo $?\n"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line.encode())
        self._process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(COMMAND_SECONDS):
                os.killpg(self._process.pid, signal.SIGKILL)
                raise AssertionError(f"not done within {COMMAND_SECONDS:g} s: {command}\n{self._answer.read_text()}")
        code = self._process.stdout.readline()
        assert code, f"the shell has ended: {command}"
        return self._answer.read_text(), int(code)

    def close(self) -> None:
        """Let go of its pipes; the process is ended by then."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
