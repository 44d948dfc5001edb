"""Token shards: the kept documents as one memory-mapped line of ids, with a table of where each document lies.

    tokens.bin      ids of all documents one after another, uint16 (vocabulary up to 65,536) or uint32, little-endian
    documents.npy   a row a document: start, length (tokens), source (number), characters
    index.json      sources, weights, tokenizer identity, counts, SHA-256 of both files

Documents stand in the order of the corpus' files, so row i leads back to its id, file and line.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.errors import UserError
from common.files import digest_of, open_whole, read_json, sha256_file, write_json
from corpus.build import read_documents
from tokenization.tokenizer import Tokenizer

DOCUMENT = np.dtype([("start", "<i8"), ("length", "<i4"), ("source", "<i2"), ("characters", "<i4")])
ENCODE_AT_ONCE = 512  # documents: enough to keep the tokenizer's threads busy, a few MB of text


@dataclass
class Shards:
    """Opened token shards: `tokens` [N] memory-mapped ids, `documents` [D] of DOCUMENT, `index` as in index.json."""

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


def write_shards(corpus: str | Path, tokenizer: Tokenizer, out: str | Path) -> dict[str, Any]:
    """Encode every kept document of a built corpus into `out`; return index.json's content.

    Reused when `out` holds shards of the same corpus and tokenizer. A document that gives no token at all is left out
    and counted under "documents_without_tokens".
    """
    corpus, out = Path(corpus), Path(out)
    report = read_json(corpus / "report.json")
    digest = digest_of({"corpus": read_json(corpus / "manifest.json")["digest"], "tokenizer": tokenizer.identity, "format": 1})
    if (out / "index.json").exists() and read_json(out / "index.json")["digest"] == digest:
        print(f"shards: reused {out}")
        return read_json(out / "index.json")
    kind = np.dtype("<u2" if tokenizer.vocab_size <= 1 << 16 else "<u4")
    names = [name for name, entry in report["sources"].items() if entry["kept"]]
    rows, start, empty = [], 0, 0
    expected = sum(report["sources"][name]["kept"] for name in names)
    with (
        open_whole(out / "tokens.bin") as file,
        tqdm(total=expected, desc="shards", unit=" documents", disable=None) as bar,
    ):
        for number, name in enumerate(names):
            documents = iter(read_documents(corpus, name))
            while group := list(islice(documents, ENCODE_AT_ONCE)):
                for document, ids in zip(group, tokenizer.encode_batch([d["text"] for d in group]), strict=True):
                    bar.update()
                    if len(ids) == 0:
                        empty += 1
                        continue
                    file.write(ids.astype(kind).tobytes())
                    rows.append((start, len(ids), number, len(document["text"])))
                    start += len(ids)
    table = np.array(rows, dtype=DOCUMENT)
    with open_whole(out / "documents.npy") as file:
        np.save(file, table)
    index = {
        "digest": digest, "tokenizer": tokenizer.identity, "vocab_size": tokenizer.vocab_size, "dtype": kind.str,
        "documents": len(table), "documents_without_tokens": empty, "tokens": start, "sources": names,
        "weights": [report["sources"][name]["weight"] for name in names],
        "files": {name: sha256_file(out / name) for name in ("tokens.bin", "documents.npy")},
    }  # fmt: skip
    write_json(out / "index.json", index)  # last: a folder without it is unfinished
    print(f"shards: {len(table):,} documents, {start:,} tokens, written to {out}")
    return index


def open_shards(folder: str | Path, tokenizer: Tokenizer | None = None) -> Shards:
    """Open and verify shards; UserError names a file that is missing, damaged or of another tokenizer."""
    folder = Path(folder)
    if not (folder / "index.json").exists():
        raise UserError(f"{folder}: no index.json, so no finished token shards are there. Run prepare.py.")
    index = read_json(folder / "index.json")
    for name, expected in index["files"].items():
        if not (folder / name).exists():
            raise UserError(f"{folder / name}: missing. Remove {folder} and run prepare.py again.")
        if sha256_file(folder / name) != expected:
            raise UserError(f"{folder / name}: damaged (checksum differs). Remove {folder} and run prepare.py again.")
    if tokenizer is not None and index["tokenizer"] != tokenizer.identity:
        raise UserError(
            f"{folder}: made with tokenizer {index['tokenizer']}, not with {tokenizer.identity}. "
            "Run prepare.py with this tokenizer, or point to its own shards."
        )
    tokens = (
        np.memmap(folder / "tokens.bin", dtype=index["dtype"], mode="r") if index["tokens"] else np.zeros(0, index["dtype"])
    )
    return Shards(folder, tokens, np.load(folder / "documents.npy", allow_pickle=False), index)
