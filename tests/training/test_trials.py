"""recipe.lr=auto: a short search on dev, with its own seeds, whose hours count towards the model's cost."""

from dataclasses import replace
from pathlib import Path

from common.files import read_json
from tests.test_finetune import CPU, checkpoint, files, settings_of  # noqa: F401  (fixtures)
from training.defaults import search_rates, with_defaults
from training.finetuning import run_seed
from training.recipe import with_recipe
from training.runs import Run, deciding_code, prepare_data
from training.task_models import read_start
from training.trials import search_rate


def a_run(checkpoint: Path, files: dict, out: Path, *words: str) -> Run:  # noqa: F811
    start = read_start(checkpoint)
    settings = settings_of("task.kind=pair", f"task.train={files['pair']}", "recipe.batch_size=16", *words)
    return Run(with_defaults(settings, start)[0], start, prepare_data(settings.task, start, {}), 0, CPU, out)


def test_auto_searches_on_dev_and_its_hours_count(checkpoint, files, tmp_path):  # noqa: F811
    run = a_run(checkpoint, files, tmp_path, "recipe.lr=auto", "recipe.epochs=4")
    found = search_rate(run, final=[0, 1000])
    rates = search_rates(run.start.config, run.recipe)
    assert found.recipe.lr in rates and len(rates) == 3 and found.recipe.epochs == 4
    tuned = found.tuned
    assert tuned["seeds"] == [1001, 1002] and tuned["runs"] == 6 and tuned["hours"] > 0
    trials = [path for path in (run.place / "tuning").iterdir() if path.is_dir()]
    assert len(trials) == 6 and not [path for trial in trials for path in trial.glob("predictions-test.jsonl")]
    assert all(read_json(trial / "summary.json")["epochs"] <= 2 for trial in trials)  # a third of four, rounded up
    summary = run_seed(replace(found, settings=with_recipe(found.settings, {"epochs": 1})))
    assert summary["tuning"]["hours"] == tuned["hours"]
    assert search_rate(run, final=[0, 1000]).recipe == found.recipe  # nothing is run again


def test_other_code_is_another_run(checkpoint, files, tmp_path, monkeypatch, capsys):  # noqa: F811
    run = a_run(checkpoint, files, tmp_path, "recipe.epochs=1")
    assert "reused" not in run_seed(run) and run_seed(run)["reused"]
    code = deciding_code()
    assert {"model/encoder.py", "data/features.py", "tasks/records.py", "training/finetuning.py"} <= code.keys()
    monkeypatch.setattr("training.runs.deciding_code", lambda: code | {"model/encoder.py": "edited"})
    capsys.readouterr()
    assert "reused" not in run_seed(run)
    assert "made by other code (model/encoder.py); it is run again" in capsys.readouterr().out
