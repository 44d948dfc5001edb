"""Bits per character by its definition, computed a second way, and independent of order and batch."""

import json
import math

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import write_jsonl
from data.layout import Layout
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tests.conftest import run_script
from tokenization.loading import load_tokenizer
from training.distributed import start
from training.heldout import evaluate, read_heldout

TEXTS = [
    {"source": "news", "text": "Bakıda yeni kitabxana açıldı. İlk gün min nəfər gəldi!"},
    {"source": "laws", "text": "Maddə 1. Kitabxana fondu dövlət tərəfindən qorunur.\nMaddə 2. Oxucu pulsuz üzv olur."},
    {"source": "news", "text": "Şəki şəhərində festival başladı. " * 9},
]


@pytest.fixture(scope="module")
def checkpoint(prepared, tmp_path_factory):
    tokenizer = load_tokenizer(prepared / "tokenizer")
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, layers=2, heads=2, intermediate_size=48, max_length=48
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints") / "random"
    write_checkpoint(folder, MaskedLM(config).state_dict(), config, tokenizer)
    return folder


def scores_of(checkpoint, file, **options):
    model, tokenizer = load_masked_lm(checkpoint)
    return evaluate(model, read_heldout(file, tokenizer, 48), start("cpu"), torch.float32, **options)


def test_equals_the_definition(checkpoint, tmp_path):
    """Every window by itself through plain log_softmax; characters counted from the tokenizer's own offsets."""
    file = tmp_path / "held.jsonl.gz"
    write_jsonl(file, TEXTS)
    report = scores_of(checkpoint, file)
    model, tokenizer = load_masked_lm(checkpoint)
    heldout = read_heldout(file, tokenizer, 48)
    sums = {name: [0.0, 0, 0, 0] for name in heldout.sources}
    for window in heldout.windows:
        if not len(window.positions):
            continue
        ids = torch.from_numpy(window.ids)
        assert (ids[window.positions] == tokenizer.mask_id).all()
        with torch.no_grad():
            logits = model.logits(ids, Layout.of([len(ids)]), torch.from_numpy(window.positions)).log_softmax(-1)
        entry = sums[heldout.sources[window.source]]
        entry[0] -= float(logits[range(len(window.targets)), window.targets].sum())
        entry[1] += int((logits.argmax(-1).numpy() == window.targets).sum())
        entry[2] += len(window.targets)
        entry[3] += sum(len(tokenizer.tokens[t].removeprefix("##")) for t in window.targets)
    for name, (loss, right, masked, characters) in sums.items():
        got = report["sources"][name]
        assert got["masked"] == masked
        assert got["loss"] == pytest.approx(loss / masked, rel=1e-5)
        assert got["accuracy"] == pytest.approx(right / masked)
        assert got["bits_per_character"] == pytest.approx(loss / characters / math.log(2), rel=1e-5)
    total = np.sum(list(sums.values()), axis=0)
    assert report["bits_per_character"] == pytest.approx(total[0] / total[3] / math.log(2), rel=1e-5)
    assert 0.05 < report["masked"] / sum(len(w.ids) for w in heldout.windows) < 0.3


def test_order_and_batch_do_not_matter(checkpoint, tmp_path):
    for name, texts in (("a", TEXTS), ("b", TEXTS[::-1])):
        write_jsonl(tmp_path / f"{name}.jsonl", texts)
    first, turned = (scores_of(checkpoint, tmp_path / f"{n}.jsonl", batch_tokens=b) for n, b in (("a", 64), ("b", 4096)))
    for source in ("news", "laws"):
        assert first["sources"][source] == pytest.approx(turned["sources"][source])


def test_command_prints_table_and_json(checkpoint, tmp_path):
    file = tmp_path / "held.jsonl"
    write_jsonl(file, TEXTS)
    result = run_script("-m", "training.heldout", checkpoint, file)
    assert result.returncode == 0, result.stderr
    assert "bits/char" in result.stdout and "laws" in result.stdout and "all" in result.stdout
    result = run_script("-m", "training.heldout", checkpoint, file, "--json")
    assert json.loads(result.stdout)["loss"] == pytest.approx(scores_of(checkpoint, file)["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "holds no documents"),
        (b'{"title": "x"}\n', 'line 1: no "text"'),
        (b'{"text": "a"}\n{"text": \n', "line 2: not valid JSON"),
        (b"[1, 2]\n", "expected a JSON object"),
    ],
)
def test_bad_files_are_named(checkpoint, tmp_path, content, words):
    file = tmp_path / "bad.jsonl"
    file.write_bytes(content)
    with pytest.raises(UserError, match=words):
        scores_of(checkpoint, file)


def test_missing_checkpoint_is_named(tmp_path):
    result = run_script("-m", "training.heldout", tmp_path / "nowhere", tmp_path / "text.jsonl")
    assert result.returncode == 2 and "no such checkpoint" in result.stderr and "Traceback" not in result.stderr


def test_the_frequency_bits_equal_those_of_a_frequency_model(checkpoint, tmp_path):
    """A decoder with zero weights and the log frequencies as bias predicts frequencies only."""
    write_jsonl(tmp_path / "held.jsonl", TEXTS)
    model, tokenizer = load_masked_lm(checkpoint)
    heldout = read_heldout(tmp_path / "held.jsonl", tokenizer, 48)
    assert "frequency_bits_per_character" not in evaluate(model, heldout, start("cpu"), torch.float32)
    heldout.counts = np.random.default_rng(0).integers(0, 50, tokenizer.vocab_size).astype(float)
    with torch.no_grad():
        model.encoder.token_embeddings.weight.zero_()
        shares = torch.from_numpy((heldout.counts + 1) / (heldout.counts + 1).sum())
        model.head.bias.copy_(shares.log().float())
    report = evaluate(model, heldout, start("cpu"), torch.float32)
    assert report["frequency_bits_per_character"] == pytest.approx(report["bits_per_character"], rel=1e-5)
