"""The next-sentence task, built from documents so that it asks for coherence and not for surface cues.

Half of the pairs are true continuations. The other half keeps the first sentence and takes, a third each, a sentence
of another document, a sentence of the same document at least three places away, or the same two sentences in the
wrong order. A wrong sentence is the candidate nearest to the true one in length and closing mark. Every document is
one group, and sentences are borrowed only between documents that fall into the same split, so no text straddles
splits. After reference work on BERT's and ALBERT's pair tasks (eval-anchors, section 3.2).
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import read_jsonl
from data.splits import split_of
from language.azerbaijani import ABBREVIATIONS, MONTHS, PERIOD_WORDS, YEAR, lower

NEXT, OTHER = "next", "other"
MIN_WORDS, MAX_WORDS = 4, 60  # below 4 words a sentence says too little, above 60 it is mostly a failed split
FAR = 3  # sentences: a wrong sentence of the same document is at least this far from the first
CANDIDATES = 64  # sentences of other documents looked at for the nearest in length

_BREAK = re.compile(r"([.!?…]+[»”\"')\]]*)\s+(?=[«“„\"'(\[–—-]*\s?[A-ZÇƏĞIİÖŞÜ0-9])")


def split_sentences(text: str) -> list[str]:
    """Cut text into sentences at . ! ? … before a capital, a digit or an opening quote; a line end always cuts.

    A stop does not cut after an initial ("A. Səhhət"), an abbreviation (və s., prof.), the number of a list ("3."), a
    Roman numeral, or a year word before a date ("1918-ci il. 28 may", "1918-ci il. Mayın 28-də").
    """
    sentences = []
    for line in text.splitlines():
        start = 0
        for match in _BREAK.finditer(line):
            if match[1].startswith(".") and not match[1].startswith("..") and _keeps_on(line, start, match):
                continue
            sentences.append(line[start : match.end(1)].strip())
            start = match.end()
        sentences.append(line[start:].strip())
    return [sentence for sentence in sentences if sentence]


def _keeps_on(line: str, start: int, match: re.Match[str]) -> bool:
    """Whether the full stop at `match` is part of an abbreviation, an initial, a number or a date."""
    words = line[start : match.start()].split()
    if not words:
        return True
    last = words[-1].lstrip("«“„\"'([")
    after = line[match.end() :].split(maxsplit=1)[0]
    if re.fullmatch(r"(?:[^\W\d_]\.)*[^\W\d_]", last) and last[0].isupper():
        return True  # initials: "A.", "M.Ə."
    if len(words) == 1 and re.fullmatch(r"\d{1,3}|[IVXLC]+|\w", last):
        return True  # "3. Maddə": the number of a list or section
    if re.fullmatch(r"[IVXLC]{2,}", last):
        return True  # "XX. əsr"
    low = lower(last)
    # "və s." closes a list and often the sentence too: only a lower-case word could go on, and that never gets here.
    if low in ABBREVIATIONS and not (low == "s" and len(words) > 1 and lower(words[-2]) == "və" and after[0].isupper()):
        return True
    if low in PERIOD_WORDS and len(words) > 1 and YEAR.fullmatch(words[-2]):
        # "1918-ci il." heads an entry or a date. With little before it, or a date after it, the sentence goes on.
        return len(words) <= 3 or after[0].isdigit() or lower(after).startswith(MONTHS)
    return False


def read_documents(files: Iterable[str | Path]) -> Iterator[dict[str, str]]:
    """Yield {"id", "text"} of every document of .jsonl(.gz) files; without an id it is file:line."""
    for path in files:
        for line, record in read_jsonl(path):
            if not isinstance(record.get("text"), str):
                raise UserError(f"{path}, line {line}: no 'text'. Expected one document a line with id and text.")
            yield {"id": str(record.get("id") or f"{Path(path).name}:{line}"), "text": record["text"]}


def build_next_sentence(documents: Iterable[dict[str, str]], seed: int = 0, maximum: int = 2000) -> list[dict[str, Any]]:
    """Examples {"id", "text", "text_b", "label": "next" | "other", "group": document id, "construction"}.

    Exactly half "next"; of the other half exactly a third each "other_document", "same_document", "swapped". No
    sentence opens two examples. The number is the largest multiple of 6 up to `maximum` that the text allows.
    Raises UserError when the text has too few documents or sentences for one of each.
    """
    random = np.random.default_rng(seed)
    texts = {document["id"]: split_sentences(document["text"]) for document in documents}
    usable = {identity: [MIN_WORDS <= len(s.split()) <= MAX_WORDS for s in sentences] for identity, sentences in texts.items()}
    anchors: list[tuple[str, int]] = []
    pools: dict[int, list[tuple[str, int]]] = {}
    for identity, fits in usable.items():
        index = 0
        pools.setdefault(split_of(identity), []).extend((identity, i) for i, fit in enumerate(fits) if fit)
        while index + 1 < len(fits):
            pair = fits[index] and fits[index + 1] and texts[identity][index] != texts[identity][index + 1]
            if pair:
                anchors.append((identity, index))
            index += 2 if pair else 1
    anchors = [anchors[i] for i in random.permutation(len(anchors))]
    far = {anchor: _far_places(anchor, usable, texts) for anchor in anchors}
    same = [anchor for anchor in anchors if far[anchor]]
    foreign = [anchor for anchor in anchors if any(d != anchor[0] for d, _ in pools[split_of(anchor[0])])]
    share = min(maximum // 6, len(anchors) // 6, len(same), len(foreign))
    # `same` and `foreign` anchors overlap: give the scarcer kind its own first.
    while share:
        chosen_same = same[:share]
        chosen_foreign = [anchor for anchor in foreign if anchor not in set(chosen_same)][:share]
        if len(chosen_foreign) == share:
            break
        share -= 1
    if not share:
        raise UserError(
            f"next sentence: {len(texts)} documents with {len(anchors)} pairs of neighbouring sentences "
            f"({MIN_WORDS} to {MAX_WORDS} words) do not give one example of each kind. Give more or longer documents."
        )
    taken = {*chosen_same, *chosen_foreign}
    rest = [anchor for anchor in anchors if anchor not in taken]
    plan = [
        *((anchor, "same_document") for anchor in chosen_same),
        *((anchor, "other_document") for anchor in chosen_foreign),
        *((anchor, "swapped") for anchor in rest[:share]),
        *((anchor, "adjacent") for anchor in rest[share : 4 * share]),
    ]
    examples = []
    for number in random.permutation(len(plan)):
        (identity, index), construction = plan[number]
        first, second = texts[identity][index], texts[identity][index + 1]
        if construction == "swapped":
            first, second = second, first
        elif construction == "same_document":
            second = _nearest(second, [texts[identity][place] for place in far[identity, index]])
        elif construction == "other_document":
            pool = pools[split_of(identity)]
            drawn = [pool[i] for i in random.integers(len(pool), size=CANDIDATES)]
            others = [texts[d][i] for d, i in drawn if d != identity and texts[d][i] not in (first, second)]
            if not others:  # nearly all of the pool is this document
                others = [texts[d][i] for d, i in pool if d != identity]
            second = _nearest(second, others)
        label = NEXT if construction == "adjacent" else OTHER
        row = {"text": first, "text_b": second, "label": label, "group": identity, "construction": construction}
        examples.append({"id": f"next-sentence-{len(examples):06d}", **row})
    return examples


def _far_places(anchor: tuple[str, int], usable: dict, texts: dict) -> list[int]:
    identity, index = anchor
    known = {texts[identity][index], texts[identity][index + 1]}
    places = [i for i, fit in enumerate(usable[identity]) if fit and abs(i - index) >= FAR]
    return [i for i in places if texts[identity][i] not in known]


def _nearest(model: str, candidates: list[str]) -> str:
    """The candidate most like `model` on the surface: first its closing mark and opening case, then its length."""

    def distance(text: str) -> tuple[int, int, str]:
        marks = (text[-1] != model[-1]) + (text[0].isupper() != model[0].isupper())
        return marks, abs(len(text) - len(model)), text

    return min(candidates, key=distance)
