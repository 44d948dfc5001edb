"""Records of a whole corpus grouped by key in little memory: dealt out to files by ranges of the key, one read at a time."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

AT_ONCE = 1 << 17  # records in a bucket: grouping them takes about 10 MB
MOST = 400  # buckets: each is an open file, of which a process may often have 1,024


def in_buckets(pieces: Iterable[np.ndarray], total: int, folder: Path | None) -> Iterator[np.ndarray]:
    """The records of all `pieces`, [n, k] uint64 with the key first, a bucket at a time, the smaller keys first.

    Records of one key are in one bucket, in the order in which they came. Keys are taken to be spread evenly, as hashes
    are; `total` says how many records there may be. Few stay in memory, more go through unnamed files in `folder`.
    """
    count = min(MOST, -(-total // AT_ONCE))
    if count <= 1:
        if found := list(pieces):
            yield np.concatenate(found)
        return
    width = 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile(buffering=1 << 12, dir=folder)) for _ in range(count)]
        for piece in pieces:
            width = piece.shape[1]
            bucket = ((piece[:, 0] >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.uint16)
            order = np.argsort(bucket, kind="stable")
            edges = np.searchsorted(bucket[order], np.arange(count + 1))
            dealt = piece[order]
            for file, begin, end in zip(files, edges[:-1], edges[1:], strict=True):
                file.write(dealt[begin:end].data)
        for file in files:
            with file:
                file.seek(0)
                found = np.fromfile(file, np.uint64).reshape(-1, max(1, width))
            yield found
