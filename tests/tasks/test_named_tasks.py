"""The six tasks of the paper from folders as they are on the hub, their splits, and the controls."""

import json
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from common.errors import UserError
from common.files import write_json, write_jsonl
from common.launch import ROOT
from tasks.load import Task, load_task
from tasks.records import load_task_file
from tasks.settings import TaskSettings
from tasks.splits import leakage_group, split_by_group
from tests.conftest import read_task
from training.recipe import settings_for


def options_of(task: str | dict, *words: str) -> TaskSettings:
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        config = compose("finetune", [*words, "out=x", "run_dir=x"])
        return settings_for(config, task).task


def parquet(path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    monkeypatch.setenv("AZ_TASKS", str(tmp_path))
    return tmp_path


def load(task: str | dict, *words: str) -> Task:
    return load_task(options_of(task, *words))


def test_azsci(tasks):
    """A csv of title, topic, subtopic; small classes reach every part; a repeated title stays on one side."""
    (tasks / "hajili" / "azsci_topics").mkdir(parents=True)
    sizes = {"Tarix": 200, "Fizika": 80, "Astronomiya": 10}
    rows = [(f"{topic} üzrə mövzu {i}{'.' if i % 10 == 1 else ''}", topic) for topic, n in sizes.items() for i in range(n)]
    rows += [(title + "!", topic) for title, topic in rows[:30]]
    lines = ["title,topic,subtopic", *(f'"{title}",{topic},"x, y"' for title, topic in rows)]
    (tasks / "hajili" / "azsci_topics" / "train.csv").write_text("\n".join(lines), encoding="utf-8")
    task = load("azsci")
    assert (task.kind, task.metric, task.labels) == ("classification", "macro_f1", sorted(sizes))
    assert [Counter(e["label"] for e in part)["Astronomiya"] for part in (task.train, task.dev, task.test)] == [7, 1, 2]
    assert [len(part) / len(rows) for part in (task.train, task.dev, task.test)] == pytest.approx([0.7, 0.1, 0.2], abs=0.02)
    groups = [{leakage_group(e, "classification") for e in part} for part in (task.train, task.dev, task.test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert "70/10/20 of the train file by hash of group, class by class" in " ".join(task.notes)
    assert load("azsci").digest == task.digest


def nsp_rows(n: int) -> list[dict]:
    return [
        {
            "ind": i,
            "partial_text": f"Cümlə {i} başladı.",
            "gold_ending": f"Davam {i}.",
            "source": "k",
            **{f"distractor{k}": f"Yad {i} {k}." for k in range(4)},
        }
        for i in range(n)
    ]


def test_aznsp_as_pairs_and_as_choice(tasks):
    parquet(tasks / "allmalab" / "AZE-NSP" / "data" / "train-00000-of-00001.parquet", nsp_rows(300))
    task = load("aznsp")
    everything = [*task.train, *task.dev, *task.test]
    assert Counter(e["label"] for e in everything) == {"next": 300, "other": 300} and task.positive == "next"
    for part in (task.train, task.dev, task.test):  # both pairs of a row on one side
        assert set(Counter(e["text"] for e in part).values()) == {2}
    for e in everything:
        number = e["text"].split()[1]
        assert e["text_b"] == f"Davam {number}." if e["label"] == "next" else e["text_b"].startswith(f"Yad {number} ")
    assert len({e["text_b"].split()[2] for e in everything if e["label"] == "other"}) == 4  # every distractor is used
    choice = load({"task": "aznsp", "name": "aznsp-choice", "kind": "choice", "positive": None})
    everything = [*choice.train, *choice.dev, *choice.test]
    assert len(everything) == 300 and all(e["options"][e["label"]].startswith("Davam") for e in everything)
    places = Counter(e["label"] for e in everything)
    assert set(places) == set(range(5)) and max(places.values()) < 90  # the position does not give the answer away


def test_cbmcq_sets_pictures_and_other_languages_aside(tasks):
    good = {"question": "Azərbaycanın paytaxtı hansı şəhərdir?", "subject": "coğrafiya", "main_category": "m"}
    rows = [
        {**good, "question": f"{i}. {good['question']}", "options": ["Bakı", "Gəncə", "Şəki"][: 2 + i % 2], "answer": i % 2}
        for i in range(60)
    ]
    rows += [{**good, "options": ["Bakı", "iVBORw0KGgoAAAANSUhEUgAA"], "answer": 0}]
    rows += [{**good, "question": "Which of these is the capital of the country?", "options": ["the city", "of"], "answer": 0}]
    parquet(tasks / "allmalab" / "az-multiple-choice-questions" / "data" / "train-0.parquet", rows)
    task = load("cbmcq")
    assert len(task.train) + len(task.dev) + len(task.test) == 60 and len(task.skipped) == 2
    assert {len(e["options"]) for e in task.train} == {2, 3} and {e["group"] for e in task.train} == {"coğrafiya"}
    for reason in ("skipped 1: an image", "skipped 1: reads as another language"):
        assert any(reason in note for note in task.notes)


def test_cbmcq_blind_hides_the_question_and_keeps_the_splits(tasks):
    rows = [{"question": f"Sual {i} nədir?", "options": ["bir", "iki"], "answer": i % 2} for i in range(60)]
    parquet(tasks / "allmalab" / "az-multiple-choice-questions" / "train.parquet", rows)
    whole, blind = load("cbmcq"), load({"task": "cbmcq", "blind": "question"})
    assert blind.name == "cbmcq-blind" and [e["id"] for e in blind.test] == [e["id"] for e in whole.test]
    assert all(e["question"] == "" and e["options"] for part in (blind.train, blind.dev, blind.test) for e in part)
    with pytest.raises(UserError, match=r"task\.blind=text: choice has no such control"):
        load({"task": "cbmcq", "blind": "text"})


def test_wikiann(tasks):
    names = {"names": ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"], "_type": "ClassLabel"}
    meta = {"huggingface": json.dumps({"info": {"features": {"ner_tags": {"feature": names, "_type": "Sequence"}}}})}
    for split, count in (("train", 20), ("validation", 5), ("test", 6)):
        rows = [
            {"tokens": [f"{split}{i}", "Bakı"], "ner_tags": [0, 5], "langs": ["az", "az"], "spans": ["LOC: Bakı"]}
            for i in range(count)
        ]
        path = tasks / "unimelb-nlp" / "wikiann" / "az" / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows).replace_schema_metadata(meta), path)
    task = load("wikiann", "language=azerbaijani")
    assert [len(part) for part in (task.train, task.dev, task.test)] == [20, 5, 6]
    assert task.labels == names["names"] and task.test[0]["tags"] == ["O", "B-LOC"]


def test_mrpc(tasks):
    for split in ("train", "validation", "test"):
        rows = [{"sentence1": f"{split} bir {i}", "sentence2": f"{split} iki {i}", "label": i % 2, "idx": i} for i in range(6)]
        write_jsonl(tasks / "eljanmahammadli" / "glue-mrpc-azerbaijani" / f"{split}.jsonl", rows)
    task = load("mrpc")
    assert (task.metric, task.positive, task.labels) == ("f1", "1", ["0", "1"]) and len(task.dev) == 6


def test_squad_and_ldquad_keep_a_text_on_one_side_and_name_it(tasks):
    def qa(n: int, prefix: str) -> list[dict]:
        return [
            {
                "id": f"{prefix}{i}",
                "title": "t",
                "context": f"{prefix} mətn {i // 3} Bakı haqqında",
                "question": f"Nə {i}?",
                "answer_text": "" if i % 3 == 0 else "Bakı",
                "answer_start": -1 if i % 3 == 0 else f"{prefix} mətn {i // 3} ".__len__(),
            }
            for i in range(n)
        ]

    parquet(tasks / "LocalDoc" / "LDQuAd" / "data" / "train-00000-of-00001.parquet", qa(300, "ld"))
    task = load("ldquad")
    sides = [{e["group"] for e in part} for part in (task.train, task.dev, task.test)]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not task.skipped
    assert sum(not e["answers"] for e in [*task.train, *task.dev, *task.test]) == 100
    assert all(e["group"] == other["group"] for e in task.test for other in task.test if e["context"] == other["context"])
    for split in ("train", "dev"):
        context = f"{split} mətn 0 Bakı haqqında"
        answer = {"text": "Bakı", "answer_start": context.index("Bakı")}
        paragraphs = [{"context": context, "qas": [{"id": i, "question": "Nə?", "answers": [answer]} for i in range(30)]}]
        write_json(tasks / "squad-az" / f"{split}-v1.1.json", {"data": [{"title": "t", "paragraphs": paragraphs}]})
    with pytest.raises(UserError, match="the dev split has no example"):  # one text cannot be split
        load("squad")
    qas = [{"question": "Nə?", "answers": [{"text": "Bakı", "answer_start": 6}]}]
    paragraphs = [{"context": f"mətn {i} Bakı", "qas": qas} for i in range(100)]
    write_json(tasks / "squad-az" / "train-v1.1.json", {"data": [{"title": "t", "paragraphs": paragraphs}]})
    task = load("squad")
    assert len(task.test) == 30 and len(task.train) + len(task.dev) == 100  # the dev file is the test set


def test_az_nsp_is_built_from_the_held_out_documents_of_the_experiment(tmp_path):
    lines = [{"id": f"d{d}", "text": " ".join(f"Sənəd {d} üçün cümlə {i} budur." for i in range(12))} for d in range(60)]
    write_jsonl(tmp_path / "corpus" / "heldout.jsonl.gz", lines)
    task = load("az_nsp", f"workdir={tmp_path}", "language=azerbaijani")  # which a run takes from the checkpoint
    sides = [{e["group"] for e in part} for part in (task.train, task.dev, task.test)]
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and set().union(*sides) <= {f"d{d}" for d in range(60)}
    counts = Counter(e["label"] for part in (task.train, task.dev, task.test) for e in part)
    assert counts == {"next": 174, "other": 174}  # of 180 and 180: pairs of which not all kinds can be made are left out


def test_a_missing_set_is_named(tasks):
    with pytest.raises(UserError, match=r"hajili/azsci_topics: no such file"):
        load("azsci")
    with pytest.raises(UserError, match=r"tasks: unknown key 'bind'"):
        load({"task": "azsci", "bind": "question"})


@pytest.mark.parametrize("shares", [[0.7, 0.1], [0.7, 0.2, 0.2], [1.0, 0.0, 0.0]])
def test_invalid_shares(tmp_path, shares):
    write_jsonl(tmp_path / "a.jsonl", [{"text": f"m {i}", "label": "ab"[i % 2]} for i in range(30)])
    with pytest.raises(UserError, match=r"task\.shares="):
        read_task({"kind": "classification", "train": str(tmp_path / "a.jsonl"), "shares": shares})


def test_new_rows_move_few_old_ones_of_a_stratified_split():
    old = [{"id": str(i), "text": f"mətn {i}", "label": "abc"[i % 3]} for i in range(600)]
    more = [{"id": f"n{i}", "text": f"yeni {i}", "label": "abc"[i % 3]} for i in range(60)]
    where = [
        {e["id"]: n for n, part in enumerate(split_by_group(rows, "classification", (0.7, 0.1, 0.2), True)) for e in part}
        for rows in (old, [*more, *old])
    ]
    moved = sum(where[0][e["id"]] != where[1][e["id"]] for e in old)
    assert moved <= 30 and [Counter(where[0].values())[n] for n in range(3)] == [420, 60, 120]


def test_the_real_sets_all_load(az_data, monkeypatch):
    monkeypatch.setenv("AZ_DATA", str(az_data))
    sizes = {}
    for name in ("az_topic", "az_ner", "az_sentiment", "az_news", "az_choice", "az_paraphrase", "tr_qa"):
        task = load(name)
        sizes[name] = sum(len(getattr(task, split)) for split in ("train", "dev", "test"))
    assert sizes == {
        "az_topic": 1004,
        "az_ner": 1349,
        "az_sentiment": 19557,
        "az_news": 2040,
        "az_choice": 346,
        "az_paraphrase": 243,
        "tr_qa": 9200,
    } | {"tr_qa": sizes["tr_qa"]}
    assert 9100 < sizes["tr_qa"] <= 9200
    news = load("az_news")
    assert len(news.labels) == 16 and len({e["label"] for e in news.test}) >= 15  # one section has two headlines


def test_the_language_rule_keeps_real_questions_and_drops_turkish(az_data):
    folder = az_data / "tasks" / "mcq_tumlu"
    own = TaskSettings(language_only=True, language="azerbaijani")
    kept = {
        name: len(load_task_file(folder / f"{name}_test.jsonl", "choice", own).examples)
        for name in ("azerbaijani", "turkish", "kazakh")
    }
    assert kept["azerbaijani"] == 346 and kept["turkish"] < 200 and kept["kazakh"] < 50
