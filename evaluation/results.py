"""Prediction folders to a scored table: runs, cells with intervals, missing seeds, clean parts."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from common.errors import UserError
from common.files import read_json, read_jsonl
from common.progress import progress
from evaluation.slices import TestSlice, overlap_slices
from evaluation.statistics import Estimate, Sample, difference_interval, holm, sample, score_interval
from language.base import Language, load_language
from tasks.base import Kind, kind_of, known_kinds
from tasks.scoring import majority_score, read_predictions, score_predictions

DEGENERATE_MARGIN = 0.01  # a run with a dev score within a point of the best constant answer has learned nothing
ALPHA = 0.05
ENOUGH_SEEDS = 5  # with fewer, differing runs say little about their variance
WIDE = 2.0  # times the half width under a well-known variance: then an interval is wide because of too few seeds
FEW_GROUPS = 20  # with fewer, the variance between groups is itself poorly known
DECODING = {  # keys of a summary with unusual decoding settings
    "both_orders": "the scores of both orders of a pair are averaged",
    "valid_tags": "tags are the best valid path",
}
_TEXTS = ("gold", "words", "text", "question", "options")  # fields that are equal in every run of a task


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
    """One model on one task: its runs, its interval, and its relation to the best model of the task."""

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
    clean: list[TestSlice] = field(default_factory=list)  # the headline by overlap with the corpus

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
    """An interval in points as "± half"; as "[low, high]" if it was clipped at 0 or 100 and so has no middle; "" if it has no
    width because all runs and examples score the same, which says nothing about certainty."""
    if high - low < 5e-6:
        return ""
    if abs((high - value) - (value - low)) > 5e-4:
        return f"[{100 * low:.1f}, {100 * high:.1f}]"
    return f"± {50 * (high - low):.1f}"


@dataclass
class Report:
    """Everything that the tables and the page show."""

    title: str
    tasks: list[str]
    models: list[str]  # by average, then incomplete ones, baselines last
    kinds: dict[str, str]
    own: dict[str, Kind]  # the same in the language of the task's texts
    metrics: dict[str, str]
    labels: dict[str, list[str] | None]
    floors: dict[str, float]  # test score of the best constant answer
    cells: dict[tuple[str, str], Cell]
    averages: dict[str, Average | None]  # None for an incomplete model
    problems: list[str]
    groups: dict[str, list[str] | None] = field(default_factory=dict)  # of each example; None: examples are independent
    texts: dict[str, dict[str, str]] = field(default_factory=dict)  # whole text of each item, if stored
    # From evaluation.frequency, in order of the items.
    frequencies: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    tuning: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)  # tuning.json of (model, task)
    transfer_tasks: set[str] = field(default_factory=set)  # those of training.transfer, on which no model was tuned


def collect(folders: Sequence[str | Path], title: str = "Results", overlap: str | Path | None = None) -> Report:
    """Read all runs below `folders` and compute the table. `overlap`: the file of evaluation.leakage.

    Raises UserError for folders without runs, two runs of the same (model, task, seed), predictions on different examples or
    gold answers, and damaged files. A seed that only some models have is listed as missing, never silently averaged.
    """
    problems: list[str] = []
    places = _find_runs(folders, problems)
    tasks = sorted({task for _, task, _ in places})
    cells: dict[tuple[str, str], Cell] = {}
    report = Report(title, tasks, [], {}, _kinds_in_language(places, problems), {}, {}, {}, cells, {}, problems)
    reference: dict[str, tuple[Path, list[str], dict[str, Any]]] = {}
    first_rows: dict[str, list[dict[str, Any]]] = {}
    floors: dict[tuple, float] = {}  # of dev sets, by their gold answers, which are equal in nearly all runs
    for (model, task, seed), (place, summary) in progress(sorted(places.items()), desc="scoring", unit="run"):
        kind, own = str(summary["kind"]), report.own[task]
        metric = summary.get("metric") or own.metrics[0]
        for known, value, what in ((report.kinds, kind, "kind"), (report.metrics, metric, "metric")):
            if known.setdefault(task, value) != value:
                raise UserError(
                    f"{place}: {what} {value}, but other runs of {task} have {known[task]}. Report them separately."
                )
        if summary.get("trained_on"):
            report.transfer_tasks.add(task)
        labels, positive = summary.get("labels"), summary.get("positive")
        report.labels.setdefault(task, labels)
        path = place / "predictions-test.jsonl"
        rows = _in_order(path, read_predictions(path, kind), reference.setdefault(task, (path, [], {})))
        _check_count(path, rows, summary)
        if task not in report.texts:
            report.texts[task] = {i: str(row.get("text", "")) for i, row in _read_inputs(place, task, "test", rows).items()}
        if task not in report.frequencies and (counted := _read_inputs(place, task, "frequencies", rows)):
            report.frequencies[task] = [counted[str(row["id"])] for row in rows]
            wanted = "entities" if own.frequency == "entities" else "count"
            if not all(wanted in row for row in counted.values()):
                raise UserError(f"{place.parents[2]}/inputs/{task}-frequencies.jsonl: no {wanted!r}. Run this task again.")
        if report.groups.get(task) is None:  # from the first run that has groups: older files may lack them
            report.groups[task] = groups_of(rows, kind)
        _share_texts(rows, first_rows.setdefault(task, rows))
        run = Run(seed, summary, rows, _scored(path, rows, own, labels, metric, positive), summary.get("dev_score"))
        cell = cells.setdefault((model, task), Cell(model, task, baseline=bool(summary.get("deterministic"))))
        cell.runs.append(run)
        if task not in report.floors:
            report.floors[task] = majority_score(rows, own, metric, labels, positive)
        dev = place / "predictions-dev.jsonl"
        if (place.parent / "tuning.json").exists():
            report.tuning[model, task] = read_json(place.parent / "tuning.json")
        if dev.exists():
            dev_rows = read_predictions(dev, kind)
            run.scored["metrics"] |= own.compare_with_dev(rows, dev_rows, metric)
            if run.dev_score is None:
                run.dev_score = _scored(dev, dev_rows, own, labels, metric, positive)["score"]
            if own.calibrated:
                run.dev_rows = [{key: row.get(key) for key in ("gold", "scores")} for row in dev_rows]
            if not cell.baseline:
                golds = (task, *(str(row["gold"]) for row in dev_rows))
                if golds not in floors:
                    floors[golds] = majority_score(dev_rows, own, metric, labels, positive)
                run.degenerate = run.dev_score <= floors[golds] + DEGENERATE_MARGIN
    _find_missing(report)
    _compare_decoding(report)
    _note_stacked(report)
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
            if str(summary.get("kind")) not in known_kinds() and "." not in str(summary.get("kind")):
                raise UserError(f"{place / 'summary.json'}: kind {summary.get('kind')!r} is not known. Run this seed again.")
            if key in places and places[key][0].resolve() != place.resolve():
                raise UserError(f"{place}: {key[0]} on {key[1]}, seed {key[2]} is also in {places[key][0]}. Name one only.")
            places[key] = (place, summary)
    if not places:
        listed = ("; ".join(problems[:3]) + ". ") if problems else ""
        raise UserError(f"{', '.join(map(str, folders))}: no finished run. {listed}Run benchmark.py or finetune.py first.")
    return places


def _kinds_in_language(places: dict[tuple[str, str, int], tuple[Path, dict]], problems: list[str]) -> dict[str, Kind]:
    """{task: its kind, in the language that the summaries record for its texts}; UserError if they record two.

    Runs made before languages were recorded have the code in the metric (f1_az), which is then renamed f1_language. If no run
    of a task records a language and its kind has scores that depend on one, Unicode's lower case is used; a problem says so.
    """
    names: dict[str, str] = {}
    named: dict[str, tuple[Language, Path]] = {}
    for (_, task, _), (place, summary) in sorted(places.items()):
        own = kind_of(names.setdefault(task, str(summary["kind"])))
        name, metric = summary.get("language"), str(summary.get("metric"))
        if name is None and (old := re.fullmatch(r"(f1|exact_match)_([a-z]{2,3})", metric)) and metric not in own.metrics:
            name, summary["metric"] = old[2], f"{old[1]}_language"
        if name is not None:
            language, first = named.setdefault(task, (load_language(name), place))
            if language is not load_language(name):
                raise UserError(
                    f"{place}: the texts of {task} are in {load_language(name).name}, but in {language.name} by {first}. "
                    "Report them apart."
                )
    kinds = {task: kind_of(name, named[task][0] if task in named else None) for task, name in names.items()}
    for task, own in kinds.items():
        if task not in named and any(metric.endswith("_language") for metric in own.metrics):
            problems.append(f"{task}: no summary.json names the language of its texts; lower case in its scores is Unicode's")
    return kinds


def groups_of(rows: Sequence[dict[str, Any]], kind: str) -> list[str] | None:
    """The group of every example (itself if it has none); None if no two examples share one.

    For choice, "group" is the subject unless there is also a field "subject": subjects are chosen, not sampled.
    """
    if not kind_of(kind).resampled_groups and not any(row.get("subject") for row in rows):
        return None
    groups = [f"group {row['group']}" if row.get("group") else f"id {row['id']}" for row in rows]
    return groups if len(set(groups)) < len(groups) else None


def _check_count(path: Path, rows: list[dict], summary: dict[str, Any]) -> None:
    """Check that as many examples are scored as the run's test split holds."""
    expected = (summary.get("examples") or {}).get("test") if isinstance(summary.get("examples"), dict) else None
    if expected is not None and expected != len(rows):
        raise UserError(f"{path}: {len(rows)} predictions for {expected} test examples. Run this seed again.")


def _read_inputs(place: Path, task: str, what: str, rows: list[dict]) -> dict[str, dict[str, Any]]:
    """{id: record} from <out>/inputs/<task>-<what>.jsonl, if the benchmark wrote it; its ids are the gold ids."""
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
    """Share equal strings between runs: otherwise 80 runs of a task would hold 80 copies."""
    for row, before in zip(rows, first, strict=True):
        for key in _TEXTS:
            if key in row and row[key] == before.get(key):
                row[key] = before[key]


def _in_order(path: Path, rows: list[dict], reference: tuple[Path, list[str], dict]) -> list[dict]:
    """`rows` in the order of the task's first file, which defines the examples: the same ids and gold answers in every run."""
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


def _scored(path: Path, rows: list[dict], kind: Kind, labels: Any, metric: str, positive: Any) -> dict[str, Any]:
    try:
        return score_predictions(rows, kind, labels, metric, positive)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _find_missing(report: Report) -> None:
    """Seeds that a model lacks, and runs that learned nothing: one line each for the whole table."""
    lacking, constant = [], []
    for task in report.tasks:
        column = [cell for cell in report.cells.values() if cell.task == task and not cell.baseline]
        expected = sorted({run.seed for cell in column for run in cell.runs})
        for cell in column:
            cell.missing = [seed for seed in expected if seed not in {run.seed for run in cell.runs}]
            if cell.missing:
                seeds = ", ".join(map(str, cell.missing))
                lacking.append(f"{cell.model} on {task}: seeds {seeds} of {len(expected)} are missing")
            bad = [run.seed for run in cell.runs if run.degenerate]
            if bad:
                good = [run.scored["score"] for run in cell.runs if not run.degenerate]
                without = f"the mean without is {100 * float(np.mean(good)):.1f}" if good else "no run is left without"
                constant.append(f"{cell.model} on {task}, seeds {', '.join(map(str, bad))} ({without})")
    if lacking:
        report.problems.append(
            f"{'; '.join(lacking)}: these means are over the others, marked †, and are excluded from best, tied and average"
        )
    if constant:
        report.problems.append(
            f"within {100 * DEGENERATE_MARGIN:.0f} point of a constant answer on dev (degenerate, kept in the mean, marked ‡): "
            + "; ".join(constant)
        )


def _compare_decoding(report: Report) -> None:
    """Note runs of one task with different decoding settings."""
    for task in report.tasks:
        runs = [run for cell in report.cells.values() if cell.task == task and not cell.baseline for run in cell.runs]
        for key, what in DECODING.items():
            so = sum(bool(run.summary.get(key)) for run in runs)
            if 0 < so < len(runs):
                report.problems.append(f"{task}: {what} in {so} of {len(runs)} runs only; compare with care")


def _note_stacked(report: Report) -> None:
    """Say which rows are two models' scores mixed, and with what weights."""
    weights: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for (model, task), cell in sorted(report.cells.items()):
        for run in cell.runs:
            if found := run.summary.get("stacked"):
                weights.setdefault((model, found["model"], found["with"]), {}).setdefault(task, []).append(found["weight"])
    for (model, ours, other), by_task in weights.items():
        said = "; ".join(f"{task} {', '.join(f'{weight:g}' for weight in found)}" for task, found in by_task.items())
        report.problems.append(
            f"{model}: no encoder of its own, but the scores of {ours} mixed with those of {other}, whose weight each seed "
            f"chose on dev ({said})"
        )


def answers_one_thing(cell: Cell) -> bool:
    """Whether every run gives one answer to all examples, or learned no more than the best constant answer."""
    return all(run.degenerate or len({str(row["pred"]) for row in run.rows}) == 1 < len(run.rows) for run in cell.runs)


def _estimate_cells(report: Report) -> None:
    """Intervals, the best of each task, and the models tied with it: no difference at 5 % after Holm over the table."""
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
        learned = [cell for cell in complete if not answers_one_thing(cell)]
        if not learned:  # no model can be the best
            continue
        best = max(learned, key=lambda cell: (cell.estimate.value, cell.model))
        best.mark = "best"
        for cell in complete:
            if cell is not best:
                cell.gap = difference_interval(best.sample, cell.sample)
                compared.append(cell)
    for cell in report.cells.values():
        cell.sample.drawn = None  # 160 KB for each cell, not needed any more
    for cell, p in zip(compared, holm([cell.gap.p for cell in compared]), strict=True):
        cell.p, cell.mark = p, "tied" if p >= ALPHA else ""
    several = [cell for cell in report.cells.values() if 1 < len(cell.runs) < ENOUGH_SEEDS]
    wide = [cell for cell in several if stats.t.ppf(0.975, cell.estimate.df) > WIDE * 1.96]
    if wide:
        seeds = sorted({len(cell.runs) for cell in wide})
        report.problems.append(
            f"{len(wide)} of {len(report.cells)} scores have a wide interval because of too few seeds: their runs differ, "
            f"and {' or '.join(map(str, seeds))} runs hardly tell by how much. From {ENOUGH_SEEDS} seeds on it is narrower "
            "(seeds=auto)"
        )


def _score_clean(report: Report, path: Path) -> None:
    """The headline on the clean and the seen part of every task in the overlap file."""
    shares: dict[str, dict[str, float]] = {}
    for line, row in read_jsonl(path):
        if not {"task", "id", "overlap"} <= set(row):
            raise UserError(f"{path}, line {line}: expected task, id and overlap. Make it with python -m evaluation.leakage.")
        shares.setdefault(str(row["task"]), {})[str(row["id"])] = np.nan if row["overlap"] is None else float(row["overlap"])
    if not set(shares) & set(report.tasks):
        raise UserError(f"{path}: has {', '.join(sorted(shares))}, none of the tasks {', '.join(report.tasks)}.")
    for (_, task), cell in report.cells.items():
        if task not in shares:
            continue
        ids = [str(row["id"]) for row in cell.runs[0].rows]
        unknown = [i for i in ids if i not in shares[task]]
        if unknown:
            shown = ", ".join(unknown[:3])
            raise UserError(f"{path}: no overlap for {len(unknown)} examples of {task} (ids {shown}). Create it again.")
        numbers = [run.scored["per_example"] for run in cell.runs]
        overlap = np.array([shares[task][i] for i in ids])
        average = cell.runs[0].scored["average"]
        cell.clean = overlap_slices(numbers, average, report.metrics[task], overlap, report.groups[task])


def _average(estimates: Sequence[Estimate]) -> Average:
    """The mean of independent scores; its t quantile has Satterthwaite's degrees of freedom, like those of the scores."""
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
        row = [report.cells.get((model, task)) for task in report.tasks if task not in report.transfer_tasks]
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
