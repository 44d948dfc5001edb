"""Train, dev and test by a salted hash of each group that must stay together, so that new rows never move others."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.base import fold, kind_of

SPLIT_SALT = "azerbaijani-tasks-1"  # never change it: another salt gives other splits, whose scores are not comparable


def leakage_group(example: Mapping[str, Any], kind: str) -> str:
    """The key that must be in one split only: the group named in the file (a document), or else the text named by the kind,
    folded: the text, the context (qa), the question (choice)."""
    own = kind_of(kind)
    return own.group(example) or fold(own.leakage_text(example))


def group_name(group: str) -> str:
    """A short name for a leakage group, equal for equal texts: 16 letters of its SHA-256."""
    return hashlib.sha256(group.encode()).hexdigest()[:16]


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
    """The split (0, 1, ...) of a group: a point in [0, 1) from a salted hash, compared with the cumulated shares.

    It depends only on the group, so new rows never move old ones.
    """
    return _cut(_point(group), shares)


def split_by_group(
    examples: list[dict[str, Any]], kind: str, shares: Sequence[float], stratify: bool = False
) -> list[list[dict[str, Any]]]:
    """Distribute examples into len(shares) lists by the hash of their group, in order.

    stratify: inside each class (the label of a group's first example) the groups, in the order of their hash, are cut at the
    shares of the class's examples, so that small classes are in every split. New rows then move only groups next to a cut.
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
            for group in ordered:  # the middle of the group's range decides, so that a large group goes where it fits best
                where[group] = _cut((before + size[group] / 2) / total, shares)
                before += size[group]
    parts: list[list[dict[str, Any]]] = [[] for _ in shares]
    for group, example in zip(groups, examples, strict=True):
        parts[where[group]].append(example)
    return parts
