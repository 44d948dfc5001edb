"""What W&B wrote of a run on this disk: its log of records, which `wandb sync` sends, read without W&B's own reader.

The file is a LevelDB log: blocks of 32 KiB with records of a header (crc 4 bytes, length 2, kind 1) and content; a record that
does not fit into a block goes on in the next. The first seven bytes of the file name the format.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK, HEADER = 32768, 7
FULL, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(folder: Path) -> Iterator[Any]:
    """The records of the run in `folder` (offline-run-…), as messages of W&B's protocol."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("run-*.wandb")
    content, place, parts = path.read_bytes(), HEADER, b""
    assert content.startswith(b":W&B")
    while place + HEADER <= len(content):
        if BLOCK - place % BLOCK < HEADER:  # the rest of a block is too short for a header
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + HEADER])
        parts += content[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (FULL, LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record
            parts = b""
        else:
            assert kind in (FIRST, MIDDLE)


def artifacts(folder: Path) -> list[dict[str, Any]]:
    """The checkpoints that a run logged, in order: name, whether the run used it, and the digest of every file."""
    found = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "artifact" and record.artifact.type == "checkpoint":
            one = record.artifact
            files = {entry.path: entry.digest for entry in one.manifest.contents}
            found.append({"name": one.name, "used": one.use_after_commit, "files": files, "digest": one.digest})
    return found


def history(folder: Path) -> Iterator[set[str]]:
    """The keys of every line of metrics that a run logged, without W&B's own."""
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            keys = {item.key or "/".join(item.nested_key) for item in record.history.item}
            yield {key for key in keys if not key.startswith("_")}
