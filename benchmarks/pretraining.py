"""Pre-training against transformers on the same documents: tokens a second, peak memory, losses, time to a loss, start-up.

    python -m benchmarks.pretraining                              Small, 64k tokens, lengths 128 and 512, fp32 and bf16 peers
    python -m benchmarks.pretraining --model base --length 512
    python -m benchmarks.pretraining --documents real             the peer pads each batch instead of joining documents
    python -m benchmarks.pretraining --device cuda --model base   eager and compiled, with MFU
    python -m benchmarks.pretraining --time-to-loss               bits per character against minutes, ours and theirs
    python -m benchmarks.pretraining --startup                    seconds from process start to the first finished step

The text is the real set if AZ_DATA names it, otherwise the demo's; or --data, a folder that prepare.py has filled. Every run
is its own process with its own peak memory. Runs alternate, warm-up steps are left out, and only text tokens count. Before
measuring, both losses are computed from the same weights, ids and masks; a difference above 1e-4 is an error. The table
names the machine; other work on it shows in "load".
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import (
    conf_name,
    environment,
    in_child,
    in_turn,
    machine,
    markdown,
    model_shape,
    prepared,
    ratios,
    report,
    shown,
    spread,
    train_words,
)
from benchmarks.time_to_loss import time_to_loss
from common.errors import UserError, command
from common.launch import ROOT
from data.packing import SPECIALS
from training.precision import cpu_has_bf16

# The project's targets: smallest ratio of tokens a second of ours to this peer's, largest ratio of peak memory; with
# --documents real in addition to the ratio to the joined peer. Keys: device, model, way.
BARS: dict[tuple[str, str, str], dict[str, float]] = {
    ("cpu", "small", "theirs fp32"): {"speed": 4.5, "memory": 0.5}, ("cpu", "small", "theirs bf16"): {"speed": 2.5},
    ("cpu", "base", "theirs fp32"): {"speed": 2.7}, ("cpu", "base", "theirs bf16"): {"speed": 1.45},
    ("cuda", "base", "theirs bf16"): {"speed": 2.5}, ("cuda", "base", "theirs bf16 compiled"): {"speed": 1.8},
}  # fmt: skip
TOKENS_A_STEP = {"cpu": 4096, "cuda": 65536}  # Small on a CPU; a Base at 512 fills an H200's units well before 65,536
MFU_BARS = {"base": 0.45, "large": 0.50}  # on one H200 at 512
PADDING_BAR = 2.0


def ways_of(options: argparse.Namespace, base: dict[str, Any], has_bf16: bool) -> dict[str, dict[str, Any]]:
    """The variants to measure in turn, by name; ours first.

    `has_bf16`: whether the CPU has such instructions. Without them bf16 is emulated, up to 50 times slower than fp32, and a
    table with these peers did not end within ten minutes: nobody would train so, and they are left out.
    """
    ways = {"ours": base | {"way": "ours"}}
    for precision in ["bf16"] if options.device == "cuda" else ["fp32", "bf16"] if has_bf16 else ["fp32"]:
        ways[f"theirs {precision}"] = base | {"way": "theirs", "precision": precision}
        if options.documents == "real":
            ways[f"theirs {precision} padded"] = base | {"way": "theirs-padded", "precision": precision}
    if options.device == "cuda" or options.compile:
        ways["ours compiled"] = ways["ours"] | {"compile": True}
        ways |= {
            f"{name} compiled": work | {"compile": True} for name, work in list(ways.items()) if name.endswith(("32", "16"))
        }
    return ways


def text_of(options: argparse.Namespace, length: int) -> tuple[dict[str, Any], str]:
    """(the text as a key of the work, its name): a prepared folder; on CUDA without --data random tokens on both sides.

    A plain checkout's text is too short for 64,000 tokens and for steps of 65,536.
    """
    if options.data or (options.device == "cpu" or options.documents == "real"):
        folder = prepared(options.data, options.vocab)
        return {"data": str(folder)}, folder.name
    total = options.batch_tokens * (options.steps + options.warmup + 4)
    return {"random": [length - SPECIALS] * -(-total // length)}, f"random tokens in documents of {length}"


def compare(options: argparse.Namespace, length: int) -> None:
    """One table: all variants at one length."""
    text, name_of_text = text_of(options, length)
    base = {
        "shape": model_shape(options.model, vocab_size=options.vocab, max_length=max(length, 512)), **text,
        "length": length, "masking": "paper", "rate": options.rate, "batch_tokens": options.batch_tokens,
        "optimizer": "adamw", "compile": False, "precision": "auto", "device": options.device, "warmup": options.warmup,
        "steps": options.steps, "attention_dropout": options.attention_dropout,
    }  # fmt: skip
    found: dict[str, Any] = {"machine": machine(options.threads), "options": vars(options), "length": length}
    found["losses"] = in_child("benchmarks.peers", base | {"way": "check", "device": "cpu"}, options.threads)
    ways = ways_of(options, base, cpu_has_bf16())
    found["runs"] = runs = in_turn("benchmarks.peers", ways, options.repeats, options.threads)
    ours = "ours compiled" if "ours compiled" in runs and options.device == "cuda" else "ours"
    bars: list[str] = []

    def column(name: str, key: str) -> list[float]:
        return [run[key] for run in runs[name]]

    rows = []
    for name in runs:
        speed = ratios(column(ours, "tokens_per_second"), column(name, "tokens_per_second"))
        effort = ratios(column(name, "cpu_seconds"), column(ours, "cpu_seconds"))
        share = sum(column(ours, "tokens")) / sum(column(name, "tokens"))
        memory = ratios(column(ours, "peak_bytes"), column(name, "peak_bytes"))
        found.setdefault("ratios", {})[name] = {"speed": speed, "memory": memory, "cpu": effort["median"] * share}
        mfu = [run["mfu"] for run in runs[name] if run["mfu"]]
        rows.append([
            name, shown(spread(column(name, "tokens_per_second"))), shown(speed, ".2f"), f"{effort['median'] * share:.2f}",
            f"{spread(column(name, 'peak_bytes'))['median'] / 1e6:,.0f}", f"{memory['median']:.2f}",
            f"{spread(mfu)['median']:.0%}" if mfu else "", runs[name][0]["dtype"],
        ])  # fmt: skip
        bar = BARS.get((options.device, options.model, name), {})
        bars += [against_bar(f"{name}: tokens/s", speed["median"], bar["speed"], above=True)] if "speed" in bar else []
        bars += [against_bar(f"{name}: peak memory", memory["median"], bar["memory"], above=False)] if "memory" in bar else []
    if options.documents == "real":
        top = [found["ratios"][f"{name} padded"]["speed"]["median"] / found["ratios"][name]["speed"]["median"]
               for name in runs if f"{name} padded" in runs]  # fmt: skip
        bars += [against_bar("padding, on top of the joined peer", value, PADDING_BAR, above=True) for value in top]
    if options.device == "cuda" and options.model in MFU_BARS:
        mfu = spread(column(ours, "mfu"))["median"]
        bars.append(
            against_bar(f"{ours}: MFU of the matrix rate measured in the same run", mfu, MFU_BARS[options.model], above=True)
        )
    head = [
        "way",
        "real tokens/s, median (range)",
        f"{ours} / this",
        "by CPU time",
        "peak MB",
        f"{ours} / this",
        "MFU",
        "format",
    ]
    losses = ", ".join(f"{kind} {pair['ours']:.5f} and {pair['theirs']:.5f}" for kind, pair in found["losses"].items())
    notes = [
        f"{options.repeats} alternating runs of {options.steps} steps after {options.warmup}; about "
        f"{options.batch_tokens:,} tokens a step, {options.rate:.0%} masked; {runs[ours][0]['parameters']:,} "
        f"parameters; text: {name_of_text}.",
        f"Loss of the same weights, ids and masks (fp32), ours and theirs: {losses}.",
        *bars,
    ]
    if not any("bf16" in name for name in ways):
        notes.append(
            "No bf16 peers: this CPU has no bf16 instructions (avx512_bf16, amx_bf16), and emulated they would not end."
        )
    title = f"pretraining {options.model} {options.vocab} {length} {options.device} {options.documents}"
    report(title, markdown(head, rows), notes, found, options.out)


def against_bar(what: str, value: float, bar: float, above: bool) -> str:
    """Whether a bar is reached, in words."""
    reached = value >= bar if above else value <= bar
    return f"{'reached' if reached else 'MISSED'}: {what} {value:.2f}, bar {'>=' if above else '<='} {bar}"


def start_up(options: argparse.Namespace, data: Path) -> None:
    """Seconds from the start of `python train.py` to its first finished step; data ready, short evaluation."""
    bar = 60 if options.compile else 15
    tokens, model = options.batch_tokens, conf_name(options.model)
    seconds = []
    for _ in range(options.repeats):
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            words = [*train_words(data, options), f"hydra.run.dir={run}", f"model={model}", "optimizer=adamw", "masking=paper",
                     "budget={steps: 1000, minutes: null}", f"batch_tokens={tokens}", f"micro_batch_tokens={tokens}",
                     "log_every=1", "checkpoint_every=null", "evaluation.max_tokens=500", "evaluation.every=null",
                     "bias_from_counts=false", "embeddings_from_text=false"]  # fmt: skip
            begin = time.perf_counter()
            with subprocess.Popen([sys.executable, *words], cwd=ROOT, text=True, stdout=subprocess.DEVNULL,
                                  env=environment(options.threads), stderr=subprocess.PIPE) as process:  # fmt: skip
                while not first_step_done(run / "metrics.jsonl"):
                    if process.poll() is not None:
                        raise UserError(
                            f"train.py ended with {process.returncode} before its first step: {process.stderr.read()}"
                        )
                    time.sleep(0.05)
                seconds.append(time.perf_counter() - begin)
                process.kill()
    found = {"machine": machine(options.threads), "options": vars(options), "seconds": seconds}
    table = markdown(["model", "device", "compile", "seconds to the first finished step"],
                     [[options.model, options.device, str(options.compile), shown(spread(seconds), ".1f")]])  # fmt: skip
    notes = [f"{tokens:,} tokens in the step; 500 tokens of held-out text are evaluated before it.",
             against_bar("seconds", spread(seconds)["median"], bar, above=False)]  # fmt: skip
    report(f"start-up {options.model} {options.device}", table, notes, found, options.out)


def first_step_done(path: Path) -> bool:
    """Whether metrics.jsonl has the line of a training step."""
    if not path.exists():
        return False
    return any(
        "tokens_per_second" in json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")
    )


@command
def main() -> None:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pretraining", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--model", default="small", help="small, base, large, or a name in conf/model (default small)")
    parser.add_argument("--vocab", type=int, default=64000, help="tokens (default 64000)")
    parser.add_argument("--length", type=int, nargs="+", help="tokens of the longest window (default 128 512; real: 512)")
    parser.add_argument("--documents", choices=("joined", "real"), default="joined",
                        help="real: also a peer that reads one document a row and pads each batch to its longest")  # fmt: skip
    parser.add_argument("--data", help="folder with corpus, tokenizer and shards (default: runs/..., on CUDA random tokens)")
    parser.add_argument("--batch-tokens", type=int, help="of a step (default 4096 on CPU, 65536 on CUDA; start-up 512)")
    parser.add_argument("--rate", type=float, default=0.15, help="share of tokens masked, on both sides (default 0.15)")
    parser.add_argument(
        "--attention-dropout", type=float, default=0.1, help="of the peer (default 0.1, its config's; ours has none)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compile", action="store_true", help="compiled ways too (always on CUDA)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5, help="alternating runs of every way (default 5)")
    parser.add_argument("--steps", type=int, help="measured a run (default 5 on CPU, 30 on CUDA)")
    parser.add_argument("--warmup", type=int, help="warm-up steps before them (default 2 on CPU, 10 on CUDA)")
    parser.add_argument("--time-to-loss", action="store_true", help="bits per character against minutes instead")
    parser.add_argument("--minutes", type=float, default=10.0, help="--time-to-loss: budget of the peer (default 10)")
    parser.add_argument("--beside", type=int, default=1, help="--time-to-loss: runs at the same time, each with --threads")
    parser.add_argument("--evaluations", type=int, default=20, help="--time-to-loss: points of each curve (default 20)")
    parser.add_argument("--startup", action="store_true", help="seconds to the first finished step instead (with --model base)")
    parser.add_argument("--out", help="folder for the tables (.md) and numbers (.json)")
    options = parser.parse_args()
    cpu = options.device == "cpu"
    options.steps = options.steps or (5 if cpu else 30)
    options.warmup = options.warmup if options.warmup is not None else (2 if cpu else 10)
    options.batch_tokens = options.batch_tokens or (512 if options.startup else TOKENS_A_STEP[options.device])
    if options.time_to_loss:
        options.vocab = 16000 if options.vocab == 64000 else options.vocab
        time_to_loss(options, prepared(options.data, options.vocab))
        return
    if options.startup:
        start_up(options, prepared(options.data, options.vocab))
        return
    for length in options.length or ([512] if options.documents == "real" or not cpu else [128, 512]):
        compare(options, length)


if __name__ == "__main__":
    sys.exit(main())
