"""A row of a model stacked with a baseline: the weighted mean of both models' scores, from prediction files alone.

The weight is one number, chosen on dev for each seed; test is read once with it. The row is no encoder's score: it says what
an encoder and TF-IDF reach together (stacked generalisation, Wolpert 1992, with a single weight).
"""

from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError
from common.files import read_json, write_json, write_jsonl
from tasks.base import Kind
from tasks.scoring import read_predictions, score_predictions

WEIGHTS = np.arange(21) / 20  # of the baseline


def write_stack(folder: Path, baseline: Path, task: Any) -> Path | None:
    """Write <out>/<model>+<baseline>/<task>/seed-<n>/ from the predictions in `folder` and `baseline`; return that folder.

    `folder`: a seed of a fine-tuned model; `baseline`: seed-0 of a baseline; `task`: their tasks.load.Task. None for a kind
    whose records hold no scores that can be mixed (Kind.raw). UserError for predictions on other examples.
    """
    ours, other = read_json(folder / "summary.json"), read_json(baseline / "summary.json")
    dev = _raw_scores(folder, baseline, "dev", task, ours)
    if dev is None:
        return None
    found = []
    for weight in WEIGHTS:
        records, how = _mixed(dev, weight, task.dev, task, None)
        score = score_predictions(records, task.own, task.labels, task.metric, task.positive, full=False)["score"]
        found.append(
            (score, -abs(weight - 0.5), float(weight), how, records)
        )  # small dev sets often tie: nearest to equal parts
    dev_score, _, weight, how, dev_records = max(found, key=lambda one: one[:2])
    test, _ = _mixed(_raw_scores(folder, baseline, "test", task, ours), weight, task.test, task, how)
    scored = score_predictions(test, task.own, task.labels, task.metric, task.positive, full=False)
    name = f"{ours['model']}+{other['model']}"
    place = folder.parents[2] / name / task.name / folder.name
    write_jsonl(place / "predictions-dev.jsonl", dev_records)
    write_jsonl(place / "predictions-test.jsonl", test)
    if (folder.parent / "tuning.json").exists():  # its search is part of this row's cost
        write_json(place.parent / "tuning.json", read_json(folder.parent / "tuning.json"))
    else:
        (place.parent / "tuning.json").unlink(missing_ok=True)
    summary = {key: value for key, value in ours.items() if key != "both_orders"} | how
    summary |= {"model": name, "stacked": {"model": ours["model"], "with": other["model"], "weight": weight}}
    summary |= {"dev_score": dev_score, "test_score": scored["score"], "hours": ours["hours"] + other["hours"]}
    write_json(place / "summary.json", summary)
    return place


Scores = list[tuple[dict[str, Any], np.ndarray, np.ndarray]]  # of each example: its record, the model's scores, the baseline's


def _raw_scores(folder: Path, baseline: Path, split: str, task: Any, summary: dict[str, Any]) -> Scores | None:
    """Both models' scores of a split, as Kind.decode reads them; None for a kind that has none to mix."""
    kind: Kind = task.own
    rows, theirs = (read_predictions(place / f"predictions-{split}.jsonl", kind) for place in (folder, baseline))
    examples = [example["id"] for example in getattr(task, split)]
    for place, part in ((folder, rows), (baseline, theirs)):
        if [row["id"] for row in part] != examples:
            raise UserError(f"{place}/predictions-{split}.jsonl: not the {split} examples of {task.name}. Run it again.")
    how = {**task.decoding, **{key: summary[key] for key in task.decoding if key in summary}}
    pairs = zip(rows, theirs, strict=True)
    scores = [(row, kind.raw(row, task.labels, how), kind.raw(other, task.labels, how)) for row, other in pairs]
    return None if any(part is None for _, *both in scores for part in both) else scores


def _mixed(
    scores: Scores, weight: float, examples: list[dict[str, Any]], task: Any, how: dict[str, Any] | None
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Records of the weighted means, and the decoding settings; `how` None: they are chosen on these examples."""
    raw = [(1 - weight) * ours + weight * theirs for _, ours, theirs in scores]
    if how is None:
        how = {**task.decoding, "both_orders": False, **task.own.choose(raw, examples, task)}
    records = []
    for (row, *_), part, example in zip(scores, raw, examples, strict=True):
        kept = {key: row[key] for key in ("id", "gold", "group", "tokens", "truncated") if key in row}
        records.append({**kept, **task.own.decode(example, [part], task.labels, how, None)})
    return records, how
