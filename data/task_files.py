"""Task files of every format to rows: jsonl, json, csv, tsv, conll, parquet, arrow, and folders of the Hugging Face hub.

A row is a plain dict of the file's own columns with the number of its line or record; what the rows mean is for
data.task_records. Every format but parquet and arrow may end in .gz. Lines may end in any way, mixed too.
"""

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.arrow import open_rows
from common.errors import UserError
from common.files import open_text, read_json

# What a split is called in the names of files and folders on the hub.
SPLIT_NAMES = {"train": ("train", "training"), "dev": ("dev", "validation", "valid", "val"), "test": ("test", "testing")}
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".conll", ".bio", ".iob", ".iob2", ".parquet", ".arrow")
_DESCRIPTIONS = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
_TAG = re.compile(r"O|[BIES]-\S+")


@dataclass
class TaskFile:
    """What one file held: `examples`; one dict per record set aside in `skipped`, and per record that was repaired or is
    doubtful but kept in `noted` ({"file", "line", "id", "reason"}); `notes` counts the latter by reason; `labels` names
    the classes or tags where the config or the file's own metadata does."""

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
        """Count and list what was repaired in a record that is used, or speaks against it."""
        self.notes[reason] += 1
        self.noted.append({"file": path.name, "line": line, "id": identity, "reason": reason})


def files_of(path: Path, split: str) -> list[Path]:
    """The file itself; of a folder, those files that its names give to `split` (train, dev, test), none if there are none.

    Layouts: train.csv, data/train-00000-of-00001.parquet, train/data-00000-of-00001.arrow. In a folder that names no
    split at all everything is train, as on the hub. Raises UserError where the folder holds the split twice.
    """
    if path.is_file():
        return [path]
    held = [(file, file.relative_to(path)) for file in sorted(path.rglob("*")) if file.is_file()]
    held = [(file, short) for file, short in held if not any(part.startswith((".", "_")) for part in short.parts)]
    held = [(file, short) for file, short in held if format_of(file) in FORMATS and file.name not in _DESCRIPTIONS]
    named = {file: _split_of(short) for file, short in held}
    if not any(named.values()):
        named = dict.fromkeys(named, "train")
    found = [file for file, name in named.items() if name == split]
    folders, formats = ({part(file) for file in found} for part in (lambda file: file.parent, format_of))
    if len(folders) > 1 or len(formats) > 1:
        listed = ", ".join(str(file.relative_to(path)) for file in found[:4])
        raise UserError(f"{path}: holds the {split} split more than once ({listed}). Set task.{split} to one file or folder.")
    return found


def _split_of(short: Path) -> str | None:
    for part in reversed(short.parts):
        words = re.split(r"[^a-z]+", part.lower())
        for split, names in SPLIT_NAMES.items():
            if any(name in words for name in names):
                return split
    return None


def format_of(path: Path) -> str:
    """The suffix that tells the format, .gz apart; "" without one."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes or [""])[-1]


def read_rows(path: Path, kind: str, loaded: TaskFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line or record number, row) of a file of any format; unreadable lines go to `loaded.skipped`.

    Raises UserError for a folder, an unknown format, a file that is damaged or no UTF-8.
    """
    suffix = format_of(path)
    if path.is_dir():
        raise UserError(
            f"{path}: this is a folder without a file for this split. Expected files named train, validation, test."
        )
    try:
        if suffix in (".jsonl", ".ndjson"):
            yield from _read_json_lines(path, loaded)
        elif suffix == ".json":
            yield from _read_json_file(path)
        elif suffix in (".csv", ".tsv"):
            yield from _read_table(path, suffix, loaded)
        elif suffix in (".parquet", ".arrow"):
            schema, rows = open_rows(path)
            loaded.names |= _class_names(schema)
            yield from enumerate(rows, start=1)
        elif kind == "tagging" and suffix in (".conll", ".bio", ".iob", ".iob2", ".txt"):
            yield from _read_conll(path, loaded)
        else:
            known = ".jsonl, .csv, .tsv, .json, .parquet, .arrow or (for tagging) .conll"
            raise UserError(f"{path}: format '{suffix}' is not read for {kind}. Use {known}.")
    except (UnicodeDecodeError, EOFError, OSError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}). Restore it, or save it as UTF-8, and try again.") from None


def _lines(path: Path, loaded: TaskFile, keep_ends: bool = False) -> Iterator[str]:
    """The lines of a text file, whether they end in \\n, \\r\\n or \\r; a mixture is noted."""
    with open_text(path) as file:
        file.reconfigure(newline="" if keep_ends else None)  # type: ignore[attr-defined]
        yield from file
        if isinstance(file.newlines, tuple):
            loaded.note(path, None, "", "lines end in different ways (\\n, \\r\\n, \\r)")


def _read_json_lines(path: Path, loaded: TaskFile) -> Iterator[tuple[int, dict[str, Any]]]:
    for line, text in enumerate(_lines(path, loaded), start=1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            loaded.skip(path, line, str(line), f"not valid JSON ({error.msg})")
            continue
        if isinstance(row, dict):
            yield line, row
        else:
            loaded.skip(path, line, str(line), "not a JSON object")


def _read_json_file(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UserError(f'{path}: expected the SQuAD layout {{"data": [...]}} or a list of records.')
    number = 0
    for row in content:
        if "paragraphs" not in row:
            number += 1
            yield number, row
            continue
        for paragraph in row["paragraphs"]:
            for question in paragraph.get("qas", []):
                number += 1
                yield number, {"title": row.get("title", ""), "context": paragraph.get("context"), **question}


def _read_table(path: Path, suffix: str, loaded: TaskFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Comma files are read by the csv rules. In tab files a lone quote is text (MRPC, SNLI are written so), and only a
    cell that is quoted as a whole, with every inner quote doubled (pandas writes so), is unquoted."""
    csv.field_size_limit(1 << 30)
    lines = _lines(path, loaded, keep_ends=True)
    reader: Any = csv.reader(lines) if suffix == ".csv" else csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    header = [name.strip() for name in next(reader, [])]
    if suffix == ".tsv":
        header = [_unquote(name) for name in header]
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise UserError(f"{path}: two columns are called {twice[0]!r}. Give each its own name in the first line.")
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(header):
            loaded.skip(path, reader.line_num, str(reader.line_num), "number of cells differs from the header's")
            continue
        if suffix == ".tsv":
            cells = [_unquote(cell) for cell in cells]  # noqa: PLW2901
        yield reader.line_num, dict(zip(header, cells, strict=True))


def _unquote(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', ""):
        return cell[1:-1].replace('""', '"')
    return cell


def read_words(path: Path, loaded: TaskFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """The sentences of a conll file whose words may come without tags (text to be tagged)."""
    return _read_conll(path, loaded, bare=True)


def _read_conll(path: Path, loaded: TaskFile, bare: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    words: list[str] = []
    tags: list[str] = []
    first, broken = 0, False

    def sentence() -> Iterator[tuple[int, dict[str, Any]]]:
        if broken:
            loaded.skip(path, first, str(first), "a line has a word but no tag")
        elif words:
            yield first, {"words": list(words), "tags": list(tags)}

    for line, raw in enumerate(_lines(path, loaded), start=1):
        text = raw.strip("\n")
        cells = text.split("\t") if "\t" in text else text.split()
        if not text.strip() or text.startswith("-DOCSTART-"):
            yield from sentence()
            words, tags, broken = [], [], False
            continue
        if text.startswith("# ") and not _TAG.fullmatch(cells[-1]):
            continue  # a comment of CoNLL-U; the word '#' itself ends in a tag
        first = first if words or broken else line
        if len(cells) < 2 and not bare:
            broken = True
            continue
        words.append(cells[0].strip())
        tags.append(cells[-1].strip())
    yield from sentence()


def _class_names(schema: Any) -> dict[str, list[str]]:
    """{column: names} of every ClassLabel, and list of them, in the metadata that `datasets` leaves in its files."""
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
