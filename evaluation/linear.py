"""TF-IDF with a linear classifier on every kind of task: what can be had in a minute without an encoder.

Letters in runs of 2 to 5 stand in for a stemmer, as an agglutinative language asks for. Classes, pairs and options are
texts; a tag is read off a word and its two neighbours; an answer is the sentence that is likeliest to hold it, with the
question's own words cut from its ends.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from evaluation.metrics import normalise_az, qa_scores
from language.azerbaijani import lower

LEAST = np.log(1e-9)  # log-probability of a class that train does not hold
MOST_QUESTIONS = 5000  # questions that the choice of sentence is learned from: it has six weights
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")


def _vectorizer(features: int = 200_000, **settings: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    settings = {"ngram_range": (2, 5), "preprocessor": lower, **settings}
    return TfidfVectorizer(analyzer="char_wb", sublinear_tf=True, min_df=1, max_features=features, **settings)


def _logistic(**settings: Any) -> Any:
    """C=10 suits rows of norm 1; classes weigh alike, because the headline is macro-F1."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(**{"C": 10.0, "max_iter": 300, "class_weight": "balanced", **settings})


def _pair_features(vectors_a: Any, vectors_b: Any) -> Any:
    """Both texts, what they share and where they differ, and one column for their cosine (TF-IDF rows have norm 1)."""
    from scipy import sparse

    shared = vectors_a.multiply(vectors_b)
    return sparse.hstack([vectors_a, vectors_b, shared, abs(vectors_a - vectors_b), shared.sum(1)]).tocsr()


def _scores(inside: Any, gold: Sequence[str], outside: Any, names: Sequence[str], **settings: Any) -> np.ndarray:
    """Log-probabilities (rows of `outside`, names)."""
    scores = np.full((outside.shape[0], len(names)), LEAST)
    if len(set(gold)) == 1:
        scores[:, names.index(gold[0])] = 0.0
        return scores
    model = _logistic(**settings).fit(inside, gold)
    scores[:, [names.index(label) for label in model.classes_]] = np.maximum(model.predict_log_proba(outside), LEAST)
    return scores


def class_scores(
    kind: str, train: Sequence[dict], examples: Sequence[dict], names: list[str], relation: bool = True
) -> np.ndarray:
    """Log-probabilities (examples, names) of classes or pairs; without `relation` a pair is a bag of each text's letters."""
    from scipy import sparse

    vectorizer = _vectorizer()
    if kind == "pair":
        features = _pair_features if relation else lambda a, b: sparse.hstack([a, b]).tocsr()
        vectorizer.fit([e[key] for e in train for key in ("text", "text_b")])
        inside, outside = (
            features(vectorizer.transform([e["text"] for e in part]), vectorizer.transform([e["text_b"] for e in part]))
            for part in (train, examples)
        )
    else:
        inside = vectorizer.fit_transform([e["text"] for e in train])
        outside = vectorizer.transform([e["text"] for e in examples])
    return _scores(inside, [e["label"] for e in train], outside, names)


def option_scores(train: Sequence[dict], examples: Sequence[dict]) -> list[np.ndarray]:
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


def tag_scores(train: Sequence[dict], examples: Sequence[dict], names: list[str]) -> list[np.ndarray]:
    """Log-probabilities (words, names) of every sentence, each word by itself from its letters and its neighbours'.

    Case is kept, since a capital is half of what names are known by; "." and "," mark the sentence's ends.
    """
    from scipy import sparse

    def neighbourhood(part: Sequence[dict]) -> list[list[str]]:
        return [[w for e in part for w in ([".", *e["words"], "."][at : at + len(e["words"])])] for at in (1, 0, 2)]

    own, beside = _vectorizer(50_000, preprocessor=str), _vectorizer(20_000, ngram_range=(2, 4))
    words = neighbourhood(train)
    own.fit(words[0])
    beside.fit(words[0])

    def features(columns: list[list[str]]) -> Any:
        return sparse.hstack([own.transform(columns[0]), *(beside.transform(column) for column in columns[1:])]).tocsr()

    gold = [tag for e in train for tag in e["tags"]]
    # A sentence has few names: classes that weigh alike would find them everywhere.
    flat = _scores(features(words), gold, features(neighbourhood(examples)), names, class_weight=None, max_iter=100)
    return np.split(flat, np.cumsum([len(e["words"]) for e in examples])[:-1])


def answers(train: Sequence[dict], examples: Sequence[dict]) -> list[tuple[str, float]]:
    """(answer, log-odds of its sentence) of every question; "" where train has such questions and no sentence is likely."""
    known = [e for e in train if e["answers"]][:MOST_QUESTIONS]
    nothing = [e for e in train if not e["answers"]][:MOST_QUESTIONS]
    if not known:
        return [("", 0.0) for _ in examples]
    vectorizer = _vectorizer(100_000)
    vectorizer.fit([text for e in known for text in (e["question"], e["context"])])
    rows, right = [], []
    for e in known:
        parts, features = _sentences(e, vectorizer)
        rows.append(features)
        right += [any(a["text"] in part for a in e["answers"]) for part in parts]
    flat = np.concatenate(rows)
    if len(set(right)) == 1:
        return [("", 0.0) for _ in examples]
    model = _logistic(C=1.0).fit(flat, right)

    def best(e: dict) -> tuple[str, float]:
        parts, features = _sentences(e, vectorizer)
        odds = model.decision_function(features)
        place = int(odds.argmax())
        return _trimmed(parts[place], e["question"]), float(odds[place])

    bound = -np.inf
    if nothing:  # the bound with the best F1 on train, looked for among its own odds
        found = [(best(e), [a["text"] for a in e["answers"]]) for e in [*known, *nothing]]
        gain = sorted((odds, qa_scores(golds or [""], text)[1] - (not golds)) for (text, odds), golds in found)
        kept = np.cumsum([0.0, *(value for _, value in reversed(gain))])[::-1]  # F1 gained by answering from here up
        place = int(kept.argmax())
        bound = gain[place][0] if place < len(gain) else np.inf
    said = [best(e) for e in examples]
    return [(text if odds >= bound else "", odds) for text, odds in said]


def _sentences(example: dict, vectorizer: Any) -> tuple[list[str], np.ndarray]:
    """Sentences of a context, and six numbers for each: cosine with the question, its rank, its gap to the best, the share
    of the question's words in it, length, and place in the text."""
    parts = [part for part in _SENTENCE_END.split(example["context"]) if part.strip()]
    vectors = vectorizer.transform([example["question"], *parts])
    cosine = (vectors[1:] @ vectors[0].T).toarray()[:, 0]
    asked = set(normalise_az(example["question"]).split())
    shared = [len(asked & set(normalise_az(part).split())) / max(1, len(asked)) for part in parts]
    rank = np.argsort(np.argsort(-cosine, kind="stable"), kind="stable")
    length = np.log1p([len(part.split()) for part in parts])
    return parts, np.stack([cosine, rank, cosine.max() - cosine, shared, length, np.arange(len(parts)) / len(parts)], 1)


def _trimmed(sentence: str, question: str) -> str:
    """The sentence without the question's words, and without punctuation, at its two ends; whole if nothing is left."""
    asked = set(normalise_az(question).split())
    spans = [match.span() for match in re.finditer(r"\S+", sentence)]
    kept = [span for span in spans if not set(normalise_az(sentence[slice(*span)]).split()) <= asked]
    return sentence[kept[0][0] : kept[-1][1]].strip(" \t.,;:!?…") if kept else sentence
