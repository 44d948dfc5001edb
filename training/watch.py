"""Collapse watch: what a model knew before it was trained on, seen while it goes (catastrophic forgetting).

At every held-out evaluation the texts of `watch.files` (the source languages) are scored as the run's own held-out text
is, and the drift from the start is measured: the relative L2 distance of the weights and the mean cosine of the hidden
states of the same tokens. All of it stands in metrics.jsonl under "watch". The rule: a watched loss that is not finite, or that
is `watch.rise` nats above the start's at `watch.patience` evaluations in a row, ends the run with a message; the run's own
held-out text is held to its lowest loss so far in the same way. The best checkpoint before that stays in RUN/best.
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

BEST = "best"
PROBE_TOKENS = 4096  # of the first watched text, whose hidden states are compared
OWN = "heldout"  # the name that the run's own held-out text has in the rule


@dataclass
class Watch:
    """What the start was: its losses by file, its weights and its hidden states [T, H] of the probe's tokens."""

    settings: dict[str, Any]
    texts: dict[str, HeldOut]
    weights: dict[str, Tensor]
    size: float  # L2 norm of those weights
    ids: Tensor
    lengths: list[int]
    hidden: Tensor
    losses: dict[str, float] = field(default_factory=dict)
    last: dict[str, Any] = field(default_factory=dict)  # what `look` saw last


def begin_watch(
    model: MaskedLM, settings: dict[str, Any], tokenizer: Tokenizer, ranks: Ranks, dtype: torch.dtype
) -> Watch | None:
    """Look at the model before its first step; None where no files are watched. Raises UserError for files and settings.

    The weights are kept once more in the host's memory. All ranks must call it.
    """
    watch = settings["watch"]
    if not watch["files"]:
        return None
    for entry in watch["files"]:
        if not isinstance(entry, dict) or set(entry) != {"name", "file"} or entry["name"] in (OWN, "drift"):
            raise UserError(f"watch.files: {entry}: expected a {{name, file}} each, with a name other than {OWN} and drift.")
    if len({entry["name"] for entry in watch["files"]}) < len(watch["files"]):
        raise UserError("watch.files: a name stands there twice.")
    if (watch["rise"] is not None and not watch["rise"] > 0) or (watch["patience"] or 1) < 1:
        raise UserError("watch: rise (nats) must be above 0, patience (evaluations) at least 1.")
    length, most = model.encoder.config.max_length, settings["evaluation"]["max_tokens"]
    texts = {entry["name"]: read_heldout(entry["file"], tokenizer, length, most) for entry in watch["files"]}
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


def look(watch: Watch, model: MaskedLM, ranks: Ranks, dtype: torch.dtype) -> dict[str, Any]:
    """What metrics.jsonl holds under "watch": of each text loss, bits per character and rise; of the model its drift.

    drift.weights: |now - start| / |start| over all parameters. drift.cosine: mean over tokens between now and the start.
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


def judge(watch: Watch, state: Any, scores: dict[str, Any], run: Path, keep: Any) -> None:
    """Count the evaluations in a row at which a text is above its bound, keep the best checkpoint, or end the run.

    `state` holds the counters `above` (a name each), `lowest` and `lowest_step` of the run's own held-out loss. `keep(folder)`
    writes the model as it is. Raises UserError when the rule fires.
    """
    rises = {name: entry["rise"] for name, entry in watch.last.items() if name != "drift"}
    lowest = scores["loss"] if state.lowest is None else state.lowest
    rises[OWN] = scores["loss"] - lowest
    bound = watch.settings["rise"]
    for name, rise in rises.items():
        over = not math.isfinite(rise) or (bound is not None and rise > bound)
        state.above[name] = state.above.get(name, 0) + 1 if over else 0
    if math.isfinite(scores["loss"]) and (state.lowest is None or scores["loss"] < lowest) and not any(state.above.values()):
        state.lowest, state.lowest_step = scores["loss"], state.step
        keep(run / BEST)
    patience = watch.settings["patience"] or 1
    for name, rise in rises.items():
        if not math.isfinite(rise) or (bound is not None and state.above[name] >= patience):
            start = watch.losses.get(name, lowest)
            saved = f"{run / BEST} keeps step {state.lowest_step}" if state.lowest is not None else "nothing was worth keeping"
            raise UserError(
                f"{run}: collapse of {name} at step {state.step}: its held-out loss is {start + rise:.3f} nats a piece, "
                f"{rise:.3f} above {'its lowest' if name == OWN else 'the start'} ({start:.3f}), over watch.rise={bound} at "
                f"{state.above[name]} evaluation(s) in a row; the weights have moved by {watch.last['drift']['weights']:.1%}. "
                f"{saved}. Lower optimizer.lr, lengthen schedule.warmup, mix text of {name} in, or raise watch.rise."
            )


def keep_best(model: MaskedLM, tokenizer: Tokenizer, extra: dict[str, Any], ranks: Ranks) -> Any:
    """What `judge` calls to write the model, on the first rank."""

    def keep(folder: Path) -> None:
        if ranks.first:
            write_checkpoint(folder, model.weights(), model.encoder.config, tokenizer, extra)

    return keep
