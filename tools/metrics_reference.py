"""Print docs/reference/metrics.md's tables: python tools/metrics_reference.py > docs/reference/metrics.md."""

from __future__ import annotations

import sys

from pyminuteman.daemon.metric_names import API, FAMILIES, HEALTH, MEMBERSHIP, STORE

HEAD = """# Metrics

What `GET /metrics` tells, in Prometheus's text format, or in OpenMetrics for who asks for it. It is collected when it is asked for, at most
once a second: scrapes that come together share one look. Written by `tools/metrics_reference.py`; a test holds it complete.

- Scrape the unix socket through a proxy of yours, or open TCP and give Prometheus a token that may only read ([API](api.md)):

  ```yaml
  scrape_configs:
    - job_name: minuteman
      authorization: {credentials_file: /etc/prometheus/minuteman.token}   # a line "read TOKEN" of api.token_file
      static_configs: [{targets: ["127.0.0.1:61421"]}]
  ```

- Counters begin at zero with the daemon; those of traffic with the row in the kernel.
- `service` is the DNS name and port of a named VIP (`foo.marathon:80`), otherwise `tcp://11.0.0.1:80`. The other labels of traffic are those
  of node_exporter's ipvs collector, so that both can be joined. `node_ipvs_*` is not told again: it would count twice.
- Rows of backends are the greater part: eight for each. `api.metrics_labels` says which labels they have; with fewer of them rows become
  alike, and are summed. Without `remote_address` and `remote_port` there are eight for each service.
- `minuteman_programming_duration_seconds` is the one to set an objective for: from the event to the kernel's acknowledgement.
- Dashboard: `contrib/grafana/minuteman.json`. Alert rules: `contrib/prometheus/minuteman.rules.yml`; what each means is in
  [operations](../operations.md).

Cost: 10,000 backends behind 1,000 services are 85,000 lines (16 MB), written in 46 ms of a core; without the labels of the backends
13,000 lines (1.8 MB) in 21 ms. Both in a thread, so that no heartbeat waits.
"""


def table(title: str, rows: list[tuple[str, str, str, str]]) -> str:
    """A heading and its table."""
    lines = [f"\n## {title}\n", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {kind} | {labels} | {text} |" for name, kind, labels, text in rows]
    return "\n".join(lines)


def main() -> None:
    """Print it."""
    own = [
        (name, family.kind, ", ".join(f"`{label}`" for label in family.labels) or "-", family.text.replace("|", "\\|"))
        for name, family in FAMILIES.items()
    ]
    parts = [HEAD, table("The node, its kernel and its host", [row for row in own if row[0].startswith("minuteman_")])]
    for title, source in (
        ("The membership", MEMBERSHIP),
        ("The store", STORE),
        ("Health checks", HEALTH),
        ("The API", API),
    ):
        rows = [
            (name, "counter" if name.endswith("_total") else "gauge", "-", text) for name, text in source.names.values() if name
        ]
        parts.append(table(title, rows))
    parts.append(table("The process", [row for row in own if row[0].startswith("process_")]))
    sys.stdout.write("\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
