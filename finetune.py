"""Fine-tune one checkpoint on one task, over seeds, and write its predictions.

    python finetune.py                                       the demo's encoder on the demo's topics
    python finetune.py checkpoint=FOLDER task=ner seeds=[0,1,2]
    python finetune.py checkpoint=FOLDER task.kind=pair task.train=a.jsonl task.dev=b.jsonl task.test=c.jsonl
    python finetune.py checkpoint=FOLDER task=topic scratch=true      the same shape without pre-training
    python finetune.py checkpoint=FOLDER task=topic recipe.lr=auto    three rates tried on dev first

Kinds: classification, pair, choice, reading, tagging, pos, qa, similarity, multilabel (a file of tasks/ each), or a module of
your own.
Rate and pooling depend on the checkpoint (training/defaults.py) unless the task file or the command line sets them. Every
seed writes <out>/<model>/<task>/seed-<n>/ with config.yaml, metrics.jsonl, summary.json, predictions of dev and test, and
the checkpoint of the best epoch on dev; <out>/inputs/ lists the test texts, the training frequency of their words, and every
record that was set aside. A complete seed with the same config, data, checkpoint and code is skipped; one that SIGTERM or a
kill ended goes on inside. The loop is in training/finetuning.py.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from common.launch import launch
from evaluation.frequency import write_frequencies
from training.augmentation import check_augment
from training.cloze import cloze
from training.defaults import with_defaults
from training.distributed import only_device
from training.finetuning import run_seed
from training.identity import trained_by_other_code
from training.precision import choose_kernels
from training.recipe import READ, check_seeds, refuse_unread, settings_for
from training.runs import Run, prepare_data, refuse_other_language, seeds_for, write_inputs
from training.settings import Finetuning
from training.signals import stop_signals
from training.task_models import read_start
from training.trials import search_rate
from training.zero_shot import zero_shot


def finetune(config: DictConfig) -> int:
    """All seeds of one model on one task; returns the exit code."""
    refuse_unread(READ, "finetune.py")
    chosen = config.task.kind or config.task.train or config.task.documents
    settings = settings_for(config, None if chosen else "topic")
    device, out = only_device(settings.device, settings.threads), Path(settings.out)
    choose_kernels(settings.deterministic, settings.flash_attention, device)
    seeds = check_seeds(settings.seeds)
    start = read_start(settings.checkpoint, settings.model_name, settings.scratch)
    refuse_other_language(settings, start)
    if not settings.scratch and (remark := trained_by_other_code(settings.checkpoint)):
        print(remark)
    data = prepare_data(settings.task, start, {}, settings.cache)
    check_augment(settings.recipe, data.task)
    write_inputs(out, data.task)
    write_frequencies(out, data.task)
    settings, line = with_defaults(settings, start)
    for note in [*([line] if line else []), *(f"{data.task.name}: {note}" for note in data.notes)]:
        print(note)
    seeds = seeds_for(seeds, data)
    scores = []
    with stop_signals() as stop:
        run = Run(settings, start, data, seeds[0], device, out, show=True, stop=stop)
        if settings.recipe.lr == "auto":
            run = search_rate(run, seeds)
            print(f"recipe.lr={run.recipe.lr:g} by a search on dev: {run.place / 'tuning.json'}")
        for seed in seeds:
            summary = run_seed(replace(run, seed=seed))
            scores.append(summary["test_score"])
            print(describe(summary))
    for untrained in (zero_shot, cloze):
        if zero := untrained(start, data, 2 * settings.recipe.max_tokens, device, out):
            print(
                f"{zero['model']} on {zero['task']}, no training: dev {zero['metric']} {100 * zero['dev_score']:.1f}, "
                f"test {100 * zero['test_score']:.1f}; {zero['folder']}"
            )
    if len(seeds) > 1:
        mean = 100 * sum(scores) / len(scores)
        print(f"{start.name} on {data.task.name}: test {data.task.metric} {mean:.1f}, mean of {len(seeds)} seeds")
    return 0


def describe(summary: dict[str, Any]) -> str:
    """One line for the terminal."""
    again = "already complete, skipped: " if summary.get("reused") else ""
    dev, test = 100 * summary["dev_score"], 100 * summary["test_score"]
    return (
        f"{again}{summary['model']} on {summary['task']}, seed {summary['seed']}: dev {summary['metric']} {dev:.1f} "
        f"(epoch {summary['best_epoch']} of {summary['epochs']}), test {test:.1f}, {3600 * summary['hours']:.0f} s; "
        f"{summary['folder']}"
    )


if __name__ == "__main__":
    launch(finetune, "finetune", Finetuning)
