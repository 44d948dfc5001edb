"""Similarity: a number for how alike two texts are, {"id", "text", "text_b", "score"}; STS-B's layout, or any regression.

A model learns scores scaled to 0 to 1 by the task's range (task.score_range, default: lowest and highest of train) with
squared error; its predictions are scaled back to the range of the file.
"""

import math

import numpy as np

from common.errors import UserError
from tasks.base import RIGHT, Kind, fold, joined
from tasks.cells import SkipRecord, grouped, nfc
from tasks.encoding import encode_texts
from tasks.metrics import CORRELATIONS
from tasks.pair import two_texts
from tasks.settings import TaskSettings

CLOSE, FAR = 0.1, 0.3  # of the range: a prediction within CLOSE of the gold score is right, beyond FAR it is far off


class Similarity(Kind):
    """Two texts have a score."""

    name = "similarity"
    fields = {
        "text": ("text", "sentence1", "text_a", "sentence_a", "premise"),
        "text_b": ("text_b", "sentence2", "sentence_b", "hypothesis"),
        "score": ("score", "similarity", "similarity_score", "relatedness_score", "label", "target"),
        "group?": ("group",),
    }
    inputs = ("text", "text_b")
    options = ("both_orders",)

    def read(self, row, found, labels, notes, options):
        text, text_b = (nfc(row.get(found[key]), notes) for key in ("text", "text_b"))
        if not text or not text_b:
            raise SkipRecord("empty text" if not text else "empty second text")
        score = row.get(found["score"])
        try:
            number = math.nan if isinstance(score, bool) else float(str(score).strip().replace(",", "."))
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise SkipRecord(f"score {str(score)[:20]!r} is not a number")
        return grouped({"text": text, "text_b": text_b, "score": number}, row, found)

    def told(self, example):
        return f"scores of {example['score']:g}"

    def leakage_text(self, example):
        return min(fold(example["text"]), fold(example["text_b"]))

    def decoding(self, task, settings: TaskSettings):
        scores = [example["score"] for example in task.train]
        given = settings.score_range
        low, high = given or ((min(scores), max(scores)) if scores else (0.0, 1.0))
        if not all(isinstance(bound, int | float) for bound in (low, high)) or not low < high:
            raise UserError(f"task.score_range={[low, high]}: expected the lowest and the highest score, e.g. [0, 5].")
        for example in [*task.train, *task.dev, *task.test]:
            example["scaled"] = (example["score"] - low) / (high - low)
        return {"range": [float(low), float(high)], "both_orders": settings.both_orders}

    # ---- rows and back ----

    head = "Score"

    def encode(self, examples, tokenizer, labels, max_length, overlap, encoded):
        targets = [np.array([example.get("scaled", math.nan)], np.float32) for example in examples]
        encode_texts(examples, targets, tokenizer, max_length, encoded)

    def decode(self, example, scores, labels, how, rows, other=None):
        low, high = how["range"]
        value = float(scores[0][0][0]) if other is None else float(scores[0][0][0] + other[0][0][0]) / 2
        return {"pred": round(low + value * (high - low), 6), "range": [low, high], "text": joined(example)}

    def raw(self, record, labels, how):
        low, high = how["range"]
        return np.array([[(record["pred"] - low) / (high - low)]])

    def gold(self, example):
        return example["score"]

    line = "two texts with a tab between"

    def from_line(self, text):
        return two_texts(text)

    def answer(self, example, record):
        return {"text": example["text"], "text_b": example["text_b"], "score": round(record["pred"], 4)}

    # ---- scores ----

    metrics = ("spearman", "pearson")
    plain = ("mean_absolute_error", "mean_squared_error")

    def malformed(self, row):
        if any(type(row[key]) not in (int, float) or not math.isfinite(row[key]) for key in ("gold", "pred")):
            return "gold and pred are numbers"
        bounds = row.get("range")
        if not (isinstance(bounds, list) and len(bounds) == 2 and all(type(b) in (int, float) for b in bounds)):
            return "range is the lowest and the highest score"
        return None

    def score(self, rows, labels, metric, positive, full):
        pairs = np.array([(row["gold"], row["pred"]) for row in rows], dtype=float).reshape(-1, 2)
        metrics = {name: CORRELATIONS[name](*pairs.T) for name in self.metrics}
        error = pairs[:, 1] - pairs[:, 0]
        metrics |= {"mean_absolute_error": float(np.abs(error).mean()), "mean_squared_error": float((error**2).mean())}
        return metrics, pairs, metric

    def floor(self, rows, labels, metric, positive):
        """A constant has no correlation."""
        return 0.0

    # ---- baselines ----

    def baseline(self, name, train, examples, labels, positive):
        from tasks.linear import cosines

        scores = np.array([example["score"] for example in train])
        if name == "tfidf":
            known, asked = cosines(train, examples, self.language)
            slope, start = np.polyfit(known, scores, 1) if len(set(known.tolist())) > 1 else (0.0, scores.mean())
            said = start + slope * asked
        else:
            said = np.full(len(examples), scores.mean())
        bounds = [float(scores.min()), float(scores.max())]
        return [
            {"pred": round(float(value), 6), "range": bounds, "text": joined(example)}
            for example, value in zip(examples, said, strict=True)
        ]

    # ---- the report ----

    frequency = "median"

    def outcomes(self, row, text=None):
        low, high = row["range"]
        error = (row["pred"] - row["gold"]) / (high - low)
        if abs(error) <= CLOSE:
            return [RIGHT]
        return [f"{'far ' if abs(error) > FAR else ''}too {'high' if error > 0 else 'low'}"]

    def is_wrong(self, row):
        return self.outcomes(row) != [RIGHT]

    def shown(self, row):
        parts, _, _ = super().shown(row)
        return parts, f"{row['gold']:g}", f"{row['pred']:.2f}"

    # ---- transformers ----

    transformers = "ForSequenceClassification"
    problem_type = "regression"
    imported = {"range": [0.0, 1.0], "both_orders": False}


KIND = Similarity()
