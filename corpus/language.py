"""Which language and script is a text? Azerbaijani however it is typed, told from its neighbours.

    python -m corpus.language [--second] < lines     one JSON object a line: label, script, score

A Latin text of which ə is 3 % is Azerbaijani at once; the rest goes to the detector (`corpus.detector`). Azerbaijani
in capitals, in ASCII ("cox gozel"), in Cyrillic and in the spelling of 1991 is "az". Of a long text the beginning,
the middle and the end are judged, 1,200 characters together.
"""

import argparse
import functools
import json
import os
import re
import sys
from typing import Any, NamedTuple

from common.errors import UserError, command
from corpus.detector import (
    Model,
    load,
    main_script,
    most_letters,
    probabilities,
    sample,
    script_counts,
    surely_azerbaijani,
    units,
)
from language.azerbaijani import normalise

# Scripts that name their language well enough; without a model of its own any other script is "other".
BY_SCRIPT = {"Armn": "hy", "Geor": "ka", "Grek": "el", "Hebr": "he", "Thai": "th", "Hang": "ko", "Jpan": "ja"}
# The probability of Azerbaijani that a text needs: SURE. A Latin text of fewer than CLEAR letters needs SURE * (letters /
# CLEAR)**2, 0.22 for 15, and a word or two, below FEW letters, is lost only to clear evidence of another language. Chosen
# on split dev and stretches of 3 to 12 words of it.
SURE, CLEAR = 0.6, 25
FEW, CLEARLY_NOT = 12, 0.03
_ADDRESS = re.compile(r"(?:https?://|www\.|@)\S+")
_WORDS = re.compile(r"[^\W\d_]+")


class Verdict(NamedTuple):
    """What `identify` says of one text."""

    label: str  # "az", the code of another language, or "other"; "az" for a text without letters
    script: str  # ISO 15924 code of most letters: Latn, Cyrl, Arab, ..., Zyyy a script that is not told, "none" no letters
    score: float  # probability of Azerbaijani among the script's languages, all as likely beforehand; 0.5 without letters


def needed(script: str, letters: int) -> float:
    """The probability from which a text of so many letters counts as Azerbaijani."""
    if script != "Latn" or letters >= CLEAR:
        return SURE
    return CLEARLY_NOT if letters < FEW else SURE * (letters / CLEAR) ** 2


def identify(text: str, models: dict[str, Model] | None = None) -> Verdict:
    """Judge one cleaned text with the shipped detector, or with `models`.

    Arabic-script Azerbaijani is "azb": nothing downstream could use it. A short text without evidence is "az": what
    probability is enough grows with the letters. Raises UserError when the detector's file is missing or damaged.
    """
    piece = sample(text)
    if "@" in piece or "http" in piece or "www." in piece:
        piece = _ADDRESS.sub(" ", piece)
    if surely_azerbaijani(piece):
        return Verdict("az", "Latn", 1.0)
    codes = units(piece)
    counts = script_counts(codes)
    script = most_letters(counts)
    if script == "none" and len(text) > len(piece):
        piece = sample(" ".join(_WORDS.findall(text)))  # a long table of figures may have words between the samples
        codes = units(piece)
        counts = script_counts(codes)
        script = most_letters(counts)
    if script == "none":
        return Verdict("az", script, 0.5)
    model = (load() if models is None else models).get(script)
    if model is None:
        return Verdict(BY_SCRIPT.get(script, "other"), script, 0.0)
    shares = probabilities(codes, model)
    if "az" not in model.labels:
        return Verdict(model.labels[int(shares.argmax())], script, 0.0)
    place = model.labels.index("az")
    score = round(float(shares[place]), 4)
    if score >= needed(script, counts[script]):
        return Verdict("az", script, score)
    shares[place] = 0.0
    return Verdict(model.labels[int(shares.argmax())], script, score)


@functools.cache
def _py3langid() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError:
        raise UserError("a second opinion needs py3langid. pip install -r requirements-extra.txt") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def second_opinion(text: str) -> tuple[str, float] | None:
    """(language code, probability) by py3langid, independent of ours; None for a text without letters.

    It knows neither ASCII-typed nor Cyrillic Azerbaijani. Raises UserError when py3langid is not installed.
    """
    piece = sample(text)
    if main_script(units(piece)) == "none":
        return None
    label, score = _py3langid().classify(piece.encode("utf-8", "replace").decode())
    return str(label), round(float(score), 4)


@command
def main() -> None:
    """Judge standard input line by line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m corpus.language", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--second", action="store_true", help='add "second": [label, score] by py3langid, or null')
    options = parser.parse_args()
    try:
        for line in sys.stdin.buffer:
            text = normalise(line.decode("utf-8", errors="replace"))[0]
            record: dict[str, Any] = identify(text)._asdict()
            if options.second:
                record["second"] = second_opinion(text)
            print(json.dumps(record))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, head say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
