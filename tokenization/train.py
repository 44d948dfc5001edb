"""Train a tokenizer on the weighted corpus, and skip the work when the same one is already there.

The corpus is streamed once into a table of words and their counts; both trainers then see the table, never the text.
That bounds the memory by the number of distinct words (MOST_WORDS), makes a document's weight a multiplication, and
makes the result the same bytes on any number of processes: counts add up in any order, ties are broken by spelling.
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
from tokenizers import Regex, models, normalizers, pre_tokenizers, trainers
from tqdm import tqdm

from common.errors import UserError
from common.files import digest_of, read_json, write_json
from corpus.build import read_documents
from tokenization.alphabet import ALWAYS, choose_alphabet
from tokenization.loading import load_tokenizer
from tokenization.normaliser import NOT_PLAIN, normalise, text_normalizer
from tokenization.proto import rounded_scores
from tokenization.pruning import prune_pieces
from tokenization.tokenizer import (
    SCORE_STEP,
    SPECIAL_PIECES,
    WORD_OR_SIGN,
    Tokenizer,
    refuse_surrogates,
    sentencepiece_engine,
    split_signs,
    wordpiece_engine,
)

MANIFEST = "training.json"
FORMATS = {"wordpiece": 4, "unigram": 5, "bpe": 4}  # raised when the same settings begin to give another tokenizer
KINDS = tuple(FORMATS)
KEYS = {"kind", "vocab_size", "lowercase", "sample_characters", "min_frequency", "alphabet_size", "prune_from",
        "transliterate", "phrases", "processes"}  # fmt: skip
# Two words of letters side by side, which may become one piece (setting `phrases`).
PAIR = re.compile(r"(?<![^\W_])[^\W\d_]{2,}(?= ([^\W\d_]{2,})(?![^\W_]))")
GROUP = 500_000  # characters that one process counts at a time: less and adding up the tables takes longer than counting
# Distinct words kept while counting, 1.3 GB measured for a full table and 0.8 GB more to sort it: when full, the rarest
# are dropped (651 M words of Azerbaijani have some 6 M). The trainers get the most frequent MOST_TRAINED, so that 10 GB of
# text stay below 4 GB of memory.
MOST_WORDS, MOST_TRAINED = 8_000_000, 1_000_000
# Both trainers lay words out as often as they were counted, so larger tables are scaled down, no word below one:
# WordPiece's to so many occurrences; Unigram's to so many bytes, 13 to 20 bytes of memory each (its own bound is 7 GB).
MOST_OCCURRENCES, MOST_BYTES = 100_000_000, 100_000_000


def _share(seed: int, source: str, identifier: str) -> float:
    """A number in [0, 1) that depends on nothing but its arguments: which documents a sample takes."""
    digest = hashlib.blake2b(f"{seed}/{source}/{identifier}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def sample_texts(
    corpus: Path, characters: dict[str, int], weights: dict[str, float], budget: int, seed: int
) -> Iterator[tuple[str, int]]:
    """Stream (text, copies) of about `budget` characters of the kept documents, sources by characters x weight.

    `characters` and `weights` are per source. A document counts floor(rate) times and once more by a draw that
    depends on (seed, source, id) alone; a rate above 1 is upsampling, as in the paper's weighted DOLLMA. Raises
    UserError for text that is not valid Unicode.
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


def train_tokenizer(settings: dict[str, Any], corpus: str | Path, out: str | Path, seed: int) -> Tokenizer:
    """Train the tokenizer that `settings` (conf/tokenizer) describes on a built corpus and save it in `out`.

    Reused when `out` already holds one of the same settings, corpus and seed. Raises UserError for settings that
    cannot work and when the text cannot fill the vocabulary, with the number of pieces that it can fill.
    """
    corpus, out = Path(corpus), Path(out)
    _check(settings)
    corpus_manifest, report = read_json(corpus / "manifest.json"), read_json(corpus / "report.json")
    decisive = {key: value for key, value in settings.items() if key != "processes"}
    digest = digest_of(
        {"settings": decisive, "seed": seed, "corpus": corpus_manifest["digest"], "format": FORMATS[settings["kind"]]}
    )
    if (out / MANIFEST).exists() and read_json(out / MANIFEST)["digest"] == digest:
        print(f"tokenizer: reused {out}")
        return load_tokenizer(out)
    sources = report["sources"]
    characters = {name: entry["characters"] for name, entry in sources.items() if entry["characters"]}
    weights = {name: entry["weight"] for name, entry in sources.items()}
    texts = sample_texts(corpus, characters, weights, settings["sample_characters"], seed)
    words = count_words(texts, settings)
    if not words:
        raise UserError(f"{corpus}: no text to train a tokenizer on. Look at its report.json for what was removed and why.")
    train = _train_wordpiece if settings["kind"] == "wordpiece" else _train_sentencepiece
    tokenizer = train(settings, words)
    tokenizer.save(out)
    write_json(out / MANIFEST, {"digest": digest, "settings": decisive, "seed": seed, "corpus": corpus_manifest["digest"]})
    print(f"tokenizer: {tokenizer.kind}, {tokenizer.vocab_size:,} pieces, written to {out}")
    return load_tokenizer(out)


def _check(settings: dict[str, Any]) -> None:
    unknown = sorted(set(settings) - KEYS)
    if unknown:
        raise UserError(f"tokenizer.{unknown[0]}: no such setting. Known: {', '.join(sorted(KEYS))}.")
    if settings["kind"] not in KINDS:
        raise UserError(f"tokenizer.kind={settings['kind']}: choose wordpiece, unigram or bpe.")
    for key in ("vocab_size", "sample_characters"):
        if not isinstance(settings[key], int) or settings[key] < 1:
            raise UserError(f"tokenizer.{key}={settings[key]}: expected a whole number from 1.")
    if settings.get("phrases") and (settings["kind"] != "wordpiece" or settings["phrases"] > settings["vocab_size"] // 4):
        raise UserError(f"tokenizer.phrases={settings['phrases']}: for kind=wordpiece, at most a quarter of vocab_size.")
    if settings.get("prune_from", 1.0) < 1:
        raise UserError(f"tokenizer.prune_from={settings['prune_from']}: expected 1 (no pruning) or more.")


def count_words(texts: Iterable[tuple[str, int]], settings: dict[str, Any]) -> dict[str, int]:
    """Count the words of (text, copies): most frequent first, equal ones by spelling, at most MOST_TRAINED.

    A word is what WordPiece sees as one (signs apart) or, for Unigram and BPE, what stands between white space.
    """
    bar = tqdm(texts, desc=f"tokenizer: words for {settings['kind']}", unit=" documents", disable=None)
    groups = _groups(bar)
    work = partial(_count_group, settings)
    counts: Counter[str] = Counter()
    processes = settings.get("processes", 1)
    if processes == 1:
        _add_all(counts, map(work, groups))
    else:
        # A new interpreter each: the library's threads do not survive a fork.
        with multiprocessing.get_context("spawn").Pool(processes) as pool:
            _add_all(counts, pool.imap(work, groups))
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return dict(ordered[:MOST_TRAINED])


def _groups(texts: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    """Texts in groups of some GROUP characters."""
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
    """Add up the parts, in order, dropping the rarest words whenever the table is full."""
    for part in parts:
        counts.update(part)
        rarest = 1
        while len(counts) > MOST_WORDS:
            for word in [word for word, count in counts.items() if count <= rarest]:
                del counts[word]
            rarest += 1


_RULES: dict[tuple[bool, bool], normalizers.Normalizer] = {}  # built once a process: 60 patterns to compile


def _count_group(settings: dict[str, Any], texts: list[tuple[str, int]]) -> Counter[str]:
    """Words of one group of texts and, where phrases are asked for, pairs of words: the keys with a space."""
    kind, lowercase, transliterate = settings["kind"], settings["lowercase"], settings.get("transliterate", False)
    if (lowercase, transliterate) not in _RULES:
        _RULES[lowercase, transliterate] = text_normalizer(lowercase, transliterate)
    rules = _RULES[lowercase, transliterate]
    splitter = pre_tokenizers.Split(WORD_OR_SIGN, "removed", invert=True)
    counts: Counter[str] = Counter()
    for text, copies in texts:
        plain = normalise(text, rules, lowercase)
        if kind != "wordpiece":
            words = plain.split()
        elif NOT_PLAIN.search(text):
            words = [word for word, _ in splitter.pre_tokenize_str(plain)]
        else:
            words = split_signs(plain).split()
        if settings.get("phrases"):
            words += [f"{match.group()} {match.group(1)}" for match in PAIR.finditer(plain)]
        if copies == 1:
            counts.update(words)
        else:
            counts.update({word: count * copies for word, count in Counter(words).items()})
    return counts


def _cannot_fill(settings: dict[str, Any], filled: str) -> UserError:
    return UserError(
        f"tokenizer.vocab_size={settings['vocab_size']}: the corpus fills only {filled} pieces. "
        "Set tokenizer.vocab_size to that or less, or add text."
    )


def _train_wordpiece(settings: dict[str, Any], words: dict[str, int]) -> Tokenizer:
    """BPE merges by count (what the library calls WordPiece training), then the least useful pieces pruned.

    The most frequent `phrases` pairs of words take the place of as many pieces.
    """
    pairs = [word for word in words if " " in word]  # most frequent first
    words = {word: count for word, count in words.items() if " " not in word}
    size, most = settings["vocab_size"], int(settings["vocab_size"] * settings.get("prune_from", 1.0))
    transliterate = settings.get("transliterate", False)
    alphabet = choose_alphabet(words, settings["alphabet_size"], size, settings["lowercase"], transliterate)
    # A sign stands alone; a letter and a mark may also go on a word, whether the text has shown it or not.
    inside = {c for word in words for c in word[1:]} | {c for c in alphabet if unicodedata.category(c)[0] in "LNM"}
    # The trainer would number ##x in the order of a hash table, and numbers break its ties. Declared first, they are fixed.
    declared = [*SPECIAL_PIECES, *("##" + character for character in alphabet if character in inside)]
    if len(declared) + len(alphabet) > size:
        raise UserError(
            f"tokenizer.vocab_size={size}: {len(declared) + len(alphabet)} pieces are needed for single characters alone. "
            "Set tokenizer.vocab_size above that, or lower tokenizer.alphabet_size."
        )
    engine = tokenizers.Tokenizer(models.WordPiece(unk_token=SPECIAL_PIECES[1], max_input_chars_per_word=100))
    engine.pre_tokenizer = pre_tokenizers.Split(Regex(r" "), "removed")
    trainer = trainers.WordPieceTrainer(
        vocab_size=most, min_frequency=settings["min_frequency"], show_progress=False, special_tokens=declared,
        initial_alphabet=alphabet, limit_alphabet=len(alphabet),
    )  # fmt: skip
    bar = tqdm(total=len(words), desc="tokenizer: table of words", unit=" words", disable=None)
    engine.train_from_iterator(_repeated(words, bar), trainer)
    bar.close()
    vocabulary = engine.get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    if len(pieces) < size:
        raise _cannot_fill(settings, f"{len(pieces):,}")
    known = set(alphabet) | {" "}
    phrases = [pair for pair in pairs if known.issuperset(pair)][: settings.get("phrases") or 0]
    pieces = prune_pieces(pieces, words, size - len(phrases), keep=set(declared) | set(alphabet)) + phrases
    engine = wordpiece_engine(pieces, settings["lowercase"], transliterate)
    return Tokenizer("wordpiece", engine, _describe(settings))


def _repeated(words: dict[str, int], bar: tqdm) -> Iterator[str]:
    """Lines in which every word stands as often as it was counted, scaled down to MOST_OCCURRENCES in all."""
    scale = max(1.0, sum(words.values()) / MOST_OCCURRENCES)
    for word, count in words.items():
        left = max(1, round(count / scale))
        while left > 0:
            yield " ".join([word] * min(left, 1000))
            left -= 1000
        bar.update()


def _train_sentencepiece(settings: dict[str, Any], words: dict[str, int], most_bytes: int = MOST_BYTES) -> Tokenizer:
    model = io.BytesIO()
    pad, unk, cls, sep, mask = SPECIAL_PIECES
    scale = 1.0
    if settings["kind"] == "unigram":
        scale = max(1.0, sum(count * (len(word.encode()) + 1) for word, count in words.items()) / most_bytes)
    lines = (f"{word}\t{max(1, round(count / scale))}" for word, count in words.items())
    print(f"tokenizer: {settings['kind']} on {len(words):,} words (sentencepiece reports no progress)")
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines, input_format="tsv", model_writer=model, model_type=settings["kind"],
            vocab_size=settings["vocab_size"], character_coverage=0.9999, required_chars=ALWAYS, byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, user_defined_symbols=["\n"],
            pad_id=0, unk_id=1, bos_id=2, eos_id=3, control_symbols=[mask], pad_piece=pad, unk_piece=unk, bos_piece=cls,
            eos_piece=sep, num_threads=2, minloglevel=2, max_sentence_length=100_000, train_extremely_large_corpus=False,
        )  # fmt: skip
    except (RuntimeError, OSError) as error:
        message = str(error)
        if needed := re.search(r"smaller than required_chars\. \d+ vs (\d+)", message):
            raise UserError(
                f"tokenizer.vocab_size={settings['vocab_size']}: {int(needed[1]):,} pieces are needed for bytes and single "
                "characters alone. Set tokenizer.vocab_size above that."
            ) from None
        if filled := re.search(r"<= (\d+)\.?\s*$", message):
            raise _cannot_fill(settings, f"{int(filled[1]):,}") from None
        if "vocab" in message.lower():
            raise UserError(f"tokenizer.vocab_size={settings['vocab_size']}: {message.splitlines()[-1]}") from None
        raise
    proto = model.getvalue()
    if settings["kind"] == "unigram":
        proto = rounded_scores(proto, SCORE_STEP)
    native = sentencepiece.SentencePieceProcessor(model_proto=proto)
    if native.get_piece_size() < settings["vocab_size"]:
        raise _cannot_fill(settings, f"{native.get_piece_size():,}")
    engine = sentencepiece_engine(settings["kind"], native, settings["lowercase"], settings.get("transliterate", False))
    return Tokenizer(settings["kind"], engine, _describe(settings), native)


def _describe(settings: dict[str, Any]) -> dict[str, Any]:
    """What tokenizer_config.json says of a tokenizer of ours."""
    normaliser = {"language": "azerbaijani", "transliterate": settings.get("transliterate", False)}
    return {"do_lower_case": settings["lowercase"], "model_max_length": 512, "normaliser": normaliser}
