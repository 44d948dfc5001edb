"""Causal batches and likelihoods: nothing looks ahead, shares are kept, probabilities sum to one, a run learns both."""

import json
import math

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import read_jsonl
from data.layout import Layout
from data.masking import Masking
from data.packing import stream
from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tests.conftest import run_script, training_words
from training.likelihood import causal_share, likelihoods, report

CLS, SEP = 2, 3


def masking(**options) -> Masking:
    return Masking(4, np.arange(50) < 5, np.zeros(50, bool), np.arange(5, 50), **options)


@pytest.mark.parametrize("share", [0.0, 0.1, 1 / 3, 0.5, 1.0])
def test_causal_batches_are_spread_evenly(share):
    kinds = np.array([masking(causal=share).is_causal(number) for number in range(3000)])
    assert abs(kinds.mean() - share) < 0.001
    for begin in range(0, 2900, 100):  # any hundred batches in a row have their share
        assert abs(kinds[begin : begin + 100].mean() - share) <= 0.011


@pytest.mark.parametrize("rate", [1.0, 0.3])
def test_every_text_token_is_predicted_by_the_one_before_it(rate):
    ids = np.array([CLS, *range(5, 25), SEP, CLS, 30, SEP, CLS, *range(31, 50), SEP])
    positions, targets = masking(causal=1.0, causal_rate=rate).next_tokens(ids, stream(1))
    assert (np.diff(positions) > 0).all() and np.array_equal(targets, ids[positions + 1])
    assert not np.isin(targets, [CLS, SEP]).any()
    if rate == 1:
        assert sorted(targets) == sorted(ids[ids >= 5])
    else:
        assert len(targets) == round(0.3 * (ids >= 5).sum())


@pytest.mark.parametrize("architecture", ["bert", "modern"])
@pytest.mark.parametrize("some", [True, False])
def test_a_causal_encoder_does_not_look_ahead(architecture, some):
    torch.manual_seed(0)
    shape = EncoderConfig(
        architecture=architecture, vocab_size=50, hidden_size=16, layers=4, heads=2, intermediate_size=24, dropout=0.0, window=3
    )
    model = MaskedLM(shape, last_block_on_masked=some).eval()
    ids = torch.randint(5, 50, (30,))
    other = torch.cat([ids[:20], torch.randint(5, 50, (10,))])
    asked, layout = torch.arange(30), Layout.of([30], causal=True)
    before, after = (model.logits(x, layout, asked) for x in (ids, other))
    assert torch.equal(before[:20], after[:20]) and not torch.equal(before[20:], after[20:])
    assert not torch.equal(model.logits(ids, Layout.of([30]), asked)[:20], before[:20])


@pytest.fixture(scope="module")
def both(prepared, tmp_path_factory):
    """A run that reads every second batch left to right."""
    run = tmp_path_factory.mktemp("both")
    words = training_words(prepared, run, "masking.causal=0.5", "budget.steps=40", "optimizer.lr=5e-3")
    result = run_script(*words)
    assert result.returncode == 0, result.stderr
    return run


def test_next_token_probabilities_sum_to_one(both):
    """All continuations of a text by one token, so that no probability is lost: 1, as the chain rule wants."""
    model, tokenizer = load_masked_lm(both)
    (short,) = likelihoods(model, tokenizer, ["kitab"])
    ids = tokenizer.encode_batch(["kitab"])[0].tolist()
    total = 0.0
    with torch.no_grad():
        flat = torch.tensor([tokenizer.cls_id, *ids])
        logits = model.logits(flat, Layout.of([len(flat)], causal=True), torch.tensor([len(flat) - 1]))
        total = float(logits.softmax(-1).sum())
        nats = 0.0
        for place, token in enumerate(ids):  # one token at a time, each from its own forward pass over the earlier ones
            part = torch.tensor([tokenizer.cls_id, *ids[:place]])
            alone = model.logits(part, Layout.of([len(part)], causal=True), torch.tensor([len(part) - 1]))
            nats -= float(alone.log_softmax(-1)[0, token])
    assert total == pytest.approx(1, abs=1e-5)
    assert short.bits == pytest.approx(nats / math.log(2), abs=1e-4)


def test_the_second_half_begins_at_the_middle_character(both):
    model, tokenizer = load_masked_lm(both)
    texts = ["bir iki üç dörd beş altı yeddi səkkiz", "bir iki üç dörd", "a"]
    found = likelihoods(model, tokenizer, texts, batch_tokens=12)
    for text, one in zip(texts, found, strict=True):
        encoding = tokenizer.encode_with_offsets([text])[0]
        first = int((encoding.offsets[:, 0] < len(text) / 2).sum())
        assert one.tokens == len(encoding.ids) and one.characters == len(text)
        assert 0 <= one.bits_of_second_half <= one.bits
        if text == "bir iki üç dörd":  # the middle is the space before "üç", so the first half is a text of its own
            (begun,) = likelihoods(model, tokenizer, ["bir iki"])
            assert tokenizer.encode_batch(["bir iki"])[0].tolist() == encoding.ids[:first].tolist()
            assert one.bits_of_second_half == pytest.approx(one.bits - begun.bits, abs=1e-3)
    assert report(found)["texts"] == 3


def test_the_run_learned_left_to_right(both, prepared, tmp_path):
    """Its text is likelier than with new weights and than by the frequency of tokens, and the command prints the same."""
    model, tokenizer = load_masked_lm(both)
    texts = [record["text"][:200] for _, record in read_jsonl(prepared / "corpus" / "heldout.jsonl.gz")][:20]
    assert causal_share(both) == 0.5
    torch.manual_seed(0)
    new = MaskedLM(model.encoder.config)
    learned, fresh = (report(likelihoods(m, tokenizer, texts)) for m in (model, new))
    assert learned["bits_per_character"] < 0.9 * fresh["bits_per_character"]
    (tmp_path / "texts.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts), encoding="utf-8")
    result = run_script("-m", "training.likelihood", both, tmp_path / "texts.jsonl", "--json", "--device", "cpu")
    assert json.loads(result.stdout)["bits_of_second_half"] == pytest.approx(learned["bits_of_second_half"], rel=1e-4)
    result = run_script("-m", "training.likelihood", both, tmp_path / "texts.jsonl", "--column", "satz")
    assert result.returncode == 2 and "--column" in result.stderr and "line 1" in result.stderr


def test_a_model_without_that_reading_is_refused(prepared, tmp_path):
    words = training_words(prepared, tmp_path / "run", "budget.steps=1")
    assert run_script(*words).returncode == 0
    with pytest.raises(UserError, match=r"masking\.causal"):
        causal_share(tmp_path / "run")
