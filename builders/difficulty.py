"""How hard a set is for what has not understood it, and how small a difference its test part can resolve.

Rows of the table: the best constant answer; surface cues alone (lengths, marks, capitals, digits, places, no word is
read); TF-IDF; and "blind", TF-IDF without the part that asks (the first text of a pair, the question). What cues and
blind get above the constant answer, the set gives away.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.baselines import predict_baseline
from evaluation.results import groups_of
from evaluation.statistics import Estimate, Sample, difference_interval, sample, score_interval
from tasks.load import Task
from tasks.metrics import longest
from tasks.scoring import score_predictions

BLIND = {"pair": "text", "choice": "question", "qa": "question"}  # the field that is hidden
POWER = 1.96 + 0.8416  # standard errors: a true difference of so many is found 4 times out of 5 at the level of 5 %
MOST_WORDS = 40_000  # tagged words that the cues learn from
_ENDS, _OPENINGS = ".!?…:;,", "\"'«“„([–—-"


def difficulty(task: Task, most: int) -> dict[str, Any]:
    """{"metric", "rows": [{"baseline", "score", "low", "high", "dev"}], "smallest_difference"} of a set.

    Baselines learn from the first `most` rows of train. The smallest difference is what is found with a chance of 80 %
    between two models on this test part, each trained once: measured on TF-IDF learned from all rows and from half.
    """
    own = task.own
    train = task.train[:most]
    names = [name for name in own.baselines if name != "cues"]
    names += ["cues"] if own.name in CUES else []
    names += ["blind"] if own.name in BLIND else []
    rows, samples = [], {}
    for name in names:
        estimate, samples[name] = _scored(task, _predicted(name, task, train, task.test))
        rows.append({"baseline": name, "score": estimate.value, "low": estimate.low, "high": estimate.high})
    smallest = None
    if "tfidf" in samples and len(train) > 3:
        _, half = _scored(task, _predicted("tfidf", task, train[: len(train) // 2], task.test))
        error = difference_interval(samples["tfidf"], half).se
        smallest = POWER * error if error > 0 else None
    return {"metric": task.metric, "rows": rows, "smallest_difference": smallest, "train_rows": len(train)}


def _predicted(name: str, task: Task, train: Sequence[dict], examples: Sequence[dict]) -> list[dict[str, Any]]:
    if name == "blind":
        hidden = {BLIND[task.kind]: ""}
        train, examples = ([{**example, **hidden} for example in part] for part in (train, examples))
        name = "tfidf"
    if name != "cues":
        return predict_baseline(name, task.own, train, examples, task.labels, task.positive)
    own = task.own
    return [
        {"id": example["id"], "gold": own.gold(example), **({"group": example["group"]} if example.get("group") else {}), **row}
        for example, row in zip(examples, CUES[task.kind](train, examples), strict=True)
    ]


def _scored(task: Task, rows: list[dict[str, Any]]) -> tuple[Estimate, Sample]:
    scored = score_predictions(rows, task.own, task.labels, task.metric, task.positive, full=False)
    one = sample([scored["per_example"]], scored["average"], groups_of(rows, task.kind))
    return score_interval(one), one


# ---------------------------------------------------------------- cues


def surface(text: str) -> list[float]:
    """Eleven numbers of a text that no word of it is read for."""
    words = text.split() or [""]
    first, last = (text or " ")[0], (text or " ")[-1]
    return [
        len(text), len(words), len(text) / len(words), sum(map(str.isdigit, text)), sum(map(str.isupper, text)),
        text.count(","), sum(map(text.count, "\"'«»“”()")), _ENDS.find(last) + 2 * last.isalnum(),
        _OPENINGS.find(first) if not first.isalnum() else 20 + 2 * first.isupper() + first.isdigit(),
        len(words[0]), len(words[-1]),
    ]  # fmt: skip


def learner() -> Any:
    """The classifier of all cues: boosted trees, which find bounds and combinations by themselves."""
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(random_state=0, max_iter=100, min_samples_leaf=20, class_weight="balanced")


def surface_of(example: dict[str, Any]) -> list[float]:
    """The cues of a text, or of two texts with their differences."""
    first = surface(example["text"])
    if "text_b" not in example:
        return first
    second = surface(example["text_b"])
    return [*first, *second, *(a - b for a, b in zip(first, second, strict=True))]


def _class_cues(train: Sequence[dict], examples: Sequence[dict]) -> list[dict[str, Any]]:
    gold = [example["label"] for example in train]
    if len(set(gold)) == 1:
        return [{"pred": gold[0]} for _ in examples]
    model = learner().fit([surface_of(example) for example in train], gold)
    return [{"pred": str(label)} for label in model.predict([surface_of(example) for example in examples])]


def option_cues(example: dict[str, Any]) -> list[list[float]]:
    """The cues of every option: its own, its place, its length among the others, words that it shares with the question."""
    options, asked = example["options"], set(example["question"].lower().split())
    lengths = np.array([len(option) for option in options], float)
    order = lengths.argsort(kind="stable").argsort(kind="stable")
    return [
        [
            *surface(option), place, len(options), order[place], len(options) - 1 - order[place],
            lengths[place] / max(1.0, lengths.mean()), float(place == longest(options)),
            len(asked & set(option.lower().split())) / max(1, len(option.split())),
        ]
        for place, option in enumerate(options)
    ]  # fmt: skip


def _option_cues(train: Sequence[dict], examples: Sequence[dict]) -> list[dict[str, Any]]:
    features = [row for example in train for row in option_cues(example)]
    right = [place == example["label"] for example in train for place in range(len(example["options"]))]
    model = learner().fit(features, right)
    flat = model.predict_proba([row for example in examples for row in option_cues(example)])[:, 1]
    ends = np.cumsum([len(example["options"]) for example in examples])
    return [
        {"pred": int(part.argmax()), "scores": [round(float(np.log(max(p, 1e-9))), 6) for p in part], "options": e["options"]}
        for e, part in zip(examples, np.split(flat, ends[:-1]), strict=True)
    ]


def _shape(word: str) -> list[float]:
    return [len(word), word[:1].isupper(), word.isupper(), any(map(str.isdigit, word)), word[:1].isalpha(), "-" in word]


def _word_cues(train: Sequence[dict], examples: Sequence[dict]) -> list[dict[str, Any]]:
    """Shapes of a word and of its neighbours, and whether it opens the sentence."""

    def features(example: dict[str, Any]) -> list[list[float]]:
        shapes = [_shape(""), *map(_shape, example["words"]), _shape("")]
        return [[*shapes[i], *shapes[i + 1], *shapes[i + 2], i == 0] for i in range(len(example["words"]))]

    rows = [row for example in train for row in features(example)][:MOST_WORDS]
    tags = [tag for example in train for tag in example["tags"]][:MOST_WORDS]
    if len(set(tags)) == 1:
        return [{"pred": [tags[0]] * len(example["words"])} for example in examples]
    model = learner().set_params(class_weight=None).fit(rows, tags)
    flat = model.predict([row for example in examples for row in features(example)])
    ends = np.cumsum([len(example["words"]) for example in examples])
    return [{"pred": [str(tag) for tag in part]} for part in np.split(flat, ends[:-1])]


CUES = {"classification": _class_cues, "pair": _class_cues, "choice": _option_cues, "tagging": _word_cues}
