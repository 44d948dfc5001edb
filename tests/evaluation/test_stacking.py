"""A stacked row: its scores are the weighted means, its weight is dev's choice alone, and the report calls it by its name."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from common.errors import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from evaluation.baselines import write_baseline
from evaluation.report import build_report
from evaluation.stacking import WEIGHTS, write_stack
from tasks.base import kind_of
from tasks.metrics import spearman
from tasks.scoring import read_predictions, score_predictions

FRUIT = ["alma", "armud", "nar", "heyva", "üzüm"]


def task_of(kind: str) -> SimpleNamespace:
    """A task of 30 training, 24 dev and 24 test items whose words tell the answer in most of them."""
    draw, splits, labels = np.random.default_rng(0), {}, None
    for split, size in (("train", 30), ("dev", 24), ("test", 24)):
        splits[split] = []
        for n in range(size):
            yes = bool(draw.integers(2))
            word = FRUIT[int(draw.integers(5))] if yes else f"daş{n % 4}"
            word = "qum" if draw.random() < 0.3 else word
            rest = {
                "classification": {"text": word, "label": "a" if yes else "b"},
                "pair": {"text": word, "text_b": "meyvə", "label": "a" if yes else "b"},
                "multilabel": {"text": word, "labels": ["a"] if yes else (["b"] if n % 2 else [])},
                "choice": {"question": "meyvə?", "options": [word, "palıd"], "label": int(not yes), "group": ""},
                "similarity": {"text": word, "text_b": "alma", "score": 4.0 * yes + draw.random(), "scaled": 0.0},
            }[kind]
            splits[split].append({"id": f"{split}{n}", **rest})
    labels = ["a", "b"] if kind in ("classification", "pair", "multilabel") else None
    own, decoding = kind_of(kind), {"similarity": {"range": [0.0, 5.0]}, "multilabel": {"threshold": 0.5}}.get(kind, {})
    about = {"name": "t", "kind": kind, "own": own, "metric": own.metrics[0], "positive": None, "language": None}
    return SimpleNamespace(labels=labels, decoding=decoding, **about, **splits)


def write_model(out: Path, task: SimpleNamespace, seed: int = 0) -> Path:
    """Predictions of a model that is right in two of three items, in the form of a fine-tuned encoder's."""
    draw, place = np.random.default_rng(seed + 5), out / "ours" / "t" / f"seed-{seed}"
    summary = {"status": "done", "model": "ours", "task": "t", "kind": task.kind, "seed": seed, "metric": task.metric}
    summary |= {"labels": task.labels, "positive": None, "language": None, "hours": 1.5, **task.decoding}
    for split in ("dev", "test"):
        records = []
        for example in getattr(task, split):
            noise = draw.normal(0, 1.0, 2)
            gold = task.own.gold(example)
            if task.kind == "similarity":
                raw = np.array([[gold / 5 + 0.3 * noise[0]]])
            elif task.kind == "multilabel":
                raw = np.array([[1.5 * (label in gold) - 0.7 for label in "ab"] + noise])
            elif task.kind == "choice":
                raw = 1.2 * np.eye(2)[gold] + noise
            else:
                raw = np.array([1.2 * np.array([gold == "a", gold == "b"]) + noise])
            record = task.own.decode(example, [raw], task.labels, task.decoding, None)
            records.append({"id": example["id"], "gold": gold, **record, "tokens": 5, "truncated": False})
        scored = score_predictions(records, task.own, task.labels, task.metric, None)
        summary[f"{split}_score"] = scored["score"]
        write_jsonl(place / f"predictions-{split}.jsonl", records)
    write_json(place / "summary.json", summary)
    return place


@pytest.mark.parametrize("kind", ["classification", "pair", "multilabel", "choice", "similarity"])
def test_the_weight_is_the_best_on_dev_and_never_worse_there_than_either(kind, tmp_path):
    task = task_of(kind)
    ours, other = write_model(tmp_path, task), write_baseline(tmp_path, "tfidf", task)
    place = write_stack(ours, other, task)
    assert place == tmp_path / "ours+tfidf" / "t" / "seed-0"
    summary, before = read_json(place / "summary.json"), read_json(ours / "summary.json")
    alone = [read_json(part / "summary.json") for part in (ours, other)]
    assert summary["model"] == "ours+tfidf" and summary["hours"] == 1.5 + alone[1]["hours"] and before["model"] == "ours"
    assert summary["stacked"]["weight"] in WEIGHTS
    assert summary["dev_score"] >= max(one["dev_score"] for one in alone) - 1e-12
    for split in ("dev", "test"):
        rows = read_predictions(place / f"predictions-{split}.jsonl", kind)
        score = score_predictions(rows, task.own, task.labels, task.metric, None)["score"]
        assert score == pytest.approx(summary[f"{split}_score"], abs=1e-12)
        assert [row["id"] for row in rows] == [example["id"] for example in getattr(task, split)]


def test_scores_are_the_weighted_means_of_both_files(tmp_path):
    task = task_of("classification")
    ours, other = write_model(tmp_path, task), write_baseline(tmp_path, "tfidf", task)
    place = write_stack(ours, other, task)
    weight = read_json(place / "summary.json")["stacked"]["weight"]
    both, mixed = ([row for _, row in read_jsonl(part / "predictions-test.jsonl")] for part in (ours, place))
    theirs = [row for _, row in read_jsonl(other / "predictions-test.jsonl")]
    for a, b, found in zip(both, theirs, mixed, strict=True):
        odds = [(1 - weight) * a["scores"][label] + weight * b["scores"][label] for label in "ab"]
        chance = np.exp(odds) / np.exp(odds).sum()
        assert [np.exp(found["scores"][label]) for label in "ab"] == pytest.approx(chance, abs=1e-5)
        assert found["pred"] == "ab"[int(np.argmax(odds))]


def test_test_items_do_not_move_the_weight(tmp_path):
    """Test answers turned round: the same weight, and a worse score."""
    task = task_of("pair")
    place = write_stack(write_model(tmp_path, task), write_baseline(tmp_path, "tfidf", task), task)
    first = read_json(place / "summary.json")
    for example in task.test:
        example["label"] = "ab"[example["label"] == "a"]
    again = tmp_path / "again"
    second = read_json(write_stack(write_model(again, task), write_baseline(again, "tfidf", task), task) / "summary.json")
    assert (first["stacked"], first["dev_score"]) == (second["stacked"], second["dev_score"])


def test_a_pair_of_equal_scales_is_mixed_on_the_scale_of_the_file(tmp_path):
    task = task_of("similarity")
    ours, other = write_model(tmp_path, task), write_baseline(tmp_path, "tfidf", task)
    place = write_stack(ours, other, task)
    weight = read_json(place / "summary.json")["stacked"]["weight"]
    a, b, found = ([row["pred"] for _, row in read_jsonl(part / "predictions-dev.jsonl")] for part in (ours, other, place))
    assert found == pytest.approx([(1 - weight) * x + weight * y for x, y in zip(a, b, strict=True)], abs=1e-5)
    gold = [example["score"] for example in task.dev]
    by_hand = [spearman(np.array(gold), (1 - w) * np.array(a) + w * np.array(b)) for w in WEIGHTS]
    assert spearman(np.array(gold), np.array(found)) == pytest.approx(max(by_hand), abs=1e-9)


def test_kinds_without_scores_to_mix_and_other_examples(tmp_path):
    assert kind_of("tagging").raw({"scores": [0.0]}, ["O"], {}) is None
    task = task_of("choice")
    ours, other = write_model(tmp_path, task), write_baseline(tmp_path, "tfidf", task)
    rows = [row for _, row in read_jsonl(other / "predictions-dev.jsonl")]
    write_jsonl(other / "predictions-dev.jsonl", rows[::-1])
    with pytest.raises(UserError, match=r"tfidf/t/seed-0/predictions-dev.jsonl: not the dev examples of t"):
        write_stack(ours, other, task)


def test_the_report_has_a_row_of_its_own_and_says_what_it_is(tmp_path):
    task = task_of("classification")
    other = write_baseline(tmp_path, "tfidf", task)
    for seed in (0, 1):
        write_stack(write_model(tmp_path, task, seed), other, task)
    build_report([tmp_path], tmp_path)
    table = (tmp_path / "report.md").read_text()
    assert "ours+tfidf" in table and "no encoder of its own, but the scores of ours mixed with those of tfidf" in table
    weights = [read_json(tmp_path / f"ours+tfidf/t/seed-{seed}/summary.json")["stacked"]["weight"] for seed in (0, 1)]
    assert f"(t {weights[0]:g}, {weights[1]:g})" in table
