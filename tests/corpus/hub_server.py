"""A local server that implements the part of the hub's protocol that a download uses."""

import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

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
        if match := re.fullmatch(r"/api/datasets/([\w-]+/[\w.-]+)(?:/revision/(.+))?", path):
            if match[1] not in hub.sets:
                return self.refuse(401, "RepoNotFound")  # the hub's answer to an unknown user
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
        match = re.fullmatch(rf"/datasets/([\w-]+/[\w.-]+)/resolve/{SHA}/(.+)", path)
        body = hub.sets.get(match[1], {}).get(match[2]) if match else None
        if body is None:
            return self.refuse(404, "EntryNotFound")
        headers = [("ETag", f'"{hashlib.sha256(body).hexdigest()}"'), ("X-Repo-Commit", SHA), ("Accept-Ranges", "bytes")]
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range") or "bytes=0-")[1])
        status = 200
        if self.headers.get("Range"):
            status, headers = 206, [*headers, ("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")]
        if self.command == "GET" and hub.breaks > 0:  # half of the requested bytes, then the connection breaks
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


@contextlib.contextmanager
def serving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadingHTTPServer]:
    """A hub without data sets (`sets`: {name: {file: bytes}}, `cards`), which the environment names for the test's time."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.sets, server.cards, server.asked, server.breaks = {}, {}, [], 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    yield server
    server.shutdown()
    server.server_close()
