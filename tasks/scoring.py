"""Prediction files to scores, in the same way for every kind: read and check records, score them, best constant answer."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import read_jsonl
from tasks.base import Kind, kind_of
from tasks.metrics import score_of


def read_predictions(path: str | Path, kind: str | Kind) -> list[dict[str, Any]]:
    """Read and check one predictions file; raises UserError with the line for a missing key, a repeated id, a NaN score, or
    a number of tags that differs from the gold ones."""
    own, rows, seen = kind_of(kind), [], set()
    for line, row in read_jsonl(path):
        for key in ("id", "gold", "pred"):
            if row.get(key) is None:
                raise UserError(f"{path}, line {line}: no '{key}'. Run the fine-tuning again for this seed.")
        if type(row["id"]) not in (str, int):
            raise UserError(f"{path}, line {line}: id {str(row['id'])[:40]!r} is neither a text nor a number.")
        if row["id"] in seen:
            raise UserError(f"{path}, line {line}: id {row['id']!r} occurs twice; every example is predicted once.")
        if odd := _odd_scores(row) or own.malformed(row):
            raise UserError(f"{path}, line {line}: {odd} (id {row['id']!r}). Run the fine-tuning again for this seed.")
        scores = row.get("scores") or ()
        scores = scores.values() if isinstance(scores, dict) else scores
        if not all(map(math.isfinite, scores)):
            raise UserError(f"{path}, line {line}: a score of id {row['id']!r} is not finite; the run diverged.")
        seen.add(row["id"])
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: no prediction in it. Run the fine-tuning again for this seed.")
    return rows


def _odd_scores(row: dict[str, Any]) -> str | None:
    """What is wrong with the shape of a record's scores; None if nothing is."""
    scores = row.get("scores")
    values = scores.values() if isinstance(scores, dict) else scores
    if scores is not None and (not isinstance(scores, dict | list) or any(type(v) not in (float, int) for v in values)):
        return f"scores are {str(scores)[:40]}, expected numbers"
    return None


def score_predictions(
    predictions: str | Path | Sequence[dict[str, Any]],
    kind: str | Kind,
    labels: Sequence[str] | None = None,
    metric: str | None = None,
    positive: str | None = None,
    full: bool = True,
) -> dict[str, Any]:
    """Score a predictions file (or its rows). A `kind` given by name has no language (see `kind_of`).

    Returns {"metric": headline name, "score": its value, "metrics": {name: value}, "per_example": array, "average"}.
    `per_example` belongs to the headline, and `score_of(per_example, average)` returns the score: numbers whose mean it is,
    counts whose F1 it is, or pairs whose correlation it is. Intervals resample these numbers.
    `full=False` omits slow metrics other than the headline.
    Raises UserError for an unknown metric, a gold or predicted label outside `labels`, and a kind whose numbers per
    example do not give its score.
    """
    own = kind_of(kind)
    rows = read_predictions(predictions, kind) if isinstance(predictions, str | Path) else list(predictions)
    metric = metric or own.metrics[0]
    if metric not in own.metrics:
        raise UserError(f"metric {metric}: {own.name} has {', '.join(own.metrics)}. Set task.metric to one of these.")
    metrics, per_example, average = own.score(rows, labels, metric, positive, full)
    again = score_of(per_example, average)
    if len(per_example) != len(rows) or not abs(again - metrics[metric]) < 1e-9:
        raise UserError(
            f"metric {metric} of {own.name}: its numbers per example give {again:.6f} as {average}, the score is "
            f"{metrics[metric]:.6f}. Correct the kind's score method: intervals are computed from these numbers."
        )
    return {"metric": metric, "score": metrics[metric], "metrics": metrics, "per_example": per_example, "average": average}


def majority_score(
    rows: Sequence[dict[str, Any]],
    kind: str | Kind,
    metric: str,
    labels: Sequence[str] | None = None,
    positive: str | None = None,
) -> float:
    """Score of the best constant answer on the gold answers of these rows: a run must beat it to have learned anything."""
    return kind_of(kind).floor(rows, labels, metric, positive)
