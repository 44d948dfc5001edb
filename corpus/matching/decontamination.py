"""Task items in a text: 13-grams and answer spans on the fold key, short items as a whole, titles for translations.

An index is made of task files (jsonl, csv, tsv, SQuAD or other json, conll, conllu, parquet, txt); every string of an
item is indexed. A text is compared as runs of words of its fold key, so case, script and ASCII spelling do not hide a
copy. A text that was translated by another system shares no words with the task: `matches` compares titles and ids.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

from common.errors import UserError
from common.files import open_text
from common.task_files import FORMATS, format_of, read_clean
from corpus.matching.ngrams import Filter, Words
from language.base import Language

NGRAM = 13  # words; GPT-3's length (arXiv 2005.14165, appendix C)
ANSWER_WORDS = 8  # a shorter answer may occur by chance; from NGRAM words on it is a 13-gram
WHOLE_WORDS, WHOLE_LETTERS = 4, 15  # a shorter item ("Çox sağ ol", "2, 2, 3") is not specific enough
# Names of fields without text of the item, and of fields with the title or id of its origin.
ANSWERS = frozenset({"answer", "answers", "answer_text"})
TITLES = frozenset({"title", "document_title", "page_title"})
IDS = frozenset({"url", "page_id", "document_id", "article_id", "doc_id"})
_UNTOLD = frozenset({"id", "idx", "index", "guid", "label", "hash", "subject", "timestamp", "source", "pos", "tags"})

ENDINGS = (*FORMATS, ".txt")
_WINDOW = 1 << 20  # bytes of fold key hashed at a time


class TaskIndex:
    """The n-grams, answers, short items and titles of task files. `hits` and `matches` return (item, kind)."""

    def __init__(self, language: Language, files: Sequence[str | Path] = (), items: Sequence[tuple[str, Any]] = ()) -> None:
        """Index files (all files of a folder) and (id, item) pairs; an item is any JSON value.

        Raises UserError for a file that is missing or cannot be read.
        """
        self.items: list[str] = []
        self._fold_key = language.fold_key
        self._grams: dict[int, dict[int, int]] = {}  # words of a run -> hash -> number of the first item with it
        self._whole: dict[int, int] = {}
        self._titles: dict[str, int] = {}
        for file in files:
            for path in _files_of(Path(file)):
                for name, item in read_items(path):
                    self._add(name, item)
        for name, item in items:
            self._add(name, item)
        self._filters = {size: Filter(grams) for size, grams in self._grams.items()}
        self._whole_filter = Filter(self._whole)

    def _add(self, name: str, item: Any) -> None:
        number = len(self.items)
        self.items.append(name)
        for kind, text in strings_of(item):
            if kind in ("title", "id"):
                for key in self._title_keys(text):
                    self._titles.setdefault(key, number)
                if kind == "id":
                    continue
            key = self._fold_key(text)
            words = Words([key])
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
        """Items found in `text`, each once: (item, "13-gram" | "answer" | "whole").

        "whole": an item of fewer than 13 words that equals the text or a line of it, word for word.
        """
        if not self.items:
            return []
        lines = [key for line in text.split("\n") if (key := self._fold_key(line))]
        found: dict[tuple[int, str], None] = {}
        for words in _windows(lines):
            for size, grams in self._grams.items():
                if len(words.begins) < size:
                    continue
                kind = "13-gram" if size == NGRAM else "answer"
                for value in _survivors(self._filters[size], words.runs(size)):
                    if value in grams:
                        found[grams[value], kind] = None
            for value in _survivors(self._whole_filter, words.lines()):
                if value in self._whole:
                    found[self._whole[value], "whole"] = None
        return [(self.items[number], kind) for number, kind in found]

    def matches(self, meta: Mapping[str, Any]) -> list[tuple[str, str]]:
        """Items made from the document that `meta` (title, url, id, ...) describes: [(item, "title")], or []."""
        found: dict[int, None] = {}
        for field, value in meta.items():
            if field in TITLES | IDS and value not in (None, ""):
                for key in self._title_keys(str(value)):
                    if key in self._titles:
                        found[self._titles[key]] = None
        return [(self.items[number], "title") for number in found]

    def _title_keys(self, text: str) -> Iterator[str]:
        """The folded title; for an address, its last path segment."""
        if "://" in text:
            text = unquote(urlsplit(text).path.rstrip("/").rpartition("/")[2])
        key = self._fold_key(text.replace("_", " "))
        if key:
            yield key


def _survivors(filter_: Filter, hashes: np.ndarray) -> list[int]:
    return hashes[filter_.places(hashes)].tolist()


def _windows(lines: list[str]) -> Iterator[Words]:
    """Lines in portions of about _WINDOW bytes; each portion repeats the last words of the one before."""
    at = 0
    tail: list[str] = []
    while at < len(lines):
        portion, size = [], 0
        while at < len(lines) and (not portion or size + len(lines[at]) < _WINDOW):
            portion.append(lines[at])
            size += len(lines[at])
            at += 1
        yield Words([*tail, *portion])
        tail = [" ".join(" ".join(portion[-NGRAM:]).split()[-NGRAM + 1 :])]


def strings_of(item: Any, field: str = "text") -> Iterator[tuple[str, str]]:
    """(kind, text) of every string in a JSON value; kind is text, answer, title or id. A list of words is one text."""
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
        found = sorted(file for file in path.rglob("*") if file.is_file() and format_of(file) in ENDINGS)
        if not found:
            raise UserError(f"{path}: no task file in it ({', '.join(ENDINGS)}, plain or .gz).")
        return found
    if not path.is_file():
        raise UserError(f"{path}: no such file. Correct the list of task files.")
    if format_of(path) not in ENDINGS:
        raise UserError(f"{path}: not a task file; expected {', '.join(ENDINGS)}, plain or .gz.")
    return [path]


def read_items(path: Path) -> Iterator[tuple[str, Any]]:
    """(name, item) of a task file; the name is the file and the line, row or id. Raises UserError if it cannot be read."""
    if format_of(path) == ".txt":
        yield from _read_lines(path)
        return
    for number, row in read_clean(path, flat=False):
        if isinstance(row.get("paragraphs"), list):  # SQuAD: one item a paragraph
            for place, paragraph in enumerate(row["paragraphs"], start=1):
                yield f"{path.name}:{number}.{place}", {"title": row.get("title", ""), "paragraph": paragraph}
        else:
            yield f"{path.name}:{row.get('id', number)}", row


def _read_lines(path: Path) -> Iterator[tuple[str, Any]]:
    try:
        with open_text(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield f"{path.name}:{number}", {"text": line}
    except (UnicodeDecodeError, OSError, EOFError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Restore the file or leave it out.") from None
