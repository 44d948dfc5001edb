"""Dynamic masking (RoBERTa, arXiv 1907.11692 §4.1): the masked positions are drawn again for every batch.

A share of the batches may be causal instead: nothing is masked, attention looks back only, and each token predicts the next
(one model for both readings: AntLM, arXiv 2412.03275; GPT-BERT, arXiv 2410.24159, with the masked positions left in place).

Of the selected positions 80 % become [MASK], 10 % become a random ordinary token and 10 % keep their token (BERT, arXiv
1810.04805 §3.1). Special tokens are never selected and never drawn as replacements. The draw is a pure function of the
generator's key, which the loader makes of (seed, epoch, batch). So a batch is masked in the same way on any machine, on
any rank and after a resume.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tokenization.tokenizer import Tokenizer


@dataclass
class Masking:
    """What the collator needs to know of the vocabulary, and how it masks."""

    mask_id: int
    special: np.ndarray  # [V] bool
    continues: np.ndarray  # [V] bool: the token continues a word (## of WordPiece, no ▁ of sentencepiece)
    ordinary: np.ndarray  # ids from which random replacements are drawn
    unit: str = "token"  # token, word (whole-word masking) or span (SpanBERT)
    fixed_count: bool = False  # mask exactly count(eligible, rate) positions, for static shapes
    multiple: int = 1  # fixed_count: round the number of masked tokens to a multiple of this (changes it by less than 1 in 32)
    mask_share: float = 0.8
    random_share: float = 0.1
    span_p: float = 0.2  # geometric length of a span in words (SpanBERT, arXiv 1907.10529: 0.2)
    span_longest: int = 10  # words
    causal: float = 0.0  # share of micro-batches that are causal
    causal_rate: float = 1.0  # share of the tokens of text that are predicted in a causal batch

    @classmethod
    def of(cls, tokenizer: Tokenizer, **options: Any) -> "Masking":
        """Masking for a tokenizer; options are the fields after `ordinary`."""
        special = np.zeros(tokenizer.vocab_size, dtype=bool)
        special[tokenizer.special_ids] = True
        special[tokenizer.unk_id] = False  # unknown words may be masked; they are only never drawn as replacements
        return cls(tokenizer.mask_id, special, tokenizer.continues, tokenizer.ordinary_ids, **options)

    def is_causal(self, number: int) -> bool:
        """Whether micro-batch `number` of an epoch is causal: they are spread evenly."""
        return math.floor((number + 1) * self.causal) > math.floor(number * self.causal)

    def predicted(self, number: int, rate: float) -> float:
        """Share of the tokens of text that micro-batch `number` predicts if masked ones are masked at `rate`."""
        return self.causal_rate if self.is_causal(number) else rate

    def next_tokens(self, ids: np.ndarray, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Sorted positions [M] in a flat batch ids [T] that predict their next token, and these tokens [M].

        [CLS] predicts the first token of its document; special tokens are never predicted.
        """
        positions = np.flatnonzero(~self.special[ids[1:]])
        if self.causal_rate < 1:
            positions = np.sort(generator.permutation(positions)[: self.count(len(positions), self.causal_rate)])
        return positions, ids[positions + 1]

    def count(self, eligible: int, rate: float) -> int:
        """Number of positions to mask among `eligible` ones when the count is fixed."""
        exact = round(rate * eligible)
        multiple = min(self.multiple, max(1, exact // 16))
        return min(eligible, round(exact / multiple) * multiple)

    def choose(self, ids: np.ndarray, rate: float, generator: np.random.Generator) -> np.ndarray:
        """Sorted positions [M] to mask in ids [T]: each eligible position with probability `rate`."""
        eligible = np.flatnonzero(~self.special[ids])
        if len(eligible) == 0:
            return eligible
        if self.unit == "token":
            if not self.fixed_count:
                return eligible[generator.random(len(eligible), dtype=np.float32) < rate]
            return np.sort(generator.permutation(eligible)[: self.count(len(eligible), rate)])
        # A new word begins where a token does not continue the one before it, or follows a special token.
        before_is_special = np.diff(eligible, prepend=-2) > 1
        word = np.cumsum(~self.continues[ids[eligible]] | before_is_special) - 1
        n_words = int(word[-1]) + 1
        if self.unit == "span":
            draw = self._spans(n_words, rate, generator)
        elif not self.fixed_count:
            return eligible[(generator.random(n_words, dtype=np.float32) < rate)[word]]
        else:
            draw = generator.permutation(n_words)
        # Take words in the drawn order until enough tokens are selected; trim the last word to hit the count exactly.
        sizes = np.bincount(word, minlength=n_words)
        wanted = self.count(len(eligible), rate)
        reached = np.searchsorted(np.cumsum(sizes[draw]), wanted, side="left")
        taken = np.zeros(n_words, dtype=bool)
        taken[draw[: reached + 1]] = wanted > 0
        positions = eligible[taken[word]]
        if self.fixed_count and len(positions) > wanted:
            last = np.flatnonzero(word == draw[reached])
            drop = eligible[last[len(last) - (len(positions) - wanted) :]]
            positions = np.setdiff1d(positions, drop, assume_unique=True)
        return positions

    def _spans(self, n_words: int, rate: float, generator: np.random.Generator) -> np.ndarray:
        """Words in the order in which random spans cover them, enough for `rate` of all, then the rest."""
        lengths = np.minimum(generator.geometric(self.span_p, n_words + 1), self.span_longest)
        begins = generator.integers(0, n_words, n_words + 1)
        covered = np.repeat(begins, lengths) + np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        covered = covered[covered < n_words]
        _, first_seen = np.unique(covered, return_index=True)
        order = covered[np.sort(first_seen)]
        return np.concatenate([order, np.setdiff1d(np.arange(n_words), order)])

    def apply(self, ids: np.ndarray, rate: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Mask a flat batch ids [T]; returns (input ids [T], sorted masked positions [M], targets [M])."""
        positions = self.choose(ids, rate, generator)
        targets = ids[positions]
        draw = generator.random(len(positions), dtype=np.float32)
        replacement = self.ordinary[generator.integers(0, len(self.ordinary), len(positions))]
        shown = np.where(
            draw < self.mask_share,
            self.mask_id,
            np.where(draw < self.mask_share + self.random_share, replacement, targets),
        )
        inputs = ids.copy()
        inputs[positions] = shown
        return inputs, positions, targets
