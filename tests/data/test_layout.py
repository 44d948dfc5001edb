"""The layout of a flat batch: the layout of selected positions belongs to exactly those positions."""

import numpy as np
import pytest
import torch

from data.features import collate
from data.layout import Layout
from data.loader import Batch
from model.encoder import Encoder, EncoderConfig
from tasks.encoding import Encoded, Row

SHAPES = {"bert": {}, "modern": {"global_every": 1}}


@pytest.mark.parametrize("architecture", SHAPES)
def test_other_selected_positions_get_their_own_layout(architecture):
    """Other masked positions than those given to `select`, equally many: the last block uses their own documents."""
    torch.manual_seed(0)
    config = EncoderConfig(architecture, 50, 16, 2, 2, 24, 16, initializer_range=0.3, **SHAPES[architecture])
    encoder = Encoder(config).eval()
    ids, layout = torch.arange(12) + 5, Layout.of([4, 8])
    selected, others = torch.tensor([0, 1, 2]), torch.tensor([3, 5, 11])
    layout.select(selected)
    with torch.no_grad():
        whole = encoder(ids, Layout.of([4, 8]))
        for positions in (selected, others, selected.clone()):
            torch.testing.assert_close(encoder(ids, layout, None, positions), whole[positions], atol=1e-6, rtol=1e-5)
    assert layout.queries(selected) is layout.queries(selected.clone()) is layout.selected[1]
    assert layout.queries(others).lengths.tolist() == [1, 2]


def test_selected_positions_move_with_the_batch():
    """After a move the layout recognises the moved positions by identity, so no value is copied back from the device."""
    layout, positions = Layout.of([3, 5]), torch.tensor([1, 4, 6])
    layout.select(positions)
    batch = Batch(torch.arange(8), layout, positions, torch.arange(3), np.arange(2), np.zeros(1), 0)
    moved = batch.to(torch.device("meta"))  # holds no values: reading one would raise
    assert moved.positions is moved.layout.selected[0] and moved.positions.device.type == "meta"
    assert moved.layout.queries(moved.positions).lengths.tolist() == [1, 2]
    rows = [Row(np.arange(n, dtype=np.int32), n, np.zeros(1, np.int64), np.array([0])) for n in (4, 6)]
    task = collate(Encoded("classification", rows, [0, 1, 2], [False, False]), np.arange(2), "meta")
    assert task.layout.queries(task.positions).lengths.tolist() == [1, 1]


def test_row_counts_are_known_on_the_host():
    layout = Layout.of([5, 8, 16, 16])
    rectangles, _ = layout.rows("padded")
    assert [rows.full for rows in rectangles] == [False, True]
    for rows in rectangles:
        assert rows.owners.tolist() == rows.document[:, 0].tolist()
        assert rows.full == bool((rows.document >= 0).all())
    (packed,), _ = layout.rows("packed")
    assert packed.owners is None and not packed.full


def test_rounding_adds_no_document_that_is_too_long():
    """The dummy padding of a rounded batch fits the position table: an encoder of 32 positions never gets more."""
    layout = Layout.of([5, 20]).rounded(128, longest=32)
    assert layout.total == 128 and layout.longest == 32 and layout.lengths[:2].tolist() == [5, 20]
    assert layout.rounded(128, longest=32) is layout
    encoder = Encoder(EncoderConfig("bert", 50, 16, 1, 2, 24, 32)).eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert encoder(torch.arange(25) + 5, Layout.of([5, 20])).shape == (25, 16)
