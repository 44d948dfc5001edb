"""What all builders share: what one hands over, rows of any task file, groups and splits, the written set read back."""

import glob
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import ROOT, open_whole, sha256_file, write_jsonl
from common.task_files import Noted, Skipped, read_task_file
from tasks.load import SPLITS, Task, load_task
from tasks.settings import TaskSettings
from tasks.splits import split_by_group

Table = list[tuple[Any, ...]]  # header first


@dataclass
class Built:
    """A finished set before it is written, and everything that its card says beside the sizes."""

    kind: str  # a file of tasks/
    parts: dict[str, list[dict[str, Any]]]  # train, dev and test: examples as the files have them, each with its group
    aside: list[dict[str, Any]] = field(default_factory=list)  # {"file", "line", "id", "reason", "row"}
    task: dict[str, Any] = field(default_factory=dict)  # keys of the task beside kind and files: positive, metric ...
    counts: dict[str, int] = field(default_factory=dict)  # what there was on the way, in order
    sections: list[tuple[str, Sequence[str] | Table]] = field(default_factory=list)  # of the card: title, paragraphs or table
    beware: list[str] = field(default_factory=list)  # what a user of the set must know
    facts: dict[str, Any] = field(default_factory=dict)  # the numbers behind the sections, for report.json
    by: str = "label"  # field by which sizes are counted and samples drawn
    more_files: dict[str, bytes] = field(default_factory=dict)  # name: content of what lies beside card and report


def aside(file: str, line: int | None, reason: str, row: Any = None, identity: Any = None) -> dict[str, Any]:
    """One record that is not used, as aside.jsonl lists it; the bytes of a picture are not."""
    return {"file": file, "line": line, "id": identity, "reason": reason, "row": _listed(row)}


def _listed(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _listed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(inner) for inner in value]
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    return value if value is None or isinstance(value, str | int | float) else str(value)


def find_inputs(given: Any, key: str = "files") -> list[Path]:
    """The files of a setting: a path, a glob or a list of them, from the working folder, else from the checkout."""
    wanted = [given] if isinstance(given, str) else list(given or [])
    if not wanted:
        raise UserError(f"{key}: no file given. Add {key}=FILE to the command (a path, a glob or a list of them).")
    found: list[Path] = []
    for pattern in map(str, wanted):
        hits = sorted(glob.glob(str(Path(pattern).expanduser())) or glob.glob(str(ROOT / pattern)))
        if not hits:
            raise UserError(f"{key}={pattern}: no such file. Correct the path.")
        found += [Path(hit) for hit in hits]
    return list(dict.fromkeys(found))


def read_rows(files: Sequence[Path], put_aside: list[dict[str, Any]]) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """(file, line, row) of every record of task files of any format; what cannot be read goes to `put_aside`."""
    for path in files:
        for line, row in read_task_file(path):
            if isinstance(row, Skipped):
                put_aside.append(aside(path.name, line, row.reason))
            elif not isinstance(row, Noted):
                yield path, line, row


def dealt(
    examples: Sequence[dict[str, Any]], shares: Sequence[float], stratify: bool = False
) -> dict[str, list[dict[str, Any]]]:
    """Examples in train, dev and test by the hash of their "group"; `stratify`: class by class, for small classes."""
    parts = split_by_group(list(examples), "classification", shares, stratify)  # of this kind "group" is the unit of leakage
    return dict(zip(SPLITS, parts, strict=True))


def write_parts(folder: Path, built: Built) -> dict[str, Path]:
    """Write data/train, dev and test of a set: .conll for tags, .jsonl for all else; returns their paths."""
    ending = "conll" if built.kind == "tagging" else "jsonl"
    files = {split: folder / "data" / f"{split}.{ending}" for split in SPLITS}
    for split, path in files.items():
        if built.kind == "tagging":
            with open_whole(path) as file:
                for example in built.parts[split]:
                    rows = zip(example["words"], example["tags"], strict=True)
                    file.write(("".join(f"{word}\t{tag}\n" for word, tag in rows) + "\n").encode())
        else:
            write_jsonl(path, built.parts[split])
    return files


def read_back(built: Built, files: Mapping[str, Path], name: str, language: str) -> Task:
    """The set as fine-tuning reads it. Raises UserError for an empty part and AssertionError where a row is lost."""
    for split in SPLITS:
        if not built.parts[split]:
            sizes = "/".join(str(len(built.parts[part])) for part in SPLITS)
            raise UserError(f"the {split} part has no example ({sizes} in train/dev/test). Give more material, or set shares.")
    paths = {split: str(path) for split, path in files.items()}
    task = load_task(TaskSettings(name=name, kind=built.kind, language=language, **paths, **built.task))
    for split in SPLITS:
        assert len(getattr(task, split)) == len(built.parts[split]), (split, task.skipped[:3])
    return task


def inputs_of(files: Sequence[Path]) -> list[dict[str, Any]]:
    """Name, size and SHA-256 of each input file, in order."""
    return [{"file": path.name, "bytes": path.stat().st_size, "sha256": sha256_file(path)} for path in files]


def reasons(put_aside: Sequence[Mapping[str, Any]]) -> list[tuple[str, int, str]]:
    """(reason, how many, first place) of what was set aside, the commonest first."""
    count = Counter(record["reason"] for record in put_aside)
    first: dict[str, str] = {}
    for record in put_aside:
        first.setdefault(record["reason"], f"{record['file']}:{record['line']}")
    return [(reason, number, first[reason]) for reason, number in sorted(count.items(), key=lambda item: (-item[1], item[0]))]
