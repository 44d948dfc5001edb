"""One interface for every tokenizer: ids, offsets into the caller's own string, special ids, identity.

A tokenizer of ours is one tokenizer.json, which transformers' AutoTokenizer loads with the same ids and offsets. Its
offsets always come from the `tokenizers` library reading that file. Ids alone, which is what shards are made of, take
a shorter way that the tests hold equal: WordPiece over words already set apart, or `sentencepiece` itself for Unigram
and BPE (tokenizer.model beside it), four times the speed of the library's own Unigram. Other people's tokenizers come
in through `tokenization.loading`.
"""

import hashlib
import re
from array import array
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import sentencepiece
import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from common.errors import UserError
from common.files import write_bytes, write_json
from tokenization.normaliser import (
    NOT_PLAIN,
    SPACE_MARK,
    cased_all,
    casing_model,
    lower_rules,
    normalise,
    plain_all,
    space_marks,
    text_normalizer,
)
from tokenization.proto import as_ordinary_piece, with_normaliser_of

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0-4 in every tokenizer that we train
PAD, UNK, CLS, SEP, MASK = SPECIAL_PIECES
ROLES = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")  # their names in tokenizer_config.json
JSON_FILE, MODEL_FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer.model", "tokenizer_config.json"
LONGEST_WORD = 100  # characters; WordPiece gives [UNK] for a longer one
# Every sign and every white space ends a word; a sign is a word of its own, so an unknown emoji never takes a word along.
WORD_OR_SIGN_PATTERN = r"[\p{P}\p{S}]|[^\s\p{P}\p{S}]+"
WORD_OR_SIGN = Regex(WORD_OR_SIGN_PATTERN)
_SIGN = re.compile(r"([^\w\s]|_)")  # the same signs in text of plain characters
JOINED = "\u02cd"  # stands for the space inside a phrase on the short way: a letter to Python, and never plain text
# sentencepiece sums path scores in float32. Scores in steps of 1/64 add without error up to 2^24 / 64 = 262,144, and
# 8,000 characters, unknown ones at about -30 each, stay below it: its best path is the library's, which sums in float64.
SCORE_STEP, LONGEST_PART = 1 / 64, 8_000
# Characters that a library reads at once while the next are prepared. sentencepiece starts its threads anew for every call,
# 0.8 ms of CPU each, so groups are large.
GROUP = 400_000
# Texts are read several at a time, a line end between them: an array for each costs 2.5 µs, a fifth of what Unigram takes
# to read 180 characters. BPE's queue of merges is quicker for short runs.
RUN = {"unigram": LONGEST_PART, "bpe": 1_000}


class Encoding(NamedTuple):
    """Pieces of one text, without special pieces."""

    ids: np.ndarray  # [n] int32
    offsets: np.ndarray  # [n, 2] int32: first and one-past-last character in the string that was passed in


class Tokenizer:
    """A trained tokenizer; build one with `tokenization.loading.load_tokenizer` or `tokenization.train.train_tokenizer`.

    `kind` is wordpiece, unigram, bpe or sentencepiece (a foreign .model). `engine` is the library's tokenizer, `native`
    the sentencepiece model of the same pieces; foreign tokenizers have one of the two. `settings` are what
    tokenizer_config.json says; those that we trained hold "normaliser" there.
    """

    def __init__(
        self, kind: str, engine: tokenizers.Tokenizer | None, settings: dict[str, Any],
        native: sentencepiece.SentencePieceProcessor | None = None, special: Sequence[str] = SPECIAL_PIECES,
        need_special: bool = True,
    ) -> None:  # fmt: skip
        self.kind, self.engine, self.native, self.settings = kind, engine, native, settings
        self.lowercase = bool(settings.get("do_lower_case", False))
        self.max_length = settings.get("model_max_length", 512)
        self.special_pieces = tuple(special)
        if engine is not None:
            engine.encode_special_tokens = True  # text that holds "[MASK]" is text: specials are placed by id
            table = engine.get_vocab(with_added_tokens=True)
            self.pieces = [""] * (max(table.values()) + 1)
            for piece, index in table.items():
                self.pieces[index] = piece
        else:
            self.pieces = [native.id_to_piece(i) for i in range(native.get_piece_size())]
        self.vocab_size = len(self.pieces)
        self._set_special(need_special)
        self.continues = continuing(self.pieces)
        self.continues[self.special_ids] = False
        self.ours = "normaliser" in settings
        if self.ours:
            self._rules = text_normalizer(self.lowercase, settings["normaliser"].get("transliterate", False))
            self._short = _short_engine(engine, self.lowercase)
            self._words = _word_engine(self.pieces) if kind == "wordpiece" else None
            if native is not None:
                self._line_end = native.piece_to_id("\n")
                self._reader = _reader(native, self.lowercase)
            phrases = phrase_pattern(self.pieces) if kind == "wordpiece" else ""
            self._phrases = re.compile(rf"\b{phrases}\b") if phrases else None

    def _set_special(self, needed: bool) -> None:
        ids = {piece: index for index, piece in enumerate(self.pieces)}
        missing = [f"{role} ({piece or 'no name known'})" for role, piece in zip(ROLES, self.special_pieces, strict=True)
                   if piece not in ids]  # fmt: skip
        if missing and needed:
            raise UserError(
                f"tokenizer: special pieces are missing: {', '.join(missing)}. Name them in {SETTINGS_FILE} or add them."
            )
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids.get(p, -1) for p in self.special_pieces)
        self.special_ids = np.array(sorted({ids[piece] for piece in self.special_pieces if piece in ids}), dtype=np.int64)

    @property
    def ordinary_ids(self) -> np.ndarray:
        """Ids of all pieces but the special ones: what a random replacement may be drawn from."""
        return np.setdiff1d(np.arange(self.vocab_size), self.special_ids)

    @property
    def identity(self) -> str:
        """Hex digest of everything that decides which ids a text gets; shards and checkpoints carry it."""
        content = b"".join(self._files()[name] for name in sorted(self._files()))
        return hashlib.sha256(content + f"{self.kind} {self.lowercase}".encode()).hexdigest()[:16]

    def normalise(self, text: str) -> str:
        """The text that the pieces spell: NFC, marks unified, lower case if uncased. Ours only; foreign text unchanged."""
        return normalise(text, self._rules, self.lowercase) if self.ours else text

    def encode_batch(self, texts: Sequence[str], names: Sequence[str] | None = None) -> list[np.ndarray]:
        """Ids of each text ([n] int32), no special pieces added.

        Raises UserError for a text that is not valid Unicode (a lone surrogate), by its entry in `names` if given.
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
            # The libraries let go of the interpreter while they read, so the next group is prepared in that time.
            with ThreadPoolExecutor(1) as reader:
                parts = [reader.submit(read, prepare(group)) for group in _groups(texts)]
            return [ids for part in parts for ids in part.result()]
        except (UnicodeError, TypeError):
            refuse_surrogates(texts, names)
            raise

    def _prepare_words(self, texts: Sequence[str]) -> tuple[list[int], list[str], list[int], list[str]]:
        """Places and words of plain texts, for the engine that only looks words up; places and texts of the rest."""
        plain, other, words = [], [], []
        for index, text in enumerate(plain_all(texts, self.lowercase)):
            # Beside a low line Python's word border is not ours; with phrases such text goes the long way too.
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
        return cased_all(texts, self._rules, self.lowercase)

    def _read_native(self, texts: list[str]) -> list[np.ndarray]:
        """sentencepiece over parts of at most LONGEST_PART characters; a part begins where its ▁ replaces a space."""
        if max(map(len, texts), default=0) <= LONGEST_PART:
            return self._read_runs(texts)
        parts, owner = [], []
        for index, text in enumerate(texts):
            cut = _parts(text)
            parts += cut
            owner += [index] * len(cut)
        # A run without a space beyond the bound is left to the library, which is slower and sums exactly.
        read = self._read_runs([part if len(part) <= LONGEST_PART else "" for part in parts])
        together: list[list[np.ndarray]] = [[] for _ in texts]
        for index, part, ids in zip(owner, parts, read, strict=True):
            long = len(part) > LONGEST_PART
            together[index].append(_ints(self._short.encode(part, add_special_tokens=False).ids) if long else ids)
        return [arrays[0] if len(arrays) == 1 else np.concatenate(arrays) for arrays in together]

    def _read_runs(self, texts: list[str]) -> list[np.ndarray]:
        """Ids of each text, read in runs of RUN characters: t1, line end, space, t2, ..., line end.

        No piece but its own holds a line end, so a text's pieces are what they are when it is read alone, and the space
        gives it the ▁ that every text begins with.
        """
        runs, room, ends = [], 0, 0  # texts of each run; ends: line ends up to here
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
        """Ids and character offsets of each text, for answers, tags and characters covered; errors as `encode_batch`."""
        try:
            if self.engine is None:
                return [_encoding(*self._native_offsets(text)) for text in texts]
            if not self.ours:
                return [_encoding(item.ids, item.offsets)
                        for item in self.engine.encode_batch(list(texts), add_special_tokens=False)]  # fmt: skip
            engines = [self.engine if NOT_PLAIN.search(text) else self._short for text in texts]
            encoded: list[Encoding | None] = [None] * len(texts)
            for engine in (self._short, self.engine):
                places = [index for index, chosen in enumerate(engines) if chosen is engine]
                for index, item in zip(places, engine.encode_batch([texts[i] for i in places], add_special_tokens=False),
                                       strict=True):  # fmt: skip
                    encoded[index] = _encoding(item.ids, item.offsets)
            return encoded  # type: ignore[return-value]
        except (UnicodeError, TypeError):
            refuse_surrogates(texts, names)
            raise

    def _native_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Ids and offsets by a foreign sentencepiece model; the space that a piece's ▁ stands for is left out."""
        if not text:
            return [], []
        read = self.native.encode(text, return_type="offset_mapping")
        spans = [(begin + (begin + 1 < end and text[begin].isspace()), end) for begin, end in read["offsets"]]
        return read["ids"], spans

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ordinary pieces in `ids`; special pieces are left out.

        Unigram and BPE give back `normalise(text)` to the character; WordPiece gives its words, signs apart, with
        single spaces between.
        """
        special = set(self.special_ids.tolist())
        ordinary = [int(i) for i in ids if int(i) not in special]
        return self.native.decode(ordinary) if self.native is not None else self.engine.decode(ordinary)

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's files into `folder`: tokenizer.json, tokenizer.model where there is one, the config."""
        files = self._files()
        for name, content in files.items():
            write_bytes(Path(folder) / name, content)
        write_json(Path(folder) / SETTINGS_FILE, {
            **self.settings, "kind": self.kind, "do_lower_case": self.lowercase, "strip_accents": False,
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": self.max_length,
            **{role: piece for role, piece in zip(ROLES, self.special_pieces, strict=True) if piece},
            "identity": self.identity,
        })  # fmt: skip

    def _files(self) -> dict[str, bytes]:
        files = {} if self.engine is None else {JSON_FILE: self.engine.to_str(pretty=True).encode()}
        return files | ({} if self.native is None else {MODEL_FILE: self.native.serialized_model_proto()})


def _reader(native: sentencepiece.SentencePieceProcessor, lowercase: bool) -> sentencepiece.SentencePieceProcessor:
    """The same pieces for normalised text, and for plain text as it is: its letters are lower-cased as they are read.

    The line end is an ordinary piece there: sentencepiece gives symbols that the user defined a score that is no multiple of
    SCORE_STEP, and the sums after it would not be exact.
    """
    proto = as_ordinary_piece(native.serialized_model_proto(), "\n", -1.0)
    return sentencepiece.SentencePieceProcessor(model_proto=with_normaliser_of(proto, casing_model()) if lowercase else proto)


def refuse_surrogates(texts: Sequence[str], names: Sequence[str] | None = None) -> None:
    """Raise UserError for the first text that UTF-8 cannot write, with its name, place and the remedy."""
    for index, text in enumerate(texts):
        where = names[index] if names is not None else f"text {index + 1} of {len(texts)}"
        if not isinstance(text, str):
            raise UserError(f"{where}: expected a string to tokenize, found {type(text).__name__}.")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise UserError(
                f"{where}: a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}; it is half of a "
                "character and cannot be written as UTF-8. Decode the file anew or remove it."
            ) from None


def continuing(pieces: list[str]) -> np.ndarray:
    """[pieces] bool: whether a piece continues the word before it, told by the style of marks the vocabulary uses."""
    if any(piece.startswith("##") for piece in pieces):
        return np.array([piece.startswith("##") and piece != "##" for piece in pieces])
    mark = max(SPACE_MARK, "Ġ", key=lambda sign: sum(piece.startswith(sign) for piece in pieces))
    byte = re.compile(r"<0x[0-9A-F]{2}>")
    # A sign after a word ("söz,") has no space either and still is no part of the word.
    return np.array([
        not piece.startswith(mark) and bool(byte.fullmatch(piece) or any(c.isalnum() for c in piece)) for piece in pieces
    ])  # fmt: skip


def split_signs(plain: str) -> str:
    """Normalised text of plain characters with spaces around every sign: WORD_OR_SIGN for those who then split at spaces."""
    return _SIGN.sub(r" \1 ", plain)


def _groups(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    """`texts` in groups of some GROUP characters."""
    begin = size = 0
    for end, text in enumerate(texts, 1):
        size += len(text)
        if size >= GROUP:
            yield texts[begin:end]
            begin, size = end, 0
    if begin < len(texts):
        yield texts[begin:]


def _parts(text: str) -> list[str]:
    """`text` cut at spaces into parts of at most LONGEST_PART characters, the space at a cut left out."""
    parts, begin = [], 0
    while len(text) - begin > LONGEST_PART:
        cut = text.rfind(" ", begin + 1, begin + LONGEST_PART + 1)
        if cut < 0:
            cut = text.find(" ", begin + LONGEST_PART)
        # Only a space between two other characters may be left to the next part's own mark.
        if cut < 0 or text[cut - 1] == " " or text[cut + 1 : cut + 2] in (" ", ""):
            break
        parts.append(text[begin:cut])
        begin = cut + 1
    return [*parts, text[begin:]]


def _ints(ids: list[int]) -> np.ndarray:
    return np.frombuffer(array("i", ids), dtype=np.int32)  # half the time of np.array on a list


def _encoding(ids: list[int], offsets: list[tuple[int, int]]) -> Encoding:
    return Encoding(np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int32).reshape(len(ids), 2))


def _word_engine(pieces: list[str]) -> tokenizers.Tokenizer:
    """The same pieces over text that is normalised already, has spaces around every sign and JOINED inside phrases."""
    vocabulary = {piece.replace(" ", JOINED): index for index, piece in enumerate(pieces)}
    bare = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=LONGEST_WORD))
    bare.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return bare


def _short_engine(engine: tokenizers.Tokenizer, lowercase: bool) -> tokenizers.Tokenizer:
    """The same tokenizer without the rules that plain text has no use for; casing and the marks of spaces stay."""
    short = tokenizers.Tokenizer.from_str(engine.to_str())
    marks = [] if isinstance(engine.model, models.WordPiece) else space_marks()
    short.normalizer = normalizers.Sequence([*(lower_rules() if lowercase else []), *marks])
    short.encode_special_tokens = True
    return short


def phrase_pattern(pieces: Sequence[str]) -> str:
    """A regular expression for the pieces with a space in them, as a tree of their letters; "" if there is none.

    As a list of alternatives it would be tried phrase by phrase at every word.
    """
    root: dict[str, Any] = {}
    for phrase in (piece for piece in pieces if " " in piece):
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


def wordpiece_engine(pieces: Sequence[str], lowercase: bool, transliterate: bool = False) -> tokenizers.Tokenizer:
    """tokenizer.json of a WordPiece vocabulary, `pieces` in the order of their ids (the five special ones first).

    A piece with a space in it is a phrase, which is taken as one word wherever its words stand side by side.
    """
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    model = models.WordPiece(vocabulary, unk_token=UNK, max_input_chars_per_word=LONGEST_WORD)
    engine = tokenizers.Tokenizer(model)
    engine.normalizer = text_normalizer(lowercase, transliterate)
    phrases = phrase_pattern(pieces)
    inside = r"[^\s\p{P}\p{S}]"
    unit = Regex(f"(?<!{inside}){phrases}(?!{inside})|{WORD_OR_SIGN_PATTERN}") if phrases else WORD_OR_SIGN
    engine.pre_tokenizer = pre_tokenizers.Split(unit, "removed", invert=True)
    engine.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return _with_template(engine)


def sentencepiece_engine(
    kind: str, native: sentencepiece.SentencePieceProcessor, lowercase: bool, transliterate: bool = False
) -> tokenizers.Tokenizer:
    """tokenizer.json of a sentencepiece model that we trained (`kind` unigram or bpe): same pieces, same ids."""
    size = native.get_piece_size()
    pieces = [native.id_to_piece(index) for index in range(size)]
    if kind == "unigram":
        # Special and byte pieces are never to be found in text, whatever its spelling: far below any path.
        scores = [-1e6 if native.is_control(i) or native.is_unknown(i) or native.is_byte(i) else native.get_score(i)
                  for i in range(size)]  # fmt: skip
        model = models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=native.unk_id(), byte_fallback=True)
    else:
        ids = {piece: index for index, piece in enumerate(pieces)}
        merges = []
        for piece in pieces:  # in the order of their rank
            if not (native.is_control(ids[piece]) or native.is_byte(ids[piece]) or native.is_unknown(ids[piece])):
                halves = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
                halves = [(left, right) for left, right in halves if left in ids and right in ids]
                merges += sorted(halves, key=lambda pair: (ids[pair[0]], ids[pair[1]]))
        model = models.BPE(ids, merges, unk_token=UNK, byte_fallback=True)
    engine = tokenizers.Tokenizer(model)
    engine.normalizer = normalizers.Sequence([text_normalizer(lowercase, transliterate), *space_marks()])
    engine.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Metaspace(SPACE_MARK, prepend_scheme="always", split=True)
    ])  # fmt: skip
    engine.decoder = decoders.Sequence([
        decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)
    ])  # fmt: skip
    return _with_template(engine)


def _with_template(engine: tokenizers.Tokenizer) -> tokenizers.Tokenizer:
    """Special pieces declared, and [CLS] a [SEP] b [SEP] for those who load the file elsewhere; `data` places its own."""
    engine.add_special_tokens([tokenizers.AddedToken(piece, special=True, normalized=False) for piece in SPECIAL_PIECES])
    engine.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, engine.token_to_id(CLS)), (SEP, engine.token_to_id(SEP))],
    )  # fmt: skip
    return engine
