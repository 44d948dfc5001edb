"""From a task model's scores to predictions, one for each example, as decoded by its kind."""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from data.features import collate, sorted_batches
from data.loader import ahead
from model.heads import TaskModel
from tasks.base import Rows, kind_of
from tasks.encoding import Encoded, swap_pair


@torch.no_grad()
def score_rows(
    model: TaskModel, encoded: Encoded, max_tokens: int, dtype: torch.dtype = torch.float32, with_loss: bool = False
) -> tuple[list[np.ndarray], float | None]:
    """Raw scores [positions, outputs] of every row (choice: [1], qa: [tokens, 2]) and, with `with_loss`, the mean loss.

    The model returns to the mode it was in.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    cast = (lambda: torch.autocast(device.type, dtype)) if dtype != torch.float32 else contextlib.nullcontext
    found: list[tuple[np.ndarray, torch.Tensor]] = []
    losses, count = [], 0
    batches = sorted_batches(encoded, max_tokens)
    make = partial(collate, encoded, device=device)
    for batch in ahead(batches, make) if device.type == "cuda" else map(make, batches):
        with cast():
            scores = model(batch)
        if with_loss:
            losses.append(model.loss(scores, batch))
            count += batch.count
        found.append((batch.rows, scores))
    rows: list[np.ndarray] = [np.zeros(0)] * len(encoded.rows)
    for numbers, scores in found:
        sizes = [len(encoded.rows[number].positions) for number in numbers]
        for number, part in zip(numbers, np.split(scores.cpu().numpy(), np.cumsum(sizes)[:-1]), strict=True):
            rows[number] = part
    model.train(was_training)
    return rows, float(torch.stack(losses).sum()) / max(1, count) if losses else None


def predictions(
    examples: Sequence[dict[str, Any]],
    encoded: Encoded,
    scores: Sequence[np.ndarray],
    labels: Sequence[str] | None,
    how: Mapping[str, Any] | None = None,
    other: Sequence[np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """One record for each example, in order: id, pred and scores, tokens, truncated, and fields for error lists.

    `how`: the decoding settings of the kind (Kind.decoding), such as "valid_tags" or "threshold". `other`: scores of the pairs
    in the other order.
    """
    kind, records = kind_of(encoded.kind), []
    for number, example in enumerate(examples):
        own = slice(encoded.first[number], encoded.first[number + 1])
        turned = None if other is None else other[own]
        record = kind.decode(example, scores[own], labels, how or {}, Rows(encoded, number), turned)
        cost = {"tokens": encoded.tokens(number), "truncated": bool(encoded.truncated[number])}
        records.append({"id": example["id"], **record, **cost})
    return records


def score_and_read(
    model: TaskModel,
    examples: Sequence[dict[str, Any]],
    encoded: Encoded,
    labels: Sequence[str] | None,
    how: Mapping[str, Any],
    max_tokens: int,
    dtype: torch.dtype = torch.float32,
) -> list[dict[str, Any]]:
    """`predictions` of a model; with how["both_orders"] pairs are read in both orders."""
    scores, _ = score_rows(model, encoded, max_tokens, dtype)
    other = score_rows(model, swap_pair(encoded), max_tokens, dtype)[0] if how.get("both_orders") else None
    return predictions(examples, encoded, scores, labels, how, other)


def with_gold(records: list[dict[str, Any]], examples: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Records of a predictions file: the gold answer is inserted after the id, and the group of examples that have one (the
    text of a question, the document of a pair; for multiple choice the school subject)."""

    def group(example: dict[str, Any]) -> dict[str, str]:
        return {"group": example["group"]} if example.get("group") else {}

    gold = kind_of(kind).gold
    return [{"id": r["id"], "gold": gold(e), **group(e), **r} for r, e in zip(records, examples, strict=True)]
