"""Fine-tuning from file to predictions: all kinds, nothing lost, nothing run twice, equal bytes for equal seeds."""

import gzip
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from sklearn.utils.class_weight import compute_class_weight

from common.errors import UserError
from common.files import read_json, read_jsonl, sha256_file, write_json, write_jsonl
from common.launch import ROOT
from data.features import collate, steps_of_epoch, units
from model import fill_mask, predict
from model.encoder import EncoderConfig
from model.folder import SUMS, write_checkpoint
from model.mlm import MaskedLM
from tasks.scoring import read_predictions, score_predictions
from tests.conftest import run_script
from tokenization.loading import load_tokenizer
from training.defaults import with_defaults
from training.finetuning import run_seed
from training.recipe import settings_for
from training.runs import Run, prepare_data
from training.settings import Finetuning, Recipe
from training.task_models import build_model, parameter_groups, read_start, weigh_classes

CPU = torch.device("cpu")
KINDS = ("classification", "pair", "choice", "tagging", "qa", "similarity", "multilabel")
CITIES, FRUITS = ["Bakı", "Gəncə", "Şəki", "Lənkəran", "Quba"], ["alma", "armud", "nar", "heyva", "üzüm"]


@pytest.fixture(scope="session")
def checkpoint(prepared, tmp_path_factory) -> Path:
    """A tiny encoder with random weights and the demo's tokenizer."""
    tokenizer = load_tokenizer(prepared / "tokenizer")
    torch.manual_seed(4242)  # not a seed used below, or new weights would equal these
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size, hidden_size=32, layers=2, heads=2, intermediate_size=48, max_length=64
    )
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    write_checkpoint(folder, MaskedLM(config).state_dict(), config, tokenizer, {"name": "tiny"})
    return folder


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> dict[str, Path]:
    """One small file of each kind that a few steps can learn."""
    draw, folder = random.Random(0), tmp_path_factory.mktemp("tasks")
    rows: dict[str, list[dict]] = {kind: [] for kind in KINDS}
    for n in range(60):
        city, fruit = draw.choice(CITIES), draw.choice(FRUITS)
        isit = n % 2 == 0
        rows["classification"].append(
            {"id": n, "text": f"{n} {city if isit else fruit} haqqında", "label": "şəhər" if isit else "meyvə"}
        )
        rows["pair"].append({"id": n, "sentence1": f"{n} {city}", "sentence2": city if isit else fruit, "label": int(isit)})
        rows["similarity"].append(
            {"id": n, "sentence1": f"{n} {city}", "sentence2": city if isit else fruit, "score": 4.6 * isit}
        )
        named = [name for name, there in (("şəhər", n % 2), ("meyvə", n % 3)) if there]
        rows["multilabel"].append({"id": n, "text": f"{n} {city if n % 2 else ''} {fruit if n % 3 else ''}", "labels": named})
        options = [city, fruit, "daş"][: 2 + n % 2]
        draw.shuffle(options)
        rows["choice"].append(
            {"id": n, "question": f"{n}. Hansı şəhərdir?", "options": options, "answer": options.index(city), "subject": "a"}
        )
        rows["tagging"].append({"id": n, "words": [str(n), city, "\u00ad", fruit], "tags": ["O", "B-LOC", "O", "O"]})
        context = f"{n} nəfər {city} şəhərində {fruit} yeyir. " * 3
        answer = city if n % 3 else ""
        rows["qa"].append(
            {
                "id": n,
                "context": context,
                "question": "Harada?",
                "answer_text": answer,
                "answer_start": context.index(city) if answer else -1,
            }
        )
    return {kind: folder / f"{kind}.jsonl" for kind, part in rows.items() if write_jsonl(folder / f"{kind}.jsonl", part)}


def settings_of(*words: str, config: str = "finetune") -> Finetuning:
    """The settings that finetune.py would see, without a process of its own."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return settings_for(compose(config, ["cache=null", *words, "out=x", "run_dir=x", "device=cpu", "precision=fp32"]))


def run(checkpoint: Path, file: Path, kind: str, out: Path, seed: int = 0, *words: str, scratch: bool = False) -> dict:
    settings = settings_of(
        f"task.kind={kind}", f"task.train={file}", "recipe.batch_size=16", "recipe.epochs=2", "recipe.lr=1e-3", *words
    )
    start = read_start(checkpoint, scratch=scratch)
    settings, _ = with_defaults(settings, start)
    return run_seed(Run(settings, start, prepare_data(settings.task, start, {}), seed, CPU, out))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_from_file_to_predictions(kind, checkpoint, files, tmp_path, capsys):
    summary = run(checkpoint, files[kind], kind, tmp_path / "out")
    folder = Path(summary["folder"])
    assert folder == tmp_path / "out" / "tiny" / f"{files[kind].parent.name}-{kind}" / "seed-0"
    assert {"config.yaml", "metrics.jsonl", "summary.json", "checkpoint"} <= {path.name for path in folder.iterdir()}
    assert [line["epoch"] for _, line in read_jsonl(folder / "metrics.jsonl")] == [1, 2]
    settings = settings_of(f"task.kind={kind}", f"task.train={files[kind]}")
    task = prepare_data(settings.task, read_start(checkpoint), {}).task
    for split in ("dev", "test"):
        rows = read_predictions(folder / f"predictions-{split}.jsonl", kind)
        assert [row["id"] for row in rows] == [example["id"] for example in getattr(task, split)]
        assert all(row["tokens"] > 0 and row["truncated"] is False for row in rows)
        assert kind != "tagging" or all(len(row["scores"]) == len(row["pred"]) and max(row["scores"]) <= 0 for row in rows)
        score = score_predictions(rows, kind, task.labels, task.metric, task.positive)["score"]
        assert score == pytest.approx(summary[f"{split}_score"], abs=1e-12)
    # The checkpoint is the model behind the test predictions: it gives the same for the same text.
    new = tmp_path / "new.jsonl"
    gold = ("label", "tags", "answers", "labels", "score", "scaled")
    write_jsonl(new, [{key: value for key, value in example.items() if key not in gold} for example in task.test])
    assert predict.main([str(folder), str(new)]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    name = {"tagging": "tags", "choice": "answer", "qa": "answer", "similarity": "score", "multilabel": "labels"}
    shown = [round(row["pred"], 4) if kind == "similarity" else row["pred"] for row in rows]
    assert [row[name.get(kind, "label")] for row in said] == shown


@pytest.mark.parametrize(("kind", "key"), [("pair", "both_orders"), ("tagging", "valid_tags")])
def test_another_way_to_read_scores_goes_from_config_to_report(kind, key, checkpoint, files, tmp_path, capsys):
    plain, other = (
        run(checkpoint, files[kind], kind, tmp_path / name, 0, "recipe.epochs=1", *words)
        for name, words in (("plain", ()), ("other", (f"task.{key}=true",)))
    )
    assert plain["digest"] != other["digest"] and other[key] and not plain[key]
    rows = read_predictions(Path(other["folder"]) / "predictions-test.jsonl", kind)
    kept = {"both_orders": "orders", "valid_tags": "raw"}[key]
    assert all(kept in row for row in rows)
    before = read_predictions(Path(plain["folder"]) / "predictions-test.jsonl", kind)
    # One epoch, so no choice between epochs: equal weights, so each word's tag and the first order are equal.
    for row, old in zip(rows, before, strict=True):
        assert (row["orders"][0] if key == "both_orders" else row["raw"]) == old["pred"]
    names = score_predictions(rows, kind, other["labels"])["metrics"]
    assert ("order_consistency" if key == "both_orders" else "entity_f1 of raw tags") in names
    # The checkpoint records how it is read.
    gold = ("label", "tags", "gold")
    settings = settings_of(f"task.kind={kind}", f"task.train={files[kind]}")
    task = prepare_data(settings.task, read_start(checkpoint), {}).task
    write_jsonl(tmp_path / "new.jsonl", [{k: v for k, v in example.items() if k not in gold} for example in task.test])
    assert predict.main([other["folder"], str(tmp_path / "new.jsonl")]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["tags" if kind == "tagging" else "label"] for row in said] == [row["pred"] for row in rows]


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


def test_each_effect_of_the_seed_can_be_fixed_separately(checkpoint, files, tmp_path):
    """With all three fixed, another seed is the same run to the byte; with any one free, another run."""
    keys = ("init_seed", "order_seed", "dropout_seed")

    def made(name: str, seed: int, *words: str) -> bytes:
        words = ("recipe.epochs=1", *words)
        return (
            Path(run(checkpoint, files["pair"], "pair", tmp_path / name, seed, *words)["folder"])
            / "checkpoint"
            / "model.safetensors"
        ).read_bytes()

    plain = made("plain", 3)
    assert made("all", 8, *(f"recipe.{key}=3" for key in keys)) == plain
    for free in keys:
        assert made(free, 8, *(f"recipe.{key}=3" for key in keys if key != free)) != plain
    with pytest.raises(UserError, match=r"recipe\.order_seed=-1: expected a whole number"):
        settings_of("recipe.order_seed=-1")


def test_leftovers_of_a_killed_run_are_not_a_result(checkpoint, files, tmp_path):
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
    assert not torch.equal(pretrained.encoder.token_embeddings.weight, scratch.encoder.token_embeddings.weight)
    assert torch.equal(pretrained.encoder.pooler.weight, scratch.encoder.pooler.weight)  # new in both, from the same seed


def test_layerwise_decay_and_reinitialised_layers(checkpoint):
    start = read_start(checkpoint)
    recipe = Recipe(lr=1.0, layerwise_decay=0.5, weight_decay=0.01)
    model = build_model(start, "tagging", 3, 0)
    rates = {id(p): group["lr"] for group in parameter_groups(model, recipe) for p in group["params"]}
    assert len(rates) == len(list(model.parameters()))
    assert rates[id(model.head.weight)] == 1.0
    assert rates[id(model.encoder.blocks[1].qkv.weight)] == 0.5
    assert rates[id(model.encoder.blocks[0].qkv.weight)] == 0.25
    assert rates[id(model.encoder.token_embeddings.weight)] == 0.125
    fresh = build_model(start, "tagging", 3, 0, reinitialise_layers=1)
    assert torch.equal(fresh.encoder.blocks[0].qkv.weight, start.weights["encoder.blocks.0.qkv.weight"])
    assert not torch.equal(fresh.encoder.blocks[1].qkv.weight, start.weights["encoder.blocks.1.qkv.weight"])


def test_pooling_matches_its_name(checkpoint, files):
    """cls uses the first token's hidden state, mean each text's average, pooler a dense layer on the first token's."""
    start = read_start(checkpoint)
    data = prepare_data(settings_of("task.kind=pair", f"task.train={files['pair']}").task, start, {})
    batch = collate(data.splits["train"], np.arange(3))
    for pooling in ("pooler", "cls", "mean"):
        model = build_model(start, "pair", 2, 0, pooling=pooling).eval()
        with torch.no_grad():
            hidden = model.encoder(batch.ids, batch.layout, batch.token_types)
            first = batch.layout.starts[:-1].long()
            texts = hidden.split(batch.layout.lengths.tolist())
            vector = {"cls": hidden[first], "mean": torch.stack([text.mean(0) for text in texts])}.get(pooling)
            vector = model.encoder.pool(hidden[first]) if vector is None else vector
            torch.testing.assert_close(model(batch), model.head(vector), atol=1e-5, rtol=0)
    with pytest.raises(UserError, match=r"recipe\.pooling=max: expected one of null, pooler, cls, mean"):
        settings_of("recipe.pooling=max")


def test_every_pooling_goes_from_file_to_checkpoint_and_back(checkpoint, files, tmp_path, capsys):
    for pooling in ("cls", "mean"):
        words = ("recipe.epochs=1", f"recipe.pooling={pooling}")
        summary = run(checkpoint, files["choice"], "choice", tmp_path / pooling, 0, *words)
        assert summary["pooler"] is None
        assert predict.main([summary["folder"], str(files["choice"])]) == 0
        again = {row["id"]: row["answer"] for row in map(json.loads, capsys.readouterr().out.splitlines())}
        rows = [row for _, row in read_jsonl(Path(summary["folder"]) / "predictions-test.jsonl")]
        assert rows and all(again[row["id"]] == row["pred"] for row in rows)


def test_the_order_of_options_only_permutes_their_scores(checkpoint, files):
    """Questions of two and three options in one batch, in any order: the same loss, the scores permuted with their options."""
    start = read_start(checkpoint)
    data = prepare_data(settings_of("task.kind=choice", f"task.train={files['choice']}").task, start, {})
    encoded = data.splits["train"]
    model = build_model(start, "choice", 0, 0).eval()
    groups = units(encoded)[:6]
    assert {len(group) for group in groups} == {2, 3}
    mixed = [group[::-1] for group in groups]
    straight, turned = (collate(encoded, np.concatenate(rows)) for rows in (groups, mixed))
    assert straight.count == turned.count == 6
    with torch.no_grad():
        a, b = model(straight), model(turned)
        torch.testing.assert_close(model.loss(a, straight), model.loss(b, turned), atol=1e-5, rtol=0)
    by_row = dict(zip(np.concatenate(mixed).tolist(), b.tolist(), strict=True))
    assert a.tolist() == pytest.approx([by_row[row] for row in np.concatenate(groups).tolist()], abs=1e-5)
    steps = [steps_of_epoch(encoded, 99, 10**6, 1, 0, epoch) for epoch in range(4)]
    orders = {tuple(np.concatenate([rows for step in made for rows in step]).tolist()) for made in steps}
    three = next(set(group.tolist()) for group in groups if len(group) == 3)
    assert len(orders) == 4 and len({tuple(row for row in order if row in three) for order in orders}) > 1


def test_predictions_carry_their_group(checkpoint, tmp_path):
    rows = [
        {"id": n, "text": f"{n} bir", "text_b": f"{n} iki", "label": "ab"[n % 2], "group": f"sənəd {n // 4}"} for n in range(60)
    ]
    write_jsonl(tmp_path / "a.jsonl", rows)
    folder = Path(run(checkpoint, tmp_path / "a.jsonl", "pair", tmp_path, 0, "recipe.epochs=1")["folder"])
    found = {row["id"]: row["group"] for _, row in read_jsonl(folder / "predictions-test.jsonl")}
    assert found and all(group == f"sənəd {int(identity) // 4}" for identity, group in found.items())


def test_tokens_are_shared_between_processes_and_wrong_ones_never_used(checkpoint, files, tmp_path):
    start = read_start(checkpoint)
    settings, folder = settings_of("task.kind=qa", f"task.train={files['qa']}"), str(tmp_path / "cache")
    first = prepare_data(settings.task, start, {}, folder)
    held = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    assert len(held) == 3
    second = prepare_data(settings.task, start, {}, folder)
    assert held == {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
    rows = zip(first.splits["train"].rows, second.splits["train"].rows, strict=True)
    assert second.digest == first.digest and all(np.array_equal(a.ids, b.ids) for a, b in rows)
    settings.task.max_length = 32
    assert prepare_data(settings.task, start, {}, folder).max_length == 32
    assert len(list((tmp_path / "cache").iterdir())) == 6


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(checkpoint, tmp_path):
    folder = shutil.copytree(checkpoint, tmp_path / "small")
    values = read_json(folder / "config.json")
    values["encoder"]["vocab_size"] -= 8
    write_json(folder / "config.json", values)
    sums = read_json(folder / SUMS)
    write_json(folder / SUMS, {**sums, "config.json": sha256_file(folder / "config.json")})
    with pytest.raises(UserError, match=r"small.*tokens, the model has \d+"):
        read_start(folder)


def test_a_loss_that_is_not_finite_stops_the_run_by_name(checkpoint, files, tmp_path):
    settings = settings_of("task.kind=pair", f"task.train={files['pair']}")
    start = read_start(checkpoint)
    start.weights["encoder.token_embeddings.weight"] = start.weights["encoder.token_embeddings.weight"] * float("nan")
    with pytest.raises(UserError, match=r"tiny/.*seed-0: the loss of step 1 is nan"):
        run_seed(Run(with_defaults(settings, start)[0], start, prepare_data(settings.task, start, {}), 0, CPU, tmp_path))
    assert not list(tmp_path.rglob("summary.json"))


def test_recipe_comes_from_the_task_and_the_command_line_wins():
    topic = settings_of("task=topic")
    assert topic.recipe.epochs == topic.task.recipe["epochs"]
    assert settings_of("task=topic", "recipe.lr=0.5").recipe.lr == 0.5
    with pytest.raises(UserError, match=r"recipe\.epochs=0"):
        settings_of("recipe.epochs=0")


def test_fill_mask_prints_tokens_with_probabilities(checkpoint, capsys):
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


def test_predict_reads_what_training_reads(tmp_path):
    """A tab file keeps its unpaired quotes, a record that training would skip is named, no input is lost."""
    (tmp_path / "a.tsv").write_text('\ufeffsentence1\tsentence2\r\n"Bakı\tşəhər\r\nalma"\tmeyvə\r\n', encoding="utf-8")
    assert [e["text"] for e in predict.read_inputs(tmp_path / "a.tsv", "pair")] == ['"Bakı', 'alma"']
    rows = [{"id": n, "tokens": ["Ə", str(n)]} for n in range(3)]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    assert [e["words"] for e in predict.read_inputs(tmp_path / "a.parquet", "tagging")] == [["Ə", str(n)] for n in range(3)]
    with gzip.open(tmp_path / "a.conll.gz", "wt", encoding="utf-8") as file:
        file.write("# sent_id = 1\nBakı\n# O\n\n-DOCSTART- O\n\ngəldi B-X\n")
    assert [e["words"] for e in predict.read_inputs(tmp_path / "a.conll.gz", "tagging")] == [["Bakı", "#"], ["gəldi"]]
    (tmp_path / "b.csv").write_text("id,text\n1,mətn\n2,mətn,artıq\n", encoding="utf-8")
    with pytest.raises(UserError, match=r"b.csv, line 3: number of cells differs.*nothing was predicted"):
        predict.read_inputs(tmp_path / "b.csv", "classification")
    (tmp_path / "b.xlsx").write_text("")
    with pytest.raises(UserError, match=r"format '.xlsx' is not read"):
        predict.read_inputs(tmp_path / "b.xlsx", "classification")


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


@pytest.mark.slow
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
    assert "1 made now, 11 already complete" in second.stdout
    assert all(name in (out / "report.md").read_text() for name in ("majority", "tfidf", "| a", "| b"))
    assert len(page) > 1000


def test_class_weights_weight_the_loss(checkpoint, files):
    """balanced equals scikit-learn's weights; the loss is the weighted sum; impossible weights are refused by name."""
    start, settings = read_start(checkpoint), settings_of("task.kind=tagging", f"task.train={files['tagging']}")
    data = prepare_data(settings.task, start, {})
    rows, labels = data.splits["train"].rows, data.task.labels
    tags = [label for row in rows for label in row.targets if label >= 0]
    expected = compute_class_weight("balanced", classes=np.arange(len(labels)), y=np.array(tags))
    weights = weigh_classes("balanced", "tagging", labels, rows)
    assert weights.numpy() == pytest.approx(expected, rel=1e-5)
    named = weigh_classes({"B-LOC": 3}, "tagging", labels, rows)
    assert named[labels.index("B-LOC")] / named[labels.index("O")] == pytest.approx(3)
    model = build_model(start, "tagging", len(labels), 0).eval()
    batch = collate(data.splits["train"], np.arange(4))
    scores = model(batch)
    plain = torch.nn.functional.cross_entropy(scores, batch.targets, reduction="none")
    model.class_weights = named
    assert model.loss(scores, batch).item() == pytest.approx((plain * named[batch.targets]).sum().item(), rel=1e-5)
    for wanted, kind, said in (("balanced", "qa", "qa has no classes"), ({"X": 1}, "tagging", "no label 'X'")):
        with pytest.raises(UserError, match=said):
            weigh_classes(wanted, kind, labels, rows)
    with pytest.raises(UserError, match=r"recipe\.class_weights=even"):
        settings_of("recipe.class_weights=even")
    assert settings_of("recipe.class_weights={a: 2}").recipe.class_weights == {"a": 2}
