"""Every mistake gets the right name, above all in Azerbaijani: an answer that differs by a suffix is not a wrong answer."""

import numpy as np
import pytest

from evaluation.mistakes import SAMPLED, mistake_table, sampled_mistakes, wrong_runs
from evaluation.slices import ScoredRuns, overlap_slices, quartiles, slices_of
from language.azerbaijani import LANGUAGE as AZ
from language.base import load_language
from tasks.answers import answer_outcome, differs_by_suffix
from tasks.tagging import entity_outcomes


@pytest.mark.parametrize(
    ("gold", "pred"),
    [
        ("Bakı", "Bakının"),
        ("1918-ci", "1918"),
        ("Bakıda", "Bakıdan"),
        ("uşaq", "uşağı"),
        ("çörək", "çörəyi"),
        ("Nizami Gəncəvi", "Nizami Gəncəvinin"),
        ("kitablarımızdan", "kitab"),
        ("İstanbul'da", "istanbul"),
        ("QIZILDA", "qızıl"),
        ("şəhərlər", "şəhərin"),
    ],
)
def test_suffix_only(gold, pred):
    assert differs_by_suffix(gold, pred, AZ) and differs_by_suffix(pred, gold, AZ)
    assert answer_outcome({"gold": [gold], "pred": pred}, AZ) == "boundary: by a suffix only"


@pytest.mark.parametrize(
    ("gold", "pred"),
    [
        ("Bakı", "Gəncə"),
        ("kitab", "kitabxana"),
        ("1918", "1919"),
        ("Bakı", "Bakı şəhəri"),
        ("bir", "bin"),
        ("qara", "qala"),
        ("Bakı", "Bakı"),
        ("at", "atmosfer"),
    ],
)
def test_not_suffix_only(gold, pred):
    assert not differs_by_suffix(gold, pred, AZ) and not differs_by_suffix(pred, gold, AZ)


def test_endings_are_those_of_the_language():
    turkish, generic = load_language("tr"), load_language("generic")
    assert differs_by_suffix("kitap", "kitabı", turkish) and differs_by_suffix("IĞDIR", "Iğdır'da", turkish)
    assert not differs_by_suffix("kitap", "kitabı", AZ)  # p softens in Turkish alone
    assert answer_outcome({"gold": ["Bakı"], "pred": "Bakının"}, generic) == "elsewhere"  # no pack, no endings


@pytest.mark.parametrize(
    ("gold", "pred", "text", "expected"),
    [
        ("Bakı", "Bakı", None, "correct"),
        ("«Neftçi»", "Neftçi", None, "correct, but not by the official script"),
        ("", "", None, "correct: no answer"),
        ("", "Bakı", None, "answered, there is no answer"),
        ("An", "", None, "no answer given, there is one"),
        ("Səhhət", "Abbas Səhhət", None, "boundary: too long"),
        ("Abbas Səhhət", "Abbas", None, "boundary: too short"),
        ("böyük Bakı", "Bakı şəhəri", None, "boundary: overlaps"),
        ("Bakı", "Gəncə", None, "elsewhere"),
        ("Bakı", "Gəncə", "Bakı və Gəncə böyükdür. Şəki kiçikdir.", "elsewhere in the same sentence"),
        ("Bakı", "Şəki", "Bakı və Gəncə böyükdür. Şəki kiçikdir.", "wrong sentence"),
    ],
)
def test_qa_outcomes(gold, pred, text, expected):
    assert answer_outcome({"gold": [gold], "pred": pred}, AZ, text) == expected


def test_entity_outcomes():
    assert entity_outcomes(["B-PER", "I-PER", "O"], ["B-PER", "O", "O"]) == ["wrong boundary"]
    assert entity_outcomes(["B-PER", "O"], ["B-ORG", "O"]) == ["wrong type"]
    assert entity_outcomes(["B-PER", "O", "O"], ["O", "O", "B-LOC"]) == ["missed", "spurious"]
    assert entity_outcomes(["B-PER", "I-PER"], ["O", "B-LOC"]) == ["wrong type and boundary"]
    assert entity_outcomes(["B-PER"], ["B-PER"]) == ["correct"]


def test_sampling_is_bounded_counted_over_seeds_and_complete_in_types():
    gold = ["a", "b", "c"] * 40
    runs = [[{"id": i, "gold": g, "pred": "b"} for i, g in enumerate(gold)] for _ in range(2)]
    runs.append([{"id": i, "gold": g, "pred": g} for i, g in enumerate(gold)])
    found = sampled_mistakes(runs, "classification")
    assert [m.kind for m in found] == ["a → b"] * SAMPLED + ["c → b"] * SAMPLED
    assert all(runs[0][m.number] is m.row for m in found)
    assert wrong_runs(runs, "classification").tolist() == [2, 0, 2] * 40
    assert dict(mistake_table(runs, "classification")) == pytest.approx({"correct": 200 / 3, "a → b": 80 / 3, "c → b": 80 / 3})
    many = [[{"id": i, "gold": f"c{i % 12}", "pred": "x"} for i in range(60)]]
    assert "other confusions" in {m.kind for m in sampled_mistakes(many, "classification")}


def test_groups_sum_to_the_whole_and_small_ones_have_no_interval():
    rows = [{"id": i, "gold": "ab"[i % 2], "pred": "a", "text": " ".join(["söz"] * (1 + i // 10))} for i in range(40)]
    found = slices_of(ScoredRuns([rows, rows], [np.zeros(40)] * 2, "macro_f1"), "classification", ["a", "b", "c"])
    by_class = {b.part: b for b in found if b.by == "class"}
    assert by_class["a"].estimate.value == pytest.approx(2 / 3) and by_class["b"].estimate.value == 0
    assert by_class["c"].examples == 0 and by_class["c"].estimate is None
    lengths = [b for b in found if b.by == "length, words"]
    assert sum(b.examples for b in lengths) == 40 and all(b.estimate.value == 0.5 for b in lengths)


def test_quartiles_never_separate_equal_lengths():
    parts = quartiles(np.array([3] * 50 + [4] * 5 + list(range(5, 20))))
    assert sum(len(where) for _, where in parts) == 70 and parts[0][0] == "3" and len(parts[0][1]) == 50


def test_entity_types_predicted_by_one_run_only():
    rows = [{"id": i, "gold": ["B-PER", "O"], "pred": ["B-PER", "O"], "words": ["a", "b"]} for i in range(12)]
    odd = [{**row, "pred": ["B-PER", "B-LOC"]} for row in rows]
    found = slices_of(ScoredRuns([rows, odd], [np.ones((12, 3, 1))] * 2, "entity_f1", "micro"), "tagging")
    assert {b.part: b.examples for b in found if b.by == "type"} == {"PER": 12, "LOC": 0}


def test_overlap_parts():
    right = np.array([1.0] * 20 + [0.0] * 20)
    overlap = np.array([0.0] * 15 + [0.9] * 15 + [np.nan] * 10)
    clean, seen, short = overlap_slices([right, right], "mean", "accuracy", overlap)
    assert (clean.examples, seen.examples, short.examples) == (15, 15, 10)
    assert clean.estimate.value == 1 and seen.estimate.value == pytest.approx(1 / 3)
