"""Checkpoints by hub id: the real huggingface_hub against a local server with its protocol; every failure is named."""

import contextlib
import hashlib
import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

from common.errors import UserError
from common.files import read_json
from model.convert import importing
from model.convert.hub_checkpoints import choose, download
from model.store import load_masked_lm, read_checkpoint
from tests.model.peers import write_peer

pytest.importorskip("huggingface_hub", reason="an optional dependency, in requirements-extra.txt")
pytest.importorskip("transformers", reason="makes the checkpoints; in requirements-dev.txt")
ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_right"


class Hub(http.server.ThreadingHTTPServer):
    """Models at commits, served like huggingface.co: /api/models/... and /.../resolve/COMMIT/FILE with ranges."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.models: dict[str, dict[str, Path]] = {}  # name -> commit -> folder; the last commit is main
        self.gated: set[str] = set()
        self.sizes: dict[str, int] = {}  # sizes that the API claims, where they are wrong
        self.lost: set[str] = set()  # listed, but missing
        self.cut: dict[str, int] = {}  # file -> bytes after which the connection is closed, once
        self.stall: dict[str, int] = {}  # file -> bytes after which nothing more is sent, once
        self.flip: set[str] = set()  # sent with a wrong byte
        self.over = threading.Event()
        self.seen: list[tuple[str, str, str]] = []  # method, path, range

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def files(self, path: str = "/resolve/") -> list[str]:
        return [where.rsplit("/", 1)[-1] for method, where, _ in self.seen if path in where and method == "GET"]


class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", code)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()

    def answer(self, body: bool) -> None:
        hub, path = self.server, urlsplit(self.path).path
        hub.seen.append((self.command, path, self.headers.get("Range", "")))
        api = path.startswith("/api/models/")
        words = path.removeprefix("/api/models/").strip("/").split("/")
        name = "/".join(words[:2])
        commits = hub.models.get(name)
        if commits is None:
            return self.refuse(401, "RepoNotFound")
        revision = words[3] if len(words) > 3 else "main"
        commit = list(commits)[-1] if revision == "main" else revision
        if commit not in commits:
            return self.refuse(404, "RevisionNotFound")
        if api:
            siblings = [
                {"rfilename": file.name, "size": hub.sizes.get(file.name, file.stat().st_size)}
                for file in sorted(commits[commit].iterdir())
            ]
            content = json.dumps({"id": name, "modelId": name, "sha": commit, "siblings": siblings, "tags": []}).encode()
            return self.send(content, {"Content-Type": "application/json"}, body, words[-1])
        if name in hub.gated and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo")
        file = commits[commit] / words[-1]
        if not file.exists() or file.name in hub.lost:
            return self.refuse(404, "EntryNotFound")
        content = file.read_bytes()
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"', "Accept-Ranges": "bytes"}
        return self.send(content, headers, body, file.name)

    def send(self, content: bytes, headers: dict[str, str], body: bool, name: str) -> None:
        start = 0
        if name in self.server.flip and body:
            content = content[:-1] + bytes([content[-1] ^ 1])
        if self.headers.get("Range") and body:
            start = int(self.headers["Range"].removeprefix("bytes=").split("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Connection", "close")
        self.end_headers()
        if not body:
            return
        if (end := self.server.cut.pop(name, None)) is not None:
            self.wfile.write(content[start:end])
            return
        if (end := self.server.stall.pop(name, None)) is not None:
            self.wfile.write(content[start:end])
            self.server.over.wait(60)
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(content[start:])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    write_peer(folder, "bert")
    for other in ("README.md", "flax_model.msgpack", "pytorch_model.bin", "run.py"):
        (folder / other).write_text("not wanted")
    return folder


@pytest.fixture
def large(hub, tmp_path) -> Path:
    """A model of 12 MB on the hub: huggingface_hub writes parts of 10 MiB, so smaller files have none to resume."""
    folder = tmp_path / "large"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 48_000)
    hub.models["dil/boyuk"] = {"f" * 40: folder}
    return folder


@pytest.fixture
def hub(tiny, tmp_path, monkeypatch):
    server = Hub()
    server.models["dil/kicik"] = {"c" * 40: tiny}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    yield server
    server.over.set()
    server.shutdown()
    server.server_close()


def test_a_checkpoint_by_id(hub, tiny, tmp_path):
    """Only needed files are downloaded; the commit is pinned and recorded; the second time needs no network."""
    model, _ = load_masked_lm("hub://dil/kicik")
    assert sorted(hub.files()) == ["config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt"]
    weights, _, _, values = read_checkpoint("hub://dil/kicik")
    assert values["source"] == {"family": "bert", "repository": "dil/kicik", "revision": "main", "commit": "c" * 40}
    assert values["name"] == "kicik"
    asked = len(hub.seen)

    shutil.copytree(tiny, tmp_path / "moved")  # main moves on: the pinned commit stays in use, the new one is requested by name
    config = read_json(tmp_path / "moved" / "config.json")
    (tmp_path / "moved" / "config.json").write_text(json.dumps(config | {"layer_norm_eps": 1e-3}))
    hub.models["dil/kicik"]["d" * 40] = tmp_path / "moved"
    again, _ = load_masked_lm("hub://dil/kicik")
    assert len(hub.seen) == asked and again.encoder.config.norm_eps == model.encoder.config.norm_eps
    assert load_masked_lm(f"hub://dil/kicik@{'d' * 40}")[0].encoder.config.norm_eps == 1e-3
    # Converted by an older version of the code: converted again.
    pin = importing.folder_of_cache() / "pins" / "dil--kicik@main.json"
    held = read_json(pin)
    shutil.rmtree(importing.folder_of_cache() / held["key"])
    pin.write_text(json.dumps({key: value for key, value in held.items() if key != "version"}))
    assert read_checkpoint("hub://dil/kicik")[3]["source"] == values["source"] and read_json(pin) == held
    hub.shutdown()
    hub.server_close()
    assert torch.equal(
        read_checkpoint("hub://dil/kicik")[0]["encoder.token_embeddings.weight"], weights["encoder.token_embeddings.weight"]
    )
    with pytest.raises(UserError, match=r"cannot be reached at http://127.0.0.1.* Check the network"):
        read_checkpoint("hub://dil/basqa")


def test_gated(hub, monkeypatch):
    hub.gated.add("dil/kicik")
    for token in (None, "hf_wrong"):
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(UserError, match=r"access is refused .*Accept the terms at http://127.*/dil/kicik and set HF_TOKEN"):
            download("hub://dil/kicik")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    folder, place = download("hub://dil/kicik")
    assert (folder / "model.safetensors").exists() and place["commit"] == "c" * 40


def test_missing(hub):
    for address, message in {
        "hub://dil/yoxdur": "no such model, or a private one",
        f"hub://dil/kicik@{'e' * 40}": "no such revision. Correct the part after @",
        "hub://dil": "not an address of a model",
        "hub://dil/kicik@": "not an address of a model",
        "hub://dil/kicik/x": "not an address of a model",
    }.items():
        with pytest.raises(UserError, match=message):
            download(address)
    hub.lost.add("vocab.txt")
    with pytest.raises(UserError, match=r"\(vocab\.txt\): no such file in the repository"):
        download("hub://dil/kicik")


def test_a_full_disk_is_reported_before_the_download(hub):
    hub.sizes["model.safetensors"] = 10**17
    with pytest.raises(UserError, match=r"needs 200,000,000\.0 GB of disk .* has .* GB free\. Make room, or set HF_HOME"):
        download("hub://dil/kicik")
    assert not hub.files()


PART = 10 * 1024 * 1024


def ranges_of(hub) -> list[str]:
    return [where for method, path, where in hub.seen if path.endswith("model.safetensors") and method == "GET"]


def test_a_broken_connection_is_resumed(hub, large):
    hub.cut["model.safetensors"] = PART + 5_000
    folder, _ = download("hub://dil/boyuk")
    assert (folder / "model.safetensors").read_bytes() == (large / "model.safetensors").read_bytes()
    assert ranges_of(hub) == ["", f"bytes={PART}-"]


def test_a_killed_download_is_resumed_by_the_next(hub, large, tmp_path):
    hub.stall["model.safetensors"] = PART + 5_000
    code = "from model.convert.hub_checkpoints import download; download('hub://dil/boyuk')"
    child = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"HF_HUB_DISABLE_PROGRESS_BARS": "1"})
    try:
        until = time.monotonic() + 60
        while not any(path.stat().st_size >= PART for path in (tmp_path / "home").rglob("*.part")):
            assert time.monotonic() < until and child.poll() is None
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    folder, _ = download("hub://dil/boyuk")
    assert (folder / "model.safetensors").read_bytes() == (large / "model.safetensors").read_bytes()
    assert ranges_of(hub) == ["", f"bytes={PART}-"]


def test_damaged_on_the_way(hub, large):
    hub.flip.add("model.safetensors")
    with pytest.raises(UserError, match=r"\(model\.safetensors\): damaged in transfer"):
        download("hub://dil/boyuk")
    hub.flip.clear()
    folder, _ = download("hub://dil/boyuk")
    assert (folder / "model.safetensors").read_bytes() == (large / "model.safetensors").read_bytes()


def test_files_in_the_library_s_cache_are_not_downloaded_again(hub, tiny, tmp_path):
    import huggingface_hub

    huggingface_hub.hf_hub_download(
        "dil/kicik", "model.safetensors", revision="c" * 40, cache_dir=tmp_path / "home" / "hub", endpoint=hub.address
    )
    hub.seen.clear()
    folder, _ = download("hub://dil/kicik")
    assert not ranges_of(hub) and (folder / "model.safetensors").read_bytes() == (tiny / "model.safetensors").read_bytes()


def test_choice_of_files():
    shards = {f"model-0000{n}-of-00002.safetensors": 1 for n in (1, 2)}
    small = {"config.json": 1, "tokenizer.json": 1}
    index = {"model.safetensors.index.json": 1}
    assert set(choose(small | shards | index | {"pytorch_model.bin": 9}, "x")) == set(small | shards | index)
    assert choose(small | {"pytorch_model.bin": 9, "onnx/model.onnx": 3}, "x")[-1] == "pytorch_model.bin"
    with pytest.raises(UserError, match=r"neither model\.safetensors nor pytorch_model\.bin there, but tf_model\.h5"):
        choose(small | {"tf_model.h5": 1}, "hub://a/b")
    with pytest.raises(UserError, match=r"no config\.json there"):
        choose({"model.safetensors": 1}, "hub://a/b")
