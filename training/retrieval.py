"""Score sentence vectors on parallel text, without any training: retrieval of the translation, and mining of pairs.

    python -m training.retrieval CHECKPOINT FILE --columns en,az --out runs/mine/benchmark

FILE has two texts a record, each the other's translation (or any two texts that belong together). Two rows of the table:
NAME-to-COLUMN: for each text of the first column the nearest of all in the second must be its own (accuracy; multiple choice
among all of them). NAME-mining: with the ratio margin of Artetxe & Schwenk 2019 (arXiv 1811.01136, §3.2), which divides a
cosine by the mean of both texts' cosines to their 4 nearest, a pair is found if each text is the other's best; its F1.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.code import code_files
from common.errors import UserError, command
from common.files import digest_of, put_in_place, read_json, write_json, write_jsonl
from common.task_files import read_clean
from model.embeddings import embed, sentence_settings
from model.folder import SUMS, WEIGHTS
from model.store import load_encoder, read_config, resolve_checkpoint
from tasks.scoring import score_predictions
from training.distributed import start
from training.runs import finished

NEAREST = 4  # neighbours of the margin, as in the paper


def read_columns(path: str | Path, columns: tuple[str, str], most: int) -> tuple[list[str], list[str]]:
    """The texts of both columns, the first `most` records whose two texts occur once each. UserError for a missing column.

    A text that occurs twice has two right answers, so its records are left out.
    """
    rows = []
    for line, row in read_clean(path):
        cells = [str(row.get(name) or "").strip() for name in columns]
        if not all(cells):
            raise UserError(
                f"{path}, line {line}: no text under {columns[cells.index('')]}; it has {', '.join(map(str, row))}."
            )
        rows.append(tuple(cells))
    times: tuple[dict[str, int], dict[str, int]] = ({}, {})
    for cells in dict.fromkeys(rows):
        for side, cell in zip(times, cells, strict=True):
            side[cell] = side.get(cell, 0) + 1
    kept = [row for row in dict.fromkeys(rows) if all(side[cell] == 1 for side, cell in zip(times, row, strict=True))][:most]
    if len(kept) < 2:
        raise UserError(f"{path}: fewer than two records with texts of their own. Give more.")
    first, second = zip(*kept, strict=True)
    return list(first), list(second)


def margins(cosines: np.ndarray, nearest: int = NEAREST) -> np.ndarray:
    """The ratio margin [n, m] of cosines [n, m]."""
    count = min(nearest, *cosines.shape)
    rows = np.sort(cosines, axis=1)[:, -count:].mean(1)
    columns = np.sort(cosines, axis=0)[-count:].mean(0)
    return cosines / np.maximum((rows[:, None] + columns[None]) / 2, 1e-9)


def retrieved(cosines: np.ndarray, first: list[str], second: list[str]) -> list[dict[str, Any]]:
    """A record of multiple choice for each text: all texts of the other side are the options. Equal cosines count as wrong."""
    found = []
    for number, row in enumerate(cosines):
        best = np.flatnonzero(row == row.max())
        pred = int(best[0]) if len(best) == 1 or best[0] != number else int(best[1])
        scores = [round(float(value), 4) for value in row]
        shown = {"question": f"{first[number]}\n{second[pred]}"}
        found.append({"id": str(number), "gold": number, "pred": pred, "scores": scores, **shown})
    return found


def mined(cosines: np.ndarray, first: list[str], second: list[str]) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """A record (yes or no) for every pair that is right or found, and precision, recall and F1."""
    values = margins(cosines)
    there, back = values.argmax(1), values.argmax(0)
    pairs = {(i, int(j)) for i, j in enumerate(there) if back[j] == i}
    right = {(i, i) for i in range(len(first))}
    records = [
        {
            "id": f"{i}-{j}",
            "gold": "yes" if i == j else "no",
            "pred": "yes" if (i, j) in pairs else "no",
            "text": f"{first[i]}\n{second[j]}",
        }
        for i, j in sorted(pairs | right)
    ]
    hits = len(pairs & right)
    precision, recall = hits / max(1, len(pairs)), hits / len(right)
    both = {"precision": precision, "recall": recall, "f1": 2 * precision * recall / max(1e-12, precision + recall)}
    return records, both


def write_result(folder: Path, records: list[dict[str, Any]], summary: dict[str, Any]) -> dict[str, Any]:
    """Write one row of the table; returns its summary with the score."""
    task = (summary["kind"], summary["labels"], summary["metric"], summary["positive"])
    scored = score_predictions(records, task[0], *task[1:], full=False)
    beside = folder.with_name(f".{folder.name}.part")
    write_jsonl(beside / "predictions-test.jsonl", records)
    made = summary | {"test_score": scored["score"]}
    write_json(beside / "summary.json", made)
    put_in_place(beside, folder)
    return made


def evaluate(checkpoint: str, path: str, columns: tuple[str, str], options: Any) -> list[dict[str, Any]]:
    """The summaries of the rows: retrieval in both directions, and mining. Complete ones of the same input are kept."""
    folder, out = resolve_checkpoint(checkpoint), Path(options.out)
    first, second = read_columns(path, columns, options.most)
    code = code_files("training.retrieval", rooms=("model", "data", "tasks", "tokenization", "language"))
    digest = digest_of([code, read_json(folder / SUMS)[WEIGHTS], first, second])
    model = (options.name or f"{read_config(folder)[1].get('name') or folder.name}-vectors").replace("/", "_")
    name = Path(path).name.split(".")[0]
    shared = {"status": "done", "model": model, "seed": 0, "deterministic": True, "language": None, "checkpoint": checkpoint}
    shared |= {"trainable_parameters": 0, "train_tokens": 0, "digest": digest}
    choice = {"kind": "choice", "metric": "accuracy", "labels": None, "positive": None}
    yes_or_no = {"kind": "pair", "metric": "f1", "labels": ["no", "yes"], "positive": "yes"}
    tasks = {f"{name}-to-{columns[1]}": choice, f"{name}-to-{columns[0]}": choice, f"{name}-mining": yes_or_no}
    places = {task: out / model / task / "seed-0" for task in tasks}
    before = [finished(place, digest, False, ("test",)) for place in places.values()]
    if all(before):
        return before  # type: ignore[return-value]
    encoder, tokenizer = load_encoder(folder)
    encoder.to(start(options.device).device)
    length = sentence_settings(folder, encoder.config)["max_length"]
    a, b = (embed(encoder, tokenizer, texts, length) for texts in (first, second))
    cosines = (a @ b.T).to(torch.float64).numpy()
    pairs, parts = mined(cosines, first, second)
    found = [retrieved(cosines, first, second), retrieved(cosines.T, second, first), pairs]
    made = []
    for (task, own), records in zip(tasks.items(), found, strict=True):
        more = {"mining": parts} if records is pairs else {}
        summary = shared | own | {"task": task, "examples": {"test": len(records)}, **more}
        made.append(write_result(places[task], records, summary))
    return made


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.retrieval", description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoint", help="checkpoint, run folder, Hugging Face folder or hub://owner/name")
    parser.add_argument("file", help="parallel text: .jsonl, .csv, .tsv or .parquet, two texts a record")
    parser.add_argument("--columns", required=True, help="the two columns, for example en,az")
    parser.add_argument("--out", required=True, help="folder of the results, for example that of a benchmark")
    parser.add_argument("--most", type=int, default=1000, help="records that are used, from the beginning (default 1000)")
    parser.add_argument("--name", help="name of the rows (default: the checkpoint's, with -vectors)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    options = parser.parse_args(arguments)
    columns = tuple(name.strip() for name in options.columns.split(","))
    if len(columns) != 2 or not all(columns) or columns[0] == columns[1]:
        raise UserError(f"--columns {options.columns}: expected two different names, for example en,az.")
    for made in evaluate(options.checkpoint, options.file, columns, options):
        print(f"{made['model']} on {made['task']}: {made['metric']} {100 * made['test_score']:.1f}")


if __name__ == "__main__":
    sys.exit(main())
