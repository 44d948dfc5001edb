"""Every option composes, every key is read and explained, and a wrong word ends with a message and code 2."""

import importlib.util
import re

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from common.launch import folder_name  # noqa: F401  (the resolver that the configs name)
from tests.conftest import ROOT, run_script
from train import budget_of, train

CONF = ROOT / "conf"
GROUPS = ["corpus", "tokenizer", "model", "masking", "optimizer", "schedule", "tracker", "experiment", "debug", "launcher"]
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
EXPLAINED = ["base.yaml", "recipe.yaml", *(f"{group}/*.yaml" for group in [*GROUPS[:7], "launcher", "task"])]


def composed(*overrides: str, name: str = "train") -> DictConfig:
    with initialize_config_dir(str(CONF), version_base="1.3"):
        return compose(name, [*overrides, "hydra.runtime.output_dir=somewhere"], return_hydra_config=True)


def plain(config: DictConfig, *without: str) -> dict:
    """The resolved config as train.py sees it; `without` names keys that the user must give (???)."""
    config = config.copy()
    OmegaConf.set_readonly(config, False)
    OmegaConf.set_struct(config, False)
    config.pop("hydra")
    for key in without:
        OmegaConf.update(config, key, "given")
    config.run_dir = config.out = "somewhere"
    return OmegaConf.to_container(config, resolve=True, throw_on_missing=True)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_composes_with_train(option):
    if option.startswith("launcher=slurm") and importlib.util.find_spec("submitit") is None:
        pytest.skip("hydra-submitit-launcher is not installed (only Slurm users need it)")
    settings = plain(composed(option), "corpus.path", "start_from")
    group, name = option.split("=")
    assert budget_of(settings, 1e6)["amount"] > 0
    assert settings["phases"][-1]["until"] == 1.0
    limit = settings["model"]["max_length"]  # null: the checkpoint's, held to when it is read (training/starting.py)
    assert max(phase["max_length"] for phase in settings["phases"]) <= (limit or 512)
    assert limit or settings["model"]["architecture"] == "imported"
    assert settings["batch_tokens"] >= settings["micro_batch_tokens"]
    if group == "experiment":
        assert settings["name"] == name, "an experiment has its own folder"
    elif group in ("optimizer", "schedule", "tracker"):
        assert settings[group]["kind"] == name
    elif group == "model":
        assert settings["model"]["architecture"] == name.split("_")[0]


def leaves(values: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = value[0]  # noqa: PLW2901
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return found


def test_every_key_is_read_somewhere():
    """A key that no line of the code names, as an index, an attribute or a word in quotes, does nothing: an error."""
    rooms = [path for path in ROOT.glob("*/*.py") if path.parent.name not in ("tests", "benchmarks")]
    code = "\n".join(path.read_text() for path in [*rooms, *ROOT.glob("*.py")])
    keys = set()
    for option in OPTIONS:
        if not option.startswith("launcher="):
            keys.update(leaves(plain(composed(option), "corpus.path", "start_from")))
    keys.update(leaves(plain(composed(name="finetune"), "corpus.path")))
    assert len(keys) > 60
    unread = [key for key in sorted(keys) if not re.search(rf"[\"'.]{key.split('.')[-1]}\b", code)]
    assert not unread


@pytest.mark.parametrize("pattern", EXPLAINED)
def test_every_key_has_a_comment(pattern):
    bare = []
    for path in sorted(CONF.glob(pattern)):
        lines = path.read_text().splitlines()
        if "hydra:" in lines and not pattern.startswith("launcher"):
            lines = lines[: lines.index("hydra:")]
        if "defaults:" in lines:
            start = lines.index("defaults:")
            end = next((i for i in range(start, len(lines)) if not lines[i].strip()), len(lines))
            del lines[start:end]
        for line in lines:
            if re.match(r"\s*\w+: *[^ #]", line) and not re.search(r" # \S", line):
                bare.append(f"{path.relative_to(ROOT)}: {line}")
    assert not bare


@pytest.mark.parametrize(("words", "said"), [
    (["optimizer.learning_rate=1"], "learning_rate"),
    (["model=huge"], "huge"),
])  # fmt: skip
def test_wrong_words_end_with_code_2_and_no_traceback(words, said, tmp_path):
    result = run_script("train.py", f"workdir={tmp_path}", "corpus.path=nowhere", *words)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr and "Traceback" not in result.stderr


@pytest.mark.parametrize(("word", "said"), [("budget={steps: 5, tokens: 7}", "exactly one"), ("resume=perhaps", "auto"),
                                            ("schedule.kind=step", "linear, cosine")])  # fmt: skip
def test_wrong_values_are_said_before_anything_is_prepared(word, said, tmp_path):
    config = OmegaConf.create(plain(composed(word)) | {"workdir": str(tmp_path), "run_dir": str(tmp_path / "run")})
    with pytest.raises(UserError, match=said):
        train(config)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "budget", [{}, {"steps": 0}, {"steps": None}, {"steps": -3}, {"steps": 5, "minutes": 1}, {"epochs": "two"}]
)
def test_budget_is_exactly_one_positive_number(budget):
    with pytest.raises(UserError, match="budget"):
        budget_of({"budget": budget}, 1000.0)


def test_budget_in_epochs_is_counted_in_tokens():
    assert budget_of({"budget": {"epochs": 1.5, "steps": None}}, 1000.0) == {"unit": "tokens", "amount": 1500.0}
