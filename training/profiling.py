"""Where the time of one optimizer step goes: a trace, the ten largest costs, and the floor that matrix products set.

`python train.py debug=profile` takes a few steps, times one, watches the next, and writes <run>/profile/: trace.json (for
chrome://tracing or ui.perfetto.dev), table.md and profile.json. The floor is the step's matrix FLOPs at the rate of a
large product measured in the same run: what is above it is memory traffic, element-wise work, waiting and padding.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from common.files import write_json, write_text
from model.mlm import MaskedLM
from training.distributed import Ranks
from training.flops import step_flops, teacher_flops

LARGEST = 10  # costs in the table
# What a step is made of, by the names of torch's operations; the first that fits counts.
PARTS = {
    "matrix products": ("mm", "linear", "matmul", "gemm"),
    "attention": ("attention", "flash"),
    "optimizer": ("adam", "foreach", "norm_except", "linalg_vector_norm", "newton"),
    "copies and casts": ("copy", "cat", "stack", "clone", "memcpy"),
    "gathers and scatters": ("index", "gather", "scatter", "embedding"),
}


def profiled(
    steps: Iterator[tuple[Any, list[Any]]], number: int, run: Path, model: MaskedLM, rate: float, ranks: Ranks
) -> Iterator[tuple[Any, list[Any]]]:
    """The same steps; the loop's work on step `number` (from 1) is timed, that on the next one watched and written down.

    `rate`: FLOPs a second of a large matrix product on one rank. Two steps, since watching makes a step slower.
    """
    seconds = 0.0
    for count, item in enumerate(steps, start=1):
        if count not in (number, number + 1):
            yield item
            continue
        _settle(ranks.device)
        watched = count == number + 1
        kinds = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (ranks.device.type == "cuda")
        watch = profile(activities=kinds) if watched else None
        begin = time.perf_counter()
        if watch:
            watch.start()
        yield item  # the loop works on it, and comes back for the next
        _settle(ranks.device)
        if watch is None:
            seconds = time.perf_counter() - begin
            continue
        watch.stop()
        counts = [(batch.layout.lengths[: len(batch.documents)], len(batch.targets)) for batch in item[1]]
        flops = sum(step_flops(model, *count) + teacher_flops(model, *count) for count in counts)
        if ranks.first:
            _write(watch, run / "profile", seconds, flops, rate, ranks.device)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _write(watch: profile, folder: Path, seconds: float, flops: float, rate: float, device: torch.device) -> None:
    """The trace, and the table printed too."""
    folder.mkdir(parents=True, exist_ok=True)
    watch.export_chrome_trace(str(folder / "trace.json"))
    on_gpu = device.type == "cuda"
    costs = []
    for event in watch.key_averages():
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        costs.append({"name": event.key, "milliseconds": spent / 1e3, "calls": event.count})
    costs = sorted((cost for cost in costs if cost["milliseconds"] > 0), key=lambda cost: -cost["milliseconds"])
    total = sum(cost["milliseconds"] for cost in costs)
    parts: dict[str, float] = {}
    for cost in costs:
        part = next((part for part, words in PARTS.items() if any(word in cost["name"].lower() for word in words)), "the rest")
        parts[part] = parts.get(part, 0.0) + cost["milliseconds"]
    floor = flops / rate
    lines = [
        f"one step: {1e3 * seconds:.1f} ms; floor: {1e3 * floor:.1f} ms "
        f"({flops / 1e9:,.1f} GFLOP at {rate / 1e9:,.0f} GFLOP/s, measured in this run); {seconds / floor:.2f} times the "
        f"floor. Watched, the step's operations take {total:.1f} ms:",
        "",
        "| operation | ms | % | calls |",
        "|---|---|---|---|",
        *(
            f"| {c['name'][:70]} | {c['milliseconds']:.1f} | {100 * c['milliseconds'] / total:.1f} | {c['calls']} |"
            for c in costs[:LARGEST]
        ),
        "",
        "By kind: "
        + ", ".join(f"{part} {100 * spent / total:.0f} %" for part, spent in sorted(parts.items(), key=lambda p: -p[1]))
        + ".",
    ]
    write_text(folder / "table.md", "\n".join(lines) + "\n")
    write_json(folder / "profile.json", {"step_seconds": seconds, "floor_seconds": floor, "flops": flops,
                                         "flops_per_second": rate, "parts": parts, "costs": costs})  # fmt: skip
    print("\n".join(lines) + f"\nprofile: {folder / 'trace.json'} (open in ui.perfetto.dev)")
