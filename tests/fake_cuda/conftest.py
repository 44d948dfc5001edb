"""A process with a fake CUDA device for the tests of this folder; they are skipped with the reason where none can be made."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.fake_cuda import run_with_device, why_not


@pytest.fixture(scope="session")
def guard(tmp_path_factory) -> Path:
    """The folder of the compiled device guard."""
    if reason := why_not():
        pytest.skip(reason)
    return tmp_path_factory.mktemp("guard")


@pytest.fixture(scope="session")
def look(guard) -> Callable[..., dict[str, Any]]:
    """A function from names of cases (tests/fake_cuda/cases.py) to what each saw."""

    def look(*names: str) -> dict[str, Any]:
        result = run_with_device("tests.fake_cuda.cases", names, guard)
        assert result.returncode == 0, result.stderr[-4000:]
        found = [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")]
        return {entry.pop("case"): entry for entry in found}

    return look
