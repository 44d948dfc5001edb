"""Count the floating-point operations of a masked-LM step: only what is computed, no padding."""

import time

import numpy as np
import torch
from torch import nn

from model.encoder import EncoderConfig, count_parameters
from model.mlm import MaskedLM
from training.optimizers import Muon, rounds_of

BACKWARD = 3  # forward, and twice that for the gradients of inputs and weights


def step_flops(model: MaskedLM, lengths: np.ndarray, masked: int) -> float:
    """FLOPs of forward and backward over documents of these lengths [n], `masked` positions decoded.

    2 per weight and token for the blocks' matrices, 4 x H x length^2 per document and layer for attention (within the
    window for a local layer), 2 x H x V per masked position for the decoder. Padding is never computed
    and not counted. If the last block works on masked positions only, the other positions count with keys and values.
    """
    config = model.encoder.config
    lengths = np.asarray(lengths, dtype=float)
    blocks = sum(p.numel() for p in model.encoder.blocks.parameters() if p.ndim == 2)
    pairs = sum(attended_pairs(config, layer, lengths) for layer in range(config.layers))
    head = count_parameters(model.head.dense) + config.hidden_size * config.vocab_size
    total = 2 * blocks * lengths.sum() + 4 * config.hidden_size * pairs + 2 * head * masked
    last = config.layers - 1
    if model.last_block_on_masked and not config.is_local(last):
        spared = lengths.sum() - masked
        weights = sum(p.numel() for p in model.encoder.blocks[last].parameters() if p.ndim == 2) - 2 * config.hidden_size**2
        queries = 4 * config.hidden_size * attended_pairs(config, last, lengths) / max(1.0, lengths.sum())
        total -= spared * (2 * weights + queries)
    total += 2 * count_parameters(getattr(model, "projections", nn.ModuleDict())) * masked  # of distilled hidden states
    return BACKWARD * total


def teacher_flops(model: MaskedLM, lengths: np.ndarray, masked: int) -> float:
    """FLOPs of the same step in the teachers of a Student (model/distillation.py): forward alone; 0 without a teacher."""
    teachers = (model.teacher, *model.others) if hasattr(model, "teacher") else ()
    return sum((step_flops(teacher, lengths, masked) / BACKWARD for teacher in teachers), 0.0)


def optimizer_flops(optimizers: list[torch.optim.Optimizer]) -> float:
    """FLOPs of the matrix products of one step of the optimizers: Muon's iteration; AdamW has none."""
    total = 0.0
    for optimizer in optimizers:
        if isinstance(optimizer, Muon):
            for p in (p for group in optimizer.param_groups for p in group["params"]):
                n, m = sorted(p.shape)
                for rounds in rounds_of(n, m, optimizer.dtype):
                    # X X^T and the last product with X; a polynomial a round; between two rounds three products more.
                    total += 4 * n**2 * m + 2 * n**3 * rounds + 6 * n**3 * (rounds - 1)
    return total


def attended_pairs(config: EncoderConfig, layer: int, lengths: np.ndarray) -> float:
    """Number of (query, key) pairs in one layer."""
    if config.is_local(layer):
        return float(np.minimum(lengths, 2 * config.window + 1) @ lengths)
    return float(lengths @ lengths)


def measured_peak(device: torch.device, kind: torch.dtype, size: int | None = None) -> float:
    """FLOPs a second of a square matrix product on this machine: the best of several, as the ceiling for MFU.

    Size 8,192 on CUDA (seconds there), 1,536 on CPU (well under a second on 2 cores).
    """
    size = size or (8192 if device.type == "cuda" else 1536)
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    best = float("inf")
    for attempt in range(6):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        begin = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if attempt:
            best = min(best, time.perf_counter() - begin)
    return 2 * size**3 / best
