"""Word error rate of text damaged by PDF extraction, before and after `clean_text`.

    python -m benchmarks.cleaning noisy/laws_pdf_damage.jsonl.gz corpus/laws.jsonl.gz

Both files hold law articles ("Maddə 12. ..."); the second has clean copies of the first. Articles are paired by letters
without spaces, so that pairing does not depend on what is measured: the first HEAD letters of the fold key must agree, and
the two must share at least `--least` of their runs of SHINGLE letters (Jaccard). The damaged text is cleaned as a whole and
then cut into articles like the raw one. A word is a run of letters, with case and diacritics. The error rate is the
number of word edits divided by the words of the clean copies.
"""

import argparse
import itertools
import re
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from common.files import read_jsonl
from corpus.clean import clean_text
from language.azerbaijani import LANGUAGE, fold_key

HEAD, SHINGLE, SHORTEST = 40, 20, 200  # letters
_HEADING = re.compile(r"^[#\- ]*M ?[aа] ?d ?d ?[əәǝ] +(?:\d ?)+", re.MULTILINE)
_WORD = re.compile(r"[^\W\d_]+")


def squeeze(text: str) -> str:
    """The letters of the fold key, without spaces."""
    return re.sub(r"[\d ]+", "", fold_key(text))


def articles(text: str) -> Iterator[str]:
    """Cut a code of laws at its article headings."""
    begins = [match.start() for match in _HEADING.finditer(text)]
    for begin, end in zip(begins, [*begins[1:], len(text)], strict=True):
        yield text[begin:end]


def word_errors(said: list[str], meant: list[str]) -> int:
    """Least number of word insertions, deletions and replacements that turn `said` into `meant`."""
    numbers = {word: number for number, word in enumerate(dict.fromkeys([*said, *meant]))}
    row = np.array([numbers[word] for word in said], dtype=np.int64)
    steps = np.arange(len(row) + 1)
    distance = steps.copy()
    for at, word in enumerate(meant, start=1):
        change = np.minimum(distance[:-1] + (row != numbers[word]), distance[1:] + 1)
        best = np.concatenate(([at], change))
        distance = np.minimum.accumulate(best - steps) + steps
    return int(distance[-1])


def alike(one: str, other: str) -> float:
    """Jaccard similarity of the letter runs of two squeezed texts."""
    first, second = ({key[at : at + SHINGLE] for at in range(len(key) - SHINGLE + 1)} for key in (one, other))
    return len(first & second) / max(1, len(first | second))


def main() -> None:
    """Print both error rates and the seconds that cleaning took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("damaged", type=Path)
    parser.add_argument("clean", type=Path)
    parser.add_argument("--least", type=float, default=0.95, help="similarity of a pair of articles (default 0.95)")
    parser.add_argument("--codes", type=int, default=None, help="number of damaged documents to read")
    parser.add_argument("--show", type=int, default=0, help="number of pairs whose differing words are printed")
    options = parser.parse_args()

    heads: dict[str, str] = {}
    for _, record in read_jsonl(options.clean):
        key = squeeze(record["text"])
        if len(key) >= SHORTEST:
            heads.setdefault(key[:HEAD], record["text"])
    pairs = damaged_pairs = words = raw_errors = errors = 0
    seconds = size = 0.0
    for _, record in itertools.islice(read_jsonl(options.damaged), options.codes):
        size += len(record["text"].encode())
        begin = time.process_time()
        cleaned = clean_text(record["text"], LANGUAGE)[0]
        seconds += time.process_time() - begin
        repaired: dict[str, list[tuple[int, str]]] = {}  # a heading may be in the contents list as well
        for article in articles(cleaned):
            key = squeeze(article)
            repaired.setdefault(key[:HEAD], []).append((len(key), article))
        for article in articles(record["text"]):
            key = squeeze(article)
            meant, versions = heads.get(key[:HEAD]), repaired.get(key[:HEAD])
            if meant is None or versions is None or alike(key, squeeze(meant)) < options.least:
                continue
            _, said = min((abs(length - len(key)), version) for length, version in versions)
            reference = _WORD.findall(meant)
            raw, new = (word_errors(_WORD.findall(version), reference) for version in (article, said))
            pairs += 1
            damaged_pairs += raw > 0.05 * len(reference)
            words += len(reference)
            raw_errors += raw
            errors += new
            if pairs <= options.show:
                ours, theirs = set(_WORD.findall(said)), set(reference)
                print(f"{raw} -> {new} of {len(reference)}: {sorted(ours - theirs)} / {sorted(theirs - ours)}")
    if not words:
        raise SystemExit("the files have no article in common")
    print(f"articles found in both: {pairs:,} ({damaged_pairs:,} with more than 5 % of words damaged), {words:,} words")
    share = errors / max(1, raw_errors)
    print(f"word error rate: raw {raw_errors / words:.2%}, cleaned {errors / words:.2%} ({share:.3f} of raw)")
    print(f"cleaning: {size / 1e6 / seconds:.2f} MB/s ({size / 1e6:.1f} MB in {seconds:.1f} s of CPU)")


if __name__ == "__main__":
    main()
