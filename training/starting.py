"""The start of a pre-training run: its shape, tokenizer and weights, new or from another checkpoint.

model=imported        the shape of the checkpoint at start_from; keys that are not null override it (max_length, global_theta)
tokenizer=imported    the tokenizer of that checkpoint; prepare.py makes the shards with it
transplant=focus      this run's own tokenizer with the checkpoint's embeddings transplanted (model/convert/transplant.py)
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import digest_of, read_json, write_json
from common.settings import plain
from data.loader import Loader
from data.masking import Masking
from data.mixture import source_rates
from data.shards import Shards
from language.base import one_language
from model.convert.transplant import static_embeddings
from model.encoder import EncoderConfig
from model.folder import verify_checkpoint
from model.mlm import MaskedLM
from model.settings import Shape
from model.store import language_of, read_config, resolve_checkpoint
from model.tiling import start_from
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer
from training.settings import Pretraining
from training.text_embeddings import text_embeddings

MANIFEST = "training.json"  # beside every tokenizer: its origin


def keep_tokenizer(checkpoint: str | None, out: str | Path) -> Tokenizer:
    """Copy the tokenizer of `checkpoint` to `out`, where shards and training expect theirs; skipped if it is there already.

    Raises UserError without a checkpoint, or for one that cannot be read.
    """
    if not checkpoint:
        raise UserError("tokenizer=imported: whose? Set start_from (or distill.teacher) to a checkpoint or hub://owner/name.")
    folder, out = resolve_checkpoint(checkpoint), Path(out)
    verify_checkpoint(folder)
    tokenizer = load_tokenizer(folder)
    manifest = {"digest": digest_of({"imported": tokenizer.identity}), "imported": str(checkpoint)}
    if (out / MANIFEST).exists() and read_json(out / MANIFEST)["digest"] == manifest["digest"]:
        print(f"tokenizer: already complete, skipped: {out}")
        return load_tokenizer(out)
    for name in ("tokenizer.json", "tokenizer.model"):  # of an earlier tokenizer
        (out / name).unlink(missing_ok=True)
    tokenizer.save(out)
    write_json(out / MANIFEST, manifest)
    print(f"tokenizer: {tokenizer.kind}, {tokenizer.vocab_size:,} tokens, that of {checkpoint}, written to {out}")
    return load_tokenizer(out)


def check_languages(settings: Pretraining) -> None:
    """UserError if start_from or a teacher was trained on another language than that of the corpus."""
    said: dict[str, Any] = {"corpus.language": settings.corpus.language}
    taught = [("distill.teacher", teacher) for teacher in settings.distill.teachers]
    for key, checkpoint in [("start_from", settings.start_from), *taught]:
        if checkpoint and (folder := resolve_checkpoint(checkpoint)).is_dir():  # a missing one is reported where it is read
            said[f"{key}={checkpoint}"] = language_of(read_config(folder)[1], load_tokenizer(folder))
    one_language(said, "Set language to the checkpoint's, or across_languages=true to train it on in another language.")


def loader_of(settings: Pretraining, shards: Shards, tokenizer: Tokenizer) -> Loader:
    """The batches of a run: its mixture of sources, its masking, its seed."""
    mixture, wanted = settings.mixture, settings.masking
    weights = np.array(shards.index["weights"])
    rates = source_rates(shards.source_tokens(), weights, mixture.temperature, mixture.max_repeats)
    masked = {"unit": wanted.unit, "fixed_count": wanted.fixed_count, "multiple": wanted.multiple}
    masking = Masking.of(tokenizer, **masked, causal=wanted.causal, causal_rate=wanted.causal_rate)
    ids = tokenizer.cls_id, tokenizer.sep_id
    return Loader(shards, masking, rates, settings.micro_batch_tokens, settings.seed, *ids)


def check_shape(model: Shape) -> None:
    """UserError for a shape that no encoder can have, before a vocabulary exists."""
    if model.architecture != "imported":
        EncoderConfig.from_dict({key: value for key, value in plain(model).items() if value is not None})


def shape_of(model: Shape, start_from: str | None, longest: int, tokenizer: Tokenizer) -> EncoderConfig:
    """The encoder's shape: what conf/model says, or (model=imported) the checkpoint's, changed where a key is not null.

    `longest`: tokens of the longest window that the run reads.

    Raises UserError for a phase longer than the model, and for model=imported without a checkpoint.
    """
    given = {key: value for key, value in plain(model).items() if value is not None} | {"vocab_size": tokenizer.vocab_size}
    if model.architecture == "imported":
        if not start_from:
            raise UserError("model=imported: whose? Set start_from to a checkpoint, a Hugging Face folder or hub://owner/name.")
        folder = resolve_checkpoint(start_from)
        verify_checkpoint(folder)
        config, values = read_config(folder)
        if config.architecture == "foreign":
            raise UserError(
                f"start_from={start_from}: is run by transformers' code, as a baseline; it can be fine-tuned, not "
                "pre-trained. Take a BERT, RoBERTa, XLM-R or ModernBERT checkpoint."
            )
        # The matrix may have rows beyond the tokens, to round it up: they stay with the tokenizer that they came with.
        size = config.vocab_size if values.get("tokenizer") == tokenizer.identity else tokenizer.vocab_size
        given = config.to_dict() | given | {"architecture": config.architecture, "vocab_size": size}
    shape = EncoderConfig.from_dict(given)
    if longest > shape.max_length:
        raise UserError(
            f"phases: a max_length of {longest} is above model.max_length={shape.max_length}. Raise that (rotary positions "
            "cost nothing; learned ones are repeated), or shorten the phase."
        )
    return shape


def origin(checkpoint: str | Path | None) -> dict[str, Any]:
    """The origin of a checkpoint made from `checkpoint`, for config.json: {"source": ...}, or {}."""
    if not checkpoint:
        return {}
    source = read_config(resolve_checkpoint(checkpoint))[1].get("source")
    return {"source": source} if source else {}


def take_weights(
    model: MaskedLM, checkpoint: str, transplant: str | None, tokenizer: Tokenizer, shards: Shards, seed: int
) -> str | None:
    """Fill `model` from `checkpoint`: kept, tiled or carried over into this run's vocabulary; what is to be said of it.

    A function of its arguments alone, so that a run that goes on finds the same start again.
    """

    def static() -> torch.Tensor:
        documents = (shards.tokens[start : start + length] for start, length in shards.documents[["start", "length"]].tolist())
        return static_embeddings((np.asarray(ids) for ids in documents), tokenizer.vocab_size)

    return start_from(model, checkpoint, tokenizer, transplant, static, seed)


def begin_from_counts(model: MaskedLM, shards: Shards) -> None:
    """The decoder's bias of a new model becomes the log frequencies of the tokens.

    A model learns these first anyway: the first hundred steps of a small run.
    """
    counts = shards.token_counts(len(model.head.bias)) + 1.0
    model.head.bias.data = torch.from_numpy(np.log(counts / counts.sum())).float()


def begin_from_text(model: MaskedLM, shards: Shards, vocab_size: int) -> None:
    """The token embeddings of a new model become those of `text_embeddings`, as long as drawn ones are.

    Tokens that stand nowhere keep a drawn one.
    """
    words, config = model.encoder.token_embeddings.weight.data, model.encoder.config
    vectors = text_embeddings(shards, vocab_size, config.hidden_size)
    vectors *= config.initializer_range * config.hidden_size**0.5
    words[: len(vectors)] = torch.where((vectors != 0).any(1, keepdim=True), vectors, words[: len(vectors)])
