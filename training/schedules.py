"""All schedules of a run as functions of `progress`, the share of the budget that is used (0 to 1)."""

import math

from training.settings import BatchWarmup, Masking, Phase, Schedule


def learning_rate_factor(schedule: Schedule, progress: float) -> float:
    """Factor on the peak learning rate.

    kind linear (BERT's), cosine, wsd (warm-up, stable, decay; arXiv 2405.18392) or constant. `warmup` and `decay` are
    shares of the budget, `floor` the factor at the end. wsd decays by 1 - sqrt, the best shape there (§4).
    """
    warmup, floor, kind = schedule.warmup, schedule.floor, schedule.kind
    if progress < warmup:
        return progress / warmup
    if kind == "constant":
        return 1.0
    if kind == "wsd":
        begin = 1.0 - schedule.decay
        return (
            1.0 if progress <= begin else floor + (1 - floor) * (1 - math.sqrt(min(1.0, (progress - begin) / schedule.decay)))
        )
    rest = min(1.0, (progress - warmup) / max(1e-9, 1.0 - warmup))
    if kind == "linear":
        return 1.0 - (1.0 - floor) * rest
    return floor + (1.0 - floor) * 0.5 * (1.0 + math.cos(math.pi * rest))  # cosine


def mask_rate(masking: Masking, progress: float) -> float:
    """Share of tokens to mask: linear from rate_start to rate_end (arXiv 2305.15096)."""
    return masking.rate_start + (masking.rate_end - masking.rate_start) * min(1.0, progress)


def predicted_rate(masking: Masking, progress: float) -> float:
    """Share of tokens that is predicted on average: masked ones, and in causal batches the next ones."""
    return (1 - masking.causal) * mask_rate(masking, progress) + masking.causal * masking.causal_rate


def micro_batches(batch_tokens: int, micro_batch_tokens: int, warmup: BatchWarmup, progress: float, world: int) -> int:
    """Micro-batches of this step over all ranks: the same number for each rank, growing linearly over the warm-up.

    `warmup` holds start_tokens (batch at the beginning) and share (of the budget until the full batch; 0 switches it off).
    """
    wanted = float(batch_tokens)
    if warmup.share > 0 and progress < warmup.share:
        wanted = warmup.start_tokens + (batch_tokens - warmup.start_tokens) * progress / warmup.share
    return max(1, round(wanted / micro_batch_tokens / world)) * world


def phase_length(phases: list[Phase], progress: float) -> int:
    """Longest window, in tokens, at this point. Each phase has max_length and `until`, the share at which it ends."""
    for phase in phases:
        if progress < phase.until:
            return phase.max_length
    return phases[-1].max_length
