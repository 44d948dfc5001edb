"""Calibration from prediction files: ECE with the floor of a perfect model of the same size, Brier, NLL, temperature.

An ECE of 15 bins is never 0 on a finite test set: a perfectly calibrated model gets about .035 on 200 examples and .013 on
1,700. So every ECE is reported with its floor, simulated from the model's own confidences with outcomes drawn with exactly
those probabilities. Only kinds with one distribution for each example have it: classification, pair and choice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

BINS = 15
DRAWS = 400  # simulated perfect models; the noise in their mean ECE is about 2 % of it


@dataclass
class Calibration:
    """The mean over seeds. `floor` and `floor_high`: mean and 95 % point of a perfect model's ECE at this size."""

    ece: float
    floor: float
    floor_high: float
    brier: float
    nll: float
    temperature: float | None  # fitted on dev; None if dev has no scores
    ece_scaled: float | None  # on test, with that temperature
    floor_scaled: float | None
    brier_scaled: float | None
    nll_scaled: float | None
    curve: list[tuple[float, float, int]]  # (mean confidence, accuracy, examples) of non-empty bins, all seeds


def probabilities(rows: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray] | None:
    """Log-probabilities (n, most classes) with -inf for classes that an example lacks, and gold columns (n,).

    Scores may be log-probabilities or raw. None if an example has none, or none for its gold label.
    """
    values, gold = [], []
    for row in rows:
        scores = row.get("scores")
        if not scores:
            return None
        if isinstance(scores, dict):
            if str(row["gold"]) not in scores:
                return None
            gold.append(list(scores).index(str(row["gold"])))
            values.append(list(scores.values()))
        else:
            gold.append(int(row["gold"]))
            values.append(scores)
    logs = np.full((len(values), max(map(len, values))), -np.inf)
    for line, scores in zip(logs, values, strict=True):
        line[: len(scores)] = scores
    return scaled(logs, 1.0), np.array(gold)


def scaled(logs: np.ndarray, temperature: float) -> np.ndarray:
    """Log-probabilities after dividing by the temperature."""
    logs = logs / temperature
    return logs - np.logaddexp.reduce(logs, axis=1, keepdims=True)


def expected_calibration_error(confidence: np.ndarray, right: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Mean over examples of |accuracy - confidence| of the example's bin (equal widths); `right` (..., n) gives (...)."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    member = (place[:, None] == np.arange(bins)).astype(float)
    return np.abs(np.asarray(right, dtype=float) @ member - confidence @ member).sum(-1) / len(confidence)


def perfect_floor(confidence: np.ndarray, draws: int = DRAWS, seed: int = 0) -> tuple[float, float]:
    """(mean, 95 % point) of the ECE of a perfectly calibrated model with these confidences."""
    random = np.random.default_rng(seed)
    errors = expected_calibration_error(confidence, random.random((draws, len(confidence))) < confidence)
    return float(errors.mean()), float(np.quantile(errors, 0.95))


def negative_log_likelihood(logs: np.ndarray, gold: np.ndarray) -> float:
    """Mean of -log p(gold), natural logarithm."""
    return float(-logs[np.arange(len(gold)), gold].mean())


def brier(logs: np.ndarray, gold: np.ndarray) -> float:
    """Mean over examples of the squared distance between the probabilities and the truth (0 to 2)."""
    wanted = np.zeros(logs.shape)
    wanted[np.arange(len(gold)), gold] = 1
    return float(((np.exp(logs) - wanted) ** 2).sum(1).mean())


def fit_temperature(logs: np.ndarray, gold: np.ndarray) -> float:
    """The temperature with the lowest NLL on these examples, between 1/20 and 20 (NLL is convex in 1 / temperature)."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(scaled(logs, float(np.exp(log_temperature))), gold)

    return float(np.exp(minimize_scalar(loss, bounds=(-3.0, 3.0), method="bounded", options={"xatol": 1e-4}).x))


def calibrate(test: Sequence[Sequence[dict[str, Any]]], dev: Sequence[Sequence[dict[str, Any]] | None]) -> Calibration | None:
    """Calibration of one model from its runs' test rows and dev rows; None if a run has no scores."""
    found: list[list[float]] = []
    fitted: list[list[float]] = []
    everything: list[tuple[np.ndarray, np.ndarray]] = []
    for rows, dev_rows in zip(test, dev, strict=True):
        part = probabilities(rows)
        if part is None:
            return None
        logs, gold = part
        confidence, right = np.exp(logs.max(1)), logs.argmax(1) == gold
        everything.append((confidence, right))
        error = float(expected_calibration_error(confidence, right))
        found.append([error, *perfect_floor(confidence), brier(logs, gold), negative_log_likelihood(logs, gold)])
        learn = probabilities(dev_rows) if dev_rows else None
        if learn is not None:
            temperature = fit_temperature(*learn)
            cooler = scaled(logs, temperature)
            sure = np.exp(cooler.max(1))
            after = float(expected_calibration_error(sure, right))
            scores = brier(cooler, gold), negative_log_likelihood(cooler, gold)
            fitted.append([temperature, after, perfect_floor(sure)[0], *scores])
    later: Sequence[float | None] = [float(v) for v in np.mean(fitted, axis=0)] if len(fitted) == len(test) else [None] * 5
    return Calibration(*(float(v) for v in np.mean(found, axis=0)), *later, curve=reliability(everything))


def reliability(runs: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple[float, float, int]]:
    """(mean confidence, accuracy, examples) of every non-empty bin, over all runs together."""
    confidence, right = (np.concatenate([run[part] for run in runs]).astype(float) for part in (0, 1))
    place = np.minimum((confidence * BINS).astype(int), BINS - 1)
    used = [place == number for number in range(BINS)]
    return [(float(confidence[m].mean()), float(right[m].mean()), int(m.sum())) for m in used if m.any()]
