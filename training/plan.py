"""The plan of pre-training: what each optimizer step does, as a function of the run's counters, and where it ends."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from common.settings import plain
from data.loader import Loader
from data.packing import SPECIALS
from training.distributed import Ranks
from training.settings import Budget


@dataclass
class State:
    """The counters of a run: together with weights and optimizers all that is needed to resume it exactly."""

    step: int = 0
    ranks: int = 0  # that took the last step; 0: not known
    epoch: int = 0  # number of started passes over the mixture
    batch: int = 0  # next micro-batch of the epoch
    max_length: int = 0  # tokens of the longest window in the epoch
    tokens: int = 0  # read so far, special ones included, over all ranks
    planned_flops: float = 0.0  # compared with budget.flops: uses the expected number of masked tokens
    masked: int = 0
    flops: float = 0.0  # counted for all steps: the model, a teacher, the optimizer's matrix products
    teacher_flops: float = 0.0
    seconds: float = 0.0  # of training, over all parts of an interrupted run
    joules: float | None = None
    skipped: int = 0  # skipped steps: loss or gradient not finite, or a spike
    in_a_row: int = 0
    by_source: list[int] = field(default_factory=list)  # tokens of text read from each source
    norms: list[float] = field(default_factory=list)  # gradient norms for the spike rule
    above: dict[str, int] = field(default_factory=dict)  # consecutive evaluations over the collapse watch's bound, by text
    lowest: float | None = None  # lowest held-out loss, at a step that broke no bound
    lowest_step: int = 0


@dataclass
class Step:
    """One optimizer step: the micro-batches (epoch, number) of all ranks and the present settings."""

    micros: list[tuple[int, int]]
    max_length: int
    mask_rate: float
    progress: float
    after: dict[str, Any]  # the counters after it


class Clock:
    """Seconds of training: of earlier parts of the run, and of this part without its pauses."""

    def __init__(self, before: float) -> None:
        self.begun = time.time() - before
        self.stopped: float | None = None

    def seconds(self) -> float:
        """Seconds so far, without pauses."""
        return (self.stopped or time.time()) - self.begun

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the clock for the length of the block."""
        self.stopped = time.time()
        try:
            yield
        finally:
            self.begun += time.time() - self.stopped
            self.stopped = None


def budget_of(budget: Budget, tokens_per_epoch: float) -> dict[str, Any]:
    """The one budget that is set, as {"unit": steps|tokens|minutes|flops, "amount"}; epochs are counted in their tokens."""
    unit, amount = next((unit, amount) for unit, amount in plain(budget).items() if amount is not None)
    return {"unit": "tokens", "amount": amount * tokens_per_epoch} if unit == "epochs" else {"unit": unit, "amount": amount}


def plan_steps(
    at: Callable[[float], tuple[int, int, float]],
    loader: Loader,
    state: State,
    ranks: Ranks,
    total: dict[str, Any],
    clock: Clock,
    cost: Callable[[list[np.ndarray], list[float]], float],
) -> Iterator[Step]:
    """Steps from `state` to the end of the budget. Only the counters decide (and, with a budget in minutes, the clock).

    `at` gives what holds at a progress of 0 to 1: the longest window in tokens, the number of micro-batches over all ranks,
    the share of tokens to mask. `cost` gives the FLOPs of a step from its micro-batches' document lengths, special tokens
    included, and the share of tokens that each predicts. It is asked only where the budget is in FLOPs.
    """
    step, epoch, batch, length, tokens = state.step, state.epoch, state.batch, state.max_length, state.tokens
    flops = state.planned_flops
    while True:
        used = {"steps": step, "tokens": tokens, "flops": flops}
        if total["unit"] == "minutes":  # the first rank's clock decides for all, because they must end at the same step
            used["minutes"] = ranks.of_first(clock.seconds() / 60)
        progress = used[total["unit"]] / total["amount"]
        if progress >= 1:
            return
        wanted, count, rate = at(progress)
        if length not in (0, wanted):  # a new phase packs anew: go on with a fresh epoch
            epoch, batch = epoch + 1, 0
        length = wanted
        micros, lengths = [], []
        while len(micros) < count:
            plan = loader.plan(epoch, length)
            if batch >= len(plan):
                epoch, batch = epoch + 1, 0
                continue
            micros.append((epoch, batch))
            lengths.append(plan.length[plan.first[batch] : plan.first[batch + 1]] + SPECIALS)
            batch += 1
        tokens += int(sum(part.sum() for part in lengths))
        predicted = [loader.masking.predicted(number, rate) for _, number in micros]
        flops += float(cost(lengths, predicted)) if total["unit"] == "flops" else 0.0
        step += 1
        after = {"step": step, "epoch": epoch, "batch": batch, "max_length": length, "tokens": tokens, "planned_flops": flops}
        yield Step(micros, length, rate, progress, after)
