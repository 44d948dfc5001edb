"""Bits per character against minutes of training: ours with two recipes, and transformers' script with a tuned one.

    python -m benchmarks.pretraining --time-to-loss        (python -m benchmarks.time_to_loss '{...}' is the peer's process)

All models have 4 layers x 256 and read windows of 128 tokens with one tokenizer and one held-out set with a fixed mask
(training.heldout; the peer's weights go through the name map). Evaluations do not count as training time on either side.
The peer is BertForMaskedLM on joined blocks in batches of 16, bf16, AdamW at 1e-3, warm-up over 5 % and then linear to 0 at
the end of its minutes. Ours is train.py: `best` is experiment=local (modern, Muon), and `paper` is the paper's BERT in
the same size with AdamW. Each runs with the budget that its bar allows (1/10 and 1/2 of the peer's), because a schedule
that ends early learns more, and `best` also with the whole budget.
"""

import argparse
import itertools
import math
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from benchmarks.measure import child, environment, in_child, machine, markdown, model_shape, report, train_words
from benchmarks.peers import our_model, peer_model, peer_steps
from common.errors import UserError
from common.files import read_json, read_jsonl
from common.launch import ROOT
from model.convert.families import from_transformers
from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from tokenization.loading import load_tokenizer
from training.distributed import start
from training.heldout import evaluate, read_heldout

RATE, WARMUP, BATCH, LENGTH, SHOWN, LOOKS = 1e-3, 0.05, 16, 128, 30_000, 150
# SHOWN: tokens of held-out text; LOOKS: our steps between two evaluations of it
RECIPES = {
    "best": [],
    "paper": [
        "model=bert_mini",
        "optimizer=adamw",
        "masking=paper",
        "optimizer.lr=1e-3",
        "batch_tokens=2048",
        "micro_batch_tokens=2048",
        "bias_from_counts=false",
        "embeddings_from_text=false",
    ],
}
SHARES = {"best": 0.1, "paper": 0.5}  # share of the peer's time in which our recipe must reach the peer's final value
WITHIN = 0.97  # of that time is the budget: steps are planned a little ahead of the clock
AHEAD = 0.9  # bits per character below the peer at equal time, best recipe


def peer_curve(work: dict[str, Any]) -> dict[str, Any]:
    """The peer's run: [minutes, bits per character] at even distances, the last at the end of its minutes."""
    device = torch.device(work["device"])
    raw = our_model(work, device)
    peer = peer_model(work, raw).to(device).train()
    tokenizer = load_tokenizer(Path(work["data"]) / "tokenizer")
    heldout = read_heldout(Path(work["data"]) / "corpus" / "heldout.jsonl.gz", tokenizer, work["length"], work["shown"])
    names, config = set(raw.state_dict()), EncoderConfig.from_dict(work["shape"])

    def bits() -> float:
        ours = MaskedLM(config).to(device)
        ours.load_state_dict(from_transformers(peer.state_dict(), config, "bert", names))
        return evaluate(ours, heldout, start(work["device"]), torch.float32)["bits_per_character"]

    budget, used, tokens, curve = 60 * work["minutes"], 0.0, 0, [[0.0, bits()]]
    steps = peer_steps(work, peer, device, lambda: work["peak"] * factor(used / budget))
    begin = time.perf_counter()
    while used < budget:
        tokens += next(steps)[0]  # the loss is not read, so nothing waits for the device
        used = curve[-1][0] * 60 + time.perf_counter() - begin
        if used >= min(budget, len(curve) * budget / work["evaluations"]):
            curve.append([used / 60, bits()])
            begin = time.perf_counter()
    return {"curve": curve, "tokens": tokens}


def factor(progress: float) -> float:
    """Learning-rate factor: up over WARMUP of the budget, then linear to 0."""
    return min(progress / WARMUP, (1 - min(progress, 1.0)) / (1 - WARMUP)) if progress < 1 else 0.0


def curved(minutes: float) -> bool:
    """Whether a run of ours is long enough to evaluate in between."""
    return minutes > 2


def our_curve(data: Path, run: Path, recipe: str, minutes: float, options: argparse.Namespace) -> dict[str, Any]:
    """A run of train.py: the same curve from its metrics.jsonl; a short run has its first and last point only.

    A training line is written just before each held-out evaluation, so the difference of their minutes is the time of the
    evaluation, which is subtracted. The time for building the start (embeddings_from_text) is not subtracted. The budget itself
    includes evaluations, so ours trains a little less than the peer.
    """
    every = f"{LOOKS if curved(minutes) else 'null'}"
    words = [
        *train_words(data, options),
        f"hydra.run.dir={run}",
        f"evaluation.every={every}",
        f"log_every={LOOKS}",
        "checkpoint_every=null",
        "resume=never",
        f"model.max_length={LENGTH}",  # held-out text is read in windows of the peer's size
        *RECIPES[recipe],
        f"budget.minutes={minutes}",
        f"evaluation.max_tokens={options.shown}",
    ]
    result = subprocess.run(
        [sys.executable, *words], cwd=ROOT, env=environment(options.threads), capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise UserError(f"train.py ended with {result.returncode}: {result.stderr.strip()}")
    before, points = 0.0, []  # minutes before each evaluation, minutes after it, bits
    for _, line in read_jsonl(run / "metrics.jsonl"):
        if "heldout" in line:
            points.append((before, line["minutes"], line["heldout"]["bits_per_character"]))
        before = line["minutes"]
    looks = [after - before for before, after, _ in points]
    looks[0] = looks[-1]  # other time before the first evaluation is spent on the start and counts for ours
    curve = [[max(0.0, after - sum(looks[: n + 1])), bits] for n, (_, after, bits) in enumerate(points)]
    return {"curve": curve, "tokens": read_json(run / "summary.json")["tokens"]}


def reached(curve: list[list[float]], wanted: float) -> float:
    """Minutes at which a curve first reaches `wanted` bits, by linear interpolation; infinite if never."""
    for (before, high), (after, low) in itertools.pairwise(curve):
        if low <= wanted:
            return before + (after - before) * (high - wanted) / (high - low) if high > wanted else before
    return math.inf


def time_to_loss(options: argparse.Namespace, data: Path) -> None:
    """Run the peer and our recipes one after another, and print when each reached what."""
    options.shown, end = SHOWN, options.minutes
    work = {
        "shape": model_shape("bert_mini", vocab_size=options.vocab),
        "data": str(data),
        "length": LENGTH,
        "masking": "paper",
        "rate": 0.15,
        "batch_tokens": BATCH * LENGTH,
        "compile": options.compile,
        "precision": "bf16",
        "device": options.device,
        "attention_dropout": options.attention_dropout,
        "way": "theirs",
        "minutes": end,
        "peak": RATE,
        "shown": SHOWN,
        "evaluations": options.evaluations,
        "warmup": 0,
        "steps": math.ceil(end * 60 * 20),
    }
    place = Path(options.out or data / "time-to-loss").absolute()
    found: dict[str, Any] = {"machine": machine(options.threads), "options": vars(options)}
    plans = [("best", end), ("paper", WITHIN * SHARES["paper"] * end), ("best", WITHIN * SHARES["best"] * end)]
    with ThreadPoolExecutor(options.beside) as pool:
        peer = pool.submit(in_child, "benchmarks.time_to_loss", work, options.threads)
        runs = [
            pool.submit(our_curve, data, place / f"run-{recipe}-{budget:g}-{time.time():.0f}", recipe, budget, options)
            for recipe, budget in plans
        ]
        found["theirs"] = theirs = peer.result()
        found |= {f"ours {recipe}, {budget:g} min": run.result() for (recipe, budget), run in zip(plans, runs, strict=True)}
    wanted = theirs["curve"][-1][1]
    head = ["run", "minutes", "tokens", "bits per character at its end", f"minutes to {wanted:.3f}", "of the peer's"]
    rows, notes = [["theirs", f"{theirs['curve'][-1][0]:.2f}", f"{theirs['tokens']:,}", f"{wanted:.3f}", f"{end:.2f}", "1"]], []
    times: dict[str, list[float]] = {recipe: [] for recipe in SHARES}
    for recipe, budget in plans:
        name = f"ours {recipe}, {budget:g} min"
        ours = found[name]
        last = ours["curve"][-1]
        when = reached(ours["curve"], wanted) if curved(budget) else (last[0] if last[1] <= wanted else math.inf)
        times[recipe].append(when)
        rows.append([name, f"{last[0]:.2f}", f"{ours['tokens']:,}", f"{last[1]:.3f}", f"{when:.2f}", f"{when / end:.3f}"])
        if budget == end:
            lead = wanted - last[1]
            notes.append(f"{'reached' if lead >= AHEAD else 'MISSED'}: {lead:.2f} bits lower at equal time, bar >= {AHEAD}")
    for recipe, share in SHARES.items():
        least = min(times[recipe])
        notes.append(
            f"{'reached' if least <= share * end else 'MISSED'}: {recipe}: {least / end:.3f} of the peer's time, bar <= {share}"
        )
    if options.beside > 1:
        notes.append(f"{options.beside} runs beside each other, {options.threads} thread(s) each.")
    drawn = curves({name: run["curve"] for name, run in found.items() if isinstance(run, dict) and "curve" in run}, place)
    notes.append(f"Curves: {drawn}. Text of {data.name}; {SHOWN:,} held-out tokens at most, 15 % masked, the same for all.")
    report("time to loss", markdown(head, rows), notes, found, str(place))


def curves(runs: dict[str, list[list[float]]], place: Path) -> Path:
    """Plot all curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for name, curve in runs.items():
        axes.plot(*zip(*curve, strict=True), label=name, marker=".")
    axes.set(xlabel="minutes of training", ylabel="held-out bits per character")
    axes.grid(alpha=0.3)
    axes.legend()
    place.mkdir(parents=True, exist_ok=True)
    figure.savefig(place / "curves.png", dpi=120, bbox_inches="tight")
    pyplot.close(figure)
    return place / "curves.png"


if __name__ == "__main__":
    child(peer_curve)
