"""How fast is what sources are told read, from the bytes of an answer or a file to VIPs?

Each input is read in a process of its own (``python -m benchmarks.sources.parsing NAME REPETITIONS FILE``), by the functions that its
source calls, in the same order: first the text becomes plain data, then that becomes VIPs. The garbage collector is as in any process of
Python. Before each repetition, what the last one made is freed and collected: that is not timed.
"""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.sources import documents
from benchmarks.sources.documents import AGENT_TASKS, BACKENDS, SERVICES
from benchmarks.sources.memory import memory_peak_mib
from benchmarks.sources.spread import spread
from pyminuteman.etcd.messages import read_range
from pyminuteman.plain import text
from pyminuteman.plain.fields import Invalid
from pyminuteman.sources.consul_services import assemble, read_catalog, read_instances
from pyminuteman.sources.document import read_document
from pyminuteman.sources.ipvsadm_rules import read_rules
from pyminuteman.sources.keyed import KeyedVIPs
from pyminuteman.sources.marathon_state import MarathonState
from pyminuteman.sources.mesos_state import MesosState
from pyminuteman.sources.mesos_vips import vips_of
from pyminuteman.vips.model import VIP

ROOT = Path(__file__).resolve().parents[2]
VIPs = Sequence[VIP]


@dataclass(frozen=True, slots=True)
class Input:
    """One form that desired states come in."""

    title: str
    units: str
    """What is counted: tasks, instances, documents."""
    count: int
    vips: int
    """What must come out of it, so that nothing was left out unseen."""
    backends: int
    make: Callable[[], bytes]
    decode: Callable[[bytes], Any]
    extract: Callable[[Any], VIPs]
    decoder: str
    extractor: str
    """The functions that are timed, by name."""


def of_state(document: Any) -> VIPs:
    return vips_of(MesosState.of_state(document).tasks()).vips


def of_operator_api(document: Any) -> VIPs:
    return vips_of(MesosState.of_operator_api(document).tasks()).vips


def of_marathon(document: Any) -> VIPs:
    return vips_of(MarathonState(document, framework="marathon").tasks({})).vips


def lines(raw: bytes) -> list[Any]:
    return [json.loads(line) for line in raw.split(b"\n")]


def of_consul(answers: Any) -> VIPs:
    catalog = read_catalog(answers[0])
    instances = {name: read_instances(answer)[0] for name, answer in zip(catalog, answers[1:], strict=True)}
    return assemble({}, catalog, instances, with_agents=False).vips


def of_etcd(pages: Any) -> VIPs:
    items = [item for page in pages for item in read_range(page).items]
    keyed = KeyedVIPs()
    keyed.change({item.key: item.value for item in items})
    return keyed.state().vips


def of_document(document: Any) -> VIPs:
    reading = read_document(document)
    if reading.faults:
        raise Invalid(reading.faults[0].place, reading.faults[0].reason)
    return reading.vips


def plain(kind: str) -> Callable[[bytes], Any]:
    return lambda raw: text.parse(kind, text.decode(raw, "bench"), "bench")


def of_rules(raw: bytes) -> VIPs:
    return read_rules(text.decode(raw, "bench"), Path("bench.rules")).vips


def mesos(
    title: str, make: Callable[[], bytes], extract: Callable[[Any], VIPs], extractor: str, tasks: int = BACKENDS
) -> Input:
    vips = min(tasks, SERVICES)
    return Input(title, "tasks", tasks, vips, tasks, make, json.loads, extract, "json.loads", extractor)


INPUTS = {
    "mesos-get-state": mesos(
        "Mesos master, `GET_STATE`", documents.mesos_get_state, of_operator_api, "MesosState.of_operator_api, tasks, vips_of"
    ),
    "mesos-state": mesos(
        "Mesos master, `/state`", documents.mesos_master_state, of_state, "MesosState.of_state, tasks, vips_of"
    ),
    "mesos-agent": mesos(
        "Mesos agent, `/state`", documents.mesos_agent_state, of_state, "MesosState.of_state, tasks, vips_of", AGENT_TASKS
    ),
    "marathon": Input(
        *("Marathon, `/v2/apps`: 1,000 apps", "tasks", BACKENDS, SERVICES, BACKENDS, documents.marathon_apps),
        *(json.loads, of_marathon, "json.loads", "MarathonState, tasks, vips_of"),
    ),
    "consul": Input(
        *("Consul: a catalog, 1,000 answers", "instances", BACKENDS, SERVICES, BACKENDS, documents.consul_answers),
        *(lines, of_consul, "json.loads", "read_catalog, read_instances, assemble"),
    ),
    "etcd": Input(
        *("etcd: 20 answers of 500 keys", "documents", BACKENDS, BACKENDS, BACKENDS, documents.etcd_pages),
        *(lines, of_etcd, "json.loads", "read_range, KeyedVIPs.change, .state"),
    ),
    "json": Input(
        *("JSON file", "backends", BACKENDS, SERVICES, BACKENDS, documents.json_file),
        *(plain("json"), of_document, "plain.text.parse", "read_document"),
    ),
    "toml": Input(
        *("TOML file", "backends", BACKENDS, SERVICES, BACKENDS, documents.toml_file),
        *(plain("toml"), of_document, "plain.text.parse (tomllib)", "read_document"),
    ),
    "rules": Input(
        *("rules of ipvsadm", "destinations", BACKENDS, SERVICES, BACKENDS, documents.rules_file),
        *(lambda raw: raw, of_rules, "-", "read_rules"),
    ),
}


def measure_here(name: str, repetitions: int, path: Path) -> dict[str, Any]:
    """In this process; call it once in a process."""
    one, raw = INPUTS[name], path.read_bytes()

    def read() -> VIPs:
        return one.extract(one.decode(raw))

    memory, vips = memory_peak_mib(read)
    backends = sum(len(vip.backends) for vip in vips)
    if (len(vips), backends) != (one.vips, one.backends):
        raise AssertionError(f"{name}: {len(vips)} VIPs with {backends} backends, not {one.vips} with {one.backends}")
    decoding, extracting, whole, cpu = [], [], [], []
    for _ in range(repetitions):
        vips = ()
        gc.collect()
        began, cpu_began = time.perf_counter(), time.process_time()
        decoded = one.decode(raw)
        between = time.perf_counter()
        vips = one.extract(decoded)
        ended, cpu_ended = time.perf_counter(), time.process_time()
        del decoded
        decoding.append((between - began) * 1e3)
        extracting.append((ended - between) * 1e3)
        whole.append((ended - began) * 1e3)
        cpu.append((cpu_ended - cpu_began) * 1e3)
    return {
        "bytes": len(raw),
        "decoding_ms": spread(decoding),
        "extracting_ms": spread(extracting),
        "whole_ms": spread(whole),
        "cpu_ms": spread(cpu),
        "memory_mib": round(memory, 1),
    }


def measure(name: str, repetitions: int) -> dict[str, Any]:
    """In a process of its own."""
    with tempfile.TemporaryDirectory(prefix="minuteman-bench-") as directory:
        path = Path(directory) / "input"
        path.write_bytes(INPUTS[name].make())
        command = [sys.executable, "-m", __spec__.name, name, str(repetitions), str(path)]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, cwd=ROOT)
    return json.loads(done.stdout)


if __name__ == "__main__":
    print(json.dumps(measure_here(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))))
