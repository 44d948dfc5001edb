"""Data sets of the hub, against a local server that speaks the part of its protocol that a download uses."""

import errno
import gzip
import hashlib
import json
import os
import pickle
import re
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from common.hub import explain
from corpus.hub import SHAPE, choose, hub_files, parse
from corpus.sources import ROOT, file_identity, find_sources, read_file, read_records

pytest.importorskip("huggingface_hub")
SHA = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_secret"


class Hub(BaseHTTPRequestHandler):
    """GET /api/datasets/NAME/revision/REVISION and HEAD or GET /datasets/NAME/resolve/SHA/FILE, with ranges."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        pass

    def do_HEAD(self):
        self.do_GET()

    def answer(self, status, body=b"", headers=()):
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def refuse(self, status, code):
        self.answer(status, b"", [("X-Error-Code", code), ("X-Error-Message", code)])

    def do_GET(self):
        hub, path = self.server, unquote(self.path.split("?")[0])
        hub.asked.append((self.command, path, self.headers.get("Range")))
        if "/gated/" in path and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        if "/broken/" in path:
            return self.answer(503)
        if match := re.fullmatch(r"/api/datasets/(\w+/[\w-]+)(?:/revision/(.+))?", path):
            if match[1] not in hub.sets:
                return self.refuse(401, "RepoNotFound")  # as the hub answers whoever it does not know
            if match[2] not in (None, "main", "v2", SHA):
                return self.refuse(404, "RevisionNotFound")
            names = [{"rfilename": name} for name in hub.sets[match[1]]]
            body = {
                "id": match[1],
                "sha": SHA,
                "siblings": names,
                "cardData": hub.cards.get(match[1]),
                "tags": [],
                "downloads": 0,
            }
            return self.answer(200, json.dumps(body).encode(), [("Content-Type", "application/json")])
        match = re.fullmatch(rf"/datasets/(\w+/[\w-]+)/resolve/{SHA}/(.+)", path)
        body = hub.sets.get(match[1], {}).get(match[2]) if match else None
        if body is None:
            return self.refuse(404, "EntryNotFound")
        headers = [("ETag", f'"{hashlib.sha256(body).hexdigest()}"'), ("X-Repo-Commit", SHA), ("Accept-Ranges", "bytes")]
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-")[1])
        status = 200
        if self.headers.get("Range"):
            status, headers = 206, [*headers, ("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")]
        if self.command == "GET" and hub.breaks > 0:  # half of what is asked for, and the line goes dead
            hub.breaks -= 1
            self.send_response(status)
            for name, value in [*headers, ("Content-Length", str(len(body) - start))]:
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body[start : start + (len(body) - start) // 2])
            self.wfile.flush()
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return None
        return self.answer(status, body[start:], headers)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.sets, server.cards, server.asked, server.breaks = {}, {}, [], 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.shutdown()
    server.server_close()


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
    (source,), _ = find_sources({"sources": [{"name": "s", "path": path, **more}]})
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
def test_a_config_a_glob_a_file_and_all_of_it(hub, address, expected):
    hub.sets["HuggingFaceFW/fineweb-2"] = FINEWEB
    assert texts(address) == expected
    before = len(hub.asked)
    assert texts(address) == expected
    assert all("/resolve/" not in path or method == "HEAD" for method, path, _ in hub.asked[before:])  # nothing twice


def test_the_card_says_what_a_config_is(hub):
    hub.sets["o/d"] = {"a/x.jsonl": b'{"text": "bir"}\n', "b/y.jsonl.gz": gzip.compress(b'{"text": "iki"}\n'), "b/z.jsonl": b""}
    files = [{"split": "train", "path": ["b/y*"]}, {"split": "test", "path": "a/*"}]
    hub.cards["o/d"] = {"configs": [{"config_name": "default", "data_files": files}]}
    assert texts("hub://o/d/default") == ["iki"]


def test_choosing_files_by_the_shapes_that_cards_have():
    held = ["README.md", "az/az_part_00000.parquet", "az/az_part_00001.parquet", "tr/tr_part_00000.parquet"]
    assert choose(held, "az", []) == held[1:3]
    for data_files in ("az/*", ["az/*"], [{"path": "az/*"}], [{"split": "all", "path": ["az/*"]}], {"path": "az/*"}):
        assert choose(held, "c", [{"config_name": "c", "data_files": data_files}]) == held[1:3]
    assert choose(held, "de", []) == []


def test_a_streamed_data_set_has_one_file_on_disk_at_a_time(hub, tmp_path):
    hub.sets["HuggingFaceFW/fineweb-2"] = FINEWEB
    entry = {"name": "s", "path": "hub://HuggingFaceFW/fineweb-2/azj_Latn", "stream": True}
    (source,), _ = find_sources({"sources": [entry]})
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


def test_a_download_that_breaks_off_is_taken_up_where_it_was(hub):
    body = b"".join(b'{"text": "%d %s"}\n' % (i, b"a" * 9_980) for i in range(2_400))  # the library writes 10 MB at once
    hub.sets["o/d"] = {"a.jsonl": body}
    hub.breaks = 1
    assert len(texts("hub://o/d")) == 2_400
    spans = [span for method, path, span in hub.asked if method == "GET" and span and "resolve" in path]
    ranges = [int(span.split("=")[1].split("-")[0]) for span in spans]
    assert ranges and min(ranges) >= 10_000_000  # went on, did not begin anew


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
def test_what_goes_wrong_is_named_with_its_remedy(hub, monkeypatch, address, token, says):
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
        explain(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "hub://o/d", "data set", SHAPE)


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
    code = "from corpus.sources import find_sources; find_sources({'path': 'hub://o/d'})"
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert "hub:// needs huggingface_hub. pip install -r requirements-extra.txt" in result.stderr
