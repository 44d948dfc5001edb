"""One task file to checked examples: jsonl, csv, tsv, conll, SQuAD json and flat QA columns.

Every record of the file becomes an example or a line in `skipped` with its file, line and reason; what was only
repaired (an offset moved, a text brought to NFC) is counted in `notes`. Examples are plain dicts:

    classification  {"id", "text", "label"}
    pair            {"id", "text", "text_b", "label"}
    choice          {"id", "question", "options": [2 to 7 texts], "label": index, "group": subject or ""}
    tagging         {"id", "words": [...], "tags": [...]}
    qa              {"id", "context", "question", "answers": [{"text", "start"}], "title"}

A QA example without answers is unanswerable. An answer whose place in the context could not be found has start -1.
"""

import ast
import csv
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.errors import UserError
from common.files import open_text, read_json

KINDS = ("classification", "pair", "choice", "tagging", "qa")
MAX_OPTIONS = 7  # CB-MCQ has 2 to 7 options

# Where each field is looked for, first name first; config `task.columns.<field>=NAME` overrides the search.
# "?" marks a field that may be absent.
ALIASES: dict[str, dict[str, tuple[str, ...]]] = {
    "classification": {
        "text": ("text", "title", "sentence", "sentence1", "headline", "content", "review", "comment"),
        "label": ("label", "topic", "category", "class", "sentiment", "labels", "target"),
        "group?": ("group",),
    },
    "pair": {
        "text": ("text", "sentence1", "text_a", "premise", "partial_text", "question1", "sentence_a"),
        "text_b": ("text_b", "sentence2", "hypothesis", "gold_ending", "ending", "question2", "sentence_b"),
        "label": ("label", "labels", "class", "is_duplicate", "target"),
        "group?": ("group",),
    },
    "choice": {
        "question": ("question", "stem", "query", "text", "sentence"),
        "options": ("options", "choices", "endings", "answers"),
        "label": ("answer", "label", "answer_index", "correct_answer", "correct", "gold", "answer_key"),
        "group?": ("subject", "group", "topic", "category"),
    },
    "tagging": {
        "words": ("words", "tokens"),
        "tags": ("tags", "ner_tags", "labels"),
        "group?": ("group",),
    },
    "qa": {
        "context": ("context", "passage", "paragraph"),
        "question": ("question", "query"),
        "answers?": ("answers",),
        "answer_text?": ("answer_text", "answer"),
        "answer_start?": ("answer_start", "start"),
        "title?": ("title",),
    },
}
ID_ALIASES = ("id", "idx", "index_id", "index", "guid")

_OPTION_COLUMN = re.compile(r"(?:option|choice|ending|answer)?[ _]?([A-Ga-g]|[0-7])")
_TAG = re.compile(r"O|[BIES]-\S+")
_IMAGE = re.compile(r"data:image/|<img\b|[A-Za-z0-9+/]{200,}")
_OTHER_SCRIPT = re.compile(r"[\u0400-\u052f\u0600-\u06ff\u0750-\u077f]")


@dataclass
class TaskFile:
    """What one file held: `examples`, one dict per record set aside in `skipped`, and counts of repairs in `notes`."""

    examples: list[dict[str, Any]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)


class SkipRecord(Exception):
    """Raised inside this file: this record cannot be used, for the reason given."""


def load_task_file(
    path: str | Path,
    kind: str,
    columns: Mapping[str, Any] | None = None,
    labels: list[str] | None = None,
) -> TaskFile:
    """Read one task file into checked examples of `kind`.

    The format follows the name: .jsonl, .json (SQuAD layout or a list of records), .csv, .tsv, .conll/.bio/.iob/.txt
    (tagging: first column the word, last the tag), each also with .gz. `labels` names the classes or tags; a whole
    number in the file is then an index into it, and a label outside it is a listed skip.

    Raises UserError for a missing file, an unknown format, a missing column, numeric tags without names, or a file
    with no usable record.
    """
    path = Path(path)
    if kind not in KINDS:
        raise UserError(f"task.kind={kind}: no such kind. Expected one of {', '.join(KINDS)}.")
    loaded = TaskFile()
    rows = list(_read_rows(path, kind, loaded))
    if not rows:
        raise UserError(f"{path}: no record in it. Expected one example per line. Check task.train/dev/test.")
    keys = list(dict.fromkeys(key for _, row in rows for key in row))
    found = _find_columns(path, kind, keys, dict(columns or {}))
    seen: Counter[str] = Counter()
    for line, row in rows:
        identity = str(row[found["id"]]).strip() if row.get(found.get("id")) not in (None, "") else str(line)
        try:
            example = _BUILDERS[kind](row, found, labels, loaded.notes)
        except SkipRecord as reason:
            loaded.skipped.append({"file": path.name, "line": line, "id": identity, "reason": str(reason)})
            continue
        seen[identity] += 1
        if seen[identity] > 1:
            loaded.notes["duplicate id made unique with #n"] += 1
            identity = f"{identity}#{seen[identity]}"
        loaded.examples.append({"id": identity, **example})
        joined = " ".join(_texts_of(example))
        letters = sum(map(str.isalpha, joined))
        if letters and len(_OTHER_SCRIPT.findall(joined)) > letters / 2:
            loaded.notes["mostly Cyrillic or Arabic script (kept)"] += 1
    if kind == "tagging" and labels is None and all(tag.isdigit() for e in loaded.examples for tag in e["tags"]):
        raise UserError(f"{path}: the tags are numbers. Name them in order, e.g. task.labels=[O,B-PER,I-PER,B-ORG,I-ORG].")
    if kind == "tagging":
        _check_tags(path, loaded)
    if not loaded.examples:
        reasons = Counter(skip["reason"] for skip in loaded.skipped).most_common(3)
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
        raise UserError(f"{path}: none of {len(rows)} records is usable ({listed}). Correct the file or task.columns.")
    return loaded


# ---------------------------------------------------------------- files to rows


def _read_rows(path: Path, kind: str, loaded: TaskFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line or record number, row) of a file of any format; unreadable lines go to `loaded.skipped`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    suffix = suffixes[-2] if len(suffixes) > 1 and suffixes[-1] == ".gz" else (suffixes or [""])[-1]
    if path.is_dir():
        raise UserError(f"{path}: this is a folder, expected a file. Give task.train/dev/test one file each.")
    try:
        if suffix in (".jsonl", ".ndjson"):
            yield from _read_json_lines(path, loaded)
        elif suffix == ".json":
            yield from _read_json_file(path)
        elif suffix in (".csv", ".tsv"):
            yield from _read_table(path, suffix, loaded)
        elif kind == "tagging" and suffix in (".conll", ".bio", ".iob", ".iob2", ".txt"):
            yield from _read_conll(path, loaded)
        else:
            raise UserError(f"{path}: format '{suffix}' is not read for {kind}. Use .jsonl, .csv, .tsv, .json or .conll.")
    except (UnicodeDecodeError, EOFError, OSError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}). Save it as UTF-8 and try again.") from None


def _skip(path: Path, loaded: TaskFile, line: int, reason: str) -> None:
    loaded.skipped.append({"file": path.name, "line": line, "id": str(line), "reason": reason})


def _read_json_lines(path: Path, loaded: TaskFile) -> Iterator[tuple[int, dict[str, Any]]]:
    with open_text(path) as file:
        for line, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                _skip(path, loaded, line, f"not valid JSON ({error.msg})")
                continue
            if isinstance(row, dict):
                yield line, row
            else:
                _skip(path, loaded, line, "not a JSON object")


def _read_json_file(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if path.suffix == ".gz":
        with open_text(path) as file:
            content = json.load(file)
    else:
        content = read_json(path)
    if isinstance(content, dict) and isinstance(content.get("data"), list):
        content = content["data"]
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise UserError(f'{path}: expected the SQuAD layout {{"data": [...]}} or a list of records.')
    number = 0
    for row in content:
        if "paragraphs" not in row:
            number += 1
            yield number, row
            continue
        for paragraph in row["paragraphs"]:
            for question in paragraph.get("qas", []):
                number += 1
                yield number, {"title": row.get("title", ""), "context": paragraph.get("context"), **question}


def _read_table(path: Path, suffix: str, loaded: TaskFile) -> Iterator[tuple[int, dict[str, Any]]]:
    """Comma files are read by the csv rules. In tab files a lone quote is text (MRPC, SNLI are written so), and only a
    cell that is quoted as a whole, with every inner quote doubled (pandas writes so), is unquoted."""
    csv.field_size_limit(1 << 30)
    with open_text(path) as file:
        if suffix == ".csv":
            reader: Any = csv.reader(file)
        else:
            reader = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        header = [name.strip() for name in next(reader, [])]
        if suffix == ".tsv":
            header = [_unquote(name) for name in header]
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                _skip(path, loaded, reader.line_num, "number of cells differs from the header's")
                continue
            if suffix == ".tsv":
                cells = [_unquote(cell) for cell in cells]  # noqa: PLW2901
            yield reader.line_num, dict(zip(header, cells, strict=True))


def _unquote(cell: str) -> str:
    if len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', ""):
        return cell[1:-1].replace('""', '"')
    return cell


def _read_conll(path: Path, loaded: TaskFile) -> Iterator[tuple[int, dict[str, Any]]]:
    words: list[str] = []
    tags: list[str] = []
    first, broken = 0, False

    def sentence() -> Iterator[tuple[int, dict[str, Any]]]:
        if broken:
            _skip(path, loaded, first, "a line has a word but no tag")
        elif words:
            yield first, {"words": list(words), "tags": list(tags)}

    with open_text(path) as file:
        for line, raw in enumerate(file, start=1):
            text = raw.strip("\r\n")
            cells = text.split("\t") if "\t" in text else text.split()
            if not text.strip() or text.startswith("-DOCSTART-"):
                yield from sentence()
                words, tags, broken = [], [], False
                continue
            if text.startswith("# ") and not _TAG.fullmatch(cells[-1]):
                continue  # a comment of CoNLL-U; the word '#' itself ends in a tag
            first = first if words or broken else line
            if len(cells) < 2:
                broken = True
                continue
            words.append(cells[0].strip())
            tags.append(cells[-1].strip())
    yield from sentence()


# ---------------------------------------------------------------- columns


def _find_columns(path: Path, kind: str, keys: list[str], given: dict[str, Any]) -> dict[str, Any]:
    """Map each field of `kind` to the column that holds it; {field: column name, or list of names for options}."""
    roles = {role.rstrip("?"): (names, role.endswith("?")) for role, names in ALIASES[kind].items()}
    unknown = [role for role, name in given.items() if role not in roles and role != "id" and name is not None]
    if unknown:
        raise UserError(f"task.columns.{unknown[0]}: {kind} has no such field. It has: {', '.join([*roles, 'id'])}.")
    folded = {key.lower(): key for key in reversed(keys)}
    found: dict[str, Any] = {}
    taken: set[str] = set()
    for role, (names, optional) in {**roles, "id": (ID_ALIASES, True)}.items():
        wanted = given.get(role)
        if wanted is not None:
            missing = [name for name in (wanted if isinstance(wanted, list | tuple) else [wanted]) if name not in keys]
            if missing:
                raise _no_column(path, role, [str(name) for name in missing], keys)
            found[role] = wanted
        else:
            names = [folded[name] for name in names if name in folded and folded[name] not in taken]  # noqa: PLW2901
            if names:
                found[role] = names[0]
            elif role == "options":
                found[role] = sorted(key for key in keys if _OPTION_COLUMN.fullmatch(key))
                if len(found[role]) < 2:
                    raise _no_column(path, role, [*roles[role][0], "A, B, C, ..."], keys)
            elif not optional:
                raise _no_column(path, role, list(roles[role][0]), keys)
        if role in found and isinstance(found[role], str):
            taken.add(found[role])
    if kind == "qa" and not ("answers" in found or "answer_text" in found):
        raise _no_column(path, "answer_text", ["answers", "answer_text", "answer"], keys)
    return found


def _no_column(path: Path, role: str, looked_for: list[str], keys: list[str]) -> UserError:
    return UserError(
        f"{path}: no column for '{role}'. Looked for: {', '.join(looked_for)}; the file has: {', '.join(keys)}. "
        f"Name it with task.columns.{role}=COLUMN."
    )


# ---------------------------------------------------------------- rows to examples


def _nfc(value: Any, notes: Counter[str], strip: bool = True) -> str:
    """A cell as text in Unicode NFC; counts the cells that were not."""
    text = "" if value is None else str(value)
    normal = unicodedata.normalize("NFC", text)
    if normal != text:
        notes["texts brought to NFC"] += 1
    return normal.strip() if strip else normal


def _list_of(value: Any) -> list[Any]:
    """A cell that should hold a list: a list already, or its spelling in JSON or Python (as csv exports have it)."""
    if isinstance(value, dict) and isinstance(value.get("text"), list):  # {"text": [...], "label": [...]}
        return value["text"]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            try:
                value = ast.literal_eval(value)
            except (ValueError, SyntaxError):
                raise SkipRecord("a list was expected") from None
    if not isinstance(value, list | tuple):
        raise SkipRecord("a list was expected")
    return list(value)


def _label_of(value: Any, labels: list[str] | None) -> str:
    """A class as its name. Numbers are indices into `labels` where given, unless the number itself is a label."""
    if isinstance(value, list | dict):
        raise SkipRecord("label is not a single value")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    name = unicodedata.normalize("NFC", "" if value is None else str(int(value) if value is True or value is False else value))
    name = name.strip()
    if not name:
        raise SkipRecord("empty label")
    if labels is None or name in labels:
        return name
    if name.isdigit() and int(name) < len(labels):
        return labels[int(name)]
    raise SkipRecord(f"label {name!r} is not in task.labels")


def _classification(row: dict, found: dict, labels: list[str] | None, notes: Counter[str]) -> dict[str, Any]:
    text = _nfc(row.get(found["text"]), notes)
    if not text:
        raise SkipRecord("empty text")
    example = {"text": text, "label": _label_of(row.get(found["label"]), labels)}
    if row.get(found.get("group")):
        example["group"] = str(row[found["group"]])
    return example


def _pair(row: dict, found: dict, labels: list[str] | None, notes: Counter[str]) -> dict[str, Any]:
    text_b = _nfc(row.get(found["text_b"]), notes)
    if not text_b:
        raise SkipRecord("empty second text")
    example = _classification(row, found, labels, notes)
    return {"text": example.pop("text"), "text_b": text_b, **example}


def _choice(row: dict, found: dict, labels: list[str] | None, notes: Counter[str]) -> dict[str, Any]:
    question = _nfc(row.get(found["question"]), notes)
    where = found["options"]
    cells = _list_of(row.get(where)) if isinstance(where, str) else [row.get(name) for name in where]
    options = [_nfc(cell.get("text") if isinstance(cell, dict) else cell, notes) for cell in cells]
    while options and not options[-1]:
        options.pop()  # ragged tables fill short questions up with empty cells
    if not question:
        raise SkipRecord("empty question")
    if not all(options):
        raise SkipRecord("empty option")
    if not 2 <= len(options) <= MAX_OPTIONS:
        raise SkipRecord(f"{len(options)} options, expected 2 to {MAX_OPTIONS}")
    if len(set(options)) < len(options):
        raise SkipRecord("two options are the same")
    if any(_IMAGE.search(text) for text in (question, *options)):
        raise SkipRecord("an image in the question or an option")
    answer = row.get(found["label"])
    if answer is None or isinstance(answer, list | dict | bool) or not str(answer).strip():
        raise SkipRecord("no answer")
    name = _nfc(answer, Counter())
    if len(name) == 1 and name.upper() in "ABCDEFG":
        index = "ABCDEFG".index(name.upper())
    elif re.fullmatch(r"-?\d+(\.0)?", name):
        index = int(float(name))
    elif name in options:
        index = options.index(name)
    else:
        raise SkipRecord(f"answer {name[:40]!r} is neither a letter A-G, an index from 0, nor one of the options")
    if not 0 <= index < len(options):
        raise SkipRecord(f"answer {name} is outside the {len(options)} options (letters from A, numbers from 0)")
    group = str(row.get(found.get("group")) or "")
    return {"question": question, "options": options, "label": index, "group": group}


def _tagging(row: dict, found: dict, labels: list[str] | None, notes: Counter[str]) -> dict[str, Any]:
    words = [_nfc(word, notes) for word in _list_of(row.get(found["words"]))]
    tags = [str(tag).strip() for tag in _list_of(row.get(found["tags"]))]
    if not words:
        raise SkipRecord("no words")
    if len(words) != len(tags):
        raise SkipRecord(f"{len(words)} words but {len(tags)} tags")
    if labels is not None:
        tags = [_label_of(tag, labels) for tag in tags]
    example = {"words": words, "tags": tags}
    if row.get(found.get("group")):
        example["group"] = str(row[found["group"]])
    return example


def _check_tags(path: Path, loaded: TaskFile) -> None:
    """Set aside sentences with a tag that is neither O nor PREFIX-TYPE; count I- tags that continue nothing."""
    kept = []
    for example in loaded.examples:
        odd = next((tag for tag in example["tags"] if not _TAG.fullmatch(tag)), None)
        if odd is not None:
            reason = f"tag {odd!r} is neither O nor B-/I-/E-/S- with a type"
            loaded.skipped.append({"file": path.name, "line": None, "id": example["id"], "reason": reason})
            continue
        before = "O"
        for tag in example["tags"]:
            if tag.startswith("I-") and before[2:] != tag[2:]:
                loaded.notes["I- tag that continues no entity (opens one, as conlleval has it)"] += 1
            before = tag
        kept.append(example)
    loaded.examples = kept


def _qa(row: dict, found: dict, labels: list[str] | None, notes: Counter[str]) -> dict[str, Any]:
    raw_context = str(row.get(found["context"]) or "")
    context = _nfc(raw_context, notes, strip=False)
    question = _nfc(row.get(found["question"]), notes)
    if not context.strip():
        raise SkipRecord("empty context")
    if not question:
        raise SkipRecord("empty question")
    answers: list[dict[str, Any]] = []
    for text, start in _golds(row, found):
        if not text.strip():
            if start not in (-1, None):
                raise SkipRecord("empty answer with an offset (an unanswerable question has '' and -1)")
            continue
        if start is not None and start > 0 and context != raw_context:
            start = len(unicodedata.normalize("NFC", raw_context[:start]))  # noqa: PLW2901
        text = unicodedata.normalize("NFC", text)  # noqa: PLW2901
        lead = len(text) - len(text.lstrip())
        text = text.strip()  # noqa: PLW2901
        answers.append({"text": text, "start": _locate(context, text, None if start is None else start + lead, notes)})
    return {
        "context": context,
        "question": question,
        "answers": answers,
        "title": str(row.get(found.get("title")) or ""),
    }


def _golds(row: dict, found: dict) -> list[tuple[str, int | None]]:
    """The (answer text, offset) pairs of a QA row in any of the three layouts; empty when it is unanswerable."""
    if row.get("is_impossible") in (True, "True", "true", 1):
        return []
    golds = row.get(found.get("answers")) if "answers" in found else None
    if isinstance(golds, str):
        golds = ast.literal_eval(golds) if golds.strip().startswith(("[", "{")) else [{"text": golds}]
    if isinstance(golds, dict):  # Hugging Face: {"text": [...], "answer_start": [...]}
        starts = golds.get("answer_start") or [None] * len(golds.get("text", []))
        golds = [{"text": text, "answer_start": start} for text, start in zip(golds.get("text", []), starts, strict=False)]
    if golds is None:
        golds = [{"text": row.get(found.get("answer_text")), "answer_start": row.get(found.get("answer_start"))}]
    pairs = []
    for gold in golds:
        text, start = (gold.get("text"), gold.get("answer_start")) if isinstance(gold, dict) else (gold, None)
        try:
            number = None if start is None or str(start).strip() == "" else int(float(start))
        except ValueError:
            raise SkipRecord(f"answer_start {start!r} is not a number") from None
        pairs.append(("" if text is None else str(text), number))
    return pairs


def _locate(context: str, text: str, start: int | None, notes: Counter[str]) -> int:
    """The answer's offset: the given one if it holds, else the only place where the text occurs, else -1."""
    if start is not None and start >= 0 and context[start : start + len(text)] == text:
        return start
    first = context.find(text)
    if first >= 0 and context.find(text, first + 1) < 0:
        notes["answer offset moved to the only place of the answer"] += 1
        return first
    notes["answer not in the context" if first < 0 else "answer offset wrong and several places possible"] += 1
    return -1


def _texts_of(example: dict[str, Any]) -> list[str]:
    """The texts of an example, for counts over scripts and for leakage."""
    texts = [example[key] for key in ("text", "text_b", "question", "context") if key in example]
    return [*texts, *example.get("options", []), *example.get("words", [])]


_BUILDERS = {"classification": _classification, "pair": _pair, "choice": _choice, "tagging": _tagging, "qa": _qa}
