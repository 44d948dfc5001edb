"""Frequency in the training split of the words that a test item depends on: counted once for each task.

`count` of an item is a number of distinct texts of the training split (titles, sentences, questions, contexts, options). The
kind of task determines the word:

        median   texts with the item's median word: half of its words are in as many texts or fewer (classes, pairs)
        rarest   texts with the rarest word of the right option, or of the gold answer (the most frequent of several)

A tagged sentence has instead the spans that are entities in the training split, with the number of their occurrences as
entities of any type; all other entities, gold or predicted, are new. Words are compared in the language's own lower case.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median_low
from typing import Any

import numpy as np

from common.files import write_jsonl
from language.base import Language
from tasks.base import Kind, kind_of
from tasks.metrics import spans_of

_WORD = re.compile(r"\w+")
NEW = (("0", 0, 0), ("1", 1, 1), ("2 to 4", 2, 4), ("5 or more", 5, None))  # slices of entities
RARE = (("0", 0, 0), ("1 to 4", 1, 4), ("5 to 24", 5, 24), ("25 or more", 25, None))  # slices of answers and options


def write_frequencies(out: str | Path, task: Any) -> None:
    """Write <out>/inputs/<task>-frequencies.jsonl, one record for each test item; `task` is a tasks.load.Task."""
    path = Path(out) / "inputs" / f"{task.name}-frequencies.jsonl"
    write_jsonl(path, frequencies(task.own, task.train, task.test))


def frequencies(kind: str | Kind, train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """{"id", "count": number or None} of every test example; for tagging {"id", "entities": [[first, last, count], ...]}."""
    own = kind_of(kind)
    if own.frequency == "entities":
        return _entities(train, test, own.language)
    if own.frequency is None:
        return []
    asked = [[_words(text, own.language) for text in own.sought(example)] for example in test]
    wanted = {word for sets in asked for words in sets for word in words}
    counts: Counter[str] = Counter()
    for text in dict.fromkeys(text for example in train for text in own.texts(example)):
        counts.update(wanted.intersection(_words(text, own.language)))
    pick = median_low if own.frequency == "median" else min
    known = [[pick([counts[word] for word in sorted(words)]) for words in sets if words] for sets in asked]
    return [{"id": e["id"], "count": max(found, default=None)} for e, found in zip(test, known, strict=True)]


def _words(text: str, language: Language) -> set[str]:
    return set(_WORD.findall(language.lower(unicodedata.normalize("NFC", text))))


def _entities(train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]], language: Language) -> list[dict[str, Any]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for example in train:
        words = _folded(example["words"], language)
        counts.update(words[first : last + 1] for _, first, last in spans_of(tuple(example["tags"])))
    longest = max(map(len, counts), default=0)
    rows = []
    for example in test:
        words = _folded(example["words"], language)
        spans = [(a, b) for a in range(len(words)) for b in range(a, min(len(words), a + longest))]
        found = [[a, b, counts[words[a : b + 1]]] for a, b in spans if words[a : b + 1] in counts]
        rows.append({"id": example["id"], "entities": found})
    return rows


def _folded(words: Sequence[str], language: Language) -> tuple[str, ...]:
    return tuple(language.lower(unicodedata.normalize("NFC", word)) for word in words)


# ---------------------------------------------------------------- reading, for the report


def part_of(count: int, parts: Sequence[tuple[str, int, int | None]]) -> str:
    """The name of the slice that contains `count`."""
    return next(name for name, low, high in parts if low <= count and (high is None or count <= high))


def entity_counts_by_frequency(rows: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]]) -> np.ndarray:
    """int64 (sentences, 3, slices of NEW): correct, predicted and gold entities by their frequency in training."""
    column = {name: number for number, (name, _, _) in enumerate(NEW)}
    counts = np.zeros((len(rows), 3, len(NEW)), dtype=np.int64)
    for row, prediction, record in zip(counts, rows, known, strict=True):
        seen = {(first, last): count for first, last, count in record["entities"]}
        truth, found = spans_of(tuple(prediction["gold"])), spans_of(tuple(prediction["pred"]))
        for line, spans in enumerate((truth & found, found, truth)):
            for _, first, last in spans:
                row[line, column[part_of(seen.get((first, last), 0), NEW)]] += 1
    return counts
