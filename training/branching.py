"""Branch a pre-training run: go on from one of its checkpoints in a folder of its own, with another budget and schedule.

    python train.py branch_from=RUN/checkpoints/step-200 budget.steps=400 schedule.kind=wsd

Weights, optimizers and counters are those of the checkpoint, so where the settings agree the branch equals an uninterrupted
run bit by bit. The budget is that of the whole: it counts from the first step of the run that is branched.
"""

import math
from pathlib import Path
from typing import Any

import torch

from common.errors import UserError
from common.files import read_json
from common.settings import plain
from model.folder import verify_checkpoint
from model.mlm import MaskedLM
from model.store import read_config
from tokenization.tokenizer import Tokenizer
from training.checkpoints import load_state, state_folder
from training.distributed import Ranks
from training.identity import CORPUS, FILE, corpus_of, read_settings
from training.optimizers import Average
from training.plan import State, budget_of
from training.settings import Pretraining
from training.tracking import flatten

DISTILLED = ("distill.hidden", "distill.layers")  # decide which projections there are
# Settings that the counters (which batch of which epoch comes next) and the optimizers' files depend on.
SAME = ("seed", "micro_batch_tokens", "mixture", "start_from", "transplant", "optimizer.kind", *DISTILLED)
FREE = ("dropout",)  # keys of the shape that decide no weights


def take_branch(
    settings: Pretraining,
    model: MaskedLM,
    optimizers: list[torch.optim.Optimizer],
    average: Average | None,
    tokenizer: Tokenizer,
    ranks: Ranks,
    tokens_per_epoch: float,
) -> State:
    """Fill model, optimizers and average from settings.branch_from; returns its counters.

    Raises UserError for a checkpoint that is damaged or without its run's record, for one of another corpus, tokenizer,
    shape or number of ranks, for another setting of SAME, and for a budget that it has used up.
    """
    where, folder = f"branch_from={settings.branch_from}", state_folder(settings.branch_from or "")
    verify_checkpoint(folder)
    before = check_run(settings, folder, where)
    shape, now = read_config(folder)[0].to_dict(), model.encoder.config.to_dict()
    if other := [f"{key}: {shape[key]} -> {now[key]}" for key in now if key not in FREE and shape.get(key) != now[key]]:
        raise UserError(f"{where}: holds another model than this run's ({'; '.join(other[:3])}). Set model to that run's.")
    state = State(**load_state(folder, model, optimizers, average, tokenizer))
    if state.ranks not in (0, ranks.world):
        raise UserError(
            f"{where}: was trained on {state.ranks} rank(s), this run has {ranks.world}, so its batches would differ. Start "
            f"torchrun with --nproc-per-node for {state.ranks} in all."
        )
    budget = budget_of(settings.budget, tokens_per_epoch)
    if budget["unit"] == "flops" and before.get("budget.flops") is None:  # plan_steps counts them only as a budget
        state.planned_flops = state.flops
    used = {"steps": state.step, "tokens": state.tokens, "flops": state.planned_flops, "minutes": state.seconds / 60}
    unit, amount = budget["unit"], budget["amount"]
    if used[unit] >= amount:
        raise UserError(
            f"{where}: has used {used[unit]:,.10g} {unit} already, the budget is {amount:,.10g}. It counts from the first "
            f"step of that run: set a budget above {math.ceil(used[unit]):,} {unit}."
        )
    return state


def check_run(settings: Pretraining, folder: Path, where: str) -> dict[str, Any]:
    """The settings, as one level, of the run that the checkpoint `folder` belongs to.

    UserError without them, for other values of SAME, and for another corpus.
    """
    run = folder.parent.parent
    before, made_of = read_settings(run), run / FILE
    if before is None or not made_of.exists():
        raise UserError(
            f"{where}: its run's config.yaml and {FILE} are not in {run}, so its corpus and settings are not known. Copy the "
            "whole run, or take its weights with start_from."
        )
    theirs, ours = flatten(before), flatten(plain(settings))
    held = {key: value for key, value in ours.items() if any(f"{key}.".startswith(f"{same}.") for same in SAME)}
    if other := [f"{key}: {theirs[key]} -> {value}" for key, value in held.items() if theirs.get(key, value) != value]:
        raise UserError(
            f"{where}: its run has other settings ({'; '.join(other[:3])}) with which its next batch or its optimizers would "
            "be others. Set them to that run's."
        )
    if read_json(made_of)["parts"].get(CORPUS) != corpus_of(settings)[CORPUS]:
        raise UserError(
            f"{where}: was trained on another corpus than {settings.corpus_dir}, so its place in the text is not known. Set "
            "corpus and workdir to that run's, or take its weights with start_from."
        )
    return theirs
