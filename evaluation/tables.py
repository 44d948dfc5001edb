"""The result table as terminal text, Markdown, CSV and LaTeX."""

import csv
import io
from typing import Any

from evaluation.results import Cell, Report, costs

LEGEND = (
    "Mean over seeds ± half of the 95 % interval over seeds and test examples, in points. * best of the task, ~ not "
    "distinguishable from the best (paired test, Holm over the table, 5 %), † seeds missing, ‡ degenerate runs."
)
METHOD = (
    "Intervals treat seeds and test examples as crossed random factors; F1 scores are bootstrapped over examples "
    "(2,000 resamples, the same for every model). A baseline has one run and no seed variance. The average is over "
    "tasks, and only for models that are complete on all of them."
)


def marks(cell: "Cell") -> str:
    """* best, ~ tied, † seeds missing, ‡ some run degenerate."""
    return (
        {"best": "*", "tied": "~"}.get(cell.mark, "")
        + ("†" if cell.missing else "")
        + ("‡" if any(run.degenerate for run in cell.runs) else "")
    )


def points(value: float) -> str:
    """A score in points with one decimal."""
    return f"{100 * value:.1f}"


def half_width(cell: "Cell") -> float:
    """Half of the 95 % interval (a clipped interval is not symmetric: its wider side)."""
    estimate = cell.estimate
    return max(estimate.high - estimate.value, estimate.value - estimate.low)


def terminal(report: "Report") -> str:
    """The table with aligned columns and a legend."""
    header = ["model", *report.tasks, "average"]
    below = ["", *(report.metrics[task] for task in report.tasks), ""]
    body = []
    for model in report.models:
        line = [model]
        for task in report.tasks:
            cell = report.cells.get((model, task))
            line.append(f"{points(cell.estimate.value)} ±{points(half_width(cell))} {marks(cell):<2}" if cell else "–   ")
        average = report.averages[model]
        body.append([*line, f"{points(average[0])} ±{points(average[1])}" if average else "–"])
    widths = [
        max(len(row[i].rstrip()) if i == 0 else len(row[i]) for row in (header, below, *body)) for i in range(len(header))
    ]

    def render(row: list[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [report.title, rule, render(header), render(below), rule, *map(render, body), rule, LEGEND]
    return "\n".join(lines + [f"! {problem}" for problem in report.problems])


def markdown(report: "Report") -> str:
    """The table, the costs and the notes in Markdown."""
    lines = [f"# {_md(report.title)}", ""]
    lines.append("| model | " + " | ".join(f"{_md(t)}<br>{report.metrics[t]}" for t in report.tasks) + " | average |")
    lines.append("|---|" + "---:|" * (len(report.tasks) + 1))
    for model in report.models:
        row = [_md(model)]
        for task in report.tasks:
            cell = report.cells.get((model, task))
            if cell is None:
                row.append("–")
                continue
            value = points(cell.estimate.value)
            value = f"**{value}**" if cell.mark == "best" else value
            row.append(f"{value} ± {points(half_width(cell))}{marks(cell).replace('*', '').replace('~', ' ~')}")
        average = report.averages[model]
        row.append(f"{points(average[0])} ± {points(average[1])}" if average else "–")
        lines.append("| " + " | ".join(row) + " |")
    lines += ["", LEGEND.replace("*", "Bold:").replace("~", r"\~"), "", METHOD, ""]
    rows = cost_rows(report)
    if rows:
        lines += ["## Cost", "", "| " + " | ".join(rows[0]) + " |", "|---|" + "---:|" * (len(rows[0]) - 1)]
        lines += ["| " + " | ".join(_md(cell) for cell in row) + " |" for row in rows[1:]] + [""]
    if report.problems:
        lines += ["## Notes", "", *(f"- {_md(problem)}" for problem in report.problems), ""]
    return "\n".join(lines)


def _md(text: str) -> str:
    for letter in "\\|*_`<>[]":
        text = text.replace(letter, {"<": "&lt;", ">": "&gt;"}.get(letter, "\\" + letter))
    return " ".join(text.split())


def csv_table(report: "Report") -> str:
    """One line per (model, task, metric) with full precision; the interval stands at the headline metric."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(
        [
            "model",
            "task",
            "kind",
            "metric",
            "headline",
            "score",
            "low",
            "high",
            "se",
            "seeds",
            "missing",
            "mark",
            "p_holm",
            "degenerate",
        ]
    )
    for model in report.models:
        for task in report.tasks:
            cell = report.cells.get((model, task))
            if cell is None:
                continue
            for metric, value in cell.mean_metrics().items():
                row: list[Any] = [model, task, report.kinds[task], metric]
                if metric == report.metrics[task]:
                    e = cell.estimate
                    p = "" if cell.p != cell.p else f"{cell.p:.6g}"
                    row += [1, *(f"{v:.10g}" for v in (e.value, e.low, e.high, e.se)), len(cell.runs)]
                    row += [" ".join(map(str, cell.missing)), cell.mark, p, sum(run.degenerate for run in cell.runs)]
                else:
                    row += [0, f"{value:.10g}", "", "", "", len(cell.runs), "", "", "", ""]
                writer.writerow(row)
    return out.getvalue()


def latex(report: "Report") -> str:
    """A booktabs table: best in bold, tied with it underlined."""
    lines = [r"\begin{tabular}{l" + "r" * (len(report.tasks) + 1) + "}", r"\toprule"]
    lines.append(" & ".join(["Model", *map(_tex, report.tasks), "Average"]) + r" \\")
    lines.append(" & ".join(["", *(_tex(report.metrics[task]) for task in report.tasks), ""]) + r" \\")
    lines.append(r"\midrule")
    for model in report.models:
        row = [_tex(model)]
        for task in report.tasks:
            cell = report.cells.get((model, task))
            if cell is None:
                row.append("--")
                continue
            value = points(cell.estimate.value)
            value = {"best": rf"\textbf{{{value}}}", "tied": rf"\underline{{{value}}}"}.get(cell.mark, value)
            extra = (r"\dagger" if cell.missing else "") + (r"\ddagger" if "‡" in marks(cell) else "")
            row.append(rf"{value}{{\scriptsize$\,\pm\,{points(half_width(cell))}$}}" + (f"$^{{{extra}}}$" if extra else ""))
        average = report.averages[model]
        row.append(rf"{points(average[0])}{{\scriptsize$\,\pm\,{points(average[1])}$}}" if average else "--")
        lines.append(" & ".join(row) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex(text: str) -> str:
    known = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(known.get(letter, "\\" + letter if letter in "&%$#_{}" else letter) for letter in text)


def cost_rows(report: "Report") -> list[list[str]]:
    """The cost table as text, header first; what no run measured says so and is never 0."""

    def shown(value: float | None, form: str) -> str:
        return "not measured" if value is None else form.format(value)

    rows = [
        [
            row["model"],
            str(row["runs"]),
            shown(row["hours"], "{:.3g}"),
            shown(row["energy_kwh"], "{:.3g}"),
            shown(None if row["peak_memory_bytes"] is None else row["peak_memory_bytes"] / 2**30, "{:.2f}"),
            shown(row["trainable_parameters"], "{:,.0f}"),
            shown(row["train_tokens"], "{:,.0f}"),
        ]
        for row in costs(report)
    ]
    head = [
        "model",
        "runs",
        "hours, all runs",
        "energy, kWh",
        "peak memory, GiB",
        "trainable parameters",
        "training tokens",
    ]
    return [head, *rows] if rows else []
