"""Held-out masked-LM evaluation that is comparable between tokenizers: bits per character, in total and by source.

    python -m training.heldout CHECKPOINT FILE.jsonl[.gz]

15 % of the tokens are replaced by [MASK], chosen by a draw that depends only on (seed, text): the same tokens at every
step, on any machine, in any order of the documents.
    bits per character = sum of -log p(masked token) / characters that those tokens cover / ln 2
White space does not count as covered, so that a tokenizer gains nothing by attaching the space to the word.
"""

import argparse
import contextlib
import hashlib
import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError, command
from common.files import read_jsonl
from common.progress import progress
from data.layout import Layout, move
from data.packing import SPECIALS
from model.fill_mask import fill_mask
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tokenization.tokenizer import Tokenizer
from training.distributed import Ranks, start
from training.precision import choose_dtype

RATE, SEED = 0.15, 2407


@dataclass
class Window:
    """One masked window of a held-out document: ids [n] with special tokens, positions, targets and characters [m]."""

    source: int
    ids: np.ndarray
    positions: np.ndarray
    targets: np.ndarray
    characters: int


@dataclass
class HeldOut:
    """Held-out text, encoded and masked once."""

    sources: list[str]
    windows: list[Window]
    counts: np.ndarray | None = None  # [V] frequency of each token in the training text, if known

    def frequency_bits(self) -> float | None:
        """Bits per character of a model that only knows the frequencies of the tokens; None without counts.

        Counts are increased by one, as for a new model's bias (bias_from_counts).
        """
        if self.counts is None:
            return None
        targets, characters = np.concatenate([w.targets for w in self.windows]), sum(w.characters for w in self.windows)
        nats = -np.log((self.counts[targets] + 1) / (self.counts.sum() + len(self.counts))).sum()
        return float(nats / characters / math.log(2)) if characters else None


def read_heldout(path: str | Path, tokenizer: Tokenizer, max_length: int, max_tokens: int | None = None) -> HeldOut:
    """Encode and mask the documents ({"text", "source"?}) of a .jsonl[.gz] file.

    `max_tokens` keeps a fixed subset: of each source the documents with the smallest hash, up to an equal share.
    """
    documents: dict[str, list[str]] = {}
    for line, record in read_jsonl(path):
        if not isinstance(record.get("text"), str):
            raise UserError(f'{path}, line {line}: no "text". Each line must be an object with a "text" (and a "source").')
        documents.setdefault(str(record.get("source", Path(path).name.split(".")[0])), []).append(record["text"])
    if not documents:
        raise UserError(
            f"{path}: holds no documents. Give a file with at least one line; in a corpus of your own, raise "
            "corpus.heldout_fraction (or corpus.heldout_max) and add text."
        )
    share = math.inf if max_tokens is None else max_tokens / len(documents)
    sources, windows = sorted(documents), []
    for number, source in enumerate(sources):
        used = 0
        for text in sorted(documents[source], key=_key) if max_tokens else documents[source]:
            if used >= share:
                break
            made = _windows(number, text, tokenizer, max_length)
            windows += made
            used += sum(len(window.ids) for window in made)
    return HeldOut(sources, windows)


def _key(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _windows(source: int, text: str, tokenizer: Tokenizer, max_length: int) -> list[Window]:
    encoding = tokenizer.encode_with_offsets([text])[0]
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence([SEED, _key(text)])))
    chosen = generator.random(len(encoding.ids)) < RATE
    space = np.concatenate([[0], np.cumsum([character.isspace() for character in text])])
    # A character counts once, with the first token that covers it: one emoji may be covered by several byte tokens.
    ends = encoding.offsets[:, 1]
    begins = np.maximum(encoding.offsets[:, 0], np.maximum.accumulate(np.append(0, ends)[:-1]))
    covered = np.where(ends > begins, ends - begins - (space[ends] - space[np.minimum(begins, ends)]), 0)
    windows = []
    size = max_length - SPECIALS
    for begin in range(0, len(encoding.ids), size):
        ids, mask = encoding.ids[begin : begin + size].astype(np.int64), chosen[begin : begin + size]
        hidden = np.concatenate([[tokenizer.cls_id], np.where(mask, tokenizer.mask_id, ids), [tokenizer.sep_id]])
        positions = np.flatnonzero(mask) + 1
        windows.append(Window(source, hidden, positions, ids[mask], int(covered[begin : begin + size][mask].sum())))
    return windows


@torch.no_grad()
def evaluate(
    model: MaskedLM, heldout: HeldOut, ranks: Ranks, dtype: torch.dtype, batch_tokens: int = 8192, show: bool = False
) -> dict[str, Any]:
    """Loss (nats per masked token), accuracy and bits per character, in total and by source.

    The windows are distributed over the ranks. The model returns to the mode it was in.
    """
    was_training = model.training
    model.eval()
    order = sorted(range(len(heldout.windows)), key=lambda i: -len(heldout.windows[i].ids))
    batches: list[list[Window]] = [[]]
    filled = 0
    for i in order:
        window = heldout.windows[i]
        if filled + len(window.ids) > batch_tokens and batches[-1]:
            batches.append([])
            filled = 0
        batches[-1].append(window)
        filled += len(window.ids)
    totals = torch.zeros(len(heldout.sources), 4, dtype=torch.float64)  # loss, right, masked, characters
    found, owners = [], []  # of every masked token: loss and right [2, m], on the device; its source
    mine = [batch for batch in batches[ranks.rank :: ranks.world] if batch]
    for batch in progress(mine, desc="held-out", unit=" batches", leave=False, disable=not (show and ranks.first)):
        lengths = [len(window.ids) for window in batch]
        starts = np.cumsum([0, *lengths[:-1]])
        ids = move(torch.from_numpy(np.concatenate([window.ids for window in batch])), ranks.device)
        positions = np.concatenate([window.positions + s for window, s in zip(batch, starts, strict=True)])
        if len(positions) == 0:
            continue
        targets = move(torch.from_numpy(np.concatenate([window.targets for window in batch])), ranks.device)
        layout, asked = Layout.of(lengths).asking(positions, ranks.device)
        cast = torch.autocast(ranks.device.type, dtype) if dtype != torch.float32 else contextlib.nullcontext()
        with cast:
            hidden = model.hidden_at(ids, layout, asked)
            loss, right = [], []
            for part, wanted in zip(hidden.split(1024), targets.split(1024), strict=True):
                logits = model.decode(part).float()
                loss.append(torch.nn.functional.cross_entropy(logits, wanted, reduction="none"))
                right.append(logits.argmax(-1) == wanted)
        found.append(torch.stack([torch.cat(loss), torch.cat(right).float()]))
        owners.append(np.repeat([window.source for window in batch], [len(w.positions) for w in batch]))
        for window in batch:
            totals[window.source, 3] += window.characters
    if found:  # the only wait for the device
        owner, values = torch.from_numpy(np.concatenate(owners)), torch.cat(found, 1).double().cpu()
        for column, value in enumerate([*values, torch.ones(len(owner), dtype=torch.float64)]):
            totals[:, column].index_add_(0, owner, value)
    totals = torch.tensor(ranks.host_sum(*totals.flatten().tolist()), dtype=torch.float64).view_as(totals)
    model.train(was_training)
    report = _scores(totals.sum(0))
    if (known := heldout.frequency_bits()) is not None:
        report["frequency_bits_per_character"] = known
    report["sources"] = {name: _scores(totals[number]) for number, name in enumerate(heldout.sources)}
    return report


def guesses(model: MaskedLM, tokenizer: Tokenizer, sentences: list[str], top: int = 5) -> dict[str, Any]:
    """The likeliest tokens for each [MASK] of each sentence: {sentence: [for each mask {token: probability}]}."""
    was_training = model.training
    model.eval()
    found = {text: [{p: round(x, 4) for p, x in hole} for hole in fill_mask(model, tokenizer, text, top)] for text in sentences}
    model.train(was_training)
    return found


def _scores(total: torch.Tensor) -> dict[str, Any]:
    loss, right, masked, characters = total.tolist()
    if masked == 0:
        return {"loss": None, "accuracy": None, "bits_per_character": None, "masked": 0}
    return {
        "loss": loss / masked,
        "accuracy": right / masked,
        "masked": int(masked),
        "bits_per_character": loss / characters / math.log(2) if characters else None,
    }


def table(report: dict[str, Any]) -> str:
    """The report for a terminal."""
    lines = [f"{'source':<26}{'masked':>9}{'loss':>9}{'accuracy':>10}{'bits/char':>11}"]
    for name, entry in [*report["sources"].items(), ("all", report)]:
        cells = [f"{entry[key]:.4f}" if entry[key] is not None else "-" for key in ("loss", "accuracy", "bits_per_character")]
        lines.append(f"{name:<26}{entry['masked']:>9,}{cells[0]:>9}{cells[1]:>10}{cells[2]:>11}")
    return "\n".join(lines)


@command
def main() -> None:
    """Command line: evaluate a checkpoint on a file and print the table, or JSON with --json."""
    parser = argparse.ArgumentParser(prog="python -m training.heldout", description=__doc__.split("\n")[0])
    parser.add_argument("checkpoint", help="checkpoint or run folder")
    parser.add_argument("file", help='held-out text: .jsonl or .jsonl.gz with "text" and, if known, "source"')
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--precision", default="fp32", help="fp32 (exact, the default), bf16 or auto")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    options = parser.parse_args()
    ranks = start(options.device)
    model, tokenizer = load_masked_lm(options.checkpoint)
    heldout = read_heldout(options.file, tokenizer, model.encoder.config.max_length)
    report = evaluate(model.to(ranks.device), heldout, ranks, choose_dtype(options.precision, ranks.device), show=True)
    print(json.dumps(report, ensure_ascii=False) if options.json else table(report))


if __name__ == "__main__":
    sys.exit(main())
