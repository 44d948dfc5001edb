"""Overlap of test items with the pre-training corpus: shared runs of 13 words, ignoring case and spelling.

    python -m evaluation.leakage --corpus RUNS/NAME/corpus --tasks FILE... [--out overlap.jsonl] [--n 13]
    python -m evaluation.leakage --corpus RUNS/NAME/corpus --predictions RUNS/NAME/benchmark

Words are compared by the fold key of the corpus' language, so in Azerbaijani İLK, ilk and Cyrillic илк are equal. An item's
overlap is the share of its words in runs of n words that a document contains in the same order. A line shorter than n counts
if a document contains it as a whole line and it has at least SHORTEST words; shorter lines match by chance and are ignored.
An item of only such lines has overlap null. evaluation.report --overlap adds scores on the clean part.

The corpus is streamed once; memory depends on the tasks only. Equal hashes are verified word by word, so there are no false
matches.
"""

import argparse
import multiprocessing
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from common.code import code_files
from common.errors import UserError, command
from common.files import digest_of, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from common.progress import progress
from common.task_files import read_clean
from corpus.matching.ngrams import Filter, Words
from language.base import Language, load_language, one_language

SHORTEST = 5  # words; the most frequent four-word phrases of a language are in any large corpus
BLOCK_WORDS = 200_000  # documents are scanned in blocks of this many words, one numpy pass each
_ID_FIELDS = ("id", "idx", "index_id", "index", "guid")
_TEXT_FIELDS = (
    "text",
    "text_b",
    "question",
    "options",
    "context",
    "words",
    "sentence",
    "sentence1",
    "sentence2",
    "title",
    "premise",
    "hypothesis",
    "stem",
    "choices",
    "tokens",
    "partial_text",
    "gold_ending",
)


@dataclass
class Index:
    """The test items in the form that the scan needs: every distinct line once, all in one list of words."""

    language: Language  # of the corpus
    keys: list[tuple[str, str]]  # (task, id) of each item
    lines: list[list[int]]  # the checked lines of each item, as numbers into `starts`
    words: list[str]  # of all lines
    starts: np.ndarray  # first place of each line in `words`, and the end of all
    hashes: dict[int, np.ndarray]  # length of run: sorted hashes of the runs
    places: dict[int, np.ndarray]  # length of run: place of each in `words`, in the order of `hashes`
    filters: dict[int, Filter]


@dataclass
class Found:
    """Result of a scan: covered positions of Index.words, and for each line the document that covers most of it."""

    covered: np.ndarray
    best: dict[int, tuple[int, str, str]] = field(default_factory=dict)  # line: (words, source, document)


def read_items(path: str | Path) -> tuple[str, list[tuple[str, str]]]:
    """(task name, [(id, text)]) of a task file: {"id", "text"} lines, or a file that fine-tuning reads.

    Raises UserError for a missing file, an unknown format, a line without text and a file without items. Ids are the file's
    own, otherwise line or record numbers, as in fine-tuning.
    """
    path = Path(path)
    name = Path(path.name.removesuffix(".gz")).stem.removesuffix("-test")  # a task's own name may contain a dot
    items = []
    for line, row in read_clean(path):
        text = "\n".join(_texts(row))
        if not text.strip():
            raise UserError(f"{path}, line {line}: no text in {', '.join(row)}. Expected one of {', '.join(_TEXT_FIELDS)}.")
        named = next((row[key] for key in _ID_FIELDS if row.get(key) not in (None, "")), line)
        items.append((str(named), text))
    if not items:
        raise UserError(f"{path}: no item in it. Give the test file of a task.")
    return name, items


def _texts(row: dict[str, Any]) -> list[str]:
    found = []
    for key in _TEXT_FIELDS:
        value = row.get(key)
        if key in ("words", "tokens") and isinstance(value, list):
            found.append(" ".join(map(str, value)))
        elif isinstance(value, list | dict):
            values = value.get("text", []) if isinstance(value, dict) else value
            found += [str(part) for part in values]
        elif isinstance(value, str) and value:
            found.append(value)
    return found


# ---------------------------------------------------------------- the index


def build_index(tasks: Sequence[tuple[str, Sequence[tuple[str, str]]]], language: Language, n: int = 13) -> Index:
    """Hashes of all runs of `n` words of all items, and of shorter lines as a whole.

    Raises UserError for a repeated id in a task.
    """
    if n < SHORTEST:
        raise UserError(f"--n {n}: runs of fewer than {SHORTEST} words match by chance. Give {SHORTEST} or more, e.g. 8 or 13.")
    keys, lines = [], []
    known: dict[str, int] = {}  # checked lines by their key: the questions about one context share it
    seen: set[tuple[str, str]] = set()
    for task, items in tasks:
        for identity, text in items:
            if (task, identity) in seen:
                raise UserError(f"{task}: id {identity!r} occurs twice. Give each test file once.")
            seen.add((task, identity))
            own = [key for key in map(language.fold_key, text.split("\n")) if key.count(" ") + 1 >= SHORTEST]
            keys.append((task, identity))
            lines.append(list(dict.fromkeys(known.setdefault(key, len(known)) for key in own)))
    words = [word for key in known for word in key.split(" ")]
    starts = np.cumsum([0, *(key.count(" ") + 1 for key in known)])
    index, read, sizes = Index(language, keys, lines, words, starts, {}, {}, {}), Words(list(known)), np.diff(starts)
    for length in range(SHORTEST, n + 1):
        hashes = read.runs(length)
        if length == n:
            places = np.flatnonzero(_in_one_line(read, np.arange(len(hashes)), length))
        else:
            places = starts[:-1][sizes == length]  # a line shorter than n counts as a whole
        if len(places):
            order = np.argsort(hashes[places], kind="stable")
            index.hashes[length], index.places[length] = hashes[places][order], places[order]
            index.filters[length] = Filter(index.hashes[length])
    return index


def _in_one_line(words: Words, places: np.ndarray, length: int) -> np.ndarray:
    return words.line_of(places) == words.line_of(places + length - 1)


# ---------------------------------------------------------------- the scan


def scan_file(path: Path, index: Index) -> Found:
    """Read one documents file and return which parts of the items it contains."""
    found = Found(np.zeros(len(index.words), dtype=bool))
    block: list[str] = []
    owners: list[tuple[str, str]] = []  # (source, document) of each text of the block
    size = 0
    for _, row in read_jsonl(path):
        key = index.language.fold_key(str(row.get("text", "")))
        if not key:
            continue
        block.append(key)
        owners.append((str(row.get("source", path.name.split(".", 1)[0])), str(row.get("id", ""))))
        size += key.count(" ") + 1
        if size >= BLOCK_WORDS:
            _scan_block(block, owners, index, found)
            block, owners, size = [], [], 0
    if block:
        _scan_block(block, owners, index, found)
    return found


def _scan_block(block: list[str], owners: list[tuple[str, str]], index: Index, found: Found) -> None:
    """Mark in `found` what the documents of one block (their fold keys) contain. Equal hashes are verified word by word."""
    read, words = Words(block), " ".join(block).split(" ")
    hits: dict[tuple[int, int], set[int]] = {}  # (document, line) -> covered places
    for length, wanted in index.hashes.items():
        hashes = read.runs(length)
        here = index.filters[length].places(hashes)
        here = here[_in_one_line(read, here, length)]  # a run across two documents does not count
        low = np.searchsorted(wanted, hashes[here])
        low[low == len(wanted)] = 0
        same = wanted[low] == hashes[here]
        for at, first in zip(here[same].tolist(), low[same].tolist(), strict=True):
            owner = int(read.line_of(np.array(at)))
            for entry in range(first, len(wanted)):
                if wanted[entry] != wanted[first]:
                    break
                place = int(index.places[length][entry])
                if index.words[place : place + length] == words[at : at + length]:
                    line = int(np.searchsorted(index.starts, place, side="right")) - 1
                    hits.setdefault((owner, line), set()).update(range(place, place + length))
    for (owner, line), places in sorted(hits.items()):
        found.covered[sorted(places)] = True
        if len(places) > found.best.get(line, (0,))[0]:
            found.best[line] = (len(places), *owners[owner])


def overlaps(index: Index, corpus: str | Path, workers: int = 1) -> list[dict[str, Any]]:
    """One row for each item, in order: {"task", "id", "overlap": share of checked words or None, "source", "document"}.

    `corpus`: a corpus folder of prepare.py (its documents/*.jsonl.gz), or any folder or file of such lines. Source and
    document name the one that covers most of one of the item's lines. Raises UserError for a corpus without documents.
    """
    files = _documents(Path(corpus))
    total = Found(np.zeros(len(index.words), dtype=bool))
    jobs = [(path, index) for path in files]
    if workers > 1:
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            parts = pool.starmap(scan_file, jobs, chunksize=1)
    else:
        parts = (scan_file(*job) for job in progress(jobs, desc="overlap with the corpus", unit="file"))
    for part in parts:
        total.covered |= part.covered
        for line, best in part.best.items():
            if best[0] > total.best.get(line, (0,))[0]:
                total.best[line] = best
    rows = []
    for (task, identity), lines in zip(index.keys, index.lines, strict=True):
        spans = [slice(index.starts[line], index.starts[line + 1]) for line in lines]
        checked = sum(span.stop - span.start for span in spans)
        share = round(sum(int(total.covered[span].sum()) for span in spans) / checked, 6) if checked else None
        found = [total.best[line] for line in lines if line in total.best]
        _, source, document = max(found, key=lambda best: best[0], default=(0, None, None))
        rows.append({"task": task, "id": identity, "overlap": share, "source": source, "document": document})
    return rows


def _documents(corpus: Path) -> list[Path]:
    folder = corpus / "documents" if (corpus / "documents").is_dir() else corpus
    files = [corpus] if corpus.is_file() else sorted([*folder.glob("*.jsonl.gz"), *folder.glob("*.jsonl")])
    if not files:
        raise UserError(f"{corpus}: no documents/*.jsonl.gz. Give the corpus folder that prepare.py wrote.")
    return files


def language_of(corpus: Path, named: str | None = None) -> Language:
    """The language in the corpus folder's report, or `named`, or the generic pack. UserError if the first two differ."""
    report = corpus / "report.json"
    said = read_json(report).get("language") if report.exists() else None
    agreed = one_language({str(corpus): said, "--language": named}, "Leave --language out: the corpus names its own.")
    return agreed or load_language("generic")


def write_overlaps(
    files: Sequence[Path],
    corpus: str | Path,
    out: str | Path,
    n: int = 13,
    workers: int = 1,
    language: str | None = None,
) -> list[str]:
    """Write the rows of `overlaps` for the items of all `files` to `out`; returns one line for each task.

    `language`: of a corpus that is only a folder or file of documents; a built corpus records its own.
    A finished search over the same items and documents (by name, size and time) is not repeated: <out>.json records it.
    Raises what `language_of`, `read_items`, `build_index` and `overlaps` raise.
    """
    out, pack = Path(out), language_of(Path(corpus), language)
    done = out.with_name(f"{out.name}.json")
    held = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in _documents(Path(corpus))]
    code = code_files("evaluation.leakage", rooms=("corpus", "language"))
    key = digest_of([code, pack.name, n, held, [(path.name, sha256_file(path)) for path in files]])
    if not (out.exists() and done.exists() and read_json(done).get("key") == key):
        write_jsonl(out, overlaps(build_index([read_items(path) for path in files], pack, n), corpus, workers))
        write_json(done, {"key": key, "n": n, "corpus": str(corpus)})
    rows = [row for _, row in read_jsonl(out)]
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row["overlap"] for row in rows if row["task"] == task]
        known = [share for share in own if share is not None]
        touched, whole = sum(share > 0 for share in known), sum(share >= 0.5 for share in known)
        short = f", {len(own) - len(known)} too short to check" if len(known) < len(own) else ""
        said = f"{whole} LEAKED (half or more of their words are in the corpus), {touched - whole} in part"
        lines.append(f"{task}: {len(own)} items, {said if touched else 'none leaked'}{short}")
    return lines


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.leakage", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", required=True, help="the corpus folder of prepare.py")
    parser.add_argument("--tasks", nargs="*", default=[], metavar="FILE", help="test files; the task is the file's name")
    parser.add_argument("--predictions", nargs="*", default=[], metavar="DIR", help="benchmark folders with inputs/")
    parser.add_argument("--n", type=int, default=13, help="words of a run (default 13; 8 finds more)")
    parser.add_argument("--workers", type=int, default=1, help="number of processes; each reads different files")
    parser.add_argument("--language", help="of a corpus without a report: name or code of a pack in language/")
    parser.add_argument("--out", default="overlap.jsonl")
    options = parser.parse_args(arguments)
    files = [Path(name) for name in options.tasks]
    for folder in options.predictions:
        inputs = sorted(Path(folder).glob("inputs/*-test.jsonl"))
        if not inputs:
            raise UserError(f"{folder}: no inputs/*-test.jsonl. Run benchmark.py, or give the test files with --tasks.")
        files += inputs
    if not files:
        raise UserError("no test file. Give --tasks FILE... or --predictions DIR...")
    lines = write_overlaps(files, options.corpus, options.out, options.n, options.workers, options.language)
    print(*lines, options.out, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
