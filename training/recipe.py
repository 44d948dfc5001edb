"""The settings of a fine-tuning run: the keys that are read, checks of the recipe, the settings of one task."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from common.launch import read_option, resolved
from common.settings import checked, keys_of, plain, typed
from training.settings import Finetuning, Recipe

# Keys of the config that fine-tuning reads; any other key on the command line is an error.
READ = (*keys_of(Finetuning), "experiment", "debug", "launcher", "hydra")
SEEDS = ("init_seed", "order_seed", "dropout_seed")  # null: the run's own seed (Dodge 2020, arXiv 2002.06305)


def refuse_unread(read: tuple[str, ...], script: str) -> None:
    """UserError for a key on the command line that `script` does not read (such as one of pre-training)."""
    for override in HydraConfig.get().overrides.task:
        key = override.lstrip("+~").split("=")[0]
        # Keys such as corpus.path describe the text of the experiment and are accepted by all four scripts.
        if key.split(".")[0].split("@")[0] not in (*read, "corpus"):
            hints = {
                "optimizer": "the fine-tuning rate is recipe.lr, its optimizer recipe.optimizer",
                "distill": "a fine-tuning teacher is recipe.teacher",
            }
            hint = hints.get(key.split(".")[0], f"it reads {', '.join(read)}")
            raise UserError(f"{key}: {script} does not read this key ({hint}). Remove it.")


def settings_for(config: DictConfig, task: str | Mapping[str, Any] | None = None) -> Finetuning:
    """The resolved config, with `task` in its place: a name in conf/task, or keys laid over conf/task/local.yaml, or over
    the file that its key `task` names, as in {task: cbmcq, blind: question}."""
    if task is not None:
        config = config.copy()
        OmegaConf.set_struct(config, False)
        keys = {} if isinstance(task, str) else dict(task)
        task = task if isinstance(task, str) else keys.pop("task", "local")
        chosen = read_option("task", task)
        if unknown := [key for key in keys if key not in chosen]:
            raise UserError(f"tasks: unknown key {unknown[0]!r}. A task has: {', '.join(map(str, chosen))}.")
        config.task = OmegaConf.merge(chosen, keys)
    values = resolved(OmegaConf.masked_copy(config, [key for key in READ if key in config]), Finetuning)
    settings = typed(Finetuning, values)
    checked(Recipe, settings.task.recipe, "task.recipe")
    if not settings.task.name and settings.task.train:  # two local files must not share a folder
        train = Path(settings.task.train)
        settings.task.name = f"{train.absolute().parent.name}-{train.name.split('.')[0]}"
    return settings


def check_seeds(seeds: Any, key: str = "seeds") -> list[int] | str:
    """The seeds as a list of different whole numbers, or "auto"; raises UserError."""
    if seeds == "auto":
        return seeds
    seeds = [seeds] if isinstance(seeds, int) else seeds
    if not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds) or len(set(seeds)) < len(seeds):
        raise UserError(f"{key}={seeds}: expected auto or a list of different whole numbers, e.g. {key}=[0,1,2].")
    return list(seeds)


def with_recipe(settings: Finetuning, own: dict[str, Any]) -> Finetuning:
    """`settings` with the keys of `own` laid over its recipe (keys of lora one by one), checked. UserError for other keys."""
    own = checked(Recipe, own, "models: recipe")
    if "lora" in own and isinstance(own["lora"], dict):
        own = {**own, "lora": {**plain(settings.recipe.lora), **own["lora"]}}
    return replace(settings, recipe=typed(Recipe, {**plain(settings.recipe), **own}, "recipe"))
