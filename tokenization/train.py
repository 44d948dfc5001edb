"""Train a tokenizer on the weighted corpus; the step is skipped if the same tokenizer exists.

The corpus is streamed once into a table of words and counts; both trainers read only the table. This bounds the memory by
the number of distinct words (MOST_WORDS), turns a document's weight into a multiplication, and gives the same bytes with
any number of processes: counts add up in any order, and ties are broken by spelling.
"""

import hashlib
import io
import multiprocessing
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import Regex, models, pre_tokenizers, trainers
from tqdm import tqdm

from common.code import code_files
from common.errors import UserError
from common.files import digest_of, read_json, write_json
from common.progress import progress
from common.settings import plain
from corpus.build import documents_of, read_documents
from corpus.stages.units import pack_digest
from language.base import Language, load_language
from tokenization.alphabet import always, choose_alphabet
from tokenization.loading import load_tokenizer
from tokenization.normaliser import normaliser_of
from tokenization.proto import rounded_scores
from tokenization.pruning import prune_tokens
from tokenization.settings import Tokenizer as TokenizerSettings
from tokenization.tokenizer import (
    LONGEST_WORD,
    SCORE_STEP,
    SPECIAL_TOKENS,
    WORD_OR_SIGN,
    Tokenizer,
    refuse_surrogates,
    sentencepiece_engine,
    split_signs,
    wordpiece_engine,
)

MANIFEST = "training.json"
WORDPIECE_ONLY = ("min_frequency", "alphabet_size", "prune_from", "phrases")  # settings that do not affect other kinds
# Two adjacent words of letters, which may become one token (setting `phrases`).
PAIR = re.compile(r"(?<![^\W_])[^\W\d_]{2,}(?= ([^\W\d_]{2,})(?![^\W_]))")
GROUP = 500_000  # characters counted by one process at a time: with fewer, adding up the tables takes longer than counting
# Distinct words kept while counting: a full table takes 1.3 GB (measured) and 0.8 GB more to sort. When it is full, the
# rarest are dropped (651 M words of Azerbaijani have about 6 M distinct ones). The trainers get the most frequent
# MOST_TRAINED, so that 10 GB of text need less than 4 GB of memory.
MOST_WORDS, MOST_TRAINED = 8_000_000, 1_000_000
# A longer word teaches nothing (WordPiece reads it as [UNK]; a run of 1,000 characters without a space is no word), and
# the trainers' time grows with its square: one of 300,000 joiners took minutes.
LONGEST = {"wordpiece": LONGEST_WORD, "unigram": 1000, "bpe": 1000}
# Both trainers repeat each word as often as it was counted, so larger tables are scaled down, with no count below one:
# WordPiece's to this many occurrences; Unigram's to this many bytes, 13 to 20 bytes of memory each (its own bound is 7 GB).
MOST_OCCURRENCES, MOST_BYTES = 100_000_000, 100_000_000


def _share(seed: int, source: str, identifier: str) -> float:
    """A number in [0, 1) that depends only on its arguments: it decides which documents a sample contains."""
    digest = hashlib.blake2b(f"{seed}/{source}/{identifier}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def sample_texts(
    corpus: Path, characters: dict[str, int], weights: dict[str, float], budget: int, seed: int
) -> Iterator[tuple[str, int]]:
    """Stream (text, copies) of about `budget` characters of the training documents, sources by characters x weight.

    `characters` and `weights` are given by source. A document is read floor(rate) times, and once more by a draw that depends
    only on (seed, source, id); a rate above 1 is upsampling, as in the paper's weighted DOLLMA. Raises UserError for text
    that is not valid Unicode.
    """
    total = sum(characters[name] * weights[name] for name in characters)
    scale = min(1.0, budget / max(total, 1))
    for source in sorted(characters):
        rate = weights[source] * scale
        for document in read_documents(corpus, source):
            copies = int(rate) + (_share(seed, source, document["id"]) < rate % 1)
            if copies:
                refuse_surrogates([document["text"]], [f"source {source}, document {document['id']}"])
                yield document["text"], copies


def train_tokenizer(settings: TokenizerSettings, corpus: str | Path, out: str | Path, seed: int) -> Tokenizer:
    """Train the tokenizer that `settings` (conf/tokenizer) describes on a built corpus and save it in `out`.

    The language is the corpus' (from its report). Skipped if `out` already holds a tokenizer of the same settings, corpus,
    seed and code. Raises UserError for settings that cannot work and for too little text, with the vocabulary size that it
    can fill.
    """
    corpus, out = Path(corpus), Path(out)
    report = read_json(corpus / "report.json")
    made_from = {"settings": decisive(settings), "seed": seed, "corpus": documents_of(corpus)}
    code = [code_files("tokenization.train", rooms=("tokenization",)), pack_digest(report["language"])]
    digest = digest_of({**made_from, "code": code})
    if (out / MANIFEST).exists() and read_json(out / MANIFEST)["digest"] == digest:
        print(f"tokenizer: already complete, skipped: {out}")
        return load_tokenizer(out)
    sources = report["sources"]
    characters = {name: entry["characters"] for name, entry in sources.items() if entry["characters"]}
    weights = {name: entry["weight"] for name, entry in sources.items()}
    texts = sample_texts(corpus, characters, weights, settings.sample_characters, seed)
    language = load_language(report["language"])
    words = count_words(texts, settings, language)
    if not words:
        raise UserError(f"{corpus}: no text to train a tokenizer on. Look at its report.json for what was removed and why.")
    train = _train_wordpiece if settings.kind == "wordpiece" else _train_sentencepiece
    tokenizer = train(settings, words, language)
    tokenizer.save(out)
    write_json(out / MANIFEST, {"digest": digest, **made_from})
    print(f"tokenizer: {tokenizer.kind}, {tokenizer.vocab_size:,} tokens, written to {out}")
    return load_tokenizer(out)


def decisive(settings: TokenizerSettings) -> dict[str, Any]:
    """The settings that determine a tokenizer."""
    others = {"processes"} if settings.kind == "wordpiece" else {"processes", *WORDPIECE_ONLY}
    return {key: value for key, value in plain(settings).items() if key not in others}


def count_words(texts: Iterable[tuple[str, int]], settings: TokenizerSettings, language: Language) -> dict[str, int]:
    """Count the words of (text, copies): sorted by frequency, ties by spelling, at most MOST_TRAINED.

    A word is what WordPiece treats as one (signs are separate) or, for Unigram and BPE, a run without white space; those
    above LONGEST characters are left out.
    """
    bar = progress(texts, desc=f"tokenizer: words for {settings.kind}", unit=" documents")
    groups = _groups(bar)
    work = partial(_count_group, settings, language)
    counts: Counter[str] = Counter()
    processes = settings.processes
    if processes == 1:
        _add_all(counts, map(work, groups))
    else:
        # A new interpreter for each: the library's threads do not survive a fork.
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            _add_all(counts, pool.imap(work, groups))
    most = LONGEST[settings.kind]
    counted = (item for item in counts.items() if all(len(word) <= most for word in item[0].split(" ")))  # pairs have a space
    ordered = sorted(counted, key=lambda item: (-item[1], item[0]))
    return dict(ordered[:MOST_TRAINED])


def _groups(texts: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Texts in groups of about GROUP characters."""
    group, size = [], 0
    for text, copies in texts:
        group.append((text, copies))
        size += len(text)
        if size >= GROUP:
            yield group
            group, size = [], 0
    if group:
        yield group


def _add_all(counts: Counter[str], parts: Iterable[Counter[str]]) -> None:
    """Add up the parts in order, dropping the rarest words whenever the table is full."""
    for part in parts:
        counts.update(part)
        rarest = 1
        while len(counts) > MOST_WORDS:
            for word in [word for word, count in counts.items() if count <= rarest]:
                del counts[word]
            rarest += 1


def _count_group(settings: TokenizerSettings, language: Language, texts: list[tuple[str, int]]) -> Counter[str]:
    """Words of one group of texts and, if phrases are wanted, pairs of words (keys with a space)."""
    kind = settings.kind
    normalise = normaliser_of(language, settings.lowercase, settings.transliterate)
    splitter = pre_tokenizers.Split(WORD_OR_SIGN, "removed", invert=True)
    counts: Counter[str] = Counter()
    for text, copies in texts:
        plain = normalise(text)
        if kind != "wordpiece":
            words = plain.split()
        elif normalise.not_plain.search(text):
            words = [word for word, _ in splitter.pre_tokenize_str(plain)]
        else:
            words = split_signs(plain).split()
        if settings.phrases:
            words += [f"{match.group()} {match.group(1)}" for match in PAIR.finditer(plain)]
        if copies == 1:
            counts.update(words)
        else:
            counts.update({word: count * copies for word, count in Counter(words).items()})
    return counts


def _cannot_fill(settings: TokenizerSettings, filled: str) -> UserError:
    return UserError(
        f"tokenizer.vocab_size={settings.vocab_size}: the corpus fills only {filled} tokens. "
        "Set tokenizer.vocab_size to that or less, or add text."
    )


def _train_wordpiece(settings: TokenizerSettings, words: dict[str, int], language: Language) -> Tokenizer:
    """BPE merges by count (the library's WordPiece training), then the least useful tokens are pruned.

    The most frequent `phrases` pairs of words replace as many tokens.
    """
    pairs = [word for word in words if " " in word]  # most frequent first
    words = {word: count for word, count in words.items() if " " not in word}
    size = settings.vocab_size
    tokens, alphabet, declared = _merged_tokens(settings, words, size, language)
    if len(tokens) < size:
        filled = len(tokens)
        while filled < size:  # a smaller vocabulary has a smaller alphabet, so it needs fewer tokens to fill it
            size = filled
            filled = len(_merged_tokens(settings, words, size, language)[0])
        raise _cannot_fill(settings, f"{size:,}")
    known = set(alphabet) | {" "}
    phrases = [pair for pair in pairs if known.issuperset(pair)][: settings.phrases]
    tokens = prune_tokens(tokens, words, size - len(phrases), keep=set(declared) | set(alphabet)) + phrases
    engine = wordpiece_engine(tokens, language, settings.lowercase, settings.transliterate)
    return Tokenizer("wordpiece", engine, _describe(settings, language))


def _merged_tokens(
    settings: TokenizerSettings, words: dict[str, int], size: int, language: Language
) -> tuple[list[str], list[str], list[str]]:
    """(tokens in the order of their ids, up to `prune_from` x `size`; alphabet; declared tokens)."""
    most, transliterate = int(size * settings.prune_from), settings.transliterate
    alphabet = choose_alphabet(words, settings.alphabet_size, size, language, settings.lowercase, transliterate)
    # A sign stands alone; a letter or mark may also continue a word, even if the text has no example.
    inside = {c for word in words for c in word[1:]} | {c for c in alphabet if unicodedata.category(c)[0] in "LNM"}
    # The trainer would number ##x in the order of a hash table and break ties by these numbers. Declaring them fixes the order.
    declared = [*SPECIAL_TOKENS, *("##" + character for character in alphabet if character in inside)]
    if len(declared) + len(alphabet) > size:
        raise UserError(
            f"tokenizer.vocab_size={size}: {len(declared) + len(alphabet)} tokens are needed for single characters alone. "
            "Set tokenizer.vocab_size above that, or lower tokenizer.alphabet_size."
        )
    engine = tokenizers.Tokenizer(models.WordPiece(unk_token=SPECIAL_TOKENS[1], max_input_chars_per_word=100))
    engine.pre_tokenizer = pre_tokenizers.Split(Regex(r" "), "removed")
    trainer = trainers.WordPieceTrainer(
        vocab_size=most,
        min_frequency=settings.min_frequency,
        show_progress=False,
        special_tokens=declared,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
    )
    bar = progress(total=len(words), desc="tokenizer: table of words", unit=" words")
    engine.train_from_iterator(_repeated(words, bar), trainer)
    bar.close()
    vocabulary = engine.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__), alphabet, declared


def _repeated(words: dict[str, int], bar: tqdm) -> Iterator[str]:
    """Lines that repeat each word as often as it was counted, scaled down to MOST_OCCURRENCES in all."""
    scale = max(1.0, sum(words.values()) / MOST_OCCURRENCES)
    for word, count in words.items():
        left = max(1, round(count / scale))
        while left > 0:
            yield " ".join([word] * min(left, 1000))
            left -= 1000
        bar.update()


def _train_sentencepiece(
    settings: TokenizerSettings, words: dict[str, int], language: Language, most_bytes: int = MOST_BYTES
) -> Tokenizer:
    model = io.BytesIO()
    pad, unk, cls, sep, mask = SPECIAL_TOKENS
    scale = 1.0
    if settings.kind == "unigram":
        scale = max(1.0, sum(count * (len(word.encode()) + 1) for word, count in words.items()) / most_bytes)
    lines = (f"{word}\t{max(1, round(count / scale))}" for word, count in words.items())
    print(f"tokenizer: {settings.kind} on {len(words):,} words (sentencepiece reports no progress)")
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            input_format="tsv",
            model_writer=model,
            model_type=settings.kind,
            vocab_size=settings.vocab_size,
            character_coverage=0.9999,
            required_chars=always(language),
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            user_defined_symbols=["\n"],
            pad_id=0,
            unk_id=1,
            bos_id=2,
            eos_id=3,
            control_symbols=[mask],
            pad_piece=pad,
            unk_piece=unk,
            bos_piece=cls,
            eos_piece=sep,
            num_threads=2,
            minloglevel=2,
            max_sentence_length=100_000,
            train_extremely_large_corpus=False,
        )
    except (RuntimeError, OSError) as error:
        message = str(error)
        if needed := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
            raise UserError(
                f"tokenizer.vocab_size={settings.vocab_size}: {int(needed[1]):,} tokens are needed for bytes and single "
                "characters alone. Set tokenizer.vocab_size above that."
            ) from None
        if filled := re.search(r"<= (\d+)\.?\s*$", message):
            raise _cannot_fill(settings, f"{int(filled[1]):,}") from None
        if "vocab" in message.lower():
            raise UserError(f"tokenizer.vocab_size={settings.vocab_size}: {message.splitlines()[-1]}") from None
        raise
    proto = model.getvalue()
    if settings.kind == "unigram":
        proto = rounded_scores(proto, SCORE_STEP)
    native = sentencepiece.SentencePieceProcessor(model_proto=proto)
    if native.get_piece_size() < settings.vocab_size:
        raise _cannot_fill(settings, f"{native.get_piece_size():,}")
    engine = sentencepiece_engine(settings.kind, native, language, settings.lowercase, settings.transliterate)
    return Tokenizer(settings.kind, engine, _describe(settings, language), native)


def _describe(settings: TokenizerSettings, language: Language) -> dict[str, Any]:
    """The contents of tokenizer_config.json for one of our tokenizers."""
    normaliser = {"language": language.name, "transliterate": settings.transliterate}
    return {"do_lower_case": settings.lowercase, "model_max_length": 512, "normaliser": normaliser}
