"""What the loop does besides training: time budgets, mask prompts, metrics lines that skip no step."""

import json
import socket
from itertools import pairwise
from pathlib import Path

import pytest

from tests.conftest import ROOT, run_script, training_words, with_hooks

PROBE = "Bakı [MASK] paytaxtıdır, [MASK]."


def two_ranks() -> list[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free.getsockname()[1]}"]


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").open()]


@pytest.mark.slow
def test_minutes_are_minutes_and_all_ranks_end_at_the_same_step(prepared, tmp_path):
    """Each rank has its own clock: without agreement one would wait forever. Mask prompts are logged as well."""
    words = [
        "budget={steps: null, minutes: 0.05}",
        "evaluation.every=40",
        f"evaluation.mask_prompts=['{PROBE}']",
        "log_every=7",
    ]
    words.append("checkpoint_every=null")  # a checkpoint writes its own line
    result = run_script(*two_ranks(), *training_words(prepared, tmp_path, *words), timeout=120)
    assert result.returncode == 0, result.stderr
    training = [line for line in lines(tmp_path) if "loss" in line]
    minutes = [0.0, *(line["minutes"] for line in training)]
    most = max(after - before for before, after in pairwise(minutes))  # of seven steps, however busy the machine is
    assert 0.04 < minutes[-1] < 0.05 + most  # about three steps are planned ahead of the clock
    assert training[-1]["step"] == json.loads((tmp_path / "summary.json").read_text())["steps"]
    assert [line["step"] for line in training[:-1]] == list(range(7, training[-1]["step"], 7))
    evaluated = [line for line in lines(tmp_path) if "heldout" in line]
    assert [line["step"] for line in evaluated][:1] == [0] and evaluated[-1]["step"] == training[-1]["step"]
    for line in evaluated:
        holes = line["mask_prompts"][PROBE]
        assert len(holes) == 2 and all(len(hole) == 5 for hole in holes)
        for hole in holes:
            chances = list(hole.values())
            assert chances == sorted(chances, reverse=True) and 0 < chances[-1] <= chances[0] <= 1


@pytest.mark.slow
def test_a_mask_prompt_without_a_mask_is_refused_at_the_start(prepared, tmp_path):
    result = run_script(*training_words(prepared, tmp_path, "evaluation.mask_prompts=[Salam]", "budget.steps=3"))
    assert result.returncode == 2 and "Salam" in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.slow
def test_stopped_under_a_time_budget_both_ranks_end(prepared, tmp_path):
    driver = tmp_path / "driver.py"
    driver.write_text(
        with_hooks(
            "import os, signal\ndef on_step(run):\n"
            "    if run.state.step == 10 and run.ranks.first: os.kill(os.getpid(), signal.SIGUSR1)"
        )
    )
    words = training_words(prepared, tmp_path / "run", "budget={steps: null, minutes: 5}")
    result = run_script(*two_ranks(), driver, *words, PYTHONPATH=str(ROOT), timeout=90)
    assert "stopped on request" in result.stderr
    newest = sorted((tmp_path / "run" / "checkpoints").iterdir())[-1]
    assert int(newest.name.removeprefix("step-")) == lines(tmp_path / "run")[-1]["step"] < 20
