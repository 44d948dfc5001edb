"""Train on one language, test on the others: a matrix language x language x task, zero-shot and with k target examples.

    python benchmark.py experiment=transfer 'models=[{name: mine, checkpoint: FOLDER}]' out=runs/mine/transfer

Every language with training data is a source. Its model is selected on the source's own dev set and predicts the test sets of
all languages (zero-shot). With k > 0, k training examples of the target are added to those of the source, and the source's dev
set still selects (joint training, which Schmidt et al. 2022, "Don't Stop Fine-Tuning", EMNLP, found better than training on
the target afterwards); the k examples are the first of one order, so that a larger k contains a smaller one. No target data
selects anything, but in the row "oracle", which is zero-shot training selected on the target's dev set and marked.

Beside each pair: the target's script, its tokens a word, and the share of its test tokens that the source's training texts have
too. `latin` writes texts of a language that is not in Latin script in it, by the language's pack. A cell without data says why.
The entries of transfer.tasks are explained in conf/benchmark.yaml. Written to OUT: the runs' folders, transfer.json,
transfer.html. A run that is complete is not made again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import digest_of, write_json, write_text
from common.html import SORT, origin_of, page
from common.launch import git_state
from common.progress import progress
from common.settings import checked, typed
from corpus.detection.detector import main_script, units
from data.features import encode
from evaluation.results import groups_of
from evaluation.statistics import score_interval
from evaluation.transfer_page import sections, summary_lines
from language.base import Language, load_language, packs
from tasks.base import kind_of
from tasks.files import TaskFile
from tasks.load import SPLITS, Task, find_file, load_task
from tasks.perturbed import perturbed_example
from tasks.records import load_task_file
from tasks.scoring import read_predictions, score_predictions
from tasks.settings import TaskSettings
from tasks.splits import group_name, leakage_group
from tokenization.tokenizer import Tokenizer
from training.augmentation import check_augment
from training.defaults import with_defaults
from training.finetuning import run_seed
from training.runs import Data, Run, code_of_kind
from training.settings import Benchmark, Finetuning, Transfer
from training.task_models import Start
from training.transfer import ask

ENTRY = ("languages", "claim")  # keys of an entry of transfer.tasks beside those of a task
LATIN = "Latn"


@dataclass
class Side:
    """One language of a task: its examples, or why it has none."""

    name: str
    task: Task | None
    missing: str = ""  # why there is no test set
    untrained: str = ""  # why it is no source
    script: str = ""
    settings: TaskSettings = field(default_factory=TaskSettings)  # with its files


def pack_of(name: str) -> Language:
    """The pack of a language by its name or code, also in names like azj_Latn; generic where there is none."""
    first = name.lower().split("_")[0]
    known = next((own for own, codes in packs().items() if first in (own, *codes)), "generic")
    return load_language(known)


def task_keys(entry: dict[str, Any]) -> dict[str, Any]:
    """The keys of an entry that are a task's."""
    return {key: value for key, value in entry.items() if key not in ENTRY}


def check_tasks(transfer: Transfer) -> None:
    """UserError for an entry without a name, kind, files or languages, or with a key that it cannot have."""
    for number, entry in enumerate(transfer.tasks):
        where = f"transfer.tasks[{number}]"
        checked(TaskSettings, task_keys(entry), where)
        lacking = [key for key in ("name", "kind", "languages") if not entry.get(key)]
        if lacking:
            raise UserError(f"{where}: no {lacking[0]}. An entry has name, kind, languages, and {{language}} in its files.")
        kind_of(entry["kind"])
        for language, keys in entry["languages"].items():
            checked(TaskSettings, keys or {}, f"{where}.languages.{language}")
    names = [entry["name"] for entry in transfer.tasks]
    if len(set(names)) < len(names):
        raise UserError(f"transfer.tasks: two have the same name ({', '.join(names)}). Each needs its own folder.")
    known = list(dict.fromkeys(language for entry in transfer.tasks for language in entry["languages"]))
    if odd := [name for name in transfer.sources if name not in known]:
        raise UserError(f"transfer.sources: {odd[0]} is no language of transfer.tasks. There are: {', '.join(known)}.")


def read_sides(entry: dict[str, Any], transfer: Transfer) -> list[Side]:
    """Every language of an entry, all with the same labels in the same order; one without a test set is kept and says why."""
    sides = []
    for name, keys in entry["languages"].items():
        own = task_keys(entry) | (keys or {})
        files = {key: str(own[key]).replace("{language}", name) for key in SPLITS if own.get(key)}
        if not files:
            sides.append(Side(name, None, "no set is known"))
            continue
        settings = typed(
            TaskSettings, {**own, **files, "name": f"{entry['name']}-{name}", "language": pack_of(name).name}, "transfer.tasks"
        )
        try:
            for path in files.values():
                find_file(path)
        except UserError as error:
            sides.append(Side(name, None, f"no file: {error}"))
            continue
        read = {split: load_task_file(find_file(path), settings.kind, settings, split) for split, path in files.items()}
        if (total := sum(len(file.examples) for file in read.values())) < transfer.least:
            sides.append(Side(name, None, f"{total} examples, fewer than transfer.least={transfer.least}"))
            continue
        task = load_task(settings) if "train" in files else only_test(settings, read["test"])
        sides.append(replace(_side(name, task, transfer), settings=settings))
    together = [side.task for side in sides if side.task]
    if not together:
        raise UserError(f"transfer.tasks: {entry['name']}: no language has data ({sides[0].missing}).")
    if together[0].labels is not None:
        known = {label for task in together for label in task.labels or []}
        labels = list(entry.get("labels") or kind_of(entry["kind"]).in_order(known))
        for task in together:
            task.labels = labels
    return sides


def only_test(settings: TaskSettings, loaded: TaskFile) -> Task:
    """The task of a language that has a test file alone."""
    own = kind_of(settings.kind)
    labels = own.in_order({label for one in loaded.examples for label in own.labels_in(one)}) if own.names_from else None
    metric, language = settings.metric or own.metrics[0], load_language(settings.language)
    task = Task(settings.name, settings.kind, metric, settings.labels or labels, None, language=language, test=loaded.examples)
    if own.group_by_text:
        for example in task.test:
            example.setdefault("group", group_name(leakage_group(example, settings.kind)))
    return task


def _side(name: str, task: Task, transfer: Transfer) -> Side:
    pack = pack_of(name)
    if transfer.latin and pack.scripts[:1] != (LATIN,) and pack.other_script:
        for split in SPLITS:
            setattr(task, split, [perturbed_example(one, "script", 1.0, pack) for one in getattr(task, split)])
    few_left = f"{len(task.train)} training examples, fewer than transfer.least={transfer.least}"
    texts = " ".join(text for one in task.test for text in kind_of(task.kind).texts(one))
    return Side(name, task, untrained=few_left if len(task.train) < transfer.least else "", script=main_script(units(texts)))


def data_of(task: Task, start: Start, settings: TaskSettings) -> Data:
    """The rows of a task that exists in memory; see training.runs.prepare_data."""
    length = min(settings.max_length or kind_of(task.kind).max_length, start.config.max_length)
    overlap = settings.window_overlap_tokens
    overlap = None if overlap is None else min(overlap, length // 3)
    rows = {s: encode(getattr(task, s), task.kind, start.tokenizer, task.labels, length, overlap) for s in SPLITS}
    digest = digest_of([task.digest, task.metric, task.positive, overlap, code_of_kind(task.kind)])
    return Data(task, rows, length, overlap, digest, [note for part in rows.values() for note in part.notes])


def few(task: Task, k: int) -> list[dict[str, Any]]:
    """k training examples of the target, the first of an order that depends on the examples alone."""
    return sorted(task.train, key=lambda example: digest_of(["few", str(example["id"])]))[:k]


def relation(source: Side, target: Side, tokenizer: Tokenizer) -> dict[str, Any]:
    """{fertility: tokens a word of the target's test texts, shared: share of its tokens that the source's training has}."""

    def read(examples: Sequence[dict[str, Any]], kind: str) -> tuple[np.ndarray, int]:
        texts = [text for one in examples for text in kind_of(kind).texts(one)]
        return np.concatenate(tokenizer.encode_batch(texts)), sum(len(text.split()) for text in texts)

    tested, words = read(target.task.test, target.task.kind)
    trained, _ = read(source.task.train, source.task.kind)
    return {"fertility": len(tested) / max(1, words), "shared": float(np.isin(tested, trained).mean())}


@dataclass(frozen=True)
class Asked:
    """What all runs of one model on one task share."""

    entry: dict[str, Any]
    settings: Finetuning  # with lr and pooling filled in
    start: Start
    seeds: list[int]
    device: torch.device
    out: Path

    def named(self, ending: str) -> str:
        """The name of a task, which is the name of its folder too."""
        return f"{self.entry['name']}-{ending}"

    def runs(self, task: Task, source: Side, keep: bool = False) -> list[dict[str, Any]]:
        """The summaries of all seeds of a task, trained where they do not exist. UserError for an impossible recipe.augment."""
        settings = replace(self.settings, save_checkpoint=keep, task=source.settings)
        check_augment(settings.recipe, task)
        data = data_of(task, self.start, settings.task)
        first = Run(settings, self.start, data, self.seeds[0], self.device, self.out, script="benchmark")
        return [run_seed(replace(first, seed=seed)) for seed in self.seeds]


def trained_cells(asked: Asked, source: Side, sides: Sequence[Side], transfer: Transfer) -> list[dict[str, Any]]:
    """The cells of one source: its own language, zero-shot, few-shot and oracle of every target that has a test set."""
    own = replace(source.task, name=asked.named(source.name))
    summaries = asked.runs(own, source, keep=True)
    cells = [cell(source, source, "own", [Path(one["folder"]) for one in summaries], own)]
    for target in sides:
        if target is source:
            continue
        if target.task is None:
            cells.append({"source": source.name, "target": target.name, "setting": "zero-shot", "missing": target.missing})
            continue
        name = f"{source.name}-to-{target.name}"
        zero = replace(target.task, name=asked.named(name), train=[], dev=[], positive=own.positive)
        for summary in summaries:
            ask(Path(summary["folder"]), summary, [zero], asked.out, asked.device)
        places = [asked.out / one["model"] / zero.name / f"seed-{one['seed']}" for one in summaries]
        cells.append(cell(source, target, "zero-shot", places, zero))
        for k in sorted(filter(None, transfer.shots)):
            setting = f"k={k}"
            if len(target.task.train) < k:
                why = f"{len(target.task.train)} training examples"
                cells.append({"source": source.name, "target": target.name, "setting": setting, "missing": why})
                continue
            joint = replace(own, name=asked.named(f"{name}-{k}"), train=own.train + few(target.task, k), test=target.task.test)
            cells.append(cell(source, target, setting, [Path(one["folder"]) for one in asked.runs(joint, source)], joint))
        if transfer.oracle and target.task.dev:
            chosen = replace(own, name=asked.named(f"{name}-oracle"), dev=target.task.dev, test=target.task.test)
            cells.append(cell(source, target, "oracle", [Path(one["folder"]) for one in asked.runs(chosen, source)], chosen))
    return cells


def cell(source: Side, target: Side, setting: str, places: Sequence[Path], task: Task) -> dict[str, Any]:
    """The score of one cell with its interval over seeds and examples."""
    runs = [read_predictions(place / "predictions-test.jsonl", task.own) for place in places]
    scored = [score_predictions(run, task.own, task.labels, task.metric, task.positive, full=False) for run in runs]
    numbers, average = [one["per_example"] for one in scored], scored[0]["average"]
    found = score_interval(numbers, average, groups=groups_of(runs[0], task.kind))
    named = {"source": source.name, "target": target.name, "setting": setting}
    return named | {"score": found.value, "low": found.low, "high": found.high, "examples": len(runs[0])}


def matrix_of(asked: Asked, transfer: Transfer) -> dict[str, Any]:
    """All cells of one model on one task, with what is known of its languages and pairs."""
    sides = read_sides(asked.entry, transfer)
    names = [side.name for side in sides]
    sources = [side for side in sides if not transfer.sources or side.name in transfer.sources]
    trained = [side for side in sources if side.task is not None and not side.untrained]
    cells = []
    for source in progress(trained, desc=f"{asked.start.name} on {asked.entry['name']}", unit="source"):
        cells += trained_cells(asked, source, sides, transfer)
    there = [side for side in sides if side.task is not None]
    pairs = [
        {"source": one.name, "target": other.name, **relation(one, other, asked.start.tokenizer)}
        for one in trained
        for other in there
    ]
    return {
        "model": asked.start.name,
        "task": asked.entry["name"],
        "metric": there[0].task.metric,
        "claim": asked.entry.get("claim", True),
        "seeds": len(asked.seeds),
        "latin": transfer.latin,
        "shots": sorted(transfer.shots),
        "targets": names,
        "languages": [described(side, side in sources) for side in sides],
        "cells": cells,
        "pairs": pairs,
    }


def described(side: Side, asked_for: bool) -> dict[str, Any]:
    """What the report says of a language of a task."""
    sizes = {split: len(getattr(side.task, split)) if side.task else 0 for split in SPLITS}
    why = side.missing or side.untrained or ("" if asked_for else "not in transfer.sources")
    return {"language": side.name, "script": side.script, **sizes, "no source because": why}


def transfer_matrix(
    settings: Sequence[tuple[dict[str, Any], Finetuning]], starts: Sequence[Start], whole: Benchmark, device: torch.device
) -> int:
    """Every model on every task (an entry and its settings), then the report; returns the exit code."""
    seeds, out, results = whole.seeds, Path(whole.out), []
    for start in starts:
        for entry, own in settings:
            filled, _ = with_defaults(own, start)
            results.append(matrix_of(Asked(entry, filled, start, seeds, device, out), whole.transfer))
    write_json(out / "transfer.json", {"results": results})
    state = git_state()
    origin = origin_of(state["commit"], state["changed"])
    lead = "<p>Trained on one language, tested on the others. Only for rows marked oracle does the target select a model.</p>"
    write_text(out / "transfer.html", page("Transfer between languages", lead, sections(results), "", SORT, origin))
    print(*summary_lines(results), out / "transfer.html", sep="\n")
    return 0
