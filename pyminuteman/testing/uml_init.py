"""What a guest does from power-on to power-off, as text: its kernel options, mounts and init.

An exec costs 10 ms in a guest, hence one `mount -a`, one modprobe, and echo for the sysctls.
"""

from __future__ import annotations

import os
import pathlib
import re
import shlex
from collections.abc import Mapping, Sequence

MODULES_DIRECTORY = "/usr/lib/uml/modules"  # where Debian's package puts them
CHANNEL = "/dev/tty3"
FILES = "/run/guest"
_FRESH = ("/tmp", "/run", "/var/tmp")  # noqa: S108 (mount points, not files we make)
# Without these the boot takes 2.5 s: the blacklisted calls benchmark checksums and prepare file
# systems that a test guest never mounts, and lpj saves measuring the speed of a delay loop.
BOOT_OPTIONS = (
    "initcall_blacklist=raid6_select_algo,calibrate_xor_blocks,init_btrfs_fs,init_jfs_fs,init_zswap",
    *("pty.legacy_count=0", "lpj=18522112", "ssl=null", "con=null", "quiet", "loglevel=4"),
    *("root=/dev/root", "rootfstype=hostfs", "hostfs=/", "ro"),
)
# - Host directories come from one writable hostfs mount by bind: hostfs options cannot quote.
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
umount -l /run/host
echo {files}/modprobe >/proc/sys/kernel/modprobe
[ -d /lib/modules ] && mount --bind {modules} /lib/modules
{load}
for family in 4 6; do
    cd /proc/sys/net/ipv$family/neigh/default || continue
    echo 4096 >gc_thresh1; echo 8192 >gc_thresh2; echo 16384 >gc_thresh3
done
echo 262144 >/proc/sys/net/netfilter/nf_conntrack_max
ip link set lo up
exec 3<>/dev/tty1 4<>/dev/tty2 5<>/dev/tty3
stty -F /dev/tty1 -opost -echo {size}; stty -F /dev/tty2 -opost -echo {size}
stty -F /dev/tty3 raw -echo
(cd {cwd} && exec setsid -w env -i {env} {command}) </dev/null >&3 2>&4 3<&- 4<&- 5<&-
echo $? >{files}/status.new
sync; mv {files}/status.new {files}/status
for tty in 1 2 3; do stty -F /dev/tty$tty -echo; done
echo o >/proc/sysrq-trigger
exec sleep 60
"""


def is_hidden(directory: str) -> bool:
    """Whether the guest sees something else at `directory` than the host, unless it is bound."""
    return any(f"{directory}/".startswith(f"{fresh}/") for fresh in _FRESH)


def boot_files(
    run_dir: pathlib.Path,
    command: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    binds: Mapping[str, str],
    modules: Sequence[str],
) -> dict[str, bytes]:
    """The files of a run directory by name: `init`, and the `fstab` and `modprobe` it uses.

    Args:
        run_dir: The run directory, on the host.
        command: What to run, with its arguments.
        cwd: Where.
        env: The command's whole environment; COLUMNS and LINES also size its terminal.
        binds: Host directories to mount at their own place: path to mount options.
        modules: Kernel modules to load before.
    """
    mounts = ["sysfs /sys sysfs defaults", "devpts /dev/pts devpts X-mount.mkdir"]
    mounts += [f"tmpfs {d} tmpfs mode=1777,X-mount.mkdir" for d in ("/dev/shm", *_FRESH)]  # noqa: S108
    mounts += ["none /run/host hostfs X-mount.mkdir"]
    mounts += [f"/run/host{MODULES_DIRECTORY} /run/kmod/lib/modules none bind,ro,X-mount.mkdir"]
    mounts += [f"/run/host{run_dir} {FILES} none bind,X-mount.mkdir"]
    for directory in sorted(binds):  # parents before what lies in them
        path = re.sub(r"[\s\\#]", lambda found: f"\\{ord(found[0]):03o}", directory)
        mounts.append(f"/run/host{path} {path} none {binds[directory]},X-mount.mkdir")
    columns, lines = env.get("COLUMNS", ""), env.get("LINES", "")
    init = _INIT.format(
        run=run_dir,
        files=FILES,
        modules=MODULES_DIRECTORY,
        load=f"modprobe -d /run/kmod -q -a {shlex.join(modules)}" if modules else "",
        size=f"cols {columns} rows {lines}" if columns.isdigit() and lines.isdigit() else "",
        cwd=shlex.quote(cwd),
        env=shlex.join(f"{name}={value}" for name, value in env.items()),
        command=shlex.join(command),
    )
    modprobe = '#!/bin/sh\nexec /sbin/modprobe -d /run/kmod "$@"\n'
    texts = {"fstab": "\n".join((*mounts, "")), "modprobe": modprobe, "init": init}
    return {name: os.fsencode(text) for name, text in texts.items()}
