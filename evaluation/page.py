"""The report as one HTML file: no network, no script, readable in light and dark and on paper."""

from collections import Counter
from html import escape
from typing import Any

import numpy as np

from evaluation.metrics import entities, qa_scores
from evaluation.plots import pretraining_plots, score_bars
from evaluation.results import Cell, Report, Run
from evaluation.tables import METHOD, cost_rows, half_width, points

SAMPLED_ERRORS = 20
MATRIX_CLASSES = 16  # more classes than this are listed as their commonest confusions
_CLIP = 400  # letters of a text that an error list shows

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
th, td { padding: .38rem .75rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child, td.text, th.text { text-align: left; } th { font-weight: 600; white-space: nowrap; }
thead th { border-bottom: 2px solid var(--muted); } thead small, td small { color: var(--muted); font-weight: 400; }
tr.baseline td { color: var(--muted); } td.score { white-space: nowrap; }
.best { font-weight: 700; color: var(--ink); } .tied { text-decoration: underline dotted; text-underline-offset: 3px; }
sup { color: var(--mark); font-weight: 700; }
.plots { display: grid; gap: 1rem 2rem; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr)); }
figure { margin: .6rem 0; } figcaption { font-weight: 600; font-size: .92rem; margin-bottom: .2rem; }
svg { width: 100%; height: auto; display: block; } .curve svg { max-width: 54rem; }
details { border: 1px solid var(--line); border-radius: .4rem; padding: .45rem .9rem; margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; font-size: .93rem; } details[open] summary { margin-bottom: .5rem; }
.matrix td { text-align: center; min-width: 2.4rem; } .matrix th { font-weight: 500; }
.errors td { text-align: left; } .errors td.text { max-width: 44rem; overflow-wrap: anywhere; }
ul.notes { max-width: 56rem; padding-left: 1.2rem; } ul.notes li { margin: .25rem 0; }
mark { background: none; color: var(--mark); font-weight: 600; }
@media print { body { max-width: none; padding: 0; } details { break-inside: avoid; } nav { display: none; } }
"""


def html_page(report: "Report", curves: dict[str, Any], corpus: Any = None) -> str:
    """The whole page. Every text that comes from data or folders is escaped."""
    runs = sum(len(cell.runs) for cell in report.cells.values())
    sections = [("results", "Results", _results(report)), ("scores", "Scores by task", _bars(report))]
    if curves:
        sections.append(("pretraining", "Pre-training", _curves(curves)))
    if corpus is not None:
        sections.append(("corpus", "Corpus", _corpus(corpus)))
    if cost_rows(report):
        cost = _table(cost_rows(report)) + '<p class="quiet">Fine-tuning only. Hours and tokens are sums over all runs.</p>'
        sections.append(("cost", "Cost", cost))
    sections += [("detail", "Task by task", "".join(_task(report, task) for task in report.tasks))]
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
        f"{body}</body></html>\n"
    )


def _table(rows: list[list[str]], style: str = "") -> str:
    """A plain table from text cells, header first."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f'<div class="wide"><table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


# ---------------------------------------------------------------- results


def _results(report: "Report") -> str:
    head = "".join(f"<th>{escape(task)}<br><small>{escape(report.metrics[task])}</small></th>" for task in report.tasks)
    rows = []
    for model in report.models:
        own = [cell for (name, _), cell in report.cells.items() if name == model]
        style = ' class="baseline"' if all(cell.baseline for cell in own) else ""
        cells = "".join(f"<td class=score>{_score(report.cells.get((model, task)))}</td>" for task in report.tasks)
        average = report.averages[model]
        last = f"{points(average[0])} <small>± {points(average[1])}</small>" if average else "–"
        rows.append(f"<tr{style}><td>{escape(model)}</td>{cells}<td class=score>{last}</td></tr>")
    floors = "".join(f"<td>{points(report.floors[task])}</td>" for task in report.tasks)
    rows.append(f'<tr class="baseline"><td><em>best constant answer</em></td>{floors}<td></td></tr>')
    return (
        f'<div class="wide"><table><thead><tr><th>model</th>{head}<th>average</th></tr></thead>'
        f"<tbody>{''.join(rows)}</tbody>"
        '</table></div><p class="quiet"><span class="best">Bold</span>: best of the task. '
        '<span class="tied">Dotted</span>: not distinguishable from it (paired test, Holm over the table, 5 %). '
        "<sup>†</sup> seeds missing. <sup>‡</sup> some run stayed at a constant answer. Grey: baselines.</p>"
    )


def _score(cell: "Cell | None") -> str:
    if cell is None:
        return "–"
    extra = ("†" if cell.missing else "") + ("‡" if any(run.degenerate for run in cell.runs) else "")
    tip = f"{len(cell.runs)} seeds; 95 % interval {points(cell.estimate.low)} to {points(cell.estimate.high)}"
    if cell.gap is not None:
        tip += f"; {points(cell.gap.value)} below the best, p = {cell.p:.3f} after Holm"
    value = f'<span class="{cell.mark}">{points(cell.estimate.value)}</span>' if cell.mark else points(cell.estimate.value)
    return f'<span title="{escape(tip)}">{value} <small>± {points(half_width(cell))}</small></span><sup>{extra}</sup>'


def _bars(report: "Report") -> str:
    figures = []
    for task in report.tasks:
        column = [cell for cell in report.cells.values() if cell.task == task]
        chart = score_bars(column, report.floors[task], report.metrics[task])
        figures.append(f"<figure><figcaption>{escape(task)}</figcaption>{chart}</figure>")
    note = "Whiskers: 95 % intervals. Dots: single seeds. Dashed: the best constant answer. Grey: baselines."
    return f'<div class="plots">{"".join(figures)}</div><p class="quiet">{note}</p>'


def _curves(curves: dict[str, Any]) -> str:
    plots = pretraining_plots(curves)
    last = [["run", "step", "held-out loss", "accuracy", "bits per character"]]
    for name, run in curves.items():
        if run["heldout"]:
            step, value = run["heldout"][-1]
            loss, accuracy, bits = (value.get(key) for key in ("loss", "accuracy", "bits_per_character"))
            last.append([name, str(step), _number(loss), _number(accuracy), _number(bits)])
    figures = "".join(f'<figure class="curve"><figcaption>{escape(c)}</figcaption>{plot}</figure>' for c, plot in plots)
    return (_table(last) if len(last) > 1 else "") + (figures or "<p>No curve in metrics.jsonl.</p>")


def _corpus(corpus: Any, depth: int = 0) -> str:
    """The corpus report, whatever its shape: a mapping of mappings is a table, plain values are one more."""
    if not isinstance(corpus, dict):
        return f"<p>{escape(str(corpus)[:2000])}</p>"
    plain = {key: value for key, value in corpus.items() if not isinstance(value, dict | list)}
    out = _table([["", ""], *([str(key), _number(value)] for key, value in plain.items())]) if plain else ""
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
                out += _table(
                    [["", *map(str, names)], *([str(k), *(_number(v.get(n)) for n in names)] for k, v in value.items())]
                )
            elif depth < 2:
                out += _corpus(value, depth + 1)
        else:
            out += _table([["", ""], *([str(k), _number(v)] for k, v in value.items() if not isinstance(v, dict | list))])
    return out


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


# ---------------------------------------------------------------- one task


def _task(report: "Report", task: str) -> str:
    cells = [report.cells[model, task] for model in report.models if (model, task) in report.cells]
    kind = report.kinds[task]
    names = list(dict.fromkeys(name for cell in cells for name in cell.mean_metrics()))
    rows = [["metric", *(cell.model for cell in cells)]]
    for name in names:
        values = [cell.mean_metrics().get(name) for cell in cells]
        counted = name in ("invalid_i_tags", "examples_scored_differently_az")
        rows.append([name, *("" if v is None else f"{v:.1f}" if counted else points(v) for v in values)])
    first = cells[0].runs[0]
    cut = [[cell.model, f"{100 * np.mean([bool(row.get('truncated')) for row in cell.runs[0].rows]):.1f} %"] for cell in cells]
    truncated = "; ".join(f"{model} {share}" for model, share in cut if share != "0.0 %")
    facts = f"{kind}, {len(first.rows)} test examples, seeds per model: " + ", ".join(str(len(c.runs)) for c in cells)
    facts += f". Truncated: {truncated}." if truncated else "."
    out = f"<h3>{escape(task)}</h3><p class=quiet>{escape(facts)}</p>"
    out += f"<details open><summary>All metrics</summary>{_table(rows)}</details>"
    trained = [cell for cell in cells if not cell.baseline] or cells
    for cell in trained:
        confusion = _confusion(cell, kind, report.labels[task])
        if confusion:
            out += f"<details><summary>{escape(cell.model)}: where it errs</summary>{confusion}</details>"
        out += _errors(cell, kind)
    return out


def _confusion(cell: "Cell", kind: str, labels: list[str] | None) -> str:
    rows = [row for run in cell.runs for row in run.rows]
    if kind in ("classification", "pair"):
        counts = Counter((str(row["gold"]), str(row["pred"])) for row in rows)
        names = [str(x) for x in labels] if labels else sorted({label for pair in counts for label in pair})
        if len(names) <= MATRIX_CLASSES:
            return _matrix(counts, names, len(cell.runs))
        wrong = sorted(((n, g, p) for (g, p), n in counts.items() if g != p), key=lambda item: (-item[0], item[1:]))[:15]
        return _table([["gold", "predicted", "times, all seeds"], *([g, p, str(n)] for n, g, p in wrong)])
    if kind == "tagging":
        counts = Counter(what for row in rows for what in entity_errors(row["gold"], row["pred"]))
    elif kind == "qa":
        counts = Counter(qa_outcome(row) for row in rows)
    else:
        return ""
    seeds = len(cell.runs)
    return _table(
        [
            ["outcome", "per run"],
            *([what, f"{n / seeds:.1f}"] for what, n in sorted(counts.items(), key=lambda i: (-i[1], i[0]))),
        ]
    )


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


def entity_errors(gold: list[str], pred: list[str]) -> list[str]:
    """What became of each gold entity (correct, wrong type, wrong boundary, both, missed), and the spurious ones."""
    truth, found = entities(gold), entities(pred)
    outcomes = ["correct"] * len(truth & found)
    free = sorted(found - truth, key=lambda e: (e[1], e[2], e[0]))
    for kind, start, end in sorted(truth - found, key=lambda e: (e[1], e[2], e[0])):
        touching = [other for other in free if other[1] <= end and other[2] >= start]
        if not touching:
            outcomes.append("missed")
            continue
        # The closest in kind: same place first, then same type.
        other = min(touching, key=lambda e: ((e[1], e[2]) != (start, end), e[0] != kind, e[1], e[2]))
        free.remove(other)
        same_place, same_type = (other[1], other[2]) == (start, end), other[0] == kind
        outcomes.append("wrong type" if same_place else "wrong boundary" if same_type else "wrong type and boundary")
    return outcomes + ["spurious"] * len(free)


def qa_outcome(row: dict[str, Any]) -> str:
    """What became of one question: right, partly right, in the wrong place, or wrongly answered or left alone."""
    has_answer, answered = any(str(gold).strip() for gold in row["gold"]), bool(str(row["pred"]).strip())
    if not has_answer:
        return "answered an unanswerable question" if answered else "correct: no answer"
    if not answered:
        return "gave no answer to an answerable question"
    exact, f1 = qa_scores([str(gold) for gold in row["gold"]], str(row["pred"]))
    return "correct" if exact else "partly right (words overlap)" if f1 > 0 else "wrong place"


def _errors(cell: "Cell", kind: str) -> str:
    """Up to 20 wrong examples of the first seed, drawn with a fixed seed, in the order of the file."""
    run: Run = cell.runs[0]
    if kind == "qa":
        wrong = [row for row in run.rows if not qa_outcome(row).startswith("correct")]
    else:
        wrong = [row for row in run.rows if row["gold"] != row["pred"]]
    if not wrong:
        return f"<p class=quiet>{escape(cell.model)}: no error on the test set with seed {run.seed}.</p>"
    drawn = np.sort(np.random.default_rng(0).permutation(len(wrong))[:SAMPLED_ERRORS])
    body = "".join(_error_row(wrong[int(i)], kind) for i in drawn)
    return (
        f"<details><summary>{escape(cell.model)}: {len(drawn)} of {len(wrong)} errors (seed {run.seed})</summary>"
        f'<div class="wide"><table class="errors"><thead><tr><th>id</th><th class=text>example</th>'
        f"<th class=text>gold</th><th class=text>predicted</th></tr></thead>"
        f"<tbody>{body}</tbody></table></div></details>"
    )


def _error_row(row: dict[str, Any], kind: str) -> str:
    text, gold, pred = _clip(row.get("text") or row.get("question") or ""), row["gold"], row["pred"]
    shown = escape(text)
    if kind == "tagging":
        words = row.get("words") or [""] * len(gold)
        pairs = zip(words, gold, pred, strict=True)
        shown = " ".join(f"<mark>{escape(w)}</mark>" if g != p else escape(w) for w, g, p in pairs)
        gold, pred = (_entity_text(words, tags) for tags in (gold, pred))
    elif kind == "choice":
        options = row.get("options") or []
        gold, pred = (f"{'ABCDEFG'[i]} {options[i]}" if i < len(options) else "ABCDEFG"[i] for i in (gold, pred))
    elif kind == "qa":
        gold = " | ".join(dict.fromkeys(map(str, gold))) or "no answer"
        gold, pred = (value if value.strip() else "no answer" for value in (gold, str(pred)))
    cells = "".join(f'<td class="text">{escape(_clip(str(value)))}</td>' for value in (gold, pred))
    return f'<tr><td>{escape(str(row["id"]))}</td><td class="text">{shown}</td>{cells}</tr>'


def _entity_text(words: list[str], tags: list[str]) -> str:
    spans = sorted(entities(tags), key=lambda e: e[1])
    return "; ".join(f"{kind}: {' '.join(words[start : end + 1])}" for kind, start, end in spans) or "none"


def _clip(text: str) -> str:
    return text if len(text) <= _CLIP else text[:_CLIP] + " …"
