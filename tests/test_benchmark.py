"""The benchmark: the same tuning budget for all; a failure costs one cell, a kill costs one run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from benchmark import benchmark
from common.errors import UserError
from common.files import read_json, read_jsonl, write_jsonl
from common.launch import ROOT
from tests.conftest import run_script
from tests.test_finetune import checkpoint, files  # noqa: F401  (fixtures)
from training.recipe import check_seeds
from training.runs import Data, seeds_for
from training.tracking import peak_memory, reset_peak_memory
from training.trials import check_tuning

CHEAP = ["recipe.epochs=1", "threads=1", "report.pretraining=null", "report.corpus=null"]


def words_of(checkpoint: Path, files: dict, out: Path, *more: str) -> list[str]:  # noqa: F811
    models = f"[{{name: a, checkpoint: {checkpoint}}}, {{name: b, checkpoint: {checkpoint}, scratch: true}}]"
    tasks = f"[{{name: p, kind: pair, train: {files['pair']}}}, {{name: q, kind: qa, train: {files['qa']}}}]"
    return ["benchmark.py", f"models={models}", f"tasks={tasks}", f"workdir={out}", *CHEAP, *more]


def summaries(out: Path) -> int:
    """Number of finished runs; os.walk tolerates folders that are renamed during the walk."""
    return sum("summary.json" in names for _, _, names in os.walk(out))


def bench(*words: str) -> int:
    """benchmark.py in this process: importing torch and scikit-learn again costs more than these runs."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("benchmark", [*words[1:], "device=cpu", "hydra.mode=RUN"], return_hydra_config=True)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        del config.hydra
    return benchmark(config)


def results(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in sorted(out.glob("**/predictions-*.jsonl"))}


def scores(out: Path) -> dict[str, tuple]:
    keys = ("dev_score", "test_score", "steps", "train_tokens", "digest")
    return {str(p.parent.relative_to(out)): tuple(read_json(p).get(k) for k in keys) for p in out.glob("**/summary.json")}


def test_tuning_gives_every_model_the_same_budget_and_reads_no_test(checkpoint, files, tmp_path, capsys):  # noqa: F811
    task = f"tasks=[{{name: q, kind: qa, train: {files['qa']}}}]"
    grid = "tuning={lr: [1e-4, 3e-3, 1e30], seeds: [7, 8]}"
    words = words_of(checkpoint, files, tmp_path, "seeds=[0]", grid, "baselines=[]", task)
    assert bench(*words) == 0
    out = tmp_path / "benchmark"
    for model in "ab":
        for task in "q":
            place = out / model / task
            tuning = read_json(place / "tuning.json")
            assert (tuning["grid"], tuning["seeds"], tuning["runs"]) == ({"lr": [1e-4, 3e-3, 1e30]}, [7, 8], 6)
            assert tuning["hours"] > 0
            means = {label: sum(found) / 2 for label, found in tuning["scores"].items() if None not in found}
            best = f"lr={tuning['chosen']['lr']:g}"
            assert means[best] == max(means.values()) and len(tuning["scores"]) == 3
            trials = [path for path in (place / "tuning").iterdir() if path.is_dir()]
            assert len(trials) + len(list((place / "tuning").glob("*.diverged.json"))) == 6
            for trial in trials:
                assert (trial / "predictions-dev.jsonl").exists() and not (trial / "predictions-test.jsonl").exists()
                assert "test_score" not in read_json(trial / "summary.json") and not (trial / "checkpoint").exists()
            summary = read_json(place / "seed-0" / "summary.json")
            assert summary["tuning"] == tuning
            assert f"lr: {tuning['chosen']['lr']}" in (place / "seed-0" / "config.yaml").read_text()
    before = {path: path.stat().st_mtime_ns for path in out.glob("**/summary.json")}
    capsys.readouterr()
    assert bench(*words) == 0 and "0 made now, 2 already complete" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("**/summary.json")}
    # The lists that error analysis needs are written once per task.
    ids = [row["id"] for _, row in read_jsonl(out / "a" / "q" / "seed-0" / "predictions-test.jsonl")]
    listed = {row["id"]: row["text"] for _, row in read_jsonl(out / "inputs" / "q-test.jsonl")}
    assert list(listed) == ids and all(re.match(r"Harada\?\n", text) for text in listed.values())
    assert (out / "inputs" / "q-skipped.jsonl").read_bytes() == b""
    rows = [row for _, row in read_jsonl(out / "a" / "q" / "seed-0" / "predictions-test.jsonl")]
    assert all(re.fullmatch(r"[0-9a-f]{16}", row["group"]) for row in rows)


def test_tuning_that_cannot_be_fair_is_refused():
    assert check_tuning(None, [0]) == []
    assert check_tuning({"lr": [1e-5, 2e-5], "epochs": [2, 3], "seeds": [100]}, [0])[1] == {"lr": 1e-5, "epochs": 3}
    for tuning, named in (
        ({"lr": [1e-5], "seeds": [0, 100]}, "0 is also a final seed"),
        ({"lr": [1e-5]}, "tuning.seeds=None"),
        ({"seeds": [100]}, "expected a grid and seeds"),
        ({"rate": [1e-5], "seeds": [100]}, "tuning.rate"),
        ({"lr": [1e-5, 1e-5], "seeds": [100]}, "different values"),
        ({"lr": [-1.0], "seeds": [100]}, "tuning.lr=-1.0"),
    ):
        with pytest.raises(UserError, match=re.escape(named)):
            check_tuning(tuning, [0, 1])


def test_seeds_auto_follow_the_training_rows():
    class Some:
        def __init__(self, kind: str, rows: int) -> None:
            self.kind, self.train, self.digest = kind, range(rows), ""

    counts = {
        (kind, rows): len(seeds_for("auto", Data(Some(kind, rows), {}, 0, None, "", [])))
        for kind, rows in (("pair", 50), ("tagging", 10_000), ("pair", 10_001), ("qa", 50))
    }
    assert counts == {("pair", 50): 10, ("tagging", 10_000): 10, ("pair", 10_001): 5, ("qa", 50): 5}
    assert seeds_for([3, 4], Data(Some("qa", 5), {}, 0, None, "", [])) == [3, 4]
    assert check_seeds("auto") == "auto"
    with pytest.raises(UserError, match="seeds=automatic"):
        check_seeds("automatic")


def test_a_failing_run_costs_its_cell_and_nothing_else(checkpoint, files, tmp_path, capsys):  # noqa: F811
    words = words_of(checkpoint, files, tmp_path, "seeds=[0,1]", "baselines=[]")
    texts = [json.loads(line)["context"] for line in files["qa"].read_text().splitlines()[:30]]
    write_jsonl(tmp_path / "corpus" / "documents" / "d.jsonl", [{"id": n, "text": text} for n, text in enumerate(texts)])
    blocked = tmp_path / "benchmark" / "a" / "q"
    blocked.mkdir(parents=True)
    (blocked / ".seed-1.part").write_text("a file where the run's folder should grow")
    (blocked / "seed-1").write_text("and another one in the way")
    assert bench(*words) == 1
    said = capsys.readouterr()
    assert "1 failed" in said.err and "a on q, seed 1" in said.err
    failure = read_json(blocked / "failed-1.json")
    assert failure["run"] == "a on q, seed 1" and "Traceback" in failure["traceback"]
    report = (tmp_path / "benchmark" / "report.md").read_text()
    assert "seeds 1 of 2 are missing" in report
    # The corpus that prepare.py left in the same folder was searched for the test items by default.
    assert "overlap with the corpus:" in said.out and "LEAKED (half or more of their words" in said.out
    clean = next(line for line in report.splitlines() if line.startswith("| q | b |"))
    assert "n = " in clean and "## Clean and seen test items" in report
    assert len(scores(tmp_path / "benchmark")) == 7
    for name in (".seed-1.part", "seed-1"):
        (blocked / name).unlink(missing_ok=True)
    assert bench(*words) == 0 and "1 made now, 7 already complete" in capsys.readouterr().out
    assert not (blocked / "failed-1.json").exists()


@pytest.mark.slow
def test_killed_anywhere_it_ends_with_the_same_result(checkpoint, files, tmp_path):  # noqa: F811
    more = ["seeds=[0,1]", "tuning={lr: [1e-4, 1e-3], seeds: [7]}", "baselines=[majority]"]
    calm = run_script(*words_of(checkpoint, files, tmp_path / "calm", *more))
    assert calm.returncode == 0, calm.stderr
    words = words_of(checkpoint, files, tmp_path / "shot", *more)
    out = tmp_path / "shot" / "benchmark"
    env = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for count in (4, 10):  # kill after this many runs: during tuning, and during the final seeds
        process = subprocess.Popen(
            [sys.executable, *words], cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.time() + 120
        while time.time() < end and process.poll() is None and summaries(out) < count:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = run_script(*words)
    assert last.returncode == 0, last.stderr
    undisturbed = tmp_path / "calm" / "benchmark"
    assert results(out) == results(undisturbed) and scores(out) == scores(undisturbed)
    assert (out / "report.csv").read_bytes() == (undisturbed / "report.csv").read_bytes()
    assert not [path for path in out.rglob(".*") if path.is_dir()]


@pytest.mark.slow
def test_one_job_of_a_sweep_makes_no_report(checkpoint, files, tmp_path):  # noqa: F811
    task = f"[{{name: p, kind: pair, train: {files['pair']}}}]"
    words = [
        word for word in words_of(checkpoint, files, tmp_path, "seeds=[0]", "baselines=[]") if not word.startswith("tasks=")
    ]
    result = run_script(words[0], "-m", *words[1:], f"tasks={task}", f"hydra.sweep.dir={tmp_path / 'sweep'}")
    assert result.returncode == 0, result.stderr
    assert "no report from one job of a sweep" in result.stdout
    assert len(scores(tmp_path / "benchmark")) == 2 and not (tmp_path / "benchmark" / "report.html").exists()


def test_peak_memory_is_that_of_the_run_not_of_the_process():
    device = torch.device("cpu")
    if not reset_peak_memory(device):
        pytest.skip("this system does not let a process forget its peak")
    block = np.ones(100_000_000, np.uint8)
    high = peak_memory(device)
    del block
    assert reset_peak_memory(device)
    low = peak_memory(device)
    assert high - low > 90_000_000, json.dumps({"with the block": high, "after": low})


def test_a_stacked_row_beside_the_model_of_which_it_is_made(checkpoint, files, tmp_path, capsys):  # noqa: F811
    task = f"tasks=[{{name: p, kind: pair, train: {files['pair']}}}, {{name: q, kind: qa, train: {files['qa']}}}]"
    models = f"models=[{{name: a, checkpoint: {checkpoint}}}]"
    words = words_of(checkpoint, files, tmp_path, models, task, "seeds=[0,1]", "stack=[tfidf]")
    with pytest.raises(UserError, match="stack: tfidf is not in baselines"):
        bench(*words, "baselines=[majority]")
    assert bench(*words, "baselines=[tfidf]") == 0
    out = tmp_path / "benchmark"
    assert sorted(path.parent.name for path in (out / "a+tfidf").glob("*/seed-*")) == ["p", "p"]  # answers cannot be mixed
    report = (out / "report.md").read_text()
    assert "a+tfidf: no encoder of its own" in report
    before = results(out)
    assert bench(*words, "baselines=[tfidf]") == 0 and "0 made now" in capsys.readouterr().out
    assert results(out) == before
