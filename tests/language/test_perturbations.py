"""Perturbations: what each does in each language, exact shares, the same text the same change, borders that hold."""

import random

import pytest

from common.errors import UserError
from language.base import Language, load_language
from language.perturbations import (
    PERTURBATIONS,
    analysed,
    check_perturbation,
    neighbours,
    perturbations_of,
    perturbed,
    perturbed_parts,
)

AZ, TR, KK = map(load_language, ("az", "tr", "kk"))
TEXT = "Azərbaycan Respublikası 1918-ci ildə BMT-nin üzvü olan kitablardan İstanbulda çox gözəl (şəhərin) uşaq idi, evlərdə."


@pytest.mark.parametrize(
    ("language", "name", "text", "expected"),
    [
        (AZ, "diacritics", "Çox gözəl şəhər, İlqar! Işıq.", "Cox gozel seher, Ilqar! Isiq."),
        (TR, "diacritics", "Güzel çocuk, ılık İzmir", "Guzel cocuk, ilik Izmir"),
        (KK, "diacritics", "Қазақ тілі және Әлем", "Казак тили жане Алем"),
        (AZ, "capitals", "ilıq işıq", "İLIQ İŞIQ"),
        (AZ, "foreign_capitals", "ilıq İşıq", "ILIQ IŞIQ"),
        (AZ, "small", "ILIQ İŞIQ", "ılıq işıq"),
        (AZ, "script", "Şəki gözəldir", "шәки ҝөзәлдир"),
        (KK, "script", "Қазақ тілі, Юрий, Ыстық", "Qazaq tili, Yuriy, Istıq"),
        (AZ, "neighbour", "Üçün və UŞAQ, evdə-və", "İçin ve UŞAK, evdə-və"),
        (TR, "neighbour", "Güzel ve 1918'de de", "Gözəl və 1918'de də"),
        (KK, "neighbour", "және Бір", "жана Бир"),
        (AZ, "spaces", " bir iki,  üç ", " biriki,üç "),
        (AZ, "endings", "kitablardan şəhərdə evin adam", "kitablarda şəhərdən evin adam"),
        (TR, "endings", "kitaplardan Ankara'da ağaçta", "kitaplarda Ankara'dan ağaçtan"),
        (KK, "endings", "Алматыдан мектепте халықтың", "Алматыда мектептен халықты"),
        (AZ, "broken_harmony", "kitablardan evlərdə", "kitablardən evlərda"),
        (KK, "broken_harmony", "Алматыдан мектепте", "Алматыден мектепта"),
        # words that only look like a stem with an ending: the vowel would not fit, or there is no stem
        (AZ, "broken_harmony", "meydan ada qanun insan", "meydan ada qanun insan"),
    ],
)
def test_what_each_does_to_a_whole_text(language, name, text, expected):
    assert perturbed(text, name, 1, language) == expected


def test_a_mark_before_a_suffix():
    seen = {perturbed("1918-ci", "suffix_marks", 1, AZ, seed) for seed in range(20)}
    assert seen == {"1918ci", "1918'ci", "1918’ci"}
    assert {perturbed("BMT-nin,", "suffix_marks", 1, AZ, seed) for seed in range(20)} == {"BMTnin,", "BMT'nin,", "BMT’nin,"}
    assert perturbed("gec-tez sosial-iqtisadi", "suffix_marks", 1, AZ) == "gec-tez sosial-iqtisadi"  # these join two words
    assert "Ankarada" in {perturbed("Ankara'da", "suffix_marks", 1, TR, seed) for seed in range(20)}


def test_a_slip_is_one_of_the_four_and_stays_on_the_keyboard():
    near = neighbours(AZ.keyboard)
    assert near["a"] == ["q", "s", "z"] and "ö" in near["ə"] and "ı" in near["ə"] and "ş" in near["ç"]
    assert set(near) <= set(AZ.alphabet) | {"w"} and all(letter in near[other] for letter in near for other in near[letter])
    word, kinds = "Şəhər", set()
    for seed in range(200):
        new = perturbed(word, "slips", 1, AZ, seed)
        if len(new) == len(word) - 1:
            kinds.add("left out")
            assert any(word[:i] + word[i + 1 :] == new for i in range(len(word)))
        elif len(new) == len(word) + 1:
            kinds.add("doubled")
            assert any(word[:i] + word[i] + word[i:] == new for i in range(len(word)))
        elif sorted(new) == sorted(word):
            kinds.add("exchanged")
        else:
            kinds.add("other key")
            ((a, b),) = [(a, b) for a, b in zip(word, new, strict=True) if a != b]
            assert AZ.lower(b) in near[AZ.lower(a)] and (a == AZ.lower(a)) == (b == AZ.lower(b))
    assert kinds == {"left out", "doubled", "exchanged", "other key"}
    assert perturbed("a, 7", "slips", 1, AZ) == "a, 7"


@pytest.mark.parametrize("language", [AZ, TR, KK])
def test_the_pack_fits_its_own_alphabet(language):
    letters = set(language.alphabet)
    assert set("".join(language.keyboard)) - {" "} <= letters | {"w", "q", "x"}
    assert letters - set("".join(language.keyboard)) <= {"ё"}  # every letter has a key
    for table in language.harmony.values():
        assert set(table) | set(table.values()) <= letters
    for ending in {*language.endings, *language.exchanged, *language.exchanged.values()}:
        assert {sign for sign in ending if sign not in language.harmony} <= letters
    assert set(language.exchanged) <= set(language.endings) and min(map(len, language.endings)) >= 2
    for word, other in language.neighbour_words.items():
        assert word != other and len(word.split()) == len(other.split()) == 1 and set(word) <= letters


@pytest.mark.parametrize("name", perturbations_of(AZ))
def test_the_same_text_the_same_change_and_a_larger_share_contains_a_smaller(name):
    assert perturbed(TEXT, name, 0, AZ) == TEXT
    assert perturbed(TEXT, name, 0.5, AZ, 3) == perturbed(TEXT, name, 0.5, AZ, 3)
    if PERTURBATIONS[name].unit == "words":
        full, words = perturbed(TEXT, name, 1, AZ, 3).split(), TEXT.split()
        before: set[int] = set()
        for share in (0.2, 0.5, 0.8, 1.0):
            part = perturbed(TEXT, name, share, AZ, 3).split()
            changed = {i for i, word in enumerate(part) if word != words[i]}
            assert before <= changed and all(part[i] == full[i] for i in changed)
            before = changed


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_that_of_the_units(share):
    text = " ".join(["gəlir"] * 4000)
    words = perturbed(text, "capitals", share, AZ).split()
    assert abs(sum(word == "GƏLİR" for word in words) / 4000 - share) < 0.03  # four standard errors
    letters = perturbed(text, "diacritics", share, AZ)
    assert abs(letters.count("e") / 4000 - share) < 0.03
    assert abs(1 - len(perturbed(text, "spaces", share, AZ).split()) / 4000 - share) < 0.03


@pytest.mark.parametrize("name", perturbations_of(AZ))
def test_borders_hold(name):
    draw = random.Random(5)
    for seed in range(30):
        borders = sorted(draw.sample(range(1, len(TEXT)), 6))
        parts = perturbed_parts(TEXT, name, 0.7, AZ, seed, borders)
        assert len(parts) == 7
        if name in ("diacritics", "capitals", "script", "small"):  # letter by letter, so that a border changes nothing
            assert "".join(parts) == perturbed(TEXT, name, 0.7, AZ, seed)
    words = TEXT.split()
    ends = [len(" ".join(words[:n])) for n in range(1, len(words) + 1)]
    borders = sorted({*ends[:-1], *(end + 1 for end in ends[:-1])})
    kept = perturbed_parts(TEXT, name, 1, AZ, 0, borders)
    assert len(kept[::2]) == len(words) and all(kept[::2]) and set(kept[1::2]) == {" "}


def test_an_ending_is_the_longest_that_fits():
    assert analysed("kitablardan", AZ) == (8, 11, "dAn")
    assert analysed("evlər", AZ) is None  # two letters are too short for a stem
    assert analysed("məktəblər,", AZ) == (6, 9, "lAr")
    assert analysed("kitablardən", AZ) is None


def test_what_cannot_be_is_named():
    bare = Language(name="toki", code="tok", alphabet="ae")
    with pytest.raises(UserError, match=r"slips needs keyboard of the pack.*language/toki\.py.*capitals, small, spaces"):
        check_perturbation("slips", bare)
    with pytest.raises(UserError, match=r"recipe\.augment: 'typos' is none of diacritics, slips"):
        check_perturbation("typos", AZ, "recipe.augment")
    with pytest.raises(UserError, match=r"task\.language"):
        check_perturbation("capitals", None)
    with pytest.raises(UserError, match="script needs other_script"):
        check_perturbation("script", TR)
    assert "foreign_capitals" not in perturbations_of(KK) and "script" not in perturbations_of(TR)
    assert perturbations_of(load_language("generic")) == ["spaces"]
