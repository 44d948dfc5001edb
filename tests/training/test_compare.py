"""Runs are compared by setting: means and intervals over seeds as scipy has them, one row a setting."""

import json
import re

import pytest
from omegaconf import OmegaConf
from scipy import stats

from common.files import write_json, write_text
from training.compare import compare, find_runs, main


def write_run(folder, lr: float, seed: int, bits: float | None, **more):
    config = {"seed": seed, "workdir": str(folder), "threads": seed, "optimizer": {"lr": lr, "kind": "adamw"}, **more}
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(config)))
    if bits is not None:
        held = {"bits_per_character": bits, "loss": 2 * bits}
        write_json(
            folder / "summary.json", {"status": "done", "seed": seed, "heldout": held, "hours": 0.5, "tasks": {"topic": 0.5}}
        )


@pytest.fixture
def sweep(tmp_path):
    for lr, values in ((1e-2, (3.0,)), (1e-4, (2.5, 2.7, 2.9)), (1e-3, (2.0, 2.1))):
        for seed, bits in enumerate(values):
            write_run(tmp_path / "sweep" / f"lr-{lr}+seed-{seed}", lr, seed, bits)
    return tmp_path / "sweep"


def test_rows_are_settings_with_scipy_s_interval(sweep, capsys):
    rows = compare(find_runs([sweep]))
    assert [(row.setting, row.seeds) for row in rows] == [
        ({"optimizer.lr": 1e-4}, [0, 1, 2]),
        ({"optimizer.lr": 1e-3}, [0, 1]),
        ({"optimizer.lr": 1e-2}, [0]),
    ]
    assert main([str(sweep)]) == 0
    out = capsys.readouterr().out
    values = [2.5, 2.7, 2.9]
    low, high = stats.t.interval(0.95, 2, loc=2.7, scale=stats.sem(values))
    assert re.search(rf"optimizer\.lr=0\.0001 +3 +2\.7000 ± {(high - low) / 2:.4f}", out), out
    assert re.search(r"optimizer\.lr=0\.01 +1 +3\.0000 ", out) and "tasks.topic" in out
    page = (sweep / "compare.html").read_text()
    assert (
        page.count("<svg") == 1 and "optimizer.lr=0.0001" in page and "http" not in re.sub(r"http://www.w3.org[^\"]*", "", page)
    )
    assert main([str(sweep)]) == 0 and (sweep / "compare.html").read_text() == page


def test_unfinished_runs_and_repeated_seeds_are_named_and_left_out(sweep, tmp_path, capsys):
    write_run(sweep / "half", 1e-3, 5, None)
    write_run(tmp_path / "again", 1e-3, 1, 9.0)
    assert main([str(sweep), str(tmp_path / "again"), "--metric", "heldout.loss"]) == 0
    errors = capsys.readouterr().err
    assert "half is not finished" in errors and "has the settings and the seed of" in errors
    assert [row.seeds for row in compare(find_runs([sweep, tmp_path / "again"]))] == [[0, 1, 2], [0, 1], [0]]


def test_fine_tuning_runs_are_compared_by_their_scores(tmp_path, capsys):
    for seed in (0, 1):
        folder = tmp_path / f"seed-{seed}"
        write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create({"recipe": {"lr": 1e-3}, "seed": seed})))
        write_json(folder / "summary.json", {"status": "done", "dev_score": 0.5, "test_score": 0.4 + 0.1 * seed})
    assert main([str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert re.search(r"all +2 +0\.5000 ± 0\.0000 +0\.4500", out), out


def test_bad_input_is_one_line(sweep, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main([str(tmp_path / "empty")]) == 2 and "no run there" in capsys.readouterr().err
    assert main([str(sweep), "--metric", "loss"]) == 2 and "heldout.loss" in capsys.readouterr().err
    for path in sweep.glob("*/summary.json"):
        write_json(path, {**json.loads(path.read_text()), "status": "running"})
    assert main([str(sweep)]) == 2 and "none of 6 runs is finished" in capsys.readouterr().err
