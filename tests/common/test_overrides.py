"""Command-line overrides keep their value whatever characters it has; Hydra is the reference."""

from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from common.launch import excluded_keys, resolved
from common.overrides import readable, told_apart
from common.settings import keys_of
from tests.conftest import ROOT
from training.settings import Benchmark, Pretraining

OUT = "hydra.runtime.output_dir=x"


def outcome(*words: str, script: str = "train", schema=Pretraining) -> dict:
    """The settings that a script has after these words."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose(script, [*readable(list(words), schema), "run_dir=x"])
    return resolved(OmegaConf.masked_copy(config, [key for key in keys_of(schema) if key in config and key != "out"]), schema)


@pytest.mark.parametrize(
    "path",
    [
        "mətnlər",
        "öz mətnim (1)",
        "epoch=3-step=10",
        "a,b",
        "it's",
        "a'b'c",
        'say "so"',
        "[1] first",
        "{x",
        "50%",
        "~/x",
        "C:\\x\\",
        "tail\\",
        "#1",
        "a;b&c|d",
        "runs/demo/sweep/optimizer.lr-0.001+seed-0",
        "1.5.2",
        " spaced ",
        "hub://owner/name@main",
        "back\\'slash",
    ],
)
def test_any_path_is_taken_as_typed(path):
    found = outcome(f"corpus.path={path}")["corpus"]["path"]
    assert found == path if path.strip() == path else found.strip() == path.strip()


@pytest.mark.parametrize(
    ("word", "key", "value"),
    [
        ("optimizer.lr=1e-3", "optimizer.lr", 1e-3),
        ("threads=null", "threads", None),
        ("evaluation.mask_prompts=[Bakı <mask>, o=<mask>]", "evaluation.mask_prompts", ["Bakı <mask>", "o=<mask>"]),
        ("phases=[{max_length: 64, until: 1.0}]", "phases", [{"max_length": 64, "until": 1.0}]),
        ("corpus.sources=[{name: öz, path: a.b, weight: 2}]", "corpus.sources", [{"name": "öz", "path": "a.b", "weight": 2}]),
        ("corpus.weights.NAME=2", "corpus.weights", {"NAME": 2}),
        ("corpus.weights.translated-enwiki=2", "corpus.weights", {"translated-enwiki": 2}),
        ("corpus.weights.mətn.v1=2", "corpus.weights", {"mətn.v1": 2}),
        ("corpus.quality.max_top_2gram=0.3", "corpus.quality", {"preset": "none", "max_top_2gram": 0.3}),
        ("name=123", "name", "123"),
    ],
)
def test_own_values_and_names(word, key, value):
    found = outcome(word)
    for part in key.split("."):
        found = found[part]
    assert found == value


def test_own_column_names():
    words = ["task.columns.label=mövzu", "task.columns.text=başlıq (az)", "task.recipe.lr=1e-3"]
    task = outcome(*words, script="benchmark", schema=Benchmark)["task"]
    assert task["columns"] == {"label": "mövzu", "text": "başlıq (az)"} and task["recipe"] == {"lr": 1e-3}


@pytest.mark.parametrize(
    ("words", "left"),
    [
        (["-m", "device=cpu,auto", "threads=1"], "name,threads"),
        (["-m", "seed=0,1", "device=cpu"], None),
        (["device=cpu,auto"], None),
        (["--multirun", "threads=range(1,3)", "name=a,b"], "device"),
    ],
)
def test_a_sweep_over_a_key_of_no_weight_gives_each_job_its_folder(words, left):
    found = told_apart(words, ["name", "device", "threads"])
    assert found == ([] if left is None else [f"hydra.job.config.override_dirname.exclude_keys=[{left}]"])
    assert {"name", "device", "threads", "tracker"} <= {*excluded_keys("train")} == {*excluded_keys("benchmark")}
    assert excluded_keys("sentences") == []


def test_a_sweep_stays_a_sweep_and_flags_stay_flags():
    words = ["-m", "optimizer.lr=1e-4,3e-4", "--config-dir", "öz=conf", "seed=range(3)", "corpus.path=mətn"]
    assert readable(words, Pretraining) == [*words[:5], "corpus.path='mətn'"]
    assert readable(["corpus.path=a,b"], Pretraining) == ["corpus.path='a,b'"]
    assert Path(words[3]).name == "öz=conf"
