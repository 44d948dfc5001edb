import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import write_jsonl
from corpus.annotate import ROW
from corpus.buckets import in_buckets
from corpus.build import build_corpus
from corpus.decide import common_lines
from corpus.parts import save_array
from corpus.resolve import find_duplicates, split
from corpus.signatures import band_keys
from tests.corpus.test_build import sentences, snapshot

KEYS = st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([5, 2**63]), max_size=9)


@given(st.lists(KEYS, max_size=9), st.integers(1, 9))
def test_buckets_hold_every_record_once_by_ranges_of_the_key(lists, at_once):
    records = [(key, number) for number, key in enumerate(key for keys in lists for key in keys)]
    ends = np.cumsum([0, *map(len, lists)]).tolist()
    pieces = [np.array(records[begin:end], dtype=np.uint64).reshape(-1, 2) for begin, end in pairwise(ends)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("corpus.buckets.AT_ONCE", at_once)
        buckets = [bucket.tolist() for bucket in in_buckets(iter(pieces), len(records), None)]
    # Of each bucket sorted by key, with equal keys left in their order, nothing is out of place in the whole.
    found = [tuple(record) for bucket in buckets for record in sorted(bucket, key=lambda record: record[0])]
    assert found == sorted(records)


def test_the_bytes_do_not_depend_on_what_fits_in_memory(tmp_path, monkeypatch):
    """Sites, menus, near and exact duplicates, ids given twice: in one piece, and in pieces of a few records."""
    base = list(sentences(60, 1))
    texts = [*base, *(text.replace("və", "ilə", 1) for text in base[:20]), *base[30:40], *(text.upper() for text in base[50:])]
    records = [{"id": f"no{number % 70}", "text": f"{text}\nAna səhifə | Xəbərlər | Əlaqə | Haqqımızda",
                "url": f"https://site{number % 12}.az/{number}"} for number, text in enumerate(texts)]  # fmt: skip
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "web.jsonl", records)
    write_jsonl(tmp_path / "in" / "zz.jsonl", [{"text": text} for text in [*base[5:15], *sentences(50, 2)]])
    settings = {"path": str(tmp_path / "in"), "line_duplicates": 5, "heldout_fraction": 0.2}
    report = build_corpus(settings, tmp_path / "whole")
    assert min(report["total"]["removed"][name] for name in ("near_duplicate", "exact_duplicate")) >= 20
    assert report["total"]["lines_dropped"] and report["sources"]["web"]["heldout_by"] == "site"
    for name, value in {"buckets.AT_ONCE": 7, "parts.BLOCK": 5, "duplicates.CHUNK": 3, "annotate.PART_DOCUMENTS": 11}.items():
        monkeypatch.setattr(f"corpus.{name}", value)
    build_corpus(settings, tmp_path / "pieces")
    assert snapshot(tmp_path / "pieces") == snapshot(tmp_path / "whole")


def make_tables(folder, parts, size):
    """Tables of `parts` parts as the first stages leave them, some of the documents near copies; their `files`."""
    chance = np.random.default_rng(parts)
    (folder / "decided").mkdir(parents=True)
    for number in range(parts):
        signatures = chance.integers(0, 2**32, (size, 112), dtype=np.uint32)
        signatures[1::16] = signatures[::16]
        signatures[1::16, :9] = 7
        rows = np.zeros(size, ROW)
        for name in ("digest0", "digest1", "id"):
            rows[name] = chance.integers(1, 2**64, size, dtype=np.uint64)
        rows["site"] = rows["id"] % np.uint64(97)
        rows["characters"], rows["signed"] = 500, True
        keys = chance.integers(0, 2**64, 3 * size, dtype=np.uint64)
        np.savez(folder / f"{number:05d}.npz", rows=rows, line_keys=keys, line_counts=np.full(size, 3, np.int32))
        save_array(folder / f"{number:05d}.signatures.npy", signatures)
        save_array(folder / f"{number:05d}.bands.npy", band_keys(signatures))
        save_array(folder / "decided" / f"{number:05d}.npy", np.zeros(size, np.uint8))
    return [{"source": 0, "label": "all", "annotated": str(folder), "decided": str(folder / "decided"), "mended": None,
             "parts": [size] * parts, "start": 0, "reasons": []}]  # fmt: skip


def peaks_of(folder, parts, size):
    """The most memory in bytes of each stage that sees the whole corpus, over tables of `parts` parts."""
    files = make_tables(folder, parts, size)
    task = {"files": files, "near_duplicates": 0.7, "min_characters": 10, "digest": "", "hits": [None], "sources": 1,
            "fraction": 0.01, "most": 100, "fate": str(folder / "fates" / "fate.npy")}  # fmt: skip
    stages = {
        "lines": lambda: common_lines(files, np.ones(parts * size, bool), 5, folder),
        "duplicates": lambda: find_duplicates(task | {"folder": str(folder / "fates")}),
        "split": lambda: split(task | {"folder": str(folder / "halves")}),
    }
    peaks = {}
    for stage, run in stages.items():
        tracemalloc.start()
        run()
        peaks[stage] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (np.load(folder / "fates" / "fate.npy")["reason"] > 0).sum() == size // 16 * parts
    assert np.load(folder / "halves" / "heldout.npy").sum() == 100
    return peaks


def test_memory_is_a_few_bytes_a_document(tmp_path, monkeypatch):
    """Of the stages that see the whole corpus. Whoever holds its digests, keys or lines at once needs hundreds."""
    size = 1 << 12
    monkeypatch.setattr("corpus.buckets.AT_ONCE", size)
    monkeypatch.setattr("corpus.parts.BLOCK", size)
    monkeypatch.setattr("corpus.duplicates.CHUNK", size // 16)
    few, many = peaks_of(tmp_path / "few", 6, size), peaks_of(tmp_path / "many", 18, size)
    each = {stage: (many[stage] - few[stage]) / (12 * size) for stage in few}
    assert each["duplicates"] < 40 and each["lines"] < 8 and each["split"] < 8, each
