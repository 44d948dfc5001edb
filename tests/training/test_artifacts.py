"""W&B gets a benchmark's table and page, and on request checkpoints with their origin; read from what it wrote offline."""

import csv
import json
from pathlib import Path

import pytest

from tests.conftest import run_script, training_words
from tests.training.wandb_files import artifacts, history, records
from training.tracking import for_wandb

WANDB = ["tracker=wandb", "tracker.mode=offline"]


@pytest.fixture
def home(tmp_path) -> dict[str, str]:
    """A home without an account, in which W&B keeps what it copies."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    folder = tmp_path / "home"
    folder.mkdir()
    names = ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR")
    return dict.fromkeys(names, str(folder)) | {"NETRC": str(folder / "no")}


def parts(place: Path) -> dict[str, Path]:
    """{job type: folder} of the runs that W&B wrote below `place`."""
    folders = [*place.glob("wandb/offline-run-*")]
    return {next(r.run.job_type for r in records(f) if r.WhichOneof("record_type") == "run"): f for f in folders}


def benchmark_words(pretrained: Path, out: Path) -> list[str]:
    words = [f"models=[{{name: mine, checkpoint: {pretrained}}}]", "tasks=[topic]", "seeds=[0]", "baselines=[majority]"]
    words += ["recipe.epochs=1", "device=cpu", "threads=1", "report.overlap=null", "report.corpus=null"]
    return ["benchmark.py", f"out={out}", f"hydra.run.dir={out}", f"report.pretraining={pretrained}", *words]


@pytest.mark.slow
def test_a_benchmark_sends_its_table_and_page_and_checkpoints_with_their_origin(prepared, tmp_path, home):
    run, out = tmp_path / "pretrain", tmp_path / "out"
    asked = [*WANDB, "tracker.artifacts=true"]
    result = run_script(*training_words(prepared, run, "budget.steps=3", *asked), **home)
    assert result.returncode == 0 and "stopped mirroring" not in result.stderr, result.stderr
    result = run_script(*benchmark_words(run, out), "save_checkpoint=true", *asked, **home)
    assert result.returncode == 0 and "stopped mirroring" not in result.stderr, result.stderr

    # The run of pre-training made the very version that the fine-tuning used: same name, same digest of the content.
    (made,) = artifacts(parts(run)["train"])
    used, tuned = artifacts(parts(out)["benchmark"])
    assert (made["used"], used["used"], tuned["used"]) == (False, True, False)
    assert (made["name"], made["digest"], made["files"]) == (used["name"], used["digest"], used["files"])
    assert "model.safetensors" in made["files"] and made["name"].endswith("-pretrain")
    assert "model.safetensors" in tuned["files"] and tuned["name"] == "mine-topic-seed-0"
    assert tuned["files"]["model.safetensors"] != made["files"]["model.safetensors"]

    # Every number of the log is mirrored, what tells of a run's health included.
    lines = [for_wandb(json.loads(line)) for line in (run / "metrics.jsonl").read_text().splitlines()]
    sent = set().union(*history(parts(run)["train"]))
    assert sent == set().union(*lines)
    assert {"seconds/waiting for batches", "gradient_norm", "tokens_per_second"} <= sent
    assert any(key.startswith("sizes/gradient") for key in sent), sorted(sent)

    # The page has the bytes of the file, the table its lines.
    media = parts(out)["report"] / "files" / "media"
    (page,), (table,) = media.rglob("*.html"), media.rglob("*.table.json")
    assert page.read_bytes() == (out / "report.html").read_bytes()
    sent = json.loads(table.read_text())
    with open(out / "report.csv", newline="") as file:
        head, *lines = csv.reader(file)
    assert sent["columns"] == head and len(sent["data"]) == len(lines)
    score, low = head.index("score"), head.index("low")
    assert [row[score] for row in sent["data"]] == [float(line[score]) for line in lines]
    assert {row[low] for row in sent["data"]} >= {None} and any(isinstance(row[low], float) for row in sent["data"])


@pytest.mark.slow
def test_checkpoints_are_sent_on_request_only_and_a_report_again_is_the_same_run(prepared, tmp_path, home):
    run, out = tmp_path / "pretrain", tmp_path / "out"
    result = run_script(*training_words(prepared, run, "budget.steps=3", *WANDB), **home)
    assert result.returncode == 0 and artifacts(parts(run)["train"]) == []
    for _ in range(2):
        result = run_script(*benchmark_words(run, out), "save_checkpoint=true", *WANDB, **home)
        assert result.returncode == 0 and "stopped mirroring" not in result.stderr, result.stderr
    assert artifacts(parts(out)["benchmark"]) == []
    identity = json.loads((out / "wandb.json").read_text())["id"]
    assert {folder.name.rpartition("-")[2] for folder in out.glob("wandb/offline-run-*")} >= {identity}
    assert len({folder.name.rpartition("-")[2] for folder in out.glob("wandb/offline-run-*")}) == 2
