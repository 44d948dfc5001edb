"""Task scores during pre-training: a short, seeded fine-tuning, scored on dev. The test split is not read.

Held-out loss alone can mislead: a run with fewer bits per character has had worse task scores than new weights.
"""

import math
import tempfile
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from common.errors import UserError
from common.files import ROOT, read_json
from common.launch import read_option
from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from tokenization.tokenizer import Tokenizer
from training.augmentation import check_augment
from training.defaults import with_defaults
from training.finetuning import Diverged, run_seed
from training.recipe import settings_for
from training.runs import Data, Run, prepare_data
from training.settings import Evaluation, Finetuning
from training.task_models import Start

HELDOUT = "heldout"  # the objective that is not a task: bits per character
SEED = 0  # of every fine-tuning: scores of two checkpoints differ only by their weights


def check_objective(objective: str, tasks: list[str]) -> None:
    """UserError for a task without a file in conf/task and an objective that is not scored. `tasks`: evaluation.tasks."""
    for task in tasks:
        read_option("task", task)
    if objective not in (HELDOUT, *tasks):
        known = ", ".join([HELDOUT, *tasks])
        raise UserError(f"objective={objective}: choose one of {known} (a task must be in evaluation.tasks too).")


def prepare_tasks(
    evaluation: Evaluation, language: str, precision: str, tokenizer: Tokenizer, shape: EncoderConfig
) -> dict[str, tuple[Finetuning, Data]]:
    """{task: (settings of its fine-tuning, its data)} for evaluation.tasks, read and encoded once."""
    shared = OmegaConf.load(ROOT / "conf" / "recipe.yaml")
    own = {"language": language, "precision": precision, "workdir": "", "out": "", "cache": None, "task": {}}
    shared.pop("defaults")
    config = OmegaConf.merge(shared, own)
    prepared = {}
    for name in evaluation.tasks:
        found = settings_for(config, name)
        found.recipe.epochs = min(found.recipe.epochs, evaluation.tasks_epochs)
        data = prepare_data(found.task, Start("model", "", None, shape, tokenizer, ""), {})
        check_augment(found.recipe, data.task)
        prepared[name] = found, data
    return prepared


def score_tasks(
    tasks: dict[str, tuple[Finetuning, Data]], model: MaskedLM, tokenizer: Tokenizer, device: torch.device
) -> dict[str, float | None]:
    """{task: dev score, 0 to 1, by the task's metric} of `model` in its present state; None if fine-tuning diverged.

    The model, the random generators and the files of the run are unchanged afterwards.
    """
    weights = {name: value.detach().cpu().clone() for name, value in model.weights().items()}
    start = Start("model", "", weights, model.encoder.config, tokenizer, "")
    scores: dict[str, float | None] = {}
    with torch.random.fork_rng([device] if device.type == "cuda" else []), tempfile.TemporaryDirectory() as out:
        for name, (settings, data) in tasks.items():
            filled, _ = with_defaults(settings, start)
            try:
                scores[name] = run_seed(Run(filled, start, data, SEED, device, Path(out), trial="dev"))["dev_score"]
            except Diverged:
                scores[name] = None
    return scores


def objective_of(config: DictConfig) -> float:
    """The objective of a sweep: held-out bits per character, or a task's score on dev. NaN if there is none."""
    path = Path(config.run_dir) / "summary.json"
    if not path.exists():  # a rank on a host that does not share the first one's disk
        return math.nan
    found = read_json(path)
    value = found["heldout"]["bits_per_character"] if config.objective == HELDOUT else found["tasks"][config.objective]
    return math.nan if value is None else float(value)
