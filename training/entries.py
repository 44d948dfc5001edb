"""The entries of `models` in a benchmark: which weights, from where or pre-trained on the spot, and which recipe.

    {name: ours, checkpoint: FOLDER}                                      as it is
    {name: ours-scratch, checkpoint: FOLDER, scratch: true}               its shape and tokenizer, new weights
    {name: ours-lora, checkpoint: FOLDER, recipe: {adapter: lora}}        another recipe than the others'
    {name: small, pretrain: {model: bert_tiny, budget: {minutes: 5}}}     pre-trained first, into <workdir>/pretrained/<name>

`pretrain` holds keys of train.py over those of the experiment: a group by its name (model: bert_tiny) or by its keys, dots
as on the command line (model.layers: 2). With a tokenizer of its own it has its own shards too. Beside a checkpoint it
says what to do where that is null. "@ours" stands for the checkpoint of the entry of that name, listed before.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.errors import UserError
from common.launch import ROOT

KEYS = {"name", "checkpoint", "scratch", "recipe", "pretrain"}
ORIGINS = {"checkpoint", "pretrain"}  # one of them says where the weights come from


def check_models(models: Any, tuning: dict[str, Any] | None = None) -> None:
    """UserError for an entry that is none of the above, for two of one name, and for a recipe that sets what the grid tries."""
    for model in models or [None]:
        keys = set(model) if isinstance(model, dict) else set()
        dictionaries = all(isinstance((model or {}).get(key) or {}, dict) for key in ("recipe", "pretrain") if keys)
        if "name" not in keys or not keys <= KEYS or not any(key in keys and model[key] for key in ORIGINS) or not dictionaries:
            wanted = "{name: ..., checkpoint: ... or pretrain: {...}, scratch: true or false, recipe: {...}}"
            raise UserError(f"models: {model} is not {wanted}. See conf/benchmark.yaml.")
        if shared := sorted(set(model.get("recipe") or {}) & set(tuning or {})):
            raise UserError(f"models: {model['name']}: recipe.{shared[0]} is in tuning too, which would win. Remove one.")
    names = [model["name"] for model in models]
    if len(set(names)) < len(names):
        raise UserError(f"models: two have the same name ({', '.join(names)}). Each needs its own folder.")
    for number, model in enumerate(models):
        for name in _mentioned(model):
            if name not in names[:number]:
                raise UserError(f"models: {model['name']} names @{name}, but no entry before it has that name.")


def _mentioned(value: Any) -> list[str]:
    if isinstance(value, dict | list):
        return [name for part in (value.values() if isinstance(value, dict) else value) for name in _mentioned(part)]
    return [value[1:]] if isinstance(value, str) and value.startswith("@") else []


def filled(value: Any, places: dict[str, str]) -> Any:
    """`value` with every "@name" in it replaced by places[name]."""
    if isinstance(value, dict):
        return {key: filled(part, places) for key, part in value.items()}
    if isinstance(value, list):
        return [filled(part, places) for part in value]
    return places[value[1:]] if isinstance(value, str) and value.startswith("@") else value


def is_pretrained_here(model: dict[str, Any]) -> bool:
    """Whether an entry's weights are made on the spot."""
    return bool(model.get("pretrain")) and not model.get("checkpoint")


def pretraining_keys() -> tuple[set[str], set[str]]:
    """(all first words of keys that train.py reads, those of them that are groups of conf/)."""
    base = OmegaConf.load(ROOT / "conf" / "base.yaml")
    groups = {str(next(iter(part))) for part in base.defaults if isinstance(part, DictConfig)}
    return {*(str(key) for key in base if key not in ("defaults", "hydra")), *groups, "profile"}, groups


def pretraining_folder(workdir: str, name: str) -> str:
    """The run folder of an entry that is pre-trained on the spot."""
    return str(Path(workdir) / "pretrained" / name)


def places_of(workdir: str, models: list[dict[str, Any]]) -> dict[str, str]:
    """The checkpoint of every entry by its name; made here, or not yet."""
    places: dict[str, str] = {}
    for model in models:
        own = pretraining_folder(workdir, model["name"])
        places[model["name"]] = own if is_pretrained_here(model) else filled(model["checkpoint"], places)
    return places


def pretraining_config(config: DictConfig, model: dict[str, Any]) -> DictConfig:
    """What train.py reads for one entry: the experiment's own keys with those of `pretrain` over them.

    Raises UserError for a key that train.py does not read and for a group's file that is not there.
    """
    known, groups = pretraining_keys()
    own = OmegaConf.masked_copy(config, [key for key in config if key in known])
    OmegaConf.set_readonly(own, False)
    run = pretraining_folder(config.workdir, model["name"])
    own.workdir = str(config.workdir)  # before the name changes, of which it is made
    OmegaConf.set_struct(own, True)
    wanted = dict(model["pretrain"] or {})
    if wanted.get("tokenizer"):
        wanted = {"tokenizer_dir": f"{run}/tokenizer", "shards_dir": f"{run}/shards", **wanted}
    for key, value in wanted.items():
        where = f"models: {model['name']}: pretrain.{key}"
        try:
            if key in groups and isinstance(value, str):
                path = ROOT / "conf" / key / f"{value}.yaml"
                if not path.exists():
                    there = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
                    raise UserError(f"{where}={value}: no such file in conf/{key}. There are: {there}.")
                own[key] = OmegaConf.load(path)
            else:
                OmegaConf.update(own, key, value, merge=isinstance(value, dict))
        except OmegaConfBaseException as error:
            raise UserError(f"{where}: train.py does not read it ({str(error).splitlines()[0]}).") from None
    OmegaConf.set_struct(own, False)
    own.name, own.run_dir = f"{config.name}-{model['name']}", run
    return own
