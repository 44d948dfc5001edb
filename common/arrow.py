"""Rows of a parquet or arrow file as Hugging Face data sets keep them, a thousand at a time: a large set is never in memory."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from common.errors import UserError


def open_rows(path: Path) -> tuple[Any, Iterator[dict[str, Any]]]:
    """The schema and the rows of a .parquet or .arrow file; UserError, with the last good record, where it is damaged."""
    import pyarrow
    import pyarrow.parquet

    faults = (pyarrow.ArrowException, UnicodeDecodeError)
    batches: Iterable[Any]
    try:
        if path.suffix.lower() == ".parquet":
            file = pyarrow.parquet.ParquetFile(path)
            schema, batches = file.schema_arrow, file.iter_batches(batch_size=1000)
        else:
            source = pyarrow.memory_map(str(path))
            try:  # `datasets` writes streams, feather is the file layout
                reader = pyarrow.ipc.open_stream(source)
                schema, batches = reader.schema, reader
            except pyarrow.ArrowInvalid:
                reader = pyarrow.ipc.open_file(source)
                schema, batches = reader.schema, map(reader.get_batch, range(reader.num_record_batches))
    except faults as error:
        raise _damaged(path, 0, error) from None

    def rows() -> Iterator[dict[str, Any]]:
        number = 0
        try:
            for batch in batches:
                for row in batch.to_pylist():
                    number += 1
                    yield row
        except faults as error:
            raise _damaged(path, number, error) from None

    return schema, rows()


def _damaged(path: Path, number: int, error: Exception) -> UserError:
    return UserError(f"{path}: damaged after record {number} ({error}). Download the file again.")
