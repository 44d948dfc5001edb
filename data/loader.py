"""Packed, masked batches by number: batch i of epoch e is a pure function of (seed, e, i); the loader has no state."""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from common.errors import UserError
from data.layout import Layout, move
from data.masking import Masking
from data.mixture import copies_of
from data.packing import LEAST, SPECIALS, Plan, pack_epoch, stream
from data.shards import Shards

T = TypeVar("T")
WHOLE = 128  # batches are filled up to a multiple of this many tokens
ORDER, MASKS, DROPOUT = 0, 1, 2  # separate random streams under one seed


@dataclass
class Batch:
    """A micro-batch. ids [T], positions [M], targets [M] int64.

    The layout may have more documents than `documents`: dummy padding, which has no targets.
    """

    ids: torch.Tensor
    layout: Layout
    positions: torch.Tensor
    targets: torch.Tensor
    documents: np.ndarray  # rows in the shards' table, one for each window
    lengths_by_source: np.ndarray  # [S] tokens of text
    seed: int  # of the dropout masks, a function of (seed, epoch, batch) too

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`; the copy to a GPU is asynchronous."""
        layout = self.layout.to(device)
        known = self.layout.selected is not None and self.positions is self.layout.selected[0]
        # Copied once, so that the layout recognises it.
        positions = layout.selected[0] if known else move(self.positions, device)
        return Batch(
            move(self.ids, device),
            layout,
            positions,
            move(self.targets, device),
            self.documents,
            self.lengths_by_source,
            self.seed,
        )


class Loader:
    """Batches of `budget` tokens from shards, by (epoch, number)."""

    def __init__(self, shards: Shards, masking: Masking, rates: np.ndarray, budget: int, seed: int, cls_id: int, sep_id: int):
        if budget < 4 * (LEAST + SPECIALS):
            raise UserError(f"micro_batch_tokens={budget}: too few for a batch; take at least {4 * (LEAST + SPECIALS)}.")
        self.shards, self.masking, self.rates, self.budget, self.seed = shards, masking, rates, budget, seed
        self.cls_id, self.sep_id = cls_id, sep_id
        self._plans: dict[tuple[int, int], Plan] = {}

    def plan(self, epoch: int, max_length: int) -> Plan:
        """The packing of one epoch with windows of at most `max_length` tokens."""
        key = (epoch, max_length)
        if key not in self._plans:
            generator = stream(self.seed, ORDER, epoch)
            copies = copies_of(self.rates, self.shards.documents["source"].astype(np.int64), generator)
            lengths = self.shards.documents["length"]
            self._plans = {key: pack_epoch(lengths, copies, max_length, self.budget, generator)}
        return self._plans[key]

    def batch(self, epoch: int, number: int, max_length: int, rate: float) -> Batch:
        """Batch `number` of `epoch`, masked at `rate`, or causal if masking.causal says so."""
        plan = self.plan(epoch, max_length)
        windows = slice(plan.first[number], plan.first[number + 1])
        rows = plan.document[windows]
        text = plan.length[windows]
        lengths = text + SPECIALS
        ends = np.cumsum(lengths)
        ids = np.full(ends[-1], self.cls_id, dtype=np.int64)
        ids[ends - 1] = self.sep_id
        starts = self.shards.documents["start"][rows] + plan.start[windows]
        tokens = np.repeat(starts - (np.cumsum(text) - text), text) + np.arange(text.sum())
        inside = np.ones(ends[-1], dtype=bool)
        inside[ends - 1] = inside[ends - lengths] = False
        ids[inside] = self.shards.tokens[tokens]
        causal, generator = self.masking.is_causal(number), stream(self.seed, MASKS, epoch, number)
        if causal:
            hidden, (positions, targets) = ids, self.masking.next_tokens(ids, generator)
        else:
            hidden, positions, targets = self.masking.apply(ids, rate, generator)
        # The rest of the budget, under 0.5 %, is dummy padding, so that shapes stay the same.
        rest = -len(ids) % WHOLE
        hidden = np.append(hidden, np.full(rest, self.sep_id))
        filler = [min(max_length, rest - i) for i in range(0, rest, max_length)]
        layout = Layout.of(np.append(lengths, filler).astype(np.int64), causal=causal)
        positions = torch.from_numpy(positions)
        layout.select(positions)
        by_source = np.bincount(self.shards.documents["source"][rows], weights=text, minlength=len(self.shards.sources))
        return Batch(
            torch.from_numpy(hidden),
            layout,
            positions,
            torch.from_numpy(targets),
            rows,
            by_source.astype(np.int64),
            int(stream(self.seed, DROPOUT, epoch, number).integers(1 << 62)),
        )


def ahead(items: Iterable[T], make: Callable[[T], object], depth: int = 2) -> Iterator:
    """Yield make(item) for each item, made up to `depth` in advance by one thread; its errors are raised here."""
    ready: queue.Queue = queue.Queue(maxsize=depth)
    stop = threading.Event()

    def put(value: tuple) -> bool:
        while not stop.is_set():
            try:
                ready.put(value, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for item in items:
                if not put((make(item), None)):
                    return
            put((None, StopIteration()))
        except BaseException as error:
            put((None, error))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        while True:
            value, error = ready.get()
            if isinstance(error, StopIteration):
                return
            if error is not None:
                raise error
            yield value
    finally:
        stop.set()
        # A thread in a call that has released the interpreter lock aborts the process when it ends (exit code 134).
        thread.join(timeout=5)
