"""Teachers for distillation, checked before the first step.

A pre-training teacher (`distill.teacher`) runs at every step, because every step has new masks. A fine-tuning teacher
(`recipe.teacher`) runs once over the training set, whose rows do not change.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch

from common.errors import UserError
from common.files import read_json
from data.features import TaskBatch, encode
from model.adapters import ADAPTER, find_adapter, load_any
from model.decoding import score_rows
from model.distillation import Student, Teaching, distilled_task_loss, spread
from model.encoder import EncoderConfig
from model.folder import SUMS, WEIGHTS
from model.heads import TaskModel
from model.mlm import MaskedLM
from model.store import load_masked_lm, resolve_checkpoint
from tasks.base import kind_of
from tasks.encoding import Encoded
from tokenization.tokenizer import Tokenizer
from training.settings import Distill, Recipe

# ---------------------------------------------------------------- pre-training


def masked_lm(
    shape: EncoderConfig, last_block_on_masked: bool, distill: Distill, longest: int, tokenizer: Tokenizer, device: torch.device
) -> MaskedLM:
    """The model that train.py trains: a MaskedLM, or with distill.teacher a Student, whose teachers are on `device` already.

    `longest`: tokens of the longest window that the run reads.

    Raises UserError for a teacher with another tokenizer, without a masked-LM head, or too short for the phases.
    """
    if not distill.teachers:
        return MaskedLM(shape, last_block_on_masked)
    state, teachers = torch.get_rng_state(), []  # reading a teacher draws weights; the student's are those it has without one
    for path in distill.teachers:
        teacher, own = load_masked_lm(path)
        if own.identity != tokenizer.identity:
            raise UserError(
                f"distill.teacher={path}: its tokenizer is {own.identity}, this run's is {tokenizer.identity}. Both must see "
                "the same tokens: take a teacher with this tokenizer, or set tokenizer=imported start_from=TEACHER."
            )
        if longest > (limit := teacher.encoder.config.max_length):
            raise UserError(f"phases: a max_length of {longest} is above the teacher's {limit} ({path}). Shorten the phase.")
        teachers.append(teacher.to(device))
    torch.set_rng_state(state)
    config, pairs = teachers[0].encoder.config, []
    if distill.hidden:
        pairs = distill.layers or spread(shape.layers, config.layers)
        if bad := [pair for pair in pairs if not (0 <= pair[0] <= shape.layers and 0 <= pair[1] <= config.layers)]:
            raise UserError(
                f"distill.layers: {bad[0]} does not exist; the student has layers 0 (embeddings) to {shape.layers}, the "
                f"teacher 0 to {config.layers}."
            )
    teaching = Teaching(distill.weight, distill.temperature, pairs, distill.hidden or "mse", distill.hidden_weight)
    return Student(shape, last_block_on_masked, teachers[0], teaching, *teachers[1:])


# ---------------------------------------------------------------- fine-tuning


def teacher_of(path: str | None, task: str, seed: int) -> str | None:
    """The path of a run's teacher: recipe.teacher with {task} and {seed} filled in; None without one."""
    return None if not path else str(path).replace("{task}", task).replace("{seed}", str(seed))


def identity_of(path: str) -> str:
    """Digest of a teacher's weights. UserError if it does not exist (yet)."""
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


@dataclass
class Teacher:
    """A fine-tuned teacher's raw scores of every training row, on the run's device, and the hours to compute them."""

    scores: list[torch.Tensor]
    hours: float


def ask_teacher(
    path: str, data: Any, tokenizer: Tokenizer, max_tokens: int, device: torch.device, dtype: torch.dtype
) -> Teacher:
    """The scores of the fine-tuned checkpoint at `path` for the training rows of `data` (training.runs.Data).

    A teacher may have another tokenizer, except for qa, whose scores belong to tokens. Raises UserError for another kind or
    other labels; labels in another order are reordered.
    """
    begun, task, train, overlap = time.time(), data.task, data.splits["train"], data.overlap
    teacher, own, its = load_any(path)
    if its["kind"] != task.kind or set(its["labels"] or []) != set(task.labels or []):
        raise UserError(
            f"recipe.teacher={path}: was fine-tuned for {its['task']} ({its['kind']}, labels {its['labels']}), this task is "
            f"{task.name} ({task.kind}, labels {task.labels}). Fine-tune a teacher on this task: python finetune.py task=..."
        )
    same, limit = own.identity == tokenizer.identity, teacher.encoder.config.max_length
    kind = kind_of(task.kind)
    if kind.compete == "tokens" and not same:
        raise UserError(
            f"recipe.teacher={path}: its tokenizer is {own.identity}, the student's {tokenizer.identity}. Starts and ends "
            "belong to tokens: a teacher for questions needs the student's tokenizer."
        )
    if kind.compete == "tokens" and data.max_length > limit:
        raise UserError(f"recipe.teacher={path}: reads {limit} tokens, the rows have {data.max_length}. Set task.max_length.")
    theirs = train
    if not same or data.max_length > limit:
        theirs = encode(task.train, task.kind, own, task.labels, min(data.max_length, limit), overlap)
    if its.get("range") != task.decoding.get("range"):
        raise UserError(
            f"recipe.teacher={path}: its scores are of {its.get('range')}, this task's of {task.decoding.get('range')}. Set "
            "task.score_range for both."
        )
    scores = [torch.from_numpy(part) for part in score_rows(teacher.to(device), theirs, max_tokens, dtype)[0]]
    if task.labels and its["labels"] != task.labels:
        order = [its["labels"].index(label) for label in task.labels]
        scores = [part[..., order] for part in scores]
    if theirs is not train and train.rows[0].words is not None:  # sentences may be cut between other words
        scores = _by_word(scores, theirs, train)
    return Teacher([part.to(device) for part in scores], (time.time() - begun) / 3600)


def _by_word(scores: list[torch.Tensor], theirs: Encoded, ours: Encoded) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    for number in range(len(ours.first) - 1):
        rows = slice(theirs.first[number], theirs.first[number + 1])
        words = [word for row in theirs.rows[rows] for word in row.words]
        values = dict(zip(words, torch.cat(scores[rows]), strict=True))
        found += [torch.stack([values[w] for w in row.words]) for row in ours.rows[ours.first[number] : ours.first[number + 1]]]
    return found


def loss_with_teacher(
    loss: torch.Tensor, model: TaskModel, scores: torch.Tensor, batch: TaskBatch, teacher: Teacher, recipe: Recipe
) -> torch.Tensor:
    """(1 - alpha) x `loss` + alpha x T^2 x KL(teacher || student), summed; recipe: teacher_weight (alpha), temperature (T)."""
    logits = torch.cat([teacher.scores[row] for row in batch.rows])  # in the shape of the student's `scores`
    alpha = recipe.teacher_weight
    return (1 - alpha) * loss + alpha * distilled_task_loss(model, scores, logits, batch, recipe.temperature)
