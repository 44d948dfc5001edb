"""Quality signals of a text, thresholds on them that give a reason for removal, and the quantiles to choose thresholds by.

    python -m corpus.quality --language azerbaijani corpus/news.jsonl.gz corpus/laws.jsonl.gz

prints, for each file, quantiles of every signal and what each preset keeps. Signals are stored with a document and compared
with thresholds later, so a threshold may change without reading the text again.

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
from language.base import Language, load_language

_TOKEN = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_LINES = re.compile(r"\n+")
# Datatrove's ends of a sentence (those of its set that occur beside Latin and Cyrillic letters).
TERMINAL = (".", "!", "?", "‼", "‽", "⁇", "⁈", "⁉", "؟")
_MARKS = frozenset("!/—”:％１〈&(、━\\【#%「」，】；+^]~“《„';’{|∶´[=-`*．（–？！：$～«〉,><》)?）。…@_.\"}►»") | frozenset(
    map(chr, [*range(9), *range(11, 32), *range(127, 160)])
)
DUPLICATE_SIZES, TOP_SIZES = range(5, 11), (2, 3, 4)

# A preset maps "min_SIGNAL" or "max_SIGNAL" to a bound, or to [bound, words]: applied only to texts of that many words.
# The first rule that fails is the reason. Single rules of a preset can be overridden in the settings.
Preset = Mapping[str, object]
NONE = "none"  # the preset without rules, which every language has; others are in its pack (Language.presets)


def signals(text: str, language: Language) -> dict[str, float]:
    """Numbers that describe one text; fractions are rounded to 4 decimals. All are zero for an empty text.

    words: tokens that are not punctuation; mean_word_length: over those; alpha_word_fraction: share of all tokens that have
    a letter. dup_line_fraction, line_dup_char_fraction: lines that repeat an earlier one, as a share of lines and of
    characters; char_dup_ratio: the same without blank lines, over the text without line breaks (FineWeb's). top_Ngram:
    characters of the most frequent N-gram; dup_Ngram: characters in repeated N-grams. stop_words: number of distinct ones.
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
    result["stop_words_fineweb2"] = len(language.fineweb2_stop_words & counts.keys())
    small = language.lower("\n".join(counts)).split("\n")
    forms = language.stop_words_by_form
    result["stop_words"] = len({forms[token] for token in forms.keys() & set(small)})

    _line_signals(text, lines, number, result)
    _repetition(tokens, counts, size, result)
    for name, value in result.items():
        if value:
            result[name] = round(value, 4)
    return result


def _line_signals(text: str, lines: list[str], tokens: int, result: dict[str, float]) -> None:
    """Add the signals that count lines; `lines` are the lines that are not blank."""
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
    """Number of lines that repeat an earlier one, and their characters."""
    seen: Counter[str] = Counter(lines)
    if len(seen) == len(lines):
        return 0, 0
    return len(lines) - len(seen), sum((times - 1) * len(line) for line, times in seen.items())


def _repetition(tokens: list[str], counts: Counter[str], size: int, result: dict[str, float]) -> None:
    """Add top_Ngram and dup_Ngram. Only n-grams whose two (n-1)-grams both repeat are examined, since others cannot repeat.

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
            first = int(places[times.argmax()])  # the first of several
            result[f"top_{order}gram"] = (int(ends[first + order] - ends[first]) + order - 1) * int(times.max()) / size
        places, names = places[again], names[again]
        name_of[places] = names
        if order in DUPLICATE_SIZES:
            result[f"dup_{order}gram"] = _duplicated_characters(places, names, ends, order) / size


def _duplicated_characters(places: np.ndarray, names: np.ndarray, ends: np.ndarray, order: int) -> int:
    """Characters of repeated n-grams; after a repeated one the search continues behind it, as in datatrove.

    places, names: of those that occur more than once, in order; ends: number of characters before each token.
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
    "words",
    "mean_word_length",
    "alpha_word_fraction",
    "stop_words",
    "stop_words_fineweb2",
    "lines",
    "newline_ratio",
    "line_punct_fraction",
    "short_line_fraction",
    "bullet_fraction",
    "ellipsis_line_fraction",
    "hash_ratio",
    "ellipsis_ratio",
    "dup_line_fraction",
    "line_dup_char_fraction",
    "char_dup_ratio",
    *(f"top_{order}gram" for order in TOP_SIZES),
    *(f"dup_{order}gram" for order in DUPLICATE_SIZES),
)


def presets(language: Language) -> dict[str, Mapping[str, object]]:
    """The presets of a language by name."""
    return {NONE: {}, **language.presets}


def find_preset(name: str, language: Language, **changes: object) -> dict[str, object]:
    """The rules of a named preset with changes (None removes a rule); raises UserError for unknown names."""
    known = presets(language)
    if name not in known:
        raise UserError(f"quality.preset={name}: {language.title} has no such preset. There are {', '.join(known)}.")
    rules = {**known[name], **changes}
    for rule, bound in rules.items():
        side, _, signal = rule.partition("_")
        if side not in ("min", "max") or signal not in SIGNALS:
            raise UserError(f"quality.{rule}: no such rule. Rules are min_ or max_ and one of {', '.join(SIGNALS)}.")
        numbers = list(bound) if isinstance(bound, list | tuple) else [bound]
        good = len(numbers) <= 2 and all(isinstance(value, int | float) and not isinstance(value, bool) for value in numbers)
        if bound is not None and not (numbers and good):
            raise UserError(
                f"quality.{rule}={bound}: expected a number, or [number, fewest words of a text that it applies to]."
            )
    return {rule: bound for rule, bound in rules.items() if bound is not None}


def first_broken_rule(measured: Mapping[str, float], rules: Preset) -> str | None:
    """The first rule that the signals break, such as "max_top_2gram"; None if there is none."""
    for rule, bound in rules.items():
        limit, least = bound if isinstance(bound, list | tuple) and len(bound) == 2 else (bound, 0)
        value = measured[rule[4:]]
        if measured["words"] >= least and (value < limit if rule[:3] == "min" else value > limit):  # type: ignore[operator]
            return rule
    return None


def broken_rules(measured: Mapping[str, np.ndarray], rules: Preset) -> Iterator[tuple[str, np.ndarray]]:
    """Each rule and the documents that break it, [documents] bool; measured: [documents] float64 for each signal."""
    for rule, bound in rules.items():
        limit, least = bound if isinstance(bound, list | tuple) and len(bound) == 2 else (bound, 0)
        value = measured[rule[4:]]
        yield rule, (measured["words"] >= least) & (value < limit if rule[:3] == "min" else value > limit)  # type: ignore[operator]


QUANTILES = (0.001, 0.01, 0.03, 0.5, 0.97, 0.99, 0.999)


def describe(texts: Iterable[str], language: Language, least_words: int = 0) -> dict[str, list[float]]:
    """Quantiles (at QUANTILES) of every signal over the texts of at least `least_words` words."""
    rows = [list(row.values()) for row in (signals(text, language) for text in texts) if row["words"] >= least_words]
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
    parser.add_argument("--language", required=True, help="of the text: name or code of a pack in language/")
    options = parser.parse_args()
    language = load_language(options.language)
    for file in options.files:
        texts = [record["text"] for _, record in read_jsonl(file) if isinstance(record.get("text"), str)]
        table = describe(texts, language, options.words)
        measured = [signals(text, language) for text in texts]
        print(f"\n{file.name}: {len(texts):,} documents")
        for preset, rules in presets(language).items():
            reasons = Counter(first_broken_rule(row, rules) for row in measured)
            kept = reasons.pop(None, 0)
            print(f"  {preset:<13} keeps {kept / max(1, len(texts)):7.2%}   {dict(reasons.most_common(4))}")
        print(f"  {'quantile':<24}" + "".join(f"{quantile:>10g}" for quantile in QUANTILES))
        for name, values in table.items():
            print(f"  {name:<24}" + "".join(f"{value:>10.4g}" for value in values))


if __name__ == "__main__":
    sys.exit(main())
