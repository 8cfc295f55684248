"""The HTTP client against a real server with real TLS: whom it talks to, how long, how much it reads, and what it never says."""

from __future__ import annotations

import gc
import gzip
import json
import os
import pty
import ssl
import subprocess
import sys
from base64 import b64encode
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import pytest
import trio
import trustme

from pyminuteman.errors import ConfigurationError
from pyminuteman.http_client import HttpClient, HttpError, HttpOptions, without_secrets
from tests.support.web_server import CUT, Answer, Request, json_answer, web_server

OK = json_answer('{"fine": true}')


@dataclass(frozen=True)
class Authority:
    """Certificates for a test: of one authority, and of nobody one should trust."""

    ca: trustme.CA
    ca_file: Path
    server: ssl.SSLContext
    stranger: ssl.SSLContext
    """Its certificate is for another name."""

    def client(self, directory: Path) -> tuple[Path, Path]:
        made = self.ca.issue_cert("client@example.org")
        certificate, key = directory / "client.pem", directory / "client.key"
        made.cert_chain_pems[0].write_to_path(str(certificate))
        made.private_key_pem.write_to_path(str(key))
        return certificate, key


def server_context(ca: trustme.CA, name: str) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    ca.issue_cert(name).configure_cert(context)
    return context


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    ca = trustme.CA()
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    ca.cert_pem.write_to_path(str(path))
    return Authority(ca, path, server_context(ca, "127.0.0.1"), server_context(ca, "other.example.org"))


async def ask(url: str, options: HttpOptions | None = None, path: str = "/x") -> object:
    with trio.fail_after(20):
        async with HttpClient(url, options) as client:
            return await client.json("GET", path)


async def refusal(url: str, options: HttpOptions | None = None, path: str = "/x") -> HttpError:
    with pytest.raises(HttpError) as caught:
        await ask(url, options, path)
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.trio
async def test_requests_are_what_they_should_be() -> None:
    async with web_server(OK) as server, HttpClient(server.url + "/base/", HttpOptions(headers={"x-ours": "1"})) as client:
        answer = await client.json("POST", "/x", body={"a": [1]}, query={"q": "a&b"}, headers={"x-theirs": "2"})
        await client.json("GET", "/y")
    assert answer == {"fine": True}
    first, second = server.requests
    assert (first.method, first.target, json.loads(first.body)) == ("POST", "/base/x?q=a%26b", {"a": [1]})
    assert first.headers["content-type"] == "application/json"
    assert (first.headers["x-ours"], first.headers["x-theirs"]) == ("1", "2")
    assert (first.headers["user-agent"], first.headers["accept-encoding"]) == ("pyminuteman", "identity")
    assert (second.method, second.target, second.body) == ("GET", "/base/y", b"")
    assert "authorization" not in second.headers
    assert server.connections == 1


@pytest.mark.trio
async def test_the_server_is_who_it_should_be(authority: Authority) -> None:
    async with web_server(OK, tls=authority.server) as server:
        assert await ask(server.url, HttpOptions(ca_file=authority.ca_file)) == {"fine": True}
        seen = len(server.requests)
        for options in (None, HttpOptions()):
            assert "CERTIFICATE_VERIFY_FAILED" in str(await refusal(server.url, options))
        assert len(server.requests) == seen  # and has heard nothing, not even a header
        assert await ask(server.url, HttpOptions(insecure=True)) == {"fine": True}


@pytest.mark.trio
async def test_a_certificate_for_another_name_is_none(authority: Authority) -> None:
    async with web_server(OK, tls=authority.stranger) as server:
        error = await refusal(server.url, HttpOptions(ca_file=authority.ca_file))
        assert "IP address mismatch" in str(error)
        assert server.requests == []
        assert await ask(server.url, HttpOptions(ca_file=authority.ca_file, insecure=True)) == {"fine": True}


@pytest.mark.trio
async def test_servers_that_ask_for_a_certificate_get_ours(authority: Authority, tmp_path: Path) -> None:
    asking = server_context(authority.ca, "127.0.0.1")
    asking.verify_mode = ssl.CERT_REQUIRED
    authority.ca.configure_trust(asking)
    certificate, key = authority.client(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    async with web_server(OK, tls=asking) as server:
        for options in (
            HttpOptions(ca_file=authority.ca_file, certificate_file=certificate, key_file=key),
            HttpOptions(ca_file=authority.ca_file, certificate_file=both),
        ):
            assert await ask(server.url, options) == {"fine": True}
        seen = len(server.requests)
        await refusal(server.url, HttpOptions(ca_file=authority.ca_file))
        assert len(server.requests) == seen


def encrypted_key(authority: Authority, directory: Path) -> Path:
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415

    _, key = authority.client(directory)
    made = serialization.load_pem_private_key(key.read_bytes(), None)
    path = directory / "locked.key"
    path.write_bytes(
        made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"password"),
        )
    )
    return path


def test_files_of_tls_that_are_no_good_are_named_at_once(authority: Authority, tmp_path: Path) -> None:
    certificate, _ = authority.client(tmp_path)
    locked = encrypted_key(authority, tmp_path)
    empty, missing = tmp_path / "empty.pem", tmp_path / "missing.pem"
    empty.write_text("")
    for options, at, said in (
        (HttpOptions(ca_file=missing), missing, "No such file"),
        (HttpOptions(ca_file=empty), empty, "no certificates to trust"),
        (HttpOptions(certificate_file=missing), missing, "No such file"),
        (HttpOptions(ca_file=authority.ca_file, certificate_file=empty), empty, "no certificate with its key"),
        (HttpOptions(certificate_file=certificate), certificate, "no certificate with its key"),
        (HttpOptions(certificate_file=certificate, key_file=locked), certificate, "which has no password"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            HttpClient("https://127.0.0.1:1", options)
        assert str(caught.value).startswith(f"{at}")
        assert said in str(caught.value)


def test_a_locked_key_is_not_asked_for_on_the_terminal(authority: Authority, tmp_path: Path) -> None:
    certificate, _ = authority.client(tmp_path)
    script = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
open("/dev/tty").close()
from pathlib import Path
from pyminuteman.http_client import HttpOptions
try:
    HttpOptions(certificate_file=Path(sys.argv[1]), key_file=Path(sys.argv[2])).ssl_context()
except ValueError as error:
    print(error)
"""
    ours, theirs = pty.openpty()  # a terminal at which nobody sits
    try:
        done = subprocess.run(
            [sys.executable, "-c", script, str(certificate), str(encrypted_key(authority, tmp_path))],
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=60,
            start_new_session=True,
            check=True,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert "which has no password, can be read" in done.stdout


@pytest.mark.trio
async def test_a_redirect_is_news_for_the_caller_and_is_not_followed() -> None:
    async with web_server(OK) as other:
        location = other.url + "/elsewhere"
        for status in (301, 302, 303, 307, 308):
            async with web_server(Answer(status, {"location": location}, [b""])) as server:
                error = await refusal(server.url)
                assert (error.status, error.location) == (status, location)
        assert other.requests == []


@pytest.mark.trio
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "9" * 5000}, 999_999_999.0),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "1.5"}, None),
        ({"retry-after": "\xb2"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT"}, None),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:30 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 30.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 GMT", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"retry-after": "Wed, 21 Oct 2015 07:27:00 -0000", "date": "Wed, 21 Oct 2015 07:28:00 GMT"}, None),
    ],
)
async def test_when_to_come_back(headers: dict[str, str], seconds: float | None) -> None:
    async with web_server(Answer(503, headers, [b"later"])) as server:
        error = await refusal(server.url)
        assert (error.status, error.retry_after_seconds) == (503, seconds)
        assert str(error) == f"{server.url}/x: answered 503: later"
        assert error.body == "later"


@pytest.mark.trio
async def test_a_refusal_is_told_in_a_line_and_not_in_a_book() -> None:
    flood = Answer(400, {}, [b"\x1b[31mred\r\n\x00" + b"x" * 60_000, b"y" * 60_000, 30.0])
    async with web_server(flood) as server:
        error = await refusal(server.url)
        assert len(str(error)) < 300
        assert error.status == 400


@pytest.mark.trio
async def test_a_refusal_that_does_not_end_is_not_waited_for() -> None:
    async with web_server(Answer(400, {}, [b"well", 60.0])) as server:
        before = trio.current_time()
        assert (await refusal(server.url)).status == 400
        assert trio.current_time() - before < 10


@pytest.mark.trio
async def test_limits_hold_whatever_the_headers_say() -> None:
    async with web_server(lambda _: Answer(200, {}, [b"x" * 600] * 2)) as server, HttpClient(server.url) as client:
        async with client.stream("GET", "/") as response:
            assert response.status == 200
            assert len(await response.read(1200)) == 1200
        with pytest.raises(HttpError, match="more than 1199 bytes"):
            async with client.stream("GET", "/") as response:
                await response.read(1199)
        with pytest.raises(HttpError, match="more than 5 bytes"):
            await client.json("GET", "/", most=5)
        async with client.stream("GET", "/") as response:  # and the connection, or another one, is still good
            assert b"".join([chunk async for chunk in response.chunks()]) == b"x" * 1200


@pytest.mark.trio
@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (Answer(silent_seconds=60), "ReadTimeout"),
        (Answer(200, {}, [b"[", 60.0]), "ReadTimeout"),
        (Answer(200, {}, [b"[", CUT]), "RemoteProtocolError"),
        (Answer(200, {}, [b"{"]), "the answer is no JSON"),
        (Answer(200, {}, [b"\xff"]), "the answer is no JSON"),
        (Answer(200, {}, [b"1" * 5000]), "the answer is no JSON"),
        (Answer(200, {}, [b"[" * 100_000]), "the answer is no JSON"),
        (Answer(200, {"content-encoding": "gzip"}, [gzip.compress(b"1" * 10_000_000)]), "the answer is in encoding 'gzip'"),
    ],
)
async def test_what_goes_wrong_is_one_error_and_soon(answer: Answer, said: str) -> None:
    async with web_server(answer) as server:
        error = await refusal(server.url, HttpOptions(timeout_seconds=0.2))
        assert str(error).startswith(f"{server.url}/x: {said}")
        assert error.status is None


@pytest.mark.trio
async def test_a_request_may_wait_longer_than_the_others() -> None:
    hasty = HttpOptions(timeout_seconds=0.05)
    async with web_server(Answer(200, {}, [b"1"], silent_seconds=0.5)) as server, HttpClient(server.url, hasty) as client:
        with pytest.raises(HttpError, match="ReadTimeout"):
            await client.json("GET", "/")
        assert await client.json("GET", "/", timeout_seconds=10) == 1


@pytest.mark.trio
async def test_nobody_is_there_or_speaks_something_else() -> None:
    async def nonsense(stream: trio.SocketStream) -> None:
        async with stream:
            await stream.send_all(b"SSH-2.0-OpenSSH_9.2\r\n" * 3)

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, nonsense, 0)
        port = listeners[0].socket.getsockname()[1]
        assert "RemoteProtocolError" in str(await refusal(f"http://127.0.0.1:{port}"))
        assert "ConnectError" in str(await refusal(f"https://127.0.0.1:{port}"))
        nursery.cancel_scope.cancel()
    assert "ConnectError" in str(await refusal(f"http://127.0.0.1:{port}"))
    assert "ConnectError" in str(await refusal("http://unused:1", HttpOptions(unix_socket=Path("/nowhere/socket"))))


@pytest.mark.trio
async def test_tokens_are_read_anew_for_each_request(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("first\n")
    async with web_server(OK) as server:
        async with HttpClient(server.url, HttpOptions(token_file=path)) as client:
            await client.json("GET", "/")
            path.write_text("second\n")
            await client.json("GET", "/")
        async with HttpClient(server.url, HttpOptions(token_file=path, token_scheme="token=")) as client:  # noqa: S106 - no secret
            await client.json("GET", "/")
    assert [request.headers["authorization"] for request in server.requests] == [
        "Bearer first",
        "Bearer second",
        "token=second",
    ]


@pytest.mark.trio
@pytest.mark.parametrize("content", [b"", b"\n", b"s3cret\nmore", "s3cr\u00e9t".encode(), b"s3cret\x00", b"s3cret" * 5000])
async def test_a_token_that_is_none_is_not_sent_and_not_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    async with web_server(OK) as server:
        error = await refusal(server.url, HttpOptions(token_file=path))
        assert str(error).startswith(f"the token in {path} is none: expected one line")
        assert "s3c" not in str(error)
        assert server.requests == []
        path.unlink()
        assert "cannot be read: No such file" in str(await refusal(server.url, HttpOptions(token_file=path)))


def echo(status: int) -> Callable[[Request], Answer]:
    """A server that repeats all it was told, as some do."""
    return lambda request: Answer(status, {"location": "/x"}, [f"{request.headers.get('authorization')} to you".encode()])


@pytest.mark.trio
async def test_no_error_tells_a_secret(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("s3cret-token")
    options = HttpOptions(token_file=path, timeout_seconds=0.2)
    async with web_server(echo(403)) as server:
        for answer in (echo(403), echo(307), lambda _: Answer(200, {}, [b"no json"]), lambda _: Answer(silent_seconds=60)):
            server.answer = answer
            url = server.url.replace("://", "://me:s3cret-password@")
            error = await refusal(url, options, "/x?key=s3cret-query")
            assert "s3cret-token" not in str(error)
            assert "s3cret-password" not in str(error)
            assert "s3cret-query" not in str(error)
            assert error.__cause__ is None
            error = await refusal(server.url, options, "/x?key=s3cret-query")
            assert "s3cret" not in str(error) + error.body
            error = await refusal(url, HttpOptions(timeout_seconds=0.2), "/x?key=s3cret-query")
            assert "s3cret" not in str(error)
            assert b64encode(b"me:s3cret-password").decode() not in str(error)
        server.answer = echo(403)
        assert str(await refusal(server.url, options)).endswith("answered 403: Bearer *** to you")
        assert str(await refusal(url, HttpOptions())).endswith("answered 403: Basic *** to you")
    for url in ("http://me:s3cret@/", "ftp://me:s3cret@host", "https://me:s3cret@[::1", "http://me:s3cret@host:99999"):
        with pytest.raises(ConfigurationError) as caught:
            HttpClient(url)
        assert "s3cret" not in str(caught.value)


@pytest.mark.trio
async def test_a_body_that_is_left_in_the_middle_is_left_for_good() -> None:
    async with web_server(Answer(200, {}, [b"x" * 100_000, b"y" * 100_000, 600.0])) as server, HttpClient(server.url) as client:
        for _ in range(3):  # warnings of generators that nobody closed would be errors here
            async with client.stream("GET", "/") as response:
                async for _ in response.chunks():
                    break
        async with client.stream("GET", "/") as response, aclosing(response.chunks()) as chunks:
            assert (await anext(chunks)).startswith(b"x")
        async with client.stream("GET", "/"):
            pass
        gc.collect()
        assert server.connections == 5


@pytest.mark.trio
async def test_as_many_requests_as_somebody_makes_wait_at_once() -> None:
    async with web_server(Answer(200, {}, [b"1"], silent_seconds=1.0)) as server, HttpClient(server.url) as client:
        async with trio.open_nursery() as nursery:
            for _ in range(150):
                nursery.start_soon(client.json, "GET", "/")
            with trio.fail_after(30):
                while len(server.requests) < 150:  # noqa: ASYNC110 - there is no event to wait for
                    await trio.sleep(0.01)
        assert server.connections == 150


@pytest.mark.trio
async def test_a_socket_in_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with web_server(OK, unix_socket=path) as server:
        assert await ask("http://docker", HttpOptions(unix_socket=path)) == {"fine": True}
        assert server.requests[0].headers["host"] == "docker"


@pytest.mark.trio
async def test_the_environment_sends_nobody_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with web_server(OK) as server:
        assert await ask(server.url) == {"fine": True}


@pytest.mark.trio
async def test_a_path_that_no_url_has() -> None:
    error = await refusal("http://127.0.0.1:1", path="/\x00")
    assert "the URL, or a header, is none that can be sent" in str(error)


@pytest.mark.trio
async def test_a_header_that_cannot_be_sent() -> None:
    async with web_server(OK) as server, HttpClient(server.url) as client:
        for value in ("\xe9", "a\r\nb: c"):
            with pytest.raises(HttpError):
                await client.json("GET", "/", headers={"x-ours": value})
        assert server.requests == []


@pytest.mark.trio
async def test_giving_up_does_not_hang() -> None:
    async with web_server(Answer(200, {}, [b"x", 600.0])) as server, HttpClient(server.url) as client:
        with trio.move_on_after(0.2) as scope:
            async with client.stream("GET", "/") as response:
                async for _ in response.chunks():
                    pass
        assert scope.cancelled_caught


@pytest.mark.parametrize(
    "url", ["", "x", "ftp://h", "http://", "https:///x", "http://[::1", "http://h:0", "http://h:70000", "http://h\n/"]
)
def test_what_is_no_url(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a URL such as https://host:1234"):
        HttpClient(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://me:pw@host:8443/a/b?token=x#y", "https://host:8443/a/b"),
        ("http://[fd00::1]/a", "http://[fd00::1]/a"),
        ("http://[fd00::1]:80/a", "http://[fd00::1]:80/a"),
        ("http://host:0/", "http://host:0/"),
        ("http://host:x/?token=y", "(no URL)"),
        ("http://[/?token=y", "(no URL)"),
        ("http://h/\x1b[31m", "http://h/?[31m"),
    ],
)
def test_urls_are_shown_without_what_may_be_secret(url: str, shown: str) -> None:
    assert without_secrets(url) == shown
