"""AZE-NSP's layout (partial_text, gold_ending, distractor0 ...) as rows of multiple choice or of pairs."""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ID_ALIASES = ("id", "idx", "index_id", "index", "guid")
_DISTRACTOR = re.compile(r"distractor[ _-]?\d+")
Rows = list[tuple[Path, int, dict[str, Any]]]


def choices_of_endings(rows: Rows, keys: list[str]) -> tuple[Rows, list[str]]:
    """All endings of each text in an order drawn from the text, so that the position does not reveal the right one."""
    made: Rows = []
    for file, line, identity, text, right, false, draw in _endings(rows, keys):
        place = draw % (len(false) + 1)
        options = [*false[:place], right, *false[place:]]
        made.append((file, line, {"id": identity, "question": text, "options": options, "answer": place}))
    return (made, list(made[0][2])) if made else (rows, keys)


def pairs_of_endings(rows: Rows, keys: list[str]) -> tuple[Rows, list[str]]:
    """The true ending as "next" and one distractor, drawn from the text, as "other"; both are in one group."""
    made: Rows = []
    for file, line, identity, text, right, false, draw in _endings(rows, keys):
        pair = {"text": text, "group": str(text)}
        made.append((file, line, {"id": f"{identity}-next", **pair, "text_b": right, "label": "next"}))
        other = false[draw % len(false)] if false else None
        made.append((file, line, {"id": f"{identity}-other", **pair, "text_b": other, "label": "other"}))
    return (made, list(made[0][2])) if made else (rows, keys)


def _endings(rows: Rows, keys: list[str]) -> Iterator[tuple[Path, int, str, Any, Any, list[Any], int]]:
    """(file, line, id, text, true ending, distractors, a number drawn from the text) of every row in this layout."""
    wrong = sorted(key for key in keys if _DISTRACTOR.fullmatch(key.lower()))
    if not wrong or "gold_ending" not in keys or "partial_text" not in keys:
        return
    for file, line, row in rows:
        text, right = row.get("partial_text"), row.get("gold_ending")
        identity = next((str(row[key]) for key in ID_ALIASES if row.get(key) not in (None, "")), str(line))
        false = [row[key] for key in wrong if str(row.get(key) or "").strip()]
        draw = int.from_bytes(hashlib.sha256(f"{text}".encode()).digest()[:8], "big")
        yield file, line, identity, text, right, false, draw
