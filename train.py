"""Pre-train an encoder by masked language modelling.

    python train.py                                       the demo, prepared first if need be
    python train.py experiment=allma_small corpus.path=…  the paper's Small on your own text
    torchrun --nproc-per-node 4 train.py experiment=…     the same run on four GPUs
    python train.py -m optimizer.lr=1e-4,3e-4 seed=0,1    a sweep; started again it skips what is done

The loop is flat: read it from `train` down. What is in batch i of epoch e, how it is masked and which units dropout
drops are functions of (seed, e, i), so a killed run goes on to the same bit (resume=auto), on any number of ranks.
"""

import contextlib
import gc
import math
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from common.errors import UserError
from common.files import json_line
from common.launch import EXIT_REQUEUE, launch, resolved
from data.loader import Batch, Loader, ahead
from data.masking import Masking
from data.mixture import source_rates
from data.packing import SPECIALS
from data.shards import open_shards
from model.distillation import log_parts
from model.encoder import count_parameters
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from prepare import prepare
from tokenization.loading import load_tokenizer
from training.checkpoints import load_state, newest_state, save_state
from training.distributed import Ranks, start, without_sync
from training.flops import measured_peak, step_flops, teacher_flops
from training.heldout import evaluate, guesses, read_heldout
from training.memory import keep_freed_blocks
from training.optimizers import Average, build_optimizers, set_learning_rate, step_unless
from training.precision import choose_dtype
from training.profiling import profiled
from training.schedules import learning_rate_factor, mask_rate, micro_batches, phase_length
from training.starting import origin, shape_of, take_weights
from training.teachers import behind, check_distill, ledger, masked_lm, measured
from training.tracking import Tracker, is_done, peak_memory, power_watts, reset_peak_memory
from training.watch import begin_watch, judge, keep_best, look

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)  # write a checkpoint and end with EXIT_REQUEUE


@dataclass
class State:
    """The counters of a run: all that is needed, with weights and optimizers, to go on exactly."""

    step: int = 0
    epoch: int = 0  # passes over the mixture begun
    batch: int = 0  # next micro-batch of that epoch
    max_length: int = 0  # tokens of the longest piece in that epoch
    tokens: int = 0  # read so far, special ones included, over all ranks
    masked: int = 0
    flops: float = 0.0  # of all steps, a teacher's included
    teacher_flops: float = 0.0
    seconds: float = 0.0  # of training, over all parts of an interrupted run
    joules: float | None = None
    skipped: int = 0  # steps not taken: loss or gradient not finite, or a spike
    in_a_row: int = 0
    by_source: list[int] = field(default_factory=list)  # tokens of text read from each source
    norms: list[float] = field(default_factory=list)  # gradient norms for the spike rule
    above: dict[str, int] = field(default_factory=dict)  # evaluations in a row over the collapse watch's bound, by text
    lowest: float | None = None  # held-out loss, at a step that broke no bound
    lowest_step: int = 0


@dataclass
class Step:
    """What one optimizer step will do: the micro-batches (epoch, number) of all ranks and the settings of the moment."""

    micros: list[tuple[int, int]]
    max_length: int
    mask_rate: float
    progress: float
    after: dict[str, int]  # the counters once it is done


def plan_steps(
    settings: dict[str, Any], loader: Loader, state: State, ranks: Ranks, total: dict[str, float], begun: float
) -> Iterator[Step]:
    """Steps from `state` to the end of the budget. The counters alone decide (and, with a budget in minutes, the clock)."""
    step, epoch, batch, length, tokens = state.step, state.epoch, state.batch, state.max_length, state.tokens
    before = state.seconds  # of earlier parts of the run; the loop adds this part's while we plan
    while True:
        used = {"steps": step, "tokens": tokens}
        if total["unit"] == "minutes":  # the first rank's clock for all: they must end at the same step
            used["minutes"] = ranks.of_first((before + time.time() - begun) / 60)
        progress = used[total["unit"]] / total["amount"]
        if progress >= 1:
            return
        wanted = phase_length(settings["phases"], progress)
        if length not in (0, wanted):  # a new phase packs anew: go on with a fresh epoch
            epoch, batch = epoch + 1, 0
        length = wanted
        count = micro_batches(
            settings["batch_tokens"], settings["micro_batch_tokens"], settings["batch_warmup"], progress, ranks.world
        )
        micros = []
        while len(micros) < count:
            plan = loader.plan(epoch, length)
            if batch >= len(plan):
                epoch, batch = epoch + 1, 0
                continue
            micros.append((epoch, batch))
            pieces = slice(plan.first[batch], plan.first[batch + 1])
            tokens += int((plan.length[pieces] + SPECIALS).sum())
            batch += 1
        step += 1
        after = {"step": step, "epoch": epoch, "batch": batch, "max_length": length, "tokens": tokens}
        yield Step(micros, length, mask_rate(settings["masking"], progress), progress, after)


def budget_of(settings: dict[str, Any], tokens_per_epoch: float) -> dict[str, Any]:
    """The one budget that is set, as {"unit": steps|tokens|minutes, "amount"}; epochs are counted in their tokens."""
    given = {unit: amount for unit, amount in settings["budget"].items() if amount is not None}
    if len(given) != 1 or any(isinstance(amount, str) or not 0 < amount < math.inf for amount in given.values()):
        raise UserError(f"budget: set exactly one of steps, tokens, epochs, minutes to more than 0 (now: {given or 'none'}).")
    unit, amount = given.popitem()
    return {"unit": "tokens", "amount": amount * tokens_per_epoch} if unit == "epochs" else {"unit": unit, "amount": amount}


def train(config: DictConfig) -> int:
    """One run; returns the exit code."""
    settings = resolved(config)
    run = Path(settings["run_dir"])
    if settings["resume"] not in ("auto", "never"):
        raise UserError(f"resume={settings['resume']}: choose auto (go on where a killed run stopped) or never.")
    budget_of(settings, 1.0)  # a wrong value is said before anything is prepared
    learning_rate_factor(settings["schedule"], 1.0)
    check_distill(settings["distill"])
    if is_done(run, settings):
        print(f"training: done already, reused {run}")
        return 0
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    keep_freed_blocks()
    ranks = start(settings["device"])
    reset_peak_memory(ranks.device)
    try:
        return _train(settings, run, ranks)
    finally:  # a sweep runs one job after another in this process
        ranks.close()
        gc.unfreeze()
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_DFL)


def _train(settings: dict[str, Any], run: Path, ranks: Ranks) -> int:
    # ---- data ----------------------------------------------------------------------------------------------------
    if ranks.first:
        prepare(settings)
    ranks.wait()
    tokenizer = load_tokenizer(settings["tokenizer_dir"])
    shards = open_shards(settings["shards_dir"], tokenizer)
    mixture = settings["mixture"]
    source_tokens = shards.source_tokens()
    rates = source_rates(source_tokens, np.array(shards.index["weights"]), mixture["temperature"], mixture["max_repeats"])
    masking_options = {k: v for k, v in settings["masking"].items() if not k.startswith("rate_")}
    loader = Loader(shards, Masking.of(tokenizer, **masking_options), rates, settings["micro_batch_tokens"], settings["seed"],
                    tokenizer.cls_id, tokenizer.sep_id)  # fmt: skip
    total = budget_of(settings, float(rates @ source_tokens))

    # ---- model, optimizer, state ------------------------------------------------------------------------------------
    torch.manual_seed(settings["seed"])
    shape = shape_of(settings, tokenizer)
    raw = masked_lm(settings, shape, tokenizer, ranks.device)
    before = time.time()
    take_weights(raw, settings, tokenizer, shards, quiet=not ranks.first)
    spent = time.time() - before  # on the start, which is training too where it is made of the text
    raw.to(ranks.device)
    dtype = choose_dtype(settings["precision"], ranks.device)
    watch = begin_watch(raw, settings, tokenizer, ranks, dtype)  # of the start, also when the run goes on from a checkpoint
    optimizers = build_optimizers(raw, settings["optimizer"])
    average = Average(raw, settings["ema"]) if settings["ema"] else None
    state = State(by_source=[0] * len(shards.sources), seconds=spent)
    resumed = newest_state(run) if settings["resume"] == "auto" else None
    if resumed:
        state = State(**load_state(resumed, raw, optimizers, average, tokenizer))
    model = ranks.wrap(torch.compile(raw, dynamic=True) if settings["compile"] else raw)
    cast = (lambda: torch.autocast(ranks.device.type, dtype)) if dtype != torch.float32 else contextlib.nullcontext
    heldout = read_heldout(settings["heldout_file"], tokenizer, shape.max_length, settings["evaluation"]["max_tokens"])
    peak = measured_peak(ranks.device, dtype) * ranks.world
    tracker = Tracker(run, settings, ranks.first, state.step if resumed else None)
    if ranks.first:
        size = f"{shape.architecture}, {count_parameters(raw):,} parameters, {str(dtype).removeprefix('torch.')}"
        print(f"training: {size}, {ranks.world} rank(s); {run}" + (f", going on from step {state.step}" if resumed else ""))

    stop: list[int] = []  # signals received
    for number in STOP_SIGNALS:
        signal.signal(number, lambda received, _: stop.append(received))
    gc.collect()
    gc.freeze()  # the collector need not walk the model again and again

    # ---- the loop ---------------------------------------------------------------------------------------------------
    begun, mark, loss_part, flops = time.time(), time.time(), 0.0, 0.0
    interval: list[tuple[torch.Tensor, Step]] = []  # [loss, norm, bad] of the steps since the last log line, on the device
    tokens_before = state.tokens
    norms = torch.tensor(state.norms, device=ranks.device)
    base_seconds = state.seconds

    def batches_of(step: Step) -> tuple[Step, list[Batch]]:
        mine = step.micros[ranks.rank :: ranks.world]
        return step, [loader.batch(epoch, number, step.max_length, step.mask_rate).to(ranks.device) for epoch, number in mine]

    def evaluation_due() -> bool:
        every = settings["evaluation"]["every"]
        return state.step == 0 or bool(every and state.step % every == 0)

    def evaluation_line() -> dict[str, Any]:
        sentences = settings["evaluation"]["probes"]
        with swapped(raw, average.values if average else {}):
            scores = evaluate(raw, heldout, ranks, dtype)
            probes = {"probes": guesses(raw, tokenizer, sentences)} if sentences and ranks.first else {}
            seen = {"watch": look(watch, raw, ranks, dtype)} if watch else {}
            minutes = (base_seconds + time.time() - begun) / 60
            tracker.log({"step": state.step, "tokens": state.tokens, "minutes": minutes, "heldout": scores, **probes, **seen})
            if watch:
                extra = {"name": settings["name"], "step": state.step, "tokens": state.tokens, **origin(settings["start_from"])}
                judge(watch, state, scores, run, keep_best(raw, tokenizer, extra, ranks))
        return scores

    def save() -> None:
        state.norms = norms.tolist()
        if ranks.first:
            save_state(
                run,
                asdict(state),
                raw.state_dict(),
                optimizers,
                average,
                shape,
                tokenizer,
                settings["keep_checkpoints"],
            )
        ranks.wait()

    def training_line() -> None:  # the only place where the host waits for the device
        nonlocal interval, mark, tokens_before, flops, loss_part
        values = torch.stack([value for value, _ in interval]).tolist()
        note_skipped(run, settings, state, values, [step for _, step in interval], ranks)
        good, now, last = [value for value in values if not value[2]], time.time(), interval[-1][1]
        rate, mfu = (state.tokens - tokens_before) / (now - mark), flops / (now - mark) / peak
        line = {
            "step": state.step, "tokens": state.tokens, "epoch": state.epoch, "minutes": round(state.seconds / 60, 4),
            "loss": sum(v[0] for v in good) / len(good) if good else None, "gradient_norm": good[-1][1] if good else None,
            "lr_factor": learning_rate_factor(settings["schedule"], last.progress), "mask_rate": last.mask_rate,
            "max_length": last.max_length, "tokens_per_second": rate, "mfu": mfu, "skipped": state.skipped,
        }  # fmt: skip
        tracker.log(line | log_parts(raw, ranks))
        if (watts := power_watts() if ranks.first else None) is not None:
            state.joules = (state.joules or 0.0) + watts * (now - mark)
        loss_part = line["loss"] or loss_part
        bar.update(min(100, round(100 * last.progress)) - bar.n)
        bar.set_postfix_str(f", loss {loss_part:.3f}, {rate:,.0f} tokens/s, MFU {mfu:.0%}")
        interval, mark, tokens_before, flops = [], now, state.tokens, 0.0
        if state.in_a_row >= settings["max_skipped_in_a_row"]:
            raise UserError(
                f"{run}: {state.in_a_row} steps in a row had a loss or gradient that is not finite (or spiked); none reached "
                "the weights. skipped.jsonl names the batches. Lower optimizer.lr, lengthen schedule.warmup or set "
                "precision=fp32, and start anew in a folder of its own (hydra.run.dir=...); start_from=CHECKPOINT with one of "
                f"{run / 'checkpoints'} keeps what was learned."
            )

    bar = tqdm(total=100, desc="training", disable=None if ranks.first else True,
               bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}")  # fmt: skip
    scores = evaluation_line() if evaluation_due() else {}
    steps = ahead(plan_steps(settings, loader, state, ranks, total, begun), batches_of)
    if settings.get("profile"):
        steps = profiled(steps, settings["profile"], run, raw, peak / ranks.world, ranks)
    for step, batches in steps:
        set_learning_rate(optimizers, learning_rate_factor(settings["schedule"], step.progress))
        masked, stopping = ranks.host_sum(sum(len(batch.targets) for batch in batches), bool(stop))
        loss = torch.zeros((), device=ranks.device)
        for number, batch in enumerate(batches):
            torch.manual_seed(batch.seed)  # dropout is a function of (seed, epoch, batch) too
            with without_sync(model, number == len(batches) - 1), cast():
                part = model(batch.ids, batch.layout, batch.positions, batch.targets) / max(masked, 1.0)
                # Gradients are averaged over ranks: times world gives back the sum, divided once by the count of all.
                (part * ranks.world).backward()
            loss += part.detach()
        ranks.sum(loss)
        norm = torch.nn.utils.clip_grad_norm_(raw.parameters(), settings["clip"] or math.inf)
        bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
        if settings["spike_sigmas"] and len(norms) >= settings["spike_window"]:  # OLMo-core's rule, on the device
            bad |= norm > norms.mean() + settings["spike_sigmas"] * norms.std()
        step_unless(bad, optimizers)
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        if average:
            average.update(raw, step.after["step"])
        if settings["spike_sigmas"]:
            usual = norms.mean() if len(norms) else torch.zeros_like(norm)  # stands in for a norm that may be NaN
            norms = torch.cat([norms, torch.where(bad, usual, norm)[None]])[-settings["spike_window"] :]
        interval.append((torch.stack([loss, norm, bad.float()]), step))
        for name, value in step.after.items():
            setattr(state, name, value)
        sums = ranks.host_sum(*np.sum([batch.lengths_by_source for batch in batches], axis=0).tolist())
        state.by_source = [before + int(now) for before, now in zip(state.by_source, sums, strict=True)]
        state.masked += int(masked)
        counts = [(batch.layout.lengths[: len(batch.documents)], len(batch.targets)) for batch in batches]
        ours, theirs = (ranks.world * sum(f(raw, *count) for count in counts) for f in (step_flops, teacher_flops))
        flops += ours + theirs
        state.flops, state.teacher_flops = state.flops + ours + theirs, state.teacher_flops + theirs

        state.seconds = base_seconds + time.time() - begun
        saving = stopping or (settings["checkpoint_every"] and state.step % settings["checkpoint_every"] == 0)
        if saving or state.step % settings["log_every"] == 0:
            training_line()
        if saving:
            save()  # before the evaluation, so that nothing that happens there costs the run
        if stopping:
            bar.close()
            if ranks.first:
                print(
                    f"training: stopped on request at step {state.step}; the same command goes on from there",
                    file=sys.stderr,
                )
            tracker.finish_mirror()
            return EXIT_REQUEUE
        if evaluation_due():
            scores = evaluation_line()
    if interval:
        training_line()
    bar.update(100 - bar.n)
    bar.close()

    # ---- the end ----------------------------------------------------------------------------------------------------
    if not evaluation_due():
        scores = evaluation_line()
    if ranks.first:
        with swapped(raw, average.values if average else {}):
            extra = {"name": settings["name"], "step": state.step, "tokens": state.tokens, **origin(settings["start_from"])}
            write_checkpoint(run / "checkpoint", raw.weights(), shape, tokenizer, extra)
    state.seconds = base_seconds + time.time() - begun
    watched = {"watch": watch.last} if watch else {}
    tracker.close(summary(settings, state, raw, shards.sources, source_tokens, scores, ranks) | watched)
    if ranks.first:
        print(f"training: {state.step} steps, {state.tokens:,} tokens in {state.seconds / 60:.1f} min; held-out loss "
              f"{scores['loss']:.3f}, {scores['bits_per_character']:.3f} bits per character; {run / 'checkpoint'}")  # fmt: skip
    ranks.wait()
    return 0


def note_skipped(
    run: Path, settings: dict[str, Any], state: State, values: list[list[float]], steps: list[Step], ranks: Ranks
) -> None:
    """Count the steps that were not taken and write which batches they were; `state.in_a_row` says when it is too many."""
    for (loss, norm, bad), step in zip(values, steps, strict=True):
        state.in_a_row = state.in_a_row + 1 if bad else 0
        state.skipped += int(bad)
        if bad and ranks.first:
            record = {"step": step.after["step"], "loss": str(loss), "gradient_norm": str(norm), "batches": step.micros}
            with open(run / "skipped.jsonl", "ab") as file:
                file.write(json_line(record))
        if state.in_a_row >= settings["max_skipped_in_a_row"]:
            return


@contextlib.contextmanager
def swapped(model: MaskedLM, values: dict[str, torch.Tensor]) -> Iterator[None]:
    """Lend the model other weights (the average's) for a while."""
    own = {name: p.data for name, p in model.named_parameters() if name in values}
    for name, p in model.named_parameters():
        p.data = values.get(name, p.data)
    try:
        yield
    finally:
        for name, p in model.named_parameters():
            p.data = own.get(name, p.data)


def summary(settings: dict[str, Any], state: State, model: MaskedLM, sources: list[str], source_tokens: np.ndarray,
            scores: dict[str, Any], ranks: Ranks) -> dict[str, Any]:  # fmt: skip
    """summary.json: what the run cost and reached."""
    hours = state.seconds / 3600
    price = settings["price_per_hour"]
    teacher, before = settings["distill"]["teacher"], behind(settings["start_from"], settings["distill"]["teacher"])
    taught = {"teacher": teacher, "hours": measured(ledger(teacher)), "flops": state.teacher_flops} if teacher else None
    epochs = {s: n / max(1, t) for s, n, t in zip(sources, state.by_source, source_tokens.tolist(), strict=True)}
    return {
        "status": "done", "name": settings["name"], "seed": settings["seed"], "steps": state.step, "tokens": state.tokens,
        "masked": state.masked, "epochs": epochs, "parameters": sum(value.numel() for value in model.weights().values()),
        "hours": hours, "ranks": ranks.world, "device": ranks.device.type,
        "tokens_per_second": state.tokens / max(state.seconds, 1e-9), "peak_memory_bytes": peak_memory(ranks.device),
        "energy_kwh": "not measured" if state.joules is None else state.joules / 3.6e6,
        "cost": "not measured" if price is None else price * hours * ranks.world,
        "skipped_steps": state.skipped, "heldout": scores, "flops": state.flops, "distillation": taught, "ledger": before,
    }  # fmt: skip


if __name__ == "__main__":
    launch(train, "train")
