"""No step waits for the device, mixes devices, or runs more kernels and moves more bytes than its budget says.

Steps of pre-training, fine-tuning, distillation, sentence training and held-out evaluation, at the width of Base, on a CUDA
device that has shapes and no values (benchmarks/fake_cuda.py). budgets.json has the kernels and gigabytes of each; a change
that costs more fails here, and one that saves more than a twentieth asks for a lower budget.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.base import known_kinds

BUDGETS = json.loads(Path(__file__).with_name("budgets.json").read_text(encoding="utf-8"))
FAST = ["pretraining-bert-adamw", "finetuning-classification", "careless", "kernels"]
SLOW = [
    *(
        "pretraining-bert-muon",
        "pretraining-modern-adamw",
        "pretraining-modern-muon",
        "distillation-768",
        "distillation-512",
        "heldout-bert",
    ),
    *("heldout-modern", "sentences-adamw", "sentences-muon"),
    *(f"finetuning-{kind}" for kind in known_kinds() if kind != "classification"),
    *("finetuning-classification-mean", "finetuning-classification-cls", "finetuning-classification-lora"),
    *(f"finetuning-{kind}-taught" for kind in ("classification", "choice", "tagging", "qa", "similarity", "multilabel")),
]
MAY_WAIT = {"log line": 2, "evaluation": 1}  # lines of ours that read from the device; a log line has one more with a teacher


@pytest.fixture(scope="module")
def fast(look) -> dict[str, Any]:
    return look(*FAST)


@pytest.fixture(scope="module")
def slow(look) -> dict[str, Any]:
    return look(*SLOW)


@pytest.mark.parametrize("name", FAST[:-2])
def test_a_step_keeps_to_its_budget(fast, name):
    check(name, fast[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_every_other_step_keeps_to_its_budget(slow, name):
    check(name, slow[name])


def check(name: str, seen: dict[str, Any]) -> None:
    """The parts of one case: nothing waits or mixes devices; kernels and gigabytes are within the budget, and near it."""
    for part, found in seen.items():
        if part == "flops":
            continue
        assert not found["mixed"], (name, part)
        allowed = MAY_WAIT.get(part, 0) - (part == "log line" and "distillation" not in name)
        assert len(found["waits"]) == allowed, (name, part, found["waits"])
        kernels, gigabytes = BUDGETS.get(f"{name}/{part}", [0, 0.0])
        said = f"{name}/{part}: {found['kernels']} kernels and {found['gigabytes']:.4g} GB, budget {kernels} and {gigabytes}. "
        said += f'If that is meant: "{name}/{part}": [{found["kernels"]}, {found["gigabytes"]:.4g}] in budgets.json'
        assert 0.95 * kernels <= found["kernels"] <= kernels, said
        assert 0.95 * gigabytes <= found["gigabytes"] <= 1.001 * gigabytes, said


def test_counted_flops_are_those_of_the_kernels(fast):
    counted_equals_dispatched(fast["pretraining-bert-adamw"]["flops"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pretraining-bert-muon", "pretraining-modern-adamw"])
def test_counted_flops_of_other_steps_are_those_of_the_kernels(slow, name):
    counted_equals_dispatched(slow[name]["flops"])


def counted_equals_dispatched(flops: dict[str, float]) -> None:
    """`step_flops` against the products that were dispatched. The loss makes its logits' gradients in forward, as counted."""
    attention = flops["attention"] * 6 / 7  # flash attention computes the scores again in backward: 7 products for 6 counted
    assert flops["products"] + attention == pytest.approx(flops["counted"], rel=1e-3)


def test_batches_are_copied_without_a_wait(fast):
    """Ids, positions, targets, starts and places of tokens and of the positions that are asked for: each from pinned memory."""
    for name in FAST[:-2]:
        assert fast[name]["batches"]["copies"] == fast[name]["batches"]["kernels"] >= 14


@pytest.mark.parametrize("name", ["item", "if", "tolist", "numpy", "equal", "number", "pageable", "blocking", "list as index"])
def test_a_wait_is_seen(fast, name):
    assert len(fast["careless"][name]["waits"]) == 1 and not fast["careless"][name]["mixed"]


def test_two_devices_are_seen(fast):
    assert len(fast["careless"]["two devices"]["mixed"]) == 1


def test_nothing_is_not_seen(fast):
    seen = fast["careless"]["nothing"]
    assert not seen["waits"] and not seen["mixed"] and seen["copies"] == 1 and seen["kernels"] == 5


@pytest.mark.parametrize("name", ["auto False", "FA3 False", "auto True", "FA3 True", "empty package", "ampere FA3"])
def test_without_flash_attention_3_a_line_says_so(fast, name):
    """On a Hopper, or if it was asked for; the reason is in the line, and the safe kernel is used."""
    used, said = fast["kernels"][name]
    reason = {
        "auto False": "flash_attn_interface is not",
        "empty package": "does not expose FA3",
        "ampere FA3": "Hopper",
    }
    assert used == "FA2" and said.count("\n") == 1
    assert reason.get(name.replace("FA3 F", "auto F"), "deterministic=true") in said


@pytest.mark.parametrize("name", ["FA2 False", "FA2 True", "ampere auto"])
def test_nothing_is_said_where_torchs_own_attention_is_meant(fast, name):
    assert fast["kernels"][name] == ["FA2", ""]


def test_deterministic_is_set_before_the_first_product(fast):
    assert fast["kernels"]["fixed"] == [True, ":4096:8"]
