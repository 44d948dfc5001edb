"""Start a larger model from a smaller one's weights, repeated to fill it (arXiv 2412.13663 §2.2.3, weights tiling).

Every unit of the larger model is a copy of one of the smaller: rows and columns wrap around (heads stay whole where
both have heads of one size), layer i is a copy of layer i x n / N. Norms, biases and embeddings are wrapped alike.
"""

import torch
from torch import Tensor

from common.errors import UserError
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tokenization.tokenizer import Tokenizer

STACKED = {"qkv": 3, "mlp_in": 2}  # matrices that hold several of equal height, one on top of the other


def tile(small: Tensor, shape: torch.Size, stacked: int = 1) -> Tensor:
    """`small` repeated to `shape`: entry (i, j) is small's (i mod rows, j mod columns), within each of `stacked` parts."""
    parts = []
    for part in small.chunk(stacked):
        rows = torch.arange(shape[0] // stacked) % len(part)
        columns = torch.arange(shape[1]) % part.shape[1] if len(shape) > 1 else None
        parts.append(part[rows] if columns is None else part[rows][:, columns])
    return torch.cat(parts)


def start_from(model: MaskedLM, checkpoint: str, tokenizer: Tokenizer) -> None:
    """Fill `model` from the checkpoint of a model of the same shape or a smaller one of the same architecture."""
    small, own = load_masked_lm(checkpoint)
    if own.identity != tokenizer.identity:
        raise UserError(
            f"start_from={checkpoint}: its tokenizer is {own.identity}, this run's is {tokenizer.identity}. Use one tokenizer."
        )
    if small.encoder.config.architecture != model.encoder.config.architecture:
        raise UserError(
            f"start_from={checkpoint}: is a {small.encoder.config.architecture} model, "
            f"this run trains {model.encoder.config.architecture}."
        )
    source, target = small.state_dict(), model.state_dict()
    ours, theirs = model.encoder.config.layers, small.encoder.config.layers
    for name, value in target.items():
        words = name.split(".")
        if "blocks" in words:
            layer = int(words[2]) * theirs // ours
            words[2] = str(layer)
        if ".".join(words) not in source:  # modern: the first block has no attention norm, later copies of it keep ones
            continue
        stacked = STACKED.get(words[-2], 1) if model.encoder.config.architecture == "modern" or words[-2] == "qkv" else 1
        value.copy_(tile(source[".".join(words)], value.shape, stacked))
