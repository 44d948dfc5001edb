"""AZE-SCI's kind: titles with metadata to classes that each have enough titles, with near-duplicate titles kept together.

A class is the cell of a column, or what `topics.pattern` finds in it (the section in an address, the first level of a
subject). A class with fewer different titles than `topics.floor` could be neither learned nor scored: its titles are set
aside with this reason. Titles go to train, dev and test class by class, so that every class is in all three.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from builders.groups import largest, near_groups
from builders.sets import Built, aside, dealt, find_inputs, read_rows
from common.errors import UserError
from language.base import Language
from tasks.base import kind_of
from tasks.cells import SkipRecord
from tasks.load import SPLITS
from tasks.records import find_columns
from tasks.splits import group_name

NAMED = 0.02  # share of titles that hold the name of their class from which the card warns of it
CLUSTER = 0.05  # share of all titles in one group from which the card warns that unlike titles may have been joined


def build(settings: dict[str, Any], language: Language) -> Built:
    """The set of settings["files"]. Raises UserError where fewer than two classes have enough titles."""
    own = settings["topics"]
    put_aside: list[dict[str, Any]] = []
    titles = read_titles(find_inputs(settings["files"]), settings["columns"], own["pattern"], put_aside)
    counts = Counter({"titles read": len(titles)})
    keys = [language.fold_key(title["text"]) for title in titles]
    titles, keys = _different(titles, keys, put_aside)
    leaders = near_groups(keys, own["near_duplicates"], by_letters=True, tied=[title.get("group") for title in titles])
    kept, classes = _with_floor(titles, leaders, own["floor"], put_aside)
    examples = [
        {**{name: titles[place][name] for name in ("id", "text", "label")}, "group": group_name(keys[leaders[place]])}
        for place in kept
    ]
    built = Built("classification", dealt(examples, settings["shares"], stratify=True), put_aside)
    counts["titles grouped with a near duplicate"] = sum(leaders[place] != place for place in kept)
    counts["titles in the largest group"] = largest([leaders[place] for place in kept])
    counts["groups whose titles have several classes"] = _mixed(examples)
    named = [title for title in examples if f" {language.fold_key(title['label'])} " in f" {language.fold_key(title['text'])} "]
    counts["titles that hold the name of their class"] = len(named)
    built.counts = dict(counts)
    built.facts = {"classes": classes}
    rows = [(name, f"{one['titles']:,}", f"{one['groups']:,}", "yes" if one["kept"] else "no") for name, one in classes.items()]
    built.sections.append(("Classes", [("class", "titles", "different ones", f"kept (at least {own['floor']})"), *rows]))
    built.beware = _doubts(built, examples, named)
    return built


def read_titles(
    files: Sequence[Path], columns: dict[str, Any], pattern: str | None, put_aside: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """{"id", "text", "label", "file", "line"} (and "group", where a column ties titles) of each row of task files.

    Columns are found by the names of the kind classification, in each file for itself. Raises UserError for a file without
    them and for a `pattern` that is no regular expression.
    """
    try:
        searched = re.compile(pattern) if pattern else None
    except re.error as error:
        raise UserError(f"topics.pattern={pattern}: no regular expression ({error}). Correct it.") from None
    kind, titles, seen = kind_of("classification"), [], set()
    for path in files:
        rows = [*read_rows([path], put_aside)]
        if not rows:
            continue
        keys = list(dict.fromkeys(key for _, _, row in rows for key in row))
        found = find_columns(path, kind, keys, rows, columns, "columns")
        for _, line, row in rows:
            try:
                title = kind.read(_searched(row, found["label"], searched), found, None, Counter(), {})
                if not any(letter.isalpha() for letter in title["text"]):
                    raise SkipRecord("a title without a letter")
            except SkipRecord as reason:
                put_aside.append(aside(path.name, line, str(reason), row))
                continue
            place = f"{path.name}:{line}"
            identity = str(row.get(found.get("id")) or place).strip()
            identity = place if identity in seen else identity
            seen.add(identity)
            titles.append({"id": identity, **title, "file": path.name, "line": line})
    if not titles:
        raise UserError(f"{', '.join(path.name for path in files)}: no title with a class. Correct files or columns.")
    return titles


def _searched(row: dict[str, Any], column: str, pattern: re.Pattern[str] | None) -> dict[str, Any]:
    """The row with what `pattern` finds in its class's cell: its first group, or the whole match."""
    if pattern is None:
        return row
    match = pattern.search(str(row.get(column) or ""))
    if match is None:
        raise SkipRecord("topics.pattern finds no class")
    return {**row, column: match[1] if pattern.groups else match[0]}


def _different(
    titles: Sequence[dict[str, Any]], keys: Sequence[str], put_aside: list[dict[str, Any]]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Titles that differ by more than case and spelling, with their keys: the first of equal ones, none if classes differ."""
    classes, first = defaultdict(set), {}
    for title, key in zip(titles, keys, strict=True):
        classes[key].add(title["label"])
        first.setdefault(key, title["id"])
    kept = []
    for title, key in zip(titles, keys, strict=True):
        twin = first[key]
        if len(classes[key]) > 1:
            put_aside.append(_left(title, "one title with several classes", classes=sorted(classes[key])))
        elif twin != title["id"]:
            put_aside.append(_left(title, "the same title as another", **{"as": twin}))
        else:
            kept.append((title, key))
    return [title for title, _ in kept], [key for _, key in kept]


def _with_floor(
    titles: Sequence[dict[str, Any]], leaders: Sequence[int], floor: int, put_aside: list[dict[str, Any]]
) -> tuple[list[int], dict[str, dict[str, Any]]]:
    """Places of the titles whose class has `floor` groups, and {class: {"titles", "groups", "kept"}}, the largest first."""
    groups, size = defaultdict(set), Counter(title["label"] for title in titles)
    for title, leader in zip(titles, leaders, strict=True):
        groups[title["label"]].add(leader)
    classes = {
        name: {"titles": size[name], "groups": len(groups[name]), "kept": len(groups[name]) >= floor}
        for name in sorted(size, key=lambda name: (-size[name], name))
    }
    if sum(one["kept"] for one in classes.values()) < 2:
        found = ", ".join(f"{name} {one['groups']}" for name, one in [*classes.items()][:5])
        raise UserError(
            f"topics: fewer than two classes have {floor} different titles (the largest: {found}). "
            "Set topics.floor lower, name another column (columns.label), or give more titles."
        )
    kept = []
    for place, title in enumerate(titles):
        if classes[title["label"]]["kept"]:
            kept.append(place)
        else:
            put_aside.append(_left(title, f"a class with fewer than {floor} different titles"))
    return kept, classes


def _mixed(examples: Sequence[dict[str, Any]]) -> int:
    labels = defaultdict(set)
    for example in examples:
        labels[example["group"]].add(example["label"])
    return sum(len(names) > 1 for names in labels.values())


def _left(title: dict[str, Any], reason: str, **more: Any) -> dict[str, Any]:
    return aside(title["file"], title["line"], reason, {"text": title["text"], "label": title["label"], **more}, title["id"])


def _doubts(built: Built, examples: Sequence[dict[str, Any]], named: Sequence[dict[str, Any]]) -> list[str]:
    lines = []
    for split in SPLITS:
        if lacking := sorted({e["label"] for e in examples} - {e["label"] for e in built.parts[split]}):
            lines.append(f"The {split} part lacks {', '.join(lacking)}: near duplicates hold these classes together.")
    if len(named) > NAMED * len(examples):
        lines.append(
            f"{len(named):,} of {len(examples):,} titles hold the name of their class, e.g. {named[0]['text'][:80]!r} "
            f"({named[0]['label']}): that much needs no understanding."
        )
    if (size := built.counts["titles in the largest group"]) > CLUSTER * len(examples):
        lines.append(f"One group of near duplicates holds {size:,} titles: see whether topics.near_duplicates is too low.")
    return lines
