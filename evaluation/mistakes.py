"""Kinds of mistakes in wrong predictions, counted over all runs, with sampled examples."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.base import RIGHT, Kind, kind_of

SAMPLED = 20  # examples shown of each type
CONFUSIONS = 8  # number of class pairs that are types of their own; the rest are "other confusions"


@dataclass
class Mistake:
    """One sampled example of one type of mistake."""

    kind: str  # the type
    row: dict[str, Any]  # its prediction
    number: int  # index of the example in the test set


# ---------------------------------------------------------------- over runs


def wrong_runs(runs: Sequence[Sequence[dict[str, Any]]], kind: str | Kind) -> np.ndarray:
    """Number of runs that got each example wrong, (n,)."""
    return np.sum([[kind_of(kind).is_wrong(row) for row in rows] for rows in runs], axis=0)


def mistake_table(
    runs: Sequence[Sequence[dict[str, Any]]], kind: str | Kind, texts: dict[str, str] | None = None
) -> list[tuple[str, float]]:
    """(outcome, mean count per run), correct ones first, then by frequency."""
    counts = Counter(
        what for rows in runs for row in rows for what in kind_of(kind).outcomes(row, (texts or {}).get(str(row["id"])))
    )
    if kind_of(kind).confusions:
        frequent = _frequent(counts)
        merged: Counter[str] = Counter()
        for what, n in counts.items():
            merged[what if what in frequent or what == RIGHT else "other confusions"] += n
        counts = merged
    order = sorted(counts.items(), key=lambda item: (not item[0].startswith(RIGHT), -item[1], item[0]))
    return [(what, n / len(runs)) for what, n in order]


def sampled_mistakes(
    runs: Sequence[Sequence[dict[str, Any]]], kind: str | Kind, texts: dict[str, str] | None = None
) -> list[Mistake]:
    """Up to SAMPLED examples of each type from the first run, drawn with a fixed seed, in the order of the file."""
    found: dict[str, list[int]] = {}
    for number, row in enumerate(runs[0]):
        for what in dict.fromkeys(kind_of(kind).outcomes(row, (texts or {}).get(str(row["id"])))):
            if what != RIGHT and not what.startswith(f"{RIGHT}:"):
                found.setdefault(what, []).append(number)
    if kind_of(kind).confusions:
        frequent = _frequent(Counter({what: len(numbers) for what, numbers in found.items()}))
        rest = sorted(n for what, numbers in found.items() if what not in frequent for n in numbers)
        found = {what: numbers for what, numbers in found.items() if what in frequent}
        found |= {"other confusions": rest} if rest else {}
    drawn = []
    for what, numbers in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        picked = np.sort(np.random.default_rng(0).permutation(len(numbers))[:SAMPLED])
        drawn += [Mistake(what, runs[0][numbers[int(i)]], numbers[int(i)]) for i in picked]
    return drawn


def _frequent(counts: Counter[str]) -> set[str]:
    ranked = sorted((-n, what) for what, n in counts.items() if what != RIGHT)
    return {what for _, what in ranked[:CONFUSIONS]}
