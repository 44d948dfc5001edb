"""bias_from_counts: a new model knows the frequency of each token, and nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch

from data.layout import Layout
from data.shards import DOCUMENT, Shards
from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from training.starting import begin_from_counts, begin_from_text

SIZE = 60


@pytest.fixture
def shards() -> Shards:
    """Tokens of very different frequency; some never occur in the text."""
    tokens = np.random.default_rng(0).zipf(1.5, 5000)
    tokens = (tokens[tokens < SIZE - 10] + 5).astype("<u2")
    table = np.zeros(1, DOCUMENT)
    table["length"] = len(tokens)
    return Shards(Path(), tokens, table, {"sources": ["one"]})


def test_counts(shards):
    assert shards.token_counts(SIZE).tolist() == [int((shards.tokens == token).sum()) for token in range(SIZE)]
    sampled = shards.token_counts(SIZE, sample=len(shards.tokens) // 2)  # every second token
    assert sampled.tolist() == np.bincount(shards.tokens[::2], minlength=SIZE).tolist()


@pytest.mark.parametrize("wanted", [True, False])
def test_a_new_model_guesses_by_frequency(shards, wanted):
    torch.manual_seed(0)
    model = MaskedLM(EncoderConfig("modern", SIZE, 32, 2, 2, 48, dropout=0.0)).eval()
    if wanted:
        begin_from_counts(model, shards)
    ids = torch.from_numpy(shards.tokens[:1500].astype(np.int64))
    positions = torch.arange(0, 1500, 3)
    with torch.no_grad():
        loss = float(model(ids, Layout.of([500] * 3), positions, ids[positions]) / len(positions))
    shares = (shards.token_counts(SIZE) + 1) / (shards.token_counts(SIZE) + 1).sum()
    expected = float(-np.log(shares[ids[positions].numpy()]).mean()) if wanted else np.log(SIZE)
    assert loss == pytest.approx(expected, abs=0.1)


def test_embeddings_from_text(shards):
    """As long as drawn ones, a function of the text; a token that never stands there keeps what was drawn."""
    torch.manual_seed(0)
    model = MaskedLM(EncoderConfig("modern", SIZE, 32, 2, 2, 48, dropout=0.0))
    drawn = model.encoder.token_embeddings.weight.detach().clone()
    begin_from_text(model, shards, SIZE)
    words = model.encoder.token_embeddings.weight.detach()
    assert torch.equal(words[SIZE - 1], drawn[SIZE - 1])
    changed = (words != drawn).any(1)
    assert 10 < changed.sum() < SIZE
    torch.testing.assert_close(words[changed].norm(dim=1), torch.full((int(changed.sum()),), 0.02 * 32**0.5))
