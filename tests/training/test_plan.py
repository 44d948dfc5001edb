"""Budgets: each unit ends where it should, only the counters decide, and the command line wins."""

import time

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from common.files import ROOT
from common.launch import settle_budget
from data.loader import Loader
from tests.data.test_loader import loader_of, shards_of
from training.distributed import start
from training.entries import pretraining_config
from training.plan import Clock, State, Step, budget_of, plan_steps
from training.settings import Budget


def at(progress: float) -> tuple[int, int, float]:
    """Windows of 16 tokens, two micro-batches, masked 30 to 10 %."""
    return 16, 2, 0.3 - 0.2 * progress


def cost(lengths: list[np.ndarray], predicted: list[float]) -> float:
    """A thousand per token and a thousand more per masked token."""
    return 1000 * sum(part.sum() * (1 + share) for part, share in zip(lengths, predicted, strict=True))


def planned(loader: Loader, state: State, **total) -> list[Step]:
    total = {"unit": next(iter(total)), "amount": next(iter(total.values()))}
    return list(plan_steps(at, loader, state, start("cpu"), total, Clock(0.0), cost))


@pytest.fixture
def loader() -> Loader:
    lengths = np.random.default_rng(0).integers(3, 40, 60).tolist()
    return loader_of(shards_of(lengths, "<u2"))


def test_a_budget_in_flops_ends_at_the_step_that_uses_it_up(loader):
    steps = planned(loader, State(), flops=1.5e6)
    spent = [step.after["planned_flops"] for step in steps]
    assert spent[-2] < 1.5e6 <= spent[-1]
    assert [step.progress for step in steps] == pytest.approx([0.0, *(value / 1.5e6 for value in spent[:-1])])
    assert spent[-1] == pytest.approx(1000 * steps[-1].after["tokens"] * 1.2, rel=0.1)  # masked 30 to 10 %


@pytest.mark.parametrize("unit", [{"flops": 1.5e6}, {"steps": 9}, {"tokens": 1200}])
def test_resuming_in_the_middle_plans_the_same_steps(loader, unit):
    whole = planned(loader, State(), **unit)
    assert len(whole) > 6
    rest = planned(loader, State(**whole[3].after), **unit)
    assert rest == whole[4:]


def test_the_clock_stops_during_a_pause():
    clock = Clock(100.0)
    with clock.paused():
        first = clock.seconds()
        time.sleep(0.05)
        assert clock.seconds() == first
    assert first <= clock.seconds() < first + 0.04


def composed(*words: str, name: str = "train"):
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose(name, list(words))
    settle_budget(config, words)
    return config


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["experiment=local", "corpus.path=x", "budget.steps=50"], {"unit": "steps", "amount": 50}),
        (["experiment=local", "corpus.path=x"], {"unit": "minutes", "amount": 10}),
        (["budget.flops=1e12"], {"unit": "flops", "amount": 1e12}),
        (["budget.steps=null", "budget.tokens=7"], {"unit": "tokens", "amount": 7}),
    ],
)
def test_a_unit_on_the_command_line_replaces_the_overlays(words, wanted):
    assert budget_of(Budget(**composed(*words).budget), 1.0) == wanted


def test_a_model_of_a_benchmark_has_its_own_budget():
    config = composed("experiment=resource_efficiency", name="benchmark")
    OmegaConf.set_struct(config, False)
    for budget in ({"budget": {"steps": 5}}, {"budget.steps": 5}):
        own = pretraining_config(config, {"name": "x", "pretrain": budget})
        assert budget_of(Budget(**own.budget), 1.0) == {"unit": "steps", "amount": 5}
    own = pretraining_config(config, {"name": "x", "pretrain": {"seed": 3}})
    assert budget_of(Budget(**own.budget), 1.0)["unit"] == "minutes"
