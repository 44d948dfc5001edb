"""W&B mirrors the files and never decides whether a run lives; the files in the run folder are the truth."""

import json
import re
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import json_line, read_json
from common.settings import typed
from tests.conftest import ROOT, TINY, run_script, training_words
from tests.training.wandb_server import sync
from training.identity import differences
from training.settings import TrackerSettings
from training.tracking import Tracker, shown_as

NOWHERE = {"WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_API_KEY": "0" * 40, "WANDB_INIT_TIMEOUT": "5"}


@pytest.fixture
def home(tmp_path) -> dict[str, str]:
    """A home without an account, so that no login of this machine is used."""
    pytest.importorskip("wandb", reason="wandb is not installed")
    folder = tmp_path / "home"
    folder.mkdir()
    return {"HOME": str(folder), "WANDB_CONFIG_DIR": str(folder), "WANDB_CACHE_DIR": str(folder), "NETRC": str(folder / "no")}


PART = """
import json, os, sys
from pathlib import Path
from training.settings import TrackerSettings
from training.tracking import Tracker, shown_as
run, resumed, first, last = Path(sys.argv[1]), *map(json.loads, sys.argv[2:])
shown = shown_as("train", "mine", run.name, run, ["azerbaijani", "bert", "seed 3"])
tracker = Tracker(run, TrackerSettings("wandb", "p", None, "offline"), shown, {"seed": 3}, resumed_step=resumed)
for step in range(first, last):
    guesses = {"mask_prompts": {"Bakı [MASK].": [{"paytaxt": 0.5, "şəhər": 0.25}]}} if step % 4 == 0 else {}
    tracker.log({"step": step, "heldout": {"loss": 1 / (step + 1)}, **guesses})
tracker.wandb.finish() if last < 12 else tracker.close({"status": "done"})
"""


def write_part(run, home, resumed, first, last):
    """One process of a run: steps first to last, from a checkpoint at `resumed`; what W&B printed."""
    result = run_script("-c", PART, run, *map(json.dumps, (resumed, first, last)), **home, PYTHONPATH=str(ROOT))
    assert result.returncode == 0 and "stopped mirroring" not in result.stderr, result.stderr
    return result.stderr


@pytest.mark.slow
def test_the_parts_of_a_run_become_one_history(tmp_path, home):
    """Killed at step 7 with a checkpoint of step 4: the second process writes 4 to 7 again, and each is sent once."""
    run = tmp_path / "run"
    said = write_part(run, home, None, 0, 8)
    said = write_part(run, home, 4, 4, 12)
    (place,) = re.findall(r"wandb sync (\S+)", said)
    assert Path(place).is_dir() and Path(place).parent == run / "wandb"
    server = sync(run / "wandb", home)
    ((name, lines),) = server.history.items()
    assert [line["_step"] for line in lines] == list(range(12)) and name == read_json(run / "wandb.json")["id"]
    assert [line["heldout/loss"] for line in lines] == [1 / (step + 1) for step in range(12)]
    assert (
        lines[8]["mask_prompts/1"] == "Bakı [MASK]. → paytaxt 0.50, şəhər 0.25" and lines[8]["mask_prompts/1/likeliest"] == 0.5
    )
    shown = server.runs[name]
    assert (shown["displayName"], shown["groupName"], shown["jobType"]) == ("mine/run", "mine", "train")
    assert set(shown["tags"]) == {"azerbaijani", "bert", "seed 3"}


@pytest.mark.slow
def test_what_was_sent_is_not_sent_again(tmp_path, home):
    """The first part is synced while the run waits in a queue; the second adds what is new."""
    run = tmp_path / "run"
    write_part(run, home, None, 0, 8)
    first = sync(run / "wandb", home).history
    write_part(run, home, 4, 4, 12)
    steps = [line["_step"] for line in next(iter(first.values()))]
    assert steps == list(range(8))
    parts = sorted((run / "wandb").glob("offline-run-*"))
    assert len(parts) == 2 and not (run / "wandb" / "earlier").exists()
    (tmp_path / "new").mkdir()
    parts[1].rename(tmp_path / "new" / parts[1].name)
    (lines,) = sync(tmp_path / "new", home).history.values()
    assert [line["_step"] for line in lines] == list(range(8, 12))


@pytest.mark.slow
def test_runs_of_one_experiment_are_one_group_and_their_paths_exist(prepared, tmp_path, home):
    """Two jobs of a sweep and a fine-tuning: names of their own, one group, each in its job type."""
    wandb = ["tracker=wandb", "tracker.mode=offline"]
    words = ["train.py", "-m", "seed=0,1", f"workdir={prepared}", f"hydra.sweep.dir={tmp_path / 'sweep'}", *TINY]
    jobs = run_script(*words, "budget.steps=3", *wandb, **home)
    assert jobs.returncode == 0, jobs.stderr
    tuned = [
        "finetune.py",
        f"checkpoint={next((tmp_path / 'sweep').glob('*/summary.json')).parent}",
        "task=topic",
        "recipe.epochs=1",
        "seeds=[0]",
    ]
    tuned += ["threads=1", "device=cpu", f"out={tmp_path / 'tuned'}", f"hydra.run.dir={tmp_path / 'tuned'}"]
    tuning = run_script(*tuned, *wandb, **home)
    assert tuning.returncode == 0, tuning.stderr
    places = [Path(place) for place in re.findall(r"wandb sync (\S+)", jobs.stderr + tuning.stderr)]
    assert len(places) == 3 and all((place if place.is_absolute() else ROOT / place).is_dir() for place in places)
    runs = [run for place in places for run in sync(place.parent, home).runs.values()]
    assert {run["groupName"] for run in runs} == {"demo"} and len({run["displayName"] for run in runs}) == 3
    assert [run["jobType"] for run in runs] == ["train", "train", "finetune"]
    assert "sweep" in runs[0]["tags"] and "topic" in runs[2]["tags"]


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


def test_a_mirror_that_dies_does_not_stop_the_run(tmp_path, capsys):
    tracker = Tracker(tmp_path, TrackerSettings(), {}, {})
    tracker.wandb = Broken()
    for step in range(3):
        tracker.log({"step": step, "loss": 1.0})
    tracker.close({"status": "done"})
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    assert capsys.readouterr().err.count("the service is gone") == 1


def test_lines_after_the_checkpoint_are_removed_including_torn_ones(tmp_path):
    """Resuming from step 4: its evaluation comes after the checkpoint and is repeated, so its line is removed as well."""
    kept = [{"step": 0, "heldout": {}}, {"step": 2, "loss": 1.0}, {"step": 4, "loss": 0.9}]
    gone = [{"step": 4, "heldout": {}}, {"step": 6, "loss": 0.8}]
    (tmp_path / "metrics.jsonl").write_bytes(b"".join(map(json_line, kept + gone)) + b'{"step": 8, "lo')
    (tmp_path / "skipped.jsonl").write_bytes(b"".join(json_line({"step": step}) for step in (3, 5)))
    Tracker(tmp_path, TrackerSettings(), {}, {}, resumed_step=4)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").open()] == kept
    assert [json.loads(line)["step"] for line in (tmp_path / "skipped.jsonl").open()] == [3]


def test_long_names_are_shortened_and_stay_apart(tmp_path):
    """The jobs of a sweep are named after their overrides, and differ only at the end."""
    names = {shown_as("train", "mine", "x" * 200 + job, tmp_path, [])["name"] for job in "ab"}
    assert len(names) == 2 and all(len(name) == 128 for name in names)


def test_unknown_mode_is_refused():
    with pytest.raises(UserError, match=r"tracker\.mode=loud"):
        typed(TrackerSettings, {"kind": "wandb", "mode": "loud"}, "tracker")


def test_differences_name_the_keys_that_decide_the_result():
    before = {"seed": 0, "optimizer": {"lr": 1e-3}, "threads": 1, "tracker": {"kind": "local"}}
    assert differences(before, before | {"threads": 2, "tracker": {"kind": "wandb"}}) == []
    assert differences(before, before | {"optimizer": {"lr": 2e-3}}) == ["optimizer.lr: 0.001 -> 0.002"]
