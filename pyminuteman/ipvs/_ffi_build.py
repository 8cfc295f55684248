"""Builds the C module: ``csrc/pmm_ipvs.h`` is the cdef, so that the boundary is written down once. Run by setup.py.

Compiler and sanitizer flags come in the usual way, by ``CC`` and ``CFLAGS``.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import cffi

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [
    "csrc/pmm_batch.c",
    "csrc/pmm_control.c",
    "csrc/pmm_decode.c",
    "csrc/pmm_diff.c",
    "csrc/pmm_dump.c",
    "csrc/pmm_encode.c",
    "csrc/pmm_metrics.c",
    "csrc/pmm_socket.c",
]


def cdef(header: str) -> str:
    """The header without its preprocessor lines."""
    return re.sub(r"(?m)^#.*$", "", header)


def pkg_config(what: str) -> list[str]:
    """What pkg-config says of libnl; Debian's places when there is no pkg-config."""
    tool = shutil.which("pkg-config") or shutil.which("pkgconf")
    if tool is None:
        return ["-I/usr/include/libnl3"] if what == "--cflags" else ["-lnl-genl-3", "-lnl-3"]
    done = subprocess.run([tool, what, "libnl-genl-3.0"], capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        sys.exit(f"libnl is not installed: apt-get install libnl-3-dev libnl-genl-3-dev ({done.stderr.strip()})")
    return done.stdout.split()


ffibuilder = cffi.FFI()
ffibuilder.cdef(cdef((ROOT / "csrc/pmm_ipvs.h").read_text()))
ffibuilder.set_source(
    "pyminuteman.ipvs._native",
    '#include "pmm_ipvs.h"',
    sources=SOURCES,
    include_dirs=["csrc"],
    depends=["csrc/pmm_ipvs.h", "csrc/pmm_internal.h"],
    extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", *pkg_config("--cflags")],
    extra_link_args=pkg_config("--libs"),
    py_limited_api=True,
)
