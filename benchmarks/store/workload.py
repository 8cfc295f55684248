"""What is in the store: nodes with a hundred backends each, of a thousand VIPs.

An entry is one backend: ``vips/tcp:11.0.3.17:80`` is said by whoever runs one, with its address and port. A hundred nodes say each
key. The change that is measured is a task that came back on another port: the same key, 16 bytes of value.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from pyminuteman.addresses import NodeId
from pyminuteman.kv.entries import Log

BACKENDS = 100
"""Entries of one node."""
_VIPS = 1000
_FIRST_PORT = 31000
_PORTS = 1000


def node_ids(count: int) -> list[NodeId]:
    """So many nodes: the same each time."""
    random = Random(1)
    return [NodeId(random.randbytes(NodeId.SIZE)) for _ in range(count)]


def key(node: int, backend: int) -> str:
    """Which VIP that backend of that node is of: each node has another hundred of the thousand."""
    vip = (node * 7 + backend * (_VIPS // BACKENDS) + node // BACKENDS) % _VIPS
    return f"vips/tcp:11.0.{vip >> 8}.{vip & 255}:80"


def value(node: int, turn: int) -> bytes:
    """Where it is; ``turn`` tells one time from the next."""
    return b"10.0.%d.%d:%d" % (node >> 8, node & 255, _FIRST_PORT + turn % _PORTS)


def entries(node: int, backends: int = BACKENDS) -> Iterator[tuple[str, bytes]]:
    """What a node says."""
    return ((key(node, backend), value(node, backend)) for backend in range(backends))


def log(owner: NodeId, epoch: int, node: int, backends: int = BACKENDS) -> Log:
    """The log of a node that has said so at its start, and nothing since."""
    made = Log(owner, epoch, base=1)
    made.begin(entries(node, backends))
    return made
