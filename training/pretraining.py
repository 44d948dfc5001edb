"""What a pre-training run works with (train.py has its loop), and what it says of itself: in a checkpoint, in summary.json."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import json_line
from data.loader import Loader
from model.mlm import MaskedLM
from tokenization.tokenizer import Tokenizer
from training.ancestry import ancestry, known_hours
from training.checkpoints import Writer
from training.distributed import Ranks
from training.heldout import HeldOut
from training.optimizers import Average
from training.plan import Clock, State, Step
from training.runs import Data
from training.settings import Finetuning, Pretraining
from training.sizes import block_rms, large_weights
from training.starting import origin
from training.tracking import Tracker, peak_memory
from training.watch import Watch


@dataclass
class Run:
    """What the loop works with: settings, data, model and files of one run, and what it has gathered for the next log line."""

    settings: Pretraining
    folder: Path
    ranks: Ranks
    tokenizer: Tokenizer
    loader: Loader
    source_tokens: np.ndarray
    heldout: HeldOut
    raw: MaskedLM
    model: torch.nn.Module  # `raw` as it is trained: compiled, on several ranks
    dtype: torch.dtype
    optimizers: list[torch.optim.Optimizer]
    average: Average | None
    watch: Watch | None
    state: State
    clock: Clock
    peak: float  # FLOPs a second of large matrix products, over all ranks
    tracker: Tracker
    writer: Writer
    norms: torch.Tensor  # gradient norms for the spike rule
    joules: float | None  # the energy counter at the last log line
    tasks: dict[str, tuple[Finetuning, Data]]  # what evaluation.tasks is scored with, on the first rank
    pairs: list[dict[str, str]]  # those of evaluation.pairs, on the first rank
    stop: list[int] = field(default_factory=list)  # signals received
    interval: list[tuple[torch.Tensor, Step]] = field(default_factory=list)  # [loss, norm, skipped] since the last log line
    measuring: bool = False  # whether the present step is a log line's
    gradients: torch.Tensor | None = None  # norms by group, at a log line's step
    sizes: torch.Tensor | None = None  # of weights, update, hidden states and gradients, at a log line's step
    waited: float = 0.0  # seconds for batches since the last log line
    saving: float = 0.0  # seconds of checkpoints since then
    mark: float = 0.0  # when the last log line was written
    flops: float = 0.0  # of the model and a teacher since then
    tokens: int = 0  # read until then
    scores: dict[str, Any] = field(default_factory=dict)  # of the last held-out evaluation
    task_scores: dict[str, Any] = field(default_factory=dict)  # of the last fine-tuning on each task
    pair_scores: dict[str, Any] = field(default_factory=dict)  # of the last scoring of evaluation.pairs
    peak_bytes: int = 0  # of memory, before tasks were scored
    bar: Any = None
    told: float = 0.0  # when the last plain line was printed

    def cast(self) -> contextlib.AbstractContextManager:
        """The context in which the model computes."""
        return torch.autocast(self.ranks.device.type, self.dtype, enabled=self.dtype != torch.float32)


def waits_counted(run: Run, steps: Iterator) -> Iterator:
    """The same steps; the seconds that the loop waits for them are added to run.waited."""
    try:
        while True:
            begun = time.perf_counter()
            item = next(steps, None)
            run.waited += time.perf_counter() - begun
            if item is None:
                return
            yield item
    finally:
        steps.close()


def extra_of(run: Run) -> dict[str, Any]:
    """What a checkpoint's config.json says beside the encoder's settings."""
    settings, state = run.settings, run.state
    made = {"name": settings.name, "language": language_of(run), "step": state.step, "tokens": state.tokens}
    if settings.masking.causal:
        made["causal"] = settings.masking.causal
    return made | origin(settings.start_from)


def language_of(run: Run) -> str | None:
    """The name of the language of the text, as the corpus recorded it."""
    return run.loader.shards.index.get("language") or run.settings.language


def summary(run: Run) -> dict[str, Any]:
    """summary.json: what the run cost and reached."""
    settings, state, ranks, weights = run.settings, run.state, run.ranks, run.raw.weights()
    hours, price = state.seconds / 3600, settings.price_per_hour
    teachers = settings.distill.teachers
    before, taught = ancestry(settings.start_from, *teachers), known_hours(ancestry(*teachers))
    teacher_cost = {"teacher": settings.distill.teacher, "hours": taught, "flops": state.teacher_flops} if teachers else None
    sources = zip(run.loader.shards.sources, state.by_source, run.source_tokens.tolist(), strict=True)
    note = large_weights(weights)
    return {
        "status": "done",
        "name": settings.name,
        "language": language_of(run),
        "seed": settings.seed,
        **({"branch_from": settings.branch_from} if settings.branch_from else {}),
        "steps": state.step,
        "tokens": state.tokens,
        "masked": state.masked,
        "epochs": {name: read / max(1, there) for name, read, there in sources},
        "parameters": sum(value.numel() for value in weights.values()),
        "hours": hours,
        "ranks": ranks.world,
        "device": ranks.device.type,
        "tokens_per_second": state.tokens / max(state.seconds, 1e-9),
        "peak_memory_bytes": max(run.peak_bytes, peak_memory(ranks.device)),
        "energy_kwh": "not measured" if state.joules is None else state.joules / 3.6e6,
        "cost": "not measured" if price is None else price * hours * ranks.world,
        "skipped_steps": state.skipped,
        "heldout": run.scores,
        "flops": state.flops,
        "distillation": teacher_cost,
        "ledger": before,
        "block_weights_rms": block_rms(weights),
        **({"note": note} if note else {}),
        **({"watch": run.watch.last} if run.watch else {}),
        **({"tasks": run.task_scores} if run.task_scores else {}),
        **({"pairs": run.pair_scores} if run.pair_scores else {}),
    }


def note_skipped(run: Run, values: list[list[float]], steps: list[Step]) -> None:
    """Count skipped steps and record their batches; `state.in_a_row` tells when there are too many."""
    state = run.state
    for (loss, norm, bad), step in zip(values, steps, strict=True):
        state.in_a_row = state.in_a_row + 1 if bad else 0
        state.skipped += int(bad)
        if bad and run.ranks.first:
            record = {"step": step.after["step"], "loss": str(loss), "gradient_norm": str(norm), "batches": step.micros}
            with open(run.folder / "skipped.jsonl", "ab") as file:
                file.write(json_line(record))
        if state.in_a_row >= run.settings.max_skipped_in_a_row:
            return


def refuse_many_skipped(run: Run) -> None:
    """UserError if the last steps were all skipped."""
    state, settings = run.state, run.settings
    if state.in_a_row >= settings.max_skipped_in_a_row:
        raise UserError(
            f"{run.folder}: {state.in_a_row} steps in a row had a loss or gradient that is not finite (or spiked); none "
            "reached the weights. skipped.jsonl names the batches. Lower optimizer.lr, lengthen schedule.warmup or set "
            "precision=fp32, and start again in another folder (hydra.run.dir=...); start_from=CHECKPOINT with one of "
            f"{run.folder / 'checkpoints'} keeps what was learned."
        )
