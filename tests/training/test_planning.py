"""A plan says what the run then needs, without a run; what is missing for a plan is named with the remedy."""

import json
import shutil

import pytest

from common.files import read_json
from tests.conftest import run_script, training_words

PLAN = "plan=true"
# Everything that changes over a run: phases, a growing batch, masking that falls.
WORDS = ["phases=[{max_length: 32, until: 0.5}, {max_length: 64, until: 1.0}]", "batch_tokens=2048", "ema=0.9"]
WORDS += ["batch_warmup.start_tokens=512", "batch_warmup.share=0.4", "masking.rate_start=0.3", "checkpoint_every=10"]


def planned(prepared, run, *words: str) -> dict:
    result = run_script(*training_words(prepared, run, *WORDS, *words, PLAN))
    assert result.returncode == 0, result.stderr
    assert "passes over news" in result.stdout and "a step" in result.stdout
    assert [path.name for path in run.iterdir()] == ["plan.json"]  # nothing that a run would take for its own
    return read_json(run / "plan.json")


@pytest.mark.parametrize("budget", [["budget.steps=60"], ["budget.steps=null", "budget.epochs=2"]], ids=["steps", "epochs"])
def test_a_plan_equals_the_run(prepared, tmp_path, budget):
    """Counts within 2 % (they are read at points of the budget); the disk within 5 %; memory roughly (see LOG.md)."""
    run = tmp_path / "run"
    plan = planned(prepared, run, *budget)
    result = run_script(*training_words(prepared, run, *WORDS, *budget))
    assert result.returncode == 0, result.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert plan["parameters"] == summary["parameters"]
    for key in ("steps", "tokens", "flops"):
        assert plan[key] == pytest.approx(summary[key], rel=0.02), key
    for source, passes in summary["epochs"].items():
        assert plan["passes"][source] == pytest.approx(passes, rel=0.1), source
    assert plan["memory_bytes"] == pytest.approx(summary["peak_memory_bytes"], rel=0.3)  # the interpreter is most of it
    kept = [path for name in ("checkpoints", "checkpoint") for path in (run / name).rglob("*") if path.is_file()]
    size = sum(path.stat().st_size for path in kept)
    one = sum(path.stat().st_size for path in sorted((run / "checkpoints").iterdir())[-1].iterdir())
    assert plan["disk_bytes"] == pytest.approx(size + one, rel=0.05)  # one more while the newest is written
    assert plan["hours"] > plan["hours_of_steps"] > 0


def test_a_plan_of_a_branch_counts_from_there(prepared, tmp_path):
    run = tmp_path / "run"
    result = run_script(*training_words(prepared, run, "budget.steps=20", "keep_checkpoints=[10]"))
    assert result.returncode == 0, result.stderr
    words = ["budget.steps=30", f"branch_from={run}/checkpoints/step-10", PLAN]
    result = run_script(*training_words(prepared, tmp_path / "branch", *words))
    assert result.returncode == 0, result.stderr
    assert read_json(tmp_path / "branch" / "plan.json")["steps"] == 20
    assert (run / "checkpoints" / "step-00000010").is_dir()


def test_a_budget_in_minutes_is_its_own_time(prepared, tmp_path):
    plan = planned(prepared, tmp_path / "run", "budget.steps=null", "budget.minutes=2")
    assert plan["hours"] == pytest.approx(2 / 60, rel=1e-3)


def test_what_is_missing_is_named(prepared, tmp_path):
    result = run_script(*training_words(tmp_path / "nothing", tmp_path / "run", PLAN))
    assert result.returncode == 2 and "there is no corpus in" in result.stderr and "prepare.py" in result.stderr
    result = run_script(*training_words(prepared, tmp_path / "run", "corpus.path=/no/such/place", "corpus.sources=null", PLAN))
    assert result.returncode == 2 and "/no/such/place does not exist" in result.stderr and "prepare.py" in result.stderr
    result = run_script(*training_words(prepared, tmp_path / "run", "corpus.heldout_fraction=0.4", PLAN))
    assert result.returncode == 2 and "made of other text or settings" in result.stderr, result.stderr
    copy = tmp_path / "copy"
    shutil.copytree(prepared, copy)
    shutil.rmtree(copy / "shards")
    result = run_script(*training_words(copy, tmp_path / "run", PLAN))
    assert result.returncode == 2 and "there is no shards" not in result.stderr and "no token shards" in result.stderr
    assert not (tmp_path / "run" / ".plan").exists()
