"""Task files of every format to rows, for fine-tuning, decontamination and the leakage check alike.

Formats: jsonl, json (SQuAD's layout, a list, or one object a line), csv, tsv, conll, parquet and arrow. All but the last
two may end in .gz, and line ends of every kind are accepted. A row is a dictionary of the file's own columns. A record
that cannot be read is returned in its place as `Skipped`, a doubtful one is preceded by `Noted`; the caller counts them.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import UserError
from common.files import refuse_pointer
from common.tables import MAX_RECORD, csv_rows
from common.tables import read_rows as read_columns

CONLL = (".conll", ".bio", ".iob", ".iob2", ".conllu")
FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", *CONLL, ".parquet", ".arrow")
MAX_JSON = 1 << 30  # bytes of a .json file, which is read into memory as a whole; .jsonl has no limit
BOM = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")  # how files in UTF-16 begin: "Unicode text" of spreadsheets
TAG = re.compile(r"O|[BIESLUMW]-\S+")  # IOB, IOBES, BILOU, BMES, BMEWO
_NOTHING = ("", "-", "_", "*")  # what a column without a value holds
_BLANKS = re.compile(r"[ \t]+")  # what parts columns; U+00A0 and its like are letters of a word
_LANGUAGE = re.compile(r"([A-Za-z]{2,3}(?:[-_][A-Z][a-z]{3}|[-_][A-Z]{2}|-[a-z]{2,8}){0,2}[:_|/])\S")  # az:Bakı, aze_Latn:Bakı
_COUNT = re.compile(r"([0-9]{1,9})\Z")  # 3, and 12.3, s12-3
_RANGE = re.compile(r"(?<![0-9])[0-9]++[-.][0-9]+")  # of CoNLL-U: 2-3 are two words written as one, 3.1 is a word left out
_MANY = 10  # lines from which on a column of numbers alone, or of one value a sentence, is taken for no words


class Skipped(NamedTuple):
    """Takes the place of a record that cannot be read."""

    reason: str


class Noted(NamedTuple):
    """A remark about the record that follows (about the whole file if line is 0): what was corrected or is doubtful."""

    reason: str


Item = tuple[int, dict[str, Any] | Skipped | Noted]


def format_of(path: Path) -> str:
    """The suffix that determines the format, without .gz; "" if there is none."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    return suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes or [""])[-1]


def read_task_file(path: str | Path, bare: bool = False, flat: bool = True) -> Iterator[Item]:
    """(line or record number from 1, row or Skipped or Noted) of a file of any format in FORMATS; .txt is conll.

    `bare`: the words of a conll file may lack tags. `flat`: an article of SQuAD's layout gives one row for each question;
    otherwise it is one row. Raises UserError for a missing or unknown file, a git-lfs pointer, a damaged file, a table with
    two columns of the same name and a header that cannot be read.
    """
    path = Path(path)
    suffix = format_of(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file. Correct its name.")
    refuse_pointer(path)
    try:
        if suffix in (".jsonl", ".ndjson"):
            yield from _json_lines(path)
        elif suffix == ".json":
            yield from _json_file(path, flat)
        elif suffix in (".csv", ".tsv"):
            yield from _table(path, "\t" if suffix == ".tsv" else ",")
        elif suffix in (".parquet", ".arrow"):
            yield from read_columns(path)
        elif suffix in (*CONLL, ".txt"):
            yield from _conll(path, bare)
        else:
            raise UserError(f"{path}: format '{suffix}' is not read. Use one of {', '.join(FORMATS)}.")
    except (EOFError, OSError) as error:
        raise UserError(f"{path}: cannot be read ({error}). Restore it and try again.") from None


def read_clean(path: str | Path, bare: bool = True, flat: bool = True) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of `read_task_file` for callers that need all of them: a record that cannot be read is a UserError."""
    for line, row in read_task_file(path, bare, flat):
        if isinstance(row, Skipped):
            raise UserError(f"{path}, line {line}: {row.reason}. Correct or remove it.")
        if not isinstance(row, Noted):
            yield line, row


# ---------------------------------------------------------------- lines


class _Ends:
    """The kinds of line ends seen in a file."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    def note(self) -> Iterator[Item]:
        if len(self.seen) > 1:
            yield 0, Noted("lines end in different ways (\\n, \\r\\n, \\r)")


def _lines(path: Path, ends: _Ends) -> Iterator[tuple[int, bytes | Skipped]]:
    """Numbered lines with their ends (\\n, \\r\\n or \\r); a line longer than MAX_RECORD is not kept in memory."""
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb") as file:
        number, rest, too_long = 1, b"", False
        piece = file.read(1 << 20)
        if piece.startswith(UTF16):
            raise UserError(f"{path}: in UTF-16. Save the file as UTF-8 and try again.")
        piece = piece.removeprefix(BOM)
        while piece:
            parts = (rest + piece).splitlines(keepends=True)
            piece = file.read(1 << 20)
            rest = parts.pop() if piece else b""  # the line may continue, or this is the \r of \r\n
            for part in parts:
                end = b"\r\n" if part.endswith(b"\r\n") else part[-1:]
                ends.seen |= {end} & {b"\n", b"\r\n", b"\r"}
                yield number, Skipped(_TOO_LONG) if too_long or len(part) > MAX_RECORD else part
                number, too_long = number + 1, False
            if len(rest) > MAX_RECORD:
                rest, too_long = b"", True
        if too_long:
            yield number, Skipped(_TOO_LONG)


_TOO_LONG = f"a line of more than {MAX_RECORD >> 20} MiB"


def _text_lines(path: Path, ends: _Ends) -> Iterator[tuple[int, str | Skipped]]:
    for number, line in _lines(path, ends):
        if isinstance(line, Skipped):
            yield number, line
            continue
        try:
            yield number, line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            yield number, Skipped("not UTF-8")


# ---------------------------------------------------------------- json


def _json_lines(path: Path) -> Iterator[Item]:
    ends = _Ends()
    for number, text in _text_lines(path, ends):
        if isinstance(text, Skipped):
            yield number, text
        elif text.strip():
            yield number, _object(text)
    yield from ends.note()


def _object(text: str) -> dict[str, Any] | Skipped:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        return Skipped(f"not valid JSON ({error.msg})")
    except (ValueError, RecursionError):  # a number of thousands of digits, brackets nested thousands deep
        return Skipped("not valid JSON (too deep, or too long a number)")
    return row if isinstance(row, dict) else Skipped("not a JSON object")


def _json_file(path: Path, flat: bool) -> Iterator[Item]:
    """The SQuAD layout, a list of records, or JSON lines, which `Dataset.to_json` writes under this name."""
    first = next((text for _, text in _text_lines(path, _Ends()) if isinstance(text, Skipped) or text.strip()), "")
    row = _object(first) if isinstance(first, str) else first
    if isinstance(row, dict) and not isinstance(row.get("data"), list):
        yield from _json_lines(path)
        return
    with gzip.open(path, "rb") if path.suffix.lower() == ".gz" else open(path, "rb") as file:
        held = file.read(MAX_JSON + 1)
    if len(held) > MAX_JSON:
        raise UserError(f"{path}: more than {MAX_JSON >> 30} GiB, which is held in memory. Save it as .jsonl.")
    try:
        content = _values(held.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"{path}: not UTF-8. Save the file as UTF-8 and try again.") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not valid JSON ({error}). Restore the file or create it again.") from None
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UserError(f'{path}: expected the SQuAD layout {{"data": [...]}}, a list of records or one record a line.')
    number = 0
    for row in content:
        if "paragraphs" not in row or not flat:
            number += 1
            yield number, row
            continue
        for paragraph in row["paragraphs"]:
            for question in paragraph.get("qas", []):
                number += 1
                yield number, {"title": row.get("title", ""), "context": paragraph.get("context"), **question}


def _values(text: str) -> Any:
    """The one value of a text, or a list of the objects that stand one after another. Raises ValueError."""
    decode, blanks = json.JSONDecoder().raw_decode, re.compile(r"\s*")
    found, at = [], blanks.match(text).end()
    while at < len(text) or not found:
        value, at = decode(text, at)
        found.append(value)
        at = blanks.match(text, at).end()
        if at < len(text) and not isinstance(value, dict):
            raise ValueError(f"text follows at character {at}")
    return found[0] if len(found) == 1 else found


# ---------------------------------------------------------------- csv and tsv

_FAULTS = {
    "not_csv": "a quote that is not closed, or text after one that is",
    "invalid_utf8": "not UTF-8",
    "wrong_columns": "number of cells differs from the header's",
}


def _table(path: Path, delimiter: str) -> Iterator[Item]:
    ends, header = _Ends(), None
    for row in csv_rows(_lines(path, ends), delimiter):
        if isinstance(row, tuple) and isinstance(row[1], Skipped):
            yield row
        elif header is None:
            header = row.cells
            if row.fault == "invalid_utf8":
                raise UserError(f"{path}, line {row.line}: not UTF-8. Save the file as UTF-8 and try again.")
            if row.fault:
                raise UserError(f"{path}, line {row.line}: the header has {_FAULTS[row.fault]}. Correct the first line.")
            if len(header) > 1 and delimiter.encode() not in row.raw:
                yield 0, Noted("columns are parted by another sign than the name of the file says")
            if twice := [name for name, count in Counter(header).items() if count > 1]:
                raise UserError(f"{path}: two columns are called {twice[0]!r}. Give each its own name in the first line.")
        elif row.fault:
            yield row.line, Skipped(_FAULTS[row.fault])
        elif any(cell.strip() for cell in row.cells):
            yield row.line, dict(zip(header, row.cells, strict=True))
    yield from ends.note()


# ---------------------------------------------------------------- conll


@dataclass
class _Columns:
    """Which column of a conll file holds what, found by reading the file once."""

    word: int = 0
    tag: int = -1
    width: int = 0  # columns of most lines: what tells the word # from a comment
    is_iob: bool = False  # whether the last column of most lines is a tag of IOB or its like
    has_ranges: bool = False  # whether the first column numbers the words and has lines like 2-3 and 3.1 between them
    prefixes: frozenset[str] = frozenset()  # of which every word begins with one: WikiANN's raw files write az:Bakı
    notes: list[str] = field(default_factory=list)


class _Column:
    """What the cells of one column are, seen line by line."""

    def __init__(self) -> None:
        self.cells = self.tags = 0
        self.is_empty = self.is_number = self.is_same = True  # no cell with a value; numbers alone; one cell a sentence
        self.types: set[str] = set()  # of its tags
        self.counted_from = {0, 1}  # what the number at the end of its cells may count the words of a sentence from
        self.last = ""

    def add(self, cell: str, number: int) -> None:
        """See the cell of the word with this number in its sentence, from 0."""
        self.cells += 1
        if TAG.fullmatch(cell):
            self.tags += 1
            self.types |= {cell[2:]} - {""}
        end = _COUNT.search(cell) if self.counted_from else None
        self.counted_from = {first for first in self.counted_from if end and int(end[1]) == first + number}
        self.is_empty = self.is_empty and cell in _NOTHING
        self.is_number = self.is_number and cell.isdecimal()
        self.is_same = self.is_same and (number == 0 or cell == self.last)
        self.last = cell

    def numbers_words(self) -> bool:
        """Whether the cells number the words of each sentence: 1, 2, 3, or in a longer file also 7.1, 7.2 and s7-1, s7-2."""
        return bool(self.counted_from) and (self.is_number or self.cells >= _MANY)


def _cells(text: str) -> list[str]:
    """The columns of a line, split at tabs if it has any, else at spaces; [] for a blank line."""
    if "\t" in text:
        cells = [cell.strip(" ") for cell in text.split("\t")]
        return cells if any(cells) else []
    stripped = text.strip(" ")
    return _BLANKS.split(stripped) if stripped else []


def _is_comment(text: str, cells: list[str], columns: _Columns) -> bool:
    """A comment of CoNLL-U begins with "# "; the words # and #Bakı stand in a line with a tag and the columns of any other.

    A line with a # and no blank after it is taken for a comment where all others have a tag of IOB and it has none.
    """
    if not text.startswith("# ") and not (text.startswith("#") and columns.is_iob and len(cells) > 1):
        return False
    return not (TAG.fullmatch(cells[-1]) and len(cells) in (2, columns.width))


def _conll(path: Path, bare: bool) -> Iterator[Item]:
    """{"words", "tags"} of each sentence: the first and last column, unless `_columns` finds others; CoNLL-U has sent_id."""
    columns = _columns(path, bare)
    for note in columns.notes:
        yield 0, Noted(note)
    words: list[str] = []
    tags: list[str] = []
    named: dict[str, str] = {}
    first, broken, ends = 0, "", _Ends()
    universal = format_of(path) == ".conllu"

    def sentence() -> Iterator[Item]:
        if broken:
            yield first, Skipped(broken)
        elif words:
            yield first, {"words": list(words), "tags": list(tags), **named}

    for line, text in _text_lines(path, ends):
        cells = [] if isinstance(text, Skipped) else _cells(text)
        if isinstance(text, Skipped):
            first, broken = first if words or broken else line, text.reason
        elif not cells or text.startswith("-DOCSTART-"):
            yield from sentence()
            words, tags, named, broken = [], [], {}, ""
        elif universal and text.startswith("# sent_id = "):
            named = {"sent_id": text.removeprefix("# sent_id = ").strip()}
        elif not (_is_comment(text, cells, columns) or (universal and text.startswith("#"))):
            first = first if words or broken else line
            if len(cells) < 2 and not bare:
                broken = "a line has a word but no tag"
            elif len(cells) <= max(columns.word, columns.tag) or (len(cells) > columns.width and not bare):
                broken = f"a line has {len(cells)} columns, expected {columns.width}"
            elif not (columns.has_ranges and _RANGE.fullmatch(cells[0])):
                words.append(_without(columns.prefixes, cells[columns.word]))
                tags.append(cells[columns.tag])
    yield from sentence()
    yield from ends.note()


def _columns(path: Path, bare: bool) -> _Columns:
    """Read a conll file twice for its layout: columns that count or name words and sentences, nested columns of tags, a
    language before every word."""
    if format_of(path) == ".conllu":
        return _Columns(word=1, tag=3, width=10, has_ranges=True)
    widths: Counter[int] = Counter()
    tagged = ranges = 0
    for _, text in _text_lines(path, _Ends()):
        if not isinstance(text, Skipped) and (cells := _cells(text)) and not text.startswith(("# ", "-DOCSTART-")):
            widths[len(cells)] += 1
            tagged += TAG.fullmatch(cells[-1]) is not None
            ranges += _RANGE.fullmatch(cells[0]) is not None
    found = _Columns(width=widths.most_common(1)[0][0] if widths else 0, is_iob=tagged > 0.5 * widths.total())
    columns = [_Column() for _ in range(found.width)]
    words = [Prefixes() for _ in range(found.width)]
    number = longest = 0
    for _, text in _text_lines(path, _Ends()):
        cells = [] if isinstance(text, Skipped) else _cells(text)
        if not cells or text.startswith("-DOCSTART-"):
            number = 0
        elif not (_is_comment(text, cells, found) or (ranges <= 0.5 * widths.total() and _RANGE.fullmatch(cells[0]))):
            for column, prefix, cell in zip(columns, words, cells, strict=False):
                column.add(cell, number)
                prefix.add(cell)
            number += 1
            longest = max(longest, number)
    found.has_ranges = bool(columns and columns[0].counted_from and 0 < ranges <= 0.5 * widths.total())
    while longest > 1 and found.width - found.word > (1 if bare else 2) and (why := _is_no_word(columns[found.word])):
        found.word += 1
        found.notes.append(f"column {found.word} {why}: column {found.word + 1} is read as the word")
    if columns and (prefixes := words[found.word].of_all()):
        found.prefixes = prefixes
        found.notes.append(f"every word begins with {' or '.join(map(repr, sorted(prefixes)))}: read without it")
    tag = _tag_column(columns, found.word)
    if tag not in (None, found.width - 1):
        found.tag = tag
        found.notes.append(f"column {tag + 1} of {found.width} is read as the tag")
    return found


def _is_no_word(column: _Column) -> str:
    """What a column holds that numbers or names words or sentences; "" where its cells may be words."""
    if column.numbers_words():
        return "numbers the words"
    if column.is_number and column.cells >= _MANY:
        return "holds numbers alone"
    return "is the same through each sentence" if column.is_same and column.cells >= _MANY else ""


def _tag_column(columns: list[_Column], word: int) -> int | None:
    """The last column that is not empty and counts nothing, or of nested ones (of the same types, or with a last one that is
    O throughout) the first.

    Chunks and names in CoNLL-2003's files stand side by side and share no type, so there it is the last column.
    """
    places = [place for place in range(word + 1, len(columns)) if not columns[place].is_empty]
    places = [place for place in places if not columns[place].numbers_words()] or places
    if not places or columns[places[-1]].tags <= 0.9 * columns[0].cells:
        return places[-1] if places else None
    last = columns[places[-1]].types
    nested = (place for place in places[:-1] if columns[place].types and (not last or columns[place].types & last))
    return next(nested, places[-1])


class Prefixes:
    """Whether every word of a file begins with its language, as in WikiANN's raw files: az:Bakı, tr:Ankara."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()

    def add(self, word: str) -> None:
        """See one word."""
        match = _LANGUAGE.match(word) if "" not in self.seen else None
        self.seen[match[1] if match else ""] += 1

    def of_all(self) -> frozenset[str]:
        """What the words begin with, none if there is one that begins with no language."""
        if not self.seen or "" in self.seen:
            return frozenset()
        shortest = min(self.seen, key=len)  # az_ of az_Bakı and of az_Quba_x
        return frozenset({shortest} if all(prefix.startswith(shortest) for prefix in self.seen) else self.seen)


def _without(prefixes: frozenset[str], word: str) -> str:
    return next((word[len(prefix) :] for prefix in prefixes if word.startswith(prefix)), word)
