"""Pairs: two texts to one of several classes, {"id", "text", "text_b", "label"}."""

from common.errors import UserError
from tasks.base import fold
from tasks.cells import SkipRecord, nfc
from tasks.classification import Classification
from tasks.endings import pairs_of_endings
from tasks.settings import TaskSettings


def two_texts(text: str) -> dict[str, str] | None:
    """An example from a line with two texts separated by a tab; None for any other line."""
    if text.count("\t") != 1:
        return None
    return dict(zip(("text", "text_b"), text.strip("\n").split("\t"), strict=True))


class Pair(Classification):
    """Two texts have one class together."""

    name = "pair"
    fields = {
        "text": ("text", "sentence1", "text_a", "premise", "partial_text", "question1", "sentence_a"),
        "text_b": ("text_b", "sentence2", "hypothesis", "gold_ending", "ending", "question2", "sentence_b"),
        "label": ("label", "labels", "class", "is_duplicate", "target"),
        "group?": ("group",),
    }
    inputs = ("text", "text_b")
    metrics = ("accuracy", "f1", "macro_f1", "weighted_f1")
    baselines = ("majority", "all_positive", "cues", "tfidf")
    blind = "text"
    options = ("both_orders", "next_sentence")
    from_documents = True
    line = "two texts with a tab between"

    def rearrange(self, rows, keys):
        return pairs_of_endings(rows, keys)

    def read(self, row, found, labels, notes, options):
        text_b = nfc(row.get(found["text_b"]), notes)
        if not text_b:
            raise SkipRecord("empty second text")
        example = super().read(row, found, labels, notes, options)
        return {"text": example.pop("text"), "text_b": text_b, **example}

    def leakage_text(self, example):
        """The smaller of the two texts, so that (a, b) and (b, a) are in one group."""
        return min(fold(example["text"]), fold(example["text_b"]))

    def decoding(self, task, settings: TaskSettings):
        both = settings.both_orders
        if both and (task.next_sentence or settings.documents):
            raise UserError("task.both_orders: a next-sentence task is about the order. Set it to false.")
        if task.next_sentence and settings.positive is None:
            raise UserError("task.next_sentence: set task.positive to the class of a text that follows.")
        return {"both_orders": both}

    def from_line(self, text):
        return two_texts(text)


KIND = Pair()
