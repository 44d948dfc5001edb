"""recipe.augment: a function of seed, epoch and example; the right share; labels kept; learned; resumed to the byte."""

from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from common.files import read_json, write_jsonl
from tests.conftest import run_script
from tests.test_finetune import checkpoint, files, settings_of  # noqa: F401  (fixtures)
from tests.training.test_resuming import results, words  # noqa: F401  (fixture)
from tests.training.test_resuming import run as interrupted
from training.augmentation import augmented_examples, augmented_rows, check_augment
from training.runs import prepare_data
from training.settings import Recipe, augmentation_of
from training.task_models import read_start

KINDS = ("classification", "pair", "choice", "tagging", "qa", "similarity", "multilabel")


def data_of(checkpoint, file, kind):  # noqa: F811
    start = read_start(checkpoint)
    return start, prepare_data(settings_of(f"task.kind={kind}", f"task.train={file}", "task.language=az").task, start, {})


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_an_epoch_are_those_of_the_changed_examples(kind, checkpoint, files):  # noqa: F811
    start, data = data_of(checkpoint, files[kind], kind)
    rows, augment = data.splits["train"], {"diacritics": 0.5}

    def made(seed: int, epoch: int):
        return augmented_rows(data, start.tokenizer, augment, seed, epoch)

    def same(a, b) -> list[bool]:  # a context may have more windows in one of them
        return [len(a.rows) == len(b.rows) and np.array_equal(x.ids, y.ids) for x, y in zip(a.rows, b.rows, strict=False)]

    one, again, next_epoch, other = made(0, 0), made(0, 0), made(0, 1), made(1, 0)
    assert all(same(one, again)) and not all(same(one, next_epoch)) and not all(same(one, other))
    changed = augmented_examples(data.task, augment, 0, 0)
    assert 0 < len(changed) < len(data.task.train)
    for number in range(len(rows)):
        old, new = (part.rows[part.first[number] : part.first[number + 1]] for part in (rows, one))
        kept = len(old) == len(new) and all(np.array_equal(a.ids, b.ids) for a, b in zip(old, new, strict=True))
        assert kept == (number not in changed)
    for before, after in zip(rows.rows, one.rows, strict=False):
        assert kind == "qa" or np.array_equal(before.targets, after.targets)
    assert all(same(made(0, 0), rows)) is False
    augment = {"diacritics": 0.0}
    assert all(same(made(0, 0), rows))


def test_answers_point_at_the_same_letters_in_changed_rows(checkpoint, files):  # noqa: F811
    start, data = data_of(checkpoint, files["qa"], "qa")
    rows = augmented_rows(data, start.tokenizer, {"diacritics": 1.0}, 0, 0)
    found = 0
    for number, example in enumerate(data.task.train):
        for row in rows.rows[rows.first[number] : rows.first[number + 1]]:
            begin, end = row.targets
            if begin:
                text = start.tokenizer.decode(row.ids[begin : end + 1]).lower()
                city = example["answers"][0]["text"].lower().translate(str.maketrans("ıəşğöüç", "iesgouc"))
                assert text.replace(" ", "") == city.replace(" ", "")
                found += 1
    assert found > 10


def test_the_share_is_that_of_the_examples(checkpoint, tmp_path):  # noqa: F811
    write_jsonl(tmp_path / "a.jsonl", [{"id": n, "text": f"şəhər {n}", "label": "ab"[n % 2]} for n in range(3000)])
    _, data = data_of(checkpoint, tmp_path / "a.jsonl", "classification")
    count = len(data.task.train)
    assert abs(len(augmented_examples(data.task, {"diacritics": 0.3}, 0, 0)) / count - 0.3) < 0.05
    both = augmented_examples(data.task, {"capitals": 0.5, "diacritics": 0.5}, 0, 0)
    assert abs(len(both) / count - 0.75) < 0.05
    assert both == augmented_examples(data.task, {"diacritics": 0.5, "capitals": 0.5}, 0, 0)  # the order of keys is nothing
    part = augmented_examples(data.task, {"diacritics": {"examples": 1.0, "share": 0.5}}, 0, 0)
    typed = "".join(part.get(n, example)["text"].split()[0] for n, example in enumerate(data.task.train))
    assert abs(typed.count("e") / (2 * count) - 0.5) < 0.04


@pytest.mark.slow  # four processes
def test_a_stopped_run_goes_on_with_the_same_rows(words, tmp_path):  # noqa: F811
    """8 steps an epoch: a stop after step 11 is inside the second epoch, whose rows are made again."""
    own = [*words, "task.language=az", "recipe.augment={diacritics: 0.5, slips: {examples: 0.5, share: 0.5}}"]
    assert interrupted(own, tmp_path / "whole", 0).returncode == 0
    assert interrupted(own, tmp_path / "cut", 11).returncode == 85
    assert interrupted(own, tmp_path / "cut", 0).returncode == 0
    assert results(tmp_path / "cut") == results(tmp_path / "whole")
    plain = tmp_path / "plain"
    assert interrupted([*words, "task.language=az"], plain, 0).returncode == 0
    assert results(plain)["0/metrics"] != results(tmp_path / "whole")["0/metrics"]


def test_what_cannot_be_is_named_before_the_first_step(checkpoint, files, tmp_path):  # noqa: F811
    assert augmentation_of(0.3) == (0.3, 1.0) and augmentation_of({"examples": 0.2, "share": 0.1}) == (0.2, 0.1)
    for value in (1.5, "much", {"share": 0.1}, {"examples": 2}, True):
        with pytest.raises(UserError, match=r"recipe\.augment=.*expected a share of the examples"):
            augmentation_of(value)
    with pytest.raises(UserError, match=r"recipe\.augment\.slips=7"):
        settings_of("recipe.augment={slips: 7}")
    with pytest.raises(UserError, match=r"recipe\.augment and recipe\.teacher"):
        settings_of("recipe.augment={slips: 0.1}", "recipe.teacher=x")
    _, data = data_of(checkpoint, files["tagging"], "tagging")
    with pytest.raises(UserError, match=r"recipe\.augment of .*: spaces joins words"):
        check_augment(Recipe(augment={"spaces": 0.1}), data.task)
    place = [f"checkpoint={checkpoint}", "task.kind=classification", f"task.train={files['classification']}"]
    out = [f"out={tmp_path}/out", f"workdir={tmp_path}"]
    for name, language, said in (("typos", "az", "'typos' is none of"), ("script", "tr", "script needs other_script")):
        result = run_script("finetune.py", *place, *out, f"task.language={language}", f"recipe.augment={{{name}: 0.1}}")
        assert result.returncode == 2 and said in result.stderr, result.stderr
    assert not list(Path(tmp_path / "out").rglob("summary.json"))


def test_it_is_part_of_what_a_run_is(checkpoint, files, tmp_path):  # noqa: F811
    place = [f"checkpoint={checkpoint}", "task.kind=classification", f"task.train={files['classification']}"]
    words = [*place, f"out={tmp_path}/out", f"workdir={tmp_path}", "task.language=az", "recipe.epochs=1", "device=cpu"]  # noqa: F811
    assert run_script("finetune.py", *words).returncode == 0
    (summary,) = Path(tmp_path / "out").rglob("summary.json")
    before = read_json(summary)["digest"]
    result = run_script("finetune.py", *words, "recipe.augment={diacritics: 0.5}")
    assert result.returncode == 0 and "already complete" not in result.stdout, result.stderr
    assert read_json(summary)["digest"] != before
