"""Access to fields of a sentencepiece model file that its library cannot change.

The file is a protocol buffer (sentencepiece_model.proto). Field 1, repeated, is a token; its field 1 is its text, field 2
its score as a 32-bit float, field 3 its type (ordinary if missing). Field 3 is the normaliser.
"""

import struct
from collections.abc import Iterator

_BYTES, _FIXED32, _FIXED64, _VARINT = 2, 5, 1, 0


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def _fields(data: bytes, at: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """(field number, wire type, first byte of its content, one past its last) of one message in data[at:end]."""
    while at < end:
        key, at = _varint(data, at)
        wire = key & 7
        if wire == _BYTES:
            length, at = _varint(data, at)
        elif wire == _VARINT:
            length = _varint(data, at)[1] - at
        else:
            length = {_FIXED32: 4, _FIXED64: 8}[wire]
        yield key >> 3, wire, at, at + length
        at += length


def rounded_scores(proto: bytes, step: float) -> bytes:
    """The same model with every score rounded to a multiple of `step`, so that sums of them are exact in float32."""
    data = bytearray(proto)
    for number, wire, begin, end in _fields(proto, 0, len(proto)):
        if number == 1 and wire == _BYTES:
            for inner, kind, at, _ in _fields(proto, begin, end):
                if inner == 2 and kind == _FIXED32:
                    (score,) = struct.unpack_from("<f", proto, at)
                    struct.pack_into("<f", data, at, round(score / step) * step)
    return bytes(data)


def as_ordinary_piece(proto: bytes, text: str, score: float) -> bytes:
    """The same model in which the token `text` is an ordinary one with this score, whatever its type was."""
    name = _written(1, _BYTES, text.encode())
    before = 0
    for number, _, begin, end in _fields(proto, 0, len(proto)):
        if number == 1 and proto.startswith(name, begin):
            return proto[:before] + _written(1, _BYTES, name + _written(2, _FIXED32, struct.pack("<f", score))) + proto[end:]
        before = end
    raise ValueError(f"no token {text!r} in the model")


def with_normaliser_of(proto: bytes, other: bytes) -> bytes:
    """The model `proto` with the normaliser (field 3) of the model `other`."""
    (own,), (taken,) = ([(a, b) for n, _, a, b in _fields(model, 0, len(model)) if n == 3] for model in (proto, other))
    header = len(_written(3, _BYTES, proto[slice(*own)])) - (own[1] - own[0])
    return proto[: own[0] - header] + _written(3, _BYTES, other[slice(*taken)]) + proto[own[1] :]


def _written(number: int, kind: int, content: bytes) -> bytes:
    head = bytes([number << 3 | kind])  # the fields of a model are below 16: one byte
    if kind != _BYTES:
        return head + content
    size, length = bytearray(), len(content)
    while length > 0x7F:
        size.append(length & 0x7F | 0x80)
        length >>= 7
    return head + bytes([*size, length]) + content
