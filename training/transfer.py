"""Fine-tuned models on other test items, without training: another language or domain, or their own items typed otherwise.

    python -m training.transfer RUNS --out OUT --task ner --test tr=FILE --test kk=FILE
    python -m training.transfer RUNS --out OUT --typed ascii:0.25 --typed ascii --typed cyrillic
    python -m evaluation.report RUNS OUT

RUNS: folders of benchmark.py or finetune.py made with save_checkpoint=true. Each of their seeds is asked once more and
leaves OUT/<model>/<task>-<name>/seed-<n>/ with predictions, which the report takes as one more task: the same labels, the
same way to read scores, no dev set to choose by. --typed NAME:SHARE writes that share of the letters another way (all
without a share); gold answers are retyped with their text. What is there already for the same items and weights stays.
"""

import argparse
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from tqdm import tqdm

from common.errors import UserError, command
from common.files import digest_of, put_in_place, read_json, write_json, write_jsonl
from corpus.spellings import ascii_typed, digraphs, e_typed, spelled_1991, to_cyrillic
from data.features import encode, swapped
from data.splits import group_name, leakage_group
from data.task_records import load_task_file
from data.tasks import Task, find_file, load_task
from evaluation.metrics import score_predictions
from model.adapters import load_any
from model.decoding import predictions, score_rows, with_gold
from training.finetuning import VERSION, finished, write_inputs

TYPED: dict[str, Callable[[str], str]] = {
    "ascii": ascii_typed, "e": e_typed, "digraphs": digraphs, "1991": spelled_1991, "cyrillic": to_cyrillic,
}  # fmt: skip
MAX_TOKENS = 16384  # of one forward pass


def retyped(text: str, way: str, share: float) -> list[str]:
    """What each letter of `text` is typed as, [len(text)]; drawn from the text alone, so that equal texts stay equal."""
    draw = random.Random(text)
    return [TYPED[way](letter) if share >= 1 or draw.random() < share else letter for letter in text]


def retyped_example(example: dict[str, Any], way: str, share: float) -> dict[str, Any]:
    """A test example typed otherwise; answers are what their letters in the context have become."""

    def one(text: str) -> str:
        return "".join(retyped(text, way, share))

    new = {**example, **{key: one(example[key]) for key in ("text", "text_b", "question", "context") if key in example}}
    new |= {key: [one(part) for part in example[key]] for key in ("options", "words") if key in example}
    if "answers" in example:
        letters = retyped(example["context"], way, share)
        new["answers"] = [
            {"text": one(answer["text"]), "start": -1} if (start := answer["start"]) < 0 else
            {"text": "".join(letters[start : start + len(answer["text"])]), "start": len("".join(letters[:start]))}
            for answer in example["answers"]
        ]  # fmt: skip
    return new


def other_tasks(config: dict[str, Any], summary: dict[str, Any], tests: dict[str, str], typed: Sequence[str]) -> list[Task]:
    """The tasks to ask about instead of a run's own, each with a test split alone. `config`: the run's task."""
    kind, found = summary["kind"], []

    def task(name: str, **parts: Any) -> Task:
        labels, positive = summary.get("labels"), summary.get("positive")
        return Task(f"{summary['task']}-{name}", kind, summary["metric"], labels, positive, **parts)

    for name, path in tests.items():
        file = find_file(path)
        columns, starts = config.get("columns"), config.get("no_answer_start") or (-1,)
        loaded = load_task_file(file, kind, columns, summary.get("labels"), "test", no_answer_start=starts)
        if kind == "qa":
            for example in loaded.examples:
                example.setdefault("group", group_name(leakage_group(example, kind)))
        listed = [[{"split": "test", **row} for row in rows] for rows in (loaded.skipped, loaded.noted)]
        found.append(task(name, test=loaded.examples, skipped=listed[0], noted=listed[1]))
    own = load_task(config).test if typed else []
    for word in typed:
        way, share = _typed(word)
        found.append(task(word.replace(":", "-"), test=[retyped_example(example, way, share) for example in own]))
    return found


def _typed(word: str) -> tuple[str, float]:
    way, _, share = word.partition(":")
    try:
        number = float(share or 1)
    except ValueError:
        number = -1.0
    if way not in TYPED or not 0 <= number <= 1:
        raise UserError(f"--typed {word}: expected {', '.join(TYPED)}, alone or with a share, e.g. ascii:0.5.")
    return way, number


def ask(place: Path, summary: dict[str, Any], tasks: Sequence[Task], out: Path, device: torch.device) -> list[dict[str, Any]]:
    """Write the predictions of the fine-tuned model in `place` on the test split of each task; returns their summaries."""
    loaded, found = None, []
    for task in tasks:
        folder = out / summary["model"] / task.name / f"seed-{summary['seed']}"
        digest = digest_of([VERSION, summary["digest"], task.digest, task.metric])
        if (before := finished(folder, digest, False, ("test",))) is not None:
            found.append(before)
            continue
        clock, beside = time.time(), folder.with_name(f".{folder.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        model, tokenizer, known = loaded = loaded or load_any(place)
        model.to(device)
        labels, overlap, valid = known["labels"], known.get("window_overlap_tokens"), bool(known.get("valid_tags"))
        encoded = encode(task.test, task.kind, tokenizer, labels, known["max_length"], overlap)
        scores, _ = score_rows(model, encoded, MAX_TOKENS)
        other = score_rows(model, swapped(encoded), MAX_TOKENS)[0] if known.get("both_orders") else None
        read = predictions(task.test, encoded, scores, labels, known["allow_no_answer"], valid, other)
        records = with_gold(read, task.test, task.kind)
        scored = score_predictions(records, task.kind, task.labels, task.metric, task.positive, full=False)
        write_jsonl(beside / "predictions-test.jsonl", records)
        made = {
            "status": "done", "model": summary["model"], "task": task.name, "trained_on": summary["task"], "kind": task.kind,
            "seed": summary["seed"], "metric": task.metric, "labels": task.labels, "positive": task.positive,
            "both_orders": other is not None, "valid_tags": valid, "test_score": scored["score"], "notes": encoded.notes,
            "hours": (time.time() - clock) / 3600, "examples": {"test": len(task.test)}, "digest": digest,
        }  # fmt: skip
        write_json(beside / "summary.json", made)
        put_in_place(beside, folder)
        found.append(made)
    return found


def transfer(folders: Sequence[str], out: Path, tests: dict[str, str], typed: Sequence[str], wanted: str | None,
             device: torch.device) -> list[str]:  # fmt: skip
    """Ask every kept model below `folders`; returns a line for each. Raises UserError where there is none, or no test."""
    if not tests and not typed:
        raise UserError("nothing to ask: give --test NAME=FILE or --typed ascii.")
    places = sorted(path.parent for folder in folders for path in Path(folder).glob("**/seed-*/summary.json"))
    runs = [(place, read_json(place / "summary.json")) for place in places]
    runs = [
        (place, s) for place, s in runs if not s.get("deterministic") and "trained_on" not in s and wanted in (None, s["task"])
    ]
    kept = [(place, s) for place, s in runs if (place / "checkpoint").exists() or (place / "adapter").exists()]
    names = sorted({summary["task"] for _, summary in kept})
    if not kept:
        raise UserError(f"{', '.join(folders)}: {len(runs)} runs, none with its model. Run them with save_checkpoint=true.")
    if tests and len(names) > 1:
        raise UserError(f"--test: there are {', '.join(names)}. Say with --task which of them the file is for.")
    lines, made = [], {}
    for place, summary in tqdm(kept, desc="asking", unit="model", disable=None):
        config = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))["task"]
        key = digest_of([summary["task"], summary.get("labels"), {k: v for k, v in config.items() if k != "recipe"}])
        if key not in made:
            made[key] = other_tasks(config, summary, tests, typed)
            for task in made[key]:
                write_inputs(out, task)
                lines += [f"{task.name}: {len(task.test)} items, {len(task.skipped)} set aside"]
        for new in ask(place, summary, made[key], out, device):
            lines.append(f"{new['model']} on {new['task']}, seed {new['seed']}: {new['metric']} {100 * new['test_score']:.1f}")
    return lines


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.transfer", description=__doc__.split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", help="folders of benchmark.py or finetune.py, made with save_checkpoint=true")
    parser.add_argument("--out", required=True, help="folder of the new predictions")
    parser.add_argument("--task", help="only the runs of this task")
    parser.add_argument("--test", action="append", default=[], metavar="NAME=FILE", help="a test file with the same labels")
    parser.add_argument("--typed", action="append", default=[], metavar="WAY[:SHARE]", help=f"{', '.join(TYPED)}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    if odd := [word for word in options.test if "=" not in word.strip("=")]:
        raise UserError(f"--test {odd[0]}: expected NAME=FILE.")
    tests = dict(word.split("=", 1) for word in options.test)
    lines = transfer(options.runs, Path(options.out), tests, options.typed, options.task, torch.device(options.device))
    print(*lines, f"python -m evaluation.report {' '.join(options.runs)} {options.out}", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
