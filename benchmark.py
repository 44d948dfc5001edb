"""Fine-tune models x tasks x seeds and make the report of them.

    python benchmark.py                                  the demo: six tasks, pre-trained against not, two seeds
    python benchmark.py tasks=[topic,ner] seeds=[0,1,2]
    python benchmark.py 'models=[{name: mine, checkpoint: runs/mine/pretrain, scratch: false}]' out=runs/mine/table
    python benchmark.py seeds=auto 'tuning={lr: [1e-5, 2e-5, 3e-5, 5e-5, 8e-5], seeds: [100, 101]}'
    python benchmark.py -m launcher=slurm 'tasks=[topic],[ner],[qa]'       one job a task; then the same without -m

Started again after any interruption it runs what is not finished (same config, data and weights) and nothing else. A run
that fails is written down beside its task and the others go on; the exit code is 1 then. Recipe, device and precision
are those of finetune.py. The test items are looked for in the experiment's own corpus (overlap.jsonl), so that the table
has scores on the clean part too. The report comes from files alone: python -m evaluation.report makes it anew, or over
several folders.
"""

import itertools
import os
import shutil
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from common.errors import UserError
from common.files import digest_of, read_json, write_json
from common.launch import launch, resolved
from evaluation.baselines import BASELINES, write_baseline
from evaluation.frequency import write_frequencies
from evaluation.leakage import write_overlaps
from evaluation.report import build_report
from finetune import Diverged, check_seeds, prepare_machine, run_seed
from train import train
from training.entries import check_models, filled, is_pretrained_here, places_of, pretraining_config, pretraining_keys
from training.finetuning import (
    READ,
    Data,
    Start,
    check_recipe,
    prepare_data,
    read_start,
    refuse_unread,
    run_digest,
    seeds_for,
    settings_for,
    with_recipe,
    write_inputs,
)
from training.zero_shot import zero_shot

KEYS = (*READ, "models", "baselines", "tasks", "tuning", "report", "corpus_dir")


def benchmark(config: DictConfig) -> int:
    """All runs that are not finished, then the report; returns the exit code."""
    more = pretraining_keys()[0] if any("pretrain" in model for model in config.models or [] if model) else ()
    read = (*(key for key in KEYS if key not in ("task", "checkpoint", "model_name", "scratch")), *more)
    refuse_unread(read, "benchmark.py")
    named = (*KEYS, "start_from")  # which an entry of models may name
    whole = resolved(OmegaConf.masked_copy(config, [key for key in named if key in config and key != "task"]))
    device = prepare_machine(whole)
    wanted, out = check_seeds(whole["seeds"]), Path(whole["out"])
    check_models(whole["models"], whole["tuning"])
    if not whole["tasks"]:
        raise UserError("tasks: none given. Name files of conf/task, e.g. tasks=[topic,ner].")

    # Everything is read and checked before the first run, so that a mistake in the last task does not cost the night.
    plans = [settings_for(config, task) for task in OmegaConf.to_container(config.tasks, resolve=True)]
    recipes = [[with_recipe(settings, model.get("recipe") or {}) for model in whole["models"]] for settings in plans]
    for model in filter(is_pretrained_here, whole["models"]):
        pretraining_config(config, model)
    models = pretrain(config, whole["models"])
    starts = [read_start(model["checkpoint"], model["name"], model.get("scratch", False)) for model in models]
    cache: dict[Any, Any] = {}  # examples, and token ids by tokenizer, shared by all models and seeds
    data = [[prepare_data(settings, start, cache) for settings in plans] for start in starts]
    names = [part.task.name for part in data[0]]
    if len(set(names)) < len(names):
        raise UserError(f"tasks: two have the same name ({', '.join(names)}). Set name in each.")
    known = {name for names in BASELINES.values() for name in names}
    if unknown := [name for name in whole["baselines"] if name not in known]:
        raise UserError(f"baselines: {unknown[0]} is not one of {', '.join(sorted(known))}.")
    seeds = {part.task.name: seeds_for(wanted, part) for part in data[0]}
    trials = check_tuning(whole["tuning"], plans, sorted({seed for own in seeds.values() for seed in own}))
    for part in data[0]:
        write_inputs(out, part.task)
        write_frequencies(out, part.task)
    for note in dict.fromkeys(f"{part.task.name}: {note}" for row in data for part in row for note in part.notes):
        print(note)

    # ---- the runs ---------------------------------------------------------------------------------------------------
    folders: list[Path] = []
    failed: list[str] = []
    baselines = [(name, part.task) for name in whole["baselines"] for part in data[0] if name in BASELINES[part.task.kind]]
    tuned = len(trials) * len(whole["tuning"]["seeds"]) if trials else 0
    total = len(baselines) + len(starts) * sum(len(seeds[name]) for name in names)
    bar = tqdm(total=total + len(starts) * len(plans) * tuned, desc="benchmark", unit="run", disable=None)
    reused = 0
    for name, task in baselines:
        bar.set_postfix_str(f"{name} on {task.name}")
        folder, again = baseline(out, name, task)
        folders.append(folder)
        reused += again
        bar.update()
    shown: set[str] = set()  # weights that several entries start from have one row without training
    for start, row in zip(starts, data, strict=True):
        for part in row if start.identity not in shown else ():
            if summary := zero_shot(start, part, 2 * plans[0]["recipe"]["max_tokens"], device, out):
                folders.append(Path(summary["folder"]))
                total += 1
                reused += bool(summary.get("reused"))
        shown.add(start.identity)
    for own, column in zip(recipes, zip(*data, strict=True), strict=True):
        for settings, start, part in zip(own, starts, column, strict=True):
            place = out / start.name / part.task.name
            chosen = settings
            if not trials:  # of an earlier start with a grid; its runs stay, so that it can be had again at once
                (place / "tuning.json").unlink(missing_ok=True)
            else:
                try:
                    chosen = tune(settings, trials, whole["tuning"]["seeds"], start, part, device, out, bar)
                except Exception as error:
                    failed.append(set_down(place / "failed-tuning.json", f"{start.name} on {part.task.name}, tuning", error))
                    bar.update(len(seeds[part.task.name]))
                    continue
                (place / "failed-tuning.json").unlink(missing_ok=True)
            for seed in seeds[part.task.name]:
                bar.set_postfix_str(f"{start.name} on {part.task.name}, seed {seed}")
                trouble = place / f"failed-{seed}.json"
                try:
                    summary = run_seed(chosen, start, part, seed, device, out)
                except Exception as error:  # one bad run must not cost the others; the report marks what is missing
                    failed.append(set_down(trouble, f"{start.name} on {part.task.name}, seed {seed}", error))
                else:
                    trouble.unlink(missing_ok=True)
                    keep_tuning(summary, chosen.get("tuned"))
                    folders.append(Path(summary["folder"]))
                    reused += bool(summary.get("reused"))
                bar.update()
    bar.close()
    print(f"benchmark: {total} runs in {out}, {total - reused - len(failed)} made now, {reused} done already")
    if failed:
        print(f"{len(failed)} failed (each has a failed-*.json beside its task):", *failed, sep="\n  ", file=sys.stderr)

    # ---- the report -------------------------------------------------------------------------------------------------
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        print("no report from one job of a sweep: when all are done, start the same command without -m, for all tasks")
        return 1 if failed else 0
    report = whole["report"]
    pretraining, corpus = (Path(path) if path else None for path in (report["pretraining"], report["corpus"]))
    if pretraining and not (pretraining / "metrics.jsonl").exists():
        print(f"report: no metrics.jsonl in {pretraining}, so no curves of pre-training")
        pretraining = None
    if corpus and not corpus.exists():
        print(f"report: {corpus} is not there, so no page on the corpus")
        corpus = None
    overlap = leaked(out, names, report["overlap"])
    if folders:
        print(build_report(folders, out, pretraining, corpus, report["title"], overlap=overlap))
        print(f"\n{out / 'report.html'} (and report.md, report.csv, report.tex)")
    return 1 if failed else 0


def leaked(out: Path, names: list[str], corpus: str | None) -> Path | None:
    """The file that says how much of each test item the pre-training corpus holds; None where there is no corpus."""
    if not corpus or not Path(corpus).exists():
        if corpus:
            print(f"report: {corpus} is not there, so no check of leakage")
        return None
    files = [out / "inputs" / f"{name}-test.jsonl" for name in names]
    workers = min(8, os.cpu_count() or 1) if sum(f.stat().st_size for f in Path(corpus).rglob("*.jsonl.gz")) > 1 << 28 else 1
    try:
        lines = write_overlaps(files, corpus, out / "overlap.jsonl", workers=workers)
    except UserError as error:
        print(f"report: no check of leakage ({error})", file=sys.stderr)
        return None
    print("overlap with the corpus:", *lines, sep="\n  ")
    return out / "overlap.jsonl"


def pretrain(config: DictConfig, models: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pre-train the entries that say how, in the order listed; all entries, each with its checkpoint."""
    places = places_of(config.workdir, models)
    for model in models:
        if is_pretrained_here(model):
            print(f"benchmark: pre-training of {model['name']}")
            if code := train(pretraining_config(config, filled(model, places))):
                sys.exit(code)
    return [{**filled(model, places), "checkpoint": places[model["name"]]} for model in models]


def set_down(path: Path, what: str, error: Exception) -> str:
    """Write a failure where it can be found later; returns the line for the terminal."""
    trace = "".join(traceback.format_exception(error))
    write_json(path, {"run": what, "error": f"{type(error).__name__}: {error}", "traceback": trace})
    return f"{what}: {type(error).__name__}: {error}"


def baseline(out: Path, name: str, task: Any) -> tuple[Path, bool]:
    """One baseline on one task, and whether it was there already for the same examples."""
    folder = out / name / task.name / "seed-0"
    digest = digest_of([name, task.digest, task.metric, task.positive])
    if (folder / "digest.json").exists() and read_json(folder / "digest.json") == digest and (folder / "summary.json").exists():
        return folder, True
    (folder / "digest.json").unlink(missing_ok=True)
    write_baseline(out, name, task)
    write_json(folder / "digest.json", digest)
    return folder, False


# ---------------------------------------------------------------- tuning: the same grid and seeds for every model and task


def check_tuning(tuning: Any, plans: list[dict[str, Any]], final: list[int]) -> list[dict[str, Any]]:
    """Every combination of the grid {recipe key: [values], ..., seeds: [...]}; [] without one. UserError for what cannot be.

    The seeds must not be among the final ones: a rate chosen for its luck with a seed would then be scored on that luck.
    """
    if not tuning:
        return []
    grid = {key: values for key, values in tuning.items() if key != "seeds"}
    seeds = check_seeds(tuning.get("seeds"), "tuning.seeds")
    if seeds == "auto" or not grid:
        raise UserError(f"tuning={tuning}: expected a grid and seeds, e.g. {{lr: [2e-5, 5e-5], seeds: [100, 101]}}.")
    if shared := sorted(set(seeds) & set(final)):
        raise UserError(f"tuning.seeds={seeds}: {shared[0]} is also a final seed. Choose others, e.g. [100, 101].")
    for key, values in grid.items():
        unknown = [plan["task"]["name"] for plan in plans if key not in plan["recipe"]]
        if unknown or not isinstance(values, list) or not values or len({str(value) for value in values}) < len(values):
            raise UserError(f"tuning.{key}={values}: expected a key of recipe with a list of different values.")
    trials = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for trial in trials:
        check_recipe(trial)
    return trials


def tune(settings: dict[str, Any], trials: list[dict[str, Any]], seeds: list[int], start: Start, data: Data,
         device: torch.device, out: Path, bar: Any) -> dict[str, Any]:  # fmt: skip
    """`settings` with the trial of the best mean dev score, and under "tuned" how it was found.

    Every trial runs on every seed, each in <model>/<task>/tuning/, resumable like any run; the test split is not read. A
    trial that diverges counts as one without a score. tuning.json beside it holds grid, seeds, runs, hours, the dev scores
    (in the order of the seeds; null where it diverged) and the choice. Ties go to the lower dev loss.
    """
    place = out / start.name / data.task.name
    scores: dict[str, list[float | None]] = {}
    ranks, hours = [], 0.0
    for trial in trials:
        label = ",".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in trial.items())
        tried = {**settings, "recipe": {**settings["recipe"], **trial}}
        found, losses = [], []
        for seed in seeds:
            bar.set_postfix_str(f"{start.name} on {data.task.name}, tuning {label}, seed {seed}")
            folder = f"{label},seed={seed}"
            note = place / "tuning" / f"{folder}.diverged.json"
            digest = run_digest(tried, start, data, seed)
            if note.exists() and read_json(note)["digest"] == digest:
                found.append(None)
            else:
                note.unlink(missing_ok=True)
                try:
                    summary = run_seed(tried, start, data, seed, device, out, trial=folder)
                    found.append(summary["dev_score"])
                    losses.append(summary["dev_loss"])
                    hours += summary["hours"]
                except Diverged as error:
                    shutil.rmtree(note.with_name(f".{folder}.part"), ignore_errors=True)
                    write_json(note, {"digest": digest, "error": str(error)})
                    found.append(None)
            bar.update()
        scores[label] = found
        if None not in found:
            ranks.append((sum(found) / len(found), -sum(losses) / len(losses), -len(ranks), trial))
    if not ranks:
        raise UserError(f"{start.name} on {data.task.name}: every setting of the grid diverged. Lower the rates in tuning.lr.")
    grid = {key: list(dict.fromkeys(trial[key] for trial in trials)) for key in trials[0]}
    chosen = max(ranks, key=lambda rank: rank[:3])[3]
    tuned = {"grid": grid, "seeds": seeds, "runs": len(trials) * len(seeds), "hours": hours, "chosen": chosen, "scores": scores}
    write_json(place / "tuning.json", tuned)
    return {**settings, "recipe": {**settings["recipe"], **chosen}, "tuned": tuned}


def keep_tuning(summary: dict[str, Any], tuned: dict[str, Any] | None) -> None:
    """A run made before under another grid that chose the same is as good, but its summary has to tell of this grid."""
    path = Path(summary["folder"]) / "summary.json"
    if summary.get("reused") and summary.get("tuning") != tuned:
        write_json(path, {**read_json(path), "tuning": tuned})


if __name__ == "__main__":
    launch(benchmark, "benchmark")
