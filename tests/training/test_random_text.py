"""The benchmark on random tokens, which needs no data: both sides compute the same loss of the same masks."""

import torch

from benchmarks.peers import same_loss
from benchmarks.pretraining import text_of


class Options:
    """What `python -m benchmarks.pretraining --device cuda` parses."""

    data, device, documents, vocab, batch_tokens, steps, warmup = None, "cuda", "joined", 300, 512, 2, 1


def test_both_sides_agree_on_random_tokens():
    text, name = text_of(Options, 64)
    assert "random" in name and sum(text["random"]) + 2 * len(text["random"]) >= 7 * 512
    shape = {
        "architecture": "bert",
        "vocab_size": 300,
        "hidden_size": 32,
        "layers": 2,
        "heads": 2,
        "intermediate_size": 48,
        "max_length": 64,
    }
    work = {"shape": shape, **text, "way": "check", "length": 64, "masking": "paper", "rate": 0.15, "attention_dropout": 0.1}
    found = same_loss(work, torch.device("cpu"))
    assert found["joined"]["masked"] > 10 and found["padded"]["masked"] > 10
