import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.files import read_jsonl
from common.launch import ROOT
from corpus.matching import decontamination
from corpus.matching.decontamination import ANSWER_WORDS, NGRAM, read_items
from language.azerbaijani import fold_key, upper
from tests.azerbaijani import TaskIndex

SENTENCE = "Göygöl gölü 1139-cu ildə baş vermiş zəlzələ nəticəsində dağın uçub çayın qarşısını kəsməsi ilə yaranmışdır."
SHORT = "Xəzər dənizinin dibində neft var."
INDEX = TaskIndex(items=[("long", {"text": SENTENCE, "label": "x"}), ("short", {"text": SHORT})])


def test_thirteen_words_in_a_row_are_found_in_any_spelling():
    words = fold_key(SENTENCE).split()
    for text in (SENTENCE, upper(SENTENCE), SENTENCE.translate(str.maketrans("əğıöşüç", "egiosuc"))):
        assert INDEX.hits(f"Əvvəl başqa söz. {text} Sonra da.") == [("long", "13-gram")]
    assert len(words) >= NGRAM + 1
    assert INDEX.hits("A b c. " + " ".join(words[1 : NGRAM + 1])) == [("long", "13-gram")]
    assert INDEX.hits(" ".join(words[: NGRAM - 1])) == []


def test_a_short_item_counts_as_a_whole_line_or_text_only():
    assert INDEX.hits(SHORT) == [("short", "whole")]
    assert INDEX.hits(f"Başlıq\n{SHORT.upper()}\nSon") == [("short", "whole")]
    assert INDEX.hits(f"Bilirik ki, {SHORT}") == []


def test_a_run_may_cross_lines():
    assert INDEX.hits(SENTENCE.replace(" baş ", "\nbaş ").replace(" uçub ", "\n\nuçub ")) == [("long", "13-gram")]


def test_answers_count_from_a_minimum_length():
    answer = "Bakıda 1873-cü ildə vurulan ilk böyük neft fontanı zamanı"
    assert ANSWER_WORDS <= len(fold_key(answer).split()) < NGRAM
    squad = {"qas": [{"id": 1, "question": "Nə vaxt?", "answers": [{"text": answer, "answer_start": "5"}, {"text": "Bakıda"}]}]}
    index = TaskIndex(items=[("qa", squad)])
    assert index.hits(f"Deyirlər ki, {answer} olub.") == [("qa", "answer")]
    assert index.hits("Bakıda yağış yağır.") == []


def test_bare_numbers_and_labels_are_not_text():
    index = TaskIndex(items=[("a", {"choices": ["2, 2, 3, 4, 5, 6"], "label": "dörd sözdən ibarət uzun etiket adı", "id": 7})])
    assert index.hits("2 2 3 4 5 6\ndörd sözdən ibarət uzun etiket adı") == []


def test_titles_and_addresses_are_compared_whole():
    index = TaskIndex(items=[("qa", {"title": "University_of_Notre_Dame", "paragraph": {"context": "..."}})])
    assert index.matches({"title": "University of Notre Dame"}) == [("qa", "title")]
    assert index.matches({"url": "https://en.wikipedia.org/wiki/University_of_Notre_Dame"}) == [("qa", "title")]
    assert index.matches({"title": "University of Notre Dame du Lac", "site": "University of Notre Dame"}) == []
    assert index.matches({}) == []


WORDS = ["su", "dağ", "çay", "göl", "yol", "ev", "ağac", "daş", "ot", "quş"]


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 60))
def test_the_runs_found_equal_those_of_word_comparison(seed, length):
    chance = random.Random(seed)
    item = " ".join(chance.choices(WORDS, k=20))
    text = chance.choices(WORDS, k=length)
    if chance.random() < 0.5:
        begin, size = chance.randrange(8), chance.randrange(11, 15)
        text[length // 2 : length // 2] = item.split()[begin : begin + size]
    text = " ".join(text)
    runs = {tuple(item.split()[at : at + NGRAM]) for at in range(20 - NGRAM + 1)}
    said = text.split()
    expected = any(tuple(said[at : at + NGRAM]) in runs for at in range(len(said)))
    assert bool(TaskIndex(items=[("i", item)]).hits(text)) == expected


def test_long_texts_are_read_in_overlapping_windows(monkeypatch):
    text = "\n".join([*(f"sətir nömrə {number}" for number in range(40)), *SENTENCE.split(), *(f"son {n}" for n in range(40))])
    monkeypatch.setattr(decontamination, "_WINDOW", 50)
    assert INDEX.hits(text) == [("long", "13-gram")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", json.dumps({"text": SENTENCE})),
        ("a.json", json.dumps({"data": [{"title": "Göl", "paragraphs": [{"context": SENTENCE, "qas": []}]}]})),
        ("a.csv", f'title,topic\n"{SENTENCE}",Coğrafiya\n'),
        ("a.tsv", f"index_id\tcategory\ttext\n1\tgeography\t{SENTENCE}\n"),
        ("a.conll", "\n".join(f"{word}\tO" for word in SENTENCE.split()) + "\n"),
        ("a.conllu", "# text\n" + "\n".join(f"{n}\t{word}\t{word}\tX" for n, word in enumerate(SENTENCE.split(), 1)) + "\n"),
        ("a.txt", SENTENCE + "\n"),
    ],
)
def test_every_plain_format_is_read(tmp_path, name, content):
    (tmp_path / name).write_text(content, encoding="utf-8")
    hits = TaskIndex([tmp_path]).hits(SENTENCE)
    assert len(hits) == 1
    assert hits[0][0].startswith(name)


def test_parquet_and_arrow_are_read(tmp_path):
    import pyarrow as arrow
    from pyarrow import parquet

    table = arrow.table({"id": ["q1"], "tokens": [SENTENCE.split()]})
    parquet.write_table(table, tmp_path / "a.parquet")
    with arrow.ipc.new_stream(str(tmp_path / "a.arrow"), table.schema) as stream:  # as `datasets` keeps a set on disk
        stream.write_table(table)
    for name in ("a.parquet", "a.arrow"):
        assert TaskIndex([tmp_path / name]).hits(SENTENCE) == [(f"{name}:q1", "13-gram")]
    (tmp_path / "b.parquet").write_bytes(b"PAR1 no parquet")
    with pytest.raises(UserError, match=r"b\.parquet"):
        TaskIndex([tmp_path / "b.parquet"])


@pytest.mark.parametrize(("name", "content"), [("a.jsonl", b"{"), ("a.json", b"["), ("a.csv", b"a\n\xff\n"), ("a.xyz", b"")])
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        TaskIndex([tmp_path / name])
    with pytest.raises(UserError, match="no such file"):
        TaskIndex([tmp_path / "none.jsonl"])


def test_the_demo_tasks_are_read_and_found():
    index = TaskIndex([ROOT / "data/demo/tasks"])
    items = [item for file in sorted((ROOT / "data/demo/tasks").iterdir()) for item in read_items(file)]
    assert len(index.items) == len(items) > 300
    context = next(item["context"] for name, item in items if name.startswith("qa.jsonl"))
    assert index.hits("Giriş.\n" + context)[0][1] == "13-gram"


def test_a_copy_in_real_text_is_found_and_other_text_is_not(az_data):
    tasks = az_data / "tasks/mcq_tumlu/azerbaijani_test.jsonl"
    index = TaskIndex([tasks])
    questions = [item["question"] for _, item in read_items(tasks)]
    long = [text for text in questions if len(fold_key(text).split()) >= 20]
    assert len(long) > 10
    assert all(index.hits("Başlanğıc. " + upper(text)) for text in long)
    assert not [record["text"] for _, record in read_jsonl(az_data / "corpus/folktales.jsonl.gz") if index.hits(record["text"])]
