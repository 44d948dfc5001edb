"""A killed run resumes to the same bit: weights, optimizer, counters, at any moment and across epochs."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from common.files import sha256_file
from tests.conftest import ROOT, run_script, training_words, with_hooks

STEPS = 90  # the demo text has about 45 such steps: the run crosses the end of an epoch
WORDS = [f"budget.steps={STEPS}", "checkpoint_every=7", "keep_checkpoints=3", "ema=0.99", "model.dropout=0.1"]
IN_THREAD = "checkpoint_in_thread=true"
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def start(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, *words], cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def last_step(run: Path) -> int:
    """Step of the last complete line in metrics.jsonl, 0 without one."""
    if not (run / "metrics.jsonl").exists():
        return 0
    lines = [line for line in (run / "metrics.jsonl").read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return json.loads(lines[-1])["step"] if lines else 0


def weights(run: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(run / "checkpoint" / "model.safetensors")


def assert_same(run: Path, other: Path) -> None:
    ours, theirs = weights(run), weights(other)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not torch.equal(ours[name], theirs[name])]
    assert not different, f"not bitwise equal: {different}"
    lines = [[json.loads(line) for line in (r / "metrics.jsonl").read_text().splitlines()] for r in (run, other)]
    curves = [[(line["step"], line["loss"]) for line in part if "loss" in line] for part in lines]
    assert curves[0] == curves[1]
    summaries = [json.loads((r / "summary.json").read_text()) for r in (run, other)]
    for key in ("steps", "tokens", "masked", "epochs", "heldout", "skipped_steps"):
        assert summaries[0][key] == summaries[1][key], key


@pytest.fixture(scope="module")
def whole(prepared, tmp_path_factory) -> Path:
    """The uninterrupted run."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    result = run_script(*training_words(prepared, run, *WORDS))
    assert result.returncode == 0, result.stderr
    assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-2])["epoch"] >= 1, "the run must cross an epoch"
    return run


def kill_and_go_on(prepared: Path, run: Path, kills: int, seed: int, *more: str) -> None:
    """SIGKILL the run `kills` times, each a random time after it began, then let it finish.

    A run that ends before its kill is started anew and killed sooner, so a fast machine is no easier test.
    """
    draw, killed, seconds = random.Random(seed), 0, 4.0
    words = training_words(prepared, run, *WORDS, *more)
    while killed < kills:
        process = start(words)
        begun = time.time()
        while not (run / "metrics.jsonl").exists() and process.poll() is None and time.time() - begun < 60:
            time.sleep(0.05)
        time.sleep(draw.uniform(0.0, seconds))
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.returncode == -signal.SIGKILL:
            killed += 1
        else:
            assert process.returncode == 0 and seconds > 0.05, "runs end by themselves, but none can be killed"
            seconds /= 2
            shutil.rmtree(run)
    result = run_script(*words)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("more", [(), (IN_THREAD,)], ids=["", "in thread"])
def test_killed_twice_ends_with_equal_weights(prepared, whole, tmp_path, more):
    kill_and_go_on(prepared, tmp_path / "run", 2, 1, *more)
    assert_same(tmp_path / "run", whole)


@pytest.mark.slow
def test_killed_twenty_times_ends_with_equal_weights(prepared, whole, tmp_path):
    """A fresh run for every fourth kill, so that kills happen early, late and during checkpoints."""
    for round_ in range(5):
        kill_and_go_on(prepared, tmp_path / f"run{round_}", 4, 100 + round_, *([IN_THREAD] if round_ % 2 else []))
        assert_same(tmp_path / f"run{round_}", whole)


def test_a_stop_signal_leaves_a_checkpoint(prepared, whole, tmp_path):
    """SIGTERM, SIGUSR1 and Ctrl-C: a checkpoint within a step, exit code 85 or 130, no traceback, and the same result."""
    run = tmp_path / "run"
    words = training_words(prepared, run, *WORDS)
    for number, code, more in (
        (signal.SIGTERM, 85, IN_THREAD),
        (signal.SIGUSR1, 85, "ema=0.99"),
        (signal.SIGINT, 130, IN_THREAD),
    ):
        before = last_step(run)
        process = start([*words, more])
        begun = time.time()
        while last_step(run) < before + 3 and process.poll() is None and time.time() - begun < 120:
            time.sleep(0.02)
        process.send_signal(number)
        errors = process.communicate(timeout=60)[1].decode()
        assert process.returncode == code and "Traceback" not in errors, errors
        newest = sorted((run / "checkpoints").glob("step-*"))[-1]
        assert int(newest.name.removeprefix("step-")) == last_step(run) > before
    assert run_script(*words).returncode == 0
    assert_same(run, whole)


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove"])
def test_damaged_checkpoint_is_named_and_the_one_before_taken(prepared, whole, tmp_path, damage):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "checkpoint")
    (run / "summary.json").unlink()
    victim = sorted((run / "checkpoints").glob("step-*"))[-1] / "optimizers.pt"
    content = bytearray(victim.read_bytes())
    if damage == "remove":
        victim.unlink()
    else:
        content[len(content) // 2] ^= 1
        victim.write_bytes(content if damage == "flip" else content[: len(content) // 2])
    result = run_script(*training_words(prepared, run, *WORDS))
    assert result.returncode == 0, result.stderr
    assert str(victim) in result.stderr
    assert_same(run, whole)


UNITS = {"steps": 12, "tokens": 12_000, "epochs": 0.25, "flops": 2e9}


@pytest.mark.parametrize("unit", UNITS)
def test_a_run_with_any_budget_resumes(prepared, tmp_path, unit):
    """Its end is removed, as if it had been killed before: the second part reads the state of the first."""
    run, whole = tmp_path / "run", tmp_path / "whole"
    words = training_words(prepared, run, "budget.steps=null", f"budget.{unit}={UNITS[unit]}", "checkpoint_every=3")
    result = run_script(*words)
    assert result.returncode == 0, result.stderr
    shutil.copytree(run, whole)
    shutil.rmtree(run / "checkpoint")
    (run / "summary.json").unlink()
    states = sorted((run / "checkpoints").glob("step-*"))
    shutil.rmtree(states[-1])
    result = run_script(*words)
    assert result.returncode == 0 and f"going on from step {int(states[-2].name[5:])}" in result.stdout, result.stderr
    assert_same(run, whole)


def test_a_checkpoint_with_a_numpy_rate_is_read(prepared, tmp_path):
    """As runs with a budget in FLOPs wrote them until 2026-11-30."""
    run = tmp_path / "run"
    words = training_words(prepared, run, "budget.steps=6", "checkpoint_every=4")
    assert run_script(*words).returncode == 0
    before = weights(run)
    shutil.rmtree(run / "checkpoint")
    (run / "summary.json").unlink()
    state = run / "checkpoints" / "step-00000004"
    stored = torch.load(state / "optimizers.pt", weights_only=True)
    for group in stored[0]["param_groups"]:
        group["lr"] = np.float64(group["lr"])
    torch.save(stored, state / "optimizers.pt")
    sums = json.loads((state / "checksums.json").read_text())
    sums["optimizers.pt"] = sha256_file(state / "optimizers.pt")
    (state / "checksums.json").write_text(json.dumps(sums))
    result = run_script(*words)
    assert result.returncode == 0 and "going on from step 4" in result.stdout, result.stderr
    assert all(torch.equal(value, before[name]) for name, value in weights(run).items())


def test_damaged_shard_is_named_before_use(prepared, tmp_path):
    copy = tmp_path / "prepared"
    shutil.copytree(prepared, copy)
    tokens = copy / "shards" / "tokens.bin"
    content = bytearray(tokens.read_bytes())
    content[1000] ^= 4
    tokens.write_bytes(content)
    result = run_script(*training_words(copy, tmp_path / "run", "budget.steps=2"))
    assert result.returncode == 2
    assert str(tokens) in result.stderr and "Traceback" not in result.stderr


def test_a_finished_run_is_skipped_and_another_config_gets_its_own_folder(prepared, whole):
    result = run_script(*training_words(prepared, whole, *WORDS))
    assert result.returncode == 0 and "training: already complete" in result.stdout
    before = (whole / "summary.json").read_bytes()
    result = run_script(*training_words(prepared, whole, *WORDS, "optimizer.lr=0.5", "budget.steps=1"))
    assert result.returncode == 0 and "holds a run with other settings" in result.stdout, result.stderr
    assert "optimizer.lr-0.5" in result.stdout and (whole / "config.yaml").exists()
    assert (whole / "summary.json").read_bytes() == before


LIMITED = with_hooks("""
import resource, signal
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def limit(size):
    run_now.writer.wait()
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
def on_step(run):
    global run_now
    run_now = run
    if run.state.step == 4:
        run.writer.wait()
        files = {path.name: path.stat().st_size for path in Path(run.folder).glob("**/*")}
        limit(LIMIT)
    if run.state.step == 7:
        limit(resource.RLIM_INFINITY)
""")


@pytest.mark.parametrize(
    ("size", "more"),
    [
        ("files['model.safetensors'] // 2", ()),
        ("files['optimizers.pt'] // 2", ()),
        ("files['optimizers.pt'] - 60", ()),
        ("files['model.safetensors'] // 2", (IN_THREAD,)),
        ("files['optimizers.pt'] // 2", (IN_THREAD,)),
    ],
)
def test_full_disk_keeps_the_old_checkpoint_and_the_run(prepared, tmp_path, size, more):
    """A limit on file size imitates a full disk: the second checkpoint fails in the middle, whatever message the
    failing library gives, and the run continues."""
    run = tmp_path / "run"
    words = training_words(prepared, run, "budget.steps=8", "checkpoint_every=3", "log_every=100", *more)
    result = run_script("-c", LIMITED.replace("LIMIT)", f"{size})"), *words, PYTHONPATH=str(ROOT))
    assert result.returncode == 0, result.stderr
    assert "could not be written" in result.stderr and "Traceback" not in result.stderr
    assert [folder.name for folder in sorted((run / "checkpoints").iterdir())] == ["step-00000003"]
    assert (run / "checkpoint" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("size", "words"),
    [("files['metrics.jsonl']", ["log_every=1"]), ("files['model.safetensors'] // 2", ["log_every=100", "budget.steps=5"])],
    ids=["metrics", "final checkpoint"],
)
def test_a_disk_that_stays_full_is_a_message(prepared, tmp_path, size, words):
    """From step 4 on the next line of the metrics, or the final checkpoint, cannot be written, which ends the run."""
    run = tmp_path / "run"
    words = training_words(prepared, run, "budget.steps=20", "checkpoint_every=3", *words)
    limited = LIMITED.replace("LIMIT)", f"{size})").replace("== 7", "== 99")
    result = run_script("-c", limited, *words, PYTHONPATH=str(ROOT))
    assert result.returncode == 2, result.stderr
    assert "cannot be written" in result.stderr and "Traceback" not in result.stderr
    assert (run / "checkpoints" / "step-00000003").is_dir() and not (run / "summary.json").exists()


DURING = with_hooks("""
import os, signal, threading
taken = threading.Event()
def on_step(run):
    if run.state.step == 84:  # its checkpoint is due next
        real = run.tokenizer.save  # called when the weights are written, before the folder gets its name
        def save(folder):
            ACT
            real(folder)
        run.tokenizer.save = save
    if run.state.step == 86:
        taken.set()
""")


def test_killed_while_the_thread_writes(prepared, whole, tmp_path):
    """The checkpoint that was being written is gone, the one before it is whole: the run ends with the same weights."""
    run, words = tmp_path / "run", training_words(prepared, tmp_path / "run", *WORDS, IN_THREAD)
    killed = run_script("-c", DURING.replace("ACT", "os.kill(os.getpid(), signal.SIGKILL)"), *words, PYTHONPATH=str(ROOT))
    assert killed.returncode == -signal.SIGKILL
    assert sorted(folder.name for folder in (run / "checkpoints").glob("step-*"))[-1] == "step-00000077"
    result = run_script(*words)
    assert result.returncode == 0, result.stderr
    assert_same(run, whole)


def test_steps_are_taken_while_the_thread_writes(prepared, whole, tmp_path):
    """The checkpoint of step 84 is finished after step 86 and holds the state of step 84: resumed from, it ends the same."""
    run, words = tmp_path / "run", training_words(prepared, tmp_path / "run", *WORDS, IN_THREAD)
    result = run_script("-c", DURING.replace("ACT", "assert taken.wait(120)"), *words, PYTHONPATH=str(ROOT))
    assert result.returncode == 0, result.stderr
    assert_same(run, whole)
    shutil.rmtree(run / "checkpoint")
    (run / "summary.json").unlink()
    assert sorted(folder.name for folder in (run / "checkpoints").glob("step-*"))[-1] == "step-00000084"
    result = run_script(*words)
    assert result.returncode == 0 and "going on from step 84" in result.stdout, result.stderr
    assert_same(run, whole)


def test_an_error_of_the_thread_ends_the_run(prepared, tmp_path):
    """What is no error of the disk is not swallowed by the thread."""
    words = training_words(prepared, tmp_path / "run", *WORDS, IN_THREAD)
    result = run_script("-c", DURING.replace("ACT", "raise ValueError('of the thread')"), *words, PYTHONPATH=str(ROOT))
    assert result.returncode not in (0, 85) and "of the thread" in result.stderr
