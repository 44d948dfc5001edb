"""CB-MCQ's kind: exam questions with 2 to 7 options, without pictures and broken ones, and what gives the answer away.

Options stand in a list, in columns, in one cell ("A) Bakı B) Gəncə") or behind the question; the answer is a letter, a
number or the option's text. Rows are read by tasks/choice.py once they have that form. Questions with near-duplicate stems
are one group, and no group is in two parts. Where the right option is longer than the others, or stands in one place, or
keeps the letter that it had before the options were shuffled, the card says so with the numbers.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from builders.exams import read_exams
from builders.groups import largest, near_groups
from builders.sets import Built, aside, find_inputs
from common.errors import UserError
from language.base import Language
from tasks.base import kind_of
from tasks.cells import SkipRecord, list_of
from tasks.choice import MAX_OPTIONS, OPTION_COLUMN
from tasks.load import SPLITS
from tasks.metrics import longest
from tasks.records import find_columns
from tasks.splits import group_name, split_of

LETTERS = "ABCDEFG"
UNLIKELY = 0.001  # chance that a cue is as far from chance by accident, from which the card warns of it
CLUSTER = 0.05  # share of all questions in one group from which the card warns that unlike stems may have been joined
SEPARATORS = ("\n", "|", ";")  # between options of one cell that have no letters
_SAID = re.compile(r"answer (?:'.*?'|\S+) is")  # what differs between records that are set aside for one reason
_FORMULA = re.compile(r"<math\b")


def build(settings: dict[str, Any], language: Language) -> Built:
    """The set of settings["files"]. Raises UserError where no question can be read or numbers cannot be told."""
    own = settings["multiple_choice"]
    if not 2 <= len(set(own["letters"])) == len(own["letters"]) <= MAX_OPTIONS:
        raise UserError(f"multiple_choice.letters={own['letters']}: expected 2 to {MAX_OPTIONS} different letters.")
    put_aside: list[dict[str, Any]] = []
    counts: Counter[str] = Counter()
    read = read_questions(settings, put_aside, counts)
    questions = _different(read, put_aside)
    keys = [language.fold_key(question["question"]) or same(question["question"]) for question in questions]
    leaders = near_groups(keys, own["near_duplicates"], by_letters=True)
    counts["questions grouped with a near-duplicate stem"] = sum(place != leader for place, leader in enumerate(leaders))
    counts["questions in the largest group"] = largest(leaders)
    parts: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for question, leader in zip(questions, leaders, strict=True):
        example = {name: question[name] for name in ("id", "question", "options", "label", "subject")}
        part = parts[SPLITS[split_of(keys[leader], settings["shares"])]]
        part.append({**example, "group": group_name(keys[leader])})
    told = biases(questions, read)
    built = Built("choice", parts, put_aside, by="options", counts=dict(counts), facts={"biases": told})
    rows = [
        (name, f"{one['questions']:,}", f"{100 * one['right']:.1f}", f"{100 * one['low']:.1f} to {100 * one['high']:.1f}",
         f"{100 * one['chance']:.1f}") for name, one in told.items()
    ]  # fmt: skip
    built.sections.append(
        ("What gives the answer away", [("choice", "questions", "right, %", "95 % interval", "by chance"), *rows])
    )
    built.sections.append(("Lengths", _lengths(questions)))
    built.beware = _doubts(told, counts, len(questions))
    return built


# ---------------------------------------------------------------- reading


def read_questions(settings: dict[str, Any], put_aside: list[dict[str, Any]], counts: Counter[str]) -> list[dict[str, Any]]:
    """{"id", "question", "options", "label", "subject", "file", "line"} of each usable row, and "letter" of the right option
    where the options carried their letters in another order than they stand in.

    Columns are looked for in each file for itself, by the names of the kind choice and settings["columns"].
    """
    own, columns, kind = settings["multiple_choice"], settings["columns"], kind_of("choice")
    unseen = _pattern(own["unseen"])
    given = [name for value in columns.values() for name in (value if isinstance(value, list) else [value])]
    known = [*kind.fields["question"], *map(str, given)]
    questions, seen = [], set()
    for path in find_inputs(settings["files"]):
        rows = [*read_exams([path], known, put_aside)]
        rows = _with_options(rows, columns, own["letters"], put_aside)
        counts["questions read"] += len(rows)
        if not rows:
            continue
        keys = list(dict.fromkeys(key for _, _, row in rows for key in row))
        found = find_columns(path, kind, keys, rows, columns, "columns")
        first = _first_number(path.name, rows, found, own["counted_from"])
        for file, line, row in rows:
            try:
                question = _question(_counted(row, found, first), found, own["letters"], unseen)
            except SkipRecord as reason:
                put_aside.append(aside(file.name, line, _SAID.sub("answer is", str(reason)), row))
                continue
            place = f"{file.name}:{line}"
            identity = str(row.get(found.get("id")) or place).strip()
            identity = place if identity in seen else identity
            seen.add(identity)
            counts["questions whose options carried letters (removed)"] += question.pop("stripped")
            questions.append({"id": identity, **question, "file": file.name, "line": line})
    if not questions:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in Counter(row["reason"] for row in put_aside).most_common(3))
        raise UserError(f"multiple_choice: no question can be used ({reasons or 'no row'}). Correct files or columns.")
    return questions


def _question(row: dict[str, Any], found: dict[str, Any], letters: str, unseen: re.Pattern[str] | None) -> dict[str, Any]:
    """The question of a row, its options without their letters. Raises SkipRecord."""
    row, said = _lettered(row, found, letters)
    read = kind_of("choice").read(row, found, None, Counter(), {})
    texts = [read["question"], *read["options"]]
    if any(_FORMULA.search(text) for text in texts):
        raise SkipRecord("a formula that is not text")
    if unseen and any(unseen.search(text) for text in texts):
        raise SkipRecord("it refers to something that is not in its text (multiple_choice.unseen)")
    options, label, letter, stripped = read["options"], read["label"], None, False
    marks = [_marker(letters).match(option) for option in options]
    carried = [_letter(mark["mark"], letters) for mark in marks if mark and not mark["mark"].isdigit()]
    if sorted(carried) == list(LETTERS[: len(options)]):
        options, stripped = [option[mark.end() :].strip() for option, mark in zip(options, marks, strict=True)], True
        letter = carried[label] if carried != sorted(carried) else None
        if not all(options):
            raise SkipRecord("empty option")
        if len(set(options)) < len(options):
            raise SkipRecord("two options are the same")
    if said and same(said) != same(options[label]):
        raise SkipRecord("an answer whose letter and text are of two options")
    return {
        "question": read["question"], "options": options, "label": label, "subject": read["group"],
        "letter": letter, "stripped": stripped,
    }  # fmt: skip


def _lettered(row: dict[str, Any], found: dict[str, Any], letters: str) -> tuple[dict[str, Any], str]:
    """(the row with an answer like B) Gəncə as the letter B, the text behind it); letters of another alphabet by their place.

    A. Puşkin stays, where it is the text of an option.
    """
    column = found["label"]
    answer = row[column].strip() if isinstance(row.get(column), str) else ""
    mark = _marker(letters).match(answer)
    if mark and not mark["mark"].isdigit() and same(answer) not in map(same, _options_of(row, found)):
        return {**row, column: _letter(mark["mark"], letters)}, answer[mark.end() :]
    if len(answer) == 1 and letters.upper() != LETTERS[: len(letters)] and not answer.isdigit():
        return {**row, column: _letter(answer, letters)}, ""
    return row, ""


def _options_of(row: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """The options of a row whatever its answer; [] if they cannot be used, or have numbers of their own."""
    try:
        return kind_of("choice").read({**row, found["label"]: LETTERS[0]}, found, None, Counter(), {})["options"]
    except SkipRecord:
        return []


def _marker(letters: str) -> re.Pattern[str]:
    """A letter or a number with its bracket or full stop where a word could begin: A) (A) A. 1)"""
    own = re.escape(letters + letters.lower())
    return re.compile(rf"(?:^|(?<=\s))(?P<open>\(?)(?P<mark>[{own}]|[1-{MAX_OPTIONS}])(?P<close>\)|[.:](?!\d))\s*")


def split_options(text: str, letters: str = LETTERS, marked: bool = False) -> tuple[str, dict[str, list[str]] | list[str]]:
    """(what stands before the options, the options) of one cell.

    Options with letters or numbers before them are {"text": [...], "label": [...]}. Without them they are parted by line
    ends, | or ; (not if `marked`). Raises SkipRecord if there are not at least two.
    """
    found = [*_marker(letters).finditer(text)]
    for close in ").:":
        for alike in (str.isupper, str.islower, str.isdigit):
            marks = [mark for mark in found if mark["close"] == close and alike(mark["mark"])]
            names = [_letter(mark["mark"], letters) for mark in marks]
            if len(names) < 2 or sorted(names) != list(LETTERS[: len(names)]):
                continue
            ends = [*(mark.start() for mark in marks[1:]), len(text)]
            options = [text[mark.end() : end].strip(" \t\n;,|") for mark, end in zip(marks, ends, strict=True)]
            return text[: marks[0].start()].strip(), {"text": options, "label": names}
    for separator in () if marked else SEPARATORS:
        options = [part.strip() for part in text.split(separator)]
        if sum(map(bool, options)) > 1:
            return "", [option for option in options if option]
    raise SkipRecord("options that cannot be told apart in their cell")


def _letter(mark: str, letters: str) -> str:
    """A letter of `letters` in either case, or a number from 1, as a letter of LETTERS; other text as it is."""
    if len(mark) == 1 and mark.upper() in letters.upper():
        return LETTERS[letters.upper().index(mark.upper())]
    return LETTERS[int(mark) - 1] if re.fullmatch(rf"[1-{MAX_OPTIONS}]", mark) else mark


Rows = list[tuple[Any, int, dict[str, Any]]]


def _with_options(rows: Rows, columns: dict[str, Any], letters: str, put_aside: list[dict[str, Any]]) -> Rows:
    """Rows whose options are a list or stand in columns; those of one cell, or at the end of the question, are split."""
    keys = {key.lower(): key for _, _, row in rows for key in row}
    own = kind_of("choice").fields
    named = columns.get("options") or next((keys[name] for name in own["options?"] if name in keys), None)
    asked = columns.get("question") or next((keys[name] for name in own["question"] if name in keys), None)
    if isinstance(named, list) or (named is None and sum(bool(OPTION_COLUMN.fullmatch(key)) for key in keys.values()) > 1):
        return rows
    made = []
    for file, line, row in rows:
        cell = row.get(named) if named else row.get(asked)
        try:
            if not isinstance(cell, str) or (named and _is_list(cell)):
                made.append((file, line, row))
            elif named:
                made.append((file, line, {**row, named: split_options(cell, letters)[1]}))
            else:
                question, options = split_options(cell, letters, marked=True)
                made.append((file, line, {**row, asked: question, "options": options}))
        except SkipRecord as reason:
            put_aside.append(aside(file.name, line, str(reason), row))
    return made


def _is_list(cell: str) -> bool:
    try:
        return bool(list_of(cell))
    except SkipRecord:
        return False


def _first_number(name: str, rows: Rows, found: dict[str, Any], given: int | None) -> int:
    """0 or 1: from where the answers of a file are counted, if they are numbers."""
    if given is not None or found.get("answers") == "text":
        return given or 0
    numbers, chance = [], 1.0
    for _, _, row in rows:
        answer = str(row.get(found["label"])).strip().removesuffix(".0")
        size = len(_options_of(row, found)) if answer.isdecimal() else 0
        if size:
            numbers.append((int(answer), size))
            chance *= 1 - 1 / size
    if not numbers or any(number == 0 for number, _ in numbers):
        return 0
    if any(number == size for number, size in numbers) or chance < UNLIKELY:
        return 1
    raise UserError(
        f"{name}: {len(numbers)} answers are numbers, and they may count from 0 or from 1. Set multiple_choice.counted_from."
    )


def _counted(row: dict[str, Any], found: dict[str, Any], first: int) -> dict[str, Any]:
    """The row with a number from `first` as one from 0."""
    answer = str(row.get(found["label"])).strip().removesuffix(".0")
    return {**row, found["label"]: int(answer) - first} if first and answer.isdecimal() else row


def _pattern(text: str | None) -> re.Pattern[str] | None:
    try:
        return re.compile(text, re.IGNORECASE) if text else None
    except re.error as error:
        raise UserError(f"multiple_choice.unseen={text}: no regular expression ({error}). Correct it.") from None


# ---------------------------------------------------------------- duplicates and biases


def same(text: str) -> str:
    """A text without differences of case and blanks. Signs stay: +5 and -5 are two options."""
    return " ".join(text.casefold().split())


def _different(questions: Sequence[dict[str, Any]], put_aside: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One of those with the same stem and options in whatever order, and none of them if their answers differ."""
    answers, first, kept = defaultdict(set), {}, []
    keys = [(same(one["question"]), *sorted(map(same, one["options"]))) for one in questions]
    for key, one in zip(keys, questions, strict=True):
        answers[key].add(same(one["options"][one["label"]]))
        first.setdefault(key, one["id"])
    for key, one in zip(keys, questions, strict=True):
        row = {name: one[name] for name in ("question", "options", "label")}
        if len(answers[key]) > 1:
            put_aside.append(aside(one["file"], one["line"], "one question with several answers", row, one["id"]))
        elif first[key] != one["id"]:
            row["as"] = first[key]
            put_aside.append(aside(one["file"], one["line"], "the same question as another", row, one["id"]))
        else:
            kept.append(one)
    return kept


def biases(questions: Sequence[dict[str, Any]], read: Sequence[dict[str, Any]] = ()) -> dict[str, dict[str, Any]]:
    """{choice: {"questions", "right", "low", "high", "chance", "found"}}: how often one that reads nothing is right.

    Letters are counted in `read`, the questions before duplicates were set aside: a shuffled copy is often a duplicate.
    "right" is a share with its 95 % interval (Wilson 1927). "found": it lies so far from chance that this happens by
    accident in less than UNLIKELY of all sets; the test takes questions as independent.
    """
    chosen: dict[str, Callable[[dict[str, Any]], int]] = {
        "the longest option": lambda one: longest(one["options"]),
        "the shortest option": lambda one: min(range(len(one["options"])), key=lambda i: (len(one["options"][i]), i)),
        "the last option": lambda one: len(one["options"]) - 1,
    }
    tried: dict[str, list[tuple[bool, float]]] = {
        name: [(take(one) == one["label"], 1 / len(one["options"])) for one in questions] for name, take in chosen.items()
    }
    for place in range(MAX_OPTIONS):
        asked = [one for one in questions if len(one["options"]) > place]
        tried[f"option {place + 1}"] = [(one["label"] == place, 1 / len(one["options"])) for one in asked]
    shuffled = [one for one in read if one.get("letter")]
    for letter in LETTERS[: max((len(one["options"]) for one in shuffled), default=0)]:
        name = f"letter {letter} before options in another order (removed)"
        tried[name] = [(one["letter"] == letter, 1 / len(one["options"])) for one in shuffled]
    return {name: _told(hits) for name, hits in tried.items() if hits}


def _told(hits: Sequence[tuple[bool, float]]) -> dict[str, Any]:
    from scipy.stats import binomtest

    right, number = sum(hit for hit, _ in hits), len(hits)
    chance = float(np.mean([one for _, one in hits]))
    tested = binomtest(right, number, chance)
    low, high = tested.proportion_ci(0.95, "wilson")
    found = bool(tested.pvalue < UNLIKELY)
    return {
        "questions": number, "right": round(right / number, 4), "low": round(float(low), 4), "high": round(float(high), 4),
        "chance": round(chance, 4), "found": found,
    }  # fmt: skip


def _lengths(questions: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """Characters of right and wrong options: mean, and quartiles."""
    right = [len(one["options"][one["label"]]) for one in questions]
    wrong = [len(option) for one in questions for place, option in enumerate(one["options"]) if place != one["label"]]
    rows = [("options", "number", "mean length in characters", "quartiles")]
    for name, lengths in (("right", right), ("wrong", wrong)):
        quartiles = " / ".join(f"{value:.0f}" for value in np.percentile(lengths, [25, 50, 75]))
        rows.append((name, f"{len(lengths):,}", f"{np.mean(lengths):.1f}", quartiles))
    return rows


def _doubts(told: dict[str, dict[str, Any]], counts: Counter[str], number: int) -> list[str]:
    lines = [
        f"{name} is right in {100 * one['right']:.1f} % of {one['questions']:,} questions, by chance it would be in "
        f"{100 * one['chance']:.1f} %."
        for name, one in told.items()
        if one["found"] and one["right"] > one["chance"]
    ]
    if (size := counts["questions in the largest group"]) > CLUSTER * number:
        lines.append(f"One group of near-duplicate stems holds {size:,} of {number:,} questions, and is in one part.")
    return lines
