import os
import signal
import threading
import time
from itertools import pairwise

import pytest

from common.errors import UserError
from common.files import read_jsonl, write_jsonl
from common.settings import typed
from corpus.build import heldout_path, list_sources, read_documents
from corpus.matching.duplicates import near_pairs
from corpus.matching.signatures import Signatures
from corpus.settings import Engine as EngineSettings
from corpus.stages import engine as engines
from corpus.stages.engine import Engine
from language.azerbaijani import fold_key
from tests.azerbaijani import build_corpus
from tests.corpus.test_build import sentences, snapshot, write

PROCESSES = {"name": "processes", "workers": 2}


def square(task):
    return task["value"] ** 2


def misbehave(task):
    if task["how"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if task["how"] == "user":
        raise UserError("line 3: wrong")
    if task["how"] == "defect":
        raise ZeroDivisionError("a defect")
    return task["how"]


def slow_square(task):
    """As slow as a unit; prints where it runs, once."""
    place = os.path.join(task["folder"], f"{os.getpid()}")
    with open(place, "a"):
        pass
    time.sleep(0.3)
    return task["value"] ** 2


@pytest.fixture
def two_workers(monkeypatch):
    monkeypatch.setattr(engines, "WORTH_A_PROCESS", 1)
    return EngineSettings(**PROCESSES)


def test_results_are_in_task_order(two_workers):
    tasks = [{"value": value, "size": value % 5} for value in range(23)]
    with Engine(two_workers, 1000) as engine:
        assert engine.run(square, tasks, "squares") == [value**2 for value in range(23)]
        assert engine.run(square, tasks[:1], "one") == [0]
    with Engine(EngineSettings(workers=1), 1000) as engine:
        assert engine.run(square, tasks, "squares") == [value**2 for value in range(23)]


def test_a_worker_that_dies_is_an_error_that_names_the_file(two_workers):
    tasks = [{"how": "well", "name": f"file{n}"} for n in range(5)] + [{"how": "die", "name": "huge.jsonl", "size": 1}]
    with Engine(two_workers, 1000) as engine:
        with pytest.raises(UserError, match=r"huge\.jsonl.*killed.*memory"):
            engine.run(misbehave, tasks, "files")
        with pytest.raises(UserError, match="line 3: wrong"):  # and the engine can be used again
            engine.run(misbehave, [*tasks[:5], {"how": "user"}], "files")
        with pytest.raises(RuntimeError, match="a defect"):
            engine.run(misbehave, [*tasks[:5], {"how": "defect"}], "files")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"name": "slurm"}, "slurm"),
        ({"workers": 0}, "workers=0"),
        ({"workers": True}, "workers"),
        ({"threads": 2}, "threads"),
        ({"address": "tcp://x:1"}, "address"),
    ],
)
def test_settings_that_cannot_work(settings, named):
    with pytest.raises(UserError, match=named):
        typed(EngineSettings, settings, "corpus.engine")


def many_files(tmp_path):
    """Six files of three sources, with duplicates across them, common lines and broken records."""
    shared = list(sentences(20, 99))
    for number in range(6):
        texts = [*sentences(30 + 10 * number, number), *shared[number : number + 5]]
        texts += [f"{text}\nBu sətir bir çox sənəddə təkrar olunur və heç nə demir" for text in sentences(3, 50 + number)]
        write(tmp_path / "in" / f"s{number % 3}" / f"{number}.jsonl", texts)
    with open(tmp_path / "in" / "s1" / "1.jsonl", "ab") as file:
        file.write(b"[]\n")
    entries = [{"name": f"s{number}", "path": f"s{number}"} for number in range(3)]
    return {"path": str(tmp_path / "in"), "sources": entries, "line_duplicates": 5}


def test_two_workers_write_the_same_bytes_as_one(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "WORTH_A_PROCESS", 1)
    settings = many_files(tmp_path)
    one = build_corpus(settings | {"engine": {"workers": 1}}, tmp_path / "one")
    build_corpus(settings | {"engine": PROCESSES}, tmp_path / "two")
    assert snapshot(tmp_path / "one") == snapshot(tmp_path / "two")
    assert one["total"]["removed"]["exact_duplicate"] > 10
    # A common line stays in the first document of each source that has it.
    assert one["total"]["lines_dropped"] == 18 - 3
    for name in ("s0", "s1", "s2"):
        texts = [document["text"] for document in read_documents(tmp_path / "one", name)]
        texts += [held["text"] for _, held in read_jsonl(heldout_path(tmp_path / "one")) if held["source"] == name]
        assert sum("Bu sətir" in text for text in texts) == 1


@pytest.mark.slow
def test_dask_writes_the_same_bytes_though_a_worker_is_killed(tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    monkeypatch.setattr(engines, "WORTH_A_PROCESS", 1)
    settings = many_files(tmp_path)
    build_corpus(settings | {"engine": {"workers": 1}}, tmp_path / "one")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        with Engine(EngineSettings("dask", address=cluster.scheduler_address), 1000) as engine:
            places = tmp_path / "places"
            places.mkdir()

            def kill_one():
                while not list(places.iterdir()):
                    time.sleep(0.01)
                os.kill(int(min(path.name for path in places.iterdir())), signal.SIGKILL)

            killer = threading.Thread(target=kill_one)
            killer.start()
            tasks = [{"value": value, "folder": str(places)} for value in range(12)]
            assert engine.run(slow_square, tasks, "squares") == [value**2 for value in range(12)]
            killer.join()
            assert len(list(places.iterdir())) == 3  # the third worker took the place of the dead one
        work = tmp_path / ".dask.work"

        def kill_while_building():
            while not list(work.glob("annotate/*/manifest.json")):
                time.sleep(0.005)
            os.kill(next(iter(cluster.workers.values())).pid, signal.SIGKILL)

        killer = threading.Thread(target=kill_while_building)
        killer.start()
        build_corpus(settings | {"engine": {"name": "dask", "address": cluster.scheduler_address}}, tmp_path / "dask")
        killer.join()
    assert snapshot(tmp_path / "dask") == snapshot(tmp_path / "one")


@pytest.mark.slow
def test_no_scheduler_at_the_address_is_a_message():
    pytest.importorskip("distributed")
    engine = Engine(EngineSettings("dask", address="not-an-address"), 1)
    with pytest.raises(UserError, match="not-an-address"):
        engine.__enter__()


def keys_of(out):
    held = [record["text"] for _, record in read_jsonl(heldout_path(out))]
    trained = [record["text"] for name in list_sources(out) for record in read_documents(out, name)]
    return held, trained


def test_nothing_heldout_has_a_near_duplicate_in_training(tmp_path):
    """Checked with the index itself, over the texts as they were written."""
    base = list(sentences(120, 1))
    near = [text.replace("və", "ilə", 1) for text in base]
    write(tmp_path / "in" / "a.jsonl", [f"{one} {two}" for one, two in pairwise(base)])
    write(tmp_path / "in" / "b.jsonl", [f"{one} {two}" for one, two in pairwise(near)])
    report = build_corpus({"path": str(tmp_path / "in"), "heldout_fraction": 0.3}, tmp_path / "out")
    held, trained = keys_of(tmp_path / "out")
    assert len(held) >= 30 and report["total"]["removed"]["near_duplicate"] >= 25
    signatures = Signatures()
    assert all(signatures.add(fold_key(text)) for text in held + trained)
    pairs = near_pairs(signatures.finish(), 0.7)
    assert not [pair for pair in pairs.tolist() if pair[0] < len(held) <= pair[1]]


def test_heldout_takes_whole_sites(tmp_path):
    records = [
        {"text": text, "url": f"https://www.site{number % 40}.az/{number}"} for number, text in enumerate(sentences(400, 2))
    ]
    records += [{"text": text, "url": f"https://large.az/{number}"} for number, text in enumerate(sentences(300, 3))]
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "web.jsonl", records)
    report = build_corpus({"path": str(tmp_path / "in"), "heldout_fraction": 0.1}, tmp_path / "out")
    assert report["sources"]["web"]["heldout_by"] == "site"
    assert report["sources"]["web"]["heldout"] == 70
    held = {record["meta"]["url"].split("/")[2] for _, record in read_jsonl(heldout_path(tmp_path / "out"))}
    trained = {document["meta"]["url"].split("/")[2] for document in read_documents(tmp_path / "out", "web")}
    assert len(held) == 7 and "large.az" not in held
    assert not held & trained


def test_a_source_of_one_site_is_divided_by_document(tmp_path):
    (tmp_path / "in").mkdir()
    records = [{"text": text, "url": f"https://one.az/{number}"} for number, text in enumerate(sentences(100, 4))]
    write_jsonl(tmp_path / "in" / "web.jsonl", records)
    for fraction, heldout, way in ((0.1, 10, "document"), (0, 0, "none")):
        report = build_corpus({"path": str(tmp_path / "in"), "heldout_fraction": fraction}, tmp_path / f"{fraction}")
        assert (report["sources"]["web"]["heldout"], report["sources"]["web"]["heldout_by"]) == (heldout, way)


def test_documents_with_task_items_are_removed_and_named(tmp_path):
    texts = list(sentences(40, 5))
    write(tmp_path / "in" / "a.jsonl", texts)
    task = tmp_path / "task.jsonl"
    write_jsonl(task, [{"text": texts[3].upper()}, {"text": "tamam başqa bir cümlə"}])
    settings = {"path": str(tmp_path / "in"), "decontaminate": [str(task)]}
    report = build_corpus(settings, tmp_path / "out")
    assert report["total"]["removed"] == {"task_item": 1}
    ((_, gone),) = read_jsonl(tmp_path / "out" / "removed.jsonl.gz")
    assert gone["line"] == 4 and "task" in gone["of"]
    assert texts[3] not in [text for texts in keys_of(tmp_path / "out") for text in texts]
    before = snapshot(tmp_path / "out")
    write_jsonl(task, [{"text": texts[7]}])  # other items: the index is part of the digest
    assert build_corpus(settings, tmp_path / "out")["total"]["removed"] == {"task_item": 1}
    assert snapshot(tmp_path / "out") != before


def test_common_lines_are_counted_per_site(tmp_path):
    """A line in 12 of 1,500 documents is text that recurs; one in 12 of 40 of its site is a menu."""
    write(
        tmp_path / "in" / "laws.jsonl",
        [
            f"{text}\nüç ildən beş ilədək müddətə azadlıqdan məhrum etmə ilə cəzalandırılır" if number < 12 else text
            for number, text in enumerate(sentences(1500, 1))
        ],
    )
    records = [{"text": text, "url": f"https://a.az/{number}"} for number, text in enumerate(sentences(40, 2))]
    records += [{"text": text, "url": f"https://b.az/{number}"} for number, text in enumerate(sentences(1500, 3))]
    for number in range(12):
        records[number]["text"] += "\nAna səhifə | Xəbərlər | Əlaqə | Haqqımızda"
        records[-number - 1]["text"] += "\nBu barədə APA-ya nazirlikdən məlumat verilib"
    write_jsonl(tmp_path / "in" / "web.jsonl", records)
    report = build_corpus({"path": str(tmp_path / "in")}, tmp_path / "out")
    assert report["sources"]["laws"]["lines_dropped"] == 0
    assert report["sources"]["web"]["lines_dropped"] == 11
