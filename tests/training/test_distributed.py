"""Two processes compute what one does, with uneven counts of masked pieces, and may take over from one another."""

import json
import socket
from pathlib import Path

import pytest
import safetensors.torch
import torch

from tests.conftest import ROOT, run_script, training_words

WORDS = ["model.dropout=0.1", "checkpoint_every=10", "batch_tokens=2048"]


def with_two(*words: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = run_script("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", *words)
    assert result.returncode == 0, result.stderr


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in line]


@pytest.fixture(scope="module")
def alone(prepared, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "alone"
    result = run_script(*training_words(prepared, run, *WORDS, "budget.steps=20"))
    assert result.returncode == 0, result.stderr
    return run


def test_two_ranks_equal_one(prepared, alone, tmp_path):
    run = tmp_path / "two"
    with_two(*training_words(prepared, run, *WORDS, "budget.steps=20"))
    torch.testing.assert_close(torch.tensor(losses(run)), torch.tensor(losses(alone)), atol=1e-6, rtol=1e-6)
    ours, theirs = (safetensors.torch.load_file(r / "checkpoint" / "model.safetensors") for r in (run, alone))
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
    summaries = [json.loads((r / "summary.json").read_text()) for r in (run, alone)]
    for key in ("tokens", "masked", "epochs", "steps"):
        assert summaries[0][key] == summaries[1][key]


def test_one_goes_on_where_two_stopped(prepared, alone, tmp_path):
    """World size 2, then 1: the same data; losses to 1e-6."""
    run = tmp_path / "changed"
    words = training_words(prepared, run, *WORDS, "budget.steps=20")
    stop_at_ten = (
        "import os, signal, runpy, sys, training.checkpoints as c; sys.argv = sys.argv[1:]; real = c.save_state\n"
        "import training.tracking as t; log = t.Tracker.log\n"
        "def logged(self, values):\n"
        "    log(self, values)\n"
        "    if values['step'] == 10: os.kill(os.getpid(), signal.SIGTERM)\n"
        "t.Tracker.log = logged; runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    script = tmp_path / "stop.py"
    script.write_text(stop_at_ten)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = run_script("-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", script, *words,
                        PYTHONPATH=str(ROOT))  # fmt: skip
    assert result.returncode != 0 and "stopped on request" in result.stderr
    stopped = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert 10 <= stopped < 20
    result = run_script(*words)
    assert result.returncode == 0, result.stderr
    assert "going on from step" in result.stdout
    torch.testing.assert_close(torch.tensor(losses(run)), torch.tensor(losses(alone)), atol=1e-6, rtol=1e-6)
