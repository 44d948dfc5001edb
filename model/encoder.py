"""The encoder, in two separate architectures.

`bert`    the paper's (Devlin et al. 2019, arXiv 1810.04805): learned positions, norm after each sum, GELU, biases.
          Equal to transformers' BertModel and XLMRobertaModel on the same weights.
`modern`  Warner et al. 2024 (arXiv 2412.13663): rotary positions, norm before each branch, GeGLU, no biases, local and
          global layers in turn. Equal to transformers' ModernBertModel on the same weights.

Both read a flat batch: ids [T] of all documents one after another, and a `Layout` with the beginning of each. There is no
padding and no attention mask outside `model/attention.py`.
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from data.layout import Layout
from model.attention import attend

# Activations of the feed-forward layers, by model.activation. A new one is one line here; only gelu can be exported.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": partial(F.gelu, approximate="tanh"),
    "relu": F.relu,
    "silu": F.silu,
}


@dataclass
class EncoderConfig:
    """Shape of an encoder, stored in config.json of a checkpoint under "encoder"."""

    architecture: str = "bert"  # bert or modern
    vocab_size: int = 64000  # tokens in the vocabulary
    hidden_size: int = 768  # H
    layers: int = 12
    heads: int = 12
    intermediate_size: int = 3072  # width inside the feed-forward; in modern, of each half of the GeGLU
    max_length: int = 512  # tokens of the longest document, special ones included
    type_vocab_size: int = 2  # bert: token types (first and second text of a pair); XLM-R has 1
    position_offset: int = 0  # bert: first position's row in the table; XLM-R has 2
    dropout: float = 0.1  # on embeddings and branch outputs; the fused attention kernels have none on probabilities
    norm_eps: float = 1e-12
    initializer_range: float = 0.02  # standard deviation of new weights
    global_every: int = 3  # modern: layers 0, n, 2n, ... attend to the whole document, the others locally
    window: int = 64  # modern: tokens on either side that a local layer attends to
    global_theta: float = 160_000.0  # modern: rotary base of global layers
    local_theta: float = 10_000.0  # modern: rotary base of local layers
    activation: str = "gelu"  # of the feed-forward layers, one of ACTIVATIONS; the papers': gelu
    qk_norm: bool = False  # RMSNorm on queries and keys of each head (arXiv 2302.05442 has LayerNorm); the papers': none

    def __post_init__(self) -> None:
        if self.architecture not in BLOCKS:
            raise UserError(f"model.architecture={self.architecture}: choose one of {', '.join(BLOCKS)}.")
        if self.hidden_size % self.heads:
            raise UserError(f"model.hidden_size={self.hidden_size} is not a multiple of model.heads={self.heads}.")
        if self.architecture == "modern" and (units := self.hidden_size // self.heads) % 2:
            raise UserError(
                f"model.heads={self.heads}: rotary positions rotate pairs of units, and a head has {units}. Choose a number of "
                "heads that makes this even."
            )
        if self.activation not in ACTIVATIONS:
            raise UserError(f"model.activation={self.activation}: choose one of {', '.join(ACTIVATIONS)}.")
        if not isinstance(self.qk_norm, bool):
            raise UserError(f"model.qk_norm={self.qk_norm!r}: expected true or false.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "EncoderConfig":
        """Config of these values ("types" is the former name of type_vocab_size); UserError for an unknown name."""
        values = {"type_vocab_size" if name == "types" else name: value for name, value in values.items()}
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise UserError(f"encoder config: unknown settings {', '.join(sorted(unknown))}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All settings as a plain dictionary."""
        return asdict(self)

    def is_local(self, layer: int) -> bool:
        """Whether `layer` attends within `window` only."""
        return self.architecture == "modern" and layer % self.global_every != 0


# bf16 on CPU compiles a kernel for every new number of rows and caches it: 60 batches of 60 different sizes took 15 % longer
# and 800 MB more than 60 of one size. There, batches are padded to a multiple of this with dummy tokens.
ROUND = 128


class Dropout(nn.Dropout):
    """nn.Dropout; on CPU four units share one 64-bit draw, which takes a quarter of the time of separate draws.

    The rate is exact to 1 in 65,536. At 0.1 the draws took 5 % of a step of Small.
    """

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape; in training some elements are zeroed and the others scaled up."""
        if not self.training or self.p in (0, 1) or x.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(x)
        draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(1 << 63), None)
        stays = draws.view(torch.int16)[: x.numel()].view(x.shape) >= round(self.p * 65536) - 32768
        return (x * stays).mul_(1 / (1 - self.p))


class BertBlock(nn.Module):
    """Self-attention and feed-forward, a norm after each sum (arXiv 1706.03762 §3.1, 1810.04805 §3)."""

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.heads
        self.qkv = nn.Linear(size, 3 * size)
        self.attention_out = nn.Linear(size, size)
        self.attention_norm = nn.LayerNorm(size, eps=config.norm_eps)
        self.mlp_in = nn.Linear(size, config.intermediate_size)
        self.mlp_out = nn.Linear(config.intermediate_size, size)
        self.mlp_norm = nn.LayerNorm(size, eps=config.norm_eps)
        self.dropout = Dropout(config.dropout)
        self.activation = ACTIVATIONS[config.activation]
        self.q_norm, self.k_norm = query_key_norms(config)

    def forward(self, x: Tensor, layout: Layout, rotary: None, positions: Tensor | None, queries: Layout | None) -> Tensor:
        """x [T, H] to [T, H], or to the rows `positions` [M, H] only."""
        if positions is None:
            q, k, v = self.qkv(x).view(len(x), 3, self.heads, -1).unbind(1)
        else:
            size = x.shape[1]
            k, v = part(self.qkv, x, size, 3 * size).view(len(x), 2, self.heads, -1).unbind(1)
            x = x[positions]
            q = part(self.qkv, x, 0, size).view(len(x), self.heads, -1)
        q, k = self.q_norm(q), self.k_norm(k)
        attended = attend(q, k, v, layout, queries=queries).reshape(len(x), -1)
        x = self.attention_norm(x + self.dropout(self.attention_out(attended)))
        return self.mlp_norm(x + self.dropout(self.mlp_out(self.activation(self.mlp_in(x)))))


class ModernBlock(nn.Module):
    """Rotary self-attention and GeGLU, a norm before each branch, no biases (arXiv 2412.13663 §2.1)."""

    def __init__(self, config: EncoderConfig, layer: int) -> None:
        super().__init__()
        size = config.hidden_size
        self.heads = config.heads
        self.window = config.window if config.is_local(layer) else -1
        # The embeddings were normalised already, so the first block has no norm.
        self.attention_norm = nn.LayerNorm(size, eps=config.norm_eps, bias=False) if layer else nn.Identity()
        self.qkv = nn.Linear(size, 3 * size, bias=False)
        self.attention_out = nn.Linear(size, size, bias=False)
        self.mlp_norm = nn.LayerNorm(size, eps=config.norm_eps, bias=False)
        self.mlp_in = nn.Linear(size, 2 * config.intermediate_size, bias=False)
        self.mlp_out = nn.Linear(config.intermediate_size, size, bias=False)
        self.dropout = Dropout(config.dropout)
        self.activation = ACTIVATIONS[config.activation]
        self.q_norm, self.k_norm = query_key_norms(config)

    def forward(
        self, x: Tensor, layout: Layout, rotary: tuple[Tensor, Tensor], positions: Tensor | None, queries: Layout | None
    ) -> Tensor:
        """x [T, H] to [T, H], or to the rows `positions` [M, H] only."""
        normed = self.attention_norm(x)
        cos, sin = rotary
        if positions is None:
            q, k, v = self.qkv(normed).view(len(x), 3, self.heads, -1).unbind(1)
            q = rotate(self.q_norm(q), cos, sin)
        else:
            size = x.shape[1]
            k, v = part(self.qkv, normed, size, 3 * size).view(len(x), 2, self.heads, -1).unbind(1)
            x = x[positions]
            q = part(self.qkv, normed[positions], 0, size).view(len(x), self.heads, -1)
            q = rotate(self.q_norm(q), cos[positions], sin[positions])
        attended = attend(q, rotate(self.k_norm(k), cos, sin), v, layout, self.window, queries).reshape(len(x), -1)
        x = x + self.dropout(self.attention_out(attended))
        up, gate = self.mlp_in(self.mlp_norm(x)).chunk(2, dim=-1)
        return x + self.dropout(self.mlp_out(self.activation(up) * gate))


BLOCKS = {"bert": BertBlock, "modern": ModernBlock}


class HeadNorm(nn.RMSNorm):
    """RMSNorm (arXiv 1910.07467) over the last dimension, computed in fp32; the result has the input's precision."""

    def forward(self, x: Tensor) -> Tensor:
        """x of any shape to the same shape."""
        return super().forward(x.float()).to(x.dtype)


def query_key_norms(config: EncoderConfig) -> tuple[nn.Module, nn.Module]:
    """The norms of queries and keys [T, heads, d] over d, before the rotation; identities without model.qk_norm."""
    size = config.hidden_size // config.heads
    return tuple(HeadNorm(size, eps=1e-6) if config.qk_norm else nn.Identity() for _ in range(2))


def part(linear: nn.Linear, x: Tensor, first: int, last: int) -> Tensor:
    """Outputs `first` to `last` of a linear layer; a layer with adapters (model/adapters.py) includes theirs."""
    if hasattr(linear, "part"):
        return linear.part(x, first, last)
    return F.linear(x, linear.weight[first:last], None if linear.bias is None else linear.bias[first:last])


def rotary_table(position: Tensor, theta: float, size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine [T, 1, size / 2] of each token's angles (RoFormer, arXiv 2104.09864), always in fp32."""
    frequency = theta ** -(torch.arange(0, size, 2, device=position.device, dtype=torch.float32) / size)
    angle = position.float()[:, None, None] * frequency
    return angle.cos(), angle.sin()


class _Rotate(torch.autograd.Function):
    """A rotation in fp32 whose gradient is the inverse rotation: half the memory passes of torch's own operations."""

    @staticmethod
    def forward(ctx, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _turned(x, cos, sin, -1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:
        return _turned(grad, *ctx.saved_tensors, 1), None, None


def _turned(x: Tensor, cos: Tensor, sin: Tensor, sign: int) -> Tensor:
    first, second = x.float().chunk(2, dim=-1)
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    half = first.shape[-1]
    out[..., :half] = (first * cos).addcmul_(second, sin, value=sign)
    out[..., half:] = (second * cos).addcmul_(first, sin, value=-sign)
    return out


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the two halves of each head of x [T, heads, d] by the token's angles."""
    if x.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return _Rotate.apply(x, cos, sin)
    first, second = x.float().chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1).to(x.dtype)


class Encoder(nn.Module):
    """Embeddings, blocks and, if `pooler` is set, BERT's pooler.

    >>> hidden = encoder(ids, Layout.of([5, 3]))  # ids [8] -> hidden [8, H]
    """

    def __init__(self, config: EncoderConfig, pooler: bool = False) -> None:
        super().__init__()
        self.config = config
        size, modern = config.hidden_size, config.architecture == "modern"
        self.token_embeddings = nn.Embedding(config.vocab_size, size)
        if not modern:
            self.position_embeddings = nn.Embedding(config.max_length + config.position_offset, size)
            self.token_type_embeddings = nn.Embedding(config.type_vocab_size, size)
        self.embedding_norm = nn.LayerNorm(size, eps=config.norm_eps, bias=not modern)
        self.blocks = nn.ModuleList(BLOCKS[config.architecture](config, layer) for layer in range(config.layers))
        self.final_norm = nn.LayerNorm(size, eps=config.norm_eps, bias=False) if modern else nn.Identity()
        self.pooler = nn.Linear(size, size) if pooler else None
        self.dropout = Dropout(config.dropout)
        self.apply(lambda module: initialise(module, config))
        scale_outputs(self, config)

    def forward(
        self,
        ids: Tensor,
        layout: Layout,
        token_types: Tensor | None = None,
        positions: Tensor | None = None,
        hidden_states: list | None = None,
    ) -> Tensor:
        """Hidden states of the last layer.

        ids [T] int64; token_types [T], zeros if None. With sorted `positions` [M] the last block computes queries and
        feed-forward for these alone, and the result is [M, H] instead of [T, H]. `hidden_states`, an empty list, is filled
        with the embeddings and every block's output.
        """
        config = self.config
        if layout.longest > config.max_length:
            raise UserError(f"a text of {layout.longest} tokens, but the encoder's max_length is {config.max_length}: cut it.")
        total = len(ids)
        if ids.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            layout = layout.rounded(ROUND, config.max_length)
            ids = F.pad(ids, (0, layout.total - total))
            token_types = None if token_types is None else F.pad(token_types, (0, layout.total - total))
        tables = self.rotary_tables(layout)
        x = self.dropout(self.embedding_norm(self.embed(ids, token_types, layout)))
        queries = layout.queries(positions) if positions is not None else None
        for number, block in enumerate(self.blocks):
            if hidden_states is not None:
                hidden_states.append(x[:total])
            last = number == config.layers - 1
            local = config.is_local(number)
            if last and positions is not None and not local:
                x = block(x, layout, tables[local], positions, queries)
            else:
                x = block(x, layout, tables[local], None, None)
                if last and positions is not None:  # a local last layer needs neighbouring tokens: compute all, return some
                    x = x[positions]
        x = self.final_norm(x if positions is not None else x[:total])
        if hidden_states is not None:
            hidden_states.append(x)
        return x

    def embed(self, ids: Tensor, token_types: Tensor | None, layout: Layout) -> Tensor:
        """Sum of the embeddings [T, H] of each token; bert adds those of its position and its token type."""
        x = self.token_embeddings(ids)
        if self.config.architecture == "bert":
            x = x + self.position_embeddings(layout.position + self.config.position_offset)
            if token_types is None:
                x = x + self.token_type_embeddings.weight[0]
            else:  # clamped, because XLM-R has one type
                x = x + self.token_type_embeddings(token_types.clamp(max=self.config.type_vocab_size - 1))
        return x

    def rotary_tables(self, layout: Layout) -> dict[bool, tuple[Tensor, Tensor] | None]:
        """Cosine and sine [T, 1, d / 2] for queries and keys of global (False) and local (True) layers; bert: None."""
        config = self.config
        if config.architecture == "bert":
            return {False: None, True: None}
        size = config.hidden_size // config.heads
        thetas = {False: config.global_theta, True: config.local_theta}
        return {local: rotary_table(layout.position, theta, size) for local, theta in thetas.items()}

    def pool(self, first: Tensor) -> Tensor:
        """BERT's pooled vector of the first token's state: [n, H] to [n, H]."""
        return torch.tanh(self.pooler(first))


def initialise(module: nn.Module, config: EncoderConfig) -> None:
    """New weights as published: normal for bert (1810.04805, its code), truncated at 2 sigma for modern (2412.13663)."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        std = config.initializer_range
        if config.architecture == "modern":
            nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
        else:
            nn.init.normal_(module.weight, std=std)
        if getattr(module, "bias", None) is not None:
            nn.init.zeros_(module.bias)


def scale_outputs(encoder: Encoder, config: EncoderConfig) -> None:
    """modern: initial outputs to the residual are smaller by sqrt(2 x layers), so that the sum keeps its size."""
    if config.architecture == "modern":
        with torch.no_grad():
            for block in encoder.blocks:
                block.attention_out.weight.div_(math.sqrt(2 * config.layers))
                block.mlp_out.weight.div_(math.sqrt(2 * config.layers))


def count_parameters(module: nn.Module, trainable: bool = False) -> int:
    """Number of parameters; shared ones count once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not trainable)
