import gzip
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.cleaning import mojibake
from language.azerbaijani import ALPHABET, ALPHABET_UPPER
from tests.azerbaijani import clean_text, repair_mojibake

TEXT = "Şəki qədim şəhərdir, Ələt – liman; ÇÖRƏYİN qoxusu, İşıq, GÜĞÜM, “söz” və üzüm."
TABLES = ["cp1252", "cp1254", "cp1251", "cp1250", "latin-1"]


def spoil(text: str, table: str) -> str:
    """UTF-8 decoded with a single-byte table; bytes that the table lacks become control characters, as in browsers."""
    return "".join(bytes([byte]).decode(table, errors="ignore") or chr(byte) for byte in text.encode())


@pytest.mark.parametrize("table", TABLES)
def test_every_letter_comes_back(table):
    repaired, count = repair_mojibake(spoil(TEXT, table))
    assert repaired == TEXT
    assert count > 0


@pytest.mark.parametrize("table", TABLES)
def test_text_spoiled_twice_comes_back(table):
    assert repair_mojibake(spoil(spoil("məktəb üçün", table), table))[0] == "məktəb üçün"


@pytest.mark.parametrize("table", TABLES)
@settings(max_examples=40)
@given(words=st.lists(st.text(alphabet=ALPHABET + ALPHABET_UPPER, min_size=4, max_size=9), min_size=1, max_size=6))
def test_any_word_comes_back(table, words):
    text = " ".join(word + "dədə" for word in words)  # two damaged sequences are enough evidence
    assert repair_mojibake(spoil(text, table))[0] == text


def test_a_neighbouring_quotation_mark_does_not_prevent_repair():
    assert repair_mojibake("«gÃ¶zÉ™l» — “ÅŸÉ™hÉ™r”")[0] == "«gözəl» — “şəhər”"


def test_text_that_lost_a_byte_needs_ftfy():
    assert repair_mojibake("voilÃ\u00a0 le travail")[0].startswith("voilà")


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
def test_correct_text_is_unchanged(text):
    assert repair_mojibake(text) == (text, 0)


def test_two_damaged_sequences_are_needed():
    for text in ("Âşık Ələsgər saz çalır", "Qədim şəhər, MÉ™ndir", "DAĞ” adlı və AĞ” adlı"):
        assert repair_mojibake(text) == (text, 0)
    assert repair_mojibake("Bu vÉ™ o ilÉ™") == ("Bu və o ilə", 2)
    assert repair_mojibake("\xc3\x87ay v\xc9\x99") == ("Çay və", 2)  # control characters: clean text has none


def test_the_repair_comes_before_everything_else():
    text, counts = clean_text("mÉ™ktÉ™b&nbsp;<b>Ã¼Ã§Ã¼n</b>")
    assert text == "məktəb üçün"
    assert counts["mojibake"] == 5


def test_real_text_stays_and_comes_back(az_data):
    with gzip.open(az_data / "corpus" / "news.jsonl.gz", "rt", encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file][:25]
    for text in texts:
        assert repair_mojibake(text) == (text, 0)
        for table in TABLES:
            assert repair_mojibake(spoil(text, table))[0] == text


@given(st.text(alphabet=st.sampled_from(sorted({letter for table in mojibake._DECODED.values() for letter in table}))))
def test_the_quick_search_misses_no_pair(text):
    assert mojibake._MAY_PAIR.search(text) or not mojibake._PAIR.search(text)
