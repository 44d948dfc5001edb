"""A task of the settings to train, dev and test examples, split by group where the files do not split them."""

import glob
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import ROOT, digest_of, read_json
from common.hub import HUB
from common.task_files import FORMATS, format_of
from corpus.reading.hub_files import hub_folder
from language.base import Language, load_language
from tasks.base import Kind, kind_of, known_kinds
from tasks.files import files_of, left_out
from tasks.records import load_task_file, reasons_of
from tasks.settings import TaskSettings
from tasks.splits import group_name, leakage_group, split_by_group
from tokenization.tokenizer import MASK

SPLITS = ("train", "dev", "test")
SHARES = (0.7, 0.1, 0.2)  # of train, dev and test for an unsplit file
NO_SPLIT = "their names indicate no split"
# Keys of a task that apply only to some kinds, and why they do not apply to others.
MISFITS = {
    "both_orders": "has no two texts",
    "valid_tags": "has no tags",
    "next_sentence": "does not ask what follows",
}


@dataclass
class Task:
    """Examples ready for fine-tuning, with a record of how they were made."""

    name: str
    kind: str
    metric: str  # the headline, one of the kind's metrics
    labels: list[str] | None  # class or tag names in the order of the head's outputs; None for kinds without
    positive: str | None  # the class of binary F1; None unless there are exactly two
    decoding: dict[str, Any] = field(default_factory=dict)  # how scores are read, see Kind.decoding
    language: Language | None = None  # of the texts: determines their script and what `language_only` keeps
    # Pair, choice: whether one text follows the other, which BERT's next-sentence head was trained to predict.
    next_sentence: bool = False
    cloze: str | None = None  # the sentence whose [MASK] a class' word fills
    verbalisers: dict[str, list[str]] = field(default_factory=dict)  # the words of each class
    train: list[dict[str, Any]] = field(default_factory=list)
    dev: list[dict[str, Any]] = field(default_factory=list)
    test: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)  # {"split", "file", "line", "id", "reason"}
    noted: list[dict[str, Any]] = field(default_factory=list)  # the same for examples that are used: repaired or doubtful
    notes: list[str] = field(default_factory=list)  # messages for the log: repairs, splits, leakage

    @property
    def own(self) -> Kind:
        """Its kind, in the language of its texts."""
        return kind_of(self.kind, self.language)

    @property
    def digest(self) -> str:
        """SHA-256 of all examples, labels and decoding settings: what a run of this task depends on."""
        decoding = [name for name in ("both_orders", "valid_tags") if self.decoding.get(name)]
        return digest_of([self.kind, self.labels, self.train, self.dev, self.test, *decoding])


def load_task(settings: TaskSettings) -> Task:
    """Read the files of a task and split what is not split.

    Files are searched in the working folder, then in the checkout. A folder means the files in it that belong to the split;
    dev and test come from the folder of train too, unless they are given.

    - train only: `shares` (70 / 10 / 20) by hash of group. - no dev: 10 % of train. - no test: dev becomes test and dev is
    split off train. Rows of one group (same text, context or question) are never in two splits made here.

    Raises UserError for a missing key or file, an unknown metric, and a split left without examples.
    """
    kind, name = settings.kind, settings.name or "task"
    own = kind_of(kind)
    metric = settings.metric or own.metrics[0]
    if metric not in own.metrics:
        raise UserError(f"task.metric={metric}: {kind} has {', '.join(own.metrics)}. Choose one of these.")
    labels = [str(label) for label in settings.labels] if settings.labels else None
    language = load_language(settings.language) if settings.language else None
    task = Task(name=name, kind=kind, metric=metric, labels=labels, positive=None, language=language)
    if settings.documents:
        parts = {"train": _built(settings, kind)}
    else:
        files = _files(settings, task)
        parts = {split: _loaded(task, settings, path, split) for split, path in files.items()}
        _refuse_hidden(task, parts, files)
    if "train" not in parts:
        raise UserError("task.train: no file given. Set task.train=FILE (task.dev and task.test may be left out).")
    _fill_splits(task, parts, settings)
    _drop_untrainable(task, own)
    if own.group_by_text:
        for example in [*task.train, *task.dev, *task.test]:  # the questions about one text are one group everywhere
            example.setdefault("group", group_name(leakage_group(example, kind)))
    _settle_labels(task, own, settings.positive)
    _settle_decoding(task, own, settings)
    _settle_cloze(task, own, settings)
    _note_leaks(task)
    _hide(task, settings.blind)
    for split in SPLITS:
        if not getattr(task, split):
            files = getattr(settings, split) or settings.train or settings.documents
            lost = reasons_of([skip for skip in task.skipped if skip["split"] in (split, "train")])
            counts = f"{len(task.train)}/{len(task.dev)}/{len(task.test)} in train/dev/test"
            raise UserError(
                f"{files}: the {split} split has no example ({counts}{f'; set aside: {lost}' if lost else ''}). "
                f"Give more examples, or a file of its own with task.{split}=FILE."
            )
    return task


def find_file(path: str, language: Language | None = None) -> Path:
    """A path as given, or else inside the checkout; of a hub:// address the folder of its downloaded files.

    {code}, {code_script} and the like are those of `language` (Language.filled). Raises UserError if there is no such file, no
    language is known for an address that needs its code, or the hub does not give the data set.
    """
    if "{" in path:
        if language is None:
            raise UserError(f"{path}: whose code? Set task.language=NAME, a file of language/.")
        path = language.filled(path)
    if path.startswith(HUB):
        return hub_folder(path, lambda name: format_of(Path(name)) in FORMATS)
    for place in (Path(path), ROOT / path):
        if place.exists():
            return place
    raise UserError(f"{path}: no such file (looked in {Path.cwd()} and {ROOT}). Check task.train/dev/test.")


def _files(settings: TaskSettings, task: Task) -> dict[str, Path]:
    """The file or folder of each split that has one; a folder given for train is searched for dev and test too."""
    given = {"train": settings.train, "dev": settings.dev, "test": settings.test}
    paths = {split: find_file(path, task.language) for split, path in given.items() if path}
    for split, path in paths.items():
        if (path / ".source.json").exists():
            source = read_json(path / ".source.json")
            task.notes.append(f"{split}: {source['address']} at commit {source['commit'][:12]}")
    whole = paths.get("train")
    for split in ("dev", "test"):
        if split not in paths and whole and whole.is_dir() and files_of(whole, split):
            paths[split] = whole
    if list(paths) == ["train", "test"] and whole and whole.is_dir() and not files_of(whole, "train"):
        (paths["train"],) = files_of(paths.pop("test"), "test")
        task.notes.append(f"{paths['train'].name}: only a test part is published, which is split here")
    return paths


def _loaded(task: Task, settings: TaskSettings, path: Path, split: str) -> list[dict[str, Any]]:
    loaded = load_task_file(path, task.kind, replace(settings, labels=task.labels), split)
    task.labels = task.labels or loaded.labels
    if split == "train" and (others := left_out(path)):
        names = ", ".join(str(file.relative_to(path)) for file in others[:10])
        task.notes.append(f"{path.name}: {len(others)} files are not read, since {NO_SPLIT}: {names}")
    task.skipped += [{"split": split, **skip} for skip in loaded.skipped]
    task.noted += [{"split": split, **note} for note in loaded.noted]
    task.notes += [f"{path.name}: {what}: {count}" for what, count in sorted(loaded.notes.items())]
    for reason, count in sorted(Counter(skip["reason"] for skip in loaded.skipped).items()):
        task.notes.append(f"{path.name}: skipped {count}: {reason}")
    return loaded.examples


def _refuse_hidden(task: Task, parts: Mapping[str, list[dict[str, Any]]], files: Mapping[str, Path]) -> None:
    """UserError for a dev or test set that is published without its labels: one value throughout that train never has (-1),
    or no answer, label or entity in any example."""
    kind = kind_of(task.kind)
    told = {split: {kind.told(example) for example in examples} for split, examples in parts.items()}
    for split in ("dev", "test"):
        if len(parts.get(split, ())) > 1 and len(told[split]) == 1 and told.get("train"):
            (value,) = told[split]
            others = told["train"] - {value}
            if value and others and (value == kind.no_gold or value not in told["train"]):
                own = files_of(files[split], split)[0] if files[split].is_dir() else files[split]
                unread = [note for note in task.notes if NO_SPLIT in note]  # one of them may be the file that is meant
                raise UserError(
                    f"{own}: the {split} set has {value} alone, so it has no labels. Set task.{split} "
                    "to a file that has them, or leave it out and name the train file instead of a folder."
                    + "".join(f" {note[0].upper()}{note[1:]}." for note in unread)
                )


def _built(settings: TaskSettings, kind: str) -> list[dict[str, Any]]:
    """Next-sentence examples built from `task.documents` (a glob, a file or a list of them)."""
    from tasks.next_sentence import build_next_sentence, read_documents

    if not kind_of(kind).from_documents:
        raise UserError(f"task.documents: next-sentence examples are pairs, task.kind is {kind}. Set task.kind=pair.")
    wanted = settings.documents
    patterns = [wanted] if isinstance(wanted, str) else list(wanted)
    files = [hit for pattern in patterns for hit in sorted(glob.glob(pattern) or glob.glob(str(ROOT / pattern)))]
    if not files:
        raise UserError(f"task.documents={wanted}: no file there. Expected .jsonl files with one document a line.")
    if not settings.language:
        raise UserError("task.language: not named, and every language ends its sentences differently. Set language=NAME.")
    language = load_language(settings.language)
    return build_next_sentence(read_documents(files), language, settings.seed, settings.max_examples or 2000)


def _fill_splits(task: Task, parts: dict[str, list[dict[str, Any]]], settings: TaskSettings) -> None:
    """Put `parts` into train, dev and test of the task; missing splits are split off train, with a note."""
    shares, stratify = tuple(settings.shares or SHARES), settings.stratify
    if len(shares) != 3 or not all(0 < share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        raise UserError(f"task.shares={list(shares)}: expected three numbers that add up to 1, e.g. [0.7, 0.1, 0.2].")
    if stratify and not kind_of(task.kind).classes:
        raise UserError(f"task.stratify: {task.kind} has no classes to keep in balance. Set task.stratify=false.")
    how = "by hash of group" + (", class by class" if stratify else "")
    if "test" not in parts and "dev" in parts:
        parts["test"] = parts.pop("dev")
        task.notes.append("no test file: the dev file is the test set, and dev is split off train")
    if "test" not in parts:
        task.train, task.dev, task.test = split_by_group(parts["train"], task.kind, shares, stratify)
        percent = "/".join(f"{100 * share:g}" for share in shares)
        task.notes.append(f"train, dev and test: {percent} of the train file {how}")
        return
    task.test = parts["test"]
    if "dev" in parts:
        task.train, task.dev = parts["train"], parts["dev"]
        return
    task.train, task.dev = split_by_group(parts["train"], task.kind, (0.9, 0.1), stratify)
    task.notes.append(f"dev: 10 % of the train file {how}")


def _drop_untrainable(task: Task, kind: Kind) -> None:
    """Remove examples from train that cannot be used for training; dev and test keep every example."""
    kept, reasons = [], Counter()
    for example in task.train:
        reason = kind.untrainable(example)
        if reason is None:
            kept.append(example)
            continue
        reasons[reason] += 1
        task.skipped.append({"split": "train", "file": None, "line": None, "id": example["id"], "reason": reason})
    task.notes += [f"{count} train examples: {reason}" for reason, count in reasons.items()]
    task.train = kept


def _settle_cloze(task: Task, kind: Kind, settings: TaskSettings) -> None:
    """The sentence and the words of task.cloze and task.verbalisers. UserError for a class without a word, or no [MASK]."""
    if not settings.cloze and not settings.verbalisers:
        return
    if not kind.classes:
        raise UserError(f"task.verbalisers: a {task.kind} task has no classes. Leave task.cloze and task.verbalisers out.")
    words = {str(label): [w] if isinstance(w, str) else list(w or []) for label, w in settings.verbalisers.items()}
    if lacking := [label for label in task.labels or [] if not words.get(label) or not all(words[label])]:
        raise UserError(f"task.verbalisers: no word for the class {lacking[0]}. Give each one: {', '.join(task.labels or [])}.")
    if odd := [label for label in words if label not in (task.labels or [])]:
        raise UserError(f"task.verbalisers: {odd[0]} is no class. The classes are {', '.join(task.labels or [])}.")
    pattern, parts = settings.cloze or "", [f"{{{name}}}" for name in kind.inputs]
    if pattern.count(MASK) != 1 or any(pattern.count(part) != 1 for part in parts):
        raise UserError(f"task.cloze={settings.cloze}: expected a sentence with {', '.join(parts)} and {MASK}, each once.")
    task.cloze, task.verbalisers = pattern, words


def _settle_labels(task: Task, kind: Kind, positive: Any) -> None:
    """Class or tag names over all splits in a fixed order: the given one, or else numbers by value, names alphabetically."""
    task.labels = task.labels and kind.names(task.labels)
    if kind.names_from is None:
        task.labels = None
        return
    found = {split: {label for example in getattr(task, split) for label in kind.labels_in(example)} for split in SPLITS}
    if task.labels is None:
        task.labels = kind.in_order(set().union(*found.values()))
    absent = sorted((found["dev"] | found["test"]) - found["train"])
    if absent:
        task.notes.append(f"in dev or test but never in train (cannot be learned): {', '.join(absent)}")
        for split in ("dev", "test"):
            for example in getattr(task, split):
                for label in sorted(set(absent) & set(kind.labels_in(example))):
                    _note(task, split, example, f"label {label!r} is never in train (cannot be learned)")
    if kind.classes and len(task.labels) < 2:
        raise UserError(f"task {task.name}: only one class ({', '.join(task.labels)}). Check task.columns.label.")
    if not task.labels:
        raise UserError(f"task {task.name}: no example has a label. Check task.columns.labels.")
    if positive is not None and str(positive) not in task.labels:
        raise UserError(f"task.positive={positive}: not among the labels {', '.join(task.labels)}.")
    if kind.classes and (positive is not None or len(task.labels) == 2):
        task.positive = str(positive) if positive is not None else task.labels[-1]
    if task.metric == "f1" and kind.classes and task.positive is None:
        raise UserError(f"task.metric=f1: {len(task.labels)} classes and no task.positive. Set it, or metric=macro_f1.")


def _settle_decoding(task: Task, kind: Kind, settings: TaskSettings) -> None:
    """Decoding from the settings; UserError if they do not fit the task."""
    for key, why in MISFITS.items():
        if getattr(settings, key) and key not in kind.options:
            raise UserError(f"task.{key}: {task.kind} {why}. Set it to false.")
    task.next_sentence = settings.next_sentence
    task.decoding = kind.decoding(task, settings)


def _note_leaks(task: Task) -> None:
    """Count and list the examples that share their group, or their whole text, with another split or within their own."""
    groups: dict[str, str] = {}  # group: the first split that has it
    for split in SPLITS:
        examples = getattr(task, split)
        shared: Counter[str] = Counter()
        texts: set[str] = set()
        for example in examples:
            first = groups.setdefault(leakage_group(example, task.kind), split)
            if first != split:
                shared[first] += 1
                _note(task, split, example, f"shares its text or group with {first}")
            texts.add("\n".join(kind_of(task.kind).texts(example)))
        for first, count in shared.items():
            task.notes.append(f"{count} of {len(examples)} {split} examples share their text or group with {first}")
        if len(texts) < len(examples):
            task.notes.append(f"{len(examples) - len(texts)} of {len(examples)} {split} examples repeat another's whole text")


def _note(task: Task, split: str, example: dict[str, Any], reason: str) -> None:
    task.noted.append({"split": split, "file": None, "line": None, "id": example["id"], "reason": reason})


def _hide(task: Task, blind: str | None) -> None:
    """The control that hides a part of every example; splits are those of the whole examples."""
    if not blind:
        return
    if kind_of(task.kind).blind != blind:
        known = ", ".join(f"{kind_of(kind).blind} ({kind})" for kind in known_kinds() if kind_of(kind).blind)
        raise UserError(f"task.blind={blind}: {task.kind} has no such control. There are: {known}.")
    task.name = f"{task.name}-blind"
    for split in SPLITS:
        setattr(task, split, [{**example, blind: ""} for example in getattr(task, split)])
    task.notes.append(f"control: {blind} is hidden from the model")
