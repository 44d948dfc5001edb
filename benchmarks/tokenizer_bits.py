"""Bits per character of encoders with different tokenizers, measured on common units of text.

    python -m benchmarks.tokenizer_bits FIRST OTHER [OTHER ...] --text corpus/heldout.jsonl.gz

`training.heldout` masks 15 % of the tokens, and a tokenizer with longer tokens thereby hides longer stretches of text. Here
every model masks the same characters and sees the same context. A unit lies between two places at which all tokenizers
begin a token, and 15 % of the units are masked. A unit of several tokens is scored from left to right with its earlier
tokens shown, so its probability is a product by the chain rule. Prints bits per character of each model and the difference
from the first, paired over documents, with 95 % intervals.
"""

import argparse
import hashlib
import json
import sys
from typing import Any, NamedTuple

import numpy as np
import torch

from common.errors import command
from common.files import read_jsonl, write_json
from data.layout import Layout
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tokenization.tokenizer import Tokenizer

RATE, SEED, REPLICATES = 0.15, 2407, 2000
BATCH = 4096  # tokens of one forward pass


class Chunk(NamedTuple):
    """A part of a document as one tokenizer cuts it: ids [n], the masked unit of each token or -1 [n], its document."""

    ids: np.ndarray
    unit: np.ndarray
    document: int


def cut(texts: list[str], tokenizers: list[Tokenizer], most: int) -> tuple[list[list[Chunk]], np.ndarray]:
    """Chunks of at most `most` tokens for each tokenizer, and the number of masked characters [documents], without white space.

    Chunks begin at the same places for all tokenizers. A unit with an unknown token is not masked.
    """
    chunks: list[list[Chunk]] = [[] for _ in tokenizers]
    characters = np.zeros(len(texts), dtype=np.int64)
    every = [tokenizer.encode_with_offsets(texts) for tokenizer in tokenizers]
    for document, text in enumerate(texts):
        read = [encoded[document] for encoded in every]
        if not all(len(ids) for ids, _ in read):
            continue
        begins = set.intersection(*({int(begin) for begin, _ in offsets} for _, offsets in read))
        bounds = np.array(sorted(begins | {0}))
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        hidden = np.random.default_rng([SEED, int.from_bytes(digest, "big")]).random(len(bounds)) < RATE
        units = [np.searchsorted(bounds, offsets[:, 0], side="right") - 1 for _, offsets in read]
        for (ids, _), unit, tokenizer in zip(read, units, tokenizers, strict=True):
            hidden[unit[ids == tokenizer.unk_id]] = False
        ends = [*bounds[1:].tolist(), len(text)]
        spelled = np.array([sum(not c.isspace() for c in text[a:b]) for a, b in zip(bounds.tolist(), ends, strict=True)])
        characters[document] = spelled[hidden].sum()
        sizes = np.max([np.bincount(unit, minlength=len(bounds)) for unit in units], axis=0)
        first, filled = 0, 0
        for number in range(len(bounds) + 1):
            if number == len(bounds) or (filled + sizes[number] > most and number > first):
                for part, (ids, _), unit in zip(chunks, read, units, strict=True):
                    here = (unit >= first) & (unit < number)
                    part.append(Chunk(ids[here], np.where(hidden[unit[here]], unit[here], -1), document))
                first, filled = number, 0
            if number < len(bounds):
                filled += sizes[number]
    return chunks, characters


@torch.no_grad()
def losses(model: MaskedLM, tokenizer: Tokenizer, chunks: list[Chunk], documents: int) -> np.ndarray:
    """-log probability (nats) of all masked units of each document, [documents]."""
    model.eval()
    totals = np.zeros(documents)
    rank = []  # of a token within its hidden unit, -1 where shown
    for chunk in chunks:
        same = np.append(False, chunk.unit[1:] == chunk.unit[:-1]) & (chunk.unit >= 0)
        start = np.maximum.accumulate(np.where(same, 0, np.arange(len(same))))
        rank.append(np.where(chunk.unit >= 0, np.arange(len(same)) - start, -1))
    for step in range(max((int(r.max(initial=-1)) for r in rank), default=-1) + 1):
        waiting = sorted((i for i, r in enumerate(rank) if (r == step).any()), key=lambda i: len(chunks[i].ids))
        while waiting:
            batch, size = [], 0
            while waiting and (not batch or size + len(chunks[waiting[-1]].ids) + 2 <= BATCH):
                batch.append(waiting.pop())
                size += len(chunks[batch[-1]].ids) + 2
            rows, places, targets, owners, begin = [], [], [], [], 0
            for i in batch:
                seen = np.where(rank[i] >= step, tokenizer.mask_id, chunks[i].ids)
                rows.append(np.concatenate([[tokenizer.cls_id], seen, [tokenizer.sep_id]]))
                at = np.flatnonzero(rank[i] == step)
                places.append(at + 1 + begin)
                targets.append(chunks[i].ids[at])
                owners.append(np.full(len(at), chunks[i].document))
                begin += len(rows[-1])
            layout = Layout.of([len(row) for row in rows], torch.device("cpu"))
            ids = torch.from_numpy(np.concatenate(rows)).long()
            hidden = model.hidden_at(ids, layout, torch.from_numpy(np.concatenate(places)))
            wanted = torch.from_numpy(np.concatenate(targets)).long()
            loss = torch.nn.functional.cross_entropy(model.decode(hidden).float(), wanted, reduction="none")
            np.add.at(totals, np.concatenate(owners), loss.double().numpy())
    return totals


def compare(models: list[str], texts: list[str], most: int) -> dict[str, Any]:
    """Bits per character of each model and the difference from the first in %, with 95 % intervals over documents."""
    loaded = [load_masked_lm(path) for path in models]
    chunks, characters = cut(texts, [tokenizer for _, tokenizer in loaded], most)
    nats = [losses(model, tokenizer, part, len(texts)) for (model, tokenizer), part in zip(loaded, chunks, strict=True)]
    draws = np.random.default_rng(SEED).multinomial(len(texts), np.full(len(texts), 1 / len(texts)), size=REPLICATES)
    bits = [(draws @ loss) / np.maximum(draws @ characters, 1) / np.log(2) for loss in nats]
    result: dict[str, Any] = {"documents": len(texts), "hidden_characters": int(characters.sum()), "models": {}}
    for path, loss, own, part in zip(models, nats, bits, chunks, strict=True):
        more = 100 * (own / bits[0] - 1)
        result["models"][path] = {
            "bits_per_character": loss.sum() / characters.sum() / np.log(2),
            "tokens": sum(len(c.ids) for c in part),
            "against_first": 100 * (loss.sum() / nats[0].sum() - 1),
            "interval": np.quantile(more, [0.025, 0.975]).tolist(),
        }
    return result


@command
def main() -> None:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokenizer_bits", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("models", nargs="+", help="checkpoints or run folders; the first is the baseline")
    parser.add_argument("--text", required=True, help="JSONL file with held-out documents")
    parser.add_argument("--length", type=int, default=128, help="tokens of a chunk, special ones included, as in training")
    parser.add_argument("--out", help="JSON file for the numbers")
    options = parser.parse_args()
    result = compare(options.models, [record["text"] for _, record in read_jsonl(options.text)], options.length - 2)
    if options.out:
        write_json(options.out, result)
    print(json.dumps(result, ensure_ascii=False, indent=2))


if __name__ == "__main__":
    sys.exit(main())
