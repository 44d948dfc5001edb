"""Trim a multilingual checkpoint's vocabulary to the tokens of one language; outputs on these tokens stay equal.

    python -m model.convert.trim CHECKPOINT OUT --text FILE... [--language turkish] [--least 1]

Kept are the special tokens, the tokens that occur in the text, its letters alone, all bytes, and for BPE the tokens from which
kept ones are merged (Abdaoui et al. 2020, arXiv 2010.05609: a half to three quarters of mBERT's and XLM-R's size are rows of
other languages). A text whose tokens are all kept has the same tokens and hidden states as before, and the same logits at them.
Works on imported checkpoints and on our own WordPiece, with any head.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from common.errors import UserError, command
from common.files import read_json
from language.base import load_language
from model.embeddings import SENTENCES, read_texts
from model.folder import WEIGHTS, write_checkpoint
from model.heads import TASK
from model.next_sentence import NEXT_SENTENCE
from model.ngrams import NGRAMS
from model.store import read_checkpoint, resolve_checkpoint
from tokenization.normaliser import SPACE_MARK
from tokenization.tokenizer import Tokenizer

MARKS = ("##", SPACE_MARK, "Ġ")
TABLE, BIAS = "encoder.token_embeddings.weight", "head.bias"  # what has a row for each token; the latter of a masked-LM head


def kept_tokens(tokenizer: Tokenizer, texts: Iterable[str], least: int = 1) -> np.ndarray:
    """Ids [n], sorted, of the tokens that stay: used at least `least` times in `texts`, special, or needed to spell others."""
    counts, letters = np.zeros(tokenizer.vocab_size, np.int64), set()
    batch: list[str] = []
    for text in [*texts, None]:
        if text is not None:
            batch.append(text)
            letters |= {*tokenizer.normalise(text)} | {*text.lower()}
        if len(batch) == 1000 or text is None:
            for ids in tokenizer.encode_batch(batch):
                np.add.at(counts, ids, 1)
            batch = []
    saved = json.loads(tokenizer.engine.to_str())
    kept = {int(i) for i in np.flatnonzero(counts >= least)} | {int(i) for i in tokenizer.special_ids}
    kept |= {token["id"] for token in saved["added_tokens"] if token["special"]}
    byte_level = tokenizer.kind == "bpe" and "ByteLevel" in json.dumps(saved["pre_tokenizer"])
    for number, token in enumerate(tokenizer.tokens):
        bare = next((token.removeprefix(mark) for mark in MARKS if token.startswith(mark) and token != mark), token)
        is_byte = len(token) == 6 and token.startswith("<0x") and token.endswith(">")
        if is_byte or (len(bare) == 1 and (byte_level or bare in letters)) or token in MARKS:
            kept.add(number)
    if saved["model"]["type"] == "BPE":
        _close(kept, tokenizer, saved["model"]["merges"])
    return np.array(sorted(kept))


def _close(kept: set[int], tokenizer: Tokenizer, merges: Sequence[Any]) -> None:
    """Add to `kept` both parts of every merge that makes a kept token; the later merges are built from the earlier ones."""
    ids = {token: number for number, token in enumerate(tokenizer.tokens)}
    for merge in reversed(merges):
        left, right = merge.split(" ") if isinstance(merge, str) else merge
        if ids.get(left + right) in kept:
            kept |= {ids[left], ids[right]}


def trimmed_tokenizer(tokenizer: Tokenizer, kept: np.ndarray) -> Tokenizer:
    """The same tokenizer with these tokens alone, numbered in their old order."""
    saved = json.loads(tokenizer.engine.to_str())
    new = {int(old): number for number, old in enumerate(kept)}
    names = {tokenizer.tokens[old]: number for old, number in new.items()}
    model = saved["model"]
    if model["type"] == "Unigram":
        pairs = [(index, entry) for index, entry in enumerate(model["vocab"]) if index in new]
        if [new[index] for index, _ in pairs] != list(range(len(pairs))):
            raise UserError("tokenizer: an added token has an id among the others of a Unigram model. It cannot be trimmed.")
        model["vocab"] = [entry for _, entry in pairs]
        model["unk_id"] = None if model["unk_id"] is None else new[model["unk_id"]]
    else:
        model["vocab"] = {token: new[index] for token, index in model["vocab"].items() if index in new}
    if model["type"] == "BPE":
        parts = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
        model["merges"] = [[a, b] for a, b in parts if a in names and b in names and a + b in names]
    saved["added_tokens"] = [token | {"id": new[token["id"]]} for token in saved["added_tokens"] if token["id"] in new]
    _renumber(saved["post_processor"], names)
    engine = tokenizers.Tokenizer.from_str(json.dumps(saved))
    settings = {key: value for key, value in tokenizer.settings.items() if key not in ("added_tokens_decoder", "identity")}
    made = Tokenizer(tokenizer.kind, engine, settings, None, tokenizer.special_tokens)
    assert made.tokens == [tokenizer.tokens[old] for old in kept]
    return made


def _renumber(rule: Any, names: dict[str, int]) -> None:
    """Give the special tokens of a saved post-processor their new ids, in place."""
    if not isinstance(rule, dict):
        return
    for part in rule.get("processors", []):
        _renumber(part, names)
    for role in ("cls", "sep"):
        if isinstance(rule.get(role), list):
            rule[role] = [rule[role][0], names[rule[role][0]]]
    if isinstance(rule.get("special_tokens"), dict):
        for own in rule["special_tokens"].values():
            own["ids"] = [names[token] for token in own["tokens"]]


def trim(
    checkpoint: str | Path, out: str | Path, files: Sequence[str], language: str | None = None, least: int = 1
) -> dict[str, Any]:
    """Write the trimmed checkpoint `out`; returns the numbers of tokens and parameters before and after.

    Raises UserError for a tokenizer or architecture that cannot be trimmed, for text without tokens, and if `out` exists.
    """
    folder, out = resolve_checkpoint(checkpoint), Path(out)
    if out.exists():
        raise UserError(f"{out}: exists already. Give another folder, or remove it first.")
    spoken = load_language(language).name if language else None
    weights, config, tokenizer, values = read_checkpoint(folder)
    if tokenizer.engine is None or tokenizer.native is not None:
        raise UserError(
            f"{folder}: a {tokenizer.kind} tokenizer with a sentencepiece model is not trimmed; transplant it instead."
        )
    if TABLE not in weights:
        raise UserError(f"{folder}: an encoder of another architecture, which is not converted, cannot be trimmed.")
    if NGRAMS in weights:
        raise UserError(f"{folder}: recipe.ngrams belongs to the whole vocabulary. Trim first, then fine-tune.")
    texts = [text for file in files for text in read_texts(file)]
    kept = kept_tokens(tokenizer, texts, least)
    if len(kept) <= len(tokenizer.special_ids):
        raise UserError(f"{', '.join(files)}: no tokens in it. Give text of the language that stays, --text FILE.")
    new = trimmed_tokenizer(tokenizer, kept)
    before = sum(value.numel() for value in weights.values())
    rows = [TABLE] if (folder / TASK).exists() else [TABLE, BIAS]  # a task's head has a bias of the same name
    weights |= {name: weights[name][kept].clone() for name in rows if name in weights}
    extra = {key: value for key, value in values.items() if key not in ("encoder", "tokenizer")}
    extra |= {"name": out.name, "trimmed_from": values.get("name")} | ({"language": spoken} if spoken else {})
    more = {name: read_json(folder / name) for name in (TASK, SENTENCES) if (folder / name).exists()}
    if (folder / NEXT_SENTENCE).exists():
        more[NEXT_SENTENCE] = lambda path: path.write_bytes((folder / NEXT_SENTENCE).read_bytes())
    write_checkpoint(out, weights, replace(config, vocab_size=len(kept)), new, extra, more)
    same = [np.array_equal(kept[b], a) for a, b in zip(tokenizer.encode_batch(texts), new.encode_batch(texts), strict=True)]
    after = sum(value.numel() for value in weights.values())
    return {"tokens": (config.vocab_size, len(kept)), "parameters": (before, after), "same": sum(same), "texts": len(texts)}


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m model.convert.trim", description=__doc__.split("\n", 1)[0])
    parser.add_argument("checkpoint", help="checkpoint, run folder, Hugging Face folder or hub://owner/name")
    parser.add_argument("out", help="folder to write")
    parser.add_argument("--text", nargs="+", required=True, help='text of the language: one a line, or .jsonl with "text"')
    parser.add_argument("--language", help="language that the new checkpoint records: a file of language/")
    parser.add_argument("--least", type=int, default=1, help="keep tokens that occur so often (default 1)")
    options = parser.parse_args(arguments)
    if options.least < 1:
        raise UserError(f"--least {options.least}: expected at least 1.")
    made = trim(options.checkpoint, options.out, options.text, options.language, options.least)
    (old, new), (before, after) = made["tokens"], made["parameters"]
    print(f"{options.out}: {old:,} to {new:,} tokens, {before:,} to {after:,} parameters ({1 - after / before:.0%} smaller)")
    print(f"{made['same']:,} of {made['texts']:,} texts have the same tokens as before")
    print(f"{options.out}/{WEIGHTS}")


if __name__ == "__main__":
    sys.exit(main())
