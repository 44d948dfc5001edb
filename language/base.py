"""The fields of a language pack, and the Unicode repair that all languages share.

A pack is one file, language/NAME.py, which assigns a `Language` to LANGUAGE. `load_language` finds it by its name or code.
Later rooms take the pack, or one of its functions, as an argument; none of them names a language. Only the standard
library is used. The text rules repair how a text was typed or stored and never change its spelling; spelling is folded
only in `fold_key`, which is used for matching and never for text that a model reads.
"""

import ast
import importlib
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, NamedTuple

from common.errors import UserError

DOT_ABOVE = "\u0307"
# Maximal number of marks on a letter; further ones are dropped, because the time to normalise a run of marks grows with the
# square of its length. The bound is Unicode's own (UAX #15, Stream-Safe Text Format): 30 marks.
MOST_MARKS = 30

LATIN_LETTERS = r"[A-Za-z\u00c0-\u024f\u0259\u1e00-\u1eff]"
CYRILLIC_LETTERS = r"[\u0400-\u052f]"
LETTERS = {"Latn": LATIN_LETTERS, "Cyrl": CYRILLIC_LETTERS}  # scripts with letters that look alike
SCRIPT_NAMES = {"Latn": "latin", "Cyrl": "cyrillic"}
LINE_END = r"\r\n?|[\x0b\x0c\x85\u2028\u2029]"
DROPPED = (
    r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff\ufff9-\ufffb]"
)
ODD_SPACE = r"[\t\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"
# Marks that are typed in several ways, one table for each kind; a pack names the tables that suit its language.
APOSTROPHE = {"’": "'", "‘": "'", "ʼ": "'", "ʻ": "'", "‛": "'", "`": "'", "´": "'", "′": "'"}
QUOTE = {"“": '"', "”": '"', "„": '"', "‟": '"', "″": '"'}
DASH = {"‐": "-", "‑": "-", "−": "-", "‒": "–", "—": "–", "―": "–"}
MARKS = {"apostrophe": APOSTROPHE, "quote": QUOTE, "dash": DASH}

_PLACE = re.compile(r"\{(code_script|code3|code|script|wiki_code|treebank)\}")
_LATIN, _CYRILLIC = re.compile(LATIN_LETTERS), re.compile(CYRILLIC_LETTERS)
_WORD = re.compile(r"[^\W\d_]+")
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f]+")
_KEY_WORD = re.compile(r"[^\W_]+")
_LINE_END, _DROPPED, _ODD_SPACE = map(re.compile, (LINE_END, DROPPED, ODD_SPACE))
# Joiners belong to emoji and to Arabic script; beside Latin and Cyrillic letters they are noise. Because of the look-behind,
# a run of joiners is tried only once, at its beginning.
_EUROPEAN = r"[A-Za-z\u00c0-\u024f\u0259\u0400-\u052f]"
_JOINER = re.compile(rf"(?<={_EUROPEAN})[\u200c\u200d]+|(?<![\u200c\u200d])[\u200c\u200d]+(?={_EUROPEAN})")
_UNSEEN = "\u00ad\u200b\u200c\u200d\u2060\ufeff"
_SPACES = re.compile(r" {2,}")
_SPACE_AT_END = re.compile(r"(?<! ) +\n *|\n +")
_BLANK_LINES = re.compile(r"\n{3,}")
DOTTED_SMALL, DOTTED_CAPITAL = "iı", "İ"  # letters after which a further dot above is dropped
_DOTTED = re.compile(rf"[{DOTTED_SMALL}]{DOT_ABOVE}+|(?<={DOTTED_CAPITAL}){DOT_ABOVE}+")  # str.lower makes i and this mark of İ


@cache
def _long_marks() -> re.Pattern[str]:
    """A group of MOST_MARKS combining marks and the marks after it. Compiled at first use, which takes 10 ms."""
    marks = "".join(chr(point) for point in range(0x300, 0x1F000) if unicodedata.combining(chr(point)))
    return re.compile(f"([{marks}]{{{MOST_MARKS}}})[{marks}]+")


def bound_marks(text: str) -> str:
    """`text` with at most MOST_MARKS combining marks in a row."""
    return text if text.isascii() else _long_marks().sub(r"\1", text)


def nfc(text: str) -> str:
    """Unicode NFC in linear time: the marks of a letter are bounded first (`bound_marks`)."""
    if text.isascii():
        return text
    text = bound_marks(text)
    return text if unicodedata.is_normalized("NFC", text) else bound_marks(unicodedata.normalize("NFC", text))


# Letters of the Turkic Latin alphabets and the nearest ones on an English keyboard.
_KEYBOARD = str.maketrans("əƏğĞıİöÖşŞüÜçÇäÄňŇñÑýÝžŽâÂîÎûÛ", "eEgGiIoOsSuUcCaAnNnNyYzZaAiIuU")


def ascii_typed(text: str) -> str:
    """Each letter replaced by the nearest one on an English keyboard: "çox gözəl" becomes "cox gozel"."""
    return text.translate(_KEYBOARD)


@dataclass(frozen=True)
class WikiNames:
    """Names that a Wikipedia in this language uses, in lower case; English names are always known too."""

    files: tuple[str, ...] = ()  # namespaces of images: [[Fayl:...]]
    categories: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()  # namespaces whose pages are not articles: templates, talk, users
    thumbs: tuple[str, ...] = ()  # "miniatür|" in an image link
    sides: tuple[str, ...] = ()  # "sağda|", "solda|" in an image link
    sections: tuple[str, ...] = ()  # headings of sections without running text: references, see also
    redirects: tuple[str, ...] = ()  # words after # that mark a page as a redirect
    # type of a name: beginnings of words in the names of categories whose pages are of it; the first type that fits counts
    types: Mapping[str, str] = field(default_factory=dict)
    # names by their treatment: first, last, unit, date (templates.py)
    templates: Mapping[str, str] = field(default_factory=dict)


class PersonalRule(NamedTuple):
    """One form of personal data: a match of `pattern` is replaced by <KIND>."""

    kind: str  # EMAIL, PHONE, IBAN, FIN, ID ...
    pattern: re.Pattern[str]
    digits: int  # fewest digits in a text before the slow pattern is tried
    may: Callable[[str], Any]  # fast test of whether the pattern can match at all
    group: int = 0  # group of the match that is replaced; the second group after it if this one is empty
    accept: Callable[[re.Match[str]], bool] | None = None  # validates a match, such as its check digits


def checks_iban(number: str) -> bool:
    """Whether an IBAN has correct check digits (ISO 7064: the rearranged number leaves 1 modulo 97)."""
    compact = number.replace(" ", "")
    return int("".join(str(int(letter, 36)) for letter in compact[4:] + compact[:4])) % 97 == 1


@dataclass(frozen=True, eq=False)
class Language:
    """One language. Only `name` and `code` are required; a step whose data is missing is skipped.

    Copies in other processes are made by name (pickle calls `load_language`).
    """

    name: str  # file name in language/, recorded by config and artefacts: "azerbaijani"
    code: str  # ISO 639-1, or 639-3 where there is none; used by the language detector and model cards
    code3: str = ""  # ISO 639-3, for data sets that name languages like azj_Latn
    wiki_code: str = ""  # of its Wikipedia and of data sets made from it; empty: `code`
    treebank: str = ""  # of Universal Dependencies, as tr_boun: one of those that the language has
    scripts: tuple[str, ...] = ()  # ISO 15924; text is converted to the first; none: any script is accepted
    # --- letters
    alphabet: str = ""  # small letters, in their order
    alphabet_upper: str = ""  # the capitals, in the same order
    special_letters: str = ""  # small letters that an English keyboard lacks; their number is recorded for each document
    plain_signs: str = ""  # marks beyond ASCII that no rule changes: text of these and letters alone takes the fast path
    lower_first: Mapping[str, str] = field(default_factory=dict)  # casing that differs from Unicode's default: İ to i, I to ı
    upper_first: Mapping[str, str] = field(default_factory=dict)
    dotted_i: bool = False  # lower-casing İ leaves i with U+0307; drop that mark
    # by rule: letters and marks that are typed in place of others
    unified: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    # letters of another script typed in place of ours inside our words
    lookalikes: Mapping[str, str] = field(default_factory=dict)
    lone_lookalikes: str = ""  # those of them that also stand for ours as a word of one letter
    transliteration: Mapping[str, str] = field(default_factory=dict)  # small letters of the language's other script to ours
    # our letters typed in place of similar ones in words of that script
    typed_for: Mapping[str, str] = field(default_factory=dict)
    # what `fold_key` writes for a letter; combining marks are always dropped
    folds: Mapping[str, str] = field(default_factory=dict)
    mojibake_letters: str = ""  # beyond Latin-1 and Cyrillic: letters that repairing a wrong decoding may produce
    # ways of typing a text without all its letters
    typings: Mapping[str, Callable[[str], str]] = field(default_factory=dict)
    # --- perturbations (language/perturbations.py)
    bare: Callable[[str], str] | None = None  # the text as typed on the common foreign keyboard: letters without their marks
    other_script: Callable[[str], str] | None = None  # the text in the language's other script
    # the national layout, four rows of small letters from the key beside the left edge: digits, top, home, bottom
    keyboard: tuple[str, ...] = ()
    suffix_marks: str = ""  # the mark between a number or name and its suffix, then those that stand for it: 1918-ci
    neighbour_words: Mapping[str, str] = field(default_factory=dict)  # word: the same word as a neighbouring language spells it
    # vowel of an ending by the last vowel before it: {"A": {"a": "a", "i": "e"}}; signs of `endings` that vary
    harmony: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    endings: tuple[str, ...] = ()  # endings of nouns of two letters and more: lAr, dAn
    exchanged: Mapping[str, str] = field(default_factory=dict)  # ending: another one that fits every stem which it fits
    # --- words
    stop_words: frozenset[str] = frozenset()  # frequent words that carry little meaning, in standard spelling
    # every way of typing them to the word; empty: standard spelling only
    stop_forms: Mapping[str, str] = field(default_factory=dict)
    fineweb2_stop_words: frozenset[str] = frozenset()  # FineWeb-2's list for the language, case-sensitive
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # quality rules by name, see corpus.quality
    suffixes: str = ""  # pattern of one grammatical ending, after `suffix_folds`
    suffix_folds: Mapping[str, str] = field(default_factory=dict)  # vowel harmony: letters that count as equal in endings
    softened: frozenset[tuple[str, str]] = frozenset()  # last letters of a stem that change before a vowel: k to y
    words: Path | None = None  # table of known words and their counts; None: words that a PDF split or joined are not repaired
    lost_letters: str = ""  # letters that old fonts lack, around which a PDF leaves spaces
    lost_words: tuple[str, ...] = ()  # words that consist of such letters, as they are written
    # --- sentences
    abbreviations: frozenset[str] = frozenset()  # lower case, without the stop: a full stop after one does not end a sentence
    ends_after: Mapping[str, str] = field(default_factory=dict)  # abbreviation: a word before it after which it may end one
    year: str = r"\d+|[IVXLC]+"  # pattern of what precedes a period word
    period_words: frozenset[str] = frozenset()  # "1918-ci il." is part of a date
    months: tuple[str, ...] = ()
    # --- data
    personal: tuple[PersonalRule, ...] = ()  # in addition to e-mail, cards and IP addresses, which all languages share
    wiki: WikiNames = WikiNames()
    example: str = ""  # a sentence with {mask} for a word, for model cards
    morphemes: Path | None = None  # table of words and their morphemes, for the comparison of tokenizers
    published_tokenizers: tuple[tuple[str, float | None, str, str], ...] = ()  # name, tokens per word, remark, source
    is_sure: Callable[[str], bool] | None = None  # whether its letters alone prove that a text is in this language

    def __reduce__(self) -> tuple[Any, ...]:
        return load_language, (self.name,)

    @property
    def title(self) -> str:
        """The English name, as printed on cards and pages."""
        return self.name.replace("_", " ").title()

    @property
    def code_script(self) -> str:
        """Code and script as data sets of the hub write them, azj_Latn; the code alone if there is no script."""
        return "_".join([self.code3 or self.code, *self.scripts[:1]])

    def filled(self, address: str) -> str:
        """An address of a data set with {code}, {code3}, {script}, {code_script}, {wiki_code} and {treebank} filled in.

        Raises UserError that names the field of the pack which is empty.
        """
        return _PLACE.sub(lambda match: self._code(match[1], address), address)

    def _code(self, name: str, address: str) -> str:
        code = "" if self.code == "und" else self.code
        code3 = self.code3 or (code if len(code) == 3 else "")
        script = self.scripts[0] if self.scripts else ""
        wiki = self.wiki_code or code
        known = {"code": code, "code3": code3, "script": script, "wiki_code": wiki, "treebank": self.treebank}
        wanted = ("code3", "script") if name == "code_script" else (name,)
        for part in wanted:
            if not known[part]:
                field_name = {"script": "scripts", "wiki_code": "code"}.get(part, part)
                raise UserError(
                    f"{address}: the pack language/{self.name}.py has no {field_name}, by which this data set names its "
                    f"languages. Fill in the field `{field_name}`, or write the address without {{{name}}}."
                )
        return "_".join(known[part] for part in wanted)

    @cached_property
    def stop_words_by_form(self) -> Mapping[str, str]:
        """Every way of typing a stop word, in lower case, mapped to the word."""
        return self.stop_forms or {word: word for word in self.stop_words}

    @property
    def transliteration_rule(self) -> str:
        """The name under which the report counts transliterated documents: cyrillic_to_latin, or ""."""
        return "_to_".join(map(SCRIPT_NAMES.__getitem__, self.scripts[1::-1])) if self.transliteration else ""

    # ------------------------------------------------------------ casing

    def lower(self, text: str) -> str:
        """Lower case by the rules of the language. (`str.lower` turns İ into i + U+0307, two code points, and I into i.)"""
        for old, new in self._lower_pairs:
            text = text.replace(old, new)
        return text.lower()

    def upper(self, text: str) -> str:
        """Upper case by the rules of the language."""
        for old, new in self._upper_pairs:
            text = text.replace(old, new)
        return text.upper()

    @cached_property
    def _lower_pairs(self) -> tuple[tuple[str, str], ...]:
        return (*((("I" + DOT_ABOVE, "i"),) if self.dotted_i else ()), *self.lower_first.items())

    @cached_property
    def _upper_pairs(self) -> tuple[tuple[str, str], ...]:
        return (*((("i" + DOT_ABOVE, "İ"),) if self.dotted_i else ()), *self.upper_first.items())

    # ------------------------------------------------------------ letters of two scripts

    @cached_property
    def own_letters(self) -> re.Pattern[str]:
        """Letters of the language's own script, Latin or Cyrillic."""
        return re.compile(LETTERS.get(self.scripts[0] if self.scripts else "Latn", LATIN_LETTERS))

    @cached_property
    def strange_letters(self) -> re.Pattern[str]:
        """Letters of the other script, the source of look-alikes and the input of `transliterate`."""
        return _LATIN if self.own_letters.pattern == CYRILLIC_LETTERS else _CYRILLIC

    @cached_property
    def _strange_word(self) -> re.Pattern[str]:
        # Because of the look-behind, a very long word is not tried at every letter.
        return re.compile(rf"(?<![^\W\d_])[^\W\d_]*{self.strange_letters.pattern}[^\W\d_]*")

    @cached_property
    def _lone(self) -> re.Pattern[str] | None:
        letters = self.lone_lookalikes
        return re.compile(rf"(?<![^\W\d_])[{letters}](?![^\W\d_])") if letters else None

    def repair_lookalikes(self, text: str) -> tuple[str, int]:
        """Replace letters of another script that stand for ours inside our words; returns (text, letters changed).

        A word is repaired when every foreign letter in it has a look-alike and it has a letter of ours too. Words in the other
        script alone are not changed, with one exception: a single letter of `lone_lookalikes` in a text with hardly any of that
        script, as PDF extraction leaves them ("v ә ya").
        """
        if not self.lookalikes or not self.strange_letters.search(text):
            return text, 0
        own, strange, twins = self.own_letters, self.strange_letters, self.lookalikes
        changed = 0
        mostly_ours = False
        if self._lone is not None and self._lone.search(text):
            # Letters of words in the other script alone, single letters excepted: repairing changes none of them.
            words = [word for word in _WORD.findall(text) if len(word) > 1 or word not in self.lone_lookalikes]
            foreign = sum(len(word) for word in words if not own.search(word) and strange.search(word))
            mostly_ours = sum(map(len, words)) > 10 * foreign

        def repair(match: re.Match[str]) -> str:
            nonlocal changed
            word = match.group()
            strangers = strange.findall(word)
            mixed = len(strangers) < len(word) and own.search(word)
            if not (mixed or (mostly_ours and len(word) == 1 and word in self.lone_lookalikes)):
                return word
            if any(letter not in twins for letter in strangers):
                return word
            changed += len(strangers)
            return "".join(twins.get(letter, letter) for letter in word)

        return self._strange_word.sub(repair, text), changed

    def transliterate(self, text: str) -> str:
        """The language's other script to its own, letter by letter with case (Я is Ya, or YA in capitals).

        In a word mostly of the other script, a letter of ours is read as the letter that it resembles (`typed_for`).
        """
        if not self.transliteration or not self.strange_letters.search(text):
            return text
        table, strange = self.transliteration, self.strange_letters

        def convert(match: re.Match[str]) -> str:
            word = match.group()
            capitals = len(word) > 1 and word.isupper()
            letters = []
            typed = self.typed_for if 2 * len(strange.findall(word)) > len(word) else {}
            for letter in word:
                ours = table.get(letter.lower())
                if ours is None:
                    letters.append(typed.get(letter, letter))
                elif letter.isupper():
                    letters.append(self.upper(ours) if capitals else self.upper(ours[:1]) + ours[1:])
                else:
                    letters.append(ours)
            return "".join(letters)

        return self._strange_word.sub(convert, text)

    # ------------------------------------------------------------ keys for matching

    def fold_key(self, text: str) -> str:
        """The words of `text` without differences of case, script and diacritics, joined by single spaces. For matching only.

        ŞƏKİ, şəki, sheki typed as seki and Шәки give the same key in Azerbaijani. Digits are kept (article 1 is not article 2),
        apostrophes inside words are dropped, and all other characters separate words.
        """
        return " ".join(_KEY_WORD.findall(self._folded(text)))

    def fold_lines(self, text: str) -> tuple[str, list[str]]:
        """The fold key of `text` and of each of its lines."""
        if self.strange_letters.search(text):  # look-alikes are read by their context: whole and line may differ
            return self.fold_key(text), [self.fold_key(line) for line in text.split("\n")]
        lines = [" ".join(_KEY_WORD.findall(line)) for line in self._folded(text).split("\n")]
        return " ".join(filter(None, lines)), lines

    def _folded(self, text: str) -> str:
        """`text` with case, script and diacritics folded away."""
        text = text.replace("İ", "i").lower().replace("'", "").replace("’", "")
        if not text.isascii():
            text = nfc(text)
            if self.lookalikes and self.strange_letters.search(text):
                text = self.repair_lookalikes(text)[0]
                if len(self.own_letters.findall(text)) > 10 * len(self.strange_letters.findall(text)):
                    text = self._strange_word.sub(self._as_it_looks, text)  # "p." in a Latin text, typed in Cyrillic
                text = self.transliterate(text)
            for old, new in self.folds.items():
                text = text.replace(old, new)
            if not text.isascii():  # â, é, İ typed as I + dot: drop the remaining marks
                text = _BEYOND_ASCII.sub(_without_marks, text)
        return text

    def _as_it_looks(self, match: re.Match[str]) -> str:
        word = match.group()
        return "".join(self.lookalikes[letter] for letter in word) if all(map(self.lookalikes.__contains__, word)) else word

    # ------------------------------------------------------------ repair

    @cached_property
    def space_repairs(self) -> tuple[tuple[str, Callable[[str], tuple[str, int]]], ...]:
        """(rule, repair) for split and joined words; empty for a language without a word list."""
        if self.words is None:
            return ()
        from language.spacing import spacing_of

        own = spacing_of(self)
        return ("broken_word", own.join_broken), ("split_word", own.join_split), ("glued_word", own.split_glued)

    @cached_property
    def _suspect(self) -> re.Pattern[str]:
        # Text of only these characters, without doubled spaces or spaces at line ends, needs no rule: one scan is enough.
        letters = {letter for letter in self.alphabet + self.alphabet_upper if letter > "\x7f"}
        plain = "".join(sorted(letters)) + self.plain_signs
        pattern = rf"[^\n -~{re.escape(plain)}]|  |\n | \n|`|\n\n"
        if self.own_letters.pattern == CYRILLIC_LETTERS:  # here a mixed word consists of plain letters
            pattern += rf"|[A-Za-z](?={CYRILLIC_LETTERS})|(?<={CYRILLIC_LETTERS})[A-Za-z]"
        return re.compile(pattern)

    def normalise(self, text: str) -> tuple[str, dict[str, int]]:
        """Repair how a text was typed or stored; returns (text, characters changed by each rule that changed any).

        Rules of all languages: marks (more than MOST_MARKS on one letter), nfc, line_end, dropped (controls, soft hyphen,
        zero width), space (other spaces, doubled spaces, spaces at line ends, more than one blank line). Rules of the pack:
        dot_above (i + U+0307), those of `unified` (Azerbaijani: schwa, cedilla, apostrophe, quote, dash) and lookalike
        (letters of another script in our words). A second call changes nothing.
        """
        if not self._suspect.search(text):
            return text.strip(" \n"), {}
        counts: dict[str, int] = {}

        def note(rule: str, number: int) -> None:
            if number:
                counts[rule] = counts.get(rule, 0) + number

        if not text.isprintable():  # what these two rules look for is not printable, and neither is \n
            text, number = _LINE_END.subn("\n", text)
            note("line_end", number)
            text, number = _DROPPED.subn("", text)
            note("dropped", number)
        if not text.isascii():
            bounded = bound_marks(text)
            note("marks", len(text) - len(bounded))
            text = bounded
        if (composed := nfc(text)) != text:
            note("nfc", max(1, len(text) - len(composed)))
            text = composed
        if self.dotted_i and DOT_ABOVE in text:
            text, number = _DOTTED.subn(lambda match: "i" if match.group()[0] in DOTTED_SMALL else "", text)
            note("dot_above", number)
            text = unicodedata.normalize("NFC", text)  # a further mark may now meet its letter
        if "\u200c" in text or "\u200d" in text:
            text, number = _JOINER.subn("", text)
            note("dropped", number)
            text = nfc(text)
        for rule, table in self.unified.items():
            for old, new in table.items():
                if old in text:
                    note(rule, text.count(old))
                    text = text.replace(old, new)
        text, number = self.repair_lookalikes(text)
        note("lookalike", number)
        text, number = _ODD_SPACE.subn(" ", text)
        note("space", number)
        for signs, pattern, new in (
            (("  ",), _SPACES, " "),
            ((" \n", "\n "), _SPACE_AT_END, "\n"),
            (("\n\n\n",), _BLANK_LINES, "\n\n"),
        ):
            if any(sign in text for sign in signs):
                before = len(text)
                text = pattern.sub(new, text)
                note("space", before - len(text))
        return text.strip(" \n"), counts


def _without_marks(match: re.Match[str]) -> str:
    apart = unicodedata.normalize("NFKD", bound_marks(match.group())).lower()
    return "".join(letter for letter in apart if not unicodedata.combining(letter) and letter not in _UNSEEN)


# ---------------------------------------------------------------- which language


def one_language(artefacts: Mapping[str, "str | Language | None"], remedy: str) -> Language | None:
    """The language of artefacts that belong together, {description: language}; None if none of them names one.

    Raises UserError, with the language of each and the `remedy`, if they name different ones.
    """
    known = {what: load_language(getattr(said, "name", said)) for what, said in artefacts.items() if said}
    if len(set(known.values())) > 1:
        raise UserError(f"{', '.join(f'{what}: {language.name}' for what, language in known.items())}. {remedy}")
    return next(iter(known.values()), None)


# ---------------------------------------------------------------- finding a pack


def script_name(code: str) -> str:
    """Latin for Latn; the code itself for a script without an entry here."""
    return SCRIPT_NAMES.get(code, code).capitalize()


def load_language(name: str) -> Language:
    """The pack of a language by its name (turkish) or code (tr, tur): LANGUAGE of language/NAME.py.

    Folders named `language` elsewhere on PYTHONPATH are searched too, so a pack need not lie in this project. Raises
    UserError for a language without a pack and lists the packs.
    """
    return _load(str(name))


@cache
def _load(name: str) -> Language:
    found = packs()
    name = next((own for own, codes in found.items() if name.lower() in (own, *codes)), name)
    if name not in found:
        raise UserError(
            f"language={name}: no pack of this name or code. There are {', '.join(found)}. Take generic for any other "
            "language, or write language/NAME.py (docs/languages.md)."
        )
    pack = importlib.import_module(f"language.{name}").LANGUAGE
    if not isinstance(pack, Language) or pack.name != name:
        raise UserError(f"language/{name}.py: LANGUAGE must be a Language with name={name!r}. Correct the file.")
    return pack


@cache
def packs() -> dict[str, tuple[str, ...]]:
    """Names of all packs with their codes, read from the files that assign LANGUAGE without running them."""
    import language

    found: dict[str, tuple[str, ...]] = {}
    for folder in language.__path__:
        for path in sorted(Path(folder).glob("*.py")):
            text = path.read_text(encoding="utf-8")
            if not re.search(r"^LANGUAGE = Language\(", text, re.MULTILINE):
                continue
            call = next(node for node in ast.parse(text).body if isinstance(node, ast.Assign) and _is_pack(node)).value
            codes = [word.value for word in call.keywords if word.arg in ("code", "code3")]  # type: ignore[attr-defined]
            found.setdefault(path.stem, tuple(code.value for code in codes if isinstance(code, ast.Constant)))
    return found


def _is_pack(node: ast.Assign) -> bool:
    return isinstance(node.targets[0], ast.Name) and node.targets[0].id == "LANGUAGE"
