"""Which task items stand in a text: 13-grams and answer spans on the fold key, short items whole, titles for translations.

An index is made of any task files (jsonl, csv, tsv, SQuAD or other json, conll, conllu, parquet, txt); every string of an
item counts. A text is compared as runs of words of its fold key, so case, script and ASCII spelling do not hide a copy.
For text translated by another system than the task no words may be shared: `matches` compares titles and ids instead.
"""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from common.arrow import open_rows
from common.errors import UserError
from common.files import open_text, read_json, read_jsonl
from language.azerbaijani import fold_key

NGRAM = 13  # words; GPT-3's length (arXiv 2005.14165, appendix C)
ANSWER_WORDS = 8  # an answer of fewer words may stand anywhere by chance; from NGRAM words on it is a 13-gram
WHOLE_WORDS, WHOLE_LETTERS = 4, 15  # a whole item of fewer words or letters ("Çox sağ ol", "2, 2, 3") is nobody's
# Field names that hold no text of the item, or the title or id of what it was made from.
ANSWERS = frozenset({"answer", "answers", "answer_text"})
TITLES = frozenset({"title", "document_title", "page_title"})
IDS = frozenset({"url", "page_id", "document_id", "article_id", "doc_id"})
_UNTOLD = frozenset({"id", "idx", "index", "guid", "label", "hash", "subject", "timestamp", "source", "pos", "tags"})

_MIX = np.uint64(0xD6E8FEB86659FD93)
_WINDOW = 1 << 20  # bytes of fold key hashed at a time
_BASE = 0x9E3779B97F4A7C15 | 1
_TABLE = np.random.default_rng(2024).integers(1, 2**63, size=256, dtype=np.uint64)  # one fixed 64-bit number a byte


class TaskIndex:
    """The n-grams, answers, short items and titles of task files. `hits` and `matches` name (item, kind)."""

    def __init__(self, files: Sequence[str | Path] = (), items: Sequence[tuple[str, Any]] = ()) -> None:
        """Index files (a folder stands for all files in it) and (id, item) pairs, an item being any JSON value.

        Raises UserError for a file that is missing or cannot be read.
        """
        self.items: list[str] = []
        self._grams: dict[int, dict[int, int]] = {}  # words of a run -> hash -> number of the first item that has it
        self._whole: dict[int, int] = {}
        self._titles: dict[str, int] = {}
        for file in files:
            for path in _files_of(Path(file)):
                for name, item in read_items(path):
                    self._add(name, item)
        for name, item in items:
            self._add(name, item)
        self._filters = {size: _Filter(grams) for size, grams in self._grams.items()}
        self._whole_filter = _Filter(self._whole)

    def _add(self, name: str, item: Any) -> None:
        number = len(self.items)
        self.items.append(name)
        for kind, text in strings_of(item):
            if kind in ("title", "id"):
                for key in _title_keys(text):
                    self._titles.setdefault(key, number)
                if kind == "id":
                    continue
            key = fold_key(text)
            words = _Words([key])
            length = len(words.begins)
            if length >= NGRAM:
                grams = self._grams.setdefault(NGRAM, {})
                for value in words.runs(NGRAM).tolist():
                    grams.setdefault(value, number)
            elif kind == "answer":
                if length >= ANSWER_WORDS:
                    self._grams.setdefault(length, {}).setdefault(int(words.runs(length)[0]), number)
            elif kind != "answer" and length >= WHOLE_WORDS and sum(map(str.isalpha, key)) >= WHOLE_LETTERS:
                self._whole.setdefault(int(words.runs(length)[0]), number)

    def hits(self, text: str) -> list[tuple[str, str]]:
        """Items that stand in `text`, once each: (item, "13-gram" | "answer" | "whole").

        "whole": an item of fewer than 13 words that is the text or a line of it, word for word.
        """
        if not self.items:
            return []
        lines = [key for line in text.split("\n") if (key := fold_key(line))]
        found: dict[tuple[int, str], None] = {}
        for words in _windows(lines):
            for size, grams in self._grams.items():
                if len(words.begins) < size:
                    continue
                kind = "13-gram" if size == NGRAM else "answer"
                for value in self._filters[size].survivors(words.runs(size)):
                    if value in grams:
                        found[grams[value], kind] = None
            for value in self._whole_filter.survivors(words.lines()):
                if value in self._whole:
                    found[self._whole[value], "whole"] = None
        return [(self.items[number], kind) for number, kind in found]

    def matches(self, meta: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Items made from the document that `meta` (title, url, id, ...) describes: [(item, "title")], or []."""
        found: dict[int, None] = {}
        for field, value in meta.items():
            if field in TITLES | IDS and value not in (None, ""):
                for key in _title_keys(str(value)):
                    if key in self._titles:
                        found[self._titles[key]] = None
        return [(self.items[number], "title") for number in found]


class _Words:
    """The words of some lines of fold keys, and hashes of runs of them (uint64), by sums over bytes: no loop over words.

    The hash of bytes b[s:e] is the sum of TABLE[b[i]] * BASE^(i - s) modulo 2^64.
    """

    def __init__(self, lines: list[str]) -> None:
        content = np.frombuffer(" ".join(lines).encode(), dtype=np.uint8)
        powers, inverses = _powers(len(content) + 1)
        self._sums = np.zeros(len(content) + 1, dtype=np.uint64)
        np.cumsum(_TABLE[content] * powers[: len(content)], out=self._sums[1:])
        self._inverses = inverses
        spaces = np.flatnonzero(content == 32)
        self.begins = np.concatenate(([0], spaces + 1)) if len(content) else np.zeros(0, dtype=np.int64)
        self.ends = np.concatenate((spaces, [len(content)])) if len(content) else self.begins
        sizes = np.array([len(line.encode()) + 1 for line in lines], dtype=np.int64)
        self._line_ends = np.cumsum(sizes) - 1
        self._line_begins = self._line_ends - sizes + 1

    def runs(self, size: int) -> np.ndarray:
        """Hashes of every run of `size` words."""
        return self._hash(self.begins[: len(self.begins) - size + 1], self.ends[size - 1 :])

    def lines(self) -> np.ndarray:
        """Hashes of the lines, and of all of them together."""
        if len(self._line_ends) == 1:
            return self._hash(self._line_begins, self._line_ends)
        whole = len(self._sums) - 1
        return self._hash(np.append(self._line_begins, 0), np.append(self._line_ends, whole))

    def _hash(self, begins: np.ndarray, ends: np.ndarray) -> np.ndarray:
        if len(begins) == 0 or len(ends) == 0:
            return np.zeros(0, dtype=np.uint64)
        return (self._sums[ends] - self._sums[begins]) * self._inverses[begins]


class _Filter:
    """One byte for each value of some bits of a hash: nearly every hash that is in no table fails here, in NumPy."""

    def __init__(self, table: Mapping[int, int]) -> None:
        bits = min(26, (16 * len(table)).bit_length() + 1)  # one in 16 to 32 marked: as many go on to the table by chance
        self._shift = np.uint64(64 - bits)
        self._marks = np.zeros(1 << bits, dtype=bool)
        self._marks[self._place(np.fromiter(table, dtype=np.uint64, count=len(table)))] = True

    def _place(self, hashes: np.ndarray) -> np.ndarray:
        return (hashes * _MIX) >> self._shift

    def survivors(self, hashes: np.ndarray) -> list[int]:
        return hashes[self._marks[self._place(hashes)]].tolist()


_cache: tuple[np.ndarray, np.ndarray] | None = None


def _powers(length: int) -> tuple[np.ndarray, np.ndarray]:
    """BASE^0, BASE^1, ... and their inverses modulo 2^64, at least `length` of each; kept, because every text asks."""
    global _cache  # noqa: PLW0603  (two tables, computed once)
    if _cache is None or len(_cache[0]) < length:
        size = 1 << max(16, (length - 1).bit_length())
        tables = []
        for base in (_BASE, pow(_BASE, -1, 2**64)):
            table = np.full(size, base, dtype=np.uint64)
            table[0] = 1
            tables.append(np.cumprod(table))
        _cache = tables[0], tables[1]
    return _cache


def _windows(lines: list[str]) -> Iterator[_Words]:
    """Lines in portions of about _WINDOW bytes; each begins with the last words of the one before."""
    at = 0
    tail: list[str] = []
    while at < len(lines):
        portion, size = [], 0
        while at < len(lines) and (not portion or size + len(lines[at]) < _WINDOW):
            portion.append(lines[at])
            size += len(lines[at])
            at += 1
        yield _Words([*tail, *portion])
        tail = [" ".join(" ".join(portion[-NGRAM:]).split()[-NGRAM + 1 :])]


def _title_keys(text: str) -> Iterator[str]:
    """The title, or of an address the last part of its path, folded."""
    if "://" in text:
        text = unquote(urlsplit(text).path.rstrip("/").rpartition("/")[2])
    key = fold_key(text.replace("_", " "))
    if key:
        yield key


def strings_of(item: Any, field: str = "text") -> Iterator[tuple[str, str]]:
    """(kind, text) of every string in a JSON value: kind is text, answer, title or id. Lists of words are one text."""
    if isinstance(item, str):
        kind = "answer" if field in ANSWERS else "title" if field in TITLES else "id" if field in IDS else "text"
        if field not in _UNTOLD:
            yield kind, item
    elif isinstance(item, Mapping):
        for name, value in item.items():
            inner = field if field in ANSWERS and name == "text" else str(name)
            yield from strings_of(value, inner)
    elif isinstance(item, list | tuple):
        if field in ("tokens", "words", "original_tokens") and all(isinstance(word, str) for word in item):
            yield "text", " ".join(item)
        else:
            for value in item:
                yield from strings_of(value, field)


def _files_of(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(file for file in path.rglob("*") if file.is_file() and _kind(file) in _READERS)
        if not found:
            raise UserError(f"{path}: no task file in it ({', '.join(_READERS)}, plain or .gz).")
        return found
    if not path.is_file():
        raise UserError(f"{path}: no such file. Correct the list of task files.")
    if _kind(path) not in _READERS:
        raise UserError(f"{path}: not a task file; expected {', '.join(_READERS)}, plain or .gz.")
    return [path]


def _kind(path: Path) -> str:
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def read_items(path: Path) -> Iterator[tuple[str, Any]]:
    """(name, item) of one task file; a name is the file and the line, row or id. Raises UserError when unreadable."""
    try:
        yield from _READERS[_kind(path)](path)
    except (UnicodeDecodeError, csv.Error, OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Restore the file or leave it out.") from None


def _read_jsonl(path: Path) -> Iterator[tuple[str, Any]]:
    for number, record in read_jsonl(path):
        yield f"{path.name}:{record.get('id', number)}", record


def _read_json(path: Path) -> Iterator[tuple[str, Any]]:
    content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    for number, entry in enumerate(content if isinstance(content, list) else [content], start=1):
        if isinstance(entry, dict) and isinstance(entry.get("paragraphs"), list):  # SQuAD: one item a paragraph
            for place, paragraph in enumerate(entry["paragraphs"], start=1):
                yield f"{path.name}:{number}.{place}", {"title": entry.get("title", ""), "paragraph": paragraph}
        else:
            yield f"{path.name}:{number}", entry


def _read_table(path: Path) -> Iterator[tuple[str, Any]]:
    with open_text(path) as file:
        rows = csv.DictReader(file, delimiter="\t" if _kind(path) == ".tsv" else ",")
        if _kind(path) == ".tsv":
            rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        for number, row in enumerate(rows, start=2):
            yield f"{path.name}:{number}", {name or "": value for name, value in row.items()}


def _read_conll(path: Path) -> Iterator[tuple[str, Any]]:
    column = 1 if _kind(path) == ".conllu" else 0
    words: list[str] = []
    begin = 1
    with open_text(path) as file:
        for number, line in enumerate([*file, ""], start=1):
            fields = line.split()
            if not fields:
                if words:
                    yield f"{path.name}:{begin}", {"tokens": words}
                words, begin = [], number + 1
            elif not line.startswith("#") and len(fields) > column:
                words.append(fields[column])


def _read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    with open_text(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield f"{path.name}:{number}", {"text": line}


def _read_columns(path: Path) -> Iterator[tuple[str, Any]]:
    for number, row in enumerate(open_rows(path)[1], start=1):
        yield f"{path.name}:{row.get('id', number)}", row


_READERS = {
    ".jsonl": _read_jsonl, ".json": _read_json, ".csv": _read_table, ".tsv": _read_table, ".conll": _read_conll,
    ".conllu": _read_conll, ".bio": _read_conll, ".txt": _read_lines, ".parquet": _read_columns,
    ".arrow": _read_columns,
}  # fmt: skip
