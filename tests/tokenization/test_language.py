"""The tokenizer's normaliser in its corpus' language: casing by the pack, and time linear in the text."""

import json

import pytest

from common.errors import UserError
from language.base import load_language
from tests.timing import growth
from tests.tokenization.samples import options, sentences, write_corpus
from tokenization.loading import load_tokenizer
from tokenization.normaliser import normaliser_of
from tokenization.train import train_tokenizer


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("azerbaijani", "ısı istanbul əkin"),
        ("turkish", "ısı istanbul əkin"),
        ("generic", "isi i̇stanbul əkin"),
    ],
)
def test_lower_casing_follows_the_language(language, expected):
    assert normaliser_of(load_language(language), True)("ISI İSTANBUL ƏKİN".replace("Kİ", "Ki")) == expected


def test_look_alike_letters_are_those_of_the_pack():
    text = "Ankаra Қaзақ"  # a Cyrillic а in a Latin word, a Latin a in a Cyrillic one
    assert normaliser_of(load_language("turkish"), False)(text).startswith("Ankara ")
    assert normaliser_of(load_language("kazakh"), False)(text).endswith(" Қазақ")
    assert normaliser_of(load_language("generic"), False)(text) == text


def test_a_tokenizer_is_in_the_language_of_its_corpus(tmp_path):
    corpus = write_corpus(tmp_path / "corpus", sentences()[:300])
    report = json.loads((corpus / "report.json").read_text())
    (corpus / "report.json").write_text(json.dumps(report | {"language": "turkish"}))
    train_tokenizer(options("wordpiece-uncased", vocab_size=700), corpus, tmp_path / "out", 1)
    assert load_tokenizer(tmp_path / "out").language.name == "turkish"
    path = tmp_path / "out" / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps(settings | {"normaliser": {"language": "klingon", "transliterate": False}}))
    with pytest.raises(UserError, match="klingon"):
        load_tokenizer(tmp_path / "out")


@pytest.mark.parametrize("make", [lambda n: "a" * n + "а" * n, lambda n: "а" * 2 * n, lambda n: "aа" * n])
def test_a_long_word_of_two_scripts_takes_time_in_proportion(make):
    rules = normaliser_of(load_language("azerbaijani"), True).rules
    short, long, linear = growth(rules.normalize_str, make, 2_000, 20_000)
    assert linear, f"{short:.4f} s, then {long:.4f} s"
