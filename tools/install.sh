#!/bin/sh
# Everything that `make demo`, `make test` and `make bench` need, on a fresh Debian or Ubuntu with python3, make and root or
# sudo. What is there already is left alone, so a second run takes a second. Usage: tools/install.sh EXTRA (cli, dev, bench,
# qemu: for `make test-qemu`)
set -eu

extra=${1:-dev}
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
venv=.venv

say() { printf 'set-up: %s\n' "$*" >&2; }
die() {
    printf 'set-up: %s\n' "$*" >&2
    exit 1
}

command -v "$python" >/dev/null || die "python3 is missing: install it, or name one with PYTHON=..."
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    die "$("$python" --version) is too old: 3.11 or later is needed (PYTHON=... names another)"

# 1. System packages
packages="gcc libc6-dev pkg-config libnl-3-dev libnl-genl-3-dev libnl-route-3-dev user-mode-linux kmod iproute2 iptables ipvsadm"
"$python" -c 'import ensurepip, venv' 2>/dev/null || packages="$packages python3-venv"
"$python" -c 'import os, sysconfig, sys; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' ||
    packages="$packages python3-dev"
case $extra in
dev)
    packages="$packages nftables clang libclang-rt-dev valgrind libc6-dbg etcd-server"
    packages="$packages prometheus" # for its promtool, which reads the alert rules
    packages="$packages chromium chromium-driver fonts-dejavu-core" # the page, in a real browser
    packages="$packages systemd haproxy keepalived man-db bsdextrautils mandoc zsh fish" # the unit, the examples, manual and completion
    ;;
bench) packages="$packages valgrind libc6-dbg serf nftables etcd-server" ;;
qemu) packages="$packages qemu-system-x86 nftables" ;;
esac
if [ "$extra" = qemu ]; then with_qemu=yes extra=dev; else with_qemu=no; fi
if [ "$(id -u)" = 0 ]; then sudo=""; else sudo="sudo"; fi
if command -v dpkg-query >/dev/null; then
    missing=""
    for package in $packages; do
        dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
    done
    if [ -n "$missing" ]; then
        say "installing$missing"
        [ -z "$sudo" ] || command -v sudo >/dev/null || die "these packages are missing, and there is neither root nor sudo:$missing"
        log=$(mktemp)
        if ! { $sudo apt-get update -qq &&
            $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $missing; } >"$log" 2>&1; then
            tail -n 20 "$log" >&2
            die "apt-get could not install$missing"
        fi
        rm -f "$log"
        # Tests and benchmarks start their own: whoever has not had these does not want servers that are there after every boot.
        for service in serf etcd-server:etcd haproxy keepalived prometheus; do
            case $missing in *"${service%%:*}"*) ! command -v systemctl >/dev/null || $sudo systemctl disable --now "${service##*:}" >/dev/null 2>&1 || true ;; esac
        done
    else
        say "system packages are there"
    fi
else
    say "not a Debian system: please see to it that these, or what is called so here, are installed: $packages"
fi

# 2. A virtual environment
if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -c '' 2>/dev/null; then
    say "making a virtual environment in $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv" || die "$python -m venv failed"
fi

# 3. The package, built from C where its sources changed
stamp=$(cat pyproject.toml setup.py pyminuteman/*/_ffi_build.py csrc/*.[ch] | cksum | tr ' ' '-')
if [ "$(cat "$venv/installed-$extra" 2>/dev/null)" = "$stamp" ] && ls pyminuteman/ipvs/_native*.so pyminuteman/host/_native*.so >/dev/null 2>&1; then
    say "pyminuteman[$extra] is built and installed"
else
    say "building and installing pyminuteman[$extra]"
    log=$(mktemp)
    if ! "$venv/bin/python" -m pip install --disable-pip-version-check -q -e ".[$extra]" >"$log" 2>&1; then
        tail -n 40 "$log" >&2
        die "pip could not build or install pyminuteman[$extra]"
    fi
    rm -f "$log"
    printf '%s' "$stamp" >"$venv/installed-$extra"
fi

# 4. The second kernel: unpacked into .cache, so that this machine's own boot files stay as they are
fetch_kernel() {
    image=$(LC_ALL=C apt-cache depends linux-image-amd64 2>/dev/null | sed -n 's/.*Depends: \(linux-image-[0-9][^ ]*\)$/\1/p' | head -n 1)
    [ -n "$image" ] && (cd "$1" && apt-get download "$image" busybox-static)
}
if [ "$with_qemu" = yes ]; then
    kernel=.cache/qemu-kernel
    wanted=$(cksum <pyminuteman/testing/qemu_kernel.py)
    if [ -e "$kernel/vmlinux" ] && [ "$(cat "$kernel/stamp" 2>/dev/null)" = "$wanted" ]; then
        say "the kernel for QEMU is there"
    else
        command -v apt-get >/dev/null || die "the kernel for QEMU is Debian's: without apt, make test-qemu cannot fetch it"
        [ "$("$python" -c 'import platform; print(platform.machine())')" = x86_64 ] || die "make test-qemu needs an x86_64 machine"
        say "fetching Debian's kernel for QEMU (72 MB; into .cache, nothing is installed)"
        fetched=$(mktemp -d)
        trap 'rm -rf "$fetched"' EXIT
        # What apt knows may be of an older day, so that what it would fetch is gone.
        if ! { fetch_kernel "$fetched" || { $sudo apt-get update -qq && fetch_kernel "$fetched"; }; } >"$fetched/log" 2>&1; then
            tail -n 20 "$fetched/log" >&2
            die "apt could not fetch linux-image-amd64 and busybox-static, which Debian has"
        fi
        PMM_QEMU_KERNEL=$kernel "$venv/bin/python" -m pyminuteman.testing.qemu_kernel "$fetched"/*.deb >&2
        printf '%s' "$wanted" >"$kernel/stamp"
        rm -rf "$fetched"
        trap - EXIT
    fi
fi
