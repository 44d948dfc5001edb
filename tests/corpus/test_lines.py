import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from corpus.lines import MIN_CHARACTERS, MIN_DOCUMENTS, common_keys, drop_lines, line_keys

MENU = "Ana səhifə | Xəbərlər | Haqqımızda | Əlaqə"


def test_a_shared_line_goes_and_the_rest_stays_in_order():
    texts = [f"{MENU}\nBirinci cümlə {number} haqqındadır.\nİkinci cümlə də {number}." for number in range(MIN_DOCUMENTS)]
    keys = common_keys(map(line_keys, texts))
    text, dropped = drop_lines(texts[3], keys)
    assert dropped == 1
    assert text == "Birinci cümlə 3 haqqındadır.\nİkinci cümlə də 3."


def test_one_document_fewer_is_not_enough():
    texts = [f"{MENU}\nsöz {number}" for number in range(MIN_DOCUMENTS - 1)]
    assert common_keys(map(line_keys, texts)) == frozenset()


def test_a_document_counts_once_however_often_it_says_the_line():
    assert common_keys([line_keys("\n".join([MENU] * 50)), line_keys(MENU)], least=3) == frozenset()


def test_spelling_does_not_hide_a_line():
    keys = frozenset(line_keys(MENU).tolist())
    for twin in (MENU.upper(), "Ana sehife - Xeberler - Haqqimizda - Elaqe", "  " + MENU.replace("|", "•")):
        assert drop_lines(f"{twin}\nmətn", keys) == ("mətn", 1)


def test_short_lines_are_nobodys():
    assert len(line_keys("Bəli.\nMaddə 1.\n" + "a" * (MIN_CHARACTERS - 1))) == 0
    assert len(line_keys("a" * MIN_CHARACTERS)) == 1


@given(st.lists(st.sampled_from([MENU, "Bu sətir kifayət qədər uzundur.", "qısa", ""]), max_size=8))
def test_keys_are_sorted_distinct_and_nothing_else_is_dropped(lines):
    text = "\n".join(lines)
    keys = line_keys(text)
    assert keys.dtype == np.uint64
    assert (np.diff(keys.astype(object)) > 0).all()
    assert drop_lines(text, frozenset()) == (text, 0)
    kept, dropped = drop_lines(text, frozenset(line_keys(MENU).tolist()))
    assert dropped == lines.count(MENU)
    assert kept == "\n".join(line for line in lines if line != MENU)
