"""A fine-tuning run before it starts: its settings, data, folder and identity, and whether it is complete already."""

import inspect
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import torch

from common.code import changed_files, code_files
from common.errors import UserError
from common.files import digest_of, read_json, sha256_file, write_jsonl
from common.settings import plain
from corpus.stages.units import pack_digest
from data.features import encode
from data.token_cache import cached
from language.base import load_language, one_language
from model.folder import verify_checkpoint
from tasks.base import kind_of, known_kinds
from tasks.encoding import Encoded, separators
from tasks.load import SPLITS, Task, load_task
from tasks.settings import TaskSettings
from tokenization.tokenizer import Tokenizer
from training.recipe import SEEDS
from training.settings import Finetuning, Recipe
from training.task_models import Start
from training.teachers import identity_of, teacher_of

# The code that determines a run's result: these modules and what they import from earlier rooms.
CODE = (
    "training.augmentation",
    "training.finetuning",
    "training.joint_mlm",
    "training.optimizers",
    "training.resuming",
    "training.runs",
    "training.schedules",
    "training.task_models",
    "training.teachers",
    "tasks.scoring",
    *(f"tasks.{kind}" for kind in known_kinds()),
)
ROOMS = ("model", "data", "tasks", "tokenization", "language")
# Seeds of `auto`. With 5 against 5 runs no rank test gets below Holm's bound for six tasks, with 10 it does; tasks of more
# than 10k rows vary less and cost more, and get 5.
FEW_ROWS, SEEDS_OF_FEW, SEEDS_OF_MANY = 10_000, 10, 5


@dataclass
class Data:
    """A task and its three splits as rows for one tokenizer."""

    task: Task
    splits: dict[str, Encoded]
    max_length: int
    overlap: int | None  # of windows
    digest: str
    notes: list[str]


@dataclass(frozen=True)
class Run:
    """One fine-tuning run: `settings` of training.recipe.settings_for with lr and pooling set, start, data, seed."""

    settings: Finetuning
    start: Start
    data: Data
    seed: int
    device: torch.device
    out: Path  # results of all runs
    show: bool = False  # a progress bar of its own
    script: str = "finetune"  # whose run it is: finetune or benchmark
    trial: str | None = None  # folder of a run that only tries settings: it goes to tuning/<trial>
    tuned: dict[str, Any] | None = None  # how the recipe was found on dev (training/trials.py)
    stop: list[int] = field(default_factory=list)  # signals that ask the run to end

    @property
    def recipe(self) -> Recipe:
        """The settings of the loop."""
        return self.settings.recipe

    @property
    def name(self) -> str:
        """<model>/<task>/seed-<n>, or with the trial's name instead of the seed."""
        return f"{self.start.name}/{self.data.task.name}/{self.trial or f'seed-{self.seed}'}"

    @property
    def place(self) -> Path:
        """<out>/<model>/<task>, the folder of all seeds."""
        return self.out / self.start.name / self.data.task.name

    @property
    def folder(self) -> Path:
        """The run's own folder."""
        return self.place / (f"tuning/{self.trial}" if self.trial else f"seed-{self.seed}")

    def digest(self) -> str:
        """Identity of the run: all that decides its result but the machine, the code included."""
        recipe = {key: value for key, value in plain(self.recipe).items() if key not in SEEDS or value is not None}
        teacher = teacher_of(self.recipe.teacher, self.data.task.name, self.seed)
        teacher_identity = [] if teacher is None else [identity_of(teacher)]
        return digest_of(
            [
                deciding_code(),
                recipe,
                self.settings.precision,
                self.start.identity,
                self.data.digest,
                self.data.max_length,
                self.seed,
                *teacher_identity,
            ]
        )

    def described(self) -> dict[str, Any]:
        """Entries of summary.json that are known before the run."""
        task, start, splits = self.data.task, self.start, self.data.splits
        return {
            "status": "done",
            "model": start.name,
            "task": task.name,
            "kind": task.kind,
            "seed": self.seed,
            "metric": task.metric,
            "labels": task.labels,
            "positive": task.positive,
            "language": task.language and task.language.name,  # of the texts
            "device": self.device.type,
            "max_length": self.data.max_length,
            "examples": {split: len(getattr(task, split)) for split in splits},
            "skipped": len(task.skipped),
            "rows": {split: len(part.rows) for split, part in splits.items()},
            "notes": self.data.notes,
            "tuning": self.tuned,
            "checkpoint": start.path,
            "scratch": start.weights is None,
            "code": deciding_code(),
        }


def deciding_code() -> dict[str, str]:
    """{file: digest} of the code that determines a fine-tuned model's output, without comments and docstrings."""
    return code_files(*CODE, rooms=ROOMS)


def refuse_other_language(settings: Finetuning, start: Start) -> None:
    """UserError if `language`, which is the model's, or a filter by language contradicts the checkpoint.

    across_languages allows both. A task in another language than the checkpoint's is a transfer, which task.language states.
    """
    if settings.across_languages:
        return
    own = {f"checkpoint={start.path}": start.language}
    one_language(
        own | {"language": settings.language},
        "Leave language out; if only the texts of the task are in it, set task.language, or across_languages=true.",
    )
    if settings.task.language_only:
        one_language(
            own | {"the rows that task.language_only keeps": settings.task.language},
            "Take a checkpoint of that language, or set across_languages=true to train this one on it.",
        )


def code_of_kind(kind: str) -> dict[str, str]:
    """{file: digest} of the code of a kind of task, which may be a module outside the project."""
    if kind in known_kinds():
        return code_files(f"tasks.{kind}", rooms=("tasks", "language"))
    return {kind: sha256_file(inspect.getfile(type(kind_of(kind))))}


def prepare_data(settings: TaskSettings, start: Start, cache: dict[Any, Any], folder: str | None = None) -> Data:
    """Load a task and tokenise it; `cache` is shared over seeds, and over models with the same tokenizer and length.

    A task that names no language has the checkpoint's. `folder` keeps the tokens for other processes and later runs (see
    data.token_cache).
    """
    language = load_language(settings.language) if settings.language else start.language
    settings = replace(settings, language=language and language.name)
    longest = settings.max_length or kind_of(settings.kind).max_length
    max_length = min(longest, start.config.max_length)
    key = digest_of({k: v for k, v in plain(settings).items() if k != "recipe"})
    if key not in cache:
        cache[key] = load_task(settings)
    task: Task = cache[key]
    overlap = settings.window_overlap_tokens
    if longest > max_length and overlap is not None:
        overlap = min(overlap, max_length // 3)
    rows = (key, start.tokenizer.identity, max_length)
    if rows not in cache:
        splits = {split: _encoded(folder, task, split, start.tokenizer, max_length, overlap) for split in SPLITS}
        notes = [*task.notes, *(f"{split}: {note}" for split, part in splits.items() for note in part.notes)]
        if longest > max_length:
            notes.append(f"max_length {longest} is above the encoder's: rows have at most {max_length} tokens")
        if language and start.language not in (None, language):
            notes.append(f"its texts are in {language.title}, the checkpoint was trained on {start.language.title}: a transfer")
        # Rows that were made with one separator are not reused.
        framed = ["two separators"] * (separators(start.tokenizer) == 2)
        pack = pack_digest(start.tokenizer.language.name) if start.tokenizer.language else None
        decisive = [task.digest, task.metric, task.positive, settings.language, overlap, code_of_kind(task.kind), pack]
        digest = digest_of([*decisive, *framed])
        cache[rows] = Data(task, splits, max_length, overlap, digest, notes)
    return cache[rows]


def _encoded(folder: str | None, task: Task, split: str, tokenizer: Tokenizer, max_length: int, overlap: int | None) -> Encoded:
    examples = getattr(task, split)

    def make() -> Encoded:
        return encode(examples, task.kind, tokenizer, task.labels, max_length, overlap)

    if not folder:
        return make()
    code = code_files("data.features", "tokenization.loading", rooms=("data", "tasks", "tokenization"))
    decisive = [code, code_of_kind(task.kind), pack_digest(tokenizer.language.name) if tokenizer.language else None]
    key = digest_of([decisive, tokenizer.identity, task.kind, task.labels, max_length, overlap, examples])
    return cached(Path(folder) / f"{task.name}-{split}-{key[:16]}.npz", key, make)


def write_inputs(out: Path, task: Task) -> None:
    """Files for readers of the predictions, once for each task, in <out>/inputs.

    <task>-test.jsonl: {"id", "text"} of every test example, all its texts joined by newlines, for the leakage check.
    <task>-skipped.jsonl: every record that is not used, and ("kept": true) those that were repaired or are doubtful.
    """
    write_jsonl(
        out / "inputs" / f"{task.name}-test.jsonl",
        ({"id": example["id"], "text": "\n".join(kind_of(task.kind).lines(example))} for example in task.test),
    )
    listed = [{**record, "kept": kept} for records, kept in ((task.skipped, False), (task.noted, True)) for record in records]
    write_jsonl(out / "inputs" / f"{task.name}-skipped.jsonl", listed)


def seeds_for(seeds: list[int] | str, data: Data) -> list[int]:
    """The seeds of one task: as given, or for "auto" 0 to 9 below 10,001 training rows, 0 to 4 above and for qa."""
    if seeds != "auto":
        return list(seeds)
    few = not kind_of(data.task.kind).few_seeds and len(data.task.train) <= FEW_ROWS
    return list(range(SEEDS_OF_FEW if few else SEEDS_OF_MANY))


def finished(folder: Path, digest: str, need_checkpoint: bool, splits: tuple[str, ...]) -> dict[str, Any] | None:
    """The summary of a finished run in `folder` with the same digest and predictions of `splits`; otherwise None."""
    try:
        summary = read_json(folder / "summary.json") if (folder / "summary.json").exists() else {}
    except UserError:  # damaged: treated as missing
        summary = {}
    names = [f"predictions-{split}.jsonl" for split in splits]
    whole = summary.get("status") == "done" and summary.get("digest") == digest and all((folder / n).exists() for n in names)
    if whole and need_checkpoint:
        try:
            verify_checkpoint(folder / "checkpoint")
        except (UserError, safetensors.SafetensorError):
            return None
    return summary if whole else None


def why_again(folder: Path) -> str | None:
    """Why the run in `folder` cannot be reused, in words; None if there is none."""
    if not (folder / "summary.json").exists():
        return None
    try:
        before = read_json(folder / "summary.json").get("code") or {}
    except UserError:
        return "its summary.json is damaged"
    if changed := changed_files(before, deciding_code()):
        return f"made by other code ({', '.join(changed[:4])}{' and more' if len(changed) > 4 else ''})"
    return "made with other settings, data or weights (or without its checkpoint)"
