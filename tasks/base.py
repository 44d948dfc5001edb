"""The interface of a kind of task: each kind is one file of tasks/, which answers all that the other rooms ask about it.

`kind_of("tagging")` is the object KIND of tasks/tagging.py; a dotted name (my_package.my_kind) is a module of your own.
docs/tasks.md shows how to add one.
"""

import copy
import importlib
import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import ROOT
from language.base import Language, load_language
from tasks.encoding import Encoded
from tasks.settings import TaskSettings
from tokenization.tokenizer import Tokenizer

RIGHT = "correct"  # the outcome of a prediction without a mistake


class Kind(ABC):
    """A kind of task: its fields and methods, with defaults where most kinds agree.

    An example is a dictionary with "id", the fields named in `inputs` and the gold answer. A record is one line of a
    predictions file: {"id", "gold", "pred", "scores", ...}.
    """

    name: str  # the name in the config and of its file
    language: Language = load_language("generic")  # of the texts; `kind_of` sets the task's own

    # ---------------------------------------------------------------- from files to examples (records, load, splits)

    # Candidate columns of each field, in order of preference; config `task.columns.<field>=NAME` overrides the search. "?"
    # marks an optional field.
    fields: Mapping[str, tuple[str, ...]]
    inputs: tuple[str, ...] = ("text",)  # fields that a model needs for a prediction
    names_from: str | None = None  # field with classes or tags, whose names may be in the metadata of parquet and arrow files
    conll: bool = False  # whether .conll files are read: first column the word, last the tag
    classes: bool = False  # each example has exactly one class: splits can be stratified and confusions counted
    blind: str | None = None  # field that the control task.blind may hide
    options: tuple[str, ...] = ()  # those of both_orders, valid_tags, next_sentence that apply to this kind
    from_documents: bool = False  # whether task.documents can build its examples (next sentence)
    group_by_text: bool = False  # whether examples of one text (questions about a context) are one group everywhere
    max_length: int = 128  # default of task.max_length, in tokens
    few_seeds: bool = False  # whether seeds=auto takes the small number even for small tasks

    def rearrange(self, rows: list[tuple[Path, int, dict]], keys: list[str]) -> tuple[list[tuple[Path, int, dict]], list[str]]:
        """Convert rows (file, line, cells) and column names from other layouts of this kind; others are returned unchanged."""
        return rows, keys

    def find_more(
        self, found: dict[str, Any], keys: list[str], rows: Sequence[tuple[Path, int, dict]]
    ) -> tuple[str, list[str]] | None:
        """Add to `found` {field: column or columns} what is not found by name alone, and what only a look at all rows can
        tell of how they are written; (field, columns looked for) if lacking."""
        return None

    @abstractmethod
    def read(
        self,
        row: dict[str, Any],
        found: dict[str, Any],
        labels: list[str] | None,
        notes: Counter[str],
        options: Mapping[str, Any],
    ) -> dict[str, Any]:
        """The example of one row, without its id. Raises SkipRecord; `notes` counts repairs and doubts.

        `found`: {field: column}. `labels`: the known classes or tags in order. `options`: the task's config.
        """

    def misread(self, rows: Sequence[tuple[Path, int, dict]], found: Mapping[str, Any]) -> str | None:
        """Why the rows of a whole file would be misinterpreted, and what to do; None if they would not."""
        return None

    def unusable(
        self, examples: Sequence[dict[str, Any]], labels: list[str] | None, skipped: Sequence[dict[str, Any]]
    ) -> str | None:
        """Why the examples of a whole file cannot be used, and what to do; None if they can."""
        return None

    no_gold: str | None = None  # what `told` says of an example without a gold answer, or with one that says nothing

    def told(self, example: Mapping[str, Any]) -> str:
        """The gold answer as a message names it, alike for all examples of a set that is published without them."""
        return ""

    def names(self, labels: Sequence[str]) -> list[str]:
        """The classes or tags as examples have them, if the config or a file spells them differently."""
        return list(labels)

    def texts(self, example: Mapping[str, Any]) -> list[str]:
        """The texts of an example, for script counts and the leakage check."""
        texts = [example[key] for key in ("text", "text_b", "question", "context") if key in example]
        return [*texts, *example.get("options", []), *example.get("words", [])]

    def lines(self, example: Mapping[str, Any]) -> list[str]:
        """The texts of an example as running text, in the form in which they are searched in the corpus."""
        return self.texts(example)

    def group(self, example: Mapping[str, Any]) -> str | None:
        """The group named in the file, if it is a unit of leakage."""
        return str(example["group"]) if example.get("group") else None

    def leakage_text(self, example: Mapping[str, Any]) -> str:
        """The text that must not be in two splits, if no group is named."""
        return example["text"]

    def labels_in(self, example: Mapping[str, Any]) -> list[str]:
        """The classes or tags in an example's gold answer; [] for kinds without names."""
        return []

    def in_order(self, names: set[str]) -> list[str]:
        """Class or tag names in a fixed order: numbers by value, names alphabetically."""
        return sorted(names, key=int) if all(re.fullmatch(r"-?\d+", name) for name in names) else sorted(names)

    def untrainable(self, example: Mapping[str, Any]) -> str | None:
        """Why an example cannot be used for training (dev and test keep it); None if it can."""
        return None

    def decoding(self, task: Any, settings: TaskSettings) -> dict[str, Any]:
        """Decoding settings that depend on the splits: stored in task.json and passed to `decode` as `how`.

        `task` is a tasks.load.Task with its splits and labels, whose examples may be extended; `settings` are its keys. Raises
        UserError for a key that does not fit.
        """
        return {}

    # ---------------------------------------------------------------- from examples to rows and back

    head: str = "Classes"  # class of model/heads.py, or a dotted name of your own
    # Scope of the softmax: "rows" of an example (options), "tokens" of a row (spans), None: the outputs of a position.
    compete: str | None = None

    @abstractmethod
    def encode(
        self,
        examples: Sequence[dict[str, Any]],
        tokenizer: Tokenizer,
        labels: Sequence[str],
        max_length: int,
        overlap: int | None,
        encoded: Encoded,
    ) -> None:
        """Add the rows of every example to `encoded`. Gold fields may be missing. `overlap`: of windows, in tokens."""

    @abstractmethod
    def decode(
        self,
        example: dict[str, Any],
        scores: Sequence[np.ndarray],
        labels: Sequence[str] | None,
        how: Mapping[str, Any],
        rows: "Rows",
        other: Sequence[np.ndarray] | None = None,
    ) -> dict[str, Any]:
        """{"pred", "scores", fields for error lists} from the raw scores [positions, outputs] of an example's rows.

        `other`: scores of the texts in the other order, if how["both_orders"] is set.
        """

    def choose(self, scores: Sequence[np.ndarray], examples: Sequence[dict], task: Any) -> dict[str, Any]:
        """The part of `how` that is chosen on dev from its raw scores (one row each); {} if nothing is."""
        return {}

    def raw(self, record: Mapping[str, Any], labels: Sequence[str] | None, how: Mapping[str, Any]) -> np.ndarray | None:
        """The scores [positions, outputs] in a record, of a model or a baseline, as `decode` reads them; None without any.

        With them a model's scores can be mixed with a baseline's (evaluation/stacking.py).
        """
        return None

    def gold(self, example: Mapping[str, Any]) -> Any:
        """The gold answer as stored in a record."""
        return example["label"]

    # ---------------------------------------------------------------- python -m model.predict

    line: str | None = None  # what a line of a .txt file must contain; None: such files are not read

    def from_line(self, text: str) -> dict[str, Any] | None:
        """An example from one line of a .txt file; None if it does not fit."""
        return None

    @abstractmethod
    def answer(self, example: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a prediction that a user sees, without its id."""

    # ---------------------------------------------------------------- scores

    metrics: tuple[str, ...]  # allowed values of task.metric; the first is the default
    plain: tuple[str, ...] = ()  # metrics that are plain numbers, not shares shown as percent
    calibrated: bool = False  # whether scores are a distribution over the classes or options of an example
    resampled_groups: bool = True  # whether examples of one "group" were sampled together

    @abstractmethod
    def malformed(self, row: Mapping[str, Any]) -> str | None:
        """What is wrong with the shape of a record's gold and pred; None if nothing is."""

    @abstractmethod
    def score(
        self, rows: Sequence[dict], labels: Sequence[str] | None, metric: str, positive: str | None, full: bool
    ) -> tuple[dict[str, float], np.ndarray, str]:
        """({metric: value}, numbers per example, average): `tasks.metrics.score_of(numbers, average)` equals metrics[metric].

        `full=False` omits slow metrics other than the headline. Raises UserError for a label not in `labels`.
        """

    @abstractmethod
    def floor(self, rows: Sequence[dict], labels: Sequence[str] | None, metric: str, positive: str | None) -> float:
        """The score of the best constant answer on the gold answers of these rows."""

    def compare_with_dev(self, test: Sequence[dict], dev: Sequence[dict], metric: str) -> dict[str, float]:
        """Metrics of test records that also need dev records; {} for kinds without such metrics."""
        return {}

    # ---------------------------------------------------------------- baselines

    baselines: tuple[str, ...] = ("majority", "tfidf")

    @abstractmethod
    def baseline(
        self,
        name: str,
        train: Sequence[dict],
        examples: Sequence[dict],
        labels: Sequence[str] | None,
        positive: str | None,
    ) -> list[dict[str, Any]]:
        """{"pred", "scores", ...} of each example by one of `baselines`, trained on `train`."""

    # ---------------------------------------------------------------- the report

    # Whether rows repeat a text (a question before each option), so that tokens per word are meaningless.
    text_repeats: bool = False
    frequency: str | None = None  # word by which training texts are searched: "median" word of the item, "rarest", "entities"
    frequency_of: str = "training texts with its median word"  # description of it in the report

    confusions: bool = False  # whether each pair of labels is a kind of mistake: rare ones are then counted together

    def sought(self, example: Mapping[str, Any]) -> list[str]:
        """The texts whose words `frequency` looks up: the whole item as one, or each gold answer."""
        return [" ".join(self.texts(example))]

    def outcomes(self, row: Mapping[str, Any], text: str | None = None) -> list[str]:
        """The outcomes of one prediction: RIGHT or names of mistakes. `text`: all text of the item, if known."""
        return [RIGHT] if not self.is_wrong(row) else [f"{row['gold']} → {row['pred']}"]

    def is_wrong(self, row: Mapping[str, Any]) -> bool:
        """Whether the prediction has any mistake."""
        return row["gold"] != row["pred"]

    def shown(self, row: Mapping[str, Any]) -> tuple[list[tuple[str, bool]], str, str]:
        """(parts of the text, each with whether it is marked; gold; predicted) for the error list."""
        return [(str(row.get("text") or row.get("question") or ""), False)], str(row["gold"]), str(row["pred"])

    def class_slices(
        self, runs: Sequence[Sequence[dict]], labels: Sequence[str] | None
    ) -> list[tuple[str, str, Sequence[str], list[np.ndarray]]]:
        """(criterion, metric, names, counts [n, 3, names] of each run): slices that are not sets of examples."""
        return []

    def slice_numbers(
        self, runs: Sequence[Sequence[dict]], numbers: Sequence[np.ndarray], metric: str, average: str
    ) -> tuple[list[np.ndarray], str, str]:
        """(numbers per example of each run, average, metric) for scoring a set of examples; by default the headline's."""
        return list(numbers), average, metric

    def divisions(self, rows: Sequence[dict]) -> list[tuple[str, list[str]]]:
        """(criterion, slice of each example), from gold and text alone; "" for no slice."""
        return []

    # ---------------------------------------------------------------- transformers

    transformers: str | None = None  # suffix of the AutoModel class; None: there is none
    problem_type: str | None = None  # of its config.json
    pipeline: str = "text-classification"  # on the hub
    imported: Mapping[str, Any] = {}  # `how` scores of an imported fine-tuned model are read


class Rows:
    """The rows of one example in an `Encoded`, as far as decode needs them."""

    def __init__(self, encoded: Encoded, number: int) -> None:
        self.rows = encoded.rows[encoded.first[number] : encoded.first[number + 1]]
        self.offsets = encoded.offsets[number] if encoded.offsets else None


def kind_of(name: str | Kind, language: Language | None = None) -> Kind:
    """The kind of this name: KIND of tasks/<name>.py, or of the module with this dotted name. Raises UserError for others.

    Without a language its scores use Unicode's lower case. A Kind is returned as it is.
    """
    return name if isinstance(name, Kind) else _kind_of(name, language)


@lru_cache
def _kind_of(name: str, language: Language | None) -> Kind:
    if name not in known_kinds() and "." not in str(name):
        known = ", ".join(known_kinds())
        raise UserError(f"task.kind={name}: expected one of {known}, or a module of yours. Or choose a task: task=topic.")
    module = name if "." in name else f"tasks.{name}"
    try:
        kind = importlib.import_module(module).KIND
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"task.kind={name}: {module} cannot be used ({error}). See docs/tasks.md.") from None
    if language is None:
        return kind
    own = copy.copy(kind)
    own.language = language
    return own


@lru_cache
def known_kinds() -> tuple[str, ...]:
    """The names of the kinds in tasks/: the files that define KIND."""
    files = sorted((ROOT / "tasks").glob("*.py"))
    return tuple(file.stem for file in files if "\nKIND = " in file.read_text(encoding="utf-8"))


def fold(text: str) -> str:
    """A text in the form compared for leakage: only words, without case."""
    return " ".join(re.findall(r"\w+", text.casefold())) or text


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Log-probabilities in fp64 over the last axis."""
    scores = scores.astype(np.float64)
    return scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)


def rounded(values: np.ndarray) -> list[float]:
    """Numbers as written to a predictions file, with six decimals."""
    return [round(float(value), 6) for value in values]


def joined(example: Mapping[str, Any]) -> str:
    """The text or texts of an example as one line."""
    return " ⁄ ".join(example[key] for key in ("text", "text_b") if example.get(key))
