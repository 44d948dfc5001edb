"""A sweep leaves a complete run in each folder; started again it skips what is done and goes on where it was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from common.launch import folder_name
from tests.conftest import ROOT, TINY, run_script

NAMES = [f"optimizer.lr={lr},seed={seed}" for lr in ("0.0001", "0.0003") for seed in (0, 1)]


def sweep_words(prepared: Path, folder: Path) -> list[str]:
    """The issue's command; what makes it tiny stands in an experiment file, as a user's own settings would."""
    config = folder / "conf" / "experiment" / "tiny.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    lines = ["# @package _global_", f"hydra: {{sweep: {{dir: {folder / 'sweep'}}}}}"]
    nested: dict[str, dict] = {}
    for word in TINY:
        key, value = word.split("=", 1)
        group, _, name = key.rpartition(".")
        nested.setdefault(group, {})[name] = value
    for group, values in nested.items():
        body = ", ".join(f"{key}: {value}" for key, value in values.items())
        lines += [f"{group}: {{{body}}}"] if group else [f"{key}: {value}" for key, value in values.items()]
    config.write_text("\n".join(lines) + "\n")
    return ["train.py", "-m", "optimizer.lr=1e-4,3e-4", "seed=0,1", "experiment=tiny", f"workdir={prepared}",
            "--config-dir", str(folder / "conf")]  # fmt: skip


def check_complete(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "sweep").iterdir() if path.is_dir()) == NAMES
    for name in NAMES:
        run = folder / "sweep" / name
        assert json.loads((run / "summary.json").read_text())["status"] == "done"
        rate, seed = (part.split("=")[1] for part in name.split(","))
        config = (run / "config.yaml").read_text()
        assert f"seed: {seed}\n" in config and f"  lr: {rate}\n" in config
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()]
        assert set(range(21)) == set(steps)
        assert (run / "checkpoint" / "model.safetensors").exists()


@pytest.mark.slow
def test_four_complete_runs_and_the_second_time_none(prepared, tmp_path):
    """In the middle of the second run the sweep is killed; the same command does the rest, a third time nothing."""
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("[!.]*")}
    words = sweep_words(prepared, tmp_path)
    second = tmp_path / "sweep" / NAMES[1] / "metrics.jsonl"
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})  # fmt: skip
    begun = time.time()
    while time.time() - begun < 120 and process.poll() is None:
        if second.exists() and len(second.read_bytes().splitlines()) > 2:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL and not (second.parent / "summary.json").exists()
    first = (tmp_path / "sweep" / NAMES[0] / "summary.json").stat().st_mtime_ns
    result = run_script(*words)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("done already") == 1 and NAMES[0] in result.stdout
    check_complete(tmp_path)
    assert (tmp_path / "sweep" / NAMES[0] / "summary.json").stat().st_mtime_ns == first
    result = run_script(*words)
    assert result.returncode == 0 and result.stdout.count("done already") == 4
    now = {path: path.stat().st_mtime_ns for path in prepared.rglob("[!.]*")}
    assert now == before, "corpus, tokenizer and shards are shared by the jobs and made once"


@pytest.mark.parametrize("overrides", ["corpus.path=/data/az,seed=1", "a=" + "x" * 300, "phases=[{max_length: 64}]"])
def test_folder_names_are_one_level_short_and_distinct(overrides):
    name = folder_name(overrides)
    assert "/" not in name and len(name) <= 160
    assert folder_name(overrides + "1") != name
    assert name.startswith(overrides[:8])
