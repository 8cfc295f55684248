"""Build the fuzzer: ``python -m tests.fuzz.build OUTPUT``."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def build(output: Path, clang: str = "clang") -> Path | None:
    """The fuzzer, or None when this clang comes without libFuzzer. Other failures are raised."""
    probe = [clang, "-fsanitize=fuzzer,address,undefined", "-x", "c", "-", "-o", "/dev/null"]
    body = b"int LLVMFuzzerTestOneInput(const char *d, unsigned long n) { (void)d; (void)n; return 0; }"
    if subprocess.run(probe, input=body, capture_output=True, check=False).returncode:
        return None
    flags = subprocess.run(["pkg-config", "--cflags", "--libs", "libnl-genl-3.0"], capture_output=True, text=True, check=True)
    sources = [ROOT / "tests/fuzz/fuzz_decode.c", ROOT / "csrc/pmm_decode.c"]
    options = [
        "-std=c11",
        "-g",
        "-O1",
        "-fsanitize=fuzzer,address,undefined",
        "-fno-sanitize-recover=all",
        f"-I{ROOT / 'csrc'}",
    ]
    command = [clang, *options, *map(str, sources), *shlex.split(flags.stdout), "-o", str(output)]
    subprocess.run(command, check=True)
    return output


if __name__ == "__main__":
    sys.exit(build(Path(sys.argv[1])) is None)
