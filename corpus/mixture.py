"""How often each source is read in one epoch of the mixture: weights, temperature, and a cap on repetition."""

import numpy as np

from common.errors import UserError


def source_rates(tokens: np.ndarray, weights: np.ndarray, temperature: float, max_repeats: float | None) -> np.ndarray:
    """Passes over each source [S] in one epoch of the mixture.

    tokens (or words: any size), weights [S]. The share of a source is proportional to weight x tokens ** temperature (XLM,
    arXiv 1901.07291: 1 natural sizes, 0 equal shares); with temperature 1 a rate is the weight itself, the upsampling of
    weighted DOLLMA. At other temperatures rates are scaled so that an epoch has as many tokens as at temperature 1.
    `max_repeats` caps a rate; what the cap frees goes to the sources below it in proportion (water-filling; UniMax,
    arXiv 2304.09151; about 4 passes are as good as fresh text, arXiv 2305.16264). Where all are capped the epoch is shorter.
    """
    tokens, weights = np.asarray(tokens, dtype=float), np.asarray(weights, dtype=float)
    if (weights < 0).any() or not (weights * tokens).any():
        raise UserError("mixture: weights must be 0 or more, and at least one source must have a weight and text.")
    budget = (weights * tokens).sum()
    share = weights * np.where(tokens > 0, tokens, 1) ** temperature * (tokens > 0)
    rates = np.divide(share / share.sum() * budget, tokens, out=np.zeros_like(tokens), where=tokens > 0)
    if max_repeats is None:
        return rates
    capped = np.zeros(len(rates), dtype=bool)
    while (over := (rates > max_repeats * (1 + 1e-12)) & ~capped).any():
        capped |= over
        rates[capped] = max_repeats
        free = ~capped & (rates > 0)
        left = budget - max_repeats * tokens[capped].sum()
        if not free.any() or left <= 0:
            break
        rates[free] *= left / (rates[free] * tokens[free]).sum()
    return np.minimum(rates, max_repeats)
