"""Plan a pre-training run before anything is spent: steps, passes over each source, FLOPs, memory, disk and hours.

    python train.py plan=true experiment=allma_small corpus.path=FOLDER

The model is built and takes a warm-up step and at least three timed ones in each phase, one evaluation and one checkpoint,
in a folder that is removed again. The rest is arithmetic over the packing of the first epoch. Corpus, tokenizer and shards
must exist. The table is printed, and <run>/plan.json holds the same figures.
"""

import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import write_json
from corpus.build import documents_of
from data.packing import SPECIALS
from data.shards import open_shards
from model.encoder import count_parameters
from model.folder import write_checkpoint
from tokenization.loading import load_tokenizer
from training.checkpoints import NEWEST, Tensors, save_state
from training.flops import optimizer_flops, step_flops, teacher_flops
from training.heldout import HeldOut, evaluate
from training.identity import corpus_now
from training.optimizers import average_weights
from training.plan import budget_of
from training.pretraining import Run
from training.schedules import micro_batches, phase_length, predicted_rate
from training.settings import Pretraining, TrackerSettings
from training.sizes import measure_sizes
from training.tracking import peak_memory

TIMED = 3  # steps in each phase, at least
# On a CPU memory grows with each new shape of a batch: steps go on until ten raise the peak by less than 3 %, 60 s at most.
SETTLED_STEPS, SETTLED_RISE, SETTLED_SECONDS = 10, 1.03, 60
POINTS = 2000  # of the budget, at which the schedules are read
EVALUATED = 16384  # tokens of held-out text that are evaluated for the time of an evaluation


@dataclass
class Cost:
    """What a micro-batch of one phase costs on average; masked: share of the tokens of text."""

    tokens: float  # special ones included
    fixed_flops: float
    flops_by_rate: float  # times the share of masked tokens
    seconds: float


def as_planned(settings: Pretraining) -> Pretraining:
    """The settings with which the trial steps are made: nothing resumes, nothing is mirrored, no task is scored."""
    evaluation = replace(settings.evaluation, tasks=[], mask_prompts=[], pairs=None)
    return replace(settings, tracker=TrackerSettings(), resume="never", evaluation=evaluation, profile=None)


def refuse_unprepared(settings: Pretraining) -> None:
    """UserError, with the command to run first, if corpus, tokenizer or shards are missing or of another text."""
    remedy = "Run python prepare.py with the same words first: a plan reads shards and makes none."
    for name, folder, file in (
        ("no corpus", settings.corpus_dir, "report.json"),
        ("no tokenizer", settings.tokenizer_dir, "training.json"),
        ("no token shards", settings.shards_dir, "index.json"),
    ):
        if not (Path(folder) / file).exists():
            raise UserError(f"plan=true: there is {name} in {folder}. {remedy}")
    now = corpus_now(settings.corpus)
    if now is None:
        raise UserError(
            f"plan=true: the text of corpus.path={settings.corpus.path} does not exist or cannot be read. Set corpus.path to "
            "your text and run python prepare.py with the same words first."
        )
    if now != documents_of(settings.corpus_dir):
        raise UserError(f"plan=true: the corpus in {settings.corpus_dir} was made of other text or settings. {remedy}")
    open_shards(settings.shards_dir, load_tokenizer(settings.tokenizer_dir))


def write_plan(run: Run, place: Path, steps_of: Callable[[Run], Iterator], advance: Callable[..., Any]) -> int:
    """Measure and calculate with `run`, whose folder is removed; write plan.json to `place` and print the table; returns 0.

    `steps_of(run)` yields (step, batches), `advance(run, step, batches)` takes one step; both are train.py's.
    """
    settings, total = run.settings, budget_of(run.settings.budget, float(run.loader.rates @ run.source_tokens))
    begun = used_by(run, total["unit"]) / total["amount"]
    lengths = {phase_length(settings.phases, p): p for p in reversed(points(begun))}
    state, costs = replace(run.state), {}
    try:
        for length, progress in lengths.items():
            costs[length] = cost_of(run, length, timed(run, progress, total, steps_of, advance))
        run.state = state
        measured = time_the_rest(run)
        plan = calculate(run, total, begun, costs, measured)
    finally:
        if run.ranks.first:
            shutil.rmtree(run.folder, ignore_errors=True)
    plan["memory_bytes"] = peak_memory(run.ranks.device)
    if run.ranks.first:
        write_json(place / "plan.json", plan)
        print(table(plan), f"{place / 'plan.json'}", sep="\n")
    run.ranks.wait()
    return 0


def points(begun: float) -> list[float]:
    """POINTS shares of the budget, in the middle of equal parts, from `begun` (a branch has used some) to the end."""
    return (begun + (1 - begun) * (np.arange(POINTS) + 0.5) / POINTS).tolist()


def used_by(run: Run, unit: str) -> float:
    """What the run has used of a budget in `unit`."""
    state = run.state
    return {"steps": state.step, "tokens": state.tokens, "flops": state.planned_flops, "minutes": state.seconds / 60}[unit]


def timed(run: Run, progress: float, total: dict[str, Any], steps_of: Callable, advance: Callable) -> float:
    """Seconds of a step at this point of the budget, for one micro-batch of each rank: the median of TIMED steps or more."""
    amount, unit = progress * total["amount"], total["unit"]
    key = {"steps": "step", "tokens": "tokens", "flops": "planned_flops"}.get(unit)
    if key is None:
        run.clock.begun = time.time() - 60 * amount
    else:
        setattr(run.state, key, type(getattr(run.state, key))(amount))
    seconds, peaks, steps = [], [], steps_of(run)
    before = begun = time.perf_counter()
    for step, batches in steps:
        loss, *_ = advance(run, step, batches)
        float(loss)  # waits for the device
        now = time.perf_counter()
        seconds.append((now - before) / len(batches))
        before = now
        peaks.append(peak_memory(run.ranks.device))
        grows = len(peaks) <= SETTLED_STEPS or peaks[-1] > SETTLED_RISE * peaks[-1 - SETTLED_STEPS]
        waiting = run.ranks.device.type == "cpu" and grows and now - begun < SETTLED_SECONDS
        if len(seconds) > TIMED and not run.ranks.host_sum(waiting)[0]:
            break
    steps.close()
    return float(np.median(seconds[1:] or seconds))


def cost_of(run: Run, length: int, seconds: float) -> Cost:
    """The mean cost of a micro-batch of windows of `length` tokens, from the packing of an epoch."""
    plan = run.loader.plan(run.state.epoch, length)
    chosen = np.unique(np.linspace(0, len(plan) - 1, min(len(plan), 50)).astype(int))
    parts = [plan.length[plan.first[i] : plan.first[i + 1]] + SPECIALS for i in chosen]

    def flops(rate: float) -> float:
        counts = [(part, rate * (part.sum() - 2 * len(part))) for part in parts]
        return sum(step_flops(run.raw, *count) + teacher_flops(run.raw, *count) for count in counts) / len(parts)

    tokens = (plan.length.sum() + SPECIALS * len(plan.length)) / len(plan)
    return Cost(float(tokens), flops(0.0), flops(1.0) - flops(0.0), seconds)


def time_the_rest(run: Run) -> dict[str, float]:
    """Seconds of an evaluation, a checkpoint, the final checkpoint and a log line; bytes of both checkpoints."""
    heldout, ranks = run.heldout, run.ranks
    counts = np.cumsum([len(window.ids) for window in heldout.windows])
    part = heldout.windows[: max(1, int(np.searchsorted(counts, EVALUATED)))]
    with average_weights(run.raw, run.average):
        begun = time.perf_counter()
        evaluate(run.raw, HeldOut(heldout.sources, part, heldout.counts), ranks, run.dtype)
    evaluation = (time.perf_counter() - begun) * len(heldout.windows) / len(part)
    measured = {"evaluation": evaluation, "state": 0.0, "state_bytes": 0, "checkpoint": 0.0, "checkpoint_bytes": 0, "log": 0.0}
    if ranks.first:
        shape, begun = run.raw.encoder.config, time.perf_counter()
        save_state(run.folder, vars(run.state), Tensors.of(run.raw, run.optimizers, run.average), shape, run.tokenizer)
        measured["state"], begun = time.perf_counter() - begun, time.perf_counter()
        write_checkpoint(run.folder / "checkpoint", run.raw.weights(), shape, run.tokenizer)
        measured["checkpoint"] = time.perf_counter() - begun
        for key, name in (("state_bytes", "checkpoints"), ("checkpoint_bytes", "checkpoint")):
            measured[key] = sum(path.stat().st_size for path in (run.folder / name).rglob("*") if path.is_file())
        batch, begun = run.loader.batch(0, 0, run.settings.longest, 0.15).to(ranks.device), time.perf_counter()
        with run.cast(), torch.no_grad():
            before = [p.detach().clone() for p in run.raw.parameters()]
            measure_sizes(run.raw, before, batch.ids, batch.layout.lengths[: len(batch.documents)]).tolist()
        measured["log"] = time.perf_counter() - begun
    ranks.wait()
    return measured


def calculate(
    run: Run, total: dict[str, Any], begun: float, costs: dict[int, Cost], measured: dict[str, float]
) -> dict[str, Any]:
    """The plan as plan.json has it, from what was measured. `begun`: share of the budget that a branch has used."""
    settings, world = run.settings, run.ranks.world
    share, each = total["amount"] * (1 - begun) / POINTS, optimizer_flops(run.optimizers)
    steps = tokens = flops = seconds = 0.0
    for progress in points(begun):
        cost = costs[phase_length(settings.phases, progress)]
        sizes = settings.batch_tokens, settings.micro_batch_tokens, settings.batch_warmup
        count = micro_batches(*sizes, progress, world)
        one = {
            "steps": 1.0,
            "tokens": count * cost.tokens,
            "flops": count * (cost.fixed_flops + cost.flops_by_rate * predicted_rate(settings.masking, progress)) + each,
            "minutes": count / world * cost.seconds / 60,
        }
        now = share / one[total["unit"]]
        steps, tokens, flops = steps + now, tokens + now * one["tokens"], flops + now * one["flops"]
        seconds += now * 60 * one["minutes"]
    evaluations = (steps // settings.evaluation.every if settings.evaluation.every else 0) + (begun == 0) + 1
    states = (steps // settings.checkpoint_every if settings.checkpoint_every else 0) + len(settings.kept_steps)
    kept = len(settings.kept_steps) + NEWEST if settings.kept_steps else settings.keep_checkpoints
    rest = evaluations * measured["evaluation"] + states * measured["state"] + steps / settings.log_every * measured["log"]
    hours = (seconds + (0 if total["unit"] == "minutes" else rest)) / 3600
    epoch = float(run.loader.rates @ run.source_tokens)
    text = tokens * epoch / (epoch + SPECIALS * len(run.loader.plan(run.state.epoch, settings.phases[-1].max_length).length))
    price = settings.price_per_hour
    return {
        "parameters": count_parameters(run.raw),
        "steps": round(steps),
        "tokens": round(tokens),
        "passes": {
            name: round(float(rate) * text / epoch, 3)
            for name, rate in zip(run.loader.shards.sources, run.loader.rates, strict=True)
        },
        "flops": flops,
        "hours": hours,
        "hours_of_steps": seconds / 3600,
        "seconds_of_a_step": seconds / max(steps, 1e-9),
        "disk_bytes": int(min(states, kept + 1) * measured["state_bytes"] + measured["checkpoint_bytes"]),
        "ranks": world,
        "device": run.ranks.device.type,
        "cost": "not known" if price is None else price * hours * world,
    }


def table(plan: dict[str, Any]) -> str:
    """The plan for the terminal."""
    hours = plan["hours"]
    time_ = f"{hours:,.1f} hours" if hours >= 2 else f"{60 * hours:,.1f} minutes"
    rows = {
        "parameters": f"{plan['parameters']:,}",
        "steps": f"{plan['steps']:,}",
        "tokens": f"{plan['tokens']:,}",
        **{f"passes over {name}": f"{passes:.2f}" for name, passes in plan["passes"].items()},
        "FLOPs": f"{plan['flops']:.3g}",
        "memory": f"{plan['memory_bytes'] / 2**20:,.0f} MiB at the peak, of one rank",
        "disk": f"{plan['disk_bytes'] / 2**20:,.0f} MiB for checkpoints",
        "time": f"{time_} on this machine ({plan['ranks']} rank(s), {plan['device']}), "
        f"{1e3 * plan['seconds_of_a_step']:,.0f} ms a step; scores on tasks not counted",
        "cost": plan["cost"] if isinstance(plan["cost"], str) else f"{plan['cost']:,.2f}",
    }
    width = max(map(len, rows))
    return "\n".join(["plan:", *(f"  {name:<{width}}  {value}" for name, value in rows.items())])
