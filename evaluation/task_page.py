"""One task of the page: all metrics, slices with intervals, calibration, confusions and mistakes."""

from collections import Counter
from html import escape

import numpy as np

from evaluation.details import Detail, calibration_rows
from evaluation.plots import parts_plot, reliability_plot
from evaluation.results import DECODING, Cell, Report
from evaluation.tables import plain_table, points, slice_rows
from tasks.base import kind_of

MATRIX_CLASSES = 16  # with more classes only the most frequent confusions are listed
LISTED = 15  # confusions in that list


def task_section(report: Report, task: str, details: dict[tuple[str, str], Detail]) -> str:
    """The section's HTML."""
    cells = [report.cells[model, task] for model in report.models if (model, task) in report.cells]
    own = {cell.model: details[cell.model, task] for cell in cells}
    kind = report.kinds[task]
    out = f"<h3>{escape(task)}</h3><p class=quiet>{escape(_facts(report, task, cells))}</p>"
    out += f"<details open><summary>All metrics</summary>{plain_table(_metrics(cells, kind_of(kind).plain))}</details>"
    out += _parts(report, task, own, details)
    rows = calibration_rows(report, details, task)
    if rows:
        curves = {cell.model: own[cell.model].calibration.curve for cell in cells if own[cell.model].calibration}
        trained = {cell.model for cell in cells if not cell.baseline}
        shown = {model: curve for model, curve in curves.items() if model in trained} or curves
        note = (
            "ECE (15 bins) and its floor in points: the ECE of a perfectly calibrated model with these confidences on as "
            "many examples, mean and 95 % point. The temperature is fitted on dev."
        )
        out += f'<details><summary>Calibration</summary><p class="quiet">{note}</p>{plain_table(rows)}'
        out += f"<figure><figcaption>Reliability, all seeds</figcaption>{reliability_plot(shown)}</figure></details>"
    errors = ""
    for cell in cells:
        found = _confusion(cell, kind, report.labels[task]) + _outcomes(own[cell.model])
        errors += f"<details><summary>{escape(cell.model)}</summary>{found}</details>"
    return out + f"<details><summary>Where each model errs</summary>{errors}</details>"


def _facts(report: Report, task: str, cells: list[Cell]) -> str:
    groups = report.groups[task]
    many = f" in {len(set(groups))} groups" if groups else ""
    facts = f"{report.kinds[task]}, {len(cells[0].runs[0].rows)} test examples{many}. "
    seeds = {len(cell.runs) for cell in cells if not cell.baseline}
    counts = ", ".join(f"{cell.model} {len(cell.runs)}" for cell in cells if not cell.baseline)
    facts += f"{seeds.pop()} seeds a model." if len(seeds) == 1 else f"Seeds: {counts}." if seeds else "Baselines only."
    cut = [(cell.model, 100 * np.mean([bool(row.get("truncated")) for row in cell.runs[0].rows])) for cell in cells]
    truncated = "; ".join(f"{model} {share:.1f} %" for model, share in cut if share >= 0.05)
    facts += f" Truncated: {truncated}." if truncated else ""
    for key, what in DECODING.items():
        if any(run.summary.get(key) for cell in cells for run in cell.runs):
            facts += f" {what[0].upper()}{what[1:]}."
    return facts


def _metrics(cells: list[Cell], plain: tuple[str, ...]) -> list[list[str]]:
    means = [cell.mean_metrics() for cell in cells]
    rows = [["metric", *(cell.model for cell in cells)]]
    for name in dict.fromkeys(name for mean in means for name in mean if "=" not in name):  # those are in the slices
        form = "{:.1f}".format if name in plain else points
        rows.append([name, *("" if mean.get(name) is None else form(mean[name]) for mean in means)])
    return rows


def _parts(report: Report, task: str, own: dict[str, Detail], details: dict[tuple[str, str], Detail]) -> str:
    """The table of slices, and a plot for each ordered division (length, frequency in training, options)."""
    rows = slice_rows(report, details, task)
    if not rows:
        return ""
    plot = ""
    for by in ("length, words", kind_of(report.kinds[task]).frequency_of, "options"):
        found = {
            model: [(part.part, part.estimate) for part in detail.slices if part.by == by and part.estimate is not None]
            for model, detail in own.items()
        }
        found = {model: parts for model, parts in found.items() if len(parts) > 1}
        if found:
            measure = next(part.metric for detail in own.values() for part in detail.slices if part.by == by)
            chart = parts_plot(found, by, measure)
            plot += f"<figure><figcaption>By {escape(by)}</figcaption>{chart}</figure>"
    table = plain_table(rows)
    return f'<details><summary>Parts, with 95 % intervals</summary>{table}<div class="plots">{plot}</div></details>'


def _outcomes(detail: Detail) -> str:
    return plain_table([["outcome", "per run"], *([what, f"{count:.1f}"] for what, count in detail.outcomes)])


def _confusion(cell: Cell, kind: str, labels: list[str] | None) -> str:
    """A matrix if it fits, and the most frequent confusions; "" for kinds without classes."""
    if not kind_of(kind).classes:
        return ""
    counts = Counter((str(row["gold"]), str(row["pred"])) for run in cell.runs for row in run.rows)
    names = [str(x) for x in labels] if labels else sorted({label for pair in counts for label in pair})
    if len(names) <= MATRIX_CLASSES:
        return _matrix(counts, names, len(cell.runs))
    wrong = sorted(((n, g, p) for (g, p), n in counts.items() if g != p), key=lambda item: (-item[0], item[1:]))[:LISTED]
    return plain_table([["gold", "predicted", "per run"], *([g, p, f"{n / len(cell.runs):.1f}"] for n, g, p in wrong)])


def _matrix(counts: Counter, names: list[str], seeds: int) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = ""
    for gold in names:
        total = sum(counts[gold, pred] for pred in names)
        body += f"<tr><td>{escape(gold)}</td>"
        for pred in names:
            share = counts[gold, pred] / total if total else 0.0
            colour = "--accent" if gold == pred else "--mark"
            shade = f"background: color-mix(in srgb, var({colour}) {round(70 * share)}%, transparent)"
            body += f'<td style="{shade}">{counts[gold, pred] / seeds:.3g}</td>'
        body += "</tr>"
    note = "Rows: gold; columns: predicted; mean count per seed, shaded by the row's share."
    return (
        f'<div class="wide"><table class="matrix"><thead><tr><th></th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
        f'<p class="quiet">{note}</p>'
    )
