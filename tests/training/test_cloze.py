"""Classes by the masked-LM head alone: the same as by transformers, a row of the table, errors by name."""

import pytest
import torch

from common.errors import UserError
from common.files import read_json, read_jsonl, write_jsonl
from data.features import encode
from evaluation.report import build_report
from model.encoder import EncoderConfig
from model.folder import write_checkpoint
from model.huggingface import main as huggingface
from model.mlm import MaskedLM
from tests.conftest import read_task, run_script
from tokenization.loading import load_tokenizer
from training.cloze import cloze, main
from training.runs import Data
from training.task_models import read_start

CPU = torch.device("cpu")
PATTERN = "{text} Bu mətn [MASK] haqqındadır."
WORDS = {"city": ["şəhər", "Bakı"], "fruit": ["alma"], "war": "müharibələşdirmə"}  # one of them has several tokens
TEXTS = ["Bakı gözəl şəhərdir.", "Alma və armud şirindir.", "Ordu cəbhəyə getdi.", "Yağış yağır [MASK] qar yağır."]


@pytest.fixture(scope="module")
def place(prepared, tmp_path_factory):
    """A tiny model with weights away from zero, its export, and a file of examples."""
    folder = tmp_path_factory.mktemp("cloze")
    tokenizer = load_tokenizer(prepared / "tokenizer")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "layers": 2, "heads": 2, "intermediate_size": 48, "max_length": 64, "initializer_range": 0.3}
    model = MaskedLM(EncoderConfig(vocab_size=tokenizer.vocab_size, **shape))
    write_checkpoint(folder / "ours", model.state_dict(), model.encoder.config, tokenizer, {"name": "tiny"})
    assert huggingface(["export", str(folder / "ours"), str(folder / "theirs")]) == 0
    labels = list(WORDS)
    rows = [{"id": n, "text": f"{TEXTS[n % 4]} {n}", "label": labels[n % 3]} for n in range(90)]
    write_jsonl(folder / "rows.jsonl", rows)
    return folder


def data_of(start, place, **more) -> Data:
    values = {"name": "about", "kind": "classification", "train": str(place / "rows.jsonl"), "cloze": PATTERN}
    task = read_task(values | {"verbalisers": WORDS} | more)
    splits = {s: encode(getattr(task, s), task.kind, start.tokenizer, task.labels, 64) for s in ("train", "dev", "test")}
    return Data(task, splits, 64, None, task.digest, [])


def by_transformers(folder, texts: list[str]) -> list[dict[str, float]]:
    """The score of each class, one sentence and word at a time."""
    transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")
    model, reader = (kind.from_pretrained(folder) for kind in (transformers.AutoModelForMaskedLM, transformers.AutoTokenizer))
    model.eval()

    def chance(text: str, word: str) -> float:
        wanted = reader(word, add_special_tokens=False)["input_ids"]
        filled = PATTERN.replace("{text}", text.replace("[MASK]", "")).replace("[MASK]", " ".join(["[MASK]"] * len(wanted)))
        ids = reader(filled, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            logs = model(input_ids=ids).logits[0].log_softmax(-1)
        places = (ids[0] == reader.mask_token_id).nonzero()[:, 0].tolist()
        assert len(places) == len(wanted)
        return sum(float(logs[place, token]) for place, token in zip(places, wanted, strict=True)) / len(wanted)

    lists = {label: [words] if isinstance(words, str) else words for label, words in WORDS.items()}
    return [
        {label: sum(chance(text, w) - chance("", w) for w in words) / len(words) for label, words in lists.items()}
        for text in texts
    ]


def test_the_row_is_what_transformers_gives(place, tmp_path):
    start = read_start(place / "ours")
    data = data_of(start, place)
    sizes = {len(ids) for ids in start.tokenizer.encode_words(["şəhər", "müharibələşdirmə"])}
    assert len(sizes) == 2  # words of different numbers of tokens
    summary = cloze(start, data, 300, CPU, tmp_path / "out")
    folder = tmp_path / "out" / "tiny-cloze" / "about" / "seed-0"
    assert summary["folder"] == str(folder) and read_json(folder / "summary.json")["train_tokens"] == 0
    found = [row for _, row in read_jsonl(folder / "predictions-test.jsonl")]
    assert [row["id"] for row in found] == [example["id"] for example in data.task.test]
    wanted = by_transformers(place / "theirs", [example["text"] for example in data.task.test])
    for row, scores in zip(found, wanted, strict=True):
        assert row["pred"] == max(scores, key=scores.get)
        total = torch.logsumexp(torch.tensor(list(scores.values()), dtype=torch.float64), 0).item()
        assert {label: row["scores"][label] + total for label in scores} == pytest.approx(scores, abs=1e-4)
    assert len({row["pred"] for row in found}) > 1
    # Again: kept. It is a row of the report beside others.
    assert cloze(start, data, 300, CPU, tmp_path / "out")["reused"]
    assert "tiny-cloze" in build_report([tmp_path / "out"], tmp_path / "report")


def test_swapped_words_swap_the_answers(place, tmp_path):
    start = read_start(place / "ours")
    cloze(start, data_of(start, place), 8192, CPU, tmp_path / "one")
    swapped = {"city": WORDS["fruit"], "fruit": WORDS["city"], "war": WORDS["war"]}
    cloze(start, data_of(start, place, verbalisers=swapped), 8192, CPU, tmp_path / "two")
    one, two = (
        [row["pred"] for _, row in read_jsonl(tmp_path / name / "tiny-cloze" / "about" / "seed-0" / "predictions-test.jsonl")]
        for name in ("one", "two")
    )
    other = {"city": "fruit", "fruit": "city", "war": "war"}
    assert two == [other[label] for label in one] and one != two


def test_long_texts_are_cut_and_said_to_be(place, tmp_path):
    rows = [{"id": n, "text": "alma " * (100 if n % 2 else 3) + str(n), "label": list(WORDS)[n % 3]} for n in range(60)]
    write_jsonl(tmp_path / "long.jsonl", rows)
    start = read_start(place / "ours")
    cloze(start, data_of(start, place, train=str(tmp_path / "long.jsonl")), 8192, CPU, tmp_path / "out")
    found = [row for _, row in read_jsonl(next((tmp_path / "out").glob("*/*/seed-0/predictions-test.jsonl")))]
    assert all(row["truncated"] == bool(int(row["id"]) % 2) for row in found)


def test_no_row_without_words_or_weights(place, tmp_path):
    start = read_start(place / "ours")
    assert cloze(start, data_of(start, place, cloze=None, verbalisers={}), 300, CPU, tmp_path / "out") is None
    scratch = read_start(place / "ours", scratch=True)
    assert cloze(scratch, data_of(start, place), 300, CPU, tmp_path / "out") is None and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"verbalisers": {"city": "şəhər", "fruit": "alma"}}, "no word for the class war"),
        ({"verbalisers": WORDS | {"war": []}}, "no word for the class war"),
        ({"verbalisers": WORDS | {"sea": "dəniz"}}, "sea is no class"),
        ({"cloze": "Bu mətn [MASK] haqqındadır."}, "expected a sentence with {text} and"),
        ({"cloze": "{text} Bu."}, "expected a sentence with {text} and"),
        ({"cloze": None}, "expected a sentence with {text} and"),
        ({"verbalisers": {}}, "no word for the class"),
    ],
)
def test_wrong_words_are_named(more, said, place):
    with pytest.raises(UserError, match=said):
        data_of(read_start(place / "ours"), place, **more)


def test_a_kind_without_classes_is_named(place, tmp_path):
    write_jsonl(tmp_path / "tags.jsonl", [{"id": n, "words": ["a", "b"], "tags": ["O", "B-X"]} for n in range(30)])
    with pytest.raises(UserError, match="has no classes"):
        data_of(read_start(place / "ours"), place, kind="tagging", train=str(tmp_path / "tags.jsonl"))


def test_a_task_without_words_is_named_by_the_command(place, tmp_path, capsys):
    assert main([str(place / "ours"), "--task", "topic", "--out", str(tmp_path / "out"), "--device", "cpu"]) == 2
    assert "conf/task/topic.yaml" in capsys.readouterr().err


def test_finetuning_makes_the_row_too(place, tmp_path):
    result = run_script(
        "finetune.py", f"checkpoint={place / 'ours'}", "task.kind=classification", f"task.train={place / 'rows.jsonl'}",
        f"task.cloze='{PATTERN}'", "task.verbalisers.city=[şəhər,Bakı]", "task.verbalisers.fruit=alma",
        "task.verbalisers.war=[ordu]", f"out={tmp_path / 'out'}",
        "seeds=[0]", "recipe.epochs=1", "device=cpu", f"hydra.run.dir={tmp_path / 'run'}",
    )  # fmt: skip
    assert result.returncode == 0 and "no training: dev macro_f1" in result.stdout, result.stderr
    assert len(list((tmp_path / "out" / "tiny-cloze").glob("*/seed-0/summary.json"))) == 1
