"""Embeddings transferred to another vocabulary: equal strings keep their embedding, in every token convention."""

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers

from common.errors import UserError
from language.azerbaijani import LANGUAGE as AZ
from language.azerbaijani import lower
from model.convert.transplant import (
    METHODS,
    byte_letters,
    matches,
    parts_of,
    sparsemax,
    spelled,
    static_embeddings,
    transplant,
)
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.mlm import MaskedLM
from model.tiling import start_from
from tests.model.peers import BERT, TEXTS, write_tokenizer
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer, wordpiece_engine

OURS = {"do_lower_case": True, "normaliser": {"language": "azerbaijani"}, "kind": "wordpiece"}

LETTERS = "abcçdeəfgğhxıijklmnoöpqrsştuüvyz"


def own(*words: str) -> Tokenizer:
    """An uncased WordPiece of ours with these tokens and all letters."""
    tokens = [*BERT, *".,;!", *words, *LETTERS, *("##" + letter for letter in LETTERS)]
    return Tokenizer("wordpiece", wordpiece_engine(tokens, AZ, lowercase=True), OURS)


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, Tokenizer]:
    """Tokenizers with ## (cased), with ▁ and with Ġ."""
    folder = tmp_path_factory.mktemp("tokenizers")
    for family in ("mbert", "xlm-roberta", "modernbert", "mmbert"):
        write_tokenizer(folder / family, family)
    return {family: load_tokenizer(folder / family) for family in ("mbert", "xlm-roberta", "modernbert", "mmbert")}


def test_byte_letters_equal_the_library_s():
    assert set(byte_letters()) == set(pre_tokenizers.ByteLevel.alphabet())
    assert sorted(byte_letters().values()) == list(range(256))
    assert byte_letters()["Ġ"] == 32


def test_tokens_spell_what_they_cover(others):
    """Each ordinary token spells the characters of its offsets; no word-initial token occurs inside a word."""
    for family, tokenizer in others.items():
        table = spelled(tokenizer)
        checked = 0
        for text in TEXTS:
            encoding = tokenizer.encode_with_offsets([text])[0]
            for number, (begin, end) in zip(encoding.ids.tolist(), encoding.offsets.tolist(), strict=True):
                if table[number] is None or number == tokenizer.unk_id:
                    continue
                spelling, begins = table[number]
                assert spelling == text[begin:end].strip() or spelling == " ", (family, tokenizer.tokens[number])
                inside = begin > 0 and text[begin - 1].isalnum() and text[begin].isalnum()
                assert not (begins and inside and spelling[0].isalnum()), (family, tokenizer.tokens[number])
                checked += 1
        assert checked > 5, family


@pytest.mark.parametrize("family", ["mbert", "xlm-roberta", "modernbert", "mmbert"])
def test_overlap_is_exact_and_specials_match_by_role(family, others):
    old, new = others[family], own("bakı", "şəhəridir", "yağış", "##dır", "qqqzz")
    words, bias = torch.randn(old.vocab_size + 3, 8), torch.randn(old.vocab_size + 3)
    fresh, fresh_bias, report = transplant(words, bias, old, new, "random", lambda: None)
    assert fresh.shape == (new.vocab_size, 8) and torch.isfinite(fresh).all()
    for role in ("pad", "unk", "cls", "sep", "mask"):
        assert torch.equal(fresh[getattr(new, f"{role}_id")], words[getattr(old, f"{role}_id")])
    table, found = spelled(old), matches(old, new)
    assert report.overlap == len(found) > 20
    assert report.special + report.overlap + report.method + report.random == new.vocab_size
    mine = spelled(new)
    for number, ids in found.items():  # the same string, or (uncased) its lower case
        assert {(lower(table[other][0]), table[other][1]) for other in ids} == {mine[number]}
        torch.testing.assert_close(fresh[number], words[ids].mean(0))
        torch.testing.assert_close(fresh_bias[number], bias[ids].mean())


def test_a_vocabulary_transferred_to_itself_is_unchanged(others):
    for tokenizer in others.values():
        words, bias = torch.randn(tokenizer.vocab_size, 4), torch.randn(tokenizer.vocab_size)
        fresh, fresh_bias, _ = transplant(words, bias, tokenizer, tokenizer, "random", lambda: None)
        table = spelled(tokenizer)
        alone = [n for n, token in enumerate(table) if token is not None and table.count(token) == 1]
        assert len(alone) > 100
        assert torch.equal(fresh[alone], words[alone]) and torch.equal(fresh_bias[alone], bias[alone])


def test_mean_of_the_old_tokenizer_s_tokens(others):
    old, new = others["xlm-roberta"], own("paytaxtıkitab", "##şəhərqış")
    words, bias = torch.randn(old.vocab_size, 8), torch.randn(old.vocab_size)
    fresh, _, report = transplant(words, bias, old, new, "mean", lambda: None)
    ids = old.encode_batch(["paytaxtıkitab"])[0]
    number = new.tokens.index("paytaxtıkitab")
    torch.testing.assert_close(fresh[number], words[ids.astype(np.int64)].mean(0))
    inside = parts_of([("şəhərqış", False)], old)[0]
    assert "".join(old.tokens[n] for n in inside) == "şəhərqış" and not any(old.tokens[n].startswith("▁") for n in inside)
    torch.testing.assert_close(fresh[new.tokens.index("##şəhərqış")], words[inside].mean(0))
    assert report.method >= 2


def test_focus_uses_the_most_similar_overlapping_tokens(others):
    old, new = others["mbert"], own("bakı", "dağlar", "qqqzz")
    found = sorted(matches(old, new))
    vectors = torch.zeros(new.vocab_size, 200)
    vectors[found, torch.arange(len(found))] = 1.0  # overlapping tokens are orthogonal
    number = new.tokens.index("qqqzz")
    vectors[number] = vectors[found[5]]
    words, bias = torch.randn(old.vocab_size, 8), torch.randn(old.vocab_size)
    fresh, fresh_bias, report = transplant(words, bias, old, new, "focus", lambda: vectors)
    torch.testing.assert_close(fresh[number], fresh[found[5]])
    torch.testing.assert_close(fresh_bias[number], fresh_bias[found[5]])
    vectors[number] = torch.nn.functional.normalize(vectors[found[5]] + vectors[found[6]], dim=0)
    half, _, _ = transplant(words, bias, old, new, "focus", lambda: vectors)
    torch.testing.assert_close(half[number], (half[found[5]] + half[found[6]]) / 2)
    assert report.method == 1  # tokens that the text never has keep their random embedding and are counted
    assert report.random == new.vocab_size - 1 - report.overlap - report.special


def test_sparsemax_is_the_nearest_point_of_the_simplex():
    scores = torch.randn(20, 9, generator=torch.Generator().manual_seed(0))
    weights = sparsemax(scores)
    torch.testing.assert_close(weights.sum(1), torch.ones(20))
    assert (weights >= 0).all() and (weights == 0).any()
    best = (weights - scores).square().sum(1)
    for _ in range(200):  # no other point of the simplex is nearer
        other = torch.distributions.Dirichlet(torch.full((9,), 0.3)).sample((20,))
        assert ((other - scores).square().sum(1) >= best - 1e-5).all()


def test_static_embeddings_are_similar_for_tokens_in_the_same_contexts():
    random = np.random.default_rng(0)
    documents = []  # 2 and 3 between 4 and 5; 6 and 7 between 8 and 9; 1 never
    for _ in range(300):
        documents.append(np.array([4, random.choice([2, 3]), 5], dtype=np.uint16))
        documents.append(np.array([8, random.choice([6, 7]), 9], dtype=np.uint16))
    vectors = static_embeddings(documents, 10, rank=4)
    assert not vectors[1].any()
    likeness = vectors @ vectors.T
    assert likeness[2, 3] > 0.9 and likeness[6, 7] > 0.9 and abs(likeness[2, 6]) < 0.3
    assert torch.equal(vectors, static_embeddings(documents, 10, rank=4))  # deterministic: a resumed run has the same start


def test_start_from_transfers_the_vocabulary_and_keeps_the_rest(others, tmp_path):
    old, new = others["mbert"], own("bakı")
    shape = {"hidden_size": 16, "layers": 2, "heads": 2, "intermediate_size": 24, "max_length": 32}
    torch.manual_seed(0)
    source = MaskedLM(EncoderConfig(vocab_size=old.vocab_size, **shape))
    write_checkpoint(tmp_path / "source", source.state_dict(), source.encoder.config, old)
    with pytest.raises(UserError, match=r"tokenizer=imported.*transplant=focus"):
        start_from(MaskedLM(EncoderConfig(vocab_size=new.vocab_size, **shape)), str(tmp_path / "source"), new)
    with pytest.raises(UserError, match="choose one of random"):
        start_from(MaskedLM(EncoderConfig(vocab_size=new.vocab_size, **shape)), str(tmp_path / "source"), new, "wechsel", None)
    for method in METHODS:
        model = MaskedLM(EncoderConfig(vocab_size=new.vocab_size, **shape))
        said = start_from(model, str(tmp_path / "source"), new, method, lambda: torch.eye(new.vocab_size))
        assert said.startswith(f"transplant={method}: ")
        for name, value in model.state_dict().items():
            if name not in ("encoder.token_embeddings.weight", "head.bias"):
                assert torch.equal(value, source.state_dict()[name]), name
        same = torch.equal(
            model.encoder.token_embeddings.weight[new.tokens.index("ə")],
            source.encoder.token_embeddings.weight[old.tokens.index("ə")],
        )
        assert same == (method != "none")
