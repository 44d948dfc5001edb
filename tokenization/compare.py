"""Compare tokenizers on your own text: fertility, coverage, cost, morphemes, per source, with intervals.

    python -m tokenization.compare runs/demo/tokenizer path/to/mbert path/to/xlmr/tokenizer.json \\
        --text corpus/heldout.jsonl.gz --out comparison

The text is JSONL (.gz or plain) with "text" and optionally "source" (default: the file's name). Writes compare.json,
compare.md and compare.html (one file, no network) and prints the table. The first tokenizer is the baseline for the others.
This repeats the paper's third experiment, monolingual against multilingual vocabulary, for any tokenizer file. The language
is that of our own tokenizers among them, or --language; morphemes are compared if its pack has a list of them.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.errors import UserError, command
from common.files import read_jsonl, write_json, write_text
from common.html import origin_of
from common.launch import git_state
from common.progress import progress
from language.base import Language, load_language, one_language
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
    """A short name for each path: its last part, with as many parents as needed to make it unique."""
    parts = [Path(path).resolve().parts for path in paths]
    for depth in range(1, max(map(len, parts)) + 1):
        names = ["/".join(part[-depth:]) for part in parts]
        if len(set(names)) == len(names):
            return names
    raise UserError(f"the tokenizer {next(p for p in paths if paths.count(p) > 1)} is named twice. Name each once.")


def language_of(tokenizers: dict[str, Tokenizer], named: str | None) -> Language:
    """The language of the tokenizers that we trained, or the named one, or the generic pack.

    Raises UserError where two of them were trained for different languages.
    """
    said = {name: tokenizer.language for name, tokenizer in tokenizers.items()} | {"--language": named}
    return one_language(said, "No text suits both: compare tokenizers of one language.") or load_language("generic")


def compare(paths: Sequence[str], texts: dict[str, list[str]], seed: int = 0, language: str | None = None) -> dict[str, Any]:
    """All measures of every tokenizer, by source and over all, as plain values (compare.json).

    Raises UserError if tokenizers that we trained have different languages.
    """
    names = names_of(paths)
    tokenizers = {name: load_tokenizer(path, need_special=False) for name, path in zip(names, paths, strict=True)}
    pack = language_of(tokenizers, language)
    morphemes = read_morphemes(pack.morphemes) if pack.morphemes else []
    documents = [text for group in texts.values() for text in group]
    bounds = np.cumsum([0, *map(len, texts.values())])
    scopes = {ALL: slice(0, len(documents))}
    if len(texts) > 1:
        scopes |= {source: slice(bounds[i], bounds[i + 1]) for i, source in enumerate(texts)}
    draws = {scope: resampled(part.stop - part.start, seed) for scope, part in scopes.items()}
    result: dict[str, Any] = {
        "language": pack.name,
        "context": CONTEXT,
        "alpha": ALPHA,
        "seed": seed,
        "base": names[0],
        "text": {source: len(group) for source, group in texts.items()},
        "tokenizers": {},
    }
    base = None
    for name, tokenizer in progress(tokenizers.items(), desc="tokenizers"):
        rows, used = measure(tokenizer, documents)
        base = rows if base is None else base
        entry: dict[str, Any] = {
            "kind": tokenizer.kind,
            "tokens": tokenizer.vocab_size,
            "uncased": tokenizer.lowercase,
            "used": 100 * float((used > 0).sum()) / tokenizer.vocab_size,
            "renyi": {
                f"V={tokenizer.vocab_size} (all)": renyi(used, tokenizer.vocab_size),
                f"V={int((used > 0).sum())} (seen)": renyi(used, int((used > 0).sum())),
            },
            "morphemes": morpheme_agreement(tokenizer, morphemes, pack, seed) if morphemes else None,
            "sources": {},
        }
        for scope, part in scopes.items():
            here = rows[part]
            measures = {measure_: ratio(here, draws[scope], measure_) for measure_ in RATIOS}
            words_per_token = here[:, COUNTS.index("words")].sum() / max(here[:, COUNTS.index("tokens")].sum(), 1)
            measures["context_words"] = {"value": float((CONTEXT - 2) * words_per_token)}
            measures["cost"] = relative(here, base[part], draws[scope], "tokens")
            measures["fertility_change"] = relative(here, base[part], draws[scope], "word_tokens")
            entry["sources"][scope] = {"words": int(here[:, 0].sum()), **measures}
        result["tokenizers"][name] = entry
    result["examples"] = _examples(texts, tokenizers)
    names_of_facts = ("what", "fertility", "remark", "where")
    result["published"] = [dict(zip(names_of_facts, row, strict=True)) for row in pack.published_tokenizers]
    return result


def _examples(texts: dict[str, list[str]], tokenizers: dict[str, Tokenizer]) -> list[dict[str, Any]]:
    """The beginning of the middle document of each source, cut by every tokenizer: (characters, borders of tokens)."""
    examples = []
    for source, group in list(texts.items())[:MOST_EXAMPLES]:
        text = sorted(group, key=len)[len(group) // 2][:EXAMPLE_LETTERS].replace("\n", " ")
        cuts = {}
        for name, tokenizer in tokenizers.items():
            ids, offsets = tokenizer.encode_with_offsets([text])[0]
            cuts[name] = [
                [text[begin:end], bool(index == tokenizer.unk_id)]
                for index, (begin, end) in zip(ids.tolist(), offsets.tolist(), strict=True)
            ]
        examples.append({"source": source, "text": text, "cuts": cuts})
    return examples


@command
def main(words: Sequence[str] | None = None) -> None:
    """Command line; returns the exit code (2 with a message for an error that the user can correct)."""
    parser = argparse.ArgumentParser(prog="python -m tokenization.compare", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tokenizers", nargs="+", help="folder, tokenizer.json, vocab.txt or sentencepiece .model")
    parser.add_argument("--text", nargs="+", required=True, help="JSONL files with documents, .gz or plain")
    parser.add_argument("--out", default="runs/comparison", help="folder for compare.json, .md and .html (runs/comparison)")
    parser.add_argument("--seed", type=int, default=0, help="of the bootstrap")
    parser.add_argument("--language", help="language of the text, if no tokenizer of ours has one: name or code of a pack")
    options = parser.parse_args(words)
    result = compare(options.tokenizers, read_texts(options.text), options.seed, options.language)
    out = Path(options.out)
    write_json(out / "compare.json", result)
    write_text(out / "compare.md", markdown(result))
    state = git_state()
    write_text(out / "compare.html", html_page(result | {"origin": origin_of(state["commit"], state["changed"])}))
    print(terminal(result))
    print(f"written: {out / 'compare.json'}, compare.md, compare.html")


if __name__ == "__main__":
    sys.exit(main())
