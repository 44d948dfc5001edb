import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.launch import ROOT
from corpus.clean import clean_text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("Bakı&nbsp;&amp; Gəncə", "Bakı & Gəncə"),
        ("&amp;nbsp;iki dəfə &#601;", "iki dəfə ə"),
        ("<p>Bir</p><p>İki<br/>üç</p>", "Bir\nİki\nüç"),
        ('<b>qalın</b> <a href="x">keçid</a>', "qalın keçid"),
        ("<script>var a = '<b>';</script>mətn", "mətn"),
        ("&lt;br&gt;sətir", "sətir"),
        ("thumb|200px|left|Atollun təsviri", "Atollun təsviri"),
        ("[[Bakı|paytaxt]] və [[Gəncə]] [[Fayl:a.jpg|thumb|şəkil [[x]]]]", "paytaxt və Gəncə"),
        ("[[Bakı]]{{istinad|{{kitab}}}} '''qalın'''\n== Tarix ==\nKateqoriya:Şəhər", "Bakı qalın\nTarix"),
        ("( , ) — Fransız yazıçısı", "– Fransız yazıçısı"),
        ("bir\n\n\n  iki", "bir\niki"),
    ],
)
def test_what_formats_leave_behind_goes(dirty, clean):
    assert clean_text(dirty)[0] == clean


@pytest.mark.parametrize(
    "text",
    [
        "git checkout <branch> əmri <remote> üçün",
        "style={{color: 'red'}} və main() funksiyası – a || b",
        "5 < 6 və 7 > 3; Q&A; AT&T",
        "== deyil, === işlət",
        "Versiya nəzarəti'' nədir",
        "<EMAIL> və <PHONE>",
        "massiv[[1,2],[3,4]] | sütun",
    ],
)
def test_what_a_technical_text_is_about_stays(text):
    assert clean_text(text) == (text, {})


SCRAPS = ["&amp;", "amp;", "&", "lt;", "<", "b>", "br", ">", "[[", "]]", "{{", "}}", "|", "thumb|", "a", " ", "\n", "()", "–"]


@given(st.lists(st.sampled_from(SCRAPS)).map("".join))
def test_cleaning_twice_changes_nothing_more(text):
    once, _ = clean_text(text)
    assert clean_text(once)[0] == once


def test_the_filter_keeps_lines_apart():
    words = [sys.executable, "-m", "corpus.clean"]
    result = subprocess.run(words, cwd=ROOT, input="vә<br>ya\n\nson\n".encode(), capture_output=True, check=True)
    assert result.stdout.decode() == "və ya\n\nson\n"
