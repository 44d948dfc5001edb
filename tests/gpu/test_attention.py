"""The variable-length kernel equals the definition, with a window or fewer queries; documents do not see each other."""

import pytest
import torch

from data.layout import Layout
from model.attention import attend, choose_route
from model.encoder import Encoder, EncoderConfig
from tests.model.test_attention import one_by_one

LENGTHS = [[1], [70, 1, 33], [512, 5, 128, 64, 300], [9] * 40]
CLOSE = {"atol": 2e-2, "rtol": 2e-2}  # bf16 keeps 8 bits


def inputs_of(lengths: list[int], heads: int = 4, size: int = 64) -> list[torch.Tensor]:
    """q, k and v in bf16 on the GPU, views of one tensor as in the encoder."""
    torch.manual_seed(0)
    qkv = torch.randn(sum(lengths), 3, heads, size, device="cuda", dtype=torch.bfloat16)
    return [part.detach().requires_grad_() for part in qkv.unbind(1)]


def test_route():
    q = torch.zeros(1, 1, 64, device="cuda", dtype=torch.bfloat16)
    assert choose_route(q) == ("varlen" if torch.cuda.get_device_capability()[0] >= 8 else "padded")
    assert choose_route(q.float()) == "padded"  # the kernel has no fp32


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("window", [-1, 0, 3, 64])
def test_equals_definition(lengths, window):
    inputs = inputs_of(lengths)
    exact = [x.detach().float().requires_grad_() for x in inputs]
    above = torch.randn(inputs[0].shape, device="cuda")
    out = attend(*inputs, Layout.of(lengths, "cuda"), window)
    expected = one_by_one(*exact, lengths, window)
    torch.testing.assert_close(out.float(), expected, **CLOSE)
    ours = torch.autograd.grad(out, inputs, above.to(out.dtype))
    for one, other in zip(ours, torch.autograd.grad(expected, exact, above), strict=True):
        torch.testing.assert_close(one.float(), other, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("lengths", LENGTHS[1:], ids=str)
def test_queries_on_some_tokens(lengths):
    """Some documents have no query at all."""
    q, k, v = inputs_of(lengths)
    kept = torch.arange(sum(lengths), device="cuda")[sum(lengths) // 2 :: 7]
    layout = Layout.of(lengths, "cuda")
    some = attend(q[kept], k, v, layout, queries=layout.subset(kept))
    torch.testing.assert_close(some, attend(q, k, v, layout)[kept], **CLOSE)
    above = torch.randn_like(some)
    whole = torch.autograd.grad(attend(q, k, v, layout)[kept], (q, k, v), above)
    for one, other in zip(torch.autograd.grad(some, (q, k, v), above), whole, strict=True):
        torch.testing.assert_close(one, other, atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_other_documents_cannot_be_seen(architecture):
    torch.manual_seed(0)
    config = EncoderConfig(architecture, vocab_size=99, hidden_size=128, layers=4, heads=2, intermediate_size=96, window=8)
    encoder = Encoder(config).eval().cuda()
    lengths = [30, 64, 7, 30]
    ids = torch.randint(0, 99, (sum(lengths),), device="cuda")
    changed = ids.clone()
    changed[30:94] = (changed[30:94] + 1) % 99
    layout = Layout.of(lengths, "cuda")
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        before, after = encoder(ids, layout), encoder(changed, layout)
    assert torch.equal(before[:30], after[:30]) and torch.equal(before[94:], after[94:])
    assert not torch.equal(before[30:94], after[30:94])
