"""The settings of python -m builders.build: types, units and bounds of conf/build.yaml."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from common.errors import UserError
from common.settings import choice, named, number, section, several


@dataclass
class NextSentence:
    """Pairs of sentences from documents (builders/next_sentence.py)."""

    max_pairs: int = number(24000, least=6)
    negatives: dict[str, int] = named()  # construction: weight
    near_duplicates: float | None = number(0.7, least=0.5, most=1)  # share of equal signature values of two documents
    cue_bound: float = number(0.55, above=0.5, most=1)  # accuracy
    cue_pairs: int = number(1500, least=50)  # test pairs of a construction


@dataclass
class Topics:
    """Titles with a class each (builders/topics.py)."""

    floor: int = number(20, least=3)  # different titles of a class
    near_duplicates: float | None = number(0.7, least=0.5, most=1)  # share of equal signature values of two titles
    pattern: str | None = None  # regular expression


@dataclass
class MultipleChoice:
    """Questions with options from exam files (builders/multiple_choice.py)."""

    near_duplicates: float | None = number(0.7, least=0.5, most=1)  # share of equal signature values of two stems
    letters: str = "ABCDEFG"
    counted_from: int | None = number(None, least=0, most=1)
    unseen: str | None = None  # regular expression


@dataclass
class NerSilver:
    """Names from the links of a Wikipedia dump (builders/ner_silver.py)."""

    types: str | None = None  # table of titles and types
    categories: dict[str, Any] = named()  # type: beginnings of words
    min_words: int = number(4, least=1)
    max_words: int = number(60, least=1)
    max_sentences: int = number(20000, least=10)
    empty: float = number(0.1, least=0, below=1)  # share of sentences
    open_capitals: bool = False


@dataclass
class Translate:
    """A set in another language through a translator that the user names (builders/translate.py)."""

    task: choice("pair", "qa") = "pair"
    from_language: str | None = None  # a file of language/
    command: str | None = None
    model: str | None = None  # folder or name that transformers loads
    chunk: int = number(500, least=1)  # texts
    timeout_s: float = number(600, above=0)  # seconds
    batch: int = number(16, least=1)  # texts
    max_tokens: int = number(512, least=1)
    markers: list[str] = several("[", "]")
    keep: list[str] = several("translated", "exact", "inflected", "marked", "no answer", "checked")
    sheet: int = number(100, least=0)  # rows
    checked: str | None = None  # a sheet.csv that was filled in


@dataclass
class Builder:
    """python -m builders.build: conf/build.yaml."""

    kind: choice("next_sentence", "topics", "multiple_choice", "ner_silver", "translate") = MISSING
    name: str = ""
    language: str = MISSING  # a file of language/
    files: Any = None  # file, glob, or list of them
    out: str = ""
    seed: int = number(0, least=0)
    shares: list[float] = several(0.7, 0.1, 0.2)  # of train, dev and test
    columns: dict[str, Any] = named()  # field: column
    licence: str | None = None
    provenance: str | None = None
    overlap: str | None = None  # corpus folder or documents
    overlap_words: int = number(13, least=5)  # of a shared run
    baseline_rows: int = number(5000, least=10)  # of train
    samples: int = number(3, least=0)  # of each class
    next_sentence: NextSentence = section(NextSentence)
    topics: Topics = section(Topics)
    multiple_choice: MultipleChoice = section(MultipleChoice)
    ner_silver: NerSilver = section(NerSilver)
    translate: Translate = section(Translate)

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """Three shares add up to 1; the name is a folder below runs/."""
        shares = values.get("shares") or []
        if len(shares) != 3 or not all(0 < share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-9:
            raise UserError(f"shares={shares}: expected three numbers that add up to 1, e.g. [0.7, 0.1, 0.2].")
        if "name" in values and (not values["name"] or set(values["name"].split("/")) & {"", ".", ".."}):
            raise UserError(f"name={values['name']}: expected the name of a folder below runs/. Set out to write elsewhere.")
