"""Cells of a task file as text, lists and labels; a cell that cannot be read is a reason to skip the record."""

import ast
import json
import math
import re
import unicodedata
from collections import Counter
from typing import Any


class SkipRecord(Exception):
    """This record cannot be used, for the given reason; tasks.records lists it with its file and line."""


def nfc(value: Any, notes: Counter[str], strip: bool = True) -> str:
    """A cell as text in Unicode NFC; counts the cells that were not NFC."""
    text = "" if value is None else str(value)
    normal = unicodedata.normalize("NFC", text)
    if normal != text:
        notes["texts brought to NFC"] += 1
    return normal.strip() if strip else normal


def list_of(value: Any) -> list[Any]:
    """A cell that should hold a list: a list already, or its text form in JSON, Python or NumPy (as csv exports have it)."""
    if isinstance(value, str):
        value = spelled(value)
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # {"text": [...], "label": [...]}
        value = value["text"]
    if not isinstance(value, list | tuple):
        raise SkipRecord("a list was expected")
    return list(value)


# Strings, runs of letters and digits, and single signs. NumPy prints ['a' 'b'] without commas, which Python reads as 'ab'.
# A quote that is never closed takes the rest, so that it is looked for once; the whole is no value then.
_PART = re.compile(r"""\s+|'(?:[^'\\]|\\.)*+'?|"(?:[^"\\]|\\.)*+"?|[\w.+-]+|.""", re.DOTALL)


_NUMPY_TYPE = re.compile(r"np\.(?:str_|bool_?|u?int\d+|float\d+)")  # NumPy 2 prints a list of its own as [np.str_('a'), ...]


def spelled(text: str) -> Any:
    """A value written as JSON or Python, or printed by NumPy: ['a' 'b'] and [0 1] are lists of two."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    parts: list[str] = []
    before, depth = "", 0  # the last part that is not blank; open brackets
    for part in _PART.findall(text):
        if part.isspace() or _NUMPY_TYPE.fullmatch(part):
            continue
        if depth and _is_value(before) and _is_value(part):
            parts.append(",")
        depth += (part in "[({") - (part in "])}")
        parts.append(part)
        before = part
    if "..." in parts:  # NumPy omits the middle of a long list
        raise SkipRecord("a list was expected, this one is shortened with ...")
    try:
        return ast.literal_eval(" ".join(parts))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise SkipRecord("a list was expected") from None


def _is_value(part: str) -> bool:
    return part[0] in "'\"" or (part[0].isalnum() and part != "array") or part[0] in "-+."


_WHOLE = re.compile(r"-?(?<![0-9])[0-9]++\.0")


def label_of(value: Any, labels: list[str] | None) -> str:
    """A class by its name. Numbers are indices into `labels` if given, unless the number itself is a label."""
    if isinstance(value, list | dict):
        raise SkipRecord("label is not a single value")
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value  # tables write NaN for an empty cell
    name = unicodedata.normalize("NFC", "" if value is None else str(int(value) if value is True or value is False else value))
    name = name.strip()
    if _WHOLE.fullmatch(name) and not (labels and name in labels):
        name = name[:-2]  # 1.0 of a table whose column had empty cells
    if not name:
        raise SkipRecord("empty label")
    if labels is None or name in labels:
        return name
    if name.isdecimal() and int(name) < len(labels):
        return labels[int(name)]
    raise SkipRecord(f"label {name!r} is not in task.labels")


def grouped(example: dict[str, Any], row: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """The example with the row's "group" (which must not be split), if the file has such a column."""
    if row.get(found.get("group")):
        example["group"] = str(row[found["group"]])
    return example
