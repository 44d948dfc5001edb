"""Files from the Hugging Face hub and spreadsheets: parquet, arrow, folders, label names, unusual line ends."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.errors import UserError
from common.files import write_jsonl
from tasks.files import TaskFile, files_of, read_rows
from tasks.records import load_task_file
from tests.conftest import read_task

NAMES = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]


def with_names(table: pa.Table, **features: dict) -> pa.Table:
    """The table with the metadata that `datasets` writes."""
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def ner(*sentences: tuple[list[str], list[int]], kind: str = "Sequence") -> pa.Table:
    table = pa.table({"tokens": [words for words, _ in sentences], "ner_tags": [tags for _, tags in sentences]})
    label = {"names": NAMES, "_type": "ClassLabel"}
    return with_names(table, ner_tags=[label] if kind == "list" else {"feature": label, "_type": kind})


@pytest.mark.parametrize("kind", ["Sequence", "List", "list"])
def test_tag_numbers_take_their_names_from_the_file(tmp_path, kind):
    pq.write_table(ner((["Bakı", "gözəl"], [5, 0]), (["Əli"], [9]), kind=kind), tmp_path / "a.parquet")
    loaded = load_task_file(tmp_path / "a.parquet", "tagging")
    assert [(e["words"], e["tags"]) for e in loaded.examples] == [(["Bakı", "gözəl"], ["B-LOC", "O"])]
    assert loaded.labels == NAMES
    assert [(s["line"], s["reason"]) for s in loaded.skipped] == [(2, "label '9' is not in task.labels")]


def test_class_numbers_take_their_names_and_minus_one_is_not_a_class(tmp_path):
    table = with_names(pa.table({"text": ["a", "b", "c"], "label": [1, 0, -1]}), label={"names": ["pis", "yaxşı"]})
    pq.write_table(table, tmp_path / "a.parquet")
    loaded = load_task_file(tmp_path / "a.parquet", "classification")
    assert [e["label"] for e in loaded.examples] == ["yaxşı", "pis"] and len(loaded.skipped) == 1


@pytest.mark.parametrize("layout", ["stream", "file"])
def test_arrow_as_datasets_and_feather_write_it(tmp_path, layout):
    table = ner((["Bakı"], [5]), (["gəldi"], [0]))
    open_writer = pa.ipc.new_stream if layout == "stream" else pa.ipc.new_file
    with open_writer(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    assert [e["tags"] for e in load_task_file(tmp_path / "a.arrow", "tagging").examples] == [["B-LOC"], ["O"]]


def test_a_torn_parquet_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"mətn {i}" for i in range(5000)], "label": ["a", "b"] * 2500}), path)
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], whole[:100] + b"\xff" * 2000 + whole[2100:]):
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.parquet: (damaged|cannot be read)"):
            load_task_file(path, "classification")


def hub(folder, *names: str) -> None:
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        rows = [{"text": f"{number} {i} {name}", "label": "ab"[i % 2]} for i in range(4)]
        if name.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(rows), path)
        elif name.endswith(".jsonl"):
            write_jsonl(path, rows)
        else:
            path.write_text("{}")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet", "README.md"], {"train": 2}),
        (["train.jsonl", "validation.jsonl", "test.jsonl", "dataset_infos.json"], {"train": 1, "dev": 1, "test": 1}),
        (["train/data-00000.parquet", "dev/data-00000.parquet", "train/state.json"], {"train": 1, "dev": 1}),
        (["questions.jsonl", ".cache/huggingface/train.jsonl"], {"train": 1}),
        (["my_set_test.jsonl", "my_set_training.jsonl"], {"train": 1, "test": 1}),
    ],
)
def test_folders_of_the_hub(tmp_path, names, expected):
    hub(tmp_path, *names)
    assert {split: len(found) for split in ("train", "dev", "test") if (found := files_of(tmp_path, split))} == expected


@pytest.mark.parametrize("names", [["az/train.jsonl", "tr/train.jsonl"], ["train.jsonl", "train.parquet"]])
def test_a_folder_with_a_split_twice_is_refused(tmp_path, names):
    hub(tmp_path, *names)
    with pytest.raises(UserError, match=r"train split more than once .*train\.(jsonl|parquet).*task\.train"):
        files_of(tmp_path, "train")


def test_a_folder_gives_all_its_splits_and_ids_name_the_file(tmp_path):
    hub(tmp_path, "data/train-0.parquet", "data/train-1.parquet", "data/validation-0.parquet", "data/test-0.parquet")
    task = read_task({"kind": "classification", "train": str(tmp_path)})
    assert [len(part) for part in (task.train, task.dev, task.test)] == [8, 4, 4]
    assert task.train[5]["id"] == "train-1.parquet:2" and "validation" in task.dev[0]["text"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="a folder without a file for this split"):
        read_task({"kind": "classification", "train": str(tmp_path / "empty")})


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_any_line_end(tmp_path, end):
    files = {
        "a.csv": ["text,label", '"bir, iki",a', "üç,b", ""],
        "a.tsv": ["text\tlabel", "bir, iki\ta", "üç\tb", ""],
        "a.jsonl": ['{"text": "bir, iki", "label": "a"}', '{"text": "üç", "label": "b"}', ""],
    }
    for name, lines in files.items():
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + end.join(lines).encode())
        loaded = load_task_file(tmp_path / name, "classification")
        assert [(e["text"], e["label"]) for e in loaded.examples] == [("bir, iki", "a"), ("üç", "b")], name
        assert not loaded.notes and not loaded.skipped
    (tmp_path / "a.conll").write_bytes(end.join(["Bakı\tB-LOC", "gözəl\tO", "", "Əli B-PER", ""]).encode())
    assert [e["words"] for e in load_task_file(tmp_path / "a.conll", "tagging").examples] == [["Bakı", "gözəl"], ["Əli"]]


def test_mixed_line_ends_are_noted(tmp_path):
    (tmp_path / "a.csv").write_bytes("text,label\r\nbir,a\nüç,b\r".encode())
    loaded = load_task_file(tmp_path / "a.csv", "classification")
    assert len(loaded.examples) == 2
    assert [note["file"] for note in loaded.noted] == ["a.csv"] and "lines end in different ways" in loaded.noted[0]["reason"]


def test_two_columns_of_one_name_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("text,text,label\na,b,c\n")
    with pytest.raises(UserError, match=r"a\.csv: two columns are called 'text'"):
        list(read_rows(tmp_path / "a.csv", "classification", TaskFile()))
