"""AdamW (torch's own) and Muon, with the groups that each parameter belongs to."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from training.settings import Optimizer

A, B, C = 3.4445, -4.7750, 2.0315  # of the quintic a x + b x^3 + c x^5 (kellerjordan.github.io/posts/muon)
WIDE = 1.5  # columns / rows from which iterating on the Gram matrix is cheaper


def rounds_of(rows: int, columns: int, dtype: torch.dtype) -> tuple[int, ...]:
    """Groups of the five rounds (as many as in Muon's own code): the rounds of a group are computed on one Gram matrix."""
    if columns <= WIDE * rows:
        return (1,) * 5
    return (3, 2) if dtype == torch.float32 else (2, 2, 1)


def orthogonalised(x: Tensor) -> Tensor:
    """Approximate U V^T of matrices x [K, n, m] = U S V^T: five rounds of Muon's Newton-Schulz iteration in x's precision.

    A round maps X to (a + b G + c G^2) X with G = X X^T. For wide x, several rounds are computed on the n x n matrix G alone,
    and X is multiplied once by the product of their polynomials (Gram Newton-Schulz, Dao AI Lab 2026): the same result for
    about 30 % fewer FLOPs. Rounding makes G's small eigenvalues negative, and each round multiplies those by 12, so X and G are
    recomputed after three rounds in fp32 and after two in bf16.
    """
    if x.shape[-2] > x.shape[-1]:
        return orthogonalised(x.mT).mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for rounds in rounds_of(*x.shape[-2:], x.dtype):
        x = _newton_schulz(x, rounds)
    return x


def _newton_schulz(x: Tensor, rounds: int) -> Tensor:
    """`rounds` rounds on x [K, n, m], on the Gram matrix if there are several."""
    gram = x @ x.mT
    polynomial = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)  # without the term of `a`, which is added below
    if rounds == 1:
        return torch.baddbmm(x, polynomial, x, beta=A)
    product = polynomial.clone()
    product.diagonal(dim1=-2, dim2=-1).add_(A)
    for _ in range(rounds - 1):
        half = torch.baddbmm(gram, gram, polynomial, beta=A)
        gram = torch.baddbmm(half, half, polynomial, beta=A)  # of the next X: the polynomial squared, times G
        polynomial = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
        product = torch.baddbmm(product, polynomial, product, beta=A)
    return product @ x


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum (Jordan 2024), scaled to AdamW's step size (arXiv 2502.16982 section 2.2), for matrices only.

    torch.optim.Muon always casts to bf16; this one iterates in `dtype`, on all matrices of a shape at once. `found_inf`, a
    float on the device set by `step_unless`, leaves weights and momentum unchanged where it is 1.
    """

    def __init__(
        self,
        matrices: Iterable[nn.Parameter] | list[dict[str, Any]],
        lr: float,
        weight_decay: float,
        momentum: float,
        dtype: torch.dtype,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype
        self.found_inf: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """One step on every matrix with a gradient; the host reads nothing."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[tuple(p.shape)].append(p)
            for shape, matrices in by_shape.items():
                self._step_shape(group, shape, matrices)

    def _step_shape(self, group: dict[str, Any], shape: tuple[int, ...], matrices: list[nn.Parameter]) -> None:
        for p in matrices:
            if not self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in matrices]
        gradients = torch.stack([p.grad for p in matrices])
        good = gradients.new_ones(()) if self.found_inf is None else 1 - self.found_inf
        gradients = torch.where(good > 0, gradients, 0.0)  # 0 times NaN would be NaN
        momentum = group["momentum"]
        moving = torch.stack(buffers).lerp(gradients, good * (1 - momentum))
        torch._foreach_copy_(buffers, list(moving.unbind()))
        updates = orthogonalised(gradients.lerp_(moving, momentum).to(self.dtype)).to(gradients.dtype)
        scale = group["lr"] * 0.2 * math.sqrt(max(shape))
        torch._foreach_mul_(matrices, 1 - good * (group["lr"] * group["weight_decay"]))
        torch._foreach_add_(matrices, list((updates * (good * -scale)).unbind()))


def build_optimizers(model: nn.Module, settings: Optimizer, dtype: torch.dtype = torch.float32) -> list[torch.optim.Optimizer]:
    """Optimizers for all trainable parameters of `model`; Muon's iteration computes in `dtype`, the run's precision.

    No weight decay on norms and biases. kind adamw: all parameters. kind muon: Muon on the blocks' matrices, AdamW on
    embeddings, norms, biases and the head. Each group keeps its peak rate under "peak"; the loop sets "lr" from it.
    """
    named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    matrices: list[nn.Parameter] = []
    if settings.kind == "muon":
        matrices = [p for name, p in named if p.ndim == 2 and ".blocks." in f".{name}"]
    held = {id(p) for p in matrices}
    others = [p for _, p in named if id(p) not in held]
    optimizers: list[torch.optim.Optimizer] = []
    if matrices:
        optimizers.append(Muon(matrices, settings.muon_lr, settings.muon_weight_decay, settings.muon_momentum, dtype))
    groups = [
        {"params": [p for p in others if p.ndim >= 2], "weight_decay": settings.weight_decay},
        {"params": [p for p in others if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizers.append(
        torch.optim.AdamW(
            [group for group in groups if group["params"]],
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=settings.eps,
            fused=True,
        )
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def set_learning_rate(optimizers: list[torch.optim.Optimizer], factor: float) -> None:
    """Set every group's rate to its peak times `factor`."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = float(group["peak"] * factor)  # torch.load refuses a NumPy number in a checkpoint


def step_unless(bad: Tensor, optimizers: list[torch.optim.Optimizer]) -> None:
    """One step of all optimizers, or of none if `bad` (a 0-dim bool on the device) is true.

    Both kinds decide on the device, through the switch that loss scaling uses, so the host never waits.
    """
    for optimizer in optimizers:
        optimizer.found_inf = bad.to(torch.float32)  # 1 leaves weights and state as they are
        optimizer.step()


class Average:
    """Exponential moving average of the trained weights (arXiv 2212.14034 §4.4; Slowrun saw -0.012 to -0.018 over many epochs).

    Its decay rises with the steps, so that the first weights do not stay in it (Morales-Brotons et al. 2024, arXiv 2411.18704).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.values = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        """Add the weights after step `step` (from 1); early on the average covers fewer steps than 1 / (1 - decay)."""
        decay = min(self.decay, step / (step + 10))
        weights = [p.detach() for name, p in model.named_parameters() if name in self.values]
        torch._foreach_lerp_(list(self.values.values()), weights, 1 - decay)


@contextmanager
def average_weights(model: nn.Module, average: Average | None) -> Iterator[None]:
    """Use the average's weights in the model for the length of the block; its own weights if there is no average."""
    values = average.values if average else {}
    own = {name: p.data for name, p in model.named_parameters() if name in values}
    for name, p in model.named_parameters():
        p.data = values.get(name, p.data)
    try:
        yield
    finally:
        for name, p in model.named_parameters():
            p.data = own.get(name, p.data)
