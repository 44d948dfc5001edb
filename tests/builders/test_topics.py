"""Topic sets: a floor for classes, near-duplicate titles kept together, splits class by class, planted faults found."""

import random
from collections import Counter, defaultdict

import pytest

from builders.groups import largest, near_groups
from common.errors import UserError
from common.files import read_jsonl, write_jsonl, write_text
from tests.builders.making import contents, make, read_by_finetune, rows_of

WORDS = {
    "Tarix": "xanlıq qala dövlət sultan müharibə sülalə arxiv qədim abidə salnamə",
    "Kimya": "katalizator polimer turşu məhlul sintez oksid reaksiya neft birləşmə molekul",
    "Hüquq": "məhkəmə qanun cinayət müqavilə vəkil məsuliyyət konstitusiya hüquqi norma iddia",
}


def titles(per_class: int = 40, words: dict[str, str] | None = None, seed: int = 0) -> list[dict[str, str]]:
    """Titles of seven words of their class, each with a number that makes it differ from all others in most runs of letters."""
    draw, rows = random.Random(seed), []
    for label, own in (words or WORDS).items():
        for _ in range(per_class):
            chosen = [draw.choice(own.split()) + "".join(draw.choices("abcdefgh", k=4)) for _ in range(7)]
            rows.append({"title": " ".join(chosen).capitalize(), "topic": label})
    return rows


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Titles with planted faults: a rare class, equal titles, two classes for one title, near duplicates, unusable rows."""
    rows = titles()
    shout = rows[0]["title"].replace("i", "İ").upper()
    near = rows[50]["title"].split()
    near[3] = "yeni"
    rows += [{"title": shout, "topic": "Tarix"}, {"title": " ".join(near), "topic": "Kimya"}]
    rows += [{"title": title, "topic": "Kimya"} for title in (rows[90]["title"], "", "12 34")]
    rows += [{"title": rows[10]["title"] + "x"}, *titles(4, {"Tibb": "ürək qan damar xəstə həkim dərman cərrah"})]
    folder = tmp_path_factory.mktemp("titles")
    write_jsonl(folder / "titles.jsonl", rows)
    with open(folder / "titles.jsonl", "a", encoding="utf-8") as file:
        file.write("{broken\n")
    return folder


SMALL = ("kind=topics", "topics.floor=10")


def test_the_set_is_what_it_says_and_fine_tuning_reads_it(material, tmp_path):
    report = make(tmp_path / "set", *SMALL, f"files={material}/titles.jsonl")
    rows = rows_of(tmp_path / "set")
    assert Counter(row["label"] for row in rows) == {"Tarix": 40, "Kimya": 41, "Hüquq": 39}
    for split in ("train", "dev", "test"):  # class by class
        assert set(Counter(row["label"] for row in rows_of(tmp_path / "set", split))) == set(WORDS)
    assert [report["examples"][split] for split in ("train", "dev", "test")] == [84, 12, 24]
    assert report["facts"]["classes"]["Tibb"] == {"titles": 4, "groups": 4, "kept": False}
    task = read_by_finetune(tmp_path / "set", report)
    assert task.labels == ["Hüquq", "Kimya", "Tarix"] and not task.skipped
    assert not any("share their text or group" in note for note in task.notes)
    assert [row["baseline"] for row in report["difficulty"]["rows"]] == ["majority", "tfidf", "cues"]
    card = (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
    assert "| Tibb | 4 | 4 | no |" in card and "- **Hüquq** " in card


def test_every_row_that_is_not_used_is_listed_with_its_reason(material, tmp_path):
    report = make(tmp_path / "set", *SMALL, f"files={material}/titles.jsonl")
    assert report["aside"] == {
        "a class with fewer than 10 different titles": 4,
        "one title with several classes": 2,
        "a title without a letter": 1,
        "empty label": 1,
        "empty text": 1,
        "not valid JSON (Expecting property name enclosed in double quotes)": 1,
        "the same title as another": 1,
    }
    put = [row for _, row in read_jsonl(tmp_path / "set" / "aside.jsonl")]
    assert len(put) + sum(report["examples"].values()) == len(
        (material / "titles.jsonl").read_text(encoding="utf-8").splitlines()
    )
    assert all(row["file"] == "titles.jsonl" and row["line"] for row in put)
    twin = next(row for row in put if row["reason"] == "the same title as another")
    assert twin["line"] == 121 and twin["row"]["as"] == "titles.jsonl:1"


def test_planted_near_duplicates_stay_together(material, tmp_path):
    report = make(tmp_path / "set", *SMALL, f"files={material}/titles.jsonl")
    groups = defaultdict(list)
    for row in rows_of(tmp_path / "set"):
        groups[row["group"]].append(row["id"])
    assert [ids for ids in groups.values() if len(ids) > 1] == [["titles.jsonl:51", "titles.jsonl:122"]]
    assert report["counts"]["titles grouped with a near duplicate"] == 1
    alone = make(tmp_path / "alone", *SMALL, f"files={material}/titles.jsonl", "topics.near_duplicates=null")
    assert alone["counts"]["titles grouped with a near duplicate"] == 0


def test_groups_of_texts():
    """Equal keys, near ones by letters or words, and names that tie, also where one links two others."""
    a, b = "bakıda yeni məktəb binası istifadəyə verildi", "bakıda yeni məktəb binası istifadəyə verilib"
    assert near_groups([a, "c", b, "c"], 0.7, by_letters=True) == [0, 1, 0, 1]
    assert near_groups([a, "c", b, "c"], 0.7) == [0, 1, 2, 1]  # by words one of two runs differs
    assert near_groups([a, b, "c"], None) == [0, 1, 2]
    assert near_groups([a, "c", b, "d"], 0.7, by_letters=True, tied=[None, "x", "x", ""]) == [0, 0, 0, 3]
    assert near_groups([], 0.7) == [] and largest([]) == 0 and largest([0, 1, 0]) == 2


def test_a_column_that_ties_titles_keeps_them_in_one_part(tmp_path):
    rows = [{**row, "group": f"thesis {number // 4}"} for number, row in enumerate(titles())]
    write_jsonl(tmp_path / "a.jsonl", rows)
    make(tmp_path / "set", *SMALL, f"files={tmp_path}/a.jsonl")
    where = defaultdict(set)
    for split in ("train", "dev", "test"):
        for row in rows_of(tmp_path / "set", split):
            where[(int(row["id"].split(":")[1]) - 1) // 4].add(split)
    assert len(where) == 30 and all(len(parts) == 1 for parts in where.values())


def test_classes_from_a_part_of_the_metadata(tmp_path):
    """A csv whose class stands in an address; one row has none."""
    lines = [f"{row['title']},https://site.az/{row['topic']}/{n}" for n, row in enumerate(titles())]
    write_text(tmp_path / "a.csv", "\n".join(["name,url", *lines, "Başlıq,https://site.az"]) + "\n")
    words = ("columns.text=name", "columns.label=url", r"topics.pattern=site\.az/([^/]+)/", f"files={tmp_path}/a.csv")
    report = make(tmp_path / "set", *SMALL, *words)
    assert list(report["facts"]["classes"]) == sorted(WORDS)
    assert report["aside"] == {"topics.pattern finds no class": 1}


def test_titles_that_name_their_class_are_found(tmp_path):
    rows = titles()
    write_jsonl(tmp_path / "clean.jsonl", rows)
    write_jsonl(tmp_path / "named.jsonl", [{**row, "title": f"{row['topic'].upper()}: {row['title']}"} for row in rows])
    clean = make(tmp_path / "a", *SMALL, f"files={tmp_path}/clean.jsonl", "licence=MIT")
    assert clean["counts"]["titles that hold the name of their class"] == 0 and not clean["beware"]
    report = make(tmp_path / "b", *SMALL, f"files={tmp_path}/named.jsonl")
    assert any(line.startswith("120 of 120 titles hold the name of their class") for line in report["beware"])


def test_planted_leaks_and_cues_are_found(material, tmp_path):
    rows = [{**row, "title": row["title"] + ("!!!" if row["topic"] == "Tarix" else "")} for row in titles(120)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    write_jsonl(tmp_path / "corpus.jsonl", [{"id": str(n), "text": row["title"]} for n, row in enumerate(rows)])
    words = (f"files={tmp_path}/a.jsonl", f"overlap={tmp_path}/corpus.jsonl", "overlap_words=5")
    report = make(tmp_path / "set", *SMALL, *words)
    assert report["leakage"]["half"] == report["leakage"]["items"] == report["examples"]["test"]
    assert any("stand in the corpus by half or more" in line for line in report["beware"])
    assert any("surface cues alone get" in line for line in report["beware"])


def test_built_twice_and_after_a_kill_it_is_the_same_to_the_byte(material, tmp_path, monkeypatch):
    make(tmp_path / "one", *SMALL, f"files={material}/titles.jsonl")
    with monkeypatch.context() as patch:
        patch.setattr("builders.build.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "two", *SMALL, f"files={material}/titles.jsonl")
    make(tmp_path / "two", *SMALL, f"files={material}/titles.jsonl")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_another_language_by_one_key(tmp_path):
    """ISI and ısı are one word in Turkish, and two in other languages: the title is found again by its own casing."""
    rows = titles(20, {"Fizik": "ısı ışık kuvvet enerji", "Tarih": "padişah sefer antlaşma kale"})
    rows.append({"title": rows[0]["title"].replace("i", "İ").replace("ı", "I").upper(), "topic": "Fizik"})
    write_jsonl(tmp_path / "tr.jsonl", rows)
    report = make(tmp_path / "set", *SMALL, f"files={tmp_path}/tr.jsonl", "language=turkish")
    assert report["aside"] == {"the same title as another": 1}
    assert "language: [tr]" in (tmp_path / "set" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["topics.floor=50"], r"fewer than two classes have 50 different titles \(the largest: Kimya 4\d"),
        (["topics.pattern=("], "no regular expression"),
        (["columns.label=subject"], "no column for 'label'.*Name it with columns.label=COLUMN"),
        (["columns.title=title"], r"columns\.title: classification has no such field"),
        (["topics.floor=1"], "topics.floor"),
    ],
)
def test_wrong_words_are_messages(material, words, said, tmp_path):
    with pytest.raises(UserError, match=said):
        make(tmp_path / "set", "kind=topics", f"files={material}/titles.jsonl", *words)
    assert not (tmp_path / "set").exists()
