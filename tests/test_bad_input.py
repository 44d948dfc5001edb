"""User errors end with one message (what, where, what to do) and exit code 2, and leave earlier results alone."""

import json

import pytest

from common.files import sha256_file
from tests.conftest import TINY, run_script, training_words


def snapshot(folder):
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def refused(*words, named: str) -> str:
    result = run_script(*words)
    assert result.returncode == 2, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert named in result.stderr, result.stderr
    return result.stderr


def russian(folder):
    text = "Это предложение написано по-русски и к делу не относится."
    (folder / "only.jsonl").write_text(
        "".join(json.dumps({"text": f"{text} {n}"}, ensure_ascii=False) + "\n" for n in range(30))
    )


CORPORA = {
    "missing path": (None, "nowhere"),
    "folder without files": (lambda folder: None, "corpus.path"),
    "empty file": (lambda folder: (folder / "a.jsonl").write_text(""), "files are empty"),
    "no line survives": (russian, "language"),
}


@pytest.mark.parametrize("case", CORPORA)
def test_a_corpus_that_cannot_be_built(case, tmp_path):
    make, named = CORPORA[case]
    source = tmp_path / ("nowhere" if make is None else "texts")
    if make is not None:
        source.mkdir()
        make(source)
    out = tmp_path / "work"
    refused("prepare.py", "corpus=local", f"corpus.path={source}", f"workdir={out}", *TINY, named=named)
    assert not (out / "corpus").exists() and not (out / "tokenizer").exists()


def test_a_vocabulary_that_the_text_cannot_fill(prepared):
    before = snapshot(prepared)
    words = [word for word in TINY if not word.startswith("tokenizer.")]
    message = refused("prepare.py", f"workdir={prepared}", *words, "tokenizer.vocab_size=60000", named="vocab_size=60000")
    assert "fills only" in message and "or less" in message
    assert snapshot(prepared) == before


@pytest.mark.parametrize("script", ["prepare.py", "train.py", "finetune.py", "benchmark.py"])
def test_unknown_key_and_unknown_experiment(script):
    refused(script, "learning_rat=1", named="learning_rat")
    refused(script, "experiment=nowhere", named="nowhere")


def test_earlier_results_outlive_a_later_mistake(prepared, tmp_path):
    """A complete prepared folder is untouched by a run whose source is missing."""
    before = snapshot(prepared)
    refused("prepare.py", "corpus=local", f"corpus.path={tmp_path / 'gone'}", f"workdir={prepared}", *TINY, named="gone")
    assert snapshot(prepared) == before


def test_task_file_without_its_column(prepared, tmp_path):
    run = tmp_path / "run"
    assert run_script(*training_words(prepared, run, "budget.steps=1")).returncode == 0
    (tmp_path / "a.csv").write_text("başlıq,sinif\nBir kitab,a\nİki kitab,b\n", encoding="utf-8")
    message = refused(
        "finetune.py",
        f"checkpoint={run}",
        "task.kind=classification",
        f"task.train={tmp_path / 'a.csv'}",
        f"hydra.run.dir={tmp_path / 'out'}",
        named="a.csv",
    )
    assert "başlıq" in message and "task.columns" in message
