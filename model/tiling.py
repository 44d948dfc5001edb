"""Start a larger model from a smaller one's weights, repeated to fill it (arXiv 2412.13663 §2.2.3, weights tiling).

Every unit of the larger model is a copy of one in the smaller: rows and columns repeat cyclically (whole heads, if both
models have heads of one size), layer i is a copy of layer i x n / N. Norms, biases and embeddings are repeated alike.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from common.errors import UserError
from model.convert.transplant import transplant
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tokenization.tokenizer import Tokenizer

STACKED = {"qkv": 3, "mlp_in": 2}  # matrices that consist of several of equal height, stacked


def tile(small: Tensor, shape: torch.Size, stacked: int = 1) -> Tensor:
    """`small` repeated to `shape`: entry (i, j) is small's (i mod rows, j mod columns), in each of `stacked` parts."""
    parts = []
    for part in small.chunk(stacked):
        rows = torch.arange(shape[0] // stacked) % len(part)
        columns = torch.arange(shape[1]) % part.shape[1] if len(shape) > 1 else None
        parts.append(part[rows] if columns is None else part[rows][:, columns])
    return torch.cat(parts)


def start_from(
    model: MaskedLM,
    checkpoint: str,
    tokenizer: Tokenizer,
    method: str | None = None,
    static: Callable[[], Tensor] | None = None,
    seed: int = 0,
) -> str | None:
    """Fill `model` from the checkpoint of a model of the same shape or a smaller one of the same architecture.

    With `method` the checkpoint may have another tokenizer: its embeddings are transplanted first (see
    model/convert/transplant.py for the other arguments), and the returned note reports it. Additional positions of a longer
    model repeat those of the shorter one (arXiv 2004.05150 §5). Raises UserError for another architecture or tokenizer.
    """
    small, own = load_masked_lm(checkpoint)
    said = None
    if own.identity != tokenizer.identity:
        if method is None:
            raise UserError(
                f"start_from={checkpoint}: its tokenizer is {own.identity}, this run's is {tokenizer.identity}. Keep the "
                "checkpoint's with tokenizer=imported, or carry its embeddings over with transplant=focus (or mean, random)."
            )
        words, bias, report = transplant(
            small.encoder.token_embeddings.weight.data, small.head.bias.data, own, tokenizer, method, static, seed
        )
        small.encoder.token_embeddings.weight = torch.nn.Parameter(words)
        small.head.bias = torch.nn.Parameter(bias)
        said = f"transplant={method}: {report}"
    if small.encoder.config.architecture != model.encoder.config.architecture:
        raise UserError(
            f"start_from={checkpoint}: is a {small.encoder.config.architecture} model, "
            f"this run trains {model.encoder.config.architecture}."
        )
    source, target = small.state_dict(), model.state_dict()
    ours, theirs = model.encoder.config.layers, small.encoder.config.layers
    offset = model.encoder.config.position_offset
    if offset and offset == small.encoder.config.position_offset:  # the rows before the first position are not repeated
        table, wanted = source["encoder.position_embeddings.weight"], len(target["encoder.position_embeddings.weight"])
        again = tile(table[offset:], torch.Size((wanted - offset, table.shape[1])))
        source["encoder.position_embeddings.weight"] = torch.cat((table[:offset], again))
    for name, value in target.items():
        words = name.split(".")
        if "blocks" in words:
            layer = int(words[2]) * theirs // ours
            words[2] = str(layer)
        if ".".join(words) not in source:  # modern: the first block has no attention norm; its later copies keep ones
            continue
        stacked = STACKED.get(words[-2], 1) if model.encoder.config.architecture == "modern" or words[-2] == "qkv" else 1
        value.copy_(tile(source[".".join(words)], value.shape, stacked))
    return said
