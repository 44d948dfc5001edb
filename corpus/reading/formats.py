"""Files of many formats to records: a bad record does not stop the reading but is returned as a reject with its place.

jsonl, json (one list of objects) and txt, each plain, .gz, .zst or .bz2, and what the other readers share. All are
streamed: a chunk of a file and one record of at most MAX_RECORD bytes are in memory, never the whole file, whatever its
unpacked size. Tables, Wikipedia dumps and web pages have their own modules: corpus.reading.tables, .wikipedia, .web.
"""

import contextlib
import json
import os
import re
import stat
import zlib
from bz2 import BZ2Decompressor
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple
from urllib.parse import urlsplit

from common.errors import UserError
from common.files import is_pointer
from common.tables import MAX_RECORD

RAW_SHOWN = 200  # characters of a rejected record that are kept for inspection
PIECE = 1 << 20  # bytes read, or returned by a decompressor, at once
PACKED_PIECE = {".gz": 16 << 10, ".bz2": 16 << 10, ".zst": 1 << 10}  # bytes fed at once; a zstd chunk may grow 32,000-fold
BOM = b"\xef\xbb\xbf"
COMPRESSIONS = (".gz", ".zst", ".bz2")
META_NAMES = {
    "url": ("url", "link", "source_url"),
    "title": ("title", "headline"),
    "site": ("site", "domain", "host", "hostname"),
    "date": ("date", "timestamp", "published", "publish_date", "created"),
}
META_LENGTH = 1000  # characters of one value
# Reasons that mean "not a document" rather than a fault: they are counted, but do not make a source a bad one.
EXPECTED = frozenset(["redirect", "not_an_article", "not_a_page", "empty_page"])


class Record(NamedTuple):
    """One document as read."""

    file: str
    line: int  # from 1: its first line, its row in a table, or its number in a json list or a WARC file; unique in a file
    text: str
    id: str | None
    meta: dict[str, str]  # url, title, site, date where the input has them, and the fields named by `columns`


class Reject(NamedTuple):
    """One record, or the rest of one file, that could not be read."""

    file: str
    line: int
    reason: str
    raw: str


class Damage(Exception):
    """The rest of a file cannot be read; what came before was complete."""


def shown(raw: bytes) -> str:
    """The beginning of some raw bytes, for inspection."""
    return raw[: 4 * RAW_SHOWN].decode("utf-8", errors="backslashreplace")[:RAW_SHOWN]


def unreadable(path: Path, label: str) -> Reject | None:
    """Why `path` cannot be read at all (a named pipe would block for ever), or None."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = next((word for test, word in _KINDS if test(mode)), "a device")
            return Reject(label, 1, "not_a_file", f"{path.name} is {kind}")
        if is_pointer(path):
            return Reject(label, 1, "git_lfs_pointer", f"{path.name} is a git-lfs pointer: run `git lfs pull` in its clone")
        return None
    except OSError as error:
        return Reject(label, 1, "unreadable_file", f"{path.name}: {error.strerror}"[:RAW_SHOWN])


_KINDS = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"))


def _zstd(packed: int):
    try:
        import zstandard
    except ImportError:
        raise UserError(".zst files need zstandard. pip install -r requirements.txt") from None
    # The window is memory that a file requests. 128 MiB is the library's default. Web crawls are packed with `zstd --long=31`,
    # a window of 2 GiB, which is granted to a file of at least 1/32 of that size.
    window = min(1 << 31, max(1 << 27, 32 * packed))
    return zstandard.ZstdDecompressor(max_window_size=window).decompressobj(), zstandard.ZstdError


def _decompressor(suffix: str, packed: int) -> tuple[Any, tuple[type[Exception], ...]]:
    """(decompressor of zlib, bz2 or zstd for one member, its errors on damage); `packed`: bytes of the file."""
    if suffix == ".gz":
        return zlib.decompressobj(wbits=31), (zlib.error,)
    if suffix == ".bz2":
        return BZ2Decompressor(), (OSError, EOFError, ValueError)
    unpack, error = _zstd(packed)
    return unpack, (error, EOFError)


def pieces(path: Path) -> Iterator[bytes]:
    """The decompressed bytes of a file in chunks of about 1 MiB; raises Damage where no more can be read."""
    try:
        with open(path, "rb") as file:
            if path.suffix in COMPRESSIONS:
                yield from unpack(file, path.suffix)
            else:
                while piece := file.read(PIECE):
                    yield piece
    except OSError as error:
        raise Damage(f"{type(error).__name__}: {error.strerror or error}") from None


def unpack(file: IO[bytes], suffix: str) -> Iterator[bytes]:
    """Every member of a compressed file, verified by its own checksum, in chunks of at most PIECE. Raises Damage."""
    data, member, members = b"", None, 0
    packed = os.fstat(file.fileno()).st_size
    errors: tuple[type[Exception], ...] = ()
    while True:
        if not data and getattr(member, "needs_input", True):
            data = file.read(PACKED_PIECE[suffix])
            if not data:
                break
        if member is None:
            data = data.lstrip(b"\0") if members else data  # padding between members, which gzip itself skips
            if not data:
                continue
            (member, errors), members = _decompressor(suffix, packed), members + 1
        try:
            out = member.decompress(data) if suffix == ".zst" else member.decompress(data, PIECE)
        except errors as error:
            raise Damage(f"{type(error).__name__}: {error} (compressed part {members})") from None
        data = getattr(member, "unconsumed_tail", b"")
        if member.eof:
            data, member = member.unused_data, None
        yield from (out[begin : begin + PIECE] for begin in range(0, len(out), PIECE))
    if member is not None or not members:
        raise Damage("EOFError: the file ends in the middle of its compressed data")


def lines(path: Path, label: str) -> Iterator[tuple[int, bytes] | Reject]:
    """Numbered lines without their ends. A line longer than MAX_RECORD is one reject, and so is the damaged rest of a file."""
    number, held, size, start = 1, [], 0, b""  # held: chunks of an unfinished line
    try:
        for piece in pieces(path):
            parts = piece.split(b"\n")
            for part in parts[:-1]:
                if size + len(part) > MAX_RECORD:
                    yield Reject(label, number, "too_long", shown(start or part))
                else:
                    line = b"".join([*held, part]) if held else part
                    yield number, (line.removeprefix(BOM) if number == 1 else line).rstrip(b"\r")
                number, held, size, start = number + 1, [], 0, b""
            if parts[-1]:
                start = start or parts[-1][: 4 * RAW_SHOWN]
                size += len(parts[-1])
                if size <= MAX_RECORD:
                    held.append(parts[-1])
                else:
                    held.clear()
        if size > MAX_RECORD:
            yield Reject(label, number, "too_long", shown(start))
        elif held:
            line = b"".join(held)
            yield number, (line.removeprefix(BOM) if number == 1 else line).rstrip(b"\r")
    except Damage as damage:
        yield Reject(label, number, "damaged_file", f"read up to line {number - 1}, then {damage}"[:RAW_SHOWN])


class Columns(NamedTuple):
    """The column of each field: candidate names in order of preference."""

    text: tuple[str, ...]
    id: tuple[str, ...]
    meta: dict[str, tuple[str, ...]]


def columns_of(options: dict[str, Any], text_names: tuple[str, ...] = ("text",)) -> Columns:
    """The columns that the options of a source name; the usual names for the others."""
    meta = dict(META_NAMES)
    if options.get("site"):
        meta["site"] = (options["site"],)
    meta |= {name: (column,) for name, column in (options.get("columns") or {}).items()}
    return Columns((options["text"],) if options.get("text") else text_names, (options.get("id") or "id",), meta)


def meta_of(values: dict[str, Any]) -> dict[str, str]:
    """Strings from the values of the columns; without a site column, the site is taken from the address."""
    meta = {}
    for name, value in values.items():
        if isinstance(value, str | int | float) and not isinstance(value, bool) and value != "":
            meta[name] = str(value)[:META_LENGTH].encode("utf-8", errors="replace").decode()
    if "site" not in meta and "url" in meta:
        try:
            host = urlsplit(meta["url"]).hostname
        except ValueError:  # such as an unclosed bracket
            host = None
        meta |= {"site": host.removeprefix("www.")} if host else {}
    return meta


def to_record(label: str, line: int, fields: dict[str, Any], columns: Columns, raw: bytes) -> Record | Reject:
    """One object or row as a record, or as a reject with its fault."""

    def first(names: tuple[str, ...]) -> Any:
        return next((fields[name] for name in names if fields.get(name) is not None), None)

    text, identifier = first(columns.text), first(columns.id)
    identifier = str(identifier) if isinstance(identifier, str | int) and identifier != "" else None
    reason = None
    if text is None:
        reason = "no_text"
    elif not isinstance(text, str):
        reason = "text_not_a_string"
    elif not text.strip():
        reason = "empty_text"
    else:
        try:
            (text + (identifier or "")).encode("utf-8")
        except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can produce
            reason = "lone_surrogate"
    if reason:
        return Reject(label, line, reason, shown(raw))
    return Record(label, line, text, identifier, meta_of({name: first(names) for name, names in columns.meta.items()}))


_decode = json.JSONDecoder(strict=False).decode  # json.loads would create one for each line


def _parse(label: str, line: int, raw: bytes, columns: Columns) -> Record | Reject:
    """One JSON text. Control characters inside strings are accepted and left to the cleaner."""
    try:
        fields = _decode(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return Reject(label, line, "invalid_utf8", shown(raw))
    except (ValueError, RecursionError):  # ValueError: also an integer of more than 4,300 digits
        return Reject(label, line, "not_json", shown(raw))
    if not isinstance(fields, dict):
        return Reject(label, line, "not_an_object", shown(raw))
    return to_record(label, line, fields, columns, raw)


def read_jsonl(path: Path, label: str, options: dict[str, Any]) -> Iterator[Record | Reject]:
    """One object a line; blank lines are skipped."""
    columns = columns_of(options)
    for item in lines(path, label):
        if isinstance(item, Reject):
            yield item
        elif item[1].strip():
            yield _parse(label, item[0], item[1], columns)


_STRING_REST = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)
_MARK = re.compile(rb'["\[\]{},]')


def read_json(path: Path, label: str, options: dict[str, Any]) -> Iterator[Record | Reject]:
    """One list of objects, or objects in sequence; a file with one object a line is read as jsonl."""
    first = b""
    with contextlib.suppress(Damage, StopIteration):
        first = next(pieces(path)).removeprefix(BOM).lstrip().split(b"\n", 1)[0]
    if first.startswith(b"{") and first.rstrip().endswith(b"}"):
        yield from read_jsonl(path, label, options)
        return
    columns = columns_of(options)
    for item in _values(path, label):
        yield item if isinstance(item, Reject) else _parse(label, item[0], item[1], columns)


def _until_damage(path: Path) -> Iterator[bytes | Damage]:
    """The chunks of a file; if it is damaged, the Damage comes last."""
    try:
        yield from pieces(path)
    except Damage as damage:
        yield damage


def _values(path: Path, label: str) -> Iterator[tuple[int, bytes] | Reject]:
    """(number from 1, bytes) of each value of a list, or of each object outside a list.

    Only quotes, brackets and commas are examined here, so an invalid value does not affect the others, unless its quotes or
    brackets are wrong.
    """
    held: list[bytes] = []  # of the unfinished value
    size, number = 0, 1  # bytes and number of that value: a list is often on a single line
    depth, in_string, escaped, in_list = 0, False, False, None  # depth: open brackets inside the value
    first, damage = True, None

    def finish() -> Iterator[tuple[int, bytes] | Reject]:
        nonlocal number, size
        value = b"".join(held)
        if size > MAX_RECORD:
            yield Reject(label, number, "too_long", shown(value))
        elif value:
            yield number, value.strip()
        number, size = number + bool(value), 0
        held.clear()

    def add(part: bytes) -> None:
        nonlocal size
        if size or part.strip():
            if size <= MAX_RECORD:
                held.append(part if size + len(part) <= MAX_RECORD else part[: 4 * RAW_SHOWN])
            size += len(part)

    for piece in _until_damage(path):
        if isinstance(piece, Damage):
            damage = piece
            break
        if first:
            piece, first = piece.removeprefix(BOM), False  # noqa: PLW2901
        at = begin = 0
        while at < len(piece):
            if in_string:
                if escaped:
                    at, escaped = at + 1, False
                at = _STRING_REST.match(piece, at).end()
                if at < len(piece):
                    escaped, in_string = piece[at : at + 1] == b"\\", piece[at : at + 1] != b'"'
                    at += 1
                continue
            mark = _MARK.search(piece, at)
            if not mark:
                break
            at, sign = mark.end(), mark.group()
            if sign == b'"':
                in_string = True
            elif sign in b"[{":
                if not depth and in_list is None and sign == b"[":  # the list that makes up the file
                    add(piece[begin : at - 1])
                    yield from finish()
                    in_list, begin = True, at
                    continue
                in_list = False if in_list is None else in_list
                depth += 1
            elif sign == b"," and depth:
                continue
            else:
                depth -= sign != b","
                if not in_list and depth <= 0:  # this bracket completes the object
                    add(piece[begin:at])
                elif in_list and (sign == b"," or depth < 0):
                    add(piece[begin : at - 1])
                else:
                    continue
                yield from finish()
                begin, depth = at, max(depth, 0)
                if in_list and sign == b"]":
                    in_list = False
        add(piece[begin:])
    whole = not damage and not in_list and not depth and not in_string
    if not damage and not depth and not in_string:
        yield from finish()
    if not whole:
        why = damage or "the file ends inside its list"
        yield Reject(label, number, "damaged_file", f"read up to value {number - 1}, then {why}"[:RAW_SHOWN])


def read_text(path: Path, label: str, options: dict[str, Any]) -> Iterator[Record | Reject]:
    """Documents separated by blank lines; a file without a blank line inside has one document a line."""
    by_line = not _has_blank_line_inside(path, label)
    paragraph = bytearray()  # not a list of lines: a million short ones would take many times their bytes
    start = size = 0

    def finish() -> Iterator[Record | Reject]:
        if size > MAX_RECORD:
            yield Reject(label, start, "too_long", shown(bytes(paragraph[: 4 * RAW_SHOWN])))
        elif paragraph:
            yield Record(label, start, paragraph[:-1].decode("utf-8"), None, {})
        paragraph.clear()

    for item in lines(path, label):
        if isinstance(item, Reject):
            if item.reason == "damaged_file":
                yield from finish()
            yield item
            continue
        number, line = item
        if not line.strip():
            yield from finish()
            continue
        try:
            decoded = line.decode("utf-8")
        except UnicodeDecodeError:
            yield Reject(label, number, "invalid_utf8", shown(line))
            continue
        if by_line:
            yield Record(label, number, decoded, None, {})
            continue
        start, size = (number, 0) if not paragraph else (start, size)
        size += len(line)
        if size <= MAX_RECORD or not paragraph:
            paragraph += line + b"\n"
    yield from finish()


def _has_blank_line_inside(path: Path, label: str) -> bool:
    """Whether a blank line stands between two that are not blank; stops reading at the first one."""
    seen = blank_after = False
    for item in lines(path, label):
        if isinstance(item, Reject):
            if item.reason == "damaged_file":
                break
            continue
        blank = not item[1].strip()
        if not blank and blank_after:
            return True
        seen = seen or not blank
        blank_after = seen and (blank_after or blank)
    return False
