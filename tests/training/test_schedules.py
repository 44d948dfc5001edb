"""Corner values of every schedule, and how the optimizers treat decay and bad steps."""

import copy
from dataclasses import replace

import pytest
import torch

from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from training.optimizers import Average, build_optimizers, set_learning_rate, step_unless
from training.schedules import learning_rate_factor, mask_rate, micro_batches, phase_length
from training.settings import BatchWarmup, Masking, Optimizer, Phase, Schedule

SETTINGS = Optimizer(lr=1e-2, muon_lr=2e-2, muon_weight_decay=0.1, beta2=0.98, eps=1e-6, weight_decay=0.1)


@pytest.mark.parametrize(
    ("kind", "at"),
    [
        ("linear", {0.0: 0.0, 0.05: 0.5, 0.1: 1.0, 0.55: 0.6, 1.0: 0.2}),
        ("cosine", {0.0: 0.0, 0.1: 1.0, 0.55: 0.6, 1.0: 0.2}),
        ("wsd", {0.0: 0.0, 0.1: 1.0, 0.5: 1.0, 0.75: 1.0, 0.8125: 0.6, 1.0: 0.2}),
        ("constant", {0.0: 0.0, 0.1: 1.0, 1.0: 1.0}),
    ],
)
def test_corners(kind, at):
    schedule = Schedule(kind, warmup=0.1, floor=0.2, decay=0.25)
    for progress, factor in at.items():
        assert learning_rate_factor(schedule, progress) == pytest.approx(factor), progress


def test_mask_rate_batch_and_phase():
    assert [mask_rate(Masking(rate_start=0.3, rate_end=0.15), p) for p in (0, 0.5, 1)] == pytest.approx([0.3, 0.225, 0.15])
    warmup = BatchWarmup(start_tokens=1000, share=0.5)
    assert [micro_batches(8000, 1000, warmup, p, 1) for p in (0, 0.25, 0.5, 1)] == [1, 4, 8, 8]
    assert [micro_batches(8000, 1000, warmup, p, 2) for p in (0, 0.25, 0.5)] == [2, 4, 8]  # a whole number each
    phases = [Phase(128, 0.9), Phase(512, 1.0)]
    assert [phase_length(phases, p) for p in (0, 0.89, 0.9, 1.0)] == [128, 128, 512, 512]


def tiny(architecture: str = "bert") -> MaskedLM:
    torch.manual_seed(0)
    return MaskedLM(
        EncoderConfig(
            architecture=architecture, vocab_size=50, hidden_size=16, layers=2, heads=2, intermediate_size=24, max_length=16
        )
    )


@pytest.mark.parametrize("kind", ["adamw", "muon"])
@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_every_parameter_is_in_one_group_and_norms_do_not_decay(kind, architecture):
    model = tiny(architecture)
    optimizers = build_optimizers(model, replace(SETTINGS, kind=kind))
    groups = [group for optimizer in optimizers for group in optimizer.param_groups]
    held = [id(p) for group in groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters())
    decayed = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, p in model.named_parameters():
        assert (id(p) in decayed) == (not name.endswith("bias") and "norm" not in name), name
    if kind == "muon":
        by_muon = {id(p) for group in optimizers[0].param_groups for p in group["params"]}
        assert {n for n, p in model.named_parameters() if id(p) in by_muon} == {
            n for n, p in model.named_parameters() if ".blocks." in n and p.ndim == 2
        }


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_a_bad_step_leaves_weights_and_state_unchanged(kind):
    model = tiny()
    optimizers = build_optimizers(model, replace(SETTINGS, kind=kind))
    for bad in (False, True, False):
        for p in model.parameters():
            p.grad = torch.full_like(p, torch.nan) if bad else torch.ones_like(p)
        weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy([o.state_dict()["state"] for o in optimizers])
        step_unless(torch.tensor(bad), optimizers)
        same = all(torch.equal(model.state_dict()[n], w) for n, w in weights.items())
        assert same == bad
        if bad:
            for optimizer, before in zip(optimizers, state, strict=True):
                now = optimizer.state_dict()["state"]
                assert all(torch.equal(now[i][k], before[i][k]) for i in before for k in before[i])
    assert all(torch.isfinite(p).all() for p in model.parameters())


def test_adamw_equals_the_reference():
    """Fused and switched by a flag, against plain torch.optim.AdamW over ten steps at changing rates."""
    ours, theirs = tiny(), tiny()
    optimizers = build_optimizers(ours, SETTINGS)
    reference = torch.optim.AdamW(
        [
            {"params": [p for p in theirs.parameters() if p.ndim >= 2], "weight_decay": 0.1},
            {"params": [p for p in theirs.parameters() if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=1e-2,
        betas=(0.9, 0.98),
        eps=1e-6,
        fused=False,
        foreach=False,
    )
    for step in range(10):
        generator = torch.Generator().manual_seed(step)
        for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
            p.grad = torch.randn(p.shape, generator=generator)
            q.grad = p.grad.clone()
        set_learning_rate(optimizers, 1 / (step + 1))
        for group in reference.param_groups:
            group["lr"] = 1e-2 / (step + 1)
        step_unless(torch.tensor(False), optimizers)
        reference.step()
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-5)


def test_average_follows_the_weights():
    model = tiny()
    average = Average(model, decay=0.9)
    start = {n: v.clone() for n, v in average.values.items()}
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    average.update(model, step=1000)
    for name, value in average.values.items():
        torch.testing.assert_close(value, start[name] + 0.1)
