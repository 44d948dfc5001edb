"""More ways to fine-tune: averaged weights, Muon, a masked-LM loss beside the task's, dropout, a neighbouring task."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from common.errors import UserError
from common.files import read_json, write_jsonl
from data.features import collate
from data.masking import Masking
from model.folder import read_weights
from model.mlm import MaskedLM
from model.store import load_masked_lm, load_task_model
from tests.conftest import run_script
from tests.test_finetune import CPU, checkpoint, files, run, settings_of  # noqa: F401  (fixtures)
from training.cloze import cloze
from training.joint_mlm import RATE, add_masked_lm_head, mask_rows, masked_loss
from training.optimizers import Muon
from training.runs import prepare_data
from training.settings import Recipe
from training.task_models import build_model, keep_head, parameter_groups, read_start, set_dropout, task_optimizers

ONE_STEP = ("recipe.epochs=1", "recipe.batch_size=1000", "recipe.warmup=0", "recipe.pooling=mean", "recipe.dropout=0")


def weights_of(summary: dict) -> dict[str, torch.Tensor]:
    return read_weights(Path(summary["folder"]) / "checkpoint" / "model.safetensors")


# ---------------------------------------------------------------- averaged weights


def test_the_average_is_what_dev_scores_and_what_is_kept(checkpoint, files, tmp_path):  # noqa: F811
    """After one step the average is 10/11 of the new weights and 1/11 of the first ones: its decay rises from 1/11."""
    file = files["classification"]
    plain = run(checkpoint, file, "classification", tmp_path / "plain", 3, *ONE_STEP)
    averaged = run(checkpoint, file, "classification", tmp_path / "ema", 3, *ONE_STEP, "recipe.ema=0.99")
    first = build_model(read_start(checkpoint), "classification", 2, 3, pooling="mean").state_dict()
    last, kept = weights_of(plain), weights_of(averaged)
    assert plain["digest"] != averaged["digest"] and plain["dev_loss"] != averaged["dev_loss"]
    for name, value in kept.items():
        assert torch.allclose(value, first[name] + 10 / 11 * (last[name] - first[name]), atol=1e-6), name
    assert any(not torch.equal(kept[name], last[name]) for name in kept)
    # Dev's loss is that of the kept weights.
    model, _, _ = load_task_model(averaged["folder"])
    settings = settings_of("task.kind=classification", f"task.train={file}")
    rows = prepare_data(settings.task, read_start(checkpoint), {}).splits["dev"]
    batch = collate(rows, np.arange(len(rows.rows)))
    with torch.no_grad():
        assert float(model.loss(model(batch), batch)) / batch.count == pytest.approx(averaged["dev_loss"], abs=1e-5)


# ---------------------------------------------------------------- Muon


def test_muon_has_the_matrices_of_the_blocks_and_adamw_the_rest(checkpoint):  # noqa: F811
    start = read_start(checkpoint)
    model = build_model(start, "classification", 3, 0, pooling="pooler")
    recipe = Recipe(lr=1e-3, optimizer="muon", layerwise_decay=0.5, weight_decay=0.1)
    muon, adamw = task_optimizers(model, recipe, torch.float32)
    assert isinstance(muon, Muon) and isinstance(adamw, torch.optim.AdamW)
    names = {id(p): name for name, p in model.named_parameters()}
    held = [{names[id(p)] for group in one.param_groups for p in group["params"]} for one in (muon, adamw)]
    assert held[0] == {name for name, p in model.named_parameters() if ".blocks." in name and p.ndim == 2}
    assert len(held[0]) > 4 and held[0] | held[1] == set(names.values()) and not held[0] & held[1]
    rates = {names[id(p)]: (group["lr"], group["peak"]) for group in muon.param_groups for p in group["params"]}
    assert {rate for name, rate in rates.items() if ".blocks.1." in name} == {(5e-4, 5e-4)}
    assert {rate for name, rate in rates.items() if ".blocks.0." in name} == {(2.5e-4, 2.5e-4)}
    assert [type(one) for one in task_optimizers(model, Recipe(lr=1e-3), torch.float32)] == [torch.optim.AdamW]
    frozen = build_model(start, "classification", 3, 0, pooling="mean")
    for name, p in frozen.named_parameters():
        p.requires_grad_(".blocks." not in name)
    with pytest.raises(UserError, match="no matrix of a block is trained"):
        task_optimizers(frozen, recipe, torch.float32)
    assert parameter_groups(frozen, recipe)


def test_a_run_with_muon_takes_steps_of_adamw_s_size(checkpoint, files, tmp_path):  # noqa: F811
    first = build_model(read_start(checkpoint), "classification", 2, 0, pooling="mean").state_dict()
    sizes = {}
    for name in ("adamw", "muon"):
        own = run(
            checkpoint, files["classification"], "classification", tmp_path / name, 0, *ONE_STEP, f"recipe.optimizer={name}"
        )
        moved = {n: w - first[n] for n, w in weights_of(own).items() if ".blocks." in n and w.ndim == 2}
        sizes[name] = [float(w.square().mean().sqrt()) for w in moved.values()]
    ratio = np.array(sizes["muon"]) / np.array(sizes["adamw"])
    assert (ratio > 0.1).all() and (ratio < 1).all()  # 0.2 to 0.4 of it (arXiv 2502.16982 section 2.2)


# ---------------------------------------------------------------- a masked-LM loss beside the task's


def masked_step(checkpoint: Path, file: Path, max_tokens: int):  # noqa: F811
    settings = settings_of("task.kind=classification", f"task.train={file}")
    start = read_start(checkpoint)
    rows = prepare_data(settings.task, start, {}).splits["train"]
    sizes = np.cumsum([len(row.ids) for row in rows.rows])
    micros = [
        part for part in np.split(np.arange(len(rows.rows)), np.searchsorted(sizes, range(max_tokens, sizes[-1], max_tokens)))
    ]
    return start, rows, micros, mask_rows(rows, micros, Masking.of(start.tokenizer), (5, 2, 7), CPU)


def test_the_loss_is_that_of_the_pre_training_model_on_the_same_masks(checkpoint, files):  # noqa: F811
    start, rows, micros, masked = masked_step(checkpoint, files["classification"], 150)
    model = build_model(start, "classification", 2, 0, pooling="mean").eval()
    add_masked_lm_head(model, start)
    reference, tokenizer = load_masked_lm(checkpoint)
    assert isinstance(reference, MaskedLM) and len(micros) > 1
    special, share = set(tokenizer.special_ids), []
    for numbers, part in zip(micros, masked, strict=True):
        batch = collate(rows, numbers)
        positions = part.layout.selected[0]
        assert torch.equal(part.targets, batch.ids[positions]) and not special & set(part.targets.tolist())
        changed = (part.ids != batch.ids).nonzero().ravel()
        assert set(changed.tolist()) <= set(positions.tolist())
        share.append(len(positions) / len(batch.ids))
        logits = reference.logits(part.ids, part.layout, positions)
        wanted = F.cross_entropy(logits, part.targets, reduction="sum")
        assert masked_loss(model, part, batch).item() == pytest.approx(wanted.item(), rel=1e-5)
    assert RATE / 2 < np.mean(share) < RATE


def test_masks_do_not_depend_on_how_a_step_is_cut(checkpoint, files):  # noqa: F811
    (_, _, _, few), (_, _, _, many) = (masked_step(checkpoint, files["classification"], most) for most in (10**6, 60))
    assert len(few) == 1 < len(many)
    assert torch.equal(few[0].ids, torch.cat([part.ids for part in many]))
    assert torch.equal(few[0].targets, torch.cat([part.targets for part in many]))


@pytest.mark.parametrize("kind", ["pair", "choice", "tagging", "qa"])
def test_a_joint_run_learns_the_text_and_leaves_a_plain_task_model(kind, checkpoint, files, tmp_path):  # noqa: F811
    plain, joint = (
        run(checkpoint, files[kind], kind, tmp_path / f"{weight}", 0, f"recipe.mlm={weight}", "recipe.max_tokens=300")
        for weight in (0, 0.5)
    )
    assert plain["dev_loss"] != joint["dev_loss"] and plain["train_tokens"] == joint["train_tokens"]
    assert weights_of(plain).keys() == weights_of(joint).keys()
    load_task_model(joint["folder"])


def test_without_a_masked_lm_head_a_joint_run_is_refused(checkpoint, files, tmp_path):  # noqa: F811
    once = run(checkpoint, files["pair"], "pair", tmp_path / "out")
    for start, words in ((once["folder"], {}), (checkpoint, {"scratch": True})):
        with pytest.raises(UserError, match=r"recipe\.mlm: .* has no masked-LM head"):
            run(Path(start), files["pair"], "pair", tmp_path / "no", 0, "recipe.mlm=0.1", **words)


# ---------------------------------------------------------------- dropout and label smoothing


def test_dropout_and_smoothing_are_of_training_alone(checkpoint, files):  # noqa: F811
    start = read_start(checkpoint)
    model = build_model(start, "classification", 2, 0, pooling="mean")
    before = [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    set_dropout(model, None)
    assert [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)] == before
    set_dropout(model, 0.3)
    assert {module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)} == {0.3} and len(before) > 2
    settings = settings_of("task.kind=classification", f"task.train={files['classification']}")
    rows = prepare_data(settings.task, start, {}).splits["train"]
    batch = collate(rows, np.arange(4))
    scores = torch.tensor([[2.0, -1.0]] * 4)
    model.label_smoothing = 0.1
    logs = scores.log_softmax(1)
    right = logs[range(4), batch.targets].sum()
    assert float(model.eval().loss(scores, batch)) == pytest.approx(-float(right), rel=1e-6)
    wanted = -(0.9 * right + 0.1 * logs.mean(1).sum())
    assert float(model.train().loss(scores, batch)) == pytest.approx(float(wanted), rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        ("choice", ["recipe.label_smoothing=0.1"], "recipe.label_smoothing=0.1: choice has no classes"),
        ("pair", ["recipe.linear_probe=true", "recipe.mlm=0.1"], "a probe trains no matrix of the encoder"),
        ("pair", ["recipe.linear_probe=true", "recipe.optimizer=muon"], "a probe trains no matrix of the encoder"),
        ("pair", ["recipe.adapter=lora", "recipe.optimizer=muon"], "adapters are trained by AdamW"),
        ("pair", ["recipe.ema=1.0"], "recipe.ema=1.0"),
    ],
)
def test_what_cannot_go_together_is_refused(kind, words, said, checkpoint, files, tmp_path):  # noqa: F811
    with pytest.raises(UserError, match=said):
        run(checkpoint, files[kind], kind, tmp_path, 0, *words)


# ---------------------------------------------------------------- a neighbouring task first


def test_a_fine_tuned_start_keeps_its_encoder_and_its_head_only_for_equal_classes(checkpoint, files, tmp_path):  # noqa: F811
    first = run(checkpoint, files["classification"], "classification", tmp_path / "first", 0, "recipe.pooling=mean")
    learned, labels = weights_of(first), ["meyvə", "şəhər"]
    start = read_start(first["folder"])
    model = build_model(start, "classification", 2, 1, pooling="mean")
    assert all(torch.equal(value, learned[name]) for name, value in model.state_dict().items() if name.startswith("encoder."))
    assert not torch.equal(model.head.weight, learned["head.weight"])
    assert keep_head(model, start, labels) and torch.equal(model.head.weight, learned["head.weight"])
    for kind, own, pooling in (
        ("classification", ["meyvə", "quş"], "mean"),  # other classes
        ("classification", labels[::-1], "mean"),  # in another order
        ("pair", labels, "mean"),
        ("classification", labels, "cls"),  # reads another vector
    ):
        other = build_model(start, kind, 2, 1, pooling=pooling)
        drawn = other.head.weight.clone()
        assert not keep_head(other, start, own) and torch.equal(other.head.weight, drawn)
    assert not keep_head(model, read_start(checkpoint), labels)


def test_a_second_task_starts_where_the_first_ended(checkpoint, files, tmp_path):  # noqa: F811
    first = run(checkpoint, files["classification"], "classification", tmp_path / "first", 0, "recipe.pooling=mean")
    again = run(Path(first["folder"]), files["classification"], "classification", tmp_path / "again", 1, "recipe.pooling=mean")
    other = run(Path(first["folder"]), files["pair"], "pair", tmp_path / "other", 1)
    assert (first["head"], again["head"], other["head"]) == ("new", "checkpoint", "new")
    assert first["folder"] + "/checkpoint" in json.dumps(other["ledger"]) and len(other["ledger"]) > len(first["ledger"])


def test_a_fine_tuned_start_has_no_cloze_row(checkpoint, files, tmp_path):  # noqa: F811
    """Its head has a bias too, and was taken for that of a masked LM."""
    first = run(checkpoint, files["classification"], "classification", tmp_path / "first")
    data = {split: tmp_path / f"{split}.jsonl" for split in ("train", "dev", "test")}
    for path in data.values():
        write_jsonl(path, [{"id": f"{path.stem}{n}", "text": f"{n} alma", "label": "ab"[n % 2]} for n in range(20)])
    words = [f"task.{split}={path}" for split, path in data.items()]
    words += ["task.kind=classification", "+task.cloze='{text} [MASK]'", "+task.verbalisers={a: [alma], b: [nar]}"]
    settings, start = settings_of(*words), read_start(first["folder"])
    assert cloze(start, prepare_data(settings.task, start, {}), 1000, CPU, tmp_path / "out") is None
    result = run_script(
        "finetune.py",
        f"checkpoint={first['folder']}",
        f"out={tmp_path / 'out'}",
        f"workdir={tmp_path}",
        "recipe.epochs=1",
        "device=cpu",
        *[word.replace("'", '"') for word in words],
    )
    assert result.returncode == 0, result.stderr
    assert read_json(next((tmp_path / "out").glob("*/*/seed-0/summary.json")))["checkpoint"] == first["folder"]
