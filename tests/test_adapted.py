"""Partial fine-tuning and fine-tuning with a teacher, and a benchmark that compares them: from file to predictions."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from common.errors import UserError
from common.files import read_json, read_jsonl, write_jsonl
from model import predict
from model.store import read_checkpoint
from tests.conftest import TINY
from tests.test_benchmark import bench
from tests.test_finetune import CPU, checkpoint, files, run, settings_of  # noqa: F401  (fixtures)
from training.defaults import with_defaults
from training.entries import check_models
from training.finetuning import run_seed
from training.recipe import with_recipe
from training.runs import Run, prepare_data
from training.task_models import read_start
from training.teachers import identity_of

KINDS = ["classification", "pair", "choice", "tagging", "qa"]


@pytest.mark.parametrize("kind", ["choice", "tagging"])
def test_lora_from_file_to_predictions(kind, checkpoint, files, tmp_path, capsys):  # noqa: F811
    """The checkpoint is merged and plain; adapter plus base give the same outputs."""
    words = ("recipe.adapter=lora", "recipe.lora.rank=4", "recipe.lr=1e-2", "recipe.pooling=pooler")
    summary = run(checkpoint, files[kind], kind, tmp_path / "out", 0, *words)
    folder = Path(summary["folder"])
    head, pooler = 32 + 1, 32 * 32 + 32
    expected = 2 * 2 * 4 * (32 + 32) + (
        head + pooler if kind == "choice" else 2 * head
    )  # adapters, and the modules trained in full
    assert summary["trainable_parameters"] == expected
    assert summary["trained"].startswith("LoRA of rank 4 on 4 matrices")
    before, after = read_checkpoint(checkpoint)[0], read_checkpoint(folder)[0]
    shared = [name for name in before if name in after and name.startswith("encoder.")]
    moved = {name for name in shared if not (before[name] == after[name]).all()}
    assert moved == {f"encoder.blocks.{n}.qkv.weight" for n in range(2)} and not any(".lora." in name for name in after)
    for n in range(2):  # the keys' rows are unchanged
        name = f"encoder.blocks.{n}.qkv.weight"
        assert (before[name][32:64] == after[name][32:64]).all() and not (before[name][64:] == after[name][64:]).all()
    rows = [row for _, row in read_jsonl(folder / "predictions-test.jsonl")]
    settings = settings_of(f"task.kind={kind}", f"task.train={files[kind]}")
    task = prepare_data(settings.task, read_start(checkpoint), {}).task
    write_jsonl(tmp_path / "new.jsonl", task.test)
    for place in (folder, folder / "adapter"):
        assert predict.main([str(place), str(tmp_path / "new.jsonl")]) == 0
        said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [row["tags" if kind == "tagging" else "answer"] for row in said] == [row["pred"] for row in rows]
    small = (folder / "adapter" / "adapter.safetensors").stat().st_size
    assert small < 4 * expected + 4000


def test_a_linear_probe_and_frozen_layers(checkpoint, files, tmp_path):  # noqa: F811
    probe = run(checkpoint, files["pair"], "pair", tmp_path / "a", 0, "recipe.linear_probe=true", "recipe.pooling=mean")
    before, after = read_checkpoint(checkpoint)[0], read_checkpoint(Path(probe["folder"]))[0]
    assert probe["trainable_parameters"] == 2 * 32 + 2
    assert all((before[name] == value).all() for name, value in after.items() if not name.startswith("head."))
    frozen = run(checkpoint, files["pair"], "pair", tmp_path / "b", 0, "recipe.freeze_layers=1")
    after = read_checkpoint(Path(frozen["folder"]))[0]
    assert (before["encoder.blocks.0.qkv.weight"] == after["encoder.blocks.0.qkv.weight"]).all()
    assert not (before["encoder.blocks.1.qkv.weight"] == after["encoder.blocks.1.qkv.weight"]).all()
    with pytest.raises(UserError, match=r"Set recipe\.pooling=mean or cls"):
        run(checkpoint, files["pair"], "pair", tmp_path / "c", 0, "recipe.linear_probe=true", "recipe.pooling=pooler")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["recipe.adapter=ia3"], "recipe.adapter=ia3: expected one of null, lora"),
        (["recipe.adapter=lora", "recipe.linear_probe=true"], "two answers"),
        (["recipe.adapter=lora", "recipe.reinitialise_layers=1"], "stay frozen"),
        (["recipe.linear_probe=true", "recipe.head=modern"], "a probe has a linear head"),
        (["recipe.lora.rank=0"], "recipe.lora.rank=0: expected a whole number"),
        (["recipe.lora.dropout=1"], "below 1"),
        (["recipe.lora.targets=[]"], "a list of names"),
        (["recipe.freeze_layers=-1"], "recipe.freeze_layers=-1"),
        (["recipe.teacher_weight=2"], "recipe.teacher_weight=2"),
        (["recipe.teacher=3"], "recipe.teacher=3"),
    ],
)
def test_wrong_values_are_named(words, said):
    with pytest.raises(UserError) as error:
        settings_of(*words)
    assert said in str(error.value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_teacher_of_every_kind(kind, checkpoint, files, tmp_path):  # noqa: F811
    """The teacher's scores belong to the right rows: a student equal to the teacher has nothing to learn."""
    teacher = run(checkpoint, files[kind], kind, tmp_path / "teacher", 1)
    path = teacher["folder"]
    words = ("recipe.epochs=1", f"recipe.teacher={path}", "recipe.teacher_weight=1", "recipe.lr=1e-9", "recipe.weight_decay=0")
    settings = settings_of(f"task.kind={kind}", f"task.train={files[kind]}", *words)
    start = read_start(checkpoint)
    start.weights = read_checkpoint(path)[0]
    data = prepare_data(settings.task, start, {})
    from training import finetuning

    build = finetuning.build_model

    def with_its_head(*arguments, **options):
        model = build(*arguments, **options).eval()
        model.load_state_dict(start.weights)
        model.train = lambda mode=True: model  # no dropout, like the teacher
        return model

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finetuning, "build_model", with_its_head)
        summary = run_seed(Run(with_defaults(settings, start)[0], start, data, 0, CPU, tmp_path / "student"))
    line = next(row for _, row in read_jsonl(Path(summary["folder"]) / "metrics.jsonl"))
    assert abs(line["loss"]) < 1e-5, line
    assert summary["teacher"] == path and summary["teacher_inference_hours"] < summary["hours"]
    assert summary["teacher_hours"] == pytest.approx(teacher["hours"])
    assert str(checkpoint.absolute()) in summary["not_measured"]  # the cost of the demo's random weights is unknown


def test_a_teacher_of_another_task_is_refused(checkpoint, files, tmp_path):  # noqa: F811
    teacher = run(checkpoint, files["pair"], "pair", tmp_path / "teacher", 1, "recipe.epochs=1")
    with pytest.raises(UserError, match=r"was fine-tuned for .*-pair \(pair, labels"):
        run(checkpoint, files["classification"], "classification", tmp_path, 0, f"recipe.teacher={teacher['folder']}")
    with pytest.raises(UserError, match=r"no checkpoint there\. Fine-tune the teacher first"):
        run(checkpoint, files["pair"], "pair", tmp_path, 0, "recipe.teacher='nowhere/{task}'")
    assert len(identity_of(teacher["folder"])) == 64
    first, second = (
        run(checkpoint, files["pair"], "pair", tmp_path, 0, "recipe.epochs=1", *words)
        for words in ((), (f"recipe.teacher={teacher['folder']}",))
    )
    assert first["digest"] != second["digest"] and first["dev_loss"] != second["dev_loss"]


def test_entries_of_models(checkpoint):  # noqa: F811
    good = [{"name": "a", "pretrain": {"model": "bert_tiny"}}, {"name": "b", "checkpoint": "@a", "recipe": {"adapter": "lora"}}]
    check_models(good)
    for models, said in (
        ([{"name": "a"}], "is not {name"),
        ([{"name": "a", "checkpoint": None}], "is not {name"),
        ([{"name": "a", "checkpoint": "x", "rank": 3}], "is not {name"),
        ([{"name": "a", "checkpoint": "@b"}, {"name": "b", "checkpoint": "x"}], "no entry before it has that name"),
        ([{"name": "a", "checkpoint": "x", "recipe": {"lr": 1}}], "is in tuning too"),
    ):
        with pytest.raises(UserError) as error:
            check_models(models, {"lr": [1.0], "seeds": [100]})
        assert said in str(error.value)
    settings = settings_of()
    changed = with_recipe(settings, {"adapter": "lora", "lora": {"rank": 2}})
    assert changed.recipe.lora == replace(settings.recipe.lora, rank=2) and settings.recipe.adapter is None
    with pytest.raises(UserError, match=r"recipe\.rank: no such key"):
        with_recipe(settings, {"rank": 2})
    with pytest.raises(UserError, match=r"recipe\.probe: this key is now recipe\.linear_probe\."):
        with_recipe(settings, {"probe": True})


@pytest.mark.slow
def test_one_table_from_pretraining_to_costs(prepared, files, tmp_path, capsys):  # noqa: F811
    """experiment=resource_efficiency on a tiny scale; completed runs are skipped, all hours behind a row are included."""
    tiny = [word for word in TINY if not word.startswith(("budget", "phases", "model."))]
    task = f"[{{name: c, kind: classification, train: {files['classification']}}}]"
    dirs = [f"{name}_dir={prepared / name}" for name in ("corpus", "tokenizer", "shards")]
    words = [
        "benchmark.py",
        "experiment=resource_efficiency",
        f"workdir={tmp_path}",
        *tiny,
        *dirs,
        f"tasks={task}",
        "budget={steps: 4, minutes: null}",
        "seeds=[0]",
        "recipe.epochs=1",
        "report.corpus=null",
        "report.overlap=null",
        "phases=[{max_length: 64, until: 1.0}]",
        f"out={tmp_path / 'table'}",
    ]
    assert bench(*words) == 0
    out = tmp_path / "table"
    rows = {path.parts[-4]: read_json(path) for path in out.glob("*/c/seed-0/summary.json") if path.parts[-4] != "majority"}
    assert set(rows) == {"source", "source-lora", "source-probe", "continued", "continued-lora", "scratch", "distilled"}
    own = {
        name: read_json(tmp_path / "pretrained" / name / "summary.json")["hours"]
        for name in ("source", "continued", "scratch", "distilled")
    }
    for name, behind in (
        ("source-lora", ["source"]),
        ("scratch", ["scratch"]),
        ("distilled", ["source", "distilled"]),
        ("continued-lora", ["source", "continued"]),
    ):
        assert rows[name]["pretraining_hours"] == pytest.approx(sum(own[part] for part in behind)), name
        assert rows[name]["not_measured"] == []
    assert rows["source-probe"]["trainable_parameters"] < rows["source-lora"]["trainable_parameters"]
    assert "Score and hours" in (out / "report.html").read_text()
    capsys.readouterr()
    assert bench(*words) == 0
    said = capsys.readouterr().out
    assert "0 made now, 8 already complete" in said and said.count("training: already complete") == 4
