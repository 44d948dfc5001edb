"""The settings of a task: types, units and bounds of conf/task/*.yaml."""

from dataclasses import dataclass
from typing import Any

from common.settings import named, number, several


@dataclass
class TaskSettings:
    """One task: its files, their columns and its scoring. Kinds and metrics are checked where they are defined."""

    name: str | None = None
    kind: str | None = None
    train: str | None = None
    dev: str | None = None
    test: str | None = None
    shares: list[float] | None = None  # of train, dev and test
    stratify: bool = False
    metric: str | None = None
    columns: dict[str, Any] = named()  # field: column
    labels: list[Any] | None = None
    score_range: list[float] | None = None  # lowest and highest
    positive: Any = None  # class of f1
    documents: Any = None  # glob, or list of globs
    max_examples: int | None = number(None, least=1)
    seed: int = number(0, least=0)
    language: str | None = None  # a file of language/
    language_only: bool = False
    no_answer_start: list[int] = several(-1)  # character offsets
    blind: str | None = None
    both_orders: bool = False
    valid_tags: bool = False
    next_sentence: bool = False
    cloze: str | None = None  # a sentence with {text} and [MASK]
    verbalisers: dict[str, Any] = named()  # class: word, or list of words
    max_length: int | None = number(None, least=8)  # tokens, special ones included
    window_overlap_tokens: int | None = number(None, least=0)
    recipe: dict[str, Any] = named()  # keys of recipe
