"""The whole state of a run on disk, so that it can be killed at any moment and resumed bit by bit.

Because data, masks and dropout are functions of counters, the state is small: weights, optimizers, average, counters.
    <run>/checkpoints/step-00000200/   a checkpoint folder (model/store.py) and: optimizers.pt, average.safetensors, state.json,
                                       projections.safetensors of a student that learns hidden states of another width
"""

import re
import shutil
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from common.errors import UserError
from common.files import read_json
from model.distillation import PROJECTIONS
from model.encoder import EncoderConfig
from model.folder import fill, read_weights, verify_checkpoint, write_checkpoint
from model.store import read_checkpoint
from tokenization.tokenizer import Tokenizer
from training.optimizers import Average

ASIDE, AVERAGE, OPTIMIZERS, STATE = "projections.safetensors", "average.safetensors", "optimizers.pt", "state.json"
NEWEST = 2  # checkpoints kept for resuming beside the steps that keep_checkpoints lists


@dataclass
class Tensors:
    """All tensors of a run's state: weights and average by name (None without one), the state dict of each optimizer."""

    weights: dict[str, torch.Tensor]
    optimizers: list[dict[str, Any]]
    average: dict[str, torch.Tensor] | None

    @classmethod
    def of(cls, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], average: Average | None) -> "Tensors":
        """Those of these parts, which go on changing with the next step."""
        return cls(model.state_dict(), [one.state_dict() for one in optimizers], None if average is None else average.values)


def save_state(run: Path, state: dict[str, Any], tensors: Tensors, config: EncoderConfig, tokenizer: Tokenizer) -> bool:
    """Write the checkpoint of `state["step"]`; False if it could not be written.

    A full disk, or any other error of the writer, costs this checkpoint only: older ones remain and the run goes on.
    """
    folder, weights, average = run / "checkpoints" / f"step-{state['step']:08d}", tensors.weights, tensors.average
    files: dict[str, Any] = {STATE: state, OPTIMIZERS: lambda path: torch.save(tensors.optimizers, path)}
    if average is not None:
        files[AVERAGE] = lambda path: safetensors.torch.save_file(average, path)
    if aside := {name: value.cpu() for name, value in weights.items() if name.startswith(PROJECTIONS)}:
        weights = {name: value for name, value in weights.items() if name not in aside}
        files[ASIDE] = lambda path: safetensors.torch.save_file(aside, path)
    try:
        write_checkpoint(folder, weights, config, tokenizer, more_files=files)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:  # RuntimeError: torch.save's, with changing messages
        print(
            f"warning: checkpoint {folder} could not be written ({error}). Older ones are complete; free some disk space.",
            file=sys.stderr,
        )
        return False
    return True


# Until 2026-11-30 the rate of a run with budget.flops was a NumPy number, which torch.load refuses by default.
NUMBERS = [np._core.multiarray.scalar, np.dtype, np.dtypes.Float64DType]


class Writer:
    """Writes the checkpoints of a run and removes old ones: in a thread of its own, or (in_thread=False) before it returns.

    in_thread=None: in a thread if the state is on a GPU; on a CPU the thread would compete with the steps for the cores.

    The thread works on a copy in host memory, so the next steps may change the weights; one copy at a time is in memory, and
    the next checkpoint waits for the one before. Leaving the context waits too. An error of the thread that is not the disk's
    is raised by the next `wait`.
    """

    def __init__(self, run: Path, keep: int | list[int], in_thread: bool | None, device: torch.device) -> None:
        self.run, self.keep = run, keep
        self.in_thread = device.type == "cuda" if in_thread is None else in_thread
        self.thread: threading.Thread | None = None
        self.error: BaseException | None = None
        self.held: dict[tuple, torch.Tensor] = {}  # host memory, used again by every copy; pinned if the state is on a GPU

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.wait()
        elif self.thread is not None:  # the run ends with an error of its own; the checkpoint is finished all the same
            self.thread.join()

    def wait(self) -> None:
        """Wait until the last checkpoint is on disk, or was given up."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        if self.error is not None:
            error, self.error = self.error, None
            raise error

    def write(self, state: dict[str, Any], tensors: Tensors, config: EncoderConfig, tokenizer: Tokenizer) -> None:
        """Write the checkpoint of `state["step"]`; `state` must not change any more."""
        if not self.in_thread:
            self._save(state, tensors, config, tokenizer)
            return
        self.wait()
        copied = Tensors(*(self._copy(part, (number,)) for number, part in enumerate(vars(tensors).values())))
        if any(value.is_cuda for value in tensors.weights.values()):
            torch.cuda.synchronize()  # the copies are asynchronous
        self.thread = threading.Thread(target=self._try, args=(state, copied, config, tokenizer))
        self.thread.start()

    def _copy(self, value: Any, place: tuple) -> Any:
        """`value` with every tensor in it copied to the host, into the memory that the last copy had at this place."""
        if isinstance(value, dict):
            return {key: self._copy(part, (*place, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [self._copy(part, (*place, number)) for number, part in enumerate(value)]
        if not isinstance(value, torch.Tensor):
            return value
        if place not in self.held:
            self.held[place] = torch.empty_like(value, device="cpu", pin_memory=value.is_cuda)
        return self.held[place].copy_(value.detach(), non_blocking=True)

    def _try(self, *parts: Any) -> None:
        try:
            self._save(*parts)
        except BaseException as error:
            self.error = error

    def _save(self, state: dict[str, Any], tensors: Tensors, config: EncoderConfig, tokenizer: Tokenizer) -> None:
        if save_state(self.run, state, tensors, config, tokenizer):
            remove_old_states(self.run, self.keep)


def remove_old_states(run: Path, keep: int | list[int]) -> None:
    """Remove all checkpoints but the newest `keep`; if `keep` lists steps, all but these and the newest two."""
    newest, steps = (keep, []) if isinstance(keep, int) else (NEWEST, keep)
    for old in sorted((run / "checkpoints").glob("step-*"))[:-newest]:
        if int(old.name.removeprefix("step-")) not in steps:
            shutil.rmtree(old, ignore_errors=True)


def state_folder(path: str) -> Path:
    """The folder of branch_from=`path`: weights, optimizers and counters of a run. `step-200` is step-00000200 too.

    Raises UserError, which lists the checkpoints that are there, for a folder that holds no such state.
    """
    folder, step = Path(path), re.fullmatch(r"step-(\d+)", Path(path).name)
    if step and not folder.exists():
        folder = folder.with_name(f"step-{int(step[1]):08d}")
    if (folder / OPTIMIZERS).exists() and (folder / STATE).exists():
        return folder
    places = [folder / "checkpoints", folder.parent] if folder.is_dir() else [folder.parent]
    there = [found.name for place in places for found in sorted(place.glob("step-*"))]
    raise UserError(
        f"branch_from={path}: {'holds no optimizers and counters' if folder.is_dir() else 'no such folder'}. Give "
        f"RUN/checkpoints/step-N of a run of train.py (there: {', '.join(there) or 'none'}); start_from takes weights alone."
    )


def newest_state(run: Path) -> Path | None:
    """The newest complete checkpoint of a run; each damaged one before it is named on stderr."""
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        try:
            verify_checkpoint(folder)
            return folder
        except UserError as error:
            print(f"warning: {error} Trying the checkpoint before it.", file=sys.stderr)
    return None


def load_state(
    folder: Path, model: torch.nn.Module, optimizers: list[torch.optim.Optimizer], average: Average | None, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Load a checkpoint's weights, optimizers and average; returns its counters."""
    weights, _, own, _ = read_checkpoint(folder)
    if own.identity != tokenizer.identity:
        raise UserError(f"{folder}: was trained with tokenizer {own.identity}, this run has {tokenizer.identity}.")
    if (folder / ASIDE).exists():
        weights |= safetensors.torch.load_file(folder / ASIDE)
    fill(model, weights, folder)
    # To the host: a file from a GPU must be usable without one, and each rank makes its own copies from there.
    with torch.serialization.safe_globals(NUMBERS):
        stored = torch.load(folder / OPTIMIZERS, weights_only=True, map_location="cpu")
    for optimizer, own_state in zip(optimizers, stored, strict=True):
        # Rates, betas and decay are settings: those of this run hold, which a branch may have changed.
        options = [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]
        optimizer.load_state_dict(own_state)
        for group, own_options in zip(optimizer.param_groups, options, strict=True):
            group.update(own_options)
    if average is not None and (folder / AVERAGE).exists():
        values = read_weights(folder / AVERAGE)
        average.values = {name: values[name].to(value.device) for name, value in average.values.items()}
    elif average is not None:  # a branch of a run that kept none: it begins here
        average.values = {name: p.detach().clone() for name, p in model.named_parameters()}
    return read_json(folder / STATE)
