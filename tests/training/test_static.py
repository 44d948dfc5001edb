"""Static embeddings: the vectors are their definition, the weights are the paper's, and the row answers what vectors can."""

import json

import numpy as np
import pytest
import torch

from common.errors import UserError
from data.layout import Layout
from model.encoder import Encoder, EncoderConfig
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from tests.conftest import read_task, run_script
from tokenization.loading import load_tokenizer
from training.static_embeddings import StaticEmbeddings, make, mean_states, predict, reduce, score, texts_of, windows_of

ANIMALS, PLANTS = ["pişik", "it", "at", "inək"], ["ağac", "gül", "ot", "yarpaq"]


@pytest.fixture
def tokenizer(prepared):
    return load_tokenizer(prepared / "tokenizer")


def shape(vocab: int) -> EncoderConfig:
    sizes = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 48, "max_length": 64}
    return EncoderConfig(architecture="modern", vocab_size=vocab, dropout=0.0, **sizes)


@pytest.fixture
def texts(tmp_path):
    path = tmp_path / "texts.jsonl"
    lines = [" ".join(np.random.default_rng(n).choice(ANIMALS + PLANTS, 9).tolist()) for n in range(40)]
    path.write_text("\n".join(json.dumps({"text": line}) for line in lines), encoding="utf-8")
    return path


def test_states_are_the_mean_over_all_places_of_a_token(tokenizer, texts):
    torch.manual_seed(0)
    encoder = Encoder(shape(tokenizer.vocab_size)).eval()
    windows = windows_of(texts_of(texts), tokenizer, 7, 10_000)
    states, counts = mean_states(encoder, tokenizer, windows, torch.device("cpu"))
    assert counts.sum() == sum(map(len, windows)) and max(map(len, windows)) == 7
    for token in np.flatnonzero(counts)[:5]:
        found = []
        with torch.no_grad():
            for row in windows:
                ids = torch.tensor([tokenizer.cls_id, *row, tokenizer.sep_id])
                found += [state for state, one in zip(encoder(ids, Layout.of([len(ids)])), ids, strict=True) if one == token]
        np.testing.assert_allclose(states[token], torch.stack(found).mean(0).numpy(), atol=1e-5)
        assert len(found) == counts[token]
    alone = next(t for t in range(tokenizer.vocab_size) if counts[t] == 0 and t not in tokenizer.special_ids)
    ids = torch.tensor([tokenizer.cls_id, alone, tokenizer.sep_id])
    with torch.no_grad():
        np.testing.assert_allclose(states[alone], encoder(ids, Layout.of([3]))[1].numpy(), atol=1e-5)


def test_all_axes_keep_every_distance_and_few_keep_the_largest():
    draw = np.random.default_rng(0)
    counts = draw.integers(0, 500, 60)
    states = draw.normal(size=(60, 12)) * np.geomspace(30, 0.1, 12)
    share = (counts + 1) / (counts + 1).sum()
    weight = 1e-3 / (1e-3 + share)
    whole = reduce(states, counts, 12) / weight[:, None]
    np.testing.assert_allclose(whole @ whole.T, (states - share @ states) @ (states - share @ states).T, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(share @ whole, 0, atol=1e-4)
    np.testing.assert_allclose(reduce(states, counts, 3) / weight[:, None], whole[:, :3], atol=1e-4)
    assert abs(np.corrcoef(whole[:, 0], states[:, 0])[0, 1]) > 0.9  # the axis of the largest variance comes first
    rare, frequent = counts.argmin(), counts.argmax()
    assert weight[rare] > 2 * weight[frequent]


@pytest.fixture
def planted(tokenizer):
    """Tokens of animals on one side, those of plants on the other, all others at zero."""
    vectors = np.zeros((tokenizer.vocab_size, 4), np.float32)
    for side, words in ((1.0, ANIMALS), (-1.0, PLANTS)):
        for word in words:
            vectors[tokenizer.encode_batch([word])[0], 0] += side
    vectors[:, 1] = 0.1
    return StaticEmbeddings(vectors, tokenizer, "planted-static")


def task_of(tmp_path, rows: list[dict], **keys):
    path = tmp_path / "task.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return read_task({"name": "t", "train": str(path), **keys})


@pytest.mark.parametrize("shuffled", [False, True])
def test_a_planted_class_is_found_and_shuffled_labels_are_not(planted, tmp_path, shuffled):
    draw = np.random.default_rng(0)
    rows = [{"text": " ".join(draw.choice(words, 5)), "label": name} for n in range(200) for name, words in
            [("heyvan", ANIMALS) if n % 2 else ("bitki", PLANTS)]]  # fmt: skip
    if shuffled:
        labels = draw.permutation([row["label"] for row in rows])
        rows = [{**row, "label": label} for row, label in zip(rows, labels.tolist(), strict=True)]
    task = task_of(tmp_path, rows, kind="classification")
    place = score(planted, task, tmp_path / "out")
    summary = json.loads((place / "summary.json").read_text())
    assert (summary["test_score"] > 0.9) is not shuffled and summary["model"] == "planted-static"
    assert len((place / "predictions-test.jsonl").read_text().splitlines()) == len(task.test)


def test_pairs_and_similarity_compare_their_texts(planted, tmp_path):
    draw = np.random.default_rng(1)
    rows = []
    for _ in range(240):
        first, second = draw.choice([0, 1], 2)
        text, text_b = (" ".join(draw.choice((ANIMALS, PLANTS)[side], 4)) for side in (first, second))
        rows.append(
            {"text": text, "text_b": text_b, "label": "same" if first == second else "other", "score": float(first == second)}
        )
    pair = predict(planted, task_of(tmp_path, rows, kind="pair"))
    assert np.mean([row["pred"] == row["gold"] for row in pair]) > 0.9
    alike = predict(planted, task_of(tmp_path, rows, kind="similarity"))
    assert np.corrcoef([row["pred"] for row in alike], [row["gold"] for row in alike])[0, 1] > 0.9


def test_the_commands_and_what_they_refuse(tokenizer, prepared, texts, tmp_path):
    torch.manual_seed(0)
    run, out = tmp_path / "run", tmp_path / "static"
    config = shape(tokenizer.vocab_size)
    write_checkpoint(run / "checkpoint", MaskedLM(config).state_dict(), config, tokenizer, {"name": "tiny"})
    with pytest.raises(UserError, match="width 33: expected 1 to 32"):
        make(str(run), texts, out, 33, 1000, torch.device("cpu"))
    words = ["-m", "training.static_embeddings", "make", run, prepared / "corpus", out, "--width", "16", "--tokens", "3000"]
    made = run_script(*words)
    assert made.returncode == 0 and "width 16" in made.stdout, made.stderr
    static = StaticEmbeddings.read(out)
    vectors = static.embed(["pişik it", "", "pişik it"])
    assert np.array_equal(vectors[0], vectors[2]) and not vectors[1].any() and abs(np.linalg.norm(vectors[0]) - 1) < 1e-5
    assert run_script(*words).returncode == 2
    scored = run_script("-m", "training.static_embeddings", "score", out, "--task", "topic", "--out", tmp_path / "table")
    assert scored.returncode == 0 and "tiny-static on topic: dev macro_f1" in scored.stdout, scored.stderr
    report = run_script("-m", "evaluation.report", tmp_path / "table")
    assert report.returncode == 0 and "tiny-static" in report.stdout, report.stderr
    wrong = run_script("-m", "training.static_embeddings", "score", out, "--task", "qa", "--out", tmp_path / "table")
    assert wrong.returncode == 2 and "is qa" in wrong.stderr
    said = json.loads((out / "static.json").read_text())
    (out / "static.json").write_text(json.dumps(said | {"tokenizer": "other"}))
    with pytest.raises(UserError, match="belong to other"):
        StaticEmbeddings.read(out)
