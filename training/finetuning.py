"""What finetune.py and benchmark.py call beside the loop: where a run starts from, its data, its parameter groups."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from common.files import digest_of, read_json, write_jsonl
from common.launch import ROOT, resolved
from data.features import FEATURES, Encoded, encode, separators
from data.task_records import texts_of
from data.tasks import SPLITS, Task, load_task
from data.token_cache import cached
from model.adapters import depth_of
from model.encoder import EncoderConfig
from model.folder import SUMS, WEIGHTS, fill, verify_checkpoint
from model.foreign import ForeignConfig, build_encoder
from model.heads import POOLINGS, TaskModel, has_pooler
from model.modern_head import add_modern_head
from model.store import read_checkpoint, resolve_checkpoint
from tokenization.tokenizer import Tokenizer
from training.teachers import identity_of, ledger, teacher_of

VERSION = 3  # of features and loop: a change that changes results makes finished runs be run again
# Keys of the config that fine-tuning reads; any other key on the command line is refused, not ignored.
READ = ("checkpoint", "model_name", "scratch", "out", "seeds", "save_checkpoint", "task", "recipe", "device", "precision",
        "threads", "tracker", "name", "workdir", "cache", "price_per_hour", "experiment", "debug", "launcher",
        "hydra")  # fmt: skip
# Settings of the recipe that are words.
CHOICES = {"pooling": POOLINGS, "head": ("linear", "modern"), "adapter": (None, "lora"), "probe": (False, True)}
SEEDS = ("init_seed", "order_seed", "dropout_seed")  # each the run's own where it is null (Dodge 2020, arXiv 2002.06305)
LORA = {"rank": 8, "alpha": 16, "dropout": 0.0, "targets": ["query", "value"]}
MAX_LENGTH = {"qa": 384}  # pieces, where the task does not say; 128 for the other kinds
# Seeds of `auto`. With 5 against 5 runs no rank test gets below Holm's bound for six tasks, with 10 it does; tasks of more
# than 10k rows vary less and cost more, and have 5.
FEW_ROWS, SEEDS_OF_FEW, SEEDS_OF_MANY = 10_000, 10, 5


@dataclass
class Start:
    """What a run starts from: a checkpoint's weights, or its shape and tokenizer alone (weights None)."""

    name: str
    path: str
    weights: dict[str, torch.Tensor] | None
    config: EncoderConfig
    tokenizer: Tokenizer
    identity: str  # digest of all that decides the weights
    ledger: dict[str, float | None] = field(default_factory=dict)  # device hours of every run behind the weights, if known


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
            hints = {"optimizer": "the fine-tuning rate is recipe.lr", "distill": "a fine-tuning teacher is recipe.teacher"}
            hint = hints.get(key.split(".")[0], f"it reads {', '.join(read)}")
            raise UserError(f"{key}: {script} does not read this key ({hint}). Remove it.")


def settings_for(config: DictConfig, task: str | Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The resolved config, with `task` in its place: a name in conf/task, or keys laid over conf/task/local.yaml, or over
    the file that its key `task` names, as in {task: cbmcq, blind: question}."""
    if task is not None:
        config = config.copy()
        OmegaConf.set_struct(config, False)
        keys = {} if isinstance(task, str) else dict(task)
        task = task if isinstance(task, str) else keys.pop("task", "local")
        path = ROOT / "conf" / "task" / f"{task}.yaml"
        if not path.exists():
            known = ", ".join(sorted(file.stem for file in path.parent.glob("*.yaml")))
            raise UserError(f"task {task!r}: no such file in conf/task. There are: {known}.")
        chosen = OmegaConf.load(path)
        if unknown := [key for key in keys if key not in chosen]:
            raise UserError(f"tasks: unknown key {unknown[0]!r}. A task has: {', '.join(map(str, chosen))}.")
        config.task = OmegaConf.merge(chosen, keys)
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
    """UserError for a value that cannot work, and for values that cannot work together."""
    least = {"lr": 0, "batch_size": 1, "epochs": 1, "warmup": 0, "weight_decay": 0, "max_tokens": 1, "bucket": 1, "eps": 0,
             "reinitialise_layers": 0, "layerwise_decay": 0, "patience": 1, "clip": 0, "freeze_layers": 0,
             "teacher_weight": 0, "temperature": 1e-3}  # fmt: skip
    whole = ("batch_size", "epochs", "max_tokens", "bucket", "reinitialise_layers", "patience", "freeze_layers", *SEEDS)
    for key, value in recipe.items():
        if key in CHOICES:
            if value not in CHOICES[key] or isinstance(value, int) != (key == "probe"):
                known = ", ".join({None: "null", True: "true", False: "false"}.get(word, word) for word in CHOICES[key])
                raise UserError(f"recipe.{key}={value}: expected one of {known}. See conf/recipe.yaml.")
            continue
        if value is None and key in ("patience", "clip", "freeze_layers", "teacher", *SEEDS):
            continue
        if key == "lora":
            check_lora(value)
            continue
        if key == "teacher":
            if not isinstance(value, str):
                raise UserError(f"recipe.teacher={value}: expected the path of a fine-tuned checkpoint.")
            continue
        number = isinstance(value, int) if key in whole else isinstance(value, int | float)
        share = key in ("warmup", "layerwise_decay", "teacher_weight")
        if not number or isinstance(value, bool) or value < least.get(key, 0) or (share and value > 1):
            kind = "a whole number" if key in whole else "a number"
            raise UserError(f"recipe.{key}={value}: expected {kind} of at least {least.get(key, 0)}. See conf/recipe.yaml.")
    ways = {"adapter": recipe.get("adapter"), "probe": recipe.get("probe"),
            "freeze_layers": recipe.get("freeze_layers") is not None}  # fmt: skip
    if len(chosen := [key for key, is_set in ways.items() if is_set]) > 1:
        raise UserError(f"recipe.{chosen[0]} and recipe.{chosen[1]}: two answers to what is trained. Set one of them.")
    if chosen and recipe.get("reinitialise_layers"):
        raise UserError(f"recipe.{chosen[0]} and recipe.reinitialise_layers: new weights that stay frozen. Set one of them.")
    if recipe.get("probe") and recipe.get("head") == "modern":
        raise UserError("recipe.probe and recipe.head=modern: a probe has a linear head. Set head to linear.")


def check_lora(values: Any) -> None:
    """UserError for recipe.lora that is not {rank, alpha, dropout, targets} with values that can work."""
    if not isinstance(values, dict) or set(values) != set(LORA):
        raise UserError(f"recipe.lora={values}: expected {{{', '.join(LORA)}}}. See conf/recipe.yaml.")
    targets = values["targets"]
    for key, good, wanted in (
        ("rank", type(values["rank"]) is int and values["rank"] >= 1, "a whole number of at least 1"),
        ("alpha", type(values["alpha"]) in (int, float) and values["alpha"] > 0, "a number above 0"),
        ("dropout", type(values["dropout"]) in (int, float) and 0 <= values["dropout"] < 1, "a share of at least 0, below 1"),
        ("targets", isinstance(targets, list) and targets and all(type(t) is str and t for t in targets), "a list of names"),
    ):
        if not good:
            raise UserError(f"recipe.lora.{key}={values[key]}: expected {wanted}. See conf/recipe.yaml.")


def with_recipe(settings: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """`settings` with the keys of `own` laid over its recipe (keys of lora one by one), checked. UserError for other keys."""
    if unknown := sorted(set(own) - set(settings["recipe"])):
        raise UserError(f"models: recipe.{unknown[0]}: no such setting. There are: {', '.join(settings['recipe'])}.")
    if "lora" in own and isinstance(own["lora"], dict):
        own = {**own, "lora": {**settings["recipe"]["lora"], **own["lora"]}}
    recipe = {**settings["recipe"], **own}
    check_recipe(recipe)
    return {**settings, "recipe": recipe}


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
    runs = {} if scratch else ledger(folder)
    return Start(name.replace("/", "_"), str(checkpoint), None if scratch else weights, config, tokenizer, identity, runs)


def build_model(
    start: Start,
    kind: str,
    n_labels: int,
    seed: int,
    reinitialise_layers: int = 0,
    pooling: str = "pooler",
    head: str = "linear",
) -> TaskModel:
    """A new task model; all that the checkpoint does not give is drawn from `seed`.

    A pooler that the checkpoint lacks (masked-LM pre-training trains none) is new. `reinitialise_layers` gives the last
    so many blocks new weights (arXiv 2006.05987 §5). `head` modern: ModernBERT's dense layer and norm before the last one,
    started from the masked-LM head, for `modern` encoders without the pooler. Raises UserError where these do not go together.
    """
    torch.manual_seed(seed)
    if not 0 <= reinitialise_layers <= start.config.layers:
        raise UserError(f"recipe.reinitialise_layers={reinitialise_layers}: the encoder has {start.config.layers} layers.")
    if reinitialise_layers and isinstance(start.config, ForeignConfig):
        raise UserError(f"recipe.reinitialise_layers={reinitialise_layers}: not for encoders of other architectures; set 0.")
    encoder = build_encoder(start.config, has_pooler(kind, pooling))
    if start.weights is not None:
        fresh = {name: value.clone() for name, value in encoder.state_dict().items()}
        first = start.config.layers - reinitialise_layers
        new = tuple(f"blocks.{number}." for number in range(first, start.config.layers))
        own = {n.removeprefix("encoder."): v for n, v in start.weights.items() if n.startswith("encoder.")}
        own = {n: v for n, v in own.items() if n in fresh or not n.startswith("pooler.")}
        own |= {n: v for n, v in fresh.items() if (n.startswith("pooler.") and n not in own) or (new and n.startswith(new))}
        fill(encoder, own, start.path)
    model = TaskModel(encoder, kind, n_labels, pooling)
    if head == "modern":
        add_modern_head(model, start.weights)
    return model


def parameter_groups(model: TaskModel, recipe: dict[str, Any]) -> list[dict[str, Any]]:
    """Groups for AdamW: no weight decay on norms and biases; `layerwise_decay` d < 1 gives block i of L the rate
    lr x d^(L - i), embeddings the least, head and pooler the whole (arXiv 2003.10555, appendix B)."""
    layers, groups = model.encoder.config.layers, {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth = depth_of(name, layers)
        rate = recipe["lr"] * recipe["layerwise_decay"] ** (layers + 1 - depth)
        decay = recipe["weight_decay"] if parameter.ndim >= 2 else 0.0
        group = groups.setdefault((rate, decay), {"params": [], "lr": rate, "peak": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return list(groups.values())


def prepare_data(settings: dict[str, Any], start: Start, cache: dict[Any, Any]) -> Data:
    """Load a task and tokenise it; `cache` is shared over seeds, and over models with the same tokenizer and length.

    settings["cache"], a folder or None, keeps the tokens for other processes and later runs (see data.token_cache).
    """
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
        splits = {split: _encoded(settings.get("cache"), task, split, start.tokenizer, max_length, overlap) for split in SPLITS}
        notes = [*task.notes, *(f"{split}: {note}" for split, part in splits.items() for note in part.notes)]
        if longest > max_length:
            notes.append(f"max_length {longest} is above the encoder's: rows have at most {max_length} tokens")
        framed = ["two separators"] * (separators(start.tokenizer) == 2)  # what was made when there was one is not reused
        digest = digest_of([task.digest, task.metric, task.positive, overlap, *framed])
        cache[rows] = Data(task, splits, max_length, overlap, digest, notes)
    return cache[rows]


def _encoded(folder: str | None, task: Task, split: str, tokenizer: Tokenizer, max_length: int, overlap: int | None) -> Encoded:
    examples = getattr(task, split)

    def make() -> Encoded:
        return encode(examples, task.kind, tokenizer, task.labels, max_length, overlap)

    if not folder:
        return make()
    key = digest_of([FEATURES, tokenizer.identity, task.kind, task.labels, max_length, overlap, examples])
    return cached(Path(folder) / f"{task.name}-{split}-{key[:16]}.npz", key, make)


def write_inputs(out: Path, task: Task) -> None:
    """What a reader of the predictions needs once a task, in <out>/inputs.

    <task>-test.jsonl: {"id", "text"} of every test example, all its texts joined by newlines, for the leakage check.
    <task>-skipped.jsonl: every record that is not used, and ("kept": true) those that were repaired or are doubtful.
    """
    write_jsonl(
        out / "inputs" / f"{task.name}-test.jsonl",
        ({"id": example["id"], "text": "\n".join(_shown(task.kind, example))} for example in task.test),
    )
    listed = [{**record, "kept": kept} for records, kept in ((task.skipped, False), (task.noted, True)) for record in records]
    write_jsonl(out / "inputs" / f"{task.name}-skipped.jsonl", listed)


def _shown(kind: str, example: dict[str, Any]) -> list[str]:
    return [" ".join(example["words"])] if kind == "tagging" else texts_of(example)


def seeds_for(seeds: list[int] | str, data: Data) -> list[int]:
    """The seeds of one task: as given, or for "auto" 0 to 9 below 10,001 training rows, 0 to 4 above and for qa."""
    if seeds != "auto":
        return list(seeds)
    few = data.task.kind != "qa" and len(data.task.train) <= FEW_ROWS
    return list(range(SEEDS_OF_FEW if few else SEEDS_OF_MANY))


def run_digest(settings: dict[str, Any], start: Start, data: Data, seed: int) -> str:
    """Identity of one run: all that decides its result but the machine."""
    recipe = {key: value for key, value in settings["recipe"].items() if key not in SEEDS or value is not None}
    teacher = teacher_of(recipe, data.task.name, seed)
    taught = [] if teacher is None else [identity_of(teacher)]
    return digest_of([VERSION, recipe, settings["precision"], start.identity, data.digest, data.max_length, seed, *taught])


def finished(folder: Path, digest: str, need_checkpoint: bool, splits: tuple[str, ...]) -> dict[str, Any] | None:
    """The summary of a finished run of the same digest, with predictions of `splits`, in `folder`; else None."""
    try:
        summary = read_json(folder / "summary.json") if (folder / "summary.json").exists() else {}
    except UserError:  # damaged: as good as not there
        summary = {}
    names = [f"predictions-{split}.jsonl" for split in splits]
    whole = summary.get("status") == "done" and summary.get("digest") == digest and all((folder / n).exists() for n in names)
    if whole and need_checkpoint:
        try:
            verify_checkpoint(folder / "checkpoint")
        except (UserError, safetensors.SafetensorError):
            return None
    return summary if whole else None
