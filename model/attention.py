"""The attention function: documents of a flat batch, each attending only to itself.

    attend(q, k, v, layout, window)    q, k, v: [T, heads, head size] -> [T, heads, head size]

Three routes give the same result (tests/model/test_attention.py):
  varlen  torch's variable-length kernel, CUDA from compute capability 8.0 in bf16 or fp16: reads the flat batch directly
  padded  documents of similar length together in rectangles, padding masked, through scaled_dot_product_attention
  packed  several documents in a row with a block mask between them, through scaled_dot_product_attention
Outside CUDA "padded" is used: forward and backward over 3,600 tokens of documents of 20-512, 8 heads x 64, one CPU thread,
are 1.04 times as fast as "packed" in fp32 and 1.14 times in bf16 (medians of 8), and need no mask over all pairs.
"""

import contextlib
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F

from data.layout import Layout, Rows, move

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # torch without the kernel: the other routes are used
    varlen_attn = None

WRITTEN_OUT = 512  # tokens: rows up to this length compute their scores explicitly, in bf16 on CPU only
_forced: str | None = None


@contextlib.contextmanager
def force_route(route: str) -> Iterator[None]:
    """Use `route` on any device, for tests and benchmarks."""
    global _forced  # noqa: PLW0603  (one switch for the process, for tests)
    before, _forced = _forced, route
    try:
        yield
    finally:
        _forced = before


def choose_route(q: torch.Tensor) -> str:
    """The route for tensors like `q` [T, heads, head size]: varlen if its kernel exists and accepts them, otherwise padded."""
    if _forced:
        return _forced
    has_kernel = q.is_cuda and varlen_attn is not None and q.dtype in (torch.bfloat16, torch.float16)
    has_kernel &= q.shape[-1] % 8 == 0 and q.shape[-1] <= 256  # head sizes that the kernel accepts
    return "varlen" if has_kernel and torch.cuda.get_device_capability(q.device)[0] >= 8 else "padded"


class _Take(torch.autograd.Function):
    """x[index] where each element of x is used in one cell only, so that the gradient is a gather too, not a scatter.

    `index` [N] may repeat elements in cells whose gradient is zero (padding); `back` [len(x)] is the cell of each element. A
    gather is several times faster than index_add on CPU, and bitwise repeatable on any device.
    """

    @staticmethod
    def forward(ctx, x: torch.Tensor, index: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(back)
        return x.index_select(0, index)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grad.index_select(0, ctx.saved_tensors[0]), None, None


class _PutBack(torch.autograd.Function):
    """The inverse of `_Take`: tokens from cells. Cells that no token reads get a zero gradient."""

    @staticmethod
    def forward(ctx, cells: torch.Tensor, back: torch.Tensor, index: torch.Tensor, filled: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index, filled)
        return cells.index_select(0, back)

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        index, filled = ctx.saved_tensors
        return grad.index_select(0, index).mul_(filled.view(-1, *[1] * (grad.dim() - 1))), None, None, None


def _mask(layout: Layout, query: Rows, key: Rows, window: int, name: tuple) -> torch.Tensor | None:
    """[R, 1, Cq or 1, Ck] true where a query may attend; None if every cell may.

    Computed once for each batch and shared by all layers.
    """
    name = (*name, window)
    if name not in layout.masks:
        if key.owners is not None and window < 0 and not layout.causal:  # one document a row
            allowed = None if key.full else (key.document >= 0)[:, None]
        else:
            allowed = query.document[:, :, None] == key.document[:, None, :]
            if window >= 0:
                allowed &= (query.position[:, :, None] - key.position[:, None, :]).abs() <= window
            if layout.causal:
                allowed &= key.position[:, None, :] <= query.position[:, :, None]
            allowed |= query.document[:, :, None] < 0  # a padding query must attend to something, or its softmax divides 0 by 0
        layout.masks[name] = None if allowed is None else allowed[:, None]
    return layout.masks[name]


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Attention of rows: q [R, heads, Cq, d], k and v [R, heads, C, d]; mask: true where a query may attend.

    In bf16 on CPU torch's fused kernel is slow for short rows: forward and backward over 4,096 tokens of real documents take
    84 ms of CPU at length 128 (4 heads x 64) and 252 ms at 512 (8 heads); computed explicitly, 36 and 145 ms.
    """
    if q.device.type != "cpu" or q.dtype != torch.bfloat16 or k.shape[2] > WRITTEN_OUT:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:  # a boolean one, or a bias for an encoder that has such positions
        scores = scores + mask if mask.is_floating_point() else scores.masked_fill_(~mask, -torch.inf)
    return scores.softmax(-1) @ v


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, window: int = -1, queries: Layout | None = None
) -> torch.Tensor:
    """Attention inside each document of a flat batch: bidirectional, or with `layout.causal` to earlier tokens and itself.

    q [Tq, heads, d], k and v [T, heads, d]; `layout` gives the documents of the keys. With `window` w >= 0 a token attends to
    w tokens on either side (Longformer's local attention, arXiv 2004.05150); -1: to all of its document. `queries` is the
    layout of q if only some tokens have queries (`layout.subset`); it requires window = -1. Returns [Tq, heads, d].
    """
    queries = queries or layout
    route = choose_route(q)
    if layout.causal and queries is not layout:
        route = "padded"  # the varlen kernel counts positions from the end of each document, as if no query were left out
    if queries is not layout and window >= 0:
        raise ValueError("queries on some tokens only cannot be combined with a window")
    if route == "varlen":
        sides = (window, 0 if layout.causal else window)
        return varlen_attn(q, k, v, queries.starts, layout.starts, queries.longest, layout.longest, window_size=sides)
    if queries is not layout:
        return _attend_some(q, k, v, layout, queries)
    return _attend_rows(q, k, v, layout, window, route)


@torch.compiler.disable  # row shapes change with every batch; only the layers around it are compiled
def _attend_rows(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, window: int, route: str) -> torch.Tensor:
    """The padded and packed routes: gather tokens into rectangles, compute attention, scatter back."""
    rectangles, back = layout.rows(route)
    index = torch.cat([rows.index.flatten() for rows in rectangles]) if len(rectangles) > 1 else rectangles[0].index.flatten()
    qkv = _Take.apply(torch.stack((q, k, v), dim=1), index, back)  # [cells, 3, heads, d]
    outputs, first = [], 0
    for number, rows in enumerate(rectangles):
        n_rows, n_columns = rows.index.shape
        part = qkv[first : first + n_rows * n_columns].view(n_rows, n_columns, *qkv.shape[1:])
        first += n_rows * n_columns
        mask = _mask(layout, rows, rows, window, (route, number))
        out = _attention(*part.permute(2, 0, 3, 1, 4), mask)
        outputs.append(out.transpose(1, 2).reshape(n_rows * n_columns, *q.shape[1:]))
    cells = torch.cat(outputs) if len(outputs) > 1 else outputs[0]
    filled = torch.cat([rows.document.flatten() for rows in rectangles]) >= 0
    return _PutBack.apply(cells, back, index, filled)


@torch.compiler.disable
def _attend_some(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, layout: Layout, queries: Layout) -> torch.Tensor:
    """The padded route with fewer queries than keys: one document in each row on both sides."""
    rectangles, back = layout.rows("padded")
    kv = _Take.apply(torch.stack((k, v), dim=1), torch.cat([rows.index.flatten() for rows in rectangles]), back)
    starts = np.concatenate([[0], np.cumsum(queries.lengths)])
    outputs, places, first = [], [], 0
    for number, rows in enumerate(rectangles):
        k_rows, v_rows = kv[first : first + rows.index.numel()].view(*rows.index.shape, *kv.shape[1:]).unbind(2)
        first += rows.index.numel()
        counts = queries.lengths[rows.owners]
        if not counts.any():
            continue
        column = np.arange(counts.max())
        real = column < counts[:, None]  # [R, most queries of a row]
        index = np.where(real, starts[rows.owners][:, None] + column, 0)
        cells, query = (move(torch.from_numpy(part), q.device) for part in (np.flatnonzero(real), index))
        asking = Rows(query, rows.document[:, :1].expand_as(query), queries.position[query])
        mask = _mask(layout, asking, rows, -1, ("some", number))
        out = _attention(*(x.transpose(1, 2) for x in (q[query], k_rows, v_rows)), mask)
        outputs.append(out.transpose(1, 2).flatten(0, 1)[cells])
        places.append(index[real])
    order = np.argsort(np.concatenate(places))
    return torch.cat(outputs)[move(torch.from_numpy(order), q.device)]
