"""The result table as terminal text, Markdown, CSV and LaTeX, and plain tables of the page."""

import csv
import io
from functools import partial
from typing import Any

from common.html import table
from common.tables import formula_free
from evaluation.costs import cost_rows, tuning_rows
from evaluation.details import Detail, calibration_rows
from evaluation.published import notes, published_average, published_rows
from evaluation.results import Cell, Report
from tasks.metrics import above_chance

LEGEND = (
    "Mean over seeds ± half of the 95 % interval over seeds and test examples, in points; [low, high] where it ends at 0 or "
    "100. * best of the task, ~ not distinguishable from the best (paired test, Holm over the table, 5 %), † seeds missing, "
    "‡ degenerate runs."
)
METHOD = (
    "Intervals treat seeds and test examples as crossed random factors; F1 scores are bootstrapped over examples "
    "(2,000 resamples, the same for every model). Examples of one group (the questions of one context, the pairs of one "
    "document) are resampled together if the predictions name it. A baseline has one run and no seed variance. Tied "
    "means that a paired test finds no difference at 5 % after Holm's correction over all comparisons of the table. The "
    "average is over tasks, and only for models that are complete on all of them; test sets on which models of another task "
    "were only evaluated are excluded."
)
PUBLISHED = "Published, not re-run: printed by others on splits and with averages of F1 that may differ from ours."


def marks(cell: "Cell") -> str:
    """* best, ~ tied, † seeds missing, ‡ a degenerate run."""
    return (
        {"best": "*", "tied": "~"}.get(cell.mark, "")
        + ("†" if cell.missing else "")
        + ("‡" if any(run.degenerate for run in cell.runs) else "")
    )


def points(value: float) -> str:
    """A score in points with one decimal."""
    return f"{100 * value:.1f}"


def terminal(report: "Report") -> str:
    """The table with aligned columns and a legend."""
    header = ["model", *report.tasks, "average"]
    below = ["", *(report.metrics[task] for task in report.tasks), ""]
    body = []
    for model in report.models:
        line = [model]
        for task in report.tasks:
            cell = report.cells.get((model, task))
            line.append(f"{points(cell.estimate.value)} {cell.spread.replace('± ', '±')} {marks(cell):<2}" if cell else "–   ")
        average = report.averages[model]
        body.append([*line, f"{points(average.value)} {average.spread.replace('± ', '±')}" if average else "–"])
    ours = len(body)
    for model, row in published_rows(report.tasks).items():
        cells = [f"{row[task].text}    " if task in row else "–   " for task in report.tasks]
        average = published_average(model, report.tasks)
        body.append([f"[{model}]", *cells, f"{average:.2f}" if average else "–"])
    widths = [
        max(len(row[i].rstrip()) if i == 0 else len(row[i]) for row in (header, below, *body)) for i in range(len(header))
    ]

    def render(row: list[str]) -> str:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        return "  ".join(cells).rstrip()

    rule = "─" * (sum(widths) + 2 * (len(widths) - 1))
    lines = [report.title, rule, render(header), render(below), rule, *map(render, body[:ours]), rule]
    if len(body) > ours:
        lines += [*map(render, body[ours:]), rule, f"[ ] {PUBLISHED}"]
    lines.append(LEGEND)
    return "\n".join(lines + [f"! {problem}" for problem in report.problems])


def markdown(report: "Report", details: dict[tuple[str, str], Detail]) -> str:
    """The table with published rows, clean parts, calibration, costs and notes in Markdown."""
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
            row.append(f"{value} {cell.spread}{marks(cell).replace('*', '').replace('~', ' ~')}")
        average = report.averages[model]
        row.append(f"{points(average.value)} {average.spread}" if average else "–")
        lines.append("| " + " | ".join(row) + " |")
    for model, row in published_rows(report.tasks).items():
        cells = [f"*{row[task].text}*" if task in row else "–" for task in report.tasks]
        average = published_average(model, report.tasks)
        lines.append(f"| *{_md(model)}, published* | {' | '.join(cells)} | {f'*{average}*' if average else '–'} |")
    lines += ["", LEGEND.replace("*", "Bold:").replace("~", r"\~"), "", METHOD, ""]
    remarks = notes(report.tasks, report.metrics)
    if remarks:
        lines += [f"{PUBLISHED} In italics above; not tested, not averaged:", "", *(f"- {_md(note)}" for note in remarks), ""]
    lines += _md_table("Differences from the best, points", difference_rows(report))
    lines += _md_table("Clean and seen test items", clean_rows(report))
    for task in report.tasks:
        lines += _md_table(f"Calibration on {task}, points", calibration_rows(report, details, task))
    lines += _md_table("Cost", cost_rows(report)) + _md_table("Tuning", tuning_rows(report))
    if report.problems:
        lines += ["## Notes", "", *(f"- {_md(problem)}" for problem in report.problems), ""]
    return "\n".join(lines)


def _md_table(title: str, rows: list[list[str]]) -> list[str]:
    if not rows:
        return []
    lines = [f"## {_md(title)}", "", "| " + " | ".join(rows[0]) + " |", "|---|" + "---:|" * (len(rows[0]) - 1)]
    return lines + ["| " + " | ".join(_md(cell) for cell in row) + " |" for row in rows[1:]] + [""]


def _md(text: str) -> str:
    for letter in "\\|*_`<>[]":
        text = text.replace(letter, {"<": "&lt;", ">": "&gt;"}.get(letter, "\\" + letter))
    return " ".join(text.split())


def _write_row(writer: Any, row: list[Any]) -> None:
    writer.writerow(formula_free(row))


def csv_table(report: "Report") -> str:
    """One line per (model, task, metric) with full precision; the interval is given for the headline metric."""
    out = io.StringIO()
    write = partial(_write_row, csv.writer(out, lineterminator="\n"))
    write(
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
            "below_best",
            "below_best_low",
            "below_best_high",
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
                    row += [f"{v:.10g}" for v in (cell.gap.value, cell.gap.low, cell.gap.high)] if cell.gap else ["", "", ""]
                else:
                    row += [0, f"{value:.10g}", "", "", "", len(cell.runs), "", "", "", "", "", "", ""]
                write(row)
    for model, row in published_rows(report.tasks).items():
        for task, entry in row.items():
            kind, score = report.kinds[task], f"{entry.score / 100:.4g}"
            write([model, task, kind, entry.source, 0, score, "", "", "", "", "", "published", "", "", "", "", ""])
    return out.getvalue()


def details_csv(report: "Report", details: dict[tuple[str, str], Detail]) -> str:
    """One line per number below the table: slices with intervals, calibration, outcomes per run."""
    out = io.StringIO()
    write = partial(_write_row, csv.writer(out, lineterminator="\n"))
    write(["model", "task", "what", "part", "measure", "examples", "value", "low", "high"])
    for (model, task), detail in sorted(details.items()):
        for part in [*report.cells[model, task].clean, *detail.slices]:
            e = part.estimate
            values = ["", "", ""] if e is None else [f"{v:.10g}" for v in (e.value, e.low, e.high)]
            write([model, task, part.by, part.part, part.metric, part.examples, *values])
        if detail.calibration is not None:
            for name, value in vars(detail.calibration).items():
                if isinstance(value, float):
                    write([model, task, "calibration", "", name, "", f"{value:.10g}", "", ""])
        for what, count in detail.outcomes:
            write([model, task, "outcome", what, "per run", "", f"{count:.10g}", "", ""])
    return out.getvalue()


def clean_rows(report: "Report") -> list[list[str]]:
    """The headline on the whole, the clean and the seen part as text, header first; [] without an overlap file."""
    rows = []
    for task in report.tasks:
        for model in report.models:
            cell = report.cells.get((model, task))
            if cell is None or not cell.clean:
                continue
            found = {part.part.split(":")[0].split(" ")[0]: part for part in cell.clean}
            shown = [_part_text(found[name]) if name in found else "none" for name in ("clean", "seen", "too")]
            rows.append([task, model, f"{points(cell.estimate.value)} {cell.spread}", *shown])
    return [["task", "model", "whole", "clean", "seen", "too short to tell"], *rows] if rows else []


def difference_rows(report: "Report") -> list[list[str]]:
    """Difference of each model from the best of its task, with interval and p, as text, header first; [] for one model."""
    rows = []
    for task in report.tasks:
        column = [report.cells[model, task] for model in report.models if (model, task) in report.cells]
        best = next((cell.model for cell in column if cell.mark == "best"), "")
        for cell in column:
            if cell.gap is not None:
                shown = f"{points(cell.gap.value)} [{points(cell.gap.low)}, {points(cell.gap.high)}]"
                rows.append([task, best, cell.model, shown, f"{cell.p:.3f}" if cell.p >= 0.001 else "< 0.001"])
    return [["task", "best", "model", "below the best by", "p after Holm"], *rows] if rows else []


def slice_rows(report: "Report", details: dict[tuple[str, str], Detail], task: str) -> list[list[str]]:
    """Slices of one task as text, header first: a row for each slice, a column for each model; counts are of gold items."""
    models = [model for model in report.models if (model, task) in details]
    table: dict[tuple[str, str], dict[str, Any]] = {}
    for model in models:
        for part in details[model, task].slices:
            table.setdefault((part.by, part.part), {})[model] = part
    rows = []
    for (by, name), parts in table.items():
        first = next(iter(parts.values()))
        cells = [_score_text(parts.get(model)) for model in models]
        rows.append([by, name, str(first.examples), first.metric, *cells])
        if by == "options" and int(name) > 1:
            chance = 1 / int(name)
            above = [parts[m].estimate and points(above_chance(parts[m].estimate.value, chance)) for m in models]
            rows.append([by, name, str(first.examples), "accuracy above chance", *(value or "too few" for value in above)])
    return [["by", "part", "items", "measure", *models], *rows] if rows else []


def _score_text(part: Any) -> str:
    if part is None:
        return "–"
    if part.estimate is None:
        return "too few"
    e = part.estimate
    return f"{points(e.value)} [{points(e.low)}, {points(e.high)}]"


def _part_text(part: Any) -> str:
    return f"{_score_text(part)}, n = {part.examples}"


def latex(report: "Report") -> str:
    """A booktabs table: best in bold, tied models underlined."""
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
            row.append(value + _tex_spread(cell.spread) + (f"$^{{{extra}}}$" if extra else ""))
        average = report.averages[model]
        row.append(points(average.value) + _tex_spread(average.spread) if average else "--")
        lines.append(" & ".join(row) + r" \\")
    found = published_rows(report.tasks)
    if found:
        lines.append(r"\midrule")
        lines.append(rf"\multicolumn{{{len(report.tasks) + 2}}}{{l}}{{\textit{{{_tex(PUBLISHED)}}}}} \\")
    for model, row in found.items():
        cells = [rf"\textit{{{row[task].text}}}" if task in row else "--" for task in report.tasks]
        average = published_average(model, report.tasks)
        lines.append(" & ".join([_tex(model), *cells, rf"\textit{{{average}}}" if average else "--"]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _tex_spread(spread: str) -> str:
    """± half or [low, high], small."""
    return r"{\scriptsize$\," + spread.replace("± ", r"\pm\,").replace(", ", r",\,") + "$}"


def _tex(text: str) -> str:
    known = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(known.get(letter, "\\" + letter if letter in "&%$#_{}" else letter) for letter in text)


def plain_table(rows: list[list[str]]) -> str:
    """A sortable table of the page, from text cells, header first."""
    return table(rows, "sortable")
