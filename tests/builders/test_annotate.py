"""Annotation: sheets that no spreadsheet computes, agreement held against published examples, the set written anew."""

import csv
import io
import random

import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings as sampled
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from builders.annotate import agreement, krippendorff_alpha, main
from builders.build import write_set
from builders.sets import Built
from builders.settings import Builder
from builders.sheets import plain, read_sheet, safe, write_sheet
from common.files import read_json, read_jsonl, write_jsonl, write_text
from common.launch import resolved
from tests.builders.making import composed, contents, make, read_by_finetune, rows_of
from tests.builders.test_multiple_choice import exam
from tests.builders.test_topics import titles


def built(tmp_path, rows=None):
    """A topic set of 120 titles, one of which is a formula for a spreadsheet."""
    rows = rows or titles()
    rows[0]["title"] = '=HYPERLINK("http://x.az";"' + rows[0]["title"] + '")'
    write_jsonl(tmp_path / "titles.jsonl", rows)
    make(tmp_path / "set", "kind=topics", "topics.floor=10", f"files={tmp_path}/titles.jsonl", "shares=[0.3, 0.2, 0.5]")
    return tmp_path / "set"


def fill(path, answer):
    """Answer every row of a sheet by answer(row), as many spreadsheets save it: with ; and no byte-order mark."""
    rows = [row for _, row in read_sheet(path, ("item", "answer"))[0]]
    text = io.StringIO()
    writer = csv.writer(text, delimiter=";", lineterminator="\r\n")
    writer.writerow(rows[0])
    writer.writerows([safe(cell) for cell in {**row, "answer": answer(row)}.values()] for row in rows)
    write_text(path, text.getvalue())


@sampled(max_examples=200, deadline=None)
@drawn(st.text(alphabet=st.sampled_from("=+-@'\t\r\n ＝aə1\"")))
def test_no_cell_is_a_formula_and_each_comes_back(text):
    assert plain(safe(text)) == text
    assert not safe(text).lstrip().startswith(("=", "+", "-", "@", "＝"))


def test_a_sheet_comes_back_cell_by_cell(tmp_path):
    rows = [
        {"item": "a", "text": "=1+1; \"x\"\nyeni sətir, 'dırnaq'"},
        {"item": "b", "text": "'=2"},
        {"item": "c", "text": "-5"},
    ]
    write_sheet(tmp_path / "a.csv", rows)
    assert [row for _, row in read_sheet(tmp_path / "a.csv", ("item",))[0]] == rows
    content = (tmp_path / "a.csv").read_bytes()
    assert content.startswith(b"\xef\xbb\xbf") and b",\"'=1+1" in content and b",'-5" in content


def test_kappa_of_the_published_example_and_of_scikit_learn():
    """Cohen's kappa of 50 proposals, 20 twice yes, 15 twice no, 5 and 10 differing: 0.4 (Wikipedia, Cohen's kappa)."""
    cells = [("yes", "yes")] * 20 + [("yes", "no")] * 5 + [("no", "yes")] * 10 + [("no", "no")] * 15
    items = [f"i{n}" for n in range(50)]
    given = {name: {item: cell[side] for item, cell in zip(items, cells, strict=True)} for side, name in enumerate("ab")}
    key = {"items": {item: {"gold": "yes"} for item in items}}
    found = agreement(given, key)
    pair = found["pairs"]["a / b"]
    assert (pair["items"], pair["agree"], pair["kappa"]) == (50, 0.7, 0.4)
    assert 0.1 < pair["low"] < 0.2 and 0.6 < pair["high"] < 0.7  # 0.14 to 0.66 by the formula for large samples
    assert found["confused"] == {"no / yes": 15} and found["answers"] == {"no": 0.6667, "yes": 0.7273}
    assert found["set"]["a"] == {"items": 50, "agree": 0.5, "kappa": 0.0, "low": 0.0, "high": 0.0}
    draw = np.random.default_rng(0)
    left, right = draw.integers(0, 4, 300), draw.integers(0, 4, 300)
    right[:150] = left[:150]
    given = {"a": {f"i{n}": str(v) for n, v in enumerate(left)}, "b": {f"i{n}": str(v) for n, v in enumerate(right)}}
    pair = agreement(given, {"items": {f"i{n}": {"gold": "0"} for n in range(300)}})["pairs"]["a / b"]
    assert pair["kappa"] == round(cohen_kappa_score(left, right), 4) and pair["low"] < pair["kappa"] < pair["high"]


def test_alpha_of_the_published_example():
    """Three coders, 15 units, with units left out: 0.691 (Krippendorff's data, Wikipedia, Krippendorff's alpha)."""
    pytest.importorskip("krippendorff", reason="an optional dependency (requirements-extra.txt)")
    coders = ["*****34121133*3", "1*213343*******", "**2134 4*21133*4".replace(" ", "")]
    answers = [[None if value == "*" else value for value in row] for row in coders]
    alpha, missing = krippendorff_alpha(answers)
    assert round(alpha, 3) == 0.691 and missing == ""
    assert krippendorff_alpha([["a", "a"], ["a", None]]) == (None, "all answers are the same")
    assert krippendorff_alpha([["a", None], [None, "b"]]) == (None, "no item has two answers")


def test_a_coefficient_that_is_not_defined_is_said_and_does_not_stop(monkeypatch):
    key = {"items": {"i": {"gold": "a"}, "j": {"gold": "a"}}}
    found = agreement({"x": {"i": "a", "j": "a"}, "y": {"i": "a"}}, key)
    assert found["pairs"]["x / y"] == {"items": 1, "agree": 1.0, "kappa": None, "low": None, "high": None}
    assert agreement({"x": {"i": "a"}, "y": {"j": "a"}}, key)["pairs"]["x / y"]["agree"] is None
    monkeypatch.setitem(__import__("sys").modules, "krippendorff", None)
    assert krippendorff_alpha([["a"], ["b"]]) == (
        None, "the package krippendorff is not installed (pip install -r requirements-extra.txt)"
    )  # fmt: skip


def test_from_sample_to_the_checked_set(tmp_path, capsys):
    folder, people, checked = built(tmp_path), tmp_path / "people", tmp_path / "checked"
    before = contents(folder)
    assert main(["sample", str(folder), "--out", str(people), "--examples", "30"]) == 0
    key = read_json(people / "key.json")
    gold = {item: one["gold"] for item, one in key["items"].items()}
    orders = [[row["item"] for _, row in read_sheet(people / f"annotator-{n}.csv", ("item",))[0]] for n in (1, 2)]
    assert len(gold) == 30 and orders[0] != orders[1] and sorted(orders[0]) == sorted(orders[1]) == sorted(gold)
    assert not any("label" in row or row["answer"] for _, row in read_sheet(people / "annotator-1.csv", ("item",))[0])
    items = sorted(gold)
    wrong = {name: [label for label in key["answers"] if label != gold[name]] for name in items}
    first = {**gold, items[0]: wrong[items[0]][0], items[1]: wrong[items[1]][0], items[2]: "?", items[3]: ""}
    second = {**gold, items[1]: wrong[items[1]][0], items[2]: "?", items[4]: "Fizika"}
    fill(people / "annotator-1.csv", lambda row: first[row["item"]].upper().replace("İ", "i"))
    fill(people / "annotator-2.csv", lambda row: f" {second[row['item']]} ")
    with open(people / "annotator-2.csv", "a", encoding="utf-8", newline="") as file:
        file.write(f"item-9999;x;Tarix;\r\n{items[5]};x;{wrong[items[5]][0]};\r\n")
    assert main(["adjudicate", str(people), "--out", str(checked)]) == 2
    assert "6 items have no answer yet" in capsys.readouterr().err
    assert main(["agree", str(people)]) == 0
    found = read_json(people / "agreement.json")
    assert found["answered"] == {"annotator-1": 29, "annotator-2": 28}
    assert found["aside"] == {
        "an answer that is none of those allowed": 1,
        "an item answered twice, in two ways (neither is used)": 1,
        "an item that is not in the sample": 1,
        "no answer": 1,
    }
    both = [i for i in items if i not in (items[3], items[4], items[5])]
    expected = cohen_kappa_score([first[i] for i in both], [second[i] for i in both])
    assert found["pairs"]["annotator-1 / annotator-2"]["kappa"] == round(expected, 4)
    rows = [row for _, row in read_sheet(people / "adjudicate.csv", ("item", "answer"))[0]]
    assert {row["item"]: row["why"] for row in rows} == {
        items[0]: "the annotators differ",
        items[1]: "the annotators agree against the set",
        items[2]: "the annotators agree against the set",
        items[3]: "only one answer",
        items[4]: "only one answer",
        items[5]: "only one answer",
    }
    decided = {**gold, items[1]: wrong[items[1]][0], items[2]: "?"}
    fill(people / "adjudicate.csv", lambda row: decided[row["item"]])
    assert main(["agree", str(people)]) == 0  # once more: what is filled stays
    assert main(["adjudicate", str(people), "--out", str(checked)]) == 0
    report, old = read_json(checked / "report.json"), rows_of(folder, "test")
    new = {row["id"]: row for row in rows_of(checked, "test")}
    changed, gone = (key["items"][items[n]]["id"] for n in (1, 2))
    assert {row["id"] for row in old} - set(new) == {gone}
    assert {row["id"]: row["label"] for row in old if row["id"] in new and row["label"] != new[row["id"]]["label"]} == {
        changed: gold[items[1]]
    }
    assert sum(row.get("checked", False) for row in new.values()) == 29
    assert report["aside"]["people found no answer"] == 1 and report["counts"]["answers that they changed"] == 1
    assert len(read_by_finetune(checked, report).test) == len(old) - 1
    card = (checked / "README.md").read_text(encoding="utf-8")
    assert "## Annotation" in card and "## Classes" in card and "annotator-1 / annotator-2" in card
    assert contents(folder) == before
    first_time = contents(checked)
    assert main(["adjudicate", str(people), "--out", str(checked)]) == 0 and contents(checked) == first_time


def test_filled_sheets_are_never_overwritten(tmp_path, capsys):
    folder, people = built(tmp_path), tmp_path / "people"
    assert main(["sample", str(folder), "--out", str(people), "--examples", "9"]) == 0
    fill(people / "annotator-1.csv", lambda row: "Tarix")
    before = contents(people)
    assert main(["sample", str(folder), "--out", str(people), "--examples", "9"]) == 0
    assert "already complete" in capsys.readouterr().out
    assert main(["sample", str(folder), "--out", str(people), "--examples", "8"]) == 2
    assert "another sample is there" in capsys.readouterr().err and contents(people) == before


def test_questions_with_options_are_answered_by_letter(tmp_path):
    write_jsonl(tmp_path / "exam.jsonl", exam(60))
    make(tmp_path / "set", "kind=multiple_choice", f"files={tmp_path}/exam.jsonl", "shares=[0.4, 0.2, 0.4]")
    people = tmp_path / "people"
    assert main(["sample", str(tmp_path / "set"), "--out", str(people), "--examples", "10", "--part", "dev"]) == 0
    key, draw = read_json(people / "key.json"), random.Random(0)
    (_, row), *_ = read_sheet(people / "annotator-1.csv", ("A", "B", "C", "D"))[0]
    assert key["answers"] == ["A", "B", "C", "D"] and row["A"] and "E" not in row
    other = {item: draw.choice([a for a in "ABCD" if a != one["gold"]]) for item, one in key["items"].items()}
    for number in (1, 2):
        fill(people / f"annotator-{number}.csv", lambda row: other[row["item"]].lower())
    assert main(["agree", str(people)]) == 0
    fill(people / "adjudicate.csv", lambda row: other[row["item"]])
    assert main(["adjudicate", str(people), "--out", str(tmp_path / "checked")]) == 0
    rows = {row["id"]: row for row in rows_of(tmp_path / "checked", "dev")}
    assert all("ABCD"[rows[one["id"]]["label"]] == other[item] for item, one in key["items"].items())


def test_answers_of_tags_are_judged_and_wrong_ones_set_aside(tmp_path):
    """A kind without classes: the names are shown in the sentence, and people say yes or no."""
    parts = {
        split: [
            {"words": [f"{split}{n}", "Bakıda", "yaşayır"], "tags": ["O", "B-LOC", "O"]} for n in range(30)
        ]
        for split in ("train", "dev", "test")
    }  # fmt: skip
    settings = resolved(composed("kind=topics", "name=ner", f"out={tmp_path}/set"), Builder)
    write_set(tmp_path / "set", Built("tagging", parts, by="tags"), settings, {"digest": "x", "inputs": []})
    people, checked = tmp_path / "people", tmp_path / "checked"
    assert main(["sample", str(tmp_path / "set"), "--out", str(people), "--examples", "10"]) == 0
    key = read_json(people / "key.json")
    assert key["answers"] == ["yes", "no"] and "[Bakıda B-LOC]" in key["items"]["item-0001"]["shown"]["is it this?"]
    for number in (1, 2):
        fill(people / f"annotator-{number}.csv", lambda row: "No" if row["item"] == "item-0003" else "yes")
    assert main(["agree", str(people)]) == 0
    fill(people / "adjudicate.csv", lambda row: "no")
    assert main(["adjudicate", str(people), "--out", str(checked)]) == 0
    report = read_json(checked / "report.json")
    assert report["examples"] == {"train": 30, "dev": 30, "test": 29}
    assert report["aside"] == {"people found its answer wrong": 1}
    lost = parts["test"][key["items"]["item-0003"]["place"]]["words"][0]
    assert f"{lost}\t" not in (checked / "data" / "test.conll").read_text(encoding="utf-8")


def test_what_is_missing_is_a_message(tmp_path, capsys):
    folder, people = built(tmp_path), tmp_path / "people"
    for words, said in (
        (["sample", str(tmp_path), "--out", str(people)], "no set that builders.build made"),
        (["sample", str(folder), "--out", str(people), "--examples", "0"], "expected at least 1"),
        (["agree", str(tmp_path)], "key.json is missing"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err
    assert main(["sample", str(folder), "--out", str(people), "--examples", "9"]) == 0
    write_text(people / "annotator-1.csv", "item,text\nitem-0001,x\n")
    assert main(["agree", str(people)]) == 2
    assert "annotator-1.csv: no column 'answer'" in capsys.readouterr().err
    (people / "annotator-1.csv").unlink()
    assert main(["agree", str(people)]) == 2
    assert "1 sheets annotator-*.csv, at least 2" in capsys.readouterr().err


def test_a_set_that_was_built_anew_is_noticed(tmp_path, capsys):
    folder, people = built(tmp_path), tmp_path / "people"
    assert main(["sample", str(folder), "--out", str(people), "--examples", "9"]) == 0
    gold = {item: one["gold"] for item, one in read_json(people / "key.json")["items"].items()}
    for number in (1, 2):
        fill(people / f"annotator-{number}.csv", lambda row: gold[row["item"]])
    rows = [row for _, row in read_jsonl(tmp_path / "titles.jsonl")]
    built(tmp_path, [{**row, "title": row["title"] + " yenidən"} for row in rows])
    assert main(["adjudicate", str(people), "--out", str(tmp_path / "checked")]) == 2
    assert "so the set was built anew" in capsys.readouterr().err and not (tmp_path / "checked").exists()
