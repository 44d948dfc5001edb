"""Group the records of a whole corpus by key in little memory: partition them into files by ranges of the key."""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

AT_ONCE = 1 << 17  # records in a partition: grouping them takes about 10 MB
MOST = 400  # partitions: each is an open file, and processes are often limited to 1,024


def partitioned(pieces: Iterable[np.ndarray], total: int, folder: Path | None) -> Iterator[np.ndarray]:
    """The records of all `pieces`, [n, k] uint64 with the key first, one partition at a time in the order of keys.

    All records of a key are in one partition, in input order. Keys are assumed to be spread evenly, like hashes; `total` is
    the expected number of records. Few records stay in memory; more go through unnamed files in `folder`.
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
            partition = ((piece[:, 0] >> np.uint64(32)) * np.uint64(count) >> np.uint64(32)).astype(np.uint16)
            order = np.argsort(partition, kind="stable")
            edges = np.searchsorted(partition[order], np.arange(count + 1))
            dealt = piece[order]
            for file, begin, end in zip(files, edges[:-1], edges[1:], strict=True):
                file.write(dealt[begin:end].data)
        for file in files:
            with file:
                file.seek(0)
                found = np.fromfile(file, np.uint64).reshape(-1, max(1, width))
            yield found
