"""Quality signals of a text, thresholds that turn them into a reason to leave it out, and the quantiles behind those.

    python -m corpus.quality corpus/news.jsonl.gz corpus/laws.jsonl.gz

prints, per file, quantiles of every signal and what each preset keeps. Signals are written beside a document and judged
later, so a threshold may change without reading the text again.

The signals are those of Gopher (arXiv 2112.11446, table A1 and section A.1.1) and FineWeb (arXiv 2406.17557) as datatrove
0.10 computes them: lengths in characters, n-gram fractions over the length of the text. Words here are found by one
regular expression, where datatrove runs spaCy: a word with its inner apostrophes and hyphens, or one other character.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from common.errors import UserError, command
from common.files import read_jsonl
from language.azerbaijani import CYRILLIC, STOP_WORDS, lower

_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_LINES = re.compile(r"\n+")
# What datatrove counts as the end of a sentence (of its set, the marks that occur beside Latin and Cyrillic letters).
TERMINAL = (".", "!", "?", "‼", "‽", "⁇", "⁈", "⁉", "؟")
_MARKS = frozenset("!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»") | frozenset(
    map(chr, [*range(9), *range(11, 32), *range(127, 160)])
)
DUPLICATE_SIZES, TOP_SIZES = range(5, 11), (2, 3, 4)

# FineWeb-2's list for azj_Latn: 22 words, matched with their case.
FINEWEB2_STOP_WORDS = frozenset(
    [
        "və",
        "ilə",
        "ildə",
        "bir",
        "bu",
        "azərbaycan",
        "olan",
        "üçün",
        "sonra",
        "də",
        "kimi",
        "il",
        "isə",
        "o",
        "görə",
        "da",
        "tərəfindən",
        "çox",
        "ki",
        "onun",
        "edir",
        "idi",
    ]
)
# Ours are matched in lower case and in every way of typing them: as they are, ASCII, ASCII in capitals, Cyrillic.
_TO_CYRILLIC = str.maketrans({latin: letter for letter, latin in CYRILLIC.items() if len(latin) == 1 and letter not in "йэцщ"})
_STOP_FORMS = {
    form: word
    for word in STOP_WORDS
    for key in (lower(word).translate(str.maketrans("əğıöşüç", "egiosuc")),)
    for form in (word, key, key.replace("i", "ı"), word.translate(_TO_CYRILLIC))
}
_STOP_SET = frozenset(_STOP_FORMS)

# A preset maps "min_SIGNAL" or "max_SIGNAL" to a bound, or to [bound, words]: asked only of texts of so many words.
# The first rule that fails is the reason. Engines may override single rules of a preset.
Preset = Mapping[str, object]

PRESETS: dict[str, dict[str, object]] = {
    "none": {},
    # huggingface/fineweb-2, configs/azj_Latn.yml (Apache-2.0), and the values that its pipeline sets for every language,
    # verbatim and in its order: Gopher repetition, FineWeb quality, Gopher quality. It removed 75.4 % of the documents.
    # Its language score (0.3) belongs to another detector and is not here.
    "fineweb2_azj": {
        "max_dup_line_fraction": 0.879,
        "max_top_2gram": 0.514, "max_top_3gram": 0.475, "max_top_4gram": 0.405,
        "max_dup_5gram": 0.300, "max_dup_6gram": 0.271, "max_dup_7gram": 0.252,
        "max_dup_8gram": 0.227, "max_dup_9gram": 0.202, "max_dup_10gram": 0.179,
        "min_line_punct_fraction": 0.188,
        "max_char_dup_ratio": 0.1,
        "max_newline_ratio": 0.179,
        "min_words": 50, "max_words": 100_000,
        "min_mean_word_length": 3, "max_mean_word_length": 13,
        "max_hash_ratio": 0.1, "max_ellipsis_ratio": 0.1,
        "max_bullet_fraction": 0.9, "max_ellipsis_line_fraction": 0.3,
        "min_alpha_word_fraction": 0.725,
        "min_stop_words_fineweb2": 2,
    },
    # From quantiles of five trusted sources of the real Azerbaijani set (594 news, 5,008 law articles, 89 chapters of a
    # technical book, 313 talks, 66 folktales), each taken alone, texts of 50 words and more: a bound lies beyond the .99
    # quantile of all five, so that no source loses more than 1 % to one rule. The number after each rule is the largest
    # (for min_: smallest) .99 (.01) quantile among the five and whose it is. News sets the repetition bounds: its pages give
    # the same text twice, once as a lead. Poems, lists and comments of less than 50 words meet no rule of repetition.
    "az_tuned": {
        "max_dup_line_fraction": [0.55, 50],  # .43 news, .25 laws, others 0 to .02
        "max_char_dup_ratio": [0.60, 50],  # .54 news, others 0 to .03
        "max_top_2gram": [0.25, 50],  # .16 laws, .15 news, others .05
        "max_top_3gram": [0.30, 50],  # .18 news (.999 of laws .29)
        "max_top_4gram": [0.30, 50],  # .21 news (.999 of laws and news .27)
        "max_dup_5gram": [0.75, 50],  # .71 news, .54 laws, others .03 to .06
        "max_dup_10gram": [0.75, 50],  # .71 news, .46 laws, others .01 to .02
        "max_newline_ratio": [0.70, 50],  # .14 laws (.999: .67, a table), verse about .25
        "min_mean_word_length": [2.5, 20],  # 4.9 news; .001 of laws 2.4
        "max_mean_word_length": [12, 20],  # 8.1 news and laws
        "min_alpha_word_fraction": [0.35, 20],  # .55 laws; .001 of news .40
        "max_hash_ratio": [0.10, 20],  # .01 techbook
        "max_ellipsis_ratio": [0.15, 20],  # .01 talks
        "min_stop_words": [2, 100],  # 2 news and laws
    },
}  # fmt: skip


def signals(text: str) -> dict[str, float]:
    """Numbers that describe one text; fractions are rounded to 4 decimals. An empty text has zeros throughout.

    words counts tokens that are not punctuation; mean_word_length is over those; alpha_word_fraction is the share of all
    tokens with a letter. dup_line_fraction, line_dup_char_fraction: lines seen before in the text, as a share of lines and
    of characters; char_dup_ratio: the same without blank lines over the text without line breaks (FineWeb's). top_Ngram:
    characters of the most frequent N-gram; dup_Ngram: characters in N-grams seen before. stop_words: distinct ones.
    """
    tokens = _TOKEN.findall(text)
    lines = [line for line in text.split("\n") if line.strip()]
    result = dict.fromkeys(SIGNALS, 0.0)
    if not tokens or not lines:
        return result
    size, number = len(text), len(tokens)
    counts = Counter(tokens)
    marks = alpha = 0
    for token, times in counts.items():
        if not token.isalpha():
            if token in _MARKS:
                marks += times
            alpha -= times * (not any(map(str.isalpha, token)))
    alpha += number
    letters = sum(map(len, tokens)) - marks
    words = number - marks
    result["words"] = words
    result["mean_word_length"] = letters / words if words else 0.0
    result["alpha_word_fraction"] = alpha / number
    result["stop_words_fineweb2"] = len(FINEWEB2_STOP_WORDS & counts.keys())
    small = lower("\n".join(counts)).split("\n")
    result["stop_words"] = len({_STOP_FORMS[token] for token in _STOP_SET.intersection(small)})

    _line_signals(text, lines, number, result)
    _repetition(tokens, counts, size, result)
    for name, value in result.items():
        if value:
            result[name] = round(value, 4)
    return result


def _line_signals(text: str, lines: list[str], tokens: int, result: dict[str, float]) -> None:
    """Fill in what is counted by lines; `lines` are those that are not blank."""
    number = len(lines)
    result["lines"] = number
    result["newline_ratio"] = text.count("\n") / tokens
    result["line_punct_fraction"] = sum(line.endswith(TERMINAL) for line in lines) / number
    result["short_line_fraction"] = sum(len(line) <= 30 for line in lines) / number
    result["bullet_fraction"] = sum(line.lstrip().startswith(("•", "-")) for line in lines) / number
    result["ellipsis_line_fraction"] = sum(line.rstrip().endswith(("...", "…")) for line in lines) / number
    result["hash_ratio"] = text.count("#") / tokens
    result["ellipsis_ratio"] = (text.count("...") + text.count("…")) / tokens
    if number > 1:
        twice, characters = _repeated(lines)
        result["char_dup_ratio"] = characters / len(text.replace("\n", ""))
        parts = _LINES.split(text)
        if len(parts) != number:
            twice, characters = _repeated(parts)
        result["dup_line_fraction"] = twice / len(parts)
        result["line_dup_char_fraction"] = characters / len(text)


def _repeated(lines: list[str]) -> tuple[int, int]:
    """How many lines stood before already, and their characters."""
    seen: Counter[str] = Counter(lines)
    if len(seen) == len(lines):
        return 0, 0
    return len(lines) - len(seen), sum((times - 1) * len(line) for line, times in seen.items())


def _repetition(tokens: list[str], counts: Counter[str], size: int, result: dict[str, float]) -> None:
    """Fill in top_Ngram and dup_Ngram. An n-gram can stand twice only where both (n-1)-grams in it do: few places are left.

    counts: of the tokens; size: characters of the text.
    """
    for order in TOP_SIZES:
        if len(tokens) >= order:
            result[f"top_{order}gram"] = (sum(map(len, tokens[:order])) + order - 1) / size
    numbers = {token: number for number, (token, times) in enumerate(counts.items()) if times > 1}
    twice = [at for at, token in enumerate(tokens) if token in numbers]
    if len(twice) < 3:
        return
    places = np.array(twice)  # of the repeated (n-1)-grams, in order
    token_of = np.zeros(len(tokens), np.int64)
    token_of[places] = [numbers[tokens[at]] for at in twice]
    name_of = token_of.copy()  # equal (n-1)-grams have one name
    ends = None
    for order in range(2, DUPLICATE_SIZES[-1] + 1):
        places = places[:-1][np.diff(places) == 1]
        if len(places) < 2:
            return
        codes = name_of[places] * len(tokens) + token_of[places + order - 1]
        by_code = codes.argsort()
        in_order = codes[by_code]
        names = np.empty(len(codes), np.int64)
        names[by_code] = np.concatenate([[0], (in_order[1:] != in_order[:-1]).cumsum()])
        times = np.bincount(names)[names]
        again = times > 1
        if not again.any():
            return
        if ends is None:
            ends = np.cumsum([0, *map(len, tokens)])
        if order in TOP_SIZES:
            first = int(places[times.argmax()])  # of several, the first
            result[f"top_{order}gram"] = (int(ends[first + order] - ends[first]) + order - 1) * int(times.max()) / size
        places, names = places[again], names[again]
        name_of[places] = names
        if order in DUPLICATE_SIZES:
            result[f"dup_{order}gram"] = _duplicated_characters(places, names, ends, order) / size


def _duplicated_characters(places: np.ndarray, names: np.ndarray, ends: np.ndarray, order: int) -> int:
    """Characters of n-grams that were seen before; after one the search goes on behind it, as in datatrove.

    places, names: of those that stand more than once, in order; ends: characters before each token.
    """
    seen: set[int] = set()
    characters = behind = 0
    sizes = ends[places + order] - ends[places]
    for at, name, size in zip(places.tolist(), names.tolist(), sizes.tolist(), strict=True):
        if at < behind:
            continue
        if name in seen:
            characters += size
            behind = at + order
        else:
            seen.add(name)
    return characters


SIGNALS = (
    "words", "mean_word_length", "alpha_word_fraction", "stop_words", "stop_words_fineweb2",
    "lines", "newline_ratio", "line_punct_fraction", "short_line_fraction", "bullet_fraction", "ellipsis_line_fraction",
    "hash_ratio", "ellipsis_ratio", "dup_line_fraction", "line_dup_char_fraction", "char_dup_ratio",
    *(f"top_{order}gram" for order in TOP_SIZES), *(f"dup_{order}gram" for order in DUPLICATE_SIZES),
)  # fmt: skip


def find_preset(name: str, **changes: object) -> dict[str, object]:
    """The rules of a named preset with single rules changed (None drops one); raises UserError for unknown names."""
    if name not in PRESETS:
        raise UserError(f"quality.preset={name}: no such preset. There are {', '.join(PRESETS)}.")
    rules = {**PRESETS[name], **changes}
    for rule, bound in rules.items():
        side, _, signal = rule.partition("_")
        if side not in ("min", "max") or signal not in SIGNALS:
            raise UserError(f"quality.{rule}: no such rule. Rules are min_ or max_ and one of {', '.join(SIGNALS)}.")
        numbers = list(bound) if isinstance(bound, list | tuple) else [bound]
        good = len(numbers) <= 2 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers)
        if bound is not None and not (numbers and good):
            raise UserError(f"quality.{rule}={bound}: expected a number, or [number, words from which it is asked].")
    return {rule: bound for rule, bound in rules.items() if bound is not None}


def judge(measured: Mapping[str, float], preset: str | Preset) -> str | None:
    """The first rule of `preset` (a name or rules) that the signals break, such as "max_top_2gram"; None if none."""
    rules = find_preset(preset) if isinstance(preset, str) else preset
    for rule, bound in rules.items():
        limit, least = bound if isinstance(bound, list | tuple) and len(bound) == 2 else (bound, 0)
        value = measured[rule[4:]]
        if measured["words"] >= least and (value < limit if rule[:3] == "min" else value > limit):  # type: ignore[operator]
            return rule
    return None


def broken_rules(measured: Mapping[str, np.ndarray], rules: Preset) -> Iterator[tuple[str, np.ndarray]]:
    """Each rule in turn and which documents break it, [documents] bool; measured: [documents] float64 for each signal."""
    for rule, bound in rules.items():
        limit, least = bound if isinstance(bound, list | tuple) and len(bound) == 2 else (bound, 0)
        value = measured[rule[4:]]
        yield rule, (measured["words"] >= least) & (value < limit if rule[:3] == "min" else value > limit)  # type: ignore[operator]


QUANTILES = (0.001, 0.01, 0.03, 0.5, 0.97, 0.99, 0.999)


def describe(texts: Iterable[str], least_words: int = 0) -> dict[str, list[float]]:
    """Quantiles (at QUANTILES) of every signal over the texts of at least `least_words` words."""
    rows = [list(row.values()) for row in map(signals, texts) if row["words"] >= least_words]
    if not rows:
        return {}
    table = np.quantile(np.array(rows), QUANTILES, axis=0)
    return {name: [float(f"{value:.4g}") for value in table[:, at]] for at, name in enumerate(SIGNALS)}


@command
def main() -> None:
    """Print quantiles and retention of the given corpus files (.jsonl, .jsonl.gz with a text field)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--words", type=int, default=0, help="quantiles of texts from this length up")
    options = parser.parse_args()
    for file in options.files:
        texts = [record["text"] for _, record in read_jsonl(file) if isinstance(record.get("text"), str)]
        table = describe(texts, options.words)
        measured = [signals(text) for text in texts]
        print(f"\n{file.name}: {len(texts):,} documents")
        for preset in PRESETS:
            reasons = Counter(judge(row, preset) for row in measured)
            kept = reasons.pop(None, 0)
            print(f"  {preset:<13} keeps {kept / max(1, len(texts)):7.2%}   {dict(reasons.most_common(4))}")
        print(f"  {'quantile':<24}" + "".join(f"{quantile:>10g}" for quantile in QUANTILES))
        for name, values in table.items():
            print(f"  {name:<24}" + "".join(f"{value:>10.4g}" for value in values))


if __name__ == "__main__":
    sys.exit(main())
