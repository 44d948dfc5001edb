"""What a tokenizer does to a text, counted per document, and intervals for the ratios of those counts."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from language.azerbaijani import lower
from tokenization.tokenizer import Tokenizer

WORD = re.compile(r"[^\W_](?:[^\W_]|[\u0300-\u036f])*")  # letters and digits with their marks: punctuation apart
COUNTS = (
    "words",
    "word_pieces",
    "whole",
    "continued",
    "pieces",
    "unknown",
    "lost_words",
    "characters",
    "bytes",
    "documents",
    "fits",
)
CONTEXT = 512  # positions of the paper's encoders, two of them [CLS] and [SEP]
ALPHA = 2.5  # order of the Rényi entropy at which efficiency went best with translation quality (Zouhar et al. 2023)
REPLICATES = 1000
SPACES = ("▁", "Ġ")  # pieces of white space alone
MORPHEMES = Path(__file__).with_name("morphemes.tsv")


def measure(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Counts [documents, len(COUNTS)] and how often each id was used [vocabulary].

    word_pieces are pieces that hold a letter or digit; whole are words of exactly one piece, continued of
    more; lost_words are words with an unknown piece in them; fits are documents that CONTEXT takes without cutting.
    """
    rows = np.zeros((len(texts), len(COUNTS)), dtype=np.int64)
    used = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    space = np.array([piece in SPACES for piece in tokenizer.pieces])
    for begin in range(0, len(texts), 256):
        batch = texts[begin : begin + 256]
        for row, text, (ids, offsets) in zip(rows[begin:], batch, tokenizer.encode_with_offsets(batch), strict=False):
            used += np.bincount(ids, minlength=len(used))
            number = np.zeros(len(text) + 1, dtype=np.int64)  # of the word a character belongs to, from 1; 0 outside
            spans = [match.span() for match in WORD.finditer(text)]
            for word, (first, last) in enumerate(spans, start=1):
                number[first:last] = word
            pieces_of = np.zeros(len(spans) + 1, dtype=np.int64)
            lost = np.zeros(len(spans) + 1, dtype=bool)
            touching = 0
            for index, (first, last) in zip(ids.tolist(), offsets.tolist(), strict=True):
                if space[index]:
                    continue
                words = set(number[first:last].tolist()) - {0}
                touching += bool(words)
                for word in words:
                    pieces_of[word] += 1
                    lost[word] |= index == tokenizer.unk_id
            unknown = int((ids == tokenizer.unk_id).sum())
            whole, continued = int((pieces_of[1:] == 1).sum()), int((pieces_of[1:] > 1).sum())
            row[:] = (len(spans), touching, whole, continued, len(ids), unknown, int(lost.sum()), len(text),
                      len(text.encode()), 1, len(ids) <= CONTEXT - 2)  # fmt: skip
    return rows, used


# Every ratio of the table: name, numerator, denominator, factor, what it says. Lower is better where marked.
RATIOS: dict[str, tuple[str, str, float, str]] = {
    "fertility": ("word_pieces", "words", 1, "pieces per word, punctuation apart (lower is better)"),
    "all_pieces": ("pieces", "words", 1, "all pieces per word, signs and spaces included"),
    "whole_words": ("whole", "words", 100, "% of words that are one piece"),
    "continued": ("continued", "words", 100, "% of words that are cut into several pieces"),
    "characters": ("characters", "pieces", 1, "characters per piece"),
    "bytes": ("bytes", "pieces", 1, "UTF-8 bytes per piece"),
    "unknown": ("unknown", "pieces", 100, "% of pieces that are unknown"),
    "lost_words": ("lost_words", "words", 100, "% of words with an unknown piece in them"),
    "fits": ("fits", "documents", 100, f"% of documents that fit into {CONTEXT} positions"),
}


def resampled(documents: int, seed: int = 0) -> np.ndarray:
    """[REPLICATES, documents] how often each document is drawn, the same for every tokenizer so that differences pair."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(documents, np.full(documents, 1 / documents), size=REPLICATES)


def ratio(rows: np.ndarray, draws: np.ndarray, name: str) -> dict[str, float]:
    """One of RATIOS with its 95 % bootstrap interval over documents."""
    above, below, factor, _ = RATIOS[name]
    a, b = rows[:, COUNTS.index(above)], rows[:, COUNTS.index(below)]
    values = factor * (draws @ a) / np.maximum(draws @ b, 1)
    low, high = np.quantile(values, [0.025, 0.975])
    return {"value": float(factor * a.sum() / max(b.sum(), 1)), "low": float(low), "high": float(high)}


def relative(rows: np.ndarray, base: np.ndarray, draws: np.ndarray, column: str) -> dict[str, float]:
    """% more of `column` than `base` has on the same documents, with its paired 95 % interval."""
    place = COUNTS.index(column)
    values = 100 * ((draws @ rows[:, place]) / np.maximum(draws @ base[:, place], 1) - 1)
    low, high = np.quantile(values, [0.025, 0.975])
    whole = 100 * (rows[:, place].sum() / max(base[:, place].sum(), 1) - 1)
    return {"value": float(whole), "low": float(low), "high": float(high)}


def renyi(used: np.ndarray, size: int, alpha: float = ALPHA) -> float:
    """Rényi efficiency: H_alpha of the pieces' frequencies over log(size), 1 when all `size` are used alike."""
    shares = used[used > 0] / max(used.sum(), 1)
    if size < 2 or not len(shares):
        return float("nan")
    return float(np.log((shares**alpha).sum()) / (1 - alpha) / np.log(size))


def read_morphemes(path: Path = MORPHEMES) -> list[tuple[str, list[str]]]:
    """(word, its morphemes) of a table with the columns word and morphemes, the latter separated by spaces."""
    words = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        word, _, parts = line.partition("\t")
        if number == 1 or not line:
            continue
        if parts.replace(" ", "") != word or not word:
            raise UserError(f"{path}, line {number}: {parts!r} does not spell {word!r}. Correct the line.")
        words.append((word, parts.split()))
    return words


def morpheme_agreement(tokenizer: Tokenizer, words: list[tuple[str, list[str]]], seed: int = 0) -> dict[str, Any]:
    """How the cuts inside words agree with the borders of morphemes, each word alone and in lower case.

    precision (of the cuts made, those at a border), recall (of the borders, those cut) and F1 in %, over all words;
    and the share of words that the tokenizer leaves whole, which have no cut to judge. F1 with its 95 % interval.
    """
    rows = []
    for encoding, (_, parts) in zip(tokenizer.encode_with_offsets([lower(word) for word, _ in words]), words, strict=True):
        borders = set(np.cumsum([len(part) for part in parts])[:-1].tolist())
        cuts = {int(begin) for (begin, end) in encoding.offsets if begin > 0 and end > begin}
        rows.append((len(borders & cuts), len(cuts), len(borders), not cuts))
    counts = np.array(rows)
    draws = resampled(len(rows), seed) @ counts
    f1 = 200 * draws[:, 0] / np.maximum(draws[:, 1] + draws[:, 2], 1)
    hits, cuts, borders, whole = counts.sum(0).tolist()
    return {
        "words": len(rows), "whole_words": 100 * whole / len(rows), "precision": 100 * hits / max(cuts, 1),
        "recall": 100 * hits / max(borders, 1), "f1": 200 * hits / max(cuts + borders, 1),
        "low": float(np.quantile(f1, 0.025)), "high": float(np.quantile(f1, 0.975)),
    }  # fmt: skip
