"""Train a tokenizer on the weighted corpus, and skip the work when the same one is already there."""

import hashlib
import io
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import trainers
from tqdm import tqdm

from common.errors import UserError
from common.files import digest_of, read_json, write_json
from corpus.build import read_documents
from tokenization.tokenizer import SPECIAL_PIECES, Tokenizer, add_template, empty_wordpiece, plain_normalise

MANIFEST = "training.json"


def _share(seed: int, source: str, identifier: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments: which documents a sample takes."""
    digest = hashlib.blake2b(f"{seed}/{source}/{identifier}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def sample_texts(corpus: Path, characters: dict[str, int], weights: dict[str, float], budget: int, seed: int) -> Iterator[str]:
    """Stream about `budget` characters of the kept documents, each source in proportion to characters x weight.

    `characters` and `weights` are per source. A document appears floor(rate) times and once more by a draw that
    depends on (seed, source, id) alone; a rate above 1 is upsampling, as in the paper's weighted DOLLMA.
    """
    total = sum(characters[name] * weights[name] for name in characters)
    scale = min(1.0, budget / max(total, 1))
    for source in sorted(characters):
        rate = weights[source] * scale
        for document in read_documents(corpus, source):
            copies = int(rate) + (_share(seed, source, document["id"]) < rate % 1)
            yield from itertools.repeat(document["text"], copies)


def train_tokenizer(settings: dict[str, Any], corpus: str | Path, out: str | Path, seed: int) -> Tokenizer:
    """Train the tokenizer that `settings` (conf/tokenizer) describes on a built corpus and save it in `out`.

    Reused when `out` already holds one of the same settings, corpus and seed. Raises UserError when the text cannot
    fill the vocabulary.
    """
    corpus, out = Path(corpus), Path(out)
    corpus_manifest, report = read_json(corpus / "manifest.json"), read_json(corpus / "report.json")
    digest = digest_of({"settings": settings, "seed": seed, "corpus": corpus_manifest["digest"]})
    if (out / MANIFEST).exists() and read_json(out / MANIFEST)["digest"] == digest:
        print(f"tokenizer: reused {out}")
        return Tokenizer.load(out)
    sources = report["sources"]
    characters = {name: entry["characters"] for name, entry in sources.items() if entry["characters"]}
    weights = {name: entry["weight"] for name, entry in sources.items()}
    texts = sample_texts(corpus, characters, weights, settings["sample_characters"], seed)
    bar = tqdm(texts, desc=f"tokenizer: {settings['kind']}", unit=" documents", disable=None)
    if settings["kind"] == "wordpiece":
        tokenizer = _train_wordpiece(settings, bar)
    elif settings["kind"] in ("unigram", "bpe"):
        tokenizer = _train_sentencepiece(settings, bar)
    else:
        raise UserError(f"tokenizer.kind={settings['kind']}: choose wordpiece, unigram or bpe.")
    tokenizer.save(out)
    write_json(out / MANIFEST, {"digest": digest, "settings": settings, "seed": seed, "corpus": corpus_manifest["digest"]})
    print(f"tokenizer: {tokenizer.kind}, {tokenizer.vocab_size:,} pieces, written to {out}")
    return tokenizer


def _too_large(settings: dict[str, Any], filled: str) -> UserError:
    return UserError(
        f"tokenizer.vocab_size={settings['vocab_size']}: the corpus fills only {filled} pieces. "
        "Set tokenizer.vocab_size to that or less, or add text."
    )


def _train_wordpiece(settings: dict[str, Any], texts: Iterator[str]) -> Tokenizer:
    engine = empty_wordpiece(settings["lowercase"])
    trainer = trainers.WordPieceTrainer(
        vocab_size=settings["vocab_size"], min_frequency=settings["min_frequency"], show_progress=False,
        special_tokens=list(SPECIAL_PIECES), limit_alphabet=settings["alphabet_size"],
    )  # fmt: skip
    engine.train_from_iterator(texts, trainer)
    if engine.get_vocab_size() < settings["vocab_size"]:
        raise _too_large(settings, f"{engine.get_vocab_size():,}")
    add_template(engine)
    return Tokenizer("wordpiece", engine, settings["lowercase"])


def _train_sentencepiece(settings: dict[str, Any], texts: Iterator[str]) -> Tokenizer:
    model = io.BytesIO()
    # The trainer reads sentences, one a line and at most a few thousand bytes each.
    lines = (line for text in texts for line in plain_normalise(text, settings["lowercase"]).split("\n") if line.strip())
    pad, unk, cls, sep, mask = SPECIAL_PIECES
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, model_writer=model, model_type=settings["kind"],
            vocab_size=settings["vocab_size"], character_coverage=0.9999, normalization_rule_name="identity",
            remove_extra_whitespaces=False, pad_id=0, unk_id=1, bos_id=2, eos_id=3, pad_piece=pad, unk_piece=unk,
            bos_piece=cls, eos_piece=sep, control_symbols=[mask], num_threads=1, minloglevel=2,
            max_sentence_length=100_000, train_extremely_large_corpus=False,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        if "vocab" in str(error).lower():
            limit = str(error).rsplit("<=", 1)[-1].strip(" .") if "<=" in str(error) else "fewer"
            raise _too_large(settings, limit) from None
        raise
    engine = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    return Tokenizer(settings["kind"], engine, settings["lowercase"])
