"""Where a pre-training run starts: its shape, its tokenizer and its weights, new or from another checkpoint.

model=imported        the shape of the checkpoint at start_from; keys that are not null change it (max_length, global_theta)
tokenizer=imported    the tokenizer of that checkpoint; prepare.py makes the shards with it
transplant=focus      this run's own tokenizer, the checkpoint's embeddings carried over (model/transplant.py)
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from common.errors import UserError
from common.files import digest_of, read_json, write_json
from data.shards import Shards
from model.encoder import EncoderConfig
from model.folder import verify_checkpoint
from model.mlm import MaskedLM
from model.store import read_config, resolve_checkpoint
from model.tiling import start_from
from model.transplant import static_embeddings
from tokenization.loading import load_tokenizer
from tokenization.tokenizer import Tokenizer

NEIGHBOURS, MOST_CONTEXTS, CELLS, SEEN = 5, 4096, 1 << 26, 4_000_000  # of text_embeddings; CELLS x 4 bytes of memory
MANIFEST = "training.json"  # beside every tokenizer: where it comes from


def keep_tokenizer(checkpoint: str | None, out: str | Path) -> Tokenizer:
    """Put the tokenizer of `checkpoint` into `out`, where shards and training look for theirs; reused where it is already.

    Raises UserError without a checkpoint, or for one that cannot be read.
    """
    if not checkpoint:
        raise UserError("tokenizer=imported: whose? Set start_from (or distill.teacher) to a checkpoint or hub://owner/name.")
    folder, out = resolve_checkpoint(checkpoint), Path(out)
    verify_checkpoint(folder)
    tokenizer = load_tokenizer(folder)
    manifest = {"digest": digest_of({"imported": tokenizer.identity}), "imported": str(checkpoint)}
    if (out / MANIFEST).exists() and read_json(out / MANIFEST)["digest"] == manifest["digest"]:
        print(f"tokenizer: reused {out}")
        return load_tokenizer(out)
    for name in ("tokenizer.json", "tokenizer.model"):  # of one that was there before
        (out / name).unlink(missing_ok=True)
    tokenizer.save(out)
    write_json(out / MANIFEST, manifest)
    print(f"tokenizer: {tokenizer.kind}, {tokenizer.vocab_size:,} pieces, that of {checkpoint}, written to {out}")
    return load_tokenizer(out)


def shape_of(settings: dict[str, Any], tokenizer: Tokenizer) -> EncoderConfig:
    """The encoder's shape: what conf/model says, or (model=imported) the checkpoint's, changed where a key is not null.

    Raises UserError for a phase longer than the model, and for model=imported without a checkpoint.
    """
    given = {"vocab_size": tokenizer.vocab_size, **settings["model"]}
    if given["architecture"] == "imported":
        if not settings["start_from"]:
            raise UserError("model=imported: whose? Set start_from to a checkpoint, a Hugging Face folder or hub://owner/name.")
        folder = resolve_checkpoint(settings["start_from"])
        verify_checkpoint(folder)
        config, values = read_config(folder)
        if config.architecture == "foreign":
            raise UserError(
                f"start_from={settings['start_from']}: is run by transformers' code, as a baseline; it can be fine-tuned, not "
                "pre-trained. Take a BERT, RoBERTa, XLM-R or ModernBERT checkpoint."
            )
        changed = {key: value for key, value in given.items() if value is not None} | {"architecture": config.architecture}
        # The matrix may have rows beyond the pieces, to round it up: they stay with the tokenizer that they came with.
        size = config.vocab_size if values.get("tokenizer") == tokenizer.identity else tokenizer.vocab_size
        given = config.to_dict() | changed | {"vocab_size": size}
    shape = EncoderConfig.from_dict(given)
    if (longest := max(phase["max_length"] for phase in settings["phases"])) > shape.max_length:
        raise UserError(
            f"phases: a max_length of {longest} is above model.max_length={shape.max_length}. Raise that (rotary positions "
            "cost nothing; learned ones are repeated), or shorten the phase."
        )
    return shape


def origin(checkpoint: str | Path | None) -> dict[str, Any]:
    """What a checkpoint made from `checkpoint` says of where that came from: {"source": ...}, or nothing (for config.json)."""
    if not checkpoint:
        return {}
    source = read_config(resolve_checkpoint(checkpoint))[1].get("source")
    return {"source": source} if source else {}


def text_embeddings(shards: Shards, size: int, rank: int, seed: int = 0) -> torch.Tensor:
    """Unit vectors [size, rank] of pieces from the frequent ones that stand beside them; zeros where nothing is known.

    U S^1/2 of the PPMI matrix as in model/transplant.py, but against the most frequent pieces only: a dense matrix of
    CELLS cells, whose products cost a tenth of the sparse ones' time. Counted on whole documents up to SEEN tokens.
    """
    lengths = shards.documents["length"]
    step = max(1, int(lengths.sum()) // SEEN)
    rows = shards.documents[::step]
    owner = np.repeat(np.arange(len(rows)), rows["length"])
    inside = np.arange(len(owner)) - np.repeat(np.cumsum(rows["length"]) - rows["length"], rows["length"])
    ids = shards.tokens[rows["start"][owner] + inside].astype(np.int64)
    frequent = np.argsort(-np.bincount(ids, minlength=size), kind="stable")[: min(size, MOST_CONTEXTS, CELLS // size)]
    place = np.full(size, -1)
    place[frequent] = np.arange(len(frequent))
    codes = []
    for distance in range(1, NEIGHBOURS + 1):
        same = owner[:-distance] == owner[distance:]
        for word, beside in ((ids[:-distance], ids[distance:]), (ids[distance:], ids[:-distance])):
            context = place[beside]
            kept = same & (context >= 0)
            codes.append(word[kept] * len(frequent) + context[kept])
    joined = np.concatenate(codes) if codes else np.zeros(0, np.int64)
    counts = torch.from_numpy(np.bincount(joined, minlength=size * len(frequent)).astype(np.float32)).view(size, -1)
    by_word, smooth = counts.sum(1, keepdim=True), counts.sum(0) ** 0.75
    information = counts.mul_(smooth.sum()).div_(by_word.clamp(min=1)).div_(smooth.clamp(min=1)).log_().clamp_(min=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        left, strengths, _ = torch.svd_lowrank(information, q=min(rank, *information.shape), niter=2)
    vectors = torch.zeros(size, rank)
    vectors[:, : left.shape[1]] = torch.nn.functional.normalize(left * strengths.sqrt(), dim=1)
    return torch.where((information > 0).any(1, keepdim=True), vectors, 0.0)


def take_weights(model: MaskedLM, settings: dict[str, Any], tokenizer: Tokenizer, shards: Shards, quiet: bool = False) -> None:
    """Fill `model` from start_from, if that is set: kept, tiled or carried over into this run's vocabulary.

    A new model with bias_from_counts begins with the log frequencies of the pieces as the decoder's bias: what a model
    learns first anyway, and the first hundred steps of a small run. With embeddings_from_text its word embeddings are
    those of `text_embeddings`, as long as drawn ones are; pieces that stand nowhere keep a drawn one. A function
    of the settings and the shards alone, so that a run that goes on finds the same start again.
    """

    def static() -> torch.Tensor:
        documents = (shards.tokens[start : start + length] for start, length in shards.documents[["start", "length"]].tolist())
        return static_embeddings((np.asarray(ids) for ids in documents), tokenizer.vocab_size)

    if not settings["start_from"]:
        if settings["bias_from_counts"]:
            counts = shards.piece_counts(len(model.head.bias)) + 1.0
            model.head.bias.data = torch.from_numpy(np.log(counts / counts.sum())).float()
        if settings["embeddings_from_text"]:
            words, config = model.encoder.words.weight.data, model.encoder.config
            vectors = text_embeddings(shards, tokenizer.vocab_size, config.hidden_size)
            vectors *= config.initializer_range * config.hidden_size**0.5
            words[: len(vectors)] = torch.where((vectors != 0).any(1, keepdim=True), vectors, words[: len(vectors)])
        return

    said = start_from(model, settings["start_from"], tokenizer, settings["transplant"], static, settings["seed"])
    if said and not quiet:
        print(said)
