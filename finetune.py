"""Fine-tune one checkpoint on one task, over seeds, and write its predictions.

    python finetune.py                                       the demo's encoder on the demo's topics
    python finetune.py checkpoint=FOLDER task=ner seeds=[0,1,2]
    python finetune.py checkpoint=FOLDER task.kind=pair task.train=a.jsonl task.dev=b.jsonl task.test=c.jsonl
    python finetune.py checkpoint=FOLDER task=topic scratch=true      the same shape without pre-training

Kinds: classification, pair, choice, tagging, qa. Every seed leaves <out>/<model>/<task>/seed-<n>/ with config.yaml,
metrics.jsonl, summary.json, predictions of dev and test, and the checkpoint of the best epoch on dev; <out>/inputs/ lists
the test texts, how often training has their words, and every record that was set aside. A seed that is finished with the
same config, data and checkpoint is not run again. The loop is flat: read it from `run_seed` down.
"""

import contextlib
import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from tqdm import tqdm

from common.errors import UserError
from common.files import put_in_place, write_jsonl
from common.launch import launch
from data.features import TaskBatch, collate, steps_of_epoch, swapped
from data.loader import DROPOUT, ahead
from data.packing import stream
from evaluation.frequency import write_frequencies
from evaluation.metrics import score_predictions
from model.adapters import choose_trained, merged, trained_weights, write_adapter
from model.decoding import predictions, score_rows, with_gold
from model.distillation import distilled_task_loss
from model.encoder import count_parameters
from model.folder import write_checkpoint
from model.heads import TASK, has_pooler
from training.distributed import start as start_device
from training.finetuning import (
    READ,
    SEEDS,
    Data,
    Start,
    build_model,
    finished,
    parameter_groups,
    prepare_data,
    read_start,
    refuse_unread,
    run_digest,
    seeds_for,
    settings_for,
    write_inputs,
)
from training.memory import keep_freed_blocks
from training.precision import choose_dtype
from training.schedules import learning_rate_factor
from training.starting import origin
from training.teachers import ask_teacher, hours_behind, taught_scores, teacher_of
from training.tracking import Tracker, peak_memory, power_watts, reset_peak_memory
from training.zero_shot import zero_shot

CHECK_EVERY = 50  # steps between looks at the loss: one wait for the device each


class Diverged(UserError):
    """A run whose loss is no number any more: a mistake in a single run, an answer when rates are tried."""


def finetune(config: DictConfig) -> int:
    """All seeds of one model on one task; returns the exit code."""
    refuse_unread(READ, "finetune.py")
    chosen = config.task.kind or config.task.train or config.task.documents
    settings = settings_for(config, None if chosen else "topic")
    device = prepare_machine(settings)
    seeds = check_seeds(settings["seeds"])
    start = read_start(settings["checkpoint"], settings["model_name"], settings["scratch"])
    data = prepare_data(settings, start, {})
    write_inputs(Path(settings["out"]), data.task)
    write_frequencies(Path(settings["out"]), data.task)
    for note in data.notes:
        print(f"{data.task.name}: {note}")
    scores = []
    seeds = seeds_for(seeds, data)
    for seed in seeds:
        summary = run_seed(settings, start, data, seed, device, Path(settings["out"]), show=True)
        scores.append(summary["test_score"])
        print(describe(summary))
    if zero := zero_shot(start, data, 2 * settings["recipe"]["max_tokens"], device, Path(settings["out"])):
        print(f"{zero['model']} on {zero['task']}, no training: dev {zero['metric']} {100 * zero['dev_score']:.1f}, "
              f"test {100 * zero['test_score']:.1f}; {zero['folder']}")  # fmt: skip
    if len(seeds) > 1:
        mean = 100 * sum(scores) / len(scores)
        print(f"{start.name} on {data.task.name}: test {data.task.metric} {mean:.1f}, mean of {len(seeds)} seeds")
    return 0


def prepare_machine(settings: dict[str, Any]) -> torch.device:
    """Threads and device of this process."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UserError("fine-tuning runs on one device. Start it without torchrun; spread tasks with python finetune.py -m.")
    if settings["threads"]:
        torch.set_num_threads(settings["threads"])
    keep_freed_blocks()
    return start_device(settings["device"]).device


def check_seeds(seeds: Any, key: str = "seeds") -> list[int] | str:
    """The seeds as a list of different whole numbers, or "auto"; UserError otherwise."""
    if seeds == "auto":
        return seeds
    seeds = [seeds] if isinstance(seeds, int) else seeds
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"{key}={seeds}: expected auto or a list of different whole numbers, e.g. {key}=[0,1,2].")
    return list(seeds)


def describe(summary: dict[str, Any]) -> str:
    """One line for the terminal."""
    again = "done already: " if summary.get("reused") else ""
    dev, test = 100 * summary["dev_score"], 100 * summary["test_score"]
    return (
        f"{again}{summary['model']} on {summary['task']}, seed {summary['seed']}: dev {summary['metric']} {dev:.1f} "
        f"(epoch {summary['best_epoch']} of {summary['epochs']}), test {test:.1f}, {3600 * summary['hours']:.0f} s; "
        f"{summary['folder']}"
    )


def run_seed(settings: dict[str, Any], start: Start, data: Data, seed: int, device: torch.device, out: Path,
             show: bool = False, trial: str | None = None) -> dict[str, Any]:  # fmt: skip
    """One run, from the checkpoint to predictions; returns its summary (with "reused" if it was there already).

    The folder appears whole under its name at the end, so a killed run leaves nothing that looks finished. `trial` names
    the folder of a run that only tries settings: it goes to tuning/<trial>, and neither reads the test split nor keeps a
    checkpoint.
    """
    task, recipe, splits = data.task, settings["recipe"], data.splits
    folder = out / start.name / task.name / (f"tuning/{trial}" if trial else f"seed-{seed}")
    digest = run_digest(settings, start, data, seed)
    keep, judged = settings["save_checkpoint"] and not trial, ("dev",) if trial else ("dev", "test")
    if (before := finished(folder, digest, keep, judged)) is not None:
        return {**before, "reused": True, "folder": str(folder)}
    if (folder / "summary.json").exists():
        print(f"{folder}: made with other settings, data or weights (or without its checkpoint); it is run again")
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    clock = time.time()

    # ---- model and optimizer ----------------------------------------------------------------------------------------
    own_peak = reset_peak_memory(device)
    labels = len(task.labels or [])
    init, order, noise = (seed if recipe[key] is None else recipe[key] for key in SEEDS)
    model = build_model(start, task.kind, labels, init, recipe["reinitialise_layers"], recipe["pooling"], recipe["head"])
    pooler = None
    if has_pooler(task.kind, recipe["pooling"]):
        pooler = "checkpoint" if start.weights and "encoder.pooler.weight" in start.weights else "new"
    trained = choose_trained(model, recipe, pooler == "checkpoint")
    model.to(device)
    betas = (recipe["beta1"], recipe["beta2"])
    optimizer = torch.optim.AdamW(parameter_groups(model, recipe), betas=betas, eps=recipe["eps"], fused=True)
    # On CPU auto means fp32 here: steps of a few hundred tokens of ever new lengths are slower in bf16 (22 s for 17 s).
    on_cpu = device.type == "cpu"
    dtype = choose_dtype("fp32" if on_cpu and settings["precision"] == "auto" else settings["precision"], device)
    ready = map if on_cpu else (lambda make, items: ahead(items, make))  # a thread would take the core from the loop
    cast = (lambda: torch.autocast(device.type, dtype)) if dtype != torch.float32 else contextlib.nullcontext
    schedule = {"kind": "linear", "warmup": recipe["warmup"], "floor": 0.0}
    name = f"{start.name}/{task.name}/{trial or f'seed-{seed}'}"
    kept = {key: settings[key] for key in ("checkpoint", "scratch", "task", "recipe", "device", "precision", "tracker")}
    tracker = Tracker(beside, {**kept, "name": name, "seed": seed}, True, None)
    allow_no_answer = task.kind == "qa" and any(not example["answers"] for example in task.train)

    def judge(split: str) -> tuple[list[dict[str, Any]], float, float]:
        """Records, score by the task's metric and mean loss of a split."""
        examples = getattr(task, split)
        scores, loss = score_rows(model, splits[split], 2 * recipe["max_tokens"], dtype, with_loss=True)
        other = score_rows(model, swapped(splits[split]), 2 * recipe["max_tokens"], dtype)[0] if task.both_orders else None
        read = predictions(examples, splits[split], scores, task.labels, allow_no_answer, task.valid_tags, other)
        records = with_gold(read, examples, task.kind)
        scored = score_predictions(records, task.kind, task.labels, task.metric, task.positive, full=False)
        return records, scored["score"], loss

    def collated(micros: list[Any]) -> list[TaskBatch]:
        return [collate(splits["train"], rows, device) for rows in micros]

    # ---- the teacher, if there is one: asked once, its hours are part of the run's -----------------------------------
    teacher, taught, asked = teacher_of(recipe, task.name, seed), [], None
    share, heat = recipe["teacher_weight"], recipe["temperature"]
    if teacher:
        taught, asked = ask_teacher(teacher, data, start.tokenizer, 2 * recipe["max_tokens"], device, dtype)

    # ---- the loop ---------------------------------------------------------------------------------------------------
    best: dict[str, Any] = {"rank": (-math.inf, -math.inf), "epoch": 0}
    step, tokens, waited, total, joules, mark = 0, 0, 0, 0, None, clock
    bar = tqdm(total=recipe["epochs"], desc=f"{start.name} on {task.name}, seed {seed}", unit="epoch", leave=False,
               disable=None if show else True)  # fmt: skip
    for epoch in range(recipe["epochs"]):
        plan = steps_of_epoch(splits["train"], recipe["batch_size"], recipe["max_tokens"], recipe["bucket"], order, epoch)
        total = total or len(plan) * recipe["epochs"]
        losses: list[torch.Tensor] = []
        for batches in ready(collated, plan):
            factor = learning_rate_factor(schedule, (step + 0.5) / total)
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * factor
            count = sum(batch.count for batch in batches)
            torch.manual_seed(int(stream(noise, DROPOUT, epoch, step).integers(1 << 62)))
            loss = torch.zeros((), device=device)
            for batch in batches:
                with cast():
                    scores = model(batch)
                    part = model.loss(scores, batch)
                    if teacher:
                        other = distilled_task_loss(model, scores, taught_scores(taught, batch, task.kind), batch, heat)
                        part = (1 - share) * part + share * other
                (part / count).backward()
                loss += part.detach() / count
                tokens += batch.layout.total
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe["clip"] or math.inf)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            losses.append(loss)
            step += 1
            if len(losses) % CHECK_EVERY == 0 or len(losses) == len(plan):
                check_finite(losses, step, name)

        # ---- dev decides which epoch is kept, and whether to go on; the test set is not looked at --------------------
        records, score, dev_loss = judge("dev")
        if (watts := power_watts()) is not None:
            joules = (joules or 0.0) + watts * (time.time() - mark)
        mark = time.time()
        train_loss = float(torch.stack(losses).mean())
        tracker.log({"step": step, "epoch": epoch + 1, "loss": train_loss, "dev_loss": dev_loss, "dev_score": score,
                     "lr_factor": factor, "tokens": tokens, "minutes": (mark - clock) / 60})  # fmt: skip
        bar.update()
        bar.set_postfix_str(f"loss {train_loss:.3f}, dev {task.metric} {100 * score:.1f}")
        if (score, -dev_loss) > best["rank"]:  # small dev sets tie often: the lower loss decides then
            best = {"rank": (score, -dev_loss), "epoch": epoch + 1, "records": records, "weights": trained_weights(model)}
            waited = 0
        elif step / total >= recipe["warmup"]:
            waited += 1
        if recipe["patience"] and waited >= recipe["patience"]:
            break
    bar.close()

    # ---- the best epoch's predictions -------------------------------------------------------------------------------
    if not best["epoch"]:
        raise Diverged(f"{name}: no dev loss was finite. Lower recipe.lr or set precision=fp32.")
    model.load_state_dict(best["weights"], strict=False)  # what is frozen is as it was
    write_jsonl(beside / "predictions-dev.jsonl", best["records"])
    tested: dict[str, float] = {}
    if not trial:
        records, tested["test_score"], _ = judge("test")
        write_jsonl(beside / "predictions-test.jsonl", records)
    if keep:
        details = {
            "kind": task.kind, "labels": task.labels, "max_length": data.max_length, "task": task.name, "metric": task.metric,
            "positive": task.positive, "window_overlap_tokens": data.overlap, "pooling": recipe["pooling"],
            "allow_no_answer": allow_no_answer, "both_orders": task.both_orders, "valid_tags": task.valid_tags,
            "dev_score": best["rank"][0], "seed": seed,
        }  # fmt: skip
        extra = {"name": start.name, **({} if start.weights is None else origin(start.path))}
        write_checkpoint(beside / "checkpoint", merged(model), start.config, start.tokenizer, extra, {TASK: details})
        if recipe["adapter"] and start.weights is not None:  # new weights could not be had again from their seed alone
            write_adapter(beside / "adapter", model, recipe["lora"], start.path, details)
    hours = (time.time() - clock) / 3600
    price = settings["price_per_hour"]
    summary = {
        "status": "done", "model": start.name, "task": task.name, "kind": task.kind, "seed": seed, "metric": task.metric,
        "labels": task.labels, "positive": task.positive, "both_orders": task.both_orders, "valid_tags": task.valid_tags,
        "dev_score": best["rank"][0], "dev_loss": -best["rank"][1],
        **tested, "best_epoch": best["epoch"], "epochs": epoch + 1, "steps": step, "train_tokens": tokens, "hours": hours,
        "peak_memory_bytes": peak_memory(device) if own_peak else "not measured",
        "trainable_parameters": count_parameters(model, trainable=True),
        "energy_kwh": "not measured" if joules is None else joules / 3.6e6,
        "cost": "not measured" if price is None else price * hours,
        "trained": trained, "teacher": teacher, "asking_hours": asked, **hours_behind(start.ledger, teacher),
        "device": device.type, "precision": str(dtype).removeprefix("torch."), "max_length": data.max_length,
        "pooler": pooler,
        "examples": {split: len(getattr(task, split)) for split in splits}, "skipped": len(task.skipped),
        "tuning": settings.get("tuned"),
        "rows": {split: len(part.rows) for split, part in splits.items()}, "notes": data.notes,
        "checkpoint": start.path, "scratch": start.weights is None, "digest": digest,
    }  # fmt: skip
    tracker.close(summary)
    put_in_place(beside, folder)
    return {**summary, "folder": str(folder)}


def check_finite(losses: list[torch.Tensor], step: int, name: str) -> None:
    """Diverged, naming the first of the last steps whose loss is not finite. `step`: how many have been taken."""
    recent = torch.stack(losses[-CHECK_EVERY:]).tolist()
    for number, value in enumerate(recent):
        if not math.isfinite(value):
            raise Diverged(
                f"{name}: the loss of step {step - len(recent) + number + 1} is {value}. Nothing of this run was kept. "
                "Lower recipe.lr, lengthen recipe.warmup, or set precision=fp32."
            )


if __name__ == "__main__":
    launch(finetune, "finetune")
