"""Task examples to rows of token ids, and rows to flat batches: no padding anywhere.

One row is one text that the encoder reads: [CLS] a [SEP] or [CLS] a [SEP] b [SEP], in RoBERTa's family <s> a </s></s> b </s>.
An example has one row, a choice one row an option, a long tagged sentence one row a piece of it, a question one row a
window of its context.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from data.layout import Layout
from data.loader import ORDER
from data.packing import stream
from tokenization.tokenizer import Tokenizer

FEATURES = 3  # version of this file: a change that changes rows makes every token cache be made anew
MAX_QUESTION_TOKENS = 64  # as BERT's run_squad and ELECTRA
UNKNOWN_WARNING, FERTILITY_WARNING = 0.01, 4.0  # shares that point to a tokenizer of another language (§3.9)


@dataclass
class Row:
    """One text for the encoder.

    ids [n] int32 with special pieces; second: first token of the second text (n where there is none); positions [p]: the
    tokens the head is asked at; targets: [1] label for classes and choice (choice: index of the right option), [p] tags,
    [2] start and end token for qa (both 0, [CLS], where the answer is not in this window), -1 where nothing is known.
    """

    ids: np.ndarray
    second: int
    positions: np.ndarray
    targets: np.ndarray
    words: np.ndarray | None = None  # tagging: number of the word at each position
    begin: int = 0  # qa: piece of the context that the window begins with


@dataclass
class Encoded:
    """One split of a task, tokenised. Rows of example i are rows[first[i] : first[i + 1]]."""

    kind: str
    rows: list[Row] = field(default_factory=list)
    first: list[int] = field(default_factory=lambda: [0])
    truncated: list[bool] = field(default_factory=list)  # by example: some of its text is in no row
    offsets: list[np.ndarray] = field(default_factory=list)  # qa, by example: [n, 2] characters of the context's pieces
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.first) - 1

    def tokens(self, example: int) -> int:
        """Tokens that the encoder reads for one example, all its rows together."""
        return sum(len(row.ids) for row in self.rows[self.first[example] : self.first[example + 1]])

    def close(self, rows: list[Row], truncated: bool) -> None:
        """Add the rows of the next example."""
        self.rows += rows
        self.first.append(len(self.rows))
        self.truncated.append(truncated)


@dataclass
class TaskBatch:
    """Rows one after another, as the heads read them.

    ids, types [T]; positions [P] sorted, flat; segments [P or T]: question (choice) or window (qa) of each score, None for
    the other kinds; targets: [P] label, [questions] flat row of the right option, or [windows, 2] flat tokens; count: what
    the summed loss is divided by (examples, questions, words or windows).
    """

    ids: torch.Tensor
    types: torch.Tensor
    layout: Layout
    positions: torch.Tensor
    segments: torch.Tensor | None
    targets: torch.Tensor
    count: int
    rows: np.ndarray  # numbers in Encoded.rows


def encode(
    examples: Sequence[dict[str, Any]], kind: str, tokenizer: Tokenizer, labels: Sequence[str] | None, max_length: int,
    window_overlap_tokens: int | None = None,
) -> Encoded:  # fmt: skip
    """Rows of all examples (dicts as data.task_records describes; the gold fields may be missing).

    Pairs are cut longest first, questions never below half of a window, contexts not at all: they get windows that share
    `window_overlap_tokens` (None: a third of max_length, 128 of 384). Sentences too long for one row are cut at words.
    Raises UserError where max_length leaves no room.
    """
    if max_length < 16:
        raise UserError(f"task.max_length={max_length}: too short for any text; take at least 16.")
    encoded = Encoded(kind)
    index = {label: number for number, label in enumerate(labels or [])}
    builders = {"classification": _texts, "pair": _texts, "choice": _choices, "tagging": _sentences}
    if kind == "qa":
        _questions(examples, tokenizer, max_length, window_overlap_tokens, encoded)
    else:
        builders[kind](examples, tokenizer, index, max_length, encoded)
    encoded.notes += _warnings(examples, tokenizer, encoded)
    return encoded


def _warnings(examples: Sequence[dict[str, Any]], tokenizer: Tokenizer, encoded: Encoded) -> list[str]:
    """Sentences for the log: texts cut, and signs that the tokenizer was made for other text."""
    notes = []
    if any(encoded.truncated):
        notes.append(f"{sum(encoded.truncated)} of {len(encoded)} examples were cut to fit max_length")
    if not encoded.rows:
        return notes
    ids = np.concatenate([row.ids for row in encoded.rows])
    pieces = max(1, len(ids) - int(np.isin(ids, [tokenizer.cls_id, tokenizer.sep_id]).sum()))
    unknown = int((ids == tokenizer.unk_id).sum()) / pieces
    if unknown > UNKNOWN_WARNING:
        notes.append(f"{unknown:.1%} of the pieces are [UNK]: the tokenizer may not fit this text")
    if encoded.kind != "qa" and not any(encoded.truncated):  # the windows of a context overlap
        words = sum(map(_words_read, examples))
        if pieces / max(1, words) > FERTILITY_WARNING:
            notes.append(f"{pieces / words:.1f} pieces a word: the tokenizer may not fit this text")
    return notes


def _words_read(example: dict[str, Any]) -> int:
    """Words that the rows of one example hold; a question stands before each of its options."""
    if "words" in example:
        return len(example["words"])
    if "options" in example:
        return sum(len(f"{example['question']} {option}".split()) for option in example["options"])
    return len(f"{example['text']} {example.get('text_b', '')}".split())


# ---------------------------------------------------------------- one row an example, or an option


def separators(tokenizer: Tokenizer) -> int:
    """How many [SEP] stand between two texts: two in RoBERTa's family, whose checkpoints were trained so."""
    return 2 if tokenizer.special_pieces[2:4] == ("<s>", "</s>") else 1


def join(tokenizer: Tokenizer, a: np.ndarray, b: np.ndarray | None) -> tuple[np.ndarray, int]:
    """[CLS] a [SEP] or [CLS] a [SEP] b [SEP], and the place where the second text begins (its length without one)."""
    cls, sep = [tokenizer.cls_id], [tokenizer.sep_id]
    between = sep * separators(tokenizer)
    ids = np.concatenate([cls, a, sep] if b is None else [cls, a, between, b, sep]).astype(np.int32)
    return ids, len(ids) if b is None else 1 + len(a) + len(between)


def cut_longest_first(a: int, b: int, room: int) -> tuple[int, int]:
    """How many pieces to keep of two texts so that they fit: the longer one gives until both are alike (HF #5472)."""
    if a + b <= room:
        return a, b
    half = room // 2
    if a <= half:
        return a, room - a
    return (room - b, b) if b <= half else (room - half, half)


def _texts(examples: Sequence[dict], tokenizer: Tokenizer, index: dict[str, int], max_length: int, encoded: Encoded) -> None:
    first = tokenizer.encode_batch([example["text"] for example in examples])
    pair = encoded.kind == "pair"
    second = tokenizer.encode_batch([example["text_b"] for example in examples]) if pair else [None] * len(examples)
    for example, a, b in zip(examples, first, second, strict=True):
        row, cut = _row(tokenizer, a, b, max_length, index.get(example.get("label"), -1))
        encoded.close([row], cut)


def _choices(examples: Sequence[dict], tokenizer: Tokenizer, index: dict, max_length: int, encoded: Encoded) -> None:
    questions = tokenizer.encode_batch([example["question"] for example in examples])
    options = iter(tokenizer.encode_batch([option for example in examples for option in example["options"]]))
    for example, question in zip(examples, questions, strict=True):
        made = [_row(tokenizer, question, next(options), max_length, example.get("label", -1)) for _ in example["options"]]
        encoded.close([row for row, _ in made], any(cut for _, cut in made))


def _row(tokenizer: Tokenizer, a: np.ndarray, b: np.ndarray | None, max_length: int, target: int) -> tuple[Row, bool]:
    room = max_length - 2 - (0 if b is None else separators(tokenizer))
    keep_a, keep_b = (min(len(a), room), 0) if b is None else cut_longest_first(len(a), len(b), room)
    cut = keep_a < len(a) or (b is not None and keep_b < len(b))
    ids, second = join(tokenizer, a[:keep_a], None if b is None else b[:keep_b])
    return Row(ids, second, np.zeros(1, np.int64), np.array([target])), cut


def swapped(encoded: Encoded) -> Encoded:
    """The same pairs with their texts in the other order, [CLS] b [SEP] a [SEP]: the same pieces of both are read."""
    rows = []
    for row in encoded.rows:
        end = row.ids[-1:]
        gap = 2 if row.ids[row.second - 2] == end[0] else 1  # [SEP] between the two
        a, between, b = np.split(row.ids[1:-1], [row.second - 1 - gap, row.second - 1])
        ids = np.concatenate([row.ids[:1], b, between, a, end])
        rows.append(replace(row, ids=ids, second=1 + len(b) + gap))
    return replace(encoded, rows=rows)


# ---------------------------------------------------------------- tagged sentences


def _sentences(
    examples: Sequence[dict], tokenizer: Tokenizer, index: dict[str, int], max_length: int, encoded: Encoded
) -> None:
    """The first piece of each word carries its tag. A word without a piece (a soft hyphen alone) becomes [UNK]."""
    known = sorted({word for example in examples for word in example["words"]})
    unknown = np.array([tokenizer.unk_id], np.int32)
    pieces = {word: ids if len(ids) else unknown for word, ids in zip(known, tokenizer.encode_batch(known), strict=True)}
    room = max_length - 2
    bare = {word for word in known if pieces[word] is unknown}
    holders = [example for example in examples if bare.intersection(example["words"])] if bare else []
    if holders:
        count = sum(word in bare for example in holders for word in example["words"])
        encoded.notes.append(f"{count} words have no piece: read as [UNK] and scored (first in {holders[0]['id']})")
    for example in examples:
        words = [pieces[word][:room] for word in example["words"]]
        cut = any(len(pieces[word]) > room for word in example["words"])
        tags = np.array([index.get(tag, -1) for tag in example.get("tags") or ["-"] * len(words)])
        rows = []
        for begin, end, own in split_sentence(np.array([len(word) for word in words]), room):
            ids, second = join(tokenizer, np.concatenate(words[begin:end]), None)
            starts = 1 + np.cumsum([0, *(len(word) for word in words[begin : end - 1])])
            rows.append(Row(ids, second, starts[own - begin], tags[own], words=own))
        encoded.close(rows, cut)
    if split := sum(after - before > 1 for before, after in itertools.pairwise(encoded.first)):
        encoded.notes.append(f"{split} sentences are longer than max_length: cut at words and put together again")


def split_sentence(lengths: np.ndarray, room: int) -> list[tuple[int, int, np.ndarray]]:
    """Cut a sentence whose words have `lengths` pieces (none above room) into (first word, one past last, own words).

    Neighbouring pieces overlap by about a quarter of the room. Every word is one piece's own: there where the nearer cut
    is farthest away. The sentence's own begin and end are no cut.
    """
    ends = np.cumsum(lengths)
    if ends[-1] <= room:
        return [(0, len(lengths), np.arange(len(lengths)))]
    starts, spans, begin = ends - lengths, [], 0
    while True:
        end = int(np.searchsorted(ends, starts[begin] + room, side="right"))
        spans.append((begin, end))
        if end == len(lengths):
            break
        begin = max(begin + 1, int(np.searchsorted(starts, ends[end - 1] - room // 4)))
        begin = min(begin, end)
    context = np.full((len(spans), len(lengths)), -1.0)
    for number, (begin, end) in enumerate(spans):
        left = starts[begin:end] - starts[begin] if begin else np.full(end, np.inf)
        right = ends[end - 1] - ends[begin:end] if end < len(lengths) else np.full(end - begin, np.inf)
        context[number, begin:end] = np.minimum(left, right)
    owner = context.argmax(0)
    return [(*span, own) for number, span in enumerate(spans) if len(own := np.flatnonzero(owner == number))]


# ---------------------------------------------------------------- questions and windows


def _questions(examples: Sequence[dict], tokenizer: Tokenizer, max_length: int, overlap: int | None, encoded: Encoded) -> None:
    overlap = max_length // 3 if overlap is None else overlap
    added = 2 + separators(tokenizer)
    longest = min(MAX_QUESTION_TOKENS, (max_length - added) // 2)
    questions = tokenizer.encode_batch([example["question"] for example in examples])
    contexts = list(dict.fromkeys(example["context"] for example in examples))  # several questions share one
    read = dict(zip(contexts, tokenizer.encode_with_offsets(contexts), strict=True))
    for example, question in zip(examples, questions, strict=True):
        context, offsets = read[example["context"]]
        kept = question[:longest]
        room = max_length - added - len(kept)
        if not 0 <= overlap < room:
            raise UserError(
                f"task.window_overlap_tokens={overlap}: the windows of {example['id']} hold {room} tokens of text "
                f"(max_length {max_length}). Set it below that."
            )
        answer = _answer_pieces(example, offsets)
        rows = []
        for begin, end in windows(len(context), room, overlap):
            ids, second = join(tokenizer, kept, context[begin:end])
            inside = answer is not None and begin <= answer[0] and answer[1] < end
            target = [second + place - begin for place in answer] if inside else [0, 0]
            rows.append(Row(ids, second, np.arange(len(ids)), np.array(target), begin=begin))
        encoded.close(rows, len(kept) < len(question))
        encoded.offsets.append(offsets)


def windows(length: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """Spans [begin, end) of at most `room` pieces that cover `length`, each sharing `overlap` with the one before."""
    spans, begin = [], 0
    while True:
        end = min(length, begin + room)
        spans.append((begin, end))
        if end == length:
            return spans
        begin = end - overlap


def _answer_pieces(example: dict[str, Any], offsets: np.ndarray) -> tuple[int, int] | None:
    """First and last piece of the context that touch the first answer with a known place; None without one."""
    for answer in example.get("answers") or []:
        start, end = answer["start"], answer["start"] + len(answer["text"])
        touched = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < end)) if start >= 0 else []
        if len(touched):
            return int(touched[0]), int(touched[-1])
    return None


# ---------------------------------------------------------------- batches


def units(encoded: Encoded) -> list[np.ndarray]:
    """Row numbers that must stay together: the options of a question; every other row stands alone."""
    if encoded.kind == "choice":
        return [np.arange(a, b) for a, b in zip(encoded.first[:-1], encoded.first[1:], strict=True)]
    return [np.array([row]) for row in range(len(encoded.rows))]


def steps_of_epoch(
    encoded: Encoded, batch_size: int, max_tokens: int, bucket: int, seed: int, epoch: int
) -> list[list[np.ndarray]]:
    """The optimizer steps of one epoch; each is a list of micro-batches (row numbers) of at most `max_tokens` tokens.

    A pure function of its arguments. Steps hold `batch_size` examples (windows for qa) and differ by at most one, so
    that no step is a small rest. `bucket` > 1 sorts runs of so many steps by length before they are cut into steps: rows
    lie flat and nothing is padded, so this only evens out the memory of the micro-batches. The options of a question come
    in a new order every epoch; the head scores each by itself, so no place can be learned.
    """
    groups = units(encoded)
    random = stream(seed, ORDER, epoch)
    order = random.permutation(len(groups))
    if encoded.kind == "choice":
        groups = [random.permutation(group) for group in groups]
    count = -(-len(groups) // batch_size)
    if bucket > 1:
        sizes = np.array([sum(len(encoded.rows[row].ids) for row in group) for group in groups])
        mega = np.array_split(order, -(-count // bucket))
        order = np.concatenate([part[np.argsort(sizes[part], kind="stable")] for part in mega])
    steps = [cut_by_tokens(encoded, [groups[i] for i in part], max_tokens) for part in np.array_split(order, count)]
    return [steps[i] for i in random.permutation(count)] if bucket > 1 else steps


def sorted_batches(encoded: Encoded, max_tokens: int) -> list[np.ndarray]:
    """All rows once for scoring, longest first (memory runs out at once or never), in batches of `max_tokens` tokens."""
    groups = sorted(units(encoded), key=lambda group: -max(len(encoded.rows[row].ids) for row in group))
    return cut_by_tokens(encoded, groups, max_tokens)


def cut_by_tokens(encoded: Encoded, groups: list[np.ndarray], max_tokens: int) -> list[np.ndarray]:
    """Groups of rows joined, in order, into batches of at most `max_tokens` tokens (at least one group each)."""
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
    """The rows `numbers` as one flat batch on `device`. For choice, whole questions in a row."""
    rows = [encoded.rows[number] for number in numbers]
    lengths = np.array([len(row.ids) for row in rows])
    starts = np.cumsum(lengths) - lengths
    asked = np.array([len(row.positions) for row in rows])
    positions = np.concatenate([row.positions for row in rows]) + np.repeat(starts, asked)
    second = np.repeat([row.second for row in rows], lengths)
    place = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    targets = np.concatenate([row.targets for row in rows])
    segments = None
    if encoded.kind == "qa":
        segments = np.repeat(np.arange(len(rows)), lengths)
        targets = targets.reshape(-1, 2) + starts[:, None]
    elif encoded.kind == "choice":
        owner = np.searchsorted(encoded.first, numbers, side="right")
        new = np.flatnonzero(np.diff(owner, prepend=-1))  # first row of each question
        segments = np.repeat(np.arange(len(new)), np.diff(np.append(new, len(rows))))
        right = np.flatnonzero(numbers - np.asarray(encoded.first)[owner - 1] == targets)  # options come in any order
        targets = np.full(len(new), -1)
        targets[segments[right]] = right

    def on(values: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64))
        if torch.device(device).type == "cuda":
            return tensor.pin_memory().to(device, non_blocking=True)
        return tensor.to(device)

    return TaskBatch(
        on(np.concatenate([row.ids for row in rows])), on(place >= second), Layout.of(lengths, device), on(positions),
        None if segments is None else on(segments), on(targets), len(targets), np.asarray(numbers),
    )  # fmt: skip
