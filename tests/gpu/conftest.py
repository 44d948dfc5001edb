"""All of tests/gpu: `python -m pytest tests/gpu` on a CUDA device takes minutes; skipped with a reason elsewhere."""

import os
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    reason = f"torch {torch.__version__} sees no CUDA device here; run `python -m pytest tests/gpu` where there is one"
    for item in items:
        if HERE in Path(item.fspath).parents:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def visible() -> dict[str, str]:
    """Environment of a script that may see the GPUs (tests.conftest.run_script hides them)."""
    all_of_them = ",".join(map(str, range(torch.cuda.device_count())))
    return {"CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", all_of_them)}
