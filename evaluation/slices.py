"""Scores of slices of a test set, with intervals: by class, length, frequency in training, options, answer, overlap, endings,
tokens of a word.

A slice is scored from the runs' per-example numbers, so nothing is predicted again, and its interval is computed like that
of the whole table (seeds x examples, groups kept together).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.frequency import NEW, RARE, entity_counts_by_frequency, part_of
from evaluation.morphology import by_endings, entity_slices
from evaluation.statistics import Estimate, class_intervals, score_interval
from tasks.base import Kind, kind_of
from tasks.metrics import same_either_way

SMALLEST = 10  # a smaller slice is counted but gets no interval
MOST_PARTS = 25  # the largest subjects are listed
CLEAN_BELOW = 0.2  # share of an item's words in text that the corpus also contains (Llama 2's bound for "clean")


@dataclass
class TestSlice:
    """One slice of a test set: `estimate` is None if it is too small."""

    by: str
    part: str
    metric: str
    examples: int
    estimate: Estimate | None


@dataclass
class ScoredRuns:
    """The runs of one model on one task: its rows and numbers a seed, the same examples in the same order."""

    rows: Sequence[Sequence[dict[str, Any]]]  # of the prediction files
    per_example: Sequence[np.ndarray]  # as scored by `metric`
    metric: str
    average: str = "mean"  # how the score is made of the numbers
    groups: Sequence[str] | None = None  # of the examples, resampled together


def slices_of(
    scored: ScoredRuns, kind: str | Kind, labels: Sequence[str] | None = None, known: Sequence[dict[str, Any]] | None = None
) -> list[TestSlice]:
    """All parts of one model on one task. `known`: records of evaluation.frequency for the same examples, where the runs
    wrote them.

    Classification and pairs are scored by accuracy in slices by length, since macro-F1 of a slice depends on which classes
    happen to be in it; slices by class are scored by F1.
    """
    runs, found, own = scored.rows, [], kind_of(kind)
    rows, keep = runs[0], None if scored.groups is None else list(scored.groups)
    for by, name, names, counts in own.class_slices(runs, labels):
        found += _classes(by, name, names, counts, keep)
    agree = [same_either_way(run) for run in runs]
    if all(run is not None for run in agree):
        found.append(_part("both orders of the texts", "all", "same prediction", agree, "mean", np.arange(len(rows)), keep))
    if own.frequency == "entities" and known is not None:
        counts = [entity_counts_by_frequency(run, known) for run in runs]
        parts = _classes(own.frequency_of, "entity_f1", [name for name, _, _ in NEW], counts, keep)
        found += [part for part in parts if part.examples]
    for by, names, counts in entity_slices(runs, own):
        found += [part for part in _classes(by, "entity_f1", names, counts, keep) if part.examples]
    numbers, average, name = own.slice_numbers(runs, scored.per_example, scored.metric, scored.average)
    for by, parts in _divisions(rows, own, known) + _fertility(rows, own):
        for part, where in parts:
            found.append(_part(by, part, name, numbers, average, where, keep))
    return found


def overlap_slices(
    per_example: Sequence[np.ndarray], average: str, metric: str, overlap: np.ndarray, groups: Sequence[str] | None = None
) -> list[TestSlice]:
    """The headline on the clean slice (less than CLEAN_BELOW of an item's words are in the corpus), the seen slice and the
    items that are too short to check (NaN). Macro and weighted F1 are over the classes among the slice's gold labels."""
    parts = (
        (f"clean: under {100 * CLEAN_BELOW:.0f} % of the words", overlap < CLEAN_BELOW),
        (f"seen: {100 * CLEAN_BELOW:.0f} % or more", overlap >= CLEAN_BELOW),
        ("too short to tell", np.isnan(overlap)),
    )
    found = []
    for part, mask in parts:
        where = np.flatnonzero(mask)
        numbers = list(per_example)
        if average in ("macro", "weighted") and len(where):
            held = numbers[0][where][:, 2].sum(0) > 0
            numbers = [run[:, :, held] for run in numbers]
        found.append(_part("overlap with the corpus", part, metric, numbers, average, where, groups))
    return [part for part in found if part.examples]


def _part(by: str, part: str, metric: str, numbers: list, average: str, where: np.ndarray, groups: Any) -> TestSlice:
    if len(where) < SMALLEST:
        return TestSlice(by, part, metric, len(where), None)
    own = None if groups is None else [groups[int(i)] for i in where]
    return TestSlice(by, part, metric, len(where), score_interval([run[where] for run in numbers], average, groups=own))


def _classes(by: str, metric: str, names: Sequence[str], counts: list[np.ndarray], groups: Any) -> list[TestSlice]:
    sizes = counts[0][:, 2].sum(0) if names else []
    found = class_intervals(counts, groups) if names else []
    return [
        TestSlice(by, name, metric, int(size), estimate if size >= SMALLEST else None)
        for name, size, estimate in zip(names, sizes, found, strict=True)
    ]


def _divisions(
    rows: Sequence[dict[str, Any]], kind: Kind, known: Sequence[dict[str, Any]] | None
) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
    """(criterion, [(slice, indices)]), the same for every model: from gold answers and text only."""
    found = []
    lengths = [text_length(row) for row in rows]
    if all(lengths):
        found.append(("length, words", quartiles(np.array(lengths))))
    if known is not None and kind.frequency in ("median", "rarest"):
        found.append((kind.frequency_of, _by_frequency([record["count"] for record in known], kind.frequency)))
    found += [(by, _by(names)) for by, names in kind.divisions(rows)]
    found.append(("endings a word, quarters", by_endings(rows, kind)))
    return [(by, [part for part in parts if part[0]]) for by, parts in found if len(parts) > 1]


def _fertility(rows: Sequence[dict[str, Any]], kind: Kind) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
    """Quarters by tokens per word of the model's own tokenizer, so they contain other items for another model; [] for rows
    without tokens (baselines) and kinds whose rows repeat a text (the question before each option, windows of a context)."""
    if kind.text_repeats or not all(row.get("tokens") and text_length(row) for row in rows):
        return []
    order = np.argsort([row["tokens"] / text_length(row) for row in rows], kind="stable")
    return [("tokens a word, quarters", list(zip(("fewest", "fewer", "more", "most"), np.array_split(order, 4), strict=True)))]


def text_length(row: dict[str, Any]) -> int:
    """Number of words of an item's text in the prediction file: words, text, or question with options; 0 if it has none."""
    if row.get("words"):
        return len(row["words"])
    texts = [str(row.get(key) or "") for key in ("text", "question")] + list(map(str, row.get("options") or []))
    return sum(len(text.split()) for text in texts)


def quartiles(lengths: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Up to four slices of about equal size, named by their bounds; equal lengths are never separated."""
    edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75], method="lower"))
    place = np.searchsorted(edges, lengths)  # a length equal to an edge belongs below it
    parts = []
    for number in np.unique(place):
        where = np.flatnonzero(place == number)
        low, high = int(lengths[where].min()), int(lengths[where].max())
        parts.append((f"{low}" if low == high else f"{low} to {high}", where))
    return parts


def _by_frequency(counts: Sequence[int | None], sought: str) -> list[tuple[str, np.ndarray]]:
    """Quarters of the items by their median word, fixed slices by the rarest word of the answer."""
    places = np.flatnonzero([count is not None for count in counts])
    if not len(places):
        return []
    have = [counts[int(place)] for place in places]
    if sought == "median":
        return [(name, places[where]) for name, where in quartiles(np.array(have))]
    names = np.array([part_of(count, RARE) for count in have])
    return [(name, places[names == name]) for name, _, _ in RARE if (names == name).any()]


def _by(keys: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    values = np.array(keys)
    sizes = sorted((-int((values == key).sum()), key) for key in set(keys))[:MOST_PARTS]
    return [(key, np.flatnonzero(values == key)) for key in sorted(key for _, key in sizes)]
