"""Sizes of weights, updates and hidden states, which show how well a checkpoint can be fine-tuned.

A fine-tuning step has the size of its learning rate. Weights far above the initial 0.02 need a rate at which the rest of
the model breaks: on SIB-200 topics a checkpoint with block weights of 0.19-0.23 scored below new weights, while one with
0.03-0.05 and a higher loss scored fourteen points above them.
"""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from data.layout import Layout
from model.mlm import MaskedLM

GROUPS = ("embeddings", "attention", "mlp", "head", "other")  # other: norms, biases and a student's projections
# Root mean square of block weights above which a checkpoint counts as hard to fine-tune: between the 0.029-0.049 of good
# runs and the 0.12-0.23 of bad ones, at equal ratios from 0.05 and 0.12.
LARGE = 0.1
PROBE_TOKENS = 512  # at most this many tokens, whole documents, for measuring hidden states


def group_of(name: str, dimensions: int) -> str:
    """The group of a parameter of a MaskedLM, by its name."""
    if dimensions < 2:
        return "other"
    if ".blocks." in name:
        return "attention" if "attention" in name or "qkv" in name else "mlp"
    return {"head": "head", "encoder": "embeddings"}.get(name.split(".", maxsplit=1)[0], "other")


def by_group(model: nn.Module, values: Iterable[Tensor]) -> Tensor:
    """Root mean square of `values` (one for each parameter of `model`) in each of GROUPS [5], on their device; NaN if empty."""
    kinds = [group_of(name, p.ndim) for name, p in model.named_parameters()]
    values = list(values)
    squares = torch.stack(torch._foreach_norm(values)).float().square()
    means = []
    for group in GROUPS:
        mine = [number for number, kind in enumerate(kinds) if kind == group]
        count = sum(values[number].numel() for number in mine)
        means.append(
            (sum(squares[number] for number in mine) / count).sqrt() if count else torch.full_like(squares[0], torch.nan)
        )
    return torch.stack(means)


@torch.no_grad()
def measure_sizes(model: MaskedLM, before: list[Tensor], ids: Tensor, lengths: np.ndarray) -> Tensor:
    """[12] on the device: weights by group, the last update by group, and for hidden states the root mean square of the last
    layer and the largest value of all layers.

    `before` holds the weights before the step; ids [T] and document lengths [D] are those of a micro-batch.
    """
    weights = [p.detach() for p in model.parameters()]
    sizes = [by_group(model, weights), by_group(model, torch._foreach_sub(weights, before))]
    number = max(1, int(np.searchsorted(np.cumsum(lengths), PROBE_TOKENS, side="right")))
    was_training = model.training
    model.eval()
    hidden_states: list[Tensor] = []
    layout = Layout.of(lengths[:number], ids.device)
    model.encoder(ids[: int(lengths[:number].sum())], layout, hidden_states=hidden_states)
    model.train(was_training)
    largest = torch.stack([state.detach().abs().max().float() for state in hidden_states]).max()
    return torch.cat([*sizes, torch.stack([hidden_states[-1].float().square().mean().sqrt(), largest])])


@torch.no_grad()
def gradient_norms(model: nn.Module) -> Tensor:
    """Norm of the gradients in each of GROUPS [5], on their device, before clipping; NaN for a group without any."""
    named = [(group_of(name, p.ndim), p.grad) for name, p in model.named_parameters() if p.grad is not None]
    squares = torch.stack(torch._foreach_norm([gradient for _, gradient in named])).float().square()
    norms = []
    for group in GROUPS:
        mine = [number for number, (kind, _) in enumerate(named) if kind == group]
        norms.append(sum(squares[number] for number in mine).sqrt() if mine else torch.full_like(squares[0], torch.nan))
    return torch.stack(norms)


def as_line(measured: list[float]) -> dict[str, dict[str, float | None]]:
    """The entry "sizes" of metrics.jsonl, from the 12 numbers of `measure_sizes`; None for an empty group.

    Five more are those of `gradient_norms`.
    """
    count = len(GROUPS)
    values = [value if math.isfinite(value) else None for value in measured]
    rest = values[2 * count :]
    return {
        "weights": dict(zip(GROUPS, values, strict=False)),
        "update": dict(zip(GROUPS, values[count:], strict=False)),
        "hidden": {"rms": rest[0], "largest": rest[1]},
        **({"gradients": dict(zip(GROUPS, rest[2:], strict=True))} if rest[2:] else {}),
    }


def block_rms(weights: Mapping[str, Tensor]) -> float | None:
    """Root mean square of the matrices of all blocks in a state dict; None if there are none."""
    blocks = [value for name, value in weights.items() if ".blocks." in name and value.ndim == 2]
    count = sum(value.numel() for value in blocks)
    return (sum(float(value.float().square().sum()) for value in blocks) / count) ** 0.5 if count else None


def large_weights(weights: Mapping[str, Tensor] | None) -> str | None:
    """One sentence about a checkpoint whose block weights are too large for good fine-tuning; None for any other."""
    size = block_rms(weights) if weights else None
    if size is None or size <= LARGE:
        return None
    return (
        f"block weights have a root mean square of {size:.2f}, above {LARGE}: such a checkpoint is hard to fine-tune. "
        "Pre-train with a lower rate or more decay (optimizer.muon_lr=2e-3 optimizer.muon_weight_decay=0.3)."
    )
