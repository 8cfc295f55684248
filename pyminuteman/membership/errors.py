"""The membership branch of the errors. Each says who was wrong and whether anything changed."""

from __future__ import annotations

from pyminuteman.errors import MinutemanError

__all__ = ["InsecureError", "KeyringError", "LocalProtocolError", "MembershipError", "NoContactAnswered", "RemoteProtocolError"]


class MembershipError(MinutemanError):
    """Anything that goes wrong in the membership layer."""


class LocalProtocolError(MembershipError, ValueError):
    """You asked for what the protocol does not allow (too large a payload, a node that has left). Nothing was sent."""


class RemoteProtocolError(MembershipError):
    """A peer, or somebody who pretends to be one, sent what it must not. It was counted and dropped; nothing else changed."""


class NoContactAnswered(MembershipError):
    """None of the contacts answered in the time given. The node runs on alone and keeps asking, unless you stop it."""


class KeyringError(MembershipError, ValueError):
    """A key, or a step of a rotation, that is refused (malformed, unknown, still in use). The keyring is as it was."""


class InsecureError(MembershipError, ValueError):
    """No key, and an address that others can reach: refused. Give a key, or say ``insecure=True`` and mean it."""
