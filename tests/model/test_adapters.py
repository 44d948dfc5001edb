"""LoRA against peft on the same weights, merging, saving and loading; frozen layers; the linear probe."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from common.errors import UserError
from common.files import read_json, write_json
from data.features import collate
from model.adapters import (
    AdaptedLinear,
    add_adapters,
    choose_trained,
    depth_of,
    find_adapter,
    linear_layers,
    load_adapted,
    main,
    merged,
    write_adapter,
)
from model.convert.foreign import ForeignEncoder
from model.encoder import Encoder, EncoderConfig, count_parameters
from model.folder import write_checkpoint
from model.heads import TaskModel, is_pooled
from model.settings import Lora
from tests.model.test_heads import CONFIG, LABELS, VOCAB, encoded_of, models, padded
from tokenization.loading import load_tokenizer

CLOSE = {"atol": 1e-5, "rtol": 1e-5}
MODERN = EncoderConfig(
    architecture="modern", vocab_size=VOCAB, hidden_size=48, layers=3, heads=4, intermediate_size=80, max_length=32, window=4
)
LORA = Lora(rank=4, alpha=8)


def task_model(kind: str = "tagging", config: EncoderConfig = CONFIG, seed: int = 0) -> TaskModel:
    torch.manual_seed(seed)
    model = TaskModel(Encoder(config, pooler=is_pooled(kind)), kind, LABELS).eval()
    with torch.no_grad():  # large enough that attention is far from uniform
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def shake(model: torch.nn.Module) -> None:
    """Adapters away from their zero start."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, AdaptedLinear):
                for adapter in module.lora.values():
                    adapter.b.normal_(std=0.3)


def batch_of(kind: str):
    return collate(encoded_of(kind, [20, 7, 31, 3, 12, 9], [3, 3] if kind == "choice" else None), np.arange(6))


def foreign(model_type: str, **values) -> ForeignEncoder:
    from model.convert.foreign import ForeignConfig

    shape = {
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "pad_token_id": 0,
        "model_type": model_type,
    } | values
    torch.manual_seed(0)
    return ForeignEncoder(
        ForeignConfig(
            vocab_size=VOCAB,
            hidden_size=48,
            layers=2,
            heads=4,
            max_length=32,
            type_vocab_size=0,
            dropout=0.0,
            transformers=shape,
        )
    )


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_logits_and_gradients_equal_pefts(kind):
    """BERT's query and value: rows of our fused matrix, separate modules in transformers. Head and pooler in full."""
    peft = pytest.importorskip("peft", reason="the peer is installed with requirements-dev.txt")
    peer, ours = models(kind)
    whole = ["classifier", "pooler"] if kind == "classification" else ["classifier"]
    options = peft.LoraConfig(
        r=4, lora_alpha=8, lora_dropout=0.0, target_modules=["query", "value"], init_lora_weights=False, modules_to_save=whole
    )
    torch.manual_seed(1)
    theirs = peft.get_peft_model(peer, options).eval()
    choose_trained(ours, LORA)
    own = dict(theirs.named_parameters())

    def name_of(layer: int, part: str, matrix: str) -> str:
        return f"base_model.model.bert.encoder.layer.{layer}.attention.self.{part}.lora_{matrix.upper()}.default.weight"

    for layer, block in enumerate(ours.encoder.blocks):
        for part, adapter in block.qkv.lora.items():
            adapter.a.data.copy_(own[name_of(layer, part, "a")])
            adapter.b.data.copy_(own[name_of(layer, part, "b")])
    batch = batch_of(kind)
    encoded = encoded_of(kind, [20, 7, 31, 3, 12, 9])
    theirs_in = padded(encoded)
    scores = theirs(**theirs_in).logits
    if kind == "tagging":
        scores = torch.cat([scores[row, encoded.rows[row].positions] for row in range(6)])
    said = ours(batch)
    torch.testing.assert_close(said, scores.detach(), **CLOSE)
    ours.loss(said, batch).backward()
    torch.nn.functional.cross_entropy(scores, batch.targets, reduction="sum").backward()
    for layer, block in enumerate(ours.encoder.blocks):
        for part, adapter in block.qkv.lora.items():
            for matrix in ("a", "b"):
                torch.testing.assert_close(getattr(adapter, matrix).grad, own[name_of(layer, part, matrix)].grad, **CLOSE)
    torch.testing.assert_close(
        ours.head.weight.grad, own["base_model.model.classifier.modules_to_save.default.weight"].grad, **CLOSE
    )
    if kind == "classification":
        pooler = own["base_model.model.bert.pooler.modules_to_save.default.dense.weight"]
        torch.testing.assert_close(ours.encoder.pooler.weight.grad, pooler.grad, **CLOSE)
    with_gradient = {name for name, p in ours.named_parameters() if p.grad is not None}
    assert with_gradient == {name for name, p in ours.named_parameters() if p.requires_grad}
    assert count_parameters(ours, trainable=True) == sum(p.numel() for p in theirs.parameters() if p.requires_grad)


def test_a_foreign_encoder_equals_pefts():
    """`query` and `value` name DeBERTa's query_proj and value_proj."""
    peft = pytest.importorskip("peft", reason="the peer is installed with requirements-dev.txt")
    values = {
        "relative_attention": True,
        "position_buckets": 8,
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "type_vocab_size": 0,
        "position_biased_input": False,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }
    ours, peer = foreign("deberta-v2", **values), foreign("deberta-v2", **values).model
    theirs = peft.get_peft_model(
        peer, peft.LoraConfig(r=4, lora_alpha=8, target_modules=["query_proj", "value_proj"], init_lora_weights=False)
    )
    assert len(add_adapters(ours, 4, 8, 0.0, ["query", "value"])) == 4
    own = dict(theirs.named_parameters())
    for name, module in ours.named_modules():
        if isinstance(module, AdaptedLinear):
            stem = f"base_model.model.{name.removeprefix('model.')}"
            module.lora["all"].a.data.copy_(own[f"{stem}.lora_A.default.weight"])
            module.lora["all"].b.data.copy_(own[f"{stem}.lora_B.default.weight"])
    batch = batch_of("tagging")
    hidden = ours.eval()(batch.ids, batch.layout)
    rows = padded(encoded_of("tagging", [20, 7, 31, 3, 12, 9]))
    said = theirs.eval()(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).last_hidden_state
    flat = said[rows["attention_mask"].bool()]
    torch.testing.assert_close(hidden, flat.detach(), **CLOSE)
    hidden.square().sum().backward()
    flat.square().sum().backward()
    layer = ours.model.encoder.layer[1].attention.self.query_proj.lora["all"]
    torch.testing.assert_close(
        layer.a.grad,
        own["base_model.model.encoder.layer.1.attention.self.query_proj.lora_A.default.weight"].grad,
        atol=1e-4,
        rtol=1e-4,
    )


@pytest.mark.parametrize("config", [CONFIG, MODERN], ids=["bert", "modern"])
@pytest.mark.parametrize("targets", [["query", "value"], ["key"], ["qkv"], ["*"], ["mlp_in", "blocks.1.attention_out"]])
def test_merged_is_the_same_plain_model(config, targets):
    """Also where the last block computes queries for some positions only, which uses a part of the fused matrix."""
    batch = batch_of("tagging")
    model = task_model(config=config)
    before = model(batch)
    add_adapters(model.encoder, 4, 8, 0.0, targets)
    torch.testing.assert_close(model(batch), before, atol=0, rtol=0)  # B = 0: nothing has changed yet
    shake(model)
    changed = model(batch)
    assert (changed - before).abs().max() > 1e-3
    plain = task_model(config=config, seed=5)
    plain.load_state_dict(merged(model))
    torch.testing.assert_close(plain(batch), changed.detach(), **CLOSE)
    full = model.encoder(batch.ids, batch.layout, batch.token_types)[batch.positions]
    torch.testing.assert_close(
        model.encoder(batch.ids, batch.layout, batch.token_types, positions=batch.positions), full, **CLOSE
    )


def test_names_select_the_right_modules():
    model = task_model()
    assert add_adapters(task_model().encoder, 4, 8, 0.0, ["query"]) == [f"blocks.{n}.qkv.query" for n in range(3)]
    found = add_adapters(model.encoder, 4, 8, 0.0, ["blocks.2.*", "query"])  # the whole of block 2's qkv has its query in it
    assert set(found) == {
        "blocks.0.qkv.query",
        "blocks.1.qkv.query",
        "blocks.2.qkv",
        "blocks.2.attention_out",
        "blocks.2.mlp_in",
        "blocks.2.mlp_out",
    }
    assert set(model.encoder.blocks[2].qkv.ranges) == {"all"}
    assert "pooler" not in linear_layers(task_model("pair").encoder)
    with pytest.raises(UserError, match=r"no linear layer is named 'querry'\. There are: blocks\.\*\.attention_out"):
        add_adapters(task_model().encoder, 4, 8, 0.0, ["querry"])
    with pytest.raises(UserError, match=r"recipe\.lora\.rank=49: blocks\.0\.qkv is 144 x 48"):
        add_adapters(task_model().encoder, 49, 8, 0.0, ["query"])


def test_dropout_is_on_the_adapters_input_only():
    model = task_model()
    add_adapters(model.encoder, 4, 8, 0.9, ["query"])
    shake(model)
    layer = model.encoder.blocks[0].qkv.train()
    x = torch.randn(50, 48)
    out, plain = layer(x), torch.nn.functional.linear(x, layer.weight, layer.bias)
    assert torch.equal(out[:, 48:], plain[:, 48:]) and not torch.equal(out[:, :48], layer(x)[:, :48])
    assert torch.equal(layer.eval()(x), layer(x))


def test_freezing_counts_from_the_bottom():
    model = task_model()
    choose_trained(model, frozen=2)
    trained = {depth_of(name, 3) for name, p in model.named_parameters() if p.requires_grad}
    frozen = {depth_of(name, 3) for name, p in model.named_parameters() if not p.requires_grad}
    assert (trained, frozen) == ({3, 4}, {0, 1, 2})
    batch = batch_of("tagging")
    model.loss(model(batch), batch).backward()
    assert {name for name, p in model.named_parameters() if p.grad is not None} == {
        name for name, p in model.named_parameters() if p.requires_grad
    }
    with pytest.raises(UserError, match="freeze_layers=4: the encoder has 3 layers"):
        choose_trained(task_model(), frozen=4)
    shared = TaskModel(foreign("albert", embedding_size=16), "tagging", LABELS)
    with pytest.raises(UserError, match="share their weights"):
        choose_trained(shared, frozen=1)


def test_a_linear_probe_trains_a_head_on_fixed_features():
    model = task_model(config=EncoderConfig(**{**CONFIG.to_dict(), "dropout": 0.5}))
    assert choose_trained(model, linear_probe=True) == "the linear head alone"
    assert {name for name, p in model.named_parameters() if p.requires_grad} == {"head.weight", "head.bias"}
    model.train()
    batch = batch_of("tagging")
    first, second = (model.encoder(batch.ids, batch.layout) for _ in range(2))
    assert torch.equal(first, second) and not first.requires_grad
    assert model.dropout.training and not model.eval().dropout.training
    with pytest.raises(UserError, match=r"Set recipe\.pooling=mean or cls"):
        choose_trained(task_model("pair"), linear_probe=True)
    # A pooler that the checkpoint brought is a feature too.
    choose_trained(task_model("pair"), linear_probe=True, pretrained_pooler=True)


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A checkpoint of CONFIG's shape, with a tokenizer of a few words."""
    folder = tmp_path_factory.mktemp("base")
    from tests.model.peers import write_tokenizer

    write_tokenizer(folder / "words", "mbert")
    tokenizer = load_tokenizer(folder / "words")
    config = EncoderConfig(**{**CONFIG.to_dict(), "vocab_size": tokenizer.vocab_size})
    torch.manual_seed(8)
    weights = {f"encoder.{name}": value for name, value in Encoder(config).state_dict().items()}
    write_checkpoint(folder / "checkpoint", weights, config, tokenizer, {"name": "base"})
    return folder / "checkpoint"


@pytest.mark.parametrize("kind", ["pair", "tagging"])
def test_saved_and_loaded_keeps_adapter_head_and_pooler(base, kind, tmp_path, capsys):
    """A known bug of peft (#577, #1070): the head comes back newly initialised."""
    from training.task_models import build_model, read_start

    model = build_model(read_start(base), kind, LABELS, 3)
    choose_trained(model, LORA)
    shake(model)
    with torch.no_grad():
        model.head.weight.normal_()
    task = {"kind": kind, "labels": list("abcde"), "pooling": "pooler", "task": "t"}
    write_adapter(tmp_path / "adapter", model, LORA, str(base), task)
    assert find_adapter(tmp_path) == tmp_path / "adapter"
    again, _, read = load_adapted(tmp_path / "adapter")
    batch = batch_of(kind)
    with torch.no_grad():
        torch.testing.assert_close(again(batch), model.eval()(batch), atol=0, rtol=0)
    assert read == task
    kept = safetensors.torch.load_file(tmp_path / "adapter" / "adapter.safetensors")
    assert sum(value.numel() for value in kept.values()) == count_parameters(model, trainable=True)
    # Merged by the command line: a plain checkpoint with the same outputs.
    from model.store import load_task_model

    assert main([str(tmp_path / "adapter"), "--out", str(tmp_path / "plain")]) == 0
    plain, _, _ = load_task_model(tmp_path / "plain")
    with torch.no_grad():
        torch.testing.assert_close(plain(batch), model(batch), **CLOSE)
    assert main([str(tmp_path / "adapter"), "--out", str(tmp_path / "plain")]) == 2
    assert "exists already" in capsys.readouterr().err


def test_an_adapter_on_other_weights_is_refused(base, tmp_path, capsys):
    from training.task_models import build_model, read_start

    model = build_model(read_start(base), "tagging", LABELS, 3)
    choose_trained(model, LORA)
    task = {"kind": "tagging", "labels": list("abcde"), "pooling": None, "task": "t"}
    write_adapter(tmp_path / "adapter", model, LORA, str(base), task)
    info = read_json(tmp_path / "adapter" / "adapter.json")
    write_json(tmp_path / "adapter" / "adapter.json", {**info, "base": {**info["base"], "weights": "0" * 64}})
    with pytest.raises(UserError, match="other weights"):
        load_adapted(tmp_path / "adapter")
    write_json(tmp_path / "adapter" / "adapter.json", {**info, "base": {**info["base"], "path": "gone"}})
    with pytest.raises(UserError, match="--base CHECKPOINT"):
        load_adapted(tmp_path / "adapter")
    moved = shutil.copytree(base, tmp_path / "moved")
    load_adapted(tmp_path / "adapter", moved)
    write_json(tmp_path / "adapter" / "adapter.json", info)
    content = bytearray((tmp_path / "adapter" / "adapter.safetensors").read_bytes())
    content[-1] ^= 1
    (tmp_path / "adapter" / "adapter.safetensors").write_bytes(content)
    assert main([str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "checksum differs" in capsys.readouterr().err and not (tmp_path / "out").exists()
    json.loads((tmp_path / "adapter" / "adapter.json").read_text())
