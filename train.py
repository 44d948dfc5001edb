"""Pre-train an encoder by masked language modelling.

    python train.py experiment=demo                       the text that ships here, prepared first if necessary
    python train.py experiment=allma_small corpus.path=…  the paper's Small on your own text
    torchrun --nproc-per-node 4 train.py experiment=…     the same run on four GPUs
    python train.py -m optimizer.lr=1e-4,3e-4 seed=0,1    a sweep; a second start skips finished jobs

The loop is flat: read it from `train` down. The contents of batch i of epoch e, its masking and its dropout are functions of
(seed, e, i), so a killed run resumes bit by bit (resume=auto), on any number of ranks.
"""

import contextlib
import gc
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from tqdm import tqdm

from common.launch import EXIT_REQUEUE, launch
from common.locks import hold
from common.settings import plain
from data.loader import Batch, ahead
from data.shards import Shards, open_shards
from model.distillation import log_parts
from model.encoder import count_parameters
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from prepare import prepare
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer
from training.branching import take_branch
from training.checkpoints import Tensors, Writer, load_state, newest_state
from training.distributed import Ranks, start, without_sync
from training.flops import measured_peak, optimizer_flops, step_flops, teacher_flops
from training.heldout import evaluate, guesses, read_heldout
from training.identity import corpus_of, is_complete, note_parts, own_place, parts_of
from training.memory import keep_freed_blocks, keep_kernels_once, told_out_of_memory
from training.optimizers import Average, average_weights, build_optimizers, set_learning_rate, step_unless
from training.pair_probe import prepare_pairs, probe_run
from training.plan import Clock, State, Step, budget_of, plan_steps
from training.planning import as_planned, refuse_unprepared, write_plan
from training.precision import choose_dtype, choose_kernels
from training.pretraining import Run, extra_of, note_skipped, refuse_many_skipped, summary, waits_counted
from training.profiling import profiled
from training.schedules import learning_rate_factor, mask_rate, micro_batches, phase_length
from training.settings import Pretraining, settings_of
from training.signals import STOP_SIGNALS, stop_signals
from training.sizes import as_line, gradient_norms, measure_sizes
from training.starting import begin_from_counts, begin_from_text, check_shape, loader_of, shape_of, take_weights
from training.task_scores import check_objective, objective_of, prepare_tasks, score_tasks
from training.teachers import masked_lm
from training.tracking import Tracker, energy_joules, energy_since, peak_memory, reset_peak_memory, shown_as
from training.watch import begin_watch, check_collapse, evaluate_watch, keep_best

PLAIN_LINE = 60  # seconds between two progress lines if no terminal shows the bar


def train(
    config: DictConfig, on_model: Callable[[MaskedLM], None] | None = None, on_step: Callable[[Run], None] | None = None
) -> int:
    """One run; returns the exit code. `on_model` sees the model before its first step, `on_step` the run after each."""
    settings = settings_of(config, Pretraining)  # a wrong value is said before anything is prepared
    run = Path(settings.run_dir)
    check_objective(settings.objective, settings.evaluation.tasks)
    check_shape(settings.model)
    parts = parts_of(settings)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    keep_freed_blocks()
    keep_kernels_once()
    ranks = start(settings.device)
    choose_kernels(settings.deterministic, settings.flash_attention, ranks.device, ranks.first)
    reset_peak_memory(ranks.device)
    held = hold(run) if ranks.first else contextlib.nullcontext()
    try:
        with held:
            ranks.wait()
            if settings.plan:
                refuse_unprepared(settings)
                return write_plan(begin(as_planned(settings), run / ".plan", ranks, on_model), run, steps_of, advance)
            if is_complete(run, settings, parts, settings.corpus):
                if ranks.first:
                    print(f"training: already complete, skipped: {run}")
                return 0
            if ranks.first:
                prepare(settings)
            ranks.wait()
            begun = begin(settings, run, ranks, on_model)
            limit = "micro_batch_tokens", settings.micro_batch_tokens
            with stop_signals() as begun.stop, told_out_of_memory(ranks.device, *limit), begun.writer:
                return loop(begun, on_step)
    finally:  # a sweep runs several jobs in this process
        ranks.close()
        gc.unfreeze()


def begin(settings: Pretraining, folder: Path, ranks: Ranks, on_model: Callable[[MaskedLM], None] | None) -> Run:
    """Data, model, optimizers and state of a run: new, or as its newest checkpoint has them."""
    tokenizer = load_tokenizer(settings.tokenizer_dir)
    shards = open_shards(settings.shards_dir, tokenizer)
    loader, source_tokens = loader_of(settings, shards, tokenizer), shards.source_tokens()
    raw, spent = start_model(settings, ranks, tokenizer, shards)
    shape = raw.encoder.config
    dtype = choose_dtype(settings.precision, ranks.device)
    # Of the start, also when the run goes on from a checkpoint.
    watch = begin_watch(raw, settings.watch, settings.evaluation.max_tokens, tokenizer, ranks, dtype)
    optimizers = build_optimizers(raw, settings.optimizer, dtype)
    average = Average(raw, settings.ema) if settings.ema else None
    state = State(by_source=[0] * len(shards.sources), seconds=spent)
    resumed = newest_state(folder) if settings.resume == "auto" else None
    if resumed:
        state = State(**load_state(resumed, raw, optimizers, average, tokenizer))
    elif settings.branch_from:
        state = take_branch(settings, raw, optimizers, average, tokenizer, ranks, float(loader.rates @ source_tokens))
    state.ranks = ranks.world
    if on_model:
        on_model(raw)
    model = ranks.wrap(torch.compile(raw, dynamic=True) if settings.compile else raw)
    heldout = read_heldout(settings.heldout_file, tokenizer, shape.max_length, settings.evaluation.max_tokens)
    heldout.counts = shards.token_counts(shape.vocab_size)
    tasks, pairs = {}, []
    if ranks.first:
        spoken = shards.index.get("language") or settings.language
        pairs = prepare_pairs(settings.evaluation, spoken, tokenizer, shape.max_length)
        tasks = prepare_tasks(settings.evaluation, settings.language, settings.precision, tokenizer, shape)
    tags = [settings.language, settings.model.architecture, f"seed {settings.seed}"]
    shown = shown_as("train", settings.name, folder.name, folder, tags)
    tracker = Tracker(folder, settings.tracker, shown, plain(settings), ranks.first, state.step if resumed else None)
    if ranks.first:
        note_parts(folder, {**parts_of(settings), **corpus_of(settings)}, state.step if resumed else None)
        size = f"{shape.architecture}, {count_parameters(raw):,} parameters, {str(dtype).removeprefix('torch.')}"
        print(f"training: {size}, {ranks.world} rank(s); {folder}{f', going on from step {state.step}' if state.step else ''}")
    return Run(
        settings=settings,
        folder=folder,
        ranks=ranks,
        tokenizer=tokenizer,
        loader=loader,
        source_tokens=source_tokens,
        heldout=heldout,
        raw=raw,
        model=model,
        dtype=dtype,
        optimizers=optimizers,
        average=average,
        watch=watch,
        state=state,
        clock=Clock(state.seconds),
        peak=measured_peak(ranks.device, dtype) * ranks.world,
        tracker=tracker,
        writer=Writer(folder, settings.keep_checkpoints, settings.checkpoint_in_thread, ranks.device),
        norms=torch.tensor(state.norms, device=ranks.device),
        joules=energy_joules(ranks.device),
        tasks=tasks,
        pairs=pairs,
    )


def start_model(settings: Pretraining, ranks: Ranks, tokenizer: Tokenizer, shards: Shards) -> tuple[MaskedLM, float]:
    """The model before its first step, on the device, and the seconds that filling it took.

    New weights, or those of another checkpoint. The time counts as training: a start may be made of the text.
    """
    torch.manual_seed(settings.seed)
    shape = shape_of(settings.model, settings.start_from, settings.longest, tokenizer)
    raw = masked_lm(shape, settings.last_block_on_masked, settings.distill, settings.longest, tokenizer, ranks.device)
    before = time.time()
    if settings.start_from:
        said = take_weights(raw, settings.start_from, settings.transplant, tokenizer, shards, settings.seed)
        if said and ranks.first:
            print(said)
    else:
        if settings.bias_from_counts:
            begin_from_counts(raw, shards)
        if settings.embeddings_from_text:
            begin_from_text(raw, shards, tokenizer.vocab_size)
    return raw.to(ranks.device), time.time() - before


def loop(run: Run, on_step: Callable[[Run], None] | None) -> int:
    """All steps of a run, each followed by its log line, checkpoint and evaluation when they are due."""
    settings, state, ranks = run.settings, run.state, run.ranks
    gc.collect()
    gc.freeze()  # the garbage collector need not visit the model again
    run.mark, run.tokens, run.told = time.time(), state.tokens, time.time()
    run.bar = tqdm(
        total=100,
        desc="training",
        disable=None if ranks.first else True,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}",
    )
    if state.step == 0 or is_due(run, settings.evaluation.every):
        evaluate_run(run)
    for step, batches in waits_counted(run, steps_of(run)):
        run.measuring = ranks.first and step.after["step"] % settings.log_every == 0
        before = [p.detach().clone() for p in run.raw.parameters()] if run.measuring else []
        loss, norm, skipped, stopping = advance(run, step, batches)
        run.interval.append((torch.stack([loss, norm, skipped.float()]), step))
        if run.measuring:
            with run.cast():
                sizes = measure_sizes(run.raw, before, batches[0].ids, batches[0].layout.lengths)
            run.sizes = torch.cat([sizes, run.gradients])
        if on_step:
            on_step(run)
        saving = stopping or is_due(run, settings.checkpoint_every) or state.step in settings.kept_steps
        if saving or state.step % settings.log_every == 0:
            log_line(run)
        if saving:
            save(run)  # before the evaluation, so that a failure there does not cost the run
        if stopping:
            return stopped(run)
        if is_due(run, settings.evaluation.every):
            evaluate_run(run)
        if is_due(run, settings.evaluation.tasks_every):
            score_run(run)
        probe_run(run)
    return finish(run)


def advance(run: Run, step: Step, batches: list[Batch]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    """One step and its counters; returns what `take_step` does, and whether a rank was asked to stop."""
    masked, stopping = run.ranks.host_sum(sum(len(batch.targets) for batch in batches), bool(run.stop))
    taken = take_step(run, step, batches, masked)
    count_step(run, step, batches, int(masked))
    return *taken, stopping


def is_due(run: Run, every: int | None) -> bool:
    """Whether an action of every `every` steps (None: never) is due after the present step."""
    return bool(every) and run.state.step % every == 0


def steps_of(run: Run) -> Any:
    """The steps of this rank until the end of the budget, with their batches on the device, prepared ahead by a thread."""
    settings, ranks, loader = run.settings, run.ranks, run.loader
    total = budget_of(settings.budget, float(loader.rates @ run.source_tokens))
    each = optimizer_flops(run.optimizers)

    def cost(lengths: list[np.ndarray], predicted: list[float]) -> float:
        counts = [(part, share * (part.sum() - 2 * len(part))) for part, share in zip(lengths, predicted, strict=True)]
        return each + sum(step_flops(run.raw, *count) + teacher_flops(run.raw, *count) for count in counts)

    def batches_of(step: Step) -> tuple[Step, list[Batch]]:
        mine = step.micros[ranks.rank :: ranks.world]
        return step, [loader.batch(epoch, number, step.max_length, step.mask_rate).to(ranks.device) for epoch, number in mine]

    def at(progress: float) -> tuple[int, int, float]:
        sizes = settings.batch_tokens, settings.micro_batch_tokens, settings.batch_warmup
        count = micro_batches(*sizes, progress, ranks.world)
        return phase_length(settings.phases, progress), count, mask_rate(settings.masking, progress)

    steps = ahead(plan_steps(at, loader, run.state, ranks, total, run.clock, cost), batches_of)
    if settings.profile:
        steps = profiled(steps, settings.profile, run.folder, run.raw, run.peak / ranks.world, ranks)
    return steps


def take_step(run: Run, step: Step, batches: list[Batch], masked: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """One optimizer step over the micro-batches of all ranks, in which `masked` tokens are masked.

    Returns, on the device and 0-dim: the loss per masked token, the gradient norm before clipping, and whether the step was
    skipped (loss or norm not finite, or a spike by OLMo-core's rule). Nothing here waits for the device.
    """
    settings, ranks = run.settings, run.ranks
    set_learning_rate(run.optimizers, learning_rate_factor(settings.schedule, step.progress))
    loss = torch.zeros((), device=ranks.device)
    for number, batch in enumerate(batches):
        torch.manual_seed(batch.seed)  # dropout is a function of (seed, epoch, batch) too
        with without_sync(run.model, number == len(batches) - 1), run.cast():
            part = run.model(batch.ids, batch.layout, batch.positions, batch.targets) / max(masked, 1.0)
            # Gradients are averaged over ranks: times world restores the sum, which is divided once by the total count.
            (part * ranks.world).backward()
        loss += part.detach()
    ranks.sum(loss)
    if run.measuring:
        run.gradients = gradient_norms(run.raw)
    norm = torch.nn.utils.clip_grad_norm_(run.raw.parameters(), settings.clip or math.inf)
    bad = ~(torch.isfinite(loss) & torch.isfinite(norm))
    if settings.spike_sigmas and len(run.norms) >= settings.spike_window:
        bad |= norm > run.norms.mean() + settings.spike_sigmas * run.norms.std()
    step_unless(bad, run.optimizers)
    for optimizer in run.optimizers:
        optimizer.zero_grad(set_to_none=True)
    if run.average:
        run.average.update(run.raw, step.after["step"])
    if settings.spike_sigmas:
        usual = run.norms.mean() if len(run.norms) else torch.zeros_like(norm)  # stands in for a norm that may be NaN
        run.norms = torch.cat([run.norms, torch.where(bad, usual, norm)[None]])[-settings.spike_window :]
    return loss, norm, bad


def count_step(run: Run, step: Step, batches: list[Batch], masked: int) -> None:
    """Update the counters after a step."""
    state, ranks = run.state, run.ranks
    for name, value in step.after.items():
        setattr(state, name, value)
    counts = [(batch.layout.lengths[: len(batch.documents)], len(batch.targets)) for batch in batches]
    flops = [sum(f(run.raw, *count) for count in counts) for f in (step_flops, teacher_flops)]
    read = np.sum([batch.lengths_by_source for batch in batches], axis=0).tolist()
    ours, theirs, *sums = ranks.host_sum(*flops, *read)
    state.by_source = [before + int(now) for before, now in zip(state.by_source, sums, strict=True)]
    state.masked += masked
    run.flops += ours + theirs
    state.flops += ours + theirs + optimizer_flops(run.optimizers)
    state.teacher_flops += theirs
    state.seconds = run.clock.seconds()


def log_line(run: Run) -> None:
    """One line in metrics.jsonl about the steps since the last one. Only here does the host wait for the device."""
    settings, state, ranks = run.settings, run.state, run.ranks
    steps = [step for _, step in run.interval]
    sizes = run.sizes if run.sizes is not None else torch.zeros(0, device=ranks.device)
    numbers = torch.cat([*(value for value, _ in run.interval), sizes]).tolist()
    values = [numbers[3 * i : 3 * i + 3] for i in range(len(steps))]
    note_skipped(run, values, steps)
    good, now, progress = [value for value in values if not value[2]], time.time(), steps[-1].progress
    rate, mfu = (state.tokens - run.tokens) / (now - run.mark), run.flops / (now - run.mark) / run.peak
    line = {
        "step": state.step,
        "tokens": state.tokens,
        "epoch": state.epoch,
        "minutes": round(state.seconds / 60, 4),
        "loss": sum(v[0] for v in good) / len(good) if good else None,
        "gradient_norm": good[-1][1] if good else None,
        "lr_factor": learning_rate_factor(settings.schedule, progress),
        "mask_rate": steps[-1].mask_rate,
        "max_length": steps[-1].max_length,
        "tokens_per_second": rate,
        "mfu": mfu,
        "skipped": state.skipped,
        "seconds": {"waiting for batches": round(run.waited, 4), "writing checkpoints": round(run.saving, 4)},
    }
    run.waited = run.saving = 0.0
    if len(sizes):
        line["sizes"] = as_line(numbers[3 * len(steps) :])
    run.tracker.log(line | log_parts(run.raw, ranks))
    used = energy_since(run.joules, ranks.device)
    joules, without = ranks.host_sum(used or 0.0, used is None)
    state.joules = None if without else (state.joules or 0.0) + joules
    said = f"loss {line['loss'] or math.nan:.3f}, {rate:,.0f} tokens/s, MFU {mfu:.0%}"
    run.bar.update(min(100, round(100 * progress)) - run.bar.n)
    run.bar.set_postfix_str(f", {said}")
    if run.bar.disable and ranks.first and now - run.told >= PLAIN_LINE:
        print(f"training: {progress:.0%}, step {state.step}, {said}", file=sys.stderr, flush=True)
        run.told = now
    run.interval, run.sizes, run.flops, run.tokens = [], None, 0.0, state.tokens
    run.mark, run.joules = now, energy_joules(ranks.device)
    refuse_many_skipped(run)


def evaluate_run(run: Run) -> None:
    """A line with held-out scores, filled prompts and the collapse watch, using the averaged weights if there are any."""
    settings, state, ranks, raw = run.settings, run.state, run.ranks, run.raw
    sentences = settings.evaluation.mask_prompts
    with average_weights(raw, run.average):
        run.scores = evaluate(raw, run.heldout, ranks, run.dtype)
        filled = {"mask_prompts": guesses(raw, run.tokenizer, sentences)} if sentences and ranks.first else {}
        seen = {"watch": evaluate_watch(run.watch, raw, ranks, run.dtype)} if run.watch else {}
        line = {"step": state.step, "tokens": state.tokens, "minutes": run.clock.seconds() / 60, "heldout": run.scores}
        run.tracker.log(line | filled | seen)
        if run.watch:
            check_collapse(run.watch, state, run.scores, run.folder, keep_best(raw, run.tokenizer, extra_of(run), ranks))


def score_run(run: Run) -> None:
    """A line with the dev score of a short fine-tuning on each of evaluation.tasks. The run's clock is paused."""
    state, ranks, begun = run.state, run.ranks, time.time()
    if run.settings.evaluation.tasks:
        with run.clock.paused(), average_weights(run.raw, run.average):
            if ranks.first:
                run.peak_bytes = max(run.peak_bytes, peak_memory(ranks.device))
                run.task_scores = score_tasks(run.tasks, run.raw, run.tokenizer, ranks.device)
                run.tracker.log({"step": state.step, "tokens": state.tokens, "tasks": run.task_scores})
                reset_peak_memory(ranks.device)
            ranks.wait()
        run.mark += time.time() - begun  # so that it does not count in tokens per second


def save(run: Run) -> None:
    """Write the whole state to disk, or hand a copy to the thread that does."""
    run.state.norms, begun = run.norms.tolist(), time.perf_counter()
    if run.ranks.first:
        tensors = Tensors.of(run.raw, run.optimizers, run.average)
        run.writer.write(asdict(run.state), tensors, run.raw.encoder.config, run.tokenizer)
    if not run.writer.in_thread:
        run.ranks.wait()
    run.saving += time.perf_counter() - begun


def stopped(run: Run) -> int:
    """The exit code of a run that was asked to end; its checkpoint is written."""
    run.bar.close()
    run.writer.wait()
    run.ranks.wait()
    if run.ranks.first:
        print(f"training: stopped on request at step {run.state.step}; the same command resumes from there", file=sys.stderr)
    run.tracker.finish_mirror()
    return STOP_SIGNALS[run.stop[0]] if run.stop else EXIT_REQUEUE  # another rank's signal ended this rank


def finish(run: Run) -> int:
    """The last log line, evaluation, checkpoint and summary of a run that has used up its budget."""
    settings, state, ranks, raw = run.settings, run.state, run.ranks, run.raw
    if run.interval:
        log_line(run)
    run.writer.wait()
    run.bar.update(100 - run.bar.n)
    run.bar.close()
    if not is_due(run, settings.evaluation.every):
        evaluate_run(run)
    if not is_due(run, settings.evaluation.tasks_every):
        score_run(run)
    probe_run(run, at_end=True)
    state.seconds = run.clock.seconds()
    with average_weights(raw, run.average):
        if ranks.first:
            write_checkpoint(run.folder / "checkpoint", raw.weights(), raw.encoder.config, run.tokenizer, extra_of(run))
            run.tracker.send_checkpoint(run.folder / "checkpoint", run.folder, settings.start_from)
        run.tracker.close(summary(run))
    if ranks.first:
        print(
            f"training: {state.step} steps, {state.tokens:,} tokens in {state.seconds / 60:.1f} min; held-out loss "
            f"{run.scores['loss']:.3f}, {run.scores['bits_per_character']:.3f} bits per character; "
            f"{run.folder / 'checkpoint'}"
        )
    ranks.wait()
    return 0


def main(config: DictConfig) -> int:
    """Train in run_dir, or in a folder beside it if run_dir holds another run."""
    settings = settings_of(config, Pretraining)
    config.run_dir = str(own_place(Path(settings.run_dir), settings))
    return train(config)


if __name__ == "__main__":
    launch(main, "train", Pretraining, objective_of)
