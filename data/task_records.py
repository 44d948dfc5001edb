"""Rows of task files to checked examples of the five kinds, every doubt named with its file, line and id.

Every record of a file becomes an example or a line in `skipped` with its file, line and reason; what was only
repaired (an offset moved, a text brought to NFC) is listed in `noted` and counted in `notes`. Examples are plain dicts:

    classification  {"id", "text", "label"}
    pair            {"id", "text", "text_b", "label"}
    choice          {"id", "question", "options": [2 to 7 texts], "label": index, "group": subject or ""}
    tagging         {"id", "words": [...], "tags": [...]}
    qa              {"id", "context", "question", "answers": [{"text", "start"}], "title"}

and "group" where the file has such a column: what must stay on one side of a split. A QA example without answers is
unanswerable. An answer whose place in the context could not be found has start -1.
"""

import ast
import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from common.errors import UserError
from corpus.language import identify
from data.task_files import TaskFile, files_of, read_rows

KINDS = ("classification", "pair", "choice", "tagging", "qa")
MAX_OPTIONS = 7  # CB-MCQ has 2 to 7 options
ANSWER_WORDS = 30  # longest answer looked for, in words and not in pieces, so that no tokenizer is favoured

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
        "question": ("question", "stem", "query", "text", "sentence", "question_text"),
        "options": ("options", "choices", "endings", "answers"),
        "label": (
            "answer",
            "label",
            "answer_index",
            "correct_answer",
            "correct",
            "gold",
            "answer_key",
            "true_label",
            "correct_option",
        ),
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
        "group?": ("group",),
    },
}
ID_ALIASES = ("id", "idx", "index_id", "index", "guid")
LANGUAGE_ALIASES = ("language", "lang", "locale")

# A row of a task is dropped as another language's only where the detector gives Azerbaijani less than this. On TUMLU's
# 346 Azerbaijani questions, many of a few words, it drops none, and lets through 91 of 891 Turkish ones.
OTHER_LANGUAGE = 0.02
_OPTION_COLUMN = re.compile(r"(?:option|choice|ending|answer)?[ _]?([A-Ga-g]|[0-7])")
_TAG = re.compile(r"O|[BIES]-\S+")
# Base64 runs, the first letters of base64 PNG, JPEG and GIF, HTML and Markdown images, addresses of picture files.
_IMAGE = re.compile(
    r"data:image/|<img\b|!\[[^\]]*\]\(|[A-Za-z0-9+/]{200,}|\biVBORw0KGgo|/9j/4AAQ|\bR0lGOD[ld]h"
    r"|https?://\S+\.(?:png|jpe?g|gif|svg|webp|bmp)\b",
    re.IGNORECASE,
)
_DISTRACTOR = re.compile(r"distractor[ _-]?\d+")
_OTHER_SCRIPT = re.compile(r"[\u0400-\u052f\u0600-\u06ff\u0750-\u077f]")


class SkipRecord(Exception):
    """Raised inside this file: this record cannot be used, for the reason given."""


def load_task_file(
    path: str | Path,
    kind: str,
    columns: Mapping[str, Any] | None = None,
    labels: list[str] | None = None,
    split: str = "train",
    azerbaijani_only: bool = False,
    no_answer_start: Sequence[int] = (-1,),
) -> TaskFile:
    """Read one task file, or the files of `split` in a folder, into checked examples of `kind`.

    The format follows the name: .jsonl, .json (SQuAD layout or a list of records), .csv, .tsv, .conll/.bio/.iob/.txt
    (tagging: first column the word, last the tag), each also with .gz, .parquet and .arrow. `labels` names the classes or
    tags (else the names in the metadata of parquet and arrow); a whole number in the file is then an index into it, and a
    label outside it is a listed skip. `azerbaijani_only` skips rows of another language by their language column, and rows
    that are not in Latin script or read as another language. `no_answer_start`: offsets that, with an empty answer, say
    that a question has none (no offset at all says so too).

    Raises UserError for a missing file, an unknown format, a missing column, numeric tags without names, or a file
    with no usable record.
    """
    path = Path(path)
    if kind not in KINDS:
        raise UserError(f"task.kind={kind}: no such kind. Expected one of {', '.join(KINDS)}.")
    loaded = TaskFile()
    files = files_of(path, split) or [path]
    rows = [(file, line, row) for file in files for line, row in read_rows(file, kind, loaded)]
    if not rows:
        raise UserError(f"{path}: no record in it. Expected one example per line. Check task.train/dev/test.")
    keys = list(dict.fromkeys(key for _, _, row in rows for key in row))
    rows, keys = _endings(kind, rows, keys, dict(columns or {}))
    found = _find_columns(path, kind, keys, dict(columns or {}))
    loaded.labels = labels or loaded.names.get(found.get("tags" if kind == "tagging" else "label"))
    loaded.labels = None if kind in ("choice", "qa") else loaded.labels
    build = partial(_qa, no_answer_start=no_answer_start) if kind == "qa" else _BUILDERS[kind]
    language = next((key for key in keys if key.lower() in LANGUAGE_ALIASES), None) if azerbaijani_only else None
    seen: Counter[str] = Counter()
    for file, line, row in rows:
        place = str(line) if len(files) == 1 else f"{file.name}:{line}"
        identity = str(row[found["id"]]).strip() if row.get(found.get("id")) not in (None, "") else place
        notes: Counter[str] = Counter()
        try:
            example = build(row, found, loaded.labels, notes)
            _check_language(example, row.get(language), azerbaijani_only, notes)
        except SkipRecord as reason:
            loaded.skip(file, line, identity, str(reason))
            continue
        seen[identity] += 1
        if seen[identity] > 1:
            notes["duplicate id made unique with #n"] += 1
            identity = f"{identity}#{seen[identity]}"
        loaded.examples.append({"id": identity, **example})
        for reason, count in notes.items():
            loaded.note(file, line, identity, reason)
            loaded.notes[reason] += count - 1
    tags = {tag for example in loaded.examples for tag in example["tags"]} if kind == "tagging" else set()
    if tags and loaded.labels is None and all(tag.isdecimal() for tag in tags):
        raise UserError(f"{path}: the tags are numbers. Name them in order, e.g. task.labels=[O,B-PER,I-PER,B-ORG,I-ORG].")
    if not loaded.examples:
        reasons = Counter(skip["reason"] for skip in loaded.skipped).most_common(3)
        listed = "; ".join(f"{count} x {reason}" for reason, count in reasons)
        raise UserError(f"{path}: none of {len(rows)} records is usable ({listed}). Correct the file or task.columns.")
    return loaded


def _endings(kind: str, rows: list[tuple[Path, int, dict]], keys: list[str], given: dict[str, Any]) -> tuple[list, list[str]]:
    """Rows of AZE-NSP's layout (partial_text, gold_ending, distractor0 ...) as rows of a kind; other files as they are.

    choice: all endings in an order drawn from the text, so that the right place tells nothing. pair: the true ending as
    "next" and one distractor, drawn likewise, as "other", both in one group.
    """
    wrong = sorted(key for key in keys if _DISTRACTOR.fullmatch(key.lower()))
    if not wrong or "gold_ending" not in keys or "partial_text" not in keys or given or kind not in ("pair", "choice"):
        return rows, keys
    made: list[tuple[Path, int, dict]] = []
    for file, line, row in rows:
        text, right = row.get("partial_text"), row.get("gold_ending")
        identity = next((str(row[key]) for key in ID_ALIASES if row.get(key) not in (None, "")), str(line))
        false = [row[key] for key in wrong if str(row.get(key) or "").strip()]
        draw = int.from_bytes(hashlib.sha256(f"{text}".encode()).digest()[:8], "big")
        if kind == "choice":
            place = draw % (len(false) + 1)
            options = [*false[:place], right, *false[place:]]
            made.append((file, line, {"id": identity, "question": text, "options": options, "answer": place}))
            continue
        pair = {"text": text, "group": str(text)}
        made.append((file, line, {"id": f"{identity}-next", **pair, "text_b": right, "label": "next"}))
        other = false[draw % len(false)] if false else None
        made.append((file, line, {"id": f"{identity}-other", **pair, "text_b": other, "label": "other"}))
    return made, list(made[0][2])


def _check_language(example: dict[str, Any], said: Any, azerbaijani_only: bool, notes: Counter[str]) -> None:
    """Note a text mostly in Cyrillic or Arabic script; skip what is not Latin-script Azerbaijani where that is asked for."""
    joined = " ".join(texts_of(example))
    if azerbaijani_only:
        if said is not None and not str(said).lower().startswith("az"):
            raise SkipRecord(f"language {str(said)[:20]!r} in the file's own column")
        verdict = identify(joined)
        if verdict.script not in ("Latn", "none"):
            raise SkipRecord(f"not in Latin script ({verdict.script})")
        if verdict.label != "az" and verdict.score < OTHER_LANGUAGE:
            raise SkipRecord(f"reads as another language ({verdict.label})")
    letters = sum(map(str.isalpha, joined))
    if letters and len(_OTHER_SCRIPT.findall(joined)) > letters / 2:
        notes["mostly Cyrillic or Arabic script (kept)"] += 1


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
        value = _spelled(value)
    if not isinstance(value, list | tuple):
        raise SkipRecord("a list was expected")
    return list(value)


def _spelled(text: str) -> Any:
    """A value written in JSON or Python."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        try:
            return ast.literal_eval(text)
        except (ValueError, SyntaxError, TypeError, MemoryError):
            raise SkipRecord("a list was expected") from None


def _label_of(value: Any, labels: list[str] | None) -> str:
    """A class as its name. Numbers are indices into `labels` where given, unless the number itself is a label."""
    if isinstance(value, list | dict):
        raise SkipRecord("label is not a single value")
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value  # NaN is how tables say empty
    name = unicodedata.normalize("NFC", "" if value is None else str(int(value) if value is True or value is False else value))
    name = name.strip()
    if not name:
        raise SkipRecord("empty label")
    if labels is None or name in labels:
        return name
    if name.isdecimal() and int(name) < len(labels):
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
    if any(isinstance(cell, bytes) or (isinstance(cell, dict) and "bytes" in cell) for cell in cells):
        raise SkipRecord("an image in the question or an option")
    options = [_nfc(cell.get("text") if isinstance(cell, dict) else cell, notes) for cell in cells]
    while options and not options[-1]:
        options.pop()  # ragged tables fill short questions up with empty cells
    if not question:
        raise SkipRecord("empty question")
    if any(_IMAGE.search(text) for text in (question, *options)):
        raise SkipRecord("an image in the question or an option")
    if not all(options):
        raise SkipRecord("empty option")
    if not 2 <= len(options) <= MAX_OPTIONS:
        raise SkipRecord(f"{len(options)} options, expected 2 to {MAX_OPTIONS}")
    if len(set(options)) < len(options):
        raise SkipRecord("two options are the same")
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
    before = "O"
    for tag in tags:
        if not _TAG.fullmatch(tag) and not tag.isdecimal():  # numbers without names are one error of the whole file
            raise SkipRecord(f"tag {tag!r} is neither O nor B-/I-/E-/S- with a type")
        if tag.startswith("I-") and before[2:] != tag[2:]:
            notes["I- tag that continues no entity (opens one, as conlleval has it)"] += 1
        before = tag
    example = {"words": words, "tags": tags}
    if row.get(found.get("group")):
        example["group"] = str(row[found["group"]])
    return example


def _qa(
    row: dict, found: dict, labels: list[str] | None, notes: Counter[str], no_answer_start: Sequence[int] = (-1,)
) -> dict[str, Any]:
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
            if start is not None and start not in no_answer_start:
                raise SkipRecord(f"empty answer with offset {start} (unanswerable is '' with none of task.no_answer_start)")
            continue
        if start is not None and start > 0 and context != raw_context:
            start = len(unicodedata.normalize("NFC", raw_context[:start]))  # noqa: PLW2901
        text = unicodedata.normalize("NFC", text)  # noqa: PLW2901
        lead = len(text) - len(text.lstrip())
        text = text.strip()  # noqa: PLW2901
        if len(text.split()) > ANSWER_WORDS:
            notes[f"answer longer than {ANSWER_WORDS} words (cannot be predicted whole)"] += 1
        answers.append({"text": text, "start": _locate(context, text, None if start is None else start + lead, notes)})
    example = {"context": context, "question": question, "answers": answers, "title": str(row.get(found.get("title")) or "")}
    if row.get(found.get("group")):
        example["group"] = str(row[found["group"]])
    return example


def _golds(row: dict, found: dict) -> list[tuple[str, int | None]]:
    """The (answer text, offset) pairs of a QA row in any of the three layouts; empty when it is unanswerable."""
    if row.get("is_impossible") in (True, "True", "true", 1):
        return []
    golds = row.get(found.get("answers")) if "answers" in found else None
    if isinstance(golds, str):
        golds = _spelled(golds) if golds.strip().startswith(("[", "{")) else [{"text": golds}]
    if isinstance(golds, dict):  # Hugging Face: {"text": [...], "answer_start": [...]}
        texts = golds.get("text") or []
        starts = golds.get("answer_start") or [None] * len(texts)
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise SkipRecord("answers are not {text: [...], answer_start: [...]} of one length")
        golds = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if golds is None:
        golds = [{"text": row.get(found.get("answer_text")), "answer_start": row.get(found.get("answer_start"))}]
    if not isinstance(golds, list):
        raise SkipRecord("answers are not a list")
    pairs = []
    for gold in golds:
        text, start = (gold.get("text"), gold.get("answer_start")) if isinstance(gold, dict) else (gold, None)
        try:
            number = None if start is None or str(start).strip() == "" else int(float(start))
        except (ValueError, TypeError, OverflowError):
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


def texts_of(example: dict[str, Any]) -> list[str]:
    """The texts of an example, for counts over scripts and for leakage."""
    texts = [example[key] for key in ("text", "text_b", "question", "context") if key in example]
    return [*texts, *example.get("options", []), *example.get("words", [])]


_BUILDERS = {"classification": _classification, "pair": _pair, "choice": _choice, "tagging": _tagging, "qa": _qa}
