"""A branch goes on from a checkpoint: equal to the bit where the settings agree; what does not fit is named."""

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from common.files import sha256_file, write_json
from tests.conftest import run_script, training_words
from training.checkpoints import remove_old_states

# Constant rate and masking, so that runs of different budgets agree until the shorter one ends.
WORDS = ["schedule.kind=constant", "schedule.warmup=0", "masking.rate_start=0.15", "masking.rate_end=0.15", "ema=0.9"]
WORDS += ["checkpoint_every=null", "model.dropout=0.1", "spike_sigmas=50", "spike_window=5"]
MUON = ["optimizer=muon"]


def train(prepared: Path, run: Path, *words: str):
    return run_script(*training_words(prepared, run, *WORDS, *words))


def state_of(run: Path, step: int) -> dict:
    folder = run / "checkpoints" / f"step-{step:08d}"
    files = {name: safetensors.torch.load_file(folder / f"{name}.safetensors") for name in ("model", "average")}
    counters = json.loads((folder / "state.json").read_text())
    for key in ("seconds", "joules"):  # of the clock
        counters.pop(key)
    return files | {"optimizers": torch.load(folder / "optimizers.pt", weights_only=True), "state": counters}


def assert_equal(ours, theirs, where: str = "") -> None:
    assert type(ours) is type(theirs), where
    if isinstance(ours, torch.Tensor):
        assert torch.equal(ours, theirs), where
    elif isinstance(ours, dict):
        assert ours.keys() == theirs.keys(), where
        for key in ours:
            assert_equal(ours[key], theirs[key], f"{where}.{key}")
    elif isinstance(ours, list):
        assert len(ours) == len(theirs), where
        for number, pair in enumerate(zip(ours, theirs, strict=True)):
            assert_equal(*pair, f"{where}[{number}]")
    else:
        assert ours == theirs, where


@pytest.fixture(scope="module")
def trunk(prepared, tmp_path_factory) -> Path:
    """A run of 60 steps, which crosses an epoch, with the states of steps 20, 50 and 60 kept."""
    run = tmp_path_factory.mktemp("runs") / "trunk"
    result = train(prepared, run, "budget.steps=60", "keep_checkpoints=[20,50,60]", *MUON)
    assert result.returncode == 0, result.stderr
    return run


def test_the_listed_steps_are_kept(trunk):
    assert [folder.name for folder in sorted((trunk / "checkpoints").iterdir())] == [f"step-{n:08d}" for n in (20, 50, 60)]


def test_the_newest_two_are_kept_beside_listed_ones(tmp_path):
    for step in (5, 10, 15, 20, 25):
        (tmp_path / "checkpoints" / f"step-{step:08d}").mkdir(parents=True)
    remove_old_states(tmp_path, [10, 400])
    assert sorted(int(path.name[5:]) for path in (tmp_path / "checkpoints").iterdir()) == [10, 20, 25]
    remove_old_states(tmp_path, 1)
    assert sorted(int(path.name[5:]) for path in (tmp_path / "checkpoints").iterdir()) == [25]


@pytest.mark.parametrize("budget", [["budget.steps=60"], ["budget.steps=null", "budget.epochs=1.4"]])
def test_a_branch_equals_the_uninterrupted_run(prepared, trunk, tmp_path, budget):
    """Weights, average, optimizers and counters, over the end of an epoch, also with a budget in another unit."""
    run = tmp_path / "branch"
    words = [*budget, f"branch_from={trunk}/checkpoints/step-20", "keep_checkpoints=[50]", *MUON]
    result = train(prepared, run, *words)
    assert result.returncode == 0, result.stderr
    assert "going on from step 20" in result.stdout
    assert_equal(state_of(run, 50), state_of(trunk, 50))
    lines = {r: [json.loads(line) for line in (r / "metrics.jsonl").read_text().splitlines()] for r in (run, trunk)}
    ours, theirs = ({line["step"]: line["loss"] for line in lines[r] if "loss" in line} for r in (run, trunk))
    assert min(ours) == 21 and all(theirs.get(step, loss) == loss for step, loss in ours.items())
    assert json.loads((run / "summary.json").read_text())["branch_from"].endswith("step-20")
    again = train(prepared, run, *words)
    assert "already complete" in again.stdout, again.stdout + again.stderr


def test_a_cool_down_changes_rate_and_schedule_and_leaves_the_run_alone(prepared, trunk, tmp_path):
    """wsd's promise: the decay from a stable part. The rate of the branch is its own, not the one in the checkpoint."""
    before = {path: path.stat().st_mtime_ns for path in trunk.rglob("*")}
    words = ["schedule=wsd", "schedule.kind=wsd", "schedule.decay=0.5", "budget.steps=40"]
    words += ["optimizer.lr=0", "optimizer.muon_lr=0"]
    result = train(prepared, tmp_path / "run", f"branch_from={trunk}/checkpoints/step-00000020", *words, *MUON)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    rates = [line for line in lines if "lr_factor" in line]
    assert rates[0]["lr_factor"] == 1.0 and 0 < rates[-1]["lr_factor"] < 0.05
    ends = safetensors.torch.load_file(tmp_path / "run" / "checkpoint" / "model.safetensors")
    start = state_of(trunk, 20)["average"]
    assert ends.keys() == start.keys()
    assert not all(torch.equal(ends[name], start[name]) for name in ends)  # the average moves towards the weights
    assert {path: path.stat().st_mtime_ns for path in trunk.rglob("*")} == before


def test_a_branch_may_begin_an_average_and_goes_into_a_folder_beside(prepared, tmp_path):
    """A run without an average; the same run folder on the command line; a branch that is killed begins again from there."""
    run, words = tmp_path / "run", ["ema=null", "keep_checkpoints=[4]", "checkpoint_every=null"]
    assert run_script(*training_words(prepared, run, *words, "budget.steps=6")).returncode == 0
    words = ["ema=0.9", f"branch_from={run}/checkpoints/step-4", "budget.steps=8"]
    result = run_script(*training_words(prepared, run, *words))
    assert result.returncode == 0 and "holds a run with other settings" in result.stdout, result.stderr
    (beside,) = [path for path in tmp_path.iterdir() if path.name.startswith("run-")]
    assert json.loads((beside / "summary.json").read_text())["steps"] == 8
    assert json.loads((run / "summary.json").read_text())["steps"] == 6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["budget.steps=20"], "has used 20 steps already"),
        (["budget.tokens=5000"], "tokens already"),
        (["seed=3"], "seed: 0 -> 3"),
        (["micro_batch_tokens=256"], "micro_batch_tokens: 512 -> 256"),
        (["mixture.max_repeats=2"], "mixture.max_repeats"),
        (["optimizer=adamw"], "optimizer.kind: muon -> adamw"),
        (["model.layers=3"], "layers: 2 -> 3"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_does_not_fit_is_named(prepared, trunk, tmp_path, words, said):
    words = [*MUON, "budget.steps=60", f"branch_from={trunk}/checkpoints/step-20", *words]
    if any(word.startswith("budget.tokens") for word in words):
        words.remove("budget.steps=60")
        words.append("budget.steps=null")
    result = train(prepared, tmp_path / "run", *words)
    assert result.returncode == 2 and "Traceback" not in result.stderr
    error = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(error) == 1 and "branch_from=" in error[0] and said in error[0], result.stderr


def test_another_number_of_ranks_and_another_corpus_are_named(prepared, trunk, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trunk, copy)
    folder = copy / "checkpoints" / "step-00000020"
    made_of = json.loads((copy / "made_of.json").read_text())
    write_json(copy / "made_of.json", {**made_of, "parts": {**made_of["parts"], "the corpus": "other"}})
    words = [*MUON, "budget.steps=60", f"branch_from={folder}"]
    result = train(prepared, tmp_path / "run", *words)
    assert result.returncode == 2 and "another corpus" in result.stderr, result.stderr
    write_json(copy / "made_of.json", made_of)
    state, sums = (json.loads((folder / name).read_text()) for name in ("state.json", "checksums.json"))
    write_json(folder / "state.json", {**state, "ranks": 4})
    result = train(prepared, tmp_path / "run", *words)
    assert result.returncode == 2 and f"{folder / 'state.json'}: damaged" in result.stderr, result.stderr
    write_json(folder / "checksums.json", {**sums, "state.json": sha256_file(folder / "state.json")})
    result = train(prepared, tmp_path / "run", *words)
    assert result.returncode == 2 and "was trained on 4 rank(s), this run has 1" in result.stderr, result.stderr


def test_a_damaged_and_a_foreign_checkpoint_are_named(prepared, trunk, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(trunk, damaged)
    victim = damaged / "checkpoints" / "step-00000020" / "optimizers.pt"
    victim.write_bytes(victim.read_bytes()[:-100])
    strange = tmp_path / "strange" / "checkpoints" / "step-00000020"
    shutil.copytree(trunk / "checkpoints" / "step-00000020", strange)
    for place, said in (
        (victim.parent, f"{victim}: damaged"),
        (strange, "config.yaml and made_of.json are not in"),
        (trunk / "checkpoint", "holds no optimizers and counters"),
        (trunk / "checkpoints" / "step-33", "step-00000020, step-00000050"),
        (trunk, "step-00000020, step-00000050"),
    ):
        result = train(prepared, tmp_path / "run", *MUON, "budget.steps=60", f"branch_from={place}")
        assert result.returncode == 2 and "Traceback" not in result.stderr
        assert said in result.stderr, (said, result.stderr)


@pytest.mark.parametrize("value", ["0", "[]", "[5,-1]", "[a]", "null", "2.5"])
def test_a_wrong_number_of_checkpoints_is_named(prepared, tmp_path, value):
    result = train(prepared, tmp_path / "run", f"keep_checkpoints={value}")
    assert result.returncode == 2 and "keep_checkpoints" in result.stderr and "[100,200]" in result.stderr
