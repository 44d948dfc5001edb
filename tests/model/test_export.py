"""Our exports load in transformers with equal outputs, heads and tokenizer included, and import to the same bits."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.files import read_json, write_json, write_text
from data.features import collate
from data.layout import Layout
from language.azerbaijani import LANGUAGE as AZ
from model.convert.export import export_checkpoint
from model.convert.importing import import_checkpoint
from model.encoder import Encoder, EncoderConfig
from model.folder import write_checkpoint
from model.heads import TASK, TaskModel, has_pooler
from model.huggingface import main
from model.mlm import MaskedLM
from model.modern_head import add_modern_head
from model.store import load_masked_lm, read_checkpoint
from tasks.base import kind_of
from tests.model.peers import SUFFIXES, TEXTS, write_tokenizer
from tests.model.test_heads import encoded_of
from tests.model.test_huggingface import CLOSE, framed, peer_scores, rectangle
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")


OURS = {"do_lower_case": True, "normaliser": {"language": "azerbaijani"}, "kind": "wordpiece"}


@pytest.fixture(autouse=True)
def hf_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Tokenizer:
    """A tokenizer of ours, uncased WordPiece."""
    from tokenization.tokenizer import wordpiece_engine

    letters = sorted(
        {letter for text in TEXTS for letter in text.lower() if letter.isalnum()} | set("abcçdeəfgğhxıijklmnoöpqrsştuüvyz")
    )
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *".,;!", *letters, *("##" + letter for letter in letters)]
    engine = wordpiece_engine(tokens, AZ, lowercase=True)
    folder = tmp_path_factory.mktemp("own")
    Tokenizer("wordpiece", engine, OURS).save(folder)
    return load_tokenizer(folder)


def config_of(architecture: str, vocab_size: int = 120, **more) -> EncoderConfig:
    shape = {"hidden_size": 32, "layers": 4, "heads": 4, "intermediate_size": 48, "max_length": 64, "initializer_range": 0.2}
    shape |= {"dropout": 0.0, "norm_eps": 1e-5, "window": 4} if architecture == "modern" else {}
    return EncoderConfig(architecture=architecture, vocab_size=vocab_size, **(shape | more))


def write_masked_lm(folder, config: EncoderConfig, tokenizer: Tokenizer, seed: int = 0) -> MaskedLM:
    torch.manual_seed(seed)
    model = MaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    write_checkpoint(folder, model.state_dict(), config, tokenizer, {"name": "kiçik", "step": 7, "tokens": 4096})
    return model


def assert_same(one, other) -> None:
    """Two checkpoints are equal: weights to the bit, encoder settings, tokenizer, name and task."""
    a, b = read_checkpoint(one), read_checkpoint(other)
    assert set(a[0]) == set(b[0])
    assert all(torch.equal(value, b[0][name]) and value.dtype == b[0][name].dtype for name, value in a[0].items())
    assert a[1] == b[1] and a[2].identity == b[2].identity
    assert {key: value for key, value in b[3].items() if key != "source"} == a[3]
    assert (one / TASK).exists() == (other / TASK).exists()
    if (one / TASK).exists():
        assert read_json(one / TASK) == read_json(other / TASK)


@pytest.mark.parametrize("architecture", ["bert", "modern"])
def test_masked_lm_loads_in_transformers(architecture, own, tmp_path):
    """AutoTokenizer, AutoModelForMaskedLM and pipeline("fill-mask"): ids, logits and predictions; no missing or extra key."""
    model = write_masked_lm(tmp_path / "ours", config_of(architecture), own)
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    peer, info = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    assert {parameter.dtype for parameter in peer.parameters()} == {torch.float32}
    assert peer.get_output_embeddings().weight is peer.get_input_embeddings().weight
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    rows = framed(own)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    ids, mask = rectangle(rows, own.pad_id)
    assert torch.equal(batch["input_ids"], ids) and torch.equal(batch["attention_mask"], mask)
    assert ("token_type_ids" in batch) == (architecture == "bert")
    flat, layout = torch.from_numpy(np.concatenate(rows)), Layout.of([len(row) for row in rows])
    with torch.no_grad():
        logits = model.logits(flat, layout, torch.arange(len(flat)))
        theirs = peer.eval()(**batch).logits[mask.bool()]
    torch.testing.assert_close(logits, theirs, **CLOSE)

    guesses = transformers.pipeline("fill-mask", model=str(tmp_path / "theirs"), top_k=3)("bakı [MASK] şəhəridir.")
    asked = own.encode_batch(["bakı", "şəhəridir."])
    ids = torch.tensor([own.cls_id, *asked[0], own.mask_id, *asked[1], own.sep_id])
    with torch.no_grad():
        chances = model.logits(ids, Layout.of([len(ids)]), torch.tensor([len(asked[0]) + 1])).softmax(-1)[0].topk(3)
    assert [guess["token"] for guess in guesses] == chances.indices.tolist()
    assert [guess["score"] for guess in guesses] == pytest.approx(chances.values.tolist(), abs=1e-5)
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "back")
    assert_same(tmp_path / "ours", tmp_path / "back")


def test_a_roberta_goes_back_as_one(tmp_path):
    """A foreign tokenizer and shifted positions: exported as the family that came in, and by default as XLM-R."""
    ids = write_tokenizer(tmp_path / "tokenizer", "roberta")
    tokenizer = load_tokenizer(tmp_path / "tokenizer")
    config = config_of("bert", ids["vocab_size"], type_vocab_size=1, position_offset=ids["pad_token_id"] + 1)
    for family, name in (("roberta", "RobertaForMaskedLM"), (None, "XLMRobertaForMaskedLM")):
        model = write_masked_lm(tmp_path / "ours", config, tokenizer)
        values = read_json(tmp_path / "ours" / "config.json")
        extra = {"name": "x", **({"source": {"family": family}} if family else {})}
        write_checkpoint(tmp_path / "ours", model.state_dict(), EncoderConfig(**values["encoder"]), tokenizer, extra)
        out = tmp_path / f"theirs-{name}"
        export_checkpoint(tmp_path / "ours", out)
        peer = transformers.AutoModelForMaskedLM.from_pretrained(out).eval()
        assert type(peer).__name__ == name
        batch = transformers.AutoTokenizer.from_pretrained(out)(TEXTS, padding=True, return_tensors="pt")
        rows = framed(tokenizer)
        with torch.no_grad():
            ours = model.logits(
                torch.from_numpy(np.concatenate(rows)), Layout.of([len(r) for r in rows]), torch.arange(sum(map(len, rows)))
            )
            torch.testing.assert_close(ours, peer(**batch).logits[batch["attention_mask"].bool()], **CLOSE)


HEADS = [("bert", kind, "pooler", 0) for kind in SUFFIXES] + [("bert", kind, "pooler", 1) for kind in ("pair", "choice", "qa")]
HEADS += [("modern", kind, "cls", 0) for kind in SUFFIXES if kind != "pair"] + [("modern", "pair", "mean", 0)]


def write_task_model(folder, config, tokenizer, kind: str, pooling: str, modern_head: bool = True, task=None) -> TaskModel:
    labels = ["idman", "siyasət", "elm", "iqtisad", "Ölkə"] if kind_of(kind).names_from else None
    torch.manual_seed(1)
    model = TaskModel(Encoder(config, pooler=has_pooler(kind, pooling)), kind, len(labels or []), pooling).eval()
    if config.architecture == "modern" and modern_head:
        add_modern_head(model)
    details = {
        "kind": kind,
        "labels": labels,
        "max_length": 48,
        "task": "azx",
        "metric": "accuracy",
        "positive": None,
        "window_overlap_tokens": None,
        "pooling": pooling,
        "allow_no_answer": False,
    }
    write_checkpoint(folder, model.state_dict(), config, tokenizer, {"name": "kiçik"}, {TASK: details | (task or {})})
    return model


@pytest.mark.parametrize(("architecture", "kind", "pooling", "offset"), HEADS)
def test_task_head_loads_in_transformers(architecture, kind, pooling, offset, own, tmp_path):
    """Every kind of head as BERT, XLM-R (shifted positions) and ModernBERT: scores, labels, and back to the same bits."""
    config = config_of(architecture, position_offset=offset, type_vocab_size=1 if offset else 2)
    model = write_task_model(tmp_path / "ours", config, own, kind, pooling)
    export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    auto = getattr(transformers, "AutoModel" + SUFFIXES[kind])
    peer, info = auto.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    if kind in ("classification", "pair"):
        assert peer.config.problem_type == "single_label_classification" and peer.config.id2label[1] == "siyasət"
    if kind in ("similarity", "multilabel"):
        assert peer.config.problem_type == {"similarity": "regression", "multilabel": "multi_label_classification"}[kind]
        assert peer.config.num_labels == (1 if kind == "similarity" else 5)
    encoded = encoded_of(kind, [20, 7, 31, 3, 12, 9], [3, 3] if kind == "choice" else None)
    with torch.no_grad():
        scores = model(collate(encoded, np.arange(6)))
    reads_types = architecture == "bert" and not offset
    torch.testing.assert_close(scores, peer_scores(peer.eval(), encoded, kind, reads_types, own.pad_id), **CLOSE)
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "back")
    assert_same(tmp_path / "ours", tmp_path / "back")


@settings(max_examples=5, deadline=None, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_import_of_export_is_the_checkpoint(own, tmp_path_factory, data):
    """For any shape, whether or not transformers' config can express all of it."""
    draw = data.draw
    layers, heads = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    config = config_of(
        draw(st.sampled_from(["bert", "modern"])),
        layers=layers,
        heads=heads,
        hidden_size=4 * heads,
        intermediate_size=5,
        max_length=draw(st.integers(8, 70)),
        type_vocab_size=draw(st.integers(1, 3)),
        position_offset=draw(st.sampled_from([0, 1])),
        window=draw(st.integers(1, 9)),
        global_every=draw(st.integers(1, 6)),
        dropout=draw(st.sampled_from([0.0, 0.1])),
        norm_eps=draw(st.sampled_from([1e-12, 1e-5])),
        global_theta=draw(st.sampled_from([1e4, 160000.0])),
    )
    folder = tmp_path_factory.mktemp("round")
    write_masked_lm(folder / "ours", config, own, draw(st.integers(0, 9)))
    export_checkpoint(folder / "ours", folder / "theirs")
    import_checkpoint(str(folder / "theirs"), folder / "back")
    assert_same(folder / "ours", folder / "back")


def test_pretrained_head_goes_into_the_task_head(own, tmp_path):
    model = write_masked_lm(tmp_path / "ours", config_of("modern"), own)
    weights = read_checkpoint(tmp_path / "ours")[0]
    task = TaskModel(Encoder(config_of("modern")), "classification", 3, "cls")
    add_modern_head(task, weights)
    assert torch.equal(task.head.dense.weight, model.head.dense.weight) and torch.equal(
        task.head.norm.weight, model.head.norm.weight
    )


def test_dtype_is_the_requested_one(own, tmp_path):
    model = write_masked_lm(tmp_path / "ours", config_of("bert"), own)
    export_checkpoint(tmp_path / "ours", tmp_path / "half", dtype="bfloat16")
    peer = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "half")
    assert {parameter.dtype for parameter in peer.parameters()} == {torch.bfloat16}
    assert torch.equal(peer.get_input_embeddings().weight, model.encoder.token_embeddings.weight.bfloat16())


def test_card(own, tmp_path):
    """Metadata for the hub; recipe and scores from the run's folder; unknown values are left out."""
    import yaml

    run = tmp_path / "run"
    write_masked_lm(run / "checkpoint", config_of("bert"), own)
    notes = export_checkpoint(run, tmp_path / "bare")
    bare = (tmp_path / "bare" / "README.md").read_text()
    assert any("no license given" in note for note in notes)
    assert "license: unknown" in bare and "Not measured." in bare and "No config.yaml" in bare
    write_text(run / "config.yaml", "seed: 11\noptimizer:\n  lr: 0.0005\n")
    heldout = {"bits_per_character": 1.2345, "loss": 2.5}
    write_json(run / "summary.json", {"heldout": heldout, "epochs": {"viki": 3.0}, "tokens": 123456})
    write_text(tmp_path / "card.yaml", "license: cc-by-4.0\ntitle: aLLMA-kiçik\nlimits: Yalnız sınaq üçün.\n")
    assert main(["export", str(run), str(tmp_path / "full"), "--card-data", str(tmp_path / "card.yaml")]) == 0
    full = (tmp_path / "full" / "README.md").read_text()
    _, front, body = full.split("---\n", 2)
    meta = yaml.safe_load(front)
    assert meta["language"] == ["az"] and meta["license"] == "cc-by-4.0" and meta["pipeline_tag"] == "fill-mask"
    for part in (
        "# aLLMA-kiçik",
        "lr: 0.0005",
        "1.234 bits per character",
        "| viki | 3.00 |",
        "123,456",
        "[MASK]",
        "Yalnız sınaq",
    ):
        assert part in body
    for name, content, message in (
        ("a", "licence: x", "unknown key 'licence'"),
        ("b", "tags: one", "expected a list"),
        ("c", "a: [", "not valid YAML"),
        ("d", "- a", "keys and values"),
    ):
        write_text(tmp_path / name, content)
        with pytest.raises(UserError, match=message):
            export_checkpoint(run, tmp_path / "refused", tmp_path / name)


REFUSED = {
    "pooling that BERT has not": (config_of("bert"), ("pair", "mean"), {}, "recipe.pooling=mean"),
    "plain head on modern": (config_of("modern"), ("tagging", "cls"), {"modern_head": False}, "ModernBERT's classes"),
    "pooler on modern": (config_of("modern"), ("pair", "pooler"), {"modern_head": False}, "over a pooler"),
    "positions shifted otherwise": (config_of("bert", position_offset=5), None, {}, "position_offset=5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_transformers_cannot_do_is_an_error(case, own, tmp_path):
    config, head, options, message = REFUSED[case]
    if head:
        write_task_model(tmp_path / "ours", config, own, *head, **options)
    else:
        write_masked_lm(tmp_path / "ours", config, own)
    with pytest.raises(UserError, match=message):
        export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_a_weight_without_a_transformers_name_is_an_error(own, tmp_path):
    model = write_masked_lm(tmp_path / "ours", config_of("bert"), own)
    weights = model.state_dict() | {"encoder.blocks.0.gate": torch.zeros(3)}
    write_checkpoint(tmp_path / "ours", weights, config_of("bert"), own)
    with pytest.raises(UserError, match=r"no name in a bert file: encoder\.blocks\.0\.gate"):
        export_checkpoint(tmp_path / "ours", tmp_path / "theirs")


def test_nothing_is_overwritten(own, tmp_path):
    write_masked_lm(tmp_path / "ours", config_of("bert"), own)
    write_text(tmp_path / "theirs" / "mine.txt", "mənim")
    with pytest.raises(UserError, match="exists already"):
        export_checkpoint(tmp_path / "ours", tmp_path / "theirs")
    assert (tmp_path / "theirs" / "mine.txt").read_text() == "mənim"
    load_masked_lm(tmp_path / "ours")
