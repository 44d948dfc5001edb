import gzip
import json
import os
import pickle

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from corpus.reading.sources import Record, Reject, file_identity, find_sources, format_of, read_file, read_records

GOOD = [json.dumps({"id": f"d{i}", "text": f"Bu, {i} nömrəli sənəddir."}, ensure_ascii=False).encode() for i in range(100)]


def read(path):
    sources, _ = find_sources(str(path))
    items = [item for source in sources for item in read_records(source)]
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Reject)]


def write(path, lines, end=b"\n"):
    path.write_bytes(b"".join(line + end for line in lines))
    return path


# The fault table of the reference: what two well-known peers lose, crash on, or skip without a message.
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
    sources, ignored = find_sources(tmp_path, weights={"news": 3}, licence="CC0-1.0")
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
    (source,), _ = find_sources(**settings)
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
        ({"sources": [{"name": "a", "path": "a.docx"}]}, "not a format"),
        ({"sources": [{"name": "a", "path": "a.jsonl", "format": "jsnl"}]}, "jsnl"),
        ({"sources": [{"name": "a", "path": "a.jsonl", "text": 3}]}, "text=3"),
        ({"sources": [{"name": "a", "path": "a.jsonl", "columns": ["url"]}]}, "columns"),
        ({"sources": [{"name": "a", "path": "a.jsonl", "workers": 0}]}, "workers"),
        ({"sources": ["a.jsonl"]}, "no entry"),
        ({"sources": [{"name": "a", "path": "*.nothing"}]}, "nothing"),
        ({"sources": [{"name": "a", "path": "hub://owner"}]}, "hub://owner/name"),
        ({"path": "full", "weights": {"nwes": 2}}, "nwes"),
        ({"path": "twice"}, "'a'"),
    ],
)
def test_settings_that_cannot_work_say_which(tmp_path, monkeypatch, settings, names):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "full", "twice"):
        (tmp_path / name).mkdir()
    for name in ("a.jsonl", "b.jsonl", "a.docx", "full/news.jsonl", "twice/a.jsonl", "twice/a.txt"):
        write(tmp_path / name, GOOD[:1])
    with pytest.raises(UserError, match=names):
        find_sources(**settings)


def test_a_path_may_be_a_glob_over_files_and_folders(tmp_path):
    for name in ("x/2023/a.jsonl", "x/2024/a.jsonl", "x/2024/b.csv", "y.jsonl", "z[1].jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, GOOD[:1])
    entries = [
        {"name": "all", "path": "x/*/*.jsonl"},
        {"name": "folders", "path": "x/20*"},
        {"name": "odd", "path": "z[1].jsonl"},
    ]
    sources, _ = find_sources(tmp_path, entries)
    assert [source.labels for source in sources] == [
        ["2023/a.jsonl", "2024/a.jsonl"],
        ["2023/a.jsonl", "2024/a.jsonl", "2024/b.csv"],
        ["z[1].jsonl"],
    ]
    sources, _ = find_sources(f"{tmp_path}/x/2024/*")
    assert [source.name for source in sources] == ["a", "b"]


def test_options_go_to_every_file_and_can_be_sent_to_another_process(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.dat").write_text('{"body": "Bir", "key": 4, "u": "http://x.az/1"}\n')
    entry = {"name": "a", "path": "a", "format": "jsonl", "text": "body", "id": "key", "columns": {"url": "u"}}
    (source,), _ = find_sources(tmp_path, [entry])
    words = pickle.loads(pickle.dumps((source.files[0], source.labels[0], source.options)))
    (record,) = read_file(*words)
    assert record == Record("one.dat", 1, "Bir", "4", {"url": "http://x.az/1", "site": "x.az"})


def test_the_seven_sources_of_dollma_as_the_files_they_come_in(tmp_path):
    names = ["translated-enwiki", "azwiki", "anl-news", "elite-books", "mediocore-books", "elite-blogs", "eqanun"]
    for number, name in enumerate(names):
        (tmp_path / name).mkdir()
        rows = [{"text": f"{name} {row}", "id": row} for row in range(3)]
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name / f"train-0000{number}-of-00007.parquet")
        (tmp_path / name / "dataset_infos.json").write_text("{}")
    entries = [
        {"name": name, "path": name, "weight": weight} for name, weight in zip(names, (4, 6, 1, 20, 4, 20, 6), strict=True)
    ]
    sources, ignored = find_sources(tmp_path, entries, licence="CC BY-NC-SA 4.0")
    assert [(source.name, source.weight, source.licence) for source in sources] == [
        (name, float(weight), "CC BY-NC-SA 4.0") for name, weight in zip(names, (4, 6, 1, 20, 4, 20, 6), strict=True)
    ]
    assert [item.text for source in sources for item in read_records(source)] == [
        f"{n} {row}" for n in names for row in range(3)
    ]
    assert ignored == ["dataset_infos.json"] * 7


def test_a_folder_or_link_named_like_data_is_reported(tmp_path):
    write(tmp_path / "a.jsonl", GOOD[:2])
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "link.jsonl").symlink_to("gone")
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / ".hidden.jsonl").write_text("x")
    sources, ignored = find_sources(str(tmp_path))
    assert [source.name for source in sources] == ["a", "link"]
    assert ignored == ["folder.csv (not a file)", "pipe.jsonl (not a file)"]
    (source,), ignored = find_sources(sources=[{"name": "all", "path": str(tmp_path)}])
    assert ignored == [".hidden.jsonl", "folder.csv (not a file)", "pipe.jsonl (not a file)"]
    items = list(read_records(source))
    assert [(item.file, getattr(item, "reason", "")) for item in items] == [
        ("a.jsonl", ""),
        ("a.jsonl", ""),
        ("link.jsonl", "unreadable_file"),
    ]
    assert [file_identity(path, {})[0] for path in source.files] == [len(GOOD[0]) * 2 + 2, "unreadable_file"]
    assert file_identity(tmp_path / "pipe.jsonl", {})[0] == "not_a_file"


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.JSONL.GZ", "jsonl"),
        ("a.ndjson", "jsonl"),
        ("a.json.zst", "json"),
        ("a.tsv.bz2", "tsv"),
        ("a.parquet", "parquet"),
        ("a.parquet.gz", None),
        ("a.warc.wet.gz", "warc"),
        ("a.htm", "html"),
        ("azwiki-20260801-pages-articles.xml.bz2", "wikipedia"),
        ("azwiki-20260801-pages-articles-multistream-index.txt.bz2", None),
        ("dataset_info.json", None),
        (".a.jsonl", None),
        ("a.gz", None),
        ("a.docx", None),
    ],
)
def test_a_name_says_its_format(tmp_path, name, kind):
    assert format_of(tmp_path / name) == kind
