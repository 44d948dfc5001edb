"""Units of work: each is a folder, written atomically and named by the digest of its code, settings and inputs.

A unit's folder holds its outputs and a manifest with their sizes and checksums. A killed process leaves only a hidden
folder, which is ignored; the next run skips the units that exist. A changed setting gives another name, so a unit made
under other settings is never taken for the result.
"""

import functools
import importlib.metadata
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from common.code import code_files
from common.errors import UserError
from common.files import digest_of, read_json, remove, sha256_file, sync, write_json
from language.base import load_language

MANIFEST = "manifest.json"
# Libraries whose text output differs between versions, so their versions are part of the code's digest.
LIBRARIES = ("ftfy", "py3langid", "trafilatura")


@functools.cache
def code_digest(module: str) -> str:
    """Digest of a module (corpus.stages.annotate, ...) with the project's modules that it imports and the LIBRARIES."""
    return digest_of([sorted(code_files(module).items()), library_versions()])


@functools.cache
def pack_digest(language: str) -> str:
    """Digest of the language pack of this name, with its imports and data, wherever its file lies."""
    path = Path(str(sys.modules[f"language.{load_language(language).name}"].__file__))
    return digest_of([sorted(code_files(f"language.{language}").items()), sha256_file(path)])


@functools.cache
def library_versions() -> dict[str, str | None]:
    """Versions of Python and of LIBRARIES, None of one that is not installed."""
    found: dict[str, str | None] = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def unit_folder(stage: Path, digest: str) -> Path:
    """The folder of the unit with this digest, inside the folder of its stage."""
    return stage / digest[:32]


def is_done(folder: Path) -> bool:
    """Whether a unit exists with every file in its recorded size."""
    try:
        sizes = read_json(folder / MANIFEST)["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (UserError, OSError, KeyError, TypeError):
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished unit: `digest`, `files` (SHA-256), `sizes`, and `summary` as returned by its function."""
    return read_json(folder / MANIFEST)


def make_unit(folder: Path, digest: str, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Run `make(empty folder)` unless the unit exists; return its summary.

    The folder is made under a hidden name, its files are synced and described in a manifest, then it is renamed. Two
    processes may make the same unit at once (if a live worker was believed dead): both write the same bytes, and one wins.
    """
    if is_done(folder):
        return read_manifest(folder)["summary"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    remove(hidden)
    hidden.mkdir()
    try:
        summary = make(hidden)
        seal(hidden, {"digest": digest, "summary": summary})
        if folder.exists():
            remove(folder)
        try:
            hidden.rename(folder)
        except OSError:
            if not is_done(folder):
                raise
        sync(folder.parent)
    finally:
        remove(hidden)
    return summary


def seal(folder: Path, content: dict[str, Any]) -> None:
    """Sync every file of `folder` and write its manifest: `content` with each file's checksum and size."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in names:
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
    write_json(
        folder / MANIFEST,
        content
        | {
            "files": {name: sha256_file(folder / name) for name in names},
            "sizes": {name: (folder / name).stat().st_size for name in names},
        },
    )


def sweep(work: Path, wanted: Iterable[Path]) -> None:
    """Remove every unit of the work folder that is not in `wanted`, and leftovers of killed processes."""
    keep = set(wanted)
    for stage in work.iterdir() if work.is_dir() else ():
        for folder in stage.iterdir() if stage.is_dir() else ():
            if folder not in keep:
                remove(folder)


def sweep_parts(work: Path) -> None:
    """Remove unfinished units of killed processes; finished units stay."""
    for path in work.glob("*/.*.part"):
        remove(path)
