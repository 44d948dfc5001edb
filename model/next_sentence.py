"""The next-sentence head of a pre-trained BERT: stored beside the weights, and used in task models without training.

The head reads the pooled [CLS] and has two outputs, 0: the second text follows the first, 1: it does not (transformers'
BertForNextSentencePrediction, equal to 1e-5 in tests/model/test_next_sentence.py). It belongs to the imported encoder;
checkpoints trained further do not have one.
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
    """Weight and bias in fp32 from a transformers state dict, or None without one; UserError for another shape."""
    if not all(name in theirs for name in THEIRS.values()):
        return None
    head = {part: theirs[name].float() for part, name in THEIRS.items()}
    if head["weight"].shape != (2, size) or head["bias"].shape != (2,):
        raise UserError(
            f"{where}: cls.seq_relationship is {list(head['weight'].shape)}, expected [2, {size}]. Download it again."
        )
    return head


def read_head(folder: str | Path) -> dict[str, Tensor] | None:
    """The next-sentence head of a checkpoint folder that is already verified, or None without one."""
    path = Path(folder) / NEXT_SENTENCE
    if not path.exists():
        return None
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Import the checkpoint again.") from None


@torch.no_grad()
def put_head(model: TaskModel, head: dict[str, Tensor], labels: Sequence[str] | None, positive: str | None) -> None:
    """Use the head in `model` (pair with the two `labels`, or choice).

    pair: the output of `positive` is "follows". choice: an option's score is the log-odds that it follows the question.
    """
    weight, bias = head["weight"], head["bias"]
    if model.head.out_features == 1:  # options
        weight, bias = weight[:1] - weight[1:], bias[:1] - bias[1:]
    elif list(labels).index(positive) == 1:
        weight, bias = weight.flip(0), bias.flip(0)
    model.head.weight.copy_(weight)
    model.head.bias.copy_(bias)
