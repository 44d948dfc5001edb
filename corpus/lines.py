"""Lines that many documents of one source share (menus, cookie notices, signatures): found by key, then dropped.

Keys are on the fold key, so capitals and ASCII spelling do not hide a line. A line counts once per document. Short lines
are left alone: "Bəli." or a name repeats without being boilerplate.
"""

import hashlib

from language.azerbaijani import fold_key

MIN_CHARACTERS = 20  # of the fold key: the shortest line that can be boilerplate


def _key(line: str, folded: str | None = None) -> int | None:
    if len(line) < MIN_CHARACTERS:
        return None
    if folded is None:
        folded = fold_key(line)
    if len(folded) < MIN_CHARACTERS:
        return None
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "little")


def line_keys(text: str, folded: list[str]) -> list[int]:
    """Distinct keys, sorted, of the lines of one text that are long enough to count; folded: their fold keys (fold_lines)."""
    return sorted({_key(*both) for both in zip(text.split("\n"), folded, strict=True)} - {None})  # type: ignore[type-var]


def drop_lines(text: str, keys: frozenset[int]) -> tuple[str, int]:
    """The text without the lines whose key is in `keys`, and how many went."""
    if not keys:
        return text, 0
    lines = text.split("\n")
    kept = [line for line in lines if _key(line) not in keys]
    return ("\n".join(kept), len(lines) - len(kept)) if len(kept) < len(lines) else (text, 0)
