"""The variable-length route's call of torch's kernel, without a GPU: the definition is registered as the CPU kernel.

tests/gpu checks the real kernel against the definition; here the arguments (starts, longest, window, fewer queries) and
the number of graph breaks and recompilations of torch.compile are checked.
"""

import numpy as np
import pytest
import torch

from data.layout import Layout
from model.attention import force_route
from model.encoder import EncoderConfig
from model.mlm import MaskedLM

varlen = pytest.importorskip("torch.nn.attention.varlen", reason="this torch has no variable-length attention")


@pytest.fixture(scope="module", autouse=True)
def kernel() -> None:
    """The definition as the operator's CPU kernel, with the arguments of the real one."""

    @varlen._varlen_attn.register_kernel("cpu")
    def _(query, key, value, starts_q, starts_k, longest_q, longest_k, is_causal=False, scale=None, window_size=None, *_, **__):
        assert starts_q.dtype == starts_k.dtype == torch.int32 and starts_q[-1] == len(query) and starts_k[-1] == len(key)
        assert longest_q == starts_q.diff().max() and longest_k == starts_k.diff().max() and not is_causal
        out = torch.zeros_like(query)
        for (a, b), (c, d) in zip(_pairs(starts_q), _pairs(starts_k), strict=True):
            scores = torch.einsum("qhd,khd->hqk", query[a:b], key[c:d]) / query.shape[-1] ** 0.5
            if window_size[0] >= 0:
                place = torch.arange(d - c)
                scores = scores.masked_fill((place[:, None] - place).abs() > window_size[0], -torch.inf)
            out[a:b] = torch.einsum("hqk,khd->qhd", scores.softmax(-1), value[c:d])
        return out, torch.zeros(query.shape[1], len(query)), torch.zeros(2, dtype=torch.uint64)


def _pairs(starts: torch.Tensor) -> list[tuple[int, int]]:
    return list(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))


def model_of(architecture: str) -> MaskedLM:
    torch.manual_seed(0)
    config = EncoderConfig(
        architecture, vocab_size=500, hidden_size=32, layers=4, heads=2, intermediate_size=48, window=8, dropout=0.0
    )
    return MaskedLM(config, last_block_on_masked=True).eval()


def batch_of(seed: int, total: int = 1024, masked: int = 128) -> tuple[torch.Tensor, Layout, torch.Tensor, torch.Tensor]:
    """A batch as the loader makes it: constant sizes, varying documents."""
    generator, lengths = np.random.default_rng(seed), []
    while sum(lengths) < total:
        lengths.append(min(int(generator.integers(1, 200)), total - sum(lengths)))
    torch.manual_seed(seed)
    ids, positions = torch.randint(5, 500, (total,)), torch.randperm(total)[:masked].sort().values
    layout = Layout.of(lengths)
    layout.select(positions)
    return ids, layout, positions, ids[positions]


@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_the_route_gets_the_right_arguments(architecture):
    model = model_of(architecture)
    for seed in range(3):
        batch = batch_of(seed)
        with torch.no_grad():
            padded = model(*batch)
            with force_route("varlen"):
                torch.testing.assert_close(model(*batch), padded, atol=1e-2, rtol=1e-5)  # a sum over 128 positions


@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_compiled_once_and_in_one_piece(architecture):
    """Batches of one size with any documents: one graph, compiled at the first batch only (the loss has its own kernel)."""
    graphs = []

    def count(graph: torch.fx.GraphModule, _: list) -> object:
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model = torch.compile(model_of(architecture), dynamic=True, backend=count)
    with torch.no_grad(), force_route("varlen"):
        for seed in range(5):
            model(*batch_of(seed))
            assert len(graphs) == 1, f"batch {seed}: {len(graphs)} graphs"
