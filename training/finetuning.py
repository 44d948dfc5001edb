"""The fine-tuning loop: one run from a checkpoint to its predictions. Read it from `run_seed` down."""

import contextlib
import math
import shutil
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from common.errors import UserError
from common.files import put_in_place, write_jsonl
from common.locks import hold
from common.progress import progress
from common.settings import plain
from data.features import TaskBatch, collate, sorted_batches, steps_of_epoch
from data.loader import DROPOUT, ahead
from data.masking import Masking
from data.packing import stream
from model.adapters import choose_trained, merged, trained_weights, write_adapter
from model.decoding import predictions, score_rows, with_gold
from model.encoder import count_parameters
from model.folder import write_checkpoint
from model.heads import TASK, TaskModel, has_pooler
from tasks.base import kind_of
from tasks.encoding import Encoded, swap_pair
from tasks.scoring import score_predictions
from training.ancestry import ancestry_hours
from training.augmentation import augmented_rows
from training.joint_mlm import MaskedRows, add_masked_lm_head, mask_rows, masked_loss
from training.memory import told_out_of_memory
from training.optimizers import Average, average_weights, set_learning_rate
from training.precision import choose_dtype
from training.resuming import Best, Progress, forget_progress, read_progress, write_progress
from training.runs import Run, finished, why_again
from training.schedules import learning_rate_factor
from training.settings import Recipe, Schedule
from training.signals import STOP_SIGNALS
from training.starting import origin
from training.task_models import (
    add_ngrams,
    build_model,
    check_smoothing,
    keep_head,
    set_dropout,
    task_optimizers,
    weigh_classes,
)
from training.teachers import Teacher, ask_teacher, loss_with_teacher, teacher_of
from training.tracking import Tracker, energy_joules, energy_since, peak_memory, reset_peak_memory, shown_as

SAVE_AFTER = 30  # seconds of training after which the end of an epoch writes the state: what takes less is quickly made again
CHECK_EVERY = 50  # steps between checks of the loss, each of which waits for the device


class Diverged(UserError):
    """The loss of a run is no longer a number: an error for a single run, a result when rates are tried."""


@dataclass
class Learner:
    """What a step changes: a model, its optimizers, the average of its weights; and a teacher that it may learn from."""

    model: TaskModel
    optimizers: list[torch.optim.Optimizer]
    average: Average | None
    teacher: Teacher | None = None

    def state(self) -> dict[str, Any]:
        """All that steps have changed, for `resume`."""
        optimizers = [optimizer.state_dict() for optimizer in self.optimizers]
        average = {name: value.cpu() for name, value in self.average.values.items()} if self.average else {}
        return {"weights": trained_weights(self.model), "optimizers": optimizers, "average": average}

    def resume(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.model.load_state_dict(state["weights"], strict=False)
        for optimizer, own in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(own)
        for name, value in state["average"].items():
            self.average.values[name].copy_(value)


def run_seed(run: Run) -> dict[str, Any]:
    """One run from the checkpoint to predictions; returns its summary (with "reused" if it was complete before).

    The folder appears under its name only when it is complete. A trial (run.trial) does not read the test split and keeps no
    checkpoint. If another process is making the same run, this one waits and uses its result. Raises Diverged if the loss is no
    longer a number, SystemExit (85; Ctrl-C: 130) on a signal in run.stop: the same run then goes on from its last step.
    A killed run goes on from the last epoch whose state was written.
    """
    if run.stop:
        raise SystemExit(STOP_SIGNALS[run.stop[0]])
    with hold(run.folder), told_out_of_memory(run.device, "recipe.max_tokens", run.recipe.max_tokens):
        return _run_seed(run)


def _run_seed(run: Run) -> dict[str, Any]:
    digest, splits = run.digest(), ("dev",) if run.trial else ("dev", "test")
    keep = run.settings.save_checkpoint and not run.trial
    if (before := finished(run.folder, digest, keep, splits)) is not None:
        return {**before, "reused": True, "folder": str(run.folder)}
    if reason := why_again(run.folder):
        print(f"{run.folder}: {reason}; it is run again")
    beside = run.folder.with_name(f".{run.folder.name}.part")
    clock, own_peak, energy = time.time(), reset_peak_memory(run.device), energy_joules(run.device)
    model, made = prepare_model(run)
    dtype = precision_of(run)
    learner = Learner(
        model, task_optimizers(model, run.recipe, dtype), Average(model, run.recipe.ema) if run.recipe.ema else None
    )
    at = begin(learner, run, beside, digest)
    clock, resumed = clock - at.seconds, at.best.steps or None
    path = teacher_of(run.recipe.teacher, run.data.task.name, run.seed)
    if path:
        learner.teacher = ask_teacher(path, run.data, run.start.tokenizer, 2 * run.recipe.max_tokens, run.device, dtype)
    whole = plain(run.settings)
    kept = {key: whole[key] for key in ("checkpoint", "scratch", "task", "recipe", "device", "precision", "tracker")}
    tags = [run.settings.language, f"seed {run.seed}", run.data.task.name, run.start.name]
    # W&B's own files lie in the folder of all results, because this run's folder is renamed when it is complete.
    shown = shown_as(run.script, run.settings.name, run.name, run.out, tags)
    about = {**kept, "name": run.name, "seed": run.seed}
    tracker = Tracker(beside, run.settings.tracker, shown, about, resumed_step=resumed)

    best = fit(learner, run, tracker, at)
    model.load_state_dict(best.weights, strict=False)  # frozen weights have not changed
    model.mlm = None  # not part of the fine-tuned model
    write_jsonl(beside / "predictions-dev.jsonl", best.records)
    tested: dict[str, float] = {}
    if not run.trial:
        records, tested["test_score"], *_ = predict_and_score(model, run, "test", dtype, best.how)
        write_jsonl(beside / "predictions-test.jsonl", records)
    if keep:
        details = {**task_details(run), **best.how, "dev_score": best.rank[0], "seed": run.seed}
        language = run.start.language or run.data.task.language  # a foreign start becomes one of its task's language
        extra = {"name": run.start.name, "language": language and language.name}
        extra |= {} if run.start.weights is None else origin(run.start.path)
        write_checkpoint(beside / "checkpoint", merged(model), run.start.config, run.start.tokenizer, extra, {TASK: details})
        if run.recipe.adapter and run.start.weights is not None:  # new weights could not be had again from their seed
            write_adapter(beside / "adapter", model, run.recipe.lora, run.start.path, details)
    forget_progress(beside)
    joules = None if resumed else energy_since(energy, run.device)
    summary = {
        **run.described(),
        **best.how,
        **made,
        **tested,
        "dev_score": best.rank[0],
        "dev_loss": -best.rank[1],
        "best_epoch": best.epoch,
        "epochs": best.epochs,
        "steps": best.steps,
        "train_tokens": best.tokens,
        "hours": (time.time() - clock) / 3600,
        "peak_memory_bytes": peak_memory(run.device) if own_peak else "not measured",
        "trainable_parameters": count_parameters(model, trainable=True),
        "energy_kwh": "not measured" if joules is None else joules / 3.6e6,
        "teacher": path,
        "teacher_inference_hours": learner.teacher and learner.teacher.hours,
        **ancestry_hours(run.start.ledger, path),
        "precision": str(dtype).removeprefix("torch."),
        "digest": digest,
    }
    price = run.settings.price_per_hour
    summary["cost"] = "not measured" if price is None else price * summary["hours"]
    if keep:
        tracker.send_checkpoint(beside / "checkpoint", run.folder, None if run.start.weights is None else run.start.path)
    tracker.close(summary)
    put_in_place(beside, run.folder)
    return {**summary, "folder": str(run.folder)}


def prepare_model(run: Run) -> tuple[TaskModel, dict[str, Any]]:
    """The run's task model on its device, and its entries of summary.json: what is trained, the origin of pooler and head."""
    recipe, kind, labels = run.recipe, run.data.task.kind, run.data.task.labels or []
    seed = run.seed if recipe.init_seed is None else recipe.init_seed
    model = build_model(run.start, kind, len(labels), seed, recipe.reinitialise_layers, recipe.pooling, recipe.head)
    kept = keep_head(model, run.start, run.data.task.labels)
    set_dropout(model, recipe.dropout)
    pooler = None
    if has_pooler(kind, recipe.pooling):
        pooler = "checkpoint" if run.start.trained_pooler else "new"
    lora = recipe.lora if recipe.adapter == "lora" else None
    trained = choose_trained(model, lora, recipe.freeze_layers, recipe.linear_probe, pooler == "checkpoint")
    model.class_weights = weigh_classes(recipe.class_weights, kind, run.data.task.labels or [], run.data.splits["train"].rows)
    model.label_smoothing = check_smoothing(recipe.label_smoothing, kind)
    if recipe.ngrams:
        rows = run.data.splits["train"]
        batches = (collate(rows, numbers) for numbers in sorted_batches(rows, recipe.max_tokens))
        add_ngrams(model, recipe.ngrams, run.start.tokenizer, run.data.task.language, batches)
    if recipe.mlm:
        add_masked_lm_head(model, run.start)
    return model.to(run.device), {"trained": trained, "pooler": pooler, "head": "checkpoint" if kept else "new"}


def begin(learner: Learner, run: Run, beside: Path, digest: str) -> Progress:
    """The loop's progress: new, or (the learner too) as an earlier part of this run left it in `beside`."""
    if (found := read_progress(beside, digest)) is None:
        shutil.rmtree(beside, ignore_errors=True)
        return Progress(digest=digest)
    at, state = found
    learner.resume(state)
    at.losses = [loss.to(run.device) for loss in at.losses]
    print(f"{run.name}: going on from step {at.best.steps}, in epoch {at.epoch + 1}")
    return at


def precision_of(run: Run) -> torch.dtype:
    """The dtype of the run's products. On CPU auto means fp32: steps of a few hundred tokens of ever new lengths are slower
    in bf16 (22 s for 17 s)."""
    wanted = run.settings.precision
    return choose_dtype("fp32" if run.device.type == "cpu" and wanted == "auto" else wanted, run.device)


def fit(learner: Learner, run: Run, tracker: Tracker, at: Progress) -> Best:
    """Train the model until the epochs or the patience are used up; returns the best epoch on dev.

    Begins where `at` stands, and keeps it. With an average of the weights, dev scores it and it is what is kept. Raises
    Diverged. The test split is not read.
    """
    model, recipe, rows = learner.model, run.recipe, run.data.splits["train"]
    order = run.seed if recipe.order_seed is None else recipe.order_seed
    noise = run.seed if recipe.dropout_seed is None else recipe.dropout_seed
    schedule = Schedule("linear", warmup=recipe.warmup, floor=0.0)
    dtype, best, clock = precision_of(run), at.best, time.time() - at.seconds
    written = time.time()
    masking = Masking.of(run.start.tokenizer) if recipe.mlm else None
    # On CPU a thread that prepares batches would compete with the loop for the core.
    ready = map if run.device.type == "cpu" else (lambda make, items: ahead(items, make))
    bar = progress(
        desc=f"{run.start.name} on {run.data.task.name}, seed {run.seed}",
        unit=" steps",
        leave=False,
        disable=not run.show and sys.stderr.isatty(),  # on a terminal a benchmark has its own bar
    )
    for epoch in range(at.epoch, recipe.epochs):
        if recipe.patience and at.waited >= recipe.patience:
            break
        if recipe.augment:
            rows = augmented_rows(run.data, run.start.tokenizer, recipe.augment, order, epoch)
        make = partial(collated, run.device, rows, masking, noise)
        plan = steps_of_epoch(rows, recipe.batch_size, recipe.max_tokens, recipe.length_group, order, epoch)
        bar.total = total = at.total = at.total or len(plan) * recipe.epochs
        bar.update(best.steps - bar.n)
        losses = at.losses
        for batches in ready(make, [(epoch, number, plan[number]) for number in range(len(losses), len(plan))]):
            set_learning_rate(learner.optimizers, learning_rate_factor(schedule, (best.steps + 0.5) / total))
            torch.manual_seed(int(stream(noise, DROPOUT, epoch, best.steps).integers(1 << 62)))
            losses.append(train_step(learner, batches, recipe, dtype))
            best.steps += 1
            if learner.average:
                learner.average.update(model, best.steps)
            bar.update()
            best.tokens += sum(batch.layout.total for batch, _ in batches)
            if len(losses) % CHECK_EVERY == 0 or len(losses) == len(plan):
                check_finite(losses, best.steps, run.name)
            if run.stop:
                stop(run, tracker, learner, at, clock)

        # Dev decides which epoch is kept, and whether training continues.
        with average_weights(model, learner.average):
            records, score, dev_loss, how = predict_and_score(model, run, "dev", dtype)
            better = (score, -dev_loss) > best.rank  # small dev sets often tie: then the lower loss decides
            weights = trained_weights(model) if better else best.weights
        mark, best.epochs, train_loss = time.time(), epoch + 1, float(torch.stack(losses).mean())
        tracker.log(
            {
                "step": best.steps,
                "epoch": epoch + 1,
                "loss": train_loss,
                "dev_loss": dev_loss,
                "dev_score": score,
                "lr_factor": learning_rate_factor(schedule, (best.steps - 0.5) / total),
                "tokens": best.tokens,
                "minutes": (mark - clock) / 60,
            }
        )
        bar.set_postfix_str(f"loss {train_loss:.3f}, dev {run.data.task.metric} {100 * score:.1f}", refresh=False)
        if better:
            best.rank, best.epoch, best.records, best.how = (score, -dev_loss), epoch + 1, records, how
            best.weights, at.waited = weights, 0
        elif best.steps / total >= recipe.warmup:
            at.waited += 1
        at.epoch, at.losses = epoch + 1, []
        if time.time() - written >= SAVE_AFTER and at.epoch < recipe.epochs:
            at.seconds = time.time() - clock
            write_progress(tracker.run, at, learner.state())
            written = time.time()
    bar.close()
    if not best.epoch:
        raise Diverged(f"{run.name}: no dev loss was finite. Lower recipe.lr or set precision=fp32.")
    return best


def collated(
    device: torch.device, rows: Encoded, masking: Masking | None, noise: int, step: tuple[int, int, list[Any]]
) -> list[tuple[TaskBatch, MaskedRows | None]]:
    """The micro-batches of a step (epoch, number in it, rows of each); with `masking` each has its rows masked beside it."""
    epoch, number, micros = step
    masked = mask_rows(rows, micros, masking, (noise, epoch, number), device) if masking else [None] * len(micros)
    return [(collate(rows, numbers, device), part) for numbers, part in zip(micros, masked, strict=True)]


def stop(run: Run, tracker: Tracker, learner: Learner, at: Progress, clock: float) -> NoReturn:
    """Write the state of a run that was asked to end, and raise SystemExit with the code of its signal."""
    at.seconds = time.time() - clock
    write_progress(tracker.run, at, learner.state())
    tracker.finish_mirror()
    print(f"{run.name}: stopped on request at step {at.best.steps}; the same command goes on from there", file=sys.stderr)
    raise SystemExit(STOP_SIGNALS[run.stop[0]])


def train_step(
    learner: Learner, batches: list[tuple[TaskBatch, MaskedRows | None]], recipe: Recipe, dtype: torch.dtype
) -> Tensor:
    """One optimizer step over `batches`; returns the mean task loss of their examples, a scalar on the device.

    Every batch has its rows masked beside it where recipe.mlm is above 0; that loss is the mean over all masked tokens.
    """
    model, device = learner.model, batches[0][0].ids.device
    count, loss = sum(batch.count for batch, _ in batches), torch.zeros((), device=device)
    masks = sum(len(masked.targets) for _, masked in batches if masked)
    for batch, masked in batches:
        with torch.autocast(device.type, dtype) if dtype != torch.float32 else contextlib.nullcontext():
            scores = model(batch)
            part = model.loss(scores, batch)
            if learner.teacher:
                part = loss_with_teacher(part, model, scores, batch, learner.teacher, recipe)
            whole = part / count
            if masked and len(masked.targets):
                whole = whole + recipe.mlm / masks * masked_loss(model, masked, batch)
        whole.backward()
        loss += part.detach() / count
    torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip or math.inf)
    for optimizer in learner.optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return loss


def predict_and_score(
    model: TaskModel, run: Run, split: str, dtype: torch.dtype, how: dict[str, Any] | None = None
) -> tuple[list[dict[str, Any]], float, float, dict[str, Any]]:
    """Prediction records, score by the task's metric, mean loss and decoding settings of a split.

    `how`: the settings chosen on dev; None is for dev itself, where they are chosen (the threshold of several labels).
    """
    task, rows, most = run.data.task, run.data.splits[split], 2 * run.recipe.max_tokens
    examples = getattr(task, split)
    scores, loss = score_rows(model, rows, most, dtype, with_loss=True)
    if how is None:
        how = {**task.decoding, **kind_of(task.kind).choose(scores, examples, task)}
    other = score_rows(model, swap_pair(rows), most, dtype)[0] if how.get("both_orders") else None
    read = predictions(examples, rows, scores, task.labels, how, other)
    records = with_gold(read, examples, task.kind)
    scored = score_predictions(records, task.own, task.labels, task.metric, task.positive, full=False)
    return records, scored["score"], loss, how


def task_details(run: Run) -> dict[str, Any]:
    """Entries of task.json of a fine-tuned checkpoint: how it reads text and how its scores are decoded."""
    task = run.data.task
    return {
        "kind": task.kind,
        "labels": task.labels,
        "max_length": run.data.max_length,
        "task": task.name,
        "language": task.language and task.language.name,  # of the texts
        "metric": task.metric,
        "positive": task.positive,
        "window_overlap_tokens": run.data.overlap,
        "pooling": run.recipe.pooling,
    }


def check_finite(losses: list[Tensor], step: int, name: str) -> None:
    """Raise Diverged, naming the first of the last steps whose loss is not finite. `step`: number of steps so far."""
    recent = torch.stack(losses[-CHECK_EVERY:]).tolist()
    for number, value in enumerate(recent):
        if not math.isfinite(value):
            raise Diverged(
                f"{name}: the loss of step {step - len(recent) + number + 1} is {value}. Nothing of this run was kept. "
                "Lower recipe.lr, lengthen recipe.warmup, or set precision=fp32."
            )
