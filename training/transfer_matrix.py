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

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import digest_of, write_json, write_text
from common.html import SORT, origin_of, page
from common.launch import git_state
from common.progress import progress
from common.settings import checked, keys_of, typed
from corpus.detection.detector import main_script, units
from data.features import encode
from evaluation.transfer_page import sections, summary_lines
from evaluation.results import groups_of
from evaluation.statistics import score_interval
from language.base import Language, load_language, packs
from tasks.base import kind_of
from tasks.encoding import Encoded
from tasks.load import SPLITS, Task, find_file, load_task
from tasks.perturbed import perturbed_example
from tasks.scoring import read_predictions, score_predictions
from tasks.settings import TaskSettings
from tokenization.tokenizer import Tokenizer
from training.defaults import with_defaults
from training.finetuning import run_seed
from training.runs import Data, Run, code_of_kind
from training.settings import Finetuning, Transfer
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


def pack_of(name: str) -> Language:
    """The pack of a language by its name or code, also in names like azj_Latn; generic where there is none."""
    first = name.lower().split("_")[0]
    known = next((own for own, codes in packs().items() if first in (own, *codes)), "generic")
    return load_language(known)


def check_tasks(transfer: Transfer) -> None:
    """UserError for an entry without a name, kind, files or languages, or with a key that it cannot have."""
    for number, entry in enumerate(transfer.tasks):
        where = f"transfer.tasks[{number}]"
        own = {key: value for key, value in entry.items() if key not in ENTRY}
        checked(TaskSettings, own, where)
        lacking = [key for key in ("name", "kind", "languages") if not entry.get(key)]
        if lacking:
            raise UserError(f"{where}: no {lacking[0]}. An entry has name, kind, languages and files with {{language}} in them.")
        kind_of(entry["kind"])
        for language, keys in entry["languages"].items():
            checked(TaskSettings, keys or {}, f"{where}.languages.{language}")
    names = [entry["name"] for entry in transfer.tasks]
    if len(set(names)) < len(names):
        raise UserError(f"transfer.tasks: two have the same name ({', '.join(names)}). Each needs its own folder.")


def read_sides(entry: dict[str, Any], transfer: Transfer) -> list[Side]:
    """Every language of an entry, all with the same labels in the same order; one without a test set is kept and says why."""
    sides = []
    for name, keys in entry["languages"].items():
        own = {key: value for key, value in entry.items() if key not in ENTRY} | (keys or {})
        files = {key: str(own[key]).replace("{language}", name) for key in SPLITS if own.get(key)}
        task = f"{entry['name']}-{name}"
        settings = typed(TaskSettings, {**own, **files, "name": task, "language": pack_of(name).name}, "transfer.tasks")
        try:
            for path in files.values():
                find_file(path)
        except UserError as error:
            sides.append(Side(name, None, f"no file: {error}"))
            continue
        if not files.get("train"):  # a language that is only tested
            settings = replace(settings, train=files.get("test"), test=None, shares=[0.005, 0.005, 0.99])
        sides.append(_side(name, load_task(settings), transfer, bool(files.get("train"))))
    together = [side.task for side in sides if side.task]
    if not together:
        raise UserError(f"transfer.tasks: {entry['name']}: no language has data ({sides[0].missing}).")
    if together[0].labels is not None:
        known = {label for task in together for label in task.labels or []}
        labels = list(entry.get("labels") or kind_of(entry["kind"]).in_order(known))
        for task in together:
            task.labels = labels
    return sides


def _side(name: str, task: Task, transfer: Transfer, trains: bool) -> Side:
    total = sum(len(getattr(task, split)) for split in SPLITS)
    if total < transfer.least:
        return Side(name, None, f"{total} examples, fewer than transfer.least={transfer.least}")
    pack = pack_of(name)
    if transfer.latin and pack.scripts[:1] != (LATIN,) and pack.other_script:
        for split in SPLITS:
            setattr(task, split, [perturbed_example(one, "script", 1.0, pack) for one in getattr(task, split)])
    untrained = "" if trains else "no training data"
    if trains and len(task.train) < transfer.least:
        untrained = f"{len(task.train)} training examples, fewer than transfer.least={transfer.least}"
    texts = " ".join(text for one in task.test for text in kind_of(task.kind).texts(one))
    return Side(name, task, untrained=untrained, script=main_script(units(texts)))


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


def tokens_of(rows: Encoded, tokenizer: Tokenizer) -> np.ndarray:
    """All token ids of the rows, special ones left out [n]."""
    ids = np.concatenate([row.ids for row in rows.rows])
    return ids[~np.isin(ids, [tokenizer.cls_id, tokenizer.sep_id])]


def relation(source: Side, target: Side, start: Start, settings: TaskSettings) -> dict[str, Any]:
    """{fertility: tokens a word of the target's test texts, shared: share of its tokens that the source's training has}."""

    def read(examples: list[dict[str, Any]], kind: str) -> tuple[np.ndarray, int]:
        texts = [text for one in examples for text in kind_of(kind).texts(one)]
        return np.concatenate([np.zeros(0, int), *start.tokenizer.encode_batch(texts)]), sum(len(t.split()) for t in texts)

    tested, words = read(target.task.test, target.task.kind)
    trained, _ = read(source.task.train, source.task.kind)
    return {"fertility": len(tested) / max(1, words), "shared": float(np.isin(tested, trained).mean())}


class Matrix:
    """All runs of one model on one task; `measure` returns its cells."""
