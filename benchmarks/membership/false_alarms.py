"""Whom do they hold for dead that is alive?

Everything that makes a live node look dead for a while: other work on its processors, a process that stands still, lost packets,
deaths elsewhere in quick succession, the death of all neighbours at once.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Iterator

from cluster import Cluster
from failure_detection import VIEWS_SECONDS, watch
from peers import CONTACT, name_of
from progress import Progress
from records import Record, alarm_records, of_kind, rounded
from views import Alarm, Belief

KILL_PERIOD_SECONDS = 6.0
_REVIVE_AFTER_SECONDS = 3.0
_BUSY_LOOP = ["sh", "-c", "while :; do :; done"]


def under_busy_loops(cluster: Cluster, loops: int, seconds: float, progress: Progress) -> list[Record]:
    """Other work at ordinary priority, several times what the machine can do."""
    mark = _settle(cluster)
    with contextlib.ExitStack() as stack:
        for _ in range(loops):
            # In a node's namespace only so that nobody has to look for them should this process be killed.
            loop = cluster.namespaces.start(CONTACT, _BUSY_LOOP, start_new_session=True)
            stack.callback(loop.wait, 10.0)
            stack.callback(loop.kill)
        cluster.rest(seconds)
    return [_aftermath(cluster, mark, f"{loops} busy loops", progress) | {"loops": loops, "seconds": seconds}]


def frozen(cluster: Cluster, seconds: float, repetitions: int, progress: Progress) -> list[Record]:
    """One process stands still, as under SIGSTOP, a debugger, or a paused virtual machine."""
    records = []
    for _ in range(repetitions):
        mark = _settle(cluster)
        node = cluster.pick(1)[0]
        _, thawed_ns = cluster.freeze(node, seconds)
        cluster.rest(cluster.peer.settling_seconds)
        wrong = cluster.wait_for_views(VIEWS_SECONDS)
        alarms = cluster.alarms_since(mark)
        of_it, by_it, elsewhere = _split(alarms, node)
        record: Record = {
            "frozen": name_of(node),
            "seconds": seconds,
            "of_it": alarm_records(of_it, thawed_ns),
            "by_it": alarm_records(by_it, thawed_ns),
            "elsewhere": alarm_records(elsewhere, thawed_ns),
            "alive_everywhere_after_seconds": _last_end(of_it, thawed_ns),
            "wrong_pairs_after": len(wrong),
        }
        records.append(record)
        counts = ", ".join(f"{_counts(record[where])} {where.replace('_', ' ')}" for where in ("of_it", "by_it", "elsewhere"))
        progress.done(f"frozen {seconds} s: {counts}; alive everywhere after {record['alive_everywhere_after_seconds']} s")
    return records


def under_loss(cluster: Cluster, share: float, seconds: float, progress: Progress) -> list[Record]:
    """Every packet is dropped with this probability, where it arrives."""
    mark = _settle(cluster)
    with _loss(cluster, share):
        cluster.rest(seconds)
    return [_aftermath(cluster, mark, f"{share:.0%} loss", progress) | {"share": share, "seconds": seconds}]


def killed_in_succession(cluster: Cluster, rounds: int, victims: int, progress: Progress) -> list[Record]:
    """Some die every six seconds, and are back three seconds after: old news of their deaths meets their new lives."""
    records = []
    _settle(cluster)
    for _ in range(rounds):
        mark = cluster.views.mark()
        chosen = cluster.pick(victims)
        cluster.kill(chosen)
        cluster.rest(_REVIVE_AFTER_SECONDS)
        cluster.revive(chosen)
        cluster.rest(KILL_PERIOD_SECONDS - _REVIVE_AFTER_SECONDS)
        wrong = alarm_records(cluster.alarms_since(mark))
        records.append({"victims": [name_of(victim) for victim in chosen], "alarms": wrong})
        progress.done(f"killed {KILL_PERIOD_SECONDS:.0f} s apart: {_counts(wrong)}")
    records[-1]["wrong_pairs_after"] = len(cluster.wait_for_views(VIEWS_SECONDS))
    return records


def bereaved(cluster: Cluster, repetitions: int, progress: Progress) -> list[Record]:
    """All neighbours of one node die at once. It hears nobody; that must not mean to it that everybody is dead."""
    records = []
    for _ in range(repetitions):
        mark = _settle(cluster)
        links = cluster.neighbours()
        # The contact stays alive where that is possible, or the victims could not come back.
        choices = sorted(node for node, others in links.items() if others and CONTACT not in others and node != CONTACT)
        if not choices:
            progress.done(f"neighbours: none can be killed; {len(links)} nodes named their links")
            continue
        node = cluster.chance.choice(choices)
        chosen = sorted(set(links[node]) & cluster.running())
        record = watch(cluster, mark, cluster.kill(chosen), chosen)
        cluster.rest(cluster.peer.settling_seconds)
        alarms = cluster.alarms_since(mark)
        said = dict(zip(("of_it", "by_it", "elsewhere"), map(alarm_records, _split(alarms, node)), strict=True))
        record |= {"node": name_of(node)} | said
        records.append(record)
        cluster.revive(chosen)
        progress.done(
            f"all {len(chosen)} neighbours killed: it raised {_counts(record['by_it'])}, others {_counts(record['elsewhere'])}, "
            f"of it {_counts(record['of_it'])}"
        )
    return records


def _settle(cluster: Cluster) -> int:
    """Every view right, and a moment's peace; then it begins."""
    cluster.wait_for_views(VIEWS_SECONDS)
    cluster.rest(cluster.peer.settling_seconds * cluster.chance.uniform(0.5, 1.0))
    return cluster.views.mark()


def _aftermath(cluster: Cluster, mark: int, what: str, progress: Progress) -> Record:
    cluster.rest(cluster.peer.settling_seconds)
    wrong = cluster.wait_for_views(VIEWS_SECONDS)
    found = alarm_records(cluster.alarms_since(mark))
    progress.done(f"{what}: {_counts(found)}")
    return {"alarms": found, "wrong_pairs_after": len(wrong)}


def _split(alarms: list[Alarm], node: int) -> tuple[list[Alarm], list[Alarm], list[Alarm]]:
    """Those about a node, those by it, and those that have nothing to do with it."""
    of_it = [alarm for alarm in alarms if alarm.subject == node]
    by_it = [alarm for alarm in alarms if alarm.observer == node]
    return of_it, by_it, [alarm for alarm in alarms if node not in (alarm.subject, alarm.observer)]


def _last_end(alarms: list[Alarm], since_ns: int) -> float | None:
    """When the last alarm was over; 0 if there was none, None if one is not, or nobody says so."""
    ends = [alarm.ended_ns for alarm in alarms]
    if None in ends:
        return None
    return rounded(max([0.0, *((end - since_ns) / 1e9 for end in ends if end is not None)]))


def _counts(records: list[Record]) -> str:
    return f"{len(of_kind(records, Belief.SUSPECT))} suspicions, {len(of_kind(records, Belief.DOWN))} downs"


@contextlib.contextmanager
def _loss(cluster: Cluster, share: float) -> Iterator[None]:
    nft = shutil.which("nft", path="/usr/sbin:/sbin:/usr/bin")
    if nft is None:
        raise FileNotFoundError("no nft: apt-get install nftables")
    # netem would do it too, but not every kernel has it.
    rules = f"""table inet loss {{
        chain input {{
            type filter hook input priority 0;
            iifname != "lo" numgen random mod 10000 < {share * 10_000:.0f} drop
        }}
    }}
    """
    nodes = range(cluster.size)
    try:
        for node in nodes:
            _run_nft(cluster, node, [nft, "-f", "-"], rules)
        yield
    finally:
        for node in nodes:
            _run_nft(cluster, node, [nft, "flush", "ruleset"], "")


def _run_nft(cluster: Cluster, node: int, command: list[str], text: str) -> None:
    with cluster.namespaces.inside(node):
        subprocess.run(command, input=text, text=True, check=True, capture_output=True, timeout=10)
