"""The data card of a built corpus, in Markdown: contents, origin, processing steps, limits."""

from typing import Any

from corpus.pages.terminal import summary_rows
from language.base import load_language


def data_card(report: dict[str, Any]) -> str:
    """The card as Markdown text, made from the report alone."""
    total, settings = report["total"], report["settings"]
    rows = summary_rows(report)
    lines = [
        "# Data card",
        "",
        f"{load_language(report['language']).title} text for pre-training: {total['kept']:,} documents, "
        f"{total['words']:,} words, "
        f"{total['characters']:,} characters, from {len(report['sources'])} sources; {total['heldout']:,} documents held out.",
        "",
        "## Sources",
        "",
        *_table([(*row, licence) for row, licence in zip(rows, ["licence", *_licences(report), ""], strict=True)]),
        "",
        "`epochs` is how often a source is read in one epoch of the mixture "
        f"(weights, exponent {report['mixture']['temperature']:g} on the sizes, {_cap(report)}).",
        "",
        "## What was done, in order",
        "",
        *(f"{number}. {step}" for number, step in enumerate(_steps(report), start=1)),
        "",
        "## What was set aside",
        "",
        *_table(
            [("reason", "documents"), *((name, f"{n:,}") for name, n in {**total["removed"], **total["rejected"]}.items())]
        ),
        "",
        "Removed documents are in `removed.jsonl.gz`, each with its reason, records that could not be read in "
        "`rejected.jsonl.gz`. In = kept + held out + removed + rejected: checked for every source in every build.",
        "",
        "## Known limits",
        "",
        *(f"- {limit}" for limit in _limits(report)),
        "",
        "## Settings",
        "",
        *_table([("key", "value"), *((name, str(value)) for name, value in settings.items())]),
        "",
    ]
    return "\n".join(lines)


def _licences(report: dict[str, Any]) -> list[str]:
    return [entry["licence"] for entry in report["sources"].values()]


def _cap(report: dict[str, Any]) -> str:
    most = report["mixture"]["max_repeats"]
    return "no cap" if most is None else f"at most {most:g}"


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    head, *body = [f"| {' | '.join(row)} |" for row in cells]
    return [head, "|" + " --- |" * len(rows[0]), *body]


def _steps(report: dict[str, Any]) -> list[str]:
    total, settings = report["total"], report["settings"]
    count = total["rules"].get(load_language(report["language"]).transliteration_rule, 0)
    rules = ", ".join(f"{name} {count:,}" for name, count in total["rules"].items()) or "nothing to repair"
    steps = [
        f"Repair of encoding, markup and typing (changes by rule: {rules}).",
        f"Script and language of each document by {report['language_by']}"
        + ("; documents in another language were removed" if settings["language_check"] else "; nothing removed by it")
        + (f"; {count:,} in the language's other script were transliterated." if count else "."),
    ]
    if settings["personal_data"]:
        kinds = ", ".join(f"{name} {count:,}" for name, count in total["personal_data"].items()) or "none found"
        steps.append(f"Personal data replaced by typed placeholders ({kinds}).")
    steps.append(f"Documents under {settings['min_characters']} characters removed; quality rules: {settings['quality']}.")
    if settings["line_duplicates"] is not None:
        steps.append(
            f"Lines found in {settings['line_duplicates']} documents of a site (or source) and in 1 % of them "
            f"were kept in the first only ({total['lines_dropped']:,} lines removed from kept documents)."
        )
    near = settings["near_duplicates"]
    steps.append(
        "Duplicates on a key without case, script and diacritics: exact ones"
        + (f", and near ones (MinHash, pairs verified at {near:g})" if near is not None else "")
        + "; one document of each cluster is kept, with the cluster's size."
    )
    if report["tasks"]:
        steps.append(f"Documents that contain items of these task files removed: {', '.join(report['tasks'])}.")
    ways = sorted({entry["heldout_by"] for entry in report["sources"].values()} - {"none"})
    if ways:
        steps.append(
            f"Held-out documents drawn by a salted hash, by {' or '.join(ways)}; none has a near duplicate in training."
        )
    return steps


def _limits(report: dict[str, Any]) -> list[str]:
    total = report["total"]
    limits = [
        f"Language is determined by {report['language_by']}; mixed-language documents get one label.",
        "Personal data is found by its form: names, addresses and rare formats remain.",
        "Near duplicates are found with high probability only: about 0.98 of pairs that share 80 % of their shingles.",
        "Licences are taken from the config and were not checked against the documents.",
    ]
    unknown = [name for name, entry in report["sources"].items() if entry["licence"] == "unknown"]
    if unknown:
        limits.append(f"No licence is stated for: {', '.join(unknown)}.")
    if not report["tasks"]:
        limits.append("No task files were named, so this corpus may contain test items (corpus.decontaminate).")
    if not any(entry["heldout_by"] == "site" for entry in report["sources"].values()) and total["heldout"]:
        limits.append("No source could be split by site: held-out documents may share a site with training documents.")
    if total["rejected"]:
        limits.append(f"{sum(total['rejected'].values()):,} records could not be read.")
    return limits
