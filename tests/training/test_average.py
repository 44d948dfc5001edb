"""The mean of checkpoints is correct, loads like any other, and is refused where it would be meaningless."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from common.errors import UserError
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tests.conftest import run_script
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer
from training.average import average_checkpoints, main


@pytest.fixture
def made(prepared, tmp_path):
    """Writes a checkpoint with random weights of this seed."""
    tokenizer = load_tokenizer(prepared / "tokenizer")

    def make(name: str, seed: int, other: Tokenizer | None = None, **shape: int) -> Path:
        config = EncoderConfig(
            vocab_size=1600, hidden_size=16, heads=2, intermediate_size=24, max_length=32, **{"layers": 2} | shape
        )
        torch.manual_seed(seed)
        write_checkpoint(tmp_path / name, MaskedLM(config).state_dict(), config, other or tokenizer)
        return tmp_path / name

    return make


def test_the_mean_is_correct_and_loads(made, tmp_path):
    folders = [made(f"c{seed}", seed) for seed in range(3)]
    result = run_script("-m", "training.average", *folders, "--out", tmp_path / "mean")
    assert result.returncode == 0, result.stderr
    parts = [safetensors.torch.load_file(folder / "model.safetensors") for folder in folders]
    model, _ = load_masked_lm(tmp_path / "mean")
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, torch.stack([part[name] for part in parts]).double().mean(0).float())
    assert not torch.equal(parts[0]["encoder.token_embeddings.weight"], parts[1]["encoder.token_embeddings.weight"])
    assert len(json.loads((tmp_path / "mean" / "config.json").read_text())["average_of"]) == 3


def test_mean_of_one_model_is_that_model_to_the_bit(made, tmp_path):
    folder = made("same", 1)
    average_checkpoints([folder] * 3, tmp_path / "mean")
    ours, theirs = (safetensors.torch.load_file(f / "model.safetensors") for f in (tmp_path / "mean", folder))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_incompatible_checkpoints_are_refused(prepared, made, tmp_path):
    from tokenization.settings import Tokenizer as TokenizerSettings
    from tokenization.train import train_tokenizer

    first = made("first", 0)
    other = train_tokenizer(TokenizerSettings(vocab_size=1400, prune_from=1), prepared / "corpus", tmp_path / "other", 0)
    assert other.identity != load_tokenizer(first).identity
    bad = made("bad", 2)
    (bad / "model.safetensors").write_bytes((bad / "model.safetensors").read_bytes()[:-7])
    for second, words in [
        (made("deep", 1, layers=3), "layers: 2 and 3"),
        (made("foreign", 1, other), "another tokenizer"),
        (bad, "damaged"),
        (tmp_path / "nowhere", "no such"),
    ]:
        with pytest.raises(UserError, match=words):
            average_checkpoints([first, second], tmp_path / "out")
        assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match="at least two"):
        average_checkpoints([first], tmp_path / "out")
    with pytest.raises(UserError, match="exists already"):
        average_checkpoints([first, first], first)


def test_command_says_what_is_wrong(made, capsys, tmp_path):
    assert main([str(made("one", 0)), "--out", str(tmp_path / "x")]) == 2
    assert "at least two" in capsys.readouterr().err
