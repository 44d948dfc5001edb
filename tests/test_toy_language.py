"""A language that nobody else has, in one file outside of the tree: from its text to the score of an answer.

Its small ə has the capital E, and its e the capital Ë, as Turkish has ı with I and i with İ. Unicode's lower case of E is e, so
whatever forgets to ask the pack is seen here.
"""

import json
import os
import random
from pathlib import Path

import pytest

from common.files import read_json, read_jsonl, write_jsonl
from common.launch import ROOT
from tests.conftest import TINY, run_script

PACK = '''
"""Toy: alphabet, casing and words."""

from language.base import Language

LANGUAGE = Language(
    name="toy",
    code="qty",
    scripts=("Latn",),
    alphabet="aeəiklmnopstuw",
    alphabet_upper="AËEIKLMNOPSTUW",
    lower_first={"E": "ə", "Ë": "e"},
    upper_first={"ə": "E", "e": "Ë"},
    folds={"ə": "e"},
    stop_words=frozenset("li la pi mə".split()),
    example="toki li {mask}.",
)
'''
LOWER, UPPER = "aeəiklmnopstuw", "AËEIKLMNOPSTUW"
STOPS = ["li", "la", "pi", "mə"]
SMALL = [*TINY, "tokenizer.vocab_size=300", "budget.steps=3"]


def upper(text: str) -> str:
    return text.translate(str.maketrans(LOWER, UPPER))


def words_of(draw: random.Random) -> list[str]:
    return sorted({"".join(draw.choice("klmnpstw") + draw.choice("aeəiou") for _ in range(3)) for _ in range(60)})


def document(draw: random.Random, words: list[str]) -> str:
    sentences = []
    for _ in range(6):
        chosen = [draw.choice(STOPS) if n % 3 == 1 else draw.choice(words) for n in range(9)]
        sentences.append(upper(chosen[0][0]) + " ".join(chosen)[1:] + ".")
    return " ".join(sentences)


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> dict[str, Path | dict]:
    """The pack, a corpus, a tokenizer and a checkpoint of the toy language, and questions in it."""
    folder, draw = tmp_path_factory.mktemp("toy"), random.Random(0)
    (folder / "packs" / "language").mkdir(parents=True)
    (folder / "packs" / "language" / "toy.py").write_text(PACK, encoding="utf-8")
    words = words_of(draw)
    texts = [document(draw, words) for _ in range(60)]
    copied = texts[0].replace("ə", "e")  # typed without ə: the same text by the pack's fold key
    write_jsonl(folder / "text" / "all.jsonl", [{"text": text} for text in [*texts, copied]])
    asked = draw.sample([word for word in words if "ə" in word], 12)
    for name, case in (("train", str), ("dev", upper), ("test", upper)):  # a text of one word, answered by the word
        rows = [{"context": case(word), "question": "mə li?", "answers": [{"text": word, "answer_start": 0}]} for word in asked]
        write_jsonl(folder / f"{name}.jsonl", rows)
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(folder / "packs")])}
    run = ["train.py", "language=toy", "corpus=local", f"corpus.path={folder / 'text'}", f"workdir={folder}"]
    done = run_script(*run, f"hydra.run.dir={folder / 'pretrain'}", *SMALL, **environment)
    assert done.returncode == 0, done.stderr
    return {"folder": folder, "environment": environment}


def finetune(toy, *more: str):
    folder = toy["folder"]
    words = ["task.kind=qa", *(f"task.{split}={folder / split}.jsonl" for split in ("train", "dev", "test")), "task.name=words"]
    words += ["task.metric=f1_language", "recipe.epochs=1", "device=cpu", f"hydra.run.dir={folder / 'finetune'}"]
    return run_script(
        "finetune.py", f"checkpoint={folder / 'pretrain'}", f"workdir={folder}", *words, *more, **toy["environment"]
    )


def test_every_artefact_records_the_language(toy):
    folder = toy["folder"]
    report = read_json(folder / "corpus" / "report.json")
    assert report["language"] == "toy" and "script, letters and stop words" in report["language_by"]
    assert "Toy text for pre-training" in (folder / "corpus" / "card.md").read_text(encoding="utf-8")
    assert report["total"]["removed"] == {"exact_duplicate": 1}  # the copy without ə
    assert read_json(folder / "tokenizer" / "tokenizer_config.json")["normaliser"]["language"] == "toy"
    assert read_json(folder / "shards" / "index.json")["language"] == "toy"
    assert read_json(folder / "pretrain" / "checkpoint" / "config.json")["language"] == "toy"
    assert read_json(folder / "pretrain" / "summary.json")["language"] == "toy"


def test_an_answer_in_capitals_is_right_in_the_language_and_wrong_elsewhere(toy):
    done = finetune(toy)  # the language is the checkpoint's
    assert done.returncode == 0, done.stderr
    (place,) = toy["folder"].glob("finetune/*/words/seed-0")
    summary = read_json(place / "summary.json")
    assert summary["language"] == "toy" and summary["test_score"] == 1.0
    assert {key: read_json(place / "checkpoint" / "task.json")[key] for key in ("language", "kind")} == {
        "language": "toy",
        "kind": "qa",
    }
    rows = [row for _, row in read_jsonl(place / "predictions-test.jsonl")]
    assert all(row["pred"] == upper(row["gold"][0]) != row["pred"].lower() for row in rows)
    code = f"""
import json
from evaluation.results import collect
from language.base import load_language
from tokenization.loading import load_tokenizer
report = collect([{str(toy["folder"] / "finetune")!r}])
(cell,) = report.cells.values()
tokenizer, pack = load_tokenizer({str(toy["folder"] / "tokenizer")!r}), load_language("qty")
ids = lambda text: tokenizer.encode_batch([text])[0].tolist()
words = [row["gold"][0] for row in cell.runs[0].rows]
print(json.dumps({{
    "metrics": cell.mean_metrics(), "problems": report.problems,
    "cased": [ids(pack.upper(word)) == ids(word) for word in words],
    "tokens": [len(ids(word)) for word in words], "keys": [pack.fold_key(pack.upper(word)) for word in words],
}}))
"""
    done = run_script("-c", code, **toy["environment"])
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["metrics"]["exact_match_language"] == 1.0 and said["metrics"]["exact_match"] == 0.0
    assert all(said["cased"]) and set(said["tokens"]) == {1}
    assert said["keys"] == [row["gold"][0].replace("ə", "e") for row in rows] and not said["problems"]


def test_another_language_at_once_is_an_error_that_says_which_is_which(toy):
    done = finetune(toy, "language=turkish")
    assert done.returncode == 2
    assert f"checkpoint={toy['folder'] / 'pretrain'}: toy, language: turkish" in done.stderr and "task.language" in done.stderr
    folder = toy["folder"]
    run = ["train.py", "corpus=local", f"corpus.path={folder / 'text'}", f"workdir={folder}", *SMALL]
    done = run_script(*run, f"hydra.run.dir={folder / 'other'}", **toy["environment"])  # language=toy was forgotten
    assert done.returncode == 2 and "corpus: toy, corpus.language: azerbaijani" in done.stderr
    assert read_json(folder / "corpus" / "report.json")["language"] == "toy"
