"""Perturbed examples of every kind: tags stay with their words, answers with their letters, the rest is refused by name."""

import random

import pytest

from common.errors import UserError
from language.base import load_language
from language.perturbations import PERTURBATIONS, perturbations_of
from tasks.base import kind_of
from tasks.perturbed import changed_example, changes_of, check_change, perturbed_example

AZ = load_language("az")
CONTEXT = "Şuşa və Şəki şəhərləri gözəldir. Kür çayı 1918-ci ildə Şəkidən, İlisudan axırdı; (Gəncədə) BMT-nin binası."
WORDS = CONTEXT.split()


@pytest.mark.parametrize("name", changes_of("tagging", AZ))
@pytest.mark.parametrize("share", [0.3, 1.0])
def test_each_word_keeps_its_tag(name, share):
    tags = [f"B-{n}" for n in range(len(WORDS))]
    example = {"id": "1", "words": WORDS, "tags": tags}
    changed = perturbed_example(example, name, share, AZ)
    assert changed["tags"] == tags and len(changed["words"]) == len(WORDS)
    assert all(word and not word.isspace() and " " not in word for word in changed["words"])
    for old, new in zip(WORDS, changed["words"], strict=True):  # a word is changed into itself written otherwise, no other one
        same = AZ.fold_key(old)[:1] == AZ.fold_key(new)[:1]
        assert same or name in ("slips", "neighbour"), (old, new)
    alone = perturbed_example({"id": "1", "words": ["Şəki"], "tags": ["B-LOC"]}, name, share, AZ)
    assert len(alone["words"]) == 1


@pytest.mark.parametrize("name", changes_of("qa", AZ))
def test_an_answer_is_where_it_says_and_is_that_of_the_text(name):
    draw = random.Random(1)
    for seed in range(40):
        spans = [sorted(draw.sample(range(len(CONTEXT) + 1), 2)) for _ in range(3)]
        answers = [{"text": CONTEXT[a:b], "start": a} for a, b in spans if CONTEXT[a:b].strip()]
        answers.append({"text": "Naxçıvan", "start": -1})
        example = {"id": "1", "context": CONTEXT, "question": "Harada çay axır?", "answers": answers}
        new = perturbed_example(example, name, 0.7, AZ, seed)
        for before, after in zip(answers[:-1], new["answers"][:-1], strict=True):
            assert new["context"][after["start"] :].startswith(after["text"]) and after["text"]
            if name in ("diacritics", "capitals", "small"):
                assert AZ.fold_key(before["text"]) == AZ.fold_key(after["text"])
        assert new["answers"][-1]["start"] == -1
    assert perturbed_example({**example, "answers": []}, name, 1, AZ)["answers"] == []


def test_every_text_of_an_example_is_changed():
    example = {"id": "1", "question": "Çay?", "options": ["Şəki", "Kür"], "label": 1, "context": "Ağ", "group": "Ş"}
    changed = perturbed_example(example, "diacritics", 1, AZ)
    assert changed == {**example, "question": "Cay?", "options": ["Seki", "Kur"], "context": "Ag"}
    pair = {"id": "1", "text": "ə", "text_b": "ş", "label": "x"}
    assert perturbed_example(pair, "diacritics", 1, AZ) == {**pair, "text": "e", "text_b": "s"}
    assert changed_example(pair, lambda text, borders: [text]) == pair


@pytest.mark.parametrize(
    "kind", ["classification", "pair", "choice", "reading", "tagging", "pos", "qa", "similarity", "multilabel"]
)
def test_every_kind_has_changes(kind):
    found = changes_of(kind, AZ)
    assert "diacritics" in found and ("spaces" in found) == ("words" not in kind_of(kind).inputs)
    assert set(found) | {"spaces"} == set(perturbations_of(AZ)) == set(PERTURBATIONS)
    for name in found:
        check_change(name, kind, AZ)


def test_what_cannot_be_is_named():
    with pytest.raises(UserError, match="spaces joins words, each of which has a tag in tagging"):
        check_change("spaces", "tagging", AZ)
    with pytest.raises(UserError, match="script needs other_script"):
        check_change("script", "tagging", load_language("tr"))
