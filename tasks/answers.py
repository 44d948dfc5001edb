"""Outcome of an answer to a question (right, too long, too short, off by a suffix, wrong place), from its record."""

import re
import unicodedata
from functools import cache, partial
from typing import Any

from language.base import Language
from tasks.base import RIGHT
from tasks.metrics import normalise_language, qa_scores

RIGHT_EMPTY = "correct: no answer"

_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n")


def answer_outcome(row: dict[str, Any], language: Language, text: str | None = None) -> str:
    """The outcome of one question, by the exact match in the language's own lower case.

    `text` (which includes the context) distinguishes an answer in the gold answer's sentence from one elsewhere.
    """
    golds, pred = [str(gold) for gold in row["gold"] if str(gold).strip()], str(row["pred"])
    if not golds:
        return "answered, there is no answer" if pred.strip() else RIGHT_EMPTY
    if not pred.strip():
        return "no answer given, there is one"
    normalise = partial(normalise_language, language)
    exact, f1 = qa_scores(golds, pred, normalise)
    if exact:
        return RIGHT if qa_scores(golds, pred)[0] else "correct, but not by the official script"
    if any(differs_by_suffix(gold, pred, language) for gold in golds):
        return "boundary: by a suffix only"
    words = normalise(pred).split()
    for gold in golds:
        wanted = normalise(gold).split()
        if _inside(wanted, words):
            return "boundary: too long"
        if _inside(words, wanted):
            return "boundary: too short"
    if f1 > 0:
        return "boundary: overlaps"
    if text is None:
        return "elsewhere"
    holding = [part for part in _SENTENCE_END.split(text) if any(gold in part for gold in golds)]
    return "elsewhere in the same sentence" if any(pred in part for part in holding) else "wrong sentence"


def differs_by_suffix(gold: str, pred: str, language: Language) -> bool:
    """Whether two answers are the same words except for grammatical endings: Bakı and Bakının, 1918 and 1918-ci.

    False for a language without endings in its pack.
    """
    first, second = _bare_words(gold, language), _bare_words(pred, language)
    if not language.suffixes or first == second or len(first) != len(second):
        return False
    return all(a == b or _same_stem(a, b, language) for a, b in zip(first, second, strict=True))


def _bare_words(text: str, language: Language) -> list[str]:
    """Lower-case words without punctuation; a hyphen or apostrophe inside a word joins its ending to it."""
    text = language.lower(unicodedata.normalize("NFC", text))
    words = ("".join(letter for letter in word if unicodedata.category(letter)[0] != "P") for word in text.split())
    return [word for word in words if word]


def _same_stem(a: str, b: str, language: Language) -> bool:
    short, long = sorted((a, b), key=lambda word: (len(word), word))
    if len(short) < 2:
        return False
    if long.startswith(short):
        return is_ending(long[len(short) :], language)
    stem = 0
    while stem < len(short) and short[stem] == long[stem]:
        stem += 1
    if stem < 3:  # at least three shared letters: "qara" does not match "qal"
        return False
    if stem == len(short) - 1 and (short[stem], long[stem]) in language.softened:
        return is_ending(long[stem + 1 :], language)
    return is_ending(short[stem:], language) and is_ending(long[stem:], language)


def is_ending(letters: str, language: Language) -> bool:
    """Whether small letters at the end of a word are one to four grammatical endings; False without endings in the pack."""
    if not language.suffixes:
        return False
    return bool(_endings(language).fullmatch(letters.translate(str.maketrans(dict(language.suffix_folds)))))


@cache
def _endings(language: Language) -> re.Pattern[str]:
    return re.compile(f"(?:{language.suffixes}){{1,4}}")


def _inside(part: list[str], whole: list[str]) -> bool:
    return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))
