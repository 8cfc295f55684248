"""Writes a Debian package with the daemon, everything that it needs of PyPI, its units and its manual.

Usage: make_deb.py WHEEL DIRECTORY

The wheel is that of this project; what it depends on is taken from the environment that this runs in, so install it there first, with
the extra ``daemon``. The package's Python is Debian's own (of the version that this runs on), its libraries are in /usr/lib/minuteman and
in nobody else's way. Nothing is started at installation: there is no configuration yet.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

LIBRARIES: Final = Path("usr/lib/minuteman")
EXTRAS: Final = ("daemon", "cli", "sources", "etcd", "dns")
_COPIES: Final = {
    "share/man": "usr/share/man",
    "share/bash-completion": "usr/share/bash-completion",
    "share/zsh/site-functions": "usr/share/zsh/vendor-completions",
    "share/fish": "usr/share/fish",
    "share/minuteman/systemd/sysusers.d": "usr/lib/sysusers.d",
    "share/minuteman/systemd/modules-load.d": "usr/lib/modules-load.d",
    "share/minuteman/systemd/sysctl.d": "usr/lib/sysctl.d",
    "share/minuteman/systemd/tmpfiles.d/minuteman.conf": "usr/lib/tmpfiles.d/minuteman.conf",
    "share/minuteman/systemd/minuteman.service": "lib/systemd/system/minuteman.service",
    "share/minuteman/systemd/minuteman@.service": "lib/systemd/system/minuteman@.service",
    "share/minuteman/systemd/minuteman.service.d": "usr/share/doc/minuteman/minuteman.service.d",
    "share/minuteman/systemd/tmpfiles.d/minuteman-iptables.conf": "usr/share/doc/minuteman/minuteman-iptables.conf",
}
_LAUNCHER: Final = f"""#!/usr/bin/python3 -I
import sys

sys.path.insert(0, "/{LIBRARIES}")
from pyminuteman.cli import main

sys.exit(main())
"""
_CONTROL: Final = """Package: minuteman
Version: {version}
Architecture: {architecture}
Maintainer: The pyminuteman developers <pyminuteman@localhost>
Installed-Size: {size}
Section: net
Priority: optional
Depends: python3 (>= {python}), python3 (<< {next_python}), libc6, {libraries}, systemd | systemd-sysusers
Recommends: nftables, kmod
Suggests: haproxy, keepalived
Description: load balancing without a load balancer
 Every host programs the kernel's IPVS itself, so that a connection to a virtual
 IP is balanced on the machine it starts from. This is the daemon, which learns
 virtual IPs and backends from the other hosts, and the command minuteman.
"""
_POSTINST: Final = """#!/bin/sh
set -e
if [ "$1" = configure ]; then
    systemd-sysusers minuteman.conf
    systemd-tmpfiles --create minuteman.conf
    # The daemon may not write there, and would compile all of it at each start.
    /usr/bin/python3 -m compileall -q /usr/lib/minuteman
    if [ -d /run/systemd/system ]; then
        systemctl daemon-reload
        systemctl try-restart systemd-modules-load.service systemd-sysctl.service || true
        # An update: a restart finds the kernel's table as it was, and writes nothing.
        [ -z "$2" ] || systemctl try-restart minuteman.service || true
    fi
fi
"""
_PRERM: Final = """#!/bin/sh
set -e
if [ "$1" = remove ] && [ -d /run/systemd/system ]; then
    systemctl disable --now minuteman.service || true
fi
find /usr/lib/minuteman -name __pycache__ -prune -exec rm -rf {} +
"""
_POSTRM: Final = """#!/bin/sh
set -e
[ ! -d /run/systemd/system ] || systemctl daemon-reload || true
# The state says who this node is and what it wrote into the kernel: it goes with a purge only. Configuration and keys stay.
[ "$1" != purge ] || rm -rf /var/lib/minuteman
"""


def build(wheel: Path, directory: Path) -> Path:
    """Build it, and return where it is."""
    with tempfile.TemporaryDirectory() as scratch:
        root, unpacked = Path(scratch, "root"), Path(scratch, "wheel")
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        version = wheel.name.split("-")[1]
        _copyright(unpacked, root / "usr/share/doc/minuteman")
        _libraries(unpacked, root / LIBRARIES)
        _beside(next(unpacked.glob("*.data/data")), root)
        launcher = root / "usr/bin/minuteman"
        launcher.parent.mkdir(parents=True)
        launcher.write_text(_LAUNCHER, encoding="ascii")
        _modes(root)
        launcher.chmod(0o755)
        architecture = _run("dpkg", "--print-architecture")
        _control(root, version, architecture)
        # A development version is older than what it becomes: 0.1.0.dev0 < 0.1.0 is 0.1.0~dev0 to Debian.
        package = directory / f"minuteman_{_debian(version)}_{architecture}.deb"
        directory.mkdir(parents=True, exist_ok=True)
        _run("dpkg-deb", "--build", "--root-owner-group", "-Zxz", "-z2", str(root), str(package))
        return package


def closure(name: str, extras: tuple[str, ...] = ()) -> dict[str, Distribution]:
    """By name: what a distribution with these extras needs, of those that are installed here, without itself.

    Raises:
        SystemExit: One of them is not.
    """
    found: dict[str, Distribution] = {}
    todo = list(_needs(distribution(name), extras))
    while todo:
        wanted, more = todo.pop()
        if _normal(wanted) == _normal(name):
            todo += [one for one in _needs(distribution(name), more) if _normal(one[0]) not in found]
        elif _normal(wanted) not in found:
            try:
                found[_normal(wanted)] = distribution(wanted)
            except PackageNotFoundError:
                sys.exit(f"make_deb: {wanted} is not installed here: pip install '.[daemon]' first")
            todo += _needs(found[_normal(wanted)], more)
    return found


def _needs(one: Distribution, extras: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, ...]]]:
    # "packaging" evaluates markers; it is pip's own, and in whatever builds wheels.
    from packaging.requirements import Requirement  # noqa: PLC0415

    for text in one.requires or []:
        requirement = Requirement(text)
        if requirement.marker is None or any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield requirement.name, tuple(requirement.extras)


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _libraries(unpacked: Path, target: Path) -> None:
    shutil.copytree(unpacked, target, ignore=shutil.ignore_patterns("*.data"))
    shutil.rmtree(target / "pyminuteman/testing")
    for one in closure("pyminuteman", EXTRAS).values():
        for file in one.files or []:
            if file.suffix != ".pyc" and not {"..", "_tests", "tests"} & set(file.parts):
                place = target / file
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(str(file.locate()), place)


def _beside(data: Path, root: Path) -> None:
    for source, target in _COPIES.items():
        place = root / target
        place.parent.mkdir(parents=True, exist_ok=True)
        if (data / source).is_dir():
            shutil.copytree(data / source, place, dirs_exist_ok=True)
        else:
            shutil.copyfile(data / source, place)


def _copyright(unpacked: Path, target: Path) -> None:
    """Ours; those of what comes along are beside it, in the directories that end with .dist-info."""
    target.mkdir(parents=True)
    texts = [
        path.read_text(encoding="utf-8")
        for name in ("NOTICE", "LICENSE")
        for path in sorted(unpacked.glob(f"*.dist-info/**/{name}"))
    ]
    theirs = f"The licences of the Python packages in /{LIBRARIES} are in their directories there.\n"
    (target / "copyright").write_text("\n".join([*texts, theirs]), encoding="utf-8")


def _control(root: Path, version: str, architecture: str) -> None:
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) // 1024
    directory = root / "DEBIAN"
    directory.mkdir()
    text = _CONTROL.format(
        version=_debian(version),
        architecture=architecture,
        size=size,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        next_python=f"{sys.version_info.major}.{sys.version_info.minor + 1}",
        libraries=", ".join(_shared_libraries(root / LIBRARIES / "pyminuteman")),
    )
    (directory / "control").write_text(text, encoding="utf-8")
    for name, script in (("postinst", _POSTINST), ("prerm", _PRERM), ("postrm", _POSTRM)):
        (directory / name).write_text(script, encoding="ascii")
        (directory / name).chmod(0o755)


def _shared_libraries(package: Path) -> list[str]:
    """Debian's packages of what our C modules are linked with: libnl-3.so.200 is in libnl-3-200."""
    found = set()
    for module in package.rglob("*.so"):
        for name in re.findall(r"^\s*(libnl\S*)\.so\.(\d+)", _run("ldd", str(module)), re.MULTILINE):
            found.add("-".join(name))
    return sorted(found)


def _debian(version: str) -> str:
    return re.sub(r"\.?(dev|a|b|rc)(\d+)", r"~\1\2", version)


def _modes(root: Path) -> None:
    for path in root.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)


def _run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    if len(sys.argv) != 3:  # noqa: PLR2004 - itself and two
        sys.exit(__doc__)
    sys.stdout.write(f"{build(Path(sys.argv[1]), Path(sys.argv[2]))}\n")
