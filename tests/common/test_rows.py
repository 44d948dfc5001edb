"""The one reader of task files: how each unusual file is read, and that all rooms read the same."""

import gzip
import json

import pytest

from common.errors import UserError
from common.files import POINTER
from common.tables import MAX_RECORD
from common.task_files import Noted, Skipped, read_clean, read_task_file
from corpus.matching.decontamination import read_items as indexed_items
from corpus.reading.formats import unreadable
from evaluation.leakage import read_items as leakage_items
from tasks.files import TaskFile
from tasks.files import read_rows as task_rows


def read(path, content, **options):
    """(rows, {line: reason of what was skipped}, notes) of a file with this content."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    items = list(read_task_file(path, **options))
    rows = [row for _, row in items if isinstance(row, dict)]
    skipped = {line: row.reason for line, row in items if isinstance(row, Skipped)}
    return rows, skipped, [row.reason for _, row in items if isinstance(row, Noted)]


def sentences(path, content, **options):
    rows, skipped, notes = read(path, content, **options)
    return [list(zip(row["words"], row["tags"], strict=True)) for row in rows], skipped, notes


@pytest.mark.parametrize("name", ["a.tsv", "a.csv", "a.conll"])
def test_all_rooms_read_the_same_items(tmp_path, name):
    lines = {
        "a.tsv": ["text\tlabel", '"açıq qalan dırnaq\ta', "iki\tb", 'üç"\ta'],
        "a.csv": ["text,label", '"bir, iki",a', "iki,b", "üç,a"],
        "a.conll": ["#Bakı\tB-LOC", "gözəldir\tO", "", "iki\tO", "", "# a comment", "üç\tO"],
    }[name]
    path = tmp_path / name
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    texts = [row.get("text") or " ".join(row["words"]) for _, row in task_rows(path, "tagging", TaskFile())]
    assert len(texts) == (2 if name == "a.conll" else 3) + (name == "a.conll")
    assert [text for _, text in leakage_items(path)[1]] == texts
    assert [item.get("text") or " ".join(item["words"]) for _, item in indexed_items(path)] == texts


def test_other_blanks_are_part_of_a_word(tmp_path):
    content = "17\u00a0000 O\nXəzər\u00a0dənizi B-LOC\n\u00a0 O\n\n\u2009\tO\nson\tO\n"
    found, skipped, notes = sentences(tmp_path / "a.conll", content)
    assert found == [[("17\u00a0000", "O"), ("Xəzər\u00a0dənizi", "B-LOC"), ("\u00a0", "O")], [("\u2009", "O"), ("son", "O")]]
    assert not skipped and not notes


def test_comments_are_skipped_and_a_lone_hash_is_a_word(tmp_path):
    content = "# sent_id = 1\n# text = Bu kimdir? O\nBu\tO\n#Bakı\tB-LOC\n\n# O\nson O\n\n#\tO\nson\tO\n"
    found, skipped, _ = sentences(tmp_path / "a.conll", content)
    words = [[word for word, _ in sentence] for sentence in found]
    assert words == [["Bu", "#Bakı"], ["#", "son"], ["#", "son"]] and not skipped


def test_a_column_of_word_numbers_is_skipped(tmp_path):
    tagged = [("Rəşad", "B-PER", "O"), ("Həsənova", "I-PER", "O"), ("17", "O", "O")]
    content = "".join(f"{n}\t{word}\t{outer}\t{inner}\n" for n, (word, outer, inner) in enumerate(tagged, 1)) + "\n"
    found, _, notes = sentences(tmp_path / "a.conll", content * 2)
    assert found == [[(word, outer) for word, outer, _ in tagged]] * 2
    assert "numbers the words" in notes[0] and notes[1] == "column 3 of 4 is read as the tag"
    found, _, notes = sentences(tmp_path / "a.conll", content.replace("\tO\n", "\n") * 2)  # three columns
    assert found == [[(word, outer) for word, outer, _ in tagged]] * 2 and len(notes) == 1
    found, _, notes = sentences(tmp_path / "a.conll", "0 Bakı B-LOC\n1 gözəl O\n\n0 son O\n")
    assert found == [[("Bakı", "B-LOC"), ("gözəl", "O")], [("son", "O")]] and len(notes) == 1
    words, _, _ = read(tmp_path / "a.conll", "1 Bakı\n2 gözəl\n", bare=True)
    assert words[0]["words"] == ["Bakı", "gözəl"]


WORDS = [["Rəşad", "Həsənova", "17", "may"], ["Bakıdan", "gəldi", "."], ["Şəki", "və", "Quba"]] * 3


@pytest.mark.parametrize(
    "layout",
    [
        lambda sentence, place, line, word: f"{line}\t{word}\tO",  # one number through the whole file
        lambda sentence, place, line, word: f"{sentence}.{place + 1} {word} O",
        lambda sentence, place, line, word: f"s{sentence}-{place} {word} O",
        lambda sentence, place, line, word: f"Sentence: {sentence}\t{word}\tNOUN\tO",
        lambda sentence, place, line, word: f"{sentence}\t{place}\t{word}\tO",
        lambda sentence, place, line, word: f"bc/x 0 {place} {word} NN - O",  # CoNLL-2012's first columns
        lambda sentence, place, line, word: (
            f"{place + 1}\t{word}\tO" + (f"\n{place + 1}-{place + 2}\t_\t_" if place == 1 else "")
        ),
        lambda sentence, place, line, word: f"{word}\tO\t{place + 1}",
    ],
)
def test_columns_that_number_words_or_name_sentences_are_none(tmp_path, layout):
    lines, line = [], 0
    for sentence, words in enumerate(WORDS):
        for place, word in enumerate(words):
            lines.append(layout(sentence, place, line, word))
            line += 1
        lines.append("")
    found, skipped, notes = sentences(tmp_path / "a.conll", "\n".join(lines))
    assert [[word for word, _ in sentence] for sentence in found] == WORDS and not skipped and notes
    assert {tag for sentence in found for _, tag in sentence} == {"O"}


def test_a_line_with_a_column_too_many_costs_its_sentence(tmp_path):
    found, skipped, _ = sentences(tmp_path / "a.conll", "Bakı B-LOC\n\nNew York B-LOC\nson O\n\nson O\n")
    assert found == [[("Bakı", "B-LOC")], [("son", "O")]] and skipped == {3: "a line has 3 columns, expected 2"}


def test_comments_without_a_blank_are_no_words_where_all_words_have_tags(tmp_path):
    content = "#sent 12\nBakı O\n#Bakı B-LOC\n\n#begin document (bc/x); part 000\nson O\nson O\nson O\n"
    found, skipped, _ = sentences(tmp_path / "a.conll", content)
    assert [len(sentence) for sentence in found] == [2, 3] and not skipped
    found, _, _ = sentences(tmp_path / "b.conll", "#Bakı 3\nson 0\n")  # tags that are numbers
    assert found == [[("#Bakı", "3"), ("son", "0")]]


def test_numbers_that_are_words_stay_words(tmp_path):
    found, _, notes = sentences(tmp_path / "a.conll", "1 CD O\n2 CD O\n\n1 CD O\n3 CD O\n")
    assert [word for word, _ in found[1]] == ["1", "3"] and not notes


@pytest.mark.parametrize(
    ("columns", "tag", "noted"),
    [
        ("Bakı NNP B-NP B-LOC\nböyükdür VB B-VP O\n", "B-LOC", False),  # CoNLL-2003: chunk, then name
        ("Bakı B-LOC O\nböyükdür O O\n", "B-LOC", True),  # nested, the inner level empty
        ("Bakı B-ORG B-LOC\nBankı I-ORG O\nBakı B-LOC O\n", "B-ORG", True),  # nested: one type on both levels
        ("Bakı B-LOC - -\nböyükdür O - -\n", "B-LOC", True),
        ("Bakı B-NP PER\nböyükdür B-VP O\n", "PER", False),  # no scheme: left to whoever checks tags
        ("Bakı _ _ B-LOC\nböyükdür _ _ O\n", "B-LOC", False),
    ],
)
def test_which_column_is_the_tag(tmp_path, columns, tag, noted):
    found, _, notes = sentences(tmp_path / "a.conll", columns)
    assert found[0][0][1] == tag and bool(notes) == noted


def test_the_language_before_every_word_is_taken_off(tmp_path):
    found, _, notes = sentences(tmp_path / "a.conll", "az:Bakı\tB-LOC\naz:az:\tO\n\naz:son\tO\n")
    assert [word for sentence in found for word, _ in sentence] == ["Bakı", "az:", "son"] and "'az:'" in notes[0]
    found, _, notes = sentences(tmp_path / "a.conll", "az:Bakı\tB-LOC\nson\tO\n")
    assert found[0][0][0] == "az:Bakı" and not notes
    for before in ("aze_Latn:", "az-AZ:", "AZ:", "az_", "az|"):
        found, _, notes = sentences(tmp_path / "a.conll", f"{before}Bakı O\n{before}Quba_x O\n\n{before}: O\n")
        assert [word for sentence in found for word, _ in sentence] == ["Bakı", "Quba_x", ":"] and before in notes[0]
    found, _, notes = sentences(tmp_path / "a.conll", "az:Bakı O\n\ntr:Ankara O\n")
    assert [sentence[0][0] for sentence in found] == ["Bakı", "Ankara"] and "'az:' or 'tr:'" in notes[0]


def test_json_of_every_layout(tmp_path):
    path, records = tmp_path / "a.json", [{"text": "bir"}, {"text": "iki"}]
    lined = "".join(json.dumps(record) + "\n" for record in records)
    for content in (lined, json.dumps(records), json.dumps({"data": records}), json.dumps(records, indent=1)):
        assert read(path, content) == (records, {}, [])
    assert read(path, lined + "{\n" + lined)[1] == {3: "not valid JSON (Expecting property name enclosed in double quotes)"}
    assert read(path, "\n".join(json.dumps(record, indent=1) for record in records)) == (records, {}, [])
    with pytest.raises(UserError, match="not valid JSON"):
        read(path, json.dumps(records, indent=1) + json.dumps(records, indent=1))
    squad = {"data": [{"title": "t", "paragraphs": [{"context": "c", "qas": [{"id": 1, "question": "q"}]}]}]}
    assert read(path, json.dumps(squad))[0] == [{"title": "t", "context": "c", "id": 1, "question": "q"}]
    with pytest.raises(UserError, match="one record a line"):
        read(path, "[1, 2]")


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.tsv", "a.conll", "a.jsonl.gz", "a.txt", "a.parquet"])
def test_a_pointer_of_git_lfs_is_named_in_every_format(tmp_path, name):
    with pytest.raises(UserError, match=r"git-lfs pointer.*git lfs pull"):
        read(tmp_path / name, POINTER + b"v1\noid sha256:6a\nsize 1234567\n")


@pytest.mark.parametrize(
    "content",
    [
        b"version https://hawser.github.com/spec/v1\noid sha256:6a\n",
        b"\xef\xbb\xbf" + POINTER + b"v1\r\n",
        b"\n" + POINTER + b"v1\n",
        b"/annex/objects/SHA256E-s123--6a.csv\n",
        b"../.git/annex/objects/6a/Z3/SHA256E-s123--6a.csv/SHA256E-s123--6a.csv",
        gzip.compress(POINTER + b"v1\noid sha256:6a\nsize 1234567\n"),
    ],
    # Named by hand: gzip writes the time into its header, and the workers of one run must collect the same names.
    ids=["hawser", "after a byte order mark", "after an empty line", "annex", "annex by a link", "gzipped"],
)
def test_notes_of_other_tools_and_packed_ones_are_no_data_either(tmp_path, content):
    path = tmp_path / ("a.csv.gz" if content[:2] == b"\x1f\x8b" else "a.csv")
    with pytest.raises(UserError, match=r"git-lfs pointer"):
        read(path, content)
    assert unreadable(path, "a").reason == "git_lfs_pointer"


def test_lines_that_cannot_be_read_are_skipped_by_name(tmp_path):
    bad = {2: b"[1]", 3: b"\xff", 4: b"9" * 9000, 5: b"[" * 9000, 6: b'{"a"'}
    content = b"\n".join([b'{"text": "bir"}', *bad.values(), b'{"text": "son"}'])
    rows, skipped, _ = read(tmp_path / "a.jsonl", content)
    assert [row["text"] for row in rows] == ["bir", "son"] and set(skipped) == set(bad)
    assert skipped[3] == "not UTF-8"
    with pytest.raises(UserError, match=r"a\.jsonl, line 2: not a JSON object"):
        list(read_clean(tmp_path / "a.jsonl"))
    rows, skipped, _ = sentences(tmp_path / "a.conll", b"a O\n\xff O\n\nson O\n")
    assert len(rows) == 1 and skipped == {1: "not UTF-8"}


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.json", "a.conll"])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "cp1254"])
def test_another_encoding_is_named(tmp_path, name, encoding):
    mark = "\ufeff" if encoding == "utf-16-be" else ""
    with pytest.raises(UserError, match="UTF-8"):
        for line, row in read_clean(write(tmp_path / name, f"{mark}söz,ğ\tO\nçox,ü\tO\n".encode(encoding))):
            assert not row, line


def write(path, content):
    path.write_bytes(content)
    return path


def test_a_line_past_the_bound_is_never_held(tmp_path):
    with gzip.open(tmp_path / "a.jsonl.gz", "wb", compresslevel=1) as file:
        file.write(b'{"text": "bir"}\n{"text": "')
        for _ in range(MAX_RECORD // (1 << 20) + 2):
            file.write(b"a" * (1 << 20))
        file.write(b'"}\r\n{"text": "son"}')
    items = list(read_task_file(tmp_path / "a.jsonl.gz"))
    assert [row for _, row in items if isinstance(row, dict)] == [{"text": "bir"}, {"text": "son"}]
    assert [(line, row.reason) for line, row in items if isinstance(row, Skipped)] == [(2, "a line of more than 32 MiB")]
