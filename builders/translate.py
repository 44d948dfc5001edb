"""Translated sets, as the paper made AZE-MRPC and AZE-SQuAD: pairs, or questions with answers, in another language.

Every row is kept with its status in rows.jsonl; the set has those whose status is in translate.keep. An answer is searched in
the translation of its own sentence (builders/spans.py). sheet.csv is a sample for a person; read back by
translate.checked, it sets rejected rows aside, takes over what was corrected, and the card states how many are right.
"""

import csv
import io
import random
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from builders.sets import Built, aside, find_inputs, read_rows
from builders.spans import AMBIGUOUS, EXACT, INFLECTED, LOST, MARKED, Part, locate, locate_by_marks, marked, parts_of, places
from builders.translators import files_of_translator, translated
from common.errors import UserError
from common.files import json_line
from corpus.language import identify
from language.base import Language, load_language
from tasks.files import split_of_name
from tasks.load import SPLITS, Task, load_task
from tasks.settings import TaskSettings
from tasks.splits import group_name, leakage_group

DONE, NO_ANSWER, EMPTY, UNCHANGED, EQUAL = "translated", "no answer", "empty", "unchanged", "equal"
CHECKED, REJECTED = "checked", "rejected"  # by a person
STATUSES = (DONE, EXACT, INFLECTED, MARKED, NO_ANSWER, CHECKED, AMBIGUOUS, LOST, EMPTY, UNCHANGED, EQUAL, REJECTED)
COLUMNS = ("id", "status", "source_1", "source_2", "source_answer", "translation_1", "translation_2", "answer", "ok", "comment")
YES, NO = ("yes", "y", "1", "true", "ok"), ("no", "n", "0", "false")
SHORTEST, LONGEST = 0.4, 2.5  # characters of a translation by those of its source, beyond which it is marked
LIKELY = 0.02  # probability of the language below which a text is marked as one in another

Row = dict[str, Any]  # {"id", "split", "status", "flags", "source": example, "made": example}


def also_read(settings: dict[str, Any]) -> list[Path]:
    """Files that decide about the set beside the material: the translator's, and a sheet that was filled in."""
    own = settings["translate"]
    checked = find_inputs(own["checked"], "translate.checked") if own["checked"] else []
    return [*files_of_translator(own), *checked]


def build(settings: dict[str, Any], language: Language) -> Built:
    """The set of settings["files"] in `language`. Raises UserError as builders.translators does, and for a wrong sheet."""
    own = settings["translate"]
    if bool(own["command"]) == bool(own["model"]):
        raise UserError("translate: name the translator by translate.command=... or translate.model=FOLDER, one of them.")
    if odd := [name for name in own["keep"] if name not in STATUSES]:
        raise UserError(f"translate.keep: {odd[0]!r} is no status. There are: {', '.join(STATUSES)}.")
    if any(Path(settings["out"]).resolve() in path.resolve().parents for path in also_read(settings)):
        raise UserError(f"translate.checked={own['checked']}: lies in the set, which is made anew. Copy it elsewhere first.")
    task = source_task(settings, own)
    folder = Path(settings["out"]).with_name(f"{Path(settings['out']).name}-translations")
    rows = (qa_rows if own["task"] == "qa" else pair_rows)(task, own, folder, language)
    for row in rows:
        row["flags"] = flags_of(row, language)
    checked = read_sheet(rows, own["checked"], language) if own["checked"] else None
    parts = {split: [row["made"] for row in rows if row["split"] == split and row["status"] in own["keep"]] for split in SPLITS}
    built = Built(own["task"], parts, by="label" if own["task"] == "pair" else "answers")
    built.aside = [aside(str(s["file"]), s["line"], s["reason"], None, s["id"]) for s in task.skipped]
    built.aside += [
        aside("rows.jsonl", line, f"translation: {row['status']}", row["made"], row["id"])
        for line, row in enumerate(rows, 1)
        if row["status"] not in own["keep"]
    ]
    if own["task"] == "pair":
        built.task = {"metric": "f1", "positive": task.positive} if task.positive else {}
    built.more_files = {
        "rows.jsonl": b"".join(map(json_line, rows)),
        "sheet.csv": sheet_of(rows, own["sheet"], settings["seed"]),
    }
    describe(built, rows, checked, own)
    return built


def source_task(settings: dict[str, Any], own: Mapping[str, Any]) -> Task:
    """The set to translate, as fine-tuning reads it: files named train, dev and test keep their parts, others are split."""
    files = find_inputs(settings["files"])
    named = {split_of_name(Path(path.name)) or "train": path for path in files}
    if len(named) < len(files):
        raise UserError(
            f"files: {len(files)} files for {', '.join(named)}. Give one file, or one each named train, dev and test."
        )
    paths = {split: str(path) for split, path in named.items()}
    if "train" not in paths:  # a dev or test part alone is split
        if len(paths) > 1:
            raise UserError(f"files: none of them is named train ({', '.join(path.name for path in files)}). Add it.")
        paths = {"train": next(iter(paths.values()))}
    known = TaskSettings(
        kind=own["task"], columns=settings["columns"], language=own["from_language"], shares=settings["shares"], **paths
    )
    task = load_task(known)
    for example in [*task.train, *task.dev, *task.test]:
        example["group"] = group_name(leakage_group(example, own["task"]))
    return task


def _each(task: Task) -> Iterator[tuple[str, dict[str, Any]]]:
    for split in SPLITS:
        for example in getattr(task, split):
            yield split, {**example, "id": f"{split}-{example['id']}"}


# ---------------------------------------------------------------- pairs


def pair_rows(task: Task, own: Mapping[str, Any], folder: Path, language: Language) -> list[Row]:
    """Every pair with its translation and status."""
    texts = [example[key] for _, example in _each(task) for key in ("text", "text_b")]
    said = translated(texts, own, folder)
    rows = []
    for split, example in _each(task):
        one, two = (" ".join(said[example[key]].split()) for key in ("text", "text_b"))
        made = {"id": example["id"], "text": one, "text_b": two, "label": example["label"], "group": example["group"]}
        status = status_of([(example["text"], one), (example["text_b"], two)])
        if status == DONE and one == two and example["text"] != example["text_b"]:
            status = EQUAL
        rows.append({"id": example["id"], "split": split, "status": status, "source": example, "made": made})
    return rows


def status_of(pairs: Sequence[tuple[str, str]]) -> str:
    """Whether one of the translations is empty, or one is its source although that has three words or more."""
    if any(source.strip() and not text.strip() for source, text in pairs):
        return EMPTY
    return UNCHANGED if any(is_unchanged(source, text) for source, text in pairs) else DONE


def is_unchanged(source: str, text: str) -> bool:
    """Whether a translation is its source. Two words may be a name, which stays."""
    return source.split() == text.split() and len(re.findall(r"[^\W\d_]+", source)) > 2


# ---------------------------------------------------------------- questions


def qa_rows(task: Task, own: Mapping[str, Any], folder: Path, language: Language) -> list[Row]:
    """Every question with its translated context, its answers where they are found, and its status."""
    origin = load_language(own["from_language"] or "generic")
    contexts = {context: parts_of(context, origin) for context in dict.fromkeys(e["context"] for _, e in _each(task))}
    texts = [part.text for parts in contexts.values() for part in parts]
    texts += [text for _, e in _each(task) for text in (e["question"], *(a["text"] for a in e["answers"]))]
    said = {text: " ".join(new.split()) for text, new in translated(texts, own, folder).items()}
    rows, doubtful = [], []
    for split, example in _each(task):
        parts = contexts[example["context"]]
        context = "".join(said[part.text] + part.after for part in parts)
        made = {"id": example["id"], "context": context, "question": said[example["question"]], "answers": []}
        made |= {"title": example["title"], "group": example["group"]}
        same = sum(len(part.text) for part in parts if is_unchanged(part.text, said[part.text]))
        status = EMPTY if not all(said[part.text] for part in parts) else status_of([(example["question"], made["question"])])
        status = UNCHANGED if status == DONE and 2 * same > len(example["context"]) else status
        row = {"id": example["id"], "split": split, "status": status, "source": example, "made": made, "answers": []}
        for answer in example["answers"] if row["status"] == DONE else ():
            begin, region = region_of(answer, parts, said)
            status, place = locate(region, said[answer["text"]], language)
            row["answers"].append({"status": status, "text": said[answer["text"]]})
            if place:
                made["answers"].append(_answer(context, begin, place))
            elif sentence := marked_source(answer, parts, own["markers"]):
                doubtful.append((row, len(row["answers"]) - 1, begin, region, sentence))
        rows.append(row)
    with_marks = translated([sentence for *_, sentence in doubtful], own, folder) if own["markers"] else {}
    for row, number, begin, region, sentence in doubtful:
        if place := locate_by_marks(region, with_marks[sentence], own["markers"], language):
            row["answers"][number]["status"] = MARKED
            row["made"]["answers"].append(_answer(row["made"]["context"], begin, place))
    for row in rows:
        if row["status"] == DONE:
            found = [one["status"] for one in row["answers"]]
            row["status"] = min(found, key=STATUSES.index) if found else NO_ANSWER
    return rows


def _answer(context: str, begin: int, place: tuple[int, int]) -> dict[str, Any]:
    first, last = begin + place[0], begin + place[1]
    return {"text": context[first:last], "start": first}


def region_of(answer: Mapping[str, Any], parts: Sequence[Part], said: Mapping[str, str]) -> tuple[int, str]:
    """(first character, text) of the translated sentences that the answer stood in; of all, where its place is not known."""
    inside = holders(answer, parts) or range(len(parts))
    begin = sum(len(said[part.text]) + len(part.after) for part in parts[: inside[0]])
    return begin, "".join(said[part.text] + part.after for part in parts[inside[0] : inside[-1] + 1]).rstrip()


def holders(answer: Mapping[str, Any], parts: Sequence[Part]) -> list[int]:
    """The numbers of the sentences that an answer stands in; [] where its place is not known."""
    first, last = answer["start"], answer["start"] + len(answer["text"])
    return [i for i, part in enumerate(parts) if first >= 0 and part.begin < last and first < part.begin + len(part.text)]


def marked_source(answer: Mapping[str, Any], parts: Sequence[Part], markers: Sequence[str]) -> str | None:
    """The source sentence with marks around the answer; None without marks, or for an answer over several sentences."""
    inside = holders(answer, parts)
    if not markers or len(inside) != 1:
        return None
    part = parts[inside[0]]
    begin = answer["start"] - part.begin
    return marked(part.text, begin, begin + len(answer["text"]), markers)


# ---------------------------------------------------------------- quality


def _shown(row: Row, side: str) -> tuple[str, str]:
    example = row[side]
    return (example["text"], example["text_b"]) if "text_b" in example else (example["context"], example["question"])


def flags_of(row: Row, language: Language) -> list[str]:
    """Doubts about a translation that alone put no row aside: its length, and what language it reads as."""
    source, made = (" ".join(_shown(row, side)) for side in ("source", "made"))
    found = [] if SHORTEST <= len(made) / max(1, len(source)) <= LONGEST else ["length"]
    if language.scripts:
        verdict = identify(made, language)
        if verdict.script not in (language.scripts[0], "none") or (verdict.label != language.code and verdict.score < LIKELY):
            found.append("reads as another language")
    return found


def describe(built: Built, rows: Sequence[Row], checked: Mapping[str, int] | None, own: Mapping[str, Any]) -> None:
    """The quality report: rows by status and part, doubts, and what a person found."""
    count = {split: Counter(row["status"] for row in rows if row["split"] == split) for split in SPLITS}
    total = Counter(row["status"] for row in rows)
    table = [("status", *SPLITS, "share", "in the set")]
    for status in STATUSES:
        if total[status]:
            share, used = f"{100 * total[status] / len(rows):.1f} %", "yes" if status in own["keep"] else "no"
            table.append((status, *(f"{count[split][status]:,}" for split in SPLITS), share, used))
    flags = Counter(flag for row in rows if row["status"] in own["keep"] for flag in row["flags"])
    built.counts = {"rows of the source": len(rows), **{f"kept, but {flag}": n for flag, n in sorted(flags.items())}}
    built.sections.append(("Translation", table))
    built.facts |= {"statuses": dict(sorted(total.items())), "flags": dict(sorted(flags.items())), "checked": checked}
    by = own["model"] or own["command"]
    built.sections.append(
        ("Translator", [f"`{by}`. Every row is in rows.jsonl with its status; sheet.csv is a sample to check."])
    )
    if not checked or not checked["checked"]:
        built.beware.append("No person has checked the translation: fill in sheet.csv and give it back as translate.checked.")
        return
    from scipy.stats import binomtest

    range_ = binomtest(checked["right"], checked["checked"]).proportion_ci(method="wilson")
    built.sections.append(
        (
            "Checked by a person",
            [
                f"{checked['checked']:,} rows, {checked['right']:,} of them right as they were "
                f"({100 * range_.low:.0f} to {100 * range_.high:.0f} %, 95 % interval), {checked['corrected']:,} corrected, "
                f"{checked['rejected']:,} rejected."
            ],
        )
    )


# ---------------------------------------------------------------- the sheet


def sheet_of(rows: Sequence[Row], size: int, seed: int) -> bytes:
    """A csv of `size` rows, of all statuses in turn, for a person: `ok` is to be yes or no, other cells may be corrected."""
    draw = random.Random(seed)
    by_status: dict[str, list[int]] = {}
    for place, row in enumerate(rows):
        by_status.setdefault(row["status"], []).append(place)
    for places_ in by_status.values():
        draw.shuffle(places_)
    turns = max(map(len, by_status.values()), default=0)
    order = [own[turn] for turn in range(turns) for own in by_status.values() if turn < len(own)]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for place in sorted(order[:size]):
        row = rows[place]
        answers = [next(iter(a["text"] for a in row[side].get("answers") or []), "") for side in ("source", "made")]
        one, two = _shown(row, "source"), _shown(row, "made")
        writer.writerow([row["id"], row["status"], *one, answers[0], *two, answers[1], "", ""])
    return out.getvalue().encode()


def read_sheet(rows: Sequence[Row], path: str, language: Language) -> dict[str, int]:
    """Take over what a person wrote: {"checked", "right", "corrected", "rejected"}. Raises UserError for a wrong line."""
    known = {row["id"]: row for row in rows}
    problems: list[dict[str, Any]] = []
    count = dict.fromkeys(("checked", "right", "corrected", "rejected"), 0)
    for file, line, cells in read_rows(find_inputs(path, "translate.checked"), problems):
        where = f"{file}, line {line}"
        if lacking := [name for name in COLUMNS[:-1] if name not in cells]:
            raise UserError(f"{where}: no column {lacking[0]}. Fill in the sheet.csv that lies beside the card.")
        row = known.get(str(cells["id"]))
        if row is None:
            raise UserError(f"{where}: no row has the id {cells['id']!r}. Was the sheet made from another set?")
        said = str(cells["ok"]).strip().lower()
        if said and said not in (*YES, *NO):
            raise UserError(f"{where}: ok={cells['ok']!r}: expected yes, no or nothing.")
        if not said:
            continue
        count["checked"] += 1
        before = row["status"]
        if said in NO:
            row["status"], name = REJECTED, "rejected"
        else:
            name = "corrected" if corrected(row, cells, where, language) else "right"
            if name == "right" and before in (LOST, AMBIGUOUS, EMPTY, UNCHANGED, EQUAL):
                raise UserError(
                    f"{where}: ok=yes for a row that is {before} and was not corrected. Correct its answer or say no."
                )
            row["status"] = CHECKED
        count[name] += 1
    if problems:
        raise UserError(f"{path}, line {problems[0]['line']}: {problems[0]['reason']}. Correct the sheet.")
    return count


def corrected(row: Row, cells: Mapping[str, Any], where: str, language: Language) -> bool:
    """Take over the cells that differ from what was made; whether there are any."""
    made, new = row["made"], [str(cells[name] or "").strip() for name in ("translation_1", "translation_2", "answer")]
    if "text_b" in made:
        changed = new[:2] != [made["text"], made["text_b"]]
        made["text"], made["text_b"] = new[:2]
        if not all(new[:2]):
            raise UserError(f"{where}: a translation is empty. Fill it in, or write no under ok.")
        return changed
    if new[0].split() != made["context"].split():
        raise UserError(
            f"{where}: the context cannot be changed here, because other questions share it. Restore translation_1."
        )
    changed = new[1] != made["question"]
    made["question"] = new[1] or made["question"]
    if new[2] != next(iter(a["text"] for a in made["answers"]), ""):
        hits = places(made["context"], new[2], language, False)
        if not hits:
            raise UserError(f"{where}: the answer {new[2]!r} does not stand in translation_1. Copy it from there.")
        made["answers"] = [{"text": made["context"][hits[0][0] : hits[0][1]], "start": hits[0][0]}]
        changed = True
    return changed
