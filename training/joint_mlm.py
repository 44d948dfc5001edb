"""Masked language modelling beside a task: the same training rows, masked, in every step of fine-tuning (recipe.mlm).

TLM (Yao et al. 2021, arXiv 2111.04130) trains on task and text jointly; joint training beats one after the other (arXiv
2109.07437). Only the task's own training rows are masked, never dev or test. The masked-LM head is the checkpoint's; it is
trained too and is not part of the fine-tuned model.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from data.features import TaskBatch
from data.layout import Layout, move
from data.loader import MASKS
from data.masking import Masking
from data.packing import stream
from model.heads import TaskModel
from model.mlm import MLMHead, linear_cross_entropy
from tasks.encoding import Encoded
from training.task_models import Start

RATE = 0.15  # of the tokens (BERT; TLM's too)


@dataclass
class MaskedRows:
    """The rows of a TaskBatch, masked: ids [T], layout with the masked positions selected, their targets [M]."""

    ids: Tensor
    layout: Layout
    targets: Tensor


def add_masked_lm_head(model: TaskModel, start: Start) -> None:
    """Put the checkpoint's masked-LM head on a task model, as model.mlm. UserError for a checkpoint that has none."""
    if not start.has_masked_lm_head:
        raise UserError(
            f"recipe.mlm: {start.path} has no masked-LM head (new weights, fine-tuned, or a foreign encoder). Start from a "
            "pre-trained checkpoint, or set recipe.mlm=0."
        )
    model.mlm = MLMHead(start.config)
    own = {name: start.weights[f"head.{name}"] for name in model.mlm.state_dict()}
    model.mlm.load_state_dict(own)


def mask_rows(
    encoded: Encoded, micros: list[np.ndarray], masking: Masking, key: tuple[int, int, int], device: torch.device
) -> list[MaskedRows]:
    """The rows of one step, masked: `micros` are the row numbers of its micro-batches, `key` is (seed, epoch, step of it)."""
    lengths = [[len(encoded.rows[number].ids) for number in numbers] for numbers in micros]
    ends = np.cumsum([sum(part) for part in lengths])
    whole = np.concatenate([encoded.rows[number].ids for numbers in micros for number in numbers]).astype(np.int64)
    ids, positions, targets = masking.apply(whole, RATE, stream(key[0], MASKS, *key[1:]))  # of the step, however it is cut
    cuts = np.searchsorted(positions, ends)
    masked = []
    for end, sizes, last in zip(ends, lengths, cuts, strict=True):
        begin, first = end - sum(sizes), cuts[len(masked) - 1] if masked else 0
        layout = Layout.of(sizes)
        layout.select(torch.from_numpy(positions[first:last] - begin))
        layout = layout.to(device)
        parts = (move(torch.from_numpy(part), device) for part in (ids[begin:end], targets[first:last]))
        masked.append(MaskedRows(next(parts), layout, next(parts)))
    return masked


def masked_loss(model: TaskModel, masked: MaskedRows, batch: TaskBatch) -> Tensor:
    """Summed cross-entropy (a scalar) of the masked tokens, at least one, of the batch's rows."""
    hidden = model.encoder(masked.ids, masked.layout, batch.token_types, positions=masked.layout.selected[0])
    return linear_cross_entropy(model.mlm(hidden), model.encoder.token_embeddings.weight, model.mlm.bias, masked.targets)
