"""The packer loses no token, fills its budget, and is a pure function of its arguments."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from data.mixture import copies_of, source_rates
from data.packing import LEAST, SPECIALS, pack_epoch, stream

documents = st.lists(st.integers(1, 300), min_size=1, max_size=60)


def tokens_of(plan, batch=slice(None)):
    """Every (document, offset) that the plan reads, in order."""
    return [
        (d, s + i)
        for d, s, n in zip(plan.document[batch], plan.start[batch], plan.length[batch], strict=True)
        for i in range(n)
    ]


@settings(max_examples=150, deadline=None)
@given(lengths=documents, budget=st.integers(40, 400), max_length=st.integers(20, 128), seed=st.integers(0, 9))
def test_no_token_is_lost_or_read_twice(lengths, budget, max_length, seed):
    lengths = np.array(lengths)
    plan = pack_epoch(lengths, np.ones(len(lengths), dtype=np.int64), max_length, budget, stream(seed))
    assert sorted(tokens_of(plan)) == [(d, i) for d, n in enumerate(lengths) for i in range(n)]
    assert plan.length.min() >= 1 and plan.length.max() <= max_length - SPECIALS
    assert plan.first[0] == 0 and plan.first[-1] == len(plan.length) and (np.diff(plan.first) > 0).all()
    for i in range(len(plan)):
        used = (plan.length[plan.first[i] : plan.first[i + 1]] + SPECIALS).sum()
        assert used <= budget
        if i < len(plan) - 1:
            assert used > budget - 2 * LEAST - SPECIALS


def test_copies_are_read_as_often_as_given():
    lengths, copies = np.array([50, 7, 300]), np.array([2, 0, 3])
    plan = pack_epoch(lengths, copies, 64, 200, stream(0))
    assert np.array_equal(np.bincount(plan.document, weights=plan.length, minlength=3), lengths * copies)


def test_fill_at_length_512_on_real_lengths():
    """Log-normal lengths as real text has; budgets of 8 x 512 tokens: at least 99 % full."""
    lengths = np.exp(stream(3).normal(5, 1.2, 5000)).astype(int) + 1
    plan = pack_epoch(lengths, np.ones(len(lengths), dtype=np.int64), 512, 4096, stream(0))
    used = np.add.reduceat(plan.length + SPECIALS, plan.first[:-1])
    assert (used[:-1] / 4096).mean() >= 0.99


def test_epochs_differ_and_repeat():
    lengths, ones = np.arange(1, 200), np.ones(199, dtype=np.int64)
    plans = [pack_epoch(lengths, ones, 64, 256, stream(7, 0, epoch)) for epoch in (0, 1, 0)]
    assert np.array_equal(plans[0].document, plans[2].document) and np.array_equal(plans[0].first, plans[2].first)
    assert not np.array_equal(plans[0].document[:50], plans[1].document[:50])


def test_windows_of_a_document_are_consecutive():
    plan = pack_epoch(np.array([1000]), np.array([1]), 130, 4096, stream(1))
    order = np.argsort(plan.start)
    assert np.array_equal(plan.start[order][1:], (plan.start + plan.length)[order][:-1])


def test_rates_are_the_weights_at_temperature_one():
    rates = source_rates(np.array([100, 1000, 0]), np.array([4.0, 1.0, 2.0]), 1.0, None)
    np.testing.assert_allclose(rates, [4, 1, 0])


@given(tokens=st.lists(st.integers(1, 10**6), min_size=2, max_size=8), temperature=st.floats(0, 1), cap=st.floats(1, 8))
def test_a_capped_source_leaves_its_share_to_the_others(tokens, temperature, cap):
    tokens = np.array(tokens)
    rates = source_rates(tokens, np.ones(len(tokens)), temperature, cap)
    assert (rates <= cap * (1 + 1e-9)).all() and (rates > 0).all()
    np.testing.assert_allclose((rates * tokens).sum(), tokens.sum(), rtol=1e-6)  # an epoch's length is unchanged


def test_low_temperature_raises_small_sources():
    rates = source_rates(np.array([10, 1000]), np.ones(2), 0.5, None)
    np.testing.assert_allclose(rates[0] / rates[1], 10.0)


def test_copies_have_the_rate_on_average():
    copies = copies_of(np.array([0.25, 2.5]), np.repeat([0, 1], 20000), stream(5))
    assert abs(copies[:20000].mean() - 0.25) < 0.02 and set(copies[20000:]) == {2, 3}
    assert abs(copies[20000:].mean() - 2.5) < 0.02


def test_nothing_to_read_is_an_error():
    with pytest.raises(UserError, match="weight"):
        source_rates(np.array([5.0]), np.array([0.0]), 1.0, None)
