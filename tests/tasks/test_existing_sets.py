"""Published sets of many languages by the language's own codes: downloaded from a local hub with files of the same formats."""

import gzip
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from sklearn.metrics import accuracy_score

from common.errors import UserError
from common.launch import read_option
from common.settings import typed
from corpus.build import build_corpus
from corpus.settings import Corpus
from language.base import Language, load_language
from tasks.base import kind_of
from tasks.load import load_task
from tasks.records import load_task_file
from tasks.scoring import score_predictions
from tests.corpus.hub_server import serving
from tests.tasks.test_named_tasks import options_of

pytest.importorskip("huggingface_hub")
AZ, TR = "azerbaijani", "turkish"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.delenv("AZ_TASKS", raising=False)
    with serving(tmp_path, monkeypatch) as server:
        yield server


def load(name, language, *words):
    return load_task(options_of(name, f"language={language}", *words))


def parquet(rows, names=None):
    out = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    if names:  # as `datasets` writes a list of ClassLabel
        column, labels = names
        feature = {"feature": {"names": labels, "_type": "ClassLabel"}, "_type": "Sequence"}
        info = {"info": {"features": {column: feature}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(info)})
    pq.write_table(table, out)
    return out.getvalue()


def sib(word, n):
    rows = [f"{i}\t{'science/technology' if i % 2 else 'travel'}\t{word} cümlə {i}." for i in range(n)]
    return "\n".join(["index_id\tcategory\ttext", *rows]).encode()


@pytest.mark.parametrize(("language", "folder"), [(AZ, "azj_Latn"), (TR, "tur_Latn"), ("kazakh", "kaz_Cyrl")])
def test_sib200_by_one_key(hub, language, folder):
    hub.sets["Davlan/sib200"] = {
        f"data/{name}/{split}.tsv": sib(f"{name} {split}", n)
        for name in ("azj_Latn", "tur_Latn", "kaz_Cyrl", "azb_Arab")
        for split, n in (("train", 20), ("dev", 4), ("test", 8))
    }
    task = load("sib200", language)
    assert [len(part) for part in (task.train, task.dev, task.test)] == [20, 4, 8] and task.labels[1] == "travel"
    assert all(e["text"].startswith(f"{folder} {s}") for s in ("train", "dev", "test") for e in getattr(task, s))
    asked = [path for method, path, _ in hub.asked if "/resolve/" in path and method == "GET"]
    assert len(asked) == 3 and all(folder in path for path in asked)  # no other language is downloaded
    before = len(hub.asked)
    assert load("sib200", language).digest == task.digest
    assert len(hub.asked) == before  # the second time without the network, at the same commit
    assert any("at commit 0123456789ab" in note for note in task.notes)


def test_two_languages_in_one_cache_are_not_mixed(hub):
    """MASSIVE has the languages beside each other: train/az.json.gz, train/tr.json.gz."""

    def lines(language, n):
        rows = [{"id": str(i), "label": "x", "label_text": f"intent_{i % 3}", "text": f"{language} söz {i}"} for i in range(n)]
        return gzip.compress("".join(json.dumps(row | {"lang": language}) + "\n" for row in rows).encode())

    sizes = {"train": 12, "validation": 3, "test": 6}
    names = {"az": AZ, "tr": TR}
    hub.sets["mteb/amazon_massive_intent"] = {
        f"{split}/{code}.json.gz": lines(code, n) for split, n in sizes.items() for code in [*names, "de"]
    } | {"README.md": b"x", "amazon_massive_intent.py": b"x"}
    for code, language in names.items():
        task = load("massive", language)
        assert [len(part) for part in (task.train, task.dev, task.test)] == [12, 3, 6]
        assert task.labels == ["intent_0", "intent_1", "intent_2"]
        assert all(e["text"].startswith(code) for part in (task.train, task.dev, task.test) for e in part)


def test_amazon_s_own_columns_of_massive(tmp_path):
    path = tmp_path / "m.jsonl"
    rows = [{"id": i, "locale": "az-AZ", "intent": f"a{i % 2}", "utt": f"saat {i}", "annot_utt": "x"} for i in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    examples = load_task_file(path, "classification").examples
    assert [(e["text"], e["label"]) for e in examples[:2]] == [("saat 0", "a0"), ("saat 1", "a1")]


def belebele(n=200):
    rows = []
    for i in range(n):
        options = {f"mc_answer{k}": f"cavab {k} {i}" for k in range(1, 5)}
        rows.append(
            {"link": f"l{i // 2}", "question_number": 1 + i % 2, "flores_passage": f"Mətn {i // 2} haqqında."}
            | {
                "dialect": "azj_Latn",
                "question": f"Sual {i}?",
                "correct_answer_num": str(1 + i % 4),
                "ds": "2023-05-03",
                **options,
            }
        )
    return rows


def test_belebele_counts_from_one_and_keeps_a_passage_together(hub):
    rows = belebele()
    rows[3]["correct_answer_num"] = "0"
    rows[5]["correct_answer_num"] = "5"  # there is no fifth option
    rows[9]["flores_passage"] = " "
    body = "".join(json.dumps(row) + "\n" for row in rows).encode()
    hub.sets["facebook/belebele"] = {"data/azj_Latn.jsonl": body, "data/tur_Latn.jsonl": b"{}\n"}
    task = load("belebele", AZ)
    examples = [e for part in (task.train, task.dev, task.test) for e in part]
    numbers = [int(e["question"][5:-1]) for e in examples]
    assert len(examples) == 197
    assert [e["options"][e["label"]] for e in examples] == [f"cavab {1 + i % 4} {i}" for i in numbers]
    reasons = sorted(skip["reason"] for skip in task.skipped)
    assert len(reasons) == 3 and reasons[0] == "answer '0' is no number from 1 to 4" and reasons[-1] == "empty passage"
    groups = [{e["group"] for e in part} for part in (task.train, task.dev, task.test)]
    assert not groups[0] & groups[1] and not groups[0] & groups[2] and not groups[1] & groups[2]
    assert len({e["context"] for e in examples}) == len(set().union(*groups)) == 100
    blind = load({"task": "belebele", "blind": "context"}, AZ)
    assert all(not e["context"] for e in blind.test) and [e["id"] for e in blind.test] == [e["id"] for e in task.test]
    own = kind_of("reading")
    for name in own.baselines:
        said = own.baseline(name, task.train, task.test, None, None)
        records = [{"id": e["id"], "gold": e["label"], **row} for e, row in zip(task.test, said, strict=True)]
        metrics = score_predictions(records, own)["metrics"]
        assert metrics["accuracy"] == accuracy_score([r["gold"] for r in records], [r["pred"] for r in records])
        assert not any("subject" in name for name in metrics)  # a passage is no subject


WIKIANN = ["O", "B-PER", "I-PER", "B-ORG", "I-ORG", "B-LOC", "I-LOC"]


def test_wikiann(hub):
    def rows(word, n):
        row = {"tokens": [word, "Əliyev", "5"], "ner_tags": [1, 2, 0], "langs": ["az"] * 3, "spans": ["PER: x"]}
        return parquet([row | {"tokens": [word, "Əliyev", str(i)]} for i in range(n)])

    sizes, codes = {"train": 9, "validation": 2, "test": 3}, ("az", "tr", "zh-min-nan")
    hub.sets["unimelb-nlp/wikiann"] = {
        f"{code}/{split}-00000-of-00001.parquet": rows(code, n) for code in codes for split, n in sizes.items()
    }
    own = {code: [{"split": split, "path": f"{code}/{split}-*"} for split in sizes] for code in codes}
    configs = [{"config_name": code, "data_files": files} for code, files in own.items()]
    hub.cards["unimelb-nlp/wikiann"] = {"configs": configs}
    task = load("wikiann", TR)
    assert [len(part) for part in (task.train, task.dev, task.test)] == [9, 2, 3]
    assert task.test[0]["words"] == ["tr", "Əliyev", "0"] and task.test[0]["tags"] == ["B-PER", "I-PER", "O"]


UPOS = ["NOUN", "PUNCT", "VERB", "_", "PRON"]
CONLLU = """# sent_id = 1
# text = Evdeydi.
1-2\tEvdeydi\t_\t_\t_\t_\t_\t_\t_\t_
1\tEvde\tev\tNOUN\t_\t_\t0\troot\t_\t_
2\tydi\ti\tAUX\t_\t_\t1\tcop\t_\t_
2.1\tboş\tboş\tVERB\t_\t_\t_\t_\t0:exroot\t_
3\t.\t.\tPUNCT\t_\t_\t1\tpunct\t_\t_

# sent_id = 2
1\t10 000\t10 000\tNUM\t_\t_\t2\tnummod\t_\t_
2\tkitap\tkitap\tNOUN\t_\t_\t0\troot\t_\t_

# sent_id = 3
1\txx\t_\t_\t_\t_\t0\troot\t_\t_

"""


def test_ud_pos_from_the_hub(hub):
    """A multiword token stands beside its parts with the tag _, which is the name of a class there."""
    rows = [{"idx": str(i), "tokens": ["Evdeydi", "Evde", "ydi", "."], "upos": [3, 0, 2, 1]} for i in range(12)]
    sizes, names = {"train": 12, "dev": 3, "test": 4}, ("upos", UPOS)
    files = {f"parquet/tr_boun/{split}.parquet": parquet(rows[:n], names) for split, n in sizes.items()}
    few = [{"tokens": [f"söz{i}", "."], "upos": [0, 1]} for i in range(40)]
    files |= {"parquet/az_tuecl/test.parquet": parquet(few, names)}
    hub.sets["commul/universal_dependencies"] = files
    task = load("ud_pos", TR)
    assert [len(part) for part in (task.train, task.dev, task.test)] == [12, 3, 4]
    assert task.test[0]["words"] == ["Evde", "ydi", "."] and task.test[0]["tags"] == ["NOUN", "VERB", "PUNCT"]
    assert any("multiword tokens beside their parts" in note and note.endswith(": 12") for note in task.notes)
    alone = load("ud_pos", AZ)  # a treebank with a test part alone
    assert len(alone.train) + len(alone.dev) + len(alone.test) == 40 and min(len(alone.dev), len(alone.test)) > 0
    assert any("only a test part is published" in note for note in alone.notes)


def test_conllu_files_with_multiword_tokens_and_empty_nodes(tmp_path):
    path = tmp_path / "tr-ud-train.conllu"
    path.write_text(CONLLU, encoding="utf-8")
    loaded = load_task_file(path, "pos")
    assert [(e["words"], e["tags"]) for e in loaded.examples] == [
        (["Evde", "ydi", "."], ["NOUN", "AUX", "PUNCT"]),
        (["10 000", "kitap"], ["NUM", "NOUN"]),
    ]
    assert [skip["reason"] for skip in loaded.skipped] == ["no word has a tag"]
    with pytest.raises(UserError, match="tag 'NOUN' is neither O nor B-/I-"):  # no entities are in it
        load_task_file(path, "tagging")


def test_accuracy_of_words_equals_scikit_learn_s(tmp_path):
    gold = [["NOUN", "VERB", "PUNCT"], ["NOUN"], ["ADJ", "NOUN"]]
    pred = [["NOUN", "NOUN", "PUNCT"], ["NOUN"], ["NOUN", "ADJ"]]
    rows = [{"id": str(i), "gold": g, "pred": p} for i, (g, p) in enumerate(zip(gold, pred, strict=True))]
    metrics = score_predictions(rows, "pos")["metrics"]
    assert metrics["accuracy"] == accuracy_score([*gold[0], *gold[1], *gold[2]], [*pred[0], *pred[1], *pred[2]]) == 0.5
    assert metrics["accuracy tag=NOUN"] == 2 / 3 and metrics["sentences without a mistake"] == 1 / 3
    own = kind_of("pos", load_language(TR))
    train = [
        {"id": "0", "words": ["Ev", "güzel", "."], "tags": ["NOUN", "ADJ", "PUNCT"]},
        {"id": "1", "words": ["Iğdır", "."], "tags": ["PROPN", "PUNCT"]},
    ]
    test = [{"id": "2", "words": ["ev", "ığdır", "yok"], "tags": ["NOUN", "PROPN", "X"]}]
    assert own.baseline("lexicon", train, test, None, None)[0]["pred"] == ["NOUN", "PROPN", "PUNCT"]
    assert own.baseline("majority", train, test, None, None)[0]["pred"] == ["PUNCT"] * 3


@pytest.mark.parametrize(
    ("name", "language", "says"),
    [
        ("sib200", "generic", r"language/generic.py has no code3.*Fill in the field `code3`"),
        ("wikiann", "generic", "has no code, by which this data set names its languages"),
        ("ud_pos", "generic", "Fill in the field `treebank`"),
        ("belebele", "generic", "Fill in the field `code3`"),
        ("massive", "generic", "Fill in the field `code`"),
        ("sib200", "null", r"whose code\? Set task.language=NAME"),
    ],
)
def test_a_pack_without_the_code_names_the_field(hub, name, language, says):
    with pytest.raises(UserError, match=says):
        load(name, language)
    assert not hub.asked


def test_codes_of_a_pack():
    own = Language(name="toki", code="tok", scripts=("Latn",))
    assert own.filled("x/{code}/{code3}/{code_script}/{wiki_code}{other}") == "x/tok/tok/tok_Latn/tok{other}"
    assert Language(name="min", code="zh", wiki_code="zh-min-nan").filled("{wiki_code}") == "zh-min-nan"
    with pytest.raises(UserError, match="Fill in the field `scripts`"):
        Language(name="toki", code="tok").filled("{code_script}")
    with pytest.raises(UserError, match="Fill in the field `code3`"):
        Language(name="x", code="xx", scripts=("Latn",)).filled("{code_script}")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("wikipedia", {"wikimedia/wikipedia": "20231101.{}/train-00000-of-00001.parquet"}),
        ("fineweb2", {"HuggingFaceFW/fineweb-2": "data/{}/train/000_00000.parquet"}),
        ("culturax", {"uonlp/CulturaX": "{0}/{0}_part_00000.parquet"}),
    ],
)
@pytest.mark.parametrize(("language", "codes", "text"), [
    (AZ, ("az", "azj_Latn"), "Bakı Azərbaycanın paytaxtı və ən böyük şəhəridir, Xəzər dənizinin sahilində yerləşir."),
    (TR, ("tr", "tur_Latn"), "Ankara Türkiye'nin başkenti ve en kalabalık ikinci ilidir, İç Anadolu'da yer alır."),
])  # fmt: skip
def test_a_corpus_of_the_run_s_language(hub, tmp_path, name, files, language, codes, text):
    ((repository, place),) = files.items()
    code = codes[1] if name == "fineweb2" else codes[0]
    rows = [{"id": str(i), "url": f"https://a.org/{i}", "title": f"T{i}", "text": f"{text} {i}."} for i in range(6)]
    other = "de" if "_" not in code else "deu_Latn"
    hub.sets[repository] = {place.format(code): parquet(rows), place.format(other): parquet([{"text": "Das ist Deutsch."}])}
    values = read_option("corpus", name)
    values.language, values.quality, values.near_duplicates = language, {"preset": "none"}, None
    values.mixture = {"temperature": 1.0, "max_repeats": None}
    values.engine.workers = 1
    values.sources[0].stream = False
    report = build_corpus(typed(Corpus, OmegaConf.to_container(values, resolve=False)), tmp_path / "corpus")
    assert report
    asked = [path for method, path, _ in hub.asked if method == "GET" and "/resolve/" in path]
    assert len(asked) == 1 and place.format(code) in asked[0]
