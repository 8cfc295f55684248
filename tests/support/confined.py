"""A service that does once all that the daemon does, tries what it must not, writes down what came of each, and stays.

SIGHUP: reload. SIGUSR2: the loop hangs. SIGTERM: end.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import mmap
import os
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import trio
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pyminuteman.capabilities import Capability
from pyminuteman.daemon.notify import Notifier
from pyminuteman.daemon.privileges import drop
from pyminuteman.ipvs import Destination, IPVSTable, Scope, Service
from pyminuteman.sources.inotify import DirectoryWatch

WEB, A = Service.tcp("11.0.0.1", 80, scheduler="wlc"), Destination("10.0.0.1", 8080)
CLONE_NEWNET = 0x4000_0000
KEEP = [Capability[name] for name in sys.argv[1].split(",")]
NAMESPACES = sys.argv[2:]


def outcome(work: Callable[[], object]) -> str:
    try:
        work()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, str(error))
    except Exception as error:  # noqa: BLE001 - all of it is the answer
        return f"{type(error).__name__}: {error}"
    return "done"


def converge(netns: str | None) -> None:
    with IPVSTable(scope=Scope.everything(), netns=netns) as table:
        table.converge({WEB: [A]} if netns is None else {WEB: []})


def store() -> None:
    database = sqlite3.connect(Path(os.environ["STATE_DIRECTORY"], "store.sqlite"))
    database.execute("pragma journal_mode = wal")
    database.execute("create table if not exists t (a)")
    database.close()


def listen() -> None:
    with socket.socket(socket.AF_UNIX) as server:
        path = Path(os.environ["RUNTIME_DIRECTORY"], "api.sock")
        path.unlink(missing_ok=True)
        server.bind(str(path))
        os.chown(path, -1, os.getgid())
        path.chmod(0o660)


def unshare() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare")


def device() -> None:
    done = subprocess.run(
        ["/usr/sbin/ip", "link", "add", "minuteman", "type", "dummy"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0 and "File exists" not in done.stderr:
        raise RuntimeError(done.stderr)


def setuid_file() -> None:
    path = Path(os.environ["STATE_DIRECTORY"], "program")
    path.touch()
    path.chmod(0o4755)


def masquerade() -> None:
    rule = "-w -t nat -A POSTROUTING -m ipvs --ipvs -j MASQUERADE"
    done = subprocess.run(["/usr/sbin/iptables-legacy", *rule.split()], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise PermissionError(errno.EPERM, done.stderr)


def allowed() -> dict[str, Callable[[], object]]:
    return {
        "drop": lambda: drop(KEEP),
        "converge": lambda: converge(None),
        "device": device,
        "store": store,
        "listen": listen,
        "read configuration": lambda: os.listdir("/etc/minuteman/conf.d"),  # noqa: PTH208 - of the machine
        "watch": lambda: DirectoryWatch(Path("/etc/minuteman/conf.d")),
        "seal": lambda: AESGCM(bytes(32)).encrypt(bytes(12), b"x", None),
        "certificates": ssl.create_default_context,
        "modules": lambda: [
            importlib.import_module(f"pyminuteman.{name}") for name in ("cli.root", "sources.mesos", "kv.trio_driver")
        ],
        **{f"enter {path}": lambda path=path: converge(path) for path in NAMESPACES},
    }


def forbidden() -> dict[str, Callable[[], object]]:
    return {
        "sysctl": lambda: Path("/proc/sys/net/ipv4/vs/conntrack").write_text("1"),
        "configuration": lambda: Path("/etc/minuteman/x").touch(),
        "namespace": unshare,
        "priority": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10)),
        "code": lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC),
        "packets": lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW),
        "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW),
        "low port": lambda: socket.create_server(("127.0.0.1", 80)).close(),
        "root": lambda: os.setuid(0),
        "others": lambda: os.kill(1, 0),
        "setuid file": setuid_file,
        "iptables-legacy": masquerade,
    }


def write_down() -> None:
    found = {name: outcome(work) for name, work in (allowed() | forbidden()).items()}
    found["seen processes"] = str(sum(entry.name.isdigit() for entry in Path("/proc").iterdir()))
    found["conntrack"] = Path("/proc/sys/net/ipv4/vs/conntrack").read_text().strip()
    found["drop more"] = outcome(lambda: drop([Capability.NET_ADMIN]))
    found["umask"] = oct(os.umask(0o077))
    Path(os.environ["STATE_DIRECTORY"], "found.json").write_text(json.dumps(found))


async def main() -> None:
    notifier = Notifier.from_environment()
    write_down()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(notifier.keep)
        with trio.open_signal_receiver(signal.SIGHUP, signal.SIGTERM, signal.SIGUSR2) as signals:
            notifier.ready("1 service")
            async for number in signals:
                if number == signal.SIGUSR2:
                    time.sleep(3600)  # noqa: ASYNC251 - that is what it is to show
                if number == signal.SIGTERM:
                    notifier.stopping("leaving")
                    break
                notifier.reloading("reading the configuration again")
                await trio.sleep(0.2)
                notifier.ready("reloaded")
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
