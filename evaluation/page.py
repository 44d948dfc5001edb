"""The report as one HTML file: no network, a small script only for filters, readable in light and dark and in print."""

from html import escape
from typing import Any

from common.html import SORT, page, table
from corpus.pages.page import COLOURS, named, outcomes_plot
from corpus.pages.page import verdict as corpus_verdict
from corpus.pages.terminal import summary_rows
from evaluation.browser import SCRIPT, browser
from evaluation.costs import cost_points, cost_rows, front, tuning_rows
from evaluation.details import Detail
from evaluation.plots import cost_plot, score_bars
from evaluation.published import notes, published_average, published_rows
from evaluation.results import Cell, Report
from evaluation.tables import METHOD, PUBLISHED, clean_rows, difference_rows, plain_table, points
from evaluation.task_page import task_section
from training.page import STYLE as CURVES
from training.page import pretraining_section

STYLE = """
td:first-child { white-space: nowrap; } .errors td:first-child { white-space: normal; }
tr.baseline td { color: var(--muted); } td.score { white-space: nowrap; }
.best { font-weight: 700; color: var(--ink); } .tied { text-decoration: underline dotted; text-underline-offset: 3px; }
sup { color: var(--mark); font-weight: 700; }
.plots { display: grid; gap: 1rem 2rem; grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr)); }
.plots svg { max-width: 36rem; }
.matrix td { text-align: center; min-width: 2.4rem; } .matrix th { font-weight: 500; }
.errors th, .errors td { text-align: left; } .errors td.text { white-space: normal; }
ul.notes { max-width: 56rem; padding-left: 1.2rem; } ul.notes li { margin: .25rem 0; }
#filters { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: baseline; font-size: .9rem; margin: .6rem 0 1rem; }
#filters[hidden] { display: none; } input, select { font: inherit; max-width: 100%; }
tr.published td { font-style: italic; color: var(--muted); }
"""


def verdict(report: Report) -> str:
    """One sentence that summarises the table, as text."""
    trained = [
        model for model in report.models if not all(c.baseline for (name, _), c in report.cells.items() if name == model)
    ]
    averaged = [(report.averages[model], model) for model in trained if report.averages[model]]
    if not averaged:
        return "Baselines only." if not trained else "No model has all its runs on all tasks, so none is ranked."
    value, best = max(averaged, key=lambda pair: (pair[0].value, pair[1]))
    said = f"{best} has {points(value.value)} points on average over {len(report.tasks) - len(report.transfer_tasks)} tasks"
    said += f" ({points(value.low)} to {points(value.high)})"
    floors = [(report.averages[m].value, m) for m in report.models if m not in trained and report.averages[m]]
    if floors and max(floors)[0] >= value.value:
        return f"No trained model is above the baseline {max(floors)[1]} ({points(max(floors)[0])}): {said}."
    rest = sorted((pair for pair in averaged if pair[1] != best), key=lambda pair: -pair[0].value)
    if not rest:
        return f"{said}{f'; the best baseline has {points(max(floors)[0])}' if floors else ''}."
    return f"{said}, the best of {len(averaged)} models; next is {rest[0][1]} with {points(rest[0][0].value)}."


def html_page(
    report: "Report",
    details: dict[tuple[str, str], Detail],
    curves: dict[str, Any],
    corpus: Any = None,
    origin: dict[str, str] | None = None,
) -> str:
    """The whole page. All text from data or folders is escaped. `origin`: date, commit, command and machine of the runs."""
    runs = sum(len(cell.runs) for cell in report.cells.values())
    sections = [("results", "Results", _results(report)), ("scores", "Scores by task", _bars(report))]
    if curves:
        sections.append(("pretraining", "Pre-training", pretraining_section(curves)))
    if corpus is not None:
        sections.append(("corpus", "Corpus", _corpus(corpus)))
    if clean_rows(report):
        note = "Clean: items with less than 20 % of their words in runs that the pre-training corpus also contains."
        sections.append(("clean", "Clean and seen test items", f'<p class="quiet">{note}</p>{plain_table(clean_rows(report))}'))
    if cost_rows(report):
        sections.append(("cost", "Cost", _cost(report)))
    sections.append(("detail", "Task by task", "".join(task_section(report, task, details) for task in report.tasks)))
    sections.append(("browser", "Error browser", browser(report, details)))
    if report.problems:
        notes = "".join(f"<li>{escape(problem)}</li>" for problem in report.problems)
        sections.append(("notes", "What to know about these runs", f'<ul class="notes">{notes}</ul>'))
    sections.append(("method", "How it is computed", f"<p>{escape(METHOD)}</p>"))
    lead = f"<p>{escape(verdict(report))}</p>"
    lead += f'<p class="quiet">{len(report.models)} models, {len(report.tasks)} tasks, {runs} runs. '
    lead += "Scores in points with 95 % intervals.</p>"
    return page(report.title, lead, sections, CURVES + STYLE + COLOURS, SORT + SCRIPT, origin)


# ---------------------------------------------------------------- results


def _results(report: "Report") -> str:
    head = "".join(f"<th>{escape(task)}<br><small>{escape(report.metrics[task])}</small></th>" for task in report.tasks)
    rows = []
    for model in report.models:
        own = [cell for (name, _), cell in report.cells.items() if name == model]
        style = ' class="baseline"' if all(cell.baseline for cell in own) else ""
        cells = "".join(f"<td class=score>{_score(report.cells.get((model, task)))}</td>" for task in report.tasks)
        average = report.averages[model]
        last = f"{points(average.value)} <small>{average.spread}</small>" if average else "–"
        rows.append(f"<tr{style}><td>{escape(model)}</td>{cells}<td class=score>{last}</td></tr>")
    floors = "".join(f"<td>{points(report.floors[task])}</td>" for task in report.tasks)
    rows.append(f'<tr class="baseline"><td><em>best constant answer</em></td>{floors}<td></td></tr>')
    for model, row in published_rows(report.tasks).items():
        cells = "".join(
            f'<td title="{escape(row[t].source)}">{row[t].text}</td>' if t in row else "<td>–</td>" for t in report.tasks
        )
        average_of = published_average(model, report.tasks)
        average_text = f"{average_of:.2f}" if average_of else "–"
        rows.append(f'<tr class="published"><td>{escape(model)}, published</td>{cells}<td>{average_text}</td></tr>')
    gaps = difference_rows(report)
    fold = "Differences from the best, in points with 95 % intervals"
    note = '<p class="quiet">Each interval belongs to one difference; p is corrected for all of them together.</p>'
    fold = f"<details><summary>{fold}</summary>{note}{plain_table(gaps)}</details>" if gaps else ""
    remarks = notes(report.tasks, report.metrics)
    listed = "".join(f"<li>{escape(note)}</li>" for note in remarks)
    below = f'<p class="quiet">{escape(PUBLISHED)}</p><ul class="notes quiet">{listed}</ul>' if remarks else ""
    return (
        f'<div class="wide"><table class="sortable"><thead><tr><th>model</th>{head}<th>average</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody>"
        '</table></div><p class="quiet">± half of the 95 % interval; [low, high] where it ends at 0 or 100; '
        "no interval if all runs and examples score the same. "
        '<span class="best">Bold</span>: best of the task. '
        '<span class="tied">Dotted</span>: not distinguishable from it (paired test, Holm over the table, 5 %). '
        f"<sup>†</sup> seeds missing. <sup>‡</sup> some run stayed at a constant answer. Grey: baselines.</p>{fold}{below}"
    )


def _score(cell: "Cell | None") -> str:
    if cell is None:
        return "–"
    extra = ("†" if cell.missing else "") + ("‡" if any(run.degenerate for run in cell.runs) else "")
    tip = f"{len(cell.runs)} seeds; 95 % interval {points(cell.estimate.low)} to {points(cell.estimate.high)}"
    if cell.gap is not None:
        tip += f"; {points(cell.gap.value)} below the best, p = {cell.p:.3f} after Holm"
    value = f'<span class="{cell.mark}">{points(cell.estimate.value)}</span>' if cell.mark else points(cell.estimate.value)
    return f'<span title="{escape(tip)}">{value} <small>{cell.spread}</small></span><sup>{extra}</sup>'


def _bars(report: "Report") -> str:
    figures = []
    for task in report.tasks:
        column = [cell for cell in report.cells.values() if cell.task == task]
        chart = score_bars(column, report.floors[task], report.metrics[task])
        figures.append(f"<figure><figcaption>{escape(task)}</figcaption>{chart}</figure>")
    note = "Whiskers: 95 % intervals. Dots: single seeds. Dashed: the best constant answer. Grey: baselines."
    return f'<div class="plots">{"".join(figures)}</div><p class="quiet">{note}</p>'


def _cost(report: "Report") -> str:
    note = (
        "Hours of fine-tuning and tokens are sums over all final runs. Hours of everything: pre-training, including that of "
        "its start and teachers, tuning and the final runs. Trainable parameters include the head."
    )
    out = plain_table(cost_rows(report)) + f'<p class="quiet">{note}</p>'
    points = cost_points(report)
    if len(points) > 1:
        out += f'<figure class="curve"><figcaption>Score and hours</figcaption>{cost_plot(points, front(points))}</figure>'
    return out + (f"<h3>Tuning</h3>{plain_table(tuning_rows(report))}" if tuning_rows(report) else "")


def _corpus(corpus: Any) -> str:
    """The beginning of the corpus page: summary, sources, outcomes of the records and reasons of removal."""
    if not isinstance(corpus, dict) or "total" not in corpus:  # another JSON file: shows its values by name
        values = corpus if isinstance(corpus, dict) else {"corpus": corpus}
        return plain_table([["", ""], *([named(str(name)), str(value)[:2000]] for name, value in values.items())])
    gone = {**corpus["total"]["removed"], **corpus["total"]["rejected"]}
    reasons = [["why records went", "records"], *([named(name), f"{count:,}"] for name, count in gone.items())]
    return (
        f"<p>{escape(corpus_verdict(corpus))}</p>{table(summary_rows(corpus), 'sortable', last='total')}"
        f"{outcomes_plot(corpus)}{plain_table(reasons) if gone else ''}"
    )
