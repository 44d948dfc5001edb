"""The token cache returns what was stored, with its dtypes, and never a damaged entry or one with another key."""

import dataclasses

import numpy as np
import pytest

from common.launch import ROOT
from data.features import collate, encode, units
from data.token_cache import cached, read, write
from tasks.encoding import Encoded, Row
from tasks.records import load_task_file
from tokenization.loading import load_tokenizer

FILES = {
    "classification": "topic.csv",
    "pair": "paraphrase.jsonl",
    "choice": "choice.jsonl",
    "tagging": "ner.conll",
    "qa": "qa.jsonl",
}


def encoded_of(kind: str, prepared, count: int = 40):
    examples = load_task_file(ROOT / "data" / "demo" / "tasks" / FILES[kind], kind).examples[:count]
    labels = sorted({tag for e in examples for tag in (e["tags"] if kind == "tagging" else [str(e.get("label"))])})
    return encode(examples, kind, load_tokenizer(prepared / "tokenizer"), labels, 48)


def same(a, b) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b)
    return type(a) is type(b) and a == b


@pytest.mark.parametrize("kind", FILES)
def test_a_split_comes_back_as_it_was(kind, prepared, tmp_path):
    encoded = encoded_of(kind, prepared)
    write(tmp_path / "a.npz", "key", encoded)
    back = read(tmp_path / "a.npz", "key")
    assert len(back.rows) == len(encoded.rows) and back.kind == kind
    for one, other in zip(encoded.rows, back.rows, strict=True):
        for name in ("ids", "second", "begin", "words"):
            assert same(getattr(one, name), getattr(other, name)), name
        assert np.array_equal(one.positions, other.positions) and np.array_equal(one.targets, other.targets)
    assert (back.first, back.truncated, back.notes) == (encoded.first, encoded.truncated, encoded.notes)
    assert all(np.array_equal(a, b) for a, b in zip(encoded.offsets, back.offsets, strict=True))
    rows = np.concatenate(units(encoded)[:5])
    first, second = collate(encoded, rows), collate(back, rows)
    for field in dataclasses.fields(first):
        a, b = getattr(first, field.name), getattr(second, field.name)
        assert field.name == "layout" or (a is None and b is None) or bool((np.asarray(a) == np.asarray(b)).all()), field.name


def test_fractional_scores_are_stored_exactly(tmp_path):
    """A regression: 4.6 was stored as 4, and several labels were stored as a row of their own."""
    encoded = Encoded("similarity")
    for score in (4.6, 0.0, 0.252):
        row = Row(np.arange(4, dtype=np.int32), 2, np.zeros(1, np.int64), np.array([score], np.float32))
        encoded.close([row], False)
    several = Encoded("multilabel")
    for marks in ([1, 0, 1], [0, 0, 0]):
        row = Row(np.arange(4, dtype=np.int32), 4, np.zeros(1, np.int64), np.array([marks], np.float32))
        several.close([row], False)
    large = Encoded("classification")
    large.close([Row(np.arange(4, dtype=np.int32), 4, np.zeros(1, np.int64), np.array([2**40 + 1]))], False)
    for number, made in enumerate((encoded, several, large)):
        write(tmp_path / f"{number}.npz", "key", made)
        back = read(tmp_path / f"{number}.npz", "key")
        assert all(same(one.targets, other.targets) for one, other in zip(made.rows, back.rows, strict=True))
    assert collate(encoded, np.arange(3)).targets.tolist() == pytest.approx([4.6, 0.0, 0.252])
    assert collate(several, np.arange(2)).targets.tolist() == [[1, 0, 1], [0, 0, 0]]
    assert collate(large, np.arange(1)).targets.tolist() == [2**40 + 1]


def test_it_is_made_once_and_remade_when_damaged_or_of_another_key(prepared, tmp_path, capsys):
    path, made = tmp_path / "cache" / "a.npz", []
    encoded = encoded_of("qa", prepared, 5)

    def make():
        made.append(1)
        return encoded

    cached(path, "one", make)
    cached(path, "one", make)
    assert len(made) == 1 and not capsys.readouterr().err
    whole = path.read_bytes()
    for count, place in enumerate((60, len(whole) // 2, len(whole) - 30), start=2):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])  # one byte
        cached(path, "one", make)
        assert len(made) == count and "rebuilt" in capsys.readouterr().err and path.read_bytes() == whole
    path.write_bytes(whole[:-100])  # torn
    cached(path, "one", make)
    cached(path, "two", make)
    assert len(made) == 6
    assert len(cached(path, "two", make).rows) == len(encoded.rows) and len(made) == 6


def test_a_disk_that_cannot_be_written_costs_a_warning(prepared, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file where the folder should be")
    encoded = encoded_of("pair", prepared, 4)
    assert cached(tmp_path / "cache" / "a.npz", "key", lambda: encoded) is encoded
    assert "could not be written" in capsys.readouterr().err
