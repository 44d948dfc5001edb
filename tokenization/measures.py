"""Counts that describe how a tokenizer splits texts, and intervals for ratios of these counts."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from language.base import Language
from tokenization.tokenizer import Tokenizer

WORD = re.compile(r"[^\W_](?:[^\W_]|[\u0300-\u036f])*")  # letters and digits with their marks, no punctuation
COUNTS = (
    "words",
    "word_tokens",
    "whole",
    "continued",
    "tokens",
    "unknown",
    "lost_words",
    "characters",
    "bytes",
    "documents",
    "fits",
)
CONTEXT = 512  # positions of the paper's encoders, including [CLS] and [SEP]
ALPHA = 2.5  # order of the Rényi entropy whose efficiency correlated best with translation quality (Zouhar et al. 2023)
REPLICATES = 1000
SPACES = ("▁", "Ġ")  # tokens that consist of white space


def measure(tokenizer: Tokenizer, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Counts [documents, len(COUNTS)] and how often each id was used [vocabulary].

    word_tokens: tokens with a letter or digit; whole: words of exactly one token; continued: words of several; lost_words:
    words with an unknown token; fits: documents that fit into CONTEXT without cutting.
    """
    rows = np.zeros((len(texts), len(COUNTS)), dtype=np.int64)
    used = np.zeros(tokenizer.vocab_size, dtype=np.int64)
    space = np.array([token in SPACES for token in tokenizer.tokens])
    for begin in range(0, len(texts), 256):
        batch = texts[begin : begin + 256]
        for row, text, (ids, offsets) in zip(rows[begin:], batch, tokenizer.encode_with_offsets(batch), strict=False):
            used += np.bincount(ids, minlength=len(used))
            number = np.zeros(len(text) + 1, dtype=np.int64)  # number of the word of each character, from 1; 0 outside words
            spans = [match.span() for match in WORD.finditer(text)]
            for word, (first, last) in enumerate(spans, start=1):
                number[first:last] = word
            tokens_of = np.zeros(len(spans) + 1, dtype=np.int64)
            lost = np.zeros(len(spans) + 1, dtype=bool)
            touching = 0
            for index, (first, last) in zip(ids.tolist(), offsets.tolist(), strict=True):
                if space[index]:
                    continue
                words = set(number[first:last].tolist()) - {0}
                touching += bool(words)
                for word in words:
                    tokens_of[word] += 1
                    lost[word] |= index == tokenizer.unk_id
            unknown = int((ids == tokenizer.unk_id).sum())
            whole, continued = int((tokens_of[1:] == 1).sum()), int((tokens_of[1:] > 1).sum())
            row[:] = (
                len(spans),
                touching,
                whole,
                continued,
                len(ids),
                unknown,
                int(lost.sum()),
                len(text),
                len(text.encode()),
                1,
                len(ids) <= CONTEXT - 2,
            )
    return rows, used


# The ratios of the table: name, numerator, denominator, factor, explanation. Lower is better where marked.
RATIOS: dict[str, tuple[str, str, float, str]] = {
    "fertility": ("word_tokens", "words", 1, "tokens per word, punctuation apart (lower is better)"),
    "all_tokens": ("tokens", "words", 1, "all tokens per word, signs and spaces included"),
    "whole_words": ("whole", "words", 100, "% of words that are one token"),
    "continued": ("continued", "words", 100, "% of words that are cut into several tokens"),
    "characters": ("characters", "tokens", 1, "characters per token"),
    "bytes": ("bytes", "tokens", 1, "UTF-8 bytes per token"),
    "unknown": ("unknown", "tokens", 100, "% of tokens that are unknown"),
    "lost_words": ("lost_words", "words", 100, "% of words with an unknown token in them"),
    "fits": ("fits", "documents", 100, f"% of documents that fit into {CONTEXT} positions"),
}


def resampled(documents: int, seed: int = 0) -> np.ndarray:
    """[REPLICATES, documents] how often each document is drawn; equal for all tokenizers, so that differences are paired."""
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
    """By how many % `column` exceeds that of `base` on the same documents, with its paired 95 % interval."""
    place = COUNTS.index(column)
    values = 100 * ((draws @ rows[:, place]) / np.maximum(draws @ base[:, place], 1) - 1)
    low, high = np.quantile(values, [0.025, 0.975])
    whole = 100 * (rows[:, place].sum() / max(base[:, place].sum(), 1) - 1)
    return {"value": float(whole), "low": float(low), "high": float(high)}


def renyi(used: np.ndarray, size: int, alpha: float = ALPHA) -> float:
    """Rényi efficiency: H_alpha of the token frequencies over log(size); 1 if all `size` tokens are used equally."""
    shares = used[used > 0] / max(used.sum(), 1)
    if size < 2 or not len(shares):
        return float("nan")
    return float(np.log((shares**alpha).sum()) / (1 - alpha) / np.log(size))


def read_morphemes(path: Path) -> list[tuple[str, list[str]]]:
    """(word, its morphemes) from a table with the columns word and morphemes, the latter separated by spaces."""
    words = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        word, _, parts = line.partition("\t")
        if number == 1 or not line:
            continue
        if parts.replace(" ", "") != word or not word:
            raise UserError(f"{path}, line {number}: {parts!r} does not spell {word!r}. Correct the line.")
        words.append((word, parts.split()))
    return words


def morpheme_agreement(
    tokenizer: Tokenizer, words: list[tuple[str, list[str]]], language: Language, seed: int = 0
) -> dict[str, Any]:
    """Agreement of the tokenizer's cuts with morpheme borders, for each word alone and in lower case.

    precision (share of cuts that are at a border), recall (share of borders that are cut) and F1 in %, over all words, F1
    with its 95 % interval; and the share of words that the tokenizer does not cut.
    """
    rows = []
    encodings = tokenizer.encode_with_offsets([language.lower(word) for word, _ in words])
    for encoding, (_, parts) in zip(encodings, words, strict=True):
        borders = set(np.cumsum([len(part) for part in parts])[:-1].tolist())
        cuts = {int(begin) for (begin, end) in encoding.offsets if begin > 0 and end > begin}
        rows.append((len(borders & cuts), len(cuts), len(borders), not cuts))
    counts = np.array(rows)
    draws = resampled(len(rows), seed) @ counts
    f1 = 200 * draws[:, 0] / np.maximum(draws[:, 1] + draws[:, 2], 1)
    hits, cuts, borders, whole = counts.sum(0).tolist()
    return {
        "words": len(rows),
        "whole_words": 100 * whole / len(rows),
        "precision": 100 * hits / max(cuts, 1),
        "recall": 100 * hits / max(borders, 1),
        "f1": 200 * hits / max(cuts + borders, 1),
        "low": float(np.quantile(f1, 0.025)),
        "high": float(np.quantile(f1, 0.975)),
    }
