"""Models on other items: equal items give equal answers, retyped ones keep their gold, the report shows both."""

from pathlib import Path

import pytest

from common.files import read_json, read_jsonl, write_jsonl
from evaluation.report import build_report
from evaluation.results import collect
from language.azerbaijani import LANGUAGE as AZ
from tasks.records import load_task_file
from tests.test_finetune import checkpoint, files, run  # noqa: F401  (fixtures)
from training.transfer import main, retyped, retyped_example


def predicted(place: Path) -> list[dict]:
    return [row for _, row in read_jsonl(place / "predictions-test.jsonl")]


def test_equal_texts_are_retyped_equally():
    text, ways = "Çox gözəl şəhərdir, İlqar! Işıq.", AZ.typings
    assert "".join(retyped(text, ways["ascii"], 1)) == "Cox gozel seherdir, Ilqar! Isiq."
    assert "".join(retyped(text, ways["ascii"], 0)) == text
    half = "".join(retyped(text, ways["ascii"], 0.5))
    assert half == "".join(retyped(text, ways["ascii"], 0.5)) and half not in (text, "Cox gozel seherdir, Ilqar! Isiq.")
    assert "".join(retyped("şəki", ways["digraphs"], 1)) == "sheki"
    assert "".join(retyped("Şəki", ways["cyrillic"], 1)) == "шәки"


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_an_answer_keeps_its_offset(share):
    context = "Şuşa və Şəki şəhərləri. Çay Şəkidə axır."
    start = context.index("Şəkidə")
    example = {"id": "1", "context": context, "question": "Harada?", "answers": [{"text": "Şəkidə", "start": start}]}
    new = retyped_example(example, AZ.typings["digraphs"], share)
    answer = new["answers"][0]
    assert new["context"][answer["start"] :].startswith(answer["text"]) and new["context"] != context
    assert share < 1 or answer["text"] == "Shekide"


def test_the_same_items_give_the_same_predictions(checkpoint, files, tmp_path, capsys):  # noqa: F811
    summary = run(checkpoint, files["tagging"], "tagging", tmp_path / "runs", 0, "recipe.epochs=1")
    place, name = Path(summary["folder"]), summary["task"]
    known = {row["id"] for row in predicted(place)}
    other = [e for e in load_task_file(files["tagging"], "tagging").examples if e["id"] in known]
    write_jsonl(tmp_path / "same.jsonl", [*other, {"id": "strange", "words": ["a"], "tags": ["B-XYZ"]}])
    words = [str(tmp_path / "runs"), "--out", str(tmp_path / "out"), "--device", "cpu"]
    assert main([*words, "--test", f"same={tmp_path / 'same.jsonl'}", "--typed", "ascii:0", "--typed", "ascii"]) == 0
    assert "1 set aside" in capsys.readouterr().out  # a tag that the model does not know is listed, not scored
    for ending in ("same", "ascii-0"):
        found = predicted(tmp_path / "out" / "tiny" / f"{name}-{ending}" / "seed-0")
        assert {row["id"]: row["pred"] for row in found} == {row["id"]: row["pred"] for row in predicted(place)}
    typed = predicted(tmp_path / "out" / "tiny" / f"{name}-ascii" / "seed-0")
    assert {"Baki", "Gence", "Seki"} & {word for row in typed for word in row["words"]}
    # A second call computes nothing; the report has one column more per set, and the average is of the task only.
    path = tmp_path / "out" / "tiny" / f"{name}-same" / "seed-0" / "summary.json"
    before = path.stat().st_mtime_ns
    assert main([*words, "--test", f"same={tmp_path / 'same.jsonl'}"]) == 0 and path.stat().st_mtime_ns == before
    report = collect([tmp_path / "runs", tmp_path / "out"])
    assert report.transfer_tasks == {f"{name}-{ending}" for ending in ("same", "ascii-0", "ascii")}
    assert report.averages["tiny"].value == report.cells["tiny", name].estimate.value
    text = build_report([tmp_path / "runs", tmp_path / "out"], tmp_path / "report")
    assert f"{name}-ascii" in text and read_json(path)["trained_on"] == name


def test_unusable_requests_are_named(checkpoint, files, tmp_path, capsys):  # noqa: F811
    run(checkpoint, files["pair"], "pair", tmp_path / "runs", 0, "recipe.epochs=1", "save_checkpoint=false")
    words = [str(tmp_path / "runs"), "--out", str(tmp_path / "out")]
    for more, said in (
        ([], "nothing to predict"),
        (["--typed", "ascii"], "none with its model"),
        (["--test", "tr"], "expected NAME=FILE"),
    ):
        assert main([*words, *more]) == 2 and said in capsys.readouterr().err
    run(checkpoint, files["choice"], "choice", tmp_path / "runs", 0, "recipe.epochs=1")
    assert main([*words, "--typed", "runes"]) == 2 and "expected ascii, e, digraphs" in capsys.readouterr().err
