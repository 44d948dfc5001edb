"""Scores to predictions: the best valid path is the best of all valid paths; both orders give each order's prediction."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.decoding import predictions
from tasks.encoding import Encoded, Row
from tasks.scoring import score_predictions
from tasks.tagging import best_valid_path

TAGS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def valid(tags) -> bool:
    """IOB2 by its definition, one tag at a time."""
    before = "O"
    for tag in tags:
        if tag.startswith("I-") and before not in (f"B-{tag[2:]}", tag):
            return False
        before = tag
    return True


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5), st.integers(0, 2**32 - 1), st.permutations(TAGS), st.sampled_from([0.3, 3.0]))
def test_the_best_valid_path_is_the_best_of_all(length, seed, labels, scale):
    logs = np.random.default_rng(seed).normal(0, scale, (length, len(labels)))
    paths = [p for p in itertools.product(range(len(labels)), repeat=length) if valid([labels[tag] for tag in p])]
    expected = max(paths, key=lambda path: sum(logs[word, tag] for word, tag in enumerate(path)))
    assert best_valid_path(logs, labels).tolist() == list(expected)


def sentence(scores: np.ndarray, valid_tags: bool) -> dict:
    """One sentence with one word per score, split into two rows after its second word."""
    encoded = Encoded("tagging")
    parts = [np.arange(2), np.arange(2, len(scores))]
    encoded.close([Row(np.zeros(4, np.int32), 4, part, part, words=part) for part in parts], False)
    example = {"id": "1", "words": [f"söz{n}" for n in range(len(scores))]}
    return predictions([example], encoded, [scores[part] for part in parts], TAGS, {"valid_tags": valid_tags})[0]


def test_a_sentence_in_two_rows_is_one_path():
    """The tag before the split limits the tags after it."""
    scores = np.array([[3.0, 0, 0, 0, 0], [0, 2.0, 0, 0, 0], [0, 0, 2.0, 0, 0], [0.5, 0, 0, 0, 1.0]])
    free, bound = sentence(scores, False), sentence(scores, True)
    assert free["pred"] == ["O", "B-PER", "I-PER", "I-LOC"] and "raw" not in free
    assert bound["pred"] == ["O", "B-PER", "I-PER", "O"] and bound["raw"] == free["pred"]
    logs = scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
    assert bound["scores"] == pytest.approx([logs[n, tag] for n, tag in enumerate((0, 1, 2, 0))], abs=1e-6)
    assert bound["scores"][:3] == free["scores"][:3]


def test_the_report_counts_invalid_tags_of_the_raw_ones():
    gold = ["O", "B-PER", "I-PER", "O"]
    row = {"id": 1, "gold": gold, "pred": gold, "raw": ["O", "B-PER", "I-PER", "I-LOC"]}
    metrics = score_predictions([row], "tagging")["metrics"]
    assert (
        metrics["entity_f1"] == 1.0
        and metrics["invalid_i_tags"] == 1
        and metrics["entity_f1 of raw tags"] == pytest.approx(2 / 3)
    )
    del row["raw"]
    metrics = score_predictions([row], "tagging")["metrics"]
    assert metrics["invalid_i_tags"] == 0 and "entity_f1 of raw tags" not in metrics


def test_both_orders_are_averaged_and_also_kept_separately():
    encoded = Encoded("pair")
    for _ in range(3):
        encoded.close([Row(np.zeros(5, np.int32), 3, np.zeros(1, np.int64), np.array([0]))], False)
    examples = [{"id": str(n), "text": "bir", "text_b": "iki"} for n in range(3)]
    one = [np.array([scores], np.float32) for scores in ([2, 0], [1, 0], [0, 1])]
    other = [np.array([scores], np.float32) for scores in ([1, 0], [0, 3], [0, 2])]
    rows = predictions(examples, encoded, one, ["a", "b"], other=other)
    assert [row["pred"] for row in rows] == ["a", "b", "b"]
    assert [row["orders"] for row in rows] == [["a", "a"], ["a", "b"], ["b", "b"]]
    assert rows[1]["scores"]["a"] - rows[1]["scores"]["b"] == pytest.approx(-1.0, abs=1e-6)
    metrics = score_predictions([{**row, "gold": "b"} for row in rows], "pair", ["a", "b"])["metrics"]
    assert metrics["order_consistency"] == pytest.approx(2 / 3) and metrics["accuracy"] == pytest.approx(2 / 3)
    alone = predictions(examples, encoded, one, ["a", "b"])
    assert "orders" not in alone[0] and [row["pred"] for row in alone] == ["a", "a", "b"]
