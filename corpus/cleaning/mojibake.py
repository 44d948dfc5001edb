"""Repair of text decoded with the wrong table (É™ or Й™ for ə), where the repair is certain.

UTF-8 read as cp1252, cp1254, cp1251, cp1250 or latin-1 is found by reversing the error: a run of characters is encoded with
each table and must then be valid UTF-8 for letters of our text. One such pair may be chance ("Âşık" would become "ºık"), so
a table is accepted only with two supporting sequences in the text (`_believed`). Remaining lines that look wrong go to ftfy,
with everything but its decoding switched off.
"""

import re
from functools import cache

from language.base import Language

# First and second byte of a UTF-8 letter as the five tables show them (undefined bytes as controls).
_TABLES = ("cp1252", "cp1254", "cp1251", "cp1250")
_LEADS = bytes([*range(0xC2, 0xD2), *range(0xE1, 0xE4), 0xEF, 0xF0])
_FOLLOWS = bytes(range(0x80, 0xC0))


def _sloppy(table: str) -> str:
    """The 128 characters of the bytes 0x80 to 0xFF; an undefined byte becomes the control character of that number."""
    return "".join(bytes([byte]).decode(table, errors="ignore") or chr(byte) for byte in range(0x80, 0x100))


_DECODED = {**{table: _sloppy(table) for table in _TABLES}, "latin-1": "".join(map(chr, range(0x80, 0x100)))}
_ENCODE = {table: {ord(letter): byte for byte, letter in enumerate(letters, 0x80)} for table, letters in _DECODED.items()}


def _class(bytes_: bytes, letters: str) -> str:
    return "".join(sorted({letters[byte - 0x80] for byte in bytes_}))


_PAIR = re.compile(
    "|".join(f"[{re.escape(_class(_LEADS, letters))}][{re.escape(_class(_FOLLOWS, letters))}]" for letters in _DECODED.values())
)
# One search for any first byte before any second byte; in nearly every text it finds nothing and the work ends here.
_MAY_PAIR = re.compile(
    f"[{re.escape(''.join(_class(_LEADS, letters) for letters in _DECODED.values()))}]"
    f"[{re.escape(''.join(_class(_FOLLOWS, letters) for letters in _DECODED.values()))}]"
)
_BEYOND = re.compile(r"[^\x00-\x7f]+")
# When to ask ftfy: sequences that our tables show for letters and marks of European text.
_STILL = re.compile(r"[ÂÃÄÅ][\x80-\x9f\u00a0-\u00bf€‚„…†‡‰‹›‘’“”•–—™œžŸŒŽŠš]|â€|Ð[\u0080-\u00bf]|�")
LONGEST_LINE = 10_000  # characters; ftfy takes 0.3 s a megabyte
# The UTF-8 bytes of one letter as each table shows them.
_SEQUENCES = {
    table: re.compile(
        "|".join(
            f"[{re.escape(_class(bytes(leads), letters))}][{re.escape(_class(_FOLLOWS, letters))}]{{{more}}}"
            for leads, more in ((range(0xC2, 0xD2), 1), (range(0xE1, 0xF0), 2), ([0xF0], 3))
        )
    )
    for table, letters in _DECODED.items()
}
_RUN = re.compile(r"[^\t\n\r -~][^\t\n\r ]*")  # from a character beyond ASCII to the next plain space
# Typographic marks also follow letters in clean text: DAĞ”, М—156. A sequence with another sign in it indicates damage.
_USUAL_SIGNS = frozenset("‘’“”„‚…–—‹›«»·№")
AGREEING = 2  # supporting sequences that a table needs


@cache
def _expected(language: Language) -> re.Pattern[str]:
    """Characters that a repair may produce: letters of Western Europe and of the language, Cyrillic, punctuation, emoji.

    Not all of Latin: Äş and Çž occur in Turkmen words and would become ĺ and Ǟ.
    """
    return re.compile(
        rf"[\u00a0-\u00ff{re.escape(language.mojibake_letters)}\u02bc\u0300-\u0327\u0400-\u052f\u2010-\u203a\u20a0-\u20bf№™"
        r"\u2190-\u27bf\ufe0f\ufeff\U0001f000-\U0001faff]*"
    )


def repair_mojibake(text: str, language: Language) -> tuple[str, int]:
    """(text, characters repaired). Text that was decoded wrongly twice is repaired in two steps."""
    total = 0
    tables: list[str] = []  # a table that one step proves is accepted in the next
    for _ in range(3):
        if text.isascii() or not _MAY_PAIR.search(text) or not _PAIR.search(text):
            break
        repaired, number = _repair_once(text, language, tables)
        if not number:
            break
        text, total = repaired, total + number
    return text, total


def _believed(text: str, expected: re.Pattern[str]) -> list[str]:
    """The tables with AGREEING supporting sequences, or with one that contains a control, which no clean text has.

    A supporting sequence gives an expected letter, contains a character that is not a letter, and stands where a capital or
    sign cannot: after a small letter (vÉ™), or at the beginning of a word before one (É™l). NESCAFÉ™, Âşık and DAĞ” do not.
    """
    found = []
    for table, sequence in _SEQUENCES.items():
        agreeing = 0
        for match in sequence.finditer(text):
            letters, before, after = match.group(), text[match.start() - 1 : match.start()], text[match.end() : match.end() + 1]
            if all(letter.isalpha() or letter in _USUAL_SIGNS for letter in letters) or not _decode(letters, [table], expected):
                continue
            if any("\x80" <= letter < "\xa0" for letter in letters):
                agreeing = AGREEING
            agreeing += before.islower() or (not before.isalpha() and after.islower())
            if agreeing >= AGREEING:
                found.append(table)
                break
    return found


def _repair_once(text: str, language: Language, tables: list[str]) -> tuple[str, int]:
    number = 0
    expected = _expected(language)
    tables += [table for table in _believed(text, expected) if table not in tables]

    def repair(match: re.Match[str]) -> str:
        nonlocal number
        run = match.group()
        if not _PAIR.search(run):
            return run
        repaired = _decode(run, tables, expected)
        if repaired is None:  # a correctly decoded quotation mark may be adjacent: try the damaged stretches alone
            repaired = _BEYOND.sub(repair_stretch, run)
        before = text[match.start() - 2 : match.start()]
        if repaired == run or (len(repaired) == 1 and repaired.islower() and len(before) == 2 and before.isupper()):
            return run  # NESCAFÉ™ is a name; no small letter follows two capitals at the end of a word
        number += len(run) - len(repaired)
        return repaired

    def repair_stretch(match: re.Match[str]) -> str:
        """One stretch of characters beyond ASCII: as a whole, or each sequence that one of the Latin tables shows."""
        stretch = match.group()
        whole = _decode(stretch, tables, expected)
        if whole is not None:
            return whole
        for table in tables:
            if table == "cp1251":  # Гњ begins Cyrillic words
                continue
            repaired = _SEQUENCES[table].sub(lambda part: _decode(part.group(), tables, expected) or part.group(), stretch)
            if repaired != stretch:
                return repaired
        return stretch

    if tables:
        text = _RUN.sub(repair, text)
    if _STILL.search(text):
        lines = text.split("\n")
        for at, line in enumerate(lines):
            if _STILL.search(line) and len(line) <= LONGEST_LINE:
                lines[at] = _ask_ftfy(line)
                number += line != lines[at]
        text = "\n".join(lines)
    return text, number


def _ask_ftfy(line: str) -> str:
    """The line as ftfy decodes it, or unchanged if that loses a character."""
    import ftfy

    if not ftfy.badness.is_bad(line):
        return line
    keep = dict.fromkeys(
        (
            "unescape_html",
            "remove_terminal_escapes",
            "fix_latin_ligatures",
            "fix_character_width",
            "uncurl_quotes",
            "fix_line_breaks",
            "fix_surrogates",
            "remove_control_chars",
            "fix_c1_controls",
        ),
        False,
    )
    repaired = ftfy.fix_encoding(line, ftfy.TextFixerConfig(normalization=None, **keep))
    return line if "\ufffd" in repaired or "\n" in repaired else repaired


def _decode(run: str, tables: list[str], expected: re.Pattern[str]) -> str | None:
    """`run` decoded as UTF-8 through the first table that allows it; None if none does."""
    for table in tables:
        codes = _ENCODE[table]
        try:
            content = bytes(ord(letter) if letter < "\x80" else codes[ord(letter)] for letter in run)
            repaired = content.decode()
        except (KeyError, UnicodeDecodeError):
            continue
        beyond = "".join(letter for letter in repaired if letter >= "\x80")
        if beyond and len(repaired) < len(run) and expected.fullmatch(beyond):
            return repaired
    return None
