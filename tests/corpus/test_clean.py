import re
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.files import read_jsonl
from common.launch import ROOT
from tests.azerbaijani import clean_text


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
        ("&amp;amp;amp;amp;amp;amp;amp;amp;amp;amp;lt;", "<"),
        ("[[Bakı]] {{a|{{b|{{c|{{d|{{e}}}}}}}}}} son", "Bakı son"),
        ("a<!-- <script> --> b <style>x</style>c<SCRIPT src='y'>z</script >d", "a b c d"),
        ("v ә  ya  dig ə r  m ə hk ə m ə l ə r", "və ya digər məhkəmələr"),
        ("möhkəm-\nləndirmək və möhkəmləndirmək; nəzarət-\nkassa", "möhkəmləndirmək və möhkəmləndirmək; nəzarət-\nkassa"),
        ("QanunaəsasənAzərbaycan", "Qanuna əsasən Azərbaycan"),
    ],
)
def test_remains_of_formats_are_removed(dirty, clean):
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
        "JavaScript, inşAllah, AzərEnerji, setState(mətnUzunluğu), ŞəhərPlus",
        "<script> teqi ilə </style> bir deyil; <!-- bağlanmayan",
        "A B C D variantları; x y z oxları; e.ə. 5-ci əsr; XIX ə. sonu",
    ],
)
def test_the_content_of_technical_text_stays(text):
    assert clean_text(text) == (text, {})


SPACED = [
    "v ə ya",
    "m ə hk ə m ə",
    "ə",
    "ş",
    " ",
    "  ",
    "\n",
    "M a d d ə",
    "7 5 .",
    "uy ğ un",
    "olan",
    "-\n",
    "İş",
    ",",
    "É™",
    "Г§",
]
SCRAPS = ["&amp;", "amp;", "&", "lt;", "<", "b>", "br", ">", "[[", "]]", "{{", "}}", "|", "thumb|", "a", " ", "\n", "()", "–"]


@given(st.lists(st.sampled_from(SCRAPS)).map("".join))
def test_cleaning_is_idempotent(text):
    once, _ = clean_text(text)
    assert clean_text(once)[0] == once


@settings(deadline=None)  # the first call reads the word list
@given(st.lists(st.sampled_from(SPACED + SCRAPS)).map("".join) | st.text())
def test_a_change_is_counted_and_a_count_is_a_change(text):
    once, counts = clean_text(text)
    assert bool(counts) == (once != text.strip(" \n"))
    assert clean_text(once) == (once, {})


HOSTILE = [
    *(
        "<script",
        "<script>",
        "<style>a</script>",
        "<!--",
        "[[",
        "[[Fayl:",
        "{{",
        "}}",
        "&amp;",
        "&amp;amp;",
        "<b",
        "<<b>",
        "==",
    ),
    *("== ", "''", "(", "thumb|", "style=", "|-", "ə ", "m ə ", "É™", "Г", "a-\n", "aB", "абв", "a\u0301", "994 ", "A b "),
]


def calls(text: str) -> int:
    """Functions called while `text` is cleaned."""
    work = 0

    def count(frame, event, argument) -> None:
        nonlocal work
        work += 1

    sys.setprofile(count)
    try:
        clean_text(text)
    finally:
        sys.setprofile(None)
    return work


@pytest.mark.parametrize("scrap", HOSTILE)
def test_calls_grow_linearly_with_the_text(scrap):
    clean_text(scrap * 50)  # word lists are read once
    small, large = calls(scrap * 2_000), calls(scrap * 8_000)
    assert large <= 5 * small + 1000


def test_rules_do_not_backtrack_over_the_whole_text():
    # A rule that did would need over a minute for one of these lines; the limit is only there to end such a run.
    lines = "".join((scrap * 100_000)[:100_000].replace("\n", " ") + "\n" for scrap in HOSTILE)
    words = [sys.executable, "-m", "corpus.clean", "--language", "azerbaijani"]
    result = subprocess.run(words, cwd=ROOT, input=lines.encode(), capture_output=True, check=True, timeout=200)
    assert result.stdout.count(b"\n") == len(HOSTILE)


def test_the_filter_keeps_lines_apart():
    words = [sys.executable, "-m", "corpus.clean", "--language", "azerbaijani"]
    result = subprocess.run(words, cwd=ROOT, input="vә<br>ya\n\nson\n".encode(), capture_output=True, check=True)
    assert result.stdout.decode() == "və ya\n\nson\n"


@pytest.mark.parametrize("module", ["corpus.clean", "corpus.language"])
def test_a_filter_ends_silently_when_its_reader_closes(module, tmp_path):
    (tmp_path / "lines").write_text("Bakı gözəl şəhərdir.\n" * 5000, encoding="utf-8")  # more than a pipe holds
    line = f"{sys.executable} -m {module} --language azerbaijani < {tmp_path / 'lines'} | head -1; exit ${{PIPESTATUS[0]}}"
    result = subprocess.run(["bash", "-c", line], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
    assert (result.returncode, result.stderr, result.stdout.count("\n")) == (0, "", 1)


def test_clean_demo_text_needs_no_repair():
    for file in sorted((ROOT / "data/demo/corpus").glob("*.jsonl")):
        for _, record in read_jsonl(file):
            text, counts = clean_text(record["text"])
            assert not set(counts) & {"mojibake", "split_word", "broken_word", "glued_word", "tag", "entity"}, text[:80]


@pytest.mark.slow
def test_damaged_laws_are_repaired_to_a_fifth_of_their_errors(az_data):
    words = [sys.executable, "-m", "benchmarks.cleaning", str(az_data / "noisy/laws_pdf_damage.jsonl.gz")]
    words += [str(az_data / "corpus/laws.jsonl.gz"), "--codes", "2"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    share = float(re.search(r"\(([\d.]+) of raw\)", result.stdout).group(1))
    assert share <= 0.2, result.stdout


@pytest.mark.parametrize("source", ["news", "techdocs", "poems", "folktales", "biomed_translated"])
def test_real_clean_text_is_hardly_changed(az_data, source):
    texts = [record["text"] for _, record in read_jsonl(az_data / "corpus" / f"{source}.jsonl.gz")][::4]
    changed = sum(bool(set(clean_text(text)[1]) & {"mojibake", "split_word", "broken_word", "glued_word"}) for text in texts)
    assert changed <= 0.01 * len(texts)
