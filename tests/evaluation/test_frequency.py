"""Training frequencies of an item's words: counted by hand on a few examples, and read by the report."""

import csv
import io

import numpy as np
import pytest

from common.errors import UserError
from common.files import read_jsonl, write_json, write_jsonl
from evaluation.frequency import entity_counts_by_frequency, frequencies, write_frequencies
from evaluation.report import build_report
from evaluation.slices import ScoredRuns, slices_of
from language.azerbaijani import LANGUAGE as AZ
from tasks.base import kind_of
from tasks.load import Task


def test_the_median_word_of_a_text():
    train = [{"text": t} for t in ("QIŞ gəldi", "qış getdi", "qış gəldi, soyuq", "yay", "qış getdi")]  # the last one repeats
    test = [{"id": "a", "text": "Qış gəldi isti"}, {"id": "b", "text": "qış Yay"}, {"id": "c", "text": "!?"}]
    # qış 3 (a text that repeats counts once), gəldi 2, isti 0, yay 1; the lower of two middle words.
    assert frequencies(kind_of("classification", AZ), train, test) == [
        {"id": "a", "count": 2},
        {"id": "b", "count": 1},
        {"id": "c", "count": None},
    ]
    pairs = [{"text": "qış", "text_b": "yay"}, {"text": "yay", "text_b": "qış qış"}]
    assert frequencies("pair", pairs, [{"id": 1, "text": "qış", "text_b": "yay"}])[0]["count"] == 1  # qış in 2 texts, yay in 1


def test_the_rarest_word_of_an_answer_and_of_the_right_option():
    train = [
        {"question": "Kim?", "context": "Nizami Gəncəvi şairdir", "answers": []},
        {"question": "Harada?", "context": "Nizami Gəncəvi şairdir", "answers": []},  # one context, counted once
        {"question": "Nizami kimdir?", "context": "Füzuli də şairdir", "answers": []},
    ]
    test = [
        {"id": 1, "question": "?", "context": "x", "answers": [{"text": "Nizami Gəncəvi"}]},
        # The more frequent one counts.
        {"id": 2, "question": "?", "context": "x", "answers": [{"text": "Xaqani"}, {"text": "NİZAMİ"}]},
        {"id": 3, "question": "?", "context": "x", "answers": []},
    ]
    assert [row["count"] for row in frequencies(kind_of("qa", AZ), train, test)] == [1, 2, None]
    exam = [
        {"question": "Paytaxt?", "options": ["Bakı", "Gəncə"], "label": 0},
        {"question": "Bakı", "options": ["a", "b"], "label": 1},
    ]
    asked = [
        {"id": 1, "question": "?", "options": ["Şəki", "Bakı"], "label": 1},
        {"id": 2, "question": "?", "options": ["Şəki", "b"], "label": 0},
    ]
    assert [row["count"] for row in frequencies("choice", exam, asked)] == [1, 0]  # the text "Bakı" twice is one text


def test_entities_seen_in_training_and_new_ones():
    train = [
        {"words": ["Bakı", "şəhəri"], "tags": ["B-LOC", "O"]},
        {"words": ["BAKI", "Dövlət"], "tags": ["B-LOC", "O"]},
        {"words": ["Bakı", "Dövlət"], "tags": ["B-ORG", "I-ORG"]},
    ]
    test = [{"id": 1, "words": ["bakı", "Dövlət", "və", "Quba"], "tags": ["B-ORG", "I-ORG", "O", "B-LOC"]}]
    known = frequencies(kind_of("tagging", AZ), train, test)
    assert known == [{"id": 1, "entities": [[0, 0, 2], [0, 1, 1]]}]
    rows = [{"gold": test[0]["tags"], "pred": ["B-LOC", "O", "O", "B-LOC"]}]
    # gold: seen once (bakı Dövlət), new (Quba); predicted: seen twice (bakı: wrong), new (Quba: right).
    counts = entity_counts_by_frequency(rows, known)
    assert counts[0].tolist() == [[1, 0, 0, 0], [1, 0, 1, 0], [1, 1, 0, 0]]


def test_parts_add_up_to_the_whole():
    random = np.random.default_rng(0)
    rows = [{"id": n, "gold": "ab"[n % 2], "pred": "ab"[int(random.integers(2))], "text": "bir iki"} for n in range(80)]
    known = [{"id": n, "count": int(n % 7) if n else None} for n in range(80)]
    right = np.array([row["gold"] == row["pred"] for row in rows], dtype=float)
    found = [
        part
        for part in slices_of(ScoredRuns([rows], [right], "accuracy"), "pair", ["a", "b"], known)
        if part.by == kind_of("pair").frequency_of
    ]
    assert [part.part for part in found] == ["0 to 1", "2 to 3", "4 to 5", "6"]
    assert sum(part.examples for part in found) == 79
    assert sum(part.examples * part.estimate.value for part in found) == pytest.approx(right[1:].sum())


def test_both_orders_have_their_interval():
    rows = [{"id": n, "gold": "a", "pred": "a", "orders": ["a", "ab"[n % 4 == 0]], "text": "x"} for n in range(60)]
    found = next(
        p
        for p in slices_of(ScoredRuns([rows], [np.ones(60)], "accuracy"), "pair", ["a", "b"])
        if p.by.startswith("both orders")
    )
    assert (
        found.estimate.value == pytest.approx(0.75) and found.estimate.low < 0.75 < found.estimate.high and found.examples == 60
    )


def test_quarters_by_number_of_tokens():
    rows = [{"id": n, "gold": "a", "pred": "ab"[n < 20], "text": "bir iki", "tokens": 200 - n} for n in range(80)]
    right = np.array([row["gold"] == row["pred"] for row in rows], dtype=float)
    found = {
        part.part: part
        for part in slices_of(ScoredRuns([rows], [right], "accuracy"), "pair", ["a", "b"])
        if part.by.startswith("tokens")
    }
    assert {name: part.examples for name, part in found.items()} == {"fewest": 20, "fewer": 20, "more": 20, "most": 20}
    assert found["most"].estimate.value == 0.0 and found["fewest"].estimate.value == 1.0  # the wrong ones have most tokens
    plain = [{**row, "tokens": 0} for row in rows]
    assert not any(
        part.by.startswith("tokens") for part in slices_of(ScoredRuns([plain], [right], "accuracy"), "pair", ["a", "b"])
    )


def test_the_report_reads_it_from_the_files_of_the_run(tmp_path):
    examples = [{"id": str(n), "words": ["Bakı" if n % 2 else f"Ad{n}", "gəldi"], "tags": ["B-LOC", "O"]} for n in range(40)]
    train = [{"words": ["bakı"], "tags": ["B-LOC"]}] * 3
    task = Task("ner", "tagging", "entity_f1", None, None, language=AZ, train=train, test=examples)
    write_frequencies(tmp_path, task)
    for seed in range(2):  # texts that training contains are found, the others not
        rows = [
            {"id": e["id"], "gold": e["tags"], "pred": e["tags"] if int(e["id"]) % 2 else ["O", "O"], "words": e["words"]}
            for e in examples
        ]
        place = tmp_path / "m" / "ner" / f"seed-{seed}"
        write_jsonl(place / "predictions-test.jsonl", rows)
        write_json(place / "summary.json", {"model": "m", "task": "ner", "kind": "tagging", "seed": seed})
    build_report([tmp_path], tmp_path / "report")
    lines = list(csv.DictReader(io.StringIO((tmp_path / "report" / "report-details.csv").read_text())))
    parts = {line["part"]: line for line in lines if line["what"] == kind_of("tagging").frequency_of}
    assert {name: (line["examples"], float(line["value"])) for name, line in parts.items()} == {
        "0": ("20", 0.0),
        "2 to 4": ("20", 1.0),
    }
    assert kind_of("tagging").frequency_of in (tmp_path / "report" / "report.html").read_text()
    path = tmp_path / "inputs" / "ner-frequencies.jsonl"
    write_jsonl(path, [{"id": row["id"]} for _, row in read_jsonl(path)])
    with pytest.raises(UserError, match=r"ner-frequencies\.jsonl: no 'entities'"):
        build_report([tmp_path], tmp_path / "report")
