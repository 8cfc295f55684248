"""How the API is reached, and who may: read and checked before anything is opened."""

from __future__ import annotations

import hmac
import os
import ssl
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyminuteman.addresses import Endpoint, parse_address
from pyminuteman.errors import ConfigurationError

__all__ = ["METRICS_LABELS", "ApiOptions", "Tokens", "is_loopback", "load_tokens", "tls_context"]

METRICS_LABELS: Final = ("local_address", "local_port", "remote_address", "remote_port", "proto", "local_mark")
"""The labels that rows of ``minuteman_ipvs_backend_*`` may have, as node_exporter calls them."""
_TOKEN_LEAST: Final = 16
_TOKEN_MOST: Final = 4096
_FILE_MOST_BYTES: Final = 65536
_READ: Final = "read"
_PREFIX_V4_LOOPBACK: Final = 127


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiOptions:
    """How the API is reached.

    Attributes:
        socket: Where the unix socket is made, 0660; None for none.
        group: Whose group it is, by name; empty leaves it to the process. Its members may read and write.
        tcp: Where to listen besides; None, the default, for nowhere.
        token_file: What clients over TCP have to know. See :func:`load_tokens`.
        certificate: Our certificate, in PEM: TLS.
        key: Its key; None when it is in the same file.
        client_ca: Who signs the certificates of clients: they need one then, and with it no token.
        hosts: Names that clients over TCP may call this host by, besides addresses and ``localhost``. A page from elsewhere that
            has its own name lead here (DNS rebinding) is not let in.
        metrics_labels: Labels of the rows of backends in ``/metrics``: fewer make fewer rows, which are summed.
        streams: Most streams of events at a time.

    Raises:
        ConfigurationError: TCP that anybody could use, or overhear; a label that is none.
    """

    socket: Path | None = Path("/run/minuteman/api.sock")
    group: str = ""
    tcp: Endpoint | None = None
    token_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    hosts: tuple[str, ...] = ()
    metrics_labels: tuple[str, ...] = METRICS_LABELS
    streams: int = 32

    def __post_init__(self) -> None:
        """Refuse what would be open to others."""
        for label in self.metrics_labels:
            if label not in METRICS_LABELS:
                raise ConfigurationError(
                    None, "api.metrics_labels", f"{label!r} is no label; there are {', '.join(METRICS_LABELS)}"
                )
        if self.tcp is None:
            return
        if self.token_file is None and self.client_ca is None:
            reason = "every user of every host that gets there could drain backends: give token_file, or client_ca"
            raise ConfigurationError(None, "api.tcp", reason)
        if self.certificate is None and self.client_ca is not None:
            raise ConfigurationError(None, "api.client_ca", "certificates of clients need TLS: give cert and key as well")
        if self.certificate is None and not is_loopback(self.tcp.address):
            reason = f"the token would cross the network in the clear to {self.tcp}: give cert and key, or a loopback address"
            raise ConfigurationError(None, "api.tcp", reason)


def is_loopback(address: str) -> bool:
    """Whether only this host can reach it."""
    packed = parse_address(address)[1]
    return packed[0] == _PREFIX_V4_LOOPBACK if len(packed) == 4 else packed == bytes(15) + b"\1"  # noqa: PLR2004


class Tokens:
    """The tokens that are good, and for what. Compared in constant time."""

    def __init__(self, tokens: Sequence[tuple[str, bool]]) -> None:
        """Take tokens, each with whether it may write."""
        self._tokens = [(token.encode(), write) for token, write in tokens]

    def allows(self, token: str) -> bool | None:
        """Whether it may write; None when it is not good for anything."""
        given, verdict = token.encode("utf-8", "surrogateescape"), None
        for known, write in self._tokens:  # all of them, always: how long it takes says nothing
            if hmac.compare_digest(known, given):
                verdict = write
        return verdict


def load_tokens(path: Path) -> Tokens:
    """Read a file of tokens: one a line, 16 characters or more. ``read TOKEN`` may only read. ``#`` begins a comment.

    Raises:
        ConfigurationError: It cannot be read, others can read it, or it holds no good token.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigurationError(path, "", "is no plain file")
            if status.st_mode & 0o077:
                raise ConfigurationError(path, "", f"can be read or written by others; do: chmod 600 {path}")
            text = os.read(descriptor, _FILE_MOST_BYTES).decode("ascii")
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError(path, "", f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(path, "", "tokens are ASCII") from None
    tokens: list[tuple[str, bool]] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        write = words[0] != _READ
        token = words[-1]
        if len(words) != (1 if write else 2) or not _TOKEN_LEAST <= len(token) <= _TOKEN_MOST or not token.isprintable():
            reason = (
                f"expected a token of {_TOKEN_LEAST} to {_TOKEN_MOST} characters, with 'read' before it if it may only read"
            )
            raise ConfigurationError(path, f"line {number}", reason)
        tokens.append((token, write))
    if not tokens:
        raise ConfigurationError(path, "", "holds no token; make one with: openssl rand -hex 32")
    return Tokens(tokens)


def tls_context(options: ApiOptions) -> ssl.SSLContext | None:
    """The TLS side; None without a certificate.

    Raises:
        ConfigurationError: A file cannot be read, or is no certificate or key.
    """
    if options.certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    at = options.certificate
    try:
        # A password, though there is none: OpenSSL would ask for it on the terminal, and wait.
        context.load_cert_chain(at, options.key, password=b"")
        if options.client_ca is not None:
            at = options.client_ca
            context.load_verify_locations(options.client_ca)
            # With tokens besides, a client may do without a certificate.
            context.verify_mode = ssl.CERT_REQUIRED if options.token_file is None else ssl.CERT_OPTIONAL
    except (OSError, ssl.SSLError) as error:
        reason = f"no certificate or key without a password can be read: {error.strerror or error}"
        raise ConfigurationError(at, "TLS", reason) from None
    return context
