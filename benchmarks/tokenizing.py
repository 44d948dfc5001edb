"""Batch encoding against the bare library on the same text and vocabulary, in one run.

    python -m benchmarks.tokenizing FOLDER [FOLDER ...] --text corpus/heldout.jsonl.gz

For WordPiece the bare library is `tokenizers`, once with its own BERT normaliser and pre-tokenizer over our vocabulary and
once with our tokenizer.json. For Unigram and BPE it is `sentencepiece` over our model. The peer that does the same work has
sentencepiece's own normaliser inside the model (C++): nmt_nfkc, its default, or nmt_nfkc_cf, which folds case, for uncased
models. That normaliser turns İ into two code points and does not unify quotes, dashes or look-alike letters. "Text as it
is" shows the cost of any normaliser: nothing is normalised, and an uncased model gets capitals unchanged. The libraries
return Python lists, ours returns arrays. Runs alternate, and the table has medians. "By CPU time" counts the seconds of all
threads of the process: it is blind to other work on the machine, and to what a second core could have gained.
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
    """Functions that encode one batch, by name: ours first, then the bare libraries."""
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
    """A tiny model with sentencepiece's own normaliser, which treats white space as ours does."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["bir iki üç"]),
        model_writer=model,
        model_type="char",
        vocab_size=20,
        hard_vocab_limit=False,
        normalization_rule_name="nmt_nfkc_cf" if lowercase else "nmt_nfkc",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return model.getvalue()


def measure(
    ways: dict[str, Callable[[list[str]], object]], texts: list[str], repeats: int, batch_size: int
) -> dict[str, tuple[float, float]]:
    """Median MB (10^6 bytes of UTF-8) per second of each variant, by the clock and by CPU time, in alternating runs.

    Every run gets strings that no library has read before, as they come from a file. Python caches the UTF-8 form of a string
    after its first use, and a second run on the same strings would get it for free.
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
