"""How often each document is read in an epoch: whole passes by its source's rate, a draw for the fraction."""

import numpy as np

from corpus.mixture import source_rates

__all__ = ["copies_of", "source_rates"]


def copies_of(rates: np.ndarray, source: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Times each document [D] (of source `source`) is read this epoch: floor(rate), plus one with probability rate % 1."""
    rate = rates[source]
    return np.floor(rate).astype(np.int64) + (generator.random(len(source)) < rate % 1)
