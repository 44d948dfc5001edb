"""Build one clean, deduplicated, documented corpus from sources: every record is kept or removed with a recorded reason.

Stages: annotate, decide, lines, duplicates, task items, split, write, report. Each consists of units (corpus.stages.units)
in the folder `.NAME.work` beside the result, and skips the units that exist for the same code, settings and inputs. So a
killed build resumes where it stopped, and a changed threshold does not read the files again. The result is assembled in
the work folder and put in place by a rename: a build that fails leaves the earlier result unchanged.
"""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from common.code import code_files
from common.errors import UserError, disk_error
from common.files import digest_of, read_json, read_jsonl, remove, sha256_file, swap
from common.locks import hold
from common.settings import plain
from corpus.pages.terminal import table
from corpus.quality import find_preset
from corpus.reading.sources import Source, file_identity, find_sources
from corpus.settings import Corpus
from corpus.stages.annotate import REJECTED
from corpus.stages.engine import Engine
from corpus.stages.stages import CARD, PAGE, REPORT, Stages, identity_settings, size_of
from corpus.stages.units import MANIFEST, code_digest, is_done, library_versions, pack_digest, seal, sweep, sweep_parts
from corpus.stages.write import HELDOUT, REMOVED
from language.base import Language, load_language, one_language

OUR_NAMES = {REPORT, MANIFEST, PAGE, CARD, HELDOUT, REMOVED, REJECTED, "documents"}


def build_corpus(settings: Corpus, out: str | Path, origin: dict[str, str] | None = None) -> dict[str, Any]:
    """Build the corpus that `settings` (conf/corpus) describes in the folder `out`, print and return its report.

    The step is skipped if `out` already holds the corpus of the same code, settings and input. Raises UserError for settings
    or input that cannot give a corpus; `out` is then unchanged. `origin` (common.html.origin_of) is printed at the top of the
    page; without it the same input gives the same bytes on any day and machine.
    """
    settings = _checked(settings)
    _refuse_other_language(Path(out), load_language(settings.language))
    (sources, ignored), inputs, tasks, decisive = _inputs_of(settings)
    digest = digest_of([code_digest("corpus.build"), decisive])
    shown, out = Path(out), Path(os.path.realpath(out))  # the target of a link: the link itself stays
    if _is_whole(out, digest, plain(settings.mixture)):
        return _reused(shown)
    with hold(out):  # a second build of the same folder waits, then finds it complete
        work, old = (out.with_name(f".{out.name}.{word}") for word in ("work", "old"))
        if old.exists() and not out.exists():  # killed between the two renames of `swap`
            old.rename(out)
        strangers = sorted({entry.name for entry in out.iterdir()} - OUR_NAMES) if out.is_dir() else []
        if strangers or (out.exists() and not out.is_dir()):
            stranger = (strangers or [out.name])[0]
            raise UserError(f"{shown}: holds something that is no corpus ({stranger}). Choose another folder.")
        if _is_whole(out, digest, plain(settings.mixture)):
            return _reused(shown)
        try:
            remove(old)
            sweep_parts(work)
            size = sum(size_of(entry) for files in inputs for entry in files)
            with Engine(settings.engine, size) as engine:
                builder = Stages(settings, sources, inputs, tasks, work, engine, origin)
                report = builder.run(ignored)
            about = {"digest": digest, "mixture": plain(settings.mixture), "documents": _identity(decisive)}
            seal(work / "result", about)
            swap(work / "result", out)
        except OSError as error:
            told = disk_error(error, shown)
            why = told or f"{error.filename or shown}: cannot be written ({error.strerror or error}). Choose another folder."
            raise UserError(f"{why} An earlier corpus is untouched, and finished stages are kept.") from None
        if settings.keep_work:
            sweep(work, builder.lasting)
        else:
            remove(work)
    print(table(report))
    print(f"corpus: written to {shown}; read {shown / PAGE}")
    return report


def identity_of_documents(settings: Corpus) -> str:
    """Digest of what decides the documents that these settings give now: settings, input, and the code but for its pages.

    Reads all input files. A built corpus has it in its manifest, under "documents". Raises UserError where `build_corpus`
    would before its first stage.
    """
    return _identity(_inputs_of(_checked(settings))[-1])


def documents_of(corpus: str | Path) -> str:
    """That digest of a built corpus: what a tokenizer, shards or a run is made of."""
    manifest = read_json(Path(corpus) / MANIFEST)
    return manifest["documents"] if "documents" in manifest else manifest["digest"]


def _identity(decisive: dict[str, Any]) -> str:
    code = {
        name: own for name, own in code_files("corpus.build", rooms=("corpus", "language")).items() if "/pages/" not in name
    }
    return digest_of([code, library_versions(), decisive])


def _checked(settings: Corpus) -> Corpus:
    """The settings with the language by its name (a code names one too); UserError for a language or a rule that is none."""
    if not settings.language:
        raise UserError("corpus.language: not named. Set language=NAME, a file of language/ (generic for any other language).")
    language = load_language(settings.language)
    quality = dict(settings.quality)
    find_preset(str(quality.pop("preset", "none")), language, **quality)  # a wrong rule is said before any work
    return replace(settings, language=language.name)


def _inputs_of(settings: Corpus) -> tuple[Any, ...]:
    """(sources and what is ignored beside them, identities of their files, task files, all that decides but the code)."""
    language = load_language(settings.language)
    named = [
        {**entry, "path": language.filled(entry["path"])} if isinstance(entry.get("path"), str) else entry
        for entry in settings.sources or []
    ]
    sources, ignored = find_sources(settings.path, named, settings.weights, settings.licence)
    inputs = _inputs(sources)
    tasks = _task_files(settings.decontaminate)
    decisive = {
        "pack": pack_digest(settings.language),
        "settings": identity_settings(settings),
        "tasks": [task[1:] for task in tasks],
        "input": [[s.name, s.weight, s.licence, s.options, files] for s, files in zip(sources, inputs, strict=True)],
    }
    return (sources, ignored), inputs, tasks, decisive


def _refuse_other_language(out: Path, language: Language) -> None:
    """UserError if `out` holds a corpus of another language: a forgotten setting is likelier than the wish to replace it."""
    try:
        said = read_json(out / REPORT).get("language") if (out / REPORT).exists() else None
    except UserError:  # damaged: the corpus is built again
        said = None
    remedy = "Set language to that of the corpus that is there, or build into another folder (name=...)."
    one_language({f"the corpus in {out}": said, "corpus.language": language}, remedy)


def _reused(out: Path) -> dict[str, Any]:
    report = read_json(out / REPORT)
    print(f"corpus: already complete, skipped: {out} ({report['total']['kept']:,} documents)")
    return report


def read_documents(out: str | Path, source: str) -> Iterator[dict[str, Any]]:
    """The training documents of one source, in order; raises UserError if the corpus lacks the source."""
    for _, document in read_jsonl(Path(out) / "documents" / f"{source}.jsonl.gz"):
        yield document


def list_sources(out: str | Path) -> list[str]:
    """Names of the sources of a built corpus, in the order of the config."""
    return list(read_json(Path(out) / REPORT)["sources"])


def heldout_path(out: str | Path) -> Path:
    """The file with the held-out documents of all sources."""
    return Path(out) / HELDOUT


def _inputs(sources: list[Source]) -> list[list[list[Any]]]:
    """Label, size and SHA-256 of each file of each source, or their substitutes (see file_identity)."""
    return [
        [[label, *file_identity(path, source.options)] for path, label in zip(source.files, source.labels, strict=True)]
        for source in sources
    ]


def _task_files(names: list[str] | None) -> list[list[str]]:
    """Path and digest of each task file or folder to decontaminate against; a folder's digest covers all of its files."""
    found = []
    for name in names or []:
        path = Path(name).expanduser().resolve()
        if not path.exists():
            raise UserError(f"corpus.decontaminate: {name}: no such file or folder. Correct the path.")
        files = sorted(entry for entry in path.rglob("*") if entry.is_file()) if path.is_dir() else [path]
        found.append([str(path), digest_of([[str(file.relative_to(path)), sha256_file(file)] for file in files])])
    return found


def _is_whole(out: Path, digest: str, mixture: dict[str, Any]) -> bool:
    """Whether `out` holds the corpus of this digest, reported for this mixture, with every file in its recorded size."""
    try:
        manifest = read_json(out / MANIFEST)
        return manifest["digest"] == digest and manifest["mixture"] == mixture and is_done(out)
    except (UserError, KeyError, TypeError):
        return False
