"""Cost of the models: fine-tuning, tuning and pre-training hours, energy, memory, parameters, tokens.

A quantity that no run measured is reported as "not measured", never as 0.
"""

import math
from typing import Any

from evaluation.results import Average, Report, Run

NOT_MEASURED = "not measured"
UNKNOWN, SUMS = "incomplete", ("average", "total", "front")  # a sum with a missing number


def costs(report: Report) -> list[dict[str, Any]]:
    """One row for each trained model; a sum is None unless every run has the number."""
    rows = []
    for model in report.models:
        own = [cell for (name, task), cell in report.cells.items() if name == model and task not in report.transfer_tasks]
        runs = [run for cell in own if not cell.baseline for run in cell.runs]
        if not runs:
            continue
        tuning = [found for (name, _), found in sorted(report.tuning.items()) if name == model]
        pretraining = _values(runs, "pretraining_hours")
        before = max(pretraining) if pretraining else None
        known, unknown = _behind(runs)
        spent, searched = _sum(runs, "hours"), _tuning_hours(tuning) if tuning else 0.0
        teacher_hours = max(0.0, known - (before or 0.0))
        whole = None if spent is None or searched is None else spent + searched + (before or 0.0) + teacher_hours
        rows.append(
            {
                "model": model,
                "runs": len(runs),
                "hours": spent,
                "tuning_runs": sum(found.get("runs") or 0 for found in tuning) if tuning else None,
                "tuning_hours": _tuning_hours(tuning),
                "pretraining_hours": before,
                # Hours of the fine-tuned teachers and of their pre-training, unless this model includes that already.
                "teacher_hours": teacher_hours if any(run.summary.get("teacher") for run in runs) else None,
                "total_hours": whole,
                "unknown": bool(unknown) or before is None,  # an earlier run was not measured: the total is a lower bound
                "energy_kwh": _sum(runs, "energy_kwh"),
                "peak_memory_bytes": max(_values(runs, "peak_memory_bytes"), default=None),
                "trainable_parameters": max(_values(runs, "trainable_parameters"), default=None),
                "train_tokens": _sum(runs, "train_tokens"),
            }
        )
    return rows


def _behind(runs: list[Run]) -> tuple[float, list[str]]:
    """Hours of all earlier runs (pre-training, teachers), each counted once, and the runs that were not measured."""
    ledger: dict[str, Any] = {}
    for run in runs:
        ledger |= run.summary.get("ledger") or {}
    known = [hours for hours in ledger.values() if isinstance(hours, int | float)]
    return float(sum(known)), sorted(name for name, hours in ledger.items() if not isinstance(hours, int | float))


def front(points: dict[str, tuple[float, Average]]) -> list[str]:
    """The models that no other beats in score with the same hours or fewer, cheapest first; {model: (hours, score)}."""
    best, kept = float("-inf"), []
    for model, (_, score) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1].value, item[0])):
        if score.value > best:
            best = score.value
            kept.append(model)
    return kept


def cost_points(report: Report) -> dict[str, tuple[float, Average]]:
    """{model: (all hours, average score)} of every complete model with known hours."""
    points = {}
    for row in costs(report):
        average = report.averages[row["model"]]
        if average and row["total_hours"]:
            points[row["model"]] = (row["total_hours"], average)
    return points


def _values(runs: list[Run], key: str) -> list[float]:
    found = (run.summary.get(key) for run in runs)
    return [value for value in found if isinstance(value, int | float) and not isinstance(value, bool)]


def _sum(runs: list[Run], key: str) -> float | None:
    values = _values(runs, key)
    return sum(values) if len(values) == len(runs) else None


def _tuning_hours(tuning: list[dict[str, Any]]) -> float | None:
    hours = [found.get("hours") for found in tuning]
    return sum(hours) if hours and all(isinstance(value, int | float) for value in hours) else None


def cost_rows(report: Report) -> list[list[str]]:
    """The cost table as text, header first; [] without a trained model. Tuning and pre-training only if known."""
    found = costs(report)
    on_front = front(cost_points(report))
    for row in found:
        average = report.averages[row["model"]]
        row["average"] = average and f"{100 * average.value:.1f} {average.spread}"
        row["front"] = ("yes" if row["model"] in on_front else "no") if average and row["total_hours"] else None
        row["total"] = row["total_hours"] and f"{'at least ' if row['unknown'] else ''}{row['total_hours']:.3g}"
    columns = [
        ("model", "model", str),
        ("runs", "runs", str),
        ("hours, all runs", "hours", "{:.3g}".format),
        ("tuning runs", "tuning_runs", str),
        ("tuning hours", "tuning_hours", "{:.3g}".format),
        ("pre-training hours", "pretraining_hours", "{:.3g}".format),
        ("teacher's hours", "teacher_hours", "{:.3g}".format),
        ("energy, kWh", "energy_kwh", "{:.3g}".format),
        ("peak memory, GiB", "peak_memory_bytes", lambda value: f"{value / 2**30:.2f}"),
        ("trainable parameters", "trainable_parameters", "{:,.0f}".format),
        ("training tokens", "train_tokens", "{:,.0f}".format),
        ("hours of everything", "total", str),
        ("average score", "average", str),
        ("none better for less", "front", str),
    ]
    optional = ("tuning_runs", "tuning_hours", "pretraining_hours", "teacher_hours")
    columns = [c for c in columns if c[1] not in optional or any(row[c[1]] is not None for row in found)]

    def shown(row: dict[str, Any], key: str, form: Any) -> str:
        if row[key] is None:
            return {"tuning_runs": "no tuning", "teacher_hours": "none"}.get(key, UNKNOWN if key in SUMS else NOT_MEASURED)
        return form(row[key])

    body = [[shown(row, key, form) for _, key, form in columns] for row in found]
    return [[head for head, _, _ in columns], *body] if found else []


def tuning_rows(report: Report) -> list[list[str]]:
    """The search and its choice for each model and task as text, header first; [] without tuning."""
    rows = []
    for (model, task), found in sorted(report.tuning.items()):
        grid = "; ".join(f"{key}: {', '.join(map(str, values))}" for key, values in (found.get("grid") or {}).items())
        chosen = "; ".join(f"{key} {value}" for key, value in (found.get("chosen") or {}).items())
        seeds = ", ".join(map(str, found.get("seeds") or []))
        hours = found.get("hours")
        spent = f"{hours:.3g}" if isinstance(hours, int | float) else NOT_MEASURED
        curve = ", ".join(f"{100 * value:.1f}" for value in expected_best(found)) or NOT_MEASURED
        rows.append([model, task, grid, seeds, str(found.get("runs", NOT_MEASURED)), spent, chosen, curve])
    return (
        [
            ["model", "task", "searched", "seeds", "runs", "hours", "chosen", "best dev score of 1, 2, … settings, expected"],
            *rows,
        ]
        if rows
        else []
    )


def expected_best(found: dict[str, Any]) -> list[float]:
    """The budget curve: expected best dev score of k settings drawn from the grid without replacement, k = 1, 2, …

    A setting's score is its mean over the tuning seeds; one that diverged counts as 0.
    """
    means = sorted(
        0.0 if None in scores or not scores else sum(scores) / len(scores) for scores in (found.get("scores") or {}).values()
    )
    n = len(means)
    return [sum(mean * math.comb(place, k - 1) for place, mean in enumerate(means)) / math.comb(n, k) for k in range(1, n + 1)]


def tuning_problems(report: Report) -> list[str]:
    """Unequal tuning budgets between the models of a task, and tuning on a final seed."""
    problems = []
    for task in report.tasks:
        budgets: dict[str, list[str]] = {}
        for (model, name), cell in sorted(report.cells.items()):
            if name != task or cell.baseline:
                continue
            found = report.tuning.get((model, task))
            budgets.setdefault(_budget(found), []).append(model)
            shared = sorted(set((found or {}).get("seeds") or []) & {run.seed for run in cell.runs})
            if shared:
                problems.append(
                    f"{model} on {task}: tuned on seed {', '.join(map(str, shared))}, which is also a final seed; its "
                    "score is slightly too high"
                )
        if len(budgets) > 1:
            listed = "; ".join(f"{', '.join(models)}: {budget}" for budget, models in sorted(budgets.items()))
            problems.append(f"{task}: the models were not tuned alike ({listed}); compare with care")
    return problems


def _budget(found: dict[str, Any] | None) -> str:
    if not found:
        return "not tuned"
    sizes = " x ".join(f"{len(values)} {key}" for key, values in sorted((found.get("grid") or {}).items()))
    return f"{sizes or 'no grid'}, {found.get('runs')} runs"
