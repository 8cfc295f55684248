"""What a guest does from power-on to power-off, as text: its mounts and its init.

An exec costs 10 ms in a guest, hence one `mount -a`, one modprobe, and echo for the sysctls.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence

FILES = "/run/guest"
HOST = "/run/host"
_FRESH = ("/tmp", "/run", "/var/tmp")  # noqa: S108 (mount points, not files we make)
# - The host may have no /lib/modules to mount upon (containers), hence modprobe -d, also for the
#   kernel's own requests.
# - The neighbour and connection tables are shared by all network namespaces, and small by
#   default: forty fully meshed nodes lose a quarter of their packets (gc_thresh3 = 1024), ten
#   thousand connections overflow nf_conntrack (8192).
# - The consoles are kept open: what arrives on a closed one is lost. The last stty waits until
#   all output has left. Power-off goes by sysrq, since `poweroff` needs systemd.
_INIT = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc
mount -a -T {run}/fstab
umount -l {host}
{prepare}
echo {files}/modprobe >/proc/sys/kernel/modprobe
[ -d /lib/modules ] && mount --bind /run/kmod/lib/modules /lib/modules
{load}
for family in 4 6; do
    cd /proc/sys/net/ipv$family/neigh/default || continue
    echo 4096 >gc_thresh1; echo 8192 >gc_thresh2; echo 16384 >gc_thresh3
done
echo 262144 >/proc/sys/net/netfilter/nf_conntrack_max
ip link set lo up
exec 3<>{out} 4<>{err} 5<>{channel}
stty -F {out} -opost -echo {size}; stty -F {err} -opost -echo {size}
stty -F {channel} raw -echo
(cd {cwd} && exec setsid -w env -i {env} {command}) </dev/null >&3 2>&4 3<&- 4<&- 5<&-
echo $? >{files}/status.new
sync; mv {files}/status.new {files}/status
for tty in {out} {err} {channel}; do stty -F $tty -echo; done
while :; do echo o >/proc/sysrq-trigger; read -r _ <{channel}; done
"""


@dataclasses.dataclass(frozen=True)
class Platform:
    """What differs from one kind of guest to the other."""

    ttys: tuple[str, str, str]
    """The terminals that carry standard output, standard error and the channel."""
    modules_directory: str
    """The host's directory of kernel modules: what /lib/modules would be."""
    mounts: Sequence[str]
    """Lines of fstab that make the host's files seen in HOST, after those for what is fresh."""
    first_mounts: Sequence[str] = ()
    """Lines of fstab that come before all others."""
    sources: Mapping[str, tuple[str, str, str]] = dataclasses.field(default_factory=dict)
    """What to mount for host directories that are not bound from HOST: device, type and options."""
    prepare: str = ""
    """Shell commands, once all is mounted."""


def is_hidden(directory: str) -> bool:
    """Whether the guest sees something else at `directory` than the host, unless it is bound."""
    return any(f"{directory}/".startswith(f"{fresh}/") for fresh in _FRESH)


def boot_files(
    run_dir: pathlib.Path,
    command: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    binds: Mapping[str, bool],
    modules: Sequence[str],
    platform: Platform,
) -> dict[str, bytes]:
    """The files of a run directory by name: `init`, and the `fstab` and `modprobe` it uses.

    Args:
        run_dir: The run directory, on the host.
        command: What to run, with its arguments.
        cwd: Where.
        env: The command's whole environment; COLUMNS and LINES also size its terminal.
        binds: Host directories to mount at their own place, and whether they can be written.
        modules: Kernel modules to load before.
        platform: The kind of guest.
    """

    def mounted(directory: str, at: str, *, writable: bool) -> str:
        bound = f"{HOST}{_quoted(directory)}", "none", "bind" if writable else "bind,ro"
        device, kind, options = platform.sources.get(directory, bound)
        return f"{device} {_quoted(at)} {kind} {options},X-mount.mkdir"

    mounts = [*platform.first_mounts, "sysfs /sys sysfs defaults", "devpts /dev/pts devpts X-mount.mkdir"]
    mounts += [f"tmpfs {d} tmpfs mode=1777,X-mount.mkdir" for d in ("/dev/shm", *_FRESH)]  # noqa: S108
    mounts += platform.mounts
    mounts += [mounted(platform.modules_directory, "/run/kmod/lib/modules", writable=False)]
    mounts += [mounted(str(run_dir), FILES, writable=True)]
    # Parents before what lies in them.
    mounts += [mounted(directory, directory, writable=binds[directory]) for directory in sorted(binds)]
    columns, lines = env.get("COLUMNS", ""), env.get("LINES", "")
    out, err, channel = platform.ttys
    init = _INIT.format(
        run=run_dir,
        host=HOST,
        prepare=platform.prepare,
        files=FILES,
        load=f"modprobe -d /run/kmod -q -a {shlex.join(modules)}" if modules else "",
        out=out,
        err=err,
        channel=channel,
        size=f"cols {columns} rows {lines}" if columns.isdigit() and lines.isdigit() else "",
        cwd=shlex.quote(cwd),
        env=shlex.join(f"{name}={value}" for name, value in env.items()),
        command=shlex.join(command),
    )
    modprobe = '#!/bin/sh\nexec /sbin/modprobe -d /run/kmod "$@"\n'
    texts = {"fstab": "\n".join((*mounts, "")), "modprobe": modprobe, "init": init}
    return {name: os.fsencode(text) for name, text in texts.items()}


def _quoted(path: str) -> str:
    """A path as fstab wants it."""
    return re.sub(r"[\s\\#]", lambda found: f"\\{ord(found[0]):03o}", path)
