"""The suite of minimal pairs: made by the generator, one difference each, correct forms, and a speaker's sheet read back."""

import csv
import gzip
import json
import re
from collections import Counter

import pytest

from common.errors import UserError
from language import azerbaijani_pairs as pairs
from language.azerbaijani import LANGUAGE as AZ
from language.azerbaijani_frames import PHENOMENA, POSSESSIVE, add, verb

ROWS = list(csv.DictReader(pairs.SUITE.read_text(encoding="utf-8").splitlines()))
WORD = re.compile(r"[^\W\d_]+")


def test_the_file_is_what_the_generator_writes():
    assert pairs.SUITE.read_text(encoding="utf-8") == pairs.suite()


def test_size_and_parts():
    sizes, hand = Counter(row["phenomenon"] for row in ROWS), Counter(r["phenomenon"] for r in ROWS if r["source"] == "hand")
    assert set(sizes) == set(PHENOMENA) and len(sizes) >= 16 and min(sizes.values()) >= 60
    assert min(hand[name] for name in PHENOMENA) >= 5
    assert len({row["id"] for row in ROWS}) == len(ROWS)


def test_every_pair_differs_in_one_place():
    assert all(pairs.difference(row["good_sentence"], row["bad_sentence"]) for row in ROWS)


@pytest.mark.parametrize(
    ("good", "bad", "said"),
    [
        ("Mən kitab oxudum.", "Sən kitab oxudun.", "one place"),
        ("Mən kitab oxudum.", "Mən kitab oxudum.", "one place"),
        ("Böyük ağ ev var.", "Var ağ ev böyük.", "one place"),
        ("mən oxudum.", "mən oxudun.", "capital"),
        ("Mən oxudum", "Mən oxudun", "capital"),
        ("Mən wi-fi aldım.", "Mən wi-fi aldın.", "no letter"),
        ("Мən oxudum.", "Мən oxudun.", "no letter"),  # a Cyrillic capital
    ],
)
def test_a_planted_fault_is_found(good, bad, said):
    assert said in pairs.fault_of(pairs.Pair(good, bad, "numerals", "x", "hand"))


def test_one_word_more_and_two_neighbours_are_one_difference():
    assert pairs.difference("O heç gəlmədi.", "O gəlmədi.") == "word"
    assert pairs.difference("Biz böyük ev aldıq.", "Biz ev böyük aldıq.") == "order"
    assert pairs.difference("Böyük ev var.", "Ev böyük var.") == "order"
    assert pairs.difference("Iğdır gözəldir.", "İğdır gözəldir.") == "word"


# From a grammar, not from the code: k, q, t that change, buffers, all four vowels of I.
FORMS = {
    ("uşaq", "(n)I"): "uşağı", ("çörək", "(y)A"): "çörəyə", ("ev", "(n)In"): "evin", ("alma", "(n)In"): "almanın",
    ("alma", "(y)A"): "almaya", ("küçə", "(n)I"): "küçəni", ("ana", "(s)I"): "anası", ("yol", "(s)I"): "yolu",
    ("göl", "dAn"): "göldən", ("dost", "(I)m"): "dostum", ("süd", "(n)I"): "südü", ("qapı", "(I)nIz"): "qapınız",
    ("ox", "(n)I"): "oxu", ("yük", "(n)I"): "yükü", ("tələbə", "(y)Am"): "tələbəyəm", ("həkim", "(y)IK"): "həkimik",
    ("otaq", "lAr"): "otaqlar", ("oxu", "(y)An"): "oxuyan", ("get", "(y)An"): "gedən", ("eşit", "dI"): "eşitdi",
    ("qayıt", "(y)Ir"): "qayıdır", ("at", "(y)Ir"): "atır", ("güzgü", "dA"): "güzgüdə",
}  # fmt: skip
VERBS = {
    ("oxu", "past"): "oxudum oxudun oxuduq oxudunuz", ("gör", "past"): "gördüm gördün gördük gördünüz",
    ("gəl", "present"): "gəlirəm gəlirsən gəlirik gəlirsiniz", ("al", "present"): "alıram alırsan alırıq alırsınız",
    ("işlə", "present"): "işləyirəm işləyirsən işləyirik işləyirsiniz",
    ("et", "future"): "edəcəyəm edəcəksən edəcəyik edəcəksiniz",
    ("yaşa", "future"): "yaşayacağam yaşayacaqsan yaşayacağıq yaşayacaqsınız",
}  # fmt: skip


def test_forms_are_those_of_the_grammar():
    assert {key: add(*key) for key in FORMS} == FORMS
    assert {key: " ".join(verb(*key, person) for person in range(4)) for key in VERBS} == VERBS
    assert [add("gör", "dIK", suffix) for suffix in POSSESSIVE] == ["gördüyüm", "gördüyün", "gördüyümüz", "gördüyünüz"]
    assert add("uşaq", "(n)I", soft=False) == "uşaqı" and add("ev", "dA", flip=True) == "evda"
    assert add("kitab", "lAr", "dA", flip=True) == "kitablardə"


def is_harmonic(word: str) -> bool:
    """Whether the vowels of a word are all of one class, front or back."""
    classes = {letter in "aıou" for letter in AZ.lower(word) if letter in "aıoueəiöü"}
    return len(classes) == 1


def test_the_wrong_word_breaks_harmony_where_that_is_asked():
    """Native words, which are of one class before the suffix; the wrong one is of both."""
    seen = 0
    for row in (row for row in ROWS if row["phenomenon"] == "vowel_harmony"):
        good, bad = (
            next(iter(set(row[a].split()) - set(row[b].split())))
            for a, b in (("good_sentence", "bad_sentence"), ("bad_sentence", "good_sentence"))
        )
        if is_harmonic(good):
            assert not is_harmonic(bad), row
            seen += 1
    assert seen > 40


def test_the_words_are_attested(az_data):
    """At least nine of ten words of the correct sentences stand in real text; rare persons of a verb may not."""
    known: set[str] = set()
    for path in sorted((az_data / "corpus").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                known.update(WORD.findall(AZ.lower(json.loads(line)["text"])))
    words = [word for row in ROWS for word in WORD.findall(AZ.lower(row["good_sentence"]))]
    assert sum(word in known for word in words) > 0.9 * len(words)
    # The broken forms are not words: a wrong frame would make them so.
    broken = [
        word
        for row in ROWS
        if row["phenomenon"] in ("vowel_harmony", "consonant_change")
        for word in set(WORD.findall(AZ.lower(row["bad_sentence"]))) - set(WORD.findall(AZ.lower(row["good_sentence"])))
    ]
    assert sum(word in known for word in broken) < 0.2 * len(broken)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "SUITE", tmp_path / "suite.csv")
    monkeypatch.setattr(pairs, "VERDICTS", tmp_path / "verdicts.tsv")
    return tmp_path


def filled(path, answers: dict[int, tuple[str, str, str]]) -> list[str]:
    """Fill rows of the sheet in, as a speaker would in a spreadsheet; returns their ids."""
    rows = list(csv.reader(path.read_text(encoding="utf-8-sig").splitlines()))
    for number, answer in answers.items():
        rows[number][4:] = answer
    path.write_text(pairs.table_of(rows), encoding="utf-8-sig")  # as spreadsheets save it
    return [rows[number][0] for number in answers]


def test_a_sheet_is_read_back(place, capsys):
    sheet = place / "sheet.csv"
    assert pairs.main(["--sheet", str(sheet)]) == 0
    ids = filled(sheet, {1: ("yes", "yes", ""), 2: ("yes", "No", "dialekt, both\tused"), 3: ("no", "yes", "")})
    assert pairs.main(["--read", str(sheet)]) == 0
    assert "3 answers, 2 pairs rejected" in capsys.readouterr().out
    rows = {row["id"]: row for row in csv.DictReader((place / "suite.csv").read_text(encoding="utf-8").splitlines())}
    assert len(rows) == len(pairs.all_pairs()) - 2 and rows[ids[0]]["checked"] == "yes"
    assert ids[1] not in rows and ids[2] not in rows
    # A second sheet asks only for the rest; a changed answer replaces the first.
    assert ids[0] not in pairs.sheet() and pairs.sheet().count("\n") == len(pairs.all_pairs()) - 3 + 1
    filled(sheet, {2: ("yes", "yes", "")})
    assert pairs.main(["--read", str(sheet)]) == 0
    assert f"{ids[1]}\tyes" in pairs.VERDICTS.read_text(encoding="utf-8") and ids[1] in pairs.suite()


def test_wrong_sheets_are_named(place):
    sheet = place / "sheet.csv"
    pairs.main(["--sheet", str(sheet)])
    filled(sheet, {4: ("yes", "", "")})
    with pytest.raises(UserError, match="line 5: expected yes or no"):
        pairs.read_sheet(sheet)
    sheet.write_text(",".join(("id", "phenomenon", "good", "bad", *pairs.ASKED)) + "\nabc,x,A.,B.,yes,yes,\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 2: no pair abc"):
        pairs.read_sheet(sheet)
    sheet.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(UserError, match="expected the columns"):
        pairs.read_sheet(sheet)
    with pytest.raises(UserError, match="cannot be read"):
        pairs.read_sheet(place / "nothing.csv")


def test_a_wrong_line_by_hand_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(pairs, "BY_HAND", tmp_path / "hand.tsv")
    (tmp_path / "hand.tsv").write_text("# by hand\nnumeral\tA b.\tA c.\n", encoding="utf-8")
    with pytest.raises(UserError, match="line 2: expected a known phenomenon"):
        pairs.all_pairs()
