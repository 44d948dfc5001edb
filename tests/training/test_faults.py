"""A non-finite loss or gradient, or a spike: the step is skipped on every rank, counted and named."""

import json
import socket
from pathlib import Path

import pytest
import safetensors.torch
import torch

from data.loader import DROPOUT
from data.packing import stream
from tests.conftest import ROOT, TINY, run_script, training_words, with_hooks

# Runs train.py with a fault in chosen batches and saves each rank's weights after the last step.
# BAD is {seed of the batch's dropout: kind}, or {"all": kind}. That seed is
# a function of (seed, epoch, batch), so the fault is in the same batch for any number of ranks.
DRIVER = with_hooks("""
import json, os
import torch
bad = json.loads(os.environ["BAD"])
def spoil(model, _inputs, loss):
    kind = bad.get(str(torch.initial_seed()), bad.get("all"))
    if kind == "gradient":  # the loss is finite, its gradient overflows
        weight = model.encoder.token_embeddings.weight[0, 0]
        return loss + (weight - weight.detach()) * 1e38 * 1e38
    return loss * float(kind) if kind else loss
def on_model(model):
    model.register_forward_hook(spoil)
def on_step(run):
    torch.save(run.raw.state_dict(), os.path.join(os.environ["DUMP"], f"rank-{run.ranks.rank}"))
""")
assert "batch_tokens=1024" in TINY and "micro_batch_tokens=512" in TINY  # two micro-batches a step


def faults(**kinds: str) -> str:
    """BAD for faults in the second micro-batch of steps s3=..., s5=... (from 1)."""
    numbers = {2 * int(step[1:]) - 1: kind for step, kind in kinds.items()}
    return json.dumps({str(int(stream(0, DROPOUT, 0, n).integers(1 << 62))): kind for n, kind in numbers.items()})


def run_with(bad: str, dump: Path, words: list[str], ranks: int = 1):
    script = dump / "driver.py"
    script.write_text(DRIVER)
    starter: list[object] = []
    if ranks > 1:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            starter = ["-m", "torch.distributed.run", f"--nproc-per-node={ranks}", f"--master-port={free.getsockname()[1]}"]
    return run_script(*starter, script, *words, PYTHONPATH=str(ROOT), BAD=bad, DUMP=str(dump))


def lines(path: Path) -> list[dict]:
    """Strict JSON: NaN is not a number there."""
    return [json.loads(line, parse_constant=lambda word: pytest.fail(f"{path}: {word}")) for line in path.open()]


@pytest.fixture(scope="module")
def faulty(prepared, tmp_path_factory) -> tuple[Path, Path]:
    """A run of one rank and one of two, both with a NaN loss in step 3 and an infinite gradient in step 5."""
    made = []
    for ranks in (1, 2):
        folder = tmp_path_factory.mktemp(f"ranks{ranks}")
        words = training_words(prepared, folder / "run", "budget.steps=8", "checkpoint_every=6", "log_every=4")
        result = run_with(faults(s3="nan", s5="gradient"), folder, words, ranks)
        assert result.returncode == 0, result.stderr
        made.append(folder)
    return tuple(made)


def test_bad_steps_are_skipped_counted_and_named(faulty):
    for folder in faulty:
        run = folder / "run"
        named = lines(run / "skipped.jsonl")
        assert [(entry["step"], entry["batches"]) for entry in named] == [(3, [[0, 4], [0, 5]]), (5, [[0, 8], [0, 9]])]
        assert named[0]["loss"] == "nan" and named[1]["loss"] != "nan" and named[1]["gradient_norm"] in ("inf", "nan")
        assert json.loads((run / "summary.json").read_text())["skipped_steps"] == 2
        training = [line for line in lines(run / "metrics.jsonl") if "loss" in line]
        assert [(line["step"], line["skipped"]) for line in training] == [(4, 1), (6, 2), (8, 2)]
        state = json.loads((run / "checkpoints" / "step-00000006" / "state.json").read_text())
        assert state["skipped"] == 2 and state["in_a_row"] == 0
        weights = safetensors.torch.load_file(run / "checkpoint" / "model.safetensors")
        assert all(torch.isfinite(value).all() for value in weights.values())


def test_skipped_on_all_ranks_alike(faulty):
    """Both ranks hold the same weights to the bit, and those of the run with one rank to 1e-5."""
    one, first, second = (
        torch.load(folder / name, weights_only=True)
        for folder, name in ((faulty[0], "rank-0"), (faulty[1], "rank-0"), (faulty[1], "rank-1"))
    )
    for name, value in first.items():
        assert torch.equal(value, second[name]), name
        torch.testing.assert_close(value, one[name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


def test_too_many_in_a_row_stop_with_a_working_remedy(prepared, tmp_path):
    run = tmp_path / "run"
    words = ["budget.steps=30", "checkpoint_every=2", "log_every=3", "max_skipped_in_a_row=5"]
    result = run_with(json.dumps({"all": "inf"}), tmp_path, training_words(prepared, run, *words))
    assert result.returncode == 2 and "Traceback" not in result.stderr
    for word in ("5 steps in a row", "skipped.jsonl", "optimizer.lr", "start_from"):
        assert word in result.stderr
    assert [entry["step"] for entry in lines(run / "skipped.jsonl")] == [1, 2, 3, 4, 5]
    last = lines(run / "metrics.jsonl")[-1]
    assert last["skipped"] >= 5 and last["loss"] is None and last["gradient_norm"] is None
    assert not (run / "summary.json").exists()
    checkpoint = sorted((run / "checkpoints").iterdir())[-1]
    words = ["budget.steps=3", "optimizer.lr=1e-5", f"start_from={checkpoint}"]
    result = run_script(*training_words(prepared, tmp_path / "anew", *words))
    assert result.returncode == 0, result.stderr


def test_spike_is_skipped_and_nothing_else(prepared, tmp_path):
    """Step 1 is NaN as well: it must not disable the rule, which uses the last 10 steps here."""
    words = ["budget.steps=16", "spike_sigmas=25", "spike_window=10", "checkpoint_every=12"]
    result = run_with(faults(s1="nan", s13="10000"), tmp_path, training_words(prepared, tmp_path / "run", *words))
    assert result.returncode == 0, result.stderr
    named = lines(tmp_path / "run" / "skipped.jsonl")
    assert [entry["step"] for entry in named] == [1, 13]
    assert float(named[1]["gradient_norm"]) > 100
    kept = json.loads((tmp_path / "run" / "checkpoints" / "step-00000012" / "state.json").read_text())["norms"]
    assert len(kept) == 10 and all(0 < norm < 100 for norm in kept)
