"""Every pack: its letters, its casing, its repair, its name in other processes, and a pack from outside of the project."""

import os
import pickle
import subprocess
import sys

import pytest

from common.errors import UserError
from common.launch import ROOT
from language.base import MOST_MARKS, checks_iban, load_language, packs
from language.kazakh import checks_iin
from language.turkish import checks_identity

NAMES = list(packs())
PARTS = [name for name in NAMES if load_language(name).alphabet]


def test_a_pack_is_found_by_name_and_by_code_and_comes_through_pickle():
    assert {"azerbaijani", "turkish", "kazakh", "generic"} <= set(NAMES)
    for name in NAMES:
        pack = load_language(name)
        assert load_language(pack.code) is pack and pickle.loads(pickle.dumps(pack)) is pack
    with pytest.raises(UserError, match=r"klingon: no pack .*azerbaijani.*languages\.md"):
        load_language("klingon")


@pytest.mark.parametrize("name", PARTS)
def test_letters_and_words_of_each_language(name):
    pack = load_language(name)
    assert len(pack.alphabet) == len(pack.alphabet_upper) == len(set(pack.alphabet))
    assert [pack.upper(letter) for letter in pack.alphabet] == list(pack.alphabet_upper)
    assert [pack.lower(letter) for letter in pack.alphabet_upper] == list(pack.alphabet)
    assert all(set(word) <= set(pack.alphabet) for word in pack.stop_words)
    for letters in (pack.alphabet, pack.alphabet_upper, " ".join(pack.alphabet)):
        assert pack.normalise(letters) == (letters, {})


def test_casing_differs_between_languages():
    assert load_language("turkish").lower("İSTANBUL ILIK") == "istanbul ılık"
    assert load_language("generic").lower("ISTANBUL") == load_language("kazakh").lower("ISTANBUL") == "istanbul"
    assert load_language("turkish").upper("ilık") == "İLIK"


def test_letters_of_the_other_script_are_repaired_in_either_direction():
    assert load_language("kazakh").normalise("қaзaқ тілі, USB, IT") == ("қазақ тілі, USB, IT", {"lookalike": 2})
    assert load_language("turkish").normalise("Ankаra, Москва") == ("Ankara, Москва", {"lookalike": 1})
    assert load_language("generic").normalise("Ankаra") == ("Ankаra", {})


def test_check_digits():
    assert checks_iban("TR33 0006 1005 1978 6457 8413 26") and checks_iban("KZ86125KZT5004100100")
    assert checks_identity("10000000146") and not checks_identity("10000000147")
    assert not checks_iin("991332300123")  # no thirteenth month


@pytest.mark.parametrize("name", NAMES)
def test_more_marks_than_any_letter_has_are_dropped_and_counted(name):
    text, counts = load_language(name).normalise("a" + "\u0323\u0304" * 500)
    assert counts["marks"] == 1000 - MOST_MARKS
    assert load_language(name).normalise(text) == (text, {})


def test_a_pack_may_lie_outside_of_the_project(tmp_path):
    (tmp_path / "language").mkdir()
    (tmp_path / "language" / "toki.py").write_text(
        'from language.base import Language\n\nLANGUAGE = Language(name="toki", code="tok", alphabet="aeijklmnopstuw")\n'
    )
    code = "from language.base import load_language; print(load_language('tok').title, load_language('tr').code3)"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])}
    words = [sys.executable, "-c", code]
    result = subprocess.run(words, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert result.stdout == "Toki tur\n"
