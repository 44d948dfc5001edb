"""Translated sets by a word-for-word translator: answers found again, every row's status, faults of a command, the sheet."""

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest
import torch

from builders.spans import INFLECTED, locate, locate_by_marks, places
from builders.translators import by_model
from common.errors import UserError
from common.files import read_jsonl, write_json, write_jsonl
from common.launch import ROOT
from language.base import load_language
from tests.builders.making import contents, make, read_by_finetune, rows_of

AZ = load_language("azerbaijani")

# Word for word, with an ending where English has a preposition. A mode on the command line makes a fault.
TRANSLATOR = r"""
import json, os, re, sys, time

WORDS = dict(zip(
    "Baku Ganja Shusha spring city old is was in the built Where When What did nobody know river long cold and lost".split(),
    "Bakı Gəncə Şuşa yaz şəhər qədim - idi - - tikilib Harada Nəvaxt Nə - heçkim bilir çay uzun soyuq və -".split(),
))
mode, log = sys.argv[1], sys.argv[2]


def translate(text):
    out, parts = [], re.findall(r"\w+|[^\w\s]", text)
    for place, part in enumerate(parts):
        new = WORDS.get(part, part)
        if place and "in" in parts[max(0, place - 2):place] and part in ("Baku", "Ganja", "Shusha"):
            new += "da" if new[-1] in "ıa" else "də"
        out.append(new)
    if text == "spring":
        out = ["bahar"]  # alone it has another translation than in a sentence
    if text == "lost":
        out = ["itmiş"]
    said = " ".join(part for part in out if part != "-")
    return re.sub(r" ([.,?\]])", r"\1", said).replace("[ ", "[")


for number, line in enumerate(sys.stdin):
    text = json.loads(line)["text"]
    with open(log, "a", encoding="utf-8") as file:
        file.write(text + "\n")
    if mode == "fail" and number == 3:
        sys.exit("no more memory")
    if mode == "hang" and number == 3:
        time.sleep(60)
    if mode == "slow":
        time.sleep(0.02)
    if mode == "few" and number == 3:
        continue
    if mode == "many" and number == 3:
        print(json.dumps("x"))
    if mode == "noise" and number == 3:
        print("loading the model")
    print(json.dumps({"text": "" if text == "empty" else translate(text)}), flush=True)
"""


@pytest.fixture
def translator(tmp_path):
    (tmp_path / "mine.py").write_text(TRANSLATOR, encoding="utf-8")

    def command(mode="well", log="log.txt"):
        return f"translate.command='{sys.executable} {tmp_path}/mine.py {mode} {tmp_path}/{log}'"

    return command


def squad(path, n=24):
    """Articles whose answers are exact, inflected, marked, ambiguous for words but not for marks, lost, and not there."""
    articles = []
    for i in range(n):
        text = f"The old city {i} is Ganja. It was built in Baku. The river is long in spring."
        text += f" Shusha {i} is cold and Shusha is old. Nobody {i} is lost."
        asked = [("What is it", "Ganja", 0), ("Where was it built", "Baku", 0), ("When is it long", "spring", 0)]
        asked += [("What is old", "Shusha", 1), ("What is lost", "lost", 0), ("What did nobody know", None, 0)]
        questions = []
        for number, (question, answer, nth) in enumerate(asked):
            start = [m.start() for m in re.finditer(answer, text)][nth] if answer else 0
            answers = [{"text": answer, "answer_start": start}] if answer else []
            questions.append(
                {"id": f"q{i}-{number}", "question": f"{question} {i}?", "answers": answers, "is_impossible": not answer}
            )
        articles.append({"title": f"t{i}", "paragraphs": [{"context": text, "qas": questions}]})
    write_json(path, {"version": "v2.0", "data": articles})
    return path


QA = ("kind=translate", "translate.task=qa", "translate.sheet=12")


def test_answers_are_found_again_and_every_row_is_kept(tmp_path, translator, capsys):
    out = tmp_path / "set"
    report = make(out, *QA, f"files={squad(tmp_path / 'squad.json')}", translator())
    rows = {row["id"].split("-", 1)[1]: row for _, row in read_jsonl(out / "rows.jsonl")}
    assert len(rows) == 24 * 6
    found = {number: {row["status"] for key, row in rows.items() if key.endswith(f"-{number}")} for number in range(6)}
    assert found == {0: {"exact"}, 1: {"inflected"}, 2: {"marked"}, 3: {"marked"}, 4: {"lost"}, 5: {"no answer"}}
    made = {row["id"].split("-", 1)[1]: row for row in rows_of(out)}
    assert len(made) == 24 * 5 and all(
        row["context"][a["start"] :].startswith(a["text"]) for row in made.values() for a in row["answers"]
    )
    assert [made[f"q3-{number}"]["answers"][0]["text"] for number in range(4)] == ["Gəncə", "Bakıda", "yaz", "Şuşa"]
    assert made["q3-3"]["answers"][0]["start"] == made["q3-3"]["context"].rindex("Şuşa")  # the second, by the marks
    assert report["facts"]["statuses"] == {"exact": 24, "inflected": 24, "lost": 24, "marked": 48, "no answer": 24}
    assert report["aside"] == {"translation: lost": 24}
    task = read_by_finetune(out, report)
    assert not task.skipped and not any("moved" in note for note in task.notes)
    groups = [{row["group"] for row in rows_of(out, split)} for split in ("train", "dev", "test")]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert "## Translation" in (out / "README.md").read_text(encoding="utf-8")
    texts = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert len(texts) == len(set(texts))  # contexts that questions share are translated once


def test_built_twice_it_is_the_same_and_nothing_is_translated_twice(tmp_path, translator):
    source = squad(tmp_path / "squad.json")
    keys = (*QA, f"files={source}", translator())
    make(tmp_path / "one", *keys)
    make(tmp_path / "two", *keys)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    before = (tmp_path / "log.txt").read_text(encoding="utf-8")
    make(tmp_path / "two", *keys, "translate.sheet=3")  # another setting, the same texts
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == before


@pytest.mark.slow
def test_killed_and_started_again_it_goes_on(tmp_path, translator):
    source = squad(tmp_path / "squad.json")
    keys = [*QA, f"files={source}", translator("slow"), "translate.chunk=5", f"out={tmp_path}/set"]
    words = [sys.executable, "-m", "builders.build", *keys, f"hydra.run.dir={tmp_path}/run"]
    log, store = tmp_path / "log.txt", tmp_path / "set-translations"
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while not (store.exists() and sum(path.read_bytes().count(b"\n") for path in store.iterdir()) >= 10):
        assert process.poll() is None
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    (file,) = store.iterdir()
    held = [row["text"] for _, row in read_jsonl(file)]
    assert 10 <= len(held) < 40 and not (tmp_path / "set").exists()
    with open(file, "ab") as torn:  # a line that was not written whole
        torn.write(b'{"text": "Wh')
    time.sleep(0.5)  # until the translator that is left notices that nobody reads it
    seen = log.read_text(encoding="utf-8").splitlines()
    make(tmp_path / "set", *keys[:-1])
    texts = log.read_text(encoding="utf-8").splitlines()[len(seen) :]
    assert texts and not set(texts) & set(held)
    make(tmp_path / "other", *keys[:-1])
    assert contents(tmp_path / "set") == contents(tmp_path / "other")


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("fail", r"ended with code 1 after 3 of \d+ texts. no more memory"),
        ("hang", r"no line for 1 s, after 3 of \d+ texts"),
        ("few", r"\d+ lines for \d+ texts, so which is whose cannot be told"),
        ("many", r"\d+ lines for \d+ texts, so which is whose cannot be told"),
        ("noise", "line 4 of its output is neither a JSON string nor an object with a text: loading the model"),
    ],
)
def test_faults_of_a_command_are_named(tmp_path, translator, mode, says):
    start = time.monotonic()
    with pytest.raises(UserError, match=says):
        make(tmp_path / "set", *QA, f"files={squad(tmp_path / 'squad.json')}", translator(mode), "translate.timeout_s=1")
    assert time.monotonic() - start < 50  # the one that hangs for a minute is ended
    assert not (tmp_path / "set").exists() and not list(tmp_path.glob("set-translations/*"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "name the translator by translate.command"),
        (["translate.command=a", "translate.model=b"], "one of them"),
        (["translate.command=/nowhere/translate"], "cannot be started"),
        (["translate.model=/nowhere/model"], "translate.model=/nowhere/model: cannot be loaded"),
        (["translate.command=cat", "translate.keep=[good]"], "'good' is no status"),
    ],
)
def test_wrong_settings_are_messages(tmp_path, words, says):
    with pytest.raises(UserError, match=says):
        make(tmp_path / "set", *QA, f"files={squad(tmp_path / 'squad.json')}", *words)


def pairs(n=40):
    return [
        {
            "sentence1": f"The city {i} is old",
            "sentence2": f"The river {i} is {'old' if i % 2 else 'cold'}",
            "label": i % 2,
            "idx": i,
        }
        for i in range(n)
    ]


def test_pairs_keep_their_parts_and_their_labels(tmp_path, translator):
    rows = pairs()
    rows[3] |= {"sentence2": "empty"}
    rows[4] |= {"sentence1": "xx yy zz ww"}  # comes back as it is
    rows[5] |= {"sentence1": "The city 5 is old", "sentence2": "city 5 old"}  # both are "şəhər 5 qədim" but for The
    rows[6] |= {"sentence1": "old in city 6", "sentence2": "old city 6"}
    for split, part in (("train", rows), ("dev", pairs(6)), ("test", pairs(8))):
        write_jsonl(tmp_path / f"{split}.jsonl", [{**row, "sentence1": f"{row['sentence1']}"} for row in part])
    out = tmp_path / "set"
    report = make(out, "kind=translate", f"files={tmp_path}/*.jsonl", translator())
    status = {row["id"]: row["status"] for _, row in read_jsonl(out / "rows.jsonl")}
    assert [status[f"train-{i}"] for i in (3, 4, 6)] == ["empty", "unchanged", "equal"]
    assert report["examples"] == {"train": 40 - len(report["aside"]), "dev": 6, "test": 8}
    (row,) = [row for row in rows_of(out, "train") if row["id"] == "train-1"]
    assert (row["text"], row["text_b"], row["label"]) == ("The şəhər 1 qədim", "The çay 1 qədim", "1")
    read_by_finetune(out, report)


def filled(sheet, edit):
    with open(sheet, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        edit(row)
    with open(sheet.parent.parent / "filled.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return sheet.parent.parent / "filled.csv"


def test_a_sheet_that_was_filled_in_is_read_back(tmp_path, translator):
    out = tmp_path / "set"
    keys = (*QA, f"files={squad(tmp_path / 'squad.json')}", translator())
    make(out, *keys)
    with open(out / "sheet.csv", encoding="utf-8", newline="") as file:
        first = list(csv.DictReader(file))
    assert len(first) == 12 and {row["status"] for row in first} == {"exact", "inflected", "marked", "lost", "no answer"}
    said = {"exact": "yes", "inflected": "No", "lost": "yes"}

    def edit(row):
        row["ok"] = said.get(row["status"], "")
        if row["status"] == "lost":
            row["answer"] = "nobody"

    sheet = filled(out / "sheet.csv", edit)
    report = make(out, *keys, f"translate.checked={sheet}")
    number = {name: sum(row["status"] == name for row in first) for name in said}
    assert report["facts"]["checked"] == {
        "checked": sum(number.values()),
        "right": number["exact"],
        "corrected": number["lost"],
        "rejected": number["inflected"],
    }
    made = {row["id"]: row for row in rows_of(out)}
    for row in first:
        assert (row["id"] in made) == (row["status"] not in ("inflected",)), row
        if row["status"] == "lost":
            assert made[row["id"]]["answers"][0]["text"] == "Nobody"
    assert "Checked by a person" in (out / "README.md").read_text(encoding="utf-8")
    assert not any("No person has checked" in line for line in report["beware"])


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ({"ok": "perhaps"}, r"filled.csv, line \d+: ok='perhaps': expected yes, no or nothing"),
        ({"ok": "yes", "id": "train-none"}, "no row has the id 'train-none'"),
        ({"ok": "yes", "translation_1": "Başqa mətn."}, "the context cannot be changed"),
        ({"ok": "yes", "answer": "Tbilisi"}, "the answer 'Tbilisi' does not stand in translation_1"),
    ],
)
def test_a_wrong_line_of_the_sheet_is_named(tmp_path, translator, cells, says):
    keys = (*QA, f"files={squad(tmp_path / 'squad.json')}", translator())
    make(tmp_path / "set", *keys)
    sheet = filled(tmp_path / "set" / "sheet.csv", lambda row: row.update(cells))
    with pytest.raises(UserError, match=says):
        make(tmp_path / "set", *keys, f"translate.checked={sheet}")
    with pytest.raises(UserError, match="lies in the set, which is made anew"):
        make(tmp_path / "set", *keys, f"translate.checked={tmp_path}/set/sheet.csv")


def test_places_follow_the_language():
    assert places("IĞDIR və Iğdır", "ığdır", load_language("turkish"), False) == [(0, 5), (9, 14)]
    assert locate("Kitabı Gəncənin küçəsində oxudu.", "Gəncə", AZ) == (INFLECTED, (7, 15))
    assert locate("Bakı-nın küləyi", "Bakı", AZ) == (INFLECTED, (0, 8))
    assert locate("Bakıxanov gəldi", "Bakı", AZ)[1] is None  # another word
    assert locate("Bakı və Bakı", "Bakı", AZ) == ("ambiguous", None)
    text = "Şuşa soyuq və Şuşa qədim."
    assert locate_by_marks(text, "Şuşa soyuq və [Şuşa] qədim.", ["[", "]"], AZ) == (14, 18)
    assert locate_by_marks(text, "Şuşa soyuq və Şuşa qədim.", ["[", "]"], AZ) is None  # the marks were lost


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny sequence-to-sequence model with random weights and a tokenizer of words."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    folder = tmp_path_factory.mktemp("model")
    vocabulary = {
        word: i
        for i, word in enumerate(
            ["<pad>", "</s>", "<unk>", "The", "city", "river", "is", "old", "cold", ".", "?", "Baku", "Ganja"]
        )
    }
    inner = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=32
    )
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = transformers.MarianConfig(
        vocab_size=len(vocabulary), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, pad_token_id=0, eos_token_id=1,
        decoder_start_token_id=0, forced_eos_token_id=1, max_position_embeddings=64, init_std=1.0,
    )  # fmt: skip
    transformers.MarianMTModel(config).save_pretrained(folder)
    return folder


def test_a_model_of_transformers_says_what_it_says_alone(model):
    """Texts of many lengths in batches against the library, one by one."""
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    texts = ["The city is old.", "Baku", "The river is cold. The city is old. Ganja?", "old", "The river is old."]
    said = by_model(texts, {"model": str(model), "batch": 2, "max_tokens": 8})
    tokenizer, peer = AutoTokenizer.from_pretrained(model), AutoModelForSeq2SeqLM.from_pretrained(model).eval()
    for text, ours in zip(texts, said, strict=True):
        inputs = tokenizer(text, return_tensors="pt")
        inputs.pop("token_type_ids", None)
        ids = peer.generate(**inputs, num_beams=1, do_sample=False, max_new_tokens=8)
        assert ours == tokenizer.decode(ids[0], skip_special_tokens=True).strip()
    assert len(set(said)) > 1


def test_json_strings_are_taken_too(tmp_path):
    script = tmp_path / "upper.py"
    script.write_text("import json, sys\nfor line in sys.stdin:\n    print(json.dumps(json.loads(line)['text'].upper()))\n")
    write_jsonl(tmp_path / "a.jsonl", pairs())
    make(tmp_path / "set", "kind=translate", f"files={tmp_path}/a.jsonl", f"translate.command='{sys.executable} {script}'")
    assert json.loads((tmp_path / "set" / "rows.jsonl").read_text().splitlines()[0])["made"]["text"].isupper()
