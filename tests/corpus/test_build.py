import gzip
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import digest_of, read_json, read_jsonl, sha256_file, write_json
from corpus.build import heldout_path, list_sources, read_documents
from corpus.settings import Corpus
from corpus.stages.decide import DOUBT
from corpus.stages.parts import TextWriter, read_texts
from corpus.stages.stages import PLACES, STAGE_SETTINGS, Stages, identity_settings
from corpus.stages.units import code_digest
from language.azerbaijani import fold_key, upper
from tests.azerbaijani import build_corpus, identify

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
        good[2].replace("ə", "ä"),
        "Москва является столицей России и крупнейшим городом",
        "qısa",
        "12345 67890 — !!!",
        "\u200b\u200b<br>",
    ]
    write(folder / "mixed.jsonl", mixed)
    with open(folder / "mixed.jsonl", "ab") as file:
        file.write(b'[]\n{"text": "\xff"}\n')
    out = tmp_path / "out"
    report = build_corpus({"path": str(folder), "max_bad_fraction": 0.1}, out)
    entry = report["sources"]["mixed"]
    assert entry["removed"] == {
        "exact_duplicate": 3,
        "empty_after_cleaning": 1,
        "language": 1,
        "no_letters": 1,
        "too_short": 1,
    }
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
    # Of several spellings the full one survives and records how many documents it represents.
    kept = {record["text"]: record for record in [*written["mixed"], *heldout]}
    assert [kept[text]["copies"] for text in good[:4]] == [2, 2, 2, 1]
    ids = [record["id"] for record in [*written["mixed"], *heldout, *removed]]
    assert len(set(ids)) == len(ids)
    assert entry["characters"] == sum(len(record["text"]) for record in written["mixed"])


def test_in_an_azerbaijani_source_a_doubtful_text_stays_and_a_clear_one_goes(tmp_path):
    """The detector's label assumes that all languages are equally likely; the decision does not."""
    doubtful, clear = "Erdogan secilen kimi orda yene secilecek", "Yarın sabah okula gidiyorum, sen de gelecek misin"
    assert identify(doubtful).label == identify(clear).label == "tr"
    assert identify(clear).score < DOUBT < identify(doubtful).score
    write(tmp_path / "in" / "all.jsonl", [*sentences(30, 4), doubtful, clear])
    for score, gone in ((None, {clear}), (0.9, {clear, doubtful})):
        build_corpus({"path": str(tmp_path / "in"), "language_score": score}, tmp_path / "out")
        removed = lines(tmp_path / "out" / "removed.jsonl.gz")
        assert {record["text"] for record in removed if record["reason"] == "language"} >= gone
        assert (doubtful in {record["text"] for record in removed}) == (doubtful in gone)


def test_of_near_duplicates_the_longest_is_kept(tmp_path):
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
    # The choice depends on the document, not on its position.
    order = (folder / "news.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "news.jsonl").write_text("".join(reversed(order)), encoding="utf-8")
    build_corpus({"path": str(folder), "heldout_fraction": 0.05, "heldout_max": 4}, tmp_path / "turned")
    assert {fold_key(record["text"]) for record in lines(heldout_path(tmp_path / "turned"))} == held


def test_the_manifest_names_every_file(folder, tmp_path):
    build_corpus({"path": str(folder)}, tmp_path / "out")
    found = snapshot(tmp_path / "out")
    del found["manifest.json"]
    assert read_json(tmp_path / "out" / "manifest.json")["files"] == found
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out.work", "in", "out"]


def test_a_second_build_is_reused_only_while_nothing_changed(folder, tmp_path, capsys):
    out, settings = tmp_path / "out", {"path": str(folder)}
    build_corpus(settings, out)
    before = snapshot(out)

    def runs(**changed):
        capsys.readouterr()
        build_corpus({**settings, **changed}, out)
        return "corpus: already complete" not in capsys.readouterr().out

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


def test_annotations_are_reused_for_every_threshold(folder, tmp_path):
    """A changed threshold reads no file again: the annotated units keep their mtime to the nanosecond."""
    out = tmp_path / "out"
    base = {"path": str(folder), "quality": {"preset": "none"}}
    build_corpus(base, out)

    def made(stage):
        return {path.parent.name: path.stat().st_mtime_ns for path in (tmp_path / ".out.work" / stage).glob("*/manifest.json")}

    annotated, decided, clustered = made("annotate"), made("decide"), made("duplicates")
    assert len(annotated) == len(decided) == 2
    for change in ({"min_characters": 30}, {"language_score": 0.9}, {"quality": {"preset": "none", "min_words": 3}}):
        build_corpus(base | change, out)
        assert made("annotate") == annotated
        assert not set(made("decide")) & set(decided), change
        decided = made("decide")
    build_corpus(base, out)
    decided = made("decide")
    clustered = made("duplicates")
    build_corpus(base | {"near_duplicates": 0.8}, out)
    assert made("annotate") == annotated and made("decide") == decided
    assert not set(made("duplicates")) & set(clustered)
    clustered = made("duplicates")
    build_corpus(base | {"near_duplicates": 0.8, "heldout_fraction": 0.2}, out)
    assert made("annotate") == annotated and made("decide") == decided and made("duplicates") == clustered
    text = (folder / "blog.jsonl").read_bytes()
    (folder / "blog.jsonl").write_bytes(text.replace("dağ".encode(), "daş".encode()))
    build_corpus(base, out)
    assert len(made("annotate").items() - annotated.items()) == 1  # only the file that changed is read again
    build_corpus(base | {"personal_data": False}, out)
    assert not made("annotate").items() & annotated.items()


def test_the_work_folder_is_removed_on_request(folder, tmp_path):
    build_corpus({"path": str(folder), "keep_work": False}, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_the_digest_of_code_follows_imports_and_data():
    digest = code_digest("corpus.stages.annotate")
    assert digest != code_digest("corpus.stages.units") != code_digest("corpus.clean")
    assert code_digest("corpus.stages.annotate") == digest
    assert len(digest) == 64


@pytest.mark.parametrize("data", ["corpus/detection/detector.npz", "language/azerbaijani_words.tsv"])
def test_the_digest_includes_weights_and_word_lists(tmp_path, data):
    for name in ("corpus", "language", "common"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    code = (
        "from corpus.stages.units import code_digest as d; print(d('corpus.stages.annotate'), d('corpus.matching.duplicates'))"
    )
    found = []
    for _ in range(2):
        run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
        found.append(run.stdout.split())
        with open(tmp_path / data, "ab") as file:
            file.write(b"\n")
    assert found[0][0] != found[1][0] and found[0][1] == found[1][1]


@pytest.mark.parametrize(
    "stage", ["annotate", pytest.param("duplicates", marks=pytest.mark.slow), pytest.param("result", marks=pytest.mark.slow)]
)
def test_a_full_disk_keeps_the_earlier_result_and_finished_stages(folder, tmp_path, stage):
    """No file may grow past a limit, as on a full disk: a message, exit code 2, the old corpus intact, and a rerun works."""
    out, work = tmp_path / "out", tmp_path / ".out.work"
    build_corpus({"path": str(folder), "min_characters": 11}, out)
    before = snapshot(out)
    place = {"annotate": work / "annotate", "duplicates": work / "duplicates", "result": out}[stage]
    biggest = max(path.stat().st_size for path in place.rglob("*") if path.is_file()) - 1
    if stage == "annotate":
        shutil.rmtree(work)
    settings = {"language": "azerbaijani", "path": str(folder), "min_characters": 12}
    code = (
        "import resource, sys\n"
        "from common.errors import UserError\n"
        "from tests.azerbaijani import build_corpus\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({biggest}, {biggest}))\n"
        f"try:\n    build_corpus({settings!r}, {str(out)!r})\n"
        "except UserError as error:\n    print(error, file=sys.stderr); sys.exit(2)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 2, run.stderr
    assert "cannot be written" in run.stderr and "Traceback" not in run.stderr
    assert snapshot(out) == before
    build_corpus(settings, out)
    assert snapshot(out) != before
    assert not list((tmp_path / ".out.work").glob("*/.*.part"))


def test_a_lost_document_stops_the_build(folder, tmp_path):
    """A document missing from a finished unit stops the build; no corpus is written without it."""
    out = tmp_path / "out"
    build_corpus({"path": str(folder)}, out)
    before = snapshot(out)
    (unit,) = [
        u for u in (tmp_path / ".out.work" / "annotate").iterdir() if read_json(u / "manifest.json")["summary"]["in"] == 30
    ]
    documents = list(read_texts(unit / "00000.jsonl.zst"))
    writer = TextWriter(unit / "00000.jsonl.zst")
    for document in documents[1:]:
        writer.write(document)
    writer.close()
    manifest = read_json(unit / "manifest.json")
    manifest["sizes"]["00000.jsonl.zst"] = (unit / "00000.jsonl.zst").stat().st_size
    write_json(unit / "manifest.json", manifest)
    with pytest.raises(RuntimeError, match="unaccounted"):
        build_corpus({"path": str(folder), "min_characters": 11}, out)
    assert snapshot(out) == before


def kill_builds(tmp_path, kills, seconds, workers):
    """Kill a build of 6 files `kills` times, each a random moment after it began; then let it end, and compare.

    A build that ends before its kill is undone: the old corpus comes back, and from then on kills come in half the time.
    So the number of kills does not depend on how fast the machine is.
    """
    for number in range(6):
        write(tmp_path / "in" / f"s{number}.jsonl", sentences(300, number))
    settings = {"language": "azerbaijani", "path": str(tmp_path / "in"), "engine": {"name": "processes", "workers": workers}}
    out, work = tmp_path / "out", tmp_path / ".out.work"
    build_corpus(settings | {"min_characters": 20}, out)
    old = snapshot(out)
    shutil.rmtree(work)
    shutil.copytree(out, tmp_path / "kept")
    build_corpus(settings | {"min_characters": 21}, tmp_path / "reference")
    new = snapshot(tmp_path / "reference")
    assert new != old
    code = (
        "import corpus.stages.engine; corpus.stages.engine.WORTH_A_PROCESS = 1\n"
        f"from tests.azerbaijani import build_corpus; build_corpus({settings | {'min_characters': 21}!r}, {str(out)!r})"
    )
    chance, killed = random.Random(3), 0
    while killed < kills:
        run = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not work.exists() and run.poll() is None:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, seconds))
        run.send_signal(signal.SIGKILL)
        code_of_end = run.wait()
        assert not out.exists() or snapshot(out) in (old, new)
        if code_of_end == -signal.SIGKILL:
            killed += 1
        else:
            assert code_of_end == 0 and seconds > 0.01, "builds end by themselves, but none can be killed"
            seconds /= 2
            shutil.rmtree(work, ignore_errors=True)
            shutil.rmtree(out)
            shutil.copytree(tmp_path / "kept", out)
    build_corpus(settings | {"min_characters": 21}, out)
    assert snapshot(out) == new
    assert not list(work.glob("*/.*.part"))


def test_a_killed_build_goes_on_and_ends_the_same(tmp_path):
    kill_builds(tmp_path, 2, 0.5, 1)


@pytest.mark.slow
def test_twenty_kills_at_random_moments_and_the_same_bytes(tmp_path):
    kill_builds(tmp_path, 20, 1.5, 2)


def test_killed_between_the_two_renames_the_old_corpus_comes_back(folder, tmp_path, capsys):
    out = tmp_path / "out"
    build_corpus({"path": str(folder)}, out)
    before = snapshot(out)
    out.rename(tmp_path / ".out.old")
    build_corpus({"path": str(folder)}, out)
    assert "already complete" in capsys.readouterr().out
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


def test_too_many_bad_records_stop_the_build_and_are_named(folder, tmp_path):
    with open(folder / "blog.jsonl", "ab") as file:
        file.write(b"[]\n" * 12)
    with pytest.raises(UserError, match=r"'blog': 12 of 42 records(.|\n)*blog\.jsonl, line 31: not_an_object") as caught:
        build_corpus({"path": str(folder)}, tmp_path / "out")
    assert str(caught.value).count("not_an_object") == 10
    report = build_corpus({"path": str(folder), "max_bad_fraction": 0.3}, tmp_path / "out")
    assert report["sources"]["blog"]["rejected"] == {"not_an_object": 12}


def test_every_fault_of_a_file_is_counted(tmp_path):
    """The fault table: unreadable records are set aside with their place, and the totals agree for every source."""
    good = [json.dumps({"text": text}, ensure_ascii=False).encode() for text in sentences(60, 9)]
    bad = [
        b'{"text": "abc',
        b"[]",
        b'"abc"',
        b"17",
        b"null",
        b'{"text": null}',
        b'{"text": 5}',
        b'{"text": ""}',
        b'{"id": 1}',
        b'{"text": "\xff\xfe"}',
        b'{"text": "\\ud800"}',
        b"\x00\x00",
    ]
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "lines.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([*good, *bad]) + b"\r\n")
    packed = bytearray(gzip.compress(b"\n".join(good)))
    (folder / "cut.jsonl.gz").write_bytes(packed[: len(packed) // 2])
    packed[len(packed) // 2] ^= 16
    (folder / "flipped.jsonl.gz").write_bytes(packed)
    (folder / "empty.jsonl").write_bytes(b"")
    report = build_corpus({"path": str(folder), "max_bad_fraction": 1}, tmp_path / "out")
    for name, entry in report["sources"].items():
        aside = sum(entry["removed"].values()) + sum(entry["rejected"].values())
        assert entry["in"] == entry["kept"] + entry["heldout"] + aside, name
    assert report["sources"]["lines"]["in"] == 72
    assert sum(report["sources"]["lines"]["rejected"].values()) == 12
    assert sum(report["sources"]["cut"]["rejected"].values()) == 1
    assert sum(report["sources"]["flipped"]["rejected"].values()) >= 1
    rejected = lines(tmp_path / "out" / "rejected.jsonl.gz")
    assert len(rejected) == sum(report["total"]["rejected"].values())
    assert {reject["line"] for reject in rejected if reject["source"] == "lines"} == set(range(61, 73))


def test_an_unreadable_file_stops_with_a_message(folder, tmp_path):
    (folder / "gone.jsonl").symlink_to(tmp_path / "nothing")
    with pytest.raises(UserError, match=r"gone\.jsonl"):
        build_corpus({"path": str(folder)}, tmp_path / "out")


def test_a_second_detector_is_recorded_for_each_document(tmp_path):
    pytest.importorskip("py3langid", reason="py3langid is optional (requirements-extra.txt)")
    texts = [
        "Bu gün hava çox soyuqdur, uşaqlar evdə qalıb.",
        "12345 67890 !!!",
        "The meeting was about the budget of next year.",
    ]
    write(tmp_path / "in" / "all.jsonl", texts)
    build_corpus({"path": str(tmp_path / "in"), "second_opinion": True, "heldout_fraction": 0}, tmp_path / "out")
    found = [*read_documents(tmp_path / "out", "all"), *lines(tmp_path / "out" / "removed.jsonl.gz")]
    assert {record["text"]: record.get("second_opinion") for record in found} == dict(
        zip(texts, ["az", None, "en"], strict=True)
    )


def test_a_linked_corpus_folder_stays_a_link(folder, tmp_path):
    """The corpus on a larger disk: built, rebuilt with another setting and reused at the link's target."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "runs").mkdir()
    out = tmp_path / "runs" / "out"
    out.symlink_to(tmp_path / "disk")
    for least in (10, 12, 14):
        build_corpus({"path": str(folder), "min_characters": least}, out)
        assert out.is_symlink() and (tmp_path / "disk" / "report.json").exists()
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["out"]
    assert read_json(out / "report.json")["settings"]["min_characters"] == 14


def test_a_finished_corpus_in_a_read_only_place_is_reused(folder, tmp_path, monkeypatch, capsys):
    """For a user without write permission (another user's folder): opening any file for writing would fail."""
    place = tmp_path / "shared"
    report = build_corpus({"path": str(folder)}, place / "out")

    def refuse(name):
        raise AssertionError(f"{name} locked although there is nothing to build")

    monkeypatch.setattr("corpus.build.hold", refuse)
    before = sorted(path.name for path in place.iterdir())
    assert build_corpus({"path": str(folder)}, place / "out") == report
    assert "already complete" in capsys.readouterr().out and sorted(path.name for path in place.iterdir()) == before


def test_a_tiny_corpus_gives_one_document_to_the_held_out_set(tmp_path):
    write(tmp_path / "in" / "few.jsonl", sentences(4, 1))
    write(tmp_path / "in" / "more.jsonl", sentences(9, 2))
    report = build_corpus({"path": str(tmp_path / "in")}, tmp_path / "out")
    assert {name: (entry["kept"], entry["heldout"]) for name, entry in report["sources"].items()} == {
        "few": (4, 0),
        "more": (8, 1),
    }
    none = build_corpus({"path": str(tmp_path / "in"), "heldout_fraction": 0}, tmp_path / "none")
    assert none["total"]["heldout"] == 0  # as requested
    write(tmp_path / "one" / "one.jsonl", sentences(1, 3))
    assert build_corpus({"path": str(tmp_path / "one")}, tmp_path / "single")["total"]["kept"] == 1


def test_a_source_in_another_language_stops_the_build_and_says_what_to_do(tmp_path):
    russian = [f"Москва является столицей России и крупнейшим городом страны, номер {number}" for number in range(20)]
    write(tmp_path / "in" / "strange.jsonl", [*russian, *sentences(10, 1)])
    with pytest.raises(UserError, match=r"'strange': 20 of 30 documents are not Azerbaijani .*ru 20.*max_other_language=0\.5"):
        build_corpus({"path": str(tmp_path / "in")}, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    settings = {"path": str(tmp_path / "in"), "near_duplicates": None}
    some = build_corpus(settings | {"max_other_language": 0.7}, tmp_path / "some")["total"]
    assert (some["removed"]["language"], some["kept"] + some["heldout"]) == (20, 10)
    every = build_corpus(settings | {"language": "generic"}, tmp_path / "every")
    assert every["total"]["kept"] + every["total"]["heldout"] == 30 and every["language"] == "generic"


def test_the_language_is_in_the_corpus_and_in_its_digest(tmp_path):
    phrase = "bir iki ve çok güzel gün için kitap okumak isteyen çocuklar bahçede oturuyor"
    texts = [f"{' '.join(random.Random(number).sample(phrase.split(), 12))} {number}" for number in range(30)]
    write(tmp_path / "in" / "tr.jsonl", texts)
    report = build_corpus({"path": str(tmp_path / "in"), "language": "tr", "near_duplicates": None}, tmp_path / "out")
    assert report["language"] == "turkish" and report["total"]["kept"] >= 25
    assert (tmp_path / "out" / "card.md").read_text().count("Turkish text")
    digest = read_json(tmp_path / "out" / "manifest.json")["digest"]
    with pytest.raises(UserError, match=r"the corpus in .*out: turkish, corpus\.language: generic\. Set language"):
        build_corpus({"path": str(tmp_path / "in"), "language": "generic", "near_duplicates": None}, tmp_path / "out")
    build_corpus({"path": str(tmp_path / "in"), "language": "generic", "near_duplicates": None}, tmp_path / "other")
    assert read_json(tmp_path / "other" / "manifest.json")["digest"] != digest
    with pytest.raises(UserError, match="klingon"):
        build_corpus({"path": str(tmp_path / "in"), "language": "klingon"}, tmp_path / "none")


# Another value of each setting that may change the output: a new setting needs a line here or an entry in PLACES.
OTHERS = {
    "language": "turkish",
    "max_bad_fraction": 0.5,
    "max_other_language": 0.9,
    "transliterate": False,
    "personal_data": False,
    "second_opinion": True,
    "min_characters": 40,
    "language_check": False,
    "language_score": 0.5,
    "quality": {"preset": "none", "min_words": 3},
    "line_duplicates": 3,
    "near_duplicates": 0.9,
    "heldout_fraction": 0.4,
    "heldout_max": 1,
}


def test_every_setting_is_in_a_digest_or_known_not_to_change_the_output(folder):
    assert {field.name for field in fields(Corpus)} == set(PLACES) | set(OTHERS) and not set(PLACES) & set(OTHERS)
    assert {name for names in STAGE_SETTINGS.values() for name in names} == set(OTHERS)
    base = Corpus(path=str(folder))
    identities = [digest_of(identity_settings(replace(base, **{key: value}))) for key, value in OTHERS.items()]
    assert len({digest_of(identity_settings(base)), *identities}) == 1 + len(OTHERS)
    assert all(identity_settings(replace(base, **{key: "other"})) == identity_settings(base) for key in PLACES)


def test_a_stage_gets_no_setting_that_is_not_in_its_digest(folder, tmp_path, monkeypatch):
    seen = {}

    def stage(self, name, function, tasks, inputs, original=Stages._stage):
        seen[name] = {key for task in tasks for key in task.get("settings", {})}
        assert not set(OTHERS) & {key for task in tasks for key in task}, "a setting beside task['settings']"
        return original(self, name, function, tasks, inputs)

    monkeypatch.setattr(Stages, "_stage", stage)
    build_corpus({"path": str(folder)}, tmp_path / "out")
    assert {name: keys for name, keys in seen.items() if keys} == {
        **{name: set(STAGE_SETTINGS[name]) for name in ("annotate", "decide", "duplicates", "split")},
        **{name: {"language"} for name in ("lines", "write")},
    }
