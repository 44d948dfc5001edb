"""Masked language modelling: the head that turns hidden states into logits over the vocabulary, and its loss.

Logits are computed at masked positions only. With 64,000 tokens the decoder takes 69 % of a Small model's training FLOPs if
it runs at every position; at the masked 15-30 % of positions it takes a fifth to a third of that.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.layout import Layout
from model.encoder import Encoder, EncoderConfig, initialise

# Positions whose logit gradients are in memory at once: 1,024 x 64,000 in bf16 are 131 MB. Every chunk reads and writes the
# gradient of the whole decoder weight (197 MB in Base), so a GPU, which has the memory, uses larger ones.
CHUNK, CUDA_CHUNK = 1024, 4096
ROWS = 128  # positions of a chunk whose logits are in fp32 at once on CPU: 33 MB, which fit its cache


def chunk_of(device: torch.device) -> int:
    """Positions of one chunk of the loss on this kind of device."""
    return CUDA_CHUNK if device.type == "cuda" else CHUNK


class _LinearCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of x @ weight.T + bias, one chunk of positions after another.

    The logits of all positions are never in memory at once. The gradients of the sum are computed in forward, chunk by
    chunk; backward only multiplies them by the gradient of the loss. (Liger's fused loss does the same, arXiv 2410.10989.)
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, chunk: int) -> Tensor:
        kind = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        with torch.autocast(x.device.type, enabled=False):
            low_x, low_weight = x.to(kind), weight.to(kind)
            rows = ROWS if x.device.type == "cpu" else chunk
            loss = x.new_zeros((), dtype=torch.float32)
            grad_x = torch.empty_like(x)
            grad_weight, grad_bias = None, None
            # Most time is spent on passes over the logits and over the weight's gradient (131 MB and more at 64,000 tokens).
            # So one log-softmax gives the loss and then becomes the gradient in place, in rows that stay in the cache, and
            # the gradients of later chunks are added to that of the first.
            for begin in range(0, max(1, len(x)), chunk):
                part = low_x[begin : begin + chunk]
                error = part.new_empty(len(part), len(weight))  # gradient of the summed loss by the logits
                bias_part = torch.zeros_like(bias)
                for row in range(0, len(part), rows):
                    wanted = targets[begin + row : begin + min(row + rows, chunk), None]
                    logs = (part[row : row + rows] @ low_weight.T).float().add_(bias).log_softmax(1)
                    loss -= logs.gather(1, wanted).sum()
                    logs.exp_().scatter_add_(1, wanted, logs.new_full(wanted.shape, -1.0))
                    bias_part += logs.sum(0)
                    error[row : row + rows] = logs
                grad_x[begin : begin + chunk] = error @ low_weight
                weight_part = error.T @ part
                if grad_weight is None:
                    grad_weight, grad_bias = weight_part.to(weight.dtype), bias_part
                else:
                    grad_weight += weight_part
                    grad_bias += bias_part
        ctx.grads = grad_x, grad_weight, grad_bias
        return loss

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        parts = ctx.grads
        del ctx.grads  # scaled in place: only one backward for each forward
        return *(part.mul_(grad) for part in parts), None, None


@torch.compiler.disable  # computes its own gradients
def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, chunk: int | None = None) -> Tensor:
    """Sum over positions of the cross-entropy of x [M, H] @ weight [V, H].T + bias [V] against targets [M].

    `chunk` positions are computed at once; None: `chunk_of` chooses for the device.
    """
    chunk = chunk or chunk_of(x.device)
    if torch.is_grad_enabled():
        return _LinearCrossEntropy.apply(x, weight, bias, targets, chunk)
    parts = [
        F.cross_entropy(F.linear(x[i : i + chunk], weight, bias).float(), targets[i : i + chunk], reduction="sum")
        for i in range(0, len(x), chunk)
    ]
    return torch.stack(parts).sum() if parts else x.new_zeros((), dtype=torch.float32)


class MLMHead(nn.Module):
    """Dense layer, GELU and norm; decoder tied to the token embeddings, one bias a token (1810.04805's code; 2412.13663)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        modern = config.architecture == "modern"
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=not modern)
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=not modern)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden [M, H] to the decoder's input [M, H]."""
        return self.norm(F.gelu(self.dense(hidden)))


class MaskedLM(nn.Module):
    """Encoder and MLM head. `last_block_on_masked` computes the last block's queries for masked positions only."""

    def __init__(self, config: EncoderConfig, last_block_on_masked: bool = False, chunked_loss: bool = True) -> None:
        super().__init__()
        self.encoder = Encoder(config)
        self.head = MLMHead(config)
        self.head.apply(lambda module: initialise(module, config))
        self.last_block_on_masked = last_block_on_masked
        self.chunked_loss = chunked_loss

    def hidden_at(self, ids: Tensor, layout: Layout, positions: Tensor) -> Tensor:
        """The decoder's input [M, H] at `positions` [M] (sorted) of the flat batch ids [T]."""
        if self.last_block_on_masked:
            return self.head(self.encoder(ids, layout, positions=positions))
        return self.head(self.encoder(ids, layout)[positions])

    def forward(self, ids: Tensor, layout: Layout, positions: Tensor, targets: Tensor) -> Tensor:
        """Summed cross-entropy (a scalar) of the tokens `targets` [M] at `positions` [M]; divide by the count yourself."""
        hidden = self.hidden_at(ids, layout, positions)
        if self.chunked_loss:
            return linear_cross_entropy(hidden, self.encoder.token_embeddings.weight, self.head.bias, targets)
        return F.cross_entropy(self.decode(hidden).float(), targets, reduction="sum")

    def decode(self, hidden: Tensor) -> Tensor:
        """Logits [M, V] of decoder inputs [M, H]."""
        return F.linear(hidden, self.encoder.token_embeddings.weight, self.head.bias)

    def weights(self) -> dict[str, Tensor]:
        """The weights of the finished model's checkpoint, by name."""
        return self.state_dict()

    def logits(self, ids: Tensor, layout: Layout, positions: Tensor) -> Tensor:
        """Logits [M, V] at `positions`."""
        return self.decode(self.hidden_at(ids, layout, positions))
