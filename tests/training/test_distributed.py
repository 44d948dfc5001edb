"""Two processes compute the same as one, with uneven counts of masked tokens, and either can resume the other's run."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import safetensors.torch
import torch

import training.distributed
from common.errors import UserError
from tests.conftest import ROOT, run_script, training_words, with_hooks

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


def test_one_rank_resumes_where_two_stopped(prepared, alone, tmp_path):
    """World size 2, then 1: the same data; losses to 1e-6."""
    run = tmp_path / "changed"
    words = training_words(prepared, run, *WORDS, "budget.steps=20")
    script = tmp_path / "stop.py"
    script.write_text(
        with_hooks("import os, signal\ndef on_step(run):\n    if run.state.step == 10: os.kill(os.getpid(), signal.SIGTERM)")
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    result = run_script(
        "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", script, *words, PYTHONPATH=str(ROOT)
    )
    assert result.returncode != 0 and "stopped on request" in result.stderr
    stopped = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"]
    assert 10 <= stopped < 20
    result = run_script(*words)
    assert result.returncode == 0, result.stderr
    assert "going on from step" in result.stdout
    torch.testing.assert_close(torch.tensor(losses(run)), torch.tensor(losses(alone)), atol=1e-6, rtol=1e-6)


LATE = """
import datetime, time
import torch.distributed as dist
import training.distributed
begin = dist.init_process_group
dist.init_process_group = lambda *words, **options: begin(*words, timeout=datetime.timedelta(seconds=3), **options)
ranks = training.distributed.start("cpu")
if ranks.first:
    time.sleep(8)  # as long as a corpus takes to build, by the measure of the group's patience
ranks.wait()
print("rank", ranks.rank, "is here", flush=True)
ranks.close()
"""


def test_ranks_wait_longer_for_the_data_than_for_one_another(tmp_path):
    """NCCL gives up after ten minutes, and rank 0 may prepare a corpus for hours."""
    (tmp_path / "late.py").write_text(LATE)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={port}", tmp_path / "late.py"]
    result = run_script(*words, PYTHONPATH=str(ROOT))
    assert result.returncode == 0, result.stderr
    assert "rank 0 is here" in result.stdout and "rank 1 is here" in result.stdout


@pytest.mark.slow
def test_started_as_srun_starts_them_two_processes_stop_with_85_and_go_on(prepared, tmp_path):
    """docs/slurm.md: ranks from the environment, no torchrun; SIGUSR1 reaches both."""
    run = tmp_path / "run"
    words = training_words(prepared, run, *WORDS, "budget.steps=200", "checkpoint_every=null")

    def start() -> list[subprocess.Popen]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
        env = [shared | {"RANK": rank, "LOCAL_RANK": rank, "CUDA_VISIBLE_DEVICES": ""} for rank in ("0", "1")]
        return [subprocess.Popen([sys.executable, *words], cwd=ROOT, env=own) for own in env]

    ranks = start()
    while not (run / "metrics.jsonl").exists() or len(losses(run)) < 3:
        assert all(rank.poll() is None for rank in ranks)
        time.sleep(0.1)
    for rank in ranks:
        rank.send_signal(signal.SIGUSR1)
    assert [rank.wait(120) for rank in ranks] == [85, 85]
    assert [rank.wait(300) for rank in start()] == [0, 0]
    assert len(losses(run)) == 200


def test_processes_of_srun_that_do_not_know_of_each_other_are_refused(monkeypatch):
    """`srun -n8 python train.py`: eight runs in one folder otherwise."""
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "8")
    with pytest.raises(UserError, match=r"srun started 8 processes.*docs/slurm\.md"):
        training.distributed.start("cpu")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert training.distributed.start("cpu").world == 1
