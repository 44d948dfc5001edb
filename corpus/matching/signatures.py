"""MinHash signatures of fold keys: 112 values in 16 bands of 7, so that near duplicates share a band.

Shingles of 5 words. Two documents that share 80 % of their shingles share a band with probability 0.977, at 85 % with
0.998, at 50 % with 0.12 (such pairs are separated in corpus.matching.duplicates). 14 bands of 8, the common choice, would
find 0.924 at 80 %. NumPy alone, deterministic.
"""

import hashlib
import zlib

import numpy as np

BANDS, ROWS = 16, 7
SLOTS = BANDS * ROWS
SHINGLE = 5  # words; shorter documents are only compared exactly
BATCH = 1 << 16  # shingles hashed at once: the arrays stay in the processor's cache

_random = np.random.default_rng(20240702)
# Odd multipliers with uint64 overflow are multiply-shift hashing; without the overflow all 112 functions would be monotone
# and choose the same shingle.
_MULTIPLY = _random.integers(0, 2**64, SLOTS, dtype=np.uint64) | np.uint64(1)
_ADD = _random.integers(0, 2**64, SLOTS, dtype=np.uint64)
_PLACE = _random.integers(0, 2**64, SHINGLE, dtype=np.uint64) | np.uint64(1)
_ROW = _random.integers(0, 2**64, ROWS, dtype=np.uint64) | np.uint64(1)


def key_digest(key: str) -> bytes:
    """16 bytes that identify one fold key."""
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def mix(values: np.ndarray) -> np.ndarray:
    """The finishing step of splitmix64: every input bit reaches every output bit."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


class Signatures:
    """Collects MinHash signatures of fold keys, many documents at a time."""

    def __init__(self) -> None:
        self._done: list[np.ndarray] = []
        self._words: list[int] = []  # crc32 of each word of the queued documents
        self._lengths: list[int] = []

    def add(self, key: str) -> bool:
        """Queue one document; False (and nothing queued) if it is too short for a shingle."""
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
            shingles += mix(words[place : place + count]) * _PLACE[place]
        # A shingle belongs to the document of its first word, and must end inside it.
        owner = np.searchsorted(ends, np.arange(count), side="right")
        inside = np.arange(count) + SHINGLE <= ends[owner]
        shingles = mix(shingles[inside])
        per_document = lengths - SHINGLE + 1
        starts = np.cumsum(per_document) - per_document
        signatures = np.empty((len(lengths), SLOTS), dtype=np.uint32)
        for slot in range(SLOTS):
            hashed = shingles * _MULTIPLY[slot] + _ADD[slot]
            signatures[:, slot] = np.minimum.reduceat(hashed, starts) >> np.uint64(32)
        self._done.append(signatures)
        self._words, self._lengths = [], []

    def finish(self) -> np.ndarray:
        """All signatures, [queued documents, 112] uint32, in input order."""
        self._flush()
        return np.concatenate(self._done) if self._done else np.empty((0, SLOTS), dtype=np.uint32)


def band_keys(signatures: np.ndarray) -> np.ndarray:
    """Keys [16, documents] uint64 of `signatures` [documents, 112]: near duplicates share one."""
    rows = signatures.reshape(-1, BANDS, ROWS).astype(np.uint64)
    return np.ascontiguousarray(mix((rows * _ROW).sum(axis=2, dtype=np.uint64)).T)
