"""Retrieval and mining from sentence vectors: known answers, shuffled pairs at chance, rows of the report."""

import numpy as np
import pytest
import torch

from common.files import read_json, read_jsonl, write_jsonl
from evaluation.report import build_report
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from tokenization.loading import load_tokenizer
from training.retrieval import main, margins, mined, read_columns, retrieved


@pytest.fixture(scope="module")
def checkpoint(prepared, tmp_path_factory):
    tokenizer = load_tokenizer(prepared / "tokenizer")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 48, "max_length": 64, "initializer_range": 0.3}
    model = MaskedLM(EncoderConfig(vocab_size=tokenizer.vocab_size, **shape))
    folder = tmp_path_factory.mktemp("retrieval") / "tiny"
    write_checkpoint(folder, model.state_dict(), model.encoder.config, tokenizer, {"name": "tiny"})
    return folder


def sentences(n: int) -> list[str]:
    nouns = ["alma", "ev", "kitab", "yol", "dağ", "çay", "külək", "yağış", "qış", "şəhər"]
    return [f"{nouns[i % 10]} və {nouns[i // 10 % 10]} burada {i}" for i in range(n)]


def run(checkpoint, rows, folder, *words: str):
    write_jsonl(folder / "pairs.jsonl", rows)
    code = main([str(checkpoint), str(folder / "pairs.jsonl"), "--columns", "a,b", "--out", str(folder / "out"), *words])
    assert code == 0
    tasks = ("pairs-to-b", "pairs-to-a", "pairs-mining")
    return {task: read_json(folder / "out" / "tiny-vectors" / task / "seed-0" / "summary.json") for task in tasks}


def test_equal_texts_are_found_and_shuffled_ones_are_not(checkpoint, tmp_path, capsys):
    """Random weights know no meaning, but a text is nearest to itself."""
    texts = sentences(60)
    (tmp_path / "same").mkdir()
    found = run(checkpoint, [{"a": text, "b": text} for text in texts], tmp_path / "same", "--device", "cpu")
    assert all(summary["test_score"] > 0.9 for summary in found.values())
    (tmp_path / "shuffled").mkdir()
    order = np.random.default_rng(0).permutation(60)
    rows = [{"a": text, "b": texts[place]} for text, place in zip(texts, order, strict=True)]
    found = run(checkpoint, rows, tmp_path / "shuffled", "--device", "cpu")
    assert all(summary["test_score"] < 0.1 for summary in found.values())
    report = build_report([tmp_path / "same" / "out"], tmp_path / "report")
    assert "tiny-vectors" in report and "pairs-mining" in report
    # The same command computes nothing again.
    path = tmp_path / "same" / "out" / "tiny-vectors" / "pairs-mining" / "seed-0" / "summary.json"
    before = path.stat().st_mtime_ns
    run(checkpoint, [{"a": text, "b": text} for text in texts], tmp_path / "same", "--device", "cpu")
    assert path.stat().st_mtime_ns == before and "accuracy" in capsys.readouterr().out


def test_the_rows_equal_a_loop_over_cosines(checkpoint, tmp_path):
    """Mining and retrieval once more, by their definitions."""
    random = np.random.default_rng(1)
    vectors = random.normal(size=(2, 12, 5))
    vectors[1] = vectors[0] + 0.6 * vectors[1]
    a, b = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in vectors)
    cosines = a @ b.T
    first, second = sentences(12), sentences(12)
    values = margins(cosines)
    for i in range(12):
        for j in range(12):
            near = [sorted(cosines[i])[-4:], sorted(cosines[:, j])[-4:]]
            assert values[i, j] == pytest.approx(cosines[i, j] / (sum(map(sum, near)) / 8))
    wanted = {(i, j) for i in range(12) for j in range(12) if values[i, j] == values[i].max() == values[:, j].max()}
    records, parts = mined(cosines, first, second)
    assert {tuple(map(int, row["id"].split("-"))) for row in records if row["pred"] == "yes"} == wanted
    hits = sum(i == j for i, j in wanted)
    assert parts["f1"] == pytest.approx(2 * hits / (len(wanted) + 12)) and 0 < parts["f1"] < 1
    rows = retrieved(cosines, first, second)
    assert [row["pred"] for row in rows] == cosines.argmax(1).tolist() and all(len(row["scores"]) == 12 for row in rows)


def test_equal_vectors_are_no_success():
    """A model that gives every text one vector finds nothing."""
    rows = retrieved(np.ones((5, 5)), sentences(5), sentences(5))
    assert all(row["pred"] != row["gold"] for row in rows)


def test_the_score_of_mining_is_f1(checkpoint, tmp_path):
    texts = sentences(40)
    rows = [{"a": text, "b": texts[(i + i % 2) % 40] + "."} for i, text in enumerate(texts)]
    rows = [row for i, row in enumerate(rows) if i % 2 == 0] + [{"a": f"{t} yox", "b": f"{t} bəli"} for t in texts[1::2]]
    found = run(checkpoint, rows, tmp_path, "--device", "cpu")
    assert found["pairs-mining"]["test_score"] == pytest.approx(found["pairs-mining"]["mining"]["f1"])
    lines = [row for _, row in read_jsonl(tmp_path / "out/tiny-vectors/pairs-mining/seed-0/predictions-test.jsonl")]
    assert sum(row["gold"] == "yes" for row in lines) == len(rows)


def test_texts_that_occur_twice_are_left_out(tmp_path):
    write_jsonl(tmp_path / "p.jsonl", [{"a": "x", "b": "1"}, {"a": "x", "b": "2"}, {"a": "y", "b": "3"}, {"a": "z", "b": "4"}])
    assert read_columns(tmp_path / "p.jsonl", ("a", "b"), 10) == (["y", "z"], ["3", "4"])


@pytest.mark.parametrize(
    ("rows", "columns", "said"),
    [
        ([{"a": "x", "b": ""}], "a,b", "line 1: no text under b"),
        ([{"a": "x", "b": "y"}], "a,c", "no text under c"),
        ([{"a": "x", "b": "y"}], "a,b", "fewer than two"),
        ([{"a": "x", "b": "y"}], "a", "expected two different names"),
    ],
)
def test_what_is_wrong_is_named(rows, columns, said, checkpoint, tmp_path, capsys):
    write_jsonl(tmp_path / "p.jsonl", rows)
    words = [str(checkpoint), str(tmp_path / "p.jsonl"), "--columns", columns, "--out", str(tmp_path / "out")]
    assert main(words) == 2 and said in capsys.readouterr().err


def test_real_parallel_text_is_read(az_data):
    path = az_data / "more" / "parallel" / "tatoeba_az_en.jsonl.gz"
    if not path.exists():
        pytest.skip("the parallel text is not here")
    first, second = read_columns(path, ("en", "az"), 1000)
    assert len(first) == len(second) == 1000
