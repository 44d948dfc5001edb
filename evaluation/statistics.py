"""Intervals and tests over two crossed random factors: the training seeds and the test examples.

Both are random in the claim of a table ("this model, trained again, on other text of this kind"), so both are in the
variance. With S seeds and n examples, and r the variance of the seed-by-example remainder,

    se^2 = var_examples(mean over seeds) / n + var_seeds(score of a run) / S - r / (n S)

where the last term subtracts the remainder, which both others contain. For a mean of per-example scores the three are
computed from sums of squares. For an F1 they come from one bootstrap of the examples, with the same resamples for every seed
and model, made fast by weighting counts per example. Simpler intervals fail: one over seeds alone covers 68 to 89 % instead
of 95 %, and one over examples alone ignores the seeds. The tests simulate the coverage.

Examples in groups (the questions about one context) are not independent: then groups replace examples. A mean enters as one
value for each group, the score plus the group's summed deviation from it over the mean group size; their mean is the score,
their variance that of a mean over resampled groups, and with groups of one they are the examples. An F1 resamples whole
groups. A correlation or a kappa with quadratic weights comes from a bootstrap of the (gold, predicted) pairs, Spearman's
with ranks computed in every resample.

Nothing else is resampled: numbers of another shape and averages without a name here are refused (tasks.metrics.score_of).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from tasks.metrics import CORRELATIONS, f1_each, f1_of_counts, score_of

REPLICATES = 2000  # the noise in a standard error is 1 / sqrt(2 * 2000) = 1.6 %
_CHUNK = 1 << 22  # weights in memory at once (float32, 16 MiB)
_EXACT = 1 << 22  # integers up to 2^24 are exact in float32; a resample may have a few times the sum


@dataclass
class Estimate:
    """A score or a difference with its standard error, degrees of freedom, 95 % interval and two-sided p against 0."""

    value: float
    se: float
    df: float
    low: float
    high: float
    p: float


@dataclass
class Sample:
    """One model's runs on one set of examples, prepared for intervals and for differences from another model."""

    scores: np.ndarray  # (S,)
    units: int  # examples, or groups of them
    grid: np.ndarray | None  # (S, units) if the score is a mean
    drawn: np.ndarray | None  # (replicates, S) resampled scores if it is not
    least: float = 0.0  # the lowest possible score; the highest is 1


@dataclass
class Parts:
    """The terms of the formula above for one model (or for a difference), divided by n and S."""

    examples: float  # var_examples / n, including the remainder once
    seeds: float  # var_seeds / S without the remainder, not below 0
    between: float  # var_seeds / S itself: its size, not that of `seeds`, determines the uncertainty of the seeds' part


def sample(runs: Sequence[np.ndarray], average: str = "mean", groups: Sequence[str] | None = None, seed: int = 0) -> Sample:
    """Prepare runs. `runs` holds one array per seed, on the same examples in the same order: (n,) with
    `average="mean"`, counts (n, 3, classes) with the averages of `f1_of_counts`, or (gold, predicted) pairs (n, 2) with
    "pearson", "spearman" or "quadratic_kappa". `groups`: one name per example.

    Raises ValueError for runs of different length, for an unknown average, and for one that does not fit the numbers. A
    single group is ignored, because it says nothing about other groups.
    """
    scores = np.array([score_of(run, average) for run in runs])
    n = len(runs[0])
    if any(len(run) != n for run in runs):
        raise ValueError(f"runs of {sorted({len(run) for run in runs})} examples: all seeds need the same test set")
    places = _places(groups, n)
    if average == "mean":
        grid = np.asarray(runs, dtype=float)
        if places is not None:
            count = int(places.max()) + 1
            means = grid.mean(1, keepdims=True)
            sums = np.stack([np.bincount(places, weights=row, minlength=count) for row in grid - means])
            grid = means + sums * (count / n)
        return Sample(grid.mean(1), grid.shape[1], grid, None)
    if average in CORRELATIONS:
        return Sample(
            scores, n if places is None else int(places.max()) + 1, None, _correlations(runs, average, places, seed), -1.0
        )
    counts = [_summed(run, places) for run in runs]
    drawn = np.stack([f1_of_counts(part, average) for part in _resampled(counts, seed)], axis=1)
    return Sample(scores, len(counts[0]), None, drawn)


def score_interval(
    runs: Sequence[np.ndarray] | Sample,
    average: str = "mean",
    confidence: float = 0.95,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Estimate:
    """The mean score of one model's runs (or its `sample`) with its interval, clipped to [0, 1] (pairs: [-1, 1]).

    With one run the seeds' part is unknown and omitted.
    """
    one = runs if isinstance(runs, Sample) else sample(runs, average, groups, seed)
    return _clipped(_interval(one, confidence), one.least)


def class_intervals(
    runs: Sequence[np.ndarray], groups: Sequence[str] | None = None, confidence: float = 0.95, seed: int = 0
) -> list[Estimate]:
    """F1 of each class, from counts (n, 3, classes) per seed; one bootstrap for all classes."""
    for run in runs:
        score_of(run, "macro")  # refuses numbers of another shape
    places = _places(groups, len(runs[0]))
    counts = [_summed(run, places) for run in runs]
    scores = np.stack([f1_each(run.sum(0)) for run in counts])
    drawn = np.stack([f1_each(part) for part in _resampled(counts, seed)], axis=1)
    parts = [Sample(scores[:, c], len(counts[0]), None, drawn[:, :, c]) for c in range(scores.shape[1])]
    return [_clipped(_interval(part, confidence)) for part in parts]


def difference_interval(
    runs_a: Sequence[np.ndarray] | Sample,
    runs_b: Sequence[np.ndarray] | Sample,
    average: str = "mean",
    confidence: float = 0.95,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Estimate:
    """Score of a minus score of b on the same examples: paired over examples, each model with its own seeds."""
    a, b = (runs if isinstance(runs, Sample) else sample(runs, average, groups, seed) for runs in (runs_a, runs_b))
    if a.units != b.units:
        raise ValueError(f"{a.units} examples against {b.units}: a paired difference needs the same ones")
    if a.grid is not None and b.grid is not None:
        examples = _variance(a.grid.mean(0) - b.grid.mean(0)) / a.units
    else:
        examples = _variance(a.drawn.mean(1) - b.drawn.mean(1)) if a.units > 1 else 0.0
    seeds = [(part.seeds, part.between, len(one.scores) - 1) for one in (a, b) for part in [_parts(one)]]
    return _estimate(float(a.scores.mean() - b.scores.mean()), (examples, a.units - 1), seeds, confidence)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values, in the given order; NaN stays NaN and is not counted in the family."""
    adjusted = [float("nan")] * len(p_values)
    order = sorted((i for i, p in enumerate(p_values) if not np.isnan(p)), key=lambda i: p_values[i])
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = highest
    return adjusted


def _interval(one: Sample, confidence: float) -> Estimate:
    parts = _parts(one)
    seeds = [(parts.seeds, parts.between, len(one.scores) - 1)]
    return _estimate(float(one.scores.mean()), (parts.examples, one.units - 1), seeds, confidence)


def _clipped(estimate: Estimate, least: float = 0.0) -> Estimate:
    estimate.low, estimate.high = max(least, estimate.low), min(1.0, estimate.high)
    return estimate


def _parts(one: Sample) -> Parts:
    n, n_seeds, remainder = one.units, len(one.scores), 0.0
    if one.grid is not None:
        examples = _variance(one.grid.mean(0)) / n
        if n_seeds > 1 and n > 1:
            left = one.grid - one.grid.mean(0) - one.scores[:, None] + one.grid.mean()
            remainder = float((left**2).sum()) / ((n - 1) * (n_seeds - 1)) / (n * n_seeds)
    else:
        examples = _variance(one.drawn.mean(1)) if n > 1 else 0.0
        if n_seeds > 1:
            left = one.drawn - one.drawn.mean(1, keepdims=True)
            remainder = float(left.var(axis=0, ddof=1).sum()) / (n_seeds - 1) / n_seeds
    between = _variance(one.scores) / n_seeds
    return Parts(examples, max(0.0, between - remainder), between)


def _variance(values: np.ndarray) -> float:
    return float(values.var(ddof=1)) if len(values) > 1 else 0.0


def _places(groups: Sequence[str] | None, n: int) -> np.ndarray | None:
    """Number of each example's group, or None if all examples are independent (or all are in one group)."""
    if groups is None:
        return None
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} examples: one name per example is needed")
    names, places = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return None if len(names) in (1, n) else places


def _summed(counts: np.ndarray, places: np.ndarray | None) -> np.ndarray:
    """Counts (n, 3, classes) summed within groups."""
    if places is None:
        return np.asarray(counts)
    out = np.zeros((int(places.max()) + 1, *counts.shape[1:]), dtype=counts.dtype)
    np.add.at(out, places, counts)
    return out


def _resampled(runs: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Summed counts of every run on REPLICATES resamples of the examples: (replicates, 3, classes) each.

    A resample is a vector of multinomial weights, so its counts are one matrix product. The same seed and n give the
    same resamples, which pairs models and seeds.
    """
    n, shape = len(runs[0]), runs[0].shape[1:]
    kind = np.float32 if max(float(run.sum()) for run in runs) < _EXACT else np.float64
    flat = [np.asarray(run, dtype=kind).reshape(n, -1) for run in runs]
    blocks = _weights(n, REPLICATES, seed) if n * REPLICATES <= _CHUNK else _weight_blocks(n, REPLICATES, seed)
    parts: list[list[np.ndarray]] = [[] for _ in runs]
    for weights in blocks:
        for column, run in enumerate(flat):
            parts[column].append((weights.astype(kind, copy=False) @ run).reshape(len(weights), *shape))
    return [np.concatenate(part) for part in parts]


def _correlations(runs: Sequence[np.ndarray], average: str, places: np.ndarray | None, seed: int) -> np.ndarray:
    """(replicates, S): the correlation or kappa of every run's pairs on REPLICATES resamples of examples, or of whole groups.

    A resample is a vector of multinomial weights: moments of the pairs are matrix products with it, and a resample's ranks
    are cumulated weights. A resample with a single distinct value has no correlation and counts as 0.
    """
    units = len(runs[0]) if places is None else int(places.max()) + 1
    parts = []
    for block in _weight_blocks(units, REPLICATES, seed):
        weights = block.astype(np.float64)
        weights = weights if places is None else weights[:, places]
        gold, centred = None, None  # the gold scores are the same in all runs, and half of the work
        columns = []
        for pairs in runs:
            a, b = np.asarray(pairs, dtype=float).T
            if gold is None or not np.array_equal(gold, a):
                gold, centred = a, _centred(weights, a, average)
            other = _centred(weights, b, average)
            together = np.einsum("rn,rn,rn->r", weights, centred, other)
            squares = [np.einsum("rn,rn,rn->r", weights, part, part) for part in (centred, other)]
            size = np.sqrt(squares[0] * squares[1])
            if average == "quadratic_kappa":  # its definition (tasks.metrics), multiplied out
                score = 2 * together, sum(squares) + (weights @ (a - b)) ** 2 / weights.sum(1)
            else:
                score = together, size
            columns.append(np.divide(*score, out=np.zeros_like(size), where=size > 1e-12))
        parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts)


def _centred(weights: np.ndarray, values: np.ndarray, average: str) -> np.ndarray:
    """Values (n,), or their ranks, minus their mean in every resample: (replicates, n)."""
    shown = _weighted_ranks(weights, values) if average == "spearman" else (values - values.mean())[None]
    return shown - np.einsum("rn,rn->r", weights, np.broadcast_to(shown, weights.shape))[:, None] / weights.sum(
        1, keepdims=True
    )


def _weighted_ranks(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean ranks (replicates, n) of `values` (n,) where value i occurs weights[r, i] times; equal values share theirs."""
    names, place = np.unique(values, return_inverse=True)
    starts = np.searchsorted(np.sort(place, kind="stable"), np.arange(len(names)))
    counts = np.add.reduceat(weights[:, np.argsort(place, kind="stable")], starts, axis=1)
    return (np.cumsum(counts, axis=1) - (counts - 1) / 2)[:, place]


def _weight_blocks(n: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    step = max(1, min(replicates, _CHUNK // n))
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        yield random.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float32)


@lru_cache(maxsize=8)  # a table needs the same few sizes many times, and drawing is the slow half
def _weights(n: int, replicates: int, seed: int) -> tuple[np.ndarray, ...]:
    return tuple(_weight_blocks(n, replicates, seed))


def _estimate(value: float, examples: tuple[float, int], seeds: list[tuple[float, float, int]], confidence: float) -> Estimate:
    """Add the variances; the t quantile has Satterthwaite's degrees of freedom, few if the seeds' part is large.

    The degrees of freedom use the variance of the runs before the remainder is subtracted. With the rest (often 0 by chance
    with 3 seeds) an interval over 3 seeds covered 90 %, with this 93 to 97 %, with 5 and more 94 to 96 % (4,000 simulated
    tables each, n = 300 and 1,700). With 2 seeds it can fall to 91 %: use 5. They are never below those of the part with the
    fewest, which Satterthwaite's own can be: 2 seeds of 97.5 and 95.0 on 30 groups gave 0.5, and an interval of 0 to 100.
    """
    total = examples[0] + sum(part for part, _, _ in seeds)
    if total <= 1e-18:  # a constant: no variance in seeds or examples (rounding of equal numbers leaves about 1e-33)
        return Estimate(value, 0.0, float("inf"), value, value, 1.0 if abs(value) < 1e-12 else 0.0)
    pieces = [(variance, df) for variance, df in (examples, *((between, df) for _, between, df in seeds)) if df > 0]
    df = max(total**2 / sum(variance**2 / freedom for variance, freedom in pieces), min(freedom for _, freedom in pieces))
    se = total**0.5
    half = float(stats.t.ppf(0.5 + confidence / 2, df)) * se
    return Estimate(value, se, df, value - half, value + half, float(2 * stats.t.sf(abs(value) / se, df)))


def student_half(values: Sequence[float], confidence: float = 0.95) -> float | None:
    """Half of Student's interval for the mean of independent `values`, in their unit; None for fewer than two."""
    if len(values) < 2:
        return None
    return float(stats.t.ppf(0.5 + confidence / 2, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5)
