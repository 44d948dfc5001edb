"""Parts of speech: one tag for each word, {"id", "words", "tags"}, scored by accuracy; UPOS or any other tags.

CoNLL-U files (.conllu) are read by common.task_files, which leaves out the lines of multiword tokens (2-3) and of empty nodes
(3.1), as the format asks (universaldependencies.org/format.html). Sets of the hub list a multiword token beside its parts
with the tag _; it is left out here too.
"""

from collections import Counter

import numpy as np

from tasks.base import RIGHT, rounded
from tasks.cells import SkipRecord, grouped, label_of, list_of, nfc
from tasks.tagging import Tagging

NONE = ("_", "")  # what stands for no tag


class PartsOfSpeech(Tagging):
    """Every word has a class."""

    name = "pos"
    fields = {
        "words": ("words", "tokens", "form"),
        "tags": ("tags", "upos", "pos_tags", "labels"),
        "group?": ("group",),
    }
    options = ()

    def names(self, labels):
        return list(labels)

    def find_more(self, found, keys, rows):
        return None

    def read(self, row, found, labels, notes, options):
        words = [nfc(word, notes, strip=False).strip(" \t\r\n") for word in list_of(row.get(found["words"]))]
        given = list_of(row.get(found["tags"]))
        if len(words) != len(given):
            raise SkipRecord(f"{len(words)} words but {len(given)} tags")
        tags = ["" if str(tag).strip() in NONE else label_of(tag, labels) for tag in given]
        kept = [(word, tag) for word, tag in zip(words, tags, strict=True) if tag not in NONE]
        if not kept:
            raise SkipRecord("no word has a tag")
        if len(kept) < len(words):
            notes["words without a tag left out (multiword tokens beside their parts)"] += len(words) - len(kept)
        return grouped({"words": [word for word, _ in kept], "tags": [tag for _, tag in kept]}, row, found)

    def unusable(self, examples, labels, skipped):
        if labels is None and any(tag.isdecimal() for example in examples for tag in example["tags"]):
            return "the tags are numbers. Name them in order, e.g. task.labels=[NOUN,PUNCT,ADP]."
        return None

    no_gold = "one tag"

    def told(self, example):
        return f"the tag {example['tags'][0]}" if len(set(example["tags"])) == 1 else "tags"

    def in_order(self, names):
        return sorted(names)

    def decoding(self, task, settings):
        return {}

    def answer(self, example, record):
        return {"words": example["words"], "tags": record["pred"]}

    # ---- scores ----

    metrics = ("accuracy",)
    plain = ()

    def score(self, rows, labels, metric, positive, full):
        """Accuracy over words: micro-averaged F1 equals it, because every word has one gold and one predicted tag."""
        counts = np.zeros((len(rows), 3, 1), np.int64)
        right, every = Counter(), Counter()
        for number, row in enumerate(rows):
            same = [gold for gold, pred in zip(row["gold"], row["pred"], strict=True) if gold == pred]
            counts[number, :, 0] = len(same), len(row["gold"]), len(row["gold"])
            right.update(same)
            every.update(row["gold"])
        metrics = {"accuracy": sum(right.values()) / max(1, sum(every.values()))}
        if full:
            metrics["sentences without a mistake"] = float((counts[:, 0, 0] == counts[:, 2, 0]).mean())
            metrics |= {f"accuracy tag={tag}": right[tag] / count for tag, count in sorted(every.items())}
        return metrics, counts, "micro"

    def floor(self, rows, labels, metric, positive):
        count = Counter(tag for row in rows for tag in row["gold"])
        return max(count.values()) / count.total()

    # ---- baselines ----

    baselines = ("majority", "lexicon", "tfidf")

    def baseline(self, name, train, examples, labels, positive):
        """`lexicon`: the commonest tag of a word in train, and of an unknown one the commonest of all."""
        if name == "tfidf":
            return super().baseline(name, train, examples, labels, positive)
        common = _commonest(Counter(tag for example in train for tag in example["tags"]))
        seen: dict[str, Counter[str]] = {}
        for example in train if name == "lexicon" else ():
            for word, tag in zip(example["words"], example["tags"], strict=True):
                seen.setdefault(self.language.lower(word), Counter())[tag] += 1
        best = {word: _commonest(count) for word, count in seen.items()}
        pred = [[best.get(self.language.lower(word), common) for word in example["words"]] for example in examples]
        return [
            {"pred": tags, "scores": rounded(np.zeros(len(tags))), "words": example["words"]}
            for example, tags in zip(examples, pred, strict=True)
        ]

    # ---- the report ----

    frequency = "median"
    frequency_of = "training sentences with its median word"
    confusions = True

    def sought(self, example):
        return [" ".join(example["words"])]

    def outcomes(self, row, text=None):
        return [RIGHT if g == p else f"{g} → {p}" for g, p in zip(row["gold"], row["pred"], strict=True)]

    def shown(self, row):
        gold, pred = row["gold"], row["pred"]
        words = row.get("words") or [""] * len(gold)
        parts = [(str(word), g != p) for word, g, p in zip(words, gold, pred, strict=True)]
        wrong = [(w, g, p) for w, g, p in zip(words, gold, pred, strict=True) if g != p]
        return parts, "; ".join(f"{g}: {w}" for w, g, _ in wrong), "; ".join(f"{p}: {w}" for w, _, p in wrong)

    def class_slices(self, runs, labels):
        return []

    transformers = None  # BertForTokenClassification is imported as named entities


def _commonest(count: Counter[str]) -> str:
    return min(count, key=lambda tag: (-count[tag], tag), default="X")


KIND = PartsOfSpeech()
