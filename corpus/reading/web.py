"""Web pages to their main text: HTML files and WARC files, by trafilatura in a worker process with limits.

A page that takes too long, needs too much memory or crashes the parser becomes a reject, and the worker is restarted; one
worker serves all pages of a process. `python -m corpus.reading.web` is that worker, not a command for users.
"""

import atexit
import codecs
import io
import json
import os
import re
import resource
import selectors
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from common.errors import UserError
from common.files import ROOT
from corpus.reading.formats import MAX_RECORD, RAW_SHOWN, Damage, Record, Reject, meta_of, pieces, shown

PAGE_SECONDS = 20.0  # processor time for one page; a typical one takes 5 ms, the slowest valid ones about a second
PAGE_WAIT = 300.0  # wall-clock time: for a worker that does not even compute, also on a busy machine
PAGE_MEMORY = 1 << 30  # bytes of address space for the worker beyond what it takes when idle
MAX_PAGE = 16 << 20  # bytes of HTML; the largest valid pages (whole codes of law) have about 5 MB
MAX_REPLACED = 0.005  # share of undecodable characters: a stray byte is common, a wrong table is not
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*+=\s*+(?:[\"']\s*+)?([\w.:-]{2,40})", re.IGNORECASE)
_HEADER_CHARSET = re.compile(r"charset\s*+=\s*+(?:[\"']\s*+)?([\w.:-]{2,40})", re.IGNORECASE)
# What browsers take these labels to mean, and the encoding of most pages that have them.
_AS_BROWSERS = {
    "iso-8859-9": "cp1254",
    "iso8859-9": "cp1254",
    "latin5": "cp1254",
    "iso-8859-1": "cp1252",
    "latin-1": "cp1252",
    "us-ascii": "cp1252",
    "ascii": "cp1252",
}
MAX_PLAIN = 2 << 20  # characters of a page that is checked for being plain: a whole book
MIN_PRECISE = 25  # with fewer words, precise extraction has missed the text
CLICKED = ("nav", "aside", "footer", "form", "button", "iframe", "table")
UNSEEN = ("script", "style", "noscript", "template")
_BLOCK_TAGS = """address article blockquote body br center dd div dl dt figcaption figure h1 h2 h3 h4 h5 h6 header hr li
main ol p pre section ul"""
BLOCKS = frozenset(_BLOCK_TAGS.split())
_NEEDS = "web pages need {} ({}). pip install -r requirements-extra.txt"


class PageError(Exception):
    """The reason why a page has no text: page_timeout, page_memory, page_crashed, page_broken."""


class Extractor:
    """The worker process and its limits. Not safe for threads: use one for each process."""

    def __init__(self, seconds: float = PAGE_SECONDS, memory: int = PAGE_MEMORY, wait: float = PAGE_WAIT) -> None:
        self.seconds, self.memory, self.wait = seconds, memory, wait
        self.process: subprocess.Popen | None = None

    def extract(self, page: str, url: str) -> dict[str, str | None]:
        """{"text", "title", "date"} of an HTML page. Raises PageError; UserError when trafilatura is missing."""
        if self.process is None:
            self._start()
        try:
            request = json.dumps([page, url, self.seconds]).encode()
            answer = self._ask(struct.pack("<Q", len(request)) + request, self.wait)
        except TimeoutError:
            self.close()
            raise PageError("page_timeout") from None
        except (EOFError, OSError):  # its pipes are closed, which only its end can cause
            raise PageError("page_timeout" if self.close(is_dead=True) == -signal.SIGPROF else "page_crashed") from None
        if "fault" in answer:
            if answer["fault"] == "page_memory":
                self.close()  # memory that it still holds would count against the next page
            raise PageError(answer["fault"])
        return answer

    def _start(self) -> None:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, sys.path)])}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "corpus.reading.web", str(self.memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment,
            bufsize=0,
        )
        os.set_blocking(self.process.stdin.fileno(), False)
        atexit.register(self.close)
        try:
            answer = self._ask(b"", 120)
        except (TimeoutError, EOFError, OSError) as error:
            self.close()
            raise UserError(_NEEDS.format("trafilatura", f"its process ended: {type(error).__name__}")) from None
        if "missing" in answer:
            self.close()
            raise UserError(_NEEDS.format("trafilatura", answer["missing"]))

    def _ask(self, request: bytes, seconds: float) -> dict[str, Any]:
        """Send and receive within the time limit, even if the worker stops reading in the middle."""
        until = time.monotonic() + seconds
        rest, got, wanted = memoryview(request), bytearray(), None
        with selectors.DefaultSelector() as ready:
            ready.register(self.process.stdout, selectors.EVENT_READ)
            if rest:
                ready.register(self.process.stdin, selectors.EVENT_WRITE)
            while wanted is None or len(got) < wanted:
                left = until - time.monotonic()
                events = ready.select(left) if left > 0 else []
                if not events:
                    raise TimeoutError
                for key, _ in events:
                    if key.fileobj is self.process.stdin:
                        rest = rest[os.write(key.fd, rest[: 1 << 16]) :]
                        if not rest:
                            ready.unregister(self.process.stdin)
                    else:
                        data = os.read(key.fd, 1 << 20)
                        if not data:
                            raise EOFError
                        got += data
                        if wanted is None and len(got) >= 8:
                            wanted = 8 + struct.unpack("<Q", got[:8])[0]
        return json.loads(got[8:])

    def close(self, is_dead: bool = False) -> int | None:
        """End the worker (or collect its exit code if it has ended); the next page starts another one."""
        if self.process is None:
            return None
        process, self.process = self.process, None
        atexit.unregister(self.close)
        if not is_dead:
            process.kill()
        for pipe in (process.stdin, process.stdout):
            pipe.close()
        return process.wait()


def _extract(trafilatura: Any, page: str, url: str) -> dict[str, Any]:
    """Text, title and date. Trafilatura finds the main text of usual pages; two kinds of page need their own treatment.

    A page without menus is main text from beginning to end: trafilatura loses its repeated headings (Maddə 1, Maddə 2 ...)
    and moves the contents of a <header> to the end. A page of mostly lists and menus is extracted again for precision.
    """
    tree = trafilatura.load_html(page)
    if tree is None:  # not HTML, or no memory left for its tree
        return {"fault": "page_broken"}
    head = trafilatura.extract_metadata(tree, default_url=url or None, extensive=False)  # the long search for a date takes 2 s
    if len(page) < MAX_PLAIN and _is_plain(tree):
        return {"text": _all_text(tree), "title": head.title, "date": head.date}
    found = trafilatura.bare_extraction(page, include_comments=False, include_tables=False)
    text = (found.text if found is not None else "") or ""
    if _sentence_share(text) < 0.5:
        precise = trafilatura.bare_extraction(page, include_comments=False, include_tables=False, favor_precision=True)
        if precise is not None and len((precise.text or "").split()) >= MIN_PRECISE:
            text = precise.text
    text = "\n".join(" ".join(line.split()) for line in text.split("\n"))
    return {"text": text, "title": head.title, "date": head.date}


def _is_plain(tree: Any) -> bool:
    """Whether a page has no clickable elements but a few links, and no tables."""
    body = tree.find(".//body")
    if body is None or next(tree.iter(*CLICKED), None) is not None:
        return False
    linked = sum(len("".join(link.itertext())) for link in tree.iter("a"))
    return linked <= 0.02 * len("".join(body.itertext()))


def _all_text(tree: Any) -> str:
    """Every block of the body as a line, in order."""
    from lxml import etree  # trafilatura's own parser

    etree.strip_elements(tree, etree.Comment, etree.ProcessingInstruction, *UNSEEN, with_tail=False)
    parts: list[str] = []
    body = tree.find(".//body")
    for event, node in etree.iterwalk(body, events=("start", "end")):
        text = (node.text if event == "start" else node.tail) or ""
        parts += ["\n" if node.tag in BLOCKS else "", " ".join(text.split("\n"))]  # a line end in the source is a space
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if line)


def _sentence_share(text: str) -> float:
    """Share of the characters in lines that end like sentences."""
    lines = [line.strip() for line in text.split("\n")]
    return sum(len(line) for line in lines if line.endswith(tuple('.!?…:;»"”)'))) / max(1, sum(map(len, lines)))


def serve() -> None:
    """The worker: length and JSON in, length and JSON out, until the input ends. Its memory is limited from the start."""
    stdin, stdout = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # output printed by a library must not mix with the answers

    def answer(value: dict[str, Any]) -> None:
        packed = json.dumps(value).encode()
        stdout.write(struct.pack("<Q", len(packed)) + packed)
        stdout.flush()

    try:
        import trafilatura
    except ImportError as error:
        answer({"missing": str(error)})
        return
    with open("/proc/self/statm") as file:
        idle = int(file.read().split()[0]) * resource.getpagesize()
    limit = idle + int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    answer({})
    while len(head := stdin.read(8)) == 8:
        try:
            page, url, seconds = json.loads(stdin.read(struct.unpack("<Q", head)[0]))
            signal.setitimer(signal.ITIMER_PROF, seconds)  # processor time; its signal ends the process even in C code
            found = _extract(trafilatura, page, url)
            signal.setitimer(signal.ITIMER_PROF, 0)
            answer(found)
        except MemoryError:
            answer({"fault": "page_memory"})
        except Exception:  # the library fails on some pages with many kinds of errors
            answer({"fault": "page_broken"})


_extractor = Extractor()  # of this process; started with the first page
_owner = os.getpid()


def _shared() -> Extractor:
    """The worker of this process: a forked child must not use its parent's."""
    global _extractor, _owner
    if _owner != os.getpid():
        _extractor, _owner = Extractor(), os.getpid()
    return _extractor


def decode_page(raw: bytes, header: str = "") -> str | None:
    """The page decoded by its byte-order mark, the HTTP header, its own <meta>, or as UTF-8. None if none fits."""
    declared = [_HEADER_CHARSET.search(header), _META_CHARSET.search(raw[:4096])]
    names = [match[1] if isinstance(match[1], str) else match[1].decode() for match in declared if match]
    for mark, name in ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16")):
        if raw.startswith(mark):
            names = [name]
    names = [_AS_BROWSERS.get(name.lower(), name.lower()) for name in [*names, "utf-8"]]
    for errors in ("strict", "replace"):
        for name in dict.fromkeys(names):
            try:
                text = raw.decode(name, errors=errors)
            except (LookupError, ValueError):
                continue
            if text.count("\ufffd") <= MAX_REPLACED * len(text):
                return text
    return None


def page_record(label: str, line: int, raw: bytes, header: str, meta: dict[str, Any]) -> Record | Reject:
    """One page; `header` is its HTTP Content-Type if known, `meta` known fields (url, date)."""
    if len(raw) > MAX_PAGE:
        return Reject(label, line, "too_long", shown(raw))
    page = decode_page(raw, header)
    if page is None:
        return Reject(label, line, "unknown_charset", shown(raw))
    if not page.strip():
        return Reject(label, line, "empty_page", "")
    try:
        found = _shared().extract(page.replace("\0", ""), meta.get("url") or "")
    except PageError as error:
        return Reject(label, line, str(error), f"{meta.get('url') or ''} {page}".strip()[:RAW_SHOWN])
    if not found["text"].strip():
        return Reject(label, line, "no_main_text", f"{meta.get('url') or ''} {page}".strip()[:RAW_SHOWN])
    text = found["text"].encode("utf-8", errors="replace").decode()
    date = meta.get("date") or found["date"]
    return Record(label, line, text, None, meta_of({"url": meta.get("url"), "title": found["title"], "date": date}))


def read_html(path: Path, label: str, options: dict[str, Any]) -> Iterator[Record | Reject]:
    """One HTML file (plain, .gz, .zst, .bz2) is one page."""
    raw = bytearray()
    try:
        for piece in pieces(path):
            raw += piece
            if len(raw) > MAX_PAGE:
                break
    except Damage as damage:
        yield Reject(label, 1, "damaged_file", f"read up to byte {len(raw)}, then {damage}"[:RAW_SHOWN])
        return
    if raw:
        yield page_record(label, 1, bytes(raw), "", {})


class _Unpacked(io.RawIOBase):
    """The unpacked bytes of a file as a stream; damage ends the stream and is stored."""

    def __init__(self, path: Path) -> None:
        self.source, self.rest, self.damage = pieces(path), memoryview(b""), None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self.rest:
            try:
                self.rest = memoryview(next(self.source))
            except StopIteration:
                return 0
            except Damage as damage:
                self.damage = damage
                return 0
        size = min(len(buffer), len(self.rest))
        buffer[:size] = self.rest[:size]
        self.rest = self.rest[size:]
        return size


def read_warc(path: Path, label: str, options: dict[str, Any]) -> Iterator[Record | Reject]:
    """The pages of a WARC file (or the texts of a WET file); `line` is the number of the record in it.

    Records that are not pages (requests, images, responses other than 200) are rejects with the reason not_a_page.
    """
    try:
        from warcio.archiveiterator import WARCIterator
        from warcio.exceptions import ArchiveLoadFailed
    except ImportError as error:
        raise UserError(_NEEDS.format("warcio", error)) from None
    stream = _Unpacked(path)
    number = 0
    fault: object = None
    try:
        for record in WARCIterator(io.BufferedReader(stream, 1 << 16)):
            item = _warc_record(label, number + 1, record)
            while record.raw_stream.read(1 << 16):
                pass
            whole = record.rec_headers.get_header("Content-Length") and getattr(record.raw_stream, "limit", 0) <= 0
            if not whole:  # `limit` is the remaining part of its Content-Length
                fault = "the file ends inside a record"
                break
            number += 1
            yield item
    except (ArchiveLoadFailed, OSError, EOFError, ValueError, UnicodeError, AttributeError, IndexError) as error:
        fault = f"{type(error).__name__}: {error}"
    fault = stream.damage or fault
    if fault:
        yield Reject(label, number + 1, "damaged_file", f"read up to record {number}, then {fault}"[:RAW_SHOWN])


def _warc_record(label: str, number: int, record: Any) -> Record | Reject:
    headers, http = record.rec_headers, record.http_headers
    url = (headers.get_header("WARC-Target-URI") or "").strip("<>")
    meta = {"url": url, "date": headers.get_header("WARC-Date")}
    kind = (http.get_header("Content-Type") if http else headers.get_header("Content-Type")) or ""
    is_page = record.rec_type == "response" and http is not None and http.get_statuscode() == "200"
    is_text = record.rec_type == "conversion" and kind.startswith("text/plain")
    if not is_text and not (is_page and re.match(r"\s*(text/html|application/xhtml)", kind, re.IGNORECASE)):
        what = f"{record.rec_type} {http.get_statuscode() if http else ''} {kind} {url}"
        return Reject(label, number, "not_a_page", what[:RAW_SHOWN])
    raw = _body(record.content_stream(), MAX_PAGE)
    if not is_text:
        return page_record(label, number, raw, kind, meta)
    if len(raw) > min(MAX_PAGE, MAX_RECORD):
        return Reject(label, number, "too_long", shown(raw))
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return Reject(label, number, "invalid_utf8", shown(raw))
    return Record(label, number, text, None, meta_of(meta)) if text.strip() else Reject(label, number, "empty_page", url)


def _body(stream: IO[bytes], limit: int) -> bytes:
    """The contents of the record, up to slightly more than `limit`."""
    parts, size = [], 0
    while size <= limit and (part := stream.read(1 << 16)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


if __name__ == "__main__":
    serve()
