"""What formats leave behind in text: wrong decoding, entities, tags, wiki markup, PDF spaces; then the normaliser.

`python -m corpus.clean < lines` prints the cleaned text line by line.

Every rule is conservative, because in a technical text markup is the subject: only tags that format text are dropped
(<br>, <p>, ... but not <input> or <branch>), and wiki rules run only where wiki markup is certain. Cleaning a second
time changes nothing. Every rule takes time in proportion to the text, whatever the text is.
"""

import html
import re
import sys

from corpus.mojibake import mend_mojibake
from language.azerbaijani import normalise
from language.spacing import join_broken, mend_spaces, split_glued

_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")
_AMPERSANDS = re.compile(r"&(?:(?:amp|#0{0,5}38|#[xX]0{0,4}26);)+")  # &amp;amp;amp; in one step
_BLOCK_TAG = re.compile(r"</?(?:br|p|div|li|ul|ol|tr|table|h[1-6]|hr|blockquote)(?:\s[^<>]{0,300})?/?>", re.IGNORECASE)
_INLINE_TAG = re.compile(
    r"</?(?:b|i|u|em|strong|span|font|center|sup|sub|small|big|a|td|th|tbody|nowiki|ref|img)(?:\s[^<>]{0,300})?/?>",
    re.IGNORECASE,
)
# What is dropped with all that it holds; an end farther away than HIDDEN characters is none of it.
_OPENING = re.compile(r"<(script|style)\b[^<>]{0,300}>|<!--", re.IGNORECASE)
_CLOSING = {
    "script": re.compile(r"</script\s*>", re.IGNORECASE),
    "style": re.compile(r"</style\s*>", re.IGNORECASE),
    "": re.compile("-->"),
}
HIDDEN = 20_000

_IS_WIKI = re.compile(r"\[\[:?[^\W\d_][^\[\]\n]{0,200}\]\]|\{\| ?class=|\b(?:thumb|miniatür|mini)\|")
_FILE = re.compile(
    r"\[\[(?:Fayl|Şəkil|File|Image|Kateqoriya|Category):[^\[\]]*(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]", re.IGNORECASE
)
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_BRACES = re.compile(r"\{\{|\}\}")
_PICTURE = re.compile(
    r"\b(?:(?:thumb|miniatür|mini|left|right|center|sağda|solda|sağ|sol|upright(?:=[\d.]+)?|\d+ ?(?:px|pks))\|)+"
)
_ATTRIBUTE = re.compile(
    r"\b(?:style|class|align|valign|width|height|border|cellpadding|cellspacing|bgcolor|colspan|rowspan|scope)"
    r"\s*=\s*(?:\"[^\"\n]*\"|'[^'\n]*'|[\w#%]+)",
    re.IGNORECASE,
)
_TABLE_MARK = re.compile(r"\{\||\|\}|\|[-+]+|\|\||^[|!] ?", re.MULTILINE)
_CATEGORY = re.compile(r"^(?:Kateqoriya|Category):[^\n]*$", re.MULTILINE)
_HEADING = re.compile(r"^(={2,6})([^=\n]+)\1 *$", re.MULTILINE)
_EMPHASIS = re.compile(r"'{2,5}([^'\n]+)'{2,5}")
# A biography whose template was dropped begins "() — ": the parentheses held the dates or the pronunciation.
_EMPTY_PARENTHESES = re.compile(r"(?:^|(?<=\s))\([ ,;]{0,9}\) ?(?=[—–-] )", re.MULTILINE)
_HOLLOW = re.compile(r"\([ ,;]{0,9}\)")
_BLANK_LINES = re.compile(r"\n{2,}")
PASSES = 8  # what one pass uncovers, the next one cleans; from then on a dropped tag leaves a space, which uncovers nothing
MOST_PASSES = 64


def clean_text(text: str) -> tuple[str, dict[str, int]]:
    """Cleaned text with one \\n between paragraphs, and how often each rule acted (see also `normalise`).

    Rules: mojibake, entity, tag, wiki, split_word (spaces inside words), broken_word (at line ends), glued_word, and those
    of `normalise`. No rule acted, no count: then only spaces and line breaks at both ends may have gone.
    """
    counts: dict[str, int] = {}
    text = text.strip(" \n")
    for turn in range(MOST_PASSES):
        before = sum(counts.values())
        text = _clean_once(text, counts, "" if turn < PASSES else " ")
        if sum(counts.values()) == before:
            break
    return text, counts


def _clean_once(text: str, counts: dict[str, int], gap: str) -> str:
    def note(rule: str, number: int) -> None:
        if number:
            counts[rule] = counts.get(rule, 0) + number

    if not text.isascii():
        text, number = mend_mojibake(text)
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
        text = _drop_wiki(text, note)
    if _HOLLOW.search(text):
        text, number = _EMPTY_PARENTHESES.subn("", text)
        note("wiki", number)
    for rule, mend in (("broken_word", join_broken), ("split_word", mend_spaces), ("glued_word", split_glued)):
        text, number = mend(text)
        note(rule, number)
    text, more = normalise(text)
    if "\n\n" in text:
        text, number = _BLANK_LINES.subn("\n", text)
        note("space", number)
    for rule, number in more.items():
        note(rule, number)
    return text


def _drop_hidden(text: str) -> tuple[str, int]:
    """(text without scripts, styles and comments, how many went). An end is looked for once, however many begin."""
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
    # html.unescape gives U+FFFD for code points that do not exist: the entity says more than that.
    return match.group() if "\ufffd" in plain else plain


def _drop_wiki(text: str, note) -> str:
    if not _IS_WIKI.search(text):
        return text
    text, number = _drop_templates(text)
    note("wiki", number)
    for pattern, new in ((_FILE, ""), (_LINK, r"\1"), (_PICTURE, ""), (_CATEGORY, ""), (_EMPHASIS, r"\1"),
                         (_HEADING, lambda match: match.group(2).strip())):  # fmt: skip
        text, number = pattern.subn(new, text)
        note("wiki", number)
    if "{|" in text or "|-" in text:
        for pattern in (_ATTRIBUTE, _TABLE_MARK):
            text, number = pattern.subn(" ", text)
            note("wiki", number)
    return text


def _drop_templates(text: str) -> tuple[str, int]:
    """(text without {{...}}, how many outermost ones went), however deep they stand in one another."""
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


def main() -> None:
    """Clean standard input line by line; a line stays one line."""
    for line in sys.stdin.buffer:
        text, _ = clean_text(line.decode("utf-8", errors="replace"))
        sys.stdout.write(text.replace("\n", " ") + "\n")


if __name__ == "__main__":
    main()
