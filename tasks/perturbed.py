"""Examples of any kind of task with their texts changed: labels stay with their words, answers with their letters.

A change is a function (text, borders) to the parts of the changed text between the borders, as
language.perturbations.perturbed_parts makes them. The words of a tagged sentence are the parts of the sentence, so that
each keeps its tag, and an answer is the part of its context between its own borders.
"""

from collections.abc import Callable, Sequence
from typing import Any

from common.errors import UserError
from language.base import Language
from language.perturbations import PERTURBATIONS, check_perturbation, perturbations_of, perturbed_parts
from tasks.base import kind_of

Change = Callable[[str, Sequence[int]], list[str]]

TEXTS = ("text", "text_b", "question", "context")  # fields with one text
LISTS = ("options",)  # fields with several


def changed_example(example: dict[str, Any], change: Change) -> dict[str, Any]:
    """The example with every text changed; gold answers are those of the changed texts."""

    def one(text: str) -> str:
        return "".join(change(text, ()))

    new = {**example, **{key: one(example[key]) for key in TEXTS if key in example}}
    new |= {key: [one(part) for part in example[key]] for key in LISTS if key in example}
    if "words" in example:
        new["words"] = _changed_words(example["words"], change)
    if "answers" in example:
        new |= _changed_answers(example, change)
    return new


def _changed_words(words: Sequence[str], change: Change) -> list[str]:
    """As many words, from the sentence as a whole: a change may depend on where a word stands."""
    borders, at = [], 0
    for word in words:
        borders += [at, at + len(word)]
        at += len(word) + 1
    parts = change(" ".join(words), borders[1:-1])
    return parts[::2] if len(words) > 1 else ["".join(parts)]


def _changed_answers(example: dict[str, Any], change: Change) -> dict[str, Any]:
    """The context and its answers; an answer without a place (start -1) is changed by itself."""
    context, answers = example["context"], example["answers"]
    placed = [(a["start"], a["start"] + len(a["text"])) for a in answers if a["start"] >= 0]
    borders = sorted({place for span in placed for place in span if 0 < place < len(context)})
    parts = change(context, borders)
    starts = {0: 0, len(context): sum(map(len, parts))}
    for border, part in zip(borders, parts, strict=False):
        starts[border] = starts[max(place for place in starts if place < border)] + len(part)
    whole, new = "".join(parts), []
    for answer in answers:
        if answer["start"] < 0:
            new.append({"text": "".join(change(answer["text"], ())), "start": -1})
        else:
            begin, end = starts[answer["start"]], starts[answer["start"] + len(answer["text"])]
            new.append({"text": whole[begin:end], "start": begin})
    return {"context": whole, "answers": new}


def check_change(name: str, kind: str, language: Language | None, key: str = "perturbations") -> None:
    """UserError for a perturbation that the kind of task or the language cannot have."""
    check_perturbation(name, language, key)
    own = kind_of(kind)
    if strange := [field for field in own.inputs if field not in (*TEXTS, *LISTS, "words")]:
        raise UserError(f"{key}: {name} changes {', '.join((*TEXTS, *LISTS, 'words'))}; {kind} has {strange[0]}. Leave it out.")
    if "words" in own.inputs and PERTURBATIONS[name].unit == "spaces":
        raise UserError(f"{key}: {name} joins words, each of which has a tag in {kind}. Leave it out.")


def changes_of(kind: str, language: Language) -> list[str]:
    """The perturbations that the kind and the language can have."""
    own = kind_of(kind)
    if any(field not in (*TEXTS, *LISTS, "words") for field in own.inputs):
        return []
    return [n for n in perturbations_of(language) if "words" not in own.inputs or PERTURBATIONS[n].unit != "spaces"]


def perturbed_example(example: dict[str, Any], name: str, share: float, language: Language, seed: int = 0) -> dict[str, Any]:
    """The example with `share` of the perturbation's units changed in each of its texts; see `check_change`."""
    return changed_example(example, lambda text, borders: perturbed_parts(text, name, share, language, seed, borders))
