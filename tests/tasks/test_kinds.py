"""Similarity and multi-label score like scipy and scikit-learn; a kind from outside the tree runs the full pipeline."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import f1_score, hamming_loss

from common.errors import UserError
from common.files import ROOT, write_jsonl
from evaluation.baselines import predict_baseline
from evaluation.details import analyse
from evaluation.mistakes import mistake_table
from evaluation.results import collect
from model import predict
from model.convert.export import export_checkpoint
from model.convert.importing import import_checkpoint
from model.store import load_task_model
from tasks.base import kind_of, known_kinds
from tasks.records import load_task_file
from tasks.scoring import majority_score, score_predictions
from tasks.settings import TaskSettings
from tests.conftest import read_task
from tests.test_finetune import checkpoint, run  # noqa: F401

PAIRS = [{"sentence1": f"bir {n} iki", "sentence2": f"iki {n % 7} bir", "score": n % 6 * 0.92} for n in range(60)]


def test_every_kind_is_a_file_and_others_are_refused(tmp_path):
    page = (ROOT / "docs" / "tasks.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|.*\|.*\|.*\|$", page, re.M)) == set(known_kinds())
    assert all(kind_of(name).name == name for name in known_kinds())
    with pytest.raises(UserError, match="expected one of choice, classification, "):
        kind_of("ranking")
    with pytest.raises(UserError, match=r"nobody\.has_this cannot be used"):
        kind_of("nobody.has_this")
    with pytest.raises(UserError, match=r"task\.both_orders: multilabel has no two texts"):
        write_jsonl(tmp_path / "a.jsonl", [{"text": f"söz {n}", "labels": ["a", "b"][n % 2 :]} for n in range(50)])
        read_task({"kind": "multilabel", "train": str(tmp_path / "a.jsonl"), "both_orders": True})


# ---------------------------------------------------------------- similarity


def test_scored_pairs_of_both_layouts(tmp_path):
    """STS-B's tab file, with a decimal comma and unused columns, and JSON lines."""
    lines = [
        "genre\tscore\tsentence1\tsentence2",
        "news\t4.6\tBir ev.\tBir bina.",
        "news\t3,8\tİki.\tİki ədəd.",
        "x\tnan\ta\tb",
    ]
    (tmp_path / "a.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    loaded = load_task_file(tmp_path / "a.tsv", "similarity")
    assert [(e["text"], e["text_b"], e["score"]) for e in loaded.examples] == [
        ("Bir ev.", "Bir bina.", 4.6),
        ("İki.", "İki ədəd.", 3.8),
    ]
    assert [skip["reason"] for skip in loaded.skipped] == ["score 'nan' is not a number"]
    write_jsonl(tmp_path / "b.jsonl", [{"sentence1": "a", "sentence2": "b", "score": 4.6}, {"sentence1": "a", "sentence2": ""}])
    loaded = load_task_file(tmp_path / "b.jsonl", "similarity")
    assert loaded.examples[0]["score"] == 4.6 and loaded.skipped[0]["reason"] == "empty second text"


def test_scores_are_scaled_by_the_range_of_train_or_the_given_one(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", PAIRS)
    config = {"kind": "similarity", "train": str(tmp_path / "a.jsonl")}
    task = read_task(config)
    assert task.labels is None and task.metric == "spearman" and task.decoding["range"] == [0.0, pytest.approx(4.6)]
    assert all(e["scaled"] == pytest.approx(e["score"] / 4.6) for e in task.test)
    wide = read_task({**config, "score_range": [-5, 5]})
    assert all(e["scaled"] == pytest.approx((e["score"] + 5) / 10) for e in wide.train) and wide.digest != task.digest
    for bad in ([5, 0], [1, 1], ["a", 2]):
        with pytest.raises(UserError, match=r"task\.score_range"):
            read_task({**config, "score_range": bad})


def test_similarity_metrics_equal_scipys():
    random = np.random.default_rng(0)
    gold = random.integers(0, 6, 80).astype(float)
    pred = gold + random.normal(0, 1.5, 80).round(1)
    rows = [{"id": n, "gold": g, "pred": p, "range": [0, 5]} for n, (g, p) in enumerate(zip(gold, pred, strict=True))]
    for metric, peer in (("spearman", spearmanr), ("pearson", pearsonr)):
        scored = score_predictions(rows, "similarity", metric=metric)
        assert scored["score"] == pytest.approx(peer(gold, pred).statistic, abs=1e-12) and scored["average"] == metric
    assert scored["metrics"]["mean_absolute_error"] == pytest.approx(np.abs(gold - pred).mean())
    constant = [{**row, "pred": 2.0} for row in rows]
    assert score_predictions(constant, "similarity")["score"] == 0.0 == majority_score(rows, "similarity", "spearman")
    table = dict(mistake_table([rows], "similarity"))
    assert sum(table.values()) == 80 and set(table) == {"correct", "too high", "too low", "far too high", "far too low"}


def test_per_example_values_that_are_not_the_score_are_refused():
    """A kind whose per-example values do not average to its score is refused."""

    class Wrong(type(kind_of("similarity"))):
        def score(self, rows, labels, metric, positive, full):
            metrics, pairs, _ = super().score(rows, labels, metric, positive, full)
            return metrics, pairs[:, 0], "mean"

    rows = [{"id": n, "gold": float(n), "pred": float(n * n % 7), "range": [0, 9]} for n in range(9)]
    module = type(sys)("azx_wrong_kind")
    module.KIND = Wrong()
    sys.modules["azx.wrong_kind"] = module
    try:
        with pytest.raises(UserError, match="its numbers per example give"):
            score_predictions(rows, "azx.wrong_kind")
    finally:
        del sys.modules["azx.wrong_kind"]


# ---------------------------------------------------------------- several labels


def test_labels_in_three_layouts(tmp_path):
    write_jsonl(tmp_path / "list.jsonl", [{"text": "a", "labels": ["x", "y"]}, {"text": "b", "labels": []}, {"text": "c"}])
    (tmp_path / "bar.csv").write_text('text,labels\na,x|y\nb,\nc,"[""y""]"\n', encoding="utf-8")
    (tmp_path / "hot.csv").write_text("id,text,x,y,note\n1,a,1,1,q\n2,b,0,0,r\n3,c,0,1,s\n", encoding="utf-8")
    (tmp_path / "odd.csv").write_text("text,x,y\na,1,0\nb,0,2\n", encoding="utf-8")
    read = {file: load_task_file(tmp_path / file, "multilabel") for file in ("list.jsonl", "bar.csv", "hot.csv")}
    assert [e["labels"] for e in read["list.jsonl"].examples] == [["x", "y"], []]
    assert "no labels" in read["list.jsonl"].skipped[0]["reason"]
    assert [e["labels"] for e in read["bar.csv"].examples] == [["x", "y"], [], ["y"]]
    assert [e["labels"] for e in read["hot.csv"].examples] == [["x", "y"], [], ["y"]]
    with pytest.raises(UserError, match="no column for 'labels'"):
        load_task_file(tmp_path / "odd.csv", "multilabel")
    loaded = load_task_file(tmp_path / "odd.csv", "multilabel", TaskSettings(columns={"labels": ["x", "y"]}))
    assert len(loaded.examples) == 1 and "y is '2', neither 0 nor 1" in loaded.skipped[0]["reason"]


def label_rows(seed: int, n: int = 60) -> tuple[list[dict], np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    gold, pred = random.random((n, 4)) < [0.5, 0.2, 0.05, 0.0], random.random((n, 4)) < 0.3
    names = np.array(list("abcd"))
    rows = [
        {"id": i, "gold": names[g].tolist(), "pred": names[p].tolist()} for i, (g, p) in enumerate(zip(gold, pred, strict=True))
    ]
    return rows, gold, pred


@pytest.mark.parametrize("seed", range(5))
def test_multi_label_metrics_equal_scikit_learns(seed):
    rows, gold, pred = label_rows(seed)
    for metric in ("micro_f1", "macro_f1"):
        scored = score_predictions(rows, "multilabel", list("abcd"), metric)
        expected = f1_score(gold, pred, average=metric.split("_")[0], zero_division=0)
        assert scored["score"] == pytest.approx(expected, abs=1e-12)
        constants = [np.tile(np.array(list(np.binary_repr(m, 4))) == "1", (len(gold), 1)) for m in range(1, 16)]
        best = max(f1_score(gold, c, average=metric.split("_")[0], zero_division=0) for c in constants)
        assert majority_score(rows, "multilabel", metric, list("abcd")) == pytest.approx(best, abs=1e-12)
    assert scored["metrics"]["hamming_loss"] == pytest.approx(hamming_loss(gold, pred), abs=1e-12)
    with pytest.raises(UserError, match="label 'a' is not one of b, c, d"):
        score_predictions(rows, "multilabel", list("bcd"))


def test_dev_chooses_the_threshold(tmp_path):
    """The best threshold by the headline metric, found by trying all."""
    random = np.random.default_rng(2)
    gold = random.random((80, 3)) < 0.4
    raw = (2.0 * gold - 2.5 + random.normal(0, 1, gold.shape)).astype(np.float32)
    names = np.array(list("xyz"))
    examples = [{"id": str(n), "text": "söz", "labels": names[line].tolist()} for n, line in enumerate(gold)]
    task = type("T", (), {"labels": list("xyz"), "metric": "macro_f1"})
    chosen = kind_of("multilabel").choose([line[None] for line in raw], examples, task)["threshold"]
    chances = 1 / (1 + np.exp(-raw.astype(float)))
    found = {t: f1_score(gold, chances >= t, average="macro") for t in np.arange(5, 96) / 100}
    assert found[chosen] == pytest.approx(max(found.values())) and found[0.5] < found[chosen]


# ---------------------------------------------------------------- both kinds through the full pipeline


@pytest.mark.parametrize("kind", ["similarity", "multilabel"])
def test_export_import_adapter_teacher_and_baselines(kind, checkpoint, tmp_path, capsys):  # noqa: F811
    """Runs with LoRA and with a teacher; an export and re-import with equal predictions; a report of all."""
    if kind == "similarity":
        rows = [{**row, "id": n} for n, row in enumerate(PAIRS)]
    else:
        rows = [{"id": n, "text": f"{n} alma", "labels": ["ab"[k] for k in (0, 1) if n >> k & 1]} for n in range(60)]
    write_jsonl(tmp_path / "train.jsonl", rows)
    plain = run(checkpoint, tmp_path / "train.jsonl", kind, tmp_path / "out", 0, "recipe.pooling=pooler")
    lora = run(checkpoint, tmp_path / "train.jsonl", kind, tmp_path / "lora", 0, "recipe.adapter=lora", "recipe.epochs=1")
    student = run(
        checkpoint,
        tmp_path / "train.jsonl",
        kind,
        tmp_path / "student",
        0,
        f"recipe.teacher={plain['folder']}",
        "recipe.epochs=1",
    )
    assert (Path(lora["folder"]) / "adapter").is_dir() and student["teacher"] and student["digest"] != plain["digest"]
    model, _, known = load_task_model(Path(plain["folder"]) / "checkpoint")
    assert ("range" in known) if kind == "similarity" else 0.05 <= known["threshold"] <= 0.95
    notes = export_checkpoint(Path(plain["folder"]) / "checkpoint", tmp_path / "theirs")
    assert any("stand for 0 to 4.6" in note for note in notes) == (kind == "similarity")
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "back")
    again, _, same = load_task_model(tmp_path / "back")
    assert same == known and all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))
    (tmp_path / "new.txt").write_text("bir\tiki\n" if kind == "similarity" else "alma nar\n", encoding="utf-8")
    assert predict.main([str(tmp_path / "back"), str(tmp_path / "new.txt")]) == 0
    said = json.loads(capsys.readouterr().out)
    assert isinstance(said["score"], float) if kind == "similarity" else set(said["probabilities"]) == {"a", "b"}
    report = collect([tmp_path / "out"])
    ((_, task),) = report.cells
    detail = analyse(report)["tiny", task]
    assert report.cells["tiny", task].estimate.low <= report.cells["tiny", task].estimate.value and detail.outcomes
    example = read_task({"kind": kind, "train": str(tmp_path / "train.jsonl")})
    for name in kind_of(kind).baselines:
        made = predict_baseline(name, kind, example.train, example.test, example.labels)
        assert np.isfinite(score_predictions(made, kind, example.labels)["score"])


TOY = '''
"""Which text is longer: a toy regression of one text, defined outside the tree."""
import math
import numpy as np
import torch.nn.functional as F
from model.heads import Classes
from tasks.base import Kind
from tasks.cells import SkipRecord
from tasks.encoding import encode_texts


class HuberHead(Classes):
    def outputs(self, n_labels):
        return 1

    def loss(self, scores, batch):
        return F.huber_loss(scores[:, 0], batch.targets, reduction="sum")

    def distance(self, scores, teacher_scores, batch, temperature):
        return F.huber_loss(scores, teacher_scores, reduction="sum")


class Length(Kind):
    name = "azx_toy.length"
    fields = {"text": ("text",), "amount": ("amount",)}
    head = "azx_toy.length.HuberHead"
    metrics = ("near",)
    baselines = ("majority",)

    def read(self, row, found, labels, notes, options):
        if not row["text"]:
            raise SkipRecord("empty text")
        return {"text": row["text"], "amount": float(row["amount"])}

    def encode(self, examples, tokenizer, labels, max_length, overlap, encoded):
        targets = [np.array([e.get("amount", math.nan)], np.float32) for e in examples]
        encode_texts(examples, targets, tokenizer, max_length, encoded)

    def decode(self, example, scores, labels, how, rows, other=None):
        return {"pred": float(scores[0][0][0]), "text": example["text"]}

    def gold(self, example):
        return example["amount"]

    def answer(self, example, record):
        return {"amount": record["pred"]}

    def malformed(self, row):
        return None if isinstance(row["pred"], float) else "pred is a number"

    def score(self, rows, labels, metric, positive, full):
        near = np.array([float(abs(r["gold"] - r["pred"]) < 1) for r in rows])
        return {"near": float(near.mean())}, near, "mean"

    def floor(self, rows, labels, metric, positive):
        return 0.0

    def baseline(self, name, train, examples, labels, positive):
        return [{"pred": 0.5, "text": e["text"]} for e in examples]


KIND = Length()
'''


def test_a_kind_from_outside_the_tree(checkpoint, tmp_path, monkeypatch, capsys):  # noqa: F811
    """One file with a kind and its head, on the path: fine-tuned, used for predictions, and in the report."""
    package = tmp_path / "package"
    (package / "azx_toy").mkdir(parents=True)
    (package / "azx_toy" / "length.py").write_text(TOY)
    monkeypatch.syspath_prepend(str(package))
    write_jsonl(tmp_path / "t.jsonl", [{"text": "söz " * (1 + n % 5), "amount": 0.4 * (n % 5)} for n in range(50)])
    summary = run(checkpoint, tmp_path / "t.jsonl", "azx_toy.length", tmp_path / "out", 0, "recipe.epochs=1")
    assert predict.main([summary["folder"], str(tmp_path / "t.jsonl")]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(said) == 50 and all(isinstance(row["amount"], float) for row in said)
    report = collect([tmp_path / "out"])
    ((_, task),) = report.cells
    assert report.metrics[task] == "near" and analyse(report)["tiny", task].outcomes
