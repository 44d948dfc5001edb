"""Duplicates on the fold key: exact ones by digest, near ones by MinHash, where every candidate pair is verified.

Two documents are joined only if at least 70 % (the setting near_duplicates) of their 112 signature values agree, an
estimate of their shared 5-word shingles with a standard error of 0.047 at 50 %. So documents that share only a boilerplate
paragraph are not joined. One band and one range of its keys is processed at a time, and only the signatures of candidate
pairs are read: memory holds a few bytes for each document.
"""

import os
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from corpus.matching.hash_partitions import partitioned
from corpus.matching.signatures import BANDS, SLOTS, band_keys
from corpus.stages.parts import NUMBER, blocks, read_rows_of

ALL_PAIRS = 48  # size of a band's group up to which every pair is verified
LEADERS = 8  # in a larger group each member is compared with this many members and with its successor
CHUNK = 1 << 12  # pairs verified at once: 3.7 MB of signatures, held three times


class Store:
    """Signatures [n, 112] uint32 of documents, and the keys [16, n] uint64 of their bands, in memory."""

    def __init__(self, signatures: np.ndarray):
        self.starts = np.array([0, len(signatures)])  # first row of each part, then the total number of rows
        self._signatures, self._bands = signatures, band_keys(signatures)

    def band(self, part: int, number: int) -> np.ndarray:
        """Keys [rows of the part] of one band."""
        return self._bands[number]

    def signatures(self, part: int, rows: np.ndarray) -> np.ndarray:
        """Signatures [n, 112] of `rows` of one part."""
        return self._signatures[rows]

    def agree(self, left: np.ndarray, right: np.ndarray, agreement: float) -> np.ndarray:
        """Whether rows left[i] and right[i] agree in at least the share `agreement` of their signature values, [n] bool."""
        wanted, places = np.unique(np.concatenate([left, right]), return_inverse=True)
        edges = np.searchsorted(wanted, self.starts)
        values = np.empty((len(wanted), SLOTS), dtype=np.uint32)
        for part in np.flatnonzero(np.diff(edges)).tolist():
            here = slice(edges[part], edges[part + 1])
            values[here] = self.signatures(part, wanted[here] - self.starts[part])
        half = len(left)
        return (values[places[:half]] == values[places[half:]]).sum(axis=1) >= agreement * SLOTS - 1e-9


class FileStore(Store):
    """A Store on disk, in consecutive parts: STEM.signatures.npy and STEM.bands.npy for each part."""

    def __init__(self, stems: Sequence[Path], counts: Sequence[int]):
        self._stems, self._counts = stems, counts
        self.starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)

    def band(self, part: int, number: int) -> np.ndarray:
        """Keys [rows of the part] of one band."""
        return read_rows_of(Path(f"{self._stems[part]}.bands.npy"), number, number + 1)[0]

    def signatures(self, part: int, rows: np.ndarray) -> np.ndarray:
        """Signatures [n, 112] of `rows` of one part. Read row by row: a mapped file would count as memory, 64 kB for each."""
        size = SLOTS * 4
        with open(f"{self._stems[part]}.signatures.npy", "rb", buffering=0) as file:
            handle, begin = file.fileno(), os.fstat(file.fileno()).st_size - self._counts[part] * size
            found = b"".join([os.pread(handle, size, begin + row * size) for row in rows.tolist()])
        return np.frombuffer(found, dtype="<u4").reshape(len(rows), SLOTS)


def exact_groups(digests: np.ndarray) -> np.ndarray:
    """For each of the digests [n, 2] uint64 the row of the first one equal to it, [n] int64."""
    if not len(digests):
        return np.empty(0, dtype=np.int64)
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: the first of a run is the first in the corpus
    ordered = digests[order]
    new = np.concatenate([[True], (ordered[1:] != ordered[:-1]).any(axis=1)])
    first = np.empty(len(digests), dtype=np.int64)
    first[order] = order[new][np.cumsum(new) - 1]
    return first


def near_clusters(store: Store, rows: np.ndarray, agreement: float, folder: Path | None = None) -> np.ndarray:
    """Clusters of near duplicates among the store's `rows` [n] (ascending): for each row the smallest index in its cluster.

    Pairs whose signatures agree in at least `agreement` of the values are joined transitively. Where a band's group was too
    large to verify all pairs, the clusters' first members are compared again until nothing changes. Data too large for
    memory goes through unnamed files in `folder`.
    """
    parent = np.arange(len(rows), dtype=NUMBER)
    active = np.ones(len(rows), dtype=bool)
    while active.any():
        joined = cut = False
        for band in range(BANDS):
            for partition in partitioned(_band_records(store, band, rows, active), len(rows), folder):
                places = partition[:, 1].astype(NUMBER)
                for left, right, whole in _candidates(partition[:, 0]):
                    cut |= not whole
                    joined |= _join_near(store, rows, parent, places[left], places[right], agreement)
        for block in blocks(len(rows)):
            own = np.arange(block.start, block.stop, dtype=NUMBER)
            parent[block] = _roots(parent, own)
            active[block] = parent[block] == own
        if not (cut and joined):
            break
    return parent


def _band_records(store: Store, band: int, rows: np.ndarray, active: np.ndarray) -> Iterator[np.ndarray]:
    """For each part of the store, [n, 2] uint64: the key of one band and the index in `rows` of each active row."""
    edges = np.searchsorted(rows, store.starts)
    for part, (begin, end) in enumerate(pairwise(edges.tolist())):
        places = begin + np.flatnonzero(active[begin:end])
        keys = store.band(part, band)[rows[places] - store.starts[part]]
        yield np.stack([keys, places.astype(np.uint64)], axis=1)


def near_pairs(signatures: np.ndarray, agreement: float) -> np.ndarray:
    """All pairs [n, 2] (smaller row first, sorted) that share a band and agree in at least `agreement` of the values.

    For inspecting and testing a few documents: nothing is joined, so every pair is verified.
    """
    store = Store(signatures)
    found = [np.empty((0, 2), dtype=np.int64)]
    for band in range(BANDS):
        for left, right, _ in _candidates(store.band(0, band)):
            same = store.agree(left, right, agreement)
            found.append(np.stack([np.minimum(left, right)[same], np.maximum(left, right)[same]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _candidates(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Pairs of indices with equal keys, in chunks: left [m], right [m], and whether their groups gave all their pairs."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    same = (ordered[1:] == ordered[:-1]).astype(np.int8)
    del ordered
    edges = np.flatnonzero(np.diff(np.concatenate([[0], same, [0]]).astype(np.int8)))
    starts, sizes = edges[::2], edges[1::2] - edges[::2] + 1
    for size in np.unique(sizes):
        of_size = starts[sizes == size]
        if size <= ALL_PAIRS:
            first, second = np.triu_indices(int(size), 1)
            step = max(1, CHUNK // len(first))
            for begin in range(0, len(of_size), step):
                members = order[of_size[begin : begin + step, None] + np.arange(size)]
                yield members[:, first].ravel(), members[:, second].ravel(), True
            continue
        for start in of_size:
            members = order[start : start + size]
            for leader in [*range(LEADERS), None]:
                others = members[1:] if leader is None else members[leader + 1 :]
                against = members[:-1] if leader is None else np.broadcast_to(members[leader], len(others))
                for begin in range(0, len(others), CHUNK):
                    yield against[begin : begin + CHUNK], others[begin : begin + CHUNK], False


def _join_near(store: Store, rows, parent: np.ndarray, left: np.ndarray, right: np.ndarray, agreement: float) -> bool:
    """Verify the pairs that are not in one cluster yet, and join those that agree; returns whether any did."""
    apart = _roots(parent, left) != _roots(parent, right)
    left, right = left[apart], right[apart]
    if not len(left):
        return False
    same = store.agree(rows[left], rows[right], agreement)
    join(parent, left[same], right[same])
    return bool(same.any())


def _roots(parent: np.ndarray, rows: np.ndarray) -> np.ndarray:
    found = parent[rows]
    while True:
        further = parent[found]
        if np.array_equal(further, found):
            parent[rows] = found  # the next lookup takes one step
            return found
        found = further


def join(parent: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Union: join left[i] with right[i] in the forest `parent` [n], whose roots are their trees' smallest members."""
    while len(left):
        a, b = _roots(parent, left), _roots(parent, right)
        apart = a != b
        left, right, a, b = left[apart], right[apart], a[apart], b[apart]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))


def survivors(cluster: np.ndarray, *ranks: np.ndarray) -> np.ndarray:
    """For each document [n] the index of its cluster's survivor: the greatest by `ranks` in turn, then the earliest.

    A cluster is identified by the index of its first member; ranks are not negative.
    """
    running = np.ones(len(cluster), dtype=bool)
    for rank in ranks:
        top = np.zeros(len(cluster), dtype=rank.dtype)
        for block in blocks(len(cluster)):
            here = running[block]
            np.maximum.at(top, cluster[block][here], rank[block][here])
        for block in blocks(len(cluster)):
            running[block] &= rank[block] == top[cluster[block]]
    kept = np.full(len(cluster), np.iinfo(NUMBER).max, dtype=NUMBER)
    for block in blocks(len(cluster)):
        here = np.flatnonzero(running[block])
        np.minimum.at(kept, cluster[block][here], (block.start + here).astype(NUMBER))
    for block in blocks(len(cluster)):  # in place: values are read at first members, which refer to themselves
        kept[block] = kept[cluster[block]]
    return kept
