"""Multiple choice: a question and 2 to 7 options, {"id", "question", "options", "label": index of the right one, "group"}.

"group" is the school subject or ""; it is not a unit of leakage.
"""

import re
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from common.errors import UserError
from tasks.base import RIGHT, Kind, log_softmax, rounded
from tasks.cells import SkipRecord, list_of, nfc, spelled
from tasks.encoding import row_of
from tasks.endings import choices_of_endings
from tasks.metrics import above_chance, class_counts, f1_of_counts, longest, subject_of

MAX_OPTIONS = 7  # CB-MCQ has 2 to 7 options
OPTION_COLUMN = re.compile(r"(?:option|choice|ending|answer)?[ _]?([A-Ga-g]|[0-7])")
_LETTERS = "ABCDEFG"
_LETTERED = re.compile(r"\(?([A-Ga-g])[).:]\s")
_BRACKETED = re.compile(r"[(\[]?([A-Ga-g])[)\].:]?")
# Base64 runs, the first letters of base64 PNG, JPEG and GIF, HTML and Markdown images, addresses of picture files.
_IMAGE = re.compile(
    r"data:image/|<img\b|!\[[^\]]{0,999}+\]\(|[A-Za-z0-9+/]{200,}|\biVBORw0KGgo|/9j/4AAQ|\bR0lGOD[ld]h"
    r"|https?://\S+\.(?:png|jpe?g|gif|svg|webp|bmp)\b",
    re.IGNORECASE,
)


class Choice(Kind):
    """One of several options answers a question."""

    name = "choice"
    fields = {
        "question": ("question", "stem", "query", "text", "sentence", "question_text"),
        "options?": ("options", "choices", "endings", "answers"),
        "label": (
            "answer",
            "label",
            "answer_index",
            "correct_answer",
            "correct",
            "gold",
            "answer_key",
            "answerkey",
            "true_label",
            "correct_option",
        ),
        "group?": ("subject", "group", "topic", "category"),
    }
    inputs = ("question", "options")
    blind = "question"
    options = ("next_sentence",)

    def rearrange(self, rows, keys):
        return choices_of_endings(rows, keys)

    def find_more(self, found, keys, rows):
        """Without a list of options: columns A, B, C, ... or option_1, option_2, ... And whether answers are said by text."""
        if "options" not in found:
            found["options"] = sorted(key for key in keys if OPTION_COLUMN.fullmatch(key))
            if len(found["options"]) < 2:
                return "options", ["options", "A, B, C, ..."]
        if any(_is_said_by_text(row, found) for _, _, row in rows):
            found["answers"] = "text"
        return None

    def read(self, row, found, labels, notes, options):
        question = nfc(row.get(found["question"]), notes)
        cells, own = _options(row, found)
        if any(isinstance(cell, bytes) or (isinstance(cell, dict) and "bytes" in cell) for cell in cells):
            raise SkipRecord("an image in the question or an option")
        texts = [nfc(cell.get("text") if isinstance(cell, dict) else cell, notes) for cell in cells]
        while texts and not texts[-1]:
            texts.pop()  # tables pad short questions with empty cells
        if not question:
            raise SkipRecord("empty question")
        if any(_IMAGE.search(text) for text in (question, *texts)):
            raise SkipRecord("an image in the question or an option")
        if not all(texts):
            raise SkipRecord("empty option")
        if not 2 <= len(texts) <= MAX_OPTIONS:
            raise SkipRecord(f"{len(texts)} options, expected 2 to {MAX_OPTIONS}")
        if len(set(texts)) < len(texts):
            raise SkipRecord("two options are the same")
        place = _place(row.get(found["label"]), texts, own, found.get("answers") == "text")
        return {"question": question, "options": texts, "label": place, "group": str(row.get(found.get("group")) or "")}

    def misread(self, rows, found):
        """Answers 1 to n without a 0: if read as indices from 0, each would be off by one."""
        count, highest, chance = 0, False, 1.0
        for _, _, row in rows:
            answer = str(row.get(found["label"])).strip().removesuffix(".0")
            try:
                cells, own = _options(row, found)
            except SkipRecord:
                continue
            if own or not answer.isdecimal():
                continue
            if answer == "0" or found.get("answers") == "text":
                return None
            size = sum(bool(str(cell or "").strip()) for cell in cells)
            count, highest = count + 1, highest or answer == str(size)
            chance *= 1 - 1 / max(2, size)
        if not count or not (highest or chance < 0.001):
            return None
        return (
            f"the answers are numbers and never 0 ({count} records), so they seem to be counted from 1; numbers are read as "
            'places from 0. Write letters (A, B, ...), or options with labels: {"text": [...], "label": ["1", "2", ...]}.'
        )

    def group(self, example):
        """None: a school subject may be in several splits."""
        return None

    def leakage_text(self, example):
        return example["question"]

    # ---- rows and back ----

    head = "Options"
    compete = "rows"

    def encode(self, examples, tokenizer, labels, max_length, overlap, encoded):
        questions = tokenizer.encode_batch([example["question"] for example in examples])
        options = iter(tokenizer.encode_batch([option for example in examples for option in example["options"]]))
        for example, question in zip(examples, questions, strict=True):
            right = example.get("label", -1)
            made = [row_of(tokenizer, question, next(options), max_length, np.array([right])) for _ in example["options"]]
            encoded.close([row for row, _ in made], any(cut for _, cut in made))

    def decode(self, example, scores, labels, how, rows, other=None):
        logs = log_softmax(np.concatenate(scores))
        record = {"pred": int(logs.argmax()), "scores": rounded(logs), "group": example.get("group", "")}
        return record | {"question": example["question"], "options": example["options"]}

    def raw(self, record, labels, how):
        return np.array(record["scores"])

    def answer(self, example, record):
        best = record["pred"]
        chance = round(float(np.exp(record["scores"][best])), 4)
        return {"question": example["question"], "answer": best, "option": example["options"][best], "probability": chance}

    # ---- scores ----

    metrics = ("accuracy",)
    calibrated = True
    resampled_groups = False  # subjects were chosen, not sampled

    def malformed(self, row):
        gold, pred, scores, options = row["gold"], row["pred"], row.get("scores"), row.get("options")
        if not (type(gold) is int and type(pred) is int and isinstance(scores, list)):
            return "gold and pred of a question are places of options, with a score for each option"
        if options and not (isinstance(options, list) and all(type(o) is str for o in options) and len(options) == len(scores)):
            return "options of a question are texts, as many as their scores"
        return None

    def score(self, rows, labels, metric, positive, full):
        """Accuracy, accuracy above chance (0 at chance, 1 if perfect; questions have 2 to 7 options), parts, controls.

        `position_macro_f1` treats positions as classes. It depends on the order of the options and on positions that few
        questions have, so it is never the headline.
        """
        for row in rows:
            count = len(row["scores"])
            if count < 2 or not (0 <= int(row["gold"]) < count and 0 <= int(row["pred"]) < count):
                asked = f"gold {row['gold']}, predicted {row['pred']} of {count} options"
                raise UserError(f"prediction {row['id']!r}: {asked}; expected places from 0 among 2 or more options.")
        gold, pred = [int(row["gold"]) for row in rows], [int(row["pred"]) for row in rows]
        right = (np.array(gold) == np.array(pred)).astype(float)
        inverse = np.array([1 / len(row["scores"]) for row in rows])
        metrics = {"accuracy": float(right.mean()), "chance": float(inverse.mean())}
        metrics["chance_adjusted"] = above_chance(metrics["accuracy"], metrics["chance"])
        places = [str(place) for place in range(max(gold + pred) + 1)]
        positions = class_counts(list(map(str, gold)), list(map(str, pred)), places).sum(0)
        metrics["position_macro_f1"] = float(f1_of_counts(positions[:, positions[1:].any(0)], "macro"))
        metrics["accuracy of always first"] = float(np.mean([place == 0 for place in gold]))
        if all(row.get("options") for row in rows):
            metrics["accuracy of always longest"] = float(np.mean([longest(row["options"]) == row["gold"] for row in rows]))
        for name, key in (("subject", subject_of), ("options", lambda row: len(row["scores"]))):
            parts: dict[Any, list[int]] = defaultdict(list)
            for number, row in enumerate(rows):
                parts[key(row)].append(number)
            if len(parts) > 1:
                metrics |= {f"accuracy {name}={part}": float(right[which].mean()) for part, which in sorted(parts.items())}
        return metrics, right, "mean"

    def floor(self, rows, labels, metric, positive):
        return max(Counter(int(row["gold"]) for row in rows).values()) / len(rows)

    # ---- baselines ----

    baselines = ("majority", "longest_option", "tfidf")

    def baseline(self, name, train, examples, labels, positive):
        from tasks.linear import option_scores

        places = Counter(e["label"] for e in train)
        if name == "majority":
            raw = [np.log([1.0 + places[i] for i in range(len(e["options"]))]) for e in examples]
        elif name == "longest_option":
            raw = [np.array([float(len(option)) for option in e["options"]]) for e in examples]
        else:
            raw = option_scores(train, examples, self.language)
        rows = []
        for example, scores in zip(examples, raw, strict=True):
            normal = scores - np.logaddexp.reduce(scores)
            row = {"pred": int(normal.argmax()), "scores": rounded(normal), "group": example["group"]}
            rows.append(row | {"text": example["question"], "options": example["options"]})
        return rows

    # ---- the report ----

    text_repeats = True
    frequency = "rarest"
    frequency_of = "training texts with the option's rarest word"

    def sought(self, example):
        return [example["options"][example["label"]]]

    def outcomes(self, row, text=None):
        if not self.is_wrong(row):
            return [RIGHT]
        options = row.get("options")
        if options and longest(options) == row["pred"]:
            return ["chose the longest option"]
        return ["chose the first option" if row["pred"] == 0 else "chose another option"]

    def is_wrong(self, row):
        return str(row["gold"]) != str(row["pred"])

    def shown(self, row):
        parts, _, _ = super().shown(row)
        options = row.get("options") or []
        gold, pred = (f"{'ABCDEFG'[i]} {options[i]}" if i < len(options) else "ABCDEFG"[i] for i in (row["gold"], row["pred"]))
        return parts, gold, pred

    def divisions(self, rows):
        return [("options", [f"{len(row['scores'])}" for row in rows]), ("subject", [subject_of(row) for row in rows])]

    # ---- transformers ----

    transformers = "ForMultipleChoice"
    pipeline = "multiple-choice"


def _options(row, found) -> tuple[list, list[str]]:
    """(the options of a row, the labels of the options or [])."""
    where = found["options"]
    if not isinstance(where, str):
        return [row.get(name) for name in where], []
    value = row.get(where)
    if isinstance(value, str):
        value = spelled(value)
    if isinstance(value, dict) and "text" not in value:  # {"A": "Bakı", "B": "Tehran"}
        cells, own = list(value.values()), list(value)
    else:
        cells = list_of(value)
        own = value.get("label", value.get("labels")) if isinstance(value, dict) else _labels_within(cells)
    if not isinstance(own, list | tuple) or len(own) != len(cells) or any(label in (None, "") for label in own):
        return cells, []
    names = [_name(label) for label in own]
    if len(set(names)) < len(names):
        raise SkipRecord("two options have the same label")
    return cells, names


def _labels_within(cells: list) -> list | None:
    """The labels of {"label": "A", "text": "Bakı"} and of "A) Bakı"; numbers before a text may be its own and are no labels."""
    if all(isinstance(cell, dict) for cell in cells):
        return [cell.get("label") for cell in cells]
    found = [_LETTERED.match(cell) for cell in cells if isinstance(cell, str)]
    letters = [letter[1].upper() for letter in found if letter]
    return letters if sorted(letters) == list(_LETTERS[: len(cells)]) else None  # and not the initials of four poets


def _is_said_by_text(row, found) -> bool:
    """Whether a row's answer can only be the text of an option: neither a label nor a letter nor a number."""
    answer = row.get(found["label"])
    name = _name(answer) if isinstance(answer, str) else ""
    if len(name) < 2 or re.fullmatch(r"-?\d+", name):
        return False
    try:
        cells, own = _options(row, found)
    except SkipRecord:
        return False
    return name not in own and name in {_name(cell) for cell in cells}


def _name(answer) -> str:
    """An answer or a label of an option as text; 2.0, as tables write integers beside empty cells, becomes 2."""
    name = nfc(answer, Counter())
    return name[:-2] if re.fullmatch(r"-?\d+\.0", name) else name


def _place(answer, options: list[str], own: list[str], by_text: bool) -> int:
    """The place of the right option from its own label, a letter, a number from 0, or its text.

    `by_text`: other answers of the file are texts, so a number or letter that is an option stands for that option.
    """
    if answer is None or isinstance(answer, list | dict | bool) or not str(answer).strip():
        raise SkipRecord("no answer")
    name = _name(answer)
    if name in own[: len(options)]:
        return own.index(name)
    if by_text and name in options:
        return options.index(name)
    if name not in options and (letter := _BRACKETED.fullmatch(name)):
        name = letter[1]
    letters = [letter[1].upper() if (letter := _BRACKETED.fullmatch(label)) else "" for label in own]
    if len(name) == 1 and all(letters) and letters and name.upper() in _LETTERS:  # A) of (a), and the other way round
        if letters.count(name.upper()) == 1 and letters.index(name.upper()) < len(options):
            return letters.index(name.upper())
        raise SkipRecord(f"answer {name[:40]!r} is none of the options' labels ({', '.join(own)})")
    if any(label.isdecimal() for label in own):  # then a number is a label, and never a place
        if name in options:
            return options.index(name)
        raise SkipRecord(f"answer {name[:40]!r} is none of the options' labels ({', '.join(own)})")
    if len(name) == 1 and name.upper() in _LETTERS:
        index = _LETTERS.index(name.upper())
    elif re.fullmatch(r"-?\d+", name):
        index = int(name)
    elif name in options:
        index = options.index(name)
    else:
        raise SkipRecord(f"answer {name[:40]!r} is neither a letter A-G, an index from 0, nor one of the options")
    if not 0 <= index < len(options):
        raise SkipRecord(f"answer {name} is outside the {len(options)} options (letters from A, numbers from 0)")
    return index


KIND = Choice()
