"""How often each document is read in one epoch of the mixture: its source's rate, whole passes and a draw for the rest."""

import numpy as np

from corpus.mixture import source_rates

__all__ = ["copies_of", "source_rates"]


def copies_of(rates: np.ndarray, source: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """How often each document [D] (of source number `source`) is read this epoch: floor(rate), once more by chance."""
    rate = rates[source]
    return np.floor(rate).astype(np.int64) + (generator.random(len(source)) < rate % 1)
