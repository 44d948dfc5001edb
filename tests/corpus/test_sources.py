import gzip
import json

import pytest

from common.errors import UserError
from corpus.sources import Record, Reject, find_sources, read_records

GOOD = [json.dumps({"id": f"d{i}", "text": f"Bu, {i} nömrəli sənəddir."}, ensure_ascii=False).encode() for i in range(100)]


def read(path):
    sources, _ = find_sources({"path": str(path)})
    items = [item for source in sources for item in read_records(source)]
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Reject)]


def write(path, lines, end=b"\n"):
    path.write_bytes(b"".join(line + end for line in lines))
    return path


# The fault table of the reference: what two well-known peers lose, crash on, or pass over in silence.
@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"text": "yar', "not_json"),
        (b'{"id": 1}', "no_text"),
        (b'{"text": null}', "no_text"),
        (b'{"text": "  "}', "empty_text"),
        (b'{"text": 12}', "text_not_a_string"),
        (b'{"text": ["a"]}', "text_not_a_string"),
        (b"[]", "not_an_object"),
        (b'"abc"', "not_an_object"),
        (b"12", "not_an_object"),
        (b"null", "not_an_object"),
        (b'{"text": "s\xfc\xe7"}', "invalid_utf8"),
        (b'{"text": "\\ud800 tek"}', "lone_surrogate"),
        (b"[" * 100_000, "not_json"),
        (b'{"n": ' + b"9" * 10_000 + b"}", "not_json"),
    ],
)
def test_one_bad_line_costs_one_line(tmp_path, bad, reason):
    lines = [*GOOD[:50], bad, *GOOD[50:]]
    records, rejects = read(write(tmp_path / "a.jsonl", lines))
    assert [record.line for record in records] == [*range(1, 51), *range(52, 102)]
    assert [(reject.file, reject.line, reject.reason) for reject in rejects] == [("a.jsonl", 51, reason)]
    assert len(rejects[0].raw) <= 200


def test_truncated_gzip_gives_what_was_read_and_one_reject(tmp_path):
    import random

    noise = random.Random(1)
    lines = [json.dumps({"text": "".join(noise.choices("abcçdeəf ", k=900))}).encode() for _ in range(100)]
    whole = gzip.compress(b"\n".join(lines))
    (tmp_path / "a.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    records, rejects = read(tmp_path / "a.jsonl.gz")
    assert 30 < len(records) < 70
    assert [(reject.reason, reject.line) for reject in rejects] == [("damaged_file", len(records) + 1)]


def test_flipped_bit_in_gzip_is_never_silent(tmp_path):
    whole = bytearray(gzip.compress(b"\n".join(GOOD)))
    for place in range(20, len(whole), 97):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        (tmp_path / "a.jsonl.gz").write_bytes(damaged)
        _, rejects = read(tmp_path / "a.jsonl.gz")
        assert "damaged_file" in {reject.reason for reject in rejects}


def test_a_file_that_is_not_gzip_and_an_empty_one(tmp_path):
    (tmp_path / "a.jsonl.gz").write_bytes(GOOD[0])
    records, rejects = read(tmp_path / "a.jsonl.gz")
    assert (len(records), [reject.reason for reject in rejects]) == (0, ["damaged_file"])
    (tmp_path / "b.jsonl").write_bytes(b"")
    assert read(tmp_path / "b.jsonl") == ([], [])


def test_byte_order_mark_crlf_nul_and_blank_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD[0] + b"\r\n\r\n" + b'{"text": "a\x00b\tc"}' + b"\r\n")
    records, rejects = read(path)
    assert [record.text for record in records] == ["Bu, 0 nömrəli sənəddir.", "a\x00b\tc"]
    assert [record.line for record in records] == [1, 3]
    assert rejects == []


def test_a_very_long_line(tmp_path):
    text = "ə" * 10_000_000
    records, rejects = read(write(tmp_path / "a.jsonl", [json.dumps({"text": text}, ensure_ascii=False).encode(), GOOD[0]]))
    assert [len(record.text) for record in records] == [len(text), 23]
    assert rejects == []


def test_text_documents_are_parted_by_blank_lines_or_else_are_lines(tmp_path):
    (tmp_path / "a.txt").write_bytes("bir\niki\n\n\nüç\n".encode())
    records, _ = read(tmp_path / "a.txt")
    assert [(record.line, record.text) for record in records] == [(1, "bir\niki"), (5, "üç")]
    (tmp_path / "b.txt").write_bytes(b"\nbir\niki\n\n")  # blank at the ends only
    records, _ = read(tmp_path / "b.txt")
    assert [(record.line, record.text) for record in records] == [(2, "bir"), (3, "iki")]
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"bir\n\n\xff\xfe\ndord\r\n"))
    records, rejects = read(tmp_path / "c.txt.gz")
    assert [record.text for record in records] == ["bir", "dord"]
    assert [(reject.line, reject.reason) for reject in rejects] == [(3, "invalid_utf8")]


def test_a_folder_gives_one_source_a_file_and_names_what_it_leaves(tmp_path):
    write(tmp_path / "news.jsonl", GOOD)
    (tmp_path / "blog.txt").write_text("bir")
    (tmp_path / "LICENSE").write_text("CC0")
    sources, ignored = find_sources({"path": str(tmp_path), "weights": {"news": 3}, "licence": "CC0-1.0"})
    assert [(source.name, source.weight, source.licence) for source in sources] == [
        ("blog", 1.0, "CC0-1.0"),
        ("news", 3.0, "CC0-1.0"),
    ]
    assert ignored == ["LICENSE"]


def test_listed_sources_may_be_folders_with_paths_relative_to_path(tmp_path):
    (tmp_path / "books" / "deep").mkdir(parents=True)
    write(tmp_path / "books" / "b.jsonl", GOOD[:2])
    write(tmp_path / "books" / "deep" / "a.jsonl", GOOD[2:3])
    settings = {"path": str(tmp_path), "sources": [{"name": "books", "path": "books", "weight": 20, "licence": "CC BY"}]}
    (source,), _ = find_sources(settings)
    assert [(item.file, item.line) for item in read_records(source)] == [("b.jsonl", 1), ("b.jsonl", 2), ("deep/a.jsonl", 1)]
    assert (source.weight, source.licence) == (20.0, "CC BY")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        ({"path": "missing"}, "missing"),
        ({"path": None}, "corpus.path"),
        ({"path": "empty"}, "no usable file"),
        ({"sources": [{"name": "a", "path": "a.jsonl"}, {"name": "a", "path": "b.jsonl"}]}, "'a'"),
        ({"sources": [{"name": "a", "path": "a.jsonl", "wieght": 2}]}, "wieght"),
        ({"sources": [{"name": "../a", "path": "a.jsonl"}]}, "cannot name"),
        ({"sources": [{"name": "a", "path": "a.jsonl", "weight": -1}]}, "weight"),
        ({"sources": [{"name": "a", "path": "a.parquet"}]}, "not a format"),
        ({"path": "full", "weights": {"nwes": 2}}, "nwes"),
        ({"path": "twice"}, "'a'"),
    ],
)
def test_settings_that_cannot_work_say_which(tmp_path, monkeypatch, settings, names):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "full", "twice"):
        (tmp_path / name).mkdir()
    for name in ("a.jsonl", "b.jsonl", "a.parquet", "full/news.jsonl", "twice/a.jsonl", "twice/a.txt"):
        write(tmp_path / name, GOOD[:1])
    with pytest.raises(UserError, match=names):
        find_sources(settings)
