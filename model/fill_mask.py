"""The likeliest tokens of a pre-trained model for [MASK].

    python -m model.fill_mask CHECKPOINT "Bakı Azərbaycanın [MASK] şəhəridir." [--top 5]

[MASK] is accepted for every tokenizer, and so is its own name of the mask (<mask>). The ids are those of transformers'
fill-mask pipeline.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from common.errors import UserError, command
from data.layout import Layout, move
from model.convert.importing import is_huggingface
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tokenization.tokenizer import MASK, Tokenizer


@torch.no_grad()
def fill_mask(model: MaskedLM, tokenizer: Tokenizer, text: str, top: int = 5) -> list[list[tuple[str, float]]]:
    """For each mask of `text` the `top` likeliest tokens with their probabilities.

    Raises UserError for a text without [MASK] or too long for the model.
    """
    if MASK not in text and tokenizer.special_tokens[4] not in text:
        raise UserError(f"{text!r}: no {MASK} in the text. Write {MASK} where a word is to be guessed.")
    if top < 1:
        raise UserError(f"--top {top}: expected at least 1.")
    ids = np.concatenate([[tokenizer.cls_id], tokenizer.encode_with_masks(text), [tokenizer.sep_id]])
    positions = np.flatnonzero(ids == tokenizer.mask_id)
    longest = model.encoder.config.max_length
    if len(ids) > longest:
        raise UserError(f"the text has {len(ids)} tokens, the model reads {longest} at most. Shorten it.")
    device = model.head.bias.device
    layout, asked = Layout.of([len(ids)]).asking(positions, device)
    logits = model.logits(move(torch.from_numpy(ids), device), layout, asked).float()
    best = logits.softmax(-1).topk(min(top, tokenizer.vocab_size))
    return [
        [(tokenizer.tokens[token], float(p)) for token, p in zip(tokens.tolist(), chances, strict=True)]
        for tokens, chances in zip(best.indices, best.values, strict=True)
    ]


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model.fill_mask", description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoint", help="a pre-trained checkpoint or its run folder")
    parser.add_argument("text", help="text with one [MASK] or more")
    parser.add_argument("--top", type=int, default=5, help="tokens shown for each (default 5)")
    options = parser.parse_args(arguments)
    if not is_huggingface(options.checkpoint) and not Path(options.checkpoint).exists():
        raise UserError(f"{options.checkpoint}: no such checkpoint. Run python train.py first.")
    model, tokenizer = load_masked_lm(options.checkpoint)
    found = fill_mask(model, tokenizer, options.text, options.top)
    for number, tokens in enumerate(found, start=1):
        if len(found) > 1:
            print(f"[MASK] {number}")
        for token, probability in tokens:
            print(f"{probability:7.4f}  {token}")


if __name__ == "__main__":
    sys.exit(main())
