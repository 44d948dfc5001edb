"""Data sets of the hub, against a local server that implements the part of its protocol that a download uses."""

import errno
import gzip
import os
import pickle
import socket
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from common.hub import explain
from corpus.reading.hub_files import choose, hub_files, parse
from corpus.reading.sources import ROOT, file_identity, find_sources, read_file, read_records
from tests.corpus.hub_server import SHA, TOKEN, serving

pytest.importorskip("huggingface_hub")


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with serving(tmp_path, monkeypatch) as server:
        yield server


def parquet(texts):
    out = pa.BufferOutputStream()
    pq.write_table(pa.table({"text": texts, "url": ["https://x.az/"] * len(texts)}), out)
    return out.getvalue().to_pybytes()


FINEWEB = {
    "README.md": b"x",
    ".gitattributes": b"x",
    "data/azj_Latn/test/000_00000.parquet": parquet(["sınaq"]),
    "data/azj_Latn/train/000_00000.parquet": parquet(["bir", "iki"]),
    "data/azj_Latn/train/000_00001.parquet": parquet(["üç"]),
    "data/azj_Latn_removed/train/000_00000.parquet": parquet(["atılan"]),
    "data/tur_Latn/train/000_00000.parquet": parquet(["türk"]),
}


def texts(path, **more):
    (source,), _ = find_sources(sources=[{"name": "s", "path": path, **more}])
    return [getattr(item, "text", item) for item in read_records(source)]


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("hub://HuggingFaceFW/fineweb-2/azj_Latn", ["bir", "iki", "üç"]),
        ("hub://HuggingFaceFW/fineweb-2/azj_Latn@v2", ["bir", "iki", "üç"]),
        ("hub://HuggingFaceFW/fineweb-2/data/*/test/*.parquet@main", ["sınaq"]),
        ("hub://HuggingFaceFW/fineweb-2/data/azj_Latn/train/000_00001.parquet", ["üç"]),
        ("hub://HuggingFaceFW/fineweb-2", ["sınaq", "bir", "iki", "üç", "atılan", "türk"]),
    ],
)
def test_a_config_a_glob_a_file_or_the_whole_set(hub, address, expected):
    hub.sets["HuggingFaceFW/fineweb-2"] = FINEWEB
    assert texts(address) == expected
    before = len(hub.asked)
    assert texts(address) == expected
    # Nothing is downloaded twice.
    assert all("/resolve/" not in path or method == "HEAD" for method, path, _ in hub.asked[before:])


def test_the_card_says_what_a_config_is(hub):
    hub.sets["o/d"] = {"a/x.jsonl": b'{"text": "bir"}\n', "b/y.jsonl.gz": gzip.compress(b'{"text": "iki"}\n'), "b/z.jsonl": b""}
    files = [{"split": "train", "path": ["b/y*"]}, {"split": "test", "path": "a/*"}]
    hub.cards["o/d"] = {"configs": [{"config_name": "default", "data_files": files}]}
    assert texts("hub://o/d/default") == ["iki"]


def test_files_are_chosen_for_every_form_of_card():
    held = ["README.md", "az/az_part_00000.parquet", "az/az_part_00001.parquet", "tr/tr_part_00000.parquet"]
    assert choose(held, "az", []) == held[1:3]
    for data_files in ("az/*", ["az/*"], [{"path": "az/*"}], [{"split": "all", "path": ["az/*"]}], {"path": "az/*"}):
        assert choose(held, "c", [{"config_name": "c", "data_files": data_files}]) == held[1:3]
    assert choose(held, "de", []) == []


def test_a_streamed_data_set_has_one_file_on_disk_at_a_time(hub, tmp_path):
    hub.sets["HuggingFaceFW/fineweb-2"] = FINEWEB
    entry = {"name": "s", "path": "hub://HuggingFaceFW/fineweb-2/azj_Latn", "stream": True}
    (source,), _ = find_sources(sources=[entry])
    assert not (tmp_path / "cache").exists() and not any("/resolve/" in path for _, path, _ in hub.asked)
    assert [file_identity(path, source.options)[0] for path in source.files] == [SHA, SHA]
    seen = []
    for words in zip(source.files, source.labels, [source.options] * 2, strict=True):
        path, label, options = pickle.loads(pickle.dumps(words))
        for record in read_file(path, label, options):
            seen.append((record.file, record.line, record.text, record.meta["site"]))
            assert len(list((tmp_path / "cache").rglob("*.parquet"))) == 1
    first, second = (f"data/azj_Latn/train/000_0000{i}.parquet" for i in range(2))
    assert seen == [(first, 1, "bir", "x.az"), (first, 2, "iki", "x.az"), (second, 1, "üç", "x.az")]
    assert not list((tmp_path / "cache").rglob("*.parquet"))
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*") if file.is_file()) < 1000


def test_an_interrupted_download_is_resumed(hub):
    body = b"".join(b'{"text": "%d %s"}\n' % (i, b"a" * 9_980) for i in range(2_400))  # the library writes 10 MB at once
    hub.sets["o/d"] = {"a.jsonl": body}
    hub.breaks = 1
    assert len(texts("hub://o/d")) == 2_400
    spans = [span for method, path, span in hub.asked if method == "GET" and span and "resolve" in path]
    ranges = [int(span.split("=")[1].split("-")[0]) for span in spans]
    assert ranges and min(ranges) >= 10_000_000  # resumed, not restarted


@pytest.mark.parametrize(
    ("address", "token", "says"),
    [
        ("hub://o/gone", None, "no such data set"),
        ("hub://o/d/az@v9", None, "no such revision"),
        ("hub://o/d/tr", None, r"no data file matches tr. The data set has az"),
        ("hub://gated/d/az", None, r"access is refused.*Accept the terms at http.*/datasets/gated/d and set HF_TOKEN"),
        ("hub://gated/d/az", "hf_other", "access is refused"),
        ("hub://broken/d", None, "the hub answered 503"),
        ("hub://o", None, "Write hub://owner/name"),
        ("hub://o/d@", None, "Write hub://owner/name"),
        ("hub://o/a--b..c/", None, "not an address"),
    ],
)
def test_errors_are_named_with_their_remedy(hub, monkeypatch, address, token, says):
    hub.sets |= {"o/d": {"az/a.jsonl": b""}, "gated/d": {"az/a.jsonl": b""}}
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=says):
        hub_files(address, None)


def test_a_token_opens_a_gated_data_set(hub, monkeypatch):
    hub.sets["gated/d"] = {"az/a.jsonl": b'{"text": "bir"}\n'}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert texts("hub://gated/d/az") == ["bir"]


def test_no_network(monkeypatch, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refuses
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(UserError, match=r"cannot be reached at http://127.0.0.1.*Check the network and HF_ENDPOINT"):
            hub_files("hub://o/d", None)


def test_a_full_disk_is_named():
    with pytest.raises(UserError, match=r"disk is full\. Make room or set HF_HOME"):
        explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "hub://o/d", "data set")


def test_a_cache_that_cannot_be_written(hub, tmp_path, monkeypatch):
    hub.sets["o/d"] = {"a.jsonl": b'{"text": "bir"}\n'}
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(UserError, match=r"cache cannot be written.*Set HF_HOME"):
        hub_files("hub://o/d", None)


def test_addresses():
    assert parse("hub://o/d") == ("o/d", "", "main")
    assert parse("hub://o/d/a/*.parquet@refs/convert/parquet") == ("o/d", "a/*.parquet", "refs/convert/parquet")


def test_a_missing_package_is_named(tmp_path):
    (tmp_path / "huggingface_hub").mkdir()
    (tmp_path / "huggingface_hub" / "__init__.py").write_text("raise ImportError('blocked')")
    code = "from corpus.reading.sources import find_sources; find_sources('hub://o/d')"
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert "hub:// needs huggingface_hub. pip install -r requirements-extra.txt" in result.stderr
