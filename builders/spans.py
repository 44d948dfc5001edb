"""Answers found again in a translated text: exact, with endings of the language, or by marks that went through it."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from language.base import Language
from tasks.answers import differs_by_suffix
from tasks.next_sentence import split_sentences
from tasks.tagging import WORDS

EXACT, INFLECTED, MARKED, AMBIGUOUS, LOST = "exact", "inflected", "marked", "ambiguous", "lost"


class Part(NamedTuple):
    """A sentence of a text."""

    begin: int  # its first character in the text
    text: str
    after: str  # what parts it from the next one: a blank, a line end or nothing


def sentences(text: str, language: Language) -> Iterator[tuple[int, str]]:
    """(first character, sentence) of every sentence of a text."""
    at = 0
    for sentence in split_sentences(text, language):
        at = text.index(sentence, at)
        yield at, sentence
        at += len(sentence)


def parts_of(text: str, language: Language) -> list[Part]:
    """The sentences of a text with what parts them, a blank or a line end."""
    found = list(sentences(text, language))
    ends = [begin for begin, _ in found[1:]]
    gaps = [text[begin + len(own) : end] for (begin, own), end in zip(found, ends, strict=False)]
    after = ["\n" if "\n" in gap else " " for gap in gaps] + [""]
    return [Part(begin, own, gap) for (begin, own), gap in zip(found, after, strict=True)]


def places(text: str, answer: str, language: Language, inflected: bool) -> list[tuple[int, int]]:
    """(first character, one past the last) of every run of words in `text` that is the answer's, whatever the case.

    `inflected`: the words may differ by grammatical endings; the whole words are the answer then.
    """
    wanted = [word for word in WORDS.findall(answer) if any(map(str.isalnum, word))]
    if not wanted:
        return []
    found = [match for match in WORDS.finditer(text) if any(map(str.isalnum, match.group()))]
    said, asked = [language.lower(match.group()) for match in found], [language.lower(word) for word in wanted]
    hits = []
    for at in range(len(found) - len(wanted) + 1):
        here = said[at : at + len(wanted)]
        if here == asked or (inflected and _alike(here, asked, language)):
            hits.append((found[at].start(), found[at + len(wanted) - 1].end()))
    return hits


def _alike(here: Sequence[str], asked: Sequence[str], language: Language) -> bool:
    return all(a == b or differs_by_suffix(a, b, language) for a, b in zip(here, asked, strict=True))


def locate(text: str, answer: str, language: Language) -> tuple[str, tuple[int, int] | None]:
    """(status, place) of an answer in a translated sentence: one place exactly, or one with endings; else which is lacking."""
    for status, inflected in ((EXACT, False), (INFLECTED, True)):
        hits = places(text, answer, language, inflected)
        if len(hits) == 1:
            return status, hits[0]
        if hits:
            return AMBIGUOUS, None
    return LOST, None


def marked(text: str, begin: int, end: int, markers: Sequence[str]) -> str:
    """A text with marks around some of its characters, as it goes to the translator."""
    return f"{text[:begin]}{markers[0]}{text[begin:end]}{markers[1]}{text[end:]}"


def locate_by_marks(text: str, with_marks: str, markers: Sequence[str], language: Language) -> tuple[int, int] | None:
    """The place in `text` of what stands between the marks in another translation of the same sentence; None if unclear."""
    before, first, rest = with_marks.partition(markers[0])
    inside, second, _ = rest.partition(markers[1])
    if not first or not second or not inside.strip():
        return None
    for inflected in (False, True):
        hits = places(text, inside, language, inflected)
        number = len(places(before, inside, language, inflected))  # how many of the same stand before it
        if len(hits) > number:
            return hits[number]
    return None
