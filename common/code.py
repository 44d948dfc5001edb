"""Digests of the code behind a result: the modules that made it, without comments and docstrings."""

import ast
import contextlib
import functools
import hashlib
import re
import sys
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import ROOT, digest_of, read_json, sha256_file, write_json

DATA_FILE = re.compile(r"[\w-]+\.(?:npz|npy|json|tsv|txt)")
# What was found in a source file, by the digest of its bytes, so that no entry can be out of date: reading a file's syntax
# takes 20 ms, for the hundred files behind a training run as long as everything else at its start.
MEMO = ROOT / "__pycache__" / f"code.{sys.implementation.cache_tag}.json"
MOST_REMEMBERED = 2000  # source files; the checkout has some 200


@functools.cache
def code_files(*modules: str, rooms: tuple[str, ...] | None = None) -> dict[str, str]:
    """{file: digest} of `modules` ("model.encoder", ...), of the project's modules that they import, and of their data files.

    Imports are read from the source, those inside functions too. With `rooms` ("model", "data", ...) only imports from
    these folders are followed; None follows all. Data files are those that a module names in quotes and that lie beside it,
    such as a detector's weights. Comments, docstrings and line layout do not change a digest.
    """
    files: dict[str, str] = {}
    waiting, known = list(modules), len(_memo())
    while waiting:
        path = ROOT / (waiting.pop().replace(".", "/") + ".py")
        name = path.relative_to(ROOT).as_posix()
        if name in files or not path.is_file():
            continue
        found = _read(path)
        files[name] = found["digest"]
        files |= {
            data.relative_to(ROOT).as_posix(): sha256_file(data)
            for data in map(path.with_name, found["data"])
            if data.is_file()
        }
        waiting += [module for module in found["imports"] if rooms is None or module.split(".")[0] in rooms]
    if len(_memo()) > known:
        with contextlib.suppress(OSError, UserError):  # a checkout that is read-only is read anew each time
            write_json(MEMO, dict(list(_memo().items())[-MOST_REMEMBERED:]))
    return files


@functools.cache
def _memo() -> dict[str, Any]:
    try:
        return read_json(MEMO) if MEMO.exists() else {}
    except UserError:
        return {}


def _read(path: Path) -> dict[str, Any]:
    """Of one source file: the digest of what it does, the modules that it may import, the names of data in quotes."""
    content = path.read_bytes()
    key = hashlib.sha256(content).hexdigest()
    if key not in _memo():
        tree = ast.parse(content)
        imports, data = [], []
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                imports += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                imports += [alias.name for alias in node.names]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and DATA_FILE.fullmatch(node.value):
                data.append(node.value)
        _memo()[key] = {"digest": digest_of(ast.unparse(_without_docstrings(tree))), "imports": imports, "data": data}
    return _memo()[key]


def changed_files(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Names of the files that differ between two results of `code_files`, or that only one of them has."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
                node.body = node.body[1:] or [ast.Pass()]
    return tree
