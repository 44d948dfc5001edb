"""What a table needs below its models: constant answers and TF-IDF with a linear classifier, as prediction files.

None needs a download or a GPU. They read the same examples and write the same files as a fine-tuned encoder, so the
report treats them alike. A baseline has no seed: it is run once, as seed-0, and its summary says "deterministic".
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import write_json, write_jsonl
from evaluation.linear import answers, class_scores, option_scores, tag_scores
from evaluation.metrics import score_predictions

# "majority" is the one constant that exists for every kind: the commonest class, the commonest position of the right
# option, all O, or no answer at all. "cues" sees both texts of a pair but not how they relate: what it gets above chance,
# the task gives away.
BASELINES = {
    "classification": ("majority", "tfidf"),
    "pair": ("majority", "all_positive", "cues", "tfidf"),
    "choice": ("majority", "longest_option", "tfidf"),
    "tagging": ("majority", "tfidf"),
    "qa": ("majority", "tfidf"),
}


def predict_baseline(
    name: str,
    kind: str,
    train: Sequence[dict[str, Any]],
    examples: Sequence[dict[str, Any]],
    labels: Sequence[str] | None = None,
    positive: str | None = None,
) -> list[dict[str, Any]]:
    """Prediction rows of one baseline for `examples`, learned from `train` where it learns at all.

    Raises UserError when the kind has no such baseline.
    """
    if name not in BASELINES[kind]:
        raise UserError(f"baseline {name}: {kind} has {', '.join(BASELINES[kind])}. Choose one of these.")
    if kind in ("classification", "pair"):
        names = [str(label) for label in labels or sorted({e["label"] for e in [*train, *examples]})]
        if name in ("tfidf", "cues"):
            scores = class_scores(kind, train, examples, names, relation=name == "tfidf")
        else:
            winner = Counter(sorted(e["label"] for e in train)).most_common(1)[0][0]
            winner = (positive or names[-1]) if name == "all_positive" else winner
            scores = np.log(
                np.tile(
                    [1 - 1e-6 if label == winner else 1e-6 / max(1, len(names) - 1) for label in names],
                    (len(examples), 1),
                )
            )
        return [
            {
                **_head(example),
                "gold": example["label"],
                "pred": names[int(row.argmax())],
                "scores": {label: round(float(score), 6) for label, score in zip(names, row, strict=True)},
                **_foot(example),
            }
            for example, row in zip(examples, scores, strict=True)
        ]
    if kind == "choice":
        return _choice_rows(name, train, examples)
    if kind == "tagging":
        return _tag_rows(name, train, examples, labels)
    said = answers(train, examples) if name == "tfidf" else [("", 0.0)] * len(examples)
    return [
        {
            **_head(e),
            "gold": [answer["text"] for answer in e["answers"]] or [""],
            "pred": text,
            "scores": {"best": round(odds, 6), "null": 0.0},
            **_foot(e),
        }
        for e, (text, odds) in zip(examples, said, strict=True)
    ]


def write_baseline(folder: str | Path, name: str, task: Any) -> Path:
    """Write <folder>/<name>/<task name>/seed-0/ with predictions of dev and test and summary.json; return that folder.

    `task` is a data.tasks.Task: name, kind, metric, labels, positive, train, dev, test.
    """
    place = Path(folder) / name / task.name / "seed-0"
    started = time.monotonic()
    summary: dict[str, Any] = {"model": name, "task": task.name, "kind": task.kind, "seed": 0, "deterministic": True}
    both = predict_baseline(name, task.kind, task.train, [*task.dev, *task.test], task.labels, task.positive)
    for split, rows in (("dev", both[: len(task.dev)]), ("test", both[len(task.dev) :])):
        scored = score_predictions(rows, task.kind, task.labels, task.metric, task.positive, full=False)
        summary[f"{split}_score"] = scored["score"]
        write_jsonl(place / f"predictions-{split}.jsonl", rows)
    summary |= {"hours": (time.monotonic() - started) / 3600, "peak_memory_bytes": None, "trainable_parameters": None}
    summary |= {
        "train_tokens": None,
        "best_epoch": None,
        "metric": task.metric,
        "labels": task.labels,
        "positive": task.positive,
        "examples": {split: len(getattr(task, split)) for split in ("train", "dev", "test")},
    }
    write_json(place / "summary.json", summary)
    return place


def _head(example: dict[str, Any]) -> dict[str, Any]:
    """The id, and the group where the example has one: intervals resample groups."""
    return {"id": example["id"]} | ({"group": example["group"]} if example.get("group") else {})


def _foot(example: dict[str, Any]) -> dict[str, Any]:
    """What the error lists show, and the fields of cost that a baseline has nothing to say about."""
    shown = " ⁄ ".join(example[key] for key in ("text", "text_b", "question") if example.get(key))
    return {"tokens": 0, "truncated": False, "text": shown}


def _tag_rows(name: str, train: Sequence[dict], examples: Sequence[dict], labels: Sequence[str] | None) -> list[dict[str, Any]]:
    """All O, or the likeliest tag of every word by itself."""
    if name == "tfidf":
        tags = [str(label) for label in labels or sorted({tag for e in [*train, *examples] for tag in e["tags"]})]
        found = [([tags[i] for i in part.argmax(1)], part.max(1)) for part in tag_scores(train, examples, tags)]
    else:
        found = [(["O"] * len(e["tags"]), np.zeros(len(e["tags"]))) for e in examples]
    return [
        {
            **_head(e),
            "gold": e["tags"],
            "pred": pred,
            "scores": [round(float(score), 6) for score in sure],
            "words": e["words"],
            "tokens": 0,
            "truncated": False,
        }
        for e, (pred, sure) in zip(examples, found, strict=True)
    ]


def _choice_rows(name: str, train: Sequence[dict[str, Any]], examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    places = Counter(e["label"] for e in train)
    if name == "majority":
        raw = [np.log([1.0 + places[i] for i in range(len(e["options"]))]) for e in examples]
    elif name == "longest_option":
        raw = [np.array([float(len(option)) for option in e["options"]]) for e in examples]
    else:
        raw = option_scores(train, examples)
    rows = []
    for example, scores in zip(examples, raw, strict=True):
        normal = scores - np.logaddexp.reduce(scores)
        row = {**_head(example), "gold": example["label"], "pred": int(normal.argmax())}
        row |= {"scores": [round(float(score), 6) for score in normal], "group": example["group"], **_foot(example)}
        rows.append(row | {"options": example["options"]})
    return rows
