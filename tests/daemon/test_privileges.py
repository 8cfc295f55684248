"""What can be known of rights without giving any up; the rest is in ``tests/kernel/test_privileges.py``."""

from __future__ import annotations

import os
import threading

import pytest

from pyminuteman.capabilities import Capability, Privileges
from pyminuteman.daemon.privileges import RightsMissing, User, drop, needed
from pyminuteman.errors import ConfigurationError


def test_what_a_configuration_takes() -> None:
    assert needed() == {Capability.NET_ADMIN}
    assert needed(namespaces=True) == {Capability.NET_ADMIN, Capability.SYS_ADMIN}
    assert needed(legacy_iptables=True) == {Capability.NET_ADMIN, Capability.NET_RAW}
    assert needed(low_ports=True) == {Capability.NET_ADMIN, Capability.NET_BIND_SERVICE}


def test_users_by_name_and_number() -> None:
    nobody = User.named("nobody")
    assert nobody == User.named(str(nobody.uid))
    assert (nobody.name, nobody.gid in nobody.groups) == ("nobody", True)
    other = User.named("nobody:daemon")
    assert (other.uid, other.gid != nobody.gid, other.gid in other.groups) == (nobody.uid, True, True)
    assert User.named(f"nobody:{other.gid}").gid == other.gid


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no-such-user", "systemd-sysusers"),
        ("", "there is no user ''"),
        ("nul\0", "there is no user"),
        ("9" * 40, "there is no user"),
        ("nobody:no-such-group", "there is no group 'no-such-group'"),
        ("nobody:" + "9" * 40, "there is no group"),
        ("root", "is root; leave the user out"),
        ("0", "is root"),
    ],
)
def test_users_that_will_not_do(text: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason):
        User.named(text)


def test_with_other_threads_nothing_is_dropped() -> None:
    end = threading.Event()
    thread = threading.Thread(target=end.wait)
    thread.start()
    before = Privileges.now()
    with pytest.raises(RightsMissing, match="threads: rights are to be dropped before others are started"):
        drop(needed())
    assert Privileges.now() == before
    end.set()
    thread.join()


def test_what_the_kernel_says_of_this_thread() -> None:
    now = Privileges.now()
    assert (now.uid, now.gid) == (os.geteuid(), os.getegid())
    assert now.may(Capability.NET_ADMIN) == bool(now.effective >> 12 & 1)
