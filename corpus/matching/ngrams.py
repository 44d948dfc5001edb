"""Hashes of runs of words of fold keys, in NumPy: decontamination and the leakage check look them up."""

from collections.abc import Collection

import numpy as np

_MIX = np.uint64(0xD6E8FEB86659FD93)
_BASE = 0x9E3779B97F4A7C15 | 1  # odd, so that it has an inverse modulo 2^64
_TABLE = np.random.default_rng(2024).integers(1, 2**63, size=256, dtype=np.uint64)  # a fixed 64-bit number for each byte value


class Words:
    """The words of some lines of fold keys, and uint64 hashes of runs of them, by cumulative sums over bytes (no Python loop).

    The hash of bytes b[s:e] is the sum of TABLE[b[i]] * BASE^(i - s) modulo 2^64. `begins` and `ends` are the positions of
    the words in the bytes of all lines, joined by spaces.
    """

    def __init__(self, lines: list[str]) -> None:
        content = np.frombuffer(" ".join(lines).encode(), dtype=np.uint8)
        powers, inverses = _powers(len(content) + 1)
        self._sums = np.zeros(len(content) + 1, dtype=np.uint64)
        np.cumsum(_TABLE[content] * powers[: len(content)], out=self._sums[1:])
        self._inverses = inverses
        spaces = np.flatnonzero(content == 32)
        self.begins = np.concatenate(([0], spaces + 1)) if len(content) else np.zeros(0, dtype=np.int64)
        self.ends = np.concatenate((spaces, [len(content)])) if len(content) else self.begins
        sizes = np.array([len(line.encode()) + 1 for line in lines], dtype=np.int64)
        self._line_ends = np.cumsum(sizes) - 1
        self._line_begins = self._line_ends - sizes + 1

    def runs(self, size: int) -> np.ndarray:
        """Hashes of every run of `size` words, across lines."""
        return self._hash(self.begins[: len(self.begins) - size + 1], self.ends[size - 1 :])

    def lines(self) -> np.ndarray:
        """Hashes of the lines, and of all of them together."""
        if len(self._line_ends) == 1:
            return self._hash(self._line_begins, self._line_ends)
        whole = len(self._sums) - 1
        return self._hash(np.append(self._line_begins, 0), np.append(self._line_ends, whole))

    def line_of(self, words: np.ndarray) -> np.ndarray:
        """The number of the line that contains each of these words."""
        return np.searchsorted(self._line_ends, self.begins[words])

    def _hash(self, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        if len(begins) == 0 or len(ends) == 0:
            return np.zeros(0, dtype=np.uint64)
        return (self._sums[ends] - self._sums[begins]) * self._inverses[begins]


class Filter:
    """A bit filter, one byte for each slot: nearly every hash outside the table is rejected here, in NumPy."""

    def __init__(self, table: Collection[int]) -> None:
        # 1 in 16 to 32 slots is set, so that share of the other hashes passes by chance.
        bits = min(26, (16 * len(table)).bit_length() + 1)
        self._shift = np.uint64(64 - bits)
        self._marks = np.zeros(1 << bits, dtype=bool)
        self._marks[self._place(np.fromiter(table, dtype=np.uint64, count=len(table)))] = True

    def _place(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes * _MIX) >> self._shift

    def places(self, hashes: np.ndarray) -> np.ndarray:
        """Indices of the elements of `hashes` that may be in the table."""
        return np.flatnonzero(self._marks[self._place(hashes)])


_cache: tuple[np.ndarray, np.ndarray] | None = None


def _powers(length: int) -> tuple[np.ndarray, np.ndarray]:
    """BASE^0, BASE^1, ... and their inverses modulo 2^64, at least `length` of each; cached between texts."""
    global _cache  # noqa: PLW0603  (two tables, computed once)
    if _cache is None or len(_cache[0]) < length:
        size = 1 << max(16, (length - 1).bit_length())
        tables = []
        for base in (_BASE, pow(_BASE, -1, 2**64)):
            table = np.full(size, base, dtype=np.uint64)
            table[0] = 1
            tables.append(np.cumprod(table))
        _cache = tables[0], tables[1]
    return _cache
