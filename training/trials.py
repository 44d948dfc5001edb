"""Settings tried on dev before the final seeds: a grid given by the user, or the search of recipe.lr=auto."""

import itertools
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from common.errors import UserError
from common.files import read_json, write_json
from common.settings import checked, keys_of
from training.defaults import FIRST_SEARCH_SEED, search_rates
from training.finetuning import Diverged, run_seed
from training.recipe import check_seeds, with_recipe
from training.runs import Run
from training.settings import Recipe


def check_tuning(tuning: Any, final: list[int]) -> list[dict[str, Any]]:
    """Every combination of the grid {recipe key: [values], ..., seeds: [...]}; [] without one. UserError for what cannot be.

    Its seeds must not be among the final ones: a rate that was lucky with a seed would then be scored with that luck.
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
        differ = isinstance(values, list) and len({str(value) for value in values}) == len(values) > 0
        if key not in keys_of(Recipe) or not differ:
            raise UserError(f"tuning.{key}={values}: expected a key of recipe with a list of different values.")
    trials = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    for trial in trials:
        checked(Recipe, trial, "tuning")
    return trials


def search_rate(run: Run, final: list[int], each: Callable[[str], None] = lambda _: None) -> Run:
    """`run` with the rate that recipe.lr=auto finds on dev, and under `tuned` how.

    It tries the default rate, a third and three times of it, for a third of the epochs, on two seeds that are not among the
    `final` ones. Hours and scores are stored like those of a grid and count as the model's cost.
    """
    seeds = list(itertools.islice((n for n in itertools.count(FIRST_SEARCH_SEED) if n not in final), 2))
    trials = [{"lr": rate} for rate in search_rates(run.start.config, run.recipe)]
    return tune(run, trials, seeds, each, {"epochs": -(-run.recipe.epochs // 3)})


def tune(
    run: Run,
    trials: list[dict[str, Any]],
    seeds: list[int],
    each: Callable[[str], None] = lambda _: None,
    only_in_trials: dict[str, Any] | None = None,
) -> Run:
    """`run` with the trial of the best mean dev score, and under `tuned` how it was found.

    Every trial runs on every seed, in <model>/<task>/tuning/, and is resumable like any run; the test split is not read. A
    trial that diverges has no score. tuning.json beside it holds grid, seeds, runs, hours, the dev scores (in the order of
    the seeds; null if it diverged) and the choice. Ties go to the lower dev loss. `each` is called with a trial's name before
    it runs; `only_in_trials` are keys of the recipe used only in the trials.
    """
    scores: dict[str, list[float | None]] = {}
    ranks, hours = [], 0.0
    for trial in trials:
        label = ",".join(f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}" for key, value in trial.items())
        settings = with_recipe(run.settings, {**trial, **(only_in_trials or {})})
        summaries = []
        for seed in seeds:
            each(f"{run.start.name} on {run.data.task.name}, tuning {label}, seed {seed}")
            summaries.append(try_once(replace(run, settings=settings, seed=seed, trial=f"{label},seed={seed}")))
        found = [summary and summary["dev_score"] for summary in summaries]
        hours += sum(summary["hours"] for summary in summaries if summary)
        scores[label] = found
        if None not in found:
            losses = [summary["dev_loss"] for summary in summaries if summary]
            ranks.append((sum(found) / len(found), -sum(losses) / len(losses), -len(ranks), trial))
    if not ranks:
        raise UserError(f"{run.start.name} on {run.data.task.name}: every setting that was tried diverged. Try lower rates.")
    grid = {key: list(dict.fromkeys(trial[key] for trial in trials)) for key in trials[0]}
    chosen = max(ranks, key=lambda rank: rank[:3])[3]
    tuned = {"grid": grid, "seeds": seeds, "runs": len(trials) * len(seeds), "hours": hours, "chosen": chosen, "scores": scores}
    tuned |= {"only_in_trials": only_in_trials} if only_in_trials else {}
    write_json(run.place / "tuning.json", tuned)
    return replace(run, settings=with_recipe(run.settings, chosen), tuned=tuned)


def try_once(run: Run) -> dict[str, Any] | None:
    """The summary of one trial; None if it diverged, which is recorded so that it is not run again."""
    note = run.folder.with_name(f"{run.folder.name}.diverged.json")
    digest = run.digest()
    if note.exists() and read_json(note)["digest"] == digest:
        return None
    note.unlink(missing_ok=True)
    try:
        return run_seed(run)
    except Diverged as error:
        shutil.rmtree(note.with_name(f".{run.folder.name}.part"), ignore_errors=True)
        write_json(note, {"digest": digest, "error": str(error)})
        return None
