"""Silver names: types from a table and from categories, endings after links, half-tagged sentences aside, conll both ways."""

import bz2

import pytest

from builders.ner_silver import type_by_categories
from common.errors import UserError
from common.files import read_jsonl
from corpus.reading.wikipedia import Article, plain_text, read_linked
from language.base import load_language
from tests.builders.making import contents, make, read_by_finetune
from tests.corpus.test_wikipedia import HEAD, TAIL, page

AZ = load_language("azerbaijani")
KEYS = ("kind=ner_silver", "shares=[0.4, 0.3, 0.3]", "ner_silver.empty=0.4")
NAMES = ["Araz", "Kür", "Samur", "Qanıx", "Alazan", "Tərtər", "Oxçu", "Köndələn", "Turyan", "Girdiman", "Pirsaat", "Sumqayıt"]


def pages():
    """Twelve rivers, a person, a club, redirects, and every fault that a sentence may have."""
    made = [
        page(i, name, f"{name} böyük və uzun bir çaydır. Onun suyu [[Bakı|Bakıya]] və [[Gəncə]]nin kəndlərinə gedir {i} dəfə.\n"
             f"Burada adı çəkilən {name}ın sahilində çoxlu ağac və otlar var {i} dəfə.\n[[Kateqoriya:Azərbaycan çayları]]")
        for i, name in enumerate(NAMES, 1)
    ]  # fmt: skip
    made += [
        page(20, "Bakı", "Bakı gözəl və qədim şəhərdir.\n[[Kateqoriya:Azərbaycan şəhərləri]]\n[[Kateqoriya:Paytaxtlar|B]]"),
        page(21, "Gəncə", "", redirect="Gəncə (şəhər)"),
        page(22, "Gəncə (şəhər)", "Gəncə qədim və böyük şəhərdir.\n[[Kateqoriya:Azərbaycan şəhərləri]]"),
        page(23, "Üzeyir Hacıbəyov", "Bu böyük bəstəkar [[Şuşa]] şəhərindən çıxıb.\n[[Kateqoriya:Bakı şəhərində doğulanlar]]"),
        page(24, "Qarabağ FK", "Bu klub [[Üzeyir_Hacıbəyov#Həyatı|Üzeyir Hacıbəyovun]] adını daşımır.\n[[Kateqoriya:Klublar]]"),
        page(25, "Su", "Adi su [[Hidrogen]] və oksigendən ibarət maddədir.\nBurada heç bir ad yoxdur, adi bir cümlədir."),
        page(26, "Dil", "Bu sözlər [[Bakı]]sayağı deyilən sözlərdir.\nBu söz Ulu[[Bakı]] kimi yazılıb və burada qalır."),
        page(27, "Elm", "Burada Naməlum adlı bir nəfər haqqında yazılıb."),
    ]  # fmt: skip
    return made


@pytest.fixture
def dump(tmp_path):
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(bz2.compress((HEAD + "".join(pages()) + TAIL).encode()))
    return path


def sentences(out, ending="conll"):
    text = "".join((out / "data" / f"{split}.conll").read_text(encoding="utf-8") for split in ("train", "dev", "test"))
    rows = [[line.split("\t") for line in block.splitlines()] for block in text.strip().split("\n\n")]
    return {" ".join(word for word, _ in row): [tag for _, tag in row] for row in rows}


def test_links_become_names_and_fine_tuning_reads_them(dump, tmp_path):
    out = tmp_path / "set"
    report = make(out, *KEYS, f"files={dump}")
    found = sentences(out)
    tags = found["Onun suyu Bakıya və Gəncənin kəndlərinə gedir 3 dəfə ."]  # the ending is inside the link, and after it
    assert tags == ["O", "O", "B-LOC", "O", "B-LOC", "O", "O", "O", "O", "O"]  # Gəncə is a redirect
    assert (
        found["Burada adı çəkilən Samurın sahilində çoxlu ağac və otlar var 3 dəfə ."][3] == "B-LOC"
    )  # the article's own name
    assert found["Bu klub Üzeyir Hacıbəyovun adını daşımır ."][2:4] == ["B-PER", "I-PER"]  # born in a city, and no city
    assert set(found["Burada heç bir ad yoxdur , adi bir cümlədir ."]) == {"O"}
    put = {row["reason"]: row["row"] for _, row in read_jsonl(out / "aside.jsonl")}
    assert put["a word goes on after a link, and not with endings of the language"].startswith("Bu sözlər")
    assert put["a word begins before a link"].startswith("Bu söz Ulu")
    assert put["a link with a capital leads to a page without a type"].startswith(("Adi su", "Bu böyük"))
    assert put["a capital outside every name"].startswith("Burada Naməlum")
    task = read_by_finetune(out, report, "conll")
    assert task.labels[0] == "O" and {"B-LOC", "B-PER", "I-PER"} <= set(task.labels) and not task.skipped
    assert report["facts"]["names"]["LOC"] > 30 and report["counts"]["redirects to a page with a type"] == 1
    assert any(line.startswith("Silver") for line in report["beware"])
    parts = [(out / "data" / f"{split}.conll").read_text(encoding="utf-8") for split in ("train", "dev", "test")]
    assert all(sum(f"\n{name}" in part for part in parts) <= 1 for name in NAMES)  # split by article


def test_a_table_of_types_wins_and_is_part_of_the_set_s_identity(dump, tmp_path, capsys):
    table = tmp_path / "types.tsv"
    table.write_text("title\ttype\nBakı\tGPE\nGəncə (şəhər)\tO\nHidrogen\tO\n", encoding="utf-8")
    out = tmp_path / "set"
    make(out, *KEYS, f"files={dump}", f"ner_silver.types={table}", "ner_silver.open_capitals=true")
    tags = sentences(out)["Onun suyu Bakıya və Gəncənin kəndlərinə gedir 3 dəfə ."]
    assert tags[2] == "B-GPE" and tags[4] == "O"
    before = contents(out)
    table.write_text("title\ttype\nBakı\tCITY\n", encoding="utf-8")
    report = make(out, *KEYS, f"files={dump}", f"ner_silver.types={table}", "ner_silver.open_capitals=true")
    assert "CITY" in report["facts"]["names"] and contents(out) != before
    table.write_text("title,type\nBakı\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"types.tsv"):
        make(out, *KEYS, f"files={dump}", f"ner_silver.types={table}")


def test_built_twice_it_is_the_same_to_the_byte(dump, tmp_path):
    make(tmp_path / "one", *KEYS, f"files={dump}")
    make(tmp_path / "two", *KEYS, f"files={dump}")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_conll_in_is_conll_out_once_each(dump, tmp_path):
    make(tmp_path / "one", *KEYS, f"files={dump}")
    parts = [str(tmp_path / "one" / "data" / f"{split}.conll") for split in ("train", "dev", "test")]
    (tmp_path / "odd.conll").write_text("Bakı B-LOC\nbroken\n\nŞuşa B-LOC\nburada O\n\n", encoding="utf-8")
    report = make(tmp_path / "two", *KEYS, f"files=[{','.join([*parts, parts[0], str(tmp_path / 'odd.conll')])}]")
    assert sentences(tmp_path / "two") == {**sentences(tmp_path / "one"), "Şuşa burada": ["B-LOC", "O"]}
    assert sum("a line" in reason for reason in report["aside"]) == 1  # broken


def test_no_type_at_all_is_a_message(dump, tmp_path):
    with pytest.raises(UserError, match=r"ner_silver: no page has a type. Give a table"):
        make(tmp_path / "set", *KEYS, f"files={dump}", "language=generic")
    report = make(tmp_path / "set", *KEYS, f"files={dump}", "+ner_silver.categories={LOC: ['azərbaycan']}")
    assert list(report["facts"]["names"]) == ["LOC"]


def test_another_language_by_one_key(tmp_path):
    text = "Bu uzun nehrin suyu [[Ankara]]'nın yakınından geçer ve {} kez döner.\n[[Kategori:Türkiye'nin nehirleri]]"
    made = [page(i, name, text.format(i)) for i, name in enumerate(NAMES, 1)]
    made.append(page(30, "Ankara", "Ankara çok büyük bir şehirdir.\n[[Kategori:Türkiye'deki şehirler]]"))
    (tmp_path / "tr.xml").write_text(HEAD + "".join(made) + TAIL, encoding="utf-8")
    report = make(tmp_path / "set", *KEYS, f"files={tmp_path / 'tr.xml'}", "language=turkish")
    assert report["facts"]["names"] == {"LOC": 13}
    tags = sentences(tmp_path / "set")["Bu uzun nehrin suyu Ankara'nın yakınından geçer ve 3 kez döner ."]
    assert tags[4] == "B-LOC" and tags.count("O") == len(tags) - 1


def test_of_one_category_the_first_type_counts_and_of_many_the_commonest():
    rules = [("PER", ["births"]), ("LOC", ["cit"])]
    generic = load_language("generic")
    assert type_by_categories(["Births in cities"], rules, generic) == "PER"
    assert type_by_categories(["Cities", "Cities of X", "Births"], rules, generic) == "LOC"
    assert type_by_categories(["Cities", "Births"], rules, generic) is None  # as often
    assert type_by_categories(["Felicity"], rules, generic) is None  # no beginning of a word


def test_the_text_with_links_is_the_text_without_them(tmp_path):
    """What corpus.reading.wikipedia reads from the same page, and every link at its place in it."""
    text = "'''A''' [[Bakı]]nın {{dil|en}} [[Şəki|şəkili]] (1990{{–}}[[1995]]) [[Fayl:x.jpg|thumb|[[Quba]]]]"
    text += " [[en:Baku]] [[:Kateqoriya:Ad]]\U000f0001x"
    (tmp_path / "a.xml").write_text(HEAD + page(1, "A", text) + TAIL, encoding="utf-8")
    (article,) = read_linked(tmp_path / "a.xml", "a.xml", AZ)
    assert isinstance(article, Article) and article.text == plain_text(text.replace("\U000f0001", ""), AZ)
    assert [(article.text[a:b], to) for a, b, to in article.links] == [("Bakı", "Bakı"), ("şəkili", "Şəki"), ("1995", "1995")]
