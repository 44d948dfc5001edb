"""Pre-training with a teacher: killed and resumed to the same bit, two ranks equal one, its cost in the summary."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch

from common.errors import UserError
from common.settings import checked
from model.encoder import EncoderConfig
from model.store import load_masked_lm, read_checkpoint
from tests.conftest import ROOT, run_script, training_words
from tests.training.test_distributed import with_two
from tests.training.test_resume import ENVIRONMENT, assert_same, last_step
from tokenization.loading import load_tokenizer
from training.ancestry import ancestry, known_hours, ledger
from training.settings import Distill
from training.teachers import masked_lm

GOOD = {"teacher": None, "weight": 0.5, "temperature": 2.0, "hidden": None, "hidden_weight": 1.0, "layers": None}
LARGER = ["model.hidden_size=48", "model.layers=3", "model.heads=3", "budget.steps=6"]
STUDENT = ["distill.hidden=cosine", "model.dropout=0.1", "checkpoint_every=5", "ema=0.9", "budget.steps=16"]


@pytest.fixture(scope="module")
def teacher(prepared, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "teacher"
    result = run_script(*training_words(prepared, run, *LARGER))
    assert result.returncode == 0, result.stderr
    return run


@pytest.fixture(scope="module")
def whole(prepared, teacher, tmp_path_factory) -> Path:
    """The uninterrupted student."""
    run = tmp_path_factory.mktemp("runs") / "student"
    result = run_script(*training_words(prepared, run, *STUDENT, f"distill.teacher={teacher}"))
    assert result.returncode == 0, result.stderr
    return run


def test_killed_and_resumed_it_ends_with_equal_weights(prepared, teacher, whole, tmp_path):
    """Projections included, which only intermediate checkpoints contain."""
    run = tmp_path / "run"
    words = training_words(prepared, run, *STUDENT, f"distill.teacher={teacher}")
    process = subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    while last_step(run) < 8 and process.poll() is None:
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL and not (run / "checkpoint").exists()
    step = max((run / "checkpoints").glob("step-*"))
    kept = safetensors.torch.load_file(step / "projections.safetensors")
    assert set(kept) == {f"projections.{n}.weight" for n in range(3)} and kept["projections.0.weight"].shape == (48, 32)
    load_masked_lm(step)  # an intermediate checkpoint is a model too
    result = run_script(*words)
    assert result.returncode == 0 and "going on from step" in result.stdout, result.stderr
    assert_same(run, whole)


def test_the_summary_has_the_teacher_s_cost(teacher, whole):
    summary = json.loads((whole / "summary.json").read_text())
    before = json.loads((teacher / "summary.json").read_text())
    assert summary["ledger"] == {str((teacher / "checkpoint").absolute()): before["hours"]}
    assert summary["distillation"]["teacher"] == str(teacher) and summary["distillation"]["hours"] == before["hours"]
    assert 0 < summary["distillation"]["flops"] < summary["flops"] and before["distillation"] is None
    weights, config, *_ = read_checkpoint(whole)
    assert summary["parameters"] == sum(value.numel() for value in weights.values())
    assert not any(name.startswith("projections") for name in weights) and config.hidden_size == 32
    assert known_hours(ledger(whole)) == pytest.approx(summary["hours"] + before["hours"])
    assert ancestry(whole, teacher) == ledger(whole)  # shared cost is counted once
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    parts = [line["distillation"] for line in lines if "loss" in line]
    assert len(parts) == 16 and all(part["kl"] > 0 and part["hidden"] > 0 for part in parts)


def test_two_teachers_and_a_run_that_is_complete(prepared, teacher, whole, tmp_path):
    """The second start skips; the cost counts both; a run with the teachers exchanged is another run."""
    run = tmp_path / "run"
    words = training_words(prepared, run, "budget.steps=4", f"distill.teacher=[{teacher},{whole}]")
    first = run_script(*words)
    assert first.returncode == 0, first.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert summary["distillation"]["teacher"] == [str(teacher), str(whole)]
    assert summary["ledger"] == ancestry(teacher, whole)
    assert summary["distillation"]["hours"] == pytest.approx(known_hours(summary["ledger"]))
    assert "training: already complete" in run_script(*words).stdout
    other = run_script(*training_words(prepared, run, "budget.steps=4", f"distill.teacher=[{whole},{teacher}]"))
    assert other.returncode == 0 and "training: already complete" not in other.stdout, other.stderr


@pytest.mark.slow
def test_two_ranks_equal_one(prepared, teacher, whole, tmp_path):
    run = tmp_path / "two"
    with_two(*training_words(prepared, run, *STUDENT, f"distill.teacher={teacher}"))
    ours, theirs = (safetensors.torch.load_file(r / "checkpoint" / "model.safetensors") for r in (run, whole))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_an_incompatible_teacher_is_refused(prepared, teacher, whole, tmp_path):
    tokenizer = load_tokenizer(prepared / "tokenizer")
    shape = EncoderConfig(vocab_size=tokenizer.vocab_size, hidden_size=32, layers=2, heads=2, intermediate_size=48)

    def build(longest=64, **changed):
        return masked_lm(shape, True, Distill(str(teacher), **changed), longest, tokenizer, torch.device("cpu"))

    torch.manual_seed(3)
    plain = masked_lm(shape, True, Distill(), 64, tokenizer, torch.device("cpu"))
    torch.manual_seed(3)
    student = build(hidden="mse")
    assert all(torch.equal(value, student.state_dict()[name]) for name, value in plain.state_dict().items())  # the same start
    with pytest.raises(UserError, match=r"layers: \[2, 9\] does not exist; the student has layers 0 \(embeddings\) to 2"):
        build(hidden="mse", layers=[[2, 9]])
    with pytest.raises(UserError, match="a max_length of 512 is above the teacher's"):
        build(512)
    other = run_script("prepare.py", f"workdir={tmp_path}", "tokenizer.vocab_size=1200", f"corpus_dir={prepared / 'corpus'}")
    assert other.returncode == 0, other.stderr
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    with pytest.raises(UserError, match=r"its tokenizer is \w+, this run's is"):
        build()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("weight", 1.5),
        ("weight", True),
        ("temperature", 0),
        ("hidden", "l1"),
        ("hidden_weight", -1),
        ("layers", [[1]]),
        ("teacher", []),
        ("teacher", ["a", 3]),
        ("layers", [["a", 1]]),
    ],
)
def test_wrong_values_are_named(key, value):
    checked(Distill, GOOD, "distill")
    with pytest.raises(UserError, match=rf"distill\.{key}\b.*: expected"):
        checked(Distill, {**GOOD, key: value}, "distill")
