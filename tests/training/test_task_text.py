"""Text for task-adaptive training: the best passages by BM25 as the formula says, none with an item of dev or test."""

import gzip
import json
import math
import random
from pathlib import Path
from types import SimpleNamespace

import pytest

from common.files import read_json, read_jsonl, write_json
from language.base import load_language
from tests.conftest import TINY, run_script, training_words
from training.task_text import K1, B, neighbours, passages, terms, write_task_text

AZ = load_language("azerbaijani")
STEMS = ["kitab", "məktəb", "dəniz", "göl", "dağ", "alma", "şəhər", "işıq", "qış", "çay", "dövlət", "fikir", "ağac", "ulduz"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """60 documents of two sources, each of one to three passages, from words with endings."""
    draw, folder = random.Random(3), tmp_path_factory.mktemp("corpus")
    write_json(folder / "report.json", {"sources": {"b": {}, "a": {}}, "language": "azerbaijani"})
    (folder / "documents").mkdir()
    for source in "ab":
        with gzip.open(folder / "documents" / f"{source}.jsonl.gz", "wt", encoding="utf-8") as file:
            for n in range(30):
                words = [
                    draw.choice(STEMS[: 4 + n % 11]) + draw.choice(["", "lar", "da"]) for _ in range(draw.randrange(5, 190))
                ]
                lines = [" ".join(words[at : at + 20]) for at in range(0, len(words), 20)]
                print(json.dumps({"id": f"{source}{n}", "text": "\n".join(lines)}), file=file)
    return folder


def test_passages_are_whole_lines_of_one_document(corpus):
    found = list(passages(corpus))
    assert [name for name, _ in found][:1] == ["b0#0"] and len({name for name, _ in found}) == len(found) > 70
    joined: dict[str, list[str]] = {}
    for name, text in found:
        joined.setdefault(name.split("#")[0], []).append(text)
    for source in "ab":
        for _, document in read_jsonl(corpus / "documents" / f"{source}.jsonl.gz"):
            assert "\n".join(joined[document["id"]]) == document["text"]
            assert all(len(part.split()) >= 64 for part in joined[document["id"]][:-1])


@pytest.mark.parametrize("count", [1, 4, 1000])
def test_the_neighbours_are_those_of_the_formula(corpus, count):
    queries = ["Kitablar məktəbdə", "dənizdə göl və dağ dağda", "ulduz", "heçnə"]
    texts = [terms(text, AZ) for _, text in passages(corpus)]
    assert terms("Kitabları İşığı", AZ) == ["kitab", "işığı"]
    mean, wanted = sum(map(len, texts)) / len(texts), set()
    for query in queries:
        scores = []
        for number, words in enumerate(texts):
            score = 0.0
            for term in set(terms(query, AZ)):
                having, often = sum(term in other for other in texts), words.count(term)
                idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
                score += idf * often * (K1 + 1) / (often + K1 * (1 - B + B * len(words) / mean))
            scores.append((-score, number))
        wanted |= {number for score, number in sorted(scores)[:count] if score < 0}
    assert neighbours(queries, corpus, count, AZ) == sorted(wanted)
    assert neighbours(queries, corpus, count, AZ, chunk=7) == sorted(wanted)


def test_no_item_of_dev_or_test_is_in_the_text(corpus, tmp_path):
    found = dict(passages(corpus))
    leaked = " ".join(found["a7#0"].split()[:15])  # 13 words in a row, in other letters, are enough
    parts = {"train": ["kitab dağ"], "dev": [AZ.lower(leaked)], "test": ["çay işıq qış göl fikir alma ağac kitab dağ"]}
    examples = {split: [{"id": f"{split}{n}", "text": text} for n, text in enumerate(texts)] for split, texts in parts.items()}
    task = SimpleNamespace(name="t", kind="classification", **examples)
    made = write_task_text(task, corpus, tmp_path, 1000, AZ)
    own = [row for _, row in read_jsonl(tmp_path / "task.jsonl")]
    near = [row for _, row in read_jsonl(tmp_path / "neighbours.jsonl")]
    assert own == [{"id": "t-train0", "text": "kitab dağ"}]
    assert "a7#0" not in {row["id"] for row in near} and made["held back"] >= 1 and len(near) == made["neighbours"] > 50
    assert all(found[row["id"]] == row["text"] for row in near)
    write_task_text(task, corpus, tmp_path / "again", 1000, AZ)
    for name in ("task.jsonl", "neighbours.jsonl"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert write_task_text(task, corpus, tmp_path / "none", 0, AZ)["neighbours"] == 0


@pytest.mark.slow
def test_a_checkpoint_goes_on_with_a_task_s_text_and_is_fine_tuned(prepared, tmp_path):
    first = tmp_path / "first"
    result = run_script(*training_words(prepared, first, "budget.steps=4"))
    assert result.returncode == 0, result.stderr
    words = [
        "-m",
        "training.task_text",
        "topic",
        "--corpus",
        prepared / "corpus",
        "--out",
        tmp_path / "text",
        "--neighbours",
        5,
    ]
    result = run_script(*words)
    assert result.returncode == 0 and "training texts of topic" in result.stdout, result.stderr
    own = ["experiment=task_adaptive", f"start_from={first}", f"corpus.path={tmp_path / 'text'}", f"workdir={tmp_path / 'run'}"]
    assert run_script("prepare.py", *own).returncode == 0
    shorter = [word for word in TINY if not word.startswith(("tokenizer", "model"))]
    result = run_script("train.py", *own, *shorter, "budget.steps=3")
    assert result.returncode == 0, result.stderr
    assert read_json(tmp_path / "run" / "pretrain" / "summary.json")["status"] == "done"
    fine = [f"checkpoint={tmp_path / 'run' / 'pretrain'}", f"out={tmp_path / 'out'}", "recipe.mlm=0.1", "recipe.epochs=1"]
    result = run_script("finetune.py", "task=topic", f"workdir={tmp_path / 'run'}", *fine, "device=cpu")
    assert result.returncode == 0, result.stderr


def test_a_missing_corpus_is_named(tmp_path):
    result = run_script("-m", "training.task_text", "topic", "--corpus", tmp_path, "--out", tmp_path / "out")
    assert result.returncode == 2 and "no built corpus there" in result.stderr
