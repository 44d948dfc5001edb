"""Sheets for people: csv files that a spreadsheet opens as they are and runs nothing of, and reads back from it."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import write_bytes
from common.task_files import Skipped, read_task_file

# What a spreadsheet takes for a formula at the beginning of a cell (OWASP, CSV Injection), with the full-width forms; and
# the mark that is put before such a cell, so that it can be taken away again.
MARK = "'"
STARTS = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n", MARK)


def safe(text: str) -> str:
    """A text as a cell that no spreadsheet computes: with ' before it where it could be a formula."""
    return MARK + text if _is_formula(text) else text


def plain(cell: str) -> str:
    """The text of a cell that `safe` made."""
    return cell[1:] if cell.startswith(MARK) and _is_formula(cell[1:]) else cell


def _is_formula(text: str) -> bool:
    return text.startswith(STARTS) or text.lstrip().startswith(STARTS)


def write_sheet(path: Path, rows: Sequence[dict[str, str]]) -> None:
    """Rows of the same columns as csv in UTF-8 with a byte-order mark, by which spreadsheets know the encoding."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(rows[0])
    writer.writerows([safe(cell) for cell in row.values()] for row in rows)
    write_bytes(path, text.getvalue().encode("utf-8-sig"))


def read_sheet(path: Path, columns: Sequence[str]) -> tuple[list[tuple[int, dict[str, str]]], list[dict[str, Any]]]:
    """((line, row) of a sheet saved by any spreadsheet, what of it cannot be read as {"file", "line", "reason"}).

    Raises UserError for a missing file and for a sheet without one of `columns`.
    """
    rows, lost = [], []
    for line, row in read_task_file(path):
        if isinstance(row, Skipped):
            lost.append({"file": path.name, "line": line, "reason": row.reason})
        elif isinstance(row, dict):
            if missing := [name for name in columns if name not in row]:
                raise UserError(f"{path}: no column {missing[0]!r}; it has {', '.join(row)}. Restore the first line.")
            rows.append((line, {name: plain(str(cell or "")) for name, cell in row.items()}))
    return rows, lost
