"""Token shards: the ids of all kept documents in one memory-mapped array, with a table of where each document starts.

    tokens.bin      ids of all documents, one after another, uint16 (vocabulary up to 65,536) or uint32, little-endian
    documents.npy   one row for each document: start, length (tokens), source (number), characters
    index.json      sources, weights, tokenizer identity, counts, SHA-256 of both files

Documents have the order of the corpus files, so row i leads back to its id, file and line:

    python -m data.shards SHARDS TOKEN_INDEX [--corpus CORPUS]

prints, as one JSON object, the document, source, file and line that a token comes from.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from common.code import code_files
from common.errors import UserError, command
from common.files import digest_of, open_whole, read_json, sha256_file, write_json
from common.progress import progress
from corpus.build import documents_of, read_documents
from corpus.stages.parts import write_array
from corpus.stages.units import pack_digest
from language.base import one_language
from tokenization.tokenizer import Tokenizer

DOCUMENT = np.dtype([("start", "<i8"), ("length", "<i4"), ("source", "<i2"), ("characters", "<i4")])
ENCODE_AT_ONCE = 512  # documents: enough to keep the tokenizer's threads busy, a few MB of text


@dataclass
class Shards:
    """Open token shards: `tokens` [N] memory-mapped ids, `documents` [D] of DOCUMENT, `index` as in index.json."""

    folder: Path
    tokens: np.ndarray
    documents: np.ndarray
    index: dict[str, Any]

    @property
    def sources(self) -> list[str]:
        """Names of the sources, in the order of their numbers."""
        return self.index["sources"]

    def source_tokens(self) -> np.ndarray:
        """Tokens of each source [S]."""
        return np.bincount(self.documents["source"], weights=self.documents["length"], minlength=len(self.sources)).astype(int)

    def token_counts(self, vocab_size: int, sample: int = 1 << 26) -> np.ndarray:
        """How often each vocabulary entry [V] occurs in the text, on every nth token if there are more than `sample`."""
        return np.bincount(self.tokens[:: max(1, len(self.tokens) // sample)], minlength=vocab_size).astype(float)


def write_shards(corpus: str | Path, tokenizer: Tokenizer, out: str | Path, across_languages: bool = False) -> dict[str, Any]:
    """Encode every kept document of a built corpus into `out`; return index.json's content.

    Raises UserError for a tokenizer of another language than the corpus, unless `across_languages`.

    Skipped when `out` already holds shards of the same corpus and tokenizer, made by the same code. A document without any
    token is left out and counted under "documents_without_tokens".
    """
    corpus, out = Path(corpus), Path(out)
    report = read_json(corpus / "report.json")
    if not across_languages:
        said = {str(corpus): report.get("language"), "its tokenizer": tokenizer.language}
        one_language(said, "Train a tokenizer on this corpus, or set across_languages=true to use that one all the same.")
    digest, code = _digest(corpus, tokenizer.identity), _code(tokenizer)
    before = read_json(out / "index.json") if (out / "index.json").exists() else {}
    if before.get("digest") == digest and before.get("code") == code:
        print(f"shards: already complete, skipped ({out})")
        return before
    kind = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    names = [name for name, entry in report["sources"].items() if entry["kept"]]
    rows, start, empty = [], 0, []
    expected = sum(report["sources"][name]["kept"] for name in names)
    with (
        open_whole(out / "tokens.bin") as file,
        progress(total=expected, desc="shards", unit=" documents") as bar,
    ):
        for number, name in enumerate(names):
            documents = enumerate(read_documents(corpus, name))
            while group := list(islice(documents, ENCODE_AT_ONCE)):
                encoded = tokenizer.encode_batch([document["text"] for _, document in group])
                for (place, document), ids in zip(group, encoded, strict=True):
                    bar.update()
                    if len(ids) == 0:
                        empty.append([number, place])
                        continue
                    file.write(ids.astype(kind).tobytes())
                    rows.append((start, len(ids), number, len(document["text"])))
                    start += len(ids)
    table = np.array(rows, dtype=DOCUMENT)
    with open_whole(out / "documents.npy") as file:
        write_array(file, table)
    index = {
        "digest": digest,
        "code": code,
        "tokenizer": tokenizer.identity,
        "language": report.get("language"),
        "vocab_size": tokenizer.vocab_size,
        "dtype": kind.str,
        "documents": len(table),
        "documents_without_tokens": len(empty),
        "tokens": start,
        "sources": names,
        "left_out": empty,  # [source, index among its documents] of documents without tokens
        "weights": [report["sources"][name]["weight"] for name in names],
        "files": {name: sha256_file(out / name) for name in ("tokens.bin", "documents.npy")},
    }
    write_json(out / "index.json", index)  # written last: a folder without it is incomplete
    print(f"shards: {len(table):,} documents, {start:,} tokens, written to {out}")
    return index


def _digest(corpus: Path, tokenizer: str) -> str:
    return digest_of({"corpus": documents_of(corpus), "tokenizer": tokenizer})


def _code(tokenizer: Tokenizer) -> str:
    """Digest of the code that makes ids of text with this tokenizer, its language's included."""
    pack = pack_digest(tokenizer.language.name) if tokenizer.language else None
    return digest_of([code_files("data.shards", "tokenization.loading", rooms=("tokenization",)), pack])


def open_shards(folder: str | Path, tokenizer: Tokenizer | None = None) -> Shards:
    """Open and verify shards; UserError names a file that is missing, damaged or of another tokenizer."""
    folder = Path(folder)
    if not (folder / "index.json").exists():
        raise UserError(f"{folder}: no index.json, so there are no complete token shards. Run prepare.py.")
    index = read_json(folder / "index.json")
    for name, expected in index["files"].items():
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: missing. Remove {folder} and run prepare.py again.")
        if sha256_file(folder / name) != expected:
            raise UserError(f"{folder / name}: damaged (checksum differs). Remove {folder} and run prepare.py again.")
    if tokenizer is not None and index["tokenizer"] != tokenizer.identity:
        one_language(
            {str(folder): index.get("language"), "the tokenizer": tokenizer.language},
            "Run prepare.py with the language of this run, or point to its own shards and tokenizer.",
        )
        raise UserError(
            f"{folder}: made with tokenizer {index['tokenizer']}, not with {tokenizer.identity}. "
            "Run prepare.py with this tokenizer, or point to its own shards."
        )
    tokens = (
        np.memmap(folder / "tokens.bin", dtype=index["dtype"], mode="r") if index["tokens"] else np.zeros(0, index["dtype"])
    )
    return Shards(folder, tokens, np.load(folder / "documents.npy", allow_pickle=False), index)


def trace(shards: Shards, token: int, corpus: str | Path) -> dict[str, Any]:
    """The document that token number `token` belongs to, with its metadata and the token's position in it.

    Raises UserError for a token number out of range and for a corpus that these shards were not made from.
    """
    corpus = Path(corpus)
    if not 0 <= token < shards.index["tokens"]:
        raise UserError(f"{shards.folder}: there is no token {token}; there are {shards.index['tokens']:,}, counted from 0.")
    if _digest(corpus, shards.index["tokenizer"]) != shards.index["digest"]:
        raise UserError(f"{corpus}: not the corpus that {shards.folder} was made from. Name its own with --corpus.")
    row = int(np.searchsorted(shards.documents["start"], token, side="right")) - 1
    document = shards.documents[row]
    number = int(document["source"])
    place = row - int(np.searchsorted(shards.documents["source"], number))  # the rows of one source are consecutive
    for source, skipped in shards.index["left_out"]:
        place += source == number and skipped <= place
    found = next(islice(read_documents(corpus, shards.sources[number]), place, None))
    about = {key: value for key, value in found.items() if key != "text"}
    return {
        "token": token,
        "id": int(shards.tokens[token]),
        "place_in_document": token - int(document["start"]),
        "tokens_of_document": int(document["length"]),
        **about,
        "text": found["text"][:200],
    }


@command
def main() -> None:
    """Print where a token comes from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path, help="folder of token shards")
    parser.add_argument("token", type=int, help="number of the token, from 0")
    parser.add_argument("--corpus", type=Path, help="the corpus that they were made from (default: corpus beside the folder)")
    options = parser.parse_args()
    corpus = options.corpus or options.shards.resolve().parent / "corpus"
    print(json.dumps(trace(open_shards(options.shards), options.token, corpus), ensure_ascii=False, indent=2))


if __name__ == "__main__":
    sys.exit(main())
