"""Pseudo-log-likelihood against transformers and minicons; planted preferences show, shuffled ones give chance; errors."""

import random

import numpy as np
import pytest
import torch

from common.errors import UserError
from common.files import read_json, read_jsonl, write_text
from model.convert.importing import import_checkpoint
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.huggingface import main as huggingface
from model.mlm import MaskedLM
from model.store import load_masked_lm
from tests.conftest import run_script
from tests.model.peers import FAMILIES, write_peer
from tokenization.loading import load_tokenizer
from training.minimal_pairs import judged, log_likelihoods, read_pairs, summary_of

TEXTS = ["Bakı Azərbaycanın paytaxtıdır.", "Uşaqlar evə qaçır, külək əsir!", "söz", "Qızıl üzük 12 manata satılır; yağış!"]


@pytest.fixture(autouse=True)
def hf_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))


def write_own(folder, prepared, head_bias=None) -> None:
    """A tiny model with the demo's tokenizer; `head_bias` maps words to what is added to their logits."""
    tokenizer = load_tokenizer(prepared / "tokenizer")
    torch.manual_seed(0)
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, layers=2, heads=2, intermediate_size=48, max_length=64
    )
    model = MaskedLM(config)
    with torch.no_grad():
        for word, value in (head_bias or {}).items():
            model.head.bias[tokenizer.encode_batch([word])[0]] += value
    write_checkpoint(folder, model.state_dict(), config, tokenizer, {"name": "tiny", "language": "azerbaijani"})


def by_transformers(folder, texts) -> list[float]:
    """PLL-word-l2r once more, by its definition: a forward pass for every token, words by transformers' word_ids."""
    transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    reader = transformers.AutoTokenizer.from_pretrained(folder)
    scores = []
    for text in texts:
        encoded = reader(text, return_tensors="pt")
        ids, words, total = encoded["input_ids"][0], encoded.word_ids(0), 0.0
        if len({*words} - {None}) == 1 and " " in text:  # mmBERT's tokenizer does not part words: ▁ begins one
            begins = np.cumsum([token.startswith("▁") for token in reader.convert_ids_to_tokens(ids)])
            words = [None if word is None else int(begin) for word, begin in zip(words, begins, strict=True)]
        for place, word in enumerate(words):
            if word is None:
                continue
            masked = ids.clone()
            masked[[j for j in range(place, len(ids)) if words[j] == word]] = reader.mask_token_id
            with torch.no_grad():
                logits = model(input_ids=masked[None]).logits[0, place]
            total += float(logits.log_softmax(-1)[ids[place]])
        scores.append(total)
    return scores


def write_any(folder, family, prepared):
    """(checkpoint, the same in transformers' format) of a family, or of our own tokenizer and encoder."""
    if family == "own":
        write_own(folder / "ours", prepared)
        assert huggingface(["export", str(folder / "ours"), str(folder / "theirs")]) == 0
    else:
        write_peer(folder / "theirs", family)
        import_checkpoint(str(folder / "theirs"), folder / "ours")
    return folder / "ours", folder / "theirs"


@pytest.mark.parametrize("family", ["own", *FAMILIES])
def test_equals_its_definition_through_transformers(family, prepared, tmp_path):
    ours, theirs = write_any(tmp_path, family, prepared)
    scores, sizes = log_likelihoods(*load_masked_lm(ours), TEXTS, batch_tokens=64)
    assert scores == pytest.approx(by_transformers(theirs, TEXTS), abs=1e-4, rel=1e-5)
    together, _ = log_likelihoods(*load_masked_lm(ours), TEXTS, batch_tokens=100_000)
    assert scores == pytest.approx(together, abs=1e-4) and (sizes > 0).all()
    assert any(sizes > [len(text.split()) for text in TEXTS])  # some words have several tokens


@pytest.mark.parametrize("family", ["own", *(name for name in FAMILIES if name != "mmbert")])  # its words: see words_of
def test_equals_minicons(family, prepared, tmp_path):
    library = pytest.importorskip("minicons.scorer", reason="the peer is installed with requirements-dev.txt")
    ours, theirs = write_any(tmp_path, family, prepared)
    peer = library.MaskedLMScorer(str(theirs), "cpu")
    peer.tokenizer.batch_encode_plus = peer.tokenizer.__call__  # its name in transformers 5
    wanted = peer.sequence_score(TEXTS, reduction=lambda x: x.sum(0).item(), PLL_metric="within_word_l2r")
    scores, sizes = log_likelihoods(*load_masked_lm(ours), TEXTS)
    assert scores / sizes == pytest.approx(np.array(wanted) / sizes, abs=1e-5)


def write_suite(path, n: int = 40) -> None:
    """Pairs that a bias for one word decides: in "liked" it is in the good sentence, in "planted" in the bad one."""
    nouns = ["alma", "ev", "kitab", "yol", "dağ", "çay", "külək", "yağış", "qış", "şəhər"]
    lines = ["good_sentence;bad_sentence;good_cue;phenomenon"]
    for i in range(n):
        noun, other = nouns[i % 10], nouns[(i // 10 + i + 1) % 10]
        lines.append(f"{noun} və {other}.;{noun} ya {other}.;və;liked")
        lines.append(f"{noun} ya {other}.;{noun} və {other}.;ya;planted")
    write_text(path, "\n".join(lines) + "\n")


def test_planted_failure_shows_and_shuffled_labels_give_chance(prepared, tmp_path):
    write_own(tmp_path / "model", prepared, {"və": 6.0, "ya": -6.0})
    write_suite(tmp_path / "suite.csv")
    words = ["-m", "training.minimal_pairs", f"checkpoint={tmp_path / 'model'}", f"pairs={tmp_path / 'suite.csv'}"]
    words += [f"hydra.run.dir={tmp_path / 'out'}", "device=cpu"]
    result = run_script(*words)
    assert result.returncode == 0, result.stderr
    report = read_json(tmp_path / "out" / "report.json")
    assert report["phenomena"]["liked"]["whole"]["accuracy"] == 1 and report["phenomena"]["planted"]["whole"]["accuracy"] == 0
    assert report["all"]["whole"]["accuracy"] == 0.5 and report["all"]["whole"]["pairs"] == 80
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "planted" in text and " və " in text and "<details><summary>liked" not in text
    # Labels swapped by a draw: chance, within the interval of 80 pairs.
    found = [row for _, row in read_jsonl(tmp_path / "out" / "pairs.jsonl") if row["phenomenon"] == "liked"] * 10
    draw = random.Random(0)
    swapped = [
        row | {"right": 1 - row["right"], "group": str(n)} if draw.random() < 0.5 else row | {"group": str(n)}
        for n, row in enumerate(found)
    ]
    part = summary_of(swapped)["all"]["whole"]
    assert part["low"] < 0.5 < part["high"] and 0 < part["high"] - part["low"] < 0.12
    # The same command computes nothing again; without its report it gives the same bytes.
    again = run_script(*words)
    assert "already complete" in again.stdout
    before = [(tmp_path / "out" / name).read_bytes() for name in ("report.json", "pairs.jsonl")]
    (tmp_path / "out" / "report.json").unlink()
    assert run_script(*words).returncode == 0
    assert before == [(tmp_path / "out" / name).read_bytes() for name in ("report.json", "pairs.jsonl")]


def test_equal_scores_are_half_and_matched_pairs_have_one_length():
    pairs = [
        {"good": "a b", "bad": "a c", "phenomenon": "p", "group": "1"},
        {"good": "a b", "bad": "a b c", "phenomenon": "p", "group": "2"},
        {"good": "a b", "bad": "a d", "phenomenon": "q", "group": "3"},
    ]
    found = judged(pairs, np.array([-1.0, -2.0, -3.0, -1.0, -1.0, -4.0]), np.array([2, 2, 2, 2, 3, 4]))
    assert [row["right"] for row in found] == [0.5, 0.0, 1.0] and [row["matched"] for row in found] == [True, False, False]
    summary = summary_of(found)
    assert summary["phenomena"]["p"]["matched"]["pairs"] == 1 and summary["phenomena"]["q"]["matched"]["accuracy"] is None
    assert summary["mean_of_phenomena"] == pytest.approx((0.25 + 1) / 2)
    assert summary["all"]["whole"]["accuracy"] == pytest.approx(0.5)


def test_pairs_of_one_group_count_together():
    """Forty pairs from two frames are not forty independent ones."""
    rows = [{"good": "a", "bad": "b", "phenomenon": "p", "right": float(i < 20), "matched": True} for i in range(40)]
    alone = summary_of([row | {"group": str(i)} for i, row in enumerate(rows)])["all"]["whole"]
    framed = summary_of([row | {"group": str(i % 20 // 10 + 2 * (i >= 20))} for i, row in enumerate(rows)])["all"]["whole"]
    assert framed["groups"] == 4 and framed["high"] - framed["low"] > 2 * (alone["high"] - alone["low"])
    assert summary_of([row | {"group": "1"} for row in rows])["all"]["whole"]["low"] is None
    # Over several phenomena each of these is one: all pairs of one right, all of the other wrong, says nothing.
    two = [row | {"group": str(i), "phenomenon": "p" if i < 20 else "q"} for i, row in enumerate(rows)]
    part = summary_of(two)["all"]["whole"]
    assert part["groups"] == 2 and part["low"] == 0 and part["high"] == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("good_sentence,bad_sentence\n", "no pairs"),
        ("good_sentence,bad_sentence\nA b.,A b.\n", "no pairs"),
        ("good,phenomenon\nA b.,x\n", "line 2: expected a sentence under good_sentence"),
        ("good_sentence,bad_sentence\nA b.,\n", "line 2"),
    ],
)
def test_bad_suites_are_named(content, said, tmp_path):
    write_text(tmp_path / "suite.csv", content)
    with pytest.raises(UserError, match=said):
        read_pairs([tmp_path / "suite.csv"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pairs=nothing/*.csv"], "no such file"),
        (["language=volapuk"], "no pack of this name"),
        (["language=kazakh"], "has no suite of pairs"),
        (["paris=x.csv"], "paris"),
        (["batch_tokens=3"], "at least 16"),
    ],
)
def test_what_is_not_there_is_named(words, said, prepared, tmp_path):
    write_own(tmp_path / "model", prepared)
    result = run_script(
        "-m", "training.minimal_pairs", f"checkpoint={tmp_path / 'model'}", f"hydra.run.dir={tmp_path / 'out'}", *words
    )
    assert result.returncode == 2 and said in result.stderr and result.stderr.count("\n") == 1, result.stderr


def test_a_text_too_long_is_named(prepared, tmp_path):
    write_own(tmp_path / "model", prepared)
    with pytest.raises(UserError, match="64 at most"):
        log_likelihoods(*load_masked_lm(tmp_path / "model"), ["kitab " * 70])


def test_turblimp_is_read_as_it_is(az_data):
    files = sorted((az_data / "more" / "tasks" / "turblimp_tr").glob("*.csv"))
    if not files:
        pytest.skip("TurBLiMP is not here")
    pairs, aside = read_pairs(files)
    assert len({pair["phenomenon"] for pair in pairs}) == 16 and len(pairs) + len(aside) >= 16 * 900
    assert all(pair["good"] != pair["bad"] for pair in pairs)
