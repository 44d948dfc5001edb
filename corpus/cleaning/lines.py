"""Lines that many documents of one source share (menus, cookie notices, signatures): found by key, then dropped.

Keys are computed on the fold key, so capitals and ASCII spelling do not hide a line. A line counts once for each document.
Short lines are kept: "Bəli." or a name repeats without being boilerplate.
"""

import hashlib

from language.base import Language

MIN_CHARACTERS = 20  # of the fold key: the shortest line that can be boilerplate


def _key(folded: str) -> int | None:
    if len(folded) < MIN_CHARACTERS:
        return None
    return int.from_bytes(hashlib.blake2b(folded.encode(), digest_size=8).digest(), "little")


def line_keys(text: str, folded: list[str]) -> list[int]:
    """Distinct sorted keys of the lines of one text that are long enough; folded: their fold keys (fold_lines)."""
    long = [key for line, key in zip(text.split("\n"), folded, strict=True) if len(line) >= MIN_CHARACTERS]
    return sorted(set(map(_key, long)) - {None})  # type: ignore[type-var]


def drop_lines(text: str, keys: frozenset[int], language: Language) -> tuple[str, int]:
    """The text without the lines whose key is in `keys`, and the number of lines removed."""
    if not keys:
        return text, 0
    lines = text.split("\n")
    kept = [line for line in lines if len(line) < MIN_CHARACTERS or _key(language.fold_key(line)) not in keys]
    return ("\n".join(kept), len(lines) - len(kept)) if len(kept) < len(lines) else (text, 0)
