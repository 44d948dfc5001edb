"""Every option composes, every key is read and documented, and a bad override ends with a message and exit code 2."""

import dataclasses
import importlib.util
import re
import typing

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from common.launch import read_option
from corpus.settings import Corpus
from model.settings import Shape
from tasks.settings import TaskSettings
from tests.conftest import ROOT, run_script
from tokenization.settings import Tokenizer as TokenizerSettings
from train import train
from training.plan import budget_of
from training.settings import (
    Benchmark,
    Budget,
    Finetuning,
    Masking,
    MinimalPairs,
    Optimizer,
    Pretraining,
    Robustness,
    Schedule,
    Sentences,
    TrackerSettings,
    settings_of,
)

CONF = ROOT / "conf"
GROUPS = ["corpus", "tokenizer", "model", "masking", "optimizer", "schedule", "tracker", "experiment", "debug", "launcher"]
OPTIONS = [f"{group}={path.stem}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]
EXPLAINED = ["base.yaml", "build.yaml", "recipe.yaml", *(f"{group}/*.yaml" for group in [*GROUPS[:7], "launcher", "task"])]


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
    settings = settings_of(OmegaConf.create(settings), Pretraining)  # no key without a type, no value out of its bounds
    assert budget_of(settings.budget, 1e6)["amount"] > 0
    assert settings.phases[-1].until == 1.0
    limit = settings.model.max_length  # null: the checkpoint's, held to when it is read (training/starting.py)
    assert settings.longest <= (limit or 512)
    assert limit or settings.model.architecture == "imported"
    assert settings.batch_tokens >= settings.micro_batch_tokens
    if group == "experiment":
        assert settings.name == name, "an experiment has its own folder"
    elif group in ("optimizer", "schedule", "tracker"):
        assert getattr(settings, group).kind == name
    elif group == "model":
        assert settings.model.architecture == name.split("_")[0]


TASKS = [path.stem for path in sorted((CONF / "task").glob("*.yaml"))]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_named_in_a_list_equals_hydra_s(name):
    """benchmark.py reads the files of `tasks` itself; both ways must give the same keys and values."""
    from_list = OmegaConf.to_container(read_option("task", name))
    assert from_list == OmegaConf.to_container(composed(f"task={name}", name="finetune").task)
    assert list(from_list) == list(read_option("task", "local"))


def leaves(values: dict, prefix: str = "") -> list[str]:
    found = []
    for key, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            value = value[0]  # noqa: PLW2901
        found += leaves(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]
    return found


def test_every_key_is_read_somewhere():
    """A key that no line of code names, as an index, an attribute or a string, has no effect: an error."""
    rooms = [p for p in ROOT.glob("*/**/*.py") if p.relative_to(ROOT).parts[0] not in ("tests", "benchmarks", ".venv", "runs")]
    code = "\n".join(path.read_text() for path in [*rooms, *ROOT.glob("*.py")])
    keys = set()
    for option in OPTIONS:
        if not option.startswith("launcher="):
            keys.update(leaves(plain(composed(option), "corpus.path", "start_from")))
    keys.update(leaves(plain(composed(name="finetune"), "corpus.path")))
    assert len(keys) > 60
    own = "transfer.tasks.languages."  # names below it are those of files and folders
    unread = [key for key in sorted(keys) if not (key.startswith(own) or re.search(rf"[\"'.]{key.split('.')[-1]}\b", code))]
    assert not unread


@pytest.mark.parametrize("pattern", EXPLAINED)
def test_every_key_has_a_comment(pattern):
    bare = []
    for path in sorted(CONF.glob(pattern)):
        lines = path.read_text().splitlines()
        if "hydra:" in lines and not pattern.startswith("launcher"):
            lines = lines[: lines.index("hydra:")]
        lines = [line for line in lines if not line.startswith("defaults: [")]
        if "defaults:" in lines:
            start = lines.index("defaults:")
            end = next((i for i in range(start, len(lines)) if not lines[i].strip()), len(lines))
            del lines[start:end]
        for line in lines:
            if re.match(r"\s*\w+: *[^ #]", line) and not re.search(r" # \S", line):
                bare.append(f"{path.relative_to(ROOT)}: {line}")
    assert not bare


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["optimizer.learning_rate=1"], "optimizer.learning_rate: no such key. Did you mean optimizer.lr?"),
        (["optimzer.lr=1"], "optimzer.lr: no such key. Did you mean optimizer.lr?"),
        (["model=huge"], "model=huge: no such file in conf/model"),
        (["experiment=alma_base"], "Did you mean allma_base?"),
        (["+foo=3"], "foo: no such key"),
        (["evaluation.probes=[]"], "evaluation.probes: this key is now evaluation.mask_prompts."),
        (["+seed=3"], "write seed=... without the plus"),
        (["phases=[{max_length: 64"], "phases=[{max_length: 64: expected a list"),
    ],
)
def test_wrong_words_end_with_code_2_and_no_traceback(words, said, tmp_path):
    result = run_script("train.py", f"workdir={tmp_path}", "corpus.path=nowhere", *words)
    assert result.returncode == 2, result.stderr
    assert said in result.stderr and "Traceback" not in result.stderr


WRONG = {
    "budget={steps: 5, tokens: 7}": "exactly one",
    "budget={steps: null}": "exactly one",
    "budget.steps=0": "budget.steps=0: expected a whole number above 0 or null",
    "budget.steps=-3": "budget.steps",
    "budget={steps: null, epochs: two}": "budget.epochs=two: expected a number above 0 or null",
    "resume=perhaps": "resume=perhaps: expected one of auto, never",
    "schedule.kind=step": "linear, cosine",
    "schedule.warmup=2": "schedule.warmup=2: expected a number of at least 0 and at most 1",
    "optimizer.lr=abc": "optimizer.lr=abc: expected a number of at least 0",
    "optimizer.lr=true": "optimizer.lr=true: expected a number",
    "optimizer.lr=nan": "optimizer.lr=nan: expected a number",
    "precision=fp16": "precision=fp16: expected one of auto, bf16, fp32",
    "threads=1.5": "threads=1.5: expected a whole number",
    "compile=maybe": "compile=maybe: expected true or false",
    "batch_tokens=100": "micro_batch_tokens=4096",
    "phases=[{max_length: 512, until: 1.0}]": "above the model's",
    "phases=[{max_length: 64, untill: 1.0}]": "phases[0].untill: no such key. Did you mean until?",
    "model.heads=5": "not a multiple of model.heads=5",
    "distill.layers=[[1]]": "layer of the student",
    "corpus.near_duplicates=0.2": "corpus.near_duplicates=0.2",
    "corpus.engine.name=spark": "processes, dask",
    "evaluation.mask_prompts=text": "evaluation.mask_prompts=text: expected a list",
    "evaluation.tasks=topic": "evaluation.tasks=topic: expected a list",
    "evaluation.tasks_epochs=0": "evaluation.tasks_epochs=0: expected a whole number of at least 1",
    "watch={files: null, rise: 0, patience: null}": "watch.rise=0: expected a number above 0",
    "evaluation.mask_prompts=[Salam]": "has no [MASK]",
    "evaluation.tasks=[topik]": "task=topik: no such file",
    "model.activation=relu6": "model.activation=relu6: choose one of gelu",
    "transplant=focus": "transplant=focus: whose?",
    "start_from=nowhere": "nowhere",
    "distill.teacher=nowhere": "nowhere",
    "watch.files=[{name: a, file: nowhere.jsonl}]": "nowhere.jsonl",
    "watch.files=[{name: a}]": "expected a {name, file} each",
    "tokenizer.phrases=100000": "tokenizer.phrases=100000: for kind=wordpiece, at most a quarter",
    "name=../up": "a folder below runs",
}


@pytest.mark.parametrize("word", WRONG)
def test_wrong_values_are_reported_before_anything_is_prepared(word, tmp_path):
    words = [] if word.startswith("name") else [f"workdir={tmp_path / 'work'}"]
    config = OmegaConf.create(plain(composed(word, *words)) | {"run_dir": str(tmp_path / "run")})
    with pytest.raises(UserError, match=re.escape(WRONG[word])):
        train(config)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("schema", "written", "given"),
    [
        (Pretraining, ["base.yaml", "train.yaml"], ("experiment", "debug", "launcher")),
        (Corpus, ["corpus/*.yaml"], ()),
        (TokenizerSettings, ["tokenizer/*.yaml"], ()),
        (Shape, ["model/*.yaml"], ()),
        (Masking, ["masking/*.yaml"], ()),
        (Optimizer, ["optimizer/*.yaml"], ()),
        (Schedule, ["schedule/*.yaml"], ()),
        (TrackerSettings, ["tracker/*.yaml"], ()),
        (TaskSettings, ["task/*.yaml"], ()),
        (Finetuning, ["recipe.yaml", "finetune.yaml", "base.yaml"], ()),
        (Sentences, ["sentences.yaml"], ()),
        (MinimalPairs, ["minimal_pairs.yaml"], ()),
        (Robustness, ["robustness.yaml"], ()),
        (Benchmark, ["benchmark.yaml", "recipe.yaml", "base.yaml"], ()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_dataclasses_and_files_have_the_same_keys(schema, written, given):
    """A key in a file without a type would be refused when used; a field without a line in a file would be undocumented."""
    files: dict = {}
    for path in [path for pattern in written for path in CONF.glob(pattern)]:
        own = OmegaConf.load(path)
        defaults = [str(next(iter(part))) for part in own.pop("defaults", []) if isinstance(part, DictConfig)]
        files |= {group: None for group in defaults if (CONF / group).is_dir() and group not in given}
        files |= {key: own._get_node(key) for key in own if key != "hydra"}
    fields = {field.name for field in dataclasses.fields(schema)} - {"profile"}  # set by debug=profile only
    assert fields == set(files) if "base.yaml" not in written or schema is Pretraining else fields <= set(files)
    for key, hint in typing.get_type_hints(schema).items():
        if dataclasses.is_dataclass(hint) and isinstance(files.get(key), DictConfig) and key not in ("optimizer", "engine"):
            assert {field.name for field in dataclasses.fields(hint)} == set(files[key]), key


def test_budget_in_epochs_is_counted_in_tokens():
    assert budget_of(Budget(epochs=1.5), 1000.0) == {"unit": "tokens", "amount": 1500.0}
