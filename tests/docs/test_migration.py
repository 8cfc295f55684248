"""The moves from predecessors, carried out from the text of their pages: keepalived itself, and the kernel's IPVS."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.support.documents import steps
from tests.support.machines import Machines
from tests.support.tools import tool

LEFT_BY_DCOS_NET = """
set -e
ip link add minuteman type dummy && ip link set minuteman up
ip route add local 11.250.208.155 dev minuteman scope host table local proto boot
ip route add local 11.1.2.3 dev minuteman scope host table local proto boot
ipvsadm -R <<'END'
-A -t 11.250.208.155:5000 -s wlc
-a -t 11.250.208.155:5000 -r 10.0.0.1:12049 -m -w 1
-A -t 11.1.2.3:80 -s wlc
-a -t 11.1.2.3:80 -r 10.0.0.77:80 -m -w 1
END
iptables-legacy -w -t nat -I POSTROUTING -m ipvs --ipvs --vdir ORIGINAL --vmethod MASQ \
    -m comment --comment Minuteman-IPVS-IPTables-masquerade-rule -j MASQUERADE
"""
# The recording is of an agent at another address; its task is a server that says hello.
AGENT = """
mkdir -p /srv/agent /srv/merp
cp {state} /srv/agent/state
echo hello from merp > /srv/merp/index.html
python3 -m http.server --bind 127.0.0.1 --directory /srv/agent 5051 > /dev/null 2>&1 &
python3 -m http.server --bind {address} --directory /srv/merp 12049 > /dev/null 2>&1 &
"""
RECORDING = ROOT / "tests/data/minuteman/named-base-vips.json"

WORDS = {"10.0.0.": "10.61.0."}
"""The machines of the test have other addresses."""


@pytest.mark.kernel(timeout=300)
def test_keepalived_hands_its_table_over(tmp_path: Path) -> None:
    tool("keepalived")
    with Machines(["lb1", "web1", "web2"], tmp_path, WORDS) as machines:
        for step in steps(ROOT / "docs/how-to/migrate-from-keepalived.md"):
            machines.carry_out(step)


@pytest.mark.kernel(timeout=300)
def test_what_dcos_net_leaves_is_taken_over(tmp_path: Path) -> None:
    tool("iptables-legacy", "iptables")
    words = WORDS | {"iptables -w": "iptables-legacy -w", "systemctl disable --now dcos-net": "true"}
    with Machines(["agent1", "agent2", "agent3"], tmp_path, words) as machines:
        machines.prepare("agent1", LEFT_BY_DCOS_NET)
        state = tmp_path / "state"
        state.write_text(RECORDING.read_text().replace("10.0.0.243", "10.61.0.1"))
        machines.prepare("agent1", AGENT.format(address="10.0.0.1", state=state))
        for step in steps(ROOT / "docs/how-to/migrate-from-minuteman.md"):
            machines.carry_out(step)
