"""Duplicates on the fold key: exact ones by digest, near ones by MinHash with every candidate pair verified.

14 bands of 8 rows over shingles of 5 words: a pair that shares 80 % of its shingles becomes a candidate with
probability 0.92, one that shares 90 % with 0.9996. Two documents are merged only when at least 70 % of their 112
signature values agree, so a shared boilerplate paragraph does not merge them. NumPy alone, deterministic.
"""

import hashlib
import zlib
from collections.abc import Sequence

import numpy as np

BANDS, ROWS = 14, 8
SLOTS = BANDS * ROWS
SHINGLE = 5  # words; shorter documents are compared exactly only
BATCH = 1 << 16  # shingles hashed at a time: the working arrays stay in the processor's cache
ALL_PAIRS = 32  # members of one band's group up to which every pair is verified

_random = np.random.default_rng(20240702)
# Odd multipliers and the wrap-around of uint64 make multiply-shift hashing; without it all 112 would be monotone and
# choose the same shingle.
_MULTIPLY = _random.integers(0, 2**64, SLOTS, dtype=np.uint64) | np.uint64(1)
_ADD = _random.integers(0, 2**64, SLOTS, dtype=np.uint64)
_PLACE = _random.integers(0, 2**64, SHINGLE, dtype=np.uint64) | np.uint64(1)
_ROW = _random.integers(0, 2**64, ROWS, dtype=np.uint64) | np.uint64(1)


def key_digest(key: str) -> bytes:
    """16 bytes that stand for one fold key."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _mix(values: np.ndarray) -> np.ndarray:
    """The finishing step of splitmix64: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Signatures:
    """Collects MinHash signatures of fold keys, many documents at a time."""

    def __init__(self) -> None:
        self._done: list[np.ndarray] = []
        self._words: list[int] = []  # crc32 of each word of the documents that wait
        self._lengths: list[int] = []

    def add(self, key: str) -> bool:
        """Queue one document; False (nothing queued) when it is too short to have a shingle."""
        words = key.encode().split(b" ")
        if len(words) < SHINGLE:
            return False
        self._words.extend(map(zlib.crc32, words))
        self._lengths.append(len(words))
        if len(self._words) >= BATCH:
            self._flush()
        return True

    def _flush(self) -> None:
        if not self._lengths:
            return
        words = np.array(self._words, dtype=np.uint64)
        lengths = np.array(self._lengths)
        ends = np.cumsum(lengths)
        count = len(words) - SHINGLE + 1
        shingles = np.zeros(count, dtype=np.uint64)
        for place in range(SHINGLE):
            shingles += _mix(words[place : place + count]) * _PLACE[place]
        # A shingle belongs to the document of its first word, and must end inside it.
        owner = np.searchsorted(ends, np.arange(count), side="right")
        inside = np.arange(count) + SHINGLE <= ends[owner]
        shingles = _mix(shingles[inside])
        per_document = lengths - SHINGLE + 1
        starts = np.cumsum(per_document) - per_document
        signatures = np.empty((len(lengths), SLOTS), dtype=np.uint32)
        for slot in range(SLOTS):
            hashed = shingles * _MULTIPLY[slot] + _ADD[slot]
            signatures[:, slot] = np.minimum.reduceat(hashed, starts) >> np.uint64(32)
        self._done.append(signatures)
        self._words, self._lengths = [], []

    def finish(self) -> np.ndarray:
        """All signatures, [documents that were queued, 112] uint32, in the order they came."""
        self._flush()
        return np.concatenate(self._done) if self._done else np.empty((0, SLOTS), dtype=np.uint32)


def near_pairs(signatures: np.ndarray, agreement: float) -> np.ndarray:
    """Pairs [n, 2] (smaller index first, sorted) whose signatures agree in at least `agreement` of the slots."""
    found = []
    for band in range(BANDS):
        rows = signatures[:, band * ROWS : (band + 1) * ROWS].astype(np.uint64)
        keys = _mix((rows * _ROW).sum(axis=1, dtype=np.uint64))
        order = np.argsort(keys, kind="stable")
        same = keys[order][1:] == keys[order][:-1]
        if not same.any():
            continue
        group = np.concatenate([[0], np.cumsum(~same)])
        sizes = np.bincount(group)
        starts = np.cumsum(sizes) - sizes
        for index in np.flatnonzero(sizes > 1):
            members = order[starts[index] : starts[index] + sizes[index]]
            if len(members) <= ALL_PAIRS:
                left, right = np.triu_indices(len(members), 1)
            else:  # a large group: everyone against the first and against the neighbour
                rest = np.arange(1, len(members))
                left, right = np.concatenate([rest * 0, rest - 1]), np.concatenate([rest, rest])
            found.append(np.stack([members[left], members[right]], axis=1))
    if not found:
        return np.empty((0, 2), dtype=np.int64)
    pairs = np.unique(np.concatenate(found), axis=0)
    keep = np.empty(len(pairs), dtype=bool)
    for begin in range(0, len(pairs), BATCH):
        part = pairs[begin : begin + BATCH]
        equal = (signatures[part[:, 0]] == signatures[part[:, 1]]).sum(axis=1)
        keep[begin : begin + BATCH] = equal >= agreement * SLOTS - 1e-9
    return pairs[keep]


def clusters(count: int, pairs: np.ndarray) -> np.ndarray:
    """The smallest index of each document's cluster, [count] int64, where `pairs` are joined transitively."""
    parent = np.arange(count)

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    for left, right in pairs:
        a, b = root(left), root(right)
        if a != b:
            parent[max(a, b)] = min(a, b)
    return np.array([root(index) for index in range(count)], dtype=np.int64).reshape(count)


def choose_survivors(cluster: np.ndarray, rank: Sequence[tuple]) -> dict[int, int]:
    """{cluster: index of its one survivor}: the member of the greatest `rank`, the earliest among equals."""
    best: dict[int, int] = {}
    for index, name in enumerate(cluster.tolist()):
        if name not in best or rank[index] > rank[best[name]]:
            best[name] = index
    return best
