"""A fine-tuning run that is killed or stopped goes on inside its seed: predictions, weights and metrics are the same bytes."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.files import write_jsonl
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from tests.conftest import ROOT
from tokenization.loading import load_tokenizer

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT)}
# finetune.py, with the state written at the end of every epoch, and a signal to itself after step AT.
DRIVER = """
import os, signal, sys
import training.finetuning as loop
from common.launch import launch
from finetune import Finetuning, finetune
loop.SAVE_AFTER = 0
made, number, at = loop.train_step, getattr(signal, os.environ["SIGNAL"]), int(os.environ["AT"])
count = 0
def train_step(*words):
    global count
    count += 1
    loss = made(*words)
    if count == at:
        os.kill(os.getpid(), number)
    return loss
loop.train_step = train_step
sys.argv = ["finetune.py", *sys.argv[1:]]
launch(finetune, "finetune", Finetuning)
"""


@pytest.fixture(scope="module")
def words(prepared, tmp_path_factory) -> list[str]:
    """The command line of a run of 6 epochs of 8 steps, with dropout, on a tiny encoder."""
    folder, draw = tmp_path_factory.mktemp("task"), random.Random(0)
    tokenizer = load_tokenizer(prepared / "tokenizer")
    shape = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 48, "max_length": 64, "dropout": 0.1}
    config = EncoderConfig(vocab_size=tokenizer.vocab_size, **shape)
    write_checkpoint(folder / "tiny", MaskedLM(config).state_dict(), config, tokenizer, {"name": "tiny"})
    kinds = {"meyvə": ["alma", "armud", "nar"], "şəhər": ["Bakı", "Gəncə", "Şəki"]}
    for split, count in (("train", 64), ("dev", 20), ("test", 20)):
        rows = [(draw.choice(list(kinds)), draw.random()) for _ in range(count)]
        texts = [{"id": f"{split}{n}", "text": f"{draw.choice(kinds[k])} {x:.3f}", "label": k} for n, (k, x) in enumerate(rows)]
        write_jsonl(folder / f"{split}.jsonl", texts)
    task = [f"task.{split}={folder}/{split}.jsonl" for split in ("train", "dev", "test")]
    recipe = ["recipe.epochs=6", "recipe.batch_size=8", "recipe.patience=null", "recipe.lr=1e-3"]
    own = [f"checkpoint={folder}/tiny", "task.kind=classification", "task.name=words", "device=cpu", "threads=1"]
    return [*own, *task, *recipe, f"workdir={folder}"]


def run(words: list[str], out: Path, at: int, number: str = "SIGTERM") -> subprocess.CompletedProcess:
    env = ENVIRONMENT | {"AT": str(at), "SIGNAL": number}
    line = [sys.executable, "-c", DRIVER, *words, f"out={out}", "seeds=[0,1]"]
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, check=False, timeout=300)


def results(out: Path) -> dict[str, object]:
    """The bytes of predictions and weights of both seeds, and their metrics without times."""
    found: dict[str, object] = {}
    for seed in (0, 1):
        folder = out / "tiny" / "words" / f"seed-{seed}"
        for name in ("predictions-dev.jsonl", "predictions-test.jsonl", "checkpoint/model.safetensors"):
            found[f"{seed}/{name}"] = (folder / name).read_bytes()
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        found[f"{seed}/metrics"] = [{k: v for k, v in line.items() if k != "minutes"} for line in lines]
        summary = json.loads((folder / "summary.json").read_text())
        found[f"{seed}/summary"] = {k: summary[k] for k in ("dev_score", "test_score", "best_epoch", "steps", "train_tokens")}
        assert not list(folder.glob("state*"))
    return found


@pytest.fixture(scope="module")
def whole(words, tmp_path_factory) -> dict[str, object]:
    out = tmp_path_factory.mktemp("whole")
    result = run(words, out, at=10**9)
    assert result.returncode == 0, result.stderr
    return results(out)


def test_a_stopped_run_goes_on_from_its_step(words, whole, tmp_path):
    """In the middle of an epoch, at its last step, and in the second seed; by each signal; no traceback."""
    for number, code, at, going_on in (
        ("SIGTERM", 85, 5, ""),
        ("SIGUSR1", 85, 11, "going on from step 5, in epoch 1"),
        ("SIGINT", 130, 34, "going on from step 16, in epoch 2"),
    ):
        result = run(words, tmp_path, at, number)
        assert result.returncode == code and "Traceback" not in result.stderr, result.stderr
        assert "stopped on request at step" in result.stderr and going_on in result.stdout, result.stdout
    result = run(words, tmp_path, at=10**9)
    assert result.returncode == 0, result.stderr
    assert results(tmp_path) == whole


def test_a_killed_run_goes_on_from_its_last_epoch(words, whole, tmp_path):
    result = run(words, tmp_path, at=29, number="SIGKILL")
    assert result.returncode == -signal.SIGKILL
    result = run(words, tmp_path, at=10**9)
    assert result.returncode == 0 and "going on from step 24, in epoch 4" in result.stdout, result.stdout + result.stderr
    assert results(tmp_path) == whole


@pytest.mark.slow
def test_everything_that_a_step_changes_goes_on(words, tmp_path):
    """Averaged weights, two optimizers, a masked-LM head beside the task's, other dropout: the same bytes after a stop."""
    more = ["recipe.ema=0.9", "recipe.optimizer=muon", "recipe.mlm=0.3", "recipe.dropout=0.2"]
    more += ["recipe.label_smoothing=0.1", "recipe.ngrams=500"]
    assert run([*words, *more], tmp_path / "whole", at=10**9).returncode == 0
    result = run([*words, *more], tmp_path / "stopped", at=21)
    assert result.returncode == 85, result.stderr
    result = run([*words, *more], tmp_path / "stopped", at=10**9)
    assert result.returncode == 0 and "going on from step 21, in epoch 3" in result.stdout, result.stderr
    assert results(tmp_path / "stopped") == results(tmp_path / "whole")


@pytest.mark.parametrize("damage", ["flip", "remove"])
def test_a_damaged_state_is_named_and_the_run_starts_over(words, whole, tmp_path, damage):
    run(words, tmp_path, at=29, number="SIGKILL")
    (state,) = (tmp_path / "tiny" / "words" / ".seed-0.part").glob("state-*.pt")
    content = bytearray(state.read_bytes())
    content[len(content) // 2] ^= 1
    state.unlink() if damage == "remove" else state.write_bytes(content)
    result = run(words, tmp_path, at=10**9)
    assert result.returncode == 0 and str(state) in result.stderr and "going on" not in result.stdout
    assert results(tmp_path) == whole


def test_the_state_of_another_recipe_is_not_used(words, tmp_path):
    run(words, tmp_path, at=29, number="SIGKILL")
    result = run([*words, "recipe.epochs=2"], tmp_path, at=10**9)
    assert result.returncode == 0 and "going on" not in result.stdout, result.stderr


@pytest.mark.slow
def test_killed_at_random(words, whole, tmp_path):
    draw = random.Random(7)
    env = ENVIRONMENT | {"AT": str(10**9), "SIGNAL": "SIGTERM"}
    for _ in range(6):
        line = [sys.executable, "-c", DRIVER, *words, f"out={tmp_path}", "seeds=[0,1]"]
        process = subprocess.Popen(line, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(4.0, 9.0))
        process.kill()
        process.wait()
    assert run(words, tmp_path, at=10**9).returncode == 0
    assert results(tmp_path) == whole
