"""The threshold for unanswerable questions: chosen on dev, applied to test, from prediction files alone.

A model answers nothing if its score for no answer is above its best span's. Another threshold than 0 may be better
(ELECTRA's was -2.75), but it must be chosen on dev: chosen on the test set, as best_f1 of the SQuAD v2 script, it is
optimistic. The headline uses 0.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from language.base import Language
from tasks.metrics import normalise_language, normalise_official, qa_scores


def with_threshold(rows: Sequence[dict[str, Any]], bound: float) -> list[dict[str, Any]]:
    """The rows with "" as the answer exactly if no answer scores more than `bound` above the best span."""
    return [{**row, "pred": row["span"] if margin <= bound else ""} for row, margin in zip(rows, _margins(rows), strict=True)]


def best_threshold(rows: Sequence[dict[str, Any]], metric: str, language: Language) -> float:
    """The threshold with the best mean of `metric` on these rows, halfway between the two margins beside it."""
    normalise, place = _reading(metric, language)
    margins = _margins(rows)
    gains = []  # of answering over not answering
    for row in rows:
        golds = [str(gold) for gold in row["gold"]]
        gains.append(qa_scores(golds, row["span"], normalise)[place] - qa_scores(golds, "", normalise)[place])
    order = np.argsort(margins, kind="stable")
    values = np.array(gains)[order]
    levels = np.sort(margins)
    total = np.concatenate([[0.0], np.cumsum(values)])  # gain of answering the first k
    ends = np.concatenate([[True], levels[1:] > levels[:-1], [True]])  # equal margins cannot be separated
    k = int(np.flatnonzero(ends)[total[ends].argmax()])
    if k in (0, len(levels)):
        return float(levels[0] - 1) if k == 0 else float(levels[-1] + 1)
    return float((levels[k - 1] + levels[k]) / 2)


def threshold_metrics(
    test: Sequence[dict[str, Any]], dev: Sequence[dict[str, Any]], metric: str, language: Language
) -> dict[str, float]:
    """{"<metric>, bound from dev": score on test, "bound from dev": it}; {} if a file has no spans, or dev has only answerable
    or only unanswerable questions."""
    whole = all(isinstance(row.get("span"), str) and {"best", "null"} <= set(row.get("scores") or ()) for row in [*test, *dev])
    empty = {not any(str(gold).strip() for gold in row["gold"]) for row in dev}
    if not whole or len(empty) < 2:
        return {}
    bound = best_threshold(dev, metric, language)
    normalise, place = _reading(metric, language)
    read = with_threshold(test, bound)
    scores = [qa_scores([str(gold) for gold in row["gold"]], row["pred"], normalise)[place] for row in read]
    return {f"{metric}, bound from dev": float(np.mean(scores)), "bound from dev": bound}


def _reading(metric: str, language: Language) -> tuple[Callable[[str], str], int]:
    """The normalisation of answers for this metric, and its index in the result of `qa_scores`."""
    normalise = partial(normalise_language, language) if metric.endswith("_language") else normalise_official
    return normalise, 0 if metric.startswith("exact") else 1


def _margins(rows: Sequence[dict[str, Any]]) -> np.ndarray:
    return np.array([row["scores"]["null"] - row["scores"]["best"] for row in rows], dtype=float)
