"""Task heads on flat batches: classes, pairs, multiple choice, tags, extractive answers.

Shapes and places of dropout as transformers' BertFor* heads (equal to 1e-5 in tests/model/test_heads.py): classes and
choice read the pooled [CLS] (dense and tanh), tags and answers the last hidden states; dropout, then one linear layer.
A `modern` encoder gets the same heads. The options of a question and the tokens of a window are told apart by segment
numbers, so that any counts go into one batch without padding.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from data.features import TaskBatch
from model.encoder import Encoder, initialise

POOLED = ("classification", "pair", "choice")  # kinds that look at one vector of a text
# How that vector is made: BERT's dense layer and tanh over [CLS], which masked-LM pre-training leaves untrained; [CLS] as
# it is; the mean over all tokens.
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


def has_pooler(kind: str, pooling: str) -> bool:
    """Whether a task model of this kind has BERT's pooler layer."""
    return kind in POOLED and pooling == "pooler"


class TaskModel(nn.Module):
    """An encoder and the head of one kind of task. Weights are named encoder.* and head.*.

    n_outputs: labels for classes, pairs and tags; 1 for choice and 2 for qa whatever is asked for. `pooling`, one of
    POOLINGS, says what the kinds in POOLED look at.
    """

    def __init__(self, encoder: Encoder, kind: str, n_labels: int = 0, pooling: str = "pooler") -> None:
        super().__init__()
        if (encoder.pooler is not None) != has_pooler(kind, pooling):
            raise ValueError(f"{kind}: build the encoder with pooler={has_pooler(kind, pooling)}")
        self.kind = kind
        self.probe = False  # the encoder is frozen as it was: no dropout in it either (model/adapters.py)
        self.pooling = pooling if kind in POOLED else None
        self.encoder = encoder
        self.dropout = nn.Dropout(encoder.config.dropout)
        self.head = nn.Linear(encoder.config.hidden_size, {"choice": 1, "qa": 2}.get(kind, n_labels))
        initialise(self.head, encoder.config)

    def train(self, mode: bool = True) -> "TaskModel":
        """As Module.train; a probed encoder stays in eval mode."""
        super().train(mode)
        self.encoder.train(mode and not self.probe)
        return self

    def forward(self, batch: TaskBatch) -> Tensor:
        """Raw scores in fp32: [rows, labels]; [rows] for choice; [words, tags]; [T, 2] start and end for qa."""
        if self.kind == "qa" or self.pooling == "mean":
            hidden = self.encoder(batch.ids, batch.layout, batch.types)
        else:  # the last block is computed only where the head looks
            hidden = self.encoder(batch.ids, batch.layout, batch.types, kept=batch.positions)
        if self.pooling == "pooler":
            hidden = self.encoder.pool(hidden)
        elif self.pooling == "mean":
            sizes = batch.layout.starts.diff().long()
            owner = torch.repeat_interleave(torch.arange(len(sizes), device=sizes.device), sizes)
            sums = hidden.new_zeros(len(sizes), hidden.shape[1]).index_add(0, owner, hidden)
            hidden = sums / sizes[:, None].to(hidden.dtype)
        scores = self.head(self.dropout(hidden)).float()
        return scores.squeeze(-1) if self.kind == "choice" else scores

    def loss(self, scores: Tensor, batch: TaskBatch) -> Tensor:
        """Summed cross-entropy (a scalar) of `scores` against the batch's targets; divide by `batch.count` yourself.

        qa: half the sum of start's and end's, over all tokens of the window as BERT has it.
        """
        if self.kind == "choice":
            return -segment_log_softmax(scores, batch.segments, batch.count)[batch.targets].sum()
        if self.kind == "qa":
            logs = segment_log_softmax(scores, batch.segments, batch.count)
            return -logs.gather(0, batch.targets).sum() / 2
        return F.cross_entropy(scores, batch.targets, reduction="sum")
