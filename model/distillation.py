"""Knowledge distillation (Hinton et al. 2015, arXiv 1503.02531): a student learns a teacher's probabilities and the gold.

Pre-training follows DistilBERT (arXiv 1910.01108), at masked positions: (1 - w) x cross-entropy + w x T^2 x KL(teacher ||
student), both softened by the temperature T; optionally also the hidden states of chosen layers as in TinyBERT (arXiv
1909.10351), at the same positions, through a learned projection if the widths differ. Fine-tuning does the same over the
classes of an example, the tags of a word, the options of a question, or the starts and ends in a window. All losses are
sums: the loop divides once, by the count over all ranks. Several teachers of pre-training are one whose probability is the
mean of theirs (an ensemble in one student, at the student's cost).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.features import TaskBatch
from data.layout import Layout
from model.encoder import EncoderConfig, initialise
from model.heads import TaskModel
from model.mlm import MaskedLM

CHUNK = 512  # positions whose logits, of both models, are in memory at once
PROJECTIONS = "projections."  # weights used only for distillation, not part of the finished checkpoint
HIDDEN = ("mse", "cosine")


class SoftTargets(NamedTuple):
    """A teacher's logits at masked positions, as what they are made of (x @ weight.T + bias), and how much they count.

    `others` are (x, weight, bias) of further teachers.
    """

    x: Tensor  # [M, H']
    weight: Tensor  # [V, H']
    bias: Tensor  # [V]
    alpha: float  # share of the KL in the loss
    temperature: float
    chunk: int = CHUNK  # positions at once
    others: Sequence[tuple[Tensor, Tensor, Tensor]] = ()

    def log_probabilities(self, begin: int, kind: torch.dtype) -> Tensor:
        """Softened log-probabilities [chunk, V] from position `begin` on, fp32, with products in `kind`."""
        logs = []
        for x, weight, bias in [(self.x, self.weight, self.bias), *self.others]:
            logits = (x[begin : begin + self.chunk].to(kind) @ weight.to(kind).T).float().add_(bias)
            logs.append(logits.div_(self.temperature).log_softmax(1))
        return logs[0] if len(logs) == 1 else torch.stack(logs).logsumexp(0).sub_(math.log(len(logs)))


@dataclass(frozen=True)
class Teaching:
    """How a student is taught in pre-training: (1 - weight) x loss + weight x temperature^2 x KL, and which layers compare.

    `pairs` are (layer of the student, layer of the teacher), 0 the embeddings and n the output of block n, whose hidden
    states are compared by `hidden`, mse (mean over the width) or cosine (1 - cosine), times `hidden_weight`.
    """

    weight: float
    temperature: float
    pairs: Sequence[Sequence[int]] = ()
    hidden: str = "mse"
    hidden_weight: float = 1.0


class _DistilledLoss(torch.autograd.Function):
    """(1 - w) CE + w T^2 KL over all positions, chunk by chunk, with gradients computed in forward (as in model/mlm.py).

    Returns the loss, and for the log its summed cross-entropy and KL, which have no gradient.
    """

    @staticmethod
    def forward(
        ctx, x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, teacher: SoftTargets
    ) -> tuple[Tensor, Tensor, Tensor]:
        alpha, temperature, chunk = teacher.alpha, teacher.temperature, teacher.chunk
        kind = torch.get_autocast_dtype(x.device.type) if torch.is_autocast_enabled(x.device.type) else x.dtype
        with torch.autocast(x.device.type, enabled=False):
            low_x, low_weight = x.to(kind), weight.to(kind)
            hard, soft = (x.new_zeros((), dtype=torch.float32) for _ in range(2))
            grad_x = torch.empty_like(x)
            grad_weight, grad_bias = torch.zeros_like(weight), torch.zeros_like(bias)
            for begin in range(0, len(x), chunk):
                part, wanted = low_x[begin : begin + chunk], targets[begin : begin + chunk, None]
                logits = (part @ low_weight.T).float().add_(bias)
                theirs = teacher.log_probabilities(begin, kind)
                ours, plain = (logits / temperature).log_softmax(1), logits.log_softmax(1)
                target = theirs.exp()
                hard -= plain.gather(1, wanted).sum()
                soft += (target * (theirs - ours)).sum()
                # Of CE: p - [gold]. Of T^2 KL: T (p(T) - q(T)); one T is from the inner derivative.
                error = plain.exp_().scatter_add_(1, wanted, plain.new_full(wanted.shape, -1.0)).mul_(1 - alpha)
                error += ours.exp_().sub_(target).mul_(alpha * temperature)
                grad_bias += error.sum(0)
                error = error.to(kind)
                grad_x[begin : begin + chunk] = error @ low_weight
                grad_weight += error.T @ part
        ctx.grads = grad_x, grad_weight, grad_bias
        ctx.mark_non_differentiable(hard, soft)
        return (1 - alpha) * hard + alpha * temperature**2 * soft, hard, soft

    @staticmethod
    def backward(ctx, grad: Tensor, _hard: Tensor, _soft: Tensor) -> tuple[Tensor | None, ...]:
        parts = ctx.grads
        del ctx.grads  # scaled in place: one backward a forward
        return *(part.mul_(grad) for part in parts), None, None


class Student(MaskedLM):
    """A MaskedLM that learns from teachers during training; in eval mode and as a checkpoint, an ordinary MaskedLM.

    Hidden states are compared with those of the first teacher. Teachers are no submodules: they have no place in the state,
    the optimizers or the exchange of gradients.
    """

    def __init__(
        self, config: EncoderConfig, last_block_on_masked: bool, teacher: MaskedLM, teaching: Teaching, *others: MaskedLM
    ) -> None:
        super().__init__(config, last_block_on_masked)
        self.__dict__["teacher"], self.__dict__["others"] = teacher, others
        for one in (teacher, *others):
            one.eval().requires_grad_(False)
            one.last_block_on_masked = True
        self.teaching, self.pairs = teaching, [tuple(pair) for pair in teaching.pairs]
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
        asked = positions if self.last_block_on_masked else None
        last = self.encoder(ids, layout, positions=asked, hidden_states=ours)
        x = self.head(last if asked is not None else last[positions])
        their_x, theirs = self.teacher_hidden(ids, layout, positions)
        size = len(self.head.bias)  # the teacher's table may have rows beyond the tokenizer's tokens
        how = self.teaching
        others = [(self.others_hidden(one, ids, layout, positions), *decoder_of(one, size)) for one in self.others]
        soft_targets = SoftTargets(their_x, *decoder_of(self.teacher, size), how.weight, how.temperature, others=others)
        own = x, self.encoder.token_embeddings.weight, self.head.bias
        loss, hard, soft = distilled_cross_entropy(*own, targets, soft_targets)
        compared = x.new_zeros((), dtype=torch.float32)
        for number, (mine, other) in enumerate(self.pairs):
            state = ours[mine] if asked is not None and mine == len(ours) - 1 else ours[mine][positions]
            if self.projections:
                state = self.projections[str(number)](state)
            compared = compared + hidden_loss(state.float(), theirs[other].float(), how.hidden)
        for name, value in (("mlm", hard), ("kl", soft), ("hidden", compared)):
            self.sums[name] = self.sums.get(name, 0.0) + value.detach()
        self.sums["count"] = self.sums.get("count", 0) + len(targets)
        return loss + how.hidden_weight * compared

    def weights(self) -> dict[str, Tensor]:
        """As MaskedLM.weights, without the projections, which stay with the run."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith(PROJECTIONS)}

    @torch.compiler.disable
    @torch.no_grad()
    def teacher_hidden(self, ids: Tensor, layout: Layout, positions: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The teacher's decoder input [M, H'] and, if layers are compared, all its hidden states there."""
        hidden: list[Tensor] | None = [] if self.pairs else None
        x = self.teacher.head(self.teacher.encoder(ids, layout, positions=positions, hidden_states=hidden))
        return x, [] if hidden is None else [*(state[positions] for state in hidden[:-1]), hidden[-1]]

    @torch.compiler.disable
    @torch.no_grad()
    def others_hidden(self, other: MaskedLM, ids: Tensor, layout: Layout, positions: Tensor) -> Tensor:
        """A further teacher's decoder input [M, H'']."""
        return other.hidden_at(ids, layout, positions)


def decoder_of(model: MaskedLM, size: int) -> tuple[Tensor, Tensor]:
    """Weight [size, H] and bias [size] of the decoder."""
    return model.encoder.token_embeddings.weight[:size], model.head.bias[:size]


@torch.compiler.disable  # computes its own gradients
def distilled_cross_entropy(
    x: Tensor, weight: Tensor, bias: Tensor, targets: Tensor, teacher: SoftTargets
) -> tuple[Tensor, Tensor, Tensor]:
    """((1 - alpha) CE + alpha x temperature^2 x KL, CE, KL), each a sum over positions.

    Student's logits: x [M, H] @ weight [V, H].T + bias [V]; targets [M]. Teacher's: the same of `teacher`.
    """
    return _DistilledLoss.apply(x, weight, bias, targets, teacher)


def hidden_loss(ours: Tensor, theirs: Tensor, kind: str) -> Tensor:
    """Summed distance of hidden states [M, H]: mse averaged over H, or 1 - cosine."""
    if kind == "cosine":
        return (1 - F.cosine_similarity(ours, theirs, dim=1)).sum()
    return (ours - theirs).square().mean(1).sum()


def spread(ours: int, theirs: int) -> list[tuple[int, int]]:
    """Pairs of embeddings, and of every block of the student with one of the teacher's, spaced evenly (TinyBERT's map)."""
    return [(layer, layer * theirs // ours) for layer in range(ours + 1)]


def distilled_task_loss(
    model: TaskModel, scores: Tensor, teacher_logits: Tensor, batch: TaskBatch, temperature: float
) -> Tensor:
    """Summed distance of task scores (temperature^2 x KL(teacher || student); for a score the squared error), over the same
    elements as the model's loss; scores, teacher_logits: as returned by TaskModel."""
    return model.reads.distance(scores, teacher_logits, batch, temperature)


def log_parts(model: nn.Module, ranks: Any) -> dict[str, Any]:
    """{"distillation": {mlm, kl, hidden}}, each per masked token, over all ranks since the last call; {} without a teacher."""
    if not isinstance(model, Student) or not model.sums:
        return {}
    names = ("mlm", "kl", "hidden", "count")
    parts = torch.stack([model.sums[name] for name in names[:-1]]).tolist()
    *totals, count = ranks.host_sum(*parts, model.sums["count"])
    model.sums = {}
    return {"distillation": {name: total / max(count, 1) for name, total in zip(names, totals, strict=False)}}
