"""The report as one HTML file: no network, a small script for filters alone, readable in light and dark and on paper."""

from html import escape
from typing import Any

from evaluation.browser import SCRIPT, browser
from evaluation.costs import cost_points, cost_rows, front, tuning_rows
from evaluation.details import Detail
from evaluation.plots import cost_plot, pretraining_plots, score_bars
from evaluation.published import notes, published_average, published_rows
from evaluation.results import Cell, Report
from evaluation.tables import METHOD, PUBLISHED, clean_rows, difference_rows, plain_table, points
from evaluation.task_page import task_section

CSS = """
:root { color-scheme: light dark; --ink: #1d2329; --paper: #fdfdfc; --muted: #7b858f; --line: #dfe3e7; --soft: #f3f5f6;
  --accent: #3b76c4; --mark: #c9571f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --paper: #14181c; --muted: #8d98a3; --line: #2f363d;
  --soft: #1c2227; --accent: #74a7ec; --mark: #f09a66; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .3rem; }
p { max-width: 48rem; margin: .4rem 0 .8rem; } .quiet { color: var(--muted); font-size: .88rem; }
nav { margin: .8rem 0 0; font-size: .9rem; } nav a { margin-right: 1.1rem; } a { color: var(--accent); }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .38rem .75rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: baseline; }
th:first-child, td:first-child, td.text, th.text { text-align: left; } th { font-weight: 600; }
td:first-child { white-space: nowrap; } .errors td:first-child { white-space: normal; }
thead th { border-bottom: 2px solid var(--muted); } thead small, td small { color: var(--muted); font-weight: 400; }
tr.baseline td { color: var(--muted); } td.score { white-space: nowrap; }
.best { font-weight: 700; color: var(--ink); } .tied { text-decoration: underline dotted; text-underline-offset: 3px; }
sup { color: var(--mark); font-weight: 700; }
.plots { display: grid; gap: 1rem 2rem; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr)); }
figure { margin: .6rem 0; } figcaption { font-weight: 600; font-size: .92rem; margin-bottom: .2rem; }
svg { width: 100%; height: auto; display: block; max-width: 36rem; } .curve svg { max-width: 54rem; }
details { border: 1px solid var(--line); border-radius: .4rem; padding: .45rem .9rem; margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; font-size: .93rem; } details[open] summary { margin-bottom: .5rem; }
.matrix td { text-align: center; min-width: 2.4rem; } .matrix th { font-weight: 500; }
.errors th, .errors td { text-align: left; } .errors td.text { max-width: 44rem; overflow-wrap: anywhere; }
ul.notes { max-width: 56rem; padding-left: 1.2rem; } ul.notes li { margin: .25rem 0; }
mark { background: none; color: var(--mark); font-weight: 600; }
#filters { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: baseline; font-size: .9rem; margin: .6rem 0 1rem; }
#filters[hidden] { display: none; } input, select { font: inherit; }
tr.published td { font-style: italic; color: var(--muted); }
@media print { body { max-width: none; padding: 0; } details { break-inside: avoid; } nav { display: none; } }
"""


def html_page(report: "Report", details: dict[tuple[str, str], Detail], curves: dict[str, Any], corpus: Any = None) -> str:
    """The whole page. Every text that comes from data or folders is escaped."""
    runs = sum(len(cell.runs) for cell in report.cells.values())
    sections = [("results", "Results", _results(report)), ("scores", "Scores by task", _bars(report))]
    if curves:
        sections.append(("pretraining", "Pre-training", _curves(curves)))
    if corpus is not None:
        sections.append(("corpus", "Corpus", _corpus(corpus)))
    if clean_rows(report):
        note = "Clean: items of which less than 20 % of the words lie in a run that the pre-training corpus holds too."
        sections.append(("clean", "Clean and seen test items", f'<p class="quiet">{note}</p>{plain_table(clean_rows(report))}'))
    if cost_rows(report):
        sections.append(("cost", "Cost", _cost(report)))
    sections.append(("detail", "Task by task", "".join(task_section(report, task, details) for task in report.tasks)))
    sections.append(("browser", "Error browser", browser(report, details)))
    if report.problems:
        notes = "".join(f"<li>{escape(problem)}</li>" for problem in report.problems)
        sections.append(("notes", "What to know about these runs", f'<ul class="notes">{notes}</ul>'))
    sections.append(("method", "How it is computed", f"<p>{escape(METHOD)}</p>"))
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    body = "".join(f'<section id="{anchor}"><h2>{title}</h2>{content}</section>\n' for anchor, title, content in sections)
    lead = f"{len(report.models)} models, {len(report.tasks)} tasks, {runs} runs."
    title = escape(report.title)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{title}</title><style>{CSS}</style></head>\n<body><header><h1>{title}</h1>"
        f'<p class="quiet">{lead} Scores in points with 95 % intervals.</p><nav>{links}</nav></header>\n'
        f"{body}<script>{SCRIPT}</script></body></html>\n"
    )


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
        cells = "".join(f'<td title="{escape(row[t].source)}">{row[t].text}</td>' if t in row else "<td>–</td>"
                        for t in report.tasks)  # fmt: skip
        average_of = published_average(model, report.tasks)
        average_text = f"{average_of:.2f}" if average_of else "–"
        rows.append(f'<tr class="published"><td>{escape(model)}, published</td>{cells}<td>{average_text}</td></tr>')
    gaps = difference_rows(report)
    fold = "Differences from the best, in points with 95 % intervals"
    note = '<p class="quiet">Each interval is that of one difference; p is corrected for all of them together.</p>'
    fold = f"<details><summary>{fold}</summary>{note}{plain_table(gaps)}</details>" if gaps else ""
    remarks = notes(report.tasks, report.metrics)
    listed = "".join(f"<li>{escape(note)}</li>" for note in remarks)
    below = f'<p class="quiet">{escape(PUBLISHED)}</p><ul class="notes quiet">{listed}</ul>' if remarks else ""
    return (
        f'<div class="wide"><table><thead><tr><th>model</th>{head}<th>average</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody>"
        '</table></div><p class="quiet">± half of the 95 % interval; [low, high] where it ends at 0 or 100. '
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
        "Hours of fine-tuning and tokens are sums over all final runs. Hours of everything: pre-training, that of what it "
        "started from and learned from, tuning and the final runs. Trainable parameters include the head."
    )
    out = plain_table(cost_rows(report)) + f'<p class="quiet">{note}</p>'
    points = cost_points(report)
    if len(points) > 1:
        out += f'<figure class="curve"><figcaption>Score and hours</figcaption>{cost_plot(points, front(points))}</figure>'
    return out + (f"<h3>Tuning</h3>{plain_table(tuning_rows(report))}" if tuning_rows(report) else "")


def _curves(curves: dict[str, Any]) -> str:
    plots = pretraining_plots(curves)
    last = [["run", "step", "held-out loss", "accuracy", "bits per character"]]
    for name, run in curves.items():
        if run["heldout"]:
            step, value = run["heldout"][-1]
            loss, accuracy, bits = (value.get(key) for key in ("loss", "accuracy", "bits_per_character"))
            last.append([name, str(step), _number(loss), _number(accuracy), _number(bits)])
    figures = "".join(f'<figure class="curve"><figcaption>{escape(c)}</figcaption>{plot}</figure>' for c, plot in plots)
    return (plain_table(last) if len(last) > 1 else "") + (figures or "<p>No curve in metrics.jsonl.</p>")


def _corpus(corpus: Any, depth: int = 0) -> str:
    """The corpus report, whatever its shape: a mapping of mappings is a table, plain values are one more."""
    if not isinstance(corpus, dict):
        return f"<p>{escape(str(corpus)[:2000])}</p>"
    plain = {key: value for key, value in corpus.items() if not isinstance(value, dict | list)}
    out = plain_table([["", ""], *([str(key), _number(value)] for key, value in plain.items())]) if plain else ""
    for key, value in corpus.items():
        if isinstance(value, list) and all(isinstance(item, dict) for item in value):
            value = {str(number + 1): item for number, item in enumerate(value)}  # noqa: PLW2901
        if not isinstance(value, dict) or not value:
            continue
        out += f"<h3>{escape(str(key))}</h3>"
        inner = list(value.values())
        if all(isinstance(item, dict) for item in inner):
            names = list(dict.fromkeys(n for item in inner for n, v in item.items() if not isinstance(v, dict | list)))
            if names:
                out += plain_table(
                    [["", *map(str, names)], *([str(k), *(_number(v.get(n)) for n in names)] for k, v in value.items())]
                )
            elif depth < 2:
                out += _corpus(value, depth + 1)
        else:
            out += plain_table([["", ""], *([str(k), _number(v)] for k, v in value.items() if not isinstance(v, dict | list))])
    return out


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
