import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import write_jsonl
from corpus.matching.hash_partitions import partitioned
from corpus.matching.signatures import band_keys
from corpus.stages.annotate import ROW
from corpus.stages.decide import common_lines
from corpus.stages.parts import StagedFile, save_array
from corpus.stages.resolve import find_duplicates, split
from tests.azerbaijani import build_corpus
from tests.corpus.test_build import sentences, snapshot

KEYS = st.lists(st.integers(0, 2**64 - 1) | st.sampled_from([5, 2**63]), max_size=9)


@given(st.lists(KEYS, max_size=9), st.integers(1, 9))
def test_partitions_hold_every_record_once_by_ranges_of_the_key(lists, at_once):
    records = [(key, number) for number, key in enumerate(key for keys in lists for key in keys)]
    ends = np.cumsum([0, *map(len, lists)]).tolist()
    pieces = [np.array(records[begin:end], dtype=np.uint64).reshape(-1, 2) for begin, end in pairwise(ends)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("corpus.matching.hash_partitions.AT_ONCE", at_once)
        partitions = [partition.tolist() for partition in partitioned(iter(pieces), len(records), None)]
    # Sorting each partition by key with a stable sort gives the order of the whole.
    found = [tuple(record) for partition in partitions for record in sorted(partition, key=lambda record: record[0])]
    assert found == sorted(records)


def test_the_bytes_do_not_depend_on_what_fits_in_memory(tmp_path, monkeypatch):
    """Sites, common lines, near and exact duplicates, repeated ids: in one pass, and in chunks of a few records."""
    base = list(sentences(60, 1))
    texts = [*base, *(text.replace("və", "ilə", 1) for text in base[:20]), *base[30:40], *(text.upper() for text in base[50:])]
    records = [
        {
            "id": f"no{number % 70}",
            "text": f"{text}\nAna səhifə | Xəbərlər | Əlaqə | Haqqımızda",
            "url": f"https://site{number % 12}.az/{number}",
        }
        for number, text in enumerate(texts)
    ]
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "web.jsonl", records)
    write_jsonl(tmp_path / "in" / "zz.jsonl", [{"text": text} for text in [*base[5:15], *sentences(50, 2)]])
    settings = {"path": str(tmp_path / "in"), "line_duplicates": 5, "heldout_fraction": 0.2}
    report = build_corpus(settings, tmp_path / "whole")
    assert min(report["total"]["removed"][name] for name in ("near_duplicate", "exact_duplicate")) >= 20
    assert report["total"]["lines_dropped"] and report["sources"]["web"]["heldout_by"] == "site"
    for name, value in {
        "matching.hash_partitions.AT_ONCE": 7,
        "stages.parts.BLOCK": 5,
        "matching.duplicates.CHUNK": 3,
        "stages.annotate.PART_DOCUMENTS": 11,
    }.items():
        monkeypatch.setattr(f"corpus.{name}", value)
    build_corpus(settings, tmp_path / "pieces")
    assert snapshot(tmp_path / "pieces") == snapshot(tmp_path / "whole")


def make_tables(folder, parts, size):
    """Tables of `parts` parts as the first stages write them, with some near copies; their `files`."""
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
    return [StagedFile(0, "all", str(folder), [size] * parts, 0, decided=str(folder / "decided"))]


def peaks_of(folder, parts, size):
    """The peak memory in bytes of each stage that reads the whole corpus, over tables of `parts` parts."""
    files = make_tables(folder, parts, size)
    settings = {"near_duplicates": 0.7, "min_characters": 10, "heldout_fraction": 0.01, "heldout_max": 100}
    task = {
        "files": files,
        "settings": settings,
        "digest": "",
        "hits": [None],
        "sources": 1,
        "decision": str(folder / "decisions" / "decision.npy"),
    }
    stages = {
        "lines": lambda: common_lines(files, np.ones(parts * size, bool), 5, folder),
        "duplicates": lambda: find_duplicates(task | {"folder": str(folder / "decisions")}),
        "split": lambda: split(task | {"folder": str(folder / "halves")}),
    }
    peaks = {}
    for stage, run in stages.items():
        tracemalloc.start()
        run()
        peaks[stage] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert (np.load(folder / "decisions" / "decision.npy")["reason"] > 0).sum() == size // 16 * parts
    assert np.load(folder / "halves" / "heldout.npy").sum() == 100
    return peaks


def test_memory_is_a_few_bytes_a_document(tmp_path, monkeypatch):
    """Of the stages that read the whole corpus. Holding its digests, keys or lines at once would take hundreds."""
    size = 1 << 12
    monkeypatch.setattr("corpus.matching.hash_partitions.AT_ONCE", size)
    monkeypatch.setattr("corpus.stages.parts.BLOCK", size)
    monkeypatch.setattr("corpus.matching.duplicates.CHUNK", size // 16)
    few, many = peaks_of(tmp_path / "few", 6, size), peaks_of(tmp_path / "many", 18, size)
    each = {stage: (many[stage] - few[stage]) / (12 * size) for stage in few}
    assert each["duplicates"] < 40 and each["lines"] < 8 and each["split"] < 8, each
