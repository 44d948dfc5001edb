"""The normaliser of our tokenizers, as an object of the `tokenizers` library that is stored in tokenizer.json.

The facts about a language (look-alike letters, quotes, casing) are in its pack (language.base); here they become rules that
transformers' AutoTokenizer runs too, with the same offsets. No accent is removed: the stock uncased BERT normaliser merges
ön with on, and no stock normaliser lower-cases I to ı. Every rule takes time linear in the text.
"""

import io
import re
import string
import tempfile
import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache, cached_property
from itertools import accumulate

import numpy as np
import sentencepiece
from tokenizers import Regex, normalizers

from language.base import (
    CYRILLIC_LETTERS,
    DOT_ABOVE,
    DOTTED_CAPITAL,
    DOTTED_SMALL,
    DROPPED,
    LATIN_LETTERS,
    LETTERS,
    LINE_END,
    ODD_SPACE,
    Language,
)

SPACE_MARK = "▁"  # sentencepiece's sign for a space; the character itself is replaced by an underscore
# Letters that the look-alike rule examines before and after a letter. A look-behind must be bounded, and without a bound
# ahead the time for a long word would grow with its square; longer words are rare.
MIXED_REACH = 24

# Signs that no rule changes. Text of only these and a language's plain letters takes the fast path. Emoji are included (those
# of category So), combining marks are not.
PLAIN_SIGNS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_{|}~«»–…№§°₼•©®€£×₽→" + "".join(
    chr(point) for point in [*range(0x2600, 0x27C0), *range(0x1F300, 0x1FAFF)] if unicodedata.category(chr(point)) == "So"
)


def _class_of(characters: str) -> str:
    """A Python character class of `characters`, with consecutive code points written as ranges."""
    points = sorted(set(map(ord, characters)))
    starts = [point for point in points if point - 1 not in points]
    ends = [point for point in points if point + 1 not in points]
    pairs = zip(starts, ends, strict=True)
    return "[" + "".join(f"{re.escape(chr(first))}-{re.escape(chr(last))}" for first, last in pairs) + "]"


def _one_of(characters: str) -> str:
    """An alternation for the library's engine, which finds it by its first byte; a class would be tried everywhere."""
    return "(?:" + "|".join(re.escape(c) if c.isprintable() else f"\\x{{{ord(c):04x}}}" for c in characters) + ")"


@cache
def _matched_by(pattern: str) -> str:
    """All characters of the Basic Multilingual Plane that a pattern for one character matches."""
    return "".join(c for c in map(chr, range(0x10000)) if re.fullmatch(pattern, c))


def _replace(pattern: str, content: str) -> normalizers.Normalizer:
    """A rule of the library from a pattern in Python's syntax: its engine writes \\x{0041} for \\u0041."""
    return normalizers.Replace(Regex(re.sub(r"\\u([0-9a-f]{4})", r"\\x{\1}", pattern)), content)


def _spelling(language: Language) -> list[normalizers.Normalizer]:
    """Rules that drop zero-width characters and controls, unify spaces and similar marks, and apply NFC."""
    joiner = "(?:\\x{200c}|\\x{200d})"  # joiners belong to emoji and Arabic script; beside European letters they are noise
    european = f"(?:{LATIN_LETTERS}|{CYRILLIC_LETTERS})"
    run = f"{joiner}(?:(?<={european}{joiner}){joiner}*|(?<!{joiner}{joiner}){joiner}*(?={european}))"
    steps = [
        normalizers.Replace("\r\n", "\n"),
        _replace(_one_of(_matched_by(LINE_END)), "\n"),
        _replace(_one_of(_matched_by(DROPPED)), ""),
        _replace(_one_of(_matched_by(ODD_SPACE)), " "),
        normalizers.NFC(),
    ]
    if language.dotted_i:
        steps += [
            _replace(f"{_one_of(DOTTED_SMALL)}{DOT_ABOVE}+", "i"),
            _replace(f"{DOT_ABOVE}(?<={DOTTED_CAPITAL}{DOT_ABOVE}){DOT_ABOVE}*", ""),
        ]
    steps += [_replace(run, ""), normalizers.Replace(SPACE_MARK, "_")]
    return steps + [_replace(old, new) for table in language.unified.values() for old, new in _by_target(table)]


def lower_rules(language: Language) -> list[normalizers.Normalizer]:
    """The language's lower case: its own pairs (İ to i, I to ı) before the general rule."""
    own = [normalizers.Replace(old, new) for old, new in language.lower_first.items()]
    rest = [_replace(f"i{DOT_ABOVE}+", "i")] if language.dotted_i else []
    return [*own, normalizers.Lowercase(), *rest]


def _by_target(pairs: Mapping[str, str]) -> list[tuple[str, str]]:
    """(pattern of the old letters, new letters) for every distinct target, in a fixed order."""
    return [(_one_of("".join(old for old in pairs if pairs[old] == new)), new) for new in sorted(set(pairs.values()))]


def _lookalikes(language: Language, lowercase: bool) -> list[normalizers.Normalizer]:
    """Replace letters of another script inside words that have a letter of ours and no foreign letter without a look-alike.

    One target at a time, in any order: a partly repaired word still has letters of ours. A single look-alike beside a word of
    ours is replaced too ("v ә ya" from a PDF).
    """
    twins, own, strange = language.lookalikes, language.own_letters.pattern, language.strange_letters.pattern
    if not twins:
        return []
    foreign = f"[{strange[1:-1]}&&[^{''.join(twins)}]]"
    reach = range(1, MIXED_REACH + 1)  # the letter itself is the first that the look-behind covers
    own_before = "|".join(f"{own}\\p{{L}}{{{n}}}" for n in reach)
    foreign_before = "|".join(f"{foreign}\\p{{L}}{{{n}}}" for n in reach)
    ahead = f"\\p{{L}}{{0,{MIXED_REACH}}}"
    where = f"(?:(?={ahead}{own})|(?<={own_before}))(?!{ahead}{foreign})(?<!{foreign_before})"
    pairs = {old: new for old, new in twins.items() if not (lowercase and old.isupper())}
    steps = [_replace(old + where, new) for old, new in _by_target(pairs)]
    for old in language.lone_lookalikes:
        if not (lowercase and old.isupper()):
            steps.append(_replace(f"{old}(?<!\\p{{L}}{old})(?!\\p{{L}})(?:(?= {own})|(?<={own} {old}))", twins[old]))
    return steps


def _transliterate(language: Language, lowercase: bool) -> list[normalizers.Normalizer]:
    """The language's other script to its own; Я is YA beside another capital, otherwise Ya."""
    steps = [_replace(old, new) for old, new in _by_target(language.transliteration)]
    if not lowercase:
        capitals = {old.upper(): new for old, new in language.transliteration.items()}
        for old, new in capitals.items():
            if len(new) > 1:
                steps.append(_replace(f"{old}(?:(?=\\p{{Lu}})|(?<=\\p{{Lu}}{old}))", language.upper(new)))
            steps.append(normalizers.Replace(old, language.upper(new[:1]) + new[1:]))
    return steps


def text_normalizer(language: Language, lowercase: bool, transliterate: bool = False) -> normalizers.Normalizer:
    """All rules as one normaliser of the library; its output is the text that our tokenizers see."""
    steps = _spelling(language) + (lower_rules(language) if lowercase else []) + _lookalikes(language, lowercase)
    return normalizers.Sequence(steps + (_transliterate(language, lowercase) if transliterate else []))


def space_marks() -> list[normalizers.Normalizer]:
    """Rules that turn text into sentencepiece's own tokens, when it is then split at single spaces and each part is marked.

    One space before a word is implied by the word's ▁ and has no place of its own in the text, so the offsets are those of the
    word. A space before a space or at the end is a token of its own, and so is the mark that sentencepiece puts before a
    text that begins with a space.
    """
    return [_replace(r"\A(?= )", SPACE_MARK), _replace(r" (?= |\z)", SPACE_MARK)]


class Normaliser:
    """The rules of one language, run by the library or, for plain text, by an equivalent fast path."""

    def __init__(self, language: Language, lowercase: bool, transliterate: bool = False) -> None:
        self.language, self.lowercase = language, lowercase
        self.rules = text_normalizer(language, lowercase, transliterate)
        self.plain_letters = plain_letters(language)
        self.not_plain = re.compile("[^ \n" + _class_of(self.plain_letters + PLAIN_SIGNS)[1:])

    def __call__(self, text: str) -> str:
        """`text` after the rules, by the fast path for lines of plain characters.

        No rule looks beyond a line, so one unusual character sends only its line through the library.
        """
        if not self.not_plain.search(text):
            return self.language.lower(text) if self.lowercase else text
        if "\n" not in text or "\r" in text:
            return self.rules.normalize_str(text)
        return "\n".join(map(self, text.split("\n")))

    @cached_property
    def _lowered(self) -> np.ndarray:
        """[2^20 + 2^16] uint16: lower case of every plain character, its low half for those above U+FFFF; 0 for others."""
        table = np.zeros(0x110000, dtype=np.uint16)
        for character in " \n" + self.plain_letters + PLAIN_SIGNS:
            table[ord(character)] = ord(self.language.lower(character)) & 0xFFFF  # one for one: every text keeps its length
        table[0xD800:0xE000] = np.arange(0xD800, 0xE000)  # halves of characters above U+FFFF, which have no case
        return table

    def odd_ones(self, texts: Sequence[str]) -> tuple[list[int], np.ndarray]:
        """Indices of texts with a character that is not plain, and the lower case of all texts together, [units] uint16.

        All by one table lookup. Raises UnicodeEncodeError for a lone surrogate.
        """
        together = "".join(texts)
        units = np.frombuffer(together.encode("utf-16-le"), dtype=np.uint16)
        lowered = self._lowered.take(units)
        pairs = len(units) > len(together)  # surrogate pairs are looked up as one, and positions are counted in characters
        if not pairs and lowered.all():
            return [], lowered
        other = np.flatnonzero(lowered == 0)
        if pairs:
            first = np.flatnonzero((units & 0xFC00) == 0xD800)
            points = 0x10000 + ((units[first] & 0x3FF).astype(np.int64) << 10 | units[first + 1] & 0x3FF)
            other = np.concatenate([other, first[self._lowered[points] == 0]])
            other -= np.searchsorted(first, other)
        ends = list(accumulate(map(len, texts)))
        return sorted(set(np.searchsorted(ends, other, side="right").tolist())), lowered

    def plain_all(self, texts: Sequence[str]) -> list[str | None]:
        """Each plain text after the rules, None for the others; errors as `odd_ones`."""
        odd, lowered = self.odd_ones(texts)
        found: list[str | None] = list(texts)
        if self.lowercase:
            together, begin = lowered.tobytes().decode("utf-16-le"), 0
            for index, end in enumerate(accumulate(map(len, texts))):
                found[index] = together[begin:end]
                begin = end
        for index in odd:
            found[index] = None
        return found

    def cased_all(self, texts: Sequence[str]) -> list[str]:
        """Each text that is not plain after the rules; plain ones unchanged, for a reader that lower-cases itself."""
        odd, _ = self.odd_ones(texts)
        found = list(texts)
        for index in odd:
            found[index] = self(texts[index])
        return found

    @cached_property
    def casing_model(self) -> bytes:
        """A minimal sentencepiece model whose own C++ normaliser lower-cases the plain letters and changes nothing else."""
        model = io.BytesIO()
        with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
            pairs = [(letter, self.language.lower(letter)) for letter in self.plain_letters]
            rules.writelines(f"{ord(old):X}\t{ord(new):X}\n" for old, new in pairs if old != new)
            rules.flush()
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(["word"]),
                model_writer=model,
                model_type="char",
                vocab_size=10,
                hard_vocab_limit=False,
                normalization_rule_tsv=rules.name,
                remove_extra_whitespaces=False,
                minloglevel=2,
            )
        return model.getvalue()


def plain_letters(language: Language) -> str:
    """Letters and digits that no rule of the language changes except casing, one letter for one.

    They are of one script, so that text of only these has no word of mixed script.
    """
    if language.own_letters.pattern == LETTERS["Cyrl"]:
        letters = language.alphabet + language.alphabet_upper
    else:
        latin = [chr(point) for point in range(0xC0, 0x180) if unicodedata.category(chr(point)) in ("Ll", "Lu")]
        letters = language.alphabet + language.alphabet_upper + string.ascii_letters + "".join(latin)
    single = [c for c in dict.fromkeys(letters) if len(language.lower(c)) == 1 and unicodedata.is_normalized("NFC", c)]
    return "".join(single) + "0123456789²³"


@cache
def normaliser_of(language: Language, lowercase: bool, transliterate: bool = False) -> Normaliser:
    """The normaliser of these settings, built once in a process: it compiles 60 patterns."""
    return Normaliser(language, lowercase, transliterate)
