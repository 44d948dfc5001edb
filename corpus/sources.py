"""Raw files to records. A bad line never stops the reading: it comes back as a reject with file, line and reason.

Formats: .jsonl and .jsonl.gz (one object a line with a string `text`, optionally `id`), .txt and .txt.gz (documents
parted by blank lines; without any blank line inside, one document a line).
"""

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from common.errors import UserError

FORMATS = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz")
RAW_SHOWN = 200  # characters of a rejected line that are kept for a person to look at
BOM = b"\xef\xbb\xbf"
ROOT = Path(__file__).resolve().parent.parent


class Source(NamedTuple):
    """One source of the corpus: a name, its files in a fixed order, its weight in the mixture, its licence."""

    name: str
    files: list[Path]
    labels: list[str]  # each file as the records name it: relative to the source's path
    weight: float
    licence: str


class Record(NamedTuple):
    """One document as it was read."""

    file: str
    line: int  # from 1; the first line of the document
    text: str
    id: str | None


class Reject(NamedTuple):
    """One line, or the rest of one file, that could not be read."""

    file: str
    line: int
    reason: str
    raw: str


def is_readable(path: Path) -> bool:
    """Whether the name of `path` says a format that we read."""
    return path.name.endswith(FORMATS) and not path.name.startswith(".")


def stem_of(path: Path) -> str:
    """File name without its format: news.jsonl.gz is news."""
    return re.sub(r"\.(jsonl|txt)(\.gz)?$", "", path.name)


def find_sources(settings: dict[str, Any]) -> tuple[list[Source], list[str]]:
    """The sources that `settings` names, and the files in its folder that have no format we read.

    With `sources` each entry is {name, path, weight, licence}, its path relative to `path` if that is set; without,
    every file in the folder `path` is one source. Raises UserError for a missing path, a folder without usable files,
    a name that is given twice or cannot be a file name, and a weight that is not a positive number.
    """
    ignored: list[str] = []
    if settings.get("sources"):
        base = _existing(settings["path"], "corpus.path") if settings.get("path") else None
        sources = []
        for number, entry in enumerate(settings["sources"]):
            where = f"corpus.sources[{number}]"
            unknown = set(entry) - {"name", "path", "weight", "licence"}
            if unknown or not entry.get("name") or not entry.get("path"):
                wrong = f"unknown key {sorted(unknown)[0]}" if unknown else "name and path are needed"
                raise UserError(f"{where}: {wrong}; expected name, path, weight, licence. Correct the entry.")
            path = _existing(base / entry["path"] if base else entry["path"], f"{where}.path")
            sources.append(_source(entry, path, settings, ignored))
    else:
        if not settings.get("path"):
            raise UserError("corpus.path: no folder given. Set corpus.path=FOLDER or list corpus.sources.")
        folder = _existing(settings["path"], "corpus.path")
        if folder.is_dir():
            entries = sorted(folder.iterdir())
            files = [entry for entry in entries if entry.is_file() and is_readable(entry)]
            ignored += [entry.name for entry in entries if entry not in files and not entry.name.startswith(".")]
        else:
            files = [folder]
        sources = [_source({"name": stem_of(file)}, file, settings, ignored) for file in files]
        if not sources:
            raise UserError(
                f"{folder}: no usable file ({len(ignored)} of other formats). "
                f"Put files there that end in {', '.join(FORMATS)}, or point corpus.path elsewhere."
            )
    names = [source.name for source in sources]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"corpus: two sources are called {name!r}. Give each source a name of its own.")
    strange = set(settings.get("weights") or {}) - set(names)
    if strange:
        raise UserError(f"corpus.weights: no source is called {sorted(strange)[0]!r}; there are {', '.join(names)}.")
    return sources, ignored


def _existing(path: str | Path, key: str) -> Path:
    """A path of the config: as given, or else relative to this checkout (where the demo's text lies)."""
    for candidate in (Path(path).expanduser(), ROOT / path):
        if candidate.exists():
            return candidate
    raise UserError(f"{key}={path}: no such file or folder. Correct the path.")


def _source(entry: dict[str, Any], path: Path, settings: dict[str, Any], ignored: list[str]) -> Source:
    name = str(entry["name"])
    if not re.fullmatch(r"[^\W_][\w .+-]{0,99}", name):
        raise UserError(f"corpus: {name!r} cannot name a source. Use letters, digits, space and . _ + - ({path}).")
    if path.is_dir():
        entries = [entry for entry in sorted(path.rglob("*")) if entry.is_file()]
        files = [entry for entry in entries if is_readable(entry)]
        labels = [file.relative_to(path).as_posix() for file in files]
        ignored += [entry.relative_to(path).as_posix() for entry in entries if entry not in files]
        if not files:
            raise UserError(f"{path}: no usable file for source {name!r}. Files must end in {', '.join(FORMATS)}.")
    elif is_readable(path):
        files, labels = [path], [path.name]
    else:
        raise UserError(f"{path}: not a format we read. Convert it to one of {', '.join(FORMATS)}.")
    weight, licence = entry.get("weight"), entry.get("licence")
    if weight is None:
        weight = (settings.get("weights") or {}).get(name, 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e6:
        raise UserError(f"corpus: weight {weight!r} of source {name!r} is not a positive number. Correct it.")
    return Source(name, files, labels, float(weight), str(licence or settings.get("licence") or "unknown"))


def read_records(source: Source) -> Iterator[Record | Reject]:
    """Every document and every fault of one source, in the order of its files and lines.

    Raises UserError when a file cannot be opened at all.
    """
    for path, label in zip(source.files, source.labels, strict=True):
        if path.name.removesuffix(".gz").endswith(".jsonl"):
            yield from _read_jsonl(path, label)
        else:
            yield from _read_text(path, label)


def _open(path: Path) -> IO[bytes]:
    try:
        return gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({error.strerror}). Check its permissions.") from None


def _lines(path: Path, label: str) -> Iterator[tuple[int, bytes] | Reject]:
    """Numbered lines without their ends. A damaged file gives what can be read, then one reject."""
    number = 0
    with _open(path) as file:
        try:
            for number, line in enumerate(file, start=1):
                yield number, (line.removeprefix(BOM) if number == 1 else line).rstrip(b"\r\n")
        except (EOFError, OSError, zlib.error) as error:
            yield Reject(label, number + 1, "damaged_file", f"{type(error).__name__}: {error}"[:RAW_SHOWN])


def _shown(line: bytes) -> str:
    return line[: 4 * RAW_SHOWN].decode("utf-8", errors="backslashreplace")[:RAW_SHOWN]


def _read_jsonl(path: Path, label: str) -> Iterator[Record | Reject]:
    for item in _lines(path, label):
        if isinstance(item, Reject):
            yield item
            continue
        number, line = item
        if not line.strip():
            continue
        text, identifier, reason = _parse(line)
        yield Reject(label, number, reason, _shown(line)) if reason else Record(label, number, text, identifier)


def _parse(line: bytes) -> tuple[str, str | None, str | None]:
    """(text, id, None), or ("", None, reason). Control characters inside strings are let through for the cleaner."""
    try:
        decoded = line.decode("utf-8")
    except UnicodeDecodeError:
        return "", None, "invalid_utf8"
    try:
        record = json.loads(decoded, strict=False)
    except (ValueError, RecursionError):
        return "", None, "not_json"
    if not isinstance(record, dict):
        return "", None, "not_an_object"
    text, identifier = record.get("text"), record.get("id")
    if text is None:
        return "", None, "no_text"
    if not isinstance(text, str):
        return "", None, "text_not_a_string"
    if not text.strip():
        return "", None, "empty_text"
    identifier = str(identifier) if isinstance(identifier, str | int) and identifier != "" else None
    try:
        (text + (identifier or "")).encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can smuggle in
        return "", None, "lone_surrogate"
    return text, identifier, None


def _read_text(path: Path, label: str) -> Iterator[Record | Reject]:
    by_line = not _has_blank_line_inside(path, label)
    paragraph: list[str] = []
    start = 0
    for item in _lines(path, label):
        if isinstance(item, Reject):
            yield item
            continue
        number, line = item
        if not line.strip():
            if paragraph:
                yield Record(label, start, "\n".join(paragraph), None)
                paragraph = []
            continue
        try:
            decoded = line.decode("utf-8")
        except UnicodeDecodeError:
            yield Reject(label, number, "invalid_utf8", _shown(line))
            continue
        if by_line:
            yield Record(label, number, decoded, None)
        else:
            start = number if not paragraph else start
            paragraph.append(decoded)
    if paragraph:
        yield Record(label, start, "\n".join(paragraph), None)


def _has_blank_line_inside(path: Path, label: str) -> bool:
    """Whether a blank line stands between two that are not; reads no further than the first such place."""
    seen = blank_after = False
    for item in _lines(path, label):
        if isinstance(item, Reject):
            break
        blank = not item[1].strip()
        if not blank and blank_after:
            return True
        seen = seen or not blank
        blank_after = seen and (blank_after or blank)
    return False
