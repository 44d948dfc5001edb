"""True likelihoods of texts, from a checkpoint that was also trained left to right (masking.causal above 0).

    python -m training.likelihood CHECKPOINT FILE [--column text]

Each token is predicted from the earlier ones of its text, by the chain rule, so the bits of different models and tokenizers
compare. Printed are the bits of the second half of a text given the first half, as Goldfish reports for FLORES sentences
(Chang et al. 2024, arXiv 2408.10441), here defined so: the second half is the tokens that begin at or after the middle
character of the text. The end of a text is not predicted. Texts longer than the model's window are cut, with a note.
"""

import argparse
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError, command
from common.progress import progress
from common.task_files import read_clean
from data.layout import Layout
from data.packing import SPECIALS
from evaluation.statistics import student_half
from model.mlm import MaskedLM
from model.store import load_masked_lm, read_config, resolve_checkpoint
from tokenization.tokenizer import Tokenizer
from training.distributed import start


@dataclass
class Likelihood:
    """Bits of one text. characters: all of them, white space too."""

    bits: float
    bits_of_second_half: float
    characters: int
    tokens: int


@torch.no_grad()
def likelihoods(model: MaskedLM, tokenizer: Tokenizer, texts: list[str], batch_tokens: int = 4096) -> list[Likelihood]:
    """The bits of each text, read left to right in fp32. UserError for a text without tokens."""
    device, room = model.head.bias.device, model.encoder.config.max_length - SPECIALS
    model.eval()
    encoded = tokenizer.encode_with_offsets(texts)
    for text, encoding in zip(texts, encoded, strict=True):
        if not len(encoding.ids):
            raise UserError(f"{text[:80]!r} has no tokens. Remove it.")
    order = sorted(range(len(texts)), key=lambda i: -len(encoded[i].ids))
    batches: list[list[int]] = [[]]
    for i in order:
        if batches[-1] and sum(len(encoded[j].ids[:room]) + 1 for j in batches[-1]) + len(encoded[i].ids[:room]) > batch_tokens:
            batches.append([])
        batches[-1].append(i)
    found: dict[int, Likelihood] = {}
    for batch in progress(batches if texts else [], desc="likelihoods", unit=" batches"):
        parts = [encoded[i].ids[:room].astype(np.int64) for i in batch]
        # [CLS] predicts the first token; the last token predicts nothing, and so no [SEP] is needed.
        ids = torch.from_numpy(np.concatenate([np.append(tokenizer.cls_id, part[:-1]) for part in parts])).to(device)
        wanted = torch.from_numpy(np.concatenate(parts)).to(device)
        layout = Layout.of([len(part) for part in parts], device, causal=True)
        hidden = model.hidden_at(ids, layout, torch.arange(len(ids), device=device))
        logs = [
            model.decode(part).float().log_softmax(-1).gather(1, targets[:, None])[:, 0]
            for part, targets in zip(hidden.split(1024), wanted.split(1024), strict=True)
        ]
        bits = -torch.cat(logs).double().cpu().numpy() / math.log(2)
        begin = 0
        for i, part in zip(batch, parts, strict=True):
            own, begins = bits[begin : begin + len(part)], encoded[i].offsets[: len(part), 0]
            second = begins >= len(texts[i]) / 2
            found[i] = Likelihood(float(own.sum()), float(own[second].sum()), len(texts[i]), len(part))
            begin += len(part)
    return [found[i] for i in range(len(texts))]


def report(found: list[Likelihood]) -> dict[str, Any]:
    """Means over texts with half of their 95 % interval, and bits per character of all text."""
    halves = [one.bits_of_second_half for one in found]
    return {
        "texts": len(found),
        "bits_of_second_half": float(np.mean(halves)),
        "half_interval": student_half(halves),
        "bits_per_character": sum(one.bits for one in found) / sum(one.characters for one in found),
    }


def causal_share(checkpoint: str | Path) -> float:
    """Share of batches that the checkpoint was trained on left to right; UserError if it was on none."""
    share = read_config(resolve_checkpoint(checkpoint))[1].get("causal", 0.0)
    if not share:
        raise UserError(
            f"{checkpoint}: was never trained left to right, so it has no likelihoods. Pre-train with masking.causal above 0 "
            "(for example 0.25), or use python -m training.minimal_pairs, which scores with masks."
        )
    return float(share)


@command
def main() -> None:
    """Command line: print the report as lines, or as JSON with --json."""
    parser = argparse.ArgumentParser(prog="python -m training.likelihood", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", help="checkpoint or run folder")
    parser.add_argument("file", help="texts: a task file of any format (tsv, csv, jsonl ...)")
    parser.add_argument("--column", default="text", help="the column with the text")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    share = causal_share(options.checkpoint)
    texts = []
    for line, row in read_clean(options.file):
        if not isinstance(row.get(options.column), str) or not row[options.column].strip():
            raise UserError(
                f"{options.file}, line {line}: no text in column {options.column!r} (there are: {', '.join(map(str, row))}). "
                "Name the column with --column."
            )
        texts.append(row[options.column])
    if not texts:
        raise UserError(f"{options.file}: no texts in it.")
    model, tokenizer = load_masked_lm(options.checkpoint)
    model = model.to(start(options.device).device)
    found = likelihoods(model, tokenizer, texts)
    figures = report(found) | {"causal_share_of_training": share}
    if options.json:
        print(json.dumps(figures))
        return
    cut = sum(one.tokens == model.encoder.config.max_length - SPECIALS for one in found)
    half = "" if figures["half_interval"] is None else f" ± {figures['half_interval']:.2f}"
    print(f"{len(texts)} texts, read left to right (share of training: {share:g})")
    print(f"bits of the second half given the first: {figures['bits_of_second_half']:.2f}{half}")
    print(f"bits per character, white space included: {figures['bits_per_character']:.4f}")
    if cut:
        print(f"{cut} texts fill the window of {model.encoder.config.max_length} tokens and may have been cut")


if __name__ == "__main__":
    sys.exit(main())
