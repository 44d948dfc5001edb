"""Bits per character of common units: the same masked characters for all, and the chain rule by hand."""

import numpy as np
import pytest
import torch

from benchmarks.tokenizer_bits import cut, losses
from data.layout import Layout
from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from tests.tokenization.samples import sentences
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer

MOST = 30


@pytest.fixture(scope="module")
def two(trained) -> list[Tokenizer]:
    return [load_tokenizer(trained[name]) for name in ("wordpiece-uncased", "phrases-uncased", "bpe-uncased")]


def test_all_mask_the_same_characters(two):
    texts = [*sentences()[:40], "", "😀 söz"]
    chunks, characters = cut(texts, two, MOST)
    assert characters.sum() > 100 and len({len(part) for part in chunks}) == 1
    for tokenizer, part in zip(two, chunks, strict=True):
        assert max(len(chunk.ids) for chunk in part) <= MOST
        for number, (text, encoding) in enumerate(zip(texts, tokenizer.encode_with_offsets(texts), strict=True)):
            mine = [chunk for chunk in part if chunk.document == number]
            ids = np.concatenate([chunk.ids for chunk in mine]) if mine else np.array([])
            assert ids.tolist() == encoding.ids.tolist()
            hidden = np.concatenate([chunk.unit for chunk in mine]) >= 0 if mine else np.array([], dtype=bool)
            shown = {place for begin, end in encoding.offsets[hidden].tolist() for place in range(begin, end)}
            assert sum(not text[place].isspace() for place in shown) == characters[number]


def test_chain_rule_by_hand(two):
    tokenizer = two[0]
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 32, "max_length": 64, "dropout": 0.0}
    model = MaskedLM(EncoderConfig.from_dict({"architecture": "bert", "vocab_size": tokenizer.vocab_size, **shape})).eval()
    chunks, _ = cut(sentences()[:30], two, MOST)
    lengths = [np.unique(chunk.unit[chunk.unit >= 0], return_counts=True)[1] for chunk in chunks[0]]
    chosen = next(c for c, n in zip(chunks[0], lengths, strict=True) if len(n) == 1 and n[0] > 1)  # one unit, several tokens
    at = np.flatnonzero(chosen.unit >= 0)
    expected = 0.0
    for step, place in enumerate(at):
        seen = chosen.ids.copy()
        seen[at[step:]] = tokenizer.mask_id
        ids = torch.tensor([tokenizer.cls_id, *seen.tolist(), tokenizer.sep_id])
        with torch.no_grad():
            hidden = model.hidden_at(ids, Layout.of([len(ids)], torch.device("cpu")), torch.tensor([place + 1]))
            expected -= float(model.decode(hidden).log_softmax(-1)[0, chosen.ids[place]])
    measured = losses(model, tokenizer, [chosen], chosen.document + 1)
    assert measured[chosen.document] == pytest.approx(expected, rel=1e-5)
