"""Several labels: a text has any number of classes, {"id", "text", "labels": [...]}.

Files give them as a list, as "a|b" in one cell, or as a column of 0 and 1 for each label. A label is predicted if its
probability reaches a threshold, which is common to all labels, chosen on dev and stored in the checkpoint.
"""

from collections import Counter

import numpy as np

from common.errors import UserError
from tasks.base import RIGHT, Kind
from tasks.cells import SkipRecord, grouped, label_of, list_of, nfc
from tasks.encoding import encode_texts
from tasks.metrics import AVERAGES, f1_of_counts
from tasks.settings import TaskSettings

YES, NO = ("1", "1.0", "True", "true"), ("0", "0.0", "False", "false")  # cells of a column for one label
THRESHOLDS = np.arange(5, 96) / 100


class MultiLabel(Kind):
    """A text has any number of labels."""

    name = "multilabel"
    fields = {
        "text": ("text", "title", "sentence", "sentence1", "headline", "content", "review", "comment"),
        "labels?": ("labels", "label", "tags", "categories", "classes", "topics", "emotions"),
        "group?": ("group",),
    }
    names_from = "labels"

    def find_more(self, found, keys, rows):
        """Without a column of labels: all columns with only 0 and 1, each named after a label."""
        if "labels" not in found:
            others = [column for column in found.values() if isinstance(column, str)]
            binary = [key for key in keys if key not in others and all(_cell(row.get(key)) is not None for _, _, row in rows)]
            if len(binary) < 2:
                return "labels", ["labels", "a column of 0 and 1 for each label"]
            found["labels"] = binary
        elif isinstance(found["labels"], str) and (sign := _separator([row.get(found["labels"]) for _, _, row in rows])):
            found["separator"] = sign
        return None

    def read(self, row, found, labels, notes, options):
        text = nfc(row.get(found["text"]), notes)
        if not text:
            raise SkipRecord("empty text")
        where = found["labels"]
        if isinstance(where, str):
            names = _names(row.get(where), found.get("separator", "|"))
            if len(names) > 1 and "separator" in found:
                notes[f"labels parted by {found['separator']!r}"] += 1
        else:
            marks = {name: _cell(row.get(name)) for name in where}
            if odd := [name for name, mark in marks.items() if mark is None]:
                raise SkipRecord(f"{odd[0]} is {str(row.get(odd[0]))[:20]!r}, neither 0 nor 1")
            names = [name for name, mark in marks.items() if mark]
        said = list(dict.fromkeys(label_of(name, labels) for name in names))
        if len(said) < len(names):
            notes["a label named twice"] += 1
        return grouped({"text": text, "labels": said}, row, found)

    no_gold = "texts without a label"

    def told(self, example):
        return "labels" if example["labels"] else self.no_gold

    def labels_in(self, example):
        return example["labels"]

    def decoding(self, task, settings: TaskSettings):
        return {"threshold": 0.5}

    # ---- rows and back ----

    head = "Labels"

    def encode(self, examples, tokenizer, labels, max_length, overlap, encoded):
        targets = [np.array([[label in e.get("labels", ()) for label in labels]], np.float32) for e in examples]
        encode_texts(examples, targets, tokenizer, max_length, encoded)

    def decode(self, example, scores, labels, how, rows, other=None):
        chances = _probabilities(scores[0])[0]
        said = [label for label, chance in zip(labels, chances, strict=True) if chance >= how["threshold"]]
        known = {label: round(float(chance), 6) for label, chance in zip(labels, chances, strict=True)}
        return {"pred": said, "scores": known, "text": example["text"]}

    def choose(self, scores, examples, task):
        """The threshold with the best headline score on dev; of equal ones the nearest to 0.5."""
        chances = np.concatenate([_probabilities(part) for part in scores])
        gold = np.array([[label in example["labels"] for label in task.labels] for example in examples])
        found = []
        for threshold in THRESHOLDS:
            counts = label_counts(gold, chances >= threshold).sum(0)
            found.append((float(f1_of_counts(counts, AVERAGES[task.metric])), -abs(threshold - 0.5), float(threshold)))
        return {"threshold": max(found)[2]}

    def raw(self, record, labels, how):
        chances = np.array([[record["scores"][label] for label in labels]]).clip(1e-6, 1 - 1e-6)  # six decimals are written
        return np.log(chances) - np.log1p(-chances)

    def gold(self, example):
        return example["labels"]

    line = "one text"

    def from_line(self, text):
        return {"text": text.strip()}

    def answer(self, example, record):
        chances = {label: round(chance, 4) for label, chance in record["scores"].items()}
        return {"text": example["text"], "labels": record["pred"], "probabilities": chances}

    # ---- scores ----

    metrics = ("macro_f1", "micro_f1")

    def malformed(self, row):
        if not all(isinstance(row[key], list) and all(type(label) is str for label in row[key]) for key in ("gold", "pred")):
            return "gold and pred are lists of labels"
        return None

    def score(self, rows, labels, metric, positive, full):
        names = [
            str(label) for label in labels or sorted({label for row in rows for key in ("gold", "pred") for label in row[key]})
        ]
        for row in rows:
            for key in ("gold", "pred"):
                if odd := sorted(set(row[key]) - set(names)):
                    raise UserError(f"prediction {row['id']!r}: {key} label {odd[0]!r} is not one of {', '.join(names)}.")
        counts = _counts(rows, names)
        total = counts.sum(0)
        metrics = {name: float(f1_of_counts(total, AVERAGES[name])) for name in self.metrics}
        wrong = counts[:, 1] + counts[:, 2] - 2 * counts[:, 0]
        metrics |= {"exact_match": float((wrong.sum(1) == 0).mean()), "hamming_loss": float(wrong.mean())}
        return metrics, counts, AVERAGES[metric]

    def floor(self, rows, labels, metric, positive):
        """The best constant set of labels: for macro-F1 all of them, for micro-F1 the most frequent ones."""
        names = [str(label) for label in labels or sorted({label for row in rows for label in row["gold"]})]
        gold = np.array([[label in row["gold"] for label in names] for row in rows])
        order = np.argsort(-gold.sum(0), kind="stable")
        best = 0.0
        for size in range(1, len(names) + 1):
            said = np.zeros_like(gold)
            said[:, order[:size]] = True
            best = max(best, float(f1_of_counts(label_counts(gold, said).sum(0), AVERAGES[metric])))
        return best

    # ---- baselines ----

    def baseline(self, name, train, examples, labels, positive):
        from tasks.linear import label_chances

        names = [str(label) for label in labels or sorted({label for e in [*train, *examples] for label in e["labels"]})]
        if name == "tfidf":
            chances = label_chances(train, examples, names, self.language)
        else:  # the most frequent label, and all others that half of the texts have
            often = Counter(label for e in train for label in e["labels"])
            top = max(often.values(), default=0)
            line = [float(often[label] == top or 2 * often[label] >= len(train)) for label in names]
            chances = np.tile(line, (len(examples), 1))
        return [
            {
                "pred": [label for label, chance in zip(names, row, strict=True) if chance >= 0.5],
                "scores": {label: round(float(chance), 6) for label, chance in zip(names, row, strict=True)},
                "text": example["text"],
            }
            for example, row in zip(examples, chances, strict=True)
        ]

    # ---- the report ----

    frequency = "median"
    confusions = True

    def outcomes(self, row, text=None):
        gold, pred = set(row["gold"]), set(row["pred"])
        said = [f"missed: {label}" for label in sorted(gold - pred)] + [
            f"wrongly said: {label}" for label in sorted(pred - gold)
        ]
        return said or [RIGHT]

    def is_wrong(self, row):
        return set(row["gold"]) != set(row["pred"])

    def shown(self, row):
        parts, _, _ = super().shown(row)
        return parts, *(", ".join(row[key]) or "none" for key in ("gold", "pred"))

    def class_slices(self, runs, labels):
        names = [str(label) for label in labels or sorted({label for run in runs for row in run for label in row["gold"]})]
        return [("class", "f1", names, [_counts(run, names) for run in runs])]

    def slice_numbers(self, runs, numbers, metric, average):
        """Micro-F1: macro-F1 of a slice depends on which labels happen to be in it."""
        return list(numbers), "micro", "micro_f1"

    # ---- transformers ----

    transformers = "ForSequenceClassification"
    problem_type = "multi_label_classification"
    imported = {"threshold": 0.5}


def label_counts(gold: np.ndarray, pred: np.ndarray) -> np.ndarray:
    """int64 (n, 3, labels): true positive, predicted and gold labels of every text, from booleans (n, labels)."""
    return np.stack([gold & pred, pred, gold], axis=1).astype(np.int64)


def _counts(rows, names: list[str]) -> np.ndarray:
    gold, pred = (np.array([[label in row[key] for label in names] for row in rows], dtype=bool) for key in ("gold", "pred"))
    return label_counts(gold.reshape(-1, len(names)), pred.reshape(-1, len(names)))


def _probabilities(scores: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0.0, -scores.astype(np.float64)))


def _cell(value) -> bool | None:
    """A cell of a column of 0 and 1; None for any other value."""
    text = str(value).strip()
    return True if text in YES else False if text in NO else None


def _names(value, separator: str) -> list:
    """The labels in one cell: a list, its spelling in JSON, Python or NumPy, or names with a separator between."""
    if value is None:
        raise SkipRecord("no labels (an empty list means that there are none)")
    if isinstance(value, str) and not value.strip().startswith("["):
        return [name.strip() for name in value.split(separator) if name.strip()]
    return list_of(value)


def _separator(cells: list) -> str | None:
    """The comma or semicolon between labels, where no cell has a bar and most of what it parts stands in other cells too.

    Else every combination of labels would be a label of its own. The parts of a name with a comma inside stand nowhere else.
    """
    texts = {cell.strip() for cell in cells if isinstance(cell, str) and not cell.strip().startswith("[")}
    if any("|" in text for text in texts):
        return None
    for sign in (";", ","):
        parted = [{part.strip() for part in text.split(sign)} - {""} for text in texts]
        seen = Counter(part for parts in parted for part in parts)
        inside = {part for parts in parted if len(parts) > 1 for part in parts}
        if inside and sum(seen[part] > 1 for part in inside) > len(inside) / 2:
            return sign
    return None


KIND = MultiLabel()
