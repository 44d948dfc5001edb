"""How much of each test item stands in the pre-training corpus: shared runs of 13 words, blind to case and spelling.

    python -m evaluation.leakage --corpus RUNS/NAME/corpus --tasks FILE... [--out overlap.jsonl] [--n 13]
    python -m evaluation.leakage --corpus RUNS/NAME/corpus --predictions RUNS/NAME/benchmark

Words are compared by `fold_key`, so İLK, ilk and Cyrillic илк are one. An item's overlap is the share of its words
that lie in a run of n words which some document holds in the same order. A line shorter than n counts if it stands in a
document as a whole, and if it has at least SHORTEST words: fewer words meet by chance, and such a line is left out. An
item of such lines alone has overlap null. evaluation.report --overlap prints scores on the clean part beside the whole.

The corpus is read once and streamed; memory is set by the tasks. Equal hashes are checked word by word, so there are no
false hits.
"""

import argparse
import csv
import multiprocessing
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.errors import UserError, command
from common.files import digest_of, open_text, read_json, read_jsonl, sha256_file, write_json, write_jsonl
from language.azerbaijani import fold_key

FORMAT = 1  # of the search: a change that changes results makes finished ones be made anew
SHORTEST = 5  # words; the commonest four-word phrases of a language stand in any large corpus
BLOCK_WORDS = 200_000  # documents are scanned in blocks of this many words: one numpy pass each
_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that no power of it vanishes modulo 2^64
_ID_FIELDS = ("id", "idx", "index_id", "index", "guid")
_TEXT_FIELDS = ("text", "text_b", "question", "options", "context", "words", "sentence", "sentence1", "sentence2", "title",
                "premise", "hypothesis", "stem", "choices", "tokens", "partial_text", "gold_ending")  # fmt: skip


@dataclass
class Index:
    """The test items as the scan needs them: every different line once, all in one array of word numbers."""

    keys: list[tuple[str, str]]  # (task, id) of each item
    lines: list[list[int]]  # the checked lines of each item, as numbers into `starts`
    words: np.ndarray  # int64 word numbers of all lines, -1 after each line
    starts: np.ndarray  # first place of each line in `words`, and the end of all
    vocabulary: dict[str, int]
    codes: np.ndarray  # uint64, a random number for each word
    hashes: dict[int, np.ndarray]  # length of run: sorted hashes of the runs
    places: dict[int, np.ndarray]  # length of run: place of each in `words`, in the order of `hashes`


@dataclass
class Found:
    """What a scan found: which places of Index.words are covered, and the document that covers most of a line."""

    covered: np.ndarray
    best: dict[int, tuple[int, str, str]] = field(default_factory=dict)  # line: (words, source, document)


def read_items(path: str | Path) -> tuple[str, list[tuple[str, str]]]:
    """(task name, [(id, text)]) of a task file: {"id", "text"} lines, or a file that fine-tuning reads.

    Raises UserError for a missing file, an unknown format, a line without text and a file without items. Ids are the
    file's own, else line or record numbers, as fine-tuning gives them.
    """
    path = Path(path)
    suffixes = [s.lower() for s in path.suffixes if s.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    name = Path(path.name.removesuffix(".gz")).stem.removesuffix("-test")  # a task's own name may have a dot in it
    if suffix in (".jsonl", ".ndjson"):
        rows: Iterator[tuple[int, dict[str, Any]]] = read_jsonl(path)
    elif suffix in (".csv", ".tsv"):
        rows = _read_table(path, "\t" if suffix == ".tsv" else ",")
    elif suffix in (".conll", ".bio", ".iob", ".txt"):
        rows = _read_conll(path)
    elif suffix == ".json":
        rows = _read_squad(path)
    elif suffix == ".parquet":
        rows = _read_parquet(path)
    else:
        raise UserError(f"{path}: format {suffix or 'unknown'}; expected jsonl, csv, tsv, conll, parquet or SQuAD json.")
    items = []
    for line, row in rows:
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
        elif isinstance(value, str):
            found.append(value)
    return found


def _read_table(path: Path, delimiter: str) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        for line, row in enumerate(csv.DictReader(file, delimiter=delimiter), start=2):
            yield line, {str(key): value for key, value in row.items() if key is not None}


def _read_conll(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    words: list[str] = []
    first = 1
    with open_text(path) as file:
        for line, text in enumerate(file, start=1):
            if text.strip() and not text.startswith(("# ", "-DOCSTART-")):
                first = first if words else line
                words.append(text.split()[0])
            elif not text.strip() and words:
                yield first, {"words": words}
                words = []
    if words:
        yield first, {"words": words}


def _read_parquet(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: damaged after record {number} ({error}). Download the file again.") from None


def _read_squad(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    value = read_json(path)
    if isinstance(value, list):
        yield from enumerate((row for row in value if isinstance(row, dict)), start=1)
        return
    if not isinstance(value, dict) or not isinstance(value.get("data"), list):
        raise UserError(f"{path}: expected the SQuAD layout (data, paragraphs, qas) or a list of records.")
    number = 0
    for article in value["data"]:
        for paragraph in article.get("paragraphs", []):
            for question in paragraph.get("qas", []):
                number += 1
                asked = {"question": question.get("question", ""), "context": paragraph.get("context", "")}
                yield number, {"id": question.get("id"), **asked}


# ---------------------------------------------------------------- the index


def build_index(tasks: Sequence[tuple[str, Sequence[tuple[str, str]]]], n: int = 13) -> Index:
    """Hashes of all runs of `n` words of all items, and of whole shorter lines.

    Raises UserError for an id that comes twice in a task.
    """
    if n < SHORTEST:
        raise UserError(f"--n {n}: runs of under {SHORTEST} words meet by chance. Give {SHORTEST} or more, e.g. 8 or 13.")
    keys, lines, vocabulary = [], [], {}
    numbers: list[int] = []
    starts: list[int] = []
    known: dict[str, int] = {}  # a checked line by its key: the questions of one context share it
    seen: set[tuple[str, str]] = set()
    for task, items in tasks:
        for identity, text in items:
            if (task, identity) in seen:
                raise UserError(f"{task}: id {identity!r} comes twice. Give each test file once.")
            seen.add((task, identity))
            own = []
            for key in map(fold_key, text.split("\n")):
                if key.count(" ") + 1 < SHORTEST:
                    continue
                if key not in known:
                    known[key] = len(starts)
                    starts.append(len(numbers))
                    numbers += [vocabulary.setdefault(word, len(vocabulary)) for word in key.split()]
                    numbers.append(-1)
                own.append(known[key])
            keys.append((task, identity))
            lines.append(list(dict.fromkeys(own)))
    codes = np.random.default_rng(0).integers(1, 2**63, size=max(1, len(vocabulary)), dtype=np.uint64)
    words, bounds = np.array(numbers, dtype=np.int64), np.array([*starts, len(numbers)])
    index = Index(keys, lines, words, bounds, vocabulary, codes, {}, {})
    sizes = np.diff(bounds) - 1
    for length, hashes, whole in _rolling(words, codes, n):
        short = bounds[:-1][sizes == length]  # a line shorter than n counts as a whole
        places = whole if length == n else short[np.isin(short, whole)]
        if len(places):
            order = np.argsort(hashes[places], kind="stable")
            index.hashes[length], index.places[length] = hashes[places][order], places[order]
    return index


def _rolling(words: np.ndarray, codes: np.ndarray, longest: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """For each length up to `longest`: (length, hash of the run that starts at each place, places without a -1 in it)."""
    absent = np.concatenate([[0], np.cumsum(words < 0)])
    own = np.where(words >= 0, codes[np.maximum(words, 0)], np.uint64(0))
    hashes = own
    for length in range(1, longest + 1):
        size = len(words) - length + 1
        if size <= 0:
            return
        if length > 1:
            hashes = hashes[:size] * _BASE + own[length - 1 :]
        yield length, hashes, np.flatnonzero(absent[length:] == absent[:size])


# ---------------------------------------------------------------- the scan


def scan_file(path: Path, index: Index) -> Found:
    """Read one documents file and say what of the items it holds."""
    found = Found(np.zeros(len(index.words), dtype=bool))
    block: list[int] = []
    owners: list[tuple[int, str, str]] = []  # (first place in the block, source, document)
    get = index.vocabulary.get
    for _, row in read_jsonl(path):
        owners.append((len(block), str(row.get("source", path.name.split(".", 1)[0])), str(row.get("id", ""))))
        block += [get(word, -1) for word in fold_key(str(row.get("text", ""))).split()]
        block.append(-1)
        if len(block) >= BLOCK_WORDS:
            _scan_block(np.array(block, dtype=np.int64), owners, index, found)
            block, owners = [], []
    if block:
        _scan_block(np.array(block, dtype=np.int64), owners, index, found)
    return found


def _scan_block(block: np.ndarray, owners: list[tuple[int, str, str]], index: Index, found: Found) -> None:
    """Mark in `found` what the documents of one block hold; -1 stands for words that no item has, and between texts."""
    starts = np.array([start for start, _, _ in owners])
    hits: dict[tuple[int, int], set[int]] = {}  # (document, line) -> covered places
    for length, hashes, whole in _rolling(block, index.codes, max(index.hashes, default=0)):
        if length not in index.hashes:
            continue
        wanted = index.hashes[length]
        low = np.searchsorted(wanted, hashes[whole])
        low[low == len(wanted)] = 0
        same = wanted[low] == hashes[whole]
        for at, first in zip(whole[same].tolist(), low[same].tolist(), strict=True):
            owner = int(np.searchsorted(starts, at, side="right")) - 1
            for entry in range(first, len(wanted)):
                if wanted[entry] != wanted[first]:
                    break
                place = int(index.places[length][entry])
                if np.array_equal(index.words[place : place + length], block[at : at + length]):
                    line = int(np.searchsorted(index.starts, place, side="right")) - 1
                    hits.setdefault((owner, line), set()).update(range(place, place + length))
    for (owner, line), places in sorted(hits.items()):
        found.covered[sorted(places)] = True
        if len(places) > found.best.get(line, (0,))[0]:
            found.best[line] = (len(places), *owners[owner][1:])


def overlaps(index: Index, corpus: str | Path, workers: int = 1) -> list[dict[str, Any]]:
    """One row an item, in order: {"task", "id", "overlap": share of checked words or None, "source", "document"}.

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
        parts = (scan_file(*job) for job in tqdm(jobs, desc="overlap with the corpus", unit="file", disable=None))
    for part in parts:
        total.covered |= part.covered
        for line, best in part.best.items():
            if best[0] > total.best.get(line, (0,))[0]:
                total.best[line] = best
    rows = []
    for (task, identity), lines in zip(index.keys, index.lines, strict=True):
        spans = [slice(index.starts[line], index.starts[line + 1] - 1) for line in lines]
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


def write_overlaps(files: Sequence[Path], corpus: str | Path, out: str | Path, n: int = 13, workers: int = 1) -> list[str]:
    """Write the rows of `overlaps` for the items of all `files` to `out`; one line a task for the terminal.

    The same items and the same documents (by name, size and time) are not looked for twice: <out>.json says what was done.
    Raises what `read_items`, `build_index` and `overlaps` raise.
    """
    out = Path(out)
    done = out.with_name(f"{out.name}.json")
    held = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in _documents(Path(corpus))]
    key = digest_of([FORMAT, n, held, [(path.name, sha256_file(path)) for path in files]])
    if not (out.exists() and done.exists() and read_json(done).get("key") == key):
        write_jsonl(out, overlaps(build_index([read_items(path) for path in files], n), corpus, workers))
        write_json(done, {"key": key, "n": n, "corpus": str(corpus)})
    rows = [row for _, row in read_jsonl(out)]
    lines = []
    for task in dict.fromkeys(row["task"] for row in rows):
        own = [row["overlap"] for row in rows if row["task"] == task]
        known = [share for share in own if share is not None]
        touched, whole = sum(share > 0 for share in known), sum(share >= 0.5 for share in known)
        short = f", {len(own) - len(known)} too short to tell" if len(known) < len(own) else ""
        lines.append(f"{task}: {len(own)} items, {touched} share a run of words with the corpus, {whole} half or more{short}")
    return lines


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.leakage", description=__doc__.split("\n", 1)[0])
    parser.add_argument("--corpus", required=True, help="the corpus folder of prepare.py")
    parser.add_argument("--tasks", nargs="*", default=[], metavar="FILE", help="test files; the task is the file's name")
    parser.add_argument("--predictions", nargs="*", default=[], metavar="DIR", help="benchmark folders with inputs/")
    parser.add_argument("--n", type=int, default=13, help="words of a run (default 13; 8 finds more)")
    parser.add_argument("--workers", type=int, default=1, help="processes, each reading documents files of its own")
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
    lines = write_overlaps(files, options.corpus, options.out, options.n, options.workers)
    print(*lines, options.out, sep="\n")


if __name__ == "__main__":
    sys.exit(main())
