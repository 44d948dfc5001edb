"""Our Muon: its iteration equals the plain formula, its steps equal torch's, its state resumes to the same bit."""

import copy

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from model.encoder import Encoder, EncoderConfig
from model.mlm import MaskedLM
from training.flops import optimizer_flops
from training.optimizers import Muon, build_optimizers, orthogonalised, set_learning_rate, step_unless
from training.settings import Optimizer

SHAPES = [(32, 96), (32, 32), (96, 32), (40, 50), (24, 200)]  # wide ones use the Gram matrix, the others do not


def written_out(x: torch.Tensor) -> torch.Tensor:
    """Five rounds as in kellerjordan.github.io/posts/muon, in fp64, one matrix [n, m]."""
    x = x.double()
    x = x.T if len(x) > x.shape[1] else x
    x = x / x.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    return x


def matrices(shape: tuple[int, int]) -> torch.Tensor:
    """[4, n, m]: random; singular values falling by 10^6; of rank 4; decaying as 1 / i."""
    drawn = torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)
    u, s, v = torch.linalg.svd(drawn, full_matrices=False)
    falls = torch.logspace(0, -6, len(s)), (torch.arange(len(s)) < 4).float(), 1 / (1 + torch.arange(len(s)))
    return torch.stack([drawn, *((u * fall.double()) @ v for fall in falls)]).float()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_iteration_equals_the_plain_formula(shape):
    batch = matrices(shape)
    for x, ours in zip(batch, orthogonalised(batch), strict=True):
        wanted = written_out(x)
        torch.testing.assert_close(ours.T if shape[0] > shape[1] else ours, wanted.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_bf16_it_is_as_accurate_as_torchs(shape):
    """Each kind of matrix: at most 1.5 times torch's rounding error from fp64, and never diverging."""
    for x in matrices(shape):
        wanted = written_out(x)
        theirs = nn.Parameter(torch.zeros(shape))
        theirs.grad = x
        torch.optim.Muon([theirs], lr=1.0, weight_decay=0.0, momentum=0.0, nesterov=False, adjust_lr_fn="original").step()
        theirs = -theirs.detach() / max(1.0, shape[0] / shape[1]) ** 0.5
        ours = orthogonalised(x[None].bfloat16())[0].float()
        distances = [float(((y.T if shape[0] > shape[1] else y) - wanted).norm() / wanted.norm()) for y in (ours, theirs)]
        assert distances[0] < 1.5 * distances[1] + 0.01


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(0.02 * torch.randn(*shape, generator=generator)) for shape in SHAPES + SHAPES[:2]]


def steps(optimizer: torch.optim.Optimizer, held: list[nn.Parameter], numbers: range) -> None:
    for number in numbers:
        generator = torch.Generator().manual_seed(number)
        for p in held:
            p.grad = torch.randn(p.shape, generator=generator)
        optimizer.param_groups[0]["lr"] = 2e-3 / (1 + number)
        optimizer.step()


def test_ten_steps_equal_torchs():
    """torch computes in bf16: the steps differ by its rounding, momentum and decay are equal."""
    ours, theirs = parameters(), parameters()
    start = [p.detach().clone() for p in ours]
    mine = Muon(ours, lr=2e-3, weight_decay=0.3, momentum=0.95, dtype=torch.bfloat16)
    other = torch.optim.Muon(theirs, lr=2e-3, weight_decay=0.3, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    steps(mine, ours, range(10))
    steps(other, theirs, range(10))
    for p, q, begun in zip(ours, theirs, start, strict=True):
        assert float(((p - q).norm() / (q - begun).norm()).detach()) < 0.03
        torch.testing.assert_close(mine.state[p]["momentum_buffer"], other.state[q]["momentum_buffer"], atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_resumes_to_the_same_bit(dtype):
    whole, parts = parameters(), parameters()
    optimizer = Muon(whole, 2e-3, 0.3, 0.95, dtype)
    steps(optimizer, whole, range(6))
    before = Muon(parts, 2e-3, 0.3, 0.95, dtype)
    steps(before, parts, range(3))
    after = Muon(parts, 2e-3, 0.3, 0.95, dtype)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    steps(after, parts, range(3, 6))
    assert all(torch.equal(p, q) for p, q in zip(whole, parts, strict=True))


def test_a_matrix_without_a_gradient_is_unchanged():
    held = parameters()
    optimizer = Muon(held, 2e-3, 0.3, 0.95, torch.float32)
    frozen = held[0].detach().clone()
    for p in held[1:]:
        p.grad = torch.ones_like(p)
    optimizer.step()
    assert torch.equal(held[0], frozen) and not torch.equal(held[-2], frozen)


class Layers(nn.Module):
    """Two matrices named like a block's, and one elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Module()
        self.encoder.blocks = nn.ModuleList([nn.Linear(16, 48, bias=False), nn.Linear(16, 48, bias=False)])
        self.head = nn.Linear(16, 4)


def test_a_muon_step_does_not_synchronise(monkeypatch):
    """`bad` stays on the device: no bool(), item() or tolist() of a tensor during the step."""
    model = Layers()
    settings = Optimizer("muon", weight_decay=0.1)
    optimizers = build_optimizers(model, settings)
    set_learning_rate(optimizers, 1.0)
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    step_unless(torch.tensor(False), optimizers)  # creates the state
    for name in ("__bool__", "item", "tolist", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, lambda *_: pytest.fail("the host waits for the device"))
    step_unless(torch.tensor(False), optimizers)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_flops_equal_torch_s_count(dtype):
    held = parameters()
    optimizer = Muon(held, 2e-3, 0.3, 0.95, dtype)
    for p in held:
        p.grad = torch.ones_like(p)
    with FlopCounterMode(display=False) as counter:
        optimizer.step()
    assert counter.get_total_flops() == optimizer_flops([optimizer])


@pytest.mark.parametrize(
    "wrap", [lambda encoder: encoder, lambda encoder: MaskedLM(encoder.config)], ids=["encoder", "masked LM"]
)
def test_muon_has_the_blocks_matrices(wrap):
    """Of an encoder alone too, as sentence training has it, whose names have no "encoder." before "blocks."."""
    model = wrap(Encoder(EncoderConfig(vocab_size=99, hidden_size=16, layers=2, heads=2, intermediate_size=24)))
    first = build_optimizers(model, Optimizer("muon"))[0]
    assert isinstance(first, Muon) and len(first.param_groups[0]["params"]) == 2 * 4
