"""HTML reports in one file: page frame, style, sortable tables, stacked bars and plots as inline SVG. No network access.

The same input gives the same bytes. Used by the pages of the corpus, the tokenizers and the evaluation.
"""

import io
import platform
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import date
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CSS = """
:root { color-scheme: light dark; --ink: #1d2329; --paper: #fdfdfc; --muted: #6b757f; --line: #dfe3e7; --soft: #f3f5f6;
  --accent: #3b76c4; --mark: #b4490f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --paper: #14181c; --muted: #98a3ad; --line: #2f363d;
  --soft: #1c2227; --accent: #74a7ec; --mark: #f09a66; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; letter-spacing: -.01em; }
h2 { font-size: 1.25rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.8rem 0 .3rem; }
p { max-width: 50rem; margin: .4rem 0 .8rem; } .quiet { color: var(--muted); font-size: .88rem; }
.origin { max-width: none; overflow-wrap: anywhere; } .origin code { font-size: .95em; }
nav { margin: .8rem 0 0; font-size: .9rem; } nav a { margin-right: 1.1rem; display: inline-block; } a { color: var(--accent); }
.wide { overflow-x: auto; margin: .8rem 0; max-width: 100%; }
table { border-collapse: separate; border-spacing: 0; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .36rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: baseline; }
th:first-child, td:first-child, td.text, th.text { text-align: left; } th { font-weight: 600; vertical-align: bottom; }
thead th { border-bottom: 2px solid var(--muted); } thead small, td small { color: var(--muted); font-weight: 400; }
td.text { max-width: 44rem; overflow-wrap: anywhere; white-space: pre-wrap; }
tr.total td { font-weight: 600; border-top: 2px solid var(--muted); }
th[data-sort] { cursor: pointer; } th[aria-sort=ascending]::after { content: " \\25b4"; }
th[aria-sort=descending]::after { content: " \\25be"; }
.side { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
figure { margin: .6rem 0; } figcaption { font-weight: 600; font-size: .92rem; margin-bottom: .2rem; }
svg { width: 100%; height: auto; display: block; max-width: 60rem; } .stacked text { fill: currentColor; font-size: 11px; }
.key span { display: inline-block; margin-right: 1.2rem; font-size: .88rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; margin-right: .35rem; }
details { border: 1px solid var(--line); border-radius: .4rem; padding: .45rem .9rem; margin: .5rem 0; }
summary { cursor: pointer; font-weight: 600; font-size: .93rem; } details[open] summary { margin-bottom: .5rem; }
mark { background: none; color: var(--mark); font-weight: 600; }
@media (max-width: 40rem) { body { padding: 1.2rem .8rem 3rem; font-size: 15px; } h1 { font-size: 1.5rem; }
  table { font-size: .8rem; } th, td { padding: .3rem .4rem; } details { padding: .4rem .5rem; } .side { gap: 0 1rem; }
  .wide th:first-child, .wide td:first-child { position: sticky; left: 0; background: var(--paper); min-width: 5.5rem;
    max-width: 9rem; overflow-wrap: break-word; white-space: normal; } .stacked { min-width: 34rem; } }
@media print { body { max-width: none; padding: 0; } details { break-inside: avoid; } nav { display: none; } }
"""

# A click on a column's head sorts its table, numbers by value; a second click reverses the order.
SORT = """
(function () {
  const value = (row, column) => (row.cells[column] ? row.cells[column].textContent.trim() : "");
  const number = (text) => parseFloat(text.replace(/[,\\u202f\\u00a0]/g, "").replace(/^[^0-9.-]+/, ""));
  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = table.tHead ? [...table.tHead.rows[0].cells] : [];
    heads.forEach((head, column) => {
      head.dataset.sort = "";
      head.addEventListener("click", function () {
        const down = head.getAttribute("aria-sort") !== "descending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const fixed = [...body.rows].filter((row) => row.matches(".total, .baseline, .published"));
        const rows = [...body.rows].filter((row) => !fixed.includes(row));
        rows.sort((one, other) => {
          const a = value(one, column), b = value(other, column), x = number(a), y = number(b);
          const order = isNaN(x) || isNaN(y) ? isNaN(y) - isNaN(x) || b.localeCompare(a) : y - x;
          return down ? order : -order;
        });
        body.append(...rows, ...fixed);
      });
    });
  }
})();
"""
SERIES = ("#3b76c4", "#d9822b", "#2f9e6e", "#b5487a", "#7d62c9", "#8a8f3a", "#3fa3b5", "#c25b4e", "#6f7b8a", "#a5793d")
Section = tuple[str, str, str]  # anchor, title, content; title and content are HTML


def page(title: str, lead: str, sections: Sequence[Section], style: str = "", script: str = "", origin: Any = None) -> str:
    """The whole page. `title` is text; `lead`, one summarising sentence, is HTML; `origin`: see `origin_line`."""
    named = [section for section in sections if section[1]]
    links = "".join(f'<a href="#{anchor}">{name}</a>' for anchor, name, _ in named)
    body = "".join(f'<section id="{anchor}"><h2>{name}</h2>{content}</section>\n' for anchor, name, content in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}{style}</style></head>\n<body><header><h1>{escape(title)}</h1>"
        f"{lead}{origin_line(origin)}<nav>{links}</nav></header>\n"
        f"{body}{f'<script>{script}</script>' if script else ''}</body></html>\n"
    )


def origin_of(commit: str | None, changed: bool | None) -> dict[str, str]:
    """Where a page comes from: date, commit, command and machine of this process. The date has no time of day."""
    words = [Path(sys.argv[0]).name, *sys.argv[1:]]
    code = "" if commit is None else commit[:12] + (" with changes" if changed else "")
    return {
        "date": f"{date.today():%Y-%m-%d}",
        "commit": code,
        "command": "python " + shortened(shlex.join(words)),
        "machine": f"{platform.node()} ({platform.machine()})",
    }


def shortened(text: str, most: int = 300) -> str:
    """The text, or its beginning with … where it has more than `most` characters."""
    return text if len(text) <= most else f"{text[:most]}…"


def origin_line(origin: dict[str, str] | None) -> str:
    """Date, commit, command and machine on one line; "" where they are not known."""
    parts = []
    for name in ("date", "commit", "command", "machine"):
        if value := (origin or {}).get(name):
            shown = f"<code>{escape(value)}</code>" if name in ("commit", "command") else escape(value)
            parts.append(f"{'commit ' if name == 'commit' else ''}{shown}")
    return f'<p class="quiet origin">{" · ".join(parts)}</p>' if parts else ""


def table(rows: Sequence[Sequence[str]], style: str = "", text: Iterable[int] = (), last: str = "") -> str:
    """A table from text cells, header first. `text`: left-aligned columns of running text; `last`: class of the last row.

    A table wider than the page scrolls horizontally.
    """
    marked = {number: ' class="text"' for number in text}

    def cells(row: Sequence[str], tag: str) -> str:
        words = [escape(cell).replace(" %", "&nbsp;%") for cell in row]
        return "".join(f"<{tag}{marked.get(number, '')}>{cell}</{tag}>" for number, cell in enumerate(words))

    body = [f"<tr>{cells(row, 'td')}</tr>" for row in rows[1:]]
    if last and body:
        body[-1] = body[-1].replace("<tr>", f'<tr class="{last}">', 1)
    kind = f' class="{style}"' if style else ""
    head = cells(rows[0], "th")
    return f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'


def fold(title: str, content: str) -> str:
    """A collapsible section; `title` is text."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def key(names: Iterable[tuple[str, str]]) -> str:
    """A legend from (name, colour)."""
    return '<p class="key">' + "".join(f'<span><i style="background:{c}"></i>{escape(n)}</span>' for n, c in names) + "</p>"


def stacked_bars(rows: Sequence[tuple[str, Sequence[tuple[str, float, str]]]]) -> str:
    """Horizontal stacked bars of equal length: for each row its label and its (name, share, colour) parts."""
    height, left, width = 22, 150, 760
    out = []
    for place, (label, pieces) in enumerate(rows):
        top, at = place * height, float(left)
        shown = label if len(label) <= 22 else label[:21] + "…"
        out.append(f'<text x="{left - 8}" y="{top + 14}" text-anchor="end">{escape(shown)}</text>')
        for name, share, colour in pieces:
            span = share * (width - left)
            if span > 0:
                out.append(
                    f'<rect x="{at:.1f}" y="{top + 3}" width="{span:.1f}" height="{height - 7}" fill="{colour}">'
                    f"<title>{escape(label)}: {escape(name)} {100 * share:.1f} %</title></rect>"
                )
            at += span
    drawing = f'<svg role="img" class="stacked" viewBox="0 0 {width} {height * len(rows) + 4}">{"".join(out)}</svg>'
    return f'<div class="wide">{drawing}</div>'


# ---------------------------------------------------------------- plots, drawn with matplotlib

# Plots are drawn in these colours, which are then replaced by CSS variables, so that a dark page shows light ink.
INK, ACCENT, MUTED, GRID = "#010203", "#010204", "#010205", "#010206"
_STYLE = {INK: "currentColor", ACCENT: "var(--accent)", MUTED: "var(--muted)", GRID: "var(--line)"}


def svg(draw: "Callable[[Axes], None]", width: float, height: float) -> str:
    """Run `draw(axes)` on a figure of width x height inches and return it as an <svg> element.

    A fixed hash salt and no metadata make it reproducible; text stays text.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    settings = {"svg.hashsalt": "report", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif"}
    ink = {"text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.edgecolor": MUTED}
    with matplotlib.rc_context({**matplotlib.rcParamsDefault, "backend": "svg", **settings, **ink}):
        figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(figure)
        figure.patch.set_alpha(0)
        axes = figure.add_subplot()
        axes.patch.set_alpha(0)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.set_axisbelow(True)
        draw(axes)
        out = io.StringIO()
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'<svg ([^>]*?)width="[^"]*" ([^>]*?)height="[^"]*"', r'<svg role="img" \1\2', text, count=1)
    text = re.sub(r'<svg ([^>]*?)height="[^"]*" ([^>]*?)width="[^"]*"', r'<svg role="img" \1\2', text, count=1)
    for drawn, named in _STYLE.items():
        text = text.replace(drawn, named)
    return text


def plain(name: str) -> str:
    """A name with its dollar signs escaped, so that matplotlib does not read a formula."""
    return name.replace("$", r"\$")
