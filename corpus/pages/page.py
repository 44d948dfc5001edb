"""The corpus report as one HTML file: no network, a script for sorting alone, plots as inline SVG, light and dark."""

from difflib import SequenceMatcher
from html import escape
from typing import Any

from common.html import SERIES, SORT, fold, key, page, stacked_bars, table
from corpus.pages.terminal import is_of_a_file, summary_rows
from language.codes import NAMES

COLOURS = """
:root { --kept: #3b76c4; --heldout: #7d62c9; --removed: #d9a441; --rejected: #b5483a; }
@media (prefers-color-scheme: dark) { :root { --kept: #5f97e0; --heldout: #9d86e0; --removed: #cf9a3c; --rejected: #d8695a; } }
"""
STYLE = (
    COLOURS
    + """
:root { --gone: #b5483a; --new: #2f7d4f; }
@media (prefers-color-scheme: dark) { :root { --gone: #e98a7c; --new: #7cc79a; } }
.warning { border-left: 3px solid var(--rejected); padding: .1rem .9rem; background: var(--soft); }
.examples { table-layout: fixed; width: 100%; } .examples th:first-child { width: 14%; } .examples td { text-align: left; }
.examples td { overflow-wrap: anywhere; white-space: pre-wrap; } .examples th { text-align: left; }
del, ins { text-decoration: none; border-radius: .15rem; padding: 0 .05rem; }
del { background: color-mix(in srgb, var(--gone) 26%, transparent); }
ins { background: color-mix(in srgb, var(--new) 30%, transparent); }
summary { font-weight: 400; }
@media (max-width: 40rem) { .examples, .examples tbody, .examples tr, .examples td { display: block; width: 100%; }
  .examples thead { display: none; } .examples td { border: 0; } .examples tr { border-bottom: 1px solid var(--line); } }
"""
)
OUTCOMES = (("kept", "kept for training"), ("heldout", "held out"), ("removed", "removed"), ("rejected", "not readable"))
# Explanations of the names in the counts, for first-time readers.
MEANING = {
    "exact_duplicate": "same text, in any spelling",
    "near_duplicate": "most 5-word shingles in common with a kept document",
    "line_duplicate": "only lines that other documents of the source have too",
    "task_item": "contains an item of a task file",
    "language": "another language than the corpus' own",
    "too_short": "fewer characters than corpus.min_characters",
    "no_letters": "no letter of any script",
    "empty_after_cleaning": "nothing left after cleaning",
    "mojibake": "text decoded with the wrong table: Ã¼ for ü",
    "entity": "HTML entities such as &amp;",
    "tag": "HTML tags",
    "wiki": "wiki markup",
    "split_word": "spaces inside words, as of a PDF",
    "broken_word": "words cut at a line end",
    "glued_word": "words run together, cut where both are known",
    "line_end": "line ends other than one \\n",
    "dropped": "controls, soft hyphens, zero-width characters",
    "nfc": "letters and marks composed (Unicode NFC)",
    "dot_above": "i and a combining dot, left by lower-casing a dotted capital",
    "schwa": "a turned e in place of the letter that it looks like",
    "cedilla": "letters with a comma below, to those with a cedilla",
    "apostrophe": "other apostrophes, to '",
    "quote": 'quotation marks, to "',
    "dash": "other dashes",
    "lookalike": "letters of another script inside words",
    "marks": "more combining marks than a letter may have",
    "space": "odd, doubled and trailing spaces",
    "cyrillic_to_latin": "documents in Cyrillic, converted",
}


def meaning(name: str) -> str:
    """Explanation of a reason, a rule or a language code; "" where the name is clear. A quality rule shows its bound."""
    if name.startswith("quality_"):
        side, _, signal = name.removeprefix("quality_").partition("_")
        return f"{signal} {'above' if side == 'max' else 'below'} its bound (corpus.quality)"
    return MEANING.get(name) or NAMES.get(name, "")


def named(name: str) -> str:
    """A reason, rule or kind in plain words: exact_duplicate becomes "exact duplicate"."""
    return name.replace("_", " ")


# Names of settings on the page; others are shown by their key.
SETTINGS = {
    "max_bad_fraction": "unreadable records allowed, share of a source",
    "language": "language of the corpus",
    "transliterate": "other script converted",
    "max_other_language": "documents in another language allowed, share of a source",
    "personal_data": "personal data hidden",
    "second_opinion": "label by a second language detector",
    "min_characters": "shortest document, characters",
    "language_check": "other languages removed",
    "language_score": "lowest score of the language",
    "quality": "rules of quality",
    "line_duplicates": "documents that must share a line",
    "near_duplicates": "signature agreement of near duplicates",
    "heldout_fraction": "held out, share of each source",
    "heldout_max": "held out, documents of a source at most",
}


def verdict(report: dict[str, Any]) -> str:
    """One sentence of summary, as text."""
    total = report["total"]
    share = 100 * (total["kept"] + total["heldout"]) / max(1, total["in"])
    counts = {**total["removed"], **total["rejected"]}
    why = ""
    if counts:
        name, count = max(counts.items(), key=lambda item: item[1])
        why = f"; the main reason for removal is {named(name)} ({count:,})"
    return (
        f"{share:.1f} % of {total['in']:,} records are kept: {total['kept']:,} documents for training ({total['words']:,} "
        f"words, {total['characters']:,} characters) and {total['heldout']:,} held out{why}."
    )


def html_page(
    report: dict[str, Any], samples: dict[str, list[dict[str, list[dict[str, Any]]]]], origin: dict[str, str] | None = None
) -> str:
    """The whole page. samples: for each source its examples of [rules and personal data, removals], by name; origin: date,
    commit, command and machine of the build (see common.html.origin_of).

    All text from data, files or settings is escaped.
    """
    sections = [
        ("summary", "Summary", _summary(report)),
        ("effects", "What the stages did", _effects(report)),
        *(
            (f"source-{number}", escape(name), _source(entry, samples.get(name) or [{}, {}]))
            for number, (name, entry) in enumerate(report["sources"].items())
        ),
        ("settings", "Settings", _settings(report)),
    ]
    lead = (
        f"<p>{escape(verdict(report))}</p>"
        '<p class="quiet">Every input record is kept, held out, removed with its reason or rejected with '
        "its line: the four add up for every source, and the build stops where they do not.</p>"
    )
    return page("Corpus report", lead, sections, STYLE, SORT, origin)


def _counts(title: str, what: str, counts: dict[str, int], whole: int = 0) -> str:
    if not counts:
        return ""
    rows = [(what, "count", *(["share"] if whole else []))]
    known = NAMES if what == "language" else {}
    rows += [
        (known.get(name, named(name)), f"{n:,}", *([f"{100 * n / whole:.2f} %"] if whole else [])) for name, n in counts.items()
    ]
    return f"<div><h3>{escape(title)}</h3>{table(rows, 'sortable')}</div>"


def outcomes_plot(report: dict[str, Any]) -> str:
    """The outcomes of each source's records as bars of their shares, with a legend."""
    rows = []
    for name, entry in report["sources"].items():
        counts = {kind: sum(entry[kind].values()) if isinstance(entry[kind], dict) else entry[kind] for kind, _ in OUTCOMES}
        whole = max(1, entry["in"])
        rows.append((name, [(title, counts[kind] / whole, f"var(--{kind})") for kind, title in OUTCOMES]))
    return key([(title, f"var(--{kind})") for kind, title in OUTCOMES]) + stacked_bars(rows)


def _summary(report: dict[str, Any]) -> str:
    mixture = report["mixture"]
    cap = (
        "no cap"
        if mixture["max_repeats"] is None
        else f"at most {mixture['max_repeats']:g} passes over a source (what that frees goes to the others)"
    )
    epochs = [("source", "words", "weight", "passes in an epoch", "share of an epoch", "licence")]
    for name, entry in report["sources"].items():
        epochs.append(
            (
                name,
                f"{entry['words']:,}",
                f"{entry['weight']:g}",
                f"{entry['epochs']:.2f}",
                f"{100 * entry['share']:.1f} %",
                entry["licence"],
            )
        )
    damaged = [reject for entry in report["sources"].values() for reject in entry["first_rejects"] if is_of_a_file(reject)]
    warning = "".join(
        f'<p class="warning">{escape(reject["file"])} could not be read from line {reject["line"]} on: '
        f"{escape(reject['reason'])} ({escape(reject['raw'])}). What followed is not in the corpus.</p>"
        for reject in damaged
    )
    return (
        warning
        + table(summary_rows(report), "sortable", last="total")
        + f"<h3>What became of the records</h3>{outcomes_plot(report)}"
        + f"<h3>The mixture</h3><p>Share of a source: weight × words to the power {mixture['temperature']:g}, {cap}. The "
        + "sampler applies it; no text is copied.</p>"
        + table(epochs, "sortable", text=(5,))
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
    shown_as = [*colours.items(), *([("other", SERIES[-1])] if rest else [])]
    known = NAMES if kind == "languages" else {}
    return key([(known.get(name, name), colour) for name, colour in shown_as]) + stacked_bars(rows)


def _effects(report: dict[str, Any]) -> str:
    total = report["total"]
    removed = [("reason", "documents", "share of all", "what it says")]
    for name, count in total["removed"].items():
        removed.append((named(name), f"{count:,}", f"{100 * count / max(1, total['in']):.2f} %", meaning(name)))
    rules = [("rule", "changes", "documents", "share of documents", "what it repairs")]
    read = max(1, total["in"] - sum(total["rejected"].values()))
    for name, count in total["rules"].items():
        documents = total["rule_documents"].get(name, 0)
        rules.append((named(name), f"{count:,}", f"{documents:,}", f"{100 * documents / read:.1f} %", meaning(name)))
    parts = [
        "<h3>Filters</h3>" + (table(removed, "sortable", text=(3,)) if len(removed) > 1 else "<p>Nothing was removed.</p>")
    ]
    parts.append(
        "<h3>Rules of the cleaner</h3>" + (table(rules, "sortable", text=(4,)) if len(rules) > 1 else "<p>No rule acted.</p>")
    )
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
    parts = [table([("", ""), *facts], text=(1,)), '<div class="side">']
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
        is_pair = "before" in examples[0]  # personal data is not shown
        rows = [[e["place"], *(marked(e["before"], e["after"]) if is_pair else (escape(e["after"]),))] for e in examples]
        what = f" ({meaning(name)})" if meaning(name) else ""
        shown = _examples(["where", "before", "after"] if is_pair else ["where", "after"], rows)
        parts.append(fold(f"{named(name)}{what}: {len(examples)} of its changes", shown))
    for name, examples in removals.items():
        rows = [[e["place"], escape(e["text"]), escape(e["note"])] for e in examples]
        count = f"{len(examples)} of {entry['removed'][name]:,} removed documents"
        parts.append(fold(f"{named(name)}: {count}", _examples(["where", "text", "copy of, item or language"], rows)))
    if entry["first_rejects"]:
        rows = [[f"{r['file']}:{r['line']}", escape(named(r["reason"])), escape(r["raw"])] for r in entry["first_rejects"]]
        parts.append(fold(f"rejected: the first {len(rows)}", _examples(["where", "reason", "line"], rows)))
    return "".join(parts)


def _examples(head: list[str], rows: list[list[str]]) -> str:
    """A table whose cells are HTML, except the first cell of each row, which is text."""
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in (escape(row[0]), *row[1:])) + "</tr>" for row in rows)
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    return f'<table class="examples"><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>'


def marked(before: str, after: str) -> tuple[str, str]:
    """Both texts as HTML with the differing characters marked; a marked space is shown as ␣."""
    left, right = [], []
    for what, begin, end, first, last in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if what == "equal":
            left.append(escape(before[begin:end]))
            right.append(escape(after[first:last]))
            continue
        left.append(f"<del>{_seen(before[begin:end])}</del>" if end > begin else "")
        right.append(f"<ins>{_seen(after[first:last])}</ins>" if last > first else "")
    return "".join(left), "".join(right)


def _seen(part: str) -> str:
    """Invisible characters, replaced by a sign or their code point."""
    return escape("".join("␣" if c.isspace() else c if c.isprintable() else f"U+{ord(c):04X}" for c in part))


def _settings(report: dict[str, Any]) -> str:
    rows = [("setting", "value"), *((SETTINGS.get(name, name), _value(value)) for name, value in report["settings"].items())]
    rows.append(("task files kept out", ", ".join(report["tasks"]) or "none"))
    ignored = report["ignored_files"]
    rows.append(("files of other formats, not read", ", ".join(ignored[:20]) + (", …" if len(ignored) > 20 else "") or "none"))
    return table(rows, text=(1,))


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{named(str(name))} {_value(one)}" for name, one in value.items())
    if value is None or isinstance(value, bool):
        return {True: "yes", False: "no"}.get(value, "off")
    return f"{value:g}" if isinstance(value, int | float) else str(value)
