"""Apply a fine-tuned checkpoint to new text; one JSON line an input on the terminal or in a file.

    python -m model.predict CHECKPOINT FILE [--out FILE.jsonl]

FILE: .jsonl, .json, .csv, .tsv, .parquet or .arrow in the task's format (no labels needed), or .txt with one text a line
(classification, tagging; tagging cuts it into words and punctuation) or, for pairs, two texts a line with a tab between;
.conll for tagging, with or without tags. Each but parquet and arrow may end in .gz.
"""

import argparse
import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError, command
from common.files import open_text, write_jsonl
from data.features import encode, swapped
from data.task_files import FORMATS, TaskFile, format_of, read_rows, read_words
from data.task_records import ALIASES
from evaluation.metrics import entities
from model.adapters import load_any
from model.decoding import predictions, score_rows
from model.heads import TaskModel
from tokenization.tokenizer import Tokenizer

# What an input must have, by kind; gold fields are not needed.
FIELDS = {"classification": ("text",), "pair": ("text", "text_b"), "choice": ("question", "options"), "tagging": ("words",),
          "qa": ("context", "question")}  # fmt: skip
WORDS = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")  # words with inner hyphens and apostrophes whole, marks one by one
MAX_TOKENS = 16384  # of one forward pass


def read_inputs(path: str | Path, kind: str) -> list[dict[str, Any]]:
    """Examples without gold answers from a file of any of the formats above.

    Raises UserError for a missing file or column, and for an empty or unreadable one.
    """
    path = Path(path)
    suffix, loaded = format_of(path), TaskFile()
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    if suffix not in (".txt", *FORMATS):
        raise UserError(f"{path}: format '{suffix}' is not read. Use .txt, .jsonl, .json, .csv, .tsv, .parquet or .conll.")
    try:
        if suffix == ".txt":
            rows = _lines(path, kind)
        elif suffix in (".conll", ".bio", ".iob", ".iob2") and kind == "tagging":
            rows = list(read_words(path, loaded))
        else:
            rows = list(read_rows(path, kind, loaded))
    except (UnicodeDecodeError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Save it as UTF-8 and try again.") from None
    if loaded.skipped:  # a training file may lose a record; here every input has its answer
        first = loaded.skipped[0]
        raise UserError(f"{path}, line {first['line']}: {first['reason']}. Correct it or take it out; nothing was predicted.")
    if not rows:
        raise UserError(f"{path}: nothing in it to predict. Give one text a line.")
    return [_example(path, line, row, kind) for line, row in rows]


def _lines(path: Path, kind: str) -> list[tuple[int, dict[str, Any]]]:
    rows = []
    for line, text in enumerate(open_text(path), start=1):
        if not text.strip():
            continue
        if kind == "classification":
            rows.append((line, {"text": text.strip()}))
        elif kind == "tagging":
            rows.append((line, {"words": WORDS.findall(text) or [text.strip()]}))
        elif kind == "pair" and text.count("\t") == 1:
            rows.append((line, dict(zip(("text", "text_b"), text.strip("\n").split("\t"), strict=True))))
        else:
            wanted = "two texts with a tab between" if kind == "pair" else f"a .jsonl with {' and '.join(FIELDS[kind])}"
            raise UserError(f"{path}, line {line}: a {kind} model needs {wanted}.")
    return rows


def _example(path: Path, line: int, row: dict[str, Any], kind: str) -> dict[str, Any]:
    """The fields of `kind` out of one record, looked for under the names that task files have them."""
    folded = {str(key).lower(): key for key in row}
    example: dict[str, Any] = {"id": str(row.get("id", line))}
    for name in FIELDS[kind]:
        column = next((folded[alias] for alias in ALIASES[kind][name] if alias in folded), None)
        if name == "options" and column is None:  # columns A, B, C, ...
            letters = [folded[letter] for letter in "abcdefg" if row.get(folded.get(letter))]
            value: Any = [row[letter] for letter in letters]
        else:
            value = row[column] if column is not None else None
        if name in ("options", "words") and isinstance(value, str):
            value = _list(value, name == "words")
        if not value or (name in ("options", "words") and not isinstance(value, list)):
            raise UserError(
                f"{path}, line {line}: nothing for '{name}' (looked for {', '.join(ALIASES[kind][name])}; the record has "
                f"{', '.join(map(str, row))}). A {kind} model needs {' and '.join(FIELDS[kind])}."
            )
        example[name] = [_nfc(part) for part in value] if isinstance(value, list) else _nfc(value)
    return example


def _list(text: str, cut: bool) -> list[Any] | None:
    """A list written as JSON in a cell; running text cut into words where `cut`."""
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except json.JSONDecodeError:
            return None
    return WORDS.findall(text) if cut else None


def _nfc(value: Any) -> str:
    return unicodedata.normalize("NFC", str(value.get("text") if isinstance(value, dict) else value))


def predict(
    model: TaskModel, tokenizer: Tokenizer, task: dict[str, Any], examples: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """One record an example: label and probability; tags and entities; answer and its probability against no answer."""
    kind, labels = task["kind"], task["labels"]
    encoded = encode(examples, kind, tokenizer, labels, task["max_length"], task.get("window_overlap_tokens"))
    scores, _ = score_rows(model, encoded, MAX_TOKENS)
    other = score_rows(model, swapped(encoded), MAX_TOKENS)[0] if task.get("both_orders") else None
    said = predictions(examples, encoded, scores, labels, task["allow_no_answer"], bool(task.get("valid_tags")), other)
    results = []
    for example, record in zip(examples, said, strict=True):
        result: dict[str, Any] = {"id": record["id"]}
        if kind in ("classification", "pair"):
            result |= {name: example[name] for name in FIELDS[kind]}
            result |= {"label": record["pred"], "probability": _probability(record["scores"][record["pred"]])}
        elif kind == "choice":
            best = record["pred"]
            result |= {"question": example["question"], "answer": best, "option": example["options"][best],
                       "probability": _probability(record["scores"][best])}  # fmt: skip
        elif kind == "tagging":
            found = sorted(entities(record["pred"]), key=lambda entity: entity[1])
            spans = [{"type": k, "text": " ".join(example["words"][a : b + 1]), "first": a, "last": b} for k, a, b in found]
            result |= {"words": example["words"], "tags": record["pred"], "entities": spans}
        else:
            margin = record["scores"]["best"] - record["scores"]["null"]
            result |= {"question": example["question"], "answer": record["pred"]}
            result["answerable"] = _probability(-np.logaddexp(0, -margin))
        if record["truncated"]:
            result["truncated"] = True
        results.append(result)
    return results


def _probability(logarithm: float) -> float:
    return round(float(np.exp(logarithm)), 4)


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
