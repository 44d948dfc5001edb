"""The command on fine-tuned models: a class that hangs on one letter is lost with it, nothing else; results kept; errors."""

import random

import pytest

from common.files import read_json, write_jsonl
from tests.conftest import run_script
from tests.test_finetune import checkpoint, files, run  # noqa: F401  (fixtures)
from training.robustness import words_changed


@pytest.fixture(scope="module")
def runs(checkpoint, tmp_path_factory):  # noqa: F811
    """Two seeds of a task whose classes differ in one letter with a mark: gül (flower) and gul."""
    folder, draw = tmp_path_factory.mktemp("robust"), random.Random(0)
    for split, count in (("train", 120), ("dev", 40), ("test", 60)):
        rows = [
            {"id": f"{split}{n}", "text": f"{draw.randrange(1000)} {('gül', 'gul')[n % 2]} idi", "label": "ab"[n % 2]}
            for n in range(count)
        ]
        write_jsonl(folder / f"{split}.jsonl", rows)
    more = [f"task.{split}={folder}/{split}.jsonl" for split in ("dev", "test")]
    for seed in (0, 1):
        words = [*more, "task.language=az", "task.metric=accuracy", "task.name=letters", "recipe.epochs=10", "recipe.lr=3e-3"]
        assert run(checkpoint, folder / "train.jsonl", "classification", folder / "runs", seed, *words)["test_score"] > 0.9
    return folder / "runs"


def measured(*words):
    result = run_script("-m", "training.robustness", *words)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_what_hangs_on_a_letter_is_lost_with_it(runs, tmp_path):
    words = [f"checkpoint={runs}", f"hydra.run.dir={tmp_path}", "device=cpu", "threads=1"]
    said = measured(*words, "shares=[0.5,1]")
    result = read_json(tmp_path / "report.json")["results"][0]
    at = {(point["perturbation"], point["share"]): point for point in result["points"]}
    assert result["seeds"] == 2 and result["examples"] == 60 and result["clean"]["score"] > 0.9
    assert at["diacritics", 1.0]["score"] == pytest.approx(0.5, abs=0.05) and at["diacritics", 1.0]["p"] < 0.01
    assert at["diacritics", 1.0]["score"] < at["diacritics", 0.5]["score"] < result["clean"]["score"]
    assert at["diacritics", 1.0]["words_changed"] == pytest.approx(1 / 6)  # one word of three, in every second text
    assert at["suffix_marks", 1.0]["words_changed"] == 0 and at["suffix_marks", 1.0]["difference"] == 0
    lost = [item for item in result["lost"] if item["perturbation"] == "diacritics"]
    assert lost and all("gül" in item["text"] and "gul" in item["changed"] and item["gold"] == "a" for item in lost)
    assert "diacritics" in said and "letters" in (tmp_path / "report.html").read_text(encoding="utf-8")
    # A second call computes nothing, another share does.
    path = tmp_path / f"{result['model']}-letters.json"
    before = path.stat().st_mtime_ns
    measured(*words, "shares=[0.5,1]")
    assert path.stat().st_mtime_ns == before
    measured(*words, "shares=[1]", "perturbations=[diacritics]")
    assert len(read_json(path)["points"]) == 1


def test_words_changed():
    old, new = {"text": "bir iki üç"}, {"text": "biriki uc"}
    assert words_changed([old], [old], "classification") == 0 and words_changed([old], [new], "classification") == 1
    assert words_changed([old, old], [old, {"text": "bir iki uc"}], "classification") == pytest.approx(1 / 6)


def test_what_cannot_be_is_named(runs, checkpoint, files, tmp_path):  # noqa: F811
    cases = {
        "no fine-tuned model there": [f"checkpoint={checkpoint}"],
        "'typos' is none of diacritics": [f"checkpoint={runs}", "perturbations=[typos]"],
        "shares=": [f"checkpoint={runs}", "shares=[2]"],
    }
    run(checkpoint, files["tagging"], "tagging", tmp_path / "tags", 0, "recipe.epochs=1", "task.language=tr")
    cases["spaces joins words"] = [f"checkpoint={tmp_path}/tags", "perturbations=[spaces]"]
    cases["script needs other_script"] = [f"checkpoint={tmp_path}/tags", "perturbations=[script]"]
    for said, words in cases.items():
        result = run_script("-m", "training.robustness", *words, f"hydra.run.dir={tmp_path}/out", "device=cpu")
        assert result.returncode == 2 and said in result.stderr and "Traceback" not in result.stderr, result.stderr
