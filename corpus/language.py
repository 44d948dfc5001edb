"""Language and script of a text: the corpus' language, in any spelling, distinguished from similar languages.

    python -m corpus.language --language azerbaijani [--second] < lines     one JSON object a line

A text whose letters alone prove the language (3 % of ə) is decided at once; the others go to the detector
(`corpus.detection.detector`), which knows the languages of its training data by their codes. Other languages are
recognised by script, letters and stop words. Of a long text only the beginning, the middle and the end are examined,
1,200 characters together.
"""

import argparse
import functools
import json
import os
import re
import sys
from typing import Any, NamedTuple

from common.errors import UserError, command
from corpus.detection.detector import (
    Model,
    load,
    main_script,
    most_letters,
    probabilities,
    sample,
    script_counts,
    units,
)
from language.base import Language, load_language
from language.codes import BY_SCRIPT

# SURE: the probability that a text needs to count as the language. A Latin text of fewer than CLEAR letters needs
# SURE * (letters / CLEAR)**2, for example 0.22 for 15 letters. Below FEW letters (a word or two) only clear evidence of
# another language counts. Chosen on the dev split and on extracts of 3 to 12 words from it.
SURE, CLEAR = 0.6, 25
FEW, CLEARLY_NOT = 12, 0.03
_ADDRESS = re.compile(r"(?:https?://|www\.|@)\S+")
_WORDS = re.compile(r"[^\W\d_]+")


class Verdict(NamedTuple):
    """The result of `identify` for one text."""

    label: str  # code of the corpus' language or of another, or "other"; the former for a text without letters
    script: str  # ISO 15924 code of most letters: Latn, Cyrl, Arab, ..., Zyyy for an unknown script, "none" without letters
    score: float  # probability of the corpus' language among those of the script, under equal priors; 0.5 without letters
    certainty: float  # probability of `label` by the same measure; 0 where nothing was measured


DETECTOR, LETTERS, NOTHING = "the detector", "script, letters and stop words", "nothing: any text is taken"
# Without a detector: the share of letters outside the alphabet from which a text counts as another language, and the number
# of words that halves the score if none of them is a stop word.
MOST_STRANGE, NO_STOP_WORD = 0.1, 20


def detection_method(language: Language) -> str:
    """How `identify` decides for texts of a language, for the report."""
    if not language.scripts:
        return NOTHING
    return DETECTOR if any(language.code in model.labels for model in load().values()) else LETTERS


def needed(script: str, letters: int) -> float:
    """The probability from which a text with this many letters counts as the language."""
    if script != "Latn" or letters >= CLEAR:
        return SURE
    return CLEARLY_NOT if letters < FEW else SURE * (letters / CLEAR) ** 2


def identify(text: str, language: Language, models: dict[str, Model] | None = None) -> Verdict:
    """Identify one cleaned text of a corpus in `language` with the shipped detector, or with `models`.

    The language in a script of which it is not written here (Azerbaijani in Arabic script, "azb") counts as another language,
    because later stages could not use it. A short text without evidence counts as the language: the required probability
    grows with the number of letters. Raises UserError when the detector's file is missing or damaged.
    """
    own = language.code
    piece = sample(text)
    if "@" in piece or "http" in piece or "www." in piece:
        piece = _ADDRESS.sub(" ", piece)
    if language.is_sure is not None and language.is_sure(piece):
        return Verdict(own, language.scripts[0], 1.0, 1.0)
    codes = units(piece)
    counts = script_counts(codes)
    script = most_letters(counts)
    if script == "none" and len(text) > len(piece):
        piece = sample(" ".join(_WORDS.findall(text)))  # a long table of figures may have words only between the samples
        codes = units(piece)
        counts = script_counts(codes)
        script = most_letters(counts)
    if script == "none" or not language.scripts:
        return Verdict(own, script, 0.5, 0.5)
    models = load() if models is None else models
    model = models.get(script)
    if script in language.scripts and not any(own in other.labels for other in models.values()):
        score = by_letters(piece, language)
        if score >= 0.5:
            return Verdict(own, script, score, score)
        return Verdict("other", script, score, round(1 - score, 4))
    if model is None:
        return Verdict(BY_SCRIPT.get(script, "other"), script, 0.0, 0.0)
    shares = probabilities(codes, model)
    if own not in model.labels:
        best = int(shares.argmax())
        return Verdict(model.labels[best], script, 0.0, round(float(shares[best]), 4))
    place = model.labels.index(own)
    score = round(float(shares[place]), 4)
    if score >= needed(script, counts[script]):
        return Verdict(own, script, score, score)
    shares[place] = 0.0
    best = int(shares.argmax())
    return Verdict(model.labels[best], script, score, round(float(shares[best]), 4))


def by_letters(piece: str, language: Language) -> float:
    """Score of a text for a language without a detector: 1 - (share of letters outside the alphabet) / MOST_STRANGE, halved
    if this many words contain no stop word. 0.5 where the pack has neither alphabet nor stop words."""
    words = _WORDS.findall(language.lower(piece))
    letters = sum(map(len, words))
    if not (language.alphabet or language.stop_words):
        return 0.5
    known = set(language.alphabet)
    strange = sum(letter not in known for word in words for letter in word) / max(1, letters) if known else 0.0
    score = max(0.0, 1 - strange / MOST_STRANGE)
    if len(words) >= NO_STOP_WORD and language.stop_words and not language.stop_words_by_form.keys() & set(words):
        score *= 0.49
    return round(score, 4)


@functools.cache
def _py3langid() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise UserError("a second opinion needs py3langid. pip install -r requirements-extra.txt") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def second_opinion(text: str) -> tuple[str, float] | None:
    """(language code, probability) by py3langid, independent of our detector; None for a text without letters.

    It knows standard spelling only. Raises UserError when py3langid is not installed.
    """
    piece = sample(text)
    if main_script(units(piece)) == "none":
        return None
    label, score = _py3langid().classify(piece.encode("utf-8", "replace").decode())
    return str(label), round(float(score), 4)


@command
def main() -> None:
    """Identify standard input line by line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m corpus.language", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--second", action="store_true", help='add "second": [label, score] by py3langid, or null')
    parser.add_argument("--language", required=True, help="that is expected: name or code of a pack in language/")
    options = parser.parse_args()
    language = load_language(options.language)
    try:
        for line in sys.stdin.buffer:
            text = language.normalise(line.decode("utf-8", errors="replace"))[0]
            label, script, score, certainty = identify(text, language)
            record: dict[str, Any] = {"label": label, "script": script, "score": certainty, f"score_{language.code}": score}
            if options.second:
                record["second"] = second_opinion(text)
            print(json.dumps(record))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as head, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
