"""Baselines of a table: constant answers and TF-IDF with a linear classifier, as prediction files.

They need neither a download nor a GPU. They read the same examples and write the same files as a fine-tuned encoder, so the
report treats them alike. "majority" exists for every kind: the most frequent class or position of the right option, all O,
no answer, the mean score. A baseline has no seed: it is run once, as seed-0, and its summary says "deterministic".
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import write_json, write_jsonl
from tasks.base import Kind, kind_of
from tasks.scoring import score_predictions


def predict_baseline(
    name: str,
    kind: str | Kind,
    train: Sequence[dict[str, Any]],
    examples: Sequence[dict[str, Any]],
    labels: Sequence[str] | None = None,
    positive: str | None = None,
) -> list[dict[str, Any]]:
    """Prediction rows of one baseline for `examples`, trained on `train` if it learns anything.

    Raises UserError if the kind has no such baseline.
    """
    own = kind_of(kind)
    if name not in own.baselines:
        raise UserError(f"baseline {name}: {own.name} has {', '.join(own.baselines)}. Choose one of these.")
    return completed(own.baseline(name, train, examples, labels, positive), own, examples)


def completed(made: Sequence[dict[str, Any]], own: Kind, examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records with id, group and gold answer of their examples."""
    return [
        {**_head(example), "gold": own.gold(example), **row, "tokens": 0, "truncated": False}
        for example, row in zip(examples, made, strict=True)
    ]


def write_baseline(folder: str | Path, name: str, task: Any) -> Path:
    """Write <folder>/<name>/<task name>/seed-0/ with predictions of dev and test and summary.json; return that folder.

    `task` is a tasks.load.Task: name, kind, metric, labels, positive, train, dev, test.
    """
    asked = [*task.dev, *task.test]
    return write_rows(
        folder, name, task, lambda: predict_baseline(name, task.own, task.train, asked, task.labels, task.positive)
    )


def write_rows(folder: str | Path, name: str, task: Any, predict: Callable[[], list[dict[str, Any]]]) -> Path:
    """As write_baseline, from the records that `predict` returns for dev and then test, with gold (see `completed`)."""
    place = Path(folder) / name / task.name / "seed-0"
    started = time.monotonic()
    summary: dict[str, Any] = {"model": name, "task": task.name, "kind": task.kind, "seed": 0, "deterministic": True}
    both = predict()
    for split, rows in (("dev", both[: len(task.dev)]), ("test", both[len(task.dev) :])):
        scored = score_predictions(rows, task.own, task.labels, task.metric, task.positive, full=False)
        summary[f"{split}_score"] = scored["score"]
        write_jsonl(place / f"predictions-{split}.jsonl", rows)
    summary |= {"hours": (time.monotonic() - started) / 3600, "peak_memory_bytes": None, "trainable_parameters": None}
    summary |= {
        "train_tokens": None,
        "best_epoch": None,
        "metric": task.metric,
        "labels": task.labels,
        "positive": task.positive,
        "language": task.language and task.language.name,
        "examples": {split: len(getattr(task, split)) for split in ("train", "dev", "test")},
    }
    write_json(place / "summary.json", summary)
    return place


def _head(example: dict[str, Any]) -> dict[str, Any]:
    """The id, and the group of an example that has one, because intervals resample groups."""
    return {"id": example["id"]} | ({"group": example["group"]} if example.get("group") else {})
