"""Every key of every section is read by the code that it is for; sections are checked, typed and written back as they were."""

import ast
import dataclasses
import re
import subprocess
from functools import cache

import pytest

from common.errors import UserError
from common.settings import plain, typed
from corpus.settings import Corpus
from model.encoder import EncoderConfig
from model.settings import Shape
from tests.conftest import ROOT
from tests.reads import Reads
from training.settings import Budget, Finetuning, Optimizer, Pretraining, Recipe

ROOMS = ("corpus", "tasks", "tokenization", "model", "training")
# Sections that are handed on whole, key by key: the test beside each name holds their keys to what takes them.
WHOLE = {"model.settings.Shape": "EncoderConfig", "training.settings.Budget": "plan_steps"}


@cache
def code() -> dict[str, str]:
    """{path: text} of every module but tests and benchmarks."""
    names = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    wanted = [name for name in names if not name.startswith(("tests/", "benchmarks/")) and (ROOT / name).exists()]
    return {name: (ROOT / name).read_text(encoding="utf-8") for name in wanted}


@cache
def interpolated() -> set[str]:
    """Keys of the top level that the config files themselves put into other keys, as ${workdir}."""
    files = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "conf").rglob("*.yaml"))
    return set(re.findall(r"\$\{(\w+)\}", files))


def unread(files: dict[str, str]) -> set[str]:
    """Fields of the settings' dataclasses that no line takes from an object of their class."""
    reads = Reads(files).read
    for path, text in files.items():  # a unit of the corpus gets its settings as a dictionary, which may go to another machine
        if path.startswith("corpus/stages/"):
            reads |= {f"corpus.settings.Corpus.{key}" for key in re.findall(r'settings"?\]?\["(\w+)"\]', text)}
    found = set()
    for room in ROOMS:
        for node in ast.parse(files[f"{room}/settings.py"]).body:
            name = f"{room}.settings.{getattr(node, 'name', '')}"
            if isinstance(node, ast.ClassDef) and name not in WHOLE:
                keys = {part.target.id for part in node.body if isinstance(part, ast.AnnAssign)}
                scripts = {f"{name}.{key}" for key in keys & interpolated()} if room == "training" else set()
                found |= {f"{name}.{key}" for key in keys} - reads - scripts
    return found


def test_every_key_is_read():
    assert unread(code()) == set()


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("corpus.settings.Engine", "path"),
        ("corpus.settings.Corpus", "text"),
        ("tasks.settings.TaskSettings", "step"),
        ("tokenization.settings.Tokenizer", "lr"),
        ("model.settings.Lora", "kind"),
        ("training.settings.Schedule", "layers"),
        ("training.settings.Recipe", "threads"),
        ("training.settings.Pretraining", "epochs"),
    ],
)
def test_a_key_that_nobody_reads_is_found(section, key):
    """However often its word stands in the code: other sections have a key of that name, or variables are called so."""
    room, name = section.split(".")[0], section.split(".")[-1]
    path = f"{room}/settings.py"
    changed = re.sub(rf'(class {name}\b.*\n    """.*\n\n)', rf"\1    {key}: int = 0\n", code()[path])
    assert changed != code()[path]
    assert unread({**code(), path: changed}) == {f"{section}.{key}"}


def test_sections_that_are_handed_on_whole():
    taken = {field.name for field in dataclasses.fields(EncoderConfig)}
    assert {field.name for field in dataclasses.fields(Shape)} <= taken
    units = set(re.findall(r"used = \{(.*?)\}", code()["training/plan.py"])[0].split('"')[1::2]) | {"minutes", "epochs"}
    assert {field.name for field in dataclasses.fields(Budget)} == units


def test_a_section_is_an_object_of_its_own():
    settings = typed(Pretraining, {"phases": [{"max_length": 64, "until": 1.0}], "optimizer": {"lr": "2e-3"}, "seed": 3})
    assert settings.optimizer == Optimizer(lr=2e-3) and settings.longest == 64 and settings.corpus == Corpus()
    assert plain(settings)["phases"] == [{"max_length": 64, "until": 1.0}]


@pytest.mark.parametrize("schema", [Corpus, Recipe, Finetuning])
def test_what_is_written_down_is_read_back_the_same(schema):
    settings = schema()
    assert typed(schema, plain(settings)) == settings


def test_a_number_keeps_the_kind_that_it_was_written_in():
    """Digests of runs are made of the values: 16 and 16.0 are two."""
    written = plain(typed(Recipe, {"lora": {"alpha": 16}, "clip": 1}))
    assert (repr(written["lora"]["alpha"]), repr(written["clip"])) == ("16", "1")


def test_two_sections_share_no_list():
    first, second = typed(Recipe, {}), typed(Recipe, {})
    first.lora.targets.append("mlp_in")
    assert second.lora.targets == ["query", "value"]
    with pytest.raises(UserError, match=r"recipe\.lora\.targets"):
        typed(Recipe, {"lora": {"targets": 3}}, "recipe")
