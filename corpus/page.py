"""The corpus report as one HTML file: no script, no network, plots as inline SVG, readable in light and dark."""

from html import escape
from typing import Any

from corpus.report import is_of_a_file, summary_rows

CSS = """
:root { color-scheme: light dark; --ink: #1d2329; --paper: #fdfdfc; --muted: #6b757f; --line: #dfe3e7; --soft: #f3f5f6;
  --accent: #3b76c4; --kept: #3b76c4; --heldout: #7d62c9; --removed: #d9a441; --rejected: #b5483a; --mark: #b4490f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7ea; --paper: #14181c; --muted: #98a3ad; --line: #2f363d;
  --soft: #1c2227; --accent: #74a7ec; --kept: #5f97e0; --heldout: #9d86e0; --removed: #cf9a3c; --rejected: #d8695a;
  --mark: #f09a66; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.5rem 5rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, "Segoe UI", "Noto Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; } h3 { font-size: 1.02rem; margin: 1.6rem 0 .3rem; }
h2 { font-size: 1.25rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
p { max-width: 50rem; margin: .4rem 0 .8rem; } .quiet { color: var(--muted); font-size: .88rem; }
nav { margin: .8rem 0 0; font-size: .9rem; } nav a { margin-right: 1.1rem; display: inline-block; } a { color: var(--accent); }
.wide { overflow-x: auto; margin: .8rem 0; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .34rem .7rem; text-align: right; border-bottom: 1px solid var(--line); vertical-align: top; }
th:first-child, td:first-child, td.text, th.text { text-align: left; } th { font-weight: 600; white-space: nowrap; }
tr.total td { font-weight: 600; border-top: 2px solid var(--muted); }
td.text { max-width: 34rem; overflow-wrap: anywhere; white-space: pre-wrap; }
.side { display: flex; flex-wrap: wrap; gap: 0 2.5rem; }
svg { width: 100%; height: auto; display: block; max-width: 60rem; } svg text { fill: currentColor; font-size: 11px; }
.key span { display: inline-block; margin-right: 1.2rem; font-size: .88rem; }
.key i { display: inline-block; width: .8rem; height: .8rem; border-radius: .15rem; margin-right: .35rem; }
details { border: 1px solid var(--line); border-radius: .4rem; padding: .4rem .9rem; margin: .4rem 0; }
summary { cursor: pointer; font-size: .93rem; } details[open] summary { margin-bottom: .5rem; }
.warning { border-left: 3px solid var(--rejected); padding: .1rem .9rem; background: var(--soft); }
@media print { body { max-width: none; padding: 0; } nav { display: none; } }
"""
FATES = (("kept", "kept for training"), ("heldout", "held out"), ("removed", "removed"), ("rejected", "not readable"))
SERIES = ("#3b76c4", "#d9822b", "#2f9e6e", "#b5487a", "#7d62c9", "#8a8f3a", "#3fa3b5", "#c25b4e", "#6f7b8a", "#a5793d")
# What the names in the counts mean, for who reads them for the first time.
MEANING = {
    "exact_duplicate": "same text, in whatever spelling",
    "near_duplicate": "most 5-word shingles in common with a kept document",
    "line_duplicate": "nothing but lines that other documents of the source have", "task_item": "holds an item of a task file",
    "language": "not Azerbaijani by the detector", "too_short": "fewer characters than corpus.min_characters",
    "no_letters": "no letter of any script", "empty_after_cleaning": "nothing left after cleaning",
    "mojibake": "text decoded with the wrong table: É™ for ə", "entity": "HTML entities such as &amp;", "tag": "HTML tags",
    "wiki": "wiki markup", "split_word": "spaces inside words, as of a PDF: v ə", "broken_word": "words cut at a line end",
    "glued_word": "words run together, cut where both are known", "line_end": "line ends other than one \\n",
    "dropped": "controls, soft hyphens, zero-width characters", "nfc": "letters and marks composed (Unicode NFC)",
    "dot_above": "i and a combining dot, left by lower-casing İ", "schwa": "ǝ and its capital, to ə",
    "cedilla": "ș and ț with a comma, to ş and ţ", "apostrophe": "other apostrophes, to '", "quote": "quotation marks, to \"",
    "dash": "other dashes", "lookalike": "Cyrillic letters inside Latin words", "space": "odd, doubled and trailing spaces",
    "cyrillic_to_latin": "documents in Cyrillic, converted",
}  # fmt: skip
LANGUAGES = {
    "az": "Azerbaijani", "azb": "Azerbaijani in Arabic script", "tr": "Turkish", "tk": "Turkmen", "uz": "Uzbek",
    "crh": "Crimean Tatar", "gag": "Gagauz", "en": "English", "ru": "Russian", "kk": "Kazakh", "ky": "Kyrgyz", "tt": "Tatar",
    "ba": "Bashkir", "fa": "Persian", "ug": "Uyghur", "hy": "Armenian", "ka": "Georgian", "other": "any other language",
}  # fmt: skip


def meaning(name: str) -> str:
    """What a reason, a rule or a language code says; "" where the name is plain. A rule of quality says its bound."""
    if name.startswith("quality_"):
        side, _, signal = name.removeprefix("quality_").partition("_")
        return f"{signal} {'above' if side == 'max' else 'below'} its bound (corpus.quality)"
    return MEANING.get(name) or LANGUAGES.get(name, "")


def html_page(report: dict[str, Any], samples: dict[str, list[dict[str, list[dict[str, Any]]]]]) -> str:
    """The whole page. samples: for each source its examples of [rules and personal data, removals], by name.

    Every text that comes from data, files or settings is escaped.
    """
    total = report["total"]
    sections = [
        ("summary", "Summary", _summary(report)),
        ("effects", "What the stages did", _effects(report)),
        *((f"source-{number}", escape(name), _source(entry, samples.get(name) or [{}, {}]))
          for number, (name, entry) in enumerate(report["sources"].items())),
        ("settings", "Settings", _settings(report)),
    ]  # fmt: skip
    links = "".join(f'<a href="#{anchor}">{title}</a>' for anchor, title, _ in sections)
    body = "".join(f'<section id="{anchor}"><h2>{title}</h2>{content}</section>\n' for anchor, title, content in sections)
    lead = (
        f"{total['in']:,} records in, {total['kept']:,} documents kept for training ({total['words']:,} words, "
        f"{total['characters']:,} characters), {total['heldout']:,} held out."
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Corpus report</title><style>{CSS}</style></head>\n<body><header><h1>Corpus report</h1>"
        f'<p>{lead}</p><p class="quiet">Every record that came in is kept, held out, removed with its reason or rejected with '
        f"its line: the four add up for every source, and the build stops where they do not.</p><nav>{links}</nav></header>\n"
        f"{body}</body></html>\n"
    )


def _table(rows: list[tuple[str, ...]], last: str = "", text: tuple[int, ...] = ()) -> str:
    def cells(row: tuple[str, ...], tag: str) -> str:
        mark = {number: ' class="text"' for number in text}
        return "".join(f"<{tag}{mark.get(number, '')}>{escape(cell)}</{tag}>" for number, cell in enumerate(row))

    body = [f"<tr>{cells(row, 'td')}</tr>" for row in rows[1:]]
    if last and body:
        body[-1] = body[-1].replace("<tr>", f'<tr class="{last}">', 1)
    return (
        f'<div class="wide"><table><thead><tr>{cells(rows[0], "th")}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _counts(title: str, what: str, counts: dict[str, int], whole: int = 0) -> str:
    if not counts:
        return ""
    rows = [(what, "count", *(["share"] if whole else []))]
    named = LANGUAGES if what == "language" else {}
    rows += [(named.get(name, name), f"{n:,}", *([f"{100 * n / whole:.2f} %"] if whole else [])) for name, n in counts.items()]
    return f"<div><h3>{escape(title)}</h3>{_table(rows)}</div>"


def bars(rows: list[tuple[str, list[tuple[str, float, str]]]]) -> str:
    """Horizontal stacked bars, each as long as all others: for each row its label and (name, share, colour) pieces."""
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
    return f'<svg role="img" viewBox="0 0 {width} {height * len(rows) + 4}">{"".join(out)}</svg>'


def _key(names: list[tuple[str, str]]) -> str:
    return '<p class="key">' + "".join(f'<span><i style="background:{c}"></i>{escape(n)}</span>' for n, c in names) + "</p>"


def _summary(report: dict[str, Any]) -> str:
    fates = []
    for name, entry in report["sources"].items():
        counts = {kind: sum(entry[kind].values()) if isinstance(entry[kind], dict) else entry[kind] for kind, _ in FATES}
        whole = max(1, entry["in"])
        fates.append((name, [(title, counts[kind] / whole, f"var(--{kind})") for kind, title in FATES]))
    mixture = report["mixture"]
    cap = "no cap" if mixture["max_repeats"] is None else f"at most {mixture['max_repeats']:g} passes over a source"
    epochs = [("source", "words", "weight", "passes in an epoch", "share of an epoch", "licence")]
    for name, entry in report["sources"].items():
        epochs.append((
            name, f"{entry['words']:,}", f"{entry['weight']:g}", f"{entry['epochs']:.2f}", f"{100 * entry['share']:.1f} %",
            entry["licence"],
        ))  # fmt: skip
    damaged = [reject for entry in report["sources"].values() for reject in entry["first_rejects"] if is_of_a_file(reject)]
    warning = "".join(
        f'<p class="warning">{escape(reject["file"])} could not be read from line {reject["line"]} on: '
        f"{escape(reject['reason'])} ({escape(reject['raw'])}). What followed is not in the corpus.</p>"
        for reject in damaged
    )
    return (
        warning
        + _table(summary_rows(report), "total")
        + f"<h3>What became of the records</h3>{_key([(title, f'var(--{kind})') for kind, title in FATES])}{bars(fates)}"
        + f"<h3>The mixture</h3><p>Share of a source: weight × words to the power {mixture['temperature']:g}, {cap}; what "
        + "the cap frees goes to the others. The sampler applies it; no text is copied.</p>"
        + _table(epochs, text=(5,))
    )


def _shares(report: dict[str, Any], kind: str) -> str:
    names = list(report["total"][kind])
    shown, rest = names[: len(SERIES) - 1], names[len(SERIES) - 1 :]
    colours = dict(zip(shown, SERIES, strict=False))
    rows = []
    for source, entry in report["sources"].items():
        whole = max(1, sum(entry[kind].values()))
        pieces = [(name, entry[kind].get(name, 0) / whole, colours[name]) for name in shown]
        pieces.append(("other", sum(entry[kind].get(name, 0) for name in rest) / whole, SERIES[-1]))
        rows.append((source, pieces))
    key = [*colours.items(), *([("other", SERIES[-1])] if rest else [])]
    named = LANGUAGES if kind == "languages" else {}
    return _key([(named.get(name, name), colour) for name, colour in key]) + bars(rows)


def _effects(report: dict[str, Any]) -> str:
    total = report["total"]
    removed = [("reason", "documents", "share of all", "what it says")]
    for name, count in total["removed"].items():
        removed.append((name, f"{count:,}", f"{100 * count / max(1, total['in']):.2f} %", meaning(name)))
    rules = [("rule", "changes", "documents", "share of documents", "what it mends")]
    read = max(1, total["in"] - sum(total["rejected"].values()))
    for name, count in total["rules"].items():
        documents = total["rule_documents"].get(name, 0)
        rules.append((name, f"{count:,}", f"{documents:,}", f"{100 * documents / read:.1f} %", meaning(name)))
    parts = ["<h3>Filters</h3>" + (_table(removed, text=(3,)) if len(removed) > 1 else "<p>Nothing was removed.</p>")]
    parts.append("<h3>Rules of the cleaner</h3>" + (_table(rules, text=(4,)) if len(rules) > 1 else "<p>No rule acted.</p>"))
    parts.append('<div class="side">')
    parts.append(_counts("Rejected records", "reason", total["rejected"], total["in"]))
    parts.append(_counts("Personal data replaced", "kind", total["personal_data"]))
    parts.append(_counts("Clusters of duplicates", "documents in one", total["cluster_sizes"]))
    parts.append(_counts("Task items found", "how", total["task_items"]))
    parts.append("</div>")
    parts.append(f"<h3>Scripts of the documents read</h3>{_shares(report, 'scripts')}")
    parts.append(f"<h3>Languages of the documents read</h3>{_shares(report, 'languages')}")
    return "".join(parts)


def _source(entry: dict[str, Any], samples: list[dict[str, list[dict[str, Any]]]]) -> str:
    changes, removals = samples
    whole = entry["in"]
    facts = [
        (
            "documents in, kept, held out",
            f"{whole:,}, {entry['kept']:,}, {entry['heldout']:,} (held out by {entry['heldout_by']})",
        ),
        ("words, characters kept", f"{entry['words']:,}, {entry['characters']:,}"),
        ("characters removed", f"{entry['removed_characters']:,}"),
        ("shared lines taken out", f"{entry['lines_dropped']:,}"),
        ("weight, passes in an epoch", f"{entry['weight']:g}, {entry['epochs']:.2f}"),
        ("licence", entry["licence"]),
        ("files", f"{len(entry['files']):,}: " + ", ".join(entry["files"][:5]) + (", …" if len(entry["files"]) > 5 else "")),
    ]
    parts = [_table([("", ""), *facts], text=(1,)), '<div class="side">']
    parts.append(_counts("Removed", "reason", entry["removed"], whole))
    parts.append(_counts("Rejected", "reason", entry["rejected"], whole))
    parts.append(_counts("Rules (changes)", "rule", entry["rules"]))
    parts.append(_counts("Personal data", "kind", entry["personal_data"]))
    parts.append(_counts("Scripts", "script", entry["scripts"], sum(entry["scripts"].values())))
    parts.append(_counts("Languages", "language", entry["languages"], sum(entry["languages"].values())))
    parts.append(_counts("Clusters", "documents in one", entry["cluster_sizes"]))
    parts.append("</div>")
    if changes or removals:
        parts.append("<h3>Examples</h3>")
    for name, examples in changes.items():
        sides = ["before", "after"] if "before" in examples[0] else ["after"]  # what was personal is not shown
        rows = [("where", *sides)] + [(e["place"], *(e[side] for side in sides)) for e in examples]
        what = f" ({meaning(name)})" if meaning(name) else ""
        parts.append(_details(f"rule {name}{what}: {len(examples)} of its changes", _table(rows, text=(0, 1, 2))))
    for name, examples in removals.items():
        rows = [("where", "text", "copy of, item or language")] + [(e["place"], e["text"], e["note"]) for e in examples]
        count = f"{len(examples)} of {entry['removed'][name]:,} removed documents"
        parts.append(_details(f"{name}: {count}", _table(rows, text=(0, 1, 2))))
    if entry["first_rejects"]:
        rows = [("where", "reason", "line")]
        rows += [(f"{r['file']}:{r['line']}", r["reason"], r["raw"]) for r in entry["first_rejects"]]
        parts.append(_details(f"rejected: the first {len(rows) - 1}", _table(rows, text=(0, 1, 2))))
    return "".join(parts)


def _details(title: str, content: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{content}</details>"


def _settings(report: dict[str, Any]) -> str:
    rows = [("key", "value"), *((name, str(value)) for name, value in report["settings"].items())]
    rows.append(("decontaminate", ", ".join(report["tasks"]) or "no task files"))
    ignored = report["ignored_files"]
    rows.append(("files of other formats, not read", ", ".join(ignored[:20]) + (", …" if len(ignored) > 20 else "")))
    return _table(rows, text=(1,))
