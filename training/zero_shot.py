"""Score a task with a checkpoint's own next-sentence head, without any training, and write prediction files.

This is for checkpoints that were pre-trained with next-sentence prediction (BERT, mBERT) and for pair and choice tasks
with next_sentence=true. Like a baseline, the row has one run, seed-0.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from common.files import digest_of, put_in_place, write_json, write_jsonl
from model.decoding import score_and_read, with_gold
from model.next_sentence import put_head, read_head
from model.store import resolve_checkpoint
from tasks.scoring import score_predictions
from training.runs import Data, deciding_code, finished
from training.task_models import Start, build_model


def zero_shot(start: Start, data: Data, max_tokens: int, device: torch.device, out: Path) -> dict[str, Any] | None:
    """Write <out>/<model>-zero-shot/<task>/seed-0/ and return its summary; None if the task or the checkpoint does not fit.

    Computed in fp32 in batches of at most `max_tokens` tokens. An existing result for the same data and weights is kept.
    """
    task = data.task
    fits = task.next_sentence and len(task.labels or "ab") == 2
    head = read_head(resolve_checkpoint(start.path)) if fits and start.weights is not None else None
    if head is None:
        return None
    name = f"{start.name}-zero-shot"
    values = {part: value.tolist() for part, value in sorted(head.items())}
    digest = digest_of([deciding_code(), start.identity, values, data.digest, data.max_length])

    def predict() -> dict[str, list[dict[str, Any]]]:
        model = build_model(start, task.kind, len(task.labels or []), 0)
        put_head(model, head, task.labels, task.positive)
        model.to(device)
        parts = {split: (getattr(task, split), data.splits[split]) for split in ("dev", "test")}
        return {split: score_and_read(model, *part, task.labels, task.decoding, max_tokens) for split, part in parts.items()}

    return write_row(out / name / task.name / "seed-0", digest, start, data, predict)


def write_row(
    folder: Path, digest: str, start: Start, data: Data, predict: Callable[[], dict[str, list[dict[str, Any]]]]
) -> dict[str, Any]:
    """Write <model>/<task>/seed-0 from the records of dev and test that `predict` returns; returns the summary.

    An existing result with the same digest is kept, and then `predict` is not called.
    """
    task = data.task
    if (before := finished(folder, digest, False, ("dev", "test"))) is not None:
        return {**before, "reused": True, "folder": str(folder)}
    clock, beside = time.time(), folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    scores: dict[str, float] = {}
    for split, read in predict().items():
        records = with_gold(read, getattr(task, split), task.kind)
        scored = score_predictions(records, task.own, task.labels, task.metric, task.positive, full=False)
        scores[f"{split}_score"] = scored["score"]
        write_jsonl(beside / f"predictions-{split}.jsonl", records)
    summary = {
        "status": "done",
        "model": folder.parent.parent.name,
        "task": task.name,
        "kind": task.kind,
        "seed": 0,
        "deterministic": True,
        "metric": task.metric,
        "labels": task.labels,
        "positive": task.positive,
        "language": task.language and task.language.name,
        **scores,
        "hours": (time.time() - clock) / 3600,
        "trainable_parameters": 0,
        "train_tokens": 0,
        "max_length": data.max_length,
        "examples": {split: len(getattr(task, split)) for split in data.splits},
        "checkpoint": start.path,
        "digest": digest,
    }
    write_json(beside / "summary.json", summary)
    put_in_place(beside, folder)
    return {**summary, "folder": str(folder)}
