"""The page about pre-training runs: every run has its own name, and a running run is marked as such."""

import re

from common.files import write_json, write_jsonl
from training.page import main, named_runs


def write_run(folder, bits, ended=True):
    held = {"loss": 5.0, "accuracy": 0.2, "bits_per_character": bits, "frequency_bits_per_character": 4.25}
    write_jsonl(folder / "metrics.jsonl", [{"step": 10, "loss": 8.0}, {"step": 90, "loss": 6.0}, {"step": 90, "heldout": held}])
    if ended:
        write_json(folder / "summary.json", {"steps": 90, "hours": 0.5, "parameters": 1234567})


def text_of(page):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", page))


def test_a_running_run_is_shown_at_its_last_line(tmp_path, capsys):
    write_run(tmp_path / "run", 3.1, ended=False)
    assert main([str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "run" / "report.html")
    page = (tmp_path / "run" / "report.html").read_text()
    said = "run stands at 3.100 held-out bits per character (step 90); token frequencies alone would give 4.250."
    assert said in text_of(page) and page.count("<svg") == 2
    assert not re.search(r"\bbits_per_character|frequency_bits", page)


def test_health_is_plotted_by_group(tmp_path):
    sizes = {"weights": {"mlp": 0.02, "other": None}, "gradients": {"mlp": 0.5, "head": 0.1, "other": None}}
    seconds = {"waiting for batches": 0.1, "writing checkpoints": 0.0}
    lines = [{"step": n, "loss": 8.0, "sizes": sizes, "seconds": seconds} for n in (10, 20)]
    write_jsonl(tmp_path / "metrics.jsonl", lines)
    assert main([str(tmp_path)]) == 0
    text = text_of((tmp_path / "report.html").read_text())
    for word in ("root mean square of the weights", "norm of the gradients", "waiting for batches", "writing checkpoints"):
        assert word in text


def test_two_runs_whose_folders_have_one_name_are_two_runs(tmp_path):
    write_run(tmp_path / "a" / "pretrain", 3.1)
    write_run(tmp_path / "b" / "pretrain", 2.9)
    out = tmp_path / "both.html"
    assert main([str(tmp_path / "a" / "pretrain"), str(tmp_path / "b" / "pretrain"), "--out", str(out)]) == 0
    text = text_of(out.read_text())
    assert "b/pretrain ended at 2.900" in text and "next of 2 runs is a/pretrain with 3.100." in text
    assert list(named_runs([tmp_path / "a" / "pretrain", tmp_path / "a" / "." / "pretrain"])) == ["pretrain"]


def test_a_folder_without_metrics_is_named(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert str(tmp_path / "metrics.jsonl") in capsys.readouterr().err
