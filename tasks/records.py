"""Rows of task files to checked examples of a kind; every doubtful record is named with its file, line and id.

Every record of a file becomes an example or an entry of `skipped` with its file, line and reason; a repair (an offset moved,
a text converted to NFC) is listed in `noted` and counted in `notes`. Examples are plain dictionaries, described in the file
of each kind (tasks/tagging.py and others).
"""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.errors import UserError
from corpus.detection.detector import main_script, units
from corpus.language import identify
from language.base import Language, load_language, script_name
from tasks.base import Kind, kind_of
from tasks.cells import SkipRecord
from tasks.endings import ID_ALIASES
from tasks.files import TaskFile, files_of, read_rows
from tasks.settings import TaskSettings

LANGUAGE_ALIASES = ("language", "lang", "locale")

# A row counts as another language's only if the detector gives Azerbaijani less than this. On TUMLU's 346 Azerbaijani
# questions, many of a few words, it drops none, and it accepts 91 of 891 Turkish ones.
OTHER_LANGUAGE = 0.02
_OTHER_LANGUAGE = re.compile("language |not in .* script|reads as another language")  # beginnings of this filter's reasons


def load_task_file(path: str | Path, kind: str, settings: TaskSettings | None = None, split: str = "train") -> TaskFile:
    """Read one task file, or the files of `split` in a folder, into checked examples of `kind`.

    Settings read: columns, labels, language, language_only, no_answer_start.

    The format follows the name: .jsonl, .json (SQuAD layout or a list of records), .csv, .tsv, .conll/.bio/.iob/.txt
    (tagging: first column the word, last the tag), each also with .gz, .parquet and .arrow. `labels` names the classes or
    tags (else the names in the metadata of parquet and arrow); a whole number in the file is then an index into it, and a
    label outside it is a listed skip. `language_only` skips rows of another language by their language
    column, their script or what they read as. `no_answer_start`: offsets that, with an empty answer, say
    that a question has none (no offset at all says so too).

    Raises UserError for a missing file, an unknown format, a missing column, numeric tags without names, `language_only`
    without a language, or a file with no usable record.
    """
    path, settings = Path(path), settings or TaskSettings()
    language = load_language(settings.language) if settings.language else None
    labels = [str(label) for label in settings.labels] if settings.labels else None
    if settings.language_only and language is None:
        raise UserError(f"{path}: language_only asks for one language, and none is named. Set task.language=NAME.")
    reader = kind_of(kind)
    loaded = TaskFile()
    files = files_of(path, split) or [path]
    rows = [(file, line, row) for file in files for line, row in read_rows(file, kind, loaded)]
    if not rows:
        first = f"the first in line {loaded.skipped[0]['line']}" if loaded.skipped else ""
        why = f" that can be read ({reasons_of(loaded.skipped)}; {first})" if loaded.skipped else ""
        raise UserError(f"{path}: no record in it{why}. Expected one example per line. Check task.train/dev/test.")
    keys = list(dict.fromkeys(key for _, _, row in rows for key in row))
    if not any(settings.columns.values()):
        rows, keys = reader.rearrange(rows, keys)
    found = find_columns(path, reader, keys, rows, dict(settings.columns))
    named = found.get(reader.names_from)  # several columns name their labels themselves
    loaded.labels = (labels or (loaded.names.get(named) if isinstance(named, str) else None)) if reader.names_from else None
    if why := reader.misread(rows, found):
        raise UserError(f"{path}: {why}")
    options = {"no_answer_start": settings.no_answer_start}
    said = next((key for key in keys if key.lower() in LANGUAGE_ALIASES), None) if settings.language_only else None
    seen: Counter[str] = Counter()
    for file, line, row in rows:
        place = str(line) if len(files) == 1 else f"{file.name}:{line}"
        identity = str(row[found["id"]]).strip() if row.get(found.get("id")) not in (None, "") else place
        notes: Counter[str] = Counter()
        try:
            example = reader.read(row, found, loaded.labels, notes, options)
            _check_language(reader.texts(example), row.get(said) if said else None, language, settings.language_only, notes)
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
    if why := reader.unusable(loaded.examples, loaded.labels, loaded.skipped):
        raise UserError(f"{path}: {why}")
    _stop_at_loss(path, loaded)
    return loaded


def reasons_of(skipped: Sequence[dict[str, Any]]) -> str:
    """The three most frequent reasons, with their counts."""
    return "; ".join(f"{count} x {reason}" for reason, count in Counter(skip["reason"] for skip in skipped).most_common(3))


def _stop_at_loss(path: Path, loaded: TaskFile) -> None:
    """UserError if no record is left, or more than half are set aside for one reason that the user did not request.

    Then the file or its interpretation is wrong, and a score on the rest would be meaningless.
    """
    whole = len(loaded.examples) + len(loaded.skipped)
    if not loaded.examples:
        listed = f"{reasons_of(loaded.skipped)}; the first in line {loaded.skipped[0]['line']}"
        raise UserError(f"{path}: none of {whole} records is usable ({listed}). Correct the file or task.columns.")
    kinds = Counter(_DETAIL.sub("...", skip["reason"]) for skip in loaded.skipped if not _asked_for(skip["reason"]))
    for kind, count in kinds.most_common(1):
        if count > whole / 2:
            first = next(skip for skip in loaded.skipped if _DETAIL.sub("...", skip["reason"]) == kind)
            raise UserError(
                f"{path}: {count} of {whole} records cannot be used, for one reason (line {first['line']}: {first['reason']}). "
                "Correct the file, task.columns or task.labels."
            )


_DETAIL = re.compile(r"'[^']*'|\d+")  # what differs between records that are set aside for the same reason


def _asked_for(reason: str) -> bool:
    return _OTHER_LANGUAGE.match(reason) is not None


def _check_language(texts: list[str], said: Any, language: Language | None, only: bool, notes: Counter[str]) -> None:
    """Note a text mostly in another script than the language's; with `only`, skip texts that are not in this language."""
    if language is None or not language.scripts:
        return
    joined = " ".join(texts)
    if only:
        code = re.split("[_-]", str(said).lower())[0]
        if said is not None and not (code.startswith(language.code) or code in (language.code3, language.name)):
            raise SkipRecord(f"language {str(said)[:20]!r} in the file's own column")
        verdict = identify(joined, language)
        if verdict.script not in (language.scripts[0], "none"):
            raise SkipRecord(f"not in {script_name(language.scripts[0])} script ({verdict.script})")
        if verdict.label != language.code and verdict.score < OTHER_LANGUAGE:
            raise SkipRecord(f"reads as another language ({verdict.label})")
    script = main_script(units(joined))
    if script not in (language.scripts[0], "none"):
        notes[f"mostly in another script than {script_name(language.scripts[0])} (kept)"] += 1


# ---------------------------------------------------------------- columns


def find_columns(
    path: Path, kind: Kind, keys: list[str], rows: list, given: dict[str, Any], setting: str = "task.columns"
) -> dict[str, Any]:
    """Map each field of `kind` to its column; {field: column name, or a list of names}.

    `keys` are the columns of all `rows` (file, line, cells), `given` the user's choices {field: column}, which the key
    `setting` holds. Raises UserError for a field without a column.
    """
    roles = {role.rstrip("?"): (names, role.endswith("?")) for role, names in kind.fields.items()}
    unknown = [role for role, name in given.items() if role not in roles and role != "id" and name is not None]
    if unknown:
        raise UserError(f"{setting}.{unknown[0]}: {kind.name} has no such field. It has: {', '.join([*roles, 'id'])}.")
    folded = {key.lower(): key for key in reversed(keys)}
    found: dict[str, Any] = {}
    taken: set[str] = set()
    for role, (names, optional) in {**roles, "id": (ID_ALIASES, True)}.items():
        wanted = given.get(role)
        if wanted is not None:
            missing = [name for name in (wanted if isinstance(wanted, list | tuple) else [wanted]) if name not in keys]
            if missing:
                raise _no_column(path, setting, role, [str(name) for name in missing], keys)
            found[role] = wanted
        else:
            names = [folded[name] for name in names if name in folded and folded[name] not in taken]  # noqa: PLW2901
            if names:
                found[role] = names[0]
            elif not optional:
                raise _no_column(path, setting, role, list(roles[role][0]), keys)
        if role in found and isinstance(found[role], str):
            taken.add(found[role])
    if lacking := kind.find_more(found, keys, rows):
        raise _no_column(path, setting, *lacking, keys)
    return found


def _no_column(path: Path, setting: str, role: str, looked_for: list[str], keys: list[str]) -> UserError:
    return UserError(
        f"{path}: no column for '{role}'. Looked for: {', '.join(looked_for)}; the file has: {', '.join(keys)}. "
        f"Name it with {setting}.{role}=COLUMN."
    )
