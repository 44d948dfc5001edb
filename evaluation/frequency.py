"""How often the training split holds what a test item asks for: counted once a task, written beside its inputs.

`count` of an item is a number of different texts of the training split (titles, sentences, questions, contexts, options):

    classification, pair  that hold the item's median word: half of its words are in so many texts or fewer
    choice                that hold the rarest word of the right option
    qa                    that hold the rarest word of the gold answer (of several answers the best known; none: no count)

A tagged sentence has instead the spans of it that are entities in the training split, with how often they are one there,
of whatever type; any other entity, gold or predicted, is new. Words are compared in Azerbaijani lower case.
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
from evaluation.metrics import spans_of
from language.azerbaijani import lower

_WORD = re.compile(r"\w+")
NEW = (("0", 0, 0), ("1", 1, 1), ("2 to 4", 2, 4), ("5 or more", 5, None))  # parts of entities
RARE = (("0", 0, 0), ("1 to 4", 1, 4), ("5 to 24", 5, 24), ("25 or more", 25, None))  # parts of answers and options
BY = {
    "classification": "training texts with its median word", "pair": "training texts with its median word",
    "choice": "training texts with the option's rarest word", "qa": "training texts with the answer's rarest word",
    "tagging": "entities like it in training",
}  # fmt: skip


def write_frequencies(out: str | Path, task: Any) -> None:
    """Write <out>/inputs/<task>-frequencies.jsonl, one record a test item; `task` is a data.tasks.Task."""
    path = Path(out) / "inputs" / f"{task.name}-frequencies.jsonl"
    write_jsonl(path, frequencies(task.kind, task.train, task.test))


def frequencies(kind: str, train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """{"id", "count": number or None} of every test example; of tagging {"id", "entities": [[first, last, count], ...]}."""
    if kind == "tagging":
        return _entities(train, test)
    asked = [_asked(kind, example) for example in test]
    wanted = {word for sets in asked for words in sets for word in words}
    counts: Counter[str] = Counter()
    for text in dict.fromkeys(text for example in train for text in _texts(example)):
        counts.update(wanted.intersection(_words(text)))
    pick = median_low if kind in ("classification", "pair") else min
    known = [[pick([counts[word] for word in sorted(words)]) for words in sets if words] for sets in asked]
    return [{"id": e["id"], "count": max(found, default=None)} for e, found in zip(test, known, strict=True)]


def _asked(kind: str, example: dict[str, Any]) -> list[set[str]]:
    """The words that are looked for: of the whole item, of the right option, or of each gold answer."""
    if kind == "choice":
        return [_words(example["options"][example["label"]])]
    if kind == "qa":
        return [_words(answer["text"]) for answer in example["answers"]]
    return [set().union(*map(_words, _texts(example)))]


def _texts(example: dict[str, Any]) -> list[str]:
    texts = [example[key] for key in ("text", "text_b", "question", "context") if example.get(key)]
    return [*texts, *example.get("options", [])]


def _words(text: str) -> set[str]:
    return set(_WORD.findall(lower(unicodedata.normalize("NFC", text))))


def _entities(train: Sequence[dict[str, Any]], test: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    counts: Counter[tuple[str, ...]] = Counter()
    for example in train:
        words = _folded(example["words"])
        counts.update(words[first : last + 1] for _, first, last in spans_of(tuple(example["tags"])))
    longest = max(map(len, counts), default=0)
    rows = []
    for example in test:
        words = _folded(example["words"])
        spans = [(a, b) for a in range(len(words)) for b in range(a, min(len(words), a + longest))]
        found = [[a, b, counts[words[a : b + 1]]] for a, b in spans if words[a : b + 1] in counts]
        rows.append({"id": example["id"], "entities": found})
    return rows


def _folded(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(lower(unicodedata.normalize("NFC", word)) for word in words)


# ---------------------------------------------------------------- read again, by the report


def part_of(count: int, parts: Sequence[tuple[str, int, int | None]]) -> str:
    """The name of the part that `count` falls into."""
    return next(name for name, low, high in parts if low <= count and (high is None or count <= high))


def entity_counts_by_frequency(rows: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]]) -> np.ndarray:
    """int64 (sentences, 3, parts of NEW): correct, predicted and gold entities by how often training has them."""
    column = {name: number for number, (name, _, _) in enumerate(NEW)}
    counts = np.zeros((len(rows), 3, len(NEW)), dtype=np.int64)
    for row, prediction, record in zip(counts, rows, known, strict=True):
        seen = {(first, last): count for first, last, count in record["entities"]}
        truth, found = spans_of(tuple(prediction["gold"])), spans_of(tuple(prediction["pred"]))
        for line, spans in enumerate((truth & found, found, truth)):
            for _, first, last in spans:
                row[line, column[part_of(seen.get((first, last), 0), NEW)]] += 1
    return counts
