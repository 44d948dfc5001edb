"""Atomic files: written under a temporary name, synced, then renamed; readers name the file and line in every error."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from common.errors import UserError, disk_error

ROOT = Path(__file__).resolve().parent.parent  # the checkout


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """A block that writes to `path`: errors of the disk become a DiskError, all others pass through."""
    try:
        yield
    except Exception as error:
        if told := disk_error(error, path):
            raise told from None
        raise


def sync(path: Path) -> None:
    """Flush a file or folder to disk. A rename is durable only once the folder that holds the name is flushed too."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Flush every file below `folder`, and the folder itself, to disk."""
    for path in [*folder.rglob("*"), folder]:
        with writing(path):
            sync(path)


def remove(path: Path) -> None:
    """Remove a folder with its contents, a file, or a link (never its target). A missing path is no error."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path, ignore_errors=True)


def put_in_place(finished: Path, folder: Path) -> None:
    """Rename the folder `finished` to `folder`; an existing folder is removed only once its successor is ready.

    If `folder` is a symbolic link, the link stays and the folder that it points to is replaced, on whatever disk that is.
    """
    with writing(folder):
        folder = Path(os.path.realpath(folder))
        folder.parent.mkdir(parents=True, exist_ok=True)
        if finished.stat().st_dev != folder.parent.stat().st_dev:  # a rename cannot cross disks
            beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
            remove(beside)
            try:
                shutil.copytree(finished, beside, symlinks=True)
                sync_tree(beside)
                swap(beside, folder)
            finally:
                remove(beside)
            remove(finished)
        else:
            swap(finished, folder)


def swap(finished: Path, folder: Path) -> None:
    """Rename `finished` to `folder` on the same disk; an existing folder is removed once its successor is in place."""
    old = folder.with_name(f".{folder.name}.old")
    remove(old)
    if folder.exists():
        folder.rename(old)
    try:
        finished.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
    sync(folder.parent)
    remove(old)


@contextlib.contextmanager
def open_whole(path: str | Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes, so that it appears complete or not at all.

    The bytes go to a hidden temporary file beside it, which is synced and renamed at the end of the block. If the block
    raises, the temporary file is removed and an existing file at `path` stays as it was. A name that ends in `.gz` is
    compressed, without a time stamp, so that equal content gives equal bytes. Raises DiskError where the disk is full,
    read-only or not writable.
    """
    path = Path(os.path.realpath(path)) if Path(path).is_symlink() else Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(beside, "wb") as raw:
                if path.suffix == ".gz":
                    with gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0, compresslevel=6) as packed:
                        yield packed  # type: ignore[misc]
                else:
                    yield raw
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(beside, path)
            sync(path.parent)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with open_whole(path) as file:
        file.write(content)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON with letters left as they are (ə stays ə)."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def read_json(path: str | Path) -> Any:
    """Read one JSON file (.gz or plain); raises UserError with the place when it is missing or damaged."""
    try:
        with open_text(path) as file:
            return json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}). Restore the file or create it again.") from None


# json.dumps would create an encoder for each record.
_encode = json.JSONEncoder(ensure_ascii=False, separators=(", ", ": ")).encode


def json_line(record: Any) -> bytes:
    """One record as a line of JSON, in the format of every .jsonl file that the project writes."""
    return (_encode(record) + "\n").encode()


def write_jsonl(path: str | Path, records: Any) -> int:
    """Write an iterable of records to `path` (.jsonl or .jsonl.gz), whole or not at all; returns their number."""
    count = 0
    with open_whole(path) as file:
        for record in records:
            file.write(json_line(record))
            count += 1
    return count


POINTER = b"version https://git-lfs.github.com/spec/"  # how the note begins that git-lfs leaves in the place of a file
# Its predecessors' notes too, a byte-order mark and blanks before it (editors put them), and git-annex's.
_POINTER = re.compile(
    rb"(?:\xef\xbb\xbf)?\s{0,9}"
    rb"(?:version https?://(?:git-lfs\.github\.com|hawser\.github\.com|git-media\.io)/|\S{0,99}/annex/objects/)"
)


def is_pointer(path: str | Path) -> bool:
    """Whether a file is no data but the note of git-lfs or git-annex of where they lie, which a clone without them has.

    Of a .gz file what is packed in it is looked at too.
    """
    with open(path, "rb") as file:
        begin = file.read(200)
    if begin.startswith(b"\x1f\x8b"):
        with contextlib.suppress(zlib.error):
            begin = zlib.decompressobj(wbits=31).decompress(begin, 200)
    return _POINTER.match(begin) is not None


def refuse_pointer(path: str | Path) -> None:
    """UserError for a git-lfs pointer. Called wherever a file from outside the project is read."""
    with contextlib.suppress(OSError):  # a missing file is reported by whoever opens it next
        if is_pointer(path):
            raise UserError(
                f"{path}: a git-lfs pointer, not the file itself. Run `git lfs pull` in its clone and try again (or "
                "`git annex get`, where git-annex keeps it)."
            )


def open_text(path: str | Path) -> IO[str]:
    """Open a text file (.gz or plain) for reading as UTF-8, without a byte-order mark; only \\n ends a line.

    Raises UserError for a missing file and for a git-lfs pointer.
    """
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file.")
    refuse_pointer(path)
    raw = gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # noqa: SIM115  (the caller closes it)
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="\n")  # type: ignore[arg-type]


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for every non-empty line; a line that cannot be read is a UserError with its number.

    For files that the project wrote or that a task needs complete. Raw corpora are read by `corpus.reading.sources`, which
    sets bad lines aside and counts them.
    """
    number = 0
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                record = json.loads(line)
                if not isinstance(record, dict):
                    raise UserError(f"{path}, line {number}: expected a JSON object, found {type(record).__name__}.")
                yield number, record
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {number}: not valid JSON ({error}). Correct or remove the line.") from None
    except (UnicodeDecodeError, EOFError, OSError) as error:
        raise UserError(f"{path}, after line {number}: cannot be read ({error}). Restore the file.") from None


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes, read in chunks of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Hex SHA-256 of a JSON-able value in one canonical form: the identity of configs and inputs."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
