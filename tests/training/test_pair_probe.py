"""Minimal pairs while a model trains: logged, the same as the command says, without an effect on the run; errors before it."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch

from common.errors import UserError
from common.files import read_json, write_text
from language.base import load_language
from model.store import load_masked_lm
from tests.conftest import run_script, training_words
from tests.training.test_minimal_pairs import write_own
from training.pair_probe import prepare_pairs, score_pairs
from training.settings import Evaluation

WORDS = ["budget.steps=6", "model.dropout=0.1", "ema=0.9", "log_every=2", "evaluation.every=null"]
PAIRS = "good_sentence,bad_sentence,phenomenon\n" + "".join(
    f"{n} alma var,{n} şəhər var,{'fruit' if n < 30 else 'more fruit'}\n" for n in range(60)
)


@pytest.fixture
def file(tmp_path):
    write_text(tmp_path / "pairs.csv", PAIRS)
    return tmp_path / "pairs.csv"


def test_the_line_is_what_the_command_says_and_the_run_is_the_same_to_the_bit(prepared, tmp_path, file):
    plain, probed = tmp_path / "plain", tmp_path / "probed"
    assert run_script(*training_words(prepared, plain, *WORDS)).returncode == 0
    more = [f"evaluation.pairs={file}", "evaluation.pairs_every=4", "evaluation.pairs_each=null"]
    result = run_script(*training_words(prepared, probed, *WORDS, *more))
    assert result.returncode == 0, result.stderr
    ours, theirs = (safetensors.torch.load_file(run / "checkpoint" / "model.safetensors") for run in (plain, probed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    lines = [[json.loads(line) for line in (run / "metrics.jsonl").open()] for run in (plain, probed)]
    curves = [[(line["step"], line["loss"], line["gradient_norm"]) for line in part if "loss" in line] for part in lines]
    assert curves[0] == curves[1]
    found = [(line["step"], line["pairs"]) for line in lines[1] if "pairs" in line]
    assert [step for step, _ in found] == [4, 6]
    assert read_json(probed / "summary.json")["pairs"] == found[-1][1] and "pairs" not in read_json(plain / "summary.json")
    out = tmp_path / "report"
    said = run_script(
        "-m", "training.minimal_pairs", f"checkpoint={probed}", f"pairs={file}", f"hydra.run.dir={out}", "device=cpu"
    )
    assert said.returncode == 0, said.stderr
    report = read_json(out / "report.json")
    assert report["all"]["whole"]["accuracy"] == found[-1][1]["accuracy"] and found[-1][1]["pairs"] == 60
    assert {name: part["whole"]["accuracy"] for name, part in report["phenomena"].items()} == found[-1][1]["phenomena"]


def test_a_planted_preference_shows_and_a_shuffled_one_is_chance(prepared, tmp_path, file):
    write_own(tmp_path / "likes", prepared, {"alma": 8.0})
    model, tokenizer = load_masked_lm(tmp_path / "likes")
    pairs = prepare_pairs(Evaluation(pairs=str(file), pairs_each=None), None, tokenizer, 64)
    found = score_pairs(pairs, model.train(), tokenizer, 4096)
    assert found["accuracy"] == 1.0 and found["phenomena"] == {"fruit": 1.0, "more fruit": 1.0} and model.training
    draw = np.random.default_rng(0).random(len(pairs)) < 0.5
    mixed = [{**p, "good": p["bad"], "bad": p["good"]} if turn else p for p, turn in zip(pairs, draw, strict=True)]
    assert abs(score_pairs(mixed, model, tokenizer, 4096)["accuracy"] - 0.5) < 0.2


def test_the_suite_of_a_language_and_so_many_of_each_phenomenon(prepared, tmp_path):
    write_own(tmp_path / "own", prepared)
    _, tokenizer = load_masked_lm(tmp_path / "own")
    few, more = (prepare_pairs(Evaluation(pairs="suite", pairs_each=n), "azerbaijani", tokenizer, 64) for n in (3, 5))
    names = {pair["phenomenon"] for pair in few}
    assert len(few) == 3 * len(names) and len(more) == 5 * len(names) and len(names) >= 16
    assert all(pair in more for pair in few)
    assert prepare_pairs(Evaluation(), "azerbaijani", tokenizer, 64) == []


def test_what_cannot_be_is_named_before_the_first_step(prepared, tmp_path, file):
    write_own(tmp_path / "own", prepared)
    _, tokenizer = load_masked_lm(tmp_path / "own")
    (tmp_path / "empty.csv").write_text("good_sentence,bad_sentence\n")
    for pairs, language, longest, said in (
        ("suite", load_language("kk").name, 64, r"language=kazakh: has no suite of pairs .*evaluation\.pairs=FILE"),
        ("suite", None, 64, "has no suite"),
        (str(tmp_path / "none.csv"), "azerbaijani", 64, r"evaluation\.pairs=.*no such file"),
        (str(file), "azerbaijani", 4, r"evaluation\.pairs: .* tokens, the model reads 4 at most"),
    ):
        with pytest.raises(UserError, match=said):
            prepare_pairs(Evaluation(pairs=pairs), language, tokenizer, longest)
    with pytest.raises(UserError, match="no "):
        prepare_pairs(Evaluation(pairs=str(tmp_path / "empty.csv")), "azerbaijani", tokenizer, 64)
    result = run_script(*training_words(prepared, tmp_path / "run", *WORDS, "evaluation.pairs=nothing.csv"))
    assert result.returncode == 2 and "evaluation.pairs=nothing.csv: no such file" in result.stderr, result.stderr
