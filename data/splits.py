"""Train, dev and test by a salted hash of what must stay together, so that adding rows never moves others."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
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


def group_name(group: str) -> str:
    """A short name for a leakage group, the same wherever the text is the same: 16 letters of its SHA-256."""
    return hashlib.sha256(group.encode()).hexdigest()[:16]


def _fold(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def _point(group: str) -> float:
    digest = hashlib.sha256(f"{SPLIT_SALT}\0{group}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _cut(point: float, shares: Sequence[float]) -> int:
    upto = 0.0
    for index, share in enumerate(shares[:-1]):
        upto += share
        if point < upto:
            return index
    return len(shares) - 1


def split_of(group: str, shares: Sequence[float] = (0.7, 0.1, 0.2)) -> int:
    """The split (0, 1, ...) of a group: a point in [0, 1) from a salted hash, cut at the cumulated shares.

    It depends on the group alone, so new rows never move old ones.
    """
    return _cut(_point(group), shares)


def split_by_group(
    examples: list[dict[str, Any]], kind: str, shares: Sequence[float], stratify: bool = False
) -> list[list[dict[str, Any]]]:
    """Deal examples into len(shares) lists by the hash of their group, keeping their order.

    stratify: inside each class (the label of a group's first example) the groups, in the order of their hash, are cut at
    the shares of the class's examples, so that small classes reach every split. New rows then move only the groups whose
    place in that order lies next to a cut.
    """
    groups = [leakage_group(example, kind) for example in examples]
    if not stratify:
        where = {group: split_of(group, shares) for group in set(groups)}
    else:
        size: dict[str, int] = defaultdict(int)
        members: dict[str, list[str]] = defaultdict(list)
        for group, example in zip(groups, examples, strict=True):
            if group not in size:
                members[str(example["label"])].append(group)
            size[group] += 1
        where = {}
        for ordered in members.values():
            ordered.sort(key=lambda group: (_point(group), group))
            total, before = sum(size[group] for group in ordered), 0
            for group in ordered:  # the middle of the group's stretch decides, so that a large group goes where it fits best
                where[group] = _cut((before + size[group] / 2) / total, shares)
                before += size[group]
    parts: list[list[dict[str, Any]]] = [[] for _ in shares]
    for group, example in zip(groups, examples, strict=True):
        parts[where[group]].append(example)
    return parts
