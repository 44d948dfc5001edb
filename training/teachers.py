"""Teachers: the checkpoints that distillation learns from, checked before the first step, and the hours behind a checkpoint.

A pre-training teacher (`distill.teacher`) is asked at every step, since every step masks anew. A fine-tuning teacher
(`recipe.teacher`) is asked once about the training set: its rows do not change.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import read_json
from data.features import Encoded, TaskBatch, encode
from model.adapters import ADAPTER, find_adapter, load_any
from model.decoding import score_rows
from model.distillation import HIDDEN, Student, spread
from model.encoder import EncoderConfig
from model.folder import SUMS, WEIGHTS
from model.mlm import MaskedLM
from model.store import load_masked_lm, resolve_checkpoint
from tokenization.tokenizer import Tokenizer

# ---------------------------------------------------------------- pre-training


def check_distill(options: dict[str, Any]) -> None:
    """UserError for a value of the group `distill` that cannot work."""
    numbers = {"weight": (0, 1), "temperature": (1e-3, 1e3), "hidden_weight": (0, 1e6)}
    for key, (least, most) in numbers.items():
        value = options[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise UserError(f"distill.{key}={value}: expected a number from {least:g} to {most:g}.")
    if options["hidden"] not in (None, *HIDDEN):
        raise UserError(f"distill.hidden={options['hidden']}: expected null, {' or '.join(HIDDEN)}.")
    pairs = options["layers"]
    if pairs is not None and not (
        isinstance(pairs, list) and pairs and all(isinstance(p, list) and [type(n) for n in p] == [int, int] for p in pairs)
    ):
        raise UserError(f"distill.layers={pairs}: expected [[layer of the student, layer of the teacher], ...] or null.")


def masked_lm(settings: dict[str, Any], shape: EncoderConfig, tokenizer: Tokenizer, device: torch.device) -> MaskedLM:
    """The model that train.py trains: a MaskedLM, or with distill.teacher a Student, whose teacher is on `device` already.

    Raises UserError for a teacher with another tokenizer, without a masked-LM head, or too short for the phases.
    """
    options = settings["distill"]
    if not options["teacher"]:
        return MaskedLM(shape, settings["last_block_on_masked"])
    state = torch.get_rng_state()  # reading a teacher draws weights; the student's are those it has without one
    teacher, own = load_masked_lm(options["teacher"])
    torch.set_rng_state(state)
    config = teacher.encoder.config
    if own.identity != tokenizer.identity:
        raise UserError(
            f"distill.teacher={options['teacher']}: its tokenizer is {own.identity}, this run's is {tokenizer.identity}. Both "
            "must see the same pieces: take a teacher with this tokenizer, or set tokenizer=imported start_from=TEACHER."
        )
    longest = max(phase["max_length"] for phase in settings["phases"])
    if longest > config.max_length:
        raise UserError(f"phases: a max_length of {longest} is above the teacher's {config.max_length}. Shorten the phase.")
    pairs = []
    if options["hidden"]:
        pairs = options["layers"] or spread(shape.layers, config.layers)
        if bad := [pair for pair in pairs if not (0 <= pair[0] <= shape.layers and 0 <= pair[1] <= config.layers)]:
            raise UserError(
                f"distill.layers: {bad[0]} is not there; the student has layers 0 (embeddings) to {shape.layers}, the teacher "
                f"0 to {config.layers}."
            )
    return Student(shape, settings["last_block_on_masked"], teacher.to(device), options["weight"], options["temperature"],
                   pairs, options["hidden"] or "mse", options["hidden_weight"])  # fmt: skip


# ---------------------------------------------------------------- fine-tuning


def teacher_of(recipe: dict[str, Any], task: str, seed: int) -> str | None:
    """The path of a run's teacher: recipe.teacher with {task} and {seed} filled in; None without one."""
    path = recipe.get("teacher")
    return None if not path else str(path).replace("{task}", task).replace("{seed}", str(seed))


def identity_of(path: str) -> str:
    """Digest of a teacher's weights. UserError where it is not there (yet)."""
    adapter = find_adapter(path)
    if adapter is not None:
        return str(read_json(adapter / ADAPTER)["sha256"])
    folder = resolve_checkpoint(path)
    if not (folder / SUMS).exists():
        raise UserError(
            f"recipe.teacher={path}: no checkpoint there. Fine-tune the teacher first, with save_checkpoint=true, or name the "
            "folder of one of its seeds."
        )
    return str(read_json(folder / SUMS)[WEIGHTS])


def ask_teacher(path: str, data: Any, tokenizer: Tokenizer, max_tokens: int, device: torch.device,
                dtype: torch.dtype) -> tuple[list[torch.Tensor], float]:  # fmt: skip
    """(raw scores of a fine-tuned teacher for every training row of `data` (training.finetuning.Data), hours that it took).

    A teacher may have another tokenizer, except for qa, whose scores belong to pieces. Raises UserError for one of another
    kind or other labels; labels in another order are put in ours.
    """
    begun, task, train, overlap = time.time(), data.task, data.splits["train"], data.overlap
    teacher, own, its = load_any(path)
    if its["kind"] != task.kind or set(its["labels"] or []) != set(task.labels or []):
        raise UserError(
            f"recipe.teacher={path}: was fine-tuned for {its['task']} ({its['kind']}, labels {its['labels']}), this task is "
            f"{task.name} ({task.kind}, labels {task.labels}). Fine-tune a teacher on this task: python finetune.py task=..."
        )
    same, limit = own.identity == tokenizer.identity, teacher.encoder.config.max_length
    if task.kind == "qa" and not same:
        raise UserError(
            f"recipe.teacher={path}: its tokenizer is {own.identity}, the student's {tokenizer.identity}. Starts and ends "
            "belong to pieces: a teacher for questions needs the student's tokenizer."
        )
    if task.kind == "qa" and data.max_length > limit:
        raise UserError(f"recipe.teacher={path}: reads {limit} tokens, the rows have {data.max_length}. Set task.max_length.")
    theirs = train
    if not same or data.max_length > limit:
        theirs = encode(task.train, task.kind, own, task.labels, min(data.max_length, limit), overlap)
    scores = [torch.from_numpy(np.atleast_1d(part)) for part in score_rows(teacher.to(device), theirs, max_tokens, dtype)[0]]
    if task.labels and its["labels"] != task.labels:
        order = [its["labels"].index(label) for label in task.labels]
        scores = [part[..., order] for part in scores]
    if task.kind == "tagging" and theirs is not train:  # rows may be cut at other words
        scores = _by_word(scores, theirs, train)
    return [part.to(device) for part in scores], (time.time() - begun) / 3600


def _by_word(scores: list[torch.Tensor], theirs: Encoded, ours: Encoded) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for number in range(len(ours.first) - 1):
        rows = slice(theirs.first[number], theirs.first[number + 1])
        words = [word for row in theirs.rows[rows] for word in row.words]
        values = dict(zip(words, torch.cat(scores[rows]), strict=True))
        found += [torch.stack([values[w] for w in row.words]) for row in ours.rows[ours.first[number] : ours.first[number + 1]]]
    return found


def taught_scores(scores: list[torch.Tensor], batch: TaskBatch, kind: str) -> torch.Tensor:
    """The teacher's scores of a batch, in the shape of the student's."""
    parts = [scores[row] for row in batch.rows]
    return torch.stack(parts) if kind in ("classification", "pair") else torch.cat(parts)


# ---------------------------------------------------------------- what a checkpoint cost


def ledger(checkpoint: str | Path) -> dict[str, float | None]:
    """Every run behind a checkpoint, itself included, and its device hours; None where no summary.json tells.

    What a run started from or learned from is in its own summary, so the list reaches back to the first; a checkpoint that
    two of them share is in it once.
    """
    folder = resolve_checkpoint(checkpoint)
    try:
        summary = read_json(folder.parent / "summary.json")
        hours = float(summary["hours"]) * int(summary.get("ranks", 1))
    except (UserError, KeyError, TypeError, ValueError):
        return {str(folder.absolute()): None}
    return {**(summary.get("ledger") or {}), str(folder.absolute()): hours}


def behind(*checkpoints: str | Path | None) -> dict[str, float | None]:
    """The ledgers of several checkpoints as one; None stands for no checkpoint."""
    return {run: hours for checkpoint in checkpoints if checkpoint for run, hours in ledger(checkpoint).items()}


def measured(hours: dict[str, float | None]) -> float | None:
    """Sum of the hours that are known; None where none is, 0 of nothing."""
    known = [value for value in hours.values() if value is not None]
    return sum(known) if known or not hours else None


def hours_behind(runs: dict[str, float | None], teacher: str | None) -> dict[str, Any]:
    """What summary.json says of the runs behind one: those of its start (`runs`), and of its teacher what is not in them."""
    more = {run: hours for run, hours in behind(teacher).items() if run not in runs}
    own, taught = measured(runs), measured(more) if teacher else None
    return {
        "pretraining_hours": "not measured" if own is None else own,
        "teacher_hours": taught if taught is not None or not teacher else "not measured",
        "not_measured": sorted(run for run, hours in {**runs, **more}.items() if hours is None),
        "ledger": {**runs, **more},
    }
