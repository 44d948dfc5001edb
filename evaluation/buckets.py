"""Scores of parts of a test set, with intervals: by class, length, frequency in training, options, answer, overlap.

A part is scored from the runs' per-example numbers, so nothing is predicted again, and its interval is that of the
whole table (seeds x examples, groups kept together).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.frequency import BY, NEW, RARE, entity_counts_by_frequency, part_of
from evaluation.metrics import class_counts, entity_counts_by, normalise_az, same_either_way, subject_of
from evaluation.statistics import Estimate, class_intervals, score_interval

SMALLEST = 10  # a part of fewer examples is counted but has no interval that means anything
MOST_PARTS = 25  # subjects listed; the largest ones
CLEAN_BELOW = 0.2  # share of an item's words in text that the corpus holds too (Llama 2's bound for "clean")


@dataclass
class Bucket:
    """One part of a test set: `estimate` is None where it is too small."""

    by: str
    part: str
    metric: str
    examples: int
    estimate: Estimate | None


def buckets(
    runs: Sequence[Sequence[dict[str, Any]]],
    per_example: Sequence[np.ndarray],
    kind: str,
    metric: str,
    labels: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    known: Sequence[dict[str, Any]] | None = None,
) -> list[Bucket]:
    """All parts of one model on one task. `runs`: rows per seed, the same examples in order; `per_example`: as scored;
    `known`: records of evaluation.frequency for the same examples, where the run wrote them.

    Classification and pairs are counted by accuracy inside a length, since macro-F1 of a part depends on which classes
    happen to be in it; the classes themselves by F1.
    """
    rows, found = runs[0], []
    keep = groups if groups is None else list(groups)
    if kind in ("classification", "pair"):
        names = [str(label) for label in labels] if labels else sorted({str(row["gold"]) for row in rows})
        counts = [class_counts([str(r["gold"]) for r in run], [str(r["pred"]) for r in run], names) for run in runs]
        found += _classes("class", "f1", names, counts, keep)
        average, name = "mean", "accuracy"
        agree = [same_either_way(run) for run in runs]
        if all(run is not None for run in agree):
            found.append(_part("both orders of the texts", "all", "same prediction", agree, "mean", np.arange(len(rows)), keep))
        numbers = [np.array([str(r["gold"]) == str(r["pred"]) for r in run], dtype=float) for run in runs]
    elif kind == "tagging":
        for by, part in (("type", lambda span: span[0]), ("entity length, words", _entity_length)):
            names, counts = _aligned([([r["gold"] for r in run], [r["pred"] for r in run]) for run in runs], part)
            found += _classes(by, "entity_f1", names, counts, keep)
        if known is not None:
            counts = [entity_counts_by_frequency(run, known) for run in runs]
            parts = _classes(BY[kind], "entity_f1", [name for name, _, _ in NEW], counts, keep)
            found += [part for part in parts if part.examples]
        average, name, numbers = "micro", metric, list(per_example)
    else:
        average, name, numbers = "mean", metric, list(per_example)
    for by, parts in _divisions(rows, kind, known) + _fertility(rows, kind):
        for part, where in parts:
            found.append(_part(by, part, name, numbers, average, where, keep))
    return found


def overlap_buckets(
    per_example: Sequence[np.ndarray], average: str, metric: str, overlap: np.ndarray, groups: Sequence[str] | None = None
) -> list[Bucket]:
    """The headline on the clean part (less than CLEAN_BELOW of an item's words are in the corpus), the seen part and
    the items too short to tell (NaN). Macro and weighted F1 are over the classes that the part's gold holds."""
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
    return [bucket for bucket in found if bucket.examples]


def _part(by: str, part: str, metric: str, numbers: list, average: str, where: np.ndarray, groups: Any) -> Bucket:
    if len(where) < SMALLEST:
        return Bucket(by, part, metric, len(where), None)
    own = None if groups is None else [groups[int(i)] for i in where]
    return Bucket(by, part, metric, len(where), score_interval([run[where] for run in numbers], average, groups=own))


def _classes(by: str, metric: str, names: Sequence[str], counts: list[np.ndarray], groups: Any) -> list[Bucket]:
    sizes = counts[0][:, 2].sum(0) if names else []
    found = class_intervals(counts, groups) if names else []
    return [
        Bucket(by, name, metric, int(size), estimate if size >= SMALLEST else None)
        for name, size, estimate in zip(names, sizes, found, strict=True)
    ]


def _aligned(pairs: list[tuple[list, list]], part: Callable[[tuple[str, int, int]], str]) -> tuple[list[str], list[np.ndarray]]:
    """Entity counts of all runs over one list of names: a type that only one run predicts is a column for all."""
    each = [entity_counts_by(gold, pred, part) for gold, pred in pairs]
    names = sorted({name for own, _ in each for name in own})
    out = []
    for own, counts in each:
        whole = np.zeros((*counts.shape[:2], len(names)), dtype=counts.dtype)
        whole[:, :, [names.index(name) for name in own]] = counts
        out.append(whole)
    return names, out


def _entity_length(span: tuple[str, int, int]) -> str:
    length = span[2] - span[1] + 1
    return str(length) if length < 4 else "4 or more"


def _divisions(
    rows: Sequence[dict[str, Any]], kind: str, known: Sequence[dict[str, Any]] | None
) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
    """(what divides, [(part, places)]), the same for every model: only gold and text are looked at."""
    found = []
    lengths = [text_length(row) for row in rows]
    if all(lengths):
        found.append(("length, words", quartiles(np.array(lengths))))
    if known is not None and kind != "tagging":
        found.append((BY[kind], _by_frequency([record["count"] for record in known], kind)))
    if kind == "choice":
        found.append(("options", _by([f"{len(row['scores'])}" for row in rows])))
        found.append(("subject", _by([subject_of(row) for row in rows])))
    if kind == "qa":
        golds = [[str(gold) for gold in row["gold"] if str(gold).strip()] for row in rows]
        found.append(("answer", _by(["there is one" if gold else "there is none" for gold in golds])))
        found.append(("answer length, words", _by([_answer_length(gold) for gold in golds])))
    return [(by, [part for part in parts if part[0]]) for by, parts in found if len(parts) > 1]


def _fertility(rows: Sequence[dict[str, Any]], kind: str) -> list[tuple[str, list[tuple[str, np.ndarray]]]]:
    """Quarters by pieces a word of the model's own tokenizer, so other items for another model; none for rows without
    pieces (baselines) and kinds whose rows repeat a text (the question before each option, windows of a context)."""
    if kind in ("choice", "qa") or not all(row.get("tokens") and text_length(row) for row in rows):
        return []
    order = np.argsort([row["tokens"] / text_length(row) for row in rows], kind="stable")
    return [("pieces a word, quarters", list(zip(("fewest", "fewer", "more", "most"), np.array_split(order, 4), strict=True)))]


def text_length(row: dict[str, Any]) -> int:
    """Words of what the prediction file keeps of the item: words, text, or question with its options; 0 if nothing."""
    if row.get("words"):
        return len(row["words"])
    texts = [str(row.get(key) or "") for key in ("text", "question")] + list(map(str, row.get("options") or []))
    return sum(len(text.split()) for text in texts)


def quartiles(lengths: np.ndarray) -> list[tuple[str, np.ndarray]]:
    """Up to four parts of about equal size, named by their bounds; equal lengths are never divided."""
    edges = np.unique(np.quantile(lengths, [0.25, 0.5, 0.75], method="lower"))
    place = np.searchsorted(edges, lengths)  # a length equal to an edge belongs below it
    parts = []
    for number in np.unique(place):
        where = np.flatnonzero(place == number)
        low, high = int(lengths[where].min()), int(lengths[where].max())
        parts.append((f"{low}" if low == high else f"{low} to {high}", where))
    return parts


def _by_frequency(counts: Sequence[int | None], kind: str) -> list[tuple[str, np.ndarray]]:
    """Quarters of the items by their median word, fixed parts by the rarest word of the answer."""
    places = np.flatnonzero([count is not None for count in counts])
    if not len(places):
        return []
    have = [counts[int(place)] for place in places]
    if kind in ("classification", "pair"):
        return [(name, places[where]) for name, where in quartiles(np.array(have))]
    names = np.array([part_of(count, RARE) for count in have])
    return [(name, places[names == name]) for name, _, _ in RARE if (names == name).any()]


def _by(keys: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    values = np.array(keys)
    sizes = sorted((-int((values == key).sum()), key) for key in set(keys))[:MOST_PARTS]
    return [(key, np.flatnonzero(values == key)) for key in sorted(key for _, key in sizes)]


def _answer_length(golds: Sequence[str]) -> str:
    """Of the shortest gold answer, so that one odd annotation does not move the question; "" where there is none."""
    if not golds:
        return ""
    words = min(len(normalise_az(gold).split()) for gold in golds)
    return "1" if words < 2 else "2" if words == 2 else "3 to 5" if words < 6 else "6 or more"
