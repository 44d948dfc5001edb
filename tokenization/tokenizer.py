"""One interface for every tokenizer: ids, offsets into the caller's string, special ids, identity.

A tokenizer of ours is one tokenizer.json, which transformers' AutoTokenizer loads with the same ids and offsets. Offsets
always come from the `tokenizers` library with that file. For ids alone, as shards need them, there is a faster path whose
results the tests compare: WordPiece over words that are split already, or `sentencepiece` itself for Unigram and BPE
(tokenizer.model beside it), four times as fast as the library's own Unigram. Foreign tokenizers are loaded by
`tokenization.loading`.
"""

import hashlib
import json
import re
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sentencepiece
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from common.errors import UserError
from common.files import write_bytes, write_json
from language.base import Language, load_language
from tokenization.normaliser import SPACE_MARK, Normaliser, lower_rules, normaliser_of, space_marks, text_normalizer
from tokenization.proto import as_ordinary_piece, with_normaliser_of

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0-4 in every tokenizer that we train
PAD, UNK, CLS, SEP, MASK = SPECIAL_TOKENS
ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")  # their names in tokenizer_config.json
JSON_FILE, MODEL_FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer.model", "tokenizer_config.json"
LONGEST_WORD = 100  # characters; WordPiece gives [UNK] for a longer one
# Every sign and every white space ends a word; a sign is a word of its own, so an unknown emoji affects no other word.
WORD_OR_SIGN_PATTERN = r"[\p{P}\p{S}]|[^\s\p{P}\p{S}]+"
WORD_OR_SIGN = Regex(WORD_OR_SIGN_PATTERN)
_SIGN = re.compile(r"([^\w\s]|_)")  # the same signs in text of plain characters
JOINED = "\u02cd"  # replaces the space inside a phrase on the fast path: a letter to Python that plain text never contains
# sentencepiece sums path scores in float32. Multiples of 1/64 add exactly up to 2^24 / 64 = 262,144, and 8,000 characters at
# about -30 each (unknown ones) stay below it. So its best path equals that of the library, which sums in float64.
SCORE_STEP, LONGEST_PART = 1 / 64, 8_000
# Characters that a library reads at once while the next are prepared. sentencepiece starts its threads again for every call,
# which takes 0.8 ms of CPU each, so groups are large.
GROUP = 400_000
# Texts are read several at a time, separated by a line end: an array for each costs 2.5 µs, a fifth of Unigram's time for
# 180 characters. BPE's merge queue is faster for short runs.
RUN = {"unigram": LONGEST_PART, "bpe": 1_000}


class Encoding(NamedTuple):
    """Tokens of one text, without special tokens."""

    ids: np.ndarray  # [n] int32
    offsets: np.ndarray  # [n, 2] int32: first and one-past-last character in the string that was passed in


class Tokenizer:
    """A trained tokenizer; build one with `tokenization.loading.load_tokenizer` or `tokenization.train.train_tokenizer`.

    `kind` is wordpiece, unigram, bpe or sentencepiece (a foreign .model). `engine` is the library's tokenizer, `native`
    the sentencepiece model of the same tokens; foreign tokenizers have one of the two. `settings` are the contents of
    tokenizer_config.json, which for our own tokenizers include "normaliser".
    """

    def __init__(
        self,
        kind: str,
        engine: tokenizers.Tokenizer | None,
        settings: dict[str, Any],
        native: sentencepiece.SentencePieceProcessor | None = None,
        special: Sequence[str] = SPECIAL_TOKENS,
        need_special: bool = True,
    ) -> None:
        self.kind, self.engine, self.native, self.settings = kind, engine, native, settings
        self.lowercase = bool(settings.get("do_lower_case", False))
        self.max_length = settings.get("model_max_length", 512)
        self.special_tokens = tuple(special)
        if engine is not None:
            engine.encode_special_tokens = True  # "[MASK]" in a text is ordinary text; special tokens are placed by id
            table = engine.get_vocab(with_added_tokens=True)
            self.tokens = [""] * (max(table.values()) + 1)
            for token, index in table.items():
                self.tokens[index] = token
        else:
            self.tokens = [native.id_to_piece(i) for i in range(native.get_piece_size())]
        self.vocab_size = len(self.tokens)
        self._set_special(need_special)
        self.continues = continuing(self.tokens)
        self.continues[self.special_ids] = False
        self.ours = "normaliser" in settings
        self.language: Language | None = None  # of a tokenizer that we trained; foreign ones have none
        if self.ours:
            self.language = _language_of(settings["normaliser"])
            self._rules = normaliser_of(self.language, self.lowercase, settings["normaliser"].get("transliterate", False))
            self._short = _short_engine(engine, self._rules)
            self._words = _word_engine(self.tokens) if kind == "wordpiece" else None
            if native is not None:
                self._line_end = native.piece_to_id("\n")
                self._reader = _reader(native, self._rules)
            phrases = phrase_pattern(self.tokens) if kind == "wordpiece" else ""
            self._phrases = re.compile(rf"\b{phrases}\b") if phrases else None

    def _set_special(self, needed: bool) -> None:
        ids = {token: index for index, token in enumerate(self.tokens)}
        missing = [
            f"{role} ({token or 'no name known'})"
            for role, token in zip(ROLES, self.special_tokens, strict=True)
            if token not in ids
        ]
        if missing and needed:
            raise UserError(
                f"tokenizer: special tokens are missing: {', '.join(missing)}. Name them in {SETTINGS_FILE} or add them."
            )
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids.get(p, -1) for p in self.special_tokens)
        self.special_ids = np.array(sorted({ids[token] for token in self.special_tokens if token in ids}), dtype=np.int64)

    @property
    def ordinary_ids(self) -> np.ndarray:
        """Ids of all tokens except the special ones: candidates for random replacement."""
        return np.setdiff1d(np.arange(self.vocab_size), self.special_ids)

    @property
    def identity(self) -> str:
        """Hex digest of everything that determines the ids of a text; stored in shards and checkpoints."""
        content = b"".join(self._files()[name] for name in sorted(self._files()))
        return hashlib.sha256(content + f"{self.kind} {self.lowercase}".encode()).hexdigest()[:16]

    def normalise(self, text: str) -> str:
        """The text that the tokens spell: NFC, unified marks, lower case if uncased. Foreign tokenizers change nothing."""
        return self._rules(text) if self.ours else text

    def encode_batch(self, texts: Sequence[str], names: Sequence[str] | None = None) -> list[np.ndarray]:
        """Ids of each text ([n] int32), no special tokens added.

        Raises UserError for a text that is not valid Unicode (a lone surrogate), with its name from `names` if given.
        """
        try:
            if not self.ours:
                if self.engine is None:
                    return self.native.encode(list(texts), return_type="numpy")
                return [_ints(item.ids) for item in self.engine.encode_batch_fast(list(texts), add_special_tokens=False)]
            prepare, read = (
                (self._prepare_words, self._read_words) if self.native is None else (self._prepare_native, self._read_native)
            )
            if sum(map(len, texts)) <= GROUP:
                return read(prepare(texts))
            # The libraries release the interpreter lock while they read, so the next group is prepared in that time.
            with ThreadPoolExecutor(1) as reader:
                parts = [reader.submit(read, prepare(group)) for group in _groups(texts)]
            return [ids for part in parts for ids in part.result()]
        except (UnicodeError, TypeError):
            refuse_surrogates(texts, names)
            raise

    def encode_words(self, words: Sequence[str]) -> list[np.ndarray]:
        """Ids of each word ([n] int32) as inside a sentence, that is, after a space; errors as `encode_batch`.

        Joined, they equal the ids that transformers gives a tagged sentence with `is_split_into_words=True` and
        `add_prefix_space=True`. Without the space a byte-level BPE would read every word as the end of another one.
        """
        if self.ours:  # our tokenizers mark the beginning of a text like that of a word
            return self.encode_batch(words)
        reader, needs_space = self._word_reader
        try:
            if reader is None:  # sentencepiece drops a space at the beginning of a text, so a sign is put before the word
                before = self.native.encode(".") if needs_space else []
                texts = [f". {word}" if needs_space else word for word in words]
                return [ids[len(before) :] for ids in self.native.encode(texts, return_type="numpy")]
            texts = [f" {word}" if needs_space and word[:1] != " " else word for word in words]
            return [_ints(item.ids) for item in reader.encode_batch_fast(texts, add_special_tokens=False)]
        except (UnicodeError, TypeError):
            refuse_surrogates(words, None)
            raise

    @cached_property
    def _word_reader(self) -> tuple[tokenizers.Tokenizer | None, bool]:
        """A foreign tokenizer that marks every text as the beginning of a word, and whether a space must precede the word.

        ByteLevel and Metaspace have a switch for it. Where there is none that fits (Gemma's tokenizer, which mmBERT uses,
        replaces spaces by ▁ and adds none), the space is put before the word.
        """
        if self.engine is None:
            read = self.native.encode("a", out_type=str)
            return None, not read or not read[0].startswith(SPACE_MARK)
        reader = self.engine
        if not any(sign in token for token in reader.encode("a a").tokens for sign in (SPACE_MARK, "Ġ")):
            return reader, False  # spaces only part words: none has a mark
        saved = json.loads(reader.to_str())
        if _begin_with_space(saved["pre_tokenizer"]):
            reader = tokenizers.Tokenizer.from_str(json.dumps(saved))
            reader.encode_special_tokens = True
        first = [reader.encode(text, add_special_tokens=False).tokens[:1] for text in (" a", "a")]
        marks = {token[:1] for tokens in first for token in tokens}
        return reader, len(marks) > 1 and bool(marks & {SPACE_MARK, "Ġ"})

    def encode_with_masks(self, text: str) -> np.ndarray:
        """Ids ([n] int32, no frame) of a text in which the mask token's name, or [MASK], means the mask.

        The spaces beside a mask belong to it or to the next word according to the tokenizer's own settings, so the ids are
        those of transformers. All other special tokens are ordinary text, as everywhere here.
        """
        name = self.special_tokens[4]
        text = text.replace(MASK, name)
        if self.engine is not None and not (self.ours and self.native is not None):
            return _ints(self._mask_reader.encode(text, add_special_tokens=False).ids)
        # A sentencepiece model gives every part its own first ▁, so the spaces around a mask are dropped.
        parts = self.encode_batch([part.strip() for part in text.split(name)])
        mask = np.array([self.mask_id], np.int32)
        return np.concatenate([parts[0], *(np.concatenate([mask, part]) for part in parts[1:])])

    @cached_property
    def _mask_reader(self) -> tokenizers.Tokenizer:
        """The library's tokenizer with the mask as an ordinary added token: the only special one it recognises in text."""
        saved = json.loads(self.engine.to_str())
        for token in saved["added_tokens"]:
            if token["content"] == self.special_tokens[4]:
                token["special"] = False
        reader = tokenizers.Tokenizer.from_str(json.dumps(saved))
        reader.encode_special_tokens = True
        return reader

    def _prepare_words(self, texts: Sequence[str]) -> tuple[list[int], list[str], list[int], list[str]]:
        """Indices and words of plain texts, for the engine that only looks words up; indices and texts of the others."""
        plain, other, words = [], [], []
        for index, text in enumerate(self._rules.plain_all(texts)):
            # Beside an underscore Python's word border differs from ours; with phrases such text takes the slow path too.
            if text is None or (self._phrases is not None and "_" in text):
                other.append(index)
            else:
                plain.append(index)
                words.append(text)
        if self._phrases is not None:
            words = [self._phrases.sub(lambda match: match.group().replace(" ", JOINED), text) for text in words]
        return plain, [split_signs(text) for text in words], other, [texts[index] for index in other]

    def _read_words(self, prepared: tuple[list[int], list[str], list[int], list[str]]) -> list[np.ndarray]:
        plain, words, other, texts = prepared
        encoded: list[np.ndarray | None] = [None] * (len(plain) + len(other))
        for places, engine, batch in ((plain, self._words, words), (other, self.engine, texts)):
            for index, item in zip(places, engine.encode_batch_fast(batch, add_special_tokens=False), strict=True):
                encoded[index] = _ints(item.ids)
        return encoded  # type: ignore[return-value]

    def _prepare_native(self, texts: Sequence[str]) -> list[str]:
        return self._rules.cased_all(texts)

    def _read_native(self, texts: list[str]) -> list[np.ndarray]:
        """sentencepiece over parts of at most LONGEST_PART characters; a part begins where its ▁ replaces a space."""
        if max(map(len, texts), default=0) <= LONGEST_PART:
            return self._read_runs(texts)
        parts, owner = [], []
        for index, text in enumerate(texts):
            cut = _parts(text)
            parts += cut
            owner += [index] * len(cut)
        # A run longer than the bound without a space is left to the library, which is slower and sums exactly.
        read = self._read_runs([part if len(part) <= LONGEST_PART else "" for part in parts])
        together: list[list[np.ndarray]] = [[] for _ in texts]
        for index, part, ids in zip(owner, parts, read, strict=True):
            long = len(part) > LONGEST_PART
            together[index].append(_ints(self._short.encode(part, add_special_tokens=False).ids) if long else ids)
        return [arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for arrays in together]

    def _read_runs(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of each text, read in runs of RUN characters: t1, line end, space, t2, ..., line end.

        No other token contains a line end, so a text's tokens are the same as when it is read alone, and the space gives it
        the ▁ with which every text begins.
        """
        runs, room, ends = [], 0, 0  # texts of each run; ends: number of line ends so far
        own, last = [], np.zeros(len(texts), dtype=np.int64)  # last: number of the line end that closes each text
        for index, text in enumerate(texts):
            if text:
                if len(text) > room:
                    own = []
                    runs.append(own)
                    room = RUN[self.kind]
                own.append(text)
                room -= len(text) + 2
                ends += text.count("\n") + 1
            last[index] = ends - 1
        read = self._reader.encode(["\n ".join(run) + "\n" for run in runs], return_type="numpy")
        ids = np.concatenate([np.zeros(0, np.int32), *read])
        places = np.flatnonzero(ids == self._line_end)
        stops = np.concatenate([[-1], places])[last + 1].tolist()
        found, begin = [], 0
        for text, stop in zip(texts, stops, strict=True):
            found.append(ids[begin:stop] if text else ids[:0])
            begin = stop + 1
        return found

    def encode_with_offsets(self, texts: Sequence[str], names: Sequence[str] | None = None) -> list[Encoding]:
        """Ids and character offsets of each text, for answers, tags and characters covered; errors as `encode_batch`.

        Offsets are those of the caller's string. Blanks that a foreign tokenizer includes in a token are excluded, so that the
        text between two offsets is a word or an answer as written; a token of only blanks covers nothing.
        """
        try:
            if self.engine is None:
                return [_without_blanks(text, _encoding(*self._native_offsets(text))) for text in texts]
            if not self.ours:
                items = self.engine.encode_batch(list(texts), add_special_tokens=False)
                return [_without_blanks(text, _encoding(i.ids, i.offsets)) for text, i in zip(texts, items, strict=True)]
            engines = [self.engine if self._rules.not_plain.search(text) else self._short for text in texts]
            encoded: list[Encoding | None] = [None] * len(texts)
            for engine in (self._short, self.engine):
                places = [index for index, chosen in enumerate(engines) if chosen is engine]
                for index, item in zip(
                    places, engine.encode_batch([texts[i] for i in places], add_special_tokens=False), strict=True
                ):
                    encoded[index] = _encoding(item.ids, item.offsets)
            return encoded  # type: ignore[return-value]
        except (UnicodeError, TypeError):
            refuse_surrogates(texts, names)
            raise

    def _native_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and offsets by a foreign sentencepiece model."""
        if not text:
            return [], []
        read = self.native.encode(text, return_type="offset_mapping")
        return read["ids"], read["offsets"]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ordinary tokens in `ids`; special tokens are left out.

        Unigram and BPE restore `normalise(text)` exactly; WordPiece gives its words and signs separated by single spaces.
        """
        special = set(self.special_ids.tolist())
        ordinary = [int(i) for i in ids if int(i) not in special]
        return self.native.decode(ordinary) if self.native is not None else self.engine.decode(ordinary)

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files into `folder`: tokenizer.json, tokenizer.model if there is one, and the config."""
        files = self._files()
        for name, content in files.items():
            write_bytes(Path(folder) / name, content)
        write_json(
            Path(folder) / SETTINGS_FILE,
            {
                **self.settings,
                "kind": self.kind,
                "do_lower_case": self.lowercase,
                "strip_accents": False,
                "tokenizer_class": "PreTrainedTokenizerFast",
                "model_max_length": self.max_length,
                **{role: token for role, token in zip(ROLES, self.special_tokens, strict=True) if token},
                "identity": self.identity,
            },
        )

    def _files(self) -> dict[str, bytes]:
        files = {} if self.engine is None else {JSON_FILE: self.engine.to_str(pretty=True).encode()}
        return files | ({} if self.native is None else {MODEL_FILE: self.native.serialized_model_proto()})


def _language_of(normaliser: dict[str, Any]) -> Language:
    """The pack named in a tokenizer's settings; UserError if there is none."""
    if "language" not in normaliser:
        raise UserError(f'tokenizer: no "language" under "normaliser" in {SETTINGS_FILE}. Restore the file or train it again.')
    return load_language(normaliser["language"])


def _reader(native: sentencepiece.SentencePieceProcessor, rules: Normaliser) -> sentencepiece.SentencePieceProcessor:
    """The same tokens for normalised text, and for plain text, which it lower-cases itself.

    The line end is an ordinary token here: sentencepiece gives user-defined symbols a score that is not a multiple of
    SCORE_STEP, and sums after it would not be exact.
    """
    proto = as_ordinary_piece(native.serialized_model_proto(), "\n", -1.0)
    proto = with_normaliser_of(proto, rules.casing_model) if rules.lowercase else proto
    return sentencepiece.SentencePieceProcessor(model_proto=proto)


def refuse_surrogates(texts: Sequence[str], names: Sequence[str] | None = None) -> None:
    """Raise UserError for the first text that UTF-8 cannot encode, with its name, position and the remedy."""
    for index, text in enumerate(texts):
        where = names[index] if names is not None else f"text {index + 1} of {len(texts)}"
        if not isinstance(text, str):
            raise UserError(f"{where}: expected a string to tokenize, found {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{where}: a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}; it is half of a "
                "character and cannot be written as UTF-8. Decode the file again or remove it."
            ) from None


def continuing(tokens: list[str]) -> np.ndarray:
    """[tokens] bool: whether a token continues the word before it, recognised by the marks that the vocabulary uses."""
    if any(token.startswith("##") for token in tokens):
        return np.array([token.startswith("##") and token != "##" for token in tokens])
    mark = max(SPACE_MARK, "Ġ", key=lambda sign: sum(token.startswith(sign) for token in tokens))
    byte = re.compile(r"<0x[0-9A-F]{2}>")
    # A sign after a word ("söz,") has no space before it either but is not part of the word.
    return np.array(
        [not token.startswith(mark) and bool(byte.fullmatch(token) or any(c.isalnum() for c in token)) for token in tokens]
    )


def split_signs(plain: str) -> str:
    """Normalised plain text with spaces around every sign: WORD_OR_SIGN for engines that then split at spaces."""
    return _SIGN.sub(r" \1 ", plain)


def _groups(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """`texts` in groups of about GROUP characters."""
    begin = size = 0
    for end, text in enumerate(texts, 1):
        size += len(text)
        if size >= GROUP:
            yield texts[begin:end]
            begin, size = end, 0
    if begin < len(texts):
        yield texts[begin:]


def _parts(text: str) -> list[str]:
    """`text` cut at spaces into parts of at most LONGEST_PART characters, without the spaces at the cuts."""
    parts, begin = [], 0
    while len(text) - begin > LONGEST_PART:
        cut = text.rfind(" ", begin + 1, begin + LONGEST_PART + 1)
        if cut < 0:
            cut = text.find(" ", begin + LONGEST_PART)
        # Only a space between two other characters can be replaced by the next part's own mark.
        if cut < 0 or text[cut - 1] == " " or text[cut + 1 : cut + 2] in (" ", ""):
            break
        parts.append(text[begin:cut])
        begin = cut + 1
    return [*parts, text[begin:]]


def _ints(ids: list[int]) -> np.ndarray:
    return np.frombuffer(array("i", ids), dtype=np.int32)  # half the time of np.array on a list


def _encoding(ids: list[int], offsets: list[tuple[int, int]]) -> Encoding:
    return Encoding(np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int32).reshape(len(ids), 2))


def _without_blanks(text: str, encoding: Encoding) -> Encoding:
    """The same ids; offsets exclude blanks at both ends; (end, end) for a token of only blanks."""
    blank = np.fromiter((character.isspace() for character in text), bool, len(text))
    if not blank.any() or not len(encoding.ids):
        return encoding
    begins, ends = encoding.offsets.T
    places = np.flatnonzero(~blank)
    first = np.searchsorted(places, begins)  # of the token's characters that are not blank, as indices into `places`
    last = np.searchsorted(places, ends) - 1
    filled = first <= last
    if not len(places):
        return Encoding(encoding.ids, np.stack([ends, ends], 1))
    top = len(places) - 1
    begins = np.where(filled, places[np.minimum(first, top)], ends)
    ends = np.where(filled, places[np.maximum(last, 0)] + 1, ends)
    return Encoding(encoding.ids, np.stack([begins, ends], 1).astype(np.int32))


def _begin_with_space(rule: dict[str, Any] | None) -> bool:
    """Let the ByteLevel or Metaspace of a saved pre-tokenizer mark the beginning of a text; False if nothing changed.

    Behind a rule that parts words (Digits, Punctuation, the patterns of Llama 3's and LTG-BERT's tokenizers) it would mark
    every part and is left alone; behind one that parts at blanks, every part is a word.
    """
    if rule is None:
        return False
    if rule["type"] == "Sequence":
        parts = [part for part in rule["pretokenizers"] if part["type"] != "WhitespaceSplit"]
        return bool(parts) and _begin_with_space(parts[0])
    key, value = {"ByteLevel": ("add_prefix_space", True), "Metaspace": ("prepend_scheme", "always")}.get(rule["type"], ("", 0))
    if not key or rule.get(key) == value:
        return False
    rule[key] = value
    return True


def _word_engine(tokens: list[str]) -> tokenizers.Tokenizer:
    """The same tokens over normalised text with spaces around every sign and JOINED inside phrases."""
    vocabulary = {token.replace(" ", JOINED): index for index, token in enumerate(tokens)}
    bare = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=LONGEST_WORD))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return bare


def _short_engine(engine: tokenizers.Tokenizer, rules: Normaliser) -> tokenizers.Tokenizer:
    """The same tokenizer without the rules that plain text does not need; casing and space marks stay."""
    short = tokenizers.Tokenizer.from_str(engine.to_str())
    marks = [] if isinstance(engine.model, models.WordPiece) else space_marks()
    short.normalizer = normalizers.Sequence([*(lower_rules(rules.language) if rules.lowercase else []), *marks])
    short.encode_special_tokens = True
    return short


def phrase_pattern(tokens: Sequence[str]) -> str:
    """A regular expression for the tokens with a space in them, as a tree of their letters; "" if there are none.

    A list of alternatives would be tried phrase by phrase at every word.
    """
    root: dict[str, Any] = {}
    for phrase in (token for token in tokens if " " in token):
        node = root
        for character in phrase:
            node = node.setdefault(character, {})
        node[""] = {}

    def spelled(node: dict[str, Any]) -> str:
        ways = [re.escape(letter) + spelled(node[letter]) for letter in sorted(node) if letter]
        if not ways:
            return ""
        together = f"(?:{'|'.join(ways)})"
        return together + "?" if "" in node else together

    return spelled(root)


def wordpiece_engine(
    tokens: Sequence[str], language: Language, lowercase: bool, transliterate: bool = False
) -> tokenizers.Tokenizer:
    """tokenizer.json of a WordPiece vocabulary; `tokens` are in the order of their ids (the five special ones first).

    A token with a space in it is a phrase, which is one word wherever its words are adjacent.
    """
    vocabulary = {token: index for index, token in enumerate(tokens)}
    model = models.WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=LONGEST_WORD)
    engine = tokenizers.Tokenizer(model)
    engine.normalizer = text_normalizer(language, lowercase, transliterate)
    phrases = phrase_pattern(tokens)
    inside = r"[^\s\p{P}\p{S}]"
    unit = Regex(f"(?<!{inside}){phrases}(?!{inside})|{WORD_OR_SIGN_PATTERN}") if phrases else WORD_OR_SIGN
    engine.pre_tokenizer = pre_tokenizers.Split(unit, "removed", invert=True)
    engine.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return _with_template(engine)


def sentencepiece_engine(
    kind: str, native: sentencepiece.SentencePieceProcessor, language: Language, lowercase: bool, transliterate: bool = False
) -> tokenizers.Tokenizer:
    """tokenizer.json of a sentencepiece model that we trained (`kind` unigram or bpe): same tokens, same ids."""
    size = native.get_piece_size()
    tokens = [native.id_to_piece(index) for index in range(size)]
    if kind == "unigram":
        # Special and byte tokens must never be found in text: their score is far below any path.
        scores = [
            -1e6 if native.is_control(i) or native.is_unknown(i) or native.is_byte(i) else native.get_score(i)
            for i in range(size)
        ]
        model = models.Unigram(list(zip(tokens, scores, strict=True)), unk_id=native.unk_id(), byte_fallback=True)
    else:
        ids = {token: index for index, token in enumerate(tokens)}
        merges = []
        for token in tokens:  # in order of rank
            if not (native.is_control(ids[token]) or native.is_byte(ids[token]) or native.is_unknown(ids[token])):
                halves = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
                halves = [(left, right) for left, right in halves if left in ids and right in ids]
                merges += sorted(halves, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        model = models.BPE(ids, merges, unk_token=UNK, byte_fallback=True)
    engine = tokenizers.Tokenizer(model)
    engine.normalizer = normalizers.Sequence([text_normalizer(language, lowercase, transliterate), *space_marks()])
    engine.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Metaspace(SPACE_MARK, prepend_scheme="always", split=True)]
    )
    engine.decoder = decoders.Sequence(
        [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _with_template(engine)


def _with_template(engine: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Declare special tokens and [CLS] a [SEP] b [SEP] for other programs that load the file; `data` places its own."""
    # A sentencepiece vocabulary marks the beginning of every part of a text, so the spaces beside a mask belong to the mask:
    # otherwise each would become a token ▁ in transformers, which no mask in the training text has beside it.
    spaced = not isinstance(engine.model, models.WordPiece)
    tokens = {token: tokenizers.AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS}
    tokens[MASK] = tokenizers.AddedToken(MASK, special=True, normalized=False, lstrip=spaced, rstrip=spaced)
    engine.add_special_tokens(list(tokens.values()))
    engine.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, engine.token_to_id(CLS)), (SEP, engine.token_to_id(SEP))],
    )
    return engine
