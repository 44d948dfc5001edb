"""The comparison: its counts by hand, its intervals, its page; the list of inflected words."""

import json
from collections import Counter

import numpy as np
import pytest

from common.errors import UserError
from language.azerbaijani import ALPHABET
from language.azerbaijani import LANGUAGE as AZ
from tests.tokenization.samples import sentences
from tokenization.compare import compare, main, names_of, read_texts
from tokenization.loading import load_tokenizer
from tokenization.measures import COUNTS, measure, morpheme_agreement, ratio, read_morphemes, renyi, resampled


def test_counts_by_hand(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ev", "##lər", "yol", ",", "kitab"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    tokenizer = load_tokenizer(tmp_path)
    rows, used = measure(tokenizer, ["evlər, yol xyz", "kitab"])
    first = dict(zip(COUNTS, rows[0].tolist(), strict=True))
    assert first == {
        "words": 3,
        "word_tokens": 4,
        "whole": 2,
        "continued": 1,
        "tokens": 5,
        "unknown": 1,
        "lost_words": 1,
        "characters": 14,
        "bytes": 15,
        "documents": 1,
        "fits": 1,
    }
    assert used[[5, 6, 7, 8, 9, 1]].tolist() == [1, 1, 1, 1, 1, 1] and used.sum() == 6
    draws = resampled(2)
    assert (draws.sum(1) == 2).all()
    fertility = ratio(rows, draws, "fertility")
    assert fertility["value"] == pytest.approx(5 / 4) and fertility["low"] == 1 and fertility["high"] == pytest.approx(4 / 3)


def test_renyi_efficiency():
    assert renyi(np.full(64, 7), 64) == pytest.approx(1)
    assert renyi(np.full(8, 7), 64) == pytest.approx(0.5)
    shares = np.array([0.5, 0.25, 0.25])
    expected = np.log((shares**2.5).sum()) / -1.5 / np.log(3)
    assert renyi(np.array([2, 1, 1]), 3) == pytest.approx(expected)


def test_renyi_efficiency_equals_the_published_scorer():
    """tokenization-scorer 1.1.8 on the two strings of its README: power 2.5, V the number of observed tokens."""
    for text, expected in (
        ("pick @@ed pick @@l @@ed pick @@les", 0.826506),
        ("pick @@e @@d pick @@l @@e @@d pick @@l @@e @@s", 0.920484),
    ):
        used = np.array(list(Counter(text.split()).values()))
        assert renyi(used, len(used), alpha=2.5) == pytest.approx(expected, abs=1e-6)


def test_list_of_inflected_words_keeps_vowel_harmony():
    words = read_morphemes(AZ.morphemes)
    assert len(words) >= 300 and len({word for word, _ in words}) == len(words)
    back, front = set("aıou"), set("eəiöü")
    for word, parts in words:
        assert set(word) <= set(ALPHABET) and len(parts) >= 2
        vowels = [letter for letter in word[len(parts[0]) :] if letter in back | front]
        root = [letter for letter in parts[0] if letter in back | front]
        if "ki" in parts:  # -ki is outside vowel harmony, and suffixes after it are front
            vowels = [letter for part in parts[1 : parts.index("ki")] for letter in part if letter in back | front]
        for before, after in zip([root[-1], *vowels], vowels, strict=False):
            assert (before in back) == (after in back), word


def test_morpheme_agreement_by_hand(tmp_path):
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "ev", "##lər", "##lərdən", "##də", "##n", "yolda"]
    (tmp_path / "vocab.txt").write_text("\n".join(tokens), encoding="utf-8")
    words = [("evlərdən", ["ev", "lər", "dən"]), ("yolda", ["yol", "da"]), ("evdən", ["ev", "dən"])]
    agreement = morpheme_agreement(load_tokenizer(tmp_path), words, AZ)
    # evlərdən cut once at a border, yolda whole, evdən cut at 2 (a border) and 4 (none): 2 of 3 cuts, 2 of 4 borders
    assert agreement["precision"] == pytest.approx(200 / 3) and agreement["recall"] == 50
    assert agreement["f1"] == pytest.approx(100 * 4 / 7) and agreement["whole_words"] == pytest.approx(100 / 3)


def test_command_line(trained, tmp_path, capsys):
    path = tmp_path / "held.jsonl"
    rows = [{"source": "ədəbiyyat" if i % 2 else "<b>xəbər</b>", "text": text} for i, text in enumerate(sentences()[:40])]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), encoding="utf-8")
    words = [str(trained[name]) for name in ("wordpiece-cased", "unigram-uncased", "bpe-cased")]
    words.append(str(trained["unigram-cased"] / "tokenizer.model"))
    for out in ("one", "two"):
        assert main([*words, "--text", str(path), "--out", str(tmp_path / out)]) == 0
    printed = capsys.readouterr().out
    assert "wordpiece-cased" in printed and "ədəbiyyat" in printed
    for name in ("compare.json", "compare.md", "compare.html"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    result = json.loads((tmp_path / "one" / "compare.json").read_text(encoding="utf-8"))
    for entry in result["tokenizers"].values():
        parts, whole = entry["sources"], entry["sources"]["all sources"]
        assert sum(part["words"] for name, part in parts.items() if name != "all sources") == whole["words"]
        assert whole["fertility"]["low"] <= whole["fertility"]["value"] <= whole["fertility"]["high"]
        assert whole["fertility"]["value"] >= 1
    assert result["tokenizers"]["wordpiece-cased"]["sources"]["all sources"]["cost"]["value"] == 0
    page = (tmp_path / "one" / "compare.html").read_text(encoding="utf-8")
    assert "<b>xəbər" not in page and "&lt;b&gt;xəbər" in page and "<svg" in page
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script" not in page


def test_command_line_errors(trained, tmp_path, capsys):
    path = tmp_path / "bad.jsonl"
    path.write_text('{"text": "bir"}\n{"text": "a\\ud800"}\n')
    assert main([str(trained["bpe-cased"]), "--text", str(path), "--out", str(tmp_path)]) == 2
    assert "bad.jsonl, line 2: a lone surrogate" in capsys.readouterr().err
    path.write_text('{"words": "bir"}\n')
    with pytest.raises(UserError, match='line 1: no string under "text"'):
        read_texts([str(path)])
    with pytest.raises(UserError, match="named twice"):
        names_of(["a/b", "a/b"])
    assert names_of(["x/tok", "y/tok"]) == ["x/tok", "y/tok"]
    with pytest.raises(UserError, match="no such file"):
        compare([str(tmp_path / "none")], {"a": ["söz"]})
