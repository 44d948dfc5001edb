"""Wikipedia's XML dumps to articles: streamed, with parallel unpacking of multistream bz2 dumps, wikitext to plain text.

Pages are cut out of the XML by their tags and parsed one by one, so that a broken page affects only itself. A multistream
dump is split where its bz2 streams begin (found in the file itself, without the index): a damaged stream loses only its
own pages, and with `workers` the streams are unpacked on several cores in the order of the file.
"""

import bz2
import html
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote
from xml.etree import ElementTree

from corpus.reading.formats import MAX_RECORD, PIECE, RAW_SHOWN, Damage, Record, Reject, meta_of, pieces, shown
from corpus.reading.templates import EQUALS, HOLE, LONGEST, inline_text
from language.base import Language, load_language

BZ2_START = re.compile(rb"BZh[1-9]1AY&SY")  # magic number of a stream and of its first block: 10 bytes, so no chance match
GENERIC = load_language("generic")
MAX_STREAM = 8 << 20  # compressed bytes of a stream that is unpacked ahead; a multistream dump's are about 1 MB
MAX_AHEAD = 16 << 20  # bytes unpacked ahead of one stream; the rest of it is unpacked chunk by chunk
MAX_LINK_DEPTH = 8  # links are nested only in captions of images; deeper ones are hostile or broken

# MediaWiki's English names, which every wiki knows in addition to its own (Language.wiki), in lower case.
_DROPPED = ("file", "image", "media", "category")
_OTHER = ("template", "module", "wikipedia", "portal", "user", "help", "mediawiki", "talk", "special", "topic")
_SECTIONS = ("references", "external links", "see also", "notes", "sources", "further reading", "gallery")
_TAGS = """ref references math chem ce gallery timeline score imagemap hiero templatedata syntaxhighlight source graph
mapframe maplink inputbox includeonly indicator categorytree"""
_DROPPED_TAGS = _TAGS.split()
_LITERAL_TAGS = ["nowiki", "pre"]
_BREAKS = ["br", "p", "div", "li", "tr", "hr", "blockquote", "center", "poem"]

_TOKEN = re.compile(
    r"\{\{|\}\}|\[\[|\]\]|^[ \t:]*(?P<table>\{\|)|^[ \t]*(?P<end>\|\})(?!\})|(?P<comment><!--)|</?(?P<tag>[a-zA-Z]+)\b[^<>]*>",
    re.MULTILINE,
)
_CLOSING = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in _DROPPED_TAGS + _LITERAL_TAGS}
_COMMENT_END = re.compile("-->")
_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]{2,8})*|simple")
_QUOTES = re.compile(r"'{2,}")
_EXTERNAL = re.compile(r"\[(?:(?:https?:|ftp:|mailto:)?//|mailto:)[^\s\[\]]*+([^\[\]\n]*+)\]")  # + after *: never back
_HOLE = re.compile(HOLE)
LINK, LINK_END, MOST_LINKS = 0xF0000, "\ufdd2", 60_000  # a link's mark is LINK + its number, a letter for private use
_MARKS = re.compile(f"[{chr(LINK)}-{chr(LINK + MOST_LINKS)}{LINK_END}]")
# 1990{{–}}1995 is not 19901995, nor where one of them is a link.
_BETWEEN_DIGITS = re.compile(rf"(?<=[0-9{LINK_END}]){HOLE}+(?=[{chr(LINK)}-{chr(LINK + MOST_LINKS)}]?[0-9])")
_EMPTY_BRACKETS = re.compile(r"\([\s,;:–—-]*+\)")
_BESIDE_BRACKET = re.compile(r"(?<=\()[\s,;]*[,;]\s+|(?<![\s,;])[,;]\s[\s,;]*+(?=\))")  # remains of a template between commas
_ENDLESS = re.compile(r"&#(?:0*+[0-9]{8,}+|[xX]0*+[0-9a-fA-F]{7,}+);?")  # no character has such a high number
_ZEROS = re.compile(r"(?<=&#)0+(?=[0-9])")
_SPACES = re.compile(r"[ \t\u00a0]+")
_BEFORE_STOP = re.compile(r" ([,.;)])")


class _Names:
    """Names that a language's Wikipedia uses, in addition to the English ones."""

    def __init__(self, language: Language) -> None:
        wiki = language.wiki
        self.categories = frozenset(("category", *wiki.categories))
        self.dropped = frozenset((*_DROPPED, *wiki.files, *wiki.categories))
        self.namespaces = self.dropped | frozenset((*_OTHER, *wiki.namespaces))
        self.sections = frozenset((*_SECTIONS, *wiki.sections))
        self.redirect = re.compile(rf"\A\s*+#\s*+({'|'.join(map(re.escape, ('redirect', *wiki.redirects)))})\b")
        self.magic = re.compile(rf"__[A-Z{re.escape(language.alphabet_upper)}]+__")


_names = cache(_Names)


class Links:
    """What an article links to: targets in the order of the links' numbers, and the categories that it is in."""

    def __init__(self) -> None:
        self.targets: list[str] = []
        self.categories: list[str] = []


class Article(NamedTuple):
    """An article with its links, or a redirect."""

    line: int  # the page's number in the dump
    title: str
    text: str  # plain; "" for a redirect
    links: list[tuple[int, int, str]]  # first character, one past the last, title of the page that is linked
    categories: list[str]
    redirect: str  # the title that it stands for; "" for an article


def plain_text(wikitext: str, language: Language = GENERIC, links: Links | None = None) -> str:
    """The running text of an article: headings and list items as lines; without tables, notes and images, and without all
    templates except those inside sentences (corpus.reading.templates).

    One pass over the marks with a stack, so the time is linear in the length, whatever is unclosed or nested. With `links` the
    text of link n stands between chr(LINK + n) and LINK_END.
    """
    names = _names(language)
    text = _HOLE.sub("", _BETWEEN_DIGITS.sub(" ", _without_marks(wikitext, language, links))).replace(EQUALS, "=")
    text = _EXTERNAL.sub(lambda match: match[1].strip(), text)
    text = _unescape(names.magic.sub("", _QUOTES.sub("", text)))
    kept: list[tuple[int, str]] = []  # (level of a heading or 0, line)
    dropping = 0  # level of the dropped section
    for raw in text.split("\n"):
        line = raw.strip()
        if line.startswith("=") and line.endswith("=") and len(line) > 2:
            level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")))
            title = line.strip("= \t")
            if dropping and level > dropping:
                continue
            dropping = level if language.lower(title).rstrip(":") in names.sections else 0
            if title and not dropping:
                kept.append((level, title))
            continue
        if dropping or line.startswith(("|", "{|")) or not line.strip("-"):
            continue  # a bar at the start of a line: left from a table or template that was never closed
        whole = _EMPTY_BRACKETS.sub("", _BESIDE_BRACKET.sub("", line.lstrip("*#:; ")))
        whole = _BEFORE_STOP.sub(r"\1", _SPACES.sub(" ", whole)).strip()
        if whole:
            kept.append((0, whole))
    following, lines = 1, []  # headings without text under them are dropped
    for level, line in reversed(kept):
        if not level or following == 0 or following > level:
            lines.append(line)
            following = level
    return "\n".join(reversed(lines))


def _unescape(text: str) -> str:
    """`html.unescape` for untrusted text: Python refuses to read an integer of more than 4,300 digits."""
    return html.unescape(_ZEROS.sub("", _ENDLESS.sub("\ufffd", text)))


def _without_marks(text: str, language: Language, links: Links | None = None) -> str:
    out: list[str] = []
    stack: list[tuple[str, int]] = []  # (kind of the open mark: { [ |, length of `out` where it began)
    standing = {"{": 0, "[": 0, "|": 0}
    unclosed: set[str] = set()  # tags known to be unclosed: not searched again
    at = 0

    def close(kind: str) -> int:
        """End the innermost `kind` together with everything left open inside it; returns where it began."""
        while True:
            top, begin = stack.pop()
            standing[top] -= 1
            if top == kind:
                return begin

    while match := _TOKEN.search(text, at):
        out.append(text[at : match.start()])
        at, token = match.end(), match.group()
        kind = match.lastgroup
        if token == "{{" or kind == "table":
            stack.append(("{" if token == "{{" else "|", len(out)))
            standing[stack[-1][0]] += 1
        elif token == "}}":
            if standing["{"]:
                begin = close("{")
                if "".join(out[begin : begin + 1]).startswith("{") and text.startswith("}", at):
                    at += 1  # {{{a parameter}}}
                    out[begin:] = []
                else:
                    out[begin:] = [_template(out, begin, language)]
        elif kind == "end":
            if standing["|"]:
                del out[close("|") :]
        elif token == "[[":
            if standing["["] < MAX_LINK_DEPTH:
                stack.append(("[", len(out)))
                standing["["] += 1
        elif token == "]]":
            if stack and stack[-1][0] == "[":
                begin = close("[")
                label = _label("".join(out[begin:]), language, links)
                out[begin:] = [label]
        else:
            name = "!--" if kind == "comment" else match["tag"].lower()
            is_open = token[1] != "/" and not token.endswith("/>")
            end = _COMMENT_END if kind == "comment" else _CLOSING.get(name)
            if end and is_open and name not in unclosed:
                found = end.search(text, at)
                if found:
                    out.append(text[at : found.start()] if name in _LITERAL_TAGS else "")
                    at = found.end()
                else:
                    unclosed.add(name)
            elif name in _BREAKS:
                out.append("\n")
    out.append(text[at:])
    return "".join(out)


def _template(out: list[str], begin: int, language: Language) -> str:
    """What a reader sees of the template whose pieces stand in `out` from `begin` on."""
    return (inline_text("".join(out[begin:]), language) if sum(map(len, out[begin:])) <= LONGEST else "") or HOLE


def _label(inside: str, language: Language, links: Links | None = None) -> str:
    """The visible text of [[inside]]: "" for images, categories and links to other languages."""
    names, lower = _names(language), language.lower
    target, bar, _ = inside.partition("|")
    name = target.strip()
    shown_as_link = name.startswith(":")
    name = name.lstrip(": ")
    prefix, colon, page = name.partition(":")
    if colon and not shown_as_link:
        if lower(prefix).strip().replace("_", " ") in names.dropped:
            if links is not None and lower(prefix).strip() in names.categories:
                links.categories.append(page.strip().replace("_", " "))
            return ""
        if not bar and _LANGUAGE.fullmatch(prefix):
            return ""
    label = inside.rpartition("|")[2] if bar else ""
    if label.strip():
        return label if links is None else _numbered(label, name, links)
    if links is not None and not colon:
        return _numbered(name.lstrip("#"), name, links)
    return page if colon and (bar or _LANGUAGE.fullmatch(prefix) or lower(prefix) in names.namespaces) else name.lstrip("#")


def _numbered(label: str, target: str, links: Links) -> str:
    if len(links.targets) >= MOST_LINKS:
        return label
    links.targets.append(target.partition("#")[0].replace("_", " ").strip())
    return f"{chr(LINK + len(links.targets) - 1)}{_MARKS.sub('', label)}{LINK_END}"


def read_linked(path: Path, label: str, language: Language) -> Iterator[Article | Reject]:
    """Each article and redirect of a dump with its links and categories; other pages and faults as `read_wikipedia`."""
    for item in _pages(path, label, 1):
        if isinstance(item, Reject):
            yield item
        elif item[0] > 0:
            page = _page(label, *item, language)
            yield page if isinstance(page, Reject) else _linked(label, item[0], page, language)


def _linked(label: str, line: int, page: ElementTree.Element, language: Language) -> Article | Reject:
    title = (page.findtext("title") or "").strip()
    redirect = page.find("redirect")
    if redirect is not None and redirect.get("title"):
        return Article(line, title, "", [], [], str(redirect.get("title")))
    wikitext, found = _wikitext(page), Links()
    if wikitext is None or redirect is not None or _names(language).redirect.match(language.lower(wikitext[:100])):
        return Reject(label, line, "no_text" if wikitext is None else "redirect", title[:RAW_SHOWN])
    marked = plain_text(_MARKS.sub("", wikitext), language, found)
    text, links, at, begin, number = [], [], 0, -1, 0
    for part in re.split(f"({_MARKS.pattern})", marked):
        if part == LINK_END:
            if 0 <= begin < at:
                links.append((begin, at, found.targets[number]))
            begin = -1
        elif _MARKS.fullmatch(part):
            begin, number = at, ord(part) - LINK
        else:
            text.append(part)
            at += len(part)
    if not at:
        return Reject(label, line, "empty_text", f"{title}: {wikitext}"[:RAW_SHOWN])
    return Article(line, title, "".join(text), links, found.categories, "")


def _wikitext(page: ElementTree.Element) -> str | None:
    """The text of a page's last revision."""
    revision = page.find("revision[last()]")
    return revision.findtext("text") if revision is not None else None


def read_wikipedia(path: Path, label: str, options: dict[str, Any]) -> Iterator[Record | Reject]:
    """Each article of a MediaWiki dump (.xml, .xml.bz2, .gz, .zst), with title, url, date and site in meta.

    `line` is the page's number in the dump (a lost part counts as one). Pages outside the article namespace and redirects
    are rejects with the reasons in EXPECTED. `workers`: threads that unpack the streams of a multistream dump; `language`:
    name of the pack with the wiki's own names, in addition to the English ones.
    """
    base, language = "", load_language(options.get("language", "generic"))
    for item in _pages(path, label, options.get("workers", 1)):
        if isinstance(item, Reject):
            yield item
        elif item[0] == 0:
            base = item[1].decode("utf-8", errors="replace")
        else:
            yield _article(label, item[0], item[1], base, language)


def _page(label: str, line: int, raw: bytes, language: Language) -> ElementTree.Element | Reject:
    """One page of the article namespace."""
    try:
        page = ElementTree.fromstring(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return Reject(label, line, "invalid_utf8", shown(raw))
    except (ElementTree.ParseError, ValueError, RecursionError):
        return Reject(label, line, "not_xml", shown(raw))
    title = (page.findtext("title") or "").strip()
    namespace = page.findtext("ns")
    names = _names(language)
    prefix = language.lower(title.partition(":")[0]) if ":" in title else ""
    if (namespace or "0").strip() != "0" or (namespace is None and prefix in names.namespaces):
        return Reject(label, line, "not_an_article", title[:RAW_SHOWN])
    return page


def _article(label: str, line: int, raw: bytes, base: str, language: Language) -> Record | Reject:
    page = _page(label, line, raw, language)
    if isinstance(page, Reject):
        return page
    title, text = (page.findtext("title") or "").strip(), _wikitext(page)
    names = _names(language)
    if text is None:
        return Reject(label, line, "no_text", title[:RAW_SHOWN])
    if page.find("redirect") is not None or names.redirect.match(language.lower(text[:100])):
        return Reject(label, line, "redirect", title[:RAW_SHOWN])
    plain = plain_text(text, language)
    if not plain:
        return Reject(label, line, "empty_text", f"{title}: {text}"[:RAW_SHOWN])
    url = base.rpartition("/")[0] + "/" + quote(title.replace(" ", "_"), safe="/:,()'!*") if base else ""
    meta = meta_of({"title": title, "url": url, "date": page.findtext("revision[last()]/timestamp")})
    return Record(label, line, plain, page.findtext("id") or None, meta)


def _pages(path: Path, label: str, workers: int) -> Iterator[tuple[int, bytes] | Reject]:
    """(number from 1, one whole <page>...</page>), after (0, the wiki's address) if the dump's head gives it."""
    held = bytearray()  # bytes from which no page has been cut yet
    at, number = 0, 1  # position in `held` where the search continues, and page number
    in_page, too_long, any_dump, ended, damaged = False, False, False, False, False
    for block in _blocks(path, workers):
        if isinstance(block, Damage):
            number += too_long  # that page has its reject already
            yield Reject(label, number, "damaged_file", f"read up to page {number - 1}, then {block}"[:RAW_SHOWN])
            number += 1
            held, at, in_page, too_long, damaged = bytearray(), 0, False, False, True
            continue
        held += block
        start = 0  # of the page, or of the text before it
        while (place := held.find(b"</page>" if in_page else b"<page>", at)) >= 0:
            if in_page:
                at = place + 7
                if not too_long:
                    yield number, bytes(held[start:at])
                number += 1
            else:
                at = place
                if number == 1 and (found := re.search(rb"<base>([^<]*)</base>", held[start:at])):
                    yield 0, found[1]
                any_dump = True
            start, in_page, too_long = at, not in_page, False
        if not in_page:
            any_dump = any_dump or b"<mediawiki" in held[start:]
            ended = ended or b"</mediawiki>" in held[start:]
        elif len(held) - start > MAX_RECORD and not too_long:
            yield Reject(label, number, "too_long", shown(bytes(held[start : start + RAW_SHOWN])))
            too_long = True
        if too_long or (not in_page and len(held) - start > PIECE):  # only a tag that was cut in two may still be needed
            start = len(held) - 16
        del held[:start]
        at = max(0, len(held) - 16)  # the longest tag is shorter than that
    if damaged:
        return
    if not any_dump and held:
        yield Reject(label, 1, "not_a_dump", shown(held))
    elif any_dump and (in_page or not ended):
        number += too_long
        why = f"read up to page {number - 1}, then the dump ends without </mediawiki>"
        yield Reject(label, number, "damaged_file", why)


def _blocks(path: Path, workers: int) -> Iterator[bytes | Damage]:
    """The unpacked bytes of a dump in order; a Damage takes the place of lost bytes.

    Memory: MAX_STREAM and MAX_AHEAD bytes for each of 2 x `workers` + 1 streams, whatever their unpacked size.
    """
    try:
        starts = _stream_starts(path) if path.suffix == ".bz2" else []
        ends = [*starts[1:], path.stat().st_size]
        if len(starts) < 2 or starts[0] or max(end - start for start, end in zip(starts, ends, strict=True)) > MAX_STREAM:
            yield from pieces(path)
            return
        waiting: deque = deque()
        with open(path, "rb") as file, ThreadPoolExecutor(max(1, workers)) as pool:  # bz2 releases the interpreter lock
            for start, end in zip(starts, ends, strict=True):
                if len(waiting) > 2 * workers:
                    yield from _all_of(*waiting.popleft().result())
                waiting.append(pool.submit(_ahead, file.read(end - start), start))
            while waiting:
                yield from _all_of(*waiting.popleft().result())
    except Damage as damage:
        yield damage
    except OSError as error:
        yield Damage(f"{type(error).__name__}: {error.strerror or error}")


def _stream_starts(path: Path) -> list[int]:
    """The positions in a .bz2 file at which its streams begin."""
    starts, tail, at = [], b"", 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            window = tail + piece
            starts += [at - len(tail) + match.start() for match in BZ2_START.finditer(window)]
            at += len(piece)
            tail = window[-9:]  # one byte less than the magic number
    return starts


def _ahead(packed: bytes, start: int) -> tuple[list[bytes | Damage], Iterator[bytes | Damage]]:
    """The first MAX_AHEAD bytes of a stream, unpacked in a thread of the pool, and the rest, unpacked on demand."""
    rest, out, size = _unpack(packed, start), [], 0
    for piece in rest:
        out.append(piece)
        size += 0 if isinstance(piece, Damage) else len(piece)
        if size >= MAX_AHEAD:
            break
    return out, rest


def _all_of(first: list[bytes | Damage], rest: Iterator[bytes | Damage]) -> Iterator[bytes | Damage]:
    yield from first
    first.clear()
    yield from rest


def _unpack(packed: bytes, start: int) -> Iterator[bytes | Damage]:
    stream = bz2.BZ2Decompressor()
    try:
        while not stream.eof:
            piece, packed = stream.decompress(packed, PIECE), b""
            yield piece
            if not piece and stream.needs_input and not stream.eof:
                raise EOFError("the stream ends early")
        if stream.unused_data:
            raise EOFError("bytes that belong to no stream follow")
    except (OSError, EOFError, ValueError) as error:
        yield Damage(f"{type(error).__name__}: {error} (the bz2 stream at byte {start})")
