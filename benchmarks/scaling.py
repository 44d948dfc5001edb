"""How the cost of a pre-training step grows: tokens a second and peak memory by length, vocabulary, ranks, documents.

    python -m benchmarks.scaling                                  all four on a small encoder; plots (SVG) and a page
    python -m benchmarks.scaling --what length --model modern_base --batch-tokens 65536 --device cuda

Documents are random tokens, so that only one thing changes. `length`: documents as long as the encoder reads, 128 to 8,192
tokens. `vocab`: vocabularies of 8k to 128k with documents of 128. `ranks`: processes that share one batch and the threads.
`documents`: log-normal document lengths of different means, all read at 512.
"""

import argparse
import base64
import html
import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.measure import in_child, machine, machine_line, markdown, model_shape, report, shown, spread
from common.errors import UserError, command
from common.files import write_text
from data.packing import SPECIALS, stream

GRIDS = {
    "length": [128, 256, 512, 1024, 2048, 4096, 8192],
    "vocab": [8000, 16000, 32000, 64000, 128000],
    "ranks": [1, 2],
    "documents": [16, 32, 64, 128, 256, 510],
}
AXES = {
    "length": "tokens of every document",
    "vocab": "tokens",
    "ranks": "processes",
    "documents": "mean tokens of text a document",
}
SIGMA = 0.8  # of the log-normal lengths: the longest tenth holds a third of the tokens


def work_of(what: str, value: int, options: argparse.Namespace) -> tuple[dict[str, Any], int]:
    """The work of one point and its number of ranks."""
    length = value if what == "length" else 512 if what == "documents" else 128
    vocab = value if what == "vocab" else options.vocab
    total = options.batch_tokens * (options.steps + options.warmup + 4)
    if what == "documents":
        draw = stream(0).lognormal(np.log(value) - SIGMA**2 / 2, SIGMA, max(64, 2 * total // value))
        lengths = np.clip(draw, 1, 510).astype(int)
    else:
        lengths = np.full(max(4, -(-total // length)), length - SPECIALS)
    work = {
        "shape": model_shape(options.model, vocab_size=vocab, max_length=max(512, length)),
        "random": lengths.tolist(),
        "way": "ours",
        "length": length,
        "masking": "paper",
        "rate": 0.15,
        "batch_tokens": options.batch_tokens,
        "optimizer": "adamw",
        "compile": False,
        "precision": options.precision,
        "device": options.device,
        "warmup": options.warmup,
        "steps": options.steps,
    }
    return work, value if what == "ranks" else 1


def values_here(what: str, values: list[int], device: str) -> list[int]:
    """The values that this machine can measure: on CUDA a rank needs a device of its own. UserError where none can be."""
    if what != "ranks" or device != "cuda":
        return values
    there = torch.cuda.device_count()
    if not (possible := [value for value in values if value <= there]):
        raise UserError(f"--what ranks: this machine has {there} CUDA device(s), a rank needs one.")
    return possible


@command
def main() -> None:
    """Command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scaling", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--what", nargs="+", choices=list(GRIDS), default=list(GRIDS))
    parser.add_argument("--values", type=int, nargs="+", help="of the one thing in --what, instead of its grid")
    parser.add_argument("--model", default="small", help="small, base, large, or a name in conf/model (default small)")
    parser.add_argument("--vocab", type=int, default=16000, help="tokens, where they do not change (default 16000)")
    parser.add_argument("--batch-tokens", type=int, default=8192, help="of a step over all ranks (default 8192)")
    parser.add_argument("--precision", default="auto", help="auto, bf16 or fp32 (default auto)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="over all ranks (default 2)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of every point, in turn (default 3)")
    parser.add_argument("--steps", type=int, default=3, help="measured a run (default 3)")
    parser.add_argument("--warmup", type=int, default=1, help="steps left out before (default 1)")
    parser.add_argument("--out", default="runs/scaling", help="folder for page, tables and numbers (default runs/scaling)")
    options = parser.parse_args()
    pictures = []
    if options.values and len(options.what) != 1:
        raise UserError("--values goes with one --what. Name it.")
    for what in options.what:
        values = values_here(what, options.values or GRIDS[what], options.device)
        runs: dict[int, list[dict[str, Any]]] = {value: [] for value in values}
        for _ in range(options.repeats):
            for value in values:
                work, ranks = work_of(what, value, options)
                runs[value].append(in_child("benchmarks.peers", work, max(1, options.threads // ranks), ranks))
        pictures.append(table_and_plot(what, runs, options))
    page = "\n".join(
        f'<h2>{what}</h2>\n<img src="data:image/png;base64,{image}">\n<pre>{html.escape(text)}</pre>'
        for what, text, image in pictures
    )
    head = f"<p>{html.escape(machine_line(machine(options.threads)))}; model {html.escape(options.model)}</p>"
    write_text(
        Path(options.out) / "scaling.html", f'<!doctype html><meta charset="utf-8"><title>scaling</title>\n{head}\n{page}\n'
    )
    print(f"plots: {Path(options.out) / 'scaling.html'}")


def table_and_plot(what: str, runs: dict[int, list[dict[str, Any]]], options: argparse.Namespace) -> tuple[str, str, str]:
    """Print one table; returns its name, its text and its plot (PNG in base64)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    speeds = {value: spread([run["tokens_per_second"] for run in taken]) for value, taken in runs.items()}
    peaks = {value: spread([run["peak_bytes"] for run in taken])["median"] / 1e6 for value, taken in runs.items()}
    floors = {value: spread([run["mfu"] for run in taken])["median"] for value, taken in runs.items()}
    rows = [[f"{value:,}", shown(speeds[value]), f"{peaks[value]:,.0f}", f"{floors[value]:.0%}"] for value in runs]
    table = markdown([AXES[what], "real tokens/s, median (range)", "peak MB of a process", "MFU"], rows)
    note = f"{options.model}, {options.vocab:,} tokens unless they change, {options.batch_tokens:,} tokens a step."
    found = {"machine": machine(options.threads), "options": vars(options), "runs": {str(v): r for v, r in runs.items()}}
    report(f"scaling {what} {options.device}", table, [note], found, options.out)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.2))
    left.plot(list(runs), [speeds[value]["median"] for value in runs], marker="o")
    left.fill_between(list(runs), *([speeds[value][end] for value in runs] for end in ("least", "most")), alpha=0.2)
    left.set(ylabel="real tokens a second", ylim=(0, 1.1 * max(speed["most"] for speed in speeds.values())))
    right.plot(list(runs), [peaks[value] for value in runs], marker="o", color="tab:red")
    right.set(ylabel="peak MB of a process", ylim=(0, 1.1 * max(peaks.values())))
    for axes in (left, right):
        axes.set(xlabel=AXES[what])
        axes.set_xscale("log", base=2)
        axes.set_xticks(list(runs), [f"{value:,}" for value in runs], rotation=30)
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.tight_layout()
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110)
    figure.savefig(Path(options.out) / f"{what}.svg")
    pyplot.close(figure)
    return what, table, base64.b64encode(picture.getvalue()).decode()


if __name__ == "__main__":
    sys.exit(main())
