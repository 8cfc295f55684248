"""The Debian package: built, installed by dpkg on top of this machine's system in a guest, used, and purged."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pyminuteman.testing.kernel_guest import run_in_guest
from pyminuteman.testing.pytest_kernel import require_guest
from tests.support.tools import missing, tool

ROOT = Path(__file__).parents[2]
DEBIANS_PYTHON = Path("/usr/bin/python3")
# What is written to /etc, /usr and /var goes into memory.
SCRIPT = """
set -e
for place in etc usr var; do
    mkdir -p /run/over/$place/upper /run/over/$place/work
    mount -t overlay overlay -o lowerdir=/$place,upperdir=/run/over/$place/upper,workdir=/run/over/$place/work /$place
done
rm -f /var/lib/man-db/auto-update # the index of all of this machine's pages takes longer than all the rest
echo installing
dpkg --force-unsafe-io -i {package} >&2
minuteman --version
minuteman ipvs info | head -1
printf '%s' '-A -t 11.0.0.1:80 -s wlc
-a -t 11.0.0.1:80 -r 10.0.0.1:8080 -m -w 1
' | minuteman ipvs import -
ipvsadm -Sn
minuteman vips show --source file:{example} -o ipvsadm | head -1
getent passwd minuteman | cut -d: -f1,6
stat -c '%U %a' /etc/minuteman /etc/minuteman/conf.d
man -w minuteman.toml
systemd-analyze verify --man=yes minuteman.service 2>&1
dpkg --verify minuteman
echo removing
dpkg --purge minuteman >&2
ls -d /usr/lib/minuteman /usr/bin/minuteman 2>/dev/null || echo gone
"""


@pytest.fixture(scope="module")
def package(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tool("dpkg-deb", "dpkg")
    directory = tmp_path_factory.mktemp("deb")
    done = subprocess.run(
        [sys.executable, ROOT / "tools/make_deb.py", wheel, directory], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (found,) = directory.glob("*.deb")
    assert done.stdout == f"{found}\n"
    return found


def field(package: Path, name: str) -> str:
    return subprocess.run(
        [tool("dpkg-deb", "dpkg"), "-f", package, name], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_it_says_what_it_needs(package: Path) -> None:
    depends = field(package, "Depends").split(", ")
    assert f"python3 (>= 3.{sys.version_info.minor})" in depends
    assert {"libnl-3-200", "libnl-genl-3-200"} <= set(depends)
    older = ["dpkg", "--compare-versions", field(package, "Version"), "lt", "0.1.0"]
    assert subprocess.run(older, check=False).returncode == 0


def test_it_holds_what_it_imports_and_no_tests(package: Path) -> None:
    listed = subprocess.run([tool("dpkg-deb", "dpkg"), "-c", package], capture_output=True, text=True, check=True).stdout
    names = [line.split(maxsplit=5)[5] for line in listed.splitlines()]
    assert all(line.split()[1] == "root/root" for line in listed.splitlines())
    for wanted in ("trio/__init__.py", "click/core.py", "httpx2/__init__.py", "pyminuteman/ipvs/_native.abi3.so"):
        assert f"./usr/lib/minuteman/{wanted}" in names
    unwanted = ("/pytest/", "/hypothesis/", "/mypy/", "/pyminuteman/testing/", "/_tests/", "/tests/")
    assert not [name for name in names if any(part in name for part in unwanted)]


def test_installed_used_and_purged(package: Path, request: pytest.FixtureRequest) -> None:
    require_guest(request.config)
    seen = subprocess.run(
        [DEBIANS_PYTHON, "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=False
    )
    if seen.stdout.split() != [str(part) for part in sys.version_info[:2]]:
        missing(f"a python3 of the system of the same version as this one ({seen.stdout.strip() or 'there is none'})")
    script = SCRIPT.format(package=package, example=ROOT / "examples/vips.d")
    done = run_in_guest(["sh", "-c", script], timeout=100, cwd=str(ROOT), ro=[str(package.parent)], rw=[])
    assert done.returncode == 0, (done.stdout, done.stderr)
    version, rest = done.stdout.decode().removeprefix("installing\n").split("\n", 1)
    assert version == "minuteman 0.1.0.dev0"
    assert rest.split("\n", 1)[1] == (
        "-A -t 11.0.0.1:80 -s wlc\n-a -t 11.0.0.1:80 -r 10.0.0.1:8080 -m -w 1\n"
        "-A -t 11.0.0.1:443 -s mh -b mh-fallback,mh-port\n"
        "minuteman:/var/lib/minuteman\n"
        "root 755\nroot 755\n"
        "/usr/share/man/man5/minuteman.toml.5\n"
        "removing\ngone\n"
    )
