"""A comparison of tokenizers to read: terminal table, Markdown, and one HTML file with plots and examples."""

from html import escape
from typing import TYPE_CHECKING, Any

from common.html import GRID, INK, SERIES, fold, page, plain, svg, table
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
    """The main table as text cells, header first: one row for each tokenizer, over all sources."""
    header = [
        "tokenizer",
        "kind",
        "tokens",
        "fertility",
        "vs first, %",
        "whole words, %",
        "continued words, %",
        "characters/token",
        "bytes/token",
        "unknown, %",
        "lost words, %",
        "vocabulary seen, %",
        f"Rényi a={result['alpha']} all/seen",
        "morphemes P/R/F1, %",
        f"words in {result['context']}",
        "tokens vs first, %",
    ]
    rows = [header]
    for name, entry in result["tokenizers"].items():
        whole, parts = entry["sources"][ALL], entry["morphemes"]
        rows.append(
            [
                name,
                entry["kind"] + (", uncased" if entry["uncased"] else ""),
                f"{entry['tokens']:,}",
                _interval(whole["fertility"], 3),
                _interval(whole["fertility_change"], 1),
                _interval(whole["whole_words"], 1),
                _interval(whole["continued"], 1),
                _interval(whole["characters"], 2),
                _interval(whole["bytes"], 2),
                f"{whole['unknown']['value']:.4f}",
                f"{whole['lost_words']['value']:.3f}",
                f"{entry['used']:.1f}",
                " / ".join(f"{value:.3f}" for value in entry["renyi"].values()),
                _morphemes(parts),
                f"{whole['context_words']['value']:.0f}",
                _interval(whole["cost"], 1),
            ]
        )
    return rows


def _morphemes(parts: dict[str, float] | None) -> str:
    """Precision, recall and F1 with its interval; "" for a language without a list of morphemes."""
    if parts is None:
        return "no list"
    f1 = _interval({"value": parts["f1"], "low": parts["low"], "high": parts["high"]}, 0)
    return f"{parts['precision']:.0f} / {parts['recall']:.0f} / {f1}"


def by_source(result: dict[str, Any], measure: str, digits: int) -> list[list[str]]:
    """One measure as text cells, header first: a row for each source, a column for each tokenizer."""
    names = list(result["tokenizers"])
    rows = [["source", "words", *names]]
    for source, entry in result["tokenizers"][names[0]]["sources"].items():
        cells = [_interval(result["tokenizers"][name]["sources"][source][measure], digits) for name in names]
        rows.append([source, f"{entry['words']:,}", *cells])
    return rows


def published(result: dict[str, Any]) -> list[list[str]]:
    """Published numbers of others as text cells, header first."""
    rows = [["published elsewhere, not measured here", "tokens per word", "remark", "where"]]
    for entry in result["published"]:
        value = "not published" if entry["fertility"] is None else f"{entry['fertility']:.3f}"
        rows.append([entry["what"], value, entry["remark"], entry["where"]])
    return rows


NOTE = (
    "A word is a run of letters and digits; tokens of punctuation are not counted in fertility. Brackets are 95 % "
    "bootstrap intervals over documents; 'vs first' is paired on the same documents. Rényi efficiency is H_a / log V, "
    "with V all tokens / tokens seen in this text. Morphemes: cuts inside the project's list of inflected words against "
    "their borders, precision / recall / F1. Published numbers count their own tokens on their own text, most of them with "
    "punctuation, and are here for orientation only."
)


def terminal(result: dict[str, Any]) -> str:
    """The main table transposed (a line for each measure), then fertility by source."""
    return _aligned(_turned(overview(result))) + "\n\nfertility by source\n" + _aligned(by_source(result, "fertility", 3))


def _turned(rows: list[list[str]]) -> list[list[str]]:
    """The table transposed: with sixteen measures and a few tokenizers it is read from top to bottom."""
    return [list(column) for column in zip(*rows, strict=True)]


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _markdown_table(rows: list[list[str]]) -> str:
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])


def markdown(result: dict[str, Any]) -> str:
    """The whole comparison without plots and examples."""
    parts = ["# Tokenizers compared\n", _markdown_table(overview(result)), NOTE]
    for measure, (_, _, _, says) in RATIOS.items():
        parts += [f"## {measure}: {says}", _markdown_table(by_source(result, measure, 4 if measure == "unknown" else 3))]
    return "\n\n".join([*parts, "## Published elsewhere", _markdown_table(published(result))]) + "\n"


def _bars(result: dict[str, Any], measure: str, label: str) -> str:
    """Grouped horizontal bars with intervals: a group for each source, a colour for each tokenizer."""
    names = list(result["tokenizers"])
    sources = list(result["tokenizers"][names[0]]["sources"])

    def draw(axes: "Axes") -> None:
        height = 0.8 / len(names)
        for number, name in enumerate(names):
            entries = [result["tokenizers"][name]["sources"][source][measure] for source in sources]
            places = [len(sources) - i - (number - (len(names) - 1) / 2) * height for i in range(len(sources))]
            values = [entry["value"] for entry in entries]
            errors = [[max(e["value"] - e["low"], 0) for e in entries], [max(e["high"] - e["value"], 0) for e in entries]]
            axes.barh(places, values, height=height * 0.9, color=SERIES[number % len(SERIES)], label=plain(name))
            axes.errorbar(values, places, xerr=errors, fmt="none", ecolor=INK, elinewidth=0.8)
        axes.set_yticks([len(sources) - i for i in range(len(sources))], [plain(source) for source in sources])
        axes.set_xlabel(label)
        axes.grid(axis="x", color=GRID, lw=0.8)
        axes.tick_params(length=0)
        axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))

    return svg(draw, 7.2, 0.9 + len(sources) * max(0.3, 0.14 * len(names)))


def _example(example: dict[str, Any]) -> str:
    rows = []
    for name, tokens in example["cuts"].items():
        spans = "".join(
            f"<span{' class=unknown' if unknown else ''}>{escape(token) or '␣'}</span>" for token, unknown in tokens
        )
        rows.append(f'<tr><td class="text name">{escape(name)} <b>{len(tokens)}</b></td><td class="text cut">{spans}</td></tr>')
    return f"<h3>{escape(example['source'])}</h3><table>{''.join(rows)}</table>"


def html_page(result: dict[str, Any]) -> str:
    """One self-contained page: the table, plots by source, examples side by side, published numbers."""
    plots = [
        ("Fertility by source", _bars(result, "fertility", "tokens per word")),
        ("Words kept whole", _bars(result, "whole_words", "% of words")),
        ("Length of a token", _bars(result, "characters", "characters per token")),
    ]
    figures = "".join(f"<figure><figcaption>{title}</figcaption>{plot}</figure>" for title, plot in plots)
    tables = "".join(
        fold(f"{measure}: {says}", table(by_source(result, measure, 4))) for measure, (_, _, _, says) in RATIOS.items()
    )
    examples = "".join(map(_example, result["examples"]))
    sections = [
        ("all", "Over all sources", f"{table(_turned(overview(result)))}<p class=quiet>{escape(NOTE)}</p>"),
        ("sources", "By source", figures + tables),
        (
            "cut",
            "The same text, cut",
            f"<p class=quiet>Each shade is one token; the number counts them; framed tokens are unknown.</p>{examples}",
        ),
        ("published", "Published elsewhere", table(published(result), text=(2, 3))),
    ]
    lead = f"<p>{escape(_verdict(result))}</p>"
    return page("Tokenizers compared", lead, sections, _EXTRA_CSS, origin=result.get("origin"))


def _verdict(result: dict[str, Any]) -> str:
    """One sentence: the tokenizer that needs the fewest tokens a word, and the amount of text."""
    means = {name: entry["sources"][ALL]["fertility"]["value"] for name, entry in result["tokenizers"].items()}
    best = min(means, key=lambda name: (means[name], name))
    text = f"over {sum(result['text'].values()):,} documents of {len(result['text'])} sources"
    if len(means) == 1:
        return f"{best} needs {means[best]:.3f} tokens a word {text}."
    return f"{best} needs the fewest tokens a word, {means[best]:.3f}, of {len(means)} tokenizers {text}."
