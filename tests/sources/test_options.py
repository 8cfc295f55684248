"""Sources as people write them: what is accepted, and what is said of the rest."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyminuteman.errors import ConfigurationError
from pyminuteman.sources import options as module
from pyminuteman.sources.file import FileSource
from pyminuteman.sources.http import HttpSource
from pyminuteman.sources.options import KINDS, SourceSpec, parse_source, register
from pyminuteman.sources.push import PushSource
from tests.sources.support import keys, reading, write


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ("file:/etc/minuteman/vips.d", "file:/etc/minuteman/vips.d", FileSource),
        ("file:///etc/minuteman/vips.d", "file:/etc/minuteman/vips.d", FileSource),
        ("file:/etc/vips?format=json", "file:/etc/vips", FileSource),
        ("file:/etc/a:b", "file:/etc/a:b", FileSource),
        ("file:vips.toml", f"file:{Path.cwd()}/vips.toml", FileSource),
        ("ipvsadm:/etc/ipvsadm.rules", "ipvsadm:/etc/ipvsadm.rules", FileSource),
        ("http://127.0.0.1:80/vips.json?team=7", "http://127.0.0.1:80/vips.json", HttpSource),
        ("https://me:pw@host/vips.json?k=s#interval=2.5&deadline=9&timeout=3", "https://host/vips.json", HttpSource),
    ],
)
def test_sources(text: str, name: str, kind: type) -> None:
    source = parse_source(text)
    assert isinstance(source, kind)
    assert source.name == name


@pytest.mark.trio
async def test_a_source_that_was_written_down_gives_states(tmp_path: Path) -> None:
    write(tmp_path / "vips", '{"vip": [{"listen": "tcp://11.0.0.1:80"}]}')
    async with reading(parse_source(f"file:{tmp_path}/vips?format=json")) as states:
        assert keys(await anext(states)) == ["11.0.0.1:80"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "",
            "'' has no kind; a source is KIND:PLACE, and the kinds are consul, etcd, file, http, https, ipvsadm, marathon, mesos, push",
        ),
        ("/etc/vips.d", "'/etc/vips.d' has no kind; a source is KIND:PLACE, and the kinds are"),
        ("/etc/vips.d", "For files: 'file:/etc/vips.d'"),
        ("./a:b", "'./a:b' has no kind"),
        ("flie:/x", "kind 'flie' is not known (did you mean 'file'?)"),
        ("zookeeper:/x", "kind 'zookeeper' is not known; a source is"),
        ("\x1b[31m:x", "kind '\\x1b[31m' is not known"),
        ("x" * 5000, "has no kind"),
        ("file:", "source file: place: it says nothing after file:"),
        ("file:?format=toml", "it says nothing after file:"),
        ("file:/x\x00", "is not printable text"),
        ("file:/x?format", "source file: option 'format': is not written NAME=VALUE"),
        ("file:/x?=toml", "is not written NAME=VALUE"),
        ("file:/x?format=toml&format=json", "option 'format': is given twice"),
        ("file:/x?format=yaml", "source file: format: 'yaml' is none of toml, json"),
        ("file:/x?fromat=toml", "source file: option 'fromat': did you mean 'format'?"),
        ("ipvsadm:/x?format=toml", "source ipvsadm: option 'format': there are none"),
        ("http://h/#interval=0", "source http: interval: '0' is not a number of seconds from 0.1 to 86400"),
        ("http://h/#interval=soon", "'soon' is not a number of seconds"),
        ("http://h/#interval=nan", "'nan' is not a number of seconds"),
        ("http://h/#insecure=perhaps", "insecure: 'perhaps' is neither yes nor no"),
        ("http://h/#token-file=%00", "token-file: '\\x00' is not printable text"),
        ("http://h/#zzz=1", "option 'zzz': there are ca, cert, deadline, insecure, interval, key, socket, timeout, token-file"),
        ("https://h/#ca=/nowhere", "/nowhere: TLS: no certificates to trust can be read: No such file"),
        ("http://", "is not a URL such as"),
        ("http:", "source http: place: it says nothing after http:"),
    ],
)
def test_refusals(text: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_source(text)
    assert said in str(caught.value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@given(
    st.text(max_size=30)
    | st.builds("{}:{}?{}".format, st.sampled_from(sorted(KINDS)), st.text(max_size=10), st.text(max_size=20))
)
def test_whatever_is_written_it_is_a_source_or_an_error_of_ours(text: str) -> None:
    if text.partition(":")[0] in {"etcd", "consul", "mesos", "marathon"}:
        return  # have tests of their own
    name = ""
    with contextlib.suppress(ConfigurationError):
        name = parse_source(text).name
    assert name.isprintable()


def test_every_option_of_http_is_taken(tmp_path: Path) -> None:
    spec = SourceSpec(
        "etcd",
        "x",
        {
            "ca": "/a",
            "cert": "/b",
            "key": "/c",
            "insecure": "yes",
            "token-file": "/d",
            "token-scheme": "token=",
            "timeout": "2",
            "socket": str(tmp_path),
        },
    )
    made = spec.http()
    assert (made.ca_file, made.certificate_file, made.key_file) == (Path("/a"), Path("/b"), Path("/c"))
    assert (made.token_file, made.token_scheme, made.unix_socket) == (Path("/d"), "token=", tmp_path)
    assert made.insecure
    assert made.timeout_seconds == 2.0
    spec.check_all_taken()


@pytest.mark.parametrize(
    ("value", "number"), [("", 5), ("1", 1), ("10", 10), ("11", None), ("0", None), ("x", None), ("9" * 5000, None)]
)
def test_numbers(value: str, number: int | None) -> None:
    spec = SourceSpec("x", "y", {"n": value})
    if number is None:
        with pytest.raises(ConfigurationError, match="is not a whole number from 1 to 10"):
            spec.number("n", 5, 1, 10)
    else:
        assert spec.number("n", 5, 1, 10) == number


@pytest.mark.parametrize(("value", "switch"), [("", True), ("yes", True), ("no", False), ("0", False), ("true", True)])
def test_switches(value: str, switch: bool) -> None:
    assert SourceSpec("x", "y", {"s": value}).switch("s", default=True) is switch


def factory(spec: SourceSpec) -> PushSource:
    return PushSource(f"{spec.kind}:{spec.place}+{spec.text('a')}+{spec.number('n', 1, 0, 9)}")


def test_kinds_of_others_are_found_by_their_dotted_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KINDS", dict(KINDS))
    monkeypatch.setitem(sys.modules, "kinds_of_others", sys.modules[__name__])
    register("ours", "kinds_of_others:factory")
    assert parse_source("ours:there?a=b%26c&n=3").name == "ours:there+b&c+3"
    with pytest.raises(ConfigurationError, match="option 'b': there are a, n"):
        parse_source("ours:there?b=1")
    for kind in ("ours", "file", "Two", "a-b", ""):
        with pytest.raises(ConfigurationError, match="is no new kind of source"):
            register(kind, "x:y")
    register("theirs", "nowhere.at_all:factory")
    with pytest.raises(ConfigurationError, match="source theirs: nowhere is not installed"):
        parse_source("theirs:x")
    register("later", "pyminuteman.sources.later:factory")
    with pytest.raises(ConfigurationError, match="source later: this version has no such source"):
        parse_source("later:x")


def test_whoever_reads_files_needs_no_http_client_and_whoever_needs_one_is_told_what_to_install() -> None:
    script = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "httpx2":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Without())
from pyminuteman.sources.options import parse_source
from pyminuteman.errors import ConfigurationError
print(parse_source("file:/x").name, parse_source("ipvsadm:/y").name)
try:
    parse_source("https://h/x")
except ConfigurationError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert out == (
        "file:/x ipvsadm:/y\nsource https: it needs httpx2, which is not installed: pip install 'pyminuteman[sources]'\n"
    )
