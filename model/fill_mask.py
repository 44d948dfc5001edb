"""What a pre-trained model puts in the place of [MASK].

    python -m model.fill_mask CHECKPOINT "Bakı Azərbaycanın [MASK] şəhəridir." [--top 5]

The text is cut at [MASK], its parts are encoded by themselves and the mask is placed by its id: a tokenizer of this
project never reads special pieces out of text.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from common.errors import UserError, command
from data.layout import Layout
from model.importing import is_huggingface
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tokenization.tokenizer import MASK, Tokenizer


@torch.no_grad()
def fill_mask(model: MaskedLM, tokenizer: Tokenizer, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
    """For each [MASK] of `text` the `top` pieces with their probabilities, likeliest first.

    Raises UserError for a text without [MASK] or too long for the model.
    """
    parts = text.split(MASK)
    if len(parts) < 2:
        raise UserError(f"{text!r}: no {MASK} in the text. Write {MASK} where a word is to be guessed.")
    if top < 1:
        raise UserError(f"--top {top}: expected at least 1.")
    ids = [tokenizer.cls_id]
    positions = []
    for number, part in enumerate(tokenizer.encode_batch([part.strip() for part in parts])):
        if number:
            positions.append(len(ids))
            ids.append(tokenizer.mask_id)
        ids += part.tolist()
    ids.append(tokenizer.sep_id)
    longest = model.encoder.config.max_length
    if len(ids) > longest:
        raise UserError(f"the text has {len(ids)} tokens, the model reads {longest} at most. Shorten it.")
    device = model.head.bias.device
    asked = torch.tensor(positions, device=device)
    logits = model.logits(torch.tensor(ids, device=device), Layout.of(np.array([len(ids)]), device), asked).float()
    best = logits.softmax(-1).topk(min(top, tokenizer.vocab_size))
    return [
        [(tokenizer.pieces[piece], float(p)) for piece, p in zip(pieces.tolist(), chances, strict=True)]
        for pieces, chances in zip(best.indices, best.values, strict=True)
    ]


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model.fill_mask", description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoint", help="a pre-trained checkpoint or its run folder")
    parser.add_argument("text", help="text with one [MASK] or more")
    parser.add_argument("--top", type=int, default=5, help="pieces shown for each (default 5)")
    options = parser.parse_args(arguments)
    if not is_huggingface(options.checkpoint) and not Path(options.checkpoint).exists():
        raise UserError(f"{options.checkpoint}: no such checkpoint. Run python train.py first.")
    model, tokenizer = load_masked_lm(options.checkpoint)
    found = fill_mask(model, tokenizer, options.text, options.top)
    for number, pieces in enumerate(found, start=1):
        if len(found) > 1:
            print(f"[MASK] {number}")
        for piece, probability in pieces:
            print(f"{probability:7.4f}  {piece}")


if __name__ == "__main__":
    sys.exit(main())
