"""Everything the report says about one model on one task beyond its score: parts, calibration, mistakes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tqdm import tqdm

from evaluation.buckets import Bucket, buckets
from evaluation.calibration import KINDS, Calibration, calibrate
from evaluation.mistakes import Mistake, mistake_table, sampled_mistakes, wrong_runs
from evaluation.results import Report


@dataclass
class Detail:
    """One cell of the table, looked at closely."""

    buckets: list[Bucket]
    calibration: Calibration | None  # None where the predictions keep no distribution
    outcomes: list[tuple[str, float]]  # (what became of a prediction, how many per run)
    mistakes: list[Mistake]
    wrong: np.ndarray  # (n,) how many seeds got each example wrong


def analyse(report: Report) -> dict[tuple[str, str], Detail]:
    """A Detail for every cell of the report."""
    found: dict[tuple[str, str], Detail] = {}
    for (model, task), cell in tqdm(sorted(report.cells.items()), desc="details", unit="cell", disable=None):
        kind, texts = report.kinds[task], report.texts.get(task)
        rows = [run.rows for run in cell.runs]
        numbers = [run.scored["per_example"] for run in cell.runs]
        counted = report.frequencies.get(task)
        parts = buckets(rows, numbers, kind, report.metrics[task], report.labels[task], report.groups[task], counted)
        known = calibrate(rows, [run.dev_rows for run in cell.runs]) if kind in KINDS else None
        mistakes = mistake_table(rows, kind, texts), sampled_mistakes(rows, kind, texts)
        found[model, task] = Detail(parts, known, *mistakes, wrong_runs(rows, kind))
    return found


def calibration_rows(report: Report, details: dict[tuple[str, str], Detail], task: str) -> list[list[str]]:
    """Calibration of the models on one task as text, header first; [] where no model has it. ECE in points."""
    rows: list[list[str]] = []
    for model in report.models:
        found = details[model, task].calibration if (model, task) in details else None
        if found is None:
            continue
        c: Any = found
        after = ["not fitted"] * 5
        if c.temperature is not None:
            after = [f"{c.temperature:.2f}", f"{100 * c.ece_scaled:.1f}", f"{100 * c.floor_scaled:.1f}"]
            after += [f"{c.brier_scaled:.3f}", f"{c.nll_scaled:.3f}"]
        floor = f"{100 * c.floor:.1f} (to {100 * c.floor_high:.1f})"
        rows.append([model, f"{100 * c.ece:.1f}", floor, f"{c.brier:.3f}", f"{c.nll:.3f}", *after])
    head = [
        "model",
        "ECE",
        "floor of a perfect model",
        "Brier",
        "NLL",
        "temperature (dev)",
        "ECE then",
        "floor then",
        "Brier then",
        "NLL then",
    ]
    return [head, *rows] if rows else []
