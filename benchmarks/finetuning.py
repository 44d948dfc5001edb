"""Fine-tuning steps against transformers' example scripts on the same rows, batches and weights.

    python -m benchmarks.finetuning
    python -m benchmarks.finetuning --model base --tasks ner qa --batch 32

The tasks are titles, pairs, names and question windows, from the real set if AZ_DATA names it and from the demo
otherwise. The peer runs BertFor*'s forward and backward with fused AdamW and clipping, with rows padded to the task's
max_length (as run_glue and run_qa do) or to the longest row of each batch (as run_ner does). Ours are finetune.py's flat
rows. On CPU the peer runs in fp32, as its scripts do, and on CUDA in bf16; ours runs in the precision that finetune.py
chooses, and also in fp32 if that differs. Rows are drawn from the whole train file. Every run is its own process, and the
runs alternate. Before measuring, both losses are computed in fp32 from the same weights and rows; a difference above 1e-4
is an error. A row of a question is a window of its context; only real tokens are counted, never padding.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf

from benchmarks.measure import child, in_child, in_turn, machine, markdown, model_shape, prepared, ratios, report, shown, spread
from benchmarks.peers import CLOSE, PAD
from benchmarks.pretraining import against_bar
from common.errors import UserError, command
from common.files import read_json, write_json
from common.launch import ROOT, read_option
from common.settings import typed
from data.features import collate, cut_by_tokens, encode, units
from data.loader import ahead
from data.packing import stream
from model.convert.families import config_to_transformers, to_transformers
from model.encoder import Encoder, EncoderConfig
from model.heads import TaskModel, has_pooler
from tasks.base import kind_of
from tasks.encoding import Encoded, Row
from tasks.load import load_task
from tasks.settings import TaskSettings
from tokenization.loading import load_tokenizer
from training.memory import keep_freed_blocks, keep_kernels_once
from training.precision import choose_dtype
from training.tracking import peak_memory, reset_peak_memory

BARS = {"max-length": 3.0, "dynamic": 1.3}  # required ratio of examples a second, ours over this peer's
REAL = {"titles": "az_news", "pairs": "az_paraphrase", "ner": "az_ner", "qa": "tr_qa"}  # files of conf/task
DEMO = {"titles": "topic", "pairs": "paraphrase", "ner": "ner", "qa": "qa"}
MAX_TOKENS = 16384  # of one forward pass of ours, as conf/recipe.yaml has it
HEADS = {
    "classification": "BertForSequenceClassification",
    "pair": "BertForSequenceClassification",
    "tagging": "BertForTokenClassification",
    "qa": "BertForQuestionAnswering",
}

# ---------------------------------------------------------------------------------------------------- a child


def read_rows(work: dict[str, Any]) -> Encoded:
    """Read the rows that the parent process wrote; each row is its own example."""
    encoded = Encoded(work["kind"])
    for values in read_json(work["rows"]):
        ids, positions, targets = (np.array(values[name]) for name in ("ids", "positions", "targets"))
        encoded.close([Row(ids.astype(np.int32), values["second"], positions, targets)], False)
    return encoded


def models(work: dict[str, Any]) -> tuple[TaskModel, torch.nn.Module]:
    """Our task model with weights from seed 0, and transformers' model with the same weights."""
    import transformers

    torch.manual_seed(0)
    config, kind = EncoderConfig.from_dict(work["shape"]), work["kind"]
    ours = TaskModel(Encoder(config, pooler=has_pooler(kind, "pooler")), kind, work["labels"])
    values = config_to_transformers(config, "bert", {"pad_token_id": PAD}) | {
        "num_labels": ours.head.out_features,
        "attention_probs_dropout_prob": work["attention_dropout"],
    }
    values.pop("architectures")
    peer = getattr(transformers, HEADS[kind])(transformers.BertConfig(**values))
    weights = to_transformers({n: w for n, w in ours.state_dict().items() if n.startswith("encoder.")}, config, "bert")
    weights |= {f"{'qa_outputs' if kind == 'qa' else 'classifier'}.{name}": w for name, w in ours.head.state_dict().items()}
    result = peer.load_state_dict(weights, strict=False)
    if result.missing_keys or result.unexpected_keys:
        raise UserError(f"transformers' model does not take our weights: {result}. Use a version from requirements-dev.txt.")
    return ours, peer


def padded(encoded: Encoded, numbers: np.ndarray, width: int | None) -> dict[str, torch.Tensor]:
    """The rows as the peer reads them, padded to `width` or to the longest."""
    rows = [encoded.rows[number] for number in numbers]
    shape = (len(rows), width or max(len(row.ids) for row in rows))
    ids, types, mask, tags = np.full(shape, PAD), np.zeros(shape, int), np.zeros(shape, int), np.full(shape, -100)
    for number, row in enumerate(rows):
        n = len(row.ids)
        ids[number, :n], types[number, row.second : n], mask[number, :n] = row.ids, 1, 1
        if encoded.kind == "tagging":
            tags[number, row.positions] = row.targets
    batch = {"input_ids": ids, "token_type_ids": types, "attention_mask": mask}
    targets = np.array([row.targets for row in rows]) if encoded.kind != "tagging" else tags
    if encoded.kind == "qa":
        batch |= {"start_positions": targets[:, 0], "end_positions": targets[:, 1]}
    else:
        batch["labels"] = targets if encoded.kind == "tagging" else targets[:, 0]
    return {name: torch.from_numpy(np.ascontiguousarray(value, dtype=np.int64)) for name, value in batch.items()}


def check(work: dict[str, Any], encoded: Encoded) -> dict[str, Any]:
    """Both losses in fp32 without dropout. Questions are compared one by one: the peer's softmax includes padding."""
    ours, peer = (model.eval() for model in models(work))
    numbers = np.arange(1 if work["kind"] == "qa" else min(8, len(encoded)))
    with torch.no_grad():
        batch = collate(encoded, numbers)
        pair = {
            "ours": float(ours.loss(ours(batch), batch) / batch.count),
            "theirs": float(peer(**padded(encoded, numbers, None)).loss),
        }
    if not abs(pair["ours"] - pair["theirs"]) <= CLOSE:
        raise UserError(f"{work['kind']}: the losses differ by more than {CLOSE}: {pair}. Nothing was measured.")
    return pair


def steps(work: dict[str, Any], encoded: Encoded, batches: list[np.ndarray]) -> Iterator[torch.Tensor]:
    """Optimizer steps, one for each batch; returns their losses."""
    device = torch.device(work["device"])
    ours, peer = models(work)
    flat = work["way"].startswith("ours")
    if flat:
        keep_freed_blocks()  # as finetune.py does
        keep_kernels_once()
    model = (ours if flat else peer).to(device)
    del ours, peer
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-5, weight_decay=0.01, fused=True)
    dtype = choose_dtype("auto" if work["way"] == "ours" or device.type == "cuda" else "fp32", device)
    cast = (lambda: torch.autocast(device.type, dtype)) if dtype != torch.float32 else contextlib.nullcontext

    def made(numbers: np.ndarray) -> tuple[list[Any], int]:
        if not flat:
            return [padded(encoded, numbers, work["max_length"] if work["way"] == "max-length" else None)], 1
        groups = [units(encoded)[number] for number in numbers]
        parts = [collate(encoded, rows, device) for rows in cut_by_tokens(encoded, groups, MAX_TOKENS)]
        return parts, sum(part.count for part in parts)

    # As finetune.py does; the example scripts collate in the main process unless told otherwise.
    ready = ahead(batches, made) if flat and device.type == "cuda" else map(made, batches)
    for parts, count in ready:
        total = torch.zeros((), device=device)
        for part in parts:
            with cast():
                if flat:
                    loss = model.loss(model(part), part) / count
                else:
                    loss = model(**{name: value.to(device, non_blocking=True) for name, value in part.items()}).loss
            loss.backward()
            total += loss.detach()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield total


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """Check the losses, or run warm-up steps and then measured ones."""
    encoded = read_rows(work)
    if work["way"] == "check":
        return check(work, encoded)
    device = torch.device(work["device"])
    reset_peak_memory(device)
    order = stream(0).permutation(np.arange((work["warmup"] + work["steps"]) * work["batch"]) % len(encoded))
    batches = order.reshape(-1, work["batch"])
    taken = steps(work, encoded, list(batches))
    last = [next(taken) for _ in range(work["warmup"])]
    if device.type == "cuda":
        torch.cuda.synchronize()
    begin, effort = time.perf_counter(), time.process_time()
    last += list(taken)
    float(last[-1])  # waits for the device
    seconds, effort = time.perf_counter() - begin, time.process_time() - effort
    measured = batches[work["warmup"] :].flatten()
    tokens = sum(len(encoded.rows[number].ids) for number in measured)
    return {
        "examples_per_second": len(measured) / seconds,
        "tokens_per_second": tokens / seconds,
        "seconds": seconds,
        "cpu_seconds": effort,
        "peak_bytes": peak_memory(device),
        "loss": float(last[-1]),
    }


# ---------------------------------------------------------------------------------------------------- the table


def rows_of(name: str, data: Path, needed: int, folder: Path) -> dict[str, Any]:
    """Encode at most `needed` rows of a task once for all child processes: kind, labels, max_length, mean length, file."""
    real = (Path(os.environ.get("AZ_DATA", ROOT.parent / "shared" / "az")) / "tasks").is_dir()
    chosen = read_option("task", (REAL if real else DEMO).get(name, name))
    options = OmegaConf.to_container(OmegaConf.create({"language": "azerbaijani", "task": chosen}), resolve=True)["task"]
    task = load_task(typed(TaskSettings, options, "task"))
    longest = kind_of(task.kind).max_length
    drawn = [task.train[number] for number in stream(0).permutation(len(task.train))[:needed]]  # files are sorted by text
    encoded = encode(drawn, task.kind, load_tokenizer(data / "tokenizer"), task.labels, longest, None)
    rows = [
        {"ids": row.ids.tolist(), "second": row.second, "positions": row.positions.tolist(), "targets": row.targets.tolist()}
        for row in (encoded.rows[number] for number in stream(1).permutation(len(encoded.rows))[:needed])
    ]
    write_json(folder / f"{name}.json", rows)
    mean = sum(len(row["ids"]) for row in rows) / len(rows)
    return {
        "task": task.name,
        "kind": task.kind,
        "labels": len(task.labels or []),
        "max_length": longest,
        "mean": mean,
        "rows": str(folder / f"{name}.json"),
    }


@command
def main() -> None:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.finetuning", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", nargs="+", choices=list(REAL), default=list(REAL))
    parser.add_argument("--model", default="small", help="small, base, large, or a bert_* in conf/model (default small)")
    parser.add_argument("--data", help="folder with a tokenizer (default: made once in runs/)")
    parser.add_argument("--vocab", type=int, default=64000, help="tokens (default 64000)")
    parser.add_argument("--batch", type=int, default=32, help="rows of a step, on all sides (default 32, as finetune.py's)")
    parser.add_argument("--attention-dropout", type=float, default=0.1, help="of the peer (default 0.1, its config's)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="alternating runs of every way (default 5)")
    parser.add_argument("--steps", type=int, default=6, help="measured a run (default 6)")
    parser.add_argument("--warmup", type=int, default=2, help="warm-up steps before them (default 2)")
    parser.add_argument("--out", help="folder for the table (.md) and numbers (.json)")
    options = parser.parse_args()
    found: dict[str, Any] = {"machine": machine(options.threads), "options": vars(options), "tasks": {}}
    table, notes = [], []
    data = prepared(options.data, options.vocab)
    shape = model_shape(options.model, vocab_size=options.vocab, max_length=512)
    with tempfile.TemporaryDirectory() as folder:
        for name in options.tasks:
            task = rows_of(name, data, (options.steps + options.warmup) * options.batch, Path(folder))
            base = {
                "shape": shape,
                "batch": options.batch,
                "device": options.device,
                "warmup": options.warmup,
                "steps": options.steps,
                "attention_dropout": options.attention_dropout,
                **task,
            }
            losses = in_child("benchmarks.finetuning", base | {"way": "check"}, options.threads)
            mixed = options.device == "cpu" and choose_dtype("auto", torch.device("cpu")) != torch.float32  # the peers are not
            works = {way: base | {"way": way} for way in ("ours", *(["ours fp32"] if mixed else []), *BARS)}
            runs = in_turn("benchmarks.finetuning", works, options.repeats, options.threads)
            found["tasks"][name] = {"task": task, "losses": losses, "runs": runs}
            for way, taken in runs.items():
                speeds = [[run["examples_per_second"] for run in runs[other]] for other in ("ours", way)]
                speed = ratios(*speeds)
                effort = ratios([run["cpu_seconds"] for run in taken], [run["cpu_seconds"] for run in runs["ours"]])
                tokens = spread([run["tokens_per_second"] for run in taken])
                memory = spread([run["peak_bytes"] for run in taken])["median"]
                table.append(
                    [
                        f"{name} ({task['task']}, {task['mean']:.0f} tokens a row)",
                        way,
                        shown(spread(speeds[1]), ",.1f"),
                        f"{tokens['median']:,.0f}",
                        shown(speed, ".2f"),
                        f"{effort['median']:.2f}",
                        f"{memory / 1e6:,.0f}",
                    ]
                )
                if way in BARS:
                    notes.append(against_bar(f"{name}: {way}", speed["median"], BARS[way], above=True))
            notes.append(
                f"{name}: loss of the same weights and rows (fp32), ours and theirs: {losses['ours']:.5f} and "
                f"{losses['theirs']:.5f}."
            )
    head = ["task", "way", "rows/s, median (range)", "real tokens/s", "ours / this", "by CPU time", "peak MB"]
    notes.append(f"{options.repeats} alternating runs of {options.steps} steps of {options.batch} rows after {options.warmup}.")
    report(f"fine-tuning {options.model} {options.device}", markdown(head, table), notes, found, options.out)


if __name__ == "__main__":
    with contextlib.suppress(IndexError):
        if sys.argv[1].startswith("{"):
            child(measure)
            sys.exit()
    sys.exit(main())
