"""A comparison of tokenizers to read: terminal table, Markdown, and one HTML file with plots and examples."""

from html import escape
from typing import TYPE_CHECKING, Any

from evaluation.page import CSS
from evaluation.plots import GRID, INK, SERIES, svg
from tokenization.measures import RATIOS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALL = "all sources"
_EXTRA_CSS = """
.cut { font-size: .95rem; line-height: 2; white-space: normal; } .name { white-space: nowrap; }
.cut span { display: inline-block; line-height: 1.35; padding: .12rem .18rem; margin-right: 1px; border-radius: .2rem; }
.cut span:nth-child(odd) { background: color-mix(in srgb, var(--accent) 22%, transparent); }
.cut span:nth-child(even) { background: color-mix(in srgb, var(--muted) 20%, transparent); }
.cut span.unknown { outline: 2px solid var(--mark); } .cut b { font-weight: 400; color: var(--muted); font-size: .8rem; }
"""


def _interval(entry: dict[str, float], digits: int) -> str:
    if "low" not in entry:
        return f"{entry['value']:.{digits}f}"
    return f"{entry['value']:.{digits}f} [{entry['low']:.{digits}f}, {entry['high']:.{digits}f}]"


def overview(result: dict[str, Any]) -> list[list[str]]:
    """The main table as text cells, header first: one row a tokenizer, over all sources."""
    header = ["tokenizer", "kind", "pieces", "fertility", "vs first, %", "whole words, %", "continued words, %",
              "characters/piece", "bytes/piece",
              "unknown, %", "lost words, %", "vocabulary seen, %", f"Rényi a={result['alpha']} all/seen",
              "morphemes P/R/F1, %", f"words in {result['context']}", "pieces vs first, %"]  # fmt: skip
    rows = [header]
    for name, entry in result["tokenizers"].items():
        whole, parts = entry["sources"][ALL], entry["morphemes"]
        rows.append([
            name, entry["kind"] + (", uncased" if entry["uncased"] else ""), f"{entry['pieces']:,}",
            _interval(whole["fertility"], 3), _interval(whole["fertility_change"], 1), _interval(whole["whole_words"], 1),
            _interval(whole["continued"], 1), _interval(whole["characters"], 2), _interval(whole["bytes"], 2),
            f"{whole['unknown']['value']:.4f}",
            f"{whole['lost_words']['value']:.3f}", f"{entry['used']:.1f}",
            " / ".join(f"{value:.3f}" for value in entry["renyi"].values()),
            f"{parts['precision']:.0f} / {parts['recall']:.0f} / {_interval({'value': parts['f1'], **_bounds(parts)}, 0)}",
            f"{whole['context_words']['value']:.0f}", _interval(whole["cost"], 1),
        ])  # fmt: skip
    return rows


def _bounds(entry: dict[str, float]) -> dict[str, float]:
    return {"low": entry["low"], "high": entry["high"]}


def by_source(result: dict[str, Any], measure: str, digits: int) -> list[list[str]]:
    """One measure as text cells, header first: a row a source, a column a tokenizer."""
    names = list(result["tokenizers"])
    rows = [["source", "words", *names]]
    for source, entry in result["tokenizers"][names[0]]["sources"].items():
        cells = [_interval(result["tokenizers"][name]["sources"][source][measure], digits) for name in names]
        rows.append([source, f"{entry['words']:,}", *cells])
    return rows


def published(result: dict[str, Any]) -> list[list[str]]:
    """Other people's numbers as text cells, header first."""
    rows = [["published elsewhere, not measured here", "tokens per word", "remark", "where"]]
    for entry in result["published"]:
        value = "not published" if entry["fertility"] is None else f"{entry['fertility']:.3f}"
        rows.append([entry["what"], value, entry["remark"], entry["where"]])
    return rows


NOTE = (
    "A word is a run of letters and digits; pieces of punctuation are not counted in fertility. Brackets are 95 % "
    "bootstrap intervals over documents; 'vs first' is paired on the same documents. Rényi efficiency is H_a / log V, "
    "with V all pieces / pieces seen in this text. Morphemes: cuts inside the project's list of inflected words against "
    "their borders, precision / recall / F1. Published numbers count their own tokens on their own text, most of them with "
    "punctuation, and are here for orientation only."
)


def terminal(result: dict[str, Any]) -> str:
    """The main table turned on its side (a line a measure), then fertility by source."""
    return _aligned(_turned(overview(result))) + "\n\nfertility by source\n" + _aligned(by_source(result, "fertility", 3))


def _turned(rows: list[list[str]]) -> list[list[str]]:
    """Columns for rows: with sixteen measures and a few tokenizers the table is read from top to bottom."""
    return [list(column) for column in zip(*rows, strict=True)]


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _markdown_table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def markdown(result: dict[str, Any]) -> str:
    """The whole comparison but for plots and examples."""
    parts = ["# Tokenizers compared\n", _markdown_table(overview(result)), NOTE]
    for measure, (_, _, _, says) in RATIOS.items():
        parts += [f"## {measure}: {says}", _markdown_table(by_source(result, measure, 4 if measure == "unknown" else 3))]
    return "\n\n".join([*parts, "## Published elsewhere", _markdown_table(published(result))]) + "\n"


def _html_table(rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _bars(result: dict[str, Any], measure: str, label: str) -> str:
    """Grouped horizontal bars with intervals: a group a source, a colour a tokenizer."""
    names = list(result["tokenizers"])
    sources = list(result["tokenizers"][names[0]]["sources"])

    def draw(axes: "Axes") -> None:
        height = 0.8 / len(names)
        for number, name in enumerate(names):
            entries = [result["tokenizers"][name]["sources"][source][measure] for source in sources]
            places = [len(sources) - i - (number - (len(names) - 1) / 2) * height for i in range(len(sources))]
            values = [entry["value"] for entry in entries]
            errors = [[max(e["value"] - e["low"], 0) for e in entries], [max(e["high"] - e["value"], 0) for e in entries]]
            axes.barh(places, values, height=height * 0.9, color=SERIES[number % len(SERIES)], label=name.replace("$", r"\$"))
            axes.errorbar(values, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=0.8)
        axes.set_yticks([len(sources) - i for i in range(len(sources))], [source.replace("$", r"\$") for source in sources])
        axes.set_xlabel(label)
        axes.grid(axis="x", color=GRID, lw=0.8)
        axes.tick_params(length=0)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))

    return svg(draw, 7.2, 0.9 + len(sources) * max(0.3, 0.14 * len(names)))


def _example(example: dict[str, Any]) -> str:
    rows = []
    for name, pieces in example["cuts"].items():
        spans = "".join(
            f"<span{' class=unknown' if unknown else ''}>{escape(piece) or '␣'}</span>" for piece, unknown in pieces
        )
        rows.append(f'<tr><td class="text name">{escape(name)} <b>{len(pieces)}</b></td><td class="text cut">{spans}</td></tr>')
    return f"<h3>{escape(example['source'])}</h3><table>{''.join(rows)}</table>"


def html_page(result: dict[str, Any]) -> str:
    """One self-contained page: the table, plots by source, examples side by side, published numbers."""
    plots = [("Fertility by source", _bars(result, "fertility", "pieces per word")),
             ("Words kept whole", _bars(result, "whole_words", "% of words")),
             ("Length of a piece", _bars(result, "characters", "characters per piece"))]  # fmt: skip
    figures = "".join(f"<figure class=curve><figcaption>{title}</figcaption>{plot}</figure>" for title, plot in plots)
    tables = "".join(
        f"<details><summary>{escape(measure)}: {escape(says)}</summary>{_html_table(by_source(result, measure, 4))}</details>"
        for measure, (_, _, _, says) in RATIOS.items()
    )
    examples = "".join(map(_example, result["examples"]))
    documents = sum(result["text"].values())
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Tokenizers compared</title>'
        f"<style>{CSS}{_EXTRA_CSS}</style></head>\n<body><header><h1>Tokenizers compared</h1>"
        f'<p class="quiet">{documents:,} documents, {len(result["text"])} sources.</p></header>\n'
        f"<section><h2>Over all sources</h2>{_html_table(_turned(overview(result)))}"
        f"<p class=quiet>{escape(NOTE)}</p></section>\n"
        f"<section><h2>By source</h2>{figures}{tables}</section>\n"
        f"<section><h2>The same text, cut</h2><p class=quiet>Each shade is one piece; the number counts them; "
        f"framed pieces are unknown.</p>{examples}</section>\n"
        f"<section><h2>Published elsewhere</h2>{_html_table(published(result))}</section>\n</body></html>\n"
    )
