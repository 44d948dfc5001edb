"""Each way in which a record can be bad: a named error, or an entry with file and id in the list of skipped records."""

import re

import pytest

from common.errors import UserError
from common.files import write_jsonl
from data.features import encode
from tasks.qa import ANSWER_WORDS
from tasks.records import load_task_file
from tasks.settings import TaskSettings
from tests.conftest import read_task
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer

LONG = " ".join(f"söz{n}" for n in range(ANSWER_WORDS + 1))
GOOD_QA = {"context": "Bakı böyük şəhərdir. Bakı paytaxtdır.", "question": "Hara?"}
PICTURE = "iVBORw0KGgoAAAANSUhEUg"
GOOD_CHOICE = {"question": "Paytaxt hansıdır?", "options": ["Bakı", "Gəncə"], "answer": 0}

SET_ASIDE = {  # what is wrong: kind, record, task.labels, reason
    "empty text": ("classification", {"text": " \u00a0 ", "label": "a"}, None, "empty text"),
    "empty second text": ("pair", {"text": "a", "text_b": "", "label": "a"}, None, "empty second text"),
    "no label": ("classification", {"text": "a", "label": None}, None, "empty label"),
    "label that is not a number": ("classification", {"text": "a", "label": float("nan")}, None, "empty label"),
    "label outside the list": ("classification", {"text": "a", "label": "c"}, ["a", "b"], "'c' is not in task.labels"),
    "label number outside the list": ("classification", {"text": "a", "label": 2}, ["a", "b"], "'2' is not in task.labels"),
    "more words than tags": ("tagging", {"words": ["a", "b"], "tags": ["O"]}, None, "2 words but 1 tags"),
    "more tags than words": ("tagging", {"words": ["a"], "tags": ["O", "O"]}, None, "1 words but 2 tags"),
    "no words": ("tagging", {"words": [], "tags": []}, None, "no words"),
    "odd tag": ("tagging", {"words": ["a"], "tags": ["PER"]}, None, "'PER' is neither O nor"),
    "empty context": ("qa", {**GOOD_QA, "context": " ", "answer_text": "a", "answer_start": 0}, None, "empty context"),
    "empty question": ("qa", {**GOOD_QA, "question": "", "answer_text": "a", "answer_start": 0}, None, "empty question"),
    "no answer with an offset": ("qa", {**GOOD_QA, "answer_text": "", "answer_start": 0}, None, "empty answer with offset 0"),
    "offset no number": ("qa", {**GOOD_QA, "answer_text": "Bakı", "answer_start": "x"}, None, "'x' is not a number"),
    "answers not in a list": ("qa", {**GOOD_QA, "answers": 7}, None, "answers are not a list"),
    "answers not spelled right": ("qa", {**GOOD_QA, "answers": "{'text': array(['x'])}"}, None, "a list was expected"),
    "answers of two lengths": ("qa", {**GOOD_QA, "answers": {"text": ["a", "b"], "answer_start": [0]}}, None, "of one length"),
    "one option": ("choice", {**GOOD_CHOICE, "options": ["Bakı"]}, None, "1 options, expected 2 to 7"),
    "eight options": ("choice", {**GOOD_CHOICE, "options": list("abcdefgh")}, None, "8 options, expected 2 to 7"),
    "equal options": ("choice", {**GOOD_CHOICE, "options": ["Bakı", "Bakı"]}, None, "two options are the same"),
    "empty option": ("choice", {**GOOD_CHOICE, "options": ["Bakı", "", "Quba"]}, None, "empty option"),
    "options no list": ("choice", {**GOOD_CHOICE, "options": "Bakı"}, None, "a list was expected"),
    "answer past the options": ("choice", {**GOOD_CHOICE, "answer": 2}, None, "outside the 2 options"),
    "answer before the options": ("choice", {**GOOD_CHOICE, "answer": -1}, None, "outside the 2 options"),
    "answer letter past the options": ("choice", {**GOOD_CHOICE, "answer": "C"}, None, "outside the 2 options"),
    "answer unknown": ("choice", {**GOOD_CHOICE, "answer": "Şəki"}, None, "neither a letter"),
    "picture as base64": ("choice", {**GOOD_CHOICE, "options": ["Bakı", PICTURE]}, None, "an image"),
    "picture as base64 with its head": ("choice", {**GOOD_CHOICE, "question": "data:image/gif;base64,R0"}, None, "an image"),
    "picture by address": ("choice", {**GOOD_CHOICE, "options": ["http://a.az/b.PNG?x=1", "b"]}, None, "an image"),
    "picture in HTML": ("choice", {**GOOD_CHOICE, "question": 'Bu nədir? <img src="a">'}, None, "an image"),
    "picture as a record": ("choice", {**GOOD_CHOICE, "options": [{"bytes": "x", "path": "a"}, "b"]}, None, "an image"),
}
GOOD = {
    "classification": {"text": "yaxşı mətn", "label": "a"},
    "pair": {"text": "bir", "text_b": "iki", "label": "a"},
    "choice": GOOD_CHOICE,
    "tagging": {"words": ["Bakı"], "tags": ["B-LOC"]},
    "qa": {**GOOD_QA, "answer_text": "böyük", "answer_start": 5},
}


@pytest.mark.parametrize("case", SET_ASIDE)
def test_set_aside_with_file_line_and_id(case, tmp_path):
    kind, record, labels, reason = SET_ASIDE[case]
    good = {key: value for key, value in GOOD[kind].items() if "answers" not in record or not key.startswith("answer_")}
    good |= {"answers": [{"text": "böyük", "answer_start": 5}]} if "answers" in record else {}
    write_jsonl(tmp_path / "a.jsonl", [{"id": "yaxşı", **good}, {"id": "pis", **record}])
    loaded = load_task_file(tmp_path / "a.jsonl", kind, TaskSettings(labels=labels))
    assert [example["id"] for example in loaded.examples] == ["yaxşı"]
    (skip,) = loaded.skipped
    assert (skip["file"], skip["line"], skip["id"]) == ("a.jsonl", 2, "pis") and reason in skip["reason"]


NOTED = {  # kept, counted and listed: kind, record, reason
    "not NFC": ("classification", {"text": "s\u0327əhər", "label": "a"}, "texts brought to NFC"),
    "Cyrillic": ("classification", {"text": "Бакы шәһәри", "label": "a"}, "mostly in another script than Latin (kept)"),
    "Arabic": ("classification", {"text": "باکی شهری", "label": "a"}, "mostly in another script than Latin (kept)"),
    "orphan I-": ("tagging", {"words": ["a", "b"], "tags": ["O", "I-PER"]}, "I- tag that continues no entity"),
    "I- of another type": ("tagging", {"words": ["a", "b"], "tags": ["B-LOC", "I-PER"]}, "I- tag that continues no entity"),
    "offset wrong, one place": ("qa", {**GOOD_QA, "answer_text": "böyük", "answer_start": 9}, "moved to the only place"),
    "offset wrong, several": ("qa", {**GOOD_QA, "answer_text": "Bakı", "answer_start": 9}, "moved to the nearest of several"),
    "no offset, several": ("qa", {**GOOD_QA, "answer_text": "Bakı", "answer_start": None}, "several places possible"),
    "answer not there": ("qa", {**GOOD_QA, "answer_text": "Quba", "answer_start": 0}, "answer not in the context"),
    "answer too long": (
        "qa",
        {"context": LONG, "question": "Nə?", "answer_text": LONG, "answer_start": 0},
        "cannot be predicted",
    ),
}


@pytest.mark.parametrize("case", NOTED)
def test_kept_and_listed_with_file_line_and_id(case, tmp_path):
    kind, record, reason = NOTED[case]
    write_jsonl(tmp_path / "a.jsonl", [{"id": "yaxşı", **GOOD[kind]}, {"id": "şübhəli", **record}])
    loaded = load_task_file(tmp_path / "a.jsonl", kind, TaskSettings(language="azerbaijani"))
    assert len(loaded.examples) == 2 and not loaded.skipped
    (note,) = loaded.noted
    assert (note["file"], note["line"], note["id"]) == ("a.jsonl", 2, "şübhəli") and reason in note["reason"]
    assert sum(loaded.notes.values()) == 1


def test_duplicate_ids_are_listed(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"id": "x", "text": text, "label": "a"} for text in "ab"])
    loaded = load_task_file(tmp_path / "a.jsonl", "classification")
    assert [(note["id"], note["line"]) for note in loaded.noted] == [("x#2", 2)]


def test_the_config_decides_what_counts_as_no_answer(tmp_path):
    rows = [
        {**GOOD_QA, "answer_text": text, "answer_start": start} for text, start in (("", -1), (None, None), ("", 0), ("", 3))
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    loaded = load_task_file(tmp_path / "a.jsonl", "qa")
    assert [e["answers"] for e in loaded.examples] == [[], []] and [s["line"] for s in loaded.skipped] == [3, 4]
    loaded = load_task_file(tmp_path / "a.jsonl", "qa", TaskSettings(no_answer_start=[-1, 0]))
    assert len(loaded.examples) == 3 and [s["line"] for s in loaded.skipped] == [4]


def test_rows_in_other_languages_are_set_aside_on_request(tmp_path):
    rows = [
        {"question": "Azərbaycanın paytaxtı hansı şəhərdir?", "options": ["Bakı", "Gəncə"], "answer": 0, "lang": "az"},
        {"question": "2 + 2 = ?", "options": ["4", "5"], "answer": 0, "lang": "az"},
        {"question": "Azərbaycanın ən böyük gölü hansıdır?", "options": ["Göygöl", "Sarısu"], "answer": 1, "lang": "ru"},
        {"question": "Какой город является столицей?", "options": ["Баку", "Гянджа"], "answer": 0, "lang": "az"},
        {"question": "Which of these words have the same meaning?", "options": ["big", "the of"], "answer": 0, "lang": "az"},
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    loaded = load_task_file(tmp_path / "a.jsonl", "choice", TaskSettings(language_only=True, language="azerbaijani"))
    assert [e["id"] for e in loaded.examples] == ["1", "2"]
    assert [skip["line"] for skip in loaded.skipped] == [3, 4, 5] and "'ru'" in loaded.skipped[0]["reason"]
    assert len(load_task_file(tmp_path / "a.jsonl", "choice").examples) == 5
    with pytest.raises(UserError, match=r"task\.language"):
        load_task_file(tmp_path / "a.jsonl", "choice", TaskSettings(language_only=True))


def test_labels_that_train_lacks_and_shared_texts_are_listed_by_id(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"id": "t1", "text": "bir", "label": "x"}, {"id": "t2", "text": "iki", "label": "y"}])
    write_jsonl(tmp_path / "b.jsonl", [{"id": "d1", "text": "Bir!", "label": "x"}, {"id": "d2", "text": "üç", "label": "x"}])
    write_jsonl(tmp_path / "c.jsonl", [{"id": "e1", "text": "ÜÇ", "label": "x"}, {"id": "e2", "text": "dörd", "label": "z"}])
    files = zip(("train", "dev", "test"), "abc", strict=True)
    task = read_task({"kind": "classification", **{split: str(tmp_path / f"{name}.jsonl") for split, name in files}})
    listed = {(note["split"], note["id"], note["reason"].split(" with ")[-1]) for note in task.noted}
    assert listed == {
        ("dev", "d1", "train"),
        ("test", "e1", "dev"),
        ("test", "e2", "label 'z' is never in train (cannot be learned)"),
    }
    notes = " ".join(task.notes)
    assert "1 of 2 dev examples share their text or group with train" in notes
    assert "1 of 2 test examples share their text or group with dev" in notes


# ---------------------------------------------------------------- what only a tokenizer can tell


@pytest.fixture(scope="session")
def tokenizer(prepared) -> Tokenizer:
    return load_tokenizer(prepared / "tokenizer")


def test_words_without_a_token_and_long_sentences_are_counted(tokenizer):
    words = ["\u200b", "Bakı", "\u00ad"]
    short = {"id": "s7", "words": words, "tags": ["O"] * 3}
    long = {"id": "s8", "words": ["şəhər"] * 60, "tags": ["O"] * 60}
    encoded = encode([short, long], "tagging", tokenizer, ["O"], 32)
    notes = " ".join(encoded.notes)
    assert "2 words have no token: read as [UNK] and scored (first in s7)" in notes
    assert "1 sentences are longer than max_length" in notes
    assert [
        sum(len(row.words) for row in encoded.rows[a:b]) for a, b in zip(encoded.first, encoded.first[1:], strict=False)
    ] == [3, 60]


def test_a_question_that_fills_the_window_is_cut_and_flagged(tokenizer):
    example = {"id": "q1", "context": "Bakı şəhərdir.", "question": "nə " * 200, "answers": [{"text": "Bakı", "start": 0}]}
    encoded = encode([example], "qa", tokenizer, None, 32, 4)
    assert encoded.truncated == [True] and all(len(row.ids) <= 32 for row in encoded.rows)
    assert any("1 of 1 examples were cut" in note for note in encoded.notes)
    assert any(row.targets[1] > 0 for row in encoded.rows)  # the answer is still found


def test_an_overlap_that_leaves_no_step_is_refused_with_the_id(tokenizer):
    example = {"id": "q9", "context": "mətn " * 80, "question": "Nə?", "answers": []}
    for overlap in (30, 28, 400, -1):
        with pytest.raises(UserError, match=rf"window_overlap_tokens={overlap}.*q9"):
            encode([example], "qa", tokenizer, None, 32, overlap)


def test_a_tokenizer_of_another_language_is_warned_of(tokenizer):
    strange = encode([{"id": "1", "text": "漢字仮名交じり文 " * 3, "label": "a"}], "classification", tokenizer, ["a"], 128)
    assert any(re.search(r"\d% of the tokens are \[UNK\]", note) for note in strange.notes)
    long = encode([{"id": "1", "text": "wzqkxvjptw qqwxzkvjwp", "label": "a"}], "classification", tokenizer, ["a"], 128)
    assert any("tokens a word" in note for note in long.notes)
    options = {"id": "1", "question": "wzqkxvjptw qqwxzkvjwp", "options": ["xkqzvwjq", "qwzzkxvj"], "label": 0}
    assert any("tokens a word" in note for note in encode([options], "choice", tokenizer, None, 128).notes)
