"""Pack documents into batches of a fixed token budget, without padding and without losing a token.

Long documents are cut into consecutive windows. The windows of an epoch are shuffled and packed one after another. When
the next window does not fit, it is cut so that the batch is full, and the next batch starts with the rest. The plan is a
pure function of (lengths, copies, seed, epoch): the content of batch i does not depend on what was read before it.
"""

from dataclasses import dataclass

import numpy as np

SPECIALS = 2  # [CLS] before and [SEP] after every window
LEAST = 8  # a cut leaves at least this many text tokens on either side, so that no tiny windows arise


@dataclass
class Plan:
    """One epoch: window j is tokens [start, start + length) of `document`; batch i is windows first[i]:first[i + 1]."""

    document: np.ndarray  # [P] row in the shards' table
    start: np.ndarray  # [P] offset inside the document, in tokens
    length: np.ndarray  # [P] tokens of text, without special ones
    first: np.ndarray  # [B + 1]

    def __len__(self) -> int:
        return len(self.first) - 1


def stream(*key: int) -> np.random.Generator:
    """A generator that depends on nothing but its key (Philox is counter-based, so keys are independent streams)."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key)))


def windows(lengths: np.ndarray, copies: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Consecutive windows of at most `size` tokens: (document, start, length), each [P], `copies` times over."""
    document = np.repeat(np.arange(len(lengths)), copies)
    count = -(-lengths[document] // size)
    owner = np.repeat(document, count)
    number = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    start = number * size
    return owner, start, np.minimum(lengths[owner] - start, size)


def pack_epoch(lengths: np.ndarray, copies: np.ndarray, max_length: int, budget: int, generator: np.random.Generator) -> Plan:
    """Batches of at most `budget` tokens, special ones included, from documents of these lengths [D].

    No window is longer than `max_length` with its special tokens. Every batch but the last is full up to fewer than
    2 x LEAST + SPECIALS tokens.
    """
    owner, start, length = windows(lengths.astype(np.int64), copies, max_length - SPECIALS)
    order = generator.permutation(len(owner))
    owner, start, length = owner[order], start[order], length[order]
    ends = np.cumsum(length + SPECIALS)
    total = int(ends[-1]) if len(ends) else 0
    cut, at, part = (
        [],
        [],
        [],
    )  # windows that are cut, the text before the cut, how often that window was cut so far
    opening, opening_part = [0], [0]  # the window that starts each batch, and which part of it
    base = 0  # where this batch begins on the scale of `ends`
    while base + budget < total:
        window = int(np.searchsorted(ends, base + budget, side="right"))  # the first window that does not fit whole
        begin = max(base, int(ends[window - 1]) if window else 0)
        left = int(ends[window]) - begin - SPECIALS  # text of this window that is not placed yet
        take = min(base + budget - begin - SPECIALS, left - LEAST)
        opening.append(window)
        if take >= LEAST:
            part.append(part[-1] + 1 if cut and cut[-1] == window else 1)
            cut.append(window)
            at.append(int(length[window]) - left + take)
            opening_part.append(part[-1])
            base = begin + take  # from here to ends[window]: the remaining text and two special tokens again
        else:
            opening_part.append(0)
            base = begin
    parts = np.ones(len(owner), dtype=np.int64)
    np.add.at(parts, np.array(cut, dtype=np.int64), 1)
    index = np.cumsum(parts) - parts  # index of each window once the cut ones are split
    origin = np.repeat(np.arange(len(owner)), parts)
    begins = np.zeros(len(origin), dtype=np.int64)
    begins[index[np.array(cut, dtype=np.int64)] + np.array(part, dtype=np.int64)] = at
    goes_on = np.append(origin[1:] == origin[:-1], False)[: len(origin)]
    finishes = np.where(goes_on, np.append(begins[1:], 0)[: len(origin)], length[origin])
    first = index[np.array(opening)] + np.array(opening_part) if len(owner) else np.zeros(1, dtype=np.int64)
    batches = np.append(first, len(origin)) if len(owner) else first
    return Plan(owner[origin], start[origin] + begins, finishes - begins, batches)
