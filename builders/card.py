"""The card of a built set, in Markdown with the header that data hubs read: sizes, origin, difficulty, limits, samples."""

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

from builders.sets import Built, reasons
from language.base import Language
from tasks.load import SPLITS, Task

CATEGORIES = {
    "classification": "text-classification",
    "pair": "text-classification",
    "choice": "multiple-choice",
    "tagging": "token-classification",
    "qa": "question-answering",
}


def card(built: Built, task: Task, report: dict[str, Any], language: Language) -> str:
    """The whole card. Nothing in it depends on the day or the machine."""
    licence = report["licence"] or "not stated"
    lines = [
        "---",
        f"language: [{language.code}]",
        f"license: {json.dumps(report['licence'] or 'unknown', ensure_ascii=False)}",
        f"task_categories: [{CATEGORIES.get(built.kind, 'other')}]",
        "---",
        "",
        f"# {report['name']}",
        "",
        f"{language.title}, `{report['builder']}`, read as task.kind={built.kind}: "
        + ", ".join(f"{len(built.parts[split]):,} {split}" for split in SPLITS)
        + " examples.",
        "",
        *_section("Beware", [f"- {line}" for line in report["beware"]] or ["Nothing was found that a check looks for."]),
        *_section("Sizes", _sizes(built, task)),
        *_section(
            "Origin",
            [
                f"- Licence: {licence}" + ("" if report["licence"] else " (set licence=... when you build it)"),
                f"- Provenance: {report['provenance'] or 'not stated (set provenance=...)'}",
                f"- SHA-256 of the data: {', '.join(f'{name} `{value[:16]}`' for name, value in report['files'].items())}",
                f"- Settings and code: `{report['digest'][:16]}`; whole digests are in report.json",
            ],
        ),
        *_section("Input", [("file", "bytes", "SHA-256"), *_inputs(report["inputs"])]),
    ]
    if built.counts:
        lines += _section("On the way", [("what", "number"), *((name, f"{n:,}") for name, n in built.counts.items())])
    put = [(reason, f"{n:,}", first) for reason, n, first in reasons(built.aside)]
    lines += _section("Set aside", [("reason", "records", "first in"), *put] if put else ["No record."])
    for title, content in built.sections:
        lines += _section(title, content)
    lines += _section("Difficulty", _difficulty(report["difficulty"]))
    lines += _section("Leakage", _leakage(report["leakage"]))
    lines += _section("Samples", _samples(built, report["samples"]))
    lines += _section("Settings", [("key", "value"), *((key, str(value)) for key, value in report["settings"].items())])
    return "\n".join(lines)


def table(rows: Sequence[Sequence[Any]]) -> list[str]:
    """Rows, the header first, as a table of Markdown."""
    cells = [[" ".join(str(cell).replace("|", "\\|").split()) for cell in row] for row in rows]
    return [f"| {' | '.join(cells[0])} |", "|" + " --- |" * len(cells[0]), *(f"| {' | '.join(row)} |" for row in cells[1:])]


def _section(title: str, content: Sequence[Any]) -> list[str]:
    lines = table(content) if content and isinstance(content[0], tuple) else [str(line) for line in content]
    return [f"## {title}", "", *lines, ""]


def _inputs(inputs: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    shown = [(one["file"], f"{one['bytes']:,}", f"`{one['sha256'][:16]}`") for one in inputs[:20]]
    return shown + ([(f"and {len(inputs) - 20} more", "", "")] if len(inputs) > 20 else [])


def classes_of(built: Built, example: dict[str, Any]) -> list[str]:
    """What an example counts as in the table of sizes: its class, its construction, its types of names ..."""
    value = example.get(built.by)
    if built.by == "tags":
        return sorted({tag[2:] for tag in value if tag != "O"}) or ["no name"]
    if built.by == "answers":
        return ["answered" if value else "no answer"]
    if built.by == "options":
        return [f"{len(value)} options"]
    return [str(value)]


def _sizes(built: Built, task: Task) -> list[tuple[str, ...]]:
    count = {split: Counter(name for e in built.parts[split] for name in classes_of(built, e)) for split in SPLITS}
    names = sorted(set().union(*count.values()))
    groups = [len({example.get("group") for example in built.parts[split]}) for split in SPLITS]
    return [
        (built.by, *SPLITS),
        *((name, *(f"{count[split][name]:,}" for split in SPLITS)) for name in names),
        ("examples", *(f"{len(built.parts[split]):,}" for split in SPLITS)),
        ("groups that stay together", *(f"{number:,}" for number in groups)),
    ]


def _difficulty(found: dict[str, Any]) -> list[Any]:
    """The baselines of the test part, then what it can resolve."""
    rows = [
        (row["baseline"], f"{100 * row['score']:.1f}", f"{100 * row['low']:.1f} to {100 * row['high']:.1f}")
        for row in found["rows"]
    ]
    lines = table([("baseline", f"test {found['metric']}", "95 % interval"), *rows])
    smallest = found["smallest_difference"]
    if smallest is None:
        said = (
            "What difference the test part can resolve could not be measured: TF-IDF from all rows and from half say the same."
        )
    else:
        said = (
            f"The smallest difference that the test part can resolve is {100 * smallest:.1f} points: one as large is found in "
            "4 of 5 cases between two models trained once, at the 5 % level. Smaller ones need more test examples."
        )
    return [*lines, "", f"Baselines learn from {found['train_rows']:,} rows.", "", said]


def _leakage(found: dict[str, Any] | None) -> list[Any]:
    if found is None:
        return ["Not looked for: no corpus was named (overlap=FOLDER)."]
    rows = [("test items", "share a run of words", "half or more of it", "too short to tell")]
    rows += [(f"{found['items']:,}", f"{found['touched']:,}", f"{found['half']:,}", f"{found['short']:,}")]
    return [
        *table(rows),
        "",
        f"Runs of {found['words']} words in {found['corpus']}; the items are listed in overlap.jsonl.",
    ]


def _samples(built: Built, number: int) -> list[str]:
    """The first `number` test examples of every class, as they would be read aloud."""
    lines, seen = [], Counter()
    for example in built.parts["test"]:
        name = classes_of(built, example)[0]
        if seen[name] < number:
            seen[name] += 1
            lines.append((name, f"- **{name}** {shown(example)}"))
    return [line for _, line in sorted(lines, key=lambda pair: pair[0])] or ["None."]


def shown(example: dict[str, Any]) -> str:
    """One example on one line."""
    if "words" in example:
        text = " ".join(w if t == "O" else f"[{w} {t}]" for w, t in zip(example["words"], example["tags"], strict=True))
    elif "options" in example:
        options = [f"{'✓ ' if i == example['label'] else ''}{option}" for i, option in enumerate(example["options"])]
        text = f"{example['question']} → {' / '.join(options)}"
    elif "context" in example:
        answers = " / ".join(answer["text"] for answer in example["answers"]) or "no answer"
        text = f"{example['question']} → {answers} (in: {example['context'][:200]})"
    else:
        text = " ⁄ ".join(example[key] for key in ("text", "text_b") if example.get(key)) + f" → {example.get('label', '')}"
    return " ".join(text.split())[:600]
