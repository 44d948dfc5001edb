"""The record book: what makes a record, what is refused, and a tiny contest from end to end."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.contest import Contest, compare_with_holder, read_contest, welch, without_folders
from benchmarks.records import check_book, curve_page, standing, table
from common.errors import UserError
from tests.conftest import TINY, run_script

CONTEST = Contest("t", "x", [], 64, {"short": 1e12, "long": 5e12}, ["a", "b"], 1, 2000, 3, 0.01, 0.01)


def entry(name: str, number: int, bits: list[float], a: list[float], b: list[float], **more) -> dict:
    cost = {"flops": 1e12, "steps": 100, "tokens": 1000, "minutes": 2.0}
    seeds = []
    for seed, value in enumerate(bits):
        curve = [{"tokens": 500 * (n + 1), "minutes": n + 1.0, "bits": value + 1 - n} for n in range(2)]
        seeds.append({"seed": seed, "bits": value, "tasks": {"a": a[seed], "b": b[seed]}, "curve": curve} | cost)
    base = {"name": name, "number": number, "track": "short", "division": "main", "changed": name, "seeds": seeds}
    return base | {"peer_minutes": 4.0, "record": False, "why": ""} | more


FLAT = [0.5, 0.51, 0.49]
OLD = entry("old", 1, [1.70, 1.71, 1.69], FLAT, FLAT, record=True, why="the first of its track and division")


@pytest.mark.parametrize(
    ("bits", "a", "b", "record"),
    [
        ([1.60, 1.61, 1.59], FLAT, FLAT, True),  # fewer bits, tasks equal
        ([1.695, 1.705, 1.685], FLAT, FLAT, False),  # half the required gain
        ([1.60, 1.75, 1.50], FLAT, FLAT, False),  # not significant
        ([1.60, 1.61, 1.59], [0.30, 0.31, 0.29], FLAT, False),  # worse on a task
        ([1.70, 1.71, 1.69], [0.60, 0.61, 0.59], FLAT, True),  # equal bits, better on the suite
        ([1.80, 1.81, 1.79], [0.60, 0.61, 0.59], FLAT, False),  # better on the suite, at more bits
        ([1.60, 1.61], FLAT, FLAT, False),  # two seeds
    ],
)
def test_what_takes_the_record(bits, a, b, record):
    assert compare_with_holder(entry("new", 2, bits, a, b), OLD, CONTEST).record is record


def test_welch_is_scipys():
    ours, theirs = [1.0, 1.3, 1.1], [1.2, 1.9, 1.5, 1.4]
    found = welch(ours, theirs)
    assert found.p_below == pytest.approx(stats.ttest_ind(ours, theirs, equal_var=False, alternative="less").pvalue)
    assert found.low < found.value < found.high and found.value == pytest.approx(np.mean(ours) - np.mean(theirs))
    with pytest.raises(UserError, match="two seeds"):
        welch([1.0], theirs)


def test_the_record_book_is_checked_against_its_own_figures():
    new = entry("new", 2, [1.60, 1.61, 1.59], FLAT, FLAT)
    new["record"], new["why"] = standing(new, OLD, CONTEST)
    assert check_book([OLD, new], CONTEST) == []
    assert "new" in table([OLD, new], CONTEST) and "0.50x" in table([OLD, new], CONTEST)
    assert "<svg" in curve_page([OLD, new], CONTEST)
    forged = json.loads(json.dumps(new))
    forged["seeds"][0]["bits"] = 1.2
    assert any("curve does not end" in line for line in check_book([OLD, forged], CONTEST))
    forged = json.loads(json.dumps(new))
    forged["seeds"][0]["flops"] = 1.2e12
    assert any("FLOPs" in line for line in check_book([OLD, forged], CONTEST))
    assert any("the book says" in line for line in check_book([OLD, new | {"record": False}], CONTEST))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ('"corpus_dir=/home/ann/data/corpus", "seed=0"', '"corpus_dir=.../corpus", "seed=0"'),
        ("path: /home/ann/az/corpus\nfiles: ['/a/b.gz', \"/c/d/e.gz\"]", "path: .../corpus\nfiles: ['.../b.gz', \".../e.gz\"]"),
        ("hub://owner/name/part runs/mine/corpus ../shared/az 1/2 a https://x.org/a/b", None),
    ],
)
def test_an_entry_has_no_folders_of_a_machine(text, kept):
    assert without_folders(text) == (text if kept is None else kept)


@pytest.mark.slow
def test_a_tiny_contest_from_end_to_end(prepared, tmp_path):
    """Two entries and the peer by counted FLOPs; runs that break the contest's rules are refused by name."""
    book, out = tmp_path / "book", tmp_path / "out"
    common = ["-m", "benchmarks.records"]
    result = run_script(*common, "freeze", prepared, "--suite", "topic", "--book", book)
    assert result.returncode == 0, result.stderr
    frozen = read_contest(book / "contest.json")
    small = replace(frozen, tracks={"short": 4e9}, window=64, heldout_tokens=2000, seeds=2, suite_epochs=1)
    (book / "contest.json").write_text(json.dumps(vars(small)))
    tiny = [word for word in TINY if not word.startswith(("budget", "phases", "evaluation", "log_every"))]
    words = [f"workdir={prepared}", *tiny, "evaluation.every=5", "log_every=5"]
    flags = ["--book", book, "--out", out, "--data", prepared, "--threads", "1"]
    shape = ["model.hidden_size=32", "model.layers=2", "model.heads=2", "model.intermediate_size=48"]
    first = run_script(*common, "run", "first", *words, *flags, "--changed", "nothing", "--peer-words", *shape)
    assert first.returncode == 0, first.stderr
    assert "first of its track" in first.stdout and "all figures follow" in first.stdout
    record = json.loads((book / "first" / "record.json").read_text())
    assert [seed["seed"] for seed in record["seeds"]] == [0, 1] and record["record"]
    assert all(abs(seed["flops"] / 4e9 - 1) < 0.03 for seed in record["seeds"])
    assert all(0 <= seed["tasks"]["topic"] <= 1 and seed["curve"] for seed in record["seeds"])
    again = run_script(*common, "run", "first", *words, *flags)
    assert again.returncode == 2 and "in the book already" in again.stderr
    runs = [out / "first" / "short" / f"seed-{seed}" for seed in (0, 1)]
    for text, said in (("window", "its window is not 32"), ("suite_epochs", "with 9 epochs"), ("tokenizer", "its tokenizer")):
        (book / "contest.json").write_text(
            json.dumps(vars(small) | {text: {"window": 32, "suite_epochs": 9}.get(text, "other")})
        )
        wrong = run_script(*common, "add", "wrong", *runs, *flags)
        assert wrong.returncode == 2 and said in wrong.stderr, wrong.stderr
    (book / "contest.json").write_text(json.dumps(vars(small)))
    assert not Path(book / "wrong").exists()
    peer = run_script(*common, "peer", "peer", *shape, *flags)
    assert peer.returncode == 0, peer.stderr
    assert {path.parent.name for path in book.glob("*/record.json")} == {"first", "peer"}
    assert "| peer" in (book / "README.md").read_text() and "<svg" in (book / "curve.html").read_text()
