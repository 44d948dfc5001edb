"""Everything that needs a GPU, in one go of at most 9 minutes on one H200, written to one Markdown file.

    python -m benchmarks.gpu                        Base, 65,536 tokens a step; runs/gpu.md
    python -m benchmarks.gpu --model small --out gpu-small.md

In this order: rates of the device, the two losses from the same weights, tokens a second, peak memory and MFU of our step
and of transformers' (eager and compiled, Muon, FlashAttention-3 where it is installed) with the roofline beside each row,
what is bitwise repeatable, a profile by part, and tests/gpu. Each stage is a process of its own with a limit of time: one that
fails or has no time left is a line of the file, and the others go on. The exit code is 1 if a stage failed.
"""

import argparse
import json
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.measure import MARK, child, environment, machine, machine_line, markdown, model_shape
from benchmarks.peers import our_model, our_steps
from benchmarks.roofline import DEVICES, PARTS, roofline
from common.errors import UserError, command
from common.files import write_json, write_text
from common.launch import ROOT
from data.packing import SPECIALS
from training.distributed import start
from training.flops import measured_peak
from training.precision import choose_kernels
from training.profiling import costs_of, part_of

MINUTES = 9.0
TESTS = 200  # seconds of tests/gpu at most; about 120 on an H200 would be expected, none has run them yet
REPEATED = 6  # steps that are compared bit by bit


@dataclass
class Stages:
    """Stages that ran, with their answers; what failed, in words; when all must be done."""

    until: float
    failed: list[str] = field(default_factory=list)

    def run(self, name: str, words: list[str], limit: float) -> dict[str, Any] | None:
        """The JSON that the process `words` prints after MARK, or {"said": its output}; None if it failed or was late."""
        left = self.until - time.time()
        if left < 5:
            self.failed.append(f"{name}: no time left")
            return None
        print(f"gpu: {name} …", file=sys.stderr, flush=True)
        try:
            result = subprocess.run(
                words, cwd=ROOT, env=environment(8), capture_output=True, text=True, check=False, timeout=min(limit, left)
            )
        except subprocess.TimeoutExpired:
            self.failed.append(f"{name}: not done in {min(limit, left):.0f} s")
            return None
        last = "\n".join((result.stdout + result.stderr).strip().splitlines()[-8:])
        if result.returncode:
            self.failed.append(f"{name}: ended with {result.returncode}: {last}")
            return None
        lines = [line for line in result.stdout.splitlines() if line.startswith(MARK)]
        return json.loads(lines[-1].removeprefix(MARK)) if lines else {"said": result.stdout.strip()}


def measure(work: dict[str, Any]) -> dict[str, Any]:
    """The child's side of three stages: rates, determinism, profile."""
    device = start("cuda").device
    if work["way"] == "rates":
        x = torch.empty(1 << 29, dtype=torch.float32, device=device)  # 2 GB, far above any cache
        y = torch.empty_like(x)
        best = float("inf")
        for _ in range(5):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            y.copy_(x)
            torch.cuda.synchronize()
            best = min(best, time.perf_counter() - begun)
        found = {"flops": measured_peak(device, torch.bfloat16), "bandwidth": 2 * x.numel() * 4 / best}
        return found | {"attention": choose_kernels(False, "FA3", device, say=False)}
    if work["way"] == "repeats":
        return repeats(work, device)
    steps = our_steps(work, our_model(work, device), start("cuda"))
    for _ in range(work["warmup"]):
        next(steps)
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as watch:
        next(steps)
        torch.cuda.synchronize()
    costs, _ = costs_of(watch.key_averages(), on_gpu=True)
    parts: dict[str, float] = {}
    for cost in costs:
        parts[part_of(cost["name"])] = parts.get(part_of(cost["name"]), 0.0) + cost["milliseconds"]
    steps.close()
    return {"parts": parts, "costs": costs[:10]}


def repeats(work: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Two runs of REPEATED steps from one seed: number of weights whose bits differ, and the largest difference."""
    choose_kernels(work["deterministic"], "FA2", device)
    ends = []
    for _ in range(2):
        raw = our_model(work, device)
        steps = our_steps(work, raw, start("cuda"))
        losses = [next(steps)[2] for _ in range(REPEATED)]
        steps.close()
        ends.append(({name: p.detach().clone() for name, p in raw.named_parameters()}, torch.stack(losses).tolist()))
    (first, losses), (second, again) = ends
    different = [name for name in first if not torch.equal(first[name], second[name])]
    apart = max(float((first[name] - second[name]).abs().max()) for name in first)
    return {"different": len(different), "of": len(first), "apart": apart, "same losses": losses == again}


def ways_of(base: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The rows of the table of speeds, by name; those that matter most first."""
    ours, theirs = base | {"way": "ours"}, base | {"way": "theirs", "precision": "bf16"}
    return {
        "ours": ours,
        "theirs bf16": theirs,
        "ours compiled": ours | {"compile": True},
        "theirs bf16 compiled": theirs | {"compile": True},
        "ours compiled, FA3": ours | {"compile": True, "flash_attention": "FA3"},
        "ours compiled, Muon": ours | {"compile": True, "optimizer": "muon"},
    }


def bounds(ways: dict[str, dict[str, Any]], runs: dict[str, dict[str, Any]], name: str | None) -> dict[str, dict[str, Any]]:
    """The roofline of our step for each row that ran; none for a GPU without known peaks."""
    found: dict[str, dict[str, Any]] = {}
    for way in runs if name else ():
        work = {"shape": ways[way]["shape"], "tokens": ways[way]["batch_tokens"], "length": ways[way]["length"],
                "rate": ways[way]["rate"], "optimizer": ways[way]["optimizer"]}  # fmt: skip
        whole = roofline(work, name, "FA3" if runs[way].get("attention") == "FA3" else "FA2")
        found[way] = whole["ways"]["fused" if ways[way]["compile"] else "eager"]
    return found


def speeds(runs: dict[str, dict[str, Any]], limits: dict[str, dict[str, Any]]) -> str:
    """The table of speeds: tokens a second, ratio of ours, memory, MFU, roofline and the share of it that was reached."""
    best = max(
        (name for name in runs if name.startswith("ours")), key=lambda name: runs[name]["tokens_per_second"], default=None
    )
    rows = []
    for name, run in runs.items():
        bound = limits.get(name)
        share = run["tokens_per_second"] / bound["tokens_per_second"] if bound else None
        rows.append([
            name, f"{run['tokens_per_second']:,.0f}",
            f"{runs[best]['tokens_per_second'] / run['tokens_per_second']:.2f}" if best else "",
            f"{run['peak_bytes'] / 1e9:.1f}", f"{run['mfu']:.0%}" if run["mfu"] else "", run.get("attention") or "",
            f"{bound['tokens_per_second']:,.0f} ({1e3 * sum(bound['seconds'].values()):.1f} ms)" if bound else "not known",
            f"{share:.0%}" if share else "",
        ])  # fmt: skip
    head = ["way", "text tokens/s", f"{best} / this", "peak GB", "MFU", "attention", "roofline of our step", "reached"]
    return markdown(head, rows)


def chip_of(gpu: str) -> str | None:
    """The name in benchmarks.roofline of torch's name of a GPU; None if its peaks are not known."""
    words = gpu.lower().replace(" ", "")
    return next((name for name in DEVICES if name in words), None)


def work_of(options: argparse.Namespace) -> dict[str, Any]:
    """What every row has in common: random tokens in documents of one length, the paper's masking."""
    total = options.batch_tokens * (options.steps + options.warmup + 4)
    return {
        "shape": model_shape(options.model, vocab_size=64000, max_length=512), "random": [510] * -(-total // (510 + SPECIALS)),
        "length": 512, "masking": "paper", "rate": 0.15, "batch_tokens": options.batch_tokens, "optimizer": "adamw",
        "compile": False, "precision": "auto", "device": "cuda", "warmup": options.warmup, "steps": options.steps,
        "attention_dropout": 0.1, "threads": 8,
    }  # fmt: skip


def all_stages(options: argparse.Namespace) -> tuple[list[str], dict[str, Any], list[str]]:
    """(paragraphs of the file, all numbers, what failed)."""
    stages, base, gpu = Stages(time.time() + 60 * options.minutes), work_of(options), torch.cuda.get_device_name()
    found: dict[str, Any] = {"machine": machine(8), "options": vars(options)}

    def ask(name: str, module: str, work: dict[str, Any], limit: float) -> dict[str, Any] | None:
        found[name] = stages.run(name, [sys.executable, "-m", module, json.dumps(work)], limit)
        return found[name]

    text = [f"# {options.model} on {gpu}", machine_line(found["machine"])]
    if rates := ask("rates", "benchmarks.gpu", base | {"way": "rates"}, 60):
        text.append(f"Measured here: {rates['flops'] / 1e12:,.0f} TFLOP/s of a product of 8,192 in bf16, "
                    f"{rates['bandwidth'] / 1e12:.2f} TB/s of a copy of 2 GB.")  # fmt: skip
    if losses := ask("losses", "benchmarks.peers", base | {"way": "check", "device": "cpu"}, 60):
        text.append("Loss of the same weights, ids and masks (fp32): " + ", ".join(
            f"{kind} {pair['ours']:.5f} and {pair['theirs']:.5f}" for kind, pair in losses.items()) + ".")  # fmt: skip
    ways = ways_of(base)
    if not rates or rates["attention"] != "FA3":
        del ways["ours compiled, FA3"]
        text.append("FlashAttention-3 is not installed here or not for this GPU: it has no row.")
    runs = {name: run for name, work in ways.items() if (run := ask(name, "benchmarks.peers", work, 110))}
    try:
        limits = bounds(ways, runs, chip_of(gpu))
    except UserError as error:
        limits = {}
        stages.failed.append(f"roofline: {error}")
    if runs:
        text += ["## Speed and memory", speeds(runs, limits)]
        text.append(f"{options.steps} steps after {options.warmup}, one run each; {options.batch_tokens:,} tokens a step.")
    text.append("## What is repeatable")
    for deterministic in (False, True):
        name = f"deterministic={str(deterministic).lower()}"
        if said := ask(name, "benchmarks.gpu", base | {"way": "repeats", "deterministic": deterministic}, 60):
            text.append(
                f"{name}: {said['different']} of {said['of']} weights differ after {REPEATED} steps from one seed, by at most "
                f"{said['apart']:.2e}; losses {'equal' if said['same losses'] else 'differ'}."
            )
    if costs := ask("profile", "benchmarks.gpu", base | {"way": "profile"}, 60):
        rows = [[part, f"{spent:.2f}"] for part, spent in sorted(costs["parts"].items(), key=lambda item: -item[1])]
        text += ["## Profile of one step, eager", markdown(["part", "ms"], rows)]
        text.append(
            markdown(
                ["kernel", "ms", "calls"],
                [[c["name"][:80], f"{c['milliseconds']:.2f}", str(c["calls"])] for c in costs["costs"]],
            )
        )
        if bound := limits.get("ours"):
            text.append("Roofline, ms: " + ", ".join(f"{part} {1e3 * bound['seconds'][part]:.1f}" for part in PARTS) + ".")
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "slow or not slow", "tests/gpu"]
    if tests := stages.run("tests/gpu", words, TESTS):
        found["tests/gpu"] = tests
        text += ["## tests/gpu", tests["said"].splitlines()[-1]]
    return text, found, stages.failed


@command
def main() -> int:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--model", default="base", help="small, base, large, or a name in conf/model (default base)")
    parser.add_argument("--batch-tokens", type=int, default=65536, help="of a step, in one micro-batch (default 65536)")
    parser.add_argument("--steps", type=int, default=30, help="measured a row (default 30)")
    parser.add_argument("--warmup", type=int, default=10, help="steps before them (default 10)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help=f"for everything (default {MINUTES:g})")
    parser.add_argument("--out", default="runs/gpu.md", help="the Markdown file; the numbers go to .json beside it")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise UserError(
            f"torch {torch.__version__} sees no CUDA device, and everything here is measured on one. Install a CUDA build of "
            "torch on a machine with a GPU. Without one: python -m benchmarks.roofline says what a step would take, and "
            "python -m pytest tests/fake_cuda checks its kernels and waits."
        )
    text, found, failed = all_stages(options)
    if failed:
        text += ["## Not done", *(f"- {line}" for line in failed)]
    write_text(Path(options.out), "\n\n".join(text) + "\n")
    write_json(Path(options.out).with_suffix(".json"), found)
    print("\n\n".join(text) + f"\n\n{options.out}")
    return int(bool(failed))


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):  # a stage, in a process of its own
        child(measure)
    else:
        sys.exit(main())
