"""Texts of an example to rows of token ids, for every kind of task; no padding anywhere.

One row is one text for the encoder: [CLS] a [SEP] or [CLS] a [SEP] b [SEP], in RoBERTa's family <s> a </s></s> b </s>. An
example has one row; multiple choice has one row for each option, a long tagged sentence one for each part, a question one
for each window of its context.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tokenization.tokenizer import Tokenizer


@dataclass
class Row:
    """One text for the encoder.

    ids [n] int32 with special tokens; second: first token of the second text (n if there is none); positions [p]: the tokens
    at which the head predicts; targets: int64 or float32, by kind: [1] label (choice: index of the right option), [p] tags,
    [2] start and end token (qa; both 0, [CLS], if the answer is not in this window), [1] score, [1, labels] 0 or 1 for each
    label. Unknown targets are -1 (integers) or NaN.
    """

    ids: np.ndarray
    second: int
    positions: np.ndarray
    targets: np.ndarray
    words: np.ndarray | None = None  # number of the word at each position, if words are predicted
    begin: int = 0  # qa: first token of the window in the context


@dataclass
class Encoded:
    """One split of a task, tokenised. The rows of example i are rows[first[i] : first[i + 1]]."""

    kind: str
    rows: list[Row] = field(default_factory=list)
    first: list[int] = field(default_factory=lambda: [0])
    truncated: list[bool] = field(default_factory=list)  # by example: part of its text is in no row
    offsets: list[np.ndarray] = field(default_factory=list)  # qa, by example: [n, 2] characters of the context's tokens
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.first) - 1

    def tokens(self, example: int) -> int:
        """Number of tokens that the encoder reads for one example, in all its rows."""
        return sum(len(row.ids) for row in self.rows[self.first[example] : self.first[example + 1]])

    def close(self, rows: list[Row], truncated: bool) -> None:
        """Add the rows of the next example."""
        self.rows += rows
        self.first.append(len(self.rows))
        self.truncated.append(truncated)


def separators(tokenizer: Tokenizer) -> int:
    """Number of [SEP] between two texts: two in RoBERTa's family, as its checkpoints were trained."""
    return 2 if tokenizer.special_tokens[2:4] == ("<s>", "</s>") else 1


def join(tokenizer: Tokenizer, a: np.ndarray, b: np.ndarray | None) -> tuple[np.ndarray, int]:
    """[CLS] a [SEP] or [CLS] a [SEP] b [SEP], and the index where the second text begins (its length without one)."""
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    between = sep * separators(tokenizer)
    ids = np.concatenate([cls, a, sep] if b is None else [cls, a, between, b, sep]).astype(np.int32)
    return ids, len(ids) if b is None else 1 + len(a) + len(between)


def cut_longest_first(a: int, b: int, room: int) -> tuple[int, int]:
    """How many tokens to keep of two texts so that they fit: the longer one is cut first (HF #5472)."""
    if a + b <= room:
        return a, b
    half = room // 2
    if a <= half:
        return a, room - a
    return (room - b, b) if b <= half else (room - half, half)


def row_of(tokenizer: Tokenizer, a: np.ndarray, b: np.ndarray | None, max_length: int, target: np.ndarray) -> tuple[Row, bool]:
    """The row of one or two texts with its prediction at [CLS], and whether it had to be cut."""
    room = max_length - 2 - (0 if b is None else separators(tokenizer))
    keep_a, keep_b = (min(len(a), room), 0) if b is None else cut_longest_first(len(a), len(b), room)
    cut = keep_a < len(a) or (b is not None and keep_b < len(b))
    ids, second = join(tokenizer, a[:keep_a], None if b is None else b[:keep_b])
    return Row(ids, second, np.zeros(1, np.int64), target), cut


def encode_texts(
    examples: Sequence[dict], targets: Sequence[np.ndarray], tokenizer: Tokenizer, max_length: int, encoded: Encoded
) -> None:
    """One row for each example: of "text", or of "text" and "text_b"; `targets` [n]: the target of each row."""
    first = tokenizer.encode_batch([example["text"] for example in examples])
    pair = bool(examples) and "text_b" in examples[0]
    second = tokenizer.encode_batch([example["text_b"] for example in examples]) if pair else [None] * len(examples)
    for a, b, target in zip(first, second, targets, strict=True):
        row, cut = row_of(tokenizer, a, b, max_length, target)
        encoded.close([row], cut)


def swap_pair(encoded: Encoded) -> Encoded:
    """The same pairs with their texts swapped, [CLS] b [SEP] a [SEP]; both rows contain the same tokens."""
    rows = []
    for row in encoded.rows:
        end = row.ids[-1:]
        gap = 2 if row.ids[row.second - 2] == end[0] else 1  # [SEP] between the two
        a, between, b = np.split(row.ids[1:-1], [row.second - 1 - gap, row.second - 1])
        ids = np.concatenate([row.ids[:1], b, between, a, end])
        rows.append(replace(row, ids=ids, second=1 + len(b) + gap))
    return replace(encoded, rows=rows)
