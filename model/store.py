"""A checkpoint: a folder with model.safetensors, config.json and the tokenizer, that every later command takes."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from common.errors import UserError
from common.files import put_in_place, read_json, sha256_file, sync_tree, write_json
from model.encoder import Encoder, EncoderConfig
from model.foreign import ForeignEncoder, build_encoder, config_of
from model.mlm import MaskedLM
from tokenization.tokenizer import Tokenizer

WEIGHTS, CONFIG, SUMS = "model.safetensors", "config.json", "checksums.json"


def write_checkpoint(folder: str | Path, weights: dict[str, torch.Tensor], config: EncoderConfig, tokenizer: Tokenizer,
                     extra: dict[str, Any] | None = None, more_files: dict[str, Any] | None = None) -> None:  # fmt: skip
    """Write a checkpoint whole: into a neighbour that is synced and then renamed over `folder`.

    `extra` goes into config.json beside the encoder's settings. `more_files` maps further names to JSON-able values or
    to functions that write to the path they are given. All files are listed with their SHA-256 in checksums.json.
    """
    folder = Path(folder)
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        safetensors.torch.save_file({k: v.detach().contiguous().cpu() for k, v in weights.items()}, beside / WEIGHTS)
        write_json(beside / CONFIG, {"encoder": config.to_dict(), "tokenizer": tokenizer.identity, **(extra or {})})
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
        if sha256_file(folder / name) != expected:
            raise UserError(f"{folder / name}: damaged (checksum differs). Restore it or take another checkpoint.")


def resolve_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder that `path` means: itself, or `path`/checkpoint where `path` is a run folder.

    A Hugging Face folder and hub://owner/name[@revision] are converted first, once, into HF_HOME/encoders. Raises UserError
    where that cannot be done.
    """
    from model.importing import converted, is_huggingface  # which write checkpoints, through this file

    if is_huggingface(path):
        return converted(path)
    path = Path(path)
    if not (path / WEIGHTS).exists() and (path / "checkpoint" / WEIGHTS).exists():
        return path / "checkpoint"
    return path


def read_config(folder: str | Path) -> tuple[EncoderConfig, dict[str, Any]]:
    """Encoder settings and the whole config.json of a checkpoint."""
    values = read_json(Path(folder) / CONFIG)
    if not isinstance(values, dict) or "encoder" not in values:
        raise UserError(f'{Path(folder) / CONFIG}: not a checkpoint of this project (no "encoder" in it).')
    return config_of(values["encoder"]), values


def read_checkpoint(path: str | Path) -> tuple[dict[str, torch.Tensor], EncoderConfig, Tokenizer, dict[str, Any]]:
    """Verify a checkpoint and read it: weights, encoder settings, tokenizer, the whole config.json.

    Raises UserError for a damaged file and for a tokenizer that is not the one the weights were trained with.
    """
    folder = resolve_checkpoint(path)
    verify_checkpoint(folder)
    config, values = read_config(folder)
    tokenizer = Tokenizer.load(folder)
    if values.get("tokenizer") != tokenizer.identity or tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{folder}: the weights were trained with tokenizer {values.get('tokenizer')}, the tokenizer there is "
            f"{tokenizer.identity} ({tokenizer.vocab_size} pieces, the model has {config.vocab_size}). Restore the right one."
        )
    try:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
    except (safetensors.SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"{folder / WEIGHTS}: cannot be read ({error}). Take another checkpoint.") from None
    return weights, config, tokenizer, values


def fill(module: nn.Module, weights: dict[str, torch.Tensor], where: str | Path) -> None:
    """Load `weights` into `module`; every name and shape must fit, or UserError says which does not."""
    own = module.state_dict()
    missing, extra = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    shapes = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or extra or shapes:
        raise UserError(
            f"{where}: the weights do not fit the model: missing {missing[:3] or 'none'}, not known {extra[:3] or 'none'}, "
            f"other shape {shapes[:3] or 'none'}. Use the checkpoint with the code and config that made it."
        )
    module.load_state_dict(weights)


def load_masked_lm(path: str | Path) -> tuple[MaskedLM, Tokenizer]:
    """A pre-trained model with its MLM head, in eval mode, and its tokenizer."""
    weights, config, tokenizer, _ = read_checkpoint(path)
    if "head.dense.weight" not in weights or "head.bias" not in weights:
        raise UserError(f"{path}: has no masked-LM head (fine-tuned, or a foreign encoder?). Take the pre-trained one.")
    model = MaskedLM(config)
    fill(model, {name: value for name, value in weights.items() if not name.startswith("encoder.pooler.")}, path)
    return model.eval(), tokenizer


def load_encoder(path: str | Path, pooler: bool = False, pretrained: bool = True) -> tuple[Encoder | ForeignEncoder, Tokenizer]:
    """The encoder of a checkpoint and its tokenizer; a pooler that the checkpoint lacks is new (N(0, 0.02)).

    pretrained = False gives the same architecture with new weights, drawn from torch's current seed.
    """
    weights, config, tokenizer, _ = read_checkpoint(path)
    encoder = build_encoder(config, pooler)
    if pretrained:
        own = {name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")}
        if pooler and "pooler.weight" not in own:
            own |= {f"pooler.{name}": value for name, value in encoder.pooler.state_dict().items()}
        if not pooler:
            own = {name: value for name, value in own.items() if not name.startswith("pooler.")}
        fill(encoder, own, path)
    return encoder, tokenizer
