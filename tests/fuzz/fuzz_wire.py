"""Fuzz what reads bytes from the network: payloads, records, datagrams, streams. ``python -m tests.fuzz.fuzz_wire CORPUS [OPTIONS]``.

The options are libFuzzer's (``-max_total_time=3600``). The first byte of an input says which reader gets the rest, so one corpus
serves them all. Nothing but RemoteProtocolError may come out of a reader, and what a payload says must survive being said again.
"""

from __future__ import annotations

import sys
from pathlib import Path

try:
    import atheris
except ImportError:  # no wheel for this interpreter or machine: `run` can be called without it
    atheris = None

if atheris is None:
    from pyminuteman.membership import codec, errors, keyring, records, stream_session
else:
    with atheris.instrument_imports(include=["pyminuteman.membership"]):
        from pyminuteman.membership import codec, errors, keyring, records, stream_session

from tests.support.messages import FIXED, node_id, peer, record

KEY = keyring.Key(b"k" * 32)
RING = keyring.Keyring([KEY], cluster="fuzz", boot=b"our own boot")
PLAIN_RING = keyring.PlainRing(cluster="fuzz", boot=b"our own boot")
READERS = 7


def run(data: bytes) -> None:
    """One input."""
    if not data:
        return
    reader, data = data[0] % READERS, data[1:]
    try:
        read(reader, data)
    except errors.RemoteProtocolError as error:
        reason = str(error)
    else:
        reason = ""
    assert len(reason) < 300, "an error repeats little of what it refuses"


def read(reader: int, data: bytes) -> None:
    if reader == 0:
        said_again(codec.unpack(data))
    elif reader == 1:
        said_again(codec.unpack(data, stream=True))
    elif reader == 2:
        encoded = records.EncodedRecord(node_id(1), 1, 1, data)
        found = records.Record.decode(encoded)
        assert records.Record.decode(found.encode()) == found
    elif reader == 3:
        assert RING.open(data) is None, "a forgery"
    elif reader == 4:
        PLAIN_RING.open(data)
    elif reader == 5:
        server = stream_session.StreamSession(RING, server=True)
        assert server.feed(data) == b"", "an answer to a stranger"
    else:
        frames(data)


def said_again(unpacked: codec.Unpacked) -> None:
    payloads, large = codec.pack(unpacked.messages, unpacked.sender, limit=1 << 24)
    found = [codec.unpack(payload, stream=True) for payload in (*payloads, *large)]
    assert sum(len(again.messages) for again in found) >= len(unpacked.messages)
    assert {again.sender for again in found} <= {unpacked.sender}


def frames(data: bytes) -> None:
    """What a client says once it is known: unsealed here, so that lengths are reached; sealed frames are refused by their tag."""
    server = stream_session.StreamSession(PLAIN_RING, server=True)
    client = stream_session.StreamSession(keyring.PlainRing(cluster="fuzz"), server=False)
    client.feed(server.feed(client.client_hello()))
    for piece in (data[:7], data[7:]):
        server.feed(piece)
        while (payload := server.next()) is not None:
            assert 0 < len(payload) <= len(data)


def seeds() -> dict[str, bytes]:
    """Names to inputs."""
    made = {}
    for message, _ in FIXED:
        for sender in (None, peer()):
            ((payload,), ()) = codec.pack([message], sender, limit=1159)
            made[f"{type(message).__name__}-{bool(sender)}"] = b"\0" + payload
            made[f"{type(message).__name__}-{bool(sender)}-stream"] = b"\1" + payload
    body = record(tags=(("k", "v"),), keys=(b"kkkk",), addresses=("::1",)).encode().body
    plain = keyring.PlainRing(cluster="fuzz", boot=b"somebody els")
    client = stream_session.StreamSession(keyring.Keyring([KEY], cluster="else"), server=False)
    return made | {
        "record": b"\2" + body,
        "sealed": b"\3" + keyring.Keyring([KEY], cluster="else", boot=b"somebody els").seal(b"payload"),
        "plain": b"\4" + plain.seal(b"payload"),
        "hello": b"\5" + client.client_hello(),
        "frames": b"\6\0\0\0\5hello\0\0\0\1x",
    }


if __name__ == "__main__":
    if atheris is None:
        sys.exit("fuzz_wire: atheris is not installed, and has wheels for few interpreters: pip install atheris")
    corpus = Path(sys.argv[1])
    corpus.mkdir(exist_ok=True)
    for name, seed in seeds().items():
        (corpus / name).write_bytes(seed)
    atheris.Setup(sys.argv, run)
    atheris.Fuzz()
