"""The whole state of a run on disk, so that it can be killed at any moment and go on to the same bit.

Because data, masks and dropout are functions of counters, the state is small: weights, optimizers, average, counters.
    <run>/checkpoints/step-00000200/   a checkpoint folder (model/store.py) and: optimizers.pt, average.safetensors, state.json,
                                       projections.safetensors of a student that is taught hidden states of another width
"""

import shutil
import sys
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from common.errors import UserError
from common.files import read_json
from model.distillation import PROJECTIONS
from model.encoder import EncoderConfig
from model.folder import verify_checkpoint, write_checkpoint
from model.store import read_checkpoint
from tokenization.tokenizer import Tokenizer
from training.optimizers import Average

ASIDE = "projections.safetensors"


def save_state(run: Path, state: dict[str, Any], weights: dict[str, torch.Tensor], optimizers: list[torch.optim.Optimizer],
               average: Average | None, config: EncoderConfig, tokenizer: Tokenizer, keep: int) -> bool:  # fmt: skip
    """Write the checkpoint of `state["step"]` and remove all but the newest `keep`; False if the disk did not take it.

    A full disk (or any other refusal of the system) costs this checkpoint only: older ones stand, the run goes on.
    """
    folder = run / "checkpoints" / f"step-{state['step']:08d}"
    files: dict[str, Any] = {
        "state.json": state,
        "optimizers.pt": lambda path: torch.save([optimizer.state_dict() for optimizer in optimizers], path),
    }
    if average is not None:
        files["average.safetensors"] = lambda path: safetensors.torch.save_file(average.values, path)
    if aside := {name: value.cpu() for name, value in weights.items() if name.startswith(PROJECTIONS)}:
        weights = {name: value for name, value in weights.items() if name not in aside}
        files[ASIDE] = lambda path: safetensors.torch.save_file(aside, path)
    try:
        write_checkpoint(folder, weights, config, tokenizer, more_files=files)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        if isinstance(error, RuntimeError) and "writ" not in str(error):  # torch.save's word for a disk that refuses
            raise
        print(f"warning: checkpoint {folder} could not be written ({error}). Older ones are whole; free some disk space.",
              file=sys.stderr)  # fmt: skip
        return False
    for old in sorted((run / "checkpoints").glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return True


def newest_state(run: Path) -> Path | None:
    """The newest checkpoint of a run that is whole; each damaged one on the way is named on stderr."""
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        try:
            verify_checkpoint(folder)
            return folder
        except UserError as error:
            print(f"warning: {error} Trying the checkpoint before it.", file=sys.stderr)
    return None


def load_state(folder: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], average: Average | None,
               tokenizer: Tokenizer) -> dict[str, Any]:  # fmt: skip
    """Put a checkpoint's weights, optimizers and average in place; return its counters."""
    weights, _, own, _ = read_checkpoint(folder)
    if own.identity != tokenizer.identity:
        raise UserError(f"{folder}: was trained with tokenizer {own.identity}, this run has {tokenizer.identity}.")
    if (folder / ASIDE).exists():
        weights |= safetensors.torch.load_file(folder / ASIDE)
    model.load_state_dict(weights)
    for optimizer, values in zip(optimizers, torch.load(folder / "optimizers.pt", weights_only=True), strict=True):
        optimizer.load_state_dict(values)
    if average is not None:
        stored = safetensors.torch.load_file(folder / "average.safetensors")
        average.values = {name: stored[name].to(value.device) for name, value in average.values.items()}
    return read_json(folder / "state.json")
