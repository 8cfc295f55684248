"""Who may ask what: over the unix socket as other users, over TCP with and without a token or a certificate, and through a browser."""

from __future__ import annotations

import json
import shutil
import socket
import ssl
import stat
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trustme

from pyminuteman.addresses import Endpoint
from pyminuteman.daemon.api import ApiOptions, open_api
from pyminuteman.daemon.api.http_server import ServerLimits
from pyminuteman.daemon.api.options import load_tokens
from pyminuteman.daemon.api.peers import user_name
from pyminuteman.daemon.api.sockets import listening_unix
from pyminuteman.errors import ConfigurationError
from tests.daemon.api.double import Double
from tests.daemon.api.wire import answered, http, read_until
from tests.support.tools import needs, root

NOBODY = 65534
SECRET = "0123456789abcdef-write"  # noqa: S105
READER = "0123456789abcdef-read"
LOOPBACK = Endpoint("127.0.0.1", 0)
DRAIN = json.dumps({"node": "two"}).encode()

needs_root = needs(root())  # becomes other users

# A process that becomes another user (who may not be able to read the interpreter), connects, sends, and prints the status.
ASK = """
import os, socket, sys
path, request, user, *groups = sys.argv[1:]
os.setgroups([int(group) for group in groups[1:]])
os.setgid(int(groups[0]))
os.setuid(int(user))
peer = socket.socket(socket.AF_UNIX)
peer.settimeout(5)
try:
    peer.connect(path)
except PermissionError:
    sys.exit("no permission")
peer.sendall(request.encode())
print(peer.recv(4096).split()[1].decode())
"""


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users can get into."""
    path = Path(tempfile.mkdtemp(prefix="pmm-api-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


async def ask_tcp(at: Endpoint, request: bytes) -> tuple[int, dict[str, str], bytes]:
    async with await trio.open_tcp_stream(at.address, at.port) as stream:
        await stream.send_all(request)
        return await answered(stream)


async def ask_as(path: Path, request: bytes, *, user: int, groups: list[int]) -> subprocess.CompletedProcess[str]:
    """What a process of that user, with only these groups, is answered."""
    words = [sys.executable, "-S", "-c", ASK, str(path), request.decode(), str(user), *map(str, groups)]
    run = partial(subprocess.run, words, capture_output=True, text=True, timeout=10, check=False)
    return await trio.to_thread.run_sync(run)


# The unix socket


@pytest.mark.trio
async def test_the_socket_is_for_owner_and_group(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with open_api(Double(), ApiOptions(socket=path)):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert not path.exists()


@needs_root
@pytest.mark.trio
async def test_peers_are_known_by_the_kernel(place: Path) -> None:
    path, read, write = (
        place / "api.sock",
        http("GET", "/v1/status"),
        http("POST", "/v1/drain", DRAIN, Content_Type="application/json"),
    )
    double = Double()
    group = "daemon"  # Debian's gid 1; any that is there
    async with open_api(double, ApiOptions(socket=path, group=group)):
        gid = path.stat().st_gid
        assert gid == 1
        outsider = await ask_as(path, read, user=NOBODY, groups=[NOBODY])
        assert outsider.stderr.strip() == "no permission"
        member = await ask_as(path, write, user=NOBODY, groups=[NOBODY, gid])  # by a supplementary group
        assert member.stdout == "200\n"
        path.chmod(0o666)  # an operator lets everybody read
        assert (await ask_as(path, read, user=NOBODY, groups=[NOBODY])).stdout == "200\n"
        assert (await ask_as(path, write, user=NOBODY, groups=[NOBODY])).stdout == "403\n"
    assert [(verb, by) for verb, _, by, _ in double.done] == [("drain", "nobody")]


def test_a_dead_processes_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with listening_unix(path) as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        listener.accept()[0].close()


def test_what_is_there_is_not_taken(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with listening_unix(path):
        with pytest.raises(ConfigurationError, match="another process listens there"), listening_unix(path):
            pass
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match="no socket; it was left alone"), listening_unix(path):
        pass
    assert path.read_text() == "mine"
    with pytest.raises(ConfigurationError, match="mkdir -p"), listening_unix(tmp_path / "no" / "api.sock"):
        pass
    with pytest.raises(ConfigurationError, match="there is no group 'no-such-group'"), listening_unix(path, "no-such-group"):
        pass
    assert [entry.name for entry in tmp_path.iterdir()] == ["api.sock"]


def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with listening_unix(path):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(path))
    assert path.exists()


# TCP


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens"
    path.write_text(f"# who\n{SECRET}\nread {READER}\n")
    path.chmod(0o600)
    return path


def test_options_that_would_be_open_to_others_are_refused(tmp_path: Path, token_file: Path) -> None:
    with pytest.raises(ConfigurationError, match="give token_file, or client_ca"):
        ApiOptions(tcp=LOOPBACK)
    with pytest.raises(ConfigurationError, match="in the clear"):
        ApiOptions(tcp=Endpoint("192.0.2.1", 61421), token_file=token_file)
    with pytest.raises(ConfigurationError, match="certificates of clients need TLS"):
        ApiOptions(tcp=LOOPBACK, client_ca=tmp_path / "ca.pem")
    ApiOptions(tcp=Endpoint("::1", 0), token_file=token_file)
    with pytest.raises(ConfigurationError, match="'colour' is no label"):
        ApiOptions(metrics_labels=("colour",))


@pytest.mark.parametrize(
    ("text", "mode", "said"),
    [
        (SECRET, 0o640, "chmod 600"),
        ("short", 0o600, "line 1: expected a token of 16"),
        (f"write {SECRET}", 0o600, "line 1"),
        ("# none\n", 0o600, "holds no token"),
        ("ä" * 16, 0o600, "ASCII"),
    ],
)
def test_token_files_that_are_no_good(tmp_path: Path, text: str, mode: int, said: str) -> None:
    path = tmp_path / "tokens"
    path.write_text(text)
    path.chmod(mode)
    with pytest.raises(ConfigurationError, match=said):
        load_tokens(path)
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_tokens(link)
    with pytest.raises(ConfigurationError, match="is no plain file"):
        load_tokens(tmp_path)


@pytest.mark.trio
async def test_tcp_needs_a_token_for_all_but_healthz(token_file: Path) -> None:
    double = Double()
    basic = b64encode(f"anybody:{SECRET}".encode()).decode()
    async with open_api(double, ApiOptions(socket=None, tcp=LOOPBACK, token_file=token_file)) as api:
        assert api.tcp is not None
        ask, host = partial(ask_tcp, api.tcp), str(api.tcp)
        for path in ("/v1/status", "/metrics", "/", "/v1/openapi.json"):
            status, headers, body = await ask(http("GET", path, Host=host))
            assert (status, json.loads(body)["error"]["code"]) == (401, "unauthorized")
            assert headers["www-authenticate"].startswith("Basic")
        for wrong in ("Bearer x", f"Bearer {SECRET}x", "Basic !", "Basic eDp5", f"Digest {SECRET}", "Bearer \xff"):
            assert (await ask(http("GET", "/v1/status", Host=host, Authorization=wrong)))[0] in {400, 401}
        assert (await ask(http("GET", "/healthz", Host=host)))[0] == 200
        for good in (f"Bearer {SECRET}", f"bearer {READER}", f"Basic {basic}"):
            assert (await ask(http("GET", "/v1/status", Host=host, Authorization=good)))[0] == 200
        write = partial(http, "POST", "/v1/drain", DRAIN, Content_Type="application/json", Host=host)
        status, _, body = await ask(write(Authorization=f"Bearer {READER}", X_Minuteman="1"))
        assert (status, json.loads(body)["error"]["code"]) == (403, "forbidden")
        status, _, body = await ask(write(Authorization=f"Bearer {SECRET}"))
        assert (status, json.loads(body)["error"]["code"]) == (403, "no_header")
        assert double.done == []
        assert (await ask(write(Authorization=f"Bearer {SECRET}", X_Minuteman="1")))[0] == 200
        assert api.metrics()["refused_requests_total"] >= 8
    assert [by for _, _, by, _ in double.done] == ["token from 127.0.0.1"]


@pytest.mark.trio
async def test_pages_of_other_sites_get_nowhere(token_file: Path) -> None:
    double = Double()
    options = ApiOptions(socket=None, tcp=LOOPBACK, token_file=token_file, hosts=("lb.example",))
    async with open_api(double, options) as api:
        assert api.tcp is not None
        host, known = str(api.tcp), f"Bearer {SECRET}"

        async def status(method: str = "GET", body: bytes = b"", **headers: str) -> tuple[int, Any]:
            path = "/v1/status" if method == "GET" else "/v1/drain"
            headers = {"Host": host, "Authorization": known, **headers}
            found, _, answer = await ask_tcp(api.tcp, http(method, path, body, **headers))  # type: ignore[arg-type]
            return found, json.loads(answer).get("error", {}).get("code")

        # A name of theirs that leads here (DNS rebinding)
        for name in ("evil.example", f"evil.example:{api.tcp.port}", "localhost.evil.example", "", "127.0.0.1.evil.example"):
            assert await status(Host=name) == (421, "wrong_host"), name
        for name in ("localhost", f"LOCALHOST:{api.tcp.port}", "lb.example", "[::1]", "[::1]:80", "192.0.2.1"):
            assert await status(Host=name) == (200, None), name
        # Requests that their pages make
        assert await status(Origin="http://evil.example") == (403, "wrong_origin")
        assert await status(Origin="null") == (403, "wrong_origin")
        assert await status(Origin=f"https://{host}") == (403, "wrong_origin")
        assert await status(Origin=f"http://{host}") == (200, None)
        post = partial(status, "POST", DRAIN, Content_Type="application/json")
        assert await post(Origin="http://evil.example", X_Minuteman="1") == (403, "wrong_origin")
        assert await post(Sec_Fetch_Site="cross-site", X_Minuteman="1") == (403, "wrong_origin")
        assert await post(Sec_Fetch_Site="same-site", X_Minuteman="1") == (403, "wrong_origin")
        assert await status("POST", DRAIN, Content_Type="text/plain", X_Minuteman="1") == (415, "not_json")
        assert double.done == []
        # Our own
        assert await post(Origin=f"http://{host}") == (200, None)
        assert await post(Sec_Fetch_Site="same-origin") == (200, None)
        status_, headers, _ = await ask_tcp(api.tcp, http("OPTIONS", "/v1/drain", Host=host, Authorization=known))
        assert status_ == 405
        assert not [name for name in headers if name.startswith("access-control-")]
    assert len(double.done) == 2


@pytest.mark.trio
async def test_browsers_are_told_to_be_careful(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    async with open_api(Double(), ApiOptions(socket=path)):
        for target in ("/v1/status", "/nothing", "/metrics"):
            async with await trio.open_unix_socket(path) as stream:
                await stream.send_all(http("GET", target))
                _, headers, _ = await answered(stream)
            assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
            assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
            assert headers["referrer-policy"] == "no-referrer"
            assert headers["cache-control"] in {"no-cache", "no-store"}


@pytest.mark.trio
async def test_a_certificate_stands_for_a_token(tmp_path: Path) -> None:
    authority, other = trustme.CA(), trustme.CA()
    ours, client = authority.issue_cert("127.0.0.1"), authority.issue_cert("operator@example", common_name="operator")
    ours.private_key_and_cert_chain_pem.write_to_path(tmp_path / "server.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    options = ApiOptions(socket=None, tcp=LOOPBACK, certificate=tmp_path / "server.pem", client_ca=tmp_path / "ca.pem")
    double = Double()

    async def ask(api_at: Endpoint, certificate: trustme.LeafCert | None, request: bytes) -> int:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        if certificate is not None:
            certificate.configure_cert(context)
        stream = await trio.open_ssl_over_tcp_stream(api_at.address, api_at.port, https_compatible=True, ssl_context=context)
        async with stream:
            await stream.send_all(request)
            return (await answered(stream))[0]

    async with open_api(double, options) as api:
        assert api.tcp is not None
        host = str(api.tcp)
        write = http("POST", "/v1/drain", DRAIN, Content_Type="application/json", Host=host, X_Minuteman="1")
        assert await ask(api.tcp, client, write) == 200
        for stranger in (None, other.issue_cert("operator@example")):
            with pytest.raises((trio.BrokenResourceError, ssl.SSLError, EOFError)):
                await ask(api.tcp, stranger, write)
        async with await trio.open_tcp_stream(api.tcp.address, api.tcp.port) as plain:  # no TLS at all
            await plain.send_all(http("GET", "/healthz", Host=host))
            with pytest.raises((trio.BrokenResourceError, EOFError)):
                await read_until(plain, b"HTTP")
    assert [by for _, _, by, _ in double.done] == ["certificate operator"]


@pytest.mark.trio
async def test_tokens_and_certificates_are_read_anew(tmp_path: Path, token_file: Path) -> None:
    authority = trustme.CA()
    pem = tmp_path / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    options = ApiOptions(socket=None, tcp=LOOPBACK, token_file=token_file, certificate=pem)

    async def ask(at: Endpoint, token: str) -> tuple[int, str]:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        stream = await trio.open_ssl_over_tcp_stream(at.address, at.port, https_compatible=True, ssl_context=context)
        async with stream:
            await stream.do_handshake()
            serial = stream.getpeercert()["serialNumber"]
            await stream.send_all(http("GET", "/v1/status", Host=str(at), Authorization=f"Bearer {token}"))
            return (await answered(stream))[0], serial

    async with open_api(Double(), options) as api:
        assert api.tcp is not None
        status, serial = await ask(api.tcp, SECRET)
        assert status == 200
        pem.write_text("nonsense")
        token_file.write_text("another-token-of-twenty")  # noqa: ASYNC240 - a file of the test
        with pytest.raises(ConfigurationError, match="no certificate or key without a password"):
            api.renewal(options)
        assert await ask(api.tcp, SECRET) == (200, serial)  # all as it was
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
        api.renewal(options)()
        assert (await ask(api.tcp, SECRET))[0] == 401
        status, another = await ask(api.tcp, "another-token-of-twenty")
        assert (status, another == serial) == (200, False)


@pytest.mark.trio
async def test_names_and_labels_and_who_signs_clients_are_taken_at_work(tmp_path: Path, token_file: Path) -> None:
    options = ApiOptions(socket=None, tcp=LOOPBACK, token_file=token_file, hosts=("lb.example",))
    async with open_api(Double(), options) as api:
        assert api.tcp is not None
        at = api.tcp

        async def status(host: str) -> int:
            found, _, _ = await ask_tcp(at, http("GET", "/v1/status", Host=host, Authorization=f"Bearer {SECRET}"))
            return found

        assert [await status(host) for host in ("lb.example", "web.example", "localhost")] == [200, 421, 200]
        take = api.renewal(replace(options, hosts=("Web.example",), metrics_labels=("local_port",), tcp=None))
        assert await status("web.example") == 421, "nothing counts before it is taken"
        take()
        assert [await status(host) for host in ("lb.example", "web.example", "localhost")] == [421, 200, 200]
        request = http("GET", "/metrics", Host=str(at), Authorization=f"Bearer {SECRET}")
        _, _, body = await ask_tcp(at, request)
        rows = [line for line in body.decode().splitlines() if line.startswith("minuteman_ipvs_backend_weight{")]
        assert rows
        assert all("local_port=" in row and "remote_address=" not in row for row in rows)
    authorities = [trustme.CA(), trustme.CA()]
    pem, ca = tmp_path / "server.pem", tmp_path / "ca.pem"
    authorities[0].issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    authorities[0].cert_pem.write_to_path(ca)
    tls = ApiOptions(socket=None, tcp=LOOPBACK, certificate=pem, client_ca=ca)
    async with open_api(Double(), tls) as api:
        assert api.tcp is not None
        where = api.tcp

        async def serves(authority: trustme.CA) -> bool:
            context = ssl.create_default_context()
            authorities[0].configure_trust(context)
            authority.issue_cert("operator@example", common_name="operator").configure_cert(context)
            try:
                stream = await trio.open_ssl_over_tcp_stream(
                    where.address, where.port, https_compatible=True, ssl_context=context
                )
                async with stream:
                    await stream.send_all(http("GET", "/v1/status", Host=str(where)))
                    return (await answered(stream))[0] == 200
            except (trio.BrokenResourceError, ssl.SSLError, EOFError):
                return False

        assert [await serves(authority) for authority in authorities] == [True, False]
        authorities[1].cert_pem.write_to_path(ca)
        api.renewal(tls)()
        assert [await serves(authority) for authority in authorities] == [False, True], "who signed before counts no more"


@pytest.mark.trio
async def test_clients_that_never_finish_the_handshake_are_let_go(tmp_path: Path, token_file: Path) -> None:
    pem = tmp_path / "server.pem"
    trustme.CA().issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(pem)
    options = ApiOptions(socket=None, tcp=LOOPBACK, token_file=token_file, certificate=pem)
    async with open_api(Double(), options, server_limits=ServerLimits(handshake_seconds=0.1)) as api:
        assert api.tcp is not None
        async with await trio.open_tcp_stream(api.tcp.address, api.tcp.port) as stream:
            with trio.fail_after(5):
                assert await stream.receive_some() == b""


def test_users_without_a_name() -> None:
    assert (user_name(0), user_name(4_000_000_000)) == ("root", "uid 4000000000")
