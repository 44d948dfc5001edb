"""Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531): a student learns a teacher's probabilities beside the gold.

In pre-training as DistilBERT (arXiv 1910.01108), at masked positions: (1 - w) x cross-entropy + w x T^2 x KL(teacher ||
student), both softened by the temperature T; and, where asked for, the hidden states of chosen layers as TinyBERT (arXiv
1909.10351), at the same positions, through a learned projection where the widths differ. In fine-tuning the same over the
classes of an example, the tags of a word, the options of a question, or the starts and ends in a window. Everything is a
sum: the loop divides once, by the count of all ranks.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.features import TaskBatch
from data.layout import Layout
from model.encoder import EncoderConfig, initialise
from model.heads import TaskModel, segment_log_softmax
from model.mlm import MaskedLM

CHUNK = 512  # positions whose logits, of both models, are held at once
PROJECTIONS = "projections."  # weights that only distillation has: no part of the finished checkpoint
HIDDEN = ("mse", "cosine")


class _DistilledLoss(torch.autograd.Function):
    """(1 - w) CE + w T^2 KL over all positions, chunk by chunk, with the gradients made on the way (as model/mlm.py).

    Returns the loss, and for the log its summed cross-entropy and KL, which carry no gradient.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, taught: tuple[Tensor, Tensor, Tensor],
                share: float, heat: float, chunk: int) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        kind = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        with torch.autocast(x.device.type, enabled=False):
            low_x, low_weight = x.to(kind), weight.to(kind)
            their_x, their_weight, their_bias = taught[0].to(kind), taught[1].to(kind), taught[2]
            hard, soft = (x.new_zeros((), dtype=torch.float32) for _ in range(2))
            grad_x = torch.empty_like(x)
            grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(bias)
            for begin in range(0, len(x), chunk):
                part, wanted = low_x[begin : begin + chunk], targets[begin : begin + chunk, None]
                logits = (part @ low_weight.T).float().add_(bias)
                theirs = (their_x[begin : begin + chunk] @ their_weight.T).float().add_(their_bias).div_(heat).log_softmax(1)
                ours, plain = (logits / heat).log_softmax(1), logits.log_softmax(1)
                target = theirs.exp()
                hard -= plain.gather(1, wanted).sum()
                soft += (target * (theirs - ours)).sum()
                # Of CE: p - [gold]. Of T^2 KL: T (p(T) - q(T)), one T being the inner derivative's.
                error = plain.exp_().scatter_add_(1, wanted, plain.new_full(wanted.shape, -1.0)).mul_(1 - share)
                error += ours.exp_().sub_(target).mul_(share * heat)
                grad_bias += error.sum(0)
                error = error.to(kind)
                grad_x[begin : begin + chunk] = error @ low_weight
                grad_weight += error.T @ part
        ctx.grads = grad_x, grad_weight, grad_bias
        ctx.mark_non_differentiable(hard, soft)
        return (1 - share) * hard + share * heat**2 * soft, hard, soft

    @staticmethod
    def backward(ctx, grad: Tensor, _hard: Tensor, _soft: Tensor) -> tuple[Tensor | None, ...]:
        parts = ctx.grads
        del ctx.grads  # scaled in place: one backward a forward
        return *(part.mul_(grad) for part in parts), None, None, None, None, None


class Student(MaskedLM):
    """A MaskedLM that learns from another while it trains; in eval mode, and as a checkpoint, a MaskedLM like any other.

    The teacher is no submodule: it has no place in the state, the optimizers or the exchange of gradients. `pairs` are
    (layer of the student, layer of the teacher), 0 the embeddings and n the output of block n, whose hidden states are
    compared by `hidden`, mse (mean over the width) or cosine (1 - cosine), times `hidden_weight`.
    """

    def __init__(self, config: EncoderConfig, last_block_on_masked: bool, teacher: MaskedLM, weight: float, temperature: float,
                 pairs: list[tuple[int, int]] = (), hidden: str = "mse", hidden_weight: float = 1.0) -> None:  # fmt: skip
        super().__init__(config, last_block_on_masked)
        self.__dict__["teacher"] = teacher.eval().requires_grad_(False)
        teacher.last_block_on_masked = True
        self.weight, self.temperature, self.pairs = weight, temperature, [tuple(pair) for pair in pairs]
        self.hidden, self.hidden_weight = hidden, hidden_weight
        size, theirs = config.hidden_size, teacher.encoder.config.hidden_size
        wide = size != theirs
        self.projections = nn.ModuleDict({str(n): nn.Linear(size, theirs, bias=False) for n in range(len(self.pairs)) if wide})
        self.projections.apply(lambda module: initialise(module, config))
        self.sums: dict[str, Tensor] = {}  # of the steps since the last log line: cross-entropy, KL, hidden states, positions

    def forward(self, ids: Tensor, layout: Layout, positions: Tensor, targets: Tensor) -> Tensor:
        """Summed loss (a scalar) at `positions` [M] of the flat batch ids [T]; divide by the count yourself."""
        if not self.training:
            return super().forward(ids, layout, positions, targets)
        ours: list[Tensor] | None = [] if self.pairs else None
        kept = positions if self.last_block_on_masked else None
        last = self.encoder(ids, layout, kept=kept, states=ours)
        x = self.head(last if kept is not None else last[positions])
        their_x, theirs = self.ask(ids, layout, positions)
        size = len(self.head.bias)  # the teacher's table may have rows beyond the tokenizer's pieces
        taught = (their_x, self.teacher.encoder.words.weight[:size], self.teacher.head.bias[:size])
        own = (x, self.encoder.words.weight, self.head.bias, targets)
        loss, hard, soft = distilled_cross_entropy(*own, taught, self.weight, self.temperature)
        compared = x.new_zeros((), dtype=torch.float32)
        for number, (mine, other) in enumerate(self.pairs):
            state = ours[mine] if kept is not None and mine == len(ours) - 1 else ours[mine][positions]
            if self.projections:
                state = self.projections[str(number)](state)
            compared = compared + hidden_loss(state.float(), theirs[other].float(), self.hidden)
        for name, value in (("mlm", hard), ("kl", soft), ("hidden", compared)):
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
        self.sums["count"] = self.sums.get("count", 0) + len(targets)
        return loss + self.hidden_weight * compared

    def weights(self) -> dict[str, Tensor]:
        """As MaskedLM.weights: the projections stay with the run."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(PROJECTIONS)}

    @torch.compiler.disable
    @torch.no_grad()
    def ask(self, ids: Tensor, layout: Layout, positions: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The teacher's decoder input [M, H'] and, where layers are compared, all its hidden states there."""
        states: list[Tensor] | None = [] if self.pairs else None
        x = self.teacher.head(self.teacher.encoder(ids, layout, kept=positions, states=states))
        return x, [] if states is None else [*(state[positions] for state in states[:-1]), states[-1]]


@torch.compiler.disable  # makes its own gradients, chunk by chunk
def distilled_cross_entropy(x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, taught: tuple[Tensor, Tensor, Tensor],
                            share: float, heat: float, chunk: int = CHUNK) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """((1 - share) CE + share x heat^2 x KL, CE, KL), each a sum over positions.

    Student's logits: x [M, H] @ weight [V, H].T + bias [V]. Teacher's: the same of `taught`, [M, H'], [V, H'], [V].
    """
    return _DistilledLoss.apply(x, weight, bias, targets, taught, share, heat, chunk)


def hidden_loss(ours: Tensor, theirs: Tensor, kind: str) -> Tensor:
    """Summed distance of hidden states [M, H]: mse averaged over H, or 1 - cosine."""
    if kind == "cosine":
        return (1 - F.cosine_similarity(ours, theirs, dim=1)).sum()
    return (ours - theirs).square().mean(1).sum()


def spread(ours: int, theirs: int) -> list[tuple[int, int]]:
    """Embeddings with embeddings and every block of the student with one of the teacher's, evenly (TinyBERT's map)."""
    return [(layer, layer * theirs // ours) for layer in range(ours + 1)]


def distilled_task_loss(model: TaskModel, scores: Tensor, taught: Tensor, batch: TaskBatch, heat: float) -> Tensor:
    """Summed heat^2 x KL(teacher || student) of task scores, over what `model.loss` sums the cross-entropy over.

    scores, taught: as TaskModel returns them. Classes of a row, tags of a word; options of a question; starts and ends in a
    window, half the sum of both.
    """
    if model.kind in ("choice", "qa"):
        ours, theirs = (segment_log_softmax(part / heat, batch.segments, batch.count) for part in (scores, taught))
        divided = 2 if model.kind == "qa" else 1
    else:
        ours, theirs, divided = (scores / heat).log_softmax(-1), (taught / heat).log_softmax(-1), 1
    return heat**2 * (theirs.exp() * (theirs - ours)).sum() / divided


def log_parts(model: nn.Module, ranks: Any) -> dict[str, Any]:
    """{"distillation": {mlm, kl, hidden}}, each a masked piece, over all ranks since the last call; {} without a teacher."""
    if not isinstance(model, Student) or not model.sums:
        return {}
    names = ("mlm", "kl", "hidden", "count")
    *totals, count = ranks.host_sum(*(float(model.sums[name]) for name in names))
    model.sums = {}
    return {"distillation": {name: total / max(count, 1) for name, total in zip(names, totals, strict=False)}}
