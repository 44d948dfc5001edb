"""BERT's next-sentence head is imported, equals transformers', and gets a row in the table without training."""

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import read_json, read_jsonl, write_jsonl
from data.features import collate, encode
from evaluation.report import build_report
from model.convert.importing import import_checkpoint
from model.encoder import Encoder
from model.heads import TaskModel
from model.next_sentence import NEXT_SENTENCE, put_head, read_head
from model.store import load_encoder, load_masked_lm
from tests.conftest import read_task
from tests.model.peers import TEXTS, write_peer
from tests.model.test_huggingface import rectangle
from training.runs import Data
from training.task_models import read_start
from training.zero_shot import zero_shot

transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")
LABELS = ["next", "other"]


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    """(transformers' folder, ours) of a tiny BERT with both pre-training heads."""
    folder = tmp_path_factory.mktemp("nsp")
    write_peer(folder / "theirs", "bert", "ForPreTraining")
    import_checkpoint(str(folder / "theirs"), folder / "ours")
    return folder / "theirs", folder / "ours"


def pairs() -> list[dict]:
    return [{"id": str(n), "text": a, "text_b": b, "label": "next"} for n, (a, b) in enumerate(zip(TEXTS, TEXTS[2:]))]  # noqa: B905


def scores_of(folder, kind: str, examples: list[dict], labels, positive) -> torch.Tensor:
    encoder, tokenizer = load_encoder(folder, pooler=True)
    model = TaskModel(encoder, kind, len(labels or [])).eval()
    put_head(model, read_head(folder), labels, positive)
    encoded = encode(examples, kind, tokenizer, labels, 64)
    with torch.no_grad():
        return model(collate(encoded, np.arange(len(encoded.rows))))


def their_scores(folder, texts: list[tuple[str, str]]) -> torch.Tensor:
    """[pairs, 2], output 0 first: the second text is the next one."""
    peer = transformers.BertForNextSentencePrediction.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    read = [tokenizer(a, b) for a, b in texts]
    ids, mask = rectangle([np.array(one["input_ids"]) for one in read], 0)
    types, _ = rectangle([np.array(one["token_type_ids"]) for one in read], 0)
    with torch.no_grad():
        return peer(ids, attention_mask=mask, token_type_ids=types).logits


def test_it_equals_transformers_with_either_order_of_labels(imported):
    theirs, ours = imported
    expected = their_scores(theirs, [(e["text"], e["text_b"]) for e in pairs()])
    assert (expected[:, 0] - expected[:, 1]).abs().min() > 1e-3
    for labels in (LABELS, LABELS[::-1], ["0", "1"]):
        positive = "1" if "1" in labels else "next"
        found = scores_of(ours, "pair", [{**e, "label": positive} for e in pairs()], labels, positive)
        column = labels.index(positive)
        torch.testing.assert_close(found[:, [column, 1 - column]], expected, atol=1e-5, rtol=1e-5)


def test_an_option_scores_the_log_odds_that_it_follows(imported):
    theirs, ours = imported
    example = {"id": "1", "question": TEXTS[0], "options": TEXTS[1:4], "label": 0}
    expected = their_scores(theirs, [(TEXTS[0], option) for option in TEXTS[1:4]])
    found = scores_of(ours, "choice", [example], None, None)
    torch.testing.assert_close(found, expected[:, 0] - expected[:, 1], atol=1e-5, rtol=1e-5)


def test_a_checkpoint_with_only_the_head_and_one_without_it(imported, tmp_path):
    theirs, ours = imported
    peer = transformers.BertForNextSentencePrediction.from_pretrained(theirs)
    peer.save_pretrained(tmp_path / "alone")
    for name in ("vocab.txt", "tokenizer_config.json"):
        (tmp_path / "alone" / name).write_bytes((theirs / name).read_bytes())
    notes = import_checkpoint(str(tmp_path / "alone"), tmp_path / "imported")
    assert any("next-sentence head" in note and "kept" in note for note in notes)
    a, b = read_head(ours), read_head(tmp_path / "imported")
    assert set(a) == {"weight", "bias"} and all(torch.equal(a[part], b[part]) for part in a)
    model, _ = load_masked_lm(ours)
    assert isinstance(model.encoder, Encoder) and not any("relationship" in name for name in model.state_dict())
    write_peer(tmp_path / "plain", "bert")
    import_checkpoint(str(tmp_path / "plain"), tmp_path / "without")
    assert read_head(tmp_path / "without") is None
    (ours / NEXT_SENTENCE).write_bytes((ours / NEXT_SENTENCE).read_bytes()[:-3])  # last: spoils the module's copy
    with pytest.raises(UserError, match=f"{NEXT_SENTENCE}: damaged"):
        load_masked_lm(ours)


def data_of(start, path, **config) -> Data:
    task = read_task(
        {"name": "follows", "kind": "pair", "train": str(path), "next_sentence": True, "positive": "next", **config}
    )
    splits = {s: encode(getattr(task, s), task.kind, start.tokenizer, task.labels, 64) for s in ("train", "dev", "test")}
    return Data(task, splits, 64, None, task.digest, [])


def test_a_row_of_the_table_without_training(tmp_path):
    write_peer(tmp_path / "theirs", "bert", "ForPreTraining")
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "ours", "bert")
    rows = [
        {"id": n, "text": f"{TEXTS[n % 6]} {n}", "text_b": f"{TEXTS[n % 5]} {n}", "label": LABELS[n % 2]} for n in range(80)
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    start = read_start(tmp_path / "ours")
    data = data_of(start, tmp_path / "pairs.jsonl")
    summary = zero_shot(start, data, 4096, torch.device("cpu"), tmp_path / "out")
    place = tmp_path / "out" / "bert-zero-shot" / "follows" / "seed-0"
    assert summary["folder"] == str(place) and read_json(place / "summary.json")["deterministic"]
    found = [row for _, row in read_jsonl(place / "predictions-test.jsonl")]
    assert [row["id"] for row in found] == [example["id"] for example in data.task.test]
    expected = their_scores(tmp_path / "theirs", [(e["text"], e["text_b"]) for e in data.task.test])
    assert [row["pred"] for row in found] == [LABELS[int(number)] for number in expected.argmax(1)]
    assert zero_shot(start, data, 4096, torch.device("cpu"), tmp_path / "out")["reused"]
    assert "bert-zero-shot" in build_report([tmp_path / "out"], tmp_path / "report")
    # Other tasks, and the same shape without its weights, have no such row.
    other = data_of(start, tmp_path / "pairs.jsonl", next_sentence=False)
    assert zero_shot(start, other, 4096, torch.device("cpu"), tmp_path / "none") is None
    scratch = read_start(tmp_path / "ours", scratch=True)
    assert zero_shot(scratch, data, 4096, torch.device("cpu"), tmp_path / "none") is None and not (tmp_path / "none").exists()
