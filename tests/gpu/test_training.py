"""Training on the GPU: the CPU's losses, compiled or not, one or two NCCL ranks; no wait inside a step; memory."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.peers import our_model, our_steps
from data.layout import Layout
from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from tests.conftest import run_script, training_words
from training.distributed import Ranks, start
from training.flops import measured_peak
from training.optimizers import build_optimizers, step_unless
from training.settings import Optimizer

SHAPE = EncoderConfig("bert", vocab_size=8000, hidden_size=256, layers=3, heads=4, intermediate_size=1024, dropout=0.0)
ADAMW = Optimizer("adamw", lr=1e-3, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.01)
MUON = replace(ADAMW, kind="muon", muon_lr=2e-3, muon_weight_decay=0.1, muon_momentum=0.95)


def batch_of(lengths: list[int], share: float = 0.15) -> tuple[torch.Tensor, Layout, torch.Tensor, torch.Tensor]:
    """ids, layout, positions and targets on the GPU."""
    torch.manual_seed(1)
    ids = torch.randint(5, SHAPE.vocab_size, (sum(lengths),))
    positions = torch.randperm(len(ids))[: int(share * len(ids))].sort().values
    layout = Layout.of(lengths)
    layout.select(positions)
    return ids.cuda(), layout.to(torch.device("cuda")), positions.cuda(), ids[positions].cuda()


def losses(prepared: Path, run: Path, visible: dict[str, str], *more: str, driver: tuple[str, ...] = ()) -> list[float]:
    """Losses of the steps of a tiny run of train.py."""
    result = run_script(*driver, *training_words(prepared, run, "model.dropout=0.0", *more), **visible)
    assert result.returncode == 0, result.stderr
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


@pytest.mark.parametrize("model", ["bert", "modern"])
@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_losses_are_those_of_the_cpu(prepared, tmp_path, visible, model, optimizer):
    words = ("budget.steps=8", f"model.architecture={model}", f"optimizer={optimizer}", "model.hidden_size=64")
    cpu = losses(prepared, tmp_path / "cpu", visible, *words, "device=cpu", "precision=fp32")
    fp32 = losses(prepared, tmp_path / "fp32", visible, *words, "device=cuda", "precision=fp32")
    bf16 = losses(prepared, tmp_path / "bf16", visible, *words, "device=cuda", "precision=bf16")
    assert fp32 == pytest.approx(cpu, rel=1e-3 if optimizer == "muon" else 1e-4)  # Muon's own products are bf16 everywhere
    assert bf16 == pytest.approx(cpu, rel=2e-2)


@pytest.mark.parametrize("model", ["bert", "modern"])
def test_compiled_losses_equal_eager(prepared, tmp_path, visible, model):
    words = ("budget.steps=6", f"model.architecture={model}", "model.hidden_size=64", "device=cuda", "precision=bf16")
    eager = losses(prepared, tmp_path / "eager", visible, *words)
    assert losses(prepared, tmp_path / "compiled", visible, *words, "compile=true") == pytest.approx(eager, rel=1e-2)


@pytest.mark.parametrize("model", ["bert", "modern"])
def test_deterministic_runs_are_equal_to_the_bit(prepared, tmp_path, visible, model):
    """With deterministic=true: two runs, and one that goes on from a checkpoint that a thread wrote."""
    words = ("budget.steps=8", f"model.architecture={model}", "model.hidden_size=64", "device=cuda", "precision=bf16")
    words += ("deterministic=true", "checkpoint_every=4")
    first = losses(prepared, tmp_path / "first", visible, *words)
    assert losses(prepared, tmp_path / "second", visible, *words) == first
    run = tmp_path / "second"
    for made in (run / "checkpoint", run / "checkpoints" / "step-00000008"):
        shutil.rmtree(made)
    (run / "summary.json").unlink()
    assert losses(prepared, run, visible, *words) == first


@pytest.mark.parametrize("ranks", [1, 2])
def test_torchrun_equals_one_process(prepared, tmp_path, visible, ranks):
    if torch.cuda.device_count() < ranks:
        pytest.skip(f"{ranks} ranks want {ranks} GPUs, here are {torch.cuda.device_count()}")
    words = ("budget.steps=6", "device=cuda")
    driver = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}")
    alone = losses(prepared, tmp_path / "alone", visible, *words)
    assert losses(prepared, tmp_path / "several", visible, *words, driver=driver) == pytest.approx(alone, rel=1e-4)


def test_gradients_through_nccl(tmp_path):
    """One rank of DDP over NCCL: the gradients equal those of the bare model."""
    torch.distributed.init_process_group("nccl", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        torch.manual_seed(0)
        raw = MaskedLM(SHAPE, last_block_on_masked=True).cuda()
        batch = batch_of([64, 30, 128])
        raw(*batch).backward()
        alone = {name: p.grad.clone() for name, p in raw.named_parameters() if p.grad is not None}
        raw.zero_grad(set_to_none=True)
        wrapped = Ranks(0, 2, torch.device("cuda", torch.cuda.current_device())).wrap(raw)  # DDP, as with several ranks
        wrapped(*batch).backward()
        assert alone.keys() == {name for name, p in raw.named_parameters() if p.grad is not None}
        for name, p in raw.named_parameters():
            if name in alone:
                torch.testing.assert_close(p.grad, alone[name], atol=1e-5, rtol=1e-4)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("settings", [ADAMW, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_no_step_waits_for_the_device(architecture, settings):
    """Forward, backward, clipping and optimizer under torch's detector of synchronising calls.

    More than 4,096 tokens: below 3,072 the embedding's backward takes another path.
    """
    config = EncoderConfig.from_dict(SHAPE.to_dict() | {"architecture": architecture})
    raw = MaskedLM(config, last_block_on_masked=True).cuda()
    optimizers = build_optimizers(raw, settings, torch.bfloat16)
    batch = batch_of([512, 100, 7, 300] * 5)
    for attempt in range(3):
        torch.cuda.set_sync_debug_mode("error" if attempt else "default")  # the first step initialises things
        try:
            with torch.autocast("cuda", torch.bfloat16):
                loss = raw(*batch) / len(batch[3])
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(raw.parameters(), 1.0)
            step_unless(~(torch.isfinite(loss.detach()) & torch.isfinite(norm)), optimizers)
            raw.zero_grad(set_to_none=True)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert torch.isfinite(loss)


@pytest.mark.parametrize("settings", [ADAMW, MUON], ids=["adamw", "muon"])
def test_a_bad_step_leaves_the_weights_unchanged(settings):
    raw = MaskedLM(SHAPE).cuda()
    optimizers = build_optimizers(raw, settings)
    batch = batch_of([64, 64])
    before = {name: p.detach().clone() for name, p in raw.named_parameters()}
    for bad in (True, False):
        raw(*batch).backward()
        step_unless(torch.tensor(bad, device="cuda"), optimizers)
        same = all(torch.equal(p, before[name]) for name, p in raw.named_parameters())
        assert same == bad


def test_the_logits_are_never_in_memory_at_once():
    """65,536 tokens, a vocabulary of 64,000, 15 % masked: the fp32 logits alone would take 2.5 GB."""
    config = EncoderConfig.from_dict(SHAPE.to_dict() | {"vocab_size": 64000})
    torch.manual_seed(0)
    raw = MaskedLM(config, last_block_on_masked=True).cuda()
    ids, layout, positions, targets = batch_of([512] * 128)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    held = torch.cuda.memory_allocated()
    with torch.autocast("cuda", torch.bfloat16):
        raw(ids, layout, positions, targets).backward()
    activations = 65536 * 256 * 3 * 60  # bytes: about 60 a token, unit and layer
    assert torch.cuda.max_memory_allocated() - held < activations + 1.2e9  # and three chunks of logits


def test_steps_of_the_benchmark_run():
    """benchmarks.peers' own steps on random documents, and the peak rate that MFU is relative to."""
    device = start("cuda").device
    work = {
        "shape": SHAPE.to_dict(),
        "random": [126] * 600,
        "length": 128,
        "masking": "paper",
        "rate": 0.15,
        "batch_tokens": 16384,
        "optimizer": "adamw",
        "compile": False,
        "precision": "auto",
    }
    steps = our_steps(work, our_model(work, device), start("cuda"))
    values = [float(next(steps)[2]) for _ in range(6)]
    assert np.isfinite(values).all() and values[-1] < values[0]
    assert measured_peak(device, torch.bfloat16) > 1e13
