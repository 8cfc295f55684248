"""Write what is known of the daemon's configuration to where people and programs read it: python tools/config_reference.py.

That is docs/reference/configuration.md, the comments of examples/config/full.toml (its values stay), and the JSON Schema in the package.
With ``--check`` nothing is written, and the exit code is 1 when something is out of date.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final

from pyminuteman.daemon import config as settings
from pyminuteman.daemon.config_changes import takes_restart
from pyminuteman.daemon.config_description import describe
from pyminuteman.daemon.config_document import KEYS
from pyminuteman.kv.store import StoreLimits
from pyminuteman.membership.config import MembershipConfig

ROOT: Final = Path(__file__).resolve().parents[1]
REFERENCE: Final = ROOT / "docs/reference/configuration.md"
EXAMPLE: Final = ROOT / "examples/config/full.toml"
SCHEMA: Final = ROOT / "pyminuteman/daemon/config.schema.json"
_WIDTH: Final = 118

_HEAD: Final = """# Configuration of the daemon

`/etc/minuteman/config.toml`, or the file named by `minuteman run --config`. `minuteman check-config` says what is wrong with it, before the
daemon is told to use it; `minuteman check-config -o json` shows all of it with its defaults. Examples are in
[`examples/config`](../../examples/config), and [`full.toml`](../../examples/config/full.toml) has every key. For editors and programs there is a
JSON Schema, [`config.schema.json`](../../pyminuteman/daemon/config.schema.json). Written by `tools/config_reference.py`; a test holds it complete.

## What counts

1. The file.
2. Files `*.toml` in `conf.d` beside it, in the order of their names. Tables are joined; `[[source]]` and `[[policy.rule]]` are appended, and
   the order of rules matters. A key that two files say is an error which names both.
3. The environment: `MINUTEMAN_SECTION_KEY`, such as `MINUTEMAN_NODE_BIND` or `MINUTEMAN_STORE_ETCD_PREFIX`. Elements of lists are separated by
   commas, tags are written `NAME=VALUE,NAME=VALUE`, and a switch is `true` or `false`. Sources and rules are said in files only. A
   variable that begins like one of ours and is none is an error.
4. Options of the command line: `--set node.name=web-1`.

A later one of 3 and 4 replaces the value of an earlier one. Whatever is wrong is told with file, line and key, and with what is accepted; nothing
is then changed, and a daemon that was told to reload goes on with what it had.

Addresses are IP addresses, never names: a daemon that keeps services reachable does not wait for DNS. Paths are absolute. Secrets are never in
this file, but in files that it names, so it may be read by anybody (URLs of sources can have a password in them; use `token-file` instead).

## What is looked at together

Refused, besides what is said at the keys:

| | |
|---|---|
| members reachable from elsewhere, and no key | `cluster.key_file`, or `cluster.insecure = true` |
| `key_file` or `token_file` that others can read, or that is a symbolic link | `chmod 600` |
| private keys and etcd's token that everybody can read or write | `chmod 640` |
| the API by TCP without token and client certificates; beyond loopback without TLS | `api.token_file`, `api.cert`, `api.key` |
| a range of names, or a rule's `vip_networks`, with an address of this node in it | another network; for a rule, the hosts' network in `policy.denied` |
| two of `node.bind`, `api.tcp` and `names.dns_bind` at one address and port | another port |
| a pushed source, and no API | `api.socket` |

Told, and no error: networks of names or rules that are not managed, rules that never count, settings that are idle, files that are not there.

## Reloading

What is marked *yes* counts as soon as it is reloaded (`SIGHUP`, `minuteman reload`, `POST /v1/reload`), and so do the contents of
`cluster.key_file`, `api.token_file`, `api.cert`, `api.key` and `api.client_ca`. All other keys take a restart, which is said again with each
reload until it is so. All of it counts, or nothing does: [the daemon](../daemon.md#reloading) has the rules.
"""

_SECTIONS: Final[Mapping[str, str]] = {
    "node": "",
    "membership": "Constants of membership that are to differ from those of `node.profile`; leave them out unless you know why. The defaults here are "
    "those of the profile `lan`. All nodes of a cluster should have the same. See [membership](../membership.md).",
    "cluster": "",
    "store": "Where nodes tell each other of VIPs. See [the store](../protocols/store.md) and [etcd](../etcd-store.md).",
    "store.etcd": "Idle unless `store.engine` is `etcd`.",
    "store.limits": "What the store holds at most; the same on all nodes. Reaching one is counted and told, and takes nothing away that is there.",
    "source": "Where VIPs are said; as many as there are. Several are joined. See [sources](../sources/README.md).",
    "source.health": "Checks of this source's backends, within its `[[source]]`. What is left out is as in `[health]`.",
    "policy": "Which claims count. See [policy](../policy.md).",
    "policy.rule": "The first rule that fits a claimant counts for it, and a claimant that none fits is refused. `rule = []` refuses all. Without any rule, "
    "there is one with the defaults below, and sources that operators write may have VIPs at any managed address.",
    "names": "",
    "ipvs": "",
    "health": "How this node's own backends of TCP VIPs are checked. See [health](../health.md).",
    "host": "What of the host is set up, as `minuteman doctor --fix` does it. See [host](../host.md).",
    "namespaces": "",
    "api": "Who may ask and command. See [API](api.md).",
    "log": "",
}
"""What is said of a table where its class's docstring says too little."""

_CLASSES: Final[Mapping[str, type]] = {
    "node": settings.NodeConfig,
    "membership": MembershipConfig,
    "cluster": settings.ClusterConfig,
    "store": settings.StoreConfig,
    "store.etcd": settings.EtcdConfig,
    "store.limits": StoreLimits,
    "source": settings.SourceConfig,
    "source.health": settings.HealthConfig,
    "names": settings.NamesConfig,
    "ipvs": settings.IPVSConfig,
    "health": settings.HealthConfig,
    "host": settings.HostConfig,
    "namespaces": settings.NamespacesConfig,
    "api": settings.APIConfig,
    "log": settings.LogConfig,
}
_TEXTS: Final[Mapping[str, str]] = {
    "policy.denied": "Networks denied to all, VIPs and backends, besides those that always are (loopback, link-local, multicast, ...). Name the "
    "networks of hosts here.",
    "policy.guarded_ports": "Ports of hosts that no VIP leads to. Those of this daemon (membership, and API by TCP) always "
    "are; add those of the hosts' own services.",
    "policy.rule.source": "The source's name, or `*`.",
    "policy.rule.principal": "The principal, or `*`. Empty: claims that a source makes for itself.",
    "policy.rule.vip_networks": "Where VIPs may be that are addresses and not names. Not within the ranges of names.",
    "policy.rule.names": "Whether named VIPs may be claimed.",
    "policy.rule.ports": 'Ports of VIPs, such as `"80"` and `"8000-8999"`.',
    "policy.rule.backend_networks": "Where backends may be, besides at the addresses that the source vouches for.",
}
"""Of keys whose fields are another package's, which says it to programmers."""
_OPEN_DEFAULTS: Final = {"ipvs.managed": "those of names and policy", "api.metrics_labels": "all six"}


def field_texts(kind: type) -> dict[str, str]:
    """What the docstrings below the fields of a class say, for people."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    found: dict[str, str] = {}
    before = ""
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            before = node.target.id
        elif before and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            found[before] = for_people(str(node.value.value))
            before = ""
    return found


def for_people(text: str) -> str:
    """A docstring as Markdown, on one line."""
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", " ".join(text.split())).replace("``", "`")
    return re.sub(r"\bNone\b", "Empty", text)


def texts() -> dict[str, str]:
    """What every key means."""
    found = dict(_TEXTS)
    for section, kind in _CLASSES.items():
        said = field_texts(kind)
        found |= {f"{section}.{key}": said[key] for key in KEYS[section] if f"{section}.{key}" not in found}
    return found


def intro(section: str) -> str:
    """What a table is for."""
    doc = for_people((_CLASSES[section].__doc__ or "").partition(": ")[2]) if section in _CLASSES else ""
    return _SECTIONS[section] or doc[0].upper() + doc[1:]


def defaults() -> dict[str, Any]:
    """What counts when a key is left out; those that have no default are not there."""
    plain = describe(settings.DaemonConfig())
    found: dict[str, Any] = {}
    for section, keys in KEYS.items():
        if section in {"source", "source.health"}:
            continue
        table: Any = plain
        for part in section.split("."):
            table = table[part]
        table = table[0] if section == "policy.rule" else table
        found |= {f"{section}.{key}": table[key] for key in keys}
    found |= {f"source.{field.name}": field.default for field in fields(settings.SourceConfig) if field.name in KEYS["source"]}
    return {
        key: value for key, value in found.items() if key not in _OPEN_DEFAULTS and key not in {"source.name", "source.place"}
    }


def kind_text(schema: Mapping[str, Any]) -> str:
    """What is accepted, in a few words."""
    match schema:
        case {"enum": words}:
            return ", ".join(f"`{word}`" for word in words)
        case {"title": title}:
            return str(title)
        case {"type": "array", "items": items}:
            return f"a list: {kind_text(items)}"
        case {"type": "boolean"}:
            return "`true` or `false`"
        case {"type": kind, "minimum": low, "maximum": high}:
            return f"{'a whole number' if kind == 'integer' else 'a number'}, {low:,} to {high:,}"
    raise AssertionError(schema)


def default_text(key: str, known: Mapping[str, Any]) -> str:
    """A key's default, as TOML has it."""
    if key in {"source.name", "source.place"}:
        return "required"
    if key.startswith("source.health."):
        return "as in `[health]`"
    if key in _OPEN_DEFAULTS:
        return _OPEN_DEFAULTS[key]
    value = known[key]
    value = int(value) if isinstance(value, float) and value.is_integer() else value
    return f"`{json.dumps(value)}`"


def header(section: str) -> str:
    """As a TOML file has it."""
    return f"[[{section}]]" if section in {"source", "policy.rule"} else f"[{section}]"


def reference() -> str:
    """The page for people."""
    known, meanings = defaults(), texts()
    parts = [_HEAD]
    for section, keys in KEYS.items():
        parts += [f"## `{header(section)}`\n", intro(section) + "\n"]
        parts += ["| Key | Accepted | Default | Reload | Meaning |", "|---|---|---|---|---|"]
        for key, reader in keys.items():
            name = f"{section}.{key}"
            cells = (
                f"`{key}`",
                kind_text(reader.schema),
                default_text(name, known),
                "restart" if takes_restart(name) else "yes",
                meanings[name],
            )
            parts.append(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |")
        parts.append("")
    return "\n".join(parts)


def example(text: str) -> str:
    """The example with what every key means above the first of its name; its values and their order stay."""
    meanings = texts()
    lines = ["# Every key there is. What is not needed can be left out; docs/reference/configuration.md has the defaults.",
             "# The comments are written by tools/config_reference.py."]  # fmt: skip
    section = ""
    told: set[str] = set()
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        if line.startswith("["):
            section = line.partition("#")[0].strip().strip("[]")
            lines.append("")
            lines += [] if section in told else comment(re.sub(r" See \[.*\)\.$", "", intro(section)))
            told.add(section)
        else:
            name = f"{section}.{line.partition('=')[0].strip()}"
            if name not in told:
                lines += ["", *comment(meanings[name])]
            told.add(name)
        lines.append(line)
    return "\n".join(lines) + "\n"


def comment(text: str) -> list[str]:
    """A text as comments."""
    return textwrap.wrap(text.replace("`", ""), _WIDTH, initial_indent="# ", subsequent_indent="# ")


def schema() -> dict[str, Any]:
    """The JSON Schema of one whole file."""
    meanings, known = texts(), defaults()
    tables = {section: _table_schema(section, meanings, known) for section in KEYS}
    for section in (name for name in KEYS if "." in name):
        outer, _, key = section.rpartition(".")
        table = tables.pop(section)
        tables[outer]["properties"][key] = {"type": "array", "items": table} if header(section).startswith("[[") else table
    tables["source"]["required"] = ["name", "place"]
    tables["source"] = {"type": "array", "items": tables["source"]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of pyminuteman's daemon (TOML)",
        "type": "object",
        "additionalProperties": False,
        "properties": tables,
    }


def _table_schema(section: str, meanings: Mapping[str, str], known: Mapping[str, Any]) -> dict[str, Any]:
    properties: dict[str, Any] = {}
    for key, reader in KEYS[section].items():
        name = f"{section}.{key}"
        properties[key] = dict(reader.schema) | {"description": meanings[name]}
        if name in known:
            properties[key]["default"] = known[name]
    return {"type": "object", "description": intro(section), "additionalProperties": False, "properties": properties}


def written() -> Iterator[tuple[Path, str]]:
    """All that is written."""
    yield REFERENCE, reference()
    yield EXAMPLE, example(EXAMPLE.read_text())
    yield SCHEMA, json.dumps(schema(), indent=2) + "\n"


def main() -> int:
    """Write, or check."""
    stale = [path for path, text in written() if not path.exists() or path.read_text() != text]
    if "--check" in sys.argv:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(ROOT)} is out of date: python tools/config_reference.py\n")
        return int(bool(stale))
    for path, text in written():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
