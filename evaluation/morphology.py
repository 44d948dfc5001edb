"""Slices by morphemes and by the tokenizer's part: endings of words, and entities whose words the tokenizer splits.

Endings are those of the language's pack (`endings`, `harmony`), found without a lexicon; a pack without them has no such
slices. The tokens of each word are in the prediction files of tagging tasks, so another tokenizer has other slices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from language.base import Language
from language.perturbations import count_endings
from tasks.base import Kind
from tasks.metrics import spans_of

ENDINGS = ("none", "one", "two or more")
PIECES = ("every word whole", "a word in 2 tokens", "a word in 3 or more")
ENTITY_ENDINGS, ENTITY_PIECES = "endings of an entity", "tokens of an entity's longest word"


def endings_a_word(text: str, language: Language) -> float:
    """Mean number of endings of the words of a text; 0 for a text without words."""
    words = text.split()
    return sum(count_endings(word, language) for word in words) / max(1, len(words))


def by_endings(rows: Sequence[dict[str, Any]], kind: Kind) -> list[tuple[str, np.ndarray]]:
    """Quarters of the items by endings a word; [] without a text or without endings in the pack."""
    texts = [" ".join(row["words"]) if row.get("words") else str(row.get("text") or row.get("question") or "") for row in rows]
    if not all(texts) or not (kind.language.endings and kind.language.harmony):
        return []
    order = np.argsort([endings_a_word(text, kind.language) for text in texts], kind="stable")
    return list(zip(("fewest", "fewer", "more", "most"), np.array_split(order, 4), strict=True))


def entity_slices(runs: Sequence[Sequence[dict[str, Any]]], kind: Kind) -> list[tuple[str, tuple[str, ...], list[np.ndarray]]]:
    """(criterion, names, counts [sentences, 3, names] of each run) of a tagging task whose records have their words."""
    if kind.frequency != "entities" or not all(row.get("words") for row in runs[0]):
        return []
    found = []
    if kind.language.endings and kind.language.harmony:

        def ending(row: dict[str, Any], first: int, last: int) -> str:
            return ENDINGS[min(2, count_endings(str(row["words"][last]), kind.language))]

        found.append((ENTITY_ENDINGS, ENDINGS, [entity_counts(run, ENDINGS, ending) for run in runs]))
    if any(row.get("pieces") for row in runs[0]):

        def split(row: dict[str, Any], first: int, last: int) -> str | None:
            return PIECES[min(3, max(row["pieces"][first : last + 1])) - 1] if row.get("pieces") else None

        found.append((ENTITY_PIECES, PIECES, [entity_counts(run, PIECES, split) for run in runs]))
    return found


def entity_counts(
    rows: Sequence[dict[str, Any]], names: Sequence[str], part: Callable[[dict[str, Any], int, int], str | None]
) -> np.ndarray:
    """int64 (sentences, 3, names): correct, predicted and gold entities; `part` names the slice of one, None for no slice."""
    counts = np.zeros((len(rows), 3, len(names)), dtype=np.int64)
    for count, row in zip(counts, rows, strict=True):
        truth, predicted = spans_of(tuple(row["gold"])), spans_of(tuple(row["pred"]))
        for line, spans in enumerate((truth & predicted, predicted, truth)):
            for _, first, last in spans:
                if (name := part(row, first, last)) is not None:
                    count[line, names.index(name)] += 1
    return counts
