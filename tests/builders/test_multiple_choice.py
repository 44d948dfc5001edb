"""Multiple-choice sets: every layout of an exam file, broken items by reason, near-duplicate stems, planted biases found."""

import random
from collections import defaultdict

import pytest

from builders.exams import html_tables, read_exams
from builders.multiple_choice import biases, split_options
from common.errors import UserError
from common.files import read_jsonl, write_jsonl, write_text
from tasks.cells import SkipRecord
from tests.builders.making import contents, make, read_by_finetune, rows_of

WORDS = ["çay", "dağ", "göl", "şəhər", "ölkə", "dəniz", "ada", "körpü", "qala", "meşə", "yol", "bulaq", "səhra", "vadi"]


def exam(number: int = 150, options: int = 4, seed: int = 0) -> list[dict]:
    """Questions of unlike stems whose options differ in nothing from which the right one could be told."""
    draw, rows = random.Random(seed), []
    for n in range(number):
        stem = " ".join(draw.choice(WORDS) + "".join(draw.choices("abcdefgh", k=4)) for _ in range(6))
        texts = [f"{word}{draw.randint(100, 999)}" for word in draw.sample(WORDS, options)]
        rows.append({"id": f"q{n}", "question": f"{stem} haradadır?", "options": texts, "answer": draw.randrange(options)})
    return rows


def read(path, *words, tmp_path):
    """(examples by id, report) of a set built from one file."""
    report = make(tmp_path / path.stem, "kind=multiple_choice", f"files={path}", "shares=[0.4, 0.2, 0.4]", *words)
    return {row["id"]: row for row in rows_of(tmp_path / path.stem)}, report


def test_every_layout_gives_the_same_questions(tmp_path):
    """A list with numbers from 0 and from 1, columns with letters, one cell, the end of the question, answers as text."""
    rows = exam(40)
    letters = "ABCD"

    def joined(row, mark):
        return " ".join(f"{mark.replace('?', letters[i])} {text}" for i, text in enumerate(row["options"]))

    bare = [{"id": row["id"], "question": row["question"]} for row in rows]
    right = [letters[row["answer"]] for row in rows]
    layouts = {
        "list": rows,
        "from_one": [{**row, "answer": row["answer"] + 1} for row in rows],
        "text": [{**row, "answer": row["options"][row["answer"]]} for row in rows],
        "columns": [
            {**own, **dict(zip(letters, row["options"], strict=True)), "answer": letter}
            for own, row, letter in zip(bare, rows, right, strict=True)
        ],
        "cell": [
            {**own, "options": joined(row, "?)"), "answer": letter.lower()}
            for own, row, letter in zip(bare, rows, right, strict=True)
        ],
        "lines": [{**row, "options": "\n".join(row["options"])} for row in rows],
        "dots": [
            {**own, "options": joined(row, "?."), "answer": f"{letter}. {row['options'][row['answer']]}"}
            for own, row, letter in zip(bare, rows, right, strict=True)
        ],
        "behind": [
            {**own, "question": f"{own['question']} {joined(row, '(?)')}", "answer": f"({letter})"}
            for own, row, letter in zip(bare, rows, right, strict=True)
        ],
    }
    for name, made in layouts.items():
        write_jsonl(tmp_path / f"{name}.jsonl", made)
        found, report = read(tmp_path / f"{name}.jsonl", tmp_path=tmp_path)
        got = {key: (one["question"], one["options"], one["label"]) for key, one in found.items()}
        assert got == {row["id"]: (row["question"], row["options"], row["answer"]) for row in rows}, name
        assert report["aside"] == {}, name


def test_word_and_web_tables(tmp_path):
    """A header, a picture, a formula, a heading across the table, a table that goes on, one that is none; raised characters."""
    docx = pytest.importorskip("docx", reason="an optional dependency (requirements-extra.txt)")
    from docx.oxml import OxmlElement

    rows = exam(12)
    document = docx.Document()
    document.add_table(1, 2).rows[0].cells[0].text = "Ad, soyad"
    for part in (rows[:8], rows[8:]):
        table = document.add_table(0, 7)
        if part[0] is rows[0]:
            for cell, name in zip(table.add_row().cells, ["Sual", "A", "B", "C", "D", "E", "Cavab"], strict=True):
                cell.text = name
        for row in part:
            values = [row["question"], *row["options"], "", "ABCD"[row["answer"]]]
            for cell, value in zip(table.add_row().cells, values, strict=True):
                cell.text = value
    table = document.tables[1]
    table.rows[1].cells[1]._tc.p_lst[0].append(OxmlElement("w:drawing"))
    table.rows[2].cells[0]._tc.p_lst[0].append(OxmlElement("m:oMath"))
    table.rows[3].cells[1].paragraphs[0].add_run("2").font.superscript = True
    heading = table.add_row().cells
    heading[0].merge(heading[6]).text = "Coğrafiya"
    document.save(str(tmp_path / "exam.docx"))
    names = ("columns.question=Sual", "columns.label=Cavab")
    found, report = read(tmp_path / "exam.docx", *names, tmp_path=tmp_path)
    assert report["aside"] == {
        "a formula that is not text": 1,
        "a table without a known header": 1,
        "an image in the question or an option": 1,
        "number of cells differs from the header's": 1,
    }
    assert len(found) == 10
    raised = next(one for one in found.values() if one["question"] == rows[2]["question"])
    assert raised["options"][0] == rows[2]["options"][0] + "^2" and raised["label"] == rows[2]["answer"]

    cells = [[row["question"], *(f"<b>{option}</b>" for option in row["options"]), "ABCD"[row["answer"]]] for row in rows]
    lines = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>\n" for row in cells)
    page = f"<table><tr><td>Menyu<table><tr><th>Sual<th>A<th>B<th>C<th>D<th>Cavab</tr>{lines}</table></td></tr></table>"
    write_text(tmp_path / "page.html", f"<html><body>{page}</body></html>")
    found, report = read(tmp_path / "page.html", *names, tmp_path=tmp_path)
    got = {one["question"]: (one["options"], one["label"]) for one in found.values()}
    assert got == {row["question"]: (row["options"], row["answer"]) for row in rows} and report["aside"] == {}


def test_cells_of_a_page(tmp_path):
    pytest.importorskip("lxml", reason="an optional dependency (requirements-extra.txt)")
    page = (
        "<table><tr><th>question</th><th>A</th></tr><tr><td rowspan=2>10<sup>2</sup> H<sub>2</sub>O<!-- x --> nə<br>dir"
        "<script>no()</script>?</td><td>a <i>b</i>\n c</td></tr><tr><td>x<img src=y.png alt=z></td></tr>"
        "<tr><td colspan=2>Tarix</td></tr><tr><td><math><mi>x</mi></math></td><td rowspan=999999999>y</td></tr></table>"
    )
    write_text(tmp_path / "a.html", page)
    stem = "10^2 H2O nə\ndir?"
    rows = [["question", "A"], [stem, "a b c"], [stem, "x <img>"], ["Tarix"], ["<math>", "y"]]
    assert html_tables(tmp_path / "a.html") == [rows]
    put: list = []
    assert [line for _, line, _ in read_exams([tmp_path / "a.html"], ["question"], put)] == [2, 3, 5]
    assert [(one["line"], one["reason"]) for one in put] == [(4, "number of cells differs from the header's")]
    write_text(tmp_path / "b.html", "<table><tr><td>1</td><td>s</td></tr></table>")
    assert [row for _, _, row in read_exams([tmp_path / "b.html"], ["column 2"], put)] == [{"column 1": "1", "column 2": "s"}]
    (tmp_path / "c.html").write_bytes(
        "<meta charset=windows-1254><table><tr><td>question</td></tr><tr><td>ışık</td></tr>".encode("cp1254")
    )
    assert [row for _, _, row in read_exams([tmp_path / "c.html"], ["question"], put)] == [{"question": "ışık"}]


def test_a_word_file_that_is_none_is_a_message(tmp_path):
    pytest.importorskip("docx", reason="an optional dependency (requirements-extra.txt)")
    (tmp_path / "a.docx").write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(UserError, match=r"a\.docx: no Word file that can be read"):
        list(read_exams([tmp_path / "a.docx"], ["question"], []))


@pytest.mark.parametrize(
    ("cell", "before", "options"),
    [
        ("Nədir? A) bir B) iki", "Nədir?", {"text": ["bir", "iki"], "label": ["A", "B"]}),
        ("b) iki a) bir", "", {"text": ["iki", "bir"], "label": ["B", "A"]}),
        ("A) A. Puşkin B) B. Vahabzadə", "", {"text": ["A. Puşkin", "B. Vahabzadə"], "label": ["A", "B"]}),
        ("1. bir; 2. iki; 3. üç", "", {"text": ["bir", "iki", "üç"], "label": ["A", "B", "C"]}),
        ("1.5; 2.5", "", ["1.5", "2.5"]),
        ("bir|iki", "", ["bir", "iki"]),
    ],
)
def test_options_of_one_cell(cell, before, options):
    assert split_options(cell) == (before, options)


def test_cells_without_two_options():
    for cell in ("bir", "A) bir", "A) bir C) iki"):
        with pytest.raises(SkipRecord):
            split_options(cell, marked=True)


def test_letters_of_another_alphabet(tmp_path):
    rows = [{**row, "answer": "АБВГ"[row["answer"]]} for row in exam(40)]
    write_jsonl(tmp_path / "kk.jsonl", rows)
    found, _ = read(tmp_path / "kk.jsonl", "multiple_choice.letters=АБВГ", "language=kazakh", tmp_path=tmp_path)
    assert {key: one["label"] for key, one in found.items()} == {row["id"]: "АБВГ".index(row["answer"]) for row in rows}


def test_broken_items_are_set_aside_by_reason(tmp_path):
    rows = exam()
    good = len(rows)
    extra = exam(12, seed=1)
    extra[0]["options"] = ["bir"]
    extra[1]["options"] = [str(n) for n in range(8)]
    extra[2]["options"][1] = extra[2]["options"][0]
    extra[3]["options"][1] = ""
    extra[4]["question"] = ""
    extra[5]["question"] += " <img src='a.png'>"
    extra[6]["answer"] = 9
    extra[7]["answer"] = "A, C"
    extra[8]["answer"] = None
    extra[9]["question"] = "Şəkildə nə göstərilib?"
    extra[10].update(answer=f"B) {extra[10]['options'][0]}")
    extra[11].update(question=rows[3]["question"], options=rows[3]["options"][::-1], answer=(4 - rows[3]["answer"]) % 4)
    rows = [{**row, "id": f"r{n}"} for n, row in enumerate([*rows, *extra])]
    write_jsonl(tmp_path / "a.jsonl", rows)
    found, report = read(tmp_path / "a.jsonl", "multiple_choice.unseen=şəkildə|rəsmdə", tmp_path=tmp_path)
    assert report["aside"] == {
        "one question with several answers": 2,
        "1 options, expected 2 to 7": 1,
        "8 options, expected 2 to 7": 1,
        "an answer whose letter and text are of two options": 1,
        "an image in the question or an option": 1,
        "answer is neither a letter A-G, an index from 0, nor one of the options": 1,
        "answer is outside the 4 options (letters from A, numbers from 0)": 1,
        "empty option": 1,
        "empty question": 1,
        "it refers to something that is not in its text (multiple_choice.unseen)": 1,
        "no answer": 1,
        "two options are the same": 1,
    }
    assert len(found) == good - 1
    put = [row for _, row in read_jsonl(tmp_path / "a" / "aside.jsonl")]
    assert len(put) + len(found) == len(rows) and all(row["line"] and row["row"] for row in put)


def test_near_duplicate_stems_stay_together_and_shuffled_copies_are_one(tmp_path):
    rows = exam()
    near = {
        **rows[7],
        "id": "near",
        "question": rows[7]["question"].replace(" haradadır", " harada"),
        "options": ["a1", "b2", "c3", "d4"],
    }
    copy = {**rows[9], "id": "copy", "options": rows[9]["options"][::-1], "answer": 3 - rows[9]["answer"]}
    write_jsonl(tmp_path / "a.jsonl", [*rows, near, copy])
    found, report = read(tmp_path / "a.jsonl", tmp_path=tmp_path)
    assert report["aside"] == {"the same question as another": 1} and "copy" not in found
    groups = defaultdict(set)
    for key, one in found.items():
        groups[one["group"]].add(key)
    assert [keys for keys in groups.values() if len(keys) > 1] == [{"q7", "near"}]
    task = read_by_finetune(tmp_path / "a", report)
    assert not any("share their text or group" in note for note in task.notes) and not task.skipped


def test_planted_biases_are_found_and_nothing_is_found_where_nothing_is(tmp_path):
    rows = [{**row, "label": row["answer"]} for row in exam(400)]
    assert not any(one["found"] for one in biases(rows).values())
    longer, placed, lettered = [], [], []
    for n, row in enumerate(rows):
        texts = list(row["options"])
        if n % 3 == 0:
            texts[row["answer"]] += " və onun ətrafı"
        longer.append({**row, "options": texts})
        placed.append({**row, "answer": 2 if n % 3 == 0 else row["answer"]})
        order = random.Random(n).sample(range(4), 4)
        marks = {place: mark for mark, place in zip("BCD", [p for p in range(4) if p != row["answer"]], strict=True)}
        marks[row["answer"]] = "A"
        lettered.append(
            {**row, "options": [f"{marks[p]}) {row['options'][p]}" for p in order], "answer": order.index(row["answer"])}
        )
    said = {}
    for name, made in (("longer", longer), ("placed", placed), ("lettered", lettered)):
        write_jsonl(tmp_path / f"{name}.jsonl", [{k: v for k, v in row.items() if k != "label"} for row in made])
        found, report = read(tmp_path / f"{name}.jsonl", tmp_path=tmp_path)
        assert len(found) == 400
        said[name] = [line.split(" is right in ")[0] for line in report["beware"] if " is right in " in line]
        if name == "lettered":
            assert not any(option[1:2] == ")" for one in found.values() for option in one["options"])
            assert report["counts"]["questions whose options carried letters (removed)"] == 400
    assert said["longer"] == ["the longest option"] and said["placed"] == ["option 3"]
    assert said["lettered"] == ["letter A before options in another order (removed)"]
    card = (tmp_path / "longer" / "README.md").read_text(encoding="utf-8")
    assert "| the longest option | 400 |" in card and "## Lengths" in card


def test_the_biases_are_those_counted_by_hand():
    rows = [
        {"options": ["bir", "i"], "label": 0},
        {"options": ["bir", "i", "c"], "label": 1},
        {"options": ["a", "b", "cc"], "label": 2},
    ]
    told = biases(rows)
    assert told["the longest option"] | {"low": 0, "high": 0} == {
        "questions": 3, "right": 0.6667, "low": 0, "high": 0, "chance": 0.3889, "found": False
    }  # fmt: skip
    assert told["option 3"]["questions"] == 2 and told["option 3"]["right"] == 0.5
    assert told["the last option"]["right"] == 0.3333 and "option 4" not in told


def test_planted_leaks_are_found_and_two_builds_are_the_same(tmp_path, monkeypatch):
    rows = exam()
    write_jsonl(tmp_path / "a.jsonl", rows)
    write_jsonl(tmp_path / "corpus.jsonl", [{"text": " ".join([row["question"], *row["options"]])} for row in rows])
    words = ("kind=multiple_choice", f"files={tmp_path}/a.jsonl", f"overlap={tmp_path}/corpus.jsonl", "overlap_words=5")
    report = make(tmp_path / "one", *words)
    assert report["leakage"]["half"] == report["leakage"]["items"] > 20
    names = [row["baseline"] for row in report["difficulty"]["rows"]]
    assert names == ["majority", "longest_option", "tfidf", "cues", "blind"]
    with monkeypatch.context() as patch:
        patch.setattr("builders.build.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "two", *words)
    make(tmp_path / "two", *words)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize(
    ("rows", "words", "said"),
    [
        ([{**row, "answer": 1} for row in exam(3)], (), r"may count from 0 or from 1\. Set multiple_choice\.counted_from"),
        ([{**row, "options": "bir"} for row in exam(3)], (), "no question can be used .3 options that cannot be told apart"),
        (exam(3), ("multiple_choice.letters=AAB",), "expected 2 to 7 different letters"),
        (exam(3), ("multiple_choice.unseen=(",), "no regular expression"),
        (exam(3), ("columns.question=Sual",), r"no column for 'question'.*columns\.question=COLUMN"),
    ],
)
def test_what_cannot_be_read_is_a_message(tmp_path, rows, words, said):
    write_jsonl(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=said):
        make(tmp_path / "set", "kind=multiple_choice", f"files={tmp_path}/a.jsonl", *words)
