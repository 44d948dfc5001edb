"""A checkpoint on disk: a folder that is written atomically with a checksum of every file, and verified before use."""

import re
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import nn

from common.errors import UserError
from common.files import put_in_place, read_json, refuse_pointer, sha256_file, sync_tree, write_json, writing
from model.encoder import EncoderConfig
from tokenization.tokenizer import Tokenizer

WEIGHTS, CONFIG, SUMS = "model.safetensors", "config.json", "checksums.json"
# Former names of the embeddings in older checkpoints; `read_weights` replaces them by the present ones.
FORMER_NAMES = {
    "encoder.words.": "encoder.token_embeddings.",
    "encoder.positions.": "encoder.position_embeddings.",
    "encoder.types.": "encoder.token_type_embeddings.",
}


def write_checkpoint(
    folder: str | Path,
    weights: dict[str, torch.Tensor],
    config: EncoderConfig,
    tokenizer: Tokenizer,
    extra: dict[str, Any] | None = None,
    more_files: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint atomically: into a temporary folder that is synced and then renamed to `folder`.

    `extra` is added to config.json beside the encoder's settings. `more_files` maps further names to JSON-able values or to
    functions that write to a given path. All files are listed with their SHA-256 in checksums.json.
    """
    folder = Path(folder)
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        with writing(folder / WEIGHTS):
            safetensors.torch.save_file({k: v.detach().contiguous().cpu() for k, v in weights.items()}, beside / WEIGHTS)
        spoken = tokenizer.language and tokenizer.language.name  # unless `extra` has another
        own = {"encoder": config.to_dict(), "tokenizer": tokenizer.identity, "language": spoken}
        write_json(beside / CONFIG, own | (extra or {}))
        tokenizer.save(beside)
        for name, value in (more_files or {}).items():
            if callable(value):
                value(beside / name)
            else:
                write_json(beside / name, value)
        write_json(beside / SUMS, {path.name: sha256_file(path) for path in sorted(beside.iterdir())})
        sync_tree(beside)
        put_in_place(beside, folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def verify_checkpoint(folder: str | Path) -> None:
    """UserError with the file's name if anything in a checkpoint is missing, truncated or changed."""
    folder = Path(folder)
    if not folder.is_dir():
        on_hub = re.fullmatch(r"[\w.-]+/[\w.-]+", str(folder))
        hint = f" A model of the hub is written hub://{folder}." if on_hub else ""
        raise UserError(f"{folder}: no such checkpoint folder.{hint}")
    if not (folder / SUMS).exists():
        raise UserError(f"{folder}: no {SUMS}, so this is not a finished checkpoint. Take a folder that train.py wrote.")
    for name, expected in read_json(folder / SUMS).items():
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: missing. Restore it or take another checkpoint.")
        refuse_pointer(folder / name)
        if sha256_file(folder / name) != expected:
            raise UserError(f"{folder / name}: damaged (checksum differs). Restore it or take another checkpoint.")


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors of a safetensors file by name; raises safetensors.SafetensorError or OSError if it cannot be read."""
    return {_current_name(name): value for name, value in safetensors.torch.load_file(path).items()}


def _current_name(name: str) -> str:
    former = next((prefix for prefix in FORMER_NAMES if name.startswith(prefix)), None)
    return name if former is None else FORMER_NAMES[former] + name.removeprefix(former)


def fill(module: nn.Module, weights: dict[str, torch.Tensor], where: str | Path) -> None:
    """Load `weights` into `module`; UserError if a name or shape does not fit."""
    own = module.state_dict()
    missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    shapes = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or extra or shapes:
        raise UserError(
            f"{where}: the weights do not fit the model: missing {missing[:3] or 'none'}, not known {extra[:3] or 'none'}, "
            f"other shape {shapes[:3] or 'none'}. Use the checkpoint with the code and config that made it."
        )
    module.load_state_dict(weights)
