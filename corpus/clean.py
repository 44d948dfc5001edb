"""Cleaning of what formats leave in text (wrong decoding, entities, tags, wiki markup, PDF spaces), then normalisation.

    python -m corpus.clean [--language azerbaijani] < lines      the cleaned text, line by line

Every rule is conservative, because a technical text may discuss markup: only tags that format text are dropped (<br>, <p>,
... but not <input> or <branch>), and wiki rules run only where wiki markup is certain. Cleaning a second time changes
nothing. Every rule takes time linear in the text.
"""

import argparse
import html
import os
import re
import sys
from functools import cache
from typing import NamedTuple

from common.errors import command
from corpus.cleaning.mojibake import repair_mojibake
from language.base import Language, load_language

_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")
_AMPERSANDS = re.compile(r"&(?:(?:amp|#0{0,5}38|#[xX]0{0,4}26);)+")  # &amp;amp;amp; in one step
_BLOCK_TAG = re.compile(r"</?(?:br|p|div|li|ul|ol|tr|table|h[1-6]|hr|blockquote)(?:\s[^<>]{0,300})?/?>", re.IGNORECASE)
_INLINE_TAG = re.compile(
    r"</?(?:b|i|u|em|strong|span|font|center|sup|sub|small|big|a|td|th|tbody|nowiki|ref|img)(?:\s[^<>]{0,300})?/?>",
    re.IGNORECASE,
)
# Elements that are dropped with their content; an end tag farther away than HIDDEN characters does not count.
_OPENING = re.compile(r"<(script|style)\b[^<>]{0,300}>|<!--", re.IGNORECASE)
_CLOSING = {
    "script": re.compile(r"</script\s*>", re.IGNORECASE),
    "style": re.compile(r"</style\s*>", re.IGNORECASE),
    "": re.compile("-->"),
}
HIDDEN = 20_000

_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_BRACES = re.compile(r"\{\{|\}\}")
_ATTRIBUTE = re.compile(
    r"\b(?:style|class|align|valign|width|height|border|cellpadding|cellspacing|bgcolor|colspan|rowspan|scope)"
    r"\s*=\s*(?:\"[^\"\n]*\"|'[^'\n]*'|[\w#%]+)",
    re.IGNORECASE,
)
_TABLE_MARK = re.compile(r"\{\||\|\}|\|[-+]+|\|\||^[|!] ?", re.MULTILINE)
_HEADING = re.compile(r"^(={2,6})([^=\n]+)\1 *$", re.MULTILINE)
_EMPHASIS = re.compile(r"'{2,5}([^'\n]+)'{2,5}")


class _Wiki(NamedTuple):
    """Patterns with words of a language's Wikipedia, in addition to MediaWiki's English ones."""

    certain: re.Pattern[str]  # occurs only in wikitext
    file: re.Pattern[str]
    picture: re.Pattern[str]
    category: re.Pattern[str]


@cache
def _wiki(language: Language) -> _Wiki:
    names = language.wiki
    files, thumbs, sides = (
        "|".join(map(re.escape, words))
        for words in (
            (*names.files, *names.categories, "file", "image", "category"),
            ("thumb", "mini", *names.thumbs),
            names.sides,
        )
    )
    categories = "|".join(re.escape(language.upper(word[0]) + word[1:]) for word in (*names.categories, "category"))
    places = "|".join(filter(None, (thumbs, "left|right|center", sides, r"upright(?:=[\d.]+)?", r"\d+ ?(?:px|pks)")))
    return _Wiki(
        re.compile(rf"\[\[:?[^\W\d_][^\[\]\n]{{0,200}}\]\]|\{{\| ?class=|\b(?:{thumbs})\|"),
        re.compile(rf"\[\[(?:{files}):[^\[\]]*(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]", re.IGNORECASE),
        re.compile(rf"\b(?:(?:{places})\|)+"),
        re.compile(rf"^(?:{categories}):[^\n]*$", re.MULTILINE),
    )


# A biography whose template was dropped begins "() — ": dates or pronunciation were in the parentheses.
_EMPTY_PARENTHESES = re.compile(r"(?:^|(?<=\s))\([ ,;]{0,9}\) ?(?=[—–-] )", re.MULTILINE)
_HOLLOW = re.compile(r"\([ ,;]{0,9}\)")
_BLANK_LINES = re.compile(r"\n{2,}")
PASSES = 8  # each pass cleans what the one before uncovered; in the last a dropped tag leaves a space, which uncovers nothing
MOST_PASSES = 64
GENERIC = load_language("generic")


def clean_text(text: str, language: Language = GENERIC) -> tuple[str, dict[str, int]]:
    """Cleaned text with one \\n between paragraphs, and the count of each rule that changed it (see `Language.normalise`).

    Rules: mojibake, entity, tag, wiki, split_word (spaces inside words), broken_word (at line ends), glued_word, and those
    of `Language.normalise`. Removing spaces and line breaks at both ends is not counted.
    """
    counts: dict[str, int] = {}
    text = text.strip(" \n")
    for turn in range(MOST_PASSES):
        before = sum(counts.values())
        text = _clean_once(text, counts, "" if turn < PASSES else " ", language)
        if sum(counts.values()) == before:
            break
    return text, counts


def _clean_once(text: str, counts: dict[str, int], gap: str, language: Language) -> str:
    def note(rule: str, number: int) -> None:
        if number:
            counts[rule] = counts.get(rule, 0) + number

    if not text.isascii():
        text, number = repair_mojibake(text, language)
        note("mojibake", number)
    if "&" in text:
        plain = _ENTITY.sub(_unescape, _AMPERSANDS.sub("&", text))
        if plain != text:
            note("entity", len(_ENTITY.findall(text)))
            text = plain
    if "<" in text:
        text, number = _drop_hidden(text)
        note("tag", number)
        for pattern, new in ((_BLOCK_TAG, "\n"), (_INLINE_TAG, gap)):
            text, number = pattern.subn(new, text)
            note("tag", number)
    if "|" in text or "[[" in text:
        text = _drop_wiki(text, note, language)
    if _HOLLOW.search(text):
        text, number = _EMPTY_PARENTHESES.subn("", text)
        note("wiki", number)
    for rule, repair in language.space_repairs:
        text, number = repair(text)
        note(rule, number)
    text, more = language.normalise(text)
    if "\n\n" in text:
        text, number = _BLANK_LINES.subn("\n", text)
        note("space", number)
    for rule, number in more.items():
        note(rule, number)
    return text


def _drop_hidden(text: str) -> tuple[str, int]:
    """(text without scripts, styles and comments, number removed). An end tag is searched once, however many begin."""
    kept, at, dropped = [], 0, 0
    ends: dict[str, re.Match | None] = {}
    for opening in _OPENING.finditer(text):
        if opening.start() < at:
            continue
        name = (opening.group(1) or "").lower()
        end = ends.get(name)
        if name not in ends or (end is not None and end.start() < opening.end()):
            end = ends[name] = _CLOSING[name].search(text, opening.end())
        if end is not None and end.start() - opening.end() <= HIDDEN:
            kept += [text[at : opening.start()], " "]
            at = end.end()
            dropped += 1
    return "".join([*kept, text[at:]]) if dropped else text, dropped


def _unescape(match: re.Match) -> str:
    plain = html.unescape(match.group())
    # html.unescape gives U+FFFD for code points that do not exist; the entity itself carries more information.
    return match.group() if "\ufffd" in plain else plain


def _drop_wiki(text: str, note, language: Language) -> str:
    wiki = _wiki(language)
    if not wiki.certain.search(text):
        return text
    text, number = _drop_templates(text)
    note("wiki", number)
    for pattern, new in (
        (wiki.file, ""),
        (_LINK, r"\1"),
        (wiki.picture, ""),
        (wiki.category, ""),
        (_EMPHASIS, r"\1"),
        (_HEADING, lambda match: match.group(2).strip()),
    ):
        text, number = pattern.subn(new, text)
        note("wiki", number)
    if "{|" in text or "|-" in text:
        for pattern in (_ATTRIBUTE, _TABLE_MARK):
            text, number = pattern.subn(" ", text)
            note("wiki", number)
    return text


def _drop_templates(text: str) -> tuple[str, int]:
    """(text without {{...}}, number of outermost templates removed), at any depth of nesting."""
    opened: list[int] = []
    spans: list[tuple[int, int]] = []
    for brace in _BRACES.finditer(text):
        if brace.group() == "{{":
            opened.append(brace.start())
        elif opened:
            begin = opened.pop()
            while spans and spans[-1][0] > begin:
                spans.pop()
            spans.append((begin, brace.end()))
    if not spans:
        return text, 0
    kept, at = [], 0
    for begin, end in spans:
        kept.append(text[at:begin])
        at = end
    return "".join([*kept, text[at:]]), len(spans)


@command
def main() -> None:
    """Clean standard input line by line; each line gives one line."""
    parser = argparse.ArgumentParser(prog="python -m corpus.clean", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--language", default="generic", help="of the text: name or code of a pack in language/ (generic)")
    language = load_language(parser.parse_args().language)
    try:
        for line in sys.stdin.buffer:
            text, _ = clean_text(line.decode("utf-8", errors="replace"), language)
            sys.stdout.write(text.replace("\n", " ") + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, head say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
