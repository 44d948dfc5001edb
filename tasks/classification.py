"""Classification: a text to one of several classes, {"id", "text", "label"}."""

from collections import Counter

import numpy as np

from common.errors import UserError
from tasks.base import RIGHT, Kind, joined, log_softmax, rounded
from tasks.cells import SkipRecord, grouped, label_of, nfc
from tasks.encoding import encode_texts
from tasks.metrics import AVERAGES, class_counts, classification_metrics, f1_of_counts, same_either_way


class Classification(Kind):
    """A text has one class."""

    name = "classification"
    fields = {
        "text": ("text", "title", "sentence", "sentence1", "headline", "content", "review", "comment", "utt"),
        "label": ("label", "topic", "category", "class", "sentiment", "labels", "target", "intent"),
        "group?": ("group",),
    }
    names_from = "label"
    classes = True

    def read(self, row, found, labels, notes, options):
        text = nfc(row.get(found["text"]), notes)
        if not text:
            raise SkipRecord("empty text")
        return grouped({"text": text, "label": label_of(row.get(found["label"]), labels)}, row, found)

    def told(self, example):
        return f"labels of {example['label']}"

    def labels_in(self, example):
        return [example["label"]]

    # ---- rows and back ----

    head = "Classes"

    def encode(self, examples, tokenizer, labels, max_length, overlap, encoded):
        index = {label: number for number, label in enumerate(labels)}
        targets = [np.array([index.get(example.get("label"), -1)]) for example in examples]
        encode_texts(examples, targets, tokenizer, max_length, encoded)

    def decode(self, example, scores, labels, how, rows, other=None):
        raw, record = scores[0][0], {}
        if other is not None:
            record["orders"] = [labels[int(one.argmax())] for one in (raw, other[0][0])]
            raw = (raw + other[0][0]) / 2
        logs = log_softmax(raw)
        record |= {"pred": labels[int(logs.argmax())], "scores": dict(zip(labels, rounded(logs), strict=True))}
        return record | {"text": joined(example)}

    def raw(self, record, labels, how):
        return np.array([[record["scores"][label] for label in labels]])

    line = "one text"

    def from_line(self, text):
        return {"text": text.strip()}

    def answer(self, example, record):
        chance = round(float(np.exp(record["scores"][record["pred"]])), 4)
        return {**{name: example[name] for name in self.inputs}, "label": record["pred"], "probability": chance}

    # ---- scores ----

    metrics = ("macro_f1", "weighted_f1", "accuracy", "f1")  # macro-F1, because accuracy hides small classes
    calibrated = True

    def malformed(self, row):
        if isinstance(row["gold"], list | dict) or isinstance(row["pred"], list | dict):
            return "gold and pred are names of classes"
        if "orders" in row and not (isinstance(row["orders"], list) and len(row["orders"]) == 2):
            return "orders are the predictions of both orders of a pair"
        return None

    def score(self, rows, labels, metric, positive, full):
        gold, pred = [str(row["gold"]) for row in rows], [str(row["pred"]) for row in rows]
        labels = [str(label) for label in labels] if labels else sorted(set(gold) | set(pred))
        for row in rows:
            for key in ("gold", "pred"):
                if str(row[key]) not in labels:
                    raise UserError(f"prediction {row['id']!r}: {key} label {row[key]!r} is not one of {', '.join(labels)}.")
        if positive is None and len(labels) == 2:
            positive = labels[-1]
        if metric == "f1" and positive is None:
            raise UserError(f"metric f1: {len(labels)} classes and no positive one. Set task.positive, or metric=macro_f1.")
        metrics = classification_metrics(gold, pred, labels, None if positive is None else str(positive))
        if len(labels) == 2 and len(set(gold)) == 2 and all(isinstance(row.get("scores"), dict) for row in rows):
            from sklearn.metrics import roc_auc_score

            margins = [row["scores"].get(labels[1], 0.0) - row["scores"].get(labels[0], 0.0) for row in rows]
            metrics["auc"] = float(roc_auc_score([g == labels[1] for g in gold], margins))
        if (agree := same_either_way(rows)) is not None:
            metrics["order_consistency"] = float(agree.mean())
        if metric == "accuracy":
            return metrics, np.array([g == p for g, p in zip(gold, pred, strict=True)], dtype=float), "mean"
        counts = class_counts(gold, pred, labels)
        return metrics, counts[:, :, [labels.index(str(positive))]] if metric == "f1" else counts, AVERAGES[metric]

    def floor(self, rows, labels, metric, positive):
        gold = Counter(str(row["gold"]) for row in rows)
        names = [str(label) for label in labels] if labels else sorted(gold)
        if metric == "accuracy":
            return max(gold.values()) / len(rows)
        # Counts (answer, 3, classes) of each constant answer: it always predicts its class, and is right on all of it.
        counts = np.zeros((len(names), 3, len(names)))
        counts[:, 2] = [gold[name] for name in names]
        counts[:, 1] = len(rows) * np.eye(len(names))
        counts[:, 0] = counts[:, 2] * np.eye(len(names))
        if metric == "f1":
            counts = counts[:, :, [names.index(str(positive if positive is not None else names[-1]))]]
        return float(f1_of_counts(counts, AVERAGES[metric]).max())

    # ---- baselines: "cues" sees both texts of a pair without their relation: above chance, the task gives answers away

    def baseline(self, name, train, examples, labels, positive):
        from tasks.linear import class_scores

        names = [str(label) for label in labels or sorted({e["label"] for e in [*train, *examples]})]
        if name in ("tfidf", "cues"):
            scores = class_scores(train, examples, names, self.language, relation=name == "tfidf")
        else:
            winner = Counter(sorted(e["label"] for e in train)).most_common(1)[0][0]
            winner = (positive or names[-1]) if name == "all_positive" else winner
            line = [1 - 1e-6 if label == winner else 1e-6 / max(1, len(names) - 1) for label in names]
            scores = np.log(np.tile(line, (len(examples), 1)))
        return [
            {"pred": names[int(row.argmax())], "scores": dict(zip(names, rounded(row), strict=True)), "text": joined(example)}
            for example, row in zip(examples, scores, strict=True)
        ]

    # ---- the report ----

    frequency = "median"
    confusions = True

    def outcomes(self, row, text=None):
        return [f"{row['gold']} → {row['pred']}"] if self.is_wrong(row) else [RIGHT]

    def is_wrong(self, row):
        return str(row["gold"]) != str(row["pred"])

    def class_slices(self, runs, labels):
        names = [str(label) for label in labels] if labels else sorted({str(row["gold"]) for row in runs[0]})
        counts = [class_counts([str(r["gold"]) for r in run], [str(r["pred"]) for r in run], names) for run in runs]
        return [("class", "f1", names, counts)]

    def slice_numbers(self, runs, numbers, metric, average):
        """Accuracy: macro-F1 of a slice depends on which classes happen to be in it."""
        right = [np.array([str(r["gold"]) == str(r["pred"]) for r in run], dtype=float) for run in runs]
        return right, "mean", "accuracy"

    # ---- transformers ----

    transformers = "ForSequenceClassification"
    problem_type = "single_label_classification"


KIND = Classification()
