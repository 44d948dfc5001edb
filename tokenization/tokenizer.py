"""One interface for every tokenizer: ids, offsets into the caller's own string, special ids, identity.

Two borrowed engines stand behind it: WordPiece through the `tokenizers` library (the paper's kind) and Unigram or BPE
through `sentencepiece`. What is true of the language (composition, casing of İ/i and I/ı) is laid down here for both,
from `language.azerbaijani`, because neither library's stock normaliser gets it right: the uncased BERT normaliser
strips the accents that tell ön from on, and sentencepiece's nmt_nfkc_cf leaves İ as it is.
"""

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import sentencepiece
import tokenizers
from tokenizers import decoders, normalizers, pre_tokenizers, processors

from common.errors import UserError
from common.files import read_json, write_bytes, write_json
from language.azerbaijani import lower

SPECIAL_PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")  # ids 0-4 in every tokenizer that we train
PAD, UNK, CLS, SEP, MASK = SPECIAL_PIECES
DOT_ABOVE = "\u0307"  # what is left of a decomposed İ once it is lower-cased: i + dot, to be one i
WORDPIECE_FILE, SENTENCEPIECE_FILE, SETTINGS_FILE = "tokenizer.json", "tokenizer.model", "tokenizer_config.json"
# A base character with its combining marks: the largest unit that composition (NFC) changes.
CLUSTER = re.compile(r"[^\u0300-\u036f][\u0300-\u036f]*|[\u0300-\u036f]+")


class Encoding(NamedTuple):
    """Pieces of one text, without special pieces."""

    ids: np.ndarray  # [n] int32
    offsets: np.ndarray  # [n, 2] int32: first and one-past-last character in the string that was passed in


def wordpiece_normalizer(lowercase: bool) -> normalizers.Normalizer:
    """NFC, then Azerbaijani lower case if asked: İ to i and I to ı before the general rule sees them."""
    steps: list[normalizers.Normalizer] = [normalizers.NFC()]
    if lowercase:
        steps += [
            normalizers.Replace("İ", "i"),
            normalizers.Replace("I", "ı"),
            normalizers.Lowercase(),
            normalizers.Replace("i" + DOT_ABOVE, "i"),
        ]
    return normalizers.Sequence(steps)


def plain_normalise(text: str, lowercase: bool) -> str:
    """The same normalisation for the sentencepiece engine, which is then told to change nothing itself."""
    text = unicodedata.normalize("NFC", text)
    return lower(text).replace("i" + DOT_ABOVE, "i") if lowercase else text


def normalise_with_origins(text: str, lowercase: bool) -> tuple[str, np.ndarray]:
    """Normalised text and, for each of its characters and its end, the index in `text` where it begins."""
    whole = plain_normalise(text, lowercase)
    if len(whole) == len(text):
        return whole, np.arange(len(text) + 1)
    parts, origins = [], []
    for cluster in CLUSTER.finditer(text):
        part = plain_normalise(cluster.group(), lowercase)
        parts.append(part)
        origins += [min(cluster.start() + i, cluster.end() - 1) for i in range(len(part))]
    return "".join(parts), np.array([*origins, len(text)])


class Tokenizer:
    """A trained tokenizer; build one with `Tokenizer.load(folder)` or `tokenization.train.train_tokenizer`."""

    def __init__(self, kind: str, engine, lowercase: bool, max_length: int = 512) -> None:
        self.kind = kind  # "wordpiece", "unigram" or "bpe"
        self.lowercase = lowercase
        self.max_length = max_length
        self.engine = engine
        if kind == "wordpiece":
            # Text that happens to hold "[MASK]" is text: special pieces are placed by id, never by spelling.
            engine.encode_special_tokens = True
            table = engine.get_vocab()
            self.pieces = [""] * (max(table.values()) + 1)
            for piece, index in table.items():
                self.pieces[index] = piece
            self.continues = np.array([piece.startswith("##") for piece in self.pieces])
        else:
            self.pieces = [engine.id_to_piece(i) for i in range(engine.get_piece_size())]
            self.continues = np.array([not piece.startswith("▁") for piece in self.pieces])
        ids = {piece: index for index, piece in enumerate(self.pieces)}
        missing = [piece for piece in SPECIAL_PIECES if piece not in ids]
        if missing:
            raise UserError(f"tokenizer: the special pieces {', '.join(missing)} are missing; train it with this project.")
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids[piece] for piece in SPECIAL_PIECES)
        self.special_ids = np.array(sorted(ids[piece] for piece in SPECIAL_PIECES))
        self.continues[self.special_ids] = False
        self.vocab_size = len(self.pieces)

    @property
    def ordinary_ids(self) -> np.ndarray:
        """Ids of all pieces but the special ones: what a random replacement may be drawn from."""
        return np.setdiff1d(np.arange(self.vocab_size), self.special_ids)

    @property
    def identity(self) -> str:
        """Hex digest of everything that decides which ids a text gets; shards and checkpoints carry it."""
        return hashlib.sha256(self._model_bytes() + f"{self.kind} {self.lowercase}".encode()).hexdigest()[:16]

    def encode_batch(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Ids of each text ([n] int32), no special pieces added."""
        if self.kind == "wordpiece":
            batch = self.engine.encode_batch_fast(list(texts), add_special_tokens=False)
            return [np.array(item.ids, dtype=np.int32) for item in batch]
        plain = [plain_normalise(text, self.lowercase) for text in texts]
        return [np.array(ids, dtype=np.int32) for ids in self.engine.encode(plain, num_threads=1)]

    def encode_with_offsets(self, texts: Sequence[str]) -> list[Encoding]:
        """Ids and character offsets of each text, for answers, tags and characters covered."""
        if self.kind == "wordpiece":
            batch = self.engine.encode_batch(list(texts), add_special_tokens=False)
            return [_encoding(item.ids, item.offsets) for item in batch]
        encodings = []
        for text in texts:
            plain, origins = normalise_with_origins(text, self.lowercase)
            pieces = self.engine.encode(plain, out_type="immutable_proto").pieces
            offsets = []
            for piece in pieces:
                begin, end = piece.begin, piece.end
                while begin < end and plain[begin].isspace():  # the ▁ of a piece covers a space: not the word's
                    begin += 1
                offsets.append((int(origins[begin]), int(origins[end])))
            encodings.append(_encoding([piece.id for piece in pieces], offsets))
        return encodings

    def decode(self, ids: Sequence[int]) -> str:
        """Text of the ordinary pieces in `ids`; special pieces are left out."""
        ids = [int(i) for i in ids if i not in self.special_ids]
        return self.engine.decode(ids)

    def save(self, folder: str | Path) -> None:
        """Write the tokenizer's two files into `folder`."""
        folder = Path(folder)
        name = WORDPIECE_FILE if self.kind == "wordpiece" else SENTENCEPIECE_FILE
        write_bytes(folder / name, self._model_bytes())
        write_json(folder / SETTINGS_FILE, {
            "kind": self.kind, "do_lower_case": self.lowercase, "strip_accents": False,
            "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": self.max_length,
            "pad_token": PAD, "unk_token": UNK, "cls_token": CLS, "sep_token": SEP, "mask_token": MASK,
            "identity": self.identity,
        })  # fmt: skip

    def _model_bytes(self) -> bytes:
        if self.kind == "wordpiece":
            return self.engine.to_str(pretty=True).encode()
        return self.engine.serialized_model_proto()

    @classmethod
    def load(cls, folder: str | Path) -> "Tokenizer":
        """Load from a folder that `save` wrote (a tokenizer's own folder or a checkpoint's).

        Raises UserError when a file is missing, damaged, or is not the one its settings were written for.
        """
        folder = Path(folder)
        if not (folder / SETTINGS_FILE).exists():
            raise UserError(f"{folder}: no {SETTINGS_FILE} there. Point to a folder written by prepare.py or train.py.")
        settings = read_json(folder / SETTINGS_FILE)
        kind = settings.get("kind", "wordpiece")
        path = folder / (WORDPIECE_FILE if kind == "wordpiece" else SENTENCEPIECE_FILE)
        if not path.exists():
            raise UserError(f"{path}: the tokenizer's file is missing. Restore it or run prepare.py again.")
        try:
            if kind == "wordpiece":
                engine = tokenizers.Tokenizer.from_file(str(path))
            else:
                engine = sentencepiece.SentencePieceProcessor(model_file=str(path))
        except Exception as error:
            raise UserError(f"{path}: not a readable tokenizer ({error}). Restore it or run prepare.py again.") from None
        tokenizer = cls(kind, engine, settings["do_lower_case"], settings["model_max_length"])
        if settings.get("identity") not in (None, tokenizer.identity):
            raise UserError(f"{path}: changed since its {SETTINGS_FILE} was written. Restore both files together.")
        return tokenizer


def _encoding(ids: list[int], offsets: list[tuple[int, int]]) -> Encoding:
    return Encoding(np.array(ids, dtype=np.int32), np.array(offsets, dtype=np.int32).reshape(len(ids), 2))


def empty_wordpiece(lowercase: bool) -> tokenizers.Tokenizer:
    """A WordPiece engine before training: words and punctuation apart, pieces inside a word marked ##."""
    engine = tokenizers.Tokenizer(tokenizers.models.WordPiece(unk_token=UNK, max_input_chars_per_word=100))
    engine.normalizer = wordpiece_normalizer(lowercase)
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return engine


def add_template(engine: tokenizers.Tokenizer) -> None:
    """[CLS] a [SEP] b [SEP] for those who load tokenizer.json elsewhere; here specials are placed by `data`."""
    cls_id, sep_id = engine.token_to_id(CLS), engine.token_to_id(SEP)
    engine.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", pair=f"{CLS} $A {SEP} $B:1 {SEP}:1",
        special_tokens=[(CLS, cls_id), (SEP, sep_id)],
    )  # fmt: skip
