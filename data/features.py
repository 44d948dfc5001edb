"""Task examples to rows of token ids, and rows to flat batches: no padding anywhere.

One row is one text for the encoder: [CLS] a [SEP] or [CLS] a [SEP] b [SEP], in RoBERTa's family <s> a </s></s> b </s>.
Rows are made by the kinds of task (see tasks/encoding.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from data.layout import Layout, move
from data.loader import ORDER
from data.packing import stream
from tasks.base import kind_of
from tasks.encoding import Encoded
from tokenization.tokenizer import Tokenizer

UNKNOWN_WARNING, FERTILITY_WARNING = 0.01, 4.0  # shares that suggest a tokenizer of another language


@dataclass
class TaskBatch:
    """A batch of rows in the form that the heads read.

    ids, token_types [T]; positions [P] sorted, flat; segments [P or T]: question (choice) or window (qa) of each score,
    None for the other kinds; targets: [P] label, [questions] flat row of the right option, [windows, 2] flat tokens (all
    int64), [P] score or [P, labels] yes or no (float32); count: the divisor of the summed loss (examples, questions,
    words or windows).
    """

    ids: torch.Tensor
    token_types: torch.Tensor
    layout: Layout
    positions: torch.Tensor
    segments: torch.Tensor | None
    targets: torch.Tensor
    count: int
    rows: np.ndarray  # numbers in Encoded.rows


def encode(
    examples: Sequence[dict[str, Any]],
    kind: str,
    tokenizer: Tokenizer,
    labels: Sequence[str] | None,
    max_length: int,
    window_overlap_tokens: int | None = None,
) -> Encoded:
    """Rows of all examples (dicts as described in tasks.records; the gold fields may be missing).

    Pairs are cut longest text first, questions never below half of a window, contexts not at all: they get windows that share
    `window_overlap_tokens` (None: a third of max_length, 128 of 384). Sentences too long for one row are split at words.
    Raises UserError if max_length leaves no room.
    """
    if max_length < 16:
        raise UserError(f"task.max_length={max_length}: too short for any text; take at least 16.")
    encoded = Encoded(kind)
    kind_of(kind).encode(examples, tokenizer, labels or [], max_length, window_overlap_tokens, encoded)
    encoded.notes += _warnings(examples, tokenizer, encoded)
    return encoded


def _warnings(examples: Sequence[dict[str, Any]], tokenizer: Tokenizer, encoded: Encoded) -> list[str]:
    """Messages for the log: truncated texts, and signs that the tokenizer was trained on other text."""
    notes = []
    if any(encoded.truncated):
        notes.append(f"{sum(encoded.truncated)} of {len(encoded)} examples were cut to fit max_length")
    if not encoded.rows:
        return notes
    ids = np.concatenate([row.ids for row in encoded.rows])
    tokens = max(1, len(ids) - int(np.isin(ids, [tokenizer.cls_id, tokenizer.sep_id]).sum()))
    unknown = int((ids == tokenizer.unk_id).sum()) / tokens
    if unknown > UNKNOWN_WARNING:
        notes.append(f"{unknown:.1%} of the tokens are [UNK]: the tokenizer may not fit this text")
    if kind_of(encoded.kind).compete != "tokens" and not any(encoded.truncated):  # the windows of a context overlap
        words = sum(_words_read(example, encoded.kind) for example in examples)
        if tokens / max(1, words) > FERTILITY_WARNING:
            notes.append(f"{tokens / words:.1f} tokens a word: the tokenizer may not fit this text")
    return notes


def _words_read(example: dict[str, Any], kind: str) -> int:
    """Number of words in the rows of one example; a question is repeated before each of its options."""
    if "words" in example:
        return len(example["words"])
    if "options" in example:
        return sum(len(f"{example['question']} {option}".split()) for option in example["options"])
    return sum(len(text.split()) for text in kind_of(kind).texts(example))


# ---------------------------------------------------------------- batches


def units(encoded: Encoded) -> list[np.ndarray]:
    """Row numbers that must stay together: the options of a question, or else single rows."""
    if kind_of(encoded.kind).compete == "rows":
        return [np.arange(a, b) for a, b in zip(encoded.first[:-1], encoded.first[1:], strict=True)]
    return [np.array([row]) for row in range(len(encoded.rows))]


def steps_of_epoch(
    encoded: Encoded, batch_size: int, max_tokens: int, length_group: int, seed: int, epoch: int
) -> list[list[np.ndarray]]:
    """The optimizer steps of one epoch; each is a list of micro-batches (row numbers) of at most `max_tokens` tokens.

    A pure function of its arguments. Steps hold `batch_size` examples (windows for qa) and differ in size by at most one, so
    that no step is a small rest. With `length_group` > 1, the examples of this many steps are sorted by length before they are
    cut into steps. Rows are packed flat without padding, so this only evens out the memory of the micro-batches. The options of
    a question are in a new order every epoch; the head scores each one separately, so it cannot learn their order.
    """
    groups = units(encoded)
    random = stream(seed, ORDER, epoch)
    order = random.permutation(len(groups))
    if kind_of(encoded.kind).compete == "rows":
        groups = [random.permutation(group) for group in groups]
    count = -(-len(groups) // batch_size)
    if length_group > 1:
        sizes = np.array([sum(len(encoded.rows[row].ids) for row in group) for group in groups])
        mega = np.array_split(order, -(-count // length_group))
        order = np.concatenate([part[np.argsort(sizes[part], kind="stable")] for part in mega])
    steps = [cut_by_tokens(encoded, [groups[i] for i in part], max_tokens) for part in np.array_split(order, count)]
    return [steps[i] for i in random.permutation(count)] if length_group > 1 else steps


def sorted_batches(encoded: Encoded, max_tokens: int) -> list[np.ndarray]:
    """All rows once for scoring, in batches of `max_tokens` tokens, longest first (so running out of memory shows at once)."""
    groups = sorted(units(encoded), key=lambda group: -max(len(encoded.rows[row].ids) for row in group))
    return cut_by_tokens(encoded, groups, max_tokens)


def cut_by_tokens(encoded: Encoded, groups: list[np.ndarray], max_tokens: int) -> list[np.ndarray]:
    """Groups of rows joined in order into batches of at most `max_tokens` tokens, or of one group."""
    batches: list[list[np.ndarray]] = []
    filled = max_tokens + 1
    for group in groups:
        size = sum(len(encoded.rows[row].ids) for row in group)
        if filled + size > max_tokens:
            batches.append([])
            filled = 0
        batches[-1].append(group)
        filled += size
    return [np.concatenate(batch) for batch in batches]


def collate(encoded: Encoded, numbers: np.ndarray, device: torch.device | str = "cpu") -> TaskBatch:
    """The rows `numbers` as one flat batch on `device`. For choice, `numbers` holds whole questions one after another."""
    rows = [encoded.rows[number] for number in numbers]
    lengths = np.array([len(row.ids) for row in rows])
    starts = np.cumsum(lengths) - lengths
    counts = np.array([len(row.positions) for row in rows])
    positions = np.concatenate([row.positions for row in rows]) + np.repeat(starts, counts)
    second = np.repeat([row.second for row in rows], lengths)
    place = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    targets = np.concatenate([row.targets for row in rows])
    segments, compete = None, kind_of(encoded.kind).compete
    if compete == "tokens":
        segments = np.repeat(np.arange(len(rows)), lengths)
        targets = targets.reshape(-1, 2) + starts[:, None]
    elif compete == "rows":
        owner = np.searchsorted(encoded.first, numbers, side="right")
        new = np.flatnonzero(np.diff(owner, prepend=-1))  # first row of each question
        segments = np.repeat(np.arange(len(new)), np.diff(np.append(new, len(rows))))
        # The options of a question are in any order.
        right = np.flatnonzero(numbers - np.asarray(encoded.first)[owner - 1] == targets)
        targets = np.full(len(new), -1)
        targets[segments[right]] = right

    def on(values: np.ndarray) -> torch.Tensor:
        number = np.float32 if np.issubdtype(values.dtype, np.floating) else np.int64  # scores are not rounded
        return move(torch.from_numpy(np.ascontiguousarray(values, dtype=number)), device)

    layout, asked = Layout.of(lengths).asking(positions.astype(np.int64), device)
    return TaskBatch(
        on(np.concatenate([row.ids for row in rows])),
        on(place >= second),
        layout,
        asked,
        None if segments is None else on(segments),
        on(targets),
        len(targets),
        np.asarray(numbers),
    )
