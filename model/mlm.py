"""Masked language modelling: the head that turns hidden states into pieces, and its loss.

Only masked positions meet the vocabulary. With 64,000 pieces the decoder is 69 % of a Small model's training FLOPs when
it runs on every position; on the 15-30 % that are asked for it is a fifth to a third of that.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.layout import Layout
from model.encoder import Encoder, EncoderConfig, initialise

CHUNK = 1024  # positions whose logits' gradients are held at once: 1,024 x 64,000 in bf16 = 131 MB
ROWS = 128  # of these, so many have their logits in fp32 at once on CPU, 33 MB, which its cache holds


class _LinearCrossEntropy(torch.autograd.Function):
    """Summed cross-entropy of x @ weight.T + bias, chunk by chunk, with the gradients made on the way.

    The logits of all positions never stand in memory together, and backward has no matrix product left to do: the
    gradient of a sum is known but for the one factor that arrives from above. (The idea of Liger's fused loss,
    arXiv 2410.10989.)
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
            # Each pass over the logits and over the weight's gradient (131 MB and more at 64,000 pieces) counts: one
            # log-softmax for loss and gradient, turned into the other in place, in rows that stay in the cache; no
            # zeros to add to.
            for begin in range(0, max(1, len(x)), chunk):
                part = low_x[begin : begin + chunk]
                error = part.new_empty(len(part), len(weight))  # what the logits' gradient is, but for one factor
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
        del ctx.grads  # scaled in place: one backward a forward
        return *(part.mul_(grad) for part in parts), None, None


@torch.compiler.disable  # makes its own gradients, chunk by chunk
def linear_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, chunk: int = CHUNK) -> Tensor:
    """Sum over positions of the cross-entropy of x [M, H] @ weight [V, H].T + bias [V] against targets [M]."""
    if torch.is_grad_enabled():
        return _LinearCrossEntropy.apply(x, weight, bias, targets, chunk)
    parts = [
        F.cross_entropy(F.linear(x[i : i + chunk], weight, bias).float(), targets[i : i + chunk], reduction="sum")
        for i in range(0, len(x), chunk)
    ]
    return torch.stack(parts).sum() if parts else x.new_zeros((), dtype=torch.float32)


class MLMHead(nn.Module):
    """Transform, norm, decoder tied to the word embeddings, and a bias a piece (1810.04805's code; 2412.13663)."""

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

    def at(self, ids: Tensor, layout: Layout, positions: Tensor) -> Tensor:
        """The decoder's input [M, H] at `positions` [M] (sorted) of the flat batch ids [T]."""
        if self.last_block_on_masked:
            return self.head(self.encoder(ids, layout, kept=positions))
        return self.head(self.encoder(ids, layout)[positions])

    def forward(self, ids: Tensor, layout: Layout, positions: Tensor, targets: Tensor) -> Tensor:
        """Summed cross-entropy (a scalar) of the pieces `targets` [M] at `positions` [M]; divide by the count yourself."""
        hidden = self.at(ids, layout, positions)
        if self.chunked_loss:
            return linear_cross_entropy(hidden, self.encoder.words.weight, self.head.bias, targets)
        return F.cross_entropy(self.decode(hidden).float(), targets, reduction="sum")

    def decode(self, hidden: Tensor) -> Tensor:
        """Logits [M, V] of decoder inputs [M, H]."""
        return F.linear(hidden, self.encoder.words.weight, self.head.bias)

    def weights(self) -> dict[str, Tensor]:
        """What a checkpoint of the finished model holds, by name."""
        return self.state_dict()

    def logits(self, ids: Tensor, layout: Layout, positions: Tensor) -> Tensor:
        """Logits [M, V] at `positions`."""
        return self.decode(self.at(ids, layout, positions))
