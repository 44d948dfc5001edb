"""Task heads on flat batches: classes, multiple choice, tags, extractive answers, a score, several labels.

Shapes and dropout are those of transformers' BertFor* heads (equal to 1e-5 in tests/model/test_heads.py): classes and choice
read the pooled [CLS] (dense and tanh), tags and answers the last hidden states; dropout, then one linear layer. A `modern`
encoder gets the same heads. Segment numbers separate the options of a question and the tokens of a window, so that any
numbers of them fit into one batch without padding. A kind of task names its head (Kind.head): a class of this file, or a
dotted name of your own.
"""

import importlib

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from common.errors import UserError
from data.features import TaskBatch
from model.encoder import Encoder, initialise
from tasks.base import kind_of

# How the vector of a text is made: BERT's dense layer and tanh on [CLS], which masked-LM pre-training leaves untrained; [CLS]
# itself; the mean over all tokens.
POOLINGS = ("pooler", "cls", "mean")
TASK = "task.json"


def segment_log_softmax(scores: Tensor, segments: Tensor, count: int) -> Tensor:
    """Log-softmax of scores [P] or [P, k] inside each of `count` segments [P], of any sizes."""
    shape = (count, *scores.shape[1:])
    wide = segments.view(-1, *[1] * (scores.dim() - 1)).expand_as(scores)
    top = scores.new_full(shape, -torch.inf).scatter_reduce(0, wide, scores.detach(), "amax")
    shifted = scores - top[segments]
    total = scores.new_zeros(shape).index_add(0, segments, shifted.exp())
    return shifted - total.log()[segments]


class Classes:
    """One of several labels for each vector: cross-entropy. A head interprets the linear layer's outputs.

    Every loss is a summed scalar; the caller of TaskModel divides by `batch.count`.
    """

    pooled = True  # reads one vector of a text (see POOLINGS), not the hidden states of its tokens
    every_token = False  # reads all tokens, not only batch.positions
    weighable = True  # whether recipe.class_weights and recipe.label_smoothing apply

    def outputs(self, n_labels: int) -> int:
        """Number of outputs of the linear layer."""
        return n_labels

    def scores(self, raw: Tensor) -> Tensor:
        """The linear layer's outputs [P, outputs] as the task's scores."""
        return raw

    def loss(self, scores: Tensor, batch: TaskBatch, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
        """Summed loss of scores against batch.targets. For heads that are `weighable`: `weights` [labels], factors of the
        errors in each class; `smoothing`, the share of the target that is spread over all classes (arXiv 1512.00567 §7)."""
        return F.cross_entropy(scores, batch.targets, weight=weights, reduction="sum", label_smoothing=smoothing)

    def distance(self, scores: Tensor, teacher_scores: Tensor, batch: TaskBatch, temperature: float) -> Tensor:
        """Summed distance from a teacher's scores, on the scale of `loss`: temperature^2 x KL(teacher || student)."""
        return _kl((scores / temperature).log_softmax(-1), (teacher_scores / temperature).log_softmax(-1), temperature)


class Tags(Classes):
    """One of several tags for each word, read from its first token."""

    pooled = False


class Options(Classes):
    """One score for each row; the options of a question compete in a softmax."""

    weighable = False

    def outputs(self, n_labels: int) -> int:
        """One score for each option."""
        return 1

    def scores(self, raw: Tensor) -> Tensor:
        """[rows]."""
        return raw.squeeze(-1)

    def loss(self, scores: Tensor, batch: TaskBatch) -> Tensor:
        """Cross-entropy over the options of each question."""
        return -segment_log_softmax(scores, batch.segments, batch.count)[batch.targets].sum()

    def distance(self, scores: Tensor, teacher_scores: Tensor, batch: TaskBatch, temperature: float) -> Tensor:
        """KL over the options of each question."""
        return _kl(
            *(segment_log_softmax(part / temperature, batch.segments, batch.count) for part in (scores, teacher_scores)),
            temperature,
        )


class Spans(Options):
    """Start and end of an answer among all tokens of a window, as in BERT."""

    pooled = False
    every_token = True

    def outputs(self, n_labels: int) -> int:
        """Start and end."""
        return 2

    def scores(self, raw: Tensor) -> Tensor:
        """[tokens, 2]."""
        return raw

    def loss(self, scores: Tensor, batch: TaskBatch) -> Tensor:
        """Half the sum of start's and end's cross-entropy."""
        return -segment_log_softmax(scores, batch.segments, batch.count).gather(0, batch.targets).sum() / 2

    def distance(self, scores: Tensor, teacher_scores: Tensor, batch: TaskBatch, temperature: float) -> Tensor:
        """Half the sum of start's and end's KL."""
        return super().distance(scores, teacher_scores, batch, temperature) / 2


class Score(Classes):
    """One number for each vector: squared error (transformers' problem_type regression)."""

    weighable = False

    def outputs(self, n_labels: int) -> int:
        """One score."""
        return 1

    def loss(self, scores: Tensor, batch: TaskBatch) -> Tensor:
        """Squared error."""
        return F.mse_loss(scores[:, 0], batch.targets, reduction="sum")

    def distance(self, scores: Tensor, teacher_scores: Tensor, batch: TaskBatch, temperature: float) -> Tensor:
        """Squared distance of both scores; the temperature has no effect."""
        return F.mse_loss(scores, teacher_scores, reduction="sum")


class Labels(Classes):
    """Yes or no for each label of a vector: binary cross-entropy, averaged over labels (multi_label_classification)."""

    weighable = False

    def loss(self, scores: Tensor, batch: TaskBatch) -> Tensor:
        """Binary cross-entropy, averaged over labels and summed over vectors."""
        return F.binary_cross_entropy_with_logits(scores, batch.targets, reduction="sum") / scores.shape[1]

    def distance(self, scores: Tensor, teacher_scores: Tensor, batch: TaskBatch, temperature: float) -> Tensor:
        """KL of each label's yes or no, averaged over labels and summed over vectors."""
        ours, theirs = (
            torch.stack([F.logsigmoid(x / temperature), F.logsigmoid(-x / temperature)]) for x in (scores, teacher_scores)
        )
        return _kl(ours, theirs, temperature) / scores.shape[1]


def _kl(ours: Tensor, theirs: Tensor, temperature: float) -> Tensor:
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum()


def head_of(kind: str) -> Classes:
    """The head that a kind of task names; UserError if it does not exist."""
    name = kind_of(kind).head
    module, _, own = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module or __name__), own)()
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"head {name} of kind {kind}: cannot be used ({error}). See docs/tasks.md.") from None


def is_pooled(kind: str) -> bool:
    """Whether task models of this kind read one vector of a text."""
    return head_of(kind).pooled


def has_pooler(kind: str, pooling: str) -> bool:
    """Whether a task model of this kind has BERT's pooler layer."""
    return is_pooled(kind) and pooling == "pooler"


class TaskModel(nn.Module):
    """An encoder and the head of one kind of task. Weights are named encoder.* and head.*.

    `pooling`, one of POOLINGS, selects the vector of a text that pooled heads read.
    """

    def __init__(self, encoder: Encoder, kind: str, n_labels: int = 0, pooling: str = "pooler") -> None:
        super().__init__()
        if (encoder.pooler is not None) != has_pooler(kind, pooling):
            raise ValueError(f"{kind}: build the encoder with pooler={has_pooler(kind, pooling)}")
        self.kind, self.n_labels = kind, n_labels
        self.reads = head_of(kind)  # interprets the linear layer's outputs
        self.linear_probe = False  # whether the encoder is frozen, without dropout (model/adapters.py)
        self.pooling = pooling if self.reads.pooled else None
        self.encoder = encoder
        self.dropout = nn.Dropout(encoder.config.dropout)
        self.head = nn.Linear(encoder.config.hidden_size, self.reads.outputs(n_labels))
        initialise(self.head, encoder.config)
        self.label_smoothing = 0.0  # in training
        self.ngrams: nn.Module | None = None  # adds the outputs of a bag of n-grams (model/ngrams.py); pooled heads only
        self.mlm: nn.Module | None = None  # a masked-LM head, for recipe.mlm alone (training/joint_mlm.py)
        self.register_buffer("class_weights", None, persistent=False)  # [labels]: factor of each class's errors

    def train(self, mode: bool = True) -> "TaskModel":
        """As Module.train; the encoder of a linear probe stays in eval mode."""
        super().train(mode)
        self.encoder.train(mode and not self.linear_probe)
        return self

    def forward(self, batch: TaskBatch) -> Tensor:
        """Raw scores in fp32: [rows, labels], [rows] for options, [words, tags], [T, 2] for spans, [rows, 1] for a score."""
        if self.reads.every_token or self.pooling == "mean":
            hidden = self.encoder(batch.ids, batch.layout, batch.token_types)
        else:  # the last block is computed only at the head's positions
            hidden = self.encoder(batch.ids, batch.layout, batch.token_types, positions=batch.positions)
        if self.pooling == "pooler":
            hidden = self.encoder.pool(hidden)
        elif self.pooling == "mean":
            sizes = batch.layout.starts.diff().long()
            owner = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes, output_size=len(hidden))
            sums = hidden.new_zeros(len(sizes), hidden.shape[1]).index_add(0, owner, hidden)
            hidden = sums / sizes[:, None].to(hidden.dtype)
        raw = self.head(self.dropout(hidden)).float()
        return self.reads.scores(raw if self.ngrams is None else raw + self.ngrams(batch))

    def loss(self, scores: Tensor, batch: TaskBatch) -> Tensor:
        """Summed loss (a scalar) of `scores` against the batch's targets; divide by `batch.count` yourself."""
        more = {} if self.class_weights is None else {"weights": self.class_weights}
        if self.training and self.label_smoothing:  # dev's loss is that of the answers themselves
            more["smoothing"] = self.label_smoothing
        return self.reads.loss(scores, batch, **more)
