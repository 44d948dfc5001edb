import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus import mojibake
from corpus.clean import clean_text
from corpus.mojibake import mend_mojibake
from language.azerbaijani import ALPHABET, ALPHABET_UPPER

TEXT = "Şəki qədim şəhərdir, Ələt – liman; ÇÖRƏYİN qoxusu, İşıq, GÜĞÜM, “söz” və üzüm."
TABLES = ["cp1252", "cp1254", "cp1251", "cp1250", "latin-1"]


def spoil(text: str, table: str) -> str:
    """UTF-8 read with a table of one byte a letter; bytes that it lacks come as controls, as browsers show them."""
    return "".join(bytes([byte]).decode(table, errors="ignore") or chr(byte) for byte in text.encode())


@pytest.mark.parametrize("table", TABLES)
def test_every_letter_comes_back(table):
    mended, count = mend_mojibake(spoil(TEXT, table))
    assert mended == TEXT
    assert count > 0


@pytest.mark.parametrize("table", TABLES)
def test_text_spoiled_twice_comes_back(table):
    assert mend_mojibake(spoil(spoil("məktəb üçün", table), table))[0] == "məktəb üçün"


@pytest.mark.parametrize("table", TABLES)
@settings(max_examples=40)
@given(words=st.lists(st.text(alphabet=ALPHABET + ALPHABET_UPPER, min_size=4, max_size=9), min_size=1, max_size=6))
def test_any_word_comes_back(table, words):
    text = " ".join(word + "də" for word in words)
    assert mend_mojibake(spoil(text, table))[0] == text


def test_a_right_quotation_mark_beside_does_not_hinder():
    assert mend_mojibake("«gÃ¶zÉ™l» — “ÅŸÉ™hÉ™r”")[0] == "«gözəl» — “şəhər”"


def test_only_ftfy_knows_what_lost_a_byte():
    assert mend_mojibake("voilÃ\u00a0 le travail")[0].startswith("voilà")


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "NESCAFÉ™ və «Çay» — Ü”, İ’tidal, Ä1",
        "Е’tidalinə е’tidal irəməz",  # a Cyrillic look-alike before an apostrophe
        "Çžanszýakou şäherindäki; Äşgär biderekligimiz",  # Turkmen
        "Гњев је «Правда»; ҹәмијјәт, Ҝәнҹә",
        "crème brûlée, Ångström, Łódź, Škoda, naïve",
        "plain ASCII",
    ],
)
def test_right_text_stays(text):
    assert mend_mojibake(text) == (text, 0)


def test_the_repair_comes_before_everything_else():
    text, counts = clean_text("mÉ™ktÉ™b&nbsp;<b>Ã¼Ã§Ã¼n</b>")
    assert text == "məktəb üçün"
    assert counts["mojibake"] == 5


def test_real_text_stays_and_comes_back(az_data):
    with gzip.open(az_data / "corpus" / "news.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file][:25]
    for text in texts:
        assert mend_mojibake(text) == (text, 0)
        for table in TABLES:
            assert mend_mojibake(spoil(text, table))[0] == text


@given(st.text(alphabet=st.sampled_from(sorted({letter for table in mojibake._DECODED.values() for letter in table}))))
def test_the_quick_search_passes_over_no_pair(text):
    assert mojibake._MAY_PAIR.search(text) or not mojibake._PAIR.search(text)
