"""The user's files, folders, globs and hub data sets to named sources, and sources to records.

A bad record does not stop the reading but is returned as a reject with file, line and reason. The formats are in
corpus.reading.formats, corpus.reading.tables, corpus.reading.wikipedia and corpus.reading.web.
"""

import functools
import glob
import itertools
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import UserError
from common.files import ROOT, sha256_file
from common.hub import HUB, fetch
from corpus.reading.formats import (
    COMPRESSIONS,
    EXPECTED,
    Record,
    Reject,
    read_json,
    read_jsonl,
    read_text,
    unreadable,
)
from corpus.reading.hub_files import hub_files
from corpus.reading.tables import read_columns, read_csv
from corpus.reading.web import read_html, read_warc
from corpus.reading.wikipedia import read_wikipedia

__all__ = ["EXPECTED", "ROOT", "Record", "Reject", "Source", "file_identity", "find_sources", "read_file", "read_records"]

READERS = {
    "jsonl": read_jsonl,
    "json": read_json,
    "csv": read_csv,
    "tsv": functools.partial(read_csv, delimiter="\t"),
    "txt": read_text,
    "parquet": read_columns,
    "arrow": read_columns,
    "wikipedia": read_wikipedia,
    "html": read_html,
    "warc": read_warc,
}
ENDINGS = {  # of file names; each may be followed by one of COMPRESSIONS, except the two that are compressed already
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".txt": "txt",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".xml": "wikipedia",
    ".html": "html",
    ".htm": "html",
    ".warc": "warc",
    ".wet": "warc",
}
# Metadata files beside the data of a Hugging Face data set, and the index of a Wikipedia dump.
_BESIDE = re.compile(r"\A(?:(dataset_infos?|state|dataset_dict)\.json|.*-index\d*\.txt(-p\d+p\d+)?(\.bz2|\.gz)?)")
ENTRY_KEYS = {
    "name",
    "path",
    "weight",
    "licence",
    "format",
    "text",
    "id",
    "site",
    "columns",
    "workers",
    "stream",
}
OPTION_KEYS = {"format": str, "text": str, "id": str, "site": str, "columns": dict, "workers": int, "stream": bool}


class Source(NamedTuple):
    """One source of the corpus: a name, its files in a fixed order, its weight in the mixture, its licence."""

    name: str
    files: list[Path]
    labels: list[str]  # each file's name in the records: relative to the source's path
    weight: float
    licence: str
    options: dict[str, Any]  # of read_file: format, text, id, site, columns ...; plain values that can be pickled


def format_of(path: Path) -> str | None:
    """The format that the name of `path` indicates, or None; hidden files and metadata files have none."""
    name = path.name.lower()
    if name.startswith(".") or _BESIDE.fullmatch(name):
        return None
    packed = name.endswith(COMPRESSIONS)
    kind = ENDINGS.get(Path(name.rsplit(".", 1)[0] if packed else name).suffix)
    return None if packed and kind in ("parquet", "arrow") else kind


def stem_of(path: Path) -> str:
    """File name without its format: news.jsonl.gz gives news."""
    endings = "|".join(re.escape(ending) for ending in ENDINGS)
    return re.sub(rf"({endings})(\.gz|\.zst|\.bz2)?$", "", path.name, flags=re.IGNORECASE)


def find_sources(
    path: str | Path | None = None,
    sources: list[dict[str, Any]] | None = None,
    weights: dict[str, float] | None = None,
    licence: str | None = None,
) -> tuple[list[Source], list[str]]:
    """The sources that a corpus' settings name, and the files in its folder whose format is not read.

    With `sources`, each entry is {name, path, weight, licence} and, where the usual names do not fit, `format`, `text`, `id`,
    `site` (columns), `columns` ({field: column}). Its path is a file, a folder, a glob or
    hub://owner/name/config-or-glob@revision, relative to `path` if that is set. Without `sources`, every file in the folder
    `path` is one source. `weights` (by source name) and `licence` are defaults for entries without their own. Data sets of
    the hub are downloaded into its cache; with `stream` only when they are read. Raises UserError for a missing path, a
    folder without usable files, a duplicate or unusable name, an unknown key, a weight that is not a positive number, and a
    hub that cannot be reached.
    """
    ignored: list[str] = []

    def source(entry: dict[str, Any], options: dict[str, Any], base: Path | None, where: str) -> Source:
        shared = {"weight": (weights or {}).get(str(entry["name"])), "licence": licence}
        return _source(
            shared | {key: value for key, value in entry.items() if value not in (None, "")}, options, base, where, ignored
        )

    if sources:
        base = _existing(path, "corpus.path") if path else None
        found = []
        for number, entry in enumerate(sources):
            where = f"corpus.sources[{number}]"
            if not hasattr(entry, "items"):
                raise UserError(f"{where}: {entry!r} is no entry; expected {{name: ..., path: ...}}. Correct it.")
            unknown = set(entry) - ENTRY_KEYS
            if unknown or not entry.get("name") or not entry.get("path"):
                wrong = f"unknown key {sorted(unknown)[0]}" if unknown else "name and path are needed"
                raise UserError(f"{where}: {wrong}; expected {', '.join(sorted(ENTRY_KEYS))}. Correct the entry.")
            found.append(source(entry, _options(entry, where), base, where))
    else:
        if not path:
            raise UserError("corpus.path: no folder given. Set corpus.path=FOLDER or list corpus.sources.")
        given = str(path)
        if given.startswith(HUB):
            name = given.removeprefix(HUB).split("@")[0].split("/")[1:2] or ["hub"]
            found = [source({"name": name[0], "path": given}, {}, None, "corpus")]
        else:
            folder, there = given, _globbed(given)
            if not there:
                folder = _existing(given, "corpus.path")
                there = sorted(folder.iterdir()) if folder.is_dir() else [folder]
            files = [entry for entry in there if _is_data(entry, False)] if there != [folder] else there
            ignored += [_named(entry, entry.name) for entry in there if entry not in files and entry.name[0] != "."]
            found = [source({"name": stem_of(file), "path": file}, {}, None, "corpus") for file in files]
            if not found:
                raise UserError(
                    f"{folder}: no usable file ({len(ignored)} of other formats). "
                    f"Put files there that end in {_endings()}, or point corpus.path elsewhere."
                )
    names = [one.name for one in found]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"corpus: two sources are called {name!r}. Give each source a name of its own.")
    strange = set(weights or {}) - set(names)
    if strange:
        raise UserError(f"corpus.weights: no source is called {sorted(strange)[0]!r}; there are {', '.join(names)}.")
    return found, ignored


def _endings() -> str:
    return f"{', '.join(ENDINGS)} (and {', '.join(COMPRESSIONS)} after them)"


def _options(entry: dict[str, Any], where: str) -> dict[str, Any]:
    """The part of an entry that read_file needs, as plain values."""
    options = {}
    for key, kind in OPTION_KEYS.items():
        value = entry.get(key)
        if value is None:
            continue
        value = dict(value) if hasattr(value, "items") else value
        if not isinstance(value, kind) or (kind is int and (isinstance(value, bool) or value < 1)):
            expected = {dict: "a mapping {kept as: column}", int: "a whole number from 1"}.get(kind, f"a {kind.__name__}")
            raise UserError(f"{where}.{key}={value!r}: expected {expected}. Correct the entry.")
        if key == "format" and value not in READERS:
            raise UserError(f"{where}.format={value}: no such format. There are {', '.join(READERS)}.")
        if kind is dict and not all(isinstance(word, str) for pair in value.items() for word in pair):
            raise UserError(f"{where}.{key}={value!r}: expected names on both sides, such as {{title: headline}}. Correct it.")
        options[key] = value
    return options


def _globbed(path: str | Path) -> list[Path]:
    """The sorted matches of a glob; [] for a path without * or ?, or one that exists as it is."""
    given = str(Path(path).expanduser())
    if not glob.has_magic(given) or Path(given).exists():
        return []
    for candidate in (given, str(ROOT / given)):
        if found := sorted(Path(match) for match in glob.glob(candidate, recursive=True)):
            return found
    return []


def _is_data(path: Path, is_given: bool) -> bool:
    """Whether a path found in a folder is read: a file, or a broken link (which must be reported)."""
    if path.name.startswith(".") or not (is_given or format_of(path)):
        return False
    return path.is_file() or (path.is_symlink() and not path.exists())


def _named(path: Path, label: str) -> str:
    """An ignored path as the report shows it, with a remark if it is not a file."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return label
    return label if stat.S_ISREG(mode) or not format_of(path) else f"{label} (not a file)"


def _existing(path: str | Path, key: str) -> Path:
    """A path of the config: as given, or else relative to this checkout (for the demo's text)."""
    for candidate in (Path(path).expanduser(), ROOT / path):
        if candidate.exists() or candidate.is_symlink():  # a broken link is accepted here and reported when it is read
            return candidate
    raise UserError(f"{key}={path}: no such file or folder. Correct the path.")


def _source(entry, options, base: Path | None, where: str, ignored: list[str]) -> Source:
    name, given = str(entry["name"]), entry["path"]
    if not re.fullmatch(r"[^\W_][\w .+-]{0,99}", name):
        raise UserError(f"corpus: {name!r} cannot name a source. Use letters, digits, space and . _ + - ({given}).")
    is_given = "format" in options
    if str(given).startswith(HUB):
        usable = None if is_given else (lambda held: format_of(Path(held)) is not None)
        files, labels, hub = hub_files(str(given), usable, bool(options.get("stream")))
        options = {**options, "hub": hub}
    else:
        place = base / str(given) if base else given
        files = _globbed(place)
        path = Path(place) if files else _existing(place, f"{where}.path")
        if files:
            root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), path.expanduser().parts))
            files, strays = _parted(_expanded(files), is_given)
            labels = [_relative(file, root) for file in files]
        elif path.is_dir():
            files, strays = _parted(sorted(path.rglob("*")), is_given)
            labels = [file.relative_to(path).as_posix() for file in files]
            root = path
        elif is_given or format_of(path):
            files, labels, strays, root = [path], [path.name], [], path.parent
        else:
            raise UserError(f"{path}: not a format we read. Convert it to one of {_endings()}, or name its `format`.")
        ignored += [_named(stray, _relative(stray, root)) for stray in strays]
        if not files:
            raise UserError(f"{path}: no usable file for source {name!r}. Files must end in {_endings()}.")
    weight = 1.0 if entry.get("weight") is None else entry["weight"]
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight < 1e6:
        raise UserError(f"corpus: weight {weight!r} of source {name!r} is not a positive number. Correct it.")
    return Source(name, files, labels, float(weight), str(entry.get("licence") or "unknown"), options)


def _expanded(found: list[Path]) -> list[Path]:
    """Folders matched by a glob are replaced by their contents."""
    whole = [inner for path in found for inner in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    return list(dict.fromkeys(whole))


def _parted(found: list[Path], is_given: bool) -> tuple[list[Path], list[Path]]:
    """(files to read, ignored paths): plain folders are in neither, because their files are listed."""
    files = [path for path in found if _is_data(path, is_given)]
    kept = set(files)
    return files, [path for path in found if path not in kept and (not path.is_dir() or format_of(path))]


def _relative(path: Path, root: Path) -> str:
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def read_file(path: Path, label: str, options: dict[str, Any]) -> Iterator[Record | Reject]:
    """Every document and every fault of one file, in order; all arguments can be pickled.

    `label` is the file's name in the records, `options` are those of its source. Raises UserError only for problems that no
    record causes: a missing package, a hub that cannot be reached.
    """
    path = Path(path)
    fetched = options.get("stream") and "hub" in options and not path.exists()
    if fetched:
        path = fetch(options["hub"], label)
    fault = unreadable(path, label)
    kind = options.get("format") or format_of(path)
    try:
        if fault:
            yield fault
        elif kind is None:
            yield Reject(label, 1, "unknown_format", f"the name of {path.name} says no format that is read")
        else:
            yield from READERS[kind](path, label, options)
    finally:
        if fetched:  # streamed: one file at a time is on disk
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)


def file_identity(path: Path, options: dict[str, Any]) -> list[Any]:
    """[bytes, SHA-256] of a file, or substitutes where they cannot be computed: never waits, never raises."""
    path = Path(path)
    if options.get("stream") and "hub" in options and not path.exists():
        return [options["hub"].commit, str(path)]
    fault = unreadable(path, path.name)
    if fault:
        return [fault.reason, fault.raw]
    try:
        return [path.stat().st_size, sha256_file(path)]
    except OSError as error:
        return ["unreadable_file", str(error)]


def read_records(source: Source) -> Iterator[Record | Reject]:
    """Every document and every fault of one source, in the order of its files and lines."""
    for path, label in zip(source.files, source.labels, strict=True):
        yield from read_file(path, label, source.options)
