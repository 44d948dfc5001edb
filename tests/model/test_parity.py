"""The encoder against transformers' on the same random weights: hidden states, logits, loss, gradients, to 1e-5."""

import numpy as np
import pytest
import torch

from data.layout import Layout
from model.convert.families import config_to_transformers, from_transformers, to_transformers
from model.encoder import EncoderConfig
from model.mlm import MaskedLM

transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")

VOCAB, PAD = 131, 1
LAYOUTS = {"no padding": [24, 24, 24], "padding": [37, 5, 24, 1, 40]}
SHAPE = {"vocab_size": VOCAB, "hidden_size": 64, "layers": 4, "heads": 4, "intermediate_size": 96, "max_length": 40}
FAMILIES = {
    "bert": EncoderConfig(**SHAPE),
    "xlm-roberta": EncoderConfig(type_vocab_size=1, position_offset=PAD + 1, norm_eps=1e-5, **SHAPE),
    "modernbert": EncoderConfig(architecture="modern", dropout=0.0, norm_eps=1e-5, window=4, **SHAPE),
}


def peer_of(family: str):
    values = config_to_transformers(
        FAMILIES[family],
        family,
        {"pad_token_id": PAD, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3},
    )
    config = transformers.AutoConfig.for_model(**values)
    config._attn_implementation = "eager"
    torch.manual_seed(0)
    peer = transformers.AutoModelForMaskedLM.from_config(config).eval()
    with torch.no_grad():  # biases and norms away from 0 and 1, so that a missing one shows
        for parameter in peer.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return peer


def ours_of(family: str, peer, **options) -> MaskedLM:
    model = MaskedLM(FAMILIES[family], **options).eval()
    model.load_state_dict(from_transformers(peer.state_dict(), FAMILIES[family], family, set(model.state_dict())))
    return model


def batch_of(lengths: list[int]):
    generator = np.random.default_rng(1)
    ids = generator.integers(4, VOCAB, sum(lengths))
    positions = np.sort(generator.choice(sum(lengths), sum(lengths) // 3, replace=False))
    targets = generator.integers(4, VOCAB, len(positions))
    padded = np.full((len(lengths), max(lengths)), PAD)
    labels = np.full_like(padded, -100)
    mask = np.zeros_like(padded)
    flat_labels = np.full(sum(lengths), -100)
    flat_labels[positions] = targets
    for row, (start, length) in enumerate(zip(np.cumsum([0, *lengths[:-1]]), lengths, strict=True)):
        padded[row, :length] = ids[start : start + length]
        labels[row, :length] = flat_labels[start : start + length]
        mask[row, :length] = 1
    return [torch.from_numpy(part) for part in (ids, positions, targets, padded, labels, mask)]


@pytest.mark.parametrize("lengths", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_equals_transformers(family, lengths):
    peer = peer_of(family)
    model = ours_of(family, peer)
    ids, positions, targets, padded, labels, mask = batch_of(lengths)
    real = mask.bool()
    theirs = peer(padded, attention_mask=mask, labels=labels, output_hidden_states=True)
    hidden_states = []
    with torch.no_grad():
        model.encoder(ids, Layout.of(lengths), hidden_states=hidden_states)
    assert len(hidden_states) == len(theirs.hidden_states)
    for ours, other in zip(hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(ours, other[real], atol=1e-5, rtol=1e-5)
    everywhere = torch.arange(len(ids))
    torch.testing.assert_close(model.logits(ids, Layout.of(lengths), everywhere), theirs.logits[real], atol=1e-5, rtol=1e-5)

    loss = model(ids, Layout.of(lengths), positions, targets) / len(positions)
    torch.testing.assert_close(loss, theirs.loss, atol=1e-5, rtol=1e-5)
    loss.backward()
    theirs.loss.backward()
    gradients = {name: p.grad for name, p in peer.named_parameters(remove_duplicate=False) if p.grad is not None}
    translated = from_transformers(gradients, FAMILIES[family], family, set(model.state_dict()))
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, translated[name], atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("family", FAMILIES)
def test_names_round_trip(family):
    peer = peer_of(family)
    weights = ours_of(family, peer).state_dict()
    there = to_transformers(weights, FAMILIES[family], family)
    back = from_transformers(there, FAMILIES[family], family, set(weights))
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    result = peer.load_state_dict(there, strict=False)
    assert not result.unexpected_keys
    assert all("decoder" in name for name in result.missing_keys)  # tied to the token embeddings


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("options", [{"last_block_on_masked": True}, {"chunked_loss": False}], ids=str)
def test_savings_change_nothing(family, options):
    """Last block on masked positions only and chunked loss: same loss and gradients as without them."""
    peer = peer_of(family)
    ids, positions, targets, *_ = batch_of(LAYOUTS["padding"])
    plain = ours_of(family, peer, chunked_loss=False)
    other = ours_of(family, peer, **({"chunked_loss": True} | options))
    losses = [model(ids, Layout.of(LAYOUTS["padding"]), positions, targets) for model in (plain, other)]
    torch.testing.assert_close(losses[1], losses[0], atol=1e-5, rtol=1e-6)
    for loss in losses:
        loss.backward()
    for (name, p), q in zip(plain.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(q.grad, p.grad, atol=1e-5, rtol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
