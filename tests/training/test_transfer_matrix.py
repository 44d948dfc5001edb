"""Languages against languages, on made-up ones: what carries over shows, shuffled labels do not, no target data selects."""

import random
from pathlib import Path

import pytest
import torch

from common.errors import UserError
from common.files import read_json, write_jsonl, write_text
from common.settings import typed
from evaluation.transfer_page import matrix, pairs, sections, summary_lines
from tests.conftest import run_script
from tests.test_finetune import checkpoint, settings_of  # noqa: F401  (fixture)
from training.settings import Benchmark, Transfer
from training.task_models import read_start
from training.transfer_matrix import check_tasks, few, pack_of, read_sides, relation, task_keys, transfer_matrix

WORDS = {  # az_near shares az_own's words, tr_far has its own, kk_far in another script; az_mixed: labels by chance
    "az_own": {"a": ["alma", "armud", "nar"], "b": ["şəhər", "kənd", "küçə"]},
    "az_near": {"a": ["alma", "nar"], "b": ["kənd", "küçə"]},
    "tr_far": {"a": ["masa", "sandalye"], "b": ["gemi", "uçak"]},
    "kk_far": {"a": ["қарлығаш", "бүркіт"], "b": ["темір", "болат"]},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("languages")
    for language in (*WORDS, "az_mixed"):
        for split, count in (("train", 90), ("dev", 30), ("test", 60)):
            draw = random.Random(f"{language} {split}")
            rows = []
            for n in range(count):
                label = "ab"[n % 2]
                word = draw.choice(WORDS.get(language, WORDS["az_own"])[label])
                label = draw.choice("ab") if language == "az_mixed" else label
                rows.append({"id": f"{split}{n}", "text": f"{word} {draw.randrange(100)}", "label": label})
            write_jsonl(place / f"{language}.{split}.jsonl", rows)
    write_jsonl(place / "tr_tiny.test.jsonl", [{"id": n, "text": "alma", "label": "a"} for n in range(5)])
    return place


def entry_of(folder, *languages) -> dict:
    files = {split: f"{folder}/{{language}}.{split}.jsonl" for split in ("train", "dev", "test")}
    recipe = {"epochs": 12, "batch_size": 16, "lr": 3e-3}
    names = {name: None for name in languages}
    if "tr_tiny" in names:
        names["tr_tiny"] = {"train": None, "dev": None}
    return {"name": "words", "kind": "classification", "metric": "accuracy", **files, "recipe": recipe, "languages": names}


def made(checkpoint, entry, out, **transfer) -> dict:  # noqa: F811
    whole = typed(Benchmark, {"seeds": [0], "out": str(out), "transfer": {"tasks": [entry], **transfer}})
    check_tasks(whole.transfer)
    settings = [(entry, settings_of(config="benchmark"))]
    settings[0][1].recipe.epochs, settings[0][1].recipe.lr, settings[0][1].recipe.batch_size = 12, 3e-3, 16
    assert transfer_matrix(settings, [read_start(checkpoint)], whole, torch.device("cpu")) == 0
    return read_json(out / "transfer.json")["results"][0]


def at(result: dict) -> dict:
    return {(cell["source"], cell["target"], cell["setting"]): cell for cell in result["cells"]}


@pytest.mark.slow  # seven runs
def test_what_is_shared_carries_over_and_the_rest_does_not(checkpoint, folder, tmp_path, capsys):  # noqa: F811
    entry = entry_of(folder, "az_own", "az_near", "tr_far", "tr_tiny", "uz_none")
    result = made(checkpoint, entry, tmp_path, sources=["az_own"], shots=[0, 40, 500], oracle=True)
    cells = at(result)
    assert cells["az_own", "az_own", "own"]["score"] > 0.9 and cells["az_own", "az_near", "zero-shot"]["score"] > 0.9
    far = cells["az_own", "tr_far", "zero-shot"]
    assert far["score"] < 0.7 < cells["az_own", "tr_far", "k=40"]["score"]
    assert cells["az_own", "tr_far", "k=500"]["missing"] == "90 training examples"
    assert "oracle" in {setting for _, _, setting in cells} and far["low"] < far["score"] < far["high"]
    assert "5 examples, fewer than transfer.least=50" in cells["az_own", "tr_tiny", "zero-shot"]["missing"]
    assert "no file" in cells["az_own", "uz_none", "zero-shot"]["missing"]
    shares = {(pair["source"], pair["target"]): pair["shared"] for pair in result["pairs"]}
    assert shares["az_own", "az_near"] > 0.9 > shares["az_own", "tr_far"]
    about = {language["language"]: language for language in result["languages"]}
    assert about["tr_far"]["script"] == "Latn" and about["az_near"]["no source because"] == "not in transfer.sources"
    said = capsys.readouterr().out
    assert "zero-shot" in said and "oracle: selected on the target's dev" in said and (tmp_path / "transfer.html").exists()
    # The same once more makes nothing new.
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")}
    assert len(times) == 7 and made(checkpoint, entry, tmp_path, sources=["az_own"], shots=[0, 40, 500], oracle=True) == result
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("summary.json")} == times


def test_shuffled_labels_carry_nothing_over_and_the_target_selects_nothing(checkpoint, folder, tmp_path):  # noqa: F811
    entry = entry_of(folder, "az_mixed", "az_own")
    result = made(checkpoint, entry, tmp_path / "a", sources=["az_mixed"])
    cell = at(result)["az_mixed", "az_own", "zero-shot"]
    assert cell["low"] < 0.5 < cell["high"] or abs(cell["score"] - 0.5) < 0.25
    # Other dev and train sets of the target: the same zero-shot predictions.
    other = folder.parent / "other"
    other.mkdir()
    for path in folder.iterdir():
        write_text(other / path.name, path.read_text(encoding="utf-8"))
    for split in ("train", "dev"):
        write_text(other / f"az_near.{split}.jsonl", (folder / f"az_mixed.{split}.jsonl").read_text(encoding="utf-8"))
    found = [
        made(checkpoint, entry_of(place, "az_own", "az_near"), tmp_path / place.name, sources=["az_own"])
        for place in (folder, other)
    ]
    assert found[0]["cells"] == found[1]["cells"]


def test_few_examples_are_nested_and_languages_have_their_packs(folder, checkpoint):  # noqa: F811
    transfer = Transfer(tasks=[entry_of(folder, "az_own", "kk_far")], latin=True)
    own, far = read_sides(transfer.tasks[0], transfer)
    ids = [[example["id"] for example in few(own.task, k)] for k in (5, 20)]
    assert ids[1][:5] == ids[0] and len(set(ids[1])) == 20
    assert far.script == "Latn" and own.script == "Latn" and far.task.labels == own.task.labels == ["a", "b"]
    plain = read_sides(transfer.tasks[0], Transfer(tasks=transfer.tasks))[1]
    assert plain.script == "Cyrl" and plain.untrained == ""
    assert (
        pack_of("azj_Latn").name == "azerbaijani" and pack_of("kk").name == "kazakh" and pack_of("eng_Latn").name == "generic"
    )
    tokenizer = read_start(checkpoint).tokenizer
    same = relation(own, own, tokenizer)
    assert same["shared"] > 0.9 and same["fertility"] >= 1
    strict = Transfer(tasks=transfer.tasks, least=100)
    assert read_sides(transfer.tasks[0], strict)[0].untrained == "90 training examples, fewer than transfer.least=100"


def test_a_page_of_cells_that_are_known():
    result = {
        "model": "<m>",
        "task": "t",
        "metric": "accuracy",
        "claim": False,
        "latin": True,
        "seeds": 2,
        "targets": ["x", "y"],
        "languages": [
            {"language": n, "script": "Latn", "train": 1, "dev": 1, "test": 1, "no source because": ""} for n in "xy"
        ],
        "cells": [
            {"source": "x", "target": "x", "setting": "own", "score": 0.9, "low": 0.8, "high": 1.0},
            {"source": "x", "target": "y", "setting": "zero-shot", "score": 0.5, "low": 0.4, "high": 0.6},
            {"source": "x", "target": "y", "setting": "k=8", "score": 0.7, "low": 0.6, "high": 0.8},
            {"source": "x", "target": "y", "setting": "oracle", "missing": "none"},
        ],
        "pairs": [{"source": "x", "target": "y", "fertility": 1.5, "shared": 0.25}],
    }
    assert matrix(result, "zero-shot") == [["trained on", "x", "y"], ["x", "90.0 (80.0 to 100.0)", "50.0 (40.0 to 60.0)"]]
    assert pairs(result)[1][:5] == ["x", "y", "Latn, Latn", "1.50", "25.0"] and pairs(result)[1][-1] == "no data: none"
    ((_, title, content),) = sections([result])
    assert title == "&lt;m&gt; on t" and "without a claim" in content and "<svg" in content
    assert any("no data" in line for line in summary_lines([result]))


def test_what_cannot_be_is_named(folder, tmp_path):
    entry = entry_of(folder, "az_own")
    for change, said in (
        ({"kind": None}, r"transfer\.tasks\[0\]: no kind"),
        ({"kind": "poems"}, "task.kind=poems"),
        ({"language_": 1}, "language_: no such key"),
        ({"languages": {"az": {"trian": "x"}}}, r"languages\.az\.trian: no such key"),
    ):
        with pytest.raises(UserError, match=said):
            check_tasks(Transfer(tasks=[{**entry, **change}]))
    with pytest.raises(UserError, match="two have the same name"):
        check_tasks(Transfer(tasks=[entry, entry]))
    with pytest.raises(UserError, match=r"transfer\.sources: tr_far is no language of transfer\.tasks.*az_own"):
        check_tasks(Transfer(tasks=[entry], sources=["tr_far"]))
    with pytest.raises(UserError, match="no language has data"):
        read_sides({**entry, "languages": {"uz_none": None}}, Transfer())
    with pytest.raises(UserError, match=r"shots=\[-1\]"):
        typed(Benchmark, {"transfer": {"shots": [-1]}})
    assert "languages" not in task_keys(entry)
    words = ["benchmark.py", "experiment=transfer", f"workdir={tmp_path}", "models=[{name: a, checkpoint: nowhere}]"]
    result = run_script(*words)
    assert result.returncode == 2 and "nowhere" in result.stderr and "Traceback" not in result.stderr, result.stderr
