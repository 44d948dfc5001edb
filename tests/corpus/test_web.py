"""HTML and WARC: main text, charsets, and a worker that survives pages that hang, exhaust memory or are damaged."""

import gzip
import io
import os
import re
import signal
import subprocess
import sys

import pytest

from corpus.reading import web
from corpus.reading.sources import EXPECTED, ROOT, Record, Reject, find_sources, read_file, read_records
from corpus.reading.web import Extractor, PageError, decode_page

pytest.importorskip("trafilatura")
warcio_writer = pytest.importorskip("warcio.warcwriter")

SENTENCE = "Azərbaycan Respublikasının paytaxtı Bakı şəhəri Abşeron yarımadasında, Xəzər dənizinin sahilində yerləşir. "
ARTICLE = f"""<html><head><title>Bakı</title></head><body>
<nav><ul><li><a href="/">Ana səhifə</a></li><li><a href="/x">Xəbərlər</a></li><li><a href="/y">Əlaqə</a></li></ul></nav>
<article><h1>Bakı</h1>{"".join(f"<p>{i}. {SENTENCE * 2}</p>" for i in range(6))}</article>
<div id="cookie">Bu sayt kukilərdən istifadə edir. <button>Qəbul et</button></div>
<footer><a href="/z">Bütün hüquqlar qorunur</a></footer></body></html>"""


@pytest.fixture
def extractor():
    made = []

    def make(**limits):
        made.append(Extractor(**limits))
        return made[-1]

    yield make
    for one in made:
        one.close()


def items(path, **options):
    return list(read_file(path, path.name, options))


def test_main_text_title_and_no_menu(tmp_path):
    (tmp_path / "a.html").write_text(ARTICLE)
    (tmp_path / "b.htm.gz").write_bytes(gzip.compress(ARTICLE.encode()))
    for name in ("a.html", "b.htm.gz"):
        (record,) = items(tmp_path / name)
        assert record.text.count("Xəzər dənizinin") == 12
        assert not re.search("Ana səhifə|Qəbul et|hüquqlar", record.text)
        assert record.meta["title"] == "Bakı"


def test_a_page_without_menus_is_text_from_end_to_end(tmp_path):
    page = "<html><body><h1>Qanun</h1><header><h2>Giriş</h2><p>Əvvəl söz.</p></header>" + "".join(
        f"<h2>Maddə {i}</h2><p>Hər kəs <b>{i}</b>\nhüquqa malikdir.</p><!-- x -->" for i in range(1, 31)
    )
    (tmp_path / "a.html").write_text(page + "<script>var x</script></body></html>")
    (record,) = items(tmp_path / "a.html")
    assert record.text.split("\n")[:5] == ["Qanun", "Giriş", "Əvvəl söz.", "Maddə 1", "Hər kəs 1 hüquqa malikdir."]
    assert re.findall(r"Maddə (\d+)", record.text) == [str(i) for i in range(1, 31)]
    assert "var x" not in record.text


def test_the_real_pages(az_data):
    (source,), _ = find_sources(sources=[{"name": "html", "path": str(az_data / "noisy" / "html")}])
    menus, plain = list(read_records(source))
    assert re.findall(r"Maddə (\d+)", plain.text) == [str(i) for i in range(1, 31)]
    assert len(plain.text.split()) == 1491  # every word of the body
    lines = menus.text.split("\n")
    assert sum(line.endswith((".", ":", ";")) for line in lines) == len(lines)  # sentences: of 12,213 words of lists, 259
    assert "Loading" not in menus.text
    assert "İcbari tibbi sığortanın Xidmətlər Zərfinə" in menus.text


@pytest.mark.parametrize(
    ("raw", "header"),
    [
        ("şəkil və çay".encode(), ""),
        (b"\xef\xbb\xbf" + "şəkil və çay".encode(), "text/html; charset=cp1254"),
        ("şəkil və çay".encode("utf-16"), ""),
        ("<meta charset='windows-1251'>шәкил вә чај".replace("ә", "е").replace("ј", "й").encode("cp1251"), ""),
        ("şekil ve çay ğı".encode("cp1254"), "text/html; charset=ISO-8859-9"),
        ("şekil ve çay ğı “x”".encode("cp1254"), 'text/html; charset="windows-1254"'),
        ("şəkil və çay".encode(), "text/html; charset=no-such-table"),
    ],
)
def test_the_charset_is_found(raw, header):
    text = decode_page(raw, header)
    assert re.search("şəkil və çay|şekil ve çay ğı|шекил ве чай", text)


def test_a_stray_byte_is_replaced_and_a_wrong_table_refused():
    assert decode_page(("şəkil " * 200).encode() + b"\xff").count("\ufffd") == 1
    assert decode_page("шекил ве чай".encode("cp1251") * 20) is None


def test_a_page_that_takes_too_long_is_a_reject_and_the_next_one_is_read(extractor):
    one = extractor(seconds=60)
    one.extract(ARTICLE, "")
    first = one.process.pid
    assert one.extract(ARTICLE, "")["text"]
    assert one.process.pid == first  # one worker for many pages
    one.seconds = 0.02
    with pytest.raises(PageError, match="page_timeout"):
        one.extract("<div><p>" + "<span>a <b>b</b></span>" * 200_000, "")
    one.seconds = 60
    one.extract(ARTICLE, "")
    assert one.process.pid != first
    one.wait = 0.5
    os.kill(one.process.pid, signal.SIGSTOP)  # hangs without using the CPU
    with pytest.raises(PageError, match="page_timeout"):
        one.extract(ARTICLE, "")
    one.wait = 60
    assert SENTENCE.strip() in one.extract(ARTICLE, "")["text"]


def test_a_page_that_needs_too_much_memory_is_a_reject_and_the_next_one_is_read(extractor):
    one = extractor(memory=60 << 20)
    with pytest.raises(PageError, match=r"page_(memory|crashed|broken)"):
        one.extract("<div>" + "<p>a<i>b</i>" * 1_000_000, "")
    assert SENTENCE.strip() in one.extract(ARTICLE, "")["text"]


def test_a_worker_that_is_killed_costs_one_page(extractor):
    one = extractor()
    one.extract(ARTICLE, "")
    one.process.kill()
    one.process.wait()
    with pytest.raises(PageError, match="page_crashed"):
        one.extract(ARTICLE, "")
    assert SENTENCE.strip() in one.extract(ARTICLE, "")["text"]


def test_pages_without_text_and_past_the_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(web, "MAX_PAGE", 100_000)
    pages = {
        "a.html": b"",
        "b.html": b" \n ",
        "c.html": b"<html><body><nav><a href=x></a></nav></body></html>",
        "d.html": "шекил ве чай".encode("cp1251") * 20,
        "e.html": b"<p>" * 50_000,
        "f.html": b"\0\0\0",
        "g.html": b"<div>" * 15_000 + b"a",
    }
    for name, raw in pages.items():
        (tmp_path / name).write_bytes(raw)
    found = {name: [item[2] for item in items(tmp_path / name)] for name in pages}
    assert found.pop("g.html") in ([], ["no_main_text"], ["page_broken"])
    assert found == {
        "a.html": [],
        "b.html": ["empty_page"],
        "c.html": ["no_main_text"],
        "d.html": ["unknown_charset"],
        "e.html": ["too_long"],
        "f.html": ["page_broken"],
    }
    (tmp_path / "h.html.gz").write_bytes(gzip.compress(ARTICLE.encode())[:-20])
    assert [item.reason for item in items(tmp_path / "h.html.gz")] == ["damaged_file"]


def warc(pack=True):
    from warcio.statusandheaders import StatusAndHeaders

    out = io.BytesIO()
    writer = warcio_writer.WARCWriter(out, gzip=pack)
    head = b"<head><meta charset=windows-1254>"
    turkish = ARTICLE.replace("ə", "e").replace("Ə", "E").encode("cp1254").replace(b"<head>", head)
    answers = [
        ("https://www.oxu.az/1", "200 OK", "text/html; charset=utf-8", ARTICLE.encode()),
        ("https://oxu.az/a.png", "200 OK", "image/png", b"\x89PNG"),
        ("https://oxu.az/2", "404 Not Found", "text/html", ARTICLE.encode()),
        ("https://oxu.az/3", "200 OK", "text/html", turkish),
        ("https://oxu.az/4", "200 OK", "text/html", gzip.compress(ARTICLE.encode())),
    ]
    writer.write_record(writer.create_warcinfo_record("a.warc.gz", {"software": "x"}))
    for url, status, kind, body in answers:
        headers = [("Content-Type", kind)] + ([("Content-Encoding", "gzip")] if url.endswith("4") else [])
        http = StatusAndHeaders(status, headers, protocol="HTTP/1.1")
        dated = {"WARC-Date": "2026-08-01T10:00:00Z"}
        writer.write_record(
            writer.create_warc_record(url, "response", io.BytesIO(body), http_headers=http, warc_headers_dict=dated)
        )
    text = io.BytesIO(SENTENCE.encode())
    writer.write_record(writer.create_warc_record("https://oxu.az/5", "conversion", text, warc_content_type="text/plain"))
    return out.getvalue()


@pytest.mark.parametrize("name", ["a.warc", "a.warc.gz"])
def test_a_warc_gives_its_pages_and_accounts_for_the_rest(tmp_path, name):
    (tmp_path / name).write_bytes(warc(name.endswith(".gz")))
    found = items(tmp_path / name)
    assert [item.line for item in found] == list(range(1, 8))
    assert [getattr(item, "reason", "") for item in found] == ["not_a_page", "", "not_a_page", "not_a_page", "", "", ""]
    assert "not_a_page" in EXPECTED
    assert found[1].meta == {"url": "https://www.oxu.az/1", "site": "oxu.az", "title": "Bakı", "date": "2026-08-01T10:00:00Z"}
    assert all("sahilinde" in item.text.replace("ə", "e") for item in found if isinstance(item, Record))


@pytest.mark.parametrize("pack", [True, False])
@pytest.mark.parametrize("share", [0.3, 0.7, 0.98])
def test_a_truncated_warc_gives_what_was_whole_and_one_reject(tmp_path, share, pack):
    whole = warc(pack)
    path = tmp_path / ("a.warc.gz" if pack else "a.warc")
    path.write_bytes(whole[: int(len(whole) * share)])
    found = items(path)
    assert [item.reason for item in found if isinstance(item, Reject)][-1] == "damaged_file"
    assert [item.line for item in found] == list(range(1, len(found) + 1))
    assert 1 < len(found) <= 7
    assert f"read up to record {len(found) - 1}" in found[-1].raw


def test_bytes_that_are_not_warc(tmp_path):
    (tmp_path / "a.warc").write_bytes(b"nothing of the kind\r\n" * 20)
    (tmp_path / "b.warc.gz").write_bytes(b"nothing of the kind\r\n" * 20)
    for name in ("a.warc", "b.warc.gz"):
        assert [item.reason for item in items(tmp_path / name)] == ["damaged_file"]


@pytest.mark.parametrize(("package", "name"), [("trafilatura", "a.html"), ("warcio", "a.warc")])
def test_a_missing_package_is_named(tmp_path, package, name):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("raise ImportError('blocked')")
    (tmp_path / name).write_text(ARTICLE)
    where = str(tmp_path / name)
    code = f"import pathlib; from corpus.reading.sources import read_file; list(read_file(pathlib.Path({where!r}), 'a', {{}}))"
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=env)
    assert f"web pages need {package} (blocked). pip install -r requirements-extra.txt" in result.stderr
    assert "UserError" in result.stderr
