"""Fine-tuned models on other test items, without training: another language or domain, or their items in other spellings.

    python -m training.transfer RUNS --out OUT --task ner --test tr=FILE --test kk=FILE
    python -m training.transfer RUNS --out OUT --typed ascii:0.25 --typed ascii --typed cyrillic
    python -m evaluation.report RUNS OUT

RUNS: folders of benchmark.py or finetune.py made with save_checkpoint=true. Each of their seeds predicts the new items and
writes OUT/<model>/<task>-<name>/seed-<n>/ with predictions, which the report shows as another task: the same labels, the
same decoding, no dev set. If NAME is a language or its code, FILE is in that language, otherwise in that of the run's task.
--typed WAY:SHARE retypes that share of the letters (all of them without a share) in a way that the language's pack has; gold
answers are retyped with their text. Existing predictions for the same items and weights are kept.
"""

import argparse
import itertools
import random
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml

from common.errors import UserError, command
from common.files import digest_of, put_in_place, read_json, write_json, write_jsonl
from common.progress import progress
from common.settings import keys_of
from common.settings import typed as settings_from
from data.features import encode
from evaluation.results import DECODING
from language.base import Language, load_language, packs
from model.adapters import load_any
from model.decoding import score_and_read, with_gold
from tasks.base import kind_of
from tasks.load import Task, find_file, load_task
from tasks.perturbed import changed_example
from tasks.records import load_task_file
from tasks.scoring import score_predictions
from tasks.settings import TaskSettings
from tasks.splits import group_name, leakage_group
from training.runs import deciding_code, finished, write_inputs

MAX_TOKENS = 16384  # of one forward pass


def retyped(text: str, way: Callable[[str], str], share: float) -> list[str]:
    """The replacement of each letter of `text`, [len(text)]; drawn from the text alone, so that equal texts stay equal."""
    draw = random.Random(text)
    return [way(letter) if share >= 1 or draw.random() < share else letter for letter in text]


def retyped_example(example: dict[str, Any], way: Callable[[str], str], share: float) -> dict[str, Any]:
    """A test example in another spelling; answers follow their letters in the context."""

    def change(text: str, borders: Sequence[int]) -> list[str]:
        letters, edges = retyped(text, way, share), [0, *borders, len(text)]
        return ["".join(letters[begin:end]) for begin, end in itertools.pairwise(edges)]

    return changed_example(example, change)


def other_tasks(settings: TaskSettings, summary: dict[str, Any], tests: dict[str, str], typed: Sequence[str]) -> list[Task]:
    """The tasks to predict instead of a run's own, each with only a test split. `settings`: those of the run's task."""
    kind, found = summary["kind"], []
    said = summary.get("language") or settings.language
    own_language = load_language(said) if said else None

    def task(name: str, language: Language | None, **parts: Any) -> Task:
        labels, positive = summary.get("labels"), summary.get("positive")
        return Task(f"{summary['task']}-{name}", kind, summary["metric"], labels, positive, language=language, **parts)

    for name, path in tests.items():
        file = find_file(path)
        language = load_language(name) if any(name in (own, *codes) for own, codes in packs().items()) else own_language
        known = language and language.name
        as_trained = replace(settings, labels=summary.get("labels"), language=known, language_only=False)
        loaded = load_task_file(file, kind, as_trained, "test")
        if kind_of(kind).group_by_text:
            for example in loaded.examples:
                example.setdefault("group", group_name(leakage_group(example, kind)))
        listed = [[{"split": "test", **row} for row in rows] for rows in (loaded.skipped, loaded.noted)]
        found.append(task(name, language, test=loaded.examples, skipped=listed[0], noted=listed[1]))
    examples = load_task(replace(settings, language=said)).test if typed else []
    for word in typed:
        way, share = typing_of(word, own_language)
        found.append(
            task(word.replace(":", "-"), own_language, test=[retyped_example(example, way, share) for example in examples])
        )
    return found


def typing_of(word: str, language: Language | None) -> tuple[Callable[[str], str], float]:
    """The way of typing and the share of the letters in --typed WAY[:SHARE]. Raises UserError for others."""
    way, _, share = word.partition(":")
    ways = language.typings if language else {}
    try:
        number = float(share or 1)
    except ValueError:
        number = -1.0
    if not ways:
        whose = f"the pack of {language.name} has no typings" if language else "the run's summary.json names no language"
        raise UserError(f"--typed {word}: {whose}, so no other way of typing is known. Leave --typed out.")
    if way not in ways or not 0 <= number <= 1:
        raise UserError(f"--typed {word}: expected {', '.join(ways)}, alone or with a share, e.g. {next(iter(ways))}:0.5.")
    return ways[way], number


def ask(place: Path, summary: dict[str, Any], tasks: Sequence[Task], out: Path, device: torch.device) -> list[dict[str, Any]]:
    """Write the predictions of the fine-tuned model in `place` on the test split of each task; returns their summaries."""
    loaded, found = None, []
    for task in tasks:
        folder = out / summary["model"] / task.name / f"seed-{summary['seed']}"
        digest = digest_of([deciding_code(), summary["digest"], task.digest, task.metric])
        if (before := finished(folder, digest, False, ("test",))) is not None:
            found.append(before)
            continue
        clock, beside = time.time(), folder.with_name(f".{folder.name}.part")
        shutil.rmtree(beside, ignore_errors=True)
        model, tokenizer, known = loaded = loaded or load_any(place)
        model.to(device)
        labels, overlap = known["labels"], known.get("window_overlap_tokens")
        encoded = encode(task.test, task.kind, tokenizer, labels, known["max_length"], overlap)
        read = score_and_read(model, task.test, encoded, labels, known, MAX_TOKENS)
        records = with_gold(read, task.test, task.kind)
        scored = score_predictions(records, task.own, task.labels, task.metric, task.positive, full=False)
        write_jsonl(beside / "predictions-test.jsonl", records)
        made = {
            "status": "done",
            "model": summary["model"],
            "task": task.name,
            "trained_on": summary["task"],
            "kind": task.kind,
            "seed": summary["seed"],
            "metric": task.metric,
            "labels": task.labels,
            "positive": task.positive,
            "language": task.language and task.language.name,
            **{key: known[key] for key in DECODING if key in known},
            "test_score": scored["score"],
            "notes": encoded.notes,
            "hours": (time.time() - clock) / 3600,
            "examples": {"test": len(task.test)},
            "digest": digest,
        }
        write_json(beside / "summary.json", made)
        put_in_place(beside, folder)
        found.append(made)
    return found


def transfer(
    folders: Sequence[str], out: Path, tests: dict[str, str], typed: Sequence[str], wanted: str | None, device: torch.device
) -> list[str]:
    """Predict with every stored model below `folders`; returns a line for each. UserError without models or tests."""
    if not tests and not typed:
        raise UserError("nothing to predict: give --test NAME=FILE or --typed ascii.")
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
    for place, summary in progress(kept, desc="asking", unit="model"):
        config = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))["task"]
        key = digest_of([summary["task"], summary.get("labels"), {k: v for k, v in config.items() if k != "recipe"}])
        if key not in made:
            # Keys that this version has.
            known = {name: value for name, value in config.items() if name in keys_of(TaskSettings)}
            made[key] = other_tasks(settings_from(TaskSettings, known, "task"), summary, tests, typed)
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
    parser.add_argument("--typed", action="append", default=[], metavar="WAY[:SHARE]", help="of the language's pack: ascii ...")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args(arguments)
    if odd := [word for word in options.test if "=" not in word.strip("=")]:
        raise UserError(f"--test {odd[0]}: expected NAME=FILE.")
    tests = dict(word.split("=", 1) for word in options.test)
    lines = transfer(options.runs, Path(options.out), tests, options.typed, options.task, torch.device(options.device))
    print(*lines, f"python -m evaluation.report {' '.join(options.runs)} {options.out}", sep="\n")


if __name__ == "__main__":
    sys.exit(main())
