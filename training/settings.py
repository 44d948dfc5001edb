"""The settings of the four scripts: types, units and bounds of conf/*.yaml and of the groups that training reads."""

import math
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf

from common.errors import UserError
from common.launch import resolved
from common.settings import S, choice, keys_of, named, number, section, several, typed
from corpus.settings import Corpus, Mixture
from model.settings import Lora, Shape
from tasks.settings import TaskSettings
from tokenization.settings import Tokenizer


@dataclass
class Masking:
    """conf/masking."""

    unit: choice("token", "word", "span") = "token"
    rate_start: float = number(0.15, above=0, below=1)  # share of tokens
    rate_end: float = number(0.15, above=0, below=1)
    fixed_count: bool = True
    multiple: int = number(64, least=1)  # the number of masked tokens is rounded to a multiple of this
    causal: float = number(0.0, least=0, most=1)  # share of micro-batches that predict the next token instead
    causal_rate: float = number(1.0, above=0, most=1)  # share of tokens that these predict


@dataclass
class Optimizer:
    """conf/optimizer."""

    kind: choice("adamw", "muon") = "adamw"
    lr: float = number(1e-3, least=0)  # peak
    muon_lr: float = number(2e-3, least=0)  # peak of Muon's part
    muon_momentum: float = number(0.95, least=0, below=1)
    muon_weight_decay: float = number(0.1, least=0)
    beta1: float = number(0.9, least=0, below=1)
    beta2: float = number(0.98, least=0, below=1)
    eps: float = number(1e-6, above=0)
    weight_decay: float = number(0.01, least=0)


@dataclass
class Schedule:
    """conf/schedule."""

    kind: choice("linear", "cosine", "wsd", "constant") = "linear"
    warmup: float = number(0.05, least=0, most=1)  # share of the budget
    decay: float = number(0.2, above=0, most=1)  # share of the budget
    floor: float = number(0.0, least=0, most=1)  # factor on the peak


@dataclass
class TrackerSettings:
    """conf/tracker."""

    kind: choice("local", "wandb") = "local"
    project: str | None = None
    entity: str | None = None
    mode: choice("online", "offline") = "online"
    artifacts: bool = False

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """W&B must be installed if it is asked for."""
        if values.get("kind") == "wandb" and find_spec("wandb") is None:
            raise UserError(f"{where}=wandb: wandb is not installed. Install it (pip install wandb), or use tracker=local.")


@dataclass
class BatchWarmup:
    """A batch size that grows."""

    start_tokens: int = number(1024, least=1)
    share: float = number(0.0, least=0, most=1)  # of the budget


@dataclass
class Phase:
    """Documents are cut at max_length tokens until this share of the budget."""

    max_length: int = number(128, least=8)
    until: float = number(1.0, above=0, most=1)


@dataclass
class Budget:
    """The budget that ends the run."""

    steps: int | None = number(None, above=0)
    tokens: float | None = number(None, above=0)
    epochs: float | None = number(None, above=0)
    minutes: float | None = number(None, above=0)
    flops: float | None = number(None, above=0)

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """Exactly one is set."""
        given = {unit: amount for unit, amount in values.items() if amount is not None}
        if len(given) != 1:
            raise UserError(
                f"{where}: set exactly one of steps, tokens, epochs, minutes, flops to more than 0 (now: {given or 'none'})."
            )


@dataclass
class Watch:
    """Comparison with the start at every evaluation (training/watch.py)."""

    files: list[dict[str, Any]] | None = None  # {name, file}
    rise: float | None = number(None, above=0)  # nats a token
    patience: int | None = number(None, least=1)  # evaluations in a row


@dataclass
class Distill:
    """A teacher's probabilities at masked positions."""

    teacher: Any = None  # a checkpoint, or a list of them
    weight: float = number(0.5, least=0, most=1)  # share of the KL
    temperature: float = number(2.0, least=1e-3, most=1e3)
    hidden: choice("mse", "cosine") | None = None
    hidden_weight: float = number(1.0, least=0, most=1e6)
    layers: list[list[int]] | None = None  # [student, teacher]

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """Layers come in pairs; teachers are paths."""
        teacher = values.get("teacher")
        several_of = teacher if isinstance(teacher, list) else [teacher]
        if teacher is not None and not (several_of and all(isinstance(one, str) and one for one in several_of)):
            raise UserError(f"{where}.teacher={teacher}: expected the folder of a checkpoint, a list of them, or null.")
        pairs = values.get("layers")
        if pairs is not None and not (pairs and all(len(pair) == 2 for pair in pairs)):
            raise UserError(f"{where}.layers={pairs}: expected [[layer of the student, layer of the teacher], ...] or null.")

    @property
    def teachers(self) -> list[str]:
        """The checkpoints that teach; [] for none."""
        return list(self.teacher) if isinstance(self.teacher, list) else [self.teacher] if self.teacher else []


@dataclass
class Evaluation:
    """Held-out text."""

    every: int | None = number(None, least=1)  # steps
    max_tokens: int | None = number(None, least=1)
    tasks: list[str] = several()  # files of conf/task
    tasks_every: int | None = number(None, least=1)  # steps
    tasks_epochs: int = number(5, least=1)
    mask_prompts: list[str] = several()
    pairs: Any = None  # suite, a path or glob, or a list of them
    pairs_every: int | None = number(None, least=1)  # steps
    pairs_each: int | None = number(20, least=1)  # pairs a phenomenon


@dataclass
class Experiment:
    """Keys that all four scripts share, conf/base.yaml."""

    language: str | None = None  # a file of language/
    across_languages: bool = False  # allow a checkpoint or tokenizer of another language than the run's
    name: str = "demo"
    workdir: str = "runs/demo"
    device: choice("auto", "cpu", "cuda", "mps") = "auto"
    precision: choice("auto", "bf16", "fp32") = "auto"
    threads: int | None = number(None, least=1)
    deterministic: bool = False
    flash_attention: choice("auto", "FA2", "FA3") = "auto"
    tracker: TrackerSettings = section(TrackerSettings)
    price_per_hour: float | None = number(None, least=0)

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """The name is a folder below runs/."""
        if "name" in values and (not values["name"] or set(values["name"].split("/")) & {"", ".", ".."}):
            raise UserError(
                f"name={values['name']}: expected the name of a folder below runs/. Set workdir to write elsewhere."
            )


@dataclass
class Pretraining(Experiment):
    """prepare.py and train.py: conf/train.yaml."""

    corpus_dir: str = ""
    tokenizer_dir: str = ""
    shards_dir: str = ""
    heldout_file: str = ""
    seed: int = number(0, least=0)
    seed_data: int = number(0, least=0)
    run_dir: str = ""
    corpus: Corpus = section(Corpus)
    tokenizer: Tokenizer = section(Tokenizer)
    model: Shape = section(Shape)
    masking: Masking = section(Masking)
    optimizer: Optimizer = section(Optimizer)
    schedule: Schedule = section(Schedule)
    batch_tokens: int = number(4096, least=1)
    micro_batch_tokens: int = number(4096, least=1)
    batch_warmup: BatchWarmup = section(BatchWarmup)
    phases: list[Phase] = several()
    budget: Budget = section(Budget)
    mixture: Mixture = section(Mixture)
    start_from: str | None = None
    branch_from: str | None = None
    transplant: choice("random", "mean", "focus", "none") | None = None
    watch: Watch = section(Watch)
    distill: Distill = section(Distill)
    bias_from_counts: bool = False
    embeddings_from_text: bool = False
    last_block_on_masked: bool = True
    clip: float | None = number(1.0, above=0)  # gradient norm
    ema: float | None = number(None, above=0, below=1)  # decay a step
    compile: bool = False
    spike_sigmas: float | None = number(None, above=0)
    spike_window: int = number(128, least=2)  # steps
    max_skipped_in_a_row: int = number(20, least=1)  # steps
    resume: choice("auto", "never") = "auto"
    reuse: choice("same", "any") = "same"
    checkpoint_every: int | None = number(200, least=1)  # steps
    checkpoint_in_thread: bool | None = None  # on CUDA
    keep_checkpoints: Any = 2  # newest, or [steps]
    log_every: int = number(10, least=1)  # steps
    evaluation: Evaluation = section(Evaluation)
    objective: str = "heldout"  # or one of evaluation.tasks
    plan: bool = False
    profile: int | None = number(None, least=1)  # step that is timed

    @property
    def longest(self) -> int:
        """Tokens of the longest window that any phase reads."""
        return max(phase.max_length for phase in self.phases)

    @property
    def kept_steps(self) -> list[int]:
        """Steps whose checkpoints are written and kept; empty if only the newest are kept."""
        return self.keep_checkpoints if isinstance(self.keep_checkpoints, list) else []

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """A batch holds whole micro-batches, and documents fit the model."""
        Experiment.check(values, where)
        kept = values.get("keep_checkpoints", 2)
        if not kept or not all(type(step) is int and step > 0 for step in (kept if isinstance(kept, list) else [kept])):
            raise UserError(
                f"keep_checkpoints={kept}: expected the number of newest checkpoints to keep, of at least 1, or a list of the "
                "steps to keep beside the newest two, e.g. [100,200]."
            )
        batch, micro = values.get("batch_tokens"), values.get("micro_batch_tokens")
        if batch and micro and batch < micro:
            raise UserError(
                f"batch_tokens={batch} is below micro_batch_tokens={micro}, the least that a step can have. Lower that too."
            )
        longest = (values.get("model") or {}).get("max_length")
        for phase in values.get("phases") or []:
            if longest and phase["max_length"] > longest:
                raise UserError(
                    f"phases: max_length {phase['max_length']} is above the model's (model.max_length={longest}). "
                    "Lower the one or raise the other."
                )
        if values.get("phases") == []:
            raise UserError("phases: none given. The last has until: 1.0, e.g. phases=[{max_length: 128, until: 1.0}].")
        Pretraining.check_start(values)
        for sentence in (values.get("evaluation") or {}).get("mask_prompts") or []:
            if "[MASK]" not in sentence and "<mask>" not in sentence:
                raise UserError(f"evaluation.mask_prompts: {sentence!r} has no [MASK]. Write [MASK] in the place of a word.")

    @staticmethod
    def check_start(values: dict[str, Any]) -> None:
        """A shape, tokenizer or vocabulary that comes from a checkpoint needs that checkpoint."""
        teacher = (values.get("distill") or {}).get("teacher")
        for given, wanted, known in (
            ((values.get("model") or {}).get("architecture") == "imported", "model=imported", values.get("start_from")),
            (
                (values.get("tokenizer") or {}).get("kind") == "imported",
                "tokenizer=imported",
                values.get("start_from") or teacher,
            ),
            (
                values.get("transplant") not in (None, "none"),
                f"transplant={values.get('transplant')}",
                values.get("start_from"),
            ),
        ):
            if given and not known:
                raise UserError(f"{wanted}: whose? Set start_from to a checkpoint, a Hugging Face folder or hub://owner/name.")


@dataclass
class Preparation:
    """The keys of these that prepare.py reads; others are accepted, so that one command line serves both scripts."""

    language: str | None = None
    across_languages: bool = False
    name: str = ""
    workdir: str = ""
    corpus_dir: str = ""
    tokenizer_dir: str = ""
    shards_dir: str = ""
    seed_data: int = 0
    corpus: Corpus = section(Corpus)
    tokenizer: Tokenizer = section(Tokenizer)
    mixture: Mixture = section(Mixture)
    start_from: str | None = None
    distill: Distill = section(Distill)


def augmentation_of(value: Any, where: str = "recipe.augment") -> tuple[float, float]:
    """(share of the examples, share of the letters or words of each) of one entry of recipe.augment. UserError for others."""
    parts = {"share": 1.0, **value} if isinstance(value, dict) else {"examples": value, "share": 1.0}
    good = all(type(n) in (int, float) and 0 <= n <= 1 for n in parts.values())
    if set(parts) != {"examples", "share"} or not good:
        raise UserError(f"{where}={value}: expected a share of the examples, 0 to 1, or {{examples: 0.3, share: 0.1}}.")
    return parts["examples"], parts["share"]


@dataclass
class Recipe:
    """How a task is learned: `recipe` of conf/recipe.yaml."""

    optimizer: choice("adamw", "muon") = "adamw"
    lr: Any = number(None, least=0, words=("auto",))  # peak; null: by the checkpoint
    batch_size: int = number(32, least=1)  # examples
    epochs: int = number(10, least=1)
    warmup: float = number(0.1, least=0, most=1)  # share of the steps
    weight_decay: float = number(0.01, least=0)
    beta1: float = number(0.9, least=0, below=1)
    beta2: float = number(0.999, least=0, below=1)
    eps: float = number(1e-6, least=0)
    clip: float | None = number(1.0, least=0)  # gradient norm
    patience: int | None = number(5, least=1)  # epochs
    ema: float = number(0.0, least=0, below=1)  # decay a step; 0: off
    dropout: float | None = number(None, least=0, below=1)  # probability
    label_smoothing: float = number(0.0, least=0, below=1)  # share of the target
    mlm: float = number(0.0, least=0)  # weight in the loss
    ngrams: int = number(0, least=0)  # buckets; 0: off
    pooling: choice("pooler", "cls", "mean") | None = None
    head: choice("linear", "modern") = "linear"
    class_weights: Any = None  # balanced, or {label: weight}
    layerwise_decay: float = number(1.0, least=0, most=1)  # factor a layer
    reinitialise_layers: int = number(0, least=0)
    adapter: choice("lora") | None = None
    lora: Lora = section(Lora)
    freeze_layers: int | None = number(None, least=0)
    linear_probe: bool = False
    teacher: Any = None  # path of a fine-tuned checkpoint
    teacher_weight: float = number(0.5, least=0, most=1)  # share of the loss
    temperature: float = number(2.0, least=1e-3)
    init_seed: int | None = number(None, least=0)
    order_seed: int | None = number(None, least=0)
    dropout_seed: int | None = number(None, least=0)
    max_tokens: int = number(16384, least=1)  # of one forward pass
    length_group: int = number(1, least=1)  # steps
    augment: dict[str, Any] | None = None  # perturbation: share of the examples, or {examples, share}

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """Only one setting says what is trained, and what is changed while it is."""
        for name, value in (values.get("augment") or {}).items():
            augmentation_of(value, f"{where}.augment.{name}")
        if values.get("augment") and values.get("teacher"):
            raise UserError(f"{where}.augment and {where}.teacher: a teacher has read the texts as they are. Set one of them.")
        ways = {
            "adapter": values.get("adapter"),
            "linear_probe": values.get("linear_probe"),
            "freeze_layers": values.get("freeze_layers") is not None,
        }
        if len(chosen := [key for key, is_set in ways.items() if is_set]) > 1:
            raise UserError(f"{where}.{chosen[0]} and {where}.{chosen[1]}: two answers to what is trained. Set one of them.")
        if chosen and values.get("reinitialise_layers"):
            raise UserError(
                f"{where}.{chosen[0]} and {where}.reinitialise_layers: new weights that stay frozen. Set one of them."
            )
        barred = {"recipe.mlm": values.get("mlm"), "recipe.optimizer=muon": values.get("optimizer") == "muon"}
        for what in (what for what, is_set in barred.items() if is_set and values.get("linear_probe")):
            raise UserError(f"{where}.linear_probe and {what}: a probe trains no matrix of the encoder. Set one of them.")
        if values.get("optimizer") == "muon" and values.get("adapter"):
            raise UserError(f"{where}.adapter and recipe.optimizer=muon: adapters are trained by AdamW. Set one of them.")
        if values.get("ngrams") and (values.get("adapter") or values.get("linear_probe")):
            raise UserError(f"{where}.ngrams: neither an adapter's file nor a probe holds n-grams. Set it to 0.")
        if not isinstance(values.get("teacher"), str | None):
            raise UserError(f"{where}.teacher={values['teacher']}: expected the path of a fine-tuned checkpoint.")
        weights = values.get("class_weights")
        numbers = weights.values() if isinstance(weights, dict) else ()
        good = numbers and all(type(n) in (int, float) and 0 <= n < math.inf for n in numbers)
        if weights not in (None, "balanced") and not good:
            raise UserError(
                f"{where}.class_weights={weights}: expected null, balanced or {{label: weight of at least 0, ...}}."
            )
        if values.get("linear_probe") and values.get("head") == "modern":
            raise UserError(f"{where}.linear_probe and {where}.head=modern: a probe has a linear head. Set head to linear.")


@dataclass
class Finetuning(Experiment):
    """finetune.py: conf/finetune.yaml."""

    task: TaskSettings = section(TaskSettings)
    checkpoint: str = ""
    model_name: str | None = None
    scratch: bool = False
    out: str = ""
    seeds: Any = None  # auto, one, or a list
    cache: str | None = None
    save_checkpoint: bool = True
    recipe: Recipe = section(Recipe)


@dataclass
class Report:
    """Inputs of the report."""

    title: str = ""
    pretraining: str | None = None
    corpus: str | None = None
    overlap: str | None = None


@dataclass
class Transfer:
    """Languages against languages (training/transfer_matrix.py); without tasks, benchmark.py makes its table."""

    tasks: list[dict[str, Any]] = several()  # {name, kind, languages, train, dev, test, ...}
    sources: list[str] = several()
    shots: list[int] = several(0)  # training examples of the target
    oracle: bool = False
    latin: bool = False
    least: int = number(50, least=1)  # examples

    @staticmethod
    def check(values: dict[str, Any], where: str) -> None:
        """Shots are counts."""
        if not all(type(k) is int and k >= 0 for k in values.get("shots") or []):
            raise UserError(f"{where}.shots={values['shots']}: expected counts of training examples, e.g. [0,8,32].")


@dataclass
class Benchmark(Finetuning):
    """benchmark.py: conf/benchmark.yaml."""

    transfer: Transfer = section(Transfer)
    models: list[dict[str, Any]] = several()
    baselines: list[str] = several()
    stack: list[str] = several()  # of the baselines
    tasks: list[Any] = several()  # names, or {name, kind, train, ...}
    tuning: dict[str, Any] | None = named()  # {key of recipe: [values], ..., seeds: [...]}
    report: Report = section(Report)
    corpus_dir: str = ""
    start_from: str | None = None


@dataclass
class Sentences:
    """python -m training.sentences: conf/sentences.yaml."""

    name: str = "sentences"
    language: str | None = None  # of the documents; null: the checkpoint's
    across_languages: bool = False
    checkpoint: str = MISSING
    documents: Any = None  # glob, or list of globs
    test: str | None = None
    run_dir: str = ""
    seed: int = number(0, least=0)
    device: choice("auto", "cpu", "cuda", "mps") = "auto"
    precision: choice("auto", "bf16", "fp32") = "auto"
    threads: int | None = number(None, least=1)
    pairs: int = number(50000, least=1)
    epochs: int = number(1, least=1)
    batch: int = number(64, least=2)  # pairs
    max_length: int = number(128, least=8)  # tokens
    temperature: float = number(0.05, above=0)
    clip: float | None = number(1.0, above=0)  # gradient norm
    log_every: int = number(10, least=1)  # steps
    optimizer: Optimizer = section(Optimizer)
    schedule: Schedule = section(Schedule)
    tracker: TrackerSettings = section(TrackerSettings)


@dataclass
class MinimalPairs:
    """python -m training.minimal_pairs: conf/minimal_pairs.yaml."""

    name: str = "minimal_pairs"
    checkpoint: str = MISSING
    pairs: Any = None  # path, glob, or list of them; null: the suite of `language`
    language: str | None = None  # null: the checkpoint's
    run_dir: str = ""
    device: choice("auto", "cpu", "cuda") = "auto"
    threads: int | None = number(None, least=1)
    batch_tokens: int = number(4096, least=16)


@dataclass
class Robustness:
    """python -m training.robustness: conf/robustness.yaml."""

    name: str = "robustness"
    checkpoint: Any = MISSING  # folder, or list of folders
    perturbations: list[str] = several()
    shares: list[float] = several(0.25, 0.5, 0.75, 1.0)
    seed: int = number(0, least=0)
    worst: int = number(10, least=0)  # items
    run_dir: str = ""
    device: choice("auto", "cpu", "cuda") = "auto"
    threads: int | None = number(None, least=1)
    batch_tokens: int = number(16384, least=16)


def settings_of(config: DictConfig, schema: type[S]) -> S:
    """What a script reads of its config, resolved and checked. Keys of the other scripts are left out; UserError for others."""
    others = {*keys_of(Pretraining), *keys_of(Benchmark)} - {*keys_of(schema)}
    return typed(schema, resolved(OmegaConf.masked_copy(config, [key for key in config if key not in others]), schema))
