"""The soak command: kills and resumes end bit by bit as without; a leak has a slope whose interval does not hold 0."""

import random

import pytest

from common.files import read_json, write_bytes, write_jsonl
from tests.conftest import TINY, run_script
from training.soak import OWN, Life, differences, main, read_words, slopes


def lives(growth: float) -> list[Life]:
    """Eight processes of a minute; memory in MiB grows by `growth` an hour beside noise."""
    draw = random.Random(0)
    made = []
    for number in range(8):
        base, samples = 300 + draw.gauss(0, 20), []
        for n in range(120):
            memory = base + growth * n / 7200 + draw.gauss(0, 0.5)
            samples.append((1e6 * number + 0.5 * n, memory, 12.0, 4.0, 30.0))
        made.append(Life(samples))
    return made


def test_a_leak_is_seen_and_noise_is_not():
    found = slopes(lives(0))
    assert found["memory"]["low"] < 0 < found["memory"]["high"] and found["files"]["mean"] == pytest.approx(0, abs=1e-6)
    assert found["memory"]["processes"] == 8
    leak = slopes(lives(400))["memory"]
    assert 0 < leak["low"] < 400 < leak["high"] < 800
    assert slopes([Life([(0.0, 1.0, 1.0, 1.0, 1.0)])])["memory"]["mean"] is None


def test_another_bit_and_another_loss_are_differences(tmp_path):
    for name in ("a", "b"):
        write_bytes(tmp_path / name / "checkpoint" / "model.safetensors", b"0123")
        write_jsonl(tmp_path / name / "metrics.jsonl", [{"step": 1, "loss": 2.0, "minutes": random.random()}])
    assert differences(tmp_path / "a", tmp_path / "b") == []
    write_bytes(tmp_path / "b" / "checkpoint" / "model.safetensors", b"0133")
    write_jsonl(tmp_path / "b" / "metrics.jsonl", [{"step": 1, "loss": 2.0000001}])
    assert differences(tmp_path / "a", tmp_path / "b") == ["weights", "loss"]


def test_words_of_the_command_line(capsys):
    assert read_words(["minutes=0.5", "optimizer.lr=1e-3"]) == ({**OWN, "minutes": 0.5}, ["optimizer.lr=1e-3"])
    for words in (["minutes=long"], ["minutes=0"], ["steps=0"]):
        assert main(words) == 2 and "expected" in capsys.readouterr().err


def test_a_run_that_fails_is_named_with_its_log(tmp_path):
    result = run_script("-m", "training.soak", "minutes=0.1", f"folder={tmp_path}", "no.such=key")
    assert result.returncode == 2 and "whole.log" in result.stderr and "Traceback" not in result.stderr


@pytest.mark.slow
def test_a_short_soak(tmp_path):
    words = [word for word in TINY if not word.startswith("budget")]
    result = run_script("-m", "training.soak", "minutes=0.6", "steps=150", f"folder={tmp_path}", *words, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    found = read_json(tmp_path / "soak.json")
    assert found["kills"] >= 1 and found["ends"] >= 1 and found["different"] == []
