"""Held-out bits per character by document length, for several window lengths.

    python -m training.lengths CHECKPOINT FILE.jsonl[.gz] [--windows 128,512,2048]

The masked positions of a text are the same in every column (training/heldout.py draws them over the whole text). A row
therefore tells what more context is worth, and whether a model with an extended context still reads short texts as well.
"""

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

from common.errors import UserError, command
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tokenization.tokenizer import Tokenizer
from training.distributed import Ranks, start
from training.heldout import HeldOut, evaluate, read_heldout
from training.precision import choose_dtype

EDGES = (128, 512, 2048, 8192)  # upper bounds of the length groups, in tokens


def length_group(tokens: int) -> str:
    """Name of the length group of a document with this many tokens."""
    low = 0
    for edge in EDGES:
        if tokens <= edge:
            return f"{low + 1}-{edge}"
        low = edge
    return f"over {low}"


def by_document_length(path: str | Path, tokenizer: Tokenizer, window: int) -> HeldOut:
    """Held-out windows whose "source" is the length group of their document."""
    whole = read_heldout(path, tokenizer, 1 << 30)  # one window for each document
    names = [length_group(len(document.ids)) for document in whole.windows]
    order = [name for name in dict.fromkeys(map(length_group, (*EDGES, EDGES[-1] + 1))) if name in names]
    parts = read_heldout(path, tokenizer, window)
    size = window - 2
    windows = iter(parts.windows)
    for document, name in zip(whole.windows, names, strict=True):
        for _ in range(math.ceil((len(document.ids) - 2) / size)):
            next(windows).source = order.index(name)
    return HeldOut(order, parts.windows)


def length_table(
    model: MaskedLM, tokenizer: Tokenizer, path: str | Path, windows: list[int], ranks: Ranks, dtype: Any
) -> dict[str, Any]:
    """{window: {length group or "all": scores}} for the given window lengths."""
    table: dict[str, Any] = {}
    for window in windows:
        report = evaluate(model, by_document_length(path, tokenizer, window), ranks, dtype, batch_tokens=max(8192, window))
        sources = report.pop("sources")
        table[str(window)] = sources | {"all": report}
    return table


@command
def main() -> None:
    """Command line: print the table, or JSON with --json."""
    parser = argparse.ArgumentParser(prog="python -m training.lengths", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", help="checkpoint or run folder")
    parser.add_argument("file", help='held-out text: .jsonl or .jsonl.gz with "text"')
    parser.add_argument("--windows", help="window lengths in tokens, by commas (default: 128, 512, ... up to the model's)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--precision", default="fp32", help="fp32 (exact, the default), bf16 or auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()
    ranks = start(options.device)
    model, tokenizer = load_masked_lm(options.checkpoint)
    longest = model.encoder.config.max_length
    try:
        windows = [int(word) for word in options.windows.split(",")] if options.windows else [*EDGES, longest]
    except ValueError:
        raise UserError(f"--windows {options.windows}: expected numbers of tokens by commas.") from None
    windows = sorted({window for window in windows if options.windows or window <= longest})
    if windows[0] < 8 or windows[-1] > longest:
        raise UserError(f"--windows {options.windows}: the model reads 8 to {longest} tokens.")
    dtype = choose_dtype(options.precision, ranks.device)
    table = length_table(model.to(ranks.device), tokenizer, options.file, windows, ranks, dtype)
    if options.json:
        print(json.dumps(table))
        return
    print("bits per character; rows: tokens of the document, columns: tokens of the window")
    print(f"{'':<12}{'masked':>9}" + "".join(f"{window:>9}" for window in table))
    first = next(iter(table.values()))
    for name in first:
        cells = [scores[name]["bits_per_character"] for scores in table.values()]
        print(f"{name:<12}{first[name]['masked']:>9,}" + "".join("        -" if x is None else f"{x:9.4f}" for x in cells))


if __name__ == "__main__":
    sys.exit(main())
