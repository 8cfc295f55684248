"""What Prometheus is told, read back by Prometheus's own parsers; and that every metric of ours has a name, a meaning and a place in the
documentation, the dashboard and the alert rules."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import trio
import yaml
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics_families
from prometheus_client.parser import text_string_to_metric_families as families

from pyminuteman.addresses import Endpoint
from pyminuteman.daemon import metrics
from pyminuteman.daemon.api.options import METRICS_LABELS
from pyminuteman.daemon.exposition import Exposition, escaped, labelled
from pyminuteman.daemon.metric_names import API, FAMILIES, HEALTH, MEMBERSHIP, STORE
from pyminuteman.daemon.observed import Buckets, Faults, KernelObserved, OutcomesOf
from pyminuteman.daemon.process import process_numbers
from pyminuteman.health.monitor import open_monitor
from pyminuteman.ipvs import Counters, Rates, Service, ServiceStatistics
from pyminuteman.kv import open_store
from pyminuteman.membership import open_membership
from pyminuteman.sources.base import SourceState, SourceStatus
from tests.daemon.api.double import Double, observation, unix_api
from tests.support.tools import tool

ROOT = Path(__file__).parents[2]
DASHBOARD = ROOT / "contrib/grafana/minuteman.json"
RULES = ROOT / "contrib/prometheus/minuteman.rules.yml"
REFERENCE = ROOT / "docs/reference/metrics.md"
OPERATIONS = ROOT / "docs/operations.md"


def read(text: bytes) -> dict[str, Metric]:
    """By name; a name that is there twice is an error."""
    found: dict[str, Metric] = {}
    for family in families(text.decode()):
        name = f"{family.name}_total" if family.type == "counter" else family.name
        assert name not in found, name
        found[name] = family
    return found


def rows(family: Metric, *labels: str) -> dict[tuple[str, ...], float]:
    return {tuple(sample.labels[label] for label in labels): sample.value for sample in family.samples}


def told(labels: tuple[str, ...] = METRICS_LABELS, **changes: Any) -> dict[str, Metric]:
    return read(metrics.exposition(observation(**changes), process_numbers(), labels))


def all_names() -> dict[str, str]:
    """Every metric with its meaning."""
    found = {name: family.text for name, family in FAMILIES.items()}
    for source in (MEMBERSHIP, STORE, HEALTH, API):
        found.update((name, text) for name, text in source.names.values() if name)
    return found


def test_prometheus_reads_what_is_told() -> None:
    found = told()
    backend = {
        "service": "tcp://11.0.0.1:80",
        "local_address": "11.0.0.1",
        "local_port": "80",
        "proto": "TCP",
        "local_mark": "",
    }
    backend |= {"remote_address": "10.0.0.1", "remote_port": "8080"}
    for name, value in (("connections_total", 10), ("incoming_bytes_total", 3), ("connections_active", 5), ("weight", 1)):
        (sample,) = found[f"minuteman_ipvs_backend_{name}"].samples
        assert (sample.labels, sample.value) == (backend, value)
    (sample,) = found["minuteman_ipvs_service_outgoing_packets_total"].samples
    assert (sample.labels["service"], sample.value) == ("tcp://11.0.0.1:80", 4)
    assert rows(found["minuteman_members"], "state") == {("alive",): 2, ("suspect",): 0, ("down",): 1, ("left",): 0}
    assert rows(found["minuteman_backends"], "state") == {("in",): 3, ("held",): 1, ("out",): 1}
    assert rows(found["minuteman_backends_excluded"], "reason") == {("unhealthy",): 1, ("down",): 1}
    assert rows(found["minuteman_refused_claims"], "reason") == {("denied_address",): 1}
    assert rows(found["minuteman_sync_errors_total"], "op", "errno") == {("add", "ENOMEM"): 2}
    assert rows(found["minuteman_dropped_total"], "reason") == {("forged",): 3}
    assert rows(found["minuteman_links_lost_total"], "reason") == {("failed",): 1}
    assert rows(found["minuteman_source_up"], "source") == {("web",): 1, ("empty",): 1}
    assert rows(found["minuteman_node_state"], "state")[("degraded",)] == 1
    assert rows(found["minuteman_health_backends"], "state") == {("healthy",): 4, ("unhealthy",): 1}
    assert found["process_resident_memory_bytes"].samples[0].value > 1e6
    assert not [name for name in found if name.startswith("node_ipvs")]


def test_histograms_are_cumulated() -> None:
    found = told()
    family = found["minuteman_sync_duration_seconds"]
    buckets = {sample.labels["le"]: sample.value for sample in family.samples if sample.name.endswith("_bucket")}
    assert buckets == {"0.001": 1, "0.002": 3, "+Inf": 6}
    assert {sample.name[32:]: sample.value for sample in family.samples if "le" not in sample.labels} == {
        "sum": 1.5,
        "count": 6,
    }
    assert len(metrics.SYNC_BOUNDS) == 15
    assert (metrics.SYNC_BOUNDS[0], metrics.SYNC_BOUNDS[-1]) == (0.001, 16.384)


def test_latencies_of_backends_are_joined_by_service() -> None:
    seen = observation()
    (key, backend), one = next(iter(seen.outcomes.items()))
    other = replace(backend, port=1)
    found = told(outcomes={(key, backend): one, (key, other): one, (key, replace(backend, port=2)): OutcomesOf(1, 0)})
    samples = {sample.name: sample.value for sample in found["minuteman_connection_latency_seconds"].samples}
    assert samples["minuteman_connection_latency_seconds_count"] == 18
    assert sum(rows(found["minuteman_connections_opened_total"], "backend").values()) == 19


def test_fewer_labels_make_sums() -> None:
    seen = observation()
    ((key, service),) = seen.statistics.items()
    ((row, one),) = service.destinations.items()
    both = {row: one, type(row)("10.0.0.2", 8080, 3): one}
    found = told(("local_port",), statistics={key: replace(service, destinations=both)})
    (sample,) = found["minuteman_ipvs_backend_weight"].samples
    assert (sample.labels, sample.value) == ({"service": "tcp://11.0.0.1:80", "local_port": "80"}, 4)


def test_marks_and_unknown_protocols_are_told_as_node_exporter_does() -> None:
    mark, nothing = Service.fwmark(26), Counters()
    services = {one.key: ServiceStatistics(one, nothing, Rates()) for one in (mark, Service.fwmark(7, family=10))}
    found = told(statistics=services)
    samples = found["minuteman_ipvs_service_connections_total"].samples
    assert [(one.labels["proto"], one.labels["local_mark"], one.labels["service"]) for one in samples] == [
        ("FWM", "0000001A", "fwmark://26"),
        ("FWM", "00000007", "fwmark://7/ipv6"),
    ]


def test_namespaces_of_containers_are_one_row() -> None:
    own = observation().kernels[0]
    containers = (
        KernelObserved(
            "a", services=2, destinations=5, last_sync_at=70.0, last_queued_at=71.0, changes_pending=1, syncs_total=9
        ),
        KernelObserved("b", services=2, destinations=4, last_sync_at=60.0, last_queued_at=59.0, draining=3, held="1 of 2"),
        KernelObserved("c", error="no", errors={("read", "EPERM"): 7}, foreign=("tcp 11.0.0.9:80",)),
        KernelObserved("d"),
    )
    found = told(kernels=(own, *containers))
    for name, value in (
        ("kernel_services", 4),
        ("kernel_destinations", 9),
        ("kernel_destinations_draining", 3),
        ("kernel_foreign_services", 1),
        ("sync_changes_pending", 1),
        ("sync_held_back", 1),
        ("sync_last_timestamp_seconds", 60),
        ("sync_last_queued_timestamp_seconds", 71),
    ):
        assert rows(found[f"minuteman_{name}"], "namespace").keys() == {("",), ("*",)}, name
        assert rows(found[f"minuteman_{name}"], "namespace")["*",] == value, name
    for name in ("sync_total", "sync_errors_total", "sync_duration_seconds"):
        assert {sample.labels["namespace"] for sample in found[f"minuteman_{name}"].samples} == {""}, (
            "sums of what goes away are no counters"
        )
    assert rows(found["minuteman_namespaces"], "state") == {("running",): 1, ("held",): 1, ("failing",): 1, ("waiting",): 1}
    assert rows(told()["minuteman_namespaces"], "state")["running",] == 0


def test_a_name_adds_no_rows() -> None:
    evil = 'a"} 1\nminuteman_vips 99\\'
    seen = observation()
    feed = replace(seen.feeds[0], name=evil)
    found = told(feeds=(feed,), kernels=(KernelObserved(errors={(evil, "EIO"): 1}),))
    assert rows(found["minuteman_source_up"], "source") == {(evil,): 1}
    assert rows(found["minuteman_vips"]) == {(): 2}
    assert escaped(evil).count("\n") == 0


@given(st.text(), st.text())
def test_any_text_is_a_label(one: str, other: str) -> None:
    """But for half characters, which are no text."""
    text = f"a{labelled({'one': one, 'other': other})} 1\n"
    ((sample,),) = [family.samples for family in families(text)]
    assert sample.labels == {"one": one, "other": other}


def test_open_metrics_for_who_asks() -> None:
    text = metrics.exposition(observation(), process_numbers(), METRICS_LABELS)
    found = {family.name: family for family in open_metrics_families(metrics.as_open_metrics(text).decode())}
    assert found["minuteman_ipvs_backend_connections"].type == "counter"
    assert found["minuteman_sync_duration_seconds"].type == "histogram"


def test_a_node_that_has_just_begun() -> None:
    found = told(
        feeds=(replace(observation().feeds[0], state=None, status=SourceStatus(reason="no"), age_seconds=None),),
        kernels=(KernelObserved(),),
        statistics={},
        outcomes={},
        host=(),
        event_counts={},
        membership_metrics={},
        store_metrics={},
        health_metrics={},
    )
    assert "minuteman_source_age_seconds" not in found
    assert rows(found["minuteman_source_up"], "source") == {("web",): 0}
    assert "minuteman_sync_last_timestamp_seconds" not in found
    assert "minuteman_ipvs_backend_weight" not in found
    assert rows(found["minuteman_sync_changes_pending"], "namespace") == {("",): 0}


def test_faults_are_counted_by_kind() -> None:
    found = told(faults=Faults({"claim": 7, "mark": 0, "health": 2}, (), 9, {"tcp://11.0.0.1:80": "no room"}))
    assert rows(found["minuteman_faults"], "kind") == {("claim",): 7, ("mark",): 0, ("health",): 2}
    assert rows(found["minuteman_claim_faults_total"]) == {(): 9}
    assert rows(found["minuteman_untold_vips"]) == {(): 1}


def test_a_failed_open_is_told() -> None:
    found = told(
        feeds=(replace(observation().feeds[0], state=SourceState()),),
        judgement=type(observation().judgement)(),
        desired=type(observation().desired)(),
    )
    assert rows(found["minuteman_failed_open"], "reason") == {("none",): 0}
    assert rows(found["minuteman_refused_claims"], "reason") == {("none",): 0}


def test_numbers_without_a_name_are_told_all_the_same() -> None:
    found = told(membership_metrics={"brand_new_total": 3, "gauge": 1.5})
    assert found["minuteman_membership_brand_new_total"].type == "counter"
    assert rows(found["minuteman_membership_gauge"]) == {(): 1.5}


def test_families_without_rows_are_left_out() -> None:
    out = Exposition()
    out.family("a", "gauge", "A.", [])
    out.histogram("b", "B.", [])
    out.histogram("c", "C.", [({}, Buckets((), (1,), 0.5))])
    assert out.text().decode().splitlines()[2:] == ['c_bucket{le="+Inf"} 1', "c_sum 0.5", "c_count 1"]


@pytest.mark.trio
async def test_all_that_the_parts_count_has_a_name() -> None:
    bind = Endpoint.parse("127.0.0.1:0")
    async with (
        open_membership(name="one", bind=bind) as one,
        open_membership(name="two", bind=bind, contacts=[one.me.endpoint]) as two,
        open_store(one) as store,
        open_monitor() as monitor,
    ):
        await two.wait_joined(5)
        found = told(membership_metrics=one.metrics(), store_metrics=store.metrics(), health_metrics=monitor.metrics())
    assert set(found) <= set(all_names()) | set(FAMILIES)


def test_names_that_the_sources_of_this_package_count_are_known() -> None:
    """Those that are only there once something has gone wrong."""
    counted = set()
    for path in (ROOT / "pyminuteman/membership").glob("*.py"):
        counted |= {f"{name}_total" for name in re.findall(r'_counters\["(\w+)"\] \+=', path.read_text())}
    assert counted
    assert counted - set(MEMBERSHIP.names) == {"opened_total"}  # of the keyring, which tells only what it refused


@pytest.mark.trio
async def test_scrapes_within_a_second_are_one(tmp_path: Path) -> None:
    double = Double()
    async with unix_api(tmp_path, double) as (client, _):
        for accept, expected in (("*/*", "text/plain; version=0.0.4"), (metrics.OPEN_METRICS, metrics.OPEN_METRICS)):
            async with client.stream("GET", "/metrics", headers={"accept": accept}) as response:
                assert response.headers["content-type"].startswith(expected)
                assert read(await response.read()) if accept == "*/*" else (await response.read()).endswith(b"# EOF\n")
        assert double.looks == 1
        await trio.sleep(1.0)
        async with client.stream("GET", "/metrics") as response:
            await response.read()
        assert double.looks == 2


# What is shipped with it

EXPRESSION_NAMES = re.compile(r"\b((?:minuteman|process)_[a-z_0-9]+)\b")


def exported() -> set[str]:
    """Names that stand in expressions: those of histograms with what is added to them."""
    found = set(all_names())
    for name, family in FAMILIES.items():
        if family.kind == "histogram":
            found |= {f"{name}_{part}" for part in ("bucket", "sum", "count")}
    return found


def expressions(value: Any, keys: Iterable[str] = ("expr", "query", "definition")) -> list[str]:
    if isinstance(value, dict):
        own = [text for key, text in value.items() if key in keys and isinstance(text, str)]
        return own + [text for inner in value.values() for text in expressions(inner, keys)]
    if isinstance(value, list):
        return [text for inner in value for text in expressions(inner, keys)]
    return []


def test_the_dashboard_shows_what_is_exported() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    found = {name for text in expressions(dashboard) for name in EXPRESSION_NAMES.findall(text)}
    assert len(found) > 20
    assert found - exported() == set()
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(panel["title"] and panel["targets"] and panel["description"] for panel in panels)


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


def test_the_rules_look_at_what_is_exported_and_say_what_to_do() -> None:
    found = {name for rule in rules() for name in EXPRESSION_NAMES.findall(rule["expr"])}
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert found - exported() - recorded == set()
    alerts = [rule for rule in rules() if "alert" in rule]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) > 10
    for rule in alerts:
        assert re.fullmatch(r"Minuteman[A-Za-z]+", rule["alert"])
        assert rule["labels"]["severity"] in {"critical", "warning", "info"}
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"]
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_each_alert_has_its_place_in_the_operations_manual() -> None:
    headings = set(re.findall(r"(?m)^### (Minuteman\w+)$", OPERATIONS.read_text()))
    assert headings == {rule["alert"] for rule in rules() if "alert" in rule}


def test_each_alert_is_told_with_its_cause_what_to_look_at_and_what_to_do() -> None:
    sections = re.split(r"(?m)^#+ (.+)$", OPERATIONS.read_text())
    told = dict(zip(sections[1::2], sections[2::2], strict=True))
    for alert in (rule["alert"] for rule in rules() if "alert" in rule):
        parts = re.findall(r"(?m)^\*\*(Cause|Look at|Do)(?:\*\*|\.\*\*) .+$", told[alert])
        assert parts == ["Cause", "Look at", "Do"], alert


def test_promtool_takes_the_rules_and_what_the_dashboard_asks(tmp_path: Path) -> None:
    asked = [text for text in expressions(json.loads(DASHBOARD.read_text())) if not text.startswith("label_values(")]
    plain = [text.replace("$__rate_interval", "5m").replace("$instance", ".*").replace("$service", ".*") for text in asked]
    groups = [{"name": "dashboard", "rules": [{"record": f"dashboard:{at}", "expr": text} for at, text in enumerate(plain)]}]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": groups}))
    done = subprocess.run(
        [tool("promtool", "prometheus"), "check", "rules", RULES, file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_lists_every_metric_with_its_meaning() -> None:
    text = REFERENCE.read_text()
    documented = dict(re.findall(r"(?m)^\| `([a-z_0-9]+)` \| (?:\w+) \| (?:[^|]*) \| (.+?) \|$", text))
    assert documented == {name: meaning.replace("|", "\\|") for name, meaning in all_names().items()}
