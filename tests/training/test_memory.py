"""A step that gets no memory ends in one line that names the setting to lower; an error of another kind stays as it is."""

import numpy as np
import pytest
import torch

from common.errors import UserError
from tests.conftest import ROOT, run_script, training_words, with_hooks
from training.memory import lacked, told_out_of_memory

CPU = torch.device("cpu")
# In the fifth forward pass the model asks torch for 2^50 bytes.
FULL = with_hooks("""
import torch
passes = []
def ask(model, _inputs):
    passes.append(1)
    if len(passes) == 5:
        torch.empty(1 << 50, dtype=torch.uint8)
def on_model(model):
    model.register_forward_pre_hook(ask)
""")


def test_a_step_without_memory_names_micro_batch_tokens(prepared, tmp_path):
    words = training_words(prepared, tmp_path / "run", "budget.steps=6", "checkpoint_every=1")
    result = run_script("-c", FULL, *words, PYTHONPATH=str(ROOT))
    assert result.returncode == 2 and "Traceback" not in result.stderr, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert (
        "out of memory on cpu" in line and "micro_batch_tokens (now 512)" in line and "asked for 1,073,741,824 MiB more" in line
    )


def test_what_real_allocators_say_is_read():
    for ask in (lambda: torch.empty(1 << 48, dtype=torch.uint8), lambda: np.empty(1 << 48, dtype=np.uint8)):
        with (
            pytest.raises(UserError, match=r"asked for 268,435,456 MiB more\. Lower recipe\.max_tokens \(now 7\)"),
            told_out_of_memory(CPU, "recipe.max_tokens", 7),
        ):
            ask()
    said = "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 139.00 GiB"
    assert lacked(torch.OutOfMemoryError(said)) == 3 << 29
    assert lacked(MemoryError()) == 0


def test_other_errors_stay():
    assert lacked(RuntimeError("mat1 and mat2 shapes cannot be multiplied")) is None
    with pytest.raises(RuntimeError, match="shapes"), told_out_of_memory(CPU, "micro_batch_tokens", 7):
        torch.ones(2, 3) @ torch.ones(2, 3)


@pytest.mark.parametrize("script", ["train.py", "finetune.py"])
def test_apple_s_gpu_is_refused_by_name(script, prepared, tmp_path):
    words = [f"workdir={tmp_path}", "device=mps"]
    result = run_script(script, *words)
    assert result.returncode == 2 and "error: device=mps" in result.stderr and "device=cpu" in result.stderr, result.stderr


SHOWN = """
import os
def on_model(model):  # before the first product
    print("capacity", os.environ["LRU_CACHE_CAPACITY"])
"""


@pytest.mark.parametrize("own", [{}, {"LRU_CACHE_CAPACITY": "64"}])
def test_kernels_are_kept_once_unless_the_user_has_a_value(own, prepared, tmp_path, monkeypatch):
    monkeypatch.delenv("LRU_CACHE_CAPACITY", raising=False)
    words = training_words(prepared, tmp_path / "run", "budget.steps=1")
    result = run_script("-c", with_hooks(SHOWN), *words, PYTHONPATH=str(ROOT), **own)
    assert result.returncode == 0 and f"capacity {own.get('LRU_CACHE_CAPACITY', 1)}" in result.stdout, result.stderr
