"""Lines that many documents of one source share (menus, cookie notices, signatures): found by key, then dropped.

Keys are on the fold key, so capitals and ASCII spelling do not hide a line. A line counts once per document. Short lines
are left alone: "Bəli." or a name repeats without being boilerplate.
"""

import hashlib
from collections.abc import Iterable

import numpy as np

from language.azerbaijani import fold_key, fold_lines

MIN_CHARACTERS = 20  # of the fold key: the shortest line that can be boilerplate
MIN_DOCUMENTS = 10  # a line in fewer documents of a source is a quotation or a heading


def _key(line: str, folded: str | None = None) -> int | None:
    if len(line) < MIN_CHARACTERS:
        return None
    if folded is None:
        folded = fold_key(line)
    if len(folded) < MIN_CHARACTERS:
        return None
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "little")


def line_keys(text: str) -> np.ndarray:
    """Distinct keys (uint64, sorted) of the lines of one text that are long enough to count."""
    return np.array(line_numbers(text, fold_lines(text)[1]), dtype=np.uint64)


def line_numbers(text: str, folded: list[str]) -> list[int]:
    """The same as whole numbers; folded: the fold keys of the text's lines, as from `fold_lines`."""
    return sorted({_key(*both) for both in zip(text.split("\n"), folded, strict=True)} - {None})  # type: ignore[type-var]


def common_keys(documents: Iterable[np.ndarray], least: int = MIN_DOCUMENTS) -> frozenset[int]:
    """Keys that occur in at least `least` of the documents of one source, each given by its `line_keys`.

    Memory: 8 bytes a line, plus 16 a distinct one.
    """
    arrays = [array for array in documents if len(array)]
    if not arrays:
        return frozenset()
    keys, counts = np.unique(np.concatenate(arrays), return_counts=True)
    return frozenset(keys[counts >= least].tolist())


def drop_lines(text: str, keys: frozenset[int]) -> tuple[str, int]:
    """The text without the lines whose key is in `keys`, and how many went."""
    if not keys:
        return text, 0
    lines = text.split("\n")
    kept = [line for line in lines if _key(line) not in keys]
    return ("\n".join(kept), len(lines) - len(kept)) if len(kept) < len(lines) else (text, 0)
