"""The digest of code changes with a formula, not with a comment, and covers only the rooms that are named."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common.code import changed_files, code_files
from common.launch import ROOT

PRINT = "from common.code import code_files as f; import json; print(json.dumps(f('model.encoder', rooms=('model', 'data'))))"


@pytest.fixture
def copy(tmp_path) -> Path:
    """A checkout of its own with the rooms that the encoder needs."""
    for name in ("common", "model", "data"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__", "demo"))
    return tmp_path


def files_in(checkout: Path) -> dict[str, str]:
    run = subprocess.run([sys.executable, "-c", PRINT], cwd=checkout, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)


def test_a_formula_changes_the_digest_and_a_comment_does_not(copy):
    before = files_in(copy)
    path = copy / "model" / "attention.py"
    assert "model/attention.py" in before and path.read_text().startswith('"""')
    path.write_text(path.read_text().replace('"""', '"""Said in other words. ', 1) + "\n\n# a remark\n")
    assert files_in(copy) == before
    path.write_text(path.read_text() + "\nSCALE = 2\n")
    assert changed_files(before, files_in(copy)) == ["model/attention.py"]


def test_imports_are_followed_into_the_named_rooms_only():
    near, far = code_files("model.encoder", rooms=("model",)), code_files("model.encoder")
    assert "model/attention.py" in near and all(name.startswith("model/") for name in near)
    assert "common/errors.py" in far and near.items() < far.items()
    assert changed_files(near, far) == sorted(far.keys() - near.keys())


def test_what_is_remembered_is_of_these_bytes_and_a_damaged_memory_is_none(copy):
    path = copy / "model" / "attention.py"
    path.write_text(path.read_text() + "\nSCALE = 2\n")
    before = files_in(copy)
    (memo,) = (copy / "__pycache__").glob("code.*.json")
    stamp, text = path.stat(), path.read_text()
    path.write_text(text.replace("SCALE = 2", "SCALE = 3"))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # as long and as old as before
    assert path.stat().st_size == stamp.st_size and changed_files(before, files_in(copy)) == ["model/attention.py"]
    path.write_text(text)
    memo.write_text("{")
    assert files_in(copy) == before
