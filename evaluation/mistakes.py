"""What kind of mistake each wrong prediction is, counted over all runs and with examples drawn to be read."""

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluation.metrics import longest, normalise_az, qa_scores, spans_of
from language.azerbaijani import lower

SAMPLED = 20  # examples shown of each type
CONFUSIONS = 8  # pairs of classes that are types of their own; the rest are "other confusions"
RIGHT, RIGHT_EMPTY = "correct", "correct: no answer"

# Endings of Azerbaijani nouns and numerals, one after another: plural, person, case, the copula, ordinals, -lı, -ca, -kı.
_ENDING = (
    "l[ae]r|n?[iu]n|[iu]m[iu]z|[iu]n[iu]z|m[iu]z|[iu]?nc[iu]|c[iu]|s[iu]|[yn]?[iu]|[iu]?m|[yn]?[ae]|n?d[ae]|n?d[ae]n|"
    "d[iu]r|l[iu]|s[iu]z|[cl][ae]|yl[ae]|k[iu]|n"
)
_ENDINGS = re.compile(f"(?:{_ENDING}){{1,4}}")
_HARMONY = str.maketrans("əıöü", "eiou")  # vowel harmony, and what it makes of ö in loans, is no difference of ending
_SOFTENED = {("k", "y"), ("q", "ğ"), ("t", "d")}  # last letters of a stem before a vowel: çörək, çörəyi
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n")


@dataclass
class Mistake:
    """One sampled example of one type of mistake."""

    kind: str  # the type
    row: dict[str, Any]  # its prediction
    number: int  # place of the example in the test set


def outcomes(row: dict[str, Any], kind: str, text: str | None = None) -> list[str]:
    """What became of one prediction: one name, or for tagging one per entity. `text`: all text of the item (qa)."""
    if kind == "tagging":
        return entity_outcomes(row["gold"], row["pred"])
    if kind == "qa":
        return [qa_outcome(row, text)]
    if str(row["gold"]) == str(row["pred"]):
        return [RIGHT]
    if kind == "choice":
        return [_choice_outcome(row)]
    return [f"{row['gold']} → {row['pred']}"]


def is_wrong(row: dict[str, Any], kind: str) -> bool:
    """Whether the prediction has any mistake in it."""
    if kind == "qa":
        return qa_scores([str(gold) for gold in row["gold"]], str(row["pred"]), normalise_az)[0] < 1
    return row["gold"] != row["pred"] if kind == "tagging" else str(row["gold"]) != str(row["pred"])


def entity_outcomes(gold: Sequence[str], pred: Sequence[str]) -> list[str]:
    """What became of each gold entity (correct, wrong type, wrong boundary, both, missed), and the spurious ones."""
    truth, found = spans_of(tuple(gold)), spans_of(tuple(pred))
    result = [RIGHT] * len(truth & found)
    free = sorted(found - truth, key=lambda e: (e[1], e[2], e[0]))
    for kind, start, end in sorted(truth - found, key=lambda e: (e[1], e[2], e[0])):
        touching = [other for other in free if other[1] <= end and other[2] >= start]
        if not touching:
            result.append("missed")
            continue
        # The closest in kind: same place first, then same type.
        other = min(touching, key=lambda e: ((e[1], e[2]) != (start, end), e[0] != kind, e[1], e[2]))
        free.remove(other)
        same_place, same_type = (other[1], other[2]) == (start, end), other[0] == kind
        result.append("wrong type" if same_place else "wrong boundary" if same_type else "wrong type and boundary")
    return result + ["spurious"] * len(free)


def qa_outcome(row: dict[str, Any], text: str | None = None) -> str:
    """What became of one question, by the Azerbaijani-correct exact match.

    `text` (the context in it) tells an answer in the gold answer's sentence from one elsewhere.
    """
    golds, pred = [str(gold) for gold in row["gold"] if str(gold).strip()], str(row["pred"])
    if not golds:
        return "answered, there is no answer" if pred.strip() else RIGHT_EMPTY
    if not pred.strip():
        return "no answer given, there is one"
    exact, f1 = qa_scores(golds, pred, normalise_az)
    if exact:
        return RIGHT if qa_scores(golds, pred)[0] else "correct, but not by the official script"
    if any(differs_by_suffix(gold, pred) for gold in golds):
        return "boundary: by a suffix only"
    words = normalise_az(pred).split()
    for gold in golds:
        wanted = normalise_az(gold).split()
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


def differs_by_suffix(gold: str, pred: str) -> bool:
    """Whether two answers are the same words but for grammatical endings: Bakı and Bakının, 1918 and 1918-ci."""
    first, second = _bare_words(gold), _bare_words(pred)
    if first == second or len(first) != len(second):
        return False
    return all(a == b or _same_stem(a, b) for a, b in zip(first, second, strict=True))


def _bare_words(text: str) -> list[str]:
    """Lower-case words without their punctuation; a hyphen or apostrophe inside a word joins its ending to it."""
    text = lower(unicodedata.normalize("NFC", text))
    words = ("".join(letter for letter in word if unicodedata.category(letter)[0] != "P") for word in text.split())
    return [word for word in words if word]


def _same_stem(a: str, b: str) -> bool:
    short, long = sorted((a, b), key=lambda word: (len(word), word))
    if len(short) < 2:
        return False
    if long.startswith(short):
        return _is_ending(long[len(short) :])
    stem = 0
    while stem < len(short) and short[stem] == long[stem]:
        stem += 1
    if stem < 3:  # one shared letter more than where one word is the other's beginning: "qara" is not "qal"
        return False
    if stem == len(short) - 1 and (short[stem], long[stem]) in _SOFTENED:
        return _is_ending(long[stem + 1 :])
    return _is_ending(short[stem:]) and _is_ending(long[stem:])


def _is_ending(letters: str) -> bool:
    return bool(_ENDINGS.fullmatch(letters.translate(_HARMONY)))


def _inside(part: list[str], whole: list[str]) -> bool:
    return any(whole[at : at + len(part)] == part for at in range(len(whole) - len(part) + 1))


def _choice_outcome(row: dict[str, Any]) -> str:
    options = row.get("options")
    if options and longest(options) == row["pred"]:
        return "chose the longest option"
    return "chose the first option" if row["pred"] == 0 else "chose another option"


# ---------------------------------------------------------------- over runs


def wrong_runs(runs: Sequence[Sequence[dict[str, Any]]], kind: str) -> np.ndarray:
    """How many runs got each example wrong, (n,)."""
    return np.sum([[is_wrong(row, kind) for row in rows] for rows in runs], axis=0)


def mistake_table(
    runs: Sequence[Sequence[dict[str, Any]]], kind: str, texts: dict[str, str] | None = None
) -> list[tuple[str, float]]:
    """(outcome, mean count per run), what is right first and then the most frequent."""
    counts = Counter(what for rows in runs for row in rows for what in outcomes(row, kind, (texts or {}).get(str(row["id"]))))
    if kind in ("classification", "pair"):
        frequent = _frequent(counts)
        merged: Counter[str] = Counter()
        for what, n in counts.items():
            merged[what if what in frequent or what == RIGHT else "other confusions"] += n
        counts = merged
    order = sorted(counts.items(), key=lambda item: (not item[0].startswith(RIGHT), -item[1], item[0]))
    return [(what, n / len(runs)) for what, n in order]


def sampled_mistakes(runs: Sequence[Sequence[dict[str, Any]]], kind: str, texts: dict[str, str] | None = None) -> list[Mistake]:
    """Up to SAMPLED examples of each type from the first run, drawn with a fixed seed, in the order of the file."""
    found: dict[str, list[int]] = {}
    for number, row in enumerate(runs[0]):
        for what in dict.fromkeys(outcomes(row, kind, (texts or {}).get(str(row["id"])))):
            if what not in (RIGHT, RIGHT_EMPTY):
                found.setdefault(what, []).append(number)
    if kind in ("classification", "pair"):
        frequent = _frequent(Counter({what: len(numbers) for what, numbers in found.items()}))
        rest = sorted(n for what, numbers in found.items() if what not in frequent for n in numbers)
        found = {what: numbers for what, numbers in found.items() if what in frequent}
        found |= {"other confusions": rest} if rest else {}
    drawn = []
    for what, numbers in sorted(found.items(), key=lambda item: (-len(item[1]), item[0])):
        picked = np.sort(np.random.default_rng(0).permutation(len(numbers))[:SAMPLED])
        drawn += [Mistake(what, runs[0][numbers[int(i)]], numbers[int(i)]) for i in picked]
    return drawn


def _frequent(counts: Counter[str]) -> set[str]:
    ranked = sorted((-n, what) for what, n in counts.items() if what != RIGHT)
    return {what for _, what in ranked[:CONFUSIONS]}
