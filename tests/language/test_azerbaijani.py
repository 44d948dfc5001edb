import gzip
import json
import re
import subprocess
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from language.azerbaijani import (
    ALPHABET,
    ALPHABET_UPPER,
    CYRILLIC,
    STOP_WORDS,
    fold_key,
    fold_lines,
    lower,
    normalise,
    repair_lookalikes,
    to_latin,
    upper,
)

WORDS = st.text(alphabet=ALPHABET, min_size=1)
DIRTY = st.text(
    alphabet=st.one_of(
        st.sampled_from("aiıIİəƏǝәӘșțеоЕОс \n\r\t\u00a0\u200b\u200c\u200d\u0307\u0301\u0327\u2028—–―«»“’`&'\x00\x85\ufeff"),
        st.characters(exclude_categories=["Cs"]),
    )
)


def test_the_alphabet_is_the_official_one():
    assert len(ALPHABET) == len(ALPHABET_UPPER) == len(set(ALPHABET)) == 32
    assert [upper(letter) for letter in ALPHABET] == list(ALPHABET_UPPER)
    assert [lower(letter) for letter in ALPHABET_UPPER] == list(ALPHABET)


def test_casing_keeps_dotted_and_dotless_i_apart():
    assert lower("İSTANBUL ILIQ QIZIL İlham Iğdır ƏLİ ŞƏKİ") == "istanbul ılıq qızıl ilham ığdır əli şəki"
    assert upper("işıq ilıq əli şəki") == "İŞIQ İLIQ ƏLİ ŞƏKİ"
    assert lower("I\u0307lham") == "ilham"  # İ in its decomposed form
    assert len(lower("İİİ")) == 3


@given(WORDS)
def test_casing_round_trips(word):
    assert lower(upper(word)) == word
    assert len(upper(word)) == len(word)


@given(DIRTY)
def test_lower_leaves_no_capital_i_of_either_kind(text):
    assert not set("Iİ") & set(lower(text))


@pytest.mark.parametrize(
    ("dirty", "clean", "rule"),
    [
        ("ǝlaqǝ", "əlaqə", "schwa"),
        ("vә ilә", "və ilə", "lookalike"),
        ("еdir, оlan, çoх", "edir, olan, çox", "lookalike"),
        ("bu v ә ya digər bütün başqa", "bu v ə ya digər bütün başqa", "lookalike"),
        ("șəhər Țiriac", "şəhər Ţiriac", "cedilla"),
        ("i\u0307ndi", "indi", "dot_above"),
        ("s\u0327eir go\u0308z", "şeir göz", "nfc"),
        ("kə\u00adlam\u200b", "kəlam", "dropped"),
        ("a\x00b\x07c", "abc", "dropped"),
        ("bir\u00a0 iki\t üç  ", "bir iki üç", "space"),
        ("bir \n\n\n\n iki", "bir\n\niki", "space"),
        ("bir\r\niki\rüç", "bir\niki\nüç", "line_end"),
        ("tə’sir tə`sir", "tə'sir tə'sir", "apostrophe"),
        ("“söz” „söz‟", '"söz" "söz"', "quote"),
        ("a—b ‑ c", "a–b - c", "dash"),
    ],
)
def test_each_rule_repairs_and_is_counted(dirty, clean, rule):
    text, counts = normalise(dirty)
    assert text == clean
    assert counts[rule] > 0


def test_correct_text_is_unchanged():
    for text in (
        "«Şəki» – gözəl şəhər…",
        "cox gozel, tesekkurler",  # ASCII spelling is a spelling, not damage
        "Москва слезам не верит",  # Cyrillic words that only look like Latin ones: not to be touched
        "Sözün rusca qarşılığı сор olur",
        "👨\u200d👩\u200d👧 ailə",  # joiners hold emoji together
        "Ә Ә Ә азәрбајҹан",
    ):
        assert normalise(text) == (text, {})


@given(DIRTY)
def test_normalise_is_composed_and_idempotent(text):
    once, counts = normalise(text)
    assert unicodedata.is_normalized("NFC", once)
    assert normalise(once) == (once, {})
    assert bool(counts) or once == text.strip(" \n")


def test_a_word_with_letters_that_have_no_twin_is_left_alone():
    assert repair_lookalikes("sцzьn оlan") == ("sцzьn olan", 1)


def test_cyrillic_goes_to_latin_letter_by_letter_and_keeps_case():
    assert to_latin("Азәрбајҹан Республикасы, ҝөзәл ағ ЏӘ") == "Azərbaycan Respublikası, gözəl ağ ЏƏ"
    assert to_latin("Иди ЫШЫГ Јер Яшар ЯШАР") == "İdi IŞIQ Yer Yaşar YAŞAR"
    assert set("".join(CYRILLIC.values())) <= set(ALPHABET)


@pytest.mark.parametrize(
    ("cyrillic", "latin"),
    [
        ("мәъна, синъф, альбом, мәҹмуә", "məna, sinf, albom, məcmuə"),  # ъ, ь
        ("йени ай, Сурийа; Яшар, Юсиф, Эл, Эйваз", "yeni ay, Suriya; Yaşar, Yusif, El, Eyvaz"),  # before 1958
        ("конституция, цирк, щи, ёлка", "konstitusiya, sirk, şi, yolka"),  # loans
        ("ЮНЕСКО, ЯПОНИЯ, АЗӘРБАЈҸАН, Җ", "YUNESKO, YAPONİYA, AZƏRBAYCAN, Җ"),
        ("бejнəлхалг hүгуг", "beynəlxalq hüquq"),  # Latin letters typed for Cyrillic ones
        ("HTML вә CSS", "HTML və CSS"),
    ],
)
def test_old_letters_loans_and_capitals(cyrillic, latin):
    assert to_latin(cyrillic) == latin


def test_real_cyrillic_becomes_its_latin_twin(az_data):
    twins: dict[str, dict[str, str]] = {}
    with gzip.open(az_data / "langid" / "sentences.jsonl.gz", "rt", encoding="utf-8") as file:
        for line in file:
            record = json.loads(line)
            twins.setdefault(record["group"], {})[record["lang"]] = record["text"]
    same = words = 0
    for pair in twins.values():
        if {"azj_Cyrl", "azj_Latn"} <= pair.keys():
            meant = re.findall(r"\w+", pair["azj_Latn"])
            said = re.findall(r"\w+", to_latin(pair["azj_Cyrl"]))
            words += len(meant)
            same += sum(one == other for one, other in zip(said, meant, strict=False))
    assert words > 5000
    assert same >= 0.99 * words


def cyrillic_of(text: str) -> str:
    back = {latin: letter for letter, latin in CYRILLIC.items() if len(latin) == 1 and letter not in "йэцщ"}
    return "".join(back.get(letter, letter) for letter in text)


TEXT = "Şəki qədim şəhərdir: içində Xan sarayı, ətrafında meşə, çay və ağ güllər. Üzüm bağı, göy göl, işıq!"


@pytest.mark.parametrize(
    "twin",
    [
        upper(TEXT),
        TEXT.upper(),  # typed on a keyboard without İ
        TEXT.translate(str.maketrans("əğıöşüçŞÜ", "egiosucSU")),
        TEXT.replace("ə", "ä"),
        TEXT.replace("ə", "e"),
        TEXT.replace("ə", "ә").replace("o", "о").replace("x", "х").replace("a", "а"),
        cyrillic_of(lower(TEXT)),
        unicodedata.normalize("NFD", TEXT),
        TEXT.replace(",", " –").replace("!", " 👏👏"),
    ],
)
def test_every_spelling_of_a_text_has_one_fold_key(twin):
    assert twin != TEXT
    assert fold_key(twin) == fold_key(TEXT)


def test_a_word_of_look_alikes_only_folds_by_the_script_of_its_text():
    latin = "Maddənin c bəndində və 12-ci səhifənin p hərfində göstərilən qaydalar"
    assert fold_key(latin.replace(" c ", " с ").replace(" p ", " р ")) == fold_key(latin)
    assert fold_key("сара хала") == "sara xala"  # in Cyrillic text they are Cyrillic


def test_fold_key_tells_texts_apart_and_ignores_only_spelling():
    assert fold_key("Maddə 12") != fold_key("Maddə 13")
    assert fold_key("on qoyun") != fold_key("on oyun")
    assert fold_key("tə'sir") == fold_key("təsir")
    assert fold_key("👍 !!") == ""


@given(DIRTY)
def test_fold_key_is_words_and_single_spaces(text):
    key = fold_key(text)
    assert key == " ".join(key.split())


def test_stop_words_are_in_standard_spelling():
    assert all(set(word) <= set(ALPHABET) for word in STOP_WORDS)


def test_the_module_needs_the_standard_library_alone():
    code = "import sys; import language.azerbaijani; print(sorted({m.split('.')[0] for m in sys.modules} & {'numpy', 'torch'}))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@given(DIRTY)
def test_keys_of_a_text_and_of_its_lines_at_once(text):
    assert fold_lines(text) == (fold_key(text), [fold_key(line) for line in text.split("\n")])
