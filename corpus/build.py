"""Sources in, one clean, deduplicated, documented corpus out: every document that came in is kept or has its reason.

Stages: annotate, decide, lines, duplicates, task items, split, write, report. Each is made of units (corpus.units) in the
folder `.NAME.work` beside the result, and skips those that are there for the same code, settings and inputs; so a build
that was killed goes on where it was, and a changed threshold reads no file again. The result is put together in the work
folder and swapped in by a rename: a build that fails leaves the earlier result as it was.
"""

import fcntl
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import digest_of, read_json, read_jsonl, sha256_file, sync
from corpus.annotate import REJECTED
from corpus.engine import Engine, check_engine
from corpus.mixture import source_rates
from corpus.quality import find_preset
from corpus.report import table
from corpus.sources import Source, file_identity, find_sources
from corpus.stages import CARD, PAGE, REPORT, Stages, essence, size_of
from corpus.units import MANIFEST, code_digest, is_done, seal, sweep, sweep_parts
from corpus.write import HELDOUT, REMOVED

# Every setting with its default; conf/corpus/*.yaml explains them. A key that is not here is an error.
DEFAULTS: dict[str, Any] = {
    "path": None,
    "sources": None,
    "weights": None,
    "licence": None,
    "max_bad_fraction": 0.01,
    "cyrillic_to_latin": True,
    "personal_data": True,
    "second_opinion": False,
    "min_characters": 10,
    "language_check": True,
    "language_score": None,
    "quality": {"preset": "none"},
    "line_duplicates": 10,
    "near_duplicates": 0.7,
    "decontaminate": [],
    "heldout_fraction": 0.01,
    "heldout_max": 500,
    "mixture": {"temperature": 1.0, "max_repeats": 4},
    "keep_work": True,
    "engine": {"name": "processes", "workers": None, "address": None},
}
OUR_NAMES = {REPORT, MANIFEST, PAGE, CARD, HELDOUT, REMOVED, REJECTED, "documents"}


def build_corpus(settings: dict[str, Any], out: str | Path) -> dict[str, Any]:
    """Build the corpus that `settings` (conf/corpus) describes in the folder `out`, print and return its report.

    Reused when `out` already holds the corpus of the same code, settings and input. Raises UserError for settings or
    input that cannot give a corpus; `out` is then as it was.
    """
    settings = _checked(settings)
    out = Path(out)
    sources, ignored = find_sources({key: settings[key] for key in ("path", "sources", "weights", "licence")})
    work, old, lock = (out.with_name(f".{out.name}.{word}") for word in ("work", "old", "lock"))
    out.parent.mkdir(parents=True, exist_ok=True)
    with open(lock, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)  # a second build of the same folder waits, then reuses what the first made
        if old.exists() and not out.exists():  # killed between the two renames below
            old.rename(out)
        strangers = sorted({entry.name for entry in out.iterdir()} - OUR_NAMES) if out.is_dir() else []
        if strangers or (out.exists() and not out.is_dir()):
            stranger = (strangers or [out.name])[0]
            raise UserError(f"{out}: holds something that is no corpus ({stranger}). Choose another folder.")
        inputs = _inputs(sources)
        tasks = _task_files(settings["decontaminate"])
        digest = digest_of({
            "code": code_digest("corpus.build"), "settings": essence(settings), "tasks": [task[1:] for task in tasks],
            "input": [[s.name, s.weight, s.licence, s.options, files] for s, files in zip(sources, inputs, strict=True)],
        })  # fmt: skip
        if _is_whole(out, digest, settings["mixture"]):
            report = read_json(out / REPORT)
            print(f"corpus: reused {out} ({report['total']['kept']:,} documents)")
            return report
        shutil.rmtree(old, ignore_errors=True)
        sweep_parts(work)
        try:
            size = sum(size_of(entry) for files in inputs for entry in files)
            with Engine(check_engine(settings["engine"]), size) as engine:
                builder = Stages(settings, sources, inputs, tasks, work, engine)
                report = builder.run(ignored)
            result = work / "result"
            seal(result, {"digest": digest, "mixture": settings["mixture"]})
            if out.exists():
                out.rename(old)
            result.rename(out)
            sync(out.parent)
        except OSError as error:
            raise UserError(
                f"{error.filename or out}: cannot be written ({error.strerror or error}). An earlier corpus is untouched, "
                "and what is finished is used again. Make room or choose another folder."
            ) from None
        finally:
            if old.exists() and not out.exists():
                old.rename(out)
            shutil.rmtree(old, ignore_errors=True)
        if settings["keep_work"]:
            sweep(work, builder.lasting)
        else:
            shutil.rmtree(work, ignore_errors=True)
    print(table(report))
    print(f"corpus: written to {out}; read {out / PAGE}")
    return report


def read_documents(out: str | Path, source: str) -> Iterator[dict[str, Any]]:
    """The kept training documents of one source, in their order; raises UserError when the corpus lacks it."""
    for _, document in read_jsonl(Path(out) / "documents" / f"{source}.jsonl.gz"):
        yield document


def list_sources(out: str | Path) -> list[str]:
    """Names of the sources of a built corpus, in the order of the config."""
    return list(read_json(Path(out) / REPORT)["sources"])


def heldout_path(out: str | Path) -> Path:
    """The file with the held-out documents of all sources."""
    return Path(out) / HELDOUT


def _checked(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with their defaults, every value one that can work."""
    unknown = set(settings) - set(DEFAULTS)
    if unknown:
        raise UserError(f"corpus.{sorted(unknown)[0]}: no such setting. There are {', '.join(DEFAULTS)}.")
    settings = {**DEFAULTS, **settings}

    def check(key: str, low: float, high: float, whole: bool) -> None:
        value = settings[key]
        kinds, kind = (int, "whole number") if whole else (int | float, "number")
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise UserError(f"corpus.{key}={value}: expected a {kind} from {low} to {high:g}. Correct the setting.")

    check("min_characters", 0, 1e9, True)
    check("heldout_max", 0, 1e9, True)
    check("heldout_fraction", 0, 0.5, False)
    check("max_bad_fraction", 0, 1, False)
    for key, low, high, whole in (
        ("near_duplicates", 0.5, 1, False),
        ("language_score", 0, 1, False),
        ("line_duplicates", 2, 1e9, True),
    ):
        if settings[key] is not None:
            check(key, low, high, whole)
    for key in ("cyrillic_to_latin", "personal_data", "second_opinion", "language_check", "keep_work"):
        if not isinstance(settings[key], bool):
            raise UserError(f"corpus.{key}={settings[key]}: expected true or false. Correct the setting.")
    quality = dict(settings["quality"] or {})
    find_preset(str(quality.pop("preset", "none")), **quality)
    mixture = {**DEFAULTS["mixture"], **(settings["mixture"] or {})}
    source_rates(np.ones(1), np.ones(1), mixture["temperature"], mixture["max_repeats"])
    check_engine(settings["engine"])
    return settings | {"mixture": mixture}


def _inputs(sources: list[Source]) -> list[list[list[Any]]]:
    """Label, size and SHA-256 of each file of each source, or what stands for them (see file_identity)."""
    return [
        [[label, *file_identity(path, source.options)] for path, label in zip(source.files, source.labels, strict=True)]
        for source in sources
    ]


def _task_files(names: list[str] | None) -> list[list[str]]:
    """Path and digest of each task file or folder to be kept out of the corpus: of a folder, of all that is in it."""
    found = []
    for name in names or []:
        path = Path(name).expanduser().resolve()
        if not path.exists():
            raise UserError(f"corpus.decontaminate: {name}: no such file or folder. Correct the path.")
        files = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
        found.append([str(path), digest_of([[str(file.relative_to(path)), sha256_file(file)] for file in files])])
    return found


def _is_whole(out: Path, digest: str, mixture: dict[str, Any]) -> bool:
    """Whether `out` holds the corpus of this digest, reported under this mixture, with every file in its recorded size."""
    try:
        manifest = read_json(out / MANIFEST)
        return manifest["digest"] == digest and manifest["mixture"] == mixture and is_done(out)
    except (UserError, KeyError, TypeError):
        return False
