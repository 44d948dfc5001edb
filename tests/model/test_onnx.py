"""ONNX files in onnxruntime: equal to torch to 1e-4 in fp32, at any batch and length; int8 is smaller and near."""

import numpy as np
import pytest
import torch

from common.files import read_json
from data.features import collate, encode
from data.layout import Layout
from model.convert import onnx as ours
from model.convert.importing import import_checkpoint
from model.encoder import Encoder, EncoderConfig
from model.folder import write_checkpoint
from model.heads import TASK, TaskModel, has_pooler
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tests.model.peers import TEXTS, write_peer
from tokenization.loading import load_tokenizer


@pytest.fixture(autouse=True)
def hf_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


@pytest.fixture
def runtime():
    for name in ours.NEEDED:
        pytest.importorskip(name, reason="installed with requirements-extra.txt")
    import onnxruntime

    return lambda path: onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def padded(rows: list[np.ndarray], pad: int) -> dict[str, np.ndarray]:
    """input_ids and attention_mask of rows of different lengths."""
    longest = max(map(len, rows))
    ids, mask = np.full((len(rows), longest), pad, np.int64), np.zeros((len(rows), longest), np.int64)
    for number, row in enumerate(rows):
        ids[number, : len(row)], mask[number, : len(row)] = row, 1
    return {"input_ids": ids, "attention_mask": mask}


def rows_of(tokenizer, texts: list[str]) -> list[np.ndarray]:
    return [
        np.concatenate([[tokenizer.cls_id], ids, [tokenizer.sep_id]]).astype(np.int64) for ids in tokenizer.encode_batch(texts)
    ]


def run(session, feed: dict[str, np.ndarray]) -> np.ndarray:
    names = [part.name for part in session.get_inputs()]
    return session.run(None, {name: feed.get(name, np.zeros_like(feed["input_ids"])) for name in names})[0]


def write_own(folder, prepared, architecture: str, **more):
    tokenizer = load_tokenizer(prepared / "tokenizer")
    torch.manual_seed(0)
    shape = {"hidden_size": 64, "layers": 4, "heads": 4, "intermediate_size": 96, "max_length": 64, "window": 4}
    config = EncoderConfig(architecture=architecture, vocab_size=tokenizer.vocab_size, initializer_range=0.1, **shape, **more)
    model = MaskedLM(config).eval()
    write_checkpoint(folder, model.state_dict(), config, tokenizer, {"name": "tiny"})
    return model, tokenizer


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "modern", "qk_norm", "xlm-roberta", "modernbert"])
def test_a_pre_trained_model_gives_the_same_logits(kind, prepared, tmp_path, runtime):
    if kind in ("bert", "modern", "qk_norm"):
        write_own(tmp_path / "ours", prepared, "bert" if kind == "bert" else "modern", qk_norm=kind == "qk_norm")
    else:
        write_peer(tmp_path / "theirs", kind)
        import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours")
    assert ours.main([str(tmp_path / "ours"), str(tmp_path / "out"), "--int8"]) == 0
    model, tokenizer = load_masked_lm(tmp_path / "ours")
    session, small = (runtime(tmp_path / "out" / name) for name in (ours.FILE, ours.SMALL))
    for texts in (TEXTS[:3], [TEXTS[0] + " " + TEXTS[1]], TEXTS):  # other numbers of rows and lengths than at export
        rows = rows_of(tokenizer, texts)
        flat, layout = torch.from_numpy(np.concatenate(rows)), Layout.of([len(row) for row in rows])
        with torch.no_grad():
            wanted = model.logits(flat, layout, torch.arange(len(flat))).numpy()
        feed = padded(rows, tokenizer.pad_id)
        found = run(session, feed)[feed["attention_mask"] > 0]
        np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-4)
        near = run(small, feed)[feed["attention_mask"] > 0]
        error = np.sqrt(((near - wanted) ** 2).mean() / wanted.var())
        assert 0 < error < 0.25
    sizes = [(tmp_path / "out" / name).stat().st_size for name in (ours.FILE, ours.SMALL)]
    assert sizes[1] < 0.75 * sizes[0]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "pooling"), [("classification", "pooler"), ("classification", "mean"), ("tagging", "cls")])
def test_a_fine_tuned_model_gives_the_same_scores(kind, pooling, prepared, tmp_path, runtime):
    model, tokenizer = write_own(tmp_path / "base", prepared, "bert")
    encoder = Encoder(model.encoder.config, pooler=has_pooler(kind, pooling))
    task_model, labels = TaskModel(encoder, kind, 3, pooling).eval(), ["a", "b", "c"]
    task = {"kind": kind, "labels": labels, "pooling": pooling, "max_length": 64}
    config = model.encoder.config
    write_checkpoint(tmp_path / "ours", task_model.state_dict(), config, tokenizer, {"name": "t"}, {TASK: task})
    assert ours.main([str(tmp_path / "ours"), str(tmp_path / "out")]) == 0
    examples = [
        {"id": str(n), "words": text.split(), "tags": ["a"] * len(text.split()), "text": text, "label": "a"}
        for n, text in enumerate(TEXTS)
    ]
    encoded = encode(examples, kind, tokenizer, labels, 64, None)
    batch = collate(encoded, np.arange(len(encoded.rows)), device=torch.device("cpu"))
    with torch.no_grad():
        wanted = task_model(batch).numpy()
    feed = padded([row.ids.astype(np.int64) for row in encoded.rows], tokenizer.pad_id)
    found = run(runtime(tmp_path / "out" / ours.FILE), feed)
    if kind == "tagging":
        found = np.concatenate([found[number, row.positions] for number, row in enumerate(encoded.rows)])
    np.testing.assert_allclose(found, wanted, atol=1e-4, rtol=1e-4)
    assert read_json(tmp_path / "out" / TASK)["labels"] == labels


def test_a_missing_library_is_named(prepared, tmp_path, monkeypatch, capsys):
    write_own(tmp_path / "ours", prepared, "bert")

    def missing(name, *rest):
        raise ImportError(name)

    monkeypatch.setattr(ours.importlib, "import_module", missing)
    assert ours.main([str(tmp_path / "ours"), str(tmp_path / "out")]) == 2
    assert "pip install onnx onnxruntime onnxscript" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_an_existing_folder_is_kept(prepared, tmp_path, runtime, capsys):
    write_own(tmp_path / "ours", prepared, "bert")
    (tmp_path / "out").mkdir()
    assert ours.main([str(tmp_path / "ours"), str(tmp_path / "out")]) == 2
    assert "exists already" in capsys.readouterr().err
