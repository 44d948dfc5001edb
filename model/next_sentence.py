"""The next-sentence head of a BERT that was pre-trained with one: kept beside the weights, and put on a task model as it is.

The head reads the pooled [CLS] and has two outputs, 0: the second text follows the first, 1: it does not (transformers'
BertForNextSentencePrediction, equal to 1e-5 in tests/model/test_next_sentence.py). It belongs to the imported encoder: a
checkpoint that was trained further has none.
"""

from collections.abc import Sequence
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from common.errors import UserError
from model.heads import TaskModel

NEXT_SENTENCE = "next_sentence.safetensors"  # weight [2, H] and bias [2]
THEIRS = {part: f"cls.seq_relationship.{part}" for part in ("weight", "bias")}


def head_of(theirs: dict[str, Tensor], size: int, where: str | Path) -> dict[str, Tensor] | None:
    """Weight and bias in fp32 out of a transformers state dict, None where it has none; UserError for another shape."""
    if not all(name in theirs for name in THEIRS.values()):
        return None
    head = {part: theirs[name].float() for part, name in THEIRS.items()}
    if head["weight"].shape != (2, size) or head["bias"].shape != (2,):
        raise UserError(
            f"{where}: cls.seq_relationship is {list(head['weight'].shape)}, expected [2, {size}]. Download it again."
        )
    return head


def read_head(folder: str | Path) -> dict[str, Tensor] | None:
    """The next-sentence head of a checkpoint folder that was verified before, or None where it has none."""
    path = Path(folder) / NEXT_SENTENCE
    if not path.exists():
        return None
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Import the checkpoint again.") from None


@torch.no_grad()
def put_head(model: TaskModel, head: dict[str, Tensor], labels: Sequence[str] | None, positive: str | None) -> None:
    """Give `model` (pair with the two `labels`, or choice) the head as its own.

    pair: the output of `positive` is "follows". choice: an option scores the log-odds that it follows the question.
    """
    weight, bias = head["weight"], head["bias"]
    if model.kind == "choice":
        weight, bias = weight[:1] - weight[1:], bias[:1] - bias[1:]
    elif list(labels).index(positive) == 1:
        weight, bias = weight.flip(0), bias.flip(0)
    model.head.weight.copy_(weight)
    model.head.bias.copy_(bias)
