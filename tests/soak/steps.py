"""What can be done to the cluster, one thing at a time. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

__all__ = ["Document", "Kind", "Step"]

Document = Mapping[str, Mapping[int, int]]
"""What a node's source says: by VIP (``11.0.0.1:80``), the weight of each of the node's own ports behind it."""


class Kind(StrEnum):
    """The kinds of steps."""

    LEAVE = "leave"  # SIGTERM
    JOIN = "join"  # its daemon is started
    PANIC = "panic"  # the link goes, then the process
    REVIVE = "revive"
    LOSE_STATE = (
        "lose state"  # of a node that has panicked: an empty state directory and an empty kernel, as after a new installation
    )
    KILL = "kill"  # kill -9, and started again at once
    CUT = "cut"  # the link alone
    MEND = "mend"
    FREEZE = "freeze"  # SIGSTOP
    THAW = "thaw"
    DRAIN_NODE = "drain node"
    UNDRAIN_NODE = "undrain node"
    DRAIN_BACKEND = "drain backend"
    UNDRAIN_BACKEND = "undrain backend"
    WEIGHT = "weight"
    CLEAR_WEIGHT = "clear weight"
    SAY = "say"  # the source has another document
    BREAK_SOURCE = "break source"  # ... or a text that is none
    DELETE_DESTINATION = "delete destination"  # by ipvsadm in the node's kernel, as the next four
    CHANGE_WEIGHT = "change weight"
    DELETE_SERVICE = "delete service"
    ADD_FOREIGN = "add foreign"
    REMOVE_FOREIGN = "remove foreign"
    RELOAD = "reload"  # SIGHUP with a good configuration
    BREAK_CONFIG = "break config"  # SIGHUP with a bad one, which is put right afterwards
    FILL_DISK = "fill disk"
    FREE_DISK = "free disk"


@dataclass(frozen=True, slots=True)
class Step:
    """One of them.

    Attributes:
        at: When, in seconds from the beginning of its round.
        kind: What.
        nodes: To which nodes.
        document: For SAY.
        vip: Which VIP it is about, where it is about one.
        port: Which of the node's ports, where it is about a backend.
        weight: For WEIGHT.
    """

    at: float
    kind: Kind
    nodes: tuple[int, ...]
    document: Document = field(default_factory=dict, hash=False)
    vip: str = ""
    port: int = 0
    weight: int = 0

    def __str__(self) -> str:
        who = ",".join(f"n{node}" for node in self.nodes)
        what = "" if not self.vip and not self.port else f" {self.vip}" + (f" :{self.port}" if self.port else "")
        if self.kind is Kind.SAY:
            what = f" {len(self.document)} VIPs"
        return f"{self.kind} {who}{what}" + (f" = {self.weight}" if self.kind is Kind.WEIGHT else "")
