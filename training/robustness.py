"""How far fine-tuned models fall on perturbed test items: curves over the share that is changed, and the items they lose.

    python -m training.robustness checkpoint=runs/mine/finetune
    python -m training.robustness checkpoint=[runs/a/finetune,runs/b/finetune] perturbations=[diacritics] shares=[0.5,1]

checkpoint: folders of finetune.py or benchmark.py with save_checkpoint=true; all seeds of a model on a task are one curve.
The perturbations (language/perturbations.py) are those that the pack of the task's language and its kind can have. Nothing
is trained. Written to runs/NAME: report.html, report.json, and <model>-<task>.json, which is kept if nothing has changed.
Settings: conf/robustness.yaml; docs/robustness.md says what the columns mean.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import yaml
from omegaconf import DictConfig

from common.code import code_files
from common.errors import UserError
from common.files import digest_of, read_json, write_json, write_text
from common.html import SORT, origin_of, page
from common.launch import git_state, launch
from common.progress import progress
from common.settings import keys_of, plain
from common.settings import typed as settings_from
from data.features import encode
from evaluation.robustness import Condition, Scoring, curves, lost_items, percent, section
from model.adapters import load_any
from model.decoding import score_and_read, with_gold
from tasks.base import kind_of
from tasks.load import Task, load_task
from tasks.perturbed import changes_of, check_change, perturbed_example
from tasks.settings import TaskSettings
from training.distributed import start
from training.runs import deciding_code
from training.settings import Robustness, settings_of

Place = tuple[Path, dict[str, Any]]  # the folder of a seed and its summary


def fine_tuned(folders: str | Sequence[str]) -> dict[tuple[str, str], list[Place]]:
    """{(model, task): its seeds} of all stored models below `folders`. UserError if there is none.

    Runs without training, and those of training.transfer, are left out.
    """
    wanted = [folders] if isinstance(folders, str) else list(folders)
    found: dict[tuple[str, str], list[Place]] = {}
    seen = set()
    for folder in map(Path, wanted):
        own = [folder / "summary.json"] if folder.name.startswith("seed-") else sorted(folder.glob("**/seed-*/summary.json"))
        for place in (path.parent for path in own if path.exists() and path.parent.resolve() not in seen):
            seen.add(place.resolve())
            summary = read_json(place / "summary.json")
            kept = (place / "checkpoint").exists() or (place / "adapter").exists()
            if kept and not summary.get("deterministic") and "trained_on" not in summary:
                found.setdefault((summary["model"], summary["task"]), []).append((place, summary))
    if not found:
        raise UserError(f"checkpoint={folders}: no fine-tuned model there. Run finetune.py with save_checkpoint=true first.")
    return found


def task_of(place: Path, summary: dict[str, Any]) -> Task:
    """The task that the run in `place` was fine-tuned on, as its config.yaml names it, in the language of its summary."""
    config = yaml.safe_load((place / "config.yaml").read_text(encoding="utf-8"))["task"]
    known = {name: value for name, value in config.items() if name in keys_of(TaskSettings)}  # keys that this version has
    settings = settings_from(TaskSettings, known, "task")
    task = load_task(replace(settings, language=summary.get("language") or settings.language))
    return replace(task, labels=summary.get("labels"), positive=summary.get("positive"))


def words_changed(before: Sequence[dict[str, Any]], after: Sequence[dict[str, Any]], kind: str) -> float:
    """The share of the words of `before` that `after` does not have."""
    total = lost = 0
    for old, new in zip(before, after, strict=True):
        words, kept = (Counter(" ".join(kind_of(kind).texts(example)).split()) for example in (old, new))
        total += words.total()
        lost += (words - kept).total()
    return lost / max(1, total)


def measure(places: Sequence[Place], task: Task, settings: Robustness, device: torch.device) -> dict[str, Any]:
    """The curves of one model on one task, and the items that it loses. Raises UserError for a perturbation it cannot have."""
    if settings.perturbations:
        for name in settings.perturbations:
            check_change(name, task.kind, task.language)
    elif task.language is None:
        raise UserError(f"{task.name}: the language of its texts is not known. Name it in the task's file: task.language.")
    names = settings.perturbations or changes_of(task.kind, task.language)
    if not names:
        raise UserError(f"{task.name}: no perturbation changes the texts of {task.kind}. Leave this task out.")
    tests: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for name in names:
        for share in sorted(settings.shares):
            own = [perturbed_example(example, name, share, task.language, settings.seed) for example in task.test]
            tests[name, share] = own
    runs: dict[tuple[str, float] | None, list[list[dict[str, Any]]]] = {key: [] for key in (None, *tests)}
    for place, _ in progress(places, desc=f"{task.name}", unit="model"):
        model, tokenizer, known = load_any(place)
        model.to(device)
        for key, examples in ((None, task.test), *tests.items()):
            overlap = known.get("window_overlap_tokens")
            encoded = encode(examples, task.kind, tokenizer, known["labels"], known["max_length"], overlap)
            read = score_and_read(model, examples, encoded, known["labels"], known, settings.batch_tokens)
            runs[key].append(with_gold(read, examples, task.kind))
    scoring = Scoring(task.own, task.labels, task.metric, task.positive)
    clean = runs.pop(None)
    conditions = [
        Condition(*key, words_changed(task.test, tests[key], task.kind), own) for key, own in runs.items() if key is not None
    ]
    largest = [condition for condition in conditions if condition.share == max(settings.shares)]
    lost = [item for condition in largest for item in lost_items(clean, condition, scoring, settings.worst)]
    return {"metric": task.metric, **curves(clean, conditions, scoring), "lost": lost}


def robustness(config: DictConfig) -> int:
    """Measure all models, write the report; returns the exit code."""
    settings = settings_of(config, Robustness)
    if not settings.shares or not all(0 < share <= 1 for share in settings.shares):
        raise UserError(f"shares={settings.shares}: expected numbers above 0 and at most 1, e.g. [0.25,0.5,0.75,1].")
    out, found = Path(settings.run_dir), fine_tuned(settings.checkpoint)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    device = start(settings.device).device
    results = []
    for (model, name), places in found.items():
        task = task_of(*places[0])
        path = out / f"{model}-{name}.json"
        code = [code_files("training.robustness", rooms=("evaluation", "model", "data", "tasks", "tokenization", "language"))]
        asked = [settings.perturbations, settings.shares, settings.seed, settings.worst]
        digest = digest_of([code, deciding_code(), [s["digest"] for _, s in places], task.digest, task.metric, *asked])
        result = read_json(path) if path.exists() else {}
        if result.get("digest") != digest:
            named = {"model": model, "task": name, "digest": digest, "settings": plain(settings)}
            result = named | measure(places, task, settings, device)
            write_json(path, result)
        results.append(result)
        print(f"{model} on {name}: {result['metric']} {percent(result['clean']['score'])}, {result['seeds']} seeds")
        for point in (point for point in result["points"] if point["share"] == max(settings.shares)):
            kept = f"{percent(point['score']):>6} ({percent(point['kept'])} % kept, "
            print(f"  {point['perturbation']:<18}{kept}{percent(point['words_changed'])} % of the words changed)")
    write_json(out / "report.json", {"results": results})
    state = git_state()
    sections = [(f"r{n}", f"{r['model']} on {r['task']}", section(r)) for n, r in enumerate(results)]
    lead = "<p>Fine-tuned models on test items that are typed otherwise; nothing is trained.</p>"
    write_text(out / "report.html", page("Robustness", lead, sections, "", SORT, origin_of(state["commit"], state["changed"])))
    print(out / "report.html")
    return 0


if __name__ == "__main__":
    launch(robustness, "robustness", Robustness)
