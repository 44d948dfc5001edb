"""W&B mirrors the files and never decides whether a run lives; config.yaml, metrics.jsonl and summary.json are the truth."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from common.errors import UserError
from common.files import json_line
from tests.conftest import ROOT, run_script, training_words
from training.tracking import Tracker, differences

NOWHERE = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "5"}


@pytest.fixture
def home(tmp_path) -> dict[str, str]:
    """An account-less home, so that no login of this machine is used."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    folder = tmp_path / "home"
    folder.mkdir()
    return {"HOME": str(folder), "WANDB_CONFIG_DIR": str(folder), "WANDB_CACHE_DIR": str(folder), "NETRC": str(folder / "no")}


@pytest.mark.slow
def test_offline_and_resumed_under_the_same_id(prepared, tmp_path, home):
    run = tmp_path / "run"
    words = training_words(prepared, run, "tracker=wandb", "tracker.mode=offline", "budget.steps=120")
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                               env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | home)  # fmt: skip
    begun = time.time()
    while time.time() - begun < 120 and process.poll() is None:
        if (run / "metrics.jsonl").exists() and len((run / "metrics.jsonl").read_bytes().splitlines()) > 5:
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    errors = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 85, errors
    identity = json.loads((run / "wandb.json").read_text())["id"]
    result = run_script(*words, **home)
    assert result.returncode == 0, result.stderr
    assert "going on from step" in result.stdout and "stopped mirroring" not in result.stderr
    assert json.loads((run / "wandb.json").read_text())["id"] == identity
    folders = sorted((run / "wandb").glob("offline-run-*"))
    assert len(folders) == 2 and all(folder.name.endswith(f"-{identity}") for folder in folders)
    sizes = [file.stat().st_size for folder in folders for file in folder.glob("*.wandb")]
    assert len(sizes) == 2 and min(sizes) > 500


@pytest.mark.slow
def test_a_server_that_cannot_be_reached_does_not_stop_a_run(prepared, tmp_path, home):
    run = tmp_path / "run"
    words = training_words(prepared, run, "tracker=wandb", "budget.steps=3")
    result = run_script(*words, **home, **NOWHERE)
    assert result.returncode == 0, result.stderr
    assert "warning: W&B" in result.stderr and "tracker.mode=offline" in result.stderr
    assert json.loads((run / "summary.json").read_text())["steps"] == 3
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").open()] == [0, 1, 2, 3, 3]


class Broken:
    """A mirror whose service has died."""

    summary: dict = {}  # noqa: RUF012

    def log(self, *_, **__):
        raise BrokenPipeError("the service is gone")


def test_a_mirror_that_dies_costs_only_the_mirror(tmp_path, capsys):
    tracker = Tracker(tmp_path, {"tracker": {"kind": "local"}}, True, None)
    tracker.wandb = Broken()
    for step in range(3):
        tracker.log({"step": step, "loss": 1.0})
    tracker.close({"status": "done"})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert capsys.readouterr().err.count("the service is gone") == 1


def test_lines_after_the_checkpoint_are_forgotten_torn_ones_too(tmp_path):
    """Going on from step 4: its evaluation comes after the checkpoint and is made again, so it goes as well."""
    kept = [{"step": 0, "heldout": {}}, {"step": 2, "loss": 1.0}, {"step": 4, "loss": 0.9}]
    gone = [{"step": 4, "heldout": {}}, {"step": 6, "loss": 0.8}]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(map(json_line, kept + gone)) + b'{"step": 8, "lo')
    (tmp_path / "skipped.jsonl").write_bytes(b"".join(json_line({"step": step}) for step in (3, 5)))
    Tracker(tmp_path, {"tracker": {"kind": "local"}}, True, 4)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()] == kept
    assert [json.loads(line)["step"] for line in (tmp_path / "skipped.jsonl").open()] == [3]


def test_unknown_mode_is_refused(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed")
    with pytest.raises(UserError, match=r"tracker\.mode"):
        Tracker(tmp_path, {"name": "x", "tracker": {"kind": "wandb", "mode": "loud"}}, True, None)


def test_differences_name_the_keys_that_decide_the_result():
    before = {"seed": 0, "optimizer": {"lr": 1e-3}, "threads": 1, "tracker": {"kind": "local"}}
    assert differences(before, before | {"threads": 2, "tracker": {"kind": "wandb"}}) == []
    assert differences(before, before | {"optimizer": {"lr": 2e-3}}) == ["optimizer.lr: 0.001 -> 0.002"]
