"""A bag of n-grams: what each row holds, that it is learned and kept, and who refuses a model that has one."""

import math
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import read_json
from data.features import collate
from model.convert.export import export_checkpoint
from model.convert.trim import trim
from model.ngrams import LENGTHS, NgramBag, ngrams_of
from model.store import load_task_model
from tasks.scoring import read_predictions
from tests.test_finetune import checkpoint, files, run, settings_of  # noqa: F401  (fixtures)
from training.runs import prepare_data
from training.task_models import read_start

BUCKETS = 4096


def rows_of(kind: str, checkpoint: Path, files: dict):  # noqa: F811
    start = read_start(checkpoint)
    settings = settings_of(f"task.kind={kind}", f"task.train={files[kind]}")
    return start, prepare_data(settings.task, start, {}).splits["train"]


def by_hand(ids: list[int], tokenizer) -> set[int]:
    """The buckets of one text, as the head of model/ngrams.py says."""
    found = set()
    for token in ids:
        text = tokenizer.language.lower(tokenizer.tokens[token].removeprefix("##"))
        text = text if tokenizer.continues[token] else f"<{text}"
        parts = [text[at : at + n] for n in LENGTHS for at in range(len(text) - n + 1)] + [f"{text} "]
        found |= {zlib.crc32(part.encode()) % BUCKETS for part in parts}
    return found | {(a * 1_000_003 + b * 7_919) % BUCKETS for a, b in pairwise(ids)}


@pytest.mark.parametrize("kind", ["classification", "pair"])
def test_a_row_holds_the_ngrams_of_its_texts_once(kind, checkpoint, files):  # noqa: F811
    start, rows = rows_of(kind, checkpoint, files)
    bag = NgramBag(BUCKETS, 3, *ngrams_of(start.tokenizer, start.tokenizer.language, BUCKETS))
    numbers = np.array([4, 1, 9, 0, 12, 7])
    owner, found = bag.find(collate(rows, numbers))
    special, shift = set(start.tokenizer.special_ids), int(0.381966 * BUCKETS)
    shared = []
    for place, number in enumerate(numbers):
        row = rows.rows[number]
        texts = [[t for t in part.tolist() if t not in special] for part in np.split(row.ids, [row.second])]
        first, second = (by_hand(text, start.tokenizer) for text in texts)
        wanted = [*(first - second), *((b + shift) % BUCKETS for b in second - first)]
        wanted += [(b + 2 * shift) % BUCKETS for b in first & second]
        assert sorted(found[owner == place].tolist()) == sorted(wanted) and len(wanted) > 5
        shared.append(bool(first & second))
    assert set(shared) == ({False} if kind == "classification" else {True, False})


def test_the_outputs_are_the_idf_weighted_means_of_the_table(checkpoint, files):  # noqa: F811
    start, rows = rows_of("classification", checkpoint, files)
    bag = NgramBag(BUCKETS, 2, *ngrams_of(start.tokenizer, None, BUCKETS))
    every = np.arange(len(rows.rows))
    batch = collate(rows, every[:5])
    assert not bag(batch).any()
    bag.count(collate(rows, part) for part in np.array_split(every, 3))
    torch.nn.init.normal_(bag.table.weight)
    owner, found = bag.find(collate(rows, every))
    having = [len(set(owner[found == bucket].tolist())) for bucket in range(BUCKETS)]
    idf = torch.tensor([math.log((1 + len(every)) / (1 + n)) + 1 for n in having])
    assert torch.allclose(bag.idf, idf, atol=1e-6)
    outputs = bag(batch)
    for row in range(5):
        mine = found[owner == row]
        weights = idf[mine] / idf[mine].square().sum().sqrt()
        assert torch.allclose(outputs[row], weights @ bag.table.weight[mine], atol=1e-5)
    alone = torch.cat([bag(collate(rows, np.array([number]))) for number in range(5)])
    assert torch.allclose(alone, outputs, atol=1e-6)  # whatever else is in the batch


@pytest.mark.parametrize("kind", ["classification", "pair", "multilabel", "choice"])
def test_a_model_with_ngrams_learns_them_and_is_read_back(kind, checkpoint, files, tmp_path):  # noqa: F811
    words = ("recipe.ngrams=2000", "recipe.pooling=mean")
    summary = run(checkpoint, files[kind], kind, tmp_path, 0, *words)
    model, tokenizer, _ = load_task_model(summary["folder"])
    assert model.ngrams.table.weight.abs().sum() > 0
    start, rows = read_start(checkpoint), rows_of(kind, checkpoint, files)
    assert start.tokenizer.identity == tokenizer.identity
    settings = settings_of(f"task.kind={kind}", f"task.train={files[kind]}")
    data = prepare_data(settings.task, start, {})
    with torch.no_grad():
        scores = model(collate(data.splits["test"], np.arange(len(data.splits["test"].rows)))).flatten().tolist()
        model.ngrams = None
        without = model(collate(data.splits["test"], np.arange(len(data.splits["test"].rows)))).flatten().tolist()
    assert scores != without and len(rows) == 2
    records = read_predictions(Path(summary["folder"]) / "predictions-test.jsonl", kind)
    if kind == "classification":
        logs = torch.tensor(scores).view(len(records), -1).log_softmax(1)
        said = [[record["scores"][label] for label in data.task.labels] for record in records]
        assert torch.allclose(logs, torch.tensor(said), atol=1e-4)


def test_who_cannot_hold_it_refuses_it_by_name(checkpoint, files, tmp_path):  # noqa: F811
    summary = run(checkpoint, files["pair"], "pair", tmp_path / "out", 0, "recipe.ngrams=500", "recipe.pooling=pooler")
    folder = Path(summary["folder"]) / "checkpoint"
    with pytest.raises(UserError, match=r"recipe\.ngrams has no class in transformers"):
        export_checkpoint(folder, tmp_path / "exported")
    (tmp_path / "text.txt").write_text("Bakı gözəl şəhərdir.\n")
    with pytest.raises(UserError, match=r"recipe\.ngrams belongs to the whole vocabulary"):
        trim(folder, tmp_path / "trimmed", [str(tmp_path / "text.txt")])
    for kind, words, said in (
        ("tagging", (), "tagging reads single tokens"),
        ("pair", ("recipe.adapter=lora",), "neither an adapter's file nor a probe"),
    ):
        with pytest.raises(UserError, match=said):
            run(checkpoint, files[kind], kind, tmp_path / "no", 0, "recipe.ngrams=500", *words)
    assert read_json(folder / "task.json")["kind"] == "pair"


def test_onnx_refuses_it_too(checkpoint, files, tmp_path):  # noqa: F811
    pytest.importorskip("onnxscript")
    from model.convert import onnx

    summary = run(checkpoint, files["pair"], "pair", tmp_path / "out", 0, "recipe.ngrams=500")
    with pytest.raises(UserError, match=r"recipe\.ngrams, which is not written as ONNX"):
        onnx.export(Path(summary["folder"]) / "checkpoint", tmp_path / "onnx")
