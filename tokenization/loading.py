"""Load a tokenizer from its files: ours, or any tokenizer.json, WordPiece vocab.txt or sentencepiece .model.

Foreign tokenizers keep their own normalisation, whatever it does to the language: a comparison should show it, and their
checkpoints were trained with it.
"""

from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from common.errors import UserError
from common.files import read_json, refuse_pointer
from tokenization.tokenizer import JSON_FILE, MODEL_FILE, ROLES, SETTINGS_FILE, Tokenizer

VOCABULARY_FILE = "vocab.txt"
MODEL_FILES = ("tokenizer.model", "sentencepiece.bpe.model", "spiece.model", "spm.model")
# Usual names of special tokens, for files without a config, in the order of ROLES: BERT's, RoBERTa's and XLM-R's, T5's.
KNOWN_NAMES = (
    ("[PAD]", "<pad>"),
    ("[UNK]", "<unk>"),
    ("[CLS]", "<s>", "<cls>", "<bos>"),
    ("[SEP]", "</s>", "<sep>", "<eos>"),
    ("[MASK]", "<mask>"),
)


def load_tokenizer(path: str | Path, need_special: bool = True) -> Tokenizer:
    """Load a folder that `Tokenizer.save` wrote (a tokenizer's own or a checkpoint's), or any tokenizer.json, vocab.txt or
    sentencepiece .model, given as a folder or a file.

    Raises UserError if a file is missing or damaged, is not the one its settings were written for, or lacks a special token
    (unless `need_special` is false, for comparing tokenizers only).
    """
    path = Path(path)
    config = path / SETTINGS_FILE
    settings = read_json(config) if config.exists() else {}
    if "normaliser" not in settings:
        return _load_foreign(path, need_special)
    kind = settings.get("kind")
    engine = read_engine(path / JSON_FILE)
    native = None if kind == "wordpiece" else read_native(path / MODEL_FILE)
    tokenizer = Tokenizer(kind, engine, {k: v for k, v in settings.items() if k != "identity"}, native)
    if settings.get("identity") not in (None, tokenizer.identity):
        raise UserError(f"{path / JSON_FILE}: changed since its {SETTINGS_FILE} was written. Restore the files together.")
    return tokenizer


def read_engine(path: Path) -> tokenizers.Tokenizer:
    """The library's tokenizer in `path`; UserError when it is missing or damaged."""
    if not path.exists():
        raise UserError(f"{path}: the tokenizer's file is missing. Restore it or run prepare.py again.")
    refuse_pointer(path)
    try:
        engine = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:
        raise UserError(f"{path}: not a readable tokenizer ({error}). Restore it or run prepare.py again.") from None
    engine.no_truncation()  # a saved setting of the author; long texts are cut in `data`
    engine.no_padding()
    return engine


def read_native(path: Path) -> sentencepiece.SentencePieceProcessor:
    """The sentencepiece model in `path`; UserError when it is missing or damaged."""
    if not path.exists():
        raise UserError(f"{path}: the tokenizer's file is missing. Restore it or run prepare.py again.")
    refuse_pointer(path)
    try:
        native = sentencepiece.SentencePieceProcessor(model_proto=path.read_bytes())
        if native.get_piece_size() == 0:
            raise ValueError("no tokens in it")
    except Exception as error:
        raise UserError(f"{path}: not a readable sentencepiece model ({error}). Restore it or train it again.") from None
    return native


def _load_foreign(path: Path, need_special: bool) -> Tokenizer:
    """Load the first of these found in a folder: tokenizer.json, vocab.txt, a sentencepiece model."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder. Point to a tokenizer's folder, tokenizer.json, vocab.txt or .model.")
    folder = path if path.is_dir() else path.parent
    if path.is_dir():
        names = [name for name in (JSON_FILE, VOCABULARY_FILE, *MODEL_FILES) if (path / name).exists()]
        if not names:
            raise UserError(f"{path}: no {JSON_FILE}, {VOCABULARY_FILE} or sentencepiece .model there. Point to one of them.")
        path = path / names[0]
    settings = _settings(folder)
    if path.suffix == ".json":
        engine, native, kind = read_engine(path), None, None
    elif path.suffix == ".txt":
        engine, native, kind = read_vocabulary(path, settings), None, "wordpiece"
    else:
        engine, native, kind = None, read_native(path), "sentencepiece"
    if engine is not None:
        kind = kind or type(engine.model).__name__.lower()
        tokens = set(engine.get_vocab(with_added_tokens=True))
    else:
        tokens = {native.id_to_piece(index) for index in range(native.get_piece_size())}
        if need_special and str(settings.get("tokenizer_class", "")).startswith("XLMRoberta"):
            # Its ids are those of the model plus one, with <mask> at the end; only its tokenizer.json has the complete mapping.
            raise UserError(f"{path}: XLM-R numbers these tokens otherwise. Put its {JSON_FILE} into {folder} and load that.")
    special = [_special(role, known, settings, tokens) for role, known in zip(ROLES, KNOWN_NAMES, strict=True)]
    if engine is not None and engine.post_processor is not None:
        # The model was trained with the frame that the file itself puts around a text, whatever a config says: mmBERT's
        # config.json calls <eos> its cls_token, but its texts begin with <bos>.
        frame = engine.encode("").tokens
        if len(frame) == 2:  # [CLS] and [SEP]
            special[2:4] = frame
    elif kind == "wordpiece" and all(special):
        _add_frame(engine, special)
    try:
        return Tokenizer(kind, engine, settings, native, special, need_special)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json and special_tokens_map.json of a folder, the first with precedence; names as strings."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", SETTINGS_FILE):
        if (folder / name).exists():
            read = read_json(folder / name)
            if not isinstance(read, dict):
                raise UserError(f"{folder / name}: expected a JSON object, found {type(read).__name__}. Restore the file.")
            settings |= read
    for role in ROLES:
        if isinstance(settings.get(role), dict):
            settings[role] = settings[role].get("content")
    for ours in ("identity", "normaliser"):  # a single file from one of our folders is loaded as a foreign one
        settings.pop(ours, None)
    # transformers writes a huge number for "no limit".
    if not isinstance(settings.get("model_max_length"), int) or settings["model_max_length"] > 1_000_000:
        settings["model_max_length"] = 512
    return settings


def _special(role: str, known: tuple[str, ...], settings: dict[str, Any], tokens: set[str]) -> str:
    """Name of a role's special token: the config's, or the first known one in the vocabulary; "" if there is none."""
    named = settings.get(role)
    if named in tokens:
        return named
    return next((name for name in known if name in tokens), named or "")


def _add_frame(engine: tokenizers.Tokenizer, special: list[str]) -> None:
    """Declare a vocab.txt's special tokens and BERT's frame around a text, for other programs that load the saved file."""
    engine.add_special_tokens([tokenizers.AddedToken(token, special=True, normalized=False) for token in special])
    cls, sep = special[2:4]
    engine.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B:1 {sep}:1",
        special_tokens=[(cls, engine.token_to_id(cls)), (sep, engine.token_to_id(sep))],
    )


def read_vocabulary(path: Path, settings: dict[str, Any]) -> tokenizers.Tokenizer:
    """The library's tokenizer for a BERT vocab.txt, with BERT's own normaliser as set in the config.

    Without a config it lower-cases if the vocabulary has no capitals.
    """
    refuse_pointer(path)
    try:
        tokens = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not valid UTF-8 ({error}). Restore the file.") from None
    if tokens and tokens[-1] == "":
        tokens.pop()
    tokens = [token.rstrip("\r") for token in tokens]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    if len(vocabulary) < len(tokens):
        twice = next(index for index, token in enumerate(tokens) if token in tokens[:index])
        raise UserError(f"{path}, line {twice + 1}: the token {tokens[twice]!r} occurs twice. Restore the file.")
    unknown = settings.get("unk_token") or "[UNK]"
    if unknown not in vocabulary:
        raise UserError(
            f"{path}: no {unknown} in it, so it is not a WordPiece vocabulary. Name its unk_token in {SETTINGS_FILE}."
        )
    engine = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
    lowercase = settings.get("do_lower_case")
    if lowercase is None:
        lowercase = not any(token != token.lower() for token in tokens if not (token.startswith("[") and token.endswith("]")))
        settings["do_lower_case"] = lowercase
    engine.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True),
        strip_accents=settings.get("strip_accents"),
        lowercase=lowercase,
    )
    engine.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    engine.decoder = decoders.WordPiece(prefix="##", cleanup=False)
    return engine
