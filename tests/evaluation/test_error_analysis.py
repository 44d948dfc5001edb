"""Slices by endings and by tokens, two models on the same items: what is planted shows, what is shuffled does not."""

import random
from pathlib import Path

import numpy as np
import pytest

from common.files import write_json, write_jsonl
from evaluation.morphology import ENDINGS, PIECES, endings_a_word, entity_slices
from evaluation.slices import ScoredRuns, slices_of
from evaluation.two_models import main, mcnemar, right_by_most
from language.base import load_language
from language.perturbations import count_endings
from tasks.base import kind_of
from tasks.metrics import entity_counts

AZ = load_language("az")
TAGGING = kind_of("tagging", AZ)
CLASSES = kind_of("classification", AZ)


def test_endings_are_counted_from_the_end():
    words = {"kitab": 0, "kitablar": 1, "kitablardan": 2, "şəhərlərdən,": 2, "kitabın": 1, "meydan": 0, "və": 0, "1918": 0}
    assert {word: count_endings(word, AZ) for word in words} == words
    assert endings_a_word("kitablardan kitab", AZ) == 1 and endings_a_word("", AZ) == 0
    assert count_endings("мектептерде", load_language("kk")) == 2


def tagged(n: int, word: str, pieces: int, right: bool) -> dict:
    return {
        "id": str(n),
        "gold": ["O", "B-LOC"],
        "pred": ["O", "B-LOC" if right else "O"],
        "words": ["bura", word],
        "pieces": [1, pieces],
    }


def test_a_model_that_fails_on_endings_and_split_names_shows_it():
    rows = []
    for n in range(90):  # names without, with one and with two endings; the last are missed, and so are those in three tokens
        word, pieces = (("Sumqayıt", 1), ("Sumqayıtdan", 2), ("Sumqayıtlardan", 3))[n % 3]
        rows.append(tagged(n, word, pieces, n % 3 < 2))
    numbers = [entity_counts([r["gold"] for r in rows], [r["pred"] for r in rows])]
    found = slices_of(ScoredRuns([rows], numbers, "entity_f1", "micro"), TAGGING)
    by = {(part.by, part.part): part for part in found}
    assert (
        by["endings of an entity", "two or more"].estimate.value == 0 and by["endings of an entity", "none"].estimate.value == 1
    )
    assert by["endings of an entity", "one"].examples == 30
    assert by["tokens of an entity's longest word", PIECES[2]].estimate.value == 0
    assert by["tokens of an entity's longest word", PIECES[1]].estimate.value == 1
    assert by["endings a word, quarters", "most"].estimate.value < by["endings a word, quarters", "fewest"].estimate.value
    # The same mistakes in any order of the names: no slice is worse than another by more than its interval.
    draw = random.Random(0)
    mixed = [tagged(n, row["words"][1], row["pieces"][1], draw.random() < 2 / 3) for n, row in enumerate(rows)]
    numbers = [entity_counts([r["gold"] for r in mixed], [r["pred"] for r in mixed])]
    again = {
        part.part: part.estimate
        for part in slices_of(ScoredRuns([mixed], numbers, "entity_f1", "micro"), TAGGING)
        if part.by == "endings of an entity"
    }
    assert again["none"].low < again["two or more"].high and again["two or more"].low < again["none"].high


def test_what_has_no_words_or_no_pack_has_no_such_slices():
    rows = [tagged(n, "Bakı", 1, True) for n in range(20)]
    generic = kind_of("tagging", load_language("generic"))
    assert [by for by, _, _ in entity_slices([rows], generic)] == ["tokens of an entity's longest word"]
    bare = [{key: value for key, value in row.items() if key != "pieces"} for row in rows]
    assert [by for by, _, _ in entity_slices([bare], TAGGING)] == ["endings of an entity"]
    assert entity_slices([[{key: row[key] for key in ("id", "gold", "pred")} for row in rows]], TAGGING) == []
    counted = entity_slices([rows], TAGGING)[0]
    assert counted[1] == ENDINGS and counted[2][0].sum(0).tolist() == [[20, 0, 0]] * 3


def test_mcnemar_is_the_exact_test():
    # McNemar 1947 by the binomial: 9 against 1 of 10 is 2 (C(10,0) + C(10,1)) / 2^10.
    assert mcnemar(9, 1) == pytest.approx(22 / 1024) and mcnemar(1, 9) == mcnemar(9, 1)
    assert mcnemar(5, 5) == 1.0 and mcnemar(0, 0) == 1.0 and mcnemar(20, 0) < 1e-4


def test_most_seeds_decide():
    runs = [[{"gold": "a", "pred": p} for p in preds] for preds in (("a", "b", "a"), ("a", "b", "b"), ("a", "a", "b"))]
    assert right_by_most(runs, CLASSES).tolist() == [True, False, False]
    assert right_by_most(runs[:2], CLASSES).tolist() == [True, False, False]  # half of two seeds are not most


def write_runs(folder: Path, model: str, right) -> None:
    for seed in (0, 1):
        place = folder / model / "t" / f"seed-{seed}"
        rows = [
            {"id": str(n), "gold": "ab"[n % 2], "pred": "ab"[n % 2] if right(n, seed) else "ba"[n % 2], "text": f"söz {n}"}
            for n in range(200)
        ]
        write_jsonl(place / "predictions-test.jsonl", rows)
        known = {"status": "done", "model": model, "task": "t", "kind": "classification", "seed": seed, "labels": ["a", "b"]}
        write_json(
            place / "summary.json", {**known, "metric": "accuracy", "examples": {"test": 200}, "language": "azerbaijani"}
        )


def test_the_command_names_the_items_that_only_one_gets_right(tmp_path, capsys):
    write_runs(tmp_path, "one", lambda n, seed: n >= 10)  # wrong on items 0 to 9
    write_runs(tmp_path, "other", lambda n, seed: n >= 40)  # wrong on 0 to 39
    assert main([str(tmp_path), "--models", "one", "other"]) == 0
    line = capsys.readouterr().out.splitlines()[1].split()
    assert line[:6] == ["t", "200", "160", "30", "0", "10"] and line[6:] == ["<", "0.001"]
    text = (tmp_path / "two_models.html").read_text(encoding="utf-8")
    assert "only one is right (30)" in text and "söz 10<" in text and "only other is right (0)" in text
    draw = np.random.default_rng(3).random((2, 200))
    write_runs(tmp_path, "third", lambda n, seed: draw[0][n] > 0.2)
    write_runs(tmp_path, "fourth", lambda n, seed: draw[1][n] > 0.2)
    assert main([str(tmp_path), "--models", "third", "fourth", "--out", str(tmp_path / "b.html")]) == 0
    assert float(capsys.readouterr().out.splitlines()[1].split()[6]) > 0.05
    for words, said in (
        (["one", "none"], "no runs of none"),
        (["one", "one"], "one twice"),
        (["one", "other", "--task", "x"], "of the name x"),
    ):
        assert main([str(tmp_path), "--models", *words]) == 2 and said in capsys.readouterr().err
