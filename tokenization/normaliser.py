"""The one normaliser of all our tokenizers, as an object of the `tokenizers` library that travels in tokenizer.json.

What is true of the language (look-alike letters, quotes, casing of İ/i and I/ı) stands in `language.azerbaijani`; here
it becomes rules that transformers' AutoTokenizer runs too, with the same offsets. No accent is ever stripped: the
stock uncased BERT normaliser merges ön with on and qız with qiz, and no stock one lower-cases I to ı.
"""

import io
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import accumulate

import numpy as np
import sentencepiece
from tokenizers import Regex, normalizers

from language.azerbaijani import (
    ALPHABET,
    ALPHABET_UPPER,
    CYRILLIC,
    CYRILLIC_LETTERS,
    DOT_ABOVE,
    DROPPED,
    LATIN_LETTERS,
    LINE_END,
    LOOKALIKES,
    ODD_SPACE,
    UNIFIED,
    lower,
    upper,
)

SPACE_MARK = "▁"  # sentencepiece's sign for a space; the character itself becomes a low line
MIXED_REACH = 24  # letters that the look-alike rule looks back: a lookbehind must be bounded, longer words are rare

# Characters that no rule touches but casing, and that end no word unless they are signs. Text of these alone takes the
# short way. Emoji are in (those of category So), Cyrillic and combining marks are not.
_PLAIN_LETTERS = (
    ALPHABET
    + ALPHABET_UPPER
    + "wW0123456789²³"
    + "".join(chr(point) for point in range(0xC0, 0x180) if unicodedata.category(chr(point)) in ("Ll", "Lu"))
)
PLAIN_SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_{|}~«»–…№§°₼•©®€£×₽→" + "".join(
    chr(point) for point in [*range(0x2600, 0x27C0), *range(0x1F300, 0x1FAFF)] if unicodedata.category(chr(point)) == "So"
)


def _class_of(characters: str) -> str:
    """A Python character class of `characters`, runs of code points written as ranges."""
    points = sorted(set(map(ord, characters)))
    starts = [point for point in points if point - 1 not in points]
    ends = [point for point in points if point + 1 not in points]
    pairs = zip(starts, ends, strict=True)
    return "[" + "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in pairs) + "]"


NOT_PLAIN = re.compile("[^ \n" + _class_of(_PLAIN_LETTERS + PLAIN_SIGNS)[1:])


def _one_of(characters: str) -> str:
    """An alternation for the library's engine, which finds it by its first byte; a class it would try everywhere."""
    return "(?:" + "|".join(re.escape(c) if c.isprintable() else f"\\x{{{ord(c):04x}}}" for c in characters) + ")"


@cache
def _matched_by(pattern: str) -> str:
    """All characters of the Basic Multilingual Plane that a pattern for one character matches."""
    return "".join(c for c in map(chr, range(0x10000)) if re.fullmatch(pattern, c))


def _replace(pattern: str, content: str) -> normalizers.Normalizer:
    """A rule of the library from a pattern in Python's spelling: its engine writes \\x{0041} for \\u0041."""
    return normalizers.Replace(Regex(re.sub(r"\\u([0-9a-f]{4})", r"\\x{\1}", pattern)), content)


def _spelling() -> list[normalizers.Normalizer]:
    """Zero-width characters and controls dropped, spaces of one kind, NFC, marks that look alike unified."""
    joiners = "(?:\\x{200c}|\\x{200d})"  # they belong to emoji and Arabic script; beside European letters they are dirt
    european = f"(?:{LATIN_LETTERS}|{CYRILLIC_LETTERS})"
    before = "|".join(f"{european}{joiners}{{{n}}}" for n in range(1, 5))
    steps = [
        normalizers.Replace("\r\n", "\n"),
        _replace(_one_of(_matched_by(LINE_END)), "\n"),
        _replace(_one_of(_matched_by(DROPPED)), ""),
        _replace(_one_of(_matched_by(ODD_SPACE)), " "),
        normalizers.NFC(),
        _replace(f"(?:i|ı){DOT_ABOVE}+", "i"),
        _replace(f"{DOT_ABOVE}+(?<=İ{DOT_ABOVE}|İ{DOT_ABOVE}{DOT_ABOVE})", ""),
        _replace(f"{joiners}+(?:(?={european})|(?<={before}))", ""),
        normalizers.Replace(SPACE_MARK, "_"),
    ]
    return steps + [_replace(old, new) for table in UNIFIED.values() for old, new in _by_target(table)]


def lower_rules() -> list[normalizers.Normalizer]:
    """Azerbaijani lower case: İ to i and I to ı before the general rule sees them."""
    return [
        normalizers.Replace("İ", "i"),
        normalizers.Replace("I", "ı"),
        normalizers.Lowercase(),
        _replace(f"i{DOT_ABOVE}+", "i"),
    ]


def _by_target(pairs: dict[str, str]) -> list[tuple[str, str]]:
    """(pattern of the old letters, new letters) for every distinct target, in a fixed order."""
    return [(_one_of("".join(old for old in pairs if pairs[old] == new)), new) for new in sorted(set(pairs.values()))]


def _lookalikes(lowercase: bool) -> list[normalizers.Normalizer]:
    """Cyrillic letters mended inside words that hold a Latin letter and no Cyrillic letter without a Latin twin.

    One target at a time and in any order: a word that is mended in part still holds Latin letters. A lone ә is mended
    beside a Latin word ("v ә ya" out of a PDF).
    """
    foreign = f"[{CYRILLIC_LETTERS[1:-1]}&&[^{''.join(LOOKALIKES)}]]"
    reach = range(1, MIXED_REACH + 1)  # the letter itself is the first that is looked back over
    latin_before = "|".join(f"{LATIN_LETTERS}\\p{{L}}{{{n}}}" for n in reach)
    foreign_before = "|".join(f"{foreign}\\p{{L}}{{{n}}}" for n in reach)
    where = f"(?:(?=\\p{{L}}*{LATIN_LETTERS})|(?<={latin_before}))(?!\\p{{L}}*{foreign})(?<!{foreign_before})"
    pairs = {old: new for old, new in LOOKALIKES.items() if not (lowercase and old.isupper())}
    steps = [_replace(old + where, new) for old, new in _by_target(pairs)]
    for old, new in (("ә", "ə"), ("Ә", "Ə"))[: 1 if lowercase else 2]:
        steps.append(_replace(f"{old}(?<!\\p{{L}}{old})(?!\\p{{L}})(?:(?= {LATIN_LETTERS})|(?<={LATIN_LETTERS} {old}))", new))
    return steps


def _transliterate(lowercase: bool) -> list[normalizers.Normalizer]:
    """Azerbaijani Cyrillic to Latin; Я is YA beside another capital and Ya elsewhere."""
    steps = [_replace(old, new) for old, new in _by_target(CYRILLIC)]
    if not lowercase:
        capitals = {old.upper(): new for old, new in CYRILLIC.items()}
        for old, new in capitals.items():
            if len(new) > 1:
                steps.append(_replace(f"{old}(?:(?=\\p{{Lu}})|(?<=\\p{{Lu}}{old}))", upper(new)))
            steps.append(normalizers.Replace(old, upper(new[:1]) + new[1:]))
    return steps


def text_normalizer(lowercase: bool, transliterate: bool = False) -> normalizers.Normalizer:
    """All rules as one normaliser of the library; what it returns is the text a tokenizer of ours sees."""
    steps = _spelling() + (lower_rules() if lowercase else []) + _lookalikes(lowercase)
    return normalizers.Sequence(steps + (_transliterate(lowercase) if transliterate else []))


def space_marks() -> list[normalizers.Normalizer]:
    """Rules after which splitting at single spaces and marking each part gives sentencepiece's own pieces.

    One space before a word is implied by the word's ▁ and takes no place in the text, so the word's offsets are the
    word's. A space before a space or at the end is a piece of its own, and so is the mark that sentencepiece puts
    before a text that begins with a space.
    """
    return [_replace(r"\A(?= )", SPACE_MARK), _replace(r" (?= |\z)", SPACE_MARK)]


def normalise(text: str, normalizer: normalizers.Normalizer, lowercase: bool) -> str:
    """`text` as the normaliser leaves it, by the short way wherever the characters are plain.

    No rule looks past the end of a line, so one odd character sends its line the long way and not the document.
    """
    if not NOT_PLAIN.search(text):
        return lower(text) if lowercase else text
    if "\n" not in text or "\r" in text:
        return normalizer.normalize_str(text)
    return "\n".join([normalise(line, normalizer, lowercase) for line in text.split("\n")])


@cache
def _lowered() -> np.ndarray:
    """[2^20 + 2^16] uint16: the lower case of every plain character, its low half for those above U+FFFF; 0 for others."""
    table = np.zeros(0x110000, dtype=np.uint16)
    for character in " \n" + _PLAIN_LETTERS + PLAIN_SIGNS:
        table[ord(character)] = ord(lower(character)) & 0xFFFF  # one for one, so that every text keeps its length
    table[0xD800:0xE000] = np.arange(0xD800, 0xE000)  # halves of characters above U+FFFF, which have no case
    return table


def odd_ones(texts: Sequence[str]) -> tuple[list[int], np.ndarray]:
    """Places of the texts that hold a character which is not plain, and the lower case of all texts in one [units] uint16.

    All by one look into a table. Raises UnicodeEncodeError for a lone surrogate.
    """
    together = "".join(texts)
    units = np.frombuffer(together.encode("utf-16-le"), dtype=np.uint16)
    lowered = _lowered().take(units)
    pairs = len(units) > len(together)  # characters of two units: looked up as one, and places counted in characters
    if not pairs and lowered.all():
        return [], lowered
    other = np.flatnonzero(lowered == 0)
    if pairs:
        first = np.flatnonzero((units & 0xFC00) == 0xD800)
        points = 0x10000 + ((units[first] & 0x3FF).astype(np.int64) << 10 | units[first + 1] & 0x3FF)
        other = np.concatenate([other, first[_lowered()[points] == 0]])
        other -= np.searchsorted(first, other)
    ends = list(accumulate(map(len, texts)))
    return sorted(set(np.searchsorted(ends, other, side="right").tolist())), lowered


def plain_all(texts: Sequence[str], lowercase: bool) -> list[str | None]:
    """`normalise` of each text of plain characters, None for the others; errors as `odd_ones`."""
    odd, lowered = odd_ones(texts)
    found: list[str | None] = list(texts)
    if lowercase:
        together, begin = lowered.tobytes().decode("utf-16-le"), 0
        for index, end in enumerate(accumulate(map(len, texts))):
            found[index] = together[begin:end]
            begin = end
    for index in odd:
        found[index] = None
    return found


@cache
def casing_model() -> bytes:
    """A tiny sentencepiece model whose own normaliser, run in C++, lower-cases the plain letters and touches nothing else."""
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        pairs = [(letter, lower(letter)) for letter in _PLAIN_LETTERS]
        rules.writelines(f"{ord(old):X}\t{ord(new):X}\n" for old, new in pairs if old != new)
        rules.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["söz"]), model_writer=model, model_type="char", vocab_size=10, hard_vocab_limit=False,
            normalization_rule_tsv=rules.name, remove_extra_whitespaces=False, minloglevel=2,
        )  # fmt: skip
    return model.getvalue()


def cased_all(texts: Sequence[str], normalizer: normalizers.Normalizer, lowercase: bool) -> list[str]:
    """`normalise` of each text that is not plain; plain ones as they are, for a reader that lower-cases by itself."""
    odd, _ = odd_ones(texts)
    found = list(texts)
    for index in odd:
        found[index] = normalise(texts[index], normalizer, lowercase)
    return found
