"""Next-sentence sets: constructions in stated shares, cues that tell nothing, groups by document, refusals that say why."""

from collections import Counter

import pytest

from builders.next_sentence import cues
from common.errors import UserError
from common.files import read_jsonl, write_jsonl
from language.base import load_language
from tasks.load import load_task
from tasks.next_sentence import NEXT, TRUE, build_next_sentence
from tasks.settings import TaskSettings
from tests.builders.making import contents, documents, make, read_by_finetune, rows_of

AZ = load_language("azerbaijani")
SMALL = ("kind=next_sentence", "next_sentence.cue_pairs=50", "next_sentence.cue_bound=0.7", "shares=[0.5, 0.1, 0.4]")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Three files: documents, one of them again word for word, and one nearly."""
    folder = tmp_path_factory.mktemp("text")
    own = documents()
    near = own[0]["text"].split(" ")
    near[4] = "başqa"
    write_jsonl(folder / "a.jsonl", own[:60])
    write_jsonl(folder / "b.jsonl", [*own[60:], {"id": "twin", "text": own[3]["text"].upper()}, {"text": " ".join(near)}])
    (folder / "c.txt").write_text("Bu sənəd qısadır.\n", encoding="utf-8")
    return folder


def test_the_set_is_what_it_says_and_fine_tuning_reads_it(text, tmp_path):
    out = tmp_path / "set"
    report = make(out, *SMALL, f"files={text}/*", "next_sentence.negatives={other_document: 2, same_document: 1, swapped: 1}")
    rows = rows_of(out)
    made = Counter(row["construction"] for row in rows)
    unit = made["swapped"]
    assert made == {TRUE: 4 * unit, "other_document": 2 * unit, "same_document": unit, "swapped": unit} and unit > 20
    assert Counter(row["label"] for row in rows) == {"next": 4 * unit, "other": 4 * unit}
    for split in ("train", "test"):  # balanced there too
        labels = Counter(row["label"] for row in rows_of(out, split))
        assert abs(labels["next"] - labels["other"]) <= 2
    groups = [{row["group"] for row in rows_of(out, split)} for split in ("train", "dev", "test")]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    task = read_by_finetune(out, report)
    assert (len(task.train), len(task.test)) == (report["examples"]["train"], report["examples"]["test"])
    assert not task.skipped and task.next_sentence and task.positive == "next"
    assert not any("share their text or group" in note for note in task.notes)
    names = [row["baseline"] for row in report["difficulty"]["rows"]]
    assert names == ["majority", "all_positive", "tfidf", "cues", "blind"] and report["difficulty"]["smallest_difference"] > 0
    card = (out / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("## Surface cues", "## Set aside", "not stated", "**swapped**", "SHA-256"))


def test_planted_duplicates_are_found(text, tmp_path):
    report = make(tmp_path / "set", *SMALL, f"files={text}/*")
    put = [row for _, row in read_jsonl(tmp_path / "set" / "aside.jsonl")]
    assert [(row["id"], row["reason"], row["row"]) for row in put] == [("twin", "the same document as another", {"as": "d3"})]
    assert report["aside"] == {"the same document as another": 1}
    assert report["counts"]["documents grouped with a near duplicate"] == 1


def test_planted_leaks_are_found(text, tmp_path):
    report = make(tmp_path / "set", *SMALL, f"files={text}/*", f"overlap={text}", "overlap_words=5")
    assert report["leakage"]["touched"] == report["leakage"]["items"] == report["examples"]["test"]
    assert any("test items stand in the corpus by half or more" in line for line in report["beware"])
    assert len(list(read_jsonl(tmp_path / "set" / "overlap.jsonl"))) == report["examples"]["test"]


def test_built_twice_and_after_a_kill_it_is_the_same_to_the_byte(text, tmp_path, capsys, monkeypatch):
    make(tmp_path / "one", *SMALL, f"files={text}/*")
    with monkeypatch.context() as patch:
        patch.setattr("builders.build.write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            make(tmp_path / "two", *SMALL, f"files={text}/*")
    assert not (tmp_path / "two").exists()
    make(tmp_path / "two", *SMALL, f"files={text}/*")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    capsys.readouterr()
    make(tmp_path / "two", *SMALL, f"files={text}/*")
    assert capsys.readouterr().out == f"already complete: {tmp_path / 'two'}\n"
    (tmp_path / "two" / "data" / "dev.jsonl").write_text("{}\n")
    make(tmp_path / "two", *SMALL, f"files={text}/*")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_task_documents_calls_the_same_function(text, tmp_path):
    task = load_task(TaskSettings(kind="pair", documents=f"{text}/a.jsonl", max_examples=120, language="az"))
    own = [{**row, "source": "a.jsonl"} for _, row in read_jsonl(text / "a.jsonl")]
    built = build_next_sentence(own, AZ, 0, 120)
    assert sorted(e["id"] for part in (task.train, task.dev, task.test) for e in part) == sorted(e["id"] for e in built)


def test_a_cue_that_is_there_is_found_and_the_set_refused(text, tmp_path):
    """True continuations of these documents are told by nothing; with a digit put into them, every one is."""
    examples = build_next_sentence(documents(200), AZ, 0, 2000)
    half = len(examples) // 2
    honest = cues(examples[:half], examples[half:])
    assert set(honest) == {"other_document", "same_document", "swapped"}
    assert all(one["pairs"] > 100 and one["accuracy"] < 0.65 for one in honest.values())
    planted = [{**e, "text_b": e["text_b"] + (" 5" if e["label"] == NEXT else " a")} for e in examples]
    assert all(one["accuracy"] > 0.95 for one in cues(planted[:half], planted[half:]).values())
    with pytest.raises(UserError, match=r"cues alone tell \w+ .* above the bound of 50\.1 %"):
        make(tmp_path / "set", *SMALL, f"files={text}/*", "next_sentence.cue_bound=0.501")
    assert not (tmp_path / "set").exists()


def test_too_few_test_pairs_are_refused(text, tmp_path):
    with pytest.raises(UserError, match=r"test pairs of \w+, 1,500 are asked for"):
        make(tmp_path / "set", "kind=next_sentence", f"files={text}/*")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["files=nowhere/*.txt"], "files=nowhere"),
        ([], "files: no file given"),
        (["shares=[0.5, 0.5, 0.5]"], "three numbers that add up to 1"),
        (["language=klingon"], "no pack"),
    ],
)
def test_wrong_words_are_messages(words, said, tmp_path):
    with pytest.raises(UserError, match=said):
        make(tmp_path / "set", "kind=next_sentence", *words)


def test_weights_that_say_nothing_are_messages():
    with pytest.raises(UserError, match="'other' is no construction"):
        build_next_sentence(documents(5), AZ, negatives={"other": 1})
    with pytest.raises(UserError, match="one above 0"):
        build_next_sentence(documents(5), AZ, negatives={"swapped": 0})
    assert {e["construction"] for e in build_next_sentence(documents(20), AZ, negatives={"same_document": 1})} == {
        TRUE,
        "same_document",
    }


def test_another_language_by_one_key(tmp_path):
    words = "kitap okuyan çocuk bahçede kırmızı elma gördü sonra nehir kıyısında dostu ile büyük şehre gitti"
    write_jsonl(tmp_path / "tr.jsonl", documents(words=words))
    report = make(tmp_path / "set", *SMALL, f"files={tmp_path}/tr.jsonl", "language=turkish")
    assert report["language"] == "turkish" and "language: [tr]" in (tmp_path / "set" / "README.md").read_text(encoding="utf-8")
