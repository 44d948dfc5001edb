"""Hugging Face checkpoints of every family and head are imported with outputs equal to 1e-5; unfit ones are refused."""

import itertools
import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import read_json, write_json
from data.features import collate, encode
from data.layout import Layout
from model.convert.importing import converted, import_checkpoint
from model.fill_mask import fill_mask
from model.huggingface import main
from model.store import load_encoder, load_masked_lm, load_task_model, read_checkpoint
from tasks.encoding import Encoded, swap_pair
from tests.model.peers import FAMILIES, SUFFIXES, TEXTS, TYPES, change_config, write_peer
from tests.model.test_heads import encoded_of, padded
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")
CLOSE = {"atol": 1e-5, "rtol": 1e-5}


@pytest.fixture(autouse=True)
def hf_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """A BERT folder to make damaged copies of."""
    folder = tmp_path_factory.mktemp("bert") / "tiny"
    write_peer(folder, "bert")
    return folder


def framed(tokenizer: Tokenizer) -> list[np.ndarray]:
    return [np.concatenate([[tokenizer.cls_id], ids, [tokenizer.sep_id]]) for ids in tokenizer.encode_batch(TEXTS)]


def rectangle(rows: list[np.ndarray], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = torch.from_numpy(row)
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


@pytest.mark.parametrize("family", FAMILIES)
def test_masked_lm_is_imported_equal(family, tmp_path):
    """Ids equal AutoTokenizer's, all hidden states and logits AutoModelForMaskedLM's, from each family's files."""
    write_peer(tmp_path / "theirs", family)
    peer = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "theirs").eval()
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours")
    model, tokenizer = load_masked_lm(tmp_path / "ours")
    rows = framed(tokenizer)
    named = {} if family in ("bert", "mbert") else {"tokenizer_file": str(tmp_path / "theirs" / "tokenizer.json")}
    if named:
        other = transformers.PreTrainedTokenizerFast(**named)
    else:
        other = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    assert [row.tolist() for row in rows] == [other(text)["input_ids"] for text in TEXTS]
    if family == "mbert":
        assert tokenizer.encode_batch(["QIŞ"])[0].tolist() != tokenizer.encode_batch(["qış"])[0].tolist()
    ids, mask = rectangle(rows, tokenizer.pad_id)
    flat, layout = torch.from_numpy(np.concatenate(rows)), Layout.of([len(row) for row in rows])
    with torch.no_grad():
        theirs = peer(ids, attention_mask=mask, output_hidden_states=True)
        hidden_states = []
        model.encoder(flat, layout, hidden_states=hidden_states)
        logits = model.logits(flat, layout, torch.arange(len(flat)))
    for ours, their in zip(hidden_states, theirs.hidden_states, strict=True):
        torch.testing.assert_close(ours, their[mask.bool()], **CLOSE)
    torch.testing.assert_close(logits, theirs.logits[mask.bool()], **CLOSE)
    config = model.encoder.config
    if TYPES.get(family, family) == "modernbert":
        assert (config.global_theta, config.local_theta) == (160000, 10000 if family == "modernbert" else 160000)
        assert (config.window, config.global_every) == (4, 3)
    assert len(fill_mask(model, tokenizer, "Bakı [MASK] şəhəridir.")[0]) == 5


@pytest.mark.parametrize("family", FAMILIES[:5])
def test_pairs_are_framed_like_the_family_s(family, tmp_path):
    """RoBERTa puts two separators between the texts and has no second token type; cut pairs have the same length."""
    write_peer(tmp_path / "theirs", family)
    folder = tmp_path / "theirs"
    tokenizer = load_tokenizer(folder)
    if family in ("bert", "mbert"):
        peer = transformers.AutoTokenizer.from_pretrained(folder)
    else:
        peer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    examples = [{"text": a, "text_b": b} for a, b in itertools.pairwise(TEXTS)]
    for row, example in zip(encode(examples, "pair", tokenizer, None, 64).rows, examples, strict=True):
        expected = peer(example["text"], example["text_b"])["input_ids"]
        assert row.ids.tolist() == expected
        second = tokenizer.encode_batch([example["text_b"]])[0]
        assert row.ids[row.second : -1].tolist() == second.tolist()
        turned = swap_pair(Encoded("pair", [row], [0, 1], [False])).rows[0]
        assert turned.ids.tolist() == peer(example["text_b"], example["text"])["input_ids"]
        assert turned.ids[turned.second : -1].tolist() == tokenizer.encode_batch([example["text"]])[0].tolist()
    long = [{"text": " ".join(TEXTS), "text_b": " ".join(TEXTS[::-1])}]
    assert len(encode(long, "pair", tokenizer, None, 32).rows[0].ids) == 32
    qa = [{"id": "1", "question": TEXTS[0], "context": " ".join(TEXTS * 3), "answers": []}]
    assert {len(row.ids) for row in encode(qa, "qa", tokenizer, None, 64).rows[:-1]} == {64}


@pytest.mark.parametrize(("family", "suffix"), [("bert", "ForPreTraining"), ("bert", "Model"), ("xlm-roberta", "Model")])
def test_pooled_output_is_imported_equal(family, suffix, tmp_path):
    """The pooler of a checkpoint, also from a bare encoder's file, whose names have no prefix."""
    write_peer(tmp_path / "theirs", family, suffix)
    peer = transformers.AutoModel.from_pretrained(tmp_path / "theirs").eval()
    notes = import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours")
    encoder, tokenizer = load_encoder(tmp_path / "ours", pooler=True)
    rows = framed(tokenizer)
    ids, mask = rectangle(rows, tokenizer.pad_id)
    layout = Layout.of([len(row) for row in rows])
    with torch.no_grad():
        pooled = encoder.eval().pool(encoder(torch.from_numpy(np.concatenate(rows)), layout)[layout.starts[:-1].long()])
        expected = peer(ids, attention_mask=mask).pooler_output
    torch.testing.assert_close(pooled, expected, **CLOSE)
    if suffix == "ForPreTraining":
        assert any("next-sentence head (cls.seq_relationship) kept" in note for note in notes)
        load_masked_lm(tmp_path / "ours")
    else:
        assert any("no masked-LM head" in note for note in notes)
        with pytest.raises(UserError, match="no masked-LM head"):
            load_masked_lm(tmp_path / "ours")


HEADS = [(family, kind) for family in ("bert", "xlm-roberta", "modernbert") for kind in SUFFIXES if kind != "pair"]


def peer_scores(peer, encoded, kind: str, reads_types: bool, pad: int) -> torch.Tensor:
    """transformers' scores of the rows, in the order of ours."""
    inputs = padded(encoded)
    inputs["input_ids"] = torch.where(inputs["attention_mask"].bool(), inputs["input_ids"], pad)
    if not reads_types:
        del inputs["token_type_ids"]
    if kind == "choice":
        inputs = {name: value.view(2, 3, -1) for name, value in inputs.items()}
    with torch.no_grad():
        out = peer(**inputs)
    if kind == "qa":
        real = inputs["attention_mask"].bool()
        return torch.stack([out.start_logits[real], out.end_logits[real]], 1)
    if kind == "tagging":
        return torch.cat([out.logits[number, row.positions] for number, row in enumerate(encoded.rows)])
    return out.logits.flatten() if kind == "choice" else out.logits


@pytest.mark.parametrize(("family", "kind"), [*HEADS, ("roberta", "classification"), ("modernbert", "classification-mean")])
def test_task_head_is_imported_equal(family, kind, tmp_path):
    """A fine-tuned checkpoint of transformers, given as its folder: scores and labels."""
    kind, _, mean = kind.partition("-")
    settings = {"classifier_pooling": "mean"} if mean else {}
    if kind in ("classification", "tagging", "multilabel"):
        settings["id2label"] = {n: f"ad-{n}" for n in range(5)}
    if kind == "similarity":  # one label without a problem_type means regression, as in transformers
        settings["num_labels"] = 1
    if kind == "multilabel":
        settings["problem_type"] = "multi_label_classification"
    peer = write_peer(tmp_path / "theirs", family, SUFFIXES[kind], **settings)
    model, tokenizer, task = load_task_model(tmp_path / "theirs")
    assert task["kind"] == kind
    assert task["labels"] == ([f"ad-{n}" for n in range(5)] if "id2label" in settings else None)
    encoded = encoded_of(kind, [20, 7, 31, 3, 12, 9], [3, 3] if kind == "choice" else None)
    with torch.no_grad():
        scores = model(collate(encoded, np.arange(6)))
    torch.testing.assert_close(scores, peer_scores(peer, encoded, kind, family == "bert", tokenizer.pad_id), **CLOSE)


def test_a_tokenizer_that_is_only_a_sentencepiece_model(tmp_path):
    """XLM-R's ids are one above the SentencePiece model's, with <mask> at the end; transformers does the same once."""
    import sentencepiece

    write_peer(tmp_path / "theirs", "xlm-roberta")
    size = read_json(tmp_path / "theirs" / "config.json")["vocab_size"]
    (tmp_path / "theirs" / "tokenizer.json").unlink()
    with open(tmp_path / "theirs" / "sentencepiece.bpe.model", "wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXTS), model_writer=file, vocab_size=90, hard_vocab_limit=False, minloglevel=2
        )
    write_json(tmp_path / "theirs" / "tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"})
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours")
    tokenizer = load_tokenizer(tmp_path / "ours")
    native = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "theirs" / "sentencepiece.bpe.model"))
    known = TEXTS[0]
    assert tokenizer.encode_batch([known])[0].tolist() == [index + 1 for index in native.encode(known)]
    roles = (tokenizer.cls_id, tokenizer.pad_id, tokenizer.sep_id, tokenizer.unk_id, tokenizer.mask_id)
    assert roles == (0, 1, 2, 3, native.get_piece_size() + 1) and tokenizer.vocab_size <= size


# ---------------------------------------------------------------- given directly, and once


def test_a_folder_is_converted_once(bert, hf_home, tmp_path):
    shutil.copytree(bert, tmp_path / "copy")
    first = converted(tmp_path / "copy")
    stamp = (first / "model.safetensors").stat().st_mtime_ns
    weights = read_checkpoint(tmp_path / "copy")[0]
    assert converted(tmp_path / "copy") == first and (first / "model.safetensors").stat().st_mtime_ns == stamp
    assert first.parent == hf_home / "encoders" and [path.name for path in first.parent.iterdir()] == [first.name]
    model = transformers.AutoModelForMaskedLM.from_pretrained(bert)
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[7] += 1
    model.save_pretrained(tmp_path / "copy")  # other content under the same name counts as another checkpoint
    changed = read_checkpoint(tmp_path / "copy")[0]
    assert not torch.equal(changed["encoder.token_embeddings.weight"], weights["encoder.token_embeddings.weight"])


def test_half_precision_is_imported_as_fp32(bert, tmp_path):
    shutil.copytree(bert, tmp_path / "half")
    half = transformers.AutoModelForMaskedLM.from_pretrained(bert).bfloat16()
    half.save_pretrained(tmp_path / "half")
    weights = read_checkpoint(tmp_path / "half")[0]
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert torch.equal(
        weights["encoder.token_embeddings.weight"], half.state_dict()["bert.embeddings.word_embeddings.weight"].float()
    )


def test_command_line(bert, tmp_path, capsys):
    assert main(["import", str(bert), str(tmp_path / "ours")]) == 0
    assert read_json(tmp_path / "ours" / "config.json")["name"] == "tiny"
    assert main(["import", str(bert), str(tmp_path / "ours")]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "nowhere"), str(tmp_path / "other")]) == 2


# ---------------------------------------------------------------- bad input, one by one


class Runs:
    """What a hostile .bin holds: unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_bin_that_would_run_code_is_refused(bert, tmp_path):
    for number, save in enumerate((torch.save, lambda value, path: path.write_bytes(pickle.dumps(value)))):
        folder = tmp_path / f"hostile-{number}"
        shutil.copytree(bert, folder)
        (folder / "model.safetensors").unlink()
        save({"bert.embeddings.word_embeddings.weight": Runs(tmp_path / "ran")}, folder / "pytorch_model.bin")
        with pytest.raises(UserError, match=r"pytorch_model\.bin: (refused|cannot be read)"):
            converted(folder)
        assert not (tmp_path / "ran").exists()


def weights_of(folder) -> dict[str, torch.Tensor]:
    import safetensors.torch

    return safetensors.torch.load_file(folder / "model.safetensors")


def write_weights(folder, weights) -> None:
    import safetensors.torch

    safetensors.torch.save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def drop_weight(folder):
    weights = weights_of(folder)
    del weights["bert.encoder.layer.2.output.dense.weight"]
    write_weights(folder, weights)


def add_weight(folder):
    write_weights(folder, weights_of(folder) | {"bert.encoder.layer.0.adapter.weight": torch.zeros(2)})


def widen(folder):
    write_weights(folder, weights_of(folder) | {"bert.encoder.layer.1.intermediate.dense.weight": torch.zeros(50, 32)})


def untie(folder):
    words = weights_of(folder)["bert.embeddings.word_embeddings.weight"]
    write_weights(folder, weights_of(folder) | {"cls.predictions.decoder.weight": words + 1})
    change_config(folder, tie_word_embeddings=False)


def quantise(folder):
    name = "bert.encoder.layer.1.intermediate.dense.weight"
    write_weights(folder, weights_of(folder) | {name: torch.zeros(48, 32, dtype=torch.int8)})


def truncate(folder):
    (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:-100])


def only_tensorflow(folder):
    (folder / "model.safetensors").rename(folder / "tf_model.h5")


def lost_shard(folder):
    table = dict.fromkeys(weights_of(folder), "model-00002-of-00002.safetensors")
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": table})


def index_outside(folder):
    table = dict.fromkeys(weights_of(folder), "../secret.safetensors")
    (folder / "model.safetensors").unlink()
    write_json(folder / "model.safetensors.index.json", {"weight_map": table})


def index_disagrees(folder):
    (folder / "model.safetensors").rename(folder / "model-1-of-1.safetensors")
    write_json(folder / "model.safetensors.index.json", {"weight_map": {"a.weight": "model-1-of-1.safetensors"}})


def other_tokenizer(folder):
    with open(folder / "vocab.txt", "a") as file:
        file.write("yeni\n" + "başqa\n")


def no_tokenizer(folder):
    (folder / "vocab.txt").unlink()


def not_json(folder):
    (folder / "config.json").write_text("{")


BAD = {
    "missing weight": (drop_weight, r"missing bert\.encoder\.layer\.2\.output\.dense\.weight; not known nothing"),
    "extra weight": (add_weight, r"missing nothing; not known bert\.encoder\.layer\.0\.adapter\.weight"),
    "wrong shape": (widen, r"encoder\.blocks\.1\.mlp_in\.weight: \[50, 32\], config\.json says \[48, 32\]"),
    "untied": (untie, r"cls\.predictions\.decoder\.weight differs from .* not tied"),
    "quantised": (quantise, "quantised"),
    "truncated": (truncate, r"model\.safetensors: cannot be read"),
    "another format": (only_tensorflow, r"only tf_model\.h5 there"),
    "lost shard": (lost_shard, r"model-00002-of-00002\.safetensors: missing"),
    "index points out": (index_outside, "not the name of a file"),
    "index disagrees": (index_disagrees, "do not list the same weights"),
    "another tokenizer": (other_tokenizer, "another model's tokenizer"),
    "no tokenizer": (no_tokenizer, "no tokenizer there"),
    "damaged config": (not_json, r"config\.json: not valid JSON"),
    "activation": (lambda f: change_config(f, hidden_act="relu"), r"hidden_act='relu' is not supported .*supported: gelu"),
    "relative positions": (lambda f: change_config(f, position_embedding_type="relative_key"), "supported: absolute"),
    "decoder": (lambda f: change_config(f, is_decoder=True), "is_decoder=True is not supported"),
    "cross attention": (lambda f: change_config(f, add_cross_attention=True), "add_cross_attention"),
    "own code": (lambda f: change_config(f, auto_map={"AutoModel": "x.Y"}), "auto_map"),
    "heads": (lambda f: change_config(f, num_attention_heads=5), "multiple of num_attention_heads"),
    "no size": (lambda f: change_config(f, hidden_size="big"), "hidden_size='big'"),
    "layers": (lambda f: change_config(f, num_hidden_layers=5), r"missing bert\.encoder\.layer\.4\."),
    "unknown architecture": (lambda f: change_config(f, model_type="gertrude"), "'gertrude' is not known. Supported: bert"),
    "decoder architecture": (lambda f: change_config(f, model_type="gpt2"), "gpt2 is not a masked-LM encoder"),
    "unknown head": (lambda f: change_config(f, architectures=["BertForCausalLM"]), "BertForCausalLM is not supported"),
    "several labels at once": (
        lambda f: change_config(f, architectures=["BertForSequenceClassification"], problem_type="ranking"),
        "problem_type=ranking",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_checkpoint_is_named(case, bert, tmp_path):
    spoil, message = BAD[case]
    shutil.copytree(bert, tmp_path / "bad")
    spoil(tmp_path / "bad")
    with pytest.raises(UserError, match=message):
        import_checkpoint(str(tmp_path / "bad"), tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


MODERN = {
    "norm bias": ({"norm_bias": True}, "norm_bias=True"),
    "activation": ({"hidden_activation": "silu"}, "hidden_activation"),
    "scaled positions": (
        {"rope_parameters": {"full_attention": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 1e4}}},
        r"rope_parameters\.full_attention is yarn",
    ),
    "layer pattern": (
        {"layer_types": ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]},
        "layer_types",
    ),
}


def test_bad_modernbert_configs_are_named(tmp_path):
    write_peer(tmp_path / "good", "modernbert")
    kept = json.loads((tmp_path / "good" / "config.json").read_text())
    for values, message in MODERN.values():
        write_json(tmp_path / "good" / "config.json", kept | values)
        with pytest.raises(UserError, match=message):
            import_checkpoint(str(tmp_path / "good"), tmp_path / "ours")


def test_unknown_settings_are_named(tmp_path):
    """Import names the keys of config.json that it does not know; a setting of ours unknown to this code is an error."""
    write_peer(tmp_path / "theirs", "bert")
    assert not any("unknown and not used" in note for note in import_checkpoint(str(tmp_path / "theirs"), tmp_path / "plain"))
    change_config(tmp_path / "theirs", soft_cap=30.0, use_memory_efficient_attention=False)
    notes = import_checkpoint(str(tmp_path / "theirs"), tmp_path / "noted")
    assert "settings of config.json that are unknown and not used: soft_cap, use_memory_efficient_attention" in notes
    change_config(tmp_path / "theirs", ours={"encoder": {"soft_cap": 30.0}})
    with pytest.raises(UserError, match="unknown settings soft_cap"):
        import_checkpoint(str(tmp_path / "theirs"), tmp_path / "refused")
