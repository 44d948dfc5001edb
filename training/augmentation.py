"""Training examples typed in other ways, other ones in each epoch: recipe.augment.

    python finetune.py checkpoint=FOLDER task=ner "recipe.augment={diacritics: 0.3, slips: {examples: 0.2, share: 0.1}}"

A number is the share of the examples of an epoch whose whole text is changed by that perturbation of
language/perturbations.py; {examples, share} changes only `share` of the letters or words of each. An example may be
changed by several. Dev and test are never changed, so that the choice of the epoch is made on clean text.

What is changed depends on the order seed, the epoch and the number of the example alone: a run that was interrupted inside
an epoch goes on with the same rows. Noise in training makes a model robust to noise of that kind and to little else
(Belinkov & Bisk 2018, arXiv 1711.02173, §5), so name what is expected in use.
"""

import random
from typing import Any

from data.features import encode
from language.perturbations import PERTURBATIONS
from tasks.encoding import Encoded
from tasks.load import Task
from tasks.perturbed import check_change, perturbed_example
from tokenization.tokenizer import Tokenizer
from training.runs import Data
from training.settings import Recipe, augmentation_of


def check_augment(recipe: Recipe, task: Task) -> None:
    """UserError if recipe.augment names a perturbation that the task's kind or language cannot have."""
    for name in recipe.augment or {}:
        check_change(name, task.kind, task.language, f"recipe.augment of {task.name}")


def augmented_examples(task: Task, augment: dict[str, Any], seed: int, epoch: int) -> dict[int, dict[str, Any]]:
    """{number: changed example} of the training examples that this epoch changes; those that a change leaves as they are
    are not in it."""
    found = {}
    for number, example in enumerate(task.train):
        draw, new = random.Random(f"{seed} {epoch} {number}"), example
        for name in PERTURBATIONS:  # in one order, whatever the order in the config
            if name in augment:
                examples, share = augmentation_of(augment[name])
                chosen, own = draw.random() < examples, draw.getrandbits(32)
                new = perturbed_example(new, name, share, task.language, own) if chosen else new
        if new != example:
            found[number] = new
    return found


def augmented_rows(data: Data, tokenizer: Tokenizer, augment: dict[str, Any], seed: int, epoch: int) -> Encoded:
    """The training rows of one epoch: those of `data`, with the changed examples' own in their place."""
    rows, task = data.splits["train"], data.task
    changed = augmented_examples(task, augment, seed, epoch)
    new = encode(list(changed.values()), task.kind, tokenizer, task.labels, data.max_length, data.overlap)
    mixed, place = Encoded(rows.kind), {number: at for at, number in enumerate(changed)}
    for number in range(len(rows)):
        source, at = (new, place[number]) if number in place else (rows, number)
        mixed.close(source.rows[source.first[at] : source.first[at + 1]], source.truncated[at])
        if source.offsets:
            mixed.offsets.append(source.offsets[at])
    return mixed
