"""Two models on the same items: which only one of them gets right, and whether that is more than chance.

    python -m evaluation.two_models RUNS [RUNS ...] --models A B [--task TASK] [--out two_models.html]

RUNS: folders of benchmark.py or finetune.py. A model gets an item right if most of its seeds do. The test is McNemar's
(Psychometrika 12, 1947), exact: of the items that only one of them gets right, each is as likely to be the one's as the
other's if the models are as good (binomial, two-sided). p is adjusted after Holm over the tasks. Items in groups, the
questions about one context, are not independent; then p is too small, and the line says so.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from common.errors import UserError, command
from common.files import write_text
from common.html import SORT, fold, page, table
from evaluation.results import Report, collect
from evaluation.statistics import holm
from tasks.base import Kind

SHOWN = 30  # items listed for each model


@dataclass
class Comparison:
    """One task: numbers of items, and the items that only one model gets right."""

    task: str
    both: int
    neither: int
    only_a: list[int]
    only_b: list[int]
    p: float
    grouped: bool


def right_by_most(runs: Sequence[Sequence[dict[str, Any]]], kind: Kind) -> np.ndarray:
    """Whether most seeds get each item right, bool [n]; half of them are not most."""
    right = np.array([[not kind.is_wrong(row) for row in run] for run in runs])
    return right.mean(0) > 0.5


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided exact p of McNemar's test from the numbers of items that only one of two models gets right."""
    total = only_a + only_b
    return float(stats.binomtest(only_a, total, 0.5).pvalue) if total else 1.0


def compared(report: Report, a: str, b: str, task: str) -> Comparison:
    """The comparison of two models on one task."""
    kind = report.own[task]
    one, other = (right_by_most([run.rows for run in report.cells[model, task].runs], kind) for model in (a, b))
    only_a, only_b = np.flatnonzero(one & ~other).tolist(), np.flatnonzero(other & ~one).tolist()
    both, neither = int((one & other).sum()), int((~one & ~other).sum())
    grouped = report.groups.get(task) is not None
    return Comparison(task, both, neither, only_a, only_b, mcnemar(len(only_a), len(only_b)), grouped)


def compare(report: Report, models: Sequence[str], task: str | None = None) -> list[Comparison]:
    """All tasks that both models have, or `task` alone, with adjusted p. UserError for a model or task that is not there."""
    a, b = models
    for model in models:
        if model not in report.models:
            raise UserError(f"--models: no runs of {model}. There are: {', '.join(report.models)}.")
    if a == b:
        raise UserError(f"--models: {a} twice. Name two.")
    tasks = [t for t in report.tasks if all((model, t) in report.cells for model in models) and task in (None, t)]
    if not tasks:
        raise UserError(f"{a} and {b}: no task that both have{f' of the name {task}' if task else ''}. Run them on one first.")
    found = [compared(report, a, b, name) for name in tasks]
    for one, p in zip(found, holm([one.p for one in found]), strict=True):
        one.p = p
    return found


def rows_of(found: Sequence[Comparison], models: Sequence[str]) -> list[list[str]]:
    """The table, header first."""
    rows = [["task", "items", "both right", f"only {models[0]}", f"only {models[1]}", "neither", "p"]]
    for one in found:
        p = "< 0.001" if one.p < 0.001 else f"{one.p:.3f}"
        counts = [one.both, len(one.only_a), len(one.only_b), one.neither]
        note = ", items in groups: p is too small" if one.grouped else ""
        rows.append([one.task, str(sum(counts)), *map(str, counts), p + note])
    return rows


def items_of(report: Report, models: Sequence[str], one: Comparison) -> str:
    """The items that only one of the models gets right, as HTML."""
    kind, text = report.own[one.task], ""
    for model, other, numbers in ((models[0], models[1], one.only_a), (models[1], models[0], one.only_b)):
        rows = [["item", "gold", f"{other} says"]]
        for number in numbers[:SHOWN]:
            wrong = next(run.rows[number] for run in report.cells[other, one.task].runs if kind.is_wrong(run.rows[number]))
            parts, gold, predicted = kind.shown(wrong)
            rows.append([(" " if wrong.get("words") else "").join(part for part, _ in parts), gold, predicted])
        shown = f", the first {SHOWN}" if len(numbers) > SHOWN else ""
        text += fold(f"{one.task}: only {model} is right ({len(numbers)}{shown})", table(rows, text=(0, 1, 2)))
    return text


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.two_models", description=__doc__.split("\n", 1)[0])
    parser.add_argument("folders", nargs="+", metavar="RUNS", help="folders of benchmark.py or finetune.py")
    parser.add_argument("--models", nargs=2, required=True, metavar=("A", "B"), help="names of the folders of both")
    parser.add_argument("--task", help="only this task")
    parser.add_argument("--out", help="the page (default RUNS/two_models.html)")
    options = parser.parse_args(arguments)
    report = collect(options.folders)
    found = compare(report, options.models, options.task)
    out = Path(options.out) if options.out else Path(options.folders[0]) / "two_models.html"
    rows = rows_of(found, options.models)
    a, b = map(escape, options.models)
    lead = f"<p>{a} and {b}; an item is right if most seeds get it right. p: McNemar's exact test, after Holm.</p>"
    items = "".join(items_of(report, options.models, one) for one in found)
    sections = [("table", "Items", table(rows, "sortable")), ("items", "Which", items)]
    write_text(out, page("Two models", lead, sections, "", SORT))
    for row in rows:
        print("  ".join(f"{cell:<20}" for cell in row).rstrip())
    print(out)


if __name__ == "__main__":
    sys.exit(main())
