"""A foreign encoder behind our interface: transformers' hidden states in any batch; heads and gradients on it."""

import numpy as np
import pytest
import torch

from common.errors import UserError
from data.features import collate
from data.layout import Layout
from model.convert.export import export_checkpoint
from model.convert.foreign import ForeignEncoder, build_encoder
from model.convert.importing import import_checkpoint
from model.folder import write_checkpoint
from model.heads import TASK, TaskModel, is_pooled
from model.store import load_encoder, load_masked_lm, load_task_model, read_checkpoint
from tests.model.peers import SUFFIXES, write_peer, write_tokenizer
from tests.model.test_heads import encoded_of

transformers = pytest.importorskip("transformers", reason="an optional dependency; the peer here")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(scope="module")
def deberta(tmp_path_factory):
    """A tiny DeBERTa-v3 configured like microsoft/mdeberta-v3-base, relative positions included, as a folder."""
    folder = tmp_path_factory.mktemp("foreign") / "deberta"
    ids = write_tokenizer(folder, "mbert")
    config = transformers.DebertaV2Config(
        vocab_size=ids["vocab_size"],
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        type_vocab_size=0,
        pad_token_id=ids["pad_token_id"],
        relative_attention=True,
        max_relative_positions=-1,
        position_buckets=16,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        pos_att_type=["p2c", "c2p"],
        position_biased_input=False,
        layer_norm_eps=1e-7,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    transformers.DebertaV2ForMaskedLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def hf_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def test_hidden_states_are_transformers(deberta, tmp_path):
    notes = import_checkpoint(str(deberta), tmp_path / "ours")
    assert any("kept in fp32" in note for note in notes) and any("lm_predictions" in note or "cls." in note for note in notes)
    encoder, _ = load_encoder(tmp_path / "ours")
    assert isinstance(encoder.eval(), ForeignEncoder)
    peer = transformers.AutoModel.from_pretrained(deberta).eval()
    lengths = [20, 3, 41, 1, 64, 20]
    rows = [torch.randint(5, 100, (n,), generator=torch.Generator().manual_seed(n)) for n in lengths]
    layout = Layout.of(lengths)
    kept = torch.tensor([0, 5, 22, 30, 64, 120])
    with torch.no_grad():
        hidden_states = []
        hidden = encoder(torch.cat(rows), layout, hidden_states=hidden_states)
        alone = [peer(row[None], output_hidden_states=True) for row in rows]
        torch.testing.assert_close(encoder(torch.cat(rows), layout, positions=kept), hidden[kept], atol=0, rtol=0)
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(encoder(torch.cat(rows), layout), hidden)  # kept in fp32
    torch.testing.assert_close(hidden, torch.cat([out.last_hidden_state[0] for out in alone]), **CLOSE)
    assert len(hidden_states) == 4
    for number, state in enumerate(hidden_states):
        torch.testing.assert_close(state, torch.cat([out.hidden_states[number][0] for out in alone]), **CLOSE)
    with pytest.raises(UserError, match="max_length is 64"):
        encoder(torch.zeros(65, dtype=torch.long), Layout.of([65]))


@pytest.mark.parametrize("kind", SUFFIXES)
def test_heads_train_on_it(deberta, kind, tmp_path):
    """Gradients reach every parameter that affects the scores, and the fine-tuned checkpoint can be read."""
    weights, config, tokenizer, _ = read_checkpoint(deberta)
    model = TaskModel(build_encoder(config, pooler=is_pooled(kind)), kind, 5)
    own = {name.removeprefix("encoder."): value for name, value in weights.items()}
    missing = model.encoder.load_state_dict(own, strict=False)
    assert not missing.unexpected_keys and all(name.startswith("pooler.") for name in missing.missing_keys)
    batch = collate(encoded_of(kind, [20, 7, 31, 3, 12, 9], [3, 3] if kind == "choice" else None), np.arange(6))
    model.loss(model(batch), batch).backward()
    dead = [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()]
    # A softmax ignores a shift common to all its scores: the bias of the keys, and in choice the bias of the one score per
    # option, whose gradient is 0 or a rounding error.
    shared = ("key_proj.bias", "head.bias") if kind == "choice" else ("key_proj.bias",)
    assert all(name.endswith(shared) for name in dead), dead
    details = {"kind": kind, "labels": list("abcde"), "pooling": "pooler"}
    write_checkpoint(tmp_path / "tuned", model.state_dict(), config, tokenizer, {"name": "x"}, {TASK: details})
    again, _, _ = load_task_model(tmp_path / "tuned")
    with torch.no_grad():
        torch.testing.assert_close(again(batch), model.eval()(batch), atol=0, rtol=0)


def test_a_known_family_with_unsupported_settings(tmp_path):
    """--foreign: transformers' own code for a BERT with another activation, token types and pooler included."""
    peer = write_peer(tmp_path / "relu", "bert", hidden_act="relu")
    import_checkpoint(str(tmp_path / "relu"), tmp_path / "ours", foreign=True)
    encoder, _ = load_encoder(tmp_path / "ours")
    ids, types = torch.arange(5, 35), torch.arange(30) // 20
    with torch.no_grad():
        ours = encoder.eval()(ids, Layout.of([12, 18]), types)
        theirs = [
            peer.bert(ids[a:b][None], token_type_ids=types[a:b][None]).last_hidden_state[0] for a, b in ((0, 12), (12, 30))
        ]
    torch.testing.assert_close(ours, torch.cat(theirs), **CLOSE)


def test_what_it_cannot_do_is_an_error(deberta, tmp_path):
    import safetensors.torch

    import_checkpoint(str(deberta), tmp_path / "ours")
    with pytest.raises(UserError, match="no masked-LM head"):
        load_masked_lm(tmp_path / "ours")
    with pytest.raises(UserError, match="is a foreign encoder"):
        export_checkpoint(tmp_path / "ours", tmp_path / "out")
    weights = safetensors.torch.load_file(deberta / "model.safetensors")
    for name in [name for name in weights if "layer.1.attention" in name]:
        del weights[name]
    (tmp_path / "bad").mkdir()
    for name in ("config.json", "vocab.txt", "tokenizer_config.json"):
        (tmp_path / "bad" / name).write_bytes((deberta / name).read_bytes())
    safetensors.torch.save_file(weights, tmp_path / "bad" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"does not fit a deberta-v2: missing encoder\.layer\.1\.attention"):
        import_checkpoint(str(tmp_path / "bad"), tmp_path / "never")
