"""The files of a task, alone or in a folder of the Hugging Face hub, to rows, with a list of records that cannot be read.

The formats are read by common.task_files; rows are interpreted by tasks.records.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.tables import read_schema
from common.task_files import CONLL, FORMATS, Noted, Skipped, format_of, read_task_file
from tasks.base import kind_of

# Names of the splits in file and folder names on the hub.
SPLIT_NAMES = {"train": ("train", "training"), "dev": ("dev", "validation", "valid", "val"), "test": ("test", "testing")}
_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")


@dataclass
class TaskFile:
    """Contents of one file: `examples`; one dictionary for each record set aside in `skipped`, and for each record that was
    repaired or is doubtful in `noted` ({"file", "line", "id", "reason"}); `notes` counts the latter by reason; `labels` are
    the names of classes or tags if the config or the file's metadata has them."""

    examples: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    noted: list[dict[str, Any]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    labels: list[str] | None = None
    names: dict[str, list[str]] = field(default_factory=dict)  # column: class names, from the metadata of parquet and arrow

    def skip(self, path: Path, line: int | None, identity: str, reason: str) -> None:
        """List a record that is not used."""
        self.skipped.append({"file": path.name, "line": line, "id": identity, "reason": reason})

    def note(self, path: Path, line: int | None, identity: str, reason: str) -> None:
        """Count and list a repair of a used record, or a doubt about it."""
        self.notes[reason] += 1
        self.noted.append({"file": path.name, "line": line, "id": identity, "reason": reason})


def files_of(path: Path, split: str) -> list[Path]:
    """The file itself; for a folder, its files for `split` (train, dev, test) by their names, [] if there are none.

    Layouts: train.csv, data/train-00000-of-00001.parquet, train/data-00000-of-00001.arrow. If no name in a folder indicates
    a split, everything is train, as on the hub. Raises UserError if the folder holds the split twice.
    """
    if path.is_file():
        return [path]
    named = _named(path)
    if not any(named.values()):
        named = dict.fromkeys(named, "train")
    found = [file for file, name in named.items() if name == split]
    folders, formats = ({part(file) for file in found} for part in (lambda file: file.parent, format_of))
    if len(folders) > 1 or len(formats) > 1:
        listed = ", ".join(str(file.relative_to(path)) for file in found[:4])
        raise UserError(f"{path}: holds the {split} split more than once ({listed}). Set task.{split} to one file or folder.")
    return found


def left_out(path: Path) -> list[Path]:
    """The task files of a folder whose names indicate no split although those of others do; they are not read.

    They are not used as train: in a folder of train.csv, test.csv and all.csv that would reveal the test set.
    """
    named = _named(path) if path.is_dir() else {}
    return [file for file, split in named.items() if split is None] if any(named.values()) else []


def _named(folder: Path) -> dict[Path, str | None]:
    """Every task file of a folder with the split that its name or its folder's name indicates."""
    held = [(file, file.relative_to(folder)) for file in sorted(folder.rglob("*")) if file.is_file()]
    held = [(file, short) for file, short in held if not any(part.startswith((".", "_")) for part in short.parts)]
    held = [(file, short) for file, short in held if format_of(file) in FORMATS and file.name not in _DESCRIPTIONS]
    return {file: split_of_name(short) for file, short in held}


def split_of_name(short: Path) -> str | None:
    """train, dev or test, if a part of the path says so; the last one counts."""
    for part in reversed(short.parts):
        words = re.split(r"[^a-z]+", part.lower())
        for split, names in SPLIT_NAMES.items():
            if any(name in words for name in names):
                return split
    return None


def read_rows(path: Path, kind: str, loaded: TaskFile, bare: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line or record number, row) of a file of any format; records that cannot be read go to `loaded.skipped`.

    `bare`: the words of a conll file may lack tags. Raises UserError for a folder, and where `read_task_file` does.
    """
    suffix = format_of(path)
    if path.is_dir():
        raise UserError(
            f"{path}: this is a folder without a file for this split. Expected files named train, validation, test."
        )
    has_words = kind_of(kind).conll
    if suffix not in (*FORMATS, ".txt") or (suffix in (*CONLL, ".txt") and not has_words):
        known = f".jsonl, .csv, .tsv, .json, .parquet, .arrow{' or .conll' if has_words else ''}"
        raise UserError(f"{path}: format '{suffix}' is not read for {kind}. Use {known}.")
    if suffix in (".parquet", ".arrow"):
        loaded.names |= _class_names(read_schema(path))
    for line, row in read_task_file(path, bare):
        if isinstance(row, Skipped):
            loaded.skip(path, line, str(line), row.reason)
        elif isinstance(row, Noted):
            loaded.note(path, line or None, str(line) if line else "", row.reason)
        else:
            yield line, row


def _class_names(schema: Any) -> dict[str, list[str]]:
    """{column: names} of every ClassLabel, or list of them, in the metadata that `datasets` writes into its files."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    found = {}
    for column, feature in features.items():
        inner = feature[0] if isinstance(feature, list) and feature else feature
        inner = inner.get("feature", inner) if isinstance(inner, dict) else {}
        if isinstance(inner, dict) and isinstance(inner.get("names"), list):
            found[column] = [str(name) for name in inner["names"]]
    return found
