"""When a source is silent for too long: keep what it said last, or withdraw it after so many seconds.

Minuteman withdrew the backends of its host after 60 seconds without an answer of the agent; dcos-net never did. Neither suits all: an
agent that is down says nothing of containers, which go on running; a host whose agent stays down is often half dead itself. So it is
said, and the status tells which of the two is the case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NoReturn

import trio

from pyminuteman.errors import ConfigurationError
from pyminuteman.sources.base import LatestState, SourceState, SourceStatus
from pyminuteman.sources.mesos_json import address

__all__ = ["OutageStatus", "check_agent", "check_times", "withdraw_when_silent"]

_DAY_SECONDS: Final = 86400


def check_times(times: Mapping[str, float], *, poll: str, after: float | None, poll_seconds: float) -> None:
    """Let the times of a source pass.

    Args:
        times: Of the options, by their names: among them ``retry_most_seconds``, and the one that ``poll`` names.
        poll: Which of them failures are tried again after first.
        after: When what a silent server said is withdrawn; None: never.
        poll_seconds: Between two polls when all is well.

    Raises:
        ConfigurationError: A time that is none, or withdrawal before two polls can have failed.
    """
    for name, seconds in times.items():
        if not 0 < seconds <= _DAY_SECONDS:
            raise ConfigurationError(None, name, f"{seconds!r} is not a time (above 0, up to {_DAY_SECONDS} seconds)")
    if times["retry_most_seconds"] < times[poll]:
        raise ConfigurationError(None, "retry_most_seconds", f"is less than the {times[poll]:g} s between polls")
    if after is not None and not 2 * poll_seconds <= after <= _DAY_SECONDS:
        reason = f"{after!r} is not a time (from two polls, {2 * poll_seconds:g}, up to {_DAY_SECONDS} seconds)"
        raise ConfigurationError(None, "withdraw_after_seconds", reason)


def check_agent(text: str) -> str:
    """The address of an agent in canonical form; empty for all agents.

    Raises:
        ConfigurationError: It is none.
    """
    agent = address(text) if text else ""
    if agent is None:
        raise ConfigurationError(None, "agent", f"{text!r} is not an IP address")
    return agent


@dataclass(slots=True)
class OutageStatus(SourceStatus):
    """A status that says whether everything is withdrawn."""

    withdrawn: str = ""
    """Since when and why; empty while states stand."""
    heard_at: float | None = None
    """When the server last said something that makes sense, though it may have been no state; None for never."""

    def heard(self, now: float) -> None:
        """It is not silent."""
        self.heard_at = now

    def good(self, now: float) -> None:
        """A complete state was read."""
        SourceStatus.good(self, now)
        self.heard_at = now
        self.withdrawn = ""

    def failed(self, now: float, reason: str) -> None:
        """It could not be read."""
        SourceStatus.failed(self, now, f"{self.withdrawn}{reason}")


async def withdraw_when_silent(latest: LatestState, status: OutageStatus, after_seconds: float) -> NoReturn:
    """Put an empty state once nothing good was heard for so long; beside what reads the source.

    The next good state takes its place. It counts from what was heard last, or from the start where that was nothing, so a server that
    holds the line without a word is silent like one that refuses.
    """
    started = trio.current_time()
    while True:
        heard = started if status.heard_at is None else status.heard_at
        left = heard + after_seconds - trio.current_time()
        if left > 0:
            await trio.sleep(left)
            continue
        if not status.withdrawn:
            status.withdrawn = f"all VIPs are withdrawn, for nothing good was heard for {after_seconds:g} s; "
            status.reason = status.withdrawn + (status.reason or "no answer yet")
            status.counters["withdrawals"] = status.counters.get("withdrawals", 0) + 1
            latest.put(SourceState())
        await trio.sleep(min(after_seconds, 1.0))
