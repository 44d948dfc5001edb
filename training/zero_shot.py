"""What a checkpoint's own next-sentence head says of a task, without any training: a row of the table, as prediction files.

For checkpoints that were pre-trained with next-sentence prediction (BERT, mBERT) and tasks with next_sentence=true, of
pairs or of options. Like a baseline the row has one run, as seed-0.
"""

import shutil
import time
from pathlib import Path
from typing import Any

import torch

from common.files import digest_of, put_in_place, write_json, write_jsonl
from evaluation.metrics import score_predictions
from model.decoding import predictions, score_rows, with_gold
from model.next_sentence import put_head, read_head
from model.store import resolve_checkpoint
from training.finetuning import VERSION, Data, Start, build_model, finished


def zero_shot(start: Start, data: Data, max_tokens: int, device: torch.device, out: Path) -> dict[str, Any] | None:
    """Write <out>/<model>-zero-shot/<task>/seed-0/ and return its summary; None for a task or a checkpoint without such a row.

    Computed in fp32, batches of at most `max_tokens` tokens. One that is there already for the same data and weights stays.
    """
    task = data.task
    fits = task.next_sentence and (task.kind == "choice" or len(task.labels or []) == 2)
    head = read_head(resolve_checkpoint(start.path)) if fits and start.weights is not None else None
    if head is None:
        return None
    name = f"{start.name}-zero-shot"
    folder = out / name / task.name / "seed-0"
    values = {part: value.tolist() for part, value in sorted(head.items())}
    digest = digest_of([VERSION, start.identity, values, data.digest, data.max_length])
    if (before := finished(folder, digest, False, ("dev", "test"))) is not None:
        return {**before, "reused": True, "folder": str(folder)}
    clock, beside = time.time(), folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    model = build_model(start, task.kind, len(task.labels or []), 0)
    put_head(model, head, task.labels, task.positive)
    model.to(device)
    scores: dict[str, float] = {}
    for split in ("dev", "test"):
        examples, encoded = getattr(task, split), data.splits[split]
        raw, _ = score_rows(model, encoded, max_tokens)
        records = with_gold(predictions(examples, encoded, raw, task.labels), examples, task.kind)
        scored = score_predictions(records, task.kind, task.labels, task.metric, task.positive, full=False)
        scores[f"{split}_score"] = scored["score"]
        write_jsonl(beside / f"predictions-{split}.jsonl", records)
    summary = {
        "status": "done", "model": name, "task": task.name, "kind": task.kind, "seed": 0, "deterministic": True,
        "metric": task.metric, "labels": task.labels, "positive": task.positive, **scores,
        "hours": (time.time() - clock) / 3600, "trainable_parameters": 0, "train_tokens": 0, "max_length": data.max_length,
        "examples": {split: len(getattr(task, split)) for split in data.splits}, "checkpoint": start.path, "digest": digest,
    }  # fmt: skip
    write_json(beside / "summary.json", summary)
    put_in_place(beside, folder)
    return {**summary, "folder": str(folder)}
