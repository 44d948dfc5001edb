"""The report from files only: same bytes twice, escaped, missing runs reported; then the baselines."""

import csv
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from common.errors import UserError
from common.files import read_json, write_json, write_jsonl
from evaluation.baselines import predict_baseline, write_baseline
from evaluation.costs import tuning_problems
from evaluation.details import analyse
from evaluation.published import published_average, published_rows
from evaluation.report import build_report, collect, main
from evaluation.results import groups_of
from evaluation.tables import markdown, terminal
from language.azerbaijani import LANGUAGE as AZ
from tasks.base import kind_of, known_kinds
from tasks.load import Task
from tasks.scoring import score_predictions
from tests.evaluation.synthetic import SIZES, write_benchmark

LABELS = ["elm", "idman", "tarix"]
EVIL = '<script>alert("x")</script> & $x_1$'

BAD = f"bad{EVIL}".replace("/", "|")


def _rows(quality, seed, n=60, kind="classification"):
    random = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        hit = random.random() < quality
        if kind == "classification":
            gold = LABELS[i % 3]
            row = {"gold": gold, "pred": gold if hit else LABELS[(i + 1) % 3], "scores": {}, "text": f"{EVIL} {i}"}
        elif kind == "tagging":
            row = {
                "gold": ["B-PER", "I-PER", "O"],
                "pred": ["B-PER", "I-PER" if hit else "O", "O"],
                "words": ["Əli", EVIL, "gəldi"],
            }
        elif kind == "choice":
            row = {"gold": i % 3, "pred": i % 3 if hit else (i + 1) % 3, "scores": [0.0] * 3, "group": "tarix"}
        else:
            row = {"gold": ["Bakı"] if i % 3 else [""], "pred": ("Bakı" if i % 3 else "") if hit else "bir Bakı"}
        rows.append({"id": f"e{i}", **row, "tokens": 5, "truncated": False})
    return rows


def _write(folder, model, task, seed, rows, kind="classification", **more):
    place = folder / model / task / f"seed-{seed}"
    write_jsonl(place / "predictions-test.jsonl", rows)
    write_jsonl(place / "predictions-dev.jsonl", rows)
    summary = {"model": model, "task": task, "kind": kind, "seed": seed, "hours": 0.5, "peak_memory_bytes": 2**30}
    summary |= {
        "trainable_parameters": 1000,
        "train_tokens": 10,
        "labels": LABELS if kind == "classification" else None,
        "language": "azerbaijani",
    }
    write_json(place / "summary.json", summary | more)
    return place


@pytest.fixture
def bench(tmp_path):
    folder = tmp_path / "bench"
    for seed in range(3):
        for number, (model, quality) in enumerate((("good", 0.93), ("nearly", 0.92), (BAD, 0.5))):
            for task, kind in (("topic", "classification"), ("ner", "tagging"), ("exam", "choice"), ("squad", "qa")):
                _write(folder, model, task, seed, _rows(quality, 10 * seed + number, kind=kind), kind)
    return folder


def _curves(folder):
    lines = [{"step": s, "loss": 9.0 - s / 100} for s in range(0, 300, 10)]
    held = {"loss": 8.0, "accuracy": 0.1, "bits_per_character": 4.2, "sources": {EVIL: {"bits_per_character": 4.4}}}
    write_jsonl(
        folder / "metrics.jsonl", [*lines, {"step": 0, "heldout": held}, {"step": 290, "heldout": held | {"loss": 6.5}}]
    )
    return folder


def test_two_runs_of_the_report_give_the_same_bytes(bench, tmp_path):
    curves = _curves(tmp_path / "pretrain")
    write_json(tmp_path / "corpus.json", {"kept": 3, "sources": {EVIL: {"documents": 2, "words": 10}}})
    for name in ("one", "two"):  # two processes, so that set order would show
        command = [sys.executable, "-m", "evaluation.report", str(bench), "--out", str(tmp_path / name / "r.html")]
        command += ["--pretraining", str(curves), "--corpus", str(tmp_path / "corpus.json")]
        done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
        assert done.returncode == 0, done.stderr
        assert "good" in done.stdout and "average" in done.stdout
    for ending in (".html", ".md", ".csv", ".tex", "-details.csv"):
        assert (tmp_path / "one" / f"r{ending}").read_bytes() == (tmp_path / "two" / f"r{ending}").read_bytes()
    page = (tmp_path / "one" / "r.html").read_text()
    assert page.count("<script") == 1 and page.count("</script>") == 1 and "&lt;script&gt;" in page
    assert page.count("<svg") == page.count("</svg>") >= 6
    assert "http://" not in page.replace("http://www.w3.org", "") and "https://" not in page
    assert r"\& \$x\_1\$" in (tmp_path / "one" / "r.tex").read_text()


@pytest.mark.slow
def test_a_big_report_is_the_same_in_another_process(tmp_path):
    """5 models x 6 tasks x 4 seeds, twice, with different hash seeds."""
    write_benchmark(tmp_path / "bench", {f"model-{number}": 2.0 + 0.3 * number for number in range(5)}, 4)
    rows = [{"id": f"test-{n}", "count": n % 40} for n in range(SIZES["azsci"])]
    write_jsonl(tmp_path / "bench" / "inputs" / "azsci-frequencies.jsonl", rows)
    for name in ("1", "2"):
        command = [sys.executable, "-m", "evaluation.report", str(tmp_path / "bench"), "--out", str(tmp_path / name / "r.html")]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            cwd=Path(__file__).parents[2],
            check=False,
            env=os.environ | {"PYTHONHASHSEED": name},
        )
        assert done.returncode == 0, done.stderr
    for ending in (".html", ".md", ".csv", ".tex", "-details.csv"):
        assert (tmp_path / "1" / f"r{ending}").read_bytes() == (tmp_path / "2" / f"r{ending}").read_bytes()
    assert "120 runs" in (tmp_path / "1" / "r.html").read_text()


def _scored(folder, model, **more):
    rows = [{"id": "1", "gold": ["QIZIL"], "pred": "qızıl"}, {"id": "2", "gold": ["TITLE"], "pred": "title"}]
    _write(folder, model, "squad", 0, rows, "qa", **more)
    return collect([folder])


def test_answers_are_scored_in_the_language_that_the_summary_names(tmp_path):
    report = _scored(tmp_path / "a", "m", metric="f1_language", language="turkish")
    assert report.cells["m", "squad"].estimate.value == 0.5 and not report.problems  # TITLE has an I and title an i
    report = _scored(tmp_path / "b", "m", metric="f1_language", language="generic")
    assert report.cells["m", "squad"].estimate.value == 0.5
    # Runs from before languages were recorded: in the metric's name, or nowhere.
    report = _scored(tmp_path / "c", "m", metric="f1_az", language=None)
    assert report.metrics["squad"] == "f1_language" and report.own["squad"].language.name == "azerbaijani"
    report = _scored(tmp_path / "d", "m", metric="f1", language=None)
    assert report.own["squad"].language.name == "generic" and "no summary.json names the language" in report.problems[0]
    # Together with a run that names the language, all are scored in it; with two languages there is no one score.
    report = _scored(tmp_path / "d", "n", metric="f1", language="turkish")
    assert report.own["squad"].language.name == "turkish" and not report.problems
    with pytest.raises(UserError, match="squad are in kazakh, but in turkish by"):
        _scored(tmp_path / "d", "o", metric="f1", language="kazakh")


def test_table_values_are_the_mean_over_seeds_and_marks_are_right(bench, tmp_path):
    build_report([bench], tmp_path / "out")
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "report.csv").read_text())))
    row = next(r for r in rows if r["model"] == "good" and r["task"] == "topic" and r["headline"] == "1")
    scores = [
        score_predictions(bench / "good" / "topic" / f"seed-{s}" / "predictions-test.jsonl", "classification", LABELS)["score"]
        for s in range(3)
    ]
    assert float(row["score"]) == pytest.approx(np.mean(scores), abs=1e-9)
    assert float(row["low"]) < float(row["score"]) < float(row["high"])
    topic = {r["model"][:3]: r["mark"] for r in rows if r["task"] == "topic" and r["headline"] == "1"}
    assert sorted((topic["goo"], topic["nea"])) == ["best", "tied"] and topic["bad"] == ""


def test_two_seeds_that_differ_have_bounds_inside_the_scale_and_a_note(tmp_path):
    for seed, quality in ((0, 0.1), (1, 0.55)):
        _write(tmp_path, "m", "topic", seed, _rows(quality, seed))
        _write(tmp_path, "steady", "topic", seed, _rows(0.7, 5))
    report = collect([tmp_path])
    estimate, steady = report.cells["m", "topic"].estimate, report.cells["steady", "topic"]
    assert (estimate.low, estimate.high) == (0.0, 1.0) and estimate.df < 2  # one difference says little about the spread
    assert report.cells["m", "topic"].spread == report.averages["m"].spread == "[0.0, 100.0]"
    assert steady.spread == f"± {50 * (steady.estimate.high - steady.estimate.low):.1f}"
    build_report([tmp_path], tmp_path / "out")
    for suffix, shown in (("md", " [0.0, 100.0]"), ("html", "<small>[0.0, 100.0]</small>"), ("tex", r"$\,[0.0,\,100.0]$")):
        assert shown in (tmp_path / "out" / f"report.{suffix}").read_text()
    assert "[0.0, 100.0]" in terminal(report) and f"±{steady.spread[2:]}" in terminal(report)
    assert any(problem.startswith("1 of 2 scores have a wide interval because of too few seeds") for problem in report.problems)


def test_runs_decoded_differently_are_separate_rows(bench):
    for seed in range(3):
        path = bench / "good" / "ner" / f"seed-{seed}" / "summary.json"
        write_json(path, read_json(path) | {"valid_tags": True})
    problems = collect([bench]).problems
    assert "ner: tags are the best valid path in 3 of 9 runs only; compare with care" in problems


def test_missing_seed_is_marked_and_left_out_of_best_and_average(bench):
    (bench / "good" / "topic" / "seed-1" / "predictions-test.jsonl").unlink()
    report = collect([bench])
    assert report.cells["good", "topic"].missing == [1]
    assert report.averages["good"] is None and report.cells["good", "topic"].mark == ""
    assert report.cells["nearly", "topic"].mark == "best"
    text = terminal(report)
    assert "†" in text and "good on topic: seeds 1 of 3 are missing" in text
    assert "good/topic/seed-1: no predictions-test.jsonl" in text


def test_other_examples_or_golds_fail_by_name(bench):
    place = bench / "nearly" / "topic" / "seed-2"
    write_jsonl(place / "predictions-test.jsonl", [*_rows(0.9, 1)[:-1], {"id": "stranger", "gold": "elm", "pred": "elm"}])
    with pytest.raises(UserError, match=r"1 examples missing and 1 extra.*e59, stranger"):
        collect([bench])
    rows = _rows(0.9, 1)
    rows[4]["gold"] = "elm" if rows[4]["gold"] != "elm" else "idman"
    write_jsonl(place / "predictions-test.jsonl", rows)
    with pytest.raises(UserError, match="gold of id 'e4' differs"):
        collect([bench])


def test_rows_in_another_order_are_put_in_order(tmp_path):
    _write(tmp_path, "m", "topic", 0, _rows(0.8, 3))
    _write(tmp_path, "m", "topic", 1, _rows(0.8, 3)[::-1])
    first, second = collect([tmp_path]).cells["m", "topic"].runs
    assert np.array_equal(first.scored["per_example"], second.scored["per_example"])


def test_degenerate_run_is_flagged_and_kept(tmp_path):
    constant = [{**row, "pred": "elm"} for row in _rows(1.0, 0)]
    _write(tmp_path, "m", "topic", 0, constant)
    _write(tmp_path, "m", "topic", 1, _rows(0.9, 0))
    report = collect([tmp_path])
    cell = report.cells["m", "topic"]
    assert [run.degenerate for run in cell.runs] == [True, False]
    assert cell.estimate.value == pytest.approx(np.mean([run.scored["score"] for run in cell.runs]))
    assert any("degenerate" in problem and "mean without" in problem for problem in report.problems)


def test_nothing_to_report_is_a_message(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert main([str(tmp_path / "nowhere")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_same_run_in_two_folders_is_refused(tmp_path):
    for name in ("a", "b"):
        _write(tmp_path / name, "m", "topic", 0, _rows(0.9, 0))
    with pytest.raises(UserError, match="Name one only"):
        collect([tmp_path / "a", tmp_path / "b"])
    assert len(collect([tmp_path / "a", tmp_path / "a"]).cells) == 1  # the same folder twice counts once


def test_unmeasured_cost_is_never_zero(bench):
    path = bench / "good" / "topic" / "seed-0" / "summary.json"
    write_json(path, read_json(path) | {"hours": None})
    report = collect([bench])
    line = next(line for line in markdown(report, analyse(report)).splitlines() if line.startswith("| good | 12"))
    assert line.count("not measured") == 2  # hours of one run are unknown, energy of all


def test_published_rows_are_shown_and_not_compared(tmp_path):
    for seed in range(2):
        _write(tmp_path, "m", "azsci", seed, _rows(0.8, seed))
        _write(tmp_path, "m", "my-own", seed, _rows(0.8, seed))
    text = build_report([tmp_path], tmp_path / "out")
    assert "[aLLMA-Base]" in text and "not re-run" in text
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out" / "report.csv").read_text())))
    found = [row for row in rows if row["mark"] == "published"]
    assert {row["task"] for row in found} == {"azsci"} and len(found) == 8
    large = next(row for row in found if row["model"] == "XLM-R-Large")
    assert (large["score"], large["headline"], large["low"]) == ("0.9121", "0", "") and "weighted F1" in large["metric"]
    assert [row["mark"] for row in rows if row["headline"] == "1"] == ["best", "best"]
    for suffix in ("md", "html", "tex"):
        text = (tmp_path / "out" / f"report.{suffix}").read_text()
        assert "91.21" in text and "not re-run" in text
    assert "82.46" not in text and published_average("aLLMA-Base", ["azsci", "my-own"]) is None
    six = ["aznsp", "mrpc", "wikiann", "azsci", "squad", "ldquad"]
    assert published_average("aLLMA-Base", six) == 82.46 and published_rows(["topic"]) == {}


def test_groups_widen_the_interval_and_choice_subjects_are_not_groups(tmp_path):
    for seed in range(4):
        rows = _rows(0.7, 3, n=120)
        for number, row in enumerate(rows):
            row["pred"] = row["gold"] if (number // 10) % 3 else LABELS[(number + 1) % 3]  # whole groups right or wrong
        _write(tmp_path, "m", "alone", seed, rows)
        _write(tmp_path, "m", "grouped", seed, [{**row, "group": f"g{i // 10}"} for i, row in enumerate(rows)])
        _write(tmp_path, "m", "exam", seed, _rows(0.7, seed, kind="choice"), "choice")
    report = collect([tmp_path])
    assert report.cells["m", "grouped"].estimate.se > 1.5 * report.cells["m", "alone"].estimate.se
    assert report.groups["exam"] is None and report.groups["alone"] is None and len(set(report.groups["grouped"])) == 12
    assert any("grouped" in problem and "12 groups only" in problem for problem in report.problems)
    _write(tmp_path, "a-first", "grouped", 0, _rows(0.7, 3, n=120))  # a file without group names takes nothing away
    assert len(set(collect([tmp_path]).groups["grouped"])) == 12
    row = predict_baseline("majority", "qa", [], [{"id": "1", "question": "?", "answers": [], "group": "c1"}])[0]
    assert row["group"] == "c1"
    both = [{"id": i, "group": f"stem {i // 2}", "subject": "tarix"} for i in range(6)]
    assert len(set(groups_of(both, "choice"))) == 3


def test_fewer_predictions_than_test_examples_fail_by_name(bench):
    path = bench / "good" / "topic" / "seed-0" / "summary.json"
    write_json(path, read_json(path) | {"examples": {"test": 61}})
    with pytest.raises(UserError, match="60 predictions for 61 test examples"):
        collect([bench])


def test_inputs_must_be_the_same_items_and_sharpen_qa_mistakes(bench):
    texts = [{"id": f"e{i}", "text": "Sual?\nBakı böyükdür. Gəncə kiçikdir."} for i in range(60)]
    write_jsonl(bench / "inputs" / "squad-test.jsonl", texts)
    for seed in range(3):
        rows = [{**row, "pred": "Gəncə"} for row in _rows(0.5, seed, kind="qa")]
        _write(bench, "good", "squad", seed, rows, "qa")
    outcomes = dict(analyse(collect([bench]))["good", "squad"].outcomes)
    assert outcomes == {"wrong sentence": 40, "answered, there is no answer": 20}
    write_jsonl(bench / "inputs" / "squad-test.jsonl", [*texts[1:], {"id": "new", "text": "x"}])
    with pytest.raises(UserError, match=r"1 examples missing and 1 extra.*new, e0"):
        collect([bench])


def test_overlap_file_gives_clean_and_seen_scores(bench, tmp_path):
    path = tmp_path / "overlap.jsonl"
    rows = [{"task": "exam", "id": f"e{i}", "overlap": None if i < 5 else float(i % 2)} for i in range(60)]
    write_jsonl(path, rows)
    report = collect([bench], overlap=path)
    cell = report.cells["good", "exam"]
    assert [part.examples for part in cell.clean] == [27, 28, 5] and report.cells["good", "topic"].clean == []
    right = [np.mean([run.rows[i]["gold"] == run.rows[i]["pred"] for i in range(6, 60, 2)]) for run in cell.runs]
    assert cell.clean[0].estimate.value == pytest.approx(np.mean(right))
    text = markdown(report, analyse(report))
    assert "## Clean and seen test items" in text and "n = 27" in text
    write_jsonl(path, rows[:-1])
    with pytest.raises(UserError, match=r"no overlap for 1 examples of exam .ids e59"):
        collect([bench], overlap=path)


def test_costs_include_tuning_and_pretraining(bench):
    budget = {"grid": {"lr": [1e-5, 3e-5]}, "seeds": [2, 101], "runs": 4, "hours": 0.25, "chosen": {"lr": 3e-5}}
    write_json(bench / "good" / "topic" / "tuning.json", budget)
    for seed in range(3):
        path = bench / "good" / "topic" / f"seed-{seed}" / "summary.json"
        write_json(path, read_json(path) | {"pretraining_hours": 68})
    report = collect([bench])
    text = markdown(report, analyse(report))
    report.problems += tuning_problems(report)
    assert "| good | 12 | 6 | 4 | 0.25 | 68 |" in text
    assert "| nearly | 12 | 6 | no tuning | not measured | not measured |" in text and "lr: 1e-05, 3e-05" in text
    shown = terminal(report)
    assert "good on topic: tuned on seed 2, which is also a final seed" in shown and "were not tuned alike" in shown


def _task(kind):
    texts = ["qapı açıldı", "top oyunu", "qol vuruldu", "dərs keçdi", "oyun bitdi", "kitab oxundu"]
    if kind in ("classification", "pair"):
        rows = [{"id": str(i), "text": t, "text_b": t[::-1], "label": str(i % 2)} for i, t in enumerate(texts)]
    elif kind == "choice":
        rows = [
            {
                "id": str(i),
                "question": t,
                "options": [t, "x", "uzun bir cavab"][: 2 + i % 2],
                "label": i % 2,
                "group": "",
            }
            for i, t in enumerate(texts)
        ]
    elif kind == "reading":
        rows = [
            {"id": str(i), "context": t, "question": t[:4], "options": [t, "x"], "label": i % 2, "group": f"g{i}"}
            for i, t in enumerate(texts)
        ]
    elif kind == "pos":
        rows = [{"id": str(i), "words": t.split(), "tags": ["NOUN", "VERB"]} for i, t in enumerate(texts)]
    elif kind == "similarity":
        rows = [{"id": str(i), "text": t, "text_b": t[::-1] if i % 2 else t, "score": float(i)} for i, t in enumerate(texts)]
    elif kind == "multilabel":
        rows = [{"id": str(i), "text": t, "labels": ["0", "1"][: i % 3]} for i, t in enumerate(texts)]
    elif kind == "tagging":
        rows = [{"id": str(i), "words": t.split(), "tags": ["B-PER", "O"]} for i, t in enumerate(texts)]
    elif kind == "qa":
        rows = [
            {"id": str(i), "context": t, "question": t, "answers": [{"text": t, "start": 0}][: i % 2]}
            for i, t in enumerate(texts)
        ]
    else:
        pytest.fail(f"{kind} has no rows here: add some, with the labels 0 and 1 if it has labels")
    labels = ["0", "1"] if kind in ("classification", "pair", "multilabel") else None
    metric = kind_of(kind).metrics[0]
    return Task(
        name=kind,
        kind=kind,
        metric=metric,
        labels=labels,
        positive="1" if labels else None,
        language=AZ,
        train=rows,
        dev=rows,
        test=rows,
    )


@pytest.mark.parametrize("kind", known_kinds())
def test_every_baseline_writes_files_that_the_report_takes(kind, tmp_path):
    for name in kind_of(kind).baselines:
        write_baseline(tmp_path, name, _task(kind))
    report = collect([tmp_path])
    assert set(report.models) == set(kind_of(kind).baselines) and not report.problems
    assert all(len(cell.runs[0].rows) == 6 for cell in report.cells.values())
    with pytest.raises(UserError, match="has majority"):
        predict_baseline("nonsense", kind, [], [])


def test_tfidf_learns_and_constant_answers_are_constant():
    train = [
        {"id": str(i), "text": t, "label": y} for i, (t, y) in enumerate([("futbol qol", "idman"), ("alim kəşf", "elm")] * 5)
    ]
    test = [{"id": "x", "text": "futbolçu", "label": "idman"}, {"id": "y", "text": "alimlər", "label": "elm"}]
    assert [row["pred"] for row in predict_baseline("tfidf", "classification", train, test)] == ["idman", "elm"]
    assert len({row["pred"] for row in predict_baseline("majority", "classification", train, test)}) == 1
    longest = predict_baseline(
        "longest_option",
        "choice",
        [],
        [{"id": "1", "question": "?", "options": ["a", "uzun", "bc"], "label": 0, "group": ""}],
    )
    assert longest[0]["pred"] == 1


def test_evaluation_does_not_import_torch():
    rooms = "evaluation.report, evaluation.page, evaluation.task_page, evaluation.leakage, evaluation.baselines"
    code = f"import sys, {rooms}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=False).returncode == 0


def _answers(folder, model, task, preds, golds):
    """One model whose seeds answer `preds`, a list of answers per seed."""
    for seed, answers in enumerate(preds):
        rows = [
            {"id": f"e{i}", "gold": gold, "pred": pred, "scores": {}, "text": "x"}
            for i, (gold, pred) in enumerate(zip(golds, answers, strict=True))
        ]
        place = folder / model / task / f"seed-{seed}"
        for split in ("dev", "test"):
            write_jsonl(place / f"predictions-{split}.jsonl", rows)
        write_json(
            place / "summary.json",
            {"model": model, "task": task, "kind": "classification", "seed": seed, "labels": LABELS, "metric": "accuracy"},
        )


def test_a_constant_run_is_never_marked_best(tmp_path):
    golds = [LABELS[i % 3] for i in range(30)]
    _answers(tmp_path, "constant", "topic", [["elm"] * 30] * 2, golds)
    report = collect([tmp_path])
    assert report.cells["constant", "topic"].mark == ""
    assert len([problem for problem in report.problems if "degenerate" in problem]) == 1
    _answers(tmp_path, "learned", "topic", [["tarix", *golds[1:]]] * 2, golds)
    assert {model: cell.mark for (model, _), cell in collect([tmp_path]).cells.items()} == {"constant": "", "learned": "best"}


def test_no_interval_is_shown_where_nothing_differs(tmp_path):
    golds = [LABELS[i % 3] for i in range(30)]
    _answers(tmp_path, "perfect", "topic", [golds] * 2, golds)
    text = build_report([tmp_path], tmp_path / "out")
    assert "100.0" in text and "0.0" not in text.replace("100.0", "")
    page = (tmp_path / "out" / "report.html").read_text()
    assert "± 0.0" not in page and "perfect has 100.0 points on average over 1 tasks" in page


def test_many_seeds_that_learned_nothing_are_one_line(tmp_path):
    golds = [LABELS[i % 3] for i in range(30)]
    for task in ("one", "two", "three", "four"):
        _answers(tmp_path, "constant", task, [["elm"] * 30] * 2, golds)
    problems = collect([tmp_path]).problems
    assert (
        len([problem for problem in problems if "degenerate" in problem]) == 1 and "constant on four, seeds 0, 1" in problems[0]
    )


def test_the_page_says_where_the_runs_come_from(bench, tmp_path):
    for place in bench.glob("**/seed-*"):
        write_json(
            place / "environment.json",
            {
                "commit": "a" * 40,
                "changed": False,
                "system": "Linux-9",
                "gpu": None,
                "command": ["/x/benchmark.py", f"name={EVIL}"],
            },
        )
    os.utime(next(bench.glob("**/summary.json")), (4_000_000_000, 4_000_000_000))
    build_report([bench], tmp_path)
    text = (tmp_path / "report.html").read_text()
    head = text[: text.index("<nav>")]
    assert all(word in head for word in ("2096-10-0", "a" * 12, "python benchmark.py name=&lt;script", "Linux-9"))


def test_a_page_for_pretraining_alone(tmp_path):
    held = {"loss": 5.0, "accuracy": 0.2, "bits_per_character": 3.1, "frequency_bits_per_character": 4.25}
    sizes = {"weights": {"blocks": 0.02, "embeddings": None}}
    lines = [{"step": step, "loss": 9 - step / 50, "sizes": sizes} for step in range(0, 100, 10)]
    write_jsonl(tmp_path / "run" / "metrics.jsonl", [*lines, {"step": 90, "heldout": held}])
    write_json(tmp_path / "run" / "summary.json", {"steps": 90, "hours": 0.5, "parameters": 1234567})
    assert main(["--pretraining", str(tmp_path / "run")]) == 0
    page = (tmp_path / "run" / "report.html").read_text()
    assert "run ended at 3.100 held-out bits per character (step 90); token frequencies alone would give 4.250." in page
    assert "root mean square of the weights" in page and "blocks" in page and "embeddings" not in page
    assert "1,234,567" in page and page.count("<svg") == 3 and "frequencies alone" in page
    assert main([]) == 2


def test_the_corpus_section_has_no_raw_key(tmp_path, bench):
    entry = {
        "in": 9,
        "kept": 5,
        "heldout": 1,
        "removed": {"exact_duplicate": 2},
        "rejected": {"not_json": 1},
        "words": 50,
        "characters": 300,
        "weight": 1.0,
        "epochs": 1.0,
    }
    write_json(tmp_path / "corpus.json", {"sources": {"news": entry}, "total": entry, "settings": {"min_characters": 10}})
    build_report([bench], tmp_path / "out", corpus=tmp_path / "corpus.json")
    page = (tmp_path / "out" / "report.html").read_text()
    section = page[page.index('<section id="corpus">') :]
    section = section[: section.index("</section>")]
    assert "exact duplicate" in section and "exact_duplicate" not in section and "min_characters" not in section
    assert "66.7 % of 9 records are kept" in section
