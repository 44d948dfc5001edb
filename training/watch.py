"""Collapse watch: detect catastrophic forgetting while a pre-trained model is trained further.

Every held-out evaluation also scores the texts of `watch.files` (the source languages) and measures the drift from the
start: the relative L2 distance of the weights and the mean cosine between old and new hidden states of the same tokens.
metrics.jsonl has all of it under "watch". A run ends with a message when a watched loss is not finite, or when it is
`watch.rise` nats above the loss at the start for `watch.patience` evaluations in a row. The run's own held-out text is
compared with its lowest loss so far in the same way. RUN/best keeps the best checkpoint from before the collapse.
"""

import contextlib
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from common.errors import UserError
from data.layout import Layout
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from tokenization.tokenizer import Tokenizer
from training.distributed import Ranks
from training.heldout import HeldOut, evaluate, read_heldout
from training.settings import Watch as WatchSettings

BEST = "best"
PROBE_TOKENS = 4096  # of the first watched text, whose hidden states are compared
OWN = "heldout"  # name of the run's own held-out text


@dataclass
class Watch:
    """The model before its first step: loss of each file, weights, and hidden states [T, H] of the probe tokens."""

    settings: WatchSettings
    texts: dict[str, HeldOut]
    weights: dict[str, Tensor]
    size: float  # L2 norm of those weights
    ids: Tensor
    lengths: list[int]
    hidden: Tensor
    losses: dict[str, float] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)  # result of the last `evaluate_watch`


def check_watch(watch: WatchSettings, corpus_dir: str) -> None:
    """UserError for watched files that do not exist or have no usable name. Files of a corpus may still have to be built."""
    files = watch.files or []
    for entry in files:
        if not isinstance(entry, dict) or set(entry) != {"name", "file"} or entry["name"] in (OWN, "drift"):
            raise UserError(f"watch.files: {entry}: expected a {{name, file}} each, with a name other than {OWN} or drift.")
    if len({entry["name"] for entry in files}) < len(files):
        raise UserError("watch.files: a name is used twice. Give each file its own name.")
    for path in (Path(entry["file"]) for entry in files):
        if not path.exists() and Path(corpus_dir) not in path.parents:
            raise UserError(f"watch.files: {path}: no such file. Correct the path.")


def begin_watch(
    model: MaskedLM, watch: WatchSettings, max_tokens: int | None, tokenizer: Tokenizer, ranks: Ranks, dtype: torch.dtype
) -> Watch | None:
    """Score the model before its first step; None if no files are watched.

    `max_tokens` of each text are scored. Keeps a copy of the weights in host memory. All ranks must call it.
    """
    if not watch.files:
        return None
    length = model.encoder.config.max_length
    texts = {entry["name"]: read_heldout(entry["file"], tokenizer, length, max_tokens) for entry in watch.files}
    windows, taken = [], 0
    for window in next(iter(texts.values())).windows:
        if taken < PROBE_TOKENS:
            windows.append(window.ids)
            taken += len(window.ids)
    ids, lengths = torch.from_numpy(np.concatenate(windows)).to(ranks.device), [len(window) for window in windows]
    weights = {name: p.detach().cpu().clone() for name, p in model.named_parameters()}
    size = math.sqrt(sum(float(value.double().square().sum()) for value in weights.values()))
    begun = Watch(watch, texts, weights, size, ids, lengths, hidden_states(model, ids, lengths, dtype))
    begun.losses = {name: evaluate(model, text, ranks, dtype)["loss"] for name, text in texts.items()}
    if short := [name for name, loss in begun.losses.items() if loss is None]:
        raise UserError(f"watch.files: {short[0]} is too short to score. Give more text.")
    return begun


@torch.no_grad()
def hidden_states(model: MaskedLM, ids: Tensor, lengths: list[int], dtype: torch.dtype) -> Tensor:
    """The last hidden states [T, H] of a flat batch, in fp32 on the host."""
    was_training = model.training
    model.eval()
    kind = ids.device.type
    with torch.autocast(kind, dtype) if dtype != torch.float32 else contextlib.nullcontext():
        hidden = model.encoder(ids, Layout.of(lengths, ids.device))
    model.train(was_training)
    return hidden.float().cpu()


def evaluate_watch(watch: Watch, model: MaskedLM, ranks: Ranks, dtype: torch.dtype) -> dict[str, Any]:
    """The "watch" entry of metrics.jsonl: loss, bits per character and rise of each text, and the drift of the model.

    drift.weights: |now - start| / |start| over all parameters. drift.cosine: mean over tokens of the cosine
    between the hidden states now and at the start.
    """
    seen: dict[str, Any] = {}
    for name, text in watch.texts.items():
        scores = evaluate(model, text, ranks, dtype)
        rise = scores["loss"] - watch.losses[name]
        seen[name] = {"loss": scores["loss"], "bits_per_character": scores["bits_per_character"], "rise": rise}
    moved = sum(float((p.detach().cpu() - watch.weights[name]).double().square().sum()) for name, p in model.named_parameters())
    now = hidden_states(model, watch.ids, watch.lengths, dtype)
    cosine = torch.nn.functional.cosine_similarity(now, watch.hidden, dim=1).mean()
    seen["drift"] = {"weights": math.sqrt(moved) / watch.size, "cosine": float(cosine)}
    watch.last = seen
    return seen


def check_collapse(watch: Watch, state: Any, scores: dict[str, Any], run: Path, keep: Any) -> None:
    """Count the consecutive evaluations above the bound, keep the best checkpoint, or end the run.

    `state` has the counters `above` (one for each text) and `lowest` and `lowest_step` of the run's own held-out loss.
    `keep(folder)` writes the current model. Raises UserError on a collapse.
    """
    rises = {name: entry["rise"] for name, entry in watch.last.items() if name != "drift"}
    lowest = scores["loss"] if state.lowest is None else state.lowest
    rises[OWN] = scores["loss"] - lowest
    bound = watch.settings.rise
    for name, rise in rises.items():
        over = not math.isfinite(rise) or (bound is not None and rise > bound)
        state.above[name] = state.above.get(name, 0) + 1 if over else 0
    if math.isfinite(scores["loss"]) and (state.lowest is None or scores["loss"] < lowest) and not any(state.above.values()):
        state.lowest, state.lowest_step = scores["loss"], state.step
        keep(run / BEST)
    patience = watch.settings.patience or 1
    for name, rise in rises.items():
        if not math.isfinite(rise) or (bound is not None and state.above[name] >= patience):
            start = watch.losses.get(name, lowest)
            saved = f"{run / BEST} keeps step {state.lowest_step}" if state.lowest is not None else "no checkpoint was kept"
            raise UserError(
                f"{run}: collapse of {name} at step {state.step}: its held-out loss is {start + rise:.3f} nats a token, "
                f"{rise:.3f} above {'its lowest' if name == OWN else 'the start'} ({start:.3f}), over watch.rise={bound} at "
                f"{state.above[name]} evaluation(s) in a row; the weights have moved by {watch.last['drift']['weights']:.1%}. "
                f"{saved}. Lower optimizer.lr, lengthen schedule.warmup, mix text of {name} in, or raise watch.rise."
            )


def keep_best(model: MaskedLM, tokenizer: Tokenizer, extra: dict[str, Any], ranks: Ranks) -> Any:
    """The function with which `check_collapse` writes the model on the first rank."""

    def keep(folder: Path) -> None:
        if ranks.first:
            write_checkpoint(folder, model.weights(), model.encoder.config, tokenizer, extra)

    return keep
