"""Wikipedia's XML dumps to articles: streamed, in parallel where the dump has many bz2 streams, wikitext to plain text.

Pages are cut out of the XML by their tags and parsed one by one, so that a broken page costs itself. A multistream dump
is cut where its bz2 streams begin (found in the file itself, the index is not needed): a damaged stream costs its own
pages, and with `workers` the streams are unpacked on several cores in the order of the file.
"""

import bz2
import html
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

from corpus.formats import MAX_RECORD, PIECE, RAW_SHOWN, Damage, Record, Reject, meta_of, pieces, shown
from language.azerbaijani import lower

BZ2_START = re.compile(rb"BZh[1-9]1AY&SY")  # magic of a stream and of its first block: 10 bytes, no chance match
MAX_STREAM = 64 << 20  # compressed bytes of one stream that is unpacked whole; a multistream dump's are about 1 MB
MAX_LINK_DEPTH = 8  # links stand in links only in captions of pictures; deeper ones are hostile or broken

# Namespaces by their Azerbaijani, English and (in older articles) Russian names, as `lower` writes them.
_DROPPED = "fayl şəkil file image media kateqoriya category файл изображение категория dosya kategori"
_OTHER = """şablon template modul module vikipediya wikipedia portal istifadəçi user yardım help mediaviki mediawiki müzakirə
talk xüsusi special layihə mövzu topic"""
DROPPED_NAMESPACES = frozenset(_DROPPED.split())
NAMESPACES = DROPPED_NAMESPACES | frozenset(_OTHER.split())
DROPPED_SECTIONS = frozenset(
    [
        "istinadlar", "istinad", "i̇stinadlar", "xarici keçidlər", "xarici keçid", "xarici linklər", "həmçinin bax",
        "həmçinin baxın", "mənbə", "mənbələr", "ədəbiyyat", "ədəbiyyat siyahısı", "qeydlər", "qalereya", "şəkillər",
        "fotoqalereya", "references", "external links", "see also", "notes", "sources", "further reading", "gallery",
    ]
)  # fmt: skip
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
_REDIRECT = re.compile(r"\s*#\s*(redirect|yönləndir|istiqamətləndirmə|i̇stiqamətləndirmə|перенаправление)\b")
_QUOTES = re.compile(r"'{2,}")
_EXTERNAL = re.compile(r"\[(?:https?:|ftp:|mailto:)?//[^\s\[\]]*([^\[\]\n]*)\]|\[mailto:[^\s\[\]]*([^\[\]\n]*)\]")
_MAGIC = re.compile(r"__[A-ZƏİÖÜĞŞÇI]+__")
_EMPTY_BRACKETS = re.compile(r"\([\s,;:–—-]*\)")
_SPACES = re.compile(r"[ \t\u00a0]+")
_BEFORE_STOP = re.compile(r" ([,.;)])")


def plain_text(wikitext: str) -> str:
    """The running text of an article: headings and list items as lines; templates, tables, notes, pictures gone.

    One pass over the marks with a stack, so the time is linear in the length whatever stands open or is nested.
    """
    text = _without_marks(wikitext)
    text = _EXTERNAL.sub(lambda match: (match[1] or match[2] or "").strip(), text)
    text = html.unescape(_MAGIC.sub("", _QUOTES.sub("", text)))
    kept: list[tuple[int, str]] = []  # (level of a heading or 0, line)
    dropping = 0  # level of the section that is being left out
    for raw in text.split("\n"):
        line = raw.strip()
        if line.startswith("=") and line.endswith("=") and len(line) > 2:
            level = min(len(line) - len(line.lstrip("=")), len(line) - len(line.rstrip("=")))
            title = line.strip("= \t")
            if dropping and level > dropping:
                continue
            dropping = level if lower(title).rstrip(":") in DROPPED_SECTIONS else 0
            if title and not dropping:
                kept.append((level, title))
            continue
        if dropping or line.startswith(("|", "{|")) or not line.strip("-"):
            continue  # a bar at the start of a line: left over from a table or template that was never closed
        whole = _EMPTY_BRACKETS.sub("", line.lstrip("*#:; "))
        whole = _BEFORE_STOP.sub(r"\1", _SPACES.sub(" ", whole)).strip()
        if whole:
            kept.append((0, whole))
    following, lines = 1, []  # a heading over nothing goes: over the end, or over a heading that is not below it
    for level, line in reversed(kept):
        if not level or following == 0 or following > level:
            lines.append(line)
            following = level
    return "\n".join(reversed(lines))


def _without_marks(text: str) -> str:
    out: list[str] = []
    stack: list[tuple[str, int]] = []  # (kind of what stands open: { [ |, length of `out` where it began)
    standing = {"{": 0, "[": 0, "|": 0}
    unclosed: set[str] = set()  # tags that are known not to close any more: never searched for twice
    at = 0

    def close(kind: str) -> int:
        """End the innermost `kind` together with what was left open inside it; returns where it began."""
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
                del out[begin:]
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
                label = _label("".join(out[begin:]))
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


def _label(inside: str) -> str:
    """What a reader sees of [[inside]]: nothing of pictures, categories and the same article in other languages."""
    target, bar, _ = inside.partition("|")
    name = target.strip()
    shown_as_link = name.startswith(":")
    name = name.lstrip(": ")
    prefix, colon, page = name.partition(":")
    if colon and not shown_as_link:
        if lower(prefix).strip().replace("_", " ") in DROPPED_NAMESPACES:
            return ""
        if not bar and _LANGUAGE.fullmatch(prefix):
            return ""
    label = inside.rpartition("|")[2] if bar else ""
    if label.strip():
        return label
    return page if colon and (bar or _LANGUAGE.fullmatch(prefix) or lower(prefix) in NAMESPACES) else name.lstrip("#")


def read_wikipedia(path: Path, label: str, options: dict[str, Any]) -> Iterator[Record | Reject]:
    """Each article of a MediaWiki dump (.xml, .xml.bz2, .gz, .zst), with title, url, date and site in meta.

    `line` is the page's number in the dump (a part that is lost counts as one). Pages outside of the article namespace
    and redirects are rejects of the reasons in EXPECTED. `workers`: threads that unpack the streams of a multistream dump.
    """
    base = ""
    for item in _pages(path, label, options.get("workers", 1)):
        if isinstance(item, Reject):
            yield item
        elif item[0] == 0:
            base = item[1].decode("utf-8", errors="replace")
        else:
            yield _article(label, item[0], item[1], base)


def _article(label: str, line: int, raw: bytes, base: str) -> Record | Reject:
    try:
        page = ElementTree.fromstring(raw.decode("utf-8"))
    except UnicodeDecodeError:
        return Reject(label, line, "invalid_utf8", shown(raw))
    except (ElementTree.ParseError, ValueError, RecursionError):
        return Reject(label, line, "not_xml", shown(raw))
    title = (page.findtext("title") or "").strip()
    revision = page.find("revision[last()]")
    text = revision.findtext("text") if revision is not None else None
    namespace = page.findtext("ns")
    prefix = lower(title.partition(":")[0]) if ":" in title else ""
    if (namespace or "0").strip() != "0" or (namespace is None and prefix in NAMESPACES):
        return Reject(label, line, "not_an_article", title[:RAW_SHOWN])
    if text is None:
        return Reject(label, line, "no_text", title[:RAW_SHOWN])
    if page.find("redirect") is not None or _REDIRECT.match(lower(text[:100])):
        return Reject(label, line, "redirect", title[:RAW_SHOWN])
    plain = plain_text(text)
    if not plain:
        return Reject(label, line, "empty_text", f"{title}: {text}"[:RAW_SHOWN])
    url = base.rpartition("/")[0] + "/" + quote(title.replace(" ", "_"), safe="/:,()'!*") if base else ""
    meta = meta_of({"title": title, "url": url, "date": revision.findtext("timestamp")})
    return Record(label, line, plain, page.findtext("id") or None, meta)


def _pages(path: Path, label: str, workers: int) -> Iterator[tuple[int, bytes] | Reject]:
    """(number from 1, one whole <page>...</page>), after (0, the wiki's address) where the dump's head tells it."""
    held = bytearray()  # what no page has been cut out of yet
    at, number = 0, 1  # where in `held` the search goes on, and of which page
    in_page, too_long, any_dump, ended, damaged = False, False, False, False, False
    for block in _blocks(path, workers):
        if isinstance(block, Damage):
            number += too_long  # that page has had its reject
            yield Reject(label, number, "damaged_file", f"read up to page {number - 1}, then {block}"[:RAW_SHOWN])
            number += 1
            held, at, in_page, too_long, damaged = bytearray(), 0, False, False, True
            continue
        held += block
        start = 0  # of the page, or of what stands before it
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
        if too_long or (not in_page and len(held) - start > PIECE):  # nothing of it is needed but a mark cut in two
            start = len(held) - 16
        del held[:start]
        at = max(0, len(held) - 16)  # the longest mark is shorter than that
    if damaged:
        return
    if not any_dump and held:
        yield Reject(label, 1, "not_a_dump", shown(held))
    elif any_dump and (in_page or not ended):
        number += too_long
        why = f"read up to page {number - 1}, then the dump ends without </mediawiki>"
        yield Reject(label, number, "damaged_file", why)


def _blocks(path: Path, workers: int) -> Iterator[bytes | Damage]:
    """The unpacked bytes of a dump in order; a Damage stands where some are lost."""
    try:
        starts = _stream_starts(path) if path.suffix == ".bz2" else []
        ends = [*starts[1:], path.stat().st_size]
        if len(starts) < 2 or starts[0] or max(end - start for start, end in zip(starts, ends, strict=True)) > MAX_STREAM:
            yield from pieces(path)
            return
        waiting: deque = deque()
        with open(path, "rb") as file, ThreadPoolExecutor(max(1, workers)) as pool:  # bz2 lets other threads run
            for start, end in zip(starts, ends, strict=True):
                if len(waiting) > 2 * workers:
                    yield from waiting.popleft().result()
                waiting.append(pool.submit(_unpack, file.read(end - start), start))
            while waiting:
                yield from waiting.popleft().result()
    except Damage as damage:
        yield damage
    except OSError as error:
        yield Damage(f"{type(error).__name__}: {error.strerror or error}")


def _stream_starts(path: Path) -> list[int]:
    """Where in a .bz2 file its streams begin."""
    starts, tail, at = [], b"", 0
    with open(path, "rb") as file:
        while piece := file.read(PIECE):
            window = tail + piece
            starts += [at - len(tail) + match.start() for match in BZ2_START.finditer(window)]
            at += len(piece)
            tail = window[-9:]  # one byte less than the mark
    return starts


def _unpack(packed: bytes, start: int) -> list[bytes | Damage]:
    stream = bz2.BZ2Decompressor()
    out: list[bytes | Damage] = []
    try:
        while not stream.eof:
            piece = stream.decompress(packed, PIECE)
            out, packed = [*out, piece], b""
            if not piece and stream.needs_input and not stream.eof:
                raise EOFError("the stream ends early")
        if stream.unused_data:
            raise EOFError("bytes that belong to no stream follow")
    except (OSError, EOFError, ValueError) as error:
        out.append(Damage(f"{type(error).__name__}: {error} (the bz2 stream at byte {start})"))
    return out
