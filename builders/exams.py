"""Exam files to rows: everything that a task file may be, and the tables of .docx and .html files, cell by cell.

Pictures, drawings and formulas have no text. They leave <img> or <math> in their cell, so that the question is set aside
and not asked without what it asks about. A raised character keeps its sense as ^ (10² is 10^2 and not 102).
"""

import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from builders.sets import aside, read_rows
from common.errors import UserError
from common.task_files import format_of

Table = list[list[str]]
IMAGE, FORMULA = " <img> ", " <math> "
MOST_UNPACKED = 512 << 20  # bytes of an unpacked .docx file, which is held in memory as a whole
MOST_HTML = 256 << 20  # bytes of an .html file
MOST_SPAN = 100  # rows and columns that one cell of a page may claim
_PICTURES = ("img", "svg", "picture", "object", "embed", "canvas", "video", "audio", "iframe")
_BREAKS = ("br", "p", "div", "li")
_UNSEEN = ("script", "style", "template")


def read_exams(
    files: Sequence[Path], known: Sequence[str], put_aside: list[dict[str, Any]]
) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    """(file, line, row) of every question of the files; for tables the line is the row, counted through all of the file.

    A table's header is its first row, if one of its cells is among the names `known`. A table without one is read by the
    header before it, if it is as wide, as in a table that goes on after a break; else its columns are called "column 1",
    "column 2" ..., if `known` has such names. All other rows go to `put_aside`. Raises UserError for a damaged file.
    """
    for path in files:
        if format_of(path) == ".docx":
            yield from _rows_of(path, docx_tables(path), known, put_aside)
        elif format_of(path) in (".html", ".htm"):
            yield from _rows_of(path, html_tables(path), known, put_aside)
        else:
            yield from read_rows([path], put_aside)


def _rows_of(
    path: Path, tables: Sequence[Table], known: Sequence[str], put_aside: list[dict[str, Any]]
) -> Iterator[tuple[Path, int, dict[str, Any]]]:
    names, line, header = {name.casefold() for name in known}, 0, None
    for table in tables:
        own = [cell.strip() for cell in table[0]] if table else []
        if names & {cell.casefold() for cell in own}:
            header = own
            if twice := [name for name in header if name and header.count(name) > 1]:
                raise UserError(f"{path}: two columns of a table are called {twice[0]!r}. Give each its own name.")
        elif header is None or len(own) != len(header):
            numbered = [f"column {number}" for number in range(1, len(own) + 1)]
            header = numbered if names & set(numbered) else None
        for cells in table:
            line += 1
            stripped = [cell.strip() for cell in cells]
            if stripped == header or not any(stripped):
                continue
            if header is None:
                put_aside.append(aside(path.name, line, "a table without a known header", stripped))
            elif len(cells) != len(header):
                put_aside.append(aside(path.name, line, "number of cells differs from the header's", stripped))
            else:
                yield path, line, {name: cell for name, cell in zip(header, stripped, strict=True) if name}


# ---------------------------------------------------------------- docx


def docx_tables(path: Path) -> list[Table]:
    """The tables of a Word file in order, also those inside cells (then without the table around them)."""
    try:
        import docx
    except ImportError:
        raise UserError(f"{path}: .docx files need python-docx. pip install -r requirements-extra.txt") from None
    try:
        with zipfile.ZipFile(path) as packed:
            unpacked = sum(part.file_size for part in packed.infolist())
        if unpacked > MOST_UNPACKED:
            raise UserError(f"{path}: it unpacks to {unpacked >> 20:,} MiB, which is held in memory. Split it.")
        document = docx.Document(str(path))
        return [[_docx_row(row) for row in table.rows] for table in _innermost(document.tables)]
    except UserError:
        raise
    except Exception as error:  # python-docx raises errors of several libraries on a damaged file
        raise UserError(f"{path}: no Word file that can be read ({type(error).__name__}: {error}). Restore it.") from None


def _innermost(tables: Sequence[Any]) -> Iterator[Any]:
    for table in tables:
        inner = [one for row in table.rows for cell in row.cells for one in cell.tables]
        if inner:
            yield from _innermost(inner)
        else:
            yield table


def _docx_row(row: Any) -> list[str]:
    """Texts of a row; cells merged across columns are one, so that a heading across the table is no question."""
    cells: list[str] = []
    last = None
    for cell in row.cells:
        if cell._tc is not last:
            cells.append("\n".join(_docx_paragraph(paragraph) for paragraph in cell.paragraphs))
        last = cell._tc
    return cells


def _docx_paragraph(paragraph: Any) -> str:
    parts, raised = [], False
    for inner in paragraph.iter_inner_content():
        for run in getattr(inner, "runs", [inner]):  # a link has runs of its own
            begins = bool(run.font.superscript) and not raised and bool(run.text.strip())
            parts.append(f"^{run.text}" if begins else run.text)
            raised = bool(run.font.superscript)
    if paragraph._p.xpath(".//w:drawing | .//w:pict | .//w:object"):
        parts.append(IMAGE)
    if paragraph._p.xpath(".//*[local-name() = 'oMath']"):
        parts.append(FORMULA)
    return "".join(parts)


# ---------------------------------------------------------------- html


def html_tables(path: Path) -> list[Table]:
    """The tables of a page in order, without those that only arrange others."""
    try:
        from lxml import etree, html
    except ImportError:
        raise UserError(f"{path}: .html files need lxml. pip install -r requirements-extra.txt") from None
    content = path.read_bytes() if path.stat().st_size <= MOST_HTML else None
    if content is None:
        raise UserError(f"{path}: more than {MOST_HTML >> 20} MiB, which is held in memory. Split it.")
    try:
        content.decode("utf-8")
        encoding = "utf-8"
    except UnicodeDecodeError:
        encoding = None  # what the page says of itself
    try:
        page = html.document_fromstring(content, parser=html.HTMLParser(encoding=encoding))
    except (etree.LxmlError, ValueError) as error:
        raise UserError(f"{path}: no page that can be read ({error}). Restore it.") from None
    rows = "./tr | ./thead/tr | ./tbody/tr | ./tfoot/tr"
    return [_spanned(table.xpath(rows)) for table in page.xpath("//table[not(.//table)]")]


def _spanned(rows: Sequence[Any]) -> Table:
    """Texts of the cells; a cell that goes down over several rows stands in each, one across several columns stands once."""
    made, down = [], {}
    for row in rows:
        cells: list[str] = []
        for cell in row.xpath("./td | ./th"):
            _fill(cells, down)
            text = _html_text(cell)
            if (rowspan := _span(cell.get("rowspan"))) > 1:
                down[len(cells)] = [rowspan, text]  # this row counts as the first
            cells.append(text)
        _fill(cells, down)
        for place in [*down]:
            down[place][0] -= 1
            if not down[place][0]:
                del down[place]
        made.append(cells)
    return made


def _fill(cells: list[str], down: dict[int, list[Any]]) -> None:
    """Put the cells from above that go on beside the last one."""
    while len(cells) in down:
        cells.append(down[len(cells)][1])


def _span(value: str | None) -> int:
    return min(MOST_SPAN, int(value)) if value and value.strip().isdecimal() else 1


def _html_text(cell: Any) -> str:
    from lxml import etree

    parts: list[str] = []
    skipped = None  # an element whose text is not shown, until it ends
    for event, node in etree.iterwalk(cell, events=("start", "end", "comment")):
        tag = node.tag if isinstance(node.tag, str) else ""
        if event == "start" and skipped is None:
            if tag in (*_PICTURES, *_UNSEEN, "math"):
                skipped = node
                parts.append(IMAGE if tag in _PICTURES else FORMULA if tag == "math" else "")
            else:
                parts += ["\n" if tag in _BREAKS else "", "^" if tag == "sup" else "", _blanks(node.text)]
        elif event == "end" and skipped in (None, node):
            skipped = None
            parts += ["\n" if tag in _BREAKS[1:] else "", _blanks(node.tail) if node is not cell else ""]
        elif event == "comment" and skipped is None:
            parts.append(_blanks(node.tail))
    lines = (" ".join(line.split()) for line in "".join(parts).split("\n"))
    return "\n".join(line for line in lines if line)


def _blanks(text: str | None) -> str:
    """Text of a page, where a line end is a blank."""
    return " ".join(f"|{text or ''}|".split())[1:-1]
