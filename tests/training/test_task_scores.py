"""Task scores during pre-training are logged, change nothing, and give a sweep its objective."""

import json
import math

import pytest
import safetensors.torch
import torch

from common.errors import UserError
from tests.conftest import ROOT, run_script, training_words
from training.task_scores import check_objective

WORDS = ["budget.steps=6", "model.dropout=0.1", "ema=0.9", "log_every=2"]
TASKS = ["evaluation.tasks=[topic]", "evaluation.tasks_every=4", "evaluation.tasks_epochs=1", "objective=topic"]
# A sweep of one job that prints the value its sweeper received, as Optuna would.
DRIVER = """
import sys, runpy
from hydra._internal.hydra import Hydra
real = Hydra.multirun
def multirun(self, *words, **options):
    print("objective", *(job.return_value for batch in real(self, *words, **options) for job in batch))
Hydra.multirun = multirun
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_tasks_are_scored_and_the_run_is_the_same_to_the_bit(prepared, tmp_path):
    plain, scored = tmp_path / "plain", tmp_path / "scored"
    assert run_script(*training_words(prepared, plain, *WORDS)).returncode == 0
    words = training_words(prepared, scored, *WORDS, *TASKS)
    result = run_script(
        "-c",
        DRIVER,
        words[0],
        "-m",
        *words[1:],
        f"hydra.sweep.dir={tmp_path}",
        "hydra.sweep.subdir=scored",
        PYTHONPATH=str(ROOT),
    )
    assert result.returncode == 0, result.stderr
    ours, theirs = (safetensors.torch.load_file(run / "checkpoint" / "model.safetensors") for run in (plain, scored))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").open()] for run in (plain, scored)]
    curves = [[(line["step"], line["loss"], line["gradient_norm"]) for line in part if "loss" in line] for part in lines]
    assert curves[0] == curves[1]
    found = [(line["step"], line["tasks"]["topic"]) for line in lines[1] if "tasks" in line]
    assert [step for step, _ in found] == [4, 6] and all(0 <= score <= 1 for _, score in found)
    summary = json.loads((scored / "summary.json").read_text())
    assert summary["tasks"] == {"topic": found[-1][1]}
    assert f"objective {found[-1][1]}" in result.stdout and not math.isnan(found[-1][1])


def test_an_objective_that_is_not_scored_is_refused():
    with pytest.raises(UserError, match="heldout, topic"):
        check_objective("ner", ["topic"])
