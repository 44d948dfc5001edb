"""What formats leave behind in text: entities, tags, wiki markup; then the language's own normaliser.

`python -m corpus.clean < lines` prints the cleaned text line by line.

Every rule is conservative, because in a technical text markup is the subject: only tags that format text are dropped
(<br>, <p>, ... but not <input> or <branch>), and wiki rules run only where wiki markup is certain. Cleaning a second
time changes nothing.
"""

import html
import re
import sys

from language.azerbaijani import normalise

_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,30}|#\d{1,7}|#[xX][0-9a-fA-F]{1,6});")
_BLOCK_TAG = re.compile(r"</?(?:br|p|div|li|ul|ol|tr|table|h[1-6]|hr|blockquote)(?:\s[^<>]{0,300})?/?>", re.IGNORECASE)
_INLINE_TAG = re.compile(
    r"</?(?:b|i|u|em|strong|span|font|center|sup|sub|small|big|a|td|th|tbody|nowiki|ref|img)(?:\s[^<>]{0,300})?/?>",
    re.IGNORECASE,
)
_SCRIPT = re.compile(r"<(script|style)\b[^<>]{0,300}>.{0,20000}?</\1\s*>|<!--.{0,20000}?-->", re.IGNORECASE | re.DOTALL)

_IS_WIKI = re.compile(r"\[\[:?[^\W\d_][^\[\]\n]{0,200}\]\]|\{\| ?class=|\b(?:thumb|miniatür|mini)\|")
_FILE = re.compile(
    r"\[\[(?:Fayl|Şəkil|File|Image|Kateqoriya|Category):[^\[\]]*(?:\[\[[^\[\]]*\]\][^\[\]]*)*\]\]", re.IGNORECASE
)
_LINK = re.compile(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]")
_TEMPLATE = re.compile(r"\{\{[^{}]*\}\}")
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
_HEADING = re.compile(r"^(={2,6}) *([^=\n]+?) *\1 *$", re.MULTILINE)
_EMPHASIS = re.compile(r"'{2,5}([^'\n]+)'{2,5}")
# A biography whose template was dropped begins "() — ": the parentheses held the dates or the pronunciation.
_EMPTY_PARENTHESES = re.compile(r"(?:^|(?<=\s))\([ ,;]{0,9}\) ?(?=[—–-] )", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{2,}")
PASSES = 8


def clean_text(text: str) -> tuple[str, dict[str, int]]:
    """Cleaned text with one \\n between paragraphs, and how often each rule acted (see also `normalise`)."""
    counts: dict[str, int] = {}
    for _ in range(PASSES):  # &amp;lt;br&amp;gt; is common: what one pass uncovers, the next one cleans
        before = sum(counts.values())
        text = _clean_once(text, counts)
        if sum(counts.values()) == before:
            break
    return text, counts


def _clean_once(text: str, counts: dict[str, int]) -> str:
    def note(rule: str, number: int) -> None:
        if number:
            counts[rule] = counts.get(rule, 0) + number

    if "&" in text:
        plain = _ENTITY.sub(_unescape, text)
        if plain != text:
            note("entity", len(_ENTITY.findall(text)))
            text = plain
    if "<" in text:
        for pattern, new in ((_SCRIPT, " "), (_BLOCK_TAG, "\n"), (_INLINE_TAG, "")):
            text, number = pattern.subn(new, text)
            note("tag", number)
    if "|" in text or "[[" in text:
        text = _drop_wiki(text, note)
    if ")" in text:
        text, number = _EMPTY_PARENTHESES.subn("", text)
        note("wiki", number)
    text, more = normalise(text)
    if "\n\n" in text:
        text, number = _BLANK_LINES.subn("\n", text)
        note("space", number)
    for rule, number in more.items():
        note(rule, number)
    return text


def _unescape(match: re.Match) -> str:
    plain = html.unescape(match.group())
    # html.unescape gives U+FFFD for code points that do not exist: the entity says more than that.
    return match.group() if "\ufffd" in plain else plain


def _drop_wiki(text: str, note) -> str:
    if not _IS_WIKI.search(text):
        return text
    for pattern, new in ((_TEMPLATE, ""), (_TEMPLATE, ""), (_TEMPLATE, ""), (_FILE, ""), (_LINK, r"\1"), (_PICTURE, ""),
                         (_CATEGORY, ""), (_HEADING, r"\2"), (_EMPHASIS, r"\1")):  # fmt: skip
        text, number = pattern.subn(new, text)
        note("wiki", number)
    if "{|" in text or "|-" in text:
        for pattern in (_ATTRIBUTE, _TABLE_MARK):
            text, number = pattern.subn(" ", text)
            note("wiki", number)
    return text


def main() -> None:
    """Clean standard input line by line; a line stays one line."""
    for line in sys.stdin.buffer:
        text, _ = clean_text(line.decode("utf-8", errors="replace"))
        sys.stdout.write(text.replace("\n", " ") + "\n")


if __name__ == "__main__":
    main()
