"""AdamW and Muon, torch's own, with the groups that each parameter belongs to."""

from typing import Any

import torch
from torch import Tensor, nn

from common.errors import UserError


def build_optimizers(model: nn.Module, settings: dict[str, Any]) -> list[torch.optim.Optimizer]:
    """Optimizers for all trainable parameters of `model`.

    No weight decay on norms and biases. kind adamw: all parameters. kind muon: Muon (Newton-Schulz on the momentum,
    kellerjordan.github.io/posts/muon) on the blocks' matrices with steps of AdamW's size (arXiv 2502.16982 §2.2), AdamW
    on embeddings, norms, biases and the head. Each group keeps its peak rate under "peak"; the loop sets "lr" from it.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    if settings["kind"] not in ("adamw", "muon"):
        raise UserError(f"optimizer.kind={settings['kind']}: choose adamw or muon.")
    matrices: list[nn.Parameter] = []
    if settings["kind"] == "muon":
        matrices = [p for name, p in named if p.ndim == 2 and ".blocks." in name]
    held = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in held]
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(torch.optim.Muon(
            matrices, lr=settings["muon_lr"], weight_decay=settings["weight_decay"], momentum=settings["muon_momentum"],
            adjust_lr_fn="match_rms_adamw",
        ))  # fmt: skip
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": settings["weight_decay"]},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers.append(torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=settings["lr"], betas=(settings["beta1"], settings["beta2"]),
        eps=settings["eps"], fused=True,
    ))  # fmt: skip
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Every group's rate: its peak times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * factor


def step_unless(bad: Tensor, optimizers: list[torch.optim.Optimizer]) -> None:
    """One step of all optimizers, or none of them where `bad` (a 0-dim bool on the device) is true.

    Fused AdamW decides on the device, through the same switch that loss scaling uses, so nothing waits for the host. Muon
    has no such switch: with it the host reads the flag, which costs little beside its own five matrix products.
    """
    if len(optimizers) > 1 and bool(bad):
        return
    for optimizer in optimizers:
        optimizer.found_inf = bad.to(torch.float32)  # read by the fused kernel: 1 leaves weights and state as they are
        optimizer.step()


class Average:
    """Exponential moving average of the weights (arXiv 2212.14034 §4.4; Slowrun saw -0.012 to -0.018 over many epochs)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Take in the weights after step `step` (from 1); early on the average is over fewer steps than 1 / (1 - decay)."""
        decay = min(self.decay, step / (step + 10))
        weights = [p.detach() for _, p in model.named_parameters()]
        torch._foreach_lerp_(list(self.values.values()), weights, 1 - decay)
