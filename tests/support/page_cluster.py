"""What a daemon would answer about a cluster that was made up: the JSON of the API, from one seed, and changed as the test says."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

__all__ = ["HOSTILE", "HOSTILE_SCRIPT", "PageCluster"]

STARTED_AT = datetime.now(UTC) - timedelta(minutes=10)
HOSTILE_SCRIPT = "globalThis.harmed=1"
"""What the hostile texts try to run; a page that shows them as text has no such variable."""
HOSTILE = (
    f"<img src=x onerror={HOSTILE_SCRIPT}>",
    f"</script><script>{HOSTILE_SCRIPT}</script>",
    f"\"'><svg onload={HOSTILE_SCRIPT}>",
    f"javascript:{HOSTILE_SCRIPT}//",
    "a\u202egnp.exe\x1b[31m",
)
SERVICES = ("web.marathon", "api.marathon", "search.marathon", "cache.marathon", "mail.marathon", "")


def _time(seconds: float) -> str:
    """So long after ten minutes ago: a page shows the times of today without the date."""
    return (STARTED_AT + timedelta(seconds=seconds)).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class PageCluster:
    """Nodes in a ring with chords, VIPs over them. ``me`` is the first node."""

    def __init__(self, nodes: int, vips: int = 3, backends: int = 12, seed: int = 1, hostile: bool = False) -> None:
        self.random = Random(seed)  # noqa: S311 - a made-up cluster
        self.hostile = hostile
        self.ids = [f"{self.random.getrandbits(128):032x}" for _ in range(nodes)]
        width = len(str(nodes))
        self.names = {one: f"rack{i % 8 + 1}-{i:0{width}}" if nodes > 8 else f"node-{i + 1}" for i, one in enumerate(self.ids)}
        if hostile:
            self.names.update(dict(zip(self.ids[1:], HOSTILE, strict=False)))
        self.states = dict.fromkeys(self.ids, "alive")
        self.since = dict.fromkeys(self.ids, 0.0)
        self.drained: dict[str, dict[str, str]] = {}
        chords = 1 if nodes <= 8 else 2
        ring = [(i, (i + 1) % nodes) for i in range(nodes)]
        far = [(i, self.random.randrange(nodes)) for i in range(nodes) for _ in range(chords)]
        self.links = sorted({(min(a, b), max(a, b)) for a, b in [*ring, *far] if a != b})
        self.vips = self._vips(vips, backends)
        self.sources = [
            {"name": "web", "place": "file:/etc/minuteman/vips.d", "state": "good", "age_seconds": 3.2, "reason": "", "vips": vips, "problems": []},
            {"name": "mesos", "place": "mesos:http://10.0.0.1:5050", "state": "good", "age_seconds": 1.1, "reason": "", "vips": 1, "problems": []},
        ]  # fmt: skip
        self.problems: list[dict[str, str]] = []
        self.held_back: dict[str, Any] | None = None
        self.events: list[dict[str, Any]] = []
        self.oldest = 1
        self.life = "1" * 16
        self.now = 60.0
        self.looks = 0
        for kind, text in (
            ("source_good", "mesos: the leader is 10.0.0.1:5050; 1 VIP"),
            (
                "vip_added",
                f"{self.vips[0]['name'] or 'a VIP'}: {self.vips[0]['vip']}, {len(self.vips[0]['backends'])} backends",
            ),
            *(("member_up", f"{self.names[one]} is alive") for one in self.ids[1:6]),
            ("sync", f"{sum(len(vip['backends']) for vip in self.vips)} destinations added in 1.3 ms"),
        ):
            self.say(kind, text)

    def _vips(self, vips: int, backends: int) -> list[dict[str, Any]]:
        made = []
        for i in range(vips):
            name = (
                HOSTILE[i % len(HOSTILE)]
                if self.hostile
                else SERVICES[i % len(SERVICES)]
                if i < len(SERVICES)
                else f"service-{i}.marathon"
            )
            share = backends // vips + (i < backends % vips)
            made.append({
                "vip": f"tcp://11.0.{i // 250}.{i % 250 + 1}:{80 if i else 443}", "name": name, "addresses": [f"11.0.{i // 250}.{i % 250 + 1}"],
                "port": 80 if i else 443, "protocol": "tcp", "scheduler": "wlc", "principal": "", "sources": ["web"],
                "claimed_by": [self.names[self.ids[0]]], "failed_open": [],
                "backends": [self._backend(i, j) for j in range(share)],
            })  # fmt: skip
        return made

    def _backend(self, vip: int, index: int) -> dict[str, Any]:
        node = self.ids[(index * 7 + vip) % len(self.ids)]
        return {
            "address": f"10.{vip % 200}.{index // 250}.{index % 250 + 5}", "port": 8080, "agent": "", "node": self.names[node], "weight": 1 + index % 2,
            "effective_weight": 1 + index % 2, "state": "in", "reason": "", "detail": HOSTILE[0] if self.hostile else "", "health": None,
            "drain": None, "connections": {"active": 3 + index % 5, "inactive": 2},
            "outcomes": {"opened": 1200 + 17 * index, "failed": index % 3, "latency_ms": 0.4 + index % 7 / 10},
        }  # fmt: skip

    # What changes

    def say(self, kind: str, text: str) -> dict[str, Any]:
        event = {"id": len(self.events) + 1, "time": _time(self.now), "kind": kind, "text": text, "data": {}}
        self.now += 7.0
        self.events.append(event)
        return event

    def turn(self, index: int, state: str) -> dict[str, Any]:
        """The node is now alive, suspect or down, and its backends with it."""
        one = self.ids[index]
        self.states[one], self.since[one] = state, self.now
        held = {"alive": "in", "suspect": "held", "down": "out"}[state]
        for vip in self.vips:
            for backend in vip["backends"]:
                if backend["node"] == self.names[one]:
                    reason = "" if state == "alive" else f"{self.names[one]} is {state}"
                    backend.update(state=held, reason=reason, effective_weight=backend["weight"] if state == "alive" else 0)
        return self.say(f"member_{'up' if state == 'alive' else state}", f"{self.names[one]} is {state}")

    def drain(self, index: int, by: str, reason: str) -> dict[str, Any]:
        one = self.ids[index]
        self.drained[one] = {"by": by, "at": _time(self.now), "reason": reason}
        for vip in self.vips:
            for backend in vip["backends"]:
                if backend["node"] == self.names[one]:
                    backend.update(state="held", reason="drained", effective_weight=0, drain=self.drained[one])
        return self.say("drained", f"{self.names[one]} drained by {by}: {reason}")

    # What is answered

    def status(self) -> dict[str, Any]:
        states = list(self.states.values())
        held = self.held_back
        number = sum(len(vip["backends"]) for vip in self.vips)
        return {
            "version": 1, "software": "0.1.0", "cluster": HOSTILE[0] if self.hostile else "production", "problems": self.problems,
            "state": "held" if held else "degraded" if self.problems else "running", "sources": self.sources,
            "node": {"id": self.ids[0], "name": self.names[self.ids[0]], "endpoint": "10.0.0.1:61420", "addresses": ["10.0.0.1"],
                     "epoch": 1, "started_at": _time(0)},
            "store": {"engine": "gossip", "ready": True, "problem": "", "entries": number},
            "members": {word: states.count(word) for word in ("alive", "suspect", "down", "left")},
            "kernel": [{"namespace": "", "services": len(self.vips), "destinations": number, "last_sync_at": _time(58), "last_sync_seconds": 0.0013,
                        "draining": 0, "held_back": held, "foreign": [], "error": ""}],
            "host": [{"step": word, "ok": True, "reason": ""} for word in ("modules", "sysctls", "addresses", "masquerade", "guard")],
        }  # fmt: skip

    def members(self) -> dict[str, Any]:
        rows = []
        for i, one in enumerate(self.ids):
            near = [self.ids[b if a == i else a] for a, b in self.links if i in (a, b)] if len(self.ids) <= 60 else []
            rows.append({
                "id": one, "name": self.names[one], "label": self.names[one], "status": self.states[one], "since": _time(self.since[one]),
                "endpoint": f"10.0.{i // 250}.{i % 250 + 1}:61420", "addresses": [f"10.0.{i // 250}.{i % 250 + 1}"], "tags": {}, "keys": ["0a1b2c3d"],
                "epoch": 1, "neighbours": near, "drained": one in self.drained, "drain": self.drained.get(one),
                "backends": self._backends_of(one), "me": i == 0,
            })  # fmt: skip
        return {"version": 1, "members": rows}

    def _backends_of(self, one: str) -> int:
        return sum(backend["node"] == self.names[one] for vip in self.vips for backend in vip["backends"])

    def topology(self) -> dict[str, Any]:
        nodes = [
            {
                "id": one,
                "name": self.names[one],
                "label": self.names[one],
                "status": self.states[one],
                "backends": self._backends_of(one),
                "drained": one in self.drained,
            }
            for one in self.ids
        ]
        up = [self.states[one] != "down" for one in self.ids]
        links = [[self.ids[a], self.ids[b]] for a, b in self.links if up[a] and up[b]]
        return {"version": 1, "me": self.ids[0], "nodes": nodes, "links": links}

    def backends(self) -> dict[str, Any]:
        refused = []
        if self.hostile:
            refused = [{"vip": HOSTILE[1], "claimant": {"source": HOSTILE[2], "principal": ""}, "node": HOSTILE[0], "reason": HOSTILE[3],
                        "detail": HOSTILE[4], "backend": None}]  # fmt: skip
        return {"version": 1, "vips": self.vips, "refused": refused, "conflicts": [HOSTILE[0]] if self.hostile else []}

    def statistics(self) -> dict[str, Any]:
        self.looks += 1
        services = []
        for i, vip in enumerate(self.vips):
            wave = (
                1 + 0.35 * math.sin(self.looks / 7 + i) + 0.12 * math.sin(self.looks * 1.7 + 2 * i) + 0.1 * self.random.random()
            )
            rows = []
            for j, backend in enumerate(vip["backends"]):
                share = backend["effective_weight"] * wave * (9 + 3 * math.sin(self.looks / 3 + j)) / (i + 1)
                rows.append({"address": backend["address"], "port": backend["port"], "weight": backend["effective_weight"],
                             "active": int(share) + 1, "inactive": 2, **self._counted(share)})  # fmt: skip
            services.append(
                {
                    "service": vip["vip"],
                    "vip": vip["vip"],
                    **self._counted(sum(row["rates"]["connections"] for row in rows)),
                    "backends": rows,
                }
            )
        return {"version": 1, "time": _time(self.now), "services": services}

    def _counted(self, share: float) -> dict[str, Any]:
        totals = {"connections_total": self.looks * 100, "in_bytes_total": self.looks * 10_000, "out_bytes_total": self.looks * 100_000,
                  "in_packets_total": self.looks * 700, "out_packets_total": self.looks * 900}  # fmt: skip
        rates = {
            "connections": share,
            "in_bytes": share * 640,
            "out_bytes": share * 8_200,
            "in_packets": share * 7,
            "out_packets": share * 9,
        }
        return {**totals, "rates": rates}

    def since_event(self, since: int, life: str = "") -> dict[str, Any]:
        since = since if life in {"", self.life} else 0
        kept = [event for event in self.events if event["id"] >= self.oldest]
        chosen = [event for event in kept if event["id"] > since]
        return {"version": 1, "life": self.life, "events": chosen, "oldest": self.oldest, "newest": len(self.events)}
