"""Scores from predictions: pure functions on lists, with the per-example numbers that the intervals are made of.

Scorers of record are scikit-learn (classes) and seqeval (entities). For the bootstrap the same scores are computed
from counts per example, and tests hold the two equal to 1e-12. Question answering follows the official SQuAD v2
script, with an Azerbaijani-correct score beside it.
"""

import math
import re
import string
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import read_jsonl
from language.azerbaijani import lower

# What each kind can be ranked by. The first is the default headline: macro-F1 for classes, since accuracy hides the
# small ones; F1 of the positive class is what paraphrase tables report and is chosen in conf/task/paraphrase.yaml.
METRICS = {
    "classification": ("macro_f1", "weighted_f1", "accuracy", "f1"),
    "pair": ("accuracy", "f1", "macro_f1", "weighted_f1"),
    "choice": ("accuracy",),
    "tagging": ("entity_f1", "entity_f1_strict"),
    "qa": ("f1", "exact_match", "f1_az", "exact_match_az"),
}
DEFAULT_METRIC = {kind: names[0] for kind, names in METRICS.items()}
_AVERAGE = {
    "macro_f1": "macro",
    "weighted_f1": "weighted",
    "f1": "binary",
    "entity_f1": "micro",
    "entity_f1_strict": "micro",
}


def read_predictions(path: str | Path, kind: str) -> list[dict[str, Any]]:
    """Read and check one predictions file; raises UserError with the line for a missing key, a repeated id, a NaN
    score or tags that do not match the gold ones in number."""
    rows, seen = [], set()
    for line, row in read_jsonl(path):
        for key in ("id", "gold", "pred"):
            if row.get(key) is None:
                raise UserError(f"{path}, line {line}: no '{key}'. Run the fine-tuning again for this seed.")
        if type(row["id"]) not in (str, int):
            raise UserError(f"{path}, line {line}: id {str(row['id'])[:40]!r} is neither a text nor a number.")
        if row["id"] in seen:
            raise UserError(f"{path}, line {line}: id {row['id']!r} comes twice; every example is predicted once.")
        if odd := _malformed(row, kind):
            raise UserError(f"{path}, line {line}: {odd} (id {row['id']!r}). Run the fine-tuning again for this seed.")
        if kind == "tagging" and len(row["gold"]) != len(row["pred"]):
            raise UserError(
                f"{path}, line {line}: {len(row['gold'])} gold tags, {len(row['pred'])} predicted (id {row['id']!r})."
            )
        scores = row.get("scores") or ()
        scores = scores.values() if isinstance(scores, dict) else scores
        if not all(map(math.isfinite, scores)):
            raise UserError(f"{path}, line {line}: a score of id {row['id']!r} is not finite; the run diverged.")
        seen.add(row["id"])
        rows.append(row)
    if not rows:
        raise UserError(f"{path}: no prediction in it. Run the fine-tuning again for this seed.")
    return rows


def _malformed(row: dict[str, Any], kind: str) -> str | None:
    """What is wrong with the shape of one prediction; None if nothing is."""
    gold, pred, scores = row["gold"], row["pred"], row.get("scores")
    values = scores.values() if isinstance(scores, dict) else scores
    if scores is not None and (not isinstance(scores, dict | list) or any(type(v) not in (float, int) for v in values)):
        return f"scores are {str(scores)[:40]}, expected numbers"
    if kind == "tagging":
        if not (isinstance(gold, list) and isinstance(pred, list) and all(type(tag) is str for tag in (*gold, *pred))):
            return "gold and pred of a tagged sentence are lists of tags"
        if row.get("words") is not None and (type(row["words"]) is not list or len(row["words"]) != len(gold)):
            return "words of a tagged sentence are as many as its tags"
        raw = row.get("raw", pred)
        if not (isinstance(raw, list) and len(raw) == len(pred) and all(type(tag) is str for tag in raw)):
            return "raw tags of a sentence are as many as its tags"
    elif kind == "choice":
        if not (type(gold) is int and type(pred) is int and isinstance(scores, list)):
            return "gold and pred of a question are places of options, with a score for each option"
        options = row.get("options")
        if options and not (isinstance(options, list) and all(type(o) is str for o in options) and len(options) == len(scores)):
            return "options of a question are texts, as many as their scores"
    elif kind == "qa":
        if not (isinstance(gold, list) and gold and type(pred) is str and all(type(text) is str for text in gold)):
            return "gold of a question is a list of texts and pred a text"
    elif isinstance(gold, list | dict) or isinstance(pred, list | dict):
        return "gold and pred are names of classes"
    elif "orders" in row and not (isinstance(row["orders"], list) and len(row["orders"]) == 2):
        return "orders are the predictions of both orders of a pair"
    return None


def score_predictions(
    predictions: str | Path | Sequence[dict[str, Any]],
    kind: str,
    labels: Sequence[str] | None = None,
    metric: str | None = None,
    positive: str | None = None,
    full: bool = True,
) -> dict[str, Any]:
    """Score a predictions file (or its rows).

    Returns {"metric": headline name, "score": its value, "metrics": {name: value}, "per_example": array, "average"}.
    `per_example` belongs to the headline: float (n,) whose mean is the score when "average" is "mean", else counts
    (n, 3, classes) of true positive, predicted and gold, from which `f1_of_counts(sum, average)` gives the score.
    `full=False` leaves out the metrics that are slow and not the headline.
    Raises UserError for an unknown metric, or a gold or predicted label outside `labels`.
    """
    rows = read_predictions(predictions, kind) if isinstance(predictions, str | Path) else list(predictions)
    metric = metric or DEFAULT_METRIC[kind]
    if metric not in METRICS[kind]:
        raise UserError(f"metric {metric}: {kind} has {', '.join(METRICS[kind])}. Set task.metric to one of these.")
    if kind in ("classification", "pair"):
        metrics, per_example = _score_classes(rows, labels, metric, positive)
    elif kind == "choice":
        metrics, per_example = _score_choice(rows)
    elif kind == "tagging":
        metrics, per_example = _score_tagging(rows, metric, full)
    else:
        metrics, per_example = _score_qa(rows, metric)
    average = _AVERAGE.get(metric, "mean") if kind != "qa" else "mean"
    return {
        "metric": metric,
        "score": metrics[metric],
        "metrics": metrics,
        "per_example": per_example,
        "average": average,
    }


# ---------------------------------------------------------------- classes


def classification_metrics(
    gold: Sequence[str], pred: Sequence[str], labels: Sequence[str], positive: str | None = None
) -> dict[str, float]:
    """Accuracy, macro, weighted and (with `positive`) binary F1 over fixed `labels`; a class never seen counts 0."""
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
    """int64 (n, 3, classes): for every example, one-hot true positive, predicted and gold class."""
    index = {label: number for number, label in enumerate(labels)}
    counts = np.zeros((len(gold), 3, len(labels)), dtype=np.int64)
    rows = np.arange(len(gold))
    gold_index, pred_index = np.array([index[g] for g in gold]), np.array([index[p] for p in pred])
    counts[rows, 2, gold_index] = 1
    counts[rows, 1, pred_index] = 1
    counts[rows, 0, gold_index] = gold_index == pred_index
    return counts


def f1_each(counts: np.ndarray) -> np.ndarray:
    """F1 of every class by itself, (..., classes), from summed counts (..., 3, classes); 0 / 0 counts as 0."""
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


def _score_classes(rows: list, labels: Sequence[str] | None, metric: str, positive: str | None) -> tuple[dict, np.ndarray]:
    gold, pred = [str(row["gold"]) for row in rows], [str(row["pred"]) for row in rows]
    labels = [str(label) for label in labels] if labels else sorted(set(gold) | set(pred))
    for row in rows:
        for key in ("gold", "pred"):
            if str(row[key]) not in labels:
                raise UserError(f"prediction {row['id']!r}: {key} label {row[key]!r} is not one of {', '.join(labels)}.")
    if positive is None and len(labels) == 2:
        positive = labels[-1]
    if metric == "f1" and positive is None:
        raise UserError(f"metric f1: {len(labels)} classes and no positive one. Set task.positive, or metric=macro_f1.")
    metrics = classification_metrics(gold, pred, labels, None if positive is None else str(positive))
    if len(labels) == 2 and len(set(gold)) == 2 and all(isinstance(row.get("scores"), dict) for row in rows):
        from sklearn.metrics import roc_auc_score

        margins = [row["scores"].get(labels[1], 0.0) - row["scores"].get(labels[0], 0.0) for row in rows]
        metrics["auc"] = float(roc_auc_score([g == labels[1] for g in gold], margins))
    if (agree := same_either_way(rows)) is not None:
        metrics["order_consistency"] = float(agree.mean())
    if metric == "accuracy":
        return metrics, np.array([g == p for g, p in zip(gold, pred, strict=True)], dtype=float)
    counts = class_counts(gold, pred, labels)
    return metrics, counts[:, :, [labels.index(str(positive))]] if metric == "f1" else counts


def same_either_way(rows: Sequence[dict[str, Any]]) -> np.ndarray | None:
    """(n,) 1.0 where (a, b) and (b, a) alone are given the same class; None where that was not measured."""
    if not all("orders" in row for row in rows):
        return None
    return np.array([row["orders"][0] == row["orders"][1] for row in rows], dtype=float)


# ---------------------------------------------------------------- multiple choice


def subject_of(row: dict[str, Any]) -> str:
    """The subject of a question: "subject", or "group" in files that have no subject of its own."""
    return str(row.get("subject") or row.get("group") or "")


def _score_choice(rows: list) -> tuple[dict[str, float], np.ndarray]:
    """Accuracy, accuracy above chance (0 at chance, 1 when perfect; questions have 2 to 7 options), parts, controls.

    `position_macro_f1` is what treating the positions as classes gives. It depends on the order of the options and on
    positions that few questions have (eval-anchors, section 3.3), so it is never the headline.
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
    return metrics, right


def above_chance(accuracy: float, chance: float) -> float:
    """Accuracy with guessing taken out: 0 at chance, 1 when perfect, below 0 under chance."""
    return (accuracy - chance) / (1 - chance)


def longest(options: Sequence[str]) -> int:
    """Place of the option with most letters, the first of several."""
    return max(range(len(options)), key=lambda place: (len(options[place]), -place))


# ---------------------------------------------------------------- entities


def entities(tags: Sequence[str], strict: bool = False) -> set[tuple[str, int, int]]:
    """Entities (type, first word, last word) of one sentence.

    As conlleval and seqeval's default have them: an I- that continues nothing opens an entity. `strict` is IOB2: only
    a B- opens one, and an I- of another type ends it.
    """
    return set(spans_of(tuple(tags), strict))


@lru_cache(maxsize=1 << 16)  # the gold tags come again in every run, and most predictions are equal to them
def spans_of(tags: tuple[str, ...], strict: bool = False) -> frozenset[tuple[str, int, int]]:
    """`entities` of a tuple, remembered."""
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
    gold: Sequence[Sequence[str]], pred: Sequence[Sequence[str]], part: Callable[[tuple[str, int, int]], str],
) -> tuple[list[str], np.ndarray]:  # fmt: skip
    """(names, int64 (sentences, 3, names)): entity counts apart by `part` of the entity, e.g. its type or length."""
    pairs = [(spans_of(tuple(g)), spans_of(tuple(p))) for g, p in zip(gold, pred, strict=True)]
    names = sorted({part(span) for truth, found in pairs for span in truth | found})
    column = {name: number for number, name in enumerate(names)}
    counts = np.zeros((len(pairs), 3, len(names)), dtype=np.int64)
    for row, (truth, found) in zip(counts, pairs, strict=True):
        for line, spans in enumerate((truth & found, found, truth)):
            for span in spans:
                row[line, column[part(span)]] += 1
    return names, counts


def _score_tagging(rows: list, metric: str, full: bool) -> tuple[dict[str, float], np.ndarray]:
    from seqeval.metrics.sequence_labeling import precision_recall_fscore_support

    gold, pred = [row["gold"] for row in rows], [row["pred"] for row in rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # seqeval warns on every undefined score; 0 is what we report
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
    # Of each word's best tag, also where the best valid path was taken instead.
    raw = [row.get("raw", row["pred"]) for row in rows]
    orphans = [tag[0] == "I" and before[1:] != tag[1:] for tags in raw for before, tag in zip(["O", *tags], tags, strict=False)]
    metrics["invalid_i_tags"] = float(sum(orphans))
    if all("raw" in row for row in rows):
        metrics["entity_f1 of raw tags"] = float(f1_of_counts(entity_counts(gold, raw).sum(0), "micro"))
    return metrics, strict if metric == "entity_f1_strict" else entity_counts(gold, pred)


# ---------------------------------------------------------------- question answering

_ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@lru_cache(maxsize=1 << 16)  # golds and most answers come again in every run
def normalise_official(text: str) -> str:
    """The SQuAD script's: lower case, ASCII punctuation deleted, English articles deleted, blanks collapsed."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_ASCII_PUNCTUATION)).split())


@lru_cache(maxsize=1 << 16)
def normalise_az(text: str) -> str:
    """NFC, Azerbaijani lower case, every Unicode punctuation mark a blank, nothing deleted that is a word."""
    text = lower(unicodedata.normalize("NFC", text))
    return " ".join("".join(" " if unicodedata.category(letter)[0] == "P" else letter for letter in text).split())


def overlap_f1(gold: Sequence[str], pred: Sequence[str]) -> float:
    """F1 of two bags (words or letters); when one is empty, 1 if both are."""
    if not gold or not pred:
        return float(not gold and not pred)
    if gold == pred:
        return 1.0
    common = sum((Counter(gold) & Counter(pred)).values())
    return 2 * common / (len(gold) + len(pred))


def qa_scores(golds: Sequence[str], pred: str, normalise: Callable[[str], str] = normalise_official) -> tuple[float, float]:
    """(exact match, F1) of one answer, the best over the golds.

    As in the official v2 script, golds that normalise to nothing are dropped, and none left means unanswerable. The
    Azerbaijani normaliser deletes no words, so there only a truly empty gold means that.
    """
    wanted = [text for text in map(normalise, golds) if text] or [""]
    found = normalise(pred)
    exact = max(float(text == found) for text in wanted)
    return exact, max(overlap_f1(text.split(), found.split()) for text in wanted)


def _score_qa(rows: list, metric: str) -> tuple[dict[str, float], np.ndarray]:
    golds = [[str(gold) for gold in row["gold"]] for row in rows]
    preds = [str(row["pred"]) for row in rows]
    columns: dict[str, np.ndarray] = {}
    for suffix, normalise in (("", normalise_official), ("_az", normalise_az)):
        pairs = np.array([qa_scores(gold, pred, normalise) for gold, pred in zip(golds, preds, strict=True)])
        columns[f"exact_match{suffix}"], columns[f"f1{suffix}"] = pairs[:, 0], pairs[:, 1]
    metrics = {name: float(values.mean()) for name, values in columns.items()}
    letters = [max(overlap_f1(normalise_az(g), normalise_az(p)) for g in gold) for gold, p in zip(golds, preds, strict=True)]
    metrics["char_f1_az"] = float(np.mean(letters))
    changed = (columns["f1"] != columns["f1_az"]) | (columns["exact_match"] != columns["exact_match_az"])
    metrics["examples_scored_differently_az"] = float(changed.sum())
    answerable = np.array([any(text.strip() for text in gold) for gold in golds])
    for name, part in (("answerable", answerable), ("unanswerable", ~answerable)):
        if part.any() and not part.all():
            metrics |= {f"{key} {name}": float(values[part].mean()) for key, values in columns.items()}
    metrics["no_answer_accuracy"] = float(np.mean([bool(p.strip()) == a for p, a in zip(preds, answerable, strict=True)]))
    return metrics, columns[metric]


# ---------------------------------------------------------------- the floor


def majority_score(
    rows: Sequence[dict[str, Any]],
    kind: str,
    metric: str,
    labels: Sequence[str] | None = None,
    positive: str | None = None,
) -> float:
    """Score of the best constant answer on these rows' own golds: what a run has to beat to have learned anything."""
    if kind == "tagging":
        return 0.0
    if kind == "qa":
        return score_predictions([{**row, "pred": ""} for row in rows], kind, metric=metric)["score"]
    if kind == "choice":
        return max(Counter(int(row["gold"]) for row in rows).values()) / len(rows)
    gold = Counter(str(row["gold"]) for row in rows)
    names = [str(label) for label in labels] if labels else sorted(gold)
    if metric == "accuracy":
        return max(gold.values()) / len(rows)
    # Counts (answer, 3, classes) of each constant answer: it predicts its own class always, and is right on all of it.
    counts = np.zeros((len(names), 3, len(names)))
    counts[:, 2] = [gold[name] for name in names]
    counts[:, 1] = len(rows) * np.eye(len(names))
    counts[:, 0] = counts[:, 2] * np.eye(len(names))
    if metric == "f1":
        counts = counts[:, :, [names.index(str(positive if positive is not None else names[-1]))]]
    return float(f1_of_counts(counts, _AVERAGE[metric]).max())
