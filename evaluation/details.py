"""All results of one model on one task besides its score: slices, calibration, mistakes."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from common.progress import progress
from evaluation.calibration import Calibration, calibrate
from evaluation.mistakes import Mistake, mistake_table, sampled_mistakes, wrong_runs
from evaluation.results import Report
from evaluation.slices import ScoredRuns, TestSlice, slices_of


@dataclass
class Detail:
    """Details of one cell of the table."""

    slices: list[TestSlice]
    calibration: Calibration | None  # None if the predictions have no distribution
    outcomes: list[tuple[str, float]]  # (outcome of a prediction, number per run)
    mistakes: list[Mistake]
    wrong: np.ndarray  # (n,) number of seeds that got each example wrong


def analyse(report: Report) -> dict[tuple[str, str], Detail]:
    """A Detail for every cell of the report."""
    found: dict[tuple[str, str], Detail] = {}
    for (model, task), cell in progress(sorted(report.cells.items()), desc="details", unit="cell"):
        kind, texts = report.own[task], report.texts.get(task)
        rows = [run.rows for run in cell.runs]
        numbers = [run.scored["per_example"] for run in cell.runs]
        scored = ScoredRuns(rows, numbers, report.metrics[task], cell.runs[0].scored["average"], report.groups[task])
        parts = slices_of(scored, kind, report.labels[task], report.frequencies.get(task))
        known = calibrate(rows, [run.dev_rows for run in cell.runs]) if kind.calibrated else None
        mistakes = mistake_table(rows, kind, texts), sampled_mistakes(rows, kind, texts)
        found[model, task] = Detail(parts, known, *mistakes, wrong_runs(rows, kind))
    return found


def calibration_rows(report: Report, details: dict[tuple[str, str], Detail], task: str) -> list[list[str]]:
    """Calibration of the models on one task as text, header first; [] if no model has it. ECE in points."""
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
