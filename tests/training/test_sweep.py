"""A sweep leaves a complete run in each folder; restarted, it skips completed runs and resumes the killed one."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from common.launch import folder_name
from common.overrides import readable
from tests.conftest import ROOT, TINY, run_script, training_words
from training.settings import Finetuning

NAMES = [f"experiment-tiny+optimizer.lr-{lr}+seed-{seed}" for lr in ("0.0001", "0.0003") for seed in (0, 1)]


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
    return [
        "train.py",
        "-m",
        "optimizer.lr=1e-4,3e-4",
        "seed=0,1",
        "experiment=tiny",
        f"workdir={prepared}",
        "--config-dir",
        str(folder / "conf"),
    ]


def check_complete(folder: Path) -> None:
    assert sorted(path.name for path in (folder / "sweep").iterdir() if path.is_dir()) == NAMES
    for name in NAMES:
        run = folder / "sweep" / name
        assert json.loads((run / "summary.json").read_text())["status"] == "done"
        rate, seed = (part.partition("-")[2] for part in name.split("+")[1:])
        config = (run / "config.yaml").read_text()
        assert f"seed: {seed}\n" in config and f"  lr: {rate}\n" in config
        steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()]
        assert set(range(21)) == set(steps)
        assert (run / "checkpoint" / "model.safetensors").exists()


@pytest.mark.slow
def test_four_complete_runs_and_the_second_time_none(prepared, tmp_path):
    """The sweep is killed during the second run; the same command does the rest, a third time nothing."""
    before = {path: path.stat().st_mtime_ns for path in prepared.rglob("[!.]*")}
    words = sweep_words(prepared, tmp_path)
    second = tmp_path / "sweep" / NAMES[1] / "metrics.jsonl"
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )
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
    assert result.stdout.count("training: already complete") == 1 and NAMES[0] in result.stdout
    check_complete(tmp_path)
    assert (tmp_path / "sweep" / NAMES[0] / "summary.json").stat().st_mtime_ns == first
    result = run_script(*words)
    assert result.returncode == 0 and result.stdout.count("training: already complete") == 4
    now = {path: path.stat().st_mtime_ns for path in prepared.rglob("[!.]*")}
    assert now == before, "corpus, tokenizer and shards are shared by the jobs and made once"


@pytest.mark.parametrize("overrides", ["corpus.path-/data/az+seed-1", "a-" + "x" * 300, "phases-[{max_length: 64}]", "a-ə=1"])
def test_folder_names_are_one_level_short_distinct_and_can_be_typed(overrides):
    name = folder_name(overrides)
    assert "/" not in name and len(name) <= 160
    assert folder_name(overrides + "1") != name
    assert folder_name(overrides.replace("/", "_").replace("=", "_") + "!") != name
    assert name.startswith(overrides[:2])
    word = f"checkpoint=runs/demo/sweep/{name}"
    (typed,) = readable([word], Finetuning)
    assert OverridesParser.create().parse_override(typed).value() in (f"runs/demo/sweep/{name}", f"'runs/demo/sweep/{name}'")


TINY_SWEEP = [*TINY, "budget.steps=2", "evaluation.max_tokens=200", "tokenizer.prune_from=1"]


def test_a_sweep_over_experiments_and_a_job_that_fails(prepared, tmp_path):
    """Two experiments have two folders; a job with an impossible value is named, the next one runs, the exit code tells."""
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    for name in ("one", "two"):
        (folder / f"{name}.yaml").write_text("# @package _global_\noptimizer: {lr: 1e-3}\n")
    result = run_script(
        "train.py",
        "-m",
        "experiment=one,two",
        "optimizer.lr=1e-3,fast",
        f"workdir={prepared}",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
        *TINY_SWEEP,
        "--config-dir",
        tmp_path / "conf",
    )
    assert result.returncode == 2, result.stderr
    assert "optimizer.lr=fast: expected a number" in result.stderr and "2 jobs failed" in result.stderr
    done = sorted(path.parent.name for path in (tmp_path / "sweep").glob("*/summary.json"))
    assert len(done) == 2 and all(f"experiment-{name}" in folder for name, folder in zip(("one", "two"), done, strict=True))


def test_jobs_with_other_tokenizers_have_other_folders_and_share_the_corpus(prepared, tmp_path):
    words = [word for word in TINY_SWEEP if not word.startswith("tokenizer.vocab")]
    before = {
        path: path.stat().st_mtime_ns for name in ("corpus", "tokenizer", "shards") for path in (prepared / name).rglob("*")
    }
    result = run_script(
        "train.py",
        "-m",
        "tokenizer.vocab_size=1400,1450",
        f"workdir={prepared}",
        f"hydra.sweep.dir={tmp_path / 'sweep'}",
        *words,
    )
    assert result.returncode == 0, result.stderr
    made = [path.name for path in prepared.glob("tokenizer-*vocab_size-14*")]
    assert sorted("1400" in name for name in made) == [False, True], made
    assert before == {path: path.stat().st_mtime_ns for path in before}, "what a single run prepared is left alone"
    sizes = {
        json.loads((run / "checkpoint" / "config.json").read_text())["encoder"]["vocab_size"]
        for run in (tmp_path / "sweep").iterdir()
        if run.is_dir()
    }
    assert sizes == {1400, 1450}


def test_another_value_in_the_same_name_has_its_own_folder(prepared, tmp_path):
    run = tmp_path / "run"
    for words, made in ((["budget.steps=2"], run), (["budget.steps=3"], run.with_name("run-budget.steps-3"))):
        for again in (False, True):
            result = run_script(*training_words(prepared, run, *words))
            assert result.returncode == 0, result.stderr
            assert ("already complete" in result.stdout.splitlines()[-1]) == again
            assert json.loads((made / "summary.json").read_text())["steps"] == int(words[0][-1])
