"""Tokenised splits on disk, shared by seeds, models with one tokenizer, and processes; a damaged file is rebuilt.

A file is an uncompressed .npz: every member carries a CRC, and the key (tokenizer, examples, lengths, version of the
feature code) is stored inside, so a stale file is not used. Files are written atomically, so processes may race.
"""

import contextlib
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from common.files import open_whole
from tasks.encoding import Encoded, Row

# Errors raised by a truncated or foreign file.
DAMAGED = (OSError, ValueError, KeyError, EOFError, IndexError, zipfile.BadZipFile)


def cached(path: Path, key: str, make: Callable[[], Encoded]) -> Encoded:
    """The split stored in `path` under `key`; otherwise `make()`, which is stored there.

    If the disk cannot be written to, there is a warning and no cache; the run goes on.
    """
    if path.exists():
        with contextlib.suppress(*DAMAGED):
            return read(path, key)
        print(f"{path}: damaged, or of another key; rebuilt", file=sys.stderr)
    encoded = make()
    try:
        write(path, key, encoded)
    except OSError as error:
        print(f"warning: {path} could not be written ({error}); the run goes on without it", file=sys.stderr)
    return encoded


def write(path: Path, key: str, encoded: Encoded) -> None:
    """Write `encoded` to `path`, whole or not at all."""
    rows = encoded.rows
    # Questions about one context share its array.
    contexts = list({id(offsets): offsets for offsets in encoded.offsets}.values())
    number = {id(offsets): index for index, offsets in enumerate(contexts)}
    about = {"key": key, "kind": encoded.kind, "notes": encoded.notes, "words": any(row.words is not None for row in rows)}
    arrays = {
        "about": np.frombuffer(json.dumps(about).encode(), np.uint8),
        "first": np.array(encoded.first, np.int64),
        "truncated": np.array(encoded.truncated, bool),
        "second": np.array([row.second for row in rows], np.int32),
        "begin": np.array([row.begin for row in rows], np.int32),
        "context": np.array([number[id(offsets)] for offsets in encoded.offsets], np.int64),
    }
    for name, parts in (
        ("ids", [row.ids for row in rows]),
        ("positions", [row.positions for row in rows]),
        ("targets", [row.targets for row in rows]),
        ("words", [row.words for row in rows if row.words is not None]),
        ("offsets", [offsets.reshape(-1, 2) for offsets in contexts]),
    ):
        empty = np.zeros((0, 2) if name == "offsets" else 0, np.int32)
        arrays[name] = _small(np.concatenate(parts) if parts else empty)
        arrays[f"{name}_sizes"] = np.array([len(part) for part in parts], np.int64)
    with open_whole(path) as file:
        np.savez(file, **arrays)


def _small(values: np.ndarray) -> np.ndarray:
    """Integers as int32 if they fit, others unchanged: no value changes."""
    if not np.issubdtype(values.dtype, np.integer):
        return values
    small = values.astype(np.int32)
    return small if np.array_equal(small, values) else values


def read(path: Path, key: str) -> Encoded:
    """The split in `path`. Raises one of DAMAGED if the file is incomplete or was written under another key."""
    with zipfile.ZipFile(path) as archive:
        if (broken := archive.testzip()) is not None:
            raise ValueError(f"{broken} is damaged")
    with np.load(path, allow_pickle=False) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    about = json.loads(held["about"].tobytes())
    if about["key"] != key:
        raise ValueError("written under another key")

    def parts(name: str, dtype: type = np.int64) -> list[np.ndarray]:
        whole = held[name].astype(dtype) if np.issubdtype(held[name].dtype, np.integer) else held[name]
        return np.split(whole, np.cumsum(held[f"{name}_sizes"])[:-1]) if len(held[f"{name}_sizes"]) else []

    columns = (parts("ids", np.int32), held["second"].tolist(), parts("positions"), parts("targets"))
    words = parts("words") if about["words"] else [None] * len(columns[0])
    rows = [Row(*values) for values in zip(*columns, words, held["begin"].tolist(), strict=True)]
    contexts = parts("offsets")
    offsets = [contexts[index] for index in held["context"]]
    return Encoded(about["kind"], rows, held["first"].tolist(), held["truncated"].tolist(), offsets, about["notes"])
