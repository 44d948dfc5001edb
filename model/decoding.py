"""From a task model's scores to predictions, one for every example: names, options, tags, answers."""

import contextlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from data.features import Encoded, collate, sorted_batches
from data.loader import ahead
from data.task_records import ANSWER_WORDS
from model.heads import TaskModel


@torch.no_grad()
def score_rows(model: TaskModel, encoded: Encoded, max_tokens: int, dtype: torch.dtype = torch.float32,
               with_loss: bool = False) -> tuple[list[np.ndarray], float | None]:  # fmt: skip
    """Raw scores of every row ([labels], [1] for choice, [words, tags], [n, 2] for qa) and, if asked, the mean loss.

    The model is put back into the mode it was in.
    """
    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    cast = (lambda: torch.autocast(device.type, dtype)) if dtype != torch.float32 else contextlib.nullcontext
    found: list[tuple[np.ndarray, torch.Tensor]] = []
    losses, count = [], 0
    batches = sorted_batches(encoded, max_tokens)
    make = partial(collate, encoded, device=device)
    for batch in ahead(batches, make) if device.type == "cuda" else map(make, batches):
        with cast():
            scores = model(batch)
        if with_loss:
            losses.append(model.loss(scores, batch))
            count += batch.count
        found.append((batch.rows, scores))
    rows: list[np.ndarray] = [np.zeros(0)] * len(encoded.rows)
    for numbers, scores in found:
        sizes = [len(encoded.rows[number].positions) for number in numbers]
        for number, part in zip(numbers, np.split(scores.cpu().numpy(), np.cumsum(sizes)[:-1]), strict=True):
            rows[number] = part[0] if encoded.kind in ("classification", "pair") else part
    model.train(was_training)
    return rows, float(torch.stack(losses).sum()) / max(1, count) if losses else None


def predictions(
    examples: Sequence[dict[str, Any]],
    encoded: Encoded,
    scores: Sequence[np.ndarray],
    labels: Sequence[str] | None,
    allow_no_answer: bool = True,
    valid_tags: bool = False,
    other: Sequence[np.ndarray] | None = None,
) -> list[dict[str, Any]]:
    """One record an example, in order: id, pred and scores as contract 7 has them, tokens, truncated, and what error
    lists show.

    `allow_no_answer` lets qa answer with nothing where [CLS] scores above the best span. `valid_tags` takes the best IOB2
    path through a sentence; "raw" keeps each word's best tag. `other`: scores of the pairs in the other order, averaged with
    these; "orders" keeps what each order alone says.
    """
    records = []
    for number, example in enumerate(examples):
        span = slice(encoded.first[number], encoded.first[number + 1])
        record: dict[str, Any] = {"id": example["id"]}
        if encoded.kind in ("classification", "pair"):
            raw = scores[span.start]
            if other is not None:
                record["orders"] = [labels[int(one.argmax())] for one in (raw, other[span.start])]
                raw = (raw + other[span.start]) / 2
            logs = _log_softmax(raw)
            record |= {"pred": labels[int(logs.argmax())], "scores": dict(zip(labels, _rounded(logs), strict=True))}
            record["text"] = " ⁄ ".join(example[key] for key in ("text", "text_b") if example.get(key))
        elif encoded.kind == "choice":
            logs = _log_softmax(np.concatenate(scores[span]))
            record |= {"pred": int(logs.argmax()), "scores": _rounded(logs), "group": example.get("group", "")}
            record |= {"question": example["question"], "options": example["options"]}
        elif encoded.kind == "tagging":
            logs = np.zeros((len(example["words"]), len(labels)))
            missed = np.ones(len(logs), bool)
            for row, part in zip(encoded.rows[span], scores[span], strict=True):
                logs[row.words], missed[row.words] = _log_softmax(part), False
            if missed.any():
                raise RuntimeError(f"{example['id']}: word {missed.argmax()} was not predicted")  # a defect of ours
            greedy = logs.argmax(1)
            best = best_valid_path(logs, labels) if valid_tags else greedy
            record |= {"pred": [labels[tag] for tag in best], "scores": _rounded(logs[np.arange(len(best)), best])}
            if valid_tags:
                record["raw"] = [labels[tag] for tag in greedy]
            record["words"] = example["words"]
        else:
            text, best, null = best_answer(example["context"], encoded, number, scores[span])
            pred = "" if allow_no_answer and null > best else text
            record |= {
                "pred": pred,
                "span": text,  # the best span, also where no answer scores above it
                "scores": {"best": round(best, 4), "null": round(null, 4)},
                "question": example["question"],
            }
        records.append(record | {"tokens": encoded.tokens(number), "truncated": bool(encoded.truncated[number])})
    return records


def best_valid_path(logs: np.ndarray, labels: Sequence[str]) -> np.ndarray:
    """Numbers [n] of the tags of the likeliest sequence that is valid IOB2, from log-probabilities [n, tags].

    Every I-X follows B-X or I-X (Viterbi, with the other steps forbidden and no step preferred). Of equals the first tag.
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


def with_gold(records: list[dict[str, Any]], examples: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Records of a predictions file: the gold answer put after the id, and the group of examples that have one (the text
    of a question, the document of a pair; of multiple choice the school subject)."""

    def gold(example: dict[str, Any]) -> Any:
        if kind == "qa":
            return [answer["text"] for answer in example["answers"]] or [""]
        return example["tags" if kind == "tagging" else "label"]

    def group(example: dict[str, Any]) -> dict[str, str]:
        return {"group": example["group"]} if example.get("group") else {}

    return [{"id": r["id"], "gold": gold(e), **group(e), **r} for r, e in zip(records, examples, strict=True)]


def best_answer(context: str, encoded: Encoded, number: int, scores: Sequence[np.ndarray]) -> tuple[str, float, float]:
    """(text, its score, score of no answer) for question `number` from the raw scores [n, 2] of its windows.

    The exact best span with start <= end, at most ANSWER_WORDS words, both ends in the context; a start counts only in
    the window where it has most context on both sides (BERT's rule). No answer scores the least [CLS] of all windows.
    The text is cut out of the context, so it is always an original substring.
    """
    rows = encoded.rows[encoded.first[number] : encoded.first[number + 1]]
    offsets = encoded.offsets[number]
    spaces = np.cumsum([letter.isspace() for letter in context] + [False])
    word = spaces[offsets[:, 0]] if len(offsets) else np.zeros(0, int)  # counts blanks before: never fewer than words
    blank_runs = np.unique(word)
    word = np.searchsorted(blank_runs, word)  # runs of blanks count once
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
    """For each of `length` pieces the window in which the nearer edge is farthest (then the longer window), as BERT's."""
    score = np.full((len(spans), length), -1.0)
    for number, (begin, end) in enumerate(spans):
        place = np.arange(end - begin)
        score[number, begin:end] = np.minimum(place, end - begin - 1 - place) + 0.01 * (end - begin)
    return score.argmax(0)


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    return scores - np.logaddexp.reduce(scores, axis=-1, keepdims=True)


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 6) for value in values]
