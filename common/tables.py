"""Tables row by row in little memory: csv and tsv with strict quoting, parquet and arrow in batches of records.

A row that cannot be read is returned in its place and does not affect others. Callers decide whether to stop there.
"""

import csv
import re
import struct
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common.arrow_messages import MAGIC, messages
from common.errors import UserError
from common.files import refuse_pointer

MAX_RECORD = 32 << 20  # bytes; a longer line or quoted record is not held in memory: the longest book is 10 MB
BATCH, BATCH_BYTES = 200, 64 << 20  # rows of a parquet file that are decoded at once: a megabyte of usual web text
# A column of one row group, or an arrow batch, that unpacks to more than this and to this many times its packed size is
# taken for damage: text packs 3 to 20 times. A page or batch is unpacked as a whole, so else a file of a kilobyte would
# decide how much memory reading it takes.
MOST_UNPACKED, MOST_RATIO = 256 << 20, 200
DELIMITERS = (",", "\t", ";", "|")
_SEPARATOR = re.compile(rb"sep=([,\t;|])")
_QUOTED = re.compile(rb'"[^"]*"')
ARROW_ROWS = 10_000  # rows of an arrow batch, which is in memory as a whole, that become Python's at once
INVALID = object()  # stands for a value that is not UTF-8
PYARROW = ".parquet and .arrow files need pyarrow. pip install -r requirements.txt"


class Row(NamedTuple):
    """One row of a csv or tsv file; the first of a file is its header."""

    line: int  # from 1: where the row begins
    cells: list[str]
    fault: str  # "", or not_csv (bad quotes), invalid_utf8, wrong_columns (`cells` are those that it has)
    raw: bytes


class Lost(NamedTuple):
    """Rows of a parquet or arrow file that cannot be read."""

    reason: str  # damaged_file: everything from here on; damaged_rows: some rows, and reading goes on after them
    detail: str


def csv_rows(lines: Iterable[tuple[int, bytes] | Any], delimiter: str = ",") -> Iterator[Row | Any]:
    """Rows from numbered lines (with or without line ends); other items of `lines` are passed on in their place.

    A quoted field may hold line ends. A quote that never closes, or that closes in a row with another number of fields
    than the header, costs its own line alone: the lines below are read as rows of their own. Most writers of .tsv know no
    quoting, so in a tab file a line with the header's number of tabs is a row, and only a field that is quoted as a whole
    is unquoted. Blank lines are passed over. A header that lacks the delimiter and has another sign of DELIMITERS is parted
    by that one throughout, and a line sep=; before it names it, as spreadsheets write it.
    """
    csv.field_size_limit(MAX_RECORD)  # the library's own limit of 128 KiB is shorter than a chapter
    ahead: deque = deque()
    stream = iter(lines)
    width: int | None = None
    while (item := ahead.popleft() if ahead else next(stream, None)) is not None:
        if isinstance(item, Row) or not isinstance(item, tuple) or len(item) != 2 or not isinstance(item[1], bytes):
            yield item
            continue
        number, line = item
        if not line.strip():
            continue
        raw = line.rstrip(b"\r\n")
        if width is None:
            if named := _SEPARATOR.fullmatch(raw):
                delimiter = named[1].decode()
                continue
            delimiter = _delimiter(raw, delimiter)
        if delimiter == "\t" and (width is None or raw.count(b"\t") + 1 == width):
            row = _plain(raw, "\t")
        else:
            row = _split(raw, delimiter)
        if row is None and line.count(b'"') % 2:
            taken = _more_lines(line, ahead, stream)
            joined = b"".join(_ended(part) for part in [line, *(part for _, part in taken)]).rstrip(b"\r\n")
            row = _split(joined, delimiter) if taken else None
            if row is None or (width is not None and len(row) != width):
                ahead.extendleft(reversed(taken))
                row = None
            else:
                raw = joined
        if row is None or isinstance(row, UnicodeDecodeError):
            yield Row(number, [], "not_csv" if row is None else "invalid_utf8", raw)
            width = width or 0  # an unreadable header gives no number of columns
        elif width is None:
            width = len(row)
            yield Row(number, [name.strip() for name in row], "", raw)
        else:
            yield Row(number, row, "" if len(row) == width else "wrong_columns", raw)


def _delimiter(header: bytes, usual: str) -> str:
    """The sign that parts the columns of a table: the usual one, or where the header lacks it the commonest other."""
    bare = _QUOTED.sub(b"", header)
    counts = {sign: bare.count(sign.encode()) for sign in DELIMITERS}
    return usual if counts[usual] or not any(counts.values()) else max(counts, key=counts.__getitem__)


def _ended(line: bytes) -> bytes:
    return line if line.endswith((b"\n", b"\r")) else line + b"\n"


def _plain(line: bytes, delimiter: str) -> list[str] | UnicodeDecodeError:
    """The fields of a line without quoting, except fields that are quoted as a whole with inner quotes doubled."""
    try:
        cells = line.decode("utf-8").split(delimiter)
    except UnicodeDecodeError as error:
        return error
    return [_unquoted(cell) for cell in cells] if b'"' in line else cells


def _unquoted(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', ""):
        return cell[1:-1].replace('""', '"')
    return cell


def _split(line: bytes, delimiter: str) -> list[str] | UnicodeDecodeError | None:
    """The fields of a whole record; None if its quotes are wrong or not closed."""
    if b'"' not in line:
        return _plain(line, delimiter)
    try:
        return next(csv.reader([line.decode("utf-8")], delimiter=delimiter, strict=True))
    except UnicodeDecodeError as error:
        return error
    except (csv.Error, StopIteration):
        return None


def _more_lines(line: bytes, ahead: deque, stream: Iterator) -> list[tuple[int, bytes]]:
    """The lines after `line` up to the one that closes its quote, removed from `ahead`; [] if it never closes."""
    taken: list[tuple[int, bytes]] = []
    quotes, size = line.count(b'"'), len(line)
    while quotes % 2 and size <= MAX_RECORD:
        item = ahead.popleft() if ahead else next(stream, None)
        if item is None or not isinstance(item[1], bytes):
            ahead.extendleft([item] if item else [])
            break
        taken.append(item)
        quotes, size = quotes + item[1].count(b'"'), size + len(item[1])
    if quotes % 2:
        ahead.extendleft(reversed(taken))
        return []
    return taken


def formula_free(row: Iterable[Any]) -> list[Any]:
    """The cells of a csv row that is safe for spreadsheets: text that would run as a formula gets an apostrophe in front.

    Such text begins with = + - @, a tab or a line end (OWASP, "CSV injection"); numbers are not changed.
    """
    return [f"'{cell}" if isinstance(cell, str) and cell[:1] in _FORMULA and not _is_number(cell) else cell for cell in row]


_FORMULA = tuple("=+-@\t\r\n")


def _is_number(text: str) -> bool:
    try:
        float(text)
        return True
    except ValueError:
        return False


# ---------------------------------------------------------------- parquet and arrow


def _arrow() -> Any:
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise UserError(PYARROW) from None
    return pyarrow


def _faults() -> tuple[type[Exception], ...]:
    return (_arrow().ArrowException, OSError, ValueError, UnicodeDecodeError, MemoryError)


def read_batches(path: Path, choose: Callable[[list[str]], list[str]] | None = None) -> Iterator[tuple[int, Any]]:
    """(number of its first row from 1, record batch or Lost) of a .parquet or .arrow file, or an arrow stream.

    `choose` selects columns of a parquet file; an arrow file gives all columns. Raises UserError for a git-lfs pointer.
    """
    refuse_pointer(path)
    yield from (_parquet_batches if path.suffix.lower() == ".parquet" else _arrow_batches)(path, choose)


def _parquet_batches(path: Path, choose: Callable[[list[str]], list[str]] | None) -> Iterator[tuple[int, Any]]:
    """Row group by row group: a damaged row group is lost, and reading goes on with the next one."""
    pa, faults = _arrow(), _faults()
    try:
        with pa.parquet.ParquetFile(path) as file:
            names, strings = file.schema_arrow.names, _repeated_strings(file)
        file = pa.parquet.ParquetFile(path, buffer_size=1 << 20, page_checksum_verification=True, read_dictionary=strings)
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    except faults as error:
        yield 1, Lost("damaged_file", f"read up to row 0, then {type(error).__name__}: {error}")
        return
    wanted = names if choose is None else choose(names) or names[:1]
    with file:
        start = 1
        for group, size in enumerate(sizes):
            held, fault = _unpacked(file.metadata.row_group(group), set(wanted))
            row, rows = start, max(1, min(BATCH, BATCH_BYTES * size // max(1, held)))
            try:
                for batch in file.iter_batches(batch_size=rows, row_groups=[group], columns=wanted) if not fault else ():
                    yield row, batch
                    row += batch.num_rows
            except faults as error:
                fault = f"{type(error).__name__}: {error}"
            if fault or row != start + size:
                why = fault or "the row group ends early"
                yield row, Lost("damaged_rows", f"rows {row} to {start + size - 1} are lost: {why}")
            start += size
            pa.default_memory_pool().release_unused()  # otherwise the pool keeps the memory of the row group


def _repeated_strings(file: Any) -> list[str]:
    """Text columns that the file stores as a dictionary: they stay so in memory, because one value of 30 MB may occur 200
    times in a batch."""
    metadata, found = file.metadata, set()
    flat = {field.name for field in file.schema_arrow if str(field.type) in ("string", "large_string")}
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for place in range(metadata.num_columns):
            column = row_group.column(place)
            if column.path_in_schema in flat and any("DICTIONARY" in name for name in column.encodings):
                found.add(column.path_in_schema)
    return sorted(found)


def _unpacked(row_group: Any, wanted: set[str]) -> tuple[int, str]:
    """(bytes of the wanted columns of a row group, why it is too large to unpack or "")."""
    whole = 0
    for place in range(row_group.num_columns):
        column = row_group.column(place)
        if column.path_in_schema.split(".")[0] in wanted:
            size = column.total_uncompressed_size
            whole += size
            if fault := _too_large(f"column {column.path_in_schema}", column.total_compressed_size, size):
                return whole, fault
    return whole, ""


def _too_large(what: str, packed: int, unpacked: int) -> str:
    """What makes packed data too large to unpack, "" if nothing does."""
    is_large = unpacked > MOST_UNPACKED and unpacked > MOST_RATIO * max(1, packed)
    return f"{what} unpacks from {packed:,} to {unpacked:,} bytes" if is_large else ""


def _arrow_batches(path: Path, choose: Any) -> Iterator[tuple[int, Any]]:
    """Record batches of an arrow file or stream; the latter is what a Hugging Face data set keeps on disk.

    What a batch claims to unpack to is looked at first. One that claims too much costs itself in a file; a stream and its
    dictionaries are read one after another, so there it costs all that follows.
    """
    pa, faults = _arrow(), (*_faults(), struct.error)
    row = 1
    try:
        with open(path, "rb") as file:
            is_file = file.read(len(MAGIC)) == MAGIC
            file.seek(max(0, file.seek(0, 2) - 4))
            ended = is_file or file.read(4) == bytes(4)
        with pa.OSFile(str(path)) as file:  # not a memory map, which would count as memory of the process
            reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
            number = 0
            for message in messages(path):
                fault = _too_large("its data", message.packed, message.unpacked)
                if fault and (message.is_dictionary or not is_file):
                    raise ValueError(fault)
                if message.is_dictionary:
                    continue
                if fault:
                    yield row, Lost("damaged_rows", f"rows {row} to {row + message.rows - 1} are lost: {fault}")
                    row += message.rows
                else:
                    batch = reader.get_batch(number) if is_file else reader.read_next_batch()
                    for begin in range(0, batch.num_rows, ARROW_ROWS):
                        part = batch.slice(begin, ARROW_ROWS)
                        yield row, part
                        row += part.num_rows
                number += 1
        if not ended:
            raise ValueError("the stream lacks its end mark")
    except (*faults, StopIteration) as error:
        yield row, Lost("damaged_file", f"read up to row {row - 1}, then {type(error).__name__}: {error}")


def strings_of_column(array: Any) -> list[Any] | None:
    """The values of a text column: str, None, or INVALID for one that is not UTF-8; None for a column of another type.

    A dictionary value becomes one str object, however many rows have it. Raises ArrowException for offsets outside the data.
    """
    pa = _arrow()
    if pa.types.is_dictionary(array.type):
        values = strings_of_column(array.dictionary)
        if values is None:
            return None
        places = array.indices.to_pylist()
        if any(place is not None and not 0 <= place < len(values) for place in places):
            raise pa.ArrowInvalid("a row names no value of its dictionary")
        return [None if place is None else values[place] for place in places]
    kind = array.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)):
        return None
    target = pa.binary() if pa.types.is_string(kind) else pa.large_binary()
    array = array.cast(pa.binary_view() if pa.types.is_string_view(kind) else target)
    array.validate(full=True)
    return [_decoded(value) for value in array.to_pylist()]


def _decoded(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return INVALID


def read_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, row as a dict) of a .parquet or .arrow file. Raises UserError at the first damage, with its place."""
    row, faults = 0, _faults()
    try:
        for first, batch in read_batches(path):
            if isinstance(batch, Lost):
                raise UserError(f"{path}: damaged after record {first - 1} ({batch.detail}). Download the file again.")
            held = {}
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                held[name] = strings_of_column(array)
                held[name] = array.to_pylist() if held[name] is None else held[name]
                if INVALID in held[name]:
                    bad = first + held[name].index(INVALID)
                    raise UserError(f"{path}, record {bad}: {name} is not UTF-8. Save the file as UTF-8 and try again.")
            for place in range(batch.num_rows):
                row = first + place
                yield row, {name: values[place] for name, values in held.items()}
    except faults as error:
        raise UserError(f"{path}: damaged after record {row} ({error}). Download the file again.") from None


def read_schema(path: Path) -> Any:
    """The arrow schema of a .parquet or .arrow file. Raises UserError where it is damaged."""
    pa = _arrow()
    refuse_pointer(path)
    try:
        if path.suffix.lower() == ".parquet":
            return pa.parquet.read_schema(path)
        with pa.OSFile(str(path)) as file:
            try:  # `datasets` writes streams; feather is the file format
                return pa.ipc.open_stream(file).schema
            except pa.ArrowInvalid:
                return pa.ipc.open_file(file).schema
    except _faults() as error:
        raise UserError(f"{path}: damaged after record 0 ({error}). Download the file again.") from None
