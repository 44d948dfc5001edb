"""The detector's file, its training, its features."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import UserError
from common.files import read_json, sha256_file, write_jsonl
from common.launch import ROOT
from corpus.detection.detector import (
    MODEL_FILE,
    PIECE,
    hashes,
    load,
    main_script,
    probabilities,
    sample,
    save,
    script_counts,
    units,
)
from corpus.detection.train_detector import (
    OWN_SENTENCES,
    examples_of,
    fit,
    read_labelled,
    read_own,
    read_sentences,
    train,
)
from language.azerbaijani import digraphs, is_sure, spelled_1991, to_cyrillic, to_latin, w_typed
from language.base import ascii_typed
from language.codes import LABELS
from language.spellings import uyghur_latin, uzbek_cyrillic

SENTENCES = [
    "Bu gün hava çox soyuqdur, uşaqlar evdə qalıb kitab oxuyurlar.",
    "Şəhərin mərkəzində yeni kitabxana açıldı və hamı sevindi.",
    "Mən səhər işə gedəndə yolda köhnə dostumu gördüm.",
    "Qonşumuz bağında alma, nar və üzüm ağacları əkib.",
    "Müəllim dərsi izah etdi, şagirdlər isə diqqətlə dinlədilər.",
    "Axşam bizə qonaq gələcək, ona görə plov bişirirəm.",
]


def labelled(tmp_path, extra=()):
    rows = [
        {"text": text, "lang": "azj_Latn", "group": f"own:{number}", "split": split}
        for number, (text, split) in enumerate(zip(SENTENCES, ["train"] * 4 + ["dev", "test"], strict=True))
    ]
    path = tmp_path / "sentences.jsonl.gz"
    write_jsonl(path, [*rows, *extra])
    return path


def test_the_shipped_file_is_small_and_matches_its_provenance():
    provenance = read_json(MODEL_FILE.with_suffix(".json"))
    assert MODEL_FILE.stat().st_size == provenance["bytes"] <= 3_000_000
    assert provenance["sha256"] == sha256_file(MODEL_FILE)
    assert provenance["own_sentences"]["sha256"] == sha256_file(OWN_SENTENCES)
    assert set(load()["Latn"].labels) == {"az", "tr", "tk", "uz", "crh", "gag", "ug", "en", "other"}
    assert "az" in load()["Cyrl"].labels
    assert "az" not in load()["Arab"].labels


@pytest.mark.parametrize("damage", ["missing", "short", "flipped", "text", "other"])
def test_a_missing_or_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "detector.npz"
    whole = MODEL_FILE.read_bytes()
    if damage == "short":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "flipped":
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 0x55]) + whole[middle + 1 :])
    elif damage == "text":
        path.write_text("version https://git-lfs.github.com/spec/v1\n")
    elif damage == "other":
        np.savez(path, tables=np.zeros(3))
    with pytest.raises(UserError, match=r"detector\.npz.*train_detector"):
        load(path)


def test_the_same_examples_give_the_same_file_byte_for_byte(tmp_path):
    examples = examples_of(read_sentences(labelled(tmp_path)), [], read_own(), 0)["Latn"][::6]
    for out in ("a.npz", "b.npz"):
        save(tmp_path / out, {"Latn": fit(examples, 12)})
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_seeds_draw_different_examples(tmp_path):
    rows = read_sentences(labelled(tmp_path))
    assert examples_of(rows, [], read_own(), 0) == examples_of(rows, [], read_own(), 0)
    assert examples_of(rows, [], read_own(), 0) != examples_of(rows, [], read_own(), 1)


@pytest.mark.slow
def test_training_twice_gives_the_same_bytes_and_another_seed_others(tmp_path):
    sentences = labelled(tmp_path)
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(sentences, [], tmp_path / f"{out}.npz", seed)
    first, second, third = ((tmp_path / f"{out}.npz").read_bytes() for out in "abc")
    assert first == second != third


@pytest.mark.slow
def test_the_command_trains_and_names_its_data(tmp_path):
    sentences, out = labelled(tmp_path), tmp_path / "tiny.npz"
    words = [sys.executable, "-m", "corpus.detection.train_detector", sentences, "--out", out, "--seed", "3"]
    result = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    provenance = json.loads(out.with_suffix(".json").read_text())
    assert provenance["sentences"]["counts"] == {"azj_Latn": {"dev": 1, "test": 1, "train": 4}}
    assert provenance["sentences"]["sha256"] == sha256_file(sentences)
    assert sum(provenance["test_confusion"]["azj_Latn"].values()) == 1
    model = load(out)["Latn"]
    assert model.labels[int(probabilities(units(SENTENCES[0]), model).argmax())] == "az"


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"text": "Salam", "lang": "azj_Latn", "group": "x"}, "line 7: 'split'"),
        ({"text": None, "lang": "azj_Latn", "group": "x", "split": "dev"}, "line 7: 'text'"),
        ({"text": "Salam", "lang": "azj_Latn", "group": "x", "split": "valid"}, "line 7: split 'valid'"),
        ({"text": "Salam", "lang": "azj_Latn", "group": "own:0", "split": "test"}, "group 'own:0' is in two splits"),
    ],
)
def test_unusable_sentences_are_named(tmp_path, row, complaint):
    with pytest.raises(UserError, match=complaint):
        read_sentences(labelled(tmp_path, [row]))


def test_files_in_one_language_give_its_sentences(tmp_path):
    """In any file: a paragraph's sentences are separated, short strings are dropped, and Azerbaijani needs an ə."""
    long = "Bu cümle Türkçedir ve yeterince uzundur. İkinci cümle de hemen onun arkasından gelir."
    write_jsonl(
        tmp_path / "a.jsonl", [{"question": long, "answer": "kısa"}, {"text": "Şəhərdə gecələr səssizlik həmişə gözəldir."}]
    )
    turkish = [text for label, text in read_labelled(f"tr={tmp_path / 'a.jsonl'}", 0)]
    assert sorted(turkish)[:2] == ["Bu cümle Türkçedir ve yeterince uzundur.", "İkinci cümle de hemen onun arkasından gelir."]
    assert read_labelled(f"az={tmp_path / 'a.jsonl'}", 0) == [("az", "Şəhərdə gecələr səssizlik həmişə gözəldir.")]
    for words in ("a.jsonl", f"xx={tmp_path / 'a.jsonl'}"):
        with pytest.raises(UserError, match=r"--labelled .*expected LANGUAGE=FILE"):
            read_labelled(words, 0)


def test_only_sentences_of_split_train_are_learnt(tmp_path):
    learnt = examples_of(read_sentences(labelled(tmp_path)), [], read_own(), 0)
    texts = {text for script in learnt.values() for _, text in script}
    assert SENTENCES[0] in texts
    assert not texts & set(SENTENCES[4:])


def test_each_own_sentence_has_one_language_and_occurs_once():
    lines = OWN_SENTENCES.read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines]
    assert all(len(pair) == 2 and pair[0].isalpha() and pair[1].strip() == pair[1] != "" for pair in pairs)
    assert len({text for _, text in pairs}) == len(pairs)
    assert {label for label, _ in read_own()} <= {*LABELS.values(), "other"}


@given(st.text(max_size=300))
def test_features_of_any_text_lie_in_the_table(text):
    codes = units(text)
    rows = hashes(codes, 15)
    assert len(rows) == 0 or (int(rows.min()) >= 0 and int(rows.max()) < 1 << 15)
    assert (main_script(codes) == "none") == (not script_counts(codes))
    shares = probabilities(codes, load()["Latn"])
    assert abs(shares.sum() - 1) < 1e-6


@given(st.text(alphabet="abcçdeəfgğhxıijkqlmnoöprsştuüvyz ", max_size=60))
def test_case_makes_no_difference(text):
    capitals = text.replace("i", "İ").replace("ı", "I").upper()
    assert np.array_equal(hashes(units(text), 18), hashes(units(capitals), 18))


def test_of_non_letters_only_an_apostrophe_matters():
    same = hashes(units("salam dünya"), 18)
    assert np.array_equal(same, hashes(units("  «salam», 25 👍 dünya!!!"), 18))
    assert not np.array_equal(same, hashes(units("sa'lam dünya"), 18))


@given(st.text(max_size=10), st.integers(0, 6000))
def test_a_sample_is_short_and_whole_for_short_texts(text, times):
    long = text * times
    assert len(sample(long)) <= 3 * PIECE + 2
    assert sample(text) == text


def test_scripts():
    for text, script in {
        "salam": "Latn",
        "Азәрбајҹан": "Cyrl",
        "سلام": "Arab",
        "γεια": "Grek",
        "ბაქო": "Geor",
        "Բաքու": "Armn",
        "שלום": "Hebr",
        "नमस्ते": "Deva",
        "안녕": "Hang",
        "漢字": "Hani",
        "ሰላም": "Zyyy",
        "12 + 3 👍": "none",
        "": "none",
    }.items():
        assert main_script(units(text)) == script, text


def test_schwa_alone_decides_only_in_latin_azerbaijani():
    assert all(is_sure(text) for text in SENTENCES[1:4])
    assert not is_sure("ˈmɒskəʊ ˈlʌndən əˈbʌv əˈgəʊ")  # English in phonetic script
    assert not is_sure("Азəрбајҹан əдəбијјаты")  # Cyrillic typed with the Latin letter
    assert not is_sure("Min Qazan şəhərendə yəşim, mənem öyem yaña")  # Tatar in Latin script
    assert not is_sure("Nə")


def test_spellings():
    assert ascii_typed("Çox gözəl iş, ağıllı uşaq") == "Cox gozel is, agilli usaq"
    assert digraphs("Şəkilçi") == "Shekilchi"
    assert w_typed("yaxşı uşaq") == "yaxwi uwaq"
    assert spelled_1991("Gözəl Ədəbiyyat") == "Gözäl Ädäbiyyat"
    assert to_latin(to_cyrillic(SENTENCES[1])) == SENTENCES[1].replace("Ş", "ş")
    assert uzbek_cyrillic("O‘zbekiston shahri") == "ўзбекистон шаҳри"
    assert uyghur_latin("ئۇيغۇر تىلى") == "uyghur tili"
