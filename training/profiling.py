"""Profile one optimizer step: a trace, the ten largest costs, and the lower bound set by matrix products.

`python train.py debug=profile` takes a few steps, times one, traces the next, and writes <run>/profile/: trace.json (for
chrome://tracing or ui.perfetto.dev), table.md and profile.json. The lower bound is the step's matrix FLOPs at the rate of
a large product measured in the same run: the rest is memory traffic, element-wise work, waiting and padding.
"""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

from common.files import write_json, write_text
from model.mlm import MaskedLM
from training.distributed import Ranks
from training.flops import step_flops, teacher_flops

LARGEST = 10  # costs in the table
# Parts of a step by the names of torch's operations; the first match counts.
PARTS = {
    "matrix products": ("mm", "linear", "matmul", "gemm", "nvjet", "cutlass", "xmma"),
    "attention": ("attention", "flash"),
    "optimizer": ("adam", "foreach", "norm_except", "linalg_vector_norm", "newton"),
    "copies and casts": ("copy", "cat", "stack", "clone", "memcpy"),
    "gathers and scatters": ("index", "gather", "scatter", "embedding"),
}


def profiled(
    steps: Iterator[tuple[Any, list[Any]]], number: int, run: Path, model: MaskedLM, rate: float, ranks: Ranks
) -> Iterator[tuple[Any, list[Any]]]:
    """The same steps; the loop's work on step `number` (from 1) is timed, and that on the next step traced and reported.

    `rate`: FLOPs a second of a large matrix product on one rank. Two steps are used because tracing slows a step down.
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
        yield item  # the loop works on it and then asks for the next
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


def part_of(name: str) -> str:
    """The member of PARTS that an operation or kernel belongs to."""
    return next((part for part, words in PARTS.items() if any(word in name.lower() for word in words)), "the rest")


def costs_of(events: Iterable[Any], on_gpu: bool) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """({name, milliseconds, calls} of each operation, most expensive first; milliseconds of each optimizer's whole step).

    On a GPU the kernels count. Operations that launch a kernel, and spans around them, have the same time charged again, so
    they are omitted.
    """
    costs, optimizers = [], {}
    for event in events:
        whole = event.device_time_total if on_gpu else event.cpu_time_total
        if event.key.startswith("Optimizer.step#"):
            if event.device_type == DeviceType.CPU:
                optimizers[event.key.removeprefix("Optimizer.step#").removesuffix(".step")] = whole / 1e3
            if on_gpu:
                continue
        if on_gpu and event.device_type != DeviceType.CUDA:
            continue
        spent = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        if spent > 0:
            costs.append({"name": event.key, "milliseconds": spent / 1e3, "calls": event.count})
    return sorted(costs, key=lambda cost: -cost["milliseconds"]), optimizers


def _write(watch: profile, folder: Path, seconds: float, flops: float, rate: float, device: torch.device) -> None:
    """Write the trace and the table, and print the table."""
    folder.mkdir(parents=True, exist_ok=True)
    watch.export_chrome_trace(str(folder / "trace.json"))
    costs, optimizers = costs_of(watch.key_averages(), device.type == "cuda")
    total = sum(cost["milliseconds"] for cost in costs)
    parts: dict[str, float] = {}
    for cost in costs:
        parts[part_of(cost["name"])] = parts.get(part_of(cost["name"]), 0.0) + cost["milliseconds"]
    floor = flops / rate
    lines = [
        f"one step: {1e3 * seconds:.1f} ms; floor: {1e3 * floor:.1f} ms "
        f"({flops / 1e9:,.1f} GFLOP at {rate / 1e9:,.0f} GFLOP/s, measured in this run); {seconds / floor:.2f} times the "
        f"floor. Under the profiler, the step's operations take {total:.1f} ms:",
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
        "Optimizers, their matrix products included: "
        + ", ".join(f"{name} {100 * spent / total:.1f} %" for name, spent in optimizers.items())
        + ".",
    ]
    write_text(folder / "table.md", "\n".join(lines) + "\n")
    measured = {"step_seconds": seconds, "floor_seconds": floor, "flops": flops, "flops_per_second": rate}
    write_json(folder / "profile.json", measured | {"parts": parts, "optimizers": optimizers, "costs": costs})
    print("\n".join(lines) + f"\nprofile: {folder / 'trace.json'} (open in ui.perfetto.dev)")
