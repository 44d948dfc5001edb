"""The settings of a corpus: types, units and bounds of conf/corpus/*.yaml."""

from dataclasses import dataclass
from typing import Any

from common.errors import UserError
from common.settings import choice, named, number, section, several


@dataclass
class Mixture:
    """How often each source is read in an epoch (corpus/mixture.py)."""

    temperature: float = number(1.0, least=0)  # exponent on source sizes
    max_repeats: float | None = number(None, above=0)  # passes over one source in an epoch, at most


@dataclass
class Engine:
    """Where the units of work run (corpus/stages/engine.py)."""

    name: choice("processes", "dask") = "processes"
    workers: int | None = number(None, least=1, most=1024)  # processes; null: one a core
    address: str | None = None  # of a Dask scheduler

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """Only Dask has an address."""
        if values.get("address") and values.get("name") != "dask":
            raise UserError(f"{where}.address: only the dask engine has one. Set {where}.name=dask.")


@dataclass
class Corpus:
    """One corpus: the place of its text and the rules that decide what is kept."""

    language: str | None = None  # a file of language/; conf/ composes the run's
    path: str | None = None  # folder, file, glob or hub://owner/name
    sources: list[dict[str, Any]] | None = None  # {name, path, weight, licence, ...}
    weights: dict[str, float] = named()  # by source name
    licence: str | None = None
    max_bad_fraction: float = number(0.01, least=0, most=1)  # share of unreadable records of a source
    transliterate: bool = True  # convert the language's other script to its own
    personal_data: bool = True  # replaced by placeholders
    second_opinion: bool = False  # label by py3langid, recorded only
    min_characters: int = number(10, least=0)
    language_check: bool = True
    max_other_language: float = number(0.5, least=0, most=1)  # share of a source's documents
    language_score: float | None = number(None, least=0, most=1)  # probability
    quality: dict[str, Any] = named()  # preset, and rules min_SIGNAL, max_SIGNAL
    line_duplicates: int | None = number(10, least=2)  # documents of a site that hold a line
    near_duplicates: float | None = number(0.7, least=0.5, most=1)  # share of equal signature values
    decontaminate: list[str] = several()  # task files or folders
    heldout_fraction: float = number(0.01, least=0, most=0.5)  # share of each source's documents
    heldout_max: int = number(500, least=0)  # documents of one source
    mixture: Mixture = section(Mixture)
    keep_work: bool = True
    engine: Engine = section(Engine)
