"""Train, dev and test by a salted hash of what must stay together, so that adding rows never moves others."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

SPLIT_SALT = "azerbaijani-tasks-1"  # fixed for ever: another salt is another split, and scores on it do not compare


def leakage_group(example: Mapping[str, Any], kind: str) -> str:
    """What must not straddle splits: the document or text, the context (qa), the stem (choice), in a folded spelling.

    For pairs without a group it is the smaller of the two texts, so that (a, b) and (b, a) stay together. A choice
    example's "group" is its school subject and no leakage unit.
    """
    if kind != "choice" and example.get("group"):
        return str(example["group"])
    texts = {
        "classification": lambda: example["text"],
        "pair": lambda: min(_fold(example["text"]), _fold(example["text_b"])),
        "choice": lambda: example["question"],
        "tagging": lambda: " ".join(example["words"]),
        "qa": lambda: example["context"],
    }
    return _fold(texts[kind]())


def _fold(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def split_of(group: str, shares: tuple[float, ...] = (0.7, 0.1, 0.2)) -> int:
    """The split (0, 1, ...) of a group: a point in [0, 1) from a salted hash, cut at the cumulated shares.

    It depends on the group alone, so new rows never move old ones.
    """
    digest = hashlib.sha256(f"{SPLIT_SALT}\0{group}".encode()).digest()
    point, upto = int.from_bytes(digest[:8], "big") / 2**64, 0.0
    for index, share in enumerate(shares[:-1]):
        upto += share
        if point < upto:
            return index
    return len(shares) - 1


def split_by_group(examples: list[dict[str, Any]], kind: str, shares: tuple[float, ...]) -> list[list[dict[str, Any]]]:
    """Deal examples into len(shares) lists by the hash of their group, keeping their order."""
    parts: list[list[dict[str, Any]]] = [[] for _ in shares]
    for example in examples:
        parts[split_of(leakage_group(example, kind), shares)].append(example)
    return parts
