"""Tables to records: csv and tsv with a header, parquet and arrow files as in Hugging Face data sets.

The text column is named by the source's `text` option, or is the first of the usual names. A row without text is a
reject like any other, so a table without the column gives one reject for each row.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common.tables import INVALID, Lost, csv_rows, read_batches, strings_of_column
from corpus.reading.formats import MAX_RECORD, RAW_SHOWN, Columns, Record, Reject, columns_of, lines, shown, to_record

TEXT_NAMES = ("text", "content", "document", "body", "article", "sentence")  # searched in this order, ignoring case


def _resolve(columns: Columns, names: list[str]) -> Columns:
    """The wanted columns as this table spells them: an exact match, or else one that differs only in case."""

    def spell(wanted: tuple[str, ...]) -> tuple[str, ...]:
        exact = [name for name in wanted if name in names]
        return tuple(exact or [name for want in wanted for name in names if name.strip().lower() == want.lower()])

    return Columns(spell(columns.text), spell(columns.id), {name: spell(want) for name, want in columns.meta.items()})


def read_csv(path: Path, label: str, options: dict[str, Any], delimiter: str = ",") -> Iterator[Record | Reject]:
    """Rows under a header line. A quoted field may contain line ends; a quote that never closes spoils only its own line."""
    header: list[str] | None = None
    columns = columns_of(options, TEXT_NAMES)
    for row in csv_rows(lines(path, label), delimiter):
        if isinstance(row, Reject):
            yield row
            continue
        if header is None:
            header = row.cells
            columns = _resolve(columns, header)
            if not row.fault:
                continue
        if row.fault and (row.fault != "wrong_columns" or columns.text):
            yield Reject(label, row.line, row.fault, shown(row.raw))
        else:
            yield to_record(label, row.line, dict(zip(header, row.cells, strict=False)), columns, row.raw)


def _wanted(columns: Columns) -> list[str]:
    groups = itertools.chain([columns.text[:1], columns.id[:1]], columns.meta.values())
    return list(dict.fromkeys(name for group in groups for name in group))


def _batch_records(label: str, start: int, batch: Any, columns: Columns) -> Iterator[Record | Reject]:
    """The rows of one arrow record batch; its first row has the number `start`."""
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
    """Values of one column. Strings are decoded one by one, so that a bad one spoils only its own row."""
    import pyarrow as pa

    array = batch.column(batch.schema.names.index(name))
    values = strings_of_column(array)
    if values is not None:
        return values if is_text else [None if value is INVALID else value for value in values]
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if is_text:
        return [array.type if value.is_valid else None for value in array]  # present, but not a string
    try:
        return array.cast(pa.string()).to_pylist()  # numbers and times
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, UnicodeDecodeError):
        return [None] * len(array)  # lists and structures cannot be a title, address or date


def read_columns(path: Path, label: str, options: dict[str, Any]) -> Iterator[Record | Reject]:
    """Rows of a parquet or arrow file, a batch at a time. A damaged row group is lost; reading goes on with the next one."""
    wanted = columns_of(options, TEXT_NAMES)
    for row, batch in read_batches(path, lambda names: _wanted(_resolve(wanted, names))):
        if isinstance(batch, Lost):
            yield Reject(label, row, batch.reason, batch.detail[:RAW_SHOWN])
            continue
        try:
            yield from _batch_records(label, row, batch, _resolve(wanted, batch.schema.names))
        except (ValueError, MemoryError) as error:  # ArrowInvalid is a ValueError
            lost = f"rows {row} to {row + batch.num_rows - 1} are lost: {type(error).__name__}: {error}"
            yield Reject(label, row, "damaged_rows", lost[:RAW_SHOWN])
