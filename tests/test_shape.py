"""The code keeps the shape that makes it readable: short files, short functions, few loose parameters."""

import ast
import subprocess
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT

MOST_LINES, MOST_FUNCTION, MOST_PARAMETERS = 600, 80, 7
SHORTER = {"train.py": 450, "model/encoder.py": 450}  # files that a user reads from top to bottom
FILES = [
    name
    for name in subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    if (ROOT / name).exists()
]


def functions(text: str) -> Iterator[tuple[str, int, int]]:
    """(name, lines with decorators, parameters without self) of every function in a module."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names = [part.arg for part in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]]
            first = min([node.lineno, *(part.lineno for part in node.decorator_list)])
            yield node.name, node.end_lineno - first + 1, len(names) - (names[:1] in (["self"], ["cls"], ["ctx"]))


@pytest.mark.parametrize("name", FILES)
def test_files_and_functions_are_short(name):
    text = (ROOT / name).read_text(encoding="utf-8")
    assert text.count("\n") <= SHORTER.get(name, MOST_LINES)
    for function, lines, parameters in functions(text):
        assert lines <= MOST_FUNCTION, f"{name}: {function} has {lines} lines"
        if not name.startswith("tests/"):  # fixtures are parameters there
            assert parameters <= MOST_PARAMETERS, f"{name}: {function} has {parameters} parameters: give it a dataclass"


def test_the_counts_are_right():
    text = "class A:\n    @staticmethod\n    def f(self, a, *, b=1):\n        return a\n\n\ndef g(\n    x,\n):\n    return x\n"
    assert [*functions(text)] == [("g", 4, 1), ("f", 3, 2)] or [*functions(text)] == [("f", 3, 2), ("g", 4, 1)]
