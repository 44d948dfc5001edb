import re
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.files import read_jsonl
from common.launch import ROOT
from language.azerbaijani import LANGUAGE as AZ
from language.spacing import spacing_of

SPACING = spacing_of(AZ)
join_broken, join_split, split_glued = SPACING.join_broken, SPACING.join_split, SPACING.split_glued


def spoil(text: str) -> str:
    """Spaces around each run of ə, ş, ğ, ı, as in text from a PDF with two fonts."""
    return re.sub(r" {2,}", " ", re.sub(r"([əşğƏŞĞİ]+)", r" \1 ", text)).strip()


def error(said: str, meant: str) -> float:
    """Share of words of `meant` that `said` lacks."""
    left = said.split()
    missing = 0
    for word in meant.split():
        if word in left:
            left.remove(word)
        else:
            missing += 1
    return missing / len(meant.split())


@pytest.mark.parametrize(
    ("damaged", "whole"),
    [
        ("bu v ə ya digər bütün başqa", "bu və ya digər bütün başqa"),
        ("madd ə sin ə uy ğ un olaraq v ə il ə ed ə n", "maddəsinə uyğun olaraq və ilə edən"),
        ("## M a d d ə   7 5 . Seçki", "## Maddə  75. Seçki"),
        ("A z ə r b a y c a n  xalqı", "Azərbaycan  xalqı"),
        ("AZ Ə RBAYCAN RESPUBL İ KASI v ə M Ə C Ə LL Ə", "AZƏRBAYCAN RESPUBLİKASI və MƏCƏLLƏ"),
        ("sin ə , (dig ə r) 'il ə '", "sinə , (digər) 'ilə '"),
    ],
)
def test_detached_letters_are_joined_to_their_words(damaged, whole):
    text, count = join_split(damaged)
    assert text == whole
    assert count > 0


@pytest.mark.parametrize(
    "text",
    [
        "Ə sən nə danışırsan",  # "hey, you" in the south
        "A B C D qrupu, x y z oxları, a b c d e",
        "üç iş günü, İş yeri, İşə başla",
        "e.ə. III əsr, XIX ə. sonu",
        "Bakı şəhəri və ətrafı",
        "",
    ],
)
def test_single_letter_words_stay(text):
    assert join_split(text) == (text, 0)


def test_word_parts_on_separate_lines_are_joined():
    damaged = "Bu madd\nə\nsind\nə\ngöst\nə\nril\nə\nn hallarda"
    assert join_split(damaged)[0] == "Bu maddəsində göstərilən hallarda"


@pytest.mark.parametrize(("source", "most"), [("laws", 0.06), ("encyclopedia", 0.06)])
def test_damaged_demo_text_is_repaired(source, most):
    texts = [record["text"] for _, record in read_jsonl(ROOT / f"data/demo/corpus/{source}.jsonl")][:6]
    for text in texts:
        plain = " ".join(text.split())
        assert error(join_split(spoil(plain))[0], plain) <= most


def test_repair_leaves_a_fifth_of_the_errors_of_other_real_text(az_data):
    texts = [record["text"] for _, record in read_jsonl(az_data / "corpus/folktales.jsonl.gz")][:8]
    plain = [" ".join(text.split()) for text in texts]
    raw = sum(error(spoil(text), text) for text in plain)
    repaired = sum(error(join_split(spoil(text))[0], text) for text in plain)
    assert raw > 0.4 * len(plain)
    assert repaired <= raw / 5


@given(
    st.lists(st.sampled_from(["ə", "m ə", "və", "ya", " ", "  ", "\n", "k", "ş", "olan", ",", "q a n u n", "7"])).map(" ".join)
)
def test_only_spaces_and_breaks_move_and_the_count_says_so(text):
    repaired, count = join_split(text)
    assert "".join(repaired.split()) == "".join(text.split())
    assert (count > 0) == (repaired != text)


def test_a_token_longer_than_any_word():
    longest = "a" * 200
    assert join_split(f"{longest} ə {longest} m ə n v ə sin ə")[0].count(longest) == 2


def test_words_broken_at_a_line_end():
    assert join_broken("mək\u00ad\ntəb") == ("məktəb", 1)
    assert join_broken("cəmiy-\r\nyət üçün") == ("cəmiyyət üçün", 1)
    assert join_broken("qeyri-\nadi, elmi-\ntexniki, Bakı-\nTiflis, 5-\nci") == (
        "qeyri-\nadi, elmi-\ntexniki, Bakı-\nTiflis, 5-\nci",
        0,
    )
    assert join_broken("qrammofon-\nçular, sonra qrammofonçular")[1] == 1  # the whole word occurs elsewhere


def test_glued_words_are_cut_where_both_sides_are_words():
    assert split_glued("QanunaəsasənAzərbaycan") == ("Qanuna əsasən Azərbaycan", 2)
    for text in ("JavaScript", "inşAllah", "AzərEnerji", "setState(mətnUzunluğu)", "TələbəPlus", "görüşMoskva1", "iPhone"):
        assert split_glued(text) == (text, 0)


def test_the_word_list_equals_its_command_s_output():
    files = [str(file) for file in sorted((ROOT / "data/demo/corpus").glob("*.jsonl"))]
    result = subprocess.run(
        [sys.executable, "-m", "language.spacing", "--language", "az", *files],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout == (ROOT / "language/azerbaijani_words.tsv").read_text(encoding="utf-8")
    assert SPACING.words["və"] > SPACING.words["məktəb"] > 0
