"""What torch.compile makes of the model, in a process of its own: its graphs, and gradients through DDP.

python -m tests.fake_cuda.compiled graphs bert      with the fake device: graphs of 8 batches, forward and backward
python -m tests.fake_cuda.compiled ddp modern       on the CPU, with the definition in the place of the varlen kernels
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch._dynamo.backends.debugging import aot_eager
from torch._dynamo.utils import counters
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import varlen

from benchmarks.fake_cuda import DEVICE, on_device, pretend
from data.layout import Layout
from model.attention import force_route
from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from training.distributed import Ranks, without_sync

BATCHES, TOKENS, MASKED, LONGEST = 8, 1024, 128, 200


def batch(seed: int, longest: int = LONGEST, total: int = TOKENS, masked: int = MASKED) -> tuple[Any, ...]:
    """ids, layout, positions, targets on the host: one number of tokens, ever other documents, as the loader makes them."""
    random, lengths = np.random.default_rng(seed), []
    while sum(lengths) < total:
        lengths.append(min(int(random.integers(1, longest)), total - sum(lengths)))
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 500, (total,), generator=generator)
    layout = Layout.of(lengths)
    positions = torch.randperm(total, generator=generator)[:masked].sort().values
    layout.select(positions)
    return ids, layout, positions, ids[positions]


def counting(graphs: list[int]) -> Any:
    """A backend that traces forward and backward, runs them eagerly, and notes the size of every graph that it gets."""

    def compiler(graph: torch.fx.GraphModule, inputs: list) -> Any:
        graphs.append(len(graph.graph.nodes))
        return aot_eager(graph, inputs)

    return compiler


def graphs_of(architecture: str) -> dict[str, Any]:
    """Graphs after each batch, and the reasons of the breaks."""
    pretend()
    config = EncoderConfig(architecture, vocab_size=500, hidden_size=128, layers=4, heads=2, intermediate_size=192, window=8)
    graphs: list[int] = []
    after = []
    batches = [batch(seed) for seed in range(BATCHES)]  # on the host, before there is a mode of fake tensors
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:

        def moved(x: torch.Tensor) -> torch.Tensor:
            return mode.from_tensor(x).to(DEVICE)

        def placed(layout: Layout) -> Layout:
            selected = layout.selected and (moved(layout.selected[0]), placed(layout.selected[1]))
            return Layout(layout.lengths, moved(layout.starts), moved(layout.position), selected=selected)

        with torch.device("meta"):
            raw = MaskedLM(config, last_block_on_masked=True)
        model = torch.compile(on_device(raw), dynamic=True, backend=counting(graphs))
        for ids, layout, _, targets in batches:
            there = placed(layout)
            with torch.autocast("cuda", torch.bfloat16):
                loss = model(moved(ids), there, there.selected[0], moved(targets))
            loss.backward()
            raw.zero_grad(set_to_none=True)
            after.append(len(graphs))
    breaks = [str(reason) for reason in counters["graph_break"]]
    return {"after": after, "nodes": graphs, "breaks": breaks}


def with_definition() -> None:
    """The definition of attention as the varlen operator's CPU kernels, forward and backward, with the real ones' arguments."""

    def spans(starts: torch.Tensor) -> list[tuple[int, int]]:
        return list(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True))

    def shares(q: torch.Tensor, k: torch.Tensor, window: Any) -> torch.Tensor:
        scores = torch.einsum("qhd,khd->hqk", q, k) / q.shape[-1] ** 0.5
        if window is not None and window[0] >= 0:
            place = torch.arange(len(k))
            scores = scores.masked_fill((place[: len(q), None] - place).abs() > window[0], -torch.inf)
        return scores.softmax(-1)

    @varlen._varlen_attn.register_kernel("cpu")
    def forward(q, k, v, starts_q, starts_k, longest_q, longest_k, causal=False, scale=None, window=None, *_, **__):
        assert longest_q == starts_q.diff().max() and longest_k == starts_k.diff().max() and not causal
        out = torch.zeros_like(q)
        for (a, b), (c, d) in zip(spans(starts_q), spans(starts_k), strict=True):
            out[a:b] = torch.einsum("hqk,khd->qhd", shares(q[a:b], k[c:d], window), v[c:d])
        return out.contiguous(), torch.zeros(q.shape[1], len(q)), torch.zeros(2, dtype=torch.uint64)

    @varlen._varlen_attn_backward.register_kernel("cpu")
    def backward(grad, q, k, v, out, lse, starts_q, starts_k, longest_q, longest_k, causal, state, scale=None, window=None):
        grads = [torch.zeros(x.shape) for x in (q, k, v)]
        for (a, b), (c, d) in zip(spans(starts_q), spans(starts_k), strict=True):
            p = shares(q[a:b], k[c:d], window)
            grads[2][c:d] = torch.einsum("hqk,qhd->khd", p, grad[a:b])
            of_p = torch.einsum("qhd,khd->hqk", grad[a:b], v[c:d])
            of_scores = p * (of_p - (of_p * p).sum(-1, keepdim=True)) / q.shape[-1] ** 0.5
            grads[0][a:b] = torch.einsum("hqk,khd->qhd", of_scores, k[c:d])
            grads[1][c:d] = torch.einsum("hqk,qhd->khd", of_scores, q[a:b])
        return tuple(grads)


def through_ddp(architecture: str, folder: Path) -> dict[str, Any]:
    """Loss and gradients of the compiled model in DDP beside the bare model's, for steps with and without an exchange."""
    with_definition()
    dist.init_process_group("gloo", init_method=f"file://{folder / 'store'}", rank=0, world_size=1)
    # Some 30 MB of weights, so that DDP makes several buckets and splits the graph between them.
    config = EncoderConfig(
        architecture,
        vocab_size=500,
        hidden_size=512,
        layers=3,
        heads=8,
        intermediate_size=2048,
        window=8,
        dropout=0.0,
        global_every=2,
    )
    torch.manual_seed(0)
    raw = MaskedLM(config, last_block_on_masked=True)
    graphs: list[int] = []
    model = Ranks(0, 2, torch.device("cpu")).wrap(torch.compile(raw, dynamic=True, backend=counting(graphs)))
    found = []
    with force_route("varlen"):
        for number in range(4):
            sides = []
            for one in (model, raw):
                raw.zero_grad(set_to_none=True)
                with without_sync(one, number % 2 == 1):
                    loss = one(*batch(number, longest=40, total=128, masked=16))
                    loss.backward()
                sides.append(
                    (float(loss.detach()), {n: p.grad.clone() for n, p in raw.named_parameters() if p.grad is not None})
                )
            (ours, gradients), (plain, expected) = sides
            assert gradients.keys() == expected.keys()
            apart = max(
                float((gradients[n] - expected[n]).abs().max() / expected[n].abs().max().clamp(min=1e-6)) for n in expected
            )
            found.append({"loss": ours, "expected": plain, "apart": apart, "graphs": len(graphs)})
    dist.destroy_process_group()
    return {"steps": found}


def main() -> None:
    """One of the two, for one architecture."""
    what, architecture = sys.argv[1:]
    # Rates and epsilons are constants here. Otherwise torch traces them as inputs, finds that it cannot, and begins anew.
    torch._dynamo.config.specialize_float = True
    if what == "graphs":
        print(json.dumps(graphs_of(architecture)))
        return
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(through_ddp(architecture, Path(folder))))


if __name__ == "__main__":
    main()
