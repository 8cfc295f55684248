"""The C sources compile without a warning, with both compilers."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.tools import tool

SOURCES = sorted((ROOT / "csrc").glob("*.c"))
WARNINGS = ["-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Wstrict-prototypes", "-Werror"]


def libnl() -> list[str]:
    done = subprocess.run([tool("pkg-config"), "--cflags", "libnl-genl-3.0"], capture_output=True, text=True, check=True)
    return shlex.split(done.stdout)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_a_source_compiles_without_a_warning(tmp_path: Path, compiler: str, source: Path) -> None:
    command = [tool(compiler), *WARNINGS, "-O2", *libnl(), "-c", str(source), "-o", str(tmp_path / "out.o")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("header", ["pmm_ipvs.h", "pmm_route.h"])
def test_the_header_stands_alone(tmp_path: Path, header: str) -> None:
    """As C99 with pedantry, included twice: no kernel or libnl header is needed."""
    alone = tmp_path / "alone.c"
    alone.write_text(f'#include "{header}"\n#include "{header}"\nint alone;\n')
    command = [tool("gcc"), "-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{ROOT / 'csrc'}", "-c", str(alone)]
    done = subprocess.run([*command, "-o", str(tmp_path / "alone.o")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
