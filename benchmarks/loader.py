"""Tokens a second on one core from shards to packed and masked batches, and the loader's share of a training step.

    python -m benchmarks.loader
    python -m benchmarks.loader --data runs/mine --length 512 --batch-tokens 32768 --profile

Seconds are CPU time of the process. The plan of an epoch is made once and used by all its batches. Its cost is shown alone
and, as "whole epoch", together with the batches. The content of a batch is a function of (seed, epoch, number), and tests
in tests/data hold it fixed.
"""

import argparse
import cProfile
import pstats
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import in_child, machine, markdown, model_shape, prepared, report, shown, spread
from benchmarks.peers import group
from benchmarks.pretraining import against_bar
from common.errors import command
from data.loader import Loader
from data.masking import Masking
from data.shards import open_shards
from tokenization.loading import load_tokenizer

BAR, SHARE_BAR = 5e6, 0.01  # tokens a second and core; share of a step's CPU time


@command
def main() -> None:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loader", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder with tokenizer and shards (default: made once in runs/)")
    parser.add_argument("--vocab", type=int, default=64000, help="vocabulary size of the folder that is made (default 64000)")
    parser.add_argument("--length", type=int, default=512, help="tokens of the longest window (default 512)")
    parser.add_argument("--batch-tokens", type=int, default=32768, help="of a batch (default 32768)")
    parser.add_argument("--masking", default="paper", help="a file of conf/masking (default paper)")
    parser.add_argument("--unit", default="token", help="token, word or span (default token)")
    parser.add_argument("--repeats", type=int, default=5, help="epochs read (default 5)")
    parser.add_argument("--batches", type=int, default=200, help="at most of an epoch (default 200)")
    parser.add_argument("--model", default="small", help="model of the training step for comparison (default small)")
    parser.add_argument("--step-tokens", type=int, default=4096, help="of that step; 0 leaves the step out (default 4096)")
    parser.add_argument("--profile", action="store_true", help="print where the time of one epoch goes")
    parser.add_argument("--out", help="folder for the table (.md) and numbers (.json)")
    options = parser.parse_args()
    measure(options, prepared(options.data, options.vocab))


def measure(options: argparse.Namespace, data: Path) -> None:
    """Read epochs and print the table."""
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(data / "tokenizer")
    shards = open_shards(data / "shards", tokenizer)
    wanted = {key: value for key, value in group("masking", options.masking).items() if not key.startswith("rate_")}
    masking = Masking.of(tokenizer, **wanted | {"unit": options.unit})
    loader = Loader(shards, masking, np.ones(len(shards.sources)), options.batch_tokens, 0, tokenizer.cls_id, tokenizer.sep_id)

    def epoch(number: int) -> tuple[float, float, float, int]:
        """CPU seconds of the plan and of the batches, the share of the epoch that was read, and its tokens of text."""
        begin = time.process_time()
        count = len(loader.plan(number, options.length))
        planned = time.process_time()
        read = range(min(count, options.batches))
        tokens = sum(int(loader.batch(number, batch, options.length, 0.15).lengths_by_source.sum()) for batch in read)
        return planned - begin, time.process_time() - planned, len(read) / count, tokens

    epoch(0)  # the shards' pages are read from disk
    if options.profile:
        profile = cProfile.Profile()
        profile.runcall(epoch, 1)
        pstats.Stats(profile).sort_stats("tottime").print_stats(12)
    found: dict[str, Any] = {"machine": machine(1), "options": vars(options)}
    runs = found["runs"] = [epoch(number) for number in range(1, options.repeats + 1)]
    batches = spread([tokens / seconds for _, seconds, _, tokens in runs])
    whole = spread([tokens / (seconds + plan * share) for plan, seconds, share, tokens in runs])
    notes = [against_bar("million tokens/s and core, plan included", whole["median"] / 1e6, BAR / 1e6, above=True)]
    if options.step_tokens:
        work = {
            "shape": model_shape(options.model, vocab_size=max(options.vocab, tokenizer.vocab_size)),
            "data": str(data),
            "way": "ours",
            "length": min(options.length, 512),
            "masking": options.masking,
            "rate": 0.15,
            "batch_tokens": options.step_tokens,
            "optimizer": "adamw",
            "compile": False,
            "precision": "auto",
            "device": "cpu",
            "warmup": 1,
            "steps": 3,
        }
        step = in_child("benchmarks.peers", work, 1)
        share = step["tokens"] / step["cpu_seconds"] / whole["median"]
        found["step"] = step
        notes.append(against_bar(f"share of a step of {options.model} (CPU time)", share, SHARE_BAR, above=False))
    rows = [
        [
            f"{options.length}",
            f"{options.batch_tokens:,}",
            options.unit,
            shown(batches),
            shown(whole),
            f"{1e3 * spread([run[0] for run in runs])['median']:.0f} ms",
        ]
    ]
    head = ["length", "tokens a batch", "masks", "batches: tokens/s, median (range)", "whole epoch: tokens/s", "one plan"]
    report(f"loader {options.length}", markdown(head, rows), [f"Text of {data.name}.", *notes], found, options.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
