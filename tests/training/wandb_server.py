"""What `wandb sync` does with a folder, without a server of theirs: their own reader sends the files to this process."""

import contextlib
import gzip
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

VIEWER = {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}}
PROJECT = {"id": "2", "name": "p", "entity": {"id": "3", "name": "me"}}


class Server(http.server.ThreadingHTTPServer):
    """Holds of every run what was said of it (`runs`) and its history as lines (`history`), as W&B's server does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.runs: dict[str, dict[str, Any]] = {}
        self.history: dict[str, list[dict[str, Any]]] = {}

    def answer(self, query: str, values: dict[str, Any]) -> dict[str, Any]:
        """The answer to one GraphQL request; of other requests than these nothing is known."""
        if "RunResumeStatus" in query:
            lines, name = self.history.get(values["name"], []), values["name"]
            empty = {
                "summaryMetrics": "{}",
                "config": "{}",
                "eventsTail": "[]",
                "tags": [],
                "notes": "",
                "wandbConfig": '{"t": 1}',
            }
            known = {"id": name, "name": name, "displayName": name, "historyLineCount": len(lines), "eventsLineCount": 0}
            known |= {"logLineCount": 0, "historyTail": json.dumps([json.dumps(line) for line in lines[-1:]]), **empty}
            return {"model": {**PROJECT, "bucket": known if name in self.runs else None}}
        if "upsertBucket" in query:
            name = values.get("name") or values.get("id")
            new = name not in self.runs
            self.runs.setdefault(name, {}).update({key: value for key, value in values.items() if value is not None})
            bucket = {"id": name, "name": name, "displayName": name, "description": "", "config": "{}", "sweepName": None}
            return {"upsertBucket": {"bucket": {**bucket, "project": PROJECT, "historyLineCount": 0}, "inserted": new}}
        if "createRunFiles" in query:
            places = [{"name": name, "uploadUrl": f"http://127.0.0.1:{self.server_port}/put"} for name in values["files"]]
            return {"createRunFiles": {"runID": "4", "uploadHeaders": [], "files": places}}
        return {"viewer": VIEWER, "serverInfo": {"features": [], "cliVersionInfo": {}, "latestLocalVersionInfo": None}}


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing on the terminal."""

    def do_POST(self) -> None:
        """Take a request in, as a line of the history or a question."""
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            content = gzip.decompress(content)
        reply: dict[str, Any] = {}
        if self.path.endswith("/graphql"):
            asked = json.loads(content)
            reply = {"data": self.server.answer(asked["query"], asked.get("variables") or {})}
        elif "file_stream" in self.path and (sent := json.loads(content).get("files", {}).get("wandb-history.jsonl")):
            lines = self.server.history.setdefault(self.path.split("/")[-2], [])
            lines[sent["offset"] : sent["offset"] + len(sent["content"])] = map(json.loads, sent["content"])
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST


def sync(folder: Path, home: dict[str, str]) -> Server:
    """Run `wandb sync` on the parts in `folder`, as the docs say, and give back the server that took them."""
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    there = {"WANDB_BASE_URL": f"http://127.0.0.1:{server.server_port}", "WANDB_API_KEY": "0" * 40}
    with contextlib.closing(server.socket):
        words = [str(Path(sys.executable).with_name("wandb")), "sync", "--yes", *map(str, sorted(folder.glob("offline-run-*")))]
        done = subprocess.run(words, env=os.environ | home | there, capture_output=True, text=True, timeout=100, check=False)
        server.shutdown()
    assert done.returncode == 0 and "Finished syncing" in done.stderr + done.stdout, done.stderr[-2000:]
    return server
