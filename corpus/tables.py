"""Tables to records: csv and tsv with a header, parquet by row groups, arrow files as Hugging Face data sets keep them.

The text column is the one that the source's `text` option names, or else the first of the usual names. A row without
text is a reject like any other, so a table that lacks the column gives as many rejects as it has rows.
"""

import csv
import itertools
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.errors import UserError
from corpus.formats import MAX_RECORD, RAW_SHOWN, Columns, Record, Reject, columns_of, lines, shown, to_record

TEXT_NAMES = ("text", "content", "document", "body", "article", "sentence")  # looked for in this order, in any case
BATCH = 200  # rows of a parquet file that are decoded at once: a megabyte of usual web text
INVALID = object()  # stands for a value that is not UTF-8


def _resolve(columns: Columns, names: list[str]) -> Columns:
    """The wanted columns as this table spells them: the same name, or else the same in another case."""

    def spell(wanted: tuple[str, ...]) -> tuple[str, ...]:
        exact = [name for name in wanted if name in names]
        return tuple(exact or [name for want in wanted for name in names if name.strip().lower() == want.lower()])

    return Columns(spell(columns.text), spell(columns.id), {name: spell(want) for name, want in columns.meta.items()})


def read_csv(path: Path, label: str, options: dict[str, Any], delimiter: str = ",") -> Iterator[Record | Reject]:
    """Rows under a header line. A quoted field may hold line ends; a quote that never closes costs its own line only."""
    csv.field_size_limit(MAX_RECORD)  # the library's own limit of 128 KiB is less than a chapter
    ahead: deque = deque()
    stream = lines(path, label)
    header: list[str] | None = None
    columns = columns_of(options, TEXT_NAMES)
    while (item := ahead.popleft() if ahead else next(stream, None)) is not None:
        if isinstance(item, Reject):
            yield item
            continue
        number, line = item
        if not line.strip():
            continue
        row = _split(line, delimiter)
        if row is None and delimiter == "\t" and header and line.count(b"\t") + 1 == len(header):
            row = _decoded(line, "\t")  # most writers of .tsv know no quoting: this quote is part of the text
        raw = line
        if row is None and line.count(b'"') % 2:
            taken = _more_lines(line, ahead, stream)
            joined = b"\n".join([line, *(part for _, part in taken)])
            row = _split(joined, delimiter) if taken else None
            if row is None or (header and len(row) != len(header)):
                ahead.extendleft(reversed(taken))
                row = None
            else:
                raw = joined
        if row is None or isinstance(row, UnicodeDecodeError):
            yield Reject(label, number, "not_csv" if row is None else "invalid_utf8", shown(raw))
            if header is None:  # without the names nothing below can be told apart
                header, columns = [], _resolve(columns, [])
        elif header is None:
            header = [name.strip() for name in row]
            columns = _resolve(columns, header)
        elif len(row) != len(header) and columns.text:
            yield Reject(label, number, "wrong_columns", shown(raw))
        else:
            yield to_record(label, number, dict(zip(header, row, strict=False)), columns, raw)


def _decoded(line: bytes, delimiter: str) -> list[str] | UnicodeDecodeError:
    try:
        return line.decode("utf-8").split(delimiter)
    except UnicodeDecodeError as error:
        return error


def _split(line: bytes, delimiter: str) -> list[str] | UnicodeDecodeError | None:
    """The fields of a whole record; None if its quotes are wrong or not closed."""
    if b'"' not in line:
        return _decoded(line, delimiter)
    try:
        return next(csv.reader([line.decode("utf-8")], delimiter=delimiter, strict=True))
    except UnicodeDecodeError as error:
        return error
    except (csv.Error, StopIteration):
        return None


def _more_lines(line: bytes, ahead: deque, stream: Iterator) -> list[tuple[int, bytes]]:
    """The lines after `line` up to the one that closes its quote; none if it never closes. Takes them off `ahead`."""
    taken: list[tuple[int, bytes]] = []
    quotes, size = line.count(b'"'), len(line)
    while quotes % 2 and size <= MAX_RECORD:
        item = ahead.popleft() if ahead else next(stream, None)
        if item is None or isinstance(item, Reject):
            ahead.extendleft([item] if item else [])
            break
        taken.append(item)
        quotes, size = quotes + item[1].count(b'"'), size + len(item[1])
    if quotes % 2:
        ahead.extendleft(reversed(taken))
        return []
    return taken


def _arrow():
    try:
        import pyarrow
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise UserError(".parquet and .arrow files need pyarrow. pip install -r requirements.txt") from None
    return pyarrow


def _wanted(columns: Columns) -> list[str]:
    groups = itertools.chain([columns.text[:1], columns.id[:1]], columns.meta.values())
    return list(dict.fromkeys(name for group in groups for name in group))


def _batch_records(label: str, start: int, batch: Any, columns: Columns) -> Iterator[Record | Reject]:
    """The rows of one arrow record batch whose first row has the number `start`."""
    held = {name: _column(batch, name, name in columns.text) for name in _wanted(columns)}
    text_name = columns.text[0] if columns.text else None
    for row in range(batch.num_rows):
        fields = {name: values[row] for name, values in held.items()}
        text = fields.get(text_name)
        if text is INVALID:
            yield Reject(label, start + row, "invalid_utf8", "")
        elif isinstance(text, str) and len(text) > MAX_RECORD:
            yield Reject(label, start + row, "too_long", text[:RAW_SHOWN])
        else:
            raw = "" if text_name else f"columns: {', '.join(batch.schema.names)}"
            if not isinstance(text, str | None):
                raw = repr(text)
            yield to_record(label, start + row, fields, columns, raw.encode("utf-8", errors="replace"))


def _column(batch: Any, name: str, is_text: bool) -> list[Any]:
    """Values of one column. Strings are decoded one by one, so that a bad one costs its own row."""
    pa = _arrow()
    array = batch.column(batch.schema.names.index(name))
    if pa.types.is_dictionary(array.type):
        array.validate(full=True)
        array = array.dictionary_decode()
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        target = pa.binary() if pa.types.is_string(kind) else pa.large_binary()
        array = array.cast(pa.binary_view() if pa.types.is_string_view(kind) else target)
        array.validate(full=True)  # offsets that point outside of the data would be read without it
        return [_strictly(value) if is_text else _loosely(value) for value in array.to_pylist()]
    if is_text:
        return [kind if value.is_valid else None for value in array]  # present, but no string
    try:
        return array.cast(pa.string()).to_pylist()  # numbers and times of day
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        return [None] * len(array)  # lists and structures are no title, address or date


def _strictly(value: bytes | None) -> Any:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return INVALID


def _loosely(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", errors="replace")


def read_parquet(path: Path, label: str, options: dict[str, Any]) -> Iterator[Record | Reject]:
    """Row group by row group, a batch of rows at a time. A damaged row group costs itself; the next one is read."""
    pa = _arrow()
    try:
        file = pa.parquet.ParquetFile(path, buffer_size=1 << 20, page_checksum_verification=True)
        names = file.schema_arrow.names
        sizes = [file.metadata.row_group(group).num_rows for group in range(file.metadata.num_row_groups)]
    except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError) as error:
        yield Reject(label, 1, "damaged_file", f"read up to row 0, then {type(error).__name__}: {error}"[:RAW_SHOWN])
        return
    columns = _resolve(columns_of(options, TEXT_NAMES), names)
    with file:
        start = 1
        for group, size in enumerate(sizes):
            row, fault = start, None
            try:
                for batch in file.iter_batches(batch_size=BATCH, row_groups=[group], columns=_wanted(columns) or names[:1]):
                    yield from _batch_records(label, row, batch, columns)
                    row += batch.num_rows
            except (pa.ArrowException, OSError, ValueError, UnicodeDecodeError, MemoryError) as error:
                fault = f"{type(error).__name__}: {error}"
            if fault or row != start + size:
                lost = f"rows {row} to {start + size - 1} are lost: {fault or 'the row group ends early'}"
                yield Reject(label, row, "damaged_rows", lost[:RAW_SHOWN])
            start += size


def read_arrow(path: Path, label: str, options: dict[str, Any]) -> Iterator[Record | Reject]:
    """Record batches of an arrow file or stream; the latter is what a Hugging Face data set keeps on disk."""
    pa = _arrow()
    row, faults = 1, (pa.ArrowException, OSError, ValueError, UnicodeDecodeError, MemoryError)
    try:
        with open(path, "rb") as file:
            is_file = file.read(6) == b"ARROW1"
            file.seek(max(0, file.seek(0, 2) - 4))
            ended = is_file or file.read(4) == bytes(4)
        with pa.OSFile(str(path)) as file:  # not a memory map: that would count as memory of the process
            reader = pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)
            columns = _resolve(columns_of(options, TEXT_NAMES), reader.schema.names)
            batches = iter(reader.get_batch(number) for number in range(reader.num_record_batches)) if is_file else reader
            for batch in batches:
                try:
                    yield from _batch_records(label, row, batch, columns)
                except faults as error:
                    lost = f"rows {row} to {row + batch.num_rows - 1} are lost: {type(error).__name__}: {error}"
                    yield Reject(label, row, "damaged_rows", lost[:RAW_SHOWN])
                row += batch.num_rows
        if not ended:
            raise ValueError("the stream lacks its end mark")
    except faults as error:
        lost = f"read up to row {row - 1}, then {type(error).__name__}: {error}"
        yield Reject(label, row, "damaged_file", lost[:RAW_SHOWN])
