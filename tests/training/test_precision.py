"""Without hardware bf16, no matrix product runs in it unless the user asks: there it is 50 times slower than fp32."""

from argparse import Namespace
from collections import Counter
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from torch.utils._python_dispatch import TorchDispatchMode

import training.precision
from benchmarks.pretraining import ways_of
from common.files import ROOT
from model import predict
from model.store import load_masked_lm
from tests.conftest import TINY, training_words
from train import train
from training.defaults import with_defaults
from training.distributed import start
from training.finetuning import run_seed
from training.heldout import evaluate, guesses, read_heldout
from training.recipe import settings_for
from training.runs import Run, prepare_data
from training.task_models import read_start

PRODUCTS = ("mm", "bmm", "addmm", "baddbmm", "addbmm", "mv", "addmv", "dot", "linear", "matmul", "einsum", "convolution")
LOW = (torch.bfloat16, torch.float16)


class Products(TorchDispatchMode):
    """Counts this thread's matrix products by dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.split("::")[1]
        if name in PRODUCTS or "attention" in name:
            kinds = {x.dtype for x in args if isinstance(x, torch.Tensor) and x.is_floating_point()}
            self.counts[next((kind for kind in LOW if kind in kinds), torch.float32)] += 1
        return func(*args, **(kwargs or {}))


@pytest.fixture(autouse=True)
def no_bf16(monkeypatch):
    """Whatever this machine has: the capability is reported as absent."""
    monkeypatch.setattr(training.precision, "cpu_has_bf16", lambda: False)


def config_of(name: str, *words: str):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        return compose(name, list(words))


def pretrain(prepared: Path, run: Path, *words: str) -> Counter:
    """Products of a run of two steps with its evaluations, in this process."""
    given = [
        word
        for word in training_words(prepared, run, "budget.steps=2", "threads=null", *words)[1:]
        if not word.startswith(("hydra.", "precision=fp32"))
    ]
    with Products() as seen:
        assert train(config_of("train", f"run_dir={run}", *given)) == 0
    return seen.counts


@pytest.fixture(scope="module")
def muon_run(prepared, tmp_path_factory) -> tuple[Path, Counter]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training.precision, "cpu_has_bf16", lambda: False)
        run = tmp_path_factory.mktemp("precision") / "muon"
        return run, pretrain(prepared, run, "optimizer=muon", "model.dropout=0.0")


def only_fp32(counts: Counter) -> bool:
    return counts[torch.float32] > 10 and not any(counts[kind] for kind in LOW)


def test_training_with_muon_and_its_evaluations(muon_run):
    assert only_fp32(muon_run[1])


def test_a_student_and_its_teacher(prepared, muon_run, tmp_path):
    assert only_fp32(pretrain(prepared, tmp_path / "student", f"distill.teacher={muon_run[0]}", "watch.files=null"))


def test_bf16_runs_where_the_user_asks(prepared, tmp_path):
    """The watcher itself: it must see bf16 products when there are some, Muon's included."""
    asked = pretrain(prepared, tmp_path / "asked", "optimizer=muon", "precision=bf16")
    assert asked[torch.bfloat16] > 10


def test_heldout_text_and_masks_filled(prepared, muon_run):
    model, tokenizer = load_masked_lm(muon_run[0])
    heldout = read_heldout(prepared / "corpus" / "heldout.jsonl.gz", tokenizer, 64, 1000)
    ranks = start("cpu")
    with Products() as seen:
        evaluate(model, heldout, ranks, training.precision.choose_dtype("auto", ranks.device))
        guesses(model, tokenizer, ["Bakı [MASK] paytaxtıdır."])
    assert only_fp32(seen.counts)


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_fine_tuning_and_scoring(muon_run, tmp_path, kind):
    GlobalHydra.instance().clear()
    topic = "topic" if kind == "classification" else "ner"
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        words = ["cache=null", f"task={topic}", "out=x", "run_dir=x", "device=cpu", "recipe.epochs=1", "task.max_length=32"]
        settings = settings_for(compose("finetune", words))
    begun = read_start(muon_run[0])
    data = prepare_data(settings.task, begun, {})
    with Products() as seen:
        summary = run_seed(Run(with_defaults(settings, begun)[0], begun, data, 0, torch.device("cpu"), tmp_path / "out"))
        model, tokenizer, task = predict.load_any(summary["folder"])
        predict.predict(model, tokenizer, task, data.task.test[:4])
    assert only_fp32(seen.counts)


assert "precision=fp32" in TINY  # which `pretrain` above removes


@pytest.mark.parametrize("documents", ["joined", "real"])
def test_the_benchmark_measures_no_bf16_peer_where_it_is_emulated(documents):
    options = Namespace(device="cpu", documents=documents, compile=True)
    some, every = ways_of(options, {}, has_bf16=False), ways_of(options, {}, has_bf16=True)
    assert not any(work.get("precision") == "bf16" for work in some.values())
    assert set(every) - set(some) == {name for name, work in every.items() if work.get("precision") == "bf16"}
    assert {"ours", "ours compiled", "theirs fp32", "theirs fp32 compiled"} <= set(some)
    options.device = "cuda"
    assert ways_of(options, {}, has_bf16=False) == ways_of(options, {}, has_bf16=True)
