"""The language detector: hashed character n-grams and one small linear model for each script, NumPy alone.

A text becomes folded letters (case, the dot of i and Cyrillic ә inside Latin are folded; ə ş ğ ç ö ü ñ ä are kept). Its 1-
to 5-grams select rows of a table of int8 weights; their sum over the square root of their number is the score of each
language. Because of the square root, scores grow with the evidence: a greeting stays near even odds, a sentence is clear.
`corpus.detection.train_detector` fits the tables, detector.npz holds them, detector.json records the training data.
"""

import functools
import io
import math
import unicodedata
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from common.errors import UserError
from common.files import open_whole
from language.codes import SAME_LETTERS

MODEL_FILE = Path(__file__).with_name("detector.npz")
ORDERS = 5  # n-grams of 1 to 5 characters
_STEP, _SPREAD = np.uint32(0x01000193), np.uint32(0x9E3779B1)  # FNV's prime and the golden ratio; any odd numbers would do
PIECE = 400  # characters scored at the beginning, in the middle and at the end of a text longer than three times this
SPACE = 32

# Scripts by ISO 15924, by the first word of the letters' Unicode names.
SCRIPTS = {
    "LATIN": "Latn",
    "CYRILLIC": "Cyrl",
    "ARABIC": "Arab",
    "GREEK": "Grek",
    "ARMENIAN": "Armn",
    "GEORGIAN": "Geor",
    "HEBREW": "Hebr",
    "DEVANAGARI": "Deva",
    "THAI": "Thai",
    "HANGUL": "Hang",
    "CJK": "Hani",
    "HIRAGANA": "Jpan",
    "KATAKANA": "Jpan",
}
_CODES = ["none", "Latn", *sorted(set(SCRIPTS.values()) - {"Latn"}), "Zyyy"]  # Zyyy: letters of any other script


class Model(NamedTuple):
    """Weights for the texts of one script."""

    labels: tuple[str, ...]  # language codes, including "other"
    weights: np.ndarray  # float32 [hash slots, labels], whole numbers: sums are exact, so equal on every machine
    scale: float  # value of one unit of the weights
    bias: np.ndarray  # float32 [labels]


@functools.cache
def _tables() -> tuple[np.ndarray, np.ndarray]:
    """For each UTF-16 unit: its folded letter (a space for a character that is not a letter), and its index in `_CODES`."""
    fold, script = np.full(1 << 16, SPACE, np.uint32), np.zeros(1 << 16, np.uint8)
    places = {code: place for place, code in enumerate(_CODES)}
    for code in range(1 << 16):
        letter = chr(code)
        if letter.isalpha():
            small = SAME_LETTERS.get(letter, letter.lower())
            fold[code] = ord(small) if len(small) == 1 else code
            name = unicodedata.name(letter, "NONE").split()[0]
            script[code] = places[SCRIPTS.get(name, "Zyyy")]
    fold[ord("'")] = ord("'")
    for letter, same in SAME_LETTERS.items():
        if same == "'":
            fold[ord(letter)], script[ord(letter)] = ord(same), 0  # also for modifier letters that serve as apostrophes
    return fold, script


def sample(text: str) -> str:
    """The examined part of a text: all of it, or its beginning, middle and end of `PIECE` characters each."""
    if len(text) <= 3 * PIECE:
        return text
    begin = (len(text) - PIECE) // 2
    return f"{text[:PIECE]} {text[begin : begin + PIECE]} {text[-PIECE:]}"


def units(text: str) -> np.ndarray:
    """UTF-16 units of `text`, uint16; a character beyond the basic plane becomes two units that are not letters."""
    return np.frombuffer(text.encode("utf-16-le", "surrogatepass"), np.uint16)


def script_counts(codes: np.ndarray) -> dict[str, int]:
    """Number of letters of each script that occurs (ISO 15924; Zyyy for any other)."""
    counts = np.bincount(_tables()[1][codes], minlength=len(_CODES))
    return {_CODES[place]: int(counts[place]) for place in counts.nonzero()[0].tolist() if place}


def hashes(codes: np.ndarray, bits: int) -> np.ndarray:
    """Hash slots below 2**bits of all 1- to 5-grams of folded letters, about 5 a character; other characters are one space."""
    folded = np.full(len(codes) + 2, SPACE, np.uint32)
    folded[1:-1] = _tables()[0][codes]
    blank = folded == SPACE
    blank[1:] &= blank[:-1]
    blank[0] = False
    folded = folded[~blank]
    size = len(folded)
    found = np.empty(sum(max(0, size - order) for order in range(ORDERS)), np.uint32)
    rolling, end = folded, 0
    for order in range(1, min(ORDERS, size) + 1):
        if order > 1:
            rolling = rolling[:-1] * _STEP
            rolling += folded[order - 1 :]
        begin, end = end, end + len(rolling)
        mine = found[begin:end]
        np.multiply(rolling, _SPREAD, out=mine)
        mine += np.uint32(order)
    found *= _SPREAD
    found >>= np.uint32(32 - bits)
    return found


def main_script(codes: np.ndarray) -> str:
    """The script of most letters; "none" if there is no letter; the alphabetically first on a tie."""
    return most_letters(script_counts(codes))


def most_letters(counts: dict[str, int]) -> str:
    """As `main_script`, from the counts of letters."""
    return max(sorted(counts), key=counts.__getitem__) if counts else "none"


@functools.cache
def load(path: Path = MODEL_FILE) -> dict[str, Model]:
    """The models by script, read once per process; raises UserError when the file is missing or damaged."""
    hint = "Restore it from the repository or train it: python -m corpus.detection.train_detector SENTENCES."
    try:
        with np.load(path, allow_pickle=False) as arrays:
            models = {}
            for script in arrays["scripts"].tolist():
                labels = tuple(arrays[f"{script}_labels"].tolist())
                weights, bias = arrays[f"{script}_weights"], arrays[f"{script}_bias"]
                rows, columns = weights.shape
                if rows & (rows - 1) or columns != len(labels) or bias.shape != (columns,) or weights.dtype != np.int8:
                    raise ValueError(f"{script}: weights {weights.shape} for {len(labels)} labels")
                wide = weights.astype(np.float32)
                models[script] = Model(labels, wide * np.abs(wide), float(arrays[f"{script}_scale"]), bias)
            return models
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the language detector's weights belong there. {hint}") from None
    except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a whole detector file ({error}). {hint}") from None


def save(path: str | Path, models: dict[str, tuple[list[str], np.ndarray, np.ndarray]]) -> None:
    """Write labels, weights and bias by script; weights are rounded to q * |q| units, q an int8: finer steps near 0."""
    arrays: dict[str, np.ndarray] = {"scripts": np.array(sorted(models))}
    for script, (labels, weights, bias) in models.items():
        scale = np.float32(max(np.abs(weights).max(), 1e-6) / 127**2)
        arrays[f"{script}_labels"] = np.array(labels)
        arrays[f"{script}_weights"] = (np.sign(weights) * np.rint(np.sqrt(np.abs(weights) / scale))).astype(np.int8)
        arrays[f"{script}_scale"], arrays[f"{script}_bias"] = scale, bias
    with open_whole(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(arrays):  # np.savez would write the time of day into the file
            content = io.BytesIO()
            np.lib.format.write_array(content, arrays[name], allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), content.getvalue(), zipfile.ZIP_DEFLATED)


def probabilities(codes: np.ndarray, model: Model) -> np.ndarray:
    """Probability of each of the model's labels for the text with these units (`units`), float64 [labels]."""
    rows = hashes(codes, model.weights.shape[0].bit_length() - 1)
    total = np.ones(len(rows), np.float32) @ model.weights.take(rows, axis=0)
    logits = total * (model.scale / math.sqrt(len(rows))) + model.bias
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()
