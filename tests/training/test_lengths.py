"""Bits per character by length: the groups sum to the whole, and a window as long as the texts changes nothing."""

import pytest
import torch

from common.files import write_jsonl
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from tests.conftest import run_script
from tokenization.loading import load_tokenizer
from training.distributed import start
from training.heldout import evaluate, read_heldout
from training.lengths import length_group, length_table


def test_length_groups():
    assert [length_group(n) for n in (1, 128, 129, 2048, 2049, 9000)] == [
        "1-128",
        "1-128",
        "129-512",
        "513-2048",
        "2049-8192",
        "over 8192",
    ]


def test_length_groups_add_up_and_the_masked_tokens_are_the_same(prepared, tmp_path):
    tokenizer = load_tokenizer(prepared / "tokenizer")
    shape = {"hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 24, "max_length": 700, "initializer_range": 0.5}
    torch.manual_seed(0)
    model = MaskedLM(EncoderConfig(architecture="modern", vocab_size=tokenizer.vocab_size, **shape)).eval()
    texts = [{"text": "Bakı Azərbaycanın paytaxtıdır. " * n, "source": f"s{n}"} for n in (1, 3, 30, 90)]
    write_jsonl(tmp_path / "held.jsonl", texts)
    table = length_table(model, tokenizer, tmp_path / "held.jsonl", [64, 128, 700], start("cpu"), torch.float32)
    plain = evaluate(model, read_heldout(tmp_path / "held.jsonl", tokenizer, 700), start("cpu"), torch.float32)
    assert table["700"]["all"]["loss"] == pytest.approx(plain["loss"])
    for column in table.values():
        groups = {name: scores for name, scores in column.items() if name != "all"}
        assert sum(scores["masked"] for scores in groups.values()) == column["all"]["masked"] == plain["masked"]
        assert list(groups) == list(table["64"])[:-1]
    assert table["128"]["1-128"]["loss"] == pytest.approx(table["700"]["1-128"]["loss"])  # nothing was cut there
    assert table["64"]["129-512"]["loss"] != pytest.approx(table["700"]["129-512"]["loss"], rel=1e-6)


@pytest.mark.slow
def test_command(prepared, tmp_path):
    tokenizer = load_tokenizer(prepared / "tokenizer")
    shape = {"hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 24, "max_length": 200}
    model = MaskedLM(EncoderConfig(vocab_size=tokenizer.vocab_size, **shape))
    write_checkpoint(tmp_path / "c", model.state_dict(), model.encoder.config, tokenizer)
    write_jsonl(tmp_path / "held.jsonl", [{"text": "Bakı Azərbaycanın paytaxtıdır. " * 40}])
    result = run_script("-m", "training.lengths", tmp_path / "c", tmp_path / "held.jsonl")
    assert result.returncode == 0 and "128" in result.stdout and "200" in result.stdout, result.stderr
    for words in (["--windows", "512"], ["--windows", "a"]):
        bad = run_script("-m", "training.lengths", tmp_path / "c", tmp_path / "held.jsonl", *words)
        assert bad.returncode == 2 and "--windows" in bad.stderr and "Traceback" not in bad.stderr
