"""Intervals and tests over two crossed sources of chance: the training seeds and the test examples.

Both are random in what a table claims ("this model, trained again, on other text of this kind"), so both are in the
variance. With S seeds and n examples, and r the variance of the seed-by-example remainder,

    se^2 = var_examples(mean over seeds) / n + var_seeds(score of a run) / S - r / (n S)

where the last term takes out the remainder that both others contain. For a mean of per-example scores the three come
from sums of squares. For an F1 they come from one bootstrap of the examples, the same resamples for every seed and
model, made fast by weighting counts per example. Why not simpler: an interval over seeds alone covers 68 to 89 % where
it says 95 (eval-anchors, section 3.8), over examples alone it misses the seeds. The tests simulate the coverage.

Examples that come in groups (the questions of one context) are not independent: then groups take the place of
examples. A mean enters as one value a group, the score plus the group's summed departure from it over the mean size of
a group; their mean is the score, their spread that of a mean over resampled groups, and with groups of one they are the
examples. An F1 resamples whole groups.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from evaluation.metrics import f1_each, f1_of_counts

REPLICATES = 2000  # the noise in a standard error is 1 / sqrt(2 * 2000) = 1.6 %
_CHUNK = 1 << 22  # weights held at a time (float32, 16 MiB)
_EXACT = 1 << 22  # whole numbers up to 2^24 are exact in float32; a resample may hold a few times the sum


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
    """One model's runs on one set of examples, ready for intervals and for differences with another model's."""

    scores: np.ndarray  # (S,)
    units: int  # examples, or groups of them
    grid: np.ndarray | None  # (S, units) where the score is a mean
    drawn: np.ndarray | None  # (replicates, S) resampled scores where it is not


@dataclass
class Parts:
    """The pieces of the formula above for one model (or for a difference): already divided by n and S."""

    examples: float  # var_examples / n, remainder included once
    seeds: float  # var_seeds / S with the remainder taken out, not below 0
    between: float  # var_seeds / S as it is: its size, not that of `seeds`, says how uncertain the seeds' part is


def sample(runs: Sequence[np.ndarray], average: str = "mean", groups: Sequence[str] | None = None, seed: int = 0) -> Sample:
    """Make runs ready. `runs` holds one array per seed, on the same examples in the same order: (n,) with
    `average="mean"`, or counts (n, 3, classes) with the averages of `f1_of_counts`. `groups`: one name per example.

    Raises ValueError for runs of different length. One group alone says nothing about others: it is ignored.
    """
    n = len(runs[0])
    if any(len(run) != n for run in runs):
        raise ValueError(f"runs of {sorted({len(run) for run in runs})} examples: all seeds need the same test set")
    places = _places(groups, n)
    if average == "mean":
        grid = np.asarray(runs, dtype=float)
        if places is not None:
            count = int(places.max()) + 1
            scores = grid.mean(1, keepdims=True)
            sums = np.stack([np.bincount(places, weights=row, minlength=count) for row in grid - scores])
            grid = scores + sums * (count / n)
        return Sample(grid.mean(1), grid.shape[1], grid, None)
    counts = [_summed(run, places) for run in runs]
    scores = np.array([float(f1_of_counts(run.sum(0), average)) for run in counts])
    drawn = np.stack([f1_of_counts(part, average) for part in _resampled(counts, seed)], axis=1)
    return Sample(scores, len(counts[0]), None, drawn)


def score_interval(
    runs: Sequence[np.ndarray] | Sample,
    average: str = "mean",
    confidence: float = 0.95,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Estimate:
    """The mean score of one model's runs (or its `sample`) with its interval, clipped to [0, 1].

    With one run the seeds' part is unknown and left out.
    """
    one = runs if isinstance(runs, Sample) else sample(runs, average, groups, seed)
    return _clipped(_interval(one, confidence))


def class_intervals(
    runs: Sequence[np.ndarray], groups: Sequence[str] | None = None, confidence: float = 0.95, seed: int = 0
) -> list[Estimate]:
    """F1 of each class by itself, from counts (n, 3, classes) per seed; one bootstrap serves all classes."""
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
    """Holm's step-down adjusted p-values, in the order given; NaN stays NaN and is not counted in the family."""
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


def _clipped(estimate: Estimate) -> Estimate:
    estimate.low, estimate.high = max(0.0, estimate.low), min(1.0, estimate.high)
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
    """Number of each example's group, or None where every example is its own (or all are one)."""
    if groups is None:
        return None
    if len(groups) != n:
        raise ValueError(f"{len(groups)} groups for {n} examples: one name per example is needed")
    names, places = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return None if len(names) in (1, n) else places


def _summed(counts: np.ndarray, places: np.ndarray | None) -> np.ndarray:
    """Counts (n, 3, classes) added up within groups."""
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


def _weight_blocks(n: int, replicates: int, seed: int) -> Iterator[np.ndarray]:
    random = np.random.default_rng(seed)
    step = max(1, min(replicates, _CHUNK // n))
    for start in range(0, replicates, step):
        size = min(step, replicates - start)
        yield random.multinomial(n, np.full(n, 1 / n), size=size).astype(np.float32)


@lru_cache(maxsize=8)  # a table asks for the same few sizes again and again, and drawing is the slow half
def _weights(n: int, replicates: int, seed: int) -> tuple[np.ndarray, ...]:
    return tuple(_weight_blocks(n, replicates, seed))


def _estimate(value: float, examples: tuple[float, int], seeds: list[tuple[float, float, int]], confidence: float) -> Estimate:
    """Add the variances; the t quantile has Satterthwaite's degrees of freedom, few when the seeds' part is large.

    The degrees of freedom look at the spread of the runs before the remainder is taken out. With the part that is left
    (often 0 by luck at 3 seeds) an interval over 3 seeds covered 90 %, with this 93 to 97 %, at 5 and more 94 to 96 %
    (4,000 simulated tables each, n = 300 and 1,700). With 2 seeds it can fall to 91 %: use 5. Never fewer than the part that
    has least, as Satterthwaite's own: 2 seeds of 97.5 and 95.0 on 30 groups came to 0.5, and an interval of 0 to 100.
    """
    total = examples[0] + sum(part for part, _, _ in seeds)
    if total <= 1e-18:  # a constant: no spread in seeds or examples (rounding of equal numbers leaves about 1e-33)
        return Estimate(value, 0.0, float("inf"), value, value, 1.0 if abs(value) < 1e-12 else 0.0)
    pieces = [(variance, df) for variance, df in (examples, *((between, df) for _, between, df in seeds)) if df > 0]
    df = max(total**2 / sum(variance**2 / freedom for variance, freedom in pieces), min(freedom for _, freedom in pieces))
    se = total**0.5
    half = float(stats.t.ppf(0.5 + confidence / 2, df)) * se
    return Estimate(value, se, df, value - half, value + half, float(2 * stats.t.sf(abs(value) / se, df)))
