"""The roofline of a step; what benchmarks.gpu does without a GPU, with a stage that fails and one that takes too long."""

import json
import sys
import time
from typing import Any

import pytest

from benchmarks.fake_cuda import Kernel, library
from benchmarks.gpu import Stages, bounds, chip_of, speeds, ways_of
from benchmarks.measure import MARK
from benchmarks.roofline import DEVICES, PARTS, fused, roofline, seconds_of, table
from common.errors import UserError
from model.encoder import EncoderConfig
from tests.conftest import run_script

SHAPE = EncoderConfig("bert", vocab_size=8000, hidden_size=256, layers=2, heads=4, intermediate_size=1024).to_dict()
WORK = {"shape": SHAPE, "tokens": 16384, "length": 512, "rate": 0.15, "optimizer": "adamw"}
PRODUCT, POINT = PARTS[0], PARTS[3]


def kernel(name: str, reads: dict[int, int], writes: dict[int, int]) -> Kernel:
    return Kernel(name, reads, writes, 0.0, [])


def test_what_is_between_two_products_is_one_kernel():
    """It reads what was made before it and writes what is read after it; what only it needs is in no memory."""
    log = [
        kernel("mm", {0: 5}, {1: 10}),
        kernel("gelu", {1: 10}, {2: 10}),
        kernel("mul", {2: 10, 3: 4}, {4: 10}),
        kernel("mm", {4: 10}, {5: 7}),
        kernel("add_", {5: 7, 1: 10}, {5: 7}),  # in place, and what is never read again is not written
    ]
    parts = [PRODUCT, POINT, POINT, PRODUCT, POINT]
    assert fused(log, parts) == [[PRODUCT, 15, 0.0], [POINT, 10 + 4 + 10, 0.0], [PRODUCT, 17, 0.0], [POINT, 17, 0.0]]


def test_a_kernel_takes_the_longest_of_its_limits():
    chip = DEVICES["h200"]
    kernels = [[PRODUCT, 0, 989e9], [POINT, 4.8e9, 0.0], [POINT, 8, 0.0], [PARTS[1], 0, 989e9]]
    seconds = seconds_of(kernels, chip, "FA2", (1.0, 1.0))
    assert seconds[PRODUCT] == pytest.approx(1e-3) and seconds[POINT] == pytest.approx(1e-3 + 2e-6)
    assert seconds[PARTS[1]] == pytest.approx(1e-3 / 0.35)


@pytest.fixture(scope="module")
def found(guard) -> dict[str, Any]:
    return roofline(WORK, "h200")


def test_the_parts_hold_all_of_the_step(found):
    """FLOPs of all parts are those that MFU counts, but for attention's scores, which its backward makes again."""
    eager, least = found["ways"]["eager"], found["ways"]["fused"]
    whole = sum(eager["flops"].values()) - eager["flops"]["attention"] / 7
    seconds = sum(eager["seconds"].values())
    assert eager["mfu"] * seconds * 989e12 == pytest.approx(whole, rel=1e-3)
    assert all(eager["bytes"][part] > 0 for part in PARTS) and eager["flops"] == least["flops"]
    assert least["kernels"] < eager["kernels"] and least["bytes"][POINT] < eager["bytes"][POINT]
    assert least["tokens_per_second"] > eager["tokens_per_second"]
    assert "16,384 tokens in documents of 512" in table(found) and "989 TFLOP/s" in table(found)


@pytest.mark.parametrize(
    ("device", "attention", "said"), [("h300", None, "h200, h100"), ("a100", "FA3", "not on a100; choose one of FA2")]
)
def test_an_unknown_device_is_named(device, attention, said):
    with pytest.raises(UserError, match=said):
        roofline(WORK, device, attention)


def test_no_compiler_is_a_message(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UserError, match=r"no C\+\+ compiler|CUDA build"):
        library(tmp_path)


def test_without_a_gpu_the_command_says_what_can_be_done():
    result = run_script("-m", "benchmarks.gpu")
    assert result.returncode == 2 and "Traceback" not in result.stderr
    for word in ("sees no CUDA device", "benchmarks.roofline", "tests/fake_cuda"):
        assert word in result.stderr


def test_a_stage_that_fails_or_hangs_is_a_line_and_the_others_go_on():
    stages = Stages(time.time() + 600)

    def run(code: str, limit: float = 60) -> dict[str, Any] | None:
        return stages.run(code[:9], [sys.executable, "-c", code], limit)

    assert run("raise SystemExit('no such kernel')") is None
    assert run("import time; time.sleep(600)", limit=1) is None
    assert run(f"print('noise'); print({MARK + json.dumps({'x': 1})!r})") == {"x": 1}
    assert run("print('3 passed')") == {"said": "3 passed"}
    assert "no such kernel" in stages.failed[0] and "not done in 1 s" in stages.failed[1] and len(stages.failed) == 2
    late = Stages(time.time())
    assert late.run("late", ["never"], 5) is None and late.failed == ["late: no time left"]


def test_each_row_has_its_roofline_beside_it(guard):
    """The bound of the way that ran: eager or fused, with the attention that it used; none for a GPU without known peaks."""
    ways = ways_of({"shape": SHAPE, "batch_tokens": 16384, "length": 512, "rate": 0.15, "optimizer": "adamw", "compile": False})
    run = {"peak_bytes": 2e9, "mfu": 0.5, "attention": "FA2"}
    runs = {
        "ours": {**run, "tokens_per_second": 1e6},
        "theirs bf16": {**run, "tokens_per_second": 4e5, "mfu": None, "attention": None},
    }
    limits = bounds(ways, runs, chip_of("NVIDIA H200"))
    assert limits["ours"] == limits["theirs bf16"]
    rows = [[cell.strip() for cell in line.strip("| ").split("|")] for line in speeds(runs, limits).splitlines()]
    assert (
        rows[0][2] == "ours / this"
        and rows[2][:6] == ["ours", "1,000,000", "1.00", "2.0", "50%", "FA2"]
        and rows[3][2] == "2.50"
    )
    assert rows[2][7] == f"{1e6 / limits['ours']['tokens_per_second']:.0%}"
    assert bounds(ways, runs, chip_of("NVIDIA GeForce GT 710")) == {} and "not known" in speeds(runs, {})
