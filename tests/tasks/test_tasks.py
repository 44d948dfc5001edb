"""Task files of every format to examples, named errors, counted skips, and splits that keep each group on one side."""

import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import UserError
from common.files import write_json, write_jsonl
from language.azerbaijani import LANGUAGE as AZ
from language.base import load_language
from tasks.next_sentence import FAR, build_next_sentence, read_documents, split_sentences
from tasks.records import load_task_file
from tasks.settings import TaskSettings
from tasks.splits import leakage_group, split_by_group, split_of
from tests.conftest import read_task

ROOT = Path(__file__).parents[2]
REAL = Path(os.environ.get("AZ_DATA", ROOT / ".." / "shared" / "az")) / "tasks"
real = pytest.mark.skipif(not REAL.exists(), reason="no real data: set AZ_DATA to the folder that holds tasks/")


def _reasons(loaded):
    return Counter(skip["reason"] for skip in loaded.skipped)


# ---------------------------------------------------------------- formats


def test_csv_by_aliases_with_bom_and_windows_line_ends(tmp_path):
    path = tmp_path / "topic.csv"
    path.write_bytes('\ufefftitle,topic,subtopic\r\n"İşıq, səs və ""dalğa""",fizika,optika\r\nQədim yazı,tarix,x\r\n'.encode())
    examples = load_task_file(path, "classification").examples
    assert [(e["text"], e["label"]) for e in examples] == [('İşıq, səs və "dalğa"', "fizika"), ("Qədim yazı", "tarix")]


def test_tsv_keeps_lone_quotes_and_opens_quoted_cells(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_text('idx\tsentence1\tsentence2\tlabel\n7\t"Gəl" dedi\t"""O"", dedi"\t1\n8\tbir\tiki\n', encoding="utf-8")
    loaded = load_task_file(path, "pair")
    assert loaded.examples == [{"id": "7", "text": '"Gəl" dedi', "text_b": '"O", dedi', "label": "1"}]
    assert _reasons(loaded) == {"number of cells differs from the header's": 1} and loaded.skipped[0]["line"] == 3


def test_conll_by_tab_or_space_first_and_last_column(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("-DOCSTART- O\n\n# id 1\nƏli\tNNP\tB-PER\ngəldi\tVB\tO\n\n# O\nBakı I-LOC\n\nsöz\n\n", encoding="utf-8")
    loaded = load_task_file(path, "tagging")
    assert [(e["words"], e["tags"]) for e in loaded.examples] == [
        (["Əli", "gəldi"], ["B-PER", "O"]),
        (["#", "Bakı"], ["O", "I-LOC"]),
    ]
    assert sum(loaded.notes.values()) == 1 and len(loaded.skipped) == 1


def test_jsonl_gz_bad_lines_are_set_aside_with_their_number(tmp_path):
    path = tmp_path / "x.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write('{"text": "bir", "label": 0}\n{broken\n[1]\n{"text": " ", "label": 1}\n{"text": "iki", "label": null}\n')
    loaded = load_task_file(path, "classification")
    assert len(loaded.examples) == 1 and [skip["line"] for skip in loaded.skipped] == [2, 3, 4, 5]


def test_choice_letters_indices_ragged_options_and_bad_rows(tmp_path):
    path = tmp_path / "c.jsonl"
    good = {"question": "Paytaxt?", "choices": ["Bakı", "Gəncə"], "subject": "coğrafiya"}
    rows = [
        good | {"answer": "B"},
        good | {"answer": 0},
        good | {"answer": "1", "choices": ["x", "y", "z", "q", "w", "e", "r"]},
        good | {"answer": "C"},
        good | {"answer": 2},
        good | {"answer": -1},
        good | {"answer": "A", "choices": ["bir"]},
        good | {"answer": "A", "choices": ["bir", "bir"]},
        good | {"answer": "A", "choices": list("abcdefgh")},
        good | {"answer": "A", "question": "<img src=data:image/png;base64,AAAA>"},
        good | {"answer": None},
    ]
    write_jsonl(path, rows)
    loaded = load_task_file(path, "choice")
    assert [e["label"] for e in loaded.examples] == [1, 0, 1]
    assert [len(e["options"]) for e in loaded.examples] == [2, 2, 7] and loaded.examples[0]["group"] == "coğrafiya"
    assert len(loaded.skipped) == 8 and all(skip["reason"] for skip in loaded.skipped)


def test_choice_options_in_columns_of_a_csv(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("question,A,B,C,answer\nNeçə?,1,2,,B\nKim?,Əli,Vəli,Pəri,C\n", encoding="utf-8")
    examples = load_task_file(path, "choice").examples
    assert [(e["options"], e["label"]) for e in examples] == [(["1", "2"], 1), (["Əli", "Vəli", "Pəri"], 2)]


def test_integer_tags_need_names_and_unknown_ones_are_listed(tmp_path):
    path = tmp_path / "w.jsonl"
    rows = [{"tokens": ["Bakı", "gözəl"], "ner_tags": [5, 0]}, {"tokens": ["Əli"], "ner_tags": [7]}]
    write_jsonl(path, [*rows, {"tokens": ["Əli", "b"], "ner_tags": [1]}])
    with pytest.raises(UserError, match=r"task\.labels"):
        load_task_file(path, "tagging")
    loaded = load_task_file(path, "tagging", TaskSettings(labels=["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]))
    assert [e["tags"] for e in loaded.examples] == [["B-LOC", "O"]]
    assert _reasons(loaded) == {"label '7' is not in task.labels": 1, "2 words but 1 tags": 1}


def test_qa_flat_columns_offsets_and_the_rule_for_no_answer(tmp_path):
    context = "Bakı Azərbaycanın paytaxtıdır. Bakı böyükdür."
    flat = {"context": context, "question": "Hara?", "title": "t"}
    rows = [
        flat | {"answer_text": "paytaxtıdır", "answer_start": 18},
        flat | {"answer_text": "", "answer_start": -1},
        flat | {"answer_text": "paytaxtıdır", "answer_start": "3"},
        flat | {"answer_text": "Bakı", "answer_start": 7},
        flat | {"answer_text": "Şəki", "answer_start": 0},
        flat | {"answer_text": "", "answer_start": 0},
    ]
    write_jsonl(tmp_path / "q.jsonl", rows)
    loaded = load_task_file(tmp_path / "q.jsonl", "qa")
    assert [[a["start"] for a in e["answers"]] for e in loaded.examples] == [[18], [], [18], [0], [-1]]
    assert len(loaded.skipped) == 1 and "unanswerable" in loaded.skipped[0]["reason"]
    assert sum(loaded.notes.values()) == 3


def test_squad_json_with_string_offsets_and_impossible_questions(tmp_path):
    qas = [
        {"id": 1, "question": "Hara?", "answers": [{"text": "Bakı", "answer_start": "0"}]},
        {"id": 2, "question": "Kim?", "answers": [], "is_impossible": True},
    ]
    write_json(tmp_path / "s.json", {"data": [{"title": "t", "paragraphs": [{"context": "Bakı şəhəri", "qas": qas}]}]})
    first, second = load_task_file(tmp_path / "s.json", "qa").examples
    assert first == {
        "id": "1",
        "context": "Bakı şəhəri",
        "question": "Hara?",
        "answers": [{"text": "Bakı", "start": 0}],
        "title": "t",
    }
    assert second["answers"] == []


def test_nfc_moves_the_answer_with_its_context(tmp_path):
    row = {
        "context": "Ko\u0308hnə s\u0327əhər Bakı",
        "question": "Hara?",
        "answer_text": "s\u0327əhər",
        "answer_start": 7,
    }
    write_jsonl(tmp_path / "q.jsonl", [row])
    loaded = load_task_file(tmp_path / "q.jsonl", "qa")
    example = loaded.examples[0]
    answer = example["answers"][0]
    assert example["context"] == "Köhnə şəhər Bakı" and answer == {"text": "şəhər", "start": 6}
    assert loaded.notes["texts brought to NFC"] == 1 and len(loaded.notes) == 1


def test_duplicate_ids_become_unique_and_are_counted(tmp_path):
    write_jsonl(tmp_path / "d.jsonl", [{"id": "a", "text": str(i), "label": "x"} for i in range(3)])
    loaded = load_task_file(tmp_path / "d.jsonl", "classification")
    assert [e["id"] for e in loaded.examples] == ["a", "a#2", "a#3"] and sum(loaded.notes.values()) == 2


# ---------------------------------------------------------------- named errors


@pytest.mark.parametrize(
    ("name", "content", "kind", "columns", "words"),
    [
        (
            "a.csv",
            "başlıq,mövzu\nx,y\n",
            "classification",
            {},
            ["a.csv", "'text'", "title", "başlıq, mövzu", "task.columns.text="],
        ),
        ("a.csv", "title,mövzu\nx,y\n", "classification", {"label": "sahə"}, ["'label'", "sahə", "title, mövzu"]),
        ("a.csv", "title,topic\nx,y\n", "classification", {"lable": "topic"}, ["task.columns.lable", "text, label"]),
        ("a.jsonl", '{"context": "x", "question": "y"}\n', "qa", {}, ["answer_text", "context, question"]),
        ("a.csv", "title,topic\n", "classification", {}, ["no record"]),
        ("a.jsonl", '{"text": "", "label": "x"}\n', "classification", {}, ["none of 1 records", "empty text"]),
        ("a.parquet", "PAR1", "classification", {}, ["a.parquet", "damaged after record 0"]),
        ("a.xlsx", "PK", "classification", {}, [".xlsx", ".jsonl", ".parquet"]),
        ("a.conll", "söz O\n", "qa", {}, [".conll"]),
        ("a.csv", "title,topic\nx,y\n", "topics", {}, ["task.kind=topics", "classification"]),
    ],
)
def test_unreadable_files_are_named(tmp_path, name, content, kind, columns, words):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(UserError) as error:
        load_task_file(tmp_path / name, kind, TaskSettings(columns=columns or {}))
    assert all(word in str(error.value) for word in words), str(error.value)


def test_load_task_names_missing_files_keys_and_empty_splits(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_task({"kind": "qa", "train": str(tmp_path / "no.json")})
    with pytest.raises(UserError, match=r"task\.train"):
        read_task({"kind": "qa"})
    with pytest.raises(UserError, match=r"task\.metric=bleu.*macro_f1"):
        read_task({"kind": "classification", "train": "x", "metric": "bleu"})
    write_jsonl(tmp_path / "two.jsonl", [{"text": "eyni", "label": str(i)} for i in range(2)])
    with pytest.raises(UserError, match="split has no example"):
        read_task({"kind": "classification", "train": str(tmp_path / "two.jsonl")})


# ---------------------------------------------------------------- splits


def _classification(n):
    return [{"text": f"mətn {i // 3}{'!' * (i % 3)}", "label": "ab"[i % 2], "id": str(i)} for i in range(n)]


def test_groups_never_straddle_and_new_rows_never_move_old_ones():
    examples = _classification(900)
    parts = split_by_group(examples, "classification", (0.7, 0.1, 0.2))
    where = {}
    for number, part in enumerate(parts):
        for example in part:
            assert where.setdefault(leakage_group(example, "classification"), number) == number
    assert [len(part) / 900 for part in parts] == pytest.approx([0.7, 0.1, 0.2], abs=0.06)
    again = split_by_group(
        [{"text": f"yeni {i}", "label": "a", "id": "n"} for i in range(50)] + examples[::-1],
        "classification",
        (0.7, 0.1, 0.2),
    )
    assert all(
        sorted(e["id"] for e in new if e["id"] != "n") == sorted(e["id"] for e in old)
        for new, old in zip(again, parts, strict=True)
    )


@given(st.text(), st.text())
@settings(max_examples=50, deadline=None)
def test_both_orders_of_a_pair_are_one_group(a, b):
    assert leakage_group({"text": a, "text_b": b}, "pair") == leakage_group({"text": b, "text_b": a}, "pair")


def test_split_does_not_depend_on_the_process():
    code = "from tasks.splits import split_of; print([split_of(f'sənəd {i}') for i in range(40)])"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == [split_of(f"sənəd {i}") for i in range(40)]


@pytest.mark.parametrize("given_files", ["train", "train dev", "train test", "train dev test"])
def test_missing_splits_are_made_and_said(tmp_path, given_files):
    config = {"kind": "classification", "name": "t"}
    for number, split in enumerate(given_files.split()):
        rows = [
            {**row, "text": f"{split} {row['text']}", "id": f"{split}{row['id']}"}
            for row in _classification(300 if number == 0 else 30)
        ]
        write_jsonl(tmp_path / f"{split}.jsonl", rows)
        config[split] = str(tmp_path / f"{split}.jsonl")
    task = read_task(config)
    groups = [{leakage_group(e, "classification") for e in part} for part in (task.train, task.dev, task.test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert len(task.train) + len(task.dev) + len(task.test) == 300 + 30 * (len(given_files.split()) - 1)
    assert len(task.notes) == {"train": 1, "train dev": 2, "train test": 1, "train dev test": 0}[given_files]
    if given_files == "train dev":
        assert {e["id"][:3] for e in task.test} == {"dev"} and "dev file is the test set" in " ".join(task.notes)


def test_leak_between_given_files_and_unseen_label_are_noted(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"text": "bir", "label": "x"}, {"text": "iki", "label": "y"}])
    write_jsonl(tmp_path / "b.jsonl", [{"text": "Bir!", "label": "x"}, {"text": "üç", "label": "z"}])
    write_jsonl(tmp_path / "c.jsonl", [{"text": "dörd", "label": "x"}])
    task = read_task(
        {
            "kind": "classification",
            **{s: str(tmp_path / f"{f}.jsonl") for s, f in zip(("train", "test", "dev"), "abc", strict=True)},
        }
    )
    assert task.labels == ["x", "y", "z"] and task.positive is None
    notes = " ".join(task.notes)
    assert "1 of 2 test examples share" in notes and "never in train (cannot be learned): z" in notes


def test_qa_without_an_offset_is_scored_and_not_trained_on(tmp_path):
    rows = [
        {"context": f"mətn {i} söz", "question": "n?", "answer_text": "yox" if i % 2 else "söz", "answer_start": 7}
        for i in range(40)
    ]
    write_jsonl(tmp_path / "q.jsonl", rows)
    task = read_task({"kind": "qa", **dict.fromkeys(("train", "dev", "test"), str(tmp_path / "q.jsonl"))})
    assert (len(task.train), len(task.dev), len(task.test)) == (20, 40, 40)
    assert len(task.skipped) == 20 and all(skip["split"] == "train" for skip in task.skipped)


# ---------------------------------------------------------------- next sentence


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Gəldi. Getdi.", ["Gəldi.", "Getdi."]),
        ("1918-ci il. Mayın 28-də müstəqillik elan edildi.", ["1918-ci il. Mayın 28-də müstəqillik elan edildi."]),
        (
            "Cümhuriyyət 1918-ci il. 28 may günü quruldu. Bu gün bayramdır.",
            ["Cümhuriyyət 1918-ci il. 28 may günü quruldu.", "Bu gün bayramdır."],
        ),
        (
            "A. Səhhət və M. Ə. Sabir dost idilər. Onlar şair idi.",
            ["A. Səhhət və M. Ə. Sabir dost idilər.", "Onlar şair idi."],
        ),
        ("M.Ə. Rəsulzadə çıxış etdi. Alqışladılar.", ["M.Ə. Rəsulzadə çıxış etdi.", "Alqışladılar."]),
        ("Alma, armud və s. Bunlar meyvədir.", ["Alma, armud və s.", "Bunlar meyvədir."]),
        ("Alma, armud və s. meyvələr var.", ["Alma, armud və s. meyvələr var."]),
        (
            "Prof. Əliyev gəldi! “Salam” dedi? Bəli…  Sonra getdi.",
            ["Prof. Əliyev gəldi!", "“Salam” dedi?", "Bəli…", "Sonra getdi."],
        ),
        ("3. Ümumi müddəalar belədir. 4. Son.", ["3. Ümumi müddəalar belədir.", "4. Son."]),
        ("XX. əsr başladı.\nİkinci sətir", ["XX. əsr başladı.", "İkinci sətir"]),
        ("O dedi: «Gəl.» Mən gəldim.", ["O dedi: «Gəl.»", "Mən gəldim."]),
    ],
)
def test_sentences_of_azerbaijani(text, expected):
    assert split_sentences(text, AZ) == expected


def test_sentences_end_by_the_language_s_rules():
    text = "Doç. Yılmaz geldi. Ögleyin gitti."
    assert split_sentences(text, load_language("turkish")) == ["Doç. Yılmaz geldi.", "Ögleyin gitti."]
    assert split_sentences(text, load_language("generic")) == ["Doç.", "Yılmaz geldi.", "Ögleyin gitti."]


def _documents(n=30, sentences=14):
    return [
        {"id": f"d{d}", "text": " ".join(f"Sənəd {d} üçün cümlə {i}{'a' * (i % 5)} budur." for i in range(sentences))}
        for d in range(n)
    ]


def test_next_sentence_is_balanced_correct_and_repeatable():
    documents = _documents()
    examples = build_next_sentence(documents, AZ, seed=1, maximum=100)
    assert (
        examples
        == build_next_sentence(documents, AZ, seed=1, maximum=100)
        != build_next_sentence(documents, AZ, seed=2, maximum=100)
    )
    assert Counter(e["construction"] for e in examples) == {
        "adjacent": 48,
        "swapped": 16,
        "same_document": 16,
        "other_document": 16,
    }
    assert Counter(e["label"] for e in examples) == {"next": 48, "other": 48}
    texts = {d["id"]: split_sentences(d["text"], AZ) for d in documents}
    for e in examples:
        own = texts[e["group"]]
        first = own.index(e["text"])
        if e["construction"] == "other_document":
            home = next(identity for identity, sentences in texts.items() if e["text_b"] in sentences)
            assert home != e["group"] and split_of(home) == split_of(e["group"])
        else:
            step = own.index(e["text_b"]) - first
            assert {"adjacent": step == 1, "swapped": step == -1, "same_document": abs(step) >= FAR}[e["construction"]]
    lengths = {
        label: [abs(len(e["text"]) - len(e["text_b"])) for e in examples if e["label"] == label] for label in ("next", "other")
    }
    assert abs(sum(lengths["next"]) - sum(lengths["other"])) / 48 < 2


def test_next_sentence_of_too_little_text_is_a_message(tmp_path):
    with pytest.raises(UserError, match="Give more or longer documents"):
        build_next_sentence([{"id": "a", "text": "Bir cümlə var burada. İki cümlə var burada."}], AZ)
    write_jsonl(tmp_path / "d.jsonl", [{"id": 1}])
    with pytest.raises(UserError, match="line 1: no 'text'"):
        read_task({"kind": "pair", "documents": str(tmp_path / "d.jsonl"), "language": "az"})


def test_next_sentence_built_on_the_spot_is_the_file_of_its_pairs(tmp_path):
    write_jsonl(tmp_path / "d.jsonl", _documents())
    rows = build_next_sentence(read_documents([tmp_path / "d.jsonl"]), AZ, 0, 90)
    write_jsonl(tmp_path / "n.jsonl", rows)
    assert len(rows) == 90 and {"id", "text", "text_b", "label", "group"} <= rows[0].keys()
    from_file = read_task({"kind": "pair", "train": str(tmp_path / "n.jsonl")})
    built = read_task({"kind": "pair", "documents": str(tmp_path / "d.jsonl"), "max_examples": 90, "language": "az"})
    with pytest.raises(UserError, match=r"task\.language"):
        read_task({"kind": "pair", "documents": str(tmp_path / "d.jsonl")})
    assert [e["id"] for e in from_file.train] == [e["id"] for e in built.train]
    assert not {e["group"] for e in from_file.train} & {e["group"] for e in from_file.test}


@pytest.mark.parametrize(
    ("rows", "config", "said"),
    [
        (
            [{"text": f"mətn {n}", "label": "ab"[n % 2]} for n in range(40)],
            {"kind": "classification", "both_orders": True},
            "task.both_orders: classification has no two texts",
        ),
        (
            [{"text": f"a {n}", "text_b": "b", "label": "ab"[n % 2]} for n in range(40)],
            {"kind": "pair", "both_orders": True, "next_sentence": True, "positive": "a"},
            "a next-sentence task is about the order",
        ),
        (
            [{"text": f"a {n}", "text_b": "b", "label": "ab"[n % 2]} for n in range(40)],
            {"kind": "pair", "valid_tags": True},
            "task.valid_tags: pair has no tags",
        ),
        (
            [{"words": [f"a{n}", "b"], "tags": ["S-PER", "O"]} for n in range(40)],
            {"kind": "tagging", "valid_tags": True, "labels": ["O", "B-PER", "PER"]},
            "'PER' is not an IOB2 tag",
        ),
        (
            [{"words": [f"a{n}", "b"], "tags": ["B-PER", "O"]} for n in range(40)],
            {"kind": "tagging", "next_sentence": True},
            "tagging does not ask what follows",
        ),
        (
            [{"text": f"a {n}", "text_b": "b", "label": "ab"[n % 2]} for n in range(40)],
            {"kind": "pair", "next_sentence": True},
            "set task.positive to the class of a text that follows",
        ),
    ],
)
def test_score_settings_that_the_task_does_not_allow(tmp_path, rows, config, said):
    write_jsonl(tmp_path / "t.jsonl", rows)
    with pytest.raises(UserError, match=said):
        read_task({"train": str(tmp_path / "t.jsonl"), **config})
    kept = {key: value for key, value in config.items() if key == "kind"}
    plain = read_task({"train": str(tmp_path / "t.jsonl"), **kept})
    assert not any(plain.decoding.values()) and not plain.next_sentence
    if config["kind"] == "pair":  # the way scores are read is part of the run's identity
        assert read_task({"train": str(tmp_path / "t.jsonl"), **kept, "both_orders": True}).digest != plain.digest


# ---------------------------------------------------------------- real files


@real
@pytest.mark.parametrize(
    ("kind", "path", "examples", "skipped", "more"),
    [
        ("classification", "topic_sib200/azj_Latn/train.tsv", 701, 0, {}),
        ("classification", "topic_sib200/azj_Latn/test.tsv", 204, 0, {}),
        ("classification", "news_category_az/headlines.jsonl", 2040, 0, {}),
        ("classification", "sentiment_az/train.jsonl", 19557, 0, {}),
        ("tagging", "ner_az/train.conll", 1214, 0, {}),
        ("tagging", "ner_az/valid.conll", 135, 0, {}),
        ("tagging", "ner_biomed_az/validation.jsonl", 799, 1, {"labels": ["O", "B-Chem", "B-Dis", "I-Dis", "I-Chem"]}),
        ("choice", "mcq_tumlu/azerbaijani_test.jsonl", 346, 4, {}),
        ("pair", "paraphrase_az/tatoeba_pairs.jsonl", 243, 0, {}),
        ("qa", "qa_tquad_tr/dev-v0.1.json", 892, 0, {}),
    ],
)
def test_real_task_files(kind, path, examples, skipped, more):
    loaded = load_task_file(REAL / path, kind, TaskSettings(**more))
    assert (len(loaded.examples), len(loaded.skipped)) == (examples, skipped)
    if kind == "qa":
        assert all(e["context"][a["start"] :].startswith(a["text"]) for e in loaded.examples for a in e["answers"])
        assert all(len(e["answers"]) == 3 for e in loaded.examples)
