"""Extractive answers: {"id", "context", "question", "answers": [{"text", "start"}], "title"}.

A question without answers is unanswerable. An answer that was not found in the context has start -1.
"""

import bisect
import itertools
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from common.errors import UserError
from language.base import Language
from tasks.answers import answer_outcome
from tasks.base import Kind, Rows
from tasks.cells import SkipRecord, grouped, nfc, spelled
from tasks.encoding import Row, join, separators
from tasks.metrics import normalise_language, normalise_official, overlap_f1, qa_scores
from tasks.settings import TaskSettings
from tasks.thresholds import threshold_metrics

_YES = ("true", "1", "1.0", "yes", "y", "t")  # as csv and spreadsheets spell it
_NO = ("false", "0", "0.0", "no", "n", "f", "", "none", "nan", "null")
# Columns that say whether a question has an answer, and what they then hold.
_ANSWERABLE = {
    "is_impossible": False,
    "unanswerable": False,
    "is_unanswerable": False,
    "answerable": True,
    "is_answerable": True,
}
ANSWER_WORDS = 30  # longest answer looked for, in words and not in tokens, so that no tokenizer is favoured
MAX_QUESTION_TOKENS = 64  # as BERT's run_squad and ELECTRA


class QuestionAnswering(Kind):
    """An answer is a span of the context, or there is none."""

    name = "qa"
    fields = {
        "context": ("context", "passage", "paragraph"),
        "question": ("question", "query"),
        "answers?": ("answers",),
        "answer_text?": ("answer_text", "answer"),
        "answer_start?": ("answer_start", "start"),
        "title?": ("title",),
        "group?": ("group",),
    }
    inputs = ("context", "question")
    group_by_text = True
    max_length = 384
    few_seeds = True

    def find_more(self, found, keys, rows):
        if not ("answers" in found or "answer_text" in found):
            return "answer_text", ["answers", "answer_text", "answer"]
        return None

    def read(self, row, found, labels, notes, options):
        no_answer_start = options.get("no_answer_start") or (-1,)
        raw_context = str(row.get(found["context"]) or "")
        context = nfc(raw_context, notes, strip=False)
        question = nfc(row.get(found["question"]), notes)
        if not context.strip():
            raise SkipRecord("empty context")
        if not question:
            raise SkipRecord("empty question")
        answers: list[dict[str, Any]] = []
        for text, start in _golds(row, found):
            if not text.strip():
                if start is not None and start not in no_answer_start:
                    raise SkipRecord(f"empty answer with offset {start} (unanswerable is '' with none of task.no_answer_start)")
                continue
            if start is not None and start > 0 and context != raw_context:
                start = len(unicodedata.normalize("NFC", raw_context[:start]))  # noqa: PLW2901
            text = unicodedata.normalize("NFC", text)  # noqa: PLW2901
            lead = len(text) - len(text.lstrip())
            text = text.strip()  # noqa: PLW2901
            if len(text.split()) > ANSWER_WORDS:
                notes[f"answer longer than {ANSWER_WORDS} words (cannot be predicted whole)"] += 1
            answers.append({"text": text, "start": _locate(context, text, None if start is None else start + lead, notes)})
        title = str(row.get(found.get("title")) or "")
        return grouped({"context": context, "question": question, "answers": answers, "title": title}, row, found)

    no_gold = "questions without an answer"

    def told(self, example):
        return "answers" if example["answers"] else self.no_gold

    def leakage_text(self, example):
        return example["context"]

    def untrainable(self, example):
        """Training needs the position of the answer; dev and test are scored by text."""
        if example["answers"] and not any(answer["start"] >= 0 for answer in example["answers"]):
            return "answer has no certain place in the context: not trained on"
        return None

    def decoding(self, task, settings: TaskSettings):
        return {"allow_no_answer": any(not example["answers"] for example in task.train)}

    # ---- rows and back ----

    head = "Spans"
    compete = "tokens"

    def encode(self, examples, tokenizer, labels, max_length, overlap, encoded):
        overlap = max_length // 3 if overlap is None else overlap
        added = 2 + separators(tokenizer)
        longest = min(MAX_QUESTION_TOKENS, (max_length - added) // 2)
        questions = tokenizer.encode_batch([example["question"] for example in examples])
        contexts = list(dict.fromkeys(example["context"] for example in examples))  # questions share contexts
        read = dict(zip(contexts, tokenizer.encode_with_offsets(contexts), strict=True))
        for example, question in zip(examples, questions, strict=True):
            context, offsets = read[example["context"]]
            kept = question[:longest]
            room = max_length - added - len(kept)
            if not 0 <= overlap < room:
                raise UserError(
                    f"task.window_overlap_tokens={overlap}: the windows of {example['id']} hold {room} tokens of text "
                    f"(max_length {max_length}). Set it below that."
                )
            answer = _answer_tokens(example, offsets)
            rows = []
            for begin, end in windows(len(context), room, overlap):
                ids, second = join(tokenizer, kept, context[begin:end])
                inside = answer is not None and begin <= answer[0] and answer[1] < end
                target = [second + place - begin for place in answer] if inside else [0, 0]
                rows.append(Row(ids, second, np.arange(len(ids)), np.array(target), begin=begin))
            encoded.close(rows, len(kept) < len(question))
            encoded.offsets.append(offsets)

    def decode(self, example, scores, labels, how, rows, other=None):
        """With how["allow_no_answer"] the answer is "" if [CLS] scores above the best span."""
        text, best, null = best_answer(example["context"], rows, scores)
        return {
            "pred": "" if how.get("allow_no_answer", True) and null > best else text,
            "span": text,  # the best span, even if no answer scores above it
            "scores": {"best": round(best, 4), "null": round(null, 4)},
            "question": example["question"],
        }

    def gold(self, example):
        return [answer["text"] for answer in example["answers"]] or [""]

    def answer(self, example, record):
        margin = record["scores"]["best"] - record["scores"]["null"]
        sure = round(float(np.exp(-np.logaddexp(0, -margin))), 4)
        return {"question": example["question"], "answer": record["pred"], "answerable": sure}

    # ---- scores ----

    metrics = ("f1", "exact_match", "f1_language", "exact_match_language")
    plain = ("examples_scored_differently_language", "bound from dev")

    def malformed(self, row):
        gold, pred = row["gold"], row["pred"]
        if not (isinstance(gold, list) and gold and type(pred) is str and all(type(text) is str for text in gold)):
            return "gold of a question is a list of texts and pred a text"
        return None

    def score(self, rows, labels, metric, positive, full):
        golds = [[str(gold) for gold in row["gold"]] for row in rows]
        preds = [str(row["pred"]) for row in rows]
        columns: dict[str, np.ndarray] = {}
        in_language = partial(normalise_language, self.language)
        for suffix, normalise in (("", normalise_official), ("_language", in_language)):
            pairs = np.array([qa_scores(gold, pred, normalise) for gold, pred in zip(golds, preds, strict=True)])
            columns[f"exact_match{suffix}"], columns[f"f1{suffix}"] = pairs[:, 0], pairs[:, 1]
        metrics = {name: float(values.mean()) for name, values in columns.items()}
        letters = [max(overlap_f1(in_language(g), in_language(p)) for g in gold) for gold, p in zip(golds, preds, strict=True)]
        metrics["char_f1_language"] = float(np.mean(letters))
        changed = (columns["f1"] != columns["f1_language"]) | (columns["exact_match"] != columns["exact_match_language"])
        metrics["examples_scored_differently_language"] = float(changed.sum())
        answerable = np.array([any(text.strip() for text in gold) for gold in golds])
        for name, part in (("answerable", answerable), ("unanswerable", ~answerable)):
            if part.any() and not part.all():
                metrics |= {f"{key} {name}": float(values[part].mean()) for key, values in columns.items()}
        metrics["no_answer_accuracy"] = float(np.mean([bool(p.strip()) == a for p, a in zip(preds, answerable, strict=True)]))
        return metrics, columns[metric], "mean"

    def floor(self, rows, labels, metric, positive):
        """No answer to any question."""
        return self.score([{**row, "pred": ""} for row in rows], labels, metric, positive, False)[0][metric]

    def compare_with_dev(self, test, dev, metric):
        return threshold_metrics(test, dev, metric, self.language)

    # ---- baselines ----

    def baseline(self, name, train, examples, labels, positive):
        from tasks.linear import answers

        said = answers(train, examples, self.language) if name == "tfidf" else [("", 0.0)] * len(examples)
        return [
            {"pred": text, "scores": {"best": round(odds, 6), "null": 0.0}, "text": example["question"]}
            for example, (text, odds) in zip(examples, said, strict=True)
        ]

    # ---- the report ----

    text_repeats = True
    frequency = "rarest"
    frequency_of = "training texts with the answer's rarest word"

    def sought(self, example):
        return [answer["text"] for answer in example["answers"]]

    def outcomes(self, row, text=None):
        return [answer_outcome(row, self.language, text)]

    def is_wrong(self, row):
        normalise = partial(normalise_language, self.language)
        return qa_scores([str(gold) for gold in row["gold"]], str(row["pred"]), normalise)[0] < 1

    def shown(self, row):
        parts, _, pred = super().shown(row)
        gold = " | ".join(dict.fromkeys(map(str, row["gold"]))) or "no answer"
        return parts, *(value if value.strip() else "no answer" for value in (gold, pred))

    def divisions(self, rows):
        golds = [[str(gold) for gold in row["gold"] if str(gold).strip()] for row in rows]
        there = ["there is one" if gold else "there is none" for gold in golds]
        return [("answer", there), ("answer length, words", [_answer_length(gold, self.language) for gold in golds])]

    # ---- transformers ----

    transformers = "ForQuestionAnswering"
    pipeline = "question-answering"
    imported = {"allow_no_answer": False}


def windows(length: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """Spans [begin, end) of at most `room` tokens that cover `length`, each sharing `overlap` with the one before."""
    spans, begin = [], 0
    while True:
        end = min(length, begin + room)
        spans.append((begin, end))
        if end == length:
            return spans
        begin = end - overlap


def _answer_tokens(example: dict[str, Any], offsets: np.ndarray) -> tuple[int, int] | None:
    """First and last token of the context that touch the first answer with a known place; None without one."""
    for answer in example.get("answers") or []:
        start, end = answer["start"], answer["start"] + len(answer["text"])
        touched = np.flatnonzero((offsets[:, 1] > start) & (offsets[:, 0] < end)) if start >= 0 else []
        if len(touched):
            return int(touched[0]), int(touched[-1])
    return None


def best_answer(context: str, own: Rows, scores: Sequence[np.ndarray]) -> tuple[str, float, float]:
    """(text, its score, score of no answer) for one question from the raw scores [n, 2] of its windows.

    The exact best span with start <= end, at most ANSWER_WORDS words and both ends in the context; a start counts only in the
    window where it has most context on both sides (BERT's rule). No answer has the lowest [CLS] score of all windows. The
    text is cut out of the context, so it is always an original substring.
    """
    rows, offsets = own.rows, own.offsets
    spaces = np.cumsum([letter.isspace() for letter in context] + [False])
    word = spaces[offsets[:, 0]] if len(offsets) else np.zeros(0, int)  # counts blanks before it: never fewer than words
    blank_runs = np.unique(word)
    word = np.searchsorted(blank_runs, word)  # a run of blanks counts once
    spans = [(row.begin, row.begin + len(row.ids) - row.second - 1) for row in rows]
    owner = max_context(spans, len(offsets))
    null = min(float(part[0].sum()) for part in scores)
    best, text = -np.inf, ""
    for window, (row, (begin, end), part) in enumerate(zip(rows, spans, scores, strict=True)):
        if begin == end:
            continue
        inside = part[row.second : row.second + end - begin]
        sums = inside[:, None, 0] + inside[None, :, 1]
        words = word[begin:end]
        far = words[None, :] - words[:, None]
        allowed = np.triu(far < ANSWER_WORDS) & (owner[begin:end] == window)[:, None]
        sums = np.where(allowed, sums, -np.inf)
        start, stop = np.unravel_index(int(sums.argmax()), sums.shape)
        if sums[start, stop] > best:
            best = float(sums[start, stop])
            text = context[offsets[begin + start, 0] : offsets[begin + stop, 1]]
    return (text, best, null) if np.isfinite(best) else ("", null, null)


def max_context(spans: Sequence[tuple[int, int]], length: int) -> np.ndarray:
    """For each of `length` tokens the window in which its nearer edge is farthest (then the longer window), as in BERT."""
    score = np.full((len(spans), length), -1.0)
    for number, (begin, end) in enumerate(spans):
        place = np.arange(end - begin)
        score[number, begin:end] = np.minimum(place, end - begin - 1 - place) + 0.01 * (end - begin)
    return score.argmax(0)


def _answer_length(golds: Sequence[str], language: Language) -> str:
    """Length class of the shortest gold answer, so that one odd annotation does not move the question; "" without any."""
    if not golds:
        return ""
    words = min(len(normalise_language(language, gold).split()) for gold in golds)
    return "1" if words < 2 else "2" if words == 2 else "3 to 5" if words < 6 else "6 or more"


def _golds(row: dict, found: dict) -> list[tuple[str, int | None]]:
    """The (answer text, offset) pairs of a row in any of the three layouts; empty when it is unanswerable."""
    if not _has_answer(row):
        return []
    golds = row.get(found.get("answers")) if "answers" in found else None
    if isinstance(golds, str):
        golds = spelled(golds) if golds.strip().startswith(("[", "{")) else [{"text": golds}]
    if isinstance(golds, dict):  # Hugging Face: {"text": [...], "answer_start": [...]}
        texts = golds.get("text") or []
        starts = golds.get("answer_start") or [None] * len(texts)
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise SkipRecord("answers are not {text: [...], answer_start: [...]} of one length")
        golds = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if golds is None:
        golds = [{"text": row.get(found.get("answer_text")), "answer_start": row.get(found.get("answer_start"))}]
    if not isinstance(golds, list):
        raise SkipRecord("answers are not a list")
    pairs = []
    for gold in golds:
        text, start = (
            (gold.get("text"), gold.get("answer_start", gold.get("start"))) if isinstance(gold, dict) else (gold, None)
        )
        try:
            number = None if start is None or str(start).strip() == "" else int(float(start))
        except (ValueError, TypeError, OverflowError):
            raise SkipRecord(f"answer_start {start!r} is not a number") from None
        pairs.append(("" if text is None else str(text), number))
    return pairs


def _has_answer(row: dict) -> bool:
    """What the row says of it, True where it says nothing; what can be read neither way is a reason to set it aside."""
    for column, meaning in _ANSWERABLE.items():
        said = str(row.get(column)).strip().lower()
        if said not in (*_YES, *_NO):
            raise SkipRecord(f"{column} {said[:20]!r} is neither true nor false")
        if said not in ("", "none", "nan", "null") and (said in _YES) != meaning:
            return False
    return True


def _locate(context: str, text: str, start: int | None, notes: Counter[str]) -> int:
    """The answer's offset: the given one if it is right, else the nearest occurrence of the text, else -1."""
    if start is not None and start >= 0 and context[start : start + len(text)] == text:
        return start
    places = []
    place = context.find(text)
    while place >= 0:
        places.append(place)
        place = context.find(text, place + 1)
    if not places:
        notes["answer not in the context"] += 1
        return -1
    if len(places) == 1:
        notes["answer offset moved to the only place of the answer"] += 1
        return places[0]
    if start is None:
        notes["answer without an offset and several places possible"] += 1
        return -1
    for unit, size in UNITS.items():
        counted = bisect.bisect_left(sizes := list(itertools.accumulate(map(size, context), initial=0)), start)
        if counted < len(sizes) and sizes[counted] == start and counted in places:
            notes[f"answer offset was counted in {unit}: put right"] += 1
            return counted
    notes["answer offset moved to the nearest of several places"] += 1
    return min(places, key=lambda place: abs(place - start))


# What other programs count, and how many of it a character is.
UNITS: dict[str, Callable[[str], int]] = {
    "UTF-16 units": lambda letter: 1 + (letter > "\uffff"),  # JavaScript and Java
    "bytes": lambda letter: len(letter.encode("utf-8", errors="surrogatepass")),  # Go and Rust
    "line ends of two characters": lambda letter: 1 + (letter == "\n"),  # Windows
    "decomposed letters": lambda letter: len(unicodedata.normalize("NFD", letter)),  # file systems and editors of macOS
}


KIND = QuestionAnswering()
