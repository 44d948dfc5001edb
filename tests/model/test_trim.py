"""A trimmed checkpoint: the same tokens, hidden states and logits, for every kind of tokenizer; 100,000 tokens shrink."""

import random

import numpy as np
import pytest
import tokenizers
import torch
from tokenizers import models, pre_tokenizers

from common.files import read_json
from data.layout import Layout
from model.convert.importing import import_checkpoint
from model.convert.trim import kept_tokens, main
from model.folder import verify_checkpoint
from model.huggingface import main as huggingface
from model.store import load_masked_lm, load_task_model
from tests.model.peers import FAMILIES, TEXTS, _finish, write_peer
from tokenization.loading import load_tokenizer

KEPT = TEXTS[:3]  # the text of the language that stays


@pytest.fixture(autouse=True)
def hf_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


@pytest.fixture
def text(tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(KEPT) + "\n", encoding="utf-8")
    return path


def logits_of(model, tokenizer, text: str) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
    """(framed ids, hidden states, logits at every position)."""
    ids = np.concatenate([[tokenizer.cls_id], tokenizer.encode_batch([text])[0], [tokenizer.sep_id]]).astype(np.int64)
    flat, layout = torch.from_numpy(ids), Layout.of([len(ids)])
    with torch.no_grad():
        return ids, model.encoder(flat, layout), model.logits(flat, layout, torch.arange(len(ids)))


def assert_equal_outputs(before, after, texts) -> None:
    (old, old_tokens), (new, new_tokens) = load_masked_lm(before), load_masked_lm(after)
    kept = [old_tokens.tokens.index(token) for token in new_tokens.tokens]
    assert kept == sorted(kept) and new.encoder.config.vocab_size == len(kept)
    for text in texts:
        ids, hidden, logits = logits_of(old, old_tokens, text)
        other, new_hidden, new_logits = logits_of(new, new_tokens, text)
        assert ids.tolist() == [kept[i] for i in other]
        torch.testing.assert_close(new_hidden, hidden, rtol=0, atol=0)
        torch.testing.assert_close(new_logits, logits[:, kept], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_equal_outputs_of_every_family(family, text, tmp_path, capsys):
    write_peer(tmp_path / "theirs", family)
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours")
    assert main([str(tmp_path / "ours"), str(tmp_path / "small"), "--text", str(text)]) == 0
    assert "3 of 3 texts have the same tokens" in capsys.readouterr().out
    verify_checkpoint(tmp_path / "small")
    assert_equal_outputs(tmp_path / "ours", tmp_path / "small", [*KEPT, " ".join(KEPT), KEPT[0][:17]])
    sizes = [load_tokenizer(tmp_path / name).vocab_size for name in ("ours", "small")]
    assert sizes[1] < sizes[0]
    # Words that the text lacks are still spelled by its letters.
    tokenizer = load_tokenizer(tmp_path / "small")
    assert tokenizer.unk_id not in tokenizer.encode_batch(["şal sat"])[0].tolist()


@pytest.mark.parametrize("family", ["mbert", "xlm-roberta", "modernbert"])
def test_transformers_reads_the_export(family, text, tmp_path):
    transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")
    theirs = write_peer(tmp_path / "theirs", family)
    assert main([str(tmp_path / "theirs"), str(tmp_path / "small"), "--text", str(text)]) == 0
    assert huggingface(["export", str(tmp_path / "small"), str(tmp_path / "out")]) == 0
    reader = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    peer, small = (
        kind.from_pretrained(tmp_path / "out") for kind in (transformers.AutoModelForMaskedLM, transformers.AutoTokenizer)
    )
    for line in KEPT:
        old, new = reader(line, return_tensors="pt"), small(line, return_tensors="pt")
        names = [reader.convert_ids_to_tokens(old["input_ids"][0]), small.convert_ids_to_tokens(new["input_ids"][0])]
        assert names[0] == names[1]
        with torch.no_grad():
            a = theirs(**old).logits[0].gather(1, old["input_ids"][0][:, None])
            b = peer.eval()(**new).logits[0].gather(1, new["input_ids"][0][:, None])
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def write_large(folder) -> None:
    """XLM-R's shape in small width with 100,000 tokens, most of other languages."""
    transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")
    draw = random.Random(0)
    own = sorted({"▁" + word[:end] for line in TEXTS for word in line.split() for end in range(1, 8)} | set("".join(TEXTS)))
    other = {"▁" + "".join(draw.choice("бвгджзклмнпрстфхцчш") for _ in range(draw.randint(5, 9))) for _ in range(101_000)}
    scored = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    scored += [(word, len(word) - 12.0) for word in [*own, *sorted(other)]]
    tokenizer = tokenizers.Tokenizer(models.Unigram(scored, unk_id=3))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.add_special_tokens(["<mask>"])
    folder.mkdir()
    special = ("<pad>", "<unk>", "<s>", "</s>", "<mask>")
    _finish(folder, tokenizer, special, "XLMRobertaTokenizerFast", "{0} $A {1} {1} $B {1}")
    config = transformers.XLMRobertaConfig(
        vocab_size=tokenizer.get_vocab_size(), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=64, max_position_embeddings=66, type_vocab_size=1, layer_norm_eps=1e-5,
        pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )  # fmt: skip
    torch.manual_seed(0)
    transformers.XLMRobertaForMaskedLM(config).save_pretrained(folder)


@pytest.mark.slow
def test_a_hundred_thousand_tokens_become_few(text, tmp_path, capsys):
    write_large(tmp_path / "theirs")
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours")
    assert load_tokenizer(tmp_path / "ours").vocab_size >= 100_000
    words = [str(tmp_path / "ours"), str(tmp_path / "small"), "--text", str(text), "--language", "azerbaijani"]
    assert main(words) == 0
    assert_equal_outputs(tmp_path / "ours", tmp_path / "small", KEPT)
    before, after = ((tmp_path / name / "model.safetensors").stat().st_size for name in ("ours", "small"))
    assert after < 0.6 * before and "smaller" in capsys.readouterr().out
    assert read_json(tmp_path / "small" / "config.json")["language"] == "azerbaijani"


def test_a_fine_tuned_one_keeps_its_task(text, tmp_path):
    write_peer(tmp_path / "theirs", "bert", "ForSequenceClassification", num_labels=3)
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours")
    assert main([str(tmp_path / "ours"), str(tmp_path / "small"), "--text", str(text)]) == 0
    (old, _, task), (new, _, same) = load_task_model(tmp_path / "ours"), load_task_model(tmp_path / "small")
    assert task == same and torch.equal(old.head.weight, new.head.weight)


def test_rare_tokens_leave_if_asked(tmp_path, text, capsys):
    write_peer(tmp_path / "theirs", "mbert")
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours")
    tokenizer = load_tokenizer(tmp_path / "ours")
    sizes = [len(kept_tokens(tokenizer, KEPT, least)) for least in (1, 2, 100)]
    assert sizes[0] > sizes[1] >= sizes[2]
    assert main([str(tmp_path / "ours"), str(tmp_path / "small"), "--text", str(text), "--least", "2"]) == 0
    assert "0 of 3 texts" in capsys.readouterr().out or load_tokenizer(tmp_path / "small").vocab_size == sizes[1]


def test_what_cannot_be_trimmed_is_named(prepared, text, tmp_path, capsys):
    write_peer(tmp_path / "theirs", "mbert")
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours")
    (tmp_path / "empty.txt").write_text("", encoding="utf-8")
    for words, said in (
        ([str(tmp_path / "ours"), str(tmp_path / "small"), "--text", str(tmp_path / "empty.txt")], "no tokens in it"),
        ([str(tmp_path / "ours"), str(tmp_path / "theirs"), "--text", str(text)], "exists already"),
        ([str(tmp_path / "ours"), str(tmp_path / "small"), "--text", str(text), "--language", "volapuk"], "no pack"),
        ([str(tmp_path / "ours"), str(tmp_path / "small"), "--text", str(text), "--least", "0"], "at least 1"),
        ([str(tmp_path / "nothing"), str(tmp_path / "small"), "--text", str(text)], "no such checkpoint"),
    ):
        assert main(words) == 2
        assert said in capsys.readouterr().err, words
    assert not (tmp_path / "small").exists()
