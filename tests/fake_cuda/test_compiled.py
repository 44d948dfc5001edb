"""torch.compile on the GPU's route: one graph up to the loss, none made anew for other documents, the same gradients in DDP."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from benchmarks.fake_cuda import run_with_device
from tests.conftest import PLAIN, ROOT

pytestmark = pytest.mark.slow


def last_line(result: subprocess.CompletedProcess) -> dict[str, Any]:
    assert result.returncode == 0, result.stderr[-4000:]
    return json.loads(result.stdout.splitlines()[-1])


@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_one_graph_and_one_named_break(guard, architecture):
    """Eight batches of other documents, forward and backward: the encoder and its head are one graph, made once."""
    found = last_line(run_with_device("tests.fake_cuda.compiled", ["graphs", architecture], guard))
    assert found["after"] == [1] * 8
    assert len(found["breaks"]) == 1 and "linear_cross_entropy" in found["breaks"][0]


@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_compiled_ddp_on_the_varlen_route_equals_eager(architecture):
    """Loss and gradients of DDP(compile(model)), whose graph DDP cuts at its buckets, beside the bare model's, four steps, of
    which two exchange nothing. The attention kernel is the definition; no graph is made after the first step."""
    words = [sys.executable, "-m", "tests.fake_cuda.compiled", "ddp", architecture]
    env = os.environ | PLAIN
    steps = last_line(subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False))["steps"]
    assert len(steps) == 4 and {step["graphs"] for step in steps} == {steps[0]["graphs"]} and steps[0]["graphs"] > 1
    for step in steps:
        assert step["loss"] == pytest.approx(step["expected"], rel=1e-6) and step["apart"] < 1e-5
