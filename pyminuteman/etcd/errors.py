"""The etcd branch of the errors. Each says who was wrong and whether anything changed."""

from __future__ import annotations

from pyminuteman.errors import MinutemanError

__all__ = ["EtcdAnswerInvalid", "EtcdCompacted", "EtcdError", "EtcdRefused", "EtcdTooLarge", "EtcdUnavailable", "LeaseGone"]


class EtcdError(MinutemanError):
    """Anything that goes wrong between us and an etcd.

    Attributes:
        endpoint: Which member it was about; empty when it was about none, or is in the text.
    """

    endpoint = ""

    def __str__(self) -> str:
        """``ENDPOINT: REASON``."""
        reason = super().__str__()
        return reason if not self.endpoint or self.endpoint in reason else f"{self.endpoint}: {reason}"


class EtcdUnavailable(EtcdError):
    """No endpoint answered in time, or the cluster has no leader. A read changed nothing; a write may have been taken in, or may be yet."""


class EtcdRefused(EtcdError):
    """The etcd says no to the request itself (no permission, too large, database full), and will again. Nothing was changed.

    Attributes:
        code: The status code of gRPC, such as 7 for PERMISSION_DENIED.
    """

    def __init__(self, reason: str, code: int) -> None:
        """Say what it said."""
        super().__init__(reason)
        self.code = code


class LeaseGone(EtcdRefused):
    """The lease has expired or was revoked, and all keys under it are gone."""

    def __init__(self, reason: str) -> None:
        """Say what it said; the code is NOT_FOUND."""
        super().__init__(reason, 5)


class EtcdCompacted(EtcdError):
    """The history that was asked for is no longer kept: read the present instead. Nothing was changed.

    Attributes:
        revision: From where on history is kept; 0 where the etcd did not say.
    """

    def __init__(self, reason: str, revision: int = 0) -> None:
        """Say where, and from which revision on there is history."""
        super().__init__(reason)
        self.revision = revision


class EtcdAnswerInvalid(EtcdError):
    """What answered is no etcd with the API v3, or is broken: the answer has not the form that it must have."""


class EtcdTooLarge(EtcdError):
    """There is more under the prefix than we are ready to hold; nothing of it was taken."""
