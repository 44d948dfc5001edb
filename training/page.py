"""A page about pre-training runs: status, curves and cost, from the files in their folders.

    python -m training.page RUN_DIR... [--out report.html]      runs/demo/pretrain; several runs are shown together

It also works during a run. The same files give the same bytes: date, commit, command and machine are those recorded by the
runs.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.errors import command
from common.files import read_json, read_jsonl, write_text
from common.html import GRID, SERIES, SORT, page, plain, shortened, svg, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STYLE = "\n.curve svg { max-width: 54rem; }\n"
FACTS = {
    "steps": "steps",
    "tokens": "tokens",
    "hours": "hours",
    "parameters": "parameters",
    "device": "device",
    "tokens_per_second": "tokens a second",
}
HELDOUT = {
    "loss": "held-out loss",
    "accuracy": "accuracy",
    "bits_per_character": "bits per character",
    "frequency_bits_per_character": "by token frequencies alone",
}

HEALTH = {  # curves of a run by group: caption and unit
    "weights": ("root mean square of the weights", "root mean square"),
    "gradients": ("norm of the gradients, before clipping", "norm"),
    "seconds": ("seconds besides training since the line before", "seconds"),
}


def named_runs(runs: Sequence[str | Path]) -> dict[str, Path]:
    """{name: folder}: a run has the name of its folder, with as many parent folders as needed to make it unique."""
    places = list(dict.fromkeys(Path(run).resolve() for run in runs))
    for depth in range(1, 1 + max((len(place.parts) for place in places), default=0)):
        names = ["/".join(place.parts[-depth:]) for place in places]
        if len(set(names)) == len(names):
            return dict(zip(names, places, strict=True))
    return {}


def write_page(runs: Sequence[str | Path], out: str | Path, title: str = "Pre-training") -> None:
    """Write the page of `runs` to the file `out`. Raises UserError for a folder without metrics.jsonl."""
    places = named_runs(runs)
    curves = {name: read_curves(run) for name, run in places.items()}
    done = [run / "summary.json" for run in places.values()]
    summaries = {name: read_json(path) if path.exists() else {} for name, path in zip(places, done, strict=True)}
    write_text(out, pretraining_page(title, curves, summaries, origin_of_runs(list(places.values()))))


def read_curves(run: str | Path) -> dict[str, list[tuple[int, Any]]]:
    """{"train": [(step, loss)], "heldout": [(step, {...})], "weights": [(step, {group: root mean square})]} of a run.

    From its metrics.jsonl, and in the same shape "gradients" (norms by group) and "seconds" (by what the loop did besides
    training since the line before). A list is empty if the run did not log it.
    """
    curves: dict[str, list[tuple[int, Any]]] = {"train": [], "heldout": [], "weights": [], "gradients": [], "seconds": []}
    for _, row in read_jsonl(Path(run) / "metrics.jsonl"):
        if isinstance(row.get("heldout"), dict):
            curves["heldout"].append((row.get("step", 0), row["heldout"]))
        if isinstance(row.get("sizes"), dict):
            for key in ("weights", "gradients"):
                curves[key].append((row.get("step", 0), row["sizes"].get(key) or {}))
        if isinstance(row.get("seconds"), dict):
            curves["seconds"].append((row.get("step", 0), row["seconds"]))
        if isinstance(row.get("loss"), int | float):
            curves["train"].append((row.get("step", 0), row["loss"]))
    return curves


def origin_of_runs(folders: Sequence[str | Path]) -> dict[str, str]:
    """Date, commit, command and machine of the runs below `folders`, as they recorded them: equal files give equal text.

    The date is that of the newest run; of several commits, commands and machines the most frequent is named, others counted.
    """
    places = sorted({path.parent for folder in folders for path in Path(folder).glob("**/environment.json")})
    found: dict[str, Counter] = {"commit": Counter(), "command": Counter(), "machine": Counter()}
    for place in places:
        run = read_json(place / "environment.json")
        found["commit"][(str(run.get("commit") or "")[:12] + " with changes" * bool(run.get("changed"))).strip()] += 1
        words = run.get("command") or []
        found["command"][shortened(" ".join(["python", Path(words[0]).name, *words[1:]])) if words else ""] += 1
        found["machine"][" ".join(str(run[key]) for key in ("system", "gpu") if run.get(key))] += 1
    origin = {}
    for name, counts in found.items():
        known = sorted((value for value in counts if value), key=lambda value: (-counts[value], value))
        origin[name] = known[0] + (f" (and {len(known) - 1} more)" if len(known) > 1 else "") if known else ""
    # Metrics.jsonl: of an unfinished run.
    files = [place / name for place in places for name in ("summary.json", "metrics.jsonl")]
    times = [file.stat().st_mtime for file in files if file.exists()]
    origin["date"] = f"{datetime.fromtimestamp(max(times)):%Y-%m-%d}" if times else ""
    return origin


def pretraining_page(title: str, curves: dict[str, Any], runs: dict[str, dict[str, Any]], origin: dict[str, str] | None) -> str:
    """The page as HTML: a summarising sentence, the curves of all runs, and the last figures and cost of each.

    `curves`: results of `read_curves` by name; `runs`: the summary of each, {} if it is unfinished.
    """
    told = [key for key in FACTS if any(run.get(key) is not None for run in runs.values())]
    facts = [["run", *(FACTS[key] for key in told)]]
    facts += [[name, *(_number(run.get(key)) for key in told)] for name, run in runs.items()]
    sections = [("curves", "Curves", pretraining_section(curves))]
    if told:
        sections.append(("runs", "Cost", table(facts, "sortable")))
    return page(title, f"<p>{escape(verdict(curves, runs))}</p>", sections, STYLE, SORT, origin)


def verdict(curves: dict[str, Any], runs: dict[str, dict[str, Any]]) -> str:
    """One sentence about the state of the runs, as text; of several the best is named."""
    last = {name: run["heldout"][-1] for name, run in curves.items() if run["heldout"]}
    bits = {name: values.get("bits_per_character") for name, (_, values) in last.items()}
    bits = {name: value for name, value in bits.items() if value is not None}
    if not bits:
        return "No held-out score yet."
    best = min(bits, key=lambda name: (bits[name], name))
    step, values = last[best]
    said = f"{best} {'ended' if runs.get(best) else 'stands'} at {bits[best]:.3f} held-out bits per character (step {step:,})"
    if known := values.get("frequency_bits_per_character"):
        said += f"; token frequencies alone would give {known:.3f}"
    others = sorted((value, name) for name, value in bits.items() if name != best)
    return said + (f"; next of {len(bits)} runs is {others[0][1]} with {others[0][0]:.3f}." if others else ".")


def pretraining_section(curves: dict[str, Any]) -> str:
    """The last held-out score of each run and all plots, as HTML."""
    last = [["run", "step", *HELDOUT.values()]]
    for name, run in curves.items():
        if run["heldout"]:
            step, value = run["heldout"][-1]
            last.append([name, f"{step:,}", *(_number(value.get(key)) for key in HELDOUT)])
    plots = pretraining_plots(curves)
    figures = "".join(f'<figure class="curve"><figcaption>{escape(c)}</figcaption>{plot}</figure>' for c, plot in plots)
    return (table(last, "sortable") if len(last) > 1 else "") + (figures or "<p>No curve in metrics.jsonl.</p>")


def pretraining_plots(curves: dict[str, dict[str, list[tuple[int, Any]]]]) -> list[tuple[str, str]]:
    """(caption, svg) of the loss curves of all runs, and of bits per character by source for each run."""
    losses: dict[str, list[tuple[float, float]]] = {}
    whole: dict[str, list[tuple[float, float]]] = {}
    faint = []
    for name, run in curves.items():
        if run["train"]:
            losses[f"{name}, training"] = run["train"]
            faint.append(f"{name}, training")
        held = [(step, value["loss"]) for step, value in run["heldout"] if value.get("loss") is not None]
        if held:
            losses[f"{name}, held-out"] = held
        bits = [(s, v["bits_per_character"]) for s, v in run["heldout"] if v.get("bits_per_character") is not None]
        if bits:
            whole[name] = bits
    plots = []
    if losses:
        plots.append(("Loss of the masked tokens (nats)", lines(losses, "step", "loss", faint)))
    if len(whole) > 1:
        plots.append(("Held-out bits per character, whole", lines(whole, "step", "bits per character")))
    for name, run in curves.items():
        sources: dict[str, list[tuple[float, float]]] = {}
        for step, value in run["heldout"]:
            for source, part in sorted((value.get("sources") or {}).items()):
                if part.get("bits_per_character") is not None:
                    sources.setdefault(source, []).append((step, part["bits_per_character"]))
        if name in whole:
            sources = {"all": whole[name], **sources}
        known = [(s, v["frequency_bits_per_character"]) for s, v in run["heldout"] if v.get("frequency_bits_per_character")]
        if known:
            sources["frequencies alone"] = known
        for key, (caption, unit) in HEALTH.items():
            groups: dict[str, list[tuple[float, float]]] = {}
            for step, sizes in run.get(key, []):
                for group, size in sizes.items():
                    if size is not None:
                        groups.setdefault(group, []).append((step, size))
            if groups:
                plots.append((f"{name}: {caption}", lines(groups, "step", unit)))
        if sources:
            drawn = lines(sources, "step", "bits per character", ["frequencies alone"])
            plots.append((f"{name}: held-out bits per character by source", drawn))
    return plots


def lines(series: dict[str, list[tuple[float, float]]], x: str, y: str, faint: Sequence[str] = ()) -> str:
    """Curves of (x, y) points with a legend; names in `faint` are drawn thin."""

    def draw(axes: "Axes") -> None:
        for number, (name, curve) in enumerate(series.items()):
            colour, thin = SERIES[number % len(SERIES)], name in faint
            # Another line style if there are more curves than colours.
            dashes = (None, (4, 2), (1, 1.5))[number // len(SERIES) % 3]
            xs, ys = [p[0] for p in curve], [p[1] for p in curve]
            marker = "o" if len(curve) == 1 or not (thin or len(curve) > 40) else None
            axes.plot(
                xs,
                ys,
                color=colour,
                dashes=dashes or (),
                lw=0.9 if thin else 1.8,
                alpha=0.7 if thin else 1,
                marker=marker,
                ms=3,
                label=plain(name),
            )
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        axes.grid(color=GRID, lw=0.8)
        axes.tick_params(length=0)
        legend = axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0))
        legend.set_in_layout(True)

    return svg(draw, 7.2, 3.2)


def _number(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"


@command
def main(arguments: list[str] | None = None) -> None:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.page", description=__doc__.split("\n", 1)[0])
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="folders of train.py, with metrics.jsonl")
    parser.add_argument("--out", help="the .html file (default: report.html in the first folder)")
    parser.add_argument("--title", default="Pre-training")
    options = parser.parse_args(arguments)
    out = Path(options.out) if options.out else Path(options.runs[0]) / "report.html"
    write_page(options.runs, out, options.title)
    print(out)


if __name__ == "__main__":
    sys.exit(main())
