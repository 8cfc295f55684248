"""Let user-mode-linux 6.1 run on CPUs whose register state outgrew its buffer (Intel AMX).

UML keeps 2,696 bytes of a guest process's extended registers, enough up to AVX-512 and protection
keys, and writes them back with PTRACE_SETREGSET. The host takes the whole state or nothing: with
AMX that is 11,008 bytes, so it answers EFAULT and UML kills its init ("ptrace set fp regs failed,
errno = 14"). The library below, preloaded into linux.uml, completes each such write with the
process's own present values. Guests cannot use AMX itself, since UML has no way to permit it.
"""

from __future__ import annotations

import pathlib
import shutil
import subprocess

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>

/* From <sys/ptrace.h>, whose variadic ptrace() could not be defined here. */
enum { GETREGSET = 0x4204, SETREGSET = 0x4205 };
typedef long ptrace_call(int, pid_t, void *, void *);

long ptrace(int request, pid_t pid, void *address, void *data)
{
    static ptrace_call *real;
    static char state[65536]; /* not on the stack: UML's kernel stacks are small */

    if (real == NULL)
        real = (ptrace_call *)dlsym(RTLD_NEXT, "ptrace");
    if (request == SETREGSET && address == (void *)NT_X86_XSTATE) {
        struct iovec *part = data, whole = {state, sizeof state};
        if (real(GETREGSET, pid, address, &whole) == 0 && whole.iov_len > part->iov_len) {
            memcpy(state, part->iov_base, part->iov_len);
            return real(request, pid, address, &whole);
        }
    }
    return real(request, pid, address, data);
}
"""


def needed() -> bool:
    """Whether this CPU has the registers that UML has no room for."""
    for line in pathlib.Path("/proc/cpuinfo").read_text(encoding="ascii").splitlines():
        if line.startswith("flags"):
            return "amx_tile" in line.split()
    return False


def compiler() -> str | None:
    """The C compiler that `build` would use, or None."""
    return shutil.which("cc") or shutil.which("gcc")


def build(directory: pathlib.Path) -> pathlib.Path:
    """Compile the library into `directory`; its path, for LD_PRELOAD.

    Raises:
        RuntimeError: there is no C compiler, or it failed; its message is included.
    """
    tool = compiler()
    if tool is None:
        raise RuntimeError("no C compiler (cc) to build the register fix for this CPU")
    library = directory / "registers.so"
    command = [tool, "-O2", "-shared", "-fPIC", "-o", str(library), "-x", "c", "-", "-ldl"]
    done = subprocess.run(command, input=_SOURCE.encode(), capture_output=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RuntimeError(f"{tool} failed: {done.stderr.decode(errors='replace')}")
    return library
