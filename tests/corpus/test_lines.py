import pytest
from hypothesis import given
from hypothesis import strategies as st

from corpus.build import read_documents
from corpus.cleaning.lines import MIN_CHARACTERS, line_keys
from language.azerbaijani import fold_lines
from tests.azerbaijani import build_corpus, drop_lines
from tests.corpus.test_build import sentences, write

MENU = "Ana səhifə | Xəbərlər | Haqqımızda | Əlaqə"


def keys_of(text):
    return frozenset(line_keys(text, fold_lines(text)[1]))


def test_a_shared_line_is_dropped_and_the_rest_keeps_its_order():
    text, dropped = drop_lines(f"{MENU}\nBirinci cümlə 3 haqqındadır.\nİkinci cümlə də 3.", keys_of(MENU))
    assert dropped == 1
    assert text == "Birinci cümlə 3 haqqındadır.\nİkinci cümlə də 3."


@pytest.mark.parametrize(("documents", "times", "dropped"), [(10, 1, 9), (9, 1, 0), (9, 50, 0)])
def test_lines_are_common_from_ten_documents_on(documents, times, dropped, tmp_path):
    """All documents but the first lose it. In nine documents it is kept, even where one of them repeats it."""
    texts = [f"{text}\n{MENU}" for text in sentences(documents, 3)]
    texts[1] = "\n".join([texts[1], *[MENU] * (times - 1)])
    write(tmp_path / "in" / "a.jsonl", texts)
    report = build_corpus({"path": str(tmp_path / "in"), "heldout_fraction": 0}, tmp_path / "out")
    assert report["total"]["lines_dropped"] == dropped
    kept = [document["text"].count(MENU) for document in read_documents(tmp_path / "out", "a")]
    assert sum(kept) == documents + times - 1 - dropped and kept[0] == 1


def test_spelling_does_not_hide_a_line():
    keys = keys_of(MENU)
    for twin in (MENU.upper(), "Ana sehife - Xeberler - Haqqimizda - Elaqe", "  " + MENU.replace("|", "•")):
        assert drop_lines(f"{twin}\nmətn", keys) == ("mətn", 1)


def test_short_lines_are_never_dropped():
    assert len(keys_of("Bəli.\nMaddə 1.\n" + "a" * (MIN_CHARACTERS - 1))) == 0
    assert len(keys_of("a" * MIN_CHARACTERS)) == 1


@given(st.lists(st.sampled_from([MENU, "Bu sətir kifayət qədər uzundur.", "qısa", ""]), max_size=8))
def test_keys_are_sorted_and_distinct(lines):
    text = "\n".join(lines)
    keys = line_keys(text, fold_lines(text)[1])
    assert keys == sorted(set(keys)) and all(0 <= key < 2**64 for key in keys)
    assert drop_lines(text, frozenset()) == (text, 0)
    kept, dropped = drop_lines(text, keys_of(MENU))
    assert dropped == lines.count(MENU)
    assert kept == "\n".join(line for line in lines if line != MENU)
