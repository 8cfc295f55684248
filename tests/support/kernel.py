"""ipvsadm, for tests on a real kernel. It costs some 10 ms a start in a guest, so whole tables go through one ``-R``."""

from __future__ import annotations

import subprocess

from tests.support.tools import tool


def ipvsadm(*arguments: str, stdin: str = "") -> str:
    """Its output; a complaint is a failure."""
    done = subprocess.run([tool("ipvsadm"), *arguments], input=stdin, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), (arguments, stdin, done)
    return done.stdout


def meddle(lines: str) -> None:
    """Carry out lines as ``ipvsadm -R`` does, whatever becomes of each: somebody else at work."""
    subprocess.run([tool("ipvsadm"), "-R"], input=lines, capture_output=True, text=True, check=False)


def ip(*commands: str) -> None:
    """Run ``ip`` with each."""
    subprocess.run([tool("ip", "iproute2"), "-batch", "-"], input="\n".join(commands), text=True, check=True)
