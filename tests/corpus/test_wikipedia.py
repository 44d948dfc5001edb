"""Wikipedia dumps: articles are read, other pages counted, damage stays local, and azwiki's wikitext becomes plain text."""

import bz2
import gzip
from xml.sax.saxutils import escape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus.reading import formats, wikipedia
from corpus.reading.sources import EXPECTED, Record, Reject, read_file
from tests.azerbaijani import plain_text
from tests.corpus.limits import within

HEAD = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="az">
  <siteinfo>
    <sitename>Vikipediya</sitename>
    <base>https://az.wikipedia.org/wiki/Ana_S%C9%99hif%C9%99</base>
  </siteinfo>
"""
TAIL = "</mediawiki>\n"


def page(number, title, text, ns=0, redirect=""):
    target = f'    <redirect title="{redirect}" />\n' if redirect else ""
    return f"""  <page>
    <title>{escape(title)}</title>
    <ns>{ns}</ns>
    <id>{number}</id>
{target}    <revision>
      <id>{number * 7}</id>
      <timestamp>2026-08-01T00:00:00Z</timestamp>
      <text bytes="{len(text)}" xml:space="preserve">{escape(text)}</text>
    </revision>
  </page>
"""


PAGES = [page(i, f"Məqalə & {i}", f"'''Məqalə {i}''' [[Bakı|Bakıdadır]]. " + "Uzun mətn. " * 40) for i in range(1, 41)]


def multistream(pages, size=5):
    groups = ["".join(pages[i : i + size]) for i in range(0, len(pages), size)]
    return [bz2.compress(part.encode()) for part in (HEAD, *groups, TAIL)]


def read(path, **options):
    items = list(read_file(path, path.name, {"language": "azerbaijani", **options}))
    return [item for item in items if isinstance(item, Record)], [item for item in items if isinstance(item, Reject)]


@pytest.mark.parametrize("name", ["a.xml", "a.xml.gz", "a.xml.bz2", "a-multistream.xml.bz2"])
def test_articles_come_out_with_their_number_address_and_date(tmp_path, name):
    whole = (HEAD + "".join(PAGES) + TAIL).encode()
    pack = {"a.xml": bytes, "a.xml.gz": gzip.compress, "a.xml.bz2": bz2.compress}
    (tmp_path / name).write_bytes(pack[name](whole) if name in pack else b"".join(multistream(PAGES)))
    records, rejects = read(tmp_path / name)
    assert rejects == []
    assert [record.id for record in records] == [str(i) for i in range(1, 41)]
    assert records[1].text.startswith("Məqalə 2 Bakıdadır. Uzun mətn.")
    assert records[1].meta == {
        "title": "Məqalə & 2",
        "url": "https://az.wikipedia.org/wiki/M%C9%99qal%C9%99_%26_2",
        "date": "2026-08-01T00:00:00Z",
        "site": "az.wikipedia.org",
    }
    assert [record.line for record in records] == list(range(1, 41))


def test_streams_unpacked_in_parallel_give_the_same_in_the_same_order(tmp_path):
    (tmp_path / "a.xml.bz2").write_bytes(b"".join(multistream(PAGES, 1)))
    assert read(tmp_path / "a.xml.bz2", workers=4) == read(tmp_path / "a.xml.bz2")


def test_pages_that_are_not_articles_are_counted(tmp_path):
    pages = [
        page(1, "Bakı", "Paytaxt."),
        page(2, "Baki", "#REDIRECT [[Bakı]]", redirect="Bakı"),
        page(3, "Bakou", "#İSTİQAMƏTLƏNDİRMƏ [[Bakı]]"),
        page(4, "Kateqoriya:Şəhər", "x", ns=14),
        page(5, "Şablon:Ş", "x").replace("    <ns>0</ns>\n", ""),
        page(6, "Boş", "{{şablon}}"),
        page(7, "CSI: Maymi", "Serial.").replace("    <ns>0</ns>\n", ""),
    ]
    (tmp_path / "a.xml").write_text(HEAD + "".join(pages) + TAIL)
    records, rejects = read(tmp_path / "a.xml")
    assert [record.meta["title"] for record in records] == ["Bakı", "CSI: Maymi"]
    assert [reject.reason for reject in rejects] == ["redirect", "redirect", "not_an_article", "not_an_article", "empty_text"]
    assert [reject.reason in EXPECTED for reject in rejects] == [True] * 4 + [False]
    assert "Boş" in rejects[4].raw


def test_a_broken_page_costs_itself(tmp_path):
    whole = (HEAD + "".join(PAGES) + TAIL).encode()
    for old, new, reason in [
        (PAGES[3].encode(), PAGES[3].encode().replace(b"</title>", b"</titel>"), "not_xml"),
        (PAGES[3].encode(), PAGES[3].encode().replace(b"Uzun", b"Uz\xfcn"), "invalid_utf8"),
        (PAGES[3].encode(), PAGES[3].encode().replace(b"Uzun", b"U\0zun"), "not_xml"),
        (PAGES[3].encode(), PAGES[3].encode().replace(b"Uzun", b"&unknown;"), "not_xml"),
    ]:
        (tmp_path / "a.xml").write_bytes(whole.replace(old, new))
        records, rejects = read(tmp_path / "a.xml")
        assert [record.id for record in records] == [str(i) for i in range(1, 41) if i != 4]
        assert [reject.reason for reject in rejects] == [reason]


@pytest.mark.parametrize("name", ["a.xml", "a.xml.bz2", "a.xml.gz", "m.xml.bz2"])
@pytest.mark.parametrize("share", [0.5, 0.93, 0.999])
def test_a_truncated_dump_says_how_far_it_came(tmp_path, name, share):
    whole = (HEAD + "".join(PAGES) + TAIL).encode()
    pack = {"a.xml": bytes, "a.xml.gz": gzip.compress, "a.xml.bz2": bz2.compress}
    packed = pack[name](whole) if name in pack else b"".join(multistream(PAGES))
    (tmp_path / name).write_bytes(packed[: int(len(packed) * share)])
    records, rejects = read(tmp_path / name)
    assert [record.id for record in records] == [str(i) for i in range(1, len(records) + 1)]
    assert [reject.reason for reject in rejects] == ["damaged_file"]
    assert f"read up to page {len(records)}" in rejects[0].raw
    assert len(records) > 0 or name == "a.xml.bz2"  # one block of bz2 holds all of it


def test_a_dump_cut_between_two_pages_is_damaged_too(tmp_path):
    (tmp_path / "a.xml").write_text(HEAD + "".join(PAGES[:5]))
    records, rejects = read(tmp_path / "a.xml")
    assert (len(records), [reject.reason for reject in rejects]) == (5, ["damaged_file"])


def test_a_damaged_stream_costs_its_own_pages(tmp_path):
    streams = multistream(PAGES)
    flipped = bytearray(streams[3])
    flipped[len(flipped) // 2] ^= 16
    (tmp_path / "a.xml.bz2").write_bytes(b"".join([*streams[:3], bytes(flipped), *streams[4:]]))
    for workers in (1, 3):
        records, rejects = read(tmp_path / "a.xml.bz2", workers=workers)
        assert [int(record.id) for record in records] == [*range(1, 11), *range(16, 41)]
        assert [reject.reason for reject in rejects] == ["damaged_file"]
        assert len({item.line for item in [*records, *rejects]}) == len(records) + 1  # no two share a place


def test_a_page_past_the_limit_is_set_aside_and_other_xml_is_no_dump(tmp_path, monkeypatch):
    monkeypatch.setattr(wikipedia, "MAX_RECORD", 50_000)
    monkeypatch.setattr(formats, "PIECE", 10_000)
    (tmp_path / "a.xml").write_text(HEAD + PAGES[0] + page(2, "Uzun", "söz " * 50_000) + PAGES[2] + TAIL)
    records, rejects = read(tmp_path / "a.xml")
    assert ([record.id for record in records], [reject.reason for reject in rejects]) == (["1", "3"], ["too_long"])
    (tmp_path / "b.xml").write_text("<rss><item>x</item></rss>")
    assert [reject.reason for reject in read(tmp_path / "b.xml")[1]] == ["not_a_dump"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=30), max_size=8), st.integers(3, 40))
def test_every_page_is_a_record_or_a_reject_wherever_the_pieces_end(tmp_path_factory, texts, piece):
    path = tmp_path_factory.mktemp("dump") / "a.xml"
    path.write_text(HEAD + "".join(page(i, f"T{i}", text) for i, text in enumerate(texts)) + TAIL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "PIECE", piece)
        records, rejects = read(path)
    assert len(records) + len(rejects) == len(texts)
    assert {reject.reason for reject in rejects} <= {"empty_text", "redirect"}


@pytest.mark.parametrize(
    ("wikitext", "expected"),
    [
        ("[[Fayl:A.jpg|thumb|200px|Bakının [[xəritə]]si]]Mətn", "Mətn"),
        ("[[Şəkil:A.jpg|right]] [[file:B.png]] [[image:C.png|x]] [[ŞƏKİL:D.svg]]Mətn", "Mətn"),
        ("Mətn\n[[Kateqoriya:Şəhərlər]] [[Category:Towns|Baku]]\n[[en:Baku]] [[be-tarask:Баку]]", "Mətn"),
        ("Bax [[:Kateqoriya:Şəhərlər]], [[:en:Baku|ingiliscə]], [[:ru:Баку]].", "Bax Şəhərlər, ingiliscə, Баку."),
        ("[[Bakı]]da, [[Bakı|paytaxt]]da, [[Bakı (şəhər)|]], [[CSI: Maymi]]", "Bakıda, paytaxtda, Bakı (şəhər), CSI: Maymi"),
        ("{{İnfoqutu|ad={{dil|az|Bakı}}|şəkil=[[Fayl:A.jpg]]}}Mətn {{mənbə|{{{1}}}}}davam", "Mətn davam"),
        ('Mətn<ref name=a>{{cite|x}}</ref><ref name="b" /> davam<ref>[http://x.az y]</ref>.', "Mətn davam."),
        ("Düstur <math>\\frac{a}{b}</math> və <!-- [[gizli -->mətn<br/>yeni <b>sətir</b>", "Düstur və mətn\nyeni sətir"),
        ("A <nowiki>[[x]] {{y}}</nowiki> B", "A [[x]] {{y}} B"),
        ('Əvvəl\n{| class="wikitable"\n|-\n! a !! b\n|-\n| 1 || {{x|}}\n|}\nSonra', "Əvvəl\nSonra"),
        ("Əvvəl\n:{| \n| a\n{|\n| iç\n|}\n|}\nSonra", "Əvvəl\nSonra"),
        ("<gallery>\nFayl:A.jpg|x\n</gallery>Mətn __NOTOC__ __BAŞLIQSIZ__", "Mətn"),
        ("* bir\n** ''iki''\n# '''üç'''\n; dörd: beş\n----\n&nbsp;&lt;altı&gt;", "bir\niki\nüç\ndörd: beş\n<altı>"),
        ("[https://x.az sayt] və [//y.az] və [http://z.az] https://w.az", "sayt və və https://w.az"),
        ("Ad ({{IPA|x}}; {{audio}}) sözdür", "Ad sözdür"),
        ("Ad ({{lang-ru|Имя}}; {{audio}}) və ({{IPA|x}}, {{lang|ru|Имя}}), (1,)", "Ad (Имя) və (Имя), (1,)"),
        ("Əhalisi {{formatnum:12500}} nəfər, {{Formatnum: {{#expr:1}} }}{{formatnum:1 000|R}}", "Əhalisi 12500 nəfər, 1 000"),
        ("{{nowrap|[[Bakı|5 min]]}} il, {{small|a}}{{sc|Ad}}, {{nowrap}}{{abbr|km|kilometr}}", "5 min il, aAd, km"),
        ("{{convert|93|km2|sqmi}}, {{unit|1 200|m}}, {{cvt|2|to|4|km|mi}}, {{val|5|u=kg}}", "93 km², 1 200 m, 2–4 km, 5 kg"),
        ("{{°C|-10}} və {{convert|20|C|F}}", "-10 °C və 20 °C"),
        ("{{Dəqiq tarix|12|may|1918}}, {{start date|1991|08|30}}", "12 may 1918, 30 avqust 1991"),
        ("{{Doğum_tarixi|1|2|1990}}", "1 fevral 1990"),
        ("{{transl|ru|Primer}} {{lang|1=la|2=x}} {{nowrap|1=a=b}} {{lang|ru}}son", "Primer x a=b son"),
        ("{{Sitat|Bu {{nowrap|misra}}dır.}} {{uc:işıq}} {{1|a}}", "Bu misradır. İŞIQ"),
        (
            "{{math|x{{=}}2}}, 1990{{–}}1995, 5{{x}}10, 3{{efn|a}}-cü, {{frac|1|2}}, {{frac|3|1|2}}",
            "x=2, 1990–1995, 5 10, 3-cü, 1/2, 3 1/2",
        ),
        ("{{circa|1250}} il, {{USD|5}}, H{{sub|2}}O, 10{{×}}5, {{nowrap|{{math|y{{=}}3}}}}", "1250 il, 5 USD, H2O, 10×5, y=3"),
        ("{{nowrap|" + "a" * 3000 + "}}son", "son"),
        ("== Tarix ==\nMətn\n=== Alt ===\nDavam", "Tarix\nMətn\nAlt\nDavam"),
        ("Mətn\n== İstinadlar ==\n{{istinad siyahısı}}\n* x", "Mətn"),
        ("Mətn\n==Xarici keçidlər==\n* x\n=== Kitab ===\ny\n== Sonra ==\nz", "Mətn\nSonra\nz"),
        ("Mətn\n== '''HƏMÇİNİN BAX''' ==\n* x\n==MƏNBƏ==\ny\n== Ədəbiyyat: ==\nz", "Mətn"),
        ("Mətn\n== Boş ==\n{{x}}\n== Dolu ==\ny\n== Son ==", "Mətn\nDolu\ny"),
        ("{{İnfoqutu\n| ad = Bakı\n| ölkə = x\nBakı şəhərdir.", "İnfoqutu\nBakı şəhərdir."),
        ("Mətn }} və ]] və <ref> açıq", "Mətn və və açıq"),
    ],
)
def test_wikitext_to_plain_text(wikitext, expected):
    assert plain_text(wikitext) == expected


HOSTILE = [
    "{{",
    "[[",
    "}}",
    "]]",
    "{|\n",
    "\n|}",
    "<ref>",
    "<!--",
    "<ref",
    "<nowiki>",
    "[http://",
    "[mailto:",
    "'",
    "=",
    "(  ",
    "__A",
    "&#",
    "&",
    " ",
    "\n",
    "[[a|",
    "{{[[",
    "]]}}",
    "<",
    "</",
    "|}}",
    "== a ==\n",
    "{{a|b}}",
    "[[a]]",
    "\n|",
    "( -",
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*HOSTILE, "söz", "Fayl:"]), max_size=40))
def test_any_marks_in_any_order_leave_the_next_section(marks):
    """Whatever marks are still open before it. Comments, notes and literals may close later, so those are left out."""
    before = "".join(mark for mark in marks if mark not in ("<!--", "<ref>", "<nowiki>"))
    assert plain_text(before + "\n== Bölmə ==\nson söz").endswith("son söz")


@pytest.mark.parametrize("one", [*HOSTILE, "{{[[Fayl:"])
def test_hostile_marks_end_in_time(one):
    text = plain_text(one * 40_000 + "\nson")  # an hour, if the time were quadratic
    assert text.count("son") == 1


def test_numbers_of_entities_have_any_length():
    long = "1" * 5000
    assert plain_text(f"a &#{long}; &#x{long}; &#{'0' * 5000}65; &#00399; &#x18f;") == "a \ufffd \ufffd A Ə Ə".replace(
        "Ə", chr(399)
    )


def test_a_stream_that_unpacks_to_much_is_never_held(tmp_path):
    """2 kB of .bz2 that hold 370 MB: the article after it is read, within 300 MB of address space more."""
    bomb = bz2.BZ2Compressor()
    packed = bomb.compress(b"<page>") + b"".join(bomb.compress(bytes(1 << 24)) for _ in range(22)) + bomb.flush()
    rest = bz2.compress(b"</page>" + PAGES[0].encode() + TAIL.encode())
    (tmp_path / "a.xml.bz2").write_bytes(bz2.compress(HEAD.encode()) + packed + rest)
    result = within(
        300 << 20,
        f"""
        from corpus.reading.sources import read_file
        for item in read_file(Path({str(tmp_path / "a.xml.bz2")!r}), "a", {{}}):
            print(type(item).__name__, item.line, getattr(item, "reason", ""))
    """,
    )
    assert result == ["Reject 1 too_long", "Record 2 "]


def test_deep_nesting():
    assert plain_text("{{" * 50_000 + "a" + "}}" * 50_000 + " son") == "son"
    assert plain_text("[[" * 50_000 + "a" + "]]" * 50_000) == "a"
