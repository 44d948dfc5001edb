"""Files that arrive whole: written beside, synced, renamed; read with the line number in every complaint."""

import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from common.errors import UserError


def sync(path: Path) -> None:
    """Force a file to disk, or a folder: a rename is durable only once the folder that holds the name is on disk too."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_tree(folder: Path) -> None:
    """Force every file below `folder`, and the folder itself, to disk."""
    for path in [*folder.rglob("*"), folder]:
        sync(path)


def put_in_place(finished: Path, folder: Path) -> None:
    """Rename the folder `finished` to `folder`; what stood there goes only once its successor is ready."""
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    finished.rename(folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def open_whole(path: str | Path) -> Iterator[IO[bytes]]:
    """Open `path` for writing bytes so that it appears complete or not at all.

    The bytes go to a hidden neighbour that is synced and renamed at the end of the block. If the block raises, the
    neighbour is removed and whatever stood at `path` before is untouched. A name that ends in `.gz` is compressed,
    with no time stamp inside, so that the same content gives the same file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
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
        with contextlib.suppress(FileNotFoundError):
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
    """Read one JSON file (.gz or plain); raise UserError with the place when it is missing or damaged."""
    try:
        with open_text(path) as file:
            return json.load(file)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid JSON ({error}). Restore the file or make it anew.") from None


_encode = json.JSONEncoder(ensure_ascii=False, separators=(", ", ": ")).encode  # json.dumps would make one a record


def json_line(record: Any) -> bytes:
    """One record as a line of JSON, the one spelling used for every .jsonl file that the project writes."""
    return (_encode(record) + "\n").encode()


def write_jsonl(path: str | Path, records: Any) -> int:
    """Write an iterable of records to `path` (.jsonl or .jsonl.gz), whole or not at all; return how many."""
    count = 0
    with open_whole(path) as file:
        for record in records:
            file.write(json_line(record))
            count += 1
    return count


def open_text(path: str | Path) -> IO[str]:
    """Open a text file (.gz or plain) for reading as UTF-8 without a byte-order mark, lines ended by \\n alone."""
    path = Path(path)
    if not path.exists():
        raise UserError(f"{path}: no such file.")
    raw = gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb")  # noqa: SIM115  (the caller closes it)
    return io.TextIOWrapper(raw, encoding="utf-8-sig", newline="\n")  # type: ignore[arg-type]


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object) for every non-empty line; raise UserError that names the line otherwise.

    For files that we wrote or that a task needs whole. Raw corpora, where a bad line is set aside and counted
    instead, go through `corpus.sources`.
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
    """Hex SHA-256 of a file's bytes, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def digest_of(value: Any) -> str:
    """Hex SHA-256 of any JSON-able value in one canonical spelling: the identity of configs and inputs."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
