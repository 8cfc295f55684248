"""The first Python of README.md, run as pasted, where the kernel has IPVS."""

import ast
import pathlib
import re

import pytest

from pyminuteman import Destination, IPVSTable, Scope, Service

ROOT = pathlib.Path(__file__).parents[2]
README = ROOT / "README.md"
BALANCE = ROOT / "examples" / "balance.py"


def readme_example() -> str:
    found = re.search(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found, "README.md has no Python block"
    return found[1]


def test_file_is_the_readme_example() -> None:
    tree, example = ast.parse(BALANCE.read_text(encoding="utf-8")), ast.parse(readme_example())
    del tree.body[0]  # the docstring
    assert ast.dump(tree) == ast.dump(example)


@pytest.mark.kernel
@pytest.mark.parametrize("source", [README, BALANCE], ids=lambda path: path.name)
def test_runs_as_pasted(source: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = readme_example() if source == README else source.read_text(encoding="utf-8")
    program = compile(code, str(source), "exec")

    exec(program, {"__name__": "__main__"})  # noqa: S102 - the point of the test
    *plan, said = capsys.readouterr().out.splitlines()
    assert plan == [
        "-A -t 11.0.0.1:80 -s wlc",
        "-a -t 11.0.0.1:80 -r 10.0.0.5:8080 -m -w 2",
        "-a -t 11.0.0.1:80 -r 10.0.0.6:8080 -m -w 1",
    ]
    assert re.fullmatch(r"3 operations in 0\.\d{3} s", said)

    with IPVSTable(scope=Scope.everything()) as table:
        assert dict(table.snapshot()) == {
            Service.tcp("11.0.0.1", 80, scheduler="wlc"): (
                Destination("10.0.0.5", 8080, weight=2),
                Destination("10.0.0.6", 8080),
            )
        }

    exec(program, {"__name__": "__main__"})  # noqa: S102
    assert re.fullmatch(r"already there\n0 operations in 0\.\d{3} s\n", capsys.readouterr().out)
