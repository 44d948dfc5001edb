"""What every tokenizer guarantees, for all kinds, cased and uncased: distinct words, ids, offsets, round trips."""

import gzip
import json
import os
import random
import signal
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from common.errors import UserError
from language.azerbaijani import LANGUAGE as AZ
from language.azerbaijani import lower, upper
from tests.tokenization.samples import HARD, KINDS, PAIRS, options, sentences, write_corpus
from tokenization import normaliser
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import LONGEST_PART, Tokenizer
from tokenization.train import train_tokenizer


def test_pairs_stay_apart(folder):
    tokenizer = load_tokenizer(folder)
    assert len(PAIRS) == 40
    for pair in PAIRS:
        left, right = pair.split("/")
        first = (upper(left[0]) + left[1:], upper(right[0]) + right[1:])
        for a, b in ((left, right), first, (upper(left), upper(right))):
            one, two = tokenizer.encode_batch([a, b])
            assert one.tolist() != two.tolist(), (a, b)
            assert tokenizer.unk_id not in one
            assert unicodedata.normalize("NFC", tokenizer.decode(one)) == tokenizer.normalise(a)


def test_casing_is_azerbaijani(trained):
    for name, folder in trained.items():
        seen = load_tokenizer(folder).normalise("İSTANBUL ILIQ İlham Iğdır I\u0307")
        expected = "istanbul ılıq ilham ığdır i" if name.endswith("uncased") else "İSTANBUL ILIQ İlham Iğdır İ"
        assert seen == expected


def test_spelling_rules():
    rules = normaliser.text_normalizer(AZ, False)
    for before, after in {
        "vә çoх оlan": "və çox olan",
        "Шәки оса": "Шәки оса",
        "v ә ya": "v ə ya",
        "ǝ Ǝ": "ə Ə",
        "Bakı’nın ‘a’": "Bakı'nın 'a'",
        "“söz” „söz”": '"söz" "söz"',
        "a‑b — c": "a-b – c",
        "bi\u00adr iki\u200b": "bir iki",
        "o\u0308n": "ön",
        "а" * 3 + "z": "aaaz",
        "привет": "привет",
        "приveт": "приveт",
        "ș": "ş",
        "▁": "_",
    }.items():
        assert rules.normalize_str(before) == after, before
    assert normaliser.text_normalizer(AZ, True, True).normalize_str("Азәрбајҹан ЯЗ") == "azərbaycan yaz"
    assert normaliser.text_normalizer(AZ, False, True).normalize_str("Азәрбајҹан Яз ЯЗ") == "Azərbaycan Yaz YAZ"


def test_plain_characters_need_no_rule():
    """Characters that the fast path calls plain are changed by the full normaliser only in case; signs are signs."""
    every = normaliser.plain_letters(AZ) + normaliser.PLAIN_SIGNS
    assert not normaliser.normaliser_of(AZ, False).not_plain.search(every)
    assert all(unicodedata.category(c)[0] in "PS" for c in normaliser.PLAIN_SIGNS)
    assert all(unicodedata.category(c)[0] in "LN" for c in normaliser.plain_letters(AZ))
    for lowercase in (False, True):
        rules = normaliser.normaliser_of(AZ, lowercase)
        for text in (every, " ".join(every), "\n".join(every)):
            assert rules.rules.normalize_str(text) == rules(text)


def check(tokenizer: Tokenizer, text: str) -> None:
    (ids,), (encoding,) = tokenizer.encode_batch([text]), tokenizer.encode_with_offsets([text])
    assert ids.tolist() == encoding.ids.tolist()
    assert ((ids >= 0) & (ids < tokenizer.vocab_size)).all()
    offsets = encoding.offsets
    assert ((offsets[:, 0] >= 0) & (offsets[:, 1] <= len(text)) & (offsets[:, 0] <= offsets[:, 1])).all()
    assert (np.diff(offsets[:, 0]) >= 0).all()
    plain, back = tokenizer.normalise(text), tokenizer.decode(ids)
    if tokenizer.kind == "wordpiece":
        if tokenizer.unk_id not in ids:
            apart = tokenizer.engine.pre_tokenizer.pre_tokenize_str(plain)
            assert back == " ".join(word for word, _ in apart)
    else:
        assert back == plain
        assert tokenizer.unk_id not in ids


ODD = "abcəğıİIiöşüç ЯжаоәҺ\u0301\u0307\u0323\u200b\u200d\u00ad’“—▁👍🏽❤\ufe0f\n\t .,-_19[]<>"
TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(alphabet=st.sampled_from(ODD), max_size=40),
    st.lists(st.sampled_from([w for p in PAIRS for w in p.split("/")] + HARD), max_size=8).map(" ".join),
)


@pytest.mark.parametrize("name", KINDS)
def test_round_trip_and_ids(name, trained):
    tokenizer = load_tokenizer(trained[name])
    for text in HARD:
        check(tokenizer, text)

    @settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
    @given(TEXTS)
    def run(text):
        check(tokenizer, text)

    run()


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_round_trip_many(name, trained):
    tokenizer = load_tokenizer(trained[name])

    @settings(max_examples=4000, deadline=None, suppress_health_check=list(HealthCheck))  # x 7 tokenizers: 28,000
    @given(TEXTS)
    @example("😀" * 9000)
    @example(("söz " * 5000) + "x" * 20_000)
    def run(text):
        check(tokenizer, text)

    run()


def test_offsets_point_at_the_original(folder):
    tokenizer = load_tokenizer(folder)
    text = "Şəhərlərimizdə  İLK (qızıl) dəniz,\nsöz\u200bün Ön!"
    (encoding,) = tokenizer.encode_with_offsets([text])
    for index, (begin, end) in zip(encoding.ids, encoding.offsets, strict=True):
        token = tokenizer.tokens[index].removeprefix("##").lstrip("▁")
        if token and index != tokenizer.unk_id:
            assert tokenizer.normalise(text[begin:end]) == token


def test_plain_texts_are_detected_together():
    """Odd texts among plain ones, characters of two UTF-16 units of both kinds: each text as if alone."""
    draw = random.Random(5)
    letters = normaliser.PLAIN_SIGNS + "abcIİıiƏAŞž \n𝒳𐐀😀🫠\U0010ffff\ue000\u0301яЯ\x00中"
    texts = ["".join(draw.choices(letters, k=draw.randrange(12))) for _ in range(3000)]
    for lowercase in (False, True):
        rules = normaliser.normaliser_of(AZ, lowercase)
        found = rules.plain_all(texts)
        alone = [(lower(t) if lowercase else t) if not rules.not_plain.search(t) else None for t in texts]
        assert found == alone and 0 < found.count(None) < len(texts)
        assert rules.plain_all([]) == [] and rules.plain_all(["", "𐐀", ""]) == ["", None, ""]


def test_grouped_texts_of_a_batch_equal_single_ones(folder, monkeypatch):
    """Texts joined by line ends have the ids that the library gives each one; also empty ones and line ends."""
    tokenizer = load_tokenizer(folder)
    texts = ["", *HARD, "", "\n", " ", "a\n\nb\n", *(word for pair in PAIRS for word in pair.split("/")), "söz " * 30, ""]
    alone = [tokenizer.encode_with_offsets([text])[0].ids.tolist() for text in texts]
    for size in (1, 50, 10**6):
        monkeypatch.setattr("tokenization.tokenizer.GROUP", size)
        for run in (1, 40, LONGEST_PART):
            monkeypatch.setattr("tokenization.tokenizer.RUN", {"unigram": run, "bpe": run})
            assert [ids.tolist() for ids in tokenizer.encode_batch(texts)] == alone


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_threads_and_forked_processes_share_a_tokenizer(folder, monkeypatch):
    """Calls from several threads at once, and from a process forked after the first call, which exits normally."""
    tokenizer = load_tokenizer(folder)
    monkeypatch.setattr("tokenization.tokenizer.GROUP", 5_000)
    texts = [*HARD, "söz " * 30, "heç bir " * 300] * 10
    wanted = [ids.tolist() for ids in tokenizer.encode_batch(texts)]
    with ThreadPoolExecutor(4) as pool:
        for read in pool.map(tokenizer.encode_batch, [texts] * 8, timeout=60):
            assert [ids.tolist() for ids in read] == wanted
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 42 if [ids.tolist() for ids in tokenizer.encode_batch(texts)] == wanted else 1
        finally:
            os._exit(code)
    for _ in range(600):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done and os.waitstatus_to_exitcode(status) == 42


def test_long_text_is_the_same_in_parts(folder):
    tokenizer = load_tokenizer(folder)
    draw = random.Random(3)
    words = [word for pair in PAIRS for word in pair.split("/")] + ["  ", "\n", "!", "😀", "kitablarımızdan"]
    text = " ".join(draw.choices(words, k=LONGEST_PART // 2))
    (ids,), (encoding,) = tokenizer.encode_batch([text]), tokenizer.encode_with_offsets([text])
    assert ids.tolist() == encoding.ids.tolist()
    assert len(tokenizer.encode_batch(["kitab " * 200_000])[0]) >= 200_000  # a line above 1 MB


def test_autotokenizer_reads_the_same(folder):
    transformers = pytest.importorskip("transformers")
    tokenizer, other = load_tokenizer(folder), transformers.AutoTokenizer.from_pretrained(str(folder))
    texts = sentences()[:300] + HARD  # [MASK] in a text is plain text to us, and to transformers with split_special_tokens
    read = other(texts, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
    for text, ids, offsets, encoding in zip(
        texts, read["input_ids"], read["offset_mapping"], tokenizer.encode_with_offsets(texts), strict=True
    ):
        assert ids == encoding.ids.tolist(), text
        assert [tuple(pair) for pair in encoding.offsets.tolist()] == offsets, text
    assert other.mask_token_id == tokenizer.mask_id
    assert other("a", "b")["input_ids"][0] == tokenizer.cls_id


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_autotokenizer_on_real_lines(name, az_data, tmp_path):
    """Real lines, 18,000 of its own for each kind: equal ids by the fast path, the library and transformers, equal offsets."""
    transformers = pytest.importorskip("transformers")
    texts = []
    for path in sorted((az_data / "corpus").glob("*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            texts += [line for row in file for line in json.loads(row)["text"].split("\n") if line]
    random.Random(0).shuffle(texts)
    built, first = write_corpus(tmp_path / "built", texts[:18_000]), 18_000 * (1 + list(KINDS).index(name))
    tokenizer = train_tokenizer(options(name, vocab_size=8000), built, tmp_path / name, 1)
    other = transformers.AutoTokenizer.from_pretrained(str(tmp_path / name))
    wrong = 0
    for begin in range(first, first + 18_000, 1000):
        batch = texts[begin : begin + 1000]
        assert len(batch) == 1000
        read = other(batch, add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=True)
        both = zip(tokenizer.encode_batch(batch), tokenizer.encode_with_offsets(batch), strict=True)
        for (ids, encoding), theirs, offsets in zip(both, read["input_ids"], read["offset_mapping"], strict=True):
            wrong += not (ids.tolist() == encoding.ids.tolist() == theirs)
            wrong += [tuple(pair) for pair in encoding.offsets.tolist()] != offsets
    assert wrong == 0


def test_surrogates_are_refused_by_name(folder):
    tokenizer = load_tokenizer(folder)
    for encode in (tokenizer.encode_batch, tokenizer.encode_with_offsets):
        with pytest.raises(UserError, match=r"text 2 of 2: a lone surrogate \(U\+D83D\) at character 1"):
            encode(["söz", "a\ud83d"])
        with pytest.raises(UserError, match=r"poems\.jsonl, line 7"):
            encode(["\udc00"], names=["poems.jsonl, line 7"])


def test_saved_again_is_the_same(folder, tmp_path):
    tokenizer = load_tokenizer(folder)
    tokenizer.save(tmp_path)
    for path in folder.iterdir():
        if path.name != "training.json":
            assert (tmp_path / path.name).read_bytes() == path.read_bytes(), path.name
    assert load_tokenizer(tmp_path).identity == tokenizer.identity
    assert tokenizer.encode_batch([]) == []
    assert set(tokenizer.ordinary_ids) | set(tokenizer.special_ids) == set(range(tokenizer.vocab_size))
    assert [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id] == [0, 1, 2, 3, 4]


def test_phrases_are_one_token_and_never_part_of_a_word(trained):
    tokenizer = load_tokenizer(trained["phrases-uncased"])
    assert sum(" " in token for token in tokenizer.tokens) == 40 and tokenizer.vocab_size == 900
    for text, whole in {
        "heç bir": True,
        "heç  bir": False,
        "heç\nbir": False,
        "heç biri": False,
        "aheç bir": False,
        "heç bir\u0301": False,
        "_heç bir_": True,
        "(heç bir)": True,
        "heç bir1": False,
    }.items():
        check(tokenizer, text)
        tokens = [tokenizer.tokens[index] for index in tokenizer.encode_batch([text])[0]]
        assert ("heç bir" in tokens) == whole, text
