"""The same command twice at once: the second waits for the first and uses its result; nothing is written twice."""

import json
import os
import subprocess
import sys

from common.files import read_json
from tests.conftest import ROOT, training_words

ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def both(*words: object) -> list[tuple[str, str]]:
    """Standard output and errors of two equal processes started together; both exit with 0."""
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    return said


def test_two_trainings_and_two_fine_tunings_of_one_folder(prepared, tmp_path):
    run = tmp_path / "run"
    said = both(*training_words(prepared, run, "checkpoint_every=5"))
    assert sum("waiting until it has ended" in errors for _, errors in said) == 1, said
    assert sum("already complete" in out.split("training: ")[-1] for out, _ in said) == 1, said
    assert not any("could not be written" in errors for _, errors in said)
    steps = [line["step"] for line in map(json.loads, (run / "metrics.jsonl").open()) if "loss" in line]
    assert steps == list(range(1, 21))
    assert read_json(run / "summary.json")["status"] == "done"

    out = tmp_path / "tuned"
    said = both(
        "finetune.py",
        f"checkpoint={run}",
        "task=topic",
        "seeds=[0,1]",
        "recipe.epochs=1",
        "threads=1",
        f"out={out}",
        f"hydra.run.dir={out}",
        f"cache={tmp_path / 'cache'}",
        "device=cpu",
    )
    for seed in (0, 1):
        (folder,) = out.glob(f"*/topic/seed-{seed}")
        assert {
            "config.yaml",
            "metrics.jsonl",
            "environment.json",
            "summary.json",
            "predictions-dev.jsonl",
            "predictions-test.jsonl",
            "checkpoint",
        } <= {path.name for path in folder.iterdir()}
        assert sum(f"seed {seed}" in line and "already complete" in line for text, _ in said for line in text.splitlines()) == 1
    assert not list(out.rglob("*.part")) and not list(out.rglob("*.lock"))
