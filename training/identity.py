"""Identity of a pre-training run: its settings, code, text and weights; whether a folder already holds the same run."""

import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from common.code import changed_files, code_files
from common.errors import UserError
from common.files import digest_of, read_json, sha256_file, write_json
from common.launch import folder_name
from common.settings import plain, typed
from corpus.build import documents_of, identity_of_documents
from corpus.settings import Corpus
from model.folder import SUMS, WEIGHTS
from model.store import resolve_checkpoint
from training.checkpoints import state_folder
from training.runs import deciding_code
from training.settings import Pretraining, Sentences
from training.tracking import flatten
from training.watch import check_watch

# Settings that may change between the parts of one run, because they do not affect its result.
NEUTRAL = (
    "run_dir",
    "tracker",
    "objective",
    "plan",
    "resume",
    "reuse",
    "device",
    "log_every",
    "checkpoint_every",
    "checkpoint_in_thread",
    "keep_checkpoints",
    "threads",
    "deterministic",
    "flash_attention",
    "hydra",
)
# The code that determines a run's result: these modules of training/ and what they import from ROOMS, tokenizer and shards
# included. The code of the corpus is part of the corpus' own identity.
DECIDING = "branching heldout optimizers plan precision schedules starting teachers text_embeddings watch"
ROOMS = ("model", "data", "tokenization")
CORPUS, FILE = "the corpus", "made_of.json"


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Settings that differ, except NEUTRAL ones: "key: before -> now"."""
    a, b = ({k: v for k, v in flatten(x).items() if k.split(".")[0] not in NEUTRAL} for x in (before, now))
    return [f"{key}: {a.get(key)} -> {b.get(key)}" for key in sorted(a.keys() | b.keys()) if a.get(key) != b.get(key)]


def read_settings(run: Path) -> dict[str, Any] | None:
    """The resolved config with which a run folder was started; None for a new folder."""
    path = run / "config.yaml"
    return OmegaConf.to_container(OmegaConf.load(path)) if path.exists() else None  # type: ignore[return-value]


def changed_settings(run: Path, settings: Pretraining | Sentences) -> list[str]:
    """What differs between `settings` and the run in this folder; [] for a new folder.

    A key that the record does not have yet had its default.
    """
    before = read_settings(run)
    return [] if before is None else differences({**flatten(plain(type(settings)())), **flatten(before)}, plain(settings))


def weights_of(checkpoint: str, key: str = "checkpoint") -> str:
    """Checksum of a checkpoint's weights; UserError, which names the setting `key`, if there is no checkpoint."""
    folder = resolve_checkpoint(checkpoint)
    if not (folder / SUMS).exists():
        raise UserError(f"{key}={checkpoint}: no checkpoint there. Give the folder of a checkpoint or of a finished run.")
    return str(read_json(folder / SUMS)[WEIGHTS])


def parts_of(settings: Pretraining) -> dict[str, str]:
    """{what: digest} of what determines a run besides its settings and its corpus: files of code, weights, watched text.

    Raises UserError for a checkpoint or a watched file that does not exist.
    """
    code = code_files("train", *(f"training.{name}" for name in DECIDING.split()), "tokenization.train", rooms=ROOMS)
    if settings.evaluation.tasks:
        code = code | deciding_code()
    found = {} if not settings.start_from else {"start_from": weights_of(settings.start_from, "start_from")}
    for number, path in enumerate(settings.distill.teachers):
        found["distill.teacher" + (f"[{number}]" if number else "")] = weights_of(path, "distill.teacher")
    if settings.branch_from:
        found["branch_from"] = sha256_file(state_folder(settings.branch_from) / SUMS)
    check_watch(settings.watch, settings.corpus_dir)
    texts = [Path(entry["file"]) for entry in settings.watch.files or []]
    return {**code, **found, **{str(path): sha256_file(path) for path in texts if path.exists()}}


def corpus_of(settings: Pretraining) -> dict[str, str]:
    """The identity of the corpus that was built for a run, as one of its parts."""
    return {CORPUS: documents_of(settings.corpus_dir)}


def corpus_now(settings: Corpus) -> str | None:
    """Identity of the corpus that these settings would give now; None if its text no longer exists. Reads all of the text."""
    return _corpus_now(json.dumps(plain(settings), sort_keys=True))


@functools.cache
def _corpus_now(settings: str) -> str | None:
    try:
        return identity_of_documents(typed(Corpus, json.loads(settings), "corpus"))
    except UserError:
        return None


def changed_parts(run: Path, parts: dict[str, str], corpus: Corpus | None = None) -> list[str]:
    """Names of the parts that changed since `run` was made. The corpus is looked at last, because that reads all its text."""
    before = read_json(run / FILE)["parts"] if (run / FILE).exists() else {}
    changed = changed_files({name: digest for name, digest in before.items() if name != CORPUS}, parts)
    if not changed and corpus and corpus_now(corpus) not in (None, before.get(CORPUS)):
        changed = [CORPUS]
    return changed


def note_parts(run: Path, parts: dict[str, str], resumed_step: int | None = None) -> None:
    """Record what a run is made of. If the run resumes, also record what changed since it started, with a warning."""
    held = {"parts": parts, "changes": []}
    if resumed_step is not None and (run / FILE).exists():
        before = read_json(run / FILE)
        held["changes"] = before["changes"]
        if changed := changed_files(before["parts"], parts):
            held["changes"].append({"step": resumed_step, "changed": changed})
            print(
                f"warning: {run} goes on from step {resumed_step} after a change in {few(changed)}; {FILE} records this",
                file=sys.stderr,
            )
    write_json(run / FILE, held)


def few(names: list[str]) -> str:
    """The first names of a list, in words."""
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def is_ended(run: Path) -> bool:
    """Whether `run` holds a finished run."""
    return (run / "summary.json").exists() and read_json(run / "summary.json").get("status") == "done"


def is_complete(run: Path, settings: Pretraining | Sentences, parts: dict[str, str], corpus: Corpus | None = None) -> bool:
    """Whether `run` holds a finished run of these settings and parts; UserError if it holds one of others."""
    if changed := changed_settings(run, settings):
        raise UserError(
            f"{run}: holds a run of another config ({'; '.join(changed[:4])}). "
            "Give this one another name=..., or remove that folder."
        )
    if not is_ended(run):
        return False
    reuse = settings.reuse if isinstance(settings, Pretraining) else None
    if reuse != "any" and (changed := changed_parts(run, parts, corpus)):
        raise UserError(
            f"{run}: complete, but made before a change in {few(changed)}. Give this one another name=..., or remove that "
            f"folder{', or accept its result with reuse=any' if reuse else ''}."
        )
    return True


def own_place(run: Path, settings: Pretraining) -> Path:
    """`run`, or if that holds a run with other settings or parts, a folder beside it that is named by what differs.

    The first rank prints which folder it is and why.
    """
    changed = [line.split(": ")[0] for line in changed_settings(run, settings)]
    now, place, first = flatten(plain(settings)), run, os.environ.get("RANK", "0") == "0"
    if changed:
        place = run.with_name(f"{run.name}-{folder_name('+'.join(f'{key}-{now.get(key)}' for key in changed))}")
        if first:
            print(f"{run} holds a run with other settings; this run goes to {place}")
    if settings.reuse != "any" and is_ended(place):
        parts = parts_of(settings)
        if changed := changed_parts(place, parts, settings.corpus):
            before = place
            place = place.with_name(f"{place.name}-{digest_of([parts, corpus_now(settings.corpus)])[:8]}")
            if first:
                why = f"{before} is complete, but made before a change in {few(changed)}"
                print(f"{why}; this run goes to {place} (reuse=any accepts the old result)")
    return place


def trained_by_other_code(checkpoint: str) -> str | None:
    """A remark on a checkpoint that was trained with other code of the encoder; None if the code is the same or unknown."""
    path = resolve_checkpoint(checkpoint).parent / FILE
    now = code_files("model.encoder", rooms=("model",))
    before = read_json(path)["parts"] if path.exists() else now
    changed = [name for name, digest in now.items() if before.get(name) != digest]
    if not changed:
        return None
    return f"{checkpoint} was trained before a change in {few(changed)}; train it again if the change affects the results"
