"""When a question has no answer: the bound that dev chooses, applied to test, from prediction files alone.

A model answers nothing where its score for no answer is above its best span's. Another bound than 0 may be better
(ELECTRA's was -2.75), but it has to be chosen on dev: chosen on the test set, as best_f1 of the SQuAD v2 script is, it is
optimistic. The headline keeps 0.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.metrics import normalise_az, normalise_official, qa_scores, score_predictions


def with_threshold(rows: Sequence[dict[str, Any]], bound: float) -> list[dict[str, Any]]:
    """The rows with nothing as the answer exactly where no answer scores more than `bound` above the best span."""
    return [{**row, "pred": row["span"] if margin <= bound else ""} for row, margin in zip(rows, _margins(rows), strict=True)]


def best_threshold(rows: Sequence[dict[str, Any]], metric: str = "f1") -> float:
    """The bound with the best mean of `metric` on these rows; halfway between the two margins that it parts."""
    normalise = normalise_az if metric.endswith("_az") else normalise_official
    place = 0 if metric.startswith("exact") else 1
    margins = _margins(rows)
    gains = []  # of answering over not answering
    for row in rows:
        golds = [str(gold) for gold in row["gold"]]
        gains.append(qa_scores(golds, row["span"], normalise)[place] - qa_scores(golds, "", normalise)[place])
    order = np.argsort(margins, kind="stable")
    values = np.array(gains)[order]
    levels = np.sort(margins)
    total = np.concatenate([[0.0], np.cumsum(values)])  # gained by answering the first k
    ends = np.concatenate([[True], levels[1:] > levels[:-1], [True]])  # equal margins cannot be parted
    k = int(np.flatnonzero(ends)[total[ends].argmax()])
    if k in (0, len(levels)):
        return float(levels[0] - 1) if k == 0 else float(levels[-1] + 1)
    return float((levels[k - 1] + levels[k]) / 2)


def threshold_metrics(test: Sequence[dict[str, Any]], dev: Sequence[dict[str, Any]], metric: str) -> dict[str, float]:
    """{"<metric>, bound from dev": score on test, "bound from dev": it}; {} where a file keeps no spans, or where dev has
    only questions of one sort."""
    whole = all(isinstance(row.get("span"), str) and {"best", "null"} <= set(row.get("scores") or ()) for row in [*test, *dev])
    empty = {not any(str(gold).strip() for gold in row["gold"]) for row in dev}
    if not whole or len(empty) < 2:
        return {}
    bound = best_threshold(dev, metric)
    score = score_predictions(with_threshold(test, bound), "qa", metric=metric)["score"]
    return {f"{metric}, bound from dev": score, "bound from dev": bound}


def _margins(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([row["scores"]["null"] - row["scores"]["best"] for row in rows], dtype=float)
