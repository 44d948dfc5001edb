"""Files that would silently give a wrong number: each is read correctly, with a note, or refused by name."""

import json
import unicodedata

import pytest

from common.errors import UserError
from common.files import write_jsonl
from tasks.cells import SkipRecord, list_of
from tasks.metrics import entities
from tasks.records import load_task_file
from tasks.settings import TaskSettings
from tests.conftest import read_task

CAPITALS = [
    ("Azərbaycan", ["Bakı", "Tehran", "Lima"]),
    ("İran", ["Oslo", "Tehran", "Roma"]),
    ("Peru", ["Kiyev", "Praqa", "Lima"]),
]


def choices(path, options, answers):
    rows = [
        {"question": f"{land} ölkəsinin paytaxtı?", "choices": options(texts), "answerKey": answer}
        for (land, texts), answer in zip(CAPITALS, answers, strict=True)
    ]
    write_jsonl(path, rows)
    return path


@pytest.mark.parametrize(
    ("labels", "answers"),
    [
        (["1", "2", "3"], ["1", "2", "3"]),
        ([1, 2, 3], [1, 2, 3]),
        (["1", "2", "3"], ["1.0", "2.0", "3.0"]),
        (["A", "B", "C"], ["A", "B", "C"]),
        (["A", "B", "C"], [0, 1, 2]),
        (["a)", "b)", "c)"], ["a)", "b)", "c)"]),
        (["0", "1", "2"], ["0", "1", "2"]),
        (["10", "20", "30"], ["10", "20", "30"]),
        (["C", "A", "B"], ["C", "A", "B"]),
    ],
)
@pytest.mark.parametrize("layout", ["lists", "records", "written"])
def test_the_answer_is_the_index_of_its_label(tmp_path, layout, labels, answers):
    def options(texts):
        if layout == "records":
            return [{"label": label, "text": text} for label, text in zip(labels, texts, strict=True)]
        held = {"text": texts, "label": labels}
        return held if layout == "lists" else repr(held)

    loaded = load_task_file(choices(tmp_path / "a.jsonl", options, answers), "choice")
    assert [e["options"][e["label"]] for e in loaded.examples] == ["Bakı", "Tehran", "Lima"] and not loaded.skipped


def test_a_label_of_no_option_has_no_index(tmp_path):
    path = choices(tmp_path / "a.jsonl", lambda texts: {"text": texts, "label": ["1", "2", "3"]}, ["1", "2", "0"])
    loaded = load_task_file(path, "choice")
    assert [e["label"] for e in loaded.examples] == [0, 1]
    assert [skip["reason"] for skip in loaded.skipped] == ["answer '0' is none of the options' labels (1, 2, 3)"]


def test_a_number_is_an_index_before_it_is_a_text(tmp_path):
    rows = [{"question": f"s{n}", "options": ["2", "0", "1"], "answer": n} for n in range(3)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert [e["label"] for e in load_task_file(tmp_path / "a.jsonl", "choice").examples] == [0, 1, 2]


def test_answers_counted_from_one_are_refused_and_never_moved(tmp_path):
    with pytest.raises(UserError, match=r"never 0 \(3 records\), so they seem to be counted from 1.*letters"):
        load_task_file(choices(tmp_path / "a.jsonl", list, [1, 2, 3]), "choice")
    assert [e["label"] for e in load_task_file(choices(tmp_path / "b.jsonl", list, [0, 1, 2]), "choice").examples] == [0, 1, 2]
    # Unanswered records could give the number of options by chance in three records, but not in thirty.
    rows = [{"question": f"s{n}", "options": ["a", "b", "c"], "answer": 1 + n % 2} for n in range(30)]
    write_jsonl(tmp_path / "few.jsonl", rows[:3])
    write_jsonl(tmp_path / "many.jsonl", rows)
    assert len(load_task_file(tmp_path / "few.jsonl", "choice").examples) == 3
    with pytest.raises(UserError, match="counted from 1"):
        load_task_file(tmp_path / "many.jsonl", "choice")
    (tmp_path / "c.csv").write_text("question,A,B,C,answer\ns1,x,y,z,3\ns2,x,y,z,1\ns3,x,y,z,2\n")
    with pytest.raises(UserError, match="counted from 1"):
        load_task_file(tmp_path / "c.csv", "choice")


def test_an_answer_in_brackets_or_to_options_with_letters_is_the_letter(tmp_path):
    def right(options, answers):
        return [
            e["options"][e["label"]] for e in load_task_file(choices(tmp_path / "a.jsonl", options, answers), "choice").examples
        ]

    for answers in (["A)", "B)", "C)"], ["(a)", "(b)", "(c)"], ["a.", "b.", "c."]):
        assert right(list, answers) == ["Bakı", "Tehran", "Lima"]
    assert right(lambda texts: dict(zip("ABC", texts, strict=True)), ["A", "B", "C"]) == ["Bakı", "Tehran", "Lima"]
    assert right(lambda texts: dict(zip("CBA", texts, strict=True)), ["C", "B", "A"]) == ["Bakı", "Tehran", "Lima"]
    turned = ["C) Bakı", "B) Tehran", "A) Lima"]  # options that were shuffled after they got their letters
    assert (
        right(lambda texts: [f"{letter}) {text}" for letter, text in zip("CBA", texts, strict=True)], ["C", "B", "A"]) == turned
    )
    assert (
        right(lambda texts: [f"{letter}. {text}" for letter, text in zip("ÜMA", texts, strict=True)], ["A", "B", "C"])[0]
        == "Ü. Bakı"
    )
    path = choices(tmp_path / "b.jsonl", lambda texts: {"text": texts, "label": ["A", "B", "D"]}, ["A", "B", "C"])
    assert [skip["reason"] for skip in load_task_file(path, "choice").skipped] == [
        "answer 'C' is none of the options' labels (A, B, D)"
    ]


def test_one_letter_among_answers_counted_from_one_hides_nothing(tmp_path):
    rows = [{"question": f"s{n}", "options": ["a1", "b1", "c1"], "answer": str(1 + n % 3)} for n in range(12)]
    write_jsonl(tmp_path / "a.jsonl", [*rows, {"question": "s", "options": ["x", "y"], "answer": "A"}])
    with pytest.raises(UserError, match="counted from 1"):
        load_task_file(tmp_path / "a.jsonl", "choice")


def test_numbers_are_texts_where_other_answers_are(tmp_path):
    rows = [
        {"question": "2 + 1?", "options": ["1", "2", "3"], "answer": "3"},
        {"question": "1 + 1?", "options": ["0", "1", "2"], "answer": "2"},
    ]
    said = {"question": "Paytaxt?", "options": ["Bakı", "Şəki"], "answer": "Şəki"}
    write_jsonl(tmp_path / "a.jsonl", [*rows, said])
    assert [e["options"][e["label"]] for e in load_task_file(tmp_path / "a.jsonl", "choice").examples] == ["3", "2", "Şəki"]


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("[np.str_('Bakı'), np.str_('gözəl')]", ["Bakı", "gözəl"]),
        ("[np.int64(0), np.int64(3)]", [0, 3]),
        ("['Bakı' 'gözəl' 'şəhərdir']", ["Bakı", "gözəl", "şəhərdir"]),
        ("['Bakı'\n 'gözəl'\n 'şəhərdir']", ["Bakı", "gözəl", "şəhərdir"]),
        ("""['a' "b'c" 'd']""", ["a", "b'c", "d"]),
        ("['a b' 'c, d']", ["a b", "c, d"]),
        ("[0 3 -1]", [0, 3, -1]),
        ("['it\\'s' 'x']", ["it's", "x"]),
        ("['a', 'b']", ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ("('a', 'b')", ["a", "b"]),
        ("['a']", ["a"]),
        ("[]", []),
        ("{'text': ['a' 'b'], 'label': ['A' 'B']}", ["a", "b"]),
    ],
)
def test_a_list_as_python_json_and_numpy_print_it(cell, expected):
    assert list_of(cell) == expected


@pytest.mark.parametrize("cell", ["Bakı", "['a' ... 'b']", "array(['a'])", "'a' 'b'", "[a b]", "['a' 'b", "", "7"])
def test_other_cells_are_not_lists(cell):
    with pytest.raises(SkipRecord, match="a list was expected"):
        list_of(cell)


SCHEMES = {
    "IOB2": ["B-PER", "I-PER", "I-PER", "O", "B-LOC", "B-LOC"],
    "IOBES": ["B-PER", "I-PER", "E-PER", "O", "S-LOC", "S-LOC"],
    "BILOU": ["B-PER", "I-PER", "L-PER", "O", "U-LOC", "U-LOC"],
    "BMES": ["B-PER", "M-PER", "E-PER", "O", "S-LOC", "S-LOC"],
    "BMEWO": ["B-PER", "M-PER", "E-PER", "O", "W-LOC", "W-LOC"],
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_tag_scheme_gives_the_same_tags(tmp_path, scheme):
    words, tags = ["Elçin", "bəy", "Əliyev", "və", "Bakı", "Şəki"], SCHEMES[scheme]
    write_jsonl(tmp_path / "a.jsonl", [{"words": words, "tags": tags}] * 3)
    names = sorted(set(tags))
    write_jsonl(tmp_path / "b.jsonl", [{"words": words, "tags": [names.index(tag) for tag in tags]}] * 3)
    for file, labels in (("a.jsonl", None), ("a.jsonl", names), ("b.jsonl", names), ("a.jsonl", sorted(set(SCHEMES["IOB2"])))):
        loaded = load_task_file(tmp_path / file, "tagging", TaskSettings(labels=labels))
        assert [e["tags"] for e in loaded.examples] == [SCHEMES["IOB2"]] * 3, (file, labels)
        assert bool(loaded.notes) == (scheme != "IOB2")
    write_jsonl(tmp_path / "c.jsonl", [{"words": [*words, str(n)], "tags": [*tags, "O"]} for n in range(30)])
    task = read_task({"kind": "tagging", "train": str(tmp_path / "c.jsonl"), "labels": [*names], "valid_tags": True})
    assert sorted(task.labels) == sorted(set(SCHEMES["IOB2"]))


def test_entities_side_by_side_stay_two_in_every_scheme(tmp_path):
    two = {"IOB1": ["I-LOC", "B-LOC"], "IOE1": ["E-LOC", "I-LOC"], "IOE2": ["E-LOC", "E-LOC"], "IOBES": ["S-LOC", "S-LOC"]}
    for scheme, tags in two.items():
        rows = [{"words": ["Bakı", "Şəki", "var", str(n)], "tags": [*tags, "O", "O"]} for n in range(12)]
        write_jsonl(tmp_path / "a.jsonl", rows)
        for example in load_task_file(tmp_path / "a.jsonl", "tagging").examples:
            assert len(entities(example["tags"])) == 2, (scheme, example["tags"])
    assert all(tag[0] != "I" for tag in load_task_file(tmp_path / "a.jsonl", "tagging").examples[0]["tags"])


def test_the_valid_path_of_a_file_in_iob1_finds_entities(tmp_path):
    rows = [{"words": ["Elçin", "Əliyev", "Bakı", str(n)], "tags": ["I-PER", "I-PER", "I-LOC", "O"]} for n in range(90)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    task = read_task({"kind": "tagging", "train": str(tmp_path / "a.jsonl"), "valid_tags": True})
    assert task.labels == ["O", "B-LOC", "B-PER", "I-PER"] and task.train[0]["tags"] == ["B-PER", "I-PER", "B-LOC", "O"]


def test_numbers_beside_tags_are_refused(tmp_path):
    write_jsonl(tmp_path / "a.jsonl", [{"words": ["Bakı", "və"], "tags": ["B-LOC", "0"]}] * 3)
    with pytest.raises(UserError, match="'0' and other tags than numbers"):
        load_task_file(tmp_path / "a.jsonl", "tagging")


def test_a_file_that_loses_a_class_of_examples_is_refused(tmp_path):
    plain = [{"words": ["su", str(n)], "tags": ["O", "O"]} for n in range(30)]
    named = [{"words": ["Bakı", str(n)], "tags": ["LOC", "O"]} for n in range(10)]
    write_jsonl(tmp_path / "a.jsonl", [*plain, *named])
    with pytest.raises(
        UserError, match=r"10 sentences are left out \(tag 'LOC' is neither.*\) and the other 30 hold no entity"
    ):
        load_task_file(tmp_path / "a.jsonl", "tagging")
    write_jsonl(tmp_path / "b.jsonl", [*plain, *named, {"words": ["Bakı"], "tags": ["B-LOC"]}])
    assert len(load_task_file(tmp_path / "b.jsonl", "tagging").skipped) == 10


def test_more_than_half_set_aside_for_one_reason_is_refused(tmp_path):
    rows = [{"text": f"m{n}", "label": "ab"[n % 2] if n < 9 else f"c{n}"} for n in range(20)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(
        UserError, match=r"a\.jsonl: 11 of 20 records cannot be used, for one reason \(line 10: label 'c9' is not"
    ):
        load_task_file(tmp_path / "a.jsonl", "classification", TaskSettings(labels=["a", "b"]))
    write_jsonl(tmp_path / "a.jsonl", rows[:18])
    assert len(load_task_file(tmp_path / "a.jsonl", "classification", TaskSettings(labels=["a", "b"])).skipped) == 9
    (tmp_path / "b.jsonl").write_text("yox\n" * 3)
    with pytest.raises(UserError, match=r"no record in it that can be read \(3 x not valid JSON"):
        load_task_file(tmp_path / "b.jsonl", "classification")


CONTEXT = "🙂👍 Bakı şəhərdir. Bakı paytaxtdır. Bakı böyükdür."
LAST = CONTEXT.rindex("Bakı")


@pytest.mark.parametrize(
    ("start", "expected", "note"),
    [
        (LAST, LAST, None),
        (LAST + 2, LAST, "UTF-16"),  # two emoji before it
        (LAST - 1, LAST, "nearest"),
        (900, LAST, "nearest"),
        (4, 3, "nearest"),
        (None, -1, "several places possible"),
    ],
)
def test_a_wrong_offset_is_moved_to_the_nearest_occurrence(tmp_path, start, expected, note):
    row = {"context": CONTEXT, "question": "Hara?", "answer_text": "Bakı", "answer_start": start}
    write_jsonl(tmp_path / "a.jsonl", [row])
    loaded = load_task_file(tmp_path / "a.jsonl", "qa")
    assert loaded.examples[0]["answers"] == [{"text": "Bakı", "start": expected}]
    assert [note in key for key in loaded.notes] == ([True] if note else [])


@pytest.mark.parametrize(
    ("unit", "size"),
    [
        ("UTF-16", lambda text: len(text.encode("utf-16-le")) // 2),
        ("bytes", lambda text: len(text.encode())),
        ("line ends", lambda text: len(text) + text.count("\n")),
        ("decomposed", lambda text: len(unicodedata.normalize("NFD", text))),
    ],
)
def test_an_offset_counted_in_another_unit_is_put_right(tmp_path, unit, size):
    text = "🙂👍 Gözəl\nşəhər Bakı, çox\nböyük Bakı və yenə\nüç dəfə öz Bakı adı, sonra Bakı."
    places = [place for place in range(len(text)) if text.startswith("Bakı", place)]
    rows = [{"context": text, "question": f"{n}?", "answer_text": "Bakı", "answer_start": size(text[:n])} for n in places]
    write_jsonl(tmp_path / "a.jsonl", rows)
    loaded = load_task_file(tmp_path / "a.jsonl", "qa")
    assert [example["answers"][0]["start"] for example in loaded.examples] == places
    assert any(unit in note for note in loaded.notes) and all("put right" in note for note in loaded.notes)


@pytest.mark.parametrize(
    ("column", "value", "answered"),
    [
        ("answerable", False, 0),
        ("answerable", "1", 1),
        ("is_answerable", "no", 0),
        ("unanswerable", 1.0, 0),
        ("is_impossible", None, 1),
    ],
)
def test_columns_that_say_whether_there_is_an_answer(tmp_path, column, value, answered):
    row = {"context": CONTEXT, "question": "Hara?", "answer_text": "Bakı", "answer_start": LAST}
    write_jsonl(tmp_path / "a.jsonl", [row | {column: value}, row | {column: "bəlkə"}, row])
    loaded = load_task_file(tmp_path / "a.jsonl", "qa")
    assert [len(example["answers"]) for example in loaded.examples] == [answered, 1]
    assert [skip["reason"] for skip in loaded.skipped] == [f"{column} 'bəlkə' is neither true nor false"]


@pytest.mark.parametrize("value", ["TRUE", "true", "1", " Yes ", "1.0", True, 1])
def test_a_question_said_to_have_no_answer_has_none(tmp_path, value):
    row = {"context": CONTEXT, "question": "Hara?", "answer_text": "Bakı", "answer_start": LAST, "is_impossible": value}
    write_jsonl(tmp_path / "a.jsonl", [row, row | {"is_impossible": "FALSE"}, row | {"is_impossible": ""}])
    assert [len(e["answers"]) for e in load_task_file(tmp_path / "a.jsonl", "qa").examples] == [0, 1, 1]


def test_answers_missing_from_their_text_are_named_in_the_last_error(tmp_path):
    rows = [{"context": f"{CONTEXT} {n}", "question": "Hara?", "answer_text": "Quba", "answer_start": 0} for n in range(12)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=r"no example .*set aside: \d+ x answer has no certain place in the context"):
        read_task({"kind": "qa", "train": str(tmp_path / "a.jsonl")})


def test_a_test_set_without_its_labels_is_refused(tmp_path):
    lines = [f"cümlə {n},{n % 2}" for n in range(20)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *lines]))
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *(f"sınaq {n},-1" for n in range(5))]))
    for config in ({"train": str(tmp_path)}, {"train": str(tmp_path / "train.csv"), "test": str(tmp_path / "test.csv")}):
        with pytest.raises(UserError, match=r"the test set has labels of -1 alone, so it has no labels\. Set task\.test"):
            read_task({"kind": "classification", **config})
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *(f"sınaq {n},{n % 3 - 1}" for n in range(6))]))
    lines = [f"cümlə {n},{n % 3 - 1}" for n in range(30)]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *lines]))  # -1, 0 and 1 are three classes
    assert read_task({"kind": "classification", "train": str(tmp_path)}).labels == ["-1", "0", "1"]


@pytest.mark.parametrize("value", ["-1", "-1.0", "-100", "?", "unlabeled"])
def test_one_label_throughout_that_train_never_has_is_none(tmp_path, value):
    train = "\n".join(["text,label", *(f"cümlə {n},{n % 2}.0" for n in range(20))])
    (tmp_path / "train.csv").write_text(train)
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *(f"sınaq {n},{value}" for n in range(5))]))
    with pytest.raises(UserError, match=r"the test set has labels of .* alone, so it has no labels"):
        read_task({"kind": "classification", "train": str(tmp_path)})
    (tmp_path / "test.csv").write_text("\n".join(["text,label", *(f"sınaq {n},1" for n in range(5))]))
    assert read_task({"kind": "classification", "train": str(tmp_path)}).labels == ["0", "1"]  # and 1.0 is 1


HIDDEN = {
    "tagging": (
        {"words": ["Bakı", "{n}"], "tags": ["B-LOC", "O"]},
        {"words": ["Bakı", "{n}"], "tags": ["O", "O"]},
        "tags of O",
    ),
    "multilabel": ({"text": "a {n}", "labels": ["a", "b"]}, {"text": "a {n}", "labels": []}, "texts without a label"),
    "similarity": (
        {"text": "a {n}", "text_b": "b", "score": "{n}"},
        {"text": "c {n}", "text_b": "b", "score": -1.0},
        "scores of -1",
    ),
    "pair": ({"text": "a {n}", "text_b": "b", "label": "{n}"}, {"text": "c {n}", "text_b": "b", "label": "-1"}, "labels of -1"),
}


@pytest.mark.parametrize("kind", HIDDEN)
def test_a_test_set_without_gold_answers_is_refused_for_every_kind(tmp_path, kind):
    row, bare, said = HIDDEN[kind]
    for name, one in (("train", row), ("test", bare)):
        lines = [json.dumps(one).replace("{n}", str(n % 5 if name == "train" else n)) for n in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=f"the test set has {said} alone"):
        read_task({"kind": kind, "train": str(tmp_path)})


def test_labels_parted_by_another_sign_are_several(tmp_path):
    for sign, name in ((";", "a"), (", ", "b"), ("|", "c")):
        cells = [sign.join(pair) for pair in (("idman", "siyasət"), ("siyasət", "elm"), ("elm",), ("idman", "elm"))]
        write_jsonl(tmp_path / f"{name}.jsonl", [{"text": f"m{n}", "labels": cell} for n, cell in enumerate(cells)])
        found = load_task_file(tmp_path / f"{name}.jsonl", "multilabel")
        assert [len(example["labels"]) for example in found.examples] == [2, 2, 1, 2] and bool(found.notes) == (sign != "|")
    cells = ["Elm, texnologiya", "Mədəniyyət, incəsənət", "İdman"]
    write_jsonl(tmp_path / "d.jsonl", [{"text": f"m{n}", "labels": cell} for n, cell in enumerate(cells)])
    assert [example["labels"] for example in load_task_file(tmp_path / "d.jsonl", "multilabel").examples] == [
        [c] for c in cells
    ]


def test_files_of_a_folder_that_name_no_split_are_named(tmp_path):
    for name in ("train", "test", "fizika", "kimya"):
        rows = [{"text": f"{name} {n}", "label": "ab"[n % 2]} for n in range(20)]
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    task = read_task({"kind": "classification", "train": str(tmp_path)})
    (note,) = [note for note in task.notes if "indicate no split" in note]
    assert "2 files are not read" in note and "fizika.jsonl, kimya.jsonl" in note
    assert not any("fizika" in example["text"] for example in task.train)
    write_jsonl(tmp_path / "test.jsonl", [{"text": f"test {n}", "label": "c"} for n in range(20)])  # a subject, and no split
    said = r"test\.jsonl: the test set has labels of c alone.* 2 files are not read.*fizika\.jsonl"
    with pytest.raises(UserError, match=said):
        read_task({"kind": "classification", "train": str(tmp_path)})


def test_the_language_before_every_word_of_a_list_is_refused(tmp_path):
    row = {"tokens": ["az:Bakı", "az:gözəl"], "ner_tags": ["B-LOC", "O"]}
    write_jsonl(tmp_path / "a.jsonl", [row, row])
    with pytest.raises(UserError, match="every word begins with 'az:'"):
        load_task_file(tmp_path / "a.jsonl", "tagging")
    write_jsonl(tmp_path / "a.jsonl", [row, row | {"tokens": ["az:Bakı", "son"]}])
    assert json.dumps(load_task_file(tmp_path / "a.jsonl", "tagging").examples[0]["words"][0]) == '"az:Bak\\u0131"'
