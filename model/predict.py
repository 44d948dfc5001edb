"""Apply a fine-tuned checkpoint to new text; one JSON line for each input, on the terminal or in a file.

    python -m model.predict CHECKPOINT FILE [--out FILE.jsonl]

FILE: .jsonl, .json, .csv, .tsv, .parquet or .arrow in the task's format (no labels needed), or .txt with one text a line
(classification, tagging; for tagging it is split into words and punctuation) or, for pairs, two texts separated by a tab;
.conll for tagging, with or without tags. All but parquet and arrow may end in .gz.
"""

import argparse
import json
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError, command
from common.files import open_text, write_jsonl
from common.task_files import FORMATS, format_of
from data.features import encode
from model.adapters import load_any
from model.decoding import score_and_read
from model.heads import TaskModel
from tasks.base import kind_of
from tasks.cells import SkipRecord, list_of
from tasks.files import TaskFile, read_rows
from tasks.tagging import WORDS
from tokenization.tokenizer import Tokenizer

MAX_TOKENS = 16384  # of one forward pass


def read_inputs(path: str | Path, kind: str) -> list[dict[str, Any]]:
    """Examples without gold answers from a file in any of the formats above.

    Raises UserError for a missing file or column, and for an empty or unreadable one.
    """
    path = Path(path)
    suffix, loaded = format_of(path), TaskFile()
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    if suffix not in (".txt", *FORMATS):
        raise UserError(f"{path}: format '{suffix}' is not read. Use .txt, .jsonl, .json, .csv, .tsv, .parquet or .conll.")
    try:
        rows = _lines(path, kind) if suffix == ".txt" else list(read_rows(path, kind, loaded, bare=True))
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Save it as UTF-8 and try again.") from None
    if loaded.skipped:  # a training file may lose a record, but here every input needs an answer
        first = loaded.skipped[0]
        raise UserError(f"{path}, line {first['line']}: {first['reason']}. Correct or remove it; nothing was predicted.")
    if not rows:
        raise UserError(f"{path}: nothing in it to predict. Give one text a line.")
    return [_example(path, line, row, kind) for line, row in rows]


def _lines(path: Path, kind: str) -> list[tuple[int, dict[str, Any]]]:
    own, rows = kind_of(kind), []
    for line, text in enumerate(open_text(path), start=1):
        if not text.strip():
            continue
        example = own.from_line(text)
        if example is None:
            wanted = own.line or f"a .jsonl with {' and '.join(own.inputs)}"
            raise UserError(f"{path}, line {line}: a {kind} model needs {wanted}.")
        rows.append((line, example))
    return rows


def _example(path: Path, line: int, row: dict[str, Any], kind: str) -> dict[str, Any]:
    """The fields of `kind` from one record, found under the column names of task files."""
    folded = {str(key).lower(): key for key in row}
    aliases = {name.rstrip("?"): names for name, names in kind_of(kind).fields.items()}
    example: dict[str, Any] = {"id": str(row.get("id", line))}
    for name in kind_of(kind).inputs:
        column = next((folded[alias] for alias in aliases[name] if alias in folded), None)
        if name == "options" and column is None:  # columns A, B, C, ...
            letters = [folded[letter] for letter in "abcdefg" if row.get(folded.get(letter))]
            value: Any = [row[letter] for letter in letters]
        else:
            value = row[column] if column is not None else None
        if name in ("options", "words") and isinstance(value, str | dict):
            value = _list(value, name == "words")
        if not value or (name in ("options", "words") and not isinstance(value, list)):
            raise UserError(
                f"{path}, line {line}: nothing for '{name}' (looked for {', '.join(aliases[name])}; the record has "
                f"{', '.join(map(str, row))}). A {kind} model needs {' and '.join(kind_of(kind).inputs)}."
            )
        example[name] = [_nfc(part) for part in value] if isinstance(value, list) else _nfc(value)
    return example


def _list(cell: Any, cut: bool) -> list[Any] | None:
    """A list in the form that task files have in a cell; with `cut`, running text is split into words."""
    if cut and isinstance(cell, str) and not cell.lstrip().startswith("["):
        return WORDS.findall(cell)
    try:
        return list_of(cell)
    except SkipRecord:
        return None


def _nfc(value: Any) -> str:
    return unicodedata.normalize("NFC", str(value.get("text") if isinstance(value, dict) else value))


def predict(
    model: TaskModel, tokenizer: Tokenizer, task: dict[str, Any], examples: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One record for each example, as its kind answers: label and probability; tags and entities; ... `task`: task.json."""
    kind = kind_of(task["kind"])
    encoded = encode(examples, task["kind"], tokenizer, task["labels"], task["max_length"], task.get("window_overlap_tokens"))
    said = score_and_read(model, examples, encoded, task["labels"], task, MAX_TOKENS)
    results = []
    for example, record in zip(examples, said, strict=True):
        cut = {"truncated": True} if record["truncated"] else {}
        results.append({"id": record["id"], **kind.answer(example, record), **cut})
    return results


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model.predict", description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoint", help="a fine-tuned checkpoint, an adapter, or the seed folder that finetune.py wrote")
    parser.add_argument("file", help="the text")
    parser.add_argument("--out", help="write the lines to this .jsonl instead of the terminal")
    options = parser.parse_args(arguments)
    model, tokenizer, task = load_any(options.checkpoint)
    results = predict(model, tokenizer, task, read_inputs(options.file, task["kind"]))
    if options.out:
        print(f"{options.out}: {write_jsonl(options.out, results)} predictions")
    else:
        try:
            for result in results:
                print(json.dumps(result, ensure_ascii=False), flush=True)
        except BrokenPipeError:  # | head
            sys.stdout = None


if __name__ == "__main__":
    sys.exit(main())
