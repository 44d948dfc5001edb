"""Passes over each source in one epoch of the mixture: weights, temperature, and a cap on repetition."""

import numpy as np

from common.errors import UserError


def source_rates(tokens: np.ndarray, weights: np.ndarray, temperature: float, max_repeats: float | None) -> np.ndarray:
    """Passes over each source [S] in one epoch of the mixture.

    tokens (or words, or another measure of size) and weights are [S]. A source's share is proportional to
    weight x tokens ** temperature (XLM, arXiv 1901.07291; 1 keeps natural sizes, 0 makes equal shares). With temperature 1
    a rate is the weight itself, which is the upsampling of weighted DOLLMA. Other temperatures scale the rates so that an
    epoch has as many tokens as with temperature 1. `max_repeats` caps a rate; the sources below the cap receive the freed
    tokens in proportion (water-filling; UniMax, arXiv 2304.09151; about 4 passes are as good as fresh text, arXiv
    2305.16264). If all sources are capped, the epoch is shorter.
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
