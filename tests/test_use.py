"""docs/use.md: every block of its code runs on real checkpoints and gives what transformers or a second computation gives."""

import importlib
import inspect
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from common.launch import ROOT
from model.huggingface import main as huggingface
from tests.test_finetune import checkpoint, files, run  # noqa: F401  (fixtures)

PAGE = (ROOT / "docs" / "use.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"^## (.+?)$.*?^```python\n(.*?)^```$", PAGE, re.M | re.S))


@pytest.fixture(scope="module")
def place(checkpoint, files, tmp_path_factory) -> Path:  # noqa: F811
    """A folder with what the page names: a run of pre-training, its export, a fine-tuned run."""
    folder = tmp_path_factory.mktemp("use")
    shutil.copytree(checkpoint, folder / "runs" / "mine" / "pretrain" / "checkpoint")
    assert huggingface(["export", str(checkpoint), str(folder / "exported")]) == 0
    summary = run(checkpoint, files["classification"], "classification", folder / "made", 0, "recipe.epochs=1")
    shutil.copytree(summary["folder"], folder / "runs" / "mine" / "finetune" / "mine" / "TASK" / "seed-0")
    return folder


@pytest.fixture(autouse=True)
def there(place, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(place)


def names_after(*titles: str) -> dict[str, Any]:
    """The names that the blocks under these titles leave behind, run one after another as on the page."""
    names: dict[str, Any] = {}
    for title in titles:
        exec(compile(BLOCKS[title], f"docs/use.md, {title}", "exec"), names)
    return names


def test_each_part_has_about_ten_lines():
    assert list(BLOCKS) == re.findall(r"^## (.+)$", PAGE, re.M) and len(BLOCKS) == 6
    for title, block in BLOCKS.items():
        lines = [line for line in block.splitlines() if line and not line.startswith(("import", "from"))]
        assert len(lines) <= 10, title


def test_the_table_has_every_function_and_its_arguments():
    """What the blocks import is the table, and the arguments there are those of the code."""
    rows = re.findall(r"^\| `([\w.]+)\((.*?)\)` \|", PAGE, re.M)
    for path, arguments in rows:
        parts = path.split(".")
        depth = 3 if parts[2:] and parts[2][:1].isupper() else 2
        found: Any = importlib.import_module(".".join(parts[: depth - 1] if depth == 3 else parts[:2]))
        for part in parts[2:]:
            found = getattr(found, part)
        signature = inspect.signature(found)
        bare = [p.replace(annotation=inspect.Parameter.empty) for p in signature.parameters.values()]
        assert str(inspect.Signature(bare)) == f"({arguments})", path
    imported = set(re.findall(r"^from ((?:model|data)[\w.]*) import (.+)$", "\n".join(BLOCKS.values()), re.M))
    used = {f"{module}.{name}" for module, names in imported for name in names.split(", ")}
    assert used == {path.removesuffix(".of") for path, _ in rows}


def test_hidden_states_are_those_of_transformers(capsys):
    transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")
    names = names_after("Load a checkpoint", "Hidden states")
    peer = transformers.AutoModel.from_pretrained("exported").eval()
    reader = transformers.AutoTokenizer.from_pretrained("exported")
    for text, ours in (("Salam!", names["first"]), ("Bakı gözəl şəhərdir.", names["second"])):
        with torch.no_grad():
            theirs = peer(**reader(text, return_tensors="pt"), output_hidden_states=True)
        torch.testing.assert_close(ours, theirs.last_hidden_state[0], atol=1e-5, rtol=1e-4)
    assert len(names["layers"]) == names["encoder"].config.layers + 1
    torch.testing.assert_close(names["layers"][0][-len(ours) :], theirs.hidden_states[0][0], atol=1e-5, rtol=1e-4)
    # The run folder and the exported one are the same model.
    other, own = names["exported"].state_dict(), names["encoder"].state_dict()
    assert all(torch.equal(value, other[name]) for name, value in own.items())
    ids = [names["tokenizer"].encode_batch(["Bakı gözəl"])[0].tolist(), names["same_tokenizer"].encode_batch(["Bakı gözəl"])[0]]
    assert ids[0] == ids[1].tolist() and "gözəl" in capsys.readouterr().out.lower().replace("', '##", "")


def test_guesses_are_those_of_the_pipeline(capsys):
    transformers = pytest.importorskip("transformers", reason="the peer is installed with requirements-dev.txt")
    names = names_after("Fill a mask")
    guesses = names["guesses"]
    theirs = transformers.pipeline("fill-mask", "exported", device="cpu", top_k=3)("Bakı Azərbaycanın [MASK] şəhəridir.")
    assert [names["tokenizer"].tokens[one["token"]] for one in theirs] == [token for token, _ in guesses]
    assert [one["score"] for one in theirs] == pytest.approx([chance for _, chance in guesses], rel=1e-3)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_answers_are_those_of_the_command(capsys, tmp_path):
    from model.predict import main

    names = names_after("Predict")
    (tmp_path / "texts.txt").write_text("\n".join(names["texts"]), encoding="utf-8")
    assert main(["runs/mine/finetune/mine/TASK/seed-0", str(tmp_path / "texts.txt")]) == 0
    said = capsys.readouterr().out
    assert {answer["label"] for answer in names["answers"]} <= {"şəhər", "meyvə"} and len(names["answers"]) == 2
    for answer in names["answers"]:
        assert f'"label": "{answer["label"]}"' in said


def test_vectors_have_unit_length_and_an_order():
    names = names_after("Sentence vectors")
    torch.testing.assert_close(names["vectors"].norm(dim=1), torch.ones(3))
    again = names["embed"](names["encoder"], names["tokenizer"], ["Salam!"], max_length=128)
    torch.testing.assert_close(names["vectors"][:1], again)
    assert names["nearest"].tolist() == names["cosines"].argmax(1).tolist() and names["nearest"][0] != 0


def test_a_head_of_ones_own_learns_both_texts():
    names = names_after("Your own head in your own loop")
    names["encoder"].eval()
    with torch.no_grad():
        scores = names["head"](names["mean_vectors"](names["encoder"], names["rows"], torch.device("cpu")))
    assert float(names["loss"].detach()) < 0.5 and torch.equal(scores.argmax(1), names["targets"])
    # The encoder was trained with it, not the head alone.
    fresh = names["load_encoder"]("runs/mine/pretrain")[0].state_dict()
    assert any(not torch.equal(value, fresh[name]) for name, value in names["encoder"].state_dict().items())
