"""The start of a fine-tuning run: a checkpoint read once, the task model built from it, its parameter groups."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from common.errors import UserError
from common.files import digest_of, read_json
from language.base import Language
from model.adapters import depth_of
from model.convert.foreign import ForeignConfig, build_encoder
from model.encoder import EncoderConfig
from model.folder import SUMS, WEIGHTS, fill
from model.heads import TASK, TaskModel, has_pooler, head_of
from model.modern_head import add_modern_head
from model.ngrams import NgramBag, ngrams_of
from model.store import language_of, read_checkpoint, resolve_checkpoint
from tasks.encoding import Row
from tokenization.tokenizer import Tokenizer
from training.ancestry import ledger
from training.optimizers import Muon
from training.settings import Recipe

NGRAMS = 10.0  # factor on the rate of recipe.ngrams' table, whose rows are met rarely
MOMENTUM = 0.95  # of Muon: that of pre-training


@dataclass
class Start:
    """A checkpoint's weights, shape and tokenizer, or only shape and tokenizer (weights None)."""

    name: str
    path: str
    weights: dict[str, torch.Tensor] | None
    config: EncoderConfig
    tokenizer: Tokenizer
    identity: str  # digest of everything that determines the weights
    language: Language | None = None  # of the text that it was trained on; None for foreign checkpoints
    ledger: dict[str, float | None] = field(default_factory=dict)  # device hours of every run that led to the weights, if known
    task: dict[str, Any] | None = None  # task.json of a fine-tuned checkpoint

    @property
    def trained_pooler(self) -> bool:
        """Whether the weights include a pooler; masked-LM pre-training trains none, BERT's next-sentence prediction does."""
        return self.weights is not None and "encoder.pooler.weight" in self.weights

    @property
    def has_masked_lm_head(self) -> bool:
        """Whether the weights include a masked-LM head; a fine-tuned model's own head has one of these names at most."""
        return self.weights is not None and {"head.dense.weight", "head.bias"} <= self.weights.keys()


def read_start(checkpoint: str | Path, name: str | None = None, scratch: bool = False) -> Start:
    """Read a checkpoint once for all runs that start from it.

    `name` is the folder of its results (default: the name in config.json). scratch keeps only shape and tokenizer, so the
    identity does not depend on the weights. UserError for a missing or damaged checkpoint.
    """
    folder = resolve_checkpoint(checkpoint)
    if not (folder / SUMS).exists():
        raise UserError(f"checkpoint={checkpoint}: no checkpoint there. Run python train.py first, or give checkpoint=FOLDER.")
    weights, config, tokenizer, values = read_checkpoint(folder)
    name = name or f"{values.get('name') or Path(checkpoint).name}{'-scratch' if scratch else ''}"
    identity = digest_of([config.to_dict(), tokenizer.identity, None if scratch else read_json(folder / SUMS)[WEIGHTS]])
    runs = {} if scratch else ledger(folder)
    language = language_of(values, tokenizer)
    kept = None if scratch else weights
    task = read_json(folder / TASK) if kept and (folder / TASK).exists() else None
    return Start(name.replace("/", "_"), str(checkpoint), kept, config, tokenizer, identity, language, runs, task)


def build_model(
    start: Start,
    kind: str,
    n_labels: int,
    seed: int,
    reinitialise_layers: int = 0,
    pooling: str = "pooler",
    head: str = "linear",
) -> TaskModel:
    """A new task model; everything that the checkpoint lacks is drawn from `seed`.

    A missing pooler (masked-LM pre-training trains none) is new. `reinitialise_layers` gives this many of the last blocks new
    weights (arXiv 2006.05987 §5). `head` modern: ModernBERT's dense layer and norm before the last layer, initialised from the
    masked-LM head, for `modern` encoders without the pooler. Raises UserError if these exclude each other.
    """
    torch.manual_seed(seed)
    if not 0 <= reinitialise_layers <= start.config.layers:
        raise UserError(f"recipe.reinitialise_layers={reinitialise_layers}: the encoder has {start.config.layers} layers.")
    if reinitialise_layers and isinstance(start.config, ForeignConfig):
        raise UserError(f"recipe.reinitialise_layers={reinitialise_layers}: not for encoders of other architectures; set 0.")
    encoder = build_encoder(start.config, has_pooler(kind, pooling))
    if start.weights is not None:
        fresh = {name: value.clone() for name, value in encoder.state_dict().items()}
        first = start.config.layers - reinitialise_layers
        new = tuple(f"blocks.{number}." for number in range(first, start.config.layers))
        own = {n.removeprefix("encoder."): v for n, v in start.weights.items() if n.startswith("encoder.")}
        own = {n: v for n, v in own.items() if n in fresh or not n.startswith("pooler.")}
        own |= {n: v for n, v in fresh.items() if (n.startswith("pooler.") and n not in own) or (new and n.startswith(new))}
        fill(encoder, own, start.path)
    model = TaskModel(encoder, kind, n_labels, pooling)
    if head == "modern":
        add_modern_head(model, start.weights)
    return model


def keep_head(model: TaskModel, start: Start, labels: list[str] | None) -> bool:
    """Take over the head of a start that was fine-tuned for the same kind and classes; whether it was. Else it stays new."""
    before = start.task
    if before is None or before["kind"] != model.kind or (before["labels"] or []) != (labels or []):
        return False
    own = {name: value.shape for name, value in model.head.state_dict().items()}
    theirs = {name.removeprefix("head."): value for name, value in start.weights.items() if name.startswith("head.")}
    if model.pooling != (before.get("pooling") or "pooler") and model.pooling is not None:
        return False  # it reads another vector
    if own != {name: value.shape for name, value in theirs.items()}:
        return False
    model.head.load_state_dict(theirs)
    return True


def check_smoothing(share: float, kind: str) -> float:
    """recipe.label_smoothing; UserError for a kind without classes."""
    if share and not head_of(kind).weighable:
        raise UserError(f"recipe.label_smoothing={share}: {kind} has no classes. Set it to 0.")
    return share


def add_ngrams(model: TaskModel, buckets: int, tokenizer: Tokenizer, language: Language | None, batches: Any) -> None:
    """Put a bag of n-grams beside the head, with the idf of the training rows in `batches`.

    UserError for a kind whose head reads single tokens.
    """
    if not model.reads.pooled:
        raise UserError(f"recipe.ngrams={buckets}: {model.kind} reads single tokens, a bag is of a whole text. Set it to 0.")
    outputs = model.reads.outputs(model.n_labels)
    model.ngrams = NgramBag(buckets, outputs, *ngrams_of(tokenizer, language, buckets))
    model.ngrams.count(batches)


def set_dropout(model: TaskModel, rate: float | None) -> None:
    """Set the dropout of encoder and head; None: as in the checkpoint. UserError for an encoder of another architecture."""
    if rate is None:
        return
    if isinstance(model.encoder.config, ForeignConfig):
        raise UserError(f"recipe.dropout={rate}: not for encoders of other architectures; set null.")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = rate


def parameter_groups(model: TaskModel, recipe: Recipe, muon: bool = False) -> list[dict[str, Any]]:
    """Groups for AdamW, or (`muon`) for Muon: no weight decay on norms and biases; `layerwise_decay` d < 1 gives block i of L
    the rate lr x d^(L - i), embeddings the least, head and pooler the whole (arXiv 2003.10555, appendix B).

    With recipe.optimizer=muon Muon has the matrices of the blocks, AdamW everything else; they share one rate, because Muon's
    steps are scaled to AdamW's size.
    """
    layers, groups = model.encoder.config.layers, {}
    for name, parameter in model.named_parameters():
        depth = depth_of(name, layers)
        is_matrix = parameter.ndim == 2 and 1 <= depth <= layers
        if not parameter.requires_grad or muon != (recipe.optimizer == "muon" and is_matrix):
            continue
        rate = recipe.lr * recipe.layerwise_decay ** (layers + 1 - depth) * (NGRAMS if name.startswith("ngrams.") else 1)
        decay = recipe.weight_decay if parameter.ndim >= 2 else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "peak": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def task_optimizers(model: TaskModel, recipe: Recipe, dtype: torch.dtype) -> list[torch.optim.Optimizer]:
    """AdamW, with recipe.optimizer=muon after a Muon whose iteration computes in `dtype`. UserError if that has no matrix."""
    optimizers: list[torch.optim.Optimizer] = []
    if recipe.optimizer == "muon":
        if not (matrices := parameter_groups(model, recipe, muon=True)):
            raise UserError("recipe.optimizer=muon: no matrix of a block is trained. Set adamw.")
        optimizers.append(Muon(matrices, recipe.lr, recipe.weight_decay, MOMENTUM, dtype))
    betas = (recipe.beta1, recipe.beta2)
    return [*optimizers, torch.optim.AdamW(parameter_groups(model, recipe), betas=betas, eps=recipe.eps, fused=True)]


def weigh_classes(wanted: str | dict[str, float] | None, kind: str, labels: list[str], rows: list[Row]) -> Tensor | None:
    """The weight of each class in the loss [labels]; None for equal weights. `wanted` is recipe.class_weights.

    "balanced": the inverse of the class's share in the training rows; a dictionary: as given, 1 for classes not in it. In both
    cases the mean over the training rows (words of a tagging task) is 1, so that the rate keeps its meaning. Raises UserError
    for a kind without classes and for an unknown label.
    """
    if wanted is None:
        return None
    if not head_of(kind).weighable:
        raise UserError(f"recipe.class_weights={wanted}: {kind} has no classes. Set it to null.")
    targets = np.concatenate([row.targets for row in rows])
    counts = torch.from_numpy(np.bincount(targets[targets >= 0], minlength=len(labels))).float()
    if wanted == "balanced":
        weights = torch.where(counts > 0, 1 / counts.clamp(min=1), 1.0)
    else:
        if unknown := sorted(set(wanted) - set(labels)):
            raise UserError(f"recipe.class_weights: no label {unknown[0]!r}. There are: {', '.join(labels)}.")
        weights = torch.tensor([float(wanted.get(label, 1.0)) for label in labels])
    mean = (weights * counts).sum() / counts.sum()
    if not mean > 0:
        raise UserError(f"recipe.class_weights={wanted}: no training row would count. Give its classes a weight above 0.")
    return weights / mean
