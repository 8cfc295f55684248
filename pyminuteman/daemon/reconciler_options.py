"""How the IPVS table of a network namespace is kept, as operators say it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pyminuteman.ipvs import Scope

__all__ = ["Adopt", "OnExit", "ReconcilerOptions"]

Adopt = Literal["no", "desired", "everything"]
OnExit = Literal["keep", "drain", "flush"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcilerOptions:
    """How a table is kept.

    Attributes:
        managed: The networks whose services may be ours.
        adopt: ``no``; ``desired``: a service that stands where we want one becomes ours; ``everything``: all in the managed networks is.
        max_loss_percent: Hold back what would lose a larger share of the destinations that work.
        audit_seconds: How often to read the kernel's table. In between, only what we did to it is known.
        drain_seconds: How long destinations that are taken away keep their connections, where their VIP does not say; 0 for not at all.
        min_interval_seconds: Between two changes of the table.
        on_exit: What becomes of the table at the end: ``keep``, ``drain`` or ``flush`` what is ours.
    """

    managed: Scope
    adopt: Adopt = "no"
    max_loss_percent: float = 50.0
    audit_seconds: float = 60.0
    drain_seconds: float = 0.0
    min_interval_seconds: float = 0.0
    on_exit: OnExit = "keep"
