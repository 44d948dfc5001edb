"""Apply a fine-tuned checkpoint to new text; one JSON line an input on the terminal or in a file.

    python -m model.predict CHECKPOINT FILE [--out FILE.jsonl]

FILE: .jsonl, .json, .csv or .tsv in the task's format (no labels needed), or .txt with one text a line (classification,
tagging; tagging cuts it into words and punctuation) or, for pairs, two texts a line with a tab between; .conll for tagging.
"""

import argparse
import csv
import json
import re
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import open_text, read_json, read_jsonl, write_jsonl
from common.launch import EXIT_USER_ERROR
from data.features import encode
from data.task_records import ALIASES
from evaluation.metrics import entities
from model.decoding import predictions, score_rows
from model.heads import TaskModel, load_task_model
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
    suffix = path.suffix.lower()
    if not path.is_file():
        raise UserError(f"{path}: no such file.")
    try:
        if suffix == ".txt":
            rows = _lines(path, kind)
        elif suffix in (".conll", ".bio") and kind == "tagging":
            blocks = re.split(r"\n\s*\n", open_text(path).read().replace("\r\n", "\n"))
            rows = [{"words": [line.split()[0] for line in block.split("\n") if line.split()]} for block in blocks]
            rows = [(number, row) for number, row in enumerate(rows, start=1) if row["words"]]
        elif suffix == ".jsonl":
            rows = list(read_jsonl(path))
        elif suffix == ".json":
            rows = _json(path)
        elif suffix in (".csv", ".tsv"):
            reader = csv.DictReader(open_text(path), delimiter="," if suffix == ".csv" else "\t")
            rows = [(reader.line_num, row) for row in reader]
        else:
            raise UserError(f"{path}: format '{suffix}' is not read. Use .txt, .jsonl, .json, .csv or .tsv.")
    except (UnicodeDecodeError, csv.Error, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Save it as UTF-8 and try again.") from None
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


def _json(path: Path) -> list[tuple[int, dict[str, Any]]]:
    content = read_json(path)
    content = content.get("data", content) if isinstance(content, dict) else content
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UserError(f"{path}: expected a list of records, or the SQuAD layout.")
    rows = []
    for row in content:
        paragraphs = row.get("paragraphs")
        rows += [row] if paragraphs is None else [{"context": p["context"], **q} for p in paragraphs for q in p["qas"]]
    return list(enumerate(rows, start=1))


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
    results = []
    for example, record in zip(examples, predictions(examples, encoded, scores, labels, task["allow_no_answer"]), strict=True):
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


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model.predict", description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoint", help="a fine-tuned checkpoint, or the seed folder that finetune.py wrote")
    parser.add_argument("file", help="the text")
    parser.add_argument("--out", help="write the lines to this .jsonl instead of the terminal")
    options = parser.parse_args(arguments)
    try:
        model, tokenizer, task = load_task_model(options.checkpoint)
        results = predict(model, tokenizer, task, read_inputs(options.file, task["kind"]))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    if options.out:
        print(f"{options.out}: {write_jsonl(options.out, results)} predictions")
    else:
        try:
            for result in results:
                print(json.dumps(result, ensure_ascii=False), flush=True)
        except BrokenPipeError:  # | head
            sys.stdout = None
    return 0


if __name__ == "__main__":
    sys.exit(main())
