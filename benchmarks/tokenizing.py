"""Batch encoding against the bare library on the same text and vocabulary, in one run.

    python -m benchmarks.tokenizing FOLDER [FOLDER ...] --text corpus/heldout.jsonl.gz

For WordPiece the bare library is `tokenizers`, with its own BERT normaliser and pre-tokenizer over our vocabulary, and
with our tokenizer.json. For Unigram and BPE it is `sentencepiece` over our model. The peer that does the same work has
sentencepiece's own normaliser inside the model, run in C++ as it reads: nmt_nfkc, its default, or nmt_nfkc_cf, which folds
case, for uncased models. (It spells İ with two code points, unifies no quotes or dashes and mends no look-alike letters.) "Text
as it is" shows what any normaliser costs: nothing is normalised, and an uncased model gets capitals as they are. The libraries'
ids are taken as Python lists, ours as arrays.
Runs alternate and medians are given, so that a busy machine slows both alike; "by CPU time" counts the seconds that all threads
of the process were given, which does not see what else runs, nor that a second core could have helped.
"""

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import sentencepiece
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from common.errors import command
from common.files import read_jsonl, write_json
from tokenization.loading import load_tokenizer
from tokenization.proto import with_normaliser_of
from tokenization.tokenizer import JSON_FILE, MODEL_FILE, UNK

BATCH = 1000  # documents of a call


def encoders(folder: Path) -> dict[str, Callable[[list[str]], object]]:
    """Name to a function that encodes one batch: ours first, then the bare libraries."""
    ours = load_tokenizer(folder)
    ways: dict[str, Callable[[list[str]], object]] = {"ours": ours.encode_batch}
    if ours.kind == "wordpiece":
        same = tokenizers.Tokenizer.from_file(str(folder / JSON_FILE))
        stock = tokenizers.Tokenizer(models.WordPiece(same.get_vocab(), unk_token=UNK, max_input_chars_per_word=100))
        stock.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=ours.lowercase)
        stock.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        for name, engine in (("tokenizers, our tokenizer.json", same), ("tokenizers, stock BERT", stock)):
            ways[name] = lambda batch, engine=engine: [
                item.ids for item in engine.encode_batch_fast(batch, add_special_tokens=False)
            ]
    else:
        native = sentencepiece.SentencePieceProcessor(model_file=str(folder / MODEL_FILE))
        ways["sentencepiece, text as it is"] = native.encode
        model = with_normaliser_of((folder / MODEL_FILE).read_bytes(), _stock_normaliser(ours.lowercase))
        ways["sentencepiece, its own normaliser"] = sentencepiece.SentencePieceProcessor(model_proto=model).encode
        same = tokenizers.Tokenizer.from_file(str(folder / JSON_FILE))
        ways["tokenizers, our tokenizer.json"] = lambda batch: [
            item.ids for item in same.encode_batch_fast(batch, add_special_tokens=False)
        ]
    ways["ours, with offsets"] = ours.encode_with_offsets
    return ways


def _stock_normaliser(lowercase: bool) -> bytes:
    """A tiny model with sentencepiece's own normaliser in it, white space treated as in ours."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["bir iki üç"]), model_writer=model, model_type="char", vocab_size=20, hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc", remove_extra_whitespaces=False, minloglevel=2,
    )  # fmt: skip
    return model.getvalue()


def measure(
    ways: dict[str, Callable[[list[str]], object]], texts: list[str], repeats: int, batch_size: int
) -> dict[str, tuple[float, float]]:
    """Median MB (10^6 bytes of UTF-8) per second of each way by the clock and by CPU time, runs alternating.

    Every run gets strings that nobody has read, as they come out of a file: Python keeps the UTF-8 of a string once a
    library has asked for it, and a library that reads the same string again has it for nothing.
    """
    raw = [text.encode() for text in texts]
    size = sum(map(len, raw)) / 1e6
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, encode in ways.items():
            batches = [[text.decode() for text in raw[begin : begin + batch_size]] for begin in range(0, len(raw), batch_size)]
            clock, spent = time.perf_counter(), time.process_time()
            for batch in batches:
                encode(batch)
            rates[name].append((size / (time.perf_counter() - clock), size / (time.process_time() - spent)))
    return {name: tuple(map(statistics.median, zip(*values, strict=True))) for name, values in rates.items()}


@command
def main() -> None:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokenizing", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("tokenizers", nargs="+", help="folders written by prepare.py")
    parser.add_argument("--text", nargs="+", required=True, help="JSONL files with documents")
    parser.add_argument("--megabytes", type=float, default=8.0, help="of text at most")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--batch", type=int, default=BATCH, help="documents of a call")
    parser.add_argument("--out", help="JSON file for the numbers")
    options = parser.parse_args()
    texts, size = [], 0
    for path in options.text:
        for _, record in read_jsonl(path):
            if size < options.megabytes * 1e6:
                texts.append(record["text"])
                size += len(record["text"].encode())
    result = {}
    for folder in options.tokenizers:
        ways = encoders(Path(folder))
        result[folder] = measure(ways, texts, options.repeats, options.batch)
        print(f"{folder}: {size / 1e6:.1f} MB in {len(texts):,} documents, median of {options.repeats}")
        clock, spent = result[folder]["ours"]
        for name, (rate, effort) in result[folder].items():
            print(f"  {name:34} {rate:7.2f} MB/s   ours / this {clock / rate:5.2f}, by CPU time {spent / effort:5.2f}")
    if options.out:
        write_json(options.out, result)


if __name__ == "__main__":
    sys.exit(main())
