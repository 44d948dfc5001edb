"""Fine-tune models x tasks x seeds and make the report of them.

    python benchmark.py                                  the demo: six tasks, pre-trained against not, two seeds
    python benchmark.py tasks=[topic,ner] seeds=[0,1,2]
    python benchmark.py 'models=[{name: mine, checkpoint: runs/mine/pretrain, scratch: false}]' out=runs/mine/table

Started again after any interruption it runs what is not finished (same config, data and weights) and nothing else.
Recipe, device and precision are those of finetune.py. The report comes from the prediction files alone, so it can also
be made anew, or over several folders, with python -m evaluation.report.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from common.errors import UserError
from common.files import digest_of, read_json, write_json
from common.launch import launch, resolved
from evaluation.baselines import BASELINES, write_baseline
from evaluation.report import build_report
from finetune import check_seeds, prepare_machine, run_seed
from training.finetuning import READ, prepare_data, read_start, refuse_unread, settings_for

KEYS = (*READ, "models", "baselines", "tasks", "report", "corpus_dir")


def benchmark(config: DictConfig) -> int:
    """All runs that are not finished, then the report; returns the exit code."""
    refuse_unread(tuple(key for key in KEYS if key not in ("task", "checkpoint", "model_name", "scratch")), "benchmark.py")
    whole = resolved(OmegaConf.masked_copy(config, [key for key in KEYS if key in config and key != "task"]))
    device = prepare_machine(whole)
    seeds, out = check_seeds(whole["seeds"]), Path(whole["out"])
    check_models(whole["models"])
    if not whole["tasks"]:
        raise UserError("tasks: none given. Name files of conf/task, e.g. tasks=[topic,ner].")

    # Everything is read and checked before the first run, so that a mistake in the last task does not cost the night.
    plans = [settings_for(config, task) for task in OmegaConf.to_container(config.tasks, resolve=True)]
    starts = [read_start(model["checkpoint"], model["name"], model.get("scratch", False)) for model in whole["models"]]
    cache: dict[Any, Any] = {}  # examples, and token ids by tokenizer, shared by all models and seeds
    data = [[prepare_data(settings, start, cache) for settings in plans] for start in starts]
    names = [part.task.name for part in data[0]]
    if len(set(names)) < len(names):
        raise UserError(f"tasks: two have the same name ({', '.join(names)}). Set name in each.")
    known = {name for names in BASELINES.values() for name in names}
    if unknown := [name for name in whole["baselines"] if name not in known]:
        raise UserError(f"baselines: {unknown[0]} is not one of {', '.join(sorted(known))}.")
    for note in dict.fromkeys(f"{part.task.name}: {note}" for row in data for part in row for note in part.notes):
        print(note)

    # ---- the runs ---------------------------------------------------------------------------------------------------
    folders: list[Path] = []
    baselines = [(name, part.task) for name in whole["baselines"] for part in data[0] if name in BASELINES[part.task.kind]]
    total = len(baselines) + len(starts) * len(plans) * len(seeds)
    bar = tqdm(total=total, desc="benchmark", unit="run", disable=None)
    reused = 0
    for name, task in baselines:
        bar.set_postfix_str(f"{name} on {task.name}")
        folder, again = baseline(out, name, task)
        folders.append(folder)
        reused += again
        bar.update()
    for settings, column in zip(plans, zip(*data, strict=True), strict=True):
        for start, part in zip(starts, column, strict=True):
            for seed in seeds:
                bar.set_postfix_str(f"{start.name} on {part.task.name}, seed {seed}")
                summary = run_seed(settings, start, part, seed, device, out)
                folders.append(Path(summary["folder"]))
                reused += bool(summary.get("reused"))
                bar.update()
    bar.close()
    print(f"benchmark: {total} runs in {out}, {total - reused} made now, {reused} done already")

    # ---- the report -------------------------------------------------------------------------------------------------
    report = whole["report"]
    pretraining, corpus = (Path(path) if path else None for path in (report["pretraining"], report["corpus"]))
    if pretraining and not (pretraining / "metrics.jsonl").exists():
        print(f"report: no metrics.jsonl in {pretraining}, so no curves of pre-training")
        pretraining = None
    if corpus and not corpus.exists():
        print(f"report: {corpus} is not there, so no page on the corpus")
        corpus = None
    print(build_report(folders, out, pretraining, corpus, report["title"]))
    print(f"\n{out / 'report.html'} (and report.md, report.csv, report.tex)")
    return 0


def check_models(models: Any) -> None:
    """UserError for an entry of `models` that is not {name, checkpoint, scratch}."""
    for model in models or [None]:
        if not isinstance(model, dict) or not {"name", "checkpoint"} <= set(model) <= {"name", "checkpoint", "scratch"}:
            wanted = "{name: ..., checkpoint: ..., scratch: true or false}"
            raise UserError(f"models: {model} is not {wanted}. See conf/benchmark.yaml.")
    names = [model["name"] for model in models]
    if len(set(names)) < len(names):
        raise UserError(f"models: two have the same name ({', '.join(names)}). Each needs its own folder.")


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


if __name__ == "__main__":
    launch(benchmark, "benchmark")
