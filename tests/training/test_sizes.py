"""Norms by group equal numpy's of the same weights; large ones are named."""

import numpy as np
import pytest
import torch

from data.layout import Layout
from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from training.sizes import GROUPS, LARGE, as_line, block_rms, gradient_norms, group_of, large_weights, measure_sizes


@pytest.fixture(params=["bert", "modern"])
def model(request) -> MaskedLM:
    torch.manual_seed(0)
    return MaskedLM(EncoderConfig(request.param, 60, 16, 3, 2, 24, max_length=32, dropout=0.1))


def rms(values: list[torch.Tensor]) -> float:
    return float(np.sqrt(np.mean(np.concatenate([value.detach().numpy().ravel() for value in values]).astype(float) ** 2)))


def test_every_group_is_present_and_every_block_matrix_is_in_two(model):
    groups = {name: group_of(name, p.ndim) for name, p in model.named_parameters()}
    assert set(groups.values()) == set(GROUPS)
    assert {groups[n] for n, p in model.named_parameters() if ".blocks." in n and p.ndim == 2} == {"attention", "mlp"}
    assert all(group == "other" for name, group in groups.items() if "norm" in name)


def test_sizes_equal_numpy_s(model):
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for number, p in enumerate(model.parameters()):
            p.add_(0.01 * (1 + number))
    lengths, ids = np.array([10, 7, 30, 32]), torch.randint(5, 60, (79,))
    line = as_line(measure_sizes(model, before, ids, lengths).tolist())
    named = list(model.named_parameters())
    for group in GROUPS:
        mine = [number for number, (name, p) in enumerate(named) if group_of(name, p.ndim) == group]
        assert line["weights"][group] == pytest.approx(rms([named[n][1] for n in mine]), rel=1e-5)
        assert line["update"][group] == pytest.approx(rms([named[n][1] - before[n] for n in mine]), rel=1e-4)
    hidden_states: list[torch.Tensor] = []
    with torch.no_grad():
        model.eval().encoder(ids, Layout.of(lengths), hidden_states=hidden_states)
    assert line["hidden"]["rms"] == pytest.approx(rms([hidden_states[-1]]), rel=1e-5)
    assert line["hidden"]["largest"] == pytest.approx(max(float(state.abs().max()) for state in hidden_states), rel=1e-5)


def test_gradient_norms_equal_numpy_s_and_a_missing_one_is_none(model):
    for number, p in enumerate(model.parameters()):
        p.grad = torch.full_like(p, 0.01 * (1 + number))
    line = as_line([0.0] * 12 + gradient_norms(model).tolist())
    named = list(model.named_parameters())
    for group in GROUPS:
        mine = np.concatenate([p.grad.numpy().ravel() for name, p in named if group_of(name, p.ndim) == group])
        assert line["gradients"][group] == pytest.approx(float(np.linalg.norm(mine.astype(float))), rel=1e-5)
    whole = float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]))
    assert np.linalg.norm([*line["gradients"].values()]) == pytest.approx(whole, rel=1e-5)
    for name, p in named:
        p.grad = None if group_of(name, p.ndim) == "mlp" else p.grad
    assert as_line([0.0] * 12 + gradient_norms(model).tolist())["gradients"]["mlp"] is None


def test_the_model_stays_in_training_mode_and_no_random_number_is_used(model):
    model.train()
    before = torch.get_rng_state()
    measure_sizes(model, [p.detach().clone() for p in model.parameters()], torch.arange(5, 15), np.array([4, 6]))
    assert model.training and torch.equal(torch.get_rng_state(), before)


def test_large_weights_are_named(model):
    assert block_rms(model.state_dict()) < 0.03 and large_weights(model.state_dict()) is None
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.mul_(10 if ".blocks." in name else 1)
    assert block_rms(model.state_dict()) > LARGE
    assert "muon_lr" in large_weights(model.state_dict())
    assert large_weights(None) is None and large_weights({"head.bias": torch.ones(3)}) is None
