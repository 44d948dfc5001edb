"""One piece of work, one folder that arrives whole: its name is the digest of the code, settings and inputs behind it.

A unit's folder holds its outputs and a manifest with their sizes and checksums. Whoever is killed leaves a hidden
neighbour that nobody reads; whoever comes again skips the folders that are there. A changed setting gives another
name, so nothing that was made under other settings is ever taken for the answer.
"""

import ast
import functools
import importlib.metadata
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import digest_of, read_json, sha256_file, sync, write_json

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = "manifest.json"
# Text that these make differs from version to version, so their versions are part of the code's digest.
LIBRARIES = ("ftfy", "py3langid", "trafilatura")
DATA_FILE = re.compile(r"[\w-]+\.(?:npz|npy|json|tsv|txt)")


@functools.cache
def code_digest(module: str) -> str:
    """Digest of the source of a module (corpus.annotate, ...), of every module of ours that it imports, and of their data.

    Imports are read from the source, those inside functions too. Data is what a module names and has beside it: the
    detector's weights, the list of words.
    """
    files: dict[str, str] = {}
    waiting = [module]
    while waiting:
        path = ROOT / (waiting.pop().replace(".", "/") + ".py")
        name = path.relative_to(ROOT).as_posix()
        if name in files or not path.is_file():
            continue
        files[name] = sha256_file(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and DATA_FILE.fullmatch(node.value):
                data = path.with_name(node.value)
                if data.is_file():
                    files[data.relative_to(ROOT).as_posix()] = sha256_file(data)
    return digest_of([sorted(files.items()), _versions()])


@functools.cache
def _versions() -> dict[str, str | None]:
    found: dict[str, str | None] = {"python": ".".join(map(str, sys.version_info[:2]))}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def unit_folder(stage: Path, digest: str) -> Path:
    """Where the unit of this digest lies in the folder of its stage."""
    return stage / digest[:32]


def is_done(folder: Path) -> bool:
    """Whether a unit is there with every file in its recorded size."""
    try:
        sizes = read_json(folder / MANIFEST)["sizes"]
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (UserError, OSError, KeyError, TypeError):
        return False


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a finished unit: `digest`, `files` (SHA-256), `sizes`, and `summary` as its maker returned it."""
    return read_json(folder / MANIFEST)


def make_unit(folder: Path, digest: str, make: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
    """Run `make(empty folder)` unless the unit is there; return its summary.

    The folder is made under a hidden name, its files synced and described in a manifest, then renamed. Two processes
    may make the same unit at once (a worker that was believed dead): both write the same bytes and one rename wins.
    """
    if is_done(folder):
        return read_manifest(folder)["summary"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    hidden = folder.with_name(f".{folder.name}.{os.getpid()}.part")
    shutil.rmtree(hidden, ignore_errors=True)
    hidden.mkdir()
    try:
        summary = make(hidden)
        seal(hidden, {"digest": digest, "summary": summary})
        if folder.exists():
            shutil.rmtree(folder)
        try:
            hidden.rename(folder)
        except OSError:
            if not is_done(folder):
                raise
        sync(folder.parent)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
    return summary


def seal(folder: Path, content: dict[str, Any]) -> None:
    """Sync every file of `folder` and write its manifest: `content` with each file's checksum and size."""
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    for name in names:
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
    write_json(folder / MANIFEST, content | {
        "files": {name: sha256_file(folder / name) for name in names},
        "sizes": {name: (folder / name).stat().st_size for name in names},
    })  # fmt: skip


def sweep(work: Path, wanted: Iterable[Path]) -> None:
    """Remove every unit of the work folder that is not wanted, and what killed processes left."""
    keep = set(wanted)
    for stage in work.iterdir() if work.is_dir() else ():
        for folder in stage.iterdir() if stage.is_dir() else ():
            if folder not in keep:
                shutil.rmtree(folder, ignore_errors=True)


def sweep_parts(work: Path) -> None:
    """Remove what killed processes left half-made; finished units stay."""
    for path in work.glob("*/.*.part"):
        shutil.rmtree(path, ignore_errors=True)
