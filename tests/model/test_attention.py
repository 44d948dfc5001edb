"""Every attention route computes the same on any layout of documents, and no document sees another."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data.layout import Layout
from model.attention import attend, force_route
from model.encoder import Encoder, EncoderConfig
from model.mlm import linear_cross_entropy

ROUTES = ["padded", "packed"]
layouts = st.lists(st.integers(1, 70), min_size=1, max_size=9)


def one_by_one(q, k, v, lengths, window):
    """The definition: each document alone, with an explicit softmax."""
    outputs, start = [], 0
    for length in lengths:
        a, b, c = (x[start : start + length].transpose(0, 1) for x in (q, k, v))
        scores = a @ b.transpose(1, 2) / a.shape[-1] ** 0.5
        if window >= 0:
            place = torch.arange(length, device=q.device)
            scores = scores.masked_fill((place[:, None] - place).abs() > window, -torch.inf)
        outputs.append((scores.softmax(-1) @ c).transpose(0, 1))
        start += length
    return torch.cat(outputs)


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=40, deadline=None)
@given(lengths=layouts, window=st.sampled_from([-1, 0, 3, 64]), seed=st.integers(0, 99))
def test_routes_equal_definition(route, lengths, window, seed):
    generator = torch.Generator().manual_seed(seed)
    inputs = [torch.randn(sum(lengths), 2, 8, generator=generator, requires_grad=True) for _ in range(3)]
    above = torch.randn(sum(lengths), 2, 8, generator=generator)
    with force_route(route):
        out = attend(*inputs, Layout.of(lengths), window)
    expected = one_by_one(*inputs, lengths, window)
    torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    for ours, other in zip(torch.autograd.grad(out, inputs, above), torch.autograd.grad(expected, inputs, above), strict=True):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("longest", [70, 600])  # explicit softmax, and the fused kernel beyond 512
def test_bf16_is_close_to_the_definition(route, longest):
    torch.manual_seed(0)
    lengths = [longest, 3, 33, 8, 1, 64]
    inputs = [torch.randn(sum(lengths), 2, 8, dtype=torch.bfloat16, requires_grad=True) for _ in range(3)]
    exact = [x.detach().float().requires_grad_() for x in inputs]
    above = torch.randn(inputs[0].shape)
    with force_route(route):
        out = attend(*inputs, Layout.of(lengths), -1)
        local = attend(*inputs, Layout.of(lengths), 3)
    expected = one_by_one(*exact, lengths, -1)
    torch.testing.assert_close(out.float(), expected, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(local.float(), one_by_one(*exact, lengths, 3), atol=2e-2, rtol=2e-2)
    grads = torch.autograd.grad(out, inputs, above.bfloat16()), torch.autograd.grad(expected, exact, above)
    for ours, other in zip(*grads, strict=True):
        torch.testing.assert_close(ours.float(), other, atol=5e-2, rtol=5e-2)


@settings(max_examples=40, deadline=None)
@given(lengths=layouts, share=st.floats(0.02, 1.0), seed=st.integers(0, 99))
def test_queries_on_some_tokens(lengths, share, seed):
    generator = torch.Generator().manual_seed(seed)
    total = sum(lengths)
    q, k, v = (torch.randn(total, 2, 8, generator=generator, requires_grad=True) for _ in range(3))
    kept = torch.randperm(total, generator=generator)[: max(1, int(share * total))].sort().values
    layout = Layout.of(lengths)
    some = attend(q[kept], k, v, layout, queries=layout.subset(kept))
    full = attend(q, k, v, layout)[kept]
    torch.testing.assert_close(some, full, atol=1e-5, rtol=1e-5)
    above = torch.randn(some.shape, generator=generator)
    for ours, other in zip(
        torch.autograd.grad(some, (q, k, v), above), torch.autograd.grad(full, (q, k, v), above), strict=True
    ):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_other_documents_cannot_be_seen(route, architecture):
    """When all of document A changes, document B's hidden states stay the same to the bit."""
    torch.manual_seed(0)
    config = EncoderConfig(
        architecture=architecture,
        vocab_size=99,
        hidden_size=32,
        layers=4,
        heads=2,
        intermediate_size=48,
        max_length=64,
        window=8,
    )
    encoder = Encoder(config).eval()
    lengths = [30, 64, 7, 30]
    ids = torch.randint(0, 99, (sum(lengths),))
    changed = ids.clone()
    changed[30:94] = (changed[30:94] + 1) % 99
    with torch.no_grad(), force_route(route):
        before, after = encoder(ids, Layout.of(lengths)), encoder(changed, Layout.of(lengths))
    other = torch.cat([torch.arange(30), torch.arange(94, sum(lengths))])
    assert torch.equal(before[other], after[other])
    assert not torch.equal(before[30:94], after[30:94])


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(0, 40) | st.just(300), chunk=st.sampled_from([1, 7, 64, 200]), seed=st.integers(0, 99))
def test_chunked_loss_equals_plain(rows, chunk, seed):
    generator = torch.Generator().manual_seed(seed)
    x, weight, bias = (torch.randn(*shape, generator=generator, requires_grad=True) for shape in [(rows, 6), (50, 6), (50,)])
    targets = torch.randint(0, 50, (rows,), generator=generator)
    plain = torch.nn.functional.cross_entropy(x @ weight.T + bias, targets, reduction="sum")
    chunked = linear_cross_entropy(x, weight, bias, targets, chunk)
    torch.testing.assert_close(chunked, plain, atol=1e-4, rtol=1e-5)
    for ours, other in zip(
        torch.autograd.grad(3 * chunked, (x, weight, bias)),
        torch.autograd.grad(3 * plain, (x, weight, bias)),
        strict=True,
    ):
        torch.testing.assert_close(ours, other, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("route", ROUTES)
@settings(max_examples=30, deadline=None)
@given(lengths=layouts, window=st.sampled_from([-1, 3]), seed=st.integers(0, 99))
def test_causal_attention_equals_its_definition(route, lengths, window, seed):
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(sum(lengths), 2, 8, generator=generator) for _ in range(3))
    layout = Layout.of(lengths, causal=True)
    with force_route(route):
        out = attend(q, k, v, layout, window)
    expected, begin = [], 0
    for length in lengths:
        for last in range(length):  # each token alone, with the tokens that it may see
            first = begin + max(0, last - window if window >= 0 else 0)
            keys, values = k[first : begin + last + 1], v[first : begin + last + 1]
            scores = torch.einsum("hd,khd->hk", q[begin + last], keys) / 8**0.5
            expected.append(torch.einsum("hk,khd->hd", scores.softmax(-1), values))
        begin += length
    torch.testing.assert_close(out, torch.stack(expected), atol=1e-5, rtol=1e-5)
    if window < 0:
        kept = torch.arange(0, sum(lengths), 2)
        some = attend(q[kept], k, v, layout, queries=layout.subset(kept))
        torch.testing.assert_close(some, out[kept], atol=1e-5, rtol=1e-5)
