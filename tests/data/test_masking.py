"""Rates, independence and reproducibility of the masks, over more than a million tokens."""

import numpy as np
import pytest

from data.masking import Masking
from data.packing import stream

V = 1000
SPECIAL = [0, 1, 2, 3, 4]
PAD, UNK, CLS, SEP, MASK = SPECIAL


def masking(**options) -> Masking:
    special = np.zeros(V, dtype=bool)
    special[[PAD, CLS, SEP, MASK]] = True
    continues = np.zeros(V, dtype=bool)
    continues[600:] = True  # the upper ids continue a word
    return Masking(MASK, special, continues, np.arange(5, V), **options)


def flat_batch(tokens: int, seed: int = 0) -> np.ndarray:
    ids = stream(99, seed).integers(5, V, tokens)
    ids[::50], ids[49::50] = CLS, SEP
    return ids


def words_of(ids: np.ndarray) -> np.ndarray:
    """Number of the word of each position, computed independently: a special token or a first token ends a word."""
    number, words = -1, []
    for i, token in enumerate(ids):
        special = token in (CLS, SEP)
        if special or token < 600 or ids[i - 1] in (CLS, SEP):
            number += 1
        words.append(-1 if special else number)
    return np.array(words)


@pytest.mark.parametrize("unit", ["token", "word", "span"])
@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("rate", [0.15, 0.3])
def test_rates_over_a_million_tokens(unit, fixed, rate):
    ids = flat_batch(1_050_000)
    hidden, positions, targets = masking(unit=unit, fixed_count=fixed).apply(ids, rate, stream(1))
    eligible = np.isin(ids, [CLS, SEP], invert=True)
    assert eligible[positions].all(), "a special token was masked"
    assert (np.diff(positions) > 0).all() and np.array_equal(targets, ids[positions])
    assert abs(len(positions) / eligible.sum() - rate) < 0.002
    if fixed:
        assert len(positions) == round(rate * eligible.sum())
    untouched = np.ones(len(ids), dtype=bool)
    untouched[positions] = False
    assert np.array_equal(hidden[untouched], ids[untouched])
    shown = hidden[positions]
    as_mask, kept = shown == MASK, shown == targets
    random = ~as_mask & ~kept
    assert abs(as_mask.mean() - 0.8) < 0.004
    assert abs(random.mean() - 0.1) < 0.004 and abs(kept.mean() - 0.1) < 0.004
    assert shown[random].min() >= 5, "a special token was drawn as a replacement"
    counts = np.bincount(shown[random], minlength=V)[5:]
    chi_square = ((counts - counts.mean()) ** 2 / counts.mean()).sum()
    assert abs(chi_square - len(counts)) < 6 * np.sqrt(2 * len(counts)), "replacements are not drawn evenly"


@pytest.mark.parametrize("unit", ["word", "span"])
def test_words_are_masked_whole(unit):
    ids = flat_batch(20_000)
    positions = masking(unit=unit).choose(ids, 0.2, stream(2))
    words = words_of(ids)
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[positions] = True
    whole = [chosen[words == word].mean() for word in np.unique(words[positions])]
    assert all(share == 1 for share in whole)


def test_spans_are_longer_than_chance():
    ids = flat_batch(200_000)

    def mean_run(unit: str) -> float:
        positions = masking(unit=unit).choose(ids, 0.15, stream(3))
        return len(positions) / (1 + (np.diff(positions) > 1).sum())

    assert mean_run("span") > 1.5 * mean_run("word")


def test_masks_depend_on_the_key_only():
    ids = flat_batch(50_000)
    first, again, other = (masking().apply(ids, 0.15, stream(5, 1, 0, n)) for n in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    both = np.intersect1d(first[1], other[1])
    expected = 0.15 * len(first[1])
    assert abs(len(both) - expected) < 5 * np.sqrt(expected)  # independent draws overlap by chance


def test_neighbours_are_masked_independently():
    ids = flat_batch(1_000_000)
    chosen = np.zeros(len(ids), dtype=bool)
    chosen[masking().choose(ids, 0.15, stream(6))] = True
    inner = np.arange(len(ids) - 1) % 50
    pairs = (inner > 0) & (inner < 48)
    both = (chosen[:-1] & chosen[1:])[pairs].mean()
    assert abs(both - 0.15**2) < 0.001


def test_batch_of_special_tokens_only():
    hidden, positions, _ = masking(unit="word").apply(np.array([CLS, SEP, CLS, SEP]), 0.5, stream(0))
    assert len(positions) == 0 and hidden.tolist() == [CLS, SEP, CLS, SEP]
