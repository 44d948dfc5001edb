"""transformers' pre-training script as an entry of the record book: same text, held-out sample, suite and counted FLOPs.

    python -m benchmarks.record_peer '{"words": [...], "run": FOLDER, "rate": 1e-3}'     (benchmarks.records calls it)

The model is BertForMaskedLM in the shape of `model=bert_mini`, on joined blocks of 128 tokens in batches of 16, with AdamW,
warm-up over 5 % of the budget and then linear to 0. Its FLOPs are those of `training.flops.step_flops` for the documents and
masked positions of its batches. transformers decodes all positions; only the masked ones are counted, in the peer's favour.
The folder that is written has the files of a run of train.py.
"""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch

from benchmarks.measure import child
from benchmarks.peers import peer_model, peer_steps
from benchmarks.time_to_loss import factor
from common.errors import UserError
from common.launch import ROOT, settle_budget
from common.settings import plain
from model.convert.families import from_transformers
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from tokenization.loading import load_tokenizer
from training.distributed import start
from training.flops import step_flops
from training.heldout import evaluate, read_heldout
from training.settings import Pretraining, settings_of
from training.sizes import block_rms
from training.starting import shape_of
from training.task_scores import prepare_tasks, score_tasks
from training.tracking import Tracker, peak_memory, shown_as

ROWS, MASKED, LOOKS, TIMED = 16, 0.15, 20, 20  # LOOKS: held-out evaluations; TIMED: steps over which a speed is measured


def settings_for_peer(words: list[str], run: Path) -> Pretraining:
    """The settings of train.py for these words of a command line."""
    with hydra.initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = hydra.compose("train", [*words, f"run_dir={run}"])
    settle_budget(config, words)
    return settings_of(config, Pretraining)


def work_of(settings: Pretraining, shape: EncoderConfig, steps: int) -> dict[str, Any]:
    """The settings that benchmarks.peers needs."""
    return {
        "shape": shape.to_dict(), "data": str(Path(settings.tokenizer_dir).parent), "masking": "paper", "rate": MASKED,
        "length": shape.max_length, "batch_tokens": ROWS * shape.max_length, "attention_dropout": 0.1, "way": "theirs",
        "compile": False, "precision": "fp32" if settings.precision == "fp32" else "auto", "warmup": 0, "steps": steps,
    }  # fmt: skip


def run_peer(work: dict[str, Any]) -> dict[str, Any]:
    """Train, evaluate and score the peer into `work["run"]`; with "timed", only measure the FLOPs a second of its step."""
    run = Path(work["run"])
    settings = settings_for_peer(work["words"], run)
    ranks = start(settings.device)
    tokenizer = load_tokenizer(settings.tokenizer_dir)
    shape = shape_of(settings.model, settings.start_from, settings.longest, tokenizer)
    torch.manual_seed(settings.seed)
    raw = MaskedLM(shape, last_block_on_masked=False).to(ranks.device)
    lengths = np.full(ROWS, shape.max_length)
    each = step_flops(raw, lengths, round(MASKED * lengths.sum()))
    count = int(settings.budget.flops / each)
    if count < 1:
        raise UserError(f"a step of the peer takes {each:.2g} FLOPs, more than the whole budget.")
    spec = work_of(settings, shape, max(count, TIMED + 1))
    peer = peer_model(spec, raw).to(ranks.device).train()
    done = [0]
    steps = peer_steps(spec, peer, ranks.device, lambda: work["rate"] * factor(done[0] / count))
    if work.get("timed"):
        next(steps)
        begun = time.perf_counter()
        for _ in range(TIMED):
            next(steps)
        return {"flops_per_second": TIMED * each / (time.perf_counter() - begun)}
    heldout = read_heldout(settings.heldout_file, tokenizer, shape.max_length, settings.evaluation.max_tokens)
    shown = shown_as("train", settings.name, run.name, run, ["transformers", f"seed {settings.seed}"])
    tracker = Tracker(run, settings.tracker, shown, plain(settings))
    names, ours = set(raw.state_dict()), MaskedLM(shape)
    seconds, scores = 0.0, {}
    for number in range(1, count + 1):
        begun = time.perf_counter()
        loss = float(next(steps)[2])
        seconds += time.perf_counter() - begun
        done[0] = number
        counters = {"step": number, "tokens": number * ROWS * shape.max_length, "minutes": seconds / 60}
        if number % max(1, count // LOOKS) == 0 or number == count:
            ours.load_state_dict(from_transformers(peer.state_dict(), shape, "bert", names))
            scores = evaluate(ours, heldout, ranks, torch.float32)
            tracker.log(counters | {"loss": loss})
            tracker.log(counters | {"heldout": scores})
    tasks = prepare_tasks(settings.evaluation, settings.language, settings.precision, tokenizer, shape)
    task_scores = score_tasks(tasks, ours, tokenizer, ranks.device)
    write_checkpoint(run / "checkpoint", ours.weights(), shape, tokenizer, {"name": settings.name})
    weights = ours.weights()
    tracker.close({
        "status": "done", "name": settings.name, "seed": settings.seed, "steps": count,
        "tokens": count * ROWS * shape.max_length, "parameters": sum(value.numel() for value in weights.values()),
        "hours": seconds / 3600, "flops": count * each, "heldout": scores, "tasks": task_scores,
        "block_weights_rms": block_rms(weights), "peak_memory_bytes": peak_memory(ranks.device),
        "encoder": asdict(shape),
    })  # fmt: skip
    return {"run": str(run)}


if __name__ == "__main__":
    child(run_peer)
