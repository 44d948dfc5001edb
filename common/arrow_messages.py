"""What the messages of an arrow file claim to unpack to, read from their heads alone, before any of them is unpacked.

A record batch may be packed, buffer by buffer (Arrow columnar format, "Compression"): each begins with the size that it
unpacks to, and whoever reads it takes that much memory. The heads are FlatBuffers, of which the few fields that are needed
are read here; the numbers of the fields are those of Arrow's Message.fbs and File.fbs.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

MAGIC = b"ARROW1"  # begins and ends a file; a stream, what a Hugging Face data set keeps on disk, has neither
_CONTINUES = 0xFFFFFFFF  # before the size of a head, but in files of before 2019
_DICTIONARY, _BATCH = 2, 3  # kinds of message


class Message(NamedTuple):
    """A record batch or a dictionary of an arrow file."""

    is_dictionary: bool
    rows: int
    packed: int  # bytes on disk
    unpacked: int  # bytes that it claims to be in memory


class _Table(NamedTuple):
    """A table of a FlatBuffer: its bytes, and where in them it begins."""

    data: bytes
    at: int

    def place(self, field: int) -> int:
        """Where a field stands, 0 for one that is left out."""
        layout = self.at - self.number(self.at, "<i")
        size = self.number(layout, "<H")
        offset = self.number(layout + 4 + 2 * field, "<H") if 4 + 2 * field < size else 0
        return self.at + offset if offset else 0

    def number(self, place: int, kind: str) -> int:
        if place < 0:
            raise ValueError("a head that points before its beginning")
        return struct.unpack_from(kind, self.data, place)[0]

    def value(self, field: int, kind: str) -> int:
        """A number, 0 where it is left out."""
        place = self.place(field)
        return self.number(place, kind) if place else 0

    def table(self, field: int) -> "_Table | None":
        place = self.place(field)
        return _Table(self.data, place + self.number(place, "<I")) if place else None

    def structs(self, field: int, layout: str) -> Iterator[tuple[int, ...]]:
        """The entries of a vector of structs."""
        if place := self.place(field):
            begin = place + self.number(place, "<I")
            size = struct.calcsize(layout)
            for number in range(self.number(begin, "<I")):
                yield struct.unpack_from(layout, self.data, begin + 4 + size * number)


def _root(data: bytes) -> _Table:
    return _Table(data, struct.unpack_from("<I", data)[0])


def messages(path: Path) -> Iterator[Message]:
    """The dictionaries of an arrow file or stream and its record batches, in the order in which they are read.

    Raises ValueError or struct.error where a head cannot be read or claims bytes beyond the end of the file.
    """
    with open(path, "rb") as file:
        size = file.seek(0, 2)
        file.seek(0)
        if file.read(len(MAGIC)) == MAGIC:
            for at in _places(file, size):
                yield from _message(file, at, size)[0]
            return
        at = 0
        while at is not None:
            found, at = _message(file, at, size)
            yield from found


def _places(file: IO[bytes], size: int) -> Iterator[int]:
    """Where the messages of an arrow file stand, from its foot: dictionaries, then record batches."""
    file.seek(max(0, size - 10))
    length, magic = struct.unpack("<i6s", file.read(10))
    if magic != MAGIC or not 0 < length <= size - 10:
        raise ValueError("the file lacks its foot")
    file.seek(size - 10 - length)
    foot = _root(file.read(length))
    for field in (2, 3):
        yield from (at for at, _, _ in foot.structs(field, "<qi4xq"))


def _message(file: IO[bytes], at: int, size: int) -> tuple[list[Message], int | None]:
    """([the message that begins there, unless it is a schema], where the next one begins, None at the end of a stream)."""
    file.seek(at)
    length = struct.unpack("<I", file.read(4))[0]
    at += 4
    if length == _CONTINUES:
        length = struct.unpack("<I", file.read(4))[0]
        at += 4
    if length == 0:
        return [], None
    if not 0 <= at <= at + length <= size:
        raise ValueError("a head ends after the end of the file")
    head = _root(file.read(length))
    body, packed = at + length, head.value(3, "<q")
    if packed < 0 or body + packed > size:
        raise ValueError("a batch ends after the end of the file")
    kind, table = head.value(1, "<B"), head.table(2)
    if kind == _DICTIONARY and table:
        table = table.table(1)
    found = []
    if kind in (_DICTIONARY, _BATCH) and table:
        unpacked = packed
        if table.table(3):
            unpacked = sum(_unpacked(file, body + begin, length, body + packed) for begin, length in table.structs(2, "<qq"))
        found = [Message(kind == _DICTIONARY, table.value(0, "<q"), packed, unpacked)]
    return found, body + packed


def _unpacked(file: IO[bytes], at: int, length: int, end: int) -> int:
    """Bytes that a packed buffer claims to be; it is kept as it is where its size says -1."""
    if length == 0:
        return 0
    if length < 8 or not 0 <= at <= at + length <= end:
        raise ValueError("a buffer ends after its batch")
    file.seek(at)
    claimed = struct.unpack("<q", file.read(8))[0]
    if claimed < -1:
        raise ValueError("a buffer of less than no bytes")
    return length - 8 if claimed == -1 else claimed
