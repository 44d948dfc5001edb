"""Tagging: one tag for each word, {"id", "words", "tags"}; named entities in IOB2 (O, B-PER, I-PER ...)."""

import contextlib
import itertools
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from common.errors import UserError
from common.task_files import Prefixes
from tasks.base import RIGHT, Kind, log_softmax, rounded
from tasks.cells import SkipRecord, grouped, label_of, list_of, nfc
from tasks.encoding import Row, join
from tasks.metrics import AVERAGES, entities, entity_counts, entity_counts_by, f1_each, f1_of_counts, spans_of
from tasks.settings import TaskSettings

WORDS = re.compile(r"\w+(?:[-'’]\w+)*|[^\w\s]")  # words with inner hyphens and apostrophes whole, marks one by one
_TAG = re.compile(r"O|[BI]-\S+")
# First letters of IOBES, BILOU, BMES (BMEOS) and BMEWO in IOB2's: E and L end an entity, S, U and W are one word, M inside.
_SCHEMES = {"E-": "I-", "L-": "I-", "M-": "I-", "S-": "B-", "U-": "B-", "W-": "B-"}
FEW = 9  # entities that begin with I- in a file that may still be one of IOB2 with some of them broken
_ENDS = ("E-", "L-", "S-", "U-", "W-")  # after these an entity is over


class Tagging(Kind):
    """Every word has a tag."""

    name = "tagging"
    fields = {
        "words": ("words", "tokens"),
        "tags": ("tags", "ner_tags", "labels"),
        "group?": ("group",),
    }
    inputs = ("words",)
    names_from = "tags"
    conll = True
    options = ("valid_tags",)

    def names(self, labels):
        return list(dict.fromkeys(map(_in_iob2, labels)))

    def find_more(self, found, keys, rows):
        """Whether the file is in IOB1: more of its entities begin with I- than with B-."""
        begins = Counter()
        for _, _, row in rows:
            with contextlib.suppress(SkipRecord):
                tags = ["O", *map(str, list_of(row.get(found["tags"])))]
                begins.update(tag[:2] for before, tag in itertools.pairwise(tags) if tag[:2] == "B-" or _opens(before, tag))
        if begins["I-"] > max(begins["B-"], FEW):
            found["scheme"] = "IOB1"

    def read(self, row, found, labels, notes, options):
        words = [nfc(word, notes, strip=False).strip(" \t\r\n") for word in list_of(row.get(found["words"]))]
        given = [str(tag).strip() for tag in list_of(row.get(found["tags"]))]
        if not words:
            raise SkipRecord("no words")
        if len(words) != len(given):
            raise SkipRecord(f"{len(words)} words but {len(given)} tags")
        if labels is not None:
            known = set(self.names(labels))
            given = [tag if _in_iob2(tag) in known else label_of(tag, labels) for tag in given]
        tags = to_iob2(given)
        if tags != given:
            notes["tags of IOBES, BILOU or BMES read as IOB2"] += 1
        if found.get("scheme") == "IOB1" and labels is None:  # else a model would learn I- alone, and no path of valid tags
            tags = [f"B{tag[1:]}" if _opens(before, tag) else tag for before, tag in itertools.pairwise(["O", *tags])]
            notes["tags of IOB1 read as IOB2"] += 1
        for before, tag in itertools.pairwise(["O", *tags]):
            if not _TAG.fullmatch(tag) and not tag.isdecimal():  # numbers without names are one error of the whole file
                raise SkipRecord(f"tag {tag!r} is neither O nor B-/I- (or E-, S-, L-, U-, M-, W-) with a type")
            if _opens(before, tag):
                notes["I- tag that continues no entity (opens one, as conlleval has it)"] += 1
        return grouped({"words": words, "tags": tags}, row, found)

    def misread(self, rows, found):
        """WikiANN's raw files write every word with its language, az:Bakı; of conll files the reader takes that off."""
        seen = Prefixes()
        for _, _, row in rows:
            try:
                for word in list_of(row.get(found["words"])):
                    seen.add(str(word))
            except SkipRecord:
                continue
        prefixes = " or ".join(map(repr, sorted(seen.of_all())))
        return f"every word begins with {prefixes}, which is no part of it. Take it off." if prefixes else None

    def unusable(self, examples, labels, skipped):
        tags = {tag for example in examples for tag in example["tags"]}
        if tags and labels is None and all(tag.isdecimal() for tag in tags):
            return "the tags are numbers. Name them in order, e.g. task.labels=[O,B-PER,I-PER,B-ORG,I-ORG]."
        if labels is None and (numbers := sorted(tag for tag in tags if tag.isdecimal())):
            return (
                f"{numbers[0]!r} and other tags than numbers are in one column. Correct the tags, or name them in task.labels."
            )
        odd = [skip["reason"] for skip in skipped if skip["reason"].startswith("tag ")]
        if odd and tags == {"O"}:
            left = f"{len(odd)} sentences are left out ({odd[0]}) and the other {len(examples)} hold no entity"
            return f"{left}. Correct the tags, or name the column with task.columns.tags=COLUMN."
        return None

    no_gold = "tags of O"

    def told(self, example):
        return self.no_gold if set(example["tags"]) == {"O"} else "entities"

    def leakage_text(self, example):
        return " ".join(example["words"])

    def lines(self, example):
        return [" ".join(example["words"])]

    def labels_in(self, example):
        return example["tags"]

    def in_order(self, names):
        return sorted(names | {"O"}, key=lambda tag: (tag != "O", tag[2:], tag))

    def decoding(self, task, settings: TaskSettings):
        odd = [tag for tag in task.labels if tag != "O" and tag[:2] not in ("B-", "I-")]
        if settings.valid_tags and odd:
            raise UserError(f"task.valid_tags: {odd[0]!r} is not an IOB2 tag (O, B-..., I-...). Set it to false.")
        return {"valid_tags": settings.valid_tags}

    # ---- rows and back ----

    head = "Tags"

    def encode(self, examples, tokenizer, labels, max_length, overlap, encoded):
        """The first token of each word carries its tag. A word without a token (a soft hyphen alone) becomes [UNK]."""
        index = {label: number for number, label in enumerate(labels)}
        known = sorted({word for example in examples for word in example["words"]})
        unknown = np.array([tokenizer.unk_id], np.int32)
        tokens = {word: ids if len(ids) else unknown for word, ids in zip(known, tokenizer.encode_words(known), strict=True)}
        room = max_length - 2
        bare = {word for word in known if tokens[word] is unknown}
        holders = [example for example in examples if bare.intersection(example["words"])] if bare else []
        if holders:
            count = sum(word in bare for example in holders for word in example["words"])
            encoded.notes.append(f"{count} words have no token: read as [UNK] and scored (first in {holders[0]['id']})")
        for example in examples:
            words = [tokens[word][:room] for word in example["words"]]
            cut = any(len(tokens[word]) > room for word in example["words"])
            tags = np.array([index.get(tag, -1) for tag in example.get("tags") or ["-"] * len(words)])
            rows = []
            for begin, end, own in split_sentence(np.array([len(word) for word in words]), room):
                ids, second = join(tokenizer, np.concatenate(words[begin:end]), None)
                starts = 1 + np.cumsum([0, *(len(word) for word in words[begin : end - 1])])
                rows.append(Row(ids, second, starts[own - begin], tags[own], words=own))
            encoded.close(rows, cut)
        if split := sum(after - before > 1 for before, after in itertools.pairwise(encoded.first)):
            encoded.notes.append(f"{split} sentences are longer than max_length: cut at words and put together again")

    def decode(self, example, scores, labels, how, rows, other=None):
        """With how["valid_tags"] the best valid IOB2 sequence; "raw" keeps each word's best tag. "pieces": tokens of a word."""
        logs = np.zeros((len(example["words"]), len(labels)))
        missed = np.ones(len(logs), bool)
        for row, part in zip(rows.rows, scores, strict=True):
            logs[row.words], missed[row.words] = log_softmax(part), False
        if missed.any():
            raise RuntimeError(f"{example['id']}: word {missed.argmax()} was not predicted")  # a defect of the project
        greedy = logs.argmax(1)
        best = best_valid_path(logs, labels) if how.get("valid_tags") else greedy
        pieces: dict[str, list[int]] = {}
        if len(rows.rows) == 1:  # in several rows the words around a cut have no known end
            pieces["pieces"] = np.diff([*rows.rows[0].positions, len(rows.rows[0].ids) - 1]).tolist()
        record = {"pred": [labels[tag] for tag in best], "scores": rounded(logs[np.arange(len(best)), best])}
        if how.get("valid_tags"):
            record["raw"] = [labels[tag] for tag in greedy]
        return record | {"words": example["words"]} | pieces

    def gold(self, example):
        return example["tags"]

    line = "one text"

    def from_line(self, text):
        return {"words": WORDS.findall(text) or [text.strip()]}

    def answer(self, example, record):
        found = sorted(entities(record["pred"]), key=lambda entity: entity[1])
        spans = [{"type": k, "text": " ".join(example["words"][a : b + 1]), "first": a, "last": b} for k, a, b in found]
        return {"words": example["words"], "tags": record["pred"], "entities": spans}

    # ---- scores ----

    metrics = ("entity_f1", "entity_f1_strict")
    plain = ("invalid_i_tags",)

    def malformed(self, row):
        gold, pred, raw = row["gold"], row["pred"], row.get("raw", row["pred"])
        if not (isinstance(gold, list) and isinstance(pred, list) and all(type(tag) is str for tag in (*gold, *pred))):
            return "gold and pred of a tagged sentence are lists of tags"
        if row.get("words") is not None and (type(row["words"]) is not list or len(row["words"]) != len(gold)):
            return "a tagged sentence needs as many words as tags"
        if not (isinstance(raw, list) and len(raw) == len(pred) and all(type(tag) is str for tag in raw)):
            return "a sentence needs as many raw tags as tags"
        return None if len(gold) == len(pred) else f"{len(gold)} gold tags, {len(pred)} predicted"

    def score(self, rows, labels, metric, positive, full):
        from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

        gold, pred = [row["gold"] for row in rows], [row["pred"] for row in rows]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # seqeval warns on every undefined score; we report 0
            precision, recall, f1, _ = precision_recall_fscore_support(gold, pred, average="micro", zero_division=0)
        metrics = {"entity_f1": float(f1)}
        if full:
            metrics |= {"precision": float(precision), "recall": float(recall)}
        strict = entity_counts(gold, pred, strict=True)
        metrics["entity_f1_strict"] = float(f1_of_counts(strict.sum(0), "micro"))
        if full:
            names, counts = entity_counts_by(gold, pred, lambda span: span[0])
            scores = dict(zip(names, map(float, f1_each(counts.sum(0))), strict=True))
            metrics["macro_f1"] = float(np.mean(list(scores.values()))) if scores else 0.0
            metrics |= {f"entity_f1 type={kind}": score for kind, score in scores.items()}
        # From each word's best tag, even if the best valid sequence was returned.
        raw = [row.get("raw", row["pred"]) for row in rows]
        orphans = [
            tag[0] == "I" and before[1:] != tag[1:] for tags in raw for before, tag in zip(["O", *tags], tags, strict=False)
        ]
        metrics["invalid_i_tags"] = float(sum(orphans))
        if all("raw" in row for row in rows):
            metrics["entity_f1 of raw tags"] = float(f1_of_counts(entity_counts(gold, raw).sum(0), "micro"))
        return metrics, strict if metric == "entity_f1_strict" else entity_counts(gold, pred), AVERAGES[metric]

    def floor(self, rows, labels, metric, positive):
        """All O finds no entity."""
        return 0.0

    # ---- baselines ----

    def baseline(self, name, train, examples, labels, positive):
        from tasks.linear import tag_scores

        if name == "tfidf":
            tags = [str(label) for label in labels or sorted({tag for e in [*train, *examples] for tag in e["tags"]})]
            scores = tag_scores(train, examples, tags, self.language)
            found = [([tags[i] for i in part.argmax(1)], part.max(1)) for part in scores]
        else:
            found = [(["O"] * len(e["tags"]), np.zeros(len(e["tags"]))) for e in examples]
        return [
            {"pred": pred, "scores": rounded(sure), "words": example["words"]}
            for example, (pred, sure) in zip(examples, found, strict=True)
        ]

    # ---- the report ----

    frequency = "entities"
    frequency_of = "entities like it in training"

    def outcomes(self, row, text=None):
        return entity_outcomes(row["gold"], row["pred"])

    def shown(self, row):
        gold, pred = row["gold"], row["pred"]
        words = row.get("words") or [""] * len(gold)
        parts = [(str(word), g != p) for word, g, p in zip(words, gold, pred, strict=True)]
        return parts, _listed(words, gold), _listed(words, pred)

    def class_slices(self, runs, labels):
        found = []
        for by, part in (("type", lambda span: span[0]), ("entity length, words", _entity_length)):
            found.append(
                (by, "entity_f1", *_aligned([([r["gold"] for r in run], [r["pred"] for r in run]) for run in runs], part))
            )
        return found

    # ---- transformers ----

    transformers = "ForTokenClassification"
    pipeline = "token-classification"


def split_sentence(lengths: np.ndarray, room: int) -> list[tuple[int, int, np.ndarray]]:
    """Cut a sentence whose words have `lengths` tokens (none above room) into (first word, one past last, own words).

    Neighbouring parts overlap by about a quarter of the room. Each word is scored in one part, the one whose nearer cut
    is farthest from it. The beginning and end of the sentence do not count as cuts.
    """
    ends = np.cumsum(lengths)
    if ends[-1] <= room:
        return [(0, len(lengths), np.arange(len(lengths)))]
    starts, spans, begin = ends - lengths, [], 0
    while True:
        end = int(np.searchsorted(ends, starts[begin] + room, side="right"))
        spans.append((begin, end))
        if end == len(lengths):
            break
        begin = max(begin + 1, int(np.searchsorted(starts, ends[end - 1] - room // 4)))
        begin = min(begin, end)
    context = np.full((len(spans), len(lengths)), -1.0)
    for number, (begin, end) in enumerate(spans):
        left = starts[begin:end] - starts[begin] if begin else np.full(end, np.inf)
        right = ends[end - 1] - ends[begin:end] if end < len(lengths) else np.full(end - begin, np.inf)
        context[number, begin:end] = np.minimum(left, right)
    owner = context.argmax(0)
    return [(*span, own) for number, span in enumerate(spans) if len(own := np.flatnonzero(owner == number))]


def best_valid_path(logs: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Numbers [n] of the tags of the likeliest valid IOB2 sequence, from log-probabilities [n, tags].

    Every I-X must follow B-X or I-X (Viterbi, with the other transitions forbidden and none preferred). Ties: the first tag.
    """
    follows = np.array([[tag[:2] != "I-" or before[1:] == tag[1:] for tag in labels] for before in labels])
    step = np.where(follows, 0.0, -np.inf)
    begins = np.array([0.0 if tag[:2] != "I-" else -np.inf for tag in labels])
    total, back = begins + logs[0], np.zeros(logs.shape, int)
    for word in range(1, len(logs)):
        reached = total[:, None] + step
        back[word] = reached.argmax(0)
        total = reached.max(0) + logs[word]
    path = [int(total.argmax())]
    for word in range(len(logs) - 1, 0, -1):
        path.append(int(back[word, path[-1]]))
    return np.array(path[::-1])


def entity_outcomes(gold: Sequence[str], pred: Sequence[str]) -> list[str]:
    """The outcome of each gold entity (correct, wrong type, wrong boundary, both, missed), and the spurious ones."""
    truth, found = spans_of(tuple(gold)), spans_of(tuple(pred))
    result = [RIGHT] * len(truth & found)
    free = sorted(found - truth, key=lambda e: (e[1], e[2], e[0]))
    for kind, start, end in sorted(truth - found, key=lambda e: (e[1], e[2], e[0])):
        touching = [other for other in free if other[1] <= end and other[2] >= start]
        if not touching:
            result.append("missed")
            continue
        # The most similar prediction: same place first, then same type.
        other = min(touching, key=lambda e: ((e[1], e[2]) != (start, end), e[0] != kind, e[1], e[2]))
        free.remove(other)
        same_place, same_type = (other[1], other[2]) == (start, end), other[0] == kind
        result.append("wrong type" if same_place else "wrong boundary" if same_type else "wrong type and boundary")
    return result + ["spurious"] * len(free)


def _listed(words: Sequence[str], tags: Sequence[str]) -> str:
    """The entities of a sentence as text."""
    spans = sorted(spans_of(tuple(tags)), key=lambda e: (e[1], e[2], e[0]))
    return "; ".join(f"{kind}: {' '.join(map(str, words[start : end + 1]))}" for kind, start, end in spans) or "none"


def _aligned(pairs: list[tuple[list, list]], part: Callable[[tuple[str, int, int]], str]) -> tuple[list[str], list[np.ndarray]]:
    """Entity counts of all runs over one list of names, including types that only one run predicts."""
    each = [entity_counts_by(gold, pred, part) for gold, pred in pairs]
    names = sorted({name for own, _ in each for name in own})
    out = []
    for own, counts in each:
        whole = np.zeros((*counts.shape[:2], len(names)), dtype=counts.dtype)
        whole[:, :, [names.index(name) for name in own]] = counts
        out.append(whole)
    return names, out


def _entity_length(span: tuple[str, int, int]) -> str:
    length = span[2] - span[1] + 1
    return str(length) if length < 4 else "4 or more"


def _opens(before: str, tag: str) -> bool:
    """Whether an I- tag continues no entity, so that it opens one."""
    return tag[:2] == "I-" and before[2:] != tag[2:]


def _in_iob2(tag: str) -> str:
    return _SCHEMES.get(tag[:2], tag[:2]) + tag[2:]


def to_iob2(tags: Sequence[str]) -> list[str]:
    """The tags of a sentence in IOBES, BILOU, BMES, BMEWO or IOE as IOB2 writes them; those of IOB1 and IOB2 as they are.

    An entity that goes on after one of its type has ended is another one: I-X E-X E-X of IOE2 are two.
    """
    found, ended = [], ""
    for tag in tags:
        own = _in_iob2(tag)
        if own[:2] == "I-" and ended == tag[2:]:
            own = "B-" + tag[2:]
        ended = tag[2:] if tag[:2] in _ENDS else ""
        found.append(own)
    return found


KIND = Tagging()
