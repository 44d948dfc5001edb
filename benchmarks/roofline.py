"""The roofline of a pre-training step on a named GPU: the least time of every kernel, from counted FLOPs and bytes.

    python -m benchmarks.roofline --model base --device h200
    python -m benchmarks.roofline --model modern_base --device a100 --tokens 16384 --attention FA2

A step of the real code runs on a device without values (benchmarks/fake_cuda.py), so kernels, bytes and FLOPs are those that
torch dispatches, and no GPU is needed. A kernel takes the longest of: its FLOPs at the device's matrix rate, its bytes at the
bandwidth, LEAST. "eager": each operation is a kernel that reads and writes its tensors once. "fused": all operations between
two matrix products, attention kernels, gathers or steps of an optimizer are one kernel, which reads what was made before it
and writes what is read after it; that is the most that torch.compile can do. The loss is not compiled and counts as eager.

Sources of the peaks, dense bf16 with fp32 accumulation and memory bandwidth (a data sheet's "with sparsity" is halved):
    h200     NVIDIA H200 data sheet, SXM: 989 TFLOP/s, 4.8 TB/s
    h100     NVIDIA H100 data sheet, SXM: 989 TFLOP/s, 3.35 TB/s
    a100     NVIDIA A100 data sheet, 80 GB SXM: 312 TFLOP/s, 2.039 TB/s
    l40s     NVIDIA L40S data sheet: 362 TFLOP/s, 0.864 TB/s
    rtx4090  NVIDIA Ada architecture whitepaper, appendix A: 165.2 TFLOP/s, 1.008 TB/s
Flash attention reaches less of the matrix rate: FlashAttention-2 35 % and FlashAttention-3 75 % on a Hopper (arXiv 2407.08608,
abstract), FlashAttention-2 50 % elsewhere (arXiv 2307.08691, abstract: 50 to 73 % on an A100). `--shares` says which part of
the two peaks is taken as attainable; its defaults, 0.8 and 0.9, are an assumption, and 1 1 gives the bound that nothing beats.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.fake_cuda import DEVICE, Kernel, Watch, on_device, pretend, run_with_device
from benchmarks.measure import MARK, markdown, model_shape
from common.errors import UserError, command
from data.layout import Layout, move
from model.encoder import EncoderConfig
from model.mlm import MaskedLM
from training.flops import step_flops
from training.optimizers import build_optimizers, step_unless
from training.settings import Optimizer

LEAST = 2e-6  # seconds of any kernel: the grid starts and ends


@dataclass(frozen=True)
class Device:
    """Peaks of a GPU: FLOPs and bytes a second, and the share of the FLOPs that flash attention reaches, by its version."""

    flops: float
    bandwidth: float
    attention: dict[str, float]


HOPPER, OTHER = {"FA2": 0.35, "FA3": 0.75}, {"FA2": 0.5}
DEVICES = {
    "h200": Device(989e12, 4.8e12, HOPPER),
    "h100": Device(989e12, 3.35e12, HOPPER),
    "a100": Device(312e12, 2.039e12, OTHER),
    "l40s": Device(362e12, 0.864e12, OTHER),
    "rtx4090": Device(165.2e12, 1.008e12, OTHER),
}
PARTS = ("matrix products", "attention", "loss over the vocabulary", "norms, casts, activations, dropout", "clip and optimizer")


def count_step(work: dict[str, Any]) -> dict[str, Any]:
    """One step of `work` (shape, tokens, length, rate, optimizer) on the fake device: [part, eager kernels, fused kernels].

    The second step counts, because the first one makes the optimizer's state. A kernel is [bytes, FLOPs].
    """
    pretend()
    config, length = EncoderConfig.from_dict(work["shape"]), work["length"]
    documents = work["tokens"] // length
    masked = round(work["rate"] * documents * length / 128) * 128

    def pairs(queries: int, keys: int, window: int) -> float:
        return queries * float(length if window < 0 else min(length, 2 * window + 1))

    with Watch(pairs) as watch:
        with torch.device("meta"):
            raw = MaskedLM(config, last_block_on_masked=True)
        on_device(raw)
        optimizers = build_optimizers(raw, Optimizer(kind=work["optimizer"]), torch.bfloat16)
        for _ in range(2):
            lengths = np.full(documents, length)
            layout, asked = Layout.of(lengths).asking(np.arange(masked) * (documents * length // masked), DEVICE)
            ids, targets = (move(torch.zeros(n, dtype=torch.int64), DEVICE) for n in (documents * length, masked))
            watch.forget()
            with torch.autocast("cuda", torch.bfloat16):
                loss = raw(ids, layout, asked, targets) / masked
            loss.backward()
            model_kernels = len(watch.log)
            norm = torch.nn.utils.clip_grad_norm_(raw.parameters(), 1.0)
            step_unless(~(torch.isfinite(loss.detach()) & torch.isfinite(norm)), optimizers)
            for optimizer in optimizers:
                optimizer.zero_grad(set_to_none=True)
    log = watch.log
    parts = [part_of(kernel, config.vocab_size, number < model_kernels) for number, kernel in enumerate(log)]
    eager = [[part, kernel.bytes, kernel.flops] for part, kernel in zip(parts, log, strict=True)]
    return {"eager": eager, "fused": fused(log, parts), "flops": float(step_flops(raw, lengths, masked)), "masked": masked}


def part_of(kernel: Kernel, vocab: int, of_model: bool) -> str:
    """The member of PARTS that a kernel belongs to."""
    if not of_model:
        return PARTS[4]
    if "attn" in kernel.name:
        return PARTS[1]
    if any(vocab in shape for shape in kernel.shapes) and "embedding" not in kernel.name:
        return PARTS[2]
    return PARTS[0] if kernel.flops else PARTS[3]


def fused(log: list[Kernel], parts: list[str]) -> list[list[Any]]:
    """[part, bytes, FLOPs] of the kernels that are left if everything between two anchors is one."""
    last_read = {number: place for place, kernel in enumerate(log) for number in kernel.reads}
    found, group = [], []

    def close() -> None:
        if not group:
            return
        made, read = {}, {}
        for place in group:
            read |= {number: size for number, size in log[place].reads.items() if number not in made}
            made |= log[place].writes
        kept = {number: size for number, size in made.items() if last_read.get(number, -1) > group[-1]}
        found.append([PARTS[3], sum(read.values()) + sum(kept.values()), 0.0])
        group.clear()

    for place, (kernel, part) in enumerate(zip(log, parts, strict=True)):
        if part == PARTS[3] and not any(word in kernel.name for word in ("embedding", "index")):
            group.append(place)
        else:
            close()
            found.append([part, kernel.bytes, kernel.flops])
    close()
    return found


def seconds_of(kernels: list[list[Any]], device: Device, attention: str, shares: tuple[float, float]) -> dict[str, float]:
    """Least seconds of each part."""
    total = dict.fromkeys(PARTS, 0.0)
    for part, size, flops in kernels:
        rate = device.flops * (device.attention[attention] if part == PARTS[1] else shares[0])
        total[part] += max(flops / rate, size / (device.bandwidth * shares[1]), LEAST)
    return total


def roofline(
    work: dict[str, Any], device: str, attention: str | None = None, shares: tuple[float, float] = (0.8, 0.9)
) -> dict[str, Any]:
    """Parts with FLOPs, bytes and least seconds of a step on `device`, tokens a second and MFU of both ways.

    Raises UserError for an unknown device or attention, and where the step cannot be counted (no C++ compiler).
    """
    if device not in DEVICES:
        raise UserError(f"--device {device}: choose one of {', '.join(DEVICES)}.")
    chip = DEVICES[device]
    attention = attention or "FA2"
    if attention not in chip.attention:
        raise UserError(f"--attention {attention}: not on {device}; choose one of {', '.join(chip.attention)}.")
    counted = counted_in_child(json.dumps(work))
    tokens = work["tokens"] // work["length"] * work["length"]
    found: dict[str, Any] = {
        "device": device,
        "attention": attention,
        "shares": shares,
        "tokens": tokens,
        "work": work,
        "ways": {},
    }
    for way in ("eager", "fused"):
        seconds = seconds_of(counted[way], chip, attention, shares)
        whole = sum(seconds.values())
        found["ways"][way] = {
            "seconds": seconds,
            "kernels": len(counted[way]),
            "bytes": {part: sum(size for name, size, _ in counted[way] if name == part) for part in PARTS},
            "flops": {part: sum(flops for name, _, flops in counted[way] if name == part) for part in PARTS},
            "tokens_per_second": tokens / whole,
            "mfu": counted["flops"] / whole / chip.flops,
        }
    return found


@cache
def counted_in_child(work: str) -> dict[str, Any]:
    """`count_step` of `work` (JSON): in a process with the device guard on a build for CPUs, here on a build for CUDA."""
    if torch.version.cuda is not None:
        if not torch.cuda.is_available():
            raise UserError(
                "this torch is a CUDA build, but it sees no device. Install torch's CPU build to count a step here."
            )
        return count_step(json.loads(work))
    with tempfile.TemporaryDirectory() as folder:
        result = run_with_device("benchmarks.roofline", ["--count", work], Path(folder))
    lines = [line for line in result.stdout.splitlines() if line.startswith(MARK)]
    if not lines:
        raise UserError(f"the step could not be counted: {result.stderr.strip()[-800:]}")
    return json.loads(lines[-1].removeprefix(MARK))


def table(found: dict[str, Any]) -> str:
    """The roofline as a Markdown table with two lines of notes."""
    eager, fused_way = (found["ways"][way] for way in ("eager", "fused"))
    rows = []
    for part in PARTS:
        work = f"{eager['flops'][part] / 1e12:.2f} TFLOP, {eager['bytes'][part] / 1e9:.1f} GB"
        rows.append([part, work, f"{fused_way['bytes'][part] / 1e9:.1f}"]
                    + [f"{1e3 * way['seconds'][part]:.2f}" for way in (eager, fused_way)])  # fmt: skip
    sums = [f"{1e3 * sum(way['seconds'].values()):.1f}" for way in (eager, fused_way)]
    rows.append(["a step", f"{eager['kernels']} kernels", f"{fused_way['kernels']} kernels", *sums])
    rows.append(
        ["tokens/s, MFU of the peak", "", ""]
        + [f"{way['tokens_per_second']:,.0f}, {way['mfu']:.0%}" for way in (eager, fused_way)]
    )
    work, chip = found["work"], DEVICES[found["device"]]
    note = (
        f"{found['tokens']:,} tokens in documents of {work['length']}, {work['rate']:.0%} masked, {work['optimizer']}, "
        f"{found['attention']}; {found['device']}: {found['shares'][0]:.0%} of {chip.flops / 1e12:,.0f} TFLOP/s and "
        f"{found['shares'][1]:.0%} of {chip.bandwidth / 1e12:.2f} TB/s. Least times: a real step takes longer."
    )
    return markdown(["part", "work", "GB, fused", "eager ms", "fused ms"], rows) + "\n\n" + note


@command
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.roofline", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--model", default="base", help="small, base, large, or a name in conf/model (default base)")
    parser.add_argument("--device", default="h200", help=f"one of {', '.join(DEVICES)} (default h200)")
    parser.add_argument("--tokens", type=int, default=32768, help="of a step in one micro-batch (default 32768)")
    parser.add_argument("--length", type=int, default=512, help="tokens of every document (default 512)")
    parser.add_argument("--vocab", type=int, default=64000, help="tokens of the vocabulary (default 64000)")
    parser.add_argument("--rate", type=float, default=0.15, help="share of masked tokens (default 0.15)")
    parser.add_argument("--optimizer", choices=("adamw", "muon"), default="adamw")
    parser.add_argument("--attention", help="FA2 or FA3 (default FA2)")
    parser.add_argument("--shares", type=float, nargs=2, default=(0.8, 0.9), metavar=("PRODUCTS", "BANDWIDTH"),
                        help="attainable share of the two peaks (default 0.8 0.9)")  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--count", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count:
        print(MARK + json.dumps(count_step(json.loads(options.count))))
        return
    if options.tokens < options.length:
        raise UserError(f"--tokens {options.tokens}: less than one document of --length {options.length}.")
    work = {
        "shape": model_shape(options.model, vocab_size=options.vocab, max_length=max(options.length, 512)),
        "tokens": options.tokens, "length": options.length, "rate": options.rate, "optimizer": options.optimizer,
    }  # fmt: skip
    found = roofline(work, options.device, options.attention, tuple(options.shares))
    print(json.dumps(found) if options.json else f"# roofline {options.model} {options.device}\n\n{table(found)}")


if __name__ == "__main__":
    sys.exit(main())
