"""Scores equal the scorers of record, and the golden table of Azerbaijani question answering holds."""

import random
import re
import warnings
from functools import partial

import numpy as np
import pytest
from seqeval.metrics import f1_score as seqeval_f1
from seqeval.scheme import IOB2
from sklearn.metrics import accuracy_score, f1_score

from common.errors import UserError
from common.files import write_jsonl
from language.azerbaijani import LANGUAGE as AZ
from language.base import load_language
from tasks.base import kind_of
from tasks.metrics import (
    class_counts,
    classification_metrics,
    entities,
    entity_counts,
    f1_each,
    f1_of_counts,
    normalise_language,
    normalise_official,
    qa_scores,
)
from tasks.scoring import majority_score, score_predictions

TAGS = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]


def test_entity_counts_equal_seqeval_default_and_strict():
    draw = random.Random(0)
    differing = 0
    for _ in range(500):
        sizes = [draw.randint(1, 12) for _ in range(draw.randint(1, 6))]
        gold = [[draw.choice(TAGS) for _ in range(size)] for size in sizes]
        pred = [[tag if draw.random() < 0.6 else draw.choice(TAGS) for tag in tags] for tags in gold]
        default = float(f1_of_counts(entity_counts(gold, pred).sum(0), "micro"))
        strict = float(f1_of_counts(entity_counts(gold, pred, strict=True).sum(0), "micro"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert default == pytest.approx(seqeval_f1(gold, pred, zero_division=0), abs=1e-12)
            record = seqeval_f1(gold, pred, mode="strict", scheme=IOB2, zero_division=0)
        assert strict == pytest.approx(record, abs=1e-12)
        differing += abs(default - strict) > 1e-6
    assert differing > 100  # the two modes really differ on such tags, so neither check is trivial


def test_entities_with_end_and_single_prefixes_equal_seqeval():
    from seqeval.metrics.sequence_labeling import get_entities

    draw = random.Random(1)
    tags = [*TAGS, "E-PER", "S-PER", "S-LOC"]
    for _ in range(300):
        sentence = [draw.choice(tags) for _ in range(draw.randint(1, 10))]
        assert entities(sentence) == set(get_entities(sentence))


def test_orphan_i_tag_opens_an_entity_by_default_only():
    assert entities(["O", "I-PER", "I-PER", "I-ORG"]) == {("PER", 1, 2), ("ORG", 3, 3)}
    assert entities(["O", "I-PER", "B-PER", "I-ORG"], strict=True) == {("PER", 2, 2)}


def test_classification_equals_scikit_learn_and_counts_equal_both():
    random_ = np.random.default_rng(0)
    for trial in range(500):
        n, k = int(random_.integers(1, 40)), int(random_.integers(2, 7))
        labels = [f"c{i}" for i in range(k)]
        gold, pred = ([labels[i] for i in random_.integers(k, size=n)] for _ in range(2))
        ours = classification_metrics(gold, pred, labels, positive="c1")  # by scikit-learn
        counts = class_counts(gold, pred, labels).sum(0)
        for name in ("macro", "weighted"):
            assert float(f1_of_counts(counts, name)) == pytest.approx(ours[f"{name}_f1"], abs=1e-12)
        assert float(f1_of_counts(counts[:, [1]], "binary")) == pytest.approx(ours["f1"], abs=1e-12)
        assert f1_each(counts)[1] == pytest.approx(ours["f1"], abs=1e-12)
        if trial < 60:  # and scikit-learn is called with the right arguments
            for name in ("macro", "weighted"):
                record = f1_score(gold, pred, labels=labels, average=name, zero_division=0)
                assert ours[f"{name}_f1"] == pytest.approx(record, abs=1e-12)
            binary = f1_score([g == "c1" for g in gold], [p == "c1" for p in pred], zero_division=0)
            assert ours["f1"] == pytest.approx(binary, abs=1e-12)
            assert ours["accuracy"] == accuracy_score(gold, pred)


def test_macro_f1_keeps_a_class_that_the_split_lacks():
    rows = [{"id": i, "gold": g, "pred": p} for i, (g, p) in enumerate([("a", "a"), ("a", "b"), ("b", "b"), ("b", "b")])]
    with_all = score_predictions(rows, "classification", ["a", "b", "c"])["score"]
    assert with_all == pytest.approx(score_predictions(rows, "classification", ["a", "b"])["score"] * 2 / 3)


def _official_normalise(text):
    """As in the v2.0 script: lower case, then punctuation, then articles, then whitespace."""
    text = "".join(ch for ch in text.lower() if ch not in set("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"))
    return " ".join(re.sub(re.compile(r"\b(a|an|the)\b", re.UNICODE), " ", text).split())


def _official_scores(golds, pred):
    golds = [gold for gold in golds if _official_normalise(gold)] or [""]
    found, best = _official_normalise(pred).split(), 0.0
    for gold in golds:
        wanted = _official_normalise(gold).split()
        same = sum(min(wanted.count(word), found.count(word)) for word in set(wanted))
        if not wanted or not found:
            best = max(best, float(wanted == found))
        elif same:
            precision, recall = same / len(found), same / len(wanted)
            best = max(best, 2 * precision * recall / (precision + recall))
    return float(_official_normalise(pred) in map(_official_normalise, golds)), best


def test_official_squad_scores_equal_an_independent_reading_of_the_script():
    draw = random.Random(2)
    words = [
        "the",
        "a",
        "an",
        "An",
        "Bakı",
        "bakı,",
        "1918-ci",
        "il",
        "«Neftçi»",
        "İl",
        "IŞIQ",
        "-",
        "A.",
        "Səhhət",
        "the-",
    ]
    for _ in range(500):
        golds = [" ".join(draw.choices(words, k=draw.randint(0, 4))) for _ in range(draw.randint(1, 3))]
        pred = " ".join(draw.choices(words, k=draw.randint(0, 4)))
        assert normalise_official(pred) == _official_normalise(pred)
        assert qa_scores(golds, pred) == pytest.approx(_official_scores(golds, pred), abs=1e-12)


@pytest.mark.parametrize(
    ("gold", "pred", "official", "azerbaijani"),
    [
        ("An", "", (1, 1.0), (0, 0)),
        ("an", "bir an", (0, 0), (0, 2 / 3)),
        ("«Neftçi»", "Neftçi", (0, 0), (1, 1)),
        ("1918–1920", "1918-1920", (0, 0), (1, 1)),
        ("1918-ci il", "1918 ci il", (0, 0.4), (1, 1)),
        ("QIZILDAŞ", "Qızıldaş", (0, 0), (1, 1)),
        ("A. Səhhət", "Səhhət", (1, 1), (0, 2 / 3)),
        ("Bakının", "Bakı", (0, 0), (0, 0)),
    ],
)
def test_golden_table(gold, pred, official, azerbaijani):
    assert qa_scores([gold], pred) == pytest.approx(official)
    assert qa_scores([gold], pred, partial(normalise_language, AZ)) == pytest.approx(azerbaijani)


@pytest.mark.parametrize(
    ("language", "gold", "pred", "same"),
    [
        ("azerbaijani", "QIZIL", "qızıl", True),
        ("turkish", "İSTANBUL", "istanbul", True),
        ("turkish", "IĞDIR", "ığdır", True),
        ("turkish", "IĞDIR", "iğdır", False),
        ("kazakh", "ҚАЗАҚСТАН", "Қазақстан", True),
        ("generic", "IĞDIR", "ığdır", False),  # no casing of its own
        ("generic", "TITLE", "title", True),
    ],
)
def test_the_score_has_the_casing_of_the_language(language, gold, pred, same):
    rows = [{"id": "1", "gold": [gold], "pred": pred}]
    found = score_predictions(rows, kind_of("qa", load_language(language)))["metrics"]
    assert found["exact_match_language"] == float(same)


def test_qa_scores_unanswerable_and_answerable_apart():
    rows = [
        {"id": "1", "gold": ["Bakı"], "pred": "Bakı"},
        {"id": "2", "gold": [""], "pred": ""},
        {"id": "3", "gold": [""], "pred": "Gəncə"},
        {"id": "4", "gold": ["«Neftçi»"], "pred": "Neftçi"},
    ]
    scored = score_predictions(rows, kind_of("qa", AZ))
    assert scored["metrics"]["f1"] == 0.5 and scored["metrics"]["f1_language"] == 0.75
    assert scored["metrics"]["f1 unanswerable"] == 0.5 and scored["metrics"]["f1_language answerable"] == 1.0
    assert scored["metrics"]["examples_scored_differently_language"] == 1
    assert scored["metrics"]["no_answer_accuracy"] == 0.75
    assert majority_score(rows, "qa", "f1") == 0.5


def test_choice_adjusts_for_ragged_chance():
    rows = [
        {"id": "1", "gold": 0, "pred": 0, "scores": [0.0, -1.0], "group": "tarix"},
        {"id": "2", "gold": 3, "pred": 0, "scores": [0.0, -1.0, -1.0, -1.0], "group": "kimya"},
    ]
    metrics = score_predictions(rows, "choice")["metrics"]
    assert metrics["accuracy"] == 0.5 and metrics["chance"] == 0.375
    assert metrics["chance_adjusted"] == pytest.approx((0.5 - 0.375) / 0.625)
    assert metrics["accuracy subject=kimya"] == 0 and metrics["accuracy options=2"] == 1


def test_choice_controls_and_constant_floor():
    rows = [
        {"id": "1", "gold": 0, "pred": 1, "scores": [0.0, 1.0], "options": ["uzun cavab", "b"]},
        {"id": "2", "gold": 1, "pred": 1, "scores": [0.0, 1.0, 0.5], "options": ["uzun cavab", "b", "c"]},
        {"id": "3", "gold": 2, "pred": 1, "scores": [0.0, 1.0, 0.5], "options": ["a", "b", "uzun cavab"]},
    ]
    metrics = score_predictions(rows, "choice")["metrics"]
    assert metrics["accuracy of always first"] == pytest.approx(1 / 3)
    assert metrics["accuracy of always longest"] == pytest.approx(2 / 3)
    assert metrics["position_macro_f1"] == pytest.approx(f1_score([0, 1, 2], [1, 1, 1], average="macro", zero_division=0))
    assert majority_score(rows, "choice", "accuracy") == pytest.approx(1 / 3)
    with pytest.raises(UserError, match=r"'4'.*predicted 2 of 2"):
        score_predictions([{"id": "4", "gold": 0, "pred": 2, "scores": [0, 0]}], "choice")


@pytest.mark.parametrize("metric", ["macro_f1", "weighted_f1", "accuracy", "f1"])
def test_floor_is_the_best_constant_answer_by_scikit_learn(metric):
    draw = random.Random(8)
    for _ in range(12):
        gold = draw.choices("abc", weights=[5, 2, 1], k=draw.randint(3, 30))
        rows = [{"id": i, "gold": g, "pred": "a"} for i, g in enumerate(gold)]
        floor = majority_score(rows, "pair", metric, ["a", "b", "c"], "b")
        each = [score_predictions([{**r, "pred": c} for r in rows], "pair", ["a", "b", "c"], metric, "b") for c in "abc"]
        assert floor == pytest.approx(max(scored["score"] for scored in each), abs=1e-12)


def test_auc_equals_scikit_learn():
    from sklearn.metrics import roc_auc_score

    draw = np.random.default_rng(9)
    gold = draw.integers(0, 2, 80)
    margin = draw.normal(size=80) + gold
    names = ["other", "next"]
    rows = [
        {"id": i, "gold": names[g], "pred": names[int(m > 0)], "scores": {"other": -m / 2, "next": m / 2}}
        for i, (g, m) in enumerate(zip(gold, margin, strict=True))
    ]
    assert score_predictions(rows, "pair", names)["metrics"]["auc"] == pytest.approx(roc_auc_score(gold, margin), abs=1e-12)


def test_per_example_values_average_to_the_headline():
    draw = random.Random(3)
    rows = [{"id": i, "gold": draw.choice("ab"), "pred": draw.choice("ab")} for i in range(50)]
    for kind, metric in (
        ("pair", "f1"),
        ("pair", "accuracy"),
        ("classification", "macro_f1"),
        ("classification", "weighted_f1"),
    ):
        scored = score_predictions(rows, kind, ["a", "b"], metric)
        per = scored["per_example"]
        again = per.mean() if scored["average"] == "mean" else f1_of_counts(per.sum(0), scored["average"])
        assert float(again) == pytest.approx(scored["score"], abs=1e-12)


@pytest.mark.parametrize(
    ("rows", "kind", "word"),
    [
        ([{"id": 1, "gold": "a", "pred": "a"}, {"id": 1, "gold": "a", "pred": "a"}], "pair", "twice"),
        ([{"id": 1, "gold": ["O", "O"], "pred": ["O"]}], "tagging", "2 gold tags, 1"),
        ([{"id": 1, "gold": "a"}], "pair", "'pred'"),
        ([{"id": 1, "gold": "a", "pred": "a", "scores": {"a": float("nan")}}], "pair", "not finite"),
        ([{"id": 1, "gold": "a", "pred": "a", "scores": {"a": None}}], "pair", "expected numbers"),
        ([{"id": 1, "gold": "a", "pred": "a", "scores": 0.5}], "pair", "expected numbers"),
        ([{"id": 1, "gold": ["a"], "pred": "a"}], "classification", "names of classes"),
        ([{"id": 1, "gold": "OO", "pred": "OO"}], "tagging", "lists of tags"),
        ([{"id": 1, "gold": ["O", None], "pred": ["O", "O"]}], "tagging", "lists of tags"),
        ([{"id": 1, "gold": "0", "pred": 0, "scores": [0.1, 0.2]}], "choice", "places of options"),
        ([{"id": 1, "gold": 0, "pred": 0}], "choice", "a score for each option"),
        ([{"id": 1, "gold": "Bakı", "pred": "Bakı"}], "qa", "a list of texts"),
        ([{"id": 1, "gold": [], "pred": ""}], "qa", "a list of texts"),
        ([], "pair", "no prediction"),
    ],
)
def test_damaged_predictions_are_named(tmp_path, rows, kind, word):
    path = tmp_path / "predictions-test.jsonl"
    write_jsonl(path, rows)
    with pytest.raises(UserError, match=word):
        score_predictions(path, kind)


def test_label_outside_the_list_is_named():
    with pytest.raises(UserError, match="'c'"):
        score_predictions([{"id": 1, "gold": "a", "pred": "c"}], "pair", ["a", "b"])
