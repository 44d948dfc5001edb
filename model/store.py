"""Read a checkpoint as weights, encoder, masked language model or task model; foreign ones are converted."""

import json
from pathlib import Path
from typing import Any

import safetensors
import torch

from common.errors import UserError
from common.files import read_json
from language.base import Language, load_language
from model.convert.foreign import ForeignEncoder, build_encoder, config_of
from model.convert.importing import converted, is_huggingface
from model.encoder import Encoder, EncoderConfig
from model.folder import CONFIG, WEIGHTS, fill, read_weights, verify_checkpoint
from model.heads import TASK, TaskModel, has_pooler
from model.mlm import MaskedLM
from model.modern_head import add_modern_head
from model.ngrams import NGRAMS, NgramBag
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer


def resolve_checkpoint(path: str | Path) -> Path:
    """The checkpoint folder that `path` names: itself, or `path`/checkpoint if `path` is a run folder.

    A Hugging Face folder and hub://owner/name[@revision] are converted at first use into HF_HOME/encoders. Raises UserError
    if that fails.
    """
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

    Raises UserError for a damaged file and for a tokenizer other than the one that the weights were trained with.
    """
    folder = resolve_checkpoint(path)
    verify_checkpoint(folder)
    config, values = read_config(folder)
    tokenizer = load_tokenizer(folder)
    if values.get("tokenizer") != tokenizer.identity or tokenizer.vocab_size > config.vocab_size:
        raise UserError(
            f"{folder}: the weights were trained with tokenizer {values.get('tokenizer')}, the tokenizer there is "
            f"{tokenizer.identity} ({tokenizer.vocab_size} tokens, the model has {config.vocab_size}). Restore the right one."
        )
    try:
        weights = read_weights(folder / WEIGHTS)
    except (safetensors.SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"{folder / WEIGHTS}: cannot be read ({error}). Take another checkpoint.") from None
    return weights, config, tokenizer, values


def language_of(values: dict[str, Any], tokenizer: Tokenizer) -> Language | None:
    """The language of the text that a checkpoint was trained on: its config.json's (`values`), else its tokenizer's.

    None for a foreign checkpoint. Raises UserError for a language without a pack here.
    """
    said = values.get("language")
    return load_language(said) if said else tokenizer.language


def load_masked_lm(path: str | Path) -> tuple[MaskedLM, Tokenizer]:
    """A pre-trained model with its MLM head, in eval mode, and its tokenizer."""
    weights, config, tokenizer, _ = read_checkpoint(path)
    if "head.dense.weight" not in weights or "head.bias" not in weights:
        raise UserError(f"{path}: has no masked-LM head (fine-tuned, or a foreign encoder?). Take the pre-trained one.")
    model = MaskedLM(config)
    fill(model, {name: value for name, value in weights.items() if not name.startswith("encoder.pooler.")}, path)
    return model.eval(), tokenizer


def load_encoder(path: str | Path, pooler: bool = False, pretrained: bool = True) -> tuple[Encoder | ForeignEncoder, Tokenizer]:
    """The encoder of a checkpoint and its tokenizer; a pooler that the checkpoint lacks is initialised (N(0, 0.02)).

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


def load_task_model(path: str | Path) -> tuple[TaskModel, Tokenizer, dict[str, Any]]:
    """A fine-tuned checkpoint: the model in eval mode, its tokenizer and task.json. UserError for another checkpoint."""
    folder = resolve_checkpoint(path)
    weights, config, tokenizer, _ = read_checkpoint(folder)
    if not (folder / TASK).exists():
        raise UserError(f"{folder}: not fine-tuned (no {TASK}). Run python finetune.py checkpoint={path} task=... first.")
    task = read_json(folder / TASK)
    pooling = task.get("pooling") or "pooler"
    encoder = build_encoder(config, has_pooler(task["kind"], pooling))
    model = TaskModel(encoder, task["kind"], len(task["labels"] or []), pooling)
    if "head.dense.weight" in weights:
        add_modern_head(model)
    if NGRAMS in weights:
        buckets, outputs = weights["ngrams.table.weight"].shape
        model.ngrams = NgramBag(buckets, outputs, weights["ngrams.grams"], weights["ngrams.first"])
    fill(model, weights, folder)
    return model.eval(), tokenizer, task
