"""Text that was decoded with the wrong table (É™ or Й™ for ə), put right where that is certain.

UTF-8 read as cp1252, cp1254, cp1251, cp1250 or latin-1 is found by going back: a run of characters is encoded with each
table and must then be valid UTF-8 that gives letters of our text. Chance hardly does that: every character beyond ASCII
of the run has to fit. What is left and looks wrong goes to ftfy, line by line, with all but its decoding turned off.
"""

import re

# The first byte of a UTF-8 letter and the one after it, as the five tables show them (undefined bytes as controls).
_TABLES = ("cp1252", "cp1254", "cp1251", "cp1250")
_LEADS = bytes([*range(0xC2, 0xD2), *range(0xE1, 0xE4), 0xEF, 0xF0])
_FOLLOWS = bytes(range(0x80, 0xC0))


def _sloppy(table: str) -> str:
    """The 128 characters of the bytes 0x80 to 0xFF; a byte that the table leaves undefined is the control of that number."""
    return "".join(bytes([byte]).decode(table, errors="ignore") or chr(byte) for byte in range(0x80, 0x100))


_DECODED = {**{table: _sloppy(table) for table in _TABLES}, "latin-1": "".join(map(chr, range(0x80, 0x100)))}
_ENCODE = {table: {ord(letter): byte for byte, letter in enumerate(letters, 0x80)} for table, letters in _DECODED.items()}


def _class(bytes_: bytes, letters: str) -> str:
    return "".join(sorted({letters[byte - 0x80] for byte in bytes_}))


_PAIR = re.compile("|".join(
    f"[{re.escape(_class(_LEADS, letters))}][{re.escape(_class(_FOLLOWS, letters))}]" for letters in _DECODED.values()
))  # fmt: skip
# One search for any first byte before any following one: nearly every text ends here.
_MAY_PAIR = re.compile(
    f"[{re.escape(''.join(_class(_LEADS, letters) for letters in _DECODED.values()))}]"
    f"[{re.escape(''.join(_class(_FOLLOWS, letters) for letters in _DECODED.values()))}]"
)
_BEYOND = re.compile(r"[^\x00-\x7f]+")
# What ftfy is asked about: sequences that our tables show for letters and marks of European text.
_STILL = re.compile(r"[ÂÃÄÅ][\x80-\x9f\u00a0-\u00bf€‚„…†‡‰‹›‘’“”•–—™œžŸŒŽŠš]|â€|Ð[\u0080-\u00bf]|�")
LONGEST_LINE = 10_000  # characters; ftfy takes 0.3 s a megabyte
# UTF-8 of one letter as the Latin tables show it. Not cp1251: Гњ begins Cyrillic words.
_SEQUENCES = [
    re.compile("|".join(
        f"[{re.escape(_class(bytes(leads), letters))}][{re.escape(_class(_FOLLOWS, letters))}]{{{more}}}"
        for leads, more in ((range(0xC2, 0xD2), 1), (range(0xE1, 0xF0), 2), ([0xF0], 3))
    ))
    for table, letters in _DECODED.items() if table != "cp1251"
]  # fmt: skip
_RUN = re.compile(r"[^\t\n\r -~][^\t\n\r ]*")  # from a character beyond ASCII to the next plain space
# What a repair may give: letters of Western Europe and of the Turkic Latin alphabets, Cyrillic, punctuation, signs, emoji.
# Not all of Latin: Äş and Çž stand in Turkmen words and would be ĺ and Ǟ.
_EXPECTED = re.compile(
    r"[\u00a0-\u00ffƏəǝĞğİıŞşŇňŽžČčŠšĆćĐđŁł\u02bc\u0300-\u0327\u0400-\u052f\u2010-\u203a\u20a0-\u20bf№™\u2190-\u27bf\ufe0f\ufeff"
    r"\U0001f000-\U0001faff]*"
)


def mend_mojibake(text: str) -> tuple[str, int]:
    """(text, characters mended). Twice-decoded text is put right in both steps."""
    total = 0
    for _ in range(3):
        if text.isascii() or not _MAY_PAIR.search(text) or not _PAIR.search(text):
            break
        mended, number = _mend_once(text)
        if not number:
            break
        text, total = mended, total + number
    return text, total


def _mend_once(text: str) -> tuple[str, int]:
    number = 0

    def mend(match: re.Match) -> str:
        nonlocal number
        run = match.group()
        if not _PAIR.search(run):
            return run
        mended = _decode(run)
        if mended is None:  # a quotation mark that was decoded rightly may stand beside: the odd stretches alone
            mended = _BEYOND.sub(_decode_stretch, run)
        if mended == run or (run == "É™" and text[match.start() - 1 : match.start()].isupper()):
            return run  # NESCAFÉ™ is a name; a small ə does not follow a capital at the end of a word
        number += len(run) - len(mended)
        return mended

    text = _RUN.sub(mend, text)
    if _STILL.search(text):
        lines = text.split("\n")
        for at, line in enumerate(lines):
            if _STILL.search(line) and len(line) <= LONGEST_LINE:
                lines[at] = _ask_ftfy(line)
                number += line != lines[at]
        text = "\n".join(lines)
    return text, number


def _decode_stretch(match: re.Match) -> str:
    """One stretch of characters beyond ASCII: as a whole, or each sequence that one of the Latin tables shows."""
    stretch = match.group()
    whole = _decode(stretch)
    if whole is not None:
        return whole
    for sequence in _SEQUENCES:
        mended = sequence.sub(lambda part: _decode(part.group()) or part.group(), stretch)
        if mended != stretch:
            return mended
    return stretch


def _ask_ftfy(line: str) -> str:
    """The line as ftfy decodes it; the line itself where that loses a character."""
    import ftfy

    if not ftfy.badness.is_bad(line):
        return line
    keep = dict.fromkeys(
        ("unescape_html", "remove_terminal_escapes", "fix_latin_ligatures", "fix_character_width", "uncurl_quotes",
         "fix_line_breaks", "fix_surrogates", "remove_control_chars", "fix_c1_controls"), False,
    )  # fmt: skip
    mended = ftfy.fix_encoding(line, ftfy.TextFixerConfig(normalization=None, **keep))
    return line if "\ufffd" in mended or "\n" in mended else mended


def _decode(run: str) -> str | None:
    """`run` read again as UTF-8 through the first table that allows it; None when none does."""
    for codes in _ENCODE.values():
        try:
            content = bytes(ord(letter) if letter < "\x80" else codes[ord(letter)] for letter in run)
            mended = content.decode()
        except (KeyError, UnicodeDecodeError):
            continue
        beyond = "".join(letter for letter in mended if letter >= "\x80")
        if beyond and len(mended) < len(run) and _EXPECTED.fullmatch(beyond):
            return mended
    return None
