"""The entries of `models` in a benchmark: the weights, given or pre-trained first, and the recipe.

    {name: ours, checkpoint: FOLDER}                                      as trained
    {name: ours-scratch, checkpoint: FOLDER, scratch: true}               its shape and tokenizer, new weights
    {name: ours-lora, checkpoint: FOLDER, recipe: {adapter: lora}}        another recipe than the others'
    {name: small, pretrain: {model: bert_tiny, budget: {minutes: 5}}}     pre-trained first, into <workdir>/pretrained/<name>

`pretrain` holds keys of train.py that override those of the experiment: a group by its name (model: bert_tiny) or by its
keys, with dots as on the command line (model.layers: 2). With its own tokenizer it has its own shards too. If the entry
also has `checkpoint`, `pretrain` is used only if that is null. "@ours" means the checkpoint of the entry of that name above.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from common.errors import UserError
from common.files import read_json
from common.launch import ROOT, read_option, settle_budget

KEYS = {"name", "checkpoint", "scratch", "recipe", "pretrain"}
ORIGINS = {"checkpoint", "pretrain"}  # one of them gives the weights


def check_models(models: Any, tuning: dict[str, Any] | None = None) -> None:
    """UserError for a malformed entry, for two of the same name, and for a recipe that sets a key of the grid."""
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
    """Whether an entry's weights are pre-trained by the benchmark."""
    return bool(model.get("pretrain")) and not model.get("checkpoint")


def pretraining_keys() -> tuple[set[str], set[str]]:
    """(all top-level keys that train.py reads, those of them that are groups of conf/)."""
    base = OmegaConf.load(ROOT / "conf" / "base.yaml")
    groups = {str(next(iter(part))) for part in base.defaults if isinstance(part, DictConfig)}
    return {*(str(key) for key in base if key not in ("defaults", "hydra")), *groups, "profile"}, groups


def pretraining_folder(workdir: str, name: str) -> str:
    """The run folder of an entry that the benchmark pre-trains."""
    return str(Path(workdir) / "pretrained" / name)


def places_of(workdir: str, models: list[dict[str, Any]]) -> dict[str, str]:
    """The checkpoint of every entry by its name, whether it exists yet or not."""
    places: dict[str, str] = {}
    for model in models:
        own = pretraining_folder(workdir, model["name"])
        places[model["name"]] = own if is_pretrained_here(model) else filled(model["checkpoint"], places)
    return places


def pretraining_config(config: DictConfig, model: dict[str, Any]) -> DictConfig:
    """The config of train.py for one entry: the experiment's own keys overridden by those of `pretrain`.

    Raises UserError for a key that train.py does not read and for a missing file of a group.
    """
    known, groups = pretraining_keys()
    own = OmegaConf.masked_copy(config, [key for key in config if key in known])
    OmegaConf.set_readonly(own, False)
    if own.language is None:  # a benchmark reads it from the checkpoints, which do not exist yet
        report = Path(config.corpus_dir) / "report.json"
        known = read_json(report).get("language") if report.exists() else None
        own.language = known or OmegaConf.load(ROOT / "conf" / "base.yaml").language
    run = pretraining_folder(config.workdir, model["name"])
    own.workdir = str(config.workdir)  # set before the name changes, on which it depends
    OmegaConf.set_struct(own, True)
    wanted = dict(model["pretrain"] or {})
    if wanted.get("tokenizer"):
        wanted = {"tokenizer_dir": f"{run}/tokenizer", "shards_dir": f"{run}/shards", **wanted}
    for key, value in wanted.items():
        where = f"models: {model['name']}: pretrain.{key}"
        try:
            if key in groups and isinstance(value, str):
                own[key] = read_option(key, value)
            else:
                OmegaConf.update(own, key, value, merge=isinstance(value, dict))
        except UserError as error:
            raise UserError(f"models: {model['name']}: pretrain.{error}") from None
        except OmegaConfBaseException as error:
            raise UserError(f"{where}: train.py does not read it ({str(error).splitlines()[0]}).") from None
    OmegaConf.set_struct(own, False)
    settle_budget(own, [*(f"budget.{unit}=" for unit in wanted.get("budget") or {}), *(f"{key}=" for key in wanted)])
    own.name, own.run_dir = f"{config.name}-{model['name']}", run
    return own
