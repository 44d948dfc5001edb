"""An export goes to the hub: the real huggingface_hub against a local server for uploads; every refusal is named."""

import base64
import hashlib
import json
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from common.errors import UserError
from common.files import read_json, write_json, write_text
from model.convert.export import hide_paths
from model.convert.push import push
from model.huggingface import main
from tests.model.test_export import config_of, own, write_masked_lm, write_task_model  # noqa: F401  (own: a fixture)
from tests.model.test_hub import TOKEN, Answer, Hub

constants = pytest.importorskip("huggingface_hub.constants", reason="an optional dependency, in requirements-extra.txt")


class Taking(Answer):
    """The few calls of an upload: create the repository, ask how to send each file, send large ones, commit."""

    server: "TakingHub"

    def do_PUT(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.large[hashlib.sha256(content).hexdigest()] = content
        self.tell({})

    def do_POST(self) -> None:
        hub, path = self.server, urlsplit(self.path).path
        content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        hub.seen.append(("POST", path, ""))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.refuse(401, "Unauthorized")
        if path == "/api/repos/create":
            asked = json.loads(content)
            name = f"{asked['organization']}/{asked['name']}"
            if asked["organization"] in hub.closed:
                return self.refuse(403, "Forbidden")
            hub.private[name] = bool(asked.get("private")) or asked.get("visibility") == "private"
            hub.taken.setdefault(name, {})
            return self.tell({"url": f"{hub.address}/{name}", "name": name, "id": name})
        if path == "/api/validate-yaml":
            return self.tell({"errors": [], "warnings": []})
        if "/preupload/" in path:
            files = [file["path"] for file in json.loads(content)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in files}
            return self.tell(
                {"files": [{"path": name, "uploadMode": mode, "shouldIgnore": False} for name, mode in modes.items()]}
            )
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                {**part, "actions": {"upload": {"href": f"{hub.address}/large/{part['oid']}", "header": {}}}}
                for part in json.loads(content)["objects"]
            ]
            return self.tell({"transfer": "basic", "objects": objects})
        if "/commit/" in path:
            if hub.full:
                return self.refuse(507, "no storage left")
            name = "/".join(path.removeprefix("/api/models/").split("/")[:2])
            for line in map(json.loads, content.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    hub.taken[name][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    hub.taken[name][value["path"]] = hub.large[value["oid"]]
            return self.tell({"success": True, "commitOid": "d" * 40, "commitUrl": f"{hub.address}/{name}/commit/{'d' * 40}"})
        return self.refuse(404, "EntryNotFound")

    def tell(self, values: dict) -> None:
        self.send(json.dumps(values).encode(), {"Content-Type": "application/json"}, True, "")


class TakingHub(Hub):
    """A hub whose token may write everywhere but to `closed`."""

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = Taking
        self.taken: dict[str, dict[str, bytes]] = {}  # repository -> file -> content
        self.large: dict[str, bytes] = {}
        self.private: dict[str, bool] = {}
        self.closed: set[str] = set()
        self.full = False


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = TakingHub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # xet storage is another protocol
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()


def test_export_with_push_uploads_every_file(own, hub, tmp_path, capsys):  # noqa: F811
    """One command: the hub has the exported folder byte for byte, large files included; the address is printed."""
    write_masked_lm(tmp_path / "ours", config_of("bert"), own)
    assert not main(["export", str(tmp_path / "ours"), str(tmp_path / "out"), "--push", "dil/kicik", "--private"])
    assert hub.taken["dil/kicik"] == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert "model.safetensors" in hub.taken["dil/kicik"] and hub.private == {"dil/kicik": True}
    assert capsys.readouterr().out.strip().splitlines()[-1] == f"{hub.address}/dil/kicik"


def test_refusals_are_named(own, hub, tmp_path, monkeypatch, capsys):  # noqa: F811
    write_masked_lm(tmp_path / "ours", config_of("bert"), own)
    words = ["export", str(tmp_path / "ours"), str(tmp_path / "out")]
    for more, message in (
        (["--push", "kicik"], "not the name of a repository. Write owner/name"),
        (["--private"], "Add --push owner/name"),
    ):
        assert main([*words, *more]) == 2
        assert message in capsys.readouterr().err
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert main([*words, "--push", "dil/kicik"]) == 2
    assert "no token. Set HF_TOKEN to one with write access" in capsys.readouterr().err
    assert not (tmp_path / "out").exists() and not hub.seen  # refused before anything was written
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main([*words, "--push", "dil/kicik"]) == 2
    assert "does not accept the token (401)" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.safetensors").exists()
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.closed.add("ozge")
    with pytest.raises(UserError, match=r"may not write there \(403\).*push it again"):
        push(tmp_path / "out", "ozge/kicik")
    hub.full = True
    with pytest.raises(UserError, match=r"refused the upload \(507: .*push it again"):
        push(tmp_path / "out", "dil/kicik")
    hub.shutdown()
    hub.server_close()
    with pytest.raises(UserError, match=r"cannot be reached at http://127\.0\.0\.1"):
        push(tmp_path / "out", "dil/kicik")


def test_the_card_has_all_seeds_and_no_folder_of_this_machine(own, tmp_path):  # noqa: F811
    run = tmp_path / "kiçik" / "azx"
    for seed, (dev, test) in enumerate([(0.5, 0.61), (0.52, 0.65), (0.51, 0.63)]):
        write_json(
            run / f"seed-{seed}" / "summary.json",
            {
                "model": "kiçik",
                "task": "azx",
                "metric": "accuracy",
                "status": "done",
                "seed": seed,
                "dev_score": dev,
                "test_score": test,
            },
        )
    folder = run / "seed-1"
    write_task_model(folder / "checkpoint", config_of("bert"), own, "classification", "pooler")
    values = read_json(folder / "checkpoint" / "config.json") | {"ancestry": [{"checkpoint": "/home/aysel/runs/a"}]}
    write_json(folder / "checkpoint" / "config.json", values)
    sums = read_json(folder / "checkpoint" / "checksums.json")
    sums["config.json"] = hashlib.sha256((folder / "checkpoint" / "config.json").read_bytes()).hexdigest()
    write_json(folder / "checkpoint" / "checksums.json", sums)
    write_text(folder / "config.yaml", "corpus:\n  path: /home/aysel/my texts/az\nseed: 1\nlist: [/srv/a/b.csv, x]\nlr: 1e-3\n")
    assert main(["export", str(folder / "checkpoint"), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    for row in ("| 0 | 50.0 | 61.0 |", "| 1 | 52.0 | 65.0 |", "| mean ± sd | 51.0 ± 1.0 | 63.0 ± 2.0 |"):
        assert row in card
    assert "These weights are those of seed 1" in card and "lr: 1e-3" in card
    for path in Path(tmp_path / "out").iterdir():
        assert b"aysel" not in path.read_bytes() and b"/srv/a" not in path.read_bytes(), path.name


def test_only_paths_are_shortened():
    text = "a: /x/y z/w\nb: '~/d/e'\nc: https://huggingface.co/a/b\nd: hub://a/b@1\ne: runs/a/b\nf: 1/2\ng: [/p/q, r]\n- /t/u"
    cut = hide_paths(text).split("\n")
    assert cut == [
        "a: .../w",
        "b: '.../e'",
        "c: https://huggingface.co/a/b",
        "d: hub://a/b@1",
        "e: runs/a/b",
        "f: 1/2",
        "g: [.../q, r]",
        "- .../u",
    ]
