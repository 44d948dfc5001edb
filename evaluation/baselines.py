"""What a table needs below its models: constant answers and TF-IDF with a linear classifier, as prediction files.

None needs a download or a GPU. They read the same examples and write the same files as a fine-tuned encoder, so the
report treats them alike. A baseline has no seed: it is run once, as seed-0, and its summary says "deterministic".
"""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import write_json, write_jsonl
from evaluation.metrics import score_predictions
from language.azerbaijani import lower

# "majority" is the one constant that exists for every kind: the commonest class, the commonest position of the right
# option, all O, or no answer at all.
BASELINES = {
    "classification": ("majority", "tfidf"),
    "pair": ("majority", "all_positive", "tfidf"),
    "choice": ("majority", "longest_option", "tfidf"),
    "tagging": ("majority",),
    "qa": ("majority",),
}


def predict_baseline(
    name: str,
    kind: str,
    train: Sequence[dict[str, Any]],
    examples: Sequence[dict[str, Any]],
    labels: Sequence[str] | None = None,
    positive: str | None = None,
) -> list[dict[str, Any]]:
    """Prediction rows of one baseline for `examples`, learned from `train` where it learns at all.

    Raises UserError when the kind has no such baseline.
    """
    if name not in BASELINES[kind]:
        raise UserError(f"baseline {name}: {kind} has {', '.join(BASELINES[kind])}. Choose one of these.")
    if kind in ("classification", "pair"):
        names = [str(label) for label in labels or sorted({e["label"] for e in [*train, *examples]})]
        if name == "tfidf":
            scores = _tfidf_classes(kind, train, examples, names)
        else:
            winner = Counter(sorted(e["label"] for e in train)).most_common(1)[0][0]
            winner = (positive or names[-1]) if name == "all_positive" else winner
            scores = np.log(
                np.tile(
                    [1 - 1e-6 if label == winner else 1e-6 / max(1, len(names) - 1) for label in names],
                    (len(examples), 1),
                )
            )
        return [
            {
                **_head(example),
                "gold": example["label"],
                "pred": names[int(row.argmax())],
                "scores": {label: round(float(score), 6) for label, score in zip(names, row, strict=True)},
                **_foot(example),
            }
            for example, row in zip(examples, scores, strict=True)
        ]
    if kind == "choice":
        return _choice_rows(name, train, examples)
    if kind == "tagging":
        return [
            {
                **_head(e),
                "gold": e["tags"],
                "pred": ["O"] * len(e["tags"]),
                "words": e["words"],
                "tokens": 0,
                "truncated": False,
            }
            for e in examples
        ]
    return [
        {
            **_head(e),
            "gold": [answer["text"] for answer in e["answers"]] or [""],
            "pred": "",
            "scores": {"best": 0.0, "null": 0.0},
            **_foot(e),
        }
        for e in examples
    ]


def write_baseline(folder: str | Path, name: str, task: Any) -> Path:
    """Write <folder>/<name>/<task name>/seed-0/ with predictions of dev and test and summary.json; return that folder.

    `task` is a data.tasks.Task: name, kind, metric, labels, positive, train, dev, test.
    """
    place = Path(folder) / name / task.name / "seed-0"
    started = time.monotonic()
    summary: dict[str, Any] = {"model": name, "task": task.name, "kind": task.kind, "seed": 0, "deterministic": True}
    for split in ("dev", "test"):
        rows = predict_baseline(name, task.kind, task.train, getattr(task, split), task.labels, task.positive)
        scored = score_predictions(rows, task.kind, task.labels, task.metric, task.positive, full=False)
        summary[f"{split}_score"] = scored["score"]
        write_jsonl(place / f"predictions-{split}.jsonl", rows)
    summary |= {"hours": (time.monotonic() - started) / 3600, "peak_memory_bytes": None, "trainable_parameters": None}
    summary |= {
        "train_tokens": None,
        "best_epoch": None,
        "metric": task.metric,
        "labels": task.labels,
        "positive": task.positive,
    }
    write_json(place / "summary.json", summary)
    return place


def _head(example: dict[str, Any]) -> dict[str, Any]:
    """The id, and the group where the example has one: intervals resample groups."""
    return {"id": example["id"]} | ({"group": example["group"]} if example.get("group") else {})


def _foot(example: dict[str, Any]) -> dict[str, Any]:
    """What the error lists show, and the fields of cost that a baseline has nothing to say about."""
    shown = " ⁄ ".join(example[key] for key in ("text", "text_b", "question") if example.get(key))
    return {"tokens": 0, "truncated": False, "text": shown}


def _choice_rows(name: str, train: Sequence[dict[str, Any]], examples: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    places = Counter(e["label"] for e in train)
    if name == "majority":
        raw = [np.log([1.0 + places[i] for i in range(len(e["options"]))]) for e in examples]
    elif name == "longest_option":
        raw = [np.array([float(len(option)) for option in e["options"]]) for e in examples]
    else:
        raw = _tfidf_choice(train, examples)
    rows = []
    for example, scores in zip(examples, raw, strict=True):
        normal = scores - np.logaddexp.reduce(scores)
        row = {**_head(example), "gold": example["label"], "pred": int(normal.argmax())}
        row |= {"scores": [round(float(score), 6) for score in normal], "group": example["group"], **_foot(example)}
        rows.append(row | {"options": example["options"]})
    return rows


# ---------------------------------------------------------------- TF-IDF and a linear classifier


def _vectorizer() -> Any:
    """Letters in runs of 2 to 5 inside words: for an agglutinative language this stands in for a stemmer."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=1, max_features=200_000, preprocessor=lower
    )


def _pair_features(vectors_a: Any, vectors_b: Any) -> Any:
    """Both texts, what they share and where they differ, and one column for their cosine (TF-IDF rows have norm 1)."""
    from scipy import sparse

    shared = vectors_a.multiply(vectors_b)
    return sparse.hstack([vectors_a, vectors_b, shared, abs(vectors_a - vectors_b), shared.sum(1)]).tocsr()


def _logistic() -> Any:
    """C=10 suits rows of norm 1; classes weigh alike, because the headline is macro-F1."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=10.0, max_iter=300, class_weight="balanced")


def _tfidf_classes(kind: str, train: Sequence[dict], examples: Sequence[dict], names: list[str]) -> np.ndarray:
    """Log-probabilities (examples, names); a class that train does not hold gets the log of 1e-9."""
    vectorizer = _vectorizer()
    if kind == "pair":
        vectorizer.fit([e[key] for e in train for key in ("text", "text_b")])
        inside, outside = (
            _pair_features(vectorizer.transform([e["text"] for e in part]), vectorizer.transform([e["text_b"] for e in part]))
            for part in (train, examples)
        )
    else:
        inside = vectorizer.fit_transform([e["text"] for e in train])
        outside = vectorizer.transform([e["text"] for e in examples])
    gold = [e["label"] for e in train]
    scores = np.full((len(examples), len(names)), np.log(1e-9))
    if len(set(gold)) == 1:
        scores[:, names.index(gold[0])] = 0.0
        return scores
    model = _logistic().fit(inside, gold)
    scores[:, [names.index(label) for label in model.classes_]] = np.maximum(model.predict_log_proba(outside), np.log(1e-9))
    return scores


def _tfidf_choice(train: Sequence[dict], examples: Sequence[dict]) -> list[np.ndarray]:
    """A score per option from question and option as a pair: right against wrong, then compared inside a question."""
    vectorizer = _vectorizer()
    vectorizer.fit([text for e in train for text in (e["question"], *e["options"])])

    def features(part: Sequence[dict]) -> Any:
        questions = [e["question"] for e in part for _ in e["options"]]
        options = [option for e in part for option in e["options"]]
        return _pair_features(vectorizer.transform(questions), vectorizer.transform(options))

    right = [int(place == e["label"]) for e in train for place in range(len(e["options"]))]
    flat = _logistic().fit(features(train), right).decision_function(features(examples))
    ends = np.cumsum([len(e["options"]) for e in examples])
    return np.split(flat, ends[:-1])
