"""Scores from predictions: pure functions on lists, with numbers per example from which intervals are computed.

The reference scorers are scikit-learn (classes) and seqeval (entities). For the bootstrap the same scores are computed
from counts per example; tests require equality to 1e-12. Question answering follows the official SQuAD v2 script, with a
score in addition that reads both answers by the rules of the texts' language.
"""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from language.base import Language

# Metrics that are computed from counts of true positive, predicted and gold; all others are means over examples.
AVERAGES = {
    "macro_f1": "macro",
    "weighted_f1": "weighted",
    "f1": "binary",
    "micro_f1": "micro",
    "entity_f1": "micro",
    "entity_f1_strict": "micro",
}


# ---------------------------------------------------------------- classes


def classification_metrics(
    gold: Sequence[str], pred: Sequence[str], labels: Sequence[str], positive: str | None = None
) -> dict[str, float]:
    """Accuracy, macro, weighted and (with `positive`) binary F1 over fixed `labels`; a class that never occurs counts 0."""
    from sklearn.metrics import accuracy_score, matthews_corrcoef, precision_recall_fscore_support

    names = list(labels)
    _, _, f1, support = precision_recall_fscore_support(gold, pred, labels=names, average=None, zero_division=0)
    metrics = {
        "accuracy": float(accuracy_score(gold, pred)),
        "macro_f1": float(f1.mean()),
        "weighted_f1": float((f1 * support).sum() / support.sum()) if support.sum() else 0.0,
        "mcc": float(matthews_corrcoef(gold, pred)) if len({*gold, *pred}) > 1 else 0.0,
    }
    if positive is not None:
        metrics["f1"] = float(f1[names.index(positive)])
    return metrics


def class_counts(gold: Sequence[str], pred: Sequence[str], labels: Sequence[str]) -> np.ndarray:
    """int64 (n, 3, classes): one-hot true positive, predicted and gold class of every example."""
    index = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(gold), 3, len(labels)), dtype=np.int64)
    rows = np.arange(len(gold))
    gold_index, pred_index = np.array([index[g] for g in gold]), np.array([index[p] for p in pred])
    counts[rows, 2, gold_index] = 1
    counts[rows, 1, pred_index] = 1
    counts[rows, 0, gold_index] = gold_index == pred_index
    return counts


def f1_each(counts: np.ndarray) -> np.ndarray:
    """F1 of every class, (..., classes), from summed counts (..., 3, classes); 0 / 0 counts as 0."""
    true, both = counts[..., 0, :].astype(float), (counts[..., 1, :] + counts[..., 2, :]).astype(float)
    return np.divide(2 * true, both, out=np.zeros_like(both), where=both > 0)


def f1_of_counts(counts: np.ndarray, average: str) -> np.ndarray:
    """F1 from summed counts (..., 3, classes): "macro", "weighted" by gold, "micro", or "binary" (one class given).

    0 / 0 counts as 0, as scikit-learn does with zero_division=0.
    """
    if average == "micro":
        counts = counts.sum(-1, keepdims=True)
    f1 = f1_each(counts)
    if average == "weighted":
        gold = counts[..., 2, :].astype(float)
        total = gold.sum(-1)
        return np.divide((f1 * gold).sum(-1), total, out=np.zeros_like(total), where=total > 0)
    return f1.mean(-1)


def score_of(numbers: np.ndarray, average: str) -> float:
    """The score from numbers per example: their mean, an F1 of their counts, or a correlation of their pairs.

    average "mean": (n,). "macro", "weighted", "micro", "binary": counts (n, 3, classes). "pearson", "spearman",
    "quadratic_kappa": pairs (n, 2).
    Raises ValueError for an unknown average and for numbers of the wrong shape.
    """
    shape = np.shape(numbers)
    if average == "mean":
        if len(shape) == 1:
            return float(np.mean(numbers))
    elif average in ("macro", "weighted", "micro", "binary"):
        if len(shape) == 3 and shape[1] == 3 and (average != "binary" or shape[2] == 1):
            return float(f1_of_counts(np.sum(numbers, 0), average))
    elif average in CORRELATIONS:
        if len(shape) == 2 and shape[1] == 2:
            return CORRELATIONS[average](*np.transpose(numbers))
    else:
        known = ", ".join(("mean", "macro", "weighted", "micro", "binary", *CORRELATIONS))
        raise ValueError(f"average {average!r} is not known. There are: {known}.")
    raise ValueError(f"average {average!r} cannot be computed from numbers of shape {list(shape)} per example.")


def same_either_way(rows: Sequence[dict[str, Any]]) -> np.ndarray | None:
    """(n,) 1.0 if (a, b) and (b, a) alone get the same class; None if that was not measured."""
    if not all("orders" in row for row in rows):
        return None
    return np.array([row["orders"][0] == row["orders"][1] for row in rows], dtype=float)


# ---------------------------------------------------------------- multiple choice


def subject_of(row: dict[str, Any]) -> str:
    """The subject of a question: "subject", or "group" in files without a subject field."""
    return str(row.get("subject") or row.get("group") or "")


def above_chance(accuracy: float, chance: float) -> float:
    """Accuracy corrected for guessing: 0 at chance, 1 if perfect, negative below chance."""
    return (accuracy - chance) / (1 - chance)


def longest(options: Sequence[str]) -> int:
    """Index of the longest option, the first of several."""
    return max(range(len(options)), key=lambda place: (len(options[place]), -place))


# ---------------------------------------------------------------- entities


def entities(tags: Sequence[str], strict: bool = False) -> set[tuple[str, int, int]]:
    """Entities (type, first word, last word) of one sentence.

    Default: as in conlleval and seqeval, an I- that continues nothing opens an entity. `strict` is IOB2: only a B- opens one,
    and an I- of another type ends it.
    """
    return set(spans_of(tuple(tags), strict))


@lru_cache(maxsize=1 << 16)  # the gold tags recur in every run, and most predictions equal them
def spans_of(tags: tuple[str, ...], strict: bool = False) -> frozenset[tuple[str, int, int]]:
    """`entities` of a tuple, cached."""
    found, opened, kind, before = set(), -1, "", ("O", "_")
    for place, tag in enumerate([*tags, "O"]):
        prefix, name = tag[:1], tag[1:].split("-", 1)[-1] or "_"
        changed = name != before[1]
        if opened >= 0 and (prefix in "BSO" or before[0] in "ES" or changed):
            found.add((kind, opened, place - 1))
            opened = -1
        starts = prefix in "BS" if strict else prefix in "BS" or (prefix != "O" and (before[0] in "ESO" or changed))
        if starts:
            opened, kind = place, name
        before = (prefix, name)
    return frozenset(found)


def entity_counts(gold: Sequence[Sequence[str]], pred: Sequence[Sequence[str]], strict: bool = False) -> np.ndarray:
    """int64 (sentences, 3, 1): correct, predicted and gold entities of every sentence."""
    rows = []
    for gold_tags, pred_tags in zip(gold, pred, strict=True):
        truth, found = spans_of(tuple(gold_tags), strict), spans_of(tuple(pred_tags), strict)
        rows.append((len(truth & found), len(found), len(truth)))
    return np.array(rows, dtype=np.int64).reshape(-1, 3, 1)


def entity_counts_by(
    gold: Sequence[Sequence[str]],
    pred: Sequence[Sequence[str]],
    part: Callable[[tuple[str, int, int]], str],
) -> tuple[list[str], np.ndarray]:
    """(names, int64 (sentences, 3, names)): entity counts grouped by `part` of the entity, e.g. its type or length."""
    pairs = [(spans_of(tuple(g)), spans_of(tuple(p))) for g, p in zip(gold, pred, strict=True)]
    names = sorted({part(span) for truth, found in pairs for span in truth | found})
    column = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(pairs), 3, len(names)), dtype=np.int64)
    for row, (truth, found) in zip(counts, pairs, strict=True):
        for line, spans in enumerate((truth & found, found, truth)):
            for span in spans:
                row[line, column[part(span)]] += 1
    return names, counts


# ---------------------------------------------------------------- question answering

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@lru_cache(maxsize=1 << 16)  # gold answers and most predictions recur in every run
def normalise_official(text: str) -> str:
    """Normalisation of the SQuAD script: lower case, no ASCII punctuation, no English articles, single blanks."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split())


@lru_cache(maxsize=1 << 17)
def normalise_language(language: Language, text: str) -> str:
    """NFC, the language's own lower case, Unicode punctuation replaced by blanks; no word is deleted."""
    text = language.lower(unicodedata.normalize("NFC", text))
    return " ".join("".join(" " if unicodedata.category(letter)[0] == "P" else letter for letter in text).split())


def overlap_f1(gold: Sequence[str], pred: Sequence[str]) -> float:
    """F1 of two bags (of words or letters); if one is empty, 1 if both are, else 0."""
    if not gold or not pred:
        return float(not gold and not pred)
    if gold == pred:
        return 1.0
    common = sum((Counter(gold) & Counter(pred)).values())
    return 2 * common / (len(gold) + len(pred))


def qa_scores(golds: Sequence[str], pred: str, normalise: Callable[[str], str] = normalise_official) -> tuple[float, float]:
    """(exact match, F1) of one answer, the best over the gold answers.

    As in the official v2 script, gold answers that normalise to "" are dropped; a question without any left is unanswerable.
    `normalise_language` deletes no words, so with it only a truly empty gold answer counts as that.
    """
    wanted = [text for text in map(normalise, golds) if text] or [""]
    found = normalise(pred)
    exact = max(float(text == found) for text in wanted)
    return exact, max(overlap_f1(text.split(), found.split()) for text in wanted)


# ---------------------------------------------------------------- correlations


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two lists; 0 if one of them is constant."""
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    a, b = a - a.mean(), b - b.mean()
    size = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / size) if size > 0 else 0.0


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1; equal values get their mean rank."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation of two lists; 0 if one of them is constant."""
    return pearson(ranks(a), ranks(b))


def quadratic_kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Cohen's kappa with quadratic weights of two lists of grades, as numbers; 0 where one of them is constant.

    One less the mean squared difference over the one that chance alone gives: var(a) + var(b) + (mean(a) - mean(b))².
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    by_chance = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    return float(1 - ((a - b) ** 2).mean() / by_chance) if a.var() > 0 and b.var() > 0 else 0.0


# Scores of pairs (gold, predicted). Their intervals are in evaluation.statistics, which has a formula for each.
CORRELATIONS = {"pearson": pearson, "spearman": spearman, "quadratic_kappa": quadratic_kappa}
