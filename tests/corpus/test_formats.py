"""Every format against every fault: intact records are read, the others become rejects with their place, none is lost."""

import bz2
import csv
import gzip
import io
import itertools
import json
import os
import random
import socket
import subprocess
import sys
import tracemalloc
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.reading import formats
from corpus.reading.sources import ROOT, Record, Reject, read_file
from tests.corpus.limits import within

PACK = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, 1),
    ".zst": zstandard.compress,
    ".bz2": lambda data: bz2.compress(data, 1),
}
LINED = ("jsonl", "json", "csv", "tsv", "txt")
TEXTS = [f"Bu, {i} nömrəli sənəddir; içində ə, ğ və «dırnaq» var." for i in range(60)]
LATIN5 = "suç".encode("cp1254")


def read(path, **options):
    items = list(read_file(path, path.name, options))
    return [item for item in items if isinstance(item, Record)], [item for item in items if isinstance(item, Reject)]


def reasons(rejects):
    return [(reject.line, reject.reason) for reject in rejects]


def encode(kind, texts, bad=()):
    """Bytes of a file of one format; `bad` are raw records put in the middle."""
    if kind == "jsonl":
        rows = [json.dumps({"id": f"d{i}", "text": text}, ensure_ascii=False).encode() for i, text in enumerate(texts)]
        head, between, tail = b"", b"\n", b"\n"
    elif kind == "json":
        rows = [json.dumps({"id": f"d{i}", "text": text}, ensure_ascii=False).encode() for i, text in enumerate(texts)]
        head, between, tail = b"[\n", b",\n", b"\n]"
    elif kind in ("csv", "tsv"):
        rows = []
        for i, text in enumerate(texts):
            line = io.StringIO()
            csv.writer(line, delimiter="," if kind == "csv" else "\t", lineterminator="\n").writerow([f"d{i}", text])
            rows.append(line.getvalue().removesuffix("\n").encode())
        head, between, tail = (b"id,text\n" if kind == "csv" else b"id\ttext\n"), b"\n", b"\n"
    else:
        rows = [text.encode() for text in texts]
        head, between, tail = b"", b"\n", b"\n"
    middle = len(rows) // 2
    return head + between.join([*rows[:middle], *bad, *rows[middle:]]) + tail


@pytest.mark.parametrize("suffix", PACK)
@pytest.mark.parametrize("kind", LINED)
def test_every_format_in_every_compression(tmp_path, kind, suffix):
    path = tmp_path / f"a.{kind}{suffix}"
    path.write_bytes(PACK[suffix](encode(kind, TEXTS)))
    records, rejects = read(path)
    assert [record.text for record in records] == TEXTS
    assert rejects == []
    if kind != "txt":
        assert [record.id for record in records] == [f"d{i}" for i in range(60)]
    first = 2 if kind in ("csv", "tsv") else 1
    assert [record.line for record in records] == list(range(first, first + 60))


BAD_OBJECTS = {
    "truncated": (b'{"text": "yar}', "not_json"),
    "no text": (b'{"id": 1}', "no_text"),
    "null text": (b'{"text": null}', "no_text"),
    "blank text": (b'{"text": " \\n "}', "empty_text"),
    "number as text": (b'{"text": 12}', "text_not_a_string"),
    "list as text": (b'{"text": ["a"]}', "text_not_a_string"),
    "list": (b"[]", "not_an_object"),
    "string": (b'"abc"', "not_an_object"),
    "number": (b"12", "not_an_object"),
    "null": (b"null", "not_an_object"),
    "NaN": (b'{"text": NaN}', "text_not_a_string"),
    "invalid utf-8": (b'{"text": "' + LATIN5 + b'"}', "invalid_utf8"),
    "lone surrogate": (b'{"text": "\\ud800 tek"}', "lone_surrogate"),
    "deep nesting": (b"[" * 50_000 + b"]" * 50_000, "not_json"),
    "huge whole number": (b'{"n": ' + b"9" * 10_000 + b"}", "not_json"),
    "bare word": (b"salam", "not_json"),
}


@pytest.mark.parametrize("fault", BAD_OBJECTS)
@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_one_bad_object_costs_itself(tmp_path, kind, fault):
    raw, reason = BAD_OBJECTS[fault]
    if kind == "json" and fault == "truncated":
        raw = b'{"text" "yar"}'  # in a list an unclosed quote would swallow the rest
    path = tmp_path / f"a.{kind}"
    path.write_bytes(encode(kind, TEXTS, [raw]))
    records, rejects = read(path)
    assert [record.text for record in records] == TEXTS
    assert reasons(rejects) == [(31, reason)]
    assert len(rejects[0].raw) <= 200


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'x,"a quote that never closes', "not_csv"),
        (b'x,"closed" and then more', "not_csv"),
        (b"x,a,b", "wrong_columns"),
        (b"x", "wrong_columns"),
        (b"x,", "empty_text"),
        (b"x," + LATIN5, "invalid_utf8"),
        (b'x,"' + LATIN5 + b'"', "invalid_utf8"),
    ],
)
def test_one_bad_row_of_a_csv_costs_itself(tmp_path, raw, reason):
    (tmp_path / "a.csv").write_bytes(encode("csv", TEXTS, [raw]))
    records, rejects = read(tmp_path / "a.csv")
    assert [record.text for record in records] == TEXTS
    assert reasons(rejects) == [(32, reason)]


def test_a_csv_field_may_hold_lines_quotes_commas_and_a_chapter(tmp_path):
    chapter = 'Sətir, "dırnaq"\n\nikinci sətir\u2028üçüncü\n' * 20_000  # past the csv library's own 128 KiB
    (tmp_path / "a.csv").write_bytes(encode("csv", ["bir", chapter, "üç"]).replace(b"\n", b"\r\n"))
    records, rejects = read(tmp_path / "a.csv")
    assert [record.text for record in records] == ["bir", chapter, "üç"]
    assert [record.line for record in records] == [2, 3, 3 + 3 * 20_000 + 1]
    assert rejects == []


def test_a_tsv_without_quoting(tmp_path):
    (tmp_path / "a.tsv").write_bytes('id\tText\n1\t"Salam" dedi\n2\t"Açıq qaldı\n3\tson\n'.encode())
    records, rejects = read(tmp_path / "a.tsv")
    assert [record.text for record in records] == ['"Salam" dedi', '"Açıq qaldı', "son"]
    assert rejects == []


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_named_and_default_columns(tmp_path, kind):
    rows = [{"URL": "https://www.oxu.az/a", "headline": "Baş", "gövdə": "Mətn", "no": "7", "host": "x.az", "text": ""}]
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        path.write_text(",".join(rows[0]) + "\n" + ",".join(rows[0].values()) + "\n")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text(json.dumps({"url" if key == "URL" else key: value for key, value in rows[0].items()}) + "\n")
    (record,), _ = read(path, text="gövdə", id="no", columns={"section": "headline"})
    expected = {"url": "https://www.oxu.az/a", "title": "Baş", "site": "x.az", "section": "Baş"}
    assert (record.text, record.id, record.meta) == ("Mətn", "7", expected)
    (record,), _ = read(path, text="gövdə", site="headline")
    assert record.meta["site"] == "Baş"


def test_the_site_is_taken_from_the_address(tmp_path):
    addresses = ["https://www.azertag.az:80/x", "yox", "http://[bad", 5, None, "\\ud800"]
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "a", "url": {json.dumps(a)}}}\n' for a in addresses[:5]))
    records, _ = read(tmp_path / "a.jsonl")
    assert [record.meta.get("site") for record in records] == ["azertag.az", None, None, None, None]


def test_without_a_text_column_every_row_is_a_reject(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,title\n1,a\n2,b\n")
    pq.write_table(pa.table({"id": [1, 2], "title": ["a", "b"]}), tmp_path / "a.parquet")
    for name in ("a.csv", "a.parquet"):
        records, rejects = read(tmp_path / name)
        assert (records, [reject.reason for reject in rejects]) == ([], ["no_text"] * 2)
        assert "title" in rejects[0].raw or "1,a" in rejects[0].raw


@pytest.mark.parametrize("kind", LINED)
def test_byte_order_mark_crlf_nul_and_blank_lines(tmp_path, kind):
    data = encode(kind, ["bir", "i\tki" if kind == "txt" else "iki", "üç"])
    data = data.replace(b"bir", b"b\0ir" if kind not in ("json", "jsonl") else b"b\\u0000ir").replace(b"\n", b"\r\n")
    (tmp_path / f"a.{kind}").write_bytes(b"\xef\xbb\xbf" + (b"\r\n" if kind != "txt" else b"") + data + b"\r\n\r\n")
    records, rejects = read(tmp_path / f"a.{kind}")
    assert [record.text.replace("\t", "") for record in records] == ["b\0ir", "iki", "üç"]
    assert rejects == []


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.txt"])
def test_an_empty_file_gives_no_record(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert read(tmp_path / name) == ([], [])


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv.zst", "a.txt.bz2", "a.parquet", "a.arrow"])
def test_an_empty_file_of_a_packed_format_is_damaged(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    assert reasons(read(tmp_path / name)[1]) == [(1, "damaged_file")]


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
@pytest.mark.parametrize("kind", LINED)
def test_a_truncated_packed_file_gives_its_whole_records_and_one_reject(tmp_path, kind, suffix):
    noise = random.Random(1)
    texts = ["".join(noise.choices("abcçdeəfgğhx ıijkq", k=2500)) for _ in range(100)]  # bz2 packs 100 kB at once
    whole = PACK[suffix](encode(kind, texts))
    path = tmp_path / f"a.{kind}{suffix}"
    for share in (0.7, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        records, rejects = read(path)
        assert 25 < len(records) < 100
        assert [record.text for record in records] == texts[: len(records)]
        assert [reject.reason for reject in rejects] == ["damaged_file"]
        assert "read up to " in rejects[0].raw


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
def test_a_flipped_bit_in_a_packed_file_is_never_silent(tmp_path, suffix):
    # zstd only has a check sum where the writer asked for one, as the zstd command does.
    pack = zstandard.ZstdCompressor(write_checksum=True).compress if suffix == ".zst" else PACK[suffix]
    whole = pack(encode("jsonl", TEXTS))
    path = tmp_path / f"a.jsonl{suffix}"
    for place in range(20, len(whole) - 8, max(1, len(whole) // 40)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        records, rejects = read(path)
        same = [record.text for record in records] == TEXTS and not rejects  # a bit in an unused part of bz2's tables
        assert same or "damaged_file" in {reject.reason for reject in rejects}, place


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".bz2"])
def test_concatenated_members_and_trailing_bytes(tmp_path, suffix):
    path = tmp_path / f"a.jsonl{suffix}"
    halves = PACK[suffix](encode("jsonl", TEXTS[:30])) + PACK[suffix](encode("jsonl", TEXTS[30:]))
    path.write_bytes(halves)
    assert [record.text for record in read(path)[0]] == TEXTS
    path.write_bytes(halves + b"no member")
    records, rejects = read(path)
    assert ([record.text for record in records], reasons(rejects)) == (TEXTS, [(61, "damaged_file")])
    path.write_bytes(encode("jsonl", TEXTS))  # not packed at all
    records, rejects = read(path)
    assert (records, reasons(rejects)) == ([], [(1, "damaged_file")])


@pytest.mark.parametrize("cut", [b"\n]", b'"}\n]', b"]"])
def test_a_json_list_that_ends_early(tmp_path, cut):
    (tmp_path / "a.json").write_bytes(encode("json", TEXTS).removesuffix(cut))
    records, rejects = read(tmp_path / "a.json")
    assert len(records) == (59 if b"}" in cut else 60)
    assert [reject.reason for reject in rejects] == ["damaged_file"]


def test_a_json_file_that_is_not_a_list(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{\n "text": "bir [", "x": {"y": [1, 2]}\n}\n{"text": "iki",\n "z": "}"}')
    assert [(record.line, record.text) for record in read(path)[0]] == [(1, "bir ["), (2, "iki")]
    path.write_bytes(encode("jsonl", TEXTS, [b'{"text": "yar']))  # one object a line under the wrong name
    assert (len(read(path)[0]), reasons(read(path)[1])) == (60, [(31, "not_json")])
    for raw, expected in (
        ("[]", []),
        (" \n", []),
        ("12", [(1, "not_an_object")]),
        ("[1, [2], {}]", [(1, "not_an_object"), (2, "not_an_object"), (3, "no_text")]),
    ):
        path.write_text(raw)
        assert reasons(read(path)[1]) == expected, raw


# Lines of 100 MB: the limit is lowered so that the test is quick; the same code runs at 32 MiB.
@pytest.mark.parametrize("suffix", ["", ".zst"])
@pytest.mark.parametrize("kind", LINED)
def test_a_record_past_the_limit_is_set_aside_and_not_held(tmp_path, monkeypatch, kind, suffix):
    monkeypatch.setattr(formats, "MAX_RECORD", 100_000)
    monkeypatch.setattr("corpus.reading.tables.MAX_RECORD", 100_000)
    texts = ["bir", random.Random(1).randbytes(2_500_000).hex(), "üç"]
    (tmp_path / f"a.{kind}{suffix}").write_bytes(PACK[suffix](encode(kind, texts)))
    tracemalloc.start()
    records, rejects = read(tmp_path / f"a.{kind}{suffix}")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [record.text for record in records] == ["bir", "üç"]
    assert reasons(rejects) == [(3 if kind in ("csv", "tsv") else 2, "too_long")]
    assert peak < 4_000_000  # pieces of 1 MiB, not the record of 5 MB


def write_parquet(path, table, **more):
    pq.write_table(table, path, row_group_size=20, compression="zstd", write_page_checksum=True, **more)


def test_parquet_rows_one_by_one(tmp_path):
    texts = pa.array([b"bir", b"s\xfc\xe7", None, b"", b"be\xc5\x9f", b"a\0b"], pa.binary()).view(pa.string())
    dates = pa.array([1, 2, 3, 4, 5, None], pa.timestamp("s"))
    table = pa.table({"text": texts, "id": [1, 2, 3, 4, 5, 6], "date": dates, "url": ["http://x.az/"] * 6, "list": [[1]] * 6})
    write_parquet(tmp_path / "a.parquet", table)
    records, rejects = read(tmp_path / "a.parquet", columns={"kind": "list"})
    assert [(record.line, record.id, record.text) for record in records] == [(1, "1", "bir"), (5, "5", "beş"), (6, "6", "a\0b")]
    assert reasons(rejects) == [(2, "invalid_utf8"), (3, "no_text"), (4, "empty_text")]
    assert records[0].meta == {"url": "http://x.az/", "site": "x.az", "date": "1970-01-01 00:00:01.000"}
    write_parquet(tmp_path / "b.parquet", pa.table({"text": [1, None, 3]}))
    assert reasons(read(tmp_path / "b.parquet")[1]) == [(1, "text_not_a_string"), (2, "no_text"), (3, "text_not_a_string")]


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_parquet_and_arrow_by_kind_of_string(tmp_path, kind):
    target = pa.dictionary(pa.int32(), pa.string()) if kind == "dictionary" else getattr(pa, kind)()
    table = pa.table({"text": pa.array(TEXTS).cast(target) if kind != "dictionary" else pa.array(TEXTS).dictionary_encode()})
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    with pa.ipc.new_file(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    write_parquet(tmp_path / "c.parquet", table)
    for name in ("a.arrow", "b.arrow", "c.parquet"):
        records, rejects = read(tmp_path / name)
        assert ([record.text for record in records], rejects) == (TEXTS, [])
        assert [record.line for record in records] == list(range(1, 61))


def test_a_damaged_row_group_costs_itself(tmp_path):
    path = tmp_path / "a.parquet"
    write_parquet(path, pa.table({"text": TEXTS}), use_dictionary=False)
    place = pq.ParquetFile(path).metadata.row_group(1).column(0).data_page_offset
    whole = path.read_bytes()
    for offset in (5, 200, 300):  # in the page's head and in its data
        path.write_bytes(whole[: place + offset] + bytes([whole[place + offset] ^ 255]) + whole[place + offset + 1 :])
        records, rejects = read(path)
        assert [record.line for record in records] == [*range(1, 21), *range(41, 61)]
        assert reasons(rejects) == [(21, "damaged_rows")]
        assert "rows 21 to 40" in rejects[0].raw


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow", "b.arrow"])
def test_bits_flipped_anywhere_in_a_table_never_crash_or_lose_a_row(tmp_path, name):
    path, table, noise = tmp_path / name, pa.table({"text": TEXTS, "url": ["http://x.az"] * 60}), random.Random(3)
    if name == "a.parquet":
        write_parquet(path, table)
    elif name == "a.arrow":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
    else:
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
    whole = path.read_bytes()
    for _ in range(80):
        place = noise.randrange(len(whole))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << noise.randrange(8))]) + whole[place + 1 :])
        records, rejects = read(path)
        assert len(records) == 60 or rejects, place
    for share in (0.2, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(len(whole) * share)])
        records, rejects = read(path)
        assert len(records) <= 60
        assert [reject.reason for reject in rejects] == ["damaged_file"]


def test_a_special_file_is_a_reject_and_never_blocks(tmp_path):
    os.mkfifo(tmp_path / "pipe.jsonl")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "gone")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.jsonl"))
    found = {name: reasons(read(tmp_path / name)[1]) for name in ("pipe.jsonl", "folder.jsonl", "link.jsonl", "s.jsonl")}
    assert found["link.jsonl"] == [(1, "unreadable_file")]
    assert found["pipe.jsonl"] == found["folder.jsonl"] == found["s.jsonl"] == [(1, "not_a_file")]


def test_a_file_without_permission_is_a_reject(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(encode("jsonl", TEXTS))
    (tmp_path / "a.jsonl").chmod(0)
    was = os.geteuid()
    if was == 0:  # root may read every file
        os.seteuid(65534)
    try:
        _, rejects = read(tmp_path / "a.jsonl")
    finally:
        os.seteuid(was)
    assert reasons(rejects) == [(1, "unreadable_file")]
    assert "ermission" in rejects[0].raw


SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUE = st.recursive(
    SCALAR,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
ITEM = st.text(max_size=20).map(lambda text: {"text": text}) | VALUE


@settings(max_examples=40, deadline=None)
@given(st.lists(ITEM, max_size=12), st.booleans(), st.sampled_from([None, 1, 7]))
def test_every_value_of_a_list_is_a_record_or_a_reject(tmp_path_factory, items, ascii_only, indent):
    path = tmp_path_factory.mktemp("list") / "a.json"
    path.write_bytes(json.dumps(items, ensure_ascii=ascii_only, indent=indent).encode("utf-8", errors="surrogatepass"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "PIECE", 5)  # every value is cut in many places
        records, rejects = read(path)
    good = [
        item["text"] for item in items if isinstance(item, dict) and isinstance(item.get("text"), str) and item["text"].strip()
    ]
    assert len(records) + len(rejects) == len(items)
    assert [record.text for record in records] == good


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"), max_size=12), max_size=12))
def test_every_row_of_a_csv_is_a_record_or_a_reject(tmp_path_factory, texts):
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    path.write_bytes(encode("csv", texts))
    records, rejects = read(path)
    assert [record.text for record in records] == [text for text in texts if text.strip()]
    assert [reject.reason for reject in rejects] == ["empty_text" for text in texts if not text.strip()]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.binary(max_size=30).filter(lambda line: line.strip() and b"\n" not in line), max_size=20))
def test_any_bytes_are_records_or_rejects(tmp_path_factory, raw_lines):
    folder = tmp_path_factory.mktemp("bytes")
    for kind in ("jsonl", "txt"):
        (folder / f"a.{kind}").write_bytes(b"\n".join(raw_lines))
        items = list(read_file(folder / f"a.{kind}", "a", {}))
        blank = sum(not line.removeprefix(b"\xef\xbb\xbf" if i == 0 else b"").strip() for i, line in enumerate(raw_lines))
        assert len(items) == len(raw_lines) - blank
    for kind in ("json", "csv", "tsv", "parquet", "arrow", "jsonl.gz", "txt.zst", "json.bz2", "xml"):
        (folder / f"a.{kind}").write_bytes(b"\n".join(raw_lines))
        assert all(isinstance(item, Record | Reject) for item in read_file(folder / f"a.{kind}", "a", {}))


@pytest.mark.parametrize(("package", "name"), [("pyarrow", "a.parquet"), ("zstandard", "a.jsonl.zst")])
def test_a_missing_package_is_named(tmp_path, package, name):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("raise ImportError('blocked')")
    (tmp_path / name).write_bytes(b"x")
    where = str(tmp_path / name)
    code = f"import pathlib; from corpus.reading.sources import read_file; list(read_file(pathlib.Path({where!r}), 'a', {{}}))"
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert f"need {package}. pip install -r requirements.txt" in result.stderr
    assert "UserError" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["jsonl.gz", "json", "csv", "txt.zst", "parquet", "arrow"])
def test_memory_does_not_grow_with_the_file(tmp_path, kind):
    def peak(copies):
        path = tmp_path / f"{copies}.{kind}"
        texts = [f"{i} " + "Azərbaycan dilində uzun bir mətn. " * 60 for i in range(1000)]
        if kind in ("parquet", "arrow"):
            schema = pa.schema([("text", pa.string())])
            batch = pa.record_batch({"text": texts})
            make = pq.ParquetWriter if kind == "parquet" else pa.ipc.new_stream
            with make(str(path), schema) as writer:
                for _ in range(copies):
                    writer.write_batch(batch)
        else:
            whole = encode(kind.split(".")[0], texts * copies)
            path.write_bytes(PACK["." + kind.split(".")[1]](whole) if "." in kind else whole)
        code = (  # VmHWM: the most memory of this very process; ru_maxrss would count the one it was forked from
            "from pathlib import Path; from corpus.reading.sources import read_file\n"
            f"print(sum(1 for _ in read_file(Path({str(path)!r}), 'a', {{}})))\n"
            "print(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
        )
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
        count, memory = map(int, result.stdout.split())
        assert count == 1000 * copies
        return memory

    small, large = peak(5), peak(60)  # 10 MB and 130 MB of text
    print(kind, small, large)
    assert large < small + 12_000  # KiB


@pytest.mark.parametrize(
    ("kind", "ending", "limit"), [("jsonl", "zst", 200), ("json", "gz", 110), ("txt", "bz2", 110), ("csv", "zst", 200)]
)
def test_a_decompression_bomb_costs_one_record_and_little_memory(tmp_path, kind, ending, limit):
    """A few kB that hold one record of more than `limit` MiB: a reject with its place, within so much address space more."""
    opening, closing = {
        "jsonl": (b'{"text": "', b'"}\n{"text": "son"}\n'),
        "json": (b'[\n{"text": "', b'"},\n{"text": "son"}]'),
        "txt": (b"", b"\n\nson\n"),
        "csv": (b"text\n", b"\nson\n"),
    }[kind]
    path = tmp_path / f"bomb.{kind}.{ending}"
    whole = itertools.chain([opening], itertools.repeat(b"a" * (1 << 24), 14 if limit > 110 else 8), [closing])
    if ending == "zst":
        packer = zstandard.ZstdCompressor(level=3).compressobj()
    else:
        packer = bz2.BZ2Compressor() if ending == "bz2" else zlib.compressobj(9, wbits=31)
    path.write_bytes(b"".join([*(packer.compress(piece) for piece in whole), packer.flush()]))
    result = within(
        limit << 20,
        f"""
        from corpus.reading.sources import read_file
        for item in read_file(Path({str(path)!r}), "a", {{}}):
            print(getattr(item, "text", None) or item.reason)
    """,
        imports="import corpus.reading.sources, zstandard",
    )
    assert result == ["too_long", "son"]


def test_a_small_file_gets_no_window_of_two_gigabytes(tmp_path):
    parameters = zstandard.ZstdCompressionParameters(window_log=31, compression_level=3)
    packer = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    (tmp_path / "a.jsonl.zst").write_bytes(packer.compress(b'{"text": "a"}\n') + packer.flush())
    records, rejects = read(tmp_path / "a.jsonl.zst")
    assert (records, reasons(rejects)) == ([], [(1, "damaged_file")]) and "memory" in rejects[0].raw


@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.txt.gz", "a.parquet", "a.xml", "a.html"])
def test_a_git_lfs_pointer_is_not_text(tmp_path, name):
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:6a\nsize 1234567\n")
    ((reject,)) = list(read_file(tmp_path / name, name, {}))
    assert reject.reason == "git_lfs_pointer" and "git lfs pull" in reject.raw
