import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import corpus.build
from common.errors import UserError
from common.files import read_json, read_jsonl, sha256_file
from corpus.build import build_corpus, heldout_path, list_sources, read_documents
from language.azerbaijani import fold_key, upper

ROOT = Path(__file__).resolve().parents[2]
NOUNS = ["dağ", "çay", "şəhər", "kitab", "qapı", "yol", "meşə", "göl", "bağ", "əkin", "dəniz", "körpü", "məktəb", "bulaq"]
VERBS = ["görünür", "açılır", "bitir", "başlayır", "uzanır", "parlayır", "susur", "böyüyür", "qalır", "keçir"]


def sentences(count, seed):
    chance = random.Random(seed)
    for _ in range(count):
        clauses = [(*chance.choices(NOUNS, k=2), chance.randrange(10**6), chance.choice(VERBS)) for _ in range(4)]
        yield " ".join(f"{one} və {other} {number} {verb}," for one, other, number, verb in clauses)


def write(path, texts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts), encoding="utf-8")


@pytest.fixture
def folder(tmp_path):
    source = tmp_path / "in"
    write(source / "news.jsonl", sentences(120, 1))
    write(source / "blog.jsonl", sentences(30, 2))
    return source


def lines(path):
    return [record for _, record in read_jsonl(path)]


def snapshot(out):
    return {path.relative_to(out).as_posix(): sha256_file(path) for path in sorted(out.rglob("*")) if path.is_file()}


def test_every_document_is_kept_or_has_a_reason(folder, tmp_path):
    good = list(sentences(40, 3))
    mixed = [
        *good,
        good[0],
        upper(good[1]),
        good[2].replace("ə", "e").replace("ç", "c").replace("ş", "s").replace("ı", "i"),
        "Москва является столицей России и крупнейшим городом",
        "qısa",
        "12345 67890 — !!!",
        "\u200b\u200b<br>",
    ]
    write(folder / "mixed.jsonl", mixed)
    with open(folder / "mixed.jsonl", "ab") as file:
        file.write(b'[]\n{"text": "\xff"}\n')
    out = tmp_path / "out"
    report = build_corpus({"path": str(folder)}, out)
    entry = report["sources"]["mixed"]
    assert entry["removed"] == {
        "exact_duplicate": 3, "empty_after_cleaning": 1, "language": 1, "no_letters": 1, "too_short": 1,
    }  # fmt: skip
    assert entry["rejected"] == {"invalid_utf8": 1, "not_an_object": 1}
    written = {name: list(read_documents(out, name)) for name in list_sources(out)}
    heldout, removed, rejected = (lines(out / f"{name}.jsonl.gz") for name in ("heldout", "removed", "rejected"))
    places = [
        (record["source"], record["file"], record["line"])
        for record in [*(d for documents in written.values() for d in documents), *heldout, *removed, *rejected]
    ]
    counts = {"blog": 30, "mixed": 49, "news": 120}
    expected = [(name, f"{name}.jsonl", i + 1) for name, count in counts.items() for i in range(count)]
    assert sorted(places) == sorted(expected)  # each line of the input once, none invented
    assert report["total"]["in"] == len(expected)
    assert all(record["reason"] and record["text"] for record in removed)
    # Of several spellings the full one survives, and knows how many it stands for.
    kept = {record["text"]: record for record in [*written["mixed"], *heldout]}
    assert [kept[text]["copies"] for text in good[:4]] == [2, 2, 2, 1]
    ids = [record["id"] for record in [*written["mixed"], *heldout, *removed]]
    assert len(set(ids)) == len(ids)
    assert entry["characters"] == sum(len(record["text"]) for record in written["mixed"])


def test_near_duplicates_lose_all_but_the_longest(tmp_path):
    base = " ".join(sentences(20, 5))
    write(tmp_path / "in" / "a.jsonl", [base.replace("körpü", "su", 1), base + " əlavə olunmuş son", base, *sentences(5, 6)])
    out = tmp_path / "out"
    report = build_corpus({"path": str(tmp_path / "in"), "heldout_fraction": 0}, out)
    assert report["total"]["removed"] == {"near_duplicate": 2}
    assert [d["line"] for d in read_documents(out, "a") if d["copies"] == 3] == [2]
    off = build_corpus({"path": str(tmp_path / "in"), "near_duplicates": None, "heldout_fraction": 0}, tmp_path / "off")
    assert off["total"]["removed"] == {}


def test_personal_data_is_hidden_and_counted(tmp_path):
    write(tmp_path / "in" / "a.jsonl", ["Əlaqə üçün ali@example.az ünvanına yazın, zəhmət olmasa."])
    report = build_corpus({"path": str(tmp_path / "in")}, tmp_path / "out")
    assert report["total"]["personal_data"] == {"EMAIL": 1}
    assert "<EMAIL>" in next(read_documents(tmp_path / "out", "a"))["text"]


def test_heldout_is_a_fraction_with_a_floor_and_a_cap_and_never_in_training(folder, tmp_path):
    out = tmp_path / "out"
    write(folder / "tiny.jsonl", sentences(10, 8))
    report = build_corpus({"path": str(folder), "heldout_fraction": 0.05, "heldout_max": 4}, out)
    assert {name: entry["heldout"] for name, entry in report["sources"].items()} == {"blog": 2, "news": 4, "tiny": 0}
    again = build_corpus({"path": str(folder), "heldout_fraction": 0.001}, tmp_path / "floor")
    assert {name: entry["heldout"] for name, entry in again["sources"].items()} == {"blog": 1, "news": 1, "tiny": 0}
    held = {fold_key(record["text"]) for record in lines(heldout_path(out))}
    trained = {fold_key(record["text"]) for name in list_sources(out) for record in read_documents(out, name)}
    assert len(held) == 6
    assert not held & trained
    # The choice hangs on the document, not on its place.
    order = (folder / "news.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "news.jsonl").write_text("".join(reversed(order)), encoding="utf-8")
    build_corpus({"path": str(folder), "heldout_fraction": 0.05, "heldout_max": 4}, tmp_path / "turned")
    assert {fold_key(record["text"]) for record in lines(heldout_path(tmp_path / "turned"))} == held


def test_the_manifest_names_every_file(folder, tmp_path):
    build_corpus({"path": str(folder)}, tmp_path / "out")
    found = snapshot(tmp_path / "out")
    del found["manifest.json"]
    assert read_json(tmp_path / "out" / "manifest.json")["files"] == found
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "in", "out"]


def test_a_second_build_is_reused_only_while_nothing_changed(folder, tmp_path, capsys, monkeypatch):
    out, settings = tmp_path / "out", {"path": str(folder)}
    build_corpus(settings, out)
    before = snapshot(out)

    def runs(**changed):
        capsys.readouterr()
        build_corpus({**settings, **changed}, out)
        return "corpus: reused" not in capsys.readouterr().out

    assert not runs()
    assert runs(min_characters=11) and runs()
    assert runs(weights={"news": 2}) and runs()
    assert snapshot(out) == before  # the same input gives the same bytes
    (out / "documents" / "news.jsonl.gz").write_bytes(b"")
    assert runs()
    (out / "heldout.jsonl.gz").unlink()
    assert runs()
    assert snapshot(out) == before
    text = (folder / "news.jsonl").read_bytes()
    (folder / "news.jsonl").write_bytes(text.replace("dağ".encode(), "daş".encode()))  # same size
    assert runs()
    monkeypatch.setattr(corpus.build, "_code", lambda: "another version")
    assert runs()


@pytest.mark.parametrize("place", ["_write_source", "_decide", "_total"])
def test_a_failed_build_leaves_the_earlier_result(folder, tmp_path, monkeypatch, place):
    out = tmp_path / "out"
    build_corpus({"path": str(folder)}, out)
    before = snapshot(out)

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(corpus.build, place, fail)
    with pytest.raises(UserError, match="No space left"):
        build_corpus({"path": str(folder), "min_characters": 50}, out)
    assert snapshot(out) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.lock", "in", "out"]


def test_a_loss_is_never_passed_over(folder, tmp_path, monkeypatch):
    real = corpus.build.write_jsonl
    monkeypatch.setattr(corpus.build, "write_jsonl", lambda path, records: real(path, list(records)[1:]))
    with pytest.raises(RuntimeError, match="unaccounted"):
        build_corpus({"path": str(folder)}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_killed_builds_leave_the_old_corpus_or_the_new_one(tmp_path):
    write(tmp_path / "in" / "a.jsonl", sentences(1500, 1))
    out = tmp_path / "out"
    build_corpus({"path": str(tmp_path / "in"), "min_characters": 20}, out)
    old = snapshot(out)
    build_corpus({"path": str(tmp_path / "in"), "min_characters": 21}, tmp_path / "reference")
    new = snapshot(tmp_path / "reference")
    settings = {"path": str(tmp_path / "in"), "min_characters": 21}
    code = f"from corpus.build import build_corpus; build_corpus({settings!r}, {str(out)!r})"
    ended = []
    for number in range(5):
        run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL)
        building = tmp_path / ".out.building"
        while not building.exists() and run.poll() is None:
            time.sleep(0.002)
        time.sleep(0.06 * number)
        run.send_signal(signal.SIGKILL)
        ended.append(run.wait())
        assert not out.exists() or snapshot(out) in (old, new)
    assert -signal.SIGKILL in ended
    build_corpus({"path": str(tmp_path / "in"), "min_characters": 21}, out)
    assert snapshot(out) == new
    assert not (tmp_path / ".out.building").exists()


def test_killed_between_the_two_renames_the_old_corpus_comes_back(folder, tmp_path, capsys):
    out = tmp_path / "out"
    build_corpus({"path": str(folder)}, out)
    before = snapshot(out)
    out.rename(tmp_path / ".out.old")
    build_corpus({"path": str(folder)}, out)
    assert "reused" in capsys.readouterr().out
    assert snapshot(out) == before


def test_a_folder_with_other_things_is_never_replaced(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.docx").write_text("x")
    with pytest.raises(UserError, match=r"thesis\.docx"):
        build_corpus({"path": str(folder)}, tmp_path / "out")
    assert (tmp_path / "out" / "thesis.docx").read_text() == "x"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"min_chars": 3}, "min_chars"),
        ({"heldout_fraction": 2}, "heldout_fraction"),
        ({"near_duplicates": 0.1}, "near_duplicates"),
        ({"min_characters": "ten"}, "min_characters"),
        ({"min_characters": 10**6}, "too_short 150"),
    ],
)
def test_settings_that_cannot_give_a_corpus(folder, tmp_path, settings, words):
    with pytest.raises(UserError, match=words):
        build_corpus({"path": str(folder), **settings}, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_files_are_counted_in_the_report(tmp_path):
    (tmp_path / "in").mkdir()
    body = "".join(json.dumps({"text": text}) + "\n" for text in sentences(300, 1)).encode()
    packed = gzip.compress(body)
    (tmp_path / "in" / "a.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    report = build_corpus({"path": str(tmp_path / "in")}, tmp_path / "out")
    assert report["total"]["rejected"] == {"damaged_file": 1}
    (reject,) = lines(tmp_path / "out" / "rejected.jsonl.gz")
    assert reject["file"] == "a.jsonl.gz"
    assert reject["line"] == report["total"]["in"]
    assert set(reject) == {"source", "file", "line", "reason", "raw"}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_an_unreadable_file_stops_with_a_message(folder, tmp_path):
    (folder / "news.jsonl").chmod(0)
    with pytest.raises(UserError, match=r"news\.jsonl"):
        build_corpus({"path": str(folder)}, tmp_path / "out")
