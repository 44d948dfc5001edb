"""Duplicates on the fold key: exact ones by digest, near ones by MinHash with every candidate pair verified.

Two documents are joined only when at least 70 % (the setting near_duplicates) of their 112 signature values agree, an
estimate of the share of 5-word shingles in common with a standard error of 0.047 at 50 %: what shares only a
boilerplate paragraph stays apart. The work goes one band at a time over memory-mapped files, so 30 million documents
need the keys of one band and a few numbers a document in memory, and never all signatures.
"""

import mmap
from collections.abc import Iterator, Sequence

import numpy as np

from corpus.signatures import BANDS, SLOTS, band_keys

ALL_PAIRS = 48  # members of one band's group up to which every pair is verified
LEADERS = 8  # in a larger group everyone is compared with so many members, and with the next one
CHUNK = 1 << 13  # pairs verified at a time: 7 MB of signatures, but each may map 64 kB of its file: 1 GB at most


class Store:
    """Signatures of all documents, in parts that follow one another: rows are numbered through.

    signatures: one [n_i, 112] uint32 a part, memory-mapped or not; bands: one [16, n_i] uint64 a part.
    """

    def __init__(self, signatures: Sequence[np.ndarray], bands: Sequence[np.ndarray]):
        self.signatures, self.bands = signatures, bands
        self.starts = np.concatenate([[0], np.cumsum([len(part) for part in signatures])]).astype(np.int64)

    @classmethod
    def of(cls, signatures: np.ndarray) -> "Store":
        """A store of one part in memory."""
        return cls([signatures], [band_keys(signatures)])

    def band(self, number: int) -> np.ndarray:
        """Keys [rows] of one band."""
        keys = np.concatenate([np.asarray(part[number]) for part in self.bands])
        _give_back(self.bands)
        return keys

    def agree(self, left: np.ndarray, right: np.ndarray, agreement: float) -> np.ndarray:
        """Whether the signatures of rows left[i] and right[i] have at least the share `agreement` of values in common."""
        wanted, places = np.unique(np.concatenate([left, right]), return_inverse=True)
        values = np.empty((len(wanted), SLOTS), dtype=np.uint32)
        edges = np.searchsorted(wanted, self.starts)
        for number in np.flatnonzero(np.diff(edges)):
            here = slice(edges[number], edges[number + 1])
            values[here] = self.signatures[number][wanted[here] - self.starts[number]]
        _give_back(self.signatures)
        half = len(left)
        return (values[places[:half]] == values[places[half:]]).sum(axis=1) >= agreement * SLOTS - 1e-9


def _give_back(parts: Sequence[np.ndarray]) -> None:
    """Unmap what was read of mapped files: it stays in the system's cache, but counts no longer as this process's memory."""
    for part in parts:
        if isinstance(part, np.memmap):
            part._mmap.madvise(mmap.MADV_DONTNEED)


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


def near_clusters(store: Store, rows: np.ndarray, agreement: float) -> np.ndarray:
    """Clusters of near duplicates among `rows` [n] of the store: for each its cluster's smallest place in `rows`.

    Pairs whose signatures agree in at least `agreement` of the slots are joined transitively. Where a band's group was
    too large for all its pairs, the clusters' first members are compared once more until nothing is joined.
    """
    parent = np.arange(len(rows), dtype=np.int64)
    active = np.arange(len(rows), dtype=np.int64)
    while len(active) > 1:
        joined = cut = False
        for band in range(BANDS):
            for left, right, whole in _candidates(store.band(band)[rows[active]]):
                cut |= not whole
                joined |= _join_near(store, rows, parent, active[left], active[right], agreement)
        active = np.unique(_roots(parent, active))
        if not (cut and joined):
            break
    return _roots(parent, np.arange(len(rows), dtype=np.int64))


def near_pairs(signatures: np.ndarray, agreement: float) -> np.ndarray:
    """All pairs [n, 2] (smaller row first, sorted) that meet in a band and agree in at least `agreement` of the slots.

    For a few documents at a time, to look at and to test with: nothing is joined, so every pair is verified.
    """
    store = Store.of(signatures)
    found = [np.empty((0, 2), dtype=np.int64)]
    for band in range(BANDS):
        for left, right, _ in _candidates(store.band(band)):
            same = store.agree(left, right, agreement)
            found.append(np.stack([np.minimum(left, right)[same], np.maximum(left, right)[same]], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _candidates(keys: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, bool]]:
    """Pairs of places with equal keys, in chunks: left [m], right [m], and whether their groups gave all their pairs."""
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
    """Verify the pairs that are not of one cluster yet, and join those that agree; returns whether any did."""
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
            parent[rows] = found  # the next look is one step
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
    """For each document [n] the place of its cluster's one survivor: greatest by `ranks` in turn, then the earliest."""
    if not len(cluster):
        return np.empty(0, dtype=np.int64)
    order = np.lexsort((*(-rank.astype(np.int64) for rank in reversed(ranks)), cluster))
    new = np.concatenate([[True], cluster[order][1:] != cluster[order][:-1]])
    kept = np.empty(len(cluster), dtype=np.int64)
    kept[order] = order[new][np.cumsum(new) - 1]
    return kept
