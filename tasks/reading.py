"""Reading: multiple choice about a passage, {"id", "context", "question", "options", "label": index of the right one, "group"}.

Belebele (arXiv 2308.16884) and sets of its kind. All questions about one passage are one group: in one split, and resampled
together. The encoder reads the question, then the passage, then one option; what is too long is cut from the passage's end.
"""

import re

from tasks.base import fold
from tasks.cells import SkipRecord, nfc
from tasks.choice import MAX_OPTIONS, Choice
from tasks.splits import group_name

_NUMBERED = re.compile(r"mc_answer([1-7])")  # Belebele's options; correct_answer_num counts them from 1
_FROM_ONE = "correct_answer_num"


class Reading(Choice):
    """One of several options answers a question about a passage."""

    name = "reading"
    fields = {
        **{field: names for field, names in Choice.fields.items() if field != "group?"},
        "context": ("context", "passage", "flores_passage", "article"),
        "label": (*Choice.fields["label"], _FROM_ONE),
    }
    inputs = ("context", "question", "options")
    blind = "context"
    options = ()
    max_length = 384
    group_by_text = True
    resampled_groups = True

    def rearrange(self, rows, keys):
        return rows, keys

    def find_more(self, found, keys, rows):
        numbered = sorted(key for key in keys if _NUMBERED.fullmatch(key))
        if "options" not in found and len(numbered) > 1:
            found["options"] = numbered
            return None
        return super().find_more(found, keys, rows)

    def read(self, row, found, labels, notes, options):
        context = nfc(row.get(found["context"]), notes)
        if not context:
            raise SkipRecord("empty passage")
        if found["label"] == _FROM_ONE:
            number = str(row.get(_FROM_ONE)).strip().removesuffix(".0")
            most = len(found["options"]) if isinstance(found["options"], list) else MAX_OPTIONS
            if not (number.isdecimal() and 1 <= int(number) <= most):
                raise SkipRecord(f"answer {number!r} is no number from 1 to {most}")
            row = {**row, _FROM_ONE: "ABCDEFG"[int(number) - 1]}
        example = super().read(row, found, labels, notes, options)
        return {"context": context, **example, "group": group_name(fold(context))}

    def misread(self, rows, found):
        return None if found["label"] == _FROM_ONE else super().misread(rows, found)

    def group(self, example):
        return example.get("group") or None

    def leakage_text(self, example):
        return example["context"]

    # ---- rows, baselines and scores: those of choice, with the passage behind the question ----

    transformers = None  # of two texts, ForMultipleChoice reads the first as the question alone

    def encode(self, examples, tokenizer, labels, max_length, overlap, encoded):
        super().encode([_joined(example) for example in examples], tokenizer, labels, max_length, overlap, encoded)

    def baseline(self, name, train, examples, labels, positive):
        train, examples = ([_joined(example) for example in part] for part in (train, examples))
        return super().baseline(name, train, examples, labels, positive)

    def score(self, rows, labels, metric, positive, full):
        return super().score([{**row, "group": ""} for row in rows], labels, metric, positive, full)

    def divisions(self, rows):
        return [("options", [f"{len(row['scores'])}" for row in rows])]


def _joined(example):
    return {**example, "question": f"{example['question']}\n{example['context']}".strip()}


KIND = Reading()
