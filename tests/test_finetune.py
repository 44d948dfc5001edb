"""Fine-tuning from file to predictions: all kinds, nothing lost, nothing run twice, the same seed the same bytes."""

import json
import random
from pathlib import Path

import pytest
import torch
from conftest import run_script
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from common.errors import UserError
from common.files import read_json, read_jsonl, write_json, write_jsonl
from common.launch import ROOT
from evaluation.metrics import read_predictions, score_predictions
from finetune import run_seed
from model import fill_mask, predict
from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from model.store import write_checkpoint
from tokenization.tokenizer import Tokenizer
from training.finetuning import build_model, parameter_groups, prepare_data, read_start, settings_for

CPU = torch.device("cpu")
CITIES, FRUITS = ["Bakı", "Gəncə", "Şəki", "Lənkəran", "Quba"], ["alma", "armud", "nar", "heyva", "üzüm"]


@pytest.fixture(scope="session")
def checkpoint(prepared, tmp_path_factory) -> Path:
    """A tiny encoder with random weights and the demo's tokenizer."""
    tokenizer = Tokenizer.load(prepared / "tokenizer")
    torch.manual_seed(4242)  # not a seed of a run below, or new weights would equal these
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, layers=2, heads=2, intermediate_size=48, max_length=64
    )
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_checkpoint(folder, MaskedLM(config).state_dict(), config, tokenizer, {"name": "tiny"})
    return folder


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """One small file of each kind that a few steps can learn something of."""
    draw, folder = random.Random(0), tmp_path_factory.mktemp("tasks")
    rows: dict[str, list[dict]] = {kind: [] for kind in ("classification", "pair", "choice", "tagging", "qa")}
    for n in range(60):
        city, fruit = draw.choice(CITIES), draw.choice(FRUITS)
        isit = n % 2 == 0
        rows["classification"].append(
            {"id": n, "text": f"{n} {city if isit else fruit} haqqında", "label": "şəhər" if isit else "meyvə"}
        )
        rows["pair"].append({"id": n, "sentence1": f"{n} {city}", "sentence2": city if isit else fruit, "label": int(isit)})
        options = [city, fruit, "daş"][: 2 + n % 2]
        draw.shuffle(options)
        rows["choice"].append(
            {"id": n, "question": f"{n}. Hansı şəhərdir?", "options": options, "answer": options.index(city), "subject": "a"}
        )
        rows["tagging"].append({"id": n, "words": [str(n), city, "\u00ad", fruit], "tags": ["O", "B-LOC", "O", "O"]})
        context = f"{n} nəfər {city} şəhərində {fruit} yeyir. " * 3
        answer = city if n % 3 else ""
        rows["qa"].append({"id": n, "context": context, "question": "Harada?", "answer_text": answer,
                           "answer_start": context.index(city) if answer else -1})  # fmt: skip
    return {kind: folder / f"{kind}.jsonl" for kind, part in rows.items() if write_jsonl(folder / f"{kind}.jsonl", part)}


def settings_of(*words: str, config: str = "finetune") -> dict:
    """The settings that finetune.py would see, without a process of its own."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return settings_for(compose(config, [*words, "out=x", "run_dir=x", "device=cpu", "precision=fp32"]))


def run(checkpoint: Path, file: Path, kind: str, out: Path, seed: int = 0, *words: str, scratch: bool = False) -> dict:
    settings = settings_of(
        f"task.kind={kind}", f"task.train={file}", "recipe.batch_size=16", "recipe.epochs=2", "recipe.lr=1e-3", *words
    )
    start = read_start(checkpoint, scratch=scratch)
    return run_seed(settings, start, prepare_data(settings, start, {}), seed, CPU, out)


@pytest.mark.parametrize("kind", ["classification", "pair", "choice", "tagging", "qa"])
def test_every_kind_from_file_to_predictions(kind, checkpoint, files, tmp_path, capsys):
    summary = run(checkpoint, files[kind], kind, tmp_path / "out")
    folder = Path(summary["folder"])
    assert folder == tmp_path / "out" / "tiny" / f"{files[kind].parent.name}-{kind}" / "seed-0"
    assert {"config.yaml", "metrics.jsonl", "summary.json", "checkpoint"} <= {path.name for path in folder.iterdir()}
    assert [line["epoch"] for _, line in read_jsonl(folder / "metrics.jsonl")] == [1, 2]
    settings = settings_of(f"task.kind={kind}", f"task.train={files[kind]}")
    task = prepare_data(settings, read_start(checkpoint), {}).task
    for split in ("dev", "test"):
        rows = read_predictions(folder / f"predictions-{split}.jsonl", kind)
        assert [row["id"] for row in rows] == [example["id"] for example in getattr(task, split)]
        assert all(row["tokens"] > 0 and row["truncated"] is False for row in rows)
        score = score_predictions(rows, kind, task.labels, task.metric, task.positive)["score"]
        assert score == pytest.approx(summary[f"{split}_score"], abs=1e-12)
    # The checkpoint is the model that made the test predictions: applied to the same text it says the same.
    new = tmp_path / "new.jsonl"
    gold = ("label", "tags", "answers")
    write_jsonl(new, [{key: value for key, value in example.items() if key not in gold} for example in task.test])
    assert predict.main([str(folder), str(new)]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    name = {"tagging": "tags", "choice": "answer", "qa": "answer"}.get(kind, "label")
    assert [row[name] for row in said] == [row["pred"] for row in rows]


def test_it_learns_what_can_be_learned(checkpoint, files, tmp_path):
    summary = run(checkpoint, files["classification"], "classification", tmp_path, 0, "recipe.epochs=12", "recipe.lr=3e-3")
    assert summary["dev_score"] > 0.9 and summary["test_score"] > 0.9


def test_same_seed_same_bytes_and_finished_runs_stay(checkpoint, files, tmp_path):
    names = ("predictions-test.jsonl", "predictions-dev.jsonl", "checkpoint/model.safetensors")
    first, second, other = (
        run(checkpoint, files["pair"], "pair", tmp_path / str(n), seed) for n, seed in ((1, 0), (2, 0), (3, 1))
    )
    read = [[(Path(summary["folder"]) / name).read_bytes() for name in names] for summary in (first, second, other)]
    assert read[0] == read[1]
    assert read[0][2] != read[2][2]
    again = run(checkpoint, files["pair"], "pair", tmp_path / "1")
    assert again["reused"] and again["hours"] == first["hours"]
    changed = run(checkpoint, files["pair"], "pair", tmp_path / "1", 0, "recipe.lr=2e-3")
    assert "reused" not in changed and changed["digest"] != first["digest"]


def test_what_a_killed_run_left_is_not_taken_for_a_result(checkpoint, files, tmp_path):
    summary = run(checkpoint, files["tagging"], "tagging", tmp_path)
    folder = Path(summary["folder"])
    left = folder.with_name(".seed-0.part")
    left.mkdir()
    (left / "metrics.jsonl").write_text('{"step": 1, "torn')
    write_json(folder / "summary.json", {**read_json(folder / "summary.json"), "status": "running"})
    assert "reused" not in run(checkpoint, files["tagging"], "tagging", tmp_path)
    assert not left.exists()


def test_scratch_has_its_own_name_and_its_own_weights(checkpoint, files, tmp_path):
    summary = run(checkpoint, files["pair"], "pair", tmp_path, scratch=True)
    assert summary["model"] == "tiny-scratch" and summary["scratch"]
    pretrained, scratch = (build_model(read_start(checkpoint, scratch=s), "pair", 2, 0) for s in (False, True))
    assert not torch.equal(pretrained.encoder.words.weight, scratch.encoder.words.weight)
    assert torch.equal(pretrained.encoder.pooler.weight, scratch.encoder.pooler.weight)  # new in both, of the same seed


def test_layerwise_decay_and_reinitialised_layers(checkpoint):
    start = read_start(checkpoint)
    recipe = {"lr": 1.0, "layerwise_decay": 0.5, "weight_decay": 0.01}
    model = build_model(start, "tagging", 3, 0)
    rates = {id(p): group["lr"] for group in parameter_groups(model, recipe) for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    assert rates[id(model.head.weight)] == 1.0
    assert rates[id(model.encoder.blocks[1].qkv.weight)] == 0.5
    assert rates[id(model.encoder.blocks[0].qkv.weight)] == 0.25
    assert rates[id(model.encoder.words.weight)] == 0.125
    fresh = build_model(start, "tagging", 3, 0, reinitialise_layers=1)
    assert torch.equal(fresh.encoder.blocks[0].qkv.weight, start.weights["encoder.blocks.0.qkv.weight"])
    assert not torch.equal(fresh.encoder.blocks[1].qkv.weight, start.weights["encoder.blocks.1.qkv.weight"])


def test_a_loss_that_is_not_finite_stops_the_run_by_name(checkpoint, files, tmp_path):
    settings = settings_of("task.kind=pair", f"task.train={files['pair']}")
    start = read_start(checkpoint)
    start.weights["encoder.words.weight"] = start.weights["encoder.words.weight"] * float("nan")
    with pytest.raises(UserError, match=r"tiny/.*seed-0: the loss of step 1 is nan"):
        run_seed(settings, start, prepare_data(settings, start, {}), 0, CPU, tmp_path)
    assert not list(tmp_path.rglob("summary.json"))


def test_recipe_comes_from_the_task_and_the_command_line_wins():
    assert settings_of("task=topic")["recipe"]["lr"] == settings_of("task=topic")["task"]["recipe"]["lr"]
    assert settings_of("task=topic", "recipe.lr=0.5")["recipe"]["lr"] == 0.5
    with pytest.raises(UserError, match=r"recipe\.epochs=0"):
        settings_of("recipe.epochs=0")


def test_fill_mask_prints_pieces_with_probabilities(checkpoint, capsys):
    assert fill_mask.main([str(checkpoint), "Bakı Azərbaycanın [MASK] şəhəridir.", "--top", "3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    chances = [float(line.split()[0]) for line in lines]
    assert len(lines) == 3 and chances == sorted(chances, reverse=True) and 0 < chances[0] < 1
    assert fill_mask.main([str(checkpoint), "Bakı"]) == 2
    assert "no [MASK]" in capsys.readouterr().err


def test_predict_reads_plain_text_and_names_what_is_missing(checkpoint, files, tmp_path, capsys):
    folder = run(checkpoint, files["tagging"], "tagging", tmp_path / "out")["folder"]
    text = tmp_path / "new.txt"
    text.write_text("Ə.Məmmədov Bakı-Qazax yolunda idi.\n\nO, gəldi\n", encoding="utf-8")
    assert predict.main([folder, str(text), "--out", str(tmp_path / "said.jsonl")]) == 0
    said = [row for _, row in read_jsonl(tmp_path / "said.jsonl")]
    assert said[0]["words"] == ["Ə", ".", "Məmmədov", "Bakı-Qazax", "yolunda", "idi", "."]
    assert [row["id"] for row in said] == ["1", "3"] and all(len(row["tags"]) == len(row["words"]) for row in said)
    write_jsonl(tmp_path / "odd.jsonl", [{"sentence": "mətn"}])
    capsys.readouterr()
    odd = str(tmp_path / "odd.jsonl")
    for model, file, complaint in (
        (folder, odd, "nothing for 'words'"),
        (folder, "none.txt", "no such file"),
        (checkpoint, text, "not fine-tuned"),
    ):
        assert predict.main([str(model), str(file)]) == 2
        assert complaint in capsys.readouterr().err


def test_bad_input_is_one_message_and_code_2(checkpoint, files, tmp_path):
    odd = tmp_path / "odd.jsonl"
    write_jsonl(odd, [{"body": "mətn", "label": "a"}])
    cases = {
        "no column for 'text'": [f"checkpoint={checkpoint}", "task.kind=classification", f"task.train={odd}"],
        "the fine-tuning rate is recipe.lr": [f"checkpoint={checkpoint}", "optimizer.lr=1"],
    }
    for complaint, words in cases.items():
        result = run_script("finetune.py", f"out={tmp_path / 'out'}", f"hydra.run.dir={tmp_path / 'run'}", *words)
        assert result.returncode == 2, result.stderr
        assert result.stderr.startswith("error: ") and complaint in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"checkpoint=nowhere: .*Run python train.py first"):
        read_start("nowhere")


def test_benchmark_runs_what_is_not_finished_and_reports(checkpoint, files, tmp_path):
    models = f"[{{name: a, checkpoint: {checkpoint}}}, {{name: b, checkpoint: {checkpoint}, scratch: true}}]"
    tasks = f"[{{name: p, kind: pair, train: {files['pair']}}}, {{name: c, kind: choice, train: {files['choice']}}}]"
    words = [
        "benchmark.py",
        f"models={models}",
        f"tasks={tasks}",
        f"workdir={tmp_path}",
        "recipe.epochs=1",
        "threads=1",
        "baselines=[majority,tfidf]",
    ]
    first = run_script(*words)
    assert first.returncode == 0, first.stderr
    assert "12 runs" in first.stdout and "12 made now" in first.stdout
    out = tmp_path / "benchmark"
    page = (out / "report.html").read_bytes()
    (out / "b" / "p" / "seed-1" / "summary.json").unlink()
    second = run_script(*words)
    assert second.returncode == 0, second.stderr
    assert "1 made now, 11 done already" in second.stdout
    assert all(name in (out / "report.md").read_text() for name in ("majority", "tfidf", "| a", "| b"))
    assert len(page) > 1000
