"""What finetune.py and benchmark.py call beside the loop: where a run starts from, its data, its parameter groups."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from common.files import digest_of, read_json
from common.launch import ROOT, resolved
from data.features import Encoded, encode
from data.tasks import Task, load_task
from model.encoder import Encoder, EncoderConfig
from model.heads import POOLED, TaskModel
from model.store import SUMS, WEIGHTS, fill, read_checkpoint, resolve_checkpoint, verify_checkpoint
from tokenization.tokenizer import Tokenizer

VERSION = 1  # of features and loop: a change that changes results makes finished runs be run again
# Keys of the config that fine-tuning reads; any other key on the command line is refused, not ignored.
READ = ("checkpoint", "model_name", "scratch", "out", "seeds", "save_checkpoint", "task", "recipe", "device", "precision",
        "threads", "tracker", "name", "workdir", "price_per_hour", "experiment", "debug", "hydra")  # fmt: skip
EMBEDDINGS = ("encoder.words", "encoder.positions", "encoder.types", "encoder.embedding_norm")
MAX_LENGTH = {"qa": 384}  # pieces, where the task does not say; 128 for the other kinds


@dataclass
class Start:
    """What a run starts from: a checkpoint's weights, or its shape and tokenizer alone (weights None)."""

    name: str
    path: str
    weights: dict[str, torch.Tensor] | None
    config: EncoderConfig
    tokenizer: Tokenizer
    identity: str  # digest of all that decides the weights


@dataclass
class Data:
    """A task and its three splits as rows for one tokenizer."""

    task: Task
    splits: dict[str, Encoded]
    max_length: int
    overlap: int | None  # of windows
    digest: str
    notes: list[str]


def refuse_unread(read: tuple[str, ...], script: str) -> None:
    """UserError for a key on the command line that `script` does not read (it may belong to pre-training)."""
    for override in HydraConfig.get().overrides.task:
        key = override.lstrip("+~").split("=")[0]
        # corpus.path and its like say which text the experiment is about, and go with all four scripts.
        if key.split(".")[0].split("@")[0] not in (*read, "corpus"):
            hint = "the fine-tuning rate is recipe.lr" if key.startswith("optimizer") else f"it reads {', '.join(read)}"
            raise UserError(f"{key}: {script} does not read this key ({hint}). Remove it.")


def settings_for(config: DictConfig, task: str | Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The resolved config, with `task` in its place: a name in conf/task, or keys laid over conf/task/local.yaml."""
    if task is not None:
        config = config.copy()
        OmegaConf.set_struct(config, False)
        path = ROOT / "conf" / "task" / f"{task if isinstance(task, str) else 'local'}.yaml"
        if not path.exists():
            known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
            raise UserError(f"task {task!r}: no such file in conf/task. There are: {known}.")
        chosen = OmegaConf.load(path)
        if unknown := [key for key in ({} if isinstance(task, str) else task) if key not in chosen]:
            raise UserError(f"tasks: unknown key {unknown[0]!r}. A task has: {', '.join(map(str, chosen))}.")
        config.task = chosen if isinstance(task, str) else OmegaConf.merge(chosen, task)
    settings = resolved(OmegaConf.masked_copy(config, [key for key in READ if key in config]))
    check_recipe(settings["recipe"])
    check_recipe(settings["task"].get("recipe") or {})
    unknown = set(settings["task"].get("recipe") or {}) - set(settings["recipe"])
    if unknown:
        raise UserError(f"task.recipe.{sorted(unknown)[0]}: no such setting. There are: {', '.join(settings['recipe'])}.")
    if not settings["task"]["name"] and settings["task"]["train"]:  # two local files must not share a folder
        train = Path(settings["task"]["train"])
        settings["task"]["name"] = f"{train.absolute().parent.name}-{train.name.split('.')[0]}"
    return settings


def check_recipe(recipe: dict[str, Any]) -> None:
    """UserError for a value that cannot work."""
    least = {"lr": 0, "batch_size": 1, "epochs": 1, "warmup": 0, "weight_decay": 0, "max_tokens": 1, "bucket": 1, "eps": 0,
             "reinitialise_layers": 0, "layerwise_decay": 0, "patience": 1, "clip": 0}  # fmt: skip
    whole = ("batch_size", "epochs", "max_tokens", "bucket", "reinitialise_layers", "patience")
    for key, value in recipe.items():
        if value is None and key in ("patience", "clip"):
            continue
        number = isinstance(value, int) if key in whole else isinstance(value, int | float)
        share = key in ("warmup", "layerwise_decay")
        if not number or isinstance(value, bool) or value < least.get(key, 0) or (share and value > 1):
            kind = "a whole number" if key in whole else "a number"
            raise UserError(f"recipe.{key}={value}: expected {kind} of at least {least.get(key, 0)}. See conf/finetune.yaml.")


def read_start(checkpoint: str | Path, name: str | None = None, scratch: bool = False) -> Start:
    """Read a checkpoint once for all runs that start from it.

    `name` is the folder of its results (default: the name in config.json). scratch keeps shape and tokenizer only, and
    its identity does not depend on the weights. UserError for a missing or damaged checkpoint.
    """
    folder = resolve_checkpoint(checkpoint)
    if not (folder / SUMS).exists():
        raise UserError(f"checkpoint={checkpoint}: no checkpoint there. Run python train.py first, or give checkpoint=FOLDER.")
    weights, config, tokenizer, values = read_checkpoint(folder)
    name = name or f"{values.get('name') or Path(checkpoint).name}{'-scratch' if scratch else ''}"
    identity = digest_of([config.to_dict(), tokenizer.identity, None if scratch else read_json(folder / SUMS)[WEIGHTS]])
    return Start(name.replace("/", "_"), str(checkpoint), None if scratch else weights, config, tokenizer, identity)


def build_model(start: Start, kind: str, n_labels: int, seed: int, reinitialise_layers: int = 0) -> TaskModel:
    """A new task model; all that the checkpoint does not give is drawn from `seed`.

    A pooler that the checkpoint lacks (masked-LM pre-training trains none) is new. `reinitialise_layers` gives the last
    so many blocks new weights (arXiv 2006.05987 §5).
    """
    torch.manual_seed(seed)
    if not 0 <= reinitialise_layers <= start.config.layers:
        raise UserError(f"recipe.reinitialise_layers={reinitialise_layers}: the encoder has {start.config.layers} layers.")
    encoder = Encoder(start.config, pooler=kind in POOLED)
    if start.weights is not None:
        fresh = {name: value.clone() for name, value in encoder.state_dict().items()}
        first = start.config.layers - reinitialise_layers
        new = tuple(f"blocks.{number}." for number in range(first, start.config.layers))
        own = {n.removeprefix("encoder."): v for n, v in start.weights.items() if n.startswith("encoder.")}
        own = {n: v for n, v in own.items() if n in fresh or not n.startswith("pooler.")}
        own |= {n: v for n, v in fresh.items() if (n.startswith("pooler.") and n not in own) or (new and n.startswith(new))}
        fill(encoder, own, start.path)
    return TaskModel(encoder, kind, n_labels)


def parameter_groups(model: TaskModel, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups for AdamW: no weight decay on norms and biases; `layerwise_decay` d < 1 gives block i of L the rate
    lr x d^(L - i), embeddings the least, head and pooler the whole (arXiv 2003.10555, appendix B)."""
    layers, groups = model.encoder.config.layers, {}
    for name, parameter in model.named_parameters():
        if name.startswith("encoder.blocks."):
            depth = int(name.split(".")[2]) + 1
        else:
            depth = 0 if name.startswith(EMBEDDINGS) else layers + 1
        rate = recipe["lr"] * recipe["layerwise_decay"] ** (layers + 1 - depth)
        decay = recipe["weight_decay"] if parameter.ndim >= 2 else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "peak": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def prepare_data(settings: dict[str, Any], start: Start, cache: dict[Any, Any]) -> Data:
    """Load a task and tokenise it; `cache` is shared over seeds, and over models with the same tokenizer and length."""
    options = settings["task"]
    longest = options["max_length"] or MAX_LENGTH.get(options["kind"], 128)
    max_length = min(longest, start.config.max_length)
    key = digest_of({k: v for k, v in options.items() if k != "recipe"})
    if key not in cache:
        cache[key] = load_task(options)
    task: Task = cache[key]
    overlap = options.get("window_overlap_tokens")
    if longest > max_length and overlap is not None:
        overlap = min(overlap, max_length // 3)
    rows = (key, start.tokenizer.identity, max_length)
    if rows not in cache:
        splits = {
            split: encode(getattr(task, split), task.kind, start.tokenizer, task.labels, max_length, overlap)
            for split in ("train", "dev", "test")
        }
        notes = [*task.notes, *(f"{split}: {note}" for split, part in splits.items() for note in part.notes)]
        if longest > max_length:
            notes.append(f"max_length {longest} is above the encoder's: rows have at most {max_length} tokens")
        digest = digest_of([task.digest, task.metric, task.positive, overlap])
        cache[rows] = Data(task, splits, max_length, overlap, digest, notes)
    return cache[rows]


def run_digest(settings: dict[str, Any], start: Start, data: Data, seed: int) -> str:
    """Identity of one run: all that decides its result but the machine."""
    return digest_of([VERSION, settings["recipe"], settings["precision"], start.identity, data.digest, data.max_length, seed])


def finished(folder: Path, digest: str, need_checkpoint: bool) -> dict[str, Any] | None:
    """The summary of a finished run of the same digest in `folder`, else None."""
    summary = read_json(folder / "summary.json") if (folder / "summary.json").exists() else {}
    names = ("predictions-dev.jsonl", "predictions-test.jsonl")
    whole = summary.get("status") == "done" and summary.get("digest") == digest and all((folder / n).exists() for n in names)
    if whole and need_checkpoint:
        try:
            verify_checkpoint(folder / "checkpoint")
        except (UserError, safetensors.SafetensorError):
            return None
    return summary if whole else None
