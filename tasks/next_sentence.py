"""The next-sentence task, built from documents so that it requires coherence and cannot be solved by surface cues.

Half of the pairs are true continuations. The other half keeps the first sentence and takes, in stated shares, a sentence of
another document, a sentence of the same document at least three places away, or the same two sentences in the wrong order.
Only pairs of neighbours of which each of these could be made are used, and a draw decides which one is made, so the
constructions differ in nothing but what they are. A wrong sentence has the closing mark, the opening and the length of
the true one; as many pairs go from a short sentence to a long one as back, so that order tells nothing. Every document is
one group, and sentences are borrowed only between documents of one split and, where it has others, of one source.
After reference work on BERT's and ALBERT's pair tasks. builders/next_sentence.py writes the data set with its card.
"""

import math
import operator
import re
import string
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.errors import UserError
from common.files import read_jsonl
from language.base import Language
from tasks.splits import split_of

NEXT, OTHER = "next", "other"
TRUE = "adjacent"
NEGATIVES = {"other_document": 1, "same_document": 1, "swapped": 1}
MIN_WORDS, MAX_WORDS = 4, 60  # below 4 words a sentence says too little, above 60 it is mostly a failed split
FAR = 3  # sentences: a wrong sentence of the same document is at least this far from the first
# Two documents exchange their second sentences, so that wrong ones are true ones elsewhere. With the nearest of 16 or 48
# drawn sentences, surface cues told 56 to 58 % of such pairs from true ones on the real Azerbaijani set: what is nearest is
# also commoner than what it stands for, with fewer digits, commas and quotes.
AHEAD = 16  # sentences, in the order of their marks, among which one of another document is looked for

Look = tuple[str, str, int]
Anchor = tuple[str, int]  # a document and the place of a sentence in it
LOOK_BACK = 120  # characters before a full stop in which its abbreviation, initial or date stands


@cache
def _break(capitals: str) -> re.Pattern[str]:
    """Stops, closing quotes and white space before a capital (these and A to Z), a digit or an opening quote.

    Because of the look-behind, a run of stops is tried only once, at its beginning.
    """
    if not capitals:  # unknown alphabet: any letter that is not lower case
        capitals = "".join(c for c in map(chr, range(0x80, 0x10000)) if c.isalpha() and not c.islower())
    capitals = re.escape("".join(sorted(set(capitals) - set(string.ascii_uppercase))))
    return re.compile(rf"(?<![.!?…])([.!?…]+[»”\"')\]]*)\s+(?=[«“„\"'(\[–—-]*\s?[A-Z{capitals}0-9])")


def split_sentences(text: str, language: Language) -> list[str]:
    """Cut text into sentences at . ! ? … before a capital, a digit or an opening quote; a line end always cuts.

    A stop does not cut after an initial ("A. Səhhət"), an abbreviation (və s., prof.), the number of a list ("3."), a
    Roman numeral, or a year word before a date ("1918-ci il. 28 may", "1918-ci il. Mayın 28-də").
    """
    sentences = []
    for line in text.splitlines():
        start = 0
        for match in _break(language.alphabet_upper).finditer(line):
            if match[1].startswith(".") and not match[1].startswith("..") and _keeps_on(line, start, match, language):
                continue
            sentences.append(line[start : match.end(1)].strip())
            start = match.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _keeps_on(line: str, start: int, match: re.Match[str], language: Language) -> bool:
    """Whether the full stop at `match` belongs to an abbreviation, an initial, a number or a date."""
    begin = max(start, match.start() - LOOK_BACK)
    words = line[begin : match.start()].split()
    if not words:
        return True
    first = begin == start  # whether `words` are the whole sentence so far
    last = words[-1].lstrip("«“„\"'([")
    after = line[match.end() : match.end() + LOOK_BACK].split(maxsplit=1)[0]
    if re.fullmatch(r"(?:[^\W\d_]\.)*[^\W\d_]", last) and last[0].isupper():
        return True  # initials: "A.", "M.Ə."
    if first and len(words) == 1 and re.fullmatch(r"\d{1,3}|[IVXLC]+|\w", last):
        return True  # "3. Maddə": the number of a list or section
    if re.fullmatch(r"[IVXLC]{2,}", last):
        return True  # "XX. əsr"
    low, before = language.lower(last), language.lower(words[-2]) if len(words) > 1 else ""
    # "və s." closes a list and often the sentence too: only a lower-case word could continue, and that case is excluded before.
    closes = before != "" and language.ends_after.get(low) == before and after[0].isupper()
    if low in language.abbreviations and not closes:
        return True
    if low in language.period_words and len(words) > 1 and re.fullmatch(language.year, words[-2]):
        # "1918-ci il." begins an entry or a date. With little text before it, or a date after it, the sentence goes on.
        return (first and len(words) <= 3) or after[0].isdigit() or language.lower(after).startswith(language.months)
    return False


def read_documents(files: Iterable[str | Path]) -> Iterator[dict[str, str]]:
    """Yield {"id", "text", "source"} of every document of .jsonl(.gz) files; without an id of its own it is file:line."""
    seen: set[str] = set()
    for path in files:
        for line, record in read_jsonl(path):
            if not isinstance(record.get("text"), str):
                raise UserError(f"{path}, line {line}: no 'text'. Expected one document a line with id and text.")
            place = f"{Path(path).name}:{line}"
            identity = str(record.get("id") or place)
            identity = place if identity in seen else identity
            seen.add(identity)
            yield {"id": identity, "text": record["text"], "source": str(record.get("source") or Path(path).name)}


class _Pool(NamedTuple):
    """The sentences that may be used, and where the ones of one look stand."""

    texts: dict[str, list[str]]  # of a document
    looks: dict[str, list[Look | None]]  # of its sentences; None where one may not be used
    marks: dict[str, list[tuple[float, ...] | None]]  # of the same, see `marks_of`
    group: dict[str, str]  # of a document: what must stay on one side of a split
    split: dict[str, int]
    source: dict[str, str]


def build_next_sentence(
    documents: Iterable[Mapping[str, str]],
    language: Language,
    seed: int = 0,
    maximum: int = 2000,
    negatives: Mapping[str, int] = NEGATIVES,
    shares: Sequence[float] = (0.7, 0.1, 0.2),
    counts: Counter[str] | None = None,
) -> list[dict[str, Any]]:
    """Examples {"id", "text", "text_b", "label": "next" | "other", "group": document or its group, "construction"}.

    Exactly half "next"; the other half by the whole numbers of `negatives` (construction: weight), 1 : 1 : 1 by default. No
    sentence opens two examples, and none that stands in the text twice is used. `documents`: {"id", "text"}, and where they
    are known "source" and "group". `shares`: of the splits, between which nothing is borrowed. The number is the largest
    multiple of the pattern (6) up to `maximum` that the text allows; `counts` is told what there was to choose from.

    Raises UserError when the text has too few documents or sentences for one of each, and for weights that say nothing.
    """
    random = np.random.default_rng(seed)
    kinds = _kinds(negatives)
    pattern = [kind for other in kinds for kind in (TRUE, other)]
    pool = _pool_of(documents, language, shares)
    anchors = _neighbours(pool)
    anchors = [anchors[i] for i in random.permutation(len(anchors))]
    made: dict[Anchor, dict[str, Anchor]] = {anchor: {} for anchor in anchors}  # where the wrong second sentence stands
    if "same_document" in kinds:
        made = {a: {"same_document": place} for a in made if (place := _elsewhere(a, pool))}
    if "other_document" in kinds:
        made = {a: {**made[a], "other_document": place} for a, place in _exchanged(list(made), pool).items()}
    usable = _both_ways(list(made), pool) if "swapped" in kinds else list(made)
    number = min(maximum, len(usable)) // len(pattern) * len(pattern)
    if counts is not None:
        counts.update({
            "documents": len(pool.texts), "sentences": sum(map(len, pool.texts.values())), "pairs of neighbours": len(anchors),
            "of which every construction can be made": len(made), "as many there as back": len(usable),
        })  # fmt: skip
    if not number:
        raise UserError(
            f"next sentence: {len(pool.texts)} documents with {len(anchors)} pairs of neighbouring sentences "
            f"({MIN_WORDS} to {MAX_WORDS} words) do not give one example of each kind. Give more or longer documents."
        )
    chosen = sorted(usable[:number], key=lambda anchor: pool.split[anchor[0]])  # so that each split has all kinds alike
    plan = [(anchor, pattern[place % len(pattern)]) for place, anchor in enumerate(chosen)]
    examples = []
    for place in random.permutation(len(plan)):
        (document, index), kind = plan[place]
        first, second = pool.texts[document][index : index + 2]
        if kind == "swapped":
            first, second = second, first
        elif kind != TRUE:
            elsewhere, other = made[document, index][kind]
            second = pool.texts[elsewhere][other]
        row = {"text": first, "text_b": second, "label": NEXT if kind == TRUE else OTHER}
        row |= {"group": pool.group[document], "construction": kind}
        examples.append({"id": f"next-sentence-{len(examples):06d}", **row})
    return examples


def look_of(sentence: str) -> Look:
    """What is seen of a sentence without reading it: closing mark, opening and length, in steps of 35 %."""
    end = sentence[-1] if sentence[-1] in ".!?…:;" else "a" if sentence[-1].isalnum() else '"'
    start = "A" if sentence[0].isupper() else "1" if sentence[0].isdigit() else "a" if sentence[0].isalpha() else '"'
    return end, start, int(math.log(len(sentence)) / math.log(1.35))


def marks_of(sentence: str) -> tuple[float, ...]:
    """What else is seen of it, in steps that count alike: digits, capitals, commas, quotes, letters a word, length."""
    return (
        math.log2(1 + sum(map(str.isdigit, sentence))), math.log2(1 + sum(map(str.isupper, sentence))),
        sentence.count(","), sum(map(sentence.count, "\"'«»“”()")), len(sentence) / len(sentence.split()),
        12 * math.log(len(sentence)),
    )  # fmt: skip


def _kinds(negatives: Mapping[str, int]) -> list[str]:
    """The constructions of a whole pattern of wrong pairs, as often as they are weighed."""
    if strange := set(negatives) - set(NEGATIVES):
        raise UserError(f"negatives: {sorted(strange)[0]!r} is no construction. There are: {', '.join(NEGATIVES)}.")
    kinds = [kind for kind in NEGATIVES for _ in range(int(negatives.get(kind, 0)))]
    if not kinds or len(kinds) > 100:
        raise UserError(f"negatives={dict(negatives)}: expected whole-number weights, one above 0, 100 together at most.")
    return kinds


def _pool_of(documents: Iterable[Mapping[str, str]], language: Language, shares: Sequence[float]) -> _Pool:
    pool = _Pool({}, {}, {}, {}, {}, {})
    for document in documents:
        identity = document["id"]
        pool.texts[identity] = split_sentences(document["text"], language)
        pool.group[identity] = document.get("group") or identity
        pool.source[identity] = document.get("source") or ""
        pool.split[identity] = split_of(pool.group[identity], shares)
    often = Counter(sentence for sentences in pool.texts.values() for sentence in sentences)
    for identity, sentences in pool.texts.items():
        looks = pool.looks[identity] = [
            look_of(s) if often[s] == 1 and MIN_WORDS <= len(s.split()) <= MAX_WORDS else None for s in sentences
        ]
        pool.marks[identity] = [marks_of(s) if look else None for s, look in zip(sentences, looks, strict=True)]
    return pool


def _neighbours(pool: _Pool) -> list[Anchor]:
    """The first of each two neighbouring sentences that may both be used; none is in two of them."""
    anchors = []
    for identity, looks in pool.looks.items():
        index = 0
        while index + 1 < len(looks):
            pair = looks[index] is not None and looks[index + 1] is not None
            if pair:
                anchors.append((identity, index))
            index += 2 if pair else 1
    return anchors


def _elsewhere(anchor: Anchor, pool: _Pool) -> Anchor | None:
    """The sentence of the same document, FAR away, that has the true one's look and is nearest by its marks."""
    identity, index = anchor
    looks, marks = pool.looks[identity], pool.marks[identity]

    def distance(place: int) -> tuple[float, int]:
        return sum(map(abs, map(operator.sub, marks[place], marks[index + 1]))), place

    places = [place for place, look in enumerate(looks) if look == looks[index + 1] and abs(place - index) >= FAR]
    return (identity, min(places, key=distance)) if places else None


def _exchanged(anchors: list[Anchor], pool: _Pool) -> dict[Anchor, Anchor]:
    """{anchor: second sentence of an anchor in another document, which gets this one's}, in the order given.

    Partners have one split, one look and, as far as there are any, one source; they stand next to each other by their marks.
    """
    found: dict[Anchor, Anchor] = {}
    for of_source in (True, False):
        cells: dict[tuple, list[Anchor]] = defaultdict(list)
        for identity, index in anchors:
            if (identity, index) not in found:
                source = pool.source[identity] if of_source else ""
                cells[pool.split[identity], source, pool.looks[identity][index + 1]].append((identity, index))
        for cell in cells.values():
            waiting = sorted(cell, key=lambda a: tuple(map(round, pool.marks[a[0]][a[1] + 1])))
            while waiting:
                identity, index = waiting.pop()
                near = range(len(waiting) - 1, max(-1, len(waiting) - 1 - AHEAD), -1)
                place = next((i for i in near if pool.group[waiting[i][0]] != pool.group[identity]), None)
                if place is not None:
                    partner, other = waiting.pop(place)
                    found[identity, index], found[partner, other] = (partner, other + 1), (identity, index + 1)
    return {anchor: found[anchor] for anchor in anchors if anchor in found}


def _both_ways(anchors: list[Anchor], pool: _Pool) -> list[Anchor]:
    """As many anchors of each two looks in one order as in the other, in every split, in the order given."""
    held: dict[tuple[int, Look, Look], list[Anchor]] = defaultdict(list)
    for identity, index in anchors:
        first, second = pool.looks[identity][index : index + 2]
        held[pool.split[identity], first, second].append((identity, index))
    kept = set()
    for (split, first, second), own in held.items():
        kept.update(own[: len(held.get((split, second, first), []))])
    return [anchor for anchor in anchors if anchor in kept]
