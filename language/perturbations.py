"""Texts written wrong, or otherwise: each perturbation changes a share of the letters, words or spaces, by a seed.

They are the errors of people who type (neighbouring keys, letters left out, doubled or exchanged: Belinkov & Bisk 2018, arXiv
1711.02173; Pruthi et al. 2019, arXiv 1905.11268) and what is special to the languages of the packs: letters typed without
their marks, the two i in capitals, another script, the mark before a suffix, a neighbour's spelling, vowel harmony. What a
perturbation needs of a language is a field of its pack.

Equal texts are changed equally, and what a small share changes a larger one changes too, in the same way, so that a curve over
shares has no noise of its own.
"""

import bisect
import itertools
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import NamedTuple

from common.errors import UserError
from language.base import Language

Change = Callable[[str, Language, random.Random], str]  # a word or a part of it, as another one

_PIECE = re.compile(r"\s+|\S+")
_RUN = re.compile(r"[^\W\d_]+")
_WHOLE = re.compile(r"(?<![\w'’-])[^\W\d_]+(?![\w'’-])")  # a word without a suffix behind a mark
STEM = 3  # letters of a stem, without which an ending is not looked for: such words are often no stem and ending at all
REACH = 1.2  # keys: neighbours are beside each other (1), or above and below with the shift of the rows (up to 1.12)
ROW_SHIFTS = (0.0, 0.5, 0.75, 1.25)  # of the rows of a keyboard, in keys (ISO/IEC 9995-1)


class Perturbation(NamedTuple):
    """One way of changing a text."""

    unit: str  # of the share: letters (those that it can change), words or spaces
    what: str  # for readers of a report
    needs: tuple[str, ...]  # fields of the pack
    change: Change


# ---------------------------------------------------------------- one function each


def _bare(letter: str, language: Language, draw: random.Random) -> str:
    return language.bare(letter)


def _slip(word: str, language: Language, draw: random.Random) -> str:
    """One slip in a word of two letters or more."""
    near = neighbours(language.keyboard)
    places = [place for place, letter in enumerate(word) if language.lower(letter) in near]
    if sum(map(str.isalpha, word)) < 2 or not places:
        return word
    place, how = draw.choice(places), draw.choice(("other key", "left out", "doubled", "exchanged"))
    letter = word[place]
    if how == "exchanged" and place + 1 < len(word):
        return word[:place] + word[place + 1] + letter + word[place + 2 :]
    if how == "left out":
        return word[:place] + word[place + 1 :]
    if how == "doubled":
        return word[:place] + letter + word[place:]
    key = draw.choice(near[language.lower(letter)])
    return word[:place] + (key if letter == language.lower(letter) else language.upper(key)) + word[place + 1 :]


def _capitals(word: str, language: Language, draw: random.Random) -> str:
    return language.upper(word)


def _foreign_capitals(word: str, language: Language, draw: random.Random) -> str:
    """Python's rules, which are Unicode's default, and an English keyboard: i, ı and İ all become I."""
    return word.upper().replace("İ", "I")


def _small(word: str, language: Language, draw: random.Random) -> str:
    return language.lower(word)


def _other_script(word: str, language: Language, draw: random.Random) -> str:
    return language.other_script(word)


def _suffix_mark(word: str, language: Language, draw: random.Random) -> str:
    """The mark between a number or name and its suffix left out, or another one: 1918-ci, 1918ci, 1918'ci."""
    mark, others = language.suffix_marks[0], language.suffix_marks[1:]
    # A hyphen also joins two words, so that only a digit or a capital before it tells of a suffix.
    before = r"[^\W_]" if mark == "'" else f"[\\d{language.alphabet_upper}]"
    found = re.search(rf"(?<={before}){re.escape(mark)}(?=[^\W\d_]{{1,6}}\W*$)", word)
    return word if found is None else word[: found.start()] + draw.choice(("", *others)) + word[found.end() :]


def _neighbour_word(word: str, language: Language, draw: random.Random) -> str:
    def replace(found: re.Match[str]) -> str:
        new = language.neighbour_words.get(language.lower(found[0]))
        if new is None:
            return found[0]
        if found[0] == language.upper(found[0]) and len(found[0]) > 1:
            return language.upper(new)
        return language.upper(new[0]) + new[1:] if found[0][0] != language.lower(found[0][0]) else new

    return _WHOLE.sub(replace, word)


def _broken_harmony(word: str, language: Language, draw: random.Random) -> str:
    """The last ending with the vowel of another class: kitablardan, kitablardən."""
    if (found := analysed(word, language)) is None:
        return word
    start, end, ending = found
    right = word[start:end]
    others = {spelled(ending, vowel, language) for vowel in _vowels(language)} - {right}
    return word[:start] + draw.choice(sorted(others)) + word[end:]


def _other_ending(word: str, language: Language, draw: random.Random) -> str:
    """The last ending exchanged for another one, whose vowel fits: kitablardan, kitablarda."""
    found = analysed(word, language)
    if found is None or found[2] not in language.exchanged:
        return word
    start, end, ending = found
    return word[:start] + spelled(language.exchanged[ending], word[:start], language) + word[end:]


def _no_space(space: str, language: Language, draw: random.Random) -> str:
    return ""


PERTURBATIONS: Mapping[str, Perturbation] = {
    "diacritics": Perturbation("letters", "letters typed without their marks, as on a foreign keyboard", ("bare",), _bare),
    "slips": Perturbation("words", "one slip of the fingers on the national keyboard", ("keyboard",), _slip),
    "capitals": Perturbation("words", "capitals, by the rules of the language", ("alphabet",), _capitals),
    "foreign_capitals": Perturbation("words", "capitals by English rules, İ and I are one", ("dotted_i",), _foreign_capitals),
    "small": Perturbation("words", "no capitals", ("alphabet",), _small),
    "script": Perturbation("words", "the language's other script", ("other_script",), _other_script),
    "suffix_marks": Perturbation("words", "the mark before a suffix left out or another one", ("suffix_marks",), _suffix_mark),
    "neighbour": Perturbation("words", "words as a neighbouring language spells them", ("neighbour_words",), _neighbour_word),
    "spaces": Perturbation("spaces", "spaces left out", (), _no_space),
    "broken_harmony": Perturbation(
        "words", "endings whose vowel breaks vowel harmony", ("harmony", "endings"), _broken_harmony
    ),
    "endings": Perturbation("words", "another ending, whose vowel fits", ("harmony", "endings", "exchanged"), _other_ending),
}


# ---------------------------------------------------------------- on a text


def check_perturbation(name: str, language: Language | None, key: str = "perturbations") -> None:
    """UserError for an unknown name, no language, or a pack without the field that the perturbation needs."""
    if name not in PERTURBATIONS:
        raise UserError(f"{key}: {name!r} is none of {', '.join(PERTURBATIONS)}.")
    if language is None:
        raise UserError(f"{key}: {name} depends on the language of the texts, which is not known. Set task.language=NAME.")
    if lacking := [field for field in PERTURBATIONS[name].needs if not getattr(language, field)]:
        known = ", ".join(perturbations_of(language)) or "none"
        raise UserError(
            f"{key}: {name} needs {lacking[0]} of the pack, which language/{language.name}.py does not have. Add it there, or "
            f"take one of: {known}."
        )


def perturbations_of(language: Language) -> list[str]:
    """The names of those whose fields the pack has."""
    return [name for name, own in PERTURBATIONS.items() if all(getattr(language, field) for field in own.needs)]


def perturbed_parts(
    text: str, name: str, share: float, language: Language, seed: int = 0, borders: Iterable[int] = ()
) -> list[str]:
    """`text` with `share` (0 to 1) of the perturbation's units changed, cut at `borders` (places in `text`, in order).

    A word with a border inside is changed part by part, so that a span between two borders has its own text afterwards; a
    space next to a border is kept. Raises nothing: `check_perturbation` comes first.
    """
    unit, _, _, change = PERTURBATIONS[name]
    cuts = [place for place in sorted(set(borders)) if 0 < place < len(text)]
    parts: list[list[str]] = [[] for _ in range(len(cuts) + 1)]
    draws = random.Random(f"{seed} {name} {text}")
    for piece in _PIECE.finditer(text):
        draw = random.Random(draws.getrandbits(64))  # of its own, so that no piece depends on what happened to another
        start, end = piece.span()
        first, last = bisect.bisect_right(cuts, start), bisect.bisect_left(cuts, end)
        edges = [start, *cuts[first:last], end]
        space = piece[0].isspace()
        chosen = unit != "letters" and draw.random() < share
        for number, (begin, stop) in enumerate(itertools.pairwise(edges)):
            part = text[begin:stop]
            if unit == "letters":
                part = "".join(change(letter, language, draw) if draw.random() < share else letter for letter in part)
            elif chosen and space == (unit == "spaces"):
                outer = begin == 0 or stop == len(text) or (space and (begin in cuts or stop in cuts))
                part = part if space and outer else change(part, language, draw)
            parts[first + number].append(part)
    return ["".join(part) for part in parts]


def perturbed(text: str, name: str, share: float, language: Language, seed: int = 0) -> str:
    """`text` with `share` of the perturbation's units changed."""
    return "".join(perturbed_parts(text, name, share, language, seed))


# ---------------------------------------------------------------- keys and endings


@cache
def neighbours(rows: Sequence[str]) -> dict[str, list[str]]:
    """{small letter: letters on the keys that touch its key} of a layout (Language.keyboard)."""
    places = {
        letter: (column + ROW_SHIFTS[row], row)
        for row, keys in enumerate(rows)
        for column, letter in enumerate(keys)
        if letter != " "
    }
    return {
        letter: sorted(other for other, (u, v) in places.items() if other != letter and (x - u) ** 2 + (y - v) ** 2 <= REACH**2)
        for letter, (x, y) in places.items()
    }


def _vowels(language: Language) -> str:
    return "".join(next(iter(language.harmony.values())))


def spelled(ending: str, stem: str, language: Language) -> str:
    """An ending as vowel harmony writes it after `stem`, which has a vowel: dAn is dan after kitab, dən after ev."""
    vowels, written = _vowels(language), ""
    last = next(letter for letter in reversed(language.lower(stem)) if letter in vowels)
    for sign in ending:
        letter = language.harmony[sign][last] if sign in language.harmony else sign
        last = letter if letter in vowels else last
        written += letter
    return written


def count_endings(word: str, language: Language) -> int:
    """How many of the pack's endings stand at the end of a word, one after the other: kitablardan has two (lAr, dAn)."""
    word = word.rstrip(".,;:!?»”\"')")
    count = 0
    while (found := analysed(word, language)) is not None and found[1] == len(word):
        word, count = word[: found[0]], count + 1
    return count


@cache
def _ending_patterns(language: Language) -> list[tuple[str, re.Pattern[str]]]:
    found = []
    for ending in sorted(language.endings, key=len, reverse=True):
        letters = (f"[{''.join(sorted(set(language.harmony[s].values())))}]" if s in language.harmony else s for s in ending)
        stem = rf"(?:(?<=[^\W\d_]{{{STEM}}})|(?<=[^\W\d_]{{{STEM}}}['’]))"  # a name's suffix may stand behind an apostrophe
        found.append((ending, re.compile(rf"{stem}{''.join(letters)}(?![^\W_])")))
    return found


def analysed(word: str, language: Language) -> tuple[int, int, str] | None:
    """(start, end, ending) of the last ending of a word that stands where vowel harmony has it; None without one.

    There is no lexicon: a stem of three letters whose last vowel agrees is taken for one, which most are.
    """
    vowels = _vowels(language)
    for ending, pattern in _ending_patterns(language):
        for found in pattern.finditer(word):
            stem = _RUN.findall(word[: found.start()])[-1]
            if any(letter in vowels for letter in language.lower(stem)) and found[0] == spelled(ending, stem, language):
                return found.start(), found.end(), ending
    return None
