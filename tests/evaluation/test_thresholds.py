"""The no-answer threshold: the best one on dev by exhaustive search, never chosen on the test set."""

import numpy as np
import pytest

from language.azerbaijani import LANGUAGE as AZ
from tasks.base import kind_of
from tasks.scoring import score_predictions
from tasks.thresholds import best_threshold, threshold_metrics, with_threshold


def _rows(random, n, shift=0.0):
    """Questions of which a third have no answer, with weakly informative margins shifted by `shift`."""
    rows = []
    for number in range(n):
        empty, right = number % 3 == 0, random.random() < 0.7
        margin = round(float(random.normal(1.5 if empty else -1.5, 1.5) + shift), 1)  # with ties
        row = {"id": f"{number}", "gold": [""] if empty else ["Bakı şəhəri"], "span": "Bakı şəhəri" if right else "Bakı"}
        rows.append({**row, "pred": row["span"] if margin <= 0 else "", "scores": {"best": 0.0, "null": margin}})
    return rows


@pytest.mark.parametrize("metric", ["f1", "exact_match", "f1_language", "exact_match_language"])
def test_the_threshold_is_the_best_of_all(metric):
    random = np.random.default_rng(len(metric))
    for shift in (-30.0, 0.0, 2.0, 30.0):
        rows = _rows(random, 60, shift)

        def score(bound, rows=rows):
            return score_predictions(with_threshold(rows, bound), kind_of("qa", AZ), metric=metric)["score"]

        every = np.unique([row["scores"]["null"] for row in rows])
        tried = [every[0] - 1, *((every[1:] + every[:-1]) / 2), every[-1] + 1]
        assert score(best_threshold(rows, metric, AZ)) == pytest.approx(max(map(score, tried)), abs=1e-12)


def test_dev_corrects_a_shifted_model_and_a_threshold_of_0_changes_nothing():
    random = np.random.default_rng(4)
    test, dev = _rows(random, 600, 3.0), _rows(random, 300, 3.0)
    before = score_predictions(test, "qa")["score"]
    assert [row["pred"] for row in with_threshold(test, 0.0)] == [row["pred"] for row in test]
    found = threshold_metrics(test, dev, "f1", AZ)
    assert found["f1, bound from dev"] > before + 0.1 and found["bound from dev"] == pytest.approx(3.0, abs=1.5)
    assert threshold_metrics([{**test[0], "gold": [""]}], dev, "f1", AZ)["bound from dev"] == found["bound from dev"]


def test_no_threshold_without_spans_or_without_both_kinds_of_question():
    rows = _rows(np.random.default_rng(1), 30)
    bare = [{key: value for key, value in row.items() if key != "span"} for row in rows]
    assert threshold_metrics(bare, rows, "f1", AZ) == threshold_metrics(rows, bare, "f1", AZ) == {}
    assert threshold_metrics(rows, [row for row in rows if row["gold"] != [""]], "f1", AZ) == {}
