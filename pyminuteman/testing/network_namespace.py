"""Empty network namespaces for tests, and the question whether this kernel really has IPVS.

No `ip` process is started here: inside a guest kernel an exec costs more than all the rest together.
"""

from __future__ import annotations

import fcntl
import os
import pathlib
import shutil
import socket
import struct
import subprocess
import sys
import threading

from pyminuteman.libc import error_of, libc

_CLONE_NEWNET = 0x40000000  # <linux/sched.h>
_TRIO_THREAD = "Trio thread"  # how the names of trio's threads begin
_MOVE_SECONDS = 10.0
_SIOCSIFFLAGS = 0x8914  # <linux/sockios.h>
_IFF_UP = 1  # <linux/if.h>
_IP_VS_SO_SET_ADD = 64 + 1024 + 64 + 2  # <linux/ip_vs.h>: IP_VS_BASE_CTL + 2
# struct ip_vs_service_user: protocol, address, port, firewall mark, scheduler, flags, timeout, mask
_SERVICE_USER = struct.Struct("@H I H I 16s I I I")


def fresh_network_namespace() -> None:
    """Move the calling thread into a new, empty network namespace whose `lo` is up.

    Its IPVS table, addresses, routes and netfilter rules are empty. The namespace that the thread
    leaves lives on while something holds it: a socket, a process, a thread that was started in it.
    Threads that run already stay where they are: see :func:`bring_idle_threads`.

    Raises:
        PermissionError: the process has no CAP_SYS_ADMIN.
        OSError: the kernel has no network namespaces, or refused another one.
    """
    if libc().unshare(_CLONE_NEWNET) != 0:
        raise error_of("unshare(CLONE_NEWNET)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", _IFF_UP))


def bring_idle_threads() -> None:
    """Have the idle threads that trio keeps for later work in the namespace of the calling thread, too.

    They are kept for ten seconds, over the end of :func:`trio.run`. What a test gives to one of them, be it no more than the start of a
    process, would else be done in the namespace in which the thread was made: that of a test before. Not for use while trio runs.

    Raises:
        OSError: a thread may not enter it.
        TimeoutError: they did not all come.
    """
    # Only whoever has imported trio has such threads.
    idle = sum(thread.name.startswith(_TRIO_THREAD) for thread in threading.enumerate()) if "trio" in sys.modules else 0
    if not idle:
        return
    from trio.lowlevel import start_thread_soon  # noqa: PLC0415 - it is there already

    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    all_there = threading.Barrier(idle + 1)  # so that none takes the work of two
    errors: list[OSError] = []

    def move() -> None:
        if libc().setns(here, _CLONE_NEWNET) != 0:
            errors.append(error_of("setns"))
        all_there.wait(_MOVE_SECONDS)

    try:
        for _ in range(idle):
            start_thread_soon(move, lambda _: None)
        try:
            all_there.wait(_MOVE_SECONDS)
        except threading.BrokenBarrierError:
            raise TimeoutError(f"{idle} idle threads did not all come to another network namespace") from None
    finally:
        os.close(here)
    if errors:
        raise errors[0]


def why_no_host_ipvs() -> str | None:
    """Try IPVS on the running kernel: None when a service could be added, else why not.

    The service is added in a namespace that only this probe's own thread enters, so the kernel
    drops both when the thread ends. The `ip_vs` module stays loaded if this had to load it.
    """
    answer: list[str | None] = []
    probe = threading.Thread(target=lambda: answer.append(_try_ipvs()), name="ipvs-probe")
    probe.start()
    probe.join()
    return answer[0] if answer else "the probe of the host's IPVS broke off"


def _try_ipvs() -> str | None:
    try:
        fresh_network_namespace()
    except OSError as error:
        return f"no right to make a network namespace ({error})"
    if not pathlib.Path("/proc/thread-self/net/ip_vs").exists():
        modprobe = shutil.which("modprobe", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
        if modprobe:
            subprocess.run([modprobe, "-q", "ip_vs"], check=False, capture_output=True)  # noqa: S603
    # A listing is no proof that a service can be added: add one, for firewall mark 1.
    service = _SERVICE_USER.pack(socket.IPPROTO_TCP, 0, 0, 1, b"rr", 0, 0, 0)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as control:
            control.setsockopt(socket.IPPROTO_IP, _IP_VS_SO_SET_ADD, service)
    except OSError as error:
        return f"its kernel has no IPVS (adding a service: {error.strerror})"
    return None
