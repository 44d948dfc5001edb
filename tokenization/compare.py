"""Compare tokenizers on your own text: fertility, coverage, cost, morphemes, per source, with intervals.

    python -m tokenization.compare runs/demo/tokenizer path/to/mbert path/to/xlmr/tokenizer.json \\
        --text corpus/heldout.jsonl.gz --out comparison

The text is JSONL (.gz or plain) with "text" and, if it has one, "source" (else the file's name is the source). Writes
compare.json, compare.md and compare.html (one file, no network) and prints the table. The first tokenizer is the one
that the others are set against. It answers the paper's third experiment, monolingual against multilingual vocabulary,
for any tokenizer that you have a file of.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from common.errors import UserError, command
from common.files import read_jsonl, write_json, write_text
from tokenization.comparison_page import html_page, markdown, terminal
from tokenization.loading import load_tokenizer
from tokenization.measures import (
    ALPHA,
    CONTEXT,
    COUNTS,
    RATIOS,
    measure,
    morpheme_agreement,
    ratio,
    read_morphemes,
    relative,
    renyi,
    resampled,
)
from tokenization.tokenizer import Tokenizer, refuse_surrogates

ALL = "all sources"
MOST_EXAMPLES, EXAMPLE_LETTERS = 8, 160

# Other people's numbers on other people's text, never measured here: (what, tokens per word or None, remark, where).
PUBLISHED = (
    ("WordPiece 64k, uncased (AzBERT pipeline)", 1.727, "unknown 0.0053 %, 4.572 characters per token", "raufibishov.com"),
    ("mBERT, as that page measured it", None, "2.846 characters per token", "raufibishov.com"),
    ("SentencePiece BPE 8k on DOLLMA's native part", 1.921, "100k documents", "azerbaijani-pe-research"),
    ("SentencePiece BPE 16k on DOLLMA's native part", 1.674, "100k documents", "azerbaijani-pe-research"),
    ("SentencePiece BPE 32k on DOLLMA's native part", 1.509, "100k documents", "azerbaijani-pe-research"),
    ("Qwen3 on DOLLMA", 3.565, "12.27 M words", "almaz-roster"),
    ("Qwen3 with 36k pieces added, on DOLLMA", 2.379, "12.27 M words", "almaz-roster"),
    ("aLLMA WordPiece 64k", None, "fertility not published", "the paper's repository"),
)  # fmt: skip


def read_texts(paths: Sequence[str]) -> dict[str, list[str]]:
    """Texts by source. Raises UserError for a line without a text or with a lone surrogate, naming file and line."""
    texts: dict[str, list[str]] = {}
    for path in paths:
        stem = Path(path).name.split(".")[0]
        for number, record in read_jsonl(path):
            if not isinstance(record.get("text"), str):
                raise UserError(f'{path}, line {number}: no string under "text". Give one JSON object with a text a line.')
            refuse_surrogates([record["text"]], [f"{path}, line {number}"])
            if record["text"].strip():
                texts.setdefault(str(record.get("source", stem)), []).append(record["text"])
    if not texts:
        raise UserError(f"{', '.join(map(str, paths))}: no text in it. Give JSONL files with documents.")
    return texts


def names_of(paths: Sequence[str]) -> list[str]:
    """A short name for each path: its last part, with as many parents as it takes to tell them apart."""
    parts = [Path(path).resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"the tokenizer {next(p for p in paths if paths.count(p) > 1)} is named twice. Name each once.")


def compare(paths: Sequence[str], texts: dict[str, list[str]], seed: int = 0) -> dict[str, Any]:
    """All measures of every tokenizer, per source and over all, as plain values (compare.json)."""
    names = names_of(paths)
    tokenizers = {name: load_tokenizer(path, need_special=False) for name, path in zip(names, paths, strict=True)}
    morphemes = read_morphemes()
    documents = [text for group in texts.values() for text in group]
    bounds = np.cumsum([0, *map(len, texts.values())])
    scopes = {ALL: slice(0, len(documents))}
    if len(texts) > 1:
        scopes |= {source: slice(bounds[i], bounds[i + 1]) for i, source in enumerate(texts)}
    draws = {scope: resampled(part.stop - part.start, seed) for scope, part in scopes.items()}
    result: dict[str, Any] = {
        "context": CONTEXT, "alpha": ALPHA, "seed": seed, "base": names[0],
        "text": {source: len(group) for source, group in texts.items()}, "tokenizers": {},
    }  # fmt: skip
    base = None
    for name, tokenizer in tqdm(tokenizers.items(), desc="tokenizers", disable=None):
        rows, used = measure(tokenizer, documents)
        base = rows if base is None else base
        entry: dict[str, Any] = {
            "kind": tokenizer.kind, "pieces": tokenizer.vocab_size, "uncased": tokenizer.lowercase,
            "used": 100 * float((used > 0).sum()) / tokenizer.vocab_size,
            "renyi": {f"V={tokenizer.vocab_size} (all)": renyi(used, tokenizer.vocab_size),
                      f"V={int((used > 0).sum())} (seen)": renyi(used, int((used > 0).sum()))},
            "morphemes": morpheme_agreement(tokenizer, morphemes, seed), "sources": {},
        }  # fmt: skip
        for scope, part in scopes.items():
            here = rows[part]
            measures = {measure_: ratio(here, draws[scope], measure_) for measure_ in RATIOS}
            words_per_piece = here[:, COUNTS.index("words")].sum() / max(here[:, COUNTS.index("pieces")].sum(), 1)
            measures["context_words"] = {"value": float((CONTEXT - 2) * words_per_piece)}
            measures["cost"] = relative(here, base[part], draws[scope], "pieces")
            measures["fertility_change"] = relative(here, base[part], draws[scope], "word_pieces")
            entry["sources"][scope] = {"words": int(here[:, 0].sum()), **measures}
        result["tokenizers"][name] = entry
    result["examples"] = _examples(texts, tokenizers)
    result["published"] = [dict(zip(("what", "fertility", "remark", "where"), row, strict=True)) for row in PUBLISHED]
    return result


def _examples(texts: dict[str, list[str]], tokenizers: dict[str, Tokenizer]) -> list[dict[str, Any]]:
    """The middle document's beginning of each source, cut by every tokenizer: (characters, pieces' borders)."""
    examples = []
    for source, group in list(texts.items())[:MOST_EXAMPLES]:
        text = sorted(group, key=len)[len(group) // 2][:EXAMPLE_LETTERS].replace("\n", " ")
        cuts = {}
        for name, tokenizer in tokenizers.items():
            ids, offsets = tokenizer.encode_with_offsets([text])[0]
            cuts[name] = [[text[begin:end], bool(index == tokenizer.unk_id)]
                          for index, (begin, end) in zip(ids.tolist(), offsets.tolist(), strict=True)]  # fmt: skip
        examples.append({"source": source, "text": text, "cuts": cuts})
    return examples


@command
def main(words: Sequence[str] | None = None) -> None:
    """Command line; returns the exit code (2 with a message when the user can put it right)."""
    parser = argparse.ArgumentParser(prog="python -m tokenization.compare", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tokenizers", nargs="+", help="folder, tokenizer.json, vocab.txt or sentencepiece .model")
    parser.add_argument("--text", nargs="+", required=True, help="JSONL files with documents, .gz or plain")
    parser.add_argument("--out", default="comparison", help="folder for compare.json, compare.md and compare.html")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    options = parser.parse_args(words)
    result = compare(options.tokenizers, read_texts(options.text), options.seed)
    out = Path(options.out)
    write_json(out / "compare.json", result)
    write_text(out / "compare.md", markdown(result))
    write_text(out / "compare.html", html_page(result))
    print(terminal(result))
    print(f"written: {out / 'compare.json'}, compare.md, compare.html")


if __name__ == "__main__":
    sys.exit(main())
