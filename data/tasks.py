"""A task of the config to train, dev and test examples, split by group where the files do not split them.

    python -m data.tasks next-sentence FILES.jsonl... --out FILE.jsonl [--seed 0] [--max 2000]

builds the next-sentence task from documents ({"id", "text"} a line); see data/next_sentence.py.
"""

import argparse
import glob
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError, command
from common.files import digest_of, write_jsonl
from data.splits import group_name, leakage_group, split_by_group
from data.task_files import files_of
from data.task_records import KINDS, load_task_file, texts_of
from evaluation.metrics import DEFAULT_METRIC, METRICS

ROOT = Path(__file__).resolve().parent.parent
SPLITS = ("train", "dev", "test")
SHARES = (0.7, 0.1, 0.2)  # of train, dev and test where a file comes unsplit
BLIND = {"choice": "question", "pair": "text"}  # what a control may hide: what is left must not be enough


@dataclass
class Task:
    """Examples ready to fine-tune on, and everything a reader should know about how they came to be."""

    name: str
    kind: str
    metric: str  # the headline, a key of evaluation.metrics.METRICS[kind]
    labels: list[str] | None  # class or tag names in the order of the head's outputs; None for choice and qa
    positive: str | None  # the class that binary F1 looks at; None unless there are exactly two
    both_orders: bool = False  # pair: dev and test are scored as (a, b) and as (b, a), and the scores averaged
    valid_tags: bool = False  # tagging: the best path without an I- that continues nothing, not each word's best tag
    next_sentence: bool = False  # pair, choice: asks what follows, as BERT's next-sentence head was trained to say
    train: list[dict[str, Any]] = field(default_factory=list)
    dev: list[dict[str, Any]] = field(default_factory=list)
    test: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)  # {"split", "file", "line", "id", "reason"}
    noted: list[dict[str, Any]] = field(default_factory=list)  # the same of examples that are used: repaired or doubtful
    notes: list[str] = field(default_factory=list)  # sentences for the log: repairs, splits, leakage

    @property
    def digest(self) -> str:
        """SHA-256 of all examples and labels and of how they are decoded: what a run of this task depends on."""
        decoding = [name for name in ("both_orders", "valid_tags") if getattr(self, name)]
        return digest_of([self.kind, self.labels, self.train, self.dev, self.test, *decoding])


def load_task(config: Mapping[str, Any]) -> Task:
    """Read the files of a task config and split what is not split.

    Keys read: name, kind, train, dev, test, shares, stratify, documents, max_examples, seed, metric, labels, positive,
    columns, azerbaijani_only, no_answer_start, blind, both_orders, valid_tags, next_sentence (conf/task/*.yaml explains
    each). Files are looked for from the working folder, then from the checkout. A folder stands for the files in it that
    name the split; dev and test come from the folder of train too, where they are not given.

    - train only: `shares` (70 / 10 / 20) by hash of group. - no dev: 10 % of train. - no test: dev becomes test and dev is
    split off train. Rows of one group (same text, context or question) never straddle a split made here.

    Raises UserError for a missing key or file, an unknown metric, and a split left without examples.
    """
    kind, name = config.get("kind"), config.get("name") or "task"
    if kind not in KINDS:
        raise UserError(f"task.kind={kind}: expected one of {', '.join(KINDS)}. Set it, or choose a task: task=topic.")
    metric = config.get("metric") or DEFAULT_METRIC[kind]
    if metric not in METRICS[kind]:
        raise UserError(f"task.metric={metric}: {kind} has {', '.join(METRICS[kind])}. Choose one of these.")
    labels = [str(label) for label in config["labels"]] if config.get("labels") else None
    task = Task(name=name, kind=kind, metric=metric, labels=labels, positive=None)
    if config.get("documents"):
        parts = {"train": _built(config, kind)}
    else:
        parts = {split: _loaded(task, config, path, split) for split, path in _files(config).items()}
    if "train" not in parts:
        raise UserError("task.train: no file given. Set task.train=FILE (task.dev and task.test may be left out).")
    _fill_splits(task, parts, config)
    if kind == "qa":
        _drop_unplaced(task)
        for example in [*task.train, *task.dev, *task.test]:  # the questions of one text are one group everywhere
            example.setdefault("group", group_name(leakage_group(example, kind)))
    _settle_labels(task, config.get("positive"))
    _settle_decoding(task, config)
    _note_leaks(task)
    _hide(task, config.get("blind"))
    for split in SPLITS:
        if not getattr(task, split):
            files = config.get(split) or config.get("train") or config.get("documents")
            raise UserError(
                f"{files}: the {split} split has no example ({len(task.train)}/{len(task.dev)}/{len(task.test)} in "
                f"train/dev/test). Give more examples, or a file of its own with task.{split}=FILE."
            )
    return task


def find_file(path: str) -> Path:
    """A path as given, else the same path inside the checkout; UserError when neither exists."""
    for place in (Path(path), ROOT / path):
        if place.exists():
            return place
    raise UserError(f"{path}: no such file (looked in {Path.cwd()} and {ROOT}). Check task.train/dev/test.")


def _files(config: Mapping[str, Any]) -> dict[str, Path]:
    """The file or folder of each split that has one; a folder given for train is asked for dev and test too."""
    paths = {split: find_file(str(config[split])) for split in SPLITS if config.get(split)}
    for split in ("dev", "test"):
        if split not in paths and "train" in paths and paths["train"].is_dir() and files_of(paths["train"], split):
            paths[split] = paths["train"]
    return paths


def _loaded(task: Task, config: Mapping[str, Any], path: Path, split: str) -> list[dict[str, Any]]:
    loaded = load_task_file(
        path, task.kind, config.get("columns"), task.labels, split, bool(config.get("azerbaijani_only")),
        config.get("no_answer_start") or (-1,),
    )  # fmt: skip
    task.labels = task.labels or loaded.labels
    task.skipped += [{"split": split, **skip} for skip in loaded.skipped]
    task.noted += [{"split": split, **note} for note in loaded.noted]
    task.notes += [f"{path.name}: {what}: {count}" for what, count in sorted(loaded.notes.items())]
    for reason, count in sorted(Counter(skip["reason"] for skip in loaded.skipped).items()):
        task.notes.append(f"{path.name}: skipped {count}: {reason}")
    return loaded.examples


def _built(config: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    """Next-sentence examples built from `task.documents` (a glob, a file or a list of them)."""
    from data.next_sentence import build_next_sentence, read_documents

    if kind != "pair":
        raise UserError(f"task.documents: next-sentence examples are pairs, task.kind is {kind}. Set task.kind=pair.")
    wanted = config["documents"]
    patterns = [wanted] if isinstance(wanted, str) else list(wanted)
    files = [hit for pattern in patterns for hit in sorted(glob.glob(pattern) or glob.glob(str(ROOT / pattern)))]
    if not files:
        raise UserError(f"task.documents={wanted}: no file there. Expected .jsonl files with one document a line.")
    return build_next_sentence(read_documents(files), config.get("seed") or 0, config.get("max_examples") or 2000)


def _fill_splits(task: Task, parts: dict[str, list[dict[str, Any]]], config: Mapping[str, Any]) -> None:
    """Put `parts` into train, dev and test of the task, splitting train for what is missing and saying so."""
    shares, stratify = tuple(config.get("shares") or SHARES), bool(config.get("stratify"))
    if len(shares) != 3 or not all(0 < share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-9:
        raise UserError(f"task.shares={list(shares)}: expected three numbers that add up to 1, e.g. [0.7, 0.1, 0.2].")
    if stratify and task.kind not in ("classification", "pair"):
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


def _drop_unplaced(task: Task) -> None:
    """Training needs the answer's place; dev and test are scored by text and keep every question."""
    kept = []
    for example in task.train:
        if example["answers"] and not any(answer["start"] >= 0 for answer in example["answers"]):
            reason = "answer has no certain place in the context: not trained on"
            task.skipped.append({"split": "train", "file": None, "line": None, "id": example["id"], "reason": reason})
        else:
            kept.append(example)
    if len(kept) < len(task.train):
        task.notes.append(f"{len(task.train) - len(kept)} train questions have no certain answer offset: not trained on")
    task.train = kept


def _settle_labels(task: Task, positive: Any) -> None:
    """Class or tag names over all splits in a fixed order: the given one, else numbers by value and names by letter."""
    if task.kind in ("choice", "qa"):
        task.labels = None
        return
    found = {
        split: {tag for e in getattr(task, split) for tag in (e["tags"] if task.kind == "tagging" else [e["label"]])}
        for split in SPLITS
    }
    everything = set().union(*found.values())
    if task.labels is None:
        if task.kind == "tagging":
            task.labels = sorted(everything | {"O"}, key=lambda tag: (tag != "O", tag[2:], tag))
        elif all(re.fullmatch(r"-?\d+", label) for label in everything):
            task.labels = sorted(everything, key=int)
        else:
            task.labels = sorted(everything)
    absent = sorted((found["dev"] | found["test"]) - found["train"])
    if absent:
        task.notes.append(f"in dev or test but never in train (cannot be learned): {', '.join(absent)}")
        for split in ("dev", "test"):
            for example in getattr(task, split):
                for label in sorted(set(absent) & set(example["tags"] if task.kind == "tagging" else [example["label"]])):
                    _note(task, split, example, f"label {label!r} is never in train (cannot be learned)")
    if task.kind != "tagging" and len(task.labels) < 2:
        raise UserError(f"task {task.name}: only one class ({', '.join(task.labels)}). Check task.columns.label.")
    if positive is not None and str(positive) not in task.labels:
        raise UserError(f"task.positive={positive}: not among the labels {', '.join(task.labels)}.")
    if task.kind != "tagging" and (positive is not None or len(task.labels) == 2):
        task.positive = str(positive) if positive is not None else task.labels[-1]
    if task.metric == "f1" and task.kind in ("classification", "pair") and task.positive is None:
        raise UserError(f"task.metric=f1: {len(task.labels)} classes and no task.positive. Set it, or metric=macro_f1.")


def _settle_decoding(task: Task, config: Mapping[str, Any]) -> None:
    """What the config says of reading scores; UserError where it does not fit the task."""
    task.next_sentence = bool(config.get("next_sentence"))
    task.both_orders, task.valid_tags = bool(config.get("both_orders")), bool(config.get("valid_tags"))
    if task.next_sentence and task.kind not in ("pair", "choice"):
        raise UserError(f"task.next_sentence: {task.kind} does not ask what follows. Set it to false.")
    if task.next_sentence and task.kind == "pair" and config.get("positive") is None:
        raise UserError("task.next_sentence: which class says that the second text follows? Set task.positive to it.")
    ordered = task.next_sentence or bool(config.get("documents"))
    if task.both_orders and (task.kind != "pair" or ordered):
        asked = "the order is what a next-sentence task asks for" if ordered else f"{task.kind} has no two texts"
        raise UserError(f"task.both_orders: {asked}. Set it to false.")
    if task.valid_tags and task.kind != "tagging":
        raise UserError(f"task.valid_tags: {task.kind} has no tags. Set it to false.")
    odd = [tag for tag in task.labels or [] if tag != "O" and tag[:2] not in ("B-", "I-")]
    if task.valid_tags and odd:
        raise UserError(f"task.valid_tags: {odd[0]!r} is no tag of IOB2 (O, B-..., I-...). Set it to false.")


def _note_leaks(task: Task) -> None:
    """Count and list the examples whose group, or whole text, another split or the same one has too."""
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
            texts.add("\n".join(texts_of(example)))
        for first, count in shared.items():
            task.notes.append(f"{count} of {len(examples)} {split} examples share their text or group with {first}")
        if len(texts) < len(examples):
            task.notes.append(f"{len(examples) - len(texts)} of {len(examples)} {split} examples repeat another's whole text")


def _note(task: Task, split: str, example: dict[str, Any], reason: str) -> None:
    task.noted.append({"split": split, "file": None, "line": None, "id": example["id"], "reason": reason})


def _hide(task: Task, blind: str | None) -> None:
    """The control that hides a part of every example; the splits stay those of the whole examples."""
    if not blind:
        return
    if BLIND.get(task.kind) != blind:
        known = ", ".join(f"{part} ({kind})" for kind, part in BLIND.items())
        raise UserError(f"task.blind={blind}: {task.kind} has no such control. There are: {known}.")
    task.name = f"{task.name}-blind"
    for split in SPLITS:
        setattr(task, split, [{**example, blind: ""} for example in getattr(task, split)])
    task.notes.append(f"control: {blind} is hidden from the model")


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    from data.next_sentence import build_next_sentence, read_documents

    parser = argparse.ArgumentParser(prog="python -m data.tasks", description="Make task files.")
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("next-sentence", help="build the next-sentence task from documents")
    build.add_argument("files", nargs="+", help='.jsonl or .jsonl.gz, one {"id", "text"} a line')
    build.add_argument("--out", required=True, help="the .jsonl file to write")
    build.add_argument("--seed", type=int, default=0)
    build.add_argument("--max", type=int, default=2000, help="at most so many examples (a multiple of 6 is made)")
    options = parser.parse_args(arguments)
    examples = build_next_sentence(read_documents(options.files), options.seed, options.max)
    write_jsonl(options.out, examples)
    print(f"{options.out}: {len(examples)} pairs, half of them true continuations, from {len(options.files)} files")


if __name__ == "__main__":
    sys.exit(main())
