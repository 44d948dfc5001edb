"""Fine-tune models x tasks x seeds and report the scores.

    python benchmark.py experiment=demo                  eight small tasks, pre-trained against not, three seeds
    python benchmark.py tasks=[topic,ner] seeds=[0,1,2]
    python benchmark.py 'models=[{name: mine, checkpoint: runs/mine/pretrain, scratch: false}]' out=runs/mine/table
    python benchmark.py seeds=auto 'tuning={lr: [1e-5, 2e-5, 3e-5, 5e-5, 8e-5], seeds: [100, 101]}'
    python benchmark.py 'baselines=[majority,tfidf]' 'stack=[tfidf]'     also every model's scores mixed with TF-IDF's
    python benchmark.py experiment=transfer            train on one language, test on the others (training/transfer_matrix.py)
    python benchmark.py -m launcher=slurm 'tasks=[topic],[ner],[qa]'       one job a task; then the same without -m

Started again after an interruption it only runs what is not complete (same config, data, weights and code). A failed run is
recorded beside its task and the others go on; the exit code is then 1. Recipe, device and precision are those of finetune.py.
The test items are searched in the experiment's own corpus (overlap.jsonl), so that the table also has scores on the clean
part. The report depends only on files: python -m evaluation.report creates it again, also over several folders.
"""

import os
import sys
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from common.code import code_files
from common.errors import UserError
from common.files import digest_of, read_json, write_json
from common.launch import launch, resolved
from common.locks import hold
from common.progress import progress
from common.settings import typed
from evaluation.baselines import write_baseline
from evaluation.frequency import write_frequencies
from evaluation.leakage import write_overlaps
from evaluation.report import build_report
from evaluation.stacking import write_stack
from language.base import one_language
from tasks.base import kind_of, known_kinds
from tasks.settings import TaskSettings
from train import train
from training.augmentation import check_augment
from training.cloze import cloze
from training.defaults import with_defaults
from training.distributed import only_device
from training.entries import check_models, filled, is_pretrained_here, places_of, pretraining_config, pretraining_keys
from training.finetuning import run_seed
from training.identity import trained_by_other_code
from training.mirror import send_report
from training.precision import choose_kernels
from training.recipe import READ, check_seeds, refuse_unread, settings_for, with_recipe
from training.runs import Run, code_of_kind, prepare_data, refuse_other_language, seeds_for, write_inputs
from training.settings import Benchmark
from training.signals import stop_signals
from training.task_models import Start, read_start
from training.tracking import shown_as
from training.transfer_matrix import check_tasks, task_keys, transfer_matrix
from training.trials import check_tuning, search_rate, tune
from training.zero_shot import zero_shot

KEYS = (*READ, "transfer", "models", "baselines", "stack", "tasks", "tuning", "report", "corpus_dir")


@dataclass
class Plan:
    """Everything that a benchmark runs, read and checked before the first run."""

    whole: Benchmark  # settings that all runs share
    starts: list[Start]  # one a model
    runs: list[list[Run]]  # a task each, in it a run for every model, of the first seed
    seeds: dict[str, list[int]]  # of each task
    trials: list[dict[str, Any]]  # the grid of tuning, [] without one

    @property
    def out(self) -> Path:
        """Folder of the results."""
        return Path(self.whole.out)

    @property
    def tasks(self) -> list[Any]:
        """The tasks in order."""
        return [row[0].data.task for row in self.runs]


@dataclass
class Done:
    """Results so far."""

    bar: Any
    folders: list[Path] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)  # one line for each
    reused: int = 0

    def add(self, folder: str | Path, again: bool) -> None:
        """Count one result, computed now or complete before."""
        self.folders.append(Path(folder))
        self.reused += again

    def say(self, what: str) -> None:
        """Show what is running now."""
        self.bar.set_postfix_str(what, refresh=sys.stderr.isatty())


def benchmark(config: DictConfig) -> int:
    """Run everything that is not complete, then the report; returns the exit code."""
    if config.transfer.tasks:
        return between_languages(config)
    plan = make_plan(config)
    out = plan.out
    for task in plan.tasks:
        write_inputs(out, task)
        write_frequencies(out, task)
    notes: dict[str, list[str]] = {}  # one line for a note that several tasks share
    for run in (run for row in plan.runs for run in row):
        for note in run.data.notes:
            notes[note] = list(dict.fromkeys([*notes.get(note, []), run.data.task.name]))
    for note, names in notes.items():
        print(f"{', '.join(names)}: {note}")
    baselines = [(name, task) for name in plan.whole.baselines for task in plan.tasks if name in kind_of(task.kind).baselines]
    total = len(baselines) + len(plan.starts) * sum(len(seeds) for seeds in plan.seeds.values())
    tuned = len(plan.trials) * len(plan.whole.tuning["seeds"]) * len(plan.starts) * len(plan.runs) if plan.trials else 0
    done = Done(progress(total=total + tuned, desc="benchmark", unit="run"))
    for name, task in baselines:
        done.say(f"{name} on {task.name}")
        done.add(*baseline(out, name, task))
        done.bar.update()
    total += run_zero_shots(plan, done)
    with stop_signals() as stop:  # the state of a seed is written, and the same command goes on inside it
        for run in (run for row in plan.runs for run in row):
            run_seeds(plan, replace(run, stop=stop), done)
    done.bar.close()
    made = total - done.reused - len(done.failed)
    print(f"benchmark: {total} runs in {out}, {made} made now, {done.reused} already complete, skipped")
    if done.failed:
        listed = f"{len(done.failed)} failed (each has a failed-*.json beside its task):"
        print(listed, *done.failed, sep="\n  ", file=sys.stderr)
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        print("no report from one job of a sweep: when all are done, start the same command without -m, for all tasks")
    elif done.folders:
        report(plan, done.folders)
    return 1 if done.failed else 0


def between_languages(config: DictConfig) -> int:
    """The matrix of training/transfer_matrix.py instead of the table; returns the exit code."""
    refuse_unread(tuple(key for key in KEYS if key not in ("task", "checkpoint", "model_name", "scratch")), "benchmark.py")
    values = OmegaConf.masked_copy(config, [key for key in KEYS if key in config and key != "task"])
    whole = typed(Benchmark, resolved(values, Benchmark))
    check_models(whole.models)
    check_tasks(whole.transfer)
    if built := [model["name"] for model in whole.models if is_pretrained_here(model)]:
        raise UserError(f"models: {built[0]}: transfer takes checkpoints. Pre-train it first and name its folder.")
    if (seeds := check_seeds(whole.seeds)) == "auto":
        raise UserError("seeds=auto: name the seeds of a matrix, e.g. seeds=[0,1,2].")
    device = only_device(whole.device, whole.threads)
    places = places_of(whole.workdir, whole.models)
    starts = [read_start(places[model["name"]], model["name"], model.get("scratch", False)) for model in whole.models]
    settings = [(entry, settings_for(config, task_keys(entry))) for entry in whole.transfer.tasks]
    return transfer_matrix(settings, starts, replace(whole, seeds=seeds), device)


def make_plan(config: DictConfig) -> Plan:
    """Read and check everything, and pre-train entries with `pretrain`; a mistake in the last task is found at the start."""
    more = pretraining_keys()[0] if any("pretrain" in model for model in config.models or [] if model) else ()
    refuse_unread((*(key for key in KEYS if key not in ("task", "checkpoint", "model_name", "scratch")), *more), "benchmark.py")
    named = (*KEYS, "start_from")  # which an entry of models may name
    values = resolved(OmegaConf.masked_copy(config, [key for key in named if key in config and key != "task"]), Benchmark)
    whole = typed(Benchmark, values)
    device, wanted = only_device(whole.device, whole.threads), check_seeds(whole.seeds)
    choose_kernels(whole.deterministic, whole.flash_attention, device)
    check_models(whole.models, whole.tuning)
    if not whole.tasks:
        raise UserError("tasks: none given. Name files of conf/task, e.g. tasks=[topic,ner].")
    known = {name for kind in known_kinds() for name in kind_of(kind).baselines}
    if unknown := [name for name in whole.baselines if name not in known]:
        raise UserError(f"baselines: {unknown[0]} is not one of {', '.join(sorted(known))}.")
    if absent := [name for name in whole.stack if name not in whole.baselines]:
        raise UserError(f"stack: {absent[0]} is not in baselines, whose predictions it takes. Add it there.")
    plans = [settings_for(config, task) for task in OmegaConf.to_container(config.tasks, resolve=True)]
    recipes = [[with_recipe(settings, model.get("recipe") or {}) for model in whole.models] for settings in plans]
    if whole.tuning and any(own.recipe.lr == "auto" for row in recipes for own in row):
        raise UserError("recipe.lr=auto and tuning: two searches for a rate. Set one of them.")
    for model in filter(is_pretrained_here, whole.models):
        pretraining_config(config, model)
    models = pretrain(config, whole.models)
    starts = [read_start(model["checkpoint"], model["name"], model.get("scratch", False)) for model in models]
    for remark in filter(None, (trained_by_other_code(start.path) for start in starts if start.weights is not None)):
        print(remark)
    cache: dict[Any, Any] = {}  # examples, and token ids by tokenizer, shared by all models and seeds
    for settings in plans:
        for start in starts:
            refuse_other_language(settings, start)
        settings.task.language = settings.task.language or language_of_models(settings.task, starts)
    data = [[prepare_data(settings.task, start, cache, settings.cache) for start in starts] for settings in plans]
    names = [row[0].task.name for row in data]
    if len(set(names)) < len(names):
        raise UserError(f"tasks: two have the same name ({', '.join(names)}). Set name in each.")
    seeds = {row[0].task.name: seeds_for(wanted, row[0]) for row in data}
    trials = check_tuning(whole.tuning, sorted({seed for own in seeds.values() for seed in own}))
    runs, said = [], []
    for own, row in zip(recipes, data, strict=True):
        runs.append([])
        for settings, start, part in zip(own, starts, row, strict=True):
            check_augment(settings.recipe, part.task)
            filled_in, line = with_defaults(settings, start)
            first = seeds[part.task.name][0]
            runs[-1].append(Run(filled_in, start, part, first, device, Path(whole.out), script="benchmark"))
            said.append(line)
    for line in filter(None, dict.fromkeys(said)):
        print(line)
    return Plan(whole, starts, runs, seeds, trials)


def language_of_models(task: TaskSettings, starts: list[Start]) -> str | None:
    """The language of a task whose file names none: that of the models that record theirs. UserError if they differ."""
    said = {start.name: start.language for start in starts}
    found = one_language(said, f"Which one are the texts of {task.name} in? Name it: {{task: ..., language: NAME}}.")
    return found and found.name


def run_zero_shots(plan: Plan, done: Done) -> int:
    """The rows without training, one for weights that several entries start from; returns their number."""
    shown: set[str] = set()
    count = 0
    for column in zip(*plan.runs, strict=True):
        if column[0].start.identity not in shown:
            for run in column:
                for untrained in (zero_shot, cloze):
                    if summary := untrained(run.start, run.data, 2 * run.recipe.max_tokens, run.device, plan.out):
                        done.add(summary["folder"], bool(summary.get("reused")))
                        count += 1
        shown.add(column[0].start.identity)
    return count


def run_seeds(plan: Plan, run: Run, done: Done) -> None:
    """All seeds of one model on one task, after tuning if there is a grid; failures are recorded and counted."""
    seeds, what = plan.seeds[run.data.task.name], f"{run.start.name} on {run.data.task.name}"
    searched = bool(plan.trials) or run.recipe.lr == "auto"
    if not searched:  # of an earlier start with a grid; its runs stay, so that it can be had again at once
        (run.place / "tuning.json").unlink(missing_ok=True)
    else:
        try:
            run = find_settings(plan, run, seeds, done)
        except Exception as error:
            done.failed.append(set_down(run.place / "failed-tuning.json", f"{what}, tuning", error))
            done.bar.update(len(seeds))
            return
        (run.place / "failed-tuning.json").unlink(missing_ok=True)
    for seed in seeds:
        done.say(f"{what}, seed {seed}")
        trouble = run.place / f"failed-{seed}.json"
        try:
            summary = run_seed(replace(run, seed=seed))
            stacked = stacks(plan, run.data.task, Path(summary["folder"]))
        except Exception as error:  # one failed run must not stop the others; the report marks what is missing
            done.failed.append(set_down(trouble, f"{what}, seed {seed}", error))
        else:
            trouble.unlink(missing_ok=True)
            keep_tuning(summary, run.tuned)
            done.add(summary["folder"], bool(summary.get("reused")))
            done.folders += stacked
        done.bar.update()


def stacks(plan: Plan, task: Any, folder: Path) -> list[Path]:
    """The rows of one seed stacked with each baseline of `stack`, made again from the prediction files, which takes no time."""
    names = [name for name in plan.whole.stack if name in kind_of(task.kind).baselines]
    return [place for name in names if (place := write_stack(folder, plan.out / name / task.name / "seed-0", task))]


def find_settings(plan: Plan, run: Run, final: list[int], done: Done) -> Run:
    """The run with what the grid, or the search of recipe.lr=auto, found on dev."""

    def each(trial: str) -> None:
        done.say(trial)
        done.bar.update(bool(plan.trials))  # the search's runs are not in the bar's total

    if plan.trials:
        return tune(run, plan.trials, plan.whole.tuning["seeds"], each)
    return search_rate(run, final, each)


def report(plan: Plan, folders: list[Path]) -> None:
    """The report of all results, on the terminal and as files."""
    wanted = plan.whole.report
    pretraining, corpus = (Path(path) if path else None for path in (wanted.pretraining, wanted.corpus))
    if pretraining and not (pretraining / "metrics.jsonl").exists():
        print(f"report: no metrics.jsonl in {pretraining}, so no curves of pre-training")
        pretraining = None
    if corpus and not corpus.exists():
        print(f"report: {corpus} is not there, so no page on the corpus")
        corpus = None
    overlap = leaked(plan.out, [task.name for task in plan.tasks], wanted.overlap)
    print(build_report(folders, plan.out, pretraining, corpus, wanted.title, overlap=overlap))
    print(f"\n{plan.out / 'report.html'} (and report.md, report.csv, report.tex)")
    whole = plan.whole
    if whole.tracker.kind == "wandb":
        tags = sorted({run.start.language.name for row in plan.runs for run in row if run.start.language})
        shown = shown_as("report", whole.name, plan.out.name, plan.out, [*tags, *(task.name for task in plan.tasks)])
        send_report(whole.tracker, shown, plan.out, {"models": whole.models, "seeds": plan.seeds})


def leaked(out: Path, names: list[str], corpus: str | None) -> Path | None:
    """The file that says how much of each test item is in the pre-training corpus; None without a corpus."""
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
    """Pre-train the entries with `pretrain`, in order; returns all entries, each with its checkpoint."""
    places = places_of(config.workdir, models)
    for model in models:
        if is_pretrained_here(model):
            print(f"benchmark: pre-training of {model['name']}")
            if code := train(pretraining_config(config, filled(model, places))):
                sys.exit(code)
    return [{**filled(model, places), "checkpoint": places[model["name"]]} for model in models]


def set_down(path: Path, what: str, error: Exception) -> str:
    """Write a failure to a file; returns the line for the terminal."""
    trace = "".join(traceback.format_exception(error))
    write_json(path, {"run": what, "error": f"{type(error).__name__}: {error}", "traceback": trace})
    return f"{what}: {type(error).__name__}: {error}"


def baseline(out: Path, name: str, task: Any) -> tuple[Path, bool]:
    """One baseline on one task, and whether it existed already for the same examples."""
    folder = out / name / task.name / "seed-0"
    code = [code_files("evaluation.baselines", rooms=("tasks", "language")), code_of_kind(task.kind)]
    digest = digest_of([name, task.digest, task.metric, task.positive, code])
    if (folder / "digest.json").exists() and read_json(folder / "digest.json") == digest and (folder / "summary.json").exists():
        return folder, True
    with hold(folder):
        (folder / "digest.json").unlink(missing_ok=True)
        write_baseline(out, name, task)
        write_json(folder / "digest.json", digest)
    return folder, False


def keep_tuning(summary: dict[str, Any], tuned: dict[str, Any] | None) -> None:
    """A run made under another grid that chose the same settings is valid, but its summary must describe this grid."""
    path = Path(summary["folder"]) / "summary.json"
    if summary.get("reused") and summary.get("tuning") != tuned:
        write_json(path, {**read_json(path), "tuning": tuned})


if __name__ == "__main__":
    launch(benchmark, "benchmark", Benchmark)
