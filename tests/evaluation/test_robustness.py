"""Curves from predictions whose answer is known: a planted failure shows, a shuffled one does not, the lost items are named."""

import random

import pytest

from evaluation.robustness import Condition, Scoring, curves, lost_items, percent, row_of, section
from evaluation.statistics import score_interval
from tasks.base import kind_of

LABELS = ["a", "b", "c"]
GOLD = [random.Random(7).choice(LABELS) for _ in range(300)]
SCORING = Scoring(kind_of("classification"), LABELS, "accuracy", None)


def records(right: set[int], seed: int) -> list[dict]:
    """Predictions that are right for these items."""
    draw = random.Random(seed)
    wrong = [draw.choice([label for label in LABELS if label != gold]) for gold in GOLD]
    return [
        {"id": str(n), "gold": gold, "pred": gold if n in right else wrong[n], "text": f"söz {n}"}
        for n, gold in enumerate(GOLD)
    ]


def some(share: float, seed: int) -> set[int]:
    return {n for n in range(300) if random.Random(f"{seed} {n}").random() < share}


CLEAN = [records(some(0.8, seed), seed) for seed in range(3)]


def test_a_planted_failure_shows_and_another_model_as_good_does_not():
    failing = [records(some(0.8, seed) - set(range(100)), seed) for seed in range(3)]
    same = [records(some(0.8, seed + 50), seed) for seed in range(3)]  # other items, the same score
    found = curves(CLEAN, [Condition("diacritics", 1.0, 0.5, failing), Condition("slips", 1.0, 0.2, same)], SCORING)
    failed, kept = found["points"]
    assert failed["difference_high"] < -0.2 and failed["p"] < 0.001 and failed["kept"] == pytest.approx(2 / 3, abs=0.07)
    assert kept["difference_low"] < 0 < kept["difference_high"] and kept["p"] > 0.05
    numbers, average = SCORING.numbers(CLEAN)
    assert found["clean"]["score"] == score_interval(numbers, average).value and found["seeds"] == 3
    unchanged = curves(CLEAN, [Condition("small", 1.0, 0.0, CLEAN)], SCORING)["points"][0]
    assert unchanged["difference"] == 0 and unchanged["kept"] == 1 and unchanged["p"] == 1


def test_the_lost_items_are_those_that_every_seed_loses():
    all_right = [records(set(range(300)), seed) for seed in range(3)]
    lost = [records(set(range(300)) - {5, 9} - ({7} if seed == 0 else set()), seed) for seed in range(3)]
    found = lost_items(all_right, Condition("diacritics", 1.0, 0.5, lost), SCORING, 10)
    assert [(item["id"], item["lost"]) for item in found] == [("5", 3), ("9", 3), ("7", 1)]
    assert found[0]["text"] == "söz 5" and found[0]["gold"] == GOLD[5] != found[0]["predicted"]
    assert lost_items(lost, Condition("diacritics", 1.0, 0.5, all_right), SCORING, 10) == []
    assert len(lost_items(all_right, Condition("diacritics", 1.0, 0.5, lost), SCORING, 1)) == 1


def test_only_the_largest_shares_are_tested_and_all_of_them_together():
    points = [Condition(name, share, 0.5, CLEAN) for name in ("diacritics", "slips") for share in (0.5, 1.0)]
    found = curves(CLEAN, points, SCORING)["points"]
    assert [point["p"] is None for point in found] == [True, False, True, False]


def test_a_page_has_every_point_and_is_the_same_each_time():
    lost = [records(some(0.8, seed) - set(range(100)), seed) for seed in range(3)]
    conditions = [Condition("diacritics", share, share / 2, lost) for share in (0.5, 1.0)]
    result = {"model": "<m>", "task": "t", "metric": "accuracy", **curves(CLEAN, conditions, SCORING)}
    result["lost"] = lost_items(CLEAN, conditions[1], SCORING, 5)
    text = section(result)
    assert text == section(result) and "&lt;m&gt;" in text and "<svg" in text and "lost by diacritics" in text
    assert row_of(result["points"][1])[:3] == ["diacritics", "100", "50.0"] and percent(None) == "–"


def test_tagged_sentences_count_whole():
    gold = ["B-LOC", "O", "B-LOC"]
    right = [{"id": "1", "gold": gold, "pred": gold, "words": ["Şəki", "və", "Bakı"]}]
    wrong = [{"id": "1", "gold": gold, "pred": ["O", "O", "B-LOC"], "words": ["Seki", "ve", "Baki"]}]
    scoring = Scoring(kind_of("tagging"), ["O", "B-LOC", "I-LOC"], "entity_f1", None)
    (item,) = lost_items([right], Condition("diacritics", 1.0, 1.0, [wrong]), scoring, 5)
    assert item["text"] == "Şəki və Bakı" and item["changed"] == "Seki ve Baki"
    (point,) = curves([right], [Condition("diacritics", 1.0, 1.0, [wrong])], scoring)["points"]
    assert point["kept"] == pytest.approx(2 / 3)
