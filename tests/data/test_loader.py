"""Batch i of epoch e is a pure function of (seed, e, i); an epoch reads every token once; the prefetching thread works."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from data.loader import WHOLE, Loader, ahead
from data.masking import Masking
from data.packing import SPECIALS
from data.shards import DOCUMENT, Shards

CLS, SEP, MASK, FIRST = 0, 1, 2, 3


def shards_of(lengths: list[int], kind: str, sources: int = 3) -> Shards:
    """Documents of these lengths; every token's id encodes its position, so that no two can be confused."""
    table = np.zeros(len(lengths), DOCUMENT)
    table["length"] = lengths
    table["start"] = np.cumsum(lengths) - lengths
    table["source"] = np.arange(len(lengths)) % sources
    tokens = np.arange(FIRST, FIRST + sum(lengths)).astype(kind)
    return Shards(Path(), tokens, table, {"sources": [f"s{i}" for i in range(sources)]})


def loader_of(shards: Shards, budget: int = 64, seed: int = 5, rates: np.ndarray | None = None) -> Loader:
    vocabulary = np.arange(int(shards.tokens.max()) + 1)
    masking = Masking(MASK, special=vocabulary < FIRST, continues=vocabulary < 0, ordinary=vocabulary[FIRST:])
    return Loader(shards, masking, np.ones(3) if rates is None else rates, budget, seed, CLS, SEP)


def shown(batch) -> list:
    """All fields of a batch, for comparison."""
    return [
        batch.ids.tolist(),
        batch.positions.tolist(),
        batch.targets.tolist(),
        batch.layout.lengths.tolist(),
        batch.documents.tolist(),
        batch.lengths_by_source.tolist(),
        batch.seed,
    ]


def plain(batch) -> np.ndarray:
    """The ids before they were masked."""
    ids = batch.ids.clone()
    ids[batch.positions] = batch.targets
    return ids.numpy()


lengths_of = st.lists(st.integers(1, 90), min_size=1, max_size=25)
kinds = st.sampled_from(["<u2", "<u4"])


@settings(max_examples=60, deadline=None)
@given(
    lengths=lengths_of, kind=kinds, calls=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 10**6)), min_size=1, max_size=8)
)
def test_batches_depend_on_their_number_only(lengths, kind, calls):
    """One loader is called in any order, with repeats; each answer is compared with that of a fresh loader."""
    shards = shards_of(lengths, kind)
    asked = loader_of(shards)
    for epoch, number in calls:
        number %= len(asked.plan(epoch, 20))  # noqa: PLW2901
        assert shown(asked.batch(epoch, number, 20, 0.3)) == shown(loader_of(shards).batch(epoch, number, 20, 0.3))


def test_seed_epoch_and_number_each_matter():
    shards = shards_of([40] * 20, "<u2")
    batches = [loader_of(shards, seed=s).batch(e, n, 20, 0.3) for s, e, n in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len({str(plain(batch).tolist()) for batch in batches}) == 4
    assert len({batch.seed for batch in batches}) == 4


@settings(max_examples=60, deadline=None)
@given(lengths=lengths_of, kind=kinds, budget=st.integers(40, 200), epoch=st.integers(0, 3))
def test_an_epoch_reads_every_token_once_between_cls_and_sep(lengths, kind, budget, epoch):
    shards = shards_of(lengths, kind)
    loader = loader_of(shards, budget)
    read, by_source = [], np.zeros(3, int)
    for number in range(len(loader.plan(epoch, 20))):
        batch = loader.batch(epoch, number, 20, 0.3)
        ids, starts = plain(batch), batch.layout.starts.numpy()
        count = len(batch.documents)  # the rest is dummy padding: in no document, no position selected
        assert len(ids) == batch.layout.total == starts[-1] and starts[count] <= budget
        assert len(ids) % WHOLE == 0 and len(ids) - starts[count] < WHOLE and batch.layout.longest <= 20
        assert (ids[starts[count] :] == SEP).all() and (batch.positions < starts[count]).all()
        assert batch.ids.dtype == batch.targets.dtype == torch.int64
        for begin, end, row in zip(starts[:count], starts[1:], batch.documents, strict=False):
            text = ids[begin + 1 : end - 1]
            assert ids[begin] == CLS and ids[end - 1] == SEP and 1 <= len(text) <= 20 - SPECIALS
            first = shards.documents["start"][row] + FIRST
            assert (np.diff(text) == 1).all() and first <= text[0] and text[-1] < first + shards.documents["length"][row]
            read += text.tolist()
        own = np.bincount(shards.documents["source"][batch.documents], weights=np.diff(starts)[:count] - SPECIALS, minlength=3)
        assert batch.lengths_by_source.tolist() == own.tolist()
        by_source += batch.lengths_by_source
    assert sorted(read) == list(range(FIRST, FIRST + sum(lengths)))
    assert by_source.tolist() == shards.source_tokens().tolist()


def test_rates_are_how_often_a_source_is_read():
    shards = shards_of([30] * 30, "<u4")
    loader = loader_of(shards, rates=np.array([2.0, 0.0, 1.0]))
    read = sum(loader.batch(0, n, 20, 0.1).lengths_by_source for n in range(len(loader.plan(0, 20))))
    assert read.tolist() == [600, 0, 300]


def test_ids_above_65535_survive():
    shards = shards_of([50, 50], "<u4")
    shards.tokens = shards.tokens + np.uint32(70000)
    loader = loader_of(shards)
    ids = np.concatenate([plain(loader.batch(0, n, 20, 0.3)) for n in range(len(loader.plan(0, 20)))])
    assert sorted(ids[ids > SEP]) == list(range(70000 + FIRST, 70100 + FIRST))


def test_a_budget_too_small_for_a_batch_is_refused():
    with pytest.raises(UserError, match="micro_batch_tokens=39"):
        loader_of(shards_of([5], "<u2"), budget=39)


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def wait_for_end(new: set[threading.Thread]) -> bool:
    for thread in new:
        thread.join(timeout=5)
    return not any(thread.is_alive() for thread in new)


def test_ahead_keeps_the_order_and_ends_its_thread():
    before = threads()
    assert list(ahead(range(50), lambda x: x * x)) == [x * x for x in range(50)]
    assert wait_for_end(threads() - before)


@pytest.mark.parametrize("where", ["items", "make"])
def test_ahead_raises_the_errors_of_its_thread(where):
    def items():
        yield from (1, 2)
        if where == "items":
            raise UserError("shard damaged")
        yield 0

    before, seen = threads(), []
    with pytest.raises((UserError, ZeroDivisionError)):
        for value in ahead(items(), lambda x: 2 // x):
            seen.append(value)
    assert seen == [2, 1]  # batches before the error are not lost
    assert wait_for_end(threads() - before)


def test_ahead_stops_its_thread_when_abandoned_and_is_never_far_ahead():
    before, made = threads(), []
    stream = ahead(iter(range(10**9)), made.append, depth=2)
    next(stream)
    time.sleep(0.3)
    assert len(made) <= 5  # one used, two ready, one waiting to be queued, one being made
    new = threads() - before
    stream.close()
    assert wait_for_end(new)
