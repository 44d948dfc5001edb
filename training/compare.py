"""Compare runs by setting: mean and interval over seeds, as one table and one page.

    python -m training.compare runs/demo/sweep [RUN...] [--metric heldout.loss] [--out compare.html]

RUN is a folder of train.py or finetune.py, or one that holds such folders (a sweep). Runs that differ in nothing but
their seed are one row. The interval is Student's over seeds, 95 %; a row of one seed has none. Unfinished runs are named and
left out. The same files give the same bytes.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from omegaconf import OmegaConf

from common.errors import UserError, command
from common.files import read_json, write_text
from common.html import ACCENT, GRID, MUTED, SORT, page, plain, svg, table
from evaluation.statistics import student_half
from training.identity import NEUTRAL
from training.page import origin_of_runs
from training.tracking import flatten

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Besides NEUTRAL: where a run lies, and what it costs, are no settings that a sweep compares.
PLACES = ("name", "workdir", "corpus_dir", "tokenizer_dir", "shards_dir", "heldout_file", "price_per_hour", "out", "seed")
SHOWN = {  # figures of summary.json, in the table's order
    "heldout.bits_per_character": "bits per character",
    "heldout.loss": "held-out loss",
    "dev_score": "dev score",
    "test_score": "test score",
    "hours": "hours",
    "peak_memory_bytes": "peak memory, bytes",
}


@dataclass
class Row:
    """One setting: its differing keys, the seeds, and each figure's values in the order of the seeds."""

    setting: dict[str, Any]
    seeds: list[int]
    values: dict[str, list[float]]


def find_runs(places: Sequence[str | Path]) -> list[Path]:
    """The run folders in `places`, sorted; UserError for a place without any."""
    found: set[Path] = set()
    for place in map(Path, places):
        own = {
            path.parent for path in place.glob("**/config.yaml") if "wandb" not in path.parts and path.parent.name[:1] != "."
        }
        if not own:
            raise UserError(f"{place}: no run there (a folder with config.yaml). Give folders of train.py or of a sweep.")
        found |= {path.resolve() for path in own}
    return sorted(found)


def compare(runs: Sequence[Path]) -> list[Row]:
    """One row a setting, sorted by setting. UserError if no run is finished."""
    read: dict[Path, tuple[dict[str, Any], dict[str, Any]]] = {}
    for run in runs:
        summary = read_json(run / "summary.json") if (run / "summary.json").exists() else {}
        if summary.get("status") != "done":
            print(f"compare: {run} is not finished, left out", file=sys.stderr)
            continue
        config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
        settings = flatten(config)  # type: ignore[arg-type]
        kept = {key: value for key, value in settings.items() if key.split(".")[0] not in (*NEUTRAL, *PLACES)}
        read[run] = kept, {**flatten(summary), "seed": settings.get("seed", summary.get("seed", 0))}
    if not read:
        raise UserError(f"none of {len(runs)} runs is finished. Start the same sweep again; finished jobs are skipped.")
    keys = sorted({key for settings, _ in read.values() for key in settings})
    differing = [key for key in keys if len({repr(settings.get(key)) for settings, _ in read.values()}) > 1]
    groups: dict[str, dict[int, tuple[Path, dict[str, Any]]]] = defaultdict(dict)
    named: dict[str, dict[str, Any]] = {}
    for run, (settings, summary) in read.items():
        setting = {key: settings.get(key) for key in differing}
        name = repr(setting)
        if summary["seed"] in groups[name]:
            other = groups[name][summary["seed"]][0]
            print(f"compare: {run} has the settings and the seed of {other}, left out", file=sys.stderr)
            continue
        named[name], groups[name][summary["seed"]] = setting, (run, summary)
    rows = []
    for name in sorted(groups, key=lambda name: [_order(value) for value in named[name].values()]):
        seeds = sorted(groups[name])
        summaries = [groups[name][seed][1] for seed in seeds]
        figures = [*SHOWN, *sorted({key for summary in summaries for key in summary if key.startswith("tasks.")})]
        values = {key: [summary.get(key) for summary in summaries] for key in figures}
        whole = {key: found for key, found in values.items() if all(isinstance(x, int | float) for x in found)}
        rows.append(Row(named[name], seeds, whole))
    return rows


def _order(value: Any) -> tuple[int, float, str]:
    """Numbers by value, then everything else by its text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (0, float(value), "") if is_number else (1, 0.0, str(value))


def label(row: Row) -> str:
    """The setting of a row in words."""
    return ", ".join(f"{key}={'null' if value is None else value}" for key, value in row.setting.items()) or "all"


def cells(rows: Sequence[Row]) -> list[list[str]]:
    """The table as text, head first."""
    figures = [key for key in dict.fromkeys(key for row in rows for key in row.values)]
    body = [["setting", "seeds", *(SHOWN.get(key, key) for key in figures)]]
    for row in rows:
        line = [label(row), str(len(row.seeds))]
        for key in figures:
            if key not in row.values:
                line.append("")
                continue
            mean, half = float(np.mean(row.values[key])), student_half(row.values[key])
            digits = ",.0f" if abs(mean) >= 1e4 else ".4f"
            line.append(f"{mean:{digits}}" if half is None else f"{mean:{digits}} ± {half:{digits}}")
        body.append(line)
    return body


def plot(rows: Sequence[Row], metric: str) -> str:
    """Mean, interval and the single seeds of every setting, one below the other, as <svg>."""

    def draw(axes: "Axes") -> None:
        for place, row in enumerate(rows):
            if metric not in row.values:
                continue
            mean, half = float(np.mean(row.values[metric])), student_half(row.values[metric])
            axes.plot(row.values[metric], [place] * len(row.values[metric]), "o", ms=3, color=MUTED, alpha=0.6)
            axes.errorbar(mean, place, xerr=half, fmt="o", ms=6, color=ACCENT, capsize=3)
        axes.set_yticks(range(len(rows)), [plain(label(row)) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(SHOWN.get(metric, metric))
        axes.grid(color=GRID, lw=0.8, axis="x")
        axes.tick_params(length=0)

    return svg(draw, 8.0, 1.0 + 0.32 * len(rows))


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.compare", description=__doc__.split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", metavar="RUN", help="folders of runs, or of sweeps")
    parser.add_argument("--metric", help="the figure of the plot (default: the first of the table)")
    parser.add_argument("--out", help="the .html file (default: compare.html in the first folder)")
    options = parser.parse_args(arguments)
    runs = find_runs(options.runs)
    rows = compare(runs)
    known = list(dict.fromkeys(key for row in rows for key in row.values))
    if not known or (options.metric and options.metric not in known):
        raise UserError(f"--metric {options.metric}: none of {', '.join(known) or 'these runs has a figure'}.")
    metric, body = options.metric or known[0], cells(rows)
    widths = [max(len(line[column]) for line in body) for column in range(len(body[0]))]
    for line in body:
        print(
            "  ".join(
                cell.ljust(width) if n == 0 else cell.rjust(width)
                for n, (cell, width) in enumerate(zip(line, widths, strict=True))
            )
        )
    lead = f"{len(rows)} settings, {sum(len(row.seeds) for row in rows)} runs; mean over seeds and its 95 % interval."
    sections = [("table", "Settings", table(body, "sortable")), ("plot", SHOWN.get(metric, metric), plot(rows, metric))]
    out = Path(options.out) if options.out else Path(options.runs[0]) / "compare.html"
    write_text(out, page("Runs compared", f"<p>{lead}</p>", sections, script=SORT, origin=origin_of_runs(runs)))
    print(out)


if __name__ == "__main__":
    sys.exit(main())
