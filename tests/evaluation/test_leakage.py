"""Overlap with the corpus: exact, independent of case and script, blocks and workers, and shown in the report."""

import json

import numpy as np
import pyarrow.parquet
import pytest

from common.errors import UserError
from common.files import read_jsonl, write_json, write_jsonl
from evaluation import leakage
from evaluation.leakage import build_index, main, overlaps, read_items, write_overlaps
from language.azerbaijani import LANGUAGE as AZ
from language.azerbaijani import fold_key

WORDS = ["ağac", "bulaq", "çay", "dəniz", "əl", "fikir", "göl", "həyat", "ilk", "işıq", "qış", "yol"]


def _brute(item, documents, n):
    """Share of the item's words in a run of n that a document contains; shorter lines count whole. By plain comparison."""
    checked = covered = 0
    for line in item.split("\n"):
        words = fold_key(line).split()
        if len(words) < leakage.SHORTEST:
            continue
        size, marked = min(n, len(words)), [False] * len(words)
        for start in range(len(words) - size + 1):
            run = words[start : start + size]
            for document in documents:
                other = fold_key(document).split()
                if any(other[at : at + size] == run for at in range(len(other))):
                    marked[start : start + size] = [True] * size
        checked, covered = checked + len(words), covered + sum(marked)
    return round(covered / checked, 6) if checked else None


@pytest.mark.parametrize("n", [6, 13])
def test_overlap_equals_plain_comparison(tmp_path, monkeypatch, n):
    random = np.random.default_rng(n)

    def text(length):
        return " ".join(random.choice(WORDS, size=length))

    documents = [text(int(random.integers(1, 60))) for _ in range(30)]
    items = [("0", "bulaq ilk"), ("1", "")]
    for number in range(2, 40):
        own = text(int(random.integers(3, 18)))
        borrowed = " ".join(documents[number % 30].split()[: int(random.integers(4, 25))])
        items.append((str(number), f"{own} {borrowed}\n{borrowed.upper().replace('I', 'İ')}"))
    write_jsonl(tmp_path / "documents" / "a.jsonl.gz", [{"id": f"a{i}", "text": t} for i, t in enumerate(documents[:15])])
    write_jsonl(tmp_path / "documents" / "b.jsonl.gz", [{"id": f"b{i}", "text": t} for i, t in enumerate(documents[15:])])
    index = build_index([("t", items)], AZ, n)
    rows = overlaps(index, tmp_path)
    assert [row["overlap"] for row in rows] == [_brute(text, documents, n) for _, text in items]
    assert any(row["overlap"] and row["overlap"] > 0.5 for row in rows) and rows[0]["overlap"] is None
    monkeypatch.setattr(leakage, "BLOCK_WORDS", 40)  # blocks end elsewhere: the result may not depend on it
    assert overlaps(index, tmp_path) == rows
    assert overlaps(index, tmp_path, workers=2) == rows


def test_a_copy_is_found_in_any_spelling_and_script_not_in_another_order(tmp_path):
    copied = "Şəki şəhərində ipək parça toxuyan ustalar yaşayır"
    write_jsonl(tmp_path / "a.jsonl", [{"id": "d", "text": f"Deyirlər ki, {copied}, bəli."}])
    items = {
        "capitals": copied.replace("i", "İ").upper(),
        "ascii": "seki seherinde ipek parca toxuyan ustalar yasayir!",
        "cyrillic": "Шәки шәһәриндә ипәк парча тохујан усталар јашајыр",
        "turned": " ".join(copied.split()[::-1]),
    }
    rows = overlaps(build_index([("t", list(items.items()))], AZ), tmp_path)
    assert {row["id"]: row["overlap"] for row in rows} == {"capitals": 1.0, "ascii": 1.0, "cyrillic": 1.0, "turned": 0.0}


def test_command_line_writes_the_document_and_counts(tmp_path, capsys):
    sentence = "Bu uzun cümlə korpusda da sözbəsöz eyni ardıcıllıqla durur və sınaqda təkrar olunur"
    document = {"id": "n7", "source": "news", "text": f"Giriş. {sentence}."}
    write_jsonl(tmp_path / "corpus" / "documents" / "news.jsonl.gz", [document])
    items = [sentence, "Tamamilə başqa bir cümlə burada yazılıb", "qısa"]
    rows = [{"id": str(number), "text": text} for number, text in enumerate(items, start=1)]
    write_jsonl(tmp_path / "bench" / "inputs" / "topic-test.jsonl", rows)
    out = tmp_path / "overlap.jsonl"
    assert main(["--corpus", str(tmp_path / "corpus"), "--predictions", str(tmp_path / "bench"), "--out", str(out)]) == 0
    rows = [row for _, row in read_jsonl(out)]
    assert rows[0] == {"task": "topic", "id": "1", "overlap": 1.0, "source": "news", "document": "n7"}
    assert rows[1]["overlap"] == 0 and rows[1]["document"] is None and rows[2]["overlap"] is None
    said = "3 items, 1 LEAKED (half or more of their words are in the corpus), 0 in part, 1 too short"
    assert said in capsys.readouterr().out
    # An unchanged request is skipped; other documents, items or run lengths are searched.
    inputs, corpus = [tmp_path / "bench" / "inputs" / "topic-test.jsonl"], tmp_path / "corpus"
    before = out.stat().st_mtime_ns
    assert said in write_overlaps(inputs, corpus, out)[0] and out.stat().st_mtime_ns == before
    write_jsonl(corpus / "documents" / "b.jsonl", [{"id": "b", "text": items[1]}])
    assert "2 LEAKED" in write_overlaps(inputs, corpus, out)[0]


def test_words_are_folded_by_the_language_of_the_corpus(tmp_path, capsys):
    """I is ı in Turkish and i elsewhere; a built corpus records its language, a folder of documents needs --language."""
    text = "Iğdır ılıca kırmızı sıcak yaz günü"
    write_jsonl(tmp_path / "corpus" / "documents" / "a.jsonl", [{"id": "d", "text": text.replace("ı", "i")}])
    write_jsonl(tmp_path / "topic-test.jsonl", [{"id": 1, "text": text}])
    words = ["--corpus", str(tmp_path / "corpus"), "--tasks", str(tmp_path / "topic-test.jsonl"), "--out", str(tmp_path / "o")]
    assert main(words) == 0 and "none leaked" in capsys.readouterr().out
    assert main([*words, "--language", "tr"]) == 0 and "1 LEAKED" in capsys.readouterr().out
    write_json(tmp_path / "corpus" / "report.json", {"language": "turkish"})
    assert main(words) == 0 and "1 LEAKED" in capsys.readouterr().out
    assert main([*words, "--language", "kk"]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'corpus'}: turkish, --language: kazakh" in said and "Leave --language out" in said


def test_items_in_every_format(tmp_path):
    (tmp_path / "a.csv").write_text("id,title,topic\nx,Bir ad,Kimya\n")
    (tmp_path / "b.tsv").write_text("sentence1\tsentence2\nbir\tiki\n")
    (tmp_path / "c.conll").write_text("Bakı B-LOC\nböyükdür O\n\nƏli B-PER\n")
    squad = {"data": [{"paragraphs": [{"context": "Mətn.", "qas": [{"id": "q", "question": "Nə?"}]}]}]}
    (tmp_path / "d.json").write_text(json.dumps(squad))
    (tmp_path / "topic-test.jsonl").write_text('{"id": 5, "text": "bir"}\n')
    assert read_items(tmp_path / "a.csv") == ("a", [("x", "Bir ad")])
    assert read_items(tmp_path / "b.tsv") == ("b", [("2", "bir\niki")])
    assert read_items(tmp_path / "c.conll") == ("c", [("1", "Bakı böyükdür"), ("4", "Əli")])
    assert read_items(tmp_path / "d.json") == ("d", [("q", "Nə?\nMətn.")])
    assert read_items(tmp_path / "topic-test.jsonl") == ("topic", [("5", "bir")])
    (tmp_path / "v1.2-test.jsonl").write_text('{"id": 5, "text": "bir"}\n')
    assert read_items(tmp_path / "v1.2-test.jsonl")[0] == "v1.2"
    row = {"id": "p", "tokens": ["Bakı", "böyükdür"], "ner_tags": [1, 0]}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), tmp_path / "e.parquet")
    assert read_items(tmp_path / "e.parquet") == ("e", [("p", "Bakı böyükdür")])
    (tmp_path / "f.parquet").write_bytes((tmp_path / "e.parquet").read_bytes()[:-20])
    with pytest.raises(UserError, match=r"f.parquet: damaged after record 0"):
        read_items(tmp_path / "f.parquet")


def test_bad_input_is_named(tmp_path, capsys):
    (tmp_path / "empty-test.jsonl").write_text("")
    (tmp_path / "odd.xml").write_text("<a/>")
    (tmp_path / "no.jsonl").write_text('{"id": 1, "label": "a"}\n')
    for name, word in (("empty-test.jsonl", "no item"), ("odd.xml", "format"), ("no.jsonl", "line 1: no text")):
        with pytest.raises(UserError, match=word):
            read_items(tmp_path / name)
    with pytest.raises(UserError, match="occurs twice"):
        build_index([("t", [("1", "a"), ("1", "b")])], AZ)
    with pytest.raises(UserError, match="no documents"):
        overlaps(build_index([("t", [("1", "a")])], AZ), tmp_path / "nowhere")
    assert main(["--corpus", str(tmp_path)]) == 2 and main(["--corpus", str(tmp_path), "--predictions", str(tmp_path)]) == 2
    assert "no inputs" in capsys.readouterr().err
