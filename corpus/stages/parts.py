"""Documents between the stages of a build: texts in NNNNN.jsonl.zst, measurements in NNNNN.npz beside it.

A part holds as many documents as fit in little memory, so a source may be one file of any size. Columns have one row for
each document, in the order of the texts.
"""

import io
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import zstandard

from common.errors import UserError
from common.files import json_line

PART_DOCUMENTS = 1 << 15
PART_CHARACTERS = 1 << 25  # of cleaned text; whichever comes first ends a part
LEVEL = 3  # of zstandard: five times faster than gzip, and each text is read twice
NUMBER = np.dtype("<i4")  # of a document, where all of the corpus' numbers are in memory
MOST_DOCUMENTS = (1 << 31) - 1
BLOCK = 1 << 16


@dataclass
class StagedFile:
    """One input file on its way through the stages. Each stage that makes a folder for it adds the folder's place."""

    source: int  # its number among the sources
    label: str  # its name in ids and reports
    annotated: str  # folder of the first stage
    parts: list[int]  # documents of each part
    start: int  # number of its first document in the corpus
    summary: dict[str, Any] = field(default_factory=dict)  # of the first stage
    decided: str = ""  # folder of the second stage
    reasons: list[str] = field(default_factory=list)  # of the second stage: its decisions are places in this list, from 1
    repaired: str | None = None  # folder of the documents that lost common lines; None if no line was looked for

    @property
    def documents(self) -> int:
        """The number of its documents."""
        return sum(self.parts)


class TextWriter:
    """Writes JSON lines into one .jsonl.zst file."""

    def __init__(self, path: Path):
        self._file = open(path, "wb")  # noqa: SIM115
        self._packed = zstandard.ZstdCompressor(level=LEVEL).stream_writer(self._file, closefd=False)

    def write(self, record: dict[str, Any]) -> None:
        """Add one record."""
        self._packed.write(json_line(record))

    def close(self) -> None:
        """Finish the file."""
        self._packed.close()
        self._file.close()


def read_texts(path: Path) -> Iterator[dict[str, Any]]:
    """The records of one .jsonl.zst file, in order."""
    with open(path, "rb") as file:
        lines = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8", newline="\n")
        try:
            for line in lines:
                yield json.loads(line)
        except (zstandard.ZstdError, ValueError) as error:
            raise UserError(f"{path}: damaged ({error}). Remove the work folder that it lies in and start again.") from None


def save_array(path: Path, array: np.ndarray) -> None:
    """Write one .npy file. `np.save` ignores a full disk (it bypasses Python's file object); this function raises."""
    with open(path, "wb") as file:
        write_array(file, array)


def write_array(file: IO[bytes], array: np.ndarray) -> None:
    """Write an array in the .npy format to an open file."""
    np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
    file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def save_blocks(path: Path, pieces: Iterable[np.ndarray], dtype: np.dtype, count: int) -> None:
    """Write one .npy file of `count` rows that arrive in pieces, without holding all in memory."""
    with open(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (count,)}
        np.lib.format.write_array_header_1_0(file, header)
        for piece in pieces:
            file.write(piece.astype(dtype, copy=False).view(np.uint8).data)


def read_rows_of(path: Path, begin: int, end: int) -> np.ndarray:
    """Rows `begin` to `end` of one .npy file, read instead of mapped: touched pages of a map count as memory."""
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        (_, *shape), _, dtype = np.lib.format.read_array_header_1_0(file)
        size = int(np.prod(shape, dtype=np.int64))  # values in a row
        file.seek(begin * size * dtype.itemsize, 1)
        return np.fromfile(file, dtype, (end - begin) * size).reshape(end - begin, *shape)


def blocks(count: int) -> Iterator[slice]:
    """Slices that cover `count` rows, for block-wise work without a second full-length array."""
    return (slice(begin, min(begin + BLOCK, count)) for begin in range(0, count, BLOCK))


def columns(path: Path, *names: str) -> Any:
    """Columns of one .npz by name: an array, or a list of arrays for several names."""
    with np.load(path, allow_pickle=False) as table:
        found = [table[name] for name in names]
    return found[0] if len(found) == 1 else found


def pack_strings(strings: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Strings as (concatenated UTF-8 bytes, end of each): a long string does not pad the others."""
    encoded = [string.encode() for string in strings]
    ends = np.cumsum([len(piece) for piece in encoded], dtype=np.int64)
    return np.frombuffer(b"".join(encoded), dtype=np.uint8), ends


def unpack_strings(packed: np.ndarray, ends: np.ndarray, rows: np.ndarray) -> list[str]:
    """The strings of `rows`, unpacked."""
    content = packed.tobytes()
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    return [content[starts[row] : ends[row]].decode() for row in rows.tolist()]
