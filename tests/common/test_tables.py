"""Tables: a bad quote costs only its own line, and memory stays bounded whatever a parquet file claims."""

import csv
import io
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.files import POINTER
from common.launch import ROOT
from common.tables import Lost, csv_rows, formula_free, read_batches, read_rows


def rows(text, delimiter=","):
    return [(row.line, row.cells, row.fault) for row in csv_rows(enumerate(text.encode().splitlines(True), 1), delimiter)][1:]


def test_an_unclosed_quote_costs_its_own_line():
    text = 'text,label\nbir,a\n"iki,b\nüç,a\n"dörd,b\n"beş, altı",a\n'
    faults = [(3, [], "not_csv"), (5, [], "not_csv")]
    assert rows(text) == [(2, ["bir", "a"], ""), faults[0], (4, ["üç", "a"], ""), faults[1], (6, ["beş, altı", "a"], "")]
    assert rows('a,b\nx,y\n"never,closed\nx,z\n')[1:] == [(3, [], "not_csv"), (4, ["x", "z"], "")]


@pytest.mark.parametrize("sign", [";", "\t", "|", ","])
@pytest.mark.parametrize("usual", [",", "\t"])
def test_the_header_says_what_parts_the_columns(sign, usual):
    table = [["mətn", "label"], ["salam; dünya, | hər\tkəs", "a"], ["son", "b"]]
    out = io.StringIO()
    csv.writer(out, delimiter=sign, lineterminator="\n").writerows(table)
    assert [cells for _, cells, _ in rows(out.getvalue(), usual)] == table[1:]
    assert [cells for _, cells, _ in rows(f"sep={sign}\n" + out.getvalue(), usual)] == table[1:]
    assert rows("text\nbir; iki\n", usual) == [(2, ["bir; iki"], "")]  # one column has no such sign


def test_a_lone_quote_in_a_tab_file_is_text_and_a_quoted_cell_is_unquoted():
    text = 'text\tlabel\n"Salam" dedi\ta\n"açıq qaldı\tb\nson"\ta\n"bir ""iki"""\tb\n'
    assert [cells for _, cells, _ in rows(text, "\t")] == [
        ['"Salam" dedi', "a"],
        ['"açıq qaldı', "b"],
        ['son"', "a"],
        ['bir "iki"', "b"],
    ]


@given(
    st.lists(st.tuples(*[st.text(st.sampled_from('aə",\n\r x'), max_size=6)] * 3), max_size=6), st.sampled_from(["\n", "\r\n"])
)
def test_what_the_library_writes_is_read_unchanged(table, end):
    out = io.StringIO()
    writer = csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL)
    writer.writerows([("a", "b", "c"), *table])
    assert [tuple(cells) for _, cells, fault in rows(out.getvalue()) if not fault] == table


BOMB = """
import resource, sys
from pathlib import Path
from common.tables import read_batches, strings_of_column
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for _, batch in read_batches(Path(sys.argv[1])):
    if not isinstance(batch, tuple):
        texts = strings_of_column(batch.column(0))
        assert len(texts[0]) == 20 << 20
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_small_file_does_not_fill_memory(tmp_path, dictionary):
    """80 rows of 20 MiB, 1.6 GiB unpacked, in some kilobytes: read within 400 MiB, or refused row group by row group."""
    path = tmp_path / "a.parquet"
    schema = pa.schema([("text", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=dictionary) as writer:
        value = pa.array(["a" * (20 << 20)])
        writer.write_table(pa.table({"text": pa.concat_arrays([value] * 20)}, schema=schema))
    assert path.stat().st_size < 100_000
    ran = subprocess.run([sys.executable, "-c", BOMB, str(path)], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(ran.stdout) < 400
    if not dictionary:
        ((row, lost),) = read_batches(path)
        assert row == 1 and isinstance(lost, Lost) and "unpacks from" in lost.detail


def arrow(path, table, codec="zstd", rows=None, stream=False):
    make = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(path), "wb") as file, make(file, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as out:
        out.write_table(table, max_chunksize=rows)
    return path


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("codec", ["zstd", "lz4", None])
def test_rows_of_an_arrow_file_are_what_arrow_gives(tmp_path, codec, stream):
    columns = {"t": ["a", None, "şəhər"] * 9000, "n": [1, None, 3] * 9000, "l": [["a"], [], None] * 9000}
    table = pa.table(columns | {"d": pa.array(["x", "y", None] * 9000).dictionary_encode()})
    for rows in (None, 7000):
        path = arrow(tmp_path / "a.arrow", table, codec, rows, stream)
        assert [row for _, row in read_rows(path)] == table.to_pylist()
        assert [number for number, _ in read_rows(path)] == list(range(1, 27_001))


@pytest.mark.parametrize("stream", [True, False])
def test_a_small_arrow_file_does_not_fill_memory(tmp_path, stream):
    """A batch of 1.6 GiB in some kilobytes between two of three rows: refused, and in a file the last one is read."""
    small = pa.table({"text": ["bir", "iki", "üç"]})
    big = pa.table({"text": pa.concat_arrays([pa.array(["a" * (20 << 20)])] * 80)})
    path = tmp_path / "a.arrow"
    make, options = pa.ipc.new_stream if stream else pa.ipc.new_file, pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.OSFile(str(path), "wb") as file, make(file, small.schema, options=options) as out:
        for table in (small, big, small):
            out.write_table(table)
    assert path.stat().st_size < 300_000
    before = pa.default_memory_pool().max_memory()
    found = list(read_batches(path))
    assert pa.default_memory_pool().max_memory() - before < 50 << 20
    lost = [(row, item.reason) for row, item in found if isinstance(item, Lost)]
    assert lost == [(4, "damaged_file" if stream else "damaged_rows")] and "unpacks from" in found[1][1].detail
    assert [row for row, item in found if not isinstance(item, Lost)] == ([1] if stream else [1, 84])


@pytest.mark.parametrize("claim", [1 << 40, 1 << 62, -2])
@pytest.mark.parametrize("stream", [True, False])
def test_a_claim_is_not_believed(tmp_path, claim, stream):
    texts = pa.table({"text": [f"{n} sətir" for n in range(3000)]})
    path = arrow(tmp_path / "a.arrow", texts, rows=None, stream=stream)
    content = path.read_bytes()
    size = len("".join(texts["text"].to_pylist()).encode())  # of the buffer with the text
    assert content.count(size.to_bytes(8, "little")) == 1
    path.write_bytes(content.replace(size.to_bytes(8, "little"), claim.to_bytes(8, "little", signed=True)))
    ((row, lost),) = read_batches(path)
    assert row == 1 and isinstance(lost, Lost)


@pytest.mark.parametrize("stream", [True, False])
def test_an_arrow_file_that_is_cut_anywhere_is_damaged_and_no_traceback(tmp_path, stream):
    path = arrow(tmp_path / "a.arrow", pa.table({"text": ["bir", "iki", "üç"] * 30}), rows=30, stream=stream)
    content = path.read_bytes()
    for cut in range(0, len(content), 37):
        path.write_bytes(content[:cut])
        assert [item for _, item in read_batches(path) if isinstance(item, Lost)], cut
        path.write_bytes(content[:cut] + b"\xff" * 16 + content[cut + 16 :])
        list(read_batches(path))


def test_rows_of_a_parquet_file_are_what_arrow_gives(tmp_path):
    table = pa.table(
        {
            "t": ["a", None, "şəhər", "a"] * 100,
            "d": pa.array(["x", "y", None, "x"] * 100).dictionary_encode(),
            "n": pa.array([1, 2, None, 4] * 100).dictionary_encode(),
            "l": [["a"], [], None, ["b", "c"]] * 100,
            "s": [{"text": ["a"], "start": [1]}] * 400,
        }
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=150)
    assert [row for _, row in read_rows(tmp_path / "a.parquet")] == table.to_pylist()
    assert [number for number, _ in read_rows(tmp_path / "a.parquet")] == list(range(1, 401))


def test_a_pointer_of_git_lfs_is_named(tmp_path):
    (tmp_path / "a.parquet").write_bytes(POINTER + b"v1\noid sha256:00\nsize 5\n")
    with pytest.raises(UserError, match=r"a\.parquet: a git-lfs pointer.*git lfs pull"):
        next(read_batches(tmp_path / "a.parquet"))


def test_cells_are_never_formulas_and_numbers_stay_numbers():
    row = ["=1+1", "+x", "-cmd", "@a", "\t=1", "", "a=1", "-0.5", "+1e-3", "-inf", -3, None]
    assert formula_free(row) == ["'=1+1", "'+x", "'-cmd", "'@a", "'\t=1", *row[5:]]
