import gzip
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.files import read_jsonl
from common.launch import ROOT
from corpus.quality import SIGNALS, broken_rules, presets
from language.azerbaijani import upper
from tests.azerbaijani import AZ, describe, find_preset, first_broken_rule, signals

LONG = " ".join(record["text"] for _, record in list(read_jsonl(ROOT / "data/demo/corpus/news.jsonl"))[:3])


def gopher(tokens: list[str], size: int, text: str) -> tuple[float, float]:
    """Top and duplicate n-gram fraction, written slowly from table A1 of arXiv 2112.11446 and datatrove."""
    grams = [tuple(tokens[at : at + size]) for at in range(len(tokens) - size + 1)]
    top = 0
    if grams:
        most = max(grams.count(gram) for gram in grams)
        gram = next(gram for gram in grams if grams.count(gram) == most)
        top = len(" ".join(gram)) * most
    seen, characters, at = set(), 0, 0
    while at < len(grams):
        joined = "".join(grams[at])
        if joined in seen:
            characters += len(joined)
            at += size
        else:
            seen.add(joined)
            at += 1
    return top / len(text), characters / len(text)


@given(st.lists(st.sampled_from(["su", "od", "göy", "yer", ".", "ev"]), min_size=1, max_size=60))
def test_repetition_equals_the_definition(tokens):
    text = " ".join(tokens)
    measured = signals(text)
    for size in (2, 3, 4):
        assert measured[f"top_{size}gram"] == round(gopher(tokens, size, text)[0], 4)
    for size in range(5, 11):
        assert measured[f"dup_{size}gram"] == round(gopher(tokens, size, text)[1], 4)


def test_the_rest_by_hand():
    text = "Salam, dünya!\n- bir iki\n\n- bir iki\nSon..."
    measured = signals(text)
    assert measured["words"] == 7
    assert measured["mean_word_length"] == round((5 + 5 + 3 + 3 + 3 + 3 + 3) / 7, 4)
    assert measured["alpha_word_fraction"] == round(7 / 14, 4)
    assert measured["lines"] == 4
    assert measured["newline_ratio"] == round(4 / 14, 4)
    assert measured["line_punct_fraction"] == 0.5
    assert measured["bullet_fraction"] == 0.5
    assert measured["ellipsis_line_fraction"] == 0.25
    assert measured["dup_line_fraction"] == 0.25
    assert measured["line_dup_char_fraction"] == round(9 / len(text), 4)
    assert measured["char_dup_ratio"] == round(9 / (len(text) - 4), 4)
    assert measured["short_line_fraction"] == 1


@pytest.mark.parametrize("text", ["", " \n ", "\n\n", "\u200b \n"])
def test_empty_text_gives_zeros(text):
    measured = signals(text)
    assert tuple(measured) == SIGNALS
    assert measured["words"] <= 1


@given(st.text())
def test_signals_are_finite_and_named(text):
    measured = signals(text)
    assert tuple(measured) == SIGNALS
    assert all(0 <= value < float("inf") for value in measured.values())


def test_stop_words_are_seen_in_capitals_ascii_and_cyrillic_and_fineweb2_sees_one_of_these():
    text = "Bu da bir söz, o isə çox qəşəng və onun üçün"
    twins = [upper(text), text.translate(str.maketrans("əğıöşüç", "egiosuc")), "Бу да бир сөз, о исә чох гәшәнҝ вә онун үчүн"]
    plain = signals(text)
    for twin in twins:
        assert signals(twin)["stop_words"] == plain["stop_words"] == 9
    assert plain["stop_words_fineweb2"] >= 7
    assert signals(twins[0])["stop_words_fineweb2"] <= 1


def test_fineweb2_values_are_verbatim():
    rules = presets(AZ)["fineweb2"]
    assert [rules[f"max_dup_{size}gram"] for size in range(5, 11)] == [0.300, 0.271, 0.252, 0.227, 0.202, 0.179]
    assert [rules[f"max_top_{size}gram"] for size in (2, 3, 4)] == [0.514, 0.475, 0.405]
    assert (rules["max_dup_line_fraction"], rules["min_line_punct_fraction"], rules["max_newline_ratio"]) == (
        0.879,
        0.188,
        0.179,
    )
    assert (rules["min_mean_word_length"], rules["max_mean_word_length"], rules["min_alpha_word_fraction"]) == (3, 13, 0.725)


def test_presets_keep_good_text_and_drop_bad():
    upper_case = signals(upper(LONG))
    assert first_broken_rule(signals(LONG), "fineweb2") is None
    assert first_broken_rule(upper_case, "fineweb2") == "min_stop_words_fineweb2"
    assert first_broken_rule(upper_case, "tuned") is None
    assert first_broken_rule(signals("çox gözəl"), "fineweb2") is not None
    assert first_broken_rule(signals("çox gözəl"), "tuned") is None
    spam = signals("Ucuz avtomobil al! " * 60)
    assert first_broken_rule(spam, "tuned") == "max_top_2gram"
    assert first_broken_rule(spam, "none") is None
    menu = signals("\n".join(["Əsas səhifə və xəbərlər bölməsi üçün keçid"] * 30 + [LONG[:300]]))
    assert first_broken_rule(menu, "tuned") == "max_dup_line_fraction"


def test_a_rule_with_a_length_applies_from_that_length_on():
    rules = find_preset("none", min_stop_words=[3, 10])
    assert first_broken_rule({**signals("yox"), "words": 9}, rules) is None
    assert first_broken_rule({**signals("xyz"), "words": 10}, rules) == "min_stop_words"


def test_changed_presets_and_their_errors():
    assert "min_words" not in find_preset("fineweb2", min_words=None)
    assert find_preset("tuned", max_top_2gram=0.5)["max_top_2gram"] == 0.5
    with pytest.raises(UserError, match="no such preset"):
        find_preset("gold")
    with pytest.raises(UserError, match="max_tpo_2gram"):
        find_preset("tuned", max_tpo_2gram=0.5)
    for bad in ("much", [1, 2, 3], [], True):
        with pytest.raises(UserError, match="max_top_2gram"):
            find_preset("tuned", max_top_2gram=bad)


def test_az_tuned_keeps_the_demo_corpus():
    for file in sorted((ROOT / "data/demo/corpus").glob("*.jsonl")):
        for _, record in read_jsonl(file):
            assert first_broken_rule(signals(record["text"]), "tuned") is None, record["text"][:80]


@pytest.mark.parametrize("source", ["news", "laws", "techbook", "talks", "folktales", "poems", "divan", "wiki", "blog"])
def test_az_tuned_loses_at_most_three_percent_of_a_real_source(az_data, source):
    texts = [record["text"] for _, record in read_jsonl(az_data / "corpus" / f"{source}.jsonl.gz")]
    texts = texts[:: max(1, len(texts) // 300)]
    lost = sum(first_broken_rule(signals(text), "tuned") is not None for text in texts)
    assert lost <= 0.03 * len(texts)


def test_az_tuned_removes_the_repetitive_text(az_data):
    with gzip.open(az_data / "noisy/repetitive_synthetic.txt.gz", "rt", encoding="utf-8") as file:
        assert first_broken_rule(signals(file.read(200_000)), "tuned") is not None


def test_quantiles_of_the_texts():
    table = describe([LONG, LONG + " " + LONG, "qısa"], least_words=20)
    assert table["words"][3] == pytest.approx((signals(LONG)["words"] + signals(LONG + " " + LONG)["words"]) / 2, rel=1e-3)
    assert describe(["qısa"], least_words=20) == {}


def test_the_command_prints_them(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "Bu bir sözdür."}\n', encoding="utf-8")
    words = [sys.executable, "-m", "corpus.quality", "--language", "az", str(tmp_path / "a.jsonl")]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    assert "a.jsonl: 1 documents" in result.stdout
    assert "fineweb2" in result.stdout
    assert subprocess.run([*words[:-1], "none.jsonl"], cwd=ROOT, capture_output=True, check=False).returncode == 2


@pytest.mark.parametrize("preset", ["fineweb2", "tuned"])
@given(
    st.lists(
        st.lists(st.sampled_from(["su", "od", "və", "bir", "#", "...", "\n", "x" * 15]), max_size=150), min_size=1, max_size=3
    )
)
def test_rules_over_a_table_break_as_they_do_for_one_text(preset, texts):
    measured = [signals(" ".join(tokens)) for tokens in texts]
    rules = find_preset(preset)
    table = {name: np.array([one[name] for one in measured]) for name in SIGNALS}
    broken = list(broken_rules(table, rules))
    for row, one in enumerate(measured):
        assert first_broken_rule(one, rules) == next((rule for rule, documents in broken if documents[row]), None)
