"""TF-IDF with a linear classifier for every kind of task: a baseline of a minute, without an encoder.

Character n-grams of 2 to 5 letters replace a stemmer, which an agglutinative language would need. Classes, pairs and options
are classified as texts; a tag from a word and its two neighbours; an answer is the sentence most likely to contain it,
without the question's words at both ends.
"""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from language.base import Language
from tasks.metrics import normalise_language, qa_scores

LEAST = np.log(1e-9)  # log-probability of a class that is not in train
MOST_QUESTIONS = 5000  # number of questions from which the choice of sentence is learned: it has six weights
_SENTENCE_END = re.compile(r"(?<=[.!?…])\s+|\n+")


def _vectorizer(language: Language, features: int = 200_000, **settings: Any) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    settings = {"ngram_range": (2, 5), "preprocessor": language.lower, **settings}
    return TfidfVectorizer(analyzer="char_wb", sublinear_tf=True, min_df=1, max_features=features, **settings)


def _logistic(**settings: Any) -> Any:
    """C=10 suits rows of norm 1; classes have equal weight, because the headline is macro-F1."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(**{"C": 10.0, "max_iter": 300, "class_weight": "balanced", **settings})


def _pair_features(vectors_a: Any, vectors_b: Any) -> Any:
    """Both texts, their common and their different features, and one column for their cosine (TF-IDF rows have norm 1)."""
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
    train: Sequence[dict], examples: Sequence[dict], names: list[str], language: Language, relation: bool = True
) -> np.ndarray:
    """Log-probabilities (examples, names) of classes or pairs; without `relation` a pair is the bag of both texts' n-grams."""
    from scipy import sparse

    vectorizer = _vectorizer(language)
    if "text_b" in train[0]:
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


def option_scores(train: Sequence[dict], examples: Sequence[dict], language: Language) -> list[np.ndarray]:
    """A score for each option, from question and option as a pair: right against wrong, then compared within a question."""
    vectorizer = _vectorizer(language)
    vectorizer.fit([text for e in train for text in (e["question"], *e["options"])])

    def features(part: Sequence[dict]) -> Any:
        questions = [e["question"] for e in part for _ in e["options"]]
        options = [option for e in part for option in e["options"]]
        return _pair_features(vectorizer.transform(questions), vectorizer.transform(options))

    right = [int(place == e["label"]) for e in train for place in range(len(e["options"]))]
    flat = _logistic().fit(features(train), right).decision_function(features(examples))
    ends = np.cumsum([len(e["options"]) for e in examples])
    return np.split(flat, ends[:-1])


def tag_scores(train: Sequence[dict], examples: Sequence[dict], names: list[str], language: Language) -> list[np.ndarray]:
    """Log-probabilities (words, names) for every sentence; each word is classified from its and its neighbours' letters.

    Case is kept, because capitals identify many names; "." and "," mark the sentence's ends.
    """
    from scipy import sparse

    def neighbourhood(part: Sequence[dict]) -> list[list[str]]:
        return [[w for e in part for w in ([".", *e["words"], "."][at : at + len(e["words"])])] for at in (1, 0, 2)]

    own, beside = _vectorizer(language, 50_000, preprocessor=str), _vectorizer(language, 20_000, ngram_range=(2, 4))
    words = neighbourhood(train)
    own.fit(words[0])
    beside.fit(words[0])

    def features(columns: list[list[str]]) -> Any:
        return sparse.hstack([own.transform(columns[0]), *(beside.transform(column) for column in columns[1:])]).tocsr()

    gold = [tag for e in train for tag in e["tags"]]
    # A sentence has few names; with equal class weights they would be found everywhere.
    flat = _scores(features(words), gold, features(neighbourhood(examples)), names, class_weight=None, max_iter=100)
    return np.split(flat, np.cumsum([len(e["words"]) for e in examples])[:-1])


def answers(train: Sequence[dict], examples: Sequence[dict], language: Language) -> list[tuple[str, float]]:
    """(answer, log-odds of its sentence) for every question; "" if train has unanswerable ones and no sentence is likely."""
    known = [e for e in train if e["answers"]][:MOST_QUESTIONS]
    nothing = [e for e in train if not e["answers"]][:MOST_QUESTIONS]
    if not known:
        return [("", 0.0) for _ in examples]
    vectorizer = _vectorizer(language, 100_000)
    vectorizer.fit([text for e in known for text in (e["question"], e["context"])])
    rows, right = [], []
    for e in known:
        parts, features = _sentences(e, vectorizer, language)
        rows.append(features)
        right += [any(a["text"] in part for a in e["answers"]) for part in parts]
    flat = np.concatenate(rows)
    if len(set(right)) == 1:
        return [("", 0.0) for _ in examples]
    model = _logistic(C=1.0).fit(flat, right)

    def best(e: dict) -> tuple[str, float]:
        parts, features = _sentences(e, vectorizer, language)
        odds = model.decision_function(features)
        place = int(odds.argmax())
        return _trimmed(parts[place], e["question"], language), float(odds[place])

    bound = -np.inf
    if nothing:  # the bound with the best F1 on train, among the odds found there
        found = [(best(e), [a["text"] for a in e["answers"]]) for e in [*known, *nothing]]
        gain = sorted((odds, qa_scores(golds or [""], text)[1] - (not golds)) for (text, odds), golds in found)
        kept = np.cumsum([0.0, *(value for _, value in reversed(gain))])[::-1]  # F1 gained by answering from here up
        place = int(kept.argmax())
        bound = gain[place][0] if place < len(gain) else np.inf
    said = [best(e) for e in examples]
    return [(text if odds >= bound else "", odds) for text, odds in said]


def _sentences(example: dict, vectorizer: Any, language: Language) -> tuple[list[str], np.ndarray]:
    """Sentences of a context and six numbers for each: cosine with the question, its rank, its gap to the best, the share of
    the question's words in it, length, and position in the text."""
    parts = [part for part in _SENTENCE_END.split(example["context"]) if part.strip()]
    vectors = vectorizer.transform([example["question"], *parts])
    cosine = (vectors[1:] @ vectors[0].T).toarray()[:, 0]
    asked = set(normalise_language(language, example["question"]).split())
    shared = [len(asked & set(normalise_language(language, part).split())) / max(1, len(asked)) for part in parts]
    rank = np.argsort(np.argsort(-cosine, kind="stable"), kind="stable")
    length = np.log1p([len(part.split()) for part in parts])
    return parts, np.stack([cosine, rank, cosine.max() - cosine, shared, length, np.arange(len(parts)) / len(parts)], 1)


def _trimmed(sentence: str, question: str, language: Language) -> str:
    """The sentence without the question's words and punctuation at its ends; whole if nothing would be left."""
    asked = set(normalise_language(language, question).split())
    spans = [match.span() for match in re.finditer(r"\S+", sentence)]
    kept = [span for span in spans if not set(normalise_language(language, sentence[slice(*span)]).split()) <= asked]
    return sentence[kept[0][0] : kept[-1][1]].strip(" \t.,;:!?…") if kept else sentence


def cosines(train: Sequence[dict], examples: Sequence[dict], language: Language) -> tuple[np.ndarray, np.ndarray]:
    """Cosines of the two texts of every pair, in `train` and in `examples`, with the vectorizer fitted on train."""
    vectorizer = _vectorizer(language)
    vectorizer.fit([e[key] for e in train for key in ("text", "text_b")])
    return tuple(
        np.asarray(
            vectorizer.transform([e["text"] for e in part]).multiply(vectorizer.transform([e["text_b"] for e in part])).sum(1)
        )[:, 0]
        for part in (train, examples)
    )


def label_chances(train: Sequence[dict], examples: Sequence[dict], names: Sequence[str], language: Language) -> np.ndarray:
    """Probabilities (examples, names) of each label separately; a label that train has always or never gets that share."""
    vectorizer = _vectorizer(language)
    inside = vectorizer.fit_transform([e["text"] for e in train])
    outside = vectorizer.transform([e["text"] for e in examples])
    chances = np.zeros((len(examples), len(names)))
    for column, name in enumerate(names):
        gold = [name in e["labels"] for e in train]
        if len(set(gold)) == 1:
            chances[:, column] = float(gold[0])
        else:
            chances[:, column] = _logistic().fit(inside, gold).predict_proba(outside)[:, 1]
    return chances
