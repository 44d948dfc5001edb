"""The steps that tests/fake_cuda looks at, each through the project's own code, in a process that has the fake device.

python -m tests.fake_cuda.cases pretraining-bert-adamw finetuning-qa ...      one line of JSON for each
"""

import io
import json
import os
import sys
import tempfile
from contextlib import redirect_stderr, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from benchmarks.fake_cuda import DEVICE, Watch, on_device, pretend
from benchmarks.peers import documents
from data.features import collate
from data.layout import move
from data.loader import Loader
from data.packing import stream
from model.adapters import choose_trained
from model.distillation import Student, Teaching
from model.embeddings import flat
from model.encoder import Encoder, EncoderConfig
from model.heads import TaskModel, has_pooler, is_pooled
from model.mlm import MaskedLM
from tasks.base import kind_of
from tasks.encoding import Encoded, Row
from train import log_line, take_step
from training import finetuning, sentences
from training.checkpoints import Writer
from training.distributed import Ranks
from training.flops import step_flops
from training.heldout import HeldOut, Window, evaluate
from training.optimizers import Average, build_optimizers
from training.plan import Clock, State, Step
from training.precision import choose_kernels
from training.pretraining import Run
from training.settings import Optimizer, Phase, Pretraining, Recipe, Sentences
from training.task_models import task_optimizers
from training.teachers import Teacher
from training.tracking import Tracker

# Base with four of its twelve blocks: all that repeats is there four times, and a case takes a second.
BERT = EncoderConfig("bert", vocab_size=64000, hidden_size=768, layers=4, heads=12, intermediate_size=3072)
MODERN = replace(BERT, architecture="modern", intermediate_size=1152)
SMALL = replace(BERT, layers=2)  # for the steps of fine-tuning
SHAPES = {"bert": BERT, "modern": MODERN}
RANK = Ranks(0, 1, DEVICE)
TOKENS, LENGTH, LABELS = 32768, 512, 8
OPTIMIZERS = {
    "adamw": Optimizer("adamw", lr=1e-3, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.01),
    "muon": Optimizer("muon", lr=1e-3, beta1=0.9, beta2=0.98, eps=1e-6, weight_decay=0.01),
}


def built(make: Any) -> Any:
    """The module that `make` builds, with fake weights on the device."""
    with torch.device("meta"):
        module = make()
    return on_device(module)


def pairs(queries: int, keys: int, window: int) -> float:
    """(Query, key) pairs of documents of LENGTH tokens."""
    return queries * float(LENGTH if window < 0 else min(LENGTH, 2 * window + 1))


def pretraining(watch: Watch, raw: MaskedLM, optimizer: str, folder: Path) -> dict[str, Any]:
    """Two steps of train.py's loop, of which the second is reported; a third one before a log line, and that line."""
    settings = Pretraining(
        optimizer=OPTIMIZERS[optimizer], phases=[Phase(LENGTH, 1.0)], ema=0.999, spike_sigmas=6.0, spike_window=2
    )
    shards, masking, cls_id, sep_id = documents(
        {"random": [LENGTH - 2] * 400, "masking": "paper", "shape": raw.encoder.config.to_dict()}
    )
    loader = Loader(shards, masking, np.ones(1), TOKENS, 0, cls_id, sep_id)
    optimizers = build_optimizers(raw, settings.optimizer, torch.bfloat16)
    run = Run(
        settings, folder, RANK, None, loader, np.array([1]), None, raw, raw, torch.bfloat16, optimizers, Average(raw, 0.999),
        None, State(by_source=[0]), Clock(0.0), 1e15, Tracker(folder, settings.tracker, {}, {}, active=False),
        Writer(folder, 2, None, DEVICE), torch.zeros(2, device=DEVICE), None, {}, [],
        bar=tqdm(disable=True),
    )  # fmt: skip
    seen: dict[str, Any] = {}
    for number in range(3):
        watch.forget()
        batches = [loader.batch(0, 2 * number + micro, LENGTH, 0.15).to(DEVICE) for micro in range(2)]
        seen["batches"] = watch.seen()
        watch.forget()
        step = Step([(0, 2 * number), (0, 2 * number + 1)], LENGTH, 0.15, 0.1, {"step": number + 1})
        run.measuring = number == 2
        loss, norm, skipped = take_step(run, step, batches, sum(len(batch.targets) for batch in batches))
        run.interval.append((torch.stack([loss, norm, skipped.float()]), step))
        seen["step before a log line" if run.measuring else "step"] = watch.seen()
    counted = [step_flops(raw, batch.layout.lengths[: len(batch.documents)], len(batch.targets)) for batch in batches]
    products = sum(kernel.flops for kernel in watch.log if kernel.name in ("mm", "addmm"))
    attention = sum(kernel.flops for kernel in watch.log if "attn" in kernel.name)
    seen["flops"] = {"counted": sum(counted), "products": products, "attention": attention}
    watch.forget()
    log_line(run)
    seen["log line"] = watch.seen()
    return seen


def student(width: int) -> Student:
    """A student of BERT's shape, whose teacher has another width or the same; hidden states are compared too."""
    teacher = built(lambda: MaskedLM(replace(BERT, hidden_size=width, heads=width // 64, intermediate_size=4 * width)))
    teaching = Teaching(0.5, 2.0, [(0, 0), (2, 2), (4, 4)])
    return built(lambda: Student(BERT, True, teacher, teaching))


def rows_of_kind(kind: str, random: np.random.Generator, examples: int = 32) -> Encoded:
    """Rows of a kind of task with the targets that its head reads, of 20 to 60 random tokens each."""
    encoded, reads = Encoded(kind), kind_of(kind)
    for _ in range(examples):
        count = 4 if reads.compete == "rows" else 1
        rows = []
        for _ in range(count):
            size = int(random.integers(20, 60))
            ids = random.integers(5, 64000, size).astype(np.int32)
            positions = np.zeros(1, np.int64)
            targets: np.ndarray = np.array([1])
            if reads.compete == "tokens":
                positions, targets = np.arange(size), np.array([9, 10])
            elif not is_pooled(kind):
                positions, targets = np.arange(1, size - 1), np.ones(size - 2, np.int64)
            elif reads.head == "Score":
                targets = np.array([0.5], np.float32)
            elif reads.head == "Labels":
                targets = np.ones((1, LABELS), np.float32)
            rows.append(Row(ids, 8, positions, targets))
        encoded.close(rows, False)
    return encoded


def fine_tuning(watch: Watch, kind: str, pooling: str = "pooler", lora: bool = False, taught: bool = False) -> dict[str, Any]:
    """Two optimizer steps of two micro-batches, of which the second is reported; without gradients, as dev is scored."""
    model = built(lambda: TaskModel(Encoder(SMALL, pooler=has_pooler(kind, pooling)), kind, LABELS, pooling))
    recipe = Recipe(lr=1e-4)
    if lora:
        choose_trained(model, recipe.lora, None, False, False)
        on_device(model)
    if model.reads.weighable:
        model.class_weights = torch.ones(LABELS, device=DEVICE)
    learner = finetuning.Learner(model, task_optimizers(model, recipe, torch.bfloat16), None)
    encoded = rows_of_kind(kind, np.random.default_rng(0))
    numbers = np.arange(len(encoded.rows))
    halves = numbers[: len(numbers) // 2], numbers[len(numbers) // 2 :]
    seen: dict[str, Any] = {}
    for _ in range(2):
        watch.forget()
        batches = [collate(encoded, half, DEVICE) for half in halves]
        seen["batches"] = watch.seen()
        if taught and learner.teacher is None:
            shapes = [len(row.positions) for row in encoded.rows]
            rest = () if kind_of(kind).compete == "rows" else (model.reads.outputs(LABELS),)
            learner.teacher = Teacher([torch.ones((n, *rest), device=DEVICE) for n in shapes], 0.0)
        watch.forget()
        finetuning.train_step(learner, [(batch, None) for batch in batches], recipe, torch.bfloat16)
        seen["step"] = watch.seen()
    watch.forget()
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        model.eval().loss(model(batches[0]), batches[0])
    seen["scoring"] = watch.seen()
    return seen


def held_out(watch: Watch, model: MaskedLM) -> dict[str, Any]:
    """The whole evaluation of some 60,000 tokens in documents of all lengths."""
    random = np.random.default_rng(0)
    windows = []
    for number in range(300):
        ids = random.integers(5, 64000, int(random.integers(3, LENGTH)))
        positions = np.flatnonzero(random.random(len(ids)) < 0.15)
        windows.append(Window(number % 3, ids, positions, ids[positions], 5 * len(positions)))
    watch.forget()
    evaluate(model, HeldOut(["a", "b", "c"], windows), RANK, torch.bfloat16)
    return {"evaluation": watch.seen()}


def sentence_vectors(watch: Watch, optimizer: str) -> dict[str, Any]:
    """Two steps over 64 pairs, of which the second is reported."""
    encoder = built(lambda: Encoder(SMALL))
    settings = Sentences()
    optimizers = build_optimizers(encoder, OPTIMIZERS[optimizer], torch.bfloat16)
    seen: dict[str, Any] = {}
    for number in range(2):
        random = stream(0, number)
        rows = [random.integers(5, 64000, int(random.integers(5, 60))) for _ in range(128)]
        watch.forget()
        batch = *flat(rows, DEVICE), move(sentences.repeats(np.arange(64)), DEVICE)
        seen["batches"] = watch.seen()
        watch.forget()
        sentences.train_step(encoder, batch, optimizers, settings, torch.bfloat16)
        seen["step"] = watch.seen()
    return seen


def careless(watch: Watch) -> dict[str, Any]:
    """What must never happen in a step, one thing after another, so that a test can see that each is seen."""
    x, table = torch.ones(8, 4, device=DEVICE), torch.ones(4)
    seen: dict[str, Any] = {}
    for name, act in {
        "item": lambda: x.sum().item(),
        "if": lambda: bool(x.sum() > 0),
        "tolist": x[0].tolist,
        "numpy": lambda: x.cpu().numpy(),
        "equal": lambda: torch.equal(x, x),
        "number": lambda: torch.tensor(1.5, device=DEVICE),
        "pageable": lambda: table.to(DEVICE, non_blocking=True),
        "blocking": lambda: table.pin_memory().to(DEVICE),
        "list as index": lambda: x[[0, 3]],
        "two devices": lambda: x + table,
        "nothing": lambda: (x * 2, x.new_zeros(3), move(table, DEVICE), x.sum() > 0),
    }.items():
        watch.forget()
        with suppress(RuntimeError):  # torch itself refuses two devices
            act()
        seen[name] = watch.seen()
    return seen


def kernels_chosen(folder: Path) -> dict[str, Any]:
    """What `choose_kernels` returns and says on a Hopper GPU, without FlashAttention-3 and with a package that is none."""

    def chosen(deterministic: bool, flash_attention: str) -> list[Any]:
        said = io.StringIO()
        with redirect_stderr(said):
            return [choose_kernels(deterministic, flash_attention, DEVICE), said.getvalue()]

    seen = {f"{wanted} {fixed}": chosen(fixed, wanted) for wanted in ("auto", "FA2", "FA3") for fixed in (False, True)}
    seen["fixed"] = [torch.are_deterministic_algorithms_enabled(), os.environ.get("CUBLAS_WORKSPACE_CONFIG")]
    (folder / "flash_attn_interface.py").write_text("")
    sys.path.insert(0, str(folder))
    seen["empty package"] = chosen(False, "auto")
    torch.cuda.get_device_capability = lambda device=None: (8, 0)
    seen["ampere auto"], seen["ampere FA3"] = chosen(False, "auto"), chosen(False, "FA3")
    return seen


def case(name: str, watch: Watch, folder: Path) -> dict[str, Any]:
    """What one case saw."""
    if name == "careless":
        return careless(watch)
    if name == "kernels":
        return kernels_chosen(folder)
    what, first, *rest = name.split("-")
    if what == "pretraining":
        shape, optimizer = SHAPES[first], rest[0]
        return pretraining(watch, built(partial(MaskedLM, shape, last_block_on_masked=True)), optimizer, folder)
    if what == "distillation":
        return pretraining(watch, student(int(first)), "adamw", folder)
    if what == "finetuning":
        pooling = next((word for word in rest if word in ("cls", "mean")), "pooler")
        return fine_tuning(watch, first, pooling, "lora" in rest, "taught" in rest)
    if what == "heldout":
        return held_out(watch, built(partial(MaskedLM, SHAPES[first], last_block_on_masked=True)))
    return sentence_vectors(watch, first)


def main() -> None:
    """Run the cases that the command line names."""
    pretend()
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder, Watch(pairs) as watch:
            print(json.dumps({"case": name} | case(name, watch, Path(folder))), flush=True)


if __name__ == "__main__":
    main()
