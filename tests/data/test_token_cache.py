"""The token cache gives back what was put in, to the dtype, and never what is damaged or of another key."""

import dataclasses

import numpy as np
import pytest

from common.launch import ROOT
from data.features import collate, encode, units
from data.task_records import load_task_file
from data.token_cache import cached, read, write
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


def test_it_is_made_once_and_anew_when_damaged_or_of_another_key(prepared, tmp_path, capsys):
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
        assert len(made) == count and "made anew" in capsys.readouterr().err and path.read_bytes() == whole
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
