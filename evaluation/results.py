"""Prediction folders to a scored table: runs, cells with their intervals, what is missing, what is clean."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from tqdm import tqdm

from common.errors import UserError
from common.files import read_json, read_jsonl
from evaluation import calibration
from evaluation.buckets import Bucket, overlap_buckets
from evaluation.metrics import DEFAULT_METRIC, majority_score, read_predictions, score_predictions
from evaluation.statistics import Estimate, Sample, difference_interval, holm, sample, score_interval
from evaluation.thresholds import threshold_metrics

DEGENERATE_MARGIN = 0.01  # a run whose dev score is within a point of the best constant answer has learned nothing
ALPHA = 0.05
ENOUGH_SEEDS = 5  # below this a few runs that differ say little of how much runs differ
WIDE = 2.0  # times the half width that a well-known spread would give: then an interval is wide for want of seeds
FEW_GROUPS = 20  # below this the spread between groups is itself badly known
DECODING = {  # keys of a summary that say how scores were read, where not plainly
    "both_orders": "the scores of both orders of a pair are averaged",
    "valid_tags": "tags are the best valid path",
}
_TEXTS = ("gold", "words", "text", "question", "options")  # fields that are the same in every run of a task


@dataclass
class Run:
    """One seed of one model on one task."""

    seed: int
    summary: dict[str, Any]
    rows: list[dict[str, Any]]  # predictions of the test split, in the order of the task's reference
    scored: dict[str, Any]  # of score_predictions
    dev_score: float | None = None
    dev_rows: list[dict[str, Any]] | None = None
    degenerate: bool = False


@dataclass
class Cell:
    """One model on one task: its runs, the interval over them, and how it stands to the best of the task."""

    model: str
    task: str
    runs: list[Run] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    baseline: bool = False
    sample: Sample | None = None
    estimate: Estimate | None = None
    gap: Estimate | None = None  # the best model's score minus this one's
    p: float = float("nan")  # of the gap, adjusted after Holm over the whole table
    mark: str = ""  # "best", "tied" or ""
    clean: list[Bucket] = field(default_factory=list)  # the headline on the parts by overlap with the corpus

    @property
    def spread(self) -> str:
        """The 95 % interval as text, in points: see `spread`."""
        return spread(self.estimate.value, self.estimate.low, self.estimate.high)

    def mean_metrics(self) -> dict[str, float]:
        """Every metric, averaged over the seeds that have it."""
        names = dict.fromkeys(name for run in self.runs for name in run.scored["metrics"])
        found = {name: [r.scored["metrics"][name] for r in self.runs if name in r.scored["metrics"]] for name in names}
        return {name: float(np.mean(values)) for name, values in found.items()}


@dataclass
class Average:
    """Mean over tasks with its 95 % interval."""

    value: float
    low: float
    high: float

    @property
    def spread(self) -> str:
        """The interval as text, in points: see `spread`."""
        return spread(self.value, self.low, self.high)


def spread(value: float, low: float, high: float) -> str:
    """An interval in points as "± half"; as "[low, high]" where it was cut at 0 or 100, so that it has no middle."""
    if abs((high - value) - (value - low)) > 5e-4:
        return f"[{100 * low:.1f}, {100 * high:.1f}]"
    return f"± {50 * (high - low):.1f}"


@dataclass
class Report:
    """All that the tables and the page are drawn from."""

    title: str
    tasks: list[str]
    models: list[str]  # by average, then those that are not complete, baselines last
    kinds: dict[str, str]
    metrics: dict[str, str]
    labels: dict[str, list[str] | None]
    floors: dict[str, float]  # test score of the best constant answer
    cells: dict[tuple[str, str], Cell]
    averages: dict[str, Average | None]  # None for a model that is not complete
    problems: list[str]
    groups: dict[str, list[str] | None] = field(default_factory=dict)  # of each example; None: all stand alone
    texts: dict[str, dict[str, str]] = field(default_factory=dict)  # whole text of each item, where it was kept
    frequencies: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # of evaluation.frequency, in order of the items
    tuning: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # tuning.json of (model, task)
    elsewhere: set[str] = field(default_factory=set)  # test sets on which models of another task were asked (training.transfer)


def collect(folders: Sequence[str | Path], title: str = "Results", overlap: str | Path | None = None) -> Report:
    """Read all runs below `folders` and compute the table. `overlap`: the file of evaluation.leakage.

    Raises UserError for folders without runs, two runs of the same (model, task, seed), predictions on different
    examples or golds, and damaged files. A seed that others have and a model lacks is listed, never averaged away.
    """
    problems: list[str] = []
    places = _find_runs(folders, problems)
    tasks = sorted({task for _, task, _ in places})
    cells: dict[tuple[str, str], Cell] = {}
    report = Report(title, tasks, [], {}, {}, {}, {}, cells, {}, problems)
    reference: dict[str, tuple[Path, list[str], dict[str, Any]]] = {}
    first_rows: dict[str, list[dict[str, Any]]] = {}
    floors: dict[tuple, float] = {}  # of dev sets, by their golds: they are the same in nearly all runs
    for (model, task, seed), (place, summary) in tqdm(sorted(places.items()), desc="scoring", unit="run", disable=None):
        kind = str(summary["kind"])
        metric = summary.get("metric") or DEFAULT_METRIC[kind]
        for known, value, what in ((report.kinds, kind, "kind"), (report.metrics, metric, "metric")):
            if known.setdefault(task, value) != value:
                raise UserError(f"{place}: {what} {value}, but other runs of {task} have {known[task]}. Report them apart.")
        if summary.get("trained_on"):
            report.elsewhere.add(task)
        labels, positive = summary.get("labels"), summary.get("positive")
        report.labels.setdefault(task, labels)
        path = place / "predictions-test.jsonl"
        rows = _in_order(path, read_predictions(path, kind), reference.setdefault(task, (path, [], {})))
        _check_count(path, rows, summary)
        if task not in report.texts:
            report.texts[task] = {i: str(row.get("text", "")) for i, row in _read_inputs(place, task, "test", rows).items()}
        if task not in report.frequencies and (counted := _read_inputs(place, task, "frequencies", rows)):
            report.frequencies[task] = [counted[str(row["id"])] for row in rows]
            wanted = "entities" if kind == "tagging" else "count"
            if not all(wanted in row for row in counted.values()):
                raise UserError(f"{place.parents[2]}/inputs/{task}-frequencies.jsonl: no {wanted!r}. Run this task again.")
        if report.groups.get(task) is None:  # the first run that names groups: older files may not
            report.groups[task] = groups_of(rows, kind)
        _share_texts(rows, first_rows.setdefault(task, rows))
        run = Run(seed, summary, rows, _scored(path, rows, kind, labels, metric, positive), summary.get("dev_score"))
        cell = cells.setdefault((model, task), Cell(model, task, baseline=bool(summary.get("deterministic"))))
        cell.runs.append(run)
        if task not in report.floors:
            report.floors[task] = majority_score(rows, kind, metric, labels, positive)
        dev = place / "predictions-dev.jsonl"
        if (place.parent / "tuning.json").exists():
            report.tuning[model, task] = read_json(place.parent / "tuning.json")
        if dev.exists():
            dev_rows = read_predictions(dev, kind)
            if kind == "qa":
                run.scored["metrics"] |= threshold_metrics(rows, dev_rows, metric)
            if run.dev_score is None:
                run.dev_score = _scored(dev, dev_rows, kind, labels, metric, positive)["score"]
            if kind in calibration.KINDS:
                run.dev_rows = [{key: row.get(key) for key in ("gold", "scores")} for row in dev_rows]
            if not cell.baseline:
                golds = (task, *(str(row["gold"]) for row in dev_rows))
                if golds not in floors:
                    floors[golds] = majority_score(dev_rows, kind, metric, labels, positive)
                run.degenerate = run.dev_score <= floors[golds] + DEGENERATE_MARGIN
    _find_missing(report)
    _compare_decoding(report)
    _estimate_cells(report)
    if overlap is not None:
        _score_clean(report, Path(overlap))
    _average_and_order(report)
    return report


def _find_runs(folders: Sequence[str | Path], problems: list[str]) -> dict[tuple[str, str, int], tuple[Path, dict]]:
    """{(model, task, seed): (folder, summary)} of every complete seed-<n> folder; incomplete ones become problems."""
    places: dict[tuple[str, str, int], tuple[Path, dict]] = {}
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder. Give the folder that benchmark.py or finetune.py wrote.")
        found = sorted({*folder.glob("seed-*"), *folder.glob("**/seed-*"), *([folder] if folder.name[:5] == "seed-" else [])})
        for place in found:
            match = re.fullmatch(r"seed-(\d+)", place.name)
            if not match or not place.is_dir():
                continue
            lacking = [name for name in ("summary.json", "predictions-test.jsonl") if not (place / name).exists()]
            if lacking:
                problems.append(f"{'/'.join(place.parts[-3:])}: no {' and no '.join(lacking)}; this seed counts as missing")
                continue
            summary = read_json(place / "summary.json")
            key = (str(summary.get("model", place.parts[-3])), str(summary.get("task", place.parts[-2])), int(match[1]))
            if summary.get("kind") not in DEFAULT_METRIC:
                raise UserError(f"{place / 'summary.json'}: kind {summary.get('kind')!r} is not known. Run this seed again.")
            if key in places and places[key][0].resolve() != place.resolve():
                raise UserError(f"{place}: {key[0]} on {key[1]}, seed {key[2]} is also in {places[key][0]}. Name one only.")
            places[key] = (place, summary)
    if not places:
        listed = ("; ".join(problems[:3]) + ". ") if problems else ""
        raise UserError(f"{', '.join(map(str, folders))}: no finished run. {listed}Run benchmark.py or finetune.py first.")
    return places


def groups_of(rows: Sequence[dict[str, Any]], kind: str) -> list[str] | None:
    """The group of every example, itself where it names none; None if no two examples share one.

    For choice, "group" is the subject unless "subject" is there beside it: subjects are chosen, not drawn.
    """
    if kind == "choice" and not any(row.get("subject") for row in rows):
        return None
    groups = [f"group {row['group']}" if row.get("group") else f"id {row['id']}" for row in rows]
    return groups if len(set(groups)) < len(groups) else None


def _check_count(path: Path, rows: list[dict], summary: dict[str, Any]) -> None:
    """Scored examples are the gold ones: as many as the run says its test split holds."""
    expected = (summary.get("examples") or {}).get("test") if isinstance(summary.get("examples"), dict) else None
    if expected is not None and expected != len(rows):
        raise UserError(f"{path}: {len(rows)} predictions for {expected} test examples. Run this seed again.")


def _read_inputs(place: Path, task: str, what: str, rows: list[dict]) -> dict[str, dict[str, Any]]:
    """{id: record} from <out>/inputs/<task>-<what>.jsonl, where the benchmark wrote it; its ids are the gold ids."""
    path = place.parents[2] / "inputs" / f"{task}-{what}.jsonl" if len(place.parents) > 2 else Path()
    if not path.is_file():
        return {}
    found = {str(row.get("id")): row for _, row in read_jsonl(path)}
    predicted = {str(row["id"]) for row in rows}
    missing, extra = sorted(set(found) - predicted), sorted(predicted - set(found))
    if missing or extra:
        shown = ", ".join((missing + extra)[:3])
        raise UserError(
            f"{place / 'predictions-test.jsonl'}: {len(missing)} examples missing and {len(extra)} extra against {path} "
            f"(ids {shown}). Run this task again."
        )
    return found


def _share_texts(rows: list[dict], first: list[dict]) -> None:
    """Let equal texts be one object: 80 runs of a task would hold 80 copies."""
    for row, before in zip(rows, first, strict=True):
        for key in _TEXTS:
            if key in row and row[key] == before.get(key):
                row[key] = before[key]


def _in_order(path: Path, rows: list[dict], reference: tuple[Path, list[str], dict]) -> list[dict]:
    """`rows` in the order of the task's first file, which sets the examples: the same ids and golds for every run."""
    first, ids, golds = reference
    if not ids:
        ids += [row["id"] for row in rows]
        golds |= {row["id"]: row["gold"] for row in rows}
        return rows
    by_id = {row["id"]: row for row in rows}
    missing, extra = [i for i in ids if i not in by_id], [i for i in by_id if i not in golds]
    if missing or extra:
        shown = ", ".join(map(str, (missing + extra)[:3]))
        raise UserError(
            f"{path}: {len(missing)} examples missing and {len(extra)} extra against {first} (ids {shown}). "
            "Scores on different examples do not compare: run this seed again on the same test file."
        )
    changed = [i for i in ids if by_id[i]["gold"] != golds[i]]
    if changed:
        raise UserError(f"{path}: gold of id {changed[0]!r} differs from {first} ({len(changed)} in all). Run it again.")
    return [by_id[i] for i in ids]


def _scored(path: Path, rows: list[dict], kind: str, labels: Any, metric: str, positive: Any) -> dict[str, Any]:
    try:
        return score_predictions(rows, kind, labels, metric, positive)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _find_missing(report: Report) -> None:
    for task in report.tasks:
        column = [cell for cell in report.cells.values() if cell.task == task and not cell.baseline]
        expected = sorted({run.seed for cell in column for run in cell.runs})
        for cell in column:
            cell.missing = [seed for seed in expected if seed not in {run.seed for run in cell.runs}]
            if cell.missing:
                report.problems.append(
                    f"{cell.model} on {task}: seeds {', '.join(map(str, cell.missing))} of {len(expected)} "
                    "are missing; its mean is over the others, marked †, and takes no part in best, tied and average"
                )
            bad = [run.seed for run in cell.runs if run.degenerate]
            if bad:
                good = [run.scored["score"] for run in cell.runs if not run.degenerate]
                without = f"the mean without is {100 * float(np.mean(good)):.1f}" if good else "no run is left without"
                report.problems.append(
                    f"{cell.model} on {task}: seeds {', '.join(map(str, bad))} stayed within "
                    f"{100 * DEGENERATE_MARGIN:.0f} point of a constant answer on dev (degenerate, kept "
                    f"in the mean, marked ‡); {without}"
                )


def _compare_decoding(report: Report) -> None:
    """Runs of one task whose scores were not read alike."""
    for task in report.tasks:
        runs = [run for cell in report.cells.values() if cell.task == task and not cell.baseline for run in cell.runs]
        for key, what in DECODING.items():
            so = sum(bool(run.summary.get(key)) for run in runs)
            if 0 < so < len(runs):
                report.problems.append(f"{task}: {what} in {so} of {len(runs)} runs only; compare with care")


def _estimate_cells(report: Report) -> None:
    """Intervals, the best of each task, and who is tied with it: no difference at 5 % after Holm over the table."""
    compared: list[Cell] = []
    for task in report.tasks:
        column = [cell for cell in report.cells.values() if cell.task == task]
        groups = report.groups[task]
        if groups is not None and len(set(groups)) < FEW_GROUPS:
            report.problems.append(
                f"{task}: its {len(groups)} examples come from {len(set(groups))} groups only; intervals over so few "
                "groups tend to be too narrow"
            )
        for cell in column:
            runs = [run.scored["per_example"] for run in cell.runs]
            cell.sample = sample(runs, cell.runs[0].scored["average"], groups)
            cell.estimate = score_interval(cell.sample)
        complete = [cell for cell in column if not cell.missing]
        if not complete:
            continue
        best = max(complete, key=lambda cell: (cell.estimate.value, cell.model))
        best.mark = "best"
        for cell in complete:
            if cell is not best:
                cell.gap = difference_interval(best.sample, cell.sample)
                compared.append(cell)
        for cell in column:
            cell.sample.drawn = None  # 160 KB a cell that nothing else asks for
    for cell, p in zip(compared, holm([cell.gap.p for cell in compared]), strict=True):
        cell.p, cell.mark = p, "tied" if p >= ALPHA else ""
    several = [cell for cell in report.cells.values() if 1 < len(cell.runs) < ENOUGH_SEEDS]
    wide = [cell for cell in several if stats.t.ppf(0.975, cell.estimate.df) > WIDE * 1.96]
    if wide:
        seeds = sorted({len(cell.runs) for cell in wide})
        report.problems.append(
            f"{len(wide)} of {len(report.cells)} scores have an interval that is wide for want of seeds: their runs differ, "
            f"and {' or '.join(map(str, seeds))} runs hardly tell by how much. From {ENOUGH_SEEDS} seeds on it is narrower "
            "(seeds=auto)"
        )


def _score_clean(report: Report, path: Path) -> None:
    """The headline on the clean and the seen part of every task that the overlap file holds."""
    shares: dict[str, dict[str, float]] = {}
    for line, row in read_jsonl(path):
        if not {"task", "id", "overlap"} <= set(row):
            raise UserError(f"{path}, line {line}: expected task, id and overlap. Make it with python -m evaluation.leakage.")
        shares.setdefault(str(row["task"]), {})[str(row["id"])] = np.nan if row["overlap"] is None else float(row["overlap"])
    if not set(shares) & set(report.tasks):
        raise UserError(f"{path}: holds {', '.join(sorted(shares))}, none of the tasks {', '.join(report.tasks)}.")
    for (_, task), cell in report.cells.items():
        if task not in shares:
            continue
        ids = [str(row["id"]) for row in cell.runs[0].rows]
        unknown = [i for i in ids if i not in shares[task]]
        if unknown:
            shown = ", ".join(unknown[:3])
            raise UserError(f"{path}: no overlap for {len(unknown)} examples of {task} (ids {shown}). Make it anew.")
        numbers = [run.scored["per_example"] for run in cell.runs]
        overlap = np.array([shares[task][i] for i in ids])
        average = cell.runs[0].scored["average"]
        cell.clean = overlap_buckets(numbers, average, report.metrics[task], overlap, report.groups[task])


def _average(estimates: Sequence[Estimate]) -> Average:
    """The mean of independent scores; its t quantile has Satterthwaite's degrees of freedom, as each of theirs."""
    variance = sum(e.se**2 for e in estimates)
    mean = sum(e.value for e in estimates) / len(estimates)
    if variance == 0:
        return Average(mean, mean, mean)
    df = variance**2 / max(1e-300, sum(e.se**4 / e.df for e in estimates))
    half = float(stats.t.ppf(0.975, df)) * math.sqrt(variance) / len(estimates)
    return Average(mean, max(0.0, mean - half), min(1.0, mean + half))


def _average_and_order(report: Report) -> None:
    models = sorted({model for model, _ in report.cells})
    for model in models:
        row = [report.cells.get((model, task)) for task in report.tasks if task not in report.elsewhere]
        if row and all(cell is not None and not cell.missing for cell in row):
            report.averages[model] = _average([cell.estimate for cell in row])
        else:
            report.averages[model] = None

    def order(model: str) -> tuple:
        cells = [cell for (name, _), cell in report.cells.items() if name == model]
        average = report.averages[model]
        own = average.value if average else float(np.mean([cell.estimate.value for cell in cells]))
        return all(cell.baseline for cell in cells), average is None, -own, model

    report.models = sorted(models, key=order)
