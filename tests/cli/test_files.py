"""Files: which line is at fault, and what is no file at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given

from pyminuteman.cli.desired import to_plain
from pyminuteman.cli.files import read_source
from pyminuteman.cli.scopes import parse_scope
from pyminuteman.cli.toml_writer import format_toml
from pyminuteman.errors import ConfigurationError
from pyminuteman.ipvs import Destination, Service, ServiceKey
from pyminuteman.plain.positions import closest_line, json_lines, toml_lines
from tests.support.strategies import tables

TOML = '''# a comment with [[service]] in it
scope = { networks = ["11.0.0.0/8",
  "[[service]]"] }
text = """
[[service]]
a = 1 \\""" "" """""
other = \'\'\'
[x]\'\'\'
[[service]]
address = "#[{"   # comment
"port" = 80
persistence.timeout = 5
  [[service.destination]]
  weight = 1
  [[service.destination]]
  weight = 2
  [service.destination.tunnel]
  type = "gue"
[[service]]
  [[service.destination]]
  weight = 3
last = 1'''


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ((), None),
        (("scope",), 2),
        (("scope", "networks", 1), 2),
        (("text",), 4),
        (("other",), 7),
        (("service", 0), 9),
        (("service", 0, "address"), 10),
        (("service", 0, "port"), 11),
        (("service", 0, "persistence", "timeout"), 12),
        (("service", 0, "persistence", "netmask"), 12),
        (("service", 0, "destination", 0, "weight"), 14),
        (("service", 0, "destination", 1, "weight"), 16),
        (("service", 0, "destination", 1, "tunnel"), 17),
        (("service", 0, "destination", 1, "tunnel", "type"), 18),
        (("service", 1), 19),
        (("service", 1, "destination", 0, "weight"), 21),
        (("service", 1, "destination", 0, "last"), 22),
        (("nowhere",), None),
    ],
)
def test_toml_lines(place: tuple[str | int, ...], line: int | None) -> None:
    assert closest_line(toml_lines(TOML), place) == line


@given(table=tables())
def test_lines_of_what_we_write(table: dict[Service, tuple[Destination, ...]]) -> None:
    plain = list(to_plain(table.items()))
    toml = format_toml(plain)
    text = json.dumps({"service": plain}, indent=1)
    toml_places, json_places = toml_lines(toml), json_lines(text)
    for index, service in enumerate(plain):
        assert toml.splitlines()[toml_places["service", index] - 1] == "[[service]]"
        assert text.splitlines()[json_places["service", index] - 1].strip() == "{"
        for at, row in enumerate(service["destination"]):
            for name, value in row.items():
                place = ("service", index, "destination", at, name)
                if place in toml_places and not isinstance(value, dict):
                    assert toml.splitlines()[toml_places[place] - 1].strip() == f"{name} = {json.dumps(value)}"
                assert text.splitlines()[json_places[place] - 1].strip().startswith(f'"{name}":')


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("a",), 2),
        (("a", 0), 2),
        (("a", 1), 3),
        (("a", 2, "b"), 5),
        (("a", 2, 'q"\u00e9'), 6),
        (("a", 3), 8),
        (("c", "d"), 9),
        (("c", "e"), 9),
        (("zz",), None),
    ],
)
def test_json_lines(place: tuple[str | int, ...], line: int | None) -> None:
    text = '{\n"a": [1,\n"x,[",\n{\n"b": [],\n"q\\"\\u00e9": {}\n},\ntrue],\n"c": {"d": -1.5e3}}'
    json.loads(text)
    assert closest_line(json_lines(text), place) == line


def fault(path: Path, content: bytes | str, kind: str | None = None) -> str:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ConfigurationError) as caught:
        read_source(str(path), kind)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


WEB = '[[service]]\nprotocol = "tcp"\naddress = "11.0.0.1"\nport = 80\n'


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.toml",
            WEB + '[[service.destination]]\naddress = "10.0.0.5"\nweight = "x"',
            "line 7 (service[0].destination[0].weight): ",
        ),
        ("a.toml", WEB + "x = ", "line 5: Invalid value"),
        ("a.toml", "[[service]", "line 1"),
        ("a.toml", WEB + "wieght = 1", "line 5 (service[0].wieght): unknown key"),
        ("a.toml", "a = " + "[" * 50000, "nested too deeply"),
        (
            "a.json",
            '{"service": [\n{"protocol": "tcp", "address": "11.0.0.1",\n"port": "x"}]}',
            "line 3 (service[0].port): port 'x'",
        ),
        ("a.json", '{"service":\n[}', "line 2, column 2: Expecting value"),
        ("a.json", '{"service": [], "service": []}', "the key 'service' is there twice"),
        ("a.json", "[" * 200000, "nested too deeply"),
        ("a.json", "[]", "it is a list; expected a table"),
        ("a.json", "", "line 1, column 1: Expecting value"),
        ("a.json", '{"version": ' + "1" * 5000 + "}", "Exceeds the limit"),
        ("a.rules", "# x\n-A -t 11.0.0.1:80\n-a -t 11.0.0.1:80 -r 10.0.0.5:80 -w x", "line 3: --weight 'x' is not a number"),
        ("a.rules", "-C\n", "line 1: -C: "),
        ("a.toml", b"\xff\xfe\0x", "line 1: this is not UTF-8 text"),
        ("a.toml", b"\n\n\x7fELF\0", "line 3: this is not text: it has a zero byte"),
        ("a.toml", WEB + 'scope = {networks = ["x"]}', "line 5 (service[0].scope): unknown key"),
    ],
)
def test_faults(tmp_path: Path, name: str, content: str | bytes, said: str) -> None:
    assert said in fault(tmp_path / name, content)


def test_no_file(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none", "No such file"), (tmp_path, "Is a directory"), (tmp_path / "x" / "y", "No such")):
        with pytest.raises(ConfigurationError, match="cannot be read") as caught:
            read_source(str(path))
        assert said in str(caught.value)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_source("a\0b")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("\ufeff" + WEB, "toml"),
        ("", "toml"),
        ("# c\n\n-A -t 11.0.0.1:80 -s rr\n", "ipvsadm"),
        ("ipvsadm -A -t 11.0.0.1:80 -s rr\n", "ipvsadm"),
        (' \n{"service": []}', "json"),
    ],
)
def test_sniffing(tmp_path: Path, content: str, kind: str) -> None:
    path = tmp_path / "no-extension"
    path.write_text(content)
    assert read_source(str(path)).format == kind


def test_scope_of_the_file_is_located(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text(f'\nscope.networks = ["11.0.0.1/8"]\n{WEB}')
    with pytest.raises(ConfigurationError, match=r"line 2 \(scope\): scope '11.0.0.1/8' is no network"):
        read_source(str(path)).scope(())
    with pytest.raises(ConfigurationError, match=r"line 3: tcp 11.0.0.1:80 is outside the scope \(12.0.0.0/8\)"):
        read_source(str(path)).scope(("12.0.0.0/8",))


@pytest.mark.parametrize("kind", ["toml", "json", "ipvsadm"])
def test_lines_of_rows(tmp_path: Path, kind: str) -> None:
    first, second = Service.tcp("11.0.0.1", 80), Service.fwmark(7)
    one, two = Destination("10.0.0.5", 80), Destination("10.0.0.6", 0)
    plain = list(to_plain([(first, (one,)), (second, (two,))]))
    text, lines = {
        "toml": (format_toml(plain), (1, 7, 13, 18)),
        "json": (json.dumps({"service": plain}, indent=1), (3, 12, 23, 31)),
        "ipvsadm": (
            "-A -t 11.0.0.1:80\n-A -f 7\n# x\n-a -t 11.0.0.1:80 -r 10.0.0.5 -m\n-a -f 7 -r 10.0.0.6:0 -m\n",
            (1, 4, 2, 5),
        ),
    }[kind]
    path = tmp_path / "x"
    path.write_text(text)
    source = read_source(str(path), kind)
    found = (source.line(first.key), source.line(first.key, one), source.line(second.key), source.line(second.key, two))
    assert found == lines
    assert source.line(first.key, two) == lines[0]
    assert source.line(ServiceKey.fwmark(8)) is None


@pytest.mark.parametrize(
    ("words", "inside", "outside"),
    [
        (["11.0.0.0/8", "fd00::/8"], ["t11.2.3.4", "tfd00::1"], ["t12.0.0.1", "f7"]),
        (["fwmark:7"], ["f7"], ["f8", "t11.0.0.1"]),
        (["fwmark:7-0x9", "12.0.0.1"], ["f7", "f9", "t12.0.0.1"], ["f10", "t12.0.0.2"]),
        (["everything", "11.0.0.0/8"], ["f1", "t1.2.3.4"], []),
    ],
)
def test_scopes(words: list[str], inside: list[str], outside: list[str]) -> None:
    def key(text: str) -> ServiceKey:
        return ServiceKey.fwmark(int(text[1:])) if text[0] == "f" else ServiceKey.tcp(text[1:], 80)

    scope = parse_scope(words)
    assert all(key(text) in scope for text in inside)
    assert not any(key(text) in scope for text in outside)
    assert scope.is_everything == ("everything" in words)


@pytest.mark.parametrize("word", ["", "x", "fwmark:", "fwmark:0", "fwmark:9-7", "fwmark:4294967296", "11.0.0.1/8", "fwmark:0x"])
def test_no_scopes(word: str) -> None:
    with pytest.raises(ValueError, match="scope"):
        parse_scope([word])
