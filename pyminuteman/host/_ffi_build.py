"""Builds the C module for links, addresses and routes: ``csrc/pmm_route.h`` is the cdef. Run by setup.py."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import cffi

ROOT = Path(__file__).resolve().parents[2]


def pkg_config(what: str) -> list[str]:
    """What pkg-config says of libnl-route; Debian's places when there is no pkg-config."""
    tool = shutil.which("pkg-config") or shutil.which("pkgconf")
    if tool is None:
        return ["-I/usr/include/libnl3"] if what == "--cflags" else ["-lnl-route-3", "-lnl-3"]
    done = subprocess.run([tool, what, "libnl-route-3.0"], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"libnl-route is not installed: apt-get install libnl-3-dev libnl-route-3-dev ({done.stderr.strip()})")
    return done.stdout.split()


ffibuilder = cffi.FFI()
ffibuilder.cdef(re.sub(r"(?m)^#.*$", "", (ROOT / "csrc/pmm_route.h").read_text()))
ffibuilder.set_source(
    "pyminuteman.host._native",
    '#include "pmm_route.h"',
    sources=["csrc/pmm_route.c", "csrc/pmm_route_list.c", "csrc/pmm_route_socket.c"],
    include_dirs=["csrc"],
    depends=["csrc/pmm_route.h", "csrc/pmm_route_internal.h"],
    extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", *pkg_config("--cflags")],
    extra_link_args=pkg_config("--libs"),
    py_limited_api=True,
)
