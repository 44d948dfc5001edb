"""compile=true changes the speed and, with dropout, which units are dropped (another random stream); nothing else."""

import json

import pytest
import torch

from tests.conftest import run_script, training_words


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_compiled_losses_equal_eager(prepared, tmp_path, architecture):
    losses = []
    for compiled in ("false", "true"):
        words = training_words(
            prepared,
            tmp_path / compiled,
            "budget.steps=4",
            f"compile={compiled}",
            f"model.architecture={architecture}",
            "model.dropout=0",
        )
        result = run_script(*words)
        assert result.returncode == 0, result.stderr
        lines = map(json.loads, (tmp_path / compiled / "metrics.jsonl").read_text().splitlines())
        losses.append([line["loss"] for line in lines if "loss" in line])
    torch.testing.assert_close(torch.tensor(losses[1]), torch.tensor(losses[0]), atol=1e-4, rtol=1e-4)
